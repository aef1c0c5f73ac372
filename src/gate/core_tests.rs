use super::*;

fn rule(name: &str, role: Role, success_threshold: u32, failure_threshold: u32) -> CheckRule {
    let guarded = false;
    CheckRule { name: name.into(), kind: "tcp", role, success_threshold, failure_threshold, guarded }
}

/// An always check with a guard.
fn guarded(name: &str, failure_threshold: u32) -> CheckRule {
    CheckRule { guarded: true, ..rule(name, Role::Always, 1, failure_threshold) }
}

fn step(core: &Core, check: &str, step: GuardStep) -> Event {
    Event::Guard { check: check.into(), arm: core.arm(), step, line: "saw".to_owned() }
}

/// A gate with a guarded check `db` (threshold 2) that was open when it began to fail.
fn excused() -> (Core, Instant) {
    let now = Instant::now();
    let mut core = Core::new(vec![guarded("db", 2), rule("health", Role::Always, 1, 1)], ["app".into()], now);
    core.apply(Event::AppAccepted { app: 0 }, now);
    for check in ["db", "health"] {
        core.apply(result(&core, check, true), now);
    }
    assert_eq!(core.phase(), Phase::Ready);
    for _ in 0..2 {
        assert_eq!(core.apply(result(&core, "db", false), now), None);
    }
    (core, now)
}

/// A gate with one startup check `warm` and one always check `health` (threshold 3), its app up.
fn gate() -> (Core, Instant) {
    let now = Instant::now();
    let rules = vec![rule("warm", Role::Startup, 1, 1), rule("health", Role::Always, 1, 3)];
    let mut core = Core::new(rules, ["127.0.0.1:8080".into()], now);
    core.apply(Event::AppAccepted { app: 0 }, now);
    (core, now)
}

fn result(core: &Core, check: &str, passed: bool) -> Event {
    Event::Checked {
        check: check.into(),
        arm: core.arm(),
        passed,
        line: "said".to_owned(),
        took: Duration::from_millis(5),
    }
}

fn open() -> (Core, Instant) {
    let (mut core, now) = gate();
    for check in ["warm", "health"] {
        core.apply(result(&core, check, true), now);
    }
    assert_eq!(core.phase(), Phase::Ready);
    (core, now)
}

fn phases(core: &mut Core, events: impl IntoIterator<Item = Event>) -> Vec<(Phase, Phase, Cause)> {
    let now = Instant::now();
    events.into_iter().filter_map(|event| core.apply(event, now)).map(|t| (t.from, t.to, t.cause)).collect()
}

#[test]
fn gate_opens_when_every_check_that_counts_passed() {
    let (mut core, now) = gate();
    assert_eq!(core.apply(result(&core, "warm", true), now), None);
    let opened = core.apply(result(&core, "health", true), now).expect("a transition");
    assert_eq!((opened.from, opened.to, opened.cause), (Phase::Starting, Phase::Ready, Cause::ChecksPassed));
    assert!(core.is_ready() && core.is_ready_for_balancers() && core.admits());
}

#[test]
fn gate_stays_closed_until_the_app_accepted_a_connection() {
    let now = Instant::now();
    let mut core = Core::new(vec![rule("file", Role::Startup, 1, 1)], ["app".into()], now);
    assert_eq!(core.apply(result(&core, "file", true), now), None);
    let opened = core.apply(Event::AppAccepted { app: 0 }, now).expect("a transition");
    assert_eq!((opened.to, opened.cause), (Phase::Ready, Cause::ChecksPassed));
    assert_eq!(core.restarts(), 0);
}

#[test]
fn gate_stays_closed_and_says_why_until_nothing_is_lacking() {
    let (mut core, now) = gate();
    let lacks = |reason: Option<&str>| Event::Lacks { part: "tls".into(), reason: reason.map(Into::into) };
    assert_eq!(core.apply(lacks(Some("no certificate")), now), None);
    for check in ["warm", "health"] {
        assert_eq!(core.apply(result(&core, check, true), now), None);
    }
    let reasons = super::super::Report::of(&core, &super::super::Past::default()).reasons;
    assert!(reasons.len() == 1 && reasons[0].starts_with("tls: no certificate. "), "{reasons:?}");
    let opened = core.apply(lacks(None), now).expect("a transition");
    assert_eq!((opened.from, opened.to, opened.cause), (Phase::Starting, Phase::Ready, Cause::ChecksPassed));
    assert_eq!(core.apply(lacks(None), now), None);
}

#[test]
fn always_check_closes_only_at_its_threshold_in_a_row() {
    let (mut core, now) = open();
    for passed in [false, false, true, false, false] {
        assert_eq!(core.apply(result(&core, "health", passed), now), None);
    }
    let closed = core.apply(result(&core, "health", false), now).expect("a transition");
    assert_eq!(
        (closed.to, closed.cause, closed.detail.as_str()),
        (Phase::Failing, Cause::CheckFailed, "health: said")
    );
    let back = core.apply(result(&core, "health", true), now).expect("a transition");
    assert_eq!((back.from, back.to), (Phase::Failing, Phase::Ready));
}

#[test]
fn startup_check_that_fails_later_does_not_close() {
    let (mut core, now) = open();
    assert_eq!(core.apply(result(&core, "warm", false), now), None);
    assert!(core.is_ready());
}

#[test]
fn app_restart_arms_again() {
    let (mut core, now) = open();
    let seen = phases(&mut core, [Event::AppRefused { app: 0 }, Event::AppAccepted { app: 0 }]);
    assert_eq!(
        seen,
        [
            (Phase::Ready, Phase::Failing, Cause::AppRefused),
            (Phase::Failing, Phase::Starting, Cause::AppRestarted)
        ]
    );
    assert_eq!((core.arm(), core.restarts()), (2, 1));
    assert_eq!(core.apply(result(&core, "warm", true), now), None);
    assert!(core.apply(result(&core, "health", true), now).is_some());
}

#[test]
fn result_of_an_earlier_arm_counts_for_nothing() {
    let (mut core, now) = open();
    let stale = result(&core, "warm", true);
    phases(&mut core, [Event::AppRefused { app: 0 }, Event::AppAccepted { app: 0 }]);
    core.apply(stale, now);
    core.apply(result(&core, "health", true), now);
    assert_eq!(core.phase(), Phase::Starting);
}

#[test]
fn draining_gate_never_reopens() {
    let (mut core, now) = open();
    let drain = core.apply(Event::DrainStarted { hold_ready: false }, now).expect("a transition");
    assert_eq!((drain.to, drain.cause), (Phase::Draining, Cause::DrainStarted));
    assert!(!core.is_ready() && core.admits());
    let after = [result(&core, "health", true), Event::AppRestarting, Event::AppRefused { app: 0 }];
    assert_eq!(phases(&mut core, after), []);
    assert_eq!(phases(&mut core, [Event::Drained]), [(Phase::Draining, Phase::Drained, Cause::Drained)]);
    assert_eq!(
        phases(&mut core, [Event::AppAccepted { app: 0 }, Event::DrainStarted { hold_ready: true }]),
        []
    );
}

#[test]
fn held_drain_says_ready_until_the_app_refuses() {
    let (mut core, now) = open();
    core.apply(Event::DrainStarted { hold_ready: true }, now);
    assert!(core.is_ready() && !core.is_ready_for_balancers());
    core.apply(Event::AppRefused { app: 0 }, now);
    assert!(!core.is_ready());
}

#[test]
fn held_drain_of_a_closed_gate_says_no() {
    let (mut core, now) = gate();
    core.apply(Event::DrainStarted { hold_ready: true }, now);
    assert!(!core.is_ready());
}

#[test]
fn app_hook_says_no_at_once_and_serves_on() {
    let (mut core, _) = open();
    assert_eq!(phases(&mut core, [Event::AppStopping]), [(Phase::Ready, Phase::Failing, Cause::AppStopping)]);
    assert!(!core.is_ready() && core.admits());
}

#[test]
fn app_hook_alone_is_a_restart_and_arms_again() {
    let (mut core, _) = open();
    let seen = phases(&mut core, [Event::AppStopping, Event::AppStopping, Event::AppRestarting]);
    assert_eq!(seen.last(), Some(&(Phase::Failing, Phase::Starting, Cause::AppRestarted)));
    assert_eq!(core.arm(), 2);
}

#[test]
fn hold_survives_an_app_hook_that_came_first() {
    let (mut core, _) = open();
    phases(&mut core, [Event::AppStopping, Event::DrainStarted { hold_ready: true }]);
    assert!(core.is_ready());
}

#[test]
fn reload_never_closes_an_open_gate() {
    let (mut core, now) = open();
    let rules = vec![
        rule("warm", Role::Startup, 1, 1),
        rule("health", Role::Always, 2, 2),
        rule("new", Role::Startup, 1, 1),
        rule("other", Role::Always, 1, 1),
    ];
    let changed = vec!["warm".into()];
    assert_eq!(core.apply(Event::Configured { rules, changed }, now), None);
    assert!(core.is_ready());
    assert!(core.apply(result(&core, "other", false), now).is_some(), "a new always check counts at once");
}

#[test]
fn reload_that_drops_the_last_obstacle_opens() {
    let (mut core, now) = gate();
    core.apply(result(&core, "health", true), now);
    let rules = vec![rule("health", Role::Always, 1, 3)];
    let opened = core.apply(Event::Configured { rules, changed: vec![] }, now).expect("a transition");
    assert_eq!((opened.to, opened.cause), (Phase::Ready, Cause::Reloaded));
}

#[test]
fn check_that_kept_the_gate_closed_goes_on_doing_so_when_a_reload_changes_it() {
    let (mut core, now) = open();
    for _ in 0..3 {
        core.apply(result(&core, "health", false), now);
    }
    assert_eq!(core.phase(), Phase::Failing);
    let rules = vec![rule("warm", Role::Startup, 1, 1), rule("health", Role::Always, 1, 3)];
    let changed = vec!["health".into()];
    assert_eq!(core.apply(Event::Configured { rules, changed }, now), None, "nothing speaks for it yet");
    let opened = core.apply(result(&core, "health", true), now).expect("a transition");
    assert_eq!((opened.to, opened.cause), (Phase::Ready, Cause::ChecksPassed));
}

/// A gate with two listeners in front of the app, `apps` naming their upstreams; open.
fn open_with(apps: [&str; 2]) -> Core {
    let now = Instant::now();
    let mut core = Core::new(vec![], apps.map(Arc::from), now);
    for app in 0..2 {
        core.apply(Event::AppAccepted { app }, now);
    }
    assert_eq!(core.phase(), Phase::Ready);
    core
}

#[test]
fn restart_of_an_app_behind_two_listeners_is_one_restart() {
    for apps in [["app:80", "app:80"], ["app:80", "app:90"]] {
        let mut core = open_with(apps);
        let mut events = vec![Event::AppRefused { app: 0 }, Event::AppRefused { app: 1 }];
        events.extend([Event::AppAccepted { app: 0 }, Event::AppAccepted { app: 1 }]);
        phases(&mut core, events);
        assert_eq!((core.restarts(), core.arm(), core.phase()), (1, 2, Phase::Ready), "{apps:?}");
    }
}

#[test]
fn app_is_back_only_when_all_its_ports_are() {
    let mut core = open_with(["app:80", "app:90"]);
    phases(&mut core, [Event::AppRefused { app: 0 }, Event::AppRefused { app: 1 }]);
    phases(&mut core, [Event::AppAccepted { app: 1 }]);
    assert_eq!((core.restarts(), core.phase()), (0, Phase::Failing));
    phases(&mut core, [Event::AppAccepted { app: 0 }]);
    assert_eq!((core.restarts(), core.arm()), (1, 2));
}

#[test]
fn never_checks_are_reported_only() {
    let now = Instant::now();
    let mut core = Core::new(vec![rule("info", Role::Never, 1, 1)], ["app".into()], now);
    assert!(core.apply(Event::AppAccepted { app: 0 }, now).is_some());
    core.apply(result(&core, "info", false), now);
    assert!(core.is_ready());
}

#[test]
fn guarded_check_keeps_the_gate_open_until_its_guard_lets_it_close() {
    let (mut core, now) = excused();
    let excuse = core.checks()[0].excuse.clone().expect("an excuse");
    assert_eq!((excuse.guarded, excuse.leaving), (false, false), "nobody has asked yet");
    core.apply(step(&core, "db", GuardStep::Stay), now);
    assert!(core.is_ready() && core.checks()[0].excuse.as_ref().is_some_and(|excuse| excuse.guarded));
    core.apply(step(&core, "db", GuardStep::Announce), now);
    assert!(core.is_ready() && core.leaving());
    let left = core.apply(step(&core, "db", GuardStep::Leave), now).expect("a transition");
    assert_eq!((left.from, left.to, left.cause), (Phase::Ready, Phase::Failing, Cause::CheckFailed));
    assert_eq!(left.detail, "db: said; saw");
    assert!(!core.leaving());
    let back = core.apply(result(&core, "db", true), now).expect("a transition");
    assert_eq!((back.from, back.to), (Phase::Failing, Phase::Ready));
}

#[test]
fn guarded_gate_never_closes_without_an_announcement() {
    let (mut core, now) = excused();
    assert_eq!(core.apply(step(&core, "db", GuardStep::Leave), now), None);
    core.apply(step(&core, "db", GuardStep::Announce), now);
    core.apply(step(&core, "db", GuardStep::Stay), now);
    assert_eq!(core.apply(step(&core, "db", GuardStep::Leave), now), None, "it was taken back");
    assert!(core.is_ready() && !core.leaving());
}

#[test]
fn guard_speaks_for_its_check_only_and_not_for_the_app_or_the_drain() {
    let ways_out = [
        (Event::AppRefused { app: 0 }, Phase::Failing),
        (Event::AppStopping, Phase::Failing),
        (Event::DrainStarted { hold_ready: false }, Phase::Draining),
    ];
    for (event, phase) in ways_out {
        let (mut core, now) = excused();
        core.apply(step(&core, "db", GuardStep::Stay), now);
        core.apply(event, now);
        assert_eq!((core.phase(), core.is_ready()), (phase, false));
    }
    let (mut core, now) = excused();
    let closed = core.apply(result(&core, "health", false), now).expect("a transition");
    assert_eq!((closed.to, closed.detail.as_str()), (Phase::Failing, "health: said"));
    assert!(core.apply(result(&core, "health", true), now).is_some_and(|back| back.to == Phase::Ready));
}

#[test]
fn excuse_ends_with_the_failure_and_what_was_decided_for_it_counts_no_more() {
    let (mut core, now) = excused();
    core.apply(step(&core, "db", GuardStep::Announce), now);
    core.apply(result(&core, "db", true), now);
    assert!(!core.leaving() && core.checks()[0].excuse.is_none());
    assert_eq!(core.apply(step(&core, "db", GuardStep::Leave), now), None);
    let stale = step(&core, "db", GuardStep::Announce);
    phases(&mut core, [Event::AppRefused { app: 0 }, Event::AppAccepted { app: 0 }]);
    core.apply(stale, now);
    assert!(!core.leaving());
}

#[test]
fn fresh_gate_waits_for_a_guarded_check() {
    let now = Instant::now();
    let mut core = Core::new(vec![guarded("db", 1)], ["app".into()], now);
    core.apply(Event::AppAccepted { app: 0 }, now);
    for _ in 0..3 {
        assert_eq!(core.apply(result(&core, "db", false), now), None);
        core.apply(step(&core, "db", GuardStep::Stay), now);
    }
    assert_eq!((core.phase(), core.checks()[0].excuse.is_none()), (Phase::Starting, true));
    // An app that comes back is fresh, too.
    let (mut core, _) = excused();
    phases(&mut core, [Event::AppRefused { app: 0 }, Event::AppAccepted { app: 0 }]);
    assert_eq!((core.phase(), core.checks()[0].excuse.is_none()), (Phase::Starting, true));
}

#[test]
fn reload_that_takes_the_guard_away_takes_the_excuse_with_it() {
    let (mut core, now) = excused();
    let rules = |db| vec![db, rule("health", Role::Always, 1, 1)];
    let kept = Event::Configured { rules: rules(guarded("db", 5)), changed: vec![] };
    assert_eq!(core.apply(kept, now), None);
    let gone = Event::Configured { rules: rules(rule("db", Role::Always, 1, 2)), changed: vec![] };
    let closed = core.apply(gone, now).expect("a transition");
    assert_eq!((closed.to, closed.cause), (Phase::Failing, Cause::Reloaded));
}

#[path = "core_history_tests.rs"]
mod history;
