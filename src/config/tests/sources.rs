//! What a configuration means: defaults, precedence, reading of values.

use std::time::Duration;

use serde_json::Value;

use super::*;

#[test]
fn nothing_at_all_fronts_the_app_with_one_tcp_check() {
    let loaded = load(&sources(None, &[]), &kinds()).expect("a valid configuration");
    let config = &loaded.config;
    assert_eq!(config.listeners.len(), 1);
    let listener = &config.listeners[0];
    assert_eq!((listener.name.as_str(), listener.listen.to_string()), ("http", "0.0.0.0:8800".to_owned()));
    assert_eq!(listener.upstream.scheme, Scheme::Http);
    assert_eq!(listener.upstream.address, Address::Tcp { host: "127.0.0.1".to_owned(), port: 8080 });
    assert_eq!(config.admin.listen.to_string(), "0.0.0.0:8801");
    assert_eq!(config.workers.get(), 2);
    assert_eq!(config.checks.len(), 1);
    let check = &config.checks[0];
    assert_eq!((check.name.as_str(), check.kind), ("app", "tcp"));
    assert_eq!(check.own.0, json!({ "address": "127.0.0.1:8080" }));
    assert_eq!((check.interval, check.timeout), (Duration::from_secs(5), Duration::from_secs(1)));
    assert_eq!((check.success_threshold, check.failure_threshold), (1, 3));
    assert!(loaded.files.is_empty());
}

#[test]
fn an_empty_file_and_empty_sections_mean_the_defaults() {
    let expected = load(&sources(None, &[]), &kinds()).expect("a valid configuration").config;
    for text in [
        "",
        "# nothing\n",
        "---\n",
        "drain:\nlog:\n  # level: info\n",
        "{}",
        "checks:\n",
        "listeners:\n",
        "listeners:\n  http:\n    # listen: 0.0.0.0:8800\n    timeouts:\n    limits: { queue: }\n",
        "\u{feff}workers: auto\n",
    ] {
        assert_eq!(loaded(text, &[]).config, expected, "{text:?}");
    }
}

#[test]
fn later_sources_win() {
    let text = "drain: { min: 1s, quiet: 1s }\nlisteners: { web: { listen: 127.0.0.1:1000 } }\n";
    let folder = Folder::new();
    let mut sources = sources(
        Some(folder.write("app.yaml", text)),
        &[("READYGATE__DRAIN__QUIET", "4s"), ("READYGATE__LISTENERS__WEB__LISTEN", "127.0.0.1:2000")],
    );
    sources.flags.listen = Some("127.0.0.1:3000".to_owned());
    sources.flags.log_level = Some("debug".to_owned());
    let config = load(&sources, &kinds()).expect("a valid configuration").config;
    assert_eq!(config.drain.min, Duration::from_secs(1));
    assert_eq!(config.drain.quiet, Duration::from_secs(4));
    assert_eq!(config.listeners[0].listen.to_string(), "127.0.0.1:3000");
    assert_eq!(config.log.level, "debug");
}

#[test]
fn variables_are_read_as_what_the_key_wants() {
    let config = loaded(
        "checks: { web: { http: { url: x } }, first: { tcp: { address: x } } }",
        &[
            ("READYGATE__CHECKS__WEB__FAILURE_THRESHOLD", "7"),
            ("READYGATE__CHECKS__WEB__AFTER", "[first, db]"),
            ("READYGATE__CHECKS__WEB__HTTP__RETRIES", "4"),
            ("READYGATE__CHECKS__WEB__HTTP__TOKEN", "1234"),
            ("READYGATE__CHECKS__DB", "{ tcp: { address: 'db:5432' } }"),
            ("READYGATE__LISTENERS__HTTP__LIMITS__IN_FLIGHT", "10"),
            ("READYGATE__LISTENERS__HTTP__LIMITS__HEADER_BYTES", "16384"),
            ("READYGATE__WORKERS", "3"),
            ("READYGATE_PORT", "tcp://10.0.0.1:80"),
            ("READYGATE_SERVICE_HOST", "10.0.0.1"),
        ],
    )
    .config;
    let names: Vec<&str> = config.checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(names, ["web", "first", "db"]);
    assert_eq!(config.checks[0].failure_threshold, 7);
    assert_eq!(config.checks[0].after, ["first", "db"]);
    assert_eq!(config.checks[0].own.0, json!({ "url": "x", "retries": 4, "token": "1234" }));
    assert_eq!(config.checks[2].own.0, json!({ "address": "db:5432" }));
    assert_eq!(config.listeners[0].limits.in_flight, Some(10));
    assert_eq!(config.listeners[0].limits.header_bytes, 16384);
    assert_eq!(config.workers.get(), 3);
}

#[test]
fn checks_by_url_get_names_of_their_own_and_replace_the_default() {
    let mut sources = sources(None, &[]);
    sources.flags.checks =
        ["tcp://db:5432", "tcp://db:5432", "http://127.0.0.1:8080/healthz?x=1"].map(str::to_owned).to_vec();
    let config = load(&sources, &kinds()).expect("a valid configuration").config;
    let names: Vec<(&str, &str)> =
        config.checks.iter().map(|check| (check.name.as_str(), check.kind)).collect();
    assert_eq!(names, [("http_127_0_0_1_8080", "http"), ("tcp_db_5432", "tcp"), ("tcp_db_5432_2", "tcp")]);
}

#[test]
fn checks_keep_the_order_of_the_file() {
    let names = ["z", "b", "m", "a", "k", "c"];
    let entries: Vec<String> =
        names.iter().map(|name| format!("  {name}: {{ tcp: {{ address: x }} }}\n")).collect();
    let config = loaded(&format!("checks:\n{}", entries.concat()), &[]).config;
    assert!(config.checks.iter().map(|check| check.name.as_str()).eq(names));
}

#[test]
fn a_short_interval_shortens_what_follows_from_it() {
    let config = loaded("checks: { a: { tcp: { address: x }, interval: 200ms } }", &[]).config;
    let check = &config.checks[0];
    let short = Duration::from_millis(200);
    assert_eq!((check.timeout, check.interval_failing, check.interval), (short, short, short));
}

#[test]
fn the_gate_of_a_check_is_its_kinds_unless_written() {
    let config = loaded("checks: { a: { tcp: { address: x } }, b: { http: { url: x } }, c: { http: { url: x }, gates: never } }", &[]).config;
    let gates: Vec<Gates> = config.checks.iter().map(|check| check.gates).collect();
    assert_eq!(gates, [Gates::Startup, Gates::Always, Gates::Never]);
}

#[test]
fn several_apps_get_a_check_each() {
    let text = "listeners: { a: { listen: 0.0.0.0:1, upstream: 'http://[::1]:7' }, b: { listen: 0.0.0.0:2 }, c: { listen: 0.0.0.0:3 } }";
    let checks = loaded(text, &[]).config.checks;
    let seen: Vec<(&str, &Value)> =
        checks.iter().map(|check| (check.name.as_str(), &check.own.0["address"])).collect();
    assert_eq!(seen, [("app_a", &json!("[::1]:7")), ("app_b", &json!("127.0.0.1:8080"))]);
}

#[test]
fn the_effective_configuration_is_complete_and_means_the_same() {
    let text = "
listeners: { web: { listen: 127.0.0.1:1, ready_path: /ready, limits: { header_bytes: 10kB, in_flight: 4 } } }
drain: { min: 1500ms, quiet: 90s, deadline: 2m }
checks: { a: { http: { url: x } }, b: { tcp: { address: 'on' }, after: [a] } }
";
    let first = loaded(text, &[]);
    assert_eq!(first.effective["checks"]["a"]["http"]["retries"], 2);
    assert_eq!(first.effective["drain"]["quiet"], "90s");
    let again = loaded(&first.effective.to_string(), &[]);
    assert_eq!(again.effective, first.effective);
    let mut expected = first.config;
    expected.checks[0].own.0["retries"] = json!(2);
    assert_eq!(again.config, expected);
}

#[test]
fn only_what_a_reload_cannot_change_wants_a_restart() {
    let old = loaded("listeners: { a: { listen: 0.0.0.0:1 }, b: { listen: 0.0.0.0:2 } }", &[]).config;
    let text = "
listeners: { a: { listen: 0.0.0.0:3, upstream: 'http://h:1', not_ready: hold }, c: { listen: 0.0.0.0:2 } }
admin: { listen: 0.0.0.0:9, stale_after: 4s, hook_token_file: /x }
workers: 3
drain: { min: 6s }
checks: { a: { tcp: { address: x } } }
log: { format: json, level: debug, access: all }
";
    let new = loaded(text, &[]).config;
    let expected = [
        "listeners.a.listen",
        "listeners.a.upstream",
        "listeners.b",
        "listeners.c",
        "admin.listen",
        "admin.stale_after",
        "admin.hook_token_file",
        "workers",
        "log.format",
    ];
    assert_eq!(restart_needed(&old, &new), expected);
    assert_eq!(restart_needed(&old, &old), Vec::<String>::new());
}

#[test]
fn the_effective_configuration_shows_variables_as_what_they_mean() {
    let variables = [("READYGATE__CHECKS__A__HTTP", "{ url: x, retries: 3 }"), ("READYGATE__WORKERS", "3")];
    let effective = loaded("", &variables).effective;
    assert_eq!(effective["checks"]["a"]["http"], json!({ "url": "x", "retries": 3 }));
    assert_eq!(effective["workers"], 3);
}
