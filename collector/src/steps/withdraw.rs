//! Withdrawing: hits that were no person's, or not that one's, count as if they had been excluded
//! from the start. What they earned goes, what others lost by them comes back, and messages they
//! caused are taken back.

use std::collections::{BTreeMap, BTreeSet};

use engine::engine::{Authority, StepError};
use engine::facts::Source;
use engine::hit::Hit;
use engine::id::{LeadId, Position, VisitorId};
use engine::record::{Body, HitRecord, Record, Step, StepRecord, Withdrawn};
use engine::time::Timestamp;
use engine::visitor::Visitor;

use super::{Failed, alone, take, unread};
use crate::app::App;
use crate::journal::ReadError;
use crate::link::scanners::Click;
use crate::net::Network;
use crate::timeline;
use crate::words;

/// Hits in one record.
const SLICE: usize = 256;

/// Which hits. All that is stated must hold.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Those of a browser.
    pub visitor: Option<VisitorId>,
    /// Those of a person, by any of their names.
    pub lead: Option<LeadId>,
    /// Those from a network.
    pub network: Option<Network>,
    /// Those of a class of user agents, as in `newscanner`.
    pub agent: Option<String>,
    /// What happened at or after this moment.
    pub from: Option<Timestamp>,
    /// What happened before it.
    pub until: Option<Timestamp>,
}

/// What became of a withdrawal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The record that begins it: what an undo names.
    pub job: Position,
    /// Hits.
    pub hits: usize,
    /// Browsers they came from.
    pub visitors: usize,
    /// People whose they were.
    pub leads: usize,
}

/// Hits by where they came from and whose ledger alone they leave: a server's that of whom it
/// named; a browser's its own and that of whose they are, but if it has forgotten that, those
/// of whom they were recorded for by themselves.
type Found = BTreeMap<(Source, Option<LeadId>), Vec<Withdrawn>>;

impl Selection {
    /// Whether it says anything: all hits there are is no selection.
    pub fn is_empty(&self) -> bool {
        self.visitor.is_none()
            && self.lead.is_none()
            && self.network.is_none()
            && self.agent.is_none()
            && self.from.is_none()
            && self.until.is_none()
    }

    /// The one person whom it concerns, if it names one, or a browser that is bound to one.
    fn about(&self, app: &App) -> Option<LeadId> {
        let bound = |visitor| app.engine.visitor(visitor, app.clock.now())?.bound;
        let browser = self.visitor.and_then(bound).map(|bound| bound.origin);
        self.lead.or(browser).map(|lead| app.engine.head(lead))
    }

    fn takes(&self, app: &App, hit: &Hit, whose: impl Fn() -> Option<LeadId>) -> bool {
        let is_theirs = |lead: LeadId| whose().is_some_and(|it| app.engine.head(it) == lead);
        let address = || hit.network.parse().ok();
        self.visitor.is_none_or(|visitor| hit.visitor == Some(visitor))
            && self.agent.as_deref().is_none_or(|agent| hit.agent == agent)
            && self.from.is_none_or(|from| hit.when >= from)
            && self.until.is_none_or(|until| hit.when < until)
            && self.network.is_none_or(|network| address().is_some_and(|it| network.contains(it)))
            && self.lead.is_none_or(|lead| is_theirs(app.engine.head(lead)))
    }
}

/// Withdraws hits. Only those recorded before it began.
pub fn withdraw(app: &App, which: &Selection, why: &Authority) -> Result<Outcome, Failed> {
    let _one = alone(app);
    let mut gathered = Gathered::default();
    walk(app, Position(1), |position, record| match &record.body {
        Body::Hit(record) => gathered.note(app, which, position, record),
        Body::Step(step) if step.visit.is_some() || step.lead.is_some() => {
            if let Step::Withdraw(withdrawn) = &step.step {
                gathered.note_withdrawn(step, withdrawn);
            }
        }
        _ => {}
    })?;
    apply(app, gathered.rest(app), which.about(app), why)
}

/// Puts back what a withdrawal took.
pub fn put_back(app: &App, job: Position, why: &Authority) -> Result<Position, Failed> {
    let _one = alone(app);
    let mut found = Found::new();
    let mut undone = false;
    let mut about = None;
    // From its first record or not at all: else a part of it would be put back.
    walk(app, job, |position, record| {
        let Body::Step(step) = &record.body else {
            return;
        };
        if position == job {
            about = words::parts(&step.reason).map(|(lead, _)| lead);
        }
        undone |= step.step == Step::Job && step.undoes == job;
        let Step::Withdraw(withdrawn) = &step.step else {
            return;
        };
        let of_person = step.lead.as_ref().filter(|_| step.visit.is_none());
        let whose = of_person.map(|part| part.lead);
        for hit in withdrawn.iter().filter(|_| step.of == job) {
            let back = Withdrawn { out: !hit.out, ..*hit };
            found.entry((hit.source, whose)).or_default().push(back);
        }
    })?;
    if undone || found.is_empty() {
        return Err(Failed::Step(StepError::NotUndoable));
    }
    let why = Authority { undoes: job, ..why.clone() };
    Ok(apply(app, found, about, &why)?.job)
}

/// A click that turned out to be a mail scanner's: it is withdrawn, and its browser is nobody's.
pub fn withdraw_scan(app: &App, click: Click) -> Result<(), Failed> {
    let _one = alone(app);
    let why = Authority { reason: "a mail scanner opened it".into(), ..Authority::default() };
    app.journal.wait_blocking(click.position).map_err(|_| Failed::Journal)?;
    let record = timeline::read(app, click.position)?;
    let Body::Hit(record) = &record.body else {
        return Err(Failed::NoStep);
    };
    let whose = record.lead.as_ref().map(|part| part.origin);
    let source = Source::Visitor(click.visitor);
    let hits =
        hits_of(click.position, record).map(|(hit, known_by)| out(hit, known_by, (source, None)));
    apply(app, [((source, None), hits.collect())].into(), None, &why)?;
    let Some(lead) = whose else {
        return Ok(());
    };
    match super::unlink(app, (click.visitor, lead), &why) {
        // Somebody else's by now: nothing is left to take back.
        Err(Failed::Step(StepError::NotLinked | StepError::NoLead)) => Ok(()),
        done => done.map(|_| ()),
    }
}

/// What a walk over the journal finds.
#[derive(Default)]
struct Gathered {
    found: Found,
    /// Hits of browsers, each with whom it was recorded for.
    recorded_for: BTreeMap<Position, LeadId>,
    /// Withdrawn already; `true`: from a person alone, because their browser had forgotten them.
    out: BTreeSet<(Position, Timestamp, bool)>,
}

impl Gathered {
    fn note(&mut self, app: &App, which: &Selection, position: Position, record: &HitRecord) {
        let part = record.lead.as_ref().map(|part| part.origin);
        for (hit, known_by) in hits_of(position, record) {
            let (source, whose) = match hit.visitor {
                // A hit that is only recorded comes again with whoever it admits.
                Some(_) if record.visit.is_none() => continue,
                Some(visitor) => (Source::Visitor(visitor), None),
                None => (Source::Server, part),
            };
            if hit.excluded.is_some() {
                continue;
            }
            // Asked only if it matters: a browser is copied for the answer.
            let owner = || whose.or_else(|| owner(app, hit.visitor?, known_by, part));
            if which.takes(app, hit, owner) {
                self.recorded_for.extend(part.map(|part| (known_by, part)));
                let hit = out(hit, known_by, (source, whose));
                self.found.entry((source, whose)).or_default().push(hit);
            }
        }
    }

    fn note_withdrawn(&mut self, step: &StepRecord, withdrawn: &[Withdrawn]) {
        for hit in withdrawn {
            let of_person = step.visit.is_none() && hit.source != Source::Server;
            let key = (hit.position, hit.when, of_person);
            if hit.out {
                self.out.insert(key);
            } else {
                self.out.remove(&key);
            }
        }
    }

    /// What is not withdrawn yet.
    fn rest(mut self, app: &App) -> Found {
        let now = app.clock.now();
        let mut forgotten = Found::new();
        for ((source, _), hits) in &self.found {
            let Source::Visitor(visitor) = *source else {
                continue;
            };
            let known = app.engine.visitor(visitor, now);
            for hit in hits {
                let lies = |known: &Visitor| known.trail.stretch_at(hit.position).is_some();
                let whose = self.recorded_for.get(&hit.position).copied();
                if !known.as_ref().is_some_and(lies) && whose.is_some() {
                    forgotten.entry((*source, whose)).or_default().push(*hit);
                }
            }
        }
        self.found.extend(forgotten);
        for ((source, whose), hits) in &mut self.found {
            let of_person = whose.is_some() && *source != Source::Server;
            hits.retain(|hit| !self.out.contains(&(hit.position, hit.when, of_person)));
        }
        self.found.retain(|_, hits| !hits.is_empty());
        self.found
    }
}

/// A record's hits, each with the record it is known by: the first hit of a visitor by the one
/// that admits them.
fn hits_of(position: Position, record: &HitRecord) -> impl Iterator<Item = (&Hit, Position)> {
    let first = record.first.as_ref().map(|first| &first.hit);
    first.into_iter().chain([&record.hit]).map(move |hit| (hit, position))
}

fn out(hit: &Hit, position: Position, (source, whose): (Source, Option<LeadId>)) -> Withdrawn {
    let (when, human) = (hit.when, hit.is_human());
    Withdrawn { position, when, source, origin: whose.unwrap_or_default(), human, out: true }
}

/// Whose a browser's hit is now; if it has forgotten that, whom it was recorded for.
fn owner(
    app: &App,
    visitor: VisitorId,
    position: Position,
    recorded_for: Option<LeadId>,
) -> Option<LeadId> {
    let known = app.engine.visitor(visitor, app.clock.now());
    let stretch = known.as_ref().and_then(|known| known.trail.stretch_at(position));
    stretch.map_or(recorded_for, |stretch| stretch.owner)
}

/// Every durable record from a position on: from the very first, as far as they are kept; from
/// another, all or none.
pub(super) fn walk(
    app: &App,
    from: Position,
    mut look: impl FnMut(Position, &Record),
) -> Result<(), Failed> {
    let durable = app.journal.durable();
    let mut follower = app.journal.follow(from);
    while follower.position() <= durable {
        let entry = match follower.try_next() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(ReadError::Removed { first }) if from == Position(1) && first > from => {
                return walk(app, first, look);
            }
            Err(error) => return Err(unread(app, error)),
        };
        if let Ok(record) = Record::decode(entry.bytes) {
            look(entry.position, &record);
        }
    }
    Ok(())
}

/// Withdraws or puts back, a slice at a time, each person's and each browser's in a record of its
/// own. What a stop cuts short, asking again completes.
/// `about`: the one person whom it concerns, under whose key the words of all of them stand.
fn apply(
    app: &App,
    found: Found,
    about: Option<LeadId>,
    why: &Authority,
) -> Result<Outcome, Failed> {
    let own = about.map(|lead| words::about(&app.sealer, lead, why));
    let why = own.as_ref().unwrap_or(why);
    let job = take(app, |engine, means| Ok(engine.note(Step::Job, Position::NONE, why, means)))?;
    let mut outcome = Outcome { job, ..Outcome::default() };
    let (mut leads, mut visitors) = (BTreeSet::new(), BTreeSet::new());
    let mut withdrawn = BTreeSet::new();
    for ((source, whose), hits) in found {
        withdrawn.extend(hits.iter().map(|hit| (hit.position, hit.when)));
        visitors.extend((source != Source::Server).then_some(source));
        for slice in hits.chunks(SLICE) {
            match (source, whose) {
                (Source::Visitor(visitor), None) => {
                    leads.extend(apply_to_visitor(app, (visitor, slice), job, why)?);
                }
                (_, Some(lead)) => leads.extend(apply_to_lead(app, (lead, slice), job, why)?),
                (Source::Server, None) => {}
            }
        }
    }
    (outcome.hits, outcome.visitors) = (withdrawn.len(), visitors.len());
    outcome.leads = leads.len();
    Ok(outcome)
}

/// From the browser's ledger and from those of whose the hits are.
fn apply_to_visitor(
    app: &App,
    (visitor, slice): (VisitorId, &[Withdrawn]),
    job: Position,
    why: &Authority,
) -> Result<BTreeSet<LeadId>, Failed> {
    let mut leads = BTreeSet::new();
    let mut rest = slice.to_vec();
    while !rest.is_empty() {
        let done =
            take(app, |engine, means| engine.withdraw_visitor(visitor, &rest, job, why, means));
        match done {
            Ok(done) => {
                leads.extend(done.lead);
                rest = done.rest;
            }
            // Forgotten by now, with all that it earned for itself.
            Err(Failed::Step(StepError::NoVisitor)) => break,
            Err(failed) => return Err(failed),
        }
    }
    Ok(leads)
}

fn apply_to_lead(
    app: &App,
    (lead, hits): (LeadId, &[Withdrawn]),
    job: Position,
    why: &Authority,
) -> Result<Option<LeadId>, Failed> {
    let done =
        take(app, |engine, means| match engine.withdraw_lead(lead, hits, job, why, means) {
            Some(_) => Ok(true),
            None if engine.catalog().version() > means.scoring.version => Err(StepError::Stale),
            None => Ok(false),
        })?;
    Ok(done.then(|| app.engine.head(lead)))
}
