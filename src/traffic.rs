//! Live traffic, as the data plane counts it and others read it.
//!
//! Each worker writes its own [`Counters`], on its own cache lines, with a plain load and store: there is
//! one writer, so nothing is locked and nothing is shared on the path of a request. Readers (metrics, the
//! drain, `/status`) sum over the workers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

/// Request header that marks warm-up requests. Its value is a secret of this process; the data plane
/// compares and removes it.
pub const WARMUP_HEADER: &str = "x-readygate-warmup";

/// Why the data plane answered by itself, or gave up: a closed set, since it is a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum ErrorKind {
    /// The client's request is malformed or refused for its form.
    BadRequest = 0,
    /// The request has more header fields than it may.
    TooManyFields,
    /// The request's body is larger than it may be.
    BodyTooLarge,
    /// Nothing of the request's body came for too long.
    BodyTimeout,
    /// The client asks for what is not carried here.
    Unsupported,
    /// The client went away before the answer was complete.
    ClientClosed,
    /// The gate is closed and the policy is `reject`.
    NotReady,
    /// The request was held as long as it may.
    HoldTimeout,
    /// As many requests wait as may.
    QueueFull,
    /// The app's port refused for as long as the request may be held.
    ConnectRefused,
    /// No connection to the app within `timeouts.connect`.
    ConnectTimeout,
    /// No connection to the app, for another reason.
    ConnectFailed,
    /// The app closed or reset the connection before its answer came.
    UpstreamClosed,
    /// The app's answer is not HTTP.
    UpstreamProtocol,
    /// The app's answer broke off.
    UpstreamBroken,
    /// No answer within `timeouts.response`.
    ResponseTimeout,
    /// The app's port accepts, and no TLS connection comes of it.
    UpstreamTls,
    /// A client's TLS handshake failed.
    TlsHandshake,
    /// A request that is not ours came where only our own may come.
    Forbidden,
    /// A fault of ours.
    Internal,
}

impl ErrorKind {
    pub const ALL: [Self; 20] = [
        Self::BadRequest,
        Self::TooManyFields,
        Self::BodyTooLarge,
        Self::BodyTimeout,
        Self::Unsupported,
        Self::ClientClosed,
        Self::NotReady,
        Self::HoldTimeout,
        Self::QueueFull,
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::ConnectFailed,
        Self::UpstreamClosed,
        Self::UpstreamProtocol,
        Self::UpstreamBroken,
        Self::ResponseTimeout,
        Self::UpstreamTls,
        Self::TlsHandshake,
        Self::Forbidden,
        Self::Internal,
    ];

    /// Whether it is the app that failed.
    pub const fn is_the_apps(self) -> bool {
        match self {
            Self::ConnectRefused
            | Self::ConnectTimeout
            | Self::ConnectFailed
            | Self::UpstreamTls
            | Self::UpstreamClosed
            | Self::UpstreamProtocol
            | Self::UpstreamBroken
            | Self::ResponseTimeout => true,
            Self::BadRequest
            | Self::TlsHandshake
            | Self::Forbidden
            | Self::TooManyFields
            | Self::BodyTooLarge
            | Self::BodyTimeout
            | Self::Unsupported
            | Self::ClientClosed
            | Self::NotReady
            | Self::HoldTimeout
            | Self::QueueFull
            | Self::Internal => false,
        }
    }

    /// The name used as a label and in `x-readygate-error`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::TooManyFields => "too_many_fields",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::Unsupported => "unsupported",
            Self::ClientClosed => "client_closed",
            Self::NotReady => "not_ready",
            Self::HoldTimeout => "hold_timeout",
            Self::QueueFull => "queue_full",
            Self::ConnectRefused => "connect_refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::ConnectFailed => "connect_failed",
            Self::UpstreamClosed => "upstream_closed",
            Self::UpstreamProtocol => "upstream_protocol",
            Self::UpstreamBroken => "upstream_broken",
            Self::ResponseTimeout => "response_timeout",
            Self::UpstreamTls => "upstream_tls",
            Self::TlsHandshake => "tls_handshake",
            Self::Forbidden => "forbidden",
            Self::Internal => "internal",
        }
    }
}

/// Upper bounds of the request duration histogram, in seconds; a last bucket takes what is above.
pub const DURATION_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

const BUCKETS: usize = DURATION_BUCKETS.len() + 1;
const KINDS: usize = ErrorKind::ALL.len();

/// What one worker counts for one listener. Written by that worker only.
#[derive(Default)]
#[repr(align(128))]
pub struct Counters {
    /// Answers by class: 1xx to 5xx.
    codes: [AtomicU64; 5],
    durations: [AtomicU64; BUCKETS],
    duration_micros: AtomicU64,
    begun: AtomicU64,
    ended: AtomicU64,
    held: AtomicU64,
    released: AtomicU64,
    opened: AtomicU64,
    closed: AtomicU64,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    errors: [AtomicU64; KINDS],
    app: AppCounters,
    /// Milliseconds after the origin at which the last request began, plus one; 0 for never.
    last_request: AtomicU64,
}

impl Counters {
    /// A request that counts as traffic began, that many milliseconds after [`Traffic::origin`].
    pub fn request_began(&self, millis: u64) {
        bump(&self.begun, 1);
        self.last_request.store(millis + 1, Ordering::Relaxed);
    }

    /// A request ended: its answer went out whole, broke off, or nobody waits for it any more.
    pub fn request_ended(&self, status: u16, took: Duration, from: From) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        bump(&self.codes[class], 1);
        let bucket = bucket(took);
        bump(&self.durations[bucket], 1);
        if from == From::App {
            bump(&self.app.statuses[usize::from(status.clamp(100, 599)) - 100], 1);
            bump(&self.app.durations[bucket], 1);
        }
        bump(&self.duration_micros, took.as_micros() as u64);
        bump(&self.ended, 1);
    }

    /// A request ended without an answer: the client went away first.
    pub fn request_abandoned(&self) {
        bump(&self.ended, 1);
        self.error(ErrorKind::ClientClosed);
    }

    /// A TCP connection ended, which began as a request does: it has no status, and its duration says nothing.
    pub fn tunnel_ended(&self) {
        bump(&self.ended, 1);
    }

    /// A request began to wait.
    pub fn hold_began(&self) {
        bump(&self.held, 1);
    }

    /// A request waits no longer.
    pub fn hold_ended(&self) {
        bump(&self.released, 1);
    }

    pub fn connection_opened(&self) {
        bump(&self.opened, 1);
    }

    pub fn connection_closed(&self) {
        bump(&self.closed, 1);
    }

    /// Bytes read from clients.
    pub fn received(&self, bytes: u64) {
        bump(&self.received_bytes, bytes);
    }

    /// Bytes written to clients.
    pub fn sent(&self, bytes: u64) {
        bump(&self.sent_bytes, bytes);
    }

    pub fn error(&self, kind: ErrorKind) {
        bump(&self.errors[kind as usize], 1);
    }
}

/// Whose answer it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The app's.
    App,
    /// Ours, or one that says nothing about the app's health.
    Other,
}

/// The app's own answers, for who judges them.
struct AppCounters {
    /// By status, from 100.
    statuses: [AtomicU64; STATUSES],
    durations: [AtomicU64; BUCKETS],
}

impl Default for AppCounters {
    fn default() -> Self {
        Self { statuses: [const { AtomicU64::new(0) }; STATUSES], durations: Default::default() }
    }
}

const STATUSES: usize = 500;

fn bucket(took: Duration) -> usize {
    let seconds = took.as_secs_f64();
    DURATION_BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS - 1)
}

/// What the app answered, and how its exchanges failed: the sum over the workers of one listener.
#[derive(Clone, Debug, PartialEq)]
pub struct AppTotals {
    /// Answers by status, from 100 to 599.
    pub statuses: Vec<u64>,
    /// Answers by duration, bounds as in [`DURATION_BUCKETS`], the last one open.
    pub durations: [u64; BUCKETS],
    /// Exchanges that the app failed: no connection, no answer, no end of it.
    pub failed: u64,
}

/// All counters of the process.
#[derive(Clone)]
pub struct Traffic(Arc<Shared>);

struct Shared {
    origin: Instant,
    listeners: Vec<Listener>,
}

struct Listener {
    name: Arc<str>,
    workers: Vec<Arc<Counters>>,
    ignored: Ignored,
}

/// Paths whose answers say nothing about the app's health. Cheap to clone; set by who judges, read for each
/// request.
#[derive(Clone, Debug, Default)]
pub struct Ignored(Arc<IgnoredShared>);

#[derive(Debug, Default)]
struct IgnoredShared {
    any: AtomicBool,
    paths: ArcSwap<Vec<String>>,
}

impl Ignored {
    /// Each a path, or the beginning of one that ends in `*`.
    pub fn set(&self, paths: Vec<String>) {
        let any = !paths.is_empty();
        self.0.paths.store(Arc::new(paths));
        self.0.any.store(any, Ordering::Relaxed);
    }

    pub fn has(&self, path: &str) -> bool {
        self.0.any.load(Ordering::Relaxed)
            && self.0.paths.load().iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(beginning) => path.starts_with(beginning),
                None => path == pattern,
            })
    }
}

/// The sum over the workers of one listener.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// Answers by class: 1xx to 5xx.
    pub codes: [u64; 5],
    /// Requests by duration: not cumulative, bounds as in [`DURATION_BUCKETS`], the last one open.
    pub durations: [u64; BUCKETS],
    pub duration_sum: Duration,
    pub in_flight: u64,
    pub held: u64,
    pub connections: u64,
    pub connections_total: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    /// As [`ErrorKind::ALL`].
    pub errors: [u64; KINDS],
}

impl Traffic {
    pub fn new<'a>(listeners: impl IntoIterator<Item = &'a str>, workers: usize, origin: Instant) -> Self {
        let listeners = listeners
            .into_iter()
            .map(|name| Listener {
                name: name.into(),
                workers: (0..workers).map(|_| Arc::default()).collect(),
                ignored: Ignored::default(),
            })
            .collect();
        Self(Arc::new(Shared { origin, listeners }))
    }

    /// The counters of one worker (0-based) for one listener (0-based). Panics past the numbers given to `new`.
    pub fn counters(&self, listener: usize, worker: usize) -> Arc<Counters> {
        Arc::clone(&self.0.listeners[listener].workers[worker])
    }

    /// The paths of a listener (0-based) that are not judged.
    pub fn ignored(&self, listener: usize) -> Ignored {
        self.0.listeners[listener].ignored.clone()
    }

    /// What the app behind the listener of this name did; None if there is no such listener.
    pub fn app(&self, listener: &str) -> Option<AppTotals> {
        let listener = self.0.listeners.iter().find(|known| *known.name == *listener)?;
        Some(listener.app())
    }

    /// The same listener's paths that are not judged.
    pub fn ignored_of(&self, listener: &str) -> Option<Ignored> {
        self.0.listeners.iter().find(|known| *known.name == *listener).map(|known| known.ignored.clone())
    }

    /// Where the milliseconds of [`Counters::request_began`] count from.
    pub fn origin(&self) -> Instant {
        self.0.origin
    }

    /// The totals of each listener, with its name.
    pub fn totals(&self) -> impl Iterator<Item = (Arc<str>, Totals)> + '_ {
        self.0.listeners.iter().map(|listener| (Arc::clone(&listener.name), listener.totals()))
    }

    /// Requests in flight over all listeners.
    pub fn in_flight(&self) -> u64 {
        self.0.listeners.iter().map(|listener| listener.totals().in_flight).sum()
    }

    /// When the last request that counts as traffic began.
    pub fn last_request(&self) -> Option<Instant> {
        let workers = self.0.listeners.iter().flat_map(|listener| &listener.workers);
        let last = workers.map(|counters| counters.last_request.load(Ordering::Relaxed)).max()?;
        Some(self.0.origin + Duration::from_millis(last.checked_sub(1)?))
    }
}

impl Listener {
    fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for counters in &self.workers {
            // Ends before beginnings, so that a difference never goes below nothing.
            let ended = read(&counters.ended);
            let released = read(&counters.released);
            let closed = read(&counters.closed);
            let opened = read(&counters.opened);
            totals.in_flight += read(&counters.begun).saturating_sub(ended);
            totals.held += read(&counters.held).saturating_sub(released);
            totals.connections += opened.saturating_sub(closed);
            totals.connections_total += opened;
            totals.received_bytes += read(&counters.received_bytes);
            totals.sent_bytes += read(&counters.sent_bytes);
            totals.duration_sum += Duration::from_micros(read(&counters.duration_micros));
            add(&mut totals.codes, &counters.codes);
            add(&mut totals.durations, &counters.durations);
            add(&mut totals.errors, &counters.errors);
        }
        totals
    }
}

impl Listener {
    fn app(&self) -> AppTotals {
        let mut totals = AppTotals { statuses: vec![0; STATUSES], durations: [0; BUCKETS], failed: 0 };
        for counters in &self.workers {
            add(&mut totals.statuses, &counters.app.statuses);
            add(&mut totals.durations, &counters.app.durations);
            let failed = ErrorKind::ALL.into_iter().filter(|kind| kind.is_the_apps());
            totals.failed += failed.map(|kind| read(&counters.errors[kind as usize])).sum::<u64>();
        }
        totals
    }
}

fn add(totals: &mut [u64], counters: &[AtomicU64]) {
    for (total, counter) in totals.iter_mut().zip(counters) {
        *total += read(counter);
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Adds without a read-modify-write instruction: there is one writer.
fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counters(…)")
    }
}

impl fmt::Debug for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.totals()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_the_sum_over_workers() {
        let traffic = Traffic::new(["http"], 2, Instant::now());
        for worker in 0..2 {
            let counters = traffic.counters(0, worker);
            counters.request_began(10 * worker as u64);
            counters.request_began(20);
            counters.request_ended(204, Duration::from_millis(3), From::App);
            counters.error(ErrorKind::QueueFull);
        }
        let (name, totals) = traffic.totals().next().expect("one listener");
        assert_eq!((&*name, totals.in_flight, totals.codes), ("http", 2, [0, 2, 0, 0, 0]));
        assert_eq!((totals.durations[3], totals.duration_sum), (2, Duration::from_millis(6)));
        assert_eq!(totals.errors[ErrorKind::QueueFull as usize], 2);
        assert_eq!(traffic.last_request(), Some(traffic.origin() + Duration::from_millis(20)));
    }

    #[test]
    fn no_request_is_not_the_first_millisecond() {
        let traffic = Traffic::new(["http"], 1, Instant::now());
        assert_eq!(traffic.last_request(), None);
        traffic.counters(0, 0).request_began(0);
        assert_eq!(traffic.last_request(), Some(traffic.origin()));
    }

    #[test]
    fn every_kind_has_its_own_place() {
        for (at, kind) in ErrorKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
        }
    }
}
