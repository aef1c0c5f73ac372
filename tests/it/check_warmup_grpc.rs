//! gRPC calls warm an app as its users' channels would: over HTTP/2, one connection a client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use readygate::check::CheckResult;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::support::checks::{News, accept, listener, run_with};
use crate::support::python::PythonServer;
use crate::support::servers::{free_port, stranger};
use crate::support::{Sidecar, eventually};

/// Warms through this address.
async fn warm(address: SocketAddr, requests: Value, more: Value) -> CheckResult {
    let mut own = json!({ "requests": requests, "min_requests": 20 });
    own.as_object_mut().expect("a map").extend(more.as_object().cloned().expect("a map"));
    run_with("warmup", own, Duration::from_secs(5), &News::default(), Some(address)).await
}

fn address_of(server: &PythonServer) -> SocketAddr {
    server.address().parse().expect("an address")
}

/// Passes bytes on to the server, and counts connections.
async fn counted(server: &PythonServer) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let (address, to) = (listener.local_addr().expect("bound"), address_of(server));
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.expect("accept");
            count.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut far = TcpStream::connect(to).await.expect("it serves");
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    (address, connections)
}

#[tokio::test]
async fn calls_carry_message_metadata_and_token_over_one_connection_a_client() {
    let Some(server) = PythonServer::start("health.py", &[]) else { return };
    let (address, connections) = counted(&server).await;
    let said = json!({
        "grpc": "/test.Echo/Say",
        "message": "CgVoZWxsbw==",
        "metadata": { "Wanted-Length": "7", "wanted-metadata": "x-readygate-warmup=token-of-the-test" },
    });
    let agent = json!({
        "grpc": "/test.Echo/Say",
        "metadata": { "wanted-metadata": concat!("user-agent=readygate/", env!("CARGO_PKG_VERSION")) },
    });
    let requests = json!([said, agent, { "grpc": "health" }, { "grpc": "health", "service": "serving" }]);
    let evidence =
        warm(address, requests, json!({ "concurrency": 3, "success_ratio": 1.0 })).await.expect("passes");
    // Each call is a route of its own.
    assert_eq!(evidence.summary.matches(": 20/20 ok, p95 ").count(), 4, "{}", evidence.summary);
    assert_eq!(connections.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_large_message_and_its_answer_go_through() {
    let Some(server) = PythonServer::start("health.py", &[]) else { return };
    // 3 000 000 bytes of zero.
    let said = json!({
        "grpc": "/test.Echo/Say",
        "message": "AAAA".repeat(1_000_000),
        "metadata": { "wanted-length": "3000000" },
    });
    warm(address_of(&server), json!([said]), json!({ "min_requests": 3, "success_ratio": 1.0 }))
        .await
        .expect("passes");
}

#[tokio::test]
async fn a_status_that_is_not_expected_fails_with_its_name() {
    let Some(server) = PythonServer::start("health.py", &[]) else { return };
    let refused = |expect: Value| json!([{ "grpc": "/test.Echo/Say", "metadata": { "wanted-status": "5" }, "expect_status": expect }]);
    warm(address_of(&server), refused(json!([0, 5])), json!({})).await.expect("5 is expected");
    for (requests, why) in [
        (refused(json!([0])), "/test.Echo/Say answered NOT_FOUND (5) \"as was wanted\", expected 0"),
        (
            json!([{ "grpc": "/test.Echo/Sing" }]),
            "/test.Echo/Sing answered UNIMPLEMENTED (12) \"Method not found!\", expected 0",
        ),
        (
            json!([{ "grpc": "health", "service": "notserving" }]),
            "/grpc.health.v1.Health/Check answered NOT_SERVING, expected SERVING",
        ),
    ] {
        let error = warm(address_of(&server), requests, json!({ "budget": "300ms" })).await.expect_err(why);
        assert!(error.to_string().ends_with(&format!("; last failure: {why}")), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_closes_old_connections_fails_no_call() {
    let Some(server) = PythonServer::start("health.py", &["--max-age", "100"]) else { return };
    let (address, connections) = counted(&server).await;
    let more = json!({ "concurrency": 2, "min_requests": 1000, "success_ratio": 1.0 });
    warm(address, json!([{ "grpc": "health" }]), more).await.expect("passes");
    assert!(connections.load(Ordering::Relaxed) > 2, "no connection was closed");
}

#[tokio::test]
async fn a_peer_without_http2_is_told_so() {
    let peer = stranger(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n".to_vec());
    let address = peer["address"].as_str().and_then(|address| address.parse().ok()).expect("an address");
    let error =
        warm(address, json!([{ "grpc": "health" }]), json!({ "budget": "200ms" })).await.expect_err("HTTP/1");
    let why = "/grpc.health.v1.Health/Check answered \"HTTP/1.1 400 Bad Request content-length: 0\", expected HTTP/2";
    assert!(error.to_string().ends_with(why), "{error}");
}

/// A sidecar before this upstream, with the check `warm`.
fn config(upstream: &str, requests: Value) -> Value {
    json!({
        "listeners": { "http": {
            "listen": "127.0.0.1:0",
            "upstream": upstream,
            "not_ready": "reject",
            "hold": { "for": "100ms" },
        } },
        "admin": { "listen": "127.0.0.1:0" },
        "checks": { "warm": { "timeout": "2s", "warmup": { "requests": requests, "success_ratio": 1.0 } } },
    })
}

#[tokio::test]
async fn an_app_of_grpc_is_warmed_through_the_sidecar() {
    let Some(server) = PythonServer::start("health.py", &[]) else { return };
    let said =
        json!({ "grpc": "/test.Echo/Say", "message": "CgVoZWxsbw==", "metadata": { "wanted-length": "7" } });
    let upstream = format!("h2c://{}", server.address());
    let sidecar = Sidecar::start(&config(&upstream, json!([said, { "grpc": "health" }]))).await;
    sidecar.until_ready().await;
    let status = sidecar.ask("/status").await.text();
    assert!(status.contains("/test.Echo/Say: 25/25 ok, p95 "), "{status}");
}

#[tokio::test]
async fn what_fails_on_the_way_is_told_in_the_words_of_grpc() {
    let Some(server) = PythonServer::start("health.py", &[]) else { return };
    // The token is the sidecar's own: it does not go to the app, and the app says so.
    let secret =
        json!({ "grpc": "/test.Echo/Say", "metadata": { "wanted-metadata": "x-readygate-warmup=" } });
    let nobody = format!("h2c://127.0.0.1:{}", free_port());
    for (upstream, request, why) in [
        (
            format!("h2c://{}", server.address()),
            secret,
            "FAILED_PRECONDITION (9) \"x-readygate-warmup is None\"",
        ),
        (
            nobody,
            json!({ "grpc": "health" }),
            "got UNAVAILABLE (14) from the sidecar: the app refuses connections",
        ),
    ] {
        let sidecar = Sidecar::start(&config(&upstream, json!([request]))).await;
        let mut status = Value::Null;
        eventually(why, Duration::from_secs(10), async || {
            status = serde_json::from_str(&sidecar.ask("/status").await.text()).expect("JSON");
            let warm = serde_json::to_string(&status["checks"]).expect("JSON").replace("\\\"", "\"");
            warm.contains(why)
        })
        .await;
    }
}

#[test]
fn keys_of_a_call_are_refused_with_their_path() {
    let problem = |request: Value| {
        let own = json!({ "requests": ["GET /", request] });
        let problems = accept("warmup", own, &[listener("http", 1)]).expect_err("refused");
        format!("{}: {}", problems[0].path.join("."), problems[0].message)
    };
    for (request, why) in [
        (json!({}), "requests.1: none of path, grpc and tcp is given, expected one of them"),
        (json!({ "grpc": "Echo/Say" }), "requests.1.grpc: expected /pkg.Service/Method, or health"),
        (json!({ "grpc": "/Say" }), "requests.1.grpc: expected /pkg.Service/Method, or health"),
        (json!({ "grpc": "/a/b?c" }), "requests.1.grpc: expected /pkg.Service/Method, or health"),
        (json!({ "grpc": "/a/b", "path": "/" }), "requests.1.path: not allowed with grpc"),
        (json!({ "grpc": "/a/b", "body": "" }), "requests.1.body: not allowed with grpc"),
        (json!({ "path": "/", "message": "" }), "requests.1.message: not allowed without grpc"),
        (json!({ "path": "/", "service": "a" }), "requests.1.service: not allowed without grpc"),
        (json!({ "grpc": "/a/b", "service": "a" }), "requests.1.service: only allowed with grpc: health"),
        (json!({ "grpc": "health", "message": "" }), "requests.1.message: not allowed with grpc: health"),
        (json!({ "grpc": "/a/b", "message": "%" }), "requests.1.message: not base64"),
        (
            json!({ "grpc": "/a/b", "metadata": { "grpc-timeout": "1S" } }),
            "requests.1.metadata: grpc-timeout is not",
        ),
        (json!({ "grpc": "/a/b", "metadata": { "a b": "" } }), "requests.1.metadata.a b: not a header name"),
        (
            json!({ "grpc": "/a/b", "expect_status": [] }),
            "requests.1.expect_status: expected codes from 0 to 16",
        ),
        (
            json!({ "grpc": "/a/b", "expect_status": [17] }),
            "requests.1.expect_status: expected codes from 0 to 16",
        ),
        (
            json!({ "grpc": "/a/b", "expect_status": ["OK"] }),
            "requests.1.expect_status.0: a string is not allowed",
        ),
    ] {
        let found = problem(request);
        assert!(found.starts_with(why), "{found}");
    }
    for good in [
        json!({ "grpc": "/a/b" }),
        json!({ "grpc": "/pkg.v1.A/b", "message": "AAA", "metadata": { "x-y": ["1", "2"] }, "expect_status": [0, 16] }),
        json!({ "grpc": "health", "service": "a.b", "metadata": { "authorization": "Bearer x" } }),
    ] {
        accept("warmup", json!({ "requests": [good] }), &[listener("http", 1)]).expect("acceptable");
    }
}
