//! The keys of a warm-up's requests, and what they become.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{self, Deserializer};

use super::http::Recipe;
use crate::check::own;
use crate::check::values::{Expect, Headers};
use crate::config::KeyError;

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

impl Listed {
    /// What cannot be sent; `path` leads to this request.
    pub(super) fn problems(&self, path: &str) -> Vec<KeyError> {
        let mut problems = self.0.headers.problems(&format!("{path}.headers"));
        if problems.is_empty()
            && let Err((key, message)) = recipe(&self.0)
        {
            problems.push(own::problem(&format!("{path}.{key}"), message));
        }
        problems
    }

    /// Never fails after [`Listed::problems`] found none.
    pub(super) fn recipe(&self) -> Recipe {
        recipe(&self.0).expect("configuration accepted the request")
    }
}

fn recipe(keys: &RequestKeys) -> Result<Recipe, (&'static str, String)> {
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

/// What the connection and the body decide, not the configuration.
const HOP_BY_HOP: [&str; 6] =
    ["connection", "content-length", "keep-alive", "te", "transfer-encoding", "upgrade"];
