//! The journal: what was acknowledged, in the order it happened.
//!
//! Records are opaque bytes. Capacity is reserved before the engine's locks, `push` gives a record
//! its position under them, one commit after another makes groups of records durable, and only
//! then does anybody hear of them. `FORMAT.md` has every byte.

pub mod committer;
pub mod disk;
pub mod errors;
mod files;
pub mod read;
pub mod recovery;
pub mod scan;
pub mod segment;
pub mod tail;

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use engine::id::Position;

use committer::{Committer, Effect, Hands, Now};
use disk::Disk;
pub use errors::{Damage, DamageKind, EXIT_POISONED, Full, OpenError, Poisoned, ReadError};
pub use files::first_kept;
pub use read::Follower;
use read::Library;
pub use recovery::Found;
use recovery::{failed, recover};
use segment::BATCH_HEADER_BYTES;
pub use tail::Reserved;
use tail::Tail;

/// The least and the greatest size of a segment. Recovery reads one at a time into memory.
pub const SEGMENT_BYTES: (u64, u64) = (4 * 1024, 1024 * 1024 * 1024);

/// The version of the code that applies records: what a segment's and a snapshot's header say.
/// Whoever makes it greater has to go on reading bases of the earlier ones: the records that made
/// them are gone (FORMAT.md, 8.1).
pub const EVOLVE: u16 = 2;

/// How a journal is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// The upper 16 bits of every position.
    pub partition: u16,
    /// The installation; a journal of another one is refused.
    pub install: [u8; 16],
    /// Version of the code that applies records; records of a newer one are refused.
    pub evolve: u16,
    /// Bytes allocated for a segment. Within `SEGMENT_BYTES`.
    pub segment_bytes: u64,
    /// After so long a segment is complete, full or not: what is removed goes by whole segments.
    pub segment_ms: u64,
    /// Bytes of a file that keeps space for a stop on a full disk; 0: none.
    pub reserve_bytes: u64,
    /// Bytes that may wait for the disk; beyond, `reserve` refuses.
    pub pending_bytes_max: u64,
    /// Bytes one reservation may hold, and so the longest record.
    pub record_bytes_max: usize,
    /// Bytes of the newest batches kept in memory for readers.
    pub recent_bytes_max: usize,
    /// How long a group of records gathers while many send at once.
    pub gather: Duration,
    /// Acknowledge at push, before anything is durable. Loses what a crash takes.
    pub lossy: bool,
    /// Go on without records that are damaged, instead of refusing to start.
    pub accept_loss: bool,
    /// The data was restored from a copy: positions may be given out a second time.
    pub new_incarnation: bool,
    /// Records before this position are not handed over, and complete segments of them not read.
    pub replay_from: Position,
}

impl Options {
    /// The defaults, for one installation.
    pub fn new(install: [u8; 16]) -> Options {
        Options {
            partition: 0,
            install,
            evolve: EVOLVE,
            segment_bytes: 64 * 1024 * 1024,
            segment_ms: u64::MAX,
            reserve_bytes: 0,
            pending_bytes_max: 64 * 1024 * 1024,
            record_bytes_max: 4 * 1024 * 1024,
            recent_bytes_max: 8 * 1024 * 1024,
            gather: tail::GATHER,
            lossy: false,
            accept_loss: false,
            new_incarnation: false,
            replay_from: Position(0),
        }
    }

    fn check(&self) -> Result<(), OpenError> {
        let within = |name, value: u64, bounds: (u64, u64)| {
            let fine = (bounds.0..=bounds.1).contains(&value);
            fine.then_some(()).ok_or(OpenError::Setting { name, bounds })
        };
        within("segment_bytes", self.segment_bytes, SEGMENT_BYTES)?;
        within("reserve_bytes", self.reserve_bytes, (0, SEGMENT_BYTES.1))?;
        let longest = (1, 256 * 1024 * 1024);
        within("record_bytes_max", self.record_bytes_max as u64, longest)?;
        let pending = (self.record_bytes_max as u64, u64::from(u32::MAX));
        within("pending_bytes_max", self.pending_bytes_max, pending)
    }
}

/// What the journal needs from its process.
pub struct Hooks {
    /// Reads the clocks.
    pub now: Box<dyn Fn() -> Now + Send>,
    /// Called once when the disk failed, after everyone who waited was told. The process should
    /// exit with `EXIT_POISONED`; replay decides what is true.
    pub poisoned: Box<dyn FnOnce(Poisoned) + Send>,
}

/// A record as it stands in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its position.
    pub position: Position,
    /// The incarnation it was written under. With the position, never the same for two records.
    pub incarnation: u32,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// Counters and sizes, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Groups made durable since the start.
    pub commits: u64,
    /// Seal batches written since the start.
    pub seals: u64,
    /// Bytes written in batches since the start.
    pub written_bytes: u64,
    /// Reservations refused since the start.
    pub refused: u64,
    /// Pushes larger than their reservation since the start.
    pub over_reserved: u64,
    /// Bytes reserved or pushed that are not durable yet.
    pub pending_bytes: u64,
    /// Valid bytes of all segments.
    pub journal_bytes: u64,
    /// Number of segments.
    pub segments: usize,
    /// Segments removed since the start.
    pub removed: u64,
    /// The oldest position kept.
    pub first: Position,
    /// Whether the disk is full: nothing is taken until it has space.
    pub disk_full: bool,
    /// How often the disk became full since the start.
    pub disk_full_times: u64,
    /// Bytes kept free for a stop; less than the setting while the disk has no space for them.
    pub reserve_bytes: u64,
}

/// What the threads of one journal share.
pub struct Shared {
    tail: Arc<Tail>,
    library: Library,
    commits: AtomicU64,
    seals: AtomicU64,
    written_bytes: AtomicU64,
    disk_full_times: AtomicU64,
    reserve_bytes: AtomicU64,
    removed: AtomicU64,
    /// Where each follower is: nothing goes that one of them has yet to read.
    followers: Mutex<Vec<Weak<AtomicU64>>>,
}

/// An open journal. Dropping it stops it in order.
pub struct Journal {
    shared: Arc<Shared>,
    incarnation: u32,
    committer: Mutex<Committing>,
    _lock: Box<dyn Any + Send + Sync>,
}

enum Committing {
    Running(JoinHandle<Result<Position, Poisoned>>),
    Ended(Result<Position, Poisoned>),
}

impl Journal {
    /// Takes the directory, hands over every valid record in order, and starts the committer.
    /// Nothing is rewritten; a second opener, damage of what had been durable, and unknown
    /// versions are refused by name.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: &Options,
        hooks: Hooks,
        mut each: impl FnMut(Entry<'_>),
    ) -> Result<(Journal, Found), OpenError> {
        options.check()?;
        let lock = disk.lock().map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => OpenError::InUse,
            _ => failed("lock the journal's directory")(error),
        })?;
        let now = (hooks.now)();
        let recovered = recover(disk.as_ref(), options, now.wall_ms, &mut each)?;
        let committer = Committer::new(&recovered, options, now);
        let hands = Hands::new(Arc::clone(&disk), &recovered, options);
        let durable = committer.durable();
        let shared = Arc::new(Shared {
            tail: Arc::new(Tail::new(durable.next(), durable, options)),
            library: Library::new(disk, &recovered, options),
            commits: AtomicU64::new(0),
            seals: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            disk_full_times: AtomicU64::new(0),
            reserve_bytes: AtomicU64::new(hands.reserve_bytes()),
            removed: AtomicU64::new(0),
            followers: Mutex::default(),
        });
        let running = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("journal".into())
            .spawn(move || run(&running, committer, hands, hooks))
            .map_err(failed("start the committer"))?;
        let journal = Journal {
            shared,
            incarnation: recovered.found.incarnation,
            committer: Mutex::new(Committing::Running(thread)),
            _lock: lock,
        };
        Ok((journal, recovered.found))
    }

    /// Takes capacity for this many records of so many bytes altogether, all or nothing. To be
    /// called before the engine's locks.
    pub fn reserve(&self, records: usize, bytes: usize) -> Result<Reserved, Full> {
        self.shared.tail.reserve(records, bytes)
    }

    /// The highest durable position. One atomic read.
    pub fn durable(&self) -> Position {
        self.shared.tail.durable()
    }

    /// The highest position that was given out.
    pub fn pushed(&self) -> Position {
        self.shared.tail.pushed()
    }

    /// Whether a position is durable within a time: also in a journal that is lossy.
    pub fn wait_durable(&self, position: Position, timeout: Duration) -> bool {
        self.shared.tail.wait_durable(position, timeout);
        position <= self.durable()
    }

    /// The incarnation of new records.
    pub fn incarnation(&self) -> u32 {
        self.incarnation
    }

    /// Waits until the record at this position is durable; at once when the journal is lossy. An
    /// error means it must not be acknowledged.
    pub async fn wait(&self, position: Position) -> Result<(), Poisoned> {
        self.shared.tail.wait(position).await
    }

    /// The same for a thread.
    pub fn wait_blocking(&self, position: Position) -> Result<(), Poisoned> {
        self.shared.tail.wait_blocking(position)
    }

    /// One durable record, its batch's checksum verified.
    pub fn read(&self, position: Position) -> Result<Vec<u8>, ReadError> {
        if position > self.durable() || position.ordinal() == 0 {
            return Err(ReadError::NotDurable);
        }
        Ok(self.shared.library.read(position)?.0)
    }

    /// The incarnation that a durable record was written under.
    pub fn incarnation_of(&self, position: Position) -> Result<u32, ReadError> {
        if position > self.durable() || position.ordinal() == 0 {
            return Err(ReadError::NotDurable);
        }
        Ok(self.shared.library.read(position)?.1)
    }

    /// The checksum of the batch that holds a durable record.
    pub fn batch_of(&self, position: Position) -> Result<u32, ReadError> {
        if position > self.durable() || position.ordinal() == 0 {
            return Err(ReadError::NotDurable);
        }
        self.shared.library.batch_of(position)
    }

    /// Whether nothing more will become durable.
    pub fn has_ended(&self) -> bool {
        self.shared.tail.has_ended()
    }

    /// Follows durable records from a position on.
    pub fn follow(&self, from: Position) -> Follower {
        Follower::new(Arc::clone(&self.shared), from)
    }

    /// The oldest position kept: the first of the oldest segment.
    pub fn first(&self) -> Position {
        self.shared.library.extent().2
    }

    /// The first positions of all segments, ascending; the last one is being written.
    pub fn segments(&self) -> Vec<Position> {
        self.shared.library.firsts()
    }

    /// Bytes of the segments that begin after a position; the rest of its own segment is left out.
    pub fn bytes_after(&self, position: Position) -> u64 {
        self.shared.library.bytes_after(position)
    }

    /// Removes complete segments that only hold records before `position`, the oldest first, and
    /// says how many. What somebody follows has yet to come to stays. The caller has snapshots
    /// that cover them.
    pub fn remove_before(&self, position: Position) -> std::io::Result<usize> {
        let position = position.min(self.durable().next()).min(self.shared.followed());
        let removed = self.shared.library.remove_before(position, &self.shared.removed)?;
        self.shared.library.sweep();
        Ok(removed)
    }

    /// Counters and sizes.
    pub fn figures(&self) -> Figures {
        let (journal_bytes, segments, first) = self.shared.library.extent();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures {
            commits: read(&self.shared.commits),
            seals: read(&self.shared.seals),
            written_bytes: read(&self.shared.written_bytes),
            refused: read(&self.shared.tail.refused),
            over_reserved: read(&self.shared.tail.over_reserved),
            pending_bytes: self.shared.tail.pending_bytes(),
            journal_bytes,
            segments,
            removed: read(&self.shared.removed),
            first,
            disk_full: self.is_disk_full(),
            disk_full_times: read(&self.shared.disk_full_times),
            reserve_bytes: read(&self.shared.reserve_bytes),
        }
    }

    /// Whether the disk is full and nothing is taken until it has space.
    pub fn is_disk_full(&self) -> bool {
        self.shared.tail.is_disk_full()
    }

    /// Whether nothing will be taken any more: it is being stopped, or the disk failed.
    pub fn is_refusing_for_good(&self) -> bool {
        self.shared.tail.is_refusing_for_good()
    }

    /// A stop begins. Records are taken as before; but should the disk be full, the reserve is
    /// given back so that they fit, and should that not be enough, they are refused, so that
    /// nobody waits for space any more.
    pub fn wind_down(&self) {
        self.shared.tail.wind_down();
    }

    /// Makes durable what was pushed, seals, and ends. Says the last durable position. Later calls
    /// say the same.
    pub fn stop(&self) -> Result<Position, Poisoned> {
        self.shared.tail.stop();
        let mut committer = self.committer.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = Committing::Ended(Err(Poisoned::Stopped));
        let outcome = match std::mem::replace(&mut *committer, ended) {
            Committing::Running(thread) => thread.join().unwrap_or(Err(Poisoned::Stopped)),
            Committing::Ended(outcome) => outcome,
        };
        *committer = Committing::Ended(outcome);
        outcome
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // Whoever wants to know has called `stop`.
        let _ = self.stop();
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("durable", &self.durable()).finish_non_exhaustive()
    }
}

/// The committer's thread.
fn run(
    shared: &Shared,
    mut committer: Committer,
    mut hands: Hands,
    hooks: Hooks,
) -> Result<Position, Poisoned> {
    let _alarm = Alarm(shared);
    let mut answer = None;
    loop {
        let input = answer.take().unwrap_or_else(|| shared.tail.next_input(&committer, &hooks.now));
        for effect in committer.step(input, (hooks.now)()) {
            answer = hands.perform(&effect);
            match effect {
                Effect::Publish { offset, batch } => shared.publish(offset, &batch),
                Effect::Retire { next, .. } => shared.library.roll(next),
                Effect::DiskFull(full) => {
                    shared.disk_full_times.fetch_add(u64::from(full), Ordering::Relaxed);
                    shared.tail.note_full(full);
                }
                Effect::ReleaseReserve | Effect::KeepReserve => {
                    shared.reserve_bytes.store(hands.reserve_bytes(), Ordering::Relaxed);
                }
                Effect::NoReserveLeft => shared.tail.refuse_all(),
                Effect::Poison(poisoned) => {
                    shared.tail.fail(poisoned);
                    (hooks.poisoned)(poisoned);
                    return Err(poisoned);
                }
                Effect::Stopped(stopped) => {
                    shared.tail.fail(stopped.err().unwrap_or(Poisoned::Stopped));
                    return stopped.map(|()| committer.durable());
                }
                Effect::Create { .. }
                | Effect::Write { .. }
                | Effect::Sync
                | Effect::Trim { .. } => {}
            }
        }
    }
}

impl Shared {
    /// Where whoever follows is, from whom on the most is to be read.
    fn followed(&self) -> Position {
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        followers.retain(|it| it.strong_count() > 0);
        let at = followers.iter().filter_map(Weak::upgrade);
        Position(at.map(|it| it.load(Ordering::Acquire)).min().unwrap_or(u64::MAX))
    }

    /// Notes a new follower, and gives it its mark.
    fn mark(&self, from: Position) -> Arc<AtomicU64> {
        let mark = Arc::new(AtomicU64::new(from.0));
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        followers.retain(|it| it.strong_count() > 0);
        followers.push(Arc::downgrade(&mark));
        mark
    }

    fn publish(&self, offset: u32, batch: &Arc<segment::Batch>) {
        let retired = self.library.publish(offset, batch);
        let counter = if batch.is_seal() { &self.seals } else { &self.commits };
        counter.fetch_add(1, Ordering::Relaxed);
        let bytes = batch.payload_bytes() + BATCH_HEADER_BYTES;
        self.written_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.tail.publish(batch, retired);
    }
}

/// Should the committer ever panic, nobody is left waiting for it.
struct Alarm<'a>(&'a Shared);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.tail.fail(Poisoned::Stopped);
        }
    }
}
