//! Single bits of journals flipped: every bit of a small one, and random ones of a larger one.
//! Each has to be refused by name, or to leave every record as it was.
//!
//!     flips [--short] [--seed S]
//!
//! Prints the counts, and where what went unnoticed; the exit status is 1 if anything did.
#![allow(clippy::unwrap_used)]

#[path = "damage/journal.rs"]
mod journal;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use journal::{Dice, Outcome, recovered, written};

const SMALL_BYTES: usize = 64 * 1024;
const SMALL_SEGMENT_BYTES: u64 = 16 * 1024;
const LARGE_BYTES: usize = 4 * 1024 * 1024;
const LARGE_SEGMENT_BYTES: u64 = 512 * 1024;
const RANDOM: usize = 100_000;
const RANDOM_SHORT: usize = 2_000;
/// Places printed.
const SHOWN_MAX: usize = 10;

type Image = BTreeMap<String, Vec<u8>>;

#[derive(Default)]
struct Counts {
    refused: u64,
    harmless: u64,
    unnoticed: Vec<(String, usize)>,
    panics: u64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let short = arguments.iter().any(|argument| argument == "--short");
    let seed = arguments.iter().position(|argument| argument == "--seed");
    let seed = seed.and_then(|place| arguments.get(place + 1)?.parse().ok()).unwrap_or(1);
    std::panic::set_hook(Box::new(|_| {}));
    let mut dice = Dice(seed);
    let small = written(SMALL_BYTES, SMALL_SEGMENT_BYTES, &mut dice);
    // Every byte, in full every bit of it.
    let bits: Vec<usize> = if short { vec![0] } else { (0..8).collect() };
    let every: Vec<(String, usize)> = logs(&small)
        .flat_map(|(name, bytes)| (0..bytes).map(move |at| (name.clone(), at)))
        .flat_map(|(name, at)| {
            let drawn = if short { vec![at * 7 % 8] } else { bits.clone() };
            drawn.into_iter().map(move |bit| (name.clone(), at * 8 + bit)).collect::<Vec<_>>()
        })
        .collect();
    let fine = tell("every byte of a small journal", &small, SMALL_SEGMENT_BYTES, &every);
    let large = written(LARGE_BYTES, LARGE_SEGMENT_BYTES, &mut dice);
    let files: Vec<(String, usize)> = logs(&large).collect();
    let all: usize = files.iter().map(|(_, bytes)| bytes).sum();
    let drawn = (0..if short { RANDOM_SHORT } else { RANDOM }).map(|_| {
        let mut bit = dice.below(all as u64 * 8) as usize;
        let mut of = 0;
        while bit >= files[of].1 * 8 {
            bit -= files[of].1 * 8;
            of += 1;
        }
        (files[of].0.clone(), bit)
    });
    let drawn: Vec<(String, usize)> = drawn.collect();
    let also = tell("random bits of a larger journal", &large, LARGE_SEGMENT_BYTES, &drawn);
    println!("  {}  0 unnoticed, 0 panics", if fine && also { "met   " } else { "MISSED" });
    if fine && also { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The segments, and their bytes without the zeros at the end.
fn logs(image: &Image) -> impl Iterator<Item = (String, usize)> + '_ {
    let logs = image.iter().filter(|(name, _)| name.strip_suffix(".log").is_some());
    logs.map(|(name, bytes)| {
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        (name.clone(), end.next_multiple_of(8).min(bytes.len()))
    })
}

fn tell(what: &str, image: &Image, segment_bytes: u64, flips: &[(String, usize)]) -> bool {
    let began = Instant::now();
    let Outcome::Starts(records, sum) = recovered(image, segment_bytes) else {
        println!("  MISSED  the journal itself does not start");
        return false;
    };
    let counts = Mutex::new(Counts::default());
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((name, bit)) = flips.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut flipped = image.clone();
                    flipped.get_mut(name).unwrap()[bit / 8] ^= 1 << (bit % 8);
                    let outcome = recovered(&flipped, segment_bytes);
                    let mut counts = counts.lock().unwrap();
                    match outcome {
                        Outcome::Refuses => counts.refused += 1,
                        Outcome::Starts(found, same) if (found, same) == (records, sum) => {
                            counts.harmless += 1;
                        }
                        Outcome::Starts(..) => counts.unnoticed.push((name.clone(), bit / 8)),
                        Outcome::Panics => counts.panics += 1,
                    }
                }
            });
        }
    });
    let Counts { refused, harmless, unnoticed, panics } = counts.into_inner().unwrap();
    let bytes: usize = logs(image).map(|(_, bytes)| bytes).sum();
    println!(
        "figure   {what} ({bytes} bytes, {records} records): {} flips in {:.1} s",
        flips.len(),
        began.elapsed().as_secs_f64()
    );
    println!(
        "         {refused} refused by name, {harmless} harm no record, {} unnoticed, {panics} \
         panicked",
        unnoticed.len()
    );
    for (name, at) in unnoticed.iter().take(SHOWN_MAX) {
        println!("         unnoticed: {name} byte {at}");
    }
    // Only the last seal and the bytes behind it may be cut as a torn end.
    unnoticed.is_empty() && panics == 0 && refused > harmless
}
