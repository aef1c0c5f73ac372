//! Frames and methods of AMQP 0-9-1 (its specification, sections 2.3.5 and 4.2): what is sent, and what is read of
//! what comes.

use crate::check::CheckError;
use crate::check::peer::Peer;

/// What a client says first (section 4.2.2).
pub(super) const PROTOCOL_HEADER: &[u8] = b"AMQP\0\0\x09\x01";

/// A frame as it came. `kind` 1 is a method.
#[derive(Debug)]
pub(super) struct Frame {
    pub kind: u8,
    pub channel: u16,
    pub payload: Vec<u8>,
}

impl Frame {
    /// Class and method, and the arguments; None for another kind of frame.
    pub(super) fn method(&self) -> Option<((u16, u16), Reader<'_>)> {
        let mut reader = Reader(&self.payload);
        let name = (reader.u16()?, reader.u16()?);
        (self.kind == METHOD).then_some((name, reader))
    }
}

/// Reads one frame of an `awaited` answer.
pub(super) async fn read(peer: &mut Peer, awaited: &str) -> Result<Frame, CheckError> {
    let head = peer.exactly(7, awaited).await?;
    let (kind, channel) = (head[0], u16::from_be_bytes([head[1], head[2]]));
    let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
    if !matches!(kind, METHOD | HEADER | BODY | HEARTBEAT) || length > LONGEST_PAYLOAD {
        return Err(peer.answered(&head, awaited));
    }
    let mut payload = peer.exactly(length as usize + 1, awaited).await?;
    match payload.pop() {
        Some(END) => Ok(Frame { kind, channel, payload }),
        _ => Err(peer.answered(&head, awaited)),
    }
}

/// The frame of a method.
pub(super) fn method(channel: u16, (class, method): (u16, u16), arguments: &[u8]) -> Vec<u8> {
    frame(METHOD, channel, &[&class.to_be_bytes(), &method.to_be_bytes(), arguments].concat())
}

/// The frame that announces the body of a message (section 4.2.6.1), without properties.
pub(super) fn content_header(channel: u16, class: u16, body_bytes: u64) -> Vec<u8> {
    frame(HEADER, channel, &[&class.to_be_bytes()[..], &[0, 0], &body_bytes.to_be_bytes(), &[0, 0]].concat())
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("frames of ours are short");
    [&[kind], &channel.to_be_bytes()[..], &length.to_be_bytes(), payload, &[END]].concat()
}

/// A short string; the caller bounds it to 255 bytes.
pub(super) fn short(text: &str) -> Vec<u8> {
    [&[text.len() as u8], text.as_bytes()].concat()
}

/// A long string; also what surrounds a table.
pub(super) fn long(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("strings of ours are short");
    [&length.to_be_bytes()[..], bytes].concat()
}

/// Takes values from the front of arguments; None where they end early.
#[derive(Debug)]
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(super) fn short(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(length.into())
    }

    pub(super) fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    /// The text with this name in a table (section 4.2.5.5), as far as the table can be read.
    pub(super) fn text(mut self, wanted: &[u8]) -> Option<&'a [u8]> {
        while let Some(name) = self.short() {
            match self.u8()? {
                b'S' if name == wanted => return self.long(),
                b'S' | b'F' | b'A' | b'x' => drop(self.long()?),
                b't' | b'b' | b'B' => drop(self.take(1)?),
                b's' | b'u' => drop(self.take(2)?),
                b'I' | b'i' | b'f' => drop(self.take(4)?),
                b'l' | b'L' | b'd' | b'T' => drop(self.take(8)?),
                b'D' => drop(self.take(5)?),
                b'V' => {}
                _ => return None,
            }
        }
        None
    }
}

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
pub(super) const HEARTBEAT: u8 = 8;
const END: u8 = 0xce;

/// Of one frame, in bytes. RabbitMQ's first is one of 500.
const LONGEST_PAYLOAD: u32 = 64 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_are_those_of_the_standard() {
        assert_eq!(method(0, (10, 51), b""), b"\x01\0\0\0\0\0\x04\0\x0a\0\x33\xce");
        assert_eq!(
            content_header(1, 60, 1),
            b"\x02\0\x01\0\0\0\x0e\0\x3c\0\0\0\0\0\0\0\0\0\x01\0\0\xce",
            "class, weight, size of the body, flags"
        );
        assert_eq!((short("ab"), long(b"ab")), (b"\x02ab".to_vec(), b"\0\0\0\x02ab".to_vec()));
    }

    #[test]
    fn a_text_is_found_behind_values_of_other_types() {
        let table = b"\x01at\x01\x01bF\0\0\0\x02xy\x01cl\0\0\0\0\0\0\0\0\x01dV\x07productS\0\0\0\x02rb";
        assert_eq!(Reader(table).text(b"product"), Some(&b"rb"[..]));
        assert_eq!(Reader(table).text(b"version"), None);
        assert_eq!(Reader(b"\x01a?").text(b"product"), None);
    }

    proptest! {
        #[test]
        fn no_table_makes_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Reader(&bytes).text(b"product");
        }
    }
}
