//! What the body of a request may be: how large, and how slow; and how slow the reader of an answer.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use serde_json::json;

use crate::support::{eventually, machine};

use super::h2::{App, Client, patiently, read, request, whole};
use super::{GET, client, house};

const POST: &str = "POST /up HTTP/1.1\r\nhost: app.test\r\n";

#[tokio::test]
async fn body_that_says_it_is_too_large_never_reaches_the_app() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({ "limits": { "body_bytes": "1KiB" } })).await;
    let mut refused = client(&sidecar).await;
    refused.say(&format!("{POST}content-length: 1025\r\n\r\n")).await;
    assert_eq!(refused.refusal().await, (413, "body_too_large".to_owned()));
    assert!(origin.is_silent());
    let mut fits = client(&sidecar).await;
    fits.say(&format!("{POST}content-length: 1024\r\n\r\n{}", "x".repeat(1024))).await;
    let (mut app, _) = origin.serve().await;
    app.take(1024).await;
    assert_eq!(fits.answer().await.0.status(), 200);
    let mut h2 = Client::connect(sidecar.traffic).await;
    let mut asked = request("POST", "/up");
    asked.headers_mut().insert("content-length", HeaderValue::from_static("2000"));
    let (response, _body) = h2.open(asked, true).await;
    assert_eq!(patiently(whole(response)).await.expect("an answer").head.status(), 413);
}

#[tokio::test]
async fn body_that_turns_out_too_large_is_cut() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({ "limits": { "body_bytes": "1KiB" } })).await;
    let mut client = client(&sidecar).await;
    client.say(&format!("{POST}transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")).await;
    let mut app = origin.connection().await;
    app.until("abc").await;
    client.say(&format!("400\r\n{}\r\n0\r\n\r\n", "x".repeat(0x400))).await;
    assert_eq!(client.refusal().await, (413, "body_too_large".to_owned()));
    assert!(!app.end().await.contains("0\r\n\r\n"), "the app does not take the part for the whole");
}

#[tokio::test]
async fn too_large_for_an_app_of_http2_is_413_too() {
    let _turn = machine::shared();
    let mut app = App::start().await;
    let limits = json!({ "upstream": format!("h2c://{}", app.address), "limits": { "body_bytes": "1KiB" } });
    let sidecar = super::before(app.address, json!({ "listeners": { "http": limits } })).await;
    sidecar.until_ready().await;
    let mut h2 = Client::connect(sidecar.traffic).await;
    let (response, mut body) = h2.open(request("POST", "/up"), true).await;
    body.send_data(Bytes::from(vec![b'x'; 1025]), false).expect("it is open");
    let mut arrived = app.next().await;
    assert_eq!(patiently(whole(response)).await.expect("an answer").head.status(), 413);
    patiently(read(arrived.request.body_mut()))
        .await
        .expect_err("the app does not take the part for the whole");
}

#[tokio::test]
async fn body_that_makes_no_progress_is_given_up() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({ "timeouts": { "body_progress": "600ms" } })).await;
    let mut client = client(&sidecar).await;
    client.say(&format!("{POST}content-length: 10\r\n\r\n")).await;
    let mut app = origin.connection().await;
    app.head().await;
    for _ in 0..5 {
        // Slow, but not too slow: in all it takes longer than the limit.
        tokio::time::sleep(Duration::from_millis(250)).await;
        client.say("x").await;
    }
    assert_eq!(app.take(5).await, "xxxxx");
    assert_eq!(client.refusal().await, (408, "body_timeout".to_owned()));
    assert_eq!(client.end().await, "");
    assert_eq!(app.end().await, "");
    let mut h2 = Client::connect(sidecar.traffic).await;
    let (response, _body) = h2.open(request("POST", "/up"), true).await;
    assert_eq!(patiently(whole(response)).await.expect("an answer").head.status(), 408);
}

#[tokio::test]
async fn stream_of_grpc_may_pause() {
    let _turn = machine::shared();
    let mut app = App::start().await;
    let listener =
        json!({ "upstream": format!("h2c://{}", app.address), "timeouts": { "body_progress": "200ms" } });
    let sidecar = super::before(app.address, json!({ "listeners": { "http": listener } })).await;
    sidecar.until_ready().await;
    let mut h2 = Client::connect(sidecar.traffic).await;
    let mut call = request("POST", "/pkg.Service/Stream");
    call.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let (response, mut body) = h2.open(call, true).await;
    let mut arrived = app.next().await;
    tokio::time::sleep(Duration::from_millis(1000)).await;
    body.send_data(Bytes::from_static(b"late"), true).expect("it is open");
    assert_eq!(read(arrived.request.body_mut()).await.expect("a body"), b"late");
    arrived.answer("ok");
    assert_eq!(patiently(whole(response)).await.expect("an answer").body, b"ok");
}

#[tokio::test]
async fn reader_that_takes_nothing_is_let_go() {
    let _turn = machine::shared();
    const TOTAL: usize = 64 << 20;
    let (sidecar, mut origin) = house(json!({ "timeouts": { "body_progress": "500ms" } })).await;
    let mut client = client(&sidecar).await;
    client.say(GET).await;
    let mut app = origin.connection().await;
    app.head().await;
    app.say(&format!("HTTP/1.1 200 OK\r\ncontent-length: {TOTAL}\r\n\r\n")).await;
    let taken = app.flood(TOTAL).await;
    assert!(taken < TOTAL, "what nobody reads is not read from the app either");
    eventually("the connection is closed", Duration::from_secs(10), async || {
        sidecar.metric("readygate_connections", "").await == 0.0
    })
    .await;
    assert_eq!(app.end().await, "", "nor is the app kept");
}

#[tokio::test]
async fn many_fields_over_http2_are_refused_as_over_http1() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({ "limits": { "headers": 20 } })).await;
    let mut h2 = Client::connect(sidecar.traffic).await;
    let mut asked = request("GET", "/");
    for _ in 0..21 {
        asked.headers_mut().append("x-more", HeaderValue::from_static("1"));
    }

    assert_eq!(h2.ask(asked).await.expect("an answer").head.status(), 431);
    assert!(origin.is_silent());
}

/// Many clients do so, and an app that reads on while it answers waits for the end of what they send.
#[tokio::test]
async fn body_goes_on_to_its_end_though_its_client_reads_nothing_of_an_early_answer() {
    const LENGTH: usize = 16 << 20;
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut client = client(&sidecar).await;
    client.say(&format!("{POST}content-length: {LENGTH}\r\n\r\n")).await;
    let mut app = origin.connection().await;
    app.head().await;
    app.say(&format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n")).await;
    assert!(app.flood(LENGTH).await < LENGTH, "the answer waits for the client");
    let (sent, came) = tokio::join!(client.flood(LENGTH), app.take(LENGTH));
    assert_eq!((sent, came.len()), (LENGTH, LENGTH));
}
