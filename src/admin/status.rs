//! `/status`: everything that is known, as JSON, for operators and for `readygate status`.
//!
//! Holds no secret: checks tell addresses and figures, never credentials.

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Map, Value, json};

use crate::drain;
use crate::gate::{CheckReport, Next, Transition, Verdict};
use crate::traffic::{ErrorKind, Totals};

use super::words::Seen;
use super::{State, guard};

/// The whole of `/status`.
pub fn status(state: &State, now: Instant) -> Value {
    super::routes::seen(state, now, |seen| page(state, seen))
}

fn page(state: &State, seen: &Seen<'_>) -> Value {
    let Seen { verdict, report, now, .. } = *seen;
    let mut reasons = report.reasons.clone();
    if let Verdict::Silent(silent) = verdict {
        reasons.insert(0, format!("data plane silent for {}", super::span(silent)));
    }
    let checks: Vec<_> = report.checks.iter().map(|check| self::check(state, seen, check)).collect();
    let apps: Vec<_> = report
        .apps
        .iter()
        .map(|app| json!({ "address": &*app.name, "refusing": app.refusing, "seen": app.seen }))
        .collect();
    let transitions: Vec<_> =
        report.transitions.iter().map(|(at, transition)| self::transition(*at, transition)).collect();
    json!({
        "phase": report.phase.name(),
        "ready": verdict == Verdict::Ready,
        "since": wall(report.since, now),
        "for_seconds": seconds(now.saturating_duration_since(report.since)),
        "arm": report.arm,
        "armed_at": wall(report.armed_at, now),
        "meaning": seen.meaning(),
        "advice": seen.advice(),
        "reasons": reasons,
        "guarded": guard::is_guarded(report),
        "checks": checks,
        "apps": apps,
        "app_restarts": report.restarts,
        "transitions": transitions,
        "traffic": state.traffic.totals().map(|(name, totals)| (name.to_string(), traffic(&totals)))
            .collect::<Map<_, _>>(),
        "drain": drain(state.drain.state(), now),
        "instance": &*state.instance,
        "build": { "version": state.build.version, "revision": state.build.revision },
    })
}

/// A transition, here and in `/events`.
pub fn transition(at: SystemTime, transition: &Transition) -> Value {
    json!({
        "at": rfc3339(at),
        "from": transition.from.name(),
        "to": transition.to.name(),
        "reason": transition.cause.name(),
        "detail": transition.detail,
    })
}

fn check(state: &State, seen: &Seen<'_>, check: &CheckReport) -> Value {
    let ((passed, count), now) = (check.row, seen.now);
    let plan = seen.plans.get(&check.name);
    let due = plan.and_then(|plan| match plan.next {
        Next::Due(at) => Some(at),
        Next::Waits(_) | Next::Runs { .. } | Next::Rests => None,
    });
    json!({
        "name": &*check.name,
        "kind": check.kind,
        "gates": check.role.name(),
        "after": plan.map_or(&[][..], |plan| &plan.after),
        "tests": plan.map(|plan| &*plan.tests),
        "state": check.standing.name(),
        "since": wall(check.since, now),
        "for_seconds": seconds(now.saturating_duration_since(check.since)),
        "passed_since_arm": check.passed,
        "blocks": check.blocks,
        "last": check.line,
        // Whether `last` is of a run that has not ended; the next two are of the one that ended last.
        "last_is_news": check.is_news,
        "last_duration_seconds": check.took.map(seconds),
        "last_at": check.at.map(|at| wall(at, now)),
        "saw": seen.saw(check),
        "next": plan.map(|plan| seen.next(&plan.next)),
        "next_in_seconds": due.map(|at| seconds(at.saturating_duration_since(now))),
        "then": seen.then(check),
        "time_to_pass_seconds": check.time_to_pass.map(seconds),
        "runs": check.runs,
        "in_a_row": { "passed": passed, "count": count },
        "success_threshold": check.success_threshold,
        "failure_threshold": check.failure_threshold,
        "evidence": (state.evidence)(&check.name),
        "guard": guard::status(check, (state.looks)(&check.name), |at| wall(at, now)),
    })
}

fn traffic(totals: &Totals) -> Value {
    let named = |names: &mut dyn Iterator<Item = &'static str>, counts: &[u64]| {
        names.zip(counts).map(|(name, count)| (name.to_owned(), json!(count))).collect::<Map<_, _>>()
    };
    json!({
        "requests": named(&mut ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter(), &totals.codes),
        "request_seconds": seconds(totals.duration_sum),
        "in_flight": totals.in_flight,
        "held": totals.held,
        "connections": totals.connections,
        "connections_total": totals.connections_total,
        "received_bytes": totals.received_bytes,
        "sent_bytes": totals.sent_bytes,
        "errors": named(&mut ErrorKind::ALL.into_iter().map(ErrorKind::name), &totals.errors),
    })
}

fn drain(state: drain::State, now: Instant) -> Value {
    let begun = |name: &str, since: Instant, by: drain::Call| {
        json!({
            "state": name,
            "since": wall(since, now),
            "for_seconds": seconds(now.saturating_duration_since(since)),
            "by": by.name(),
        })
    };
    match state {
        drain::State::Idle { .. } => json!({ "state": "idle" }),
        drain::State::AppHookAlone { since, .. } => begun("app_hook_alone", since, drain::Call::AppHook),
        drain::State::Draining { since, by } => begun("draining", since, by),
        drain::State::Drained(outcome) => json!({
            "state": "drained",
            "outcome": {
                "took_seconds": seconds(outcome.took),
                "last_request_seconds": seconds(outcome.last_request),
                "left": outcome.left,
            },
        }),
    }
}

fn seconds(time: Duration) -> f64 {
    // To the millisecond: people read it.
    time.as_millis() as f64 / 1000.0
}

/// The wall clock at a moment of the monotonic one; shifts if the wall clock is set.
fn wall(at: Instant, now: Instant) -> String {
    let ago = now.saturating_duration_since(at);
    rfc3339(SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH))
}

fn rfc3339(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}
