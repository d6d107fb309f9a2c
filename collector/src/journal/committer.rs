//! The committer: one group after another to the disk, nothing told before it is true.
//!
//! `Committer` is a state machine without files, threads or clock: it is given what happened and
//! says what to do. `Hands` does it on a disk. The journal's thread and the simulator of the tests
//! drive the same two.

use std::io;
use std::sync::Arc;

use engine::id::Position;

use super::Options;
use super::disk::{Disk, DiskFile};
use super::errors::Poisoned;
use super::recovery::Recovered;
use super::segment::{
    BATCH_HEADER_BYTES, Batch, Group, HEADER_BYTES, Header, Index, before, file_name,
};

/// How long the journal is idle before a seal batch proves its last batch durable.
pub const SEAL_AFTER_MS: u64 = 5;
/// How long a full disk is left alone before it is tried again.
pub const FULL_RETRY_MS: u64 = 200;

/// Two clocks, read by the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since the Unix epoch; only written into headers.
    pub wall_ms: u64,
    /// Milliseconds that never step back; deadlines are told by it.
    pub boot_ms: u64,
}

/// How an operation of the disk failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No space or quota left.
    NoSpace,
    /// Anything else.
    Io(io::ErrorKind),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        if is_no_space(&error) { Fault::NoSpace } else { Fault::Io(error.kind()) }
    }
}

/// Whether an error says that there is no space or quota left: it may pass by itself.
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// The oldest group gathered; only given while `is_ready`.
    Gathered(Group),
    /// The segment asked for was made, or not.
    Created(Result<(), Fault>),
    /// The batch was written, or not.
    Written(Result<(), Fault>),
    /// The file was synced, or not.
    Synced(Result<(), Fault>),
    /// Time passed.
    Elapsed,
    /// A stop begins: what is still pushed is little, and worth the reserve.
    WindDown,
    /// Nothing more will come.
    Stop,
}

/// What to do. At most one of `Create`, `Write` and `Sync` in a step, and it is the last; its
/// outcome is the next input.
#[derive(Clone, Debug)]
pub enum Effect {
    /// The segment before is complete.
    Retire {
        /// Its first position.
        first: Position,
        /// Its valid bytes.
        end: u32,
        /// Checksum of its last batch.
        chain: u32,
        /// Position after its last record.
        next: Position,
    },
    /// Make a segment and give it its name.
    Create {
        /// Its header.
        header: Header,
        /// Bytes to allocate.
        capacity: u64,
    },
    /// Write a batch.
    Write {
        /// Where.
        offset: u32,
        /// What.
        batch: Arc<Batch>,
    },
    /// Make the batch durable.
    Sync,
    /// The batch is durable; tell whoever waits.
    Publish {
        /// Where it stands.
        offset: u32,
        /// The batch.
        batch: Arc<Batch>,
    },
    /// The disk has become full, or is so no more.
    DiskFull(bool),
    /// Give the reserve back to the disk: what is left to write needs its space.
    ReleaseReserve,
    /// Make the reserve again, if it is not there: the disk has space.
    KeepReserve,
    /// The disk is full, also without the reserve, and the journal is being stopped.
    NoReserveLeft,
    /// Give back what the last segment did not use.
    Trim {
        /// Bytes to keep.
        end: u32,
    },
    /// Nothing more will become durable; the process must exit.
    Poison(Poisoned),
    /// The end of an orderly stop.
    Stopped(Result<(), Poisoned>),
}

#[derive(Debug)]
enum State {
    Idle { since_ms: u64 },
    Creating(Group),
    Writing(Arc<Batch>),
    Syncing(Arc<Batch>),
    NoRoom { group: Group, retry_ms: u64 }, // waits for space for a segment
    Unwritten { batch: Arc<Batch>, retry_ms: u64 }, // waits for space within one
    Ended,
}

/// What becomes of the reserve. From `Offered` on segments are as small as they can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reserve {
    /// It stays, whatever the disk says.
    Kept,
    /// A stop has begun: the first lack of space takes it.
    Offered,
    /// It was given back.
    Spent,
}

/// Commits groups, rolls segments over, seals, meets full and failing disks.
#[derive(Debug)]
pub struct Committer {
    state: State,
    header: Header,
    end: u32,
    capacity: u64,
    chain: u32,
    durable: Position,
    proven: bool, // whether the last batch is known durable by something on the disk
    full: bool,
    reserve: Reserve,
    segment_bytes: u64,
    segment_ms: u64,
    since_ms: u64, // when the segment was begun, on the boot clock
}

impl Committer {
    /// Goes on where recovery ended.
    pub fn new(recovered: &Recovered, options: &Options, now: Now) -> Committer {
        Committer {
            state: State::Idle { since_ms: now.boot_ms },
            header: recovered.header,
            end: recovered.index.end,
            capacity: recovered.capacity,
            chain: recovered.index.chain,
            durable: before(recovered.index.next),
            proven: true,
            full: false,
            reserve: Reserve::Kept,
            segment_bytes: options.segment_bytes,
            segment_ms: options.segment_ms,
            since_ms: now.boot_ms,
        }
    }

    /// Whether a group may be given.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Idle { .. })
    }

    /// Whether it waits for the disk to have space.
    pub fn is_full(&self) -> bool {
        matches!(self.state, State::NoRoom { .. } | State::Unwritten { .. })
    }

    /// Whether it has ended, in order or not.
    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// When `Elapsed` is wanted, on the boot clock, milliseconds.
    pub fn deadline_ms(&self) -> Option<u64> {
        match self.state {
            State::Idle { since_ms } if !self.proven => Some(since_ms + SEAL_AFTER_MS),
            State::NoRoom { retry_ms, .. } | State::Unwritten { retry_ms, .. } => Some(retry_ms),
            State::Idle { .. }
            | State::Creating(_)
            | State::Writing(_)
            | State::Syncing(_)
            | State::Ended => None,
        }
    }

    /// The highest position known durable.
    pub fn durable(&self) -> Position {
        self.durable
    }

    /// Takes what happened, says what to do.
    pub fn step(&mut self, input: Input, now: Now) -> Vec<Effect> {
        let state = std::mem::replace(&mut self.state, State::Ended);
        match (state, input) {
            (State::Ended, _) => Vec::new(),
            (State::Idle { .. }, Input::Gathered(group)) => self.begin(group, now),
            (State::Idle { since_ms }, Input::Elapsed) => {
                if self.proven || now.boot_ms < since_ms + SEAL_AFTER_MS {
                    self.state = State::Idle { since_ms };
                    return Vec::new();
                }
                self.begin(Group::seal(self.durable.next()), now)
            }
            (State::Idle { .. }, Input::Stop) => self.stop(now),
            (State::Creating(group), Input::Created(made)) => self.created(group, made, now),
            (State::Writing(batch), Input::Written(written)) => self.written(batch, written, now),
            (State::Syncing(batch), Input::Synced(synced)) => self.synced(batch, synced, now),
            (State::NoRoom { group, retry_ms }, Input::Elapsed) => {
                if now.boot_ms >= retry_ms {
                    return self.begin(group, now);
                }
                self.state = State::NoRoom { group, retry_ms };
                Vec::new()
            }
            (State::Unwritten { batch, retry_ms }, Input::Elapsed) => {
                if now.boot_ms >= retry_ms {
                    return self.write(batch);
                }
                self.state = State::Unwritten { batch, retry_ms };
                Vec::new()
            }
            (State::Idle { since_ms }, Input::WindDown) => {
                self.offer_reserve();
                self.state = State::Idle { since_ms };
                Vec::new()
            }
            (state @ (State::NoRoom { .. } | State::Unwritten { .. }), Input::WindDown) => {
                self.try_once_more(state, now)
            }
            (state @ (State::NoRoom { .. } | State::Unwritten { .. }), Input::Stop) => {
                if self.reserve == Reserve::Spent {
                    return vec![Effect::Stopped(Err(Poisoned::DiskFull))];
                }
                self.try_once_more(state, now)
            }
            (state, input) => unreachable!("{input:?} is no answer to {state:?}"),
        }
    }

    /// Every batch leaves room for one seal after it, so that a seal never needs a new segment.
    fn begin(&mut self, group: Group, now: Now) -> Vec<Effect> {
        let seal = if group.payload_bytes() == 0 { 0 } else { BATCH_HEADER_BYTES };
        let needed = (group.batch_bytes() + seal) as u64;
        // A segment without records takes any group: another one would have the same name, and
        // take its place together with what its header says of the one before.
        let empty = group.first() == self.header.first;
        let old = now.boot_ms.saturating_sub(self.since_ms) >= self.segment_ms && seal > 0;
        if empty || (u64::from(self.end) + needed <= self.capacity && !old) {
            let batch = group.finish(self.header.seed(), self.durable, self.chain);
            return self.write(Arc::new(batch));
        }
        let header = Header {
            proven: HEADER_BYTES as u32,
            first: group.first(),
            created_ms: now.wall_ms,
            previous: self.end,
            ..self.header
        };
        let capacity = self.capacity_for(needed);
        self.state = State::Creating(group);
        vec![Effect::Create { header, capacity }]
    }

    fn created(&mut self, group: Group, made: Result<(), Fault>, now: Now) -> Vec<Effect> {
        match made {
            Ok(()) => {}
            Err(Fault::NoSpace) => {
                let retry_ms = now.boot_ms + FULL_RETRY_MS;
                return self.no_space(State::NoRoom { group, retry_ms }, now);
            }
            Err(Fault::Io(kind)) => return vec![Effect::Poison(Poisoned::Create(kind))],
        }
        let retire = Effect::Retire {
            first: self.header.first,
            end: self.end,
            chain: self.chain,
            next: group.first(),
        };
        self.header = Header {
            first: group.first(),
            previous: self.end,
            created_ms: now.wall_ms,
            proven: HEADER_BYTES as u32,
            ..self.header
        };
        self.since_ms = now.boot_ms;
        self.capacity = self.capacity_for((group.batch_bytes() + BATCH_HEADER_BYTES) as u64);
        self.end = HEADER_BYTES as u32;
        // The new segment's name proves everything before it.
        self.proven = true;
        let batch = group.finish(self.header.seed(), self.durable, self.chain);
        let mut effects = vec![retire];
        if self.reserve == Reserve::Kept {
            effects.push(Effect::KeepReserve);
        }
        effects.extend(self.write(Arc::new(batch)));
        effects
    }

    fn write(&mut self, batch: Arc<Batch>) -> Vec<Effect> {
        self.state = State::Writing(Arc::clone(&batch));
        vec![Effect::Write { offset: self.end, batch }]
    }

    fn written(&mut self, batch: Arc<Batch>, written: Result<(), Fault>, now: Now) -> Vec<Effect> {
        match written {
            Ok(()) => {
                self.state = State::Syncing(batch);
                let mut effects = self.note_full(false);
                effects.push(Effect::Sync);
                effects
            }
            Err(Fault::NoSpace) => {
                // Nobody was told of these bytes, so the same ones may be written there again.
                let retry_ms = now.boot_ms + FULL_RETRY_MS;
                self.no_space(State::Unwritten { batch, retry_ms }, now)
            }
            Err(Fault::Io(kind)) => vec![Effect::Poison(Poisoned::Write(kind))],
        }
    }

    fn synced(&mut self, batch: Arc<Batch>, synced: Result<(), Fault>, now: Now) -> Vec<Effect> {
        match synced {
            Ok(()) => {}
            Err(Fault::NoSpace) => {
                return vec![Effect::Poison(Poisoned::Sync(io::ErrorKind::StorageFull))];
            }
            Err(Fault::Io(kind)) => return vec![Effect::Poison(Poisoned::Sync(kind))],
        }
        let offset = self.end;
        self.end += batch.bytes().len() as u32;
        self.chain = batch.crc();
        self.durable = before(batch.next());
        self.proven = batch.is_seal();
        self.state = State::Idle { since_ms: now.boot_ms };
        vec![Effect::Publish { offset, batch }]
    }

    fn stop(&mut self, now: Now) -> Vec<Effect> {
        if !self.proven {
            return self.begin(Group::seal(self.durable.next()), now);
        }
        vec![Effect::Trim { end: self.end }, Effect::Stopped(Ok(()))]
    }

    /// Bytes of a segment that begins with a batch of so many, the seal after it included.
    fn capacity_for(&self, batch: u64) -> u64 {
        let least = batch + HEADER_BYTES as u64;
        match self.reserve {
            Reserve::Kept => self.segment_bytes.max(least),
            Reserve::Offered | Reserve::Spent => least,
        }
    }

    /// Waits for space; when a stop has begun, the reserve is the space.
    fn no_space(&mut self, waiting: State, now: Now) -> Vec<Effect> {
        let mut effects = self.note_full(true);
        match self.reserve {
            Reserve::Kept => self.state = waiting,
            Reserve::Offered => effects.extend(self.try_once_more(waiting, now)),
            Reserve::Spent => {
                self.state = waiting;
                effects.push(Effect::NoReserveLeft);
            }
        }
        effects
    }

    fn offer_reserve(&mut self) {
        if self.reserve == Reserve::Kept {
            self.reserve = Reserve::Offered;
        }
    }

    fn try_once_more(&mut self, waiting: State, now: Now) -> Vec<Effect> {
        self.reserve = Reserve::Spent;
        let mut effects = vec![Effect::ReleaseReserve];
        effects.extend(match waiting {
            State::NoRoom { group, .. } => self.begin(group, now),
            State::Unwritten { batch, .. } => self.write(batch),
            state => unreachable!("{state:?} waits for no space"),
        });
        effects
    }

    fn note_full(&mut self, full: bool) -> Vec<Effect> {
        if self.full == full {
            return Vec::new();
        }
        self.full = full;
        vec![Effect::DiskFull(full)]
    }
}

/// Does on a disk what the committer says.
pub struct Hands {
    disk: Arc<dyn Disk>,
    file: Arc<dyn DiskFile>,
    reserve_bytes: u64,
    reserve: bool, // whether it is there
}

impl Hands {
    /// On the fresh segment of a recovery.
    pub fn new(disk: Arc<dyn Disk>, recovered: &Recovered, options: &Options) -> Hands {
        let file = Arc::clone(&recovered.file);
        let reserve_bytes = options.reserve_bytes;
        Hands { disk, file, reserve_bytes, reserve: recovered.reserve }
    }

    /// Bytes of the reserve, if it is there.
    pub fn reserve_bytes(&self) -> u64 {
        if self.reserve { self.reserve_bytes } else { 0 }
    }

    /// The outcome to feed back, for the effects that are for the disk and have one.
    pub fn perform(&mut self, effect: &Effect) -> Option<Input> {
        match effect {
            Effect::Create { header, capacity } => {
                let made = create_segment(self.disk.as_ref(), header, &[], *capacity);
                let made = made.map(|file| self.file = file).map_err(Fault::from);
                Some(Input::Created(made))
            }
            Effect::Write { offset, batch } => {
                let written = self.file.write_at(batch.bytes(), u64::from(*offset));
                Some(Input::Written(written.map_err(Fault::from)))
            }
            Effect::Sync => Some(Input::Synced(self.file.sync().map_err(Fault::from))),
            Effect::Retire { first, end, .. } => {
                self.give_back(&file_name(*first), *end);
                None
            }
            Effect::Trim { end } => {
                // Only space is at stake.
                let _ = self.file.trim(u64::from(*end));
                None
            }
            Effect::ReleaseReserve => {
                release_reserve(self.disk.as_ref());
                self.reserve = false;
                None
            }
            Effect::KeepReserve => {
                self.reserve = self.reserve || make_reserve(self.disk.as_ref(), self.reserve_bytes);
                None
            }
            Effect::Publish { .. }
            | Effect::DiskFull(_)
            | Effect::NoReserveLeft
            | Effect::Poison(_)
            | Effect::Stopped(_) => None,
        }
    }

    /// Cuts the zeros after a complete segment; only space is at stake.
    fn give_back(&self, name: &str, end: u32) {
        if let Ok(file) = self.disk.open(name) {
            let _ = file.trim(u64::from(end));
        }
    }
}

/// The file that keeps space for a stop on a full disk. It holds zeros, and nothing reads it.
pub const RESERVE_NAME: &str = "reserve";

/// Makes the reserve unless it is there in full; whether it is there then. Only space is at stake.
pub fn make_reserve(disk: &dyn Disk, bytes: u64) -> bool {
    if bytes == 0 {
        release_reserve(disk);
        return false;
    }
    let size = disk.open(RESERVE_NAME).and_then(|file| file.size());
    if size.is_ok_and(|size| size == bytes) {
        return true;
    }
    let made = disk.create(RESERVE_NAME, bytes).is_ok();
    if !made {
        release_reserve(disk);
    }
    made
}

/// Gives the reserve back, if it is there.
pub fn release_reserve(disk: &dyn Disk) {
    // What is not there needs no giving back, and a disk that fails will say so at the next write.
    let _ = disk.remove(RESERVE_NAME);
}

/// Makes a segment complete and durable under a passing name before it gets its own, so that no
/// torn header or half a copy ever stands under the name of a segment.
pub fn create_segment(
    disk: &dyn Disk,
    header: &Header,
    copied: &[u8],
    capacity: u64,
) -> io::Result<Arc<dyn DiskFile>> {
    let name = file_name(header.first);
    let passing = format!("{name}.new");
    let made = disk.create(&passing, capacity).and_then(|file| {
        file.write_at(&header.encode(), 0)?;
        file.write_at(copied, HEADER_BYTES as u64)?;
        file.sync()?;
        Ok(file)
    });
    let file = match made {
        Ok(file) => file,
        Err(error) => {
            // What could be allocated is given back; recovery removes what stays.
            let _ = disk.remove(&passing);
            return Err(error);
        }
    };
    disk.rename(&passing, &name)?;
    disk.sync_directory()?;
    Ok(file)
}

/// The index of the segment being written, kept as batches become durable.
pub fn note_published(index: &mut Index, offset: u32, batch: &Batch) {
    if !batch.is_seal() {
        index.note(batch.first(), offset);
    }
    index.end = offset + batch.bytes().len() as u32;
    index.chain = batch.crc();
    index.next = batch.next();
}
