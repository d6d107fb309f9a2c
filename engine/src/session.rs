//! A Session is one visit: hits of one browser without a gap of half an hour.

use std::time::Duration;

use crate::time::Timestamp;

/// A longer silence ends a visit. The field's common value.
pub const SESSION_GAP: Duration = Duration::from_mins(30);

/// The visit a browser is in, or was in last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// When its first hit was received.
    pub started: Timestamp,
    /// When its last hit was received.
    pub last: Timestamp,
    /// Which visit of the browser it is, from 1; 0 before the first.
    pub number: u32,
}

impl Session {
    /// The session after a hit received at `now`: extended, or the next one.
    #[must_use]
    pub fn after(self, now: Timestamp) -> Session {
        if self.continues(now) {
            // A clock that stepped back must not make the visit end earlier.
            return Session { last: self.last.max(now), ..self };
        }
        Session { started: now, last: now, number: self.number.saturating_add(1) }
    }

    /// Whether a hit received at `now` belongs to this visit.
    pub fn continues(self, now: Timestamp) -> bool {
        self.number > 0 && now.since(self.last) < SESSION_GAP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_of_half_an_hour_opens_the_next_visit() {
        let first = Session::default().after(Timestamp(1_000));
        let same = first.after(Timestamp(1_000 + 1_799_999));
        assert_eq!((same.number, same.started), (1, Timestamp(1_000)));
        let next = same.after(same.last.plus(SESSION_GAP));
        assert_eq!((next.number, next.started), (2, same.last.plus(SESSION_GAP)));
    }

    #[test]
    fn a_clock_that_steps_back_neither_ends_nor_shortens_a_visit() {
        let first = Session::default().after(Timestamp(10_000_000));
        let back = first.after(Timestamp(4_000_000));
        assert_eq!(back, first);
    }
}
