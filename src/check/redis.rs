//! `redis`: PING is answered as by a server that does its work. Valkey and KeyDB speak the same.
//!
//! `+PONG` passes. So does `-NOAUTH` (or `-NOPERM`): the server took the connection and the command, and the
//! password is the app's affair. Known limit: a server that wants a password says NOAUTH while it is still
//! loading, too; it asks for the password first. With `password` (and `username`, where users have names) AUTH comes
//! first and must be accepted: a wrong one fails. Anything else fails with its own words: `-LOADING` (the data
//! set is being read), `-MASTERDOWN` (a replica without its master), `-BUSY`, `-MISCONF` (it cannot save),
//! `-DENIED` (protected mode), `-ERR max number of clients reached`.

use schemars::{JsonSchema, SchemaGenerator};
use serde::Deserialize;

use super::peer::{self, Peer};
use super::secret::Secret;
use super::trust::Tls;
use super::values::Address;
use super::{Check, CheckError, CheckFuture, CheckResult, Evidence, Kind, own};
use crate::config::{self, Gates, KeyError, Listener, Own};

pub(super) const KIND: Kind = Kind {
    config: config::Kind {
        name: "redis",
        passes_when: "PING is answered with PONG, or with the wish for a password; LOADING, MASTERDOWN, MISCONF, \"max \
                      number of clients\", and a refused `password` fail",
        gates: |_, _| Gates::Startup,
        accept,
        schema: |generator: &mut SchemaGenerator| Keys::json_schema(generator),
        schemes: &["redis", "rediss"],
        from_url: |url| peer::from_url_or_secure(url, "rediss", (6379, 6379)),
        defaults: config::Defaults::COMMON,
    },
    build: |spec, _| {
        Box::new(Redis { keys: own::parse(&spec.own).expect("configuration accepted the keys") })
    },
};

/// The keys of `redis`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Keys {
    /// Where the server listens: host:port.
    address: Address,
    /// Whether TLS is spoken: false, true, or a map of settings (which means true). False if not given.
    #[serde(default)]
    tls: Tls,
    /// Who to log in as, where users have names (Redis 6 and newer).
    username: Option<String>,
    /// The password to log in with.
    password: Option<Secret>,
}

fn accept(own: &Own, _: &[Listener]) -> Result<(), Vec<KeyError>> {
    let keys: Keys = own::parse(own)?;
    let mut problems = keys.tls.problems();
    if let Some(name) = &keys.username {
        if name.is_empty() || name.len() > LONGEST_NAME {
            problems
                .push(own::problem("username", format!("not a name, expected 1 to {LONGEST_NAME} bytes")));
        }
        if keys.password.is_none() {
            problems.push(own::problem("", "password is missing, expected it beside username"));
        }
    }
    problems.extend(keys.password.iter().flat_map(|password| password.problems("password")));
    own::all(problems)
}

#[derive(Debug)]
struct Redis {
    keys: Keys,
}

impl Check for Redis {
    fn run(&self) -> CheckFuture<'_> {
        Box::pin(self.attempt())
    }

    fn tests(&self) -> String {
        let Keys { address, tls, username, password } = &self.keys;
        let place = tls.place(address);
        match (username, password) {
            (_, None) => {
                format!("connects to {place}, sends PING, and expects PONG, or the wish for a password")
            }
            (None, Some(_)) => format!("connects to {place}, logs in, sends PING, and expects PONG"),
            (Some(user), Some(_)) => {
                format!("connects to {place}, logs in as {user}, sends PING, and expects PONG")
            }
        }
    }
}

impl Redis {
    async fn attempt(&self) -> CheckResult {
        let mut peer = Peer::greet(&self.keys.address, &self.keys.tls).await?;
        if let Some(password) = &self.keys.password {
            self.log_in(&mut peer, password).await?;
        }
        peer.send(b"*1\r\n$4\r\nPING\r\n").await?;
        let answer = peer.line("+PONG").await?;
        let Some(summary) = verdict(&answer) else { return Err(peer.answered(&answer, "+PONG")) };
        peer.leave(QUIT).await;
        Ok(Evidence { summary: summary.to_owned(), ..Evidence::default() })
    }

    async fn log_in(&self, peer: &mut Peer, password: &Secret) -> Result<(), CheckError> {
        peer.hide(password);
        let words = ["AUTH"].into_iter().chain(self.keys.username.as_deref()).chain([password.reveal()]);
        peer.send(&command(&words.collect::<Vec<_>>())).await?;
        match peer.line("+OK").await?.as_slice() {
            b"+OK" => Ok(()),
            refusal @ [b'-', ..] => {
                let words = String::from_utf8_lossy(&refusal[1..]).into_owned();
                peer.leave(QUIT).await;
                Err(peer.unexpected(&format!("refused the password: {words}")))
            }
            other => Err(peer.answered(other, "+OK")),
        }
    }
}

/// A command as Redis wants it: every word with its length, so that none needs quotes.
fn command(words: &[&str]) -> Vec<u8> {
    let parts = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len()));
    format!("*{}\r\n{}", words.len(), parts.collect::<String>()).into_bytes()
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

const QUIT: &[u8] = b"*1\r\n$4\r\nQUIT\r\n";

/// Bytes of a user's name; Redis sets no bound.
const LONGEST_NAME: usize = 255;

#[cfg(test)]
mod tests {
    use serde_json::json;

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
    fn words_of_a_command_may_hold_anything() {
        assert_eq!(command(&["AUTH", "a b\r\nä"]), "*2\r\n$4\r\nAUTH\r\n$7\r\na b\r\nä\r\n".as_bytes());
    }

    #[test]
    fn a_name_needs_a_password() {
        let errors = |own| accept(&Own(own), &[]).err().map(|errors| errors[0].message.clone());
        assert_eq!(errors(json!({ "address": "r:1", "username": "a", "password": "b" })), None);
        let error = errors(json!({ "address": "r:1", "username": "a" })).expect("refused");
        assert_eq!(error, "password is missing, expected it beside username");
    }

    #[test]
    fn rediss_means_tls() {
        assert_eq!((KIND.config.from_url)("rediss://db"), Ok(json!({ "address": "db:6379", "tls": true })));
    }
}
