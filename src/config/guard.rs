//! `guard`: whom a check asks before its failure may close the gate, and how many must remain ready.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;
use std::num::NonZeroU32;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::units::{Percent, text};

/// Whom to ask before this check's failure closes the gate. Only where `gates` is `always`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a map of keys")]
#[schemars(rename = "Guard")]
pub struct Guard {
    /// Where the other pods' admin ports are: the name of a headless Service that lists pods that are not ready,
    /// too, or a list of addresses.
    pub peers: Peers,
    /// Pods that must remain ready, as a share of all of them or as a number.
    #[serde(default)]
    pub min_ready: MinReady,
}

/// At least one place to find peers at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Peers(pub Vec<PeerAddress>);

impl<'de> Deserialize<'de> for Peers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Peers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{HOST_AND_PORT}, or a list of them")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Peers, E> {
                PeerAddress::parse(text)
                    .map(|one| Peers(vec![one]))
                    .ok_or_else(|| E::custom(format_args!("expected {HOST_AND_PORT}, or a list of them")))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Peers, A::Error> {
                let mut peers = Vec::new();
                while let Some(peer) = list.next_element()? {
                    peers.push(peer);
                }
                if peers.is_empty() || peers.len() > MOST_PEERS {
                    return Err(A::Error::custom(format_args!("expected 1 to {MOST_PEERS} addresses in it")));
                }
                Ok(Peers(peers))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

impl JsonSchema for Peers {
    fn schema_name() -> Cow<'static, str> {
        "Peers".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = json_schema!({ "type": "string", "pattern": r":[0-9]+$|\$\{" });
        json_schema!({
            "anyOf": [one, { "type": "array", "items": one, "minItems": 1, "maxItems": MOST_PEERS }],
            "examples": ["payments-headless:8801", ["10.0.0.1:8801", "10.0.0.2:8801"]],
        })
    }
}

/// A host (a name, or an IP address without brackets) and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    pub host: String,
    pub port: u16,
}

impl PeerAddress {
    fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port != 0 && port_is_plain(text))?;
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(bracketed) => bracketed.parse::<Ipv6Addr>().ok().map(|_| bracketed)?,
            None => host,
        };
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let is_name = !host.is_empty() && host.len() <= 253 && host.chars().all(named);
        (is_name || text.starts_with('[')).then(|| Self { host: host.to_owned(), port })
    }
}

/// `parse` of a number takes `+80`, too.
fn port_is_plain(text: &str) -> bool {
    text.ends_with(|c: char| c.is_ascii_digit()) && !text.contains('+')
}

impl<'de> Deserialize<'de> for PeerAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = || format!("expected {HOST_AND_PORT}");
        let text = text(deserializer, &expected())?;
        Self::parse(&text).ok_or_else(|| D::Error::custom(expected()))
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl Serialize for PeerAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How many pods must remain ready.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MinReady {
    /// Of all pods, rounded up: more than 0, at most 1.
    Share(f64),
    Pods(NonZeroU32),
}

impl MinReady {
    /// How many of so many pods.
    pub fn of(self, pods: usize) -> usize {
        match self {
            // A share such as 0.07 is not exact: 7 % of 100 must not become 8.
            Self::Share(share) => (share * pods as f64 - 1e-9).ceil().max(1.0) as usize,
            Self::Pods(number) => number.get() as usize,
        }
    }
}

impl Default for MinReady {
    fn default() -> Self {
        Self::Share(0.5)
    }
}

impl<'de> Deserialize<'de> for MinReady {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = match Value::deserialize(deserializer)? {
            Value::Number(number) => {
                let number = number.as_u64().and_then(|number| u32::try_from(number).ok());
                number.and_then(NonZeroU32::new).map(Self::Pods)
            }
            share @ Value::String(_) => Percent::deserialize(share).ok().map(|share| Self::Share(share.0)),
            _ => None,
        };
        found.ok_or_else(|| {
            D::Error::custom(
                "expected a share above 0% and at most 100% such as 50%, or a number of pods from 1",
            )
        })
    }
}

impl fmt::Display for MinReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share(share) => Percent(*share).fmt(f),
            Self::Pods(number) => number.fmt(f),
        }
    }
}

impl Serialize for MinReady {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Share(share) => Percent(*share).serialize(serializer),
            Self::Pods(number) => number.serialize(serializer),
        }
    }
}

impl JsonSchema for MinReady {
    fn schema_name() -> Cow<'static, str> {
        "MinReady".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let share = generator.subschema_for::<Percent>();
        json_schema!({ "anyOf": [share, { "type": "integer", "minimum": 1 }] })
    }
}

const HOST_AND_PORT: &str = "a host and the admin port there such as payments-headless:8801";
const MOST_PEERS: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_up_and_never_nothing() {
        for (share, pods, least) in
            [(0.5, 1, 1), (0.5, 2, 1), (0.5, 3, 2), (0.5, 50, 25), (0.07, 100, 7), (0.001, 3, 1), (1.0, 7, 7)]
        {
            assert_eq!(MinReady::Share(share).of(pods), least, "{share} of {pods}");
        }
    }

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for good in ["payments-headless.shop.svc:8801", "10.0.0.1:1", "[::1]:8801", "a_b:65535"] {
            assert_eq!(PeerAddress::parse(good).map(|peer| peer.to_string()), Some(good.to_owned()));
        }
        for bad in ["", "a", "a:", ":1", "a:0", "a:65536", "a:+1", "::1:80", "[a]:1", "http://a:1", "a b:1"] {
            assert_eq!(PeerAddress::parse(bad), None, "{bad}");
        }
    }
}
