//! Random numbers that a seed repeats (SplitMix64).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// Other dice that this one's future throws do not depend on.
    pub fn split(&mut self) -> Dice {
        Dice(self.next())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub fn pick<T: Clone>(&mut self, among: &[T]) -> T {
        among[self.below(among.len())].clone()
    }

    /// A moment of a switchover, which takes about 15 ms on Redis and up to 150 ms on Kvrocks; most
    /// of them are where writes are held.
    pub fn moment(&mut self) -> Duration {
        let (from_us, to_us) =
            self.pick(&[(0, 2_000), (2_000, 14_000), (2_000, 14_000), (0, 120_000)]);
        Duration::from_micros(from_us + self.next() % (to_us - from_us))
    }

    pub fn ms(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.next() % (to - from))
    }
}

/// A seed that nobody has chosen.
pub fn any_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Dice::new(now.unwrap_or_default().as_nanos() as u64).next() % 1_000_000
}
