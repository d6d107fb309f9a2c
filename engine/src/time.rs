//! Time as a value: milliseconds since the Unix epoch, with arithmetic that tolerates a clock
//! stepping back. Nothing here reads a clock.

use std::time::Duration;

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Later by `duration`; stays at the end of time rather than wrap.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(whole_millis(duration)))
    }

    /// Earlier by `duration`; stays at the epoch rather than wrap.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(whole_millis(duration)))
    }

    /// How long after `earlier` this is: an age, which saturates at zero.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The number of the calendar day at a fixed offset from UTC.
    pub fn day(self, offset: UtcOffset) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX).saturating_add(offset.0).div_euclid(DAY_MS)
    }
}

const DAY_MS: i64 = 86_400_000;

/// The longest durations have more milliseconds than 64 bits hold.
fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A fixed offset from UTC, in milliseconds: where a "day" begins. No time-zone tables here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UtcOffset(pub i64);

impl UtcOffset {
    /// Reads `+09:00`, `-05:30` or `Z`; at most 18 hours either way.
    pub fn parse(text: &str) -> Option<UtcOffset> {
        if text == "Z" {
            return Some(UtcOffset(0));
        }
        let sign = match text.as_bytes().first()? {
            b'+' => 1,
            b'-' => -1,
            _ => return None,
        };
        let (hours, minutes) = text.get(1..)?.split_once(':')?;
        let two_digits =
            |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        if !two_digits(hours) || !two_digits(minutes) {
            return None;
        }
        let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
        (hours <= 18 && minutes < 60).then_some(UtcOffset(sign * (hours * 60 + minutes) * 60_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_never_negative() {
        assert_eq!(Timestamp(5).since(Timestamp(9)), Duration::ZERO);
        assert_eq!(Timestamp(5).minus(Duration::from_secs(1)), Timestamp(0));
    }

    #[test]
    fn the_ends_of_time_are_times_too() {
        let japan = UtcOffset(9 * 3_600_000);
        assert_eq!(Timestamp(u64::MAX).day(japan), i64::MAX / DAY_MS);
        assert_eq!(Timestamp(5).plus(Duration::MAX), Timestamp(u64::MAX));
        assert_eq!(Timestamp(5).minus(Duration::MAX), Timestamp(0));
    }

    #[test]
    fn a_day_begins_at_midnight_of_its_offset() {
        let japan = UtcOffset::parse("+09:00").unwrap();
        // 2026-12-06T15:00:00Z is midnight of 7 December in Japan.
        let midnight = Timestamp(1_796_569_200_000);
        assert_eq!(midnight.day(japan), midnight.minus(Duration::from_millis(1)).day(japan) + 1);
    }

    #[test]
    fn offsets_that_are_none_are_refused() {
        for text in ["", "09:00", "+9:00", "+09", "+24:00", "+09:60", "+0a:00", "++9:00", "+é:00"]
        {
            assert_eq!(UtcOffset::parse(text), None, "{text}");
        }
        assert_eq!(UtcOffset::parse("-05:30"), Some(UtcOffset(-19_800_000)));
    }
}
