//! HTTP/2 on either side, and both.

use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::{Reason, server};
use http::{HeaderMap, HeaderValue, Request, Response};
use serde_json::{Value, json};

use crate::support::{Sidecar, eventually, machine};

use super::h2::{App, Client, patiently, read, request, whole};
use super::{GET, client, house};

/// A sidecar with one worker in front of an app of h2c.
pub async fn before(app: &App, more: Value) -> Sidecar {
    let listener = crate::support::merge(json!({ "upstream": format!("h2c://{}", app.address) }), more);
    let sidecar = super::before(app.address, json!({ "listeners": { "http": listener } })).await;
    sidecar.until_ready().await;
    sidecar
}

pub fn trailers(name: &'static str, value: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(name.parse().expect("a name"), HeaderValue::from_static(value))])
}

#[tokio::test]
async fn client_of_http2_reaches_an_app_of_http1() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut client = Client::connect(sidecar.traffic).await;
    let mut asked = request("POST", "/a?b=c");
    for (name, value) in [("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers"), ("x-mine", "yes")] {
        asked.headers_mut().append(name, HeaderValue::from_static(value));
    }
    let (response, mut body) = client.open(asked, true).await;
    body.send_data(Bytes::from_static(b"hello"), true).expect("it is open");
    let mut app = origin.connection().await;
    let head = app.head().await;
    assert_eq!(head.line, "POST /a?b=c HTTP/1.1");
    let expected = [
        ("host", Some("app.test")),
        ("cookie", Some("a=1; b=2")),
        ("te", Some("trailers")),
        ("x-mine", Some("yes")),
        ("transfer-encoding", Some("chunked")),
        ("content-length", None),
        ("x-forwarded-proto", Some("http")),
    ];
    for (name, value) in expected {
        assert_eq!(head.field(name).as_deref(), value, "{name}");
    }
    assert_eq!(app.until("0\r\n\r\n").await, "5\r\nhello\r\n0\r\n\r\n");
    app.say("HTTP/1.1 201 Created\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n").await;
    app.say("transfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 9\r\n\r\n").await;
    let answer = patiently(whole(response)).await.expect("an answer");
    assert_eq!((answer.head.status().as_u16(), answer.body.as_slice()), (201, &b"abc"[..]));
    assert_eq!(answer.trailers, Some(trailers("x-sum", "9")));
    for hop in ["connection", "x-hop", "keep-alive", "transfer-encoding"] {
        assert!(!answer.head.headers().contains_key(hop), "{hop}");
    }
}

#[tokio::test]
async fn client_of_http1_reaches_an_app_of_http2() {
    let _turn = machine::shared();
    let mut app = App::start().await;
    let sidecar = before(&app, json!({})).await;
    let mut client = client(&sidecar).await;
    client.say("POST /a HTTP/1.1\r\nhost: app.test\r\nte: trailers\r\ntransfer-encoding: chunked\r\n").await;
    client.say("trailer: x-sum\r\nexpect: 100-continue\r\n\r\n").await;
    client.until("HTTP/1.1 100 Continue\r\n\r\n").await;
    client.say("5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n").await;
    let mut arrived = app.next().await;
    assert_eq!(arrived.request.uri(), "http://app.test/a");
    for gone in ["host", "transfer-encoding", "expect", "connection"] {
        assert!(!arrived.request.headers().contains_key(gone), "{gone}");
    }
    assert_eq!(read(arrived.request.body_mut()).await.expect("a body"), b"hello");
    let came = arrived.request.body_mut().trailers().await.expect("no error");
    assert_eq!(came, Some(trailers("x-sum", "7")));
    let head = Response::builder().header("trailer", "x-end").body(()).expect("a head");
    let mut stream = arrived.respond.send_response(head, false).expect("it is open");
    stream.send_data(Bytes::from_static(b"hi"), false).expect("it is open");
    stream.send_trailers(trailers("x-end", "3")).expect("it is open");
    assert_eq!(client.head().await.line, "HTTP/1.1 200 OK");
    assert_eq!(client.until("0\r\nx-end: 3\r\n\r\n").await, "2\r\nhi\r\n0\r\nx-end: 3\r\n\r\n");
}

#[tokio::test]
async fn offer_of_an_upgrade_ends_before_an_app_of_http2() {
    let _turn = machine::shared();
    let mut app = App::start().await;
    let sidecar = before(&app, json!({})).await;
    let mut client = client(&sidecar).await;
    client
        .say("GET /a HTTP/1.1\r\nhost: app.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        .await;
    let mut arrived = app.next().await;
    for gone in ["connection", "upgrade"] {
        assert!(!arrived.request.headers().contains_key(gone), "{gone}");
    }
    arrived.respond.send_response(Response::new(()), true).expect("it is open");
    assert_eq!(client.head().await.line, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn upgrade_that_an_app_of_http1_wants_ends_before_a_client_of_http2() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut client = Client::connect(sidecar.traffic).await;
    let (response, _) = client.open(request("GET", "/a"), false).await;
    let mut app = origin.connection().await;
    app.head().await;
    app.say("HTTP/1.1 426 Upgrade Required\r\nconnection: upgrade\r\nupgrade: websocket\r\n").await;
    app.say("content-length: 0\r\n\r\n").await;
    let answer = patiently(whole(response)).await.expect("an answer");
    assert_eq!(answer.head.status(), 426);
    for gone in ["connection", "upgrade"] {
        assert!(!answer.head.headers().contains_key(gone), "{gone}: RFC 9113, 8.2.2");
    }
}

#[tokio::test]
async fn trailers_pass_both_ways_between_http2_and_http2() {
    let _turn = machine::shared();
    let mut app = App::start().await;
    let sidecar = before(&app, json!({})).await;
    let mut client = Client::connect(sidecar.traffic).await;
    let (response, mut body) = client.open(request("POST", "/"), true).await;
    body.send_data(Bytes::from_static(b"up"), false).expect("it is open");
    body.send_trailers(trailers("x-up", "1")).expect("it is open");
    let mut arrived = app.next().await;
    assert_eq!(read(arrived.request.body_mut()).await.expect("a body"), b"up");
    let came = arrived.request.body_mut().trailers().await.expect("no error");
    assert_eq!(came, Some(trailers("x-up", "1")));
    let mut stream = arrived.respond.send_response(Response::new(()), false).expect("it is open");
    stream.send_data(Bytes::from_static(b"down"), false).expect("it is open");
    stream.send_trailers(trailers("x-down", "2")).expect("it is open");
    let answer = patiently(whole(response)).await.expect("an answer");
    assert_eq!((answer.body.as_slice(), answer.trailers), (&b"down"[..], Some(trailers("x-down", "2"))));
}

#[tokio::test]
async fn requests_of_all_clients_share_one_connection_to_the_app() {
    let _turn = machine::shared();
    let mut app = App::start().await;
    let sidecar = before(&app, json!({})).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = client(&sidecar).await;
        client.say(GET).await;
        clients.push(client);
    }
    let mut arrived = Vec::new();
    for _ in 0..20 {
        arrived.push(app.next().await);
    }
    assert!(arrived.iter().all(|arrived| arrived.connection == 0), "one connection, made once");
    arrived.into_iter().for_each(|arrived| arrived.answer("ok"));
    for client in &mut clients {
        assert_eq!(client.head().await.line, "HTTP/1.1 200 OK");
    }
}

#[tokio::test]
async fn streams_beyond_those_that_the_app_allows_wait_for_one() {
    let _turn = machine::shared();
    let mut builder = server::Builder::new();
    builder.max_concurrent_streams(2);
    let mut app = App::with(builder).await;
    let sidecar = before(&app, json!({})).await;
    let mut client = Client::connect(sidecar.traffic).await;
    let mut answers = Vec::new();
    for _ in 0..30 {
        let (response, _) = client.open(request("GET", "/"), false).await;
        answers.push(tokio::spawn(whole(response)));
    }
    for _ in 0..30 {
        app.next().await.answer("ok");
    }
    for answer in answers {
        assert_eq!(patiently(answer).await.expect("no panic").expect("an answer").body, b"ok");
    }
}

#[tokio::test]
async fn client_that_cancels_is_heard_by_the_app_at_once() {
    let _turn = machine::alone();
    let mut app = App::start().await;
    let sidecar = before(&app, json!({})).await;
    let mut client = Client::connect(sidecar.traffic).await;
    for answered in [false, true] {
        let (response, mut body) = client.open(request("POST", "/"), true).await;
        let mut arrived = app.next().await;
        let mut stream = None;
        if answered {
            stream = Some(arrived.respond.send_response(Response::new(()), false).expect("it is open"));
            patiently(response).await.expect("a head");
        }
        let told = Instant::now();
        body.send_reset(Reason::CANCEL);
        let reason = patiently(std::future::poll_fn(|cx| match &mut stream {
            Some(stream) => stream.poll_reset(cx),
            None => arrived.respond.poll_reset(cx),
        }));
        assert_eq!(reason.await.expect("no error"), Reason::CANCEL, "answered: {answered}");
        assert!(told.elapsed() < Duration::from_millis(100), "{:?}", told.elapsed());
    }
    eventually("nothing is in flight", Duration::from_secs(5), async || {
        sidecar.metric("readygate_requests_in_flight", "").await == 0.0
    })
    .await;
}

#[tokio::test]
async fn drain_tells_clients_to_go_and_lets_streams_finish() {
    let _turn = machine::shared();
    let mut app = App::start().await;
    let mut sidecar = before(&app, json!({})).await;
    let mut client = Client::connect(sidecar.traffic).await;
    let (response, _) = client.open(request("GET", "/"), false).await;
    let under_way = app.next().await;
    sidecar.signal("TERM");
    // GOAWAY: the client may open no more streams.
    let refused = patiently(async {
        loop {
            if std::future::poll_fn(|cx| client.sender.poll_ready(cx)).await.is_err() {
                break;
            }
            match client.sender.send_request(request("GET", "/more"), true) {
                Err(_) => break,
                // Before it heard of it, a stream is served.
                Ok((response, _)) => {
                    app.next().await.answer("more");
                    whole(response).await.expect("it was opened in time");
                }
            }
        }
    });
    refused.await;
    assert!(sidecar.runs(), "a stream is open");
    under_way.answer("late");
    assert_eq!(patiently(whole(response)).await.expect("an answer").body, b"late");
    patiently(client.ended).await.expect("no panic").expect("it ends in order");
    assert_eq!(sidecar.ended(Duration::from_secs(10)).await.code(), Some(0));
}

#[tokio::test]
async fn client_that_comes_in_a_drain_is_served_and_told_to_go() {
    let _turn = machine::shared();
    let mut app = App::start().await;
    let sidecar = before(&app, json!({})).await;
    let mut kept = client(&sidecar).await;
    kept.say(GET).await;
    let under_way = app.next().await;
    sidecar.signal("TERM");
    sidecar.until_not_ready().await;
    let mut late = Client::connect(sidecar.traffic).await;
    let (response, _) = late.open(request("GET", "/"), false).await;
    app.next().await.answer("ok");
    assert_eq!(patiently(whole(response)).await.expect("an answer").body, b"ok");
    patiently(late.ended).await.expect("no panic").expect("it ends in order");
    under_way.answer("ok");
    kept.head().await;
}

#[tokio::test]
async fn grpc_client_is_told_of_errors_in_its_own_words() {
    let _turn = machine::shared();
    let app = App::start().await;
    let sidecar = before(&app, json!({ "hold": { "for": "100ms" } })).await;
    drop(app);
    let mut client = Client::connect(sidecar.traffic).await;
    let call = || {
        let mut call = request("POST", "/pkg.Service/Method");
        call.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc+proto"));
        call
    };
    let answer = client.ask(call()).await.expect("an answer");
    assert_eq!(answer.head.status(), 200);
    let field = |name: &str| answer.head.headers()[name].to_str().expect("text").to_owned();
    assert_eq!(field("grpc-status"), "14");
    assert_eq!(field("grpc-message"), "the app refuses connections");
    assert_eq!(field("content-type"), "application/grpc");
    assert_eq!(field("x-readygate-error"), "connect_refused");
    assert_eq!((answer.body.as_slice(), answer.trailers), (&b""[..], None));
    let plain = client.ask(request("GET", "/")).await.expect("an answer");
    assert_eq!(plain.head.status(), 503);
}

#[tokio::test]
async fn half_a_preface_is_closed_in_time() {
    let _turn = machine::shared();
    let (sidecar, _origin) =
        house(json!({ "timeouts": { "first_byte": "300ms", "header_read": "300ms" } })).await;
    for part in ["", "P", "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n"] {
        let mut client = client(&sidecar).await;
        client.say(part).await;
        let began = Instant::now();
        assert_eq!(client.end().await, "", "{part:?}");
        assert!(began.elapsed() < Duration::from_millis(1300), "{part:?}: {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn preface_in_pieces_is_understood() {
    let _turn = machine::shared();
    let (sidecar, _origin) = house(json!({})).await;
    let mut client = client(&sidecar).await;
    for piece in ["PRI * HT", "TP/2.0\r\n\r\nSM\r\n\r", "\n", "\0\0\0\u{4}\0\0\0\0\0"] {
        client.say(piece).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A SETTINGS frame of the sidecar's.
    let frame = client.take(9).await;
    assert_eq!(frame.as_bytes()[3], 4, "{frame:?}");
}

#[tokio::test]
async fn connection_without_streams_is_closed_in_order() {
    let _turn = machine::shared();
    let mut app = App::start().await;
    let sidecar = before(&app, json!({ "timeouts": { "idle": "300ms" } })).await;
    let mut client = Client::connect(sidecar.traffic).await;
    let (response, _) = client.open(request("GET", "/"), false).await;
    let arrived = app.next().await;
    // Longer than the limit: a connection with a stream is not idle.
    tokio::time::sleep(Duration::from_millis(900)).await;
    arrived.answer("ok");
    assert_eq!(patiently(whole(response)).await.expect("an answer").body, b"ok");
    patiently(client.ended).await.expect("no panic").expect("GOAWAY, then the end");
}

#[tokio::test]
async fn tunnels_of_http2_are_refused() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut client = Client::connect(sidecar.traffic).await;
    let connect = Request::builder().method("CONNECT").uri("app.test:80").body(()).expect("a request");
    let answer = client.ask(connect).await.expect("an answer");
    assert_eq!(answer.head.status(), 501);
    assert!(!client.sender.is_extended_connect_protocol_enabled(), "RFC 8441, 3: so clients do not try");
    assert!(origin.is_silent());
}
