//! Format v1 loads for ever: a small journal, kept as bytes, still leads to the state it led to
//! when it was written. `MIKOMI_BLESS=1` writes it anew, which only a new format may do, and
//! then beside the old one.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "a test reads its fixture")]

mod model;

use std::path::PathBuf;
use std::sync::Once;
use std::time::Duration;

use engine::engine::{Arrival, Engine};
use engine::grade::Grade;
use engine::hit::{Exclusion, Hit, HitKind};
use engine::id::{Position, SiteId};
use engine::identity::Assurance;
use engine::ledger::{Cut, Fold, Regrant, Row, Source};
use engine::record::{
    Because, Body, Crossed, FirstHit, LeadPart, Name, NameKind, Published, PublishedCategory,
    Reason, Record, Told,
};
use engine::rule::Points;
use engine::stage::Stage;
use engine::threshold::{Crossing, Direction, Gate};

use model::rules::{HOT, INTENT, example};
use model::world::{Journal, World, at, browser, claim, lead_of};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Each record's length in four bytes, little endian, and its bytes.
fn bundle(journal: &Journal) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in &journal.0 {
        bytes.extend_from_slice(&(record.len() as u32).to_le_bytes());
        bytes.extend_from_slice(record);
    }
    bytes
}

fn unbundle(mut bytes: &[u8]) -> Journal {
    let mut journal = Journal::default();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let (record, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        journal.0.push(record.to_vec());
        bytes = rest;
    }
    journal
}

fn state(journal: &Journal) -> String {
    let engine: Engine = journal.replay(8);
    format!("{:032x}\n", engine.state_hash(at("2027-01-31 00:00")))
}

/// A life with every kind of record and hit in it.
fn lived() -> Journal {
    let mut world = World::new(example().build(1));
    let (a, b) = ("tanaka@sample-seiki.example", "suzuki@other.example");
    begin(&mut world);
    world.at("2026-12-01 09:00").view("/column/dx").stay(70).view("/case/line");
    world.at("2026-12-04 09:30").view("/product/a").view("/product/b").view("/product/c");
    world.at("2026-12-04 09:40").view("/pricing/").stay(80);
    world.at("2026-12-04 09:50").form(a, "/thanks/document/guide");
    world.at("2026-12-07 08:55").click_mail(a).view("/pricing/").view("/careers/");
    world.at("2026-12-07 09:30").view("/pricing/");
    world.at("2026-12-07 10:00").import(b).on(2).form(b, "/thanks/contact/");
    world.at("2026-12-07 10:10").on(1).identify(b).view("/thanks/event/dx").reset();
    world.at("2026-12-07 10:30").on(3).identify(b).view("/thanks/careers/");
    late_and_embedded(&mut world);
    world.at("2027-01-20 09:00").on(2).view("/pricing").event("unsubscribe");
    world.at("2027-01-31 00:00");
    let mut journal = world.journal;
    for body in [Body::Due(Box::new(everything())), Body::Outbox(vec![0, 1, 255])] {
        journal.push(&Record { time: at("2027-01-31 00:00"), version: 1, body });
    }
    journal
}

fn begin(world: &mut World) {
    let now = at("2026-12-01 08:00");
    let name = |kind, number, name: &str| Name { kind, number, name: name.to_owned() };
    let categories = example().categories.into_iter();
    let published = Published {
        version: 1,
        names: vec![name(NameKind::Rule, 0, "article"), name(NameKind::Threshold, 1, "hot")],
        categories: categories
            .map(|category| PublishedCategory {
                id: category.id,
                half_life: category.half_life,
                in_total: category.in_total,
            })
            .collect(),
        text: "points = 1 # 点".into(),
    };
    let journal = &mut world.journal;
    world.engine.publish(published, now, &mut |record| journal.push(record));
    let names = vec![name(NameKind::Site, 0, "www"), name(NameKind::Endpoint, 3, "営業")];
    world.engine.name(names, now, &mut |record| journal.push(record));
}

fn late_and_embedded(world: &mut World) {
    let now = at("2026-12-08 09:00");
    let hit = Hit {
        site: SiteId(2),
        visitor: Some(browser(4)),
        received: now,
        when: now.minus(Duration::from_hours(20)),
        path: "/case/line".into(),
        url: "https://www.vendor.example/case/line".into(),
        title: "導入事例".into(),
        referrer: "search.example/".into(),
        campaign: "google / organic".into(),
        network: "192.0.2.0/24".into(),
        id: 7,
        page: u64::MAX,
        scroll: 80,
        test: true,
        properties: vec![("plan".into(), "大".into())],
        ..Hit::default()
    };
    let said = Some(claim("c@x.example", Assurance::Verified));
    let first = Hit { kind: HitKind::Identify, claim: said, ..hit.clone() };
    let first = FirstHit { position: Position(5), hit: first };
    world.arrive(Arrival { hit: Hit { id: 8, ..hit.clone() }, first: Some(first) });
    world.ingest(Hit { id: 9, excluded: Some(Exclusion::Robot), ..hit });
}

/// A part in which every field says something.
fn everything() -> LeadPart {
    let row = Row {
        when: at("2026-12-05 09:00"),
        position: Position(9),
        order: 2,
        source: Source::Visitor(browser(1)),
        base: Points(1_234),
        granted: Points(1_234),
        cut: Cut::Folded,
        category: INTENT,
        ..Row::default()
    };
    let told = Told {
        sequence: 3,
        score: Points(69_923),
        before_24h: Points(-5),
        urgency: Points(36_359),
        unconfirmed: Points(1),
        held_back: Points(2),
        grade: Grade::B,
        stage: Stage::Hot,
        previous_stage: Stage::Warm,
        assurance: Assurance::Verified,
        categories: vec![(INTENT, Points(43_083))],
        reasons: vec![Reason { times: 2, points: Points(22_359), ..Reason::default() }],
        because: Some(Because { points: Points(12_000), ..Because::default() }),
    };
    let crossing = Crossing {
        threshold: HOT,
        direction: Direction::Rise,
        at: at("2027-01-30 09:00"),
        number: 4,
        opened_by: Some(Gate::Recent),
        told: true,
        waits_until: Some(at("2027-02-01 09:00")),
    };
    LeadPart {
        lead: lead_of("tanaka@sample-seiki.example"),
        previous: Position(20),
        takes_attributes: true,
        new_visit: true,
        fold: Some(Fold { rows: 2, into: vec![row] }),
        rows: vec![Row { order: 3, granted: Points(-9), cut: Cut::ClaimsMax, ..row }],
        regrants: vec![Regrant {
            position: Position(9),
            order: 3,
            granted: Points(7),
            cut: Cut::None,
        }],
        crossings: vec![Crossed { crossing, told: Some(told) }],
        link: None,
    }
}

/// The fixture, written anew first if asked to.
fn golden() -> (Journal, String) {
    static BLESSED: Once = Once::new();
    BLESSED.call_once(|| {
        if std::env::var("MIKOMI_BLESS").is_ok_and(|bless| bless == "1") {
            let journal = lived();
            std::fs::write(fixture("journal-v1.bin"), bundle(&journal)).unwrap();
            std::fs::write(fixture("journal-v1.hash"), state(&journal)).unwrap();
        }
    });
    let journal = unbundle(&std::fs::read(fixture("journal-v1.bin")).unwrap());
    (journal, std::fs::read_to_string(fixture("journal-v1.hash")).unwrap())
}

#[test]
fn the_journal_of_format_v1_leads_to_the_state_it_always_led_to() {
    let (journal, expected) = golden();
    assert!(journal.0.len() > 30);
    assert_eq!(state(&journal), expected);
}

#[test]
fn the_records_of_format_v1_are_written_as_they_always_were() {
    for bytes in &golden().0.0 {
        let mut again = Vec::new();
        Record::decode(bytes).unwrap().encode(&mut again);
        assert_eq!(&again, bytes);
    }
}
