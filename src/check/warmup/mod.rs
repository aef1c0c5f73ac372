//! `warmup`: enough good and fast answers, through the very path that users' requests take.
//!
//! ```text
//! clients (concurrency) ──HTTP/1.1 keep-alive, or gRPC──▶ the listener ─▶ … ─▶ the app
//!     └── results ──▶ stats ──▶ enough? pass │ budget over? fail or pass │ else go on
//! ```
//!
//! It ends as soon as the evidence suffices, and never before a whole window (`min_requests`) of results is
//! there. Clients pause while the app fails, so that a broken app is not hammered. All connections end with
//! the run, also when it is dropped.

mod client;
mod grpc;
mod http;
mod keys;
mod requests;
mod stats;
mod words;

use std::cell::Cell;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ::http::{HeaderName, HeaderValue};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::client::{Answered, Plan, Unreachable, keep_sending};
use self::keys::{Keys, OnBudgetExhausted, accept, p95};
pub(in crate::check) use self::requests::Listed;
use self::stats::{Figures, Stats};
use super::own;
use super::{Check, CheckError, CheckFuture, CheckResult, Context, Evidence, Kind, Report};
use crate::config::units::Percent;
use crate::config::{self, CheckSpec, Gates};
use crate::traffic::WARMUP_HEADER;

pub(super) const KIND: Kind = Kind {
    config: config::Kind {
        name: "warmup",
        passes_when: "enough good, fast answers came through the listener",
        gates: |_, _| Gates::Startup,
        accept,
        schema: |generator: &mut SchemaGenerator| Keys::json_schema(generator),
        schemes: &[],
        from_url: |_| Err("a warm-up needs more than a URL, expected it in a configuration file".to_owned()),
        defaults: config::Defaults::COMMON,
    },
    build: |spec, context| Box::new(Warmup::new(spec, context)),
};

/// Sends each of the requests once through the listener, one after the other.
///
/// # Errors
///
/// One line: the first that was not answered as it expects, or the listener itself.
pub(in crate::check) async fn send_once(
    context: &Context,
    listener: &str,
    requests: &[Listed],
    timeout: Duration,
) -> Result<(), String> {
    let Some(target) = context.targets.iter().find(|target| target.listener == listener) else {
        return Err(format!("there is no listener {listener}"));
    };
    let plan = plan(context, target, requests, timeout);
    client::send_each(Arc::new(plan)).await
}

fn plan(context: &Context, target: &super::Target, requests: &[Listed], timeout: Duration) -> Plan {
    let token = HeaderValue::try_from(&*context.warmup_token).expect("a token is a header value");
    Plan {
        address: target.address,
        timeout,
        recipes: requests.iter().map(Listed::recipe).collect(),
        token: (HeaderName::from_static(WARMUP_HEADER), token),
    }
}

struct Warmup {
    name: String,
    keys: Keys,
    timeout: Duration,
    context: Context,
}

impl Check for Warmup {
    fn run(&self) -> CheckFuture<'_> {
        Box::pin(self.warm_up())
    }

    fn tests(&self) -> String {
        self.keys.words()
    }

    fn deadline(&self, _: Duration) -> Duration {
        self.keys.budget.0 + MARGIN
    }

    fn once_per_arm(&self) -> bool {
        true
    }
}

impl Warmup {
    fn new(spec: &CheckSpec, context: Context) -> Self {
        let keys = own::parse(&spec.own).expect("configuration accepted the keys");
        Self { name: spec.name.clone(), keys, timeout: spec.timeout, context }
    }

    async fn warm_up(&self) -> CheckResult {
        let wanted =
            |target: &&super::Target| self.keys.listener.as_ref().is_none_or(|name| *name == target.listener);
        let Some(target) = self.context.targets.iter().find(wanted) else {
            let reason = "a warm-up goes through a running sidecar's listener, and there is none here";
            return Err(CheckError::Skipped { reason: reason.to_owned() });
        };
        let plan = Arc::new(plan(&self.context, target, &self.keys.requests, self.timeout));
        let began = Instant::now();
        let mut run = Run { stats: Stats::new(self.keys.min_requests), last_failure: None, began };
        let (send, mut results) = mpsc::channel(self.keys.concurrency);
        let (turn, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        // Aborts its clients when dropped, and with them their connections.
        let mut clients = JoinSet::new();
        for _ in 0..self.keys.concurrency {
            clients.spawn(keep_sending(
                Arc::clone(&plan),
                Arc::clone(&turn),
                Arc::clone(&stop),
                send.clone(),
            ));
        }
        drop(send);
        let reported = Cell::new(None::<Instant>);
        let budget = tokio::time::sleep(self.keys.budget.0);
        tokio::pin!(budget);
        let verdict = loop {
            let answered = tokio::select! {
                answered = results.recv() => answered,
                () = &mut budget => break self.exhausted(&run),
            };
            match answered {
                Some(Ok(answered)) => run.add(answered, &*self.context.report),
                Some(Err(Unreachable(error))) => {
                    let target = format!("{} (listener {})", target.address, target.listener);
                    break Err(CheckError::Connect { target, reason: error.to_string() });
                }
                None => break self.exhausted(&run),
            }
            if run.is_enough(&self.keys) {
                let summary = run.summary(&self.keys);
                break Ok(Evidence { summary, figures: Some(run.figures(false)), exhausted: false });
            }
            if reported.get().is_none_or(|last| last.elapsed() >= NEWS_INTERVAL) {
                reported.set(Some(Instant::now()));
                (self.context.report)(Report::Progress(run.progress(&self.keys)));
                run.report_latency(&*self.context.report);
            }
        };
        run.report_latency(&*self.context.report);
        // Requests in flight may end: an app need not see the last ones cut off.
        stop.store(true, Ordering::Relaxed);
        results.close();
        let _ = tokio::time::timeout(FAREWELL, async { while clients.join_next().await.is_some() {} }).await;
        verdict
    }

    fn exhausted(&self, run: &Run) -> CheckResult {
        let budget = humantime::format_duration(self.keys.budget.0);
        let mut summary = format!("{} when the budget of {budget} was over", run.summary(&self.keys));
        if let Some(why) = &run.last_failure {
            let _ = write!(summary, "; last failure: {why}");
        }
        let figures = Some(run.figures(true));
        match self.keys.on_budget_exhausted {
            OnBudgetExhausted::Fail => Err(CheckError::Unexpected { message: summary, figures }),
            OnBudgetExhausted::Pass => {
                tracing::warn!(check = %self.name, found = %summary, "warm-up budget exhausted, passing as configured");
                Ok(Evidence { summary, figures, exhausted: true })
            }
        }
    }
}

/// What a run has seen so far.
struct Run {
    stats: Stats,
    last_failure: Option<String>,
    began: Instant,
}

impl Run {
    fn add(&mut self, answered: Answered, report: &dyn Fn(Report)) {
        self.stats.add(answered.outcome);
        if answered.why.is_some() {
            self.last_failure = answered.why;
        }
        report(Report::WarmupRequest { ok: answered.outcome.ok });
    }

    fn is_enough(&self, keys: &Keys) -> bool {
        self.stats.is_full()
            && self.stats.ratio() >= keys.success_ratio
            && keys.target.is_none_or(|target| {
                self.stats.quantile(target.quantile).is_some_and(|latency| latency <= target.latency.0)
            })
            && keys.plateau.is_none_or(|share| self.has_settled(keys, share))
    }

    fn has_settled(&self, keys: &Keys, Percent(share): Percent) -> bool {
        let quantile = keys.target.map_or(p95(), |target| target.quantile);
        match (self.stats.quantile_before(quantile), self.stats.quantile(quantile)) {
            (Some(before), Some(now)) => before.abs_diff(now) <= before.mul_f64(share).max(NOISE),
            _ => false,
        }
    }

    /// `41/50 ok, p95 180ms > 80ms`.
    fn summary(&self, keys: &Keys) -> String {
        let mut line = format!("{}/{} ok", self.stats.recent_ok(), keys.min_requests);
        let quantile = keys.target.map_or(p95(), |target| target.quantile);
        let Some(latency) = self.stats.quantile(quantile) else { return line };
        let _ = write!(line, ", p{} {}", percent(quantile), short(latency));
        if let Some(target) = keys.target
            && latency > target.latency.0
        {
            let _ = write!(line, " > {}", short(target.latency.0));
        }
        if let Some(share) = keys.plateau
            && !self.has_settled(keys, share)
        {
            match self.stats.quantile_before(quantile) {
                Some(before) => {
                    let _ = write!(line, ", not settled: {} before", short(before));
                }
                None => line.push_str(", not settled yet"),
            }
        }
        line
    }

    /// The summary, and the last failure while there are too many of them.
    fn progress(&self, keys: &Keys) -> String {
        let summary = self.summary(keys);
        match &self.last_failure {
            Some(why) if self.stats.ratio() < keys.success_ratio => format!("{summary}; last failure: {why}"),
            _ => summary,
        }
    }

    fn figures(&self, budget_exhausted: bool) -> Value {
        json!({
            "requests": self.stats.sent(),
            "ok": self.stats.ok(),
            "ratio": self.stats.ratio(),
            "first_window": self.stats.first_figures().map(millis),
            "last_window": self.stats.figures().map(millis),
            "seconds": self.began.elapsed().as_secs_f64(),
            "budget_exhausted": budget_exhausted,
        })
    }

    fn report_latency(&self, report: &dyn Fn(Report)) {
        let Some(Figures { p50, p95, p99 }) = self.stats.figures() else { return };
        for (quantile, latency) in [(0.5, p50), (0.95, p95), (0.99, p99)] {
            report(Report::WarmupLatency { quantile, latency });
        }
    }
}

/// `0.95` → `95`, `0.999` → `99.9`.
fn percent(quantile: f64) -> String {
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

fn millis(figures: Figures) -> Value {
    let millis = |latency: Duration| (latency.as_secs_f64() * 1_000_000.0).round() / 1000.0;
    json!({ "p50_ms": millis(figures.p50), "p95_ms": millis(figures.p95), "p99_ms": millis(figures.p99) })
}

/// Between lines of progress.
const NEWS_INTERVAL: Duration = Duration::from_millis(100);

/// Differences of latency below this are noise, however small the latency.
const NOISE: Duration = Duration::from_millis(1);

/// For requests in flight when the verdict is there.
const FAREWELL: Duration = Duration::from_millis(250);

/// The run ends itself at its budget; the supervisor need not hurry it.
const MARGIN: Duration = Duration::from_secs(2);
