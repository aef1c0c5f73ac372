//! Answers that two parsers could read differently: 502, or an answer that breaks off, or one plain form; and never
//! a byte of them in another answer.

use serde_json::json;

use crate::support::machine;

use super::{GET, client, house};

#[tokio::test]
async fn answer_without_a_certain_end_is_502_and_its_connection_is_closed() {
    let _turn = machine::shared();
    let (mut sidecar, mut origin) = house(json!({})).await;
    for (fields, body) in UNCERTAIN {
        let mut client = client(&sidecar).await;
        client.say(GET).await;
        let mut app = origin.connection().await;
        app.head().await;
        app.say(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}")).await;
        assert_eq!(client.refusal().await, (502, "upstream_protocol".to_owned()), "{fields:?}");
        assert_eq!(app.end().await, "", "{fields:?}");
        // The client did nothing wrong.
        drop(client.is_served_anew(&mut origin).await);
    }
    for line in BAD_LINES {
        let mut client = client(&sidecar).await;
        client.say(GET).await;
        let mut app = origin.connection().await;
        app.head().await;
        app.say(&format!("{line}\r\ncontent-length: 5\r\n\r\nhello")).await;
        assert_eq!(client.refusal().await, (502, "upstream_protocol".to_owned()), "{line:?}");
        assert_eq!(app.end().await, "", "{line:?}");
    }
    assert!(sidecar.runs());
}

#[tokio::test]
async fn broken_chunks_of_an_answer_break_the_answer_off() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    for chunks in BROKEN_CHUNKS {
        let mut client = client(&sidecar).await;
        client.say(GET).await;
        let mut app = origin.connection().await;
        app.head().await;
        app.say(&format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}")).await;
        let text = client.end().await;
        assert!(!text.contains("0\r\n\r\n"), "{chunks:?} looks whole: {text:?}");
        assert_eq!(app.end().await, "", "{chunks:?}");
    }
}

#[tokio::test]
async fn odd_answers_reach_the_client_in_one_form() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    for (answer, length) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello", Some("5")),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\nhello", Some("5")),
        ("HTTP/1.1 200 OK\r\ncontent-length: 005\r\n\r\nhello", Some("5")),
        ("HTTP/1.1 200 OK\ncontent-length: 5\n\nhello", Some("5")),
        ("HTTP/1.1 200\r\ncontent-length: 5\r\n\r\nhello", Some("5")),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 199 ?\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
            Some("5"),
        ),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: CHUNKED\r\n\r\n005;a=b\r\nhello\r\n00\r\n\r\n", None),
    ] {
        let mut client = client(&sidecar).await;
        client.say(GET).await;
        let mut app = origin.connection().await;
        app.head().await;
        app.say(answer).await;
        let head = client.head().await;
        assert_eq!((head.status(), head.field("content-length").as_deref()), (200, length), "{answer:?}");
        match length {
            Some(_) => assert_eq!(client.take(5).await, "hello", "{answer:?}"),
            None => assert_eq!(client.until("0\r\n\r\n").await, "5\r\nhello\r\n0\r\n\r\n"),
        }
        client.is_served_by(&mut app).await;
        drop(app);
    }
}

#[tokio::test]
async fn bytes_after_an_answer_are_nobodys() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    const POISON: &str = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
    for (method, answer) in [
        ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        ("GET", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\ncontent-length: 45\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\ncontent-length: 45\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 45\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
    ] {
        let mut client = client(&sidecar).await;
        let request = GET.replace("GET", method);
        // The second request is there before the first one's answer: it must not meet what came too much.
        client.say(&[request.as_str(), GET].concat()).await;
        let mut app = origin.connection().await;
        app.head().await;
        app.say(&[answer, POISON].concat()).await;
        let first = client.head().await;
        if answer.contains(" 204 ") {
            assert_eq!((first.field("content-length"), first.field("transfer-encoding")), (None, None));
        }
        if method == "GET" && answer.contains("chunked") {
            client.until("0\r\n\r\n").await;
        }
        assert_eq!(app.end().await, "", "{method} {answer:?}");
        let (_app, head) = origin.serve().await;
        assert_eq!(head.line, "GET /a HTTP/1.1");
        assert_eq!(client.answer().await.1, "ok", "{method} {answer:?}");
    }
}

const CHUNKS: &str = "5\r\nhello\r\n0\r\n\r\n";

/// Fields that leave the end of an answer open, and its body.
pub const UNCERTAIN: &[(&str, &str)] = &[
    ("content-length: 5\r\ntransfer-encoding: chunked\r\n", CHUNKS),
    ("transfer-encoding: chunked\r\ncontent-length: 5\r\n", CHUNKS),
    ("transfer-encoding: chunked\r\ncontent-length: 0\r\n", CHUNKS),
    ("transfer-encoding: gzip, chunked\r\n", CHUNKS),
    ("transfer-encoding: chunked, gzip\r\n", CHUNKS),
    ("transfer-encoding: identity\r\n", "hello"),
    ("transfer-encoding: xchunked\r\n", CHUNKS),
    ("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", CHUNKS),
    ("transfer-encoding: chunked;a=b\r\n", CHUNKS),
    ("transfer-encoding: chunked,\r\n", CHUNKS),
    ("content-length: 5\r\ncontent-length: 6\r\n", "hello!"),
    ("content-length: 5, 6\r\n", "hello!"),
    ("content-length: +5\r\n", "hello"),
    ("content-length: -5\r\n", "hello"),
    ("content-length: 0x5\r\n", "hello"),
    ("content-length: 5 5\r\n", "hello"),
    ("content-length: \r\n", "hello"),
    ("content-length: 99999999999999999999\r\n", "hello"),
    ("content-length : 5\r\n", "hello"),
    ("a: 1\r\n folded\r\ncontent-length: 5\r\n", "hello"),
    ("a\0: 1\r\ncontent-length: 5\r\n", "hello"),
    ("a: \0\r\ncontent-length: 5\r\n", "hello"),
    ("a: \x01\r\ncontent-length: 5\r\n", "hello"),
    (": 1\r\ncontent-length: 5\r\n", "hello"),
    ("a: 1\rb: 2\r\ncontent-length: 5\r\n", "hello"),
];

/// Status lines that are none, or that nobody asked for.
pub const BAD_LINES: &[&str] = &[
    "HTTP/2.0 200 OK",
    "HTTP/1.2 200 OK",
    "HTTP/1.1 20 OK",
    "HTTP/1.1 2000 OK",
    "HTTP/1.1 099 OK",
    "HTTP/1.1  200 OK",
    "http/1.1 200 OK",
    "HTTP/1.1 200 O\0K",
    "HTTP/1.1 101 Switching Protocols",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching Protocols",
];

/// Bodies in chunks that are none.
pub const BROKEN_CHUNKS: &[&str] = &[
    "\r\n",
    "g\r\nhello\r\n0\r\n\r\n",
    "-5\r\nhello\r\n0\r\n\r\n",
    "+5\r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "5\nhello\r\n0\r\n\r\n",
    "5\r\nhello\n0\r\n\r\n",
    "5\r\nhello!\r\n0\r\n\r\n",
    "5;\n\r\nhello\r\n0\r\n\r\n",
    "10000000000000005\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\na\r\n\r\n",
];
