//! From the files of a directory to the records that count, and to a fresh segment to write on.
//!
//! Nothing that was written is ever written again: a torn tail is cut by the *next* segment naming
//! the valid length, and the last batch of an unfinished segment, which nothing proves durable,
//! is copied there. The next segment gets its name only when its copies are durable. So whatever
//! stands under a segment's name before the last batch of the last segment was once on the disk,
//! and if it is no longer sound, that is damage and not a crash. Recovery may itself be cut short
//! anywhere and begin again.

use std::io;
use std::sync::Arc;

use engine::id::Position;

use super::committer::{create_segment, is_no_space, make_reserve, release_reserve};
use super::disk::{Disk, DiskFile, read_all};
use super::errors::{Damage, DamageKind, OpenError};
use super::files::{Names, keep_evidence, read_index, write_index};
use super::segment::{
    BATCH_HEADER_BYTES, BatchFault, BatchView, Group, HEADER_BYTES, Header, HeaderFault, Index,
    Records, before, decode_batch, file_name, find_later, index_name, seed,
};
use super::{Entry, Options};

/// What opening a journal found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Records handed over.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of an unfinished write at the end, which were never acknowledged and are void now.
    pub cut_bytes: u64,
    /// Segments of the journal, the fresh one included.
    pub segments: usize,
    /// Position of the oldest record kept; the position of the next one when there is none. A
    /// snapshot has to cover everything before it.
    pub first: Position,
    /// Position of the newest record; the position before `first` when there is none. A snapshot
    /// beyond it belongs to another journal.
    pub last: Position,
    /// The incarnation that new records belong to.
    pub incarnation: u32,
    /// Records that were copied into the fresh segment, since nothing proved them durable.
    pub copied: u64,
    /// Ranges that are lost, with the operator's consent.
    pub lost: Vec<Damage>,
}

/// A segment as readers know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentMeta {
    /// Position of the first record.
    pub first: Position,
    /// Valid bytes.
    pub end: u32,
    /// Incarnation of its records.
    pub incarnation: u32,
}

/// An open journal, before its committer runs.
pub struct Recovered {
    /// What was found.
    pub found: Found,
    /// All segments, the fresh one last.
    pub segments: Vec<SegmentMeta>,
    /// The fresh segment's header.
    pub header: Header,
    /// The fresh segment's file.
    pub file: Arc<dyn DiskFile>,
    /// Bytes allocated to it.
    pub capacity: u64,
    /// Whether the reserve is there.
    pub reserve: bool,
    /// Where its batches begin; `end`, `chain` and `next` say where writing goes on.
    pub index: Index,
}

/// Reads everything, hands over every valid record in order, and publishes a fresh segment.
pub fn recover(
    disk: &dyn Disk,
    options: &Options,
    created_ms: u64,
    each: &mut dyn FnMut(Entry<'_>),
) -> Result<Recovered, OpenError> {
    let names = Names::read(disk, options.partition)?;
    for stale in &names.stale {
        disk.remove(stale).map_err(failed("remove an unfinished file"))?;
    }
    let mut walk = Walk {
        disk,
        options,
        each,
        names: &names,
        found: Found::default(),
        expected: Position::new(options.partition, 1),
        chain: Some(0),
        segments: Vec::new(),
        forgiven: Vec::new(),
    };
    let heads = walk.heads()?;
    if let Some(head) = heads.first() {
        walk.chain = (head.first == walk.expected).then_some(0);
        walk.expected = head.first;
    }
    walk.found.first = walk.expected;
    let mut ending = None;
    for (at, head) in heads.iter().enumerate() {
        ending = walk.segment(head, heads.get(at + 1))?;
    }
    walk.publish(&heads, ending, created_ms)
}

/// An error of the disk, with what was tried.
pub fn failed(doing: &'static str) -> impl Fn(io::Error) -> OpenError {
    move |error| OpenError::Disk { doing, kind: error.kind() }
}

/// A segment by name, and its header when that is sound.
struct Head {
    first: Position,
    header: Option<Header>,
}

/// How the last segment ends.
#[derive(Default)]
struct Ending {
    valid: u32, // bytes that stay valid; the fresh segment's header will say so
    chain: u32,
    copy: Option<Group>, // the last batch's records, when only their being read speaks for them
    previous: u32,
    trim: Option<u64>, // nothing but zeros from here on
    cut_bytes: u64,
    index: Index,
}

struct Walk<'a> {
    disk: &'a dyn Disk,
    options: &'a Options,
    each: &'a mut dyn FnMut(Entry<'_>),
    names: &'a Names,
    found: Found,
    expected: Position, // of the next record
    chain: Option<u32>, // checksum of the batch before, where it can be known
    segments: Vec<SegmentMeta>,
    forgiven: Vec<(u64, u64)>, // damage accepted in this run
}

/// One pass over a segment's batches.
struct Scan<'b> {
    offset: usize,
    last: Option<BatchView<'b>>,
    index: Index,
}

impl Walk<'_> {
    fn heads(&self) -> Result<Vec<Head>, OpenError> {
        let mut heads = Vec::new();
        for first in &self.names.firsts {
            let name = file_name(*first);
            let file = self.disk.open(&name).map_err(failed("open a segment"))?;
            let mut bytes = [0; HEADER_BYTES];
            let read = match file.read_at(&mut bytes, 0) {
                Ok(()) => Header::decode(&bytes),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    Err(HeaderFault::Short)
                }
                Err(error) => return Err(failed("read a segment's header")(error)),
            };
            heads.push(Head { first: *first, header: self.judge(*first, name, read)? });
        }
        Ok(heads)
    }

    fn judge(
        &self,
        first: Position,
        file: String,
        read: Result<Header, HeaderFault>,
    ) -> Result<Option<Header>, OpenError> {
        let known = self.options.evolve;
        match read {
            Ok(header) if header.install != self.options.install => {
                Err(OpenError::Foreign { file })
            }
            Ok(Header { evolve, .. }) if evolve > known => {
                Err(OpenError::Evolve { file, evolve, known })
            }
            Ok(header) if header.first.0 >> 48 != first.0 >> 48 => Err(OpenError::Foreign { file }),
            Ok(header) if header.first != first => Ok(None),
            Ok(header) => Ok(Some(header)),
            Err(HeaderFault::Format(format)) => Err(OpenError::Format { file, format }),
            Err(HeaderFault::ByteOrder) => Err(OpenError::ByteOrder { file }),
            Err(HeaderFault::Short | HeaderFault::Magic | HeaderFault::Checksum) => Ok(None),
        }
    }

    /// Walks one segment; what it returns for the last one is how the journal ends.
    fn segment(&mut self, head: &Head, next: Option<&Head>) -> Result<Option<Ending>, OpenError> {
        if let Some(next) = next
            && self.skip(head, next)
        {
            return Ok(None);
        }
        let file = self.disk.open(&file_name(head.first)).map_err(failed("open a segment"))?;
        if next.is_none() {
            // After a failed sync the cache holds what the disk does not.
            file.drop_cache();
        }
        let bytes = read_all(file.as_ref()).map_err(failed("read a segment"))?;
        let header = self.header(head)?;
        let limit = next.and_then(|next| next.header).map(|next| next.previous as usize);
        let valid = &bytes[..limit.map_or(bytes.len(), |limit| limit.min(bytes.len()))];
        let mut scan = self.scan(&header, valid, limit, next.map(|next| next.first))?;
        self.segments.push(SegmentMeta {
            first: head.first,
            end: scan.offset as u32,
            incarnation: header.incarnation,
        });
        if next.is_none() {
            return Ok(Some(self.ending(&header, scan, &bytes)));
        }
        if let Some(chain) = self.chain {
            scan.index.end = scan.offset as u32;
            scan.index.chain = chain;
            scan.index.next = self.expected;
            // It is never synced, so a crash may leave none, or a torn one.
            if read_index(self.disk, head.first).as_ref() != Some(&scan.index) {
                write_index(self.disk, head.first, &scan.index);
            }
        }
        Ok(None)
    }

    /// Passes a segment that a snapshot covers, by the word of its index.
    fn skip(&mut self, head: &Head, next: &Head) -> bool {
        let (Some(header), Some(following)) = (head.header, next.header) else {
            return false;
        };
        if next.first > self.options.replay_from || !self.names.indexes.contains(&head.first) {
            return false;
        }
        let Some(index) = read_index(self.disk, head.first) else {
            return false;
        };
        if index.end != following.previous || index.next != next.first {
            return false;
        }
        self.chain = Some(index.chain);
        self.expected = next.first;
        self.segments.push(SegmentMeta {
            first: head.first,
            end: index.end,
            incarnation: header.incarnation,
        });
        true
    }

    /// The segment's header, or, with consent, what its neighbours say about it.
    fn header(&mut self, head: &Head) -> Result<Header, OpenError> {
        if let Some(header) = head.header {
            return Ok(header);
        }
        self.lose(
            head.first,
            Damage {
                file: file_name(head.first),
                from: 0,
                to: HEADER_BYTES as u64,
                first: head.first,
                last: before(head.first),
                what: DamageKind::Header,
            },
        )?;
        let last = self.segments.last();
        Ok(Header {
            evolve: self.options.evolve,
            install: self.options.install,
            incarnation: last.map_or(1, |meta| meta.incarnation),
            proven: HEADER_BYTES as u32,
            first: head.first,
            created_ms: 0,
            previous: last.map_or(0, |meta| meta.end),
        })
    }

    fn scan<'b>(
        &mut self,
        header: &Header,
        bytes: &'b [u8],
        limit: Option<usize>,
        stop: Option<Position>,
    ) -> Result<Scan<'b>, OpenError> {
        let seed = seed(&self.options.install, header.first);
        let mut scan = Scan { offset: HEADER_BYTES, last: None, index: Index::default() };
        loop {
            let what = match self.judge_batch(decode_batch(bytes, scan.offset, seed), stop) {
                Ok(batch) => {
                    self.take(header, &batch, &mut scan);
                    continue;
                }
                Err(what) => what,
            };
            // Without the next segment's header nothing tells where this one ends.
            let ended = match limit {
                Some(limit) => scan.offset == limit,
                None => what == DamageKind::Missing,
            };
            let later = find_later(bytes, scan.offset, seed, self.expected).filter(|later| {
                stop.is_none_or(|stop| later.next() <= stop || later.first == stop)
            });
            let proven = stop.is_some() || scan.offset < header.proven as usize;
            if (stop == Some(self.expected) && ended) || (later.is_none() && !proven) {
                return Ok(scan);
            }
            let end = limit.unwrap_or(bytes.len()).max(scan.offset);
            let to = later.map_or(end, |later| later.offset);
            let next = later.map(|later| later.first).or(stop);
            self.lose(
                header.first,
                Damage {
                    file: file_name(header.first),
                    from: scan.offset as u64,
                    to: to as u64,
                    first: self.expected,
                    last: next.map_or(self.expected, before),
                    what,
                },
            )?;
            self.chain = None;
            self.expected = next.unwrap_or(self.expected);
            scan.offset = to;
            if later.is_none() {
                return Ok(scan);
            }
        }
    }

    /// Whether a sound batch is also the one that belongs here.
    fn judge_batch<'b>(
        &self,
        read: Result<BatchView<'b>, BatchFault>,
        stop: Option<Position>,
    ) -> Result<BatchView<'b>, DamageKind> {
        let batch = match read {
            Ok(batch) => batch,
            Err(BatchFault::End) if stop == Some(self.expected) => return Err(DamageKind::Missing),
            Err(fault) => return Err(DamageKind::Batch(fault)),
        };
        let chained = self.chain.is_none_or(|chain| chain == batch.previous);
        if batch.first == self.expected && stop.is_some_and(|stop| batch.next() > stop) {
            // The next segment holds these records again.
            return Err(DamageKind::Missing);
        }
        if batch.first != self.expected || !chained {
            return Err(DamageKind::Chain);
        }
        Ok(batch)
    }

    fn take<'b>(&mut self, header: &Header, batch: &BatchView<'b>, scan: &mut Scan<'b>) {
        let mut position = batch.first;
        for bytes in Records::new(batch.payload) {
            if position >= self.options.replay_from {
                self.found.records += 1;
                self.found.bytes += bytes.len() as u64;
                (self.each)(Entry { position, incarnation: header.incarnation, bytes });
            }
            position = position.next();
        }
        if batch.count > 0 {
            scan.index.note(batch.first, batch.offset as u32);
        }
        self.expected = batch.next();
        self.chain = Some(batch.crc);
        scan.offset = batch.end();
        scan.last = Some(*batch);
    }

    fn ending(&self, header: &Header, scan: Scan<'_>, bytes: &[u8]) -> Ending {
        let rest = bytes.get(scan.offset..).unwrap_or_default();
        let dirt = rest.iter().rposition(|byte| *byte != 0);
        let mut ending = Ending {
            valid: scan.offset as u32,
            chain: self.chain.unwrap_or_default(),
            copy: None,
            previous: header.previous,
            trim: (dirt.is_none() && !rest.is_empty()).then_some(scan.offset as u64),
            cut_bytes: dirt.map_or(0, |at| at as u64 + 1),
            index: scan.index,
        };
        ending.index.next = self.expected;
        // Whatever stands before the last batch was synced before that was written. The last one
        // itself may be in the cache of the machine only.
        if let Some(last) = scan.last.filter(|last| last.end() == scan.offset)
            && last.offset >= header.proven as usize
        {
            ending.valid = last.offset as u32;
            ending.chain = last.previous;
            ending.index.next = last.first;
            if last.count > 0 {
                let mut copy = Group::new(last.first, Vec::new());
                for record in Records::new(last.payload) {
                    copy.push(record);
                }
                ending.copy = Some(copy);
            }
        }
        ending.index.end = ending.valid;
        ending.index.chain = ending.chain;
        ending
    }

    /// Refuses, unless an operator accepts the loss now or did before.
    fn lose(&mut self, segment: Position, damage: Damage) -> Result<(), OpenError> {
        let key = (segment.ordinal(), damage.from);
        let known = self.names.accepted.contains(&key);
        if !known && !self.options.accept_loss {
            return Err(OpenError::Damaged(damage));
        }
        if !known {
            self.forgiven.push(key);
        }
        self.found.lost.push(damage);
        Ok(())
    }

    fn publish(
        mut self,
        heads: &[Head],
        ending: Option<Ending>,
        created_ms: u64,
    ) -> Result<Recovered, OpenError> {
        let ending = ending.unwrap_or_default();
        let first = ending.copy.as_ref().map_or(self.expected, Group::first);
        let last = heads.last().map(|head| head.first);
        let replaced = last.filter(|last| *last == first);
        let newest = self.segments.iter().map(|meta| meta.incarnation).max();
        // Positions that were lost may be given out again: not under the same incarnation.
        let anew = self.options.new_incarnation || !self.forgiven.is_empty();
        let incarnation = newest.map_or(1, |newest| newest + u32::from(anew));
        self.close_last(&ending, replaced)?;

        let mut header = Header {
            evolve: self.options.evolve,
            install: self.options.install,
            incarnation,
            proven: HEADER_BYTES as u32,
            first,
            created_ms,
            previous: match replaced {
                Some(_) => ending.previous,
                None => ending.valid,
            },
        };
        if ending.copy.is_some() {
            // Copied records keep the incarnation they were written under.
            header.incarnation = newest.unwrap_or(incarnation);
        }
        let mut fresh = self.create(header, ending.chain, ending.copy)?;
        if header.incarnation != incarnation {
            header.incarnation = incarnation;
            header.first = fresh.index.next;
            header.previous = fresh.index.end;
            fresh = self.create(header, fresh.index.chain, None)?;
        }
        self.tidy(last, &ending.index, ending.trim, replaced);
        self.remember_losses(replaced)?;
        let reserve = make_reserve(self.disk, self.options.reserve_bytes);
        self.found.cut_bytes = ending.cut_bytes;
        self.found.segments = self.segments.len();
        self.found.last = before(self.expected);
        self.found.incarnation = incarnation;
        Ok(Recovered { found: self.found, segments: self.segments, reserve, ..fresh })
    }

    /// The last segment gets its final length, or makes way for one of the same name.
    fn close_last(&mut self, ending: &Ending, replaced: Option<Position>) -> Result<(), OpenError> {
        if let Some(replaced) = replaced {
            if ending.cut_bytes > 0 {
                keep_evidence(self.disk, self.names, replaced)
                    .map_err(failed("keep a copy of a torn segment"))?;
            }
            self.segments.pop();
        } else if let Some(meta) = self.segments.last_mut() {
            meta.end = ending.valid;
        }
        Ok(())
    }

    fn create(
        &mut self,
        mut header: Header,
        chain: u32,
        copy: Option<Group>,
    ) -> Result<Recovered, OpenError> {
        let mut index =
            Index { end: HEADER_BYTES as u32, chain, next: header.first, entries: Vec::new() };
        let batch = copy.map(|copy| copy.finish(header.seed(), before(header.first), chain));
        if let Some(batch) = &batch {
            index.note(batch.first(), index.end);
            index.end += batch.bytes().len() as u32;
            index.chain = batch.crc();
            index.next = batch.next();
            self.found.copied = batch.next().0 - batch.first().0;
        }
        header.proven = index.end;
        let room = u64::from(index.end) + BATCH_HEADER_BYTES as u64;
        let copied = batch.as_ref().map_or(&[][..], |batch| batch.bytes());
        let (file, capacity) = self.create_or_squeeze(&header, copied, room)?;
        self.segments.push(SegmentMeta {
            first: header.first,
            end: index.end,
            incarnation: header.incarnation,
        });
        Ok(Recovered {
            found: Found::default(),
            segments: Vec::new(),
            header,
            file,
            capacity,
            reserve: false,
            index,
        })
    }

    /// On a full disk the reserve makes room for a segment as small as it can be: whoever reads,
    /// and whoever is to be told, need not wait for space.
    fn create_or_squeeze(
        &self,
        header: &Header,
        copied: &[u8],
        room: u64,
    ) -> Result<(Arc<dyn DiskFile>, u64), OpenError> {
        let capacity = self.options.segment_bytes.max(room);
        let made = match create_segment(self.disk, header, copied, capacity) {
            Err(error) if is_no_space(&error) => {
                release_reserve(self.disk);
                create_segment(self.disk, header, copied, room).map(|file| (file, room))
            }
            made => made.map(|file| (file, capacity)),
        };
        made.map_err(failed("create a segment"))
    }

    /// Gives unused space back and writes what only saves work. Failing costs nothing.
    fn tidy(
        &self,
        last: Option<Position>,
        index: &Index,
        trim: Option<u64>,
        replaced: Option<Position>,
    ) {
        let Some(last) = last else { return };
        if replaced.is_some() {
            // An index of the file that was replaced; readers would find it stale.
            let _ = self.disk.remove(&index_name(last));
            return;
        }
        if let (Some(bytes), Ok(file)) = (trim, self.disk.open(&file_name(last))) {
            let _ = file.trim(bytes);
        }
        write_index(self.disk, last, index);
    }

    /// What was accepted once is not asked again at every start. The damaged bytes stay.
    fn remember_losses(&self, replaced: Option<Position>) -> Result<(), OpenError> {
        let replaced = replaced.map(Position::ordinal);
        for (segment, offset) in &self.forgiven {
            if replaced != Some(*segment) {
                self.disk
                    .create(&format!("accepted-{segment:016x}-{offset:016x}"), 0)
                    .map_err(failed("note an accepted loss"))?;
            }
        }
        if self.forgiven.is_empty() {
            return Ok(());
        }
        self.disk.sync_directory().map_err(failed("note an accepted loss"))
    }
}
