//! The pod's readiness: one state machine, and the views that probes and requests read.
//!
//! [`Gate`] is the writing side: the supervisor reports check results, the data plane reports that the
//! app's port refuses or accepts, the drain reports its progress. Each event goes through the pure machine
//! in [`core`] under a short lock; what follows is published for readers, who take none.
//! [`GateView`] is the reading side: `verdict` is a load of the published word and of each worker's beat.

mod beat;
pub mod core;
mod event;
mod plan;
mod report;
mod tally;
mod tracked;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;

pub use self::beat::{Beat, Beats};
pub use self::event::{Cause, CheckRule, Event, GuardStep, Phase, Role, Transition};
pub use self::plan::{Next, Plan, Plans};
pub use self::report::{CheckReport, Past, Report};
pub use self::tally::Standing;
pub use self::tracked::Excuse;

use self::core::Core;

/// The writing side. Cheap to clone.
#[derive(Clone)]
pub struct Gate(Arc<Shared>);

/// The reading side. Cheap to clone.
#[derive(Clone)]
pub struct GateView(Arc<Shared>);

struct Shared {
    core: Mutex<Inner>,
    word: AtomicU64,
    report: ArcSwap<Report>,
    changed: watch::Sender<Word>,
    beats: Beats,
    plans: Plans,
    observer: Observer,
}

struct Inner {
    core: Core,
    past: Past,
}

/// Called after each event that was not ignored, under the gate's lock, with what is now true: it must
/// neither block nor call back.
pub type Observer = Box<dyn Fn(&Event, Option<&Transition>, &Report) + Send + Sync>;

/// What readers on hot paths need, in one load.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Word(u64);

impl Word {
    /// Whether `/ready` says yes (but for silent workers).
    pub fn is_ready(self) -> bool {
        self.0 & READY != 0
    }

    /// Whether `/lb` says yes.
    pub fn is_ready_for_balancers(self) -> bool {
        self.0 & BALANCERS != 0
    }

    /// Whether requests pass whatever `not_ready` says.
    pub fn admits(self) -> bool {
        self.0 & ADMITS != 0
    }

    /// Whether the app's port (of the listener with this number) refuses. Ports past the 32nd always say no.
    pub fn app_refuses(self, app: usize) -> bool {
        app < APPS && self.0 & (1 << (APP_SHIFT + app)) != 0
    }

    pub fn phase(self) -> Phase {
        Phase::ALL[(self.0 & PHASE) as usize % Phase::ALL.len()]
    }

    /// Number of the arm, modulo 2²⁴: equal or not is all that it tells.
    pub fn arm(self) -> u64 {
        self.0 >> ARM_SHIFT
    }

    fn of(core: &Core) -> Self {
        let mut word = core.phase() as u64;
        for (bit, set) in
            [(READY, core.is_ready()), (BALANCERS, core.is_ready_for_balancers()), (ADMITS, core.admits())]
        {
            if set {
                word |= bit;
            }
        }
        for (at, app) in core.apps().iter().enumerate().take(APPS) {
            word |= u64::from(app.refusing) << (APP_SHIFT + at);
        }
        Self(word | core.arm() << ARM_SHIFT)
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Word({}, ready {}, arm {})", self.phase().name(), self.is_ready(), self.arm())
    }
}

const PHASE: u64 = 0b111;
const READY: u64 = 1 << 3;
const BALANCERS: u64 = 1 << 4;
const ADMITS: u64 = 1 << 5;
const APP_SHIFT: usize = 8;
const APPS: usize = 32;
const ARM_SHIFT: usize = APP_SHIFT + APPS;

impl Gate {
    /// A gate in `starting`. `apps` names the app's ports, one a listener; `beats` are the workers' signs of life.
    pub fn new(
        rules: Vec<CheckRule>,
        apps: impl IntoIterator<Item = Arc<str>>,
        beats: Beats,
        observer: Observer,
        now: Instant,
    ) -> Self {
        let core = Core::new(rules, apps, now);
        let past = Past::default();
        let word = Word::of(&core);
        Self(Arc::new(Shared {
            word: AtomicU64::new(word.0),
            report: ArcSwap::from_pointee(Report::of(&core, &past)),
            changed: watch::Sender::new(word),
            core: Mutex::new(Inner { core, past }),
            beats,
            plans: Plans::default(),
            observer,
        }))
    }

    /// Takes an event and publishes what follows from it.
    pub fn apply(&self, event: Event, now: Instant) {
        let shared = &*self.0;
        let mut inner = shared.lock();
        let transition = inner.core.apply(event.clone(), now);
        if let Some(transition) = &transition {
            inner.past.push(transition.clone());
        }
        let word = Word::of(&inner.core);
        // The report first: who sees the new word finds its reasons.
        let report = Arc::new(Report::of(&inner.core, &inner.past));
        shared.report.store(Arc::clone(&report));
        shared.word.store(word.0, Ordering::Release);
        shared.changed.send_if_modified(|old| std::mem::replace(old, word) != word);
        (shared.observer)(&event, transition.as_ref(), &report);
    }

    /// The data plane or a check was refused on the app's port: an event only if it is news.
    pub fn app_refused(&self, app: usize) {
        if !self.word().app_refuses(app) {
            self.apply(Event::AppRefused { app }, Instant::now());
        }
    }

    /// The app's port accepted a connection: an event only if it is news.
    pub fn app_accepted(&self, app: usize) {
        // Borrowed: this comes with each new connection, and a handle would be counted where all workers do.
        if self.word().app_refuses(app) || !self.0.report.load().app_seen(app) {
            self.apply(Event::AppAccepted { app }, Instant::now());
        }
    }

    /// Where whoever runs the checks says what they do next.
    pub fn plans(&self) -> &Plans {
        &self.0.plans
    }

    pub fn view(&self) -> GateView {
        GateView(Arc::clone(&self.0))
    }

    fn word(&self) -> Word {
        Word(self.0.word.load(Ordering::Relaxed))
    }
}

impl GateView {
    /// The published state, in one load.
    pub fn word(&self) -> Word {
        Word(self.0.word.load(Ordering::Acquire))
    }

    /// The answer of a probe: constant time, no lock.
    pub fn verdict(&self, now: Instant) -> Verdict {
        match self.0.beats.silence(now) {
            Some(silent) => Verdict::Silent(silent),
            None if self.word().is_ready() => Verdict::Ready,
            None => Verdict::NotReady,
        }
    }

    /// The reasons, and everything else that `/status` tells.
    pub fn report(&self) -> Arc<Report> {
        self.0.report.load_full()
    }

    /// What each check tests, and what it does next.
    pub fn plans(&self) -> Arc<HashMap<Arc<str>, Plan>> {
        self.0.plans.all()
    }

    /// Wakes at each change of the word. Takes a lock: for those who wait, not for each request.
    pub fn subscribe(&self) -> watch::Receiver<Word> {
        self.0.changed.subscribe()
    }
}

/// The answer of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Ready,
    NotReady,
    /// A worker has given no sign of life for this long.
    Silent(Duration),
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The machine is left whole at each panic that could happen under the lock: an observer's.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gate({:?})", self.word())
    }
}

impl fmt::Debug for GateView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GateView({:?})", self.word())
    }
}
