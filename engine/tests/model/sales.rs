//! What sales answered and what follows from it, by the definitions alone: the table of stages
//! written out, working time counted by the hour, and every answer read again from the first.

use std::time::Duration;

use engine::hours::Hours;
use engine::id::{CategoryId, LeadId, Position, RuleId};
use engine::sales::{Feedback, SalesRules};
use engine::stage::{FeedbackKind, Stage};
use engine::time::Timestamp;

use super::chance::Chance;
use super::life::HOUR;
use super::rules::Parts;

const DAY: u64 = 24 * HOUR;
/// The first number of the rules that stand in rows of answers.
const FIRST_RULE: u16 = 0xff00;

/// An answer as it was recorded: all of it is fact, and no undo takes it back.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub id: u64,
    pub time: u64,
    pub position: Position,
    pub at: u64,
    pub kind: FeedbackKind,
    pub origin: LeadId,
    pub stage: Stage,
    pub until: Option<u64>,
    pub raise: Option<(i64, u64)>,
    pub asks: Option<(u64, u64)>,
    /// Hits that were the person's then, each under a name: whoever speaks to the person vouches
    /// that they are.
    pub vouches: Vec<(Position, LeadId)>,
}

impl Answer {
    /// The facts that a record holds, but for whose hits there were.
    pub fn of(feedback: &Feedback, time: Timestamp, position: Position) -> Answer {
        Answer {
            id: feedback.id,
            time: time.0,
            position,
            at: feedback.at.0,
            kind: feedback.kind,
            origin: feedback.origin,
            stage: feedback.stage,
            until: feedback.until.map(|until| until.0),
            raise: feedback.raise.map(|(raise, until)| (raise.0, until.0)),
            asks: feedback.asks.map(|(one, two)| (one.0, two.0)),
            vouches: Vec::new(),
        }
    }

    pub fn key(&self) -> (u64, Position, u64) {
        (self.time, self.position, self.id)
    }
}

/// Any answer of sales about somebody, at random: sometimes one that was given already, sometimes
/// one that comes late, sometimes with a moment in it.
pub fn random_answer(chance: &mut Chance, origin: LeadId, now: Timestamp) -> Feedback {
    let late = if chance.percent(10) { chance.below(3 * DAY) } else { 0 };
    let ahead = chance.below(40 * DAY);
    Feedback {
        id: if chance.percent(5) { chance.below(4) } else { chance.next() },
        at: now.minus(Duration::from_millis(late)),
        kind: *chance.pick(&FeedbackKind::ALL),
        origin,
        until: chance.percent(40).then(|| now.plus(Duration::from_millis(ahead))),
        ..Feedback::default()
    }
}

/// The answer that made a row, if one did.
pub fn kind_of(rule: RuleId) -> Option<FeedbackKind> {
    let number = usize::from(rule.0).checked_sub(usize::from(FIRST_RULE))?;
    FeedbackKind::ALL.get(number).copied()
}

pub fn proves(kind: FeedbackKind) -> bool {
    let names = ["accepted", "contacted", "meeting_done", "opportunity", "won"];
    names.contains(&kind.name())
}

pub fn gives_back(kind: FeedbackKind) -> bool {
    ["rejected", "lost", "recycle"].contains(&kind.name())
}

/// Whether sales decides where somebody stands.
pub fn is_of_sales(stage: Stage) -> bool {
    ["accepted", "working", "won"].contains(&stage.name())
}

/// Where an answer leaves somebody.
pub fn after(stage: Stage, kind: FeedbackKind) -> Option<Stage> {
    let here = stage.name();
    let to = match kind.name() {
        _ if here == "anonymous" => return None,
        "rejected" if here == "won" => return None,
        "snooze" => here,
        "rejected" => "rejected",
        "lost" | "recycle" => "recycled",
        "won" => "won",
        "opportunity" => "working",
        _ if here == "working" || here == "won" => here,
        _ => "accepted",
    };
    Stage::parse(to)
}

/// The rows an answer makes under some rules, in their order: the rule, the place in the record,
/// the category and what it is worth. What a lost deal takes follows from the other rows.
pub fn rows_of(kind: FeedbackKind, parts: &Parts) -> Vec<(RuleId, u16, CategoryId, i64)> {
    let rule =
        RuleId(FIRST_RULE + FeedbackKind::ALL.iter().position(|it| *it == kind).unwrap() as u16);
    let mut rows = Vec::new();
    let worth = parts.sales.points.iter().find(|(answer, _)| *answer == kind);
    if let (Some((_, points)), Some(category)) = (worth, parts.sales.category) {
        rows.push((rule, 0, category, points.0));
    }
    if kind == FeedbackKind::Lost && parts.sales.lost.is_some() {
        let counted = parts.categories.iter().filter(|category| category.in_total);
        rows.extend(counted.zip(1..).map(|(category, order)| (rule, order, category.id, 0)));
    }
    rows
}

/// Whether a row of an answer is what a lost deal takes.
pub fn takes_half(rule: RuleId, order: u16) -> bool {
    kind_of(rule) == Some(FeedbackKind::Lost) && order > 0
}

/// What an answer does, worked out when it is given.
#[derive(Clone, Copy, Debug, Default)]
pub struct Effect {
    pub until: Option<u64>,
    /// How high the bar is, and until when.
    pub raise: Option<(i64, u64)>,
    /// When somebody is reminded, and the matter reported.
    pub asks: Option<(u64, u64)>,
}

/// What an answer does. `asked`: since when sales is asked.
pub fn effect(
    rules: &SalesRules,
    (kind, until): (FeedbackKind, Option<u64>),
    asked: Option<u64>,
    now: u64,
) -> Effect {
    let nothing = Effect::default();
    let until = until.filter(|until| *until > now);
    let later = |time: Duration| now + time.as_millis() as u64;
    match kind.name() {
        "rejected" => {
            let raise = rules.rejected.map(|(raise, time)| (raise.0, later(time)));
            Effect { until, raise, ..nothing }
        }
        "lost" => Effect { until: until.max(rules.lost.map(later)), ..nothing },
        "recycle" => Effect { until, ..nothing },
        "meeting_planned" => Effect { until: until.or(Some(now + 14 * DAY)), ..nothing },
        "snooze" => {
            let until = until.unwrap_or_else(|| next_morning(rules, now));
            let asks = rules.accept_within.zip(asked).map(|(within, since)| {
                let passed = work_between(rules, since, now);
                let left = |times: u64| (times * within.as_millis() as u64).saturating_sub(passed);
                (after_work(rules, until, left(1)), after_work(rules, until, left(2)))
            });
            Effect { until: Some(until), asks, ..nothing }
        }
        _ => nothing,
    }
}

/// When sales is reminded of somebody it is told of, and when it is reported.
pub fn asks(rules: &SalesRules, told: u64) -> Option<(u64, u64)> {
    let within = rules.accept_within?.as_millis() as u64;
    Some((after_work(rules, told, within), after_work(rules, told, 2 * within)))
}

/// Where an hour begins that a moment is in, and whether people work in it. Work begins and ends
/// at full hours here.
fn hour_of(hours: &Hours, at: u64) -> (u64, bool) {
    let offset = hours.offset.0;
    let local = (at as i64 + offset).div_euclid(HOUR as i64) * HOUR as i64;
    let (day, hour) = (local.div_euclid(DAY as i64), local.rem_euclid(DAY as i64) as u64);
    // The fifth of January 1970 was a Monday.
    let weekday = (day - 4).rem_euclid(7) as usize;
    let within = hour >= hours.from.as_millis() as u64 && hour < hours.to.as_millis() as u64;
    let works = hours.days[weekday] && !hours.holidays.contains(&day) && within;
    ((local - offset) as u64, works)
}

/// The moment at which so much working time has passed.
fn after_work(rules: &SalesRules, since: u64, work: u64) -> u64 {
    let Some(hours) = &rules.hours else {
        return since + work;
    };
    let (mut at, mut left) = (since, work);
    loop {
        let (begin, works) = hour_of(hours, at);
        let end = begin + HOUR;
        if works && left <= end - at {
            return at + left;
        }
        left -= if works { end - at } else { 0 };
        at = end;
    }
}

/// How much working time lies between two moments.
pub fn work_between(rules: &SalesRules, from: u64, until: u64) -> u64 {
    let Some(hours) = &rules.hours else {
        return until - from;
    };
    let (mut at, mut passed) = (from, 0);
    while at < until {
        let (begin, works) = hour_of(hours, at);
        let end = until.min(begin + HOUR);
        passed += if works { end - at } else { 0 };
        at = end;
    }
    passed
}

/// When work begins on the next day on which anybody works.
fn next_morning(rules: &SalesRules, now: u64) -> u64 {
    let Some(hours) = &rules.hours else {
        return now + DAY;
    };
    let today = (now as i64 + hours.offset.0).div_euclid(DAY as i64);
    let mut at = hour_of(hours, now).0;
    loop {
        at += HOUR;
        let day = (at as i64 + hours.offset.0).div_euclid(DAY as i64);
        if day > today && hour_of(hours, at).1 {
            return at;
        }
    }
}

/// What the answers come to at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dealt {
    /// Where the last one left the person; later ones of "later" change nothing.
    pub stage: Option<Stage>,
    /// When sales gave them back, if that was its last word.
    pub back: Option<u64>,
    pub rest: u64,
    pub raise: i64,
    pub raise_until: u64,
    /// Whether they earned anything since they were given back.
    pub evidence: bool,
    pub muted: u64,
}

impl Dealt {
    /// After the last of some answers.
    pub fn after(last: Option<&Answer>) -> Dealt {
        let Some(last) = last else {
            return Dealt::default();
        };
        let until = last.until.unwrap_or(0);
        let dealt = Dealt { stage: Some(last.stage), ..Dealt::default() };
        if last.kind == FeedbackKind::MeetingPlanned {
            return Dealt { muted: until, ..dealt };
        }
        if !gives_back(last.kind) {
            return dealt;
        }
        let (raise, raise_until) = last.raise.unwrap_or_default();
        Dealt { back: Some(last.time), rest: until, raise, raise_until, ..dealt }
    }

    pub fn is_open(&self) -> bool {
        self.stage.is_some_and(is_of_sales)
    }

    /// Whether being given back still holds at a line: they were not in there since.
    pub fn holds(&self, since: u64) -> bool {
        self.back.is_some_and(|back| back >= since)
    }

    /// By how much a line is raised at a moment.
    pub fn raised(&self, since: u64, now: u64) -> i64 {
        if self.holds(since) && now < self.raise_until { self.raise } else { 0 }
    }

    /// Whether sales lets anybody in.
    pub fn lets_in(&self, since: u64, now: u64) -> bool {
        !self.is_open() && (!self.holds(since) || (self.evidence && self.rest <= now))
    }

    /// Moments at which time alone changes what holds.
    pub fn turns(&self) -> [u64; 2] {
        [self.rest, self.raise_until]
    }
}
