//! What is counted and logged agrees with what was sent.

use std::time::Duration;

use serde_json::json;

use crate::support::{Sidecar, TestApp, config, eventually, machine};

use super::wire::Origin;
use super::{GET, before, client, house};

#[tokio::test]
async fn numbers_agree_with_what_was_sent() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let mut kept = client(&sidecar).await;
    let (mut sent, mut received) = (0, 0);
    let mut app = None;
    for status in [200, 204, 301, 404, 500, 200] {
        kept.say(GET).await;
        sent += GET.len();
        let mut wire = match app.take() {
            Some(wire) => wire,
            None => origin.connection().await,
        };
        wire.head().await;
        let metric = sidecar.metric("readygate_requests_in_flight", "").await;
        assert_eq!(metric, 1.0);
        let answer = match status {
            204 => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
            status => format!("HTTP/1.1 {status} Word\r\ncontent-length: 2\r\n\r\nok"),
        };
        wire.say(&answer).await;
        let end = if status == 204 { "\r\n\r\n" } else { "\r\n\r\nok" };
        received += kept.until(end).await.len();
        app = Some(wire);
    }
    let _other = client(&sidecar).await;
    eventually("the second connection is counted", Duration::from_secs(10), async || {
        sidecar.metric("readygate_connections", "").await == 2.0
    })
    .await;
    let requests = "readygate_requests_total";
    for (code, number) in [("2xx", 3.0), ("3xx", 1.0), ("4xx", 1.0), ("5xx", 1.0), ("1xx", 0.0)] {
        assert_eq!(sidecar.metric(requests, &format!("code=\"{code}\"")).await, number, "{code}");
    }
    assert_eq!(sidecar.metric("readygate_request_duration_seconds_count", "").await, 6.0);
    assert_eq!(sidecar.metric("readygate_requests_in_flight", "").await, 0.0);
    assert_eq!(sidecar.metric("readygate_held_requests", "").await, 0.0);
    assert_eq!(sidecar.metric("readygate_connections_total", "").await, 2.0);
    assert_eq!(sidecar.metric("readygate_proxy_errors_total", "").await, 0.0);
    let text = sidecar.ask("/metrics").await.text();
    let bytes: Vec<&str> = text.lines().filter(|line| line.starts_with("readygate_bytes_total{")).collect();
    let counted = |number: usize| bytes.iter().filter(|line| line.ends_with(&format!(" {number}"))).count();
    assert_eq!((bytes.len(), counted(sent), counted(received)), (2, 1, 1), "{sent} {received} {bytes:?}");
}

#[tokio::test]
async fn warmup_requests_are_no_traffic() {
    let _turn = machine::shared();
    let app = TestApp::start(&[]).await;
    let warm = json!({ "warmup": {
        "listener": "http", "requests": ["GET /warm"], "min_requests": 20, "target": { "quantile": 0.5, "latency": "10s" },
    } });
    let more = json!({
        "checks": { "warm": warm }, "log": { "access": "all" }, "listeners": { "http": { "not_ready": "reject" } },
    });
    let sidecar = Sidecar::start(&config(&app, more)).await;
    sidecar.until_ready().await;
    assert!(sidecar.metric("readygate_warmup_requests_total", "").await >= 20.0);
    assert_eq!(sidecar.metric("readygate_requests_total", "").await, 0.0);
    assert_eq!(sidecar.metric("readygate_request_duration_seconds_count", "").await, 0.0);
    assert!(!sidecar.said("/warm\\\""), "not in the access log either");
}

#[tokio::test]
async fn access_log_says_what_it_is_asked_for() {
    let _turn = machine::shared();
    for (access, good, bad) in [("off", false, false), ("errors", false, true), ("all", true, true)] {
        let mut origin = Origin::start().await;
        let sidecar = before(origin.address, json!({ "log": { "access": access } })).await;
        sidecar.until_ready().await;
        let mut client = client(&sidecar).await;
        client.say(&GET.replace("/a", "/good?secret=1")).await;
        let (mut app, _) = origin.serve().await;
        client.answer().await;
        client.say(&GET.replace("/a", "/bad?secret=1")).await;
        app.head().await;
        app.say("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n").await;
        client.answer().await;
        // Cut in the middle: an error, whatever its status.
        client.say(&GET.replace("/a", "/cut?secret=1")).await;
        app.head().await;
        app.say("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\ncut").await;
        drop(app);
        client.end().await;
        for (path, wanted) in [("/good", good), ("/bad", bad), ("/cut", bad)] {
            if wanted {
                eventually("the line is there", Duration::from_secs(10), async || sidecar.said(path)).await;
            }
            assert_eq!(sidecar.said(path), wanted, "{access} {path}");
        }
        assert!(!sidecar.said("secret"), "a query is nobody's business");
    }
}
