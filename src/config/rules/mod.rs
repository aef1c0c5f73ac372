//! Rules that span keys. Each one notes every breach; none judges a key that could not be read.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::Value;
use tracing_subscriber::filter::Targets;

use super::checks::Draft;
use super::error::{Report, unknown};
use super::fit::shown;
use super::place::Path;
use super::raw::RawConfig;
use super::tree::Tree;
use super::units::Period;

mod guards;
mod listeners;

/// Holds a configuration to every rule.
pub(super) fn judge(raw: &RawConfig, checks: &[Draft], tree: &Tree, report: &mut Report) {
    let mut judge = Judge { tree, report };
    judge.names(raw, checks);
    judge.sockets(raw);
    judge.own_ports(raw);
    for (name, listener) in &raw.listeners {
        judge.limits(name, listener);
        judge.upstream_tls(name, listener);
        judge.bytes(name, listener);
    }
    let stale_after = raw.admin.stale_after;
    if stale_after.0 < Duration::from_millis(500) {
        let rule = "is not allowed, expected at least 500ms: the data plane beats every 250ms";
        judge.breach(&path(&["admin", "stale_after"]), &stale_after, rule);
    }
    judge.drain(raw);
    judge.log_level(&raw.log.level);
    for check in checks {
        judge.pace(check);
        judge.guard(raw, check);
    }
    if checks.len() <= MOST_CHECKS {
        judge.order(checks);
    } else {
        judge
            .report
            .value(&path(&["checks"]), format!("{} checks, expected at most {MOST_CHECKS}", checks.len()));
    }
}

/// Where breaches go, and what may be shown of a value.
struct Judge<'a> {
    tree: &'a Tree,
    report: &'a mut Report,
}

impl Judge<'_> {
    /// Notes that `value`, which stands at `at`, breaks `rule`.
    fn breach(&mut self, at: &[String], value: &dyn fmt::Display, rule: &str) {
        if !self.report.is_blamed(at) {
            self.report.value(at, format!("{} {rule}", self.show(at, value)));
        }
    }

    /// A value for a message: what the user wrote, if that stands for something secret.
    fn show(&self, at: &[String], value: &dyn fmt::Display) -> String {
        match self.tree.written(at) {
            Some(written) if self.tree.is_secret(at) => shown(written),
            _ => value.to_string(),
        }
    }

    /// Names are labels of metrics and parts of variables.
    fn names(&mut self, raw: &RawConfig, checks: &[Draft]) {
        let valid = |name: &str| {
            let byte = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            !name.is_empty() && name.len() <= 63 && name.bytes().all(byte)
        };
        let listeners = raw.listeners.keys().map(|name| ("listeners", name));
        for (section, name) in listeners.chain(checks.iter().map(|check| ("checks", &check.name))) {
            if !valid(name) {
                let message = "not a name, expected at most 63 of the characters a-z, 0-9 and _";
                self.report.key(&path(&[section, name]), message);
            }
        }
        if raw.listeners.is_empty() {
            self.breach(
                &path(&["listeners"]),
                &"an empty map",
                "is not allowed, expected at least one listener",
            );
        }
    }

    fn drain(&mut self, raw: &RawConfig) {
        let deadline = raw.drain.deadline;
        let deadline_at = path(&["drain", "deadline"]);
        for (key, period) in [("min", raw.drain.min), ("quiet", raw.drain.quiet)] {
            let at = path(&["drain", key]);
            if period.0 <= deadline.0 || self.report.is_blamed(&at) || self.report.is_blamed(&deadline_at) {
                continue;
            }
            let written = |at: &[String]| self.report.places().is_written(at);
            // A short deadline alone breaks the default of the other: blame what was written.
            if written(&deadline_at) && !written(&at) {
                let rule = format!("is less than drain.{key} ({period}), expected at least that");
                self.breach(&deadline_at, &deadline, &rule);
            } else {
                let deadline = self.show(&deadline_at, &deadline);
                self.breach(
                    &at,
                    &period,
                    &format!("is longer than drain.deadline ({deadline}), expected at most that"),
                );
            }
        }
    }

    /// A filter takes a typo for the name of a module.
    fn log_level(&mut self, level: &str) {
        let at = path(&["log", "level"]);
        for directive in level.split(',').map(str::trim) {
            let name = directive.rsplit_once('=').map_or(directive, |(_, name)| name);
            if !LEVELS.contains(&name.to_ascii_lowercase().as_str()) {
                let shown = shown(&Value::from(directive));
                return self.breach(&at, &shown, &unknown("is not a level", name, LEVELS));
            }
        }
        if level.parse::<Targets>().is_err() {
            let shown = shown(&Value::from(level));
            self.breach(&at, &shown, "is not a filter, expected one such as info,readygate::proxy=debug");
        }
    }

    fn pace(&mut self, check: &Draft) {
        let Draft { name, raw, .. } = check;
        let at = |key| path(&["checks", name, key]);
        let timeout = raw.timeout.unwrap_or(raw.interval);
        if timeout.0 > raw.interval.0 && !self.report.is_blamed(&at("interval")) {
            let interval = self.show(&at("interval"), &raw.interval);
            let rule = format!("is longer than the check's interval ({interval}), expected at most that");
            self.breach(&at("timeout"), &timeout, &rule);
        }
        let intervals = [("interval", Some(raw.interval)), ("interval_failing", raw.interval_failing)];
        let too_short = |Period(interval): &Period| *interval < Duration::from_millis(10);
        // The first only: the second may be the default that follows from it.
        let short =
            intervals.into_iter().find_map(|(key, interval)| Some((key, interval.filter(too_short)?)));
        if let Some((key, interval)) = short {
            self.breach(&at(key), &interval, "is not allowed, expected at least 10ms");
        }
    }

    /// `after` names checks that exist, and no check waits for itself.
    fn order(&mut self, checks: &[Draft]) {
        let names: Vec<&str> = checks.iter().map(|check| check.name.as_str()).collect();
        for check in checks {
            for (index, after) in check.raw.after.iter().enumerate() {
                if !names.contains(&after.as_str()) {
                    let others: Vec<&str> =
                        names.iter().copied().filter(|name| *name != check.name).collect();
                    let at = path(&["checks", &check.name, "after", &index.to_string()]);
                    self.breach(
                        &at,
                        &shown(&Value::from(after.as_str())),
                        &unknown("is not a check", after, &others),
                    );
                }
            }
        }
        let waits: BTreeMap<&str, &[String]> =
            checks.iter().map(|check| (check.name.as_str(), check.raw.after.as_slice())).collect();
        let mut done = Vec::new();
        for name in names {
            self.circles(name, &waits, &mut Vec::new(), &mut done);
        }
    }

    /// Walks what `name` waits for, depth first; `trail` leads to it.
    fn circles<'n>(
        &mut self,
        name: &'n str,
        waits: &BTreeMap<&'n str, &'n [String]>,
        trail: &mut Vec<&'n str>,
        done: &mut Vec<&'n str>,
    ) {
        if let Some(start) = trail.iter().position(|seen| *seen == name) {
            let circle: Vec<&str> = trail[start..].iter().copied().chain([name]).collect();
            let circle = circle.join(" after ");
            return self.breach(&path(&["checks", name, "after"]), &circle, "is a circle, expected an order");
        }
        if done.contains(&name) {
            return;
        }
        trail.push(name);
        for after in waits.get(name).copied().unwrap_or_default() {
            self.circles(after, waits, trail, done);
        }
        trail.pop();
        done.push(name);
    }
}

fn path(keys: &[&str]) -> Path {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace", "off"];
/// Bounds the depth of [`Judge::circles`].
const MOST_CHECKS: usize = 256;
