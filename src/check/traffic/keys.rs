//! The keys of `traffic`.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::check::values::Expect;
use crate::check::warmup::Listed;
use crate::check::{Context, own};
use crate::config::units::Period;
use crate::config::{KeyError, Listener, Own};
use crate::traffic::{AppTotals, Ignored};

/// The keys of `traffic`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    /// Name of the listener whose answers are judged; may be left out if there is only one.
    pub listener: Option<String>,
    /// The answers of the last so long are judged.
    #[serde(default = "window")]
    pub window: Period,
    /// With fewer answers than this, nothing is said.
    #[serde(default = "min_requests")]
    pub min_requests: u64,
    /// The share of errors may be this; more must be sure, not only likely (three standard deviations). Who left for it is
    /// on trial until the share is at most half of this.
    #[serde(default = "max_error_ratio")]
    pub max_error_ratio: f64,
    /// How slow answers may be.
    pub max_latency: Option<MaxLatency>,
    /// Statuses that are errors: a code, a range, or a list of them. Answers that the app did not give (no connection,
    /// a timeout) always are.
    #[serde(default = "count")]
    #[schemars(default = "count_schema")]
    pub count: Expect,
    /// Paths whose answers say nothing about this pod, as those that only pass on the failure of a dependency. A path
    /// that ends in * means all that begin so.
    #[serde(default)]
    pub ignore_paths: Vec<String>,
    /// How long the pod stays out.
    #[serde(default)]
    pub hold: HoldKeys,
    /// Requests that the app must answer before it comes back, as those of a warm-up; none: it comes back when the
    /// hold is over.
    #[serde(default)]
    #[schemars(with = "Vec<serde_json::Value>")]
    pub probes: Vec<Listed>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(super) struct MaxLatency {
    /// More than 0, at most 1.
    #[serde(default = "p95")]
    pub quantile: f64,
    /// That quantile of the latency may be this.
    pub latency: Period,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub(super) struct HoldKeys {
    /// The first time; doubles with each ejection that follows.
    #[schemars(with = "Period", extend("default" = "10s"))]
    pub base: Period,
    /// At most this.
    #[schemars(with = "Period", extend("default" = "300s"))]
    pub max: Period,
}

impl Default for HoldKeys {
    fn default() -> Self {
        Self { base: Period::seconds(10), max: Period::seconds(300) }
    }
}

fn window() -> Period {
    Period::seconds(5)
}

fn min_requests() -> u64 {
    20
}

fn max_error_ratio() -> f64 {
    0.1
}

fn count() -> Expect {
    Expect::of(500..=599)
}

fn count_schema() -> &'static str {
    "500-599"
}

fn p95() -> f64 {
    0.95
}

impl Keys {
    /// The listener that is judged, and what its app did so far. None without a running sidecar.
    pub(super) fn totals(&self, context: &Context) -> Option<(String, AppTotals)> {
        let listener = self.name(context)?;
        let totals = context.traffic.as_ref()?.app(&listener)?;
        Some((listener, totals))
    }

    /// What is judged, in words.
    pub(super) fn words(&self) -> String {
        let listener =
            self.listener.as_ref().map_or("the listener".to_owned(), |name| format!("listener {name}"));
        let (window, least) = (humantime::format_duration(self.window.0), self.min_requests);
        let most = (self.max_error_ratio * 1000.0).round() / 10.0;
        let mut words = format!(
            "judges what users got through {listener} in the last {window}, from {least} answers on: "
        );
        let _ = write!(words, "at most {most}% errors ({})", self.count);
        if let Some(MaxLatency { quantile, latency }) = self.max_latency {
            let (quantile, latency) =
                ((quantile * 1000.0).round() / 10.0, humantime::format_duration(latency.0));
            let _ = write!(words, ", p{quantile} at most {latency}");
        }
        let (base, max) =
            (humantime::format_duration(self.hold.base.0), humantime::format_duration(self.hold.max.0));
        let _ = write!(words, "; after a failure the pod stays out for {base}, at most {max}");
        if let Some(first) = self.probes.first() {
            let _ = write!(words, ", and until {} is answered", first.shown());
        }
        words
    }

    pub(super) fn ignored(&self, context: &Context) -> Option<Ignored> {
        context.traffic.as_ref()?.ignored_of(&self.name(context)?)
    }

    fn name(&self, context: &Context) -> Option<String> {
        self.listener.clone().or_else(|| Some(context.targets.first()?.listener.clone()))
    }
}

pub(super) fn accept(own: &Own, listeners: &[Listener]) -> Result<(), Vec<KeyError>> {
    let keys: Keys = own::parse(own)?;
    let mut problems = own::listener(keys.listener.as_deref(), listeners, own::Carries::Requests);
    let listener = own::meant(keys.listener.as_deref(), listeners).filter(|_| problems.is_empty());
    for (index, request) in keys.probes.iter().enumerate() {
        let path = format!("probes.{index}");
        problems.extend(request.problems(&path));
        if let Some(key) = request.of_a_route() {
            problems.push(own::problem(&format!("{path}.{key}"), "only allowed in a warm-up's requests"));
        }
        if let Some(misplaced) = listener.and_then(|listener| request.misplaced(listener)) {
            problems.push(own::problem(&path, misplaced));
        }
    }
    for (index, path) in keys.ignore_paths.iter().enumerate() {
        if !path.starts_with('/') {
            let message = "not a path, expected one such as /reports/ or /reports/*";
            problems.push(own::problem(&format!("ignore_paths.{index}"), message));
        }
    }
    let mut within = |path: &str, ok: bool, found: String, allowed: &str| {
        if !ok {
            problems.push(own::problem(path, format!("{found} is not allowed, expected {allowed}")));
        }
    };
    let share = |value: f64| value > 0.0 && value < 1.0;
    within("min_requests", keys.min_requests > 0, keys.min_requests.to_string(), "at least 1");
    let ratio = keys.max_error_ratio;
    within("max_error_ratio", share(ratio), ratio.to_string(), "more than 0 and less than 1");
    if let Some(MaxLatency { quantile, .. }) = keys.max_latency {
        within("max_latency.quantile", share(quantile), quantile.to_string(), "more than 0 and less than 1");
    }
    let (base, max) = (keys.hold.base, keys.hold.max);
    within("hold.max", max.0 >= base.0, max.to_string(), &format!("at least hold.base ({base})"));
    own::all(problems)
}
