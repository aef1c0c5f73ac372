//! A change of the configuration file applies without dropping a connection; a bad one changes nothing.

use std::time::Duration;

use serde_json::json;

use crate::support::{Client, Sidecar, TestApp, config, eventually, machine, merge};

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
