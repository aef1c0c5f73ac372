//! The app restarts under traffic: who waits, who fails, and that nothing is delivered twice (S9).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::support::{Client, Failure, Scratch, Sidecar, TestApp, config, get, machine};

/// S9. `hold.for` is as good as nothing: nobody waits for the app.
#[tokio::test]
async fn killed_app_without_hold_gives_quick_errors_and_quick_recovery() {
    let _turn = machine::alone();
    let mut app = TestApp::start(&[]).await;
    let more = json!({ "listeners": { "http": { "hold": { "for": "5ms" }, "not_ready": "reject" } } });
    let sidecar = Sidecar::start(&config(&app, more)).await;
    sidecar.until_ready().await;
    let over = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let (over, traffic) = (Arc::clone(&over), sidecar.traffic);
        clients.spawn(async move {
            let mut kept = None::<Client>;
            let mut seen = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let mut client = match kept.take().filter(Client::is_open) {
                    Some(client) => client,
                    None => Client::connect(traffic).await.expect("the port accepts"),
                };
                let began = Instant::now();
                let answer = client.get("/").await.expect("an answer, whatever happens to the app");
                seen.push((began, began.elapsed(), answer.status));
                kept = (!answer.closes()).then_some(client);
                sleep(Duration::from_millis(5)).await;
            }
            seen
        });
    }
    sleep(Duration::from_millis(500)).await;
    app.kill();
    sleep(Duration::from_millis(500)).await;
    app.up().await;
    sidecar.until_ready().await;
    let back = Instant::now();
    sleep(Duration::from_millis(500)).await;
    over.store(true, Ordering::Relaxed);
    let seen: Vec<_> = clients.join_all().await.into_iter().flatten().collect();

    let errors: Vec<_> = seen.iter().filter(|(_, _, status)| *status != 200).collect();
    assert!(errors.len() > 50, "{} errors of {}: the app was down", errors.len(), seen.len());
    for (_, took, status) in errors {
        assert!(matches!(status, 502 | 503), "{status}");
        assert!(*took <= Duration::from_millis(50), "{status} took {took:?}");
    }
    let first = seen.iter().filter(|(at, _, status)| *at >= back && *status == 200).map(|(at, ..)| *at).min();
    let first = first.expect("it serves again") - back;
    assert!(first <= Duration::from_millis(100), "{first:?}");
    let late =
        seen.iter().filter(|(at, _, status)| *at > back + Duration::from_millis(100) && *status != 200);
    assert_eq!(late.count(), 0, "no error once it is back");
}

#[tokio::test]
async fn requests_sent_while_the_app_restarts_wait_for_it() {
    let _turn = machine::shared();
    for policy in ["forward", "hold"] {
        let mut app = TestApp::start(&[]).await;
        let more = json!({ "listeners": { "http": { "hold": { "for": "20s" }, "not_ready": policy } } });
        let sidecar = Sidecar::start(&config(&app, more)).await;
        sidecar.until_ready().await;
        // A pooled connection that the kill will close.
        assert_eq!(get(sidecar.traffic, "/").await.expect("an answer").status, 200);
        app.kill();
        let mut requests = JoinSet::new();
        for _ in 0..20 {
            let traffic = sidecar.traffic;
            requests.spawn(async move { get(traffic, "/").await });
        }
        sleep(Duration::from_millis(700)).await;
        assert!(requests.try_join_next().is_none(), "an answer while the app is down");
        app.up().await;
        for answer in requests.join_all().await {
            let answer = answer.expect("an answer");
            assert_eq!(answer.status, 200, "{policy}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn request_that_waited_too_long_for_the_app_gets_503() {
    let _turn = machine::shared();
    let mut app = TestApp::start(&[]).await;
    let more = json!({ "listeners": { "http": { "hold": { "for": "500ms" } } } });
    let sidecar = Sidecar::start(&config(&app, more)).await;
    sidecar.until_ready().await;
    app.kill();
    let began = Instant::now();
    let answer = get(sidecar.traffic, "/").await.expect("an answer");
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.header("x-readygate-error").is_some(), "{answer:?}");
    assert!(began.elapsed() >= Duration::from_millis(450), "{:?}", began.elapsed());
    assert!(began.elapsed() <= Duration::from_secs(3), "{:?}", began.elapsed());
}

/// Kills the app at random moments, 500 times, while POSTs flow on kept connections. Every delivery is in
/// the app's journal, which survives it.
#[tokio::test]
async fn post_is_never_delivered_twice_over_500_kills() {
    const KILLS: u64 = 500;
    let _turn = machine::alone();
    let scratch = Scratch::new();
    let journal = scratch.join("deliveries");
    let mut app = TestApp::start(&["--journal", journal.to_str().expect("a path of ours")]).await;
    let more = json!({ "listeners": { "http": { "hold": { "for": "10s" } } } });
    let mut sidecar = Sidecar::start(&config(&app, more)).await;
    sidecar.until_ready().await;
    let over = Arc::new(AtomicBool::new(false));
    let next = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for client in 0..6_u64 {
        let (over, next, traffic) = (Arc::clone(&over), Arc::clone(&next), sidecar.traffic);
        clients.spawn(async move {
            let (mut kept, mut confirmed, mut failed) = (None::<Client>, Vec::new(), 0_u64);
            while !over.load(Ordering::Relaxed) {
                let mut connection = match kept.take().filter(Client::is_open) {
                    Some(client) => client,
                    None => Client::connect(traffic).await.expect("the port accepts"),
                };
                let id = next.fetch_add(1, Ordering::Relaxed);
                // Some are answered at once, some are in flight for a while.
                let path = format!("/orders?delay={}", (id * 7 + client) % 12);
                let header = [("x-id", &*id.to_string())];
                let result = async {
                    connection.send("POST", &path, &header, b"{\"order\":1}").await?;
                    connection.answer().await
                };
                match timeout(Duration::from_secs(30), result).await.unwrap_or(Err(Failure::Timeout)) {
                    Ok(answer) => {
                        if answer.status == 200 {
                            confirmed.push(id);
                        } else {
                            assert!(matches!(answer.status, 502..=504), "{}", answer.status);
                            failed += 1;
                        }
                        kept = (!answer.closes()).then_some(connection);
                    }
                    Err(failure) => {
                        panic!("the sidecar always answers: {failure:?}");
                    }
                }
            }
            (confirmed, failed)
        });
    }
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..KILLS {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        sleep(Duration::from_millis(10 + random % 60)).await;
        app.kill();
        app.spawn();
    }
    over.store(true, Ordering::Relaxed);
    let results = clients.join_all().await;
    assert!(sidecar.runs());

    let mut deliveries: HashMap<u64, u32> = HashMap::new();
    let text = std::fs::read_to_string(&journal).expect("the journal is there");
    for id in text.lines() {
        *deliveries.entry(id.parse().expect("whole lines")).or_default() += 1;
    }
    let twice: Vec<_> = deliveries.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "delivered more than once: {twice:?}");
    let confirmed: Vec<u64> = results.iter().flat_map(|(confirmed, _)| confirmed).copied().collect();
    assert!(confirmed.iter().all(|id| deliveries.contains_key(id)), "no 200 without a delivery");
    let failed: u64 = results.iter().map(|(_, failed)| failed).sum();
    let sent = next.load(Ordering::Relaxed);
    assert!(confirmed.len() > 1000, "{} of {sent} confirmed: too few to show anything", confirmed.len());
    assert!(failed > 50, "{failed} of {sent} failed: the kills hit nothing");
}
