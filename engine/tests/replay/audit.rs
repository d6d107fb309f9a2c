//! The shadow audit: it finds nothing in a life that goes on while it looks, and everything that
//! is changed behind the records' back.

use std::collections::BTreeSet;

use engine::engine::{Audit, Audited, How, Who};
use engine::record::Record;

use super::*;

/// Entries looked at between two things that happen.
const LOOK: usize = 3;

/// Audits some slots of a life that goes on while it is looked at, from a snapshot or from the
/// beginning.
fn audit(life: &mut Life, slots: std::ops::Range<u16>, snapshot: Option<&Snapshot>) -> Audited {
    let pushed = Position::new(0, life.world.journal.0.len() as u64);
    let mut audit = Audit::begin(&life.world.engine, slots, pushed, life.now, || {});
    while !audit.look(&life.world.engine, LOOK) {
        life.go_on();
    }
    (0..3).for_each(|_| life.go_on());
    lead(&mut audit, snapshot, life.world.journal.records());
    audit.finish(&life.world.engine, life.now)
}

/// Leads the shadow along.
fn lead(
    audit: &mut Audit,
    snapshot: Option<&Snapshot>,
    records: impl Iterator<Item = (Position, Record)>,
) {
    for bytes in snapshot.iter().flat_map(|snapshot| &snapshot.slots) {
        let mut aligned: AlignedVec = AlignedVec::new();
        aligned.extend_from_slice(bytes);
        let slots = SlotReader::open(&aligned, FORM).unwrap();
        audit.restore(&slots, &|_, sealed| world::unseal(sealed), &|| {}).unwrap();
    }
    let from = snapshot.map_or(0, |snapshot| snapshot.from);
    for (position, record) in records.skip(from) {
        if audit.concerns(&record) {
            audit.apply(&record, position);
        }
    }
}

/// What an audit of all slots finds in an engine at rest that should hold what records say.
fn compared(engine: &Engine, pushed: u64, records: &[(Position, Record)]) -> Audited {
    let pushed = Position::new(0, pushed);
    let now = at("2027-06-01 00:00");
    let mut audit = Audit::begin(engine, 0..Slot::COUNT as u16, pushed, now, || {});
    assert!(audit.look(engine, usize::MAX));
    lead(&mut audit, None, records.iter().cloned());
    audit.finish(engine, now)
}

#[test]
fn an_audit_finds_nothing_in_a_life_that_goes_on_meanwhile() {
    let mut entries = 0;
    for seed in seeds(150) {
        let mut life = Life::new(seed);
        let before = life.chance.below(80);
        (0..before).for_each(|_| life.go_on());
        let snapshot = life.snapshot();
        let more = life.chance.below(40);
        (0..more).for_each(|_| life.go_on());
        // All at once, and in parts, each at a moment of its own.
        for slots in [0..1_024, 0..300, 300..301, 301..1_024] {
            for from in [None, Some(&snapshot)] {
                let found = audit(&mut life, slots.clone(), from);
                assert_eq!(found.differences, [], "seed {seed}, {slots:?}");
                assert_eq!((found.different, found.disturbed), (0, false));
                entries += found.entries;
            }
        }
    }
    assert!(entries > 1_000, "{entries} entries compared");
}

/// Who differs between two engines at rest.
fn differing(one: &Engine, other: &Engine) -> BTreeSet<Who> {
    let (mut visitors, mut leads) = (BTreeSet::new(), BTreeSet::new());
    for engine in [one, other] {
        let (ids, _) = engine.visitors_where(usize::MAX, |_| true);
        visitors.extend(ids);
        leads.extend(engine.erasures().into_keys());
        leads.extend(engine.lead_ids());
    }
    leads.extend(MAILS.map(lead_of));
    let now = at("2027-06-01 00:00");
    let visitors =
        visitors.into_iter().filter(|id| one.visitor(*id, now) != other.visitor(*id, now));
    let leads = leads.into_iter().filter(|id| one.entry(*id) != other.entry(*id));
    visitors.map(Who::Visitor).chain(leads.map(Who::Lead)).collect()
}

/// Something that is not so: a point more, or another moment.
fn altered(record: &Record) -> Option<Record> {
    let mut altered = record.clone();
    match &mut altered.body {
        Body::Hit(hit) => match (&mut hit.lead, &mut hit.visit) {
            (Some(part), _) if !part.rows.is_empty() => part.rows[0].granted.0 += 1,
            (_, Some(visit)) if !visit.rows.is_empty() => visit.rows[0].granted.0 += 1,
            _ => hit.hit.when = hit.hit.when.plus(Duration::from_millis(1)),
        },
        Body::Due(part) => part.crossings.first_mut()?.number += 1,
        _ => return None,
    }
    Some(altered)
}

#[test]
fn whoever_is_changed_left_behind_or_lost_is_found_counted_and_named() {
    let (mut changed, mut hows) = (0, BTreeSet::new());
    for seed in seeds(12) {
        let life = Life::new(seed).run(80);
        let records: Vec<_> = life.journal.records().collect();
        let pushed = records.len() as u64;
        let sound = life.journal.replay(2);
        assert_eq!(compared(&sound, pushed, &records).different, 0, "seed {seed}");
        for chosen in 0..records.len() {
            // One record is another for the engine, or none at all.
            for other in [altered(&records[chosen].1), None] {
                let engine = Engine::new(8);
                for (index, (position, record)) in records.iter().enumerate() {
                    match &other {
                        Some(other) if index == chosen => engine.evolve(other, *position),
                        None if index == chosen => {}
                        _ => engine.evolve(record, *position),
                    }
                }
                let expected = differing(&sound, &engine);
                let found = compared(&engine, pushed, &records);
                let named: BTreeSet<Who> = found.differences.iter().map(|it| it.who).collect();
                assert_eq!(named, expected, "seed {seed}, record {chosen}");
                assert_eq!((found.different, found.disturbed), (expected.len(), false));
                hows.extend(found.differences.iter().map(|it| it.how));
                changed += expected.len();
            }
        }
    }
    assert!(changed > 500, "{changed} changes found");
    assert_eq!(hows, BTreeSet::from([How::Content, How::Behind, How::Missing]));
}

#[test]
fn whoever_knows_of_a_record_that_is_not_in_the_journal_is_found() {
    let life = Life::new(5).run(80);
    let records: Vec<_> = life.journal.records().collect();
    let engine = life.journal.replay(2);
    let of_lead = |it: &&(Position, Record)| it.1.lead_part().is_some();
    let (_, again) = records.iter().rev().find(of_lead).unwrap();
    let beyond = Position::new(0, records.len() as u64 + 1);
    engine.evolve(again, beyond);
    let found = compared(&engine, records.len() as u64, &records);
    let lead = Who::Lead(again.lead_part().unwrap().lead);
    let known = found.differences.iter().find(|it| it.who == lead).unwrap();
    assert_eq!((known.how, known.position), (How::Unfounded, beyond));
    let said = known.to_string();
    assert!(said.starts_with(&format!("slot {}, L", lead.slot().0)), "{said}");
}

#[test]
fn whoever_is_erased_while_an_audit_is_under_way_disturbs_it_and_not_the_next() {
    let mut world = World::new(example().build(1));
    world.at("2026-12-07 10:00").identify(MAILS[0]).view("/pricing");
    let all = 0..Slot::COUNT as u16;
    let begin = |world: &World| {
        let pushed = Position::new(0, world.journal.0.len() as u64);
        let mut audit = Audit::begin(&world.engine, all.clone(), pushed, world.now(), || {});
        assert!(audit.look(&world.engine, usize::MAX));
        audit
    };
    // What was said of them cannot be read any more.
    let keyless = |world: &World| {
        let decoded = |(index, bytes): (usize, &Vec<u8>)| {
            (Position::new(0, index as u64 + 1), Record::decode(bytes).unwrap())
        };
        world.journal.0.iter().enumerate().map(decoded).collect::<Vec<_>>()
    };
    let mut first = begin(&world);
    let erased = world.step(|engine, why, means| engine.erase(lead_of(MAILS[0]), why, means));
    assert!(erased.is_ok());
    lead(&mut first, None, keyless(&world).into_iter());
    let found = first.finish(&world.engine, world.now());
    assert_eq!((found.different, found.disturbed), (1, true));
    let mut second = begin(&world);
    lead(&mut second, None, keyless(&world).into_iter());
    let found = second.finish(&world.engine, world.now());
    assert_eq!((found.different, found.disturbed), (0, false), "{:?}", found.differences);
    assert!(found.entries > 1);
}

#[test]
fn whoever_has_expired_is_missed_by_nobody_whether_swept_or_not() {
    let mut world = World::new(example().build(1));
    let start = at("2026-12-01 09:00");
    world.to(start).on(1).view("/pricing");
    world.on(2).view("/pricing");
    let snapshot = Snapshot::of(&world.engine, world.journal.0.len(), start);
    let later = start.plus(VISITOR_LIFE + Duration::from_hours(48));
    // One of them has come back as somebody new; the other is absent.
    world.to(later).on(2).view("/column/dx");
    for swept in [false, true] {
        if swept {
            world.engine.sweep(later);
            assert_eq!(world.engine.sizes().0, 1);
        }
        for from in [None, Some(&snapshot)] {
            let pushed = Position::new(0, world.journal.0.len() as u64);
            let all = 0..Slot::COUNT as u16;
            let mut audit = Audit::begin(&world.engine, all, pushed, later, || {});
            assert!(audit.look(&world.engine, usize::MAX));
            lead(&mut audit, from, world.journal.records());
            let found = audit.finish(&world.engine, later);
            assert_eq!((found.entries, found.differences), (1, vec![]), "swept: {swept}");
        }
    }
}

#[test]
fn whoever_is_swept_between_two_looks_is_missed_by_nobody() {
    let mut world = World::new(example().build(1));
    let start = at("2026-12-01 09:00");
    world.to(start).on(1).view("/pricing");
    let (pushed, all) = (Position::new(0, world.journal.0.len() as u64), 0..Slot::COUNT as u16);
    let mut audit = Audit::begin(&world.engine, all, pushed, start, || {});
    // A clock that was a year behind is set right.
    let later = start.plus(VISITOR_LIFE + Duration::from_hours(48));
    world.engine.sweep(later);
    assert!(audit.look(&world.engine, usize::MAX));
    lead(&mut audit, None, world.journal.records());
    let found = audit.finish(&world.engine, later);
    assert_eq!((found.entries, found.differences), (0, vec![]));
}
