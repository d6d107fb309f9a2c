//! A Turn is one sender's: whoever it woke stays awake, under their lock, until it wants somebody
//! else. The hits of a batch are nearly all of one browser, which is then woken and laid down once.
//!
//! Worth it: waking and laying down took a quarter of the 13 us of a hit in a batch of 100.

use crate::id::{LeadId, VisitorId};
use crate::record::HitRecord;
use crate::scoring::Scoring;
use crate::time::Timestamp;
use crate::visitor::{LeadEvent, Visit, Visitor, server_event};

use super::visitors::Awake;
use super::{Arrival, Authority, Engine, Ingested, Means, Push, stale};

/// Hits for which a visitor stays awake at most: others may be waiting for the lock.
const HITS_AWAKE_MAX: u32 = 128;

/// See the module's head. While it lasts its thread asks the engine for no visitor but through it:
/// it may hold the lock that would be waited for.
pub struct Turn<'a> {
    engine: &'a Engine,
    awake: Option<Awake<'a>>,
    /// Hits of whoever is awake.
    hits: u32,
}

/// What became of a hit, and who is proved to be one with its person: the head, and the others.
type Done = (Ingested, Option<(LeadId, Vec<LeadId>)>);

impl Engine {
    /// The turn of a sender. Nobody is awake yet.
    pub fn turn(&self) -> Turn<'_> {
        Turn { engine: self, awake: None, hits: 0 }
    }
}

impl Turn<'_> {
    /// Lays whoever is awake down, and gives the lock back.
    pub fn rest(&mut self) {
        self.awake = None;
        self.hits = 0;
    }

    /// See [`Engine::knows`]. Whoever is known is awake then.
    pub fn knows(&mut self, id: VisitorId, now: Timestamp) -> bool {
        if self.rest_but_for(id) {
            self.awake = self.engine.visitors.get_mut(&id);
        }
        self.awake.as_ref().is_some_and(|visitor| !visitor.is_expired(now))
    }

    /// See [`Engine::ingest`].
    pub fn ingest(&mut self, arrival: Arrival, scoring: &Scoring, push: &mut Push<'_>) -> Ingested {
        let engine = self.engine;
        let mut means = Means { scoring, now: arrival.hit.received, push };
        let erasures = engine.erasures.count();
        let (hit, first) = (arrival.hit, arrival.first);
        let mut record = Box::new(HitRecord { hit, first, ..HitRecord::default() });
        engine.forget_claim(&mut record);
        if engine.is_closed(&record, None) {
            self.rest();
            return stale(record);
        }
        let (ingested, merges) = match record.hit.visitor {
            None => {
                self.rest();
                engine.ingest_of_nobody(record, erasures, &mut means)
            }
            Some(id) => engine.ingest_of((id, self.wake(id)), record, erasures, &mut means),
        };
        match (&ingested, merges) {
            // People are joined under their own locks, which come before a visitor's.
            (Ingested::Recorded(_), Some((head, others))) => {
                self.rest();
                for other in others {
                    // Who is one already needs no joining, and nothing else is wrong with it.
                    let _ = engine.merge(head, other, &Authority::proof(), &mut means);
                }
            }
            (Ingested::Stale(_), _) => self.rest(),
            _ => {}
        }
        ingested
    }

    /// The visitor, made if it is not there, under its lock.
    fn wake(&mut self, id: VisitorId) -> &mut Visitor {
        self.rest_but_for(id);
        self.hits += 1;
        self.awake.get_or_insert_with(|| self.engine.visitors.entry(id))
    }

    /// Gives the lock of anybody else back, and this one's too if it was held for long; whether
    /// nobody is awake then.
    fn rest_but_for(&mut self, id: VisitorId) -> bool {
        if self.hits >= HITS_AWAKE_MAX || self.awake.as_ref().is_some_and(|awake| awake.id() != id)
        {
            self.rest();
        }
        self.awake.is_none()
    }
}

impl Engine {
    fn ingest_of_nobody(
        &self,
        mut record: Box<HitRecord>,
        erasures: u64,
        means: &mut Means<'_, '_>,
    ) -> Done {
        let decided = server_event(&record.hit, means.scoring, &|name| self.known(name));
        let (event, review) = decided.unzip();
        record.review = review.unwrap_or_default();
        let merges = merging(event.as_ref());
        (self.ingest_for_lead(None, event, record, erasures, means), merges)
    }

    fn ingest_of(
        &self,
        (id, visitor): (VisitorId, &mut Visitor),
        mut record: Box<HitRecord>,
        erasures: u64,
        means: &mut Means<'_, '_>,
    ) -> Done {
        if self.is_closed(&record, Some(visitor)) {
            return (stale(record), None);
        }
        if visitor.is_expired(means.now) {
            *visitor = Visitor::default();
        }
        self.forget_before(id, visitor, &mut record, means);
        // Who is here already was admitted by another hit.
        record.first = record.first.filter(|_| visitor.hits == 0);
        let heads = |name| self.known(name);
        let decided = visitor.visit(record.first.as_ref(), &record.hit, means.scoring, &heads);
        let decided = match decided {
            Visit::Duplicate(position) => return (Ingested::Duplicate(position), None),
            Visit::New(decided) => decided,
        };
        record.visit = Some(decided.part);
        record.review = decided.review;
        let as_it_came = record.hit.excluded;
        record.hit.excluded = as_it_came.or(decided.excluded);
        let merges = merging(decided.event.as_ref());
        match self.ingest_for_lead(Some(visitor), decided.event, record, erasures, means) {
            Ingested::Stale(mut arrival) => {
                arrival.hit.excluded = as_it_came;
                (Ingested::Stale(arrival), None)
            }
            ingested => (ingested, merges),
        }
    }
}

/// Who is proved to be one with the event's person, for when the locks are free.
fn merging(event: Option<&LeadEvent>) -> Option<(LeadId, Vec<LeadId>)> {
    let event = event.filter(|event| !event.merges.is_empty())?;
    Some((event.origin, event.merges.clone()))
}
