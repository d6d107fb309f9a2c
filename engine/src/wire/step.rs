//! A step's record, both ways: joining, parting, withdrawing, and what is on its way between.

use std::sync::Arc;

use crate::attribute::Level;
use crate::facts::Said;
use crate::id::{LeadId, Position, ThresholdId};
use crate::identity::IdentityKind;
use crate::record::{
    Aside, Content, Joint, Member, Parcel, Step, StepRecord, Tie, VisitStep, Withdrawn,
};
use crate::sales::{Asked, Feedback, Vouched};
use crate::stage::{FeedbackKind, Stage};
use crate::threshold::{Band, Side};

use super::read::{Read, Reader};
use super::write::Writer;
use super::{SECTION_ASKS, SECTION_LEAD, SECTION_STEP, SECTION_VISIT_STEP, WireError};

impl Writer<'_> {
    pub(crate) fn step_record(&mut self, record: &StepRecord) {
        self.context.visitor = record.visit.as_ref().map(|visit| visit.visitor);
        // The visitor stands first: what came from it names it by one byte.
        if let Some(visit) = &record.visit {
            self.section(SECTION_VISIT_STEP, |writer| writer.visit_step(visit));
        }
        self.section(SECTION_STEP, |writer| {
            writer.text(&record.actor);
            writer.text(&record.reason);
            writer.varint(record.of.0);
            writer.varint(record.undoes.0);
            writer.step(&record.step);
        });
        if let Some(lead) = &record.lead {
            self.lead_sections(lead);
        }
    }

    fn visit_step(&mut self, visit: &VisitStep) {
        self.out.extend_from_slice(&visit.visitor.0.to_le_bytes());
        self.varint(visit.previous.0);
        self.owners(&visit.gives);
        self.bound(visit.bound.as_ref());
        self.varint(visit.undoes.0);
        self.owners(&visit.owners);
        self.regrants(&visit.regrants);
    }

    fn owners(&mut self, owners: &[(Position, Option<LeadId>)]) {
        self.list(owners, |writer, (after, owner)| {
            writer.varint(after.0);
            writer.option(owner.as_ref(), |writer, owner| writer.lead_id(*owner));
        });
    }

    pub(crate) fn joint(&mut self, joint: &Joint) {
        self.lead_id(joint.under);
        self.assurance(joint.assurance);
        self.bool(joint.people);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Job => self.byte(0),
            Step::Link => self.byte(1),
            Step::Unlink => self.byte(2),
            Step::Confirm => self.byte(3),
            Step::MergeAway(joint) => {
                self.byte(4);
                self.joint(joint);
            }
            Step::TakeIn(parcel) if parcel.knows_sales() => {
                self.byte(14);
                self.parcel_of_sales(parcel);
            }
            Step::TakeIn(parcel) => {
                self.byte(5);
                self.parcel(parcel);
            }
            Step::Folded => self.byte(6),
            Step::Restore { from, was } => {
                self.byte(7);
                self.lead_id(*from);
                self.joint(was);
            }
            Step::Split { out } => {
                self.byte(8);
                self.lead_id(*out);
            }
            Step::Withdraw(withdrawn) => {
                self.byte(9);
                self.list(withdrawn, Writer::withdrawn);
            }
            Step::Rescore { version, rows } => {
                self.byte(10);
                self.varint(u64::from(*version));
                self.rows(rows);
            }
            Step::Release { threshold, told } => {
                self.byte(11);
                self.byte(threshold.0);
                self.bool(*told);
            }
            Step::Dismiss { question } => {
                self.byte(12);
                self.varint(question.0);
            }
            Step::Feedback(feedback) => {
                self.byte(13);
                self.feedback(feedback);
            }
            Step::Erase { names } => {
                self.byte(15);
                self.list(names, |writer, name| writer.lead_id(*name));
            }
        }
    }

    fn feedback(&mut self, feedback: &Feedback) {
        self.out.extend_from_slice(&feedback.id.to_le_bytes());
        self.time(feedback.time);
        self.varint(feedback.position.0);
        self.time(feedback.at);
        self.byte(feedback.kind as u8);
        self.lead_id(feedback.origin);
        self.byte(feedback.stage as u8);
        self.option(feedback.until.as_ref(), |writer, until| writer.time(*until));
        self.option(feedback.raise.as_ref(), |writer, (raise, until)| {
            writer.signed(raise.0);
            writer.time(*until);
        });
        self.option(feedback.asks.as_ref(), |writer, (remind_at, report_at)| {
            writer.time(*remind_at);
            writer.time(*report_at);
        });
        self.list(&feedback.vouches, |writer, vouched| {
            writer.out.extend_from_slice(&vouched.visitor.0.to_le_bytes());
            writer.lead_id(vouched.origin);
            writer.varint(vouched.stretch.0);
        });
        self.bytes(&feedback.sealed);
    }

    pub(crate) fn asked(&mut self, asked: &Asked) {
        self.lead_id(asked.lead);
        for time in [asked.since, asked.remind_at, asked.report_at] {
            self.time(time);
        }
        self.bool(asked.reminded);
        self.option(asked.line.as_ref(), |writer, line| writer.byte(line.0));
    }

    fn said(&mut self, said: &Said) {
        self.time(said.time);
        self.varint(said.position.0);
        self.source(said.source);
        self.option(said.stretch.as_ref(), |writer, stretch| writer.varint(stretch.0));
        self.origin(said.origin);
        self.assurance(said.identity);
        self.assurance(said.attributes_by);
        self.byte(said.level as u8);
        self.byte(said.consent.map_or(0, |consent| u8::from(consent) + 1));
        self.text(&said.by);
        self.lead_id(said.under);
        self.bytes(&said.sealed);
    }

    fn parcel(&mut self, parcel: &Parcel) {
        self.lead_id(parcel.from);
        self.varint(u64::from(parcel.number));
        self.bool(parcel.last);
        self.option(parcel.joint.as_ref(), Writer::joint);
        self.content(&parcel.content);
        self.list(&parcel.bands, Writer::band);
        self.list(&parcel.sent, Writer::sent);
    }

    /// One with what sales was asked and answered.
    pub(crate) fn parcel_of_sales(&mut self, parcel: &Parcel) {
        self.parcel(parcel);
        self.list(&parcel.content.feedback, Writer::feedback);
        self.option(parcel.asked.as_ref(), Writer::asked);
        self.time(parcel.signalled);
    }

    /// With what sales answered.
    pub(crate) fn whole_content(&mut self, content: &Content) {
        self.content(content);
        self.list(&content.feedback, Writer::feedback);
    }

    fn content(&mut self, content: &Content) {
        self.list(&content.members, |writer, member| {
            writer.lead_id(member.id);
            writer.byte(member.kind as u8);
            writer.option(member.parent.as_ref(), |writer, parent| writer.lead_id(*parent));
            writer.assurance(member.assurance);
            writer.bool(member.people);
            writer.time(member.since);
            writer.varint(member.first_position.0);
            writer.bool(member.by_server);
        });
        self.rows(&content.rows);
        self.list(&content.ties, Writer::tie);
        self.list(&content.said, Writer::said);
        self.list(&content.seen, Writer::seen);
        self.list(&content.aside.ties, Writer::tie);
        self.list(&content.aside.said, Writer::said);
    }

    fn tie(&mut self, tie: &Tie) {
        self.source(tie.source);
        self.origin(tie.origin);
        self.varint(tie.stretch.0);
        self.assurance(tie.assurance);
        self.assurance(tie.given);
        self.time(tie.since);
        self.time(tie.first_seen);
        self.varint(tie.first_position.0);
        for count in [tie.hits, tie.pages, tie.visits, tie.attached] {
            self.varint(u64::from(count));
        }
    }

    pub(crate) fn band(&mut self, band: &Band) {
        self.side(&band.side);
        self.varint(u64::from(band.number));
        self.gate(band.opened_by);
        self.byte(u8::from(band.told) | u8::from(band.held) << 1);
        for time in [&band.waits_until, &band.last_told] {
            self.option(time.as_ref(), |writer, time| writer.time(*time));
        }
        self.option(band.last_points.as_ref(), |writer, points| writer.signed(points.0));
        self.list(&band.escalated, |writer, at| writer.time(*at));
    }

    fn withdrawn(&mut self, hit: &Withdrawn) {
        self.varint(hit.position.0);
        self.time(hit.when);
        self.source(hit.source);
        self.origin(hit.origin);
        self.byte(u8::from(hit.human) | u8::from(hit.out) << 1);
    }
}

impl Reader<'_> {
    pub(crate) fn step_record(&mut self) -> Read<StepRecord> {
        let mut record = StepRecord::default();
        let mut has_step = false;
        while let Some((tag, reader)) = self.section()? {
            match tag {
                SECTION_VISIT_STEP => {
                    let visit = reader.whole(Reader::visit_step)?;
                    self.context.visitor = Some(visit.visitor);
                    record.visit = Some(visit);
                }
                SECTION_STEP => {
                    (record.actor, record.reason, record.of, record.undoes, record.step) =
                        reader.whole(|reader| {
                            Ok((
                                reader.text()?,
                                reader.text()?,
                                Position(reader.varint()?),
                                Position(reader.varint()?),
                                reader.step()?,
                            ))
                        })?;
                    has_step = true;
                }
                SECTION_LEAD => record.lead = Some(reader.whole(Reader::lead)?),
                SECTION_ASKS => reader.whole(|reader| reader.asks(record.lead.as_mut()))?,
                other => return Err(WireError::UnknownSection(other)),
            }
        }
        if has_step { Ok(record) } else { Err(WireError::Missing("step")) }
    }

    fn visit_step(&mut self) -> Read<VisitStep> {
        Ok(VisitStep {
            visitor: self.visitor_id()?,
            previous: Position(self.varint()?),
            gives: self.owners()?,
            bound: self.bound()?,
            undoes: Position(self.varint()?),
            owners: self.owners()?,
            regrants: self.regrants()?,
        })
    }

    fn owners(&mut self) -> Read<Vec<(Position, Option<LeadId>)>> {
        self.list(|reader| Ok((Position(reader.varint()?), reader.option(Reader::lead_id)?)))
    }

    pub(crate) fn joint(&mut self) -> Read<Joint> {
        Ok(Joint { under: self.lead_id()?, assurance: self.assurance()?, people: self.bool()? })
    }

    fn step(&mut self) -> Read<Step> {
        Ok(match self.byte()? {
            0 => Step::Job,
            1 => Step::Link,
            2 => Step::Unlink,
            3 => Step::Confirm,
            4 => Step::MergeAway(self.joint()?),
            5 => Step::TakeIn(Box::new(self.parcel()?)),
            14 => Step::TakeIn(Box::new(self.parcel_of_sales()?)),
            6 => Step::Folded,
            7 => Step::Restore { from: self.lead_id()?, was: self.joint()? },
            8 => Step::Split { out: self.lead_id()? },
            9 => Step::Withdraw(self.list(Reader::withdrawn)?),
            10 => Step::Rescore { version: self.number("version")?, rows: self.rows()? },
            11 => Step::Release { threshold: ThresholdId(self.byte()?), told: self.bool()? },
            12 => Step::Dismiss { question: Position(self.varint()?) },
            13 => Step::Feedback(Box::new(self.feedback()?)),
            15 => Step::Erase { names: self.list(Reader::lead_id)? },
            _ => return Err(WireError::UnknownNumber("step")),
        })
    }

    fn said(&mut self) -> Read<Said> {
        Ok(Said {
            time: self.time()?,
            position: Position(self.varint()?),
            source: self.source()?,
            stretch: self.option(|reader| Ok(Position(reader.varint()?)))?,
            origin: self.origin()?,
            identity: self.assurance()?,
            attributes_by: self.assurance()?,
            level: self.one_of(&Level::ALL, "level")?,
            consent: self.consent()?,
            by: Arc::from(self.text()?),
            attributes: Arc::default(),
            under: self.lead_id()?,
            sealed: Arc::new(self.bytes()?.to_vec()),
        })
    }

    fn parcel(&mut self) -> Read<Parcel> {
        let from = self.lead_id()?;
        let number = self.number("count")?;
        Ok(Parcel {
            from,
            number,
            last: self.bool()?,
            joint: self.option(Reader::joint)?,
            content: self.content()?,
            bands: self.list(Reader::band)?,
            sent: self.list(Reader::sent)?,
            ..Parcel::default()
        })
    }

    /// With what sales answered.
    pub(crate) fn whole_content(&mut self) -> Read<Content> {
        let content = self.content()?;
        Ok(Content { feedback: self.list(Reader::feedback)?, ..content })
    }

    /// One with what sales was asked and answered.
    pub(crate) fn parcel_of_sales(&mut self) -> Read<Parcel> {
        let mut parcel = self.parcel()?;
        parcel.content.feedback = self.list(Reader::feedback)?;
        parcel.asked = self.option(Reader::asked)?;
        parcel.signalled = self.time()?;
        Ok(parcel)
    }

    fn feedback(&mut self) -> Read<Feedback> {
        Ok(Feedback {
            id: u64::from_le_bytes(self.fixed()?),
            time: self.time()?,
            position: Position(self.varint()?),
            at: self.time()?,
            kind: self.one_of(&FeedbackKind::ALL, "answer")?,
            origin: self.lead_id()?,
            stage: self.one_of(&Stage::ALL, "stage")?,
            until: self.option(Reader::time)?,
            raise: self.option(|reader| Ok((reader.points()?, reader.time()?)))?,
            asks: self.option(|reader| Ok((reader.time()?, reader.time()?)))?,
            vouches: self.list(|reader| {
                Ok(Vouched {
                    visitor: reader.visitor_id()?,
                    origin: reader.lead_id()?,
                    stretch: Position(reader.varint()?),
                })
            })?,
            details: Arc::default(),
            sealed: Arc::new(self.bytes()?.to_vec()),
        })
    }

    pub(crate) fn asked(&mut self) -> Read<Asked> {
        Ok(Asked {
            lead: self.lead_id()?,
            since: self.time()?,
            remind_at: self.time()?,
            report_at: self.time()?,
            reminded: self.bool()?,
            line: self.option(|reader| Ok(ThresholdId(reader.byte()?)))?,
        })
    }

    fn content(&mut self) -> Read<Content> {
        Ok(Content {
            members: self.list(|reader| {
                Ok(Member {
                    id: reader.lead_id()?,
                    kind: reader.one_of(&IdentityKind::ORDER, "kind of identity")?,
                    parent: reader.option(Reader::lead_id)?,
                    assurance: reader.assurance()?,
                    people: reader.bool()?,
                    since: reader.time()?,
                    first_position: Position(reader.varint()?),
                    by_server: reader.bool()?,
                })
            })?,
            rows: self.rows()?,
            ties: self.list(Reader::tie)?,
            said: self.list(Reader::said)?,
            seen: self.list(Reader::seen)?,
            feedback: Vec::new(),
            aside: Aside { ties: self.list(Reader::tie)?, said: self.list(Reader::said)? },
        })
    }

    fn tie(&mut self) -> Read<Tie> {
        Ok(Tie {
            source: self.source()?,
            origin: self.origin()?,
            stretch: Position(self.varint()?),
            assurance: self.assurance()?,
            given: self.assurance()?,
            since: self.time()?,
            first_seen: self.time()?,
            first_position: Position(self.varint()?),
            hits: self.number("count")?,
            pages: self.number("count")?,
            visits: self.number("count")?,
            attached: self.number("count")?,
        })
    }

    pub(crate) fn band(&mut self) -> Read<Band> {
        let side: Side = self.side()?;
        let number = self.number("count")?;
        let opened_by = self.gate()?;
        let flags = self.bits(2)?;
        Ok(Band {
            side,
            number,
            opened_by,
            told: flags & 1 == 1,
            held: flags & 2 == 2,
            waits_until: self.option(Reader::time)?,
            last_told: self.option(Reader::time)?,
            last_points: self.option(Reader::points)?,
            escalated: self.list(Reader::time)?,
        })
    }

    fn withdrawn(&mut self) -> Read<Withdrawn> {
        let (position, when) = (Position(self.varint()?), self.time()?);
        let (source, origin) = (self.source()?, self.origin()?);
        let flags = self.bits(2)?;
        Ok(Withdrawn { position, when, source, origin, human: flags & 1 == 1, out: flags & 2 == 2 })
    }
}
