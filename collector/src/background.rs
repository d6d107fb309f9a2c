//! How work that nobody waits for stays out of the way of hits: a lower priority, and after each
//! short piece of it a rest that keeps it within its share of one core.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::clock::Clock;

/// A piece of work, in milliseconds; after each it rests, when it next may. With five of them and
/// half of a core for snapshots of 200,000 visitors the p99.9 of hits was 9 times what it is
/// without, with one and a fifth of a core 1.5 times (`./measure snapshot`).
const PIECE_MS: u64 = 1;
/// A rest under a lock that hits may want: whoever does waits for it.
const UNDER_LOCK: Duration = Duration::from_micros(100);
/// The longest rest without looking whether to stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The server stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

/// Work and rest by turns. What is waited for counts as work, so that it is less than its share.
pub struct Pace<'a> {
    clock: &'a Clock,
    stop: &'a AtomicBool,
    share: u64,
    since_ms: AtomicU64,
}

impl<'a> Pace<'a> {
    /// At most so many percent of one core.
    pub fn new(clock: &'a Clock, stop: &'a AtomicBool, percent: u64) -> Pace<'a> {
        Pace { clock, stop, share: percent, since_ms: AtomicU64::new(clock.boot_ms()) }
    }

    /// Rests, if it has worked long enough for it.
    pub fn breathe(&self) -> Result<(), Stopped> {
        let worked = self.clock.boot_ms() - self.since_ms.load(Ordering::Relaxed);
        if worked < PIECE_MS {
            return self.go_on();
        }
        let rest = rest_ms(worked, self.share);
        self.wait_until(self.clock.boot_ms() + rest)
    }

    /// Rests until a moment since the start.
    pub fn wait_until(&self, end_ms: u64) -> Result<(), Stopped> {
        loop {
            self.go_on()?;
            let left = end_ms.saturating_sub(self.clock.boot_ms());
            if left == 0 {
                self.since_ms.store(self.clock.boot_ms(), Ordering::Relaxed);
                return Ok(());
            }
            thread::sleep(LOOK_EVERY.min(Duration::from_millis(left)));
        }
    }

    fn go_on(&self) -> Result<(), Stopped> {
        if self.stop.load(Ordering::Acquire) { Err(Stopped) } else { Ok(()) }
    }
}

/// The rest that so much work needs to stay within so many percent.
fn rest_ms(worked_ms: u64, percent: u64) -> u64 {
    (worked_ms * 100).div_ceil(percent.max(1)).saturating_sub(worked_ms)
}

/// Rests for a moment although a lock is held that hits may want: as long as one of them takes, and
/// after no more work than that.
pub fn rest_under_lock() {
    thread::sleep(UNDER_LOCK);
}

/// Others go before this thread. Not all at once: it may be interrupted while it holds the lock of
/// an entry, and whoever wants that waits until it has gone on.
pub fn stand_back() {
    #[cfg(target_os = "linux")]
    {
        /// A third of the weight that others have.
        const NICE: i32 = 5;
        // On Linux a thread has a priority of its own. Without it the share is kept all the same.
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            tracing::warn!(%error, "a thread in the background keeps the priority of all");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_and_rest_together_keep_within_the_share() {
        for (worked, percent, rest) in [(5, 50, 5), (5, 5, 95), (7, 3, 227), (200, 1, 19_800)] {
            assert_eq!(rest_ms(worked, percent), rest, "{worked} ms at {percent} percent");
            assert!(worked * 100 <= percent * (worked + rest));
        }
    }

    #[test]
    fn whoever_is_told_to_stop_does_not_rest() {
        let (clock, stop) = (Clock::system(), AtomicBool::new(true));
        let pace = Pace::new(&clock, &stop, 1);
        assert_eq!(pace.wait_until(u64::MAX), Err(Stopped));
        assert_eq!(pace.breathe(), Err(Stopped));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_lower_priority_is_that_of_its_thread_alone() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        let lowered = thread::spawn(move || {
            stand_back();
            nice()
        });
        assert_eq!(lowered.join().unwrap(), before + 5);
        assert_eq!(nice(), before, "nobody else waits");
    }
}
