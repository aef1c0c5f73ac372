//! `mqtt` tells a broker that takes clients from one that does not, and leaves no error behind.

use std::fs;
use std::process::Command;

use serde_json::json;

use crate::support::Scratch;
use crate::support::servers::{
    Server, ask, certificate, free_port, is_root, program, refuses, stranger, trusted, with,
};

/// A broker with these settings, not waited for; None if there is none here.
fn mosquitto(settings: &str) -> Option<Server> {
    let (port, scratch, mut command) = (free_port(), Scratch::new(), Command::new(program("mosquitto")?));
    let file = scratch.join("mosquitto.conf");
    let user = if is_root() { "user root\n" } else { "" };
    let lines =
        format!("{user}log_dest stderr\nset_tcp_nodelay true\nlistener {port} 127.0.0.1\n{settings}\n");
    fs::write(&file, lines).expect("a file");
    command.arg("-c").arg(file);
    let log = scratch.join("log");
    Some(Server::start(command, port, log, scratch))
}

/// The broker notes every client that comes and goes; nothing else may be there.
fn complaints(log: &str) -> Vec<&str> {
    let usual = ["New connection from ", "New client connected from ", " disconnected."];
    log.lines().filter(|line| !usual.iter().any(|usual| line.contains(usual))).collect()
}

#[tokio::test]
async fn a_broker_that_takes_clients_passes_and_has_nothing_to_complain_of() {
    let Some(broker) = mosquitto("allow_anonymous true") else { return };
    let own = broker.keys();
    let broker = broker.ready("mqtt", own.clone()).await;
    assert_eq!(ask("mqtt", own.clone()).await, Ok("accepts connections".to_owned()));
    let log = broker.log_of_300_runs("mqtt", own.clone()).await;
    assert!(complaints(&log).is_empty(), "{log}");
    assert!(log.matches("New client connected").count() >= 300, "{log}");
    refuses("mqtt", with(&own, json!({ "tls": true })), "the TLS handshake failed").await;
}

#[tokio::test]
async fn a_broker_that_wants_credentials_accepts_work() {
    let Some(broker) = mosquitto("allow_anonymous false") else { return };
    let own = broker.keys();
    let broker = broker.ready("mqtt", own.clone()).await;
    assert_eq!(ask("mqtt", own.clone()).await, Ok("accepts connections, with credentials".to_owned()));
    let log = broker.log_of_300_runs("mqtt", own).await;
    assert!(!log.to_lowercase().contains("error"), "{log}");
}

#[tokio::test]
async fn a_broker_with_tls_is_asked_in_tls() {
    let (crt, key) = (certificate("crt"), certificate("key"));
    let files = format!("allow_anonymous true\ncertfile {}\nkeyfile {}", crt.display(), key.display());
    let Some(broker) = mosquitto(&files) else { return };
    let plain = broker.keys();
    let secure = with(&plain, trusted());
    let broker = broker.ready("mqtt", secure.clone()).await;
    let log = broker.log_of_300_runs("mqtt", secure).await;
    assert!(complaints(&log).is_empty(), "{log}");
    refuses("mqtt", plain.clone(), "expected CONNACK").await;
    refuses("mqtt", with(&plain, json!({ "tls": true })), "the TLS handshake failed").await;
}

#[tokio::test]
async fn a_broker_that_is_unavailable_fails() {
    refuses("mqtt", stranger(vec![0x20, 2, 0, 3]), "3 server unavailable, expected 0 accepted").await;
    refuses("mqtt", stranger(vec![0x20, 2, 0, 1]), "expected it to speak MQTT 3.1.1").await;
    refuses("mqtt", stranger(vec![0x20, 2, 0, 0x84]), "answered 0x20020084, expected CONNACK").await;
}
