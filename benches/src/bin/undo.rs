//! Law 4, measured: random histories of hits, names, links, merges, withdrawals, answers of
//! sales, changes of the rules and time, in which steps are undone, held against the naive model
//! that computes anew without the undone steps. The model and its definition of "without" are
//! those of the engine's own tests.
//!
//!     undo [--short] [--histories N] [--seed S]
//!
//! Prints the counts, and the seed of every history that differs; the exit status is 1 if any.
#![allow(clippy::unwrap_used)]

#[path = "../../../engine/tests/model/mod.rs"]
mod model;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use model::undo::{Checked, history};

const HISTORIES: u64 = 10_000;
const HISTORIES_SHORT: u64 = 500;
/// Failures printed.
const SHOWN_MAX: usize = 10;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let place = arguments.iter().position(|argument| argument == name)?;
        arguments.get(place + 1)?.parse().ok()
    };
    let short = arguments.iter().any(|argument| argument == "--short");
    let usual = if short { HISTORIES_SHORT } else { HISTORIES };
    let (first, count) = (value("--seed").unwrap_or(1), value("--histories").unwrap_or(usual));
    let next = AtomicU64::new(first);
    let found = Mutex::new((Checked::default(), Vec::new()));
    let began = Instant::now();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let came = thread::spawn(move || history(seed)).join();
                    let came = came.unwrap_or_else(|_| Err(format!("seed {seed}: it panicked")));
                    let mut found = found.lock().unwrap();
                    match came {
                        Ok(checked) => found.0 += checked,
                        Err(wrong) => found.1.push(wrong),
                    }
                }
            });
        }
    });
    let (all, wrong) = found.into_inner().unwrap();
    println!(
        "figure   {count} histories in {:.0} s: {} hits, {} answers of sales, {} steps, {} of them \
         undone; {} could not be, because what came later stands on them",
        began.elapsed().as_secs_f64(),
        all.hits,
        all.answers,
        all.steps,
        all.undone,
        all.left,
    );
    println!(
        "         engine and model compared {} times; they differ {}",
        all.compared,
        wrong.len()
    );
    for wrong in wrong.iter().take(SHOWN_MAX) {
        println!("         {wrong}");
    }
    if wrong.is_empty() && all.undone > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
