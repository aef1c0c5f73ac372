//! `memcached` tells a server that takes commands from one that is full, and leaves no trace.

use std::process::Command;

use serde_json::json;

use crate::support::Scratch;
use crate::support::servers::{
    Server, ask, certificate, free_port, hold, is_root, program, refuses, refuses_tls, trusted, with,
};

fn memcached(settings: &[&str]) -> Option<Server> {
    let (port, mut command) = (free_port(), Command::new(program("memcached")?));
    if is_root() {
        command.args(["-u", "root"]);
    }
    command.args(["-l", "127.0.0.1", "-U", "0", "-t", "1", "-v", "-p", &port.to_string()]).args(settings);
    let scratch = Scratch::new();
    let log = scratch.join("log");
    Some(Server::start(command, port, log, scratch))
}

#[tokio::test]
async fn a_memcached_that_answers_passes_and_logs_nothing() {
    let Some(memcached) = memcached(&[]) else { return };
    let own = memcached.keys();
    let memcached = memcached.ready("memcached", own.clone()).await;
    let summary = ask("memcached", own.clone()).await.expect("passes");
    assert!(summary.starts_with("version 1."), "{summary}");
    assert_eq!(memcached.log_of_300_runs("memcached", own.clone()).await, "");
    refuses_tls("memcached", &own).await;
}

#[tokio::test]
async fn a_full_memcached_fails_with_its_own_words() {
    let Some(memcached) = memcached(&["-c", "64"]) else { return };
    let own = memcached.keys();
    let memcached = memcached.ready("memcached", own.clone()).await;
    let mut held = Vec::new();
    let full = loop {
        match ask("memcached", own.clone()).await {
            Err(error) => break error,
            Ok(_) => held.push(hold(memcached.port, b"mn\r\n", b"MN\r\n")),
        }
        assert!(held.len() < 100, "it takes {} connections", held.len());
    };
    assert!(full.ends_with("answered \"ERROR Too many open connections\", expected VERSION"), "{full}");
}

#[tokio::test]
async fn a_memcached_with_tls_is_asked_in_tls() {
    let files =
        format!("ssl_chain_cert={},ssl_key={}", certificate("crt").display(), certificate("key").display());
    let Some(memcached) = memcached(&["-Z", "-o", &files]) else { return };
    let plain = memcached.keys();
    let secure = with(&plain, trusted());
    let _memcached = memcached.ready("memcached", secure).await;
    refuses("memcached", plain.clone(), "expected VERSION").await;
    refuses("memcached", with(&plain, json!({ "tls": true })), "the TLS handshake failed").await;
}
