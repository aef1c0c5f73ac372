//! The key `tls` of the kinds that speak a server's own protocol: what it may say, and whom it makes them trust.
//!
//! A protocol is negotiated for `grpc` only, unlike by the kubelet, which speaks HTTP/2 where the server offers it:
//! so `http` is answered by HTTP/1.1.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use rustls_pki_types::ServerName;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::own::problem;
use super::values::Address;
use crate::config::KeyError;
use crate::tls::Trust;

/// The key `tls`: false, true, or a map of settings (which means true).
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Tls {
    #[default]
    Off,
    On(Settings),
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(super) struct Settings {
    /// PEM file with the certificate authorities to trust, instead of the public ones.
    ca: Option<PathBuf>,
    /// The name that the certificate must have, if it is not the host of the address.
    server_name: Option<String>,
    /// Take any certificate.
    #[serde(default)]
    insecure_skip_verify: bool,
}

impl Tls {
    /// Whom to trust, and by which name, when the host is `host`; None without TLS.
    pub(super) fn trust(&self, host: &str) -> Option<(Trust, String)> {
        let Self::On(settings) = self else { return None };
        let trust = match &settings.ca {
            _ if settings.insecure_skip_verify => Trust::Anybody,
            Some(path) => Trust::File(path.clone()),
            None => Trust::Public,
        };
        Some((trust, settings.server_name.clone().unwrap_or_else(|| host.to_owned())))
    }

    /// `db:5432 over TLS`: where a check connects to, and how.
    pub(super) fn place(&self, address: &Address) -> String {
        match self {
            Self::Off => address.to_string(),
            Self::On(_) => format!("{address} over TLS"),
        }
    }

    pub(super) fn problems(&self) -> Vec<KeyError> {
        let Self::On(settings) = self else { return Vec::new() };
        let mut problems = Vec::new();
        if settings.ca.is_some() && settings.insecure_skip_verify {
            let message = "true is not allowed together with ca, expected one of them";
            problems.push(problem("tls.insecure_skip_verify", message));
        }
        if let Some(name) = &settings.server_name
            && ServerName::try_from(name.as_str()).is_err()
        {
            problems.push(problem("tls.server_name", "not a host name, expected e.g. db.example.com"));
        }
        problems
    }
}

impl<'de> Deserialize<'de> for Tls {
    /// By a visitor, not as an untagged enum: that would lose the path of a key inside.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Tls;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or a map of ca, server_name and insecure_skip_verify")
            }

            fn visit_bool<E>(self, on: bool) -> Result<Tls, E> {
                Ok(if on { Tls::On(Settings::default()) } else { Tls::Off })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Tls, A::Error> {
                Settings::deserialize(MapAccessDeserializer::new(map)).map(Tls::On)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Tls {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Tls".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let settings = generator.subschema_for::<Settings>();
        json_schema!({ "anyOf": [{ "type": "boolean" }, settings] })
    }
}
