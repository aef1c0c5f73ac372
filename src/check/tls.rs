//! `tls`: a server's certificate is good, and stays good for a while.
//!
//! One handshake: the chain must lead to somebody trusted, the name must fit, and what is left of the
//! certificate's validity must be enough. It is the leaf whose end counts; those above it are verified, but
//! servers send spare ones too, whose end means nothing. Then the connection is closed as TLS wants it.
//! Nothing is said inside, so a server that asks for a client's certificate passes too.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rustls_pki_types::ServerName;
use schemars::{JsonSchema, SchemaGenerator};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::connect::connect;
use super::own;
use super::values::Address;
use super::{Check, CheckError, CheckFuture, CheckResult, Evidence, Kind};
use crate::config::units::Period;
use crate::config::{self, Gates, KeyError, Listener, Own};
use crate::tls::{Trust, not_after};

pub(super) const KIND: Kind = Kind {
    config: config::Kind {
        name: "tls",
        passes_when: "the TLS handshake works, chain and name of the certificate are right, and it is valid for \
                      `min_validity` more",
        gates: |_, _| Gates::Startup,
        accept,
        schema: |generator: &mut SchemaGenerator| Keys::json_schema(generator),
        schemes: &["tls"],
        from_url,
        defaults: config::Defaults::COMMON,
    },
    build: |spec, _| Box::new(Tls { keys: own::parse(&spec.own).expect("configuration accepted the keys") }),
};

/// The keys of `tls`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Keys {
    /// Where the server listens: host:port.
    address: Address,
    /// The name that is asked for and that the certificate must have; the host of the address if not given.
    server_name: Option<String>,
    /// How long the certificate must be valid from now, e.g. 168h.
    min_validity: Option<Period>,
    /// PEM file with the certificate authorities to trust, instead of the public ones.
    ca: Option<PathBuf>,
    /// Take any certificate; `min_validity` still holds.
    #[serde(default)]
    insecure_skip_verify: bool,
}

#[derive(Debug)]
struct Tls {
    keys: Keys,
}

impl Check for Tls {
    fn run(&self) -> CheckFuture<'_> {
        Box::pin(self.attempt())
    }

    fn tests(&self) -> String {
        let Keys { address, server_name, min_validity, insecure_skip_verify, .. } = &self.keys;
        let name = server_name.as_ref().unwrap_or(&address.host);
        let trusted = if *insecure_skip_verify {
            "any certificate".to_owned()
        } else {
            format!("a trusted certificate for {name}")
        };
        let valid =
            min_validity.map_or(String::new(), |Period(least)| format!(", valid for {} more", span(least)));
        format!("makes a TLS handshake with {address}, and expects {trusted}{valid}")
    }
}

impl Tls {
    async fn attempt(&self) -> CheckResult {
        let Keys { address, server_name, ca, insecure_skip_verify, .. } = &self.keys;
        let trust = match ca {
            _ if *insecure_skip_verify => Trust::Anybody,
            Some(path) => Trust::File(path.clone()),
            None => Trust::Public,
        };
        let stream = connect(address).await?;
        let name = server_name.as_ref().unwrap_or(&address.host);
        let stream = trust.handshake(stream, name).await.map_err(|reason| {
            let hint = if reason.contains("InvalidContentType") { ", the answer is not TLS" } else { "" };
            let reason = own::one_line(&format!("{reason}{hint}"), 300);
            CheckError::Connect { target: address.to_string(), reason }
        })?;
        let (_, session) = stream.get_ref();
        let version = session.protocol_version().and_then(|version| version.as_str()).unwrap_or("TLS");
        let leaf = session.peer_certificates().and_then(|chain| chain.first());
        let end = leaf.and_then(|certificate| not_after(certificate));
        let verdict = self.verdict(version, end, SystemTime::now());
        leave(stream).await;
        verdict
    }

    fn verdict(&self, version: &str, end: Option<SystemTime>, now: SystemTime) -> CheckResult {
        let unexpected = |what: &str, left: Option<i64>| CheckError::Unexpected {
            message: own::one_line(&format!("{} {what}", self.keys.address), 300),
            figures: left.map(|seconds| json!({ "validity_left_seconds": seconds })),
        };
        let Some(end) = end else {
            return Err(unexpected("sent a certificate without a readable end of its validity", None));
        };
        let left = end.duration_since(now);
        let seconds = match &left {
            Ok(left) => i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            Err(past) => i64::try_from(past.duration().as_secs()).map_or(i64::MIN, |seconds| -seconds),
        };
        let validity = match &left {
            Ok(left) => format!("a certificate that is valid for {}", span(*left)),
            Err(past) => format!("a certificate that expired {} ago", span(past.duration())),
        };
        match self.keys.min_validity {
            Some(Period(wanted)) if left.as_ref().map_or(true, |left| *left < wanted) => {
                let what = format!("has {validity}, expected at least {} to go", span(wanted));
                Err(unexpected(&what, Some(seconds)))
            }
            _ => Ok(Evidence {
                summary: format!("{}, {validity}", version.replace("TLSv1_", "TLS 1.")),
                figures: Some(json!({ "validity_left_seconds": seconds })),
                ..Evidence::default()
            }),
        }
    }
}

/// Says that no more will come, and takes what the server still sends (session tickets): a reset would look like
/// an accident there.
async fn leave(mut stream: TlsStream<TcpStream>) {
    let farewell = async {
        stream.shutdown().await?;
        let mut rest = stream.take(LONGEST_FAREWELL);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
}

/// A time rounded down, as people say it: days from two of them on, then hours, then minutes.
fn span(time: Duration) -> String {
    match time.as_secs() / 60 {
        minutes if minutes >= 2 * 24 * 60 => format!("{}d", minutes / 60 / 24),
        minutes if minutes >= 2 * 60 => format!("{}h", minutes / 60),
        0 => format!("{}s", time.as_secs()),
        minutes => format!("{minutes}m"),
    }
}

fn accept(own: &Own, _: &[Listener]) -> Result<(), Vec<KeyError>> {
    let keys: Keys = own::parse(own)?;
    let mut problems = Vec::new();
    if keys.server_name.is_some_and(|name| ServerName::try_from(name).is_err()) {
        problems.push(own::problem("server_name", "not a host name, expected e.g. db.example.com"));
    }
    if keys.ca.is_some() && keys.insecure_skip_verify {
        let message = "true is not allowed together with ca, expected one of them";
        problems.push(own::problem("insecure_skip_verify", message));
    }
    own::all(problems)
}

fn from_url(url: &str) -> Result<Value, String> {
    let expected = "expected tls://host:443 or tls://host?min_validity=168h";
    let rest = url.strip_prefix("tls://").ok_or(expected)?;
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let place = place.strip_suffix('/').unwrap_or(place);
    let has_port = place.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let address = Address::parse(&if has_port { place.to_owned() } else { format!("{place}:443") })?;
    let mut keys = json!({ "address": address.to_string() });
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some((key @ ("min_validity" | "server_name"), value)) => keys[key] = json!(value),
            _ => return Err(format!("the query is not min_validity or server_name, {expected}")),
        }
    }
    Ok(keys)
}

/// For the end of a connection; it goes at once unless the server is slow to close.
const FAREWELL: Duration = Duration::from_millis(50);

/// Bytes that are taken after our goodbye.
const LONGEST_FAREWELL: u64 = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(min_validity: Option<u64>, left: i64) -> Result<String, String> {
        let keys =
            json!({ "address": "db:443", "min_validity": min_validity.map(|hours| format!("{hours}h")) });
        let tls = Tls { keys: serde_json::from_value(keys).expect("keys") };
        let now = SystemTime::now();
        let span = Duration::from_secs(left.unsigned_abs());
        let end = if left < 0 { now - span } else { now + span };
        let verdict = tls.verdict("TLSv1_3", Some(end), now);
        verdict.map(|evidence| evidence.summary).map_err(|error| error.to_string())
    }

    #[test]
    fn the_validity_that_is_left_must_be_enough() {
        let day = 86_400;
        let good = Ok("TLS 1.3, a certificate that is valid for 7d".to_owned());
        assert_eq!(verdict(Some(168), 7 * day), good);
        assert_eq!(verdict(None, 7 * day), good);
        assert_eq!(
            verdict(Some(168), 7 * day - 1),
            Err("db:443 has a certificate that is valid for 6d, expected at least 7d to go".to_owned())
        );
        assert_eq!(
            verdict(Some(1), -3 * day),
            Err("db:443 has a certificate that expired 3d ago, expected at least 60m to go".to_owned())
        );
    }

    #[test]
    fn urls_become_keys() {
        assert_eq!(from_url("tls://db"), Ok(json!({ "address": "db:443" })));
        assert_eq!(from_url("tls://[::1]/"), Ok(json!({ "address": "[::1]:443" })));
        assert_eq!(
            from_url("tls://db:8443?min_validity=168h&server_name=a.b"),
            Ok(json!({ "address": "db:8443", "min_validity": "168h", "server_name": "a.b" }))
        );
        for bad in ["tls://", "tls:db", "tls://db?ca=/a", "tls://db?min_validity", "tls://u@db"] {
            assert!(from_url(bad).is_err(), "{bad}");
        }
    }
}
