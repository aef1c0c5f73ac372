//! The lines of a head, by the letter of RFC 9112 where parsers are generous: what two of them could read differently
//! is no line here. Pure functions over what has come so far.

use super::super::fault::Fault;
use super::super::octets::{plain, target, token};

/// A line, and how many bytes it took. `None`: more must come, and what has come may be the beginning of one.
type Line<T> = Result<Option<(T, usize)>, Fault>;

/// The first line of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLine<'b> {
    pub method: &'b [u8],
    pub target: &'b [u8],
    /// Of HTTP/1.0.
    pub old: bool,
}

/// A line after the first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field<'b> {
    /// The empty line.
    End,
    Field {
        name: &'b [u8],
        /// Without blanks around it.
        value: &'b [u8],
    },
}

/// The empty lines that may stand before a request (RFC 9112, 2.2): how many bytes they take.
///
/// # Errors
///
/// A line end that is none.
pub fn empty_lines(bytes: &[u8]) -> Result<usize, Fault> {
    let mut at = 0;
    loop {
        match &bytes[at..] {
            [b'\r', b'\n', ..] => at += 2,
            [b'\r'] | [] => return Ok(at),
            [b'\r', ..] => return Err(Fault::BareCr),
            [b'\n', ..] => return Err(Fault::BareLf),
            _ => return Ok(at),
        }
    }
}

/// A method, a target and a version, with one space between each (RFC 9112, 3).
///
/// # Errors
///
/// The first byte at fault.
pub fn request_line(bytes: &[u8]) -> Line<RequestLine<'_>> {
    if bytes == b"\r" {
        // Of one more empty line, perhaps.
        return Ok(None);
    }
    let method = token(bytes);
    let at = method + 1;
    match bytes.get(method) {
        _ if method > LONGEST_LINE => return Err(Fault::LongLine),
        None => return Ok(None),
        Some(b' ') if method > 0 => {}
        Some(byte) => return Err(line_end_or(*byte, Fault::RequestLine)),
    }
    let length = target(&bytes[at..]);
    let version = at + length + 1;
    match bytes.get(at + length) {
        _ if method + length > LONGEST_LINE => return Err(Fault::LongLine),
        None => return Ok(None),
        Some(b' ') if length > 0 => {}
        Some(b' ' | b'\r') => return Err(Fault::RequestLine),
        Some(byte) => return Err(line_end_or(*byte, Fault::TargetByte)),
    }
    let Some((old, taken)) = version_line(&bytes[version..])? else { return Ok(None) };
    let line = RequestLine { method: &bytes[..method], target: &bytes[at..at + length], old };
    Ok(Some((line, version + taken)))
}

/// `HTTP/1.0` or `HTTP/1.1`, and the end of the line: whether it is the old one.
fn version_line(bytes: &[u8]) -> Line<bool> {
    // In one step where all of it is there, and the usual one.
    if bytes.starts_with(b"HTTP/1.1\r\n") {
        return Ok(Some((false, b"HTTP/1.1\r\n".len())));
    }
    let same = VERSION.iter().zip(bytes).take_while(|(one, other)| one == other).count();
    if same < VERSION.len() {
        return bytes.get(same).map_or(Ok(None), |byte| Err(line_end_or(*byte, Fault::RequestLine)));
    }
    match &bytes[same..] {
        [] | [b'0' | b'1'] | [b'0' | b'1', b'\r'] => Ok(None),
        [digit @ (b'0' | b'1'), b'\r', b'\n', ..] => Ok(Some((*digit == b'0', same + 3))),
        [b'0' | b'1', b'\r', ..] => Err(Fault::BareCr),
        [b'0' | b'1', byte, ..] | [byte, ..] => Err(line_end_or(*byte, Fault::RequestLine)),
    }
}

/// A field, or the end of the head or of the trailers (RFC 9112, 5).
///
/// # Errors
///
/// The first byte at fault.
pub fn field(bytes: &[u8]) -> Line<Field<'_>> {
    match bytes {
        [] | [b'\r'] => return Ok(None),
        [b'\r', b'\n', ..] => return Ok(Some((Field::End, 2))),
        [b'\r', ..] => return Err(Fault::BareCr),
        [b' ' | b'\t', ..] => return Err(Fault::Fold),
        _ => {}
    }
    let name = token(bytes);
    match bytes.get(name) {
        None => return Ok(None),
        Some(b':') if name > 0 => {}
        Some(byte) => return Err(line_end_or(*byte, Fault::Name)),
    }
    let value = name + 1;
    let end = value + plain(&bytes[value..]);
    match &bytes[end..] {
        [] | [b'\r'] => Ok(None),
        [b'\r', b'\n', ..] => {
            let field = Field::Field { name: &bytes[..name], value: bytes[value..end].trim_ascii() };
            Ok(Some((field, end + 2)))
        }
        [b'\r', ..] => Err(Fault::BareCr),
        [byte, ..] => Err(line_end_or(*byte, Fault::Value)),
    }
}

/// The fault of a byte that stands where it must not.
fn line_end_or(byte: u8, fault: Fault) -> Fault {
    if byte == b'\n' { Fault::BareLf } else { fault }
}

/// Before the last digit.
const VERSION: &[u8] = b"HTTP/1.";

/// Bytes of a method and a target together.
pub const LONGEST_LINE: usize = 16 << 10;
