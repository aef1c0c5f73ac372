//! The shapes of values that the keys of several kinds share.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;

use schemars::JsonSchema;
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};

use super::own::problem;
use crate::config::units::text;
use crate::config::{self, KeyError, Listener};

/// `db:5432`, `10.0.0.1:80`, `[::1]:80`: a host and a port.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(inline, with = "String")]
pub(super) struct Address {
    /// Without brackets.
    pub host: String,
    pub port: u16,
}

impl Address {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let expected = "expected host:port, e.g. db:5432 or [::1]:5432";
        let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("there is no port, {expected}"))?;
        let port = match port.parse() {
            Ok(0) | Err(_) => return Err(format!("the port is not a number from 1 to 65535, {expected}")),
            Ok(port) => port,
        };
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) if inner.parse::<Ipv6Addr>().is_ok() => inner,
            Some(_) => return Err(format!("the brackets hold no IPv6 address, {expected}")),
            None if host.contains(':') => return Err(format!("an IPv6 address needs brackets, {expected}")),
            None => host,
        };
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || !host.chars().all(valid) {
            return Err(format!("there is no host name, {expected}"));
        }
        Ok(Self { host: host.to_owned(), port })
    }

    /// Whether this is the app's own port, as far as its text tells.
    pub(super) fn is_upstream_of(&self, listeners: &[Listener]) -> bool {
        listeners.iter().any(|listener| {
            let config::Address::Tcp { host, port } = &listener.upstream.address else { return false };
            let same_host = self.host.eq_ignore_ascii_case(host);
            self.port == *port && (same_host || (is_loopback(&self.host) && is_loopback(host)))
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&text(deserializer, "expected host:port, e.g. db:5432")?).map_err(de::Error::custom)
    }
}

/// Header fields: a name with one value, or with several.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub(super) struct Headers(BTreeMap<String, OneOrMany>);

#[derive(Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged, expecting = "not a header value, expected a text or a list of texts")]
#[schemars(inline)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Headers {
    /// Name and value of each field, values of one name in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|(name, values)| {
            let values = match values {
                OneOrMany::One(value) => std::slice::from_ref(value),
                OneOrMany::Many(values) => values,
            };
            values.iter().map(move |value| (name.as_str(), value.as_str()))
        })
    }

    /// What cannot be sent. Values are not repeated: they may hold secrets.
    pub(super) fn problems(&self, path: &str) -> Vec<KeyError> {
        self.iter().filter_map(|(name, value)| field_problem(path, name, value)).collect()
    }
}

/// What keeps a header field of the map at `path` from being sent, without its value.
pub(super) fn field_problem(path: &str, name: &str, value: &str) -> Option<KeyError> {
    let control = |byte: u8| (byte < b' ' && byte != b'\t') || byte == 0x7f;
    let message = if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
        "not a header name, expected letters, digits and -"
    } else if value.bytes().any(control) {
        "the value holds a control character, expected none"
    } else {
        return None;
    };
    let mut error = problem(path, message);
    error.path.push(name.to_owned());
    Some(error)
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Status codes that count as good: `204`, `"200-299"`, or a list of them.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(inline, with = "serde_json::Value")]
pub(super) struct Expect(Vec<RangeInclusive<u16>>);

impl Expect {
    pub(super) fn of(statuses: RangeInclusive<u16>) -> Self {
        Self(vec![statuses])
    }

    pub(super) fn accepts(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl Default for Expect {
    /// What the kubelet takes for success.
    fn default() -> Self {
        Self(vec![200..=399])
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            match (range.start(), range.end()) {
                (first, last) if first == last => write!(f, "{comma}{first}")?,
                (first, last) => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Expect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a status code, a range like \"200-299\", or a list of them")]
        enum Codes {
            One(Scalar),
            Many(Vec<Scalar>),
        }
        let codes = match Codes::deserialize(deserializer)? {
            Codes::One(code) => vec![code],
            Codes::Many(codes) => codes,
        };
        let ranges: Option<Vec<_>> = codes.iter().map(status_range).collect();
        match ranges {
            Some(ranges) if !ranges.is_empty() => Ok(Self(ranges)),
            _ => Err(de::Error::custom(
                "expected status codes from 100 to 999, e.g. 204 or [200, \"300-399\"]",
            )),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number or a string")]
enum Scalar {
    Number(u64),
    Text(String),
}

fn status_range(code: &Scalar) -> Option<RangeInclusive<u16>> {
    let status = |text: &str| text.trim().parse().ok().filter(|code| (100..=999).contains(code));
    match code {
        Scalar::Number(number) => status(&number.to_string()).map(|code| code..=code),
        Scalar::Text(text) => {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            Some(status(first)?..=status(last)?).filter(|range| !range.is_empty())
        }
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for good in ["db:5432", "127.0.0.1:1", "[::1]:80", "my_db.ns.svc:65535"] {
            assert_eq!(Address::parse(good).expect(good).to_string(), good);
        }
        for bad in
            ["", "db", "db:", "db:0", "db:65536", ":80", "::1:80", "[x]:80", "a b:80", "http://a:80", "u@h:1"]
        {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn expected_codes_are_numbers_ranges_or_lists() {
        let expect = |value: Value| serde_json::from_value::<Expect>(value);
        let some = expect(json!([204, "300-399", "418"])).expect("good");
        assert_eq!(some.to_string(), "204, 300-399, 418");
        assert!(some.accepts(399) && some.accepts(418) && !some.accepts(200));
        assert!(expect(json!(200)).is_ok());
        for bad in
            [json!([]), json!("abc"), json!(99), json!(1000), json!("300-200"), json!(true), json!([null])]
        {
            assert!(expect(bad.clone()).is_err(), "{bad}");
        }
    }
}
