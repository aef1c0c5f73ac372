//! Signs of life of the data plane's workers.
//!
//! That the admin thread answers a probe proves nothing about the workers, so each of them marks its beat
//! every 250 ms, and the verdict is no once one has been silent for too long.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The beats of all workers, as the gate reads them.
#[derive(Clone, Debug)]
pub struct Beats {
    origin: Instant,
    /// Milliseconds since `origin`, one a worker.
    marks: Arc<[AtomicU64]>,
    stale_after: Duration,
}

/// The beat of one worker.
#[derive(Clone, Debug)]
pub struct Beat {
    beats: Beats,
    worker: usize,
}

/// How often a worker marks its beat.
pub const BEAT_INTERVAL: Duration = Duration::from_millis(250);

impl Beats {
    /// Beats of that many workers, all marked at `now`.
    pub fn new(workers: usize, stale_after: Duration, now: Instant) -> Self {
        Self { origin: now, marks: (0..workers).map(|_| AtomicU64::new(0)).collect(), stale_after }
    }

    /// The handle of one worker (0-based).
    pub fn of(&self, worker: usize) -> Beat {
        Beat { beats: self.clone(), worker }
    }

    /// The longest silence, if it is too long.
    pub fn silence(&self, now: Instant) -> Option<Duration> {
        let oldest = self.marks.iter().map(|mark| mark.load(Ordering::Relaxed)).min()?;
        let now = now.saturating_duration_since(self.origin);
        let silent = now.saturating_sub(Duration::from_millis(oldest));
        (silent > self.stale_after).then_some(silent)
    }
}

impl Beat {
    pub const INTERVAL: Duration = BEAT_INTERVAL;

    /// Says that the worker lives.
    pub fn mark(&self, now: Instant) {
        let millis = now.saturating_duration_since(self.beats.origin).as_millis() as u64;
        if let Some(mark) = self.beats.marks.get(self.worker) {
            mark.store(millis, Ordering::Relaxed);
        }
    }

    /// The worker has ended in order: its silence means nothing from now on.
    pub fn retire(&self) {
        if let Some(mark) = self.beats.marks.get(self.worker) {
            mark.store(u64::MAX, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_silent_worker_is_enough() {
        let start = Instant::now();
        let beats = Beats::new(2, Duration::from_secs(3), start);
        let later = start + Duration::from_secs(4);
        beats.of(0).mark(later);
        assert_eq!(beats.silence(later), Some(Duration::from_secs(4)));
        beats.of(1).mark(start + Duration::from_secs(2));
        assert_eq!(beats.silence(later), None);
    }

    #[test]
    fn a_retired_worker_is_not_missed() {
        let start = Instant::now();
        let beats = Beats::new(1, Duration::from_secs(3), start);
        beats.of(0).retire();
        assert_eq!(beats.silence(start + Duration::from_secs(60)), None);
    }
}
