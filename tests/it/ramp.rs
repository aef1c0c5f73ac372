//! `listeners.*.ramp`: a fresh app gets few requests at first.

use std::time::Duration;

use serde_json::json;

use crate::support::{Sidecar, TestApp, config, eventually, get, machine};

/// The statuses of that many requests at once, each of which takes the app longer than any waits for a place.
async fn at_once(sidecar: &Sidecar, count: usize) -> Vec<u16> {
    let requests = (0..count).map(|_| tokio::spawn(get(sidecar.traffic, "/?delay=1500")));
    let mut statuses = Vec::new();
    for request in requests.collect::<Vec<_>>() {
        statuses.push(request.await.expect("no panic").expect("an answer").status);
    }
    statuses
}

#[tokio::test]
async fn requests_at_a_fresh_app_grow_to_all() {
    let _turn = machine::shared();
    let mut app = TestApp::start(&[]).await;
    let listener = json!({ "limits": { "in_flight": 10 }, "ramp": { "from": "10%", "over": "15s" } });
    let sidecar = Sidecar::start(&config(&app, json!({ "listeners": { "http": listener } }))).await;
    sidecar.until_ready().await;
    for life in 0..2 {
        let first = at_once(&sidecar, 10).await;
        assert!(first.contains(&200), "{first:?}");
        assert!(first.iter().filter(|status| **status == 503).count() >= 4, "life {life}: {first:?}");
        if life == 0 {
            eventually("all ten are served", Duration::from_secs(30), async || {
                at_once(&sidecar, 10).await.iter().all(|status| *status == 200)
            })
            .await;
            app.kill();
            sidecar.until_not_ready().await;
            app.up().await;
            sidecar.until_ready().await;
        }
    }
}
