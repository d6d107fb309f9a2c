//! What happened to one visitor or lead, newest first, by the back pointers in the journal. No
//! index is needed: each record names the one before it of its visitor and of its lead.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use engine::id::{LeadId, Position, VisitorId};
use engine::lead::Lead;
use engine::record::{Body, HitRecord, Record, Step};
use engine::time::Timestamp;
use engine::visitor::Visitor;

use crate::app::App;
use crate::journal::ReadError;
use crate::seal::attributes_from_bytes;
use crate::words;

/// Records by position.
pub type Timeline = BTreeMap<Position, Record>;

/// What a walk found, and whether there was more that is not kept any more.
#[derive(Debug, Default)]
pub struct Walked {
    /// The records.
    pub records: Timeline,
    /// A back pointer led to before what is kept.
    pub begins_later: bool,
}

/// The first record that is kept, and its time; nothing if everything is.
pub fn kept_from(app: &App) -> Option<(Position, Timestamp)> {
    let first = app.journal.first();
    if first.ordinal() <= 1 {
        return None;
    }
    let time = read(app, first).map_or_else(|_| app.clock.now(), |record| record.time);
    Some((first, time))
}

/// Reads one record with its attributes unsealed.
pub fn read(app: &App, position: Position) -> Result<Record, ReadError> {
    let bytes = app.journal.read(position)?;
    let mut record = Record::decode(&bytes).map_err(|_| ReadError::NotDurable)?;
    unseal(app, &mut record);
    Ok(record)
}

/// Puts the plain attributes back into a record, as far as their keys are there.
pub fn unseal(app: &App, record: &mut Record) {
    unseal_with(record, |lead, sealed| app.sealer.unseal(lead, sealed));
}

/// The same with any way of unsealing: for recovery, before there is an `App`.
pub fn unseal_with(record: &mut Record, open: impl Fn(LeadId, &[u8]) -> Option<Vec<u8>>) {
    let plain = |under: LeadId, sealed: &[u8]| {
        let plain = if sealed.is_empty() { None } else { open(under, sealed) };
        plain.and_then(|it| attributes_from_bytes(&it)).unwrap_or_default()
    };
    match &mut record.body {
        Body::Hit(record) => {
            let first = record.first.as_mut().map(|first| &mut first.hit);
            for hit in [Some(&mut record.hit), first].into_iter().flatten() {
                if let Some(claim) = &mut hit.claim
                    && let Some(under) = claim.first().map(|name| name.id)
                {
                    claim.attributes = plain(under, &claim.sealed);
                }
            }
        }
        Body::Step(record) => {
            words::unseal(record, &open);
            if let Step::Feedback(feedback) = &mut record.step {
                feedback.details = Arc::new(plain(feedback.origin, &feedback.sealed));
            }
            if let Step::TakeIn(parcel) = &mut record.step {
                let content = &mut parcel.content;
                for feedback in &mut content.feedback {
                    feedback.details = Arc::new(plain(feedback.origin, &feedback.sealed));
                }
                for said in content.said.iter_mut().chain(&mut content.aside.said) {
                    said.attributes = Arc::new(plain(said.under, &said.sealed));
                }
            }
        }
        Body::Due(_) | Body::Published(_) | Body::Named(_) | Body::Outbox(_) => {}
    }
}

/// A lead's records, from one of theirs backwards, with the anonymous history of every visitor
/// who was tied to them and what came along with whoever was joined to them; without hits that
/// are no longer theirs. At most `most`; the newest are kept.
pub fn of_lead(app: &App, lead: &Lead, from: Position, most: usize) -> Result<Walked, ReadError> {
    let mut walk = Walk::new(app);
    walk.add(from, Chain::Lead);
    let mut owned = Owned::new(app, lead);
    let mut records = Timeline::new();
    while records.len() < most {
        let Some((position, record)) = walk.next()? else {
            break;
        };
        if owned.holds(position, &record) {
            records.insert(position, record);
        }
    }
    Ok(Walked { records, begins_later: walk.begins_later })
}

/// A visitor's records, from one of theirs backwards.
pub fn of_visitor(app: &App, from: Position, most: usize) -> Result<Walked, ReadError> {
    let mut walk = Walk::new(app);
    walk.add(from, Chain::Visitor(Position::NONE));
    let mut records = Timeline::new();
    while records.len() < most {
        let Some((position, record)) = walk.next()? else {
            break;
        };
        records.insert(position, record);
    }
    Ok(Walked { records, begins_later: walk.begins_later })
}

/// Every record that changed one entry, whoever's name it is today: what it takes to know it as
/// it was then.
pub fn of_entry(app: &App, id: LeadId, from: Position, most: usize) -> Result<Walked, ReadError> {
    let mut timeline = Timeline::new();
    let mut next = from;
    while next != Position::NONE && timeline.len() < most {
        let record = match read(app, next) {
            Err(ReadError::Removed { .. }) => {
                return Ok(Walked { records: timeline, begins_later: true });
            }
            read => read?,
        };
        let Some(part) = record.lead_part().filter(|part| part.lead == id) else {
            break;
        };
        let position = std::mem::replace(&mut next, part.previous);
        timeline.insert(position, record);
    }
    Ok(Walked { records: timeline, begins_later: false })
}

/// An entry as its records, the oldest first, make it of what it was before them.
pub fn replayed<'a>(
    mut lead: Lead,
    records: impl Iterator<Item = (&'a Position, &'a Record)>,
) -> Lead {
    for (position, record) in records {
        let stamp = (record.time, record.version);
        match &record.body {
            Body::Hit(hit) => {
                if let Some(part) = &hit.lead {
                    lead.evolve(part, Some(hit), stamp, *position);
                }
            }
            Body::Due(part) => lead.evolve(part, None, stamp, *position),
            Body::Step(step) => {
                if let Some(part) = &step.lead {
                    lead.evolve_step(step, part, stamp, *position);
                }
            }
            Body::Published(_) | Body::Named(_) | Body::Outbox(_) => {}
        }
    }
    lead
}

/// Which back pointers are followed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Chain {
    /// Those of leads.
    Lead,
    /// Those of visitors, down to a record.
    Visitor(Position),
}

/// A walk along several chains at once, the newest record first.
struct Walk<'a> {
    app: &'a App,
    cursors: BinaryHeap<(Position, Chain)>,
    /// Chains of leads that were followed already, by where they were entered.
    entered: BTreeSet<Position>,
    last: Option<(Position, Record)>,
    begins_later: bool,
}

impl<'a> Walk<'a> {
    fn new(app: &'a App) -> Walk<'a> {
        let (cursors, entered) = (BinaryHeap::new(), BTreeSet::new());
        Walk { app, cursors, entered, last: None, begins_later: false }
    }

    fn add(&mut self, from: Position, chain: Chain) {
        let floor = match chain {
            Chain::Lead => Position::NONE,
            Chain::Visitor(floor) => floor,
        };
        if from != Position::NONE && from >= floor {
            self.cursors.push((from, chain));
        }
    }

    fn next(&mut self) -> Result<Option<(Position, Record)>, ReadError> {
        while let Some((position, chain)) = self.cursors.pop() {
            let again = self.last.as_ref().is_some_and(|(last, _)| *last == position);
            let record = match self.last.take().filter(|_| again) {
                Some((_, record)) => record,
                None => match read(self.app, position) {
                    // So are all that this chain comes to.
                    Err(ReadError::Removed { .. }) => {
                        self.begins_later = true;
                        continue;
                    }
                    read => read?,
                },
            };
            match chain {
                Chain::Lead => self.follow_lead(&record),
                Chain::Visitor(floor) => {
                    let previous = record.previous_of_visitor().map(|(_, previous)| previous);
                    self.add(previous.unwrap_or_default(), Chain::Visitor(floor));
                }
            }
            if let Body::Hit(hit) = &record.body
                && let Some(first) = &hit.first
            {
                // A visitor's first hit stands in the record that admitted them; it has its own.
                self.add(first.position, Chain::Visitor(first.position));
            }
            self.last = Some((position, record.clone()));
            if !again {
                return Ok(Some((position, record)));
            }
        }
        Ok(None)
    }

    fn follow_lead(&mut self, record: &Record) {
        let Some(part) = record.lead_part() else {
            return;
        };
        self.add(part.previous, Chain::Lead);
        for history in part.link.iter().flat_map(|link| &link.histories) {
            self.add(history.last_position, Chain::Visitor(history.first_position));
        }
        let Body::Step(step) = &record.body else {
            return;
        };
        if let Step::TakeIn(parcel) = &step.step {
            // Whoever was joined has a chain of their own; whoever was parted left part of
            // theirs in that of whose name they were.
            let sender = match parcel.joint {
                Some(_) => step.of,
                None => {
                    self.app.engine.entry(parcel.from).map_or(Position::NONE, |it| it.last_position)
                }
            };
            if self.entered.insert(sender) {
                self.add(sender, Chain::Lead);
            }
        }
    }
}

/// Says which hits are a lead's, as the engine knows it now.
struct Owned<'a> {
    app: &'a App,
    lead: &'a Lead,
    visitors: BTreeMap<VisitorId, Option<Visitor>>,
}

impl<'a> Owned<'a> {
    fn new(app: &'a App, lead: &'a Lead) -> Owned<'a> {
        Owned { app, lead, visitors: BTreeMap::new() }
    }

    fn holds(&mut self, position: Position, record: &Record) -> bool {
        let Body::Hit(hit) = &record.body else {
            return record.lead_part().is_some_and(|part| self.is_theirs(part.lead));
        };
        let part = hit.lead.as_ref();
        let Some(id) = hit.hit.visitor.filter(|_| part.is_none_or(|part| !part.only_said)) else {
            return part.is_some_and(|part| self.is_theirs(part.origin));
        };
        let owner = self.owner(id, position, hit);
        owner.is_some_and(|owner| self.is_theirs(owner))
    }

    fn is_theirs(&self, name: LeadId) -> bool {
        self.lead.content.member(name).is_some()
    }

    /// Whose a browser's hit is; of a stretch that is forgotten, whose it was.
    fn owner(&mut self, id: VisitorId, position: Position, hit: &HitRecord) -> Option<LeadId> {
        let now = self.app.clock.now();
        let known = self.visitors.entry(id).or_insert_with(|| self.app.engine.visitor(id, now));
        let stretch = known.as_ref().and_then(|visitor| {
            visitor.stretches().find(|stretch| {
                let (after, until) = visitor.trail.span(stretch.after);
                (position > after && position <= until) || position == stretch.first_position
            })
        });
        match stretch {
            Some(stretch) => stretch.owner,
            None => hit.lead.as_ref().map(|part| part.origin),
        }
    }
}
