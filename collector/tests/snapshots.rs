//! A snapshot's file on a disk that loses what was not synced: whatever bears its name is whole,
//! and every changed byte of it is found.
#![allow(clippy::unwrap_used)]

#[path = "sim/disk.rs"]
#[allow(dead_code, reason = "every test file is a crate of its own and uses another part")]
mod disk;

use std::sync::Arc;

use collector::journal::EVOLVE;
use collector::journal::disk::Disk as _;
use collector::snapshots::Store;
use collector::snapshots::file::{End, Fault, Head, Kind, Writing, file_name};
use engine::engine::Engine;
use engine::id::{Position, Slot};
use engine::snapshot::save_catalog;
use engine::time::Timestamp;

use disk::{Dice, SimDisk};

const INSTALL: [u8; 16] = [7; 16];

fn head(from: u64) -> Head {
    Head {
        install: INSTALL,
        evolve: EVOLVE,
        incarnation: 1,
        from: Position(from),
        created: Timestamp(5),
    }
}

fn write(disk: &SimDisk, from: u64) -> Result<u64, Fault> {
    let engine = Engine::new(2);
    let ids = engine.ids(|| {});
    let mut writing = Writing::begin(disk, head(from))?;
    for slot in [3, 900] {
        let saved = engine.save_slot(Slot(slot), &ids, Timestamp(0))?;
        writing.part(Kind::Slot, u64::from(slot), &saved.bytes)?;
    }
    writing.part(Kind::Catalog, 0, &save_catalog(&engine.catalog()))?;
    writing.part(Kind::Followers, 0, &[from as u8; 100])?;
    writing.finish(End { until: Position(from), followed: Position(from), ..End::default() }, None)
}

fn store(disk: &SimDisk) -> Store {
    Store::new(Arc::new(disk.copy()), INSTALL)
}

#[test]
fn whatever_bears_a_snapshot_s_name_is_whole_wherever_the_power_went() {
    let mut operations = 0;
    for seed in 0.. {
        let disk = SimDisk::new();
        write(&disk, 1).unwrap();
        disk.crash_after(seed);
        let done = write(&disk, 2);
        let crashed = disk.has_crashed();
        disk.power_loss(&mut Dice::new(seed));
        let store = store(&disk);
        let names = store.names().unwrap();
        assert!(names.contains(&file_name(Position(1))), "seed {seed}: the one before stays");
        assert!(done.is_err() || names.contains(&file_name(Position(2))), "seed {seed}");
        for name in names {
            store.open(&name).and_then(|it| it.verify(None)).unwrap_or_else(|fault| {
                panic!("seed {seed}: {name} is published and {fault}");
            });
        }
        if !crashed {
            break;
        }
        operations += 1;
    }
    assert!(operations > 15, "{operations}");
}

#[test]
fn a_snapshot_written_over_an_old_one_is_whole_wherever_the_power_went() {
    let mut operations = 0;
    for seed in 0.. {
        let disk = SimDisk::new();
        let store = Store::new(Arc::new(disk.clone()), INSTALL);
        for from in 1..=3 {
            write(&disk, from).unwrap();
        }
        disk.crash_after(seed);
        let done = store.tidy().and_then(|()| write(&disk, 4)).and_then(|_| store.tidy());
        let crashed = disk.has_crashed();
        disk.power_loss(&mut Dice::new(seed));
        let names = store.names().unwrap();
        let (kept, newest) = (file_name(Position(3)), file_name(Position(4)));
        assert!(names.contains(&kept) && (done.is_err() || names.contains(&newest)), "seed {seed}");
        // Whatever is left of the old files, the next ones can be written over it.
        store.tidy().unwrap();
        for from in [5, 6] {
            write(&disk, from).unwrap();
            store.tidy().unwrap();
        }
        for name in store.names().unwrap() {
            store.open(&name).and_then(|it| it.verify(None)).unwrap_or_else(|fault| {
                panic!("seed {seed}: {name} is published and {fault}");
            });
        }
        assert!(disk.list().unwrap().len() <= 3, "seed {seed}: two, and a spare one");
        if !crashed {
            break;
        }
        operations += 1;
    }
    assert!(operations > 20, "{operations}");
}

#[test]
fn a_full_disk_gets_the_spare_file_back() {
    let disk = SimDisk::new();
    let store = Store::new(Arc::new(disk.clone()), INSTALL);
    for from in 1..=3 {
        write(&disk, from).unwrap();
    }
    store.tidy().unwrap();
    let before = disk.used();
    store.give_back().unwrap();
    assert!(disk.used() < before && store.names().unwrap().len() == 2);
    store.give_back().unwrap();
    assert!(write(&disk, 4).is_ok(), "and the next one needs none");
}

#[test]
fn every_changed_or_missing_byte_of_a_snapshot_is_found() {
    let disk = SimDisk::new();
    write(&disk, 1).unwrap();
    let name = file_name(Position(1));
    let sound = disk.bytes(&name);
    store(&disk).open(&name).unwrap().verify(None).unwrap();
    for at in 0..sound.len() {
        for bit in [0, 3, 7] {
            let mut bytes = sound.clone();
            bytes[at] ^= 1 << bit;
            disk.put(&name, bytes);
            let found = store(&disk).open(&name).and_then(|it| it.verify(None));
            assert!(found.is_err(), "byte {at}, bit {bit}");
        }
        disk.put(&name, sound[..at].to_vec());
        let found = store(&disk).open(&name).and_then(|it| it.verify(None));
        assert!(found.is_err(), "cut at {at}");
    }
}

#[test]
fn a_snapshot_of_another_installation_or_a_newer_program_is_refused_by_name() {
    let disk = SimDisk::new();
    write(&disk, 1).unwrap();
    let name = file_name(Position(1));
    let other = Store::new(Arc::new(disk.copy()), [8; 16]);
    assert_eq!(other.open(&name).err(), Some(Fault::OtherInstall));
    let newer = Head { evolve: EVOLVE + 1, ..head(9) };
    let writing = Writing::begin(&disk, newer).unwrap();
    // The newer program itself can read it.
    writing.finish(End::default(), None).unwrap();
    assert_eq!(store(&disk).open(&file_name(Position(9))).err(), Some(Fault::Unknown));
}
