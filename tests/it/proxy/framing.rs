//! Where messages begin and end: lengths, chunks, trailers, methods and statuses without a body, old versions.

use serde_json::json;

use crate::support::machine;

use super::{GET, OK, client, house};

#[tokio::test]
async fn kept_connection_serves_one_request_after_another() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut client = client(&sidecar).await;
    client.say(GET).await;
    let (mut app, _) = origin.serve().await;
    assert_eq!(client.answer().await.1, "ok");
    for path in ["/b", "/c?d=e%20f"] {
        client.say(&GET.replace("/a", path)).await;
        assert_eq!(app.head().await.line, format!("GET {path} HTTP/1.1"));
        app.say(OK).await;
        assert_eq!(client.answer().await.1, "ok");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_one_by_one_in_their_order() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut client = client(&sidecar).await;
    let post = "POST /b HTTP/1.1\r\nhost: app.test\r\ncontent-length: 3\r\n\r\nabc";
    client.say(&[GET, post, &GET.replace("/a", "/c"), "GET /d HTT"].concat()).await;
    let mut app = origin.connection().await;
    assert_eq!(app.head().await.line, "GET /a HTTP/1.1");
    app.say("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na").await;
    assert_eq!(client.answer().await.1, "a");
    assert_eq!(app.head().await.line, "POST /b HTTP/1.1");
    assert_eq!(app.take(3).await, "abc");
    app.say("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nb").await;
    assert_eq!(client.answer().await.1, "b");
    assert_eq!(app.head().await.line, "GET /c HTTP/1.1");
    app.say("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nc").await;
    assert_eq!(client.answer().await.1, "c");
    // The half head that came with the others.
    client.say("P/1.1\r\nhost: app.test\r\n\r\n").await;
    assert_eq!(app.head().await.line, "GET /d HTTP/1.1");
    app.say(OK).await;
    assert_eq!(client.answer().await.1, "ok");
}

#[tokio::test]
async fn lengths_stay_lengths_and_chunks_stay_chunks() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut client = client(&sidecar).await;
    client.say("POST /a HTTP/1.1\r\nhost: app.test\r\ncontent-length: 5\r\n\r\nhello").await;
    let mut app = origin.connection().await;
    let head = app.head().await;
    assert_eq!(head.field("content-length").as_deref(), Some("5"));
    assert_eq!(head.field("transfer-encoding"), None);
    assert_eq!(app.take(5).await, "hello");
    app.say("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nworld").await;
    let (head, body) = client.answer().await;
    assert_eq!((head.field("transfer-encoding"), body.as_str()), (None, "world"));

    client.say("POST /a HTTP/1.1\r\nhost: app.test\r\ntransfer-encoding: chunked\r\n\r\n").await;
    client.say("5;name=value\r\nhello\r\n0\r\n\r\n").await;
    let head = app.head().await;
    assert_eq!(head.field("transfer-encoding").as_deref(), Some("chunked"));
    assert_eq!(head.field("content-length"), None);
    assert_eq!(app.until("0\r\n\r\n").await, "5\r\nhello\r\n0\r\n\r\n");
    app.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nworld\r\n0\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!(head.field("transfer-encoding").as_deref(), Some("chunked"));
    assert_eq!(head.field("content-length"), None);
    assert_eq!(client.until("0\r\n\r\n").await, "5\r\nworld\r\n0\r\n\r\n");
}

#[tokio::test]
async fn announced_trailers_pass_both_ways() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut client = client(&sidecar).await;
    client
        .say("POST /a HTTP/1.1\r\nhost: app.test\r\nte: trailers\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    client.say("2\r\nhi\r\n0\r\nx-sum: 42\r\n\r\n").await;
    let mut app = origin.connection().await;
    let head = app.head().await;
    assert_eq!(head.field("te").as_deref(), Some("trailers"));
    assert_eq!(head.field("trailer").as_deref(), Some("x-sum"));
    assert_eq!(app.until("\r\n\r\n").await.to_lowercase(), "2\r\nhi\r\n0\r\nx-sum: 42\r\n\r\n");
    app.say("HTTP/1.1 200 OK\r\ntrailer: grpc-status\r\ntransfer-encoding: chunked\r\n\r\n").await;
    app.say("2\r\nho\r\n0\r\ngrpc-status: 0\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!(head.field("trailer").as_deref(), Some("grpc-status"));
    assert_eq!(client.until("\r\n\r\n").await.to_lowercase(), "2\r\nho\r\n0\r\ngrpc-status: 0\r\n\r\n");
    // Both connections are at rest: trailers end an answer as any other end does.
    client.say(GET).await;
    assert_eq!(app.head().await.line, "GET /a HTTP/1.1");
    // A client that does not say that it takes trailers gets none (RFC 9110, 6.5.1).
    app.say("HTTP/1.1 200 OK\r\ntrailer: grpc-status\r\ntransfer-encoding: chunked\r\n\r\n").await;
    app.say("2\r\nho\r\n0\r\ngrpc-status: 0\r\n\r\n").await;
    client.head().await;
    assert_eq!(client.until("\r\n\r\n").await, "2\r\nho\r\n0\r\n\r\n");
    client.say(GET).await;
    assert_eq!(app.head().await.line, "GET /a HTTP/1.1");
    assert_eq!(sidecar.metric("readygate_proxy_errors_total", "").await, 0.0);
}

#[tokio::test]
async fn get_may_have_a_body() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut client = client(&sidecar).await;
    client.say("GET /a HTTP/1.1\r\nhost: app.test\r\ncontent-length: 3\r\n\r\nabc").await;
    let mut app = origin.connection().await;
    assert_eq!(app.head().await.field("content-length").as_deref(), Some("3"));
    assert_eq!(app.take(3).await, "abc");
    app.say(OK).await;
    assert_eq!(client.answer().await.1, "ok");
    client
        .say("GET /a HTTP/1.1\r\nhost: app.test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        .await;
    assert_eq!(app.head().await.field("transfer-encoding").as_deref(), Some("chunked"));
    assert_eq!(app.until("0\r\n\r\n").await, "3\r\nabc\r\n0\r\n\r\n");
    app.say(OK).await;
    assert_eq!(client.answer().await.1, "ok");
}

#[tokio::test]
async fn request_without_a_body_gets_no_framing() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut client = client(&sidecar).await;
    client.say(GET).await;
    let (mut app, head) = origin.serve().await;
    assert_eq!((head.field("content-length"), head.field("transfer-encoding")), (None, None));
    client.answer().await;
    client.say("POST /a HTTP/1.1\r\nhost: app.test\r\ncontent-length: 0\r\n\r\n").await;
    let head = app.head().await;
    assert_eq!(head.field("content-length").as_deref(), Some("0"));
    app.say(OK).await;
    client.answer().await;
    client.say("DELETE /a HTTP/1.1\r\nhost: app.test\r\n\r\n").await;
    let head = app.head().await;
    assert_eq!((head.line.as_str(), head.field("transfer-encoding")), ("DELETE /a HTTP/1.1", None));
}

#[tokio::test]
async fn answers_that_have_no_body_keep_their_fields_and_the_connection() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut client = client(&sidecar).await;
    client.say("HEAD /a HTTP/1.1\r\nhost: app.test\r\n\r\n").await;
    let mut app = origin.connection().await;
    assert_eq!(app.head().await.line, "HEAD /a HTTP/1.1");
    app.say("HTTP/1.1 200 OK\r\ncontent-length: 4096\r\n\r\n").await;
    assert_eq!(client.head().await.field("content-length").as_deref(), Some("4096"));
    for answer in [
        "204 No Content\r\n",
        "304 Not Modified\r\netag: \"a\"\r\n",
        "304 Not Modified\r\ncontent-length: 9\r\n",
    ] {
        client.say(GET).await;
        app.head().await;
        app.say(&format!("HTTP/1.1 {answer}\r\n")).await;
        let head = client.head().await;
        assert_eq!(head.status(), answer[..3].parse::<u16>().expect("a number"));
        assert_eq!(head.field("transfer-encoding"), None);
        assert_eq!(head.field("etag").is_some(), answer.contains("etag"));
    }
    // Both connections are where they should be.
    client.is_served_by(&mut app).await;
}

#[tokio::test]
async fn old_client_gets_an_answer_that_it_understands() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut old = client(&sidecar).await;
    old.say("GET /a HTTP/1.0\r\n\r\n").await;
    let mut app = origin.connection().await;
    let head = app.head().await;
    // The app is spoken to in our version, which wants a Host.
    assert_eq!(
        (head.line.as_str(), head.field("host")),
        ("GET /a HTTP/1.1", Some(origin.address.to_string()))
    );
    app.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").await;
    let head = old.head().await;
    assert_eq!((head.line.as_str(), head.field("transfer-encoding")), ("HTTP/1.0 200 OK", None));
    assert_eq!(old.end().await, "abc");

    let mut old = client(&sidecar).await;
    for _ in 0..2 {
        old.say("GET /a HTTP/1.0\r\nhost: app.test\r\nconnection: keep-alive\r\n\r\n").await;
        assert_eq!(app.head().await.field("host").as_deref(), Some("app.test"));
        app.say(OK).await;
        let (head, body) = old.answer().await;
        assert_eq!((head.field("connection").as_deref(), body.as_str()), (Some("keep-alive"), "ok"));
    }
}

#[tokio::test]
async fn client_that_ends_its_direction_still_gets_its_answer() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut client = client(&sidecar).await;
    client.say("POST /a HTTP/1.1\r\nhost: app.test\r\ncontent-length: 2\r\n\r\nhi").await;
    client.finish().await;
    let mut app = origin.connection().await;
    app.head().await;
    assert_eq!(app.take(2).await, "hi");
    app.say(OK).await;
    assert!(client.end().await.ends_with("\r\n\r\nok"));
}

#[tokio::test]
async fn answer_of_an_old_app_ends_with_its_connection_but_not_with_the_clients() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut client = client(&sidecar).await;
    for _ in 0..2 {
        client.say(GET).await;
        let mut app = origin.connection().await;
        app.head().await;
        app.say("HTTP/1.0 200 OK\r\n\r\nabc").await;
        drop(app);
        let head = client.head().await;
        assert_eq!(head.line, "HTTP/1.1 200 OK");
        assert_eq!(head.field("transfer-encoding").as_deref(), Some("chunked"));
        let body = client.until("0\r\n\r\n").await;
        assert!(body.ends_with("\r\n0\r\n\r\n"), "{body:?}");
    }
}

#[tokio::test]
async fn answer_that_breaks_off_is_not_made_to_look_whole() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    for (head, part) in [("content-length: 10", "hello"), ("transfer-encoding: chunked", "5\r\nhello\r\n")] {
        for reset in [false, true] {
            let mut client = client(&sidecar).await;
            client.say(GET).await;
            let mut app = origin.connection().await;
            app.head().await;
            app.say(&format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{part}")).await;
            client.head().await;
            assert_eq!(client.take(part.len()).await, part);
            if reset {
                app.reset();
            } else {
                drop(app);
            }
            assert_eq!(client.end().await, "", "{head}, reset {reset}");
        }
    }
    assert_eq!(sidecar.metric("readygate_proxy_errors_total", "kind=\"upstream_broken\"").await, 4.0);
}
