//! Spreads the runs of many pods over time, so that they do not reach a shared dependency, or decide, at once.

use std::time::Duration;

/// Pauses within ±10 % of a base, from a seed (SplitMix64: no quality needed beyond "not in step").
#[derive(Clone, Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    /// A sequence of its own for each name.
    pub(super) fn new(seed: u64, name: &str) -> Self {
        // FNV-1a.
        Self(name.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        }))
    }

    /// The next pause around `base`.
    pub(super) fn around(&mut self, base: Duration) -> Duration {
        base.mul_f64(0.9 + 0.2 * self.unit())
    }

    /// The next pause from nothing to `most`.
    pub(super) fn below(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.unit())
    }

    /// The next of `length` places; 0 if there is none.
    pub(super) fn index(&mut self, length: usize) -> usize {
        ((self.unit() * length as f64) as usize).min(length.saturating_sub(1))
    }

    /// From 0 to less than 1.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        (bits >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_stay_within_ten_percent_and_use_the_whole_range() {
        let base = Duration::from_secs(10);
        let mut jitter = Jitter::new(7, "db");
        let pauses: Vec<_> = (0..10_000).map(|_| jitter.around(base)).collect();
        let (min, max) = (pauses.iter().min().copied(), pauses.iter().max().copied());
        assert!(min >= Some(Duration::from_secs(9)) && min < Some(Duration::from_millis(9_010)), "{min:?}");
        assert!(max <= Some(Duration::from_secs(11)) && max > Some(Duration::from_millis(10_990)), "{max:?}");
        let mean = pauses.iter().sum::<Duration>() / 10_000;
        assert!(mean.abs_diff(base) < Duration::from_millis(50), "{mean:?}");
    }

    #[test]
    fn a_seed_makes_it_repeatable_and_names_keep_it_apart() {
        let first = |seed, name| Jitter::new(seed, name).around(Duration::from_secs(1));
        assert_eq!(first(1, "db"), first(1, "db"));
        assert_ne!(first(1, "db"), first(1, "cache"));
        assert_ne!(first(1, "db"), first(2, "db"));
    }
}
