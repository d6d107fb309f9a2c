//! Times as people say them: of today by the clock alone, of other days with the day.

use engine::time::{Timestamp, UtcOffset};

use crate::outbox::look::Lang;

/// A day older than this is said with its year.
const YEAR_AFTER_DAYS: i64 = 300;
const DAY_MS: i64 = 86_400_000;
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The reader's clock and calendar.
#[derive(Clone, Copy, Debug)]
pub(super) struct Calendar {
    /// The moment of the message.
    pub now: Timestamp,
    /// Where their clock stands.
    pub offset: UtcOffset,
    /// Their language.
    pub lang: Lang,
}

impl Calendar {
    /// The time of day: `8:56`.
    fn clock(self, at: Timestamp) -> String {
        let time = self.civil(at).time();
        format!("{}:{:02}", time.hour(), time.minute())
    }

    /// The day: `12/4`, `4 Dec`.
    pub fn day(self, at: Timestamp) -> String {
        let date = self.civil(at).date();
        let (month, day, year) = (date.month(), date.day(), date.year());
        let far = (at.day(self.offset) - self.now.day(self.offset)).abs() > YEAR_AFTER_DAYS;
        let name = MONTHS[usize::try_from(month - 1).unwrap_or_default()];
        match (self.lang, far) {
            (Lang::Ja, false) => format!("{month}/{day}"),
            (Lang::Ja, true) => format!("{year}/{month}/{day}"),
            (Lang::En, false) => format!("{day} {name}"),
            (Lang::En, true) => format!("{day} {name} {year}"),
        }
    }

    /// Whether it is of the day of the message.
    pub fn is_today(self, at: Timestamp) -> bool {
        at.day(self.offset) == self.now.day(self.offset)
    }

    /// A moment: `8:56`, or `12/4 9:50`.
    pub fn moment(self, at: Timestamp) -> String {
        if self.is_today(at) {
            return self.clock(at);
        }
        format!("{} {}", self.day(at), self.clock(at))
    }

    /// A moment within an English sentence: `at 8:56`, or `on 4 Dec at 9:50`.
    pub fn at_moment(self, at: Timestamp) -> String {
        if self.is_today(at) {
            return format!("at {}", self.clock(at));
        }
        format!("on {} at {}", self.day(at), self.clock(at))
    }

    /// The day, or today's time.
    pub fn day_or_time(self, at: Timestamp) -> String {
        if self.is_today(at) { self.clock(at) } else { self.day(at) }
    }

    fn civil(self, at: Timestamp) -> jiff::civil::DateTime {
        // Days at the ends of time have no civil form; the epoch does.
        let local = i64::try_from(at.0).unwrap_or(i64::MAX).saturating_add(self.offset.0);
        let local = jiff::Timestamp::from_millisecond(local.max(-DAY_MS)).unwrap_or_default();
        jiff::tz::Offset::UTC.to_datetime(local)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        let time: jiff::Timestamp = text.parse().unwrap();
        Timestamp(time.as_millisecond() as u64)
    }

    #[test]
    fn today_is_said_by_the_clock_and_other_days_by_the_day() {
        let offset = UtcOffset::parse("+09:00").unwrap();
        let now = at("2026-12-07T08:56:00+09:00");
        let ja = Calendar { now, offset, lang: Lang::Ja };
        let en = Calendar { lang: Lang::En, ..ja };
        let friday = at("2026-12-04T09:50:00+09:00");
        assert_eq!((ja.moment(now), ja.moment(friday)), ("8:56".into(), "12/4 9:50".into()));
        assert_eq!(en.moment(friday), "4 Dec 9:50");
        assert_eq!(
            (en.at_moment(now), en.at_moment(friday)),
            ("at 8:56".into(), "on 4 Dec at 9:50".into())
        );
        assert_eq!(ja.moment(at("2026-12-06T23:59:59+09:00")), "12/6 23:59");
        assert_eq!(ja.day(at("2025-12-04T09:50:00+09:00")), "2025/12/4");
        assert_eq!(en.day(at("2025-12-04T09:50:00+09:00")), "4 Dec 2025");
        assert_eq!(ja.day(Timestamp(0)), "1970/1/1");
        assert!(!ja.moment(Timestamp(u64::MAX)).is_empty());
        let west = Calendar { offset: UtcOffset::parse("-12:00").unwrap(), ..ja };
        assert_eq!(west.day(Timestamp(0)), "1969/12/31");
    }
}
