//! Sides are derived: a walk through a lead's life, from the beginning or from a moment on, says
//! on which side of each line it is and since when. It looks at the rows, at the dated facts and
//! at the versions of the scoring, and at nothing else: whoever has the same ones is on the same
//! side, in whatever order they became known.

use std::sync::Arc;

use crate::decay::Total;
use crate::facts::{Profile, Said, Seen, last_seen};
use crate::grade::Grade;
use crate::id::{Position, ThresholdId};
use crate::ledger::{self, Row, UNDECIDED, placed};
use crate::record::{Base, Content};
use crate::sales::Dealings;
use crate::terms::{Terms, Versions};
use crate::threshold::{Course, Side, Threshold};
use crate::time::Timestamp;

/// A moment among a lead's events: time, and the record.
pub(super) type Key = (Timestamp, Position);

/// What is walked through.
#[derive(Clone, Copy)]
pub(super) struct Life<'a> {
    pub(super) content: &'a Content,
    pub(super) visits: &'a [Seen],
    pub(super) versions: &'a Versions,
    /// The version under which everything was settled anew, if it was.
    pub(super) rescored: u32,
}

/// Where a walk begins.
pub(super) enum Start<'a> {
    /// At the beginning of what is remembered.
    Base(&'a Base),
    /// With the first event at or after this one: before it nothing changed.
    At(Key, Vec<Side>),
}

/// What a walk found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Walked {
    /// The sides at its end, of every line of the version in force then.
    pub(super) sides: Vec<Side>,
    /// The times inside, each from when it began until it ended.
    pub(super) stays: Vec<(ThresholdId, Timestamp, Timestamp)>,
}

/// Something that happened, in its place.
#[derive(Clone, Copy)]
enum Event {
    Row(usize),
    Said(usize),
    /// A person was seen after half an hour or more.
    Seen,
    /// Somebody said who this is.
    Known,
    /// Another version came into force.
    Version,
    /// Sales answered.
    Answered(usize),
}

impl Life<'_> {
    /// The version in force at a moment.
    pub(super) fn terms(&self, at: Timestamp) -> Option<&Arc<Terms>> {
        self.versions.at(at, self.rescored)
    }

    /// The latest event before the record that is being decided.
    pub(super) fn last_event(&self) -> Key {
        // They are in order: the last one decided is the latest.
        let decided = |row: &&Row| row.granted.0 != 0 && placed(row.position) != UNDECIDED;
        let row = self.content.rows.iter().rfind(decided).map(|row| (row.when, row.position));
        let others = self.facts().map(|(key, _)| key).filter(|key| key.1 != UNDECIDED);
        others.chain(row).max().unwrap_or((Timestamp(0), Position::NONE))
    }

    /// What happened besides rows, in no order.
    fn facts(&self) -> impl Iterator<Item = (Key, Event)> {
        let said = self.content.said.iter().enumerate();
        let said = said.map(|(at, it)| ((it.time, placed(it.position)), Event::Said(at)));
        let visits = self.visits.iter().map(|it| ((it.from, placed(it.first)), Event::Seen));
        let answers = self.content.feedback.iter().enumerate();
        let answers = answers.map(|(at, it)| ((it.time, placed(it.position)), Event::Answered(at)));
        let known = self.content.known_since().into_iter();
        let known = known.map(|it| ((it.since, placed(it.first_position)), Event::Known));
        let later = self.versions.all().iter().filter(|terms| terms.version > self.rescored);
        let later = later.map(|terms| ((terms.published, Position::NONE), Event::Version));
        said.chain(visits).chain(answers).chain(known).chain(later)
    }

    /// All that happened, in order, but for the first rows, as many as are left out.
    fn events(&self, left_out: usize) -> Vec<(Key, Event)> {
        let rows = self.content.rows.iter().enumerate().skip(left_out);
        let rows = rows.filter(|(_, row)| row.granted.0 != 0);
        let rows = rows.map(|(at, row)| ((row.when, placed(row.position)), Event::Row(at)));
        let mut events: Vec<_> = rows.chain(self.facts()).collect();
        events.sort_by_key(|(key, _)| *key);
        events
    }

    /// How many rows stand before an event: those need not be learned one by one, but where what
    /// was earned stands among answers of sales.
    fn rows_before(&self, event: &Key) -> usize {
        if !self.content.feedback.is_empty() {
            return 0;
        }
        self.content.rows.partition_point(|row| (row.when, placed(row.position)) < *event)
    }

    /// Walks until a moment, that moment included.
    pub(super) fn walk(&self, start: &Start<'_>, until: Timestamp) -> Walked {
        let left_out = match start {
            Start::Base(_) => 0,
            Start::At(key, _) => self.rows_before(key),
        };
        let events = self.events(left_out);
        let first = match start {
            Start::Base(base) if base.at == Timestamp(0) => 0,
            Start::Base(base) => events.partition_point(|(key, _)| key.0 <= base.at),
            Start::At(key, _) => events.partition_point(|(other, _)| other < key),
        };
        let begins = match start {
            Start::Base(base) => base.at,
            Start::At(key, _) => key.0,
        };
        let mut walker = Walker::new(*self, begins, left_out);
        for (_, event) in &events[..first] {
            walker.learn(*event);
        }
        walker.sides = match start {
            Start::Base(base) => base.sides.clone(),
            Start::At(_, sides) => sides.clone(),
        };
        walker.begin(begins);
        if let Start::Base(base) = start
            && first > 0
        {
            let end = events.get(first).map_or(until, |(key, _)| before(key.0).max(base.at));
            walker.pass(base.at, end.min(until));
        }
        let mut rest = &events[first..];
        while let Some(((time, _), _)) = rest.first().filter(|((time, _), _)| *time <= until) {
            let (key, time) = (rest[0].0, *time);
            walker.reach(time);
            let together = rest.iter().take_while(|(other, _)| *other == key).count();
            for (_, event) in &rest[..together] {
                walker.learn(*event);
                if let Event::Answered(at) = event {
                    walker.answered(*at, time);
                }
            }
            rest = &rest[together..];
            let next = rest.first().map_or(until, |((next, _), _)| before(*next));
            walker.pass(time, next.min(until).max(time));
        }
        walker.reach(until);
        walker.finish(until)
    }
}

fn before(time: Timestamp) -> Timestamp {
    Timestamp(time.0.saturating_sub(1))
}

/// The walker's knowledge at a moment.
struct Walker<'a> {
    life: Life<'a>,
    terms: Option<Arc<Terms>>,
    score: Total,
    /// How many rows, from the first on, were learned.
    rows: usize,
    heard: Vec<&'a Said>,
    dealings: Dealings,
    /// What was heard comes to; nothing while that is to be worked out anew.
    known: Option<(Grade, bool)>,
    identified: bool,
    sides: Vec<Side>,
    stays: Vec<(ThresholdId, Timestamp, Timestamp)>,
}

impl<'a> Walker<'a> {
    /// Who knows the first rows, as many as that.
    fn new(life: Life<'a>, at: Timestamp, rows: usize) -> Walker<'a> {
        let mut walker = Walker {
            life,
            terms: life.terms(at).cloned(),
            score: Total::default(),
            rows,
            heard: Vec::new(),
            dealings: Dealings::default(),
            known: None,
            identified: false,
            sides: Vec::new(),
            stays: Vec::new(),
        };
        walker.sum();
        walker
    }

    /// Lines that were not there before begin outside.
    fn begin(&mut self, at: Timestamp) {
        self.terms = self.life.terms(at).cloned();
        self.fit_lines(at);
    }

    /// Time has come to a moment: another version may be in force.
    fn reach(&mut self, at: Timestamp) {
        let terms = self.life.terms(at);
        let version = |terms: Option<&Arc<Terms>>| terms.map_or(0, |terms| terms.version);
        let (then, now) = (version(self.terms.as_ref()), version(terms));
        if then == now {
            return;
        }
        self.terms = terms.cloned();
        self.known = None;
        if !self.life.versions.fade_alike(then, now) {
            self.sum();
        }
        // What counts in the total may be another now.
        if let Some(terms) = &self.terms {
            let rows = &self.life.content.rows[..self.rows];
            self.life.content.weigh(&mut self.dealings, rows, terms);
        }
        self.fit_lines(at);
    }

    /// The sides of the lines of the version in force, and of no others.
    fn fit_lines(&mut self, at: Timestamp) {
        let Some(terms) = self.terms.clone() else {
            return;
        };
        for side in self.sides.iter().filter(|side| side.inside) {
            if terms.threshold(side.threshold).is_none() {
                self.stays.push((side.threshold, side.since, at));
            }
        }
        let known = |id| self.sides.iter().find(|side| side.threshold == id).copied();
        let lines = terms.thresholds.iter();
        self.sides = lines.map(|line| known(line.id).unwrap_or(Side::out(line.id))).collect();
    }

    /// Sums the rows learned so far under the terms in force.
    fn sum(&mut self) {
        let rows = &self.life.content.rows[..self.rows];
        self.score =
            self.terms.as_ref().map(|terms| ledger::total(rows, terms)).unwrap_or_default();
    }

    fn learn(&mut self, event: Event) {
        match event {
            Event::Row(at) => self.earn(at),
            Event::Said(at) => {
                self.heard.push(&self.life.content.said[at]);
                self.known = None;
            }
            Event::Known => self.identified = true,
            Event::Answered(at) => self.dealings.hear(&self.life.content.feedback[at]),
            Event::Seen | Event::Version => {}
        }
    }

    /// Who is given back is out at once, at the lines that tell sales.
    fn answered(&mut self, at: usize, time: Timestamp) {
        let (true, Some(terms)) =
            (self.life.content.feedback[at].kind.gives_back(), self.terms.clone())
        else {
            return;
        };
        let inside = self.sides.iter_mut().filter(|side| side.inside);
        for side in inside {
            if terms.threshold(side.threshold).is_some_and(Threshold::is_for_sales) {
                self.stays.push((side.threshold, side.since, time));
                *side = side.flipped(time);
            }
        }
    }

    fn earn(&mut self, at: usize) {
        let row = &self.life.content.rows[at];
        // Rows in between were granted nothing.
        self.rows = at + 1;
        let Some(terms) = self.terms.clone() else {
            return;
        };
        if terms.is_in_total(row.category) {
            self.dealings.earn(row.rule, row.granted);
        }
        let mut counted = terms.categories.iter().filter(|category| category.in_total);
        let Some(place) = counted.position(|category| category.id == row.category) else {
            return;
        };
        let sum = &mut self.score.sums_mut()[place];
        *sum = sum.with(row.when, row.granted).unwrap_or_else(|| {
            let rows = &self.life.content.rows[..=at];
            ledger::sum(rows, sum.half_life(), |other| other.category == row.category)
        });
        if let Some(urgency) = self.score.urgency_mut() {
            *urgency = urgency.with(row.when, row.granted).unwrap_or_else(|| {
                let rows = &self.life.content.rows[..=at];
                ledger::urgency(rows, &terms)
            });
        }
    }

    /// Lets time pass from an event until just before the next one.
    fn pass(&mut self, from: Timestamp, until: Timestamp) {
        if !self.identified && self.sides.iter().all(|side| !side.inside) {
            return;
        }
        let Some(terms) = self.terms.clone() else {
            return;
        };
        let (grade, consent) = self.known.unwrap_or_else(|| {
            let profile = Profile::of(self.heard.iter().copied());
            (terms.fit.grade(&profile.attributes), profile.consent)
        });
        self.known = Some((grade, consent));
        let course = Course {
            score: &self.score,
            grade,
            identified: self.identified,
            consent,
            last_human: last_seen(self.life.visits, from),
            dealings: self.dealings,
        };
        for (side, line) in self.sides.iter_mut().zip(&terms.thresholds) {
            let mut from = from;
            while let Some(at) = line.flip(side, &course, from, until) {
                if side.inside {
                    self.stays.push((side.threshold, side.since, at));
                }
                *side = side.flipped(at);
                from = at;
            }
        }
    }

    fn finish(mut self, until: Timestamp) -> Walked {
        for side in self.sides.iter().filter(|side| side.inside) {
            self.stays.push((side.threshold, side.since, Timestamp(until.0.saturating_add(1))));
        }
        Walked { sides: self.sides, stays: self.stays }
    }
}
