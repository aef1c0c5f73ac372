//! `readygate check` runs each check once, in order, and says what it saw.

use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::time::Duration;

use readygate::check::KINDS;
use readygate::cli::check::{Output, check, reference_table};
use readygate::config::{AccessLog, Admin, CheckSpec, Config, Drain, DrainReady, Gates, Log, LogFormat, Own};
use serde_json::{Value, json};

use crate::support::checks::{kind, listener, spec};

fn named(name: &str, kind: &str, own: Value, after: &[&str]) -> CheckSpec {
    let spec = spec(kind, own, Duration::from_secs(5));
    CheckSpec { name: name.to_owned(), after: after.iter().map(|&name| name.to_owned()).collect(), ..spec }
}

fn config(checks: Vec<CheckSpec>) -> Config {
    let second = Duration::from_secs(1);
    Config {
        listeners: vec![listener("http", 1)],
        admin: Admin { listen: ([127, 0, 0, 1], 1).into(), stale_after: second, hook_token_file: None },
        drain: Drain {
            min: second,
            quiet: second,
            deadline: second,
            ready: DrainReady::Fail,
            restart_window: second,
        },
        checks,
        workers: NonZeroUsize::MIN,
        log: Log { level: "info".to_owned(), format: LogFormat::Auto, access: AccessLog::Off },
    }
}

async fn printed(checks: Vec<CheckSpec>, output: Output) -> (u8, String) {
    let mut out = Vec::new();
    let code = check(&config(checks), output, &mut out).await.expect("writes");
    (code, String::from_utf8(out).expect("text"))
}

/// A port that accepts, and one that refuses.
fn ports() -> (TcpListener, String, String) {
    let open = TcpListener::bind("127.0.0.1:0").expect("bind");
    let closed = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
    let address = open.local_addr().expect("address").to_string();
    (open, address, closed.to_string())
}

#[tokio::test]
async fn the_table_says_what_passed_failed_and_was_skipped() {
    let (_open, open, closed) = ports();
    let (code, table) = printed(
        vec![
            named("later", "tcp", json!({ "address": open }), &["broken"]),
            named("warm", "warmup", json!({ "requests": ["GET /"] }), &["db"]),
            named("db", "tcp", json!({ "address": open }), &[]),
            named("broken", "tcp", json!({ "address": closed }), &[]),
        ],
        Output::Text,
    )
    .await;
    assert_eq!(code, 1);
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    assert!(lines[0].starts_with("SKIP  later   tcp  "), "{table}");
    assert!(lines[0].ends_with("-  it runs after broken, which did not pass"), "{table}");
    assert!(lines[1].starts_with("SKIP  warm    warmup  "), "{table}");
    assert!(lines[2].starts_with("PASS  db      tcp     ") && lines[2].ends_with(&open), "{table}");
    assert!(lines[3].starts_with("FAIL  broken  tcp     "), "{table}");
    assert!(lines[3].ends_with(&format!("connection refused by {closed}")), "{table}");
}

#[tokio::test]
async fn json_says_the_same() {
    let (_open, open, _) = ports();
    let (code, text) = printed(vec![named("db", "tcp", json!({ "address": open }), &[])], Output::Json).await;
    assert_eq!(code, 0);
    let found: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(found["passed"], json!(true));
    assert_eq!((&found["checks"][0]["name"], &found["checks"][0]["result"]), (&json!("db"), &json!("pass")));
    assert!(found["checks"][0]["duration_ms"].is_number());
}

#[tokio::test]
async fn a_check_that_cannot_run_here_is_no_failure() {
    let (code, table) =
        printed(vec![named("warm", "warmup", json!({ "requests": ["GET /"] }), &[])], Output::Text).await;
    assert_eq!((code, table.starts_with("SKIP  warm")), (0, true), "{table}");
}

#[test]
fn the_table_of_kinds_has_a_row_for_each_kind_with_all_its_keys() {
    let table = reference_table();
    assert_eq!(table.lines().count(), 2 + KINDS.len(), "{table}");
    let tcp = "| `tcp` | startup | **`address`** | a connection is established; where it is the app's own port, `gates` is \
               `always` by default |\n";
    assert!(table.contains(tcp), "{table}");
    for key in
        ["url", "body_matches", "json", "insecure_skip_verify", "max_age", "on_budget_exhausted", "plateau"]
    {
        assert!(table.contains(&format!("`{key}`")), "{key} is missing in\n{table}");
    }
}

#[test]
fn kinds_gate_as_the_contract_says() {
    let listeners = [listener("http", 8080)];
    let gates = |name: &str, own: Value| (kind(name).config.gates)(&Own(own), &listeners);
    assert_eq!(gates("tcp", json!({ "address": "db:5432" })), Gates::Startup);
    assert_eq!(gates("tcp", json!({ "address": "127.0.0.1:8080" })), Gates::Always);
    assert_eq!(gates("tcp", json!({ "address": "localhost:8080" })), Gates::Always);
    assert_eq!(gates("tcp", json!({ "address": "db:8080" })), Gates::Startup);
    assert_eq!(gates("http", json!({ "url": "http://127.0.0.1:8080/" })), Gates::Always);
    assert_eq!(gates("file", json!({ "path": "/a" })), Gates::Startup);
    assert_eq!(gates("warmup", json!({ "requests": ["GET /"] })), Gates::Startup);
}

#[test]
fn no_scheme_means_two_kinds() {
    let mut schemes: Vec<_> = KINDS.iter().flat_map(|kind| kind.config.schemes).collect();
    let all = schemes.len();
    schemes.sort_unstable();
    schemes.dedup();
    assert_eq!(schemes.len(), all);
}
