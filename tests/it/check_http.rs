//! The verdicts of `http` and `tcp` are those that a live kubelet gave.
//!
//! `tests/data/kubelet-probe-vectors.json` holds what was measured: what a server did, the verdict, the bytes
//! of the requests. For each case a server here does the same, our check runs once, and verdict and requests
//! are compared. [`DIFFERENCES`] and [`NOT_APPLICABLE`] name every case that is treated otherwise, and why.

mod acts;
mod servers;

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use self::servers::Site;
use crate::support::checks::{accept, run};

/// Cases that end otherwise on purpose.
const DIFFERENCES: &[(&str, Differs, &str)] = &[
    (
        "ok6-then-101-hold",
        Differs::Verdict,
        "the kubelet hangs on a 101 and keeps the old verdict; here the 101 fails at once",
    ),
    (
        "path-double",
        Differs::Requests,
        "a whole URL is configured, in which // after the host begins a path, not a host",
    ),
    (
        "https-h2",
        Differs::Requests,
        "HTTP/2 is not offered: the server answers by HTTP/1.1, with the same verdict",
    ),
];

/// How, besides what holds for all cases: `user-agent` is readygate's; TLS is unverified only if
/// `insecure_skip_verify` asks for it (all https cases do); tries after a broken body share one `timeout`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Differs {
    Verdict,
    Requests,
}

/// Cases that have no counterpart.
const NOT_APPLICABLE: &[(&str, &str)] = &[
    ("grpc-serving", "the kind grpc"),
    ("grpc-serving-svc", "the kind grpc"),
    ("grpc-notserving", "the kind grpc"),
    ("grpc-unknown", "the kind grpc"),
    ("grpc-unimplemented", "the kind grpc"),
    ("grpc-notfound", "the kind grpc"),
    ("grpc-slow", "the kind grpc"),
    ("grpc-to-http1", "the kind grpc"),
    ("grpc-closed", "the kind grpc"),
    ("named-port", "ports have no names here"),
    ("named-port-unknown", "ports have no names here"),
    ("hdr-case", "the Kubernetes API refuses the header name X_Under; the kubelet never sees it"),
    ("path-noslash", "a URL cannot say it: its path begins with a slash"),
    ("path-colon", "a URL cannot say it: its path begins with a slash"),
    ("path-url", "a URL cannot say it: its path begins with a slash"),
];

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Case>,
}

#[derive(Clone, Deserialize)]
struct Case {
    name: String,
    probe: Probe,
    result: String,
    #[serde(default)]
    requests_seen: Vec<String>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    http_get: Option<HttpGet>,
    tcp_socket: Option<TcpSocket>,
    timeout_seconds: u64,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HttpGet {
    #[serde(default)]
    path: String,
    port: Value,
    #[serde(default)]
    scheme: String,
    #[serde(default)]
    http_headers: Vec<HttpHeader>,
}

#[derive(Clone, Deserialize)]
struct HttpHeader {
    name: String,
    value: String,
}

#[derive(Clone, Deserialize)]
struct TcpSocket {
    port: u16,
}

fn cases() -> Vec<Case> {
    let vectors: Vectors =
        serde_json::from_str(include_str!("../data/kubelet-probe-vectors.json")).expect("vectors");
    vectors.cases
}

#[tokio::test]
async fn verdicts_and_requests_are_the_kubelets() {
    let all = cases();
    let names: Vec<_> = all.iter().map(|case| case.name.clone()).collect();
    for name in DIFFERENCES.iter().map(|row| row.0).chain(NOT_APPLICABLE.iter().map(|row| row.0)) {
        assert!(names.iter().any(|known| known == name), "{name} is no case");
    }
    let is_applicable = |case: &Case| !NOT_APPLICABLE.iter().any(|(name, _)| *name == case.name);
    let applicable: Vec<_> = all.into_iter().filter(is_applicable).collect();
    // Those with megabytes to read block the others' clocks, those with little time to spare mind: alone, together.
    let is_heavy = |case: &Case| matches!(case.name.as_str(), "headers-1m" | "headers-11m" | "body-1m");
    let is_tight =
        |case: &Case| matches!(case.name.as_str(), "delay-08-timeout-1" | "body-drip-1s5" | "redir-302-slow");
    let (heavy, rest): (Vec<_>, Vec<_>) = applicable.into_iter().partition(is_heavy);
    let (tight, rest): (Vec<_>, Vec<_>) = rest.into_iter().partition(is_tight);
    let local = tokio::task::LocalSet::new();
    let mut complaints = Vec::new();
    let mut ran = 0;
    let groups = heavy.into_iter().map(|case| vec![case]).chain([tight, rest]);
    for group in groups {
        let running: Vec<_> = group.into_iter().map(|case| local.spawn_local(compare(case))).collect();
        for outcome in running {
            let complaint = local.run_until(outcome).await.expect("no case panics");
            complaints.extend(complaint);
            ran += 1;
        }
    }
    assert!(complaints.is_empty(), "{} of {ran} cases differ:\n{}", complaints.len(), complaints.join("\n"));
    assert_eq!((ran, NOT_APPLICABLE.len()), (175, 15), "cases that ran, and that do not apply");
}

/// Runs a case; says what differs, if anything.
async fn compare(case: Case) -> Option<String> {
    let difference =
        DIFFERENCES.iter().find(|(name, _, _)| *name == case.name).map(|(_, differs, _)| *differs);
    let site = Site::open(&case.name).await;
    let (kind, own) = keys(&case, &site);
    let timeout = Duration::from_secs(case.probe.timeout_seconds);
    // 503 comes once, then 200: the verdict that was measured is the later one.
    let runs = if case.name == "r503-once-then-200" { 2 } else { 1 };
    let mut said = String::new();
    let mut passed = false;
    for _ in 0..runs {
        let result = match accept(kind, own.clone(), &[]) {
            Ok(()) => run(kind, own.clone(), timeout).await.map_err(|error| error.to_string()),
            Err(refused) => Err(format!("refused: {}", refused[0].message)),
        };
        passed = result.is_ok();
        said = result.map_or_else(|error| error, |evidence| evidence.summary);
    }
    let expected = match case.result.as_str() {
        "success" => Some(true),
        "failure" => Some(false),
        // A race between accept and reset.
        "flapping" => None,
        other => return Some(format!("{}: unknown result {other}", case.name)),
    };
    let agrees = expected.is_none_or(|expected| expected == passed);
    if agrees == (difference == Some(Differs::Verdict)) {
        return Some(format!("{}: measured {}, ours passed: {passed} ({said})", case.name, case.result));
    }
    let seen = site.requests();
    let expected: Vec<_> = case.requests_seen.iter().map(|request| site.localize(request)).collect();
    let missing = expected.iter().find(|request| !seen.contains(request));
    // Of long chains only the last requests were written down.
    let extra = seen.iter().find(|request| !expected.contains(request) && !case.name.starts_with("chain-"));
    let same = expected.is_empty() || (missing.is_none() && extra.is_none());
    match (same, difference) {
        (true, Some(Differs::Requests)) => Some(format!("{}: requests do not differ", case.name)),
        (false, None) => {
            Some(format!("{}: requests differ\n  measured {expected:?}\n  ours     {seen:?}", case.name))
        }
        _ => None,
    }
}

/// The keys that mean the probe of a case.
fn keys(case: &Case, site: &Site) -> (&'static str, Value) {
    if let Some(tcp) = &case.probe.tcp_socket {
        return ("tcp", json!({ "address": site.address(u64::from(tcp.port)).to_string() }));
    }
    let probe = case.probe.http_get.as_ref().expect("an http or tcp case");
    let scheme = if probe.scheme == "HTTPS" { "https" } else { "http" };
    let address: SocketAddr = site.address(probe.port.as_u64().expect("a number"));
    let mut own = json!({ "url": format!("{scheme}://{address}{}", probe.path) });
    for HttpHeader { name, value } in &probe.http_headers {
        let headers = &mut own["headers"];
        let name = if headers.is_object() && name == "x-a" { "X-A" } else { name.as_str() };
        match headers.get_mut(name) {
            Some(values) => values.as_array_mut().expect("a list").push(json!(value)),
            None => headers[name] = json!([value]),
        }
    }
    if case.name.starts_with("https-") || case.name.starts_with("redir-302-http") {
        own["insecure_skip_verify"] = json!(true);
    }
    ("http", own)
}

mod beyond_the_kubelet {
    //! What the kubelet does not look at.

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn verdict(path: &str, own: Value) -> Result<String, String> {
        let site = Site::open("beyond").await;
        let mut own = own;
        own["url"] = json!(format!("http://{}{path}", site.address(8000)));
        let result = run("http", own, 5 * SECOND).await;
        result.map(|evidence| evidence.summary).map_err(|error| error.to_string())
    }

    fn inside<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        tokio::task::LocalSet::new().block_on(&runtime, test)
    }

    #[test]
    fn the_expected_codes_decide_about_the_last_answer() {
        inside(async {
            assert_eq!(verdict("/five", json!({ "expect": [500] })).await, Ok("500".to_owned()));
            assert_eq!(
                verdict("/chain/2", json!({ "expect": "200-299" })).await,
                Ok("200 after 2 redirects".to_owned())
            );
            let error = verdict("/five?token=hunter2", json!({})).await.expect_err("fails");
            assert!(error.ends_with("/five answered 500, expected 200-399: no"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        });
    }

    #[test]
    fn a_body_can_be_looked_into() {
        inside(async {
            assert!(verdict("/json", json!({ "json": { "/status": "UP", "/parts/0/n": 3 } })).await.is_ok());
            let error = verdict("/json", json!({ "json": { "/status": "DOWN" } })).await.expect_err("fails");
            assert!(error.ends_with("has \"UP\" at /status, expected \"DOWN\""), "{error}");
            let error = verdict("/json", json!({ "json": { "/none": 1 } })).await.expect_err("fails");
            assert!(error.ends_with("has nothing at /none, expected 1"), "{error}");
            assert!(verdict("/ok", json!({ "json": { "": "ok" } })).await.is_err());
            assert!(verdict("/ok", json!({ "body_matches": "^o.$" })).await.is_ok());
            assert!(verdict("/ok", json!({ "body_matches": "up" })).await.is_err());
        });
    }

    #[test]
    fn a_post_sends_its_body() {
        inside(async {
            let own =
                json!({ "method": "POST", "body": "{}", "headers": { "content-type": "application/json" } });
            assert_eq!(verdict("/echo-body", own).await, Ok("200".to_owned()));
        });
    }

    #[test]
    fn certificates_are_verified_unless_asked_not_to() {
        inside(async {
            let site = Site::open("https-plain").await;
            let url = format!("https://{}/ok", site.address(8443));
            let ca = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls/loopback.crt");
            let other = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls/wrong-name.crt");
            let error = run("http", json!({ "url": url }), 5 * SECOND).await.expect_err("fails").to_string();
            assert!(error.contains("certificate"), "{error}");
            assert!(run("http", json!({ "url": url, "ca": ca }), 5 * SECOND).await.is_ok());
            assert!(run("http", json!({ "url": url, "ca": other }), 5 * SECOND).await.is_err());
            let error = run("http", json!({ "url": url, "ca": "/nowhere.pem" }), 5 * SECOND)
                .await
                .expect_err("fails");
            assert!(
                error.to_string().contains("cannot read the certificate authorities in /nowhere.pem"),
                "{error}"
            );
            assert!(
                run("http", json!({ "url": url, "insecure_skip_verify": true }), 5 * SECOND).await.is_ok()
            );
        });
    }

    #[test]
    fn keys_that_cannot_work_are_refused_with_their_path() {
        for (own, path) in [
            (json!({ "url": "ftp://h/" }), "url"),
            (json!({ "url": "http://user:pw@h/" }), "url"),
            (json!({ "url": "http://h:0/" }), "url"),
            (json!({ "url": "http://h/?a b" }), "url"),
            (json!({ "url": "http://h/", "method": "GET /" }), "method"),
            (json!({ "url": "http://h/", "expect": ["20x"] }), "expect"),
            (json!({ "url": "http://h/", "headers": { "a b": "1" } }), "headers.a b"),
            (json!({ "url": "http://h/", "headers": { "x": ["1", "2\n3"] } }), "headers.x"),
            (json!({ "url": "http://h/", "headers": { "host": "a/b" } }), "headers.host"),
            (json!({ "url": "http://h/", "body_matches": "(" }), "body_matches"),
            (json!({ "url": "http://h/", "json": { "status": 1 } }), "json.status"),
            (json!({ "url": "http://h/", "uri": "x" }), "uri"),
        ] {
            let errors = accept("http", own.clone(), &[]).expect_err(path);
            assert_eq!(errors[0].path.join("."), path, "{own}: {errors:?}");
        }
    }

    #[test]
    fn a_url_on_the_command_line_is_a_check() {
        let from_url = crate::support::checks::kind("http").config.from_url;
        assert_eq!(
            from_url("http://127.0.0.1:8080/healthz"),
            Ok(json!({ "url": "http://127.0.0.1:8080/healthz" }))
        );
        assert!(from_url("http:///healthz").is_err());
    }
}
