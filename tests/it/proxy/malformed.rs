//! Requests that two parsers could read differently: each is refused and the connection closed, or it reaches the
//! app in one form that leaves no choice. What is smuggled in them never does.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Sidecar, machine};

use super::recorder::{Recorded, Recorder};

/// What the app is to see of one attack, and whether the connection is closed with a refusal.
struct Expected {
    forwarded: Vec<Form>,
    refused: bool,
}

/// A request line, a body, and fields that must be there with this value, or must not.
struct Form {
    line: &'static str,
    body: &'static str,
    fields: Vec<(&'static str, Option<&'static str>)>,
}

struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    expected: Expected,
}

/// What no app must ever see.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: app.test\r\n\r\n";

const HOST: &str = "Host: app.test\r\n";

fn refused() -> Expected {
    Expected { forwarded: Vec::new(), refused: true }
}

fn forwarded(
    line: &'static str,
    body: &'static str,
    fields: &[(&'static str, Option<&'static str>)],
) -> Expected {
    Expected { forwarded: vec![Form { line, body, fields: fields.to_vec() }], refused: false }
}

fn case(name: &'static str, bytes: impl AsRef<[u8]>, expected: Expected) -> Case {
    Case { name, bytes: bytes.as_ref().to_vec(), expected }
}

/// Bytes that are refused as a head, with a request smuggled behind.
fn head(name: &'static str, bytes: impl AsRef<[u8]>) -> Case {
    case(name, [bytes.as_ref(), SMUGGLED.as_bytes()].concat(), refused())
}

/// The same for fields besides Host.
fn fields(name: &'static str, fields: impl AsRef<[u8]>) -> Case {
    head(name, [b"POST /a HTTP/1.1\r\n", HOST.as_bytes(), fields.as_ref(), b"\r\n"].concat())
}

/// A chunked body that is refused.
fn chunks(name: &'static str, chunks: impl AsRef<[u8]>) -> Case {
    fields(name, [b"Transfer-Encoding: chunked\r\n\r\n", chunks.as_ref()].concat())
}

fn request_lines() -> Vec<Case> {
    let host = |line: &str| format!("{line}{HOST}\r\n");
    vec![
        head("HTTP/0.9", "GET /a\r\n\r\n"),
        head("HTTP/0.9 with fields", host("GET /a\r\n")),
        head("no target", host("GET HTTP/1.1\r\n")),
        head("empty target", host("GET  HTTP/1.1\r\n")),
        head("two spaces before the target", host("GET  /a HTTP/1.1\r\n")),
        head("two spaces after the target", host("GET /a  HTTP/1.1\r\n")),
        head("a tab for a space", host("GET\t/a HTTP/1.1\r\n")),
        head("a tab after the target", host("GET /a\tHTTP/1.1\r\n")),
        head("a space before the method", host(" GET /a HTTP/1.1\r\n")),
        head("a space after the version", host("GET /a HTTP/1.1 \r\n")),
        head("a space within the target", host("GET /a b HTTP/1.1\r\n")),
        head("HTTP/1.2", host("GET /a HTTP/1.2\r\n")),
        head("HTTP/2.0", host("GET /a HTTP/2.0\r\n")),
        head("HTTP/1.10", host("GET /a HTTP/1.10\r\n")),
        head("HTTP/1", host("GET /a HTTP/1\r\n")),
        head("http/1.1", host("GET /a http/1.1\r\n")),
        head("HTTP/01.1", host("GET /a HTTP/01.1\r\n")),
        head("a method with a bracket", host("G[T /a HTTP/1.1\r\n")),
        head("a method with a NUL", host("GE\0T /a HTTP/1.1\r\n")),
        head("LF ends the request line", format!("GET /a HTTP/1.1\n{HOST}\r\n")),
        head("CR ends the request line", format!("GET /a HTTP/1.1\r{HOST}\r\n")),
        head("LF ends every line", "GET /a HTTP/1.1\nHost: app.test\n\n"),
        head("LF before the request line", host("\nGET /a HTTP/1.1\r\n")),
        head("CR before the request line", host("\rGET /a HTTP/1.1\r\n")),
        head("CR CR LF ends the request line", host("GET /a HTTP/1.1\r\r\n")),
        head("a NUL in the target", host("GET /a\0b HTTP/1.1\r\n")),
        head("a CR in the target", host("GET /a\rb HTTP/1.1\r\n")),
        head("DEL in the target", host("GET /a\x7f HTTP/1.1\r\n")),
        head("UTF-8 in the target", host("GET /\u{e4} HTTP/1.1\r\n")),
        head("Latin-1 in the target", [b"GET /\xe4 HTTP/1.1\r\n", HOST.as_bytes(), b"\r\n"].concat()),
        head("a fragment", host("GET /a#b HTTP/1.1\r\n")),
        head("a backslash for a slash", host("GET \\a HTTP/1.1\r\n")),
        head("a relative target", host("GET a HTTP/1.1\r\n")),
        head("a relative target with a slash", host("GET a/b HTTP/1.1\r\n")),
        head("a target that is a query", host("GET ?a HTTP/1.1\r\n")),
        head("an asterisk for GET", host("GET * HTTP/1.1\r\n")),
        head("CONNECT", "CONNECT app.test:80 HTTP/1.1\r\nHost: app.test:80\r\n\r\n"),
        head("CONNECT of a path", host("CONNECT /a HTTP/1.1\r\n")),
        head("another scheme", host("GET ftp://app.test/a HTTP/1.1\r\n")),
        head("absolute form of another host", host("GET http://other.test/a HTTP/1.1\r\n")),
        head("absolute form of another port", host("GET http://app.test:81/a HTTP/1.1\r\n")),
        head("absolute form with a user", host("GET http://u@app.test/a HTTP/1.1\r\n")),
        head("absolute form without Host", "GET http://app.test/a HTTP/1.1\r\n\r\n"),
        head("a request line of 20 KiB", host(&format!("GET /{} HTTP/1.1\r\n", "a".repeat(20 << 10)))),
        head("a request line of 200 KiB", host(&format!("GET /{} HTTP/1.1\r\n", "a".repeat(200 << 10)))),
        head("a preface of HTTP/2 within HTTP/1", format!("PRI * HTTP/2.0\r\n{HOST}\r\nSM\r\n\r\n")),
    ]
}

fn hosts() -> Vec<Case> {
    let host = |name, host: &str| head(name, format!("GET /a HTTP/1.1\r\n{host}\r\n"));
    vec![
        host("no Host", ""),
        host("two Hosts", "Host: app.test\r\nHost: other.test\r\n"),
        host("the same Host twice", "Host: app.test\r\nHost: app.test\r\n"),
        host("two Hosts around another field", "Host: app.test\r\nA: 1\r\nhOST: other.test\r\n"),
        host("an empty Host", "Host: \r\n"),
        host("a list of Hosts", "Host: app.test, other.test\r\n"),
        host("a user in Host", "Host: u@app.test\r\n"),
        host("a path in Host", "Host: app.test/a\r\n"),
        host("a space in Host", "Host: app test\r\n"),
        host("an empty port", "Host: app.test:\r\n"),
        host("a port that is none", "Host: app.test:x\r\n"),
        host("a port that is too high", "Host: app.test:65536\r\n"),
        host("two ports", "Host: app.test:80:81\r\n"),
        host("IPv6 without brackets", "Host: ::1\r\n"),
        host("an open bracket", "Host: [::1\r\n"),
        host("UTF-8 in Host", "Host: \u{e4}.test\r\n"),
        host("two Hosts of an old client", "Host: a\r\nHost: b\r\n"),
        head("two Hosts in HTTP/1.0", "GET /a HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
    ]
}

fn lengths() -> Vec<Case> {
    const SIZED: &str = "Content-Length: 45\r\n";
    const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
    let length = |name, value: &str| fields(name, format!("Content-Length:{value}\r\n"));
    let coding = |name, value: &str| fields(name, format!("Transfer-Encoding:{value}\r\n\r\n0\r\n"));
    vec![
        fields("length, then chunks", format!("{SIZED}{CHUNKED}\r\n0\r\n")),
        fields("chunks, then length", format!("{CHUNKED}{SIZED}\r\n0\r\n")),
        fields("length 0 and chunks", format!("Content-Length: 0\r\n{CHUNKED}\r\n0\r\n")),
        fields("chunks and a length that is none", format!("{CHUNKED}Content-Length: x\r\n\r\n0\r\n")),
        fields("two lengths that differ", format!("Content-Length: 0\r\n{SIZED}")),
        fields("two lengths that do not", format!("{SIZED}{SIZED}")),
        length("a list of lengths", " 0, 45"),
        length("a list of equal lengths", " 45, 45"),
        length("a positive length", " +45"),
        length("a negative length", " -1"),
        length("a hexadecimal length", " 0x2d"),
        length("a fraction", " 45.0"),
        length("an exponent", " 4e1"),
        length("an empty length", ""),
        length("a length with a space within", " 4 5"),
        length("a length with an underscore", " 4_5"),
        length("a length in quotes", " \"45\""),
        length("a length of other digits", " \u{664}\u{665}"),
        length("a length with a NUL", " 45\0"),
        length("a length with a vertical tab", " \x0b45"),
        length("a length beyond 64 bits", " 18446744073709551661"),
        length("a length of 20 digits", " 00000000000000000045"),
        fields("a length after a space", "Content-Length : 45\r\n"),
        coding("gzip, chunked", " gzip, chunked"),
        coding("chunked, gzip", " chunked, gzip"),
        coding("chunked, chunked", " chunked, chunked"),
        coding("chunked, identity", " chunked, identity"),
        coding("identity", " identity"),
        coding("an unknown coding", " xchunked"),
        coding("a coding with a parameter", " chunked;a=b"),
        coding("a coding in quotes", " \"chunked\""),
        coding("a coding after a comma", " ,chunked"),
        coding("a coding before a comma", " chunked,"),
        coding("a coding with a vertical tab", " \x0bchunked"),
        coding("a coding with a NUL", " chunked\0"),
        coding("an empty coding", ""),
        fields("two codings", format!("{CHUNKED}{CHUNKED}\r\n0\r\n")),
        fields("two codings that differ", format!("Transfer-Encoding: identity\r\n{CHUNKED}\r\n0\r\n")),
        fields("a coding in a folded line", "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n"),
        fields("a coding after a space", "Transfer-Encoding : chunked\r\n\r\n0\r\n"),
        head("chunks of an old client", format!("POST /a HTTP/1.0\r\n{HOST}{CHUNKED}\r\n0\r\n\r\n")),
    ]
}

fn field_lines() -> Vec<Case> {
    vec![
        fields("LF ends a field", "A: 1\n"),
        fields("LF ends the head", "A: 1\r\n\n"),
        fields("CR within a value", "A: 1\rB: 2\r\n"),
        fields("CR CR LF", "A: 1\r\r\n"),
        fields("a field that goes on", "A: 1\r\n 2\r\n"),
        fields("a field that goes on after a tab", "A: 1\r\n\t2\r\n"),
        head("a first field that goes on", format!("POST /a HTTP/1.1\r\n A: 1\r\n{HOST}\r\n")),
        fields("a space before the colon", "A : 1\r\n"),
        fields("a tab before the colon", "A\t: 1\r\n"),
        fields("a space within a name", "A B: 1\r\n"),
        fields("no colon", "A\r\n"),
        fields("no name", ": 1\r\n"),
        fields("a NUL in a name", "A\0: 1\r\n"),
        fields("a bracket in a name", "A(: 1\r\n"),
        fields("UTF-8 in a name", "\u{c4}: 1\r\n"),
        fields("a NUL in a value", "A: 1\0\r\n"),
        fields("a control character in a value", "A: \x01\r\n"),
        fields("ESC in a value", "A: \x1b[31m\r\n"),
        fields("DEL in a value", "A: \x7f\r\n"),
        fields("Connection names Host", "Connection: Host\r\n"),
        fields("Connection names a length", "Connection: close, Content-Length\r\nContent-Length: 45\r\n"),
        fields(
            "Connection names a coding",
            "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        ),
        fields("Connection names the way", "Connection: X-Forwarded-For\r\nX-Forwarded-For: 1.1.1.1\r\n"),
        fields("Connection names a field of ours", "Connection: x-readygate-warmup\r\n"),
        fields("Connection names a cookie", "Connection: cookie\r\nCookie: a=b\r\n"),
        fields("Connection names who asks", "Connection: Authorization\r\nAuthorization: Basic YTpi\r\n"),
        fields(
            "a body beside an upgrade",
            "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 45\r\n",
        ),
        fields(
            "chunks beside an upgrade",
            "Connection: upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        ),
        fields("too many fields", "A: 1\r\n".repeat(200)),
        fields("a field of 200 KiB", format!("A: {}\r\n", "a".repeat(200 << 10))),
    ]
}

fn broken_chunks() -> Vec<Case> {
    vec![
        chunks("no size", "\r\n"),
        chunks("a size with a sign", "+5\r\nhello\r\n0\r\n"),
        chunks("a negative size", "-5\r\nhello\r\n0\r\n"),
        chunks("a size with a prefix", "0x5\r\nhello\r\n0\r\n"),
        chunks("a size that is none", "g\r\nhello\r\n0\r\n"),
        chunks("a size with a space before", " 5\r\nhello\r\n0\r\n"),
        chunks("a size with a space after", "5 \r\nhello\r\n0\r\n"),
        chunks("a size with an underscore", "0_5\r\nhello\r\n0\r\n"),
        chunks("a size beyond 64 bits", "10000000000000005\r\nhello\r\n0\r\n"),
        chunks("a size of many zeros", "00000000000000000005\r\nhello\r\n0\r\n"),
        chunks("LF ends a size", "5\nhello\r\n0\r\n"),
        chunks("CR ends a size", "5\rhello\r\n0\r\n"),
        chunks("LF ends a chunk", "5\r\nhello\n0\r\n"),
        chunks("nothing ends a chunk", "5\r\nhello0\r\n"),
        chunks("a chunk longer than its size", "5\r\nhello!\r\n0\r\n"),
        chunks("LF ends an extension", "5;a\nhello\r\n0\r\n"),
        chunks("LF in a quoted extension", "5;a=\"\n\"\r\nhello\r\n0\r\n"),
        chunks("a control character in an extension", "5;a=\x01\r\nhello\r\n0\r\n"),
        chunks("extensions without end", format!("5;{}\r\nhello\r\n0\r\n", "a".repeat(20 << 10))),
        chunks("many extensions", format!("1;{}\r\na\r\n", "a".repeat(1000)).repeat(20) + "0\r\n"),
        chunks("LF ends the last size", "0\n\n"),
        chunks("LF ends the trailers", "0\r\n\n"),
        chunks("LF ends a trailer", "0\r\nA: 1\nB: 2\r\n"),
        chunks("a trailer that goes on", "0\r\nA: 1\r\n B: 2\r\n"),
        chunks("a trailer without a colon", "0\r\nA\r\n"),
        chunks("a trailer with a NUL", "0\r\nA: \0\r\n"),
        chunks("a length in the trailers", "0\r\nContent-Length: 45\r\n"),
        chunks("a coding in the trailers", "0\r\nTransfer-Encoding: chunked\r\n"),
        chunks("a Host in the trailers", "0\r\nHost: other.test\r\n"),
    ]
}

/// What is odd, and has one meaning.
fn in_one_form() -> Vec<Case> {
    const NONE: &[(&str, Option<&str>)] = &[("content-length", None), ("transfer-encoding", None)];
    let post = |rest: &str| format!("POST /a HTTP/1.1\r\n{HOST}{rest}");
    vec![
        case(
            "an empty line before",
            format!("\r\n\r\nGET /a HTTP/1.1\r\n{HOST}\r\n"),
            forwarded("GET /a HTTP/1.1", "", NONE),
        ),
        case("an old client", "GET /a HTTP/1.0\r\n\r\n", forwarded("GET /a HTTP/1.1", "", NONE)),
        case(
            "absolute form",
            "GET http://APP.test:80/a?b HTTP/1.1\r\nHost: app.test\r\n\r\n",
            forwarded("GET /a?b HTTP/1.1", "", &[("host", Some("APP.test:80"))]),
        ),
        case(
            "two slashes",
            format!("GET //evil.test/a HTTP/1.1\r\n{HOST}\r\n"),
            forwarded("GET //evil.test/a HTTP/1.1", "", NONE),
        ),
        case(
            "dots and escapes",
            format!("GET /../%2e%00%0d%0a HTTP/1.1\r\n{HOST}\r\n"),
            forwarded("GET /../%2e%00%0d%0a HTTP/1.1", "", NONE),
        ),
        case(
            "an unknown method",
            format!("M-SEARCH /a HTTP/1.1\r\n{HOST}\r\n"),
            forwarded("M-SEARCH /a HTTP/1.1", "", NONE),
        ),
        case(
            "blanks around a value",
            post("A:\t 1 \t\r\n\r\n"),
            forwarded("POST /a HTTP/1.1", "", &[("a", Some("1"))]),
        ),
        case("an empty value", post("A:\r\n\r\n"), forwarded("POST /a HTTP/1.1", "", &[("a", Some(""))])),
        case(
            "IPv6",
            "GET /a HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
            forwarded("GET /a HTTP/1.1", "", &[("host", Some("[::1]:80"))]),
        ),
        case(
            "a request as a body",
            post(&format!("Content-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len())),
            forwarded("POST /a HTTP/1.1", SMUGGLED, &[("content-length", Some("42"))]),
        ),
        case(
            "a request as the body of GET",
            format!("GET /a HTTP/1.1\r\n{HOST}Content-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len()),
            forwarded("GET /a HTTP/1.1", SMUGGLED, &[("content-length", Some("42"))]),
        ),
        case(
            "a request as a chunk",
            post(&format!(
                "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n",
                SMUGGLED.len()
            )),
            forwarded("POST /a HTTP/1.1", SMUGGLED, &[("transfer-encoding", Some("chunked"))]),
        ),
        case(
            "zeros before a length",
            post("Content-Length: 005\r\n\r\nhello"),
            forwarded("POST /a HTTP/1.1", "hello", &[("content-length", Some("5"))]),
        ),
        case(
            "chunks in capitals, zeros, an extension, a trailer nobody announced",
            post("TRANSFER-ENCODING: ChunkeD\r\n\r\n0005;a=\"b;c\"\r\nhello\r\n00\r\nX: 1\r\n\r\n"),
            forwarded("POST /a HTTP/1.1", "hello", &[("transfer-encoding", Some("chunked")), ("x", None)]),
        ),
        case(
            "an upgrade to h2c with a body",
            post(
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nContent-Length: 5\r\n\r\nhello",
            ),
            forwarded(
                "POST /a HTTP/1.1",
                "hello",
                &[("upgrade", None), ("http2-settings", None), ("connection", None)],
            ),
        ),
        case(
            "a field that Connection may name",
            post("Connection: X-Mine\r\nX-Mine: 1\r\n\r\n"),
            forwarded("POST /a HTTP/1.1", "", &[("x-mine", None), ("connection", None)]),
        ),
        case(
            "names that only look like those that frame",
            post("Content_Length: 45\r\nContent-Length2: 45\r\nTransfer-Encodings: chunked\r\n\r\n"),
            forwarded("POST /a HTTP/1.1", "", NONE),
        ),
        case(
            "a good request, then a bad one",
            format!("GET /a HTTP/1.1\r\n{HOST}\r\nGET /b HTTP/1.1\r\n{HOST}A : 1\r\n\r\n{SMUGGLED}"),
            Expected { refused: true, ..forwarded("GET /a HTTP/1.1", "", NONE) },
        ),
        case(
            "one byte more than the body",
            post(&format!("Content-Length: 5\r\n\r\nhello!{SMUGGLED}")),
            // The byte makes a method of it.
            Expected {
                forwarded: vec![
                    Form { line: "POST /a HTTP/1.1", body: "hello", fields: vec![] },
                    Form { line: "!GET /smuggled HTTP/1.1", body: "", fields: vec![] },
                ],
                refused: false,
            },
        ),
    ]
}

#[tokio::test]
async fn malformed_requests_are_refused_or_reach_the_app_in_one_form() {
    let _turn = machine::shared();
    let app = Recorder::start().await;
    let more = json!({ "listeners": { "http": { "timeouts": { "header_read": "1s" } } } });
    let mut sidecar = super::before(app.address, more).await;
    sidecar.until_ready().await;
    let groups = [request_lines(), hosts(), lengths(), field_lines(), broken_chunks(), in_one_form()];
    let cases: Vec<Case> = groups.into_iter().flatten().collect();
    assert!(cases.len() >= 150, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        for pieces in [usize::MAX, 7] {
            if let Err(why) = holds(case, pieces, &sidecar, &app).await {
                wrong.push(format!("{}: {why}", case.name));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(sidecar.runs());
    let refused = cases.iter().filter(|case| case.expected.refused).count() as f64;
    let counted = sidecar.metric("readygate_proxy_errors_total", "bad_request").await
        + sidecar.metric("readygate_proxy_errors_total", "too_many_fields").await;
    assert_eq!(counted, 2.0 * refused);
    assert_eq!(sidecar.metric("readygate_connections", "").await, 0.0);
}

/// Sends the case in pieces of so many bytes, and compares what the client and the app got of it.
async fn holds(case: &Case, pieces: usize, sidecar: &Sidecar, app: &Recorder) -> Result<(), String> {
    let Expected { forwarded, refused } = &case.expected;
    // A long one in small pieces takes a while and shows nothing more.
    let pieces = pieces.max(case.bytes.len() / 50);
    let said =
        attack(sidecar, &case.bytes, pieces, if *refused { None } else { Some(forwarded.len()) }).await?;
    alive(sidecar).await?;
    let log = app.take();
    let (seen, alive): (Vec<_>, Vec<_>) =
        log.requests.into_iter().partition(|request| !request.line.contains("/alive"));
    let statuses: Vec<&str> = said.split("HTTP/1.").skip(1).filter_map(|part| part.get(2..5)).collect();
    let refusals =
        statuses.iter().filter(|status| ["400", "414", "431", "501", "505"].contains(status)).count();
    if !log.invalid.is_empty() || log.partial.iter().any(|bytes| bytes.contains("smuggled")) {
        return Err(format!("the app got {:?} {:?}", log.invalid, log.partial));
    }
    if alive.len() != 1
        || seen.len() != forwarded.len()
        || !seen.iter().zip(forwarded).all(|(seen, form)| form.is(seen))
    {
        return Err(format!("the app got {seen:?}; the client got {said:?}"));
    }
    let ours = said.matches("x-readygate-error: ").count();
    if refusals != usize::from(*refused) || statuses.len() != forwarded.len() + refusals || ours != refusals {
        return Err(format!("the client got {said:?}"));
    }
    Ok(())
}

impl Form {
    fn is(&self, request: &Recorded) -> bool {
        let fields = self.fields.iter().all(|(name, value)| request.field(name) == *value);
        request.line == self.line && request.body == self.body.as_bytes() && fields
    }
}

/// What the client gets: all until the connection is closed, or so many answers.
async fn attack(
    sidecar: &Sidecar,
    bytes: &[u8],
    pieces: usize,
    answers: Option<usize>,
) -> Result<String, String> {
    let mut stream = TcpStream::connect(sidecar.traffic).await.expect("the port accepts");
    stream.set_nodelay(true).expect("a socket option");
    for piece in bytes.chunks(pieces) {
        if stream.write_all(piece).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let mut said = Vec::new();
    let reading = async {
        loop {
            let text = String::from_utf8_lossy(&said);
            if answers.is_some_and(|answers| text.matches("\r\n\r\nok").count() == answers) {
                break;
            }
            if !matches!(stream.read_buf(&mut said).await, Ok(1..)) {
                break;
            }
        }
    };
    let ended = timeout(Duration::from_secs(5), reading).await;
    let said = String::from_utf8_lossy(&said).into_owned();
    if ended.is_err() { Err(format!("the connection stays, after {said:?}")) } else { Ok(said) }
}

/// Another client is served all the same.
pub async fn alive(sidecar: &Sidecar) -> Result<(), String> {
    let bytes = b"GET /alive HTTP/1.1\r\nHost: app.test\r\n\r\n";
    let said = attack(sidecar, bytes, usize::MAX, Some(1)).await?;
    if said.starts_with("HTTP/1.1 200 ") { Ok(()) } else { Err(format!("nobody is served: {said:?}")) }
}
