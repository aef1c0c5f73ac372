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
use super::framing::{Framing, Head, Value, line_end_or};
use super::octets::{is_target, is_token, plain, run};

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
    /// Whether any of it came.
    Target(bool),
    /// That many bytes of the version came.
    Version(usize),
    LineLf,
    /// The first byte of a field's line, or the empty line.
    Field,
    Name,
    Value(Value),
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

    /// Whether nothing came after the last request that was asked for, but for empty lines.
    pub fn is_at_rest(&self) -> bool {
        self.at == At::Rest && self.next.is_none()
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
                        _ => self.head.line(taken)?,
                    }
                    At::Method
                }
            },
            At::RestLf => lf(first, At::Rest)?,
            At::Method => match run(bytes, is_token) {
                0 if first == b' ' => At::Target(false),
                0 => return Err(line_end_or(first, Fault::RequestLine)),
                more => {
                    taken = more;
                    self.head.line(more)?;
                    At::Method
                }
            },
            At::Target(any) => match run(bytes, is_target) {
                0 if first == b' ' && any => At::Version(0),
                0 if matches!(first, b' ' | b'\r') => return Err(Fault::RequestLine),
                0 => return Err(line_end_or(first, Fault::TargetByte)),
                more => {
                    taken = more;
                    self.head.line(more)?;
                    At::Target(true)
                }
            },
            // In one step, for speed, where all of it is there.
            At::Version(0) if bytes.starts_with(b"HTTP/1.1\r\n") => {
                taken = b"HTTP/1.1\r\n".len();
                At::Field
            }
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
                    taken = self.head.begin_name(bytes)?;
                    // Two steps in one, for speed; in trailers it matters which byte is at fault.
                    if bytes.get(taken) == Some(&b':') && !self.head.trailers {
                        taken += 1;
                        At::Value(self.head.colon()?)
                    } else {
                        At::Name
                    }
                }
            },
            At::Name if first == b':' => At::Value(self.head.colon()?),
            At::Name => {
                taken = self.head.name(bytes)?;
                At::Name
            }
            At::Value(Value::Any) => match plain(bytes) {
                0 if first == b'\r' => At::ValueLf,
                0 => return Err(line_end_or(first, Fault::Value)),
                more if bytes[more..].starts_with(b"\r\n") => {
                    taken = more + 2;
                    At::Field
                }
                more => {
                    taken = more;
                    self.at
                }
            },
            At::Value(value) => self.head.value(value, first)?.map_or(At::ValueLf, At::Value),
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

    fn end_of_head(&mut self) -> Result<At, Fault> {
        if self.head.trailers {
            self.head.trailers = false;
            return Ok(At::Rest);
        }
        let framing = self.head.framing()?;
        if self.later.len() >= MOST_AHEAD {
            return Err(Fault::Pipeline);
        }
        self.push(Ok(framing));
        Ok(match framing {
            Framing::None | Framing::Length(0) => At::Rest,
            Framing::Length(length) => At::Body(length),
            Framing::Chunked => At::Size(0, 0),
        })
    }
}

/// The line ends here, as it must.
fn lf(byte: u8, next: At) -> Result<At, Fault> {
    if byte == b'\n' { Ok(next) } else { Err(Fault::BareCr) }
}

/// How many of these bytes belong to a body of which that many are left, and how many are left then.
fn skip(bytes: &[u8], left: u64) -> (usize, u64) {
    let passed = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
    (passed, left - passed as u64)
}

/// Before the last digit.
const VERSION: &[u8] = b"HTTP/1.";

/// Of all chunks of a body together.
const MOST_EXTENSIONS: usize = 16 << 10;

const MOST_HEX: u32 = 16;

/// Requests that may come before the first of them is taken; hyper's buffer holds fewer of them by default.
const MOST_AHEAD: usize = 4096;

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
