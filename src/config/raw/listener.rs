//! The keys of a listener.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::address::{Listen, UpstreamUrl, UrlPath};
use super::super::units::{Bytes, MapOrOff, OrOff, Percent, Period};
use super::super::{
    Forwarded, Hold, Limits, Listener, ListenerTls, NotReady, Ramp, Timeouts, Upstream, UpstreamTls,
};
use super::any_address;

/// One port that clients talk to, and the app behind it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a map of keys")]
#[schemars(rename = "Listener")]
pub struct RawListener {
    /// IP address and port to listen on.
    pub listen: Listen,
    /// Where the app listens: `http://host:port`, `h2c://` for HTTP/2 without TLS, `https://` for HTTP/2 or
    /// HTTP/1.1 with it, `tcp://` for bytes, or `unix:/path` for HTTP/1.1 over a unix socket.
    pub upstream: UpstreamUrl,
    /// Speak TLS to clients. The files are read again when they change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RawListenerTls")]
    pub tls: Option<RawListenerTls>,
    /// Whom to trust at an `https://` upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RawUpstreamTls")]
    pub upstream_tls: Option<RawUpstreamTls>,
    /// What happens to a request while the gate is closed: `forward` sends it on anyway, `hold` lets it
    /// wait, `reject` answers 503. The same for a connection of `tcp://`, which `reject` resets.
    pub not_ready: NotReady,
    /// Deadlines.
    pub timeouts: RawTimeouts,
    /// Bounds.
    pub limits: RawLimits,
    /// How requests are held.
    pub hold: RawHold,
    /// After each arm, requests at the app at once grow to `limits.in_flight`, or to 100 if that is off and then
    /// without bound; what exceeds them waits a second at most and is answered 503.
    pub ramp: MapOrOff<RawRamp>,
    /// What happens to `X-Forwarded-For`, `-Proto` and `-Host`.
    pub forwarded: Forwarded,
    /// Path that answers the readiness verdict on the traffic port too.
    pub ready_path: OrOff<UrlPath>,
}

impl Default for RawListener {
    fn default() -> Self {
        RawListener {
            listen: Listen(any_address(8800)),
            upstream: UpstreamUrl::default(),
            tls: None,
            upstream_tls: None,
            not_ready: NotReady::Forward,
            timeouts: RawTimeouts::default(),
            limits: RawLimits::default(),
            hold: RawHold::default(),
            ramp: MapOrOff(None),
            forwarded: Forwarded::Append,
            ready_path: OrOff(None),
        }
    }
}

impl RawListener {
    /// What is true of the listener `name`.
    pub fn resolved(&self, name: &str) -> Listener {
        Listener {
            name: name.to_owned(),
            listen: self.listen.0,
            tls: self.tls.clone().map(|tls| ListenerTls {
                cert: tls.cert,
                key: tls.key,
                client_ca: tls.client_ca,
            }),
            upstream: Upstream {
                scheme: self.upstream.scheme,
                address: self.upstream.address.clone(),
                tls: self.upstream_tls.clone().map_or_else(UpstreamTls::default, |tls| UpstreamTls {
                    ca: tls.ca,
                    server_name: tls.server_name,
                    insecure_skip_verify: tls.insecure_skip_verify,
                }),
            },
            not_ready: self.not_ready,
            timeouts: Timeouts {
                first_byte: self.timeouts.first_byte.0,
                header_read: self.timeouts.header_read.0,
                body_progress: self.timeouts.body_progress.0,
                connect: self.timeouts.connect.0,
                response: self.timeouts.response.0.map(|period| period.0),
                idle: self.timeouts.idle.0,
                upstream_idle: self.timeouts.upstream_idle.0,
                tunnel_idle: self.timeouts.tunnel_idle.0,
            },
            limits: Limits {
                connections: self.limits.connections.get(),
                in_flight: self.limits.in_flight.0.map(NonZeroUsize::get),
                queue: self.limits.queue,
                header_bytes: self.limits.header_bytes.0,
                headers: self.limits.headers.get(),
                streams: self.limits.streams.get(),
                body_bytes: self.limits.body_bytes.0.map(|bytes| bytes.0),
            },
            hold: Hold { longest: self.hold.longest.0.map_or(Duration::ZERO, |period| period.0) },
            forwarded: self.forwarded,
            ramp: self.ramp.0.map(|ramp| Ramp { from: ramp.from.0, over: ramp.over.0 }),
            ready_path: self.ready_path.0.clone().map(|path| path.0),
        }
    }
}

/// As that of a configuration that says nothing.
impl Default for Listener {
    fn default() -> Self {
        RawListener::default().resolved("http")
    }
}

/// The files that make a listener speak TLS.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a map of keys")]
#[schemars(rename = "ListenerTls")]
pub struct RawListenerTls {
    /// PEM file with the certificate chain, leaf first.
    pub cert: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
    /// PEM file with certificate authorities; clients must then show a certificate of one of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
}

/// Whom to trust at the app.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a map of keys")]
#[schemars(rename = "UpstreamTls")]
pub struct RawUpstreamTls {
    /// PEM file with the certificate authorities to trust, instead of the public ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The name that the certificate must have, if it is not the upstream's host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Take any certificate.
    pub insecure_skip_verify: bool,
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
    /// A request's body of which nothing comes, or an answer of which nothing is taken.
    pub body_progress: Period,
    /// Connecting to the app, one attempt, TLS included.
    pub connect: Period,
    /// From sending a request to the app to the head of the answer, all copies of it together; waiting for the app does not count.
    pub response: OrOff<Period>,
    /// A client's connection between two requests.
    pub idle: Period,
    /// A kept connection to the app between two requests; less than the app's own keep-alive time.
    pub upstream_idle: Period,
    /// An upgraded or TCP connection on which nothing moves.
    pub tunnel_idle: Period,
}

impl Default for RawTimeouts {
    fn default() -> Self {
        RawTimeouts {
            first_byte: Period::seconds(10),
            header_read: Period::seconds(10),
            body_progress: Period::seconds(30),
            connect: Period::seconds(1),
            response: OrOff(None),
            idle: Period::seconds(75),
            upstream_idle: Period::seconds(4),
            tunnel_idle: Period::seconds(3600),
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
    /// Requests at once on one HTTP/2 connection.
    pub streams: NonZeroU32,
    /// Size of a request's body; a larger one is answered 413.
    pub body_bytes: OrOff<Bytes>,
}

impl Default for RawLimits {
    fn default() -> Self {
        RawLimits {
            connections: non_zero(10_000),
            in_flight: OrOff(None),
            queue: 1024,
            header_bytes: Bytes(64 << 10),
            headers: non_zero(100),
            streams: NonZeroU32::new(100).expect("a literal above zero"),
            body_bytes: OrOff(None),
        }
    }
}

/// How the requests at the app at once grow.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a map of keys")]
#[schemars(rename = "Ramp")]
pub struct RawRamp {
    /// The share at the start.
    pub from: Percent,
    /// How long it takes to reach all.
    pub over: Period,
}

impl Default for RawRamp {
    fn default() -> Self {
        RawRamp { from: Percent(0.1), over: Period::seconds(30) }
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
