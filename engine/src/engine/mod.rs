//! The Engine holds the visitors and leads. The only file that knows the maps and lock order:
//! identity, visitor, naming, lead, timers, and last the journal's tail, inside `push`. Never
//! two keys of one map, never a guard across a wait.

mod visitors;
mod turn;
mod step;
mod merge;
mod link;
mod erase;
mod evolve;
mod timer;
mod saving;
mod hash;
mod audit;

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::catalog::Catalog;
use crate::hit::{Hit, Named};
use crate::id::{LeadId, Position, VisitorId};
use crate::lead::{Lead, Receipt};
use crate::locks::{Mutex, MutexGuard, RwLock, RwLockWriteGuard, Shards};
use crate::record::{
    Body, FirstHit, HitRecord, Joint, LeadPart, Name, Published, Question, Record, Review, Step,
    StepRecord,
};
use crate::scoring::Scoring;
use crate::time::Timestamp;
use crate::visitor::{Known, LeadEvent, Visitor};

pub use self::audit::{Audit, Audited, Difference, How};
pub use self::erase::Erased;
use self::erase::Erasures;
pub use self::saving::{Ids, SlotSaving};
use self::step::step_lead;
pub use self::step::{Answered, Authority, StepError, Withdrawal};
use self::timer::Timers;
pub use self::turn::Turn;
use self::visitors::Visitors;

/// Locks each map is divided into. Eight would hold one for 29 ms while five million entries
/// are read; so many hold it for 0.06 ms.
pub const SHARDS_DEFAULT: usize = 1_024;

/// How long an expired visitor stays in memory. Hits in flight, and a clock that steps back,
/// are behind by less.
pub const SWEEP_MARGIN: Duration = Duration::from_hours(24);

/// Whose entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// A visitor's.
    Visitor(VisitorId),
    /// A lead's, or of a name of one.
    Lead(LeadId),
}

/// Takes a record and says where it stands. The journal's tail, or a test.
pub type Push<'a> = dyn FnMut(&Record) -> Position + 'a;

/// Everything in memory.
pub struct Engine {
    /// Held while people are joined and parted: one such step at a time.
    identity: Mutex<()>,
    /// Held while a name that nobody had becomes somebody's, and while somebody is parted: one
    /// at a time, or names could go round in a circle, or be given to whom they do not lead.
    naming: Mutex<()>,
    visitors: Visitors,
    leads: Shards<LeadId, Lead>,
    timers: Timers,
    catalog: RwLock<Catalog>,
    version: AtomicU32,
    /// How often people were parted.
    partings: AtomicU64,
    /// How often a lead or a name was erased.
    erasures: Erasures,
    links_refused: AtomicU64,
}

/// A hit on its way in, with the first hit of the visitor whom it admits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// The hit.
    pub hit: Hit,
    /// The first hit, recorded on its own before.
    pub first: Option<FirstHit>,
}

/// What became of a hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ingested {
    /// Recorded there.
    Recorded(Position),
    /// Recorded there before; nothing was recorded now.
    Duplicate(Position),
    /// A newer version of the scoring is in force, or whoever was to get a name was parted, or
    /// somebody erased meanwhile: it must be decided again. It is given back as it came.
    Stale(Box<Arrival>),
}

/// What is decided under and written with: for everything that pushes records.
pub struct Means<'a, 'b> {
    /// The rules in force.
    pub scoring: &'a Scoring,
    /// The moment.
    pub now: Timestamp,
    /// The journal's tail.
    pub push: &'a mut Push<'b>,
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

impl Means<'_, '_> {
    /// Pushes a record and applies it, all or nothing.
    fn record<T>(
        &mut self,
        body: Body,
        apply: impl FnOnce(&Record, Position) -> T,
    ) -> (Position, T) {
        let record = Record { time: self.now, version: self.in_force(), body };
        let guard = AllOrNothing;
        let position = (self.push)(&record);
        let done = apply(&record, position);
        std::mem::forget(guard);
        (position, done)
    }

    fn stamp(&self) -> (Timestamp, u32) {
        (self.now, self.in_force())
    }

    /// The version in force at the moment: what comes late may be decided under newer rules.
    fn in_force(&self) -> u32 {
        let terms = self.scoring.versions.at(self.now, 0);
        terms.map_or(self.scoring.version, |terms| terms.version)
    }
}

impl Engine {
    /// An empty engine. `shards` is a power of two, at least 2.
    pub fn new(shards: usize) -> Engine {
        Engine::with_room(shards, (0, 0))
    }

    /// The same, with room for so many visitors and names of leads: they are put in at once.
    pub fn with_room(shards: usize, (visitors, leads): (usize, usize)) -> Engine {
        let shards = shards.next_power_of_two().max(2);
        Engine {
            identity: Mutex::new(()),
            naming: Mutex::new(()),
            visitors: Visitors::new(shards, visitors),
            leads: Shards::new(shards, leads),
            timers: Timers::default(),
            catalog: RwLock::new(Catalog::default()),
            version: AtomicU32::new(0),
            partings: AtomicU64::new(0),
            erasures: Erasures::default(),
            links_refused: AtomicU64::new(0),
        }
    }

    /// Decides a hit, pushes its record and applies it, all under the locks of whom it touches.
    /// A hit without visitor and claim, or of a visitor who is not admitted, is only recorded.
    pub fn ingest(&self, arrival: Arrival, scoring: &Scoring, push: &mut Push<'_>) -> Ingested {
        self.turn().ingest(arrival, scoring, push)
    }

    fn ingest_for_lead(
        &self,
        visitor: Option<&mut Visitor>,
        event: Option<LeadEvent>,
        mut record: Box<HitRecord>,
        erasures: u64,
        means: &mut Means<'_, '_>,
    ) -> Ingested {
        if self.is_stale(means.scoring) {
            return stale(record);
        }
        let mut event = event;
        // Until the record is applied: nobody parts whom a name is being given to.
        let joins = event.as_ref().is_some_and(|event| !event.joins.is_empty());
        let naming = joins.then(|| self.one_naming());
        if event.as_ref().is_some_and(|event| naming.is_some() && !self.still_heads(event)) {
            return stale(record);
        }
        event.take_if(|event| !self.take_names(event, &mut record, means));
        let mut lead = None;
        if let Some(event) = &event {
            // Whose the name is now, whoever was joined or parted since the visitor was asked.
            let (id, held) = self.head_of(event.origin);
            if self.erasures.count() != erasures {
                return stale(record);
            }
            match held.receive(id, event, &record, means.scoring, means.now) {
                Receipt::Part(part) => record.lead = Some(*part),
                Receipt::Refused(review) => self.refuse(review, &mut record, false),
            }
            lead = Some(held);
        }
        let stamp = means.stamp();
        let scoring = means.scoring;
        let (position, ()) = means.record(Body::Hit(record), |whole, position| {
            let Body::Hit(record) = &whole.body else {
                return;
            };
            if let Some(visitor) = visitor {
                visitor.evolve(record, position);
            }
            if let (Some(lead), Some(part)) = (&mut lead, &record.lead) {
                lead.evolve(part, Some(record), stamp, position);
                if lead.is_due_stale(part, record) {
                    self.timers.queue(part.lead, lead, scoring);
                }
            }
        });
        Ingested::Recorded(position)
    }

    /// Held by a step of a person: one at a time.
    fn one_step(&self) -> MutexGuard<'_, ()> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held while a name is given or somebody is parted: one at a time.
    fn one_naming(&self) -> MutexGuard<'_, ()> {
        self.naming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a newer version of the scoring is in force.
    fn is_stale(&self, scoring: &Scoring) -> bool {
        self.version.load(Ordering::Acquire) > scoring.version
    }

    /// A tie or a name too many is a question; `stands`: the browser is tied all the same.
    fn refuse(&self, review: Review, record: &mut HitRecord, stands: bool) {
        self.links_refused.fetch_add(1, Ordering::Relaxed);
        record.review.push(review);
        if let Some(visit) = record.visit.as_mut().filter(|_| !stands) {
            visit.bound = None;
        }
    }

    /// Names that nobody had become names of the event's person, each under its own lock. One
    /// that somebody has meanwhile is a question instead; so are those of whom has too many.
    /// Whether the event is somebody's still: not if it came under a name that is refused.
    fn take_names(
        &self,
        event: &mut LeadEvent,
        record: &mut HitRecord,
        means: &mut Means<'_, '_>,
    ) -> bool {
        let (head, own) = (event.head.unwrap_or(event.origin), event.own);
        if event.joins.is_empty() {
            return true;
        }
        let refused = self.head_of(own).1.refuses(event);
        if let Some(question) = refused {
            let nameless = event.joins.iter().any(|name| name.id == event.origin);
            let stands = question == Question::TooManyNames && !nameless;
            event.joins.clear();
            self.refuse(Review { question, lead: head, other: None }, record, stands);
            return stands;
        }
        let mut taken = Vec::new();
        for name in std::mem::take(&mut event.joins) {
            if self.take_name(&name, own, means) {
                taken.push(name);
            } else {
                let (question, other) = (Question::AnotherName, Some(name.id));
                record.review.push(Review { question, lead: head, other });
            }
        }
        event.joins = taken;
        true
    }

    /// Whether the name that headed an event's person when the visitor was asked still does.
    fn still_heads(&self, event: &LeadEvent) -> bool {
        let own = |name| self.known(name).map_or(name, |known| known.own);
        let is_new = event.joins.iter().any(|name| name.id == event.origin);
        own(event.own) == event.own && (is_new || own(event.origin) == event.own)
    }

    fn take_name(&self, name: &Named, own: LeadId, means: &mut Means<'_, '_>) -> bool {
        // Two statements at once may join the same names the one way and the other.
        let (top, lead) = self.head_of(own);
        drop(lead);
        if top == name.id {
            return true;
        }
        let mut entry = self.leads.entry(name.id);
        if entry.is_known() {
            return entry.stub == Some(own);
        }
        let joint = Joint { under: own, assurance: name.assurance, people: false };
        let part = LeadPart { lead: name.id, origin: name.id, ..LeadPart::default() };
        let record = StepRecord { step: Step::MergeAway(joint), ..StepRecord::default() };
        step_lead(&mut entry, record, part, means);
        true
    }

    /// Whose a name is, if it is anybody's.
    pub fn known(&self, name: LeadId) -> Option<Known> {
        let (mut id, mut own) = (name, None);
        let mut verified = false;
        // No chain of names is longer than this without being a circle, and there are none.
        for _ in 0..CHAIN_MAX {
            let entry = self.leads.get(&id).filter(|entry| entry.is_known())?;
            if entry.stub.is_none() || entry.people {
                own.get_or_insert(id);
            }
            // What is on its way is still known where it comes from.
            if let Some(own) = own {
                let sent = entry.outgoing.as_ref().is_some_and(|it| it.content.proves(own));
                verified |= sent || entry.content.proves(own);
            }
            let Some(next) = entry.stub else {
                let own = own.unwrap_or(id);
                let awaited = entry.awaits.map(|(from, _)| from);
                drop(entry);
                verified |= awaited.is_some_and(|from| self.holds_proof(from, own));
                return Some(Known { head: id, own, verified });
            };
            id = next;
        }
        None
    }

    /// Whether somebody who holds what is another's own knows a proof of them.
    fn holds_proof(&self, holder: LeadId, own: LeadId) -> bool {
        self.leads.get(&holder).is_some_and(|entry| {
            let sent = entry.outgoing.as_ref().is_some_and(|it| it.content.proves(own));
            sent || entry.content.proves(own)
        })
    }

    /// The head of a name, as far as names are joined.
    pub fn head(&self, name: LeadId) -> LeadId {
        self.known(name).map_or(name, |known| known.head)
    }

    /// The head of a name under its lock, whoever is joined or parted meanwhile.
    fn head_of(&self, name: LeadId) -> (LeadId, impl std::ops::DerefMut<Target = Lead> + '_) {
        let mut id = name;
        let mut partings = self.partings.load(Ordering::Acquire);
        loop {
            let entry = self.leads.entry(id);
            if let Some(next) = entry.stub {
                id = next;
                continue;
            }
            // Who is parted takes along what is theirs when their lead is locked next: later
            // than this, or before, and then the name must be followed anew.
            let since = self.partings.load(Ordering::Acquire);
            if since == partings {
                return (id, entry);
            }
            (id, partings) = (name, since);
        }
    }

    /// Journals a version of the scoring and applies it.
    pub fn publish(&self, published: Published, now: Timestamp, push: &mut Push<'_>) -> Position {
        let version = published.terms.version;
        let body = Body::Published(Box::new(published));
        let record = Record { time: now, version, body };
        // Under its lock, as a name is: whoever copies the catalog has it with its record.
        let mut catalog = written(&self.catalog);
        let position = push(&record);
        if let Body::Published(published) = &record.body {
            self.evolve_published(&mut catalog, published);
        }
        position
    }

    /// Journals names and applies them.
    pub fn name(&self, names: Vec<Name>, now: Timestamp, push: &mut Push<'_>) -> Position {
        let mut catalog = written(&self.catalog);
        let record = Record { time: now, version: catalog.version(), body: Body::Named(names) };
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

    /// One lead, as it is now, by any of its names.
    pub fn lead(&self, name: LeadId) -> Option<Lead> {
        let id = self.known(name)?.head;
        self.leads.get(&id).filter(|lead| lead.is_person()).map(|lead| lead.clone())
    }

    /// One entry as it is, also of a name that is another's.
    pub fn entry(&self, id: LeadId) -> Option<Lead> {
        self.leads.get(&id).filter(|lead| lead.exists()).map(|lead| lead.clone())
    }

    /// Whether a name is known, without copying whose it is.
    pub fn has_lead(&self, name: LeadId) -> bool {
        self.leads.get(&name).is_some_and(|lead| lead.is_known())
    }

    /// One visitor, as it is now.
    pub fn visitor(&self, id: VisitorId, now: Timestamp) -> Option<Visitor> {
        self.visitors.get(&id).filter(|visitor| !visitor.is_expired(now))
    }

    /// Whether a visitor is in memory: whether their first hit need not be fetched.
    pub fn knows(&self, id: VisitorId, now: Timestamp) -> bool {
        self.visitors.asleep(&id).is_some_and(|visitor| !visitor.is_expired(now))
    }

    /// The ids of visitors that pass a quick look, at most so many, and how many pass it. For a
    /// figure, not for every request: all of them are looked at, one lock after another.
    pub fn visitors_where(
        &self,
        most: usize,
        mut look: impl FnMut(&Visitor) -> bool,
    ) -> (Vec<VisitorId>, usize) {
        let (mut ids, mut count) = (Vec::new(), 0);
        self.visitors.each(|id, visitor| {
            if look(visitor) {
                count += 1;
                if ids.len() < most {
                    ids.push(*id);
                }
            }
        });
        (ids, count)
    }

    /// Forgets visitors who are absent anyway. Unobservable, but for the memory it frees: one
    /// who has only just expired is kept, since a hit received a moment earlier may still come.
    pub fn sweep(&self, now: Timestamp) {
        let surely = now.minus(SWEEP_MARGIN);
        self.visitors.retain(|visitor| !visitor.is_expired(surely));
    }

    /// How many visitors, expired ones included, and names of leads are in memory.
    pub fn sizes(&self) -> (usize, usize) {
        (self.visitors.len(), self.leads.len())
    }

    /// Ties refused because a lead had as many browsers or names as it may have.
    pub fn links_refused(&self) -> u64 {
        self.links_refused.load(Ordering::Relaxed)
    }

    /// The ids of all leads, in no order. For start-up, jobs and tests, not for lists.
    pub fn lead_ids(&self) -> Vec<LeadId> {
        let mut ids = Vec::new();
        self.leads.each(|id, lead| ids.extend(lead.is_person().then_some(*id)));
        ids
    }
}

/// Longest chain of names followed.
const CHAIN_MAX: usize = 10_000;

/// What cannot be decided now, as it came.
fn stale(record: Box<HitRecord>) -> Ingested {
    let HitRecord { hit, first, .. } = *record;
    Ingested::Stale(Box::new(Arrival { hit, first }))
}

fn written(catalog: &RwLock<Catalog>) -> RwLockWriteGuard<'_, Catalog> {
    catalog.write().unwrap_or_else(PoisonError::into_inner)
}
