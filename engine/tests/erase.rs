//! Who is erased is nobody: nothing of them is left but that somebody was erased and how many
//! messages there were, nothing brings it back, and who comes again begins anew.
#![allow(clippy::unwrap_used)]

mod model;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use engine::alert::AlertKind;
use engine::engine::{Arrival, Ingested, StepError};
use engine::hit::{Exclusion, Hit, HitKind};
use engine::id::{LeadId, Position, VisitorId};
use engine::identity::Assurance;
use engine::lead::Lead;
use engine::points::Points;
use engine::record::{Body, FirstHit, Step, Withdrawn};
use engine::stage::{FeedbackKind, Stage};
use engine::time::Timestamp;

use model::chance::{Chance, seeds};
use model::claims::random_hit;
use model::rules::{example, example_scoring};
use model::sales::random_answer;
use model::story::story_one;
use model::undo::BROWSERS;
use model::world::{World, browser, claim, claim_with, lead_of, withdraw};

const TANAKA: &str = "tanaka@sample-seiki.example";
const OFFICE: &str = "office@sample-seiki.example";
const SUZUKI: &str = "suzuki@other.example";

fn erase(world: &mut World, mail: &str) -> engine::engine::Erased {
    let lead = lead_of(mail);
    world.step(|engine, why, means| engine.erase(lead, why, means)).unwrap()
}

/// Tanaka on two browsers and by a second address, hot and answered; Suzuki on a third.
fn before() -> World {
    let mut world = story_one(World::new(example_scoring()));
    world.at("2026-12-07 11:00").on(2).view("/case/line").click_mail(OFFICE);
    world.at("2026-12-07 12:00").on(3).view("/pricing").form(SUZUKI, "/thanks/document/guide");
    let (one, other) = (lead_of(TANAKA), lead_of(OFFICE));
    world.step(|engine, why, means| engine.merge(one, other, why, means)).unwrap();
    world.answer(TANAKA, FeedbackKind::Accepted);
    world.at("2026-12-08 09:00");
    world
}

#[test]
fn of_who_is_erased_nothing_is_left_but_that_and_how_many_messages_there_were() {
    let mut world = before();
    let told = world.lead(TANAKA).sequence;
    assert!(told > 1 && world.lead(TANAKA).content.rows.len() > 3, "there is something to lose");
    let suzuki = world.lead(SUZUKI);
    let done = erase(&mut world, OFFICE);
    assert_eq!(done.names.len(), 2, "every name of theirs");
    let mut browsers = [browser(1), browser(2)];
    browsers.sort_unstable();
    assert_eq!(done.browsers, browsers);
    for mail in [TANAKA, OFFICE] {
        assert_eq!(world.engine.lead(lead_of(mail)), None, "{mail} is nobody");
        assert!(!world.engine.has_lead(lead_of(mail)));
        let entry = world.engine.entry(lead_of(mail)).unwrap();
        assert!(entry.is_blank() && entry.content.is_empty());
        assert_eq!((entry.bands, entry.sent, entry.asked), (vec![], vec![], None));
        assert_eq!((entry.stub, entry.steps.len()), (None, 0));
    }
    let message = world.messages().pop().unwrap();
    assert_eq!((message.lead, message.message.kind), (done.lead, AlertKind::Erased));
    let figures = message.message.told;
    assert_eq!((figures.sequence, figures.score), (told + 1, Points(0)));
    assert_eq!((figures.stage, figures.previous_stage), (Stage::Anonymous, Stage::Anonymous));
    assert_eq!((figures.before_24h, figures.reasons.len()), (Points(0), 0));
    assert!(figures.categories.iter().all(|(_, points)| *points == Points(0)));
    for number in [1, 2] {
        let visitor = world.engine.visitor(browser(number), world.now()).unwrap();
        assert_eq!((visitor.bound, visitor.hits, visitor.rows.len()), (None, 0, 0));
        assert!(visitor.named_ones().is_empty(), "it names nobody");
    }
    assert_eq!(world.lead(SUZUKI), suzuki, "others are as they were");
    let again = world.step(|engine, why, means| engine.erase(lead_of(TANAKA), why, means));
    assert_eq!(again, Err(StepError::Erased), "it says so the second time");
    let nobody = world.step(|engine, why, means| engine.erase(lead_of("x@y.example"), why, means));
    assert_eq!(nobody, Err(StepError::NoLead));
}

#[test]
fn who_comes_again_begins_anew_and_the_messages_are_counted_on() {
    let mut world = before();
    let told = world.lead(TANAKA).sequence;
    erase(&mut world, TANAKA);
    world.at("2026-12-09 09:00").on(1).view("/pricing").identify(TANAKA);
    let mut fresh = World::new(example_scoring());
    fresh.at("2026-12-09 09:00").on(1).view("/pricing").identify(TANAKA);
    let (again, new) = (world.lead(TANAKA), fresh.lead(TANAKA));
    assert_eq!(ledger(&again), ledger(&new));
    assert_eq!(world.score(TANAKA), fresh.score(TANAKA));
    assert_eq!(again.attributes(), new.attributes());
    assert_eq!(again.counts(), new.counts());
    assert_eq!(world.engine.lead(lead_of(OFFICE)), None, "the other name is nobody's");
    world.on(5).identify(OFFICE);
    let (one, other) = (lead_of(TANAKA), lead_of(OFFICE));
    world.step(|engine, why, means| engine.merge(one, other, why, means)).unwrap();
    let message = world.messages().pop().unwrap();
    assert_eq!(message.message.told.sequence, told + 2, "the erasure told one");
}

#[test]
fn what_was_sent_before_an_erasure_and_comes_later_is_worth_nothing_and_about_nobody() {
    let mut world = before();
    erase(&mut world, TANAKA);
    let at = world.now();
    world.to(at.plus(Duration::from_mins(5)));
    let late = |kind, claim| Hit {
        visitor: Some(browser(1)),
        received: at.plus(Duration::from_mins(5)),
        when: at,
        path: "/pricing".into(),
        kind,
        claim,
        ..Hit::default()
    };
    world.ingest(late(HitKind::PageView, None));
    world.ingest(late(HitKind::Identify, Some(claim(TANAKA, Assurance::Claimed))));
    let card = claim_with(TANAKA, Assurance::Verified, &[("title", "部長")]);
    world.ingest(Hit { visitor: None, by_server: true, ..late(HitKind::Identify, Some(card)) });
    assert_eq!(world.engine.lead(lead_of(TANAKA)), None);
    for (_, record) in world.hits().into_iter().rev().take(3) {
        assert_eq!(record.hit.excluded, Some(Exclusion::Erased));
        assert_eq!(record.hit.claim, None, "it is not even written down");
    }
    let first = FirstHit { position: Position(1), hit: late(HitKind::PageView, None) };
    let hit = Hit { when: world.now(), ..late(HitKind::PageView, None) };
    world.arrive(Arrival { hit, first: Some(first) });
    let visitor = world.engine.visitor(browser(1), world.now()).unwrap();
    assert_eq!(visitor.hits, 3, "a first hit from before does not come back");
}

#[test]
fn no_step_from_before_an_erasure_can_be_undone_into_anything_of_theirs() {
    let mut world = before();
    let stretches = lead_of(TANAKA);
    world.on(4).view("/pricing").view("/thanks/contact");
    let link = |engine: &engine::engine::Engine,
                why: &engine::engine::Authority,
                means: &mut engine::engine::Means<'_, '_>| {
        engine.link(browser(4), stretches, Assurance::Verified, why, means)
    };
    world.step(link).unwrap();
    let steps = world.steps();
    let lost = forgotten(&world, &[lead_of(TANAKA)]);
    erase(&mut world, TANAKA);
    world.at("2026-12-09 09:00").on(1).view("/pricing").identify(TANAKA);
    for (position, step) in &steps {
        let undone = world.step(|engine, why, means| engine.undo((step, *position), why, means));
        assert_eq!(undone, Err(StepError::NotUndoable), "{:?}", step.step);
    }
    assert_eq!(back(&world, &lost), BTreeSet::new());
}

#[test]
fn a_stop_at_any_record_of_an_erasure_leaves_what_the_next_start_finishes() {
    let mut world = before();
    let records = world.journal.0.len();
    erase(&mut world, TANAKA);
    let whole = world.journal.0.len();
    assert!(whole - records >= 4, "the lead, the other name, two browsers");
    for kept in records + 1..=whole {
        let mut cut = World::new(example_scoring());
        cut.journal.0 = world.journal.0[..kept].to_vec();
        cut.engine = cut.journal.replay(2);
        cut.skip_to(world.now());
        cut.step(|engine, _, means| engine.resume(means));
        for mail in [TANAKA, OFFICE] {
            assert!(cut.engine.entry(lead_of(mail)).unwrap().is_blank(), "{kept}: {mail}");
        }
        for number in [1, 2] {
            let visitor = cut.engine.visitor(browser(number), world.now()).unwrap();
            assert!(visitor.named_ones().is_empty(), "{kept}: browser {number}");
        }
    }
}

#[test]
fn a_browser_of_an_erased_person_forgets_them_before_its_next_hit() {
    let mut world = before();
    let records = world.journal.0.len();
    erase(&mut world, TANAKA);
    // The stop came before the browsers were reached, and nobody has gone on yet.
    let mut cut = World::new(example_scoring());
    cut.journal.0 = world.journal.0[..records + 2].to_vec();
    cut.engine = cut.journal.replay(2);
    cut.skip_to(world.now().plus(Duration::from_secs(1)));
    cut.on(1).view("/pricing");
    assert_eq!(cut.engine.lead(lead_of(TANAKA)), None);
    assert_eq!(cut.engine.visitor(browser(1), cut.now()).unwrap().bound, None);
}

/// Random histories: whoever is erased in the middle, whatever is done then.
#[test]
fn whatever_happens_nothing_of_an_erased_person_comes_back_and_all_replays_alike() {
    let mut lost = 0;
    for seed in seeds(150) {
        match history(seed) {
            Ok(rows) => lost += rows,
            Err(wrong) => panic!("seed {seed}: {wrong}"),
        }
    }
    assert!(lost > 1_000 || seeds(150).end < 150, "too little is lost: {lost} rows");
}

fn history(seed: u64) -> Result<usize, String> {
    let mut chance = Chance::new(seed);
    let mut world = World::new(example().with_sales().build(1));
    let mut lost = BTreeSet::new();
    let mut erasures = 0;
    world.at("2026-12-01 09:00");
    for turn in 0..160 {
        let now = world.now().plus(Duration::from_millis(1 + chance.below(7_200_000)));
        world.to(now);
        let erases = turn > 40 && chance.percent(4);
        if erases && let Some(lead) = any_lead(&mut chance, &world) {
            erase_checked(&mut world, lead, &mut lost)?;
            erasures += 1;
        } else {
            act(&mut chance, &mut world);
        }
        if erasures > 0 {
            let came = back(&world, &lost);
            if !came.is_empty() {
                return Err(format!("after turn {turn} these rows are back: {came:?}"));
            }
        }
    }
    for shards in [2, 8] {
        let replayed = world.journal.replay(shards);
        if replayed.state_hash(world.now()) != world.engine.state_hash(world.now()) {
            return Err(format!("the replay with {shards} shards differs"));
        }
    }
    Ok(lost.len())
}

fn erase_checked(
    world: &mut World,
    lead: LeadId,
    lost: &mut BTreeSet<(Position, u16)>,
) -> Result<(), String> {
    let others: BTreeMap<LeadId, Lead> = world
        .engine
        .lead_ids()
        .into_iter()
        .filter(|id| *id != lead)
        .map(|id| (id, world.engine.lead(id).unwrap()))
        .collect();
    lost.extend(forgotten(world, &[lead]));
    let done = world.step(|engine, why, means| engine.erase(lead, why, means));
    let done = done.map_err(|error| error.to_string())?;
    for name in &done.names {
        if world.engine.entry(*name).is_some_and(|entry| !entry.is_blank()) {
            return Err(format!("{name} is somebody still"));
        }
    }
    for number in 0..BROWSERS {
        let Some(visitor) = world.engine.visitor(browser(number), world.now()) else {
            continue;
        };
        if let Some(name) = visitor.named_ones().iter().find(|it| done.names.contains(it)) {
            return Err(format!("browser {number} still names {name}"));
        }
        if !visitor.trail.astray().is_empty() {
            return Err(format!("browser {number} is astray"));
        }
    }
    for (id, lead) in others {
        if world.engine.lead(id) != Some(lead) {
            return Err(format!("{id} changed though another was erased"));
        }
    }
    Ok(())
}

/// One random thing that happens.
fn act(chance: &mut Chance, world: &mut World) {
    let steps = world.steps();
    match chance.below(24) {
        0 => {
            let pair = (any_lead(chance, world), any_lead(chance, world));
            if let (Some(one), Some(other)) = pair {
                let _ = world.step(|engine, why, means| engine.merge(one, other, why, means));
            }
        }
        1 => {
            let names = steps.iter().filter_map(|(_, step)| match &step.step {
                Step::MergeAway(_) => step.lead.as_ref().map(|part| part.lead),
                _ => None,
            });
            let names: Vec<LeadId> = names.collect();
            if !names.is_empty() {
                let name = *chance.pick(&names);
                let _ = world.step(|engine, why, means| engine.unmerge(name, why, means));
            }
        }
        2 | 3 => {
            let (links, visitor) = (chance.percent(60), browser(chance.below(BROWSERS)));
            if let Some(lead) = any_lead(chance, world) {
                let _ = world.step(|engine, why, means| {
                    if links {
                        engine.link(visitor, lead, Assurance::Verified, why, means)
                    } else {
                        engine.unlink(visitor, lead, why, means)
                    }
                });
            }
        }
        4 | 5 if !steps.is_empty() => {
            let (position, step) = chance.pick(&steps).clone();
            let _ = world.step(|engine, why, means| engine.undo((&step, position), why, means));
        }
        6 => {
            let visitor = browser(chance.below(BROWSERS));
            let hits = hits_of(world, visitor, chance.percent(50));
            world.step(|engine, why, means| {
                withdraw(engine, visitor, &hits, (Position::NONE, why), means);
            });
        }
        7 => {
            if let Some(lead) = any_lead(chance, world) {
                let answer = random_answer(chance, lead, world.now());
                let _ = world.step(|engine, _, means| engine.answer(lead, answer, means));
            }
        }
        _ => {
            let hit = random_hit(chance, world.now());
            let done = world.ingest(hit);
            assert!(!matches!(done, Ingested::Stale(_)), "nobody else is at work");
        }
    }
}

fn any_lead(chance: &mut Chance, world: &World) -> Option<LeadId> {
    let mut leads = world.engine.lead_ids();
    leads.sort_unstable();
    (!leads.is_empty()).then(|| *chance.pick(&leads))
}

/// All hits of a browser, to be withdrawn or put back.
fn hits_of(world: &World, visitor: VisitorId, out: bool) -> Vec<Withdrawn> {
    let own = world.journal.records().filter_map(|(position, record)| match record.body {
        Body::Hit(record) if record.hit.visitor == Some(visitor) && record.visit.is_some() => {
            Some(Withdrawn {
                position,
                when: record.hit.when,
                source: engine::facts::Source::Visitor(visitor),
                origin: LeadId(0),
                human: record.hit.is_human(),
                out,
            })
        }
        _ => None,
    });
    own.collect()
}

/// The rows that some people have, and those that went from them and could come back.
fn forgotten(world: &World, leads: &[LeadId]) -> BTreeSet<(Position, u16)> {
    let leads = leads.iter().filter_map(|id| world.engine.lead(*id));
    leads.flat_map(|lead| lead.content.rows).map(|row| (row.position, row.order)).collect()
}

/// Those of the rows that anybody or any browser has now.
fn back(world: &World, lost: &BTreeSet<(Position, u16)>) -> BTreeSet<(Position, u16)> {
    let leads = world.engine.lead_ids().into_iter().filter_map(|id| world.engine.lead(id));
    let of_leads = leads.flat_map(|lead| lead.content.rows);
    let visitors = (0..BROWSERS).filter_map(|it| world.engine.visitor(browser(it), world.now()));
    let of_visitors = visitors.flat_map(|visitor| visitor.rows.in_order());
    let rows = of_leads.chain(of_visitors).filter(|row| !row.folded);
    rows.map(|row| (row.position, row.order)).filter(|key| lost.contains(key)).collect()
}

/// What each row says, wherever it stands in the journal.
fn ledger(lead: &Lead) -> Vec<(Timestamp, u16, Points, Points)> {
    let rows = lead.content.rows.iter();
    rows.map(|row| (row.when, row.rule.0, row.base, row.granted)).collect()
}
