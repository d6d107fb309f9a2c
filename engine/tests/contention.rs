//! Threads on few hot keys: the order in memory is the order in the journal, whoever wins, and
//! nobody waits for ever.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "the engine is pure; its caller has threads")]

mod model;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, RwLock};
use std::thread;
use std::time::Duration;

use engine::engine::{Arrival, Audit, Authority, Engine, Ingested, Means};
use engine::facts::Source;
use engine::hit::{Hit, HitKind};
use engine::id::{LeadId, Position, Slot, VisitorId};
use engine::identity::{Assurance, IdentityKind};
use engine::record::{Body, Published, Record, Step, StepRecord, Withdrawn};
use engine::scoring::Scoring;
use engine::time::Timestamp;

use model::chance::{Chance, seeds};
use model::claims::random_hit;
use model::rules::{example, mixed};
use model::sales::random_answer;
use model::whole::nothing_lost;
use model::world::{self, Journal, at, browser, claim, lead_of, named};

const MAILS: [&str; 3] = ["a@x.example", "b@x.example", "c@x.example"];
const PATHS: [&str; 5] = ["/pricing", "/case/line", "/thanks/contact", "/careers", "/column/a"];
/// A thread that is not done after this long waits for ever: the test fails and does not hang.
const FOR_EVER: Duration = Duration::from_mins(3);

/// What the threads share.
struct Shared {
    engine: Engine,
    journal: Mutex<Journal>,
    scoring: RwLock<Arc<Scoring>>,
}

impl Shared {
    fn new(shards: usize, scoring: Scoring) -> Arc<Shared> {
        Arc::new(Shared {
            engine: Engine::new(shards),
            journal: Mutex::default(),
            scoring: RwLock::new(Arc::new(scoring)),
        })
    }

    fn scoring(&self) -> Arc<Scoring> {
        Arc::clone(&self.scoring.read().unwrap())
    }

    /// Takes a hit, under the newest rules.
    fn ingest(&self, hit: &Hit) -> Ingested {
        let mut push = |record: &Record| self.journal.lock().unwrap().push(record);
        let mut arrival = Arrival { hit: hit.clone(), first: None };
        loop {
            match self.engine.ingest(arrival, &self.scoring(), &mut push) {
                Ingested::Stale(again) => arrival = *again,
                done => return done,
            }
            thread::yield_now();
        }
    }

    /// Takes hits in one turn.
    fn ingest_in_turn(&self, hits: &[Hit]) {
        let mut push = |record: &Record| self.journal.lock().unwrap().push(record);
        let mut turn = self.engine.turn();
        for hit in hits {
            let mut arrival = Arrival { hit: hit.clone(), first: None };
            while let Ingested::Stale(again) = turn.ingest(arrival, &self.scoring(), &mut push) {
                arrival = *again;
                thread::yield_now();
            }
        }
    }

    fn advance(&self, now: Timestamp) {
        let mut push = |record: &Record| self.journal.lock().unwrap().push(record);
        self.engine.advance(now, &self.scoring(), &mut push);
    }

    fn step<T>(
        &self,
        now: Timestamp,
        act: impl FnOnce(&Engine, &Authority, &mut Means<'_, '_>) -> T,
    ) -> T {
        let scoring = self.scoring();
        let mut push = |record: &Record| self.journal.lock().unwrap().push(record);
        let why = Authority { actor: "operator".into(), ..Authority::default() };
        act(&self.engine, &why, &mut Means { scoring: &scoring, now, push: &mut push })
    }

    /// Another version: the record first, then the rules. Only one thread publishes.
    fn publish(&self, now: Timestamp) {
        let before = self.scoring();
        let scoring = mixed().with_sales().build_after(&before.versions, before.version + 1, now);
        let terms = scoring.terms().clone();
        let published = Published { names: Vec::new(), terms, text: Vec::new() };
        let mut push = |record: &Record| self.journal.lock().unwrap().push(record);
        self.engine.publish(published, now, &mut push);
        *self.scoring.write().unwrap() = Arc::new(scoring);
    }

    fn replays_alike(&self, now: Timestamp, seed: u64) {
        let live = self.engine.state_hash(now);
        let journal = self.journal.lock().unwrap();
        for shards in [2, 8, 1_024] {
            let replayed = journal.replay(shards).state_hash(now);
            assert_eq!(replayed, live, "seed {seed}, {shards} shards");
        }
    }

    fn nothing_is_lost(&self, now: Timestamp, seed: u64) {
        let journal = self.journal.lock().unwrap();
        let whole = nothing_lost(&self.engine, &journal, now);
        whole.unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    }
}

/// Runs threads on what they share until all are done.
fn run(
    shared: &Arc<Shared>,
    threads: usize,
    what: impl Fn(&Shared, usize) + Copy + Send + 'static,
) {
    let (done, finished) = channel();
    for number in 0..threads {
        let (shared, done): (_, Sender<()>) = (Arc::clone(shared), done.clone());
        thread::spawn(move || {
            what(&shared, number);
            done.send(()).unwrap();
        });
    }
    drop(done);
    for number in 0..threads {
        match finished.recv_timeout(FOR_EVER) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => panic!("only {number} of {threads} threads end"),
            Err(RecvTimeoutError::Disconnected) => panic!("a thread has panicked"),
        }
    }
}

fn small_hit(chance: &mut Chance, now: Timestamp, visitors: u64) -> Hit {
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

/// What one sender sends at once: nearly always of one browser.
fn several(chance: &mut Chance, hit: impl Fn(&mut Chance) -> Hit) -> Vec<Hit> {
    let count = if chance.percent(60) { 1 } else { 2 + chance.below(5) };
    let mut hits: Vec<Hit> = (0..count).map(|_| hit(chance)).collect();
    let browser = hits[0].visitor;
    for hit in hits.iter_mut().filter(|hit| hit.visitor.is_some() && chance.percent(80)) {
        hit.visitor = browser;
    }
    hits
}

#[test]
fn hits_of_one_turn_are_decided_and_recorded_as_if_each_had_one_of_its_own() {
    const SENDERS: u64 = 150;
    for seed in seeds(24) {
        let mut chance = Chance::new(seed);
        let [together, alone] = [(); 2].map(|()| Shared::new(8, mixed().with_sales().build(1)));
        let mut now = at("2026-12-01 09:00");
        for sender in 0..SENDERS {
            now = now.plus(Duration::from_mins(chance.below(40)));
            let mut hits = several(&mut chance, |chance| random_hit(chance, now));
            if sender == 0 {
                // More than anybody stays awake for.
                let one = hits[0].clone();
                let again = |id: u64| Hit { id: 1_000 + id, ..one.clone() };
                hits.extend((0..300).map(again));
            }
            together.ingest_in_turn(&hits);
            for hit in &hits {
                alone.ingest(hit);
            }
        }
        let [together, alone] = [&together, &alone].map(|it| it.journal.lock().unwrap());
        assert_eq!(together.0, alone.0, "seed {seed}");
    }
}

#[test]
fn replay_of_what_many_threads_did_gives_the_same_state() {
    const HITS: usize = 250;
    let start = at("2026-12-01 09:00");
    for seed in seeds(12) {
        let threads = 1 + (seed as usize % 8);
        let shards = [2, 8, 1_024][seed as usize % 3];
        let shared = Shared::new(shards, mixed().build(1));
        run(&shared, threads, move |shared, number| {
            let mut chance = Chance::new(seed << 8 | number as u64);
            for step in 0..HITS {
                let now = start.plus(Duration::from_mins(20 * step as u64));
                let hits = several(&mut chance, |chance| small_hit(chance, now, 4));
                shared.ingest_in_turn(&hits);
                if step % 10 == 0 {
                    shared.advance(now);
                }
            }
        });
        let end = start.plus(Duration::from_hours(24 * 60));
        shared.advance(end);
        shared.replays_alike(end, seed);
        shared.nothing_is_lost(end, seed);
    }
}

#[test]
fn who_is_erased_while_others_speak_of_them_leaves_nothing_from_before() {
    const HITS: usize = 200;
    let start = at("2026-12-01 09:00");
    for seed in seeds(12) {
        let threads = 2 + (seed as usize % 7);
        let shared = Shared::new([2, 8, 1_024][seed as usize % 3], mixed().build(1));
        run(&shared, threads, move |shared, number| {
            let mut chance = Chance::new(seed << 8 | number as u64);
            for step in 0..HITS {
                let now = start.plus(Duration::from_mins(20 * step as u64));
                let [one, other] = [(); 2].map(|()| lead_of(MAILS[chance.below(3) as usize]));
                match chance.below(25) {
                    0 => drop(shared.step(now, |engine, why, it| engine.erase(one, why, it))),
                    1 => {
                        let joins = |engine: &Engine, why: &Authority, it: &mut Means<'_, '_>| {
                            engine.merge(one, other, why, it).is_ok()
                        };
                        let _ = shared.step(now, joins);
                    }
                    2 => shared.advance(now),
                    _ => {
                        let _ = shared.ingest(&small_hit(&mut chance, now, 4));
                    }
                }
            }
        });
        let end = start.plus(Duration::from_hours(24 * 60));
        shared.advance(end);
        shared.replays_alike(end, seed);
        let engine = &shared.engine;
        assert!(!engine.erasures().is_empty(), "seed {seed}: nobody was erased");
        for (name, (erased, _)) in engine.erasures() {
            let Some(lead) = engine.lead(name) else {
                continue;
            };
            let content = &lead.content;
            let own = content.members.iter().filter(|member| member.id == name);
            assert!(own.into_iter().all(|it| it.first_position > erased), "seed {seed}");
            let said = content.said.iter().filter(|said| said.origin == name);
            assert!(said.into_iter().all(|it| it.position > erased), "seed {seed}");
        }
        // Whatever browser knew them when they were erased has forgotten them since.
        let past = Engine::new(2);
        for (position, record) in shared.journal.lock().unwrap().records() {
            if let Body::Step(step) = &record.body
                && let Step::Erase { names } = &step.step
                && step.lead.is_some()
            {
                for number in 0..4 {
                    let knew = past.visitor(browser(number), record.time).is_some_and(|held| {
                        held.named_ones().iter().any(|name| names.contains(name))
                    });
                    let held = engine.visitor(browser(number), end).filter(|_| knew);
                    let forgot = held.is_none_or(|held| held.erased > position);
                    assert!(forgot, "seed {seed}: browser {number}, erased at {}", position.0);
                }
            }
            past.evolve(&record, position);
        }
    }
}

/// Does what eight people at eight desks may do to the same few people at once.
fn act(shared: &Shared, chance: &mut Chance, now: Timestamp) {
    let person = |chance: &mut Chance| -> LeadId {
        let kind = *chance.pick(&IdentityKind::ORDER);
        named(kind, &format!("person{}@x.example", chance.below(4)), Assurance::Claimed).id
    };
    let (one, other) = (person(chance), person(chance));
    let visitor = browser(chance.below(model::undo::BROWSERS));
    let kind = chance.below(20);
    let earlier = || last_steps(&shared.journal.lock().unwrap());
    let (sure, hits) = (Assurance::Claimed, chance.below(40));
    match kind {
        0 => drop(shared.step(now, |engine, why, it| engine.merge(one, other, why, it))),
        1 => drop(shared.step(now, |engine, why, it| engine.unmerge(one, why, it))),
        2 => drop(shared.step(now, |engine, why, it| engine.link(visitor, one, sure, why, it))),
        3 => drop(shared.step(now, |engine, why, it| engine.unlink(visitor, one, why, it))),
        4 => withdraw(shared, visitor, hits, now),
        5 => {
            let steps = earlier();
            if let Some((position, step)) = (!steps.is_empty()).then(|| chance.pick(&steps)) {
                let _ = shared.step(now, |engine, why, it| engine.undo((step, *position), why, it));
            }
        }
        6 => shared.advance(now),
        7 => {
            let _ = shared.step(now, |engine, why, it| engine.confirm(visitor, one, why, it));
        }
        8 | 9 => {
            let answer = random_answer(chance, one, now);
            let _ = shared.step(now, |engine, _, it| engine.answer(one, answer, it));
        }
        _ => shared.ingest_in_turn(&several(chance, |chance| random_hit(chance, now))),
    }
}

/// The last steps of a journal.
fn last_steps(journal: &Journal) -> Vec<(Position, StepRecord)> {
    let from = journal.0.len().saturating_sub(60);
    let steps = journal.records_from(from).filter_map(|(position, record)| match record.body {
        Body::Step(step) => Some((position, *step)),
        _ => None,
    });
    steps.collect()
}

/// Withdraws hits of a browser from its ledger and from people's.
fn withdraw(shared: &Shared, visitor: VisitorId, number: u64, now: Timestamp) {
    let source = Source::Visitor(visitor);
    let records: Vec<(Position, Record)> = {
        let journal = shared.journal.lock().unwrap();
        journal.records_from(number as usize).take(5).collect()
    };
    let of_hit = |(position, record): &(Position, Record)| match &record.body {
        Body::Hit(record) if record.hit.visitor == Some(visitor) => Some(Withdrawn {
            position: *position,
            when: record.hit.when,
            source,
            human: record.hit.is_human(),
            out: true,
            ..Withdrawn::default()
        }),
        _ => None,
    };
    let hits: Vec<Withdrawn> = records.iter().filter_map(of_hit).collect();
    shared.step(now, |engine, why, means| {
        world::withdraw(engine, visitor, &hits, (Position::NONE, why), means);
    });
}

#[test]
fn eight_threads_that_join_part_give_and_take_the_same_people_lose_nothing() {
    const STEPS: u64 = 120;
    let start = at("2026-12-01 09:00");
    for seed in seeds(12) {
        let shards = [2, 8, 1_024][seed as usize % 3];
        let shared = Shared::new(shards, mixed().with_sales().build(1));
        run(&shared, 8, move |shared, number| {
            let mut chance = Chance::new(seed << 8 | number as u64);
            for step in 0..STEPS {
                let now = start.plus(Duration::from_mins(7 * step));
                act(shared, &mut chance, now);
                if number == 0 && step % 40 == 39 {
                    shared.publish(now);
                }
            }
        });
        let end = start.plus(Duration::from_hours(24 * 60));
        shared.advance(end);
        shared.replays_alike(end, seed);
        shared.nothing_is_lost(end, seed);
    }
}

/// One audit of some slots, from the first record on, while others are at work.
fn audit(shared: &Shared, slots: std::ops::Range<u16>, now: Timestamp) -> usize {
    let pushed = Position::new(0, shared.journal.lock().unwrap().0.len() as u64);
    let mut audit = Audit::begin(&shared.engine, slots, pushed, now, || {});
    while !audit.look(&shared.engine, 1) {
        thread::yield_now();
    }
    // Whatever was known of when it was looked at is in the journal by now.
    let journal = shared.journal.lock().unwrap().clone();
    for (position, record) in journal.records() {
        if position <= audit.until() && audit.concerns(&record) {
            audit.apply(&record, position);
        }
    }
    let found = audit.finish(&shared.engine, now);
    assert_eq!(found.differences, []);
    found.entries
}

#[test]
fn an_audit_beside_threads_that_do_everything_at_once_finds_nothing() {
    const STEPS: u64 = 100;
    const WORKERS: usize = 4;
    static WORKING: AtomicUsize = AtomicUsize::new(0);
    let start = at("2026-12-01 09:00");
    for seed in seeds(12) {
        let shards = [2, 8, 1_024][seed as usize % 3];
        let shared = Shared::new(shards, mixed().with_sales().build(1));
        WORKING.store(WORKERS, Ordering::SeqCst);
        run(&shared, WORKERS + 2, move |shared, number| {
            let mut chance = Chance::new(seed << 8 | number as u64);
            for step in (0..STEPS).filter(|_| number < WORKERS) {
                let now = start.plus(Duration::from_mins(7 * step));
                if chance.percent(2) {
                    let name = format!("person{}@x.example", chance.below(4));
                    let one = named(IdentityKind::Email, &name, Assurance::Claimed).id;
                    drop(shared.step(now, |engine, why, it| engine.erase(one, why, it)));
                } else {
                    act(shared, &mut chance, now);
                }
            }
            if number < WORKERS {
                WORKING.fetch_sub(1, Ordering::SeqCst);
                return;
            }
            let mut is_last = false;
            while !is_last {
                is_last = WORKING.load(Ordering::SeqCst) == 0;
                let middle = chance.below(Slot::COUNT as u64) as u16;
                let halves = [0..middle, middle..Slot::COUNT as u16];
                let entries: usize = halves.map(|slots| audit(shared, slots, start)).iter().sum();
                assert!(!is_last || entries > 0, "seed {seed}");
            }
        });
    }
}

#[test]
fn two_threads_that_say_who_one_visitor_is_meet_no_deadlock_and_lose_nothing() {
    const ROUNDS: u64 = 400;
    let now = at("2026-12-01 09:00");
    let shared = Shared::new(2, example().build(1));
    run(&shared, 2, move |shared, number| {
        for round in 0..ROUNDS {
            // The same visitors in the same order, each thread with its own person.
            let visitor = Some(browser(round));
            let said = Some(claim(MAILS[number], Assurance::Claimed));
            let hit = Hit { visitor, received: now, when: now, ..Hit::default() };
            shared.ingest(&Hit { path: "/pricing".into(), ..hit.clone() });
            shared.ingest(&Hit { kind: HitKind::Identify, claim: said, ..hit });
        }
    });
    shared.replays_alike(now, 0);
    shared.nothing_is_lost(now, 0);
    let browsers = |mail| {
        let ties = shared.engine.lead(lead_of(mail)).unwrap().content.ties;
        ties.iter().map(|tie| tie.source).collect::<BTreeSet<Source>>().len()
    };
    let refused = shared.engine.links_refused();
    assert!(browsers(MAILS[0]) <= 50 && browsers(MAILS[1]) <= 50);
    assert!(refused > 0, "the limit on claimed browsers was met");
}

#[test]
fn many_browsers_of_one_person_and_time_itself_meet_no_deadlock() {
    const ROUNDS: u64 = 200;
    let start = at("2026-12-01 09:00");
    let shared = Shared::new(2, mixed().build(1));
    run(&shared, 6, move |shared, number| {
        for round in 0..ROUNDS {
            let now = start.plus(Duration::from_hours(round));
            if number >= 4 {
                shared.advance(now);
                shared.engine.rebuild_timers(&shared.scoring());
                shared.engine.sweep(now);
                let _ = shared.engine.state_hash(now);
                continue;
            }
            let visitor = Some(browser(number as u64));
            let said = Some(claim(MAILS[0], Assurance::Claimed));
            let path = PATHS[round as usize % 5].to_owned();
            let hit = Hit { visitor, received: now, when: now, path, ..Hit::default() };
            shared.ingest(&Hit { claim: said, ..hit });
        }
    });
    let end = start.plus(Duration::from_hours(ROUNDS));
    shared.replays_alike(end, 0);
    let counts = shared.engine.lead(lead_of(MAILS[0])).unwrap().counts();
    assert_eq!(counts.hits, 4 * ROUNDS as u32);
}
