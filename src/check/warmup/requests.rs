//! The keys of a warm-up's requests.

mod compose;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{self, Deserializer};

use super::client::Recipe;
use super::keys::Target;
use super::octets::{Fields, Octets, nothing, read};
use crate::check::own;
use crate::check::values::Expect;
use crate::config::{KeyError, Listener};

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
#[schemars(inline, extend("oneOf" = [{ "required": ["path"] }, { "required": ["grpc"] }, { "required": ["tcp"] }]))]
struct RequestKeys {
    /// What it is called in reasons and figures; method and path if not given.
    name: Option<String>,
    /// How often it is sent, in proportion to the weights of the others; 1 if not given.
    weight: Option<usize>,
    /// How fast this one has to be, instead of `target`.
    until: Option<Target>,
    /// GET if not given.
    method: Option<String>,
    /// Begins with a slash; may have a query.
    path: Option<String>,
    /// A value is a text, a list of them, or { file: /path }.
    headers: Option<Fields>,
    /// A text, { base64: … } or { file: /path }.
    body: Option<Octets>,
    /// Status codes of a good answer; 200-399 if not given.
    expect: Option<Expect>,
    /// A call instead of an HTTP request: /pkg.Service/Method, or health for the standard health service, which must
    /// say SERVING.
    grpc: Option<String>,
    /// The call's message as base64 of its bytes, or { file: /path }; empty if not given.
    message: Option<Octets>,
    /// The call's metadata; values of names that end in -bin are base64.
    metadata: Option<Fields>,
    /// Codes of a good answer to the call; 0 alone if not given.
    expect_status: Option<Vec<u32>>,
    /// Whose health is asked for; the whole server's if not given.
    service: Option<String>,
    /// A connection through a listener of `tcp://`, closed at the end: { send, expect_bytes }.
    tcp: Option<TcpKeys>,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct TcpKeys {
    /// What is sent once the app accepted, as `body`; nothing if not given.
    send: Option<Octets>,
    /// What the app's answer must begin with; it is not waited for if not given.
    expect_bytes: Option<Octets>,
}

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> de::Visitor<'de> for Either {
            type Value = RequestKeys;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("\"GET /path\" or a map with path, grpc or tcp")
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
    /// What cannot be sent; `path` leads to this request. Files are not looked at.
    pub(in crate::check) fn problems(&self, path: &str) -> Vec<KeyError> {
        let keys = &self.0;
        let fields = [("headers", &keys.headers), ("metadata", &keys.metadata)];
        let given = fields.into_iter().filter_map(|(key, fields)| Some((key, fields.as_ref()?)));
        let mut problems: Vec<_> =
            given.flat_map(|(key, fields)| fields.problems(&format!("{path}.{key}"))).collect();
        if problems.is_empty()
            && let Err((key, message)) = keys.recipe(&nothing)
        {
            problems.push(own::problem(&format!("{path}.{key}"), message));
        }
        let mut refuse = |key: &str, message: String| {
            problems.push(own::problem(&format!("{path}.{key}"), message));
        };
        if let Some(weight) = keys.weight.filter(|weight| !(1..=MOST_WEIGHT).contains(weight)) {
            refuse("weight", format!("{weight} is not allowed, expected 1 to {MOST_WEIGHT}"));
        }
        if let Some(name) = &keys.name
            && (name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control))
        {
            refuse("name", format!("expected 1 to {LONGEST_NAME} characters on one line"));
        }
        if let Some(quantile) = keys.until.and_then(|until| until.misfit()) {
            refuse("until.quantile", quantile);
        }
        problems
    }

    /// `GET /api/items`, without the query, which may hold a secret.
    pub(in crate::check) fn shown(&self) -> String {
        let keys = &self.0;
        if keys.tcp.is_some() {
            return "a TCP connection".to_owned();
        }
        match (&keys.grpc, &keys.path) {
            (Some(call), _) => format!("the gRPC call {call}"),
            (None, path) => {
                let path = path.as_deref().unwrap_or_default();
                let path = path.split_once('?').map_or(path, |(path, _)| path);
                format!("{} {path}", keys.method.as_deref().unwrap_or("GET"))
            }
        }
    }

    /// The key that only a warm-up's request has, if there is one.
    pub(in crate::check) fn of_a_route(&self) -> Option<&'static str> {
        let Self(keys) = self;
        let of_routes = [
            ("weight", keys.weight.is_some()),
            ("until", keys.until.is_some()),
            ("name", keys.name.is_some()),
        ];
        of_routes.into_iter().find(|(_, given)| *given).map(|(key, _)| key)
    }

    /// Why the app behind this listener cannot be asked so.
    pub(in crate::check) fn misplaced(&self, listener: &Listener) -> Option<String> {
        let name = &listener.name;
        match (self.0.tcp.is_some(), listener.upstream.scheme.is_http()) {
            (false, false) => Some(format!(
                "listener {name} carries bytes and no requests (tcp://{}), expected tcp: {{ send, expect_bytes }}",
                listener.upstream.address,
            )),
            (true, true) => Some(format!(
                "tcp is not allowed on listener {name}, which carries requests, expected path or grpc"
            )),
            _ => None,
        }
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    pub(super) fn weight(&self) -> usize {
        self.0.weight.unwrap_or(1)
    }

    pub(super) fn until(&self) -> Option<Target> {
        self.0.until
    }

    /// Reads its files, if it has any. Blocks.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or what it holds cannot be sent: `body: cannot read /x: …`.
    pub(super) fn recipe(&self) -> Result<Recipe, String> {
        self.0.recipe(&read).map_err(|(key, message)| format!("{key}: {message}"))
    }
}

const MOST_WEIGHT: usize = 1000;

const LONGEST_NAME: usize = 64;
