//! Threads whose every turn is decided by chance from a seed: what eight people do to the same
//! few people at once ends, loses nothing, and is what its journal says. A failure prints the
//! schedule that repeats it.
//!
//! `RUSTFLAGS="--cfg shuttle" cargo test -p engine --release --test shuttle`
#![cfg(shuttle)]
#![allow(clippy::unwrap_used)]

mod model;

use std::sync::OnceLock;
use std::time::Duration;

use shuttle::rand::{RngCore, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::{Arc, Mutex};
use shuttle::{Config, Runner, thread};

use engine::engine::{Arrival, Authority, Engine, Ingested, Means};
use engine::facts::Source;
use engine::hit::{Claim, Hit, HitKind, Named};
use engine::id::{LeadId, Position, VisitorId};
use engine::identity::{Assurance, IdentityKind};
use engine::record::{Body, Record, StepRecord, Withdrawn};
use engine::scoring::Scoring;
use engine::time::Timestamp;

use model::chance::Chance;
use model::rules::mixed;
use model::whole::nothing_lost;
use model::world::{self, Journal, at, browser, named};

const THREADS: u64 = 8;
const STEPS: u64 = 5;
const ITERATIONS: usize = 4_000;
/// Priorities change so often in one schedule of the second kind.
const CHANGES: usize = 3;

fn scoring() -> &'static Scoring {
    static SCORING: OnceLock<Scoring> = OnceLock::new();
    SCORING.get_or_init(|| mixed().build(1))
}

/// What the threads share.
struct Shared {
    engine: Engine,
    journal: Mutex<Journal>,
}

impl Shared {
    fn push(&self, record: &Record) -> Position {
        self.journal.lock().unwrap().push(record)
    }

    /// Takes hits in one turn.
    fn ingest(&self, hits: Vec<Hit>) {
        let mut push = |record: &Record| self.push(record);
        let mut turn = self.engine.turn();
        for hit in hits {
            let mut arrival = Arrival { hit, first: None };
            while let Ingested::Stale(again) = turn.ingest(arrival, scoring(), &mut push) {
                arrival = *again;
                thread::yield_now();
            }
        }
    }

    fn step<T>(
        &self,
        now: Timestamp,
        act: impl FnOnce(&Engine, &Authority, &mut Means<'_, '_>) -> T,
    ) -> T {
        let why = Authority::default();
        let mut push = |record: &Record| self.push(record);
        act(&self.engine, &why, &mut Means { scoring: scoring(), now, push: &mut push })
    }

    /// The steps so far.
    fn steps(&self) -> Vec<(Position, StepRecord)> {
        let journal = self.journal.lock().unwrap();
        let step = |(position, record): (Position, Record)| match record.body {
            Body::Step(step) => Some((position, *step)),
            _ => None,
        };
        journal.records().filter_map(step).collect()
    }
}

fn person(chance: &mut Chance, assurance: Assurance) -> Named {
    let kind = *chance.pick(&IdentityKind::ORDER[1..]);
    named(kind, &format!("person{}@x.example", chance.below(2)), assurance)
}

fn hit(chance: &mut Chance, now: Timestamp) -> Hit {
    let mut hit = Hit {
        visitor: Some(browser(chance.below(2))),
        received: now,
        when: now,
        path: (*chance.pick(&["/pricing", "/case/line", "/careers"])).to_owned(),
        ..Hit::default()
    };
    if chance.percent(50) {
        let proved = chance.percent(40);
        let assurance = if proved { Assurance::Verified } else { Assurance::Claimed };
        let mut names = vec![person(chance, assurance)];
        if chance.percent(40) {
            names.push(person(chance, assurance));
        }
        hit.kind = HitKind::Identify;
        hit.by_server = proved;
        hit.claim = Some(Claim { names, attributes_by: assurance, ..Claim::default() });
    }
    hit
}

fn act(shared: &Shared, chance: &mut Chance, now: Timestamp) {
    let sure = Assurance::Claimed;
    let [one, other]: [LeadId; 2] = [(); 2].map(|()| person(chance, sure).id);
    let visitor = browser(chance.below(2));
    match chance.below(14) {
        0 | 1 => drop(shared.step(now, |engine, why, it| engine.merge(one, other, why, it))),
        2 => drop(shared.step(now, |engine, why, it| engine.unmerge(one, why, it))),
        3 => drop(shared.step(now, |engine, why, it| engine.link(visitor, one, sure, why, it))),
        4 => drop(shared.step(now, |engine, why, it| engine.unlink(visitor, one, why, it))),
        5 => {
            let steps = shared.steps();
            if let Some((position, step)) = (!steps.is_empty()).then(|| chance.pick(&steps)) {
                let _ = shared.step(now, |engine, why, it| engine.undo((step, *position), why, it));
            }
        }
        6 => {
            shared.engine.advance(now, scoring(), &mut |record| shared.push(record));
        }
        7 => withdraw(shared, visitor, now),
        _ => shared.ingest((0..=chance.below(2)).map(|_| hit(chance, now)).collect()),
    }
}

/// Withdraws the first hits of a browser.
fn withdraw(shared: &Shared, visitor: VisitorId, now: Timestamp) {
    let rows = shared.engine.visitor(visitor, now).map(|known| known.rows).unwrap_or_default();
    let of_row = |row: &engine::ledger::Row| Withdrawn {
        position: row.position,
        when: row.when,
        source: Source::Visitor(visitor),
        human: true,
        out: true,
        ..Withdrawn::default()
    };
    let hits: Vec<Withdrawn> = rows.in_order().iter().take(2).map(of_row).collect();
    shared.step(now, |engine, why, means| {
        world::withdraw(engine, visitor, &hits, (Position::NONE, why), means);
    });
}

/// Eight threads on two browsers and two people with two names each.
fn history() {
    let start = at("2026-12-01 09:00");
    let shared = Arc::new(Shared { engine: Engine::new(2), journal: Mutex::default() });
    let threads: Vec<_> = (0..THREADS)
        .map(|number| {
            let (shared, seed) = (Arc::clone(&shared), thread_rng().next_u64());
            thread::spawn(move || {
                let mut chance = Chance::new(seed ^ number);
                for step in 0..STEPS {
                    act(&shared, &mut chance, start.plus(Duration::from_mins(7 * step)));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let end = start.plus(Duration::from_hours(24 * 30));
    shared.engine.advance(end, scoring(), &mut |record| shared.push(record));
    let journal = shared.journal.lock().unwrap().clone();
    let replayed = journal.replay(4).state_hash(end);
    assert_eq!(replayed, shared.engine.state_hash(end), "live is replay");
    nothing_lost(&shared.engine, &journal, end).unwrap_or_else(|wrong| panic!("{wrong}"));
}

fn check(scheduler: impl Scheduler + 'static) {
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    Runner::new(scheduler, config).run(history);
}

#[test]
fn threads_that_take_turns_by_chance_meet_no_deadlock_and_lose_nothing() {
    check(RandomScheduler::new(ITERATIONS));
}

#[test]
fn threads_that_are_kept_waiting_for_long_meet_no_deadlock_and_lose_nothing() {
    check(PctScheduler::new(CHANGES, ITERATIONS));
}
