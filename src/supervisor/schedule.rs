//! The life of one check: wait for those it comes after, run, report, pause; all over again at each arm.

use std::any::Any;
use std::cell::Cell;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::check::{Check, CheckError, CheckResult, Context, Evidence, Report};
use crate::config::CheckSpec;
use crate::gate::{CheckReport, Event, Next, Plan, Standing, Word};
use crate::metrics::RunResult;

use super::jitter::Jitter;
use super::{News, Outcome, Shared, now};

/// One check with its schedule.
pub(super) struct Schedule {
    shared: Rc<Shared>,
    spec: CheckSpec,
    name: Arc<str>,
    check: Box<dyn Check>,
    /// The arm in which the current run began.
    arm: Rc<Cell<u64>>,
    jitter: Jitter,
}

impl Schedule {
    pub(super) fn new(shared: Rc<Shared>, spec: CheckSpec) -> Self {
        let name: Arc<str> = spec.name.as_str().into();
        let arm = Rc::new(Cell::new(0));
        let kind = shared
            .kinds
            .iter()
            .find(|kind| kind.config.name == spec.kind)
            .expect("the configuration was checked against the same table of kinds");
        let context = Context {
            targets: Rc::clone(&shared.targets),
            warmup_token: Arc::clone(&shared.warmup_token),
            traffic: shared.traffic.clone(),
            report: {
                let (shared, name, arm) = (Rc::clone(&shared), Arc::clone(&name), Rc::clone(&arm));
                Rc::new(move |report| shared.heard(&name, arm.get(), &report))
            },
        };
        let check = (kind.build)(&spec, context);
        let tests = one_line(&check.tests()).into();
        let plan = Plan { tests, after: spec.after.as_slice().into(), next: Next::Due(now()) };
        shared.gate.plans().set(&name, &plan);
        let jitter = Jitter::new(shared.seed, &spec.name);
        Self { shared, spec, name, check, arm, jitter }
    }

    /// Never ends by itself.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time; the run that goes on is dropped with it.
    pub(super) async fn run(mut self) {
        let mut words = self.shared.gate.view().subscribe();
        loop {
            // Seen first, read then: an arm that comes between the two wakes us below.
            words.mark_unchanged();
            let arm = self.shared.gate.view().report().arm;
            self.arm.set(arm);
            self.check.armed();
            let shared = Rc::clone(&self.shared);
            tokio::select! {
                biased;
                () = next_arm(&shared, &mut words, arm) => {}
                () = self.one_arm(arm) => {}
            }
        }
    }

    /// Runs until it is dropped at the end of the arm.
    async fn one_arm(&mut self, arm: u64) {
        self.others(arm).await;
        loop {
            if self.rests() {
                self.plans(&Next::Rests);
                std::future::pending::<()>().await;
            }
            let began = now();
            let result = self.attempt(began).await;
            self.finished(arm, result, now().saturating_duration_since(began));
            if self.rests() {
                continue;
            }
            let passing = self.standing().is_some_and(|report| report.standing == Standing::Passing);
            let base = if passing { self.spec.interval } else { self.spec.interval_failing };
            let pause = self.jitter.around(base);
            self.plans(&Next::Due(now() + pause));
            sleep(pause).await;
        }
    }

    /// Waits until every check of `after` has passed in this arm, and says for which it waits.
    async fn others(&self, arm: u64) {
        let mut results = self.shared.results.subscribe();
        let mut told = String::new();
        loop {
            let report = self.shared.gate.view().report();
            let passed =
                |name: &String| report.checks.iter().any(|other| *other.name == **name && other.passed);
            let missing: Vec<&str> =
                self.spec.after.iter().filter(|name| !passed(name)).map(String::as_str).collect();
            let line = match (missing.as_slice(), told.as_str()) {
                ([], "") => return,
                ([], _) => "runs for the first time".to_owned(),
                (missing, _) => format!("waits for {}", missing.join(", ")),
            };
            if line != told {
                told.clone_from(&line);
                self.shared.gate.apply(Event::Progress { check: Arc::clone(&self.name), arm, line }, now());
            }
            if missing.is_empty() {
                return;
            }
            self.plans(&Next::Waits(missing.into_iter().map(str::to_owned).collect()));
            if results.changed().await.is_err() {
                // The sender lives in `shared`.
                std::future::pending::<()>().await;
            }
        }
    }

    /// One run within its deadline. A panic ends the run and nothing else.
    async fn attempt(&self, began: Instant) -> Result<CheckResult, Panic> {
        let deadline = self.check.deadline(self.spec.timeout);
        self.plans(&Next::Runs { since: began, at_most: deadline });
        let mut run = catch_unwind(AssertUnwindSafe(|| self.check.run())).map_err(Panic::of)?;
        // Not a task of its own: dropping this future drops the run, so that no two ever overlap.
        let caught = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| run.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(result)) => Poll::Ready(Ok(result)),
            Err(panic) => Poll::Ready(Err(Panic::of(panic))),
        });
        timeout(deadline, caught).await.unwrap_or(Ok(Err(CheckError::Timeout { after: deadline })))
    }

    /// Tells everybody how a run ended.
    fn finished(&self, arm: u64, result: Result<CheckResult, Panic>, took: Duration) {
        let (result, line, figures) = told(result, |address| self.shared.refused(address));
        let outcome = Outcome { result, line: one_line(&line), took };
        let (check, line) = (Arc::clone(&self.name), outcome.line.clone());
        self.shared.figures.set(&self.name, figures);
        let event = match result {
            RunResult::Skipped => Event::Progress { check, arm, line },
            RunResult::Passed | RunResult::Exhausted => {
                Event::Checked { check, arm, passed: true, line, took }
            }
            RunResult::Failed | RunResult::TimedOut | RunResult::Panicked => {
                Event::Checked { check, arm, passed: false, line, took }
            }
        };
        self.shared.gate.apply(event, now());
        (self.shared.observer)(&self.name, News::Ran(&outcome));
        self.shared.results.send_replace(());
    }

    /// Tells people what comes next.
    fn plans(&self, next: &Next) {
        self.shared.gate.plans().next(&self.name, next);
    }

    /// Whether there is nothing to run before the next arm.
    fn rests(&self) -> bool {
        self.check.once_per_arm() && self.standing().is_some_and(|report| report.passed)
    }

    fn standing(&self) -> Option<CheckReport> {
        self.shared.gate.view().report().checks.iter().find(|report| report.name == self.name).cloned()
    }
}

impl Shared {
    fn heard(&self, check: &Arc<str>, arm: u64, report: &Report) {
        if let Report::Progress(line) = report {
            let event = Event::Progress { check: Arc::clone(check), arm, line: one_line(line) };
            self.gate.apply(event, now());
        }
        (self.observer)(check, News::Heard(report));
    }

    fn refused(&self, address: std::net::SocketAddr) {
        for app in self.addresses.apps_at(address) {
            self.gate.app_refused(app);
            // Whoever comes back is seen by the watch, which now looks more often.
            self.pokes.poke(app);
        }
        for app in self.addresses.apps_near(address) {
            self.pokes.poke(app);
        }
    }
}

/// Waits for the arm after `arm`. The word holds only its low bits, so it wakes and the report decides.
async fn next_arm(shared: &Shared, words: &mut watch::Receiver<Word>, arm: u64) {
    loop {
        if words.changed().await.is_err() {
            // The sender lives in the gate.
            std::future::pending::<()>().await;
        }
        if shared.gate.view().report().arm != arm {
            return;
        }
    }
}

/// What a check said when it panicked.
struct Panic(String);

impl Panic {
    // By value, as `catch_unwind` gives it.
    #[allow(clippy::needless_pass_by_value)]
    fn of(payload: Box<dyn Any + Send>) -> Self {
        let said = payload.downcast_ref::<String>().cloned();
        let said = said.or_else(|| payload.downcast_ref::<&str>().map(|said| (*said).to_owned()));
        Self(said.unwrap_or_else(|| "it did not say why".to_owned()))
    }
}

fn told(
    result: Result<CheckResult, Panic>,
    refused: impl Fn(std::net::SocketAddr),
) -> (RunResult, String, Option<Value>) {
    match result {
        Ok(Ok(Evidence { summary, figures, exhausted })) => {
            (if exhausted { RunResult::Exhausted } else { RunResult::Passed }, summary, figures)
        }
        Ok(Err(error)) => {
            let line = error.to_string();
            let (result, figures) = match error {
                CheckError::Timeout { .. } => (RunResult::TimedOut, None),
                CheckError::Skipped { .. } => (RunResult::Skipped, None),
                CheckError::Unexpected { figures, .. } => (RunResult::Failed, figures),
                CheckError::Refused { address } => {
                    refused(address);
                    (RunResult::Failed, None)
                }
                CheckError::Connect { .. } => (RunResult::Failed, None),
            };
            (result, line, figures)
        }
        Err(Panic(said)) => (RunResult::Panicked, format!("the check panicked: {said}"), None),
    }
}

/// One line without control characters, at most [`LINE_BYTES`]: it goes into logs, answers and terminals.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(LINE_BYTES));
    let cleaned = text.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c });
    for c in cleaned.skip_while(|c| *c == ' ') {
        if line.len() + c.len_utf8() > LINE_BYTES - ELLIPSIS.len() {
            line.push_str(ELLIPSIS);
            break;
        }
        line.push(c);
    }
    line
}

const LINE_BYTES: usize = 1024;
const ELLIPSIS: &str = "…";
