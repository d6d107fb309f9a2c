//! A visitor at rest: the bytes that a snapshot has of it, in one piece of memory. Most are not
//! here just now, and whoever comes is woken, does something, and is laid down again.
//!
//! Worth it: a million visitors and 50,000 leads take 391 MiB, and took 1,490 while each visitor
//! was lists in pieces of memory of their own; and a start, which is mostly touching memory for
//! the first time, takes less than half as long.

use crate::id::{Position, VisitorId};
use crate::time::Timestamp;
use crate::wire::{Context, Read, Reader};

use super::saved::Front;
use super::{VISITOR_LIFE, Visitor};

/// The bytes; none of who is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AtRest(Box<[u8]>);

impl AtRest {
    /// Bytes that somebody else kept, if they are a visitor's. `room` is for finding out: who is
    /// in it goes, and what it has of memory is used again.
    pub(crate) fn read(id: VisitorId, bytes: &[u8], room: &mut Visitor) -> Read<AtRest> {
        room.reload(id, bytes)?;
        room.rows.check()?;
        Ok(AtRest(bytes.into()))
    }

    /// The same of bytes that the first form of snapshots has of a visitor.
    pub(crate) fn read_1(id: VisitorId, bytes: &[u8]) -> Read<AtRest> {
        let mut at_rest = AtRest::default();
        at_rest.lay(id, &Visitor::read_1(id, bytes)?, &mut Vec::new());
        Ok(at_rest)
    }

    /// Lays a visitor down. `bytes` is room to write in.
    pub(crate) fn lay(&mut self, id: VisitorId, visitor: &Visitor, bytes: &mut Vec<u8>) {
        bytes.clear();
        if visitor.exists() {
            visitor.save(id, bytes);
        }
        if bytes.len() == self.0.len() {
            self.0.copy_from_slice(bytes);
        } else {
            self.0 = bytes.as_slice().into();
        }
    }

    /// The visitor.
    pub fn wake(&self, id: VisitorId) -> Visitor {
        let mut visitor = Visitor::default();
        self.wake_in(id, &mut visitor);
        visitor
    }

    /// The visitor, in the room of another one, who goes.
    pub(crate) fn wake_in(&self, id: VisitorId, room: &mut Visitor) {
        if self.exists() {
            room.reload(id, &self.0).expect("whoever was laid down can be woken");
        } else {
            *room = Visitor::default();
        }
    }

    /// The bytes themselves.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether there is a visitor at all.
    pub fn exists(&self) -> bool {
        !self.0.is_empty()
    }

    /// See [`Visitor::is_expired`]. Without waking it.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        // Nobody expires before their last hit did, which stands in front; that they forgot
        // somebody later is rare, and is looked for only where it would matter.
        let last = self.reader().varint().map_or(Timestamp(0), Timestamp);
        now.since(last) >= VISITOR_LIFE && {
            let erased_at = self.front().map_or(Timestamp(0), |front| front.erased_at);
            now.since(last.max(erased_at)) >= VISITOR_LIFE
        }
    }

    /// Its last record.
    pub fn last_position(&self) -> Position {
        self.front().map_or(Position::NONE, |front| front.last_position)
    }

    fn front(&self) -> Option<Front> {
        Front::read(&mut self.reader()).ok()
    }

    fn reader(&self) -> Reader<'_> {
        Reader { rest: &self.0, context: Context::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;
    use crate::visitor::Rows;

    const ID: VisitorId = VisitorId(7 << 100 | 5);

    fn laid(visitor: &Visitor) -> AtRest {
        let mut at_rest = AtRest::default();
        at_rest.lay(ID, visitor, &mut Vec::new());
        at_rest
    }

    #[test]
    fn whoever_is_not_there_takes_no_bytes_and_is_woken_as_nobody() {
        let at_rest = laid(&Visitor::default());
        assert!(!at_rest.exists() && at_rest.bytes().is_empty());
        assert_eq!(at_rest.wake(ID), Visitor::default());
        assert_eq!(at_rest.last_position(), Position::NONE);
        assert_eq!(at_rest.is_expired(Timestamp(1)), Visitor::default().is_expired(Timestamp(1)));
    }

    #[test]
    fn what_is_asked_of_a_sleeper_is_what_it_says_when_it_is_woken() {
        let day = 24 * 3_600_000;
        let mut visitor = Visitor::default();
        visitor.session.last = Timestamp(900 * day);
        visitor.last_position = Position(77);
        for erased_at in [0, 100, 950] {
            visitor.erased_at = Timestamp(erased_at * day);
            visitor.erased = Position(if erased_at == 0 { 0 } else { 70 });
            let at_rest = laid(&visitor);
            assert_eq!(at_rest.wake(ID), visitor);
            assert_eq!(at_rest.last_position(), Position(77));
            for days in [0, 900, 1_299, 1_300, 1_349, 1_350, 9_999] {
                let now = Timestamp(days * day);
                assert_eq!(at_rest.is_expired(now), visitor.is_expired(now), "day {days}");
            }
        }
    }

    #[test]
    fn bytes_that_are_no_visitor_s_are_refused_whoever_was_looked_at_before() {
        let mut room = Visitor::default();
        assert!(AtRest::read(ID, &[], &mut room).is_err());
        let mut visitor = Visitor { hits: 3, ..Visitor::default() };
        visitor.last_position = Position(1);
        let at_rest = laid(&visitor);
        let bytes = at_rest.bytes();
        for end in 0..bytes.len() {
            assert!(AtRest::read(ID, &bytes[..end], &mut room).is_err(), "{end} bytes");
        }
        assert!(AtRest::read(ID, &[bytes, &[0]].concat(), &mut room).is_err());
        assert_eq!(AtRest::read(ID, bytes, &mut room), Ok(at_rest.clone()));
    }

    #[test]
    fn whoever_is_read_into_the_room_of_another_has_nothing_of_theirs() {
        let mut rich = Visitor { hits: 9, pages: 4, shared: true, ..Visitor::default() };
        rich.last_position = Position(8);
        rich.erased = Position(5);
        rich.erased_at = Timestamp(6);
        rich.rows = Rows::of(ID, &[crate::ledger::Row::default(); 3]);
        rich.named = vec![(crate::id::LeadId(1 << 62), Timestamp(3))];
        rich.trail.past = vec![crate::visitor::Stretch::default(); 2];
        let mut poor = Visitor { hits: 1, ..Visitor::default() };
        poor.last_position = Position(2);
        let mut room = Visitor::default();
        for visitor in [&rich, &poor, &rich, &poor] {
            room.reload(ID, laid(visitor).bytes()).unwrap();
            assert_eq!(&room, visitor);
        }
    }
}
