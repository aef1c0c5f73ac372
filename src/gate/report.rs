//! What is true of the gate right now, for people and for `/status`: published whole at each event.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::core::{App, Core};
use super::event::{Phase, Role, Transition};
use super::tally::Standing;
use super::tracked::{Excuse, Tracked};

/// Transitions kept for `/status`.
const KEPT: usize = 64;

/// A snapshot of the gate.
#[derive(Clone, Debug)]
pub struct Report {
    pub phase: Phase,
    pub since: Instant,
    pub arm: u64,
    pub armed_at: Instant,
    /// The readiness answer, but for silent workers.
    pub ready: bool,
    /// The pod says that it leaves for a check that fails; it may still take that back.
    pub leaving: bool,
    /// Why not, one line each; empty while ready.
    pub reasons: Vec<String>,
    pub checks: Vec<CheckReport>,
    pub apps: Vec<App>,
    pub restarts: u64,
    /// The last 64, oldest first.
    pub transitions: Vec<(SystemTime, Transition)>,
}

/// A check in a snapshot.
#[derive(Clone, Debug)]
pub struct CheckReport {
    pub name: Arc<str>,
    pub kind: &'static str,
    pub role: Role,
    pub standing: Standing,
    /// Whether it passed since the last arm.
    pub passed: bool,
    /// Whether it keeps the gate closed right now.
    pub blocks: bool,
    /// Whether it has a guard.
    pub guarded: bool,
    /// It fails, and its guard keeps the gate open.
    pub excuse: Option<Excuse>,
    /// What the last run said, or the one that goes on.
    pub line: String,
    /// The line is news of a run that has not ended, or of one that waits for its turn.
    pub is_news: bool,
    pub took: Option<Duration>,
    pub at: Option<Instant>,
    /// Since when the standing is what it is.
    pub since: Instant,
    pub time_to_pass: Option<Duration>,
    pub runs: u64,
    /// Results of the same sort in a row: (whether they passed, how many).
    pub row: (bool, u32),
    pub success_threshold: u32,
    pub failure_threshold: u32,
}

/// The last transitions.
#[derive(Debug, Default)]
pub struct Past(VecDeque<(SystemTime, Transition)>);

impl Past {
    pub fn push(&mut self, transition: Transition) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        // For people to read; no decision uses the wall clock.
        self.0.push_back((SystemTime::now(), transition));
    }
}

impl Report {
    pub fn of(core: &Core, past: &Past) -> Self {
        Self {
            phase: core.phase(),
            since: core.since(),
            arm: core.arm(),
            armed_at: core.armed_at(),
            ready: core.is_ready(),
            leaving: core.leaving(),
            reasons: if core.is_ready() { Vec::new() } else { reasons(core) },
            checks: core.checks().iter().map(|tracked| CheckReport::of(core, tracked)).collect(),
            apps: core.apps().to_vec(),
            restarts: core.restarts(),
            transitions: past.0.iter().cloned().collect(),
        }
    }

    /// Whether the app's port accepted a connection at some time.
    pub fn app_seen(&self, app: usize) -> bool {
        self.apps.get(app).is_none_or(|app| app.seen)
    }
}

impl CheckReport {
    fn of(core: &Core, tracked: &Tracked) -> Self {
        Self {
            name: Arc::clone(&tracked.rule.name),
            kind: tracked.rule.kind,
            role: tracked.rule.role,
            standing: tracked.tally.standing(),
            passed: tracked.tally.passed(),
            blocks: core.blocks(tracked),
            guarded: tracked.rule.is_guarded(),
            excuse: tracked.excuse.clone(),
            line: tracked.line.clone(),
            is_news: tracked.is_news,
            took: tracked.took,
            at: tracked.at,
            since: tracked.since,
            time_to_pass: tracked.time_to_pass,
            runs: tracked.runs,
            row: tracked.tally.row(),
            success_threshold: tracked.rule.success_threshold,
            failure_threshold: tracked.rule.failure_threshold,
        }
    }
}

/// One line each: what is wrong, then what to do about it or where to look.
fn reasons(core: &Core) -> Vec<String> {
    let mut lines = Vec::new();
    match core.phase() {
        Phase::Draining => lines.push(DRAINING.to_owned()),
        Phase::Drained => lines.push(DRAINED.to_owned()),
        Phase::Starting | Phase::Ready | Phase::Failing => {}
    }
    if core.stopping() {
        lines.push(STOPPING.to_owned());
    }
    lines.extend(core.lacks().iter().map(|(part, reason)| format!("{part}: {reason}. {LACKS}")));
    for app in core.apps() {
        if app.refusing {
            lines.push(format!("the app refuses connections on {}: {REFUSES}", app.name));
        } else if !app.seen {
            lines.push(format!("the app has not accepted a connection on {} yet: {NOT_SEEN}", app.name));
        }
    }
    for tracked in core.checks().iter().filter(|tracked| core.blocks(tracked)) {
        let line = if tracked.line.is_empty() { "has not run yet" } else { &tracked.line };
        lines.push(format!("{}: {line}", tracked.rule.name));
    }
    lines
}

const DRAINING: &str = "draining: the pod is leaving and never becomes ready again; requests are still served. \
                        Nothing to do if it is being deleted; if not, see who sent SIGTERM or called a hook, and replace it";
const DRAINED: &str = "drained: the pod is leaving and nothing is left to serve; it never becomes ready again. \
                       Nothing to do if it is being deleted; if not, replace it (kubectl delete pod)";
const STOPPING: &str = "the app is being stopped: its preStop hook came. Wait: a drain follows, or after \
                        drain.restart_window it counts as a restart of the app alone";
const LACKS: &str = "No connection succeeds without it: see that the Secret is mounted and the path is right; \
                     it is looked at every 2s";
const REFUSES: &str = "nothing listens there. See whether the app's container runs (kubectl get pod) and what it \
                       says (kubectl logs), and whether `upstream` names its port; it is tried ten times a second";
const NOT_SEEN: &str = "so far it neither accepts nor refuses. See whether the app's container runs and what it says \
                        (kubectl logs), and whether `upstream` names its host and port; it is tried ten times a second";

#[cfg(test)]
mod tests {
    use super::super::event::{CheckRule, Event};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rule(name: &str) -> CheckRule {
        CheckRule {
            name: name.into(),
            kind: "tcp",
            role: Role::Startup,
            success_threshold: 1,
            failure_threshold: 2,
            guarded: false,
        }
    }

    fn result(core: &Core, check: &str, passed: bool) -> Event {
        Event::Checked { check: check.into(), arm: core.arm(), passed, line: String::new(), took: SECOND }
    }

    /// Since when `db` stands as it does, and how long it took to pass.
    fn db(core: &Core) -> (Instant, Option<Duration>) {
        let report = Report::of(core, &Past::default());
        (report.checks[0].since, report.checks[0].time_to_pass)
    }

    #[test]
    fn a_standing_lasts_from_the_result_that_changed_it() {
        let begun = Instant::now();
        let at = |seconds: u32| begun + seconds * SECOND;
        let mut core = Core::new(vec![rule("db")], ["app".into()], begun);
        for (second, passed, since) in
            [(1, true, 1), (2, true, 1), (3, false, 1), (4, false, 4), (5, false, 4)]
        {
            core.apply(result(&core, "db", passed), at(second));
            assert_eq!(db(&core), (at(since), Some(SECOND)), "after second {second}");
        }
        core.apply(Event::AppAccepted { app: 0 }, at(6));
        core.apply(Event::AppRefused { app: 0 }, at(7));
        core.apply(Event::AppAccepted { app: 0 }, at(8));
        assert_eq!(db(&core), (at(8), None), "unknown since the arm");
        core.apply(result(&core, "db", true), at(11));
        assert_eq!(db(&core), (at(11), Some(3 * SECOND)), "counted from that arm");
    }

    #[test]
    fn time_to_pass_of_what_a_reload_brought_counts_from_the_reload() {
        let begun = Instant::now();
        let at = |seconds: u32| begun + seconds * SECOND;
        let mut core = Core::new(vec![rule("old")], ["app".into()], begun);
        core.apply(result(&core, "old", true), at(1));
        let rules = vec![rule("db"), rule("old")];
        core.apply(Event::Configured { rules, changed: Vec::new() }, at(7200));
        core.apply(result(&core, "db", true), at(7202));
        assert_eq!(db(&core), (at(7202), Some(2 * SECOND)), "and not the two hours before");
        let old = &Report::of(&core, &Past::default()).checks[1];
        assert_eq!((old.since, old.time_to_pass), (at(1), Some(SECOND)), "what was not changed goes on");
    }
}
