//! Timing hits without what is not theirs: they are made beforehand, a few at a time, and before
//! anybody's history has grown long everybody is put back to how they were in the beginning.

use std::time::{Duration, Instant};

use engine::engine::{Arrival, Ingested};

use crate::{Bytes, Site};

/// Hits made at once. They stay in the processor's cache, as those do that were just read.
const AT_ONCE: u64 = 256;

/// One round of hits after another on the same site.
pub struct Rounds<M> {
    site: Site,
    hits: u64,
    make: M,
    next: u64,
    bytes: Bytes,
}

impl<M: Fn(u64) -> Arrival> Rounds<M> {
    /// Rounds of so many hits, each of which `make` makes of its number.
    pub fn new(mut site: Site, hits: u64, make: M) -> Rounds<M> {
        site.keep();
        Rounds { site, hits, make, next: 0, bytes: Bytes::new() }
    }

    /// What so many hits take.
    pub fn time(&mut self, hits: u64) -> Duration {
        let (mut left, mut spent) = (hits, Duration::ZERO);
        while left > 0 {
            if self.next == self.hits {
                self.site.begin_anew();
                self.next = 0;
            }
            let some = left.min(AT_ONCE).min(self.hits - self.next);
            let made: Vec<Arrival> = (self.next..self.next + some).map(&self.make).collect();
            let began = Instant::now();
            for arrival in made {
                let done = self.site.ingest(arrival, &mut self.bytes);
                assert!(matches!(done, Ingested::Recorded(_)), "{done:?} is another case");
            }
            spent += began.elapsed();
            self.next += some;
            left -= some;
        }
        spent
    }
}
