//! The keys of a warm-up's requests, and what they become.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{self, Deserializer};

use super::client::Recipe;
use super::{grpc, http as http1};
use crate::check::grpc::health;
use crate::check::own;
use crate::check::values::{Expect, Headers};
use crate::config::KeyError;

/// A request of the list, in either notation.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(inline, with = "Notation")]
pub(in crate::check) struct Listed(RequestKeys);

#[derive(JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
#[allow(dead_code)]
enum Notation {
    Line(String),
    Full(Box<RequestKeys>),
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline, extend("oneOf" = [{ "required": ["path"] }, { "required": ["grpc"] }]))]
struct RequestKeys {
    /// GET if not given.
    method: Option<String>,
    /// Begins with a slash; may have a query.
    path: Option<String>,
    headers: Option<Headers>,
    body: Option<String>,
    /// Status codes of a good answer; 200-399 if not given.
    expect: Option<Expect>,
    /// A call instead of an HTTP request: /pkg.Service/Method, or health for the standard health service, which must
    /// say SERVING.
    grpc: Option<String>,
    /// The call's message as base64 of its bytes; empty if not given.
    message: Option<String>,
    /// The call's metadata; values of names that end in -bin are base64.
    metadata: Option<Headers>,
    /// Codes of a good answer to the call; 0 alone if not given.
    expect_status: Option<Vec<u32>>,
    /// Whose health is asked for; the whole server's if not given.
    service: Option<String>,
}

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> de::Visitor<'de> for Either {
            type Value = RequestKeys;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("\"GET /path\" or a map with path or grpc")
            }
            fn visit_str<E: de::Error>(self, line: &str) -> Result<RequestKeys, E> {
                let (method, path) = line.trim().split_once(' ').unwrap_or(("GET", line.trim()));
                let (method, path) = (method.to_owned(), path.trim().to_owned());
                Ok(RequestKeys { method: Some(method), path: Some(path), ..RequestKeys::default() })
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
    pub(in crate::check) fn problems(&self, path: &str) -> Vec<KeyError> {
        let keys = &self.0;
        let fields = [("headers", &keys.headers), ("metadata", &keys.metadata)];
        let given = fields.into_iter().filter_map(|(key, fields)| Some((key, fields.as_ref()?)));
        let mut problems: Vec<_> =
            given.flat_map(|(key, fields)| fields.problems(&format!("{path}.{key}"))).collect();
        if problems.is_empty()
            && let Err((key, message)) = keys.recipe()
        {
            problems.push(own::problem(&format!("{path}.{key}"), message));
        }
        problems
    }

    /// `GET /api/items`, without the query, which may hold a secret.
    pub(in crate::check) fn shown(&self) -> String {
        let keys = &self.0;
        match (&keys.grpc, &keys.path) {
            (Some(call), _) => format!("the gRPC call {call}"),
            (None, path) => {
                let path = path.as_deref().unwrap_or_default();
                let path = path.split_once('?').map_or(path, |(path, _)| path);
                format!("{} {path}", keys.method.as_deref().unwrap_or("GET"))
            }
        }
    }

    /// Never fails after [`Listed::problems`] found none.
    pub(super) fn recipe(&self) -> Recipe {
        self.0.recipe().expect("configuration accepted the request")
    }
}

/// A key and what is wrong with it.
type Problem = (&'static str, String);

impl RequestKeys {
    fn recipe(&self) -> Result<Recipe, Problem> {
        let of_http = [
            ("method", self.method.is_some()),
            ("path", self.path.is_some()),
            ("headers", self.headers.is_some()),
            ("body", self.body.is_some()),
            ("expect", self.expect.is_some()),
        ];
        let of_grpc = [
            ("message", self.message.is_some()),
            ("metadata", self.metadata.is_some()),
            ("expect_status", self.expect_status.is_some()),
            ("service", self.service.is_some()),
        ];
        let stranger =
            |keys: &[(&'static str, bool)]| keys.iter().find(|(_, given)| *given).map(|(key, _)| *key);
        match (&self.grpc, &self.path) {
            (Some(grpc), _) => match stranger(&of_http) {
                Some(key) => Err((key, format!("not allowed with grpc, expected {GRPC_KEYS}"))),
                None => self.call(grpc).map(Recipe::Grpc),
            },
            (None, Some(path)) => match stranger(&of_grpc) {
                Some(key) => {
                    Err((key, "not allowed without grpc, expected /pkg.Service/Method there".to_owned()))
                }
                None => self.request(path).map(Recipe::Http),
            },
            (None, None) => Err(("", "neither path nor grpc is given, expected one of them".to_owned())),
        }
    }

    fn request(&self, path: &str) -> Result<http1::Recipe, Problem> {
        let method = self.method.as_deref().unwrap_or("GET").as_bytes();
        let method = http::Method::from_bytes(method).ok().filter(|method| *method != http::Method::CONNECT);
        let method =
            method.ok_or(("method", "not a request method, expected e.g. GET or POST".to_owned()))?;
        let target = Some(path).filter(|path| path.starts_with('/'));
        let target =
            target.and_then(|path| path.parse::<http::Uri>().ok()).filter(|uri| uri.host().is_none());
        let expected = "expected a path that begins with /, e.g. /api/items?limit=10";
        Ok(http1::Recipe {
            method,
            target: target.ok_or(("path", expected.to_owned()))?,
            headers: fields("headers", self.headers.as_ref(), &|name| HOP_BY_HOP.contains(&name))?,
            body: Bytes::from(self.body.clone().unwrap_or_default()),
            expect: self.expect.clone().unwrap_or_default(),
        })
    }

    fn call(&self, grpc: &str) -> Result<grpc::Recipe, Problem> {
        let is_health = grpc == "health";
        if is_health && self.message.is_some() {
            return Err(("message", "not allowed with grpc: health, expected service at most".to_owned()));
        }
        if !is_health && self.service.is_some() {
            return Err(("service", "only allowed with grpc: health, expected message".to_owned()));
        }
        let message = match (&self.message, &self.service) {
            (Some(text), _) => {
                let expected = "not base64, expected e.g. CgVoZWxsbw== (the message's bytes)";
                BASE64.decode(text).map_err(|_| ("message", expected.to_owned()))?
            }
            (None, service) => health::request(service.as_deref().unwrap_or_default()),
        };
        let expect = self.expect_status.clone().unwrap_or_else(|| vec![0]);
        if expect.is_empty() || expect.iter().any(|code| *code > 16) {
            return Err(("expect_status", "expected codes from 0 to 16, e.g. [0, 5]".to_owned()));
        }
        let reserved = |name: &str| {
            HOP_BY_HOP.contains(&name)
                || name.starts_with("grpc-")
                || ["content-type", "host"].contains(&name)
        };
        Ok(grpc::Recipe {
            path: method_path(if is_health { health::PATH } else { grpc })?,
            metadata: fields("metadata", self.metadata.as_ref(), &reserved)?,
            message,
            expect,
            health: is_health,
        })
    }
}

/// `/pkg.Service/Method`.
fn method_path(text: &str) -> Result<PathAndQuery, Problem> {
    let has_parts = text
        .strip_prefix('/')
        .and_then(|rest| rest.rsplit_once('/'))
        .is_some_and(|(service, method)| !service.is_empty() && !method.is_empty());
    let path = Some(text).filter(|_| has_parts && !text.contains(['?', '#']));
    let path = path.and_then(|path| PathAndQuery::try_from(path).ok());
    path.ok_or(("grpc", "expected /pkg.Service/Method, or health".to_owned()))
}

fn fields(
    key: &'static str,
    given: Option<&Headers>,
    refused: &dyn Fn(&str) -> bool,
) -> Result<HeaderMap, Problem> {
    let mut fields = HeaderMap::new();
    for (name, value) in given.iter().flat_map(|given| given.iter()) {
        let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) else {
            return Err((key, "not a header field that can be sent".to_owned()));
        };
        if refused(name.as_str()) {
            let message = format!("{name} is not allowed, it follows from the connection and the body");
            return Err((key, message));
        }
        fields.append(name, value);
    }
    Ok(fields)
}

const GRPC_KEYS: &str = "message, metadata, expect_status or service";

/// What the connection and the body decide, not the configuration.
const HOP_BY_HOP: [&str; 6] =
    ["connection", "content-length", "keep-alive", "te", "transfer-encoding", "upgrade"];

/// With its padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
