//! The check `traffic`, on live requests through the real binary.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::{Sidecar, TestApp, config, eventually, get, machine, merge};

/// A sidecar that judges traffic by `keys`, ready.
async fn judged(app: &TestApp, keys: Value) -> Sidecar {
    let checks = json!({ "checks": { "live": { "traffic": keys } } });
    let sidecar = Sidecar::start(&config(app, checks)).await;
    sidecar.until_ready().await;
    sidecar
}

/// About 50 requests a second until dropped.
struct Load(JoinHandle<()>);

impl Load {
    fn of(sidecar: &Sidecar, path: &'static str) -> Self {
        let traffic = sidecar.traffic;
        Self(tokio::spawn(async move {
            let mut turn = tokio::time::interval(Duration::from_millis(20));
            loop {
                turn.tick().await;
                tokio::spawn(async move { drop(get(traffic, path).await) });
            }
        }))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[tokio::test]
async fn app_that_fails_its_users_leaves_and_comes_back_by_probes_and_a_trickle() {
    let _turn = machine::shared();
    let app = TestApp::start(&[]).await;
    let sidecar = judged(&app, json!({ "hold": { "base": "1s" }, "probes": ["GET /probe"] })).await;
    let load = Load::of(&sidecar, "/");
    eventually("a window of good answers", Duration::from_secs(20), async || {
        sidecar.metric("readygate_requests_total", "2xx").await > 300.0
    })
    .await;
    let ill = Instant::now();
    app.control("status=500").await;
    sidecar.until_not_ready().await;
    // One more than the figure, for a shared machine.
    assert!(ill.elapsed() < Duration::from_secs(6), "{:?}", ill.elapsed());
    let why = sidecar.ask("/ready").await.text();
    assert!(why.contains("live: ") && why.contains("answers in 5s are errors"), "{why}");
    eventually("the probe is tried, and fails", Duration::from_secs(20), async || {
        sidecar.ask("/ready").await.text().contains("a probe failed: GET /probe answered 500")
    })
    .await;
    app.control("status=200").await;
    sidecar.until_ready().await;
    // Ten at once at first, more with time; the others wait a second in vain.
    let many = (0..60).map(|_| tokio::spawn(get(sidecar.traffic, "/?delay=1500")));
    let mut refused = 0;
    for answer in many.collect::<Vec<_>>() {
        refused += usize::from(answer.await.expect("no panic").expect("an answer").status == 503);
    }
    assert!((10..=55).contains(&refused), "{refused} of 60: it gets a trickle");
    eventually("the case is closed", Duration::from_secs(30), async || {
        !sidecar.ask("/ready?verbose").await.text().contains("back on trial") && sidecar.ready().await
    })
    .await;
    drop(load);
}

#[tokio::test]
async fn pod_with_30_percent_errors_leaves_within_five_seconds() {
    let _turn = machine::alone();
    let app = TestApp::start(&[]).await;
    let sidecar = judged(&app, json!({})).await;
    let load = Load::of(&sidecar, "/");
    eventually("more than a window of good answers", Duration::from_secs(20), async || {
        sidecar.metric("readygate_requests_total", "2xx").await > 300.0
    })
    .await;
    let ill = Instant::now();
    app.control("fail=30").await;
    sidecar.until_not_ready().await;
    assert!(ill.elapsed() < Duration::from_secs(5), "{:?}", ill.elapsed());
    drop(load);
}

/// What an app does to its users, and with which keys of its listener and of the check that counts.
#[tokio::test]
async fn timeouts_broken_connections_and_slowness_count() {
    let _turn = machine::shared();
    let slow = json!({ "max_latency": { "quantile": 0.9, "latency": "50ms" } });
    for (ill, timeouts, keys, why) in [
        ("hang=1", json!({ "response": "100ms" }), json!({}), "answers in 5s are errors (100%"),
        ("close=1", json!({}), json!({}), "answers in 5s are errors (100%"),
        ("delay=150", json!({}), slow, "p90 "),
    ] {
        let app = TestApp::start(&[]).await;
        let merged = merge(json!({ "min_requests": 10 }), keys);
        let more = json!({
            "listeners": { "http": { "timeouts": timeouts } },
            "checks": { "live": { "traffic": merged } },
        });
        let sidecar = Sidecar::start(&config(&app, more)).await;
        sidecar.until_ready().await;
        app.control(ill).await;
        let load = Load::of(&sidecar, "/");
        sidecar.until_not_ready().await;
        let said = sidecar.ask("/ready").await.text();
        assert!(said.contains("live: ") && said.contains(why), "{ill}: {said}");
        drop(load);
    }
}

#[tokio::test]
async fn statuses_that_do_not_count_keep_the_pod() {
    let _turn = machine::shared();
    let app = TestApp::start(&[]).await;
    // 503 says that a dependency is down.
    let sidecar = judged(&app, json!({ "count": ["500-502", 429], "min_requests": 5 })).await;
    let load = Load::of(&sidecar, "/?status=503");
    eventually("there are plenty", Duration::from_secs(30), async || {
        sidecar.metric("readygate_requests_total", "5xx").await > 300.0
    })
    .await;
    assert_eq!(sidecar.metric("readygate_phase_transitions_total", "to=\"failing\"").await, 0.0);
    drop(load);
    let _load = Load::of(&sidecar, "/?status=429");
    sidecar.until_not_ready().await;
}

#[tokio::test]
async fn client_errors_and_paths_that_are_not_judged_keep_the_pod() {
    let _turn = machine::shared();
    let app = TestApp::start(&[]).await;
    let sidecar = judged(&app, json!({ "ignore_paths": ["/reports/*"], "min_requests": 5 })).await;
    let (bad, missing) = (Load::of(&sidecar, "/reports/x?status=503"), Load::of(&sidecar, "/?status=404"));
    eventually("both are plenty", Duration::from_secs(30), async || {
        sidecar.metric("readygate_requests_total", "5xx").await > 150.0
            && sidecar.metric("readygate_requests_total", "4xx").await > 150.0
    })
    .await;
    assert!(sidecar.ready().await);
    assert_eq!(sidecar.metric("readygate_phase_transitions_total", "to=\"failing\"").await, 0.0);
    drop((bad, missing));
    let _judged = Load::of(&sidecar, "/else?status=503");
    sidecar.until_not_ready().await;
}

#[tokio::test]
async fn app_that_restarts_is_not_blamed_for_its_former_life() {
    let _turn = machine::shared();
    let mut app = TestApp::start(&[]).await;
    let sidecar = judged(&app, json!({ "min_requests": 5, "hold": { "base": "60s" } })).await;
    let load = Load::of(&sidecar, "/");
    app.control("status=500").await;
    sidecar.until_not_ready().await;
    app.kill();
    eventually("it is seen to be gone", Duration::from_secs(10), async || {
        sidecar.ask("/ready").await.text().contains("refuses")
    })
    .await;
    app.up().await;
    // Long before the hold would be over.
    let back = sidecar.until_ready().await;
    assert!(back < Duration::from_secs(20), "{back:?}");
    drop(load);
}
