//! Choices that a seed repeats.
//!
//! Every client, node, pod and change of an endpoint draws from a stream of its own, named after it. So a
//! choice does not depend on the order in which tasks happen to run, only on the seed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// SplitMix64 (Steele, Lea, Flood 2014): small, and good enough to spread delays.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The stream of this name.
    pub fn stream(seed: u64, name: &str) -> Self {
        // FNV-1a, then one step, so that names that differ in one letter give streams far apart.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mut rng = Self(seed ^ hash);
        rng.0 = rng.next();
        rng
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to, not including, 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From 0 up to, not including, `bound`, which is at least 1.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.unit() * bound as f64) as usize
    }

    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        least + (most - least).mul_f64(self.unit())
    }

    /// Exponentially distributed: many short, few long.
    pub fn exponential(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-(1.0 - self.unit()).ln())
    }
}

/// A short seed from the clock.
pub fn fresh_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| u64::from(now.subsec_micros()))
}
