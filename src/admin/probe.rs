//! The words of `/ready` and its kin: a stranger who sees only the body must know what to do next.
//!
//! Every answer is text of whole lines, at most [`MAX_BODY_BYTES`] long: the kubelet reads no more.

use std::time::{Duration, Instant};

use crate::gate::{CheckReport, Phase, Report, Role, Standing, Verdict};

/// A probe's answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub ready: bool,
    pub body: String,
}

/// What the caller wants to know of the verdict.
#[derive(Debug, Default)]
pub struct Question<'a> {
    /// Every check, as kube-apiserver lists them.
    pub verbose: bool,
    /// Checks that shall not count.
    pub exclude: Vec<&'a str>,
}

/// Answers with the verdict and its reasons.
pub fn verdict(verdict: Verdict, report: &Report, question: &Question<'_>, now: Instant) -> Answer {
    let excluded = |check: &CheckReport| question.exclude.contains(&&*check.name);
    let blocking = report.checks.iter().filter(|check| check.blocks && !excluded(check));
    let general = general(report);
    let ready = match verdict {
        Verdict::Ready => true,
        Verdict::Silent(_) => false,
        // Nothing but excluded checks keeps the gate closed.
        Verdict::NotReady => {
            !report.ready
                && !question.exclude.is_empty()
                && general.is_empty()
                && blocking.clone().next().is_none()
        }
    };
    let mut lines = Vec::new();
    let last = if question.verbose {
        if let Verdict::Silent(silent) = verdict {
            lines.push(format!("[-]data plane silent for {}", span(silent)));
        } else {
            lines.push("[+]data plane ok".to_owned());
        }
        for app in report.apps.iter().filter(|app| app.seen && !app.refusing) {
            lines.push(format!("[+]app accepts connections on {}", app.name));
        }
        lines.extend(general.iter().map(|reason| format!("[-]{reason}")));
        lines.extend(report.checks.iter().map(|check| {
            if excluded(check) { format!("[+]{} excluded: ok", check.name) } else { listed(check, now) }
        }));
        lines.extend(unknown(report, &question.exclude));
        format!("readyz check {}", if ready { "passed" } else { "failed" })
    } else if ready {
        return Answer { ready, body: READY.to_owned() };
    } else {
        lines.push(headline(verdict, report, now));
        lines.extend(general.iter().cloned());
        lines.extend(blocking.map(|check| format!("{}: {}", check.name, said(check, now))));
        lines.extend(unknown(report, &question.exclude));
        "more: GET /ready?verbose lists every check, GET /status has the history".to_owned()
    };
    Answer { ready, body: bounded(lines, &last) }
}

/// Tells balancers no, and why.
pub fn for_balancers(silent: Verdict, report: &Report, now: Instant) -> Answer {
    let no = if let Verdict::Silent(_) = silent { silent } else { Verdict::NotReady };
    verdict(no, report, &Question::default(), now)
}

/// Answers for one check; none if no check has this name.
pub fn one(report: &Report, name: &str, now: Instant) -> Option<Answer> {
    let check = report.checks.iter().find(|check| &*check.name == name)?;
    Some(Answer { ready: passes(check), body: bounded(vec![listed(check, now)], "") })
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

/// Whether a check passes as far as readiness can ask: a startup check once since the last arm, one that fails while
/// its guard keeps the pod ready.
pub fn passes(check: &CheckReport) -> bool {
    match check.role {
        Role::Startup => check.passed,
        Role::Always | Role::Never => check.standing == Standing::Passing || check.excuse.is_some(),
    }
}

/// The body of the usual yes.
pub const READY: &str = "ready\n";

/// The kubelet reads 10 240 bytes.
pub const MAX_BODY_BYTES: usize = 10_000;
const MAX_LINE_BYTES: usize = 600;

fn headline(verdict: Verdict, report: &Report, now: Instant) -> String {
    if let Verdict::Silent(silent) = verdict {
        let silent = span(silent);
        return format!(
            "not ready: data plane silent for {silent}: a worker is stuck, or the container gets no CPU"
        );
    }
    let since = span(now.saturating_duration_since(report.since));
    // The word of the gate may be a moment ahead of this report, or behind it.
    let phase = if report.ready && report.phase == Phase::Ready { "changing" } else { report.phase.name() };
    format!("not ready: {phase} for {since}")
}

/// The reasons that are no check's: the report has one line for each check that blocks, after the others.
fn general(report: &Report) -> &[String] {
    let blocking = report.checks.iter().filter(|check| check.blocks).count();
    &report.reasons[..report.reasons.len().saturating_sub(blocking)]
}

/// A check as kube-apiserver lists it.
fn listed(check: &CheckReport, now: Instant) -> String {
    let sign = if passes(check) { '+' } else { '-' };
    let aside = match check.role {
        Role::Never => ", reported only",
        Role::Startup if !check.passed && !check.blocks => ", counts from the next arm on",
        Role::Startup | Role::Always => "",
    };
    let guard = match &check.excuse {
        Some(excuse) if excuse.guarded => "guarded: ",
        Some(_) => "fails, asks the peers before it counts: ",
        None => "",
    };
    format!("[{sign}]{} {guard}{}{aside}", check.name, said(check, now))
}

/// What a check said last, and how often and when.
fn said(check: &CheckReport, now: Instant) -> String {
    let mut line = if check.line.is_empty() {
        match (check.runs, passes(check)) {
            (_, true) => "ok".to_owned(),
            (0, false) => {
                "has not run yet: it waits for its turn, or for the checks it comes after".to_owned()
            }
            (_, false) => "has not run since the gate was armed again".to_owned(),
        }
    } else {
        check.line.clone()
    };
    if passes(check) && check.row.0 {
        return line;
    }
    if let Some(excuse) = check.excuse.as_ref().filter(|excuse| !excuse.line.is_empty()) {
        line = format!("{line}; {}", excuse.line);
    }
    let mut facts = Vec::new();
    if check.runs > 0 {
        facts.push(format!("run {}", check.runs));
    }
    match (check.row, check.standing) {
        ((_, 0), _) => {}
        ((true, passes), _) => facts.push(format!("{passes} of {} passes in a row", check.success_threshold)),
        ((false, failures), Standing::Failing) => facts.push(format!("{failures} failed in a row")),
        ((false, failures), _) => {
            facts.push(format!("{failures} of {} failures in a row", check.failure_threshold));
        }
    }
    if let Some(at) = check.at {
        facts.push(format!("{} ago", span(now.saturating_duration_since(at))));
    }
    if !facts.is_empty() {
        line = format!("{line} ({})", facts.join(", "));
    }
    line
}

fn unknown<'a>(report: &'a Report, names: &'a [&'a str]) -> impl Iterator<Item = String> + 'a {
    let known = |name: &str| report.checks.iter().any(|check| &*check.name == name);
    names.iter().filter(move |name| !known(name)).map(|name| {
        let name: String = name.chars().take(64).collect();
        format!("warn: cannot exclude {name:?}: no check has this name")
    })
}

/// Joins lines, cutting long ones, and as many of the last as are too many.
fn bounded(lines: Vec<String>, last: &str) -> String {
    let mut body = String::new();
    let room = MAX_BODY_BYTES - last.len() - "… and 18446744073709551615 more lines\n".len() - 1;
    let count = lines.len();
    for (at, line) in lines.into_iter().enumerate() {
        let line = clean(&line);
        if body.len() + line.len() + 1 > room {
            body.push_str(&format!("… and {} more lines\n", count - at));
            break;
        }
        body.push_str(&line);
        body.push('\n');
    }
    if !last.is_empty() {
        body.push_str(last);
        body.push('\n');
    }
    body
}

/// One line without control characters, of bounded length.
fn clean(line: &str) -> String {
    let mut clean = String::with_capacity(line.len().min(MAX_LINE_BYTES));
    for c in line.chars() {
        if clean.len() + c.len_utf8() > MAX_LINE_BYTES - '…'.len_utf8() {
            clean.push('…');
            break;
        }
        clean.push(if c.is_control() { ' ' } else { c });
    }
    clean
}
