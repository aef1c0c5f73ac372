//! Runs each check on its schedule, watches the app's port, and tells the gate.
//!
//! ```text
//!  configs ─► run ─┬─ one task a check   (schedule.rs) ── Checked, Progress ──┐
//!                  └─ one task an app    (watch.rs) ───── refused, accepted ──┴─► Gate
//! ```
//!
//! Everything here lives on the checks thread, in one `LocalSet`. Invariants: runs of one check never
//! overlap; a hung, failing or panicking check delays no other; a result is reported under the arm in
//! which its run began; a new arm ends every run that goes on and starts them all again.
//!
//! Called by `app`, which also builds the gate from [`rules`] and [`app_names`].

mod jitter;
mod schedule;
mod watch;

use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch as tokio_watch;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use crate::check::{Kind, Report, Target, Traffic};
use crate::config::{CheckSpec, Config, Gates, Listener};
use crate::gate::{CheckRule, Event, Gate, Role};
use crate::metrics::RunResult;

use self::schedule::Schedule;
use self::watch::Addresses;

pub use self::watch::Pokes;

/// What the supervisor needs besides the configuration.
pub struct Setup {
    /// The table that the configuration was checked against.
    pub kinds: &'static [Kind],
    /// Built from [`rules`] and [`app_names`] of the first configuration.
    pub gate: Gate,
    /// The running listeners, for the checks that go through them.
    pub targets: Vec<Target>,
    /// See [`Context::warmup_token`](crate::check::Context::warmup_token).
    pub warmup_token: Arc<str>,
    /// What the data plane counts, for checks that judge it.
    pub traffic: Option<Traffic>,
    /// Built from the listeners of the first configuration; the data plane has a clone.
    pub pokes: Pokes,
    /// When the app behind the listener with this number last answered a request: while that is recent,
    /// the watch need not look. `None` if nobody can say.
    pub last_answer: Option<LastAnswer>,
    pub figures: Figures,
    pub observer: Observer,
    /// Seed of the jitter.
    pub seed: u64,
}

/// When the app of a listener (0-based) last answered.
pub type LastAnswer = Box<dyn Fn(usize) -> Option<Instant> + Send>;

/// Hears of each run, on the checks thread, after the gate did.
pub type Observer = Box<dyn Fn(&str, News<'_>) + Send>;

/// What an observer hears of a check.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    Ran(&'a Outcome),
    /// News of a run that goes on.
    Heard(&'a Report),
}

/// How one run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub result: RunResult,
    /// One line for people.
    pub line: String,
    pub took: Duration,
}

/// Figures of each check's last run, for `/status`. Cheap to clone; read from any thread.
#[derive(Clone, Debug, Default)]
pub struct Figures(Arc<Mutex<HashMap<String, Value>>>);

impl Figures {
    /// The figures of a check's last run, if it gave any.
    pub fn of(&self, check: &str) -> Option<Value> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(check).cloned()
    }

    fn set(&self, check: &str, figures: Option<Value>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match figures {
            Some(figures) => all.insert(check.to_owned(), figures),
            None => all.remove(check),
        };
    }
}

/// What the gate must know of these checks.
pub fn rules(checks: &[CheckSpec]) -> Vec<CheckRule> {
    checks
        .iter()
        .map(|spec| CheckRule {
            name: spec.name.as_str().into(),
            kind: spec.kind,
            role: match spec.gates {
                Gates::Startup => Role::Startup,
                Gates::Always => Role::Always,
                Gates::Never => Role::Never,
            },
            success_threshold: spec.success_threshold,
            failure_threshold: spec.failure_threshold,
        })
        .collect()
}

/// The names of the app's ports, one a listener, as the gate tells them to people.
pub fn app_names(listeners: &[Listener]) -> Vec<Arc<str>> {
    listeners.iter().map(|listener| listener.upstream.address.to_string().into()).collect()
}

/// Runs the checks of the current configuration and watches the app, until `stop`. Needs a current-thread
/// runtime. The listeners are those of the first configuration: a change of them needs a restart.
pub async fn run(setup: Setup, configs: tokio_watch::Receiver<Arc<Config>>, stop: impl Future<Output = ()>) {
    let local = LocalSet::new();
    tokio::select! {
        biased;
        () = stop => {}
        () = local.run_until(supervise(setup, configs)) => {}
    }
}

async fn supervise(setup: Setup, mut configs: tokio_watch::Receiver<Arc<Config>>) {
    let first = Arc::clone(&configs.borrow_and_update());
    let addresses = Addresses::default();
    let _watches: Vec<Task> =
        watch::watches(&setup.gate, &first.listeners, &setup.pokes, setup.last_answer, &addresses)
            .into_iter()
            .map(Task::spawn)
            .collect();
    let shared = Rc::new(Shared {
        kinds: setup.kinds,
        gate: setup.gate,
        targets: setup.targets.into(),
        warmup_token: setup.warmup_token,
        traffic: setup.traffic,
        figures: setup.figures,
        observer: setup.observer,
        seed: setup.seed,
        addresses,
        pokes: setup.pokes,
        results: tokio_watch::Sender::new(()),
    });
    let mut running = Vec::new();
    reconcile(&shared, &mut running, &first.checks).await;
    while configs.changed().await.is_ok() {
        let config = Arc::clone(&configs.borrow_and_update());
        let changed = config.checks.iter().filter(|new| running.iter().any(|old| old.replaced_by(new)));
        shared.gate.apply(
            Event::Configured {
                rules: rules(&config.checks),
                changed: changed.map(|spec| spec.name.as_str().into()).collect(),
            },
            now(),
        );
        reconcile(&shared, &mut running, &config.checks).await;
    }
    // Nobody reloads any more; the checks go on.
    std::future::pending::<()>().await;
}

/// Ends the checks that are gone or changed, and starts those that are new or changed.
async fn reconcile(shared: &Rc<Shared>, running: &mut Vec<Running>, checks: &[CheckSpec]) {
    let (kept, over) = std::mem::take(running).into_iter().partition(|old| checks.contains(&old.spec));
    *running = kept;
    for old in Vec::<Running>::into_iter(over) {
        // Waits until its run is dropped: runs of one check never overlap.
        old.task.end().await;
        shared.figures.set(&old.spec.name, None);
        shared.gate.plans().remove(&old.spec.name);
    }
    for spec in checks {
        if !running.iter().any(|kept| kept.spec == *spec) {
            let task = Task::spawn(Schedule::new(Rc::clone(shared), spec.clone()).run());
            running.push(Running { spec: spec.clone(), task });
        }
    }
    // An `after` may name a check that only now exists.
    shared.results.send_replace(());
}

/// What the tasks of all checks share.
struct Shared {
    kinds: &'static [Kind],
    gate: Gate,
    targets: Rc<[Target]>,
    warmup_token: Arc<str>,
    traffic: Option<Traffic>,
    figures: Figures,
    observer: Observer,
    seed: u64,
    addresses: Addresses,
    pokes: Pokes,
    /// Wakes whoever waits for another check, after the gate took a result.
    results: tokio_watch::Sender<()>,
}

struct Running {
    spec: CheckSpec,
    task: Task,
}

impl Running {
    /// Whether `new` is the same check by name, and what this one saw says nothing about it.
    fn replaced_by(&self, new: &CheckSpec) -> bool {
        let old = &self.spec;
        old.name == new.name && (old.kind != new.kind || old.own != new.own)
    }
}

/// A task on this thread that ends with its owner.
struct Task(JoinHandle<()>);

impl Task {
    fn spawn(future: impl Future<Output = ()> + 'static) -> Self {
        Self(spawn_local(future))
    }

    /// Ends the task; it has been dropped when this returns.
    async fn end(mut self) {
        self.0.abort();
        // The error says that it was cancelled.
        let _ = (&mut self.0).await;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// tokio's clock, so that tests can pause it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup")
            .field("gate", &self.gate)
            .field("targets", &self.targets)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
