//! The head of an answer.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode, Version};

use super::super::answer;
use super::super::fault::Fault;
use super::super::message::grammar::{self, Field};
use super::super::message::{self, Chunked, Framing, Lines};
use super::super::octets::plain;
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
    let head = match by_the_letter(bytes) {
        Some(head) => head,
        None => match generously(bytes)? {
            Some(head) => head,
            None => return Ok(None),
        },
    };
    let Head { mut response, lines, length } = head;
    if !response.status().is_informational() {
        answer::check(&mut response).map_err(Broken::Fault)?;
    }
    let body = body(&response, to_head)?;
    let goes_on = !matches!(body, Framing::UntilEnd) && goes_on(&response);
    Ok(Some(Reply { response, lines, length, body, goes_on }))
}

struct Head {
    response: Response<()>,
    lines: Lines,
    length: usize,
}

/// Reads what most apps send. `None`: it has not come to its end, or takes a closer look.
fn by_the_letter(bytes: &[u8]) -> Option<Head> {
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
    let (mut fields, mut passing) = (0, at);
    loop {
        let (field, taken) = grammar::field(&bytes[at..]).ok()??;
        let next = at + taken;
        let Field::Field { name, value } = field else { break };
        fields += 1;
        if fields > MOST_FIELDS {
            return None;
        }
        if matters(name) {
            lines.push(&bytes[passing..at]);
            passing = next;
            // Says nothing that is not so anyway, and ends here.
            let is_usual = version == Version::HTTP_11
                && name.eq_ignore_ascii_case(b"connection")
                && value.eq_ignore_ascii_case(b"keep-alive");
            if !is_usual {
                headers.append(message::name(name).ok()?, HeaderValue::from_bytes(value).ok()?);
            }
        }
        at = next;
    }
    lines.push(&bytes[passing..at]);
    // One that names others would have to find them.
    if headers.get_all(header::CONNECTION).iter().any(|value| !is_plain(value)) {
        return None;
    }
    let mut response = Response::new(());
    (*response.status_mut(), *response.version_mut(), *response.headers_mut()) = (status, version, headers);
    Some(Head { response, lines, length: at + 2 })
}

/// Whether a field frames the answer or belongs to one connection.
fn matters(name: &[u8]) -> bool {
    let one_of = |names: &[&str]| names.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()));
    // All names of a length, so that most fields are compared with none.
    match name.len() {
        2 => one_of(&["te"]),
        7 => one_of(&["trailer", "upgrade"]),
        10 => one_of(&["connection", "keep-alive"]),
        14 => one_of(&["content-length", "http2-settings"]),
        16 => one_of(&["proxy-connection"]),
        17 => one_of(&["transfer-encoding"]),
        _ => false,
    }
}

fn is_plain(connection: &HeaderValue) -> bool {
    let option = connection.as_bytes();
    option.eq_ignore_ascii_case(b"close") || option.eq_ignore_ascii_case(b"keep-alive")
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
    Ok(Some(Head { response, lines: Lines::default(), length }))
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Status, version, length, and all fields in order of their names.
    type Read = (u16, Version, usize, Vec<(String, Vec<u8>)>);

    fn read(head: &Head) -> Read {
        let mut headers = head.response.headers().clone();
        head.lines.read_into(&mut headers);
        let mut fields: Vec<_> =
            headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
        fields.sort();
        (head.response.status().as_u16(), head.response.version(), head.length, fields)
    }

    #[test]
    fn fields_that_nobody_needs_pass_as_they_came() {
        let bytes =
            b"HTTP/1.1 200 OK\r\nServer:  a \r\nContent-Length: 3\r\nSet-Cookie: 1\r\nset-cookie: 2\r\n\
            CONNECTION: Keep-Alive\r\nX: y\r\nTrailer: z\r\n\r\nabc";
        let reply = parse(bytes, false).expect("an answer").expect("all of it");
        let lines: &[u8] = b"Server:  a \r\nSet-Cookie: 1\r\nset-cookie: 2\r\nX: y\r\n";
        assert_eq!(reply.lines.as_bytes(), lines);
        let names: Vec<_> = reply.response.headers().keys().map(header::HeaderName::as_str).collect();
        assert_eq!(names, ["content-length", "trailer"]);
        assert_eq!(reply.length, bytes.len() - 3);
        assert!(reply.goes_on);
    }

    #[test]
    fn answer_that_takes_a_closer_look_gets_it() {
        for head in [
            "HTTP/1.1 200 OK\r\nConnection: close, x-a\r\nX-A: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nConnection: x-a\r\nX-A: 1\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nX-A: 1\r\n\r\n",
            "HTTP/1.1 200 OK\nX-A: 1\n\n",
        ] {
            let reply = parse(head.as_bytes(), false).expect("an answer").expect("all of it");
            assert_eq!(reply.lines, Lines::default(), "{head}");
            assert!(reply.response.headers().contains_key("x-a"), "{head}");
        }
    }

    proptest! {
        /// What is read by the letter says the same to a parser that others use.
        #[test]
        fn answer_is_the_same_to_httparse(
            old in any::<bool>(),
            status in 100_u16..1000,
            reason in prop_oneof![Just(String::new()), " [ -~\t]{0,20}"],
            fields in prop::collection::vec((
                prop_oneof![
                    "[A-Za-z0-9!#$%&'*+.^_`|~-]{1,20}",
                    "[Cc]onnection|[Kk]eep-[Aa]live|Content-Length|TE|Trailer|Upgrade|Transfer-Encoding|Proxy-Connection",
                ],
                prop_oneof![": keep-alive|: close|: Keep-Alive, close|:5", ":[ \t]{0,2}[!-~\u{80}-\u{ff}\t ]{0,40}"],
            ), 0..8),
            mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        ) {
            let version = if old { "1.0" } else { "1.1" };
            let fields: String = fields.iter().map(|(name, value)| format!("{name}{value}\r\n")).collect();
            let mut bytes = format!("HTTP/{version} {status}{reason}\r\n{fields}\r\nbody").into_bytes();
            for (at, byte) in mutations {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let Some(ours) = by_the_letter(&bytes) else { return Ok(()) };
            let theirs = generously(&bytes).expect("an answer to both").expect("all of it");
            let (ours, mut theirs) = (read(&ours), read(&theirs));
            let is_usual = |(name, value): &(String, Vec<u8>)| {
                !old && name == "connection" && value.eq_ignore_ascii_case(b"keep-alive")
            };
            theirs.3.retain(|field| !is_usual(field));
            prop_assert_eq!(ours, theirs);
        }
    }
}
