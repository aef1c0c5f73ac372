//! `nats`: the server introduces itself and answers PING.
//!
//! INFO comes first, in plain; TLS begins after it where it is asked for. Then CONNECT and PING must be answered with
//! PONG. Where INFO says that credentials are wanted, it suffices: a CONNECT without them would be logged as an
//! error. A server in lame duck mode fails (it is leaving), and so does one that says `-ERR`, as one with too many
//! connections does. Known limit: `handshake_first`, where the server waits for TLS before it says anything.

use schemars::{JsonSchema, SchemaGenerator};
use serde::Deserialize;

use super::own;
use super::peer::{self, Keys, Peer};
use super::{Check, CheckFuture, CheckResult, Evidence, Kind};
use crate::config::{self, Gates};

pub(super) const KIND: Kind = Kind {
    config: config::Kind {
        name: "nats",
        passes_when: "PING is answered with PONG, or the server wants credentials; lame duck mode and too many \
                      connections fail",
        gates: |_, _| Gates::Startup,
        accept: |own, _| Keys::accept(own),
        schema: |generator: &mut SchemaGenerator| Keys::json_schema(generator),
        schemes: &["nats"],
        from_url: |url| peer::from_url(url, 4222),
        defaults: config::Defaults::COMMON,
    },
    build: |spec, _| Box::new(Nats { keys: own::parse(&spec.own).expect("configuration accepted the keys") }),
};

#[derive(Debug)]
struct Nats {
    keys: Keys,
}

impl Check for Nats {
    fn run(&self) -> CheckFuture<'_> {
        Box::pin(self.attempt())
    }

    fn tests(&self) -> String {
        format!("connects to {}, sends PING, and expects PONG, or the wish for credentials", self.keys)
    }
}

impl Nats {
    async fn attempt(&self) -> CheckResult {
        let Keys { address, tls } = &self.keys;
        let mut peer = Peer::reach(address).await?;
        let line = peer.line("INFO").await?;
        let Some(info) = Info::read(&line) else { return Err(peer.answered(&line, "INFO")) };
        let wants_tls = tls.trust(&address.host).is_some();
        let objection = match info {
            Info { ldm: true, .. } => Some("is in lame duck mode: it is about to leave"),
            Info { tls_required: false, tls_available: false, .. } if wants_tls => {
                Some("does not speak TLS, expected it to")
            }
            Info { tls_required: true, .. } if !wants_tls => Some("speaks only TLS (is tls missing?)"),
            _ => None,
        };
        if let Some(objection) = objection {
            peer.leave(b"").await;
            return Err(peer.unexpected(objection));
        }
        let mut peer = peer.secure(tls).await?;
        let version = own::one_line(&info.version, 40);
        if info.auth_required {
            // It says so right away if it has too many connections.
            let rest = peer.leave(b"").await;
            if rest.starts_with(b"-ERR") {
                return Err(peer.answered(&rest, "no error"));
            }
            return Ok(passed(format!("NATS {version}, accepts connections, with credentials")));
        }
        peer.send(CONNECT_AND_PING.as_bytes()).await?;
        for _ in 0..MOST_LINES {
            let line = peer.line("PONG").await?;
            match line.trim_ascii() {
                b"PONG" => {
                    peer.leave(b"").await;
                    return Ok(passed(format!("NATS {version}, answers PING")));
                }
                b"PING" => peer.send(b"PONG\r\n").await?,
                b"+OK" => {}
                line if line.starts_with(b"INFO ") => {}
                line => return Err(peer.answered(line, "PONG")),
            }
        }
        Err(peer.unexpected(&format!("said {MOST_LINES} other things, expected PONG")))
    }
}

fn passed(summary: String) -> Evidence {
    Evidence { summary, ..Evidence::default() }
}

/// What of INFO matters; a server leaves out what is false.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Info {
    version: String,
    auth_required: bool,
    tls_required: bool,
    tls_available: bool,
    /// Lame duck mode.
    ldm: bool,
}

impl Info {
    fn read(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line.strip_prefix(b"INFO ")?).ok()
    }
}

/// `verbose` off: no +OK for each line.
const CONNECT_AND_PING: &str = concat!(
    r#"CONNECT {"verbose":false,"pedantic":false,"name":"readygate","lang":"rust","version":""#,
    env!("CARGO_PKG_VERSION"),
    "\",\"protocol\":1,\"echo\":false}\r\nPING\r\n"
);

/// Lines that may come before PONG.
const MOST_LINES: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn info_is_read_whatever_else_it_holds() {
        let info = Info::read(br#"INFO {"version":"2.9.10","auth_required":true,"x":[1]} "#).expect("read");
        assert!(info.auth_required && !info.ldm && info.version == "2.9.10");
        for bad in ["", "INFO", "INFO {", "INFO 1", r#"INFO {"ldm":"yes"}"#, "-ERR 'x'", "+OK"] {
            assert!(Info::read(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(Info::read(format!("INFO {}", "[".repeat(30_000)).as_bytes()).is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Info::read(&[b"INFO ", bytes.as_slice()].concat());
        }
    }
}
