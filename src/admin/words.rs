//! What is known of a check and of the pod, in sentences: what it said, what it does next, what will come of that.
//!
//! Derived anew for each answer from the gate's report and the plans of the checks, and stored nowhere. Pure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::gate::{CheckReport, Next, Phase, Plan, Report, Role, Standing, Verdict};

/// What an answer is derived from.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    pub verdict: Verdict,
    pub report: &'a Report,
    pub plans: &'a HashMap<Arc<str>, Plan>,
    /// Who began the drain, while it goes on.
    pub drained_by: Option<&'static str>,
    pub now: Instant,
}

impl Seen<'_> {
    /// What a check said last, and how often, when, and when again.
    pub fn said(&self, check: &CheckReport) -> String {
        let next = self.plans.get(&check.name).map(|plan| &plan.next);
        if let Some(next @ Next::Waits(_)) = next {
            return self.next(next);
        }
        let line = self.line(check);
        if passes(check) && check.row.0 {
            return line;
        }
        let facts = self.facts(check).join(", ");
        if facts.is_empty() { line } else { format!("{line} ({facts})") }
    }

    /// What the last run of a check saw, when it ended, and how long it took; or what the run that goes on says.
    pub fn saw(&self, check: &CheckReport) -> String {
        let mut facts = Vec::new();
        if let Some((at, took)) =
            check.at.zip(check.took).filter(|_| !check.is_news && !check.line.is_empty())
        {
            facts.extend([format!("{} ago", self.ago(at)), format!("took {}", span(took))]);
        }
        facts.extend(Self::counted(check));
        if facts.is_empty() {
            self.line(check)
        } else {
            format!("{} ({})", self.line(check), facts.join(", "))
        }
    }

    /// What a check saw, on a line that is never empty.
    fn line(&self, check: &CheckReport) -> String {
        let next = self.plans.get(&check.name).map(|plan| &plan.next);
        // While it waits, it says for what; `next` tells that.
        if !check.line.is_empty() && !matches!(next, Some(Next::Waits(_))) {
            return check.line.clone();
        }
        let line = match (check.runs, passes(check)) {
            (_, true) => "ok",
            (_, false) if matches!(next, Some(Next::Runs { .. })) => "has no result yet",
            (0, false) => "has not run yet",
            (_, false) => "has not run since the gate was armed again",
        };
        line.to_owned()
    }

    /// How often it ran, results in a row, when the last came, when the next is due.
    fn facts(&self, check: &CheckReport) -> Vec<String> {
        let mut facts = Self::counted(check);
        // News is of the run that goes on.
        if let Some(at) = check.at.filter(|_| !check.is_news && check.runs > 0) {
            facts.push(format!("{} ago", self.ago(at)));
        }
        match self.plans.get(&check.name).map(|plan| &plan.next) {
            Some(Next::Due(at)) if check.runs > 0 => facts.push(format!("next {}", self.due(*at))),
            Some(next @ Next::Runs { .. }) => facts.push(self.next(next)),
            _ => {}
        }
        facts
    }

    /// How often it ran, and results in a row.
    fn counted(check: &CheckReport) -> Vec<String> {
        let mut facts = Vec::new();
        if check.runs > 0 {
            facts.push(format!("run {}", check.runs));
        }
        match (check.row, check.standing) {
            ((_, 0), _) | ((true, _), Standing::Passing) => {}
            ((true, passes), _) => {
                facts.push(format!("{passes} of {} passes in a row", check.success_threshold));
            }
            ((false, failures), Standing::Failing) => facts.push(format!("{failures} failed in a row")),
            ((false, failures), _) => {
                facts.push(format!("{failures} of {} failures in a row", check.failure_threshold));
            }
        }
        facts
    }

    /// When a check runs next, and why not yet.
    pub fn next(&self, next: &Next) -> String {
        match next {
            Next::Waits(names) => {
                let awaited: Vec<String> = names.iter().map(|name| self.awaited(name)).collect();
                let they = if names.len() == 1 { "that has" } else { "all of them have" };
                format!("waits for {}, and runs once {they} passed", awaited.join(", "))
            }
            Next::Runs { since, at_most } => {
                format!("runs now, for {} of at most {}", self.ago(*since), span(*at_most))
            }
            Next::Due(at) => self.due(*at),
            Next::Rests => "rests until the gate is armed again, which a restart of the app does".to_owned(),
        }
    }

    fn due(&self, at: Instant) -> String {
        match at.saturating_duration_since(self.now) {
            Duration::ZERO => "due now".to_owned(),
            left => format!("in {}", span(left)),
        }
    }

    /// A check that another one waits for; with what it says if no line of its own tells.
    fn awaited(&self, name: &str) -> String {
        let check = self.report.checks.iter().find(|check| &*check.name == name);
        match check {
            Some(check) if !check.blocks && !check.line.is_empty() => format!("{name} ({})", check.line),
            _ => name.to_owned(),
        }
    }

    /// What the next results will do to the pod.
    pub fn then(&self, check: &CheckReport) -> String {
        let rests = self.plans.get(&check.name).is_some_and(|plan| plan.next == Next::Rests);
        let failed = if check.row.0 { 0 } else { check.row.1 };
        let nothing = match check.role {
            _ if matches!(self.report.phase, Phase::Draining | Phase::Drained) => {
                "the pod is leaving, and no check changes that"
            }
            Role::Never => "it does not gate the pod",
            Role::Startup | Role::Always if check.blocks => return needed(check),
            Role::Startup if !check.passed => {
                "it was added or changed while the pod was ready, and counts from the next arm on"
            }
            Role::Startup if check.standing == Standing::Failing => {
                "it fails now, but has passed since the gate was armed; it must pass again when the app restarts"
            }
            Role::Always if check.standing == Standing::Failing => {
                "it fails, and the pod stays ready all the same"
            }
            Role::Always if !rests => {
                let left =
                    times(check.failure_threshold.saturating_sub(failed).max(1), failed > 0, "failure");
                let one = left.starts_with("1 ");
                return match (self.report.ready, one) {
                    (true, true) => format!("{left} in a row makes the pod not ready"),
                    (true, false) => format!("{left} in a row make the pod not ready"),
                    (false, true) => format!("{left} in a row is one more reason not to be ready"),
                    (false, false) => format!("{left} in a row are one more reason not to be ready"),
                };
            }
            Role::Startup | Role::Always => "it has passed, and must pass again when the app restarts",
        };
        format!("nothing: {nothing}")
    }

    /// Why a check keeps the gate closed, and what would open it.
    pub fn reason(&self, check: &CheckReport) -> String {
        let plan = self.plans.get(&check.name);
        let (name, said) = (&check.name, self.said(check));
        if plan.is_some_and(|plan| matches!(plan.next, Next::Waits(_))) {
            // The checks that it waits for say the rest.
            return format!("{name}: {said}");
        }
        let tests = plan.map_or(String::new(), |plan| format!(". It {}", cut(&plan.tests, LONGEST_TESTS)));
        format!("{name}: {}{tests}; {}", cut(&said, LONGEST_SAID), self.then(check))
    }

    /// What the verdict means.
    pub fn meaning(&self) -> &'static str {
        match (self.verdict, self.report.phase) {
            (Verdict::Silent(_), _) => {
                "a worker thread gives no sign of life: it is stuck, or the container gets no CPU"
            }
            (_, Phase::Starting) => "what gates the start has not all passed since the gate was armed",
            (_, Phase::Ready) => "the app accepts connections and every check that counts passes",
            (_, Phase::Failing) => "the pod could serve, and now something that counts at any time says no",
            (Verdict::Ready, Phase::Draining | Phase::Drained) => {
                "the pod is leaving; /ready goes on saying yes, since drain.ready is hold, and /lb says no"
            }
            (_, Phase::Draining) => "the pod is leaving; requests are still served",
            (_, Phase::Drained) => "the pod has left: nothing is left to serve",
        }
    }

    /// What a person should do about it.
    pub fn advice(&self) -> &'static str {
        match (self.verdict, self.report.phase) {
            (Verdict::Silent(_), _) => SILENT_ADVICE,
            (_, Phase::Ready) => "nothing",
            (_, Phase::Starting | Phase::Failing) => {
                "mend what the reasons name; everything is tried again by itself, and the pod then becomes ready by itself"
            }
            (_, Phase::Draining | Phase::Drained) => {
                "nothing if the pod is being deleted; if not, replace it: a pod that leaves never becomes ready again"
            }
        }
    }

    /// How long ago.
    pub fn ago(&self, at: Instant) -> String {
        span(self.now.saturating_duration_since(at))
    }
}

/// Whether a check passes as far as readiness can ask: a startup check once since the last arm.
pub fn passes(check: &CheckReport) -> bool {
    match check.role {
        Role::Startup => check.passed,
        Role::Always | Role::Never => check.standing == Standing::Passing,
    }
}

/// A length of time for people: `80ms`, `3.2s`, `45s`, `5m10s`, `3h20m`, `12d4h`.
pub fn span(time: Duration) -> String {
    let (millis, seconds) = (time.as_millis(), time.as_secs());
    match seconds {
        0 => format!("{millis}ms"),
        1..10 => format!("{}.{}s", seconds, millis % 1000 / 100),
        10..120 => format!("{seconds}s"),
        120..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// What to do about workers that give no sign of life.
pub const SILENT_ADVICE: &str = "look at the sidecar's CPU limit and throttling, and at its log; restart its container \
                                 if it stays so";

/// How much of 600 bytes the parts of a reason may have.
const LONGEST_SAID: usize = 280;
const LONGEST_TESTS: usize = 200;

fn needed(check: &CheckReport) -> String {
    if check.success_threshold == 1 {
        return "it must pass once before the pod can be ready".to_owned();
    }
    let passed = if check.row.0 { check.row.1 } else { 0 };
    let left = check.success_threshold.saturating_sub(passed).max(1);
    let are = if left == 1 { "is" } else { "are" };
    format!("{} in a row {are} needed before the pod can be ready", times(left, passed > 0, "pass"))
}

/// `1 more failure`, `2 passes`.
fn times(count: u32, more: bool, what: &str) -> String {
    let ending = match (count, what) {
        (1, _) => "",
        (_, "pass") => "es",
        _ => "s",
    };
    format!("{count} {}{what}{ending}", if more { "more " } else { "" })
}

/// At most that many bytes, with a mark where something is missing.
fn cut(text: &str, longest: usize) -> String {
    if text.len() <= longest {
        return text.to_owned();
    }
    let end = (0..=longest - '…'.len_utf8()).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &text[..end])
}

#[cfg(test)]
#[path = "words_tests.rs"]
mod tests;
