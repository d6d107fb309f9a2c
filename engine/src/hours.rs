//! Working hours: which moments count when sales has "four hours" to take a lead. Days are those
//! of a fixed offset from UTC, as everywhere here.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::time::{Timestamp, UtcOffset};

/// How far ahead work is looked for. Whoever works on no day at all is asked then.
const DAYS_MAX: i64 = 3_660;
const DAY_MS: u64 = 86_400_000;

/// When people work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hours {
    /// Where a day begins.
    pub offset: UtcOffset,
    /// The days of a week on which people work, Monday first.
    pub days: [bool; 7],
    /// When they begin, after midnight.
    pub from: Duration,
    /// When they stop, after `from`; at most 24 hours.
    pub to: Duration,
    /// Days on which nobody works: days since 1 January 1970, as [`Timestamp::day`] counts them.
    pub holidays: BTreeSet<i64>,
}

impl Hours {
    /// Whether people work on a day.
    pub fn works_on(&self, day: i64) -> bool {
        // 1 January 1970 was a Thursday.
        let weekday = (day + 3).rem_euclid(7) as usize;
        self.days[weekday] && !self.holidays.contains(&day)
    }

    /// Whether a moment is one of work.
    pub fn are_open(&self, at: Timestamp) -> bool {
        let day = at.day(self.offset);
        let (begin, end) = self.shift(day);
        self.works_on(day) && begin <= at && at < end
    }

    /// When work on a day begins and ends.
    fn shift(&self, day: i64) -> (Timestamp, Timestamp) {
        let midnight = day.saturating_mul(DAY_MS as i64).saturating_sub(self.offset.0);
        let midnight = Timestamp(u64::try_from(midnight).unwrap_or(0));
        (midnight.plus(self.from), midnight.plus(self.to))
    }

    /// The moment at which so much working time has passed since another.
    pub fn after(&self, since: Timestamp, work: Duration) -> Timestamp {
        let mut left = work;
        let first = since.day(self.offset);
        for day in (first..first.saturating_add(DAYS_MAX)).filter(|day| self.works_on(*day)) {
            let (begin, end) = self.shift(day);
            let begin = begin.max(since);
            let here = end.since(begin);
            if left <= here && begin < end {
                return begin.plus(left);
            }
            left = left.saturating_sub(here);
        }
        since.plus(Duration::from_millis(DAY_MS.saturating_mul(DAYS_MAX as u64)))
    }

    /// How much working time lies between two moments.
    pub fn between(&self, from: Timestamp, until: Timestamp) -> Duration {
        let (first, last) = (from.day(self.offset), until.day(self.offset));
        let last = last.min(first.saturating_add(DAYS_MAX));
        let days = (first..=last).filter(|day| self.works_on(*day));
        days.map(|day| {
            let (begin, end) = self.shift(day);
            end.min(until).since(begin.max(from))
        })
        .sum()
    }

    /// When work begins on the next working day after the one of a moment.
    pub fn next_day(&self, after: Timestamp) -> Timestamp {
        let today = after.day(self.offset);
        let mut days = today.saturating_add(1)..today.saturating_add(DAYS_MAX);
        let next = days.find(|day| self.works_on(*day));
        next.map_or(after.plus(Duration::from_millis(DAY_MS)), |day| self.shift(day).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn hours() -> Hours {
        Hours {
            offset: UtcOffset::parse("+09:00").unwrap(),
            days: [true, true, true, true, true, false, false],
            from: 9 * HOUR,
            to: 18 * HOUR,
            holidays: BTreeSet::new(),
        }
    }

    /// A moment of December 2026 in Japan.
    fn december(day: u64, hour: u64, minute: u64) -> Timestamp {
        // Midnight of 1 December 2026 in Japan.
        Timestamp(1_796_050_800_000)
            .plus(Duration::from_mins(((day - 1) * 24 + hour) * 60 + minute))
    }

    #[test]
    fn time_counts_only_while_people_work() {
        let four = 4 * HOUR;
        for (since, until) in [
            ((7, 8, 56), (7, 13, 0)),
            ((7, 9, 0), (7, 13, 0)),
            ((7, 14, 0), (7, 18, 0)),
            ((7, 14, 1), (8, 9, 1)),
            ((7, 18, 0), (8, 13, 0)),
            ((25, 16, 30), (28, 11, 30)),
            ((26, 12, 0), (28, 13, 0)),
        ] {
            let (from, to) =
                (december(since.0, since.1, since.2), december(until.0, until.1, until.2));
            assert_eq!(hours().after(from, four), to, "{since:?}");
            assert_eq!(hours().between(from, to), four, "{since:?}");
        }
    }

    #[test]
    fn nobody_works_on_a_holiday() {
        let mut hours = hours();
        hours.holidays.insert(december(28, 0, 0).day(hours.offset));
        assert_eq!(hours.after(december(25, 16, 30), 4 * HOUR), december(29, 11, 30));
        assert_eq!(hours.next_day(december(25, 10, 0)), december(29, 9, 0));
        assert!(!hours.are_open(december(28, 10, 0)));
    }

    #[test]
    fn no_working_time_at_all_is_the_next_moment_of_work() {
        assert_eq!(hours().after(december(7, 10, 0), Duration::ZERO), december(7, 10, 0));
        assert_eq!(hours().after(december(5, 10, 0), Duration::ZERO), december(7, 9, 0));
        assert_eq!(hours().between(december(5, 0, 0), december(6, 23, 0)), Duration::ZERO);
    }

    #[test]
    fn whoever_never_works_is_asked_at_last() {
        let never = Hours { days: [false; 7], ..hours() };
        let since = december(7, 10, 0);
        assert!(never.after(since, HOUR) > since.plus(Duration::from_hours(24 * 3_000)));
        assert!(never.next_day(since) > since);
    }

    #[test]
    fn the_ends_of_time_are_times_too() {
        let _ = hours().after(Timestamp(0), Duration::MAX);
        let _ = hours().after(Timestamp(u64::MAX), HOUR);
        let _ = hours().between(Timestamp(0), Timestamp(u64::MAX));
    }
}
