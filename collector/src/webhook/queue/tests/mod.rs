//! The queue, one promise at a time.

mod simulation;

use std::time::Duration;

use bytes::Bytes;

use super::super::breaker::Rest;
use super::super::{LeadRef, SCHEDULE, SendError};
use super::*;

const START: Timestamp = Timestamp(1_800_000_000_000);

fn at(seconds: u64) -> Timestamp {
    START.plus(Duration::from_secs(seconds))
}

fn endpoint_id(name: &str) -> EndpointId {
    EndpointId::parse(name).unwrap()
}

fn id(name: &str) -> MessageId {
    MessageId::parse(name).unwrap()
}

fn settings(name: &str, mode: Mode) -> EndpointSettings {
    EndpointSettings {
        id: endpoint_id(name),
        mode,
        test: false,
        in_flight_max: 2,
        schedule: SCHEDULE.into(),
        rest: Rest::default(),
        supersede: false,
    }
}

fn message(endpoint: &str, lead: u128, name: &str) -> Message {
    Message {
        id: id(name),
        endpoint: endpoint_id(endpoint),
        lead: LeadRef(lead),
        sequence: 1,
        test: false,
        replay: false,
        not_before: None,
        topic: None,
        event: false,
        retracts: None,
        body: Bytes::from(name.to_owned()),
    }
}

fn queue_with(limits: Limits, endpoints: &[EndpointSettings]) -> Queue {
    let mut queue = Queue::new(limits);
    for endpoint in endpoints {
        queue.step(Input::EndpointChanged(endpoint.clone()), START);
    }
    queue.step(Input::Loaded, START);
    queue
}

fn live(names: &[&str]) -> Queue {
    let endpoints: Vec<_> = names.iter().map(|name| settings(name, Mode::Live)).collect();
    queue_with(Limits::default(), &endpoints)
}

fn sent(effects: &[Effect]) -> Vec<(&str, &str, u32)> {
    let sends = effects.iter().filter_map(|effect| match effect {
        Effect::Send(attempt) => Some(attempt),
        _ => None,
    });
    sends.map(|a| (a.endpoint.as_str(), a.message.as_str(), a.attempt)).collect()
}

fn journaled(effects: &[Effect]) -> Vec<AttemptRecord> {
    let records = effects.iter().filter_map(|effect| match effect {
        Effect::Journal(record) => Some(record.clone()),
        _ => None,
    });
    records.collect()
}

fn refused(effects: &[Effect]) -> Vec<Refusal> {
    let refusals = effects.iter().filter_map(|effect| match effect {
        Effect::Refused { why, .. } => Some(*why),
        _ => None,
    });
    refusals.collect()
}

fn answer(status: u16) -> Answer {
    Answer { status, retry_after: None, kept: Bytes::new(), skew_ms: None }
}

fn answered(endpoint: &str, message: &str, attempt: u32, status: u16) -> Input {
    Input::Answered(Answered {
        endpoint: endpoint_id(endpoint),
        message: id(message),
        attempt,
        answer: Ok(answer(status)),
        took: Duration::from_millis(7),
        jitter: 0.0,
    })
}

/// Answers every attempt of a message with `status` until it is dead; gives the last effects.
fn exhaust(queue: &mut Queue, endpoint: &str, name: &str, status: u16) -> Vec<Effect> {
    let mut now = START;
    let mut last = Vec::new();
    for (attempt, delay) in (1..).zip(SCHEDULE) {
        // A failing endpoint's breaker may hold the attempt back a little longer.
        now = now.plus(delay).plus(Duration::from_mins(11));
        queue.step(Input::Tick, now);
        last = queue.step(answered(endpoint, name, attempt, status), now);
    }
    last
}

#[test]
fn a_later_message_of_a_lead_waits_until_the_earlier_is_delivered() {
    let mut queue = live(&["sfa"]);
    let first = queue.step(Input::Enqueue(message("sfa", 1, "a")), START);
    assert_eq!(sent(&first), [("sfa", "a", 1)]);
    let second = queue.step(Input::Enqueue(message("sfa", 1, "b")), START);
    assert_eq!(sent(&second), []);
    let failed = queue.step(answered("sfa", "a", 1, 500), START);
    assert_eq!(sent(&failed), []);
    assert_eq!(failed.last(), Some(&Effect::WakeAt(at(5))));
    assert_eq!(sent(&queue.step(Input::Tick, at(5))), [("sfa", "a", 2)]);
    let done = queue.step(answered("sfa", "a", 2, 204), at(5));
    assert_eq!(sent(&done), [("sfa", "b", 1)]);
    let order: Vec<_> = done.iter().map(std::mem::discriminant).collect();
    let journal = std::mem::discriminant(&done[0]);
    assert_eq!(order.first(), Some(&journal));
    assert_eq!(journaled(&done)[0].state, Delivery::Delivered { attempts: 2 });
}

#[test]
fn a_later_message_of_a_lead_goes_out_once_the_earlier_is_dead() {
    let mut queue = live(&["sfa"]);
    queue.step(Input::Enqueue(message("sfa", 1, "a")), START);
    queue.step(Input::Enqueue(message("sfa", 1, "b")), START);
    let last = exhaust(&mut queue, "sfa", "a", 500);
    let dead = Effect::Dead { endpoint: endpoint_id("sfa"), message: id("a"), kept: true };
    assert!(last.contains(&dead));
    assert_eq!(queue.figures().dead, 1);
    let rest = queue.step(Input::Tick, at(100 * 3600));
    assert_eq!([sent(&last), sent(&rest)].concat(), [("sfa", "b", 1)]);
}

#[test]
fn leads_and_endpoints_do_not_wait_for_each_other_beyond_the_cap() {
    let mut queue = live(&["crm", "sfa"]);
    let mut effects = Vec::new();
    for (lead, name) in (0..).zip(["a", "b", "c"]) {
        effects.extend(queue.step(Input::Enqueue(message("sfa", lead, name)), START));
    }
    assert_eq!(sent(&effects), [("sfa", "a", 1), ("sfa", "b", 1)]);
    let other = queue.step(Input::Enqueue(message("crm", 0, "a")), START);
    assert_eq!(sent(&other), [("crm", "a", 1)]);
    let freed = queue.step(answered("sfa", "a", 1, 200), START);
    assert_eq!(sent(&freed), [("sfa", "c", 1)]);
}

#[test]
fn endpoints_take_turns_when_much_is_due_at_once() {
    let mut queue = Queue::new(Limits::default());
    for name in ["crm", "sfa"] {
        queue.step(Input::EndpointChanged(settings(name, Mode::Live)), START);
        for (lead, message_name) in (0..).zip(["a", "b"]) {
            queue.step(Input::Enqueue(message(name, lead, message_name)), START);
        }
    }
    let loaded = queue.step(Input::Loaded, START);
    let turns = [("crm", "a", 1), ("sfa", "a", 1), ("crm", "b", 1), ("sfa", "b", 1)];
    assert_eq!(sent(&loaded), turns);
}

#[test]
fn a_shadow_endpoint_records_what_it_would_send_and_sends_nothing() {
    let mut queue = queue_with(Limits::default(), &[settings("sfa", Mode::Shadow)]);
    let effects = queue.step(Input::Enqueue(message("sfa", 1, "a")), START);
    assert_eq!(sent(&effects), []);
    let records = journaled(&effects);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].outcome, Outcome::Shadowed);
    queue.step(Input::EndpointChanged(settings("sfa", Mode::Live)), START);
    assert_eq!(sent(&queue.step(Input::Tick, at(3600))), []);
    let later = queue.step(Input::Enqueue(message("sfa", 1, "b")), at(3600));
    assert_eq!(sent(&later), [("sfa", "b", 1)]);
}

#[test]
fn test_messages_go_to_test_endpoints_and_nothing_else_does() {
    let practice = EndpointSettings { test: true, ..settings("practice", Mode::Live) };
    let mut queue = queue_with(Limits::default(), &[practice, settings("sfa", Mode::Live)]);
    for (endpoint, test, expected) in
        [("practice", true, 1), ("practice", false, 0), ("sfa", true, 0), ("sfa", false, 1)]
    {
        let message = Message { test, ..message(endpoint, 1, endpoint) };
        let effects = queue.step(Input::Enqueue(message), START);
        assert_eq!(sent(&effects).len(), expected, "{endpoint} {test}");
        let mismatches = refused(&effects);
        assert_eq!(mismatches, vec![Refusal::TestMismatch; 1 - expected]);
    }
}

#[test]
fn gone_disables_the_endpoint_and_its_messages_become_dead_letters() {
    let mut queue = live(&["sfa"]);
    queue.step(Input::Enqueue(message("sfa", 1, "a")), START);
    queue.step(Input::Enqueue(message("sfa", 1, "b")), START);
    let gone = queue.step(answered("sfa", "a", 1, 410), START);
    let disabled =
        Effect::DisableEndpoint { endpoint: endpoint_id("sfa"), why: DisableReason::Gone };
    assert!(gone.contains(&disabled));
    let states: Vec<_> = journaled(&gone).iter().map(|record| record.state).collect();
    let expected = [Delivery::Disabled { attempts: 1 }, Delivery::Disabled { attempts: 0 }];
    assert_eq!(states, expected);
    let next = queue.step(Input::Enqueue(message("sfa", 2, "c")), START);
    assert_eq!(sent(&next), []);
    assert_eq!(queue.figures().dead, 3);
    let wish = Input::Resend { endpoint: endpoint_id("sfa"), which: Resend::Since(START) };
    assert_eq!(refused(&queue.step(wish.clone(), START)), [Refusal::EndpointDisabled]);
    queue.step(Input::EndpointChanged(settings("sfa", Mode::Live)), START);
    assert_eq!(sent(&queue.step(wish, START)).len(), 2);
}

#[test]
fn an_attempt_in_flight_when_its_endpoint_is_disabled_is_not_repeated() {
    let mut queue = live(&["sfa"]);
    queue.step(Input::Enqueue(message("sfa", 1, "a")), START);
    queue.step(Input::Enqueue(message("sfa", 2, "b")), START);
    queue.step(answered("sfa", "a", 1, 410), START);
    let late = queue.step(answered("sfa", "b", 1, 500), START);
    assert_eq!(journaled(&late)[0].state, Delivery::Disabled { attempts: 1 });
    assert_eq!(queue.figures().pending, 0);
}

#[test]
fn an_endpoint_that_fails_for_five_days_is_disabled() {
    let mut queue = live(&["sfa"]);
    queue.step(Input::Enqueue(message("sfa", 1, "a")), START);
    exhaust(&mut queue, "sfa", "a", 500);
    let second = at(50 * 3600);
    queue.step(Input::Enqueue(message("sfa", 1, "b")), second);
    let mut now = second;
    let mut effects = Vec::new();
    for (attempt, delay) in (1..).zip(SCHEDULE) {
        now = now.plus(delay).plus(Duration::from_mins(11));
        queue.step(Input::Tick, now);
        effects = queue.step(answered("sfa", "b", attempt, 500), now);
    }
    let why = effects.iter().find_map(|effect| match effect {
        Effect::DisableEndpoint { why, .. } => Some(*why),
        _ => None,
    });
    let since = START.plus(Duration::from_mins(11));
    assert_eq!(why, Some(DisableReason::Failing { since }));
}

#[test]
fn a_failing_endpoint_rests_and_then_gets_one_attempt_at_a_time() {
    let roomy = EndpointSettings { in_flight_max: 16, ..settings("sfa", Mode::Live) };
    let mut queue = queue_with(Limits::default(), &[roomy]);
    for lead in 0..12_u32 {
        let name = format!("m{lead}");
        queue.step(Input::Enqueue(message("sfa", lead.into(), &name)), START);
    }
    let mut last = Vec::new();
    for lead in 0..12 {
        last = queue.step(answered("sfa", &format!("m{lead}"), 1, 500), START);
    }
    assert_eq!(last.last(), Some(&Effect::WakeAt(at(30))));
    assert_eq!(sent(&queue.step(Input::Tick, at(29))), []);
    assert_eq!(sent(&queue.step(Input::Tick, at(30))), [("sfa", "m0", 2)]);
    let up = queue.step(answered("sfa", "m0", 2, 200), at(30));
    assert_eq!(sent(&up).len(), 11);
}

#[test]
fn a_receiver_that_takes_a_message_at_the_fourth_attempt_is_not_taken_for_down_for_ever() {
    let schedule = [0, 5, 5, 5].map(Duration::from_secs).into();
    let roomy = EndpointSettings { in_flight_max: 16, schedule, ..settings("sfa", Mode::Live) };
    let mut queue = queue_with(Limits::default(), &[roomy]);
    for lead in 0..12_u32 {
        let name = format!("m{lead}");
        queue.step(Input::Enqueue(message("sfa", lead.into(), &name)), START);
        queue.step(answered("sfa", &name, 1, 500), START);
    }
    for (attempt, seconds) in [(2, 30), (3, 90)] {
        let tried = queue.step(Input::Tick, at(seconds));
        assert_eq!(sent(&tried), [("sfa", "m0", attempt)]);
        queue.step(answered("sfa", "m0", attempt, 500), at(seconds));
    }
    assert_eq!(sent(&queue.step(Input::Tick, at(210))), [("sfa", "m0", 4)]);
    let up = queue.step(answered("sfa", "m0", 4, 200), at(210));
    assert_eq!(sent(&up).len(), 11);
}

#[test]
fn a_dead_letter_is_resent_under_its_id_marked_as_replay_and_with_a_fresh_schedule() {
    let mut queue = live(&["sfa"]);
    queue.step(Input::Enqueue(message("sfa", 1, "a")), START);
    exhaust(&mut queue, "sfa", "a", 500);
    let wish =
        |name: &str| Input::Resend { endpoint: endpoint_id("sfa"), which: Resend::One(id(name)) };
    let now = at(80 * 3600);
    assert_eq!(refused(&queue.step(wish("b"), now)), [Refusal::NotDead]);
    let again = queue.step(wish("a"), now);
    assert_eq!(journaled(&again)[0].outcome, Outcome::Resent);
    let attempt = again.iter().find_map(|effect| match effect {
        Effect::Send(attempt) => Some(attempt.clone()),
        _ => None,
    });
    let attempt = attempt.unwrap();
    assert_eq!((attempt.message, attempt.attempt, attempt.replay), (id("a"), 1, true));
    assert_eq!(refused(&queue.step(wish("a"), now)), [Refusal::NotDead]);
}

#[test]
fn resending_since_a_time_takes_only_what_died_since() {
    let mut queue = live(&["sfa"]);
    for (seconds, name) in [(0, "a"), (10, "b"), (20, "c")] {
        queue.step(Input::Enqueue(message("sfa", 1, name)), at(seconds));
        queue.step(answered("sfa", name, 1, 410), at(seconds));
        queue.step(Input::EndpointChanged(settings("sfa", Mode::Live)), at(seconds));
    }
    let which = Resend::Since(at(10));
    queue.step(Input::Resend { endpoint: endpoint_id("sfa"), which }, at(30));
    let figures = queue.figures();
    assert_eq!((figures.pending, figures.dead), (2, 1));
}

#[test]
fn a_full_queue_refuses_by_name_counts_and_evicts_nothing() {
    let limits = Limits {
        endpoints_max: 1,
        pending_max: 2,
        dead_max: 1,
        bodies_bytes_max: 30,
        body_bytes_max: 20,
    };
    let mut queue = queue_with(limits, &[settings("sfa", Mode::Live)]);
    let with = |name: &str, bytes: usize| {
        let body = Bytes::from(vec![b'x'; bytes]);
        Input::Enqueue(Message { body, ..message("sfa", 1, name) })
    };
    assert_eq!(refused(&queue.step(with("big", 21), START)), [Refusal::BodyTooLarge]);
    assert_eq!(refused(&queue.step(with("a", 20), START)), []);
    assert_eq!(refused(&queue.step(with("b", 11), START)), [Refusal::BodiesFull]);
    assert_eq!(refused(&queue.step(with("b", 10), START)), []);
    assert_eq!(refused(&queue.step(with("c", 0), START)), [Refusal::Full]);
    assert_eq!(refused(&queue.step(with("a", 0), START)), [Refusal::Duplicate]);
    let other = Input::EndpointChanged(settings("crm", Mode::Live));
    assert_eq!(refused(&queue.step(other, START)), [Refusal::TooManyEndpoints]);
    let stranger = Input::Enqueue(message("crm", 1, "a"));
    assert_eq!(refused(&queue.step(stranger, START)), [Refusal::UnknownEndpoint]);
    assert_eq!(queue.figures().counters.refused_by_limit, 4);
    assert_eq!(queue.figures().pending, 2);
    queue.step(answered("sfa", "a", 1, 410), START);
    let figures = queue.figures();
    assert_eq!((figures.dead, figures.counters.dead_not_kept), (1, 1));
    assert_eq!(figures.bodies_bytes, 20);
}

#[test]
fn a_forgotten_lead_leaves_no_body_behind() {
    let mut queue = live(&["sfa"]);
    queue.step(Input::Enqueue(message("sfa", 1, "a")), START);
    queue.step(Input::Enqueue(message("sfa", 1, "b")), START);
    queue.step(Input::Enqueue(message("sfa", 2, "c")), START);
    queue.step(answered("sfa", "a", 1, 410), START);
    queue.step(Input::EndpointChanged(settings("sfa", Mode::Live)), START);
    queue.step(Input::Enqueue(message("sfa", 1, "d")), START);
    queue.step(Input::Forget(LeadRef(1)), START);
    let left: Vec<_> = queue.outstanding().into_iter().map(|one| one.message.id).collect();
    assert_eq!(left, [id("c")]);
    assert_eq!(queue.figures().bodies_bytes, 1);
    let late = queue.step(answered("sfa", "d", 1, 500), START);
    assert_eq!(journaled(&late), []);
    assert_eq!(queue.figures().counters.unmatched, 1);
}

#[test]
fn removing_an_endpoint_ends_its_messages_and_ignores_late_answers() {
    let mut queue = live(&["sfa"]);
    queue.step(Input::Enqueue(message("sfa", 1, "a")), START);
    queue.step(Input::Enqueue(message("sfa", 1, "b")), START);
    let gone = queue.step(Input::EndpointRemoved(endpoint_id("sfa")), START);
    assert_eq!(journaled(&gone).len(), 2);
    assert_eq!(queue.figures().bodies_bytes, 0);
    assert_eq!(queue.step(answered("sfa", "a", 1, 200), START), []);
}

#[test]
fn an_answer_to_an_attempt_that_is_not_out_changes_nothing() {
    let mut queue = live(&["sfa"]);
    queue.step(Input::Enqueue(message("sfa", 1, "a")), START);
    let before = queue.outstanding();
    for (name, attempt) in [("a", 2), ("a", 0), ("b", 1)] {
        let effects = queue.step(answered("sfa", name, attempt, 200), START);
        assert_eq!(journaled(&effects), []);
    }
    assert_eq!(queue.outstanding(), before);
    assert_eq!(queue.figures().counters.unmatched, 3);
}

/// A message that tells the state of a lead, of which the newest is enough.
fn state(endpoint: &str, name: &str) -> Message {
    Message { topic: Some("sales".into()), ..message(endpoint, 1, name) }
}

fn held(message: Message, seconds: u64) -> Message {
    Message { not_before: Some(at(seconds)), ..message }
}

fn retraction(endpoint: &str, name: &str, of: &str) -> Message {
    Message { retracts: Some(id(of)), ..message(endpoint, 1, name) }
}

/// One endpoint that gets the newest only, and cannot be reached just now.
fn stuck_with_newest_only() -> Queue {
    let newest =
        EndpointSettings { supersede: true, in_flight_max: 1, ..settings("sfa", Mode::Live) };
    let mut queue = queue_with(Limits::default(), &[newest]);
    queue.step(Input::Enqueue(message("sfa", 99, "first")), START);
    queue
}

fn outcomes(effects: &[Effect]) -> Vec<(String, Outcome)> {
    let records = journaled(effects).into_iter();
    records.map(|record| (record.message.as_str().to_owned(), record.outcome)).collect()
}

fn ids(queue: &Queue) -> Vec<String> {
    queue.outstanding().iter().map(|it| it.message.id.as_str().to_owned()).collect()
}

#[test]
fn a_held_message_waits_until_its_time_and_is_sent_then() {
    let mut queue = live(&["chat"]);
    let effects = queue.step(Input::Enqueue(held(message("chat", 1, "a"), 600)), START);
    assert_eq!(effects, [Effect::WakeAt(at(600))]);
    assert_eq!(sent(&queue.step(Input::Tick, at(599))), []);
    assert_eq!(sent(&queue.step(Input::Tick, at(600))), [("chat", "a", 1)]);
}

#[test]
fn a_message_is_not_held_longer_than_holidays_whatever_its_record_says() {
    let mut queue = Queue::new(Limits::default());
    queue.step(Input::EndpointChanged(settings("chat", Mode::Live)), START);
    let for_ever = Message { not_before: Some(Timestamp(u64::MAX)), ..message("chat", 1, "a") };
    queue.step(Input::Enqueue(for_ever), START);
    let end = START.plus(HELD_MAX);
    assert_eq!(queue.step(Input::Loaded, START), [Effect::WakeAt(end)]);
    assert_eq!(sent(&queue.step(Input::Tick, end)), [("chat", "a", 1)]);
}

#[test]
fn only_the_newest_state_is_kept_for_an_endpoint_that_wants_it_so() {
    let mut queue = stuck_with_newest_only();
    queue.step(Input::Enqueue(state("sfa", "hot")), START);
    queue.step(Input::Enqueue(message("sfa", 1, "action")), START);
    queue.step(Input::Enqueue(Message { topic: Some("hr".into()), ..state("sfa", "hr") }), START);
    queue.step(Input::Enqueue(Message { lead: LeadRef(2), ..state("sfa", "other") }), START);
    let cooled = queue.step(Input::Enqueue(state("sfa", "cooled")), START);
    let by = id("cooled");
    assert_eq!(outcomes(&cooled), [("hot".to_owned(), Outcome::Superseded { by })]);
    assert_eq!(journaled(&cooled)[0].state, Delivery::Dropped);
    assert_eq!(ids(&queue), ["first", "action", "hr", "other", "cooled"]);
    assert_eq!(queue.figures().counters.superseded, 1);
}

#[test]
fn every_state_is_sent_in_order_unless_the_endpoint_wants_the_newest_only() {
    let mut queue = live(&["sfa"]);
    queue.step(Input::Enqueue(state("sfa", "hot")), START);
    for name in ["up", "cooled"] {
        assert_eq!(outcomes(&queue.step(Input::Enqueue(state("sfa", name)), START)), []);
    }
    assert_eq!(ids(&queue), ["hot", "up", "cooled"]);
}

#[test]
fn what_was_attempted_or_asked_for_again_is_not_replaced() {
    let mut queue = stuck_with_newest_only();
    queue.step(answered("sfa", "first", 1, 200), START);
    queue.step(Input::Enqueue(state("sfa", "hot")), START);
    assert_eq!(outcomes(&queue.step(Input::Enqueue(state("sfa", "in_flight")), START)), []);
    queue.step(answered("sfa", "hot", 1, 500), START);
    let effects = queue.step(Input::Enqueue(state("sfa", "newest")), START);
    let by = id("newest");
    assert_eq!(outcomes(&effects), [("in_flight".to_owned(), Outcome::Superseded { by })]);
    assert_eq!(ids(&queue), ["hot", "newest"]);
    queue.step(Input::Tick, at(5));
    queue.step(answered("sfa", "hot", 2, 410), at(5));
    queue.step(
        Input::EndpointChanged(EndpointSettings { supersede: true, ..settings("sfa", Mode::Live) }),
        at(5),
    );
    let which = Resend::Since(START);
    queue.step(Input::Resend { endpoint: endpoint_id("sfa"), which }, at(5));
    assert_eq!(outcomes(&queue.step(Input::Enqueue(state("sfa", "late")), at(5))), []);
}

#[test]
fn a_held_message_that_is_taken_back_is_never_sent_and_neither_is_what_takes_it_back() {
    let mut queue = live(&["chat", "sfa"]);
    queue.step(Input::Enqueue(held(message("chat", 1, "hot"), 600)), START);
    queue.step(Input::Enqueue(message("sfa", 1, "hot")), START);
    let back = |endpoint: &str| Input::Enqueue(retraction(endpoint, "back", "hot"));
    let chat = queue.step(back("chat"), START);
    let retracted = Outcome::Retracted { by: id("back") };
    let both = ["hot", "back"].map(|name| (name.to_owned(), retracted.clone()));
    assert_eq!(outcomes(&chat), both);
    let sfa = queue.step(back("sfa"), START);
    assert_eq!(outcomes(&sfa), [], "it is in flight there");
    assert_eq!(ids(&queue), ["hot", "back"]);
    assert_eq!(queue.figures().counters.retracted, 2);
}

#[test]
fn a_message_that_may_have_been_sent_before_a_restart_is_taken_back_by_another() {
    let mut queue = Queue::new(Limits::default());
    let newest = EndpointSettings { supersede: true, ..settings("sfa", Mode::Live) };
    queue.step(Input::EndpointChanged(newest), START);
    queue.step(Input::Enqueue(message("sfa", 1, "hot")), START);
    queue.step(Input::Enqueue(retraction("sfa", "back", "hot")), START);
    let loaded = queue.step(Input::Loaded, START);
    assert_eq!(outcomes(&loaded), []);
    assert_eq!(sent(&loaded), [("sfa", "hot", 1)]);
}

#[test]
fn what_others_are_told_ends_what_waits_for_people_to_work() {
    let mut queue = live(&["chat"]);
    let overtaken = |by: &str, lead: u128, topic: Option<&str>, retracts: Option<&str>| {
        Input::Overtaken(Overtaking {
            endpoint: endpoint_id("chat"),
            lead: LeadRef(lead),
            by: id(by),
            topic: topic.map(Into::into),
            retracts: retracts.map(id),
        })
    };
    queue.step(Input::Enqueue(held(state("chat", "hot"), 600)), START);
    queue.step(Input::Enqueue(held(message("chat", 1, "action"), 600)), START);
    let event = Message { event: true, lead: LeadRef(2), ..held(state("chat", "quote"), 600) };
    queue.step(Input::Enqueue(event), START);
    assert_eq!(outcomes(&queue.step(overtaken("x", 1, Some("hr"), None), START)), []);
    let effects = queue.step(overtaken("cooled", 1, Some("sales"), None), START);
    let by = id("cooled");
    assert_eq!(outcomes(&effects), [("hot".to_owned(), Outcome::Superseded { by })]);
    let still = queue.step(overtaken("cooled", 2, Some("sales"), None), START);
    assert_eq!(outcomes(&still), [], "somebody asked for a quote");
    let effects = queue.step(overtaken("back", 1, None, Some("action")), START);
    let by = id("back");
    assert_eq!(outcomes(&effects), [("action".to_owned(), Outcome::Retracted { by })]);
    queue.step(Input::Enqueue(state("chat", "on_its_way")), START);
    assert_eq!(outcomes(&queue.step(overtaken("late", 1, Some("sales"), None), START)), []);
}

#[test]
fn what_a_crash_kept_from_being_written_down_is_dropped_after_loading() {
    let mut queue = Queue::new(Limits::default());
    queue.step(Input::EndpointChanged(settings("chat", Mode::Live)), START);
    for name in ["hot", "up"] {
        queue.step(Input::Enqueue(held(state("chat", name), 600)), START);
    }
    queue.step(Input::Enqueue(held(message("chat", 2, "hr"), 600)), START);
    queue.step(
        Input::Overtaken(Overtaking {
            endpoint: endpoint_id("chat"),
            lead: LeadRef(2),
            by: id("back"),
            topic: None,
            retracts: Some(id("hr")),
        }),
        START,
    );
    let loaded = queue.step(Input::Loaded, START);
    let expected = [
        ("hot".to_owned(), Outcome::Superseded { by: id("up") }),
        ("hr".to_owned(), Outcome::Retracted { by: id("back") }),
    ];
    assert_eq!(outcomes(&loaded), expected);
    assert_eq!(ids(&queue), ["up"]);
}

#[test]
fn an_endpoint_that_is_down_cannot_take_the_room_of_another() {
    let limits = Limits { bodies_bytes_max: 400, ..Limits::default() };
    let mut queue = queue_with(limits, &[settings("down", Mode::Live), settings("up", Mode::Live)]);
    let body = |endpoint: &str, name: String| {
        let body = Bytes::from(vec![b'x'; 10]);
        Input::Enqueue(Message { body, ..message(endpoint, 1, &name) })
    };
    let taken = |queue: &mut Queue, endpoint: &str| {
        let fits = |number: &u32| {
            let effects = queue.step(body(endpoint, format!("{endpoint}{number}")), START);
            refused(&effects).is_empty()
        };
        (0..100).take_while(fits).count()
    };
    assert_eq!(taken(&mut queue, "down"), 30);
    assert_eq!(taken(&mut queue, "up"), 10);
    assert_eq!(queue.figures().bodies_bytes, 400);
}

#[test]
fn what_was_queued_by_a_clock_ten_years_ahead_is_sent_when_the_clock_is_right_again() {
    let ahead = START.plus(Duration::from_hours(10 * 365 * 24));
    let mut queue = Queue::new(Limits::default());
    queue.step(Input::EndpointChanged(settings("sfa", Mode::Live)), ahead);
    // given one that was never tried, and one that failed, ten years from now
    queue.step(Input::Enqueue(message("sfa", 1, "a")), ahead);
    queue.step(Input::Enqueue(message("sfa", 2, "b")), ahead);
    let record = AttemptRecord {
        endpoint: endpoint_id("sfa"),
        message: id("b"),
        attempt: 1,
        at: ahead,
        outcome: Outcome::Failed { error: SendError::Deadline, duration_ms: 1 },
        state: Delivery::Waiting { attempts: 1, until: ahead.plus(Duration::from_secs(5)) },
    };
    queue.step(Input::Replayed(record), ahead);
    // when it is loaded now, the first leaves at once, the second within a day
    assert_eq!(sent(&queue.step(Input::Loaded, START)), [("sfa", "a", 1)]);
    assert_eq!(sent(&queue.step(Input::Tick, START.plus(RETRY_AFTER_MAX))), [("sfa", "b", 2)]);
}

#[test]
fn nothing_is_sent_while_loading_and_a_wait_from_a_wrong_clock_is_cut_to_a_day() {
    let mut queue = Queue::new(Limits::default());
    queue.step(Input::EndpointChanged(settings("sfa", Mode::Live)), START);
    assert_eq!(queue.step(Input::Enqueue(message("sfa", 1, "a")), START), []);
    let record = AttemptRecord {
        endpoint: endpoint_id("sfa"),
        message: id("a"),
        attempt: 1,
        at: START,
        outcome: Outcome::Failed { error: SendError::Deadline, duration_ms: 1 },
        state: Delivery::Waiting { attempts: 1, until: Timestamp(u64::MAX) },
    };
    assert_eq!(queue.step(Input::Replayed(record), START), []);
    let day = START.plus(RETRY_AFTER_MAX);
    assert_eq!(queue.step(Input::Loaded, START), [Effect::WakeAt(day)]);
    assert_eq!(sent(&queue.step(Input::Tick, day)), [("sfa", "a", 2)]);
}
