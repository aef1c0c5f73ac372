//! `postgres`: a startup message gets as far as the question for a password, or further.
//!
//! The postmaster answers nothing to a startup message, and nothing else, before it knows whether it accepts
//! work: SQLSTATE 57P03 (starting up, shutting down, recovering) and 53300 (no connection left) come in its
//! place. (`SSLRequest` alone tells neither.)
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
//! Hence, without a password: the user is `postgres` unless `user` names another, the database has the user's name as everywhere
//! in PostgreSQL, a question for a password is left by closing, a session by Terminate. A refusal of this user,
//! database or host (SQLSTATE 28xxx, 3D000, 42501) passes and says so, since the server accepts work; the
//! server logs it each time. Known limit: connections reserved for superusers are told after the password, so a
//! server that has only those left passes.
//!
//! With `password` or `query` a session must be opened, so that a refusal fails, and the query must be answered.

mod login;
mod scram;

use schemars::{JsonSchema, SchemaGenerator};
use serde::Deserialize;

use self::login::{Login, Next};
use super::peer::{self, Peer};
use super::secret::Secret;
use super::trust::Tls;
use super::values::Address;
use super::{Check, CheckError, CheckFuture, CheckResult, Evidence, Kind, own};
use crate::config::{self, Gates, KeyError, Listener, Own};

pub(super) const KIND: Kind = Kind {
    config: config::Kind {
        name: "postgres",
        passes_when: "the server asks for a password, or opens or refuses a session of `user`; with `password` or `query`: \
                      it opens one and answers; starting up or shutting down (57P03) and too many connections (53300) fail",
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
    /// Who to begin a session as. The server logs an error for a user that it refuses.
    #[serde(default = "superuser")]
    user: String,
    /// The database to begin it in; that with the user's name if not given.
    database: Option<String>,
    /// The user's password, by SCRAM-SHA-256; in plain only over TLS, if the server asks for that.
    password: Option<Secret>,
    /// SQL to be answered without an error and in a few rows, such as `SELECT 1`.
    query: Option<String>,
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
    problems.extend(keys.password.iter().flat_map(|password| password.problems("password")));
    if keys
        .query
        .as_ref()
        .is_some_and(|sql| sql.trim().is_empty() || sql.len() > LONGEST_QUERY || sql.contains('\0'))
    {
        problems.push(own::problem(
            "query",
            format!("not a query, expected SQL of at most {LONGEST_QUERY} bytes"),
        ));
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
        let Keys { address, tls, user, database, password, query } = &self.keys;
        let (place, database) = (tls.place(address), database.as_ref().unwrap_or(user));
        let asks = format!("connects to {place}, asks for a session as {user} in {database}");
        match (password, query) {
            (None, None) => {
                format!("{asks}, and expects one, the question for a password, or only {user} to be refused")
            }
            (_, None) => format!("{asks}, and expects one"),
            (_, Some(_)) => format!("{asks}, and expects the configured query to be answered"),
        }
    }
}

impl Postgres {
    async fn attempt(&self) -> CheckResult {
        let mut peer = self.connect().await?;
        if let Some(password) = &self.keys.password {
            peer.hide(password);
        }
        let database = self.keys.database.as_ref().unwrap_or(&self.keys.user);
        peer.send(&startup(&self.keys.user, database)).await?;
        let mut login = Login::Begun;
        for _ in 0..MOST_MESSAGES {
            let (kind, body) = message(&mut peer, MESSAGES, AWAITED).await?;
            let summary = match meaning(kind, &body) {
                Meaning::GoOn => continue,
                Meaning::Fails(reason) => return Err(peer.unexpected(&reason)),
                Meaning::Authentication => match self.answer(&mut login, &body).await {
                    Some(Next::GoOn) => continue,
                    Some(Next::Send(answer)) => {
                        peer.send(&answer).await?;
                        continue;
                    }
                    Some(Next::Stop(reason)) => {
                        peer.leave(b"").await;
                        return Err(peer.unexpected(reason));
                    }
                    None => {
                        peer.leave(b"").await;
                        "accepts connections, with a password".to_owned()
                    }
                },
                Meaning::Ready => {
                    let answered = self.query(&mut peer).await?;
                    peer.leave(b"X\0\0\0\x04").await;
                    answered.to_owned()
                }
                Meaning::Refused(words) if self.wants_session() => {
                    return Err(peer.unexpected(&format!("refused the session: {words}")));
                }
                Meaning::Refused(words) => {
                    own::one_line(&format!("accepts connections, but refused this one: {words}"), 300)
                }
            };
            return Ok(Evidence { summary, ..Evidence::default() });
        }
        Err(peer.unexpected(&format!("sent {MOST_MESSAGES} messages and no end, expected {AWAITED}")))
    }

    /// Whether a mere sign of life is not enough.
    fn wants_session(&self) -> bool {
        self.keys.password.is_some() || self.keys.query.is_some()
    }

    /// What follows from an authentication message; None where the question for a password is all that was wanted.
    async fn answer(&self, login: &mut Login, body: &[u8]) -> Option<Next> {
        match &self.keys.password {
            Some(password) => Some(login.answer(body, password, self.keys.tls != Tls::Off).await),
            None if body == [0; 4] => Some(Next::GoOn),
            None if self.wants_session() => Some(Next::Stop("asks for a password, and none is configured")),
            None => None,
        }
    }

    /// Has the query answered, if there is one.
    async fn query(&self, peer: &mut Peer) -> Result<&'static str, CheckError> {
        let Some(query) = &self.keys.query else { return Ok("accepts connections") };
        let length = u32::try_from(query.len() + 5).expect("a query is short");
        peer.send(&[b"Q", &length.to_be_bytes()[..], query.as_bytes(), b"\0"].concat()).await?;
        let awaited = "an answer to the query";
        for _ in 0..MOST_MESSAGES {
            let (kind, body) = message(peer, ANSWERS, awaited).await?;
            match kind {
                b'Z' => return Ok("answers the query"),
                b'E' => {
                    let (code, words) = error(&body);
                    peer.leave(b"X\0\0\0\x04").await;
                    return Err(peer.unexpected(&format!("failed the query: {code} {words}")));
                }
                _ => {}
            }
        }
        Err(peer.unexpected(&format!(
            "answers the query in more than {MOST_MESSAGES} messages, expected a few rows"
        )))
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

/// Reads a message: a letter among `known`, four bytes of length, which counts itself, and the body.
async fn message(peer: &mut Peer, known: &[u8], awaited: &str) -> Result<(u8, Vec<u8>), CheckError> {
    let head = peer.exactly(5, awaited).await?;
    let (kind, length) = (head[0], u32::from_be_bytes([head[1], head[2], head[3], head[4]]));
    // A first byte that is no message of this phase is another protocol: its length means nothing.
    match length.checked_sub(4) {
        Some(length @ 0..=LONGEST_MESSAGE) if known.contains(&kind) => {
            Ok((kind, peer.exactly(length as usize, awaited).await?))
        }
        _ => Err(peer.answered(&head, awaited)),
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
    Authentication,
    Ready,
    Refused(String),
    Fails(String),
}

/// What a message of the startup phase means.
fn meaning(kind: u8, body: &[u8]) -> Meaning {
    match kind {
        b'R' => Meaning::Authentication,
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

/// Messages that may come in answer to a query. None of COPY: it is no question.
const ANSWERS: &[u8] = b"TDCIENSAZ";

/// More would be no startup: a server sends some 15 settings.
const MOST_MESSAGES: usize = 200;

/// Of one message, in bytes.
const LONGEST_MESSAGE: u32 = 64 * 1024;

/// Bytes of SQL.
const LONGEST_QUERY: usize = 4096;

/// Bytes of a name in PostgreSQL (NAMEDATALEN is 64).
const LONGEST_NAME: usize = 63;

#[cfg(test)]
mod tests;
