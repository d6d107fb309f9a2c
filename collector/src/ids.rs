//! The one place that draws random ids.

use ring::rand::{SecureRandom, SystemRandom};

/// Draws random bytes from the operating system.
#[derive(Debug)]
pub struct Ids(SystemRandom);

impl Default for Ids {
    fn default() -> Ids {
        Ids(SystemRandom::new())
    }
}

impl Ids {
    /// Random bytes. The operating system's source does not fail once it has started; if it
    /// does, ids would be guessable, so the request is given up.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill(&mut bytes).expect("the operating system gives random bytes");
        bytes
    }

    /// A fraction in [0, 1), for jitter.
    pub fn fraction(&self) -> f64 {
        f64::from(u32::from_le_bytes(self.bytes())) / (f64::from(u32::MAX) + 1.0)
    }
}
