//! Every kind of check says in words what it tests, from its own keys, and shows no secret.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use readygate::check::{Context, KINDS};
use serde_json::{Value, json};

use crate::support::checks::{accept, kind, listener, spec};

fn words(name: &str, own: &Value) -> String {
    accept(name, own.clone(), &[listener("web", 1)]).unwrap_or_else(|errors| panic!("{name}: {errors:?}"));
    let context = Context {
        targets: Rc::new([]),
        warmup_token: "token".into(),
        traffic: None,
        report: Rc::new(|_| ()),
    };
    (kind(name).build)(&spec(name, own.clone(), Duration::from_secs(1)), context).tests()
}

/// Stands where users put secrets.
const SECRET: &str = "hunter2";

/// A kind, its keys, and what is said of them.
fn samples() -> Vec<(&'static str, Value, &'static str)> {
    let secure = json!({ "address": "db:1", "tls": true });
    vec![
        (
            "amqp",
            json!({ "address": "mq:1" }),
            "connects to mq:1, and expects a broker that speaks AMQP 0-9-1",
        ),
        (
            "amqp",
            json!({ "address": "mq:1", "tls": true, "user": "app", "password": SECRET }),
            "connects to mq:1 over TLS, logs in as app to /, and expects that messages are taken",
        ),
        (
            "kafka",
            json!({ "address": "broker:1", "min_brokers": 3 }),
            "connects to broker:1, asks for ApiVersions, and expects a broker's answer, and at least 3 brokers with a \
             controller",
        ),
        (
            "mongodb",
            secure.clone(),
            "connects to db:1 over TLS, sends hello, and expects a server that takes work",
        ),
        (
            "postgres",
            json!({ "address": "db:1", "password": SECRET, "query": format!("SELECT '{SECRET}'") }),
            "connects to db:1, asks for a session as postgres in postgres, and expects the configured query to be answered",
        ),
        (
            "redis",
            json!({ "address": "db:1", "username": "app", "password": SECRET }),
            "connects to db:1, logs in as app, sends PING, and expects PONG",
        ),
        ("dns", json!({ "name": "db.svc" }), "looks up db.svc, and expects an address"),
        (
            "dns",
            json!({ "name": "db.svc", "min_records": 3 }),
            "looks up db.svc, and expects at least 3 addresses",
        ),
        (
            "exec",
            json!({ "command": ["/bin/psql", SECRET, "-c"], "env": { "PGPASSWORD": SECRET } }),
            "runs /bin/psql with 2 arguments, and expects it to exit with 0",
        ),
        (
            "file",
            json!({ "path": "/etc/a.yaml", "format": "yaml", "min_bytes": "1KiB", "max_age": "24h", "matches": "^a" }),
            "looks at /etc/a.yaml, and expects a file of YAML, at least 1024 bytes long, changed in the last 1day, that \
             matches ^a",
        ),
        (
            "file",
            json!({ "path": "/lock", "absent": true }),
            "looks for /lock, and expects that there is none",
        ),
        ("grpc", json!({ "address": "app:1" }), "asks the health service of app:1, and expects SERVING"),
        (
            "grpc",
            json!({ "address": "app:1", "service": "pkg.A", "tls": true }),
            "asks the health service of app:1 over TLS, and expects SERVING for pkg.A",
        ),
        (
            "http",
            json!({
                "url": format!("http://127.0.0.1:8080/healthz?token={SECRET}"), "method": "POST", "body": SECRET,
                "headers": { "authorization": SECRET }, "expect": [204, "300-399"], "body_matches": "^ok",
                "json": { "/status": SECRET, "/db": 1 },
            }),
            "sends POST http://127.0.0.1:8080/healthz, and expects 204, 300-399, with a body that matches ^ok, with the \
             JSON values that are configured at /db, /status",
        ),
        (
            "memcached",
            secure.clone(),
            "connects to db:1 over TLS, sends version, and expects one, or the wish for a password",
        ),
        (
            "mqtt",
            secure.clone(),
            "connects to db:1 over TLS, sends CONNECT, and expects that only our credentials may be refused",
        ),
        (
            "mysql",
            secure.clone(),
            "connects to db:1 over TLS, logs in as readygate without a password, and expects to be let in, or only \
             readygate to be refused",
        ),
        (
            "nats",
            secure.clone(),
            "connects to db:1 over TLS, sends PING, and expects PONG, or the wish for credentials",
        ),
        (
            "postgres",
            json!({ "address": "db:1", "user": "app", "database": "orders" }),
            "connects to db:1, asks for a session as app in orders, and expects one, the question for a password, or only \
             app to be refused",
        ),
        (
            "redis",
            secure,
            "connects to db:1 over TLS, sends PING, and expects PONG, or the wish for a password",
        ),
        ("tcp", json!({ "address": "[::1]:5432" }), "connects to [::1]:5432, and hangs up"),
        (
            "tls",
            json!({ "address": "db:1", "server_name": "db.example.com", "min_validity": "168h" }),
            "makes a TLS handshake with db:1, and expects a trusted certificate for db.example.com, valid for 7d more",
        ),
        (
            "tls",
            json!({ "address": "db:1", "insecure_skip_verify": true }),
            "makes a TLS handshake with db:1, and expects any certificate",
        ),
        (
            "traffic",
            json!({ "listener": "web", "max_latency": { "latency": "80ms" }, "probes": [format!("/a?{SECRET}")] }),
            "judges what users got through listener web in the last 5s, from 20 answers on: at most 10% errors \
             (500-599), p95 at most 80ms; after a failure the pod stays out for 10s, at most 5m, and until GET /a is \
             answered",
        ),
        (
            "warmup",
            json!({
                "listener": "web", "target": { "quantile": 0.99, "latency": "80ms" }, "plateau": "10%",
                "requests": [
                    { "path": format!("/a?{SECRET}"), "body": SECRET, "headers": { "x": SECRET } },
                    "GET /b", { "grpc": "health" },
                ],
            }),
            "sends GET /a and 2 other requests through listener web, 4 at a time, until 99% of the last 50 answers are \
             good, p99 is at most 80ms, p99 has settled to within 10%; after 1m it fails and begins again",
        ),
        (
            "warmup",
            json!({ "requests": [{ "grpc": "/pkg.A/B", "message": "aGk=" }], "on_budget_exhausted": "pass" }),
            "sends the gRPC call /pkg.A/B through the listener, 4 at a time, until 99% of the last 50 answers are good; \
             after 1m it passes all the same",
        ),
    ]
}

#[test]
fn every_kind_says_what_it_tests_and_where() {
    let mut seen = BTreeSet::new();
    for (name, own, expected) in samples() {
        assert_eq!(words(name, &own), expected);
        for key in ["address", "path", "name"] {
            if let Some(place) = own[key].as_str() {
                assert!(expected.contains(place), "{name}: {expected} does not say where");
            }
        }
        seen.insert(name);
    }
    let kinds: BTreeSet<_> = KINDS.iter().map(|kind| kind.config.name).collect();
    assert_eq!(seen, kinds, "a sample of every kind");
}

#[test]
fn words_show_no_secret_and_fit_into_a_sentence() {
    for (name, own, _) in samples() {
        let words = words(name, &own);
        assert!(!words.contains(SECRET), "{name}: {words}");
        assert!(words.starts_with(char::is_lowercase) && !words.ends_with('.'), "{name}: {words}");
        assert!(!words.contains(char::is_control), "{name}: {words}");
    }
    let with_secrets = samples().iter().filter(|(_, own, _)| own.to_string().contains(SECRET)).count();
    assert_eq!(with_secrets, 7, "the samples hold what must not be shown");
}
