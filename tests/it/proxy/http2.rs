//! HTTP/2 on either side, and both.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::{Reason, server};
use http::{HeaderMap, HeaderValue, Request, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::{Sidecar, eventually, machine};

use super::h2::{App, Client, patiently, read, request, whole};
use super::{GET, client, house};

/// A sidecar with one worker in front of an app of h2c.
async fn before(app: &App, more: Value) -> Sidecar {
    let listener = crate::support::merge(json!({ "upstream": format!("h2c://{}", app.address) }), more);
    let sidecar = super::before(app.address, json!({ "listeners": { "http": listener } })).await;
    sidecar.until_ready().await;
    sidecar
}

fn trailers(name: &'static str, value: &'static str) -> HeaderMap {
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
async fn goaway_of_the_app_costs_no_request() {
    let _turn = machine::shared();
    let mut app = App::start().await;
    let sidecar = before(&app, json!({})).await;
    let mut client = Client::connect(sidecar.traffic).await;
    let (slow, _) = client.open(request("GET", "/slow"), false).await;
    let under_way = app.next().await;
    app.go_away();
    for _ in 0..3 {
        let (next, _) = client.open(request("POST", "/next"), false).await;
        let arrived = app.next().await;
        arrived.answer("next");
        assert_eq!(patiently(whole(next)).await.expect("an answer").body, b"next");
    }
    let (last, _) = client.open(request("GET", "/last"), false).await;
    let arrived = app.next().await;
    assert_eq!(arrived.connection, 1, "a connection that ends takes no new request");
    arrived.answer("last");
    assert_eq!(patiently(whole(last)).await.expect("an answer").body, b"last");
    assert_eq!(under_way.connection, 0);
    under_way.answer("slow");
    assert_eq!(patiently(whole(slow)).await.expect("an answer").body, b"slow");
}

#[tokio::test]
async fn request_that_the_app_did_not_process_is_sent_again_and_only_then() {
    let _turn = machine::shared();
    let mut app = App::start().await;
    let sidecar = before(&app, json!({})).await;
    let mut client = Client::connect(sidecar.traffic).await;
    let (response, _) = client.open(request("POST", "/"), false).await;
    app.next().await.respond.send_reset(Reason::REFUSED_STREAM);
    app.next().await.answer("ok");
    assert_eq!(patiently(whole(response)).await.expect("an answer").body, b"ok");
    let (response, _) = client.open(request("POST", "/"), false).await;
    app.next().await.respond.send_reset(Reason::INTERNAL_ERROR);
    let answer = patiently(whole(response)).await.expect("an answer of the sidecar's own");
    assert_eq!(answer.head.status(), 502);
    assert_eq!(answer.head.headers()["x-readygate-error"], "upstream_closed");
}

/// An app that hangs up on whoever connects; counts them.
async fn hangs_up() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (address, count) = (listener.local_addr().expect("bound"), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    (address, count)
}

#[tokio::test]
async fn app_that_hangs_up_at_once_is_not_tried_for_ever() {
    let _turn = machine::shared();
    for scheme in ["h2c", "http"] {
        let (app, connections) = hangs_up().await;
        let listener = json!({ "upstream": format!("{scheme}://{app}") });
        let sidecar = super::before(app, json!({ "listeners": { "http": listener } })).await;
        sidecar.until_ready().await;
        let before = connections.load(Ordering::Relaxed);
        let mut client = client(&sidecar).await;
        client.say(GET).await;
        let (status, why) = client.refusal().await;
        assert_eq!((status, why.as_str()), (502, "upstream_closed"), "{scheme}");
        // A few copies, and what the watch over the port adds meanwhile.
        let tried = connections.load(Ordering::Relaxed) - before;
        assert!((1..20).contains(&tried), "{scheme}: {tried} connections");
    }
}

#[tokio::test]
async fn body_of_a_request_that_was_not_processed_is_sent_again_whole() {
    let _turn = machine::shared();
    let mut app = App::start().await;
    let sidecar = before(&app, json!({})).await;
    let mut client = Client::connect(sidecar.traffic).await;
    let (response, mut body) = client.open(request("POST", "/"), true).await;
    body.send_data(Bytes::from_static(b"one "), false).expect("it is open");
    for _ in 0..2 {
        let mut arrived = app.next().await;
        let first = patiently(arrived.request.body_mut().data()).await.expect("data").expect("no error");
        assert_eq!(first, "one ");
        arrived.respond.send_reset(Reason::REFUSED_STREAM);
    }
    body.send_data(Bytes::from_static(b"two"), false).expect("it is open");
    body.send_trailers(trailers("x-up", "1")).expect("it is open");
    let mut arrived = app.next().await;
    assert_eq!(patiently(read(arrived.request.body_mut())).await.expect("a body"), b"one two");
    let came = arrived.request.body_mut().trailers().await.expect("no error");
    assert_eq!(came, Some(trailers("x-up", "1")));
    arrived.answer("ok");
    assert_eq!(patiently(whole(response)).await.expect("an answer").body, b"ok");
}

#[tokio::test]
async fn body_too_large_to_be_kept_is_not_sent_in_part() {
    let _turn = machine::shared();
    let mut app = App::start().await;
    let sidecar = before(&app, json!({})).await;
    let mut client = Client::connect(sidecar.traffic).await;
    let (response, mut body) = client.open(request("POST", "/"), true).await;
    let mut arrived = app.next().await;
    // More than the windows on the way hold, so that the sidecar has passed on what it would have kept.
    let sending = tokio::spawn(async move {
        for _ in 0..24 {
            body.reserve_capacity(16 << 10);
            while body.capacity() < 16 << 10 {
                if std::future::poll_fn(|cx| body.poll_capacity(cx)).await.is_none() {
                    return;
                }
            }
            body.send_data(Bytes::from(vec![b'x'; 16 << 10]), false).expect("it is open");
        }
        std::future::pending::<()>().await;
    });
    let mut came = 0;
    while came < 128 << 10 {
        let data = patiently(arrived.request.body_mut().data()).await.expect("data").expect("no error");
        let _ = arrived.request.body_mut().flow_control().release_capacity(data.len());
        came += data.len();
    }
    arrived.respond.send_reset(Reason::REFUSED_STREAM);
    let answer = patiently(whole(response)).await.expect("an answer of the sidecar's own");
    assert_eq!(answer.head.status(), 502);
    sending.abort();
}

#[tokio::test]
async fn bodies_kept_for_a_second_sending_have_one_bound_together() {
    let _turn = machine::shared();
    let mut app = App::start().await;
    let sidecar = before(&app, json!({})).await;
    let mut client = Client::connect(sidecar.traffic).await;
    let mut upload = async || {
        let (response, mut body) = client.open(request("POST", "/"), true).await;
        body.send_data(Bytes::from(vec![b'x'; 60_000]), true).expect("it is open");
        let mut arrived = app.next().await;
        assert_eq!(patiently(read(arrived.request.body_mut())).await.expect("a body").len(), 60_000);
        (response, arrived)
    };
    let mut unanswered = Vec::new();
    for _ in 0..20 {
        unanswered.push(upload().await);
    }
    let (response, mut arrived) = unanswered.pop().expect("twenty");
    arrived.respond.send_reset(Reason::REFUSED_STREAM);
    assert_eq!(patiently(whole(response)).await.expect("an answer of the sidecar's own").head.status(), 502);
    // What is answered makes room.
    for (response, arrived) in unanswered {
        arrived.answer("ok");
        assert_eq!(patiently(whole(response)).await.expect("an answer").body, b"ok");
    }
    let (response, mut arrived) = upload().await;
    arrived.respond.send_reset(Reason::REFUSED_STREAM);
    let mut arrived = app.next().await;
    assert_eq!(patiently(read(arrived.request.body_mut())).await.expect("a body").len(), 60_000);
    arrived.answer("ok");
    assert_eq!(patiently(whole(response)).await.expect("an answer").body, b"ok");
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
