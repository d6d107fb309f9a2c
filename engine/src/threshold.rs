//! A Threshold is a line a lead can cross. It has a dead band, so that one lead cannot flap,
//! gates that all must be open to go in, and a cool-down between two messages.

use std::time::Duration;

use crate::decay::{Side, Total};
use crate::grade::Grade;
use crate::id::ThresholdId;
use crate::rule::Points;
use crate::time::Timestamp;

/// A line as published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// Its interned id.
    pub id: ThresholdId,
    /// Its name in the rule file.
    pub name: String,
    /// At or above this score a lead goes in, if every gate is open.
    pub rise: Points,
    /// Below this score it goes out.
    pub fall: Points,
    /// It stays in for at least this long.
    pub dwell: Duration,
    /// The least time between two messages; a later one waits.
    pub cooldown: Duration,
    /// The grades that may go in. Empty: all.
    pub grades: Vec<Grade>,
    /// A person must have been seen within this time.
    pub recent: Option<Duration>,
    /// Who is told; nobody, if nothing.
    pub tell: Option<String>,
}

/// Which gate stood between a lead and a line, in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gate {
    /// The score reaches the line.
    Score,
    /// The grade is one of those allowed.
    Grade,
    /// Somebody said who this is.
    Identity,
    /// The person lets us track them.
    Consent,
    /// A person was seen lately.
    Recent,
}

impl Gate {
    /// All gates, in the order in which they are asked.
    pub const ALL: [Gate; 5] =
        [Gate::Score, Gate::Grade, Gate::Identity, Gate::Consent, Gate::Recent];

    /// The name in messages and answers.
    pub fn name(self) -> &'static str {
        match self {
            Gate::Score => "score",
            Gate::Grade => "grade",
            Gate::Identity => "identity",
            Gate::Consent => "consent",
            Gate::Recent => "recent",
        }
    }
}

/// What the gates look at, at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// The score.
    pub score: Points,
    /// The fit.
    pub grade: Grade,
    /// Whether the person is known.
    pub identified: bool,
    /// Whether they let us track them.
    pub consent: bool,
    /// When a person was last seen.
    pub last_human: Option<Timestamp>,
}

/// Where one lead stands with one threshold. Changed by [`Band::after`] alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Band {
    /// The line.
    pub threshold: ThresholdId,
    /// Whether the lead is in.
    pub inside: bool,
    /// When it last went in.
    pub since: Timestamp,
    /// How often it went in.
    pub number: u32,
    /// Whether the message of the present (or last) stay went out.
    pub told: bool,
    /// When a message that waits for the cool-down may go.
    pub waits_until: Option<Timestamp>,
    /// When the last message of going in went out.
    pub last_told: Option<Timestamp>,
}

/// What happened at a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// The lead went in.
    Rise,
    /// The lead went out.
    Fall,
    /// The lead is still in at the end of the cool-down: its message goes now.
    Release,
}

/// A change at a line, as recorded: enough to repeat it without the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// The line.
    pub threshold: ThresholdId,
    /// What happened.
    pub direction: Direction,
    /// The exact instant.
    pub at: Timestamp,
    /// Which of the lead's rises it is; a fall repeats its rise's.
    pub number: u32,
    /// The gate that opened last, for a rise.
    pub opened_by: Option<Gate>,
    /// Whether a message goes out.
    pub told: bool,
    /// Until when the message waits, for a rise inside the cool-down.
    pub waits_until: Option<Timestamp>,
}

impl Band {
    /// Never in yet.
    pub fn new(threshold: ThresholdId) -> Band {
        Band {
            threshold,
            inside: false,
            since: Timestamp(0),
            number: 0,
            told: false,
            waits_until: None,
            last_told: None,
        }
    }

    /// The band after a crossing.
    #[must_use]
    pub fn after(self, crossing: &Crossing) -> Band {
        let last_told = match crossing.direction {
            Direction::Rise | Direction::Release if crossing.told => Some(crossing.at),
            _ => self.last_told,
        };
        match crossing.direction {
            Direction::Rise => Band {
                inside: true,
                since: crossing.at,
                number: crossing.number,
                told: crossing.told,
                waits_until: crossing.waits_until,
                last_told,
                ..self
            },
            Direction::Release => Band { told: true, waits_until: None, last_told, ..self },
            Direction::Fall => Band { inside: false, waits_until: None, ..self },
        }
    }
}

/// What decides whether a line is crossed while no hit comes: everything but time stands still.
#[derive(Clone, Copy, Debug)]
pub struct Course<'a> {
    /// The score as a function of time.
    pub score: &'a Total,
    /// The fit.
    pub grade: Grade,
    /// Whether the person is known.
    pub identified: bool,
    /// Whether they let us track them.
    pub consent: bool,
    /// When a person was last seen.
    pub last_human: Option<Timestamp>,
}

impl Course<'_> {
    /// The standing at a moment.
    pub fn at(&self, now: Timestamp) -> Standing {
        Standing {
            score: self.score.value(now),
            grade: self.grade,
            identified: self.identified,
            consent: self.consent,
            last_human: self.last_human,
        }
    }
}

impl Threshold {
    /// Whether a gate is open at a moment.
    pub fn is_open(&self, gate: Gate, standing: &Standing, now: Timestamp) -> bool {
        match gate {
            Gate::Score => standing.score >= self.rise,
            Gate::Grade => self.grades.is_empty() || self.grades.contains(&standing.grade),
            Gate::Identity => standing.identified,
            Gate::Consent => standing.consent,
            Gate::Recent => self.recent.is_none_or(|within| {
                standing.last_human.is_some_and(|seen| now.since(seen) <= within)
            }),
        }
    }

    /// Whether every gate is open at a moment.
    pub fn is_in_reach(&self, standing: &Standing, now: Timestamp) -> bool {
        Gate::ALL.into_iter().all(|gate| self.is_open(gate, standing, now))
    }

    /// The first crossing at or after `from` and not after `until`, if time alone brings one.
    /// `opened` is the gate that a rise exactly at `from` is put down to.
    pub fn next(
        &self,
        band: &Band,
        course: &Course<'_>,
        opened: Gate,
        from: Timestamp,
        until: Timestamp,
    ) -> Option<Crossing> {
        if band.inside {
            self.next_inside(band, course, from, until)
        } else {
            let at = self.rises_at(course, from, until)?;
            let opened = if at > from { Gate::Score } else { opened };
            Some(self.rise(band, at, opened))
        }
    }

    fn next_inside(
        &self,
        band: &Band,
        course: &Course<'_>,
        from: Timestamp,
        until: Timestamp,
    ) -> Option<Crossing> {
        // A line that no longer tells anybody has nothing to release.
        let waits = band.waits_until.filter(|_| self.tell.is_some());
        let release = waits.map(|at| at.max(from)).filter(|at| *at <= until);
        let earliest = from.max(band.since.plus(self.dwell));
        let fall_until = until.min(course.score.end().max(earliest));
        let fall = course.score.first(Side::Below, self.fall, earliest, fall_until);
        let crossing = |direction, at, told| Crossing {
            threshold: self.id,
            direction,
            at,
            number: band.number,
            opened_by: None,
            told,
            waits_until: None,
        };
        match (fall, release) {
            // Out again by the time the message may go: it is dropped.
            (Some(fall), release) if release.is_none_or(|release| fall <= release) => {
                Some(crossing(Direction::Fall, fall, band.told))
            }
            (_, Some(release)) => Some(crossing(Direction::Release, release, true)),
            (_, None) => None,
        }
    }

    fn rises_at(
        &self,
        course: &Course<'_>,
        from: Timestamp,
        until: Timestamp,
    ) -> Option<Timestamp> {
        let standing = course.at(from);
        let shut = |gate: &Gate| *gate != Gate::Score && !self.is_open(*gate, &standing, from);
        // Of the other gates only recency depends on time, and it can only close.
        if Gate::ALL.iter().any(shut) {
            return None;
        }
        if standing.score >= self.rise {
            return Some(from);
        }
        if !course.score.may_rise() {
            return None;
        }
        let recent_until = match (self.recent, course.last_human) {
            (Some(within), Some(seen)) => seen.plus(within),
            _ => until,
        };
        let until = until.min(recent_until).min(course.score.end());
        course.score.first(Side::NotBelow, self.rise, from, until)
    }

    fn rise(&self, band: &Band, at: Timestamp, opened: Gate) -> Crossing {
        let tells = self.tell.is_some();
        let waits_until =
            band.last_told.map(|told| told.plus(self.cooldown)).filter(|free| tells && *free > at);
        Crossing {
            threshold: self.id,
            direction: Direction::Rise,
            at,
            number: band.number.saturating_add(1),
            opened_by: Some(opened),
            told: tells && waits_until.is_none(),
            waits_until,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decay::{HalfLife, Sum};

    const DAY: Duration = Duration::from_hours(24);

    fn hot() -> Threshold {
        Threshold {
            id: ThresholdId(1),
            name: "hot".into(),
            rise: Points::whole(60),
            fall: Points::whole(40),
            dwell: DAY,
            cooldown: 3 * DAY,
            grades: vec![Grade::A, Grade::B, Grade::C, Grade::Unknown],
            recent: Some(7 * DAY),
            tell: Some("sales".into()),
        }
    }

    fn total(points: i64, when: Timestamp) -> Total {
        let half_life = HalfLife::new(14 * DAY).unwrap();
        Total::new(vec![Sum::of(half_life, std::iter::once((when, Points::whole(points))))])
    }

    fn course(score: &Total, last_human: Timestamp) -> Course<'_> {
        Course {
            score,
            grade: Grade::Unknown,
            identified: true,
            consent: true,
            last_human: Some(last_human),
        }
    }

    const START: Timestamp = Timestamp(1_796_000_000_000);
    const EVER: Timestamp = Timestamp(u64::MAX);

    #[test]
    fn a_lead_between_the_two_lines_neither_rises_nor_falls() {
        let score = total(50, START);
        let course = course(&score, START);
        let outside = Band::new(ThresholdId(1));
        assert_eq!(hot().next(&outside, &course, Gate::Score, START, START), None);
        let inside = Band { inside: true, since: START.minus(2 * DAY), ..outside };
        assert_eq!(hot().next(&inside, &course, Gate::Score, START, START), None);
    }

    #[test]
    fn a_lead_left_alone_falls_when_its_score_first_shows_less_than_the_line() {
        let score = total(60, START);
        let rise = hot().next(
            &Band::new(ThresholdId(1)),
            &course(&score, START),
            Gate::Score,
            START,
            START,
        );
        let band = Band::new(ThresholdId(1)).after(&rise.unwrap());
        let fall = hot().next(&band, &course(&score, START), Gate::Score, START, EVER).unwrap();
        assert_eq!((fall.direction, fall.number, fall.told), (Direction::Fall, 1, true));
        assert_eq!(score.value(fall.at), Points(39_999));
        assert_eq!(score.value(Timestamp(fall.at.0 - 1)), Points(40_000));
    }

    #[test]
    fn dwell_holds_a_lead_in_until_it_is_over() {
        let score = total(30, START);
        let band =
            Band { inside: true, since: START, number: 1, told: true, ..Band::new(ThresholdId(1)) };
        let fall = hot().next(&band, &course(&score, START), Gate::Score, START, EVER).unwrap();
        assert_eq!(fall.at, START.plus(DAY));
    }

    #[test]
    fn a_message_inside_the_cool_down_waits_and_goes_if_the_lead_is_still_in() {
        let score = total(80, START);
        let band =
            Band { last_told: Some(START.minus(DAY)), number: 1, ..Band::new(ThresholdId(1)) };
        let rise = hot().next(&band, &course(&score, START), Gate::Score, START, START).unwrap();
        assert_eq!((rise.told, rise.waits_until), (false, Some(START.plus(2 * DAY))));
        let release = hot()
            .next(&band.after(&rise), &course(&score, START), Gate::Score, START, EVER)
            .unwrap();
        assert_eq!((release.direction, release.at), (Direction::Release, START.plus(2 * DAY)));
    }

    #[test]
    fn a_waiting_message_is_dropped_if_the_lead_is_out_again_by_then() {
        let score = total(30, START);
        let band = Band {
            inside: true,
            since: START.minus(DAY),
            number: 2,
            waits_until: Some(START.plus(2 * DAY)),
            ..Band::new(ThresholdId(1))
        };
        let fall = hot().next(&band, &course(&score, START), Gate::Score, START, EVER).unwrap();
        assert_eq!((fall.direction, fall.told), (Direction::Fall, false));
        assert_eq!(band.after(&fall).waits_until, None);
    }

    #[test]
    fn every_gate_can_keep_a_lead_out() {
        let score = total(80, START);
        let open = course(&score, START);
        let shut = [
            Course { grade: Grade::D, ..open },
            Course { identified: false, ..open },
            Course { consent: false, ..open },
            Course { last_human: Some(START.minus(8 * DAY)), ..open },
            Course { last_human: None, ..open },
        ];
        let band = Band::new(ThresholdId(1));
        assert!(hot().next(&band, &open, Gate::Score, START, START).is_some());
        for course in shut {
            assert_eq!(hot().next(&band, &course, Gate::Score, START, EVER), None, "{course:?}");
        }
    }

    #[test]
    fn a_minus_that_fades_faster_lets_a_lead_rise_by_time_alone() {
        let slow =
            Sum::of(HalfLife::new(30 * DAY).unwrap(), [(START, Points::whole(70))].into_iter());
        let fast = Sum::of(HalfLife::new(DAY).unwrap(), [(START, Points::whole(-20))].into_iter());
        let score = Total::new(vec![slow, fast]);
        let rise = hot()
            .next(&Band::new(ThresholdId(1)), &course(&score, START), Gate::Score, START, EVER)
            .unwrap();
        assert!(rise.at > START && score.value(rise.at) >= Points::whole(60));
        assert!(score.value(Timestamp(rise.at.0 - 1)) < Points::whole(60));
    }
}
