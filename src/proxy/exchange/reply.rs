//! The head of an answer.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode, Version};

use super::super::answer;
use super::super::fault::Fault;
use super::super::message::grammar::{self, Field};
use super::super::message::{self, Chunked, Framing, Lines};
use super::super::octets::{is_digits, plain};
use super::reading::Broken;

/// A head, and what it says of what follows.
#[derive(Debug)]
pub struct Reply {
    /// With the fields that matter here.
    pub response: Response<()>,
    /// All others.
    pub lines: Lines,
    /// Bytes that it took.
    pub length: usize,
    pub body: Framing,
    /// The app takes another request on the connection afterwards.
    pub goes_on: bool,
}

/// Reads a head; `None` if it has not come to its end. `to_head`: the request's method was HEAD.
///
/// # Errors
///
/// It is none, or nobody could say for certain where the answer ends.
pub fn parse(bytes: &[u8], to_head: bool) -> Result<Option<Reply>, Broken> {
    let head = match by_the_letter(bytes, to_head) {
        Some(head) => head,
        None => match generously(bytes)? {
            Some(head) => head,
            None => return Ok(None),
        },
    };
    let Head { mut response, lines, length, content } = head;
    if !response.status().is_informational() {
        answer::check(&mut response).map_err(Broken::Fault)?;
    }
    let body = match content {
        Some(content) => Framing::Length(content),
        None => body(&response, to_head)?,
    };
    let goes_on = !matches!(body, Framing::UntilEnd) && goes_on(&response);
    Ok(Some(Reply { response, lines, length, body, goes_on }))
}

struct Head {
    response: Response<()>,
    lines: Lines,
    length: usize,
    /// What it says of the length of its body, where that is the body's own to say: whoever writes it asks that.
    content: Option<u64>,
}

/// Reads what most apps send. `None`: it has not come to its end, or takes a closer look.
fn by_the_letter(bytes: &[u8], to_head: bool) -> Option<Head> {
    let (version, mut at) = match bytes {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1', b' ', ..] => (Version::HTTP_11, 9),
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0', b' ', ..] => (Version::HTTP_10, 9),
        _ => return None,
    };
    let status = StatusCode::from_bytes(bytes.get(at..at + 3)?).ok()?;
    // Fields of an upgrade matter to both sides.
    if status.is_informational() {
        return None;
    }
    at += 3;
    // What else the line says is told to nobody.
    if bytes.get(at) == Some(&b' ') {
        at += plain(&bytes[at..]);
    }
    if bytes.get(at..at + 2)? != b"\r\n" {
        return None;
    }
    at += 2;
    let (mut headers, mut lines) = (HeaderMap::new(), Lines::default());
    let has_body = !to_head && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let (mut fields, mut passing, mut content) = (0, at, None);
    loop {
        let (field, taken) = grammar::field(&bytes[at..]).ok()??;
        let next = at + taken;
        let Field::Field { name, value } = field else { break };
        fields += 1;
        if fields > MOST_FIELDS {
            return None;
        }
        if message::matters(name) {
            lines.push(&bytes[passing..at]);
            passing = next;
            // Says nothing that is not so anyway, and ends here.
            let is_usual = version == Version::HTTP_11
                && name.eq_ignore_ascii_case(b"connection")
                && value.eq_ignore_ascii_case(b"keep-alive");
            let is_length = has_body && content.is_none() && name.eq_ignore_ascii_case(b"content-length");
            let length = if is_length { plain_length(value) } else { None };
            if length.is_some() {
                content = length;
            } else if !is_usual {
                headers.append(message::name(name).ok()?, HeaderValue::from_bytes(value).ok()?);
            }
        }
        at = next;
    }
    lines.push(&bytes[passing..at]);
    if content.is_some()
        && [header::CONTENT_LENGTH, header::TRANSFER_ENCODING].iter().any(|name| headers.contains_key(name))
    {
        return None;
    }
    // One that names others would have to find them.
    if message::names_others(&headers) {
        return None;
    }
    let mut response = Response::new(());
    (*response.status_mut(), *response.version_mut(), *response.headers_mut()) = (status, version, headers);
    Some(Head { response, lines, length: at + 2, content })
}

/// The length of a body, if it is written as [`answer::check`] would write it, and there is one.
fn plain_length(value: &[u8]) -> Option<u64> {
    let is_plain = is_digits(value) && !value.starts_with(b"0");
    is_plain.then(|| value.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0')))
}

/// Reads what is an answer to most parsers.
fn generously(bytes: &[u8]) -> Result<Option<Head>, Broken> {
    let mut fields = [const { std::mem::MaybeUninit::uninit() }; MOST_FIELDS];
    let mut reply = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut reply, bytes, &mut fields)
        .map_err(Broken::Head)?;
    let httparse::Status::Complete(length) = parsed else { return Ok(None) };
    let status = reply.code.and_then(|code| StatusCode::from_u16(code).ok());
    let mut response = Response::new(());
    *response.status_mut() = status.ok_or(Broken::Head(httparse::Error::Status))?;
    *response.version_mut() = if reply.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    *response.headers_mut() = fields_of(reply.headers, bytes, length)?;
    Ok(Some(Head { response, lines: Lines::default(), length, content: None }))
}

/// All values share one copy of the head.
fn fields_of(fields: &[httparse::Header<'_>], bytes: &[u8], length: usize) -> Result<HeaderMap, Broken> {
    let head = Bytes::copy_from_slice(&bytes[..length]);
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = message::name(field.name.as_bytes()).map_err(Broken::Fault)?;
        let value = HeaderValue::from_maybe_shared(part(&head, bytes, field.value));
        let value = value.map_err(|_| Broken::Fault(Fault::Value))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// The bytes of `head`, a copy of the first of `bytes`, that stand where `part` does in these.
fn part(head: &Bytes, bytes: &[u8], part: &[u8]) -> Bytes {
    let at = (part.as_ptr() as usize).wrapping_sub(bytes.as_ptr() as usize);
    match at.checked_add(part.len()) {
        Some(end) if end <= head.len() => head.slice(at..end),
        // Not a part of them: an empty one may stand anywhere.
        _ => Bytes::copy_from_slice(part),
    }
}

/// RFC 9112, 6.3.
fn body(response: &Response<()>, to_head: bool) -> Result<Framing, Broken> {
    let (status, headers) = (response.status(), response.headers());
    if to_head
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    {
        return Ok(Framing::Length(0));
    }
    if headers.contains_key(header::TRANSFER_ENCODING) {
        // That it says chunked and nothing else was checked before.
        let old = response.version() == Version::HTTP_10;
        return if old {
            Err(Broken::Fault(Fault::TransferEncoding))
        } else {
            Ok(Framing::Chunked(Chunked::default()))
        };
    }
    Ok(match headers.get(header::CONTENT_LENGTH) {
        None => Framing::UntilEnd,
        Some(length) => {
            let length = length.to_str().ok().and_then(|length| length.parse().ok());
            Framing::Length(length.ok_or(Broken::Fault(Fault::ContentLength))?)
        }
    })
}

/// RFC 9112, 9.3.
fn goes_on(response: &Response<()>) -> bool {
    let says = |option| message::names(response.headers(), &header::CONNECTION, option);
    if response.version() == Version::HTTP_10 { says("keep-alive") && !says("close") } else { !says("close") }
}

const MOST_FIELDS: usize = 100;

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
