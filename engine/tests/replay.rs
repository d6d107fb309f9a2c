//! Live is replay (law 2): whatever happened, the records alone lead to the same state, with
//! any number of shards, and also when the rules changed on the way.
#![allow(clippy::unwrap_used)]

mod model;
#[path = "replay/audit.rs"]
mod shadow;

use std::time::Duration;

use engine::alert::AlertKind;
use engine::attribute::Attributes;
use engine::engine::{Arrival, Engine};
use engine::facts::Source;
use engine::hit::{Hit, HitKind};
use engine::id::{Position, SiteId, Slot};
use engine::identity::{Assurance, IdentityKind};
use engine::points::Points;
use engine::record::{Body, FirstHit, Name, NameKind, Published, StepRecord, Withdrawn};
use engine::sales::SalesRules;
use engine::snapshot::{FORM, SlotReader, SnapshotError, load_catalog, save_catalog};
use engine::threshold::{Direction, Gate};
use engine::time::Timestamp;
use engine::visitor::VISITOR_LIFE;
use rkyv::util::AlignedVec;

use model::chance::{Chance, seeds};
use model::rules::{HOT, Parts, WARM, example, example_sales, mixed};
use model::sales::random_answer;
use model::world::{self, World, at, browser, claim, lead_of, seal, sealed};

const PATHS: [&str; 9] = [
    "/column/dx",
    "/case/line",
    "/product/a",
    "/product/b",
    "/product/c",
    "/pricing",
    "/thanks/document/guide",
    "/thanks/contact",
    "/careers",
];
const MAILS: [&str; 3] = ["a@x.example", "b@x.example", "c@x.example"];

/// One random life of an installation.
struct Life {
    world: World,
    chance: Chance,
    now: Timestamp,
    version: u32,
    /// Whether people do steps; some of them change nothing that was not so before.
    with_steps: bool,
}

impl Life {
    fn new(seed: u64) -> Life {
        let parts = if seed.is_multiple_of(2) { example() } else { mixed() };
        Life {
            world: World::new(parts.with_sales().build(1)),
            chance: Chance::new(seed),
            now: at("2026-12-01 09:00"),
            version: 1,
            with_steps: true,
        }
    }

    fn run(mut self, steps: usize) -> World {
        for _ in 0..steps {
            self.go_on();
        }
        self.world
    }

    fn go_on(&mut self) {
        let most = if self.chance.percent(90) { 8 * 3_600_000 } else { 20 * 86_400_000 };
        self.now = self.now.plus(Duration::from_millis(self.chance.below(most)));
        match self.chance.below(40) {
            0 => self.publish(),
            1 => self.name_a_site(),
            2..6 => self.advance(),
            6 => self.world.engine.sweep(self.now),
            7..10 => self.admit(),
            10..13 if self.with_steps => self.step(),
            _ => self.hit(),
        }
    }

    /// Takes a snapshot while life goes on: each slot at a moment of its own.
    fn snapshot(&mut self) -> Snapshot {
        const MOMENTS: u64 = 30;
        let from = self.world.journal.0.len();
        let ids = self.world.engine.ids(|| {});
        let mut moments: Vec<Vec<Slot>> = vec![Vec::new(); MOMENTS as usize];
        for slot in 0..Slot::COUNT as u16 {
            moments[self.chance.below(MOMENTS) as usize].push(Slot(slot));
        }
        let mut slots = Vec::new();
        for now in moments {
            for slot in now {
                let saved = self.world.engine.save_slot(slot, &ids, self.now).unwrap();
                let known = self.world.journal.0.len() as u64;
                assert!(saved.latest.ordinal() <= known, "nothing is ahead of the journal");
                slots.push(saved.bytes.to_vec());
            }
            self.go_on();
        }
        Snapshot { from, slots, catalog: save_catalog(&self.world.engine.catalog()) }
    }

    fn advance(&mut self) {
        let World { engine, journal, scoring, .. } = &mut self.world;
        engine.advance(self.now, scoring, &mut |record| journal.push(record));
    }

    /// The next version has other points, lines and half-lives.
    fn publish(&mut self) {
        self.version += 1;
        let mut parts = if self.chance.percent(50) { example() } else { mixed() };
        parts.sales = if self.chance.percent(70) { example_sales() } else { SalesRules::default() };
        for rule in &mut parts.rules {
            rule.points = Points(rule.points.0 * (1 + self.chance.below(3) as i64));
        }
        for line in &mut parts.thresholds {
            let by = Points::whole(self.chance.below(20) as i64);
            line.rise.0 += by.0;
            line.fall.0 += by.0;
        }
        if self.chance.percent(30) {
            parts.thresholds.pop();
            parts.rules.remove(self.chance.below(5) as usize);
        }
        publish(&mut self.world, &parts, self.version, self.now);
    }

    /// A step, sensible or not: one that cannot be done leaves no trace.
    fn step(&mut self) {
        self.world.skip_to(self.now);
        let visitor = browser(self.chance.below(6));
        let [one, other] = [(); 2].map(|()| lead_of(MAILS[self.chance.below(3) as usize]));
        let kind = self.chance.below(13);
        let answer = random_answer(&mut self.chance, one, self.now);
        let earlier: Vec<_> = self.world.journal.records().collect();
        let steps: Vec<(Position, StepRecord)> = earlier
            .iter()
            .filter_map(|(position, record)| match &record.body {
                Body::Step(step) => Some((*position, (**step).clone())),
                _ => None,
            })
            .collect();
        let hits = withdrawn(&earlier, visitor, self.chance.percent(50));
        let chosen = (!steps.is_empty()).then(|| self.chance.pick(&steps).clone());
        self.world.step(|engine, why, means| match kind {
            0 => drop(engine.link(visitor, one, Assurance::Claimed, why, means)),
            1 => drop(engine.unlink(visitor, one, why, means)),
            2 => drop(engine.confirm(visitor, one, why, means)),
            3 => drop(engine.merge(one, other, why, means)),
            4 => drop(engine.unmerge(one, why, means)),
            5 => drop(engine.release(one, HOT, true, why, means)),
            6 => {
                world::withdraw(engine, visitor, &hits, (Position::NONE, why), means);
            }
            7 => {
                let barrier = (Position(u64::MAX), Position::NONE);
                if let Some(lead) = engine.lead(one) {
                    let matched = (&lead.content.rows[..], lead.last_position);
                    engine.rescore_lead(one, matched, barrier, why, means);
                }
            }
            11 => drop(engine.erase(one, why, means)),
            8..11 => drop(engine.answer(one, sealed(answer), means)),
            _ => {
                if let Some((position, step)) = &chosen {
                    let _ = engine.undo((step, *position), why, means);
                }
            }
        });
    }

    fn name_a_site(&mut self) {
        let World { engine, journal, .. } = &mut self.world;
        let number = self.chance.below(50) as u16;
        let name = Name { kind: NameKind::Site, number, name: format!("site {number}") };
        engine.name(vec![name], self.now, &mut |record| journal.push(record));
    }

    fn hit(&mut self) {
        let hit = self.random_hit();
        self.world.ingest(hit);
    }

    /// A visitor whose first hit was recorded on its own before.
    fn admit(&mut self) {
        let hit = self.random_hit();
        let first = hit.visitor.map(|_| {
            let mut first = self.random_hit();
            first.visitor = hit.visitor;
            FirstHit { position: Position(self.chance.below(9) + 1), hit: first }
        });
        self.world.arrive(Arrival { hit, first });
    }

    fn random_hit(&mut self) -> Hit {
        let chance = &mut self.chance;
        let late = if chance.percent(20) { chance.below(86_400_000) } else { 0 };
        let mut hit = Hit {
            site: SiteId(chance.below(3) as u16),
            visitor: Some(browser(chance.below(6))),
            received: self.now,
            when: self.now.minus(Duration::from_millis(late)),
            path: (*chance.pick(&PATHS)).to_owned(),
            title: "料金".into(),
            id: chance.below(60),
            page: chance.below(12),
            properties: vec![("k".into(), "v".into())],
            ..Hit::default()
        };
        match chance.below(10) {
            0..5 => {}
            5 | 6 => {
                hit.kind = HitKind::Engagement;
                hit.engaged_ms = chance.below(120_000) as u32;
            }
            7 => hit.kind = HitKind::Reset,
            _ => {
                hit.kind = HitKind::Identify;
                let sure = chance.percent(30);
                let assurance = if sure { Assurance::Verified } else { Assurance::Claimed };
                let mut said = claim(MAILS[chance.below(3) as usize], assurance);
                said.attributes.insert("title".into(), format!("課長 {}", chance.below(4)));
                said.sealed = seal(&said.attributes);
                said.consent = chance.percent(30).then(|| chance.percent(50));
                if chance.percent(20) {
                    said.names[0].kind = IdentityKind::UserId;
                }
                said.kiosk = chance.percent(5);
                hit.claim = Some(said);
                hit.by_server = sure;
                if sure && chance.percent(30) {
                    hit.visitor = None;
                }
            }
        }
        hit
    }
}

/// What a snapshot holds, and how many records were pushed when it was begun.
struct Snapshot {
    from: usize,
    slots: Vec<Vec<u8>>,
    catalog: Vec<u8>,
}

impl Snapshot {
    /// Of a moment at which nothing happens.
    fn of(engine: &Engine, from: usize, now: Timestamp) -> Snapshot {
        let ids = engine.ids(|| {});
        let slots = (0..Slot::COUNT as u16).map(|slot| engine.save_slot(Slot(slot), &ids, now));
        let slots = slots.map(|saved| saved.unwrap().bytes.to_vec()).collect();
        Snapshot { from, slots, catalog: save_catalog(&engine.catalog()) }
    }

    fn restored(&self, shards: usize) -> Engine {
        let engine = Engine::new(shards);
        engine.restore_catalog(load_catalog(&self.catalog).unwrap());
        for bytes in &self.slots {
            let mut aligned: AlignedVec = AlignedVec::new();
            aligned.extend_from_slice(bytes);
            let slots = SlotReader::open(&aligned, FORM).unwrap();
            engine.restore_slot(&slots, &|_, sealed| world::unseal(sealed)).unwrap();
        }
        engine
    }
}

/// The first hits of a browser, withdrawn or put back.
fn withdrawn(
    records: &[(Position, engine::record::Record)],
    visitor: engine::id::VisitorId,
    out: bool,
) -> Vec<Withdrawn> {
    let of_hit = |(position, record): &(Position, engine::record::Record)| match &record.body {
        Body::Hit(record) if record.hit.visitor == Some(visitor) => Some(Withdrawn {
            position: *position,
            when: record.hit.when,
            source: Source::Visitor(visitor),
            human: record.hit.is_human(),
            out,
            ..Withdrawn::default()
        }),
        _ => None,
    };
    records.iter().filter_map(of_hit).take(4).collect()
}

/// Publishes a version: the record first, then the rules, then the timers.
fn publish(world: &mut World, parts: &Parts, version: u32, now: Timestamp) {
    let scoring = parts.build_after(&world.scoring.versions, version, now);
    let published = Published {
        names: vec![Name { kind: NameKind::Rule, number: version as u16, name: "x".into() }],
        terms: scoring.terms().clone(),
        text: format!("version {version}").into_bytes(),
    };
    let journal = &mut world.journal;
    world.engine.publish(published, now, &mut |record| journal.push(record));
    world.engine.rebuild_timers(&scoring);
    world.scoring = scoring;
}

fn hashes_agree(world: &World, seed: u64) {
    for now in [Timestamp(0), at("2027-06-01 00:00"), at("2029-01-01 00:00")] {
        let live = world.engine.state_hash(now);
        for shards in [2, 8, 1_024] {
            let replayed: Engine = world.journal.replay(shards);
            assert_eq!(replayed.state_hash(now), live, "seed {seed}, {shards} shards");
        }
    }
}

#[test]
fn replay_restores_every_random_life() {
    let mut records = 0;
    for seed in seeds(200) {
        let world = Life::new(seed).run(100);
        hashes_agree(&world, seed);
        records += world.journal.0.len();
    }
    assert!(records > 200 * 60 || seeds(200).end < 200, "{records}");
}

#[test]
fn a_snapshot_taken_while_life_goes_on_and_the_records_after_it_restore_the_state() {
    for seed in seeds(200) {
        let mut life = Life::new(seed);
        let before = life.chance.below(80);
        (0..before).for_each(|_| life.go_on());
        let snapshot = life.snapshot();
        (0..20).for_each(|_| life.go_on());
        let world = life.world;
        for now in [Timestamp(0), at("2027-06-01 00:00")] {
            let live = world.engine.state_hash(now);
            // From where it was begun, and from anywhere before that.
            for (shards, from) in [(2, snapshot.from), (8, snapshot.from / 2), (1_024, 0)] {
                let engine = snapshot.restored(shards);
                for (position, record) in world.journal.records_from(from) {
                    engine.evolve(&record, position);
                }
                assert_eq!(engine.state_hash(now), live, "seed {seed}, {shards} shards");
            }
        }
    }
}

#[test]
fn a_visitor_who_has_only_just_expired_is_in_a_snapshot_and_a_late_hit_finds_them() {
    let mut world = World::new(example().build(1));
    let start = at("2026-12-01 09:00");
    world.to(start).on(1).view("/pricing");
    let from = world.journal.0.len();
    // Given a snapshot taken a moment after the visitor expired,
    let gone = start.plus(VISITOR_LIFE);
    let snapshot = Snapshot::of(&world.engine, from, gone.plus(Duration::from_secs(1)));
    // when a hit that was received a moment before comes in only now,
    world.ingest(Hit {
        visitor: Some(browser(1)),
        received: gone.minus(Duration::from_secs(1)),
        when: gone.minus(Duration::from_secs(1)),
        path: "/pricing".into(),
        ..Hit::default()
    });
    // then the visitor goes on with what they had, from the snapshot, too.
    let restored = snapshot.restored(2);
    for (position, record) in world.journal.records_from(from) {
        restored.evolve(&record, position);
    }
    assert_eq!(world.engine.visitor(browser(1), gone).unwrap().hits, 2);
    assert_eq!(restored.state_hash(gone), world.engine.state_hash(gone));
}

#[test]
fn whatever_is_wrong_with_a_snapshot_has_a_name_and_nothing_panics() {
    let mut life = Life::new(11);
    (0..60).for_each(|_| life.go_on());
    let snapshot = life.snapshot();
    let longest = snapshot.slots.iter().max_by_key(|bytes| bytes.len()).unwrap();
    let engine = Engine::new(2);
    let mut chance = Chance::new(1);
    let mut refused = 0;
    for _ in 0..20_000 {
        let mut bytes: AlignedVec = AlignedVec::new();
        bytes.extend_from_slice(longest);
        let at = chance.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << chance.below(8);
        if chance.percent(20) {
            bytes.resize(chance.below(bytes.len() as u64) as usize, 0);
        }
        let unseal = |_, _: &[u8]| Attributes::new();
        let read =
            SlotReader::open(&bytes, FORM).and_then(|slots| engine.restore_slot(&slots, &unseal));
        refused += usize::from(read.is_err());
    }
    assert!(refused > 2_000, "{refused}");
    for cut in 0..snapshot.catalog.len() {
        let _ = load_catalog(&snapshot.catalog[..cut]);
    }
    assert_eq!(load_catalog(&[1, 2, 3]), Err(SnapshotError::Catalog));
}

#[test]
fn a_replayed_and_a_restored_engine_go_on_as_the_live_one_does() {
    for seed in seeds(60) {
        let mut life = Life::new(seed);
        (0..30).for_each(|_| life.go_on());
        let snapshot = life.snapshot();
        let mut live = life.world;
        let now = at("2028-06-01 09:00");
        let scoring = || example().build_after(&live.scoring.versions, 99, at("2028-05-01 09:00"));
        let with = |engine| {
            let mut world = World::new(scoring());
            (world.engine, world.journal) = (engine, live.journal.clone());
            world
        };
        let restored = snapshot.restored(2);
        for (position, record) in live.journal.records_from(snapshot.from) {
            restored.evolve(&record, position);
        }
        let (mut again, mut restored) = (with(live.journal.replay(8)), with(restored));
        live.scoring = scoring();
        for world in [&mut live, &mut again, &mut restored] {
            // Every timer is worked out anew, as after a start.
            world.engine.rebuild_timers(&world.scoring);
            world.to(now).on(1).view("/pricing").identify("a@x.example");
            world.on(2).view("/thanks/contact").identify("a@x.example");
            world.to(now.plus(Duration::from_hours(24 * 90)));
        }
        for other in [again, restored] {
            assert_eq!(live.journal.0, other.journal.0, "seed {seed}");
            assert_eq!(live.engine.state_hash(now), other.engine.state_hash(now), "seed {seed}");
        }
    }
}

#[test]
fn the_state_hash_notices_any_lost_record() {
    let world = Life { with_steps: false, ..Life::new(3) }.run(80);
    let now = at("2027-06-01 00:00");
    let live = world.engine.state_hash(now);
    let records: Vec<_> = world.journal.records().collect();
    for lost in 0..records.len() {
        let engine = Engine::new(2);
        for (index, (position, record)) in records.iter().enumerate() {
            if index != lost {
                engine.evolve(record, *position);
            }
        }
        assert_ne!(engine.state_hash(now), live, "record {lost} left no trace");
    }
}

#[test]
fn a_lowered_line_holds_whom_it_lets_in_and_tells_nobody_until_a_person_says_so() {
    let mut world = World::new(example().build(1));
    let mail = MAILS[0];
    world.at("2026-12-07 10:00").identify(mail).view("/pricing").view("/thanks/document/guide");
    let mut parts = example();
    parts.thresholds[1].rise = Points::whole(30);
    parts.thresholds[1].fall = Points::whole(10);
    let now = world.now();
    publish(&mut world, &parts, 2, now);
    world.at("2026-12-08 09:00").view("/column/dx");
    let hot = world.crossings().into_iter().map(|(_, it)| it).find(|it| it.threshold == HOT);
    let hot = hot.unwrap();
    assert_eq!((hot.opened_by, hot.held, hot.at), (Some(Gate::Rules), true, now));
    assert_eq!(world.messages(), [], "changed rules tell nobody");
    let done =
        world.step(|engine, why, means| engine.release(lead_of(mail), HOT, true, why, means));
    assert!(done.is_ok());
    let messages = world.messages();
    assert_eq!(messages.len(), 1, "and nothing is lost for later");
    assert_eq!(messages[0].message.kind, AlertKind::Hot);
    assert_eq!(messages[0].crossing.unwrap().at, at("2026-12-08 09:00"));
    hashes_agree(&world, 0);
}

#[test]
fn a_lead_that_is_held_is_out_again_in_time_and_nobody_hears_of_it() {
    let mut world = World::new(example().build(1));
    let mail = MAILS[0];
    world.at("2026-12-07 10:00").identify(mail).view("/pricing").view("/thanks/document/guide");
    let mut parts = example();
    parts.thresholds[1].rise = Points::whole(25);
    parts.thresholds[1].fall = Points::whole(10);
    let now = world.now();
    publish(&mut world, &parts, 2, now);
    world.at("2027-03-01 09:00");
    let all: Vec<_> =
        world.crossings().iter().map(|(_, it)| (it.threshold, it.direction)).collect();
    let (rise, fall) = (Direction::Rise, Direction::Fall);
    assert_eq!(all, [(WARM, rise), (HOT, rise), (WARM, fall), (HOT, fall)]);
    assert_eq!(world.messages(), []);
}

#[test]
fn a_line_that_no_longer_tells_anybody_releases_no_waiting_message() {
    let mut world = World::new(example().build(1));
    let mail = MAILS[0];
    world.at("2026-12-07 10:00").form(mail, "/thanks/contact");
    world.at("2026-12-07 15:00").view("/careers").event("unsubscribe");
    world.at("2026-12-09 10:00").view("/pricing").view("/thanks/document/guide");
    world.view("/thanks/event/dx");
    assert_eq!(world.messages().len(), 2);
    let mut parts = example();
    parts.thresholds[1].tell = None;
    let now = world.now();
    publish(&mut world, &parts, 2, now);
    world.at("2027-03-01 09:00");
    assert_eq!(world.messages().len(), 2);
    assert_eq!(world.engine.lead(lead_of(mail)).unwrap().sequence, 2);
}

#[test]
fn rows_keep_their_points_when_the_rules_change() {
    let mut world = World::new(example().build(1));
    world.at("2026-12-07 10:00").identify(MAILS[0]).view("/pricing");
    let mut parts = example();
    for rule in &mut parts.rules {
        rule.points = Points(rule.points.0 * 2);
    }
    let now = world.now().plus(Duration::from_millis(1));
    publish(&mut world, &parts, 2, now);
    world.to(now);
    assert_eq!(world.score(MAILS[0]), Points::whole(12));
    world.view("/thanks/document/guide");
    assert_eq!(world.score(MAILS[0]), Points::whole(12 + 40));
    assert_eq!(world.engine.catalog().version(), 2);
}

#[test]
fn a_version_that_changes_nothing_for_somebody_counts_only_from_when_it_was_published() {
    // The lead is below the new line when that is published, and was above it five days before.
    let mut world = World::new(example().build(1));
    let mail = MAILS[0];
    world.at("2026-12-07 10:00").identify(mail).view("/pricing").view("/thanks/document/guide");
    world.at("2026-12-12 10:00");
    let mut parts = example();
    parts.thresholds[1].rise = Points::whole(30);
    parts.thresholds[1].fall = Points::whole(5);
    let now = world.now();
    publish(&mut world, &parts, 2, now);
    world.at("2027-01-10 10:00");
    let hot = world.crossings().into_iter().filter(|(_, it)| it.threshold == HOT).count();
    assert_eq!(hot, 0, "{:?}", world.lead(mail).bands);
}
