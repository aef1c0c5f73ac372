//! One port that clients talk to, and the app behind it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One port that clients talk to, and the app behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    pub name: String,
    pub listen: SocketAddr,
    /// Clients speak TLS.
    pub tls: Option<ListenerTls>,
    pub upstream: Upstream,
    pub not_ready: NotReady,
    pub timeouts: Timeouts,
    pub limits: Limits,
    pub hold: Hold,
    pub ramp: Option<Ramp>,
    pub forwarded: Forwarded,
    /// Path that answers the readiness verdict on the traffic port too.
    pub ready_path: Option<String>,
}

/// The files that make a listener speak TLS; read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// The chain, leaf first, in PEM.
    pub cert: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// Certificate authorities in PEM; clients must then show a certificate of one of them.
    pub client_ca: Option<PathBuf>,
}

/// Where the app listens, and what it speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    pub scheme: Scheme,
    pub address: Address,
    /// For `https`.
    pub tls: UpstreamTls,
}

impl Upstream {
    /// Plain HTTP/1.1 over TCP.
    pub fn http(address: SocketAddr) -> Self {
        let address = Address::Tcp { host: address.ip().to_string(), port: address.port() };
        Self { scheme: Scheme::Http, address, tls: UpstreamTls::default() }
    }

    /// What `Host` says of the app itself.
    pub fn host(&self) -> String {
        match &self.address {
            address @ Address::Tcp { .. } => address.to_string(),
            Address::Unix(_) => "localhost".to_owned(),
        }
    }
}

/// What the app speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP/1.1.
    Http,
    /// HTTP/2 with prior knowledge (RFC 9113, 3.3).
    H2c,
    /// HTTP/2 or HTTP/1.1 over TLS, as ALPN decides.
    Https,
    /// Bytes.
    Tcp,
    /// HTTP/1.1 over a unix socket.
    Unix,
}

impl Scheme {
    /// Whether requests are seen one by one.
    pub fn is_http(self) -> bool {
        self != Self::Tcp
    }
}

/// Where the app's socket is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    Tcp {
        /// A host name or an IP address, without brackets.
        host: String,
        port: u16,
    },
    /// The path of a unix socket.
    Unix(PathBuf),
}

/// `127.0.0.1:8080`, `app:8080`, `[::1]:8080`, `unix:/run/app.sock`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Whom to trust at the other end of an `https` upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Certificate authorities in PEM, instead of the public ones.
    pub ca: Option<PathBuf>,
    /// The name that the certificate must have, if it is not the host of the upstream.
    pub server_name: Option<String>,
    /// Take any certificate.
    pub insecure_skip_verify: bool,
}

/// What happens to a request while the gate is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum NotReady {
    /// Send it on anyway.
    Forward,
    /// Let it wait for the gate to open.
    Hold,
    /// Answer 503 with `retry-after`.
    Reject,
}

/// Deadlines of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From accept to the first byte of the first request.
    pub first_byte: Duration,
    /// From the first byte of a request head to its end.
    pub header_read: Duration,
    /// The other side of a body makes no progress.
    pub body_progress: Duration,
    /// Connecting to the app, one attempt, TLS included.
    pub connect: Duration,
    /// From sending the request to the head of the answer, all copies together; none by default.
    pub response: Option<Duration>,
    /// A client connection between two requests.
    pub idle: Duration,
    /// A pooled connection to the app between two requests: less than the app's own.
    pub upstream_idle: Duration,
    /// No byte either way on an upgraded or a TCP connection.
    pub tunnel_idle: Duration,
}

/// Bounds of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Client connections at once; more wait in the kernel's accept queue.
    pub connections: usize,
    /// Requests at the app at once; more wait in the queue. None by default.
    pub in_flight: Option<usize>,
    /// Requests that wait at once (held, or for a place in flight); more are refused.
    pub queue: usize,
    /// Size of a request head.
    pub header_bytes: usize,
    /// Number of header fields.
    pub headers: usize,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
    /// Size of a request's body. None by default.
    pub body_bytes: Option<usize>,
}

/// How requests are held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Longest wait of one request; zero: it does not wait.
    pub longest: Duration,
}

/// How the requests at the app at once grow after each arm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ramp {
    /// The share at the start, above 0 and at most 1.
    pub from: f64,
    pub over: Duration,
}

/// What happens to `X-Forwarded-For`, `-Proto` and `-Host`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Forwarded {
    Append,
    Replace,
    Off,
}
