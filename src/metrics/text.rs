//! The text of `/metrics`: the recorder's samples in a stable order, and what it does not hold.
//!
//! The recorder cannot forget a series and renders in the order of a hash map; both are mended here. Help
//! and type come from the table of families.

use std::collections::BTreeMap;

use super::families::{
    CHECK_GUARDED, FAMILIES, Family, GUARD_DECISIONS, Kind, REQUEST_DURATION, WARMUP_REQUESTS,
};
use super::handles::Check;
use super::{ListenerFigures, process};

/// Puts the text together. `durations` are the lines of the data plane's own histogram.
pub fn render(rendered: &str, checks: &BTreeMap<String, Check>, durations: Vec<String>) -> String {
    let mut samples = samples(rendered, checks);
    samples.insert(REQUEST_DURATION.name, durations);
    for (family, value) in process::figures() {
        samples.insert(family.name, vec![format!("{} {value}", family.name)]);
    }
    let mut text = String::with_capacity(rendered.len() + 8192);
    for family in FAMILIES {
        let (name, kind) = (family.name, family.kind.name());
        text.extend(["# HELP ", name, " ", family.help, "\n# TYPE ", name, " ", kind, "\n"]);
        text.extend(samples.get(name).into_iter().flatten().flat_map(|line| [line, "\n"]));
    }
    text
}

/// The recorder's sample lines by family, without those of checks that are gone.
fn samples<'a>(rendered: &'a str, checks: &BTreeMap<String, Check>) -> BTreeMap<&'a str, Vec<String>> {
    let mut families = BTreeMap::<_, Vec<_>>::new();
    let mut family = "";
    for line in rendered.lines().filter(|line| !line.is_empty()) {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            family = declared.split(' ').next().unwrap_or_default();
        } else if !line.starts_with('#') && current(line, checks) {
            families.entry(family).or_default().push(line.to_owned());
        }
    }
    for family in FAMILIES.iter().filter(|family| family.kind != Kind::Histogram) {
        // A histogram's lines come in the order of its buckets.
        if let Some(lines) = families.get_mut(family.name) {
            lines.sort_unstable();
        }
    }
    families
}

/// Whether a sample line belongs to no check, or to one as it is configured right now.
fn current(line: &str, checks: &BTreeMap<String, Check>) -> bool {
    let Some(name) = label(line, "check") else { return true };
    checks.get(name).is_some_and(|check| {
        let of_kind = label(line, "type").is_none_or(|kind| kind == check.kind);
        let mut quantiles = check.quantiles();
        let of_quantile = label(line, "quantile").is_none_or(|q| quantiles.any(|own| own.to_string() == q));
        let of_warmup = check.warmup.is_some() || !line.starts_with(WARMUP_REQUESTS.name);
        let of = |family: &Family| line.starts_with(family.name);
        let of_guard = check.guard.is_some() || !(of(&CHECK_GUARDED) || of(&GUARD_DECISIONS));
        of_kind && of_quantile && of_warmup && of_guard
    })
}

/// The value of a label in a sample line; names of checks and kinds hold nothing that is escaped.
fn label<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, labels) = line.split_once('{')?;
    let (_, value) = labels.split(',').filter_map(|pair| pair.split_once('=')).find(|(n, _)| *n == name)?;
    value.trim_start_matches('"').split('"').next()
}

/// The data plane counts into its own buckets, so its histogram is written by hand.
pub fn duration_lines(listener: &str, figures: &ListenerFigures<'_>) -> Vec<String> {
    let name = REQUEST_DURATION.name;
    let bounds = figures.duration_bounds.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
    let mut count = 0;
    let mut lines = Vec::with_capacity(figures.durations.len() + 2);
    for (bound, requests) in bounds.zip(figures.durations) {
        count += requests;
        lines.push(format!("{name}_bucket{{listener=\"{listener}\",le=\"{bound}\"}} {count}"));
    }
    lines.push(format!("{name}_sum{{listener=\"{listener}\"}} {}", figures.duration_sum.as_secs_f64()));
    lines.push(format!("{name}_count{{listener=\"{listener}\"}} {count}"));
    lines
}
