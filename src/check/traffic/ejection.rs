//! When an app leaves for its traffic, and how it comes back: a pure machine, as outlier detection in balancers.
//!
//! ```text
//!   watching ── unhealthy ──▶ ejected ── hold over, probes pass ──▶ half open ── healthy ──▶ watching
//!                                ▲                                     │
//!                                └────────── unhealthy: twice the hold ┘
//! ```

use std::time::{Duration, Instant};

/// How long it stays away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    /// The first time; doubles with each ejection that follows.
    pub base: Duration,
    pub max: Duration,
}

/// What live traffic says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Healthy,
    Unhealthy,
    /// Not bad enough to leave for, nor good enough to close a case.
    Unclear,
    /// Too few requests to say.
    Unknown,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    /// Fails, and will for that long.
    Held(Duration),
    /// Fails unless the app now answers probes.
    Probe,
}

#[derive(Clone, Debug)]
pub(super) struct Ejection {
    hold: Hold,
    state: State,
    /// Ejections that still weigh.
    ejections: u32,
    since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Watching,
    Ejected { until: Instant },
    HalfOpen,
}

impl Ejection {
    pub(super) fn new(hold: Hold, now: Instant) -> Self {
        Self { hold, state: State::Watching, ejections: 0, since: now }
    }

    /// Moves on with what traffic says.
    pub(super) fn step(&mut self, health: Health, now: Instant) -> Verdict {
        match (self.state, health) {
            (State::Watching | State::HalfOpen, Health::Unhealthy) => self.eject(now),
            (State::HalfOpen, Health::Healthy) => {
                self.enter(State::Watching, now);
                Verdict::Pass
            }
            (State::Watching, Health::Healthy | Health::Unclear | Health::Unknown) => {
                // Ejections of long ago do not weigh for ever.
                if now.saturating_duration_since(self.since) >= self.hold.max {
                    self.ejections = self.ejections.saturating_sub(1);
                    self.since = now;
                }
                Verdict::Pass
            }
            (State::HalfOpen, Health::Unclear | Health::Unknown) => Verdict::Pass,
            (State::Ejected { until }, _) => match until.saturating_duration_since(now) {
                Duration::ZERO => Verdict::Probe,
                left => Verdict::Held(left),
            },
        }
    }

    /// The probes that [`Verdict::Probe`] asked for passed: some traffic may come.
    pub(super) fn probed(&mut self, now: Instant) {
        self.enter(State::HalfOpen, now);
    }

    pub(super) fn ejections(&self) -> u32 {
        self.ejections
    }

    pub(super) fn is_half_open(&self) -> bool {
        self.state == State::HalfOpen
    }

    fn eject(&mut self, now: Instant) -> Verdict {
        let factor = 2u32.saturating_pow(self.ejections);
        let hold = self.hold.base.saturating_mul(factor).min(self.hold.max);
        self.ejections = (self.ejections + 1).min(MOST_EJECTIONS);
        self.enter(State::Ejected { until: now + hold }, now);
        Verdict::Held(hold)
    }

    fn enter(&mut self, state: State, now: Instant) {
        self.state = state;
        self.since = now;
    }
}

/// More doublings than any `max` needs.
const MOST_EJECTIONS: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Hold = Hold { base: Duration::from_secs(10), max: Duration::from_secs(60) };

    #[test]
    fn each_ejection_holds_twice_as_long_up_to_the_most() {
        let mut now = Instant::now();
        let mut ejection = Ejection::new(HOLD, now);
        for seconds in [10, 20, 40, 60, 60] {
            let hold = Duration::from_secs(seconds);
            assert_eq!(ejection.step(Health::Unhealthy, now), Verdict::Held(hold));
            assert_eq!(ejection.step(Health::Healthy, now + hold / 2), Verdict::Held(hold / 2), "{seconds}");
            now += hold;
            assert_eq!(ejection.step(Health::Unknown, now), Verdict::Probe);
            ejection.probed(now);
            assert_eq!(ejection.step(Health::Unknown, now), Verdict::Pass, "half open");
        }
    }

    #[test]
    fn only_healthy_traffic_closes_the_case_and_time_forgives() {
        let mut now = Instant::now();
        let mut ejection = Ejection::new(HOLD, now);
        ejection.step(Health::Unhealthy, now);
        now += HOLD.base;
        assert_eq!(ejection.step(Health::Unknown, now), Verdict::Probe);
        ejection.probed(now);
        for unsaid in [Health::Unknown, Health::Unclear] {
            assert_eq!(ejection.step(unsaid, now), Verdict::Pass);
            assert!(ejection.is_half_open());
        }
        assert_eq!(ejection.step(Health::Healthy, now), Verdict::Pass);
        assert!(!ejection.is_half_open());
        assert_eq!(ejection.ejections(), 1);
        assert_eq!(ejection.step(Health::Healthy, now + HOLD.max), Verdict::Pass);
        assert_eq!(ejection.ejections(), 0);
    }

    #[test]
    fn probes_that_do_not_pass_keep_it_away() {
        let now = Instant::now();
        let mut ejection = Ejection::new(HOLD, now);
        ejection.step(Health::Unhealthy, now);
        for seconds in [10, 11, 100] {
            assert_eq!(ejection.step(Health::Healthy, now + Duration::from_secs(seconds)), Verdict::Probe);
        }
    }
}
