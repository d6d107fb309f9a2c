//! The journal's promises, on a simulated disk by seed and on a real one.
#![allow(clippy::unwrap_used)]

mod sim {
    pub mod disk;
    pub mod process;
}

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use collector::journal::committer::Now;
use collector::journal::disk::{Disk, DiskFile, RealDisk};
use collector::journal::recovery::recover;
use collector::journal::segment::{
    BATCH_HEADER_BYTES, Group, HEADER_BYTES, Header, decode_batch, file_name, index_name, seed,
};
use collector::journal::{Damage, Full, Hooks, Journal, OpenError, Options, Poisoned, ReadError};
use engine::id::Position;
use sim::disk::{Dice, Fault, SimDisk};
use sim::process::{Process, Records, recover_all};

const INSTALL: [u8; 16] = *b"0123456789abcdef";

fn at(ordinal: u64) -> Position {
    Position::new(0, ordinal)
}

fn options() -> Options {
    Options { segment_bytes: 4 * 1024, ..Options::new(INSTALL) }
}

/// What a client knows: what it sent at each position, and what was acknowledged.
#[derive(Default)]
struct Oracle {
    sent: BTreeMap<u64, Vec<Vec<u8>>>, // position -> every record that was ever pushed there
    acknowledged: u64,
}

impl Oracle {
    fn send(&mut self, from: u64, records: &[Vec<u8>]) {
        for (position, record) in (from..).zip(records) {
            self.sent.entry(position).or_default().push(record.clone());
        }
    }

    /// Every acknowledged record is there, in order, without gaps, as sent; nothing is invented.
    fn check(&mut self, records: &Records, context: &str) {
        for (expected, (position, bytes)) in (1..).zip(records) {
            assert_eq!(expected, *position, "{context}: order and gaps");
            let sent = self.sent.get(position).unwrap_or_else(|| panic!("{context}: invented"));
            assert!(sent.contains(bytes), "{context}: position {position} is not as sent");
        }
        let last = records.len() as u64;
        assert!(
            last >= self.acknowledged,
            "{context}: {last} left of {} acknowledged",
            self.acknowledged
        );
        // What recovery has handed over and made durable is decided from now on.
        self.acknowledged = last;
        self.sent.retain(|position, _| *position <= last);
        for (position, bytes) in records {
            self.sent.insert(*position, vec![bytes.clone()]);
        }
    }
}

fn some_records(dice: &mut Dice) -> Vec<Vec<u8>> {
    let count = 1 + dice.below(4);
    (0..count)
        .map(|_| {
            let length = dice.below(200) as usize;
            dice.bytes(length)
        })
        .collect()
}

/// A life of a process until the power goes, it is killed, or it stops.
fn live(disk: &SimDisk, dice: &mut Dice, oracle: &mut Oracle, context: &str) {
    disk.crash_after(dice.below(120));
    disk.set(Fault::KeepCache, dice.coin());
    let (mut process, found, records) = match Process::start(disk, &options()) {
        Ok(started) => started,
        Err(error) => {
            assert!(disk.has_crashed(), "{context}: recovery said {error}");
            return;
        }
    };
    assert_eq!(found.last.ordinal(), records.len() as u64, "{context}");
    oracle.check(&records, context);
    let fail_at = dice.below(100);
    for turn in 0..40 {
        match dice.below(8) {
            0 => process.pass(5),
            1 if dice.below(4) == 0 => {
                disk.set(Fault::NoSpace, true);
                let records = some_records(dice);
                oracle.send(process.next().ordinal(), &records);
                process.commit(&records);
                disk.set(Fault::NoSpace, false);
                process.pass(1_000);
            }
            _ => {
                disk.set(Fault::Sync, turn == fail_at);
                let records = some_records(dice);
                oracle.send(process.next().ordinal(), &records);
                process.commit(&records);
                disk.set(Fault::Sync, false);
            }
        }
        oracle.acknowledged = process.durable();
        if process.poisoned.is_some() || !process.committer.is_ready() {
            return;
        }
    }
    process.stop();
    oracle.acknowledged = process.durable();
}

/// D1, D2, D6, D9.
#[test]
fn acknowledged_records_are_there_after_any_crash_even_within_recovery_and_nothing_is_invented() {
    let mut crashes = 0;
    for seed in 0..2_000 {
        let mut dice = Dice::new(seed);
        let disk = SimDisk::new();
        let mut oracle = Oracle::default();
        for life in 0..8 {
            live(&disk, &mut dice, &mut oracle, &format!("seed {seed}, life {life}"));
            crashes += u64::from(disk.has_crashed());
            if dice.below(3) == 0 {
                disk.kill();
            } else {
                disk.power_loss(&mut dice);
            }
        }
        let (_, _, records) = Process::start(&disk, &options())
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        oracle.check(&records, &format!("seed {seed}, at the end"));
    }
    assert!(crashes > 5_000, "the power went only {crashes} times: the test tests nothing");
}

#[test]
fn at_every_acknowledgement_what_was_synced_holds_all_that_was_ever_acknowledged() {
    let disk = SimDisk::new();
    let (mut process, _, _) = Process::start(&disk, &options()).unwrap();
    let mut dice = Dice::new(5);
    for turn in 0..60 {
        process.commit(&some_records(&mut dice));
        process.pass(if turn % 7 == 0 { 5 } else { 0 });
        let (_, left) = recover_all(&disk.only_what_was_synced(), &options()).unwrap();
        assert_eq!(left.len() as u64, process.durable(), "turn {turn}");
    }
}

/// A fixed history with rollover, seals and a clean stop; says what was acknowledged.
fn history(disk: &SimDisk, oracle: &mut Oracle) {
    let Ok((mut process, _, records)) = Process::start(disk, &options()) else {
        return;
    };
    oracle.check(&records, "history");
    let mut dice = Dice::new(7);
    for turn in 0..6 {
        let records = vec![dice.bytes(700), dice.bytes(turn)];
        oracle.send(process.next().ordinal(), &records);
        process.commit(&records);
        process.pass(if turn % 2 == 0 { 5 } else { 0 });
        oracle.acknowledged = process.durable();
        if !process.committer.is_ready() {
            return;
        }
    }
    process.stop();
}

/// D2, D8, D9.
#[test]
fn a_power_cut_at_every_operation_and_again_at_every_operation_of_recovery_loses_nothing() {
    let whole = SimDisk::new();
    history(&whole, &mut Oracle::default());
    let operations = whole.operations();
    assert!(operations > 30, "{operations}");
    for first in 0..=operations {
        for second in 0..24 {
            let context = format!("cut at {first}, then at {second} of recovery");
            let mut dice = Dice::new(first * 1_000 + second);
            let disk = SimDisk::new();
            let mut oracle = Oracle::default();
            disk.crash_after(first);
            history(&disk, &mut oracle);
            disk.power_loss(&mut dice);
            disk.crash_after(second);
            if let Ok((_, records)) = recover_all(&disk, &options()) {
                oracle.check(&records, &context);
            } else {
                assert!(disk.has_crashed(), "{context}");
            }
            disk.power_loss(&mut dice);
            let recovered = recover_all(&disk, &options());
            let (_, records) = recovered.unwrap_or_else(|error| panic!("{context}: {error}"));
            oracle.check(&records, &context);
        }
    }
}

/// Six batches of one record in one segment, no seal, as a killed process leaves them.
fn six_batches(disk: &SimDisk) -> Records {
    let (mut process, _, _) = Process::start(disk, &options()).unwrap();
    let mut dice = Dice::new(3);
    let records: Vec<Vec<u8>> = (0..6).map(|n| dice.bytes(20 + 3 * n)).collect();
    for record in &records {
        process.commit(std::slice::from_ref(record));
    }
    assert_eq!(process.durable(), 6);
    (1..).zip(records).collect()
}

/// Offsets where the batches of a segment begin, and where the last one ends.
fn batch_offsets(bytes: &[u8], first: Position) -> Vec<usize> {
    let mut offsets = vec![HEADER_BYTES];
    while let Ok(batch) = decode_batch(bytes, offsets[offsets.len() - 1], seed(&INSTALL, first)) {
        offsets.push(batch.end());
    }
    offsets
}

/// D3.
#[test]
fn a_tail_torn_at_any_byte_of_the_last_three_batches_is_cut_and_the_whole_batches_stay() {
    let disk = SimDisk::new();
    let records = six_batches(&disk);
    let name = file_name(at(1));
    let bytes = disk.bytes(&name);
    let offsets = batch_offsets(&bytes, at(1));
    assert_eq!(offsets.len(), 7);
    for cut in offsets[3]..=offsets[6] {
        for zeros in [false, true] {
            let torn = disk.copy();
            let mut left = bytes[..cut].to_vec();
            if zeros {
                left.resize(bytes.len(), 0);
            }
            torn.put(&name, left.clone());
            let (recovered, found) = recover_all(&torn, &options()).unwrap();
            // A cut within the zeros of the padding cuts nothing when zeros follow.
            let is_whole = |end: &&usize| left.get(..**end) == Some(&bytes[..**end]);
            let whole = offsets.iter().filter(is_whole).count() - 1;
            assert_eq!(found, records[..whole], "cut at {cut}");
            let dirt = left.iter().rposition(|byte| *byte != 0).unwrap() + 1;
            let cut_bytes = dirt.saturating_sub(offsets[whole]) as u64;
            assert_eq!(recovered.found.cut_bytes, cut_bytes, "cut at {cut}");
            assert!(torn.bytes(&name).starts_with(&left[..dirt]), "evidence at {cut}");
            // Writing goes on behind the cut.
            let (mut process, _, _) = Process::start(&torn, &options()).unwrap();
            process.commit(&[b"after".to_vec()]);
            let (_, found) = recover_all(&torn, &options()).unwrap();
            assert_eq!(found.len(), whole + 1);
            assert_eq!(found[whole], (whole as u64 + 1, b"after".to_vec()));
        }
    }
}

/// D4.
#[test]
fn every_flipped_bit_of_a_journal_is_refused_by_name_or_harms_no_record() {
    let disk = SimDisk::new();
    let (mut process, _, _) = Process::start(&disk, &options()).unwrap();
    for record in [&b"one"[..], b"two", b"three"] {
        process.commit(&[record.to_vec()]);
    }
    process.pass(5);
    let name = file_name(at(1));
    let bytes = disk.bytes(&name);
    let seal = *batch_offsets(&bytes, at(1)).iter().rev().nth(1).unwrap();
    // Some of the zeros behind the end are tried as well.
    for bit in 0..(seal + BATCH_HEADER_BYTES + 64) * 8 {
        let flipped = disk.copy();
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        flipped.put(&name, bytes);
        match recover_all(&flipped, &options()) {
            Err(OpenError::Damaged(damage)) => {
                assert!(bit / 8 < seal, "bit {bit}: {damage}");
                let range = damage.from as usize..damage.to as usize;
                assert!(range.contains(&(bit / 8)), "bit {bit}: {damage}");
                assert_eq!(damage.file, name);
            }
            Err(error) => panic!("bit {bit}: {error}"),
            Ok((recovered, records)) => {
                assert!(bit / 8 >= seal, "bit {bit} was not noticed");
                assert_eq!(records.len(), 3, "bit {bit}");
                assert!(recovered.found.cut_bytes > 0, "bit {bit} is not reported");
            }
        }
    }
}

/// Twelve records over several segments, stopped in order.
fn several_segments() -> (SimDisk, Records) {
    let disk = SimDisk::new();
    let (mut process, _, _) = Process::start(&disk, &options()).unwrap();
    let mut dice = Dice::new(11);
    let records: Vec<Vec<u8>> = (0..12).map(|_| dice.bytes(900)).collect();
    for record in &records {
        process.commit(std::slice::from_ref(record));
    }
    process.stop();
    let logs = disk.list().unwrap();
    assert!(logs.iter().filter(|name| name.strip_suffix(".log").is_some()).count() >= 3);
    (disk, (1..).zip(records).collect())
}

/// Flips one byte of the second batch of a segment.
fn damage_second_batch(disk: &SimDisk, first: Position) -> (usize, usize) {
    let mut bytes = disk.bytes(&file_name(first));
    let offsets = batch_offsets(&bytes, first);
    bytes[offsets[1] + 100] ^= 0x40;
    disk.put(&file_name(first), bytes);
    (offsets[1], offsets[2])
}

fn refused(disk: &SimDisk, options: &Options) -> Damage {
    match recover_all(disk, options) {
        Err(OpenError::Damaged(damage)) => damage,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("damage was not noticed"),
    }
}

/// D4.
#[test]
fn damage_of_what_was_durable_refuses_to_start_and_names_file_bytes_and_positions() {
    let (disk, _) = several_segments();
    let (from, to) = damage_second_batch(&disk, at(1));
    let damage = refused(&disk, &options());
    assert_eq!((damage.from, damage.to), (from as u64, to as u64));
    assert_eq!((damage.first, damage.last), (at(2), at(2)));
    let said = OpenError::Damaged(damage).to_string();
    assert!(said.contains("segment-0000000000000001.log"), "{said}");
    assert!(said.contains(&format!("bytes {from} to {to}, positions 2 to 2")), "{said}");
    assert!(said.contains("--accept-loss"), "{said}");
}

#[test]
fn an_accepted_loss_keeps_the_rest_is_remembered_and_begins_a_new_incarnation() {
    let (disk, records) = several_segments();
    damage_second_batch(&disk, at(1));
    let accepting = Options { accept_loss: true, ..options() };
    let (recovered, found) = recover_all(&disk, &accepting).unwrap();
    let rest: Records = records.iter().filter(|(at, _)| *at != 2).cloned().collect();
    assert_eq!(found, rest);
    assert_eq!(recovered.found.lost.len(), 1);
    assert_eq!(recovered.found.incarnation, 2);

    let (recovered, found) = recover_all(&disk, &options()).unwrap();
    assert_eq!(found, rest, "asked only once");
    assert_eq!(recovered.found.lost.len(), 1);
    assert_eq!(recovered.found.incarnation, 2);
}

#[test]
fn a_damaged_header_costs_no_record_once_the_operator_agrees() {
    for segment in 0..2 {
        let (disk, records) = several_segments();
        let logs: Vec<String> = disk.list().unwrap();
        let name =
            logs.iter().filter(|name| name.strip_suffix(".log").is_some()).nth(segment).unwrap();
        let mut bytes = disk.bytes(name);
        bytes[20] ^= 1;
        disk.put(name, bytes);
        assert_eq!((refused(&disk, &options()).from, refused(&disk, &options()).to), (0, 64));
        let accepting = Options { accept_loss: true, ..options() };
        assert_eq!(recover_all(&disk, &accepting).unwrap().1, records);
    }
}

#[test]
fn a_missing_segment_and_a_shortened_one_are_noticed() {
    let (disk, _) = several_segments();
    let logs = disk.list().unwrap();
    let logs: Vec<&String> =
        logs.iter().filter(|name| name.strip_suffix(".log").is_some()).collect();
    let missing = disk.copy();
    missing.remove(logs[1]).unwrap();
    let damage = refused(&missing, &options());
    assert!(damage.first <= damage.last, "{damage}");

    let mut bytes = disk.bytes(logs[0]);
    bytes.pop();
    disk.put(logs[0], bytes);
    assert!(refused(&disk, &options()).first <= refused(&disk, &options()).last);
}

#[test]
fn a_sound_batch_that_does_not_follow_the_one_before_is_noticed() {
    // given two journals that differ in their second batch
    let write = |second: &[u8]| {
        let disk = SimDisk::new();
        let (mut process, _, _) = Process::start(&disk, &options()).unwrap();
        process.commit(&[b"first".to_vec()]);
        process.commit(&[second.to_vec()]);
        process.commit(&[b"third".to_vec()]);
        disk
    };
    let (disk, other) = (write(b"as acknowledged"), write(b"as forged here!"));
    let name = file_name(at(1));
    let mut bytes = disk.bytes(&name);
    let offsets = batch_offsets(&bytes, at(1));
    // when the second batch of one stands in the other
    let stray = &other.bytes(&name)[offsets[1]..offsets[2]];
    bytes[offsets[1]..offsets[2]].copy_from_slice(stray);
    disk.put(&name, bytes);
    // then the third batch tells
    let damage = refused(&disk, &options());
    assert_eq!(damage.from, offsets[2] as u64, "{damage}");
}

#[test]
fn a_damaged_seal_between_two_batches_is_noticed() {
    let disk = SimDisk::new();
    let (mut process, _, _) = Process::start(&disk, &options()).unwrap();
    process.commit(&[b"first".to_vec()]);
    process.pass(5);
    process.commit(&[b"second".to_vec()]);
    let name = file_name(at(1));
    let mut bytes = disk.bytes(&name);
    let offsets = batch_offsets(&bytes, at(1));
    bytes[offsets[1]..offsets[2]].fill(0);
    disk.put(&name, bytes);
    let damage = refused(&disk, &options());
    assert!(damage.first > damage.last, "no record is lost: {damage}");
}

#[test]
fn a_record_that_looks_like_a_batch_is_not_taken_for_proof() {
    // given a torn tail whose record holds a batch, made up without knowing the installation
    let disk = SimDisk::new();
    six_batches(&disk);
    let name = file_name(at(1));
    let mut bytes = disk.bytes(&name);
    let end = *batch_offsets(&bytes, at(1)).last().unwrap();
    let mut forged = Group::new(at(9), Vec::new());
    forged.push(b"trust me");
    let forged = forged.finish(seed(b"another install!", at(1)), at(8), 0);
    bytes[end..end + 8].fill(0xaa);
    bytes[end + 8..end + 8 + forged.bytes().len()].copy_from_slice(forged.bytes());
    disk.put(&name, bytes);
    assert_eq!(recover_all(&disk, &options()).unwrap().1.len(), 6);
}

/// D12.
#[test]
fn unknown_formats_versions_and_installations_are_refused_by_name() {
    let (disk, _) = several_segments();
    let file = file_name(at(1));
    let foreign = Options::new(*b"another install!");
    let refused = recover_all(&disk, &foreign).err().unwrap();
    assert_eq!(refused, OpenError::Foreign { file: file.clone() });

    let header = Header::decode(&disk.bytes(&file)).unwrap();
    let mut bytes = disk.bytes(&file);
    bytes[..HEADER_BYTES].copy_from_slice(&Header { evolve: 9, ..header }.encode());
    disk.put(&file, bytes.clone());
    let refused = recover_all(&disk, &options()).err().unwrap();
    assert_eq!(refused, OpenError::Evolve { file: file.clone(), evolve: 9, known: 2 });

    bytes[8] = 2;
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    disk.put(&file, bytes);
    let refused = recover_all(&disk, &options()).err().unwrap();
    assert_eq!(refused, OpenError::Format { file, format: 2 });
}

#[test]
fn recovery_repeated_changes_nothing_but_the_fresh_segment() {
    let disk = SimDisk::new();
    let records = six_batches(&disk);
    let mut last = None;
    for _ in 0..4 {
        let (recovered, found) = recover_all(&disk, &options()).unwrap();
        assert_eq!(found, records);
        let logs = disk.list().unwrap();
        let logs = logs.iter().filter(|name| name.strip_suffix(".log").is_some()).count();
        assert!(logs <= 3, "{logs}");
        last = Some(recovered.found.last);
    }
    assert_eq!(last, Some(at(6)));
}

#[test]
fn a_new_incarnation_keeps_old_records_under_the_old_number_even_copied_ones() {
    let disk = SimDisk::new();
    six_batches(&disk);
    let anew = Options { new_incarnation: true, ..options() };
    let (recovered, _) = recover_all(&disk, &anew).unwrap();
    assert_eq!(recovered.found.copied, 1);
    assert_eq!((recovered.header.incarnation, recovered.header.first), (2, at(7)));
    let mut incarnations = Vec::new();
    recover(&disk, &options(), 1, &mut |entry| incarnations.push(entry.incarnation)).unwrap();
    assert_eq!(incarnations, [1; 6]);
}

#[test]
fn a_failed_sync_is_never_retried_and_never_acknowledged_and_recovery_makes_its_own_copy() {
    let disk = SimDisk::new();
    let (mut process, _, _) = Process::start(&disk, &options()).unwrap();
    process.commit(&[b"kept".to_vec()]);
    disk.set(Fault::Sync, true);
    process.commit(&[b"doubtful".to_vec()]);
    disk.set(Fault::Sync, false);
    assert!(matches!(process.poisoned, Some(Poisoned::Sync(_))));
    assert_eq!(process.durable(), 1);
    let operations = disk.operations();
    process.pass(1_000);
    assert_eq!(disk.operations(), operations, "nothing is tried after it");

    // The cache still shows the batch, and would call it clean; what recovery serves is durable.
    disk.set(Fault::KeepCache, true);
    disk.kill();
    let (_, served) = recover_all(&disk, &options()).unwrap();
    disk.power_loss(&mut Dice::new(1));
    assert_eq!(recover_all(&disk, &options()).unwrap().1, served);
    assert_eq!(served.len(), 2);
}

#[test]
fn segments_a_snapshot_covers_are_neither_read_nor_handed_over() {
    let (disk, records) = several_segments();
    recover_all(&disk, &options()).unwrap();
    // An unreadable first segment goes unnoticed when it is covered.
    damage_second_batch(&disk, at(1));
    let covered = Options { replay_from: at(10), ..options() };
    let (recovered, found) = recover_all(&disk, &covered).unwrap();
    assert_eq!(found, records[9..]);
    assert_eq!((recovered.found.first, recovered.found.last), (at(1), at(12)));
}

// From here on with the journal's own thread.

/// A clock that runs by being looked at.
fn hooks() -> (Hooks, Arc<Mutex<Option<Poisoned>>>) {
    let clock = AtomicU64::new(0);
    let told = Arc::new(Mutex::new(None));
    let tell = Arc::clone(&told);
    let hooks = Hooks {
        now: Box::new(move || {
            let boot_ms = clock.fetch_add(20, Ordering::Relaxed);
            Now { wall_ms: 1_700_000_000_000 + boot_ms, boot_ms }
        }),
        poisoned: Box::new(move |poisoned| *tell.lock().unwrap() = Some(poisoned)),
    };
    (hooks, told)
}

fn open(disk: &Arc<dyn Disk>, options: &Options) -> Result<(Journal, Records), OpenError> {
    let mut records = Vec::new();
    let (journal, _) = Journal::open(Arc::clone(disk), options, hooks().0, |entry| {
        records.push((entry.position.ordinal(), entry.bytes.to_vec()));
    })?;
    Ok((journal, records))
}

fn push(journal: &Journal, record: &[u8]) -> Position {
    journal.reserve(1, record.len()).unwrap().push(record)
}

#[test]
fn four_threads_get_gap_free_positions_and_find_every_acknowledged_record_again() {
    const THREADS: u64 = 4;
    const EACH: u64 = 1_500;
    let folder = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(folder.path().join("journal")).unwrap());
    let options = Options { segment_bytes: 64 * 1024, ..Options::new(INSTALL) };
    let (journal, _) = open(&disk, &options).unwrap();
    let done = AtomicBool::new(false);
    let mut sent = BTreeMap::new();
    thread::scope(|scope| {
        let follower = scope.spawn(|| follow_all(&journal, THREADS * EACH, &done));
        let pushers: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn({
                    let journal = &journal;
                    move || push_many(journal, thread, EACH)
                })
            })
            .collect();
        for pusher in pushers {
            sent.extend(pusher.join().unwrap());
        }
        done.store(true, Ordering::SeqCst);
        assert_eq!(follower.join().unwrap(), sent, "a follower sees the same");
    });
    assert_eq!(sent.len() as u64, THREADS * EACH);
    assert_eq!(journal.stop(), Ok(at(THREADS * EACH)));
    assert_eq!(journal.figures().pending_bytes, 0);
    drop(journal);

    let (journal, found) = open(&disk, &options).unwrap();
    assert_eq!(found.into_iter().collect::<BTreeMap<_, _>>(), sent);
    for (position, record) in sent.iter().step_by(97) {
        assert_eq!(journal.read(at(*position)).as_ref(), Ok(record));
    }
    assert!(journal.figures().segments > 3);
}

fn push_many(journal: &Journal, thread: u64, each: u64) -> Vec<(u64, Vec<u8>)> {
    let mut sent = Vec::new();
    let mut dice = Dice::new(thread);
    for number in 0..each {
        let mut record = format!("{thread}:{number}:").into_bytes();
        let length = dice.below(300) as usize;
        record.extend(dice.bytes(length));
        let position = push(journal, &record);
        assert!(sent.last().is_none_or(|(last, _)| *last < position.ordinal()));
        sent.push((position.ordinal(), record));
        if number % 16 == 0 {
            journal.wait_blocking(position).unwrap();
            assert!(journal.durable() >= position);
        }
    }
    journal.wait_blocking(at(sent[sent.len() - 1].0)).unwrap();
    sent
}

fn follow_all(journal: &Journal, last: u64, done: &AtomicBool) -> BTreeMap<u64, Vec<u8>> {
    let mut follower = journal.follow(at(1));
    let mut seen = BTreeMap::new();
    while (seen.len() as u64) < last {
        // Should a pusher fail, this ends too.
        let over = done.load(Ordering::SeqCst);
        let Some(entry) = follower.next_blocking(Duration::from_millis(100)).unwrap() else {
            assert!(!over, "the pushers are done, and {} of {last} were seen", seen.len());
            continue;
        };
        assert!(entry.position <= journal.durable(), "beyond what is durable");
        assert_eq!(entry.position.ordinal(), seen.len() as u64 + 1, "order and gaps");
        seen.insert(entry.position.ordinal(), entry.bytes.to_vec());
    }
    seen
}

/// D10.
#[test]
fn a_second_opener_is_refused_until_the_first_has_gone() {
    let folder = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(folder.path()).unwrap());
    let (first, _) = open(&disk, &options()).unwrap();
    assert_eq!(open(&disk, &options()).err(), Some(OpenError::InUse));
    drop(first);
    assert!(open(&disk, &options()).is_ok());
}

#[test]
fn settings_out_of_bounds_are_refused_by_name() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let tiny = Options { segment_bytes: 1, ..options() };
    let error = open(&disk, &tiny).err().unwrap();
    assert!(error.to_string().starts_with("segment_bytes must be between"), "{error}");
}

/// D5.
#[test]
fn a_full_disk_refuses_new_records_keeps_the_accepted_ones_and_goes_on_by_itself() {
    let sim = SimDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let (journal, _) = open(&disk, &options()).unwrap();
    let mut pushed = 0;
    sim.set(Fault::NoSpace, true);
    let full = loop {
        match journal.reserve(1, 500) {
            Ok(mut reserved) => pushed = reserved.push(&[7; 500]).ordinal(),
            Err(full) => break full,
        }
        thread::yield_now();
    };
    assert_eq!(full, Full::DiskFull);
    assert!(journal.durable() < at(pushed));
    assert!(journal.figures().refused > 0);

    sim.set(Fault::NoSpace, false);
    journal.wait_blocking(at(pushed)).unwrap();
    assert!(journal.reserve(1, 500).is_ok());
    drop(journal);
    assert_eq!(open(&disk, &options()).unwrap().1.len() as u64, pushed);
}

#[test]
fn a_stop_on_a_full_disk_tells_whoever_waits_and_does_not_hang() {
    let sim = SimDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let (journal, _) = open(&disk, &options()).unwrap();
    sim.set(Fault::NoSpace, true);
    let position = push(&journal, b"too late");
    assert_eq!(journal.stop(), Err(Poisoned::DiskFull));
    assert_eq!(journal.wait_blocking(position), Err(Poisoned::DiskFull));
    assert_eq!(journal.stop(), Err(Poisoned::DiskFull));
}

/// A journal with a reserve on a disk that has space for nothing more, and what it holds.
fn full_with_a_reserve(sim: &SimDisk) -> (Journal, Options, Vec<Position>) {
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let options = Options { reserve_bytes: 64 * 1024, ..options() };
    let (journal, _) = open(&disk, &options).unwrap();
    assert_eq!(journal.figures().reserve_bytes, 64 * 1024);
    sim.limit(Some(sim.used()));
    let mut pushed = Vec::new();
    loop {
        match journal.reserve(1, 500) {
            Ok(mut reserved) => pushed.push(reserved.push(&[7; 500])),
            Err(full) => break assert_eq!(full, Full::DiskFull),
        }
        thread::yield_now();
    }
    (journal, options, pushed)
}

/// D5.
#[test]
fn on_a_full_disk_the_reserve_waits_for_the_stop_and_is_enough_for_all_that_was_taken() {
    // given a full disk, and records that were taken and not written
    let sim = SimDisk::new();
    let (journal, options, pushed) = full_with_a_reserve(&sim);
    let last = pushed[pushed.len() - 1];
    assert!(journal.durable() < last && journal.is_disk_full());
    assert!(sim.list().unwrap().contains(&"reserve".to_owned()), "hits do not get it");
    // when a stop begins
    journal.wind_down();
    journal.wait_blocking(last).unwrap();
    // then also what the outbox says meanwhile is written
    let said = push(&journal, &[8; 3_000]);
    journal.wait_blocking(said).unwrap();
    assert_eq!(journal.figures().reserve_bytes, 0);
    assert_eq!(journal.stop(), Ok(said));
    drop(journal);
    // and the next start, with space again, has everything and makes the reserve anew
    sim.limit(None);
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let (journal, records) = open(&disk, &options).unwrap();
    assert_eq!(records.len() as u64, said.ordinal());
    assert_eq!(journal.figures().reserve_bytes, 64 * 1024);
}

/// D5.
#[test]
fn a_stop_that_finds_no_space_even_in_the_reserve_refuses_instead_of_hanging() {
    let sim = SimDisk::new();
    let (journal, options, pushed) = full_with_a_reserve(&sim);
    // given somebody else who takes what the reserve gives back
    sim.limit(Some(0));
    journal.wind_down();
    let full = loop {
        match journal.reserve(1, 500) {
            Ok(reserved) => drop(reserved),
            Err(Full::DiskFull) => thread::yield_now(),
            Err(full) => break full,
        }
    };
    assert_eq!(full, Full::Stopping);
    assert!(journal.is_refusing_for_good());
    assert_eq!(journal.stop(), Err(Poisoned::DiskFull));
    assert_eq!(journal.wait_blocking(pushed[pushed.len() - 1]), Err(Poisoned::DiskFull));
    drop(journal);
    sim.limit(None);
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let (_, records) = open(&disk, &options).unwrap();
    assert!(records.len() < pushed.len(), "only what was acknowledged");
}

/// D5.
#[test]
fn a_start_on_a_full_disk_uses_the_reserve_refuses_hits_and_makes_it_again_when_space_returns() {
    // given a process that was killed on a full disk
    let sim = SimDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let options = Options { reserve_bytes: 4_096, ..options() };
    let (journal, _) = open(&disk, &options).unwrap();
    journal.wait_blocking(push(&journal, b"before")).unwrap();
    drop(journal);
    sim.limit(Some(sim.used()));
    // when it starts again
    let (journal, records) = open(&disk, &options).unwrap();
    // then what was acknowledged is there, and new records are refused as soon as it is known
    assert_eq!(records, [(1, b"before".to_vec())]);
    assert_eq!(journal.figures().reserve_bytes, 0);
    let mut last = at(1);
    let full = loop {
        match journal.reserve(1, 500) {
            Ok(mut reserved) => last = reserved.push(&[7; 500]),
            Err(full) => break full,
        }
        thread::yield_now();
    };
    assert_eq!(full, Full::DiskFull);
    // and with space it goes on by itself
    sim.limit(None);
    journal.wait_blocking(last).unwrap();
    assert_eq!(journal.stop(), Ok(last));
    drop(journal);
    let (journal, records) = open(&disk, &options).unwrap();
    assert_eq!(records.len() as u64, last.ordinal());
    assert_eq!(journal.figures().reserve_bytes, 4_096);
}

/// D6.
#[test]
fn after_a_failed_sync_nobody_is_acknowledged_and_the_process_is_told_to_exit() {
    let sim = SimDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let (hooks, told) = hooks();
    let (journal, _) = Journal::open(disk, &options(), hooks, |_| ()).unwrap();
    let kept = push(&journal, b"kept");
    journal.wait_blocking(kept).unwrap();
    sim.set(Fault::Sync, true);
    let lost = push(&journal, b"lost");
    let poisoned = Poisoned::Sync(io::ErrorKind::Other);
    assert_eq!(journal.wait_blocking(lost), Err(poisoned));
    assert_eq!(journal.stop(), Err(poisoned));
    assert_eq!(*told.lock().unwrap(), Some(poisoned));
    assert_eq!(journal.reserve(1, 1).err(), Some(Full::Poisoned));
    assert_eq!(journal.durable(), kept);
    assert_eq!(journal.read(lost), Err(ReadError::NotDurable));
    assert_eq!(journal.read(kept), Ok(b"kept".to_vec()), "readers go on");
}

#[test]
fn a_thousand_tasks_wait_and_all_are_answered_well_or_all_badly() {
    for fail in [false, true] {
        let sim = SimDisk::new();
        let disk: Arc<dyn Disk> = Arc::new(sim.clone());
        let (journal, _) = open(&disk, &options()).unwrap();
        let journal = Arc::new(journal);
        sim.set(Fault::Sync, fail);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let answers = runtime.block_on(async {
            let mut tasks = Vec::new();
            for _ in 0..1_000 {
                let journal = Arc::clone(&journal);
                tasks.push(tokio::spawn(async move {
                    match journal.reserve(1, 100) {
                        Ok(mut reserved) => journal.wait(reserved.push(&[1; 100])).await.is_ok(),
                        Err(Full::Poisoned) => false,
                        Err(full) => panic!("{full}"),
                    }
                }));
            }
            let mut answers = Vec::new();
            for task in tasks {
                answers.push(task.await.unwrap());
            }
            answers
        });
        assert!(answers.iter().all(|well| *well != fail), "fail = {fail}");
    }
}

/// Whether syncs are held, and how many are.
#[derive(Default)]
struct Hold(Mutex<(bool, usize)>, Condvar);

impl Hold {
    fn set(&self, held: bool) {
        self.0.lock().unwrap().0 = held;
        self.1.notify_all();
    }

    /// Comes back when a sync is held.
    fn wait_for_one(&self) {
        let state = self.0.lock().unwrap();
        drop(self.1.wait_while(state, |(_, held)| *held == 0).unwrap());
    }

    fn pass(&self) {
        let mut state = self.0.lock().unwrap();
        state.1 += 1;
        self.1.notify_all();
        let mut state = self.1.wait_while(state, |(held, _)| *held).unwrap();
        state.1 -= 1;
    }
}

/// A disk whose syncs wait until they are let go on.
struct SlowDisk {
    sim: SimDisk,
    hold: Arc<Hold>,
}

struct SlowFile {
    file: Arc<dyn DiskFile>,
    hold: Arc<Hold>,
}

impl SlowDisk {
    fn with_a_hold() -> (Arc<dyn Disk>, Arc<Hold>) {
        let (sim, hold) = (SimDisk::new(), Arc::<Hold>::default());
        (Arc::new(SlowDisk { sim, hold: Arc::clone(&hold) }), hold)
    }

    fn slow(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(SlowFile { file, hold: Arc::clone(&self.hold) })
    }
}

impl Disk for SlowDisk {
    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.sim.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.sim.list()
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.slow(self.sim.create(name, bytes)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.slow(self.sim.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.sim.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.sim.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.sim.sync_directory()
    }
}

impl DiskFile for SlowFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.hold.pass();
        self.file.sync()
    }

    fn trim(&self, bytes: u64) -> io::Result<()> {
        self.file.trim(bytes)
    }

    fn drop_cache(&self) {
        self.file.drop_cache();
    }
}

/// D7.
#[test]
fn a_slow_disk_takes_no_more_than_may_wait_refuses_the_rest_and_loses_nothing() {
    let (disk, hold) = SlowDisk::with_a_hold();
    let most = 100_000;
    let limits = Options { pending_bytes_max: most, record_bytes_max: 1_000, ..options() };
    let (journal, _) = open(&disk, &limits).unwrap();
    // given a sync that takes as long as it likes
    hold.set(true);
    let mut last = at(0);
    let full = loop {
        match journal.reserve(1, 500) {
            Ok(mut reserved) => last = reserved.push(&[7; 500]),
            Err(full) => break full,
        }
        assert!(journal.figures().pending_bytes <= most);
    };
    // then what waits is bounded, and not acknowledged
    assert_eq!((full, journal.durable()), (Full::Busy, at(0)));
    assert!(last.ordinal() > 100, "it takes what it may");
    // and when it ends, everything that was taken is there
    hold.set(false);
    journal.wait_blocking(last).unwrap();
    assert_eq!(journal.stop(), Ok(last));
}

/// The numbers are the tail's: four senders at a time are many, a group of 128 gathers no longer.
#[test]
fn who_sends_at_once_shares_a_commit_and_who_sends_alone_waits_for_nobody() {
    let (disk, hold) = SlowDisk::with_a_hold();
    let for_ever = Options { gather: Duration::from_hours(1), ..options() };
    let (journal, _) = open(&disk, &for_ever).unwrap();
    // given somebody alone, who sends much at once
    for _ in 0..2 {
        let mut reserved = journal.reserve(100, 10_000).unwrap();
        let last = (0..100).map(|_| reserved.push(b"batch")).last().unwrap();
        journal.wait_blocking(last).unwrap();
    }
    // and then four who send while one is committed
    hold.set(true);
    push(&journal, b"alone");
    hold.wait_for_one();
    let four = [(); 4].map(|()| push(&journal, b"fast"))[3];
    hold.set(false);
    journal.wait_blocking(four).unwrap();
    let commits = journal.figures().commits;
    // then those that follow gather until they are many
    for _ in 0..127 {
        push(&journal, b"many");
    }
    assert_eq!(journal.durable(), four);
    let last = push(&journal, b"last");
    journal.wait_blocking(last).unwrap();
    assert_eq!(journal.figures().commits, commits + 1);
    // and a stop waits for no more
    let gathering = push(&journal, b"gathering");
    assert_eq!(journal.stop(), Ok(gathering));
}

#[test]
fn what_waits_for_the_disk_is_bounded_and_unused_capacity_is_given_back() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let small = Options { pending_bytes_max: 1_010, record_bytes_max: 1_000, ..options() };
    let (journal, _) = open(&disk, &small).unwrap();
    let first = journal.reserve(2, 1_000).unwrap();
    assert_eq!(journal.reserve(1, 0).err(), Some(Full::Busy));
    assert_eq!(journal.figures().pending_bytes, 1_010);
    drop(first);
    assert_eq!(journal.figures().pending_bytes, 0);
    assert_eq!(journal.reserve(1, 1_001).err(), Some(Full::TooLarge { bytes: 1_001 }));
}

#[test]
fn a_record_larger_than_its_reservation_is_kept_and_counted() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let (journal, _) = open(&disk, &options()).unwrap();
    let position = journal.reserve(1, 10).unwrap().push(&[3; 9_000]);
    journal.wait_blocking(position).unwrap();
    assert_eq!(journal.read(position), Ok(vec![3; 9_000]), "even longer than a segment");
    assert_eq!(journal.figures().over_reserved, 1);
    assert_eq!(journal.figures().pending_bytes, 0);
}

#[test]
fn lossy_answers_at_push_but_readers_still_see_only_what_is_durable() {
    let sim = SimDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let lossy = Options { lossy: true, ..options() };
    let (journal, _) = open(&disk, &lossy).unwrap();
    sim.set(Fault::NoSpace, true);
    let position = push(&journal, b"perhaps");
    assert_eq!(journal.wait_blocking(position), Ok(()));
    assert_eq!(journal.read(position), Err(ReadError::NotDurable));
    assert_eq!(journal.follow(at(1)).try_next(), Ok(None));
}

#[test]
fn a_position_that_was_never_pushed_is_never_acknowledged() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let (journal, _) = open(&disk, &options()).unwrap();
    assert_eq!(journal.wait_blocking(at(5)), Err(Poisoned::NeverPushed));
    assert_eq!(journal.read(at(0)), Err(ReadError::NotDurable));
}

#[test]
fn records_are_read_from_disk_with_without_and_with_a_damaged_index() {
    let (sim, records) = several_segments();
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let cold = Options { recent_bytes_max: 0, ..options() };
    for index in ["kept", "removed", "damaged"] {
        let (journal, _) = open(&disk, &cold).unwrap();
        match index {
            "removed" => sim.remove(&index_name(at(1))).unwrap(),
            "damaged" => sim.put(&index_name(at(1)), vec![1; 100]),
            _kept => {}
        }
        for (position, record) in &records {
            assert_eq!(journal.read(at(*position)).as_ref(), Ok(record), "{index}");
        }
        let mut follower = journal.follow(at(3));
        for (position, record) in &records[2..] {
            let entry = follower.try_next().unwrap().unwrap();
            assert_eq!((entry.position, entry.bytes), (at(*position), record.as_slice()));
        }
        assert_eq!(follower.try_next(), Ok(None));
    }
}

#[test]
fn damage_that_came_after_the_start_is_an_error_and_never_a_wrong_record() {
    let (sim, _) = several_segments();
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let (journal, _) = open(&disk, &options()).unwrap();
    damage_second_batch(&sim, at(1));
    assert!(matches!(journal.read(at(2)), Err(ReadError::Damaged { .. })));
    assert!(journal.read(at(1)).is_ok() && journal.read(at(3)).is_ok());
}

#[test]
fn readers_pass_over_an_accepted_loss() {
    let (sim, records) = several_segments();
    damage_second_batch(&sim, at(1));
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let accepting = Options { accept_loss: true, ..options() };
    let (journal, _) = open(&disk, &accepting).unwrap();
    let mut follower = journal.follow(at(1));
    let mut seen = Vec::new();
    while let Some(entry) = follower.try_next().unwrap() {
        seen.push(entry.position.ordinal());
    }
    let rest: Vec<u64> = records.iter().map(|(at, _)| *at).filter(|at| *at != 2).collect();
    assert_eq!(seen, rest);
    assert_eq!(journal.read(at(2)), Err(ReadError::Lost));
}

#[test]
fn removing_covered_segments_leaves_a_journal_that_opens_and_names_its_beginning() {
    let (sim, records) = several_segments();
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let (journal, _) = open(&disk, &options()).unwrap();
    let removed = journal.remove_before(at(8)).unwrap();
    assert!(removed >= 1);
    let Err(ReadError::Removed { first }) = journal.read(at(1)) else {
        panic!("a removed record was read");
    };
    assert!(first <= at(8));
    drop(journal);
    let (_, found) = open(&disk, &options()).unwrap();
    assert_eq!(found, records[first.ordinal() as usize - 1..]);
}

#[test]
fn a_stop_makes_durable_what_was_pushed_and_refuses_what_comes_later() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let (journal, _) = open(&disk, &options()).unwrap();
    let mut late = journal.reserve(1, 10).unwrap();
    for _ in 0..50 {
        push(&journal, &[9; 300]);
    }
    assert_eq!(journal.stop(), Ok(at(50)));
    assert_eq!(journal.reserve(1, 1).err(), Some(Full::Stopping));
    let position = late.push(b"late");
    assert_eq!(journal.wait_blocking(position), Err(Poisoned::Stopped));
    let mut follower = journal.follow(at(1));
    while follower.try_next().unwrap().is_some() {}
    assert!(follower.is_ended());
    drop(journal);
    assert_eq!(open(&disk, &options()).unwrap().1.len(), 50);
}

#[test]
fn a_copy_that_recovery_made_is_as_safe_from_silent_loss_as_what_it_was_copied_from() {
    let disk = SimDisk::new();
    six_batches(&disk);
    let (recovered, _) = recover_all(&disk, &options()).unwrap();
    assert_eq!((recovered.found.copied, recovered.header.first), (1, at(6)));
    let mut bytes = disk.bytes(&file_name(at(6)));
    bytes[HEADER_BYTES + BATCH_HEADER_BYTES] ^= 1;
    disk.put(&file_name(at(6)), bytes);
    assert_eq!(refused(&disk, &options()).first, at(6));
}

/// D6.
#[test]
fn a_failed_write_poisons_and_is_never_acknowledged() {
    let disk = SimDisk::new();
    let (mut process, _, _) = Process::start(&disk, &options()).unwrap();
    disk.set(Fault::Write, true);
    process.commit(&[b"lost".to_vec()]);
    assert!(matches!(process.poisoned, Some(Poisoned::Write(_))));
    assert_eq!(process.durable(), 0);
}

#[test]
fn a_record_larger_than_an_empty_segment_is_found_again_after_every_start() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    for life in 0..4_u8 {
        let (journal, records) = open(&disk, &options()).unwrap();
        let sizes: Vec<usize> = records.iter().map(|(_, bytes)| bytes.len()).collect();
        assert_eq!(sizes, [20_000, 5].repeat(usize::from(life)), "life {life}");
        let position = push(&journal, &vec![life; 20_000]);
        journal.wait_blocking(position).unwrap();
        let position = push(&journal, &[life; 5]);
        journal.wait_blocking(position).unwrap();
        journal.stop().unwrap();
    }
}
