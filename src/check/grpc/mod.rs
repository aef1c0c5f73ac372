//! `grpc`: the standard health service answers SERVING, judged as the kubelet judges a `grpc` probe.
//!
//! ```text
//! connect ─▶ tls, if asked for (ALPN h2) ─▶ HTTP/2 ─▶ grpc.health.v1.Health/Check ─▶ SERVING?
//! ```
//!
//! Each run has a connection of its own. Unlike the kubelet, which says little more than that a probe failed, each
//! failure says what to do about it; and TLS is possible.

pub(super) mod health;
pub(super) mod link;
mod opening;
pub(super) mod reply;

use std::time::Duration;

use http::header::HeaderMap;
use http::uri::{Authority, PathAndQuery, Scheme};
use schemars::{JsonSchema, SchemaGenerator};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use self::health::HealthStatus;
use self::link::{Body, Broken, Call, Link};
use self::reply::{Reply, Status};
use super::connect::connect;
use super::own;
use super::trust::Tls;
use super::values::Address;
use super::{Check, CheckError, CheckFuture, CheckResult, Evidence, Kind};
use crate::config::{self, Gates, KeyError, Listener, Own};
use crate::tls::Trust;

pub(super) const KIND: Kind = Kind {
    config: config::Kind {
        name: "grpc",
        passes_when: "`grpc.health.v1.Health/Check` answers SERVING",
        gates: |_, _| Gates::Always,
        accept,
        schema: |generator: &mut SchemaGenerator| Keys::json_schema(generator),
        schemes: &["grpc", "grpcs"],
        from_url,
        defaults: config::Defaults::COMMON,
    },
    build: |spec, _| {
        let keys: Keys = own::parse(&spec.own).expect("configuration accepted the keys");
        Box::new(Grpc::new(keys, spec.timeout))
    },
};

/// The keys of `grpc`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Keys {
    /// Where the server listens: host:port.
    address: Address,
    /// The service that is asked for; the whole server if not given.
    #[serde(default)]
    service: String,
    /// Whether TLS is spoken: false, true, or a map of settings (which means true). False if not given.
    #[serde(default)]
    tls: Tls,
}

#[derive(Debug)]
struct Grpc {
    keys: Keys,
    call: Call,
}

impl Check for Grpc {
    fn run(&self) -> CheckFuture<'_> {
        Box::pin(self.attempt())
    }

    fn tests(&self) -> String {
        let Keys { address, service, tls } = &self.keys;
        let whose = if service.is_empty() { String::new() } else { format!(" for {service}") };
        format!("asks the health service of {}, and expects SERVING{whose}", tls.place(address))
    }
}

impl Grpc {
    fn new(keys: Keys, timeout: Duration) -> Self {
        let scheme = if keys.tls == Tls::Off { Scheme::HTTP } else { Scheme::HTTPS };
        let authority = authority(&keys.address).expect("configuration accepted the address");
        let (path, message) = (PathAndQuery::from_static(health::PATH), health::request(&keys.service));
        let call = Call::new(scheme, authority, path, HeaderMap::new(), &message, timeout);
        Self { keys, call }
    }

    async fn attempt(&self) -> CheckResult {
        let stream = connect(&self.keys.address).await?;
        // Small packets in turn: else the end of a TLS handshake and what follows it wait 40 ms for each other.
        let _ = stream.set_nodelay(true);
        let link = match self.keys.tls.trust(&self.keys.address.host) {
            None => Link::open(stream).await,
            Some((trust, name)) => self.open_in_tls(stream, &trust, &name).await?,
        };
        let mut link = link.map_err(|broken| self.broken(&broken))?;
        let reply = link.call(&self.call, Body::Short).await;
        link.close().await;
        let reply = reply.map_err(|broken| self.broken(&broken))?;
        self.verdict(&reply).map_err(|what| self.unexpected(&what))
    }

    async fn open_in_tls(
        &self,
        stream: TcpStream,
        trust: &Trust,
        name: &str,
    ) -> Result<Result<Link, Broken>, CheckError> {
        let stream = trust.handshake_for(&[b"h2"], stream, name).await.map_err(|reason| {
            let hint = if reason.contains("InvalidContentType") { ", the answer is not TLS" } else { "" };
            let reason = own::one_line(&format!("{reason}{hint}"), 300);
            CheckError::Connect { target: self.keys.address.to_string(), reason }
        })?;
        if stream.get_ref().1.alpn_protocol().is_none() {
            // Clients of gRPC refuse such servers, too.
            return Err(self.unexpected("did not agree to speak HTTP/2 in TLS (ALPN), expected h2"));
        }
        Ok(Link::open(stream).await)
    }

    fn verdict(&self, reply: &Reply) -> Result<Evidence, String> {
        let status = reply.status()?;
        if status.code != 0 {
            return Err(format!("answered {status}: {}", self.advice(&status)));
        }
        let status = health::response(reply.message()?);
        let status = status.ok_or("answered with a message that is not one of the health service")?;
        let what = match self.keys.service.as_str() {
            "" => status.name().to_owned(),
            service => format!("{} for {service}", status.name()),
        };
        match status {
            HealthStatus::Serving => Ok(Evidence { summary: what, ..Evidence::default() }),
            HealthStatus::Unknown => {
                Err(format!("answered {what}: the app has set no status yet, expected SERVING"))
            }
            HealthStatus::NotServing => {
                Err(format!("answered {what}: the app says so of itself, expected SERVING"))
            }
            HealthStatus::ServiceUnknown | HealthStatus::Other => {
                Err(format!("answered {what}, expected SERVING"))
            }
        }
    }

    /// What to do about a status.
    fn advice(&self, status: &Status) -> String {
        let advice = match status.code {
            4 => "it did not get done within `timeout`",
            5 if self.keys.service.is_empty() => {
                "set the status of the service \"\" in the app's health service"
            }
            5 => {
                return format!(
                    "the app's health service knows no service {}, check `service` or leave it out",
                    self.keys.service
                );
            }
            7 | 16 => "the app wants credentials, exempt grpc.health.v1.Health from that",
            8 => "the app is overloaded",
            12 => "the app has no grpc.health.v1.Health, register it or use another kind of check",
            14 => "the app is starting or shutting down, or something before it does not reach it",
            _ => "the app's health service is broken, its log tells more",
        };
        advice.to_owned()
    }

    fn broken(&self, broken: &Broken) -> CheckError {
        match broken {
            Broken::Closed if self.keys.tls == Tls::Off => {
                self.unexpected(&format!("{broken} (is tls missing?)"))
            }
            _ => self.unexpected(&broken.to_string()),
        }
    }

    fn unexpected(&self, what: &str) -> CheckError {
        let message = own::one_line(&format!("{} {what}", self.keys.address), 600);
        CheckError::Unexpected { message, figures: None }
    }
}

fn authority(address: &Address) -> Result<Authority, http::uri::InvalidUri> {
    Authority::try_from(address.to_string())
}

fn accept(own: &Own, _: &[Listener]) -> Result<(), Vec<KeyError>> {
    let keys: Keys = own::parse(own)?;
    let mut problems = keys.tls.problems();
    if authority(&keys.address).is_err() {
        problems.push(own::problem("address", "not a host and a port, expected e.g. 127.0.0.1:50051"));
    }
    if keys.service.len() > LONGEST_NAME {
        let message = format!("too long, expected at most {LONGEST_NAME} bytes");
        problems.push(own::problem("service", message));
    }
    own::all(problems)
}

fn from_url(url: &str) -> Result<Value, String> {
    let expected = "expected grpc://host:port, grpc://host:port/service or grpcs:// for TLS";
    let (scheme, rest) = url.split_once("://").ok_or(expected)?;
    if rest.contains(['?', '#', '@']) {
        return Err(format!("only a host, a port and a service are allowed here, {expected}"));
    }
    let (place, service) = rest.split_once('/').unwrap_or((rest, ""));
    let mut keys = json!({ "address": Address::parse(place)?.to_string() });
    if !service.is_empty() {
        keys["service"] = json!(service);
    }
    if scheme == "grpcs" {
        keys["tls"] = json!(true);
    }
    Ok(keys)
}

/// Bytes of a service's name.
const LONGEST_NAME: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_become_keys() {
        assert_eq!(from_url("grpc://db:1"), Ok(json!({ "address": "db:1" })));
        assert_eq!(from_url("grpc://[::1]:1/"), Ok(json!({ "address": "[::1]:1" })));
        assert_eq!(
            from_url("grpcs://db:1/pkg.Orders"),
            Ok(json!({ "address": "db:1", "service": "pkg.Orders", "tls": true }))
        );
        for bad in ["grpc://", "grpc:db:1", "grpc://db", "grpc://db:1/a?tls=true", "grpc://u:p@db:1"] {
            assert!(from_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_address_can_be_asked_for() {
        for good in ["db:1", "my_db.ns.svc:65535", "[::1]:80", "127.0.0.1:1"] {
            let keys = json!({ "address": good });
            assert!(accept(&Own(keys.clone()), &[]).is_ok(), "{good}");
            let keys = own::parse(&Own(keys)).expect("acceptable");
            Grpc::new(keys, Duration::from_secs(1));
        }
    }
}
