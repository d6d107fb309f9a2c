//! Snapshots: 100,000 visitors with two rows each, 5,000 of them people, at full speed. Guards how
//! long a start takes that reads one: two seconds a gigabyte. What taking one costs the hits
//! beside it is `./measure snapshot`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use benches::{Bytes, START, Site, people};
use collector::journal::EVOLVE;
use collector::journal::disk::RealDisk;
use collector::snapshots::file::{End, Head, Kind, Snapshot, Writing, file_name};
use collector::snapshots::restore;
use criterion::{Criterion, Throughput, criterion_group};
use engine::attribute::Attributes;
use engine::engine::{Engine, SHARDS_DEFAULT};
use engine::id::{Position, Slot};
use engine::snapshot::{FORM, SavedSlot, SlotReader, save_catalog};
use engine::time::Timestamp;

const VISITORS: u64 = 100_000;
const PEOPLE: u64 = 5_000;
const INSTALL: [u8; 16] = *b"for benchmarks..";
const FROM: Position = Position(1);
const NOW: Timestamp = Timestamp(START.0 + 100_000);

fn site() -> Site {
    let site = people(PEOPLE);
    site.admit(PEOPLE, VISITORS, &mut Bytes::new());
    site
}

fn save(site: &Site) -> Vec<SavedSlot> {
    let ids = site.engine.ids(|| {});
    let slots = 0..Slot::COUNT as u16;
    let saved = slots.map(|slot| site.engine.save_slot(Slot(slot), &ids, NOW));
    saved.map(|saved| saved.expect("a slot is small")).collect()
}

/// Written, synced, read back, named.
fn write(disk: &RealDisk, catalog: &[u8], slots: &[SavedSlot]) -> u64 {
    let (install, evolve) = (INSTALL, EVOLVE);
    let head = Head { install, evolve, incarnation: 1, from: FROM, created: NOW };
    let mut writing = Writing::begin(disk, head).expect("the disk works");
    let mut end = End { until: FROM, followed: FROM, ..End::default() };
    for (number, slot) in slots.iter().enumerate() {
        end.visitors += slot.visitors as u64;
        end.leads += slot.leads as u64;
        writing.part(Kind::Slot, number as u64, &slot.bytes).expect("the disk works");
    }
    writing.part(Kind::Catalog, 0, catalog).expect("the disk works");
    writing.finish(end, None).expect("it is read back as it was written")
}

fn read(disk: &RealDisk) -> Engine {
    let snapshot = Snapshot::open(disk, &file_name(FROM), &INSTALL, EVOLVE);
    let snapshot = snapshot.expect("it was just written");
    let sizes = (snapshot.end.visitors as usize, snapshot.end.leads as usize);
    let engine = Engine::with_room(SHARDS_DEFAULT, sizes);
    restore(&snapshot, &engine, |_, _| None).expect("it was just written");
    engine
}

/// A slot's entries into an engine that has none of it.
fn restore_slots(saved: &SavedSlot, times: u64) -> Duration {
    let mut spent = Duration::ZERO;
    for _ in 0..times {
        let engine = Engine::with_room(2, (saved.visitors, saved.leads));
        let began = Instant::now();
        let slot = SlotReader::open(&saved.bytes, FORM).expect("it was just written");
        let read = engine.restore_slot(&slot, &|_, _| Attributes::default());
        spent += began.elapsed();
        read.expect("it was just written");
    }
    spent
}

/// What the benches of snapshots share.
struct Made {
    site: Site,
    slots: Vec<SavedSlot>,
    catalog: Vec<u8>,
    disk: Arc<RealDisk>,
    bytes: u64,
    _folder: tempfile::TempDir,
}

impl Made {
    fn new() -> Made {
        let site = site();
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"));
        let folder = folder.expect("there is a folder to build in");
        let disk = Arc::new(RealDisk::open(folder.path()).expect("it opens"));
        let (slots, catalog) = (save(&site), save_catalog(&site.engine.catalog()));
        let bytes = write(&disk, &catalog, &slots);
        let again = read(&disk);
        assert_eq!(again.state_hash(NOW), site.engine.state_hash(NOW), "it is put back as it was");
        Made { site, slots, catalog, disk, bytes, _folder: folder }
    }
}

fn snapshot(criterion: &mut Criterion) {
    // How many bytes it has must be known before.
    let made = Made::new();
    let mut group = criterion.benchmark_group("snapshot");
    let slot = &made.slots[7];
    group.throughput(Throughput::Elements((slot.visitors + slot.leads) as u64));
    group.bench_function("save_a_slot", |bencher| {
        let ids = made.site.engine.ids(|| {});
        bencher.iter(|| black_box(made.site.engine.save_slot(Slot(7), &ids, NOW)));
    });
    group.bench_function("restore_a_slot", |bencher| {
        bencher.iter_custom(|times| restore_slots(slot, times));
    });
    group.sample_size(10);
    group.throughput(Throughput::Elements(VISITORS));
    group.bench_function("save", |bencher| bencher.iter_with_large_drop(|| save(&made.site)));
    group.throughput(Throughput::Bytes(made.bytes));
    group.bench_function("write", |bencher| {
        bencher.iter(|| write(&made.disk, &made.catalog, &made.slots));
    });
    group.bench_function("read", |bencher| bencher.iter_with_large_drop(|| read(&made.disk)));
    group.finish();
}

criterion_group!(group, snapshot);
