//! Valid requests, damaged at random: whatever reaches the app is valid by the letter, and nothing of it stays.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::frames::{self, DATA, END_STREAM, PREFACE, RST_STREAM, SETTINGS, block, frame};
use crate::support::machine;

use super::recorder::Recorder;

/// How many requests a seed makes; the release's figure is 100 000 (see CONTRIBUTING).
fn rounds() -> u64 {
    std::env::var("READYGATE_MUTATIONS").map_or(ROUNDS, |rounds| rounds.parse().expect("a number"))
}

const ROUNDS: u64 = 2000;

const SEEDS: [u64; 3] = [1, 20_261_122, 0xdead_beef];

#[tokio::test]
async fn damaged_requests_never_reach_the_app_as_anything_invalid() {
    let refused = bombard(|address, dice| tokio::spawn(send(address, damaged(dice)))).await;
    assert!(refused > (rounds() / 2) as f64, "only {refused} were refused");
}

#[tokio::test]
async fn damaged_requests_of_http2_never_reach_it_as_anything_invalid_either() {
    // Most that is wrong h2 refuses by itself, and nobody counts it.
    bombard(|address, dice| tokio::spawn(send_frames(address, damaged_frames(dice)))).await;
}

/// Sends what each seed's dice make; says how many requests were refused.
async fn bombard(send: fn(SocketAddr, &mut Dice) -> JoinHandle<()>) -> f64 {
    let _turn = machine::shared();
    let app = Recorder::start().await;
    let more = json!({ "listeners": { "http": { "timeouts": { "header_read": "1s" } } } });
    let mut sidecar = super::before(app.address, more).await;
    sidecar.until_ready().await;
    let mut resident = None;
    for seed in SEEDS {
        let mut dice = Dice(seed);
        let (mut passed, mut clients) = (0, VecDeque::new());
        for round in 0..rounds() {
            clients.push_back(send(sidecar.traffic, &mut dice));
            if clients.len() == AT_ONCE {
                clients.pop_front().expect("there are some").await.expect("no panic");
            }
            if round % 500 == 499 {
                let log = app.take();
                passed += log.requests.len() as u64;
                assert!(log.invalid.is_empty(), "seed {seed}, up to {round}: {:?}", log.invalid);
                resident.get_or_insert_with(|| resident_kib(sidecar.pid()));
            }
        }
        for client in clients {
            client.await.expect("no panic");
        }
        let log = app.take();
        passed += log.requests.len() as u64;
        assert!(log.invalid.is_empty(), "seed {seed}: {:?}", log.invalid);
        assert!(passed > rounds() / 10, "only {passed} of {} requests passed", rounds());
        assert!(sidecar.runs());
        println!("seed {seed}: {passed} requests reached the app");
    }
    let refused = sidecar.metric("readygate_proxy_errors_total", "bad_request").await;
    let grown = resident_kib(sidecar.pid()).saturating_sub(resident.expect("there were 500"));
    assert!(grown <= 4 << 10, "{grown} KiB more than after the first 500");
    println!("{refused} refused, {grown} KiB grown");
    refused
}

/// Sends, ends its direction, and reads until the connection is closed.
async fn send(address: SocketAddr, bytes: Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.expect("the port accepts");
    let _ = stream.write_all(&bytes).await;
    let _ = stream.shutdown().await;
    let mut said = Vec::new();
    let closed = timeout(Duration::from_secs(10), stream.read_to_end(&mut said)).await;
    assert!(closed.is_ok(), "the connection stays after {:?}", String::from_utf8_lossy(&bytes));
}

/// Sends, and reads until the connection is closed, both streams ended, or nothing more comes: a damaged frame may
/// leave a stream open.
async fn send_frames(address: SocketAddr, bytes: Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.expect("the port accepts");
    let _ = stream.write_all(&bytes).await;
    let mut ended = 0;
    while ended < 2 {
        match timeout(Duration::from_millis(100), frames::read(&mut stream)).await {
            Ok(Some(frame)) if frame.stream > 0 && (frame.has(END_STREAM) || frame.kind == RST_STREAM) => {
                ended += 1;
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => break,
        }
    }
    // By a reset: so many that linger would leave no port for the next.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}

const AT_ONCE: usize = 8;

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// One or two requests of the corpus after one to four injuries.
fn damaged(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = dice.of(CORPUS).as_bytes().to_vec();
    if dice.below(3) == 0 {
        bytes.extend_from_slice(dice.of(CORPUS).as_bytes());
    }
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len());
        let until = (at + 1 + dice.below(20)).min(bytes.len());
        match dice.below(8) {
            0 => bytes[at] = dice.below(256) as u8,
            1 => bytes[at] = *dice.of(BYTES),
            2 => bytes.insert(at, *dice.of(BYTES)),
            3 => drop(bytes.drain(at..until)),
            4 => {
                let part = bytes[at..until].to_vec();
                let to = dice.below(bytes.len());
                bytes.splice(to..to, part);
            }
            // Where it hurts: beside the end of a line.
            5 => {
                let ends: Vec<usize> =
                    (0..bytes.len()).filter(|at| matches!(bytes[*at], b'\r' | b'\n' | b':')).collect();
                if !ends.is_empty() {
                    let at = *dice.of(&ends);
                    match dice.below(3) {
                        0 => bytes[at] = *dice.of(BYTES),
                        1 => bytes.insert(at + dice.below(2), *dice.of(BYTES)),
                        _ => drop(bytes.remove(at)),
                    }
                }
            }
            _ => {
                let lines: Vec<usize> =
                    (0..bytes.len()).filter(|at| bytes[..*at].ends_with(b"\r\n")).collect();
                if !lines.is_empty() {
                    let at = *dice.of(&lines);
                    bytes.splice(at..at, dice.of(LINES).bytes());
                }
            }
        }
        if bytes.is_empty() {
            bytes.push(b'G');
        }
    }
    bytes
}

/// A connection of HTTP/2 with two requests whose fields are put together at random, and now and then a
/// byte that is not what it was.
fn damaged_frames(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    for stream in [1, 3] {
        let mut fields: Vec<(String, String)> =
            [(":method", *dice.of(&["GET", "POST"])), (":scheme", "http")]
                .into_iter()
                .chain([(":authority", "app.test"), (":path", "/a?b=c"), ("user-agent", "curl/8.5.0")])
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
        for _ in 0..dice.below(3) {
            let (name, value) = (*dice.of(NAMES), *dice.of(VALUES));
            let at = dice.below(fields.len());
            match dice.below(6) {
                0 => drop(fields.remove(at)),
                1 => fields.insert(at, (name.to_owned(), value.to_owned())),
                2 => fields[at].1 = value.to_owned(),
                3 => fields[at].1.push(char::from(*dice.of(BYTES))),
                4 => fields[at].0.push(char::from(*dice.of(BYTES))),
                _ => fields.push((name.to_owned(), value.to_owned())),
            }
        }
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let body = dice.below(3) > 0;
        bytes.extend(frames::head(if body { 0 } else { END_STREAM }, stream, &block(&fields)));
        if body {
            let trailers = dice.below(4) == 0;
            let data = &b"GET /b HTTP/1.1\r\nHost: app.test\r\n\r\n"[..dice.below(36)];
            bytes.extend(frame(DATA, if trailers { 0 } else { END_STREAM }, stream, data));
            if trailers {
                let (name, value) = (*dice.of(NAMES), *dice.of(VALUES));
                bytes.extend(frames::head(END_STREAM, stream, &block(&[(name, value)])));
            }
        }
    }
    if dice.below(4) == 0 {
        let at = PREFACE.len() + dice.below(bytes.len() - PREFACE.len());
        bytes[at] = dice.below(256) as u8;
    }
    bytes
}

/// A generator of numbers that look random (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }

    fn of<'a, T>(&mut self, things: &'a [T]) -> &'a T {
        &things[self.below(things.len())]
    }
}

const BYTES: &[u8] = b"\r\n\0 \t:;,./?#@[]\"+-0159afxAZ\x01\x0b\x0c\x1b\x7f\x80\xa0\xff";

const LINES: &[&str] = &[
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Transfer-Encoding:\r\n chunked\r\n",
    "transfer-encoding: gzip, chunked\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 005\r\n",
    "content-length: 5, 5\r\n",
    "Content-Length: +5\r\n",
    "Host: other.test\r\n",
    "Host: a, b\r\n",
    "Connection: host\r\n",
    "Connection: content-length, close\r\n",
    "Connection: X-Forwarded-For\r\n",
    "Upgrade: websocket\r\nConnection: upgrade\r\n",
    " folded\r\n",
    "\r\n",
    "0\r\n\r\n",
    "5\r\nhello\r\n",
    "X: \u{e4}\r\n",
    "GET /b HTTP/1.1\r\n",
    "GET / HTTP/1.0\r\n",
];

const CORPUS: &[&str] = &[
    "GET /a HTTP/1.1\r\nHost: app.test\r\n\r\n",
    "GET /a?b=c&d=%20e HTTP/1.1\r\nHost: app.test:8080\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n",
    "GET http://app.test/a HTTP/1.1\r\nHost: app.test\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
    "HEAD / HTTP/1.0\r\nHost: app.test\r\nConnection: keep-alive\r\n\r\n",
    "POST /a HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\n\r\nhello",
    "PUT /a HTTP/1.1\r\nHost: app.test\r\nContent-Type: text/plain\r\nContent-Length: 40\r\n\r\nGET /b HTTP/1.1\r\nHost: app.test\r\n\r\n1234567",
    "POST /a HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "POST /a HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n5;a=b\r\nhello\r\nA\r\n0123456789\r\n0\r\nx-sum: 1\r\n\r\n",
    "GET /a HTTP/1.1\r\nHost: app.test\r\nConnection: keep-alive, x-mine\r\nX-Mine: 1\r\nTE: trailers\r\nCookie: a=b\r\n\r\n",
    "GET /a HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n",
    "DELETE /a/b HTTP/1.1\r\nHost: app.test\r\nX-Forwarded-For: 1.1.1.1\r\nForwarded: for=1.1.1.1\r\n\r\n",
];

const NAMES: &[&str] = &[
    ":method",
    ":scheme",
    ":authority",
    ":path",
    ":status",
    ":protocol",
    "host",
    "content-length",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "cookie",
    "expect",
    "x-forwarded-for",
    "X-Upper",
    "",
    "a b",
    "a:b",
    "a\r\nb",
];

const VALUES: &[&str] = &[
    "",
    "0",
    "5",
    "05",
    "+5",
    "5, 5",
    "36",
    "chunked",
    "identity",
    "close",
    "host",
    "websocket",
    "trailers",
    "gzip",
    "app.test",
    "other.test",
    "app.test:80",
    "u@app.test",
    "/",
    "*",
    "//b",
    "/a b",
    "/a#b",
    "http://other.test/",
    "GET",
    "CONNECT",
    "GET /b HTTP/1.1",
    "1\r\n\r\nGET /b HTTP/1.1\r\nhost: app.test\r\n\r\n",
    " 5",
    "5 ",
    "a=b",
    "100-continue",
    "\0",
    "\u{e4}",
    "1.1.1.1",
];
