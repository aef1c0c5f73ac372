//! The head of an answer.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode, Version};

use super::super::answer;
use super::super::fault::Fault;
use super::super::message::{self, Chunked, Framing};
use super::reading::Broken;

/// A head, and what it says of what follows.
#[derive(Debug)]
pub struct Reply {
    pub response: Response<()>,
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
    let is_interim = response.status().is_informational();
    if !is_interim {
        answer::check(&mut response).map_err(Broken::Fault)?;
    }
    let body = body(&response, to_head)?;
    let goes_on = !matches!(body, Framing::UntilEnd) && goes_on(&response);
    Ok(Some(Reply { response, length, body, goes_on }))
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
