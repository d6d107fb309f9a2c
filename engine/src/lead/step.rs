//! Joining, parting and taking back. Each step decides its part of a record; `evolve_step`
//! applies it. What another lead must get is on its way until all of it has arrived there.

use std::borrow::Cow;
use std::sync::Arc;

use crate::alert::AlertKind;
use crate::facts::Source;
use crate::id::{LeadId, Position, ThresholdId, VisitorId};
use crate::identity::Assurance;
use crate::ledger::{Row, insert};
use crate::record::{
    Dropping, History, Joint, LeadPart, LinkPart, Parcel, Step, StepRecord, Tie, Withdrawn,
};
use crate::sales::{feedback_of, note_answer};
use crate::scoring::Scoring;
use crate::threshold::Band;
use crate::time::Timestamp;
use crate::visitor::withdraw;

use super::content::Stamp;
use super::draft::{Cause, Draft};
use super::{Arriving, Lead, Outgoing};

/// What moves between a browser and a lead, because a person said so.
#[derive(Clone, Debug, Default)]
pub struct Moved {
    /// The browser.
    pub visitor: VisitorId,
    /// What the lead loses.
    pub drops: Vec<Dropping>,
    /// The stretches it gets.
    pub histories: Vec<History>,
    /// Their rows.
    pub rows: Vec<Row>,
}

impl Lead {
    /// Stretches of a browser come, or go, or are theirs under another name.
    pub fn take_stretches(
        &self,
        id: LeadId,
        moved: Moved,
        scoring: &Scoring,
        now: Timestamp,
    ) -> LeadPart {
        let cause = if moved.drops.is_empty() { Cause::News } else { Cause::Undo };
        let last = moved.histories.last();
        let (origin, stretch) = last.map_or((id, Position::NONE), |it| (it.origin, it.stretch));
        let assurance = last.map(|last| last.given).unwrap_or_default();
        let (visitor, histories) = (moved.visitor, moved.histories);
        let link = (!histories.is_empty()).then_some(LinkPart { visitor, assurance, histories });
        let drops = moved.drops;
        let part = LeadPart { lead: id, origin, stretch, link, drops, ..LeadPart::default() };
        self.anew(part, &moved.rows, (scoring, now), cause)
    }

    /// A browser is proved to be this lead's, as a tie of theirs says.
    pub fn confirm(&self, id: LeadId, tie: &Tie, scoring: &Scoring, now: Timestamp) -> LeadPart {
        let link = match tie.source {
            Source::Server => None,
            Source::Visitor(visitor) => {
                let assurance = Assurance::Verified;
                Some(LinkPart { visitor, assurance, histories: Vec::new() })
            }
        };
        let (origin, stretch) = (tie.origin, tie.stretch);
        let part = LeadPart { lead: id, origin, stretch, link, ..LeadPart::default() };
        self.anew(part, &[], (scoring, now), Cause::News)
    }

    /// Another lead's own has arrived: the last parcel of it is `parcel`.
    pub fn take_in(
        &self,
        id: LeadId,
        parcel: &Parcel,
        of: Position,
        scoring: &Scoring,
        now: Timestamp,
    ) -> LeadPart {
        let part = LeadPart { lead: id, origin: id, ..LeadPart::default() };
        if !parcel.last {
            return LeadPart { previous: self.last_position, ..part };
        }
        let mut after = self.clone();
        after.receive_parcel(parcel, of);
        after.put_together();
        let mut draft = Draft::new(self, scoring);
        let acted = draft.let_time_pass(now);
        let before = draft.standing(acted);
        draft.content = Cow::Owned(after.content);
        draft.whole = true;
        draft.know();
        for band in &after.bands {
            *draft.band(band.threshold()) = band.clone();
        }
        draft.part.lead = id;
        draft.part.origin = id;
        draft.settle(&[], Some(Timestamp(0)));
        draft.reconsider(None, &before, acted, Cause::News);
        if parcel.joint.is_some() {
            draft.tell_of_names(AlertKind::Merged, Some(parcel.from), now);
        }
        draft.part
    }

    /// What is one name's own leaves.
    pub fn split(&self, id: LeadId, out: LeadId, scoring: &Scoring, now: Timestamp) -> LeadPart {
        let mut draft = Draft::new(self, scoring);
        let acted = draft.let_time_pass(now);
        let before = draft.standing(acted);
        let names = draft.content.subtree(out);
        draft.content.to_mut().split(out);
        draft.know();
        draft.sent.retain(|sent| !names.contains(&sent.lead));
        draft.part.lead = id;
        draft.part.origin = id;
        draft.settle(&[], Some(Timestamp(0)));
        draft.reconsider(None, &before, acted, Cause::Undo);
        draft.tell_of_names(AlertKind::Unmerged, Some(out), now);
        draft.part
    }

    /// Hits are withdrawn, or put back.
    pub fn withdraw(
        &self,
        id: LeadId,
        withdrawn: &[Withdrawn],
        scoring: &Scoring,
        now: Timestamp,
    ) -> LeadPart {
        let mut draft = Draft::new(self, scoring);
        let acted = draft.let_time_pass(now);
        let before = draft.standing(acted);
        let content = draft.content.to_mut();
        withdraw(&mut content.rows, &mut content.seen, withdrawn);
        draft.know();
        draft.part.lead = id;
        draft.part.origin = id;
        draft.settle(&[], Some(Timestamp(0)));
        draft.reconsider(None, &before, acted, Cause::Undo);
        draft.part
    }

    /// What was earned up to a barrier is replaced by what a version gives for it.
    pub fn rescore(
        &self,
        id: LeadId,
        (version, barrier): (u32, Position),
        matched: &[Row],
        scoring: &Scoring,
        now: Timestamp,
    ) -> (Vec<Row>, LeadPart) {
        let mut draft = Draft::new(self, scoring);
        let acted = draft.let_time_pass(now);
        let before = draft.standing(acted);
        let mut rows: Vec<Row> =
            self.content.rows.iter().filter(|row| stays(row, barrier)).copied().collect();
        // What was earned before the person was erased stays forgotten.
        for row in matched.iter().filter(|row| row.position > self.erased) {
            insert(&mut rows, *row);
        }
        draft.content.to_mut().rows = rows;
        draft.rescored = version;
        draft.under(acted);
        draft.part.lead = id;
        draft.part.origin = id;
        draft.settle(&[], Some(Timestamp(0)));
        // The whole ledger is recorded as it is now.
        draft.part.regrants.clear();
        draft.part.fold = None;
        draft.reconsider(None, &before, acted, Cause::Rules);
        (draft.content.into_owned().rows, draft.part)
    }

    /// A lead that was held is told.
    pub fn release(
        &self,
        id: LeadId,
        threshold: ThresholdId,
        scoring: &Scoring,
        now: Timestamp,
    ) -> Option<LeadPart> {
        let mut draft = Draft::new(self, scoring);
        draft.let_time_pass(now);
        let band = draft.band(threshold).clone();
        let terms = Arc::clone(&draft.terms);
        let line = terms.threshold(threshold)?;
        if !band.held || !band.side.inside {
            return None;
        }
        let stage = draft.stage();
        let crossing = line.release(&band, now);
        draft.cross(crossing);
        draft.tell_crossing(crossing, None, stage);
        Some(LeadPart { lead: id, origin: id, ..draft.part })
    }

    fn anew(
        &self,
        part: LeadPart,
        rows: &[Row],
        (scoring, now): (&Scoring, Timestamp),
        cause: Cause<'_>,
    ) -> LeadPart {
        let mut draft = Draft::new(self, scoring);
        let acted = draft.let_time_pass(now);
        let before = draft.standing(acted);
        draft.take(part, None, now);
        draft.settle(rows, Some(Timestamp(0)));
        draft.reconsider(None, &before, acted, cause);
        draft.part
    }

    /// Applies a step. `position` is the record's, `of` that of the first record of the step.
    pub fn evolve_step(
        &mut self,
        step: &StepRecord,
        part: &LeadPart,
        stamp: (Timestamp, u32),
        position: Position,
    ) {
        let of = if step.of == Position::NONE { position } else { step.of };
        match &step.step {
            Step::MergeAway(joint) => {
                self.note_step(step, position);
                self.go(*joint, of);
            }
            Step::TakeIn(parcel) => {
                self.receive_parcel(parcel, of);
                if parcel.last {
                    self.put_together();
                }
            }
            Step::Folded => self.outgoing = None,
            Step::Restore { from, .. } => {
                self.note_step(step, position);
                self.stub = None;
                self.people = false;
                self.awaits = Some((*from, of));
            }
            Step::Split { out } => self.part_from(*out, of),
            Step::Withdraw(withdrawn) => {
                withdraw(&mut self.content.rows, &mut self.content.seen, withdrawn);
            }
            Step::Rescore { version, rows } => {
                self.content.rows.clone_from(rows);
                self.rescored = *version;
            }
            Step::Feedback(feedback) => {
                self.content.answer(feedback, Stamp { time: stamp.0, position });
            }
            Step::Release { threshold, told: false } => {
                let of_line = |band: &&mut Band| band.threshold() == *threshold;
                self.bands.iter_mut().filter(of_line).for_each(|band| band.held = false);
            }
            Step::Erase { .. } => self.forget(stamp.0, position),
            Step::Job
            | Step::Link
            | Step::Unlink
            | Step::Confirm
            | Step::Release { told: true, .. }
            | Step::Dismiss { .. } => {}
        }
        self.evolve(part, None, stamp, position);
        // What time alone had told until then is answered too.
        if let Step::Feedback(feedback) = &step.step {
            note_answer(&mut self.asked, feedback);
        }
    }

    /// Takes note of a step that makes it another's name, or itself again. Who undoes the last
    /// one leaves things as they were before it.
    fn note_step(&mut self, step: &StepRecord, position: Position) {
        if step.undoes != Position::NONE && self.steps.last() == Some(&step.undoes) {
            self.steps.pop();
            return;
        }
        if self.steps.len() == super::STEPS_MAX {
            self.steps.remove(0);
        }
        self.steps.push(position);
    }

    /// Becomes another lead's name. What it holds is on its way there.
    fn go(&mut self, joint: Joint, of: Position) {
        self.stub = Some(joint.under);
        self.people = joint.people;
        let content = std::mem::take(&mut self.content);
        if !content.is_empty() {
            let (to, joint) = (joint.under, Some(joint));
            self.outgoing = Some(Outgoing { to, of, joint, content });
        }
    }

    /// What is one name's own is on its way back to it.
    fn part_from(&mut self, out: LeadId, of: Position) {
        let names = self.content.subtree(out);
        self.sent.retain(|sent| !names.contains(&sent.lead));
        self.asked.take_if(|asked| names.contains(&asked.lead));
        let content = self.content.split(out);
        self.outgoing = Some(Outgoing { to: out, of, joint: None, content });
    }

    fn receive_parcel(&mut self, parcel: &Parcel, of: Position) {
        let arriving = self.arriving.get_or_insert_default();
        if parcel.number == 0 {
            *arriving = Arriving { of, parcels: Vec::new() };
        }
        arriving.parcels.push(parcel.clone());
    }

    /// All has arrived: it is this lead's own from now on.
    fn put_together(&mut self) {
        let Some(arriving) = self.arriving.take() else {
            return;
        };
        self.taken = arriving.of;
        self.awaits = None;
        for parcel in &arriving.parcels {
            self.content.join(&parcel.content, parcel.from, parcel.joint);
            for band in &parcel.bands {
                let known = self.bands.iter_mut().find(|it| it.threshold() == band.threshold());
                match known {
                    Some(known) => *known = known.joined(band),
                    None => self.bands.push(band.clone()),
                }
            }
            self.asked = self.asked.or(parcel.asked);
            self.signalled = self.signalled.max(parcel.signalled);
            for sent in &parcel.sent {
                if !self.sent.contains(sent) {
                    self.sent.push(sent.clone());
                }
            }
        }
        self.sent.sort_by_key(|sent| (sent.at, sent.position, sent.place));
        let over = self.sent.len().saturating_sub(super::SENT_MAX);
        self.sent.drain(..over);
    }

    /// What is on its way, cut into parts that a record can hold.
    pub fn parcels(&self, id: LeadId) -> Vec<Parcel> {
        let Some(outgoing) = &self.outgoing else {
            return Vec::new();
        };
        let joint = outgoing.joint;
        let mut parcels = outgoing.content.clone().parcels(id, joint);
        if let Some(last) = parcels.last_mut().filter(|_| joint.is_some()) {
            last.bands.clone_from(&self.bands);
            last.sent.clone_from(&self.sent);
            (last.asked, last.signalled) = (self.asked, self.signalled);
        }
        parcels
    }
}

/// What other rules do not give anew: what came later, and what sales' answers did.
fn stays(row: &Row, barrier: Position) -> bool {
    row.position > barrier || feedback_of(row.rule).is_some()
}
