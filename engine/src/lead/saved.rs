//! A lead as a snapshot holds it: everything that replay restores and what follows from it, with
//! personal payloads sealed as in the journal. What is derived by a look at the clock is not.

use std::sync::Arc;

use crate::attribute::Attributes;
use crate::facts::Said;
use crate::id::{LeadId, Position};
use crate::record::{Base, Content};
use crate::time::Timestamp;
use crate::wire::{Context, Read, Reader, Writer};

use super::{Arriving, Lead, Outgoing};

/// Opens what was sealed under a person's key; nothing, if the key is gone.
pub type Unseal<'a> = dyn Fn(LeadId, &[u8]) -> Attributes + Sync + 'a;

impl Lead {
    /// Appends its bytes.
    pub(crate) fn save(&self, id: LeadId, out: &mut Vec<u8>) {
        let mut writer = Writer { out, context: Context::default() };
        writer.varint(self.settled.0);
        writer.varint(u64::from(self.version));
        writer.context = context(id, self.settled, self.version);
        writer.whole_content(&self.content);
        writer.list(&self.bands, Writer::band);
        writer.time(self.base.at);
        writer.list(&self.base.sides, Writer::side);
        writer.list(&self.sent, Writer::sent);
        writer.varint(self.last_position.0);
        writer.varint(u64::from(self.rescored));
        writer.varint(u64::from(self.sequence));
        writer.option(self.asked.as_ref(), Writer::asked);
        writer.time(self.signalled);
        let erased = self.erased != Position::NONE;
        writer.byte(u8::from(self.test) | u8::from(self.people) << 1 | u8::from(erased) << 2);
        if erased {
            writer.varint(self.erased.0);
            writer.time(self.erased_at);
        }
        writer.option(self.stub.as_ref(), |writer, stub| writer.lead_id(*stub));
        writer.list(&self.steps, |writer, step| writer.varint(step.0));
        writer.option(self.outgoing.as_ref(), |writer, outgoing| {
            writer.lead_id(outgoing.to);
            writer.varint(outgoing.of.0);
            writer.option(outgoing.joint.as_ref(), Writer::joint);
            writer.whole_content(&outgoing.content);
        });
        writer.option(self.arriving.as_ref(), |writer, arriving| {
            writer.varint(arriving.of.0);
            writer.list(&arriving.parcels, Writer::parcel_of_sales);
        });
        writer.varint(self.taken.0);
        writer.option(self.awaits.as_ref(), |writer, (from, of)| {
            writer.lead_id(*from);
            writer.varint(of.0);
        });
    }

    /// Reads what [`Lead::save`] wrote.
    pub(crate) fn load(id: LeadId, bytes: &[u8], unseal: &Unseal<'_>) -> Read<Lead> {
        let reader = Reader { rest: bytes, context: Context::default() };
        let mut lead = reader.whole(|reader| Lead::read(id, reader))?;
        let sent = lead.outgoing.iter_mut().map(|outgoing| &mut outgoing.content);
        let arriving = lead.arriving.iter_mut().flat_map(|arriving| &mut arriving.parcels);
        let arriving = arriving.map(|parcel| &mut parcel.content);
        for content in [&mut lead.content].into_iter().chain(sent).chain(arriving) {
            open(content, unseal);
        }
        Ok(lead)
    }

    fn read(id: LeadId, reader: &mut Reader<'_>) -> Read<Lead> {
        let settled = Timestamp(reader.varint()?);
        let version = reader.number("version")?;
        reader.context = context(id, settled, version);
        let content = reader.whole_content()?;
        let bands = reader.list(Reader::band)?;
        let base = Base { at: reader.time()?, sides: reader.list(Reader::side)? };
        let sent = reader.list(Reader::sent)?;
        let last_position = Position(reader.varint()?);
        let rescored = reader.number("version")?;
        let sequence = reader.number("count")?;
        let asked = reader.option(Reader::asked)?;
        let signalled = reader.time()?;
        let flags = reader.bits(3)?;
        let erased = match flags & 4 {
            0 => (Position::NONE, Timestamp::default()),
            _ => (Position(reader.varint()?), reader.time()?),
        };
        Ok(Lead {
            content,
            bands,
            base,
            sent,
            last_position,
            settled,
            rescored,
            sequence,
            asked,
            signalled,
            test: flags & 1 == 1,
            people: flags & 2 == 2,
            erased: erased.0,
            erased_at: erased.1,
            stub: reader.option(Reader::lead_id)?,
            steps: reader.list(|reader| Ok(Position(reader.varint()?)))?,
            outgoing: reader.option(|reader| {
                Ok(Outgoing {
                    to: reader.lead_id()?,
                    of: Position(reader.varint()?),
                    joint: reader.option(Reader::joint)?,
                    content: reader.whole_content()?,
                })
            })?,
            arriving: reader.option(|reader| {
                let of = Position(reader.varint()?);
                Ok(Arriving { of, parcels: reader.list(Reader::parcel_of_sales)? })
            })?,
            taken: Position(reader.varint()?),
            awaits: reader.option(|reader| Ok((reader.lead_id()?, Position(reader.varint()?))))?,
            version,
            ..Lead::default()
        })
    }
}

fn context(id: LeadId, settled: Timestamp, version: u32) -> Context {
    Context { time: settled, version, origin: id, ..Context::default() }
}

fn open(content: &mut Content, unseal: &Unseal<'_>) {
    let plain = |under: LeadId, sealed: &[u8]| {
        Arc::new(if sealed.is_empty() { Attributes::new() } else { unseal(under, sealed) })
    };
    let said = |said: &mut Said| said.attributes = plain(said.under, &said.sealed);
    content.said.iter_mut().for_each(said);
    content.aside.said.iter_mut().for_each(said);
    for feedback in &mut content.feedback {
        feedback.details = plain(feedback.origin, &feedback.sealed);
    }
}
