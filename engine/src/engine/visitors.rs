//! The visitors by id, each at rest until somebody takes it by its lock.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};

use crate::id::VisitorId;
use crate::locks::{Held, Seen, Shards};
use crate::visitor::{AtRest, Visitor};

/// All of them.
pub(super) struct Visitors(Shards<VisitorId, AtRest>);

/// A visitor under its lock, awake. It is laid down again when the lock is given back, if
/// anything of it may have changed.
pub(super) struct Awake<'a> {
    place: Held<'a, VisitorId, AtRest>,
    id: VisitorId,
    room: Room,
    changed: bool,
}

/// Where one is awake, and the bytes that it is laid down in: its lists have memory already.
#[derive(Default)]
struct Room {
    visitor: Visitor,
    bytes: Vec<u8>,
}

thread_local! {
    /// The room of whoever was awake last.
    static FREE: Cell<Room> = Cell::default();
}

impl<'a> Awake<'a> {
    fn of(id: VisitorId, place: Held<'a, VisitorId, AtRest>) -> Awake<'a> {
        let mut room = FREE.take();
        place.wake_in(id, &mut room.visitor);
        Awake { place, id, room, changed: false }
    }

    /// Whose it is.
    pub(super) fn id(&self) -> VisitorId {
        self.id
    }
}

impl Deref for Awake<'_> {
    type Target = Visitor;

    fn deref(&self) -> &Visitor {
        &self.room.visitor
    }
}

impl DerefMut for Awake<'_> {
    fn deref_mut(&mut self) -> &mut Visitor {
        self.changed = true;
        &mut self.room.visitor
    }
}

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        let mut room = std::mem::take(&mut self.room);
        if self.changed {
            self.place.lay(self.id, &room.visitor, &mut room.bytes);
        }
        FREE.set(room);
    }
}

impl Visitors {
    /// None yet, in so many shards, with room for so many.
    pub(super) fn new(shards: usize, entries: usize) -> Visitors {
        Visitors(Shards::new(shards, entries))
    }

    /// The visitor, made if it is not there, under its lock.
    pub(super) fn entry(&self, id: VisitorId) -> Awake<'_> {
        Awake::of(id, self.0.entry(id))
    }

    /// The visitor under its lock, if it is there.
    pub(super) fn get_mut(&self, id: &VisitorId) -> Option<Awake<'_>> {
        self.0.get_mut(id).map(|place| Awake::of(*id, place))
    }

    /// The visitor as it is now.
    pub(super) fn get(&self, id: &VisitorId) -> Option<Visitor> {
        self.asleep(id).map(|place| place.wake(*id))
    }

    /// The visitor under its lock, not woken.
    pub(super) fn asleep(&self, id: &VisitorId) -> Option<Seen<'_, VisitorId, AtRest>> {
        self.0.get(id)
    }

    /// Puts one in.
    pub(super) fn insert(&self, id: VisitorId, at_rest: AtRest) {
        self.0.insert(id, at_rest);
    }

    /// Takes one out.
    pub(super) fn remove(&self, id: &VisitorId) {
        drop(self.0.remove(id));
    }

    /// Wakes every one, one lock after another: for jobs and figures, not for every request.
    pub(super) fn each(&self, mut look: impl FnMut(&VisitorId, &Visitor)) {
        let mut room = Visitor::default();
        self.0.each(|id, at_rest| {
            at_rest.wake_in(*id, &mut room);
            look(id, &room);
        });
    }

    /// Who they are. None is woken.
    pub(super) fn each_id(&self, mut look: impl FnMut(&VisitorId)) {
        self.0.each(|id, _| look(id));
    }

    /// Keeps whom to keep. None is woken.
    pub(super) fn retain(&self, mut keep: impl FnMut(&AtRest) -> bool) {
        self.0.retain(|_, at_rest| keep(at_rest));
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
