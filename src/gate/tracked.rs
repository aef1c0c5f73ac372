//! One check as the gate sees it: what its runs said, and whether it keeps the gate closed.

use std::time::{Duration, Instant};

use super::event::{CheckRule, GuardStep, Role};
use super::tally::{Standing, Tally};

/// A check as the gate sees it.
#[derive(Clone, Debug)]
pub struct Tracked {
    pub rule: CheckRule,
    pub tally: Tally,
    /// Added or changed by a reload while the gate was open: counts from the next arm on.
    pub exempt: bool,
    /// Changed by a reload while it kept the gate closed: goes on doing so until it passes.
    pub unproven: bool,
    /// Fails, and its guard keeps the gate open.
    pub excuse: Option<Excuse>,
    /// What the last run said, or the one that goes on.
    pub line: String,
    /// The line is news of a run that has not ended, or of one that waits for its turn.
    pub is_news: bool,
    pub took: Option<Duration>,
    pub at: Option<Instant>,
    /// Since when it counts: the arm, or the reload that brought it.
    pub counts_from: Instant,
    /// Since when its standing is what it is.
    pub since: Instant,
    /// From `counts_from` to the moment the check counted as passing.
    pub time_to_pass: Option<Duration>,
    pub runs: u64,
}

/// Why a check that fails does not close the gate: its guard has not let the pod leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excuse {
    /// When the check began to count as failing.
    pub since: Instant,
    /// The peers were asked, and too few would remain. Before that, nobody knows yet.
    pub guarded: bool,
    /// The pod says that it leaves; it may still take that back.
    pub leaving: bool,
    /// What the guard saw last; empty before.
    pub line: String,
}

impl Tracked {
    /// A check that has not run; counts from `now`.
    pub fn new(rule: CheckRule, now: Instant) -> Self {
        Self {
            rule,
            tally: Tally::default(),
            exempt: false,
            unproven: false,
            excuse: None,
            line: String::new(),
            is_news: false,
            took: None,
            at: None,
            counts_from: now,
            since: now,
            time_to_pass: None,
            runs: 0,
        }
    }

    /// Whether it keeps the gate closed; `opened`: the gate has been open since it was armed.
    pub fn blocks(&self, opened: bool) -> bool {
        if self.exempt {
            return false;
        }
        match self.rule.role {
            Role::Startup => !self.tally.passed(),
            Role::Always if opened && !self.unproven => {
                self.tally.standing() == Standing::Failing && self.excuse.is_none()
            }
            Role::Always => self.tally.standing() != Standing::Passing,
            Role::Never => false,
        }
    }

    /// Begins anew with the gate.
    pub fn rearm(&mut self, now: Instant) {
        self.tally = Tally::default();
        self.exempt = false;
        self.unproven = false;
        self.excuse = None;
        self.time_to_pass = None;
        self.counts_from = now;
        self.since = now;
        // What the last arm saw is no reason in this one.
        self.line.clear();
        self.is_news = false;
    }

    /// Counts a run. `opened`: as of [`Self::blocks`]; only then does a guard have something to keep open.
    pub fn count(&mut self, passed: bool, line: String, took: Duration, opened: bool, now: Instant) {
        let rule = &self.rule;
        let before = self.tally.standing();
        self.tally.count(passed, rule.success_threshold, rule.failure_threshold);
        if self.tally.standing() != before {
            self.since = now;
        }
        if self.tally.standing() != Standing::Failing {
            self.excuse = None;
        } else if before != Standing::Failing && opened && !self.unproven && rule.is_guarded() {
            self.excuse = Some(Excuse { since: now, guarded: false, leaving: false, line: String::new() });
        }
        self.unproven &= self.tally.standing() != Standing::Passing;
        self.runs += 1;
        self.took = Some(took);
        self.at = Some(now);
        if self.time_to_pass.is_none() && self.tally.passed() {
            self.time_to_pass = Some(now.saturating_duration_since(self.counts_from));
        }
        self.line = line;
        self.is_news = false;
    }

    /// Takes what its guard saw; says why the excuse ends, if it does: only after the pod said that it leaves.
    pub fn guard(&mut self, step: GuardStep, line: String) -> Option<String> {
        let excuse = self.excuse.as_mut()?;
        match step {
            GuardStep::Stay => (excuse.guarded, excuse.leaving) = (true, false),
            GuardStep::Announce => excuse.leaving = true,
            GuardStep::Leave if excuse.leaving => {
                self.excuse = None;
                return Some(format!("{}; {line}", self.line));
            }
            GuardStep::Leave => {}
        }
        excuse.line = line;
        None
    }
}
