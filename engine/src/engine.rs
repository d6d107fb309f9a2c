//! The Engine holds the visitors and leads. The only file that knows DashMap and lock order:
//! visitor, lead, timers, and last the journal's tail, inside `push`. Never two keys of one
//! map, never a guard across a wait.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use dashmap::DashMap;

use crate::catalog::Catalog;
use crate::hit::Hit;
use crate::id::{FixedHash, Key, LeadId, Position, Slot, VisitorId};
use crate::lead::{Due, Lead, Receipt};
use crate::record::{Body, FirstHit, HitRecord, LeadPart, Name, Published, Record};
use crate::scoring::Scoring;
use crate::time::Timestamp;
use crate::visitor::{LeadEvent, Visit, Visitor, server_event};

/// Locks each map is divided into. Eight would hold one for 29 ms while five million entries
/// are read; so many hold it for 0.06 ms.
pub const SHARDS_DEFAULT: usize = 1_024;

/// How long an expired visitor stays in memory. Hits in flight, and a clock that steps back,
/// are behind by less.
pub const SWEEP_MARGIN: Duration = Duration::from_hours(24);

/// Takes a record and says where it stands. The journal's tail, or a test.
pub type Push<'a> = dyn FnMut(&Record) -> Position + 'a;

/// Who is due when, the earliest first.
type Timers = BinaryHeap<Reverse<(Timestamp, LeadId)>>;

/// Everything in memory.
pub struct Engine {
    visitors: DashMap<VisitorId, Visitor, FixedHash>,
    leads: DashMap<LeadId, Lead, FixedHash>,
    timers: Vec<Mutex<Timers>>,
    catalog: RwLock<Catalog>,
    links_refused: AtomicU64,
}

/// A hit on its way in, with the first hit of the visitor whom it admits.
#[derive(Clone, Debug, Default)]
pub struct Arrival {
    /// The hit.
    pub hit: Hit,
    /// The first hit, recorded on its own before.
    pub first: Option<FirstHit>,
}

/// What became of a hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ingested {
    /// Recorded there.
    Recorded(Position),
    /// Recorded there before; nothing was recorded now.
    Duplicate(Position),
}

/// Aborts the process if dropped by a panic: a half-applied record is worse than none, and
/// replay will decide.
struct AllOrNothing;

impl Drop for AllOrNothing {
    fn drop(&mut self) {
        // A drop in good order is disarmed by `mem::forget`; only unwinding comes here.
        std::process::abort();
    }
}

impl Engine {
    /// An empty engine. `shards` is a power of two, at least 2.
    pub fn new(shards: usize) -> Engine {
        let shards = shards.next_power_of_two().max(2);
        Engine {
            visitors: DashMap::with_hasher_and_shard_amount(FixedHash, shards),
            leads: DashMap::with_hasher_and_shard_amount(FixedHash, shards),
            timers: (0..Slot::COUNT).map(|_| Mutex::default()).collect(),
            catalog: RwLock::default(),
            links_refused: AtomicU64::new(0),
        }
    }

    /// Decides a hit, pushes its record and applies it, all under the locks of whom it touches.
    /// A hit without visitor and claim, or of a visitor who is not admitted, is only recorded.
    pub fn ingest(&self, arrival: Arrival, scoring: &Scoring, push: &mut Push<'_>) -> Ingested {
        let now = arrival.hit.received;
        let mut record =
            HitRecord { hit: arrival.hit, first: arrival.first, visit: None, lead: None };
        let Some(id) = record.hit.visitor else {
            let event = record.hit.claim.as_ref().map(|claim| claim.lead);
            let event = event.map(|lead| server_event(&record.hit, lead, scoring));
            return self.ingest_for_lead(None, event.as_ref(), record, scoring, push);
        };
        let mut visitor = self.visitors.entry(id).or_default();
        if visitor.is_expired(now) {
            *visitor = Visitor::default();
        }
        // Who is here already was admitted by another hit.
        record.first = record.first.filter(|_| visitor.hits == 0);
        match visitor.visit(record.first.as_ref(), &record.hit, scoring) {
            Visit::Duplicate(position) => Ingested::Duplicate(position),
            Visit::New { part, event } => {
                record.visit = Some(*part);
                self.ingest_for_lead(Some(&mut visitor), event.as_deref(), record, scoring, push)
            }
        }
    }

    fn ingest_for_lead(
        &self,
        visitor: Option<&mut Visitor>,
        event: Option<&LeadEvent>,
        mut record: HitRecord,
        scoring: &Scoring,
        push: &mut Push<'_>,
    ) -> Ingested {
        let now = record.hit.received;
        let mut lead = event.map(|event| self.leads.entry(event.lead).or_default());
        if let (Some(lead), Some(event)) = (&lead, event) {
            match lead.receive(event, &record, scoring, now) {
                Receipt::Part(part) => record.lead = Some(*part),
                Receipt::TooManyLinks => {
                    self.links_refused.fetch_add(1, Ordering::Relaxed);
                    if let Some(visit) = &mut record.visit {
                        visit.bound = None;
                    }
                }
            }
        }
        let guard = AllOrNothing;
        let whole =
            Record { time: now, version: scoring.version, body: Body::Hit(Box::new(record)) };
        let position = push(&whole);
        if let Body::Hit(record) = &whole.body {
            if let Some(visitor) = visitor {
                visitor.evolve(record, position);
            }
            if let (Some(lead), Some(part)) = (&mut lead, &record.lead) {
                lead.evolve(part, Some(record), now, position);
                if lead.is_due_stale(part, record) {
                    self.queue(part.lead, lead, scoring);
                }
            }
        }
        std::mem::forget(guard);
        Ingested::Recorded(position)
    }

    /// Acts on every lead that is due by `now`, each with a record of its own.
    pub fn advance(&self, now: Timestamp, scoring: &Scoring, push: &mut Push<'_>) -> usize {
        (0..Slot::COUNT).map(|slot| self.advance_slot(slot, now, scoring, push)).sum()
    }

    fn advance_slot(
        &self,
        slot: usize,
        now: Timestamp,
        scoring: &Scoring,
        push: &mut Push<'_>,
    ) -> usize {
        let mut changed = 0;
        // The timers' lock comes after the lead's: take the id out first.
        while let Some((due, id)) = self.pop_due(slot, now) {
            // An entry that an earlier one replaced is dropped, or there would be ever more.
            let lead = self.leads.get_mut(&id).filter(|lead| lead.queued == Some(due));
            let Some(mut lead) = lead else {
                continue;
            };
            lead.queued = None;
            if let Some(part) = lead.advance(id, scoring, now) {
                let guard = AllOrNothing;
                let record =
                    Record { time: now, version: scoring.version, body: Body::Due(Box::new(part)) };
                let position = push(&record);
                if let Body::Due(part) = &record.body {
                    lead.evolve(part, None, now, position);
                }
                std::mem::forget(guard);
                changed += 1;
            }
            self.queue(id, &mut lead, scoring);
        }
        changed
    }

    fn pop_due(&self, slot: usize, now: Timestamp) -> Option<(Timestamp, LeadId)> {
        let mut timers = locked(&self.timers[slot]);
        let Reverse((due, id)) = *timers.peek()?;
        if due > now {
            return None;
        }
        timers.pop();
        Some((due, id))
    }

    /// Works out when the lead is due next and puts it among its slot's timers, unless it
    /// stands there already under an earlier moment: that one is a lower bound.
    fn queue(&self, id: LeadId, lead: &mut Lead, scoring: &Scoring) {
        let Some(due) = lead.next_due(scoring) else {
            lead.due = Due::Never;
            return;
        };
        lead.due = Due::At(due);
        if lead.queued.is_none_or(|queued| due < queued) {
            lead.queued = Some(due);
            locked(&self.timers[usize::from(id.slot().0)]).push(Reverse((due, id)));
        }
    }

    /// The earliest moment at which anybody may be due.
    pub fn next_due(&self) -> Option<Timestamp> {
        let first = |timers: &Mutex<Timers>| locked(timers).peek().map(|Reverse((due, _))| *due);
        self.timers.iter().filter_map(first).min()
    }

    /// Works out all timers anew: after replay, and when the rules have changed.
    pub fn rebuild_timers(&self, scoring: &Scoring) {
        for timers in &self.timers {
            locked(timers).clear();
        }
        for mut entry in self.leads.iter_mut() {
            let (id, lead) = entry.pair_mut();
            lead.queued = None;
            if lead.exists() {
                self.queue(*id, lead, scoring);
            }
        }
    }

    /// Applies a record at its position: the whole of replay.
    pub fn evolve(&self, record: &Record, position: Position) {
        match &record.body {
            Body::Hit(hit_record) => {
                if let (Some(id), Some(_)) = (hit_record.hit.visitor, &hit_record.visit) {
                    let mut visitor = self.visitors.entry(id).or_default();
                    if visitor.is_expired(record.time) {
                        *visitor = Visitor::default();
                    }
                    visitor.evolve(hit_record, position);
                }
                if let Some(part) = &hit_record.lead {
                    self.evolve_lead(part, Some(hit_record), record.time, position);
                }
            }
            Body::Due(part) => self.evolve_lead(part, None, record.time, position),
            Body::Published(published) => {
                written(&self.catalog).evolve_published(published);
            }
            Body::Named(names) => written(&self.catalog).evolve_names(names),
            Body::Outbox(_) => {}
        }
    }

    fn evolve_lead(
        &self,
        part: &LeadPart,
        hits: Option<&HitRecord>,
        time: Timestamp,
        position: Position,
    ) {
        let mut lead = self.leads.entry(part.lead).or_default();
        lead.due = Due::Unknown;
        lead.evolve(part, hits, time, position);
    }

    /// Journals a version of the scoring and applies it.
    pub fn publish(&self, published: Published, now: Timestamp, push: &mut Push<'_>) -> Position {
        let mut catalog = written(&self.catalog);
        let record =
            Record { time: now, version: published.version, body: Body::Published(published) };
        let position = push(&record);
        if let Body::Published(published) = &record.body {
            catalog.evolve_published(published);
        }
        position
    }

    /// Journals names and applies them.
    pub fn name(&self, names: Vec<Name>, now: Timestamp, push: &mut Push<'_>) -> Position {
        let mut catalog = written(&self.catalog);
        let record = Record { time: now, version: catalog.version, body: Body::Named(names) };
        let position = push(&record);
        if let Body::Named(names) = &record.body {
            catalog.evolve_names(names);
        }
        position
    }

    /// The names as they stand.
    pub fn catalog(&self) -> Catalog {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One lead, as it is now.
    pub fn lead(&self, id: LeadId) -> Option<Lead> {
        self.leads.get(&id).filter(|lead| lead.exists()).map(|lead| lead.clone())
    }

    /// Whether a lead is known, without copying it.
    pub fn has_lead(&self, id: LeadId) -> bool {
        self.leads.get(&id).is_some_and(|lead| lead.exists())
    }

    /// One visitor, as it is now.
    pub fn visitor(&self, id: VisitorId, now: Timestamp) -> Option<Visitor> {
        self.visitors.get(&id).filter(|visitor| !visitor.is_expired(now)).map(|known| known.clone())
    }

    /// Whether a visitor is in memory: whether their first hit need not be fetched.
    pub fn knows(&self, id: VisitorId, now: Timestamp) -> bool {
        self.visitors.get(&id).is_some_and(|visitor| !visitor.is_expired(now))
    }

    /// Forgets visitors who are absent anyway. Unobservable, but for the memory it frees: one
    /// who has only just expired is kept, since a hit received a moment earlier may still come.
    pub fn sweep(&self, now: Timestamp) {
        let surely = now.minus(SWEEP_MARGIN);
        self.visitors.retain(|_, visitor| !visitor.is_expired(surely));
    }

    /// How many visitors, expired ones included, and leads are in memory.
    pub fn sizes(&self) -> (usize, usize) {
        (self.visitors.len(), self.leads.len())
    }

    /// Moments that stand among the timers: one for each lead that time may move, and those that
    /// an earlier one has replaced until they come up.
    pub fn timers(&self) -> usize {
        self.timers.iter().map(|timers| locked(timers).len()).sum()
    }

    /// Ties refused because a lead had as many browsers as it may have.
    pub fn links_refused(&self) -> u64 {
        self.links_refused.load(Ordering::Relaxed)
    }

    /// The ids of all leads, in no order. For start-up and tests, not for lists.
    pub fn lead_ids(&self) -> Vec<LeadId> {
        self.leads.iter().filter(|lead| lead.exists()).map(|lead| *lead.key()).collect()
    }

    /// A hash of everything replay must restore, whatever the shards, threads and order: the
    /// wrapping sum of the 128-bit hashes of all entries.
    pub fn state_hash(&self, now: Timestamp) -> u128 {
        const STATE: Key = Key(*b"mikomi state  v1");
        let mut bytes = Vec::new();
        self.catalog().canonical(&mut bytes);
        let mut sum = STATE.hash128(&[b"catalog", &bytes]);
        for entry in self.visitors.iter().filter(|entry| !entry.is_expired(now)) {
            bytes.clear();
            entry.canonical(&mut bytes);
            sum = sum.wrapping_add(STATE.hash128(&[
                b"visitor",
                &entry.key().0.to_le_bytes(),
                &bytes,
            ]));
        }
        for entry in self.leads.iter().filter(|entry| entry.exists()) {
            bytes.clear();
            entry.canonical(&mut bytes);
            sum = sum.wrapping_add(STATE.hash128(&[b"lead", &entry.key().0.to_le_bytes(), &bytes]));
        }
        sum
    }
}

/// A panic under a timers' lock has left a heap that is whole: entries are pushed and popped
/// in one step, and each is checked against its lead.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn written(catalog: &RwLock<Catalog>) -> std::sync::RwLockWriteGuard<'_, Catalog> {
    catalog.write().unwrap_or_else(PoisonError::into_inner)
}
