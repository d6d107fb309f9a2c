//! Records: their bytes, and what reading and applying them costs. Guards the journal's share of a
//! hit, and how long a start takes.

use std::hint::black_box;

use benches::{EARNING, START, Site, hit};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::engine::{Arrival, Engine, SHARDS_DEFAULT};
use engine::id::Position;
use engine::record::{FirstHit, Record};
use engine::time::Timestamp;

/// The records of visitors who came twice, with their positions.
fn records(visitors: u64) -> Vec<(Position, Vec<u8>)> {
    let site = Site::new(182).expect("the shipped rules are sound");
    let (mut records, mut ordinal) = (Vec::new(), 0);
    for number in 0..visitors {
        let first = FirstHit { position: Position::new(0, 1), hit: hit(number, 0, EARNING, START) };
        let second = hit(number, 1, "/column/ai", Timestamp(START.0 + 40_000));
        let arrival = Arrival { hit: second, first: Some(first) };
        site.engine.ingest(arrival, &site.scoring, &mut |record: &Record| {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            ordinal += 1;
            let position = Position::new(0, ordinal);
            records.push((position, bytes));
            position
        });
    }
    records
}

fn encode_and_decode(criterion: &mut Criterion) {
    let records = records(1_000);
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

fn replay(criterion: &mut Criterion) {
    let records = records(20_000);
    let mut group = criterion.benchmark_group("replay");
    group.throughput(Throughput::Elements(records.len() as u64));
    group.sample_size(20);
    group.bench_function("decode_and_apply", |bencher| {
        bencher.iter_with_large_drop(|| {
            let engine = Engine::new(SHARDS_DEFAULT);
            for (position, bytes) in &records {
                if let Ok(record) = Record::decode(bytes) {
                    engine.evolve(&record, *position);
                }
            }
            engine
        });
    });
    group.finish();
}

criterion_group!(group, encode_and_decode, replay);
criterion_main!(group);
