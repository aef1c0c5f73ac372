//! Valid requests, damaged at random: whatever reaches the app is valid by the letter, and nothing of it stays.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

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
    let _turn = machine::shared();
    let app = Recorder::start().await;
    let more = json!({ "listeners": { "http": { "timeouts": { "header_read": "1s" } } } });
    let mut sidecar = super::before(app.address, more).await;
    sidecar.until_ready().await;
    let mut resident = None;
    for seed in SEEDS {
        let mut dice = Dice(seed);
        let (mut passed, mut clients) = (0, JoinSet::new());
        for round in 0..rounds() {
            let bytes = damaged(&mut dice);
            clients.spawn(send(sidecar.traffic, bytes));
            if clients.len() == AT_ONCE {
                clients.join_next().await.expect("there are some").expect("no panic");
            }
            if round % 500 == 499 {
                let log = app.take();
                passed += log.requests.len() as u64;
                assert!(log.invalid.is_empty(), "seed {seed}, up to {round}: {:?}", log.invalid);
                resident.get_or_insert_with(|| resident_kib(sidecar.pid()));
            }
        }
        while clients.join_next().await.is_some() {}
        let log = app.take();
        passed += log.requests.len() as u64;
        assert!(log.invalid.is_empty(), "seed {seed}: {:?}", log.invalid);
        assert!(passed > rounds() / 10, "only {passed} of {} requests passed", rounds());
        assert!(sidecar.runs());
        println!("seed {seed}: {passed} requests reached the app");
    }
    let refused = sidecar.metric("readygate_proxy_errors_total", "bad_request").await;
    assert!(refused > (rounds() / 2) as f64, "only {refused} were refused");
    let grown = resident_kib(sidecar.pid()).saturating_sub(resident.expect("there were 500"));
    assert!(grown <= 4 << 10, "{grown} KiB more than after the first 500");
    println!("{refused} refused, {grown} KiB grown");
}

/// Sends, ends its direction, and reads until the connection is closed.
async fn send(address: std::net::SocketAddr, bytes: Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.expect("the port accepts");
    let _ = stream.write_all(&bytes).await;
    let _ = stream.shutdown().await;
    let mut said = Vec::new();
    let closed = timeout(Duration::from_secs(10), stream.read_to_end(&mut said)).await;
    assert!(closed.is_ok(), "the connection stays after {:?}", String::from_utf8_lossy(&bytes));
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
