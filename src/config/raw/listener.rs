//! The keys of a listener.

use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::address::{Listen, UpstreamUrl, UrlPath};
use super::super::units::{Bytes, OrOff, Period};
use super::super::{Forwarded, NotReady, Upstream};
use super::any_address;

/// One port that clients talk to, and the app behind it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a map of keys")]
#[schemars(rename = "Listener")]
pub struct RawListener {
    /// IP address and port to listen on.
    pub listen: Listen,
    /// Where the app listens: `http://host:port`.
    pub upstream: UpstreamUrl,
    /// What happens to a request while the gate is closed: `forward` sends it on anyway, `hold` lets it
    /// wait, `reject` answers 503.
    pub not_ready: NotReady,
    /// Deadlines.
    pub timeouts: RawTimeouts,
    /// Bounds.
    pub limits: RawLimits,
    /// How requests are held.
    pub hold: RawHold,
    /// What happens to `X-Forwarded-For`, `-Proto` and `-Host`.
    pub forwarded: Forwarded,
    /// Path that answers the readiness verdict on the traffic port too.
    pub ready_path: OrOff<UrlPath>,
}

impl Default for RawListener {
    fn default() -> Self {
        RawListener {
            listen: Listen(any_address(8800)),
            upstream: UpstreamUrl(Upstream { host: "127.0.0.1".to_owned(), port: 8080 }),
            not_ready: NotReady::Forward,
            timeouts: RawTimeouts::default(),
            limits: RawLimits::default(),
            hold: RawHold::default(),
            forwarded: Forwarded::Append,
            ready_path: OrOff(None),
        }
    }
}

/// Deadlines of a listener.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a map of keys")]
#[schemars(rename = "Timeouts")]
pub struct RawTimeouts {
    /// From accept to the first byte of the first request.
    pub first_byte: Period,
    /// From the first byte of a request's head to its end.
    pub header_read: Period,
    /// Connecting to the app, one attempt.
    pub connect: Period,
    /// From sending a request to the app, each time, to the head of the answer; waiting for the app does not count.
    pub response: OrOff<Period>,
    /// A client's connection between two requests.
    pub idle: Period,
    /// A kept connection to the app between two requests; less than the app's own keep-alive time.
    pub upstream_idle: Period,
}

impl Default for RawTimeouts {
    fn default() -> Self {
        RawTimeouts {
            first_byte: Period::seconds(10),
            header_read: Period::seconds(10),
            connect: Period::seconds(1),
            response: OrOff(None),
            idle: Period::seconds(75),
            upstream_idle: Period::seconds(4),
        }
    }
}

/// Bounds of a listener.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a map of keys")]
#[schemars(rename = "Limits")]
pub struct RawLimits {
    /// Client connections at once; more wait in the kernel. Fewer where the process may not open enough files.
    pub connections: NonZeroUsize,
    /// Requests at the app at once; more wait in the queue.
    pub in_flight: OrOff<NonZeroUsize>,
    /// Requests that wait at once, held or for a place in flight; more are refused with 503.
    pub queue: usize,
    /// Size of a request's head.
    pub header_bytes: Bytes,
    /// Number of header fields of a request.
    pub headers: NonZeroUsize,
}

impl Default for RawLimits {
    fn default() -> Self {
        RawLimits {
            connections: non_zero(10_000),
            in_flight: OrOff(None),
            queue: 1024,
            header_bytes: Bytes(64 << 10),
            headers: non_zero(100),
        }
    }
}

/// How requests are held.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a map of keys")]
#[schemars(rename = "Hold")]
pub struct RawHold {
    /// Longest wait of one held request; `off` answers 503 at once.
    #[serde(rename = "for")]
    pub longest: OrOff<Period>,
}

impl Default for RawHold {
    fn default() -> Self {
        RawHold { longest: OrOff(Some(Period::seconds(10))) }
    }
}

const fn non_zero(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).expect("a literal above zero")
}
