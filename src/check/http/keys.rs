//! The keys of `http`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use regex_lite::Regex;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::url::Url;
use crate::check::own;
use crate::check::values::{Address, Expect, Headers};
use crate::config::{KeyError, Listener, Own};

/// The keys of `http`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    /// What to ask for: http:// or https://, without credentials.
    pub url: String,
    /// GET if not given.
    #[serde(default = "get")]
    pub method: String,
    /// Header fields to send, each a value or a list of values. An empty user-agent or accept is not sent.
    #[serde(default)]
    pub headers: Headers,
    /// The request's body.
    pub body: Option<String>,
    /// Status codes that pass, of the last answer: a code, a range like "200-299", or a list of them; 200-399 if
    /// not given.
    #[serde(default)]
    pub expect: Expect,
    /// A regular expression that must match somewhere in the body.
    pub body_matches: Option<String>,
    /// JSON pointers (RFC 6901) into the body, and the value that must be there.
    pub json: Option<BTreeMap<String, Value>>,
    /// PEM file with the certificate authorities to trust, instead of the public ones.
    pub ca: Option<PathBuf>,
    /// Take any certificate, as the kubelet does.
    #[serde(default)]
    pub insecure_skip_verify: bool,
}

fn get() -> String {
    "GET".to_owned()
}

/// Splits off scheme and authority and reads the rest as the kubelet reads the path of a probe.
///
/// Unlike there, a path that begins with two slashes stays one: in a whole URL it cannot be a host.
pub(super) fn parse_url(text: &str) -> Result<Url, String> {
    let expected = "expected e.g. http://127.0.0.1:8080/healthz";
    let (scheme, rest) = text.split_once("://").ok_or_else(|| format!("not a URL, {expected}"))?;
    let scheme = scheme.to_ascii_lowercase();
    if !matches!(scheme.as_str(), "http" | "https") {
        return Err(format!("the scheme is not http or https, {expected}"));
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err("credentials in a URL are not allowed, expected them in headers.authorization".to_owned());
    }
    let with_port = match authority.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') => authority.to_owned(),
        _ => format!("{authority}:{}", if scheme == "https" { 443 } else { 80 }),
    };
    Address::parse(&with_port)?;
    let url = Url::of_parts(&scheme, authority, path);
    // Go refuses only control characters in a query, but a blank would end the request's target early.
    match url.target().bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        true => Err("a blank or control character in the query, expected %20 and the like".to_owned()),
        false => Ok(url),
    }
}

pub(super) fn accept(own: &Own, _: &[Listener]) -> Result<(), Vec<KeyError>> {
    let keys: Keys = own::parse(own)?;
    let mut problems = keys.headers.problems("headers");
    if let Err(error) = parse_url(&keys.url) {
        problems.push(own::problem("url", error));
    }
    let method = http::Method::from_bytes(keys.method.as_bytes());
    if method.is_err() || keys.method == "CONNECT" {
        problems.push(own::problem("method", "not a request method, expected e.g. GET, HEAD or POST"));
    }
    let host = keys.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
    if let Some((name, host)) = host
        && host.contains([' ', '/', '\t', ','])
    {
        let mut error =
            own::problem("headers", "not a host, expected a name or address with or without a port");
        error.path.push(name.to_owned());
        problems.push(error);
    }
    if let Some(Err(error)) = keys.body_matches.as_deref().map(Regex::new) {
        problems.push(own::problem("body_matches", format!("not a regular expression: {error}")));
    }
    for pointer in keys.json.iter().flat_map(BTreeMap::keys) {
        if !pointer.is_empty() && !pointer.starts_with('/') {
            let mut error = own::problem("json", "not a JSON pointer, expected e.g. /status");
            error.path.push(pointer.clone());
            problems.push(error);
        }
    }
    if keys.ca.is_some() && keys.insecure_skip_verify {
        problems.push(own::problem(
            "insecure_skip_verify",
            "true is not allowed together with ca, expected one of them",
        ));
    }
    own::all(problems)
}
