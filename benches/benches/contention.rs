//! Threads that want the same few visitors, and threads that want different ones: what the locks
//! cost. Guards that two threads do nearly twice as much as one. Each thread makes its hits itself,
//! as it would read them: time outside of the locks, as there is in a server.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use benches::{Bytes, MORE_RULES, START, Site, alone, hit, mixed, path};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use engine::time::Timestamp;

/// Hits that a thread takes at once: so the threads stay on the same visitors.
const AT_ONCE: u64 = 16;
/// Hits on a few visitors before the next few come: nobody's history grows for ever.
const HITS_A_FEW: u64 = 512;

/// Who is wanted: `together` visitors at a time, and how many there are.
#[derive(Clone, Copy)]
struct Crowd {
    together: u64,
    visitors: u64,
    /// Hits before everybody is again as in the beginning.
    hits: u64,
}

const HOT: Crowd = Crowd { together: 8, visitors: 8_000, hits: 1_000 * HITS_A_FEW };
const APART: Crowd = Crowd { together: 100_000, visitors: 100_000, hits: 400_000 };

impl Crowd {
    fn who(self, turn: u64) -> u64 {
        let first = turn / HITS_A_FEW * self.together % self.visitors;
        first + mixed(turn) % self.together
    }
}

/// The hits `from..until`, shared by the threads.
fn together(site: &Site, threads: u64, crowd: Crowd, (from, until): (u64, u64)) -> Duration {
    let next = AtomicU64::new(from);
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut bytes = Bytes::new();
                loop {
                    let first = next.fetch_add(AT_ONCE, Ordering::Relaxed);
                    if first >= until {
                        break;
                    }
                    for turn in first..(first + AT_ONCE).min(until) {
                        let (who, at) = (crowd.who(turn), Timestamp(START.0 + 60_000 + turn));
                        let hit = hit(who, 3 + turn, path(who, turn), at);
                        site.ingest(alone(hit), &mut bytes);
                    }
                }
            });
        }
    });
    began.elapsed()
}

/// So many hits; the state is made anew between some of them, which is not counted.
fn time(site: &mut Site, next: &mut u64, threads: u64, crowd: Crowd, hits: u64) -> Duration {
    let (mut left, mut spent) = (hits, Duration::ZERO);
    while left > 0 {
        if *next == crowd.hits {
            site.begin_anew();
            *next = 0;
        }
        let some = left.min(crowd.hits - *next);
        spent += together(site, threads, crowd, (*next, *next + some));
        *next += some;
        left -= some;
    }
    spent
}

fn contention(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("contention");
    group.throughput(Throughput::Elements(1));
    for (name, crowd) in [("hot", HOT), ("apart", APART)] {
        for threads in [1, 2] {
            let (mut made, mut next) = (None, 0);
            group.bench_function(BenchmarkId::new(name, threads), |bencher| {
                let site = made.get_or_insert_with(|| {
                    let mut site = Site::new(MORE_RULES).expect("the shipped rules are sound");
                    site.admit(0, crowd.visitors, &mut Bytes::new());
                    site.keep();
                    site
                });
                bencher.iter_custom(|hits| time(site, &mut next, threads, crowd, hits));
            });
        }
    }
    group.finish();
}

criterion_group!(group, contention);
