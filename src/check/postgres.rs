//! `postgres`: a startup message gets as far as the question for a password, or further.
//!
//! The postmaster answers nothing to a startup message, and nothing else, before it knows whether it accepts
//! work: SQLSTATE 57P03 (starting up, shutting down, recovering) and 53300 (no connection left) come in its
//! place. (`SSLRequest` alone tells neither.) No credentials are sent.
//!
//! What a server with default settings logs for each way of leaving was measured (PostgreSQL 15):
//!
//! | asked for | user | left by | log |
//! |---|---|---|---|
//! | SCRAM or md5 | any | closing | nothing, as when psql goes to ask its user for the password |
//! | SCRAM or md5 | any | Terminate | `FATAL: expected SASL response, got message type 88` |
//! | nothing (`trust`) | exists | Terminate after ReadyForQuery, or closing | nothing |
//! | nothing (`trust`) | is unknown | (refused) | `FATAL: role "x" does not exist` |
//!
//! Hence: the user is `postgres` unless `user` names another, the database has the user's name as everywhere
//! in PostgreSQL, a question for a password is left by closing, a session by Terminate. A refusal of this user,
//! database or host (SQLSTATE 28xxx, 3D000, 42501) passes and says so, since the server accepts work; the
//! server logs it each time. Known limit: connections reserved for superusers are told after the password, so a
//! server that has only those left passes.

use schemars::{JsonSchema, SchemaGenerator};
use serde::Deserialize;

use super::peer::{self, Peer};
use super::trust::Tls;
use super::values::Address;
use super::{Check, CheckError, CheckFuture, CheckResult, Evidence, Kind, own};
use crate::config::{self, Gates, KeyError, Listener, Own};

pub(super) const KIND: Kind = Kind {
    config: config::Kind {
        name: "postgres",
        passes_when: "the server asks for a password, or opens or refuses a session of `user`; starting up or shutting \
                      down (57P03) and too many connections (53300) fail",
        gates: |_, _| Gates::Startup,
        accept,
        schema: |generator: &mut SchemaGenerator| Keys::json_schema(generator),
        schemes: &["postgres", "postgresql"],
        from_url: |url| peer::from_url(url, 5432),
        defaults: config::Defaults::COMMON,
    },
    build: |spec, _| {
        Box::new(Postgres { keys: own::parse(&spec.own).expect("configuration accepted the keys") })
    },
};

/// The keys of `postgres`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Keys {
    /// Where the server listens: host:port.
    address: Address,
    /// Whether TLS is spoken: false, true, or a map of settings (which means true). False if not given.
    #[serde(default)]
    tls: Tls,
    /// Who to begin a session as; no password is sent. The server logs an error for a user that it refuses.
    #[serde(default = "superuser")]
    user: String,
    /// The database to begin it in; that with the user's name if not given.
    database: Option<String>,
}

fn superuser() -> String {
    "postgres".to_owned()
}

fn accept(own: &Own, _: &[Listener]) -> Result<(), Vec<KeyError>> {
    let keys: Keys = own::parse(own)?;
    let mut problems = keys.tls.problems();
    for (key, name) in [("user", Some(&keys.user)), ("database", keys.database.as_ref())] {
        if name.is_some_and(|name| name.is_empty() || name.len() > LONGEST_NAME || name.contains('\0')) {
            problems.push(own::problem(key, format!("not a name, expected 1 to {LONGEST_NAME} bytes")));
        }
    }
    own::all(problems)
}

#[derive(Debug)]
struct Postgres {
    keys: Keys,
}

impl Check for Postgres {
    fn run(&self) -> CheckFuture<'_> {
        Box::pin(self.attempt())
    }

    fn tests(&self) -> String {
        let Keys { address, tls, user, database } = &self.keys;
        format!(
            "connects to {}, asks for a session as {user} in {}, and expects one, the question for a password, or only \
             {user} to be refused",
            tls.place(address),
            database.as_ref().unwrap_or(user)
        )
    }
}

impl Postgres {
    async fn attempt(&self) -> CheckResult {
        let mut peer = self.connect().await?;
        let database = self.keys.database.as_ref().unwrap_or(&self.keys.user);
        peer.send(&startup(&self.keys.user, database)).await?;
        for _ in 0..MOST_MESSAGES {
            let head = peer.exactly(5, AWAITED).await?;
            let (kind, length) = (head[0], u32::from_be_bytes([head[1], head[2], head[3], head[4]]));
            // A first byte that is no message of this phase is another protocol: its length means nothing.
            let body = match length.checked_sub(4) {
                Some(length @ 0..=LONGEST_MESSAGE) if MESSAGES.contains(&kind) => length as usize,
                _ => return Err(peer.answered(&head, AWAITED)),
            };
            let body = peer.exactly(body, AWAITED).await?;
            let summary = match meaning(kind, &body) {
                Meaning::GoOn => continue,
                Meaning::Fails(reason) => return Err(peer.unexpected(&reason)),
                Meaning::AsksForPassword => {
                    peer.leave(b"").await;
                    "accepts connections, with a password".to_owned()
                }
                Meaning::Ready => {
                    peer.leave(b"X\0\0\0\x04").await;
                    "accepts connections".to_owned()
                }
                Meaning::Refused(words) => {
                    own::one_line(&format!("accepts connections, but refused this one: {words}"), 300)
                }
            };
            return Ok(Evidence { summary, ..Evidence::default() });
        }
        Err(peer.unexpected(&format!("sent {MOST_MESSAGES} messages and no end, expected {AWAITED}")))
    }

    async fn connect(&self) -> Result<Peer, CheckError> {
        let mut peer = Peer::reach(&self.keys.address).await?;
        if self.keys.tls == Tls::Off {
            return Ok(peer);
        }
        peer.send(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).await?;
        let awaited = "S (TLS may begin)";
        match peer.exactly(1, awaited).await?.as_slice() {
            b"S" => peer.secure(&self.keys.tls).await,
            b"N" => Err(peer.unexpected("does not speak TLS, expected it to: tls is set")),
            other => Err(peer.answered(other, awaited)),
        }
    }
}

/// StartupMessage of protocol 3.0.
fn startup(user: &str, database: &str) -> Vec<u8> {
    let mut body = 196_608_u32.to_be_bytes().to_vec();
    for text in ["user", user, "database", database, "application_name", "readygate", ""] {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    // Names are short: see LONGEST_NAME.
    let length = u32::try_from(body.len() + 4).expect("a short message");
    [&length.to_be_bytes()[..], &body].concat()
}

#[derive(Debug, PartialEq)]
enum Meaning {
    GoOn,
    AsksForPassword,
    Ready,
    Refused(String),
    Fails(String),
}

/// What a message of the startup phase means.
fn meaning(kind: u8, body: &[u8]) -> Meaning {
    match kind {
        b'R' if body.first_chunk() == Some(&[0; 4]) => Meaning::GoOn,
        b'R' => Meaning::AsksForPassword,
        b'Z' => Meaning::Ready,
        b'E' => {
            let (code, words) = error(body);
            let words = format!("{code} {words}");
            if code.starts_with("28") || code == "3D000" || code == "42501" {
                Meaning::Refused(words)
            } else {
                Meaning::Fails(format!("refused the session: {words}"))
            }
        }
        // ParameterStatus, BackendKeyData, NoticeResponse, NegotiateProtocolVersion.
        _ => Meaning::GoOn,
    }
}

/// SQLSTATE and message of an ErrorResponse: fields, each a letter and a text that ends with a zero.
fn error(body: &[u8]) -> (String, String) {
    let field = |letter: u8| {
        let found = body.split(|&byte| byte == 0).find(|field| field.first() == Some(&letter));
        String::from_utf8_lossy(found.map_or(b"", |field| &field[1..])).into_owned()
    };
    (field(b'C'), field(b'M'))
}

const AWAITED: &str = "a question for a password or ReadyForQuery";

/// Messages that a server may send before it is ready for queries.
const MESSAGES: &[u8] = b"RESKZNv";

/// More would be no startup: a server sends some 15 settings.
const MOST_MESSAGES: usize = 200;

/// Of one message, in bytes.
const LONGEST_MESSAGE: u32 = 64 * 1024;

/// Bytes of a name in PostgreSQL (NAMEDATALEN is 64).
const LONGEST_NAME: usize = 63;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn refusal(code: &str) -> Meaning {
        meaning(b'E', format!("SFATAL\0C{code}\0Msorry\0\0").as_bytes())
    }

    #[test]
    fn only_a_refusal_of_the_user_or_database_means_that_work_is_accepted() {
        for code in ["28000", "28P01", "3D000", "42501"] {
            assert_eq!(refusal(code), Meaning::Refused(format!("{code} sorry")));
        }
        for code in ["57P03", "53300", "57P01", "08P01", "XX000", ""] {
            assert_eq!(refusal(code), Meaning::Fails(format!("refused the session: {code} sorry")));
        }
    }

    #[test]
    fn a_session_is_ready_only_after_trust_has_been_checked() {
        assert_eq!(meaning(b'R', &[0, 0, 0, 0]), Meaning::GoOn);
        assert_eq!(meaning(b'R', &[0, 0, 0, 10, b'S']), Meaning::AsksForPassword);
        assert_eq!(meaning(b'S', b"TimeZone\0UTC\0"), Meaning::GoOn);
        assert_eq!(meaning(b'Z', b"I"), Meaning::Ready);
    }

    #[test]
    fn a_startup_message_says_its_length_user_and_database() {
        let message = startup("u", "d");
        assert_eq!(message[..8], [0, 0, 0, message.len() as u8, 0, 3, 0, 0]);
        assert_eq!(&message[8..26], b"user\0u\0database\0d\0"[..].get(..18).expect("18 bytes"));
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        for (key, name) in
            [("user", "".to_owned()), ("database", "x".repeat(64)), ("user", "a\0b".to_owned())]
        {
            let own = Own(json!({ "address": "db:5432", key: name }));
            assert_eq!(accept(&own, &[]).expect_err(key)[0].path, [key]);
        }
    }

    proptest! {
        #[test]
        fn no_message_makes_the_parser_panic(kind: u8, body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = meaning(kind, &body);
        }
    }
}
