//! Timers: who is due when. A lead stands in its slot's heap under a moment that is a lower
//! bound of when time alone brings it a crossing; heaps are derived, and rebuilt after replay.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::PoisonError;

use crate::id::{LeadId, Slot};
use crate::lead::{Due, Lead};
use crate::locks::{Mutex, MutexGuard};
use crate::record::Body;
use crate::scoring::Scoring;
use crate::time::Timestamp;

use super::{Engine, Means, Push};

/// Who is due when, the earliest first.
type Heap = BinaryHeap<Reverse<(Timestamp, LeadId)>>;

/// A heap for each slot.
pub(super) struct Timers(Vec<Mutex<Heap>>);

impl Default for Timers {
    fn default() -> Timers {
        Timers((0..Slot::COUNT).map(|_| Mutex::new(Heap::new())).collect())
    }
}

impl Timers {
    /// Works out when the lead is due next and puts it among its slot's timers, unless it
    /// stands there already under an earlier moment: that one is a lower bound.
    pub(super) fn queue(&self, id: LeadId, lead: &mut Lead, scoring: &Scoring) {
        let Some(due) = lead.next_due(scoring) else {
            lead.due = Due::Never;
            return;
        };
        lead.due = Due::At(due);
        if lead.queued.is_none_or(|queued| due < queued) {
            lead.queued = Some(due);
            locked(&self.0[usize::from(id.slot().0)]).push(Reverse((due, id)));
        }
    }

    fn pop_due(&self, slot: usize, now: Timestamp) -> Option<(Timestamp, LeadId)> {
        let mut heap = locked(&self.0[slot]);
        let Reverse((due, id)) = *heap.peek()?;
        if due > now {
            return None;
        }
        heap.pop();
        Some((due, id))
    }
}

impl Engine {
    /// Acts on every lead that is due by `now`, each with a record of its own.
    pub fn advance(&self, now: Timestamp, scoring: &Scoring, push: &mut Push<'_>) -> usize {
        let mut means = Means { scoring, now, push };
        (0..Slot::COUNT).map(|slot| self.advance_slot(slot, &mut means)).sum()
    }

    fn advance_slot(&self, slot: usize, means: &mut Means<'_, '_>) -> usize {
        let mut changed = 0;
        // The timers' lock comes after the lead's: take the id out first.
        while !self.is_stale(means.scoring)
            && let Some((due, id)) = self.timers.pop_due(slot, means.now)
        {
            // An entry that an earlier one replaced is dropped, or there would be ever more.
            let lead = self.leads.get_mut(&id).filter(|lead| lead.queued == Some(due));
            let Some(mut lead) = lead else {
                continue;
            };
            lead.queued = None;
            changed += usize::from(act_on_time(id, &mut lead, means));
            self.timers.queue(id, &mut lead, means.scoring);
        }
        changed
    }

    /// The earliest moment at which anybody may be due.
    pub fn next_due(&self) -> Option<Timestamp> {
        let first = |heap: &Mutex<Heap>| locked(heap).peek().map(|Reverse((due, _))| *due);
        self.timers.0.iter().filter_map(first).min()
    }

    /// Works out all timers anew: after replay, and when the rules have changed.
    pub fn rebuild_timers(&self, scoring: &Scoring) {
        for heap in &self.timers.0 {
            locked(heap).clear();
        }
        self.leads.each_mut(|id, lead| {
            lead.queued = None;
            if lead.is_person() {
                self.timers.queue(*id, lead, scoring);
            }
        });
    }

    /// Moments that stand among the timers: one for each lead that time may move, and those that
    /// an earlier one has replaced until they come up.
    pub fn timers(&self) -> usize {
        self.timers.0.iter().map(|heap| locked(heap).len()).sum()
    }
}

/// What time alone does to a lead until now, with a record of its own; whether it does
/// anything.
pub(super) fn act_on_time(id: LeadId, lead: &mut Lead, means: &mut Means<'_, '_>) -> bool {
    let stamp = means.stamp();
    let part = lead.advance(id, means.scoring, means.now);
    let changed = part.is_some();
    if let Some(part) = part {
        means.record(Body::Due(Box::new(part)), |whole, position| {
            if let Body::Due(part) = &whole.body {
                lead.evolve(part, None, stamp, position);
            }
        });
    }
    lead.caught_up(means.in_force());
    changed
}

/// A panic under a timers' lock has left a heap that is whole: entries are pushed and popped
/// in one step, and each is checked against its lead.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
