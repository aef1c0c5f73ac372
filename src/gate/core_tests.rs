use proptest::prelude::*;

use super::*;

fn rule(name: &str, role: Role, success_threshold: u32, failure_threshold: u32) -> CheckRule {
    CheckRule { name: name.into(), kind: "tcp", role, success_threshold, failure_threshold }
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

/// What the property test does to a gate; indices are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Result { check: usize, passed: bool, stale: bool },
    Refused,
    Accepted,
    Stopping,
    Restarting,
    Drain(bool),
    Drained,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..3usize, any::<bool>(), prop::bool::weighted(0.1))
            .prop_map(|(check, passed, stale)| Step::Result { check, passed, stale }),
        2 => Just(Step::Refused),
        2 => Just(Step::Accepted),
        1 => Just(Step::Stopping),
        1 => Just(Step::Restarting),
        1 => prop::bool::weighted(0.5).prop_map(Step::Drain),
        1 => Just(Step::Drained),
    ]
}

/// The contract, written a second time and more naively than the machine.
#[derive(Default)]
struct Oracle {
    passed: [bool; 3],
    history: [Vec<bool>; 3],
    refusing: bool,
    seen: bool,
    stopping: bool,
    drain: bool,
}

impl Oracle {
    fn rearm(&mut self) {
        self.passed = [false; 3];
        self.history = Default::default();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// 10 000 random histories, no false ready; thresholds are in a row; draining is terminal.
    #[test]
    fn ready_is_never_a_lie(steps in prop::collection::vec(step(), 1..60)) {
        let names = ["warm", "file", "health"];
        let thresholds = [(1, 1), (2, 1), (1, 3)];
        let now = Instant::now();
        let roles = [Role::Startup, Role::Startup, Role::Always];
        let rules = (0..3).map(|i| rule(names[i], roles[i], thresholds[i].0, thresholds[i].1)).collect();
        let mut core = Core::new(rules, ["app".into()], now);
        let mut oracle = Oracle::default();
        for step in steps {
            let before = core.phase();
            let event = match step {
                Step::Result { check, passed, stale } => {
                    let mut event = result(&core, names[check], passed);
                    if stale && let Event::Checked { arm, .. } = &mut event {
                        *arm -= 1;
                    } else {
                        oracle.history[check].push(passed);
                        let needed = thresholds[check].0 as usize;
                        let row = oracle.history[check].iter().rev().take_while(|p| **p).count();
                        oracle.passed[check] |= row >= needed;
                    }
                    event
                }
                Step::Refused => { oracle.refusing = true; Event::AppRefused { app: 0 } }
                Step::Accepted => {
                    if oracle.refusing && oracle.seen { oracle.rearm(); }
                    oracle.refusing = false;
                    oracle.seen = true;
                    Event::AppAccepted { app: 0 }
                }
                Step::Stopping => { oracle.stopping |= !oracle.drain; Event::AppStopping }
                Step::Restarting => {
                    if oracle.stopping { oracle.rearm(); }
                    oracle.stopping = false;
                    Event::AppRestarting
                }
                Step::Drain(hold_ready) => { oracle.drain = true; oracle.stopping = false; Event::DrainStarted { hold_ready } }
                Step::Drained => Event::Drained,
            };
            core.apply(event, now);
            let health = &oracle.history[2];
            let failing_row = health.iter().rev().take_while(|p| !**p).count() >= 3;
            if core.phase() == Phase::Ready {
                prop_assert!(oracle.passed[0] && oracle.passed[1], "a startup check has not passed since the arm");
                prop_assert!(oracle.passed[2] && !failing_row, "an always check fails");
                prop_assert!(oracle.seen && !oracle.refusing && !oracle.stopping && !oracle.drain);
            }
            if oracle.passed.iter().all(|p| *p) && !health.contains(&false) && oracle.seen
                && !oracle.refusing && !oracle.stopping && !oracle.drain {
                prop_assert_eq!(core.phase(), Phase::Ready, "nothing speaks against ready");
            }
            if oracle.drain {
                prop_assert!(matches!(core.phase(), Phase::Draining | Phase::Drained));
                prop_assert!(!(core.is_ready() && oracle.refusing));
            }
            if before == Phase::Drained { prop_assert_eq!(core.phase(), Phase::Drained); }
            if before == Phase::Draining { prop_assert!(matches!(core.phase(), Phase::Draining | Phase::Drained)); }
        }
    }
}

/// An event on a gate of at most three checks and one app.
fn any_event() -> impl Strategy<Value = Event> {
    let names = ["a", "b", "c"];
    let role = prop_oneof![Just(Role::Startup), Just(Role::Always), Just(Role::Never)];
    let rules = prop::collection::vec(role, 0..=3);
    prop_oneof![
        4 => (0..3usize, any::<bool>(), 0..2u64).prop_map(move |(at, passed, arm)| Event::Checked {
            check: names[at].into(), arm, passed, line: String::new(), took: Duration::ZERO
        }),
        1 => Just(Event::AppRefused { app: 0 }),
        2 => Just(Event::AppAccepted { app: 0 }),
        1 => Just(Event::AppStopping),
        1 => Just(Event::AppRestarting),
        1 => any::<bool>().prop_map(|hold_ready| Event::DrainStarted { hold_ready }),
        1 => Just(Event::Drained),
        1 => (rules, 0..4usize).prop_map(move |(roles, changed)| Event::Configured {
            rules: roles.into_iter().zip(names).map(|(role, name)| rule(name, role, 1, 2)).collect(),
            changed: names.iter().skip(changed).map(|name| (*name).into()).collect(),
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn every_transition_is_one_of_the_possible_ones(
        checks in 0..3usize,
        events in prop::collection::vec(any_event(), 1..40),
    ) {
        let now = Instant::now();
        let roles = [Role::Startup, Role::Always, Role::Never];
        let rules = roles.into_iter().zip(["a", "b", "c"]).take(checks);
        let mut core = Core::new(rules.map(|(role, name)| rule(name, role, 1, 2)).collect(), ["app".into()], now);
        for event in events {
            let event = match event {
                // Mostly of this arm, at times of the one before.
                Event::Checked { check, arm, passed, line, took } => {
                    Event::Checked { check, arm: core.arm() - u64::from(arm == 0), passed, line, took }
                }
                event => event,
            };
            if let Some(t) = core.apply(event, now) {
                prop_assert!(Transition::POSSIBLE.contains(&(t.from, t.to, t.cause)), "{t:?}");
            }
        }
    }
}
