//! Clients' connections without requests: what served them is let go, and nobody notices.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::tls::Pki;
use crate::support::{Client, Sidecar, TestApp, config, eventually, machine, merge};

use super::wire::{Origin, Wire};
use super::{GET, OK, before, client};

/// A sidecar that says when a connection rests; `more` goes below `listeners.http`.
async fn house(more: Value) -> (Sidecar, Origin) {
    let origin = Origin::start().await;
    let sidecar = before(origin.address, talkative(more)).await;
    sidecar.until_ready().await;
    (sidecar, origin)
}

fn talkative(more: Value) -> Value {
    // The app's connections stay: each of these tests has one.
    let listener = merge(json!({ "timeouts": { "upstream_idle": "1m" } }), more);
    json!({ "listeners": { "http": listener }, "log": { "level": "info,readygate::proxy=debug" } })
}

async fn until_rested(sidecar: &Sidecar, times: usize) {
    eventually("connections rest", Duration::from_secs(20), async || {
        sidecar.times_said("connection rests") >= times
    })
    .await;
}

/// An answer after which the app's connection is of no further use.
const LAST: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

/// A client whose connection rests, and the app's connection that served it.
async fn rested(sidecar: &Sidecar, origin: &mut Origin) -> (Wire, Wire) {
    let mut client = client(sidecar).await;
    let app = client.is_served_anew(origin).await;
    until_rested(sidecar, 1).await;
    (client, app)
}

#[tokio::test]
async fn resting_connection_serves_its_next_request_and_rests_again() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let (mut client, mut app) = rested(&sidecar, &mut origin).await;
    let asked = [
        (GET, "GET /a HTTP/1.1"),
        // Empty lines first (RFC 9112, 2.2).
        ("\r\n\r\nGET /a HTTP/1.1\r\nhost: app.test\r\n\r\n", "GET /a HTTP/1.1"),
        ("POST /a HTTP/1.1\r\nhost: app.test\r\ncontent-length: 5\r\n\r\nhello", "POST /a HTTP/1.1"),
    ];
    for (number, (request, line)) in asked.into_iter().enumerate() {
        client.say(request).await;
        assert_eq!(app.head().await.line, line);
        if line.starts_with("POST") {
            assert_eq!(app.take(5).await, "hello");
        }
        app.say(OK).await;
        let (head, body) = client.answer().await;
        assert_eq!((head.status(), head.field("connection"), body.as_str()), (200, None, "ok"));
        until_rested(&sidecar, number + 2).await;
    }
    // In pieces, and two at once.
    for piece in ["G", "ET /a HTT", "P/1.1\r\nhost: app.test\r\n\r", &format!("\n{GET}")] {
        client.say(piece).await;
        sleep(Duration::from_millis(20)).await;
    }
    for _ in 0..2 {
        app.head().await;
        app.say(OK).await;
        assert_eq!(client.answer().await.1, "ok");
    }
    assert_eq!(sidecar.metric("readygate_connections", "").await, 1.0);
    drop(client);
    eventually("its end is noticed", Duration::from_secs(10), async || {
        sidecar.metric("readygate_connections", "").await == 0.0
    })
    .await;
}

/// Around the moment at which connections go to rest, requests come at each millisecond.
#[tokio::test]
async fn request_that_comes_as_its_connection_goes_to_rest_is_served() {
    let _turn = machine::shared();
    let app = TestApp::start(&[]).await;
    let sidecar = Sidecar::start(&config(&app, merge(talkative(json!({})), json!({ "workers": 1 })))).await;
    sidecar.until_ready().await;
    let address = sidecar.traffic;
    let mut clients = JoinSet::new();
    for number in 0..400 {
        clients.spawn(async move {
            let mut client = Client::connect(address).await.expect("the port accepts");
            for turn in 0..3 {
                let answer = client.get(&format!("/?bytes={}", number + 1)).await.expect("an answer");
                assert_eq!((answer.status, answer.body.len(), answer.closes()), (200, number + 1, false));
                // A tick of the worker is a quarter of a second.
                sleep(Duration::from_millis(950 + (number as u64 + 130 * turn) % 400)).await;
            }
        });
    }
    clients.join_all().await;
    assert!(sidecar.said("connection rests"));
    assert_eq!(sidecar.metric("readygate_proxy_errors_total", "").await, 0.0);
}

#[tokio::test]
async fn resting_connection_is_closed_at_drain_and_serves_what_came_before() {
    let _turn = machine::shared();
    let (mut sidecar, mut origin) = house(json!({})).await;
    let (mut idle, mut app) = rested(&sidecar, &mut origin).await;
    let mut asks = client(&sidecar).await;
    asks.is_served_by(&mut app).await;
    until_rested(&sidecar, 2).await;
    sidecar.signal("TERM");
    eventually("it drains", Duration::from_secs(10), async || !sidecar.ready().await).await;
    asks.say(GET).await;
    app.head().await;
    app.say(OK).await;
    let (head, body) = asks.answer().await;
    assert_eq!((head.field("connection").as_deref(), body.as_str()), (Some("close"), "ok"));
    assert!(idle.ends_in_order().await && asks.ends_in_order().await);
    assert_eq!(sidecar.ended(Duration::from_secs(10)).await.code(), Some(0));
}

#[tokio::test]
async fn first_bytes_of_a_resting_connection_are_held_to_the_header_timeout() {
    let _turn = machine::shared();
    let timeouts = json!({ "header_read": "700ms", "idle": "30s", "upstream_idle": "1m" });
    let (sidecar, mut origin) = house(json!({ "timeouts": timeouts })).await;
    let (mut client, _app) = rested(&sidecar, &mut origin).await;
    client.say("GET /a HT").await;
    let began = Instant::now();
    assert_eq!(client.end().await, "");
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(400) && took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn resting_connection_is_closed_after_idle() {
    let _turn = machine::shared();
    let timeouts = json!({ "idle": "2s", "upstream_idle": "1m" });
    let (sidecar, mut origin) = house(json!({ "timeouts": timeouts })).await;
    let (mut client, _app) = rested(&sidecar, &mut origin).await;
    assert!(client.is_silent());
    assert_eq!(client.end().await, "");
}

#[tokio::test]
async fn connection_with_part_of_a_request_does_not_rest() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut client = client(&sidecar).await;
    let mut bystander = super::client(&sidecar).await;
    client.say(&format!("{GET}GET /b HT")).await;
    let (mut app, _) = origin.serve().await;
    assert_eq!(client.answer().await.1, "ok");
    bystander.is_served_by(&mut app).await;
    until_rested(&sidecar, 1).await;
    sleep(Duration::from_millis(600)).await;
    assert_eq!(sidecar.times_said("connection rests"), 1, "the other one");
    client.say("TP/1.1\r\nhost: app.test\r\n\r\n").await;
    assert_eq!(app.head().await.line, "GET /b HTTP/1.1");
    app.say(OK).await;
    assert_eq!(client.answer().await.1, "ok");
}

#[tokio::test]
async fn refusals_on_a_connection_that_rested_are_as_before() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    for (number, said) in
        ["GET /a HTTP/1.1\nhost: a\n\n", "GET /a HTTP/1.1\r\nno colon\r\n\r\n"].into_iter().enumerate()
    {
        let mut client = client(&sidecar).await;
        client.say(GET).await;
        let mut app = origin.connection().await;
        app.head().await;
        app.say(LAST).await;
        assert_eq!(client.answer().await.1, "ok");
        until_rested(&sidecar, number + 1).await;
        client.say(said).await;
        assert_eq!(client.refusal().await, (400, "bad_request".to_owned()), "{said:?}");
        assert_eq!(client.end().await, "");
    }
}

#[tokio::test]
async fn connection_with_tls_rests_too_and_ends_in_order() {
    let _turn = machine::shared();
    let Some(pki) = Pki::new() else { return };
    pki.leaf("leaf", "root");
    let tls = json!({ "cert": pki.path("leaf.crt"), "key": pki.path("leaf.key") });
    let timeouts = json!({ "idle": "4s", "upstream_idle": "1m" });
    let (sidecar, mut origin) = house(json!({ "tls": tls, "timeouts": timeouts })).await;
    let mut client = pki.client(&["root"], None).connect(sidecar.traffic).await.expect("a handshake").0;
    for turn in 0..2 {
        client.write_all(GET.as_bytes()).await.expect("taken");
        client.flush().await.expect("taken");
        let mut app = origin.connection().await;
        app.head().await;
        app.say(LAST).await;
        let mut heard = Vec::new();
        while !heard.ends_with(b"\r\n\r\nok") {
            heard.push(client.read_u8().await.expect("an answer"));
        }
        until_rested(&sidecar, turn + 1).await;
    }
    // An end without a word of TLS would be an error.
    assert_eq!(client.read(&mut [0]).await.expect("an end in order"), 0);
}
