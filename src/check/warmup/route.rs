//! One route of a warm-up: its results, what is wanted of them, and whether they show it. Pure.
//!
//! A route passes when its last window of results is full and good enough, and, if asked for, fast and settled.
//! Fast is the quantile *now*: that of the last window's latencies, each carried along the fitted curve from when it
//! was measured to the last request. Settled is the same curve's change from one window to the next. So the verdict
//! lags neither by half a window nor by luck: noise that hides the trend makes it wait (settled), or leaves the plain
//! quantile of the window in charge (fast).

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::curve::{Curve, Fit, History};
use super::keys::{Target, p95};
use super::stats::{Figures, Outcome, Stats};

/// What a route must show.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// For people and figures: as configured, or the request.
    pub name: String,
    pub weight: usize,
    /// Results that are judged at a time.
    pub window: usize,
    pub success_ratio: f64,
    pub target: Option<Target>,
    /// The share by which latency may differ from one window to the next.
    pub plateau: Option<f64>,
}

#[derive(Clone, Debug)]
pub(super) struct Route {
    pub wanted: Wanted,
    stats: Stats,
    history: History,
    last_failure: Option<String>,
    judgement: Judgement,
    /// How many results there are when it is judged again.
    next_look: u64,
}

/// What the results so far show.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Judgement {
    pub passes: bool,
    /// The quantile now.
    pub now: Option<Duration>,
    settled: bool,
}

impl Route {
    pub(super) fn new(wanted: Wanted) -> Self {
        let stats = Stats::new(wanted.window);
        Self {
            wanted,
            stats,
            history: History::new(),
            last_failure: None,
            judgement: Judgement::default(),
            next_look: 1,
        }
    }

    /// Takes the next result, and why it was not good if so.
    pub(super) fn add(&mut self, outcome: Outcome, why: Option<String>) {
        self.stats.add(outcome);
        self.history.add(outcome.ok.then_some(outcome.latency));
        if why.is_some() {
            self.last_failure = why;
        }
        if self.stats.sent() >= self.next_look {
            // Each look costs a fit; a fiftieth more results is soon enough for the next.
            self.next_look = self.stats.sent() + (self.stats.sent() / 50).max(1);
            self.judgement = self.judge();
        }
    }

    pub(super) fn passes(&self) -> bool {
        self.judgement.passes
    }

    pub(super) fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Why the last request that was not answered well was not, if too many are.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.last_failure.as_deref().filter(|_| self.stats.ratio() < self.wanted.success_ratio)
    }

    pub(super) fn last_failure(&self) -> Option<&str> {
        self.last_failure.as_deref()
    }

    fn judge(&self) -> Judgement {
        let (quantile, plateau) = (self.quantile(), self.wanted.plateau);
        let plain = self.stats.quantile(quantile);
        let enough = self.stats.is_full() && self.stats.ratio() >= self.wanted.success_ratio;
        let in_time = |now: Duration| self.wanted.target.is_none_or(|target| now <= target.latency.0);
        // Without need of it, no curve is fitted.
        let wants_curve = enough && (plateau.is_some() || !plain.is_some_and(in_time));
        let fit = if wants_curve { self.history.fit() } else { None };
        let ahead = fit.as_ref().and_then(|fit| self.carried(&fit.best, quantile));
        let now = plain.map(|plain| ahead.map_or(plain, |ahead| ahead.min(plain)));
        let settled = plateau.is_none_or(|share| self.has_settled(share, fit.as_ref()));
        let passes = enough && now.is_some_and(in_time) && settled;
        Judgement { passes, now, settled }
    }

    fn quantile(&self) -> f64 {
        self.wanted.target.map_or(p95(), |target| target.quantile)
    }

    /// The quantile of the last window's latencies, each carried along the curve to the last request. None if the last
    /// of them deny it: a curve is one more thing that may be wrong.
    fn carried(&self, curve: &Curve, quantile: f64) -> Option<Duration> {
        let last = curve.at(self.stats.sent().saturating_sub(1) as f64);
        let to_now = |(number, latency): (u64, Duration)| latency.mul_f64(last / curve.at(number as f64));
        let now = self.stats.quantile_of(quantile, to_now).filter(|now| !now.is_zero())?;
        let recent = (self.wanted.window / 4).max(FEWEST_RECENT);
        let over = self.stats.recent(recent).filter(|result| to_now(*result) > now).count() as f64;
        let (mean, spread) = binomial(1.0 - quantile, recent);
        (over <= mean + DEVIATIONS * spread).then_some(now)
    }

    /// Whether latency differs by at most that share from one window to the next.
    ///
    /// Either both windows show it beyond their noise, or the curve says so, with all that cannot be told from it, and
    /// the windows do not deny it.
    fn has_settled(&self, share: f64, fit: Option<&Fit>) -> bool {
        let quantile = self.quantile();
        let (Some(before), Some(now)) = (self.stats.quantile_before(quantile), self.stats.quantile(quantile))
        else {
            return false;
        };
        let before = before.as_secs_f64().max(1e-9);
        let allowed = share.max(NOISE / before).ln_1p();
        let seen = (now.as_secs_f64().max(1e-9) / before).ln().abs();
        let unsure = DEVIATIONS * self.stats.uncertainty(quantile);
        let window = self.wanted.window as f64;
        let end = self.stats.sent() as f64;
        let keeps = |curve: &Curve| {
            let (before, now) = (curve.mean(end - 2.0 * window, window), curve.mean(end - window, window));
            before - now <= (before * share).max(NOISE)
        };
        seen + unsure <= allowed
            || (seen - unsure <= allowed && fit.is_some_and(|fit| fit.rivals.iter().all(keeps)))
    }

    /// `41/50 ok, p95 180ms > 80ms`.
    pub(super) fn summary(&self) -> String {
        let mut line = format!("{}/{} ok", self.stats.recent_ok(), self.wanted.window);
        let Some(latency) = self.judgement.now else { return line };
        let _ = write!(line, ", p{} {}", percent(self.quantile()), short(latency));
        if let Some(target) = self.wanted.target
            && latency > target.latency.0
        {
            let _ = write!(line, " > {}", short(target.latency.0));
        }
        if self.wanted.plateau.is_some() && !self.judgement.settled {
            match self.stats.quantile_before(self.quantile()) {
                Some(before) => {
                    let _ = write!(line, ", not settled: {} before", short(before));
                }
                None => line.push_str(", not settled yet"),
            }
        }
        line
    }

    /// For `/status`.
    pub(super) fn figures(&self) -> Value {
        json!({
            "route": self.wanted.name,
            "weight": self.wanted.weight,
            "passes": self.judgement.passes,
            "requests": self.stats.sent(),
            "ok": self.stats.ok(),
            "ratio": self.stats.ratio(),
            "first_window": self.stats.first_figures().map(millis),
            "last_window": self.stats.figures().map(millis),
            "now_ms": self.judgement.now.map(in_millis),
        })
    }

    /// For the log: `GET /a: 120 sent, 100% ok, p50/p95/p99 410/520/530ms then 12/18/19ms`.
    pub(super) fn evidence(&self) -> String {
        let three = |figures: Option<Figures>| match figures {
            Some(Figures { p50, p95, p99 }) => format!("{}/{}/{}", short(p50), short(p95), short(p99)),
            None => "none".to_owned(),
        };
        format!(
            "{}: {} sent, {}% ok, p50/p95/p99 {} first, {} last",
            self.wanted.name,
            self.stats.sent(),
            percent(self.stats.ratio()),
            three(self.stats.first_figures()),
            three(self.stats.figures()),
        )
    }
}

/// Mean and standard deviation of how many of `count` have what each has with that probability.
fn binomial(probability: f64, count: usize) -> (f64, f64) {
    let mean = probability * count as f64;
    (mean, (mean * (1.0 - probability)).sqrt())
}

/// `0.95` → `95`, `0.999` → `99.9`.
pub(super) fn percent(quantile: f64) -> String {
    format!("{}", (quantile * 100_000.0).round() / 1000.0)
}

/// `180ms`, `1.25s`, `0.4ms`.
fn short(latency: Duration) -> String {
    match latency.as_secs_f64() * 1000.0 {
        millis if millis < 10.0 => format!("{}ms", (millis * 10.0).round() / 10.0),
        millis if millis < 1000.0 => format!("{millis:.0}ms"),
        millis => format!("{}s", (millis / 10.0).round() / 100.0),
    }
}

pub(super) fn millis(Figures { p50, p95, p99 }: Figures) -> Value {
    json!({ "p50_ms": in_millis(p50), "p95_ms": in_millis(p95), "p99_ms": in_millis(p99) })
}

fn in_millis(latency: Duration) -> f64 {
    (latency.as_secs_f64() * 1_000_000.0).round() / 1000.0
}

/// Differences of latency below this, in seconds, are noise, however small the latency.
const NOISE: f64 = 0.001;

/// What is further off than so many standard deviations is no chance.
const DEVIATIONS: f64 = 2.0;

/// The last results that must not deny the curve.
const FEWEST_RECENT: usize = 5;

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
