//! Journals cut at every byte of their last three batches, the rest missing or zeros: what lies
//! whole before the cut was acknowledged and has to be there. A torn end is cut, never refused.
//!
//!     truncation [--short]
//!
//! Prints the counts; the exit status is 1 if anything was lost or panicked.
#![allow(clippy::unwrap_used)]

#[path = "damage/journal.rs"]
mod journal;

use std::process::ExitCode;
use std::time::Instant;

use collector::journal::segment::{HEADER_BYTES, Header, Records, decode_batch};
use journal::{Dice, Outcome, crc32c_of, recovered, written};

const JOURNALS: u64 = 60;
const JOURNALS_SHORT: u64 = 4;
const BYTES: usize = 24 * 1024;
const SEGMENT_BYTES: u64 = 64 * 1024;
/// Batches of the end that are cut at every byte.
const CUT_BATCHES: usize = 3;

#[derive(Default)]
struct Counts {
    cuts: u64,
    starts: u64,
    refused: u64,
    lost: u64,
    panics: u64,
}

fn main() -> ExitCode {
    let short = std::env::args().any(|argument| argument == "--short");
    let journals = if short { JOURNALS_SHORT } else { JOURNALS };
    std::panic::set_hook(Box::new(|_| {}));
    let began = Instant::now();
    let mut counts = Counts::default();
    for seed in 1..=journals {
        cut_everywhere(seed, &mut counts);
    }
    let Counts { cuts, starts, refused, lost, panics } = counts;
    println!(
        "figure   {journals} journals cut at every byte of their last {CUT_BATCHES} batches, \
         {cuts} cuts in {:.1} s:",
        began.elapsed().as_secs_f64()
    );
    println!("         {starts} started, {refused} were refused by name, {panics} panicked");
    println!("         acknowledged records lost before a cut: {lost}");
    let fine = lost == 0 && panics == 0 && refused == 0 && cuts > 1_000 && starts == cuts;
    println!("  {}  0 lost, 0 refused, 0 panics", if fine { "met   " } else { "MISSED" });
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Where whole batches end, and the records up to there: how many, and their checksum.
fn whole(bytes: &[u8]) -> Vec<(usize, u64, u32)> {
    let header = Header::decode(bytes).unwrap();
    let (mut offset, mut records, mut sum) = (HEADER_BYTES, 0, 0);
    let mut ends = vec![(offset, 0, 0)];
    while let Ok(batch) = decode_batch(bytes, offset, header.seed()) {
        let mut position = batch.first;
        for record in Records::new(batch.payload) {
            sum = crc32c_of(sum, &position.0.to_le_bytes());
            sum = crc32c_of(sum, record);
            position = position.next();
            records += 1;
        }
        offset = batch.end();
        ends.push((offset, records, sum));
    }
    ends
}

fn cut_everywhere(seed: u64, counts: &mut Counts) {
    let image = written(BYTES, SEGMENT_BYTES, &mut Dice(seed));
    let name = image.keys().rfind(|name| name.strip_suffix(".log").is_some()).unwrap().clone();
    let bytes = &image[&name];
    let ends = whole(bytes);
    let from = ends[ends.len() - 1 - CUT_BATCHES].0;
    let to = ends[ends.len() - 1].0;
    for cut in from..=to {
        for zeros in [false, true] {
            let mut torn = image.clone();
            let left = torn.get_mut(&name).unwrap();
            left.truncate(cut);
            if zeros {
                left.resize(bytes.len().max(to + 4_096), 0);
            }
            counts.cuts += 1;
            let kept = ends.iter().rfind(|(end, ..)| *end <= cut).unwrap();
            match recovered(&torn, SEGMENT_BYTES) {
                Outcome::Starts(records, sum) => {
                    counts.starts += 1;
                    // A cut within the zeros of the padding cuts nothing when zeros follow.
                    let is = |it: &&(usize, u64, u32)| (it.1, it.2) == (records, sum);
                    let same = ends.iter().find(is).is_some_and(|found| found.1 >= kept.1);
                    counts.lost += u64::from(!same);
                }
                Outcome::Refuses => counts.refused += 1,
                Outcome::Panics => counts.panics += 1,
            }
        }
    }
}
