//! Rules that span keys. Each one notes every breach; none judges a key that could not be read.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::checks::Draft;
use super::error::{Report, unknown};
use super::place::Path;
use super::raw::{RawConfig, RawListener};
use super::units::Period;

/// Holds a configuration to every rule.
pub(super) fn judge(raw: &RawConfig, checks: &[Draft], report: &mut Report) {
    names(raw, checks, report);
    ports(raw, report);
    for (name, listener) in &raw.listeners {
        bounds(name, listener, report);
    }
    drain(raw, report);
    let stale_after = path(&["admin", "stale_after"]);
    if raw.admin.stale_after.0 < Duration::from_millis(500) {
        let message = format!(
            "{} is not allowed, expected at least 500ms: the data plane beats every 250ms",
            raw.admin.stale_after
        );
        blame(&stale_after, message, report);
    }
    log_level(&raw.log.level, report);
    for check in checks {
        pace(check, report);
    }
    order(checks, report);
}

/// Names are labels of metrics and parts of variables.
fn names(raw: &RawConfig, checks: &[Draft], report: &mut Report) {
    let valid = |name: &str| {
        let byte = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        !name.is_empty() && name.len() <= 63 && name.bytes().all(byte)
    };
    let listeners = raw.listeners.keys().map(|name| ("listeners", name));
    for (section, name) in listeners.chain(checks.iter().map(|check| ("checks", &check.name))) {
        if !valid(name) {
            let message = "not a name, expected at most 63 of the characters a-z, 0-9 and _";
            report.key(&path(&[section, name]), message);
        }
    }
    if raw.listeners.is_empty() {
        report.value(&path(&["listeners"]), "an empty map is not allowed, expected at least one listener");
    }
}

/// No two sockets on one port, and no listener that is its own app.
fn ports(raw: &RawConfig, report: &mut Report) {
    let mut taken: Vec<(Path, SocketAddr)> = Vec::new();
    let listeners = raw
        .listeners
        .iter()
        .map(|(name, listener)| (path(&["listeners", name, "listen"]), listener.listen.0));
    for (at, address) in listeners.chain([(path(&["admin", "listen"]), raw.admin.listen.0)]) {
        let overlaps = |other: &SocketAddr| {
            let any = other.ip().is_unspecified() || address.ip().is_unspecified();
            other.port() == address.port() && address.port() != 0 && (any || other.ip() == address.ip())
        };
        match taken.iter().find(|(_, other)| overlaps(other)) {
            Some((other, _)) if !report.is_blamed(other) => {
                let message =
                    format!("port {} is taken by {}, expected another", address.port(), other.join("."));
                blame(&at, message, report);
            }
            _ => taken.push((at, address)),
        }
    }
    for (name, RawListener { listen, upstream, .. }) in &raw.listeners {
        let host = upstream.0.host.as_str();
        let loopback = match host.parse::<IpAddr>() {
            Ok(ip) => ip.is_loopback() || ip == listen.0.ip(),
            Err(_) => host.eq_ignore_ascii_case("localhost"),
        };
        let local = listen.0.ip().is_unspecified()
            || listen.0.ip().is_loopback()
            || host == listen.0.ip().to_string();
        if loopback && local && listen.0.port() == upstream.0.port {
            let listen_at = path(&["listeners", name, "listen"]);
            if !report.is_blamed(&listen_at) {
                let message = format!(
                    "port {} is the listener's own: requests would go round in circles, expected the port of the app",
                    upstream.0.port
                );
                blame(&path(&["listeners", name, "upstream"]), message, report);
            }
        }
    }
}

fn bounds(name: &str, listener: &RawListener, report: &mut Report) {
    let limits = &listener.limits;
    let header_bytes = limits.header_bytes;
    // hyper refuses a smaller buffer.
    if !(8 << 10..=16 << 20).contains(&header_bytes.0) {
        let message = format!("{header_bytes} is not allowed, expected 8KiB to 16MiB");
        blame(&path(&["listeners", name, "limits", "header_bytes"]), message, report);
    }
    if limits.headers.get() > 10_000 {
        let message = format!("{} is not allowed, expected at most 10000", limits.headers);
        blame(&path(&["listeners", name, "limits", "headers"]), message, report);
    }
    // More than any kernel gives descriptors, and what a semaphore counts.
    for (key, number) in [("connections", limits.connections.get()), ("queue", limits.queue)]
        .into_iter()
        .chain(limits.in_flight.0.map(|number| ("in_flight", number.get())))
    {
        if number > 100_000_000 {
            let message = format!("{number} is not allowed, expected at most 100000000");
            blame(&path(&["listeners", name, "limits", key]), message, report);
        }
    }
}

fn drain(raw: &RawConfig, report: &mut Report) {
    let deadline = raw.drain.deadline;
    let deadline_at = path(&["drain", "deadline"]);
    for (key, period) in [("min", raw.drain.min), ("quiet", raw.drain.quiet)] {
        let at = path(&["drain", key]);
        if period.0 > deadline.0 && !report.is_blamed(&at) && !report.is_blamed(&deadline_at) {
            // Blame what was written: a short deadline alone breaks the default of the other.
            let message =
                format!("{period} is longer than drain.deadline ({deadline}), expected at most that");
            if report.places().order(&at).0 == usize::MAX
                && report.places().order(&deadline_at).0 != usize::MAX
            {
                report.value(
                    &deadline_at,
                    format!("{deadline} is less than drain.{key} ({period}), expected at least that"),
                );
            } else {
                report.value(&at, message);
            }
        }
    }
}

/// A typo would silently become the name of a module.
fn log_level(level: &str, report: &mut Report) {
    let at = path(&["log", "level"]);
    for directive in level.split(',').map(str::trim) {
        let name = directive.rsplit_once('=').map_or(directive, |(_, name)| name);
        if !LEVELS.contains(&name.to_ascii_lowercase().as_str()) {
            let shown = if directive.chars().count() > 40 { "a directive" } else { directive };
            blame(&at, unknown(&format!("{shown:?} is not a level"), name, LEVELS), report);
            return;
        }
    }
    if EnvFilter::try_new(level).is_err() {
        blame(&at, "not a filter, expected one such as info,readygate::proxy=debug".to_owned(), report);
    }
}

fn pace(check: &Draft, report: &mut Report) {
    let Draft { name, raw, .. } = check;
    let interval_at = path(&["checks", name, "interval"]);
    let timeout = raw.timeout.unwrap_or(raw.interval);
    if timeout.0 > raw.interval.0 && !report.is_blamed(&interval_at) {
        let message = format!(
            "{timeout} is longer than the check's interval ({}), expected at most that",
            raw.interval
        );
        blame(&path(&["checks", name, "timeout"]), message, report);
    }
    for (key, interval) in [("interval", Some(raw.interval)), ("interval_failing", raw.interval_failing)] {
        let too_short = |Period(interval): &Period| *interval < Duration::from_millis(10);
        if let Some(interval) = interval.filter(too_short) {
            let message = format!("{interval} is not allowed, expected at least 10ms");
            blame(&path(&["checks", name, key]), message, report);
            // The second would be the default that follows from the first.
            break;
        }
    }
}

/// `after` names checks that exist, and no check waits for itself.
fn order(checks: &[Draft], report: &mut Report) {
    let names: Vec<&str> = checks.iter().map(|check| check.name.as_str()).collect();
    for check in checks {
        for (index, after) in check.raw.after.iter().enumerate() {
            let at = path(&["checks", &check.name, "after", &index.to_string()]);
            if !names.contains(&after.as_str()) {
                let others: Vec<&str> = names.iter().copied().filter(|name| *name != check.name).collect();
                blame(&at, unknown(&format!("no check is called {after:?}"), after, &others), report);
            }
        }
    }
    let waits: BTreeMap<&str, &[String]> =
        checks.iter().map(|check| (check.name.as_str(), check.raw.after.as_slice())).collect();
    let mut done = Vec::new();
    for name in names {
        circles(name, &waits, &mut Vec::new(), &mut done, report);
    }
}

/// Walks what `name` waits for, depth first; `trail` leads to it.
fn circles<'a>(
    name: &'a str,
    waits: &BTreeMap<&'a str, &'a [String]>,
    trail: &mut Vec<&'a str>,
    done: &mut Vec<&'a str>,
    report: &mut Report,
) {
    if let Some(start) = trail.iter().position(|seen| *seen == name) {
        let circle: Vec<&str> = trail[start..].iter().copied().chain([name]).collect();
        let message = format!("a circle, expected an order: {}", circle.join(" after "));
        let at = path(&["checks", name, "after"]);
        blame(&at, message, report);
        return;
    }
    if done.contains(&name) {
        return;
    }
    trail.push(name);
    for after in waits.get(name).copied().unwrap_or_default() {
        circles(after, waits, trail, done, report);
    }
    trail.pop();
    done.push(name);
}

fn blame(at: &[String], message: String, report: &mut Report) {
    if !report.is_blamed(at) {
        report.value(at, message);
    }
}

fn path(keys: &[&str]) -> Path {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace", "off"];
