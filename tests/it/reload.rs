//! A change of the configuration file applies without dropping a connection; a bad one changes nothing.

use std::time::Duration;

use serde_json::json;

use crate::support::{Client, Scratch, Sidecar, TestApp, config, eventually, machine, merge};

#[tokio::test]
async fn valid_change_applies_and_an_invalid_one_is_refused() {
    let _turn = machine::shared();
    let app = TestApp::start(&[]).await;
    let first = config(&app, json!({}));
    let sidecar = Sidecar::start(&first).await;
    sidecar.until_ready().await;
    let mut kept = Client::connect(sidecar.traffic).await.expect("the port accepts");
    assert_eq!(kept.get("/").await.expect("an answer").status, 200);

    let missing = json!({ "file": { "path": "/nonexistent" }, "gates": "always", "failure_threshold": 1 });
    let second = merge(first.clone(), json!({ "checks": { "late": missing } }));
    sidecar.reconfigure(&second);
    sidecar.until_not_ready().await;
    assert!(sidecar.ask("/ready").await.text().contains("late: "));
    assert_eq!(kept.get("/").await.expect("the same connection").status, 200);

    let refused = sidecar.metric("readygate_config_reloads_total", "").await;
    sidecar.reconfigure(&merge(first.clone(), json!({ "drain": { "quiet": "never" } })));
    eventually("the invalid file is counted", Duration::from_secs(20), async || {
        sidecar.metric("readygate_config_reloads_total", "").await > refused
    })
    .await;
    assert!(sidecar.said("drain.quiet"), "and logged");
    assert!(!sidecar.ready().await, "the configuration before it stays");
    sidecar.reconfigure(&first);
    sidecar.until_ready().await;
    assert_eq!(kept.get("/").await.expect("the same connection").status, 200);
}

#[tokio::test]
async fn swapped_config_map_changes_checks_thresholds_limits_and_log_and_keeps_connections() {
    let _turn = machine::shared();
    let mut app = TestApp::start(&[]).await;
    let scratch = Scratch::new();
    let marker = scratch.join("marker");
    std::fs::write(&marker, "here").expect("the directory is writable");
    let file = |failures: u32| {
        json!({ "file": { "path": &marker }, "gates": "always", "interval": "50ms", "interval_failing": "50ms",
                "failure_threshold": failures })
    };
    let before = json!({
        "listeners": { "http": { "hold": { "for": "1h" } } },
        "checks": { "marker": file(1_000_000), "goes": { "tcp": { "address": app.address.to_string() } } },
    });
    let before = config(&app, before);
    let sidecar = Sidecar::start(&before).await;
    sidecar.until_ready().await;
    std::fs::remove_file(&marker).expect("a file of ours");
    let mut kept = Client::connect(sidecar.traffic).await.expect("the port accepts");
    assert_eq!(kept.get("/").await.expect("an answer").status, 200);
    let many: Vec<(String, &str)> = (0..30).map(|number| (format!("x-{number}"), "1")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let with_many_headers = async || {
        let mut client = Client::connect(sidecar.traffic).await.expect("the port accepts");
        client.send("GET", "/", &many, b"").await.expect("the port reads");
        client.answer().await.expect("an answer").status
    };
    assert_eq!(with_many_headers().await, 200);
    assert!(sidecar.ready().await, "a million failures are far away");
    assert!(!sidecar.said("check ran"), "a line of level debug");

    let mut after = merge(
        before,
        json!({
            "listeners": { "http": { "hold": { "for": "off" }, "limits": { "headers": 20 } } },
            "checks": { "marker": file(1), "comes": { "tcp": { "address": app.address.to_string() } } },
            "log": { "level": "debug" },
        }),
    );
    after["checks"].as_object_mut().expect("a map").remove("goes");
    sidecar.remount(&after);
    sidecar.until_not_ready().await;
    let verbose = sidecar.ask("/ready?verbose").await.text();
    assert!(verbose.contains("comes") && !verbose.contains("goes"), "{verbose}");
    eventually("debug lines", Duration::from_secs(20), async || sidecar.said("check ran")).await;
    assert_eq!(kept.get("/").await.expect("the same connection").status, 200);
    assert_eq!(with_many_headers().await, 431);
    std::fs::write(&marker, "here").expect("the directory is writable");
    sidecar.until_ready().await;

    app.kill();
    let refused = kept.get("/").await.expect("no wait of an hour");
    assert_eq!(refused.status, 503);
    assert_eq!(sidecar.metric("readygate_config_reloads_total", "ok").await, 1.0);
}

#[tokio::test]
async fn missing_secret_that_appears_is_taken_in() {
    let _turn = machine::shared();
    let app = TestApp::start(&[]).await;
    let scratch = Scratch::new();
    let secret = scratch.join("path");
    let first = config(&app, json!({}));
    let sidecar = Sidecar::start(&first).await;
    sidecar.until_ready().await;
    let late = json!({ "file": { "path": format!("${{file:{}}}", secret.display()) }, "gates": "always",
                       "failure_threshold": 1 });
    sidecar.remount(&merge(first, json!({ "checks": { "late": late } })));
    eventually("it is refused", Duration::from_secs(20), async || {
        sidecar.metric("readygate_config_reloads_total", "rejected").await == 1.0
    })
    .await;
    assert!(sidecar.ready().await, "the configuration before it stays");

    std::fs::write(&secret, "/nonexistent").expect("the directory is writable");
    sidecar.until_not_ready().await;
    assert!(sidecar.ask("/ready").await.text().contains("late: "));
}
