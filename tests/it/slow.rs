//! S11 and S12: clients that are slow on purpose, by the hundred, and what everybody else notices of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use crate::support::{Client, Sidecar, TestApp, config, eventually, get, machine};

/// How long clients are slow: `READYGATE_TEST_SLOW=15` for the scorecard's figure.
fn span() -> Duration {
    let seconds = std::env::var("READYGATE_TEST_SLOW").map(|text| text.parse().expect("seconds"));
    Duration::from_secs(seconds.unwrap_or(4))
}

/// Runs that many clients on a thread of their own: their work is to delay nobody.
fn crowd<F, T>(count: usize, client: impl Fn() -> F + Send + 'static) -> JoinHandle<Vec<T>>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    in_background(async move {
        let mut clients = JoinSet::new();
        let began = tokio::time::Instant::now();
        for number in 0..count {
            clients.spawn(client());
            // Five hundred a second: what as many cost that come at once is not the question.
            sleep_until(began + Duration::from_millis(2) * number as u32).await;
        }
        clients.join_all().await
    })
}

fn in_background<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(work)
    })
}

/// A client that is not slow. It asks for the app and for readiness in turns, and notes how long each took.
struct Witness {
    over: Arc<AtomicBool>,
    asking: JoinHandle<(Vec<Duration>, Vec<Duration>)>,
}

impl Witness {
    fn of(sidecar: &Sidecar) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (told, traffic, admin) = (Arc::clone(&over), sidecar.traffic, sidecar.admin);
        let asking = in_background(async move {
            let (mut data, mut ready) = (Vec::new(), Vec::new());
            while !told.load(Ordering::Relaxed) {
                data.push(answered(traffic, "/").await);
                ready.push(answered(admin, "/ready").await);
                sleep(Duration::from_millis(1)).await;
            }
            (data, ready)
        });
        Self { over, asking }
    }

    /// Ends it, and says whether it was not kept waiting.
    fn has_seen_nothing(self, of: &str) -> bool {
        self.over.store(true, Ordering::Relaxed);
        let (data, ready) = self.asking.join().expect("no panic");
        let seen = [("requests", data), ("/ready", ready)].map(|(what, mut took)| {
            took.sort();
            let (count, most) = (took.len(), took[took.len() - 1]);
            let quantile = took[count - 1 - count / 1000];
            println!("{of}: {count} {what}, p99.9 {quantile:?}, at most {most:?}");
            assert!(count > 100, "{of}: {count} {what}");
            quantile < Duration::from_millis(100)
        });
        seen == [true, true]
    }
}

/// Once in three times must do, and not at all on a machine that is busy with other things.
async fn at_best<F: Future<Output = bool>>(scenario: impl Fn() -> F) {
    for _ in 0..3 {
        if scenario().await {
            return;
        }
        if machine::is_busy() {
            println!("the machine is too busy to tell who made others wait");
            return;
        }
    }
    panic!("others had to wait, three times");
}

/// How long a request on a connection of its own took.
async fn answered(address: SocketAddr, path: &str) -> Duration {
    let began = Instant::now();
    assert_eq!(get(address, path).await.expect("an answer").status, 200, "{path}");
    began.elapsed()
}

/// Has seen requests before, so that what the first ones cost is not counted.
async fn warmed(app: &TestApp, scheme: &str, timeouts: serde_json::Value) -> Sidecar {
    let upstream = format!("{scheme}://{}", app.address);
    let listener = json!({ "upstream": upstream, "timeouts": timeouts });
    let sidecar =
        Sidecar::start(&config(app, json!({ "listeners": { "http": listener }, "workers": 1 }))).await;
    sidecar.until_ready().await;
    for _ in 0..200 {
        answered(sidecar.traffic, "/").await;
        answered(sidecar.admin, "/ready").await;
    }
    sidecar
}

/// Waits until it has that many connections of clients, some more for a witness' sake.
async fn until_connected(sidecar: &Sidecar, count: usize) {
    eventually("all are connected", Duration::from_secs(20), async || {
        sidecar.metric("readygate_connections", "").await >= count as f64
    })
    .await;
}

#[tokio::test]
async fn thousand_heads_that_dribble_are_closed_in_time_and_noticed_by_nobody_else() {
    let _turn = machine::alone();
    at_best(slow_heads).await;
}

async fn slow_heads() -> bool {
    const CLIENTS: usize = 1000;
    let app = TestApp::start(&[]).await;
    let timeouts = json!({ "header_read": format!("{}s", span().as_secs()), "first_byte": "1m" });
    let sidecar = warmed(&app, "http", timeouts).await;
    let before = machine::memory(sidecar.pid());
    let witness = Witness::of(&sidecar);
    let address = sidecar.traffic;
    let clients = crowd(CLIENTS, move || async move {
        let mut client = TcpStream::connect(address).await.expect("the port accepts");
        client.set_nodelay(true).expect("a socket option");
        let began = Instant::now();
        client.write_all(b"GET / HTTP/1.1\r\nhost: app.test\r\n").await.expect("taken");
        let mut number = 0;
        let mut byte = [0];
        while timeout(PAUSE, client.read(&mut byte)).await.is_err() {
            let _ = client.write_all(format!("x-{number}: 1\r\n").as_bytes()).await;
            number += 1;
        }
        began.elapsed()
    });
    until_connected(&sidecar, CLIENTS).await;
    let each = (peak(&sidecar, span() / 2).await - before) / CLIENTS as u64;
    let took = clients.join().expect("no panic");
    let (first, last) = (took.iter().min().expect("some"), took.iter().max().expect("some"));
    println!("slow heads: {each} bytes each, closed after {first:?} to {last:?}");
    assert!(*first >= span() - Duration::from_millis(300), "{first:?}");
    assert!(each <= 6 << 10, "{each} bytes");
    let in_time = *last <= span() + Duration::from_secs(1);
    witness.has_seen_nothing("slow heads") && in_time
}

#[tokio::test]
async fn slow_bodies_and_slow_readers_cost_little_each_and_are_noticed_by_nobody_else() {
    let _turn = machine::alone();
    at_best(|| slow_bodies_and_readers("http1", "http")).await;
    at_best(|| slow_bodies_and_readers("http2", "h2c")).await;
}

async fn slow_bodies_and_readers(protocol: &str, scheme: &str) -> bool {
    const CLIENTS: usize = 500;
    let app = TestApp::start(&["--protocol", protocol]).await;
    let sidecar = warmed(&app, scheme, json!({})).await;
    let witness = Witness::of(&sidecar);
    let address = sidecar.traffic;
    let mut cost = Vec::new();
    let mut before = machine::memory(sidecar.pid());
    let mut clients = Vec::new();
    for kind in [Kind::Body, Kind::Reader] {
        clients.push(crowd(CLIENTS, move || kind.run(address)));
        until_connected(&sidecar, clients.len() * CLIENTS).await;
        let peak = peak(&sidecar, span()).await;
        cost.push(peak.saturating_sub(before) / CLIENTS as u64);
        before = peak;
    }
    for clients in clients {
        clients.join().expect("no client was sent away");
    }
    println!("{scheme}: {} bytes a slow body, {} bytes a slow reader", cost[0], cost[1]);
    // Each has a connection to an app of HTTP/1 too.
    assert!(cost[0] <= 16 << 10, "{scheme}: {} bytes a body", cost[0]);
    // Over HTTP/2 each may have a window of bytes waiting here.
    let most = if scheme == "h2c" { 56 << 10 } else { 16 << 10 };
    assert!(cost[1] <= most, "{scheme}: {} bytes a reader", cost[1]);
    witness.has_seen_nothing(scheme)
}

/// S21, for a quarter of its connections.
#[tokio::test]
async fn idle_connections_cost_4_kb_each_and_all_serve_again() {
    let _turn = machine::alone();
    const CLIENTS: usize = 2000;
    let app = TestApp::start(&[]).await;
    let sidecar = warmed(&app, "http", json!({})).await;
    let before = machine::memory(sidecar.pid());
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = Client::connect(sidecar.traffic).await.expect("the port accepts");
        assert_eq!(client.get("/").await.expect("an answer").status, 200);
        clients.push(client);
    }
    let mut each = 0;
    // What they held in the meantime goes back to the kernel by and by.
    eventually("4 KB each", Duration::from_secs(60), async || {
        sleep(Duration::from_millis(200)).await;
        each = machine::memory(sidecar.pid()).saturating_sub(before) / CLIENTS as u64;
        each <= 4 << 10
    })
    .await;
    println!("{each} bytes each idle connection");
    assert!(sidecar.metric("readygate_connections", "").await >= CLIENTS as f64);
    for client in &mut clients {
        let answer = client.get("/").await.expect("an answer");
        assert!(answer.status == 200 && !answer.closes(), "{answer:?}");
    }
    drop(clients);
    let most = before + (4 << 20);
    eventually("memory is back", Duration::from_secs(60), async || {
        sleep(Duration::from_millis(200)).await;
        machine::memory(sidecar.pid()) <= most
    })
    .await;
}

/// The most memory that it has resident meanwhile.
async fn peak(sidecar: &Sidecar, time: Duration) -> u64 {
    let began = Instant::now();
    let mut peak = 0;
    while began.elapsed() < time {
        peak = peak.max(machine::memory(sidecar.pid()));
        sleep(Duration::from_millis(20)).await;
    }
    peak
}

/// How a client is slow.
#[derive(Clone, Copy)]
enum Kind {
    Body,
    Reader,
}

impl Kind {
    async fn run(self, address: SocketAddr) {
        match self {
            Self::Body => send_slowly(address).await,
            Self::Reader => read_slowly(address).await,
        }
    }
}

/// A request whose body comes in very small pieces.
async fn send_slowly(address: SocketAddr) {
    let mut client = TcpStream::connect(address).await.expect("the port accepts");
    client.set_nodelay(true).expect("a socket option");
    let head = b"POST /up HTTP/1.1\r\nhost: app.test\r\ncontent-length: 1000000\r\n\r\n";
    client.write_all(head).await.expect("taken");
    let began = Instant::now();
    while began.elapsed() < 2 * span() + SETUP {
        client.write_all(b"x").await.expect("taken");
        sleep(PAUSE).await;
    }
}

/// A request whose answer is taken in very small pieces, through a window as small as there is.
async fn read_slowly(address: SocketAddr) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(1).expect("a socket option");
    let mut client = socket.connect(address).await.expect("the port accepts");
    client.write_all(b"GET /?stream=1000000 HTTP/1.1\r\nhost: app.test\r\n\r\n").await.expect("taken");
    let began = Instant::now();
    while began.elapsed() < span() + SETUP {
        client.read_exact(&mut [0; 16]).await.expect("bytes");
        sleep(PAUSE).await;
    }
}

/// Longer than all of a crowd take to be connected.
const SETUP: Duration = Duration::from_secs(4);

/// Between two pieces of a client that is slow.
const PAUSE: Duration = Duration::from_millis(800);
