//! Every format loads for ever: a small journal of each, kept as bytes, still leads to the state
//! it led to when it was written. `MIKOMI_BLESS=1` writes the newest one anew, which only a new
//! format may do, and then beside the old ones; and the hashes, which only a new version of the
//! code that applies records may do.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "a test reads its fixture")]

mod model;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::time::Duration;

use engine::alert::AlertKind;
use engine::attribute::{AttributeTest, Level, Test};
use engine::engine::{Arrival, Engine};
use engine::facts::{Said, Seen, Source};
use engine::grade::Grade;
use engine::hit::{Claim, Exclusion, Hit, HitKind};
use engine::id::{LeadId, Position, SiteId, Slot};
use engine::identity::{Assurance, IdentityKind};
use engine::ledger::{Cut, Fold, Regrant, Row};
use engine::points::Points;
use engine::record::{
    Aside, Base, Because, Body, Content, Dropping, FirstHit, History, Joint, LeadPart, LinkPart,
    Member, Message, Name, NameKind, Parcel, Published, Question, Reason, Record, Sent, Step,
    StepRecord, Subject, Tie, Told, Withdrawn,
};
use engine::rule::{OnRemove, Once as Counts, Period};
use engine::sales::{Asked, Feedback, Vouched};
use engine::snapshot::{FORM, SlotReader, load_catalog, save_catalog};
use engine::stage::{FeedbackKind, Stage};
use engine::threshold::{Band, Crossing, Direction, Gate, Side};

use rkyv::util::AlignedVec;

use model::rules::{DAY, HOT, INTENT, Parts, WARM, example};
use model::world::{self, Journal, World, at, browser, claim, feedback, lead_of, named, seal};

const TANAKA: &str = "tanaka@sample-seiki.example";
const SUZUKI: &str = "suzuki@other.example";

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

/// A life with every kind of record, hit and step in it.
fn lived() -> Journal {
    let mut world = World::new(first_version().with_sales().build_after(
        &engine::terms::Versions::default(),
        1,
        at("2026-12-01 08:00"),
    ));
    begin(&mut world);
    world.at("2026-12-01 09:00").view("/column/dx").stay(70).view("/case/line");
    world.at("2026-12-04 09:30").view("/product/a").view("/product/b").view("/product/c");
    world.at("2026-12-04 09:40").view("/pricing/").stay(80);
    world.at("2026-12-04 09:50").form(TANAKA, "/thanks/document/guide");
    world.at("2026-12-07 08:55").click_mail(TANAKA).view("/pricing/").view("/careers/");
    world.at("2026-12-07 09:30").view("/pricing/");
    world.at("2026-12-07 10:00").import(SUZUKI).on(2).form(SUZUKI, "/thanks/contact/");
    world.at("2026-12-07 10:10").on(1).identify(SUZUKI).view("/thanks/event/dx").reset();
    world.at("2026-12-07 10:30").on(3).identify(SUZUKI).view("/thanks/careers/");
    late_and_embedded(&mut world);
    several_names(&mut world);
    steps(&mut world);
    answers(&mut world);
    newer_rules(&mut world);
    world.at("2027-01-20 09:00").on(2).view("/pricing").event("unsubscribe");
    erased(&mut world);
    world.at("2027-01-31 00:00");
    let mut journal = world.journal;
    let time = at("2027-01-31 00:00");
    let step = Body::Step(Box::new(parcel_of_everything()));
    for body in [Body::Due(Box::new(everything())), step, Body::Outbox(vec![0, 1, 255])] {
        journal.push(&Record { time, version: 2, body });
    }
    journal
}

/// Somebody by two names asks to be forgotten; what they did before comes late, and they come
/// again.
fn erased(world: &mut World) {
    const ITO: &str = "ito@third.example";
    const OFFICE: &str = "office@third.example";
    world.at("2027-01-21 09:00").on(8).view("/pricing").identify(ITO).view("/case/line");
    world.at("2027-01-21 10:00").import(OFFICE);
    let (one, other) = (lead_of(ITO), lead_of(OFFICE));
    world.step(|engine, why, means| engine.merge(one, other, why, means)).unwrap();
    world.at("2027-01-22 09:00");
    world.step(|engine, why, means| engine.erase(one, why, means)).unwrap();
    let when = world.now();
    world.at("2027-01-22 09:05");
    let claim = Some(claim(ITO, Assurance::Claimed));
    let kind = HitKind::Identify;
    let late =
        Hit { visitor: Some(browser(8)), kind, when, received: world.now(), ..Hit::default() };
    world.ingest(Hit { claim, ..late });
    world.at("2027-01-22 10:00").on(8).view("/pricing").identify(ITO);
}

/// The example rules, with every limit on somebody.
fn first_version() -> Parts {
    let mut parts = example();
    let last = parts.rules.last_mut().unwrap();
    last.on_remove = OnRemove::Withdraw;
    last.guards.once = Some(Counts::Rearmed(90 * DAY));
    last.guards.once_per = Some(Period::Day);
    last.guards.at_most = Some((3, Period::Rolling(7 * DAY)));
    let words = vec!["部長".to_owned()];
    let tests = [Test::Has(words.clone()), Test::Is(words.clone()), Test::Ends(words)];
    let first = &mut parts.rules[0].guards;
    first.away = Some(DAY);
    first.only = vec![AttributeTest::new("x".into(), Test::Between(Some(1), None))];
    let of_title = |test| AttributeTest::new("title".into(), test);
    parts.rules[1].guards.only = tests.map(of_title).to_vec();
    parts
}

fn begin(world: &mut World) {
    let now = at("2026-12-01 08:00");
    let name = |kind, number, name: &str| Name { kind, number, name: name.to_owned() };
    let published = Published {
        names: vec![name(NameKind::Rule, 0, "article"), name(NameKind::Threshold, 1, "hot")],
        terms: world.scoring.terms().clone(),
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
        agent: "chrome windows".into(),
        areas: vec!["docs".into()],
        id: 7,
        page: u64::MAX,
        scroll: 80,
        test: true,
        via_our_link: true,
        properties: vec![("plan".into(), "大".into())],
        ..Hit::default()
    };
    let said = Some(claim("c@x.example", Assurance::Verified));
    let first = Hit { kind: HitKind::Identify, claim: said, ..hit.clone() };
    let first = FirstHit { position: Position(5), hit: first };
    world.arrive(Arrival { hit: Hit { id: 8, ..hit.clone() }, first: Some(first) });
    for (id, excluded) in (9..).zip(Exclusion::ALL) {
        world.ingest(Hit { id, excluded: Some(excluded), ..hit.clone() });
    }
    world.ingest(Hit { id: 30, silent: true, ..hit });
}

/// A statement with names of every kind.
fn several(person: &str, assurance: Assurance) -> Claim {
    let mut said = claim(&format!("{person}@x.example"), assurance);
    said.names =
        IdentityKind::ORDER.map(|kind| named(kind, person_value(kind, person), assurance)).to_vec();
    said.attributes.insert("industry".into(), "it".into());
    said.sealed = seal(&said.attributes);
    said.level = Level::Company;
    said.consent = Some(true);
    said
}

fn person_value(kind: IdentityKind, person: &str) -> &'static str {
    match (kind, person) {
        (IdentityKind::UserId, "d") => "user-d",
        (IdentityKind::CrmId, "d") => "crm-d",
        (IdentityKind::Email, "d") => "d@x.example",
        (IdentityKind::UserId, _) => "user-e",
        (IdentityKind::CrmId, _) => "crm-e",
        (IdentityKind::Email, _) => "e@x.example",
    }
}

/// Several names, a kiosk, a link that was passed on, and so many people that it is shared.
fn several_names(world: &mut World) {
    world.at("2026-12-09 09:00").on(5).view("/pricing");
    let at = |world: &World, claim| {
        let now = world.now();
        let kind = HitKind::Identify;
        let visitor = Some(browser(5));
        Hit { visitor, received: now, when: now, kind, claim: Some(claim), ..Hit::default() }
    };
    world.ingest(at(world, several("d", Assurance::Claimed)));
    world.ingest(at(world, several("d", Assurance::Verified)));
    let passed_on = Claim { by_link: true, ..claim(TANAKA, Assurance::Verified) };
    world.ingest(at(world, passed_on));
    let kiosk = Claim { kiosk: true, ..claim("guest@x.example", Assurance::Claimed) };
    world.ingest(at(world, kiosk));
    // A claim that one person has another's name too, who is verified.
    let mut another = claim("new@x.example", Assurance::Claimed);
    another.names.push(named(IdentityKind::Email, TANAKA, Assurance::Claimed));
    world.ingest(at(world, another));
    for person in 0..6 {
        let said = claim(&format!("person{person}@x.example"), Assurance::Claimed);
        world.ingest(at(world, said));
    }
    world.at("2026-12-09 12:00").on(5).view("/pricing");
}

/// Every step, and the undoing of those that can be undone.
fn steps(world: &mut World) {
    let (a, b) = (lead_of(TANAKA), lead_of(SUZUKI));
    let d = named(IdentityKind::UserId, "user-d", Assurance::Claimed).id;
    world.at("2026-12-10 09:00").on(6).view("/pricing").view("/case/line");
    let job = world.step(|engine, why, means| engine.note(Step::Job, Position::NONE, why, means));
    let linked = world
        .step(|engine, why, means| engine.link(browser(6), a, Assurance::Claimed, why, means))
        .unwrap();
    world.at("2026-12-10 09:10").view("/product/a");
    world.step(|engine, why, means| engine.confirm(browser(6), a, why, means)).unwrap();
    let unlinked =
        world.step(|engine, why, means| engine.unlink(browser(6), a, why, means)).unwrap();
    for position in [unlinked, linked] {
        undo(world, position);
    }
    world.at("2026-12-11 09:00");
    let (merged, _) = world.step(|engine, why, means| engine.merge(b, a, why, means)).unwrap();
    undo(world, merged);
    world.step(|engine, why, means| engine.merge(d, a, why, means)).unwrap();
    let parted =
        world.step(|engine, why, means| engine.unmerge(d, why, means)).unwrap_or_else(|_| {
            world.step(|engine, why, means| engine.unmerge(a, why, means)).unwrap()
        });
    undo(world, parted.0);
    let hits = withdrawn(world, 1);
    world.step(|engine, why, means| {
        world::withdraw(engine, browser(1), &hits, (job, why), means);
        engine.note(Step::Job, job, why, means);
        engine.note(Step::Dismiss { question: Position(3) }, Position::NONE, why, means);
    });
}

/// Undoes the step of a position.
fn undo(world: &mut World, position: Position) {
    let found = world.journal.records().find(|(at, _)| *at == position).unwrap().1;
    let Body::Step(step) = found.body else {
        panic!("no step stands at {position:?}");
    };
    world.step(|engine, why, means| engine.undo((&step, position), why, means)).unwrap();
}

/// The first hits of a browser that earned something.
fn withdrawn(world: &World, number: u64) -> Vec<Withdrawn> {
    let rows = world.engine.visitor(browser(number), world.now()).unwrap().rows.in_order();
    let of_row = |row: &Row| Withdrawn {
        position: row.position,
        when: row.when,
        source: row.source,
        origin: LeadId(0),
        human: true,
        out: true,
    };
    rows.iter().take(2).map(of_row).collect()
}

/// Everything that sales may say, of people who are told of, reminded of, joined and parted.
fn answers(world: &mut World) {
    use FeedbackKind::{
        Accepted, Contacted, Lost, MeetingDone, MeetingPlanned, NoShow, Opportunity, Recycle,
        Rejected, Snooze, Won,
    };
    let (h, i) = ("h@x.example", "i@x.example");
    world.at("2026-12-11 10:00").on(9).view("/pricing").form(h, "/thanks/contact/");
    world.on(10).view("/case/line").form(i, "/thanks/contact/");
    world.at("2026-12-11 11:00").answer(h, Snooze);
    world.at("2026-12-11 16:00").answer(i, Accepted);
    for kind in [Contacted, MeetingDone, NoShow, Opportunity] {
        world.answer(i, kind);
    }
    world.at("2026-12-11 17:00").on(10).view("/case/line");
    let until = Some(at("2026-12-11 18:00"));
    let planned = Feedback { id: 7, at: world.now(), until, ..feedback(i, MeetingPlanned) };
    world.answer_with(i, planned);
    // Sales was asked of one, answered about the other, and they are joined, parted and joined.
    let (one, other) = (lead_of(h), lead_of(i));
    let joined = world.step(|engine, why, means| engine.merge(one, other, why, means)).unwrap().0;
    undo(world, joined);
    world.step(|engine, why, means| engine.merge(one, other, why, means)).unwrap();
    for kind in [Won, Lost, Rejected] {
        world.answer(i, kind);
    }
    world.at("2026-12-11 20:00").on(9).view("/thanks/document/guide").view("/thanks/trial/");
    world.on(10).view("/thanks/event/dx");
    world.answer(h, Recycle);
}

/// A version that holds somebody, who is told, and another who is not; and all scored anew.
fn newer_rules(world: &mut World) {
    world.at("2026-12-12 09:00").on(7).identify("f@x.example").view("/thanks/document/guide");
    world.on(8).identify("g@x.example").view("/thanks/document/guide");
    let mut parts = first_version();
    parts.rules.pop();
    parts.thresholds[1].rise = Points::whole(15);
    parts.thresholds[1].fall = Points::whole(2);
    let parts = parts.with_sales();
    let now = at("2026-12-12 10:00");
    let scoring = parts.build_after(&world.scoring.versions, 2, now);
    let terms = scoring.terms().clone();
    let published = Published { names: Vec::new(), terms, text: Vec::new() };
    let journal = &mut world.journal;
    world.engine.publish(published, now, &mut |record| journal.push(record));
    world.engine.rebuild_timers(&scoring);
    world.scoring = scoring;
    world.to(now);
    let (f, g) = (lead_of("f@x.example"), lead_of("g@x.example"));
    world.step(|engine, why, means| engine.release(f, HOT, true, why, means)).unwrap();
    world.step(|engine, why, means| engine.release(g, HOT, false, why, means)).unwrap();
    let lead = world.engine.lead(f).unwrap();
    let (rows, seen) = (lead.content.rows, lead.last_position);
    world.step(|engine, why, means| {
        let barrier = (Position(u64::MAX), Position::NONE);
        engine.rescore_lead(f, (&rows, seen), barrier, why, means).unwrap();
        engine.rescore_visitor(browser(7), &rows, barrier, why, means).unwrap();
    });
}

fn row() -> Row {
    Row {
        when: at("2026-12-05 09:00"),
        position: Position(9),
        order: 2,
        source: Source::Visitor(browser(1)),
        origin: lead_of(SUZUKI),
        version: 1,
        base: Points(1_234),
        granted: Points(1_234),
        cut: Cut::Folded,
        category: INTENT,
        folded: true,
        ..Row::default()
    }
}

fn sent() -> Sent {
    Sent {
        position: Position(4),
        place: 1,
        lead: lead_of(TANAKA),
        kind: AlertKind::Action,
        audience: Some("hr".into()),
        at: at("2027-01-30 09:00"),
        about: Subject::Row(Position(3), 2),
    }
}

/// A message in which every field says something.
fn message() -> Message {
    let told = Told {
        sequence: 30,
        at: at("2027-01-30 09:00"),
        score: Points(69_923),
        before_24h: Points(-5),
        urgency: Points(36_359),
        unconfirmed: Points(1),
        held_back: Points(2),
        grade: Grade::B,
        stage: Stage::Hot,
        previous_stage: Stage::Warm,
        assurance: Assurance::Derived,
        last_told: Some(Points(7)),
        asks: Some((at("2027-01-30 13:00"), at("2027-01-30 17:00"))),
        waited: Duration::from_hours(4),
        raised: Points(20_000),
        categories: vec![(INTENT, Points(43_083))],
        reasons: vec![Reason { times: 2, points: Points(22_359), ..Reason::default() }],
        because: Some(Because { points: Points(12_000), ..Because::default() }),
    };
    Message {
        place: 0,
        kind: AlertKind::Hot,
        audience: Some("sales".into()),
        also: vec![AlertKind::Action],
        crossing: Some(0),
        lines: vec![HOT],
        other: Some(lead_of(SUZUKI)),
        takes_back: Some(sent()),
        told,
    }
}

/// One of every kind, and of every stage.
fn messages() -> Vec<Message> {
    let mut all = vec![message()];
    for (place, stage) in (1..).zip(Stage::ALL) {
        let kind = AlertKind::ALL[usize::from(place) % AlertKind::ALL.len()];
        let told = Told { stage, sequence: 30 + u32::from(place), ..message().told };
        all.push(Message { place, kind, crossing: None, takes_back: None, told, ..message() });
    }
    all
}

/// One for every gate.
fn crossings() -> Vec<Crossing> {
    let crossing = Crossing {
        threshold: HOT,
        direction: Direction::Rise,
        at: at("2027-01-30 09:00"),
        since: at("2027-01-29 09:00"),
        number: 4,
        opened_by: Some(Gate::Recent),
        told: true,
        held: true,
        waits_until: Some(at("2027-02-01 09:00")),
    };
    let of = |gate| Crossing { threshold: WARM, opened_by: Some(gate), ..crossing };
    [crossing].into_iter().chain(Gate::ALL.map(of)).collect()
}

/// What a browser did, with every field saying something.
fn history() -> History {
    History {
        stretch: Position(8),
        origin: lead_of(SUZUKI),
        given: Assurance::Verified,
        first_position: Position(9),
        last_position: Position(11),
        first_seen: at("2026-12-05 09:00"),
        last_when: at("2026-12-05 10:00"),
        hits: 3,
        pages: 2,
        visits: 1,
        seen: vec![seen()],
    }
}

/// A part in which every field says something.
fn everything() -> LeadPart {
    let row = row();
    let (visitor, assurance) = (browser(9), Assurance::Verified);
    let source = Source::Visitor(browser(8));
    let (position, order) = (Position(9), 3);
    LeadPart {
        lead: lead_of(TANAKA),
        origin: lead_of(SUZUKI),
        previous: Position(20),
        hears: [Some(Assurance::Verified), Some(Assurance::Claimed)],
        only_said: true,
        new_visit: true,
        stretch: Position(8),
        names: vec![named(IdentityKind::CrmId, "crm-x", assurance)],
        under: lead_of(TANAKA),
        link: Some(LinkPart { visitor, assurance, histories: vec![history()] }),
        drops: vec![Dropping { source, after: Position(1), until: Position(2) }],
        fold: Some(Fold { rows: 2, into: vec![row] }),
        rows: vec![Row { order: 3, granted: Points(-9), cut: Cut::ClaimsMax, ..row }],
        regrants: vec![Regrant { position, order, granted: Points(7), cut: Cut::None }],
        base: Some(Base { at: at("2026-12-05 09:00"), sides: vec![Side::out(WARM)] }),
        crossings: crossings(),
        messages: messages(),
    }
}

fn seen() -> Seen {
    Seen {
        stretch: Position(8),
        origin: lead_of(SUZUKI),
        hits: 3,
        withdrawn: 1,
        ..Seen::hit(Source::Visitor(browser(9)), at("2026-12-05 09:00"), Position(9))
    }
}

fn said() -> Said {
    let claim = several("d", Assurance::Claimed);
    Said {
        time: at("2026-12-05 09:00"),
        position: Position(9),
        source: Source::Visitor(browser(9)),
        stretch: Some(Position(8)),
        origin: lead_of(SUZUKI),
        identity: Assurance::Verified,
        attributes_by: Assurance::Verified,
        level: Level::Organisation,
        consent: Some(false),
        by: Arc::from("form"),
        attributes: Arc::new(claim.attributes),
        under: lead_of(TANAKA),
        sealed: Arc::new(claim.sealed),
    }
}

/// An answer in which every field says something.
fn answer() -> Feedback {
    let vouched = Vouched { visitor: browser(9), origin: lead_of(SUZUKI), stretch: Position(8) };
    Feedback {
        id: 99,
        time: at("2026-12-05 09:00"),
        position: Position(9),
        at: at("2026-12-05 08:59"),
        stage: Stage::Recycled,
        until: Some(at("2027-02-01 09:00")),
        raise: Some((Points::whole(20), at("2027-03-01 09:00"))),
        asks: Some((at("2027-02-01 13:00"), at("2027-02-01 17:00"))),
        vouches: vec![vouched],
        ..feedback("y@x.example", FeedbackKind::Lost)
    }
}

fn member() -> Member {
    Member {
        id: lead_of("y@x.example"),
        kind: IdentityKind::CrmId,
        parent: Some(lead_of(SUZUKI)),
        assurance: Assurance::Claimed,
        people: true,
        since: at("2026-12-04 09:00"),
        first_position: Position(9),
        by_server: true,
    }
}

/// A step in which every field of what one lead sends another says something.
fn parcel_of_everything() -> StepRecord {
    let tie = Tie {
        source: Source::Visitor(browser(9)),
        origin: lead_of(SUZUKI),
        stretch: Position(8),
        assurance: Assurance::Verified,
        given: Assurance::Claimed,
        since: at("2026-12-05 09:00"),
        first_seen: at("2026-12-04 09:00"),
        first_position: Position(9),
        hits: 3,
        pages: 2,
        visits: 1,
        attached: 1,
    };
    let band = Band {
        side: Side { threshold: HOT, inside: true, since: at("2026-12-05 09:00") },
        number: 3,
        opened_by: Some(Gate::Rules),
        told: true,
        held: true,
        waits_until: Some(at("2027-02-01 09:00")),
        last_told: Some(at("2027-01-01 09:00")),
        last_points: Some(Points(61_000)),
        escalated: vec![at("2027-01-02 09:00")],
    };
    let (people, assurance) = (true, Assurance::Verified);
    let parcel = Parcel {
        from: lead_of("y@x.example"),
        number: 0,
        last: true,
        joint: Some(Joint { under: lead_of(SUZUKI), assurance, people }),
        content: Content {
            members: vec![member()],
            rows: vec![row()],
            ties: vec![tie],
            said: vec![said()],
            seen: vec![seen()],
            feedback: vec![answer()],
            aside: Aside { ties: vec![tie], said: vec![said()] },
        },
        bands: vec![band],
        sent: vec![sent()],
        asked: Some(Asked {
            lead: lead_of("y@x.example"),
            since: at("2027-01-29 09:00"),
            remind_at: at("2027-01-29 13:00"),
            report_at: at("2027-01-29 17:00"),
            reminded: true,
            line: Some(HOT),
        }),
        signalled: at("2027-01-28 09:00"),
    };
    StepRecord {
        step: Step::TakeIn(Box::new(parcel)),
        actor: "佐藤".into(),
        reason: "同じ人".into(),
        of: Position(7),
        undoes: Position(6),
        visit: None,
        lead: Some(LeadPart { lead: lead_of(SUZUKI), ..LeadPart::default() }),
    }
}

/// The journals that are kept. Those of the third have what sales answers besides, those of the
/// fourth who was erased; those of the fifth do not write out what another text tells.
const FORMATS: [u32; 5] = [1, 2, 3, 4, NEWEST];
const NEWEST: u32 = 5;

/// A fixture, the newest one written anew first if asked to.
fn golden(format: u32) -> (Journal, String) {
    static BLESSED: Once = Once::new();
    let load =
        |format| unbundle(&std::fs::read(fixture(&format!("journal-v{format}.bin"))).unwrap());
    BLESSED.call_once(|| {
        if std::env::var("MIKOMI_BLESS").is_ok_and(|bless| bless == "1") {
            let newest = fixture(&format!("journal-v{NEWEST}.bin"));
            std::fs::write(newest, bundle(&lived())).unwrap();
            for format in FORMATS {
                let hash = fixture(&format!("journal-v{format}.hash"));
                std::fs::write(hash, state(&load(format))).unwrap();
            }
        }
    });
    let hash = std::fs::read_to_string(fixture(&format!("journal-v{format}.hash"))).unwrap();
    (load(format), hash)
}

#[test]
fn the_journal_of_the_first_format_leads_to_the_state_it_always_led_to() {
    let (journal, expected) = golden(1);
    assert!(journal.0.len() > 30);
    assert_eq!(state(&journal), expected);
    let lead = journal.replay(8).lead(lead_of(TANAKA)).unwrap();
    let rows = lead.content.rows.len();
    let counts = lead.counts();
    assert!(rows > 10 && counts.hits > 10 && lead.sequence > 0, "{rows} {counts:?}");
}

#[test]
fn the_journals_of_later_formats_lead_to_the_states_they_always_led_to() {
    for format in 2..=NEWEST {
        let (journal, expected) = golden(format);
        assert_eq!(state(&journal), expected, "{format}");
    }
}

/// What a snapshot has of an engine: the catalog, and the slots that somebody is in, each behind
/// its length in four bytes.
fn slots(engine: &Engine) -> Vec<u8> {
    let ids = engine.ids(|| {});
    let mut all = Journal(vec![save_catalog(&engine.catalog())]);
    for slot in 0..Slot::COUNT as u16 {
        let saved = engine.save_slot(Slot(slot), &ids, at("2027-01-31 00:00")).unwrap();
        all.0.extend((saved.visitors + saved.leads > 0).then(|| saved.bytes.to_vec()));
    }
    bundle(&all)
}

/// What was saved in a form, put back.
fn put_back(bytes: &[u8], form: u16) -> Engine {
    let engine = Engine::new(8);
    let all = unbundle(bytes);
    let (catalog, slots) = all.0.split_first().unwrap();
    engine.restore_catalog(load_catalog(catalog).unwrap());
    for slot in slots {
        let mut aligned: AlignedVec = AlignedVec::new();
        aligned.extend_from_slice(slot);
        let slot = SlotReader::open(&aligned, form).unwrap();
        engine.restore_slot(&slot, &|_, sealed| world::unseal(sealed)).unwrap();
    }
    engine
}

#[test]
fn what_a_snapshot_of_any_form_holds_is_read_for_ever() {
    let hash = |engine: &Engine| format!("{:032x}\n", engine.state_hash(at("2027-01-31 00:00")));
    if std::env::var("MIKOMI_BLESS").is_ok_and(|bless| bless == "1") {
        let engine: Engine = golden(NEWEST).0.replay(8);
        std::fs::write(fixture(&format!("slots-v{FORM}.bin")), slots(&engine)).unwrap();
        for form in 1..=FORM {
            let bytes = std::fs::read(fixture(&format!("slots-v{form}.bin"))).unwrap();
            let hash = hash(&put_back(&bytes, form));
            std::fs::write(fixture(&format!("slots-v{form}.hash")), hash).unwrap();
        }
    }
    for form in 1..=FORM {
        let engine =
            put_back(&std::fs::read(fixture(&format!("slots-v{form}.bin"))).unwrap(), form);
        let expected = std::fs::read_to_string(fixture(&format!("slots-v{form}.hash"))).unwrap();
        assert_eq!(hash(&engine), expected, "{form}");
        assert_eq!(hash(&put_back(&slots(&engine), FORM)), expected, "{form}, written anew");
        let (visitors, leads) = engine.sizes();
        assert!(visitors > 5 && leads > 10, "{visitors} {leads}");
    }
}

fn encoded(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    bytes
}

#[test]
fn the_records_of_earlier_formats_mean_the_same_when_they_are_written_in_this_one() {
    for format in 1..NEWEST {
        for bytes in &golden(format).0.0 {
            let record = Record::decode(bytes).unwrap();
            assert_eq!(Record::decode(&encoded(&record)).unwrap(), record);
        }
    }
}

#[test]
fn the_records_of_this_format_are_written_as_they_always_were() {
    for bytes in &golden(NEWEST).0.0 {
        assert_eq!(&encoded(&Record::decode(bytes).unwrap()), bytes);
    }
}

/// The name of an enum's variant.
fn variant(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    text.split(|letter: char| !letter.is_alphanumeric()).next().unwrap().to_owned()
}

/// What a part tells of, and where a lead stands.
fn words(part: &LeadPart) -> Vec<String> {
    let mut found = Vec::new();
    for Message { kind, told, .. } in &part.messages {
        found.push(format!("tells {kind:?}"));
        found.push(format!("stage {:?}", told.stage));
        found.extend(told.asks.map(|_| "asks".to_owned()));
        found.extend((!told.waited.is_zero()).then(|| "waited".to_owned()));
        found.extend((told.raised != Points(0)).then(|| "raised".to_owned()));
    }
    let opened = part.crossings.iter().filter_map(|crossing| crossing.opened_by);
    found.extend(opened.map(|gate| format!("opened by {gate:?}")));
    found
}

#[test]
fn every_kind_of_record_hit_step_question_answer_and_message_is_in_the_newest_journal() {
    let mut found: BTreeSet<String> = BTreeSet::new();
    for (_, record) in golden(NEWEST).0.records() {
        found.insert(variant(&record.body));
        found.extend(record.lead_part().map(words).unwrap_or_default());
        match &record.body {
            Body::Hit(hit) => {
                found.insert(variant(&hit.hit.kind));
                found.extend(hit.hit.excluded.map(|why| variant(&why)));
                found.extend(hit.review.iter().map(|review| variant(&review.question)));
                found.extend(hit.first.as_ref().map(|_| "First".to_owned()));
            }
            Body::Step(step) => {
                let told = matches!(step.step, Step::Release { told: true, .. });
                found.insert(format!("{}{}", variant(&step.step), if told { "d" } else { "" }));
                found.extend((step.undoes != Position::NONE).then(|| "undone".to_owned()));
                if let Step::Feedback(feedback) = &step.step {
                    found.insert(variant(&feedback.kind));
                }
                if let Step::TakeIn(parcel) = &step.step {
                    let content = &parcel.content;
                    found.extend((!content.feedback.is_empty()).then(|| "answers".to_owned()));
                    found.extend(parcel.asked.map(|_| "asked".to_owned()));
                }
                if let Step::MergeAway(joint) = &step.step {
                    found.insert(if joint.people { "people" } else { "names" }.to_owned());
                }
            }
            _ => {}
        }
    }
    let kinds = "Hit Due Published Named Outbox Step PageView Event Engagement Identify Reset \
                 First Job Link Unlink Confirm MergeAway TakeIn Folded Restore Split Withdraw \
                 Rescore Release Released Dismiss people names undone Feedback answers asked \
                 asks waited raised Erase";
    let excluded = Exclusion::ALL.map(|why| variant(&why));
    let questions = [Question::AnotherName, Question::SharedBrowser, Question::TooManyNames]
        .into_iter()
        .chain([Question::Forwarded])
        .map(|question| variant(&question));
    let wanted = kinds.split_whitespace().map(str::to_owned).chain(excluded).chain(questions);
    let wanted = wanted
        .chain(FeedbackKind::ALL.map(|it| variant(&it)))
        .chain(AlertKind::ALL.map(|it| format!("tells {it:?}")))
        .chain(Stage::ALL.map(|it| format!("stage {it:?}")))
        .chain(Gate::ALL.map(|it| format!("opened by {it:?}")));
    let missing: Vec<String> = wanted.filter(|name| !found.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
