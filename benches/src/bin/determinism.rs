//! Live is replay, measured: random lives of an installation, each under one to eight threads,
//! must leave journals that alone lead back to the same state, with 2, 8 and 1,024 locks a map,
//! however often the process is thrown away on the way, also in the middle of a step. Every
//! twentieth journal is also written to a disk in segments and read, as of now and as of a moment
//! in the past, by the reader in Python that knows nothing but FORMAT.md.
//!
//!     determinism [--short] [--journals N] [--seed S]
//!
//! Prints the counts, and the seed of every failure; the exit status is 1 if there was any.

#[path = "determinism/chance.rs"]
mod chance;
#[path = "determinism/elsewhere.rs"]
mod elsewhere;
#[path = "determinism/life.rs"]
mod life;
#[path = "determinism/steps.rs"]
mod steps;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use engine::engine::Engine;
use engine::id::LeadId;
use engine::record::{Body, Step};
use engine::time::Timestamp;

use chance::Chance;
use elsewhere::read_elsewhere;
use life::{DAY, LONG, Life, START, USUAL, decode, locked, replay};

const JOURNALS: u64 = 1_000;
const JOURNALS_SHORT: u64 = 60;
/// Every so many journals, one is read by the other program too.
const READ_EVERY: u64 = 20;
/// Every so many, one is a long one.
const LONG_EVERY: u64 = 200;
/// The numbers of locks a map is divided into.
const SHARDS: [usize; 3] = [2, 8, 1_024];
const THREADS_MAX: u64 = 8;
const ROUNDS: u64 = 6;

/// What one life came to.
#[derive(Default)]
struct Outcome {
    records: usize,
    leads: usize,
    /// Steps, those of the engine itself included.
    steps: usize,
    /// What sales answered.
    answers: usize,
    /// People who were joined or parted.
    moved: usize,
    /// Ledgers whose oldest rows folded.
    folds: usize,
    restarts: u64,
    /// Ledgers that the other program agreed on.
    read: usize,
}

fn live_and_compare(seed: u64) -> Result<Outcome, String> {
    let mut chance = Chance(seed.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(seed));
    let threads = 1 + seed % THREADS_MAX;
    let mut shards = || SHARDS[chance.below(SHARDS.len() as u64) as usize];
    let (first, second) = (shards(), shards());
    let size = if seed % LONG_EVERY == READ_EVERY { LONG } else { USUAL };
    let mut life = Life::new(size, first, &mut chance)?;
    let mut outcome = Outcome::default();
    for _ in 0..ROUNDS {
        let mut chances: Vec<Chance> = (0..threads).map(|_| Chance(chance.next())).collect();
        thread::scope(|scope| {
            let running: Vec<_> = chances
                .iter_mut()
                .enumerate()
                .map(|(index, chance)| {
                    let life = &life;
                    scope.spawn(move || life.work(size.steps / threads, index == 0, chance))
                })
                .collect();
            running.into_iter().try_for_each(|thread| match thread.join() {
                Ok(worked) => worked,
                Err(_) => Err("a thread panicked".to_owned()),
            })
        })?;
        if chance.percent(40) {
            life.restart(second, &mut chance)?;
            outcome.restarts += 1;
        }
        // All are idle: a long silence does not overtake a hit in flight.
        let silence = if chance.percent(5) { 401 * DAY } else { chance.below(12 * DAY) };
        life.now.fetch_add(silence, Ordering::SeqCst);
    }
    let records = std::mem::take(&mut *locked(&life.records));
    let replayed = compare(&life.engine, &records, life.now())?;
    outcome.records = records.len();
    outcome.leads = replayed.lead_ids().len();
    for bytes in &records {
        let Body::Step(step) = decode(bytes)?.body else {
            continue;
        };
        outcome.steps += 1;
        let moves = matches!(step.step, Step::MergeAway { .. } | Step::Restore { .. });
        outcome.moved += usize::from(moves);
        outcome.answers += usize::from(matches!(step.step, Step::Feedback(_)));
    }
    let has_folded = |id: &LeadId| {
        let lead = replayed.lead(*id);
        lead.is_some_and(|lead| lead.content.rows.iter().any(|row| row.folded))
    };
    outcome.folds = replayed.lead_ids().iter().filter(|id| has_folded(id)).count();
    if seed.is_multiple_of(READ_EVERY) {
        let later = life.now().plus(Duration::from_millis(chance.below(60 * DAY)));
        let lived = life.now().0 - START.0;
        let earlier = START.plus(Duration::from_millis(chance.below(lived)));
        outcome.read = read_elsewhere(&records, &life.scoring(), &[later, earlier])?;
    }
    Ok(outcome)
}

/// The live state against that of the records alone, now and when visitors are forgotten.
fn compare(live: &Engine, records: &[Vec<u8>], now: Timestamp) -> Result<Engine, String> {
    let mut last = None;
    for shards in SHARDS {
        let replayed = replay(records, shards)?;
        for at in [now, now.plus(Duration::from_millis(399 * DAY))] {
            let (before, after) = (live.state_hash(at), replayed.state_hash(at));
            if before != after {
                return Err(format!("replay with {shards} shards: {before:032x} {after:032x}"));
            }
        }
        last = Some(replayed);
    }
    last.ok_or_else(|| "nothing was compared".to_owned())
}

/// The seeds to run, from the command line.
fn seeds(mut words: impl Iterator<Item = String>) -> Option<std::ops::Range<u64>> {
    let mut seeds = 0..JOURNALS;
    while let Some(word) = words.next() {
        match word.as_str() {
            "--short" => seeds.end = seeds.start + JOURNALS_SHORT,
            "--journals" => seeds.end = seeds.start + words.next()?.parse::<u64>().ok()?,
            "--seed" => {
                let seed: u64 = words.next()?.parse().ok()?;
                seeds = seed..seed + 1;
            }
            _ => return None,
        }
    }
    Some(seeds)
}

fn main() -> ExitCode {
    let Some(seeds) = seeds(std::env::args().skip(1)) else {
        eprintln!("usage: determinism [--short] [--journals N] [--seed S]");
        return ExitCode::from(2);
    };
    let begun = Instant::now();
    let (mut total, mut failures) = (Outcome::default(), BTreeMap::new());
    let (mut journals, mut read) = (0, 0);
    for seed in seeds {
        journals += 1;
        match live_and_compare(seed) {
            Ok(outcome) => {
                total.records += outcome.records;
                total.leads += outcome.leads;
                total.steps += outcome.steps;
                total.moved += outcome.moved;
                total.answers += outcome.answers;
                total.restarts += outcome.restarts;
                total.folds += outcome.folds;
                total.read += outcome.read;
                read += u64::from(outcome.read > 0);
            }
            Err(why) => {
                println!("FAILED --seed {seed} ({} threads): {why}", 1 + seed % THREADS_MAX);
                failures.insert(seed, why);
            }
        }
    }
    println!(
        "{journals} journals, {} records, {} leads, {} ledgers folded; 1 to {THREADS_MAX} threads; \
         {} restarts on the way; replayed with 2, 8 and 1,024 locks a map",
        total.records, total.leads, total.folds, total.restarts
    );
    println!(
        "{} steps among them, {} of them joining or parting people, {} answers of sales",
        total.steps, total.moved, total.answers
    );
    println!(
        "{read} of them read by journal_reader.py, each at two moments: {} ledgers, scores and \
         stages the same",
        total.read
    );
    let seconds = begun.elapsed().as_secs_f64();
    println!("{} of {journals} differ (goal: 0); {seconds:.1} s", failures.len());
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
