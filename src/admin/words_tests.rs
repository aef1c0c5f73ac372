use super::super::probe;
use super::super::tests::{Fixture, app_up, result};
use super::*;
use crate::gate::{CheckRule, Event};

const SECOND: Duration = Duration::from_secs(1);

fn rule(name: &str, role: Role) -> CheckRule {
    CheckRule { name: name.into(), kind: "tcp", role, success_threshold: 1, failure_threshold: 3 }
}

/// `db` and `warm` gate the start, `health` always, `look` never; the app is up, and nothing has run.
fn fixture() -> Fixture {
    let fixture = Fixture::new(vec![
        CheckRule { success_threshold: 2, ..rule("db", Role::Startup) },
        rule("warm", Role::Startup),
        rule("health", Role::Always),
        rule("look", Role::Never),
    ]);
    fixture.apply(app_up());
    for name in ["db", "warm", "health", "look"] {
        plan(&fixture, name, Next::Due(fixture.now + SECOND));
    }
    fixture
}

fn open() -> Fixture {
    let fixture = fixture();
    for check in ["db", "db", "warm", "health"] {
        fixture.apply(result(check, true, "fine"));
    }
    assert!(fixture.state.view.report().ready);
    fixture
}

fn plan(fixture: &Fixture, name: &str, next: Next) {
    let plan = Plan { tests: format!("looks at {name}").into(), after: Arc::from([]), next };
    fixture.gate.plans().set(&name.into(), &plan);
}

/// What is told of a check two seconds after everything happened.
struct Told {
    said: String,
    saw: String,
    then: String,
    reason: String,
}

fn told(fixture: &Fixture, name: &str) -> Told {
    seen(fixture, |seen| {
        let check =
            seen.report.checks.iter().find(|check| &*check.name == name).expect("a check of this name");
        let (said, saw) = (seen.said(check), seen.saw(check));
        Told { said, saw, then: seen.then(check), reason: seen.reason(check) }
    })
}

fn seen<T>(fixture: &Fixture, tell: impl Fn(&Seen<'_>) -> T) -> T {
    let now = fixture.now + 2 * SECOND;
    fixture.beats.of(0).mark(now);
    super::super::routes::seen(&fixture.state, now, tell)
}

fn then(fixture: &Fixture, name: &str) -> String {
    told(fixture, name).then
}

fn next(fixture: &Fixture, next: &Next) -> String {
    seen(fixture, |seen| seen.next(next))
}

/// The 503 of `/ready`.
fn body(fixture: &Fixture) -> String {
    seen(fixture, |seen| probe::verdict(seen, &probe::Question::default()).body)
}

#[test]
fn what_keeps_the_gate_closed_says_how_many_passes_would_open_it() {
    let fixture = fixture();
    assert_eq!(then(&fixture, "db"), "2 passes in a row are needed before the pod can be ready");
    fixture.apply(result("db", true, "fine"));
    assert_eq!(then(&fixture, "db"), "1 more pass in a row is needed before the pod can be ready");
    fixture.apply(result("db", false, "gone"));
    assert_eq!(then(&fixture, "db"), "2 passes in a row are needed before the pod can be ready");
    for check in ["warm", "health"] {
        assert_eq!(then(&fixture, check), "it must pass once before the pod can be ready");
    }
    assert_eq!(then(&fixture, "look"), "nothing: it does not gate the pod");
}

#[test]
fn what_passes_says_how_many_failures_would_close_it() {
    let fixture = open();
    assert_eq!(then(&fixture, "health"), "3 failures in a row make the pod not ready");
    fixture.apply(result("health", false, "500"));
    assert_eq!(then(&fixture, "health"), "2 more failures in a row make the pod not ready");
    fixture.apply(result("health", false, "500"));
    assert_eq!(then(&fixture, "health"), "1 more failure in a row makes the pod not ready");
    fixture.apply(Event::AppRefused { app: 0 });
    assert_eq!(then(&fixture, "health"), "1 more failure in a row is one more reason not to be ready");
    fixture.apply(result("health", false, "500"));
    assert_eq!(then(&fixture, "health"), "it must pass once before the pod can be ready");
}

#[test]
fn startup_checks_that_passed_say_that_they_count_again_after_a_restart() {
    let fixture = open();
    let rests = "nothing: it has passed, and must pass again when the app restarts";
    assert_eq!(then(&fixture, "db"), rests);
    for _ in 0..3 {
        fixture.apply(result("db", false, "gone"));
    }
    assert!(fixture.state.view.report().ready);
    assert_eq!(
        then(&fixture, "db"),
        "nothing: it fails now, but has passed since the gate was armed; it must pass again when the app restarts"
    );
    plan(&fixture, "health", Next::Rests);
    assert_eq!(then(&fixture, "health"), rests, "what rests cannot fail");
}

#[test]
fn what_a_reload_brought_to_an_open_gate_counts_from_the_next_arm_on() {
    let fixture = open();
    let rules = vec![rule("new", Role::Startup)];
    fixture.apply(Event::Configured { rules, changed: Vec::new() });
    assert_eq!(
        then(&fixture, "new"),
        "nothing: it was added or changed while the pod was ready, and counts from the next arm on"
    );
}

#[test]
fn no_check_moves_a_pod_that_leaves() {
    let fixture = open();
    fixture.apply(Event::DrainStarted { hold_ready: true });
    for check in ["db", "health", "look"] {
        assert_eq!(then(&fixture, check), "nothing: the pod is leaving, and no check changes that");
    }
}

#[test]
fn next_says_when_and_why_not_yet() {
    let fixture = fixture();
    let at = |seconds| fixture.now + seconds * SECOND;
    assert_eq!(next(&fixture, &Next::Due(at(5))), "in 3.0s");
    assert_eq!(next(&fixture, &Next::Due(at(1))), "due now");
    assert_eq!(
        next(&fixture, &Next::Runs { since: at(1), at_most: 60 * SECOND }),
        "runs now, for 1.0s of at most 60s"
    );
    assert_eq!(
        next(&fixture, &Next::Rests),
        "rests until the gate is armed again, which a restart of the app does"
    );
    let waits = |names: &[&str]| Next::Waits(names.iter().map(|&name| name.to_owned()).collect());
    assert_eq!(next(&fixture, &waits(&["db"])), "waits for db, and runs once that has passed");
    assert_eq!(
        next(&fixture, &waits(&["db", "warm"])),
        "waits for db, warm, and runs once all of them have passed"
    );
    fixture.apply(result("db", false, "gone"));
    assert_eq!(
        next(&fixture, &waits(&["db"])),
        "waits for db, and runs once that has passed",
        "db tells that itself"
    );
    fixture.apply(result("look", false, "gone"));
    assert_eq!(next(&fixture, &waits(&["look"])), "waits for look (gone), and runs once that has passed");
}

#[test]
fn saw_says_what_when_and_how_long() {
    let fixture = fixture();
    let saw = |name| told(&fixture, name).saw;
    assert_eq!(saw("db"), "has not run yet");
    fixture.apply(result("db", true, "connected"));
    assert_eq!(saw("db"), "connected (2.0s ago, took 5ms, run 1, 1 of 2 passes in a row)");
    fixture.apply(result("db", true, ""));
    assert_eq!(saw("db"), "ok (run 2)");
    fixture.apply(result("health", false, "500"));
    assert_eq!(saw("health"), "500 (2.0s ago, took 5ms, run 1, 1 of 3 failures in a row)");
    plan(&fixture, "warm", Next::Runs { since: fixture.now, at_most: 60 * SECOND });
    assert_eq!(saw("warm"), "has no result yet");
    fixture.apply(Event::Progress { check: "warm".into(), arm: 1, line: "41/50 ok".to_owned() });
    assert_eq!(saw("warm"), "41/50 ok", "nothing has ended yet");
    plan(&fixture, "warm", Next::Waits(vec!["db".to_owned()]));
    assert_eq!(saw("warm"), "has not run yet", "that it waits is what comes next, not what it saw");
}

#[test]
fn news_of_a_run_is_not_told_as_the_age_of_the_one_before() {
    let fixture = fixture();
    fixture.apply(result("warm", false, "30/50 ok"));
    plan(&fixture, "warm", Next::Runs { since: fixture.now + SECOND, at_most: 60 * SECOND });
    fixture.apply(Event::Progress { check: "warm".into(), arm: 1, line: "41/50 ok".to_owned() });
    assert_eq!(
        told(&fixture, "warm").said,
        "41/50 ok (run 1, 1 of 3 failures in a row, runs now, for 1.0s of at most 60s)"
    );
}

#[test]
fn a_reason_says_what_is_tested_what_came_and_what_is_missing() {
    let fixture = fixture();
    for _ in 0..3 {
        fixture.apply(result("health", false, "answered 500, expected 200-399"));
    }
    plan(&fixture, "health", Next::Due(fixture.now + 3 * SECOND));
    assert_eq!(
        told(&fixture, "health").reason,
        "health: answered 500, expected 200-399 (run 3, 3 failed in a row, 2.0s ago, next in 1.0s). It looks at health; \
         it must pass once before the pod can be ready"
    );
    plan(&fixture, "warm", Next::Waits(vec!["db".to_owned()]));
    assert_eq!(told(&fixture, "warm").reason, "warm: waits for db, and runs once that has passed");
    fixture.apply(result("db", false, &"é".repeat(400)));
    let long = told(&fixture, "db").reason;
    assert!(long.len() < 600 && long.contains("…. It looks at db; 2 passes in a row are needed"), "{long}");
}

/// A stranger at 3 a.m. has only the body: what is wrong, and what to do or where to look.
#[test]
fn every_reason_that_is_no_checks_says_what_to_do() {
    let leaves = Event::DrainStarted { hold_ready: false };
    for (events, wrong, to_do) in [
        (
            vec![Event::AppStopping],
            "the app is being stopped: its preStop hook came",
            "Wait: a drain follows",
        ),
        (vec![leaves.clone()], "draining: the pod is leaving", "Nothing to do if it is being deleted"),
        (
            vec![leaves, Event::Drained],
            "drained: the pod is leaving and nothing is left to serve",
            "replace it (kubectl delete pod)",
        ),
    ] {
        let fixture = open();
        events.into_iter().for_each(|event| fixture.apply(event));
        let said = body(&fixture);
        let line = said.lines().nth(1).expect("a reason");
        assert!(line.starts_with(wrong) && line.contains(to_do), "{line}");
    }
    let fixture = Fixture::new(Vec::new());
    let reason = Some("cannot read /tls/tls.crt: no such file".to_owned());
    fixture.apply(Event::Lacks { part: "listeners.http.tls".into(), reason });
    fixture.apply(app_up());
    assert_eq!(
        body(&fixture).lines().nth(1),
        Some(
            "listeners.http.tls: cannot read /tls/tls.crt: no such file. No connection succeeds without it: see that the \
             Secret is mounted and the path is right; it is looked at every 2s"
        )
    );
}

#[test]
fn a_drain_says_who_began_it() {
    let fixture = open();
    fixture.state.drain.call(crate::drain::Call::Sigterm);
    fixture.apply(Event::DrainStarted { hold_ready: false });
    let said = body(&fixture);
    assert!(said.starts_with("not ready: draining for 2.0s, by SIGTERM\n"), "{said}");
}

#[test]
fn every_phase_has_a_meaning_and_advice() {
    let fixture = open();
    let (report, plans) = (fixture.state.view.report(), fixture.state.view.plans());
    let mut said = std::collections::BTreeSet::new();
    for phase in Phase::ALL {
        let report = Report { phase, ..Report::clone(&report) };
        for verdict in [Verdict::Ready, Verdict::NotReady, Verdict::Silent(SECOND)] {
            let now = fixture.now;
            let seen = Seen { verdict, report: &report, plans: &plans, drained_by: None, now };
            assert!(!seen.advice().is_empty());
            said.insert(seen.meaning());
        }
    }
    assert_eq!(said.len(), 7, "one a phase, the drain that holds, and silence: {said:?}");
}

#[test]
fn spans_are_short() {
    for (millis, text) in [
        (0, "0ms"),
        (999, "999ms"),
        (1000, "1.0s"),
        (3290, "3.2s"),
        (10_000, "10s"),
        (119_999, "119s"),
        (310_000, "5m10s"),
        (12_000_000, "3h20m"),
        (1_051_200_000, "12d4h"),
    ] {
        assert_eq!(span(Duration::from_millis(millis)), text);
    }
}
