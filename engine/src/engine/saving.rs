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
    fn visitors_of(&self, slot: Slot) -> &[VisitorId] {
        let from = self.visitors.partition_point(|id| id.slot() < slot);
        let until = self.visitors.partition_point(|id| id.slot() <= slot);
        &self.visitors[from..until]
    }

    fn leads_of(&self, slot: Slot) -> &[LeadId] {
        let from = self.leads.partition_point(|id| id.slot() < slot);
        let until = self.leads.partition_point(|id| id.slot() <= slot);
        &self.leads[from..until]
    }
}

impl Engine {
    /// The ids of everything in memory.
    pub fn ids(&self) -> Ids {
        let (visitors, leads) = self.sizes();
        let mut ids =
            Ids { visitors: Vec::with_capacity(visitors), leads: Vec::with_capacity(leads) };
        self.visitors.each(|id, _| ids.visitors.push(*id));
        self.leads.each(|id, _| ids.leads.push(*id));
        ids.visitors.sort_unstable();
        ids.leads.sort_unstable();
        ids
    }

    /// Writes down a slot's entries as each is now, but for visitors whom a sweep at `now` would
    /// forget: for one who has only just expired, a hit received a moment earlier may still come.
    pub fn save_slot(
        &self,
        slot: Slot,
        ids: &Ids,
        now: Timestamp,
    ) -> Result<SavedSlot, SnapshotError> {
        let surely = now.minus(SWEEP_MARGIN);
        let mut writer = SlotWriter::default();
        for id in ids.visitors_of(slot) {
            if let Some(visitor) = self.visitors.get(id)
                && visitor.exists()
                && !visitor.is_expired(surely)
            {
                writer.visitor(*id, &visitor);
            }
        }
        for id in ids.leads_of(slot) {
            if let Some(lead) = self.leads.get(id).filter(|lead| lead.exists()) {
                writer.lead(*id, &lead);
            }
        }
        writer.finish()
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
            |id, visitor| self.visitors.insert(id, visitor),
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
