//! `amqp`: a broker of AMQP 0-9-1 introduces itself; with credentials, it opens a connection and takes messages.
//!
//! What RabbitMQ logs for each way of leaving was measured (3.10):
//!
//! | left | by | log |
//! |---|---|---|
//! | before a byte was sent | closing | nothing |
//! | after Start, or anywhere before OpenOk | closing or reset | a warning, `client unexpectedly closed TCP connection` |
//! | after Start, or anywhere before OpenOk | Close | an error, after 3 s: `unexpected method in connection state` |
//! | after StartOk with a mechanism or a password that it does not take | whatever follows | an error |
//! | after OpenOk | Close, CloseOk | three lines at `info`, as for any client |
//!
//! So nothing quiet can be asked of it without credentials: what is left is a warning a run, and no error. With
//! `user` and `password` the log has no line above `info`.
//!
//! A broker without memory or disk goes on answering all this, and stops reading from whoever publishes. It says so
//! (`connection.blocked`) once it sees the head of a message; hence one is begun, of which the body never follows:
//! it is never judged against permissions, never routed, and gone with the connection. A broker in that state answers
//! no Close either, so the heartbeat is set to 1 s, after which it gives such a connection up (and logs a warning).

mod frame;

use schemars::{JsonSchema, SchemaGenerator};
use serde::Deserialize;

use self::frame::{HEARTBEAT, PROTOCOL_HEADER, Reader, content_header, long, method, short};
use super::peer::{self, Peer};
use super::secret::Secret;
use super::trust::Tls;
use super::values::Address;
use super::{Check, CheckError, CheckFuture, CheckResult, Evidence, Kind, own};
use crate::config::{self, Gates, KeyError, Listener, Own};

pub(super) const KIND: Kind = Kind {
    config: config::Kind {
        name: "amqp",
        passes_when: "the broker offers AMQP 0-9-1; with `user` and `password`: opens a connection to `vhost`, and a \
                      memory or disk alarm fails",
        gates: |_, _| Gates::Startup,
        accept,
        schema: |generator: &mut SchemaGenerator| Keys::json_schema(generator),
        schemes: &["amqp", "amqps"],
        from_url: |url| peer::from_url_or_secure(url, "amqps", (5672, 5671)),
        defaults: config::Defaults::COMMON,
    },
    build: |spec, _| Box::new(Amqp { keys: own::parse(&spec.own).expect("configuration accepted the keys") }),
};

/// The keys of `amqp`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Keys {
    /// Where the broker listens: host:port.
    address: Address,
    /// Whether TLS is spoken: false, true, or a map of settings (which means true). False if not given.
    #[serde(default)]
    tls: Tls,
    /// Who to log in as. Without credentials RabbitMQ logs a warning each time.
    user: Option<String>,
    /// The user's password.
    password: Option<Secret>,
    /// The virtual host to open.
    #[serde(default = "root")]
    vhost: String,
}

fn root() -> String {
    "/".to_owned()
}

fn accept(own: &Own, _: &[Listener]) -> Result<(), Vec<KeyError>> {
    let keys: Keys = own::parse(own)?;
    let mut problems = keys.tls.problems();
    for (key, name) in [("user", keys.user.as_ref()), ("vhost", Some(&keys.vhost))] {
        if name.is_some_and(|name| name.is_empty() || name.len() > LONGEST_NAME || name.contains('\0')) {
            problems.push(own::problem(key, format!("not a name, expected 1 to {LONGEST_NAME} bytes")));
        }
    }
    match (&keys.user, &keys.password) {
        (Some(_), None) => problems.push(own::problem("", "password is missing, expected it beside user")),
        (None, Some(_)) => problems.push(own::problem("", "user is missing, expected it beside password")),
        (_, password) => problems.extend(password.iter().flat_map(|password| password.problems("password"))),
    }
    own::all(problems)
}

#[derive(Debug)]
struct Amqp {
    keys: Keys,
}

impl Check for Amqp {
    fn run(&self) -> CheckFuture<'_> {
        Box::pin(self.attempt())
    }

    fn tests(&self) -> String {
        let Keys { address, tls, user, vhost, .. } = &self.keys;
        let place = tls.place(address);
        match user {
            None => format!("connects to {place}, and expects a broker that speaks AMQP 0-9-1"),
            Some(user) => {
                format!(
                    "connects to {place}, logs in as {user} to {vhost}, and expects that messages are taken"
                )
            }
        }
    }
}

impl Amqp {
    async fn attempt(&self) -> CheckResult {
        let mut peer = Peer::greet(&self.keys.address, &self.keys.tls).await?;
        peer.send(PROTOCOL_HEADER).await?;
        let start = frame::read(&mut peer, "Connection.Start").await?;
        let Some(start) = Start::read(&start) else {
            return Err(peer.answered(&start.payload, "Connection.Start of AMQP 0-9-1"));
        };
        let product = own::one_line(&start.product, 60);
        let summary = match (&self.keys.user, &self.keys.password) {
            (Some(user), Some(password)) => {
                peer.hide(password);
                if !start.mechanisms.split(' ').any(|mechanism| mechanism == "PLAIN") {
                    let offered = &start.mechanisms;
                    return Err(peer.unexpected(&format!("offers the mechanisms {offered}, expected PLAIN")));
                }
                peer.send(&start_ok(user, password)).await?;
                self.converse(&mut peer).await?;
                format!("{product}, takes messages")
            }
            _ => {
                peer.leave(b"").await;
                format!("{product}, asks for credentials")
            }
        };
        Ok(Evidence { summary, ..Evidence::default() })
    }

    /// From StartOk to the end of the connection.
    async fn converse(&self, peer: &mut Peer) -> Result<(), CheckError> {
        for _ in 0..MOST_FRAMES {
            let frame = frame::read(peer, "Connection.OpenOk").await?;
            if frame.kind == HEARTBEAT {
                continue;
            }
            match frame.method().and_then(|(name, arguments)| Said::read(frame.channel, name, arguments)) {
                Some(Said::Tune { limits }) => peer.send(&tune_ok_and_open(limits, &self.keys.vhost)).await?,
                Some(Said::OpenOk) => peer.send(&half_a_message_and_close()).await?,
                Some(Said::CloseOk) => {
                    peer.leave(b"").await;
                    return Ok(());
                }
                Some(Said::Blocked(reason)) => {
                    peer.leave(b"").await;
                    return Err(peer.unexpected(&format!("takes no messages: {reason}")));
                }
                Some(Said::Close(code, words)) => {
                    peer.leave(&method(0, CLOSE_OK, &[])).await;
                    return Err(peer.unexpected(&format!("refused the connection: {code} {words}")));
                }
                Some(Said::OfTheChannel) => {}
                None => return Err(peer.answered(&frame.payload, "Connection.OpenOk")),
            }
        }
        Err(peer.unexpected(&format!("sent {MOST_FRAMES} frames and no end, expected Connection.CloseOk")))
    }
}

/// How the broker introduces itself.
#[derive(Debug, PartialEq)]
struct Start {
    product: String,
    mechanisms: String,
}

impl Start {
    fn read(frame: &frame::Frame) -> Option<Self> {
        let (name, mut arguments) = frame.method()?;
        if name != START || arguments.u16()? != 9 {
            // Major version 0, minor version 9: a byte each.
            return None;
        }
        let properties = arguments.long()?;
        let mechanisms = String::from_utf8_lossy(arguments.long()?).into_owned();
        let property = |name: &[u8]| Reader(properties).text(name).map(String::from_utf8_lossy);
        let product = match (property(b"product"), property(b"version")) {
            (Some(product), Some(version)) => format!("{product} {version}"),
            (Some(product), None) => product.into_owned(),
            _ => "AMQP 0-9-1".to_owned(),
        };
        Some(Self { product, mechanisms })
    }
}

/// What may come between StartOk and the end.
#[derive(Debug, PartialEq)]
enum Said {
    Tune { limits: [u8; 6] },
    OpenOk,
    CloseOk,
    Close(u16, String),
    Blocked(String),
    OfTheChannel,
}

impl Said {
    fn read(channel: u16, name: (u16, u16), mut arguments: Reader<'_>) -> Option<Self> {
        let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Some(match name {
            _ if channel == CHANNEL => Self::OfTheChannel,
            TUNE => Self::Tune { limits: *arguments.0.first_chunk()? },
            OPEN_OK => Self::OpenOk,
            CLOSE_OK => Self::CloseOk,
            CLOSE => Self::Close(arguments.u16()?, words(arguments.short()?)),
            BLOCKED => Self::Blocked(words(arguments.short()?)),
            _ => return None,
        })
    }
}

/// Who we are, that we want to hear why a login failed and that the connection is blocked; user and password.
fn start_ok(user: &str, password: &Secret) -> Vec<u8> {
    let text = |name: &str, value: &str| [short(name), b"S".to_vec(), long(value.as_bytes())].concat();
    let yes = |name: &str| [short(name), b"t\x01".to_vec()].concat();
    let capabilities = long(&[yes("authentication_failure_close"), yes("connection.blocked")].concat());
    let ourselves = [
        text("product", "readygate"),
        text("version", env!("CARGO_PKG_VERSION")),
        short("capabilities"),
        b"F".to_vec(),
        capabilities,
    ];
    let plain = format!("\0{user}\0{}", password.reveal());
    let arguments = [long(&ourselves.concat()), short("PLAIN"), long(plain.as_bytes()), short("en_US")];
    method(0, START_OK, &arguments.concat())
}

/// The broker's own limits of channels and frames, a heartbeat of 1 s, and Open: in one packet.
fn tune_ok_and_open(limits: [u8; 6], vhost: &str) -> Vec<u8> {
    let tune_ok = method(0, TUNE_OK, &[&limits[..], &[0, 1]].concat());
    [tune_ok, method(0, OPEN, &[short(vhost), short(""), vec![0]].concat())].concat()
}

/// Channel.Open, Basic.Publish to the default exchange, a head that promises a body of one byte, Connection.Close.
fn half_a_message_and_close() -> Vec<u8> {
    [
        method(CHANNEL, (20, 10), &short("")),
        method(CHANNEL, (60, 40), &[vec![0, 0], short(""), short("readygate"), vec![0]].concat()),
        content_header(CHANNEL, 60, 1),
        method(0, CLOSE, &[200_u16.to_be_bytes().to_vec(), short("bye"), vec![0; 4]].concat()),
    ]
    .concat()
}

const CHANNEL: u16 = 1;

const START: (u16, u16) = (10, 10);
const START_OK: (u16, u16) = (10, 11);
const TUNE: (u16, u16) = (10, 30);
const TUNE_OK: (u16, u16) = (10, 31);
const OPEN: (u16, u16) = (10, 40);
const OPEN_OK: (u16, u16) = (10, 41);
const CLOSE: (u16, u16) = (10, 50);
const CLOSE_OK: (u16, u16) = (10, 51);
/// An extension of RabbitMQ's, with which brokers of its kind agree.
const BLOCKED: (u16, u16) = (10, 60);

/// Frames between StartOk and the end; six are usual.
const MOST_FRAMES: usize = 32;

/// Bytes of a short string.
const LONGEST_NAME: usize = 255;

#[cfg(test)]
mod tests;
