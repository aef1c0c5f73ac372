use std::sync::Arc;
use std::time::Duration;

use http::Request;
use serde_json::Value;

use super::super::tests::{Fixture, app_up, result};
use super::*;
use crate::gate::{CheckRule, Event, Next, Plan, Role};

struct Got {
    status: u16,
    body: String,
    headers: http::HeaderMap,
}

impl Fixture {
    fn at(&self, now: Instant, method: &str, target: &str) -> Reply {
        let request = Request::builder().method(method).uri(target).body(()).expect("a request");
        respond(&self.state, &request.into_parts().0, now)
    }

    fn get(&self, target: &str) -> Got {
        self.ask("GET", target)
    }

    fn ask(&self, method: &str, target: &str) -> Got {
        got(self.at(self.now, method, target))
    }
}

fn got(reply: Reply) -> Got {
    let Reply::Full(response) = reply else { panic!("not a full reply: {reply:?}") };
    let (parts, body) = response.into_parts();
    let body = String::from_utf8(body.to_vec()).expect("text");
    Got { status: parts.status.as_u16(), body, headers: parts.headers }
}

fn rule(name: &str, role: Role) -> CheckRule {
    CheckRule { name: name.into(), kind: "tcp", role, success_threshold: 1, failure_threshold: 3 }
}

/// `db` and `warm` gate the start, `health` always; the app is up, `db` passed.
fn starting() -> Fixture {
    let fixture = Fixture::new(vec![
        rule("db", Role::Startup),
        CheckRule { failure_threshold: 1, ..rule("warm", Role::Startup) },
        rule("health", Role::Always),
        rule("extra", Role::Never),
    ]);
    fixture.apply(app_up());
    fixture.apply(result("db", true, "ok"));
    fixture
}

fn open() -> Fixture {
    let fixture = starting();
    fixture.apply(result("warm", true, "50/50 ok, p95 12ms"));
    fixture.apply(result("health", true, "200"));
    assert_eq!(fixture.get("/ready").status, 200);
    fixture
}

#[test]
fn ready_says_yes_in_one_word() {
    for target in ["/ready", "/readyz", "/lb"] {
        let got = open().get(target);
        assert_eq!((got.status, &*got.body), (200, "ready\n"));
        assert_eq!(got.headers[CACHE_CONTROL], "no-store");
        assert_eq!(got.headers[CONTENT_TYPE], "text/plain; charset=utf-8");
    }
}

#[test]
fn not_ready_says_one_line_a_reason_and_what_to_do_next() {
    let fixture = starting();
    fixture.apply(result("warm", false, "41/50 ok, p95 180ms > 80ms"));
    let later = fixture.now + Duration::from_secs(12);
    fixture.beats.of(0).mark(later);
    let got = got(fixture.at(later, "GET", "/ready"));
    assert_eq!(got.status, 503);
    assert_eq!(
        got.body,
        "not ready: starting for 12s\n\
         warm: 41/50 ok, p95 180ms > 80ms (run 1, 1 failed in a row, 12s ago); it must pass once before the pod can be \
         ready\n\
         health: has not run yet; it must pass once before the pod can be ready\n\
         more: `readygate explain` in this container says it in words, GET /ready?verbose lists every check, GET /status \
         has the history\n"
    );
}

#[test]
fn reasons_of_the_app_come_before_those_of_checks() {
    let fixture = Fixture::new(vec![rule("db", Role::Startup)]);
    let body = fixture.get("/ready").body;
    let lines: Vec<_> = body.lines().collect();
    assert_eq!(
        lines[1],
        "the app has not accepted a connection on 127.0.0.1:8080 yet: so far it neither accepts nor refuses. See whether \
         the app's container runs and what it says (kubectl logs), and whether `upstream` names its host and port; it is \
         tried ten times a second"
    );
    assert!(lines[2].starts_with("db: has not run yet"), "{body}");
    let open = open();
    open.apply(Event::AppRefused { app: 0 });
    let body = open.get("/ready").body;
    assert_eq!(
        body.lines().nth(1),
        Some(
            "the app refuses connections on 127.0.0.1:8080: nothing listens there. See whether the app's container runs \
             (kubectl get pod) and what it says (kubectl logs), and whether `upstream` names its port; it is tried ten \
             times a second"
        )
    );
}

#[test]
fn verbose_lists_every_check_as_kube_apiserver_does() {
    let fixture = open();
    fixture.apply(result("health", false, "500, expected 200-399"));
    fixture.apply(result("extra", false, "connection refused"));
    let got = fixture.get("/readyz?verbose");
    assert_eq!(
        (got.status, &*got.body),
        (
            200,
            "[+]data plane ok\n\
             [+]app accepts connections on 127.0.0.1:8080\n\
             [+]db ok\n\
             [+]warm 50/50 ok, p95 12ms\n\
             [+]health 500, expected 200-399 (run 2, 1 of 3 failures in a row, 0ms ago)\n\
             [-]extra connection refused (run 1, 1 of 3 failures in a row, 0ms ago), reported only\n\
             readyz check passed\n"
        )
    );
    fixture.apply(result("health", false, "500"));
    fixture.apply(result("health", false, "500"));
    let got = fixture.get("/ready?verbose=1");
    assert_eq!(got.status, 503);
    assert!(got.body.contains("[-]health 500 (run 4, 3 failed in a row, 0ms ago)\n"), "{}", got.body);
    assert!(got.body.ends_with("readyz check failed\n"));
}

#[test]
fn excluded_checks_do_not_count_and_nothing_else_is_excused() {
    let fixture = starting();
    for (target, status) in [
        ("/ready", 503),
        ("/ready?exclude=warm", 503),
        ("/ready?exclude=warm&exclude=health", 200),
        ("/ready?exclude=health&exclude=warm&exclude=db&verbose", 200),
        ("/ready?exclude=WARM&exclude=health", 503),
    ] {
        assert_eq!(fixture.get(target).status, status, "{target}");
    }
    let verbose = fixture.get("/ready?exclude=warm&exclude=%0a&verbose").body;
    assert!(verbose.contains("[+]warm excluded: ok\n"), "{verbose}");
    assert!(verbose.contains("warn: cannot exclude \"%0a\": no check has this name\n"), "{verbose}");
    fixture.apply(Event::AppRefused { app: 0 });
    assert_eq!(fixture.get("/ready?exclude=warm&exclude=health").status, 503, "the app counts");
    fixture.apply(app_up());
    fixture.apply(Event::DrainStarted { hold_ready: false });
    assert_eq!(fixture.get("/ready?exclude=warm&exclude=health&exclude=db").status, 503, "the drain counts");
}

#[test]
fn silent_data_plane_is_a_no_whatever_the_gate_says() {
    let fixture = open();
    let later = fixture.now + Duration::from_millis(3250);
    for target in ["/ready", "/lb", "/ready?exclude=db"] {
        let got = got(fixture.at(later, "GET", target));
        assert_eq!(got.status, 503);
        assert!(got.body.starts_with("not ready: data plane silent for 3.2s"), "{}", got.body);
    }
    let verbose = got(fixture.at(later, "GET", "/ready?verbose")).body;
    assert!(verbose.starts_with("[-]data plane silent for 3.2s\n"), "{verbose}");
    let body = got(fixture.at(later, "GET", "/ready")).body;
    assert_eq!(
        body.lines().next(),
        Some(
            "not ready: data plane silent for 3.2s: a worker thread gives no sign of life: it is stuck, or the container \
             gets no CPU; look at the sidecar's CPU limit and throttling, and at its log; restart its container if it \
             stays so"
        )
    );
    assert_eq!(got(fixture.at(later, "GET", "/live")).status, 200);
}

#[test]
fn one_check_can_be_asked_for() {
    let fixture = starting();
    let db = fixture.get("/ready/db");
    assert_eq!((db.status, &*db.body), (200, "[+]db ok\n"));
    assert_eq!(fixture.get("/readyz/warm").status, 503);
    assert_eq!(fixture.get("/ready/nobody").status, 404);
}

#[test]
fn body_is_bounded_by_whole_lines_without_control_characters() {
    let rules = (0..200).map(|n| rule(&format!("check_{n}"), Role::Startup)).collect();
    let fixture = Fixture::new(rules);
    for n in 0..200 {
        let line = format!("{}\r\n\x1b{}", "é".repeat(20), "x".repeat(n * 20));
        fixture.apply(result(&format!("check_{n}"), false, &line));
    }
    for target in ["/ready", "/ready?verbose", "/lb"] {
        let body = fixture.get(target).body;
        assert!(body.len() <= 10_000 && body.len() > 8000, "{}", body.len());
        assert!(body.ends_with('\n') && !body.contains(|c: char| c.is_control() && c != '\n'));
        let cut = body.lines().rev().nth(1).expect("lines");
        let more: usize = cut.split(' ').nth(2).and_then(|n| n.parse().ok()).expect("a number");
        let shown = body.lines().filter(|line| line.contains("check_")).count();
        assert!(cut.ends_with("more lines") && more >= 200 - shown, "{cut}, {shown} shown");
    }
}

#[test]
fn balancers_hear_no_from_the_first_moment_of_a_drain_that_holds_ready() {
    let fixture = open();
    fixture.apply(Event::DrainStarted { hold_ready: true });
    assert_eq!(fixture.get("/ready").status, 200);
    let got = fixture.get("/lb");
    assert_eq!(got.status, 503);
    assert!(got.body.starts_with("not ready: draining for 0ms\n"), "{}", got.body);
}

#[test]
fn startup_asks_for_the_listeners_and_never_for_the_app() {
    let fixture = Fixture::new(vec![rule("db", Role::Startup)]);
    for target in ["/startup", "/startupz"] {
        fixture.state.started.store(false, Ordering::Release);
        assert_eq!(fixture.get(target).status, 503);
        fixture.state.started.store(true, Ordering::Release);
        assert_eq!(fixture.get(target).status, 200);
    }
    assert_eq!(fixture.get("/livez").body, "live\n");
}

#[test]
fn methods_and_paths_are_the_listed_ones() {
    let fixture = open();
    for (method, target, status, allow) in [
        ("GET", "/", 200, ""),
        ("HEAD", "/ready", 200, ""),
        ("HEAD", "/metrics", 200, ""),
        ("POST", "/ready", 405, "GET, HEAD"),
        ("OPTIONS", "/status", 405, "GET, HEAD"),
        ("HEAD", "/drain", 405, "GET, POST"),
        ("DELETE", "/drain", 405, "GET, POST"),
        ("HEAD", "/wait-for-drain", 405, "GET"),
        ("GET", "/quit", 405, "POST"),
        ("GET", "/nothing", 404, ""),
        ("GET", "/ready%2f", 404, ""),
        ("GET", "//ready", 404, ""),
        ("TRACE", "/metric", 404, ""),
    ] {
        let got = fixture.ask(method, target);
        assert_eq!(got.status, status, "{method} {target}");
        let allowed = got.headers.get(ALLOW).map_or("", |value| value.to_str().expect("text"));
        assert_eq!(allowed, allow, "{method} {target}");
        assert!(!got.headers.contains_key("location"));
    }
    assert_eq!(fixture.state.drain.state(), crate::drain::State::Idle { restarts: 0 });
    for endpoint in [
        "/",
        "/ready",
        "/startup",
        "/live",
        "/lb",
        "/status",
        "/events",
        "/metrics",
        "/drain",
        "/wait-for-drain",
        "/quit",
    ] {
        assert!(ENDPOINTS.contains(&format!(" {endpoint} ")), "{endpoint}");
    }
}

#[test]
fn the_status_page_comes_with_its_policy_and_a_typo_with_the_list() {
    let fixture = open();
    for method in ["GET", "HEAD"] {
        let got = fixture.ask(method, "/?x");
        assert_eq!(
            (got.status, &got.headers[CONTENT_TYPE]),
            (200, &HeaderValue::from_static("text/html; charset=utf-8"))
        );
        assert!(
            got.body.starts_with("<!doctype html>") && got.headers.contains_key("content-security-policy")
        );
        assert_eq!(got.headers[CACHE_CONTROL], "no-store");
    }
    let got = fixture.get("/redy");
    assert_eq!((got.status, &*got.body), (404, ENDPOINTS));
}

#[test]
fn hooks_start_the_drain_and_want_the_token_if_there_is_one() {
    let mut fixture = open();
    let file = std::env::temp_dir().join(format!("readygate-hooks-{}", std::process::id()));
    std::fs::write(&file, "secret").expect("write");
    fixture.state.hook_token_file = Some(file.clone());
    for (method, target) in
        [("GET", "/drain"), ("POST", "/drain?wait=0"), ("GET", "/wait-for-drain"), ("POST", "/quit")]
    {
        let got = fixture.ask(method, target);
        assert_eq!((got.status, &got.headers[WWW_AUTHENTICATE]), (401, &HeaderValue::from_static("Bearer")));
        assert!(!got.body.contains("secret"));
    }
    assert_eq!(fixture.state.drain.state(), crate::drain::State::Idle { restarts: 0 });
    assert_eq!(fixture.get("/ready").status, 200, "probes want no token");
    let request =
        Request::get("/drain?wait=0").header("authorization", "Bearer secret").body(()).expect("a request");
    assert_eq!(got(respond(&fixture.state, &request.into_parts().0, fixture.now)).status, 202);
    assert!(matches!(
        fixture.state.drain.state(),
        crate::drain::State::Draining { by: Call::SidecarHook, .. }
    ));
    std::fs::remove_file(file).expect("remove");
}

#[tokio::test]
async fn quit_answers_at_once_drains_and_tells_the_process() {
    let fixture = open();
    assert_eq!(fixture.ask("POST", "/quit").status, 202);
    assert!(matches!(fixture.state.drain.state(), crate::drain::State::Draining { by: Call::Quit, .. }));
    fixture.state.quit.notified().await;
}

#[test]
fn hooks_that_wait_are_left_to_the_server() {
    let fixture = open();
    assert!(matches!(fixture.at(fixture.now, "GET", "/wait-for-drain"), Reply::WaitForDrain));
    assert!(matches!(fixture.at(fixture.now, "POST", "/drain"), Reply::WaitForDrained));
    assert!(matches!(fixture.at(fixture.now, "GET", "/events"), Reply::Events));
}

#[test]
fn status_tells_all_that_is_known() {
    let mut fixture = open();
    fixture.state.evidence =
        Arc::new(|check| (check == "warm").then(|| serde_json::json!({ "ok": 50, "p95_ms": 12 })));
    fixture.state.traffic.counters(0, 0).request_began(1);
    let plan = Plan {
        tests: "connects to db:5432, and hangs up".into(),
        after: ["config".to_owned()].as_slice().into(),
        next: Next::Due(fixture.now + Duration::from_millis(700)),
    };
    fixture.gate.plans().set(&"db".into(), &plan);
    let got = fixture.get("/status");
    assert_eq!(
        (got.status, &got.headers[CONTENT_TYPE]),
        (200, &HeaderValue::from_static("application/json"))
    );
    let status: Value = serde_json::from_str(&got.body).expect("JSON");
    for (pointer, expected) in [
        ("/phase", serde_json::json!("ready")),
        ("/ready", true.into()),
        ("/arm", 1.into()),
        ("/meaning", "the app accepts connections and every check that counts passes".into()),
        ("/advice", "nothing".into()),
        ("/checks/0/tests", "connects to db:5432, and hangs up".into()),
        ("/checks/0/after/0", "config".into()),
        ("/checks/0/for_seconds", 0.0.into()),
        ("/checks/0/saw", "ok (0ms ago, took 5ms, run 1)".into()),
        ("/checks/0/next", "in 700ms".into()),
        ("/checks/0/next_in_seconds", 0.7.into()),
        ("/checks/0/then", "nothing: it has passed, and must pass again when the app restarts".into()),
        ("/checks/1/tests", Value::Null),
        ("/checks/1/after", serde_json::json!([])),
        ("/checks/1/name", "warm".into()),
        ("/checks/1/gates", "startup".into()),
        ("/checks/1/state", "passing".into()),
        ("/checks/1/last", "50/50 ok, p95 12ms".into()),
        ("/checks/1/last_duration_seconds", 0.005.into()),
        ("/checks/1/evidence/ok", 50.into()),
        ("/checks/0/evidence", Value::Null),
        ("/checks/2/failure_threshold", 3.into()),
        ("/apps/0", serde_json::json!({ "address": "127.0.0.1:8080", "refusing": false, "seen": true })),
        ("/transitions/0/to", "ready".into()),
        ("/traffic/http/in_flight", 1.into()),
        ("/traffic/http/errors/queue_full", 0.into()),
        ("/drain/state", "idle".into()),
        ("/build/version", "0.0.0".into()),
    ] {
        assert_eq!(status.pointer(pointer), Some(&expected), "{pointer} in {status:#}");
    }
    let since = status["since"].as_str().expect("text");
    assert!(humantime::parse_rfc3339(since).is_ok(), "{since}");
}

#[test]
fn metrics_say_what_probes_say() {
    let fixture = starting();
    let got = fixture.get("/metrics");
    assert_eq!(got.headers[CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
    for line in
        ["readygate_ready 0", "readygate_phase{phase=\"starting\"} 1", "readygate_phase{phase=\"ready\"} 0"]
    {
        assert!(got.body.lines().any(|found| found == line), "{line}");
    }
    fixture.state.traffic.counters(0, 0).request_began(0);
    fixture.state.traffic.counters(0, 0).request_ended(
        204,
        Duration::from_millis(3),
        crate::traffic::From::App,
    );
    fixture.apply(result("warm", true, ""));
    fixture.apply(result("health", true, ""));
    let body = fixture.get("/metrics").body;
    for line in [
        "readygate_ready 1",
        "readygate_requests_total{listener=\"http\",code=\"2xx\"} 1",
        "readygate_request_duration_seconds_bucket{listener=\"http\",le=\"0.005\"} 1",
        "readygate_proxy_errors_total{listener=\"http\",kind=\"hold_timeout\"} 0",
    ] {
        assert!(body.lines().any(|found| found == line), "{line}");
    }
}
