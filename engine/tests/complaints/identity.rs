//! Identity, joining by mistake, shared devices.

use std::time::Duration;

use engine::hit::{Claim, Exclusion, Hit, HitKind, Named};
use engine::identity::{Assurance, Identity, IdentityKind};
use engine::lead::{LINKS_CLAIMED_MAX, MEMBERS_MAX};
use engine::points::Points;
use engine::record::Question;
use engine::stage::Stage;

use super::model::rules::example_scoring;
use super::model::world::{Journal, World, browser, claim, lead_of, named};
use super::{ANNA, BEN, bound, card, form_with, known, land, log_in, merge, monday, send, undo};

fn asked(world: &World) -> Vec<Question> {
    world.hits().iter().flat_map(|(_, hit)| &hit.review).map(|it| it.question).collect()
}

/// mautic/mautic#4211, matomo-org/matomo-sdk-ios#336
#[test]
fn a_login_on_anothers_browser_leaves_her_history_hers() {
    let mut world = monday();
    world.on(1).form(ANNA, "/thanks/document").view("/pricing");
    let before = world.lead(ANNA);
    log_in(&mut world, 1, BEN);
    world.view("/case");
    assert_eq!(world.lead(ANNA), before);
    assert_eq!((world.score(ANNA), world.score(BEN)), (Points::whole(32), Points::whole(4)));
    assert_eq!(world.lead(BEN).counts().attached, 0);
    assert_eq!(world.engine.lead_ids().len(), 2, "nobody is deleted");
}

/// mautic/mautic#6947, HubSpot KB on a second form in one browser
#[test]
fn nobody_is_called_by_the_name_of_whoever_used_the_browser_before() {
    let mut world = monday();
    form_with(&mut world, 1, ANNA, &[("nickname", "Annie"), ("title", "部長")]);
    form_with(&mut world, 1, BEN, &[("nickname", "Benno")]);
    assert_eq!(known(&world, ANNA, "nickname").unwrap(), "Annie");
    assert_eq!(known(&world, ANNA, "email").unwrap(), ANNA);
    assert_eq!(known(&world, BEN, "nickname").unwrap(), "Benno");
    assert_eq!(known(&world, BEN, "title"), None);
}

/// mautic/mautic#7532
#[test]
fn a_strangers_form_overwrites_nothing_of_a_proved_person() {
    let mut world = monday();
    card(&mut world, ANNA, &[("title", "部長"), ("company", "Sample Seiki")]);
    let before = world.lead(ANNA).attributes();
    form_with(&mut world, 9, ANNA, &[("title", "x"), ("company", "x"), ("phone", "x")]);
    assert_eq!(world.lead(ANNA).attributes(), before);
}

/// mautic/mautic#2854
#[test]
fn a_link_of_hers_on_his_browser_is_no_click_of_his_and_no_visit_of_hers() {
    let mut world = monday();
    world.import(ANNA).on(2).identify(BEN);
    let hers = world.lead(ANNA);
    land(&mut world, 2, ANNA, "/pricing");
    assert_eq!(world.hits().pop().unwrap().1.hit.excluded, Some(Exclusion::Forwarded));
    assert_eq!((world.lead(ANNA), world.score(BEN)), (hers, Points(0)));
    assert_eq!((bound(&world, 2), asked(&world)), (Some(lead_of(BEN)), vec![Question::Forwarded]));
    world.view("/case");
    assert_eq!(world.score(BEN), Points::whole(4), "what he does himself is his");
}

/// mautic/mautic#4121
#[test]
fn a_click_by_somebody_known_makes_an_unknown_browser_theirs() {
    let mut world = monday();
    world.import(ANNA).on(2).view("/pricing");
    land(&mut world, 2, ANNA, "/case");
    assert_eq!((bound(&world, 2), world.score(ANNA)), (Some(lead_of(ANNA)), Points::whole(16)));
    assert_eq!(world.engine.lead_ids(), [lead_of(ANNA)]);
}

/// mautic/mautic#11157
#[test]
fn a_hit_that_names_no_browser_and_nobody_is_nobodys() {
    let mut world = monday();
    world.on(1).form(ANNA, "/thanks/document");
    let before = world.lead(ANNA);
    send(&mut world, None, Hit { path: "/pricing".into(), ..Hit::default() });
    let (_, last) = world.hits().pop().unwrap();
    assert_eq!((last.visit, last.lead), (None, None));
    assert_eq!(world.lead(ANNA), before);
}

/// mautic/mautic#550
#[test]
fn who_reads_a_copy_of_her_mail_is_taken_for_her_until_he_says_or_somebody_corrects_it() {
    let mut world = monday();
    world.import(ANNA).on(2);
    land(&mut world, 2, ANNA, "/pricing");
    assert_eq!(world.score(ANNA), Points::whole(12));
    world.identify(BEN).view("/case");
    assert_eq!((world.score(ANNA), world.score(BEN)), (Points::whole(12), Points::whole(4)));
    let (anna, ben) = (lead_of(ANNA), lead_of(BEN));
    world.step(|engine, why, means| engine.unlink(browser(2), anna, why, means)).unwrap();
    assert_eq!((world.score(ANNA), world.lead(ANNA).content.rows.len()), (Points(0), 0));
    let sure = Assurance::Verified;
    world.step(|engine, why, means| engine.link(browser(2), ben, sure, why, means)).unwrap();
    assert_eq!(world.score(BEN), Points::whole(16));
}

/// mautic/mautic#16425
#[test]
fn a_form_from_a_clean_browser_keeps_the_known_persons_id() {
    let mut world = monday();
    world.import(ANNA).on(2).view("/pricing").form(ANNA, "/thanks/document");
    assert_eq!(world.engine.lead_ids(), [lead_of(ANNA)]);
    assert_eq!(world.score(ANNA), Points::whole(32));
    assert!(world.lead(ANNA).known_since().unwrap().1, "a server said it first");
}

/// mautic/mautic#7559, mautic/mautic#6079
#[test]
fn the_browsers_of_who_was_joined_go_on_earning_for_who_stays() {
    let mut world = monday();
    world.import(ANNA).on(2).identify(BEN).view("/pricing");
    assert_eq!(merge(&mut world, BEN, ANNA).1, lead_of(ANNA));
    world.view("/thanks/document").identify(BEN).view("/case");
    assert_eq!(world.engine.lead_ids(), [lead_of(ANNA)], "no new nobody");
    assert_eq!((world.score(ANNA), world.score(BEN)), (Points::whole(36), Points::whole(36)));
    assert_eq!(world.lead(ANNA).counts().pages, 3);
}

/// mautic/mautic#4641
#[test]
fn a_joining_keeps_what_is_known_of_either() {
    let mut world = monday();
    card(&mut world, ANNA, &[("title", "部長")]);
    card(&mut world, BEN, &[("company", "Sample Seiki")]);
    merge(&mut world, ANNA, BEN);
    assert_eq!(known(&world, ANNA, "title").unwrap(), "部長");
    assert_eq!(known(&world, ANNA, "company").unwrap(), "Sample Seiki");
}

/// PostHog/posthog#5527, `identify(null)`
#[test]
fn what_programs_write_when_they_know_nobody_names_nobody() {
    for word in ["", " ", "null", "NULL", "undefined", "None", "[object Object]", "0", "000", "NaN"]
    {
        for kind in IdentityKind::ORDER {
            assert!(Identity::parse(kind, word).is_err(), "{word:?} as {}", kind.name());
        }
    }
}

/// PostHog/posthog#5527, log-in-as
#[test]
fn support_that_logs_in_as_a_customer_is_not_joined_with_her() {
    let mut world = monday();
    log_in(&mut world, 1, "support@x.example");
    world.on(2);
    log_in(&mut world, 2, ANNA);
    world.view("/pricing").on(1).view("/case");
    log_in(&mut world, 1, ANNA);
    world.view("/thanks/document");
    log_in(&mut world, 1, "support@x.example");
    world.view("/column/dx");
    assert_eq!(world.engine.lead_ids().len(), 2);
    assert_eq!(world.score("support@x.example"), Points::whole(5));
    assert_eq!(world.score(ANNA), Points::whole(32));
}

/// PostHog/posthog#5898
#[test]
fn thirty_people_joined_by_mistake_are_parted_again_one_by_one() {
    let mut world = monday();
    let mail = |number: u64| format!("person{number}@x.example");
    for number in 0..30 {
        world.on(number).form(&mail(number), "/thanks/document").view("/case");
    }
    let before: Vec<_> = (0..30).map(|number| world.lead(&mail(number)).content).collect();
    for number in 1..30 {
        merge(&mut world, &mail(0), &mail(number));
    }
    assert_eq!(world.score(&mail(7)), Points::whole(24), "a document and a case a day");
    for number in 0..30 {
        let name = lead_of(&mail(number));
        let is_head = world.engine.head(name) == name;
        let done = world.step(|engine, why, means| engine.unmerge(name, why, means));
        assert_eq!(done.is_err(), is_head, "{number}");
    }
    let after: Vec<_> = (0..30).map(|number| world.lead(&mail(number)).content).collect();
    assert_eq!(after, before);
}

/// PostHog/posthog#14093, PostHog/posthog#44062, PostHog/posthog.com#6056, HubSpot KB
#[test]
fn a_joining_is_undone_without_a_trace_in_what_is_known_and_earned() {
    let mut world = monday();
    form_with(&mut world, 1, ANNA, &[("title", "部長")]);
    world.on(1).view("/pricing").on(2).view("/pricing").form(BEN, "/thanks/event/dx");
    let before = [world.lead(ANNA).content, world.lead(BEN).content];
    merge(&mut world, ANNA, BEN);
    assert_eq!(world.score(ANNA), Points::whole(27), "once a day: not 39");
    undo(&mut world).unwrap();
    assert_eq!([world.lead(ANNA).content, world.lead(BEN).content], before);
    assert_eq!((world.score(ANNA), world.score(BEN)), (Points::whole(12), Points::whole(27)));
}

/// PostHog/posthog#23690, PostHog/posthog#21240
#[test]
fn one_proof_makes_somebody_who_was_split_in_three_one_again() {
    let mut world = monday();
    let names = [
        named(IdentityKind::UserId, "u-1", Assurance::Verified),
        named(IdentityKind::CrmId, "c-1", Assurance::Verified),
        named(IdentityKind::Email, ANNA, Assurance::Verified),
    ];
    let says = |names: &[Named]| {
        let claim = Claim { names: names.to_vec(), ..Claim::default() };
        let kind = HitKind::Identify;
        Hit { kind, claim: Some(claim), by_server: true, ..Hit::default() }
    };
    for (number, path) in [(1, "/pricing"), (2, "/case"), (3, "/thanks/document")] {
        send(&mut world, Some(number), says(&names[number as usize - 1..][..1]));
        world.on(number).view(path);
    }
    assert_eq!(world.engine.lead_ids().len(), 3);
    send(&mut world, None, says(&names));
    assert_eq!(world.engine.lead_ids().len(), 1);
    assert_eq!((world.score(ANNA), world.lead(ANNA).counts().pages), (Points::whole(36), 3));
}

/// PostHog/posthog-js#512
#[test]
fn to_identify_and_reset_again_and_again_makes_one_person() {
    let mut world = monday();
    world.on(1).view("/").identify(ANNA).reset().view("/pricing").identify(ANNA).reset();
    world.identify(ANNA).view("/case");
    assert_eq!(world.engine.lead_ids(), [lead_of(ANNA)]);
    assert_eq!(world.score(ANNA), Points::whole(16));
}

/// PostHog/posthog#3602
#[test]
fn a_spoofed_name_is_worth_eighty_points_at_most_and_says_that_it_is_unconfirmed() {
    let mut world = monday();
    world.import(ANNA).on(9).form(ANNA, "/thanks/contact").view("/thanks/document");
    world.view("/thanks/event/dx").view("/pricing");
    assert_eq!(world.score(ANNA), Points::whole(80));
    let message = world.messages()[0].message.clone();
    assert_eq!((message.told.score, message.told.unconfirmed), (Points(60_000), Points(60_000)));
    let tie = world.lead(ANNA).content.ties[1];
    assert_eq!((tie.sure(), tie.hits), (Assurance::Claimed, 5));
}

/// PostHog/posthog#21049, by browsers
#[test]
fn nobody_gets_more_claimed_browsers_than_a_person_can_look_at() {
    let mut world = monday();
    for number in 0..LINKS_CLAIMED_MAX as u64 + 10 {
        world.on(number).identify(ANNA).view("/column/dx");
    }
    assert_eq!(world.lead(ANNA).content.ties.len(), 50);
    assert_eq!((asked(&world), bound(&world, 50)), (vec![Question::TooManyBrowsers; 10], None));
    assert_eq!(world.engine.links_refused(), 10);
    world.on(0).view("/pricing");
    assert_eq!(world.score(ANNA), Points::whole(15), "those before go on: three articles a day");
}

/// PostHog/posthog#21049, by names
#[test]
fn nobody_gets_more_names_than_a_person_can_look_at_and_one_refused_is_nobodys() {
    let mut world = monday();
    let other = |number: usize| format!("other{number}@x.example");
    for number in 1..=MEMBERS_MAX {
        let mut said = claim(ANNA, Assurance::Verified);
        said.names.push(named(IdentityKind::Email, &other(number), Assurance::Verified));
        let kind = HitKind::Identify;
        let hit = Hit { kind, claim: Some(said), by_server: true, ..Hit::default() };
        send(&mut world, None, hit);
    }
    assert_eq!(world.lead(ANNA).content.members.len(), 64);
    assert_eq!((asked(&world), world.engine.links_refused()), (vec![Question::TooManyNames], 1));
    assert_eq!(world.engine.head(lead_of(&other(63))), lead_of(ANNA));
    assert_eq!(world.engine.known(lead_of(&other(64))), None);
    world.import(&other(64));
    assert_eq!(world.engine.lead_ids().len(), 2, "a person of their own");
    merge(&mut world, &other(64), ANNA);
    world.on(1).identify(&other(5)).view("/pricing");
    assert_eq!(world.lead(ANNA).content.members.len(), 65, "an operator may join more");
    assert_eq!(world.score(ANNA), Points::whole(12), "and they go on earning");
}

/// PostHog/posthog PRs 36903, 37559 and 96951
#[test]
fn a_joining_that_a_crash_cuts_off_anywhere_is_finished_and_hits_go_on_meanwhile() {
    let mut world = monday();
    world.on(1).form(ANNA, "/thanks/document").on(2).identify(BEN).view("/pricing");
    let before = world.journal.0.len();
    merge(&mut world, ANNA, BEN);
    let whole = world.journal.0.len();
    assert!(whole - before >= 3, "it is several records");
    for cut in before + 1..=whole {
        let mut cut_off = World::new(example_scoring());
        cut_off.journal = Journal(world.journal.0[..cut].to_vec());
        cut_off.engine = cut_off.journal.replay(8);
        cut_off.to(world.now()).on(2).view("/case");
        cut_off.step(|engine, _, means| engine.resume(means));
        assert_eq!(cut_off.engine.lead_ids().len(), 1, "cut after {cut}");
        assert_eq!(cut_off.score(ANNA), Points::whole(36), "cut after {cut}");
        assert_eq!(cut_off.score(BEN), Points::whole(36), "cut after {cut}");
    }
}

/// rudderlabs/rudder-sdk-js#206
#[test]
fn after_a_reset_the_same_browser_joins_nobody_to_anybody() {
    let mut world = monday();
    world.on(1).form(ANNA, "/thanks/document").reset();
    assert_eq!(bound(&world, 1), None);
    world.form(BEN, "/thanks/event/dx");
    assert_eq!(world.engine.lead_ids().len(), 2);
    assert_eq!((world.score(ANNA), world.score(BEN)), (Points::whole(20), Points::whole(15)));
    assert_eq!(asked(&world), []);
}

/// matomo-org/matomo#19927
#[test]
fn a_login_in_the_middle_of_a_visit_claims_the_whole_visit() {
    let mut world = monday();
    world.on(1).view("/").view("/pricing").view("/case");
    let began = world.now();
    world.to(began.plus(Duration::from_mins(5)));
    log_in(&mut world, 1, ANNA);
    let lead = world.lead(ANNA);
    let counts = lead.counts();
    assert_eq!((counts.attached, counts.pages, counts.visits), (3, 3, 1));
    assert_eq!((lead.first_seen(), lead.content.rows.len()), (began, 2));
}

/// matomo-org/matomo#16949
#[test]
fn the_visits_before_she_logged_in_are_hers() {
    let mut world = monday();
    world.on(1).view("/pricing").at("2026-12-08 10:00").view("/").at("2026-12-09 10:00").view("/");
    log_in(&mut world, 1, ANNA);
    assert_eq!((world.lead(ANNA).counts().visits, world.lead(ANNA).counts().attached), (3, 3));
    assert_eq!(world.score_at(ANNA, monday().now()), Points::whole(12));
}

/// matomo-org/matomo#7691
#[test]
fn hits_that_arrive_late_and_out_of_order_open_no_visits() {
    let mut world = monday();
    world.on(1).identify(ANNA).at("2026-12-07 10:10").view("/pricing");
    let (now, visitor) = (world.now(), Some(browser(1)));
    for minutes in [600, 45, 9, 3] {
        let when = now.minus(Duration::from_mins(minutes));
        world.ingest(Hit { visitor, received: now, when, path: "/case".into(), ..Hit::default() });
    }
    assert_eq!(world.engine.visitor(browser(1), now).unwrap().session.number, 1);
    assert_eq!((world.lead(ANNA).counts().visits, world.lead(ANNA).counts().pages), (1, 5));
}

/// matomo-org/matomo#9834
#[test]
fn two_devices_of_one_person_at_one_moment_are_two_visits_of_one_person() {
    let mut world = monday();
    world.on(1).identify(ANNA).view("/pricing").on(2).identify(ANNA).view("/thanks/document");
    assert_eq!(world.engine.lead_ids().len(), 1);
    assert_eq!((world.lead(ANNA).counts().visits, world.score(ANNA)), (2, Points::whole(32)));
    let own = [1, 2].map(|number| world.own_score(number));
    assert_eq!(own, [Points::whole(12), Points::whole(20)]);
}

/// linuxfoundation/crowd.dev#501
#[test]
fn somebody_worth_nothing_joined_to_somebody_worth_sixty_is_worth_sixty() {
    for (one, other) in [(ANNA, BEN), (BEN, ANNA)] {
        let mut world = monday();
        world.import(ANNA).on(2).form(BEN, "/thanks/contact");
        merge(&mut world, one, other);
        assert_eq!((world.score(ANNA), world.score(BEN)), (Points(60_000), Points(60_000)));
        assert_eq!(world.stage(ANNA), Stage::Hot);
    }
}

/// Pardot KB 2127033
#[test]
fn a_forwarded_mail_moves_no_points_and_nobody_loses_anything_for_good() {
    let mut world = monday();
    world.import(ANNA).on(1);
    land(&mut world, 1, ANNA, "/pricing");
    world.view("/thanks/document").on(2).form(BEN, "/case");
    let hers = world.lead(ANNA);
    land(&mut world, 2, ANNA, "/thanks/event/dx");
    assert_eq!((world.score(ANNA), world.score(BEN)), (Points::whole(32), Points::whole(4)));
    assert_eq!(world.lead(ANNA), hers);
    let (before, counts) = (world.lead(ANNA).content, world.lead(ANNA).counts());
    let anna = lead_of(ANNA);
    world.step(|engine, why, means| engine.unlink(browser(1), anna, why, means)).unwrap();
    assert_eq!(world.score(ANNA), Points(0));
    undo(&mut world).unwrap();
    let after = world.lead(ANNA).content;
    assert_eq!((after.rows, after.said, after.seen), (before.rows, before.said, before.seen));
    assert_eq!((world.score(ANNA), world.lead(ANNA).counts()), (Points::whole(32), counts));
}
