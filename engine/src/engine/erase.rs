//! Forgetting a person: their lead and every name of theirs become tombstones, and each browser
//! forgets what it did as them. One record a key, under the identity lock; what a stop cuts off,
//! `resume` goes on with. What was said or done before, and comes late, acts on nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::hit::Exclusion;
use crate::id::{LeadId, Position, VisitorId};
use crate::locks::RwLock;
use crate::record::{HitRecord, LeadPart, Step, StepRecord, VisitStep};
use crate::time::Timestamp;
use crate::visitor::Visitor;

use super::step::{Authority, StepError, step_lead, step_visitor};
use super::{Engine, Means};

/// What was forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// The record that says so: durable before anything else is dropped.
    pub position: Position,
    /// When.
    pub time: Timestamp,
    /// The lead.
    pub lead: LeadId,
    /// Its names, itself first: each is nobody now.
    pub names: Vec<LeadId>,
    /// Browsers that forgot what they did as them.
    pub browsers: Vec<VisitorId>,
    /// Rows that went.
    pub rows: usize,
    /// Statements about them that went.
    pub said: usize,
    /// Answers of sales that went.
    pub answers: usize,
}

/// What every hit must know of erasures, without looking at a lead: how many there were, where
/// the last is recorded, and when that was.
pub(super) struct Erasures {
    count: AtomicU64,
    last: AtomicU64,
    last_at: AtomicU64,
    /// Whether anybody is being erased just now,
    closing: AtomicBool,
    /// and by which names.
    closed: RwLock<BTreeSet<LeadId>>,
}

impl Default for Erasures {
    fn default() -> Erasures {
        let [count, last, last_at] = [(); 3].map(|()| AtomicU64::new(0));
        let (closing, closed) = (AtomicBool::new(false), RwLock::new(BTreeSet::new()));
        Erasures { count, last, last_at, closing, closed }
    }
}

impl Erasures {
    /// Takes note of one, live and at replay.
    pub(super) fn note(&self, position: Position, at: Timestamp) {
        self.last.fetch_max(position.0, Ordering::AcqRel);
        self.last_at.fetch_max(at.0, Ordering::AcqRel);
        self.count.fetch_add(1, Ordering::AcqRel);
    }

    /// How many there were so far: whoever decides sees whether there was another meanwhile.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    fn any(&self) -> bool {
        self.count() > 0
    }

    fn close(&self, names: &BTreeSet<LeadId>) {
        self.closed.write().unwrap_or_else(PoisonError::into_inner).clone_from(names);
        self.closing.store(true, Ordering::SeqCst);
    }

    fn reopen(&self) {
        self.closing.store(false, Ordering::SeqCst);
        self.closed.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn is_closed(&self, concerns: impl FnOnce(&BTreeSet<LeadId>) -> bool) -> bool {
        self.closing.load(Ordering::SeqCst)
            && concerns(&self.closed.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether anybody was erased after a record.
    fn since(&self, position: Position) -> bool {
        self.last.load(Ordering::Acquire) > position.0
    }

    /// Whether all of them were before a moment.
    fn before(&self, when: Timestamp) -> bool {
        self.last_at.load(Ordering::Acquire) < when.0
    }
}

impl Engine {
    /// When a name was erased last, and where that is recorded, whoever it is now.
    pub fn erasure(&self, name: LeadId) -> Option<(Position, Timestamp)> {
        let entry = self.leads.get(&name)?;
        (entry.erased != Position::NONE).then_some((entry.erased, entry.erased_at))
    }

    /// Whether a name was erased after a record: what that says of it is void.
    pub fn is_erased_since(&self, name: LeadId, cause: Position) -> bool {
        self.erasure(name).is_some_and(|(position, _)| cause < position)
    }

    /// Every name that was erased, whoever it is now: where that is recorded, and when.
    pub fn erasures(&self) -> BTreeMap<LeadId, (Position, Timestamp)> {
        let mut erased = BTreeMap::new();
        self.leads.each(|id, lead| {
            let it = (lead.erased, lead.erased_at);
            erased.extend((lead.erased != Position::NONE).then_some((*id, it)));
        });
        erased
    }

    /// Forgets a person, by any name of theirs, with all of their names.
    pub fn erase(
        &self,
        name: LeadId,
        why: &Authority,
        means: &mut Means<'_, '_>,
    ) -> Result<Erased, StepError> {
        let _identity = self.one_step();
        if self.is_stale(means.scoring) {
            return Err(StepError::Stale);
        }
        let none = if self.erasure(name).is_some() { StepError::Erased } else { StepError::NoLead };
        let (mut erased, knew) = self.erase_lead(name, why, means).map_err(|()| none)?;
        for visitor in knew {
            if let Some(mut held) = self.visitors.get_mut(&visitor) {
                let mut names: Vec<LeadId> = held.named_ones().into_iter().collect();
                names.retain(|name| erased.names.contains(name));
                forget_names_on(visitor, &mut held, names, (erased.position, why), means);
                erased.browsers.push(visitor);
            }
        }
        self.erasures.reopen();
        erased.browsers.sort_unstable();
        Ok(erased)
    }

    /// The lead and its names become nobody, and stay closed: whoever speaks of them, or on a
    /// browser that knows them, comes again until they are reopened. Says which browsers do.
    fn erase_lead(
        &self,
        name: LeadId,
        why: &Authority,
        means: &mut Means<'_, '_>,
    ) -> Result<(Erased, Vec<VisitorId>), ()> {
        let mut names = self.names_of(name);
        loop {
            self.erasures.close(&names);
            // Whoever came before is waited for here, at their browser's lock.
            let knew = self.browsers_that_know(&names, means.now);
            // No name is given meanwhile: who comes again begins when all of them are nobody.
            let _naming = self.one_naming();
            let (id, mut lead) = self.head_of(name);
            if !lead.is_person() {
                self.erasures.reopen();
                return Err(());
            }
            let content = &lead.content;
            let members: Vec<LeadId> = content.members.iter().map(|it| it.id).collect();
            if members.iter().any(|name| !names.contains(name)) {
                // Our own system gave them one more.
                names.extend(members);
                continue;
            }
            let mut all = vec![id];
            all.extend(members.into_iter().filter(|it| *it != id));
            let (rows, said) = (content.rows.len(), content.said.len() + content.aside.said.len());
            let answers = content.feedback.len();
            let part = lead.erase(id, means.scoring, means.now);
            let record = why.record(Step::Erase { names: all.clone() }, Position::NONE);
            let position = step_lead(&mut lead, record, part, means);
            // Under the lead's lock: whoever decided about them before sees that it did not hold.
            self.erasures.note(position, means.now);
            drop(lead);
            let (time, browsers) = (means.now, Vec::new());
            let mut done =
                Erased { position, time, lead: id, names: all, browsers, rows, said, answers };
            self.erase_names(&mut done.names, position, why, means);
            return Ok((done, knew));
        }
    }

    /// Whether a hit is about somebody who is being erased just now.
    pub(super) fn is_closed(&self, record: &HitRecord, held: Option<&Visitor>) -> bool {
        self.erasures.is_closed(|closed| {
            let first = record.first.as_ref().map(|first| &first.hit);
            let hits = first.into_iter().chain([&record.hit]);
            let mut claimed = hits.flat_map(|hit| &hit.claim).flat_map(|claim| &claim.names);
            claimed.any(|name| closed.contains(&name.id))
                || held.is_some_and(|held| !held.named_ones().is_disjoint(closed))
        })
    }

    /// Every name of the person of a name.
    fn names_of(&self, name: LeadId) -> BTreeSet<LeadId> {
        let lead = self.lead(name);
        lead.iter().flat_map(|lead| &lead.content.members).map(|member| member.id).collect()
    }

    /// The browsers that name any of these, in memory and not absent.
    fn browsers_that_know(&self, names: &BTreeSet<LeadId>, now: Timestamp) -> Vec<VisitorId> {
        let mut found = Vec::new();
        self.visitors.each(|id, held| {
            let knows = !held.is_expired(now) && !held.named_ones().is_disjoint(names);
            found.extend(knows.then_some(*id));
        });
        found
    }

    /// Every name that leads to nobody becomes nobody itself. More may be found than were known.
    fn erase_names(
        &self,
        names: &mut Vec<LeadId>,
        of: Position,
        why: &Authority,
        means: &mut Means<'_, '_>,
    ) {
        loop {
            let mut stubs = Vec::new();
            self.leads.each(|id, lead| {
                let is_theirs = lead.stub.is_some_and(|under| names.contains(&under));
                stubs.extend(is_theirs.then_some(*id));
            });
            stubs.sort_unstable();
            if stubs.is_empty() {
                return;
            }
            for name in stubs {
                let mut lead = self.leads.entry(name);
                let part = LeadPart { lead: name, origin: name, ..LeadPart::default() };
                let record = why.record(Step::Erase { names: vec![name] }, of);
                let position = step_lead(&mut lead, record, part, means);
                self.erasures.note(position, means.now);
                drop(lead);
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
    }

    /// Every browser forgets what it did as somebody who was erased since its last record.
    fn forget_on_browsers(
        &self,
        of: Position,
        why: &Authority,
        means: &mut Means<'_, '_>,
    ) -> Vec<VisitorId> {
        let erased = self.erasures();
        let mut found = Vec::new();
        // Who is absent anyway has nothing to forget.
        let now = means.now;
        self.visitors.each(|id, held| {
            let after = |it: &(Position, Timestamp)| it.0 > held.last_position;
            let is_theirs = |name: &LeadId| erased.get(name).is_some_and(after);
            let knows = !held.is_expired(now) && held.named_ones().iter().any(is_theirs);
            found.extend(knows.then_some(*id));
        });
        found.sort_unstable();
        for visitor in &found {
            if let Some(mut held) = self.visitors.get_mut(visitor) {
                self.forget_on(*visitor, &mut held, of, why, means);
            }
        }
        found
    }

    /// The same of one browser, under its lock.
    fn forget_on(
        &self,
        visitor: VisitorId,
        held: &mut Visitor,
        of: Position,
        why: &Authority,
        means: &mut Means<'_, '_>,
    ) {
        let mut names: Vec<LeadId> = held.named_ones().into_iter().collect();
        names.retain(|name| self.erased_since(*name, held.last_position));
        if !names.is_empty() {
            forget_names_on(visitor, held, names, (of, why), means);
        }
    }

    /// Whether a name, or whose name it is, was erased after a record.
    fn erased_since(&self, name: LeadId, position: Position) -> bool {
        let mut id = name;
        for _ in 0..super::CHAIN_MAX {
            let Some(entry) = self.leads.get(&id) else {
                return false;
            };
            if entry.erased > position {
                return true;
            }
            let Some(next) = entry.stub else {
                return false;
            };
            id = next;
        }
        false
    }

    /// Goes on with what a stop cut off: names that lead to nobody, browsers that still know.
    pub(super) fn resume_erasing(&self, why: &Authority, means: &mut Means<'_, '_>) {
        let (mut blank, mut stubs) = (BTreeMap::new(), Vec::new());
        self.leads.each(|id, lead| {
            blank.extend(lead.is_blank().then_some((*id, lead.erased)));
            stubs.extend(lead.stub);
        });
        stubs.retain(|under| blank.contains_key(under));
        for id in stubs {
            self.erase_names(&mut vec![id], blank[&id], why, means);
        }
        if self.erasures.any() {
            self.forget_on_browsers(Position::NONE, why, means);
        }
    }

    /// Before a hit of a browser is decided: whoever is named on it may have been erased since,
    /// and what was done before that and comes late is worth nothing.
    pub(super) fn forget_before(
        &self,
        visitor: VisitorId,
        held: &mut Visitor,
        record: &mut HitRecord,
        means: &mut Means<'_, '_>,
    ) {
        if !self.erasures.any() {
            return;
        }
        if self.erasures.since(held.last_position) {
            let reason = "the person was erased".to_owned();
            let why = Authority { reason, ..Authority::default() };
            self.forget_on(visitor, held, Position::NONE, &why, means);
        }
        record.first.take_if(|first| first.position <= held.erased);
        if self.erasures.before(record.hit.when) {
            return;
        }
        // Of somebody else's hits on the browser none is too late.
        let since = match held.bound {
            Some(bound) => self.erasure(bound.origin).map(|(_, at)| at).unwrap_or_default(),
            None => held.erased_at,
        };
        if record.hit.when <= since {
            record.hit.excluded = Some(Exclusion::Erased);
        }
    }

    /// What was said of somebody before they were erased is not heard any more.
    pub(super) fn forget_claim(&self, record: &mut HitRecord) {
        if !self.erasures.any() {
            return;
        }
        let first = record.first.as_mut().map(|first| &mut first.hit);
        for hit in first.into_iter().chain([&mut record.hit]) {
            let when = hit.when;
            let is_void = |name: LeadId| self.erasure(name).is_some_and(|(_, at)| when <= at);
            let names = hit.claim.iter().flat_map(|claim| claim.names.iter());
            if names.map(|it| it.id).any(is_void) {
                hit.claim = None;
                hit.excluded = Some(Exclusion::Erased);
            }
        }
    }
}

/// One browser forgets what it did under these names, under its lock.
fn forget_names_on(
    visitor: VisitorId,
    held: &mut Visitor,
    names: Vec<LeadId>,
    (of, why): (Position, &Authority),
    means: &mut Means<'_, '_>,
) {
    // Of who is forgotten as a whole nothing before is followed any more.
    let stays = held
        .stretches()
        .any(|it| it.hits > 0 && it.owner.is_none_or(|owner| !names.contains(&owner)));
    let previous = if stays { held.last_position } else { Position::NONE };
    let visit = VisitStep { visitor, previous, ..VisitStep::default() };
    let record = why.record(Step::Erase { names }, of);
    step_visitor(held, StepRecord { visit: Some(visit), ..record }, means);
}
