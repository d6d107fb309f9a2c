//! What sales answered, and what that does at the lines that tell sales. Answers are facts: no
//! undo takes one back. What follows from them is a function of them and of the rows.

use std::sync::Arc;
use std::time::Duration;

use crate::attribute::Attributes;
use crate::hours::Hours;
use crate::id::{CategoryId, LeadId, Position, RuleId, ThresholdId, VisitorId};
use crate::points::Points;
use crate::stage::{FeedbackKind, Owner, Stage};
use crate::time::Timestamp;

/// Answers kept of one person. A further one is refused by name: none is forgotten, or a repeat
/// would count again.
pub const FEEDBACK_MAX: usize = 512;
/// How long a planned meeting mutes, if nobody says when it is.
pub const MEETING_MUTES: Duration = Duration::from_hours(14 * 24);

/// What of an answer's details says who gives it.
pub const BY: &str = "by";

/// The rule that stands in a row which an answer made.
pub fn rule_of(kind: FeedbackKind) -> RuleId {
    RuleId(FIRST_RULE + kind as u16)
}

/// The answer that made a row, if one did.
pub fn feedback_of(rule: RuleId) -> Option<FeedbackKind> {
    FeedbackKind::ALL.get(usize::from(rule.0.checked_sub(FIRST_RULE)?)).copied()
}

/// Rules of the rule file have smaller numbers.
pub const FIRST_RULE: u16 = 0xff00;
/// The first place, among the rows of an answer, of what a lost deal takes of each category.
/// Before it stands what the answer itself is worth.
pub const HALVES_FROM: u16 = 1;

/// Whether a row is what a lost deal takes.
pub fn takes_half(rule: RuleId, order: u16) -> bool {
    order >= HALVES_FROM && feedback_of(rule) == Some(FeedbackKind::Lost)
}

/// What sales answered, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feedback {
    /// The sender's id of it, hashed: the same one again changes nothing.
    pub id: u64,
    /// When it was recorded: its effects are of then.
    pub time: Timestamp,
    /// The record that holds it.
    pub position: Position,
    /// When it was given, by sales' clock: one older than the last changes nothing.
    pub at: Timestamp,
    /// What.
    pub kind: FeedbackKind,
    /// The name of the person it was given of.
    pub origin: LeadId,
    /// Where it left the person.
    pub stage: Stage,
    /// Until when they rest, or wait, or nothing is told, by the kind.
    pub until: Option<Timestamp>,
    /// By how much the bar is raised, and until when.
    pub raise: Option<(Points, Timestamp)>,
    /// When somebody is reminded and the matter is reported, if that moved.
    pub asks: Option<(Timestamp, Timestamp)>,
    /// What a claim alone had tied to the person until then: whoever spoke to them vouches for
    /// it, for as long as the answer is about them.
    pub vouches: Vec<Vouched>,
    /// Who says so, why, and about which deal; plain.
    pub details: Arc<Attributes>,
    /// The same under the data key of the person it was given of: what the journal holds.
    pub sealed: Arc<Vec<u8>>,
}

impl Default for Feedback {
    fn default() -> Feedback {
        Feedback {
            id: 0,
            time: Timestamp(0),
            position: Position::NONE,
            at: Timestamp(0),
            kind: FeedbackKind::Accepted,
            origin: LeadId(0),
            stage: Stage::Known,
            until: None,
            raise: None,
            asks: None,
            vouches: Vec::new(),
            details: Arc::default(),
            sealed: Arc::default(),
        }
    }
}

/// What a browser did in one stretch, under a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vouched {
    /// The browser.
    pub visitor: VisitorId,
    /// The name.
    pub origin: LeadId,
    /// The stretch.
    pub stretch: Position,
}

/// Why an answer changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unheard {
    /// It was heard already.
    Repeated,
    /// A later one was heard before it.
    Older,
    /// It cannot be given where the person stands.
    NotHere(Stage),
    /// As many were heard of the person as may be.
    TooMany,
}

impl Unheard {
    /// The name in answers.
    pub fn name(self) -> &'static str {
        match self {
            Unheard::Repeated => "repeated",
            Unheard::Older => "older",
            Unheard::NotHere(_) => "not_here",
            Unheard::TooMany => "too_many",
        }
    }
}

/// What sales was told of and has not answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The lead that was told of: the head of then.
    pub lead: LeadId,
    /// When.
    pub since: Timestamp,
    /// When somebody is reminded.
    pub remind_at: Timestamp,
    /// When it is reported that nobody took them.
    pub report_at: Timestamp,
    /// Whether somebody was reminded.
    pub reminded: bool,
    /// The line that they must stay in at: it was told that they are hot, and of nothing that
    /// they asked for.
    pub line: Option<ThresholdId>,
}

/// Puts an answer in its place: by when it was recorded.
pub fn hear(all: &mut Vec<Feedback>, feedback: Feedback) {
    let key = |it: &Feedback| (it.time, it.position, it.id);
    let place = all.partition_point(|other| key(other) < key(&feedback));
    if all.get(place).is_none_or(|other| key(other) != key(&feedback)) {
        all.insert(place, feedback);
    }
}

/// Any answer is one to what sales was asked; a later moves when it is asked again.
pub fn note_answer(asked: &mut Option<Asked>, feedback: &Feedback) {
    if feedback.kind != FeedbackKind::Snooze {
        *asked = None;
        return;
    }
    if let (Some(asked), Some((remind_at, report_at))) = (asked, feedback.asks) {
        (asked.remind_at, asked.report_at, asked.reminded) = (remind_at, report_at, false);
    }
}

/// What the answers so far come to at the lines that tell sales.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dealings {
    /// Where the last answer that moved the person left them; nothing before the first.
    pub stage: Option<Stage>,
    /// When sales last gave them back.
    pub given_back: Option<Timestamp>,
    /// Until then they rest.
    pub rest_until: Timestamp,
    /// By so much the bar is raised,
    pub raise: Points,
    /// until then.
    pub raise_until: Timestamp,
    /// Whether they have earned anything since they were given back.
    pub evidence: bool,
    /// Until then nothing is told about somebody whom sales works with.
    pub muted_until: Timestamp,
}

impl Dealings {
    /// Takes the next answer.
    pub fn hear(&mut self, feedback: &Feedback) {
        let until = feedback.until.unwrap_or_default();
        match feedback.kind {
            FeedbackKind::Snooze => return,
            kind if kind.gives_back() => {
                let (raise, raise_until) = feedback.raise.unwrap_or_default();
                *self = Dealings {
                    given_back: Some(feedback.time),
                    rest_until: until,
                    raise,
                    raise_until,
                    ..Dealings::default()
                };
            }
            FeedbackKind::MeetingPlanned => {
                *self = Dealings { muted_until: until, ..Dealings::default() };
            }
            _ => *self = Dealings::default(),
        }
        self.stage = Some(feedback.stage);
    }

    /// Takes a row that was granted points in the total, in its place among the answers.
    pub fn earn(&mut self, rule: RuleId, granted: Points) {
        self.evidence |=
            self.given_back.is_some() && granted > Points(0) && feedback_of(rule).is_none();
    }

    /// Whether sales is working the lead.
    pub fn are_at_work(&self) -> bool {
        self.stage.is_some_and(|stage| stage.owner() == Owner::Sales)
    }

    /// Whether what holds for somebody given back holds at a line at which they were last in or
    /// out at `since`: not after they were in again.
    fn bind(&self, since: Timestamp) -> bool {
        self.given_back.is_some_and(|at| since <= at)
    }

    /// Whether a line lets the lead in.
    pub fn let_in(&self, since: Timestamp, now: Timestamp) -> bool {
        !self.are_at_work() && (!self.bind(since) || (self.evidence && now >= self.rest_until))
    }

    /// When the rest is over.
    pub fn rested(&self, since: Timestamp) -> Timestamp {
        if self.bind(since) { self.rest_until } else { Timestamp(0) }
    }

    /// By how much the bar is raised at a line, and until when.
    pub fn raised(&self, since: Timestamp) -> (Points, Timestamp) {
        if self.bind(since) { (self.raise, self.raise_until) } else { Default::default() }
    }

    /// Where the answers put a lead, if they say: sales' own stages, and those shown until the
    /// lead is hot again. `hot`: whether it is in there, and since when it is where it is.
    pub fn shown(&self, (is_hot, since): (bool, Timestamp)) -> Option<Stage> {
        self.stage.filter(|_| self.are_at_work() || (!is_hot && self.bind(since)))
    }
}

/// What sales' answers do, by the rule file. What they did is recorded with each: nothing of
/// this is needed to read the past.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SalesRules {
    /// How long sales has to take a lead, in working time.
    pub accept_within: Option<Duration>,
    /// When people work; always, if it is not said.
    pub hours: Option<Hours>,
    /// Points that an answer is worth.
    pub points: Vec<(FeedbackKind, Points)>,
    /// Where they go.
    pub category: Option<CategoryId>,
    /// By how much a rejection raises the bar, and how long.
    pub rejected: Option<(Points, Duration)>,
    /// Whether a lost deal takes half of the score, and how long the lead rests then.
    pub lost: Option<Duration>,
}

impl SalesRules {
    /// The moment at which so much working time has passed.
    pub fn after(&self, since: Timestamp, work: Duration) -> Timestamp {
        self.hours.as_ref().map_or(since.plus(work), |hours| hours.after(since, work))
    }

    /// How much working time has passed.
    pub fn between(&self, from: Timestamp, until: Timestamp) -> Duration {
        let hours = self.hours.as_ref();
        hours.map_or(until.since(from), |hours| hours.between(from, until))
    }

    /// What an answer does, worked out for good: until when, how high the bar is, when the next
    /// reminder is due. `asked`: what it answers.
    pub fn effect(&self, feedback: Feedback, asked: Option<Asked>, now: Timestamp) -> Feedback {
        let said = feedback.until.filter(|until| *until > now);
        let at_least = |rest: Option<Duration>| said.max(rest.map(|rest| now.plus(rest)));
        match feedback.kind {
            FeedbackKind::Rejected => {
                let raise = self.rejected.map(|(raise, time)| (raise, now.plus(time)));
                Feedback { until: said, raise, ..feedback }
            }
            FeedbackKind::Lost => Feedback { until: at_least(self.lost), ..feedback },
            FeedbackKind::Recycle => Feedback { until: said, ..feedback },
            FeedbackKind::MeetingPlanned => {
                Feedback { until: Some(said.unwrap_or(now.plus(MEETING_MUTES))), ..feedback }
            }
            FeedbackKind::Snooze => {
                let hours = self.hours.as_ref();
                let tomorrow = || {
                    let day = Duration::from_hours(24);
                    hours.map_or(now.plus(day), |hours| hours.next_day(now))
                };
                let until = said.unwrap_or_else(tomorrow);
                let asks = asked.and_then(|asked| self.asks_later(asked.since, now, until));
                Feedback { until: Some(until), asks, ..feedback }
            }
            FeedbackKind::Accepted
            | FeedbackKind::Contacted
            | FeedbackKind::MeetingDone
            | FeedbackKind::NoShow
            | FeedbackKind::Opportunity
            | FeedbackKind::Won => Feedback { until: None, ..feedback },
        }
    }

    /// When somebody is reminded of a lead that sales was told of, and when it is reported.
    pub fn asks(&self, told: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let within = self.accept_within?;
        Some((self.after(told, within), self.after(told, within.saturating_mul(2))))
    }

    /// The same of somebody who waits from `now` until `until`: what had passed stays passed.
    pub fn asks_later(
        &self,
        told: Timestamp,
        now: Timestamp,
        until: Timestamp,
    ) -> Option<(Timestamp, Timestamp)> {
        let within = self.accept_within?;
        let passed = self.between(told, now);
        let left = |of: Duration| self.after(until, of.saturating_sub(passed));
        Some((left(within), left(within.saturating_mul(2))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400_000;

    fn given(kind: FeedbackKind, day: u64) -> Feedback {
        let stage = Stage::Hot.after(kind).unwrap();
        Feedback { kind, stage, time: Timestamp(day * DAY), ..Feedback::default() }
    }

    #[test]
    fn a_rest_and_new_evidence_are_asked_of_whom_sales_gave_back() {
        let until = Some(Timestamp(40 * DAY));
        let mut dealings = Dealings::default();
        dealings.hear(&Feedback { until, ..given(FeedbackKind::Lost, 10) });
        let (out, after) = (Timestamp(10 * DAY), Timestamp(41 * DAY));
        assert!(!dealings.let_in(out, after), "nothing new");
        dealings.earn(rule_of(FeedbackKind::MeetingDone), Points(1));
        assert!(!dealings.let_in(out, after), "what sales did is nothing of theirs");
        dealings.earn(RuleId(1), Points(1));
        assert!(!dealings.let_in(out, Timestamp(39 * DAY)), "resting");
        assert!(dealings.let_in(out, after));
        assert!(dealings.let_in(Timestamp(45 * DAY), Timestamp(46 * DAY)), "in again meanwhile");
    }

    #[test]
    fn a_stage_of_sales_is_shown_and_one_given_back_until_it_is_hot_again() {
        let mut dealings = Dealings::default();
        dealings.hear(&given(FeedbackKind::Accepted, 10));
        assert_eq!(dealings.shown((true, Timestamp(5 * DAY))), Some(Stage::Accepted));
        dealings.hear(&given(FeedbackKind::Rejected, 11));
        assert_eq!(dealings.shown((false, Timestamp(11 * DAY))), Some(Stage::Rejected));
        assert_eq!(dealings.shown((true, Timestamp(12 * DAY))), None);
        assert_eq!(dealings.shown((false, Timestamp(13 * DAY))), None, "it was hot meanwhile");
        dealings.hear(&given(FeedbackKind::Snooze, 14));
        assert_eq!(dealings.shown((false, Timestamp(11 * DAY))), Some(Stage::Rejected));
    }

    #[test]
    fn who_waits_has_as_long_afterwards_as_was_left() {
        let hour = Duration::from_hours(1);
        let rules = SalesRules { accept_within: Some(4 * hour), ..SalesRules::default() };
        let told = Timestamp(0);
        let until = told.plus(24 * hour);
        let asks = rules.asks_later(told, told.plus(hour), until).unwrap();
        assert_eq!(asks, (until.plus(3 * hour), until.plus(7 * hour)));
        let late = rules.asks_later(told, told.plus(6 * hour), until).unwrap();
        assert_eq!(late, (until, until.plus(2 * hour)));
    }

    #[test]
    fn rows_of_answers_have_rules_of_their_own() {
        for kind in FeedbackKind::ALL {
            assert_eq!(feedback_of(rule_of(kind)), Some(kind));
        }
        assert_eq!(feedback_of(RuleId(7)), None);
        assert_eq!(feedback_of(RuleId(u16::MAX)), None, "the rest of a list");
    }
}
