//! Live traffic, as the data plane counts it and others read it.
//!
//! Each worker writes its own [`Counters`], on its own cache lines, with a plain load and store: there is
//! one writer, so nothing is locked and nothing is shared on the path of a request. Readers (metrics, the
//! drain, `/status`) sum over the workers.

mod counters;
mod ignored;
mod kind;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use self::counters::{BUCKETS, KINDS, STATUSES};

pub use self::counters::{Counters, DURATION_BUCKETS, From};
pub use self::ignored::Ignored;
pub use self::kind::ErrorKind;

/// Request header that marks warm-up requests. Its value is a secret of this process; the data plane
/// compares and removes it.
pub const WARMUP_HEADER: &str = "x-readygate-warmup";

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
}
