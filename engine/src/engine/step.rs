//! What people do to what is known: withdrawing hits, scoring anew, telling who was held, and
//! undoing. Each is a journaled step with who did it and why (`merge.rs`, `link.rs`).

use crate::id::{LeadId, Position, ThresholdId, VisitorId};
use crate::lead::Lead;
use crate::ledger::{Basis, Row, settle_with};
use crate::record::{Body, LeadPart, Step, StepRecord, VisitStep, Withdrawn};
use crate::sales::{Feedback, Unheard};
use crate::time::Timestamp;
use crate::visitor::Visitor;
use std::fmt;

use super::{Engine, Means, Who};

/// Who does a step, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authority {
    /// Who; empty for the engine itself.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// The step that this one undoes, if it does.
    pub undoes: Position,
}

/// What one record of a withdrawal came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Withdrawal {
    /// Whose the hits were.
    pub lead: Option<LeadId>,
    /// Hits that are somebody else's.
    pub rest: Vec<Withdrawn>,
}

/// Why a step cannot be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepError {
    /// There is no such lead.
    NoLead,
    /// There is no such visitor.
    NoVisitor,
    /// Both are one already.
    Same,
    /// The name is a lead of its own.
    NotMerged,
    /// The browser did nothing that is nobody's.
    NothingFree,
    /// The browser did nothing as that lead.
    NotLinked,
    /// The lead is not held at that line.
    NotHeld,
    /// People of a test and real ones never meet.
    TestAndReal,
    /// It cannot be undone, or was already.
    NotUndoable,
    /// The person was erased, and nobody came under this name since.
    Erased,
    /// A newer version of the scoring is in force.
    Stale,
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoLead => "there is no such lead",
            Self::NoVisitor => "there is no such visitor",
            Self::Same => "both are one lead already",
            Self::NotMerged => "it is a lead of its own",
            Self::NothingFree => "the browser did nothing that is nobody's",
            Self::NotLinked => "the browser did nothing as that lead",
            Self::NotHeld => "the lead is not held at that line",
            Self::TestAndReal => "a lead under a test key and a real one are never one",
            Self::NotUndoable => "it cannot be undone, or was already",
            Self::Erased => "the lead was erased already",
            Self::Stale => "the rules have just changed; try again",
        })
    }
}

impl StepError {
    /// The name in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoLead => "no_such_lead",
            Self::NoVisitor => "no_such_visitor",
            Self::Same => "already_one",
            Self::NotMerged => "not_merged",
            Self::NothingFree => "nothing_free",
            Self::NotLinked => "not_linked",
            Self::NotHeld => "not_held",
            Self::TestAndReal => "test_and_real",
            Self::NotUndoable => "not_undoable",
            Self::Erased => "already_erased",
            Self::Stale => "rules_changed",
        }
    }
}

/// What became of an answer of sales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Whom it is about.
    pub lead: LeadId,
    /// The record that must be durable before anybody hears of this: its own, or the last before.
    pub position: Position,
    /// Why it changes nothing, if it does not.
    pub unheard: Option<Unheard>,
}

impl Authority {
    /// A statement that proves both names at once.
    pub fn proof() -> Authority {
        Authority { reason: "one verified statement names both".into(), ..Authority::default() }
    }

    pub(super) fn record(&self, step: Step, of: Position) -> StepRecord {
        StepRecord {
            step,
            actor: self.actor.clone(),
            reason: self.reason.clone(),
            undoes: self.undoes,
            of,
            ..StepRecord::default()
        }
    }
}

impl Engine {
    /// Hits of a browser are withdrawn or put back: from its own ledger and from that of whose
    /// the first of them is, by one record, so that a stop leaves none withdrawn by half. Those
    /// that are somebody else's are given back, for the next record.
    pub fn withdraw_visitor(
        &self,
        visitor: VisitorId,
        withdrawn: &[Withdrawn],
        of: Position,
        why: &Authority,
        means: &mut Means<'_, '_>,
    ) -> Result<Withdrawal, StepError> {
        let _identity = self.one_step();
        let mut held = self.visitors.get_mut(&visitor).ok_or(StepError::NoVisitor)?;
        if self.is_stale(means.scoring) {
            return Err(StepError::Stale);
        }
        let owner = |hit: &Withdrawn| held.trail.stretch_at(hit.position)?.owner;
        let whose = withdrawn.first().and_then(owner);
        let (own, rest): (Vec<_>, Vec<_>) = withdrawn.iter().partition(|hit| owner(hit) == whose);
        let mut after = held.clone();
        after.withdraw(&own);
        let basis = Basis::nobody(&means.scoring.versions);
        let settled = settle_with(after.rows.in_order(), &[], Some(Timestamp(0)), &basis);
        let visit = VisitStep {
            visitor,
            previous: held.last_position,
            regrants: settled.regrants,
            ..VisitStep::default()
        };
        let record = why.record(Step::Withdraw(own.clone()), of);
        let record = StepRecord { visit: Some(visit), ..record };
        let lead = whose.map(|name| self.head_of(name)).filter(|(_, lead)| lead.is_person());
        let Some((id, mut lead)) = lead else {
            step_visitor(&mut held, record, means);
            return Ok(Withdrawal { lead: None, rest });
        };
        let part = lead.withdraw(id, &own, means.scoring, means.now);
        step_both(&mut held, &mut lead, record, part, means);
        self.timers.queue(id, &mut lead, means.scoring);
        Ok(Withdrawal { lead: Some(id), rest })
    }

    /// Hits of a server, or of stretches that their browser has forgotten, are withdrawn from a
    /// lead's ledger, or put back.
    pub fn withdraw_lead(
        &self,
        name: LeadId,
        withdrawn: &[Withdrawn],
        of: Position,
        why: &Authority,
        means: &mut Means<'_, '_>,
    ) -> Option<Position> {
        let _identity = self.one_step();
        let (id, mut lead) = self.head_of(name);
        if !lead.is_person() || self.is_stale(means.scoring) {
            return None;
        }
        let part = lead.withdraw(id, withdrawn, means.scoring, means.now);
        let record = why.record(Step::Withdraw(withdrawn.to_vec()), of);
        let position = step_lead(&mut lead, record, part, means);
        self.timers.queue(id, &mut lead, means.scoring);
        Some(position)
    }

    /// What a lead earned up to a barrier is replaced by what the version in force gives for it.
    /// `seen`: the lead's last record when that was worked out; with a newer one nothing is done.
    pub fn rescore_lead(
        &self,
        name: LeadId,
        (matched, seen): (&[Row], Position),
        (barrier, of): (Position, Position),
        why: &Authority,
        means: &mut Means<'_, '_>,
    ) -> Option<Position> {
        let _identity = self.one_step();
        let (id, mut lead) = self.head_of(name);
        if !lead.is_person() || lead.last_position != seen || self.is_stale(means.scoring) {
            return None;
        }
        let version = means.scoring.version;
        let (rows, part) = lead.rescore(id, (version, barrier), matched, means.scoring, means.now);
        let record = why.record(Step::Rescore { version, rows }, of);
        let position = step_lead(&mut lead, record, part, means);
        self.timers.queue(id, &mut lead, means.scoring);
        Some(position)
    }

    /// What a visitor earned up to a barrier is replaced by what the version in force gives.
    pub fn rescore_visitor(
        &self,
        visitor: VisitorId,
        matched: &[Row],
        (barrier, of): (Position, Position),
        why: &Authority,
        means: &mut Means<'_, '_>,
    ) -> Option<Position> {
        // Nobody is erased meanwhile.
        let _identity = self.one_step();
        let mut held = self.visitors.get_mut(&visitor)?;
        // What the browser forgot of somebody who was erased stays forgotten.
        let (from, until) = (held.erased, barrier);
        let stays = held.rows.all().filter(|row| row.position <= from || row.position > until);
        let again = matched.iter().filter(|row| row.position > from).copied();
        let mut rows: Vec<Row> = stays.chain(again).collect();
        rows.sort_by_key(Row::key);
        let basis = Basis::nobody(&means.scoring.versions);
        let rows = settle_with(rows, &[], Some(Timestamp(0)), &basis).rows;
        let visit = VisitStep { visitor, previous: held.last_position, ..VisitStep::default() };
        let step = Step::Rescore { version: means.scoring.version, rows };
        let record = StepRecord { visit: Some(visit), ..why.record(step, of) };
        Some(step_visitor(&mut held, record, means))
    }

    /// A lead that is held at a line is told, or is not to be told.
    pub fn release(
        &self,
        name: LeadId,
        threshold: ThresholdId,
        told: bool,
        why: &Authority,
        means: &mut Means<'_, '_>,
    ) -> Result<Position, StepError> {
        if self.is_stale(means.scoring) {
            return Err(StepError::Stale);
        }
        let (id, mut lead) = self.head_of(name);
        let held = lead.bands.iter().any(|band| band.threshold() == threshold && band.held);
        let part = if told {
            lead.release(id, threshold, means.scoring, means.now)
        } else {
            held.then(|| LeadPart { lead: id, origin: id, ..LeadPart::default() })
        };
        let part = part.ok_or(StepError::NotHeld)?;
        let record = why.record(Step::Release { threshold, told }, Position::NONE);
        let position = step_lead(&mut lead, record, part, means);
        self.timers.queue(id, &mut lead, means.scoring);
        Ok(position)
    }

    /// Sales answered about a person, by any name of theirs.
    pub fn answer(
        &self,
        name: LeadId,
        feedback: Feedback,
        means: &mut Means<'_, '_>,
    ) -> Result<Answered, StepError> {
        if self.is_stale(means.scoring) {
            return Err(StepError::Stale);
        }
        // Of whom nobody has heard nothing is kept.
        self.known(name).ok_or(StepError::NoLead)?;
        let (id, mut lead) = self.head_of(name);
        if !lead.is_person() {
            return Err(StepError::NoLead);
        }
        let (feedback, part) = match lead.answer(id, feedback, means.scoring, means.now) {
            Ok(answered) => answered,
            Err(why) => {
                return Ok(Answered { lead: id, position: lead.last_position, unheard: Some(why) });
            }
        };
        let step = Step::Feedback(Box::new(feedback));
        let record = StepRecord { step, ..StepRecord::default() };
        let position = step_lead(&mut lead, record, part, means);
        self.timers.queue(id, &mut lead, means.scoring);
        Ok(Answered { lead: id, position, unheard: None })
    }

    /// A step that touches nobody: a job begins or ends, a question is answered.
    pub fn note(
        &self,
        step: Step,
        of: Position,
        why: &Authority,
        means: &mut Means<'_, '_>,
    ) -> Position {
        let record = why.record(step, of);
        means.record(Body::Step(Box::new(record)), |_, _| {}).0
    }

    /// Undoes a step, as it is recorded at its position.
    pub fn undo(
        &self,
        (step, position): (&StepRecord, Position),
        why: &Authority,
        means: &mut Means<'_, '_>,
    ) -> Result<Position, StepError> {
        let why = Authority { undoes: position, ..why.clone() };
        let of_lead = step.lead.as_ref().map(|part| part.lead);
        let of_visitor = step.visit.as_ref().map(|visit| visit.visitor);
        match (&step.step, of_lead, of_visitor) {
            (Step::MergeAway(_), Some(lead), _) => self.undo_joining(lead, position, &why, means),
            (Step::Restore { was, .. }, Some(lead), _) => {
                self.undo_parting(lead, (position, *was), &why, means)
            }
            (Step::Link | Step::Unlink, _, Some(visitor)) => {
                self.undo_on_browser(visitor, position, &why, means)
            }
            _ => Err(StepError::NotUndoable),
        }
    }

    /// Applies a step's record: the whole of its replay.
    pub(super) fn evolve_step(
        &self,
        step: &StepRecord,
        stamp: (Timestamp, u32),
        position: Position,
        wanted: impl Fn(Who) -> bool,
    ) {
        if let Some(visit) = step.visit.as_ref().filter(|it| wanted(Who::Visitor(it.visitor))) {
            let mut visitor = self.visitors.entry(visit.visitor);
            if visitor.last_position < position {
                visitor.evolve_step(step, stamp.0, position);
            }
        }
        if let Some(part) = step.lead.as_ref().filter(|it| wanted(Who::Lead(it.lead))) {
            self.evolve_lead(part.lead, position, |lead| {
                lead.evolve_step(step, part, stamp, position);
            });
        }
    }
}

/// A step that only moves what the lead holds.
pub(super) fn step_of(
    id: LeadId,
    lead: &mut Lead,
    record: StepRecord,
    means: &mut Means<'_, '_>,
) -> Position {
    let previous = lead.last_position;
    let part = LeadPart { lead: id, origin: id, previous, ..LeadPart::default() };
    step_lead(lead, record, part, means)
}

/// Pushes a step's record and applies it to the lead it is about.
pub(super) fn step_lead(
    lead: &mut Lead,
    record: StepRecord,
    part: LeadPart,
    means: &mut Means<'_, '_>,
) -> Position {
    let stamp = means.stamp();
    let record = StepRecord { lead: Some(part), ..record };
    let (position, ()) = means.record(Body::Step(Box::new(record)), |whole, position| {
        if let Body::Step(step) = &whole.body
            && let Some(part) = &step.lead
        {
            lead.evolve_step(step, part, stamp, position);
        }
    });
    position
}

/// The same of a visitor.
pub(super) fn step_visitor(
    held: &mut Visitor,
    record: StepRecord,
    means: &mut Means<'_, '_>,
) -> Position {
    let (position, ()) = means.record(Body::Step(Box::new(record)), |whole, position| {
        if let Body::Step(step) = &whole.body {
            held.evolve_step(step, whole.time, position);
        }
    });
    position
}

/// The same of both.
pub(super) fn step_both(
    held: &mut Visitor,
    lead: &mut Lead,
    record: StepRecord,
    part: LeadPart,
    means: &mut Means<'_, '_>,
) -> Position {
    let stamp = means.stamp();
    let record = StepRecord { lead: Some(part), ..record };
    let (position, ()) = means.record(Body::Step(Box::new(record)), |whole, position| {
        let Body::Step(step) = &whole.body else {
            return;
        };
        held.evolve_step(step, whole.time, position);
        if let Some(part) = &step.lead {
            lead.evolve_step(step, part, stamp, position);
        }
    });
    position
}
