//! The bytes of an HTTP/1 client, read a second time.
//!
//! hyper reads requests generously: it takes LF for the end of a line and drops a Content-Length beside a
//! Transfer-Encoding, and a service never learns of it. A front proxy that reads the same bytes otherwise would
//! see other requests than the app does. So this parser, which shares nothing with hyper's, follows the same bytes
//! by the letter of RFC 9112; a request is served only if both agree on it (see `stack`).
//!
//! It keeps a few words of state, copies nothing, and skips bodies without a look. After the first fault it follows
//! no further: the connection closes, so nothing after it is a request.

use std::collections::VecDeque;

use super::fault::Fault;
use super::octets::{is_target, is_token, plain, run};

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

/// What is told of one request's head.
pub type Seen = Result<Framing, Fault>;

/// The parser of one connection.
#[derive(Debug)]
pub struct Wire {
    at: At,
    head: Head,
    /// Heads that nobody asked for yet: the next one, and where a client sends ahead, those after it.
    next: Option<Seen>,
    later: VecDeque<Seen>,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// A request line, or an empty line before it (RFC 9112, 2.2).
    Rest,
    RestLf,
    Method,
    Target,
    /// That many bytes of the version came.
    Version(usize),
    LineLf,
    /// The first byte of a field's line, or the empty line.
    Field,
    Name,
    /// A value that only must not have control characters.
    Value,
    /// The value of Content-Length.
    Digits(Part),
    /// The value of Transfer-Encoding, of which that many letters came.
    Coding(Part, usize),
    ValueLf,
    HeadLf,
    /// So many bytes of a body with a length.
    Body(u64),
    /// A chunk's size, of which so many digits came.
    Size(u64, u32),
    Extension(u64),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// A head was refused.
    Refused,
    /// A body broke.
    Broken,
}

/// Where in a value: blanks, the value, blanks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Before,
    Within,
    After,
}

/// Of the head, or the trailers, that are being read.
#[derive(Debug, Default)]
struct Head {
    /// In the trailers.
    trailers: bool,
    /// Bytes of the request line so far.
    line: usize,
    old: bool,
    host: bool,
    length: Option<u64>,
    chunked: bool,
    /// The field that the current name may turn out to be, and how many of its letters came.
    known: Option<Known>,
    letters: usize,
    digits: u32,
    /// Bytes of chunk extensions so far.
    extensions: usize,
}

/// The fields that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Host,
    ContentLength,
    TransferEncoding,
}

impl Wire {
    pub fn new() -> Self {
        Self { at: At::Rest, head: Head::default(), next: None, later: VecDeque::new() }
    }

    /// Follows what was read from the socket, in its order, in any pieces. Says how many of these bytes are sound:
    /// all of them, unless the body of a request broke; then none after that are.
    pub fn see(&mut self, bytes: &[u8]) -> usize {
        let mut seen = 0;
        while seen < bytes.len() {
            match self.at {
                At::Refused => break,
                At::Broken => return seen,
                _ => match self.step(&bytes[seen..]) {
                    Ok(taken) => seen += taken,
                    Err(_) if self.in_body() => self.at = At::Broken,
                    Err(fault) => self.refuse(fault),
                },
            }
        }
        bytes.len()
    }

    /// The head of the next request, if all of it came. `None` where the other parser has one is a disagreement.
    pub fn next_head(&mut self) -> Option<Seen> {
        let next = self.next.take();
        self.next = self.later.pop_front();
        next
    }

    fn push(&mut self, seen: Seen) {
        if self.next.is_none() {
            self.next = Some(seen);
        } else {
            self.later.push_back(seen);
        }
    }

    fn refuse(&mut self, fault: Fault) {
        self.at = At::Refused;
        self.push(Err(fault));
    }

    fn in_body(&self) -> bool {
        self.head.trailers
            || matches!(
                self.at,
                At::Size(..) | At::Extension(_) | At::SizeLf(_) | At::DataCr | At::DataLf | At::Broken
            )
    }

    /// Takes at least one byte, or finds the first one at fault.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let first = bytes[0];
        let mut taken = 1;
        self.at = match self.at {
            At::Rest => match first {
                b'\r' => At::RestLf,
                b'\n' => return Err(Fault::BareLf),
                _ => {
                    self.head = Head::default();
                    taken = run(bytes, is_token);
                    match taken {
                        0 => return Err(Fault::RequestLine),
                        _ => self.line(taken)?,
                    }
                    At::Method
                }
            },
            At::RestLf => lf(first, At::Rest)?,
            At::Method => match run(bytes, is_token) {
                0 if first == b' ' => At::Target,
                0 => return Err(line_end_or(first, Fault::RequestLine)),
                more => {
                    taken = more;
                    self.line(more)?;
                    At::Method
                }
            },
            At::Target => match run(bytes, is_target) {
                // An empty target shows at the version.
                0 if first == b' ' && self.head.letters > 0 => At::Version(0),
                0 if matches!(first, b' ' | b'\r') => return Err(Fault::RequestLine),
                0 => return Err(line_end_or(first, Fault::TargetByte)),
                more => {
                    taken = more;
                    self.line(more)?;
                    self.head.letters = 1;
                    At::Target
                }
            },
            At::Version(seen) => match first {
                b'\r' if seen == VERSION.len() + 1 => At::LineLf,
                _ if VERSION.get(seen) == Some(&first) => At::Version(seen + 1),
                b'0' | b'1' if seen == VERSION.len() => {
                    self.head.old = first == b'0';
                    At::Version(seen + 1)
                }
                _ => return Err(line_end_or(first, Fault::RequestLine)),
            },
            At::Field => match first {
                b'\r' => At::HeadLf,
                b' ' | b'\t' => return Err(Fault::Fold),
                _ => {
                    self.head.known = Known::beginning(first);
                    self.head.letters = 0;
                    taken = self.name(bytes)?;
                    // Two steps in one, for speed; in trailers it matters which byte is at fault.
                    if bytes.get(taken) == Some(&b':') && !self.head.trailers {
                        taken += 1;
                        self.named()?
                    } else {
                        At::Name
                    }
                }
            },
            At::Name if first == b':' => self.named()?,
            At::Name => {
                taken = self.name(bytes)?;
                At::Name
            }
            At::Value => match plain(bytes) {
                0 if first == b'\r' => At::ValueLf,
                0 => return Err(line_end_or(first, Fault::Value)),
                more if bytes[more..].starts_with(b"\r\n") => {
                    taken = more + 2;
                    At::Field
                }
                more => {
                    taken = more;
                    At::Value
                }
            },
            At::Digits(part) => self.digit(part, first)?,
            At::Coding(part, letters) => coding(part, letters, first)?,
            At::LineLf | At::ValueLf => lf(first, At::Field)?,
            At::HeadLf => {
                lf(first, At::Rest)?;
                self.end_of_head()?
            }
            At::Body(left) => {
                let (passed, left) = skip(bytes, left);
                taken = passed;
                if left == 0 { At::Rest } else { At::Body(left) }
            }
            At::Size(size, digits) => match (char::from(first).to_digit(16), first) {
                (Some(digit), _) if digits < MOST_HEX => At::Size(size << 4 | u64::from(digit), digits + 1),
                (None, b'\r') if digits > 0 => At::SizeLf(size),
                (None, b';') if digits > 0 => At::Extension(size),
                _ => return Err(Fault::Chunk),
            },
            At::Extension(size) => match plain(bytes).min(MOST_EXTENSIONS - self.head.extensions) {
                0 if first == b'\r' => At::SizeLf(size),
                0 => return Err(Fault::Chunk),
                more => {
                    taken = more;
                    self.head.extensions += more;
                    At::Extension(size)
                }
            },
            At::SizeLf(0) => {
                let next = lf(first, At::Field)?;
                self.head.trailers = true;
                next
            }
            At::SizeLf(size) => lf(first, At::Data(size))?,
            At::Data(left) => {
                let (passed, left) = skip(bytes, left);
                taken = passed;
                if left == 0 { At::DataCr } else { At::Data(left) }
            }
            At::DataCr if first == b'\r' => At::DataLf,
            At::DataCr => return Err(Fault::Chunk),
            At::DataLf => lf(first, At::Size(0, 0))?,
            At::Refused | At::Broken => self.at,
        };
        Ok(taken)
    }

    /// Counts bytes of the request line.
    fn line(&mut self, bytes: usize) -> Result<(), Fault> {
        self.head.line += bytes;
        if self.head.line > LONGEST_LINE { Err(Fault::LongLine) } else { Ok(()) }
    }

    /// Reads letters of a field's name.
    fn name(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let letters = run(bytes, is_token);
        if letters == 0 {
            return Err(line_end_or(bytes[0], Fault::Name));
        }
        let head = &mut self.head;
        if let Some(known) = head.known {
            let rest = &known.name()[head.letters..];
            if rest.get(..letters).is_some_and(|part| part.eq_ignore_ascii_case(&bytes[..letters])) {
                head.letters += letters;
            } else {
                head.known = None;
            }
        }
        Ok(letters)
    }

    /// The colon came: which field it is, and how its value is read.
    fn named(&mut self) -> Result<At, Fault> {
        let head = &mut self.head;
        let Some(known) = head.known.filter(|known| head.letters == known.name().len()) else {
            return Ok(At::Value);
        };
        if head.trailers {
            return Err(Fault::Trailer);
        }
        match known {
            Known::Host if head.host => Err(Fault::Host),
            Known::Host => {
                head.host = true;
                Ok(At::Value)
            }
            Known::ContentLength if head.chunked => Err(Fault::TwoLengths),
            Known::ContentLength if head.length.is_some() => Err(Fault::ContentLength),
            Known::ContentLength => {
                head.length = Some(0);
                head.digits = 0;
                Ok(At::Digits(Part::Before))
            }
            Known::TransferEncoding if head.length.is_some() => Err(Fault::TwoLengths),
            Known::TransferEncoding if head.chunked || head.old => Err(Fault::TransferEncoding),
            Known::TransferEncoding => {
                head.chunked = true;
                Ok(At::Coding(Part::Before, 0))
            }
        }
    }

    fn digit(&mut self, part: Part, byte: u8) -> Result<At, Fault> {
        let head = &mut self.head;
        match (part, byte) {
            (Part::Before | Part::Within, b'0'..=b'9') if head.digits < MOST_DIGITS => {
                head.digits += 1;
                // 19 digits always fit.
                head.length = head.length.map(|length| length * 10 + u64::from(byte - b'0'));
                Ok(At::Digits(Part::Within))
            }
            (Part::Within | Part::After, b'\r') => Ok(At::ValueLf),
            (Part::Before, b' ' | b'\t') => Ok(At::Digits(Part::Before)),
            (Part::Within | Part::After, b' ' | b'\t') => Ok(At::Digits(Part::After)),
            _ => Err(line_end_or(byte, Fault::ContentLength)),
        }
    }

    fn end_of_head(&mut self) -> Result<At, Fault> {
        let head = &self.head;
        if head.trailers {
            self.head.trailers = false;
            return Ok(At::Rest);
        }
        if !head.host && !head.old {
            return Err(Fault::Host);
        }
        if self.later.len() >= MOST_AHEAD {
            return Err(Fault::Pipeline);
        }
        let (framing, next) = match head.length {
            _ if head.chunked => (Framing::Chunked, At::Size(0, 0)),
            Some(0) => (Framing::Length(0), At::Rest),
            Some(length) => (Framing::Length(length), At::Body(length)),
            None => (Framing::None, At::Rest),
        };
        self.push(Ok(framing));
        Ok(next)
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

fn coding(part: Part, letters: usize, byte: u8) -> Result<At, Fault> {
    let whole = letters == CHUNKED.len();
    match byte {
        b'\r' if whole => Ok(At::ValueLf),
        b' ' | b'\t' if part == Part::Before => Ok(At::Coding(Part::Before, 0)),
        b' ' | b'\t' if whole => Ok(At::Coding(Part::After, letters)),
        _ if part != Part::After && CHUNKED.get(letters) == Some(&byte.to_ascii_lowercase()) => {
            Ok(At::Coding(Part::Within, letters + 1))
        }
        _ => Err(line_end_or(byte, Fault::TransferEncoding)),
    }
}

/// The line ends here, as it must.
fn lf(byte: u8, next: At) -> Result<At, Fault> {
    if byte == b'\n' { Ok(next) } else { Err(Fault::BareCr) }
}

/// The fault of a byte that stands where it must not.
fn line_end_or(byte: u8, fault: Fault) -> Fault {
    if byte == b'\n' { Fault::BareLf } else { fault }
}

/// How many of these bytes belong to a body of which that many are left, and how many are left then.
fn skip(bytes: &[u8], left: u64) -> (usize, u64) {
    let passed = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
    (passed, left - passed as u64)
}

/// Before the last digit.
const VERSION: &[u8] = b"HTTP/1.";

const CHUNKED: &[u8] = b"chunked";

const LONGEST_LINE: usize = 16 << 10;

/// Of all chunks of a body together.
const MOST_EXTENSIONS: usize = 16 << 10;

const MOST_DIGITS: u32 = 19;

const MOST_HEX: u32 = 16;

/// Requests that may come before the first of them is taken; hyper's buffer holds fewer of them by default.
const MOST_AHEAD: usize = 4096;

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
