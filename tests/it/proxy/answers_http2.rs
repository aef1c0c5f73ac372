//! Answers across the two versions, frame by frame: what an app of HTTP/2 may not answer reaches no client of HTTP/1 as
//! anything whole, and what an app of HTTP/1 may not answer no client of HTTP/2; nor a byte of either another answer.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::support::frames::{
    self, ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, block, frame,
};
use crate::support::machine;

use super::answers::{BAD_LINES, BROKEN_CHUNKS, UNCERTAIN};
use super::h2::{Client, patiently, request, whole};
use super::{client, house};

type Fields<'a> = &'a [(&'a str, &'a str)];

/// One part of an answer: kind, flags and payload of a frame.
type Part = (u8, u8, Vec<u8>);

fn head(fields: Fields<'_>) -> Part {
    (HEADERS, END_HEADERS, block(fields))
}

/// The last fields: of an answer without a body, or behind one.
fn end(fields: Fields<'_>) -> Part {
    (HEADERS, END_HEADERS | END_STREAM, block(fields))
}

fn last(data: &str) -> Part {
    (DATA, END_STREAM, data.as_bytes().to_vec())
}

/// An app that speaks frames: each request gets the next answer that is there, or a good one. Gone when dropped.
struct App {
    address: SocketAddr,
    answers: Arc<Mutex<VecDeque<Vec<Part>>>>,
    accepting: AbortHandle,
}

impl App {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let answers = Arc::<Mutex<VecDeque<Vec<Part>>>>::default();
        let shared = Arc::clone(&answers);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { address, answers, accepting: accepting.abort_handle() }
    }

    fn will_answer(&self, parts: &[Part]) {
        self.answers.lock().expect("no panic holds it").push_back(parts.to_vec());
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut stream: TcpStream, answers: Arc<Mutex<VecDeque<Vec<Part>>>>) -> std::io::Result<()> {
    stream.read_exact(&mut [0; PREFACE.len()]).await?;
    stream.write_all(&[frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, ACK, 0, &[])].concat()).await?;
    while let Some(asked) = frames::read(&mut stream).await {
        if asked.kind != HEADERS {
            continue;
        }
        let next = answers.lock().expect("no panic holds it").pop_front();
        let parts =
            next.unwrap_or_else(|| vec![head(&[(":status", "200"), ("content-length", "2")]), last("ok")]);
        let bytes: Vec<u8> = parts
            .iter()
            .flat_map(|(kind, flags, payload)| frame(*kind, *flags, asked.stream, payload))
            .collect();
        stream.write_all(&bytes).await?;
    }
    Ok(())
}

const STATUS: (&str, &str) = (":status", "200");

/// What makes two requests of one answer, if it is not seen for what it is.
const INJECTED: &str = "1\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\ninjected";

/// Answers that no client may get as whole, by name.
fn faulty() -> Vec<(&'static str, Vec<Part>)> {
    let field = |name: &'static str, fields: Fields<'_>| {
        (name, vec![head(&[&[STATUS], fields].concat()), last("hello")])
    };
    let status = |name: &'static str, status: &str| (name, vec![head(&[(":status", status)]), last("hello")]);
    vec![
        ("no status", vec![head(&[("a", "1")]), last("hello")]),
        ("two statuses", vec![head(&[STATUS, (":status", "404")]), last("hello")]),
        status("an empty status", ""),
        status("a status of two digits", "20"),
        status("a status of four digits", "2000"),
        status("a status of letters", "abc"),
        status("a status with a sign", "+20"),
        status("a status with a blank", "20 "),
        status("a status below all", "099"),
        status("a line's end in the status", "200\r\n"),
        status("a switch of protocols", "101"),
        ("a status after a field", vec![head(&[("a", "1"), STATUS]), last("hello")]),
        field("an unknown pseudo-field", &[(":a", "1")]),
        field("connection", &[("connection", "close")]),
        field("keep-alive", &[("keep-alive", "timeout=5")]),
        field("proxy-connection", &[("proxy-connection", "close")]),
        field("transfer-encoding", &[("transfer-encoding", "chunked")]),
        field("upgrade", &[("upgrade", "websocket")]),
        field("a name in capitals", &[("X-Upper", "1")]),
        field("an empty name", &[("", "1")]),
        field("a blank in a name", &[("a b", "1")]),
        field("a colon in a name", &[("a:b", "1")]),
        field("a quotation mark in a name", &[("a\"", "1")]),
        field("a line's end in a name", &[("a: 1\r\nb", "1")]),
        field("an answer in a value", &[("a", INJECTED)]),
        field("CR in a value", &[("a", "1\r2")]),
        field("LF in a value", &[("a", "1\n2")]),
        field("NUL in a value", &[("a", "1\0")]),
        field("a length that is too long", &[("content-length", "9")]),
        field("a length that is too short", &[("content-length", "3")]),
        field("a positive length", &[("content-length", "+5")]),
        field("a negative length", &[("content-length", "-5")]),
        field("an empty length", &[("content-length", "")]),
        field("a length of letters", &[("content-length", "five")]),
        field("a list of lengths", &[("content-length", "5, 6")]),
        field("two lengths", &[("content-length", "5"), ("content-length", "6")]),
        field("a length beyond all", &[("content-length", "99999999999999999999")]),
        ("a length without a body", vec![end(&[STATUS, ("content-length", "5")])]),
        ("a body before the head", vec![last("hello")]),
        ("an informational answer at the end", vec![end(&[(":status", "103")])]),
        ("a second head", vec![head(&[STATUS]), head(&[STATUS]), last("hello")]),
        (
            "a line's end in the trailers",
            vec![head(&[STATUS]), (DATA, 0, b"hello".to_vec()), end(&[("a", INJECTED)])],
        ),
        (
            "a pseudo-field in the trailers",
            vec![
                head(&[STATUS, ("trailer", "a")]),
                (DATA, 0, b"hello".to_vec()),
                end(&[("a", "1"), (":path", "/")]),
            ],
        ),
        ("a garbled head", vec![(HEADERS, END_HEADERS, vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff])]),
    ]
}

#[tokio::test]
async fn faulty_answers_of_http2_are_no_whole_answers_of_http1() {
    let _turn = machine::shared();
    let app = App::start().await;
    let upstream = json!({ "listeners": { "http": { "upstream": format!("h2c://{}", app.address) } } });
    let mut sidecar = super::before(app.address, upstream).await;
    sidecar.until_ready().await;
    let cases = faulty();
    assert!(cases.len() >= 40, "{} cases", cases.len());
    let (mut wrong, mut refused) = (Vec::new(), 0);
    for (name, parts) in &cases {
        app.will_answer(parts);
        let mut client = client(&sidecar).await;
        client.say("GET /a HTTP/1.1\r\nhost: app.test\r\nconnection: close\r\n\r\n").await;
        let text = client.end().await;
        refused +=
            u32::from(text.starts_with("HTTP/1.1 502 ") && text.contains("x-readygate-error: upstream_"));
        if is_whole(&text) || text.contains("injected") {
            wrong.push(format!("{name}: {text:?}"));
        }
        app.answers.lock().expect("no panic holds it").clear();
        // Nothing of it stays.
        client = super::client(&sidecar).await;
        client.say(super::GET).await;
        let (next, body) = client.answer().await;
        assert_eq!((next.status(), body.as_str()), (200, "ok"), "after {name}");
    }
    println!("{} answers, {refused} of them refused with 502, the others broken off", cases.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(sidecar.runs());
}

/// Whether a client may take this for an answer of the app from its beginning to its end.
fn is_whole(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    if head.contains("x-readygate-error: ") {
        return false;
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    match length.map(str::parse::<usize>) {
        Some(Ok(length)) => body.len() >= length,
        None if head.contains("transfer-encoding: chunked") => {
            body.ends_with("0\r\n\r\n") || body.contains("\r\n0\r\n")
        }
        // To the end of the connection.
        Some(Err(_)) | None => true,
    }
}

#[tokio::test]
async fn answers_of_http2_reach_a_client_of_http1_in_one_form() {
    let _turn = machine::shared();
    let app = App::start().await;
    let upstream = json!({ "listeners": { "http": { "upstream": format!("h2c://{}", app.address) } } });
    let sidecar = super::before(app.address, upstream).await;
    sidecar.until_ready().await;
    let data = || (DATA, 0, b"hello".to_vec());
    let chunked =
        |trailers: &str| format!("transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n{trailers}\r\n");
    let (length, five) = ("content-length: 5\r\n\r\nhello".to_owned(), ("content-length", "5"));
    for (name, method, parts, status, expected) in [
        ("no length", "GET", vec![head(&[STATUS]), last("hello")], "200", chunked("")),
        // What h2 passes over goes no further.
        (
            "a pseudo-field of requests",
            "GET",
            vec![head(&[STATUS, (":path", "/")]), last("hello")],
            "200",
            chunked(""),
        ),
        ("a length", "GET", vec![head(&[STATUS, five]), last("hello")], "200", length.clone()),
        (
            "a length with zeros",
            "GET",
            vec![head(&[STATUS, ("content-length", "005")]), last("hello")],
            "200",
            length.clone(),
        ),
        (
            "a length of nothing",
            "GET",
            vec![head(&[STATUS, ("content-length", "0")]), last("hello")],
            "200",
            "content-length: 0\r\n\r\n".to_owned(),
        ),
        (
            "hints",
            "GET",
            vec![head(&[(":status", "103"), ("link", "a")]), head(&[STATUS, five]), last("hello")],
            "200",
            length,
        ),
        ("no content", "GET", vec![end(&[(":status", "204")])], "204", "\r\n\r\n".to_owned()),
        ("no change", "GET", vec![end(&[(":status", "304"), five])], "304", "\r\n\r\n".to_owned()),
        ("HEAD", "HEAD", vec![end(&[STATUS, five])], "200", "content-length: 5\r\n\r\n".to_owned()),
        (
            "trailers",
            "GET",
            vec![head(&[STATUS, ("trailer", "x-sum")]), data(), end(&[("x-sum", "1")])],
            "200",
            chunked("x-sum: 1\r\n"),
        ),
        (
            "a quotation mark in a name of the trailers",
            "GET",
            vec![head(&[STATUS, ("trailer", "a\", b")]), data(), end(&[("a\"", "1"), ("b", "2")])],
            "200",
            chunked("b: 2\r\n"),
        ),
        (
            "a length in the trailers",
            "GET",
            vec![head(&[STATUS, ("trailer", "content-length")]), data(), end(&[("content-length", "1")])],
            "200",
            chunked(""),
        ),
    ] {
        app.will_answer(&parts);
        let mut client = client(&sidecar).await;
        client
            .say(&format!(
                "{method} /a HTTP/1.1\r\nhost: app.test\r\nte: trailers\r\nconnection: close\r\n\r\n"
            ))
            .await;
        let text = client.end().await.replace("connection: close\r\n", "");
        // What is only informational may come before.
        let found = text.rsplit_once("HTTP/1.1 ").map_or("", |(_, last)| last);
        assert!(found.starts_with(status), "{name}: {text:?}");
        assert!(found.ends_with(&expected), "{name}: {text:?}");
    }
}

#[tokio::test]
async fn faulty_answers_of_http1_are_no_whole_answers_of_http2() {
    let _turn = machine::shared();
    let (mut sidecar, mut origin) = house(json!({})).await;
    let mut client = Client::connect(sidecar.traffic).await;
    let fields = UNCERTAIN.iter().map(|(fields, body)| format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}"));
    let lines = BAD_LINES.iter().map(|line| format!("{line}\r\ncontent-length: 5\r\n\r\nhello"));
    let chunks = BROKEN_CHUNKS
        .iter()
        .map(|chunks| format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"));
    let short = ["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello".to_owned()];
    let mut count = 0;
    for answer in fields.chain(lines).chain(chunks).chain(short) {
        let (response, _) = client.open(request("GET", "/a"), false).await;
        let mut app = origin.connection().await;
        app.head().await;
        app.say(&answer).await;
        if answer.contains("content-length: 9") {
            app.finish().await;
        }
        match patiently(whole(response)).await {
            // Reset, so that nobody takes it for whole.
            Err(error) => assert!(error.is_reset(), "{answer:?}: {error}"),
            Ok(told) => {
                assert_eq!(told.head.status(), 502, "{answer:?}");
                assert_eq!(told.head.headers()["x-readygate-error"], "upstream_protocol", "{answer:?}");
            }
        }
        assert_eq!(app.end().await, "", "{answer:?}");
        // The connection of the client goes on.
        let (response, _) = client.open(request("GET", "/a"), false).await;
        let (app, _) = origin.serve().await;
        assert_eq!(patiently(whole(response)).await.expect("an answer").body, b"ok", "{answer:?}");
        drop(app);
        count += 1;
    }
    println!("{count} answers");
    assert!(count >= 45 && sidecar.runs());
}
