//! Warm-ups of real apps through the real binary: routes, files, bytes, budgets, and a gate that opens when it should.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::tls::Pki;
use crate::support::{Scratch, Sidecar, TestApp, config, eventually, machine, merge};

/// A configuration with the check `warm` of these keys before the app.
fn warmed(app: &TestApp, keys: Value) -> Value {
    config(app, json!({ "checks": { "warm": { "warmup": keys } } }))
}

/// What `/status` says of the check `warm`.
async fn warm(sidecar: &Sidecar) -> Value {
    let status: Value = serde_json::from_str(&sidecar.ask("/status").await.text()).expect("JSON");
    let checks = status["checks"].as_array().expect("a list");
    checks.iter().find(|check| check["name"] == json!("warm")).expect("it is there").clone()
}

#[tokio::test]
async fn gate_opens_within_15_percent_of_the_request_that_makes_the_app_fast_enough() {
    let _turn = machine::alone();
    // Milliseconds of median latency: 5 + 400·e^(−n/120), noise with sigma 0.1.
    let app = TestApp::start(&["--curve", "400,120,5,0.1"]).await;
    // Its 95 % quantile, 1.179 times the median, is within 80 ms from this request on.
    let ideal = 120.0 * (400.0_f64 / (80.0 / 1.179 - 5.0)).ln();
    let keys = json!({ "requests": ["GET /"], "target": { "latency": "80ms" }, "concurrency": 8 });
    let sidecar = Sidecar::start(&warmed(&app, keys)).await;
    sidecar.until_ready().await;
    let evidence = warm(&sidecar).await["evidence"].clone();
    let requests = evidence["requests"].as_f64().expect("a number");
    // The machine's own noise comes on top of the app's.
    assert!((requests / ideal - 1.0).abs() <= 0.15, "{requests}, ideal {ideal:.0}: {evidence}");
    assert!(evidence["first_window"]["p99_ms"].as_f64().expect("a number") > 300.0, "{evidence}");
    eventually("the log says so in one line", Duration::from_secs(5), async || {
        sidecar.field("warm-up passed", "evidence").is_some()
    })
    .await;
    let said = sidecar.field("warm-up passed", "evidence").expect("waited for");
    assert!(said.starts_with("GET /: ") && said.contains("100% ok, p50/p95/p99 "), "{said}");
}

#[tokio::test]
async fn gate_opens_by_its_plateau_for_an_app_that_stays_slower_than_anybody_knew() {
    let _turn = machine::alone();
    let app = TestApp::start(&["--curve", "320,60,80,0.05"]).await;
    let keys = json!({ "requests": ["GET /"], "plateau": "10%", "concurrency": 8 });
    let sidecar = Sidecar::start(&warmed(&app, keys)).await;
    sidecar.until_ready().await;
    let evidence = warm(&sidecar).await["evidence"].clone();
    let requests = evidence["requests"].as_f64().expect("a number");
    let median = |n: u32| 80.0 + 320.0 * (-f64::from(n) / 60.0).exp();
    let mean = |end: u32| (end - 50..end).map(median).sum::<f64>();
    let ideal = (100..).find(|end| 1.0 - mean(*end) / mean(end - 50) <= 0.1).expect("it settles");
    // What other processes do to latency is noise, too, and counts here: simulated, it is 15 %.
    assert!((requests / f64::from(ideal) - 1.0).abs() <= 0.25, "{requests}, ideal {ideal}: {evidence}");
}

#[tokio::test]
async fn slow_route_is_not_hidden_by_fast_ones_and_is_named() {
    let _turn = machine::shared();
    let app = TestApp::start(&[]).await;
    let requests = json!([
        { "path": "/fast", "weight": 8 },
        { "path": "/slow?delay=60", "name": "search", "until": { "latency": "20ms" } },
    ]);
    let keys =
        |requests: &Value| json!({ "requests": requests, "target": { "latency": "1s" }, "min_requests": 45 });
    let sidecar = Sidecar::start(&warmed(&app, keys(&requests))).await;
    eventually("it says which route is too slow", Duration::from_secs(20), async || {
        let line = sidecar.ask("/ready").await.text();
        line.contains("1 of 2 routes pass; search: 20/20 ok, p95 ") && line.contains("ms > 20ms")
    })
    .await;
    let patient = merge(requests[1].clone(), json!({ "until": { "latency": "500ms" } }));
    sidecar.reconfigure(&warmed(&app, keys(&json!([requests[0], patient]))));
    sidecar.until_ready().await;
    let routes = warm(&sidecar).await["evidence"]["routes"].clone();
    assert_eq!((&routes[0]["route"], &routes[1]["route"]), (&json!("GET /fast"), &json!("search")));
    let sent = |route: usize| routes[route]["requests"].as_f64().expect("a number");
    // Those under way at the end are not counted.
    assert!((sent(0) / sent(1) - 8.0).abs() <= 2.0, "{routes}");
}

#[tokio::test]
async fn files_are_read_for_each_arm_as_bytes_and_a_missing_one_says_so() {
    let _turn = machine::shared();
    let scratch = Scratch::new();
    let (body, token) = (scratch.join("body"), scratch.join("token"));
    // An app that gives back the head and the body of the last request.
    let heard = echo().await;
    let keys = json!({
        "requests": [{
            "method": "POST", "path": "/", "body": { "file": body },
            "headers": { "x-token": { "file": token }, "x-plain": ["a", "b"] },
        }],
        "min_requests": 2,
    });
    let config = json!({
        "listeners": { "http": { "listen": "127.0.0.1:0", "upstream": format!("http://{}", heard.address) } },
        "admin": { "listen": "127.0.0.1:0" },
        "checks": { "warm": { "warmup": keys, "interval_failing": "50ms" } },
    });
    let sidecar = Sidecar::start(&config).await;
    for (missing, path, bytes) in
        [("headers", &token, b"first\n".as_slice()), ("body", &body, b"\xff\x00\r\n")]
    {
        let line = format!("requests.0.{missing}: cannot read {}: No such file", path.display());
        eventually(&line, Duration::from_secs(10), async || {
            sidecar.ask("/ready").await.text().contains(&line)
        })
        .await;
        std::fs::write(path, bytes).expect("writable");
    }
    sidecar.until_ready().await;
    let last = heard.last();
    assert!(last.ends_with(b"\r\n\r\n\xff\x00\r\n"), "{}", last.escape_ascii());
    let head = String::from_utf8_lossy(&last).into_owned();
    assert!(head.contains("x-token: first\r\n") && head.contains("x-plain: a\r\nx-plain: b\r\n"), "{head}");

    std::fs::write(&token, "second").expect("writable");
    let changed = merge(config, json!({ "checks": { "warm": { "warmup": { "min_requests": 3 } } } }));
    sidecar.reconfigure(&changed);
    eventually("the new token is sent", Duration::from_secs(10), async || {
        String::from_utf8_lossy(&heard.last()).contains("x-token: second\r\n")
    })
    .await;
}

/// An app of HTTP/1.1 that remembers the last request whose body is done.
struct Echo {
    address: std::net::SocketAddr,
    last: std::sync::Arc<std::sync::Mutex<Vec<u8>>>,
}

impl Echo {
    fn last(&self) -> Vec<u8> {
        self.last.lock().expect("no panic under it").clone()
    }
}

async fn echo() -> Echo {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let last = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = std::sync::Arc::clone(&last);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let heard = std::sync::Arc::clone(&heard);
            tokio::spawn(async move {
                let mut read = Vec::new();
                while stream.read_buf(&mut read).await? > 0 {
                    // The body of the test has four bytes.
                    let end = read.windows(4).position(|bytes| bytes == b"\r\n\r\n").map(|at| at + 8);
                    if end.is_some_and(|end| read.len() >= end) {
                        *heard.lock().expect("no panic under it") = std::mem::take(&mut read);
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
                    }
                }
                std::io::Result::Ok(())
            });
        }
    });
    Echo { address, last }
}

/// An app of bytes that answers each line `PING` with `+PONG <turn>`, the first ones slowly. Counts its connections.
async fn ponging() -> (std::net::SocketAddr, std::sync::Arc<std::sync::atomic::AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let count = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let turns = std::sync::Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let turn = turns.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            tokio::spawn(async move {
                let mut line = [0; 6];
                while stream.read_exact(&mut line).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(if turn < 30 { 60 } else { 0 })).await;
                    let answer = if &line == b"PING\r\n" {
                        format!("+PONG {turn}\r\n")
                    } else {
                        "-ERR\r\n".to_owned()
                    };
                    stream.write_all(answer.as_bytes()).await?;
                }
                std::io::Result::Ok(())
            });
        }
    });
    (address, count)
}

fn bytes_config(app: std::net::SocketAddr, requests: Value) -> Value {
    json!({
        "listeners": { "http": {
            "listen": "127.0.0.1:0", "upstream": format!("tcp://{app}"), "not_ready": "reject",
        } },
        "admin": { "listen": "127.0.0.1:0" },
        "checks": { "warm": { "timeout": "2s", "warmup": {
            "requests": requests, "min_requests": 20, "target": { "latency": "40ms" },
        } } },
    })
}

#[tokio::test]
async fn app_of_bytes_is_warmed_through_its_closed_gate() {
    let _turn = machine::shared();
    let (app, count) = ponging().await;
    let ping = json!({ "tcp": { "send": "PING\r\n", "expect_bytes": { "base64": "K1BPTkcg" } } });
    let sidecar = Sidecar::start(&bytes_config(app, json!([ping, { "tcp": {}, "name": "connect" }]))).await;
    sidecar.until_ready().await;
    let evidence = warm(&sidecar).await["evidence"].clone();
    let routes = &evidence["routes"];
    assert_eq!((&routes[0]["route"], &routes[1]["route"]), (&json!("connection"), &json!("connect")));
    assert!(routes[0]["first_window"]["p50_ms"].as_f64().expect("a number") >= 50.0, "{evidence}");
    assert!(count.load(std::sync::atomic::Ordering::Relaxed) >= 40);
    // It is no traffic.
    assert_eq!(sidecar.metric("readygate_requests_in_flight", "").await, 0.0);
    assert_eq!(sidecar.metric("readygate_proxy_errors_total", "").await, 0.0);
    let mut client = TcpStream::connect(sidecar.traffic).await.expect("it listens");
    client.write_all(b"PING\r\n").await.expect("sent");
    let mut answer = [0; 5];
    client.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"+PONG");
}

#[tokio::test]
async fn app_of_bytes_that_answers_otherwise_is_not_warm_and_nobody_else_comes_by_the_entrance() {
    let _turn = machine::shared();
    let (app, _) = ponging().await;
    let say = json!({ "tcp": { "send": "HELLO\n", "expect_bytes": "+PONG" } });
    let config = merge(bytes_config(app, json!([say])), json!({ "log": { "level": "debug" } }));
    let sidecar = Sidecar::start(&config).await;
    let why = "connection answered \"-ERR\\r\", which does not begin as expect_bytes says";
    eventually(why, Duration::from_secs(10), async || sidecar.ask("/ready").await.text().contains(why)).await;
    let entrance = sidecar.field("warm-up requests come in", "address").expect("it says so");
    let mut stranger = TcpStream::connect(&entrance).await.expect("it listens");
    stranger.write_all(b"PING\r\nPING\r\nPING\r\nPING\r\nPING\r\nPING\r\n").await.expect("sent");
    assert!(stranger.read(&mut [0]).await.is_err(), "it is reset");
    assert!(sidecar.metric("readygate_proxy_errors_total", "forbidden").await >= 1.0);
}

#[tokio::test]
async fn app_of_bytes_behind_tls_is_warmed_without_a_certificate() {
    let _turn = machine::shared();
    let Some(pki) = Pki::new() else { return };
    pki.leaf("server", "root");
    let (app, _) = ponging().await;
    let tls = json!({
        "cert": pki.path("server.crt"), "key": pki.path("server.key"), "client_ca": pki.path("root.crt"),
    });
    let ping = json!({ "tcp": { "send": "PING\r\n", "expect_bytes": "+PONG " } });
    let config = merge(bytes_config(app, json!([ping])), json!({ "listeners": { "http": { "tls": tls } } }));
    Sidecar::start(&config).await.until_ready().await;
}

#[tokio::test]
async fn budget_counts_from_when_the_dependencies_passed() {
    let _turn = machine::shared();
    let scratch = Scratch::new();
    let flag = scratch.join("flag");
    let app = TestApp::start(&[]).await;
    // Ten requests of 60 ms one after the other are more than half of the budget.
    let keys = json!({
        "requests": ["GET /?delay=60"], "min_requests": 10, "concurrency": 1, "budget": "1500ms", "on_budget_exhausted": "pass",
    });
    let config = config(
        &app,
        json!({ "checks": {
        "migrated": { "file": { "path": flag }, "interval_failing": "50ms" },
        "warm": { "warmup": keys, "after": ["migrated"] },
    } }),
    );
    let sidecar = Sidecar::start(&config).await;
    let mut fails = 0.0;
    eventually("it waits for longer than its budget", Duration::from_secs(20), async || {
        fails = sidecar.metric("readygate_check_runs_total", "migrated").await;
        fails >= 35.0
    })
    .await;
    assert_eq!(sidecar.metric("readygate_warmup_requests_total", "").await, 0.0);
    std::fs::write(&flag, "").expect("writable");
    sidecar.until_ready().await;
    let evidence = warm(&sidecar).await["evidence"].clone();
    assert_eq!(evidence["budget_exhausted"], json!(false), "{evidence}");
    assert!(evidence["seconds"].as_f64().expect("a number") >= 0.6, "{evidence}");
}

#[tokio::test]
async fn budget_ends_a_warmup_that_cannot_even_begin_if_passing_is_wanted() {
    let _turn = machine::shared();
    let app = TestApp::start(&[]).await;
    let keys = json!({
        "requests": [{ "path": "/", "headers": { "a": { "file": "/nonexistent" } } }],
        "budget": "500ms", "on_budget_exhausted": "pass",
    });
    let sidecar = Sidecar::start(&merge(
        warmed(&app, keys),
        json!({ "checks": { "warm": { "interval_failing": "50ms" } } }),
    ))
    .await;
    assert!(sidecar.until_ready().await >= Duration::from_millis(300));
    assert_eq!(sidecar.metric("readygate_check_runs_total", "exhausted").await, 1.0);
}
