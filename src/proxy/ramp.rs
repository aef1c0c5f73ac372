//! The ramp of a listener: after each arm of the gate, requests at the app at once grow from a share to all.
//!
//! It is the semaphore of `limits.in_flight`, with fewer places at first; where that is off, one of
//! [`FULL`] places, which goes away at the end. What finds no place waits briefly and is refused (see
//! `layers::admit`). While the gate has not opened, the share at the start holds.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::config::{Listener, Ramp};

use super::lane::{Shared, places};

/// The ramps of all listeners, for who knows when the gate opens. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ramps(Arc<[Arc<Shared>]>);

impl Ramps {
    pub(super) fn new(listeners: impl IntoIterator<Item = Arc<Shared>>) -> Self {
        Self(listeners.into_iter().collect())
    }

    /// The gate was armed: back to the share at the start.
    pub fn armed(&self) {
        self.0.iter().for_each(|shared| shared.ramp.lay(shared, None, None));
    }

    /// The gate opened: from now on it grows.
    pub fn opened(&self, now: Instant) {
        self.0.iter().for_each(|shared| shared.ramp.lay(shared, None, Some(now)));
    }

    /// The gate opened for an app that had left for its traffic: a trickle comes first, also without a ramp.
    pub fn rejoined(&self, now: Instant) {
        self.0.iter().for_each(|shared| shared.ramp.lay(shared, Some(TRICKLE), Some(now)));
    }
}

/// The ramp of one listener, if it has one.
#[derive(Debug, Default)]
pub struct Climb(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// As configured.
    ramp: Option<Ramp>,
    /// The one under way.
    current: Option<Ramp>,
    /// Places at the end.
    full: usize,
    /// Whether the places stay when the ramp is over.
    stays: bool,
    /// Places given so far; None while no ramp is under way.
    granted: Option<usize>,
    began: Option<Instant>,
}

impl Climb {
    /// Takes over a listener's keys; they count from the next arm on.
    pub fn configure(&self, listener: &Listener) {
        let mut state = self.lock();
        state.ramp = listener.ramp;
        state.full = listener.limits.in_flight.unwrap_or(FULL);
        state.stays = listener.limits.in_flight.is_some();
    }

    /// Begins with the share at the start; grows only if it `began`.
    fn lay(&self, shared: &Shared, otherwise: Option<Ramp>, began: Option<Instant>) {
        let mut state = self.lock();
        let Some(ramp) = state.ramp.or(otherwise) else { return };
        state.current = Some(ramp);
        let first = share(state.full, ramp.from);
        state.granted = Some(first);
        state.began = began;
        shared.limit(Some(Arc::new(Semaphore::new(first))));
    }

    /// Adds the places that time has earned; takes the ramp away at its end.
    pub fn grow(&self, shared: &Shared, now: Instant) {
        let mut state = self.lock();
        let (Some(ramp), Some(granted), Some(began)) = (state.current, state.granted, state.began) else {
            return;
        };
        let elapsed = now.saturating_duration_since(began).as_secs_f64() / ramp.over.as_secs_f64();
        let earned = share(state.full, ramp.from + (1.0 - ramp.from) * elapsed.min(1.0));
        if elapsed >= 1.0 && !state.stays {
            state.granted = None;
            return shared.limit(None);
        }
        if let Some(places) = shared.places()
            && earned > granted
        {
            places.add_permits(earned - granted);
        }
        state.granted = (elapsed < 1.0).then_some(earned);
    }

    /// Whether the ramp limits requests right now.
    pub fn is_under_way(&self) -> bool {
        self.lock().granted.is_some()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// At least one place: an app that gets nothing does not warm.
fn share(full: usize, share: f64) -> usize {
    // What floating point adds is no place more.
    ((full as f64 * share - 1e-6).ceil() as usize).clamp(1, full)
}

/// Enough for the evidence that closes the case, or opens it again.
const TRICKLE: Ramp = Ramp { from: 0.1, over: Duration::from_secs(10) };

/// What a ramp without `limits.in_flight` grows to before it is taken away.
const FULL: usize = 100;

/// The semaphore of a listener before its gate opened for the first time.
pub fn first_places(listener: &Listener) -> Option<Arc<Semaphore>> {
    match listener.ramp {
        None => places(listener),
        Some(ramp) => {
            let full = listener.limits.in_flight.unwrap_or(FULL);
            Some(Arc::new(Semaphore::new(share(full, ramp.from))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(in_flight: Option<usize>) -> Listener {
        let mut listener = Listener::default();
        listener.limits.in_flight = in_flight;
        listener.ramp = Some(Ramp { from: 0.1, over: Duration::from_secs(10) });
        listener
    }

    fn free(shared: &Shared) -> Option<usize> {
        shared.places().map(|places| places.available_permits())
    }

    #[test]
    fn places_grow_from_the_share_to_all_and_again_after_each_arm() {
        let shared = Arc::new(Shared::new(&listener(Some(40)), &"".into()));
        let ramps = Ramps::new([Arc::clone(&shared)]);
        assert_eq!(free(&shared), Some(4), "before the gate opened");
        let mut now = Instant::now();
        for _ in 0..2 {
            ramps.opened(now);
            for (seconds, expected) in [(0, 4), (5, 22), (5, 40), (10, 40)] {
                now += Duration::from_secs(seconds);
                shared.ramp.grow(&shared, now);
                assert_eq!(free(&shared), Some(expected), "{seconds}");
            }
            ramps.armed();
            assert_eq!(free(&shared), Some(4));
            shared.ramp.grow(&shared, now + Duration::from_secs(60));
            assert_eq!(free(&shared), Some(4), "nothing grows before the gate opens");
        }
    }

    #[test]
    fn ramp_without_a_limit_ends_without_one() {
        let shared = Arc::new(Shared::new(&listener(None), &"".into()));
        let ramps = Ramps::new([Arc::clone(&shared)]);
        let now = Instant::now();
        ramps.opened(now);
        shared.ramp.grow(&shared, now + Duration::from_secs(5));
        assert_eq!(free(&shared), Some(55));
        assert!(shared.ramp.is_under_way());
        shared.ramp.grow(&shared, now + Duration::from_secs(10));
        assert_eq!((free(&shared), shared.ramp.is_under_way()), (None, false));
    }

    #[test]
    fn listener_without_a_ramp_keeps_its_places_but_for_a_trickle() {
        let plain = Listener::default();
        let shared = Arc::new(Shared::new(&plain, &"".into()));
        let (ramps, now) = (Ramps::new([Arc::clone(&shared)]), Instant::now());
        ramps.opened(now);
        assert_eq!(free(&shared), None);
        ramps.rejoined(now);
        assert_eq!(free(&shared), Some(10));
        shared.ramp.grow(&shared, now + TRICKLE.over);
        assert_eq!(free(&shared), None);
    }
}
