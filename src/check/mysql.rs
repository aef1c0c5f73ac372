//! `mysql`: the handshake of MySQL and MariaDB is gone through to its end, whatever that is.
//!
//! To its end, because a server counts each handshake that a client leaves half-way against the client's host,
//! and blocks the host after `max_connect_errors` (100): here that is the app's own address. A refused user
//! counts nothing (measured: MariaDB 10.11). So a refusal of this user (error 1045, 1251, 1698, 1044, 1049)
//! passes, since the server accepts work, and says so.
//!
//! What it logs: an account that lets the user in without a password is logged by nobody. A refused user is a
//! `[Warning] Access denied` in MariaDB with its default `log_warnings = 2`, each time, however the handshake is
//! ended; MySQL 8 says it in notes, which are off. So name an account without password and privileges
//! (`CREATE USER readygate@'%'`) where the log matters.
//!
//! Errors in place of the greeting or of the last answer fail with the server's words: 1040 too many connections,
//! 1129 host blocked, 1130 host not allowed, 1053 shutting down. Known limit: where the certificate is not
//! trusted, TLS breaks off in the middle of the handshake, and the server counts it.

use schemars::{JsonSchema, SchemaGenerator};
use serde::Deserialize;

use super::peer::{self, Peer};
use super::trust::Tls;
use super::values::Address;
use super::{Check, CheckError, CheckFuture, CheckResult, Evidence, Kind, own};
use crate::config::{self, Gates, KeyError, Listener, Own};

pub(super) const KIND: Kind = Kind {
    config: config::Kind {
        name: "mysql",
        passes_when: "the handshake ends, with `user` let in or refused; too many connections (1040), a blocked host \
                      (1129) and shutting down (1053) fail",
        gates: |_, _| Gates::Startup,
        accept,
        schema: |generator: &mut SchemaGenerator| Keys::json_schema(generator),
        schemes: &["mysql", "mariadb"],
        from_url: |url| peer::from_url(url, 3306),
        defaults: config::Defaults::COMMON,
    },
    build: |spec, _| {
        Box::new(MySql { keys: own::parse(&spec.own).expect("configuration accepted the keys") })
    },
};

/// The keys of `mysql`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Keys {
    /// Where the server listens: host:port.
    address: Address,
    /// Whether TLS is spoken: false, true, or a map of settings (which means true). False if not given.
    #[serde(default)]
    tls: Tls,
    /// Who to log in as; no password is sent. MariaDB logs a warning for a user that it refuses.
    #[serde(default = "ourselves")]
    user: String,
}

fn ourselves() -> String {
    "readygate".to_owned()
}

fn accept(own: &Own, _: &[Listener]) -> Result<(), Vec<KeyError>> {
    let keys: Keys = own::parse(own)?;
    let mut problems = keys.tls.problems();
    if keys.user.is_empty() || keys.user.len() > LONGEST_NAME || keys.user.contains('\0') {
        problems.push(own::problem("user", format!("not a name, expected 1 to {LONGEST_NAME} bytes")));
    }
    own::all(problems)
}

#[derive(Debug)]
struct MySql {
    keys: Keys,
}

impl Check for MySql {
    fn run(&self) -> CheckFuture<'_> {
        Box::pin(self.attempt())
    }

    fn tests(&self) -> String {
        let Keys { address, tls, user } = &self.keys;
        format!(
            "connects to {}, logs in as {user} without a password, and expects to be let in, or only {user} to be refused",
            tls.place(address)
        )
    }
}

impl MySql {
    async fn attempt(&self) -> CheckResult {
        let mut peer = Peer::reach(&self.keys.address).await?;
        let (sequence, greeting) = packet(&mut peer, "a greeting").await?;
        let capabilities = match greeted(&greeting) {
            Greeting::Welcome { capabilities } => capabilities,
            Greeting::Error(error) => {
                return Err(peer.unexpected(&format!("refused the connection: {error}")));
            }
            Greeting::Foreign => return Err(peer.answered(&greeting, "a greeting of protocol 10")),
        };
        let has_tls = capabilities & TLS != 0;
        let mut sequence = sequence;
        if self.keys.tls != Tls::Off && has_tls {
            sequence = sequence.wrapping_add(1);
            peer.send(&framed(sequence, &response(OURS | TLS, None))).await?;
            peer = peer.secure(&self.keys.tls).await?;
        }
        let flags = if self.keys.tls != Tls::Off && has_tls { OURS | TLS } else { OURS };
        sequence = sequence.wrapping_add(1);
        peer.send(&framed(sequence, &response(flags, Some(&self.keys.user)))).await?;
        let verdict = self.finish(&mut peer).await;
        if verdict.is_ok() {
            // COM_QUIT; whom the server refused, it has left already.
            peer.leave(&framed(0, &[1])).await;
        }
        if self.keys.tls != Tls::Off && !has_tls {
            // Told only now: the handshake had to be finished.
            return Err(peer.unexpected("does not speak TLS, expected it to: tls is set"));
        }
        let summary = own::one_line(&verdict?, 300);
        Ok(Evidence { summary, ..Evidence::default() })
    }

    /// From our answer to the server's verdict.
    async fn finish(&self, peer: &mut Peer) -> Result<String, CheckError> {
        for _ in 0..MOST_QUESTIONS {
            let (sequence, answer) = packet(peer, AWAITED).await?;
            match answer.first() {
                Some(0x00) => return Ok("accepts connections".to_owned()),
                Some(0xff) => {
                    let error = Error::read(&answer);
                    return if REFUSALS.contains(&error.code) {
                        Ok(format!("accepts connections, but refused this user: {error}"))
                    } else {
                        Err(peer.unexpected(&format!("refused the connection: {error}")))
                    };
                }
                // AuthSwitchRequest, AuthMoreData: an empty answer is that of an empty password.
                Some(0xfe | 0x01) => peer.send(&framed(sequence.wrapping_add(1), &[])).await?,
                _ => return Err(peer.answered(&answer, AWAITED)),
            }
        }
        Err(peer.unexpected(&format!("asked {MOST_QUESTIONS} times for more, expected {AWAITED}")))
    }
}

/// Reads a packet: three bytes of length, one of sequence, the payload.
async fn packet(peer: &mut Peer, awaited: &str) -> Result<(u8, Vec<u8>), CheckError> {
    let head = peer.exactly(4, awaited).await?;
    let length = u32::from_le_bytes([head[0], head[1], head[2], 0]);
    // In a handshake the counter is small, and an answer is never long: anything else is another protocol.
    if length == 0 || length > LONGEST_PACKET || head[3] > 2 * MOST_QUESTIONS {
        return Err(peer.answered(&head, awaited));
    }
    Ok((head[3], peer.exactly(length as usize, awaited).await?))
}

fn framed(sequence: u8, payload: &[u8]) -> Vec<u8> {
    // Payloads are our own, and short.
    let length = u32::try_from(payload.len()).expect("a short packet").to_le_bytes();
    [&length[..3], &[sequence], payload].concat()
}

/// HandshakeResponse41 with an empty password, or SSLRequest, which is its beginning.
fn response(capabilities: u32, user: Option<&str>) -> Vec<u8> {
    let mut payload = capabilities.to_le_bytes().to_vec();
    payload.extend_from_slice(&LONGEST_PACKET.to_le_bytes());
    payload.push(UTF8MB4);
    payload.extend_from_slice(&[0; 23]);
    if let Some(user) = user {
        payload.extend_from_slice(user.as_bytes());
        payload.extend_from_slice(b"\0\0mysql_native_password\0");
    }
    payload
}

#[derive(Debug, PartialEq)]
enum Greeting {
    Welcome { capabilities: u32 },
    Error(Error),
    Foreign,
}

fn greeted(payload: &[u8]) -> Greeting {
    match payload.split_first() {
        Some((0xff, _)) => Greeting::Error(Error::read(payload)),
        Some((10, rest)) => {
            capabilities(rest).map_or(Greeting::Foreign, |capabilities| Greeting::Welcome { capabilities })
        }
        _ => Greeting::Foreign,
    }
}

/// Version and zero, thread (4), challenge (8), zero, capabilities (2), charset, status (2), capabilities (2).
fn capabilities(greeting: &[u8]) -> Option<u32> {
    let version = greeting.iter().position(|&byte| byte == 0)?;
    let rest = greeting.get(version + 1..)?;
    let (low, high) = (rest.get(13..15)?, rest.get(18..20)?);
    Some(u32::from_le_bytes([low[0], low[1], high[0], high[1]]))
}

/// An error packet.
#[derive(Debug, PartialEq)]
struct Error {
    code: u16,
    words: String,
}

impl Error {
    fn read(payload: &[u8]) -> Self {
        let code = payload.get(1..3).map_or(0, |code| u16::from_le_bytes([code[0], code[1]]));
        let words = payload.get(3..).unwrap_or_default();
        // `#` and five characters of SQLSTATE, which tell less than the code.
        let words = if words.first() == Some(&b'#') { words.get(6..).unwrap_or_default() } else { words };
        Self { code, words: String::from_utf8_lossy(words).into_owned() }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.code, self.words)
    }
}

/// CLIENT_LONG_PASSWORD, CLIENT_PROTOCOL_41, CLIENT_SECURE_CONNECTION, CLIENT_PLUGIN_AUTH.
const OURS: u32 = 0x0000_0001 | 0x0000_0200 | 0x0000_8000 | 0x0008_0000;

/// CLIENT_SSL.
const TLS: u32 = 0x0000_0800;

const UTF8MB4: u8 = 45;

/// Database denied or unknown; user denied: by password, by plugin, for want of a method in common, locked, for
/// want of TLS.
const REFUSALS: &[u16] = &[1044, 1045, 1049, 1251, 1698, 3118, 3159];

const AWAITED: &str = "OK or a refusal of the user";

/// Packets of one handshake before its end.
const MOST_QUESTIONS: u8 = 4;

/// Of one packet of the handshake, in bytes.
const LONGEST_PACKET: u32 = 64 * 1024;

/// Bytes of a name (MariaDB: 80 characters, MySQL: 32).
const LONGEST_NAME: usize = 240;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_greeting_tells_what_the_server_can() {
        let mut greeting = b"\x0a5.5.5-10.11.19-MariaDB\0".to_vec();
        greeting.extend_from_slice(&[9; 13]);
        greeting.extend_from_slice(&[0x01, 0x08, 45, 2, 0, 0x08, 0x00, 21]);
        assert_eq!(greeted(&greeting), Greeting::Welcome { capabilities: 0x0008_0801 });
        assert_eq!(greeted(&greeting[..40]), Greeting::Foreign);
        assert_eq!(greeted(b"HTTP/1.1"), Greeting::Foreign);
    }

    #[test]
    fn an_error_has_a_code_and_words_with_or_without_a_state() {
        for packet in [&b"\xff\x10\x04#08004Too many connections"[..], b"\xff\x10\x04Too many connections"] {
            assert_eq!(Error::read(packet).to_string(), "1040 Too many connections");
        }
        assert_eq!(Error::read(b"\xff"), Error { code: 0, words: String::new() });
    }

    #[test]
    fn a_request_for_tls_is_the_beginning_of_the_response() {
        assert_eq!(response(OURS, None).len(), 32);
        assert!(response(OURS, Some("u")).ends_with(b"\0u\0\0mysql_native_password\0"));
    }

    proptest! {
        #[test]
        fn no_packet_makes_the_parser_panic(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (greeted(&payload), Error::read(&payload));
        }
    }
}
