//! A visitor as memory and a snapshot hold it: everything that replay restores. What is the same
//! for nearly all visitors takes a bit, positions and times are differences to its last ones, and
//! the rows stand at the end, where they are added to without being read.

use crate::facts::{Seen, Source};
use crate::id::{LeadId, Position, RuleId, VisitorId};
use crate::record::{Binding, Counted};
use crate::session::Session;
use crate::time::Timestamp;
use crate::wire::{Context, Read, Reader, WireError, Writer};

use super::{Given, HitId, Mark, OpenPage, Stretch, Trail, Visitor};

/// Bits of the flags: what follows, and what is as it is for most.
const OPEN_PAGES: u64 = 1;
const HIT_IDS: u64 = 1 << 1;
/// All hits are in one stretch, of which nobody said anything: what it says the visitor's own
/// fields say already.
const LONE: u64 = 1 << 2;
/// All that was seen is of this browser, in its present stretch, and none of it was withdrawn.
const PLAIN: u64 = 1 << 3;
const BOUND: u64 = 1 << 4;
const COUNTED: u64 = 1 << 5;
const SHARED: u64 = 1 << 6;
const ERASED: u64 = 1 << 7;
const NAMED: u64 = 1 << 8;
const FLAGS: u32 = 9;

/// What stands in front: all that is asked of a visitor who is left asleep.
pub(super) struct Front {
    last: Timestamp,
    flags: u64,
    pub(super) last_position: Position,
    erased: Position,
    pub(super) erased_at: Timestamp,
}

impl Front {
    /// What follows is read relative to what it says.
    pub(super) fn read(reader: &mut Reader<'_>) -> Read<Front> {
        let last = Timestamp(reader.varint()?);
        let flags = reader.varint()?;
        if flags >> FLAGS != 0 {
            return Err(WireError::UnknownNumber("flag"));
        }
        let last_position = Position(reader.varint()?);
        reader.context = Context { time: last, position: last_position, ..reader.context };
        let (erased, erased_at) = match flags & ERASED {
            0 => (Position::NONE, Timestamp::default()),
            _ => (reader.known()?, reader.time()?),
        };
        Ok(Front { last, flags, last_position, erased, erased_at })
    }
}

impl Visitor {
    fn flags(&self, id: VisitorId) -> u64 {
        let flags = [
            (OPEN_PAGES, !self.open_pages.is_empty()),
            (HIT_IDS, !self.hit_ids.is_empty()),
            (LONE, self.trail == self.lone(self.trail.last.after, self.trail.last.first_position)),
            (PLAIN, self.seen.iter().all(|seen| *seen == self.plain(id, seen))),
            (BOUND, self.bound.is_some()),
            (COUNTED, !self.counted.is_empty()),
            (SHARED, self.shared),
            (ERASED, self.erased != Position::NONE),
            (NAMED, !self.named.is_empty()),
        ];
        flags.iter().filter(|(_, set)| *set).map(|(flag, _)| flag).sum()
    }

    /// The trail of a browser of whom nobody ever said anything.
    fn lone(&self, after: Position, first_position: Position) -> Trail {
        let last = Stretch {
            after,
            first_position,
            last_position: self.last_position,
            first_seen: self.first_seen,
            last_when: self.last_when,
            hits: self.hits,
            pages: self.pages,
            visits: self.session.number,
            ..Stretch::default()
        };
        Trail { past: Vec::new(), last }
    }

    /// A visit, but for what is the same of most.
    fn plain(&self, id: VisitorId, seen: &Seen) -> Seen {
        let (source, stretch) = (Source::Visitor(id), self.trail.last.after);
        Seen { source, stretch, origin: LeadId(0), withdrawn: 0, ..*seen }
    }

    /// Appends its bytes.
    pub(crate) fn save(&self, id: VisitorId, out: &mut Vec<u8>) {
        let flags = self.flags(id);
        let origin = self.bound.map_or(LeadId(0), |bound| bound.origin);
        let (time, position) = (self.session.last, self.last_position);
        let context = Context { time, position, visitor: Some(id), origin, version: 0 };
        let mut writer = Writer { out, context };
        writer.varint(self.session.last.0);
        writer.varint(flags);
        writer.varint(self.last_position.0);
        if flags & ERASED != 0 {
            writer.known(self.erased);
            writer.time(self.erased_at);
        }
        writer.time(self.session.started);
        writer.varint(u64::from(self.session.number));
        writer.time_before(self.session.started, self.first_seen);
        writer.varint(u64::from(self.hits));
        writer.varint(u64::from(self.pages));
        writer.time(self.last_when);
        if let Some(bound) = &self.bound {
            writer.binding(bound);
        }
        if flags & LONE == 0 {
            writer.list(&self.trail.past, Writer::stretch);
            writer.stretch(&self.trail.last);
        } else {
            writer.known(self.trail.last.after);
            writer.known(self.trail.last.first_position);
        }
        self.save_lists(flags, &mut writer);
        self.rows.write(id, writer.out);
    }

    fn save_lists(&self, flags: u64, writer: &mut Writer<'_>) {
        let plainly = |writer: &mut Writer<'_>, seen: &Seen| writer.plain_seen(seen);
        writer.list(&self.seen, if flags & PLAIN == 0 { Writer::seen } else { plainly });
        if flags & NAMED != 0 {
            writer.list(&self.named, |writer, (name, at)| {
                writer.lead_id(*name);
                writer.time(*at);
            });
        }
        if flags & COUNTED != 0 {
            writer.list(&self.counted, |writer, counted| {
                writer.varint(u64::from(counted.rule.0));
                writer.out.extend_from_slice(&counted.what.to_le_bytes());
                writer.time(counted.when);
            });
        }
        if flags & OPEN_PAGES != 0 {
            writer.list(&self.open_pages, |writer, page| {
                writer.out.extend_from_slice(&page.key.to_le_bytes());
                writer.varint(u64::from(page.engaged_ms));
                writer.byte(page.scroll);
            });
        }
        if flags & HIT_IDS != 0 {
            writer.list(&self.hit_ids, |writer, hit| {
                writer.out.extend_from_slice(&hit.id.to_le_bytes());
                writer.time(hit.received);
                writer.known(hit.position);
            });
        }
    }

    /// Reads what [`Visitor::save`] wrote, into a visitor whose lists may have room already; of
    /// the rows nothing is looked at. After an error it is nobody's.
    pub(crate) fn reload(&mut self, id: VisitorId, bytes: &[u8]) -> Read<()> {
        let context = Context { visitor: Some(id), ..Context::default() };
        self.read(id, &mut Reader { rest: bytes, context })
    }

    fn read(&mut self, id: VisitorId, reader: &mut Reader<'_>) -> Read<()> {
        let front = Front::read(reader)?;
        let started = reader.time()?;
        let session = Session { started, last: front.last, number: reader.number("count")? };
        let first_seen = reader.time_before(started)?;
        let (hits, pages) = (reader.number("count")?, reader.number("count")?);
        let last_when = reader.time()?;
        let bound = if front.flags & BOUND == 0 { None } else { Some(reader.binding()?) };
        reader.context.origin = bound.map_or(LeadId(0), |bound: Binding| bound.origin);
        // Every field by its name: nothing may be left of who was here before.
        *self = Visitor {
            session,
            first_seen,
            hits,
            pages,
            last_when,
            last_position: front.last_position,
            bound,
            shared: front.flags & SHARED != 0,
            erased: front.erased,
            erased_at: front.erased_at,
            trail: std::mem::take(&mut self.trail),
            rows: std::mem::take(&mut self.rows),
            seen: std::mem::take(&mut self.seen),
            named: std::mem::take(&mut self.named),
            counted: std::mem::take(&mut self.counted),
            open_pages: std::mem::take(&mut self.open_pages),
            hit_ids: std::mem::take(&mut self.hit_ids),
        };
        if front.flags & LONE == 0 {
            reader.list_into(&mut self.trail.past, Reader::stretch)?;
            self.trail.last = reader.stretch()?;
        } else {
            self.trail = self.lone(reader.known()?, reader.known()?);
        }
        self.read_lists(id, front.flags, reader)?;
        self.rows.take(id, reader)
    }

    fn read_lists(&mut self, id: VisitorId, flags: u64, reader: &mut Reader<'_>) -> Read<()> {
        if flags & PLAIN == 0 {
            reader.list_into(&mut self.seen, Reader::seen)?;
        } else {
            let blank = self.plain(id, &Seen::default());
            reader.list_into(&mut self.seen, |reader| reader.plain_seen(&blank))?;
        }
        reader.list_if(flags & NAMED != 0, &mut self.named, |reader| {
            Ok((reader.lead_id()?, reader.time()?))
        })?;
        reader.list_if(flags & COUNTED != 0, &mut self.counted, |reader| {
            Ok(Counted {
                rule: RuleId(reader.number("rule")?),
                what: u64::from_le_bytes(reader.fixed()?),
                when: reader.time()?,
            })
        })?;
        reader.list_if(flags & OPEN_PAGES != 0, &mut self.open_pages, |reader| {
            Ok(OpenPage {
                key: u64::from_le_bytes(reader.fixed()?),
                engaged_ms: reader.number("time")?,
                scroll: reader.byte()?,
            })
        })?;
        reader.list_if(flags & HIT_IDS != 0, &mut self.hit_ids, |reader| {
            Ok(HitId {
                id: u64::from_le_bytes(reader.fixed()?),
                received: reader.time()?,
                position: reader.known()?,
            })
        })
    }
}

impl Writer<'_> {
    /// How long one moment was before another.
    fn time_before(&mut self, later: Timestamp, time: Timestamp) {
        self.signed(later.0.wrapping_sub(time.0) as i64);
    }

    /// A record that the entry knows, as the difference to its last one.
    fn known(&mut self, position: Position) {
        let before = self.context.position.0.wrapping_sub(position.0) as i64;
        let apart = (before << 1 ^ before >> 63) as u64;
        self.varint(if position == Position::NONE { 0 } else { apart.wrapping_add(1) });
    }

    fn plain_seen(&mut self, seen: &Seen) {
        self.time(seen.to);
        self.time_before(seen.to, seen.from);
        self.known(seen.last);
        self.known(seen.first);
        self.varint(u64::from(seen.hits));
    }

    fn stretch(&mut self, stretch: &Stretch) {
        self.known(stretch.after);
        self.option(stretch.owner.as_ref(), |writer, owner| writer.origin(*owner));
        self.known(stretch.first_position);
        self.known(stretch.last_position);
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
    fn time_before(&mut self, later: Timestamp) -> Read<Timestamp> {
        let before = self.signed()?;
        Ok(Timestamp(later.0.wrapping_sub(before as u64)))
    }

    fn known(&mut self) -> Read<Position> {
        let Some(apart) = self.varint()?.checked_sub(1) else {
            return Ok(Position::NONE);
        };
        let before = (apart >> 1) as i64 ^ -((apart & 1) as i64);
        Ok(Position(self.context.position.0.wrapping_sub(before as u64)))
    }

    /// A list that is not written where it is empty.
    fn list_if<T>(
        &mut self,
        written: bool,
        items: &mut Vec<T>,
        read: impl FnMut(&mut Self) -> Read<T>,
    ) -> Read<()> {
        items.clear();
        if written { self.list_into(items, read) } else { Ok(()) }
    }

    fn plain_seen(&mut self, blank: &Seen) -> Read<Seen> {
        let to = self.time()?;
        let from = self.time_before(to)?;
        let (last, first) = (self.known()?, self.known()?);
        Ok(Seen { from, to, first, last, hits: self.number("count")?, ..*blank })
    }

    fn stretch(&mut self) -> Read<Stretch> {
        Ok(Stretch {
            after: self.known()?,
            owner: self.option(Reader::origin)?,
            first_position: self.known()?,
            last_position: self.known()?,
            first_seen: self.time()?,
            last_when: self.time()?,
            hits: self.number("count")?,
            pages: self.number("count")?,
            visits: self.number("count")?,
            marks: self.list(Reader::mark)?,
            given: self.list(Reader::given)?,
        })
    }

    pub(super) fn given(&mut self) -> Read<Given> {
        Ok(Given {
            step: Position(self.varint()?),
            from: self.option(Reader::origin)?,
            to: self.option(Reader::origin)?,
            sure: self.assurance()?,
        })
    }

    pub(super) fn mark(&mut self) -> Read<Mark> {
        Ok(match self.byte()? {
            0 => Mark::Severed,
            1 => Mark::Said { binding: self.binding()?, along: self.bool()? },
            2 => Mark::Taken { step: Position(self.varint()?), from: self.origin()? },
            3 => Mark::Tied { step: Position(self.varint()?), binding: self.binding()? },
            _ => return Err(WireError::UnknownNumber("mark")),
        })
    }
}
