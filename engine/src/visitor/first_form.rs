//! A visitor as the first form of snapshots held it: read for ever, and no longer written. Every
//! field stood in full, and the rows as they stand in a record.

use crate::id::{Position, RuleId, VisitorId};
use crate::record::Counted;
use crate::session::Session;
use crate::time::Timestamp;
use crate::wire::{Context, Read, Reader};

use super::rows::Rows;
use super::{HitId, OpenPage, Stretch, Visitor};

impl Visitor {
    /// Reads what the first form had of a visitor.
    pub(super) fn read_1(id: VisitorId, bytes: &[u8]) -> Read<Visitor> {
        let context = Context { visitor: Some(id), ..Context::default() };
        Reader { rest: bytes, context }.whole(|reader| reader.visitor_1(id))
    }
}

impl Reader<'_> {
    fn visitor_1(&mut self, id: VisitorId) -> Read<Visitor> {
        let last = Timestamp(self.varint()?);
        let origin = self.origin()?;
        self.context = Context { time: last, origin, ..self.context };
        let started = self.time()?;
        let mut visitor = Visitor {
            session: Session { started, last, number: self.number("count")? },
            first_seen: self.time()?,
            hits: self.number("count")?,
            pages: self.number("count")?,
            last_when: self.time()?,
            last_position: Position(self.varint()?),
            bound: self.option(Reader::binding)?,
            ..Visitor::default()
        };
        let flags = self.bits(2)?;
        visitor.shared = flags & 1 == 1;
        if flags & 2 == 2 {
            (visitor.erased, visitor.erased_at) = (Position(self.varint()?), self.time()?);
        }
        visitor.trail.past = self.list(Reader::stretch_1)?;
        visitor.trail.last = self.stretch_1()?;
        visitor.rows = Rows::of(id, &self.rows()?);
        visitor.seen = self.list(Reader::seen)?;
        visitor.named = self.list(|reader| Ok((reader.lead_id()?, reader.time()?)))?;
        visitor.counted = self.list(|reader| {
            Ok(Counted {
                rule: RuleId(reader.number("rule")?),
                what: u64::from_le_bytes(reader.fixed()?),
                when: reader.time()?,
            })
        })?;
        visitor.open_pages = self.list(|reader| {
            Ok(OpenPage {
                key: u64::from_le_bytes(reader.fixed()?),
                engaged_ms: reader.number("time")?,
                scroll: reader.byte()?,
            })
        })?;
        visitor.hit_ids = self.list(|reader| {
            Ok(HitId {
                id: u64::from_le_bytes(reader.fixed()?),
                received: reader.time()?,
                position: Position(reader.varint()?),
            })
        })?;
        Ok(visitor)
    }

    fn stretch_1(&mut self) -> Read<Stretch> {
        Ok(Stretch {
            after: Position(self.varint()?),
            owner: self.option(Reader::origin)?,
            first_position: Position(self.varint()?),
            last_position: Position(self.varint()?),
            first_seen: self.time()?,
            last_when: self.time()?,
            hits: self.number("count")?,
            pages: self.number("count")?,
            visits: self.number("count")?,
            marks: self.list(Reader::mark)?,
            given: self.list(Reader::given)?,
        })
    }
}
