//! The loop with sales: what it answers, and what follows, with the figures of the stories.
#![allow(clippy::unwrap_used)]

mod model;

use engine::alert::AlertKind;
use engine::hit::Hit;
use engine::id::Position;
use engine::points::Points;
use engine::record::Told;
use engine::sales::{Feedback, SalesRules, Unheard};
use engine::stage::{FeedbackKind, Stage};
use engine::threshold::{Direction, Gate};
use engine::time::Timestamp;

use model::rules::{HOT, INTEREST, Parts, example, example_sales, example_scoring};
use model::story::{TANAKA, story_two};
use model::world::{World, at, browser, feedback, lead_of};

#[track_caller]
fn about(points: Points, expected: f64) {
    let exact = points.0 as f64 / 1_000.0;
    assert!((exact - expected).abs() <= 0.01, "{exact} is not about {expected}");
}

fn world() -> World {
    World::new(example_scoring().with_sales(example_sales()))
}

/// Tanaka is hot, told at 8:56, and stays on pricing.
fn hot() -> World {
    story_two(world())
}

/// She is hot, Sato takes her, there is a deal, and it is lost for its price.
fn lost() -> World {
    let mut world = hot();
    world.at("2026-12-07 09:20").answer(TANAKA, FeedbackKind::Accepted);
    world.at("2026-12-08 10:00").answer(TANAKA, FeedbackKind::Opportunity);
    world.at("2026-12-14 10:00").view("/pricing/");
    world.at("2026-12-21 10:00").answer(TANAKA, FeedbackKind::Lost);
    world
}

fn told(world: &World) -> Vec<(AlertKind, Told)> {
    world.messages().into_iter().map(|it| (it.message.kind, it.message.told)).collect()
}

fn kinds(world: &World) -> Vec<AlertKind> {
    told(world).into_iter().map(|(kind, _)| kind).collect()
}

/// What is in the journal leads to what is in memory.
#[track_caller]
fn replays(world: &World) {
    let now = world.now();
    assert_eq!(world.journal.replay(8).state_hash(now), world.engine.state_hash(now));
}

#[test]
fn a_lead_nobody_takes_is_reminded_of_in_working_hours_and_reported() {
    let mut world = hot();
    let first = told(&world)[0].1.clone();
    let (by, reported) = (at("2026-12-07 13:00"), at("2026-12-07 17:00"));
    assert_eq!(first.asks, Some((by, reported)));
    world.at("2026-12-07 12:59:59");
    assert_eq!(kinds(&world), [AlertKind::Hot]);
    world.at("2026-12-07 18:00");
    let (kind, reminder) = told(&world).pop().unwrap();
    assert_eq!((kind, reminder.at, reminder.sequence), (AlertKind::Reminder, by, 2));
    assert_eq!(reminder.waited, std::time::Duration::from_hours(4));
    let asked = world.lead(TANAKA).asked.unwrap();
    assert_eq!((asked.report_at, asked.reminded), (reported, true));
    world.at("2026-12-20 00:00");
    assert_eq!(kinds(&world), [AlertKind::Hot, AlertKind::Reminder], "once");
    replays(&world);
}

#[test]
fn an_alert_late_on_a_friday_reminds_on_monday() {
    let mut world = world();
    world.at("2026-12-25 16:30").form(TANAKA, "/thanks/contact/");
    world.at("2026-12-31 00:00");
    let reminder = told(&world).into_iter().find(|(kind, _)| *kind == AlertKind::Reminder);
    assert_eq!(reminder.unwrap().1.at, at("2026-12-28 11:30"));
}

#[test]
fn whoever_takes_a_lead_is_not_reminded() {
    let mut world = hot();
    world.at("2026-12-07 09:20");
    assert_eq!(world.answer(TANAKA, FeedbackKind::Accepted), None);
    assert_eq!((world.stage(TANAKA), world.lead(TANAKA).asked), (Stage::Accepted, None));
    assert_eq!(world.lead(TANAKA).owner(), Some("sato@vendor.example"));
    world.at("2026-12-10 00:00");
    assert_eq!(kinds(&world), [AlertKind::Hot]);
    replays(&world);
}

#[test]
fn a_deal_at_work_brings_one_signal_a_visit_and_nothing_hot() {
    let mut world = hot();
    world.at("2026-12-07 09:20").answer(TANAKA, FeedbackKind::Accepted);
    world.at("2026-12-08 10:00").answer(TANAKA, FeedbackKind::Opportunity);
    assert_eq!(world.stage(TANAKA), Stage::Working);
    world.at("2026-12-14 10:00").view("/pricing/");
    about(world.score(TANAKA), 74.730);
    world.at("2026-12-14 10:05").view("/thanks/contact/");
    assert_eq!(kinds(&world), [AlertKind::Hot, AlertKind::Signal], "one a visit");
    world.at("2026-12-14 11:00").view("/case/line");
    assert_eq!(kinds(&world).len(), 3);
    replays(&world);
}

#[test]
fn a_planned_meeting_mutes_until_then() {
    let mut world = hot();
    world.at("2026-12-07 09:20").answer(TANAKA, FeedbackKind::Accepted);
    let until = Some(at("2026-12-15 10:00"));
    let id = 7;
    let planned = feedback(TANAKA, FeedbackKind::MeetingPlanned);
    world.at("2026-12-08 10:00");
    world.answer_with(TANAKA, Feedback { id, until, at: world.now(), ..planned });
    world.at("2026-12-14 10:00").view("/pricing/");
    assert_eq!(kinds(&world), [AlertKind::Hot]);
    world.at("2026-12-15 11:00").view("/case/line");
    assert_eq!(kinds(&world), [AlertKind::Hot, AlertKind::Signal]);
    world.at("2026-12-15 12:00").answer(TANAKA, FeedbackKind::MeetingDone);
    let row = *world.lead(TANAKA).content.rows.last().unwrap();
    assert_eq!(row.granted, Points::whole(20).min(row.base), "a meeting is worth 20");
    replays(&world);
}

#[test]
fn a_lost_deal_halves_the_score_by_two_rows_and_rests() {
    let mut world = lost();
    about(world.score(TANAKA), 28.539);
    let rows = world.lead(TANAKA).content.rows;
    let took: Vec<i64> = rows[rows.len() - 2..].iter().map(|row| row.granted.0).collect();
    about(Points(took[0]), -15.988);
    about(Points(took[1]), -12.550);
    assert_eq!(world.stage(TANAKA), Stage::Recycled);
    world.at("2027-01-05 10:00").form(TANAKA, "/thanks/contact/");
    world.at("2027-01-05 10:05").view("/thanks/document/guide");
    assert!(world.score(TANAKA) > Points::whole(60));
    assert_eq!(world.stage(TANAKA), Stage::Recycled);
    let hot = told(&world).into_iter().filter(|(kind, _)| *kind == AlertKind::Hot);
    assert_eq!(hot.count(), 1, "but what she asks for is told at once");
    assert_eq!(kinds(&world).last(), Some(&AlertKind::Action));
    replays(&world);
}

#[test]
fn who_earns_enough_while_resting_is_hot_when_the_rest_is_over() {
    let mut world = lost();
    world.at("2027-01-19 10:00").view("/thanks/document/guide").view("/thanks/event/dx");
    world.view("/pricing/").stay(80).view("/case/line").stay(70);
    assert!(world.score(TANAKA) > Points::whole(62), "{:?}", world.score(TANAKA));
    world.at("2027-01-20 09:59:59");
    assert_eq!(world.stage(TANAKA), Stage::Recycled);
    world.at("2027-01-20 10:00");
    let crossing = world.messages().pop().unwrap().crossing.unwrap();
    assert_eq!((crossing.at, crossing.number), (at("2027-01-20 10:00"), 2));
    assert_eq!(crossing.opened_by, Some(Gate::Sales));
    replays(&world);
}

#[test]
fn a_lost_deal_halves_also_what_becomes_known_of_a_category_that_had_nothing() {
    let mut world = world();
    world.at("2026-12-07 10:00").form(TANAKA, "/thanks/document/guide");
    world.at("2026-12-08 10:00").answer(TANAKA, FeedbackKind::Lost);
    world.at("2026-12-08 11:00");
    let (visitor, received) = (Some(browser(1)), world.now());
    let path = "/case/line".to_owned();
    world.ingest(Hit { visitor, received, when: at("2026-12-08 10:00"), path, ..Hit::default() });
    let worth = |category| {
        let rows = world.lead(TANAKA).content.rows;
        let own = rows.iter().filter(|row| row.category == category);
        own.map(|row| row.granted.0).collect::<Vec<_>>()
    };
    assert_eq!(worth(INTEREST), [0, 4_000], "at that very moment it comes after the deal");
    let path = "/thanks/event/dx".to_owned();
    world.ingest(Hit { visitor, received, when: at("2026-12-08 09:59"), path, ..Hit::default() });
    let rows = world.lead(TANAKA).content.rows;
    let half = rows.iter().find(|row| row.granted.0 < 0 && row.category == INTEREST);
    about(half.unwrap().granted, -7.5);
    replays(&world);
}

#[test]
fn an_answer_may_be_worth_points_besides_what_a_lost_deal_takes() {
    let points = vec![(FeedbackKind::Lost, Points::whole(-7))];
    let sales = SalesRules { points, ..example_sales() };
    let mut world = World::new(example_scoring().with_sales(sales));
    world.at("2026-12-07 10:00").form(TANAKA, "/thanks/document/guide");
    world.answer(TANAKA, FeedbackKind::Lost);
    let rows = world.lead(TANAKA).content.rows;
    let granted: Vec<i64> = rows.iter().map(|row| row.granted.0).collect();
    assert_eq!(granted, [20_000, -7_000, -6_500, 0]);
}

#[test]
fn what_an_answer_confirms_it_confirms_only_of_whom_it_is_about() {
    let suzuki = "suzuki@other.example";
    let mut world = world();
    world.at("2026-12-07 09:00").import(TANAKA);
    world.at("2026-12-07 10:00").view("/pricing/").form(suzuki, "/thanks/contact/");
    world.view("/thanks/document/guide").view("/thanks/event/dx");
    assert_eq!(world.score(suzuki), Points::whole(80), "claims count up to there");
    let merged = world.step(|engine, why, means| {
        engine.merge(lead_of(TANAKA), lead_of(suzuki), why, means).unwrap().0
    });
    world.at("2026-12-07 11:00").answer(TANAKA, FeedbackKind::Contacted);
    assert!(world.score(TANAKA) > Points::whole(90), "they are one");
    let (_, step) = world.steps().into_iter().find(|(position, _)| *position == merged).unwrap();
    let undone = world.step(|engine, why, means| engine.undo((&step, merged), why, means));
    assert!(undone.is_ok());
    assert!(world.score(suzuki) < Points::whole(80), "two again: nobody has spoken to them");
    assert_eq!(world.stage(TANAKA), Stage::Accepted);
    assert_eq!(world.stage(suzuki), Stage::Hot);
    replays(&world);
}

#[test]
fn sales_does_not_hear_of_what_its_own_answer_makes_of_the_past() {
    let parts = Parts { claims_max: Some(Points::whole(30)), ..example().with_sales() };
    let mut world = World::new(parts.build(1));
    world.at("2026-12-07 09:00").identify(TANAKA);
    world.view("/pricing/").view("/thanks/document/guide").view("/thanks/contact/");
    let before = kinds(&world);
    world.at("2026-12-07 10:00").answer(TANAKA, FeedbackKind::Contacted);
    let hot = world.lead(TANAKA).bands.into_iter().find(|band| band.threshold() == HOT).unwrap();
    assert!(hot.side.inside && !hot.told, "confirmed, they had been hot already");
    assert_eq!(kinds(&world), before);
    replays(&world);
}

#[test]
fn whoever_is_told_of_again_after_a_reminder_is_asked_for_again_also_by_one_record() {
    let mut world = world();
    world.at("2026-12-07 10:00").identify(TANAKA).view("/thanks/trial/");
    // Nobody let time pass: the reminder and that she is hot then are one record's.
    let now = at("2026-12-08 15:00");
    world.skip_to(now).view("/thanks/contact/");
    assert_eq!(kinds(&world), [AlertKind::Action, AlertKind::Reminder, AlertKind::Hot]);
    let asked = world.lead(TANAKA).asked.unwrap();
    assert_eq!((asked.since, asked.reminded), (now, false));
    replays(&world);
}

#[test]
fn a_recycled_lead_is_hot_again_by_new_evidence() {
    let mut world = lost();
    world.at("2027-01-25 10:00");
    about(world.score(TANAKA), 8.418);
    world.view("/pricing/");
    about(world.score(TANAKA), 25.418);
    world.stay(80);
    about(world.score(TANAKA), 31.417);
    assert_eq!(world.stage(TANAKA), Stage::Recycled, "shown until it is hot again");
    world.view("/thanks/document/guide");
    about(world.score(TANAKA), 51.417);
    world.at("2027-01-25 10:05").view("/thanks/event/dx");
    about(world.score(TANAKA), 66.412);
    let last = world.messages().pop().unwrap();
    let crossing = last.crossing.unwrap();
    assert_eq!((last.message.kind, crossing.number), (AlertKind::Hot, 2));
    assert_eq!(crossing.opened_by, Some(Gate::Score));
    assert_eq!(
        (last.message.told.previous_stage, world.stage(TANAKA)),
        (Stage::Recycled, Stage::Hot)
    );
    replays(&world);
}

#[test]
fn a_rejection_raises_the_bar_and_asks_for_something_new() {
    let mut world = hot();
    world.at("2026-12-08 10:00").answer(TANAKA, FeedbackKind::Rejected);
    about(world.score(TANAKA), 72.864);
    let band = world.lead(TANAKA).bands.into_iter().find(|band| band.threshold() == HOT).unwrap();
    assert!(!band.side.inside);
    assert_eq!(world.stage(TANAKA), Stage::Rejected);
    world.at("2026-12-14 10:00").view("/pricing/");
    about(world.score(TANAKA), 74.730);
    assert_eq!(kinds(&world), [AlertKind::Hot, AlertKind::Reminder], "the bar is 80");
    world.at("2026-12-14 10:05").view("/thanks/document/guide");
    about(world.score(TANAKA), 94.719);
    let (kind, last) = told(&world).pop().unwrap();
    assert_eq!((kind, last.raised), (AlertKind::Hot, Points::whole(20)));
    replays(&world);
}

#[test]
fn the_bar_comes_down_by_time_alone() {
    let mut world = hot();
    world.at("2026-12-08 10:00").answer(TANAKA, FeedbackKind::Rejected);
    let over = at("2026-12-08 10:00").plus(90 * model::rules::DAY);
    world.to(over.minus(model::rules::DAY)).form(TANAKA, "/thanks/contact/");
    let score = world.score(TANAKA);
    assert!(score >= Points::whole(62) && score < Points::whole(80), "{score:?}");
    assert_eq!(kinds(&world), [AlertKind::Hot, AlertKind::Reminder, AlertKind::Action]);
    world.to(over.plus(model::rules::MINUTE));
    let rise = world.crossings().pop().unwrap().1;
    assert_eq!((rise.direction, rise.at), (Direction::Rise, over));
    replays(&world);
}

#[test]
fn a_repeated_an_older_and_an_impossible_answer_change_nothing() {
    let mut world = hot();
    world.at("2026-12-07 09:20");
    let first = Feedback { id: 1, at: world.now(), ..feedback(TANAKA, FeedbackKind::Accepted) };
    assert_eq!(world.answer_with(TANAKA, first.clone()), None);
    let records = world.journal.0.len();
    world.at("2026-12-07 09:30");
    for _ in 0..5 {
        assert_eq!(world.answer_with(TANAKA, first.clone()), Some(Unheard::Repeated));
    }
    let old = at("2026-12-07 09:00");
    let older = Feedback { id: 2, at: old, ..feedback(TANAKA, FeedbackKind::Rejected) };
    assert_eq!(world.answer_with(TANAKA, older), Some(Unheard::Older));
    assert_eq!(world.answer(TANAKA, FeedbackKind::Won), None);
    let records = records + 1;
    let not_here = Some(Unheard::NotHere(Stage::Won));
    assert_eq!(world.answer(TANAKA, FeedbackKind::Rejected), not_here);
    assert_eq!(world.journal.0.len(), records);
    replays(&world);
}

#[test]
fn whom_sales_took_is_confirmed_and_all_their_points_count() {
    let mut world = world();
    world.at("2026-12-07 10:00").view("/pricing/").form(TANAKA, "/thanks/contact/");
    world.view("/thanks/document/guide").view("/thanks/event/dx");
    let lead = world.lead(TANAKA);
    assert!(!lead.profile().assurance.is_proved());
    assert_eq!(world.score(TANAKA), Points::whole(80), "claims count up to there");
    world.at("2026-12-07 11:00").answer(TANAKA, FeedbackKind::Contacted);
    let profile = world.lead(TANAKA).profile();
    assert_eq!((profile.assurance.is_proved(), profile.confirmed_by.as_str()), (true, "contacted"));
    assert!(world.score(TANAKA) > Points::whole(90), "{:?}", world.score(TANAKA));
    replays(&world);
}

#[test]
fn later_stops_the_clock_and_what_was_left_goes_on() {
    let mut world = hot();
    world.at("2026-12-07 10:00").answer(TANAKA, FeedbackKind::Snooze);
    assert_eq!(world.stage(TANAKA), Stage::Hot);
    let asked = world.lead(TANAKA).asked.unwrap();
    let (by, reported) = (at("2026-12-08 12:00"), at("2026-12-08 16:00"));
    assert_eq!((asked.remind_at, asked.report_at), (by, reported), "one hour of four was over");
    world.at("2026-12-09 00:00");
    assert_eq!(told(&world).pop().unwrap().1.at, by);
    replays(&world);
}

#[test]
fn a_customer_brings_a_signal_and_is_never_called_hot() {
    let mut world = world();
    world.at("2026-12-07 09:00").import_with(TANAKA, &[("customer", "yes")]);
    world.at("2026-12-07 10:00").form(TANAKA, "/thanks/contact/");
    assert_eq!(kinds(&world), [AlertKind::Signal]);
    world.at("2027-03-01 00:00");
    assert_eq!(kinds(&world), [AlertKind::Signal], "nor that they cooled");
    replays(&world);
}

#[test]
fn what_a_lost_deal_took_follows_what_becomes_known_of_the_time_before() {
    let mut world = lost();
    let before = world.score(TANAKA);
    let rows = world.lead(TANAKA).content.rows;
    let document = rows.iter().find(|row| row.base == Points::whole(20)).unwrap();
    let (position, when) = (document.position, document.when);
    let hits = vec![engine::record::Withdrawn {
        position,
        when,
        source: document.source,
        human: true,
        out: true,
        ..engine::record::Withdrawn::default()
    }];
    world.step(|engine, why, means| {
        model::world::withdraw(engine, browser(1), &hits, (Position::NONE, why), means);
    });
    let after = world.score(TANAKA);
    let gone = document_at(&world, when);
    about(Points(before.0 - after.0), gone / 2.0);
    replays(&world);
}

/// What a document's twenty points, earned at a moment, are worth now.
fn document_at(world: &World, when: Timestamp) -> f64 {
    let days = world.now().since(when).as_secs_f64() / 86_400.0;
    20.0 * 0.5_f64.powf(days / 14.0)
}
