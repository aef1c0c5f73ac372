//! One port that clients talk to, and the app behind it.

use std::net::SocketAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One port that clients talk to, and the app behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    pub name: String,
    pub listen: SocketAddr,
    pub upstream: Upstream,
    pub not_ready: NotReady,
    pub timeouts: Timeouts,
    pub limits: Limits,
    pub hold: Hold,
    pub forwarded: Forwarded,
    /// Path that answers the readiness verdict on the traffic port too.
    pub ready_path: Option<String>,
}

/// Where the app listens: plain HTTP/1.1 over TCP.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// A host name or an IP address, without brackets.
    pub host: String,
    pub port: u16,
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
    /// Connecting to the app, one attempt.
    pub connect: Duration,
    /// From sending the request, each time, to the head of the answer; none by default.
    pub response: Option<Duration>,
    /// A client connection between two requests.
    pub idle: Duration,
    /// A pooled connection to the app between two requests: less than the app's own.
    pub upstream_idle: Duration,
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
}

/// How requests are held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Longest wait of one request; zero: it does not wait.
    pub longest: Duration,
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
