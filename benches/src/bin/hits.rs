//! What a hit costs the engine alone, in process: decided, encoded and applied, of visitors who
//! come back, drawn at random among so many, each with so many hits in one request.
//!
//!     hits VISITORS THREADS MORE_RULES SECONDS BATCH
//!
//! Prints one line of JSON: hits a second of all threads together, and bytes of memory a visitor
//! with two rows.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use benches::{Bytes, START, Site, hit, mixed, path};
use engine::engine::Arrival;
use engine::time::Timestamp;
use serde_json::json;

/// As the server has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Hits between two looks at the clock, or a few more.
const AT_ONCE: u64 = 1_024;

/// What is measured.
struct Case {
    visitors: u64,
    threads: u64,
    more_rules: usize,
    time: Duration,
    /// Hits of a request, all of one visitor.
    batch: u64,
}

/// Resident memory of this process.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok());
    kib.unwrap_or_default() * 1_024
}

/// Hits until the time is over; how many, and bytes of their records.
fn drive(site: &Site, case: &Case, thread: u64, began: Instant) -> (u64, u64) {
    let (mut number, mut hits, mut sum, mut bytes) = (2 + (thread << 32), 0, 0, Bytes::new());
    while began.elapsed() < case.time {
        for _ in 0..AT_ONCE.div_ceil(case.batch) {
            let visitor = mixed(number) % case.visitors;
            let at = Timestamp(START.0 + 60_000 + began.elapsed().as_millis() as u64);
            let mut turn = site.engine.turn();
            for _ in 0..case.batch {
                let hit = hit(visitor, number, path(visitor, number), at);
                site.ingest_in(&mut turn, Arrival { hit, first: None }, &mut bytes);
                sum += bytes.len() as u64;
                number += 1;
            }
            hits += case.batch;
        }
    }
    (hits, sum)
}

fn run(case: &Case) -> Result<(), String> {
    let Case { visitors, threads, more_rules, batch, .. } = *case;
    let site = Site::new(more_rules)?;
    let before = resident_bytes();
    thread::scope(|scope| {
        let part = visitors.div_ceil(threads);
        for thread in 0..threads {
            let (site, until) = (&site, ((thread + 1) * part).min(visitors));
            scope.spawn(move || site.admit(thread * part, until, &mut Bytes::new()));
        }
    });
    let memory = resident_bytes().saturating_sub(before) as f64 / visitors as f64;
    let (hits, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
    let began = Instant::now();
    thread::scope(|scope| {
        for thread in 0..threads {
            let (site, hits, written) = (&site, &hits, &bytes);
            scope.spawn(move || {
                let (taken, sum) = drive(site, case, thread, began);
                hits.fetch_add(taken, Ordering::Relaxed);
                written.fetch_add(sum, Ordering::Relaxed);
            });
        }
    });
    let took = began.elapsed().as_secs_f64();
    let hits = hits.load(Ordering::Relaxed);
    let said = json!({
        "visitors": visitors, "threads": threads, "batch": batch,
        "rules": site.scoring.rules.rules().len(),
        "hits_per_s": hits as f64 / took, "memory_bytes": memory,
        "record_bytes": bytes.load(Ordering::Relaxed) as f64 / hits.max(1) as f64,
    });
    println!("{said}");
    Ok(())
}

fn main() -> ExitCode {
    let numbers: Result<Vec<u64>, _> = std::env::args().skip(1).map(|it| it.parse()).collect();
    // What is no number is refused with everything else that is not as it should be.
    let numbers = numbers.unwrap_or_default();
    let [
        visitors @ 1..=u64::MAX,
        threads @ 1..=64,
        more_rules,
        seconds @ 1..=600,
        batch @ 1..=1_000,
    ] = numbers[..]
    else {
        eprintln!("hits VISITORS THREADS MORE_RULES SECONDS BATCH");
        return ExitCode::FAILURE;
    };
    let (more_rules, time) = (more_rules as usize, Duration::from_secs(seconds));
    match run(&Case { visitors, threads, more_rules, time, batch }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("hits: {why}");
            ExitCode::FAILURE
        }
    }
}
