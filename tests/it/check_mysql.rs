//! `mysql` finishes each handshake, so that nothing counts against the host, and tells a full server.

use std::fs;
use std::net::TcpStream;
use std::process::Command;

use serde_json::json;

use crate::support::Scratch;
use crate::support::servers::{
    Server, ask, certificate, free_port, is_root, program, refuses, trusted, with,
};

/// A server with these settings, in which `quiet` needs no password.
fn mariadb(settings: &[&str]) -> Option<Server> {
    let (install, server) = (program("mariadb-install-db")?, program("mariadbd")?);
    let scratch = Scratch::new();
    let (data, init) = (scratch.join("data"), scratch.join("init.sql"));
    fs::write(&init, "CREATE USER quiet@localhost;\nCREATE USER quiet@'%';\n").expect("a file");
    // Of its own: a server that starts clears away what others have in a shared one.
    let temporary = scratch.join("tmp");
    fs::create_dir(&temporary).expect("the directory is writable");
    let user = if is_root() { &["--user=root"][..] } else { &[] };
    let mut made = Command::new(install);
    made.args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"]).args(user);
    let made = made
        .env("TMPDIR", &temporary)
        .arg(format!("--datadir={}", data.display()))
        .output()
        .expect("it starts");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let port = free_port();
    let mut command = Command::new(server);
    command.env("TMPDIR", &temporary);
    command.arg("--no-defaults").args(user).args(["--bind-address=127.0.0.1", "--socket=my.sock"]);
    command.arg(format!("--datadir={}", data.display())).arg(format!("--port={port}"));
    command.arg(format!("--init-file={}", init.display())).args(settings);
    let log = scratch.join("log");
    Some(Server::start(command, port, log, scratch))
}

#[tokio::test]
async fn a_mysql_that_accepts_connections_passes_and_counts_nothing_against_us() {
    let tls = [
        format!("--ssl-cert={}", certificate("crt").display()),
        format!("--ssl-key={}", certificate("key").display()),
    ];
    let Some(server) = mariadb(&[&tls[0], &tls[1], "--max-connect-errors=1"]) else { return };
    let stranger = server.keys();
    let quiet = with(&stranger, json!({ "user": "quiet" }));
    let secure = with(&quiet, trusted());
    let server = server.ready("mysql", quiet.clone()).await;
    for own in [&quiet, &secure] {
        assert_eq!(ask("mysql", own.clone()).await, Ok("accepts connections".to_owned()));
        assert_eq!(server.log_of_300_runs("mysql", own.clone()).await, "");
    }
    let refused = ask("mysql", stranger.clone()).await.expect("passes");
    assert!(
        refused.starts_with("accepts connections, but refused this user: 1045 Access denied"),
        "{refused}"
    );
    // MariaDB warns of each refused user, but it took the handshake for finished: else it would speak of an aborted
    // connection, and count it against the host.
    let log = server.log_of_300_runs("mysql", with(&stranger, trusted())).await;
    assert_eq!(log.lines().filter(|line| line.contains("[Warning] Access denied")).count(), 300, "{log}");
    assert_eq!(log.lines().count(), 300, "{log}");
    refuses("mysql", with(&stranger, json!({ "tls": true })), "the TLS handshake failed").await;
}

#[tokio::test]
async fn a_full_mysql_fails_and_so_does_tls_where_there_is_none() {
    let Some(server) = mariadb(&["--max-connections=10", "--skip-ssl"]) else { return };
    let own = with(&server.keys(), json!({ "user": "quiet" }));
    let server = server.ready("mysql", own.clone()).await;
    refuses("mysql", with(&own, json!({ "tls": true })), "does not speak TLS, expected it to").await;
    assert!(!server.log().contains("Aborted connection"), "the handshake was finished all the same");
    let mut held = Vec::new();
    let full = loop {
        held.push(TcpStream::connect(("127.0.0.1", server.port)).expect("connects"));
        match ask("mysql", own.clone()).await {
            Err(error) => break error,
            Ok(_) => assert!(held.len() < 20, "it takes {} connections", held.len()),
        }
    };
    assert!(full.ends_with("refused the connection: 1040 Too many connections"), "{full}");
}
