//! The words of the gate: its phases, what happens to it, and what follows.
//!
//! Events come from the supervisor, the data plane and the drain; transitions go to logs, metrics and
//! `/status`. The machine in [`core`](super::core) turns one into the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where the pod is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Phase {
    /// Not every startup check has passed since the last arm.
    Starting = 0,
    /// The pod can serve.
    Ready = 1,
    /// It could, and now an always check fails, the app's port refuses, or the app is being stopped.
    Failing = 2,
    /// The pod leaves; requests are still served.
    Draining = 3,
    /// Nothing is left to serve.
    Drained = 4,
}

impl Phase {
    pub const ALL: [Self; 5] = [Self::Starting, Self::Ready, Self::Failing, Self::Draining, Self::Drained];

    /// The name used in metrics, logs and `/status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Failing => "failing",
            Self::Draining => "draining",
            Self::Drained => "drained",
        }
    }
}

/// Why a phase changed: a closed set, since it is a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    ChecksPassed,
    CheckFailed,
    AppRefused,
    AppStopping,
    AppRestarted,
    DrainStarted,
    Drained,
    Reloaded,
}

impl Cause {
    pub const ALL: [Self; 8] = [
        Self::ChecksPassed,
        Self::CheckFailed,
        Self::AppRefused,
        Self::AppStopping,
        Self::AppRestarted,
        Self::DrainStarted,
        Self::Drained,
        Self::Reloaded,
    ];

    /// The name used as a label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ChecksPassed => "checks_passed",
            Self::CheckFailed => "check_failed",
            Self::AppRefused => "app_refused",
            Self::AppStopping => "app_stopping",
            Self::AppRestarted => "app_restarted",
            Self::DrainStarted => "drain_started",
            Self::Drained => "drained",
            Self::Reloaded => "reloaded",
        }
    }
}

/// When a check counts; as `config::Gates`, which this floor does not import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Startup,
    Always,
    Never,
}

impl Role {
    /// The word of the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

/// What the gate must know of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckRule {
    pub name: Arc<str>,
    pub kind: &'static str,
    pub role: Role,
    /// Passes in a row to count as passing; at least 1.
    pub success_threshold: u32,
    /// Failures in a row to count as failing; at least 1.
    pub failure_threshold: u32,
    /// Whether peers are asked before its failure closes the gate.
    pub guarded: bool,
}

impl CheckRule {
    /// Whether a guard has a say in whether it closes the gate.
    pub fn is_guarded(&self) -> bool {
        self.guarded && self.role == Role::Always
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A run of a check ended. Results of an arm that is over, and of checks that are gone, are ignored.
    Checked { check: Arc<str>, arm: u64, passed: bool, line: String, took: Duration },
    /// A run that goes on has news; changes no verdict.
    Progress { check: Arc<str>, arm: u64, line: String },
    /// The guard of a check that fails looked at the peers, and what it saw. Ignored unless the check has an
    /// [`Excuse`](super::Excuse).
    Guard { check: Arc<str>, arm: u64, step: GuardStep, line: String },
    /// Nothing accepts connections on the app's port any more.
    AppRefused { app: usize },
    /// The app's port accepts connections.
    AppAccepted { app: usize },
    /// The app's preStop hook came, and no drain: it is being deleted or restarted.
    AppStopping,
    /// No drain followed the app's hook: the container restarts, the pod stays.
    AppRestarting,
    /// The pod leaves. `hold_ready` keeps the readiness answer as it was.
    DrainStarted { hold_ready: bool },
    /// Nothing is left to serve.
    Drained,
    /// Something that a part needs is not there yet, and why; none once it is.
    Lacks { part: Arc<str>, reason: Option<String> },
    /// The checks after a reload; `changed` names those whose evidence no longer counts.
    Configured { rules: Vec<CheckRule>, changed: Vec<Arc<str>> },
}

/// What follows from a look at the peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardStep {
    /// Too few would remain ready: the check closes nothing, and the pod no longer says that it leaves.
    Stay,
    /// Enough seem to remain ready: from now on the pod says that it leaves, so that no peer counts on it.
    Announce,
    /// Enough remain ready, seen after the announcement: the check closes the gate.
    Leave,
}

/// A change of phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    pub from: Phase,
    pub to: Phase,
    pub cause: Cause,
    /// One line for people.
    pub detail: String,
    pub at: Instant,
}

impl Transition {
    /// Every (from, to, cause) that the machine can take, for those who count them; held by a test.
    pub const POSSIBLE: [(Phase, Phase, Cause); 15] = {
        use Cause::{
            AppRefused, AppRestarted, AppStopping, CheckFailed, ChecksPassed, DrainStarted, Reloaded,
        };
        use Phase::{Drained, Draining, Failing, Ready, Starting};
        [
            (Starting, Ready, ChecksPassed),
            (Starting, Ready, AppRestarted),
            (Starting, Ready, Reloaded),
            (Starting, Draining, DrainStarted),
            (Ready, Failing, CheckFailed),
            (Ready, Failing, AppRefused),
            (Ready, Failing, AppStopping),
            (Ready, Failing, Reloaded),
            (Ready, Draining, DrainStarted),
            (Failing, Ready, ChecksPassed),
            (Failing, Ready, AppRestarted),
            (Failing, Ready, Reloaded),
            (Failing, Starting, AppRestarted),
            (Failing, Draining, DrainStarted),
            (Draining, Drained, Cause::Drained),
        ]
    };
}
