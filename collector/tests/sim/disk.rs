//! A disk that does everything a real one may: what was not synced vanishes, survives, or tears at
//! any prefix or in any set of bytes; sizes and directory entries survive on their own; space runs
//! out; a sync fails and takes the pages with it. By seed, and the same every time.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use collector::journal::disk::{Disk, DiskFile};

/// Numbers by seed (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `sides`.
    pub fn below(&mut self, sides: u64) -> u64 {
        self.roll() % sides
    }

    pub fn coin(&mut self) -> bool {
        self.below(2) == 0
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.roll() as u8).collect()
    }
}

/// A file as the program sees it and as the disk has it.
#[derive(Clone, Debug, Default)]
struct Inode {
    seen: Vec<u8>,
    kept: Vec<u8>,
    writes: Vec<(usize, Vec<u8>)>, // since the last sync
    sizes: Vec<usize>,             // since the last sync
}

/// A change of the directory that is not synced.
#[derive(Clone, Debug)]
enum Change {
    Link(String, usize),
    Unlink(String),
    Rename(String, String, usize),
}

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    seen: BTreeMap<String, usize>,
    kept: BTreeMap<String, usize>,
    changes: Vec<Change>,
    /// Operations until the power goes; nothing works after it.
    until_crash: Option<u64>,
    crashed: bool,
    operations: u64,
    faults: BTreeSet<Fault>,
    /// Bytes that all files together may have.
    space: Option<usize>,
}

/// What goes wrong until it is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing can be allocated, and writes take only a part.
    NoSpace,
    /// A sync fails, and the cache calls the pages clean.
    Sync,
    /// Writes fail.
    Write,
    /// Reads fail.
    Read,
    /// The advice to drop the cache is ignored.
    KeepCache,
    /// A bug, planted: whoever syncs a file is told that it is done, and it is not.
    NoSync,
    /// A bug, planted: a sync that fails is tried again, and then "succeeds": the cache calls the
    /// pages clean.
    SyncAgain,
    /// A bug, planted: the directory is not synced.
    NoDirectorySync,
    /// A bug, planted: whoever reads a segment finds every checksum right.
    NoChecksums,
}

/// The directory; clones share it.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    locked: Arc<AtomicBool>,
}

impl SimDisk {
    pub fn new() -> SimDisk {
        SimDisk::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The power goes after so many more operations.
    pub fn crash_after(&self, operations: u64) {
        self.state().until_crash = Some(operations);
    }

    pub fn has_crashed(&self) -> bool {
        self.state().crashed
    }

    /// Operations since the disk was made.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// From now on all files together may have so many bytes.
    pub fn limit(&self, space: Option<usize>) {
        self.state().space = space;
    }

    /// Bytes of all files.
    pub fn used(&self) -> usize {
        self.state().used()
    }

    pub fn set(&self, fault: Fault, on: bool) {
        let faults = &mut self.state().faults;
        if on {
            faults.insert(fault);
        } else {
            faults.remove(&fault);
        }
    }

    /// The process ends and the machine lives on: the cache keeps everything.
    pub fn kill(&self) {
        let mut state = self.state();
        state.crashed = false;
        state.until_crash = None;
    }

    /// The power goes: of everything not synced, the dice say what is left.
    pub fn power_loss(&self, dice: &mut Dice) {
        let mut state = self.state();
        state.crashed = false;
        state.until_crash = None;
        for inode in &mut state.inodes {
            inode.lose(dice);
        }
        let mut kept = std::mem::take(&mut state.kept);
        for change in std::mem::take(&mut state.changes) {
            if dice.coin() {
                match change {
                    Change::Link(name, inode) => {
                        kept.insert(name, inode);
                    }
                    Change::Unlink(name) => {
                        kept.remove(&name);
                    }
                    Change::Rename(from, to, inode) => {
                        if kept.get(&from) == Some(&inode) {
                            kept.remove(&from);
                        }
                        kept.insert(to, inode);
                    }
                }
            }
        }
        state.seen = kept.clone();
        state.kept = kept;
    }

    /// A file's bytes as the program sees them.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.inodes[state.seen[name]].seen.clone()
    }

    /// Puts bytes on the disk, durable.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state();
        let inode = state.inodes.len();
        state.inodes.push(Inode { seen: bytes.clone(), kept: bytes, ..Inode::default() });
        state.seen.insert(name.into(), inode);
        state.kept.insert(name.into(), inode);
    }

    /// A disk with what this one would have if the power went now and nothing survived that was
    /// not synced.
    pub fn only_what_was_synced(&self) -> SimDisk {
        let copy = SimDisk::new();
        let state = self.state();
        for (name, inode) in &state.kept {
            copy.put(name, state.inodes[*inode].kept.clone());
        }
        drop(state);
        copy
    }

    /// A disk with the same durable files.
    pub fn copy(&self) -> SimDisk {
        let copy = SimDisk::new();
        for name in self.list().unwrap() {
            copy.put(&name, self.bytes(&name));
        }
        copy
    }

    fn operation(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        state.operations += 1;
        if state.until_crash == Some(0) {
            state.crashed = true;
        }
        if state.crashed {
            return Err(power_gone());
        }
        state.until_crash = state.until_crash.map(|left| left - 1);
        Ok(state)
    }

    fn file(&self, inode: usize) -> Arc<dyn DiskFile> {
        Arc::new(SimFile { disk: self.clone(), inode })
    }
}

impl State {
    fn used(&self) -> usize {
        self.seen.values().map(|inode| self.inodes[*inode].seen.len()).sum()
    }

    /// Of so many bytes more, how many there is space for.
    fn space_for(&self, more: usize) -> usize {
        let free = self.space.map_or(usize::MAX, |space| space.saturating_sub(self.used()));
        more.min(free)
    }
}

impl Inode {
    fn lose(&mut self, dice: &mut Dice) {
        let mut bytes = self.kept.clone();
        for (offset, written) in std::mem::take(&mut self.writes) {
            let end = offset + written.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            match dice.below(4) {
                0 => {}
                1 => bytes[offset..end].copy_from_slice(&written),
                2 => {
                    let prefix = dice.below(written.len() as u64 + 1) as usize;
                    bytes[offset..offset + prefix].copy_from_slice(&written[..prefix]);
                }
                _ => {
                    for (at, byte) in written.iter().enumerate() {
                        if dice.coin() {
                            bytes[offset + at] = *byte;
                        }
                    }
                }
            }
        }
        let sizes = std::mem::take(&mut self.sizes);
        let chosen = dice.below(sizes.len() as u64 + 1) as usize;
        let size = chosen.checked_sub(1).map_or(self.kept.len(), |at| sizes[at]);
        bytes.resize(size, 0);
        self.seen = bytes.clone();
        self.kept = bytes;
    }
}

fn power_gone() -> io::Error {
    io::Error::other("the power is gone")
}

struct Unlock(Arc<AtomicBool>);

impl Drop for Unlock {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Disk for SimDisk {
    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>> {
        if self.locked.swap(true, Ordering::SeqCst) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Unlock(Arc::clone(&self.locked))))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.operation()?.seen.keys().cloned().collect())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.operation()?;
        if state.faults.contains(&Fault::NoSpace) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = state.inodes.len();
        let size = bytes as usize;
        // One of that name is cut to nothing first.
        state.seen.remove(name);
        if state.space_for(size) < size {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.inodes.push(Inode { seen: vec![0; size], sizes: vec![size], ..Inode::default() });
        state.seen.insert(name.into(), inode);
        state.changes.push(Change::Link(name.into(), inode));
        drop(state);
        Ok(self.file(inode))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.operation()?;
        let inode = *state.seen.get(name).ok_or(io::ErrorKind::NotFound)?;
        drop(state);
        Ok(self.file(inode))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.operation()?;
        let inode = state.seen.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.seen.insert(to.into(), inode);
        state.changes.push(Change::Rename(from.into(), to.into(), inode));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.operation()?;
        state.seen.remove(name).ok_or(io::ErrorKind::NotFound)?;
        state.changes.push(Change::Unlink(name.into()));
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut state = self.operation()?;
        if state.faults.contains(&Fault::NoDirectorySync) {
            return Ok(());
        }
        state.kept = state.seen.clone();
        state.changes.clear();
        Ok(())
    }
}

/// Makes the checksums of a segment's batches right, whatever is in them (FORMAT.md, 1.2).
fn mend(segment: &mut [u8]) {
    let number =
        |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    if !segment.starts_with(b"mikomijr") || segment.len() < 64 {
        return;
    }
    let seed = crc32c::crc32c_append(crc32c::crc32c(&segment[16..32]), &segment[40..48]);
    let mut rest = &mut segment[64..];
    while rest.len() >= 40 && rest.starts_with(b"mkbt") {
        let size = (40 + number(rest, 4) as usize).next_multiple_of(8);
        if size > rest.len() {
            return;
        }
        let (batch, behind) = rest.split_at_mut(size);
        let sum = crc32c::crc32c_append(crc32c::crc32c_append(seed, &batch[..8]), &batch[12..]);
        batch[8..12].copy_from_slice(&sum.to_le_bytes());
        rest = behind;
    }
}

struct SimFile {
    disk: SimDisk,
    inode: usize,
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.operation()?.inodes[self.inode].seen.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.operation()?;
        if state.faults.contains(&Fault::Read) {
            return Err(io::Error::other("input/output error"));
        }
        let from = offset as usize;
        let seen = &state.inodes[self.inode].seen;
        let read = seen.get(from..from + buffer.len());
        buffer.copy_from_slice(read.ok_or(io::ErrorKind::UnexpectedEof)?);
        if state.faults.contains(&Fault::NoChecksums) && from == 0 {
            mend(buffer);
        }
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.operations += 1;
        if state.crashed {
            return Err(power_gone());
        }
        // When the power goes within a write, the write is among those not synced.
        let dying = state.until_crash == Some(0);
        state.crashed = dying;
        state.until_crash = state.until_crash.map(|left| left.saturating_sub(1));
        let from = offset as usize;
        let grows = (from + bytes.len()).saturating_sub(state.inodes[self.inode].seen.len());
        let lacking = grows - state.space_for(grows);
        let full = state.faults.contains(&Fault::NoSpace);
        let no_space = full || lacking > 0;
        let fail = state.faults.contains(&Fault::Write);
        let inode = &mut state.inodes[self.inode];
        // A full disk takes a part.
        let taken = if full { bytes.len() / 2 } else { bytes.len() - lacking };
        if inode.seen.len() < from + taken {
            inode.seen.resize(from + taken, 0);
            inode.sizes.push(from + taken);
        }
        inode.seen[from..from + taken].copy_from_slice(&bytes[..taken]);
        inode.writes.push((from, bytes[..taken].to_vec()));
        if dying {
            Err(power_gone())
        } else if no_space {
            Err(io::ErrorKind::StorageFull.into())
        } else if fail {
            Err(io::Error::other("input/output error"))
        } else {
            Ok(())
        }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.operation()?;
        if state.faults.contains(&Fault::NoSync) {
            return Ok(());
        }
        if state.faults.contains(&Fault::Sync) {
            // The pages stay in the cache, called clean, and never reach the disk by themselves.
            let inode = &mut state.inodes[self.inode];
            inode.writes.clear();
            inode.sizes.clear();
            if state.faults.contains(&Fault::SyncAgain) {
                return Ok(());
            }
            return Err(io::Error::other("input/output error"));
        }
        let inode = &mut state.inodes[self.inode];
        inode.kept = inode.seen.clone();
        inode.writes.clear();
        inode.sizes.clear();
        Ok(())
    }

    fn trim(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.operation()?;
        let inode = &mut state.inodes[self.inode];
        inode.seen.resize(bytes as usize, 0);
        inode.sizes.push(bytes as usize);
        Ok(())
    }

    fn drop_cache(&self) {
        // Pages not synced stay; only clean ones go, back to what the disk has.
        let mut state = self.disk.state();
        if state.faults.contains(&Fault::KeepCache) {
            return;
        }
        let inode = &mut state.inodes[self.inode];
        if inode.writes.is_empty() && inode.sizes.is_empty() {
            inode.seen = inode.kept.clone();
        }
    }
}
