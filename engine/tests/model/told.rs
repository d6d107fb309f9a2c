//! What a person was told to have done: crossings, by the definitions alone, which of them made a
//! message, and what else did. These are facts; `life.rs` has what is derived.

use std::collections::{BTreeMap, BTreeSet};

use engine::alert::AlertKind;
use engine::id::{Position, ThresholdId};
use engine::rule::Period;
use engine::stage::{FeedbackKind, Stage};
use engine::threshold::{Crossing, Direction, Gate, Threshold};
use engine::time::Timestamp;

use super::life::{HOUR, Life, Place, day, is_for_sales, raised};
use super::sales::{Answer, asks, work_between};

/// What is known of where a person stands, and what was told of it.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub place: Place,
    number: u32,
    told: bool,
    held: bool,
    waits: Option<u64>,
    last_told: Option<u64>,
    opened: Option<Gate>,
    /// The score last told while in.
    points: Option<i64>,
    /// When it was told again.
    again: Vec<u64>,
}

/// A message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub at: u64,
    pub kind: AlertKind,
    pub audience: String,
    pub also: Vec<AlertKind>,
    pub score: i64,
    pub previous: Stage,
    pub stage: Stage,
    pub asks: Option<(u64, u64)>,
    /// Working time that a reminder has waited.
    pub waited: u64,
    pub raised: i64,
    lines: BTreeSet<ThresholdId>,
}

impl Message {
    /// One as it was recorded.
    pub fn of(message: &engine::record::Message) -> Message {
        let told = &message.told;
        Message {
            at: told.at.0,
            kind: message.kind,
            audience: message.audience.clone().unwrap_or_default(),
            also: message.also.clone(),
            score: told.score.0,
            previous: told.previous_stage,
            stage: told.stage,
            asks: told.asks.map(|(one, two)| (one.0, two.0)),
            waited: told.waited.as_millis() as u64,
            raised: told.raised.0,
            lines: message.lines.iter().copied().collect(),
        }
    }
}

/// What sales was told of and nobody has answered.
#[derive(Clone, Copy, Debug)]
struct Asked {
    since: u64,
    remind: u64,
    report: u64,
    reminded: bool,
    /// Who is out there again need not be taken any more.
    line: Option<ThresholdId>,
}

/// A hit that is news of a person.
#[derive(Clone, Copy, Debug)]
pub struct News {
    pub position: Position,
    pub when: u64,
    pub human: bool,
    /// Whether the person was known before.
    pub known: bool,
}

/// A person, as far as what was known and told goes.
#[derive(Clone, Debug, Default)]
pub struct Person {
    pub clock: u64,
    pub lines: BTreeMap<ThresholdId, Known>,
    pub crossings: Vec<Crossing>,
    pub messages: Vec<Message>,
    asked: Option<Asked>,
    /// When sales last heard what somebody did whom it knows.
    signalled: u64,
}

fn line_of(life: &Life, id: ThresholdId, at: u64) -> Option<&Threshold> {
    life.lines(at).iter().find(|line| line.id == id)
}

/// Whether sales hears of somebody only as of one it knows: it works with them, or they are a
/// customer.
fn is_known_to_sales(life: &Life, at: u64) -> bool {
    let known = life.knowledge(at).attributes;
    let said = |name: &str| known.get(name).cloned().unwrap_or_default();
    life.dealt_at(at).is_open() || said("customer") == "yes" || !said("open_deal").is_empty()
}

impl Person {
    fn places(&self) -> BTreeMap<ThresholdId, Place> {
        self.lines.iter().map(|(id, known)| (*id, known.place)).collect()
    }

    fn stage(&self, life: &Life, at: u64) -> Stage {
        life.stage(at, &self.places())
    }

    /// Since when sales is asked, and where the person stands, once time has come to a moment.
    pub fn stands(&self, life: &Life, now: u64, hints: &[u64]) -> (Option<u64>, Stage) {
        let mut then = self.clone();
        then.pass(life, now, hints, &[]);
        (then.asked.map(|asked| asked.since), then.stage(life, now))
    }

    /// Acts on every moment up to now, each in its turn.
    pub fn pass(&mut self, life: &Life, now: u64, hints: &[u64], published: &[u64]) {
        let (_, changes) = life.history(now, hints);
        let mut changes: Vec<(u64, ThresholdId)> =
            changes.into_iter().filter(|change| change.0 > self.clock).collect();
        loop {
            let flip = changes.first().copied();
            let release = self.next_release(life, now, flip.map(|it| it.0));
            let crossing = flip.into_iter().chain(release).map(|it| it.0).min();
            let asked = self.asked.filter(|asked| !asked.reminded);
            let reminder = asked.map(|asked| asked.remind.max(self.clock));
            let previous = crossing.map(|_| self.stage(life, crossing.unwrap_or(now)));
            if let Some(at) = reminder.filter(|at| *at <= now && crossing.is_none_or(|it| *at < it))
            {
                self.remind(life, at);
            } else if let Some((at, id)) =
                release.filter(|it| crossing == Some(it.0) && flip.is_none_or(|flip| it.0 < flip.0))
            {
                self.release(life, id, at);
                self.tell_crossing(life, self.crossings.len() - 1, previous.unwrap_or_default(), 0);
            } else if let Some((at, id)) = flip {
                changes.remove(0);
                let opened = published.contains(&at).then_some(Gate::Rules);
                let opened = opened.or_else(|| opened_by_time(life, id, self.lines.get(&id), at));
                self.go(life, id, (at, at), (opened, false), previous.unwrap_or_default());
            } else {
                break;
            }
        }
        self.clock = self.clock.max(now);
    }

    /// Goes in or out, and tells of it.
    fn go(
        &mut self,
        life: &Life,
        id: ThresholdId,
        (at, since): (u64, u64),
        (opened, own): (Option<Gate>, bool),
        previous: Stage,
    ) {
        let was = self.lines.get(&id).map(|known| known.place.since).unwrap_or_default();
        let raise =
            line_of(life, id, at).map_or(0, |line| raised(line, &life.dealt_at(at), was, at));
        let crossings = self.crossings.len();
        self.flip(life, id, (at, since), opened, own);
        if self.crossings.len() > crossings {
            self.tell_crossing(life, crossings, previous, raise);
        }
    }

    /// The first message that need not wait any longer, if nothing else happens before.
    fn next_release(
        &self,
        life: &Life,
        now: u64,
        before: Option<u64>,
    ) -> Option<(u64, ThresholdId)> {
        let waiting = self.lines.iter().filter(|(_, known)| known.place.inside);
        let due = waiting.filter_map(|(id, known)| Some((known.waits?.max(self.clock), *id)));
        let tells = |(at, id): &(u64, ThresholdId)| {
            let theirs = life.dealt_at(*at).is_open();
            line_of(life, *id, *at)
                .is_some_and(|line| line.tell.is_some() && !(is_for_sales(line) && theirs))
        };
        due.filter(|due| due.0 <= now && before.is_none_or(|it| due.0 < it)).filter(tells).min()
    }

    /// `own`: by what sales itself said, and need not hear of.
    fn flip(
        &mut self,
        life: &Life,
        id: ThresholdId,
        (at, since): (u64, u64),
        opened: Option<Gate>,
        own: bool,
    ) {
        let Some(line) = line_of(life, id, at) else {
            return;
        };
        let quiet = own || (is_for_sales(line) && is_known_to_sales(life, at));
        let known = self.lines.entry(id).or_default();
        known.place = Place { inside: !known.place.inside, since };
        let tells = line.tell.is_some();
        let mut crossing = crossing(id, Direction::Fall, at, since);
        if known.place.inside {
            known.held = tells && opened == Some(Gate::Rules);
            let free = known.last_told.map(|told| told + line.cooldown.as_millis() as u64);
            let silent = known.held || (own && is_for_sales(line));
            known.waits = free.filter(|free| tells && *free > at && !silent);
            known.told = tells && known.waits.is_none() && !silent;
            known.number += 1;
            known.opened = Some(opened.unwrap_or(Gate::Score));
            known.last_told = if known.told { Some(at) } else { known.last_told };
            (known.points, known.again) = (None, Vec::new());
            crossing.direction = Direction::Rise;
            crossing.opened_by = known.opened;
            crossing.held = known.held;
            crossing.waits_until = known.waits.map(Timestamp);
            crossing.told = known.told;
        } else {
            crossing.told = known.told && !known.held && !quiet;
            (known.waits, known.held) = (None, false);
            if self.asked.is_some_and(|asked| asked.line == Some(id)) {
                self.asked = None;
            }
        }
        crossing.number = known.number;
        self.crossings.push(crossing);
    }

    fn release(&mut self, life: &Life, id: ThresholdId, at: u64) {
        if line_of(life, id, at).is_none() {
            return;
        }
        let known = self.lines.entry(id).or_default();
        (known.told, known.waits, known.last_told) = (true, None, Some(at));
        self.crossings.push(Crossing {
            told: true,
            number: known.number,
            opened_by: known.opened,
            ..crossing(id, Direction::Release, at, known.place.since)
        });
    }

    fn settle(&mut self, line: &Threshold, at: u64, since: u64) {
        let known = self.lines.entry(line.id).or_default();
        known.place.since = since;
        let number = known.number;
        let settled = crossing(line.id, Direction::Settle, at, since);
        self.crossings.push(Crossing { number, ..settled });
    }

    /// Crosses what news at a moment changes, and tells of it.
    pub fn hear(
        &mut self,
        (before, life): (&Life, &Life),
        now: u64,
        hints: &[u64],
        news: Option<News>,
    ) {
        let sides = life.sides(now, hints);
        let (was, is) = (before.standing(now), life.standing(now));
        let previous = self.stage(before, now);
        let begins = (self.crossings.len(), self.messages.len());
        let mut raises = BTreeMap::new();
        for line in life.lines(now) {
            let known = self.lines.entry(line.id).or_default().place;
            let side = sides.get(&line.id).copied().unwrap_or_default();
            if known.inside != side.inside {
                let open = |standing: &super::life::Standing, gate| {
                    standing.open(gate, line, known.since, now)
                };
                let opened =
                    Gate::ASKED.into_iter().find(|gate| !open(&was, *gate) && open(&is, *gate));
                raises.insert(self.crossings.len(), raised(line, &is.dealt, known.since, now));
                let opened = opened.or(Some(Gate::Score));
                self.flip(life, line.id, (now, side.since), opened, news.is_none());
            } else if known.since != side.since {
                self.settle(line, now, side.since);
            }
        }
        for place in begins.0..self.crossings.len() {
            let raise = raises.get(&place).copied().unwrap_or(0);
            self.tell_crossing(life, place, previous, raise);
        }
        if let Some(news) = news.filter(|news| news.human) {
            self.tell_at_once((before, life), now, news, (begins, previous));
        }
        self.clock = self.clock.max(now);
    }

    /// Sales answered: nobody waits for an answer, or not yet.
    pub fn answered(&mut self, answer: &Answer) {
        if answer.kind != FeedbackKind::Snooze {
            self.asked = None;
        } else if let (Some(asked), Some((remind, report))) = (&mut self.asked, answer.asks) {
            *asked = Asked { remind, report, reminded: false, ..*asked };
        }
    }

    fn tell_crossing(&mut self, life: &Life, place: usize, previous: Stage, raise: i64) {
        let crossing = self.crossings[place];
        let line = line_of(life, crossing.threshold, crossing.at.0).filter(|_| crossing.told);
        let Some((line, audience)) = line.and_then(|line| Some((line, line.tell.clone()?))) else {
            return;
        };
        let known = audience == "sales" && is_known_to_sales(life, crossing.at.0);
        let (kind, lines) = match crossing.direction {
            Direction::Fall | Direction::Settle => (AlertKind::Cooled, BTreeSet::new()),
            _ if known => (AlertKind::Signal, BTreeSet::from([line.id])),
            _ => (AlertKind::Hot, BTreeSet::from([line.id])),
        };
        let raised = if crossing.direction == Direction::Rise { raise } else { 0 };
        let message = self.message(life, crossing.at.0, kind, audience);
        self.send(life, Message { previous, raised, lines, ..message });
    }

    fn remind(&mut self, life: &Life, at: u64) {
        let Some(asked) = &mut self.asked else {
            return;
        };
        asked.reminded = true;
        let waited = work_between(&life.version_at(at).parts.sales, asked.since, at);
        let message = self.message(life, at, AlertKind::Reminder, "sales".to_owned());
        let previous = message.stage;
        self.messages.push(Message { previous, waited, ..message });
    }

    fn message(&self, life: &Life, at: u64, kind: AlertKind, audience: String) -> Message {
        Message {
            at,
            kind,
            audience,
            also: Vec::new(),
            score: life.score(&life.ledger(at), at).at(at),
            previous: Stage::Anonymous,
            stage: self.stage(life, at),
            asks: None,
            waited: 0,
            raised: 0,
            lines: BTreeSet::new(),
        }
    }

    /// What rules tell at once, and rising far above what was told; within a message that the
    /// same people get anyway, if they do.
    fn tell_at_once(
        &mut self,
        (before, life): (&Life, &Life),
        now: u64,
        news: News,
        (begins, previous): ((usize, usize), Stage),
    ) {
        if life.known_since.is_none() || !life.knowledge(now).consent {
            return;
        }
        let ledger = life.ledger(now);
        let known = before.awards.iter().filter(|_| news.known);
        let known: BTreeSet<_> = known.map(|it| (it.position, it.order)).collect();
        let new: Vec<_> =
            ledger.iter().filter(|(it, ..)| !known.contains(&(it.position, it.order))).collect();
        let mut wishes: Vec<(String, AlertKind, BTreeSet<ThresholdId>)> = Vec::new();
        for (award, _, cut) in &new {
            let late = award.position != news.position && now - award.when > 24 * HOUR;
            let rules = &life.version(award.version).parts.rules;
            let rule = rules.iter().find(|rule| rule.id == award.rule);
            let told = rule.and_then(|rule| rule.tell.clone());
            if let Some(audience) = told.filter(|_| !late && super::life::counted(*cut))
                && wishes.iter().all(|wish| wish.0 != audience)
            {
                let lines = self.lines_told_to(life, &audience, now);
                wishes.push((audience, AlertKind::Action, lines));
            }
        }
        let score = life.score(&ledger, now).at(now);
        for line in life.lines(now) {
            let rose = |it: &Crossing| it.threshold == line.id && it.direction == Direction::Rise;
            let crossed = self.crossings[begins.0..].iter().any(rose);
            if !crossed && self.rose_far(life, line, score, now) {
                let audience = line.tell.clone().unwrap_or_default();
                wishes.push((audience, AlertKind::Escalated, BTreeSet::from([line.id])));
            }
        }
        if is_known_to_sales(life, now) {
            let instead: Vec<_> = wishes.extract_if(.., |wish| wish.0 == "sales").collect();
            let categories = &life.version_at(now).parts.categories;
            let counts = |id| categories.iter().any(|it| it.id == id && it.in_total);
            let dealt = life.dealt_at(now);
            let earned = dealt.is_open()
                && new.iter().any(|(award, granted, _)| {
                    award.position == news.position && *granted > 0 && counts(award.category)
                });
            let visits = life.visits().into_iter().map(|visit| visit.from);
            let visit = visits.filter(|from| *from <= news.when).max();
            let heard = visit.is_some_and(|from| from <= self.signalled);
            if (earned || !instead.is_empty()) && !heard && now >= dealt.muted {
                let lines = instead.into_iter().flat_map(|wish| wish.2).collect();
                wishes.push(("sales".to_owned(), AlertKind::Signal, lines));
            }
        }
        for (audience, kind, lines) in wishes {
            self.grant(life, (audience, kind, lines), now, (begins.1, previous));
        }
    }

    /// Whether a score is far above what was told while in, and that was not told too often.
    fn rose_far(&self, life: &Life, line: &Threshold, score: i64, now: u64) -> bool {
        let (Some(again), Some(known)) = (line.again, self.lines.get(&line.id)) else {
            return false;
        };
        let holds = |then: u64, period: Period| match period {
            Period::Day => {
                let offset = life.version_at(now).parts.offset;
                day(then, offset) == day(now, offset)
            }
            Period::Rolling(length) => now - then < length.as_millis() as u64,
        };
        let often = again.at_most.is_some_and(|(most, period)| {
            known.again.iter().filter(|then| holds(**then, period)).count() >= most as usize
        });
        let told = known.points.filter(|_| known.place.inside && known.told && !known.held);
        line.tell.is_some() && !often && told.is_some_and(|told| score >= told + again.every.0)
    }

    fn lines_told_to(&self, life: &Life, audience: &str, now: u64) -> BTreeSet<ThresholdId> {
        let told = self.lines.iter().filter(|(_, it)| it.place.inside && it.told && !it.held);
        let of = |id: &ThresholdId| {
            line_of(life, *id, now).is_some_and(|line| line.tell.as_deref() == Some(audience))
        };
        told.map(|(id, _)| *id).filter(of).collect()
    }

    fn grant(
        &mut self,
        life: &Life,
        (audience, kind, lines): (String, AlertKind, BTreeSet<ThresholdId>),
        now: u64,
        (begins, previous): (usize, Stage),
    ) {
        let carries = [AlertKind::Hot, AlertKind::Action, AlertKind::Signal];
        let carrier = self.messages[begins..]
            .iter()
            .position(|it| it.audience == audience && carries.contains(&it.kind));
        let Some(place) = carrier else {
            let message = self.message(life, now, kind, audience);
            self.send(life, Message { previous, lines, ..message });
            return;
        };
        let message = &mut self.messages[begins + place];
        if message.kind != kind && !message.also.contains(&kind) {
            message.also.push(kind);
        }
        message.lines.extend(lines);
        let message = message.clone();
        self.note(&message);
        // What they ask for they ask for also when they are out again.
        let asking = kind == AlertKind::Action && message.asks.is_some();
        if let Some(asked) = self.asked.as_mut().filter(|_| asking) {
            asked.line = None;
        }
    }

    fn send(&mut self, life: &Life, mut message: Message) {
        let at = message.at;
        let asking = [AlertKind::Hot, AlertKind::Action].contains(&message.kind);
        if asking && message.audience == "sales" {
            message.asks = asks(&life.version_at(at).parts.sales, at);
        }
        let line = message.lines.first().copied().filter(|_| message.kind == AlertKind::Hot);
        if let Some((remind, report)) = message.asks {
            // Whoever is reminded already is asked anew.
            let open = self.asked.filter(|asked| !asked.reminded);
            let anew = Asked { since: at, remind, report, reminded: false, line };
            self.asked =
                Some(open.map_or(anew, |open| Asked { line: open.line.and(line), ..open }));
        }
        if message.kind == AlertKind::Signal {
            self.signalled = self.signalled.max(at);
        }
        self.note(&message);
        self.messages.push(message);
    }

    /// Takes note, at the lines it is about, of what a message told.
    fn note(&mut self, message: &Message) {
        let again =
            message.kind == AlertKind::Escalated || message.also.contains(&AlertKind::Escalated);
        for id in &message.lines {
            let known = self.lines.entry(*id).or_default();
            known.points = Some(message.score);
            if again && known.again.last() != Some(&message.at) {
                known.again.push(message.at);
            }
        }
    }
}

/// The gate that time alone has opened: sales' rest is over, or else the score is enough.
fn opened_by_time(life: &Life, id: ThresholdId, known: Option<&Known>, at: u64) -> Option<Gate> {
    let line = line_of(life, id, at)?;
    let since = known.map(|known| known.place.since).unwrap_or_default();
    let dealt = life.dealt_at(at);
    let rested = is_for_sales(line) && dealt.lets_in(since, at) && !dealt.lets_in(since, at - 1);
    rested.then_some(Gate::Sales)
}

fn crossing(threshold: ThresholdId, direction: Direction, at: u64, since: u64) -> Crossing {
    Crossing {
        threshold,
        direction,
        at: Timestamp(at),
        since: Timestamp(since),
        number: 0,
        opened_by: None,
        told: false,
        held: false,
        waits_until: None,
    }
}
