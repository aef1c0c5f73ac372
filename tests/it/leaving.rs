//! The pod leaves without losing a request: signals, hooks, deadlines (S2, S3, S4, S5).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::support::{Answer, Client, Failure, Sidecar, TestApp, config, get, machine};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// S2.
#[tokio::test]
async fn sigterm_serves_what_is_in_flight_and_closes_what_is_idle_or_silent() {
    let _turn = machine::shared();
    let app = TestApp::start(&[]).await;
    let mut sidecar = Sidecar::start(&config(&app, json!({}))).await;
    sidecar.until_ready().await;
    let traffic = sidecar.traffic;
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(Client::connect(traffic).await.expect("the port accepts"));
    }
    let mut idle = Vec::new();
    for _ in 0..10 {
        let mut client = Client::connect(traffic).await.expect("the port accepts");
        assert_eq!(client.get("/").await.expect("an answer").status, 200);
        idle.push(client);
    }
    let mut in_flight = JoinSet::new();
    for _ in 0..20 {
        let mut client = Client::connect(traffic).await.expect("the port accepts");
        client.send("GET", "/?delay=3000", &[], b"").await.expect("sent");
        in_flight.spawn(async move { client.answer().await });
    }
    // Sent is not yet received: the app has all of them once it has counted them.
    until_in_flight(&sidecar, 20.0).await;

    let began = sidecar.signal("TERM");
    sleep(millis(500)).await;
    // Half of the idle clients ask once more while the pod leaves; the others stay idle.
    let mut again = JoinSet::new();
    for mut client in idle.split_off(5) {
        again.spawn(async move { client.get("/").await });
    }
    for answer in again.join_all().await {
        let answer = answer.expect("a kept connection is served, not reset");
        assert!(answer.status == 200 && answer.closes(), "{answer:?}");
    }
    for answer in in_flight.join_all().await {
        assert_eq!(answer.expect("an answer").status, 200);
    }
    assert_eq!(sidecar.ended(secs(10)).await.code(), Some(0));
    assert!(began.elapsed() <= secs(4), "longest + 1 s, and it took {:?}", began.elapsed());
    for client in silent.iter_mut().chain(&mut idle) {
        assert_eq!(client.closed().await, Ok(()), "closed, not reset");
    }
}

/// S3.
#[tokio::test]
async fn sigterm_turns_ready_to_no_at_once_while_the_port_still_serves() {
    let _turn = machine::alone();
    let app = TestApp::start(&[]).await;
    let more = json!({ "drain": { "min": "2s", "quiet": "100ms", "deadline": "10s" } });
    let mut sidecar = Sidecar::start(&config(&app, more)).await;
    sidecar.until_ready().await;
    let mut kept = Client::connect(sidecar.traffic).await.expect("the port accepts");
    let answer = kept.get("/").await.expect("an answer");
    assert!(answer.status == 200 && !answer.closes(), "{answer:?}");

    sidecar.signal("TERM");
    let took = sidecar.until_not_ready().await;
    assert!(took <= millis(50), "{took:?}");
    assert_eq!(sidecar.ask("/lb").await.status, 503);
    assert_eq!(sidecar.ask("/live").await.status, 200);
    for answer in [kept.get("/").await, get(sidecar.traffic, "/").await] {
        let answer = answer.expect("an answer");
        assert!(answer.status == 200 && answer.closes(), "{answer:?}");
    }
    assert_eq!(kept.closed().await, Ok(()));
    assert_eq!(sidecar.ended(secs(10)).await.code(), Some(0));
}

/// S4, its HTTP/1.1 half.
#[tokio::test]
async fn deadline_cuts_an_endless_answer() {
    let _turn = machine::shared();
    let app = TestApp::start(&[]).await;
    let more = json!({ "drain": { "min": "200ms", "quiet": "100ms", "deadline": "2s" } });
    let mut sidecar = Sidecar::start(&config(&app, more)).await;
    sidecar.until_ready().await;
    let mut client = Client::connect(sidecar.traffic).await.expect("the port accepts");
    client.send("GET", "/?drip=20", &[], b"").await.expect("sent");
    assert_eq!(client.head().await.expect("the head of an answer").0, 200);

    let began = sidecar.signal("TERM");
    let failure = loop {
        match client.chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("an answer that broke off must not look whole"),
            Err(failure) => break failure,
        }
    };
    let cut = began.elapsed();
    assert!(matches!(failure, Failure::Cut | Failure::Reset), "{failure:?}");
    assert!(cut >= millis(1500) && cut <= millis(2500), "{cut:?}");
    assert_eq!(sidecar.ended(secs(5)).await.code(), Some(0));
}

/// S5.
#[tokio::test]
async fn second_signal_ends_it_at_once() {
    let _turn = machine::shared();
    let app = TestApp::start(&[]).await;
    let mut sidecar = Sidecar::start(&config(&app, json!({}))).await;
    sidecar.until_ready().await;
    let mut client = Client::connect(sidecar.traffic).await.expect("the port accepts");
    client.send("GET", "/?delay=30000", &[], b"").await.expect("sent");
    until_in_flight(&sidecar, 1.0).await;
    sidecar.signal("TERM");
    sidecar.until_not_ready().await;
    sleep(millis(500)).await;
    assert!(sidecar.runs(), "a request is in flight");
    let began = sidecar.signal("TERM");
    sidecar.ended(secs(5)).await;
    assert!(began.elapsed() <= secs(1), "{:?}", began.elapsed());
    assert!(!sidecar.said("panic"));
}

#[tokio::test]
async fn drain_lasts_as_long_as_the_longest_request_and_not_longer() {
    let _turn = machine::shared();
    let app = TestApp::start(&[]).await;
    let more = json!({ "drain": { "min": "1s", "quiet": "500ms", "deadline": "20s" } });
    let mut sidecar = Sidecar::start(&config(&app, more)).await;
    sidecar.until_ready().await;
    let traffic = sidecar.traffic;
    let long = tokio::spawn(async move { get(traffic, "/?delay=4000").await });
    until_in_flight(&sidecar, 1.0).await;

    let began = sidecar.signal("TERM");
    // New connections go on arriving for as long as a slow node believes in the endpoint.
    while began.elapsed() < secs(3) {
        let answer = get(traffic, "/").await.expect("served while leaving");
        assert!(answer.status == 200 && answer.closes(), "{answer:?}");
        sleep(millis(50)).await;
    }
    assert_eq!(long.await.expect("no panic").expect("an answer").status, 200);
    let answered = began.elapsed();
    assert_eq!(sidecar.ended(secs(10)).await.code(), Some(0));
    let rest = began.elapsed() - answered;
    assert!(rest <= millis(600), "nothing was left to wait for: {rest:?} after the last answer");
}

#[tokio::test]
async fn idle_pod_leaves_as_soon_as_min_allows() {
    let _turn = machine::shared();
    let app = TestApp::start(&[]).await;
    let more = json!({ "drain": { "min": "700ms", "quiet": "100ms", "deadline": "10s" } });
    let mut sidecar = Sidecar::start(&config(&app, more)).await;
    sidecar.until_ready().await;
    let began = sidecar.signal("TERM");
    assert_eq!(sidecar.ended(secs(10)).await.code(), Some(0));
    let took = began.elapsed();
    assert!(took >= millis(680) && took <= millis(1500), "{took:?}");
}

/// Native sidecars (kubernetes.md 10, 13): both hooks at once; SIGTERM to the app when its hook ended, to the
/// sidecar only when the app has ended.
#[tokio::test]
async fn hooks_in_native_order_lose_no_request() {
    let _turn = machine::shared();
    let mut app = TestApp::start(&["--term", "graceful"]).await;
    let more = json!({ "drain": { "min": "1s", "quiet": "300ms", "deadline": "10s" } });
    let mut sidecar = Sidecar::start(&config(&app, more)).await;
    sidecar.until_ready().await;
    let clients = Clients::start(&sidecar);

    let began = Instant::now();
    let (app_hook, own_hook) = hooks(&sidecar);
    sidecar.until_not_ready().await;
    assert!(began.elapsed() < millis(500));
    sleep(millis(800)).await;
    clients.end().await;
    assert_eq!(app_hook.await.expect("no panic").expect("the hook is answered").status, 200);
    assert!(began.elapsed() >= secs(1), "the app is told to go when nothing more comes");
    app.signal("TERM");
    app.ended().await;
    assert_eq!(own_hook.await.expect("no panic").expect("the hook is answered").status, 200);
    assert!(sidecar.runs(), "hooks leave the process up");
    let began = sidecar.signal("TERM");
    assert_eq!(sidecar.ended(secs(5)).await.code(), Some(0));
    assert!(began.elapsed() <= secs(1), "drained already: {:?}", began.elapsed());
}

/// Classic sidecars: each container gets SIGTERM as soon as its own hook ended.
#[tokio::test]
async fn hooks_in_classic_order_lose_no_request() {
    let _turn = machine::shared();
    let mut app = TestApp::start(&["--term", "abrupt"]).await;
    let more = json!({ "drain": { "min": "1s", "quiet": "300ms", "deadline": "10s" } });
    let mut sidecar = Sidecar::start(&config(&app, more)).await;
    sidecar.until_ready().await;
    let clients = Clients::start(&sidecar);

    let (app_hook, own_hook) = hooks(&sidecar);
    sleep(millis(800)).await;
    clients.end().await;
    assert_eq!(own_hook.await.expect("no panic").expect("the hook is answered").status, 200);
    let began = sidecar.signal("TERM");
    assert_eq!(app_hook.await.expect("no panic").expect("the hook is answered").status, 200);
    app.signal("TERM");
    app.ended().await;
    assert_eq!(sidecar.ended(secs(5)).await.code(), Some(0));
    assert!(began.elapsed() <= secs(1), "drained already: {:?}", began.elapsed());
}

/// The kubelet restarts the app's container (kubernetes.md 16): its hook comes, the sidecar's does not.
#[tokio::test]
async fn app_hook_alone_is_a_restart_and_the_pod_comes_back() {
    let _turn = machine::shared();
    let mut app = TestApp::start(&[]).await;
    let more = json!({ "drain": { "restart_window": "700ms" } });
    let mut sidecar = Sidecar::start(&config(&app, more)).await;
    sidecar.until_ready().await;
    let began = Instant::now();
    let admin = sidecar.admin;
    let hook = tokio::spawn(async move { get(admin, "/wait-for-drain").await });
    let took = sidecar.until_not_ready().await;
    assert!(took < millis(500), "{took:?}");
    let answer = timeout(secs(5), hook).await.expect("answered in its window");
    assert_eq!(answer.expect("no panic").expect("the hook is answered").status, 200);
    assert!(began.elapsed() >= millis(650), "{:?}", began.elapsed());
    app.signal("TERM");
    app.ended().await;
    sidecar.until_not_ready().await;
    app.up().await;
    sidecar.until_ready().await;
    assert!(sidecar.runs());
    assert_eq!(get(sidecar.traffic, "/").await.expect("an answer").status, 200);
}

#[tokio::test]
async fn held_readiness_lasts_through_the_drain_but_not_for_balancers() {
    let _turn = machine::shared();
    let mut app = TestApp::start(&[]).await;
    let more = json!({ "drain": { "min": "5s", "quiet": "100ms", "deadline": "10s", "ready": "hold" } });
    let sidecar = Sidecar::start(&config(&app, more)).await;
    sidecar.until_ready().await;
    assert_eq!(sidecar.ask("/lb").await.status, 200);
    assert_eq!(sidecar.ask("/drain?wait=0").await.status, 202);
    assert_eq!(sidecar.ask("/lb").await.status, 503);
    assert!(sidecar.ready().await);
    app.kill();
    let took = sidecar.until_not_ready().await;
    assert!(took < millis(1500), "an app that refuses is not held: {took:?}");
}

type Hook = tokio::task::JoinHandle<Result<Answer, Failure>>;

/// Both preStop hooks, in parallel: (the app's, the sidecar's).
fn hooks(sidecar: &Sidecar) -> (Hook, Hook) {
    let admin = sidecar.admin;
    let hook = |path| tokio::spawn(async move { get(admin, path).await });
    (hook("/wait-for-drain"), hook("/drain"))
}

/// Keep-alive and fresh clients that tolerate no failure.
struct Clients {
    over: Arc<AtomicBool>,
    tasks: JoinSet<usize>,
}

impl Clients {
    fn start(sidecar: &Sidecar) -> Self {
        let (over, mut tasks) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        for number in 0..6 {
            let (over, traffic) = (Arc::clone(&over), sidecar.traffic);
            tasks.spawn(async move {
                let (mut kept, mut served) = (None::<Client>, 0);
                while !over.load(Ordering::Relaxed) {
                    let mut client = match kept.take().filter(Client::is_open) {
                        Some(client) => client,
                        None => Client::connect(traffic).await.expect("the port accepts"),
                    };
                    let answer = client.get("/?delay=5").await.expect("an answer");
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    served += 1;
                    kept = (number % 2 == 0 && !answer.closes()).then_some(client);
                    sleep(millis(10)).await;
                }
                served
            });
        }
        Self { over, tasks }
    }

    async fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        let served: usize = self.tasks.join_all().await.into_iter().sum();
        assert!(served > 50, "{served} requests show nothing");
    }
}

async fn until_in_flight(sidecar: &Sidecar, count: f64) {
    crate::support::eventually("the requests are in flight", secs(20), async || {
        sidecar.metric("readygate_requests_in_flight", "").await >= count
    })
    .await;
}
