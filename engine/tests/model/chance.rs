//! A random walk from a seed: the tests' only chance, so that a failure can be repeated.

/// A stream of numbers from a seed.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// From a seed; any will do.
    pub fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    /// The next number (splitmix64).
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    /// A number below a limit.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// True this often in a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of some.
    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }
}

/// How many seeds a test tries: `MIKOMI_SEEDS` if set, this many otherwise.
#[allow(clippy::disallowed_methods, reason = "a test may be told how long to run")]
pub fn seeds(usual: u64) -> std::ops::Range<u64> {
    let told = std::env::var("MIKOMI_SEEDS").ok().and_then(|text| text.parse().ok());
    0..told.unwrap_or(usual)
}
