//! S1: rolling restarts behind a balancer that hears of everything a second late lose no request.
//!
//! The house stands in for Kubernetes: readiness is polled and reaches the clients one second later, and so
//! does a deletion. A replica is told to leave by SIGTERM to its sidecar, with no preStop hook anywhere; its
//! app goes when the sidecar has.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::{Client, Failure, Sidecar, TestApp, config, eventually, get, machine};

const PROPAGATION: Duration = Duration::from_secs(1);
const REPLICAS: usize = 3;
const ROUNDS: usize = 2;
const CLIENTS: usize = 12;

/// Where clients connect to: what they know, not what is true.
#[derive(Clone, Debug, Default)]
struct Balancer(Arc<Mutex<Vec<SocketAddr>>>);

impl Balancer {
    fn set(&self, endpoint: SocketAddr, there: bool) {
        let mut endpoints = self.0.lock().expect("no panic under it");
        endpoints.retain(|known| *known != endpoint);
        if there {
            endpoints.push(endpoint);
        }
    }

    fn has(&self, endpoint: SocketAddr) -> bool {
        self.0.lock().expect("no panic under it").contains(&endpoint)
    }

    fn pick(&self, turn: usize) -> SocketAddr {
        let endpoints = self.0.lock().expect("no panic under it");
        assert!(!endpoints.is_empty(), "the Service has no endpoint");
        endpoints[turn % endpoints.len()]
    }

    /// Tells the clients, a second after the fact, what the endpoint's readiness is, until it is deleted.
    async fn follow(self, pod: Arc<PodView>) {
        let mut told = false;
        loop {
            let deleted = pod.deleted.load(Ordering::Relaxed);
            let ready = !deleted && get(pod.admin, "/ready").await.is_ok_and(|answer| answer.status == 200);
            if ready != told {
                told = ready;
                let (balancer, traffic) = (self.clone(), pod.traffic);
                tokio::spawn(async move {
                    sleep(PROPAGATION).await;
                    balancer.set(traffic, ready);
                });
            }
            if deleted {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}

#[derive(Debug)]
struct PodView {
    traffic: SocketAddr,
    admin: SocketAddr,
    deleted: AtomicBool,
}

struct Pod {
    app: TestApp,
    sidecar: Sidecar,
    view: Arc<PodView>,
}

impl Pod {
    /// A new replica that the clients know of.
    async fn start(balancer: &Balancer) -> Self {
        let app = TestApp::start(&[]).await;
        let sidecar = Sidecar::start(&config(
            &app,
            json!({
                // Longer than a deletion takes to reach the clients.
                "drain": { "min": "1500ms", "quiet": "300ms", "deadline": "10s" },
                "checks": { "warm": { "interval_failing": "100ms", "timeout": "100ms", "warmup": {
                    "listener": "http", "requests": ["GET /"], "min_requests": 20, "budget": "10s",
                } } },
            }),
        ))
        .await;
        let (traffic, admin) = (sidecar.traffic, sidecar.admin);
        let view = Arc::new(PodView { traffic, admin, deleted: AtomicBool::new(false) });
        tokio::spawn(balancer.clone().follow(Arc::clone(&view)));
        eventually("the clients know the new replica", Duration::from_secs(30), async || {
            balancer.has(view.traffic)
        })
        .await;
        Self { app, sidecar, view }
    }

    async fn leave(mut self) {
        self.view.deleted.store(true, Ordering::Relaxed);
        let began = self.sidecar.signal("TERM");
        let status = self.sidecar.ended(Duration::from_secs(12)).await;
        assert_eq!(status.code(), Some(0));
        assert!(began.elapsed() >= Duration::from_millis(1500), "it served for drain.min");
        drop(self.app);
    }
}

#[tokio::test]
async fn rolling_restarts_lose_no_request() {
    let _turn = machine::alone();
    let balancer = Balancer::default();
    let mut pods = Vec::new();
    for _ in 0..REPLICAS {
        pods.push(Pod::start(&balancer).await);
    }
    let (served, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let (balancer, served, over) = (balancer.clone(), Arc::clone(&served), Arc::clone(&over));
        clients.spawn(async move {
            let mut failures = Vec::new();
            let mut kept = None;
            let mut turn = number;
            while !over.load(Ordering::Relaxed) {
                turn += 1;
                let fresh = number % 2 == 0;
                let result = request(&mut kept, fresh, || balancer.pick(turn)).await;
                match result {
                    Ok(()) => served.fetch_add(1, Ordering::Relaxed),
                    Err(failure) => {
                        failures.push(failure);
                        0
                    }
                };
                sleep(Duration::from_millis(15)).await;
            }
            failures
        });
    }
    let mut leaving = JoinSet::new();
    for _ in 0..ROUNDS {
        for _ in 0..REPLICAS {
            pods.push(Pod::start(&balancer).await);
            leaving.spawn(pods.remove(0).leave());
        }
    }
    while let Some(left) = leaving.join_next().await {
        left.expect("each replica left in order");
    }
    eventually("enough requests", Duration::from_secs(60), async || served.load(Ordering::Relaxed) >= 4000)
        .await;
    over.store(true, Ordering::Relaxed);
    let mut failures = Vec::new();
    while let Some(more) = clients.join_next().await {
        failures.extend(more.expect("a client does not panic"));
    }
    assert!(failures.is_empty(), "{} of {served:?} failed: {failures:?}", failures.len());
}

/// One request; on the connection kept from the last one, if that is still good.
async fn request(
    kept: &mut Option<Client>,
    fresh: bool,
    pick: impl Fn() -> SocketAddr,
) -> Result<(), String> {
    let mut client = match kept.take().filter(Client::is_open) {
        Some(client) => client,
        None => {
            let endpoint = pick();
            Client::connect(endpoint).await.map_err(|failure| format!("connect {endpoint}: {failure:?}"))?
        }
    };
    match client.get("/?delay=5").await {
        Ok(answer) if answer.status == 200 => {
            *kept = (!fresh && !answer.closes()).then_some(client);
            Ok(())
        }
        Ok(answer) => Err(format!("{}: {}", answer.status, answer.text())),
        Err(failure @ (Failure::Closed | Failure::Reset)) => Err(format!("after it was sent: {failure:?}")),
        Err(failure) => Err(format!("{failure:?}")),
    }
}
