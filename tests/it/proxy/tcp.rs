//! TCP listeners: bytes as they come, whoever speaks first, and each way with an end of its own (S27).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::support::{Scratch, Sidecar, eventually, machine, merge};

use super::before;
use super::wire::{Origin, Wire};

/// A sidecar whose listener carries bytes to that address; `more` goes below `listeners.http`.
async fn tcp(app: SocketAddr, more: Value) -> Sidecar {
    tcp_with(app, json!({ "listeners": { "http": more } })).await
}

async fn tcp_with(app: SocketAddr, more: Value) -> Sidecar {
    let upstream = json!({ "listeners": { "http": { "upstream": format!("tcp://{app}") } } });
    before(app, merge(upstream, more)).await
}

/// The same in front of an app that the test plays.
async fn house(more: Value) -> (Sidecar, Origin) {
    let origin = Origin::start().await;
    let sidecar = tcp(origin.address, more).await;
    sidecar.until_ready().await;
    (sidecar, origin)
}

/// A connection on which a byte came through: the client's end and the app's.
async fn connected(sidecar: &Sidecar, origin: &mut Origin) -> (Wire, Wire) {
    let mut client = Wire::connect(sidecar.traffic).await;
    client.say("hello").await;
    let mut app = origin.connection().await;
    assert_eq!(app.take(5).await, "hello");
    (client, app)
}

async fn until_metric(sidecar: &Sidecar, name: &str, labels: &str, value: f64) {
    let what = format!("{name} {labels} is {value}");
    eventually(&what, Duration::from_secs(10), async || sidecar.metric(name, labels).await == value).await;
}

const IN_FLIGHT: &str = "readygate_requests_in_flight";
const ERRORS: &str = "readygate_proxy_errors_total";

#[tokio::test]
async fn server_may_speak_first() {
    let _turn = machine::shared();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let app = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut heard = Vec::new();
                stream.write_all(b"220 app.test\r\n").await?;
                stream.read_to_end(&mut heard).await?;
                stream.write_all(&heard).await
            });
        }
    });
    let sidecar = tcp(address, json!({})).await;
    sidecar.until_ready().await;
    let mut client = Wire::connect(sidecar.traffic).await;
    assert_eq!(client.until("\r\n").await, "220 app.test\r\n");
    client.say("EHLO client\r\n").await;
    client.finish().await;
    // The app answers only when it has heard the end.
    assert_eq!(client.end().await, "EHLO client\r\n");
    app.abort();
}

#[tokio::test]
async fn each_way_ends_by_itself_and_all_is_counted() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let (mut client, mut app) = connected(&sidecar, &mut origin).await;
    assert_eq!(sidecar.metric(IN_FLIGHT, "").await, 1.0);
    client.finish().await;
    assert_eq!(app.end().await, "");
    app.say("still here").await;
    assert_eq!(client.take(10).await, "still here");
    assert_eq!(sidecar.metric(IN_FLIGHT, "").await, 1.0);
    app.finish().await;
    assert_eq!(client.end().await, "");
    until_metric(&sidecar, IN_FLIGHT, "", 0.0).await;

    let (mut client, mut app) = connected(&sidecar, &mut origin).await;
    app.finish().await;
    assert_eq!(client.end().await, "");
    client.say("and mine").await;
    assert_eq!(app.take(8).await, "and mine");
    client.finish().await;
    assert_eq!(app.end().await, "");
    until_metric(&sidecar, "readygate_connections", "", 0.0).await;
    assert_eq!(sidecar.metric("readygate_connections_total", "").await, 2.0);
    assert_eq!(sidecar.metric("readygate_bytes_total", "direction=\"received\"").await, 18.0);
    assert_eq!(sidecar.metric("readygate_bytes_total", "direction=\"sent\"").await, 10.0);
    assert_eq!(sidecar.metric("readygate_requests_total", "").await, 0.0, "no requests are seen");
    assert_eq!(sidecar.metric(ERRORS, "").await, 0.0);
}

#[tokio::test]
async fn reset_of_either_side_reaches_the_other() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let (client, mut app) = connected(&sidecar, &mut origin).await;
    client.reset();
    assert!(app.is_reset().await);
    until_metric(&sidecar, ERRORS, "kind=\"client_closed\"", 1.0).await;
    let (mut client, app) = connected(&sidecar, &mut origin).await;
    app.reset();
    assert!(client.is_reset().await);
    until_metric(&sidecar, ERRORS, "kind=\"upstream_broken\"", 1.0).await;
    assert_eq!(sidecar.metric(IN_FLIGHT, "").await, 0.0);
}

#[tokio::test]
async fn answer_of_an_app_that_closes_on_unread_bytes_gets_across() {
    let _turn = machine::shared();
    let (sidecar, mut origin) = house(json!({})).await;
    let (mut client, mut app) = connected(&sidecar, &mut origin).await;
    // More than the app reads: its close is a reset, as it would be without us.
    client.flood(64 << 20).await;
    app.say("421 too much").await;
    drop(app);
    assert_eq!(client.take(12).await, "421 too much");
    assert!(client.is_reset().await);
}

#[tokio::test]
async fn silence_at_the_start_is_no_fault_and_silence_for_long_is() {
    let _turn = machine::shared();
    let timeouts =
        json!({ "first_byte": "100ms", "header_read": "100ms", "idle": "100ms", "tunnel_idle": "1500ms" });
    let (sidecar, mut origin) = house(json!({ "timeouts": timeouts })).await;
    let mut client = Wire::connect(sidecar.traffic).await;
    sleep(Duration::from_millis(800)).await;
    client.say("late").await;
    let mut app = origin.connection().await;
    assert_eq!(app.take(4).await, "late");
    let began = Instant::now();
    assert!(client.is_reset().await && app.is_reset().await, "not to be taken for an end in order");
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(1200) && took < Duration::from_secs(4), "{took:?}");
    until_metric(&sidecar, IN_FLIGHT, "", 0.0).await;
}

/// Whether a new connection is reset, at once or after a while.
async fn is_refused(sidecar: &Sidecar) -> bool {
    match TcpStream::connect(sidecar.traffic).await {
        // So soon that this end has not noticed that it is connected.
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        Ok(stream) => Wire::from(stream).is_reset().await,
    }
}

/// A sidecar whose gate is closed until the file is there, and that file.
async fn gated(app: SocketAddr, listener: Value) -> (Sidecar, std::path::PathBuf, Scratch) {
    let scratch = Scratch::new();
    let file = scratch.join("ready");
    let check = json!({ "file": { "path": file.to_str() }, "interval_failing": "50ms", "interval": "1s" });
    let sidecar =
        tcp_with(app, json!({ "listeners": { "http": listener }, "checks": { "file": check } })).await;
    sidecar.until_not_ready().await;
    (sidecar, file, scratch)
}

#[tokio::test]
async fn closed_gate_lets_connections_pass_wait_or_be_refused() {
    let _turn = machine::shared();
    let mut origin = Origin::start().await;

    let (sidecar, ..) = gated(origin.address, json!({ "not_ready": "forward" })).await;
    connected(&sidecar, &mut origin).await;

    let (sidecar, file, _scratch) = gated(origin.address, json!({ "not_ready": "reject" })).await;
    // Until the port was seen to accept, it counts as one that refuses, and connections wait for it.
    eventually("the app is known", Duration::from_secs(10), async || {
        is_refused(&sidecar).await && sidecar.metric(ERRORS, "kind=\"not_ready\"").await > 0.0
    })
    .await;
    std::fs::write(&file, "").expect("the directory is writable");
    sidecar.until_ready().await;
    connected(&sidecar, &mut origin).await;

    let (sidecar, file, _scratch) = gated(origin.address, json!({ "not_ready": "hold" })).await;
    let mut client = Wire::connect(sidecar.traffic).await;
    client.say("patience").await;
    until_metric(&sidecar, "readygate_held_requests", "", 1.0).await;
    assert!(origin.is_silent() && client.is_silent());
    std::fs::write(&file, "").expect("the directory is writable");
    assert_eq!(origin.connection().await.take(8).await, "patience");

    let hold = json!({ "not_ready": "hold", "hold": { "for": "300ms" }, "limits": { "queue": 1 } });
    let (sidecar, ..) = gated(origin.address, hold).await;
    let mut first = Wire::connect(sidecar.traffic).await;
    until_metric(&sidecar, "readygate_held_requests", "", 1.0).await;
    assert!(is_refused(&sidecar).await && first.is_reset().await);
    for kind in ["queue_full", "hold_timeout"] {
        assert_eq!(sidecar.metric(ERRORS, &format!("kind=\"{kind}\"")).await, 1.0, "{kind}");
    }
    assert!(origin.is_silent());
}

#[tokio::test]
async fn connection_waits_for_an_app_that_refuses() {
    let _turn = machine::shared();
    let origin = Origin::start().await;
    let address = origin.address;
    drop(origin);
    let sidecar = tcp(address, json!({})).await;
    let mut client = Wire::connect(sidecar.traffic).await;
    client.say("hello").await;
    until_metric(&sidecar, "readygate_held_requests", "", 1.0).await;
    let mut origin = Origin::at(address).await;
    let mut app = origin.connection().await;
    assert_eq!(app.take(5).await, "hello");
    app.say("hi").await;
    assert_eq!(client.take(2).await, "hi");
    drop((origin, app));

    let sidecar = tcp(address, json!({ "hold": { "for": "200ms" } })).await;
    let mut client = Wire::connect(sidecar.traffic).await;
    assert!(client.is_reset().await);
    assert_eq!(sidecar.metric(ERRORS, "kind=\"connect_refused\"").await, 1.0);
    assert_eq!(sidecar.metric(IN_FLIGHT, "").await, 0.0);
}

#[tokio::test]
async fn tunnel_goes_on_through_the_drain_until_its_deadline() {
    let _turn = machine::shared();
    let mut origin = Origin::start().await;
    let drain = json!({ "min": "200ms", "quiet": "100ms", "deadline": "2s" });
    let mut sidecar = tcp_with(origin.address, json!({ "drain": drain })).await;
    sidecar.until_ready().await;
    let (mut client, mut app) = connected(&sidecar, &mut origin).await;
    let began = sidecar.signal("TERM");
    while began.elapsed() < Duration::from_millis(1700) {
        client.say("ping").await;
        assert_eq!(app.take(4).await, "ping");
        app.say("pong").await;
        assert_eq!(client.take(4).await, "pong");
        sleep(Duration::from_millis(20)).await;
    }
    assert!(client.is_reset().await && app.is_reset().await, "not to be taken for an end in order");
    let cut = began.elapsed();
    assert!(cut >= Duration::from_millis(1900) && cut <= Duration::from_millis(2500), "{cut:?}");
    assert_eq!(sidecar.ended(Duration::from_secs(5)).await.code(), Some(0));
    assert!(sidecar.said("\"cut\":1"));
}

#[tokio::test]
async fn drain_ends_with_the_last_tunnel() {
    let _turn = machine::shared();
    let (mut sidecar, mut origin) = house(json!({})).await;
    let (client, app) = connected(&sidecar, &mut origin).await;
    sidecar.signal("TERM");
    sleep(Duration::from_secs(1)).await;
    assert!(sidecar.runs(), "a connection is in flight");
    drop((client, app));
    assert_eq!(sidecar.ended(Duration::from_secs(5)).await.code(), Some(0));
}

#[tokio::test]
async fn slow_reader_slows_its_sender_down() {
    let _turn = machine::shared();
    const TOTAL: usize = 64 << 20;
    let (sidecar, mut origin) = house(json!({})).await;
    let (mut client, mut app) = connected(&sidecar, &mut origin).await;
    let before = machine::peak_memory(sidecar.pid());
    for sender in [&mut client, &mut app] {
        let taken = sender.flood(TOTAL).await;
        assert!(taken < TOTAL / 2, "{taken} bytes were taken and nobody reads");
    }
    let grown = machine::peak_memory(sidecar.pid()).saturating_sub(before);
    assert!(grown < 1 << 20, "{grown} bytes for what nobody reads");
}

/// 256 MiB each way; `READYGATE_TEST_GIB=1` for the scorecard's figure.
#[tokio::test]
async fn much_crosses_unchanged_and_memory_stays_flat() {
    let _turn = machine::shared();
    let total: u64 = match std::env::var("READYGATE_TEST_GIB") {
        Ok(gib) => gib.parse::<u64>().expect("a number") << 30,
        Err(_) => 256 << 20,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    // Takes a length and that many bytes, then sends as many.
    let app = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let total = stream.read_u64().await?;
                receive(&mut stream, total).await;
                send(&mut stream, total).await;
                stream.shutdown().await
            });
        }
    });
    let sidecar = tcp(address, json!({})).await;
    sidecar.until_ready().await;
    let mut memory = [0; 2];
    for (total, peak) in [BLOCK as u64, total].into_iter().zip(&mut memory) {
        let began = Instant::now();
        let mut client = TcpStream::connect(sidecar.traffic).await.expect("the port accepts");
        client.write_u64(total).await.expect("taken");
        send(&mut client, total).await;
        receive(&mut client, total).await;
        assert_eq!(client.read(&mut [0]).await.expect("an end"), 0);
        *peak = machine::peak_memory(sidecar.pid());
        println!("{} MiB each way in {:?}, peak {} KiB", total >> 20, began.elapsed(), *peak >> 10);
    }
    assert!(memory[1].saturating_sub(memory[0]) < 8 << 20, "{memory:?}");
    app.abort();
}

const BLOCK: usize = 64 << 10;

/// Bytes that are different in each block.
fn block(number: u64) -> Vec<u8> {
    let mut random = number;
    let mut block = vec![0; BLOCK];
    for word in block.chunks_exact_mut(8) {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        word.copy_from_slice(&random.to_le_bytes());
    }
    block
}

async fn send(stream: &mut TcpStream, total: u64) {
    for number in 0..total / BLOCK as u64 {
        stream.write_all(&block(number)).await.expect("taken");
    }
}

async fn receive(stream: &mut TcpStream, total: u64) {
    let mut heard = vec![0; BLOCK];
    for number in 0..total / BLOCK as u64 {
        stream.read_exact(&mut heard).await.expect("bytes");
        assert!(heard == block(number), "block {number} is not as it was sent");
    }
}
