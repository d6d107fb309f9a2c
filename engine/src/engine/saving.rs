//! Taking what is in memory into a snapshot, and putting it back: an entry at a time, each under
//! its own lock for as long as it takes to write it down.

use std::sync::atomic::Ordering;

use crate::catalog::Catalog;
use crate::id::{LeadId, Position, Slot, VisitorId};
use crate::lead::Unseal;
use crate::snapshot::{SavedSlot, SlotReader, SlotWriter, SnapshotError};
use crate::time::Timestamp;

use super::{Engine, SWEEP_MARGIN, written};

/// The ids of everything in memory, by slot. Whatever comes later is in the records after.
pub struct Ids {
    visitors: Vec<VisitorId>,
    leads: Vec<LeadId>,
}

impl Ids {
    /// Begins to write a slot down.
    pub fn begin(&self, slot: Slot) -> SlotSaving {
        let mut visitors = of_slot(&self.visitors, slot, |id| id.slot()).to_vec();
        let mut leads = of_slot(&self.leads, slot, |id| id.slot()).to_vec();
        visitors.sort_unstable_by(|a, b| b.cmp(a));
        leads.sort_unstable_by(|a, b| b.cmp(a));
        SlotSaving { visitors, leads, writer: SlotWriter::default() }
    }
}

fn of_slot<K>(ids: &[K], slot: Slot, slot_of: impl Fn(&K) -> Slot) -> &[K] {
    let from = ids.partition_point(|id| slot_of(id) < slot);
    let until = ids.partition_point(|id| slot_of(id) <= slot);
    &ids[from..until]
}

/// Ids taken before one may rest: some 50 microseconds of work.
const AT_ONCE: usize = 1_024;

pub(super) fn rest_now_and_then(taken: usize, rest: &mut impl FnMut()) {
    if taken.is_multiple_of(AT_ONCE) {
        rest();
    }
}

/// A slot being written down.
pub struct SlotSaving {
    /// Who is still to come, the last one first.
    visitors: Vec<VisitorId>,
    /// And then of leads.
    leads: Vec<LeadId>,
    writer: SlotWriter,
}

impl SlotSaving {
    /// Writes down so many entries, each as it is now, but for visitors whom a sweep at `now`
    /// would forget: for one who has only just expired, a hit received a moment earlier may still
    /// come. Whether that were all.
    pub fn some(&mut self, engine: &Engine, most: usize, now: Timestamp) -> bool {
        let surely = now.minus(SWEEP_MARGIN);
        for _ in 0..most {
            if let Some(id) = self.visitors.pop() {
                let held = engine.visitors.asleep(&id);
                if let Some(held) = held.filter(|it| it.exists() && !it.is_expired(surely)) {
                    self.writer.visitor(id, &held);
                }
            } else if let Some(id) = self.leads.pop() {
                if let Some(held) = engine.leads.get(&id).filter(|it| it.exists()) {
                    self.writer.lead(id, &held);
                }
            } else {
                return true;
            }
        }
        self.visitors.is_empty() && self.leads.is_empty()
    }

    /// All of it, in bytes.
    pub fn finish(self) -> Result<SavedSlot, SnapshotError> {
        self.writer.finish()
    }
}

impl Engine {
    /// The ids of everything in memory. They come shard by shard, which is slot by slot where
    /// there are as many: then this sorts nothing. `rest` is called again and again meanwhile,
    /// under the lock of one shard: whoever wants that waits for it.
    pub fn ids(&self, mut rest: impl FnMut()) -> Ids {
        let (visitors, leads) = self.sizes();
        let mut ids =
            Ids { visitors: Vec::with_capacity(visitors), leads: Vec::with_capacity(leads) };
        self.visitors.each_id(|id| {
            ids.visitors.push(*id);
            rest_now_and_then(ids.visitors.len(), &mut rest);
        });
        self.leads.each(|id, _| {
            ids.leads.push(*id);
            rest_now_and_then(ids.leads.len(), &mut rest);
        });
        ids.visitors.sort_by_key(|id| id.slot());
        ids.leads.sort_by_key(|id| id.slot());
        ids
    }

    /// Writes down a slot's entries at once.
    pub fn save_slot(
        &self,
        slot: Slot,
        ids: &Ids,
        now: Timestamp,
    ) -> Result<SavedSlot, SnapshotError> {
        let mut saving = ids.begin(slot);
        while !saving.some(self, usize::MAX, now) {}
        saving.finish()
    }

    /// Puts a slot's entries back. Into an engine that has none of them; the records after the
    /// snapshot was begun come next, and then the timers.
    pub fn restore_slot(
        &self,
        slots: &SlotReader<'_>,
        unseal: &Unseal<'_>,
    ) -> Result<(), SnapshotError> {
        slots.read(
            unseal,
            |id, at_rest| self.visitors.insert(id, at_rest),
            |id, lead| {
                if lead.erased != Position::NONE {
                    self.erasures.note(lead.erased, lead.erased_at);
                }
                self.leads.insert(id, lead);
            },
        )
    }

    /// Puts the names and versions back.
    pub fn restore_catalog(&self, catalog: Catalog) {
        self.version.store(catalog.version(), Ordering::Release);
        *written(&self.catalog) = catalog;
    }
}
