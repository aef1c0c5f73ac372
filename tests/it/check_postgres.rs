//! `postgres` tells a server that accepts sessions from one that is starting, stopping or full, and leaves no
//! trace in its log.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::support::servers::{
    Server, ask, certificate, free_port, hold, is_root, program, refuses, trusted, with,
};
use crate::support::{Scratch, eventually, signal};

/// Runs as `nobody` where we are root, which PostgreSQL refuses.
fn unprivileged(program: &Path, scratch: &Scratch) -> Command {
    let mut command = Command::new(program);
    command.current_dir(scratch.join("."));
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// A server with these settings, not waited for. `postgres` is trusted, but for the databases `app`, which wants its
/// password, and over TLS `template1`, which wants it in plain. `guest` wants one too, and nobody else exists.
fn postgres(settings: &[&str]) -> Option<Server> {
    let scratch = Scratch::new();
    let (initdb, postgres) = (program("initdb")?, program("postgres")?);
    let (data, key) = (scratch.join("data"), scratch.join("key"));
    let password = scratch.join("password");
    fs::write(&password, PASSWORD).expect("a file");
    fs::copy(certificate("key"), &key).expect("a key");
    fs::set_permissions(&key, Permissions::from_mode(0o600)).expect("a mode");
    if is_root() {
        for path in [scratch.join("."), key.clone()] {
            chown(path, Some(NOBODY), Some(NOBODY)).expect("root may");
        }
    }
    let made = unprivileged(&initdb, &scratch)
        .args(["-A", "trust", "-U", "postgres", "--no-sync", "--no-instructions", "-D"])
        .arg(&data)
        .arg(format!("--pwfile={}", password.display()))
        .output()
        .expect("initdb starts");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let rules = "host app all all scram-sha-256\nhostssl template1 all all password\n\
                 host all postgres,unknown all trust\nhost all all all scram-sha-256\n";
    fs::write(data.join("pg_hba.conf"), rules).expect("rules");
    if settings.contains(&"hot_standby=off") {
        fs::write(data.join("standby.signal"), "").expect("a signal");
    }
    let port = free_port();
    let mut command = unprivileged(&postgres, &scratch);
    command.arg("-F").arg("-D").arg(&data).args(["-p", &port.to_string(), "-c", "unix_socket_directories="]);
    command.args(["-c", "listen_addresses=127.0.0.1", "-c", "shared_buffers=1MB", "-c", "ssl=on"]);
    command.arg("-c").arg(format!("ssl_cert_file={}", certificate("crt").display()));
    command.arg("-c").arg(format!("ssl_key_file={}", key.display()));
    for setting in settings {
        command.args(["-c", setting]);
    }
    let log = scratch.join("log");
    Some(Server::start(command, port, log, scratch))
}

#[tokio::test]
async fn a_postgres_that_accepts_sessions_passes_and_logs_nothing() {
    let Some(postgres) = postgres(&[]) else { return };
    let own = postgres.keys();
    let postgres = postgres.ready("postgres", own.clone()).await;
    let guest = with(&own, json!({ "user": "guest" }));
    // Its first words of readiness may come after its first session.
    eventually("it said so", Duration::from_secs(10), async || postgres.log().contains("ready to accept"))
        .await;
    for (own, summary) in [
        (own.clone(), "accepts connections"),
        (guest.clone(), "accepts connections, with a password"),
        (with(&own, trusted()), "accepts connections"),
        (with(&guest, trusted()), "accepts connections, with a password"),
    ] {
        assert_eq!(ask("postgres", own).await, Ok(summary.to_owned()));
    }
    for own in [own.clone(), with(&guest, trusted())] {
        assert_eq!(postgres.log_of_300_runs("postgres", own).await, "");
    }
    let unknown = ask("postgres", with(&own, json!({ "user": "unknown" }))).await;
    let refused = "accepts connections, but refused this one: 28000 role \"unknown\" does not exist";
    assert_eq!(unknown, Ok(refused.to_owned()));
    let nowhere = ask("postgres", with(&own, json!({ "database": "nowhere" }))).await.expect("passes");
    assert!(nowhere.contains("3D000"), "{nowhere}");
    refuses("postgres", with(&own, json!({ "tls": true })), "the TLS handshake failed").await;
}

#[tokio::test]
async fn a_postgres_opens_a_session_for_the_right_password_and_answers_the_query() {
    let Some(postgres) = postgres(&[]) else { return };
    let own = postgres.keys();
    let postgres = postgres.ready("postgres", own.clone()).await;
    let made = ask("postgres", with(&own, json!({ "query": "CREATE DATABASE app" }))).await;
    assert_eq!(made, Ok("answers the query".to_owned()));
    let app = with(&own, json!({ "database": "app" }));
    let login = with(&app, json!({ "password": PASSWORD, "query": "SELECT 1" }));
    let in_plain = with(&with(&login, json!({ "database": "template1" })), trusted());
    eventually("it said so", Duration::from_secs(10), async || postgres.log().contains("ready to accept"))
        .await;
    for own in [&login, &with(&login, trusted()), &in_plain] {
        assert_eq!(ask("postgres", own.clone()).await, Ok("answers the query".to_owned()));
    }
    assert_eq!(postgres.log_of_300_runs("postgres", login.clone()).await, "");
    assert_eq!(ask("postgres", app.clone()).await, Ok("accepts connections, with a password".to_owned()));
    let unasked = with(&app, json!({ "query": "SELECT 1" }));
    refuses("postgres", unasked, "asks for a password, and none is configured").await;
    for (more, why) in [
        (json!({ "password": "Hunter2" }), "refused the session: 28P01 password authentication failed"),
        (json!({ "user": "guest" }), "refused the session: 28P01 password authentication failed"),
        (json!({ "query": "SELECT 1/0" }), "failed the query: 22012 division by zero"),
        (
            json!({ "query": "SELECT generate_series(1, 1000)" }),
            "in more than 200 messages, expected a few rows",
        ),
        (json!({ "query": "COPY pg_class TO STDOUT" }), "expected an answer to the query"),
        (json!({ "database": "gone" , "user": "unknown" }), "refused the session: 28000"),
    ] {
        let error = ask("postgres", with(&login, more)).await.expect_err(why);
        assert!(error.contains(why) && !error.to_lowercase().contains(PASSWORD), "{error}");
    }
}

#[tokio::test]
async fn a_full_postgres_and_one_that_stops_fail() {
    let few = ["max_connections=4", "superuser_reserved_connections=0", "max_wal_senders=0", "ssl=off"];
    let Some(postgres) = postgres(&few) else { return };
    let own = postgres.keys();
    let postgres = postgres.ready("postgres", own.clone()).await;
    refuses("postgres", with(&own, json!({ "tls": true })), "does not speak TLS, expected it to").await;
    let session = b"\0\0\0\x17\0\x03\0\0user\0postgres\0\0";
    let held: Vec<_> = (0..4).map(|_| hold(postgres.port, session, b"Z\0\0\0\x05I")).collect();
    refuses("postgres", own.clone(), "refused the session: 53300 sorry, too many clients already").await;
    drop(held);
    let _one = {
        eventually("a place is free", Duration::from_secs(10), async || {
            ask("postgres", own.clone()).await.is_ok()
        })
        .await;
        hold(postgres.port, session, b"Z\0\0\0\x05I")
    };
    signal(postgres.child.id(), "TERM");
    eventually("it stops", Duration::from_secs(10), async || ask("postgres", own.clone()).await.is_err())
        .await;
    refuses("postgres", own, "refused the session: 57P03 the database system is shutting down").await;
}

#[tokio::test]
async fn a_postgres_in_recovery_fails() {
    let Some(postgres) = postgres(&["hot_standby=off", "restore_command=false"]) else { return };
    let own = postgres.keys();
    eventually("it is up", Duration::from_secs(20), async || {
        ask("postgres", own.clone()).await.is_err_and(|error| error.contains("57P03"))
    })
    .await;
}

const PASSWORD: &str = "hunter2";

const NOBODY: u32 = 65534;
