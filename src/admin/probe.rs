//! The words of `/ready` and its kin: a stranger who sees only the body must know what to do next.
//!
//! Every answer is text of whole lines, at most [`MAX_BODY_BYTES`] long: the kubelet reads no more.

use crate::gate::{CheckReport, Phase, Report, Role, Verdict};

use super::words::{SILENT_ADVICE, Seen, passes, span};

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
pub fn verdict(seen: &Seen<'_>, question: &Question<'_>) -> Answer {
    let (verdict, report) = (seen.verdict, seen.report);
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
            if excluded(check) { format!("[+]{} excluded: ok", check.name) } else { listed(seen, check) }
        }));
        lines.extend(unknown(report, &question.exclude));
        format!("readyz check {}", if ready { "passed" } else { "failed" })
    } else if ready {
        return Answer { ready, body: READY.to_owned() };
    } else {
        lines.push(headline(seen));
        lines.extend(general.iter().cloned());
        lines.extend(blocking.map(|check| seen.reason(check)));
        lines.extend(unknown(report, &question.exclude));
        MORE.to_owned()
    };
    Answer { ready, body: bounded(lines, &last) }
}

/// Tells balancers no, and why.
pub fn for_balancers(seen: &Seen<'_>) -> Answer {
    let no = if let Verdict::Silent(_) = seen.verdict { seen.verdict } else { Verdict::NotReady };
    verdict(&Seen { verdict: no, ..*seen }, &Question::default())
}

/// Answers for one check; none if no check has this name.
pub fn one(seen: &Seen<'_>, name: &str) -> Option<Answer> {
    let check = seen.report.checks.iter().find(|check| &*check.name == name)?;
    Some(Answer { ready: passes(check), body: bounded(vec![listed(seen, check)], "") })
}

/// The body of the usual yes.
pub const READY: &str = "ready\n";

/// The kubelet reads 10 240 bytes.
pub const MAX_BODY_BYTES: usize = 10_000;
const MAX_LINE_BYTES: usize = 600;

/// Where a stranger goes on.
const MORE: &str = "more: `readygate explain` in this container says it in words, GET /ready?verbose lists every check, \
                    GET /status has the history";

fn headline(seen: &Seen<'_>) -> String {
    let report = seen.report;
    if let Verdict::Silent(silent) = seen.verdict {
        let silent = span(silent);
        return format!("not ready: data plane silent for {silent}: {}; {SILENT_ADVICE}", seen.meaning());
    }
    let since = seen.ago(report.since);
    // The word of the gate may be a moment ahead of this report, or behind it.
    let phase = if report.ready && report.phase == Phase::Ready { "changing" } else { report.phase.name() };
    let by = seen.drained_by.map_or(String::new(), |by| format!(", by {by}"));
    format!("not ready: {phase} for {since}{by}")
}

/// The reasons that are no check's: the report has one line for each check that blocks, after the others.
fn general(report: &Report) -> &[String] {
    let blocking = report.checks.iter().filter(|check| check.blocks).count();
    &report.reasons[..report.reasons.len().saturating_sub(blocking)]
}

/// A check as kube-apiserver lists it.
fn listed(seen: &Seen<'_>, check: &CheckReport) -> String {
    let sign = if passes(check) { '+' } else { '-' };
    let aside = match check.role {
        Role::Never => ", reported only",
        Role::Startup if !check.passed && !check.blocks => ", counts from the next arm on",
        Role::Startup | Role::Always => "",
    };
    format!("[{sign}]{} {}{aside}", check.name, seen.said(check))
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
