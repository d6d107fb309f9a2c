//! What came of the records: replayed twice with maps divided differently, every granted row
//! where a record says it is, every first hit where another says it stands, and every ledger
//! adding up to its score.

use engine::engine::Engine;
use engine::explain::explain;
use engine::id::Position;
use engine::ledger::{Regrant, Row};
use engine::record::{Body, Record};
use engine::time::Timestamp;

use super::records::Firsts;
use super::{Report, State, at};
use crate::journal::scan::{Finding, Scanned};
use crate::past::{Past, PastError, Step, When};
use crate::snapshots::file::Snapshot;

/// Into how many parts the maps are divided, the one time and the other.
const SHARDS: [usize; 2] = [1_024, 2];

/// Replays and judges.
///
/// The state is that of the last moment that anything says was: also a snapshot or the base, which
/// nothing may have followed. What expired until then they have not.
pub(super) fn check(
    past: &Past,
    until: Position,
    firsts: &Firsts,
    snapshots: &[(String, Snapshot)],
    report: &mut Report,
) {
    let mut hashes = [0; 2];
    let base = past.base().ok().flatten();
    let created = snapshots.iter().map(|(_, it)| it).chain(&base).map(|it| it.head.created);
    let mut at_ms = created.max().unwrap_or(Timestamp(0));
    for (round, shards) in SHARDS.into_iter().enumerate() {
        let engine = Engine::new(shards);
        let mut latest = at_ms;
        let mut found = Vec::new();
        let replayed = replay(past, &engine, until, &mut |step, when| {
            if when == When::After && round == 0 {
                latest = latest.max(step.record.time);
                firsts_stand(step, firsts, &mut found);
                regrants_stand(step, &engine, &mut found);
            }
        });
        for finding in found {
            report.wrong(finding);
        }
        if let Err(error) = replayed {
            return report.wrong_file("replay", "journal", None, error.to_string());
        }
        if round == 0 {
            at_ms = latest;
        }
        hashes[round] = engine.state_hash(at_ms);
        if round == 0 {
            ledgers(&engine, (at_ms, hashes[0]), report);
        }
    }
    if hashes[0] != hashes[1] {
        let about = format!("{:032x} and {:032x}", hashes[0], hashes[1]);
        report.wrong_file("state_hash", "journal", None, about);
    }
}

/// A start from a snapshot comes to the same state as one from the journal alone, or its base.
pub(super) fn check_snapshots(
    past: &Past,
    until: Position,
    snapshots: Vec<(String, Snapshot)>,
    report: &mut Report,
) {
    let Some(State { hash, at_ms, .. }) = report.state else {
        return;
    };
    for (name, snapshot) in snapshots {
        let engine = Engine::new(SHARDS[0]);
        let known = snapshot.end.until;
        let done = past
            .restore(&snapshot, &engine)
            .and_then(|()| past.go_on(&engine, (known, until), &mut |_, _| true, &mut |_, _| {}));
        let found = engine.state_hash(Timestamp(at_ms));
        let about = match done {
            Ok(_) if found == hash => continue,
            Ok(_) => format!("with the records after it: {found:032x}, and not {hash:032x}"),
            Err(error) => error.to_string(),
        };
        report.wrong_file("snapshot_state", &format!("snapshots/{name}"), None, about);
    }
}

fn replay(
    past: &Past,
    engine: &Engine,
    until: Position,
    each: &mut dyn FnMut(&Step<'_>, When),
) -> Result<Scanned, PastError> {
    past.replay(engine, until, &mut |_, _| true, each)
}

/// A first hit is recorded on its own before it is embedded.
fn firsts_stand(step: &Step<'_>, firsts: &Firsts, found: &mut Vec<Finding>) {
    let position = step.entry.position;
    let Some(visitor) = firsts.get(&position) else {
        return;
    };
    let stands = match &step.record.body {
        Body::Hit(hit) => hit.hit.visitor == Some(*visitor) && hit.visit.is_none(),
        _ => false,
    };
    if !stands {
        let about = format!("a later record says that the first hit of {visitor} stands here");
        found.push(at("first_hit", &step.place, position, about));
    }
}

/// A row that is granted something else has to be there.
fn regrants_stand(step: &Step<'_>, engine: &Engine, found: &mut Vec<Finding>) {
    let position = step.entry.position;
    let mut judge = |regrants: &[Regrant], rows: &[Row], whose: &str| {
        for regrant in regrants {
            let own = if regrant.position == Position::NONE { position } else { regrant.position };
            if !rows.iter().any(|row| row.position == own && row.order == regrant.order) {
                let about = format!("{whose} has no row of {}, order {}", own.0, regrant.order);
                found.push(at("regrant", &step.place, position, about));
            }
        }
    };
    if let Some(part) = step.record.lead_part().filter(|part| !part.regrants.is_empty())
        && let Some(lead) = engine.entry(part.lead)
    {
        judge(&part.regrants, &lead.content.rows, "the lead");
    }
    let (visitor, regrants) = regrants_of_visitor(step.record);
    if let Some(visitor) = visitor.filter(|_| !regrants.is_empty())
        && let Some(visitor) = engine.visitor(visitor, step.record.time)
    {
        judge(regrants, &visitor.rows.in_order(), "the visitor");
    }
}

fn regrants_of_visitor(record: &Record) -> (Option<engine::id::VisitorId>, &[Regrant]) {
    match &record.body {
        Body::Hit(hit) => {
            (hit.hit.visitor, hit.visit.as_ref().map_or(&[][..], |visit| &visit.regrants))
        }
        Body::Step(step) => step
            .visit
            .as_ref()
            .map_or((None, &[][..]), |visit| (Some(visit.visitor), &visit.regrants)),
        Body::Due(_) | Body::Published(_) | Body::Named(_) | Body::Outbox(_) => (None, &[]),
    }
}

/// Law 3: the rows shown add up to the score shown, exactly.
fn ledgers(engine: &Engine, (now, hash): (Timestamp, u128), report: &mut Report) {
    let versions = engine.catalog().versions;
    let mut checked = 0;
    for id in engine.lead_ids() {
        let Some(lead) = engine.entry(id) else {
            continue;
        };
        let Some(terms) = versions.at(now, lead.rescored) else {
            continue;
        };
        checked += 1;
        let score = engine::lead::score_of(&lead, terms).value(now);
        let explained = explain(&lead.content.rows, terms, now);
        let shares: i64 = explained
            .shares
            .iter()
            .filter(|(row, _)| terms.is_in_total(row.category))
            .map(|(_, share)| share.0)
            .sum();
        if shares != score.0 || explained.score != score {
            let about =
                format!("{id}: rows of {shares}, shown {}, score {}", explained.score.0, score.0);
            report.wrong_file("ledger", "journal", None, about);
        }
    }
    let (visitors, leads) = engine.sizes();
    report.state = Some(State { hash, at_ms: now.0, visitors, leads, ledgers: checked });
}
