//! Addresses as a user writes them: where to listen, where the app is, a path of a URL.
//!
//! Errors end in `expected …`, as those of `units`.

use std::fmt;
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Upstream;
use super::units::text;

/// An address to listen on: an IP address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct Listen(#[schemars(with = "String")] pub SocketAddr);

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTED: &str = "expected an IP address and a port such as 0.0.0.0:8800 or [::]:8800";
        let text = text(deserializer, EXPECTED)?;
        text.parse().map(Listen).map_err(|_| D::Error::custom(EXPECTED))
    }
}

/// The address of the app: `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(inline)]
pub struct UpstreamUrl(#[schemars(with = "String")] pub Upstream);

impl<'de> Deserialize<'de> for UpstreamUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTED: &str = "expected a URL such as http://127.0.0.1:8080";
        let text = text(deserializer, EXPECTED)?;
        if PLANNED_SCHEMES.iter().any(|scheme| text.starts_with(scheme)) {
            return Err(D::Error::custom("expected http:// (other schemes are not in this version)"));
        }
        upstream(&text).map(UpstreamUrl).ok_or_else(|| D::Error::custom(EXPECTED))
    }
}

/// Splits `http://host:port/`; the port is 80 if none is given.
fn upstream(url: &str) -> Option<Upstream> {
    let rest = url.strip_prefix("http://")?;
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (host, port) = bracketed.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, port.strip_prefix(':').or(port.is_empty().then_some("80"))?)
        }
        None => authority.split_once(':').unwrap_or((authority, "80")),
    };
    let bracketed = authority.starts_with('[');
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let named = !host.is_empty() && host.len() <= 253 && host.chars().all(plain);
    let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
    (bracketed || named).then(|| Upstream { host: host.to_owned(), port })
}

const PLANNED_SCHEMES: &[&str] = &["h2c://", "https://", "tcp://", "unix:"];

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let UpstreamUrl(Upstream { host, port }) = self;
        if host.contains(':') {
            write!(f, "http://[{host}]:{port}")
        } else {
            write!(f, "http://{host}:{port}")
        }
    }
}

impl Serialize for UpstreamUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The path of a URL, from the first `/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct UrlPath(pub String);

impl<'de> Deserialize<'de> for UrlPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTED: &str = "expected a path such as /.readygate/ready";
        let text = text(deserializer, EXPECTED)?;
        let allowed = |c: char| c.is_ascii_graphic() && !"?#\"<>\\^`{|}".contains(c);
        if text.starts_with('/') && text.chars().all(allowed) {
            Ok(UrlPath(text))
        } else {
            Err(D::Error::custom(EXPECTED))
        }
    }
}
