//! What points are worth at a moment, and when they will cross a line. Both happen at every hit of
//! somebody whose score is not nothing, and the search once more when a lead is due.

use std::hint::black_box;
use std::time::{Duration, Instant};

use benches::{Bytes, START, alone, hit, people};
use criterion::{Criterion, Throughput, criterion_group};
use engine::decay::{HalfLife, Reach, Sum, Total};
use engine::points::Points;
use engine::time::Timestamp;

const DAY: Duration = Duration::from_hours(24);
const ROWS: u64 = 20;

/// Rows of some points, a day after each other.
fn rows(points: i64) -> Vec<(Timestamp, Points)> {
    (0..ROWS).map(|day| (START.plus(DAY * day as u32), Points::whole(points))).collect()
}

fn sum(days: u32, points: i64) -> Sum {
    let half_life = HalfLife::new(DAY * days).expect("it is some days");
    Sum::of(half_life, rows(points).into_iter())
}

fn fading(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fading");
    let (one, rows) = (sum(14, 5), rows(5));
    let three = Total::new(vec![sum(14, 5), sum(30, 3), sum(90, -2)]);
    let mut later = START.plus(DAY * ROWS as u32);
    // Another moment each time.
    let mut moment = move || {
        later = later.plus(Duration::from_millis(1));
        later
    };
    group.bench_function("value", |bencher| bencher.iter(|| black_box(&one).value(moment())));
    group.bench_function("value_of_three", |bencher| {
        bencher.iter(|| black_box(&three).value(moment()));
    });
    group.bench_function("one_row_more", |bencher| {
        let when = rows[rows.len() - 1].0;
        bencher.iter(|| black_box(one).with(black_box(when), Points::whole(5)));
    });
    group.bench_function("shares_of_20_rows", |bencher| {
        bencher.iter(|| black_box(&one).shares(moment(), &rows));
    });
    group.finish();
}

/// When it is below a line, from a moment at which it is not.
fn due(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("due");
    let now = START.plus(DAY * ROWS as u32);
    let totals = [
        ("one_half_life", vec![sum(14, 5)]),
        ("two_half_lives", vec![sum(14, 5), sum(90, 3)]),
        // It sinks and rises at once: bounds, not monotony.
        ("three_half_lives_and_both_signs", vec![sum(14, 5), sum(30, 3), sum(90, -2)]),
    ];
    for (name, sums) in totals {
        let total = Total::new(sums);
        let line = Points(total.value(now).0 / 2);
        let end = total.end();
        let found = total.first(Reach::Below, line, now, end);
        assert!(found.is_some_and(|at| at > now), "it fades to half at some time");
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(&total).first(Reach::Below, line, black_box(now), end));
        });
    }
    group.finish();
}

/// Leads who are hot, and the moment at which time alone has cooled all of them.
fn cooling(criterion: &mut Criterion) {
    const HOT: u64 = 100;
    let mut group = criterion.benchmark_group("due");
    group.throughput(Throughput::Elements(HOT));
    let mut made = None;
    group.bench_function("leads_that_cool", |bencher| {
        let site = made.get_or_insert_with(|| {
            let mut site = people(HOT);
            for number in 0..HOT {
                let asked = Timestamp(START.0 + 60_000);
                let hit = hit(number, 3, "/thanks/contact/ok", asked);
                site.ingest(alone(hit), &mut Bytes::new());
            }
            site.keep();
            site
        });
        // Everybody has to be hot again before each.
        let cool = START.plus(DAY * 365);
        bencher.iter_custom(|rounds| {
            let mut spent = Duration::ZERO;
            for _ in 0..rounds {
                site.begin_anew();
                let began = Instant::now();
                let changed = site.advance(cool);
                spent += began.elapsed();
                assert!(changed as u64 >= HOT, "only {changed} of {HOT} cooled");
            }
            spent
        });
    });
    group.finish();
}

criterion_group!(group, fading, due, cooling);
