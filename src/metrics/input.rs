//! What callers hand in: plain types, since this module knows nothing of the rest of the crate.

use std::time::Duration;

/// The closed sets that series are made of at the start.
#[derive(Clone, Copy, Debug)]
pub struct Sets<'a> {
    pub version: &'a str,
    pub revision: &'a str,
    pub phases: &'a [&'static str],
    /// Every (from, to, reason) that can happen.
    pub transitions: &'a [(&'static str, &'static str, &'static str)],
}

/// A check, as its series name it.
#[derive(Clone, Copy, Debug)]
pub struct CheckSeries<'a> {
    pub name: &'a str,
    pub kind: &'a str,
    /// Quantiles (0 to 1) that a warm-up reports; empty for every other kind.
    pub warmup_quantiles: &'a [f64],
    /// Whether it has a guard.
    pub guarded: bool,
}

/// How a run of a check ended: a closed set, since it is a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunResult {
    Passed,
    /// Passed only because its budget was used up and the configuration says so.
    Exhausted,
    Failed,
    TimedOut,
    Panicked,
    /// The check could not run here: neither pass nor fail.
    Skipped,
}

impl RunResult {
    pub const ALL: [Self; 6] =
        [Self::Passed, Self::Exhausted, Self::Failed, Self::TimedOut, Self::Panicked, Self::Skipped];

    /// The name used as a label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed => "pass",
            Self::Exhausted => "exhausted",
            Self::Failed => "fail",
            Self::TimedOut => "timeout",
            Self::Panicked => "panic",
            Self::Skipped => "skip",
        }
    }
}

/// What a guard decided: a closed set, since it is a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardDecision {
    /// Too few peers would remain ready.
    Stay,
    /// Enough remain.
    Leave,
    /// Too few remain, but the fault is this pod's own.
    LeaveAlone,
}

impl GuardDecision {
    pub const ALL: [Self; 3] = [Self::Stay, Self::Leave, Self::LeaveAlone];

    /// The name used as a label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stay => "stay",
            Self::Leave => "leave",
            Self::LeaveAlone => "leave_alone",
        }
    }
}

/// What became of a changed configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadResult {
    Applied,
    Rejected,
}

impl ReloadResult {
    pub const ALL: [Self; 2] = [Self::Applied, Self::Rejected];

    /// The name used as a label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Applied => "ok",
            Self::Rejected => "rejected",
        }
    }
}

/// What became of a listener's changed certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateResult {
    Applied,
    Refused,
}

impl CertificateResult {
    pub const ALL: [Self; 2] = [Self::Applied, Self::Refused];

    /// The name used as a label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Refused => "refused",
        }
    }
}

/// The totals of one listener since the start.
#[derive(Clone, Copy, Debug)]
pub struct ListenerFigures<'a> {
    /// Answers by class: 1xx to 5xx.
    pub codes: [u64; 5],
    /// Every kind of error, with how often it came.
    pub errors: &'a [(&'static str, u64)],
    pub in_flight: u64,
    pub held: u64,
    pub connections: u64,
    pub connections_total: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    /// Upper bounds of `durations`, in seconds.
    pub duration_bounds: &'a [f64],
    /// Requests by duration: not cumulative, one more than bounds, the last one open.
    pub durations: &'a [u64],
    pub duration_sum: Duration,
}
