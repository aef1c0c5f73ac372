//! `dns`: a name has addresses.
//!
//! Asked through `getaddrinfo`, so that the answer is the one that the app would get: /etc/hosts, the search
//! list and `ndots` of resolv.conf count, and a record is an address, IPv4 or IPv6. A headless Service has one
//! for each pod behind it, which is what `min_records` is for.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use schemars::{JsonSchema, SchemaGenerator};
use serde::Deserialize;
use serde_json::{Value, json};

use super::connect::look_up;
use super::own;
use super::{Check, CheckError, CheckFuture, CheckResult, Evidence, Kind};
use crate::config::{self, Gates, KeyError, Listener, Own};

pub(super) const KIND: Kind = Kind {
    config: config::Kind {
        name: "dns",
        passes_when: "the name resolves to at least `min_records` addresses",
        gates: |_, _| Gates::Startup,
        accept,
        schema: |generator: &mut SchemaGenerator| Keys::json_schema(generator),
        schemes: &["dns"],
        from_url,
        defaults: config::Defaults::COMMON,
    },
    build: |spec, _| Box::new(Dns { keys: own::parse(&spec.own).expect("configuration accepted the keys") }),
};

/// The keys of `dns`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Keys {
    /// What to look up. Without a dot at its end, the search list of the pod applies.
    name: String,
    /// How many different addresses it must have at least.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    min_records: usize,
}

fn one() -> usize {
    1
}

#[derive(Debug)]
struct Dns {
    keys: Keys,
}

impl Check for Dns {
    fn run(&self) -> CheckFuture<'_> {
        // The port is of no account; the look-up wants one.
        Box::pin(async { self.verdict(look_up(&self.keys.name, 0).await) })
    }

    fn tests(&self) -> String {
        let Keys { name, min_records } = &self.keys;
        let wanted = match min_records {
            0 | 1 => "an address".to_owned(),
            many => format!("at least {many} addresses"),
        };
        format!("looks up {name}, and expects {wanted}")
    }
}

impl Dns {
    fn verdict(&self, found: Result<Vec<SocketAddr>, String>) -> CheckResult {
        let Keys { name, min_records } = &self.keys;
        let unexpected = |what: String| {
            let message = own::one_line(&format!("{name} {what}"), 400);
            CheckError::Unexpected { message, figures: None }
        };
        let found = found.map_err(|reason| unexpected(format!("does not resolve: {reason}")))?;
        // A resolver may say an address twice (a line in /etc/hosts and a record).
        let addresses: BTreeSet<IpAddr> = found.into_iter().map(|address| address.ip()).collect();
        let records = addresses.len();
        let noun = if records == 1 { "address" } else { "addresses" };
        if records < *min_records {
            return Err(unexpected(format!("has {records} {noun}, expected at least {min_records}")));
        }
        let shown: Vec<_> = addresses.iter().take(SHOWN).map(ToString::to_string).collect();
        let more = if records > SHOWN { ", …" } else { "" };
        Ok(Evidence {
            summary: format!("{records} {noun}: {}{more}", shown.join(", ")),
            figures: Some(json!({ "records": records })),
            ..Evidence::default()
        })
    }
}

fn accept(own: &Own, _: &[Listener]) -> Result<(), Vec<KeyError>> {
    let keys: Keys = own::parse(own)?;
    let mut problems = Vec::new();
    if let Err(error) = host_name(&keys.name) {
        problems.push(own::problem("name", error));
    }
    if keys.min_records == 0 {
        problems.push(own::problem("min_records", "0 is not allowed, expected at least 1"));
    }
    own::all(problems)
}

/// Refuses what cannot be a name. Underscores occur in names of Kubernetes' own SRV records and of hosts.
fn host_name(name: &str) -> Result<(), &'static str> {
    if name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        return Err("an address has nothing to resolve, expected a name, e.g. db.prod.svc.cluster.local");
    }
    let is_label = |label: &str| {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(valid)
    };
    let bare = name.strip_suffix('.').unwrap_or(name);
    match bare.len() <= 253 && bare.split('.').all(is_label) {
        true => Ok(()),
        false => Err("not a host name, expected e.g. db.prod.svc.cluster.local"),
    }
}

fn from_url(url: &str) -> Result<Value, String> {
    let expected = "expected dns://name or dns://name?min_records=2";
    let rest = url.strip_prefix("dns://").ok_or(expected)?;
    let (name, query) = rest.split_once('?').map_or((rest, None), |(name, query)| (name, Some(query)));
    let name = name.strip_suffix('/').unwrap_or(name);
    host_name(name).map_err(|error| format!("{error} ({expected})"))?;
    let Some(query) = query else { return Ok(json!({ "name": name })) };
    let records = query.strip_prefix("min_records=").and_then(|number| number.parse::<usize>().ok());
    match records {
        Some(records) if records > 0 => Ok(json!({ "name": name, "min_records": records })),
        _ => Err(format!("the query is not min_records with a number from 1, {expected}")),
    }
}

/// Addresses in the summary.
const SHOWN: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn dns(name: &str, min_records: usize) -> Dns {
        Dns { keys: Keys { name: name.to_owned(), min_records } }
    }

    #[test]
    fn addresses_count_once_and_must_be_enough() {
        let found =
            |addresses: &[[u8; 4]]| Ok(addresses.iter().map(|&ip| (ip, 0).into()).collect::<Vec<_>>());
        let (one, two) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let evidence = dns("peers", 2).verdict(found(&[two, one, two])).expect("two");
        assert_eq!(evidence.summary, "2 addresses: 10.0.0.1, 10.0.0.2");
        let error = dns("peers", 2).verdict(found(&[one, one])).expect_err("one");
        assert_eq!(error.to_string(), "peers has 1 address, expected at least 2");
    }

    #[test]
    fn a_long_answer_is_cut() {
        let many = (0..200).map(|last| ([10, 0, 0, last], 0).into()).collect();
        let evidence = dns("peers", 1).verdict(Ok(many)).expect("many");
        assert_eq!(evidence.summary, "200 addresses: 10.0.0.0, 10.0.0.1, 10.0.0.2, 10.0.0.3, …");
        assert_eq!(evidence.figures, Some(json!({ "records": 200 })));
    }

    #[test]
    fn names_are_told_from_addresses_and_nonsense() {
        for good in ["db", "db.prod.svc.cluster.local.", "_grpc._tcp.peers", "my_host", "1.example.com"] {
            assert_eq!(host_name(good), Ok(()), "{good}");
        }
        let long = "a.".repeat(130);
        for bad in
            ["", ".", "a..b", "10.0.0.1", "::1", "[::1]", "db:5432", "a b", "ä", &"a".repeat(64), &long]
        {
            assert!(host_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn urls_become_keys() {
        assert_eq!(from_url("dns://db.prod."), Ok(json!({ "name": "db.prod." })));
        assert_eq!(from_url("dns://peers/?min_records=3"), Ok(json!({ "name": "peers", "min_records": 3 })));
        for bad in ["dns://", "dns://a?min_records=0", "dns://a?x=1", "dns://10.0.0.1", "dns:a", "dns://a:53"]
        {
            assert!(from_url(bad).is_err(), "{bad}");
        }
    }
}
