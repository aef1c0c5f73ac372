//! S16 and S17: one client floods its connection with frames of HTTP/2, and nobody else notices.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Sidecar, TestApp, config, get, machine};

/// A frame (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `:method`, `:scheme http` and `:path /` by index, `:authority a` as a literal (RFC 7541, appendix A).
fn head(method: u8) -> Vec<u8> {
    vec![method, 0x86, 0x84, 0x01, 1, b'a']
}

const GET: u8 = 0x82;
const POST: u8 = 0x83;

/// The streams of a client, in order.
fn stream(number: u32) -> u32 {
    2 * number + 1
}

type Flood = Box<dyn Iterator<Item = Vec<u8>> + Send>;

fn floods() -> Vec<(&'static str, Flood)> {
    const FRAMES: u32 = 20_000;
    let get = |number| frame(HEADERS, END_STREAM | END_HEADERS, stream(number), &head(GET));
    let same = |frame: Vec<u8>| -> Flood { Box::new(std::iter::repeat_n(frame, FRAMES as usize)) };
    let after = |first: Vec<u8>, frame: Vec<u8>| -> Flood {
        Box::new(std::iter::once(first).chain(std::iter::repeat_n(frame, FRAMES as usize)))
    };
    // One large field for the table, then thousands of references to it, on streams that may not be answered.
    let mut large = head(GET);
    large.extend([0x40, 3, b'x', b'-', b'a', 0x7f, 0x81, 0x16]);
    large.extend([b'b'; 2944]);
    let mut references = head(GET);
    references.extend([0xbe; 4000]);
    let bomb =
        (1..100).map(move |number| frame(HEADERS, END_STREAM | END_HEADERS, stream(number), &references));
    let first = [
        frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]),
        frame(HEADERS, END_STREAM | END_HEADERS, stream(0), &large),
    ];
    vec![
        (
            "rapid reset",
            Box::new(
                (0..FRAMES / 2).flat_map(move |number| {
                    [get(number), frame(RST_STREAM, 0, stream(number), &[0, 0, 0, 8])]
                }),
            ),
        ),
        (
            "resets of the sidecar's own",
            Box::new((0..FRAMES / 2).flat_map(move |number| {
                [get(number), frame(WINDOW_UPDATE, 0, stream(number), &[0, 0, 0, 0])]
            })),
        ),
        (
            "CONTINUATION",
            after(frame(HEADERS, 0, 1, &head(GET)), frame(CONTINUATION, 0, 1, &[0, 1, b'a', 1, b'b'])),
        ),
        ("PING", same(frame(PING, 0, 0, b"12345678"))),
        ("SETTINGS", same(frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]))),
        ("empty DATA", after(frame(HEADERS, END_HEADERS, 1, &head(POST)), frame(DATA, 0, 1, &[]))),
        ("WINDOW_UPDATE", same(frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]))),
        (
            "PRIORITY",
            Box::new((0..FRAMES).map(|number| frame(PRIORITY, 0, stream(number), &[0, 0, 0, 0, 1]))),
        ),
        ("header bomb", Box::new(first.into_iter().chain(bomb))),
    ]
}

/// Sends it all, or until the other side closes; reads what comes meanwhile. Leaves the connection open.
fn send(address: SocketAddr, flood: Flood) -> TcpStream {
    let mut connection = TcpStream::connect(address).expect("the port accepts");
    let mut reader = connection.try_clone().expect("a descriptor");
    std::thread::spawn(move || while matches!(reader.read(&mut [0; 16 << 10]), Ok(1..)) {});
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat();
    let _ = connection.write_all(&preface);
    for frame in flood {
        if connection.write_all(&frame).is_err() {
            break;
        }
    }
    connection
}

/// Resident memory, in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux says so");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

#[tokio::test]
async fn flood_of_frames_is_noticed_by_nobody_else() {
    let _turn = machine::alone();
    let app = TestApp::start(&[]).await;
    let sidecar = Sidecar::start(&config(&app, json!({ "workers": 1 }))).await;
    sidecar.until_ready().await;
    for _ in 0..200 {
        get(sidecar.traffic, "/").await.expect("an answer");
    }
    let mut seen = 0;
    for (name, flood) in floods() {
        let before = resident(sidecar.pid());
        let over = Arc::new(AtomicBool::new(false));
        let (address, told) = (sidecar.traffic, Arc::clone(&over));
        let flooding = std::thread::spawn(move || {
            let connection = send(address, flood);
            told.store(true, Ordering::Relaxed);
            connection
        });
        let (mut peak, mut slowest) = (0, Duration::ZERO);
        let mut rounds = 0;
        while !over.load(Ordering::Relaxed) || rounds < 10 {
            let answer =
                get(sidecar.traffic, "/").await.unwrap_or_else(|failure| panic!("{name}: {failure:?}"));
            assert_eq!(answer.status, 200, "{name}");
            let began = Instant::now();
            assert!(sidecar.ready().await, "{name}");
            slowest = slowest.max(began.elapsed());
            peak = peak.max(resident(sidecar.pid()));
            rounds += 1;
        }
        let grown = peak.saturating_sub(before);
        println!("{name}: +{grown} KiB, {rounds} rounds, /ready at most {slowest:?}");
        assert!(grown <= 4 << 10, "{name}: +{grown} KiB");
        // S11 allows as much; a busy machine takes most of it.
        assert!(slowest < Duration::from_millis(100), "{name}: {slowest:?}");
        drop(flooding.join().expect("no panic"));
        seen += 1;
    }
    assert_eq!(seen, 9);
}
