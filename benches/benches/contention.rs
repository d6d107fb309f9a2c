//! Threads that want the same few visitors, and threads that want different ones: what the locks
//! cost. Guards that two threads do nearly twice as much as one.

use std::thread;
use std::time::{Duration, Instant};

use benches::{Bytes, START, Site, hit, mixed, path};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use engine::engine::Arrival;
use engine::time::Timestamp;

const MORE_RULES: usize = 182;

/// So many hits on `visitors` visitors, shared by the threads.
fn together(site: &Site, threads: u64, visitors: u64, hits: u64) -> Duration {
    let began = Instant::now();
    thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let mut bytes = Bytes::new();
                for turn in 0..hits.div_ceil(threads) {
                    let turn = turn + 2 + (thread << 32);
                    let number = mixed(turn) % visitors;
                    let at = Timestamp(START.0 + 60_000 + turn % 1_000_000);
                    let hit = hit(number, turn, path(number, turn), at);
                    site.ingest(Arrival { hit, first: None }, &mut bytes);
                }
            });
        }
    });
    began.elapsed()
}

fn contention(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("contention");
    group.throughput(Throughput::Elements(1));
    for (name, visitors) in [("hot", 8), ("apart", 100_000)] {
        for threads in [1, 2] {
            let site = Site::new(MORE_RULES).expect("the shipped rules are sound");
            site.admit(0, visitors, &mut Bytes::new());
            group.bench_function(BenchmarkId::new(name, threads), |bencher| {
                bencher.iter_custom(|hits| together(&site, threads, visitors, hits));
            });
        }
    }
    group.finish();
}

criterion_group!(group, contention);
criterion_main!(group);
