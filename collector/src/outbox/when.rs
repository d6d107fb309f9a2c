//! When people are written to: not while they rest, and at which moments what was kept back is
//! listed for them. Pure: the moment, the hours and the offset are arguments.

use std::time::Duration;

use engine::hours::Hours;
use engine::time::{Timestamp, UtcOffset};

use crate::config::Quiet;

/// How far ahead an end of rest, or an occasion, is looked for: longer than any holidays.
const DAYS_MAX: i64 = 14;
const DAY: Duration = Duration::from_hours(24);
/// When work ends where nobody says when.
const EVENING: Duration = Duration::from_hours(18);

/// On which days people work, and where a day begins.
#[derive(Clone, Debug)]
pub struct Calendar {
    /// Where a day begins.
    pub offset: UtcOffset,
    /// When people work, if anybody said so.
    pub hours: Option<Hours>,
}

/// What is listed when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Occasion {
    /// At the end of work: what was too much for the day.
    Evening,
    /// In the morning: what is open.
    Morning,
}

/// A moment at which something is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// The moment.
    pub at: Timestamp,
    /// Its day, since 1 January 1970.
    pub day: i64,
    /// Which.
    pub occasion: Occasion,
}

impl Occasion {
    /// The name in the journal.
    pub fn name(self) -> &'static str {
        match self {
            Occasion::Evening => "evening",
            Occasion::Morning => "morning",
        }
    }
}

impl Calendar {
    /// The same days elsewhere.
    #[must_use]
    pub fn at(&self, offset: Option<UtcOffset>) -> Calendar {
        Calendar { offset: offset.unwrap_or(self.offset), hours: self.hours.clone() }
    }

    /// Whether anybody works on a day; from Monday to Friday, if nobody says.
    fn works_on(&self, day: i64) -> bool {
        // 1 January 1970 was a Thursday.
        let weekday = || (day + 3).rem_euclid(7) < 5;
        self.hours.as_ref().map_or_else(weekday, |hours| hours.works_on(day))
    }

    fn midnight(&self, day: i64) -> Timestamp {
        let midnight = day.saturating_mul(DAY.as_millis() as i64).saturating_sub(self.offset.0);
        Timestamp(u64::try_from(midnight).unwrap_or(0))
    }

    /// When a day begins, and when the next one does.
    pub fn bounds(&self, day: i64) -> (Timestamp, Timestamp) {
        (self.midnight(day), self.midnight(day + 1))
    }

    /// Until when somebody rests at a moment; nothing, if they do not.
    pub fn rests_until(&self, quiet: &Quiet, now: Timestamp) -> Option<Timestamp> {
        let latest = now.plus(DAY * DAYS_MAX as u32);
        let mut end = now;
        while end < latest {
            let day = end.day(self.offset);
            let midnight = self.midnight(day);
            let since = end.since(midnight);
            end = if quiet.weekend && !self.works_on(day) {
                self.midnight(day + 1)
            } else if quiet.from < quiet.to {
                if since < quiet.from || since >= quiet.to {
                    break;
                }
                midnight.plus(quiet.to)
            } else if since >= quiet.from {
                self.midnight(day + 1).plus(quiet.to)
            } else if since < quiet.to {
                midnight.plus(quiet.to)
            } else {
                break;
            };
        }
        (end > now).then_some(end.min(latest))
    }

    /// The occasions of a day, in order. There are none on days on which nobody works.
    fn slots_of(&self, day: i64, summary: Option<Duration>) -> Vec<Slot> {
        if !self.works_on(day) {
            return Vec::new();
        }
        let slot = |time, occasion| Slot { at: self.midnight(day).plus(time), day, occasion };
        let evening = self.hours.as_ref().map_or(EVENING, |hours| hours.to);
        let mut slots = vec![slot(evening, Occasion::Evening)];
        slots.extend(summary.map(|time| slot(time, Occasion::Morning)));
        slots.sort();
        slots
    }

    /// The first occasion after a moment. `summary`: when the morning's is, if there is one.
    pub fn next_slot(&self, after: Timestamp, summary: Option<Duration>) -> Slot {
        let today = after.day(self.offset);
        let mut slots = (today..today + DAYS_MAX).flat_map(|day| self.slots_of(day, summary));
        let never = Slot {
            at: self.midnight(today + 1).plus(EVENING),
            day: today + 1,
            occasion: Occasion::Evening,
        };
        // Whoever works on no day at all is told tomorrow.
        slots.find(|slot| slot.at > after).unwrap_or(never)
    }

    /// Today's morning occasion, if there is one.
    pub fn morning(&self, now: Timestamp, summary: Duration) -> Option<Slot> {
        let slots = self.slots_of(now.day(self.offset), Some(summary));
        slots.into_iter().find(|slot| slot.occasion == Occasion::Morning)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn japan() -> Calendar {
        Calendar { offset: UtcOffset::parse("+09:00").unwrap(), hours: None }
    }

    /// With hours of its own, and 28 December off.
    fn with_hours() -> Calendar {
        let offset = japan().offset;
        let hours = Hours {
            offset,
            days: [true, true, true, true, true, true, false],
            from: 9 * HOUR,
            to: 17 * HOUR,
            holidays: BTreeSet::from([december(28, 0, 0).day(offset)]),
        };
        Calendar { offset, hours: Some(hours) }
    }

    /// A moment of December 2026 in Japan. The 7th is a Monday.
    fn december(day: u64, hour: u64, minute: u64) -> Timestamp {
        Timestamp(1_796_050_800_000)
            .plus(Duration::from_mins(((day - 1) * 24 + hour) * 60 + minute))
    }

    fn nights(weekend: bool) -> Quiet {
        Quiet { from: 19 * HOUR, to: 8 * HOUR, weekend }
    }

    #[test]
    fn people_rest_over_night() {
        for (now, until) in [
            ((7, 18, 59), None),
            ((7, 19, 0), Some((8, 8, 0))),
            ((7, 23, 59), Some((8, 8, 0))),
            ((8, 0, 0), Some((8, 8, 0))),
            ((8, 7, 59), Some((8, 8, 0))),
            ((8, 8, 0), None),
            ((12, 12, 0), None),
            ((11, 20, 0), Some((12, 8, 0))),
        ] {
            let found = japan().rests_until(&nights(false), december(now.0, now.1, now.2));
            let until = until.map(|(day, hour, minute)| december(day, hour, minute));
            assert_eq!(found, until, "{now:?}");
        }
    }

    #[test]
    fn people_rest_over_a_weekend_and_over_holidays() {
        for (calendar, now, until) in [
            (japan(), (11, 20, 0), Some((14, 8, 0))),
            (japan(), (12, 12, 0), Some((14, 8, 0))),
            (japan(), (13, 23, 0), Some((14, 8, 0))),
            (japan(), (14, 8, 0), None),
            (with_hours(), (12, 12, 0), None),
            (with_hours(), (26, 20, 0), Some((29, 8, 0))),
            (with_hours(), (28, 12, 0), Some((29, 8, 0))),
        ] {
            let found = calendar.rests_until(&nights(true), december(now.0, now.1, now.2));
            let until = until.map(|(day, hour, minute)| december(day, hour, minute));
            assert_eq!(found, until, "{now:?}");
        }
    }

    #[test]
    fn people_rest_by_their_own_clock_and_at_noon_if_they_say_so() {
        let paris = japan().at(UtcOffset::parse("+01:00"));
        // 19:00 in Japan is 11:00 in Paris.
        assert_eq!(paris.rests_until(&nights(true), december(7, 19, 0)), None);
        let night = paris.rests_until(&nights(true), december(8, 3, 0));
        assert_eq!(night, Some(december(8, 16, 0)));
        let noon = Quiet { from: 12 * HOUR, to: 13 * HOUR, weekend: false };
        for (now, rests) in [((7, 11, 59), false), ((7, 12, 0), true), ((7, 13, 0), false)] {
            let until = japan().rests_until(&noon, december(now.0, now.1, now.2));
            assert_eq!(until, rests.then(|| december(7, 13, 0)), "{now:?}");
        }
    }

    #[test]
    fn whoever_never_works_is_told_all_the_same() {
        let mut calendar = with_hours();
        calendar.hours.as_mut().unwrap().days = [false; 7];
        let now = december(7, 10, 0);
        assert_eq!(calendar.rests_until(&nights(true), now), Some(now.plus(DAY * 14)));
        assert_eq!(calendar.next_slot(now, None).at, december(8, 18, 0));
        assert_eq!(calendar.morning(now, 9 * HOUR), None);
        let _ = calendar.rests_until(&nights(true), Timestamp(u64::MAX));
        let _ = calendar.next_slot(Timestamp(u64::MAX), Some(9 * HOUR));
    }

    #[test]
    fn an_occasion_is_the_next_evening_or_morning_of_work() {
        let morning = Some(9 * HOUR);
        for (calendar, summary, after, at, occasion) in [
            (japan(), None, (7, 10, 0), (7, 18, 0), Occasion::Evening),
            (japan(), None, (7, 18, 0), (8, 18, 0), Occasion::Evening),
            (japan(), morning, (7, 18, 0), (8, 9, 0), Occasion::Morning),
            (japan(), morning, (8, 8, 0), (8, 9, 0), Occasion::Morning),
            (japan(), morning, (11, 19, 0), (14, 9, 0), Occasion::Morning),
            (with_hours(), morning, (26, 16, 0), (26, 17, 0), Occasion::Evening),
            (with_hours(), morning, (26, 17, 0), (29, 9, 0), Occasion::Morning),
        ] {
            let slot = calendar.next_slot(december(after.0, after.1, after.2), summary);
            assert_eq!((slot.at, slot.occasion), (december(at.0, at.1, at.2), occasion));
            assert_eq!(slot.day, slot.at.day(calendar.offset));
        }
    }
}
