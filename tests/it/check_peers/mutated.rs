//! Answers of servers, damaged at random and cut into random pieces: every run ends in time, and none panics.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener as StdListener};
use std::process::Command;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::{Row, rows};
use crate::support::Scratch;
use crate::support::checks::run;

/// What befalls the bytes of a server.
#[derive(Clone, Debug)]
enum Injury {
    Replace(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize),
    /// Where a length may stand.
    Huge(Index),
    Cut(Index),
    /// Nothing of it is left.
    Random(Vec<u8>),
}

impl Injury {
    fn befall(&self, bytes: &mut Vec<u8>) {
        let at = |index: &Index, bytes: &[u8]| index.index(bytes.len() + 1);
        match self {
            Self::Replace(index, byte) => {
                let at = at(index, bytes);
                bytes.splice(at..bytes.len().min(at + 1), [*byte]);
            }
            Self::Insert(index, more) => {
                let at = at(index, bytes);
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Remove(index, length) => {
                let at = at(index, bytes);
                bytes.drain(at..bytes.len().min(at + length));
            }
            Self::Repeat(index, length) => {
                let at = at(index, bytes);
                let part = bytes[at..bytes.len().min(at + length)].to_vec();
                bytes.splice(at..at, part);
            }
            Self::Huge(index) => huge(bytes, at(index, bytes)),
            Self::Cut(index) => bytes.truncate(at(index, bytes)),
            Self::Random(other) => bytes.clone_from(other),
        }
    }
}

fn injury() -> impl Strategy<Value = Injury> {
    let index = any::<Index>;
    prop_oneof![
        3 => (index(), any::<u8>()).prop_map(|(at, byte)| Injury::Replace(at, byte)),
        1 => (index(), vec(any::<u8>(), 1..20)).prop_map(|(at, more)| Injury::Insert(at, more)),
        1 => (index(), 1..20_usize).prop_map(|(at, length)| Injury::Remove(at, length)),
        1 => (index(), 1..200_usize).prop_map(|(at, length)| Injury::Repeat(at, length)),
        2 => index().prop_map(Injury::Huge),
        1 => index().prop_map(Injury::Cut),
        1 => vec(any::<u8>(), 0..300).prop_map(Injury::Random),
    ]
}

/// How a server goes on after its last byte.
#[derive(Clone, Copy, Debug)]
enum End {
    Close,
    Reset,
    Silence,
}

/// The server of one run: says these pieces, the first once it was asked unless it is one that speaks first.
async fn serve(listener: TcpListener, pieces: Vec<Vec<u8>>, server_first: bool, end: End) {
    let Ok((mut stream, _)) = listener.accept().await else { return };
    let _ = stream.set_nodelay(true);
    for (index, piece) in pieces.iter().enumerate() {
        if index > 0 || !server_first {
            hear(&mut stream).await;
        }
        if stream.write_all(piece).await.is_err() {
            return;
        }
    }
    match end {
        End::Close => {
            let _ = stream.shutdown().await;
            while timeout(A_MOMENT, stream.read(&mut [0; 4096]))
                .await
                .is_ok_and(|read| read.is_ok_and(|n| n > 0))
            {}
        }
        // What was not read turns the end into a reset.
        End::Reset => drop(stream),
        End::Silence => std::future::pending().await,
    }
}

/// Reads what the client says, if it says anything soon.
async fn hear(stream: &mut TcpStream) {
    let _ = timeout(A_MOMENT, stream.read(&mut [0; 4096])).await;
}

/// One run against such a server: whether it passed, and how long it took.
async fn one(row: &Row, pieces: Vec<Vec<u8>>, end: End, longest: Duration) -> (bool, Duration) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let own = row.keys(&listener.local_addr().expect("bound").to_string(), false);
    let server = tokio::spawn(serve(listener, pieces, row.server_first, end));
    let began = Instant::now();
    let result = run(row.kind, own, longest).await;
    server.abort();
    if let Err(error) = &result {
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    (result.is_ok(), began.elapsed())
}

/// `bytes` cut at these places.
fn pieces(bytes: &[u8], cuts: &[Index]) -> Vec<Vec<u8>> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.sort_unstable();
    cuts.push(bytes.len());
    let mut from = 0;
    let piece = |to: usize| {
        let piece = bytes[from..to].to_vec();
        from = to;
        piece
    };
    cuts.into_iter().map(piece).collect()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

#[test]
fn no_bytes_make_a_check_panic_or_wait_past_its_timeout() {
    let rows: Vec<_> = rows().into_iter().map(|row| std::thread::spawn(move || injure(&row))).collect();
    for row in rows {
        row.join().expect("the property holds");
    }
}

fn injure(row: &Row) {
    let runtime = runtime();
    let whole = row.script.concat();
    if !whole.is_empty() {
        let (passed, _) = runtime.block_on(one(row, row.script.clone(), End::Close, PATIENCE));
        assert!(passed, "{} fails with a sound server", row.name());
    }
    let ends = prop_oneof![4 => Just(End::Close), 1 => Just(End::Reset), 1 => Just(End::Silence)];
    let case = (vec(injury(), 1..4), vec(any::<Index>(), 0..4), ends);
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    let property = |(injuries, cuts, end): (Vec<Injury>, Vec<Index>, End)| {
        let mut bytes = whole.clone();
        injuries.iter().for_each(|injury| injury.befall(&mut bytes));
        let (_, took) = runtime.block_on(one(row, pieces(&bytes, &cuts), end, TIMEOUT));
        prop_assert!(took < TIMEOUT + PATIENCE, "{} took {took:?}", row.name());
        Ok(())
    };
    let held = TestRunner::new(config).run(&case, property);
    assert!(held.is_ok(), "{}: {}", row.name(), held.expect_err("it does not hold"));
}

/// A process that may not have 512 MiB of address space asks servers that announce 2 GiB and more, wherever a length
/// may stand.
#[test]
fn an_announced_length_is_not_believed() {
    let mut announcements: Vec<(Row, Vec<u8>)> = Vec::new();
    for row in rows() {
        let whole = row.script.concat();
        let again = |bytes| {
            (Row { kind: row.kind, more: row.more.clone(), script: Vec::new(), server_first: true }, bytes)
        };
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            huge(&mut bytes, at);
            announcements.push(again(bytes));
        }
    }
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7fffffffffffffff\r\nok".to_vec();
    let long = b"HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551615\r\n\r\nok".to_vec();
    for said in [chunked, long] {
        let more = json!({ "body_matches": "ok" });
        announcements.push((Row { kind: "http", more, script: Vec::new(), server_first: true }, said));
    }
    let listener = StdListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("bound").to_string();
    let said: Vec<Vec<u8>> = announcements.iter().map(|(_, said)| said.clone()).collect();
    // One check after the other, so each connection is that of the next one.
    std::thread::spawn(move || {
        for (said, stream) in said.iter().zip(listener.incoming()) {
            let Ok(mut stream) = stream else { return };
            let _ = stream.write_all(said).and_then(|()| stream.shutdown(Shutdown::Write));
            let _ = stream.set_read_timeout(Some(PATIENCE));
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    assert!(announcements.len() > 500, "{}", announcements.len());
    for rows in announcements.chunks(MOST_CHECKS) {
        let own = rows.iter().map(|(row, _)| json!({ row.kind: row.keys(&address, false) }));
        let checks: Map<String, Value> =
            own.enumerate().map(|(index, own)| (format!("c{index}"), own)).collect();
        let results = check_with_little_memory(&json!({ "checks": checks }));
        assert_eq!(results.len(), rows.len());
        for ((row, said), result) in rows.iter().zip(results) {
            let waits = result["why"].as_str().is_some_and(|why| why.contains("no answer within"));
            assert!(!waits, "the server ends at once, and yet: {} {said:02x?} {result}", row.name());
        }
    }
}

/// What `readygate check` prints, with 512 MiB of address space.
fn check_with_little_memory(config: &Value) -> Vec<Value> {
    let scratch = Scratch::new();
    let file = scratch.join("config.json");
    std::fs::write(&file, config.to_string()).expect("a file");
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -v 524288 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_readygate")]);
    let done =
        limited.args(["check", "--output", "json", "--config"]).arg(&file).output().expect("it starts");
    assert_eq!(done.status.code(), Some(1), "{}", String::from_utf8_lossy(&done.stderr));
    let shown: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    shown["checks"].as_array().expect("a list").clone()
}

/// Puts a number of about 2 GiB here, in either order of bytes.
fn huge(bytes: &mut Vec<u8>, at: usize) {
    bytes.splice(at..bytes.len().min(at + 4), [0x7f, 0xff, 0xff, 0x7f]);
}

/// Of one configuration.
const MOST_CHECKS: usize = 250;

/// Of each row; some thousand in all.
const CASES: u32 = 60;

const TIMEOUT: Duration = Duration::from_millis(100);

/// For a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(5);

/// In which a client on this machine says the next thing, if it has one to say.
const A_MOMENT: Duration = Duration::from_millis(10);
