//! A visitor as a snapshot holds it: everything that replay restores.

use crate::id::{LeadId, Position, RuleId, VisitorId};
use crate::record::{Binding, Counted};
use crate::session::Session;
use crate::time::Timestamp;
use crate::wire::{Context, Read, Reader, WireError, Writer};

use super::{Given, HitId, Mark, OpenPage, Stretch, Visitor};

/// What stands in front: all that is asked of a visitor who is left asleep.
pub(super) struct Fields {
    session: Session,
    first_seen: Timestamp,
    hits: u32,
    pages: u32,
    last_when: Timestamp,
    pub(super) last_position: Position,
    bound: Option<Binding>,
    shared: bool,
    erased: Position,
    pub(super) erased_at: Timestamp,
}

impl Fields {
    /// The reader has the visitor's context afterwards, if it knows whose bytes they are.
    pub(super) fn read(reader: &mut Reader<'_>) -> Read<Fields> {
        let last = Timestamp(reader.varint()?);
        let origin = reader.origin()?;
        reader.context = Context { time: last, origin, ..reader.context };
        let started = reader.time()?;
        let session = Session { started, last, number: reader.number("count")? };
        let first_seen = reader.time()?;
        let (hits, pages) = (reader.number("count")?, reader.number("count")?);
        let last_when = reader.time()?;
        let last_position = Position(reader.varint()?);
        let bound = reader.option(Reader::binding)?;
        let flags = reader.bits(2)?;
        let (erased, erased_at) = match flags & 2 {
            0 => (Position::NONE, Timestamp::default()),
            _ => (Position(reader.varint()?), reader.time()?),
        };
        let shared = flags & 1 == 1;
        Ok(Fields {
            session,
            first_seen,
            hits,
            pages,
            last_when,
            last_position,
            bound,
            shared,
            erased,
            erased_at,
        })
    }
}

impl Visitor {
    /// Appends its bytes.
    pub(crate) fn save(&self, id: VisitorId, out: &mut Vec<u8>) {
        let mut writer = Writer { out, context: Context::default() };
        writer.varint(self.session.last.0);
        let origin = self.bound.map_or(LeadId(0), |bound| bound.origin);
        writer.origin(origin);
        writer.context = context(id, origin, self.session.last);
        writer.time(self.session.started);
        writer.varint(u64::from(self.session.number));
        writer.time(self.first_seen);
        writer.varint(u64::from(self.hits));
        writer.varint(u64::from(self.pages));
        writer.time(self.last_when);
        writer.varint(self.last_position.0);
        writer.option(self.bound.as_ref(), Writer::binding);
        let erased = self.erased != Position::NONE;
        writer.byte(u8::from(self.shared) | u8::from(erased) << 1);
        if erased {
            writer.varint(self.erased.0);
            writer.time(self.erased_at);
        }
        writer.list(&self.trail.past, Writer::stretch);
        writer.stretch(&self.trail.last);
        writer.rows(&self.rows);
        writer.list(&self.seen, Writer::seen);
        writer.list(&self.named, |writer, (name, at)| {
            writer.lead_id(*name);
            writer.time(*at);
        });
        writer.list(&self.counted, |writer, counted| {
            writer.varint(u64::from(counted.rule.0));
            writer.out.extend_from_slice(&counted.what.to_le_bytes());
            writer.time(counted.when);
        });
        writer.list(&self.open_pages, |writer, page| {
            writer.out.extend_from_slice(&page.key.to_le_bytes());
            writer.varint(u64::from(page.engaged_ms));
            writer.byte(page.scroll);
        });
        writer.list(&self.hit_ids, |writer, hit| {
            writer.out.extend_from_slice(&hit.id.to_le_bytes());
            writer.time(hit.received);
            writer.varint(hit.position.0);
        });
    }

    /// Reads what [`Visitor::save`] wrote, into a visitor whose lists may have room already. After
    /// an error it is nobody's.
    pub(crate) fn reload(&mut self, id: VisitorId, bytes: &[u8]) -> Read<()> {
        let reader = Reader { rest: bytes, context: Context::default() };
        reader.whole(|reader| self.read(id, reader))
    }

    fn read(&mut self, id: VisitorId, reader: &mut Reader<'_>) -> Read<()> {
        reader.context.visitor = Some(id);
        let fields = Fields::read(reader)?;
        // Every field by its name: nothing may be left of who was here before.
        *self = Visitor {
            session: fields.session,
            first_seen: fields.first_seen,
            hits: fields.hits,
            pages: fields.pages,
            last_when: fields.last_when,
            last_position: fields.last_position,
            bound: fields.bound,
            shared: fields.shared,
            erased: fields.erased,
            erased_at: fields.erased_at,
            trail: std::mem::take(&mut self.trail),
            rows: std::mem::take(&mut self.rows),
            seen: std::mem::take(&mut self.seen),
            named: std::mem::take(&mut self.named),
            counted: std::mem::take(&mut self.counted),
            open_pages: std::mem::take(&mut self.open_pages),
            hit_ids: std::mem::take(&mut self.hit_ids),
        };
        self.read_lists(reader)
    }

    fn read_lists(&mut self, reader: &mut Reader<'_>) -> Read<()> {
        reader.list_into(&mut self.trail.past, |reader| {
            let mut stretch = Stretch::default();
            reader.stretch(&mut stretch)?;
            Ok(stretch)
        })?;
        reader.stretch(&mut self.trail.last)?;
        reader.rows_into(&mut self.rows)?;
        reader.list_into(&mut self.seen, Reader::seen)?;
        let named = |reader: &mut Reader<'_>| Ok((reader.lead_id()?, reader.time()?));
        reader.list_into(&mut self.named, named)?;
        reader.list_into(&mut self.counted, |reader| {
            Ok(Counted {
                rule: RuleId(reader.number("rule")?),
                what: u64::from_le_bytes(reader.fixed()?),
                when: reader.time()?,
            })
        })?;
        reader.list_into(&mut self.open_pages, |reader| {
            Ok(OpenPage {
                key: u64::from_le_bytes(reader.fixed()?),
                engaged_ms: reader.number("time")?,
                scroll: reader.byte()?,
            })
        })?;
        reader.list_into(&mut self.hit_ids, |reader| {
            Ok(HitId {
                id: u64::from_le_bytes(reader.fixed()?),
                received: reader.time()?,
                position: Position(reader.varint()?),
            })
        })
    }
}

fn context(id: VisitorId, origin: LeadId, last: Timestamp) -> Context {
    Context { time: last, version: 0, visitor: Some(id), origin }
}

impl Writer<'_> {
    fn stretch(&mut self, stretch: &Stretch) {
        self.varint(stretch.after.0);
        self.option(stretch.owner.as_ref(), |writer, owner| writer.origin(*owner));
        self.varint(stretch.first_position.0);
        self.varint(stretch.last_position.0);
        self.time(stretch.first_seen);
        self.time(stretch.last_when);
        for count in [stretch.hits, stretch.pages, stretch.visits] {
            self.varint(u64::from(count));
        }
        self.list(&stretch.marks, Writer::mark);
        self.list(&stretch.given, |writer, given| {
            writer.varint(given.step.0);
            writer.option(given.from.as_ref(), |writer, from| writer.origin(*from));
            writer.option(given.to.as_ref(), |writer, to| writer.origin(*to));
            writer.assurance(given.sure);
        });
    }

    fn mark(&mut self, mark: &Mark) {
        match mark {
            Mark::Severed => self.byte(0),
            Mark::Said { binding, along } => {
                self.byte(1);
                self.binding(binding);
                self.bool(*along);
            }
            Mark::Taken { step, from } => {
                self.byte(2);
                self.varint(step.0);
                self.origin(*from);
            }
            Mark::Tied { step, binding } => {
                self.byte(3);
                self.varint(step.0);
                self.binding(binding);
            }
        }
    }
}

impl Reader<'_> {
    fn stretch(&mut self, stretch: &mut Stretch) -> Read<()> {
        stretch.after = Position(self.varint()?);
        stretch.owner = self.option(Reader::origin)?;
        stretch.first_position = Position(self.varint()?);
        stretch.last_position = Position(self.varint()?);
        stretch.first_seen = self.time()?;
        stretch.last_when = self.time()?;
        stretch.hits = self.number("count")?;
        stretch.pages = self.number("count")?;
        stretch.visits = self.number("count")?;
        self.list_into(&mut stretch.marks, Reader::mark)?;
        self.list_into(&mut stretch.given, |reader| {
            Ok(Given {
                step: Position(reader.varint()?),
                from: reader.option(Reader::origin)?,
                to: reader.option(Reader::origin)?,
                sure: reader.assurance()?,
            })
        })
    }

    fn mark(&mut self) -> Read<Mark> {
        Ok(match self.byte()? {
            0 => Mark::Severed,
            1 => Mark::Said { binding: self.binding()?, along: self.bool()? },
            2 => Mark::Taken { step: Position(self.varint()?), from: self.origin()? },
            3 => Mark::Tied { step: Position(self.varint()?), binding: self.binding()? },
            _ => return Err(WireError::UnknownNumber("mark")),
        })
    }
}
