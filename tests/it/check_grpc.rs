//! `grpc` tells a server that serves from one that does not, says what to do about it, and leaves no trace.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use readygate::check::CheckError;
use serde_json::{Value, json};

use crate::support::checks::run;
use crate::support::python::PythonServer;
use crate::support::servers::{ask, certificate, free_port, program, refuses, stranger, trusted, with};
use crate::support::{eventually, signal};

fn of_service(server: &PythonServer, service: &str) -> Value {
    json!({ "address": server.address(), "service": service })
}

fn in_tls() -> Option<PythonServer> {
    let (cert, key) = (certificate("crt"), certificate("key"));
    PythonServer::start("health.py", &["--tls", &cert.to_string_lossy(), &key.to_string_lossy()])
}

#[tokio::test]
async fn a_server_that_serves_passes_and_logs_nothing() {
    let Some(server) = PythonServer::start("health.py", &[]) else { return };
    let own = json!({ "address": server.address() });
    assert_eq!(ask("grpc", own.clone()).await, Ok("SERVING".to_owned()));
    assert_eq!(ask("grpc", of_service(&server, "serving")).await, Ok("SERVING for serving".to_owned()));
    let before = server.log();
    for _ in 0..300 {
        ask("grpc", own.clone()).await.expect("it passes each time");
    }
    assert_eq!(server.log(), before);
}

#[tokio::test]
async fn every_other_answer_fails_with_its_name_and_advice() {
    let Some(server) = PythonServer::start("health.py", &[]) else { return };
    for (service, why) in [
        ("notserving", "answered NOT_SERVING for notserving: the app says so of itself, expected SERVING"),
        ("unknown", "answered UNKNOWN for unknown: the app has set no status yet, expected SERVING"),
        ("service-unknown", "answered SERVICE_UNKNOWN for service-unknown, expected SERVING"),
        (
            "nobody",
            "answered NOT_FOUND (5): the app's health service knows no service nobody, check `service`",
        ),
        (
            "unimplemented",
            "answered UNIMPLEMENTED (12) \"no health here\": the app has no grpc.health.v1.Health",
        ),
        (
            "unavailable",
            "answered UNAVAILABLE (14) \"the leader is lost and 100% of votes too\": the app is starting",
        ),
        ("denied", "answered UNAUTHENTICATED (16) \"who are you?\": the app wants credentials"),
        ("long", "sent too long an answer, expected at most 64 KiB"),
    ] {
        let why = format!("{} {why}", server.address());
        refuses("grpc", of_service(&server, service), &why).await;
    }
}

#[tokio::test]
async fn a_server_without_the_health_service_is_told_so() {
    let Some(server) = PythonServer::start("health.py", &["--no-health"]) else { return };
    let own = json!({ "address": server.address() });
    refuses("grpc", own, "answered UNIMPLEMENTED (12) \"Method not found!\": the app has no grpc.health.v1")
        .await;
}

#[tokio::test]
async fn a_server_that_takes_too_long_fails_in_time() {
    let Some(server) = PythonServer::start("health.py", &[]) else { return };
    let error =
        run("grpc", of_service(&server, "slow"), Duration::from_millis(200)).await.expect_err("too slow");
    // The server hears of the deadline too, and may be first to say so.
    let in_words = error.to_string();
    let told = in_words.contains("answered DEADLINE_EXCEEDED (4)") && in_words.contains("within `timeout`");
    assert!(matches!(error, CheckError::Timeout { .. }) || told, "{error}");
}

#[tokio::test]
async fn a_server_with_tls_is_asked_in_tls() {
    let Some(server) = in_tls() else { return };
    let plain = json!({ "address": server.address() });
    let secure = with(&plain, trusted());
    assert_eq!(ask("grpc", secure.clone()).await, Ok("SERVING".to_owned()));
    let before = server.log();
    for _ in 0..300 {
        ask("grpc", secure.clone()).await.expect("it passes each time");
    }
    assert_eq!(server.log(), before);
    // Last: the server complains of these, when it finds the time.
    refuses("grpc", with(&plain, json!({ "tls": true })), "the TLS handshake failed").await;
    refuses("grpc", plain, "(is tls missing?)").await;
}

#[tokio::test]
async fn a_server_without_tls_is_told_so() {
    let Some(server) = PythonServer::start("health.py", &[]) else { return };
    let own = json!({ "address": server.address(), "tls": { "insecure_skip_verify": true } });
    let error = run("grpc", own, Duration::from_millis(500)).await.expect_err("it does not speak TLS");
    let told = error.to_string().contains("the TLS handshake failed");
    assert!(told || matches!(error, CheckError::Timeout { .. }), "{error}");
    // One that answers in its own way at once.
    let http = with(&stranger(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()), json!({ "tls": true }));
    refuses("grpc", http, "the TLS handshake failed").await;
}

#[tokio::test]
async fn tls_without_an_agreement_on_http2_fails() {
    struct Ended(Child);
    impl Drop for Ended {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let Some(openssl) = program("openssl") else { return };
    let port = free_port();
    let mut command = Command::new(openssl);
    command.args(["s_server", "-quiet", "-accept", &port.to_string(), "-cert"]).arg(certificate("crt"));
    command.arg("-key").arg(certificate("key"));
    let command = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let _server = Ended(command.spawn().expect("it starts"));
    let own = with(&json!({ "address": format!("127.0.0.1:{port}") }), trusted());
    eventually("the server listens", Duration::from_secs(10), async || {
        !ask("grpc", own.clone()).await.expect_err("not gRPC").contains("refused")
    })
    .await;
    refuses("grpc", own, "did not agree to speak HTTP/2 in TLS (ALPN), expected h2").await;
}

#[tokio::test]
async fn a_server_that_goes_away_fails_and_then_refuses() {
    let Some(mut server) = PythonServer::start("health.py", &[]) else { return };
    let own = json!({ "address": server.address() });
    ask("grpc", own.clone()).await.expect("it serves");
    signal(server.child.id(), "TERM");
    eventually("it no longer passes", Duration::from_secs(10), async || {
        ask("grpc", own.clone()).await.is_err()
    })
    .await;
    server.child.wait().expect("it ends");
    let error = run("grpc", own, Duration::from_secs(5)).await.expect_err("nobody is there");
    assert!(matches!(error, CheckError::Refused { .. }), "{error}");
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("short");
    [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// A server that answers the call for the whole server's health with these frames, and ends.
fn answering(frames: Vec<u8>) -> Value {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the check connects");
        stream.write_all(&frame(4, 0, 0, &[])).expect("sends");
        let (mut heard, mut piece) = (Vec::new(), [0; 1024]);
        // An empty message behind its prefix, and the end.
        let call = frame(0, 1, 1, &[0; 5]);
        while !heard.windows(call.len()).any(|window| window == call) {
            let length = stream.read(&mut piece).expect("the whole call");
            assert!(length > 0, "the whole call");
            heard.extend_from_slice(&piece[..length]);
        }
        stream.write_all(&frames).and_then(|()| stream.shutdown(Shutdown::Write)).expect("sends");
        let _ = stream.read_to_end(&mut heard);
    });
    json!({ "address": address.to_string() })
}

#[tokio::test]
async fn oddities_of_http2_are_told() {
    for (frames, why) in [
        (frame(7, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0]), "is going away (GOAWAY)"),
        (frame(7, 0, 0, b"\0\0\0\0\0\0\0\x0btoo_many_pings"), "sent us away (GOAWAY)"),
        (frame(3, 0, 1, &[0, 0, 0, 7]), "refused the call (REFUSED_STREAM)"),
        (frame(3, 0, 1, &[0, 0, 0, 2]), "reset the call"),
        // `:status: 404` of the static table, and the end.
        (frame(1, 5, 1, &[0x8d]), "answered HTTP 404 and no gRPC"),
        (frame(1, 5, 1, &[0x88]), "answered without a content-type"),
        (frame(1, 5, 0, &[0x88]), "does not speak HTTP/2 properly"),
        (Vec::new(), "closed the connection before the answer was complete"),
    ] {
        refuses("grpc", answering(frames), why).await;
    }
    let leaving = [frame(4, 0, 0, &[]), frame(7, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0])].concat();
    refuses("grpc", stranger(leaving), "is going away (GOAWAY)").await;
    let http = b"HTTP/1.1 400 Bad Request\r\nserver: x\r\n\r\n".to_vec();
    refuses("grpc", stranger(http), "answered \"HTTP/1.1 400 Bad Request server: x\", expected HTTP/2").await;
}

#[tokio::test]
async fn no_flood_of_frames_outlasts_the_timeout() {
    for (kind, flags) in [(6, 0), (4, 0), (8, 0), (0xff, 0), (1, 0)] {
        let payload: &[u8] = match kind {
            6 => &[0; 8],
            4 => &[],
            8 => &[0, 0, 0, 1],
            _ => &[0; 100],
        };
        let flood = frame(kind, flags, u8::from(kind == 1), payload).repeat(500);
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("bound");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the check connects");
            let mut sent = stream.write_all(&frame(4, 0, 0, &[]));
            // Ends when the check has left.
            while sent.is_ok() {
                sent = stream.write_all(&flood);
            }
        });
        let began = Instant::now();
        let own = json!({ "address": address.to_string() });
        run("grpc", own, Duration::from_millis(200)).await.expect_err("a flood is no answer");
        assert!(began.elapsed() < Duration::from_secs(3), "{:?} of frames {kind}", began.elapsed());
    }
}

/// The cases of a live kubelet, which `check_http.rs` leaves to this kind.
#[tokio::test]
async fn verdicts_are_those_of_the_kubelet() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/kubelet-probe-vectors.json");
    let vectors: Value = serde_json::from_slice(&std::fs::read(path).expect("the file")).expect("JSON");
    let cases = vectors["cases"].as_array().expect("a list").iter();
    let cases: Vec<_> = cases.filter(|case| !case["probe"]["grpc"].is_null()).collect();
    assert_eq!(cases.len(), 9);
    let Some(server) = PythonServer::start("health.py", &[]) else { return };
    for case in cases {
        let name = case["name"].as_str().expect("a name");
        let own = match name {
            "grpc-to-http1" => stranger(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".to_vec()),
            "grpc-closed" => json!({ "address": format!("127.0.0.1:{}", free_port()) }),
            _ => of_service(&server, case["probe"]["grpc"]["service"].as_str().unwrap_or_default()),
        };
        let passed = run("grpc", own, Duration::from_secs(2)).await.is_ok();
        assert_eq!(passed, case["result"] == "success", "{name}");
    }
}
