//! The acceptance stories, as far as points, lines and people go, told to the engine alone.
//! Figures come from a plain floating-point model; a score may differ by 0.01.
#![allow(clippy::unwrap_used)]

mod model;

use std::time::Duration;

use engine::decay::Reach;
use engine::grade::Grade;
use engine::id::RuleId;
use engine::identity::Assurance;
use engine::ledger::total;
use engine::points::Points;
use engine::record::Told;
use engine::stage::Stage;
use engine::threshold::{Direction, Gate};
use engine::time::Timestamp;

use model::rules::{HOT, WARM, example, example_scoring};
use model::story::{self, TANAKA};
use model::world::{World, at, browser, lead_of};

const OTHER: &str = "suzuki@other.example";

#[track_caller]
fn about(points: Points, expected: f64) {
    let exact = points.0 as f64 / 1_000.0;
    assert!((exact - expected).abs() <= 0.01, "{exact} is not about {expected}");
}

fn world() -> World {
    World::new(example_scoring())
}

fn reads() -> World {
    story::reads(world())
}

fn story_one() -> World {
    story::story_one(world())
}

fn story_two() -> World {
    story::story_two(world())
}

fn points_of(told: &Told, rule: &str) -> Points {
    let id = example().rule(rule).id;
    told.reasons.iter().find(|reason| reason.rule == id).unwrap().points
}

fn is_in(world: &World, line: engine::id::ThresholdId) -> bool {
    world.lead(TANAKA).bands.iter().any(|band| band.threshold() == line && band.side.inside)
}

/// The first moment at which somebody's score shows less than a line, by the engine's own words.
fn first_below(world: &World, mail: &str, line: i64) -> Timestamp {
    let lead = world.engine.lead(lead_of(mail)).unwrap();
    let until = world.now().plus(Duration::from_hours(24 * 365));
    let total = total(&lead.content.rows, world.scoring.terms());
    total.first(Reach::Below, Points::whole(line), world.now(), until).unwrap()
}

#[track_caller]
fn within_five_minutes(moment: Timestamp, expected: &str) {
    let expected = at(expected);
    let off = moment.since(expected).max(expected.since(moment));
    assert!(off <= Duration::from_mins(5), "{off:?} off");
}

#[test]
fn a_first_reading_is_worth_nine_points_of_nobody() {
    let mut world = world();
    world.at("2026-12-01 09:00").view("/column/dx").stay(70);
    world.at("2026-12-01 09:04").view("/case/line").stay(65);
    assert_eq!(world.own_score(1), Points(9_000));
    assert_eq!(world.engine.lead_ids(), []);
}

#[test]
fn a_form_makes_a_claimed_lead_with_nine_hits_attached_warm_and_untold() {
    let world = reads();
    about(world.score(TANAKA), 59.382);
    assert_eq!(world.score(TANAKA).shown(), 59);
    let lead = world.lead(TANAKA);
    assert_eq!((lead.counts().attached, lead.profile().assurance), (9, Assurance::Claimed));
    assert_eq!(lead.content.rows.iter().filter(|row| row.granted.0 != 0).count(), 10);
    assert_eq!(lead.first_seen(), at("2026-12-01 09:00"));
    assert_eq!(world.stage(TANAKA), Stage::Warm);
    assert_eq!(world.messages(), []);
}

#[test]
fn a_click_in_our_mail_verifies_the_lead() {
    let mut world = reads();
    world.at("2026-12-07 08:55").click_mail(TANAKA);
    about(world.score(TANAKA), 57.925);
    let lead = world.lead(TANAKA);
    let profile = lead.profile();
    let confirmed = (profile.assurance, profile.confirmed_by.as_str());
    assert_eq!(confirmed, (Assurance::Verified, "mail_click"));
    let tie = lead.content.ties[0];
    assert_eq!(lead.content.assurance_of(tie.source, tie.origin), Assurance::Verified);
}

#[test]
fn the_second_look_at_pricing_makes_one_message_that_explains_itself() {
    let world = story_one();
    about(world.score(TANAKA), 69.923);
    let messages = world.messages();
    assert_eq!(messages.len(), 1);
    let crossing = messages[0].crossing.unwrap();
    assert_eq!((crossing.threshold, crossing.direction), (HOT, Direction::Rise));
    assert_eq!((crossing.number, crossing.opened_by), (1, Some(Gate::Score)));
    assert_eq!(crossing.at, at("2026-12-07 08:56"));
    let told = messages[0].message.told.clone();
    about(told.score, 69.923);
    about(told.before_24h, 55.012);
    about(told.urgency, 36.359);
    assert_eq!(world.scoring.labels.urgency.level(told.urgency), "medium");
    assert_eq!(world.scoring.terms().cell(told.grade, told.score), "?1");
    assert_eq!((told.grade, told.sequence), (Grade::Unknown, 1));
    assert_eq!((told.previous_stage, told.stage), (Stage::Warm, Stage::Hot));
    assert_eq!((told.unconfirmed, told.held_back), (Points(0), Points(0)));
    assert_eq!(told.because.unwrap().points, Points::whole(12));
    assert_eq!(told.because.unwrap().rule, example().rule("pricing").id);
}

#[test]
fn the_reasons_of_a_message_add_up_to_its_score() {
    let world = story_one();
    let told = world.messages()[0].message.told.clone();
    assert_eq!(told.reasons.iter().map(|reason| reason.points.0).sum::<i64>(), told.score.0);
    assert_eq!(told.categories.iter().map(|(_, points)| points.0).sum::<i64>(), told.score.0);
    assert_eq!(told.reasons.len(), 9);
    let expected = [
        ("pricing", 22.359, 2),
        ("document", 17.271, 1),
        ("compared", 7.469, 1),
        ("stayed", 5.349, 3),
        ("mail_click", 5.0, 1),
        ("returned", 4.668, 1),
        ("case", 3.483, 1),
        ("pricing_stayed", 3.453, 1),
        ("article", 0.871, 1),
    ];
    for (reason, (rule, points, times)) in told.reasons.iter().zip(expected) {
        assert_eq!((reason.rule, reason.times), (example().rule(rule).id, times), "{rule}");
        about(reason.points, points);
    }
    let shown = |rule| points_of(&told, rule).shown();
    let other = told.score.shown() - shown("pricing") - shown("document") - shown("compared");
    assert_eq!((shown("pricing"), shown("document"), shown("compared"), other), (22, 17, 7, 23));
}

#[test]
fn a_lead_counts_its_visits_and_pages() {
    let counts = story_one().lead(TANAKA).counts();
    assert_eq!((counts.visits, counts.pages, counts.attached), (3, 8, 9));
}

#[test]
fn a_past_score_is_the_same_after_a_crash() {
    let world = story_one();
    let then = at("2026-12-04 09:50");
    let replayed = world.journal.replay(8);
    for engine in [&world.engine, &replayed] {
        let rows = engine.lead(lead_of(TANAKA)).unwrap().content.rows;
        let rows: Vec<_> = rows.into_iter().filter(|row| row.when <= then).collect();
        let explained = engine::lead::explain(&rows, world.scoring.terms(), then);
        about(explained.score, 59.382);
        assert_eq!(explained.shares.iter().filter(|(row, _)| row.granted.0 != 0).count(), 10);
    }
}

#[test]
fn a_hot_lead_left_alone_cools_on_christmas_eve_and_is_only_known_in_january() {
    let mut world = story_two();
    about(world.score(TANAKA), 75.922);
    let own = first_below(&world, TANAKA, 40);
    world.at("2027-03-01 09:00");
    let all = world.crossings().into_iter().map(|(_, crossing)| crossing);
    let falls: Vec<_> = all.filter(|it| it.direction == Direction::Fall).collect();
    assert_eq!(falls.len(), 2);
    let cooled = falls[0];
    assert_eq!((cooled.threshold, cooled.number, cooled.told), (HOT, 1, true));
    assert_eq!(cooled.at, own, "the engine agrees with itself to the millisecond");
    within_five_minutes(cooled.at, "2026-12-24 05:03");
    let told = world.messages()[1].message.told.clone();
    assert_eq!(
        (told.score, told.stage, told.previous_stage),
        (Points(39_999), Stage::Warm, Stage::Hot)
    );
    let silent = cooled.at.since(world.lead(TANAKA).last_human().unwrap());
    assert_eq!(silent.as_secs() / 86_400, 16);
    assert_eq!((falls[1].threshold, falls[1].told), (WARM, false));
    within_five_minutes(falls[1].at, "2027-01-13 01:52");
    assert_eq!(world.stage(TANAKA), Stage::Known);
    assert_eq!(world.messages().len(), 2);
}

#[test]
fn a_lead_that_comes_back_is_told_again_under_the_next_number() {
    let mut world = story_two();
    world.at("2026-12-28 10:00").view("/pricing/");
    about(world.score(TANAKA), 51.345);
    assert_eq!(world.messages().len(), 2, "hot and cooled");
    world.at("2026-12-28 10:05").view("/thanks/document/guide");
    about(world.score(TANAKA), 71.339);
    let last = world.messages().pop().unwrap();
    let crossing = last.crossing.unwrap();
    assert_eq!((crossing.direction, crossing.number), (Direction::Rise, 2));
    assert_eq!(last.message.told.sequence, 3);
}

#[test]
fn a_nervous_score_makes_three_messages_and_never_a_fourth() {
    let mut world = world();
    world.at("2026-12-07 10:00").form(OTHER, "/thanks/contact/");
    assert_eq!(world.score(OTHER), Points(60_000));
    assert_eq!(world.messages()[0].message.told.previous_stage, Stage::Known);
    world.at("2026-12-07 15:00").view("/careers/");
    about(world.score(OTHER), 49.384);
    world.at("2026-12-07 15:05").event("unsubscribe");
    about(world.score(OTHER), 29.376);
    assert_eq!(world.stage(OTHER), Stage::Hot, "dwell");
    world.at("2026-12-09 10:00");
    let cooled = world.messages()[1].clone();
    assert_eq!(cooled.crossing.unwrap().at, at("2026-12-08 10:00:00"));
    about(cooled.message.told.score, 27.847);
    world.view("/pricing/");
    about(world.score(OTHER), 38.001);
    world.at("2026-12-09 10:05").view("/thanks/document/guide");
    about(world.score(OTHER), 57.993);
    world.at("2026-12-09 10:10").view("/thanks/event/dx");
    about(world.score(OTHER), 72.983);
    assert_eq!((world.stage(OTHER), world.messages().len()), (Stage::Hot, 2), "cool-down");
    world.at("2026-12-12 10:00");
    let messages = world.messages();
    assert_eq!(messages.len(), 3);
    let released = messages[2].clone();
    let crossing = released.crossing.unwrap();
    assert_eq!(crossing.direction, Direction::Release);
    assert_eq!((crossing.at, crossing.number), (at("2026-12-10 10:00:00"), 2));
    about(released.message.told.score, 69.374);
}

#[test]
fn two_people_on_one_computer_keep_what_is_theirs() {
    let mut world = world();
    let (a, b) = ("a@x.example", "b@x.example");
    world.at("2026-12-07 09:59").identify(a);
    world.at("2026-12-07 10:00").view("/pricing/");
    world.at("2026-12-07 10:05").view("/thanks/document/guide");
    let before = world.engine.lead(lead_of(a)).unwrap();
    world.at("2026-12-07 14:00").identify(b);
    world.at("2026-12-07 14:01").view("/pricing/");
    world.at("2026-12-07 14:05").view("/thanks/document/guide");
    about(world.score(a), 31.735);
    about(world.score(b), 31.998);
    assert_eq!(world.engine.lead(lead_of(a)).unwrap(), before, "nothing of A's changed");
    let b = world.lead(b).counts();
    assert_eq!((b.attached, b.hits, b.visits), (0, 3, 1));
    assert_eq!(world.messages(), []);
}

#[test]
fn a_hot_lead_that_looks_at_careers_stays_hot() {
    let mut world = story_two();
    world.at("2026-12-07 12:30");
    about(world.score(TANAKA), 75.480);
    world.view("/careers/");
    about(world.score(TANAKA), 65.480);
    assert!(is_in(&world, HOT));
    assert_eq!(world.messages().len(), 1);
}

#[test]
fn an_applicant_is_far_below_zero_and_told_to_nobody_in_sales() {
    let mut world = world();
    world.at("2026-12-07 10:00").view("/careers/");
    world.at("2026-12-07 10:05").view("/column/dx");
    world.at("2026-12-07 10:10").form(OTHER, "/thanks/careers/");
    about(world.score(OTHER), -68.993);
    assert_eq!(world.score(OTHER).shown(), -69);
    let rows = world.lead(OTHER).content.rows;
    let explained = engine::lead::explain(&rows, world.scoring.terms(), world.now());
    assert_eq!(explained.categories[2].1, Points(100_000));
    assert_eq!(world.crossings(), []);
}

#[test]
fn a_strangers_claim_on_a_verified_lead_is_cut_told_once_and_never_above_its_limit() {
    let mut world = world();
    world.at("2026-12-01 09:00").import(OTHER);
    let fields = world.lead(OTHER).attributes();
    world.on(9).at("2026-12-07 09:59").identify(OTHER);
    world.at("2026-12-07 10:00").view("/pricing/");
    world.at("2026-12-07 10:05").view("/thanks/document/guide");
    world.at("2026-12-07 10:10").view("/thanks/contact/");
    about(world.score(OTHER), 79.993);
    let lead = world.lead(OTHER);
    assert_eq!(lead.attributes(), fields);
    assert_eq!(lead.content.rows.last().unwrap().granted, Points::whole(48));
    let told = world.messages()[0].message.told.clone();
    assert_eq!(told.unconfirmed, told.score);
    assert_eq!(told.held_back, Points::whole(12));
    assert_eq!(told.assurance, Assurance::Verified, "the person is; the browser is not");
    world.at("2026-12-07 10:15").view("/thanks/event/dx");
    world.at("2026-12-07 10:25").view("/case/a").stay(90);
    assert!(world.score(OTHER) <= Points::whole(80), "{}", world.score(OTHER));
    assert_eq!(world.messages().len(), 1);
    world.at("2026-12-07 10:30").click_mail(OTHER);
    assert!(world.score(OTHER) > Points::whole(80), "confirmed: all count");
    assert_eq!(world.messages().len(), 1, "by less than 20 above what was told");
}

#[test]
fn the_tuesday_newsletter_reader_never_passes_43_60_in_a_year() {
    let mut world = world();
    let mut most = Points(0);
    let first = at("2026-01-06 09:00");
    world.to(first.minus(Duration::from_hours(24 * 10))).view("/");
    for week in 0..52 {
        let tuesday = first.plus(Duration::from_hours(24 * 7 * week));
        world.to(tuesday).click_mail(OTHER);
        most = most.max(world.score(OTHER));
        world.to(tuesday.plus(Duration::from_mins(1))).view("/column/news").stay(80);
        most = most.max(world.score(OTHER));
    }
    assert!(most <= Points(43_600) && most > Points(43_000), "{most}");
    assert!(world.messages().is_empty());
}

#[test]
fn the_customer_who_logs_in_daily_never_passes_5_988() {
    let mut world = world();
    let first = at("2026-01-06 09:00");
    world.to(first).identify(OTHER);
    let mut most = Points(0);
    for day in 0..120 {
        world.to(first.plus(Duration::from_hours(24 * day))).view_logged_in("/my/");
        most = most.max(world.score(OTHER));
    }
    assert!(most <= Points(5_998) && most > Points(5_900), "{most}");
}

#[test]
fn a_visitor_who_is_nobody_again_brings_only_what_came_after() {
    let mut world = world();
    let (a, c) = ("a@x.example", "c@x.example");
    world.at("2026-12-07 10:00").view("/pricing/").identify(a);
    world.at("2026-12-07 10:05").reset().view("/case/line");
    world.at("2026-12-07 10:06").identify(c);
    about(world.score(c), 4.0);
    let lead = world.engine.lead(lead_of(c)).unwrap();
    assert_eq!((lead.counts().attached, lead.counts().visits), (1, 1));
    assert_eq!(lead.content.rows.len(), 1);
    assert_eq!(lead.content.rows[0].rule, example().rule("case").id);
    about(world.score(a), 11.996);
}

#[test]
fn a_return_counts_only_if_the_person_was_away_on_every_browser() {
    let mut world = world();
    world.on(1).at("2026-12-01 10:00").view("/").identify(OTHER);
    world.on(2).at("2026-12-01 10:00").view("/").identify(OTHER);
    world.on(1).at("2026-12-04 12:00").view("/");
    world.on(2).at("2026-12-04 12:05").view("/");
    let returned: RuleId = example().rule("returned").id;
    let lead = world.lead(OTHER);
    let cuts: Vec<_> = lead.content.rows.iter().filter(|row| row.rule == returned).collect();
    assert_eq!(cuts.len(), 2);
    assert_eq!((cuts[0].granted, cuts[1].granted), (Points::whole(5), Points(0)));
    assert_eq!(cuts[1].cut, engine::ledger::Cut::NotAway);
}

#[test]
fn a_card_imported_by_a_server_is_no_visit_from_which_a_return_would_count() {
    let mut world = world();
    world.at("2026-12-01 10:00").view("/").identify(OTHER);
    world.at("2026-12-05 10:00").import(OTHER);
    world.at("2026-12-05 11:00").view("/");
    assert_eq!(world.score(OTHER), Points::whole(5));
    assert_eq!(world.engine.visitor(browser(1), world.now()).unwrap().session.number, 2);
}

#[test]
fn a_line_that_asks_for_urgency_is_crossed_by_what_came_together_and_not_by_what_came_in_weeks() {
    let mut parts = example();
    (parts.thresholds[1].rise, parts.thresholds[1].fall) = (Points::whole(30), Points::whole(20));
    parts.thresholds[1].urgency = Some(Points::whole(40));
    for (wait, expected) in [(Duration::from_hours(1), true), (Duration::from_hours(8 * 24), false)]
    {
        let mut world = World::new(parts.build(1));
        world.at("2026-12-01 09:00").form(TANAKA, "/thanks/document/guide");
        world.view("/thanks/event/dx");
        assert!(world.score(TANAKA) >= Points::whole(35) && !is_in(&world, HOT), "35 is not 40");
        let later = world.now().plus(wait);
        world.to(later).view("/pricing/");
        assert!(world.score(TANAKA) >= Points::whole(30));
        assert_eq!(is_in(&world, HOT), expected, "after {wait:?}");
    }
}
