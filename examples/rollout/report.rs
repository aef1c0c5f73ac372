//! What is measured, and the table at the end.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use tokio::time::Instant;

use crate::client::Failure;
use crate::scenario::Scenario;

/// Every request of one scenario.
#[derive(Debug, Default)]
pub struct Recorder {
    samples: RefCell<Vec<Sample>>,
    /// When each request that is under way began.
    under_way: RefCell<BTreeMap<u64, Instant>>,
    begun: Cell<u64>,
}

/// One request, when it began and how it ended.
#[derive(Clone, Copy, Debug)]
struct Sample {
    began: Instant,
    latency: Duration,
    result: Result<(), Failure>,
}

impl Recorder {
    pub fn begin(&self) -> Ticket<'_> {
        let (number, began) = (self.begun.get(), Instant::now());
        self.begun.set(number + 1);
        self.under_way.borrow_mut().insert(number, began);
        Ticket { recorder: self, number, began }
    }

    /// Whether a request that began before `end` is under way.
    pub fn waits_since_before(&self, end: Instant) -> bool {
        self.under_way.borrow().values().any(|began| *began < end)
    }

    pub fn failed(&self) -> usize {
        self.samples.borrow().iter().filter(|sample| sample.result.is_err()).count()
    }

    /// Requests a second, and p99 of those answered, over the last while.
    pub fn recent(&self, while_: Duration) -> (f64, Duration) {
        let figures = self.figures(Instant::now() - while_, Instant::now());
        (figures.requests as f64 / while_.as_secs_f64(), figures.p99)
    }

    /// Of the requests that began in this span.
    pub fn figures(&self, from: Instant, to: Instant) -> Figures {
        let samples = self.samples.borrow();
        let span = samples.iter().filter(|sample| (from..to).contains(&sample.began));
        let mut figures = Figures::default();
        let mut latencies = Vec::new();
        for sample in span {
            figures.requests += 1;
            match sample.result {
                Ok(()) => latencies.push(sample.latency),
                Err(failure) => *figures.failures.entry(failure).or_default() += 1,
            }
        }
        latencies.sort_unstable();
        figures.p50 = quantile(&latencies, 0.50);
        figures.p99 = quantile(&latencies, 0.99);
        figures
    }
}

/// A request that is under way.
pub struct Ticket<'a> {
    recorder: &'a Recorder,
    number: u64,
    began: Instant,
}

impl Ticket<'_> {
    pub fn end(self, latency: Duration, result: Result<(), Failure>) {
        self.recorder.under_way.borrow_mut().remove(&self.number);
        self.recorder.samples.borrow_mut().push(Sample { began: self.began, latency, result });
    }
}

/// Requests of one span. Latencies are those of requests that were answered well: a refused connection is
/// quick, and would flatter them.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub requests: usize,
    pub failures: BTreeMap<Failure, usize>,
    pub p50: Duration,
    pub p99: Duration,
}

/// How one scenario went.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub scenario: Scenario,
    pub before: Figures,
    /// From the first new pod until the last old one is gone and clients have settled.
    pub during: Figures,
    pub times_to_ready: Vec<Duration>,
}

impl Outcome {
    pub fn failed(&self) -> usize {
        self.before.failures.values().chain(self.during.failures.values()).sum()
    }
}

/// The nearest-rank quantile of a sorted list; zero of an empty one.
fn quantile(sorted: &[Duration], quantile: f64) -> Duration {
    let rank = (sorted.len() as f64 * quantile).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// The table, and what it means.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::from(
        "\n                            requests   failed     p50 / p99 before     p50 / p99 during   time to ready\n",
    );
    for outcome in outcomes {
        let Outcome { scenario, before, during, .. } = outcome;
        let _ = writeln!(
            text,
            "({}) {:<22} {:>10} {:>8} {:>20} {:>20} {:>15}",
            scenario.letter(),
            scenario.name(),
            before.requests + during.requests,
            outcome.failed(),
            latencies(before),
            latencies(during),
            time_to_ready(&outcome.times_to_ready),
        );
    }
    text.push('\n');
    for outcome in outcomes {
        text.push_str(&verdict(outcome));
    }
    text
}

fn verdict(outcome: &Outcome) -> String {
    let letter = outcome.scenario.letter();
    let mut kinds = outcome.before.failures.clone();
    for (kind, count) in &outcome.during.failures {
        *kinds.entry(*kind).or_default() += count;
    }
    let kinds: Vec<_> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let failures = if kinds.is_empty() { "no request failed".to_owned() } else { kinds.join(", ") };
    let mut text = format!("({letter}) {failures}");
    if outcome.scenario == Scenario::C {
        let ratio = outcome.during.p99.as_secs_f64() / outcome.before.p99.as_secs_f64().max(f64::EPSILON);
        let _ = write!(text, "; p99 during is {ratio:.2} times p99 before");
    } else if outcome.failed() == 0 {
        text.push_str(": unusual, without a true readiness probe some should have");
    }
    text.push('\n');
    text
}

fn latencies(figures: &Figures) -> String {
    format!("{:.1} / {:.1} ms", figures.p50.as_secs_f64() * 1e3, figures.p99.as_secs_f64() * 1e3)
}

fn time_to_ready(times: &[Duration]) -> String {
    let mean = times.iter().sum::<Duration>().as_secs_f64() / times.len().max(1) as f64;
    format!("{mean:.1} s")
}
