//! Header fields and targets: what ends here, what is added, what is refused.

use serde_json::json;

use crate::support::machine;

use super::{GET, OK, client, house};

/// A request with these fields besides Host.
fn with(fields: &str) -> String {
    format!("GET /a HTTP/1.1\r\nhost: app.test\r\n{fields}\r\n")
}

#[tokio::test]
async fn hop_by_hop_fields_end_here_in_both_directions() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut client = client(&sidecar).await;
    client
        .say(&with(
            "connection: keep-alive, X-Mine\r\nx-mine: 1\r\nkeep-alive: timeout=5\r\nproxy-connection: keep-alive\r\n\
             te: gzip, trailers\r\nupgrade: websocket\r\nhttp2-settings: AAMAAABk\r\nx-kept: 2\r\n",
        ))
        .await;
    let mut app = origin.connection().await;
    let head = app.head().await;
    for gone in ["connection", "x-mine", "keep-alive", "proxy-connection", "upgrade", "http2-settings"] {
        assert_eq!(head.field(gone), None, "{gone}");
    }
    assert_eq!((head.field("te").as_deref(), head.field("x-kept").as_deref()), (Some("trailers"), Some("2")));
    app.say(
        "HTTP/1.1 200 OK\r\nconnection: X-Theirs\r\nx-theirs: 1\r\nkeep-alive: timeout=5\r\nupgrade: h2c\r\n\
         x-kept: 2\r\nset-cookie: a=1\r\nset-cookie: b=2\r\ncontent-length: 2\r\n\r\nok",
    )
    .await;
    let (head, _) = client.answer().await;
    for gone in ["connection", "x-theirs", "keep-alive", "upgrade"] {
        assert_eq!(head.field(gone), None, "{gone}");
    }
    assert_eq!(head.field("x-kept").as_deref(), Some("2"));
    assert_eq!(head.field("set-cookie").as_deref(), Some("a=1 | b=2"));
}

/// Those that are not hop-by-hop, byte for byte.
#[tokio::test]
async fn fields_pass_as_they_came() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut client = client(&sidecar).await;
    let passing = "X-One:1\r\nACCEPT:  */*\t\r\nX-one: 2\r\nX-Empty:\r\nX-Two: \u{e4}\r\n";
    client
        .say(&with(&format!("TE: gzip\r\n{passing}Keep-Alive: 5\r\nUser-Agent: a\r\nUpgrade: x\r\n")))
        .await;
    let mut app = origin.connection().await;
    let head = app.until("\r\n\r\n").await;
    assert!(head.contains(&format!("\r\n{passing}User-Agent: a\r\n")), "{head:?}");
    for gone in ["te:", "keep-alive:", "upgrade:"] {
        assert!(!head.to_lowercase().contains(gone), "{gone} {head:?}");
    }
    app.say(&format!(
        "HTTP/1.1 200 OK\r\nKeep-Alive: 5\r\n{passing}Content-Length: 2\r\nServer: a\r\nUpgrade: x\r\n\r\nok"
    ))
    .await;
    let head = client.until("\r\n\r\n").await;
    assert!(head.contains(&format!("\r\n{passing}Server: a\r\n")), "{head:?}");
    assert!(head.to_lowercase().contains("\r\ncontent-length: 2\r\n"), "{head:?}");
    for gone in ["keep-alive:", "upgrade:"] {
        assert!(!head.to_lowercase().contains(gone), "{gone} {head:?}");
    }
    assert_eq!(client.take(2).await, "ok");
}

#[tokio::test]
async fn forwarded_fields_are_as_configured() {
    let _turn = machine::shared();
    const LIES: &str =
        "x-forwarded-for: 1.1.1.1\r\nx-forwarded-proto: https\r\nx-forwarded-host: shop.test\r\n";
    for (policy, fields, way, proto, host) in [
        ("append", LIES, Some("1.1.1.1, 127.0.0.1"), Some("https"), Some("shop.test")),
        ("append", "", Some("127.0.0.1"), Some("http"), Some("app.test")),
        ("replace", LIES, Some("127.0.0.1"), Some("http"), Some("app.test")),
        ("off", LIES, Some("1.1.1.1"), Some("https"), Some("shop.test")),
        ("off", "", None, None, None),
    ] {
        let (sidecar, mut origin) = house(json!({ "forwarded": policy })).await;
        let mut client = client(&sidecar).await;
        client.say(&with(fields)).await;
        let (_app, head) = origin.serve().await;
        assert_eq!(head.field("x-forwarded-for").as_deref(), way, "{policy}");
        assert_eq!(head.field("x-forwarded-proto").as_deref(), proto, "{policy}");
        assert_eq!(head.field("x-forwarded-host").as_deref(), host, "{policy}");
        assert_eq!(head.field("host").as_deref(), Some("app.test"), "{policy}");
    }
}

#[tokio::test]
async fn target_reaches_the_app_in_origin_form_and_host_says_what_it_named() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut client = client(&sidecar).await;
    client.say("GET http://Shop.test:81/b?c HTTP/1.1\r\nhost: shop.test:81\r\n\r\n").await;
    let mut app = origin.connection().await;
    let head = app.head().await;
    assert_eq!(head.line, "GET /b?c HTTP/1.1");
    assert_eq!(head.field("host").as_deref(), Some("Shop.test:81"));
    assert_eq!(head.field("x-forwarded-host").as_deref(), Some("Shop.test:81"));
    app.say(OK).await;
    client.answer().await;
    client.say("OPTIONS * HTTP/1.1\r\nhost: app.test\r\n\r\n").await;
    assert_eq!(app.head().await.line, "OPTIONS * HTTP/1.1");
    app.say(OK).await;
    client.answer().await;
    client.say("PURGE /%2e%2e/a//b?q=%00 HTTP/1.1\r\nhost: app.test\r\n\r\n").await;
    assert_eq!(app.head().await.line, "PURGE /%2e%2e/a//b?q=%00 HTTP/1.1", "nothing is made prettier");
}

#[tokio::test]
async fn connect_and_requests_without_host_are_refused() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    for request in ["CONNECT db.test:5432 HTTP/1.1\r\nhost: db.test:5432\r\n\r\n", "GET /a HTTP/1.1\r\n\r\n"]
    {
        let mut client = client(&sidecar).await;
        client.say(request).await;
        assert_eq!(client.refusal().await, (400, "bad_request".to_owned()));
    }
    assert!(origin.is_silent());
}

#[tokio::test]
async fn upgrade_that_nobody_asked_for_is_no_answer() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut asks = client(&sidecar).await;
    asks.say(&with("upgrade: websocket\r\nsec-websocket-version: 13\r\n")).await;
    let mut app = origin.connection().await;
    let head = app.head().await;
    assert_eq!((head.field("upgrade"), head.field("connection")), (None, None));
    app.say("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nsecret")
        .await;
    assert_eq!(asks.refusal().await, (502, "upstream_protocol".to_owned()));
    assert_eq!(app.end().await, "");
    let mut next = client(&sidecar).await;
    next.is_served_anew(&mut origin).await;
}

#[tokio::test]
async fn answer_that_is_not_http_is_502() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    for nonsense in
        ["220 mail.test ESMTP\r\n\r\n", "HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "HTTP/1.1 999999 ?\r\n\r\n"]
    {
        let mut client = client(&sidecar).await;
        client.say(GET).await;
        let mut app = origin.connection().await;
        app.head().await;
        app.say(nonsense).await;
        assert_eq!(client.refusal().await, (502, "upstream_protocol".to_owned()));
    }
}

#[tokio::test]
async fn informational_answers_do_not_end_the_wait() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut client = client(&sidecar).await;
    client.say(GET).await;
    let mut app = origin.connection().await;
    app.head().await;
    app.say("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n").await;
    app.say(OK).await;
    let text = client.until("\r\n\r\nok").await;
    assert!(text.contains("200 OK"), "{text}");
}
