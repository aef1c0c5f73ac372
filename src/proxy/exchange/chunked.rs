//! A chunked body (RFC 9112, 7.1), by the letter.

use bytes::{Buf as _, Bytes};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;

use super::super::fault::Fault;

/// Where in the body the next byte stands.
#[derive(Debug, Default)]
pub struct Chunked {
    at: At,
    /// Bytes of extensions so far, of all chunks.
    extensions: usize,
    /// Lines behind the last chunk.
    trailers: Vec<u8>,
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
                trailers_of(&std::mem::take(&mut self.trailers))
                    .map(|trailers| Some(Frame::trailers(trailers)))
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
                (None, b';' | b' ' | b'\t') if digits > 0 => At::Extension(size),
                _ => return Err(Fault::Chunk),
            },
            At::Extension(size) => {
                self.extensions += 1;
                match byte {
                    b'\r' => At::SizeLf(size),
                    b'\n' => return Err(Fault::Chunk),
                    _ if self.extensions > MOST_EXTENSIONS => return Err(Fault::Chunk),
                    _ => At::Extension(size),
                }
            }
            At::SizeLf(0) if byte == b'\n' => At::Trailers,
            At::SizeLf(size) if byte == b'\n' => At::Data(size),
            At::DataCr if byte == b'\r' => At::DataLf,
            At::DataLf if byte == b'\n' => At::default(),
            At::SizeLf(_) | At::DataCr | At::DataLf => return Err(Fault::Chunk),
            At::Trailers => {
                self.trailers.push(byte);
                match self.trailers.as_slice() {
                    b"\r\n" => {
                        self.trailers = Vec::new();
                        At::Over
                    }
                    [.., b'\r', b'\n', b'\r', b'\n'] => At::Told,
                    trailers if trailers.len() > LONGEST_TRAILERS => return Err(Fault::Trailer),
                    _ => At::Trailers,
                }
            }
            At::Data(_) | At::Told | At::Over => self.at,
        })
    }
}

fn trailers_of(lines: &[u8]) -> Result<HeaderMap, Fault> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_TRAILERS];
    let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(lines, &mut fields) else {
        return Err(Fault::Trailer);
    };
    let field = |field: &httparse::Header<'_>| {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Fault::Name)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| Fault::Value)?;
        Ok((name, value))
    };
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields.iter().map(field).collect::<Result<Vec<_>, _>>()? {
        trailers.append(name, value);
    }
    Ok(trailers)
}

const MOST_DIGITS: u32 = 16;

/// Of all chunks of a body together.
const MOST_EXTENSIONS: usize = 16 << 10;

const LONGEST_TRAILERS: usize = 16 << 10;

const MOST_TRAILERS: usize = 100;

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
