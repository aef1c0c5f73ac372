//! Pods that share a dependency ask each other before they leave: real sidecars, a real server that dies.

use std::cell::Cell;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::support::servers::{Server, free_port, program};
use crate::support::{Scratch, Sidecar, TestApp, config, eventually, get};

/// Sidecars in front of one app, with admin ports that are known before they start.
struct Service {
    app: TestApp,
    peers: Vec<String>,
    pods: Vec<Sidecar>,
    min_ready: Value,
}

impl Service {
    /// Room for that many pods; none runs yet.
    async fn new(room: usize, min_ready: Value) -> Self {
        let port = free_port();
        let peers = (1..=room).map(|pod| format!("127.0.77.{pod}:{port}")).collect();
        Self { app: TestApp::start(&[]).await, peers, pods: Vec::new(), min_ready }
    }

    /// Starts one more, which finds the dependency at that port.
    async fn start(&mut self, dependency: u16) {
        let more = json!({
            "admin": { "listen": self.peers[self.pods.len()] },
            "workers": 1,
            "checks": { "db": {
                "redis": { "address": format!("127.0.0.1:{dependency}") },
                "gates": "always",
                "interval": "200ms",
                "interval_failing": "100ms",
                "failure_threshold": 2,
                "guard": { "peers": self.peers, "min_ready": self.min_ready },
            } },
        });
        let pod = Sidecar::start(&config(&self.app, more)).await;
        self.pods.push(pod);
    }

    async fn ready(&self) -> usize {
        let mut ready = 0;
        for pod in &self.pods {
            ready += usize::from(pod.ready().await);
        }
        ready
    }

    /// Waits for that many ready ones. Pods either only leave or only come back meanwhile, so the least that was
    /// counted is no less than the least that there were.
    async fn until(&self, ready: usize, least: &Cell<usize>) {
        let what = format!("{ready} pods are ready");
        eventually(&what, Duration::from_secs(30), async || {
            let now = self.ready().await;
            least.set(least.get().min(now));
            now == ready
        })
        .await;
    }

    async fn status(&self, pod: usize) -> Value {
        serde_json::from_slice(&self.pods[pod].ask("/status").await.body).expect("JSON")
    }

    async fn guarded(&self) -> Vec<usize> {
        let mut guarded = Vec::new();
        for pod in 0..self.pods.len() {
            if self.status(pod).await["guarded"] == true {
                guarded.push(pod);
            }
        }
        guarded
    }
}

/// A server on this port; None if there is none here.
fn redis(port: u16) -> Option<Server> {
    let (scratch, mut command) = (Scratch::new(), Command::new(program("redis-server")?));
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--dir"]);
    command.arg(scratch.join("."));
    let log = scratch.join("log");
    Some(Server::start(command, port, log, scratch))
}

#[tokio::test]
async fn shared_dependency_that_dies_never_empties_the_service() {
    let port = free_port();
    let Some(server) = redis(port) else { return };
    let mut server = Some(server);
    // Six of seven run; the seventh counts as one that is not ready. Half of seven is four.
    let mut service = Service::new(7, json!("50%")).await;
    for _ in 0..6 {
        service.start(port).await;
    }
    let least = Cell::new(6);
    service.until(6, &Cell::new(6)).await;
    for death in 0..3 {
        drop(server.take());
        service.until(4, &least).await;
        let what = "four pods are guarded";
        eventually(what, Duration::from_secs(10), async || service.guarded().await.len() == 4).await;
        if death == 0 {
            service.start(port).await;
        }
        // Time for many looks more.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((service.ready().await, least.get()), (4, 4));
        let fresh = service.status(6).await["phase"] == "starting";
        assert_eq!(fresh, death == 0, "a fresh pod waits for the dependency");
        server = redis(port);
        service.until(7, &least).await;
        eventually("nobody is guarded", Duration::from_secs(10), async || service.guarded().await.is_empty())
            .await;
    }
    assert_eq!(least.get(), 4);
}

#[tokio::test]
async fn guarded_pod_says_so_everywhere() {
    let Some(server) = redis(free_port()) else { return };
    let mut service = Service::new(2, json!("100%")).await;
    for _ in 0..2 {
        service.start(server.port).await;
    }
    service.until(2, &Cell::new(2)).await;
    let pod = &service.pods[0];
    assert_eq!(pod.metric("readygate_check_guarded", "check=\"db\"").await, 0.0);
    let port = server.port;
    drop(server);
    eventually("both are guarded", Duration::from_secs(20), async || service.guarded().await == [0, 1]).await;
    assert!(service.ready().await == 2);
    let said = pod.ask("/ready?verbose").await.text();
    let line =
        said.lines().find(|line| line.starts_with("[+]db guarded: ")).unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains("refused") && line.contains("at least 2 of 2 pods wanted"), "{line}");
    let status = service.status(0).await;
    let checks = status["checks"].as_array().expect("a list");
    let guard = &checks.iter().find(|check| check["name"] == "db").expect("the check")["guard"];
    assert_eq!((&guard["state"], &guard["look"]["pods"]), (&"guarded".into(), &2.into()), "{guard}");
    assert_eq!(pod.metric("readygate_check_guarded", "check=\"db\"").await, 1.0);
    assert_eq!(pod.metric("readygate_check_passing", "check=\"db\"").await, 0.0);
    assert!(pod.metric("readygate_guard_decisions_total", "result=\"stay\"").await >= 1.0);
    assert_eq!(pod.metric("readygate_guard_decisions_total", "result=\"leave").await, 0.0);
    assert!(pod.said("check fails and is guarded"));
    let Some(_server) = redis(port) else { return };
    eventually("nobody is", Duration::from_secs(20), async || service.guarded().await.is_empty()).await;
    eventually("the log says so", Duration::from_secs(5), async || pod.said("check is no longer guarded"))
        .await;
    assert_eq!(pod.metric("readygate_check_guarded", "check=\"db\"").await, 0.0);
}

#[tokio::test]
async fn pod_whose_own_path_breaks_alone_leaves() {
    let Some(server) = redis(free_port()) else { return };
    let mut service = Service::new(3, json!(2)).await;
    // Its path is a relay that the test can break.
    let relay = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let (path, port) = (relay.local_addr().expect("bound").port(), server.port);
    let relay = tokio::spawn(async move {
        while let Ok((mut near, _)) = relay.accept().await {
            tokio::spawn(async move {
                if let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)).await {
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    });
    for dependency in [port, port, path] {
        service.start(dependency).await;
    }
    service.until(3, &Cell::new(3)).await;
    relay.abort();
    let took = service.pods[2].until_not_ready().await;
    let body = service.pods[2].ask("/ready").await.text();
    assert!(body.contains("db: ") && body.contains("refused"), "{body}");
    assert_eq!((service.ready().await, service.guarded().await), (2, vec![]), "after {took:?}");
    assert_eq!(service.pods[2].metric("readygate_guard_decisions_total", "result=\"leave\"").await, 1.0);
    let last = service.status(2).await["transitions"].as_array().and_then(|all| all.last().cloned());
    let detail = last.expect("a transition")["detail"].to_string();
    assert!(detail.contains("2 peers remain ready, at least 2 of 3 pods wanted"), "{detail}");
}

#[tokio::test]
async fn pods_whose_users_all_get_errors_stay_in_the_service() {
    let mut service = Service::new(2, json!("100%")).await;
    for pod in 0..2 {
        let live = json!({
            "traffic": { "window": "2s", "min_requests": 20 },
            "interval": "100ms",
            "guard": { "peers": service.peers, "min_ready": "100%" },
        });
        let more = json!({ "admin": { "listen": service.peers[pod] }, "checks": { "live": live } });
        service.pods.push(Sidecar::start(&config(&service.app, more)).await);
    }
    service.until(2, &Cell::new(2)).await;
    service.app.control("status=500").await;
    eventually("both are guarded", Duration::from_secs(20), async || {
        for pod in &service.pods {
            assert_eq!(get(pod.traffic, "/").await.expect("an answer").status, 500);
        }
        assert_eq!(service.ready().await, 2);
        service.guarded().await == [0, 1]
    })
    .await;
    let said = service.pods[1].ask("/ready/live").await;
    assert!(said.status == 200 && said.text().starts_with("[+]live guarded: "), "{}", said.text());
}
