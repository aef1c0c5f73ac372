//! The server on real sockets, and the fixture that the tests of the routes share.

use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use crate::drain::{Activity, Settings};
use crate::gate::{Beats, CheckRule, Event, Gate, Phase, Transition};
use crate::metrics::Sets;

use super::*;

/// Everything that the endpoints read, with a gate that the test moves.
pub struct Fixture {
    pub state: State,
    pub gate: Gate,
    pub beats: Beats,
    pub now: Instant,
}

const SETTINGS: Settings = Settings {
    min: Duration::from_millis(100),
    quiet: Duration::from_millis(50),
    deadline: Duration::from_secs(25),
    restart_window: Duration::from_millis(300),
};

impl Fixture {
    pub fn new(rules: Vec<CheckRule>) -> Self {
        let now = Instant::now();
        let beats = Beats::new(1, Duration::from_secs(3), now);
        let gate = Gate::new(rules, ["127.0.0.1:8080".into()], beats.clone(), Box::new(|_, _, _| {}), now);
        let phases = Phase::ALL.map(Phase::name);
        let transitions =
            Transition::POSSIBLE.map(|(from, to, cause)| (from.name(), to.name(), cause.name()));
        let metrics = Metrics::new(Sets {
            version: "0.0.0",
            revision: "test",
            phases: &phases,
            transitions: &transitions,
        });
        let state = State {
            view: gate.view(),
            drain: Drain::new(SETTINGS, Box::new(|_| {})),
            metrics,
            traffic: Traffic::new(["http"], 1, now),
            started: Arc::new(AtomicBool::new(true)),
            events: broadcast::Sender::new(4),
            hook_token_file: None,
            quit: Arc::default(),
            build: Build { version: "0.0.0", revision: "test" },
            instance: "me".into(),
            evidence: Arc::new(|_| None),
            looks: Arc::new(|_| None),
            scrape: Arc::new(|| {}),
        };
        Self { state, gate, beats, now }
    }

    pub fn apply(&self, event: Event) {
        self.gate.apply(event, self.now);
    }
}

pub fn app_up() -> Event {
    Event::AppAccepted { app: 0 }
}

pub fn result(check: &str, passed: bool, line: &str) -> Event {
    let took = Duration::from_millis(5);
    Event::Checked { check: check.into(), arm: 1, passed, line: line.to_owned(), took }
}

/// A running server whose gate is open.
struct Running {
    address: std::net::SocketAddr,
    fixture: Fixture,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<()>,
}

async fn running() -> Running {
    let fixture = Fixture::new(Vec::new());
    fixture.apply(app_up());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (stop, stopped) = oneshot::channel::<()>();
    let state = fixture.state.clone();
    let served = tokio::spawn(serve(listener, state, async move { drop(stopped.await) }));
    Running { address, fixture, stop, served }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("the server listens")
    }

    /// Sends bytes on a connection of its own and reads to the end.
    async fn exchange(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.expect("write");
        read_to_end(&mut stream).await
    }

    async fn get(&self, path: &str) -> String {
        self.exchange(&format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")).await
    }

    fn drive(&self) {
        let drain = self.fixture.state.drain.clone();
        tokio::spawn(async move { drain.drive(Activity::default).await });
    }
}

/// What comes until the other side closes or resets; a test fails rather than hangs.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes)).await.expect("an end in time");
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut read = String::new();
    let found = timeout(Duration::from_secs(20), async {
        let mut buffer = [0; 4096];
        while !read.contains(text) {
            let count = stream.read(&mut buffer).await.expect("read");
            assert!(count > 0, "closed before {text:?}: {read:?}");
            read.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    });
    found.await.expect("an answer in time");
    read
}

#[tokio::test]
async fn probe_is_answered_and_head_has_the_length_without_the_body() {
    let server = running().await;
    let answer = server.get("/ready").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nready\n"), "{answer}");
    let head = server.exchange("HEAD /ready HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(head.contains("content-length: 6\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    let old = server.exchange("GET /live HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200 OK\r\n") && old.ends_with("live\n"), "{old}");
}

#[tokio::test]
async fn pipelined_probes_share_a_connection() {
    let server = running().await;
    let one = "GET /ready HTTP/1.1\r\nhost: a\r\n\r\n";
    let last = "GET /live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answers = server.exchange(&[one, one, one, last].concat()).await;
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 4, "{answers}");
    assert_eq!(answers.matches("ready\n").count(), 3, "{answers}");
}

#[tokio::test]
async fn header_that_takes_too_long_or_is_too_big_ends_the_connection() {
    let server = running().await;
    let mut slow = server.connect().await;
    slow.write_all(b"GET /ready HTTP/1.1\r\nhos").await.expect("write");
    let mut silent = server.connect().await;
    let big = format!("GET /ready HTTP/1.1\r\nhost: a\r\nbig: {}\r\n\r\n", "x".repeat(9 * 1024));
    let refused = server.exchange(&big).await;
    assert!(refused.starts_with("HTTP/1.1 431 "), "{refused}");
    let (slow, silent) = tokio::join!(read_to_end(&mut slow), read_to_end(&mut silent));
    assert!(!slow.contains("200") && silent.is_empty(), "{slow:?} {silent:?}");
}

#[tokio::test]
async fn body_is_ignored_however_long() {
    let server = running().await;
    let request = "POST /quit HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000000\r\n\r\nbegin";
    let answer = server.exchange(request).await;
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
}

#[tokio::test]
async fn crowd_that_says_nothing_and_hooks_that_hang_starve_no_probe() {
    let server = running().await;
    let mut hooks = Vec::new();
    for _ in 0..HOOKS + 4 {
        let mut hook = server.connect().await;
        hook.write_all(b"GET /drain HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("write");
        hooks.push(hook);
    }
    let mut silent = Vec::new();
    for n in 0..CONNECTIONS + 50 {
        silent.push(server.connect().await);
        if n % 50 == 0 {
            assert!(server.get("/live").await.ends_with("live\n"));
        }
    }
    assert!(server.get("/live").await.ends_with("live\n"));
    server.drive();
    let mut answered = 0;
    for mut hook in hooks {
        let answer = read_until(&mut hook, "\n\r\n").await;
        answered += usize::from(answer.starts_with("HTTP/1.1 200 "));
    }
    assert_eq!(answered, HOOKS);
}

#[tokio::test]
async fn drain_hook_waits_and_the_apps_hook_alone_is_a_restart() {
    let server = running().await;
    server.drive();
    let alone = server.get("/wait-for-drain").await;
    assert!(alone.ends_with("no drain: the app restarts, the pod stays\n"), "{alone}");
    let (app, sidecar) = tokio::join!(server.get("/wait-for-drain"), server.get("/drain"));
    for answer in [app, sidecar] {
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\r\n\r\ndrained after "), "{answer}");
    }
    let late = server.get("/wait-for-drain").await;
    assert!(late.contains("drained after"), "{late}");
}

#[tokio::test]
async fn event_reaches_its_reader_and_a_slow_reader_is_dropped() {
    let server = running().await;
    let mut reader = server.connect().await;
    reader.write_all(b"GET /events HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("write");
    let head = read_until(&mut reader, "retry: 2000\n\n").await;
    assert!(head.contains("content-type: text/event-stream\r\n"), "{head}");
    let events = &server.fixture.state.events;
    events.send("{\"to\":\"ready\"}".into()).expect("a reader");
    read_until(&mut reader, "data: {\"to\":\"ready\"}\n\n").await;

    drop(reader);
    let socket = TcpSocket::new_v4().expect("socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut slow = socket.connect(server.address).await.expect("connect");
    slow.write_all(b"GET /events HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("write");
    read_until(&mut slow, "retry: 2000\n\n").await;
    let line: Arc<str> = "x".repeat(100_000).into();
    let dropped = async {
        while events.receiver_count() > 0 {
            let _ = events.send(Arc::clone(&line));
            let _ = timeout(Duration::from_millis(1), slow.read(&mut [0; 64])).await;
        }
    };
    timeout(Duration::from_secs(20), dropped).await.expect("who does not read is dropped");
}

#[tokio::test]
async fn event_streams_are_few() {
    let server = running().await;
    let mut readers = Vec::new();
    for _ in 0..EVENT_STREAMS {
        let mut reader = server.connect().await;
        reader.write_all(b"GET /events HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("write");
        read_until(&mut reader, "retry: 2000\n\n").await;
        readers.push(reader);
    }
    assert!(server.get("/events").await.starts_with("HTTP/1.1 503 "));
    drop(readers.pop());
    let again = async {
        loop {
            let mut reader = server.connect().await;
            reader.write_all(b"GET /events HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("write");
            if read_until(&mut reader, "\r\n\r\n").await.starts_with("HTTP/1.1 200 ") {
                break;
            }
        }
    };
    timeout(Duration::from_secs(20), again).await.expect("the place comes free");
}

#[tokio::test]
async fn stop_answers_what_is_on_its_way() {
    let server = running().await;
    let mut hook = server.connect().await;
    hook.write_all(b"GET /drain HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("write");
    let mut reader = server.connect().await;
    reader.write_all(b"GET /events HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("write");
    read_until(&mut reader, "retry: 2000\n\n").await;
    server.fixture.state.drain.drive(Activity::default).await;
    server.stop.send(()).expect("the server runs");
    let answer = read_to_end(&mut hook).await;
    assert!(answer.contains("drained after"), "{answer}");
    read_to_end(&mut reader).await;
    server.served.await.expect("no panic");
    assert!(TcpStream::connect(server.address).await.is_err(), "the port is free again");
}
