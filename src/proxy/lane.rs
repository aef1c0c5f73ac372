//! One listener on one worker: everything a request of it needs, behind one `Rc`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::Semaphore;

use crate::config::{AccessLog, Listener};
use crate::gate::{Gate, GateView, Phase};
use crate::traffic::{Counters, ErrorKind, Ignored};

use super::error::ProxyError;
use super::ramp::{Climb, first_places};
use super::registry::{Connections, Entrance};
use super::resend::Budget;
use super::upstream::Upstream;
use super::{Setup, Tls};

/// What the workers of one listener share. A request touches it only if it has to wait.
#[derive(Debug)]
pub struct Shared {
    pub name: String,
    pub warmup_token: Arc<str>,
    /// Places for client connections.
    connections: Semaphore,
    /// Places for connections of our own warm-up clients, where those have an entrance of their own.
    warmup_connections: Semaphore,
    /// Places at the app, if `limits.in_flight` is on.
    in_flight: ArcSwapOption<Semaphore>,
    /// Whether there are such places: all that most requests ask.
    limited: AtomicBool,
    pub ramp: Climb,
    waiting: AtomicUsize,
    /// Places for connections that a reload took away while they were in use.
    excess: AtomicUsize,
}

impl Shared {
    pub fn new(listener: &Listener, warmup_token: &Arc<str>) -> Self {
        let first = first_places(listener);
        let ramp = Climb::default();
        ramp.configure(listener);
        Self {
            ramp,
            name: listener.name.clone(),
            warmup_token: Arc::clone(warmup_token),
            connections: Semaphore::new(listener.limits.connections),
            warmup_connections: Semaphore::new(WARMUP_CONNECTIONS),
            limited: AtomicBool::new(first.is_some()),
            in_flight: ArcSwapOption::new(first),
            waiting: AtomicUsize::new(0),
            excess: AtomicUsize::new(0),
        }
    }

    /// Takes over a reload. Requests that hold a place of the old count keep it.
    pub fn configure(&self, old: &Listener, new: &Listener) {
        let (before, after) = (old.limits.connections, new.limits.connections);
        if after > before {
            let kept = (before..after).filter(|_| self.take_excess()).count();
            self.connections.add_permits(after - before - kept);
        } else {
            let forgotten = self.connections.forget_permits(before - after);
            self.excess.fetch_add(before - after - forgotten, Ordering::Relaxed);
        }
        self.ramp.configure(new);
        if old.limits.in_flight != new.limits.in_flight {
            self.limit(places(new));
        }
    }

    /// The places at the app, if their number is limited right now.
    pub fn places(&self) -> Option<Arc<Semaphore>> {
        if self.limited.load(Ordering::Relaxed) { self.in_flight.load_full() } else { None }
    }

    /// Sets the places at the app. Requests that hold one of the old ones keep it.
    pub fn limit(&self, places: Option<Arc<Semaphore>>) {
        let limited = places.is_some();
        self.in_flight.store(places);
        self.limited.store(limited, Ordering::Relaxed);
    }

    fn connections(&self, entrance: Entrance) -> &Semaphore {
        match entrance {
            Entrance::Clients => &self.connections,
            Entrance::Warmup => &self.warmup_connections,
        }
    }

    fn take_excess(&self) -> bool {
        let less = |excess: usize| excess.checked_sub(1);
        self.excess.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

pub fn places(listener: &Listener) -> Option<Arc<Semaphore>> {
    listener.limits.in_flight.map(|limit| Arc::new(Semaphore::new(limit)))
}

/// As many as a warm-up may have clients (`concurrency`), and what is left of those before.
const WARMUP_CONNECTIONS: usize = 2048;

/// One listener on one worker.
#[derive(Debug)]
pub struct Lane {
    /// Number of the listener.
    pub number: usize,
    pub shared: Arc<Shared>,
    pub counters: Arc<Counters>,
    /// Paths whose answers are not judged.
    pub ignored: Ignored,
    pub gate: Gate,
    pub view: GateView,
    pub upstream: Upstream,
    /// For bodies that are kept until the app answers.
    pub resend: Rc<Budget>,
    pub tls: Tls,
    pub connections: Connections,
    pub clock: Rc<Clock>,
    /// The listeners are closed; never unset.
    pub closing: Cell<bool>,
    settings: RefCell<Rc<Settings>>,
}

/// The configuration of a lane.
#[derive(Debug)]
pub struct Settings {
    pub listener: Listener,
    pub access: AccessLog,
}

impl Lane {
    pub fn new(
        number: usize,
        worker: usize,
        shared: Arc<Shared>,
        setup: &Setup,
        clock: &Rc<Clock>,
        settings: Settings,
    ) -> Rc<Self> {
        let suspect = Arc::clone(&setup.suspect);
        Rc::new(Self {
            number,
            shared,
            counters: setup.traffic.counters(number, worker),
            ignored: setup.traffic.ignored(number),
            gate: setup.gate.clone(),
            view: setup.gate.view(),
            upstream: Upstream::new(Box::new(move || suspect(number))),
            resend: Rc::default(),
            tls: setup.tls.get(number).cloned().unwrap_or_default(),
            connections: Connections::default(),
            clock: Rc::clone(clock),
            closing: Cell::new(false),
            settings: RefCell::new(Rc::new(settings)),
        })
    }

    /// The settings in force; keep the handle for one request, not longer.
    pub fn settings(&self) -> Rc<Settings> {
        Rc::clone(&self.settings.borrow())
    }

    pub fn configure(&self, settings: Settings) {
        *self.settings.borrow_mut() = Rc::new(settings);
    }

    /// Whether answers ask clients to leave: from the moment `/ready` says so, not from when this worker hears of it.
    pub fn is_leaving(&self) -> bool {
        self.closing.get() || matches!(self.view.word().phase(), Phase::Draining | Phase::Drained)
    }

    /// A place for a connection, once there is one; None only when there will be none any more.
    pub async fn place(self: &Rc<Self>, entrance: Entrance) -> Option<Place> {
        self.shared.connections(entrance).acquire().await.ok()?.forget();
        Some(Place { lane: Rc::clone(self), entrance })
    }

    /// A place in the bounded line of requests that wait.
    ///
    /// # Errors
    ///
    /// As many wait as may.
    pub fn wait_in_line(self: &Rc<Self>) -> Result<Waiting, ProxyError> {
        let limit = self.settings.borrow().listener.limits.queue;
        let waiting = &self.shared.waiting;
        if waiting.fetch_add(1, Ordering::Relaxed) >= limit {
            waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(ProxyError::new(ErrorKind::QueueFull));
        }
        self.counters.hold_began();
        Ok(Waiting(Rc::clone(self)))
    }
}

/// A place for a connection; dropping it gives it to the next. No permit of the semaphore's own: that would count its
/// holders where all workers do.
#[derive(Debug)]
pub struct Place {
    lane: Rc<Lane>,
    entrance: Entrance,
}

impl Drop for Place {
    fn drop(&mut self) {
        let shared = &self.lane.shared;
        if self.entrance == Entrance::Warmup || !shared.take_excess() {
            shared.connections(self.entrance).add_permits(1);
        }
    }
}

/// A place in the line; dropping it gives it to the next.
#[derive(Debug)]
pub struct Waiting(Rc<Lane>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.shared.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.counters.hold_ended();
    }
}

/// Milliseconds since the traffic's origin, as of the worker's last tick: free to read, at most one tick late.
#[derive(Debug)]
pub struct Clock {
    origin: Instant,
    millis: Cell<u64>,
}

impl Clock {
    pub fn new(origin: Instant) -> Self {
        let clock = Self { origin, millis: Cell::new(0) };
        clock.tick();
        clock
    }

    /// Reads the real clock.
    pub fn tick(&self) -> Instant {
        let now = Instant::now();
        self.millis.set(self.since_origin(now));
        now
    }

    pub fn millis(&self) -> u64 {
        self.millis.get()
    }

    pub fn since_origin(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.origin).as_millis() as u64
    }

    /// Whether that long has passed since `millis`.
    pub fn passed(&self, millis: u64, time: Duration) -> bool {
        self.millis() >= millis.saturating_add(time.as_millis() as u64)
    }
}
