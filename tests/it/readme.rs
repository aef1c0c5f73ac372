//! The README's tables are those of the code. `READYGATE_BLESS=1 cargo test readme` writes them anew.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use readygate::check::KINDS;
use readygate::cli::check::reference_table;
use readygate::{config, metrics};
use serde_json::Value;

fn readme() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")
}

/// Compares (or writes) what stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->`.
fn holds(name: &str, expected: &str) {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().expect("no test panics before it compared");
    let text = std::fs::read_to_string(readme()).expect("the README is there");
    let (begin, end) = (format!("<!-- {name}:begin -->\n"), format!("<!-- {name}:end -->"));
    let from = text.find(&begin).expect("a begin mark") + begin.len();
    let to = from + text[from..].find(&end).expect("an end mark");
    if std::env::var_os("READYGATE_BLESS").is_some() {
        let text = format!("{}{expected}{}", &text[..from], &text[to..]);
        return std::fs::write(readme(), text).expect("the README can be written");
    }
    let same = &text[from..to] == expected;
    drop(_guard);
    assert!(same, "README.md: the table {name} is not that of the code; see the top of tests/it/readme.rs");
}

fn schema() -> Value {
    let kinds: Vec<_> = KINDS.iter().map(|kind| kind.config).collect();
    serde_json::to_value(config::schema(&kinds)).expect("a schema is JSON")
}

/// Rows of a schema's keys, those of maps and objects below them included.
fn rows(root: &Value, node: &Value, path: &str, table: &mut String) -> usize {
    let mut count = 0;
    for (key, child) in resolve(root, node)["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let resolved = resolve(root, child);
        if path == "checks" {
            continue;
        }
        if let Some(entry) = resolved.get("additionalProperties").filter(|entry| entry.is_object()) {
            count += rows(root, entry, &format!("{path}.NAME"), table);
        } else if resolved.get("properties").is_some() {
            count += rows(root, child, &path, table);
        } else {
            count += 1;
            row(&path, child, table);
        }
    }
    count
}

fn row(path: &str, key: &Value, table: &mut String) {
    let default = match key.get("default") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => format!("`{text}`"),
        Some(other) => format!("`{other}`"),
    };
    let meaning = key["description"].as_str().unwrap_or_default().replace('\n', " ");
    assert!(!meaning.is_empty(), "{path} says nothing of itself");
    let _ = writeln!(table, "| `{path}` | {default} | {meaning} |");
}

fn resolve<'a>(root: &'a Value, node: &'a Value) -> &'a Value {
    match node["$ref"].as_str().and_then(|reference| reference.strip_prefix("#")) {
        Some(pointer) => root.pointer(pointer).expect("a reference leads somewhere"),
        None => node,
    }
}

const HEAD: &str = "| key | default | meaning |\n|---|---|---|\n";

#[test]
fn configuration_table_is_the_schema() {
    let schema = schema();
    let mut table = HEAD.to_owned();
    let count = rows(&schema, &schema, "", &mut table);
    assert!(count > 25, "only {count} keys seen");
    holds("keys", &table);
}

#[test]
fn table_of_common_check_keys_is_the_schema() {
    let schema = schema();
    let mut table = HEAD.to_owned();
    let mut count = 0;
    for (key, child) in schema["$defs"]["Check"]["properties"].as_object().expect("keys") {
        if !KINDS.iter().any(|kind| kind.config.name == key) {
            count += 1;
            row(key, child, &mut table);
        }
    }
    assert_eq!(count, 8);
    holds("checks", &table);
}

#[test]
fn table_of_kinds_is_the_code() {
    holds("kinds", &reference_table());
}

#[test]
fn metrics_table_is_the_code() {
    let mut table = "| name | type | labels | |\n|---|---|---|---|\n".to_owned();
    for family in metrics::FAMILIES {
        let labels = family.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        let _ =
            writeln!(table, "| `{}` | {} | {labels} | {} |", family.name, family.kind.name(), family.help);
    }
    assert!(metrics::FAMILIES.len() > 20);
    holds("metrics", &table);
}

#[test]
fn every_metric_of_the_contract_that_exists_so_far_is_there() {
    let names: Vec<_> = metrics::FAMILIES.iter().map(|family| family.name).collect();
    for name in CONTRACT {
        assert!(names.contains(name), "{name} is missing");
    }
}

const CONTRACT: &[&str] = &[
    "readygate_build_info",
    "readygate_ready",
    "readygate_phase",
    "readygate_phase_transitions_total",
    "readygate_time_to_ready_seconds",
    "readygate_check_passing",
    "readygate_check_runs_total",
    "readygate_check_duration_seconds",
    "readygate_check_time_to_pass_seconds",
    "readygate_warmup_requests_total",
    "readygate_warmup_latency_seconds",
    "readygate_app_restarts_total",
    "readygate_requests_total",
    "readygate_request_duration_seconds",
    "readygate_requests_in_flight",
    "readygate_proxy_errors_total",
    "readygate_held_requests",
    "readygate_connections",
    "readygate_connections_total",
    "readygate_bytes_total",
    "readygate_drain_seconds",
    "readygate_drain_last_request_seconds",
    "readygate_drain_cut_total",
    "readygate_config_reloads_total",
    "process_cpu_seconds_total",
];
