//! Upgrades over HTTP/1.1: granted by the app alone, lossless, and never a way around the rules for requests.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::sleep;

use crate::support::{Sidecar, eventually, machine};

use super::wire::{Origin, Wire};
use super::{GET, before, client, house};

const UPGRADE: &str = "GET /a HTTP/1.1\r\nhost: app.test\r\nconnection: Upgrade\r\nupgrade: Echo/1\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo/1\r\n\r\n";

/// A connection that is upgraded: the client's end and the app's.
async fn upgraded(sidecar: &Sidecar, origin: &mut Origin) -> (Wire, Wire) {
    let mut client = client(sidecar).await;
    client.say(UPGRADE).await;
    let mut app = origin.connection().await;
    app.head().await;
    app.say(SWITCH).await;
    assert_eq!(client.head().await.status(), 101);
    (client, app)
}

async fn in_flight(sidecar: &Sidecar) -> f64 {
    sidecar.metric("readygate_requests_in_flight", "").await
}

async fn until_none_in_flight(sidecar: &Sidecar) {
    eventually("the tunnel ends", Duration::from_secs(10), async || in_flight(sidecar).await == 0.0).await;
}

#[tokio::test]
async fn upgraded_connection_carries_bytes_and_those_that_came_early_first() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut client = client(&sidecar).await;
    client.say(&format!("{UPGRADE}client's first")).await;
    let mut app = origin.connection().await;
    let head = app.head().await;
    assert_eq!(head.line, "GET /a HTTP/1.1");
    assert_eq!(head.field("upgrade").as_deref(), Some("Echo/1"));
    assert_eq!(head.field("connection").as_deref(), Some("upgrade"));
    assert_eq!(head.field("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert!(app.is_silent(), "nothing of the tunnel before the app agreed to it");
    app.say(&format!("{SWITCH}app's first")).await;
    let head = client.head().await;
    assert_eq!(head.line, "HTTP/1.1 101 Switching Protocols");
    assert_eq!(head.field("upgrade").as_deref(), Some("echo/1"));
    assert_eq!(head.field("connection").as_deref(), Some("upgrade"));
    assert_eq!(client.take(11).await, "app's first");
    assert_eq!(app.take(14).await, "client's first");
    for round in 0..100 {
        client.say(&format!("ping {round:03}")).await;
        assert_eq!(app.take(8).await, format!("ping {round:03}"));
        app.say(&format!("pong {round:03}")).await;
        assert_eq!(client.take(8).await, format!("pong {round:03}"));
    }
    assert_eq!(in_flight(&sidecar).await, 1.0);
    // Each way ends by itself.
    client.finish().await;
    assert_eq!(app.end().await, "");
    app.say("still here").await;
    assert_eq!(client.take(10).await, "still here");
    assert_eq!(in_flight(&sidecar).await, 1.0);
    app.finish().await;
    assert_eq!(client.end().await, "");
    until_none_in_flight(&sidecar).await;
    assert_eq!(sidecar.metric("readygate_requests_total", "code=\"1xx\"").await, 1.0);
    assert_eq!(sidecar.metric("readygate_requests_total", "").await, 1.0);
    assert_eq!(sidecar.metric("readygate_proxy_errors_total", "").await, 0.0);
    assert_eq!(sidecar.metric("readygate_connections", "").await, 0.0);
}

#[tokio::test]
async fn bytes_of_a_tunnel_are_not_read_as_requests() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let (mut client, mut app) = upgraded(&sidecar, &mut origin).await;
    // Each would be refused outside: bad chunks, two lengths, no Host, many heads that nobody asks for.
    let post = "POST /a HTTP/1.1\r\nhost: app.test\r\n";
    let bad = [
        format!("{post}transfer-encoding: chunked\r\n\r\nno size\r\n"),
        format!("{post}content-length: 1\r\ncontent-length: 2\r\n\r\nabc"),
        "GET /a HTTP/1.1\r\n\r\n".to_owned(),
        GET.repeat(1000),
    ];
    for text in bad {
        client.say(&text).await;
        assert_eq!(app.take(text.len()).await, text);
        app.say(&text).await;
        assert_eq!(client.take(text.len()).await, text);
    }
}

#[tokio::test]
async fn app_may_end_its_way_first() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let (mut client, mut app) = upgraded(&sidecar, &mut origin).await;
    app.say("last words").await;
    app.finish().await;
    assert_eq!(client.end().await, "last words");
    client.say("and mine").await;
    assert_eq!(app.take(8).await, "and mine");
    drop(client);
    assert_eq!(app.end().await, "");
    until_none_in_flight(&sidecar).await;
}

#[tokio::test]
async fn refused_upgrade_is_an_answer_as_any_other() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut client = client(&sidecar).await;
    client.say(UPGRADE).await;
    let (mut app, _) = origin.serve().await;
    assert_eq!(client.answer().await.1, "ok");
    // Both connections are kept, for further requests and for further upgrades.
    client.is_served_by(&mut app).await;
    client.say(UPGRADE).await;
    app.head().await;
    app.say(SWITCH).await;
    assert_eq!(client.head().await.status(), 101);
    client.say("bytes").await;
    assert_eq!(app.take(5).await, "bytes");
    // Neither is ever used for a request again.
    drop(client);
    assert_eq!(app.end().await, "");
    let mut client = Wire::connect(sidecar.traffic).await;
    client.is_served_anew(&mut origin).await;
}

#[tokio::test]
async fn answer_that_wants_an_upgrade_says_to_what() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut client = client(&sidecar).await;
    client.say(GET).await;
    let mut app = origin.connection().await;
    app.head().await;
    for (wanted, said) in [
        ("connection: upgrade\r\nupgrade: Echo/1\r\n", Some("Echo/1")),
        ("connection: Upgrade\r\nupgrade: h2c, websocket\r\nupgrade: echo\r\n", Some("websocket, echo")),
        // What is not passed on is not promised.
        ("connection: upgrade\r\nupgrade: TLS/1.0, HTTP/1.1\r\n", None),
        ("", None),
    ] {
        app.say(&format!("HTTP/1.1 426 Upgrade Required\r\n{wanted}content-length: 2\r\n\r\nno")).await;
        let (head, body) = client.answer().await;
        assert_eq!((head.status(), body.as_str()), (426, "no"));
        assert_eq!(head.field("upgrade").as_deref(), said, "{wanted:?}");
        assert_eq!(head.field("connection").as_deref(), said.map(|_| "upgrade"), "{wanted:?}");
        // The connection goes on.
        client.say(GET).await;
        app.head().await;
    }
    app.say("HTTP/1.1 200 OK\r\nupgrade: websocket\r\nconnection: upgrade\r\ncontent-length: 0\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.0.field("upgrade"), None, "an answer that wants none");

    client.say(GET).await;
    app.head().await;
    sidecar.signal("TERM");
    sidecar.until_not_ready().await;
    app.say("HTTP/1.1 426 Upgrade Required\r\nupgrade: echo\r\ncontent-length: 0\r\n\r\n").await;
    let (head, _) = client.answer().await;
    assert_eq!(head.field("connection").as_deref(), Some("close, upgrade"));
    assert_eq!(client.end().await, "");
}

#[tokio::test]
async fn bytes_behind_a_refused_upgrade_are_requests_and_held_to_their_rules() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut client = client(&sidecar).await;
    client.say(&format!("{UPGRADE}{}", GET.replace("/a", "/b"))).await;
    let (mut app, _) = origin.serve().await;
    assert_eq!(client.answer().await.1, "ok");
    let head = app.head().await;
    assert_eq!(head.line, "GET /b HTTP/1.1");
    assert!(head.field("x-forwarded-for").is_some(), "it went through the layers");
    app.say(super::OK).await;
    assert_eq!(client.answer().await.1, "ok");
    client.say(&format!("{UPGRADE}bytes of another protocol\r\n\r\n")).await;
    app.head().await;
    app.say(super::OK).await;
    assert_eq!(client.answer().await.1, "ok");
    assert_eq!(client.head().await.status(), 400);
    assert!(app.is_silent() && origin.is_silent());
}

#[tokio::test]
async fn connection_that_offered_an_upgrade_ends_in_order() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    for protocol in ["echo/1", "h2c"] {
        let mut client = client(&sidecar).await;
        let request = UPGRADE.replace("Echo/1", protocol).replace("Upgrade\r", "Upgrade, close\r");
        client.say(&request).await;
        let (_app, _) = origin.serve().await;
        assert_eq!(client.answer().await.1, "ok");
        assert!(!client.is_reset().await, "{protocol}");
    }
}

#[tokio::test]
async fn switch_to_what_was_not_offered_is_a_bad_gateway() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    for fields in ["upgrade: h2c\r\n", "upgrade: echo/2\r\n", "upgrade: echo/1, h2c\r\n", ""] {
        let mut client = client(&sidecar).await;
        client.say(UPGRADE).await;
        let mut app = origin.connection().await;
        app.head().await;
        app.say(&format!("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n{fields}\r\nsecret"))
            .await;
        assert_eq!(client.refusal().await, (502, "upstream_protocol".to_owned()), "{fields}");
        assert_eq!(app.end().await, "", "{fields}");
        client.is_served_anew(&mut origin).await;
    }
}

#[tokio::test]
async fn offers_of_http_and_tls_end_here() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let lines = [
        "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n",
        "connection: upgrade\r\nupgrade: TLS/1.2\r\n",
        "connection: upgrade\r\nupgrade: HTTP/2.0\r\n",
        "upgrade: websocket\r\n",
        "connection: upgrade\r\n",
    ];
    let mut client = client(&sidecar).await;
    let mut app = None;
    for line in lines {
        client.say(&GET.replace("\r\n\r\n", &format!("\r\n{line}\r\n"))).await;
        let mut wire = match app.take() {
            Some(wire) => wire,
            None => origin.connection().await,
        };
        let head = wire.head().await;
        for field in ["upgrade", "connection", "http2-settings"] {
            assert_eq!(head.field(field), None, "{line}");
        }
        wire.say(super::OK).await;
        assert_eq!(client.answer().await.1, "ok", "{line}");
        app = Some(wire);
    }
}

#[tokio::test]
async fn upgrade_with_a_body_is_refused() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    for body in ["content-length: 2\r\n\r\nok", "transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"] {
        let mut client = client(&sidecar).await;
        client.say(&UPGRADE.replace("GET", "POST").replace("\r\n\r\n", &format!("\r\n{body}"))).await;
        assert_eq!(client.refusal().await, (400, "bad_request".to_owned()), "{body}");
    }
    assert!(origin.is_silent());
}

#[tokio::test]
async fn reset_of_either_side_reaches_the_other() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let (client, mut app) = upgraded(&sidecar, &mut origin).await;
    client.reset();
    assert!(app.is_reset().await);
    until_none_in_flight(&sidecar).await;
    let errors = "readygate_proxy_errors_total";
    assert_eq!(sidecar.metric(errors, "kind=\"client_closed\"").await, 1.0);
    let (mut client, app) = upgraded(&sidecar, &mut origin).await;
    app.reset();
    assert!(client.is_reset().await);
    until_none_in_flight(&sidecar).await;
    assert_eq!(sidecar.metric(errors, "kind=\"upstream_broken\"").await, 1.0);
    assert_eq!(sidecar.metric(errors, "").await, 2.0);
}

#[tokio::test]
async fn tunnel_on_which_nothing_moves_is_closed() {
    let _turn = machine::shared();
    let more = json!({ "timeouts": { "tunnel_idle": "1s", "idle": "100ms", "first_byte": "100ms" } });
    let (sidecar, mut origin) = house(more).await;
    let (mut client, mut app) = upgraded(&sidecar, &mut origin).await;
    let began = Instant::now();
    // Whichever way a byte goes, the connection lives.
    while began.elapsed() < Duration::from_secs(3) {
        client.say("c").await;
        assert_eq!(app.take(1).await, "c");
        sleep(Duration::from_millis(300)).await;
        app.say("a").await;
        assert_eq!(client.take(1).await, "a");
        sleep(Duration::from_millis(300)).await;
    }
    let began = Instant::now();
    assert!(client.is_reset().await && app.is_reset().await, "not to be taken for an end in order");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    until_none_in_flight(&sidecar).await;
}

#[tokio::test]
async fn slow_reader_of_a_tunnel_is_waited_for() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({ "timeouts": { "body_progress": "500ms" } })).await;
    let (mut client, mut app) = upgraded(&sidecar, &mut origin).await;
    let taken = app.flood(64 << 20).await;
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(client.take(taken).await.len(), taken);
    client.say("at last").await;
    assert_eq!(app.take(7).await, "at last");
}

#[tokio::test]
async fn tunnel_keeps_its_place_at_the_app() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({ "limits": { "in_flight": 1 } })).await;
    let (tunnel, app) = upgraded(&sidecar, &mut origin).await;
    let mut next = client(&sidecar).await;
    next.say(GET).await;
    eventually("the next request waits", Duration::from_secs(10), async || {
        sidecar.metric("readygate_held_requests", "").await == 1.0
    })
    .await;
    assert!(origin.is_silent());
    drop((tunnel, app));
    origin.serve().await;
    assert_eq!(next.answer().await.1, "ok");
}

#[tokio::test]
async fn tunnel_goes_on_through_the_drain_until_its_deadline() {
    let _turn = machine::shared();
    let mut origin = Origin::start().await;
    let more = json!({ "drain": { "min": "200ms", "quiet": "100ms", "deadline": "2s" } });
    let mut sidecar = before(origin.address, more).await;
    sidecar.until_ready().await;
    let (mut client, mut app) = upgraded(&sidecar, &mut origin).await;
    let began = sidecar.signal("TERM");
    sidecar.until_not_ready().await;
    // Also one that begins only now.
    let (mut late, mut late_app) = upgraded(&sidecar, &mut origin).await;
    while began.elapsed() < Duration::from_millis(1700) {
        for (client, app) in [(&mut client, &mut app), (&mut late, &mut late_app)] {
            client.say("ping").await;
            assert_eq!(app.take(4).await, "ping");
            app.say("pong").await;
            assert_eq!(client.take(4).await, "pong");
        }
        sleep(Duration::from_millis(20)).await;
    }
    for wire in [&mut client, &mut app, &mut late, &mut late_app] {
        assert!(wire.is_reset().await, "not to be taken for an end in order");
    }
    let cut = began.elapsed();
    assert!(cut >= Duration::from_millis(1900) && cut <= Duration::from_millis(2500), "{cut:?}");
    assert_eq!(sidecar.ended(Duration::from_secs(5)).await.code(), Some(0));
    assert!(sidecar.said("\"cut\":2"), "both are counted");
}

#[tokio::test]
async fn drain_ends_with_the_last_tunnel() {
    let _turn = machine::shared();
    let (mut sidecar, mut origin) = house(json!({})).await;
    let (client, app) = upgraded(&sidecar, &mut origin).await;
    sidecar.signal("TERM");
    sleep(Duration::from_secs(1)).await;
    assert!(sidecar.runs(), "a tunnel is in flight");
    drop((client, app));
    assert_eq!(sidecar.ended(Duration::from_secs(5)).await.code(), Some(0));
}
