//! Requests while the gate is closed or the app is down: `not_ready`, the line, and who passes it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Scratch, Sidecar, TestApp, config, eventually, get, machine};

use super::wire::Origin;
use super::{GET, before, client};

/// A sidecar whose gate is open while the file is there.
async fn gated(app: SocketAddr, file: &Path, more: Value) -> Sidecar {
    let check = json!({
        "file": { "path": file }, "gates": "always", "interval": "100ms", "interval_failing": "100ms",
        "timeout": "100ms", "failure_threshold": 1,
    });
    before(app, json!({ "listeners": { "http": more }, "checks": { "open": check } })).await
}

fn open(file: &Path) {
    std::fs::write(file, "open").expect("the directory is writable");
}

fn close(file: &Path) {
    std::fs::remove_file(file).expect("it is there");
}

async fn held(sidecar: &Sidecar, number: f64) {
    eventually(&format!("{number} requests wait"), Duration::from_secs(10), async || {
        sidecar.metric("readygate_held_requests", "").await == number
    })
    .await;
}

#[tokio::test]
async fn forward_sends_requests_on_whatever_the_gate_says() {
    let _turn = machine::shared();
    let (scratch, mut origin) = (Scratch::new(), Origin::start().await);
    let file = scratch.join("open");
    let sidecar = gated(origin.address, &file, json!({ "not_ready": "forward" })).await;
    assert!(!sidecar.ready().await);
    let mut client = client(&sidecar).await;
    client.say(GET).await;
    let (mut app, _) = origin.serve().await;
    assert_eq!(client.answer().await.1, "ok");
    open(&file);
    sidecar.until_ready().await;
    close(&file);
    sidecar.until_not_ready().await;
    client.is_served_by(&mut app).await;
}

#[tokio::test]
async fn reject_answers_503_before_ready_and_while_failing_and_the_app_sees_nothing() {
    let _turn = machine::shared();
    let (scratch, mut origin) = (Scratch::new(), Origin::start().await);
    let file = scratch.join("open");
    let sidecar = gated(origin.address, &file, json!({ "not_ready": "reject" })).await;
    eventually("the app's port was seen", Duration::from_secs(10), async || {
        sidecar.ask("/status").await.text().contains("\"refusing\":false") || !sidecar.ready().await
    })
    .await;
    let mut client = client(&sidecar).await;
    for method in ["GET", "HEAD", "GET"] {
        client.say(&GET.replace("GET", method)).await;
        let head = client.head().await;
        assert_eq!((head.status(), head.field("x-readygate-error").as_deref()), (503, Some("not_ready")));
        assert!(head.field("retry-after").is_some());
        if method == "GET" {
            let length = head.field("content-length").expect("a length").parse().expect("a number");
            client.take(length).await;
        }
    }
    open(&file);
    sidecar.until_ready().await;
    assert!(origin.is_silent());
    client.is_served_anew(&mut origin).await;
    close(&file);
    sidecar.until_not_ready().await;
    client.say(GET).await;
    assert_eq!(client.answer().await.0.status(), 503);
    // An answer of ours that HEAD does not get the body of is complete all the same.
    assert_eq!(sidecar.metric("readygate_proxy_errors_total", "client_closed").await, 0.0);
    assert_eq!(sidecar.metric("readygate_proxy_errors_total", "not_ready").await, 4.0);
}

#[tokio::test]
async fn held_requests_pass_when_the_gate_opens_and_the_line_is_bounded() {
    let _turn = machine::shared();
    let (scratch, mut origin) = (Scratch::new(), Origin::start().await);
    let file = scratch.join("open");
    let more = json!({ "not_ready": "hold", "hold": { "for": "20s" }, "limits": { "queue": 2 } });
    let sidecar = gated(origin.address, &file, more).await;
    let (mut one, mut two, mut three) =
        (client(&sidecar).await, client(&sidecar).await, client(&sidecar).await);
    one.say(GET).await;
    two.say(GET).await;
    held(&sidecar, 2.0).await;
    three.say(GET).await;
    assert_eq!(three.refusal().await, (503, "queue_full".to_owned()));
    assert!(one.is_silent() && two.is_silent() && origin.is_silent());
    open(&file);
    for _ in 0..2 {
        let mut app = origin.connection().await;
        app.head().await;
        app.say("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok").await;
    }
    assert_eq!(one.answer().await.1, "ok");
    assert_eq!(two.answer().await.1, "ok");
    held(&sidecar, 0.0).await;
}

#[tokio::test]
async fn held_request_gets_503_when_its_time_is_over() {
    let _turn = machine::shared();
    let (scratch, mut origin) = (Scratch::new(), Origin::start().await);
    let more = json!({ "not_ready": "hold", "hold": { "for": "300ms" } });
    let sidecar = gated(origin.address, &scratch.join("never"), more).await;
    let mut client = client(&sidecar).await;
    let began = Instant::now();
    client.say(GET).await;
    assert_eq!(client.refusal().await, (503, "hold_timeout".to_owned()));
    assert!(began.elapsed() >= Duration::from_millis(290), "{:?}", began.elapsed());
    assert!(origin.is_silent());
}

#[tokio::test]
async fn requests_wait_for_an_app_that_refuses_whatever_the_policy() {
    let _turn = machine::shared();
    for policy in ["forward", "hold", "reject"] {
        let mut app = TestApp::start(&[]).await;
        // The deadline is for the app's answer, not for its restart.
        let more = json!({ "listeners": { "http": {
            "not_ready": policy, "hold": { "for": "20s" }, "timeouts": { "response": "2s" },
        } } });
        let sidecar = Sidecar::start(&config(&app, more)).await;
        sidecar.until_ready().await;
        app.kill();
        sidecar.until_not_ready().await;
        let mut client = client(&sidecar).await;
        client.say(GET).await;
        held(&sidecar, 1.0).await;
        if policy == "forward" {
            tokio::time::sleep(Duration::from_millis(2200)).await;
        }
        assert!(client.is_silent(), "{policy}");
        app.up().await;
        assert_eq!(client.answer().await.0.status(), 200, "{policy}");
    }
}

#[tokio::test]
async fn line_for_an_app_that_refuses_is_bounded_too() {
    let _turn = machine::shared();
    let mut app = TestApp::start(&[]).await;
    let more = json!({ "listeners": { "http": { "hold": { "for": "20s" }, "limits": { "queue": 1 } } } });
    let sidecar = Sidecar::start(&config(&app, more)).await;
    sidecar.until_ready().await;
    app.kill();
    let mut waits = client(&sidecar).await;
    waits.say(GET).await;
    held(&sidecar, 1.0).await;
    let answer = get(sidecar.traffic, "/").await.expect("an answer");
    assert_eq!((answer.status, answer.header("x-readygate-error")), (503, Some("queue_full")));
    assert!(answer.header("retry-after").is_some());
    app.up().await;
    assert_eq!(waits.answer().await.0.status(), 200);
}

#[tokio::test]
async fn forged_warmup_mark_opens_nothing_and_ends_here() {
    let _turn = machine::shared();
    let (scratch, mut origin) = (Scratch::new(), Origin::start().await);
    let file = scratch.join("open");
    let sidecar = gated(origin.address, &file, json!({ "not_ready": "reject" })).await;
    let mut client = client(&sidecar).await;
    let forged =
        "GET /a HTTP/1.1\r\nhost: app.test\r\nx-readygate-warmup: guess\r\nx-readygate-warmup: again\r\n\r\n";
    client.say(forged).await;
    assert_eq!(client.answer().await.0.status(), 503);
    assert!(origin.is_silent());
    open(&file);
    sidecar.until_ready().await;
    client.say(forged).await;
    let (_app, head) = origin.serve().await;
    assert_eq!(head.field("x-readygate-warmup"), None);
    assert_eq!(client.answer().await.1, "ok");
    assert_eq!(sidecar.metric("readygate_requests_total", "").await, 2.0, "it is traffic like any other");
}

#[tokio::test]
async fn readiness_is_answered_on_the_traffic_port_where_asked_for() {
    let _turn = machine::shared();
    let (scratch, mut origin) = (Scratch::new(), Origin::start().await);
    let file = scratch.join("open");
    let more = json!({ "not_ready": "reject", "ready_path": "/.readygate/ready" });
    let sidecar = gated(origin.address, &file, more).await;
    let mut client = client(&sidecar).await;
    let ask = GET.replace("/a", "/.readygate/ready");
    client.say(&ask).await;
    let (head, body) = client.answer().await;
    assert_eq!((head.status(), body.as_str()), (503, "not ready\n"));
    assert_eq!(head.field("cache-control").as_deref(), Some("no-store"));
    open(&file);
    sidecar.until_ready().await;
    client.say(&ask).await;
    let (head, body) = client.answer().await;
    assert_eq!((head.status(), body.as_str()), (200, "ready\n"));
    client.say(&GET.replace("/a", "/.readygate/readyness")).await;
    origin.serve().await;
    assert_eq!(client.answer().await.1, "ok");
    assert_eq!(sidecar.metric("readygate_requests_total", "").await, 1.0, "probes are not traffic");
}
