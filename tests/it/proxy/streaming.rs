//! Bodies on their way: nothing is kept back, nothing is asked for before it is wanted, and who goes away
//! stops the other side.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{eventually, machine};

use super::wire::Origin;
use super::{GET, OK, client, house};

const EXPECTS: &str =
    "POST /a HTTP/1.1\r\nhost: app.test\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n";

#[tokio::test]
async fn first_bytes_arrive_before_the_last_are_sent() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut client = client(&sidecar).await;
    client.say("POST /a HTTP/1.1\r\nhost: app.test\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n").await;
    let mut app = origin.connection().await;
    app.head().await;
    assert_eq!(app.take(6).await, "1\r\na\r\n");
    // The answer begins while the request goes on.
    app.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n").await;
    client.head().await;
    assert_eq!(client.take(6).await, "1\r\nx\r\n");
    client.say("1\r\nb\r\n").await;
    assert_eq!(app.take(6).await, "1\r\nb\r\n");
    app.say("1\r\ny\r\n").await;
    assert_eq!(client.take(6).await, "1\r\ny\r\n");
    client.say("0\r\n\r\n").await;
    assert_eq!(app.take(5).await, "0\r\n\r\n");
    app.say("0\r\n\r\n").await;
    assert_eq!(client.take(5).await, "0\r\n\r\n");
    client.say(GET).await;
    assert_eq!(app.head().await.line, "GET /a HTTP/1.1");
}

#[tokio::test]
async fn slow_reader_slows_the_app_down_instead_of_filling_memory() {
    let _turn = machine::shared();
    const TOTAL: usize = 64 << 20;
    let (sidecar, mut origin) = house(json!({})).await;
    let mut client = client(&sidecar).await;
    client.say(GET).await;
    let mut app = origin.connection().await;
    app.head().await;
    app.say(&format!("HTTP/1.1 200 OK\r\ncontent-length: {TOTAL}\r\n\r\n")).await;
    client.head().await;
    let taken = app.flood(TOTAL).await;
    assert!(taken < TOTAL / 2, "{taken} bytes were taken and nobody reads");
}

#[tokio::test]
async fn continue_comes_when_the_app_asks_for_the_body() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut client = client(&sidecar).await;
    client.say(EXPECTS).await;
    let mut app = origin.connection().await;
    assert_eq!(app.head().await.field("expect").as_deref(), Some("100-continue"));
    assert!(client.is_silent(), "100 before the app asked for the body");
    app.say("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(client.until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.say("hello").await;
    assert_eq!(app.take(5).await, "hello");
    app.say(OK).await;
    assert_eq!(client.answer().await.1, "ok");
    client.say(GET).await;
    assert_eq!(app.head().await.line, "GET /a HTTP/1.1");
}

#[tokio::test]
async fn app_that_knows_no_continue_gets_the_body_all_the_same() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut client = client(&sidecar).await;
    client.say(EXPECTS).await;
    let mut app = origin.connection().await;
    app.head().await;
    assert_eq!(client.until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.say("hello").await;
    assert_eq!(app.take(5).await, "hello");
    app.say(OK).await;
    assert_eq!(client.answer().await.1, "ok");
}

#[tokio::test]
async fn app_that_refuses_the_body_is_heard_and_no_body_is_taken_for_a_request() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut refused = client(&sidecar).await;
    refused.say(EXPECTS).await;
    let mut app = origin.connection().await;
    app.head().await;
    app.say("HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig").await;
    let (head, body) = refused.answer().await;
    assert_eq!((head.status(), body.as_str()), (413, "big"));
    // What would be the body now, or the next request, is neither: nobody could tell.
    refused.say(&GET.replace("/a", "/smuggled")).await;
    assert_eq!(refused.end().await, "");
    assert_eq!(app.end().await, "", "the app was promised a body that will not come");
    let mut next = client(&sidecar).await;
    next.say(GET).await;
    let (_, head) = origin.serve().await;
    assert_eq!(head.line, "GET /a HTTP/1.1");
    assert_eq!(next.answer().await.1, "ok");
}

#[tokio::test]
async fn early_answer_reaches_a_client_that_still_sends() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut uploader = client(&sidecar).await;
    uploader.say("POST /a HTTP/1.1\r\nhost: app.test\r\ncontent-length: 1000000\r\n\r\nhello").await;
    let mut app = origin.connection().await;
    app.head().await;
    app.take(5).await;
    app.say("HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\nno").await;
    let (head, body) = uploader.answer().await;
    assert_eq!((head.status(), body.as_str()), (401, "no"));
    // Neither connection is used again, and neither stays.
    assert_eq!(app.end().await, "");
    assert_eq!(uploader.end().await, "");
    let mut next = client(&sidecar).await;
    next.is_served_anew(&mut origin).await;
}

#[tokio::test]
async fn body_that_nobody_reads_is_no_request_after_an_early_answer() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    // An app that answers the head on each connection, and reads nothing behind it.
    let (heard, mut lines) = tokio::sync::mpsc::unbounded_channel();
    let app = tokio::spawn(async move {
        let mut kept = Vec::new();
        loop {
            let mut wire = origin.connection().await;
            let _ = heard.send(wire.head().await.line);
            wire.say("HTTP/1.1 401 Unauthorized\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno").await;
            kept.push(wire);
        }
    });
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: app.test\r\n\r\n";
    for (times, framing) in [(100, "length"), (100, "chunks"), (100_000, "length"), (100_000, "chunks")] {
        let body = smuggled.repeat(times);
        let head = "POST /a HTTP/1.1\r\nhost: app.test\r\n";
        let request = match framing {
            "length" => format!("{head}content-length: {}\r\n\r\n{body}", body.len()),
            _ => {
                format!("{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
            }
        };
        let mut uploader = client(&sidecar).await;
        uploader.say(&request).await;
        let (head, body) = uploader.answer().await;
        assert_eq!((head.status(), body.as_str()), (401, "no"), "{times} by {framing}");
        assert_eq!(lines.recv().await.as_deref(), Some("POST /a HTTP/1.1"));
        // The next request on it is served or not; nothing of that body is one.
        let last = GET.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
        uploader.say(&last).await;
        let said = uploader.end().await;
        let answers = said.matches("HTTP/1.1 401 ").count();
        assert!(answers <= 1, "{times} by {framing}: {said}");
        let mut next = client(&sidecar).await;
        next.say(GET).await;
        assert_eq!(next.answer().await.1, "no");
        for _ in 0..=answers {
            assert_eq!(lines.recv().await.as_deref(), Some("GET /a HTTP/1.1"), "{times} by {framing}");
        }
        assert!(lines.try_recv().is_err(), "{times} by {framing}");
    }
    app.abort();
}

#[tokio::test]
async fn client_that_still_sends_when_it_is_refused_is_not_reset() {
    let _turn = machine::shared();
    let (sidecar, origin) = house(json!({})).await;
    let body = "x".repeat(50_000);
    for head in ["content-length : 60000", "content-length: 60000\r\nhost: b"] {
        let mut client = client(&sidecar).await;
        client.say(&format!("POST /a HTTP/1.1\r\nhost: app.test\r\n{head}\r\n\r\n{body}")).await;
        assert_eq!(client.head().await.status(), 400);
        client.say(&body[..1000]).await;
        client.finish().await;
        assert!(client.ends_in_order().await, "reset: {head}");
    }
    let mut endless = client(&sidecar).await;
    endless.say("POST /a HTTP/1.1\r\nhost: app.test\r\nhost: b\r\n\r\n").await;
    assert_eq!(endless.head().await.status(), 400);
    assert!(endless.flood(64 << 20).await < 64 << 20, "it is not read for ever");
    drop(origin);
}

#[tokio::test]
async fn app_that_answers_early_may_still_take_the_body() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut client = client(&sidecar).await;
    client.say("POST /a HTTP/1.1\r\nhost: app.test\r\ncontent-length: 10\r\n\r\nhello").await;
    let mut app = origin.connection().await;
    app.head().await;
    app.take(5).await;
    app.say(OK).await;
    assert_eq!(client.answer().await.1, "ok");
    client.say("world").await;
    assert_eq!(app.take(5).await, "world");
    client.say(GET).await;
    assert_eq!(app.head().await.line, "GET /a HTTP/1.1");
    app.say(OK).await;
    assert_eq!(client.answer().await.1, "ok");
}

#[tokio::test]
async fn client_that_goes_away_stops_the_app_and_spoils_nothing() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    // In the middle of an answer: noticed with the bytes that nobody takes.
    let mut gone = client(&sidecar).await;
    gone.say(GET).await;
    let mut app = origin.connection().await;
    app.head().await;
    app.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
    gone.head().await;
    drop(gone);
    app.flood_chunks_until_stopped().await;
    // In the middle of an upload: noticed at once.
    for (request, reset) in [
        ("POST /a HTTP/1.1\r\nhost: app.test\r\ncontent-length: 10\r\n\r\nhello", false),
        ("POST /a HTTP/1.1\r\nhost: app.test\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", false),
        ("POST /a HTTP/1.1\r\nhost: app.test\r\ncontent-length: 10\r\n\r\nhello", true),
    ] {
        let mut gone = client(&sidecar).await;
        gone.say(request).await;
        let mut app = origin.connection().await;
        app.head().await;
        if reset {
            gone.reset();
        } else {
            drop(gone);
        }
        let rest = app.end().await;
        assert!(!rest.contains("0\r\n\r\n") && !rest.contains("GET"), "{rest:?}");
    }
    let mut next = client(&sidecar).await;
    next.is_served_anew(&mut origin).await;
    let errors = "readygate_proxy_errors_total";
    eventually("each of them is counted as gone", Duration::from_secs(10), async || {
        sidecar.metric(errors, "kind=\"client_closed\"").await == 4.0
    })
    .await;
    assert_eq!(sidecar.metric(errors, "").await, 4.0, "and as nothing else");
    assert_eq!(sidecar.metric("readygate_requests_in_flight", "").await, 0.0);
}

#[tokio::test]
async fn malformed_chunk_is_the_clients_fault_and_no_whole_request_for_the_app() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut client = client(&sidecar).await;
    client.say("POST /a HTTP/1.1\r\nhost: app.test\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n").await;
    let mut app = origin.connection().await;
    app.head().await;
    app.take(6).await;
    client.say("nonsense\r\n").await;
    assert_eq!(app.end().await, "");
    assert_eq!(client.refusal().await, (400, "bad_request".to_owned()));
    assert_eq!(client.end().await, "");
}

#[tokio::test]
async fn answer_late_for_its_deadline_is_504_and_its_connection_is_not_used_again() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({ "timeouts": { "response": "300ms" } })).await;
    let mut client = client(&sidecar).await;
    let began = Instant::now();
    client.say(GET).await;
    let mut app = origin.connection().await;
    app.head().await;
    assert_eq!(client.refusal().await, (504, "response_timeout".to_owned()));
    assert!(began.elapsed() >= Duration::from_millis(290), "{:?}", began.elapsed());
    assert_eq!(app.end().await, "");
    // A body may take its time.
    client.say(GET).await;
    let mut app = origin.connection().await;
    app.head().await;
    app.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no").await;
    client.until("\r\n\r\no").await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    app.say("k").await;
    assert_eq!(client.take(1).await, "k");
}

#[tokio::test]
async fn deadline_of_an_answer_is_one_for_all_copies_of_a_request() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({ "timeouts": { "response": "600ms" } })).await;
    let mut client = client(&sidecar).await;
    let began = Instant::now();
    client.say(GET).await;
    let mut app = origin.connection().await;
    app.head().await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    // Not a byte of an answer: the request is sent again, with what is left of its time.
    drop(app);
    let mut app = origin.connection().await;
    app.head().await;
    assert_eq!(client.refusal().await, (504, "response_timeout".to_owned()));
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(590) && took < Duration::from_millis(900), "{took:?}");
    assert_eq!(app.end().await, "");
}

#[tokio::test]
async fn wait_for_an_app_that_restarts_is_not_the_slowness_of_its_answer() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({ "timeouts": { "response": "2s" } })).await;
    let address = origin.address;
    let mut client = client(&sidecar).await;
    client.say(GET).await;
    let mut app = origin.connection().await;
    app.head().await;
    drop((app, origin));
    eventually("the request waits for the app", Duration::from_secs(10), async || {
        sidecar.metric("readygate_held_requests", "").await == 1.0
    })
    .await;
    tokio::time::sleep(Duration::from_millis(2200)).await;
    origin = Origin::at(address).await;
    let (_app, head) = origin.serve().await;
    assert_eq!(head.line, "GET /a HTTP/1.1");
    assert_eq!(client.answer().await.1, "ok");
}
