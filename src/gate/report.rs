//! What is true of the gate right now, for people and for `/status`: published whole at each event.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::core::{App, Core, Excuse, Tracked};
use super::event::{Phase, Role, Transition};
use super::tally::Standing;

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
    pub took: Option<Duration>,
    pub at: Option<Instant>,
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
            took: tracked.took,
            at: tracked.at,
            time_to_pass: tracked.time_to_pass,
            runs: tracked.runs,
            row: tracked.tally.row(),
            success_threshold: tracked.rule.success_threshold,
            failure_threshold: tracked.rule.failure_threshold,
        }
    }
}

fn reasons(core: &Core) -> Vec<String> {
    let mut lines = Vec::new();
    match core.phase() {
        Phase::Draining => lines.push("draining: the pod is leaving".to_owned()),
        Phase::Drained => lines.push("drained: the pod is leaving and nothing is left to serve".to_owned()),
        Phase::Starting | Phase::Ready | Phase::Failing => {}
    }
    if core.stopping() {
        lines.push("the app is being stopped: its preStop hook came".to_owned());
    }
    lines.extend(core.lacks().iter().map(|(part, reason)| format!("{part}: {reason}")));
    for app in core.apps() {
        if app.refusing {
            lines.push(format!("the app refuses connections on {}", app.name));
        } else if !app.seen {
            lines.push(format!("the app has not accepted a connection on {} yet", app.name));
        }
    }
    for tracked in core.checks().iter().filter(|tracked| core.blocks(tracked)) {
        let line = if tracked.line.is_empty() { "has not run yet" } else { &tracked.line };
        lines.push(format!("{}: {line}", tracked.rule.name));
    }
    lines
}
