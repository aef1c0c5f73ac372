//! The head of a request.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Uri, Version};

use super::super::fault::Fault;
use super::super::notable::Notable;
use super::super::octets::is_digits;
use super::grammar::{self, Field, RequestLine};
use super::{Chunked, Framing, Lines, matters, names_others};

/// What a head may not exceed.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub bytes: usize,
    pub fields: usize,
}

/// Why there is no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Fault(Fault),
    /// It is larger than its bounds.
    TooLarge,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// A head.
#[derive(Debug)]
pub struct Head {
    /// With the fields that matter here.
    pub request: Request<()>,
    /// All others.
    pub lines: Lines,
}

/// Takes a head off the bytes that came, where it is whole. `None`: more must come.
///
/// # Errors
///
/// These bytes are not the beginning of a head, or of too large a one.
fn parse(bytes: &mut Bytes, bounds: Bounds) -> Result<Option<Head>, Refusal> {
    let _ = bytes.split_to(grammar::empty_lines(bytes)?);
    let Some((line, at)) = grammar::request_line(bytes)? else {
        return within(bytes, bounds).map(|()| None);
    };
    let RequestLine { method, target, old } = line;
    let method = Method::from_bytes(method).map_err(|_| Fault::RequestLine)?;
    let target = bytes.slice_ref(target);
    let fields = match fields(bytes, at, bounds, matters)? {
        // One that names others would have to find them.
        Some(fields) if names_others(&fields.headers) => self::fields(bytes, at, bounds, |_| true)?,
        fields => fields,
    };
    let Some(Fields { headers, lines, end }) = fields else {
        return within(bytes, bounds).map(|()| None);
    };
    if end > bounds.bytes {
        return Err(Refusal::TooLarge);
    }
    let mut request = Request::new(());
    *request.uri_mut() = Uri::from_maybe_shared(target).map_err(|_| Fault::TargetForm)?;
    *request.method_mut() = method;
    *request.version_mut() = if old { Version::HTTP_10 } else { Version::HTTP_11 };
    *request.headers_mut() = headers;
    let _ = bytes.split_to(end);
    Ok(Some(Head { request, lines }))
}

struct Fields {
    headers: HeaderMap,
    lines: Lines,
    /// Where the head ends.
    end: usize,
}

/// Reads the fields from `at` on: into a map those that matter, and the lines of the others. `None`: more must come.
fn fields(
    bytes: &Bytes,
    mut at: usize,
    bounds: Bounds,
    matters: impl Fn(&[u8]) -> bool,
) -> Result<Option<Fields>, Refusal> {
    let (mut headers, mut lines) = (HeaderMap::with_capacity(FIELDS), Lines::default());
    let (mut count, mut passing) = (0, at);
    loop {
        let Some((field, taken)) = grammar::field(&bytes[at..])? else { return Ok(None) };
        let Field::Field { name, value } = field else { break };
        if count == bounds.fields {
            return Err(Refusal::TooLarge);
        }
        count += 1;
        if matters(name) {
            lines.push(&bytes[passing..at]);
            passing = at + taken;
            let name = super::name(name)?;
            let value = HeaderValue::from_maybe_shared(bytes.slice_ref(value)).map_err(|_| Fault::Value)?;
            headers.try_append(name, value).map_err(|_| Refusal::TooLarge)?;
        } else if name.len() > LONGEST_NAME {
            return Err(Fault::Name.into());
        }
        at += taken;
    }
    lines.push(&bytes[passing..at]);
    Ok(Some(Fields { headers, lines, end: at + 2 }))
}

fn within(bytes: &[u8], bounds: Bounds) -> Result<(), Refusal> {
    if bytes.len() > bounds.bytes { Err(Refusal::TooLarge) } else { Ok(()) }
}

/// A head that has not come to its end: its lines are looked at once each, however many pieces there are.
#[derive(Debug, Default)]
pub struct Partial {
    bytes: Vec<u8>,
    /// Where the first line begins that is not whole.
    at: usize,
    /// The request line was.
    lined: bool,
}

impl Partial {
    /// Whether nothing of it came.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes a head off what came before and `bytes`, of which only what comes after it is left.
    ///
    /// # Errors
    ///
    /// As [`parse`].
    pub fn next(&mut self, bytes: &mut Bytes, bounds: Bounds) -> Result<Option<Head>, Refusal> {
        if self.bytes.is_empty() {
            // Most come whole.
            if let Some(head) = parse(bytes, bounds)? {
                return Ok(Some(head));
            }
        }
        self.bytes.extend_from_slice(&std::mem::take(bytes));
        if !self.is_whole()? {
            return within(&self.bytes, bounds).map(|()| None);
        }
        *bytes = std::mem::take(self).bytes.into();
        parse(bytes, bounds)
    }

    fn is_whole(&mut self) -> Result<bool, Fault> {
        loop {
            let rest = &self.bytes[self.at..];
            let taken = if self.lined {
                match grammar::field(rest)? {
                    Some((Field::End, _)) => return Ok(true),
                    Some((Field::Field { .. }, taken)) => taken,
                    None => return Ok(false),
                }
            } else {
                let before = grammar::empty_lines(rest)?;
                let Some((_, taken)) = grammar::request_line(&rest[before..])? else { return Ok(false) };
                self.lined = true;
                before + taken
            };
            self.at += taken;
        }
    }
}

/// How the body of a request is framed (RFC 9112, 6). `None`: it has none.
///
/// # Errors
///
/// Two parsers could see its end in different places.
pub fn framing(request: &Request<()>, notable: Notable) -> Result<Option<Framing>, Fault> {
    let headers = request.headers();
    if notable.has(Notable::TRANSFER_ENCODING) {
        if notable.has(Notable::CONTENT_LENGTH) {
            return Err(Fault::TwoLengths);
        }
        let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
        let is_chunked =
            codings.next().is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
        if request.version() == Version::HTTP_10 || !is_chunked || codings.next().is_some() {
            return Err(Fault::TransferEncoding);
        }
        return Ok(Some(Framing::Chunked(Chunked::strict())));
    }
    if !notable.has(Notable::CONTENT_LENGTH) {
        return Ok(None);
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter().map(HeaderValue::as_bytes);
    match (lengths.next(), lengths.next()) {
        (Some(digits), None) if is_digits(digits) => {
            let length = digits.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0'));
            Ok((length > 0).then_some(Framing::Length(length)))
        }
        _ => Err(Fault::ContentLength),
    }
}

/// Room for those that matter of most clients.
const FIELDS: usize = 6;

/// Bytes that the crate `http` takes for a name.
const LONGEST_NAME: usize = 32 << 10;

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
