//! A lead's part, both ways: what was decided about a person, and who is told what.

use crate::alert::AlertKind;
use crate::facts::Seen;
use crate::grade::Grade;
use crate::id::{CategoryId, LeadId, Position, RuleId, ThresholdId};
use crate::identity::Assurance;
use crate::points::Points;
use crate::record::{
    Base, Because, Binding, Dropping, History, LeadPart, LinkPart, Message, Reason, Sent, Subject,
    Told,
};
use crate::stage::Stage;
use crate::threshold::{Crossing, Direction, Gate, Side};

use super::read::{Read, Reader};
use super::write::{Writer, assurance_byte};
use super::{SECTION_ASKS, SECTION_LEAD, WireError};

const DIRECTIONS: [Direction; 4] =
    [Direction::Rise, Direction::Fall, Direction::Release, Direction::Settle];

impl Writer<'_> {
    /// A lead's part, and what its messages ask of sales, if any does.
    pub(crate) fn lead_sections(&mut self, part: &LeadPart) {
        self.section(SECTION_LEAD, |writer| writer.lead(part));
        let asks = |message: &&Message| {
            let told = &message.told;
            told.asks.is_some() || !told.waited.is_zero() || told.raised != Points(0)
        };
        let asking: Vec<&Message> = part.messages.iter().filter(asks).collect();
        if asking.is_empty() {
            return;
        }
        self.section(SECTION_ASKS, |writer| {
            writer.list(&asking, |writer, message| {
                writer.varint(u64::from(message.place));
                writer.option(message.told.asks.as_ref(), |writer, (remind_at, report_at)| {
                    writer.time(*remind_at);
                    writer.time(*report_at);
                });
                writer.duration(message.told.waited);
                writer.signed(message.told.raised.0);
            });
        });
    }

    fn lead(&mut self, part: &LeadPart) {
        self.lead_id(part.lead);
        self.origin_of_part(part.origin, part.lead);
        self.varint(part.previous.0);
        self.byte(u8::from(part.new_visit) | u8::from(part.only_said) << 1);
        for hears in &part.hears {
            self.byte(hears.map_or(0, |sure| assurance_byte(sure) + 1));
        }
        self.varint(part.stretch.0);
        self.list(&part.names, Writer::named);
        self.origin(part.under);
        self.option(part.link.as_ref(), Writer::link);
        self.list(&part.drops, Writer::dropping);
        self.rows(&part.rows);
        self.regrants(&part.regrants);
        self.fold(part.fold.as_ref());
        self.option(part.base.as_ref(), |writer, base| {
            writer.time(base.at);
            writer.list(&base.sides, Writer::side);
        });
        self.list(&part.crossings, Writer::crossing);
        self.list(&part.messages, Writer::message);
    }

    fn origin_of_part(&mut self, origin: LeadId, lead: LeadId) {
        self.context.origin = lead;
        self.origin(origin);
        self.context.origin = origin;
    }

    fn link(&mut self, link: &LinkPart) {
        self.out.extend_from_slice(&link.visitor.0.to_le_bytes());
        self.assurance(link.assurance);
        self.list(&link.histories, Writer::history);
    }

    fn history(&mut self, history: &History) {
        self.varint(history.stretch.0);
        self.origin(history.origin);
        self.assurance(history.given);
        self.varint(history.first_position.0);
        self.varint(history.last_position.0);
        self.time(history.first_seen);
        self.time(history.last_when);
        self.varint(u64::from(history.hits));
        self.varint(u64::from(history.pages));
        self.varint(u64::from(history.visits));
        self.list(&history.seen, Writer::seen);
    }

    pub(crate) fn seen(&mut self, seen: &Seen) {
        self.source(seen.source);
        self.origin(seen.origin);
        self.varint(seen.stretch.0);
        self.time(seen.from);
        self.time(seen.to);
        self.varint(seen.first.0);
        self.varint(seen.last.0);
        self.varint(u64::from(seen.hits));
        self.varint(u64::from(seen.withdrawn));
    }

    fn dropping(&mut self, drop: &Dropping) {
        self.source(drop.source);
        self.varint(drop.after.0);
        self.varint(drop.until.0);
    }

    pub(crate) fn side(&mut self, side: &Side) {
        self.byte(side.threshold.0);
        self.bool(side.inside);
        self.time(side.since);
    }

    fn crossing(&mut self, crossing: &Crossing) {
        self.byte(crossing.threshold.0);
        self.byte(crossing.direction as u8);
        self.time(crossing.at);
        self.time(crossing.since);
        self.varint(u64::from(crossing.number));
        self.gate(crossing.opened_by);
        self.byte(u8::from(crossing.told) | u8::from(crossing.held) << 1);
        self.option(crossing.waits_until.as_ref(), |writer, until| writer.time(*until));
    }

    pub(crate) fn gate(&mut self, gate: Option<Gate>) {
        self.byte(gate.map_or(0, |gate| gate as u8 + 1));
    }

    fn audience(&mut self, audience: Option<&String>) {
        self.option(audience, |writer, audience| writer.text(audience));
    }

    fn message(&mut self, message: &Message) {
        self.varint(u64::from(message.place));
        self.byte(message.kind as u8);
        self.audience(message.audience.as_ref());
        self.list(&message.also, |writer, kind| writer.byte(*kind as u8));
        self.option(message.crossing.as_ref(), |writer, it| writer.varint(u64::from(*it)));
        self.list(&message.lines, |writer, line| writer.byte(line.0));
        self.option(message.other.as_ref(), |writer, other| writer.lead_id(*other));
        self.option(message.takes_back.as_ref(), Writer::sent);
        self.told(&message.told);
    }

    pub(crate) fn sent(&mut self, sent: &Sent) {
        self.varint(sent.position.0);
        self.varint(u64::from(sent.place));
        self.lead_id(sent.lead);
        self.byte(sent.kind as u8);
        self.audience(sent.audience.as_ref());
        self.time(sent.at);
        match sent.about {
            Subject::Line(line) => {
                self.byte(0);
                self.byte(line.0);
            }
            Subject::Row(position, order) => {
                self.byte(1);
                self.varint(position.0);
                self.varint(u64::from(order));
            }
        }
    }

    fn told(&mut self, told: &Told) {
        self.varint(u64::from(told.sequence));
        self.time(told.at);
        for points in [told.score, told.before_24h, told.urgency, told.unconfirmed, told.held_back]
        {
            self.signed(points.0);
        }
        self.byte(told.grade as u8);
        self.byte(told.stage as u8);
        self.byte(told.previous_stage as u8);
        self.assurance(told.assurance);
        self.option(told.last_told.as_ref(), |writer, points| writer.signed(points.0));
        self.list(&told.categories, |writer, (category, points)| {
            writer.byte(category.0);
            writer.signed(points.0);
        });
        self.list(&told.reasons, |writer, reason| {
            writer.varint(u64::from(reason.rule.0));
            writer.varint(u64::from(reason.times));
            writer.signed(reason.points.0);
            writer.time(reason.last);
        });
        self.option(told.because.as_ref(), |writer, because| {
            writer.varint(u64::from(because.rule.0));
            writer.signed(because.points.0);
            writer.time(because.at);
        });
    }

    pub(crate) fn binding(&mut self, binding: &Binding) {
        self.lead_id(binding.origin);
        self.assurance(binding.assurance);
        self.bool(binding.by_step);
        for name in &binding.names {
            self.option(name.as_ref(), |writer, name| writer.lead_id(*name));
        }
    }
}

impl Reader<'_> {
    /// Puts what messages ask of sales into them.
    pub(crate) fn asks(&mut self, part: Option<&mut LeadPart>) -> Read<()> {
        let asks = self.list(|reader| {
            Ok((
                reader.number::<u16>("place")?,
                reader.option(|reader| Ok((reader.time()?, reader.time()?)))?,
                reader.duration()?,
                reader.points()?,
            ))
        })?;
        let mut messages = part.map(|part| part.messages.iter_mut());
        for (place, asks, waited, raised) in asks {
            let messages = messages.as_mut().ok_or(WireError::Missing("lead"))?;
            let message = messages.find(|message| message.place == place);
            let told = &mut message.ok_or(WireError::UnknownNumber("place"))?.told;
            (told.asks, told.waited, told.raised) = (asks, waited, raised);
        }
        Ok(())
    }

    pub(crate) fn lead(&mut self) -> Read<LeadPart> {
        let lead = self.lead_id()?;
        self.context.origin = lead;
        let origin = self.origin()?;
        self.context.origin = origin;
        let previous = Position(self.varint()?);
        let flags = self.bits(2)?;
        Ok(LeadPart {
            lead,
            origin,
            previous,
            new_visit: flags & 1 == 1,
            only_said: flags & 2 == 2,
            hears: [self.hears()?, self.hears()?],
            stretch: Position(self.varint()?),
            names: self.list(Reader::named)?,
            under: self.origin()?,
            link: self.option(Reader::link)?,
            drops: self.list(Reader::dropping)?,
            rows: self.rows()?,
            regrants: self.regrants()?,
            fold: self.fold()?,
            base: self.option(|reader| {
                Ok(Base { at: reader.time()?, sides: reader.list(Reader::side)? })
            })?,
            crossings: self.list(Reader::crossing)?,
            messages: self.list(Reader::message)?,
        })
    }

    fn hears(&mut self) -> Read<Option<Assurance>> {
        let [claimed, verified, derived] =
            [Assurance::Claimed, Assurance::Verified, Assurance::Derived].map(Some);
        self.one_of(&[None, claimed, verified, derived], "assurance")
    }

    fn link(&mut self) -> Read<LinkPart> {
        Ok(LinkPart {
            visitor: self.visitor_id()?,
            assurance: self.assurance()?,
            histories: self.list(Reader::history)?,
        })
    }

    fn history(&mut self) -> Read<History> {
        Ok(History {
            stretch: Position(self.varint()?),
            origin: self.origin()?,
            given: self.assurance()?,
            first_position: Position(self.varint()?),
            last_position: Position(self.varint()?),
            first_seen: self.time()?,
            last_when: self.time()?,
            hits: self.number("count")?,
            pages: self.number("count")?,
            visits: self.number("count")?,
            seen: self.list(Reader::seen)?,
        })
    }

    pub(crate) fn seen(&mut self) -> Read<Seen> {
        Ok(Seen {
            source: self.source()?,
            origin: self.origin()?,
            stretch: Position(self.varint()?),
            from: self.time()?,
            to: self.time()?,
            first: Position(self.varint()?),
            last: Position(self.varint()?),
            hits: self.number("count")?,
            withdrawn: self.number("count")?,
        })
    }

    fn dropping(&mut self) -> Read<Dropping> {
        Ok(Dropping {
            source: self.source()?,
            after: Position(self.varint()?),
            until: Position(self.varint()?),
        })
    }

    pub(crate) fn side(&mut self) -> Read<Side> {
        Ok(Side { threshold: ThresholdId(self.byte()?), inside: self.bool()?, since: self.time()? })
    }

    fn crossing(&mut self) -> Read<Crossing> {
        let threshold = ThresholdId(self.byte()?);
        let direction = self.one_of(&DIRECTIONS, "direction")?;
        let (at, since) = (self.time()?, self.time()?);
        let number = self.number("count")?;
        let opened_by = self.gate()?;
        let flags = self.bits(2)?;
        Ok(Crossing {
            threshold,
            direction,
            at,
            since,
            number,
            opened_by,
            told: flags & 1 == 1,
            held: flags & 2 == 2,
            waits_until: self.option(Reader::time)?,
        })
    }

    pub(crate) fn gate(&mut self) -> Read<Option<Gate>> {
        let gate = usize::from(self.byte()?);
        let known = gate.checked_sub(1).map(|place| Gate::ALL.get(place).copied());
        known.map_or(Ok(None), |gate| gate.map(Some).ok_or(WireError::UnknownNumber("gate")))
    }

    fn kind(&mut self) -> Read<AlertKind> {
        self.one_of(&AlertKind::ALL, "kind of message")
    }

    fn message(&mut self) -> Read<Message> {
        Ok(Message {
            place: self.number("place")?,
            kind: self.kind()?,
            audience: self.option(Reader::text)?,
            also: self.list(Reader::kind)?,
            crossing: self.option(|reader| reader.number("place"))?,
            lines: self.list(|reader| Ok(ThresholdId(reader.byte()?)))?,
            other: self.option(Reader::lead_id)?,
            takes_back: self.option(Reader::sent)?,
            told: self.told()?,
        })
    }

    pub(crate) fn sent(&mut self) -> Read<Sent> {
        Ok(Sent {
            position: Position(self.varint()?),
            place: self.number("place")?,
            lead: self.lead_id()?,
            kind: self.kind()?,
            audience: self.option(Reader::text)?,
            at: self.time()?,
            about: match self.byte()? {
                0 => Subject::Line(ThresholdId(self.byte()?)),
                1 => Subject::Row(Position(self.varint()?), self.number("row")?),
                _ => return Err(WireError::UnknownNumber("subject")),
            },
        })
    }

    fn told(&mut self) -> Read<Told> {
        Ok(Told {
            sequence: self.number("count")?,
            at: self.time()?,
            score: self.points()?,
            before_24h: self.points()?,
            urgency: self.points()?,
            unconfirmed: self.points()?,
            held_back: self.points()?,
            grade: self.one_of(&Grade::ALL, "grade")?,
            stage: self.one_of(&Stage::ALL, "stage")?,
            previous_stage: self.one_of(&Stage::ALL, "stage")?,
            assurance: self.assurance()?,
            last_told: self.option(Reader::points)?,
            categories: self.categories()?,
            reasons: self.list(Reader::reason)?,
            because: self.option(Reader::because)?,
            ..Told::default()
        })
    }

    pub(crate) fn categories(&mut self) -> Read<Vec<(CategoryId, crate::points::Points)>> {
        self.list(|reader| Ok((CategoryId(reader.byte()?), reader.points()?)))
    }

    pub(crate) fn reason(&mut self) -> Read<Reason> {
        Ok(Reason {
            rule: RuleId(self.number("rule")?),
            times: self.number("count")?,
            points: self.points()?,
            last: self.time()?,
        })
    }

    pub(crate) fn because(&mut self) -> Read<Because> {
        Ok(Because { rule: RuleId(self.number("rule")?), points: self.points()?, at: self.time()? })
    }

    pub(crate) fn binding(&mut self) -> Read<Binding> {
        let (origin, assurance) = (self.lead_id()?, self.assurance()?);
        let by_step = self.bool()?;
        let mut names = [None; 3];
        for name in &mut names {
            *name = self.option(Reader::lead_id)?;
        }
        Ok(Binding { origin, names, assurance, by_step })
    }
}
