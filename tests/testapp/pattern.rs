//! Bytes that differ at each place, made and compared at the speed of memory.

use std::sync::OnceLock;

/// A place in an endless stream of such bytes.
#[derive(Clone, Debug, Default)]
pub struct Pattern {
    at: u64,
}

impl Pattern {
    /// The next bytes, that many at most and at least one.
    pub fn next(&mut self, most: usize) -> &'static [u8] {
        let (block, within) = (self.at / BLOCK as u64, self.at as usize % BLOCK);
        // Each block is another part of what lies in memory, so that one block cannot pass for another.
        let begin = (block % SHIFTS as u64) as usize + within;
        let bytes = &noise()[begin..begin + most.min(BLOCK - within)];
        self.at += bytes.len() as u64;
        bytes
    }

    /// Whether these are the next bytes.
    pub fn goes_on_with(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let expected = self.next(bytes.len());
            let (piece, rest) = bytes.split_at(expected.len());
            if piece != expected {
                return false;
            }
            bytes = rest;
        }
        true
    }

    /// How many bytes went before.
    pub fn position(&self) -> u64 {
        self.at
    }
}

fn noise() -> &'static [u8] {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    NOISE.get_or_init(|| {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let random = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        (0..BLOCK + SHIFTS).map(random).collect()
    })
}

const BLOCK: usize = 64 << 10;

/// A prime: what repeats, repeats after 4 GiB.
const SHIFTS: usize = 65_521;
