//! Connections to the app: which are used again, which are not, and what is sent a second time.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{eventually, machine};

use super::wire::{Origin, Wire};
use super::{GET, OK, client, house};

const POST: &str = "POST /a HTTP/1.1\r\nhost: app.test\r\ncontent-length: 2\r\n\r\nhi";

#[tokio::test]
async fn clients_share_a_connection_that_is_at_rest() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut first = client(&sidecar).await;
    first.say(GET).await;
    let (mut app, _) = origin.serve().await;
    first.answer().await;
    drop(first);
    for _ in 0..3 {
        let mut other = client(&sidecar).await;
        other.is_served_by(&mut app).await;
    }
    // Two at once need two.
    let (mut one, mut two) = (client(&sidecar).await, client(&sidecar).await);
    one.say(GET).await;
    app.head().await;
    two.is_served_anew(&mut origin).await;
    app.say(OK).await;
    assert_eq!(one.answer().await.1, "ok");
}

#[tokio::test]
async fn connection_is_not_used_again_where_the_app_says_close() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut client = client(&sidecar).await;
    for _ in 0..2 {
        client.say(GET).await;
        let mut app = origin.connection().await;
        app.head().await;
        app.say("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok").await;
        let (head, body) = client.answer().await;
        assert_eq!((head.field("connection"), body.as_str()), (None, "ok"), "the client may stay");
        assert_eq!(app.end().await, "");
    }
}

#[tokio::test]
async fn connection_with_bytes_that_nobody_asked_for_is_not_used_again() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut first = client(&sidecar).await;
    first.say(GET).await;
    let mut app = origin.connection().await;
    app.head().await;
    app.say(&[OK, "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison"].concat()).await;
    assert_eq!(first.answer().await.1, "ok");
    assert_eq!(app.end().await, "");
    first.is_served_anew(&mut origin).await;
}

#[tokio::test]
async fn connection_at_rest_is_closed_after_upstream_idle() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({ "timeouts": { "upstream_idle": "500ms" } })).await;
    let mut client = client(&sidecar).await;
    client.say(GET).await;
    let (mut app, _) = origin.serve().await;
    client.answer().await;
    let began = Instant::now();
    assert_eq!(app.end().await, "");
    // The clock that is read for it is up to a tick late.
    assert!(began.elapsed() >= Duration::from_millis(240), "{:?}", began.elapsed());
    client.is_served_anew(&mut origin).await;
    assert_eq!(
        sidecar.metric("readygate_app_restarts_total", "").await,
        0.0,
        "closed by us: no sign of a restart"
    );
}

/// The app closed it while it was at rest. Whoever comes next gets no error, whatever the method.
#[tokio::test]
async fn stale_connection_costs_no_error() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    for request in [GET, POST] {
        for _ in 0..20 {
            let mut client = client(&sidecar).await;
            client.say(request).await;
            let (app, _) = origin.serve().await;
            assert_eq!(client.answer().await.1, "ok");
            drop(app);
            client.say(request).await;
            let (app, _) = origin.serve().await;
            assert_eq!(client.answer().await.1, "ok");
            drop(app);
        }
    }
    assert_eq!(sidecar.metric("readygate_proxy_errors_total", "").await, 0.0);
}

#[tokio::test]
async fn post_that_may_have_reached_the_app_is_not_sent_again() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    for request in [
        POST,
        "POST /a HTTP/1.1\r\nhost: app.test\r\ncontent-length: 0\r\n\r\n",
        &GET.replace("GET", "PATCH"),
    ] {
        let mut client = client(&sidecar).await;
        client.say(request).await;
        let mut app = origin.connection().await;
        app.head().await;
        drop(app);
        assert_eq!(client.refusal().await, (502, "upstream_closed".to_owned()));
    }
    assert!(origin.is_silent(), "sent twice");
}

#[tokio::test]
async fn get_that_got_no_byte_of_an_answer_is_sent_again_but_not_for_ever() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut client = client(&sidecar).await;
    client.say(GET).await;
    let mut app = origin.connection().await;
    app.head().await;
    drop(app);
    let (_app, head) = origin.serve().await;
    assert_eq!(head.line, "GET /a HTTP/1.1");
    assert_eq!(head.field("x-forwarded-for").as_deref(), Some("127.0.0.1"), "the same request");
    assert_eq!(client.answer().await.1, "ok");
    drop(_app);

    client.say(&GET.replace("/a", "/deadly")).await;
    for _ in 0..3 {
        let mut app = origin.connection().await;
        assert_eq!(app.head().await.line, "GET /deadly HTTP/1.1");
        app.reset();
    }
    assert_eq!(client.refusal().await, (502, "upstream_closed".to_owned()));
    assert!(origin.is_silent());
}

#[tokio::test]
async fn nothing_is_sent_again_after_a_byte_of_the_answer_or_with_a_body() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    for (request, answer) in [
        (GET, "H"),
        (GET, "HTTP/1.1 200 OK\r\nx-half: "),
        (GET, "HTTP/1.1 103 Early Hints\r\n\r\n"),
        ("PUT /a HTTP/1.1\r\nhost: app.test\r\ncontent-length: 2\r\n\r\nhi", ""),
        ("GET /a HTTP/1.1\r\nhost: app.test\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", ""),
    ] {
        let mut client = client(&sidecar).await;
        client.say(request).await;
        let mut app = origin.connection().await;
        app.head().await;
        app.say(answer).await;
        drop(app);
        assert_eq!(client.answer().await.0.status(), 502, "{request:?} {answer:?}");
    }
    assert!(origin.is_silent(), "sent twice");
}

#[tokio::test]
async fn app_that_takes_no_connection_is_504_after_the_connect_timeout() {
    let _turn = machine::shared();
    // A backlog that is full: what comes next is neither accepted nor refused.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    full.listen(0).expect("a listener");
    let address = full.local_addr().expect("bound").as_socket().expect("an IP address");
    let mut filling = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(300), tokio::net::TcpStream::connect(address)).await
    {
        filling.push(stream);
    }
    let more = json!({ "listeners": { "http": { "timeouts": { "connect": "200ms" } } } });
    let sidecar = super::before(address, more).await;
    let mut client = client(&sidecar).await;
    client.say(GET).await;
    assert_eq!(client.refusal().await, (504, "connect_timeout".to_owned()));
}

/// With several workers each has its own pool: a fresh client may meet any of them.
#[tokio::test]
async fn stopped_sidecar_leaves_no_connection_to_the_app() {
    let _turn = machine::shared();
    let mut origin = Origin::start().await;
    let mut sidecar = super::before(origin.address, json!({ "workers": 2 })).await;
    sidecar.until_ready().await;
    let mut served: Vec<Wire> = Vec::new();
    let mut clients: Vec<Wire> = Vec::new();
    for _ in 0..8 {
        let mut client = client(&sidecar).await;
        client.say(GET).await;
        clients.push(client);
    }
    for _ in 0..8 {
        served.push(origin.connection().await);
    }
    for app in &mut served {
        app.head().await;
        app.say(OK).await;
    }
    for client in &mut clients {
        assert_eq!(client.answer().await.1, "ok");
    }
    sidecar.signal("TERM");
    for app in &mut served {
        assert_eq!(app.end().await, "");
    }
    for client in &mut clients {
        assert_eq!(client.end().await, "");
    }
    eventually("it ends", Duration::from_secs(10), async || !sidecar.runs()).await;
}
