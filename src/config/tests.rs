//! Promises of the loader, against kinds of its own.

use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use schemars::{SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::*;

/// Keys of a kind of these tests, and whether the value of each is a number.
type Keys = &'static [(&'static str, bool)];

fn accept(own: &Own, keys: Keys, needed: &str) -> Result<(), Vec<KeyError>> {
    let known: Vec<String> = keys.iter().map(|(key, _)| (*key).to_owned()).collect();
    let error = |path: &[&str], message: String, known| KeyError {
        path: path.iter().map(|key| (*key).to_owned()).collect(),
        message,
        known,
    };
    let mut errors = Vec::new();
    for (key, value) in own.0.as_object().into_iter().flatten() {
        match keys.iter().find(|(name, _)| name == key) {
            None => errors.push(error(&[key], "unknown key".to_owned(), known.clone())),
            Some((_, true)) if !value.is_number() => {
                errors.push(error(&[key], format!("{value} is not allowed, expected a number"), Vec::new()));
            }
            Some((_, false)) if !value.is_string() => {
                errors.push(error(&[key], format!("{value} is not allowed, expected text"), Vec::new()));
            }
            Some(_) => {}
        }
    }
    if own.0.get(needed).is_none() {
        errors.push(error(&[], format!("{needed} is missing"), Vec::new()));
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

const TCP: Keys = &[("address", false)];
const HTTP: Keys = &[("url", false), ("token", false), ("retries", true)];

fn kinds() -> [Kind; 2] {
    [
        Kind {
            name: "tcp",
            passes_when: "connection established",
            gates: |_, _| Gates::Startup,
            accept: |own, _| accept(own, TCP, "address"),
            schema: |_: &mut SchemaGenerator| json_schema!({ "type": "object", "properties": { "address": { "type": "string" } } }),
            schemes: &["tcp"],
            from_url: |url| match url.strip_prefix("tcp://") {
                Some(address) if address.contains(':') => Ok(json!({ "address": address })),
                _ => Err(format!("{url}: no port, expected tcp://host:port")),
            },
        },
        Kind {
            name: "http",
            passes_when: "the answer is as expected",
            gates: |_, _| Gates::Always,
            accept: |own, _| accept(own, HTTP, "url"),
            schema: |_: &mut SchemaGenerator| {
                json_schema!({ "type": "object", "properties": { "url": { "type": "string" }, "token": { "type": "string" },
                    "retries": { "type": "integer", "default": 2 } } })
            },
            schemes: &["http", "https"],
            from_url: |url| Ok(json!({ "url": url })),
        },
    ]
}

/// A folder that goes when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("readygate-config-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).expect("temporary folder");
        Folder(folder)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let file = self.0.join(name);
        fs::write(&file, text).expect("temporary file");
        file
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn sources(file: Option<PathBuf>, variables: &[(&str, &str)]) -> Sources {
    let cpus = NonZeroUsize::new(2).expect("2 is not 0");
    Sources { file, environment: environment(variables), flags: Flags::default(), cpus }
}

/// The problems of a file, one a line, without the advice at the end.
fn problems_of(name: &str, text: &str, variables: &[(&str, &str)]) -> String {
    let folder = Folder::new();
    let file = folder.write(name, text);
    match load(&sources(Some(file), variables), &kinds()) {
        Ok(_) => String::new(),
        Err(problems) => {
            let shown = problems.to_string().replace(&format!("{}/", folder.0.display()), "");
            let (lines, advice) = shown.rsplit_once('\n').expect("an advice");
            assert!(advice.contains("correct and run \"readygate validate "), "{advice}");
            lines.to_owned()
        }
    }
}

fn loaded(text: &str, variables: &[(&str, &str)]) -> Loaded {
    let folder = Folder::new();
    let file = folder.write("app.yaml", text);
    match load(&sources(Some(file), variables), &kinds()) {
        Ok(loaded) => loaded,
        Err(problems) => panic!("{problems}"),
    }
}

#[test]
fn nothing_at_all_fronts_the_app_with_one_tcp_check() {
    let loaded = load(&sources(None, &[]), &kinds()).expect("a valid configuration");
    let config = &loaded.config;
    assert_eq!(config.listeners.len(), 1);
    let listener = &config.listeners[0];
    assert_eq!((listener.name.as_str(), listener.listen.to_string()), ("http", "0.0.0.0:8800".to_owned()));
    assert_eq!(listener.upstream, Upstream { host: "127.0.0.1".to_owned(), port: 8080 });
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
fn each_problem_says_where_what_and_what_is_allowed() {
    let cases: &[(&str, &str)] = &[
        (
            "drain:\n  quite: 3s\n",
            "app.yaml:2:3: drain.quite: unknown key, did you mean \"quiet\"? allowed: min, quiet, deadline, ready, restart_window",
        ),
        (
            "drain:\n  mni: { min: 1s, min2: 1s }\n  xyz: 1\n",
            "app.yaml:2:3: drain.mni: unknown key, did you mean \"min\"? allowed: min, quiet, deadline, ready, restart_window\n\
             app.yaml:3:3: drain.xyz: unknown key, allowed: min, quiet, deadline, ready, restart_window",
        ),
        (
            "drian: {}\n",
            "app.yaml:1:1: drian: unknown key, did you mean \"drain\"? allowed: listeners, admin, drain, checks, workers, log",
        ),
        (
            "a[99999999999]: 1\n",
            "app.yaml:1:1: \"a[99999999999]\": unknown key, allowed: listeners, admin, drain, checks, workers, log",
        ),
        (
            "drain: { min: 5 }\n",
            "app.yaml:1:15: drain.min: 5 is not allowed, expected a duration such as 250ms, 10s or 2m",
        ),
        (
            "drain: { min: 5x }\n",
            "app.yaml:1:15: drain.min: 5x is not allowed, expected a duration such as 250ms, 10s or 2m",
        ),
        ("drain: { min: 0s }\n", "app.yaml:1:15: drain.min: 0s is not allowed, expected more than 0s"),
        ("drain: { min: 9999d }\n", "app.yaml:1:15: drain.min: 9999d is not allowed, expected at most 365d"),
        (
            "drain: { min: 60s }\n",
            "app.yaml:1:15: drain.min: 60s is longer than drain.deadline (25s), expected at most that",
        ),
        (
            "drain: { deadline: 3s }\n",
            "app.yaml:1:20: drain.deadline: 3s is less than drain.min (5s), expected at least that",
        ),
        (
            "drain: { ready: hodl }\n",
            "app.yaml:1:17: drain.ready: hodl is not allowed, expected fail or hold",
        ),
        ("drain: { ready: 1 }\n", "app.yaml:1:17: drain.ready: 1 is not allowed, expected fail or hold"),
        ("drain: 5s\n", "app.yaml:1:8: drain: 5s is not allowed, expected a map of keys"),
        ("listeners: [a]\n", "app.yaml:1:12: listeners: a list is not allowed, expected a map"),
        (
            "listeners: {}\n",
            "app.yaml:1:12: listeners: an empty map is not allowed, expected at least one listener",
        ),
        (
            "listeners: { Web: {} }\n",
            "app.yaml:1:14: listeners.Web: not a name, expected at most 63 of the characters a-z, 0-9 and _",
        ),
        (
            "listeners: { a: { listen: 8800 } }\n",
            "app.yaml:1:27: listeners.a.listen: 8800 is not allowed, expected an IP address and a port such as 0.0.0.0:8800 or [::]:8800",
        ),
        (
            "listeners: { a: { listen: localhost:80 } }\n",
            "app.yaml:1:27: listeners.a.listen: \"localhost:80\" is not allowed, expected an IP address and a port such as 0.0.0.0:8800 or [::]:8800",
        ),
        (
            "listeners: { a: { upstream: localhost } }\n",
            "app.yaml:1:29: listeners.a.upstream: localhost is not allowed, expected a URL such as http://127.0.0.1:8080",
        ),
        (
            "listeners: { a: { upstream: 'https://h:1' } }\n",
            "app.yaml:1:29: listeners.a.upstream: \"https://h:1\" is not allowed, expected http:// (other schemes are not in this version)",
        ),
        (
            "listeners: { a: { upstream: 'http://u@h:1' } }\n",
            "app.yaml:1:29: listeners.a.upstream: \"http://u@h:1\" is not allowed, expected a URL such as http://127.0.0.1:8080",
        ),
        (
            "listeners: { a: { upstream: 'http://localhost:8800' } }\n",
            "app.yaml:1:29: listeners.a.upstream: http://localhost:8800 is the listener itself: requests would go round in circles, expected the address of the app",
        ),
        (
            "listeners: { a: {}, b: {} }\n",
            "app.yaml:1:21: listeners.b.listen: 0.0.0.0:8800 is taken by listeners.a.listen, expected another port",
        ),
        (
            "listeners: { a: {} }\nadmin: { listen: 127.0.0.1:8800 }\n",
            "app.yaml:2:18: admin.listen: 127.0.0.1:8800 is taken by listeners.a.listen, expected another port",
        ),
        (
            "listeners: { a: { tls: {} } }\n",
            "app.yaml:1:19: listeners.a.tls: unknown key (not in this version), allowed: listen, upstream, not_ready, timeouts, limits, hold, forwarded, ready_path",
        ),
        (
            "listeners: { a: { not_ready: drop } }\n",
            "app.yaml:1:30: listeners.a.not_ready: drop is not allowed, expected forward, hold or reject",
        ),
        (
            "listeners: { a: { ready_path: ready } }\n",
            "app.yaml:1:31: listeners.a.ready_path: ready is not allowed, expected a path such as /.readygate/ready, or off",
        ),
        (
            "listeners: { a: { timeouts: { response: no } } }\n",
            "app.yaml:1:41: listeners.a.timeouts.response: no is not allowed, expected a duration such as 250ms, 10s or 2m, or off",
        ),
        (
            "listeners: { a: { limits: { in_flight: 0 } } }\n",
            "app.yaml:1:40: listeners.a.limits.in_flight: 0 is not allowed, expected a whole number from 1, or off",
        ),
        (
            "listeners: { a: { limits: { queue: -1 } } }\n",
            "app.yaml:1:36: listeners.a.limits.queue: -1 is not allowed, expected a whole number",
        ),
        (
            "listeners: { a: { limits: { queue: 010 } } }\n",
            "app.yaml:1:36: listeners.a.limits.queue: 010 is doubtful, expected a decimal number without leading zeros, or text in quotes",
        ),
        (
            "listeners: { a: { limits: { header_bytes: 1KiB } } }\n",
            "app.yaml:1:43: listeners.a.limits.header_bytes: 1KiB is not allowed, expected 8KiB to 16MiB",
        ),
        (
            "listeners: { a: { limits: { header_bytes: big } } }\n",
            "app.yaml:1:43: listeners.a.limits.header_bytes: big is not allowed, expected a size such as 64KiB, 10MB or 4096 (bytes)",
        ),
        (
            "listeners: { a: { hold: { fro: 1s } } }\n",
            "app.yaml:1:27: listeners.a.hold.fro: unknown key, did you mean \"for\"? allowed: for",
        ),
        (
            "admin: { stale_after: 100ms }\n",
            "app.yaml:1:23: admin.stale_after: 100ms is not allowed, expected at least 500ms: the data plane beats every 250ms",
        ),
        ("workers: 0\n", "app.yaml:1:10: workers: 0 is not allowed, expected auto or a number from 1 to 256"),
        (
            "log: { level: infoo }\n",
            "app.yaml:1:15: log.level: infoo is not a level, did you mean \"info\"? allowed: error, warn, info, debug, trace, off",
        ),
        (
            "log: { access: yes }\n",
            "app.yaml:1:16: log.access: yes is not allowed, expected off, errors or all",
        ),
        ("checks: { a: {} }\n", "app.yaml:1:11: checks.a: no kind of check, expected one key of: tcp, http"),
        ("checks: { a: 5 }\n", "app.yaml:1:14: checks.a: 5 is not allowed, expected a map of keys"),
        (
            "checks: { a: { htp: { url: x } } }\n",
            "app.yaml:1:16: checks.a.htp: unknown kind of check, did you mean \"http\"? allowed: tcp, http",
        ),
        (
            "checks: { a: { redis: { address: x } } }\n",
            "app.yaml:1:16: checks.a.redis: kind of check that is not in this version, allowed: tcp, http",
        ),
        (
            "checks: { a: { tcp: { address: x }, http: { url: x } } }\n",
            "app.yaml:1:37: checks.a.http: second kind beside tcp, expected exactly one in a check",
        ),
        (
            "checks: { a: { tcp: { addres: x, address: x } } }\n",
            "app.yaml:1:23: checks.a.tcp.addres: unknown key, did you mean \"address\"? allowed: address",
        ),
        (
            "checks: { a: { http: { retries: x, ulr: 2, token: 3 } } }\n",
            "app.yaml:1:22: checks.a.http: url is missing\n\
             app.yaml:1:33: checks.a.http.retries: \"x\" is not allowed, expected a number\n\
             app.yaml:1:36: checks.a.http.ulr: unknown key, did you mean \"url\"? allowed: url, token, retries\n\
             app.yaml:1:51: checks.a.http.token: 3 is not allowed, expected text",
        ),
        (
            "checks: { a: { tcp: x } }\n",
            "app.yaml:1:21: checks.a.tcp: x is not allowed, expected a map of keys",
        ),
        (
            "checks: { a: { tcp: { address: x }, timeuot: 1s } }\n",
            "app.yaml:1:37: checks.a.timeuot: unknown key, did you mean \"timeout\"? allowed: gates, after, interval, interval_failing, timeout, success_threshold, failure_threshold",
        ),
        (
            "checks: { a: { tcp: { address: x }, guard: {} } }\n",
            "app.yaml:1:37: checks.a.guard: unknown key (not in this version), allowed: gates, after, interval, interval_failing, timeout, success_threshold, failure_threshold",
        ),
        (
            "checks: { a: { tcp: { address: x }, timeout: 6s } }\n",
            "app.yaml:1:46: checks.a.timeout: 6s is longer than the check's interval (5s), expected at most that",
        ),
        (
            "checks: { a: { tcp: { address: x }, interval: 1us } }\n",
            "app.yaml:1:47: checks.a.interval: 1us is not allowed, expected at least 10ms",
        ),
        (
            "checks: { a: { tcp: { address: x }, failure_threshold: 0 } }\n",
            "app.yaml:1:56: checks.a.failure_threshold: 0 is not allowed, expected a whole number from 1",
        ),
        (
            "checks: { a: { tcp: { address: x }, after: [b] } }\n",
            "app.yaml:1:45: checks.a.after.0: b is not a check",
        ),
        (
            "checks: { a: { tcp: { address: x }, after: [1] } }\n",
            "app.yaml:1:45: checks.a.after.0: 1 is not allowed, expected text",
        ),
        (
            "checks: { a: { tcp: { address: x }, after: [a] } }\n",
            "app.yaml:1:44: checks.a.after: a after a is a circle, expected an order",
        ),
        (
            "checks: { a: { tcp: { address: x }, after: [b] }, b: { tcp: { address: x }, after: [a] } }\n",
            "app.yaml:1:44: checks.a.after: a after b after a is a circle, expected an order",
        ),
        (
            "checks: { A-b: { tcp: { address: x } } }\n",
            "app.yaml:1:11: checks.A-b: not a name, expected at most 63 of the characters a-z, 0-9 and _",
        ),
        (
            "checks: { a: { http: { url: '${env:GONE}' } } }\n",
            "app.yaml:1:29: checks.a.http.url: variable GONE is not set, expected the value for ${env:GONE}",
        ),
        ("workers: 1\nworkers: 1\n", "app.yaml:2:1: workers: the key is there twice, expected once"),
        (
            "workers: 1\n  log: {\n",
            "app.yaml:2:6: not valid YAML: mapping values are not allowed in this context",
        ),
        ("- 1\n", "app.yaml:1:1: expected a map of keys such as listeners and checks"),
        ("workers: 1\n---\nworkers: 2\n", "app.yaml:2:1: a second document, expected one"),
        ("{ [1]: 2 }\n", "app.yaml:1:3: a key must be plain text"),
    ];
    let wrong: Vec<String> = cases
        .iter()
        .map(|(text, expected)| (text, problems_of("app.yaml", text, &[]), expected))
        .filter(|(_, found, expected)| found != *expected)
        .map(|(text, found, expected)| format!("{text}found    {found}\nexpected {expected}\n"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_problems_of_a_file_come_at_once_and_in_its_order() {
    let text = "drain:\n  quite: 3s\n  min: 0s\nchecks:\n  db:\n    tpc: { address: db }\n    timeout: 9s\nwokers: 1\n";
    let problems = problems_of("app.yaml", text, &[("READYGATE__LOG__FORMAT", "xml")]);
    let starts: Vec<&str> =
        problems.lines().filter_map(|line| line.split_once(": ").map(|(place, _)| place)).collect();
    assert_eq!(
        starts,
        [
            "app.yaml:2:3",
            "app.yaml:3:8",
            "app.yaml:6:5",
            "app.yaml:7:14",
            "app.yaml:8:1",
            "READYGATE__LOG__FORMAT"
        ],
        "{problems}"
    );
}

#[test]
fn the_last_line_says_what_to_do_next() {
    let problems = load(&sources(Some("/not/there.yaml".into()), &[]), &kinds()).expect_err("no file");
    let expected = "/not/there.yaml: cannot read the configuration: No such file or directory (os error 2)\n\
        1 problem: correct and run \"readygate validate /not/there.yaml\"; \"readygate schema\" describes every key";
    assert_eq!(problems.to_string(), expected);
}

#[test]
fn toml_and_json_have_places_too() {
    let cases = [
        (
            "app.toml",
            "[drain]\nmin = \"1s\"\nquite = 1\n",
            "app.toml:3:1: drain.quite: unknown key, did you mean \"quiet\"? allowed: min, quiet, deadline, ready, restart_window",
        ),
        (
            "app.toml",
            "[checks.a]\ntcp = { address = \"x\" }\nafter = [\n  \"b\",\n]\n",
            "app.toml:4:3: checks.a.after.0: b is not a check",
        ),
        ("app.toml", "[drain\n", "app.toml:1:7: not valid TOML: unclosed table, expected `]`"),
        (
            "app.json",
            "{\n\t\"drain\": {\n\t\t\"min\": 5\n\t}\n}\n",
            "app.json:3:10: drain.min: 5 is not allowed, expected a duration such as 250ms, 10s or 2m",
        ),
        (
            "app.json",
            "{ \"drain\": {}, }\n",
            "app.json:1:16: cannot read the configuration: trailing comma at line 1 column 16",
        ),
        (
            "app.json",
            "{ \"workers\": 1, \"workers\": 2 }\n",
            "app.json:1:17: workers: the key is there twice, expected once",
        ),
        ("app.ini", "", "app.ini: unknown format, expected a name that ends in .yaml, .yml, .toml or .json"),
    ];
    for (name, text, expected) in cases {
        assert_eq!(problems_of(name, text, &[]), expected, "{text}");
    }
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
fn problems_of_variables_name_the_variable() {
    let cases = [
        (
            "READYGATE__DRAIN__QUITE",
            "3s",
            "READYGATE__DRAIN__QUITE: drain.quite: unknown key, did you mean \"quiet\"? allowed: min, quiet, deadline, ready, restart_window",
        ),
        (
            "READYGATE__WORKERS",
            "many",
            "READYGATE__WORKERS: workers: many is not allowed, expected auto or a number from 1 to 256",
        ),
        (
            "READYGATE__CHECKS__DB__TIMEOUT",
            "1s",
            "READYGATE__CHECKS__DB__TIMEOUT: checks.db: no kind of check, expected one key of: tcp, http",
        ),
        (
            "READYGATE__",
            "1",
            "READYGATE__: \"\": not a key path, expected names joined by __, such as READYGATE__DRAIN__QUIET",
        ),
        (
            "READYGATE__A[1]",
            "1",
            "READYGATE__A[1]: \"a[1]\": not a key path, expected names joined by __, such as READYGATE__DRAIN__QUIET",
        ),
    ];
    for (name, value, expected) in cases {
        assert_eq!(problems_of("app.yaml", "", &[(name, value)]), expected);
    }
    let both = [("READYGATE__CHECKS", "{}"), ("READYGATE__CHECKS__DB__TIMEOUT", "1s")];
    assert_eq!(
        problems_of("app.yaml", "", &both),
        "READYGATE__CHECKS__DB__TIMEOUT: checks.db.timeout: READYGATE__CHECKS sets this key too, expected one of the two"
    );
}

#[test]
fn flags_say_which_flag_is_wrong() {
    let mut sources = sources(None, &[]);
    sources.flags.listen = Some("8800".to_owned());
    sources.flags.checks =
        ["tcp://db:5432", "tcp://db:5432", "tcp://db", "tpc://db:1"].map(str::to_owned).to_vec();
    let problems = load(&sources, &kinds()).expect_err("problems");
    assert_eq!(
        problems.to_string(),
        "--check tcp://db: tcp://db: no port, expected tcp://host:port\n\
         --check tpc://db:1: unknown scheme \"tpc\" of a check, did you mean \"tcp\"? allowed: tcp, http, https\n\
         --listen: listeners.http.listen: 8800 is not allowed, expected an IP address and a port such as 0.0.0.0:8800 or [::]:8800\n\
         3 problems: correct and try again; \"readygate schema\" describes every key"
    );
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
fn flags_for_the_only_listener_want_only_one() {
    let folder = Folder::new();
    let text = "listeners: { a: { listen: 0.0.0.0:1 }, b: { listen: 0.0.0.0:2 } }";
    let mut sources = sources(Some(folder.write("app.yaml", text)), &[]);
    sources.flags.upstream = Some("http://h:1".to_owned());
    let problems = load(&sources, &kinds()).expect_err("a problem");
    let expected = "--upstream: means the only listener, but there are 2: a, b; expected listeners.NAME.upstream in the configuration";
    assert_eq!(problems.all[0].to_string(), expected);
}

#[test]
fn secrets_are_used_and_never_shown() {
    let folder = Folder::new();
    let token = folder.write("token", "s3cret-of-a-file\n");
    let text = format!(
        "checks: {{ web: {{ http: {{ url: 'http://${{env:HOST}}/', token: 'Bearer ${{file:{}}}' }} }} }}",
        token.display()
    );
    let config = folder.write("app.yaml", &text);
    let loaded = load(&sources(Some(config.clone()), &[("HOST", "s3cret-host")]), &kinds()).expect("valid");
    assert_eq!(loaded.config.checks[0].own.0["token"], "Bearer s3cret-of-a-file");
    assert_eq!(loaded.config.checks[0].own.0["url"], "http://s3cret-host/");
    assert_eq!(loaded.effective["checks"]["web"]["http"]["url"], "http://${env:HOST}/");
    assert_eq!(loaded.files, [config, token]);
    assert!(!format!("{loaded:?} {:?} {}", loaded.config, loaded.effective).contains("s3cret"));
}

#[test]
fn secrets_that_do_not_fit_are_not_shown_either() {
    let text = "
listeners: { a: { listen: '${env:S}', not_ready: '${env:S}', limits: { queue: '${env:S}' }, timeouts: { idle: '${env:S}' } } }
log: { level: '${env:S}', format: '${env:S}' }
drain: '${env:S}'
workers: '${env:S}'
checks:
  a: { http: { url: x, retries: '${env:S}' }, failure_threshold: '${env:S}', after: ['${env:S}'] }
  b: { http: '${env:S}', interval: '${env:S}' }
  c: '${env:S}'
";
    let folder = Folder::new();
    let file = folder.write("app.yaml", text);
    for secret in ["s3cret", "s3cret, expected `s3cret`", "'s3cret\n\"", "{ s3cret: s3cret }", "[s3cret]"] {
        let problems = load(&sources(Some(file.clone()), &[("S", secret)]), &kinds()).expect_err("problems");
        assert!(problems.all.len() >= 10, "{problems}");
        assert!(!format!("{problems} {problems:?}").contains("s3cret"), "{problems}");
    }
}

#[test]
fn numbers_may_be_secrets() {
    let text = "checks: { a: { http: { url: x, retries: '${env:N}' }, failure_threshold: '${env:N}' } }";
    let loaded = loaded(text, &[("N", "9")]);
    assert_eq!(loaded.config.checks[0].failure_threshold, 9);
    assert_eq!(loaded.config.checks[0].own.0["retries"], 9);
    assert_eq!(loaded.effective["checks"]["a"]["failure_threshold"], "${env:N}");
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
fn aliases_cannot_multiply() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        text += &format!("a{level}: &a{level} [{aliases}]\n");
    }
    let problems = problems_of("app.yaml", &text, &[]);
    assert!(problems.contains("too large, expected at most 100000 values"), "{problems}");
}

#[test]
fn no_nesting_overflows_the_stack() {
    for text in [
        "[".repeat(100_000),
        "{a: ".repeat(100_000),
        "- ".repeat(100_000),
        format!("drain: {}", "[".repeat(100_000)),
    ] {
        for name in ["app.yaml", "app.toml", "app.json"] {
            assert_ne!(problems_of(name, &text, &[]), "");
        }
        problems_of("app.yaml", "", &[("READYGATE__WORKERS", &text)]);
    }
}

#[test]
fn aliases_inside_the_bounds_work() {
    let config = loaded("drain: { min: &one 1s, quiet: *one }\n", &[]).config;
    assert_eq!(config.drain.min, config.drain.quiet);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_loader_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        name in prop_oneof![Just("app.yaml"), Just("app.toml"), Just("app.json")],
    ) {
        let folder = Folder::new();
        let file = folder.write(name, &bytes);
        let _ = load(&sources(Some(file), &[]), &kinds());
    }

    #[test]
    fn no_arrangement_of_words_makes_the_loader_panic(
        words in proptest::collection::vec(proptest::sample::select(WORDS), 0..40),
        value in proptest::sample::select(WORDS),
    ) {
        let folder = Folder::new();
        let file = folder.write("app.yaml", words.concat());
        let variables = [("READYGATE__DRAIN", value), ("READYGATE__CHECKS__A__HTTP", value), ("READYGATE__CHECKS__A__AFTER", value)];
        if let Err(problems) = load(&sources(Some(file), &variables), &kinds()) {
            prop_assert!(!problems.all.is_empty());
        }
    }
}

const WORDS: &[&str] = &[
    "listeners",
    "checks",
    "drain",
    "log",
    "workers",
    "a",
    "b",
    "http",
    "tcp",
    "after",
    "interval",
    "timeouts",
    "limits",
    "min",
    "listen",
    ": ",
    ":\n  ",
    "\n",
    "\n  ",
    "\n    ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ", ",
    "&a ",
    "*a",
    "!!int ",
    "'",
    "\"",
    "|\n",
    "1s",
    "0s",
    "0777",
    ".inf",
    "~",
    "true",
    "-1",
    "99999999999999999999",
    "1e400",
    "${env:A}",
    "$${",
    "${",
    "<<: ",
    "? ",
    "#",
    "\t",
];
