//! The one place that reads time. It compares the wall clock with the boot clock: a jump is not
//! believed until it has held, since one second of a wrong year would fade every score.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
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
    /// Since when (boot time) no other offset was believed, but for what drifts.
    steady_since_ms: u64,
}

impl Watch {
    /// Believes what the clocks show at the start.
    pub fn new(wall_ms: u64, boot_ms: u64) -> Watch {
        let offset_ms = wall_ms as i64 - boot_ms as i64;
        Watch { offset_ms, suspect: None, steady_since_ms: boot_ms }
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
                        self.steady_since_ms = boot_ms;
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

    /// Doubts what the clocks show, and goes on from a moment that is known to have been.
    pub fn doubt(&mut self, known: Timestamp, (wall_ms, boot_ms): (u64, u64)) {
        self.offset_ms = known.0 as i64 - boot_ms as i64;
        self.suspect = Some((wall_ms as i64 - boot_ms as i64, boot_ms));
    }

    /// An operator's word: what the clocks show is right. By how much time moves, in
    /// milliseconds.
    pub fn believe_now(&mut self, wall_ms: u64, boot_ms: u64) -> i64 {
        let shown = wall_ms as i64 - boot_ms as i64;
        let moved = shown - self.offset_ms;
        self.steady_since_ms = boot_ms;
        self.believe(shown);
        moved
    }

    /// By how much the wall clock is ahead of the time that is gone by, in milliseconds, and when
    /// (boot time) that will be believed; nothing while there is no doubt.
    pub fn doubted(&self) -> Option<(i64, u64)> {
        let (offset, since) = self.suspect?;
        Some((offset - self.offset_ms, since + HOLD.as_millis() as u64))
    }

    /// For how long time has gone on without a jump that was believed, in milliseconds.
    pub fn steady_ms(&self, boot_ms: u64) -> u64 {
        boot_ms.saturating_sub(self.steady_since_ms)
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
                self.watch().step(wall_ms(), booted.elapsed().as_millis() as u64)
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
        self.watch().is_in_doubt()
    }

    /// For how long time has gone on without a jump that was believed, since the start at most,
    /// in milliseconds. A test clock shows what somebody wants it to.
    pub fn steady_ms(&self) -> u64 {
        match &self.source {
            Source::System { .. } => self.watch().steady_ms(self.boot_ms()),
            Source::Test { .. } => u64::MAX,
        }
    }

    /// By how much the wall clock is ahead of the time that is gone by, in milliseconds, and in
    /// how many milliseconds that will be believed; nothing while there is no doubt.
    pub fn doubted(&self) -> Option<(i64, u64)> {
        let (ahead_ms, believed_at) = self.watch().doubted()?;
        Some((ahead_ms, believed_at.saturating_sub(self.boot_ms())))
    }

    /// Hears when the last thing known happened, before the start. A wall clock that shows an
    /// earlier moment, by more than `JUMP`, has been set back: time goes on from what is known
    /// until that is believed.
    pub fn remember(&self, known: Timestamp) {
        let Source::System { .. } = &self.source else {
            return; // whoever sets a test clock knows what it shows
        };
        let (wall_ms, boot_ms) = (wall_ms(), self.boot_ms());
        if known.0 > wall_ms + JUMP.as_millis() as u64 {
            self.watch().doubt(known, (wall_ms, boot_ms));
        }
    }

    /// An operator's word: what the wall clock shows is right, at once. By how much time moves,
    /// in milliseconds.
    pub fn believe(&self) -> i64 {
        match &self.source {
            Source::System { .. } => self.watch().believe_now(wall_ms(), self.boot_ms()),
            Source::Test { .. } => 0,
        }
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn how_long_it_was_steady_begins_anew_when_a_jump_is_believed_and_not_when_it_drifts() {
        let hour = 60 * MINUTE;
        let mut watch = Watch::new(WALL, 0);
        watch.step(WALL + hour + 400, hour);
        assert_eq!(watch.steady_ms(hour), hour);
        watch.step(WALL - hour, hour + MINUTE);
        assert_eq!(watch.steady_ms(hour + MINUTE), hour + MINUTE, "it is not believed yet");
        watch.step(WALL - hour + 10 * MINUTE, hour + 11 * MINUTE);
        assert_eq!((watch.is_in_doubt(), watch.steady_ms(hour + 12 * MINUTE)), (false, MINUTE));
        watch.believe_now(WALL + hour, 2 * hour);
        assert_eq!(watch.steady_ms(2 * hour + MINUTE), MINUTE);
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
    fn an_hour_back_is_waited_out_and_time_never_goes_back_meanwhile() {
        let hour = 60 * MINUTE;
        let mut watch = Watch::new(WALL, 0);
        let mut before = Timestamp(0);
        for minute in 1..=10 {
            let now = watch.step(WALL - hour + minute * MINUTE, minute * MINUTE);
            assert!(now > before && watch.is_in_doubt(), "minute {minute}");
            assert_eq!(watch.doubted(), Some((-(hour as i64), 11 * MINUTE)));
            before = now;
        }
        let now = watch.step(WALL - hour + 11 * MINUTE, 11 * MINUTE);
        assert_eq!((now, watch.doubted()), (Timestamp(WALL - hour + 11 * MINUTE), None));
    }

    #[test]
    fn ten_years_ahead_are_believed_at_an_operator_s_word_and_not_before() {
        let years = 10 * 365 * 24 * 60 * MINUTE;
        let mut watch = Watch::new(WALL, 0);
        assert_eq!(watch.step(WALL + years + MINUTE, MINUTE), Timestamp(WALL + MINUTE));
        assert!(watch.is_in_doubt());
        assert_eq!(watch.believe_now(WALL + years + 2 * MINUTE, 2 * MINUTE), years as i64);
        let now = watch.step(WALL + years + 3 * MINUTE, 3 * MINUTE);
        assert_eq!((now, watch.is_in_doubt()), (Timestamp(WALL + years + 3 * MINUTE), false));
    }

    #[test]
    fn a_clock_that_is_slewed_for_days_is_followed_and_never_doubted() {
        // 500 parts in a million, the fastest that NTP slews: 43 seconds a day, both ways
        for ahead in [true, false] {
            let mut watch = Watch::new(WALL, 0);
            for minute in 1..=30 * 24 * 60 {
                let (boot, slewed) = (minute * MINUTE, minute * MINUTE / 2_000);
                let wall = if ahead { WALL + boot + slewed } else { WALL + boot - slewed };
                assert_eq!(watch.step(wall, boot), Timestamp(wall), "minute {minute}");
                assert!(!watch.is_in_doubt());
            }
        }
    }

    #[test]
    fn a_clock_that_jumps_to_and_fro_is_never_believed() {
        let mut watch = Watch::new(WALL, 0);
        for minute in 1..=60 {
            let hours = if minute % 8 < 4 { 1 } else { 3 };
            let wall = WALL + hours * 60 * MINUTE + minute * MINUTE;
            assert_eq!(watch.step(wall, minute * MINUTE), Timestamp(WALL + minute * MINUTE));
            assert!(watch.is_in_doubt());
        }
    }

    #[test]
    fn what_is_known_to_have_been_is_not_in_the_future_of_a_start() {
        // given a machine that starts in 1970, and a record of 2026
        let mut watch = Watch::new(5_000, 0);
        watch.doubt(Timestamp(WALL), (5_000, 0));
        // then time goes on from the record, and the clock is right only when it has held
        assert_eq!(watch.step(5_000 + MINUTE, MINUTE), Timestamp(WALL + MINUTE));
        assert!(watch.is_in_doubt());
        assert_eq!(watch.step(5_000 + 10 * MINUTE, 10 * MINUTE), Timestamp(5_000 + 10 * MINUTE));
        // or when it is put right, which is as sudden
        let mut watch = Watch::new(5_000, 0);
        watch.doubt(Timestamp(WALL), (5_000, 0));
        assert_eq!(watch.step(WALL + 2 * MINUTE, MINUTE), Timestamp(WALL + 2 * MINUTE));
        assert!(!watch.is_in_doubt());
    }

    #[test]
    fn a_start_before_the_last_record_is_doubted_until_somebody_says_so() {
        let clock = Clock::system();
        let now = clock.now();
        clock.remember(now.plus(JUMP / 2));
        assert!(!clock.is_in_doubt(), "within what clocks differ by");
        let known = now.plus(Duration::from_hours(1));
        clock.remember(known);
        assert!(clock.is_in_doubt() && clock.now() >= known);
        let (ahead_ms, left_ms) = clock.doubted().unwrap();
        assert!(
            ahead_ms < -3_500_000 && left_ms <= HOLD.as_millis() as u64,
            "{ahead_ms} {left_ms}"
        );
        assert!(clock.believe() < -3_500_000);
        assert!(!clock.is_in_doubt() && clock.now() < known);
    }

    #[test]
    fn a_test_clock_never_goes_back() {
        let clock = Clock::test(Timestamp(5));
        assert!(clock.set(Timestamp(9)));
        assert!(!clock.set(Timestamp(7)));
        assert_eq!(clock.now(), Timestamp(9));
    }
}
