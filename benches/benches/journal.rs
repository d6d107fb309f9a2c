//! Group commit on a real disk, in the folder of what is built: one group is made durable while the
//! next one gathers, as with twice as many senders who wait. Guards what an acknowledgement costs:
//! one `fdatasync`, shared; and what a batch costs beside it, to write and to read back.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use benches::START;
use collector::journal::committer::Now;
use collector::journal::disk::RealDisk;
use collector::journal::segment::{Group, decode_batch};
use collector::journal::{Hooks, Journal, Options};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use engine::id::Position;

use crate::records::history;

/// Hits that wait for one commit: a quiet site's, and what a loaded one was seen to gather.
const GROUPS: [usize; 4] = [1, 16, 128, 1_024];
const SEED: u32 = 7;

fn open(folder: &std::path::Path) -> Journal {
    let disk = RealDisk::open(folder).expect("a folder that was just made opens");
    let begun = Instant::now();
    let boot_ms = move || begun.elapsed().as_millis() as u64;
    let hooks = Hooks {
        now: Box::new(move || Now { wall_ms: START.0, boot_ms: boot_ms() }),
        poisoned: Box::new(|why| panic!("the disk failed: {why:?}")),
    };
    let opened = Journal::open(Arc::new(disk), &Options::new(*b"for benchmarks.."), hooks, |_| {});
    opened.expect("an empty folder opens").0
}

fn push(journal: &Journal, records: &[Vec<u8>]) -> Position {
    let bytes = records.iter().map(Vec::len).sum();
    let mut reserved = journal.reserve(records.len(), bytes).expect("the disk keeps up");
    let last = records.iter().map(|record| reserved.push(record)).last();
    last.expect("there are some")
}

/// So many groups; the one before is waited for while this one gathers.
fn commits(journal: &Journal, records: &[Vec<u8>], groups: u64) -> Duration {
    let began = Instant::now();
    let mut before = push(journal, records);
    for _ in 1..groups {
        let last = push(journal, records);
        journal.wait_blocking(before).expect("the disk works");
        before = last;
    }
    journal.wait_blocking(before).expect("the disk works");
    let spent = began.elapsed();
    // Or the disk would be full one day.
    journal.remove_before(before).expect("what is durable may go");
    spent
}

fn records(count: usize) -> Vec<Vec<u8>> {
    let (_, records) = history(count as u64 / 5 + 1);
    records.into_iter().map(|(_, bytes)| bytes).take(count).collect()
}

fn group_commit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("group_commit");
    for hits in GROUPS {
        let mut made = None;
        group.throughput(Throughput::Elements(hits as u64));
        group.bench_function(BenchmarkId::from_parameter(hits), |bencher| {
            let (_, journal, records) = made.get_or_insert_with(|| {
                let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"));
                let folder = folder.expect("there is a folder to build in");
                let journal = open(folder.path());
                (folder, journal, records(hits))
            });
            bencher.iter_custom(|groups| commits(journal, records, groups));
        });
    }
    group.finish();
}

/// Without the disk: what is copied, chained and checksummed, and what a start reads.
fn batch(criterion: &mut Criterion) {
    const HITS: usize = 128;
    let records = records(HITS);
    let written = || {
        let mut group = Group::new(Position::new(0, 1), Vec::with_capacity(64 * 1_024));
        for record in &records {
            group.push(record);
        }
        group.finish(SEED, Position::NONE, 0)
    };
    let bytes = written().bytes().to_vec();
    assert!(decode_batch(&bytes, 0, SEED).is_ok());
    let mut group = criterion.benchmark_group("batch_of_128");
    group.throughput(Throughput::Elements(HITS as u64));
    group.bench_function("write", |bencher| bencher.iter_with_large_drop(written));
    group.bench_function("verify", |bencher| {
        bencher.iter(|| black_box(decode_batch(black_box(&bytes), 0, SEED).is_ok()));
    });
    group.finish();
}

criterion_group!(group, group_commit, batch);
