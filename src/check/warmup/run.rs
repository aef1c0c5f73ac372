//! The run of a warm-up: which request is next, how many at once, and whether it is enough.
//!
//! ```text
//!   turn ─▶ exchange (as many as the pace allows) ─▶ its route ─▶ all routes pass? end │ budget over? end │ go on
//! ```

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::client::{Answered, Unreachable};
use super::pace::{Pace, Start};
use super::route::{Route, Wanted, millis};
use super::stats::Stats;
use crate::check::Report;

/// What a run has seen so far.
pub(super) struct Run<'a> {
    routes: Vec<Route>,
    turn: Turn,
    pace: Pace,
    began: Instant,
    last_failure: Option<usize>,
    report: &'a dyn Fn(Report),
}

/// Why a run ended.
#[derive(Debug)]
pub(super) enum End {
    Enough,
    Exhausted,
    Unreachable(std::io::Error),
}

/// Those who send: at rest, and with a request under way. Dropped, all connections close.
pub(super) struct Crew<C> {
    pub idle: Vec<C>,
    pub busy: JoinSet<(C, usize, Start, Result<Answered, Unreachable>)>,
}

impl<'a> Run<'a> {
    pub(super) fn new(wanted: Vec<Wanted>, concurrency: usize, report: &'a dyn Fn(Report)) -> Self {
        let turn = Turn::new(wanted.iter().map(|wanted| wanted.weight));
        let routes = wanted.into_iter().map(Route::new).collect();
        let (pace, began) = (Pace::new(concurrency), Instant::now());
        Self { routes, turn, pace, began, last_failure: None, report }
    }

    /// Goes on until it is enough, the budget is over, or nothing can be sent.
    pub(super) async fn drive<C: Send + 'static, F>(
        &mut self,
        budget: Duration,
        crew: &mut Crew<C>,
        fresh: impl Fn() -> C,
        exchange: impl Fn(C, usize) -> F,
    ) -> End
    where
        F: Future<Output = (C, Result<Answered, Unreachable>)> + Send + 'static,
    {
        let end = tokio::time::sleep_until(self.began + budget);
        tokio::pin!(end);
        let mut told = None::<Instant>;
        loop {
            let now = Instant::now();
            while self.pace.allows(crew.busy.len(), now.into_std()) {
                let (route, start) = (self.turn.next(), self.pace.begin());
                let exchange = exchange(crew.idle.pop().unwrap_or_else(&fresh), route);
                crew.busy.spawn(async move {
                    let (client, answered) = exchange.await;
                    (client, route, start, answered)
                });
            }
            let pause_ends = self.pace.pause_ends(now.into_std());
            let ended = tokio::select! {
                biased;
                () = &mut end => return End::Exhausted,
                Some(ended) = crew.busy.join_next() => ended,
                () = tokio::time::sleep_until(pause_ends.map_or(now, Into::into)), if pause_ends.is_some() => continue,
            };
            let (client, route, start, answered) = match ended {
                Ok(ended) => ended,
                // Nobody aborts one; so it panicked, and the run does with it.
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            };
            crew.idle.push(client);
            match answered {
                Ok(answered) => self.add(route, start, answered),
                Err(Unreachable(error)) => return End::Unreachable(error),
            }
            if self.is_enough() {
                return End::Enough;
            }
            if told.is_none_or(|last| last.elapsed() >= NEWS_INTERVAL) {
                told = Some(Instant::now());
                (self.report)(Report::Progress(self.progress()));
                self.report_latency();
            }
        }
    }

    fn add(&mut self, route: usize, start: Start, answered: Answered) {
        (self.report)(Report::WarmupRequest { ok: answered.outcome.ok });
        if answered.outcome.ok {
            self.pace.good();
        } else {
            self.pace.failed(start, Instant::now().into_std());
            self.last_failure = Some(route);
        }
        self.routes[route].add(answered.outcome, answered.why);
    }

    fn is_enough(&self) -> bool {
        self.routes.iter().all(Route::passes)
    }

    /// `41/50 ok, p95 180ms > 80ms`; with several routes, each with its name: those that do not pass, if any.
    pub(super) fn summary(&self) -> String {
        let [_, _, ..] = self.routes.as_slice() else {
            return self.routes.first().map(Route::summary).unwrap_or_default();
        };
        let lacking: Vec<_> = self.routes.iter().filter(|route| !route.passes()).collect();
        let (mut line, told) = if lacking.is_empty() {
            (String::new(), self.routes.iter().collect())
        } else {
            let all = self.routes.len();
            (format!("{} of {all} routes pass; ", all - lacking.len()), lacking)
        };
        for (index, route) in told.iter().take(NAMED).enumerate() {
            let comma = if index == 0 { "" } else { "; " };
            let _ = write!(line, "{comma}{}: {}", route.wanted.name, route.summary());
        }
        if told.len() > NAMED {
            let _ = write!(line, "; and {} more", told.len() - NAMED);
        }
        line
    }

    /// The summary, and the last failure of a route that has too many.
    fn progress(&self) -> String {
        let summary = self.summary();
        match self.routes.iter().find_map(Route::trouble) {
            Some(why) => format!("{summary}; last failure: {why}"),
            None => summary,
        }
    }

    /// Why the last request that failed did.
    pub(super) fn last_failure(&self) -> Option<&str> {
        self.routes.get(self.last_failure?)?.last_failure()
    }

    /// For `/status`.
    pub(super) fn figures(&self, budget_exhausted: bool) -> Value {
        let (sent, ok) = self.sent();
        let stats = self.slowest().map(Route::stats);
        json!({
            "requests": sent,
            "ok": ok,
            "ratio": self.ratio(),
            "first_window": stats.and_then(Stats::first_figures).map(millis),
            "last_window": stats.and_then(Stats::figures).map(millis),
            "seconds": self.began.elapsed().as_secs_f64(),
            "budget_exhausted": budget_exhausted,
            "routes": self.routes.iter().map(Route::figures).collect::<Vec<_>>(),
        })
    }

    /// One line for the log.
    pub(super) fn log(&self, check: &str) {
        let evidence: Vec<_> = self.routes.iter().map(Route::evidence).collect();
        let (requests, seconds) = (self.sent().0, self.began.elapsed().as_secs_f64());
        let (success_ratio, evidence) = (self.ratio(), evidence.join("; "));
        tracing::info!(check, requests, success_ratio, seconds, %evidence, "warm-up passed");
    }

    fn sent(&self) -> (u64, u64) {
        let stats = || self.routes.iter().map(Route::stats);
        (stats().map(Stats::sent).sum(), stats().map(Stats::ok).sum())
    }

    /// Share of good answers in the last windows; the least of all routes.
    fn ratio(&self) -> f64 {
        self.routes.iter().map(|route| route.stats().ratio()).fold(1.0, f64::min)
    }

    fn slowest(&self) -> Option<&Route> {
        self.routes.iter().max_by_key(|route| route.stats().quantile(0.95))
    }

    /// Of the slowest route at each quantile.
    pub(super) fn report_latency(&self) {
        for quantile in [0.5, 0.95, 0.99] {
            let slowest = self.routes.iter().filter_map(|route| route.stats().quantile(quantile)).max();
            if let Some(latency) = slowest {
                (self.report)(Report::WarmupLatency { quantile, latency });
            }
        }
    }
}

/// Whose turn it is: each in proportion to its weight, spread evenly.
#[derive(Debug)]
struct Turn {
    weights: Vec<i64>,
    credit: Vec<i64>,
}

impl Turn {
    fn new(weights: impl Iterator<Item = usize>) -> Self {
        let weights: Vec<_> = weights.map(|weight| weight as i64).collect();
        let credit = vec![0; weights.len()];
        Self { weights, credit }
    }

    /// Everybody earns its weight; who has most is next, the first of equals, and pays what all earned.
    fn next(&mut self) -> usize {
        let mut next = 0;
        for (index, weight) in self.weights.iter().enumerate() {
            self.credit[index] += weight;
            if self.credit[index] > self.credit[next] {
                next = index;
            }
        }
        self.credit[next] -= self.weights.iter().sum::<i64>();
        next
    }
}

impl<C> Crew<C> {
    pub(super) fn new() -> Self {
        Self { idle: Vec::new(), busy: JoinSet::new() }
    }
}

/// Between lines of progress.
const NEWS_INTERVAL: Duration = Duration::from_millis(100);

/// Routes that a line names; the figures have all.
const NAMED: usize = 5;

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
