//! The end of a worker: what has come by then is served, what has not is let go.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpStream;

use crate::support::{Sidecar, eventually, machine};

use super::{GET, OK, client, house};

/// Waits until the traffic port refuses: the listeners are closed.
async fn closed(address: SocketAddr) {
    eventually("the traffic port refuses", Duration::from_secs(10), async || {
        TcpStream::connect(address).await.is_err()
    })
    .await;
}

async fn exits_0(sidecar: &mut Sidecar) {
    assert_eq!(sidecar.ended(Duration::from_secs(10)).await.code(), Some(0));
}

#[tokio::test]
async fn head_that_is_coming_when_the_listeners_close_is_answered() {
    let _turn = machine::shared();
    let (mut sidecar, mut origin) = house(json!({})).await;
    let mut fresh = client(&sidecar).await;
    fresh.say("GET /fresh HT").await;
    let mut kept = client(&sidecar).await;
    kept.say(GET).await;
    let (mut app, _) = origin.serve().await;
    kept.answer().await;
    kept.say("GET /kept HT").await;
    sidecar.signal("TERM");
    closed(sidecar.traffic).await;
    for (client, path) in [(&mut kept, "/kept"), (&mut fresh, "/fresh")] {
        client.say("TP/1.1\r\nhost: app.test\r\n\r\n").await;
        assert_eq!(app.head().await.line, format!("GET {path} HTTP/1.1"));
        app.say(OK).await;
        let (head, body) = client.answer().await;
        assert_eq!((head.field("connection").as_deref(), body.as_str()), (Some("close"), "ok"));
        assert_eq!(client.end().await, "");
    }
    exits_0(&mut sidecar).await;
}

#[tokio::test]
async fn last_answer_of_a_connection_says_that_it_is() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut leaving = client(&sidecar).await;
    leaving.say("GET /a HTTP/1.1\r\nhost: app.test\r\nconnection: close\r\n\r\n").await;
    let (mut app, _) = origin.serve().await;
    let (head, _) = leaving.answer().await;
    assert_eq!((head.line.as_str(), head.field("connection").as_deref()), ("HTTP/1.1 200 OK", Some("close")));
    assert_eq!(leaving.end().await, "");
    // A client of HTTP/1.0 says when it stays, and is told that it may.
    let mut old = client(&sidecar).await;
    for (said, told) in [("keep-alive", "keep-alive"), ("x", "close")] {
        old.say(&format!("GET /a HTTP/1.0\r\nhost: app.test\r\nconnection: {said}\r\n\r\n")).await;
        app.head().await;
        app.say(OK).await;
        let (head, _) = old.answer().await;
        assert_eq!(
            (head.line.as_str(), head.field("connection").as_deref()),
            ("HTTP/1.0 200 OK", Some(told))
        );
    }
    assert_eq!(old.end().await, "");
}

#[tokio::test]
async fn client_that_is_refused_while_it_sends_reads_why() {
    let _turn = machine::shared();
    let (sidecar, _origin) = house(json!({})).await;
    for head in [
        "POST /a HTTP/1.1\nhost: app.test\r\n",
        "POST /a HTTP/1.1\r\nhost: a b\r\ncontent-length: 9999999\r\n\r\n",
        "POST /a HTTP/1.1\r\nhost: app.test\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n",
    ] {
        let mut client = client(&sidecar).await;
        client.say(head).await;
        let taken = client.flood(4 << 20).await;
        assert_eq!(client.refusal().await, (400, "bad_request".to_owned()), "{head:?} after {taken} bytes");
    }
}

#[tokio::test]
async fn head_that_never_ends_keeps_no_worker() {
    let _turn = machine::shared();
    let (mut sidecar, _origin) = house(json!({ "timeouts": { "header_read": "500ms" } })).await;
    let mut client = client(&sidecar).await;
    client.say("GET /a HT").await;
    sidecar.signal("TERM");
    assert_eq!(client.end().await, "");
    exits_0(&mut sidecar).await;
}

#[tokio::test]
async fn connection_that_waits_in_the_kernel_when_the_listeners_close_is_served() {
    let _turn = machine::shared();
    let (mut sidecar, mut origin) = house(json!({ "limits": { "connections": 1 } })).await;
    let mut first = client(&sidecar).await;
    first.say(GET).await;
    let (mut app, _) = origin.serve().await;
    first.answer().await;
    let mut waits = client(&sidecar).await;
    waits.say(GET).await;
    sidecar.signal("TERM");
    app.head().await;
    app.say(OK).await;
    let (head, body) = waits.answer().await;
    assert_eq!((head.field("connection").as_deref(), body.as_str()), (Some("close"), "ok"));
    assert_eq!(first.end().await, "");
    exits_0(&mut sidecar).await;
}

#[tokio::test]
async fn upload_under_way_when_the_listeners_close_ends_whole() {
    let _turn = machine::shared();
    let (mut sidecar, mut origin) = house(json!({})).await;
    let mut client = client(&sidecar).await;
    client.say("POST /a HTTP/1.1\r\nhost: app.test\r\ncontent-length: 10\r\n\r\nhello").await;
    let mut app = origin.connection().await;
    app.head().await;
    sidecar.signal("TERM");
    eventually("it says so", Duration::from_secs(10), async || !sidecar.ready().await).await;
    client.say("world").await;
    assert_eq!(app.take(10).await, "helloworld");
    app.say(OK).await;
    assert_eq!(client.answer().await.1, "ok");
    exits_0(&mut sidecar).await;
}
