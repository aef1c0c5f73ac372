//! Addresses as a user writes them: where to listen, where the app is, a path of a URL.
//!
//! Errors end in `expected …`, as those of `units`.

use std::fmt;
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::units::text;
use super::{Address, Scheme};

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

/// The address of the app, and what it speaks: `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(inline, with = "String")]
pub struct UpstreamUrl {
    pub scheme: Scheme,
    pub address: Address,
}

impl Default for UpstreamUrl {
    fn default() -> Self {
        let address = Address::Tcp { host: "127.0.0.1".to_owned(), port: 8080 };
        Self { scheme: Scheme::Http, address }
    }
}

impl<'de> Deserialize<'de> for UpstreamUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTED: &str =
            "expected a URL such as http://127.0.0.1:8080, h2c://…, https://…, tcp://… or unix:/path";
        let text = text(deserializer, EXPECTED)?;
        upstream(&text).ok_or_else(|| D::Error::custom(EXPECTED))
    }
}

/// Splits `scheme://host:port/`; the port may be left out where the scheme has one.
fn upstream(url: &str) -> Option<UpstreamUrl> {
    if let Some(path) = url.strip_prefix("unix:") {
        // `unix:///path` is the same, and what the kernel takes is 107 bytes (unix(7)).
        let path = path.strip_prefix("//").unwrap_or(path);
        let fits = path.starts_with('/') && path.len() <= 107 && !path.contains('\0');
        return fits.then(|| UpstreamUrl { scheme: Scheme::Unix, address: Address::Unix(path.into()) });
    }
    let (name, rest) = url.split_once("://")?;
    let (_, scheme, default_port) = *SCHEMES.iter().find(|(known, ..)| *known == name)?;
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (host, port) = bracketed.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, port.strip_prefix(':').or(port.is_empty().then_some(default_port))?)
        }
        None => authority.split_once(':').unwrap_or((authority, default_port)),
    };
    let bracketed = authority.starts_with('[');
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let named = !host.is_empty() && host.len() <= 253 && host.chars().all(plain);
    let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
    let address = Address::Tcp { host: host.to_owned(), port };
    (bracketed || named).then_some(UpstreamUrl { scheme, address })
}

/// Name, scheme, the port if none is given.
const SCHEMES: &[(&str, Scheme, &str)] = &[
    ("http", Scheme::Http, "80"),
    ("h2c", Scheme::H2c, "80"),
    ("https", Scheme::Https, "443"),
    ("tcp", Scheme::Tcp, ""),
];

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SCHEMES.iter().find(|(_, scheme, _)| *scheme == self.scheme) {
            Some((name, ..)) => write!(f, "{name}://{}", self.address),
            // The address says it.
            None => write!(f, "{}", self.address),
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
