//! `redis` tells a server that does its work from one that does not, and leaves no trace.

use std::process::Command;

use serde_json::json;

use crate::support::Scratch;
use crate::support::servers::{
    Server, ask, certificate, free_port, hold, program, refuses, refuses_tls, stranger, trusted, with,
};

/// A server with these settings, not waited for; None if there is none here.
fn redis(settings: &[&str]) -> Option<Server> {
    redis_in(Scratch::new(), settings)
}

fn redis_in(scratch: Scratch, settings: &[&str]) -> Option<Server> {
    let (port, mut command) = (free_port(), Command::new(program("redis-server")?));
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"]).arg(scratch.join("."));
    command.args(settings);
    let log = scratch.join("log");
    Some(Server::start(command, port, log, scratch))
}

#[tokio::test]
async fn a_redis_that_answers_passes_and_logs_nothing() {
    let Some(redis) = redis(&["--save", ""]) else { return };
    let own = redis.keys();
    let redis = redis.ready("redis", own.clone()).await;
    assert_eq!(ask("redis", own.clone()).await, Ok("answers PING".to_owned()));
    assert_eq!(redis.log_of_300_runs("redis", own.clone()).await, "");
    refuses_tls("redis", &own).await;
}

#[tokio::test]
async fn a_redis_that_wants_a_password_accepts_work() {
    let Some(redis) = redis(&["--save", "", "--requirepass", "x"]) else { return };
    let own = redis.keys();
    let _redis = redis.ready("redis", own.clone()).await;
    assert_eq!(ask("redis", own).await, Ok("accepts commands, with a password".to_owned()));
}

#[tokio::test]
async fn a_redis_lets_in_whoever_has_the_right_password() {
    let user = ["--user", "app", "on", ">hunter3", "~*", "+@all"];
    let settings = [&["--save", "", "--requirepass", "hunter2"][..], &user].concat();
    let Some(redis) = redis(&settings) else { return };
    let own = redis.keys();
    let redis = redis.ready("redis", own.clone()).await;
    let nameless = with(&own, json!({ "password": "hunter2" }));
    let named = with(&own, json!({ "username": "app", "password": "hunter3" }));
    for own in [nameless, named.clone()] {
        assert_eq!(ask("redis", own.clone()).await, Ok("answers PING".to_owned()));
        assert_eq!(redis.log_of_300_runs("redis", own).await, "");
    }
    let wrong = "refused the password: WRONGPASS invalid username-password pair";
    refuses("redis", with(&named, json!({ "password": "hunter2" })), wrong).await;
    refuses("redis", with(&own, json!({ "password": "hunter3" })), wrong).await;
}

#[tokio::test]
async fn a_redis_that_repeats_the_password_is_quoted_without_it() {
    for said in
        ["-ERR unknown command 'AUTH', with args beginning with: 'hunter2'", "hunter2", "+hunter2\u{1}"]
    {
        let own = with(&stranger(format!("{said}\r\n").into_bytes()), json!({ "password": "hunter2" }));
        let error = ask("redis", own).await.expect_err("no OK");
        assert!(!error.contains("hunter2") && !error.contains("68756e746572"), "{error}");
    }
}

#[tokio::test]
async fn a_redis_that_loads_fails_until_it_has_loaded() {
    let Some(first) = redis(&["--save", ""]) else { return };
    let own = first.keys();
    let mut first = first.ready("redis", own).await;
    let mut commands = Vec::new();
    for key in 0..400 {
        commands.extend_from_slice(format!("SET {key} {}\r\n", "x".repeat(900)).as_bytes());
    }
    commands.extend_from_slice(b"SAVE\r\nECHO end\r\n");
    drop(hold(first.port, &commands, b"$3\r\nend\r\n"));
    let scratch = first.scratch.take().expect("not taken before");
    drop(first);
    let slowly = [
        "--save",
        "",
        "--rdbcompression",
        "no",
        "--key-load-delay",
        "4000",
        "--loading-process-events-interval-bytes",
        "1024",
    ];
    let mut scratch = Some(scratch);
    for password in [None, Some("hunter2")] {
        let protected = [&slowly[..], &["--requirepass", password.unwrap_or_default()]].concat();
        let mut server =
            redis_in(scratch.take().expect("given back"), &protected).expect("it was there before");
        let own =
            with(&server.keys(), password.map_or(json!({}), |password| json!({ "password": password })));
        let mut said = Vec::new();
        while let Err(error) = ask("redis", own.clone()).await {
            said.push(error);
            assert!(said.len() < 50_000, "{:?}", said.last());
        }
        let loading = said.iter().find(|error| error.contains("answered \"-LOADING "));
        assert!(loading.is_some_and(|error| error.ends_with("expected +PONG")), "{:?}", said.last());
        scratch = server.scratch.take();
    }
}

#[tokio::test]
async fn a_redis_that_cannot_work_fails_with_its_own_words() {
    let gone = free_port().to_string();
    let replica = ["--replicaof", "127.0.0.1", &gone, "--replica-serve-stale-data", "no", "--save", ""];
    let Some(replica) = redis(&replica) else { return };
    crate::support::eventually("it is up", std::time::Duration::from_secs(20), async || {
        ask("redis", replica.keys()).await.is_err_and(|error| error.contains("answered"))
    })
    .await;
    refuses("redis", replica.keys(), "answered \"-MASTERDOWN ").await;
    let full = redis(&["--maxclients", "1", "--save", ""]).expect("it was there before");
    let own = full.keys();
    let full = full.ready("redis", own.clone()).await;
    let _one = hold(full.port, b"PING\r\n", b"+PONG\r\n");
    refuses("redis", own, "answered \"-ERR max number of clients reached\", expected +PONG").await;
}

#[tokio::test]
async fn a_redis_with_tls_is_asked_in_tls() {
    let (crt, key) = (certificate("crt"), certificate("key"));
    let (crt, key) = (crt.to_str().expect("text"), key.to_str().expect("text"));
    let port = free_port();
    let text = port.to_string();
    let settings = ["--save", "", "--tls-port", &text, "--tls-cert-file", crt, "--tls-key-file", key];
    let settings = [&settings[..], &["--tls-ca-cert-file", crt, "--tls-auth-clients", "no"]].concat();
    let Some(mut redis) = redis(&settings) else { return };
    redis.port = port;
    let plain = redis.keys();
    let secure = with(&plain, trusted());
    let redis = redis.ready("redis", secure.clone()).await;
    assert_eq!(redis.log_of_300_runs("redis", secure).await, "");
    refuses("redis", plain.clone(), "expected +PONG").await;
    refuses("redis", with(&plain, json!({ "tls": true })), "the TLS handshake failed").await;
}
