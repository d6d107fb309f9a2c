//! What a person's rows are granted and on which sides they are, by the definitions alone: every
//! row from the first, every moment from the beginning. Slow, and so simple that one can see it
//! is right. This is what "what it would have been" means (law 4).

use std::collections::BTreeMap;

use engine::attribute::{Attributes, Level};
use engine::grade::Grade;
use engine::id::{CategoryId, LeadId, Position, RuleId, ThresholdId, VisitorId};
use engine::identity::Assurance;
use engine::ledger::Cut;
use engine::rule::{OnRemove, Once, Period, Rule};
use engine::stage::{FeedbackKind, Stage};
use engine::threshold::{Gate, Threshold};
use engine::time::UtcOffset;

use super::exact::{Faded, value};
use super::rules::Parts;
use super::sales::{Answer, Dealt, gives_back, kind_of, takes_half};

pub const HOUR: u64 = 3_600_000;
const SESSION_GAP: u64 = HOUR / 2;

/// A rule that matched.
#[derive(Clone, Debug, PartialEq)]
pub struct Award {
    pub when: u64,
    pub position: Position,
    pub order: u16,
    pub rule: RuleId,
    pub category: CategoryId,
    pub base: i64,
    /// Nothing for a server's.
    pub source: Option<VisitorId>,
    pub origin: LeadId,
    pub version: u32,
    pub withdrawn: bool,
}

/// A hit of a person.
#[derive(Clone, Copy, Debug)]
pub struct Presence {
    pub when: u64,
    pub position: Position,
    pub source: Option<VisitorId>,
    pub origin: LeadId,
    pub withdrawn: bool,
}

/// Something said of a person.
#[derive(Clone, Debug)]
pub struct Word {
    pub time: u64,
    pub position: Position,
    /// The browser with whose hit it goes: nothing for a word that stands for itself.
    pub with: Option<VisitorId>,
    pub origin: LeadId,
    pub identity: Assurance,
    pub attributes_by: Assurance,
    pub level: Level,
    pub consent: Option<bool>,
    pub attributes: Attributes,
}

/// A version of the scoring, and from when on it counts.
#[derive(Clone, Debug)]
pub struct Version {
    pub number: u32,
    pub from: u64,
    pub parts: Parts,
}

/// Everything that decides what a person is worth and where they stand.
#[derive(Clone, Debug, Default)]
pub struct Life {
    pub awards: Vec<Award>,
    pub presences: Vec<Presence>,
    pub words: Vec<Word>,
    pub answers: Vec<Answer>,
    pub versions: Vec<Version>,
    /// Sources and names of theirs that a claim alone ties.
    pub unproved: Vec<(VisitorId, LeadId)>,
    pub known_since: Option<(u64, Position)>,
}

/// What is known of a person at a moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Knowledge {
    pub attributes: Attributes,
    pub consent: bool,
    pub assurance: Assurance,
}

/// The side of one line: in or out, and since when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub inside: bool,
    pub since: u64,
}

/// A visit.
#[derive(Clone, Copy, Debug)]
pub struct Visit {
    pub from: u64,
    to: u64,
    first: Position,
    browser: bool,
}

impl Life {
    /// What was said up to a moment.
    pub fn knowledge(&self, until: u64) -> Knowledge {
        let mut words: Vec<&Word> = self.words.iter().filter(|word| word.time <= until).collect();
        words.sort_by_key(|word| (word.time, word.position, word.origin));
        let mut known = Knowledge {
            attributes: Attributes::new(),
            consent: true,
            assurance: Assurance::Claimed,
        };
        let mut by: BTreeMap<String, (Assurance, Level)> = BTreeMap::new();
        for word in words {
            let verified = known.assurance == Assurance::Verified;
            let taken = word.attributes_by == Assurance::Verified || !verified;
            match word.consent {
                Some(false) => known.consent = false,
                Some(true) if taken => known.consent = true,
                _ => {}
            }
            known.assurance = known.assurance.max(word.identity);
            for (name, value) in word.attributes.iter().filter(|_| taken) {
                let rank = (word.attributes_by, word.level);
                if by.get(name).is_none_or(|before| *before <= rank) {
                    by.insert(name.clone(), rank);
                    known.attributes.insert(name.clone(), value.clone());
                }
            }
        }
        known
    }

    pub fn version(&self, number: u32) -> &Version {
        self.versions.iter().find(|version| version.number == number).unwrap()
    }

    pub fn version_at(&self, at: u64) -> &Version {
        let begun = self.versions.iter().rev().find(|version| version.from <= at);
        begun.unwrap_or(&self.versions[0])
    }

    /// Visits: hits of one browser under one name, or of servers, without half an hour between.
    pub fn visits(&self) -> Vec<Visit> {
        type Whose = (Option<VisitorId>, LeadId);
        let mut by: BTreeMap<Whose, Vec<Presence>> = BTreeMap::new();
        for it in &self.presences {
            by.entry((it.source, it.origin)).or_default().push(*it);
        }
        let mut visits = Vec::new();
        for mut hits in by.into_values() {
            hits.sort_by_key(|hit| (hit.when, hit.position));
            for visit in hits.chunk_by(|a, b| b.when - a.when < SESSION_GAP) {
                // Nobody was there if all of it was withdrawn.
                if visit.iter().all(|hit| hit.withdrawn) {
                    continue;
                }
                visits.push(Visit {
                    from: visit[0].when,
                    to: visit[visit.len() - 1].when,
                    first: visit.iter().map(|hit| hit.position).min().unwrap(),
                    browser: visit[0].source.is_some(),
                });
            }
        }
        visits
    }

    /// When somebody was last seen in the visits begun by then.
    fn last_human(&self, at: u64) -> Option<u64> {
        self.visits().iter().filter(|visit| visit.from <= at).map(|visit| visit.to).max()
    }

    fn claimed(&self, award: &Award) -> bool {
        award.source.is_some_and(|visitor| self.unproved.contains(&(visitor, award.origin)))
    }

    /// The rows with their grants at a moment, in order.
    pub fn ledger(&self, now: u64) -> Vec<(Award, i64, Cut)> {
        let mut awards = self.awards.clone();
        awards.sort_by_key(|award| (award.when, award.position, award.order));
        let visits = self.visits();
        let mut granted: Vec<(Award, i64, Cut)> = Vec::new();
        for award in awards {
            let (points, cut) = self.grant(&granted, &award, &visits, now);
            granted.push((award, points, cut));
        }
        granted
    }

    fn grant(
        &self,
        before: &[(Award, i64, Cut)],
        award: &Award,
        visits: &[Visit],
        now: u64,
    ) -> (i64, Cut) {
        let parts = &self.version(award.version).parts;
        if kind_of(award.rule).is_some() {
            return self.answered(before, award, parts);
        }
        let rule = rule_of(parts, award.rule).unwrap();
        let gone = rule_of(&self.version_at(now).parts, award.rule).is_none();
        let away = rule.when.return_after.map_or(0, |away| away.as_millis() as u64);
        let was_there = visits
            .iter()
            .any(|visit| visit.browser && visit.from < award.when && visit.to + away > award.when);
        if award.withdrawn {
            (0, Cut::Withdrawn)
        } else if gone && rule.on_remove == OnRemove::Withdraw {
            (0, Cut::Removed)
        } else if away > 0 && was_there {
            (0, Cut::NotAway)
        } else if !self.is_for(rule, award.when) {
            (0, Cut::NotFor)
        } else if has_counted(before, award, rule, parts.offset) {
            (0, Cut::Counted)
        } else if award.base <= 0 {
            (award.base, Cut::None)
        } else {
            self.fitting(before, award, Some(rule), parts)
        }
    }

    /// What a row of an answer is granted: it is worth what it is worth, up to the limits; a lost
    /// deal takes half of what the category is worth then, rounded towards zero.
    fn answered(&self, before: &[(Award, i64, Cut)], award: &Award, parts: &Parts) -> (i64, Cut) {
        if takes_half(award.rule, award.order) {
            let half_life = parts.categories.iter().find(|it| it.id == award.category).unwrap();
            let own = before.iter().filter(|(other, ..)| other.category == award.category);
            let own: Vec<_> = own.map(|(other, granted, _)| (other.when, *granted)).collect();
            let worth = value(half_life.half_life.millis(), &own, award.when);
            return (-(worth.max(0) / 2), Cut::None);
        }
        if award.base <= 0 {
            return (award.base, Cut::None);
        }
        self.fitting(before, award, None, parts)
    }

    /// Whether a rule is for the person as they were known then, or when first known.
    fn is_for(&self, rule: &Rule, when: u64) -> bool {
        if rule.guards.only.is_empty() {
            return true;
        }
        let first = self.words.iter().map(|word| word.time).min().unwrap_or(when);
        let known = self.knowledge(when.max(first)).attributes;
        rule.guards.only.iter().all(|test| test.holds(&known))
    }

    /// The whole points that fit under rule, category, total and claims, in that order.
    fn fitting(
        &self,
        before: &[(Award, i64, Cut)],
        award: &Award,
        rule: Option<&Rule>,
        parts: &Parts,
    ) -> (i64, Cut) {
        let category = |id| parts.categories.iter().find(|category| category.id == id);
        let worth_of =
            |rows: &[(Award, i64, Cut)], id: CategoryId, which: &dyn Fn(&Award) -> bool| {
                let Some(known) = category(id) else {
                    return 0;
                };
                let own = rows.iter().filter(|(other, ..)| other.category == id && which(other));
                let rows: Vec<(u64, i64)> =
                    own.map(|(other, granted, _)| (other.when, *granted)).collect();
                value(known.half_life.millis(), &rows, award.when)
            };
        let worth = |id: CategoryId, which: &dyn Fn(&Award) -> bool| worth_of(before, id, which);
        let all = |_: &Award| true;
        // What a rule has given counts afresh after a lost deal.
        let lost = before.iter().rposition(|(other, ..)| takes_half(other.rule, other.order));
        let fresh = &before[lost.map_or(0, |place| place + 1)..];
        let every = |which: &dyn Fn(&Award) -> bool| -> i64 {
            parts.categories.iter().map(|category| worth_of(fresh, category.id, which)).sum()
        };
        let total = |which: &dyn Fn(&Award) -> bool| -> i64 {
            let counted = parts.categories.iter().filter(|category| category.in_total);
            counted.map(|category| worth(category.id, which)).sum()
        };
        let mut limits = Vec::new();
        if let Some(max) = rule.and_then(|rule| rule.guards.max) {
            limits.push((max.0 - every(&|other| other.rule == award.rule), Cut::RuleMax));
        }
        let Some(own) = category(award.category) else {
            return (award.base, Cut::None);
        };
        if let Some(max) = own.max {
            limits.push((max.0 - worth(own.id, &all), Cut::CategoryMax));
        }
        if own.in_total {
            if let Some(max) = parts.total_max {
                limits.push((max.0 - total(&all), Cut::TotalMax));
            }
            if let Some(max) = parts.claims_max.filter(|_| self.claimed(award)) {
                let theirs = |other: &Award| self.claimed(other);
                limits.push((max.0 - total(&theirs), Cut::ClaimsMax));
            }
        }
        let mut fits = (award.base, Cut::None);
        for (room, cut) in limits {
            let room = room.max(0) / 1_000 * 1_000;
            if room < fits.0 {
                fits = (room, cut);
            }
        }
        fits
    }

    /// The score of rows as a function of time, under the version in force at a moment.
    pub fn score(&self, rows: &[(Award, i64, Cut)], under: u64) -> Score {
        let parts = &self.version_at(under).parts;
        let of = |id| {
            let own = rows.iter().filter(|(award, ..)| award.category == id);
            own.map(|(award, granted, _)| (award.when, *granted)).collect::<Vec<_>>()
        };
        let counted = parts.categories.iter().filter(|category| category.in_total);
        let faded =
            counted.map(|category| Faded::new(category.half_life.millis(), &of(category.id)));
        Score(faded.collect())
    }

    /// The same with a memory of two days.
    fn urgency(&self, rows: &[(Award, i64, Cut)], under: u64) -> Faded {
        let categories = &self.version_at(under).parts.categories;
        let counts = |id| categories.iter().any(|it| it.id == id && it.in_total);
        let own = rows.iter().filter(|(award, ..)| counts(award.category));
        let own: Vec<_> = own.map(|(award, granted, _)| (award.when, *granted)).collect();
        Faded::new(2 * 86_400_000, &own)
    }

    pub fn grade(&self, at: u64) -> Grade {
        self.version_at(at).parts.fit.grade(&self.knowledge(at).attributes)
    }

    /// The sides at a moment, from the beginning. `hints` are instants that somebody else found:
    /// each is taken only if the definition holds at that very millisecond.
    pub fn sides(&self, until: u64, hints: &[u64]) -> BTreeMap<ThresholdId, Place> {
        self.history(until, hints).0
    }

    /// The sides, and every change on the way to them.
    pub fn history(
        &self,
        until: u64,
        hints: &[u64],
    ) -> (BTreeMap<ThresholdId, Place>, Vec<(u64, ThresholdId)>) {
        let (rows, visits) = (self.ledger(until), self.visits());
        let mut moments: Vec<(u64, Position)> = Vec::new();
        moments.extend(rows.iter().filter(|row| row.1 != 0).map(|(it, ..)| (it.when, it.position)));
        moments.extend(self.words.iter().map(|word| (word.time, word.position)));
        moments.extend(visits.iter().map(|visit| (visit.from, visit.first)));
        moments.extend(self.known_since);
        moments.extend(self.answers.iter().map(|answer| (answer.time, answer.position)));
        moments.extend(self.versions.iter().map(|it| (it.from, Position::NONE)));
        moments.retain(|moment| moment.0 <= until);
        moments.sort_unstable();
        moments.dedup();
        let mut sides: BTreeMap<ThresholdId, Place> = BTreeMap::new();
        let mut changes = Vec::new();
        for (index, moment) in moments.iter().enumerate() {
            let next = moments.get(index + 1).map_or(until, |next| next.0.saturating_sub(1));
            let span = (moment.0, next.max(moment.0));
            let parts = &self.version_at(moment.0).parts;
            sides.retain(|id, _| parts.thresholds.iter().any(|line| line.id == *id));
            let (score, urgency, standing) = self.as_known(&rows, &visits, *moment);
            let mut here = self.answers.iter().filter(|it| (it.time, it.position) == *moment);
            let given_back = here.any(|answer| gives_back(answer.kind));
            for line in &parts.thresholds {
                let place = sides.entry(line.id).or_default();
                if given_back && place.inside && is_for_sales(line) {
                    *place = Place { inside: false, since: moment.0 };
                    changes.push((moment.0, line.id));
                }
                for at in flips((&score, &urgency), &standing, line, *place, span, hints) {
                    *place = Place { inside: !place.inside, since: at };
                    changes.push((at, line.id));
                }
            }
        }
        changes.sort_unstable();
        (sides, changes)
    }

    /// The score as a function of time, and what else the gates look at, by what has happened
    /// up to an event.
    fn as_known(
        &self,
        rows: &[(Award, i64, Cut)],
        visits: &[Visit],
        event: (u64, Position),
    ) -> (Score, Faded, Standing) {
        let happened = |when: u64, position: Position| (when, position) <= event;
        let rows = rows.iter().filter(|(it, ..)| happened(it.when, it.position));
        let rows: Vec<_> = rows.cloned().collect();
        let (score, urgency) = (self.score(&rows, event.0), self.urgency(&rows, event.0));
        let words = Life {
            words: self.words.iter().filter(|it| happened(it.time, it.position)).cloned().collect(),
            ..Life::default()
        };
        let known = words.knowledge(u64::MAX);
        let begun = visits.iter().filter(|visit| happened(visit.from, visit.first));
        let standing = Standing {
            score: 0,
            grade: self.version_at(event.0).parts.fit.grade(&known.attributes),
            identified: self.known_since.is_some_and(|since| since <= event),
            consent: known.consent,
            last_human: begun.map(|visit| visit.to).max(),
            urgency: 0,
            dealt: self.dealt(&rows, event),
        };
        (score, urgency, standing)
    }

    /// What the gates look at, at a moment.
    pub fn standing(&self, now: u64) -> Standing {
        let known = self.knowledge(now);
        Standing {
            score: self.score(&self.ledger(now), now).at(now),
            urgency: self.urgency(&self.ledger(now), now).at(now),
            grade: self.grade(now),
            identified: self.known_since.is_some_and(|since| since.0 <= now),
            consent: known.consent,
            last_human: self.last_human(now),
            dealt: self.dealt_at(now),
        }
    }

    /// What the answers of sales come to after an event, with the rows of then.
    fn dealt(&self, rows: &[(Award, i64, Cut)], event: (u64, Position)) -> Dealt {
        let moved = self.answers.iter().filter(|answer| answer.kind != FeedbackKind::Snooze);
        let given = moved.filter(|answer| (answer.time, answer.position) <= event);
        let last = given.max_by_key(|answer| answer.key());
        let mut dealt = Dealt::after(last);
        if dealt.back.is_none() {
            return dealt;
        }
        let since = last.map_or(event, |last| (last.time, last.position));
        let categories = &self.version_at(event.0).parts.categories;
        let counts = |id| categories.iter().any(|category| category.id == id && category.in_total);
        let earned = |(award, granted, _): &(Award, i64, Cut)| {
            let place = (award.when, award.position);
            since < place && place <= event && *granted > 0 && counts(award.category)
        };
        let mut theirs = rows.iter().filter(|(award, ..)| kind_of(award.rule).is_none());
        dealt.evidence = theirs.any(earned);
        dealt
    }

    /// The same by all that is known at a moment.
    pub fn dealt_at(&self, now: u64) -> Dealt {
        let rows = if self.answers.is_empty() { Vec::new() } else { self.ledger(now) };
        self.dealt(&rows, (now, Position(u64::MAX)))
    }

    /// Where the person stands: where sales left them, if it decides or they were not hot since;
    /// else by the lines they are in at.
    pub fn stage(&self, now: u64, places: &BTreeMap<ThresholdId, Place>) -> Stage {
        let dealt = self.dealt_at(now);
        let named = |name: &str| {
            let line = self.lines(now).iter().find(|line| line.name == name);
            line.and_then(|line| places.get(&line.id)).copied().unwrap_or_default()
        };
        let hot = named("hot");
        let shown = dealt.is_open() || (!hot.inside && dealt.holds(hot.since));
        match dealt.stage.filter(|_| shown) {
            Some(stage) => stage,
            None if self.known_since.is_none() => Stage::Anonymous,
            None if hot.inside => Stage::Hot,
            None if named("warm").inside => Stage::Warm,
            None => Stage::Known,
        }
    }

    /// The lines in force at a moment.
    pub fn lines(&self, at: u64) -> &[Threshold] {
        &self.version_at(at).parts.thresholds
    }
}

/// What the gates look at.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    pub score: i64,
    pub grade: Grade,
    pub identified: bool,
    pub consent: bool,
    pub last_human: Option<u64>,
    pub urgency: i64,
    pub dealt: Dealt,
}

/// Whether a line tells sales.
pub fn is_for_sales(line: &Threshold) -> bool {
    line.tell.as_deref() == Some("sales")
}

/// By how much sales raises a line for somebody who is where they are since a moment.
pub fn raised(line: &Threshold, dealt: &Dealt, since: u64, now: u64) -> i64 {
    if is_for_sales(line) { dealt.raised(since, now) } else { 0 }
}

impl Standing {
    /// Whether a gate is open for somebody who is where they are at the line since a moment.
    pub fn open(&self, gate: Gate, line: &Threshold, since: u64, now: u64) -> bool {
        match gate {
            Gate::Score => self.score >= line.rise.0 + raised(line, &self.dealt, since, now),
            Gate::Grade => line.grades.is_empty() || line.grades.contains(&self.grade),
            Gate::Identity => self.identified,
            Gate::Consent => self.consent,
            Gate::Recent => line.recent.is_none_or(|within| {
                let since = self.last_human.map(|seen| now.saturating_sub(seen));
                since.is_some_and(|since| since <= within.as_millis() as u64)
            }),
            Gate::Rules => true,
            Gate::Sales => !is_for_sales(line) || self.dealt.lets_in(since, now),
            Gate::Urgency => line.urgency.is_none_or(|least| self.urgency >= least.0),
        }
    }
}

/// A score as a function of time.
pub struct Score(Vec<Faded>);

impl Score {
    pub fn at(&self, at: u64) -> i64 {
        self.0.iter().map(|faded| faded.at(at)).sum()
    }

    /// Whether it can only sink: nothing in it is below zero.
    fn only_sinks(&self, from: u64) -> bool {
        self.0.iter().all(|faded| faded.at(from) >= 0)
    }
}

/// The moments at which one line is crossed between two events.
fn flips(
    (score, urgency): (&Score, &Faded),
    standing: &Standing,
    line: &Threshold,
    mut place: Place,
    (from, until): (u64, u64),
    hints: &[u64],
) -> Vec<u64> {
    let mut changes = Vec::new();
    let sinks = score.only_sinks(from);
    let mut at = from;
    loop {
        let dwell = line.dwell.as_millis() as u64;
        let held = if place.inside { place.since.saturating_add(dwell) } else { 0 };
        let changed = |at: u64| {
            let (score, urgency) = (score.at(at), urgency.at(at));
            let standing = Standing { score, urgency, ..*standing };
            if place.inside {
                at >= held && standing.score < line.fall.0
            } else {
                Gate::ASKED.iter().all(|gate| standing.open(*gate, line, place.since, at))
            }
        };
        let from = at.max(held);
        // What only sinks goes out once and comes in at once, or when sales lets it, or never.
        let turns = standing.dealt.turns().into_iter().filter(|turn| from < *turn);
        let mut moments: Vec<u64> = turns.chain([from]).filter(|at| *at <= until).collect();
        moments.sort_unstable();
        let next = match (sinks, place.inside) {
            (true, false) => moments.into_iter().find(|at| changed(*at)),
            (true, true) if from > until || !changed(until) => None,
            _ => first(&changed, from, until, &[hints, &moments].concat()),
        };
        let Some(next) = next else {
            return changes;
        };
        changes.push(next);
        place = Place { inside: !place.inside, since: next };
        at = next;
    }
}

fn rule_of(parts: &Parts, id: RuleId) -> Option<&Rule> {
    parts.rules.iter().find(|rule| rule.id == id)
}

/// Whether a row that was cut for this reason used up what its rule allows.
pub fn counted(cut: Cut) -> bool {
    ![Cut::Counted, Cut::NotAway, Cut::NotFor, Cut::Withdrawn, Cut::Removed].contains(&cut)
}

fn has_counted(
    granted: &[(Award, i64, Cut)],
    award: &Award,
    rule: &Rule,
    offset: UtcOffset,
) -> bool {
    let same = |(other, _, cut): &&(Award, i64, Cut)| other.rule == award.rule && counted(*cut);
    let times: Vec<u64> = granted.iter().filter(same).map(|(other, ..)| other.when).collect();
    let holds = |then: u64, period: Period| match period {
        Period::Day => day(then, offset) == day(award.when, offset),
        Period::Rolling(length) => award.when - then < length.as_millis() as u64,
    };
    let guards = &rule.guards;
    let once = guards.once.is_some_and(|once| match once {
        Once::Ever => !times.is_empty(),
        Once::Rearmed(after) => times.iter().any(|then| holds(*then, Period::Rolling(after))),
    });
    let per = guards.once_per.is_some_and(|per| times.iter().any(|then| holds(*then, per)));
    let many = guards.at_most.is_some_and(|(most, per)| {
        times.iter().filter(|then| holds(**then, per)).count() >= most as usize
    });
    once || per || many
}

pub fn day(at: u64, offset: UtcOffset) -> i64 {
    (at as i64 + offset.0).div_euclid(86_400_000)
}

/// The first moment at which something holds: a walk by the quarter of an hour, then bisection.
/// Something may hold for less than that, and roundings can make a value waver by a thousandth:
/// an instant that somebody else found is taken if it is earlier and the thing comes true at
/// that very millisecond.
fn first(holds: &dyn Fn(u64) -> bool, from: u64, until: u64, hints: &[u64]) -> Option<u64> {
    let found = walked(holds, from, until);
    let last = found.unwrap_or(until);
    let exact = |at: &&u64| {
        (from..=last).contains(*at) && holds(**at) && (**at == from || !holds(**at - 1))
    };
    hints.iter().filter(exact).min().copied().or(found)
}

fn walked(holds: &dyn Fn(u64) -> bool, from: u64, until: u64) -> Option<u64> {
    const STEP: u64 = HOUR / 4;
    if from > until {
        return None;
    }
    let (mut low, mut high) = (from, from);
    while !holds(high) {
        if high == until {
            return None;
        }
        low = high;
        high = until.min(high + STEP);
    }
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        if holds(middle) { high = middle } else { low = middle }
    }
    Some(high)
}
