//! What one worker counts for one listener.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::ErrorKind;

/// Upper bounds of the request duration histogram, in seconds; a last bucket takes what is above.
pub const DURATION_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

pub(super) const BUCKETS: usize = DURATION_BUCKETS.len() + 1;
pub(super) const KINDS: usize = ErrorKind::ALL.len();

/// What one worker counts for one listener. Written by that worker only.
#[derive(Default)]
#[repr(align(128))]
pub struct Counters {
    /// Answers by class: 1xx to 5xx.
    pub(super) codes: [AtomicU64; 5],
    pub(super) durations: [AtomicU64; BUCKETS],
    pub(super) duration_micros: AtomicU64,
    pub(super) begun: AtomicU64,
    pub(super) ended: AtomicU64,
    pub(super) held: AtomicU64,
    pub(super) released: AtomicU64,
    pub(super) opened: AtomicU64,
    pub(super) closed: AtomicU64,
    pub(super) received_bytes: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
    pub(super) errors: [AtomicU64; KINDS],
    pub(super) app: AppCounters,
    /// Milliseconds after the origin at which the last request began, plus one; 0 for never.
    pub(super) last_request: AtomicU64,
}

impl Counters {
    /// A request that counts as traffic began, that many milliseconds after [`Traffic::origin`](super::Traffic::origin).
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
pub(super) struct AppCounters {
    /// By status, from 100.
    pub(super) statuses: [AtomicU64; STATUSES],
    pub(super) durations: [AtomicU64; BUCKETS],
}

impl Default for AppCounters {
    fn default() -> Self {
        Self { statuses: [const { AtomicU64::new(0) }; STATUSES], durations: Default::default() }
    }
}

pub(super) const STATUSES: usize = 500;

fn bucket(took: Duration) -> usize {
    let seconds = took.as_secs_f64();
    DURATION_BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS - 1)
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
