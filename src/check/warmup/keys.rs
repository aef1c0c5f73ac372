//! The keys of `warmup`; those of a request are in [`super::requests`].

use schemars::JsonSchema;
use serde::Deserialize;

use super::requests::Listed;
use crate::check::own;
use crate::config::units::{Percent, Period};
use crate::config::{KeyError, Listener, Own};

/// The keys of `warmup`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    /// Name of the listener to send through; may be left out if there is only one.
    pub listener: Option<String>,
    /// Sent in turn: "GET /path", { method, path, headers, body, expect }, { grpc: /pkg.Service/Method, message,
    /// metadata, expect_status } or { grpc: health, service }.
    pub requests: Vec<Listed>,
    /// Requests at once.
    #[serde(default = "concurrency")]
    pub concurrency: usize,
    /// Results that are judged at a time: the last so many.
    #[serde(default = "min_requests")]
    pub min_requests: usize,
    /// Share of good answers among them.
    #[serde(default = "success_ratio")]
    pub success_ratio: f64,
    /// How fast the good ones have to be.
    pub target: Option<Target>,
    /// Pass once latency has settled: it differs by at most this from that of the results before, e.g. 10%.
    pub plateau: Option<Percent>,
    /// Longest run.
    #[serde(default = "budget")]
    pub budget: Period,
    /// When the budget is over: fail (stay not ready, try again) or pass (go ready, counted and logged).
    #[serde(default)]
    pub on_budget_exhausted: OnBudgetExhausted,
}

fn concurrency() -> usize {
    4
}

fn min_requests() -> usize {
    50
}

fn success_ratio() -> f64 {
    0.99
}

fn budget() -> Period {
    Period::seconds(60)
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(super) struct Target {
    /// More than 0, at most 1.
    #[serde(default = "p95")]
    pub quantile: f64,
    /// That quantile of the latency may be this.
    pub latency: Period,
}

pub(super) fn p95() -> f64 {
    0.95
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum OnBudgetExhausted {
    #[default]
    Fail,
    Pass,
}

pub(super) fn accept(own: &Own, listeners: &[Listener]) -> Result<(), Vec<KeyError>> {
    let keys: Keys = own::parse(own)?;
    let mut problems = own::listener(keys.listener.as_deref(), listeners);
    if keys.requests.is_empty() {
        problems
            .push(own::problem("requests", "the list is empty, expected at least one request, e.g. GET /"));
    }
    for (index, request) in keys.requests.iter().enumerate() {
        problems.extend(request.problems(&format!("requests.{index}")));
    }
    let mut within = |path: &str, ok: bool, found: String, allowed: &str| {
        if !ok {
            problems.push(own::problem(path, format!("{found} is not allowed, expected {allowed}")));
        }
    };
    let share = |value: f64| value > 0.0 && value <= 1.0;
    within("concurrency", (1..=1024).contains(&keys.concurrency), keys.concurrency.to_string(), "1 to 1024");
    within(
        "min_requests",
        (1..=100_000).contains(&keys.min_requests),
        keys.min_requests.to_string(),
        "1 to 100000",
    );
    let above_0 = "more than 0, at most 1";
    within("success_ratio", share(keys.success_ratio), keys.success_ratio.to_string(), above_0);
    if let Some(target) = keys.target {
        within("target.quantile", share(target.quantile), target.quantile.to_string(), above_0);
    }
    own::all(problems)
}
