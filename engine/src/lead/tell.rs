//! Who is told what: crossings, rules that tell at once, rising far above what was told, and
//! messages that turn out to have been wrong. One message a hit, lead and audience.

use std::time::Duration;

use crate::alert::AlertKind;
use crate::explain::{explain, reasons, urgency};
use crate::facts::Profile;
use crate::id::{LeadId, Position, ThresholdId};
use crate::ledger::Row;
use crate::points::Points;
use crate::record::{Because, Message, Sent, Subject, Told};
use crate::sales::Asked;
use crate::stage::{SALES, Stage};
use crate::threshold::{Band, Crossing, Direction};
use crate::time::Timestamp;

use super::draft::{Cause, Draft};
use super::walk::Walked;

/// What came along with a history tells somebody at once if it is not older than this.
const TOLD_LATE_MAX: Duration = Duration::from_hours(24);

/// Somebody is to be told that rules counted which tell at once, or that a lead rose far.
struct Wish {
    audience: String,
    kind: AlertKind,
    row: Option<Row>,
    lines: Vec<ThresholdId>,
    last_told: Option<Points>,
}

impl Draft<'_> {
    /// Tells what happened at one moment: crossings, then whatever else is to be told.
    pub(super) fn tell(
        &mut self,
        crossings: &[Crossing],
        at: Timestamp,
        stage: Stage,
        cause: Cause<'_>,
    ) {
        let because = self.because(cause, |_| true);
        for crossing in crossings {
            self.tell_crossing(*crossing, because.as_ref(), stage);
        }
        for wish in self.wishes(at, cause) {
            self.grant(wish, at, stage);
        }
    }

    /// The row of this hit that gave most, of those that are asked for.
    fn because(&self, cause: Cause<'_>, which: impl Fn(&Row) -> bool) -> Option<Row> {
        let hit = matches!(cause, Cause::Hit(_));
        let new = self.part.rows.iter().filter(|row| hit && row.position == Position::NONE);
        new.filter(|row| row.granted.0 > 0 && which(row)).max_by_key(|row| row.granted).copied()
    }

    pub(super) fn tell_crossing(
        &mut self,
        crossing: Crossing,
        because: Option<&Row>,
        stage: Stage,
    ) {
        if !crossing.told {
            return;
        }
        let Some(line) = self.terms.threshold(crossing.threshold) else {
            return;
        };
        let audience = line.tell.clone();
        let signals = audience.as_deref().is_some_and(|audience| self.hears_signals(audience));
        let (kind, lines) = match crossing.direction {
            Direction::Rise | Direction::Release if signals => (AlertKind::Signal, vec![line.id]),
            Direction::Fall | Direction::Settle => (AlertKind::Cooled, Vec::new()),
            Direction::Rise | Direction::Release => (AlertKind::Hot, vec![line.id]),
        };
        let place = self.part.crossings.iter().rposition(|other| *other == crossing);
        let because = because.filter(|_| crossing.direction == Direction::Rise);
        let raised = place.and_then(|place| self.raised.get(place)).copied().unwrap_or_default();
        let figures = self.figures(crossing.at, because);
        let told = Told { previous_stage: stage, raised, ..figures };
        self.send(Message {
            kind,
            audience,
            crossing: place.map(|place| place as u16),
            lines,
            ..message(told)
        });
    }

    /// Of whom sales knows as its own it need not hear that they are out.
    pub(super) fn unless_known_to_sales(&self, crossing: Crossing) -> Crossing {
        let out = crossing.direction == Direction::Fall;
        let line = self.terms.threshold(crossing.threshold).filter(|_| out && crossing.told);
        let told = line.and_then(|line| line.tell.as_deref());
        let silent = told.is_some_and(|audience| self.hears_signals(audience));
        Crossing { told: crossing.told && !silent, ..crossing }
    }

    /// Rules that tell at once, and rising far above what was told.
    fn wishes(&mut self, at: Timestamp, cause: Cause<'_>) -> Vec<Wish> {
        let (silent, human) = match cause {
            Cause::Hit(record) => (record.hit.silent, record.hit.is_human()),
            Cause::News => (false, true),
            Cause::Undo | Cause::Rules | Cause::Answer => (true, false),
        };
        let known = !self.content.members.is_empty() && self.profile().consent;
        if silent || !human || !known {
            return Vec::new();
        }
        let mut wishes = self.actions(at);
        for wish in &mut wishes {
            wish.lines = self.lines_told_to(&wish.audience);
        }
        self.escalate(&mut wishes, at);
        self.signal_instead(&mut wishes, at, cause);
        wishes
    }

    /// Whether an audience hears of this person only as of one it knows already: sales, of whom
    /// it works with, and of a customer.
    fn hears_signals(&self, audience: &str) -> bool {
        audience == SALES && (self.dealings().are_at_work() || is_customer(self.profile()))
    }

    /// Sales hears of whom it works with once a visit: that they did anything that counts. Of a
    /// customer it hears so what it would have heard of anybody else.
    fn signal_instead(&self, wishes: &mut Vec<Wish>, at: Timestamp, cause: Cause<'_>) {
        if !self.hears_signals(SALES) {
            return;
        }
        let (instead, rest): (Vec<Wish>, Vec<Wish>) =
            std::mem::take(wishes).into_iter().partition(|wish| wish.audience == SALES);
        *wishes = rest;
        let dealings = self.dealings();
        let counts = |row: &Row| dealings.are_at_work() && self.terms.is_in_total(row.category);
        let earned = self.because(cause, counts);
        let when = match cause {
            Cause::Hit(record) => record.hit.when,
            _ => at,
        };
        let visit = self.visits.iter().rev().find(|visit| visit.from <= when);
        let heard = visit.is_some_and(|visit| visit.from <= self.signalled);
        let nothing = instead.is_empty() && earned.is_none();
        if nothing || heard || at < dealings.muted_until {
            return;
        }
        wishes.push(Wish {
            audience: SALES.to_owned(),
            kind: AlertKind::Signal,
            row: instead.iter().find_map(|wish| wish.row).or(earned),
            lines: instead.into_iter().flat_map(|wish| wish.lines).collect(),
            last_told: None,
        });
    }

    /// Reminds sales of whom nobody took in time, as far as that was due until a moment.
    pub(super) fn remind(&mut self, from: Timestamp, until: Timestamp) {
        let due = self.asked.filter(|asked| !asked.reminded && asked.remind_at <= until);
        let Some(asked) = due else {
            return;
        };
        let at = asked.remind_at.max(from);
        let waited = self.scoring.sales.between(asked.since, at);
        let told = Told { waited, previous_stage: self.stage(), ..self.figures(at, None) };
        let audience = Some(SALES.to_owned());
        self.send(Message { kind: AlertKind::Reminder, audience, ..message(told) });
    }

    /// One wish an audience: the row that gives most is the reason.
    fn actions(&self, at: Timestamp) -> Vec<Wish> {
        let mut wishes: Vec<Wish> = Vec::new();
        for row in self.part.rows.iter().filter(|row| row.cut.counted() && !row.folded) {
            let terms = self.scoring.versions.numbered(row.version);
            let tell = terms.and_then(|terms| terms.rule(row.rule)?.tell.clone());
            let late = row.position != Position::NONE && at.since(row.when) > TOLD_LATE_MAX;
            let Some(audience) = tell.filter(|_| !late) else {
                continue;
            };
            match wishes.iter_mut().find(|wish| wish.audience == audience) {
                Some(wish) if wish.row.is_some_and(|known| known.base >= row.base) => {}
                Some(wish) => wish.row = Some(*row),
                None => wishes.push(Wish {
                    audience,
                    kind: AlertKind::Action,
                    row: Some(*row),
                    lines: Vec::new(),
                    last_told: None,
                }),
            }
        }
        wishes
    }

    /// Lines at which a lead is in and an audience was told so.
    fn lines_told_to(&self, audience: &str) -> Vec<ThresholdId> {
        let told = self.bands.iter().filter(|band| band.side.inside && band.told && !band.held);
        let of = |id: &ThresholdId| {
            let line = self.terms.threshold(*id);
            line.is_some_and(|line| line.tell.as_deref() == Some(audience))
        };
        told.map(Band::threshold).filter(of).collect()
    }

    /// Adds who must hear that the score is far above what they were told.
    fn escalate(&mut self, wishes: &mut Vec<Wish>, at: Timestamp) {
        let score = self.total().value(at);
        for band in &self.bands {
            let Some(line) = self.terms.threshold(band.threshold()) else {
                continue;
            };
            let (Some(again), Some(audience)) = (line.again, &line.tell) else {
                continue;
            };
            let crossed = self.part.crossings[self.by_time..]
                .iter()
                .any(|it| it.threshold == line.id && it.direction == Direction::Rise);
            let in_period = again.at_most.is_some_and(|(most, period)| {
                let holds = |then: &&Timestamp| period.holds(**then, at, self.terms.offset);
                band.escalated.iter().filter(holds).count() >= most as usize
            });
            let last = band.last_points.filter(|_| band.side.inside && band.told && !band.held);
            let far = last.is_some_and(|last| score.0 >= last.0.saturating_add(again.every.0));
            if !far || crossed || in_period {
                continue;
            }
            let wish = Wish {
                audience: audience.clone(),
                kind: AlertKind::Escalated,
                row: None,
                lines: vec![line.id],
                last_told: last,
            };
            wishes.push(wish);
        }
    }

    /// Sends what is wished for, within a message that goes to the same audience anyway if there
    /// is one.
    fn grant(&mut self, wish: Wish, at: Timestamp, stage: Stage) {
        let audience = Some(wish.audience);
        let carrier = self.part.messages.iter_mut().find(|message| {
            message.audience == audience
                && message.told.at == at
                && matches!(message.kind, AlertKind::Hot | AlertKind::Action | AlertKind::Signal)
                && message.crossing.is_none_or(|place| usize::from(place) >= self.by_time)
        });
        if let Some(message) = carrier {
            if !message.also.contains(&wish.kind) && message.kind != wish.kind {
                message.also.push(wish.kind);
            }
            let new = wish.lines.iter().filter(|id| !message.lines.contains(id));
            let new: Vec<ThresholdId> = new.copied().collect();
            message.lines.extend(new);
            message.told.last_told = message.told.last_told.or(wish.last_told);
            return;
        }
        let because =
            wish.row.or_else(|| self.part.rows.iter().max_by_key(|it| it.granted).copied());
        let figures = self.figures(at, because.as_ref());
        let told = Told { previous_stage: stage, last_told: wish.last_told, ..figures };
        self.send(Message { kind: wish.kind, audience, lines: wish.lines, ..message(told) });
    }

    /// The messages that what is known now would not have sent; the lines they told of are as
    /// if untold, so that nobody hears that who was never hot has cooled.
    pub(super) fn take_back_what_was_wrong(
        &mut self,
        walked: &Walked,
        at: Timestamp,
        cause: Cause<'_>,
    ) -> Vec<Sent> {
        if !matches!(cause, Cause::Undo | Cause::Rules) {
            return Vec::new();
        }
        let wrong = |sent: &&Sent| match sent.about {
            Subject::Line(line) => {
                let of = |stay: &&(ThresholdId, Timestamp, Timestamp)| stay.0 == line;
                let mut stays = walked.stays.iter().filter(of);
                !stays.any(|(_, from, until)| (*from <= sent.at && sent.at < *until) || *until > at)
            }
            Subject::Row(position, order) => !self
                .content
                .rows
                .iter()
                .any(|row| (row.position, row.order) == (position, order) && row.cut.counted()),
        };
        let wrong: Vec<Sent> = self.sent.iter().filter(wrong).cloned().collect();
        for sent in &wrong {
            if let Subject::Line(line) = sent.about {
                let band = self.band(line);
                let latest = band.last_told.is_none_or(|told| told == sent.at);
                if latest {
                    band.take_back();
                    band.told = false;
                }
            }
        }
        wrong
    }

    /// Takes messages back, with the figures and the stage that are right instead.
    pub(super) fn retract(&mut self, wrong: Vec<Sent>, at: Timestamp, stage: Stage) {
        for sent in wrong {
            let told = Told { previous_stage: stage, ..self.figures(at, None) };
            let audience = sent.audience.clone();
            let takes_back = Some(sent);
            self.send(Message {
                kind: AlertKind::Retracted,
                audience,
                takes_back,
                ..message(told)
            });
        }
    }

    /// Tells everybody that two leads are one, are two again, or are nobody any more.
    pub(super) fn tell_of_names(&mut self, kind: AlertKind, other: Option<LeadId>, at: Timestamp) {
        let stage = self.stage();
        let told = Told { previous_stage: stage, ..self.figures(at, None) };
        self.send(Message { kind, other, ..message(told) });
    }

    fn send(&mut self, mut message: Message) {
        self.sequence = self.sequence.saturating_add(1);
        message.place = self.part.messages.len() as u16;
        message.told.sequence = self.sequence;
        let asks = matches!(message.kind, AlertKind::Hot | AlertKind::Action)
            && message.audience.as_deref() == Some(SALES);
        message.told.asks = asks.then(|| self.scoring.sales.asks(message.told.at)).flatten();
        super::note_told(&mut self.bands, &message);
        note_asked(&mut self.asked, self.part.lead, &message);
        if message.kind == AlertKind::Signal {
            self.signalled = self.signalled.max(message.told.at);
        }
        self.part.messages.push(message);
    }

    /// The figures of a message at a moment.
    fn figures(&self, at: Timestamp, because: Option<&Row>) -> Told {
        let (rows, terms) = (&self.content.rows, &self.terms);
        let explained = explain(rows, terms, at);
        let in_total = |row: &Row| terms.is_in_total(row.category);
        let counted = explained.shares.iter().filter(|(row, _)| in_total(row));
        let unconfirmed = counted
            .clone()
            .filter(|(row, _)| self.content.is_claimed(row.source, row.origin))
            .map(|(_, share)| share.0)
            .sum();
        let held = rows.iter().filter(|row| row.cut.counted() && row.base.0 > 0 && in_total(row));
        let categories = explained.categories.iter().filter(|(id, _)| terms.is_in_total(*id));
        Told {
            at,
            score: explained.score,
            before_24h: self.before_24h(at),
            urgency: urgency(rows, terms, at),
            unconfirmed: Points(unconfirmed),
            held_back: Points(held.map(|row| row.base.0 - row.granted.0).sum()),
            grade: self.grade,
            stage: self.stage(),
            assurance: self.profile().assurance,
            categories: categories.copied().collect(),
            reasons: reasons(counted),
            because: because.map(|row| Because {
                rule: row.rule,
                points: row.granted,
                at: row.when,
            }),
            ..Told::default()
        }
    }
}

/// Whether they bought, or sales has a deal with them that it did not tell us of as an answer.
fn is_customer(profile: &Profile) -> bool {
    let said = |name: &str| profile.attributes.get(name).map(String::as_str).unwrap_or_default();
    said("customer") == "yes" || !said("open_deal").is_empty()
}

/// Takes note of what a message asks of sales, or takes back.
pub(super) fn note_asked(asked: &mut Option<Asked>, lead: LeadId, message: &Message) {
    let at = message.told.at;
    match message.kind {
        AlertKind::Hot | AlertKind::Action => {
            let Some((remind_at, report_at)) = message.told.asks else {
                return;
            };
            let line = message.lines.first().copied();
            let asked_for = message.kind == AlertKind::Action;
            let asked_for = asked_for || message.also.contains(&AlertKind::Action);
            let line = line.filter(|_| !asked_for);
            if let Some(open) = asked.as_mut().filter(|asked| !asked.reminded) {
                open.line = open.line.and(line);
                return;
            }
            *asked = Some(Asked { lead, since: at, remind_at, report_at, reminded: false, line });
        }
        AlertKind::Reminder => {
            if let Some(asked) = asked.as_mut().filter(|asked| asked.remind_at <= at) {
                asked.reminded = true;
            }
        }
        AlertKind::Retracted => {
            let back = message.takes_back.as_ref().map(|sent| sent.at);
            asked.take_if(|asked| Some(asked.since) == back);
        }
        AlertKind::Cooled
        | AlertKind::Escalated
        | AlertKind::Merged
        | AlertKind::Unmerged
        | AlertKind::Signal
        | AlertKind::Erased => {}
    }
}

/// Who is out at the line they were told hot at need not be taken any more.
pub(super) fn note_out(asked: &mut Option<Asked>, crossing: &Crossing) {
    let out = crossing.direction == Direction::Fall;
    asked.take_if(|asked| out && asked.line == Some(crossing.threshold));
}

fn message(told: Told) -> Message {
    Message {
        place: 0,
        kind: AlertKind::Hot,
        audience: None,
        also: Vec::new(),
        crossing: None,
        lines: Vec::new(),
        other: None,
        takes_back: None,
        told,
    }
}
