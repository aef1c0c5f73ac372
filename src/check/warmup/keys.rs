//! The keys of `warmup`; those of a request are in [`super::requests`].

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::Deserialize;

use super::client::Recipe;
use super::requests::Listed;
use super::route::Wanted;
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
    /// metadata, expect_status }, { grpc: health, service }, or { tcp: { send, expect_bytes } }; each with `name`,
    /// `weight` and `until` if wanted. Each is judged by itself.
    pub requests: Vec<Listed>,
    /// Requests at once at most: one at first, one more with each good answer, fewer after a failure.
    #[serde(default = "concurrency")]
    pub concurrency: usize,
    /// Results that are judged at a time: the last so many. Several requests share them by their weights, with at
    /// least 20 each.
    #[serde(default = "min_requests")]
    pub min_requests: usize,
    /// Share of good answers among them, for each request.
    #[serde(default = "success_ratio")]
    pub success_ratio: f64,
    /// How fast the good ones have to be, for each request without an `until`.
    pub target: Option<Target>,
    /// Pass once latency has settled: that of the last results differs by at most this from that of as many before,
    /// e.g. 10%.
    pub plateau: Option<Percent>,
    /// Longest run, from when those of `after` had passed.
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

impl Target {
    /// What is wrong with its quantile.
    pub(super) fn misfit(&self) -> Option<String> {
        let Self { quantile, .. } = *self;
        (!is_share(quantile)).then(|| format!("{quantile} is not allowed, expected {ABOVE_0}"))
    }
}

fn is_share(value: f64) -> bool {
    value > 0.0 && value <= 1.0
}

const ABOVE_0: &str = "more than 0, at most 1";

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

impl Keys {
    /// What each route must show, in the order of the list; `recipes` give names to those that have none.
    pub(super) fn wanted(&self, recipes: &[Recipe]) -> Vec<Wanted> {
        let total: usize = self.requests.iter().map(Listed::weight).sum();
        let mut taken = HashSet::new();
        let of = |(number, (request, recipe)): (usize, (&Listed, &Recipe))| {
            let mut name = request.name().map_or_else(|| recipe.to_string(), str::to_owned);
            if !taken.insert(name.clone()) {
                name = format!("{name} #{}", number + 1);
            }
            let fair = (self.min_requests * request.weight()).div_ceil(total.max(1));
            Wanted {
                name,
                weight: request.weight(),
                window: fair.max(FEWEST_RESULTS.min(self.min_requests)),
                success_ratio: self.success_ratio,
                target: request.until().or(self.target),
                plateau: self.plateau.map(|Percent(share)| share),
            }
        };
        self.requests.iter().zip(recipes).enumerate().map(of).collect()
    }
}

/// Of one request among several: the quantile of fewer would be their largest.
const FEWEST_RESULTS: usize = 20;

pub(super) fn accept(own: &Own, listeners: &[Listener]) -> Result<(), Vec<KeyError>> {
    let keys: Keys = own::parse(own)?;
    let mut problems = own::listener(keys.listener.as_deref(), listeners, own::Carries::Anything);
    let listener = own::meant(keys.listener.as_deref(), listeners);
    if keys.requests.is_empty() {
        problems
            .push(own::problem("requests", "the list is empty, expected at least one request, e.g. GET /"));
    }
    let mut names = HashSet::new();
    for (index, request) in keys.requests.iter().enumerate() {
        let path = format!("requests.{index}");
        let mut found = request.problems(&path);
        if let Some(name) = request.name()
            && !names.insert(name)
        {
            found.push(own::problem(
                &format!("{path}.name"),
                "taken by another request, expected one of its own",
            ));
        }
        if found.is_empty()
            && let Some(misplaced) = listener.and_then(|listener| request.misplaced(listener))
        {
            found.push(own::problem(&path, misplaced));
        }
        problems.extend(found);
    }
    let mut within = |path: &str, ok: bool, found: String, allowed: &str| {
        if !ok {
            problems.push(own::problem(path, format!("{found} is not allowed, expected {allowed}")));
        }
    };
    within("concurrency", (1..=1024).contains(&keys.concurrency), keys.concurrency.to_string(), "1 to 1024");
    within(
        "min_requests",
        (1..=100_000).contains(&keys.min_requests),
        keys.min_requests.to_string(),
        "1 to 100000",
    );
    within("success_ratio", is_share(keys.success_ratio), keys.success_ratio.to_string(), ABOVE_0);
    if let Some(misfit) = keys.target.and_then(|target| target.misfit()) {
        problems.push(own::problem("target.quantile", misfit));
    }
    own::all(problems)
}
