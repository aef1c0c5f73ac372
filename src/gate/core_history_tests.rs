//! Random histories of a gate, against the contract written a second time and more naively.

use proptest::prelude::*;

use super::*;

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
    Guard(GuardStep),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..4usize, any::<bool>(), prop::bool::weighted(0.1))
            .prop_map(|(check, passed, stale)| Step::Result { check, passed, stale }),
        2 => Just(Step::Refused),
        2 => Just(Step::Accepted),
        1 => Just(Step::Stopping),
        1 => Just(Step::Restarting),
        1 => prop::bool::weighted(0.5).prop_map(Step::Drain),
        1 => Just(Step::Drained),
        4 => guard_step().prop_map(Step::Guard),
    ]
}

fn guard_step() -> impl Strategy<Value = GuardStep> {
    prop_oneof![Just(GuardStep::Stay), Just(GuardStep::Announce), Just(GuardStep::Leave)]
}

/// The contract, written a second time and more naively than the machine.
#[derive(Default)]
struct Oracle {
    passed: [bool; 4],
    history: [Vec<bool>; 4],
    /// What happened to the guarded check since the arm, and whether the gate had been open before.
    guarded: Vec<(Guarded, bool)>,
    /// The gate was open since the arm.
    opened: bool,
    refusing: bool,
    seen: bool,
    stopping: bool,
    drain: bool,
}

impl Oracle {
    fn rearm(&mut self) {
        self.passed = [false; 4];
        self.history = Default::default();
        self.guarded.clear();
        self.opened = false;
    }

    fn row_of_failures(&self, check: usize) -> usize {
        self.history[check].iter().rev().take_while(|passed| !**passed).count()
    }

    /// Whether the guarded check (threshold 2) fails and its guard has not let the pod leave for that.
    fn is_excused(&self) -> bool {
        let since_pass =
            self.guarded.rsplit(|(what, _)| *what == Guarded::Ran(true)).next().unwrap_or_default();
        let mut failures =
            since_pass.iter().enumerate().filter(|(_, (what, _))| *what == Guarded::Ran(false));
        let Some((at, (_, opened))) = failures.nth(1) else { return false };
        let steps: Vec<_> = since_pass[at..].iter().map(|(what, _)| *what).collect();
        let announced_then_left = steps.iter().enumerate().any(|(at, what)| {
            let before = steps[..at]
                .iter()
                .rev()
                .find(|what| matches!(what, Guarded::Did(step) if *step != GuardStep::Leave));
            *what == Guarded::Did(GuardStep::Leave) && before == Some(&Guarded::Did(GuardStep::Announce))
        });
        *opened && !announced_then_left
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Guarded {
    Ran(bool),
    Did(GuardStep),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// 10 000 random histories, no false ready; thresholds are in a row; draining is terminal.
    #[test]
    fn ready_is_never_a_lie(steps in prop::collection::vec(any_step(), 1..60)) {
        let names = ["warm", "file", "health", "db"];
        let thresholds = [(1, 1), (2, 1), (1, 3), (1, 2)];
        let now = Instant::now();
        let roles = [Role::Startup, Role::Startup, Role::Always, Role::Always];
        let rules = (0..4).map(|i| CheckRule {
            guarded: i == 3,
            ..rule(names[i], roles[i], thresholds[i].0, thresholds[i].1)
        }).collect();
        let mut core = Core::new(rules, ["app".into()], now);
        let mut oracle = Oracle::default();
        for next in steps {
            let before = core.phase();
            let event = match next {
                Step::Result { check, passed, stale } => {
                    let mut event = result(&core, names[check], passed);
                    if stale && let Event::Checked { arm, .. } = &mut event {
                        *arm -= 1;
                    } else {
                        oracle.history[check].push(passed);
                        if check == 3 { oracle.guarded.push((Guarded::Ran(passed), oracle.opened)); }
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
                Step::Guard(what) => {
                    oracle.guarded.push((Guarded::Did(what), oracle.opened));
                    step(&core, "db", what)
                }
            };
            core.apply(event, now);
            oracle.opened |= core.phase() == Phase::Ready;
            let health_fails = oracle.row_of_failures(2) >= 3;
            let db_counts = oracle.row_of_failures(3) >= 2 && !oracle.is_excused();
            if core.phase() == Phase::Ready {
                prop_assert!(oracle.passed[0] && oracle.passed[1], "a startup check has not passed since the arm");
                prop_assert!(oracle.passed[2] && !health_fails, "an always check fails");
                prop_assert!(oracle.passed[3] && !db_counts, "a guarded check fails, and its guard said to leave");
                prop_assert!(oracle.seen && !oracle.refusing && !oracle.stopping && !oracle.drain);
            }
            if oracle.passed.iter().all(|p| *p) && !oracle.history[2].contains(&false) && !db_counts && oracle.seen
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
        2 => (0..3usize, guard_step(), 0..2u64).prop_map(move |(at, step, arm)| Event::Guard {
            check: names[at].into(), arm, step, line: String::new()
        }),
        1 => (rules, 0..4usize, 0..2).prop_map(move |(roles, changed, guarded)| Event::Configured {
            rules: roles.into_iter().zip(names).map(|(role, name)| CheckRule {
                guarded: guarded == 1, ..rule(name, role, 1, 2)
            }).collect(),
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
        let rules = rules.map(|(role, name)| CheckRule { guarded: true, ..rule(name, role, 1, 2) }).collect();
        let mut core = Core::new(rules, ["app".into()], now);
        for event in events {
            let event = match event {
                // Mostly of this arm, at times of the one before.
                Event::Checked { check, arm, passed, line, took } => {
                    Event::Checked { check, arm: core.arm() - u64::from(arm == 0), passed, line, took }
                }
                Event::Guard { check, arm, step, line } => {
                    Event::Guard { check, arm: core.arm() - u64::from(arm == 0), step, line }
                }
                event => event,
            };
            if let Some(t) = core.apply(event, now) {
                prop_assert!(Transition::POSSIBLE.contains(&(t.from, t.to, t.cause)), "{t:?}");
            }
        }
    }
}
