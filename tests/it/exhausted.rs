//! S14: descriptors run out, and the pod still says whether it is ready.

use std::time::Duration;

use serde_json::json;
use tokio::net::TcpStream;

use crate::support::{Sidecar, TestApp, config, eventually, get, machine};

#[tokio::test]
async fn clients_that_take_every_descriptor_keep_no_probe_from_its_answer() {
    let _turn = machine::alone();
    let app = TestApp::start(&[]).await;
    let mut sidecar = Sidecar::start_with_files(&config(&app, json!({})), 64).await;
    sidecar.until_ready().await;
    assert!(sidecar.said("fewer connections than configured"));
    let mut silent = Vec::new();
    for _ in 0..200 {
        // The kernel takes those that the sidecar does not.
        silent.push(TcpStream::connect(sidecar.traffic).await.expect("the accept queue has room"));
    }
    eventually("every place is taken", Duration::from_secs(10), async || {
        sidecar.metric("readygate_connections", "").await >= 12.0
    })
    .await;
    for _ in 0..200 {
        let answer = tokio::time::timeout(Duration::from_secs(1), sidecar.ask("/ready")).await;
        assert_eq!(answer.expect("an answer within the kubelet's second").status, 200);
    }
    drop(silent);
    assert_eq!(get(sidecar.traffic, "/").await.expect("an answer").status, 200);
    assert!(sidecar.runs());
}
