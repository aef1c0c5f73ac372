//! `readygate explain` says why the pod is ready or not, and of each check what it tests, last saw, does next, and what
//! will come of it: in whatever state a check is.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::sidecar::command;
use crate::support::{Sidecar, TestApp, config, eventually, machine};

/// What it printed, and its exit code.
fn explain(sidecar: &Sidecar, check: &[&str]) -> (String, i32) {
    let url = format!("http://{}/status", sidecar.admin);
    let output = command().arg("explain").args(check).args(["--url", &url]).stdout(Stdio::piped()).output();
    let output = output.expect("the binary runs");
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8(said).expect("text"), output.status.code().expect("an exit code"))
}

/// The lines that begin with this title, of the section of this check.
fn line<'a>(page: &'a str, check: &str, title: &str) -> &'a str {
    let mut section = page.lines().skip_while(|line| !line.starts_with(&format!("{check}  ")));
    let head = section.next().unwrap_or_else(|| panic!("no section {check} in:\n{page}"));
    if title.is_empty() {
        return head;
    }
    let line = section.take_while(|line| !line.is_empty()).find_map(|line| line.trim().strip_prefix(title));
    line.unwrap_or_else(|| panic!("no {title} of {check} in:\n{page}")).trim()
}

/// Whether `text` is `pattern`, in which `…` stands for anything.
fn is_like(text: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut last = "";
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        (rest, last) = (after, part);
    }
    rest.is_empty() || last.is_empty()
}

fn says(page: &str, check: &str, expected: &[(&str, &str)]) {
    for (title, pattern) in expected {
        let found = line(page, check, title);
        assert!(is_like(found, pattern), "{check}: {title} is {found:?}, expected {pattern:?} in:\n{page}");
    }
}

async fn status(sidecar: &Sidecar) -> Value {
    serde_json::from_slice(&sidecar.ask("/status").await.body).expect("JSON")
}

fn check<'a>(status: &'a Value, name: &str) -> &'a Value {
    let mut checks = status["checks"].as_array().expect("a list").iter();
    checks.find(|check| check["name"] == name).expect("a check of this name")
}

#[tokio::test]
async fn every_state_of_a_check_is_told_in_words() {
    let _turn = machine::shared();
    let app = TestApp::start(&[]).await;
    let more = json!({ "checks": {
        "idle": { "gates": "never", "after": ["look"], "tcp": { "address": app.address.to_string() } },
        "warm": { "after": ["file"], "warmup": { "requests": ["GET /warm?secret=1"], "min_requests": 10 } },
        "file": { "file": { "path": "/proc/self/status" }, "interval": "10m" },
        "health": {
            "http": { "url": format!("http://{}/healthz", app.address) },
            "interval": "200ms", "interval_failing": "200ms", "timeout": "200ms", "failure_threshold": 1000,
        },
        "look": { "gates": "never", "file": { "path": "/nonexistent/look" } },
        "long": { "gates": "never", "exec": { "command": ["sleep", "600"] }, "interval": "10m", "timeout": "10m" },
    } });
    let sidecar = Sidecar::start(&config(&app, more)).await;
    sidecar.until_ready().await;
    app.control("status=500").await;
    eventually("health failed twice", Duration::from_secs(20), async || {
        check(&status(&sidecar).await, "health")["in_a_row"]["count"] == 2
    })
    .await;

    let (page, code) = explain(&sidecar, &[]);
    assert_eq!(code, 0, "{page}");
    let head = "READY  ready for …: the app accepts connections and every check that counts passes";
    assert!(is_like(page.lines().next().unwrap_or_default(), head), "{page}");
    assert_eq!(page.lines().nth(1), Some("to do: nothing"));
    says(
        &page,
        "file",
        &[
            ("", "file  passing for …  (file, gates: startup)"),
            ("tests", "looks at /proc/self/status, and expects a file"),
            ("saw", "… bytes (… ago, took …, run 1)"),
            ("next", "in …s"),
            ("then", "nothing: it has passed, and must pass again when the app restarts"),
        ],
    );
    says(
        &page,
        "warm",
        &[
            ("", "warm  passing for …  (warmup, gates: startup, after file)"),
            (
                "tests",
                "sends GET /warm through the listener, 4 at a time, until 99% of the last 10 answers are good; …",
            ),
            ("saw", "10/10 ok, p95 … (… ago, took …, run 1)"),
            ("next", "rests until the gate is armed again, which a restart of the app does"),
            ("then", "nothing: it has passed, and must pass again when the app restarts"),
        ],
    );
    says(
        &page,
        "health",
        &[
            ("", "health  passing for …  (http, gates: always)"),
            ("tests", "sends GET http://127.0.0.1:…/healthz, and expects 200-399"),
            (
                "saw",
                "GET … answered 500, expected 200-399… (… ago, took …, run …, … of 1000 failures in a row)",
            ),
            ("then", "99… more failures in a row make the pod not ready"),
        ],
    );
    says(
        &page,
        "look",
        &[
            ("", "look  … for …  (file, gates: never)"),
            ("saw", "/nonexistent/look: No such file… (… ago, took …, run …, …)"),
            ("then", "nothing: it does not gate the pod"),
        ],
    );
    says(
        &page,
        "idle",
        &[
            ("", "idle  unknown for …  (tcp, gates: never, after look)"),
            ("saw", "has not run yet"),
            ("next", "waits for look (/nonexistent/look: No such file…), and runs once that has passed"),
        ],
    );
    says(
        &page,
        "long",
        &[
            ("tests", "runs sleep with 1 argument, and expects it to exit with 0"),
            ("saw", "has no result yet"),
            ("next", "runs now, for … of at most 10m0s"),
        ],
    );
    let at = |name: &str| page.find(&format!("\n{name}  ")).expect("a section");
    assert!(at("file") < at("warm") && at("look") < at("idle"), "dependencies come first:\n{page}");
    assert!(!page.contains("secret"), "{page}");

    let (one, code) = explain(&sidecar, &["idle"]);
    assert_eq!(code, 1, "it does not pass: {one}");
    assert!(one.contains("\nidle  ") && one.contains("\nlook  ") && !one.contains("\nfile  "), "{one}");
    assert_eq!(explain(&sidecar, &["file"]).1, 0);
    let (error, code) = explain(&sidecar, &["helth"]);
    let known = "there are: port, file, warm, health, look, idle, long";
    assert_eq!(
        (error.trim_end(), code),
        (&*format!("no check has the name \"helth\", did you mean \"health\"? {known}"), 2)
    );
}

#[tokio::test]
async fn what_keeps_the_pod_out_is_told_with_what_to_do() {
    let _turn = machine::shared();
    let mut app = TestApp::start(&[]).await;
    let more = json!({ "checks": {
        "db": { "gates": "startup", "tcp": { "address": "127.0.0.1:1" }, "success_threshold": 3 },
        "warm": { "after": ["db"], "warmup": { "requests": ["GET /"] } },
    } });
    let sidecar = Sidecar::start(&config(&app, more)).await;
    eventually("db fails", Duration::from_secs(20), async || {
        check(&status(&sidecar).await, "db")["state"] == "failing"
    })
    .await;
    let (page, code) = explain(&sidecar, &[]);
    assert_eq!(code, 1, "{page}");
    let head = "NOT READY  starting for …: what gates the start has not all passed since the gate was armed";
    assert!(is_like(page.lines().next().unwrap_or_default(), head), "{page}");
    for expected in
        ["\n  db: connection refused by 127.0.0.1:1\n", "\n  warm: waits for db\n", "\nto do: mend what"]
    {
        assert!(page.contains(expected), "{expected} is not in:\n{page}");
    }
    let db = ("then", "3 passes in a row are needed before the pod can be ready");
    says(&page, "db", &[("", "db  failing for …  (tcp, gates: startup)"), db]);
    says(
        &page,
        "warm",
        &[("next", "waits for db, and runs once that has passed"), ("saw", "has not run yet")],
    );

    // The body alone: what is wrong, what is tested, when it is tried again, what is needed.
    let wanted = "db: connection refused by 127.0.0.1:1 (run …, … failed in a row, … ago, next in …s). It connects to \
                  127.0.0.1:1, and hangs up; 3 passes in a row are needed before the pod can be ready";
    let mut body = String::new();
    // Between two runs, that is; one that goes on is told in other words.
    eventually("the 503 says it", Duration::from_secs(20), async || {
        body = sidecar.ask("/ready").await.text();
        body.lines().any(|line| is_like(line, wanted))
    })
    .await;
    assert!(body.lines().any(|line| line == "warm: waits for db, and runs once that has passed"), "{body}");
    assert!(body.contains("`readygate explain`"), "{body}");

    app.kill();
    eventually("the app is missed", Duration::from_secs(20), async || {
        sidecar.ask("/ready").await.text().contains("the app refuses connections")
    })
    .await;
    let refuses =
        format!("\n  the app refuses connections on {}: nothing listens there. See whether", app.address);
    let (page, code) = explain(&sidecar, &[]);
    assert!(code == 1 && page.contains(&refuses), "{page}");
}

#[tokio::test]
async fn pod_that_leaves_says_that_it_does_not_come_back() {
    let _turn = machine::shared();
    let app = TestApp::start(&[]).await;
    let sidecar = Sidecar::start(&config(&app, json!({}))).await;
    sidecar.until_ready().await;
    assert_eq!(sidecar.ask("/drain").await.status, 200, "answers when drained");
    let (page, code) = explain(&sidecar, &[]);
    assert_eq!(code, 1, "{page}");
    assert!(page.starts_with("NOT READY  drained for "), "{page}");
    for expected in [
        "\n  drained: the pod is leaving and nothing is left",
        "\nto do: nothing if the pod is being deleted;",
    ] {
        assert!(page.contains(expected), "{expected} is not in:\n{page}");
    }
    says(&page, "port", &[("then", "nothing: the pod is leaving, and no check changes that")]);
}

/// Counted from the arm, so that what a check waited for is in it, and anew after each arm.
#[tokio::test]
async fn time_to_pass_of_each_check_is_exported_and_that_of_the_last_is_the_time_to_ready() {
    let _turn = machine::alone();
    let mut app = TestApp::start(&[]).await;
    let sleeps = |seconds: &str| json!({ "command": ["sleep", seconds] });
    let more = json!({ "checks": {
        "quick": { "exec": sleeps("0.1"), "timeout": "5s" },
        "slow": { "exec": sleeps("0.8"), "timeout": "5s" },
        "behind": { "after": ["slow"], "exec": sleeps("0.3"), "timeout": "5s" },
    } });
    let sidecar = Sidecar::start(&config(&app, more)).await;
    for arm in 1..=2 {
        sidecar.until_ready().await;
        let mut times = Vec::new();
        for check in ["quick", "slow", "behind"] {
            let label = format!("check=\"{check}\"");
            times.push(sidecar.metric("readygate_check_time_to_pass_seconds", &label).await);
        }
        let [quick, slow, behind] = times[..] else { panic!("three times") };
        assert!(quick >= 0.1 && slow >= 0.8 && quick < slow && behind >= slow + 0.3, "arm {arm}: {times:?}");
        let ready = sidecar.metric("readygate_time_to_ready_seconds", "").await;
        assert!(
            (ready - behind).abs() < 0.1,
            "arm {arm}: ready after {ready}, the last check passed after {behind}"
        );
        assert!(behind < 30.0, "arm {arm}: counted from this arm: {times:?}");
        app.kill();
        sidecar.until_not_ready().await;
        app.up().await;
        eventually("the gate is armed again", Duration::from_secs(20), async || {
            status(&sidecar).await["arm"] == arm + 1
        })
        .await;
        // Takes more than a second to pass again.
        eventually("what was before the arm is forgotten", Duration::from_secs(20), async || {
            sidecar.metric("readygate_check_time_to_pass_seconds", "check=\"behind\"").await.is_nan()
        })
        .await;
    }
}
