//! A Threshold is a line a lead can cross. It has a dead band, so that one lead cannot flap,
//! gates that all must be open to go in, and a cool-down between two messages.

use std::time::Duration;

use crate::decay::{Reach, Total};
use crate::grade::Grade;
use crate::id::ThresholdId;
use crate::points::Points;
use crate::rule::Period;
use crate::sales::Dealings;
use crate::stage::SALES;
use crate::time::Timestamp;

/// Times of escalations remembered, for `at_most`.
const ESCALATIONS_MAX: usize = 16;

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
    /// The urgency must reach this; more than 0.
    pub urgency: Option<Points>,
    /// Who is told; nobody, if nothing.
    pub tell: Option<String>,
    /// When a lead that is in is told again.
    pub again: Option<Again>,
}

/// Telling again while in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Again {
    /// This far above the score last told.
    pub every: Points,
    /// So often in a period.
    pub at_most: Option<(u32, Period)>,
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
    /// No gate: other rules than before let the lead in.
    Rules,
    /// The same points with a short memory are enough: it is now.
    Urgency,
    /// Sales is not working the lead, has not put it to rest, and what it gave back has done
    /// something new.
    Sales,
}

impl Gate {
    /// The gates that are asked, in order.
    pub const ASKED: [Gate; 7] = [
        Gate::Score,
        Gate::Grade,
        Gate::Identity,
        Gate::Consent,
        Gate::Recent,
        Gate::Urgency,
        Gate::Sales,
    ];
    /// All, by their number in the journal, which counts from 1.
    pub const ALL: [Gate; 8] = [
        Gate::Score,
        Gate::Grade,
        Gate::Identity,
        Gate::Consent,
        Gate::Recent,
        Gate::Rules,
        Gate::Urgency,
        Gate::Sales,
    ];

    /// The name in messages and answers.
    pub fn name(self) -> &'static str {
        match self {
            Gate::Score => "score",
            Gate::Grade => "grade",
            Gate::Identity => "identity",
            Gate::Consent => "consent",
            Gate::Recent => "recent",
            Gate::Rules => "rules",
            Gate::Urgency => "urgency",
            Gate::Sales => "sales",
        }
    }
}

/// What the gates look at, at one moment.
#[derive(Clone, Copy, Debug, Default)]
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
    /// The urgency, if a line asks for it.
    pub urgency: Points,
    /// What sales answered so far.
    pub dealings: Dealings,
}

/// On which side of a line a lead is. Derived: settling says it anew, whenever it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// The line.
    pub threshold: ThresholdId,
    /// Whether the lead is in.
    pub inside: bool,
    /// When it last went in or out; the epoch if it never did.
    pub since: Timestamp,
}

impl Side {
    /// Never in.
    pub fn out(threshold: ThresholdId) -> Side {
        Side { threshold, inside: false, since: Timestamp(0) }
    }

    /// The side after a flip.
    #[must_use]
    pub fn flipped(self, at: Timestamp) -> Side {
        Side { inside: !self.inside, since: at, ..self }
    }
}

/// Where one lead stands with one line: its side, and what was told about it. What was told is
/// a fact: no undo takes it back. Changed by [`Band::cross`] and [`Band::tell`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Band {
    /// The side.
    pub side: Side,
    /// How often it went in.
    pub number: u32,
    /// The gate that opened last when it went in.
    pub opened_by: Option<Gate>,
    /// Whether the message of the present (or last) stay went out.
    pub told: bool,
    /// Whether nobody is told until somebody says so: other rules or an import put it in.
    pub held: bool,
    /// When a message that waits for the cool-down may go.
    pub waits_until: Option<Timestamp>,
    /// When the last message of going in went out, unless it was taken back.
    pub last_told: Option<Timestamp>,
    /// The score last told while in.
    pub last_points: Option<Points>,
    /// When it was told again, latest last.
    pub escalated: Vec<Timestamp>,
}

/// What happened at a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// The lead went in.
    Rise,
    /// The lead went out.
    Fall,
    /// The message of a lead that is in goes now: the cool-down is over, or somebody said so.
    Release,
    /// What is known now says that the lead came to its side at another moment.
    Settle,
}

/// A change at a line, as recorded: enough to repeat it without the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// The line.
    pub threshold: ThresholdId,
    /// What happened.
    pub direction: Direction,
    /// When it was known: the exact instant if time did it, else that of the news.
    pub at: Timestamp,
    /// When, by what is known now, the lead came to its side.
    pub since: Timestamp,
    /// Which of the lead's rises it is; a fall repeats its rise's.
    pub number: u32,
    /// The gate that opened last, for a rise.
    pub opened_by: Option<Gate>,
    /// Whether a message goes out.
    pub told: bool,
    /// Whether nobody is told until somebody says so, for a rise.
    pub held: bool,
    /// Until when the message waits, for a rise inside the cool-down.
    pub waits_until: Option<Timestamp>,
}

impl Band {
    /// Never in yet.
    pub fn new(threshold: ThresholdId) -> Band {
        Band {
            side: Side::out(threshold),
            number: 0,
            opened_by: None,
            told: false,
            held: false,
            waits_until: None,
            last_told: None,
            last_points: None,
            escalated: Vec::new(),
        }
    }

    /// The line.
    pub fn threshold(&self) -> ThresholdId {
        self.side.threshold
    }

    /// Applies a crossing.
    pub fn cross(&mut self, crossing: &Crossing) {
        let side = |inside| Side { inside, since: crossing.since, ..self.side };
        match crossing.direction {
            Direction::Rise => {
                self.side = side(true);
                self.number = crossing.number;
                self.opened_by = crossing.opened_by;
                self.told = crossing.told;
                self.held = crossing.held;
                self.waits_until = crossing.waits_until;
                self.last_points = None;
                self.escalated.clear();
            }
            Direction::Release => {
                self.told = true;
                self.held = false;
                self.waits_until = None;
            }
            Direction::Fall => {
                self.side = side(false);
                self.held = false;
                self.waits_until = None;
            }
            Direction::Settle => self.side = side(self.side.inside),
        }
        if crossing.told && matches!(crossing.direction, Direction::Rise | Direction::Release) {
            self.last_told = Some(crossing.at);
        }
    }

    /// Takes note of a score that was told about it.
    pub fn tell(&mut self, points: Points, again: Option<Timestamp>) {
        self.last_points = Some(points);
        if let Some(at) = again {
            if self.escalated.len() == ESCALATIONS_MAX {
                self.escalated.remove(0);
            }
            self.escalated.push(at);
        }
    }

    /// What two people who are one stand at: in if either is, and told what either was told.
    #[must_use]
    pub fn joined(&self, other: &Band) -> Band {
        let stands = if other.side.inside && !self.side.inside { other } else { self };
        Band {
            number: self.number.max(other.number),
            last_told: self.last_told.max(other.last_told),
            ..stands.clone()
        }
    }

    /// Takes the last message back: it holds back no other.
    pub fn take_back(&mut self) {
        self.last_told = None;
        self.last_points = None;
    }
}

/// What decides whether a line is crossed while no news comes: everything but time stands still.
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
    /// What sales answered so far.
    pub dealings: Dealings,
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
            urgency: self.score.urgency(now),
            dealings: self.dealings,
        }
    }
}

impl Threshold {
    /// Whether it tells sales, whose answers then count at it.
    pub fn is_for_sales(&self) -> bool {
        self.tell.as_deref() == Some(SALES)
    }

    /// How high it is at a moment for a lead that is where it is since another: a rejection
    /// raises it.
    pub fn height(&self, dealings: &Dealings, since: Timestamp, now: Timestamp) -> Points {
        Points(self.rise.0.saturating_add(self.raise(dealings, since, now).0))
    }

    /// By how much a rejection raises it then.
    pub fn raise(&self, dealings: &Dealings, since: Timestamp, now: Timestamp) -> Points {
        let (raise, until) = dealings.raised(since);
        if self.is_for_sales() && now < until { raise } else { Points(0) }
    }

    /// Whether a gate is open at a moment for a lead that is where it is since another.
    pub fn is_open(
        &self,
        gate: Gate,
        standing: &Standing,
        since: Timestamp,
        now: Timestamp,
    ) -> bool {
        match gate {
            Gate::Score => standing.score >= self.height(&standing.dealings, since, now),
            Gate::Grade => self.grades.is_empty() || self.grades.contains(&standing.grade),
            Gate::Identity => standing.identified,
            Gate::Consent => standing.consent,
            Gate::Recent => self.recent.is_none_or(|within| {
                standing.last_human.is_some_and(|seen| now.since(seen) <= within)
            }),
            Gate::Rules => true,
            Gate::Urgency => self.urgency.is_none_or(|least| standing.urgency >= least),
            Gate::Sales => !self.is_for_sales() || standing.dealings.let_in(since, now),
        }
    }

    /// The first moment at or after `from` and not after `until` at which the side changes, if
    /// nothing but time passes.
    pub fn flip(
        &self,
        side: &Side,
        course: &Course<'_>,
        from: Timestamp,
        until: Timestamp,
    ) -> Option<Timestamp> {
        if side.inside {
            let earliest = from.max(side.since.plus(self.dwell));
            let until = until.min(course.score.end().max(earliest));
            return course.score.first(Reach::Below, self.fall, earliest, until);
        }
        if !self.is_for_sales() {
            return self.enter(self.rise, side, course, (from, until));
        }
        // Once rested, and first over the raised bar, if there is one.
        let from = from.max(course.dealings.rested(side.since));
        let (raise, raised_until) = course.dealings.raised(side.since);
        if from >= raised_until {
            return self.enter(self.rise, side, course, (from, until));
        }
        let bar = Points(self.rise.0.saturating_add(raise.0));
        let before = Timestamp(raised_until.0.saturating_sub(1)).min(until);
        let over = self.enter(bar, side, course, (from, before));
        over.or_else(|| self.enter(self.rise, side, course, (raised_until, until)))
    }

    /// The first moment of a time at which a lead that is out is at a bar with every gate open.
    fn enter(
        &self,
        bar: Points,
        side: &Side,
        course: &Course<'_>,
        (from, until): (Timestamp, Timestamp),
    ) -> Option<Timestamp> {
        let standing = course.at(from);
        let is_open = |gate: &Gate| self.is_open(*gate, &standing, side.since, from);
        let shut = |gate: &Gate| *gate != Gate::Score && !is_open(gate);
        // Of the other gates recency and urgency depend on time, and it can only close them.
        if from > until || Gate::ASKED.iter().any(shut) {
            return None;
        }
        if standing.score >= bar {
            return Some(from);
        }
        if !course.score.may_rise() {
            return None;
        }
        let recent_until = match (self.recent, course.last_human) {
            (Some(within), Some(seen)) => seen.plus(within),
            _ => until,
        };
        let urgent_until = match self.urgency {
            Some(least) => course.score.urgent_until(least, from, until)?,
            None => until,
        };
        let until = until.min(recent_until).min(urgent_until).min(course.score.end());
        course.score.first(Reach::NotBelow, bar, from, until)
    }

    /// The first thing that happens at or after `from` and not after `until` if nothing but time
    /// passes: the side changes, or a message need not wait any longer.
    pub fn next(
        &self,
        band: &Band,
        course: &Course<'_>,
        from: Timestamp,
        until: Timestamp,
    ) -> Option<Crossing> {
        // Sales hears no more of whom it works with than what they do.
        let theirs = self.is_for_sales() && course.dealings.are_at_work();
        // A line that no longer tells anybody has nothing to release.
        let tells = self.tell.is_some() && band.side.inside && !theirs;
        let waits = band.waits_until.filter(|_| tells);
        let release = waits.map(|at| at.max(from)).filter(|at| *at <= until);
        let flip = self.flip(&band.side, course, from, until);
        match (flip, release) {
            // Out again by the time the message may go: it is dropped.
            (Some(flip), release) if release.is_none_or(|release| flip <= release) => {
                let told = band.told && !band.held;
                Some(if band.side.inside {
                    self.fall(band, flip, flip, told)
                } else {
                    self.rise(band, flip, flip, self.opened_by_time(&band.side, course, flip))
                })
            }
            (_, Some(release)) => Some(self.release(band, release)),
            (_, None) => None,
        }
    }

    /// The gate that time alone has opened at a moment: sales' rest is over, or the score has
    /// reached the line.
    fn opened_by_time(&self, side: &Side, course: &Course<'_>, at: Timestamp) -> Gate {
        let before = Timestamp(at.0.saturating_sub(1));
        let was_open = self.is_open(Gate::Sales, &course.at(before), side.since, before);
        if was_open { Gate::Score } else { Gate::Sales }
    }

    /// Going in: told at once, or after the cool-down.
    pub fn rise(&self, band: &Band, at: Timestamp, since: Timestamp, opened: Gate) -> Crossing {
        let tells = self.tell.is_some();
        let waits_until =
            band.last_told.map(|told| told.plus(self.cooldown)).filter(|free| tells && *free > at);
        Crossing {
            direction: Direction::Rise,
            number: band.number.saturating_add(1),
            opened_by: Some(opened),
            told: tells && waits_until.is_none(),
            waits_until,
            ..self.crossing(band, at, since)
        }
    }

    /// Going out.
    pub fn fall(&self, band: &Band, at: Timestamp, since: Timestamp, told: bool) -> Crossing {
        Crossing { direction: Direction::Fall, told, ..self.crossing(band, at, since) }
    }

    /// The message of a lead that is in goes.
    pub fn release(&self, band: &Band, at: Timestamp) -> Crossing {
        let crossing = self.crossing(band, at, band.side.since);
        let opened_by = band.opened_by;
        Crossing { direction: Direction::Release, told: true, opened_by, ..crossing }
    }

    /// Another moment for the same side.
    pub fn settle(&self, band: &Band, at: Timestamp, since: Timestamp) -> Crossing {
        self.crossing(band, at, since)
    }

    fn crossing(&self, band: &Band, at: Timestamp, since: Timestamp) -> Crossing {
        Crossing {
            threshold: self.id,
            direction: Direction::Settle,
            at,
            since,
            number: band.number,
            opened_by: None,
            told: false,
            held: false,
            waits_until: None,
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
            urgency: None,
            id: ThresholdId(1),
            name: "hot".into(),
            rise: Points::whole(60),
            fall: Points::whole(40),
            dwell: DAY,
            cooldown: 3 * DAY,
            grades: vec![Grade::A, Grade::B, Grade::C, Grade::Unknown],
            recent: Some(7 * DAY),
            tell: Some("sales".into()),
            again: None,
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
            dealings: Dealings::default(),
        }
    }

    fn outside() -> Band {
        Band::new(ThresholdId(1))
    }

    fn inside(since: Timestamp) -> Band {
        let side = Side { inside: true, since, ..outside().side };
        Band { side, number: 1, told: true, ..outside() }
    }

    fn after(mut band: Band, crossing: &Crossing) -> Band {
        band.cross(crossing);
        band
    }

    const START: Timestamp = Timestamp(1_796_000_000_000);
    const EVER: Timestamp = Timestamp(u64::MAX);

    #[test]
    fn a_lead_between_the_two_lines_neither_rises_nor_falls() {
        let score = total(50, START);
        let course = course(&score, START);
        assert_eq!(hot().next(&outside(), &course, START, START), None);
        assert_eq!(hot().next(&inside(START.minus(2 * DAY)), &course, START, START), None);
    }

    #[test]
    fn a_lead_left_alone_falls_when_its_score_first_shows_less_than_the_line() {
        let score = total(60, START);
        let rise = hot().next(&outside(), &course(&score, START), START, START);
        let band = after(outside(), &rise.unwrap());
        let fall = hot().next(&band, &course(&score, START), START, EVER).unwrap();
        assert_eq!((fall.direction, fall.number, fall.told), (Direction::Fall, 1, true));
        assert_eq!(score.value(fall.at), Points(39_999));
        assert_eq!(score.value(Timestamp(fall.at.0 - 1)), Points(40_000));
    }

    #[test]
    fn dwell_holds_a_lead_in_until_it_is_over() {
        let score = total(30, START);
        let fall = hot().next(&inside(START), &course(&score, START), START, EVER).unwrap();
        assert_eq!(fall.at, START.plus(DAY));
    }

    #[test]
    fn a_message_inside_the_cool_down_waits_and_goes_if_the_lead_is_still_in() {
        let score = total(80, START);
        let band = Band { last_told: Some(START.minus(DAY)), number: 1, ..outside() };
        let rise = hot().next(&band, &course(&score, START), START, START).unwrap();
        assert_eq!((rise.told, rise.waits_until), (false, Some(START.plus(2 * DAY))));
        let release = hot().next(&after(band, &rise), &course(&score, START), START, EVER).unwrap();
        assert_eq!((release.direction, release.at), (Direction::Release, START.plus(2 * DAY)));
    }

    #[test]
    fn a_waiting_message_is_dropped_if_the_lead_is_out_again_by_then() {
        let score = total(30, START);
        let waits_until = Some(START.plus(2 * DAY));
        let band = Band { number: 2, told: false, waits_until, ..inside(START.minus(DAY)) };
        let fall = hot().next(&band, &course(&score, START), START, EVER).unwrap();
        assert_eq!((fall.direction, fall.told), (Direction::Fall, false));
        assert_eq!(after(band, &fall).waits_until, None);
    }

    #[test]
    fn who_is_held_is_told_neither_of_going_out_nor_by_time() {
        let score = total(30, START);
        let band = Band { held: true, told: false, ..inside(START.minus(DAY)) };
        let fall = hot().next(&band, &course(&score, START), START, EVER).unwrap();
        assert_eq!((fall.direction, fall.told), (Direction::Fall, false));
        let score = total(80, START);
        assert!(hot().next(&band, &course(&score, START), START, START).is_none());
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
        assert!(hot().next(&outside(), &open, START, START).is_some());
        for course in shut {
            assert_eq!(hot().next(&outside(), &course, START, EVER), None, "{course:?}");
        }
    }

    #[test]
    fn a_minus_that_fades_faster_lets_a_lead_rise_by_time_alone() {
        let slow =
            Sum::of(HalfLife::new(30 * DAY).unwrap(), [(START, Points::whole(70))].into_iter());
        let fast = Sum::of(HalfLife::new(DAY).unwrap(), [(START, Points::whole(-20))].into_iter());
        let score = Total::new(vec![slow, fast]);
        let rise = hot().next(&outside(), &course(&score, START), START, EVER).unwrap();
        assert!(rise.at > START && score.value(rise.at) >= Points::whole(60));
        assert!(score.value(Timestamp(rise.at.0 - 1)) < Points::whole(60));
    }

    #[test]
    fn a_message_taken_back_holds_back_no_other() {
        let score = total(80, START);
        let told = Band { last_told: Some(START.minus(DAY)), number: 1, ..outside() };
        let mut free = told.clone();
        free.take_back();
        let rise = |band: &Band| hot().next(band, &course(&score, START), START, START).unwrap();
        assert_eq!((rise(&told).told, rise(&free).told), (false, true));
    }
}
