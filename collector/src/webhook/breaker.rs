//! A Breaker rests an endpoint that fails: no attempt is spent on a receiver known to be down.
//!
//! Closed, it counts recent results. When most of them failed it opens for a while; then one
//! attempt at a time may try (half open), and its result closes it or opens it for twice as long.
//! It is not journaled: after a restart it learns again within ten attempts.

use std::collections::VecDeque;
use std::time::Duration;

use engine::time::Timestamp;

/// How far back results count.
pub const WINDOW: Duration = Duration::from_mins(5);
/// The fewest results that can open it: two failures of two say little.
pub const RESULTS_MIN: usize = 10;
/// The share of failures that opens it, in percent.
pub const FAILED_PERCENT: usize = 70;
/// Results remembered; older ones are forgotten first, which only makes it quicker to judge.
pub const RESULTS_MAX: usize = 64;

/// How long an endpoint rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    /// At first.
    pub min: Duration,
    /// At most, after having doubled again and again.
    pub max: Duration,
}

impl Default for Rest {
    fn default() -> Rest {
        Rest { min: Duration::from_secs(30), max: Duration::from_mins(10) }
    }
}

/// One endpoint's breaker.
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    results: VecDeque<(Timestamp, bool)>, // when an attempt ended -> whether it succeeded
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    until: Timestamp,
    rest: Duration,
}

impl Breaker {
    /// When the next attempt may be made if it may not be made at `now`. Half open, only one
    /// attempt may fly at a time, and `flying` of them are out.
    pub fn closed_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.open.map(|open| open.until).filter(|until| *until > now)
    }

    /// Whether one attempt at a time is the rule.
    pub fn is_trying(&self) -> bool {
        self.open.is_some()
    }

    /// Takes in the result of an attempt that ended at `now`.
    pub fn record(&mut self, success: bool, rest: Rest, now: Timestamp) {
        if success {
            // Whatever was counted before it, an endpoint that answers is up.
            self.open = None;
        } else if let Some(open) = self.open {
            self.reopen(open, rest, now);
            return;
        }
        self.results.push_back((now, success));
        while self.results.len() > RESULTS_MAX
            || self.results.front().is_some_and(|(at, _)| now.since(*at) > WINDOW)
        {
            self.results.pop_front();
        }
        let failed = self.results.iter().filter(|(_, success)| !success).count();
        let enough = self.results.len() >= RESULTS_MIN;
        if !success && enough && failed * 100 >= self.results.len() * FAILED_PERCENT {
            self.open = Some(Open { until: now.plus(rest.min), rest: rest.min });
            self.results.clear();
        }
    }

    fn reopen(&mut self, open: Open, rest: Rest, now: Timestamp) {
        // Attempts that were out when it opened come back failed too; they prove nothing new.
        if now < open.until {
            return;
        }
        let rest = (open.rest * 2).min(rest.max);
        self.open = Some(Open { until: now.plus(rest), rest });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp(1_800_000_000_000 + seconds * 1000)
    }

    fn after(results: &[bool]) -> Breaker {
        let mut breaker = Breaker::default();
        for result in results {
            breaker.record(*result, Rest::default(), at(0));
        }
        breaker
    }

    #[test]
    fn nine_failures_leave_it_closed_and_the_tenth_opens_it() {
        let mut breaker = after(&[false; 9]);
        assert_eq!(breaker.closed_until(at(0)), None);
        breaker.record(false, Rest::default(), at(0));
        assert_eq!(breaker.closed_until(at(0)), Some(at(30)));
        assert_eq!(breaker.closed_until(at(30)), None);
        assert!(breaker.is_trying());
    }

    #[test]
    fn it_stays_closed_while_more_than_three_in_ten_succeed() {
        let mixed = [true, true, true, true, false, false, false, false, false, false];
        assert!(!after(&mixed).is_trying());
        assert!(after(&[[true; 3].as_slice(), &[false; 7]].concat()).is_trying());
    }

    #[test]
    fn results_older_than_the_window_do_not_count() {
        let mut breaker = after(&[false; 9]);
        breaker.record(false, Rest::default(), at(301));
        assert!(!breaker.is_trying());
    }

    #[test]
    fn each_failed_try_doubles_the_rest_up_to_ten_minutes() {
        let mut breaker = after(&[false; 10]);
        let mut now = 30;
        for rest in [60, 120, 240, 480, 600, 600] {
            breaker.record(false, Rest::default(), at(now));
            assert_eq!(breaker.closed_until(at(now)), Some(at(now + rest)));
            now += rest;
        }
    }

    #[test]
    fn it_rests_as_long_as_the_settings_say() {
        let rest = Rest { min: Duration::from_secs(2), max: Duration::from_secs(5) };
        let mut breaker = Breaker::default();
        for _ in 0..10 {
            breaker.record(false, rest, at(0));
        }
        assert_eq!(breaker.closed_until(at(0)), Some(at(2)));
        breaker.record(false, rest, at(2));
        assert_eq!(breaker.closed_until(at(2)), Some(at(6)));
        breaker.record(false, rest, at(6));
        assert_eq!(breaker.closed_until(at(6)), Some(at(11)));
    }

    #[test]
    fn late_failures_of_the_first_wave_do_not_lengthen_the_rest() {
        let mut breaker = after(&[false; 10]);
        breaker.record(false, Rest::default(), at(29));
        assert_eq!(breaker.closed_until(at(29)), Some(at(30)));
    }

    #[test]
    fn one_success_closes_it() {
        let mut breaker = after(&[false; 10]);
        breaker.record(true, Rest::default(), at(31));
        assert!(!breaker.is_trying());
        breaker.record(false, Rest::default(), at(32));
        assert!(!breaker.is_trying(), "one failure after it does not open it again");
    }
}
