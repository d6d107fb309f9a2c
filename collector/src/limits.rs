//! Rates and quotas: token buckets that never need more memory, however many keys come.
//!
//! A bucket is kept as the one instant at which it will be full again. `RateLimits` has a fixed
//! number of such cells; a key owns two of them by its hash and believes the fuller one, so sharing
//! a cell with somebody busy costs nothing while the other cell is quiet. Nothing is evicted, and a
//! key never gets more than its rate: whoever floods from many addresses at worst fills the cells,
//! and then strangers are refused, by name, until the flood ends. The hash is keyed, so that nobody
//! can choose whose cells to share.

use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use engine::time::Timestamp;
use siphasher::sip::SipHasher13;

use crate::net::rate_prefix;

/// Locks over the cells; a key needs only one of them.
const STRIPES: usize = 64;
/// The least number of cells in one row of a stripe.
const CELLS_MIN: usize = 16;

/// Refused; room for this request is expected after so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryAfter(pub Duration);

impl RetryAfter {
    /// For the `retry-after` header: whole seconds, rounded up, at least one.
    pub fn seconds(self) -> u64 {
        self.0.as_millis().div_ceil(1000).max(1) as u64
    }
}

/// So many in so long, and how many at once after a rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    micros_each: u64,
    burst: u64,
}

impl Rate {
    /// `count` in every `per`, up to `burst` at once. `None` if one of them is zero, or the rate
    /// is above a million a second.
    pub fn new(count: u32, per: Duration, burst: u32) -> Option<Rate> {
        let per = u64::try_from(per.as_micros()).ok()?;
        // Rounded up: never more than `count`.
        let micros_each =
            per.checked_add(u64::from(count))?.checked_sub(1)?.checked_div(count.into())?;
        let whole = micros_each.checked_mul(u64::from(burst))?;
        let sensible = per >= u64::from(count) && burst > 0 && whole < u64::MAX / 4;
        sensible.then_some(Rate { micros_each, burst: u64::from(burst) })
    }

    /// The bucket that is full again at `full_at`, after taking `cost`. A cost above the burst
    /// could never pass, and counts as the burst.
    fn take(self, full_at: u64, now: Timestamp, cost: u32) -> Result<u64, RetryAfter> {
        let now = now.0.saturating_mul(1000);
        let empty = self.micros_each * self.burst;
        // A clock that was ahead and came back must not lock anybody out until then: no bucket is
        // ever further from full than empty.
        let owed = full_at.saturating_sub(now).min(empty)
            + self.micros_each * u64::from(cost).min(self.burst);
        if owed > empty {
            return Err(RetryAfter(Duration::from_micros(owed - empty)));
        }
        Ok(now.saturating_add(owed))
    }
}

/// One token bucket, full at first: a quota of a site.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    rate: Rate,
    full_at: u64,
}

impl Quota {
    /// A full bucket.
    pub fn new(rate: Rate) -> Quota {
        Quota { rate, full_at: 0 }
    }

    /// Takes `cost` out of the bucket, or says when to come again.
    pub fn allow(&mut self, now: Timestamp, cost: u32) -> Result<(), RetryAfter> {
        self.full_at = self.rate.take(self.full_at, now, cost)?;
        Ok(())
    }
}

/// One rate for any number of keys, in fixed memory.
pub struct RateLimits {
    rate: Rate,
    seed: [u8; 16],
    stripes: Vec<Mutex<Rows>>,
}

/// Two rows of cells; a key has one cell in each.
struct Rows {
    cells: Vec<[u64; 2]>,
}

impl RateLimits {
    /// `cells` is the number of keys that can be busy at one time before they get in each other's
    /// way (rounded up); each takes 16 bytes. `seed` must be random and secret.
    pub fn new(rate: Rate, cells: usize, seed: [u8; 16]) -> RateLimits {
        let each = cells.div_ceil(STRIPES).next_power_of_two().max(CELLS_MIN);
        let rows = || Mutex::new(Rows { cells: vec![[0; 2]; each] });
        RateLimits { rate, seed, stripes: std::iter::repeat_with(rows).take(STRIPES).collect() }
    }

    /// The key of an address (IPv6 by its /64) on a site.
    pub fn key(&self, address: IpAddr, site: u64) -> u64 {
        let mut hash = SipHasher13::new_with_key(&self.seed);
        match rate_prefix(address) {
            IpAddr::V4(address) => hash.write(&address.octets()),
            IpAddr::V6(address) => hash.write(&address.octets()),
        }
        hash.write(&site.to_le_bytes());
        hash.finish()
    }

    /// Takes `cost` out of the key's bucket, or says when to come again.
    pub fn allow(&self, key: u64, now: Timestamp, cost: u32) -> Result<(), RetryAfter> {
        let mut hash = SipHasher13::new_with_key(&self.seed);
        hash.write(&key.to_le_bytes());
        let hash = hash.finish();
        let stripe = &self.stripes[hash as usize % STRIPES];
        let mut rows = stripe.lock().unwrap_or_else(PoisonError::into_inner);
        // Three disjoint parts of the hash: stripe, first cell, second cell.
        let mask = rows.cells.len() - 1;
        let first = (hash >> 6) as usize & mask;
        let second = (hash >> 35) as usize & mask;
        let believed = rows.cells[first][0].min(rows.cells[second][1]);
        let full_at = self.rate.take(believed, now, cost)?;
        // Whoever shares a cell may have taken more already; that is kept.
        for (cell, row) in [(first, 0), (second, 1)] {
            let cell = &mut rows.cells[cell][row];
            *cell = full_at.max(*cell);
        }
        Ok(())
    }

    /// Bytes held; the same for ever.
    pub fn bytes(&self) -> usize {
        let held = |rows: &Mutex<Rows>| {
            let rows = rows.lock().unwrap_or_else(PoisonError::into_inner);
            rows.cells.capacity() * size_of::<[u64; 2]>()
        };
        self.stripes.iter().map(held).sum()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp(1_800_000_000_000);

    fn after(millis: u64) -> Timestamp {
        Timestamp(START.0 + millis)
    }

    fn rate(count: u32, per: Duration, burst: u32) -> Rate {
        Rate::new(count, per, burst).unwrap()
    }

    #[test]
    fn a_quota_gives_its_burst_then_its_rate() {
        let mut quota = Quota::new(rate(10, Duration::from_secs(1), 3));
        for _ in 0..3 {
            assert_eq!(quota.allow(START, 1), Ok(()));
        }
        assert_eq!(quota.allow(START, 1), Err(RetryAfter(Duration::from_millis(100))));
        assert_eq!(quota.allow(after(99), 1), Err(RetryAfter(Duration::from_millis(1))));
        assert_eq!(quota.allow(after(100), 1), Ok(()));
        assert_eq!(quota.allow(after(100), 1), Err(RetryAfter(Duration::from_millis(100))));
    }

    #[test]
    fn an_hour_never_gives_more_than_its_quota_and_one_burst() {
        let mut quota = Quota::new(rate(7, Duration::from_hours(1), 7));
        let given = (0..3_600_000).step_by(500).filter(|ms| quota.allow(after(*ms), 1).is_ok());
        assert_eq!(given.count(), 7 + 6);
    }

    #[test]
    fn a_cost_above_the_burst_takes_the_whole_bucket_and_is_not_refused_for_ever() {
        let mut quota = Quota::new(rate(10, Duration::from_secs(1), 3));
        assert_eq!(quota.allow(START, 500), Ok(()));
        assert_eq!(quota.allow(START, 500), Err(RetryAfter(Duration::from_millis(300))));
        assert_eq!(quota.allow(after(300), 500), Ok(()));
    }

    #[test]
    fn a_clock_that_was_ahead_for_a_moment_locks_nobody_out() {
        let mut quota = Quota::new(rate(10, Duration::from_secs(1), 3));
        assert_eq!(quota.allow(after(365 * 86_400_000), 1), Ok(()));
        assert_eq!(quota.allow(START, 1), Err(RetryAfter(Duration::from_millis(100))));
    }

    #[test]
    fn a_rate_that_says_nothing_is_refused() {
        assert_eq!(Rate::new(0, Duration::from_secs(1), 1), None);
        assert_eq!(Rate::new(1, Duration::ZERO, 1), None);
        assert_eq!(Rate::new(1, Duration::from_secs(1), 0), None);
        assert_eq!(Rate::new(2, Duration::from_micros(1), 1), None);
        assert_eq!(Rate::new(u32::MAX, Duration::MAX, u32::MAX), None);
    }

    #[test]
    fn keys_have_buckets_of_their_own() {
        let limits = RateLimits::new(rate(1, Duration::from_mins(1), 2), 4096, [7; 16]);
        let mine = limits.key("192.0.2.1".parse().unwrap(), 1);
        let other_site = limits.key("192.0.2.1".parse().unwrap(), 2);
        let other_address = limits.key("192.0.2.2".parse().unwrap(), 1);
        assert_eq!(limits.allow(mine, START, 2), Ok(()));
        assert!(limits.allow(mine, START, 1).is_err());
        assert_eq!(limits.allow(other_site, START, 2), Ok(()));
        assert_eq!(limits.allow(other_address, START, 2), Ok(()));
    }

    #[test]
    fn an_ipv6_neighbourhood_is_one_sender_and_an_ipv4_address_another() {
        let limits = RateLimits::new(rate(1, Duration::from_mins(1), 2), 4096, [7; 16]);
        let key = |address: &str| limits.key(address.parse().unwrap(), 1);
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    }

    #[test]
    fn a_million_strangers_need_no_memory_and_free_nobody_who_was_refused() {
        let limits = RateLimits::new(rate(1, Duration::from_hours(1), 1), 65_536, [7; 16]);
        let before = limits.bytes();
        assert_eq!(limits.allow(0, START, 1), Ok(()));
        for stranger in 1..=1_000_000 {
            let _ = limits.allow(stranger, START, 1);
        }
        assert_eq!(limits.bytes(), before);
        assert_eq!(before, 65_536 * 16);
        assert!(limits.allow(0, START, 1).is_err());
    }

    #[test]
    fn as_many_busy_keys_as_there_are_cells_seldom_meet() {
        let limits = RateLimits::new(rate(1, Duration::from_hours(1), 1), 65_536, [7; 16]);
        let refused = (0..6_554).filter(|key| limits.allow(*key, START, 1).is_err()).count();
        // A tenth of the cells busy: one in a hundred and some find both of theirs taken.
        assert!(refused < 130, "{refused} of 6,554 refused");
    }
}
