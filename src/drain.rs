//! How the pod leaves: when a drain begins, and when nothing is left to serve.
//!
//! Three calls can begin it, in any order, once or more often: SIGTERM, the sidecar's own preStop hook, and
//! the app's preStop hook. The last one alone proves nothing: the kubelet also runs it when a failed
//! liveness probe restarts the app's container (Kubernetes, container lifecycle hooks). So it starts a
//! window; if no other call comes within it, the app restarts and the pod stays.
//!
//! [`Machine`] is pure, with clock and traffic passed in. [`Drain`] is the handle that signals and hooks
//! call; [`Drain::drive`] moves it on. Notices go to one listener, synchronously, so that the gate has
//! closed before a hook is even waiting.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// How long a drain takes, at least and at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub min: Duration,
    pub quiet: Duration,
    pub deadline: Duration,
    /// The app's hook alone for this long is a restart.
    pub restart_window: Duration,
}

/// A call to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// The app's preStop hook: `/wait-for-drain`.
    AppHook,
    /// The sidecar's own preStop hook, or an operator: `/drain`.
    SidecarHook,
    /// The kubelet ends the container.
    Sigterm,
    /// `/quit`: a Job's app is done.
    Quit,
}

impl Call {
    /// The name used in logs and `/status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AppHook => "app hook",
            Self::SidecarHook => "drain hook",
            Self::Sigterm => "SIGTERM",
            Self::Quit => "quit",
        }
    }
}

/// What the data plane serves right now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Requests in flight.
    pub in_flight: u64,
    /// When the last request began, if one ever did.
    pub last_request: Option<Instant>,
}

/// What the drain tells its listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The app's hook came, and no drain so far.
    AppStopping,
    /// No drain followed the app's hook.
    AppRestarting,
    Started {
        by: Call,
    },
    Drained(Outcome),
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub took: Duration,
    /// From the start to the last request that began in the drain; what `drain.min` should be.
    pub last_request: Duration,
    /// Requests still in flight at the deadline; 0 if everything ended in time.
    pub left: u64,
}

/// Where the drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody leaves. Counts the restarts that were taken for one, so that hooks can tell.
    Idle {
        restarts: u64,
    },
    AppHookAlone {
        since: Instant,
        restarts: u64,
    },
    Draining {
        since: Instant,
        by: Call,
    },
    Drained(Outcome),
}

/// The pure machine.
#[derive(Clone, Debug)]
pub struct Machine {
    settings: Settings,
    state: State,
}

impl Machine {
    pub fn new(settings: Settings) -> Self {
        Self { settings, state: State::Idle { restarts: 0 } }
    }

    pub fn state(&self) -> State {
        self.state
    }

    /// Takes a call. Repeated and late calls change nothing.
    pub fn call(&mut self, call: Call, now: Instant) -> Option<Notice> {
        match (self.state, call) {
            (State::Idle { restarts }, Call::AppHook) => {
                self.state = State::AppHookAlone { since: now, restarts };
                Some(Notice::AppStopping)
            }
            (
                State::Idle { .. } | State::AppHookAlone { .. },
                Call::SidecarHook | Call::Sigterm | Call::Quit,
            ) => {
                self.state = State::Draining { since: now, by: call };
                Some(Notice::Started { by: call })
            }
            (State::AppHookAlone { .. }, Call::AppHook) | (State::Draining { .. } | State::Drained(_), _) => {
                None
            }
        }
    }

    /// Moves on with time and traffic.
    pub fn tick(&mut self, activity: Activity, now: Instant) -> Option<Notice> {
        match self.state {
            State::AppHookAlone { since, restarts }
                if elapsed(since, now) >= self.settings.restart_window =>
            {
                self.state = State::Idle { restarts: restarts + 1 };
                Some(Notice::AppRestarting)
            }
            State::Draining { since, .. } => {
                let took = elapsed(since, now);
                let quiet = activity.last_request.is_none_or(|at| elapsed(at, now) >= self.settings.quiet);
                let done = took >= self.settings.min && quiet && activity.in_flight == 0;
                if !done && took < self.settings.deadline {
                    return None;
                }
                let last_request = activity.last_request.map_or(Duration::ZERO, |at| elapsed(since, at));
                let outcome = Outcome { took, last_request, left: activity.in_flight };
                self.state = State::Drained(outcome);
                Some(Notice::Drained(outcome))
            }
            State::Idle { .. } | State::AppHookAlone { .. } | State::Drained(_) => None,
        }
    }
}

fn elapsed(from: Instant, to: Instant) -> Duration {
    to.saturating_duration_since(from)
}

/// The handle that signals, hooks and the driver share. Cheap to clone.
#[derive(Clone)]
pub struct Drain(Arc<Shared>);

struct Shared {
    machine: Mutex<Machine>,
    state: watch::Sender<State>,
    listener: Listener,
}

/// Hears each notice, in order, under the drain's lock: must neither block nor call back.
pub type Listener = Box<dyn Fn(Notice) + Send + Sync>;

/// How an app's hook was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Drained(Outcome),
    /// The app restarts, the pod stays.
    Restart,
}

impl Drain {
    pub fn new(settings: Settings, listener: Listener) -> Self {
        let machine = Machine::new(settings);
        let state = watch::Sender::new(machine.state());
        Self(Arc::new(Shared { machine: Mutex::new(machine), state, listener }))
    }

    /// Takes a call; has told the listener when it returns.
    pub fn call(&self, call: Call) {
        self.step(|machine, now| machine.call(call, now));
    }

    /// Settings of a reloaded configuration; they count for a drain that goes on, too.
    pub fn configure(&self, settings: Settings) {
        self.step(|machine, _| {
            machine.settings = settings;
            None
        });
    }

    pub fn state(&self) -> State {
        *self.0.state.borrow()
    }

    /// Wakes at each change of state.
    pub fn subscribe(&self) -> watch::Receiver<State> {
        self.0.state.subscribe()
    }

    /// Waits until nothing is left to serve.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time; the drain goes on.
    pub async fn drained(&self) -> Outcome {
        let mut states = self.subscribe();
        loop {
            let state = *states.borrow_and_update();
            if let State::Drained(outcome) = state {
                return outcome;
            }
            if states.changed().await.is_err() {
                // The sender lives in `self`.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Makes the app's hook's call and waits for its answer.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time; the call stands.
    pub async fn app_hook(&self) -> Answer {
        let mut states = self.subscribe();
        let before = restarts(*states.borrow_and_update());
        self.call(Call::AppHook);
        loop {
            let state = *states.borrow_and_update();
            match state {
                State::Drained(outcome) => return Answer::Drained(outcome),
                State::Idle { restarts } if Some(restarts) != before => return Answer::Restart,
                State::Idle { .. } | State::AppHookAlone { .. } | State::Draining { .. } => {}
            }
            if states.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Moves the drain on until it is over. Sleeps while nobody leaves.
    pub async fn drive(&self, activity: impl Fn() -> Activity) -> Outcome {
        let mut states = self.subscribe();
        loop {
            let state = *states.borrow_and_update();
            match state {
                State::Drained(outcome) => return outcome,
                State::Idle { .. } => {
                    if states.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
                State::AppHookAlone { .. } | State::Draining { .. } => {
                    tokio::time::sleep(TICK).await;
                    self.step(|machine, now| machine.tick(activity(), now));
                }
            }
        }
    }

    fn step(&self, change: impl FnOnce(&mut Machine, Instant) -> Option<Notice>) {
        // tokio's clock, so that tests can pause it.
        let now = tokio::time::Instant::now().into_std();
        let mut machine = self.0.machine.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(notice) = change(&mut machine, now) {
            (self.0.listener)(notice);
        }
        let state = machine.state();
        self.0.state.send_if_modified(|old| std::mem::replace(old, state) != state);
    }
}

fn restarts(state: State) -> Option<u64> {
    match state {
        State::Idle { restarts } | State::AppHookAlone { restarts, .. } => Some(restarts),
        State::Draining { .. } | State::Drained(_) => None,
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Drain({:?})", self.state())
    }
}

const TICK: Duration = Duration::from_millis(20);

#[cfg(test)]
#[path = "drain_tests.rs"]
mod tests;
