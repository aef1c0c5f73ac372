//! What an app of HTTP/2 did not process is sent again, with its body, and nothing else is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::Reason;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::support::frames::{
    self, ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, SETTINGS, frame,
};
use crate::support::machine;

use super::h2::{App, Client, patiently, read, request, whole};
use super::http2::{before, trailers};
use super::{GET, client};

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
async fn app_that_has_not_said_a_word_gets_no_request() {
    let _turn = machine::shared();
    let mut app = App::after_resets(2).await;
    let sidecar = before(&app, json!({})).await;
    let mut client = Client::connect(sidecar.traffic).await;
    // One that may be sent once only.
    let (response, _body) = client.open(request("POST", "/"), true).await;
    app.next().await.answer("ok");
    assert_eq!(patiently(whole(response)).await.expect("an answer").body, b"ok");
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

/// A connection of an app, frame by frame.
struct Line(TcpStream);

impl Line {
    /// The next one on which a byte comes.
    async fn accept(listener: &TcpListener) -> Self {
        loop {
            let (mut stream, _) = patiently(listener.accept()).await.expect("a connection");
            if matches!(stream.peek(&mut [0]).await, Ok(1)) {
                let mut preface = [0; PREFACE.len()];
                patiently(tokio::io::AsyncReadExt::read_exact(&mut stream, &mut preface))
                    .await
                    .expect("a preface");
                let settings = [frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, ACK, 0, &[])].concat();
                stream.write_all(&settings).await.expect("taken");
                return Self(stream);
            }
        }
    }

    /// Bytes of the body of the first stream, until there are so many or it ended; None at the end of the connection.
    async fn body(&mut self, length: usize) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let frame = patiently(frames::read(&mut self.0)).await?;
            if frame.kind == DATA {
                body.extend_from_slice(&frame.payload);
            }
            if (frame.kind == DATA && frame.has(END_STREAM)) || (length > 0 && body.len() >= length) {
                return Some(body);
            }
        }
    }

    /// Says that it processed the streams up to this one, and no others.
    async fn go_away(&mut self, last: u8, reason: Reason) {
        let code = u32::from(reason).to_be_bytes();
        let payload = [&[0, 0, 0, last], &code[..]].concat();
        self.0.write_all(&frame(GOAWAY, 0, 0, &payload)).await.expect("taken");
    }
}

#[tokio::test]
async fn request_that_a_goaway_leaves_out_is_sent_again_with_its_body() {
    let _turn = machine::shared();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let app = listener.local_addr().expect("bound");
    let upstream = json!({ "listeners": { "http": { "upstream": format!("h2c://{app}") } } });
    let sidecar = super::before(app, upstream).await;
    let mut client = Client::connect(sidecar.traffic).await;
    for reason in [Reason::NO_ERROR, Reason::ENHANCE_YOUR_CALM] {
        let (response, mut body) = client.open(request("POST", "/"), true).await;
        body.send_data(Bytes::from_static(b"one "), false).expect("it is open");
        let mut first = Line::accept(&listener).await;
        assert_eq!(first.body(4).await.expect("it began"), b"one ");
        first.go_away(0, reason).await;
        let mut second = Line::accept(&listener).await;
        assert_eq!(second.body(4).await.expect("it began anew"), b"one ");
        body.send_data(Bytes::from_static(b"two"), true).expect("it is open");
        assert_eq!(second.body(0).await.expect("its end"), b"two");
        let answer = frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x88]);
        second.0.write_all(&answer).await.expect("taken");
        let answer = patiently(whole(response)).await.expect("an answer");
        assert_eq!(answer.head.status(), 200, "{reason:?}");
        assert_eq!(first.body(0).await, None, "nothing more came on the first connection");
        drop(second);
    }
}

#[tokio::test]
async fn request_that_a_goaway_counts_in_is_not_sent_again() {
    let _turn = machine::shared();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let app = listener.local_addr().expect("bound");
    let upstream = json!({ "listeners": { "http": { "upstream": format!("h2c://{app}") } } });
    let sidecar = super::before(app, upstream).await;
    for reason in [Reason::NO_ERROR, Reason::INTERNAL_ERROR, Reason::ENHANCE_YOUR_CALM] {
        let mut client = client(&sidecar).await;
        client.say("POST /a HTTP/1.1\r\nhost: app.test\r\ncontent-length: 3\r\n\r\none").await;
        let mut line = Line::accept(&listener).await;
        assert_eq!(line.body(0).await.expect("a body"), b"one");
        // It may have done what was asked, and ends without an answer.
        line.go_away(1, reason).await;
        drop(line);
        let told = tokio::select! {
            told = client.refusal() => told,
            _ = Line::accept(&listener) => panic!("{reason:?}: the app got it twice"),
        };
        assert_eq!(told, (502, "upstream_closed".to_owned()), "{reason:?}");
    }
}
