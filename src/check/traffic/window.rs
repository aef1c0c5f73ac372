//! The last seconds of an app's answers, and what they prove.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::check::values::Expect;
use crate::traffic::{AppTotals, DURATION_BUCKETS};

/// Snapshots of counters that only grow, the oldest one a window ago.
#[derive(Debug)]
pub(super) struct Window {
    length: Duration,
    snapshots: VecDeque<(Instant, AppTotals)>,
}

/// What happened within the window.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sample {
    pub requests: u64,
    pub errors: u64,
    /// Answers by duration, as [`DURATION_BUCKETS`].
    durations: Vec<u64>,
}

impl Window {
    pub(super) fn new(length: Duration) -> Self {
        Self { length, snapshots: VecDeque::new() }
    }

    /// Forgets what was: it counts from the next snapshot on.
    pub(super) fn clear(&mut self) {
        self.snapshots.clear();
    }

    /// Takes a snapshot; says what happened since the one that is a window old.
    pub(super) fn add(&mut self, totals: AppTotals, now: Instant, errors: &Expect) -> Sample {
        self.snapshots.push_back((now, totals));
        // The last one that is at least a window old stays: it is where the window begins.
        while let Some((second, _)) = self.snapshots.get(1)
            && now.saturating_duration_since(*second) >= self.length
        {
            self.snapshots.pop_front();
        }
        let (Some((_, first)), Some((_, last))) = (self.snapshots.front(), self.snapshots.back()) else {
            return Sample::default();
        };
        let grown = |last: &[u64], first: &[u64]| -> Vec<u64> {
            last.iter().zip(first).map(|(last, first)| last.saturating_sub(*first)).collect()
        };
        let statuses = grown(&last.statuses, &first.statuses);
        let failed = last.failed.saturating_sub(first.failed);
        let bad = (100u16..).zip(&statuses).filter(|(status, _)| errors.accepts(*status));
        Sample {
            requests: statuses.iter().sum::<u64>() + failed,
            errors: bad.map(|(_, count)| count).sum::<u64>() + failed,
            durations: grown(&last.durations, &first.durations),
        }
    }
}

impl Sample {
    pub(super) fn ratio(&self) -> f64 {
        if self.requests == 0 { 0.0 } else { self.errors as f64 / self.requests as f64 }
    }

    /// What the share of errors is at least, as far as so few requests tell: the lower end of Wilson's interval
    /// at three standard deviations. One error of two requests proves next to nothing, 30 of 100 a lot.
    pub(super) fn proven_ratio(&self) -> f64 {
        let n = self.requests as f64;
        if n == 0.0 {
            return 0.0;
        }
        let (p, z2) = (self.ratio(), DEVIATIONS * DEVIATIONS);
        let centre = p + z2 / (2.0 * n);
        let spread = DEVIATIONS * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
        ((centre - spread) / (1.0 + z2 / n)).clamp(0.0, p)
    }

    /// The quantile of the answers' durations, within its bucket by proportion. None without answers; the
    /// upper bound of the last bucket for what is above it.
    pub(super) fn quantile(&self, quantile: f64) -> Option<Duration> {
        let total: u64 = self.durations.iter().sum();
        if total == 0 {
            return None;
        }
        let rank = quantile * total as f64;
        let mut below = 0.0;
        let mut lower = 0.0;
        for (count, upper) in self.durations.iter().zip(DURATION_BUCKETS) {
            let count = *count as f64;
            if below + count >= rank && count > 0.0 {
                let within = ((rank - below) / count).clamp(0.0, 1.0);
                return Some(Duration::from_secs_f64(lower + (upper - lower) * within));
            }
            below += count;
            lower = upper;
        }
        Some(Duration::from_secs_f64(lower))
    }
}

/// Three: about one window in 700 of an app that is exactly at the limit looks worse than it is.
const DEVIATIONS: f64 = 3.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(good: u64, bad: u64, failed: u64) -> AppTotals {
        let mut statuses = vec![0; 500];
        statuses[100] = good;
        statuses[403] = bad;
        let mut durations = [0; 15];
        durations[3] = good;
        durations[8] = bad;
        AppTotals { statuses, durations, failed }
    }

    fn errors() -> Expect {
        serde_json::from_value(serde_json::json!("500-599")).expect("statuses")
    }

    #[test]
    fn only_what_happened_within_the_window_counts() {
        let (mut window, start) = (Window::new(Duration::from_secs(5)), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(window.add(totals(100, 7, 3), at(0), &errors()).requests, 0, "what was before is unknown");
        let sample = window.add(totals(110, 8, 4), at(3), &errors());
        assert_eq!((sample.requests, sample.errors), (12, 2));
        let sample = window.add(totals(110, 8, 4), at(5), &errors());
        assert_eq!((sample.requests, sample.errors), (12, 2), "at the edge it still counts");
        let sample = window.add(totals(111, 8, 4), at(9), &errors());
        assert_eq!((sample.requests, sample.errors), (1, 0));
        window.clear();
        assert_eq!(window.add(totals(500, 8, 4), at(10), &errors()).requests, 0);
    }

    #[test]
    fn few_requests_prove_little() {
        let sample = |requests, errors| Sample { requests, errors, durations: Vec::new() };
        assert!(sample(2, 1).proven_ratio() < 0.06);
        assert!(sample(100, 30).proven_ratio() > 0.17);
        assert!(sample(10_000, 3000).proven_ratio() > 0.28);
        for (requests, errors) in [(0, 0), (5, 0), (5, 5), (1000, 1000)] {
            let sample = sample(requests, errors);
            assert!((0.0..=sample.ratio()).contains(&sample.proven_ratio()), "{sample:?}");
        }
    }

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let mut window = Window::new(Duration::from_secs(5));
        let now = Instant::now();
        window.add(totals(0, 0, 0), now, &errors());
        let sample = window.add(totals(90, 10, 0), now + Duration::from_secs(1), &errors());
        let within = |quantile, low: f64, high: f64| {
            let found = sample.quantile(quantile).expect("answers").as_secs_f64();
            assert!((low..=high).contains(&found), "{quantile}: {found}");
        };
        within(0.5, 0.0025, 0.005);
        within(0.95, 0.1, 0.25);
        assert_eq!(Sample::default().quantile(0.5), None);
    }
}
