//! Giving what a browser did to a person, and taking it back: whole stretches of it, under the
//! locks of the browser and of one lead at a time. Whose a stretch is follows from what was said
//! and from the steps that stand (`visitor/trail.rs`); here stretches move there.

use crate::facts::Source;
use crate::id::{LeadId, Position, VisitorId};
use crate::identity::{Assurance, IdentityKind};
use crate::lead::{Lead, Moved};
use crate::record::{Binding, Bound, Dropping, Step, StepRecord, VisitStep};
use crate::visitor::{Stretch, Visitor};

use super::step::{Authority, StepError, step_both, step_lead, step_visitor};
use super::{Engine, Means};

impl Engine {
    /// What a browser did while it was nobody's is a lead's, because a person says so; and what
    /// it does from now on, until somebody says on it who they are.
    pub fn link(
        &self,
        visitor: VisitorId,
        name: LeadId,
        assurance: Assurance,
        why: &Authority,
        means: &mut Means<'_, '_>,
    ) -> Result<Position, StepError> {
        let _identity = self.one_step();
        let mut held = self.visitors.get_mut(&visitor).ok_or(StepError::NoVisitor)?;
        if self.is_stale(means.scoring) {
            return Err(StepError::Stale);
        }
        let (id, mut lead) = self.head_of(name);
        if !lead.is_person() {
            return Err(StepError::NoLead);
        }
        let free = held.stretches().filter(|it| it.owner.is_none() && it.hits > 0);
        let free: Vec<Stretch> = free.cloned().collect();
        if free.is_empty() {
            return Err(StepError::NothingFree);
        }
        let moved = Moved {
            visitor,
            histories: free.iter().map(|it| held.history(it, name, assurance)).collect(),
            rows: free.iter().flat_map(|it| held.rows_of(it, name)).collect(),
            drops: Vec::new(),
        };
        let owners: Vec<_> = free.iter().map(|it| (it.after, Some(name))).collect();
        let visit = VisitStep {
            visitor,
            previous: held.last_position,
            gives: owners.clone(),
            owners,
            // It takes effect if the browser is nobody's, also if only an undo makes it so.
            bound: Some(Bound::To(tied(&lead, name, assurance))),
            ..VisitStep::default()
        };
        let part = lead.take_stretches(id, moved, means.scoring, means.now);
        let record = StepRecord { visit: Some(visit), ..why.record(Step::Link, Position::NONE) };
        let position = step_both(&mut held, &mut lead, record, part, means);
        self.timers.queue(id, &mut lead, means.scoring);
        Ok(position)
    }

    /// What a browser did as a lead is nobody's.
    pub fn unlink(
        &self,
        visitor: VisitorId,
        name: LeadId,
        why: &Authority,
        means: &mut Means<'_, '_>,
    ) -> Result<Position, StepError> {
        let _identity = self.one_step();
        let mut held = self.visitors.get_mut(&visitor).ok_or(StepError::NoVisitor)?;
        if self.is_stale(means.scoring) {
            return Err(StepError::Stale);
        }
        let (id, mut lead) = self.head_of(name);
        if !lead.is_person() {
            return Err(StepError::NoLead);
        }
        let source = Source::Visitor(visitor);
        let is_theirs = |owner: LeadId| lead.content.member(owner).is_some();
        let owned = held.stretches().filter(|it| it.owner.is_some_and(is_theirs) && it.hits > 0);
        let owners: Vec<_> = owned.map(|it| (it.after, None)).collect();
        if owners.is_empty() && lead.content.ties.iter().all(|tie| tie.source != source) {
            return Err(StepError::NotLinked);
        }
        let visit = VisitStep {
            visitor,
            previous: held.last_position,
            gives: owners.clone(),
            owners,
            bound: held.bound.filter(|it| is_theirs(it.origin)).map(|_| Bound::Reset),
            ..VisitStep::default()
        };
        // Also what came through stretches that the browser remembers no longer.
        let drops = vec![Dropping { source, after: Position::NONE, until: Position(u64::MAX) }];
        let moved = Moved { visitor, drops, ..Moved::default() };
        let part = lead.take_stretches(id, moved, means.scoring, means.now);
        let record = StepRecord { visit: Some(visit), ..why.record(Step::Unlink, Position::NONE) };
        let position = step_both(&mut held, &mut lead, record, part, means);
        self.timers.queue(id, &mut lead, means.scoring);
        Ok(position)
    }

    /// Undoes a link or an unlinking: every stretch goes to whom it would be without that step.
    pub(super) fn undo_on_browser(
        &self,
        visitor: VisitorId,
        step: Position,
        why: &Authority,
        means: &mut Means<'_, '_>,
    ) -> Result<Position, StepError> {
        let _identity = self.one_step();
        let mut held = self.visitors.get_mut(&visitor).ok_or(StepError::NoVisitor)?;
        if self.is_stale(means.scoring) {
            return Err(StepError::Stale);
        }
        if !held.trail.knows(step) {
            return Err(StepError::NotUndoable);
        }
        let mut after = held.trail.clone();
        after.undo(step);
        let mut astray = after.astray();
        // What they stay with is theirs by other words now, and as sure as those.
        let surer = held.stretches().filter(|it| it.given.iter().any(|it| it.step == step));
        let surer = surer.filter(|it| it.owner.is_some() && it.hits > 0);
        let stays = |it: &&Stretch| astray.iter().all(|(after, _)| *after != it.after);
        let stay: Vec<_> = surer.filter(stays).map(|it| (it.after, it.owner)).collect();
        astray.extend(stay);
        let of =
            self.move_stretches(&mut held, visitor, &astray, (step, Position::NONE), why, means);
        self.move_the_rest(&mut held, visitor, of, why, means);
        Ok(of)
    }

    /// Moves stretches that a stop has left astray.
    pub(super) fn resume_on_browser(
        &self,
        visitor: VisitorId,
        why: &Authority,
        means: &mut Means<'_, '_>,
    ) {
        if let Some(mut held) = self.visitors.get_mut(&visitor) {
            let of = held.last_position;
            self.move_the_rest(&mut held, visitor, of, why, means);
        }
    }

    fn move_the_rest(
        &self,
        held: &mut Visitor,
        visitor: VisitorId,
        of: Position,
        why: &Authority,
        means: &mut Means<'_, '_>,
    ) {
        loop {
            let astray = held.trail.astray();
            if astray.is_empty() {
                return;
            }
            self.move_stretches(held, visitor, &astray, (Position::NONE, of), why, means);
        }
    }

    /// One record's worth of stretches that are astray: those of one lead. It loses those that
    /// are not its own, and gets those that nobody has; of two leads the one that loses is first.
    fn move_stretches(
        &self,
        held: &mut Visitor,
        visitor: VisitorId,
        astray: &[(Position, Option<LeadId>)],
        (undoes, of): (Position, Position),
        why: &Authority,
        means: &mut Means<'_, '_>,
    ) -> Position {
        let mut now = held.trail.clone();
        now.undo(undoes);
        let owner = |after: Position| held.stretches().find(|it| it.after == after)?.owner;
        let loses = astray.iter().find_map(|(after, _)| owner(*after));
        let next = loses.or(astray.iter().find_map(|(_, to)| *to));
        let visit =
            VisitStep { visitor, previous: held.last_position, undoes, ..VisitStep::default() };
        let Some(next) = next else {
            let record = StepRecord { visit: Some(visit), ..why.record(Step::Unlink, of) };
            return step_visitor(held, record, means);
        };
        let (id, mut lead) = self.head_of(next);
        // A name whose content is on its way is no member yet.
        let is_theirs = |name: LeadId| name == next || lead.content.member(name).is_some();
        let mut moved = Moved { visitor, ..Moved::default() };
        let mut owners = Vec::new();
        for (after, to) in astray {
            let Some(stretch) = held.stretches().find(|it| it.after == *after) else {
                continue;
            };
            let goes = stretch.owner.is_some_and(is_theirs);
            let to = to.filter(|to| is_theirs(*to) && (goes || stretch.owner.is_none()));
            if goes {
                let (after, until) = held.trail.span(*after);
                moved.drops.push(Dropping { source: Source::Visitor(visitor), after, until });
            }
            if let Some(to) = to.filter(|_| stretch.hits > 0) {
                let given = now.given(*after);
                moved.histories.push(held.history(stretch, to, given));
                moved.rows.extend(held.rows_of(stretch, to));
            }
            if goes || to.is_some() {
                owners.push((*after, to));
            }
        }
        let step = if moved.drops.is_empty() { Step::Link } else { Step::Unlink };
        let visit = VisitStep { owners, ..visit };
        let part = lead.take_stretches(id, moved, means.scoring, means.now);
        let record = StepRecord { visit: Some(visit), ..why.record(step, of) };
        let position = step_both(held, &mut lead, record, part, means);
        self.timers.queue(id, &mut lead, means.scoring);
        position
    }

    /// A browser is proved to be a lead's: all it earned there counts.
    pub fn confirm(
        &self,
        visitor: VisitorId,
        name: LeadId,
        why: &Authority,
        means: &mut Means<'_, '_>,
    ) -> Result<Position, StepError> {
        let _identity = self.one_step();
        if self.is_stale(means.scoring) {
            return Err(StepError::Stale);
        }
        let (id, mut lead) = self.head_of(name);
        let source = Source::Visitor(visitor);
        let tie = lead.content.ties.iter().rfind(|tie| tie.source == source).copied();
        let tie = tie.ok_or(StepError::NotLinked)?;
        let part = lead.confirm(id, &tie, means.scoring, means.now);
        let record = why.record(Step::Confirm, Position::NONE);
        let position = step_lead(&mut lead, record, part, means);
        self.timers.queue(id, &mut lead, means.scoring);
        Ok(position)
    }
}

/// A step ties a browser to a name of a lead: another name of that kind is another person's.
fn tied(lead: &Lead, name: LeadId, assurance: Assurance) -> Binding {
    let kind = lead.content.member(name).map(|member| member.kind);
    let names = IdentityKind::ORDER.map(|of| (kind == Some(of)).then_some(name));
    Binding { origin: name, names, assurance, by_step: true }
}
