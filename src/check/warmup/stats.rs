//! What warm-up requests amount to: the last results, their ratio and their quantiles. Pure.

use std::collections::VecDeque;
use std::time::Duration;

/// The results of a warm-up, as far as they count.
///
/// The last window of results is judged; the window before it is kept for comparison (plateau), and the
/// figures of the very first for people.
#[derive(Clone, Debug)]
pub(super) struct Stats {
    window: usize,
    /// At most two windows, newest last.
    results: VecDeque<Outcome>,
    /// Good ones among the last window.
    recent_ok: usize,
    first: Option<Figures>,
    sent: u64,
    ok: u64,
}

/// How one request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub ok: bool,
    /// To the end of the answer.
    pub latency: Duration,
}

/// Latency of the good answers of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Figures {
    pub p50: Duration,
    pub p95: Duration,
    pub p99: Duration,
}

impl Stats {
    /// `window` results are judged at a time; at least 1.
    pub(super) fn new(window: usize) -> Self {
        let window = window.max(1);
        Self { window, results: VecDeque::new(), recent_ok: 0, first: None, sent: 0, ok: 0 }
    }

    pub(super) fn add(&mut self, outcome: Outcome) {
        if let Some(leaves) = self.results.len().checked_sub(self.window) {
            self.recent_ok -= usize::from(self.results[leaves].ok);
        }
        self.results.push_back(outcome);
        self.recent_ok += usize::from(outcome.ok);
        if self.results.len() > 2 * self.window {
            self.results.pop_front();
        }
        self.sent += 1;
        self.ok += u64::from(outcome.ok);
        if self.sent == self.window as u64 {
            self.first = self.figures();
        }
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn ok(&self) -> u64 {
        self.ok
    }

    /// Whether a whole window of results is there to judge.
    pub(super) fn is_full(&self) -> bool {
        self.results.len() >= self.window
    }

    /// Good ones among the last window.
    pub(super) fn recent_ok(&self) -> usize {
        self.recent_ok
    }

    /// Share of good ones in the last window; 0 if there is no result.
    pub(super) fn ratio(&self) -> f64 {
        match self.results.len().min(self.window) {
            0 => 0.0,
            judged => self.recent_ok as f64 / judged as f64,
        }
    }

    /// A quantile (0 to 1, nearest rank) of the good answers' latency in the last window.
    pub(super) fn quantile(&self, quantile: f64) -> Option<Duration> {
        self.quantile_of(quantile, |(_, latency)| latency)
    }

    /// The same of what becomes of number and latency of each.
    pub(super) fn quantile_of(
        &self,
        quantile: f64,
        each: impl Fn((u64, Duration)) -> Duration,
    ) -> Option<Duration> {
        nearest_rank(&mut self.recent(self.window).map(each).collect::<Vec<_>>(), quantile)
    }

    /// The same as [`Self::quantile`] of the window before; None until that is full.
    pub(super) fn quantile_before(&self, quantile: f64) -> Option<Duration> {
        nearest_rank(&mut self.before()?, quantile)
    }

    /// Number (from 0) and latency of the good ones among the last `count` results.
    pub(super) fn recent(&self, count: usize) -> impl Iterator<Item = (u64, Duration)> {
        let skipped = self.results.len().saturating_sub(count);
        let first = self.sent - self.results.len() as u64;
        let numbered = (first..).zip(&self.results).skip(skipped);
        numbered.filter(|(_, outcome)| outcome.ok).map(|(number, outcome)| (number, outcome.latency))
    }

    /// The standard deviation of the logarithm of [`Self::quantile`] over [`Self::quantile_before`], as far as the
    /// latencies around them tell. 0 without two windows.
    pub(super) fn uncertainty(&self, quantile: f64) -> f64 {
        let mut last: Vec<_> = self.recent(self.window).map(|(_, latency)| latency).collect();
        let mut before = self.before().unwrap_or_default();
        half_width(&mut last, quantile).hypot(half_width(&mut before, quantile))
    }

    /// The good ones of the window before the last.
    fn before(&self) -> Option<Vec<Duration>> {
        let is_there = self.results.len() == 2 * self.window;
        let good = || self.results.iter().take(self.window).filter(|o| o.ok).map(|o| o.latency).collect();
        is_there.then(good)
    }

    /// Of the last window.
    pub(super) fn figures(&self) -> Option<Figures> {
        Some(Figures { p50: self.quantile(0.5)?, p95: self.quantile(0.95)?, p99: self.quantile(0.99)? })
    }

    /// Of the first window, once it was full.
    pub(super) fn first_figures(&self) -> Option<Figures> {
        self.first
    }
}

/// The smallest value that at least this share of all values do not exceed.
fn nearest_rank(values: &mut [Duration], quantile: f64) -> Option<Duration> {
    let last = values.len().checked_sub(1)?;
    let rank = (quantile * values.len() as f64).ceil() as usize;
    Some(*values.select_nth_unstable(rank.saturating_sub(1).min(last)).1)
}

/// Half of what lies between the values one standard deviation of the rank above and below the quantile, as a
/// logarithm.
fn half_width(values: &mut [Duration], quantile: f64) -> f64 {
    let spread = (quantile * (1.0 - quantile) / values.len().max(1) as f64).sqrt();
    let mut at =
        |quantile: f64| nearest_rank(values, quantile).map_or(1.0, |value| value.as_secs_f64().max(1e-9));
    let (low, high) = (at((quantile - spread).max(0.0)), at((quantile + spread).min(1.0)));
    (high / low).ln() / 2.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn outcome(ok: bool, millis: u64) -> Outcome {
        Outcome { ok, latency: Duration::from_millis(millis) }
    }

    #[test]
    fn only_the_last_window_counts() {
        let mut stats = Stats::new(2);
        assert_eq!((stats.ratio(), stats.quantile(0.5), stats.is_full()), (0.0, None, false));
        stats.add(outcome(false, 900));
        assert!(!stats.is_full());
        stats.add(outcome(true, 5));
        assert_eq!((stats.ratio(), stats.is_full()), (0.5, true));
        stats.add(outcome(true, 7));
        assert_eq!((stats.ratio(), stats.quantile(0.95)), (1.0, Some(Duration::from_millis(7))));
        assert_eq!(stats.quantile_before(0.5), None);
        stats.add(outcome(true, 9));
        assert_eq!(stats.quantile_before(0.5), Some(Duration::from_millis(5)));
        assert_eq!((stats.sent(), stats.ok(), stats.recent_ok()), (4, 3, 2));
    }

    #[test]
    fn a_fast_failure_improves_no_quantile() {
        let mut stats = Stats::new(2);
        stats.add(outcome(false, 1));
        stats.add(outcome(true, 80));
        assert_eq!(stats.quantile(0.5), Some(Duration::from_millis(80)));
    }

    proptest! {
        #[test]
        fn figures_equal_those_of_a_plain_computation(
            outcomes in prop::collection::vec((any::<bool>(), 0_u64..1000), 0..60),
            window in 1_usize..12,
            quantile in 0.01_f64..=1.0,
        ) {
            let outcomes: Vec<_> = outcomes.into_iter().map(|(ok, millis)| outcome(ok, millis)).collect();
            let mut stats = Stats::new(window);
            for &outcome in &outcomes {
                stats.add(outcome);
            }
            let recent = &outcomes[outcomes.len().saturating_sub(window)..];
            let good = recent.iter().filter(|o| o.ok).count();
            prop_assert_eq!(stats.recent_ok(), good);
            prop_assert_eq!(stats.is_full(), outcomes.len() >= window);
            if !recent.is_empty() {
                prop_assert!((stats.ratio() - good as f64 / recent.len() as f64).abs() < 1e-9);
            }
            let mut sorted: Vec<_> = recent.iter().filter(|o| o.ok).map(|o| o.latency).collect();
            sorted.sort_unstable();
            let enough = |value: &&Duration| {
                sorted.iter().filter(|other| other <= value).count() as f64 >= quantile * sorted.len() as f64
            };
            prop_assert_eq!(stats.quantile(quantile), sorted.iter().find(enough).copied());
        }
    }
}
