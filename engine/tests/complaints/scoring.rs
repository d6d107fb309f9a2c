//! Scoring: history, double counting, decay, gaps of the model.

use std::sync::Mutex;
use std::time::Duration;

use engine::alert::AlertKind;
use engine::attribute::{AttributeTest, Test};
use engine::decay::HalfLife;
use engine::engine::Arrival;
use engine::grade::Grade;
use engine::hit::{Hit, HitKind};
use engine::id::CategoryId;
use engine::identity::Assurance;
use engine::ledger::Cut;
use engine::points::Points;
use engine::record::Record;
use engine::rule::{Condition, Guards, Once};
use engine::stage::Stage;
use engine::threshold::Direction;

use super::model::rules::{DAY, HOT, INTENT, Parts, example, line};
use super::model::world::{Journal, World, at, browser, claim, lead_of};
use super::{ANNA, BEN, card, click, form_with, granted, log_in, merge, monday, send};

/// The example rules with one of them changed.
fn with_rule(name: &str, change: impl FnOnce(&mut engine::rule::Rule)) -> Parts {
    let mut parts = example();
    change(parts.rules.iter_mut().find(|rule| rule.name == name).unwrap());
    parts
}

fn start(parts: &Parts) -> World {
    let mut world = World::new(parts.build(1));
    world.at("2026-12-07 10:00");
    world
}

/// mautic/mautic#5369
#[test]
fn the_log_explains_every_point_that_is_shown_at_any_moment() {
    let mut world = monday();
    world.on(1).form(ANNA, "/thanks/contact").view("/pricing").view("/pricing").view("/case");
    world.view("/thanks/document").view("/careers").event("unsubscribe");
    assert_eq!(world.score(ANNA), Points::whole(50), "60 + 12 + 4 + 4 of 20 - 10 - 20");
    for days in [0, 1, 30, 400] {
        let then = world.now().plus(days * DAY);
        let rows = world.lead(ANNA).content.rows;
        let shown = engine::lead::explain(&rows, world.scoring.terms(), then);
        let sum: i64 = shown.shares.iter().map(|(_, points)| points.0).sum();
        assert_eq!((shown.shares.len(), sum), (7, shown.score.0), "after {days} days");
    }
    // The journal alone, read by whoever likes, comes to the same rows.
    let logged: Vec<_> = world.journal.parts().into_iter().flat_map(|it| it.2.rows).collect();
    let logged: Vec<_> = logged.iter().map(|row| (row.rule, row.granted, row.cut)).collect();
    let rows = world.lead(ANNA).content.rows;
    let rows: Vec<_> = rows.iter().map(|row| (row.rule, row.granted, row.cut)).collect();
    assert_eq!(logged, rows);
}

/// Two requests of one person at once: the one that came first waits longer for its turn.
#[test]
fn a_hit_that_another_overtook_by_a_millisecond_takes_nobody_out_again() {
    let mut world = monday();
    world.on(1).identify(ANNA).form(ANNA, "/thanks/contact");
    let (now, before) = (world.now(), world.messages().len());
    assert_eq!((world.stage(ANNA), before), (Stage::Hot, 1));
    let hit = Hit { visitor: Some(browser(1)), path: "/column/dx".into(), ..Hit::default() };
    let received = now.minus(Duration::from_millis(1));
    world.ingest(Hit { received, when: received, ..hit });
    assert_eq!((world.stage(ANNA), world.messages().len()), (Stage::Hot, before));
    assert_eq!(world.crossings().iter().filter(|it| it.1.threshold == HOT).count(), 1);
}

/// mautic/mautic#5188
#[test]
fn a_form_with_a_company_field_counts_once() {
    let mut world = monday();
    form_with(&mut world, 1, ANNA, &[("company", "Sample Seiki"), ("industry", "it")]);
    world.on(1).view("/thanks/contact");
    assert_eq!((granted(&world, ANNA, "contact"), world.score(ANNA)), (vec![60], Points(60_000)));
}

/// mautic/mautic#5155
#[test]
fn a_click_is_worth_the_same_whether_or_not_the_mails_images_were_shown() {
    for opened in [false, true] {
        let mut world = monday();
        world.import(ANNA);
        if opened {
            let open = Hit { event: "mail_open".into(), ..click(ANNA) };
            send(&mut world, None, open);
        }
        send(&mut world, None, click(ANNA));
        assert_eq!(world.score(ANNA), Points::whole(5), "opened: {opened}");
    }
}

/// mautic/mautic#6387
#[test]
fn what_becomes_known_of_somebody_counts_nothing_again() {
    let mut world = monday();
    world.on(1).form(ANNA, "/thanks/document").view("/pricing");
    let rows = world.lead(ANNA).content.rows;
    let known = [("title", "部長"), ("industry", "it"), ("employees", "300")];
    for words in [&known[..1], &known[..2], &known[..3]] {
        card(&mut world, ANNA, words);
    }
    assert_eq!(world.scoring.terms().fit.grade(&world.lead(ANNA).attributes()), Grade::A);
    assert_eq!((world.lead(ANNA).content.rows, world.score(ANNA)), (rows, Points(32_000)));
}

/// mautic/mautic#5964
#[test]
fn a_joining_neither_loses_points_nor_counts_any_twice() {
    let mut world = monday();
    world.on(1).form(ANNA, "/pricing").view("/thanks/document");
    world.on(2).form(BEN, "/pricing").view("/thanks/event/dx");
    merge(&mut world, ANNA, BEN);
    assert_eq!(world.score(ANNA), Points::whole(47));
    let mut pricing = granted(&world, ANNA, "pricing");
    pricing.sort_unstable();
    assert_eq!(pricing, [0, 12], "both rows are there");
    world.on(2).view("/case");
    assert_eq!(world.score(ANNA), Points::whole(51));
}

/// mautic/mautic#4752
#[test]
fn no_point_is_lost_when_eight_threads_count_for_one_person_at_once() {
    let mut parts = with_rule("case", |rule| rule.guards = Guards::default());
    parts.total_max = None;
    parts.claims_max = None;
    parts.categories.iter_mut().for_each(|category| category.max = None);
    let scoring = parts.build(1);
    let (engine, now) = (engine::engine::Engine::new(8), at("2026-12-07 10:00"));
    let journal = Mutex::new(Journal::default());
    let send = |number: u64, hit: Hit| {
        let visitor = Some(browser(number));
        let hit = Hit { visitor, received: now, when: now, path: "/case".into(), ..hit };
        let mut push = |record: &Record| journal.lock().unwrap().push(record);
        engine.ingest(Arrival { hit, first: None }, &scoring, &mut push);
    };
    std::thread::scope(|threads| {
        for number in 0..8 {
            let send = &send;
            threads.spawn(move || {
                let claim = Some(claim(ANNA, Assurance::Claimed));
                send(number, Hit { kind: HitKind::Identify, claim, ..Hit::default() });
                (0..100).for_each(|_| send(number, Hit::default()));
            });
        }
    });
    let lead = engine.lead(lead_of(ANNA)).unwrap();
    let score = engine::lead::explain(&lead.content.rows, scoring.terms(), now).score;
    assert_eq!((lead.counts().pages, score), (800, Points::whole(3_200)));
}

/// mautic/mautic#929, mautic/mautic#4582, mautic/mautic#5213
#[test]
fn a_rule_counts_every_time_or_once_or_so_often_or_for_each_new_page_as_it_says() {
    let every_time = with_rule("case", |rule| rule.guards = Guards::default());
    let mut world = start(&every_time);
    log_in(&mut world, 1, ANNA);
    for path in ["/product/a", "/product/a", "/product/a", "/product/b", "/product/c"] {
        world.view("/case").view("/pricing").view("/column/dx").view("/thanks/trial").view(path);
    }
    assert_eq!(granted(&world, ANNA, "case"), [4, 4, 4, 4, 4], "every time");
    assert_eq!(granted(&world, ANNA, "pricing"), [12, 0, 0, 0, 0], "once a day");
    assert_eq!(granted(&world, ANNA, "article"), [1, 1, 1, 0, 0], "three a day");
    assert_eq!(granted(&world, ANNA, "trial"), [50, 0, 0, 0, 0], "once in half a year");
    assert_eq!(granted(&world, ANNA, "compared"), [8], "three different pages");
    world.at("2027-06-04 10:00").view("/thanks/trial").view("/thanks/careers");
    world.at("2027-06-05 10:00").view("/thanks/trial").view("/thanks/careers");
    assert_eq!(granted(&world, ANNA, "trial"), [50, 0, 0, 0, 0, 0, 50], "on the 180th day");
    assert_eq!(granted(&world, ANNA, "applied"), [100, 0], "never again");
}

/// mautic/mautic#10262
#[test]
fn a_return_counts_after_exactly_the_time_that_the_rule_says() {
    let hour = Some(Duration::from_hours(1));
    let parts = with_rule("returned", |rule| {
        rule.guards = Guards { away: hour, ..Guards::default() };
        rule.when = Condition { return_after: hour, ..Condition::default() };
    });
    let mut world = start(&parts);
    world.on(1).identify(ANNA).at("2026-12-07 10:59:59").view("/");
    assert!(granted(&world, ANNA, "returned").is_empty());
    world.at("2026-12-07 11:59:59").view("/").view("/");
    assert_eq!((granted(&world, ANNA, "returned"), world.score(ANNA)), (vec![5], Points(5_000)));
}

/// mautic/mautic#12336
#[test]
fn a_stay_counts_when_it_is_long_enough_and_not_at_the_next_visit() {
    let mut world = monday();
    world.on(1).identify(ANNA).view("/pricing").stay(59);
    assert!(granted(&world, ANNA, "pricing_stayed").is_empty());
    world.on(2).identify(ANNA).view("/pricing").stay(60);
    assert_eq!(granted(&world, ANNA, "pricing_stayed"), [4]);
    assert_eq!(world.lead(ANNA).content.rows.last().unwrap().when, world.now());
}

/// mautic/mautic#1465, mautic/mautic#3263
#[test]
fn a_rule_may_count_only_for_those_whose_field_says_so() {
    let leads = || AttributeTest::new("title".into(), Test::Has(vec!["部長".into()]));
    let mut world = start(&with_rule("case", |rule| rule.guards.only = vec![leads()]));
    card(&mut world, ANNA, &[("title", "営業部長")]);
    card(&mut world, BEN, &[("title", "学生")]);
    world.on(1).identify(ANNA).view("/case").on(2).identify(BEN).view("/case");
    assert_eq!((world.score(ANNA), world.score(BEN)), (Points::whole(4), Points(0)));
    assert_eq!(world.lead(BEN).content.rows[0].cut, Cut::NotFor);
}

/// mautic/mautic#581
#[test]
fn each_product_may_have_a_score_of_its_own_beside_the_whole() {
    let mut parts = example();
    let product = CategoryId(7);
    parts.categories.push(engine::terms::CategoryTerms { id: product, ..parts.categories[0] });
    parts.rules.iter_mut().find(|rule| rule.name == "case").unwrap().category = product;
    let mut world = start(&parts);
    world.on(1).identify(ANNA).view("/case").view("/pricing");
    let rows = world.lead(ANNA).content.rows;
    let shown = engine::lead::explain(&rows, world.scoring.terms(), world.now());
    let of = |id: CategoryId| shown.categories.iter().find(|it| it.0 == id).unwrap().1;
    assert_eq!((of(product), of(INTENT)), (Points::whole(4), Points::whole(12)));
    assert_eq!(shown.score, Points::whole(16));
}

/// mautic/mautic#4925
#[test]
fn the_stage_follows_from_the_points_up_and_down() {
    let mut world = monday();
    world.on(1).identify(ANNA).view("/thanks/document");
    assert_eq!((world.score(ANNA), world.stage(ANNA)), (Points::whole(20), Stage::Known));
    world.view("/pricing");
    assert_eq!((world.score(ANNA), world.stage(ANNA)), (Points::whole(32), Stage::Warm));
    world.view("/thanks/trial");
    assert_eq!((world.score(ANNA), world.stage(ANNA)), (Points::whole(80), Stage::Hot));
    // After two half-lives 20 is not below the line of warm; soon after it is.
    let end = world.now().plus(28 * DAY);
    world.to(end);
    assert_eq!((world.score(ANNA), world.stage(ANNA)), (Points::whole(20), Stage::Warm));
    world.to(end.plus(Duration::from_mins(2)));
    assert_eq!(world.stage(ANNA), Stage::Known);
}

/// mautic/mautic#13817, mautic/mautic#3235, mautic/mautic#3351, mautic/mautic#15063
#[test]
fn a_trigger_fires_the_first_time_and_every_time_it_counts() {
    let mut world = monday();
    world.on(1).identify(ANNA);
    let mut fired = Vec::new();
    for day in ["2026-12-07", "2027-02-08", "2027-04-12", "2027-06-14"] {
        world.at(&format!("{day} 10:00")).view("/thanks/contact").view("/thanks/contact");
        let told = world.messages();
        let contact = |it: &&super::model::world::Told| {
            it.message.kind == AlertKind::Action || it.message.also.contains(&AlertKind::Action)
        };
        fired.push(told.iter().filter(contact).count());
    }
    assert_eq!(fired, [1, 2, 3, 4]);
    assert_eq!(granted(&world, ANNA, "contact"), [60, 0, 57, 0, 57, 0, 57, 0]);
}

/// mautic/mautic#13817, of lines
#[test]
fn a_line_tells_at_every_crossing_under_the_next_number() {
    let mut world = monday();
    world.on(1).identify(ANNA);
    for day in ["2026-12-07", "2027-02-08", "2027-04-12"] {
        world.at(&format!("{day} 10:00")).view("/thanks/contact").view("/thanks/document");
    }
    let rises = world.crossings().into_iter().map(|(_, it)| it);
    let rises = rises.filter(|it| it.threshold == HOT && it.direction == Direction::Rise);
    let rises: Vec<_> = rises.map(|it| (it.number, it.told)).collect();
    assert_eq!(rises, [(1, true), (2, true), (3, true)]);
}

/// sneg55/pingcrm#18
#[test]
fn five_years_of_acquaintance_fade_and_fall_off_no_cliff() {
    let mut parts = with_rule("trial", |rule| rule.guards.once = Some(Once::Ever));
    parts.categories[0].half_life = HalfLife::new(730 * DAY).unwrap();
    let mut world = start(&parts);
    world.on(1).identify(ANNA).view("/thanks/trial");
    let earned = world.now();
    let year = earned.plus(365 * DAY);
    let around = [year.minus(Duration::from_millis(1)), year, year.plus(Duration::from_millis(1))];
    assert_eq!(around.map(|then| world.score_at(ANNA, then)), [Points(35_355); 3]);
    assert_eq!(world.score_at(ANNA, earned.plus(2 * 730 * DAY)), Points(12_500));
    assert_eq!(world.score_at(ANNA, earned.plus(1_826 * DAY)), Points(8_830));
}

/// HubSpot Community td-p/325130, techunit.io
#[test]
fn a_score_moves_by_what_happens_and_by_fading_and_by_nothing_else() {
    let mut world = monday();
    form_with(&mut world, 1, ANNA, &[("title", "部長"), ("industry", "it")]);
    world.on(1).view("/pricing").view("/thanks/document").view("/careers");
    assert_eq!(world.score(ANNA), Points::whole(22));
    form_with(&mut world, 1, ANNA, &[("title", "学生"), ("industry", "law")]);
    assert_eq!(world.score(ANNA), Points::whole(22), "another grade, and no other score");
    // Another version of the rules, with other points, without one of them.
    let mut parts = with_rule("pricing", |rule| rule.points = Points::whole(-50));
    parts.rules.retain(|rule| rule.name != "document");
    parts.thresholds = vec![line(HOT, "hot", (90, 80))];
    world.scoring = parts.build_after(&world.scoring.versions, 2, world.now());
    world.view("/");
    assert_eq!(world.score(ANNA), Points::whole(22));
    world.to(world.now().plus(14 * DAY));
    assert_eq!(world.score(ANNA), Points::whole(11), "half of it after a half-life");
}
