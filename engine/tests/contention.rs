//! Threads on few hot keys: the order in memory is the order in the journal, whoever wins.
#![allow(clippy::unwrap_used)]

mod model;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use engine::engine::{Arrival, Engine, Ingested};
use engine::hit::{Hit, HitKind};
use engine::identity::Assurance;
use engine::record::Record;
use engine::scoring::Scoring;
use engine::time::Timestamp;

use model::chance::{Chance, seeds};
use model::rules::{example, mixed};
use model::world::{Journal, at, browser, claim, lead_of};

const MAILS: [&str; 3] = ["a@x.example", "b@x.example", "c@x.example"];
const PATHS: [&str; 5] = ["/pricing", "/case/line", "/thanks/contact", "/careers", "/column/a"];

/// What the threads share. `done` counts what they finished: a thread that waits for ever is
/// seen by its count, not by a clock.
struct Shared {
    engine: Engine,
    journal: Mutex<Journal>,
    scoring: Scoring,
    done: AtomicUsize,
}

impl Shared {
    fn new(shards: usize, scoring: Scoring) -> Shared {
        Shared {
            engine: Engine::new(shards),
            journal: Mutex::default(),
            scoring,
            done: AtomicUsize::new(0),
        }
    }

    fn ingest(&self, hit: Hit) -> Ingested {
        let arrival = Arrival { hit, first: None };
        let mut push = |record: &Record| self.journal.lock().unwrap().push(record);
        let done = self.engine.ingest(arrival, &self.scoring, &mut push);
        self.done.fetch_add(1, Ordering::Relaxed);
        done
    }

    fn advance(&self, now: Timestamp) {
        let mut push = |record: &Record| self.journal.lock().unwrap().push(record);
        self.engine.advance(now, &self.scoring, &mut push);
    }

    fn replays_alike(&self, now: Timestamp, seed: u64) {
        let live = self.engine.state_hash(now);
        let journal = self.journal.lock().unwrap();
        for shards in [2, 8, 1_024] {
            let replayed = journal.replay(shards).state_hash(now);
            assert_eq!(replayed, live, "seed {seed}, {shards} shards");
        }
    }
}

fn random_hit(chance: &mut Chance, now: Timestamp, visitors: u64) -> Hit {
    let mut hit = Hit {
        visitor: Some(browser(chance.below(visitors))),
        received: now,
        when: now,
        path: (*chance.pick(&PATHS)).to_owned(),
        id: chance.below(500),
        ..Hit::default()
    };
    match chance.below(10) {
        0..2 => {
            hit.kind = HitKind::Identify;
            hit.claim = Some(claim(MAILS[chance.below(3) as usize], Assurance::Claimed));
        }
        2 => {
            hit.visitor = None;
            hit.by_server = true;
            hit.claim = Some(claim(MAILS[chance.below(3) as usize], Assurance::Verified));
        }
        3 => hit.kind = HitKind::Reset,
        _ => {}
    }
    hit
}

#[test]
fn replay_of_what_many_threads_did_gives_the_same_state() {
    const HITS: usize = 250;
    let start = at("2026-12-01 09:00");
    for seed in seeds(12) {
        let threads = 1 + (seed as usize % 8);
        let shards = [2, 8, 1_024][seed as usize % 3];
        let shared = Shared::new(shards, mixed().build(1));
        thread::scope(|scope| {
            for number in 0..threads {
                let shared = &shared;
                scope.spawn(move || {
                    let mut chance = Chance::new(seed << 8 | number as u64);
                    for step in 0..HITS {
                        let now = start.plus(Duration::from_mins(20 * step as u64));
                        shared.ingest(random_hit(&mut chance, now, 4));
                        if step % 10 == 0 {
                            shared.advance(now);
                        }
                    }
                });
            }
        });
        assert_eq!(shared.done.load(Ordering::Relaxed), threads * HITS, "seed {seed}");
        let end = start.plus(Duration::from_hours(24 * 60));
        shared.advance(end);
        shared.replays_alike(end, seed);
    }
}

#[test]
fn two_threads_that_say_who_one_visitor_is_meet_no_deadlock_and_lose_nothing() {
    const ROUNDS: u64 = 400;
    let now = at("2026-12-01 09:00");
    let shared = Shared::new(2, example().build(1));
    thread::scope(|scope| {
        for mail in MAILS.into_iter().take(2) {
            let shared = &shared;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    // The same visitors in the same order, each thread with its own person.
                    let visitor = Some(browser(round));
                    let said = Some(claim(mail, Assurance::Claimed));
                    let hit = Hit { visitor, received: now, when: now, ..Hit::default() };
                    shared.ingest(Hit { path: "/pricing".into(), ..hit.clone() });
                    shared.ingest(Hit { kind: HitKind::Identify, claim: said, ..hit });
                }
            });
        }
    });
    assert_eq!(shared.done.load(Ordering::Relaxed), 4 * ROUNDS as usize);
    shared.replays_alike(now, 0);
    let links = |mail| shared.engine.lead(lead_of(mail)).unwrap().links.len();
    let refused = shared.engine.links_refused();
    assert!(links(MAILS[0]) <= 50 && links(MAILS[1]) <= 50);
    assert!(refused > 0, "the limit on claimed browsers was met");
}

#[test]
fn many_browsers_of_one_person_and_time_itself_meet_no_deadlock() {
    const ROUNDS: u64 = 200;
    let start = at("2026-12-01 09:00");
    let shared = Shared::new(2, mixed().build(1));
    thread::scope(|scope| {
        for number in 0..6_u64 {
            let shared = &shared;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let now = start.plus(Duration::from_hours(round));
                    if number >= 4 {
                        shared.advance(now);
                        shared.engine.rebuild_timers(&shared.scoring);
                        shared.engine.sweep(now);
                        let _ = shared.engine.state_hash(now);
                        shared.done.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    let visitor = Some(browser(number));
                    let said = Some(claim(MAILS[0], Assurance::Claimed));
                    let path = PATHS[round as usize % 5].to_owned();
                    let hit = Hit { visitor, received: now, when: now, path, ..Hit::default() };
                    shared.ingest(Hit { claim: said, ..hit });
                }
            });
        }
    });
    assert_eq!(shared.done.load(Ordering::Relaxed), 6 * ROUNDS as usize);
    let end = start.plus(Duration::from_hours(ROUNDS));
    shared.replays_alike(end, 0);
    assert_eq!(shared.engine.lead(lead_of(MAILS[0])).unwrap().hits, 4 * ROUNDS as u32);
}
