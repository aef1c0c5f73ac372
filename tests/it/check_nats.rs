//! `nats` tells a server that does its work from one that does not, and leaves no trace.

use std::fs;
use std::process::Command;

use serde_json::json;

use crate::support::Scratch;
use crate::support::servers::{
    Server, ask, certificate, free_port, hold, program, refuses, stranger, trusted, with,
};

/// A server with this configuration, not waited for; None if there is none here.
fn nats(settings: &str) -> Option<Server> {
    let (port, scratch, mut command) = (free_port(), Scratch::new(), Command::new(program("nats-server")?));
    let file = scratch.join("nats.conf");
    fs::write(&file, format!("listen: \"127.0.0.1:{port}\"\n{settings}\n")).expect("a file");
    command.arg("-c").arg(file);
    let log = scratch.join("log");
    Some(Server::start(command, port, log, scratch))
}

#[tokio::test]
async fn a_nats_that_answers_passes_and_logs_nothing() {
    let Some(nats) = nats("") else { return };
    let own = nats.keys();
    let nats = nats.ready("nats", own.clone()).await;
    let summary = ask("nats", own.clone()).await.expect("passes");
    assert!(summary.starts_with("NATS 2.") && summary.ends_with(", answers PING"), "{summary}");
    assert_eq!(nats.log_of_300_runs("nats", own.clone()).await, "");
    refuses("nats", with(&own, json!({ "tls": true })), "does not speak TLS, expected it to").await;
}

#[tokio::test]
async fn a_nats_that_wants_credentials_accepts_work_and_logs_nothing() {
    let Some(nats) = nats("authorization { user: a, password: b }") else { return };
    let own = nats.keys();
    let nats = nats.ready("nats", own.clone()).await;
    let summary = ask("nats", own.clone()).await.expect("passes");
    assert!(summary.ends_with("accepts connections, with credentials"), "{summary}");
    assert_eq!(nats.log_of_300_runs("nats", own).await, "");
}

#[tokio::test]
async fn a_full_nats_fails_with_its_own_words_whether_or_not_it_wants_credentials() {
    for (settings, connect) in [
        ("max_connections: 1", "CONNECT {}\r\nPING\r\n"),
        (
            "max_connections: 1\nauthorization { user: a, password: b }",
            "CONNECT {\"user\":\"a\",\"pass\":\"b\",\"verbose\":false}\r\nPING\r\n",
        ),
    ] {
        let Some(nats) = nats(settings) else { return };
        let own = nats.keys();
        let nats = nats.ready("nats", own.clone()).await;
        let _one = hold(nats.port, connect.as_bytes(), b"PONG\r\n");
        refuses("nats", own, "answered \"-ERR 'maximum connections exceeded'\", expected").await;
    }
}

#[tokio::test]
async fn a_nats_with_tls_is_asked_in_tls() {
    let (cert, key) = (certificate("crt"), certificate("key"));
    let tls = format!("tls {{ cert_file: {cert:?}, key_file: {key:?} }}");
    let Some(nats) = nats(&tls) else { return };
    let plain = nats.keys();
    let secure = with(&plain, trusted());
    let nats = nats.ready("nats", secure.clone()).await;
    assert_eq!(nats.log_of_300_runs("nats", secure).await, "");
    refuses("nats", plain.clone(), "speaks only TLS (is tls missing?)").await;
    refuses("nats", with(&plain, json!({ "tls": true })), "the TLS handshake failed").await;
}

#[tokio::test]
async fn a_nats_that_is_leaving_fails() {
    refuses("nats", stranger(b"INFO {\"ldm\":true}\r\n".to_vec()), "is in lame duck mode").await;
}
