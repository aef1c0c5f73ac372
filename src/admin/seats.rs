//! Who is connected to the admin port: a bounded number, and a newcomer always finds a place.
//!
//! Nobody can tell the kubelet's probe from a client that opens connections and says nothing. So at the
//! cap it is not the newcomer that is turned away: the connection that has been quiet for longest gives up
//! its seat. Only those that wait by right (hooks, event streams) keep theirs, and there is a smaller cap
//! on each of them, so some seats can always be had.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// All seats.
#[derive(Clone, Debug)]
pub struct Seats {
    taken: Arc<Mutex<BTreeMap<u64, Taken>>>,
    cap: usize,
}

/// One connection's seat; given up on drop.
#[derive(Debug)]
pub struct Seat {
    seats: Seats,
    id: u64,
}

/// Why a connection keeps its seat although it is quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// It waits for the end of the drain.
    Hook,
    /// It reads events; each one read counts as a sign of life.
    Events,
}

/// The right to be quiet; ends on drop.
#[derive(Debug)]
pub struct Held {
    seats: Seats,
    id: u64,
}

#[derive(Debug)]
struct Taken {
    last: Instant,
    right: Option<Right>,
    /// Dropped with the seat: tells the connection to end.
    _end: oneshot::Sender<()>,
}

/// A connection without a hook that has given no sign of life for this long ends: it does not read what it
/// asked for. (One that does not ask ends sooner, by the deadline of a header.)
const STALLED: Duration = Duration::from_secs(30);

impl Seats {
    pub fn new(cap: usize) -> Self {
        Self { taken: Arc::default(), cap }
    }

    /// Takes a seat, from the quietest if need be. The receiver ends when this one is taken away.
    pub fn take(&self, now: Instant) -> (Seat, oneshot::Receiver<()>) {
        let mut taken = self.lock();
        if taken.len() >= self.cap {
            evict(&mut taken);
        }
        let (end, ended) = oneshot::channel();
        let id = taken.last_key_value().map_or(0, |(id, _)| id + 1);
        taken.insert(id, Taken { last: now, right: None, _end: end });
        drop(taken);
        (Seat { seats: self.clone(), id }, ended)
    }

    /// Ends the connection that has been quiet for longest, so that its descriptor comes free. Says whether
    /// there was one.
    pub fn evict_quietest(&self) -> bool {
        evict(&mut self.lock())
    }

    /// Ends those that do not read.
    pub fn sweep(&self, now: Instant) {
        self.lock().retain(|_, taken| {
            taken.right == Some(Right::Hook) || now.saturating_duration_since(taken.last) < STALLED
        });
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Taken>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn evict(taken: &mut BTreeMap<u64, Taken>) -> bool {
    let quietest =
        taken.iter().filter(|(_, taken)| taken.right.is_none()).min_by_key(|(_, taken)| taken.last);
    quietest.map(|(id, _)| *id).is_some_and(|id| taken.remove(&id).is_some())
}

impl Seat {
    /// Notes a sign of life.
    pub fn touch(&self, now: Instant) {
        if let Some(taken) = self.seats.lock().get_mut(&self.id) {
            taken.last = now;
        }
    }

    /// Takes the right to be quiet, if fewer than `cap` have it.
    pub fn hold(&self, right: Right, cap: usize) -> Option<Held> {
        let mut taken = self.seats.lock();
        if taken.values().filter(|taken| taken.right == Some(right)).count() >= cap {
            return None;
        }
        taken.get_mut(&self.id)?.right = Some(right);
        Some(Held { seats: self.seats.clone(), id: self.id })
    }
}

impl Held {
    /// Notes a sign of life.
    pub fn touch(&self, now: Instant) {
        if let Some(taken) = self.seats.lock().get_mut(&self.id) {
            taken.last = now;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.lock().remove(&self.id);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(taken) = self.seats.lock().get_mut(&self.id) {
            taken.right = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ended(end: &mut oneshot::Receiver<()>) -> bool {
        end.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn newcomer_takes_the_seat_of_the_quietest_that_has_no_right_to_it() {
        let now = Instant::now();
        let seats = Seats::new(3);
        let (hook, mut hook_end) = seats.take(now);
        let held = hook.hold(Right::Hook, 1);
        assert!(held.is_some());
        let (quiet, mut quiet_end) = seats.take(now + SECOND);
        let (busy, mut busy_end) = seats.take(now);
        busy.touch(now + 2 * SECOND);
        let (newcomer, mut newcomer_end) = seats.take(now + 3 * SECOND);
        assert!(ended(&mut quiet_end));
        assert!(![&mut hook_end, &mut busy_end, &mut newcomer_end].into_iter().any(ended));
        // Its own end comes late, and takes nobody else's seat.
        drop(quiet);
        assert_eq!(seats.lock().len(), 3);
        drop(newcomer);
        assert_eq!(seats.lock().len(), 2);
    }

    #[test]
    fn rights_are_capped_and_come_back() {
        let now = Instant::now();
        let seats = Seats::new(9);
        let ((one, _one_end), (two, _two_end)) = (seats.take(now), seats.take(now));
        let held = one.hold(Right::Events, 1);
        assert!(held.is_some() && two.hold(Right::Events, 1).is_none());
        assert!(two.hold(Right::Hook, 1).is_some(), "another right has its own cap");
        drop(held);
        assert!(two.hold(Right::Events, 1).is_some());
    }

    #[test]
    fn only_hooks_may_be_quiet_for_ever() {
        let now = Instant::now();
        let seats = Seats::new(9);
        let (hook, mut hook_end) = seats.take(now);
        let (reader, mut reader_end) = seats.take(now);
        let (stalled, mut stalled_end) = seats.take(now);
        let held = (
            hook.hold(Right::Hook, 1),
            reader.hold(Right::Events, 2).expect("a right"),
            stalled.hold(Right::Events, 2),
        );
        held.1.touch(now + STALLED);
        seats.sweep(now + STALLED);
        assert_eq!([&mut hook_end, &mut reader_end, &mut stalled_end].map(ended), [false, false, true]);
    }
}
