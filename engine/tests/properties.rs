//! The laws, on random histories. Every failure prints the seed that repeats it.
#![allow(clippy::unwrap_used)]

mod model;

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use engine::alert::{AlertId, Cause};
use engine::engine::{Answered, Arrival, Engine, Ingested, StepError};
use engine::facts::Source;
use engine::hit::{Hit, HitKind};
use engine::id::{Key, LeadId, Position, RuleId};
use engine::identity::{Assurance, IdentityKind};
use engine::lead::explain;
use engine::ledger::{
    Basis, Cut, LEDGER_ROWS_MAX, Row, fold_for, settle, settle_next, settle_with, sum,
};
use engine::points::Points;
use engine::record::{Body, FirstHit, HitRecord, Record, Step};
use engine::rule::RuleSet;
use engine::sales::Feedback;
use engine::scoring::Scoring;
use engine::threshold::{Crossing, Direction};
use engine::time::Timestamp;
use engine::wire::WireError;

use model::chance::{Chance, seeds};
use model::claims::{EVENTS, FOLLOWED, TITLES};
use model::exact;
use model::oracle::{Entry, Oracle};
use model::rules::{INTENT, Parts, example, mixed};
use model::sales::{Answer, random_answer};
use model::world::{World, at, browser, claim, lead_of, seal};

const START: Timestamp = Timestamp(1_796_000_000_000);
const PATHS: [&str; 14] = [
    "/column/dx",
    "/case/line",
    "/product/a",
    "/product/b",
    "/product/c",
    "/product/d",
    "/pricing",
    "/thanks/document/guide",
    "/thanks/event/dx",
    "/thanks/contact",
    "/thanks/trial",
    "/careers",
    "/thanks/careers",
    "",
];
const MAILS: [&str; 4] = ["a@x.example", "b@x.example", "c@x.example", "d@x.example"];

/// A random hit of one of three browsers, or of none, received at a moment.
fn random_hit(chance: &mut Chance, now: Timestamp, selling: bool) -> Hit {
    let late = chance.percent(15);
    let late = Duration::from_millis(if late { chance.below(86_400_000) } else { 0 });
    let mut hit = Hit {
        visitor: Some(browser(chance.below(3))),
        received: now,
        when: now.minus(late),
        path: (*chance.pick(&PATHS)).to_owned(),
        id: if chance.percent(50) { 1 + chance.below(200) } else { 0 },
        page: if chance.percent(40) { 1 + chance.below(4) } else { 0 },
        authenticated: chance.percent(10),
        ..Hit::default()
    };
    // Eight page views at most are followed at once, by their number or else by their path.
    if hit.page == 0 && !FOLLOWED.contains(&hit.path.as_str()) {
        hit.page = 1 + chance.below(4);
    }
    if chance.percent(4) {
        hit.excluded = Some(engine::hit::Exclusion::Robot);
    }
    match chance.below(20) {
        0..10 => {}
        10..13 => {
            hit.kind = HitKind::Engagement;
            hit.path = "/pricing".into();
            hit.page = 1 + chance.below(2);
            hit.engaged_ms = (chance.below(5) * 20_000) as u32;
        }
        13..16 => {
            hit.kind = HitKind::Event;
            hit.event = (*chance.pick(&EVENTS)).to_owned();
        }
        16..19 => random_claim(chance, &mut hit, selling),
        _ => hit.kind = HitKind::Reset,
    }
    hit
}

fn random_claim(chance: &mut Chance, hit: &mut Hit, selling: bool) {
    let assurance = if chance.percent(30) { Assurance::Verified } else { Assurance::Claimed };
    let mut said = claim(MAILS[chance.below(4) as usize], assurance);
    said.attributes.insert("title".into(), (*chance.pick(&TITLES)).to_owned());
    if selling && chance.percent(10) {
        let (name, value) =
            *chance.pick(&[("customer", "yes"), ("customer", "no"), ("open_deal", "d1")]);
        said.attributes.insert(name.into(), value.into());
    }
    said.sealed = seal(&said.attributes);
    said.consent = (chance.percent(20)).then(|| chance.percent(60));
    if chance.percent(15) {
        said.names[0].kind = IdentityKind::UserId;
    }
    hit.kind = if chance.percent(70) { HitKind::Identify } else { HitKind::Event };
    if hit.kind == HitKind::Event {
        hit.event = "mail_click".into();
    }
    hit.by_server = assurance == Assurance::Verified;
    hit.claim = Some(said);
    if hit.by_server && chance.percent(40) {
        hit.visitor = None;
    }
}

/// A moment after this one: mostly soon, sometimes after weeks.
fn later(chance: &mut Chance, now: Timestamp) -> Timestamp {
    let most = match chance.below(10) {
        0..5 => 3_600_000,
        5..9 => 2 * 86_400_000,
        _ => 12 * 86_400_000,
    };
    now.plus(Duration::from_millis(chance.below(most)))
}

/// What was offered to an engine, and what became of it.
enum Offered {
    Hit(Box<Hit>, Ingested),
    /// What sales answered, and when.
    Answer(Feedback, Timestamp, Result<Answered, StepError>),
}

/// A world that random visitors walked through, with everything offered.
struct Walk {
    world: World,
    offered: Vec<Offered>,
    end: Timestamp,
}

/// `eager`: time is acted on at every due instant; otherwise only now and then.
fn walk(parts: &Parts, seed: u64, hits: usize, eager: bool) -> Walk {
    let mut chance = Chance::new(seed);
    let mut world = World::new(parts.build(1));
    let mut offered = Vec::new();
    let mut now = START;
    for _ in 0..hits {
        now = later(&mut chance, now);
        let act = chance.percent(30);
        if eager {
            world.to(now);
        } else if act {
            let journal = &mut world.journal;
            world.engine.advance(now, &world.scoring, &mut |record| journal.push(record));
        }
        // Where sales works it answers.
        let selling = parts.sales.accept_within.is_some();
        if selling && chance.percent(20) {
            let of = lead_of(MAILS[chance.below(4) as usize]);
            let answer = random_answer(&mut chance, of, now);
            world.skip_to(now);
            let done =
                world.step(|engine, _, means| engine.answer(answer.origin, answer.clone(), means));
            offered.push(Offered::Answer(answer, now, done));
            continue;
        }
        let hit = random_hit(&mut chance, now, selling);
        let done = world.ingest(hit.clone());
        offered.push(Offered::Hit(Box::new(hit), done));
    }
    let end = now.plus(Duration::from_hours(24 * 60));
    if eager {
        world.to(end);
    } else {
        let journal = &mut world.journal;
        world.engine.advance(end, &world.scoring, &mut |record| journal.push(record));
    }
    Walk { world, offered, end }
}

fn crossings(world: &World) -> BTreeMap<LeadId, Vec<Crossing>> {
    let mut seen: BTreeMap<LeadId, Vec<Crossing>> = BTreeMap::new();
    for (lead, crossing) in world.crossings() {
        seen.entry(lead).or_default().push(crossing);
    }
    seen
}

/// The instants the engine found, by person.
fn instants(world: &World, end: Timestamp) -> BTreeMap<LeadId, Vec<u64>> {
    let mut found: BTreeMap<LeadId, Vec<u64>> = BTreeMap::new();
    for (lead, crossing) in world.crossings() {
        found.entry(lead).or_default().extend([crossing.at.0, crossing.since.0]);
    }
    for id in world.engine.lead_ids() {
        let stays = world.engine.lead(id).unwrap().stays(&world.scoring, end);
        let ends = stays.iter().flat_map(|(_, from, until)| [from.0, until.0]);
        found.entry(id).or_default().extend(ends);
    }
    found
}

#[track_caller]
fn engine_equals_oracle(parts: &Parts, seed: u64, eager: bool) -> usize {
    let walk = walk(parts, seed, 60, eager);
    let world = &walk.world;
    let found_by_engine = crossings(world);
    let mut oracle = Oracle::new(parts, instants(world, walk.end));
    let records: BTreeMap<Position, Record> = world.journal.records().collect();
    for offered in &walk.offered {
        match offered {
            Offered::Hit(hit, done) => {
                let repeat = oracle.is_repeat(hit);
                assert_eq!(repeat, matches!(done, Ingested::Duplicate(_)), "seed {seed}: {hit:?}");
                if let Ingested::Recorded(position) = done {
                    let hit = recorded(&records[position]);
                    oracle.take(&Entry::Hit { position: *position, hit });
                }
            }
            Offered::Answer(answer, now, done) => {
                answers_alike(&format!("seed {seed}"), &mut oracle, (answer, *now), done, &records);
            }
        }
    }
    oracle.pass(walk.end);
    let mut leads = world.engine.lead_ids();
    leads.sort_unstable();
    assert_eq!(leads, oracle.heads(), "seed {seed}");
    for id in leads {
        equals_oracle(&format!("seed {seed}, {id}"), world, &oracle, id, walk.end);
        let none = Vec::new();
        let found = found_by_engine.get(&id).unwrap_or(&none);
        assert_eq!(found, &oracle.people[&id].crossings, "seed {seed}, {id}");
        let told: Vec<model::told::Message> = told_of(world, id);
        for (told, expected) in told.iter().zip(&oracle.people[&id].messages) {
            // The first that differs says more than two long lists.
            assert_eq!(told, expected, "seed {seed}, {id}");
        }
        assert_eq!(told, oracle.people[&id].messages, "seed {seed}, {id}");
        score_is_exact(parts, world, &world.engine.lead(id).unwrap().content.rows, walk.end);
    }
    found_by_engine.values().map(Vec::len).sum()
}

/// An answer changes something, or nothing, as it should, and what is recorded of it is what it
/// does.
#[track_caller]
fn answers_alike(
    what: &str,
    oracle: &mut Oracle,
    (answer, now): (&Feedback, Timestamp),
    done: &Result<Answered, StepError>,
    records: &BTreeMap<Position, Record>,
) {
    let Ok(done) = done else {
        assert_eq!(oracle.head(answer.origin), None, "{what}: {done:?}");
        return;
    };
    let expected = oracle.answer(answer, done.position, now);
    assert_eq!(done.unheard, expected.as_ref().err().copied(), "{what}: {answer:?}");
    let Ok(expected) = expected else {
        return;
    };
    let engine::record::Body::Step(step) = &records[&done.position].body else {
        panic!("{what}: {:?}", records[&done.position]);
    };
    let Step::Feedback(recorded) = &step.step else {
        panic!("{what}: {step:?}");
    };
    let facts = Answer { vouches: Vec::new(), ..expected };
    assert_eq!(Answer::of(recorded, now, done.position), facts, "{what}");
}

/// What was told of somebody, as the model says it.
fn told_of(world: &World, id: LeadId) -> Vec<model::told::Message> {
    let own = world.messages().into_iter().filter(|told| told.lead == id);
    own.map(|told| model::told::Message::of(&told.message)).collect()
}

fn recorded(record: &Record) -> Hit {
    match &record.body {
        engine::record::Body::Hit(record) => record.hit.clone(),
        other => panic!("{other:?}"),
    }
}

/// What is derived of a person is what the model works out from scratch.
#[track_caller]
fn equals_oracle(what: &str, world: &World, oracle: &Oracle, id: LeadId, end: Timestamp) {
    let (lead, life) = (world.engine.lead(id).unwrap(), oracle.life(id));
    let rows: Vec<_> = lead
        .content
        .rows
        .iter()
        .map(|row| ((row.when.0, row.position, row.order), row.rule, row.granted.0, row.cut))
        .collect();
    let expected: Vec<_> = life
        .ledger(end.0)
        .into_iter()
        .map(|(award, granted, cut)| {
            ((award.when, award.position, award.order), award.rule, granted, cut)
        })
        .collect();
    for (row, expected) in rows.iter().zip(&expected) {
        assert_eq!(row, expected, "{what}");
    }
    assert_eq!(rows.len(), expected.len(), "{what}");
    let (profile, known) = (lead.profile(), life.knowledge(end.0));
    assert_eq!(profile.attributes, known.attributes, "{what}");
    let facts = (profile.consent, profile.assurance, lead.standing(&world.scoring, end).grade);
    assert_eq!(facts, (known.consent, known.assurance, life.grade(end.0)), "{what}");
    let stays = lead.stays(&world.scoring, end);
    let hints: Vec<u64> = stays.iter().flat_map(|(_, from, until)| [from.0, until.0]).collect();
    let sides = life.sides(end.0, &hints);
    for line in &world.scoring.terms().thresholds {
        let (side, place) = (lead.band(line).side, sides.get(&line.id).copied());
        let place = place.unwrap_or_default();
        assert_eq!((side.inside, side.since.0), (place.inside, place.since), "{what}");
    }
}

/// The score by the definition written a second time, and about the one of floating point.
#[track_caller]
fn score_is_exact(parts: &Parts, world: &World, rows: &[Row], end: Timestamp) {
    for hours in [0, 1, 100, 1_000, 20_000] {
        let at = end.plus(Duration::from_hours(hours));
        let (mut score, mut float) = (0, 0.0);
        for category in parts.categories.iter().filter(|category| category.in_total) {
            let own = rows.iter().filter(|row| row.category == category.id);
            let own: Vec<_> = own.map(|row| (row.when.0, row.granted.0)).collect();
            score += exact::value(category.half_life.millis(), &own, at.0);
            float += exact::value_f64(category.half_life.millis(), &own, at.0);
        }
        assert_eq!(explain(rows, world.scoring.terms(), at).score, Points(score));
        assert!((score as f64 - float).abs() < 10.0, "{score} {float}");
    }
}

#[test]
fn the_engine_equals_the_oracle_on_random_histories() {
    let found: usize = seeds(40).map(|seed| engine_equals_oracle(&example(), seed, true)).sum();
    assert!(found > 60, "too little happens: {found}");
}

#[test]
fn time_crossings_are_exact_with_mixed_half_lives_and_signs() {
    let found: usize = seeds(40).map(|seed| engine_equals_oracle(&mixed(), seed, true)).sum();
    assert!(found > 250, "too little happens: {found}");
}

#[test]
fn the_engine_equals_the_oracle_when_sales_answers() {
    for eager in [true, false] {
        for parts in [example().with_sales(), mixed().with_sales()] {
            let found: usize =
                seeds(20).map(|seed| engine_equals_oracle(&parts, seed, eager)).sum();
            assert!(found > 40, "too little happens: {found}");
        }
    }
}

#[test]
fn acting_on_time_now_and_then_finds_the_same_crossings_at_the_same_instants() {
    for seed in seeds(40) {
        for parts in [example(), mixed()] {
            engine_equals_oracle(&parts, seed, false);
            let (eager, lazy) = (walk(&parts, seed, 60, true), walk(&parts, seed, 60, false));
            let (eager, lazy) = (crossings(&eager.world), crossings(&lazy.world));
            assert_eq!(eager, lazy, "seed {seed}");
        }
    }
}

#[test]
fn the_mixed_rules_let_people_rise_by_time_alone() {
    let mut risen = 0;
    for seed in seeds(40) {
        let walk = walk(&mixed(), seed, 60, true);
        for (_, record) in walk.world.journal.records() {
            if let engine::record::Body::Due(part) = record.body {
                let rise = |c: &&Crossing| c.direction == Direction::Rise;
                risen += part.crossings.iter().filter(rise).count();
            }
        }
    }
    assert!(risen > 20, "{risen}");
}

#[test]
fn no_crossing_has_two_ids_and_messages_are_numbered_without_a_gap() {
    let key = Key([9; 16]);
    for seed in seeds(40) {
        let walk = walk(&mixed(), seed, 60, seed % 2 == 0);
        let mut ids = BTreeMap::new();
        let mut last: BTreeMap<LeadId, u32> = BTreeMap::new();
        let mut once = BTreeMap::new();
        for (position, _, part) in walk.world.journal.parts() {
            for message in &part.messages {
                let (lead, place, kind) = (part.lead, message.place, message.kind);
                let audience = message.audience.as_deref().unwrap_or_default();
                let cause = Cause { incarnation: 1, position, place, kind, lead, audience };
                let id = AlertId::derive(&key, &cause);
                assert_eq!(ids.insert(id.clone(), message.told.at), None, "seed {seed}");
                // A rise is told once, at once or when the cool-down is over; a fall once.
                if let Some(crossing) = message.crossing.map(|it| part.crossings[usize::from(it)]) {
                    let what = (lead, crossing.threshold, crossing.number, kind);
                    assert_eq!(once.insert(what, id), None, "seed {seed}: told twice");
                }
                let number = last.entry(lead).or_default();
                *number += 1;
                let figures = &message.told;
                assert_eq!(figures.sequence, *number, "seed {seed}: a gap");
                let reasons: i64 = figures.reasons.iter().map(|reason| reason.points.0).sum();
                assert_eq!(reasons, figures.score.0, "seed {seed}: reasons do not add up");
            }
        }
    }
}

#[test]
fn a_hit_makes_one_message_a_lead_and_audience_but_for_lines_of_their_own() {
    let mut carried = 0;
    for seed in seeds(60) {
        let walk = walk(&example(), seed, 60, true);
        for (_, time, part) in walk.world.journal.parts() {
            let of_hit = part.messages.iter().filter(|it| it.told.at == time);
            let mut heard: Vec<_> = of_hit.clone().map(|it| it.audience.clone()).collect();
            heard.sort();
            let all = heard.len();
            heard.dedup();
            assert_eq!(heard.len(), all, "seed {seed}: {:?}", part.messages);
            carried += of_hit.map(|message| message.also.len()).sum::<usize>();
        }
    }
    assert!(carried > 5, "{carried}");
}

#[test]
fn a_fall_is_told_only_if_its_rise_was() {
    for seed in seeds(40) {
        let walk = walk(&mixed(), seed, 60, true);
        let mut told = BTreeMap::new();
        let tells = |lead, crossing: &Crossing| {
            let mut messages = walk.world.messages().into_iter();
            messages.any(|it| it.lead == lead && it.crossing == Some(*crossing))
        };
        for (lead, crossing) in walk.world.crossings() {
            assert_eq!(crossing.told, tells(lead, &crossing));
            let stay = (lead, crossing.threshold, crossing.number);
            match crossing.direction {
                Direction::Rise | Direction::Release => {
                    *told.entry(stay).or_insert(false) |= crossing.told;
                }
                Direction::Fall => assert_eq!(told.get(&stay), Some(&crossing.told), "{seed}"),
                Direction::Settle => {}
            }
        }
    }
}

#[test]
fn an_overdue_crossing_comes_first_and_at_its_own_instant() {
    let mut world = World::new(example().build(1));
    let mail = "a@x.example";
    world.at("2026-12-07 10:00").form(mail, "/thanks/contact/");
    // Nobody let time pass for half a year.
    let now = at("2027-06-01 10:00");
    let path = "/pricing".to_owned();
    let visitor = Some(browser(1));
    world.ingest(Hit { visitor, received: now, when: now, path, ..Hit::default() });
    let parts = world.journal.parts();
    let (_, time, part) = parts.last().unwrap();
    assert_eq!(*time, now);
    let fall = part.crossings[0];
    assert_eq!((fall.direction, part.crossings.len()), (Direction::Fall, 2));
    let lead = world.engine.lead(lead_of(mail)).unwrap();
    let score = |at| explain(&lead.content.rows[..1], world.scoring.terms(), at).score;
    assert!(score(fall.at) < Points::whole(40));
    assert_eq!(score(fall.at.minus(Duration::from_millis(1))), Points::whole(40));
    assert_eq!(part.messages[0].told.score, Points(39_999), "the figures are those of the instant");
}

#[test]
fn two_lines_at_the_same_height_are_both_crossed_by_time_at_the_same_instant() {
    let mut both = 0;
    for seed in seeds(40) {
        let walk = walk(&mixed(), seed, 60, true);
        for (_, time, part) in walk.world.journal.parts() {
            let rises: Vec<_> = part
                .crossings
                .iter()
                .filter(|it| it.direction == Direction::Rise && it.at == time)
                .map(|it| it.threshold.0)
                .collect();
            both += usize::from(rises.contains(&0) && rises.contains(&3));
        }
    }
    assert!(both > 20, "{both}");
}

fn expired_walk(sweep: bool) -> (u128, Vec<Vec<u8>>) {
    let mut world = World::new(example().build(1));
    world.at("2026-01-01 09:00").view("/column/a").on(2).view("/column/a");
    world.at("2026-12-01 09:00").on(2).view("/column/b");
    let life = Duration::from_hours(24 * 400);
    let gone = at("2026-01-01 09:00").plus(life);
    if sweep {
        for hours in 0..60 {
            world.engine.sweep(gone.plus(Duration::from_hours(hours)));
        }
    }
    world.to(gone.plus(Duration::from_hours(60))).on(1).view("/column/c");
    let now = world.now();
    (world.engine.state_hash(now), world.journal.0)
}

#[test]
fn sweeping_cannot_be_observed() {
    assert_eq!(expired_walk(true), expired_walk(false));
}

#[test]
fn a_hit_in_flight_during_a_sweep_still_finds_its_visitor() {
    let mut world = World::new(example().build(1));
    world.at("2026-01-01 09:00").view("/column/a");
    let gone = world.now().plus(Duration::from_hours(24 * 400));
    world.engine.sweep(gone);
    world.to(gone.minus(Duration::from_millis(5))).view("/column/b");
    let replayed = world.journal.replay(8);
    assert_eq!(world.engine.visitor(browser(1), gone).unwrap().hits, 2);
    assert_eq!(world.engine.state_hash(gone), replayed.state_hash(gone));
}

#[test]
fn a_visitor_who_was_away_too_long_is_absent_and_begins_anew() {
    let mut world = World::new(example().build(1));
    world.at("2026-01-01 09:00").view("/pricing").identify("a@x.example");
    let gone = world.now().plus(Duration::from_hours(24 * 400));
    let hash = world.engine.state_hash(gone);
    assert!(!world.engine.knows(browser(1), gone));
    world.engine.sweep(gone.plus(Duration::from_hours(25)));
    assert_eq!(world.engine.state_hash(gone), hash);
    world.to(gone).view("/pricing");
    let visitor = world.engine.visitor(browser(1), gone).unwrap();
    assert_eq!((visitor.hits, visitor.session.number, visitor.bound), (1, 1, None));
    let replayed = world.journal.replay(1_024);
    assert_eq!(world.engine.state_hash(gone), replayed.state_hash(gone));
}

#[test]
fn a_repeat_within_a_day_and_64_hits_is_not_recorded() {
    let mut world = World::new(example().build(1));
    let hit = |id, minutes: u64| {
        let now = START.plus(Duration::from_mins(minutes));
        Hit { visitor: Some(browser(1)), id, received: now, when: now, ..Hit::default() }
    };
    let first = world.ingest(hit(1, 0));
    let Ingested::Recorded(position) = first else { panic!("{first:?}") };
    assert_eq!(world.ingest(hit(1, 1)), Ingested::Duplicate(position));
    for id in 2..65 {
        assert!(matches!(world.ingest(hit(id, 2)), Ingested::Recorded(_)));
    }
    assert_eq!(world.ingest(hit(1, 1_439)), Ingested::Duplicate(position));
    assert!(matches!(world.ingest(hit(2, 1_443)), Ingested::Recorded(_)), "a day later");
    assert!(matches!(world.ingest(hit(1, 1_439)), Ingested::Recorded(_)), "64 hits later");
    assert!(matches!(world.ingest(hit(0, 3)), Ingested::Recorded(_)));
    assert!(matches!(world.ingest(hit(0, 3)), Ingested::Recorded(_)), "no id, no repeat");
    assert_eq!(world.journal.0.len(), 68);
}

/// A visitor's first hit, and the second that admits them.
fn admitted(first: Hit, second: Hit) -> World {
    let mut world = World::new(example().build(1));
    let own = |hit: Hit, minutes: u64| {
        let now = START.plus(Duration::from_mins(minutes));
        Hit { visitor: Some(browser(1)), received: now, when: now, ..hit }
    };
    let first = FirstHit { position: Position(1), hit: own(first, 0) };
    world.journal.0.push(Vec::new());
    world.arrive(Arrival { hit: own(second, 50), first: Some(first) });
    world
}

fn replayed_alike(world: &World) {
    let mut journal = world.journal.clone();
    journal.0.remove(0);
    let replayed = Engine::new(8);
    for (position, record) in journal.records() {
        replayed.evolve(&record, position.next());
    }
    assert_eq!(world.engine.state_hash(START), replayed.state_hash(START));
}

#[test]
fn the_claim_of_a_first_hit_counts_with_the_second() {
    let first = Hit {
        kind: HitKind::Identify,
        claim: Some(claim("a@x.example", Assurance::Verified)),
        ..Hit::default()
    };
    let world = admitted(first, Hit { path: "/pricing".into(), ..Hit::default() });
    let lead = world.engine.lead(lead_of("a@x.example")).unwrap();
    let profile = lead.profile();
    assert_eq!((profile.assurance, profile.attributes.len()), (Assurance::Verified, 1));
    let counts = lead.counts();
    assert_eq!((counts.hits, counts.visits, lead.content.rows.len()), (2, 2, 1));
    assert_eq!(world.engine.visitor(browser(1), START).unwrap().hits, 2);
    replayed_alike(&world);
}

#[test]
fn a_first_hit_brings_its_points_at_its_own_time() {
    let second = Hit {
        kind: HitKind::Identify,
        claim: Some(claim("a@x.example", Assurance::Claimed)),
        ..Hit::default()
    };
    let world = admitted(Hit { path: "/pricing".into(), ..Hit::default() }, second);
    let lead = world.engine.lead(lead_of("a@x.example")).unwrap();
    let row = lead.content.rows[0];
    assert_eq!((row.when, row.position), (START, Position(2)));
    let tie = lead.content.ties[0];
    assert_eq!((tie.attached, tie.first_position), (1, Position(1)));
    replayed_alike(&world);
}

#[test]
fn what_the_first_persons_first_hit_did_is_not_the_second_persons() {
    let by = |mail: &str, path: &str| Hit {
        claim: Some(claim(mail, Assurance::Claimed)),
        path: path.into(),
        ..Hit::default()
    };
    let world = admitted(by("a@x.example", "/pricing"), by("b@x.example", "/case/line"));
    let lead = world.engine.lead(lead_of("b@x.example")).unwrap();
    let rows = &lead.content.rows;
    assert_eq!((rows.len(), rows[0].base, lead.counts().attached), (1, Points::whole(4), 0));
    replayed_alike(&world);
}

#[test]
fn a_stay_told_by_the_first_hit_does_not_count_again_with_the_second() {
    let stay = |engaged_ms| Hit {
        kind: HitKind::Engagement,
        path: "/case/line".into(),
        engaged_ms,
        ..Hit::default()
    };
    let world = admitted(stay(70_000), stay(90_000));
    assert_eq!(world.engine.visitor(browser(1), START).unwrap().rows.len(), 1);
}

#[test]
fn an_embedded_first_hit_is_ignored_when_the_visitor_is_here_already() {
    let mut world = admitted(Hit::default(), Hit::default());
    let now = START.plus(Duration::from_hours(1));
    let hit = Hit { visitor: Some(browser(1)), received: now, when: now, ..Hit::default() };
    let said = |assurance| Some(claim("a@x.example", assurance));
    world.ingest(Hit { claim: said(Assurance::Claimed), ..hit.clone() });
    let proof = Hit { claim: said(Assurance::Verified), ..hit.clone() };
    let first = FirstHit { position: Position(1), hit: proof };
    world.arrive(Arrival { hit, first: Some(first) });
    assert_eq!(world.engine.visitor(browser(1), now).unwrap().hits, 4);
    let lead = world.engine.lead(lead_of("a@x.example")).unwrap();
    assert_eq!((lead.profile().assurance, lead.counts().hits), (Assurance::Claimed, 4));
    replayed_alike(&world);
}

/// Rows of random rules at random times, of a server or two browsers.
fn random_rows(chance: &mut Chance, parts: &Parts, count: usize, days: u64) -> Vec<Row> {
    let row = |index| {
        let rule = chance.pick(&parts.rules);
        let who = chance.below(3);
        Row {
            when: START.plus(Duration::from_millis(chance.below(days * 86_400_000))),
            position: Position(index as u64 + 1),
            rule: rule.id,
            category: rule.category,
            base: rule.points,
            version: 1,
            source: if who == 0 { Source::Server } else { Source::Visitor(browser(who)) },
            ..Row::default()
        }
    };
    (0..count).map(row).collect()
}

fn of_browser_one(source: Source, _: LeadId) -> bool {
    source == Source::Visitor(browser(1))
}

fn nobodys(_: Source, _: LeadId) -> bool {
    false
}

/// Rows alone: nothing was said, nobody was seen.
fn basis<'a>(scoring: &'a Scoring, claimed: &'a dyn Fn(Source, LeadId) -> bool) -> Basis<'a> {
    Basis { claimed, ..Basis::nobody(&scoring.versions) }
}

/// Failures print their seed; nothing is written beside the tests.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(32))]

    #[test]
    fn settling_row_by_row_in_any_order_equals_settling_from_the_beginning(seed in any::<u64>()) {
        let mut chance = Chance::new(seed);
        let scoring = example().build(1);
        let rows = random_rows(&mut chance, &example(), 60, 20);
        let mut whole = rows.clone();
        whole.sort_by_key(|row| (row.when, row.position, row.order));
        settle(&mut whole, 0, &basis(&scoring, &of_browser_one));
        let mut left = rows;
        let mut ledger: Vec<Row> = Vec::new();
        while !left.is_empty() {
            let row = left.swap_remove(chance.below(left.len() as u64) as usize);
            let basis = basis(&scoring, &of_browser_one);
            let settled = settle_with(ledger.clone(), &[row], None, &basis);
            if ledger.last().is_none_or(|last| last.key() < row.key()) {
                prop_assert_eq!(&settle_next(&ledger[..], &[row], &basis).new, &settled.new);
            }
            let mut applied = ledger.clone();
            engine::ledger::apply_rows(
                &mut applied, &settled.new, &settled.regrants, None, Position::NONE,
            );
            prop_assert_eq!(&applied, &settled.rows, "what is recorded is what was decided");
            ledger = applied;
        }
        prop_assert_eq!(ledger, whole);
    }

    #[test]
    fn the_rows_shown_add_up_to_the_score_at_any_moment(
        seed in any::<u64>(),
        hours in 0_u64..20_000,
    ) {
        let mut chance = Chance::new(seed);
        let scoring = example().build(1);
        let mut rows = random_rows(&mut chance, &example(), 80, 40);
        rows.sort_by_key(|row| (row.when, row.position, row.order));
        settle(&mut rows, 0, &basis(&scoring, &of_browser_one));
        let at = START.plus(Duration::from_hours(hours));
        let explained = explain(&rows, scoring.terms(), at);
        for (id, value) in &explained.categories {
            let own = explained.shares.iter().filter(|(row, _)| row.category == *id);
            prop_assert_eq!(own.map(|(_, share)| share.0).sum::<i64>(), value.0);
        }
        let in_total = |row: &Row| scoring.terms().is_in_total(row.category);
        let counted = explained.shares.iter().filter(|(row, _)| in_total(row));
        let reasons = engine::lead::reasons(counted.clone());
        let of_rows: i64 = counted.map(|(_, share)| share.0).sum();
        let of_reasons: i64 = reasons.iter().map(|reason| reason.points.0).sum();
        prop_assert_eq!((of_rows, of_reasons), (explained.score.0, explained.score.0));
    }

    #[test]
    fn rows_earned_by_a_claim_never_pass_its_limit_until_it_is_confirmed(seed in any::<u64>()) {
        let mut chance = Chance::new(seed);
        let mut parts = example();
        parts.claims_max = Some(Points::whole(30));
        let scoring = parts.build(1);
        let rows = random_rows(&mut chance, &parts, 60, 10);
        let mut ledger: Vec<Row> = Vec::new();
        for row in rows {
            let basis = basis(&scoring, &of_browser_one);
            ledger = settle_with(ledger, &[row], None, &basis).rows;
        }
        let worth = |rows: &[Row], at| -> i64 {
            let counted = scoring.terms().categories.iter().filter(|category| category.in_total);
            let theirs = |row: &Row| of_browser_one(row.source, row.origin);
            let of = |id| move |row: &Row| row.category == id && theirs(row);
            counted.map(|c| sum(rows, c.half_life, of(c.id)).value(at).0).sum()
        };
        for end in 1..=ledger.len() {
            let last = &ledger[end - 1];
            let counted = scoring.terms().is_in_total(last.category);
            if of_browser_one(last.source, last.origin) && last.granted.0 > 0 && counted {
                prop_assert!(worth(&ledger[..end], last.when) <= 30_000);
            }
        }
        let basis = basis(&scoring, &nobodys);
        let confirmed = settle_with(ledger.clone(), &[], Some(Timestamp(0)), &basis).rows;
        prop_assert!(confirmed.iter().all(|row| row.cut != Cut::ClaimsMax));
    }

    #[test]
    fn folding_keeps_the_score_and_makes_room(seed in any::<u64>()) {
        let mut chance = Chance::new(seed);
        let scoring = example().build(1);
        let mut rows = random_rows(&mut chance, &example(), LEDGER_ROWS_MAX, 3_000);
        rows.sort_by_key(|row| (row.when, row.position, row.order));
        settle(&mut rows, 0, &basis(&scoring, &of_browser_one));
        let now = START.plus(Duration::from_hours(24 * 3_001));
        let pricing = Row { rule: RuleId(8), category: INTENT, ..Row::default() };
        let new = Row { when: now, base: Points::whole(12), version: 1, ..pricing };
        let settled = settle_with(rows.clone(), &[new], None, &basis(&scoring, &of_browser_one));
        let fold = settled.fold.clone().unwrap();
        prop_assert!(fold.rows >= 1_024 && fold.into.len() < 200);
        prop_assert!(settled.rows.len() < LEDGER_ROWS_MAX);
        let before = explain(&rows, scoring.terms(), now).score.0 + settled.new[0].granted.0;
        let after = explain(&settled.rows, scoring.terms(), now).score.0;
        prop_assert!((before - after).abs() <= 10, "{} {}", before, after);
        // Folded rows keep what they have, also when all is settled from the beginning or a
        // row arrives in their midst.
        let late = Row { when: START, position: Position(9_000), ..new };
        let basis = basis(&scoring, &nobodys);
        let again = settle_with(settled.rows.clone(), &[late], Some(Timestamp(0)), &basis);
        for row in &fold.into {
            let place = |row: &Row| (row.when, row.position, row.order);
            let kept = again.rows.iter().find(|other| place(other) == place(row));
            prop_assert_eq!(kept.map(|kept| kept.granted), Some(row.granted));
        }
    }
}

#[test]
fn a_rule_that_counts_once_ever_is_not_forgotten_by_folding() {
    let parts = example();
    let scoring = parts.build(1);
    let rule = parts.rule("applicant");
    let once = Row {
        when: START,
        position: Position(1),
        rule: rule.id,
        category: rule.category,
        base: rule.points,
        version: 1,
        ..Row::default()
    };
    let mut rows = vec![once];
    for index in 1..LEDGER_ROWS_MAX as u64 {
        let when = START.plus(Duration::from_mins(index));
        rows.push(Row { when, position: Position(index + 1), rule: RuleId(0), ..once });
    }
    settle(&mut rows, 0, &basis(&scoring, &nobodys));
    assert!(fold_for(&rows, 0, scoring.terms()).is_none());
    let now = START.plus(Duration::from_hours(24 * 900));
    let again = Row { when: now, position: Position::NONE, ..once };
    let settled = settle_with(rows.clone(), &[again], None, &basis(&scoring, &nobodys));
    assert!(settled.fold.is_some());
    assert_eq!(settled.new[0].cut, Cut::Counted);
}

fn encoded(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    bytes
}

#[test]
fn every_record_of_a_random_walk_reads_back_as_it_was_written() {
    for seed in seeds(30) {
        for bytes in &walk(&mixed(), seed, 60, true).world.journal.0 {
            let record = Record::decode(bytes).unwrap();
            assert_eq!(&encoded(&record), bytes, "seed {seed}");
        }
    }
}

#[test]
fn damaged_bytes_are_refused_or_read_but_never_panic() {
    let mut chance = Chance::new(5);
    let (mut refused, mut cut_short, mut pieces) = (0, 0, 0);
    for seed in seeds(15) {
        for bytes in &walk(&mixed(), seed, 60, true).world.journal.0 {
            for _ in 0..8 {
                let mut damaged = bytes.clone();
                for _ in 0..=chance.below(3) {
                    let place = chance.below(damaged.len() as u64) as usize;
                    damaged[place] = chance.next() as u8;
                }
                refused += usize::from(Record::decode(&damaged).is_err());
            }
            for length in 0..bytes.len() {
                // What ends between two sections is a record with fewer of them; the journal's
                // checksum knows better. What ends inside one is refused.
                let short = Record::decode(&bytes[..length]);
                let whole = short.is_ok_and(|record| encoded(&record) == bytes[..length]);
                cut_short += usize::from(!whole);
                pieces += usize::from(whole);
            }
        }
    }
    assert!(refused > 1_000, "{refused}");
    assert!(pieces * 50 < cut_short, "{pieces} of {cut_short}");
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Record::decode(&bytes);
    }

    #[test]
    fn any_bytes_after_a_plausible_head_decode_or_are_refused(
        kind in 1_u8..=6, tag in 1_u8..=13, mut bytes in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let mut record = vec![kind, 0, 0, tag, bytes.len() as u8];
        record.append(&mut bytes);
        let _ = Record::decode(&record);
    }
}

/// A hit whose texts are put together from few pieces, so that some tell others.
fn telling_hit(chance: &mut Chance) -> Hit {
    const URLS: [&str; 9] = [
        "",
        "https://",
        "https://www.site.example",
        "https://www.site.example/",
        "https://www.site.example/a/bé",
        "https://www.site.example/a/bè?c=/d",
        "http://www.site.example/a",
        "//a//b",
        "a/b",
    ];
    const PATHS: [&str; 7] = ["", "/", "/a", "/a/b", "/a/bé", "/b", "a/b"];
    const NETWORKS: [&str; 6] =
        ["", "192.0.2.0/24", "198.51.100.0/24", "2001:db8:1::/48", "::/48", "203.0.113.7/32"];
    const AGENTS: [&str; 4] = ["", "chrome windows", "safari", "curl"];
    Hit {
        visitor: chance.percent(80).then(|| browser(chance.below(2))),
        path: (*chance.pick(&PATHS)).to_owned(),
        url: (*chance.pick(&URLS)).to_owned(),
        network: (*chance.pick(&NETWORKS)).to_owned(),
        agent: (*chance.pick(&AGENTS)).to_owned(),
        title: (*chance.pick(&AGENTS)).to_owned(),
        referrer: (*chance.pick(&URLS)).to_owned(),
        ..Hit::default()
    }
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn what_other_texts_tell_is_read_back_as_it_was(seed in any::<u64>()) {
        let chance = &mut Chance::new(seed);
        let hit = telling_hit(chance);
        let first = FirstHit { position: Position(1), hit: telling_hit(chance) };
        let first = chance.percent(70).then_some(first);
        let body = Body::Hit(Box::new(HitRecord { hit, first, ..HitRecord::default() }));
        let record = Record { time: Timestamp(300), version: 1, body };
        let bytes = encoded(&record);
        prop_assert_eq!(Record::decode(&bytes), Ok(record));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << chance.below(8);
            let _ = Record::decode(&damaged);
            let _ = Record::decode(&bytes[..at]);
        }
    }
}

#[test]
fn kinds_and_sections_of_a_newer_version_are_refused_by_name() {
    assert_eq!(Record::decode(&[9, 0, 0]), Err(WireError::UnknownKind(9)));
    assert_eq!(Record::decode(&[0, 0, 0]), Err(WireError::UnknownKind(0)));
    assert_eq!(Record::decode(&[4, 0, 0, 99, 0]), Err(WireError::UnknownSection(99)));
    let mut world = World::new(example().build(1));
    world.at("2026-12-01 09:00").view("/pricing");
    let mut bytes = world.journal.0[0].clone();
    bytes.extend_from_slice(&[77, 1, 0]);
    assert_eq!(Record::decode(&bytes), Err(WireError::UnknownSection(77)));
    assert_eq!(Record::decode(&[]), Err(WireError::Short));
    assert_eq!(Record::decode(&[1, 0, 0]), Err(WireError::Missing("hit")));
}

#[test]
fn the_ends_of_time_and_number_panic_nobody() {
    for (received, when) in [(u64::MAX, u64::MAX), (u64::MAX, 0), (0, 0), (1, u64::MAX)] {
        let mut world = World::new(mixed().build(1));
        for path in PATHS {
            let (received, when) = (Timestamp(received), Timestamp(when));
            let said = Some(claim("a@x.example", Assurance::Claimed));
            let visitor = Some(browser(1));
            let hit =
                Hit { visitor, received, when, path: path.into(), claim: said, ..Hit::default() };
            world.ingest(Hit { id: u64::MAX, page: u64::MAX, engaged_ms: u32::MAX, ..hit.clone() });
            world.ingest(Hit { kind: HitKind::Engagement, engaged_ms: u32::MAX, ..hit });
        }
        let journal = &mut world.journal;
        for now in [0, 1, u64::MAX] {
            let now = Timestamp(now);
            world.engine.advance(now, &world.scoring, &mut |record| journal.push(record));
        }
        let replayed = world.journal.replay(2);
        let now = Timestamp(received);
        assert_eq!(world.engine.state_hash(now), replayed.state_hash(now));
    }
}

#[test]
fn limits_at_the_ends_of_number_panic_nobody() {
    let mut parts = example();
    parts.total_max = Some(Points(i64::MAX));
    parts.claims_max = Some(Points(i64::MAX));
    parts.thresholds[1].rise = Points(i64::MAX);
    parts.thresholds[1].fall = Points(i64::MIN);
    let mut world = World::new(parts.build(1));
    world.at("2026-12-01 09:00").identify("a@x.example").view("/thanks/careers/guide");
    world.view("/pricing");
    assert_eq!(world.score("a@x.example"), Points::whole(12 - 60));
    world.at("2027-12-01 09:00");
    let mut rule = parts.rules[0].clone();
    rule.points = Points(i64::MIN);
    assert!(RuleSet::new(vec![rule]).is_err());
}

#[test]
fn a_due_moment_that_moves_leaves_no_growing_heap_behind() {
    let mut world = World::new(mixed().build(1));
    world.at("2026-12-01 09:00").identify("a@x.example");
    let mut most = 0;
    for day in 0..200 {
        let now = at("2026-12-01 10:00").plus(24 * Duration::from_hours(day));
        world.to(now).view("/case/line").view("/careers").view("/thanks/event/dx");
        most = most.max(world.engine.timers());
    }
    assert!((1..=8).contains(&most), "{most} moments of one lead");
    world.at("2028-12-01 09:00");
    assert_eq!(world.engine.timers(), 0, "nothing is left that could come");
}
