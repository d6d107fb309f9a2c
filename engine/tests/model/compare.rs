//! What is derived of everybody, held against what the model works out from scratch.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::facts::Source;
use engine::id::{LeadId, Position};
use engine::lead::{Lead, explain};
use engine::time::Timestamp;

use super::exact;
use super::life::Life;
use super::oracle::Oracle;
use super::sales::{Answer, takes_half};
use super::world::World;

fn same<T: PartialEq + std::fmt::Debug>(what: &str, engine: &T, model: &T) -> Result<(), String> {
    if engine == model {
        return Ok(());
    }
    Err(format!("{what}: the engine says {engine:?}, the model {model:?}"))
}

/// Who there is, under which names, and what is known of each.
pub fn alike(world: &World, oracle: &Oracle, now: Timestamp) -> Result<(), String> {
    let mut leads = world.engine.lead_ids();
    leads.sort_unstable();
    same("people", &leads, &oracle.heads())?;
    for name in oracle.all_names() {
        let head = world.engine.head(name);
        same(&format!("whose {name} is"), &Some(head), &oracle.head(name))?;
    }
    for id in leads {
        let lead = world.engine.lead(id).ok_or(format!("{id} is lost"))?;
        lead_alike(world, &lead, &oracle.life(id), now).map_err(|what| format!("{id}: {what}"))?;
    }
    Ok(())
}

/// One person: rows with their grants and cuts, score, profile, grade, sides.
fn lead_alike(world: &World, lead: &Lead, life: &Life, now: Timestamp) -> Result<(), String> {
    let rows = lead.content.rows.iter();
    let rows: Vec<_> = rows
        .map(|row| {
            let key = (row.when.0, row.position, row.order);
            // What a lost deal took at first is fact; what it takes follows from the rows before.
            let base = if takes_half(row.rule, row.order) { 0 } else { row.base.0 };
            (key, row.rule, row.origin, base, row.granted.0, row.cut)
        })
        .collect();
    let ledger = life.ledger(now.0);
    let expected: Vec<_> = ledger
        .iter()
        .map(|(award, granted, cut)| {
            let key = (award.when, award.position, award.order);
            (key, award.rule, award.origin, award.base, *granted, *cut)
        })
        .collect();
    for (row, expected) in rows.iter().zip(&expected) {
        same("a row", row, expected)?;
    }
    same("the number of rows", &rows.len(), &expected.len())?;
    let (profile, known) = (lead.profile(), life.knowledge(now.0));
    same("attributes", &profile.attributes, &known.attributes)?;
    same("consent", &profile.consent, &known.consent)?;
    same("assurance", &profile.assurance, &known.assurance)?;
    same("the grade", &lead.standing(&world.scoring, now).grade, &life.grade(now.0))?;
    let seen = lead.last_human().map(|seen| seen.0);
    same("when last seen", &seen, &life.standing(now.0).last_human)?;
    sales_alike(lead, life)?;
    sides_alike(world, lead, life, now)?;
    scores_alike(world, lead, life, now)
}

/// What sales answered, and what it proves.
fn sales_alike(lead: &Lead, life: &Life) -> Result<(), String> {
    let answers = lead.content.feedback.iter();
    let answers: Vec<Answer> =
        answers.map(|feedback| Answer::of(feedback, feedback.time, feedback.position)).collect();
    let known = life.answers.iter().map(|answer| Answer { vouches: Vec::new(), ..answer.clone() });
    same("what sales answered", &answers, &known.collect())?;
    for tie in &lead.content.ties {
        let claimed = lead.content.is_claimed(tie.source, tie.origin);
        if let Source::Visitor(visitor) = tie.source {
            let unproved = life.unproved.contains(&(visitor, tie.origin));
            same(&format!("whether {visitor} is claimed"), &claimed, &unproved)?;
        }
    }
    Ok(())
}

fn sides_alike(world: &World, lead: &Lead, life: &Life, now: Timestamp) -> Result<(), String> {
    let stays = lead.stays(&world.scoring, now);
    let mut hints: Vec<u64> = stays.iter().flat_map(|(_, from, until)| [from.0, until.0]).collect();
    hints.extend(lead.bands.iter().map(|band| band.side.since.0));
    let sides = life.sides(now.0, &hints);
    for line in &world.scoring.terms().thresholds {
        let side = lead.band(line).side;
        let place = sides.get(&line.id).copied().unwrap_or_default();
        let (side, place) = ((side.inside, side.since.0), (place.inside, place.since));
        same(&format!("the side of {}", line.name), &side, &place)?;
    }
    same("the stage", &lead.stage(&world.scoring, now), &life.stage(now.0, &sides))
}

fn scores_alike(world: &World, lead: &Lead, life: &Life, now: Timestamp) -> Result<(), String> {
    let ledger = life.ledger(now.0);
    for hours in [0, 1, 100, 2_000] {
        let at = now.plus(Duration::from_hours(hours));
        let mut score = 0;
        for category in world.scoring.terms().categories.iter().filter(|it| it.in_total) {
            let own = ledger.iter().filter(|(award, ..)| award.category == category.id);
            let own: Vec<_> = own.map(|(award, granted, _)| (award.when, *granted)).collect();
            score += exact::value(category.half_life.millis(), &own, at.0);
        }
        let shown = explain(&lead.content.rows, world.scoring.terms(), at).score.0;
        same("the score", &shown, &score)?;
    }
    Ok(())
}

/// Every award of a hit that is somebody's is in exactly one ledger, and no other is in any.
pub fn owned_once(world: &World, oracle: &Oracle) -> Result<(), String> {
    let mut found: Vec<(LeadId, Position, u16)> = Vec::new();
    for id in world.engine.lead_ids() {
        let rows = world.engine.lead(id).map(|lead| lead.content.rows).unwrap_or_default();
        found.extend(rows.iter().map(|row| (id, row.position, row.order)));
    }
    found.sort_unstable();
    let mut times: BTreeMap<(Position, u16), usize> = BTreeMap::new();
    for (_, position, order) in &found {
        *times.entry((*position, *order)).or_default() += 1;
    }
    if let Some(twice) = times.iter().find(|(_, times)| **times > 1) {
        return Err(format!("{twice:?} is in more than one ledger"));
    }
    same("whose rows there are", &found, &oracle.owned())
}

/// The journal alone leads to the same state.
pub fn replays_alike(world: &World) -> Result<(), String> {
    let now = world.now();
    let live = world.engine.state_hash(now);
    for shards in [2, 8, 1_024] {
        let replayed = world.journal.replay(shards).state_hash(now);
        same(&format!("the state with {shards} shards"), &live, &replayed)?;
    }
    Ok(())
}
