//! What a request's head says of its body, gathered byte by byte for `wire`.

use super::fault::Fault;
use super::octets::{is_token, run};

/// A request's body, as its head announces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(u64),
    Chunked,
}

impl Framing {
    /// How long the body is, if its head says so.
    pub fn length(self) -> Option<u64> {
        match self {
            Self::None => Some(0),
            Self::Length(length) => Some(length),
            Self::Chunked => None,
        }
    }
}

/// Of the head, or the trailers, that are being read.
#[derive(Debug, Default)]
pub struct Head {
    /// In the trailers.
    pub trailers: bool,
    /// Of HTTP/1.0.
    pub old: bool,
    /// Bytes of chunk extensions so far.
    pub extensions: usize,
    /// Bytes of the request line so far.
    line: usize,
    host: bool,
    length: Option<u64>,
    digits: u32,
    chunked: bool,
    /// The field that the current name may turn out to be, and how many of its letters came.
    known: Option<Known>,
    letters: usize,
}

/// How a value is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// It must not have control characters, and means nothing here.
    Any,
    /// Of Content-Length.
    Digits(Part),
    /// Of Transfer-Encoding; that many letters came.
    Coding(Part, usize),
}

/// Where in a value: blanks, the value, blanks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Before,
    Within,
    After,
}

/// The fields that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Host,
    ContentLength,
    TransferEncoding,
}

impl Head {
    /// Counts bytes of the request line.
    pub fn line(&mut self, bytes: usize) -> Result<(), Fault> {
        self.line += bytes;
        if self.line > LONGEST_LINE { Err(Fault::LongLine) } else { Ok(()) }
    }

    /// Reads the first letters of a field's name; says how many.
    pub fn begin_name(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        self.known = Known::beginning(bytes[0]);
        self.letters = 0;
        self.name(bytes)
    }

    /// Reads on in a field's name; says how many letters.
    pub fn name(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let letters = run(bytes, is_token);
        if letters == 0 {
            return Err(line_end_or(bytes[0], Fault::Name));
        }
        if let Some(known) = self.known {
            let rest = &known.name()[self.letters..];
            if rest.get(..letters).is_some_and(|part| part.eq_ignore_ascii_case(&bytes[..letters])) {
                self.letters += letters;
            } else {
                self.known = None;
            }
        }
        Ok(letters)
    }

    /// The name is whole: how its value is read.
    pub fn colon(&mut self) -> Result<Value, Fault> {
        let Some(known) = self.known.filter(|known| self.letters == known.name().len()) else {
            return Ok(Value::Any);
        };
        if self.trailers {
            return Err(Fault::Trailer);
        }
        match known {
            Known::Host if self.host => Err(Fault::Host),
            Known::Host => {
                self.host = true;
                Ok(Value::Any)
            }
            Known::ContentLength if self.chunked => Err(Fault::TwoLengths),
            Known::ContentLength if self.length.is_some() => Err(Fault::ContentLength),
            Known::ContentLength => {
                self.length = Some(0);
                Ok(Value::Digits(Part::Before))
            }
            Known::TransferEncoding if self.length.is_some() => Err(Fault::TwoLengths),
            Known::TransferEncoding if self.chunked || self.old => Err(Fault::TransferEncoding),
            Known::TransferEncoding => {
                self.chunked = true;
                Ok(Value::Coding(Part::Before, 0))
            }
        }
    }

    /// Reads one byte of a value; `None` if it ends the line.
    pub fn value(&mut self, value: Value, byte: u8) -> Result<Option<Value>, Fault> {
        match value {
            Value::Any => Ok(Some(Value::Any)),
            Value::Digits(part) => self.digit(part, byte).map(|part| part.map(Value::Digits)),
            Value::Coding(part, letters) => coding(part, letters, byte),
        }
    }

    fn digit(&mut self, part: Part, byte: u8) -> Result<Option<Part>, Fault> {
        match (part, byte) {
            (Part::Before | Part::Within, b'0'..=b'9') if self.digits < MOST_DIGITS => {
                self.digits += 1;
                // 19 digits always fit.
                self.length = self.length.map(|length| length * 10 + u64::from(byte - b'0'));
                Ok(Some(Part::Within))
            }
            (Part::Within | Part::After, b'\r') => Ok(None),
            (Part::Before, b' ' | b'\t') => Ok(Some(Part::Before)),
            (Part::Within | Part::After, b' ' | b'\t') => Ok(Some(Part::After)),
            _ => Err(line_end_or(byte, Fault::ContentLength)),
        }
    }

    /// The head is whole: what it says.
    pub fn framing(&self) -> Result<Framing, Fault> {
        match self.length {
            _ if !self.host && !self.old => Err(Fault::Host),
            _ if self.chunked => Ok(Framing::Chunked),
            Some(length) => Ok(Framing::Length(length)),
            None => Ok(Framing::None),
        }
    }
}

fn coding(part: Part, letters: usize, byte: u8) -> Result<Option<Value>, Fault> {
    let whole = letters == CHUNKED.len();
    match byte {
        b'\r' if whole => Ok(None),
        b' ' | b'\t' if part == Part::Before => Ok(Some(Value::Coding(Part::Before, 0))),
        b' ' | b'\t' if whole => Ok(Some(Value::Coding(Part::After, letters))),
        _ if part != Part::After && CHUNKED.get(letters) == Some(&byte.to_ascii_lowercase()) => {
            Ok(Some(Value::Coding(Part::Within, letters + 1)))
        }
        _ => Err(line_end_or(byte, Fault::TransferEncoding)),
    }
}

impl Known {
    /// What a name may be, by its first letter.
    fn beginning(letter: u8) -> Option<Self> {
        match letter | 0x20 {
            b'h' => Some(Self::Host),
            b'c' => Some(Self::ContentLength),
            b't' => Some(Self::TransferEncoding),
            _ => None,
        }
    }

    const fn name(self) -> &'static [u8] {
        match self {
            Self::Host => b"host",
            Self::ContentLength => b"content-length",
            Self::TransferEncoding => b"transfer-encoding",
        }
    }
}

/// The fault of a byte that stands where it must not.
pub fn line_end_or(byte: u8, fault: Fault) -> Fault {
    if byte == b'\n' { Fault::BareLf } else { fault }
}

const CHUNKED: &[u8] = b"chunked";

pub const LONGEST_LINE: usize = 16 << 10;

const MOST_DIGITS: u32 = 19;
