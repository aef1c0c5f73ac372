//! `/ready` is true: when checks fail, when the app hangs, answers nonsense, dies or is not there yet
//! (S6, S8, S10), and it says so quickly whatever else goes on.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::{Client, Sidecar, TestApp, config, eventually, get, machine};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// S6, first half.
#[tokio::test]
async fn failing_check_closes_the_gate_within_its_threshold_and_opens_it_again() {
    let _turn = machine::alone();
    let app = TestApp::start(&[]).await;
    let health = json!({
        "http": { "url": format!("http://{}/healthz", app.address) },
        "interval": "300ms", "interval_failing": "300ms", "timeout": "200ms", "failure_threshold": 3,
    });
    let sidecar = Sidecar::start(&config(&app, json!({ "checks": { "health": health } }))).await;
    sidecar.until_ready().await;
    for _ in 0..3 {
        app.control("status=500").await;
        let took = sidecar.until_not_ready().await;
        // interval × threshold, with the jitter's tenth, + 100 ms.
        assert!(took <= millis(990 + 100), "{took:?}");
        assert!(took >= millis(500), "three failures in a row have two intervals between them: {took:?}");
        let reasons = sidecar.ask("/ready").await.text();
        assert!(reasons.contains("health") && reasons.contains("500"), "{reasons}");
        app.control("status=200").await;
        let took = sidecar.until_ready().await;
        assert!(took <= millis(330 + 100), "{took:?}");
    }
}

/// S6, second half: no traffic, so only the watch can see it.
#[tokio::test]
async fn killed_app_is_noticed_within_a_second_without_traffic() {
    let _turn = machine::alone();
    let mut app = TestApp::start(&[]).await;
    let sidecar = Sidecar::start(&config(&app, json!({}))).await;
    for _ in 0..3 {
        sidecar.until_ready().await;
        // Not in step with the watch.
        sleep(millis(137)).await;
        let began = app.kill();
        sidecar.until_not_ready().await;
        assert!(began.elapsed() <= secs(1), "{:?}", began.elapsed());
        app.up().await;
    }
}

#[tokio::test]
async fn killed_app_is_noticed_at_once_under_traffic_and_must_warm_up_again() {
    let _turn = machine::alone();
    let mut app = TestApp::start(&["--cold", "40", "--cold-delay", "30"]).await;
    let warm = json!({
        "interval_failing": "100ms", "timeout": "100ms",
        "warmup": {
            "listener": "http", "requests": ["GET /warm"], "concurrency": 2, "min_requests": 30,
            "target": { "quantile": 0.9, "latency": "20ms" }, "budget": "20s",
        },
    });
    let sidecar = Sidecar::start(&config(&app, json!({ "checks": { "warm": warm } }))).await;
    sidecar.until_ready().await;
    let warmed = sidecar.metric("readygate_warmup_requests_total", "").await;
    assert!(warmed >= 30.0, "{warmed} warm-up requests");

    let load = Load::start(&sidecar, 4);
    load.until_served(200).await;
    let began = app.kill();
    sidecar.until_not_ready().await;
    let took = began.elapsed();
    assert!(took <= millis(100), "{took:?}");
    app.up().await;
    let back = Instant::now();
    sidecar.until_ready().await;
    // 40 cold requests of 30 ms, two (and the four of the load) at a time.
    assert!(back.elapsed() >= millis(150), "ready {:?} after it came back cold", back.elapsed());
    let again = sidecar.metric("readygate_warmup_requests_total", "").await;
    assert!(again >= warmed + 30.0, "{again} warm-up requests after {warmed}: it did not warm up again");
    assert_eq!(sidecar.metric("readygate_app_restarts_total", "").await, 1.0);
    load.end().await;
}

/// S8.
#[tokio::test]
async fn app_that_accepts_and_never_answers_is_out_within_timeout_and_interval() {
    let _turn = machine::alone();
    let app = TestApp::start(&[]).await;
    let health = json!({
        "http": { "url": format!("http://{}/healthz", app.address) },
        "interval": "500ms", "interval_failing": "500ms", "timeout": "400ms", "failure_threshold": 1,
    });
    let sidecar = Sidecar::start(&config(&app, json!({ "checks": { "health": health } }))).await;
    sidecar.until_ready().await;
    app.control("hang=1").await;
    let took = sidecar.until_not_ready().await;
    assert!(took <= millis(400 + 550 + 50), "{took:?}");
    for _ in 0..50 {
        let began = Instant::now();
        assert!(!sidecar.ready().await);
        assert!(began.elapsed() < millis(50), "{:?}", began.elapsed());
        sleep(millis(20)).await;
    }
}

/// S10.
#[tokio::test]
async fn sidecar_that_starts_before_everything_else_waits_and_says_for_what() {
    let _turn = machine::shared();
    let mut app = TestApp::down(&[]);
    let more = json!({ "checks": {
        "db": { "tcp": { "address": "db.invalid:5432" }, "gates": "startup" },
        "settings": { "file": { "path": "/nonexistent/settings.yaml" } },
    } });
    let mut sidecar = Sidecar::start(&config(&app, more)).await;
    for path in ["/startup", "/live"] {
        assert_eq!(sidecar.ask(path).await.status, 200, "{path} does not depend on the app");
    }
    let said = ["app refuses", "db: ", "settings: "];
    let mut reasons = String::new();
    eventually("every reason is told", secs(20), async || {
        let answer = sidecar.ask("/ready").await;
        assert_eq!(answer.status, 503);
        reasons = answer.text();
        said.iter().all(|part| reasons.contains(part)) && !reasons.contains("has not run yet")
    })
    .await;
    assert!(reasons.contains("/nonexistent/settings.yaml"), "{reasons}");
    app.up().await;
    eventually("the app is no longer a reason", secs(20), async || {
        let answer = sidecar.ask("/ready").await;
        assert_eq!(answer.status, 503, "the others still are");
        !answer.text().contains("refuses")
    })
    .await;
    assert!(sidecar.runs());
}

#[tokio::test]
async fn sidecar_that_starts_before_its_app_gets_ready_with_it() {
    let _turn = machine::shared();
    let mut app = TestApp::down(&["--bind-after", "300"]);
    let sidecar = Sidecar::start(&config(&app, json!({}))).await;
    assert!(!sidecar.ready().await);
    app.spawn();
    let took = sidecar.until_ready().await;
    assert!(took >= millis(250), "{took:?}");
    assert_eq!(sidecar.metric("readygate_app_restarts_total", "").await, 0.0, "a first start is none");
}

fn hopeless(policy: &str) -> serde_json::Value {
    json!({ "checks": { "warm": { "interval_failing": "100ms", "timeout": "100ms", "warmup": {
        "listener": "http", "requests": ["GET /"], "min_requests": 10, "budget": "1s",
        "on_budget_exhausted": policy,
    } } } })
}

#[tokio::test]
async fn app_that_answers_only_500_never_becomes_ready() {
    let _turn = machine::shared();
    let app = TestApp::start(&["--status", "500"]).await;
    let sidecar = Sidecar::start(&config(&app, hopeless("fail"))).await;
    let began = Instant::now();
    while began.elapsed() < secs(4) {
        assert!(!sidecar.ready().await);
        sleep(millis(20)).await;
    }
    assert!(sidecar.metric("readygate_warmup_requests_total", "").await >= 10.0);
    let reasons = sidecar.ask("/ready").await.text();
    assert!(reasons.contains("warm"), "{reasons}");
    assert!(sidecar.metric("readygate_check_runs_total", "result=\"fail\"").await >= 2.0, "it tries again");
}

#[tokio::test]
async fn app_that_answers_only_500_becomes_ready_after_the_budget_if_told_so() {
    let _turn = machine::shared();
    let app = TestApp::start(&["--status", "500"]).await;
    let began = Instant::now();
    let sidecar = Sidecar::start(&config(&app, hopeless("pass"))).await;
    sidecar.until_ready().await;
    assert!(began.elapsed() >= secs(1), "{:?}", began.elapsed());
    assert_eq!(sidecar.metric("readygate_check_runs_total", "result=\"exhausted\"").await, 1.0, "counted");
    assert!(sidecar.said("budget"), "logged");
}

/// The verdict is two loads on a thread of its own: 20 ms, always.
#[tokio::test]
async fn ready_answers_at_once_while_the_app_is_stopped() {
    let _turn = machine::alone();
    let app = TestApp::start(&[]).await;
    let sidecar = Sidecar::start(&config(&app, json!({}))).await;
    sidecar.until_ready().await;
    app.signal("STOP");
    let times = probe(&sidecar, 300).await;
    app.signal("CONT");
    assert!(times.iter().max() <= Some(&millis(20)), "{:?}", worst(times));
}

#[tokio::test]
async fn ready_answers_at_once_while_the_data_plane_is_saturated() {
    let _turn = machine::alone();
    let app = TestApp::start(&[]).await;
    let sidecar = Sidecar::start(&config(&app, json!({}))).await;
    sidecar.until_ready().await;
    let load = Load::start(&sidecar, 64);
    load.until_served(500).await;
    let admin = sidecar.admin;
    // The probes come from a thread of their own, as the kubelet is a process of its own: what is measured is
    // the sidecar, not this test's own queue.
    let times = tokio::task::spawn_blocking(move || blocking_probes(admin, 500)).await.expect("no panic");
    load.end().await;
    assert!(times.iter().max() <= Some(&millis(20)), "{:?}", worst(times));
}

/// A worker that is blocked gives no sign of life, and a port that accepts proves nothing: strace holds back
/// each `epoll_wait` of the worker threads for longer than `admin.stale_after`, and of no other thread.
#[tokio::test]
async fn ready_says_no_while_the_workers_are_blocked() {
    let _turn = machine::alone();
    let app = TestApp::start(&[]).await;
    let more = json!({ "admin": { "stale_after": "1s" } });
    let sidecar = Sidecar::start(&config(&app, more)).await;
    sidecar.until_ready().await;
    let workers = workers(sidecar.pid());
    assert_eq!(workers.len(), 2, "`workers: 2`, found by the names of their threads");
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-e", "trace=epoll_wait,epoll_pwait,epoll_pwait2"]);
    strace.args(["-e", "inject=epoll_wait,epoll_pwait,epoll_pwait2:delay_enter=20000000"]);
    strace.args(workers.iter().flat_map(|tid| ["-p".to_owned(), tid.clone()]));
    let strace = strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut strace = match strace {
        Ok(strace) => strace,
        Err(error) => return machine::skip(&format!("no strace to block the workers with: {error}")),
    };
    let mut ended = None;
    let took = eventually("the silence is noticed, or strace ends", secs(20), async || {
        ended = strace.try_wait().expect("a child of ours");
        ended.is_some() || !sidecar.ready().await
    })
    .await;
    let reasons = sidecar.ask("/ready").await.text();
    let live = sidecar.ask("/live").await.status;
    let _ = strace.kill();
    let _ = strace.wait();
    if let Some(status) = ended {
        return machine::skip(&format!("strace may not attach to a process of ours: {status}"));
    }
    assert!(took >= millis(500) && took <= secs(3), "{took:?}");
    assert!(reasons.contains("silent"), "{reasons}");
    assert_eq!(live, 200, "a busy pod is not to be restarted");
    sidecar.until_ready().await;
}

/// Thread ids of the data plane's workers.
fn workers(pid: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process of ours");
    let tasks = tasks.map(|task| task.expect("readable").file_name().to_string_lossy().into_owned());
    let name = |tid: &String| std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm"));
    tasks
        .filter(|tid| name(tid).is_ok_and(|name| name.starts_with("data") || name.starts_with("worker")))
        .collect()
}

/// How long `/ready` took, on a connection of its own each time, as the kubelet does it.
async fn probe(sidecar: &Sidecar, count: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..count {
        let began = Instant::now();
        sidecar.ready().await;
        times.push(began.elapsed());
        sleep(millis(3)).await;
    }
    times
}

fn blocking_probes(admin: std::net::SocketAddr, count: usize) -> Vec<Duration> {
    use std::io::{Read, Write};
    let mut times = Vec::new();
    for _ in 0..count {
        let began = Instant::now();
        let mut stream = std::net::TcpStream::connect(admin).expect("the admin port accepts");
        stream.write_all(b"GET /ready HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        times.push(began.elapsed());
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
        std::thread::sleep(millis(3));
    }
    times
}

/// The five longest.
fn worst(mut times: Vec<Duration>) -> Vec<Duration> {
    times.sort_unstable();
    times.into_iter().rev().take(5).collect()
}

/// Keep-alive clients that go on whatever comes.
struct Load {
    over: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    tasks: JoinSet<()>,
}

impl Load {
    fn start(sidecar: &Sidecar, clients: usize) -> Self {
        let (over, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            let (over, served, traffic) = (Arc::clone(&over), Arc::clone(&served), sidecar.traffic);
            tasks.spawn(async move {
                let mut kept = None::<Client>;
                while !over.load(Ordering::Relaxed) {
                    let client = match kept.take() {
                        Some(client) => Ok(client),
                        None => Client::connect(traffic).await,
                    };
                    let Ok(mut client) = client else { continue };
                    if let Ok(answer) = client.get("/").await {
                        served.fetch_add(1, Ordering::Relaxed);
                        kept = (!answer.closes()).then_some(client);
                    }
                }
            });
        }
        Self { over, served, tasks }
    }

    async fn until_served(&self, count: u64) {
        eventually("the load is on", secs(20), async || self.served.load(Ordering::Relaxed) >= count).await;
    }

    async fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        self.tasks.join_all().await;
    }
}

#[tokio::test]
async fn traffic_is_served_through_the_gate() {
    let _turn = machine::shared();
    let app = TestApp::start(&[]).await;
    let sidecar = Sidecar::start(&config(&app, json!({}))).await;
    sidecar.until_ready().await;
    let answer = get(sidecar.traffic, "/?bytes=100000&status=203").await.expect("an answer");
    assert_eq!((answer.status, answer.body.len()), (203, 100_000));
    assert_eq!(sidecar.metric("readygate_requests_total", "code=\"2xx\"").await, 1.0);
}
