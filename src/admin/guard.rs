//! `/guard/NAME`: what this pod tells a peer that asks before it leaves.

use std::time::Instant;

use serde_json::{Value, json};

use crate::gate::{CheckReport, Excuse, GateView, Phase, Report, Standing, Verdict};
use crate::guard::{Answer, CheckAnswer, State};

/// The answer about the check `name`. State and announcement come from one snapshot of the gate.
pub fn answer(view: &GateView, instance: &str, name: &str, now: Instant) -> Answer {
    let report = view.report();
    let silent = matches!(view.verdict(now), Verdict::Silent(_));
    let check = report.checks.iter().find(|check| &*check.name == name);
    Answer {
        instance: instance.to_owned(),
        phase: report.phase.name().to_owned(),
        // Not while it drains, even where `drain.ready: hold` holds what `/ready` says.
        ready: report.ready && report.phase == Phase::Ready && !silent,
        leaving: report.leaving,
        gone: matches!(report.phase, Phase::Draining | Phase::Drained),
        check: check.map(|check| of(check, now)),
    }
}

fn of(check: &CheckReport, now: Instant) -> CheckAnswer {
    let ran = check.row.1 > 0;
    let ended = check.at.filter(|_| ran).map(|at| now.saturating_duration_since(at));
    CheckAnswer {
        state: match check.standing {
            Standing::Unknown => State::Unknown,
            Standing::Passing => State::Passing,
            Standing::Failing => State::Failing,
        },
        last_passed: ran.then_some(check.row.0),
        last_began_seconds_ago: ended.map(|ended| (ended + check.took.unwrap_or_default()).as_secs_f64()),
    }
}

/// The guard of a check, for `/status`; null if it has none. `look` is what it saw last.
pub fn status(check: &CheckReport, look: Option<Value>, since: impl Fn(Instant) -> String) -> Value {
    if !check.guarded {
        return Value::Null;
    }
    json!({
        "state": word(check.excuse.as_ref()),
        "since": check.excuse.as_ref().map(|excuse| since(excuse.since)),
        "last": check.excuse.as_ref().map(|excuse| &excuse.line),
        "look": look,
    })
}

/// What the guard does: a word for `/status`.
fn word(excuse: Option<&Excuse>) -> &'static str {
    match excuse {
        None => "idle",
        Some(excuse) if excuse.leaving => "leaving",
        Some(excuse) if excuse.guarded => "guarded",
        Some(_) => "asking",
    }
}

/// Whether a guard keeps this pod ready though its check fails, and the peers were asked.
pub fn is_guarded(report: &Report) -> bool {
    report.checks.iter().any(|check| check.excuse.as_ref().is_some_and(|excuse| excuse.guarded))
}
