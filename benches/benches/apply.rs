//! A hit in the engine: decided, encoded as for the journal, applied. Guards the engine's share of
//! a hit; `./measure engine` says what it comes to with millions of visitors.

use std::hint::black_box;

use benches::{Bytes, EARNING, START, Site, hit, identify, mixed, path};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use engine::engine::Arrival;
use engine::hit::Hit;
use engine::record::FirstHit;
use engine::time::Timestamp;

const MORE_RULES: usize = 182;

fn at(turn: u64) -> Timestamp {
    Timestamp(START.0 + 60_000 + turn)
}

fn alone(hit: Hit) -> Arrival {
    Arrival { hit, first: None }
}

/// Another page view of one of those who were here before, drawn at random.
fn come_back(criterion: &mut Criterion, name: &str, site: &Site, visitors: u64) {
    let (mut turn, mut bytes) = (3, Bytes::new());
    criterion.bench_function(name, |bencher| {
        bencher.iter(|| {
            turn += 1;
            let number = mixed(turn) % visitors;
            let hit = hit(number, turn, path(number, turn), at(turn));
            black_box(site.ingest(alone(hit), &mut bytes))
        });
    });
}

fn returning(criterion: &mut Criterion) {
    const VISITORS: u64 = 100_000;
    let site = Site::new(MORE_RULES).expect("the shipped rules are sound");
    site.admit(0, VISITORS, &mut Bytes::new());
    come_back(criterion, "returning_visitor", &site, VISITORS);
}

/// Somebody comes back for the first time, and is kept from then on.
fn new(criterion: &mut Criterion) {
    let site = Site::new(MORE_RULES).expect("the shipped rules are sound");
    let (mut bytes, mut number) = (Bytes::new(), 0);
    criterion.bench_function("new_visitor", |bencher| {
        bencher.iter(|| {
            number += 1;
            site.admit(number, number + 1, &mut bytes);
        });
    });
}

/// The same of people who said who they are.
fn identified(criterion: &mut Criterion) {
    const PEOPLE: u64 = 10_000;
    let site = Site::new(MORE_RULES).expect("the shipped rules are sound");
    let mut bytes = Bytes::new();
    site.admit(0, PEOPLE, &mut bytes);
    for number in 0..PEOPLE {
        site.ingest(alone(identify(number, 2, at(0))), &mut bytes);
    }
    come_back(criterion, "identified_lead", &site, PEOPLE);
}

/// The page view that makes a lead hot.
fn crossing(criterion: &mut Criterion) {
    let site = Site::new(MORE_RULES).expect("the shipped rules are sound");
    let mut number = 0;
    criterion.bench_function("crossing", |bencher| {
        bencher.iter_batched_ref(
            || {
                number += 1;
                let mut bytes = Bytes::new();
                let first = hit(number, 0, EARNING, START);
                let first = FirstHit { position: engine::id::Position::new(0, 1), hit: first };
                let second = identify(number, 1, at(0));
                site.ingest(Arrival { hit: second, first: Some(first) }, &mut bytes);
                (hit(number, 2, "/thanks/contact/ok", at(1)), bytes)
            },
            |(hit, bytes)| black_box(site.ingest(alone(std::mem::take(hit)), bytes)),
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(group, returning, new, identified, crossing);
criterion_main!(group);
