//! The same for clients of HTTP/2 before an app of HTTP/1, frame by frame: what no field list may say ends at its
//! stream, and what passes is one request.

use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::frames::{
    self, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, RST_STREAM, SETTINGS, block, frame,
};
use crate::support::machine;

use super::malformed::alive;
use super::recorder::Recorder;

type Fields = Vec<(&'static str, &'static str)>;

/// A request, and the DATA that follows its HEADERS, if any.
struct Case {
    name: &'static str,
    fields: Fields,
    data: Option<&'static str>,
    trailers: Option<Fields>,
}

/// What the client is told.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    /// An answer with 200.
    Fine,
    /// An answer with another status, RST_STREAM, GOAWAY, or the end.
    Refused,
}

const PSEUDO: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":authority", "app.test"), (":path", "/a")];

/// A request with these fields besides the usual ones.
fn with(name: &'static str, fields: &[(&'static str, &'static str)]) -> Case {
    Case { name, fields: [&PSEUDO, fields].concat(), data: None, trailers: None }
}

/// A request with another value of a pseudo-field.
fn but(name: &'static str, field: &'static str, value: &'static str) -> Case {
    let mut case = with(name, &[]);
    case.fields.iter_mut().filter(|(name, _)| *name == field).for_each(|pair| pair.1 = value);
    case
}

/// A request without a pseudo-field.
fn without(name: &'static str, field: &str) -> Case {
    let mut case = with(name, &[]);
    case.fields.retain(|(name, _)| *name != field);
    case
}

fn sending(mut case: Case, data: &'static str) -> Case {
    case.data = Some(data);
    case
}

/// A request with a body, and these fields behind it.
fn ending(name: &'static str, trailers: &[(&'static str, &'static str)]) -> Case {
    let mut case = sending(with(name, &[("trailer", "a, host, content-length")]), "hello");
    case.trailers = Some(trailers.to_vec());
    case
}

/// More fields than a request may have, and a longer one.
fn excessive() -> [Case; 2] {
    let many: Vec<_> = (0..101).map(|number| (&*format!("x-{number}").leak(), "1")).collect();
    [with("too many fields", &many), with("a field that is too long", &[("a", "x".repeat(70_000).leak())])]
}

fn malformed() -> Vec<Case> {
    const INJECTED: &str = "1\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: app.test\r\n\r\n";
    vec![
        with("connection", &[("connection", "close")]),
        with("connection that names a field", &[("connection", "host")]),
        with("keep-alive", &[("keep-alive", "timeout=5")]),
        with("proxy-connection", &[("proxy-connection", "close")]),
        with("transfer-encoding", &[("transfer-encoding", "chunked")]),
        with("upgrade", &[("upgrade", "h2c")]),
        with("te with another coding", &[("te", "gzip")]),
        with("te with two codings", &[("te", "trailers, chunked")]),
        with("a name in capitals", &[("X-Upper", "1")]),
        with("an empty name", &[("", "1")]),
        with("a colon in a name", &[("a:b", "1")]),
        with("a quotation mark in a name", &[("a\"", "1")]),
        ending("a quotation mark in a name of the trailers", &[("a\"", "1")]),
        with("a space in a name", &[("a b", "1")]),
        with("a line's end in a name", &[("a: 1\r\nx", "1")]),
        with("a NUL in a name", &[("a\0", "1")]),
        with("CR in a value", &[("a", "1\r2")]),
        with("LF in a value", &[("a", "1\n2")]),
        with("a request in a value", &[("a", INJECTED)]),
        with("a NUL in a value", &[("a", "1\0")]),
        with("a space before a value", &[("a", " 1")]),
        with("a tab after a value", &[("a", "1\t")]),
        but("CR LF in the path", ":path", "/a HTTP/1.1\r\nhost: x\r\n\r\nGET /smuggled"),
        but("a space in the path", ":path", "/a b"),
        but("a version in the path", ":path", "/a HTTP/1.1"),
        but("a NUL in the path", ":path", "/a\0"),
        but("UTF-8 in the path", ":path", "/\u{e4}"),
        but("an empty path", ":path", ""),
        but("a relative path", ":path", "a"),
        but("an asterisk", ":path", "*"),
        but("an absolute path", ":path", "http://other.test/"),
        but("CR LF in the method", ":method", "GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\nGET"),
        but("a space in the method", ":method", "GET /smuggled"),
        but("an empty method", ":method", ""),
        but("CR LF in the authority", ":authority", "app.test\r\nx: 1"),
        but("a user in the authority", ":authority", "u@app.test"),
        but("a path in the authority", ":authority", "app.test/a"),
        but("a space in the authority", ":authority", "app test"),
        but("a list in the authority", ":authority", "app.test,other.test"),
        but("a port that is none", ":authority", "app.test:x"),
        but("an empty authority", ":authority", ""),
        but("CR LF in the scheme", ":scheme", "http\r\nx: 1"),
        but("a path in the scheme", ":scheme", "http://other.test/?"),
        but("another scheme", ":scheme", "ftp"),
        without("no method", ":method"),
        without("no scheme", ":scheme"),
        without("no path", ":path"),
        without("no authority and no host", ":authority"),
        with("two paths", &[(":path", "/b")]),
        with("two methods", &[(":method", "GET")]),
        with("two authorities", &[(":authority", "app.test")]),
        with("an unknown pseudo-field", &[(":a", "1")]),
        with("a pseudo-field of answers", &[(":status", "200")]),
        with("a pseudo-field after a field", &[("a", "1"), (":path", "/a")]),
        with("another host", &[("host", "other.test")]),
        with("two hosts", &[("host", "app.test"), ("host", "app.test")]),
        with("a host with a user", &[("host", "u@app.test")]),
        with("a length without a body", &[("content-length", "5")]),
        sending(with("a length that is too long", &[("content-length", "9")]), "hello"),
        sending(with("a length that is too short", &[("content-length", "3")]), "hello"),
        sending(with("a length of nothing", &[("content-length", "0")]), "hello"),
        sending(with("a positive length", &[("content-length", "+5")]), "hello"),
        sending(with("a list of lengths", &[("content-length", "5, 5")]), "hello"),
        sending(with("two lengths", &[("content-length", "5"), ("content-length", "5")]), "hello"),
        sending(with("an empty length", &[("content-length", "")]), "hello"),
        ending("connection in the trailers", &[("connection", "close")]),
        ending("transfer-encoding in the trailers", &[("transfer-encoding", "chunked")]),
        ending("upgrade in the trailers", &[("upgrade", "h2c")]),
        ending("a name in capitals in the trailers", &[("X-Upper", "1")]),
        ending("a request in the trailers", &[("a", INJECTED)]),
        ending("NUL in the trailers", &[("a", "1\0")]),
        but("CONNECT with a path", ":method", "CONNECT"),
        Case { fields: vec![(":method", "CONNECT"), (":authority", "app.test:80")], ..with("CONNECT", &[]) },
        Case {
            fields: [&[(":method", "CONNECT"), (":protocol", "websocket")], &PSEUDO[1..]].concat(),
            ..with("extended CONNECT", &[])
        },
    ]
}

#[tokio::test]
async fn malformed_requests_of_http2_end_at_their_stream() {
    let _turn = machine::shared();
    let app = Recorder::start().await;
    let mut sidecar = super::before(app.address, json!({})).await;
    sidecar.until_ready().await;
    let mut cases = malformed();
    cases.extend(excessive());
    assert!(cases.len() >= 70, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let told = ask(sidecar.traffic, case).await;
        alive(&sidecar).await.expect("others are served");
        let log = app.take();
        let lines: Vec<&str> = log.requests.iter().map(|request| request.line.as_str()).collect();
        let partial = log.partial.iter().any(|bytes| bytes.contains("smuggled"));
        if told != Told::Refused || lines != ["GET /alive HTTP/1.1"] || !log.invalid.is_empty() || partial {
            wrong.push(format!("{}: {told:?}, the app got {log:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(sidecar.runs());
}

#[tokio::test]
async fn requests_of_http2_reach_an_app_of_http1_in_one_form() {
    let _turn = machine::shared();
    let app = Recorder::start().await;
    let sidecar = super::before(app.address, json!({})).await;
    sidecar.until_ready().await;
    // h2 drops such a field, so that it is no second request's.
    let pseudo = ending("a pseudo-field in the trailers", &[(":path", "/b")]);
    // What frames or addresses a message is nothing behind it.
    let late = ending("fields that come too late", &[("host", "other.test"), ("content-length", "1")]);
    let mut hosted = without("a fragment alone, and host for the authority", ":authority");
    hosted.fields.push(("host", "app.test"));
    hosted.fields.iter_mut().filter(|(name, _)| *name == ":path").for_each(|pair| pair.1 = "#b");
    for (case, line, body, fields) in [
        (pseudo, "POST /a HTTP/1.1", "hello", vec![(":path", None)]),
        (late, "POST /a HTTP/1.1", "hello", vec![("host", Some("app.test")), ("content-length", None)]),
        (
            with("plain", &[]),
            "POST /a HTTP/1.1",
            "",
            vec![("host", Some("app.test")), ("transfer-encoding", None)],
        ),
        (
            sending(with("no length", &[("te", "trailers")]), "hello"),
            "POST /a HTTP/1.1",
            "hello",
            vec![("transfer-encoding", Some("chunked")), ("content-length", None)],
        ),
        (
            sending(with("a length", &[("content-length", "005")]), "hello"),
            "POST /a HTTP/1.1",
            "hello",
            vec![("transfer-encoding", None), ("content-length", Some("5"))],
        ),
        (
            with("the same host", &[("host", "APP.test")]),
            "POST /a HTTP/1.1",
            "",
            vec![("host", Some("app.test"))],
        ),
        (but("a fragment", ":path", "/a?b#c"), "POST /a?b HTTP/1.1", "", vec![]),
        (but("a fragment alone", ":path", "#b"), "POST / HTTP/1.1", "", vec![]),
        (hosted, "POST / HTTP/1.1", "", vec![("host", Some("app.test"))]),
        (but("escapes", ":path", "/%0d%0a//../b"), "POST /%0d%0a//../b HTTP/1.1", "", vec![]),
    ] {
        assert_eq!(ask(sidecar.traffic, &case).await, Told::Fine, "{}", case.name);
        let log = app.take();
        assert_eq!((log.requests.len(), log.invalid.len()), (1, 0), "{}: {log:?}", case.name);
        let request = &log.requests[0];
        assert_eq!(
            (request.line.as_str(), request.body.as_slice()),
            (line, body.as_bytes()),
            "{}",
            case.name
        );
        for (name, value) in fields {
            assert_eq!(request.field(name), value, "{}: {name}", case.name);
        }
    }
}

/// Opens a connection with this one request.
async fn ask(address: std::net::SocketAddr, case: &Case) -> Told {
    let mut stream = TcpStream::connect(address).await.expect("the port accepts");
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let last = if case.data.is_none() { END_STREAM } else { 0 };
    bytes.extend(frames::head(last, 1, &block(&case.fields)));
    if let Some(data) = case.data {
        let last = if case.trailers.is_none() { END_STREAM } else { 0 };
        bytes.extend(frame(DATA, last, 1, data.as_bytes()));
    }
    if let Some(trailers) = &case.trailers {
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(trailers)));
    }
    let _ = stream.write_all(&bytes).await;
    timeout(Duration::from_secs(5), told(&mut stream)).await.expect("an answer or a refusal")
}

async fn told(stream: &mut TcpStream) -> Told {
    while let Some(frame) = frames::read(stream).await {
        match frame.kind {
            // `:status: 200` is 8 in the static table (RFC 7541, A).
            HEADERS if frame.payload.first() == Some(&0x88) => return Told::Fine,
            HEADERS | RST_STREAM | GOAWAY => return Told::Refused,
            _ => {}
        }
    }
    Told::Refused
}
