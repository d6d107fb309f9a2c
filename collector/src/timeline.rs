//! What happened to one visitor or lead, newest first, by the back pointers in the journal. No
//! index is needed: each record names the one before it of its visitor and of its lead.

use std::collections::BTreeMap;

use engine::id::{LeadId, Position};
use engine::record::{Body, HitRecord, Record};

use crate::app::App;
use crate::journal::ReadError;
use crate::seal::attributes_from_bytes;

/// Records by position.
pub type Timeline = BTreeMap<Position, Record>;

/// Reads one record with its attributes unsealed.
pub fn read(app: &App, position: Position) -> Result<Record, ReadError> {
    let bytes = app.journal.read(position)?;
    let mut record = Record::decode(&bytes).map_err(|_| ReadError::NotDurable)?;
    unseal(app, &mut record);
    Ok(record)
}

/// Puts the plain attributes back into a record, as far as their keys are there.
pub fn unseal(app: &App, record: &mut Record) {
    if let Body::Hit(record) = &mut record.body {
        unseal_hits(record, |lead, sealed| app.sealer.unseal(lead, sealed));
    }
}

/// The same with any way of unsealing: for recovery, before there is an `App`.
pub fn unseal_hits(record: &mut HitRecord, open: impl Fn(LeadId, &[u8]) -> Option<Vec<u8>>) {
    let first = record.first.as_mut().map(|first| &mut first.hit);
    for hit in [Some(&mut record.hit), first].into_iter().flatten() {
        let Some(claim) = hit.claim.as_mut().filter(|claim| !claim.sealed.is_empty()) else {
            continue;
        };
        let plain = open(claim.lead, &claim.sealed);
        claim.attributes = plain.and_then(|it| attributes_from_bytes(&it)).unwrap_or_default();
    }
}

/// A lead's records, from one of theirs backwards, with the anonymous history of every visitor
/// who was tied to them. At most `most`; the newest are kept.
pub fn of_lead(app: &App, from: Position, most: usize) -> Result<Timeline, ReadError> {
    let mut timeline = Timeline::new();
    let mut next = from;
    while next != Position::NONE && timeline.len() < most {
        let position = next;
        let record = read(app, position)?;
        let Some(part) = record.lead_part() else {
            break;
        };
        next = part.previous;
        let history = part.link.as_ref().and_then(|link| link.history);
        add_first(app, &mut timeline, &record);
        timeline.insert(position, record);
        if let Some(history) = history.filter(|history| history.last_position != Position::NONE) {
            let room = most.saturating_sub(timeline.len());
            let ends = (history.last_position, history.first_position);
            walk_visitor(app, &mut timeline, ends, room)?;
        }
    }
    Ok(timeline)
}

/// A visitor's records, from one of theirs backwards.
pub fn of_visitor(app: &App, from: Position, most: usize) -> Result<Timeline, ReadError> {
    let mut timeline = Timeline::new();
    walk_visitor(app, &mut timeline, (from, Position::NONE), most)?;
    Ok(timeline)
}

fn walk_visitor(
    app: &App,
    timeline: &mut Timeline,
    (from, until): (Position, Position),
    most: usize,
) -> Result<(), ReadError> {
    let mut next = from;
    for _ in 0..most {
        if next == Position::NONE || next < until {
            break;
        }
        let record = read(app, next)?;
        let position = next;
        next = record.previous_of_visitor().map_or(Position::NONE, |(_, previous)| previous);
        add_first(app, timeline, &record);
        timeline.insert(position, record);
    }
    Ok(())
}

/// The first hit of a visitor stands in the record that admitted them; it has its own place.
fn add_first(app: &App, timeline: &mut Timeline, record: &Record) {
    let Body::Hit(hit) = &record.body else {
        return;
    };
    let Some(first) = &hit.first else {
        return;
    };
    if let Ok(record) = read(app, first.position) {
        timeline.insert(first.position, record);
    }
}
