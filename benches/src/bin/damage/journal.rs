//! A journal in memory as the program itself wrote it, to be damaged at will, and what recovery
//! says of it.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use collector::journal::committer::Now;
use collector::journal::disk::{Disk, DiskFile};
use collector::journal::recovery::recover;
use collector::journal::{Hooks, Journal, Options};
use engine::id::Position;

const INSTALL: [u8; 16] = *b"an installation!";

type Bytes = Arc<Mutex<Vec<u8>>>;

/// Files in memory. Everything is durable at once: what is damaged here was on the disk.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    files: Arc<Mutex<BTreeMap<String, Bytes>>>,
}

struct MemoryFile(Bytes);

fn held<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryDisk {
    /// The bytes of every file.
    pub fn image(&self) -> BTreeMap<String, Vec<u8>> {
        held(&self.files).iter().map(|(name, bytes)| (name.clone(), held(bytes).clone())).collect()
    }

    /// A disk with these files.
    pub fn of(image: &BTreeMap<String, Vec<u8>>) -> MemoryDisk {
        let files =
            image.iter().map(|(name, bytes)| (name.clone(), Bytes::new(bytes.clone().into())));
        MemoryDisk { files: Arc::new(Mutex::new(files.collect())) }
    }
}

impl Disk for MemoryDisk {
    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>> {
        Ok(Box::new(()))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(held(&self.files).keys().cloned().collect())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        let made = Bytes::new(vec![0; bytes as usize].into());
        held(&self.files).insert(name.to_owned(), Arc::clone(&made));
        Ok(Arc::new(MemoryFile(made)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let found = held(&self.files).get(name).cloned();
        let found = found.ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(MemoryFile(found)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = held(&self.files);
        let moved = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), moved);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        held(&self.files).remove(name).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        Ok(held(&self.0).len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = held(&self.0);
        let from = bytes.get(offset as usize..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut own = held(&self.0);
        let end = offset as usize + bytes.len();
        if own.len() < end {
            own.resize(end, 0);
        }
        own[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn trim(&self, bytes: u64) -> io::Result<()> {
        held(&self.0).truncate(bytes as usize);
        Ok(())
    }

    fn drop_cache(&self) {}
}

/// Numbers by seed (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    /// Below `sides`.
    pub fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// How journals are opened here.
pub fn options(segment_bytes: u64) -> Options {
    Options { segment_bytes, ..Options::new(INSTALL) }
}

/// A journal of at least so many bytes, each record acknowledged, stopped in order.
pub fn written(bytes: usize, segment_bytes: u64, dice: &mut Dice) -> BTreeMap<String, Vec<u8>> {
    let disk = MemoryDisk::default();
    let hooks = Hooks {
        now: Box::new(|| Now { wall_ms: 1_796_947_200_000, boot_ms: 0 }),
        poisoned: Box::new(|_| {}),
    };
    let opened = Journal::open(Arc::new(disk.clone()), &options(segment_bytes), hooks, |_| {});
    let (journal, _) = opened.unwrap();
    let mut pushed = 0;
    while pushed < bytes {
        let records = 1 + dice.below(4) as usize;
        let texts: Vec<Vec<u8>> = (0..records)
            .map(|_| {
                let length = 20 + dice.below(400) as usize;
                (0..length).map(|_| dice.below(256) as u8).collect()
            })
            .collect();
        let total: usize = texts.iter().map(Vec::len).sum();
        let mut reserved = journal.reserve(records, total).unwrap();
        let last = texts.iter().map(|text| reserved.push(text)).last().unwrap_or(Position::NONE);
        drop(reserved);
        journal.wait_blocking(last).unwrap();
        pushed += total;
    }
    journal.stop().unwrap();
    disk.image()
}

/// What recovery makes of a journal.
pub enum Outcome {
    /// It starts with these records: how many, and a checksum of them and their positions.
    Starts(u64, u32),
    /// It refuses by name.
    Refuses,
    /// It panicked.
    Panics,
}

/// Recovers a journal.
pub fn recovered(image: &BTreeMap<String, Vec<u8>>, segment_bytes: u64) -> Outcome {
    let disk = MemoryDisk::of(image);
    let tried = catch_unwind(AssertUnwindSafe(|| {
        let (mut records, mut sum) = (0, 0);
        recover(&disk, &options(segment_bytes), 0, &mut |entry| {
            records += 1;
            sum = crc32c_of(sum, &entry.position.0.to_le_bytes());
            sum = crc32c_of(sum, entry.bytes);
        })
        .map(|_| (records, sum))
    }));
    match tried {
        Ok(Ok((records, sum))) => Outcome::Starts(records, sum),
        Ok(Err(_)) => Outcome::Refuses,
        Err(_) => Outcome::Panics,
    }
}

/// A checksum that goes on.
pub fn crc32c_of(before: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(before, bytes)
}
