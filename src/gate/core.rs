//! The life of the gate as a pure state machine: events in, at most one transition out, the clock passed in.
//!
//! ```text
//!            every startup check passed          an always check failed
//!            and every always check passes       or the app's port refuses
//!  starting ──────────────────────────────► ready ◄──────────────────► failing
//!     ▲                                       │                           │
//!     └────────── the app restarted ──────────┴───────────────────────────┘
//!  any ── drain ──► draining ──► drained
//! ```
//!
//! An always check with a guard closes an open gate only when its guard lets it: from its last failure of the
//! threshold on it has an [`Excuse`](super::Excuse), and the guard (`crate::guard`) announces that the pod leaves,
//! takes that back, or lets it leave. The excuse ends there, or once the check passes. It covers this check and
//! nothing else.
//!
//! Invariants, held by the property test below: `draining` is left for `drained` only and `drained` never;
//! `ready` implies that every startup check passed since the last arm, that every always check passed since then and
//! does not fail without an excuse, and that nothing says the app's port refuses; a threshold counts results in a
//! row; an excuse begins in an open gate only, and is taken away only after an announcement.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::{Cause, CheckRule, Event, GuardStep, Phase, Role, Transition};
use super::tracked::Tracked;

/// The app's port behind one listener. Listeners with the same upstream have ports of the same name, which
/// refuse and accept together.
#[derive(Clone, Debug)]
pub struct App {
    /// For people: `127.0.0.1:8080`.
    pub name: Arc<str>,
    pub refusing: bool,
    /// Accepted a connection at some time: a refusal after that is a loss, not a slow start.
    pub seen: bool,
}

/// The state machine.
#[derive(Clone, Debug)]
pub struct Core {
    phase: Phase,
    since: Instant,
    arm: u64,
    armed_at: Instant,
    opened: bool,
    checks: Vec<Tracked>,
    apps: Vec<App>,
    /// What is not there yet, and why.
    lacks: BTreeMap<Arc<str>, String>,
    /// The app's hook came; whether the gate was open then.
    stopping: Option<bool>,
    /// A drain began; whether `/ready` may still say yes.
    draining: Option<bool>,
    restarts: u64,
    /// A port that had accepted refused since the last arm.
    lost: bool,
}

impl Core {
    /// A gate that has seen nothing yet: `starting`, armed at `now`.
    pub fn new(rules: Vec<CheckRule>, apps: impl IntoIterator<Item = Arc<str>>, now: Instant) -> Self {
        Self {
            phase: Phase::Starting,
            since: now,
            arm: 1,
            armed_at: now,
            opened: false,
            checks: rules.into_iter().map(|rule| Tracked::new(rule, now)).collect(),
            apps: apps.into_iter().map(|name| App { name, refusing: false, seen: false }).collect(),
            lacks: BTreeMap::new(),
            stopping: None,
            draining: None,
            restarts: 0,
            lost: false,
        }
    }

    /// Takes an event; says the transition it caused.
    pub fn apply(&mut self, event: Event, now: Instant) -> Option<Transition> {
        let (cause, detail) = match event {
            Event::Checked { check, arm, passed, line, took } => {
                self.checked(&check, arm, passed, line, took, now)?
            }
            Event::Progress { check, arm, line } => {
                if arm == self.arm
                    && let Some(tracked) = self.checks.iter_mut().find(|t| t.rule.name == check)
                {
                    tracked.line = line;
                    tracked.is_news = true;
                }
                return None;
            }
            Event::Guard { check, arm, step, line } => self.guard(&check, arm, step, line)?,
            Event::AppRefused { app } => {
                let name = Arc::clone(&self.apps.get(app)?.name);
                for app in self.apps.iter_mut().filter(|app| app.name == name) {
                    app.refusing = true;
                }
                (Cause::AppRefused, format!("the app refuses connections on {name}"))
            }
            Event::AppAccepted { app } => self.accepted(app, now)?,
            Event::AppStopping => {
                if self.draining.is_some() || self.stopping.is_some() {
                    return None;
                }
                self.stopping = Some(self.phase == Phase::Ready);
                (Cause::AppStopping, "the app is being stopped: its preStop hook came".to_owned())
            }
            Event::AppRestarting => {
                self.stopping.take()?;
                self.rearm(now);
                (
                    Cause::AppRestarted,
                    "the app restarts: its preStop hook came and no drain followed".to_owned(),
                )
            }
            Event::DrainStarted { hold_ready } => {
                if self.draining.is_some() {
                    return None;
                }
                let open = self.stopping.take().unwrap_or(self.phase == Phase::Ready);
                self.draining = Some(hold_ready && open);
                (Cause::DrainStarted, "the pod is leaving".to_owned())
            }
            Event::Drained => {
                self.draining?;
                return self.enter(
                    Phase::Drained,
                    Cause::Drained,
                    "nothing is left to serve".to_owned(),
                    now,
                );
            }
            Event::Lacks { part, reason: Some(reason) } => {
                self.lacks.insert(part, reason);
                // Comes before the gate opens, so it changes no phase.
                return None;
            }
            Event::Lacks { part, reason: None } => {
                self.lacks.remove(&part)?;
                (Cause::ChecksPassed, EVERYTHING_PASSES.to_owned())
            }
            Event::Configured { rules, changed } => {
                self.configured(rules, &changed, now);
                (Cause::Reloaded, "the configuration changed".to_owned())
            }
        };
        self.enter(self.target(), cause, detail, now)
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// When the phase began.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Counts arms from 1; a result belongs to the arm in which its run began.
    pub fn arm(&self) -> u64 {
        self.arm
    }

    /// When the gate was last armed.
    pub fn armed_at(&self) -> Instant {
        self.armed_at
    }

    pub fn checks(&self) -> &[Tracked] {
        &self.checks
    }

    pub fn apps(&self) -> &[App] {
        &self.apps
    }

    /// What is not there yet, and why; each keeps the gate closed.
    pub fn lacks(&self) -> &BTreeMap<Arc<str>, String> {
        &self.lacks
    }

    /// Restarts of the app seen so far.
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    /// Whether the app's hook came and no drain yet.
    pub fn stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// The answer of `/ready`.
    pub fn is_ready(&self) -> bool {
        match self.draining {
            Some(held) => held && !self.refusing(),
            None => self.phase == Phase::Ready,
        }
    }

    /// The answer of `/lb`: no from the first moment of a drain.
    pub fn is_ready_for_balancers(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// Whether requests pass whatever `not_ready` says: the gate is open, or the pod (or the app, which was
    /// open until its hook came) is leaving and serves what still comes.
    pub fn admits(&self) -> bool {
        self.phase == Phase::Ready || self.draining.is_some() || self.stopping == Some(true)
    }

    /// Whether the pod says that it leaves for a check that fails.
    pub fn leaving(&self) -> bool {
        self.checks.iter().any(|tracked| tracked.excuse.as_ref().is_some_and(|excuse| excuse.leaving))
    }

    /// Whether one of the app's ports refuses.
    pub fn refusing(&self) -> bool {
        self.apps.iter().any(|app| app.refusing)
    }

    /// Whether a check still keeps the gate closed.
    pub fn blocks(&self, tracked: &Tracked) -> bool {
        tracked.blocks(self.opened)
    }

    fn target(&self) -> Phase {
        if self.draining.is_some() {
            return if self.phase == Phase::Drained { Phase::Drained } else { Phase::Draining };
        }
        let blocked = self.stopping.is_some()
            || !self.lacks.is_empty()
            || self.apps.iter().any(|app| app.refusing || !app.seen)
            || self.checks.iter().any(|tracked| self.blocks(tracked));
        match (blocked, self.opened) {
            (false, _) => Phase::Ready,
            (true, true) => Phase::Failing,
            (true, false) => Phase::Starting,
        }
    }

    fn enter(&mut self, to: Phase, cause: Cause, detail: String, now: Instant) -> Option<Transition> {
        if to == Phase::Ready {
            self.opened = true;
        }
        if to == self.phase {
            return None;
        }
        let from = std::mem::replace(&mut self.phase, to);
        self.since = now;
        Some(Transition { from, to, cause, detail, at: now })
    }

    /// One of the app's ports accepts. It is back, and restarted, once none of those it lost refuses.
    fn accepted(&mut self, app: usize, now: Instant) -> Option<(Cause, String)> {
        let name = Arc::clone(&self.apps.get(app)?.name);
        for app in self.apps.iter_mut().filter(|app| app.name == name) {
            self.lost |= app.seen && app.refusing;
            app.seen = true;
            app.refusing = false;
        }
        if !self.lost || self.refusing() {
            return Some((Cause::ChecksPassed, EVERYTHING_PASSES.to_owned()));
        }
        self.restarts += 1;
        self.rearm(now);
        Some((Cause::AppRestarted, format!("the app accepts connections on {name} again")))
    }

    fn rearm(&mut self, now: Instant) {
        self.lost = false;
        self.arm += 1;
        self.armed_at = now;
        self.opened = false;
        for tracked in &mut self.checks {
            tracked.rearm(now);
        }
    }

    fn checked(
        &mut self,
        check: &str,
        arm: u64,
        passed: bool,
        line: String,
        took: Duration,
        now: Instant,
    ) -> Option<(Cause, String)> {
        if arm != self.arm {
            return None;
        }
        let tracked = self.checks.iter_mut().find(|t| &*t.rule.name == check)?;
        tracked.count(passed, line, took, self.opened, now);
        Some(if passed {
            (Cause::ChecksPassed, EVERYTHING_PASSES.to_owned())
        } else {
            (Cause::CheckFailed, format!("{}: {}", tracked.rule.name, tracked.line))
        })
    }

    fn guard(&mut self, check: &str, arm: u64, step: GuardStep, line: String) -> Option<(Cause, String)> {
        if arm != self.arm {
            return None;
        }
        let tracked = self.checks.iter_mut().find(|t| &*t.rule.name == check)?;
        let reason = tracked.guard(step, line)?;
        Some((Cause::CheckFailed, format!("{check}: {reason}")))
    }

    fn configured(&mut self, rules: Vec<CheckRule>, changed: &[Arc<str>], now: Instant) {
        let blocked: Vec<bool> = self.checks.iter().map(|tracked| self.blocks(tracked)).collect();
        let old: Vec<(Tracked, bool)> = std::mem::take(&mut self.checks).into_iter().zip(blocked).collect();
        for rule in rules {
            let before = old.iter().find(|(tracked, _)| tracked.rule.name == rule.name);
            self.checks.push(match before {
                Some((tracked, _)) if !changed.contains(&rule.name) => {
                    let excuse = tracked.excuse.clone().filter(|_| rule.is_guarded());
                    Tracked { rule, excuse, ..tracked.clone() }
                }
                // A reload alone opens no gate that the check kept closed, and closes none that is open:
                // what is new counts from the next arm on, but an always check that then fails its
                // threshold does close it.
                _ => {
                    let blocked = before.is_some_and(|(_, blocked)| *blocked);
                    let exempt = self.opened && !blocked && rule.role == Role::Startup;
                    Tracked { exempt, unproven: blocked, ..Tracked::new(rule, now) }
                }
            });
        }
    }
}

const EVERYTHING_PASSES: &str = "the app accepts connections and every check that counts passes";

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
