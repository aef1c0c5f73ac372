//! `memcached`: `version` is answered with a version.
//!
//! A server that wants a password answers `CLIENT_ERROR unauthenticated`: it took the connection and the
//! command, so that passes too. `ERROR Too many open connections` fails. The binary protocol is not spoken;
//! a server with `-B binary` closes the connection and fails.

use schemars::{JsonSchema, SchemaGenerator};

use super::own;
use super::peer::{self, Keys, Peer};
use super::{Check, CheckFuture, CheckResult, Evidence, Kind};
use crate::config::{self, Gates};

pub(super) const KIND: Kind = Kind {
    config: config::Kind {
        name: "memcached",
        passes_when: "`version` is answered with one, or with the wish for a password; \"too many open connections\" \
                      fails",
        gates: |_, _| Gates::Startup,
        accept: |own, _| Keys::accept(own),
        schema: |generator: &mut SchemaGenerator| Keys::json_schema(generator),
        schemes: &["memcached"],
        from_url: |url| peer::from_url(url, 11211),
        defaults: config::Defaults::COMMON,
    },
    build: |spec, _| {
        Box::new(Memcached { keys: own::parse(&spec.own).expect("configuration accepted the keys") })
    },
};

#[derive(Debug)]
struct Memcached {
    keys: Keys,
}

impl Check for Memcached {
    fn run(&self) -> CheckFuture<'_> {
        Box::pin(self.attempt())
    }

    fn tests(&self) -> String {
        format!("connects to {}, sends version, and expects one, or the wish for a password", self.keys)
    }
}

impl Memcached {
    async fn attempt(&self) -> CheckResult {
        let mut peer = Peer::greet(&self.keys.address, &self.keys.tls).await?;
        peer.send(b"version\r\n").await?;
        let answer = peer.line(AWAITED).await?;
        let Some(summary) = verdict(&answer) else { return Err(peer.answered(&answer, AWAITED)) };
        peer.leave(b"quit\r\n").await;
        Ok(Evidence { summary, ..Evidence::default() })
    }
}

/// What a good answer means; None for any other.
fn verdict(answer: &[u8]) -> Option<String> {
    if answer == b"CLIENT_ERROR unauthenticated" {
        return Some("accepts commands, with a password".to_owned());
    }
    let version = std::str::from_utf8(answer.strip_prefix(b"VERSION ")?).ok()?;
    Some(own::one_line(&format!("version {version}"), 80))
}

const AWAITED: &str = "VERSION";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_and_the_wish_for_a_password_pass() {
        assert_eq!(verdict(b"VERSION 1.6.18"), Some("version 1.6.18".to_owned()));
        assert!(verdict(b"CLIENT_ERROR unauthenticated").is_some());
        for bad in [&b"ERROR Too many open connections"[..], b"ERROR", b"", b"VERSION", b"VERSION \xff"] {
            assert_eq!(verdict(bad), None, "{bad:?}");
        }
    }
}
