//! S18: much in both directions, whatever the protocol: every byte arrives as it was sent, and memory stays flat.
//!
//! 64 MiB each way, `READYGATE_TEST_GIB=1` for the scorecard's figure.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client;
use http::Request;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep_until, timeout};

use crate::support::pattern::Pattern;
use crate::support::tls::Pki;
use crate::support::{Sidecar, TestApp, config, machine};

/// Bytes each way.
fn total() -> u64 {
    match std::env::var("READYGATE_TEST_GIB") {
        Ok(gib) => gib.parse::<u64>().expect("a number") << 30,
        Err(_) => 64 << 20,
    }
}

/// The most that memory may grow meanwhile.
const GROWTH: u64 = 8 << 20;

/// A sidecar in front of that app.
async fn warmed(app: &TestApp, scheme: &str, listener: Value) -> Sidecar {
    let upstream = json!({ "upstream": format!("{scheme}://{}", app.address) });
    let listener = crate::support::merge(upstream, listener);
    let sidecar =
        Sidecar::start(&config(app, json!({ "listeners": { "http": listener }, "workers": 1 }))).await;
    sidecar.until_ready().await;
    sidecar
}

/// How much more memory it had at some time than `before`.
fn growth(sidecar: &Sidecar, before: u64) -> u64 {
    machine::peak_memory(sidecar.pid()).saturating_sub(before)
}

#[tokio::test]
async fn much_passes_unchanged_in_flat_memory_over_every_pair_of_protocols() {
    let _turn = machine::shared();
    let Some(pki) = Pki::new() else { return };
    pki.leaf("leaf", "root");
    for (protocol, scheme) in [("http1", "http"), ("http2", "h2c")] {
        let app = TestApp::start(&["--protocol", protocol]).await;
        for secure in [false, true] {
            let tls = json!({ "tls": { "cert": pki.path("leaf.crt"), "key": pki.path("leaf.key") } });
            let sidecar = warmed(&app, scheme, if secure { tls } else { json!({}) }).await;
            for http2 in [false, true] {
                let name = format!(
                    "{}{} to {scheme}",
                    if http2 { "h2" } else { "h1" },
                    if secure { " over TLS" } else { "" }
                );
                let exchange = async |bytes| {
                    if secure {
                        let alpn: &[&[u8]] = if http2 { &[b"h2"] } else { &[b"http/1.1"] };
                        let client = pki.client(&["root"], None).offering(alpn);
                        let stream = client.connect(sidecar.traffic).await.expect("a handshake").0;
                        exchange(stream, http2, bytes).await;
                    } else {
                        let stream = TcpStream::connect(sidecar.traffic).await.expect("the port accepts");
                        exchange(stream, http2, bytes).await;
                    }
                };
                exchange(1 << 20).await;
                let before = machine::peak_memory(sidecar.pid());
                let began = Instant::now();
                exchange(total()).await;
                let grown = growth(&sidecar, before);
                println!(
                    "{name}: {} MiB each way in {:?}, +{} KiB",
                    total() >> 20,
                    began.elapsed(),
                    grown >> 10
                );
                assert!(grown < GROWTH, "{name}: {grown} bytes");
            }
        }
    }
}

/// That many bytes up, and as many down.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, http2: bool, bytes: u64) {
    if http2 { over_http2(stream, bytes).await } else { over_http1(stream, bytes).await }
}

async fn over_http1(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: u64) {
    let head = format!("POST /same HTTP/1.1\r\nhost: app.test\r\ncontent-length: {bytes}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("taken");
    let mut pattern = Pattern::default();
    while pattern.position() < bytes {
        let piece = pattern.next((bytes - pattern.position()) as usize);
        patiently(stream.write_all(piece)).await.expect("taken");
    }
    stream.flush().await.expect("taken");
    let (head, rest) = head_of(&mut stream).await;
    assert!(head.starts_with("http/1.1 200") && head.contains(&format!("x-same: {bytes}\r\n")), "{head}");
    assert_eq!(rest.len(), 3, "the body of a small answer comes with its head");
    let asks = format!("GET /?stream={bytes} HTTP/1.1\r\nhost: app.test\r\n\r\n");
    stream.write_all(asks.as_bytes()).await.expect("taken");
    stream.flush().await.expect("taken");
    let (head, rest) = head_of(&mut stream).await;
    assert!(
        head.starts_with("http/1.1 200") && head.contains(&format!("content-length: {bytes}\r\n")),
        "{head}"
    );
    let mut pattern = Pattern::default();
    assert!(pattern.goes_on_with(&rest));
    let mut buffer = vec![0; 64 << 10];
    while pattern.position() < bytes {
        let length = patiently(stream.read(&mut buffer)).await.expect("bytes");
        assert!(length > 0, "it ended after {}", pattern.position());
        assert!(pattern.goes_on_with(&buffer[..length]), "before {}", pattern.position());
    }
    assert_eq!(pattern.position(), bytes);
}

/// The next head, in lower case, and what came after it.
async fn head_of(stream: &mut (impl AsyncRead + Unpin)) -> (String, Vec<u8>) {
    let mut text = Vec::new();
    loop {
        patiently(stream.read_buf(&mut text)).await.expect("bytes");
        if let Some(end) = text.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = text.split_off(end + 4);
            if rest.len() < 3 {
                text.extend(rest);
                continue;
            }
            return (String::from_utf8_lossy(&text).to_lowercase(), rest);
        }
    }
}

async fn over_http2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, bytes: u64) {
    let mut builder = client::Builder::new();
    builder.initial_window_size(8 << 20).initial_connection_window_size(16 << 20);
    let (mut sender, connection) = builder.handshake::<_, Bytes>(stream).await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let request = |method: &str, path: String| {
        Request::builder().method(method).uri(format!("http://app.test{path}")).body(()).expect("a request")
    };
    poll_fn(|cx| sender.poll_ready(cx)).await.expect("it takes a stream");
    let (answer, mut body) = sender.send_request(request("POST", "/same".into()), false).expect("a request");
    let mut pattern = Pattern::default();
    while pattern.position() < bytes {
        body.reserve_capacity(64 << 10);
        let room = patiently(poll_fn(|cx| body.poll_capacity(cx))).await.expect("open").expect("no error");
        let piece = pattern.next(room.min((bytes - pattern.position()) as usize));
        body.send_data(Bytes::from_static(piece), pattern.position() == bytes).expect("it is open");
    }
    let answer = patiently(answer).await.expect("an answer");
    assert_eq!(answer.headers()["x-same"], bytes.to_string());
    poll_fn(|cx| sender.poll_ready(cx)).await.expect("it takes a stream");
    let (answer, _) =
        sender.send_request(request("GET", format!("/?stream={bytes}")), true).expect("a request");
    let mut body = patiently(answer).await.expect("an answer").into_body();
    let mut pattern = Pattern::default();
    while let Some(data) = patiently(body.data()).await {
        let data = data.expect("no error");
        assert!(pattern.goes_on_with(&data), "before {}", pattern.position());
        body.flow_control().release_capacity(data.len()).expect("it came");
    }
    assert_eq!(pattern.position(), bytes);
    drop(sender);
    connection.abort();
}

#[tokio::test]
async fn memory_stays_flat_while_a_hundred_clients_read_slowly_but_steadily() {
    let _turn = machine::alone();
    // A megabyte a second each, as much as a hundred of them take of a gigabit.
    const PIECE: usize = 100_000;
    let bytes = total() / 16;
    let app = TestApp::start(&[]).await;
    let sidecar = warmed(&app, "http", json!({})).await;
    let address = sidecar.traffic;
    for _ in 0..50 {
        read_steadily(address, 1 << 20, 1 << 20).await;
    }
    let before = machine::peak_memory(sidecar.pid());
    let began = Instant::now();
    let readers = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let mut readers = tokio::task::JoinSet::new();
            for _ in 0..100 {
                readers.spawn(read_steadily(address, bytes, PIECE));
            }
            readers.join_all().await
        })
    });
    while !readers.is_finished() {
        assert!(sidecar.ready().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(readers.join().expect("every byte as it was sent").len(), 100);
    let grown = growth(&sidecar, before);
    println!("100 readers of {bytes} bytes in {:?}: +{} KiB", began.elapsed(), grown >> 10);
    // However much they read: what the sockets and buffers of each cost.
    assert!(grown < 100 * (128 << 10), "{grown} bytes");
}

/// Reads ten pieces a second.
async fn read_steadily(address: SocketAddr, bytes: u64, piece: usize) {
    let mut stream = TcpStream::connect(address).await.expect("the port accepts");
    let asks = format!("GET /?stream={bytes} HTTP/1.1\r\nhost: app.test\r\n\r\n");
    stream.write_all(asks.as_bytes()).await.expect("taken");
    let (head, rest) = head_of(&mut stream).await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let mut pattern = Pattern::default();
    assert!(pattern.goes_on_with(&rest));
    let mut next = tokio::time::Instant::now();
    let mut buffer = vec![0; piece];
    while pattern.position() < bytes {
        let length = buffer.len().min((bytes - pattern.position()) as usize);
        patiently(stream.read_exact(&mut buffer[..length])).await.expect("bytes");
        assert!(pattern.goes_on_with(&buffer[..length]), "before {}", pattern.position());
        if pattern.position() < bytes {
            next += Duration::from_millis(100);
            sleep_until(next).await;
        }
    }
}

/// The longest that anything may take: far more than it does.
async fn patiently<F: Future>(work: F) -> F::Output {
    timeout(Duration::from_secs(30), work).await.expect("nothing moves")
}
