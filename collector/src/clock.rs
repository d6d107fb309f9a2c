//! The one place that reads time. It compares the wall clock with the boot clock: a jump is not
//! believed until it has held, since one second of a wrong year would fade every score.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use engine::time::Timestamp;

/// A wall clock that moves by more than this against the boot clock has jumped.
pub const JUMP: Duration = Duration::from_mins(5);
/// How long a jump must hold before it is believed.
pub const HOLD: Duration = Duration::from_mins(10);

/// Reads time.
#[derive(Debug)]
pub struct Clock {
    source: Source,
    watch: Mutex<Watch>,
}

#[derive(Debug)]
enum Source {
    System {
        booted: Instant,
    },
    /// Stands still until it is set: for acceptance tests of whole installations.
    Test {
        now_ms: AtomicU64,
        booted: Instant,
    },
}

/// Decides which wall time is believed. Pure, so that a test says what the clocks showed.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// Wall time minus boot time, as believed.
    offset_ms: i64,
    /// Another offset, and since when (boot time) it shows.
    suspect: Option<(i64, u64)>,
}

impl Watch {
    /// Believes what the clocks show at the start.
    pub fn new(wall_ms: u64, boot_ms: u64) -> Watch {
        Watch { offset_ms: wall_ms as i64 - boot_ms as i64, suspect: None }
    }

    /// The time to go by, given what the clocks show.
    pub fn step(&mut self, wall_ms: u64, boot_ms: u64) -> Timestamp {
        let shown = wall_ms as i64 - boot_ms as i64;
        let near = |a: i64, b: i64| a.abs_diff(b) <= JUMP.as_millis() as u64;
        if near(shown, self.offset_ms) {
            self.believe(shown);
        } else {
            match self.suspect {
                Some((offset, since)) if near(shown, offset) => {
                    if boot_ms.saturating_sub(since) >= HOLD.as_millis() as u64 {
                        self.believe(shown);
                    }
                }
                _ => self.suspect = Some((shown, boot_ms)),
            }
        }
        Timestamp((boot_ms as i64 + self.offset_ms).max(0) as u64)
    }

    /// Whether a jump is being waited out: timers stand still meanwhile.
    pub fn is_in_doubt(&self) -> bool {
        self.suspect.is_some()
    }

    fn believe(&mut self, offset_ms: i64) {
        self.offset_ms = offset_ms;
        self.suspect = None;
    }
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Clock {
        let clock = Source::System { booted: Instant::now() };
        let watch = Watch::new(wall_ms(), 0);
        Clock { source: clock, watch: Mutex::new(watch) }
    }

    /// A clock that stands still at a moment until it is set.
    pub fn test(now: Timestamp) -> Clock {
        let source = Source::Test { now_ms: AtomicU64::new(now.0), booted: Instant::now() };
        Clock { source, watch: Mutex::new(Watch::new(now.0, 0)) }
    }

    /// The time to go by.
    pub fn now(&self) -> Timestamp {
        match &self.source {
            Source::System { booted } => {
                let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
                watch.step(wall_ms(), booted.elapsed().as_millis() as u64)
            }
            Source::Test { now_ms, .. } => Timestamp(now_ms.load(Ordering::SeqCst)),
        }
    }

    /// Milliseconds since the start that never step back: for deadlines.
    pub fn boot_ms(&self) -> u64 {
        let (Source::System { booted } | Source::Test { booted, .. }) = &self.source;
        booted.elapsed().as_millis() as u64
    }

    /// Nanoseconds since the start that never step back: for latencies.
    pub fn boot_ns(&self) -> u64 {
        let (Source::System { booted } | Source::Test { booted, .. }) = &self.source;
        booted.elapsed().as_nanos() as u64
    }

    /// Whether the wall clock has jumped and is not believed yet.
    pub fn is_in_doubt(&self) -> bool {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner).is_in_doubt()
    }

    /// Sets a test clock, never back; a system clock cannot be set.
    pub fn set(&self, now: Timestamp) -> bool {
        match &self.source {
            Source::System { .. } => false,
            Source::Test { now_ms, .. } => now_ms.fetch_max(now.0, Ordering::SeqCst) <= now.0,
        }
    }
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;
    const WALL: u64 = 1_796_000_000_000;

    #[test]
    fn slow_drift_is_followed() {
        let mut watch = Watch::new(WALL, 0);
        assert_eq!(watch.step(WALL + MINUTE + 400, MINUTE), Timestamp(WALL + MINUTE + 400));
        assert!(!watch.is_in_doubt());
    }

    #[test]
    fn a_jump_is_believed_only_after_it_has_held() {
        let year = 365 * 24 * 60 * MINUTE;
        let mut watch = Watch::new(WALL, 0);
        for minute in 1..=10 {
            let now = watch.step(WALL + year + minute * MINUTE, minute * MINUTE);
            assert_eq!(now, Timestamp(WALL + minute * MINUTE), "minute {minute}");
            assert!(watch.is_in_doubt());
        }
        let now = watch.step(WALL + year + 11 * MINUTE, 11 * MINUTE);
        assert_eq!(now, Timestamp(WALL + year + 11 * MINUTE));
        assert!(!watch.is_in_doubt());
    }

    #[test]
    fn a_jump_that_goes_back_is_forgotten() {
        let mut watch = Watch::new(WALL, 0);
        watch.step(WALL - 90 * MINUTE, MINUTE);
        assert!(watch.is_in_doubt());
        assert_eq!(watch.step(WALL + 2 * MINUTE, 2 * MINUTE), Timestamp(WALL + 2 * MINUTE));
        assert!(!watch.is_in_doubt());
    }

    #[test]
    fn a_test_clock_never_goes_back() {
        let clock = Clock::test(Timestamp(5));
        assert!(clock.set(Timestamp(9)));
        assert!(!clock.set(Timestamp(7)));
        assert_eq!(clock.now(), Timestamp(9));
    }
}
