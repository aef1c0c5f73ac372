//! The keys of `warmup`, and the requests that they describe.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{self, Deserializer};

use super::client::Recipe;
use crate::check::own;
use crate::check::values::{Expect, Headers};
use crate::config::units::{Percent, Period};
use crate::config::{KeyError, Listener, Own};

/// The keys of `warmup`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    /// Name of the listener to send through; may be left out if there is only one.
    pub listener: Option<String>,
    /// Sent in turn: "GET /path", or { method, path, headers, body, expect }.
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

/// A request of the list, in either notation.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(inline, with = "Notation")]
pub(super) struct Listed(RequestKeys);

#[derive(JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
#[allow(dead_code)]
enum Notation {
    Line(String),
    Full(RequestKeys),
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct RequestKeys {
    /// GET if not given.
    #[serde(default = "get")]
    method: String,
    /// Begins with a slash; may have a query.
    path: String,
    #[serde(default)]
    headers: Headers,
    body: Option<String>,
    /// Status codes of a good answer; 200-399 if not given.
    #[serde(default)]
    expect: Expect,
}

fn get() -> String {
    "GET".to_owned()
}

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> de::Visitor<'de> for Either {
            type Value = RequestKeys;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("\"GET /path\" or a map with path")
            }
            fn visit_str<E: de::Error>(self, line: &str) -> Result<RequestKeys, E> {
                let (method, path) = line.trim().split_once(' ').unwrap_or(("GET", line.trim()));
                let (method, path) = (method.to_owned(), path.trim().to_owned());
                Ok(RequestKeys {
                    method,
                    path,
                    headers: Headers::default(),
                    body: None,
                    expect: Expect::default(),
                })
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<RequestKeys, A::Error> {
                RequestKeys::deserialize(de::value::MapAccessDeserializer::new(map))
            }
        }
        // Not an untagged enum: that would lose the path of an error.
        deserializer.deserialize_any(Either).map(Self)
    }
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

pub(super) fn recipe(Listed(keys): &Listed) -> Result<Recipe, (&'static str, String)> {
    let method = http::Method::from_bytes(keys.method.as_bytes())
        .ok()
        .filter(|method| *method != http::Method::CONNECT);
    let method = method.ok_or(("method", "not a request method, expected e.g. GET or POST".to_owned()))?;
    let path = || ("path", "expected a path that begins with /, e.g. /api/items?limit=10".to_owned());
    let target =
        Some(&keys.path).filter(|path| path.starts_with('/')).and_then(|path| path.parse::<http::Uri>().ok());
    let target = target.filter(|uri| uri.host().is_none()).ok_or_else(path)?;
    let mut headers = HeaderMap::new();
    for (name, value) in keys.headers.iter() {
        let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) else {
            return Err(("headers", "not a header field that can be sent".to_owned()));
        };
        if HOP_BY_HOP.contains(&name.as_str()) {
            return Err((
                "headers",
                format!("{name} is not allowed, it follows from the connection and the body"),
            ));
        }
        headers.append(name, value);
    }
    let body = Bytes::from(keys.body.clone().unwrap_or_default());
    Ok(Recipe { method, target, headers, body, expect: keys.expect.clone() })
}

pub(super) fn accept(own: &Own, listeners: &[Listener]) -> Result<(), Vec<KeyError>> {
    let keys: Keys = own::parse(own)?;
    let mut problems = Vec::new();
    let names = || listeners.iter().map(|listener| listener.name.as_str()).collect::<Vec<_>>();
    match &keys.listener {
        Some(name) if !listeners.iter().any(|listener| listener.name == *name) => {
            let message = format!("there is no listener {name}, expected one of {}", names().join(", "));
            problems.push(own::problem("listener", message));
        }
        None if listeners.len() > 1 => {
            let message =
                format!("missing while there are several listeners, expected one of {}", names().join(", "));
            problems.push(own::problem("listener", message));
        }
        name => {
            let mut listeners = listeners.iter();
            let through = listeners.find(|listener| name.as_ref().is_none_or(|name| listener.name == *name));
            if let Some(listener) = through.filter(|listener| !listener.upstream.scheme.is_http()) {
                let message = format!(
                    "listener {} carries bytes and no requests (tcp://{}), expected one in front of an app that speaks HTTP",
                    listener.name, listener.upstream.address,
                );
                problems.push(own::problem("listener", message));
            }
        }
    }
    if keys.requests.is_empty() {
        problems
            .push(own::problem("requests", "the list is empty, expected at least one request, e.g. GET /"));
    }
    for (index, request) in keys.requests.iter().enumerate() {
        let mut refused = request.0.headers.problems(&format!("requests.{index}.headers"));
        if refused.is_empty()
            && let Err((key, message)) = recipe(request)
        {
            refused.push(own::problem(&format!("requests.{index}.{key}"), message));
        }
        problems.extend(refused);
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

/// What the connection and the body decide, not the configuration.
const HOP_BY_HOP: [&str; 6] =
    ["connection", "content-length", "keep-alive", "te", "transfer-encoding", "upgrade"];
