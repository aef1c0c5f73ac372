//! What is refused of a request's head once it is parsed, for HTTP/1 and HTTP/2 alike.
//!
//! One pure function. What can only be seen in the bytes of HTTP/1 is found where they are read (`message`); what must be removed or
//! rewritten, and is no reason to refuse, is done in `layers::headers`.

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Uri, Version};

use super::fault::Fault;
use super::notable::Notable;
use super::octets::{is_digits, is_host, is_name};

/// Judges a request before anything else does. `notable`: of its fields.
///
/// # Errors
///
/// The first reason to refuse it. The request itself is at fault, so it does not pass by itself.
pub fn check<B>(request: &Request<B>, notable: Notable) -> Result<(), Fault> {
    let (method, uri, headers) = (request.method(), request.uri(), request.headers());
    let old = request.version() < Version::HTTP_2;
    if method == Method::CONNECT {
        // What HTTP/2 makes of it (RFC 8441) is decided elsewhere.
        return if old { Err(Fault::Connect) } else { fields_of_http2(headers, notable) };
    }
    target(method, uri, old)?;
    host(uri, headers, request.version())?;
    if old {
        if notable.has(Notable::CONNECTION) {
            connection(headers)?;
        }
        if notable.has(Notable::UPGRADE) { upgrade(headers) } else { Ok(()) }
    } else {
        fields_of_http2(headers, notable)
    }
}

/// RFC 9112, 3.2: origin form, absolute form, or the asterisk of OPTIONS.
fn target(method: &Method, uri: &Uri, old: bool) -> Result<(), Fault> {
    // A relative target looks like an authority.
    let absolute = match (uri.scheme_str(), uri.authority()) {
        (Some("http" | "https"), Some(_)) => true,
        (None, None) if old => false,
        // Of HTTP/2 without `:authority`.
        (Some("http" | "https") | None, None) => false,
        _ => return Err(Fault::TargetForm),
    };
    match uri.path_and_query().map(PathAndQuery::as_str) {
        Some("*") if method == Method::OPTIONS => Ok(()),
        Some(target) if !target.bytes().all(|byte| matches!(byte, 0x21..=0x7e)) => Err(Fault::TargetByte),
        Some(target) if target.starts_with('/') || (absolute && target.starts_with('?')) => Ok(()),
        None if absolute => Ok(()),
        _ => Err(Fault::TargetForm),
    }
}

/// One Host, or `:authority`, or both if they say the same.
fn host(uri: &Uri, headers: &HeaderMap, version: Version) -> Result<(), Fault> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().map(HeaderValue::as_bytes);
    if hosts.next().is_some() {
        return Err(Fault::Host);
    }
    let named = uri.authority().map(|authority| authority.as_str().as_bytes());
    if host.into_iter().chain(named).any(|authority| !is_authority(authority)) {
        return Err(Fault::Host);
    }
    match (host, named) {
        (Some(host), Some(named)) if !is_same(host, named, uri.scheme_str()) => Err(Fault::Authority),
        // RFC 9112, 3.2: a client of 1.1 sends Host even beside the absolute form.
        (None, _) if version == Version::HTTP_11 => Err(Fault::Host),
        (None, None) if version == Version::HTTP_2 => Err(Fault::Host),
        _ => Ok(()),
    }
}

/// `host [":" port]` (RFC 9110, 4.2), without what makes parsers differ: user information, an empty name or port,
/// blanks, lists.
fn is_authority(authority: &[u8]) -> bool {
    let (name, port) = match authority {
        [b'[', rest @ ..] => {
            let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
            let literal = std::str::from_utf8(&rest[..end]).ok();
            if literal.is_none_or(|literal| literal.parse::<std::net::Ipv6Addr>().is_err()) {
                return false;
            }
            (&authority[..end + 2], &rest[end + 1..])
        }
        _ => {
            let end = authority.iter().position(|byte| *byte == b':').unwrap_or(authority.len());
            let (name, port) = authority.split_at(end);
            if !name.iter().all(|byte| is_host(*byte)) {
                return false;
            }
            (name, port)
        }
    };
    !name.is_empty() && is_port(port)
}

/// Nothing, or a colon and a port.
fn is_port(port: &[u8]) -> bool {
    match port {
        [] => true,
        [b':', digits @ ..] => {
            (1..=5).contains(&digits.len())
                && digits.iter().all(u8::is_ascii_digit)
                && std::str::from_utf8(digits).is_ok_and(|digits| digits.parse::<u16>().is_ok())
        }
        _ => false,
    }
}

/// Whether two authorities are one: in any case of letters, with or without the port that the scheme has anyway.
fn is_same(one: &[u8], other: &[u8], scheme: Option<&str>) -> bool {
    let default: &[u8] = if scheme == Some("https") { b":443" } else { b":80" };
    let short =
        |authority: &'_ [u8]| authority.len() - if authority.ends_with(default) { default.len() } else { 0 };
    one[..short(one)].eq_ignore_ascii_case(&other[..short(other)])
}

/// `Connection` takes fields away (RFC 9110, 7.6.1). One that names a field which says what the request is, whose it
/// is or where it came from wants the app to see another request than a proxy before us did.
fn connection(headers: &HeaderMap) -> Result<(), Fault> {
    let names = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    for name in names {
        let name = name.trim_ascii();
        let is = |end_to_end: &&str| name.eq_ignore_ascii_case(end_to_end.as_bytes());
        let begins = |prefix: &&str| {
            name.get(..prefix.len()).is_some_and(|part| part.eq_ignore_ascii_case(prefix.as_bytes()))
        };
        if END_TO_END.iter().any(is) || END_TO_END_PREFIXES.iter().any(begins) {
            return Err(Fault::Connection);
        }
    }
    Ok(())
}

/// What frames the message or tells its kind, its sender or its way. `Cache-Control` is RFC 9110's own example.
const END_TO_END: [&str; 12] = [
    "host",
    "content-length",
    "transfer-encoding",
    "content-type",
    "content-encoding",
    "content-range",
    "expect",
    "authorization",
    "cookie",
    "cache-control",
    "forwarded",
    "x-real-ip",
];

const END_TO_END_PREFIXES: [&str; 2] = ["x-forwarded-", "x-readygate-"];

/// After a 101 the bytes on a connection are another protocol's; whether a body that was announced before counts to
/// them is what parsers differ on. Asking for h2c is no such request: it is not passed on, and the clients of Java
/// ask for it with any body.
fn upgrade(headers: &HeaderMap) -> Result<(), Fault> {
    let Some(first) = headers.get(header::UPGRADE) else { return Ok(()) };
    let only_h2c = headers.get_all(header::UPGRADE).iter().count() == 1
        && first.as_bytes().trim_ascii().eq_ignore_ascii_case(b"h2c");
    let body = headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    if body && !only_h2c { Err(Fault::UpgradeBody) } else { Ok(()) }
}

/// RFC 9113, 8.2: no fields of a connection, no blanks around a value, one Content-Length of digits.
fn fields_of_http2(headers: &HeaderMap, notable: Notable) -> Result<(), Fault> {
    if !headers.keys().all(is_name) {
        return Err(Fault::Name);
    }
    if notable.has(OF_CONNECTIONS) {
        return Err(Fault::Http2Field);
    }
    if notable.has(Notable::TE) && headers.get_all(header::TE).iter().any(|value| value != "trailers") {
        return Err(Fault::Http2Field);
    }
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if headers
        .values()
        .map(HeaderValue::as_bytes)
        .any(|value| is_blank(value.first()) || is_blank(value.last()))
    {
        return Err(Fault::Http2Field);
    }
    if !notable.has(Notable::CONTENT_LENGTH) {
        return Ok(());
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter().map(HeaderValue::as_bytes);
    match (lengths.next(), lengths.next()) {
        (None, _) => Ok(()),
        (Some(length), None) if is_digits(length) => Ok(()),
        _ => Err(Fault::ContentLength),
    }
}

const OF_CONNECTIONS: Notable = Notable::CONNECTION
    .and(Notable::TRANSFER_ENCODING)
    .and(Notable::UPGRADE)
    .and(Notable::KEEP_ALIVE)
    .and(Notable::PROXY_CONNECTION);

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
