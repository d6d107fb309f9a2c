//! Nothing is lost and nothing is twice: every row that the journal says was earned is in the
//! ledger of whose it is, once, and nothing is left on its way.

use std::collections::BTreeMap;

use engine::engine::Engine;
use engine::facts::Source;
use engine::id::{LeadId, Position, VisitorId};
use engine::record::{Body, Step};
use engine::time::Timestamp;
use engine::visitor::Stretch;

use super::world::Journal;

/// A row by its record and its place there.
type Place = (Position, u16);

/// What is wrong with an engine that applied a whole journal, if anything is.
pub fn nothing_lost(engine: &Engine, journal: &Journal, now: Timestamp) -> Result<(), String> {
    let mut expected: BTreeMap<Place, LeadId> = BTreeMap::new();
    // What a browser's oldest stretches were, and whose, is remembered no longer.
    let mut forgotten: Vec<Position> = Vec::new();
    let mut answers: Vec<(u64, Position, LeadId)> = Vec::new();
    for (position, record) in journal.records() {
        if let Body::Step(step) = &record.body
            && let (Step::Feedback(feedback), Some(part)) = (&step.step, &step.lead)
        {
            let head = engine.head(feedback.origin);
            answers.push((feedback.id, position, head));
            expected.extend(part.rows.iter().map(|row| ((position, row.order), head)));
        }
        let Body::Hit(record) = &record.body else {
            continue;
        };
        let (rows, owner) = match (&record.visit, record.hit.visitor) {
            (Some(visit), Some(visitor)) => {
                let Some(stretch) = stretch(engine, visitor, position, now) else {
                    forgotten.push(position);
                    continue;
                };
                (&visit.rows, stretch.owner)
            }
            (_, _) => match &record.lead {
                Some(part) => (&part.rows, Some(part.origin)),
                None => continue,
            },
        };
        for row in rows {
            let own = if row.position == Position::NONE { position } else { row.position };
            expected.extend(owner.map(|owner| ((own, row.order), engine.head(owner))));
        }
    }
    let mut found: BTreeMap<Place, LeadId> = BTreeMap::new();
    for id in engine.lead_ids() {
        let lead = engine.lead(id).ok_or(format!("{id} is lost"))?;
        if lead.outgoing.is_some() || lead.arriving.is_some() || lead.awaits.is_some() {
            return Err(format!("{id}: something is still on its way"));
        }
        for row in &lead.content.rows {
            let place = (row.position, row.order);
            if let Some(other) = found.insert(place, id) {
                return Err(format!("{place:?} is {other}'s and {id}'s"));
            }
            if lead.content.member(row.origin).is_none() {
                return Err(format!("{place:?} is earned under a name that is not {id}'s"));
            }
            let tied = lead.content.ties.iter().any(|tie| tie.source == row.source);
            if row.source != Source::Server && !tied {
                return Err(format!("{place:?} came through a browser that is not {id}'s"));
            }
        }
    }
    heard_once(engine, answers)?;
    found.retain(|(position, _), _| forgotten.binary_search(position).is_err());
    if found != expected {
        let lost = expected.iter().find(|(place, lead)| found.get(place) != Some(lead));
        let more = found.iter().find(|(place, _)| !expected.contains_key(place));
        return Err(format!("lost: {lost:?}, whose it is not: {more:?}"));
    }
    Ok(())
}

/// Every answer is one person's: whose name it was given of.
fn heard_once(engine: &Engine, mut answers: Vec<(u64, Position, LeadId)>) -> Result<(), String> {
    let mut heard = Vec::new();
    for id in engine.lead_ids() {
        let feedback = engine.lead(id).map(|lead| lead.content.feedback).unwrap_or_default();
        heard.extend(feedback.iter().map(|it| (it.id, it.position, id)));
    }
    heard.sort_unstable();
    answers.sort_unstable();
    if heard == answers { Ok(()) } else { Err(format!("{heard:?} are heard of {answers:?}")) }
}

/// The stretch that a browser's record is in; nothing if that is forgotten.
fn stretch(
    engine: &Engine,
    visitor: VisitorId,
    position: Position,
    now: Timestamp,
) -> Option<Stretch> {
    engine.visitor(visitor, now)?.trail.stretch_at(position).cloned()
}
