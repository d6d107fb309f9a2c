//! Joining and parting people: one pair at a time under the identity lock, and one key at a time
//! under its own. What one lead sends another is kept by the sender until all of it has
//! arrived, so that a stop in between loses nothing.

use std::sync::atomic::Ordering;

use crate::id::{LeadId, Position};
use crate::identity::Assurance;
use crate::lead::Lead;
use crate::record::{Joint, Step};
use crate::time::Timestamp;

use super::step::{Authority, StepError, step_lead, step_of};
use super::timer::act_on_time;
use super::{Engine, Means};

/// How a lead ranks when one of two must stay: the surer, then the older, then the smaller id.
fn rank(id: LeadId, lead: &Lead) -> (bool, Timestamp, LeadId) {
    let verified = lead.profile().assurance.is_proved();
    (!verified, lead.known_since().map_or(Timestamp(u64::MAX), |known| known.0), id)
}

impl Engine {
    /// Joins two people. Who stays does not depend on who is named first. Says where the step
    /// is recorded, and who stays.
    pub fn merge(
        &self,
        one: LeadId,
        other: LeadId,
        why: &Authority,
        means: &mut Means<'_, '_>,
    ) -> Result<(Position, LeadId), StepError> {
        let _identity = self.one_step();
        if self.is_stale(means.scoring) {
            return Err(StepError::Stale);
        }
        let (one, other) = (self.head(one), self.head(other));
        if one == other {
            return Err(StepError::Same);
        }
        // Their own entries: a name may be joined to somebody who is only about to be known.
        let looked = |id| self.entry(id).filter(Lead::is_person).ok_or(StepError::NoLead);
        let (a, b) = (looked(one)?, looked(other)?);
        if a.test != b.test {
            return Err(StepError::TestAndReal);
        }
        let one_stays = rank(one, &a) < rank(other, &b);
        let (stays, goes) = if one_stays { (one, other) } else { (other, one) };
        let joint = Joint { under: stays, assurance: Assurance::Verified, people: true };
        Ok((self.join(goes, joint, why, means), stays))
    }

    /// A head becomes a name of another lead, and what it holds is sent there.
    pub(super) fn join(
        &self,
        goes: LeadId,
        joint: Joint,
        why: &Authority,
        means: &mut Means<'_, '_>,
    ) -> Position {
        let of = {
            let mut lead = self.leads.entry(goes);
            let record = why.record(Step::MergeAway(joint), Position::NONE);
            step_of(goes, &mut lead, record, means)
        };
        self.send(goes, of, why, means);
        of
    }

    /// Parts a name from whose it is, with the names that came with it. Says where the step is
    /// recorded, and from whom.
    pub fn unmerge(
        &self,
        name: LeadId,
        why: &Authority,
        means: &mut Means<'_, '_>,
    ) -> Result<(Position, LeadId), StepError> {
        let _identity = self.one_step();
        if self.is_stale(means.scoring) {
            return Err(StepError::Stale);
        }
        self.part(name, None, why, means)
    }

    /// Parts a name; `only` if it is joined by that step.
    fn part(
        &self,
        name: LeadId,
        only: Option<Position>,
        why: &Authority,
        means: &mut Means<'_, '_>,
    ) -> Result<(Position, LeadId), StepError> {
        let refused = if only.is_some() { StepError::NotUndoable } else { StepError::NotMerged };
        let from = self.head(name);
        let joint = self.leads.get(&from).and_then(|lead| lead.content.joint(name));
        let was = joint.ok_or(refused)?;
        let of = {
            let _naming = self.one_naming();
            let mut lead = self.leads.entry(name);
            if lead.stub.is_none() || only.is_some_and(|step| lead.steps.last() != Some(&step)) {
                return Err(refused);
            }
            let record = why.record(Step::Restore { from, was }, Position::NONE);
            step_of(name, &mut lead, record, means)
        };
        // Between the two: who has followed the name to where it was, and locks that lead only
        // after it is split, sees that it must be followed anew.
        self.partings.fetch_add(1, Ordering::AcqRel);
        self.split_off(from, name, of, why, means);
        Ok((of, from))
    }

    /// Undoes a joining: the name is parted again, if it is joined by that very step.
    pub(super) fn undo_joining(
        &self,
        name: LeadId,
        step: Position,
        why: &Authority,
        means: &mut Means<'_, '_>,
    ) -> Result<Position, StepError> {
        let _identity = self.one_step();
        if self.is_stale(means.scoring) {
            return Err(StepError::Stale);
        }
        self.part(name, Some(step), why, means).map(|done| done.0)
    }

    /// Undoes a parting: the name is joined as it was, if it is parted by that very step.
    pub(super) fn undo_parting(
        &self,
        name: LeadId,
        (step, was): (Position, Joint),
        why: &Authority,
        means: &mut Means<'_, '_>,
    ) -> Result<Position, StepError> {
        let _identity = self.one_step();
        if self.is_stale(means.scoring) {
            return Err(StepError::Stale);
        }
        let is_parted = |it: &Lead| it.stub.is_none() && it.steps.last() == Some(&step);
        let parted = self.leads.get(&name).is_some_and(|it| is_parted(&it));
        // Whoever comes under that name since it was erased is not who it was.
        let erased = self.leads.get(&was.under).is_some_and(|it| it.erased > step);
        if !parted || erased || self.lead(was.under).is_none() || self.head(was.under) == name {
            return Err(StepError::NotUndoable);
        }
        Ok(self.join(name, was, why, means))
    }

    /// The second half of parting: what is the name's own leaves, and is sent.
    fn split_off(
        &self,
        from: LeadId,
        name: LeadId,
        of: Position,
        why: &Authority,
        means: &mut Means<'_, '_>,
    ) {
        {
            let mut lead = self.leads.entry(from);
            let part = lead.split(from, name, means.scoring, means.now);
            let record = why.record(Step::Split { out: name }, of);
            step_lead(&mut lead, record, part, means);
            self.timers.queue(from, &mut lead, means.scoring);
        }
        self.send(from, of, why, means);
    }

    /// Sends what a lead has for another, from the first part on, and forgets it when all has
    /// arrived. What arrived before is not taken twice.
    fn send(&self, from: LeadId, of: Position, why: &Authority, means: &mut Means<'_, '_>) {
        let (name, parcels) = {
            let lead = self.leads.entry(from);
            let Some(name) = lead.outgoing.as_ref().map(|outgoing| outgoing.to) else {
                return;
            };
            (name, lead.parcels(from))
        };
        let to = self.head(name);
        for parcel in parcels {
            let mut lead = self.leads.entry(to);
            if lead.taken == of {
                break;
            }
            // Where both stood is joined as it was at this moment.
            while parcel.last && act_on_time(to, &mut lead, means) {}
            let part = lead.take_in(to, &parcel, of, means.scoring, means.now);
            let record = why.record(Step::TakeIn(Box::new(parcel)), of);
            step_lead(&mut lead, record, part, means);
            self.timers.queue(to, &mut lead, means.scoring);
        }
        let mut lead = self.leads.entry(from);
        step_of(from, &mut lead, why.record(Step::Folded, of), means);
    }

    /// Carries on with what a crash cut off.
    pub fn resume(&self, means: &mut Means<'_, '_>) {
        let _identity = self.one_step();
        let why = Authority { reason: "carried on after a stop".into(), ..Authority::default() };
        self.resume_erasing(&why, means);
        let mut sending = Vec::new();
        let mut awaiting = Vec::new();
        self.leads.each(|id, lead| {
            sending.extend(lead.outgoing.as_ref().map(|outgoing| (*id, outgoing.of)));
            awaiting.extend(lead.awaits.map(|(from, of)| (*id, from, of)));
        });
        sending.sort_unstable();
        awaiting.sort_unstable();
        for (from, of) in sending {
            self.send(from, of, &why, means);
        }
        for (name, from, of) in awaiting {
            let still = self.leads.get(&name).is_some_and(|it| it.awaits == Some((from, of)));
            let holds = self.leads.get(&from).is_some_and(|it| it.content.member(name).is_some());
            if still && holds {
                self.split_off(from, name, of, &why, means);
            }
        }
        let mut astray = Vec::new();
        self.visitors.each(|id, held| {
            astray.extend((!held.trail.astray().is_empty()).then_some(*id));
        });
        astray.sort_unstable();
        for visitor in astray {
            self.resume_on_browser(visitor, &why, means);
        }
    }
}
