//! How many requests of a warm-up are under way at once: one at first, more while the app answers them well.
//!
//! ```text
//!   1 ── each good answer: one more ──▶ … ──▶ `concurrency`
//!   a failure: three quarters as many (once for all that were under way), a pause, and from then on one more for
//!              each round of good answers; twice as many rounds each time that as many had been too many
//!   … but if half of them, or one, are too many as well, it is not their number: one more with each good answer again
//! ```
//!
//! Much as TCP begins and backs off (RFC 5681). A cold app is not knocked over by the requests that should warm it, and
//! one that fails is left in peace: the pause doubles with each failure in a row. Pure; the same answers at the same
//! times give the same steps.

use std::time::{Duration, Instant};

#[derive(Clone, Debug)]
pub(super) struct Pace {
    most: usize,
    level: usize,
    /// So many at once were too many; until that is disproved, it climbs by rounds of good answers.
    too_many: Option<usize>,
    /// Good answers since it last grew.
    good: usize,
    /// Rounds of them before it grows again.
    rounds: usize,
    /// How often it fell back; answers to requests from before the last time do not count again.
    falls: u32,
    pause: Duration,
    until: Option<Instant>,
}

/// When a request began, as the pace counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start(u32);

impl Pace {
    /// `most` requests at once at the end; at least 1.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            level: 1,
            too_many: None,
            good: 0,
            rounds: 0,
            falls: 0,
            pause: Duration::ZERO,
            until: None,
        }
    }

    /// Whether one more may begin while so many are under way.
    pub(super) fn allows(&self, under_way: usize, now: Instant) -> bool {
        under_way < self.level && self.until.is_none_or(|until| now >= until)
    }

    /// When the pause ends that is under way.
    pub(super) fn pause_ends(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }

    pub(super) fn begin(&self) -> Start {
        Start(self.falls)
    }

    pub(super) fn good(&mut self) {
        self.pause = Duration::ZERO;
        self.good += 1;
        if self.too_many.is_none() || self.good >= self.level * self.rounds {
            self.level = (self.level + 1).min(self.most);
            self.good = 0;
        }
        if self.too_many.is_some_and(|too_many| self.level > too_many) {
            self.unlearn();
        }
    }

    pub(super) fn failed(&mut self, start: Start, now: Instant) {
        if start.0 != self.falls {
            return;
        }
        self.falls = self.falls.wrapping_add(1);
        if self.level == 1 || self.too_many.is_some_and(|too_many| self.level * 2 <= too_many) {
            self.unlearn();
        } else {
            if self.too_many.is_none_or(|too_many| self.level >= too_many) {
                self.rounds = (self.rounds * 2).clamp(1, MOST_ROUNDS);
            }
            self.too_many = Some(self.level);
        }
        self.level = (self.level * 3 / 4).max(1);
        self.good = 0;
        self.pause = (self.pause * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        self.until = Some(now + self.pause);
    }

    /// Their number is not why requests fail.
    fn unlearn(&mut self) {
        self.too_many = None;
        self.rounds = 0;
    }
}

/// Of good answers before one more at once is tried again.
const MOST_ROUNDS: usize = 64;

/// After a failure; doubles with each that follows without a good answer in between.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_climbs_by_one_with_each_good_answer_up_to_the_most() {
        let mut pace = Pace::new(4);
        for level in [1, 2, 3, 4, 4] {
            assert_eq!(pace.level, level);
            pace.good();
        }
    }

    #[test]
    fn failures_of_one_moment_count_once_and_it_climbs_by_rounds_then() {
        let now = Instant::now();
        let mut pace = Pace::new(16);
        (0..20).for_each(|_| pace.good());
        assert_eq!(pace.level, 16);
        let together = [pace.begin(), pace.begin(), pace.begin()];
        together.into_iter().for_each(|start| pace.failed(start, now));
        assert_eq!(pace.level, 12);
        assert!(!pace.allows(0, now) && pace.allows(11, now + SHORTEST_PAUSE));
        (0..11).for_each(|_| pace.good());
        assert_eq!(pace.level, 12);
        pace.good();
        assert_eq!(pace.level, 13);
    }

    #[test]
    fn number_that_is_too_many_again_is_tried_less_often_and_one_that_is_not_is_forgotten() {
        let now = Instant::now();
        let mut pace = Pace::new(16);
        (0..7).for_each(|_| pace.good());
        for rounds in [1, 2, 4] {
            assert_eq!(pace.level, 8);
            let start = pace.begin();
            pace.failed(start, now);
            assert_eq!((pace.level, pace.rounds), (6, rounds));
            (0..(6 + 7) * rounds).for_each(|_| pace.good());
        }
        let before = pace.begin();
        for (level, too_many) in
            [(6, Some(8)), (4, Some(6)), (3, Some(4)), (2, Some(3)), (1, Some(2)), (1, None)]
        {
            let start = pace.begin();
            pace.failed(start, now);
            pace.failed(before, now);
            assert_eq!((pace.level, pace.too_many), (level, too_many), "those from before do not count");
        }
        pace.good();
        pace.good();
        assert_eq!(pace.level, 3, "one fails as well: it is not their number");
    }

    #[test]
    fn app_that_only_fails_gets_one_request_after_a_pause_that_doubles() {
        let mut now = Instant::now();
        let mut pace = Pace::new(8);
        for millis in [20, 40, 80, 160, 250, 250] {
            assert!(pace.allows(0, now) && !pace.allows(1, now));
            let start = pace.begin();
            pace.failed(start, now);
            assert_eq!(pace.pause_ends(now), Some(now + Duration::from_millis(millis)));
            now += Duration::from_millis(millis);
        }
        pace.good();
        let start = pace.begin();
        pace.failed(start, now);
        assert_eq!(pace.pause_ends(now), Some(now + SHORTEST_PAUSE));
    }
}
