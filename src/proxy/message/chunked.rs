//! A chunked body (RFC 9112, 7.1), by the letter.

use bytes::{Buf as _, Bytes};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;

use super::super::fault::Fault;
use super::super::octets::plain;
use super::grammar::{self, Field};

/// Where in the body the next byte stands.
#[derive(Debug, Default)]
pub struct Chunked {
    at: At,
    /// Bytes of extensions so far, of all chunks.
    extensions: usize,
    /// Lines behind the last chunk, and where the one begins that is not whole.
    trailers: Vec<u8>,
    line: usize,
    /// Nothing is taken that only a generous parser takes.
    strict: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// A chunk's size, of which so many digits came.
    Size(u64, u32),
    Extension(u64),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    Trailers,
    /// Trailers came, and were not handed on.
    Told,
    Over,
}

impl Default for At {
    fn default() -> Self {
        Self::Size(0, 0)
    }
}

impl Chunked {
    /// For a request: others may have read it before us, and otherwise.
    pub fn strict() -> Self {
        Self { strict: true, ..Self::default() }
    }

    /// Takes the next piece of these bytes, and what frames it; `None` if more must come, or nothing does.
    ///
    /// # Errors
    ///
    /// The first byte is at fault.
    pub fn decode(&mut self, bytes: &mut Bytes) -> Result<Option<Frame<Bytes>>, Fault> {
        self.pass_framing(bytes)?;
        match self.at {
            At::Data(left) if !bytes.is_empty() => {
                let here = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                let data = bytes.split_to(here);
                let left = left - here as u64;
                self.at = if left == 0 { At::DataCr } else { At::Data(left) };
                // The end is known with the last piece, if it is there. A fault in it is told when it is its turn.
                let _ = self.pass_framing(bytes);
                Ok(Some(Frame::data(data)))
            }
            At::Told => {
                self.at = At::Over;
                let trailers = trailers_of(&std::mem::take(&mut self.trailers), self.strict)?;
                Ok(Some(Frame::trailers(trailers)))
            }
            _ => Ok(None),
        }
    }

    /// Whether all was handed on.
    pub fn is_over(&self) -> bool {
        self.at == At::Over
    }

    fn pass_framing(&mut self, bytes: &mut Bytes) -> Result<(), Fault> {
        while let Some(byte) = bytes.first() {
            if matches!(self.at, At::Data(_) | At::Told | At::Over) {
                break;
            }
            self.at = self.step(*byte)?;
            bytes.advance(1);
        }
        Ok(())
    }

    fn step(&mut self, byte: u8) -> Result<At, Fault> {
        Ok(match self.at {
            At::Size(size, digits) => match (char::from(byte).to_digit(16), byte) {
                (Some(digit), _) if digits < MOST_DIGITS => {
                    At::Size(size << 4 | u64::from(digit), digits + 1)
                }
                (None, b'\r') if digits > 0 => At::SizeLf(size),
                // Blanks before an extension are bad whitespace, which a recipient must take (RFC 9112, 7.1.1).
                (None, b' ' | b'\t') if digits > 0 && !self.strict => At::Extension(size),
                (None, b';') if digits > 0 => At::Extension(size),
                _ => return Err(Fault::Chunk),
            },
            At::Extension(size) if byte == b'\r' => At::SizeLf(size),
            At::Extension(size) => {
                self.extensions += 1;
                let is_none = byte == b'\n' || self.strict && plain(&[byte]) == 0;
                if is_none || self.extensions > MOST_EXTENSIONS {
                    return Err(Fault::Chunk);
                }
                At::Extension(size)
            }
            At::SizeLf(0) if byte == b'\n' => At::Trailers,
            At::SizeLf(size) if byte == b'\n' => At::Data(size),
            At::DataCr if byte == b'\r' => At::DataLf,
            At::DataLf if byte == b'\n' => At::default(),
            At::SizeLf(_) | At::DataCr | At::DataLf => return Err(Fault::Chunk),
            At::Trailers => {
                self.trailers.push(byte);
                if self.trailers.len() > LONGEST_TRAILERS {
                    return Err(Fault::Trailer);
                }
                // Whether a line is one is seen at its end.
                let line = if byte == b'\n' { grammar::field(&self.trailers[self.line..])? } else { None };
                match line {
                    Some((Field::End, _)) if self.line == 0 => {
                        self.trailers = Vec::new();
                        At::Over
                    }
                    Some((Field::End, _)) => At::Told,
                    Some((Field::Field { .. }, taken)) => {
                        self.line += taken;
                        At::Trailers
                    }
                    None => At::Trailers,
                }
            }
            At::Data(_) | At::Told | At::Over => self.at,
        })
    }
}

fn trailers_of(mut lines: &[u8], strict: bool) -> Result<HeaderMap, Fault> {
    let mut trailers = HeaderMap::new();
    while let Some((Field::Field { name, value }, taken)) = grammar::field(lines)? {
        lines = &lines[taken..];
        let name = super::name(name)?;
        if strict && OF_HEADS.contains(&name) {
            return Err(Fault::Trailer);
        }
        let value = HeaderValue::from_bytes(value).map_err(|_| Fault::Value)?;
        trailers.append(name, value);
    }
    Ok(trailers)
}

/// What frames a message or says whose it is has no place behind it.
static OF_HEADS: [HeaderName; 3] = [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING];

const MOST_DIGITS: u32 = 16;

/// Of all chunks of a body together.
pub const MOST_EXTENSIONS: usize = 16 << 10;

const LONGEST_TRAILERS: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// What these bytes say, read in pieces of that size: data, trailers, whether it is over, what is left.
    fn read(bytes: &str, size: usize) -> Result<(String, Vec<String>, bool, String), Fault> {
        let mut chunked = Chunked::default();
        let (mut data, mut trailers) = (Vec::new(), Vec::new());
        let mut rest = Bytes::new();
        for piece in bytes.as_bytes().chunks(size) {
            rest = [&rest[..], piece].concat().into();
            while let Some(frame) = chunked.decode(&mut rest)? {
                match frame.into_data() {
                    Ok(more) => data.extend_from_slice(&more),
                    Err(frame) => {
                        let fields = frame.into_trailers().expect("trailers");
                        trailers.extend(fields.keys().map(ToString::to_string));
                    }
                }
            }
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((text(&data), trailers, chunked.is_over(), text(&rest)))
    }

    #[test]
    fn body_is_the_same_however_it_comes() {
        let bytes =
            "5\r\nhello\r\n0006;a=\"b\"\r\n world\r\nA ;x\r\n0123456789\r\n0\r\nx: 1\r\ny: 2\r\n\r\nnext";
        for size in 1..bytes.len() {
            let (data, trailers, over, rest) = read(bytes, size).expect("sound");
            assert_eq!(
                (data.as_str(), over, rest.as_str()),
                ("hello world0123456789", true, "next"),
                "{size}"
            );
            assert_eq!(trailers, ["x", "y"]);
        }
    }

    #[test]
    fn end_is_known_with_the_last_piece() {
        let mut chunked = Chunked::default();
        let mut bytes = Bytes::from_static(b"2\r\nok\r\n0\r\n\r\n");
        assert!(chunked.decode(&mut bytes).expect("sound").is_some());
        assert!(chunked.is_over() && bytes.is_empty());
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        for bytes in [
            "\r\n",
            "x\r\n",
            "+5\r\nhello\r\n",
            "0x5\r\n",
            "-1\r\n",
            " 5\r\nhello\r\n",
            "5\nhello\r\n",
            "5\r\nhelloo\r\n",
            "5\r\nhello\n0\r\n",
            "5\rhello",
            "5;a\nhello",
            "11111111111111111\r\n",
            "0\r\nno field\r\n\r\n",
            "0\r\na b: 1\r\n\r\n",
            "0\r\n folded\r\n\r\n",
            "0\r\nx: \u{1}\r\n\r\n",
        ] {
            for size in [1, 3, bytes.len()] {
                assert!(read(bytes, size).is_err(), "{bytes:?} by {size}");
            }
        }
        let long = format!("5;{}\r\nhello\r\n", "a".repeat(MOST_EXTENSIONS + 1));
        assert_eq!(read(&long, 100), Err(Fault::Chunk));
        let long = format!("0\r\nx: {}\r\n\r\n", "a".repeat(LONGEST_TRAILERS));
        assert_eq!(read(&long, 100), Err(Fault::Trailer));
    }

    #[test]
    fn body_that_is_not_all_there_is_not_over() {
        for bytes in ["", "5", "5\r\nhel", "5\r\nhello\r\n", "0\r\n", "0\r\n\r", "0\r\nx: 1\r\n"] {
            assert!(!read(bytes, 1).expect("sound so far").2, "{bytes:?}");
        }
    }
}
