//! `redis`: PING is answered as by a server that does its work. Valkey and KeyDB speak the same.
//!
//! `+PONG` passes. So does `-NOAUTH` (or `-NOPERM`): the server took the connection and the command, and the
//! password is the app's affair. Known limit: a server that wants a password says NOAUTH while it is still
//! loading, too; it asks for the password first. Anything else fails with its own words: `-LOADING` (the data
//! set is being read), `-MASTERDOWN` (a replica without its master), `-BUSY`, `-MISCONF` (it cannot save),
//! `-DENIED` (protected mode), `-ERR max number of clients reached`.

use schemars::{JsonSchema, SchemaGenerator};
use serde_json::json;

use super::own;
use super::peer::{self, Keys, Peer};
use super::{Check, CheckFuture, CheckResult, Evidence, Kind};
use crate::config::{self, Gates};

pub(super) const KIND: Kind = Kind {
    config: config::Kind {
        name: "redis",
        passes_when: "PING is answered with PONG, or with the wish for a password; LOADING, MASTERDOWN, MISCONF and \
                      \"max number of clients\" fail",
        gates: |_, _| Gates::Startup,
        accept: |own, _| Keys::accept(own),
        schema: |generator: &mut SchemaGenerator| Keys::json_schema(generator),
        schemes: &["redis", "rediss"],
        from_url: |url| {
            let mut keys = peer::from_url(url, 6379)?;
            if url.starts_with("rediss:") {
                keys["tls"] = json!(true);
            }
            Ok(keys)
        },
        defaults: config::Defaults::COMMON,
    },
    build: |spec, _| {
        Box::new(Redis { keys: own::parse(&spec.own).expect("configuration accepted the keys") })
    },
};

#[derive(Debug)]
struct Redis {
    keys: Keys,
}

impl Check for Redis {
    fn run(&self) -> CheckFuture<'_> {
        Box::pin(self.attempt())
    }

    fn tests(&self) -> String {
        format!("connects to {}, sends PING, and expects PONG, or the wish for a password", self.keys)
    }
}

impl Redis {
    async fn attempt(&self) -> CheckResult {
        let mut peer = Peer::greet(&self.keys.address, &self.keys.tls).await?;
        peer.send(b"*1\r\n$4\r\nPING\r\n").await?;
        let answer = peer.line("+PONG").await?;
        let Some(summary) = verdict(&answer) else { return Err(peer.answered(&answer, "+PONG")) };
        peer.leave(b"*1\r\n$4\r\nQUIT\r\n").await;
        Ok(Evidence { summary: summary.to_owned(), ..Evidence::default() })
    }
}

/// What a good answer means; None for any other.
fn verdict(answer: &[u8]) -> Option<&'static str> {
    match answer {
        b"+PONG" => Some("answers PING"),
        _ if answer.starts_with(b"-NOAUTH ") => Some("accepts commands, with a password"),
        _ if answer.starts_with(b"-NOPERM ") => Some("accepts commands, PING is not permitted"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pong_and_the_wish_for_a_password_pass() {
        for good in ["+PONG", "-NOAUTH Authentication required.", "-NOPERM this user has no permissions"] {
            assert!(verdict(good.as_bytes()).is_some(), "{good}");
        }
        for bad in
            ["", "+", "+OK", "+PONGO", "-ERR max number of clients reached", "-LOADING Redis is loading"]
        {
            assert!(verdict(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn rediss_means_tls() {
        assert_eq!((KIND.config.from_url)("rediss://db"), Ok(json!({ "address": "db:6379", "tls": true })));
    }
}
