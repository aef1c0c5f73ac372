//! Frames of HTTP/2 by hand (RFC 9113, 4 and 6), for what no library would send.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// A frame as it came, or is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("frames are short");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The next frame; None at the end of the connection, or where it is reset.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Frame> {
    let mut head = [0; HEAD];
    stream.read_exact(&mut head).await.ok()?;
    let (mut frame, length) = Frame::begin(head);
    frame.payload.resize(length, 0);
    stream.read_exact(&mut frame.payload).await.ok()?;
    Some(frame)
}

/// The same without a runtime.
pub fn read_blocking(stream: &mut impl io::Read) -> Option<Frame> {
    let mut head = [0; HEAD];
    stream.read_exact(&mut head).ok()?;
    let (mut frame, length) = Frame::begin(head);
    frame.payload.resize(length, 0);
    stream.read_exact(&mut frame.payload).ok()?;
    Some(frame)
}

impl Frame {
    fn begin(head: [u8; HEAD]) -> (Self, usize) {
        let [a, b, c, kind, flags, stream @ ..] = head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let stream = u32::from_be_bytes(stream) & !(1 << 31);
        (Self { kind, flags, stream, payload: Vec::new() }, length)
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The error code of RST_STREAM or GOAWAY.
    pub fn code(&self) -> Option<u32> {
        let at = match self.kind {
            RST_STREAM => 0,
            GOAWAY => 4,
            _ => return None,
        };
        let code = self.payload.get(at..at + 4)?;
        Some(u32::from_be_bytes(code.try_into().expect("four bytes")))
    }
}

/// Fields as literals without an index (RFC 7541, 6.2.2), so that no library has a say in them.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// A head in as many frames as it takes.
pub fn head(flags: u8, stream: u32, block: &[u8]) -> Vec<u8> {
    let mut parts = block.chunks(LARGEST).peekable();
    let (mut bytes, mut kind, mut flags) = (Vec::new(), HEADERS, flags);
    while let Some(part) = parts.next() {
        let last = if parts.peek().is_none() { END_HEADERS } else { 0 };
        bytes.extend(frame(kind, flags | last, stream, part));
        (kind, flags) = (CONTINUATION, 0);
    }
    bytes
}

/// Bytes of a payload that every peer takes (RFC 9113, 4.2).
const LARGEST: usize = 1 << 14;

/// The length of a string that is not compressed (RFC 7541, 5.1 and 5.2).
fn length(block: &mut Vec<u8>, length: usize) {
    let Some(mut more) = length.checked_sub(127) else { return block.push(length as u8) };
    block.push(127);
    while more >= 128 {
        block.push(more as u8 | 128);
        more >>= 7;
    }
    block.push(more as u8);
}

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a frame's head.
pub const HEAD: usize = 9;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;

#[test]
fn frame_is_read_as_it_was_written() {
    let mut bytes =
        &[frame(DATA, END_STREAM, 3, b"hi"), frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 11])].concat()[..];
    let data = Frame { kind: DATA, flags: END_STREAM, stream: 3, payload: b"hi".to_vec() };
    assert_eq!(read_blocking(&mut bytes), Some(data));
    assert_eq!(read_blocking(&mut bytes).and_then(|frame| frame.code()), Some(11));
    assert_eq!(read_blocking(&mut bytes), None);
    let long = "x".repeat(300);
    assert_eq!(block(&[("a", &long)])[..6], [0, 1, b'a', 127, 173, 1]);
}
