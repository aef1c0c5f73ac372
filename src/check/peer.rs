//! A conversation with a server of a dependency, in its own protocol.
//!
//! What all such kinds share: the way there (plain or TLS, from the first byte or later), reading that is
//! bounded and buffered, errors that say what came and what was expected, and a goodbye. Nothing here waits
//! for ever on purpose, but there is no deadline either: dropped with the run, it closes the connection.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::connect::connect;
use super::secret::Secret;
use super::trust::Tls;
use super::values::Address;
use super::{CheckError, own};
use crate::config::{KeyError, Own};

/// The keys of a kind that needs no others.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    /// Where the server listens: host:port.
    pub address: Address,
    /// Whether TLS is spoken: false, true, or a map of settings (which means true). False if not given.
    #[serde(default)]
    pub tls: Tls,
}

impl Keys {
    pub(super) fn accept(own: &Own) -> Result<(), Vec<KeyError>> {
        own::all(own::parse::<Self>(own)?.tls.problems())
    }
}

impl fmt::Display for Keys {
    /// `db:6379 over TLS`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.tls.place(&self.address))
    }
}

/// Keys from `scheme://host[:port][?tls=true]`.
pub(super) fn from_url(url: &str, default_port: u16) -> Result<Value, String> {
    let expected = "expected scheme://host:port, or scheme://host:port?tls=true";
    let (_, rest) = url.split_once("://").ok_or(expected)?;
    if rest.contains('@') {
        return Err(format!("credentials are not allowed here, {expected}"));
    }
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let place = place.strip_suffix('/').unwrap_or(place);
    let has_port = place.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let address =
        Address::parse(&if has_port { place.to_owned() } else { format!("{place}:{default_port}") })?;
    match query {
        "" | "tls=false" => Ok(json!({ "address": address.to_string() })),
        "tls=true" => Ok(json!({ "address": address.to_string(), "tls": true })),
        _ => Err(format!("an unknown query, {expected}")),
    }
}

/// The same, where a scheme of its own (`rediss`, `amqps`) means TLS and another port.
pub(super) fn from_url_or_secure(
    url: &str,
    secure_scheme: &str,
    (default_port, secure_port): (u16, u16),
) -> Result<Value, String> {
    let secure = url.split_once("://").is_some_and(|(scheme, _)| scheme == secure_scheme);
    let mut keys = from_url(url, if secure { secure_port } else { default_port })?;
    if secure {
        keys["tls"] = json!(true);
    }
    Ok(keys)
}

/// An open connection. Dropped without [`Peer::leave`], it just closes.
pub(super) struct Peer {
    stream: BufReader<Either<TcpStream, Box<TlsStream<TcpStream>>>>,
    address: Address,
    /// What no message may repeat, whatever the server sends back.
    secret: Option<Secret>,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Peer {
    /// Connects, and begins with TLS if that is asked for.
    pub(super) async fn greet(address: &Address, tls: &Tls) -> Result<Self, CheckError> {
        Self::reach(address).await?.secure(tls).await
    }

    /// Connects in plain.
    pub(super) async fn reach(address: &Address) -> Result<Self, CheckError> {
        let stream = connect(address).await?;
        // Small packets in turn: else the end of a TLS handshake and what follows it wait 40 ms for each other.
        let _ = stream.set_nodelay(true);
        let stream = BufReader::new(Either::Left(stream));
        Ok(Self { stream, address: address.clone(), secret: None })
    }

    /// Keeps this out of every message from now on.
    pub(super) fn hide(&mut self, secret: &Secret) {
        self.secret = Some(secret.clone());
    }

    /// Goes over to TLS if that is asked for.
    pub(super) async fn secure(self, tls: &Tls) -> Result<Self, CheckError> {
        let Some((trust, name)) = tls.trust(&self.address.host) else { return Ok(self) };
        if !self.stream.buffer().is_empty() {
            // Plain text that would be taken for what TLS protects (CVE-2021-23222).
            return Err(self.unexpected("sent more than its answer before TLS began"));
        }
        let Self { stream, address, secret } = self;
        let stream = match stream.into_inner() {
            Either::Left(plain) => match trust.handshake(plain, &name).await {
                Ok(stream) => Either::Right(Box::new(stream)),
                Err(reason) => {
                    let (target, reason) = (address.to_string(), own::one_line(&reason, LONGEST_QUOTE));
                    return Err(CheckError::Connect { target, reason });
                }
            },
            secured @ Either::Right(_) => secured,
        };
        Ok(Self { stream: BufReader::new(stream), address, secret })
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), CheckError> {
        let sent = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        // What the server said before it closed tells more than the failure to write.
        match sent.await {
            Err(error) if self.stream.buffer().is_empty() && !is_hang_up(&error) => {
                Err(self.unexpected(&format!("took no request: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Reads exactly `length` bytes of an `awaited` answer. The caller bounds the length.
    pub(super) async fn exactly(&mut self, length: usize, awaited: &str) -> Result<Vec<u8>, CheckError> {
        let mut bytes = Vec::with_capacity(length);
        let read = (&mut self.stream).take(length as u64).read_to_end(&mut bytes).await;
        if bytes.len() == length {
            return Ok(bytes);
        }
        Err(self.cut(&bytes, read.err(), awaited))
    }

    /// Reads a line of an `awaited` answer, without its end. Longer than [`LONGEST_LINE`] is an error.
    pub(super) async fn line(&mut self, awaited: &str) -> Result<Vec<u8>, CheckError> {
        let mut line = Vec::new();
        let read = (&mut self.stream).take(LONGEST_LINE).read_until(b'\n', &mut line).await;
        if line.pop_if(|last| *last == b'\n').is_none() {
            return Err(match read {
                Ok(_) if line.len() as u64 == LONGEST_LINE => self.answered(&line, awaited),
                read => self.cut(&line, read.err(), awaited),
            });
        }
        line.pop_if(|last| *last == b'\r');
        Ok(line)
    }

    /// Says goodbye as the protocol wants it, and waits a little for the server to close, so that it sees an end
    /// and no reset. Gives what the server still said.
    pub(super) async fn leave(&mut self, goodbye: &[u8]) -> Vec<u8> {
        let mut rest = Vec::new();
        let farewell = async {
            self.stream.write_all(goodbye).await?;
            self.stream.shutdown().await?;
            (&mut self.stream).take(LONGEST_LINE).read_to_end(&mut rest).await
        };
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
        rest
    }

    /// An answer that is not the `awaited` one.
    pub(super) fn answered(&self, bytes: &[u8], awaited: &str) -> CheckError {
        self.unexpected(&format!("answered {}, expected {awaited}", self.quote(bytes)))
    }

    /// An error about this server; cleaned and cut.
    pub(super) fn unexpected(&self, what: &str) -> CheckError {
        let what = match &self.secret {
            Some(secret) => String::from_utf8_lossy(&secret.hide_in(what.as_bytes())).into_owned(),
            None => what.to_owned(),
        };
        let message = own::one_line(&format!("{} {what}", self.address), LONGEST_QUOTE + 200);
        CheckError::Unexpected { message, figures: None }
    }

    /// Bytes for people. The secret is hidden before they are cut, lest its beginning stay.
    fn quote(&self, bytes: &[u8]) -> String {
        match &self.secret {
            Some(secret) => quote(&secret.hide_in(bytes)),
            None => quote(bytes),
        }
    }

    fn cut(&self, bytes: &[u8], error: Option<std::io::Error>, awaited: &str) -> CheckError {
        let how = match error.filter(|error| !is_hang_up(error)) {
            Some(error) => format!("broke off ({error})"),
            None => "closed the connection".to_owned(),
        };
        self.unexpected(&match bytes {
            [] => format!("{how} without an answer, expected {awaited}"),
            _ => format!("answered {} and {how}, expected {awaited}", self.quote(bytes)),
        })
    }
}

/// Bytes for people: text as text, anything else in hexadecimal.
pub(super) fn quote(bytes: &[u8]) -> String {
    // A TLS record (alert or handshake) of any version.
    if let [0x15 | 0x16, 0x03, ..] = bytes {
        return "in TLS (is tls missing?)".to_owned();
    }
    let is_text = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n' | 0x80..);
    match std::str::from_utf8(&bytes[..bytes.len().min(4 * LONGEST_QUOTE)]) {
        Ok(text) if bytes.iter().all(is_text) => format!("\"{}\"", own::one_line(text, LONGEST_QUOTE)),
        _ => {
            let shown: String = bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
            format!("0x{shown}{}", if bytes.len() > 16 { "…" } else { "" })
        }
    }
}

fn is_hang_up(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// Bytes of a line that are read at most; a NATS server lists its whole cluster in one.
const LONGEST_LINE: u64 = 32 << 10;

/// Characters of a server's words in a reason.
const LONGEST_QUOTE: usize = 200;

/// For the end of a connection; it goes at once unless the server is slow to close.
const FAREWELL: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn urls_become_keys_and_hold_no_credentials() {
        assert_eq!(from_url("redis://db", 6379), Ok(json!({ "address": "db:6379" })));
        assert_eq!(from_url("redis://[::1]/", 6379), Ok(json!({ "address": "[::1]:6379" })));
        assert_eq!(from_url("x://db:1?tls=true", 2), Ok(json!({ "address": "db:1", "tls": true })));
        for bad in ["redis://u:p@db", "redis://", "redis://db/0", "redis://db?x=y", "redis"] {
            assert!(from_url(bad, 6379).is_err(), "{bad}");
        }
    }

    #[test]
    fn tls_is_a_switch_or_a_map_and_errors_name_the_key() {
        let errors = |value: Value| {
            let own = Own(json!({ "address": "a:1", "tls": value }));
            Keys::accept(&own).err().map(|errors| (errors[0].path.join("."), errors[0].message.clone()))
        };
        for good in [json!(true), json!(false), json!({}), json!({ "ca": "/a", "server_name": "db" })] {
            assert_eq!(errors(good.clone()), None, "{good}");
        }
        for (bad, path) in [
            (json!("on"), "tls"),
            (json!({ "cert": "/a" }), "tls.cert"),
            (json!({ "server_name": 5 }), "tls.server_name"),
            (json!({ "server_name": "a b" }), "tls.server_name"),
            (json!({ "ca": "/a", "insecure_skip_verify": true }), "tls.insecure_skip_verify"),
        ] {
            assert_eq!(errors(bad.clone()).expect("refused").0, path, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_a_server_sent_is_one_short_line(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let quoted = quote(&bytes);
            prop_assert!(quoted.chars().count() <= LONGEST_QUOTE + 3 && !quoted.contains(char::is_control));
        }
    }
}
