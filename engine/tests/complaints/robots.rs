//! Robots and scanners that inflate points.

use engine::alert::AlertKind;
use engine::engine::Ingested;
use engine::facts::Source;
use engine::hit::{Exclusion, Hit, HitKind};
use engine::id::{LeadId, Position};
use engine::identity::Assurance;
use engine::points::Points;
use engine::record::{HitRecord, Withdrawn};
use engine::rule::Guards;
use engine::stage::Stage;
use engine::threshold::Gate;

use super::model::rules::example;
use super::model::world::{self, World, browser, claim, lead_of};
use super::{ANNA, click, monday, send};

/// A hit whose sender the collector knows for a machine: it has taken the name away.
fn machine(hit: Hit, excluded: Exclusion) -> Hit {
    Hit { claim: None, excluded: Some(excluded), ..hit }
}

/// Takes hits back from whoever has their points: from a browser, and from Anna.
fn withdraw(world: &mut World, hits: &[(Position, HitRecord)]) {
    let of_hit = |(position, record): &(Position, HitRecord)| {
        let visitor = record.hit.visitor;
        Withdrawn {
            position: *position,
            when: record.hit.when,
            source: visitor.map_or(Source::Server, Source::Visitor),
            origin: if visitor.is_some() { LeadId(0) } else { lead_of(ANNA) },
            human: record.hit.is_human(),
            out: true,
        }
    };
    let (of_server, of_browser): (Vec<_>, Vec<_>) =
        hits.iter().map(of_hit).partition(|hit: &Withdrawn| hit.source == Source::Server);
    world.step(|engine, why, means| {
        world::withdraw(engine, browser(1), &of_browser, (Position::NONE, why), means);
        if !of_server.is_empty() {
            engine.withdraw_lead(lead_of(ANNA), &of_server, Position::NONE, why, means).unwrap();
        }
    });
}

/// mautic/mautic#16263
#[test]
fn a_scanner_that_opens_five_links_earns_nothing_and_the_readers_own_click_counts() {
    let mut world = monday();
    world.import(ANNA);
    for _ in 0..5 {
        send(&mut world, None, machine(click(ANNA), Exclusion::Scanner));
    }
    assert_eq!((world.score(ANNA), world.lead(ANNA).content.rows.len()), (Points(0), 0));
    assert_eq!(world.lead(ANNA).last_human(), None);
    send(&mut world, None, click(ANNA));
    assert_eq!(world.score(ANNA), Points::whole(5));
}

/// mautic/mautic#9798
#[test]
fn a_scanner_that_follows_the_link_to_unsubscribe_takes_nothing_away() {
    let mut world = monday();
    world.on(1).form(ANNA, "/thanks/event/dx");
    let unsubscribes = Hit { event: "unsubscribe".into(), ..click(ANNA) };
    send(&mut world, None, machine(unsubscribes.clone(), Exclusion::Scanner));
    send(&mut world, Some(1), machine(unsubscribes.clone(), Exclusion::Scanner));
    assert_eq!((world.score(ANNA), world.lead(ANNA).profile().consent), (Points(15_000), true));
    send(&mut world, None, unsubscribes);
    assert_eq!(world.score(ANNA), Points::whole(-5), "she herself does");
}

/// mautic/mautic#6591
#[test]
fn a_click_that_a_machine_made_for_her_is_taken_back_when_that_becomes_known() {
    let mut world = monday();
    world.import(ANNA);
    send(&mut world, None, click(ANNA));
    assert_eq!(world.score(ANNA), Points::whole(5));
    let clicked = world.hits().split_off(1);
    withdraw(&mut world, &clicked);
    assert_eq!(world.score(ANNA), Points(0));
    send(&mut world, None, click(ANNA));
    assert_eq!(world.score(ANNA), Points::whole(5), "her own click that day counts instead");
}

/// mautic/mautic#14074, mautic/mautic#3541, mautic/mautic#7565, mautic/mautic#1060
#[test]
fn crawlers_and_missing_pages_make_nobody() {
    let mut world = monday();
    for (number, path) in [(1, "/wp-login.php"), (2, "/pricing"), (2, "/thanks/contact")] {
        let hit = Hit { path: path.into(), ..Hit::default() };
        send(&mut world, Some(number), machine(hit, Exclusion::Robot));
    }
    // One that passes for a person is a browser that is nobody's.
    for path in ["/.env", "/admin", "/pricing"] {
        world.on(3).view(path);
    }
    assert_eq!(world.engine.lead_ids(), []);
    assert_eq!([1, 2, 3].map(|it| world.own_score(it)), [0, 0, 12].map(Points::whole));
    assert_eq!((world.crossings(), world.messages()), (Vec::new(), Vec::new()));
}

/// Marketo Nation idi-p/263330
#[test]
fn what_a_machine_did_is_taken_back_as_if_it_had_never_been() {
    let [mut with, mut without] = [monday(), monday()];
    for world in [&mut with, &mut without] {
        world.on(1).identify(ANNA).view("/column/dx");
    }
    with.view("/pricing").view("/thanks/contact").view("/careers").stay(70);
    assert_eq!(with.stage(ANNA), Stage::Hot);
    let machines = with.hits().split_off(2);
    for world in [&mut with, &mut without] {
        world.at("2026-12-07 10:20").view("/pricing").view("/thanks/document");
    }
    assert_eq!(with.score(ANNA), Points(79_957), "no pricing again, and 17 of 20: claims");
    withdraw(&mut with, &machines);
    for world in [&mut with, &mut without] {
        world.view("/case");
    }
    assert_eq!((with.score(ANNA), with.score(ANNA)), (Points(37_000), without.score(ANNA)));
    assert_eq!((with.own_score(1), with.stage(ANNA)), (Points(37_000), Stage::Warm));
    let granted = |world: &World| -> Vec<Points> {
        let rows = world.lead(ANNA).content.rows.into_iter().filter(|row| !row.withdrawn);
        rows.map(|row| row.granted).collect()
    };
    assert_eq!(granted(&with), granted(&without));
    let told: Vec<AlertKind> = with.messages().iter().map(|it| it.message.kind).collect();
    assert_eq!(told.last(), Some(&AlertKind::Retracted), "{told:?}");
}

/// Openprise on scanners that make leads qualified "prematurely and repeatedly"
#[test]
fn a_machine_alone_makes_nobody_hot_and_the_first_page_a_person_opens_does() {
    let mut parts = example();
    let rule = parts.rules.iter_mut().find(|rule| rule.name == "mail_click").unwrap();
    (rule.points, rule.guards) = (Points::whole(30), Guards::default());
    parts.categories[1].max = None;
    let mut world = World::new(parts.build(1));
    world.at("2026-12-07 10:00").import(ANNA);
    for _ in 0..3 {
        send(&mut world, None, click(ANNA));
    }
    assert_eq!((world.score(ANNA), world.stage(ANNA)), (Points::whole(90), Stage::Warm));
    assert_eq!(world.messages(), []);
    let said = claim(ANNA, Assurance::Verified);
    let hit =
        Hit { kind: HitKind::PageView, path: "/".into(), claim: Some(said), ..Hit::default() };
    send(&mut world, Some(1), hit);
    assert_eq!((world.score(ANNA), world.stage(ANNA)), (Points::whole(90), Stage::Hot));
    let told = world.messages();
    assert_eq!((told.len(), told[0].crossing.unwrap().opened_by), (1, Some(Gate::Recent)));
}

/// PostHog/posthog#14273
#[test]
fn a_robots_hit_is_kept_with_the_reason_why_it_is_worth_nothing() {
    let mut world = monday();
    world.on(1).identify(ANNA).view("/column/dx");
    let hit = Hit { path: "/pricing".into(), ..Hit::default() };
    send(&mut world, Some(1), machine(hit.clone(), Exclusion::Robot));
    send(&mut world, Some(1), machine(hit, Exclusion::Network));
    let reasons: Vec<_> = world.hits().into_iter().map(|(_, it)| it.hit.excluded).collect();
    assert_eq!(reasons, [None, None, Some(Exclusion::Robot), Some(Exclusion::Network)]);
    assert_eq!((world.score(ANNA), world.own_score(1)), (Points(1_000), Points(1_000)));
}

/// matomo-org/matomo#17984, matomo-org/matomo#19484, matomo-org/matomo#24406
#[test]
fn a_robot_with_a_real_browser_that_passed_every_filter_is_taken_out_afterwards() {
    let mut world = monday();
    world.on(1).view("/pricing").view("/product/a").view("/product/b").view("/product/c").stay(90);
    world.identify(ANNA).view("/thanks/contact");
    assert_eq!(world.stage(ANNA), Stage::Hot);
    let all = world.hits();
    withdraw(&mut world, &all);
    assert_eq!((world.score(ANNA), world.own_score(1)), (Points(0), Points(0)));
    assert_eq!((world.stage(ANNA), world.lead(ANNA).last_human()), (Stage::Known, None));
}

/// segmentio/analytics.js#459
#[test]
fn a_hit_that_is_sent_again_and_again_under_one_id_is_recorded_once() {
    let mut world = monday();
    world.on(1).identify(ANNA);
    let (now, visitor) = (world.now(), Some(browser(1)));
    let path = "/thanks/contact".to_owned();
    let hit = Hit { visitor, received: now, when: now, id: 7, path, ..Hit::default() };
    let Ingested::Recorded(first) = world.ingest(hit.clone()) else {
        panic!("the first one is recorded");
    };
    for _ in 0..5 {
        assert_eq!(world.ingest(hit.clone()), Ingested::Duplicate(first));
    }
    assert_eq!((world.hits().len(), world.lead(ANNA).counts().pages), (2, 1));
    assert_eq!(world.score(ANNA), Points::whole(60));
}
