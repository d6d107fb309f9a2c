//! Records: their bytes, and what reading and applying them costs. Guards the journal's share of a
//! hit, and how long a start takes: two million records a second and core.

use std::hint::black_box;

use benches::{EARNING, MORE_RULES, START, Site, alone, first_and_second, hit, identify, path};
use criterion::{Criterion, Throughput, criterion_group};
use engine::engine::{Engine, SHARDS_DEFAULT};
use engine::hit::Hit;
use engine::id::Position;
use engine::record::Record;
use engine::time::Timestamp;

/// One of so many visitors says who they are.
const NAMED_EVERY: u64 = 20;

/// The engine that made them, and the records of so many visitors in the order of a journal: the
/// first hit of each alone, the second with it embedded, and three more; one in twenty says who
/// they are.
pub fn history(visitors: u64) -> (Site, Vec<(Position, Vec<u8>)>) {
    let site = Site::new(MORE_RULES).expect("the shipped rules are sound");
    let (mut records, mut ordinal) = (Vec::new(), 1);
    for turn in 0..5 {
        for number in 0..visitors {
            let at = Timestamp(START.0 + turn * 100_000 + number);
            let arrival = match turn {
                0 => alone(Hit { visitor: None, ..hit(number, 0, EARNING, START) }),
                1 => first_and_second(number, EARNING, START),
                2 if number.is_multiple_of(NAMED_EVERY) => alone(identify(number, turn, at)),
                _ => alone(hit(number, turn, path(number, turn), at)),
            };
            site.engine.ingest(arrival, &site.scoring, &mut |record: &Record| {
                let mut bytes = Vec::new();
                record.encode(&mut bytes);
                ordinal += 1;
                let position = Position::new(0, ordinal);
                records.push((position, bytes));
                position
            });
        }
    }
    (site, records)
}

fn encode_and_decode(criterion: &mut Criterion) {
    let (_, records) = history(300);
    let decoded: Vec<Record> =
        records.iter().map(|(_, bytes)| Record::decode(bytes).expect("it was encoded")).collect();
    let mut group = criterion.benchmark_group("record");
    group.throughput(Throughput::Elements(1));
    let (mut next, mut bytes) = (0, Vec::new());
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            next = (next + 1) % decoded.len();
            bytes.clear();
            decoded[next].encode(&mut bytes);
            black_box(bytes.len())
        });
    });
    group.bench_function("decode", |bencher| {
        bencher.iter(|| {
            next = (next + 1) % records.len();
            black_box(Record::decode(&records[next].1))
        });
    });
    group.finish();
}

fn replayed(site: &Site, records: &[(Position, Vec<u8>)], visitors: usize) -> Engine {
    let engine = Engine::with_room(SHARDS_DEFAULT, (visitors, visitors / NAMED_EVERY as usize));
    engine.restore_catalog(site.engine.catalog());
    for (position, bytes) in records {
        engine.evolve(&Record::decode(bytes).expect("it was encoded"), *position);
    }
    engine
}

/// Decoded and applied, by one thread.
fn replay(criterion: &mut Criterion) {
    const VISITORS: usize = 20_000;
    let (site, records) = history(VISITORS as u64);
    let now = Timestamp(START.0 + 1_000_000);
    let again = replayed(&site, &records, VISITORS);
    assert_eq!(again.state_hash(now), site.engine.state_hash(now), "live is replay");
    drop(again);
    let mut group = criterion.benchmark_group("replay");
    group.throughput(Throughput::Elements(records.len() as u64));
    group.sample_size(10);
    group.bench_function("decode_and_apply", |bencher| {
        bencher.iter_with_large_drop(|| replayed(&site, &records, VISITORS));
    });
    group.finish();
}

criterion_group!(group, encode_and_decode, replay);
