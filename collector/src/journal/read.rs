//! Reading the journal while it is written: one record by its position, or all of them in order.
//!
//! Nothing here goes beyond what is durable: the end of the segment being written moves only when
//! a batch is published. Memory is bounded: a sparse index and a file handle for a few segments,
//! and the newest batches up to a number of bytes.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use engine::id::Position;

use super::disk::{Disk, DiskFile, read_all};
use super::errors::{Damage, ReadError};
use super::files::{belongs_to, read_index, write_index};
use super::recovery::{Recovered, SegmentMeta};
use super::segment::{
    BATCH_HEADER_BYTES, Batch, HEADER_BYTES, Index, Records, decode_batch, decode_frame, file_name,
    index_name, seed,
};
use super::{Entry, Shared, committer::note_published};

/// Segments whose file and index stay open for readers, the one being written not counted.
const OPEN_SEGMENTS_MAX: usize = 32;
/// Bytes read at once while looking for a batch.
const WINDOW_BYTES: usize = 16 * 1024;

/// Where every record is.
pub struct Library {
    disk: Arc<dyn Disk>,
    install: [u8; 16],
    lost: Vec<Damage>, // as recovery passed over it, with the operator's consent
    recent_bytes_max: usize,
    catalog: RwLock<Catalog>,
    open: Mutex<VecDeque<(Position, Arc<OpenSegment>)>>, // least recently used first
}

struct Catalog {
    segments: Vec<SegmentMeta>, // ascending; the last one is being written
    index: Index,               // of the last one
    recent: VecDeque<Arc<Batch>>,
    recent_bytes: usize,
}

struct OpenSegment {
    file: Arc<dyn DiskFile>,
    index: Option<Index>, // none for the one being written
}

/// A batch, and where the one after it begins.
#[derive(Clone)]
struct Located {
    batch: Arc<Batch>,
    incarnation: u32,
    after: Option<(Position, u32)>, // segment and offset; unknown for a batch from memory
}

impl Library {
    pub(super) fn new(disk: Arc<dyn Disk>, recovered: &Recovered, limits: &super::Options) -> Self {
        Library {
            disk,
            install: limits.install,
            lost: recovered.found.lost.clone(),
            recent_bytes_max: limits.recent_bytes_max,
            catalog: RwLock::new(Catalog {
                segments: recovered.segments.clone(),
                index: recovered.index.clone(),
                recent: VecDeque::new(),
                recent_bytes: 0,
            }),
            open: Mutex::new(VecDeque::new()),
        }
    }

    fn catalog(&self) -> RwLockReadGuard<'_, Catalog> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn catalog_mut(&self) -> RwLockWriteGuard<'_, Catalog> {
        self.catalog.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch is durable. Returns one that memory no longer has room for.
    pub(super) fn publish(&self, offset: u32, batch: &Arc<Batch>) -> Option<Arc<Batch>> {
        let mut catalog = self.catalog_mut();
        note_published(&mut catalog.index, offset, batch);
        let end = catalog.index.end;
        if let Some(active) = catalog.segments.last_mut() {
            active.end = end;
        }
        if batch.is_seal() {
            return None;
        }
        // A small group leaves most of its buffer empty, and keeps all of it from others.
        catalog.recent_bytes += batch.buffer_bytes();
        catalog.recent.push_back(Arc::clone(batch));
        let mut retired = None;
        while catalog.recent_bytes > self.recent_bytes_max {
            let Some(oldest) = catalog.recent.pop_front() else {
                break;
            };
            catalog.recent_bytes -= oldest.buffer_bytes();
            retired = Some(oldest);
        }
        retired
    }

    /// The segment being written is complete, and the one after it begins with `next`.
    pub(super) fn roll(&self, next: Position) {
        let mut catalog = self.catalog_mut();
        let fresh = Index {
            end: HEADER_BYTES as u32,
            chain: catalog.index.chain,
            next,
            entries: Vec::new(),
        };
        let complete = std::mem::replace(&mut catalog.index, fresh);
        let Some(last) = catalog.segments.last().copied() else {
            return;
        };
        catalog.segments.push(SegmentMeta { first: next, end: HEADER_BYTES as u32, ..last });
        drop(catalog);
        self.forget(last.first);
        write_index(self.disk.as_ref(), last.first, &complete);
    }

    fn forget(&self, segment: Position) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(first, _)| *first != segment);
    }

    /// Bytes and number of the segments, and the first position of the oldest.
    pub(super) fn extent(&self) -> (u64, usize, Position) {
        let catalog = self.catalog();
        let bytes = catalog.segments.iter().map(|meta| u64::from(meta.end)).sum();
        let first = catalog.segments.first().map(|meta| meta.first);
        (bytes, catalog.segments.len(), first.unwrap_or_default())
    }

    /// Bytes of the segments that begin after a position; the rest of its own segment is left out.
    pub(super) fn bytes_after(&self, position: Position) -> u64 {
        let catalog = self.catalog();
        let after = catalog.segments.iter().filter(|meta| meta.first > position);
        after.map(|meta| u64::from(meta.end)).sum()
    }

    /// The first positions of all segments.
    pub(super) fn firsts(&self) -> Vec<Position> {
        self.catalog().segments.iter().map(|meta| meta.first).collect()
    }

    /// Removes the segments whose records are all before `position`.
    pub(super) fn remove_before(&self, position: Position, all: &AtomicU64) -> io::Result<usize> {
        let mut removed = 0;
        loop {
            let mut catalog = self.catalog_mut();
            let oldest = match catalog.segments.as_slice() {
                [oldest, next, ..] if next.first <= position => *oldest,
                _ => return Ok(removed),
            };
            // Readers are refused by name before the file goes.
            catalog.segments.remove(0);
            drop(catalog);
            self.forget(oldest.first);
            // An index may be missing.
            let _ = self.disk.remove(&index_name(oldest.first));
            if let Err(error) = self.disk.remove(&file_name(oldest.first)) {
                // It is the oldest still: to remove the next one would leave a hole.
                self.catalog_mut().segments.insert(0, oldest);
                return Err(error);
            }
            removed += 1;
            all.fetch_add(1, Ordering::Relaxed);
            // One by one: a hole in the middle would look like a loss.
            self.disk.sync_directory()?;
        }
    }

    /// Removes what belongs to segments that are gone: an index, a torn end kept as evidence, a
    /// loss that was accepted. What cannot be removed now goes the next time.
    pub(super) fn sweep(&self) {
        let first = self.extent().2.ordinal();
        for name in self.disk.list().unwrap_or_default() {
            if belongs_to(&name).is_some_and(|segment| segment < first) {
                let _ = self.disk.remove(&name);
            }
        }
    }

    /// The first batch that holds `position` or anything after it. The caller knows that
    /// `position` is durable.
    fn locate(
        &self,
        mut position: Position,
        mut hint: Option<(Position, u32)>,
    ) -> Result<Located, ReadError> {
        loop {
            let catalog = self.catalog();
            let after = catalog.segments.partition_point(|meta| meta.first <= position);
            let Some(at) = after.checked_sub(1) else {
                let first = catalog.segments.first().map_or(position, |meta| meta.first);
                return Err(ReadError::Removed { first });
            };
            let meta = catalog.segments[at];
            if let Some(batch) = catalog.recent(position) {
                return Ok(Located { batch, incarnation: meta.incarnation, after: None });
            }
            let next = catalog.segments.get(after).map(|meta| meta.first);
            let active = next.is_none().then(|| catalog.index.start(position));
            drop(catalog);

            let segment = match self.open(&meta, next) {
                // It was removed since: it is said so.
                Err(_) if meta.first < self.extent().2 => continue,
                opened => opened?,
            };
            let start = match (hint.take(), active, &segment.index) {
                (Some((of, offset)), _, _) if of == meta.first => offset,
                (_, Some(start), _) => start,
                (_, None, Some(index)) => index.start(position),
                (_, None, None) => HEADER_BYTES as u32,
            };
            if let Some((batch, offset)) = self.walk(&segment, &meta, start, position)? {
                return Ok(Located {
                    batch,
                    incarnation: meta.incarnation,
                    after: Some((meta.first, offset)),
                });
            }
            // Nothing here any more: lost, with consent. The next segment goes on.
            position = next.ok_or(ReadError::Lost)?;
        }
    }

    fn walk(
        &self,
        segment: &OpenSegment,
        meta: &SegmentMeta,
        start: u32,
        position: Position,
    ) -> Result<Option<(Arc<Batch>, u32)>, ReadError> {
        let (mut offset, end) = (start as usize, meta.end as usize);
        let mut window = Vec::new();
        let mut window_at = offset;
        while offset < end {
            if let Some(behind) = self.pass_over(meta, offset) {
                (offset, window_at) = (behind, behind);
                window.clear();
                continue;
            }
            if offset + BATCH_HEADER_BYTES > window_at + window.len() {
                window.resize(WINDOW_BYTES.min(end - offset), 0);
                window_at = offset;
                read(segment.file.as_ref(), &mut window, offset)?;
            }
            let damaged =
                |_| ReadError::Damaged { file: file_name(meta.first), offset: offset as u64 };
            let seen = &window[offset - window_at..];
            let frame = decode_frame(seen, end - offset).map_err(damaged)?;
            if frame.next > position && frame.next > frame.first {
                let bytes = if let Some(whole) = seen.get(..frame.size) {
                    whole.to_vec()
                } else {
                    let mut whole = vec![0; frame.size];
                    read(segment.file.as_ref(), &mut whole, offset)?;
                    whole
                };
                let after = (offset + frame.size) as u32;
                let batch = Batch::read(bytes, seed(&self.install, meta.first));
                return Ok(Some((batch.map_err(damaged)?, after)));
            }
            offset += frame.size;
        }
        Ok(None)
    }

    /// Where to go on behind a range that begins here and whose loss was accepted.
    fn pass_over(&self, meta: &SegmentMeta, offset: usize) -> Option<usize> {
        let begins = |lost: &&Damage| lost.from == offset as u64;
        let mut here = self.lost.iter().filter(begins);
        let file = file_name(meta.first);
        let lost = here.find(|lost| lost.file == file && lost.to > lost.from)?;
        Some(lost.to as usize)
    }

    fn open(
        &self,
        meta: &SegmentMeta,
        next: Option<Position>,
    ) -> Result<Arc<OpenSegment>, ReadError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = open.iter().position(|(first, _)| *first == meta.first)
            && let Some((first, segment)) = open.remove(at)
        {
            let sealed = segment.index.is_some();
            if sealed == next.is_some() {
                open.push_back((first, Arc::clone(&segment)));
                return Ok(segment);
            }
        }
        drop(open);
        let file = self.disk.open(&file_name(meta.first)).map_err(|error| disk(&error))?;
        let index = match next {
            Some(next) => Some(self.index(meta, next, file.as_ref())?),
            None => None,
        };
        let segment = Arc::new(OpenSegment { file, index });
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.push_back((meta.first, Arc::clone(&segment)));
        if open.len() > OPEN_SEGMENTS_MAX {
            open.pop_front();
        }
        Ok(segment)
    }

    /// A complete segment's index, from its file or made again from the segment.
    fn index(
        &self,
        meta: &SegmentMeta,
        next: Position,
        file: &dyn DiskFile,
    ) -> Result<Index, ReadError> {
        let kept = read_index(self.disk.as_ref(), meta.first);
        if let Some(index) = kept.filter(|index| index.end == meta.end && index.next == next) {
            return Ok(index);
        }
        let bytes = read_all(file).map_err(|error| disk(&error))?;
        let bytes = &bytes[..bytes.len().min(meta.end as usize)];
        let seed = seed(&self.install, meta.first);
        let mut index = Index { end: meta.end, chain: 0, next, entries: Vec::new() };
        let mut offset = HEADER_BYTES;
        while let Ok(batch) = decode_batch(bytes, offset, seed) {
            if batch.count > 0 {
                index.note(batch.first, batch.offset as u32);
            }
            index.chain = batch.crc;
            offset = batch.end();
        }
        if offset == meta.end as usize {
            write_index(self.disk.as_ref(), meta.first, &index);
        }
        Ok(index)
    }

    /// The checksum of the batch that holds a durable record.
    pub(super) fn batch_of(&self, position: Position) -> Result<u32, ReadError> {
        let batch = self.locate(position, None)?.batch;
        if batch.first() <= position { Ok(batch.crc()) } else { Err(ReadError::Lost) }
    }

    /// One durable record, and the incarnation it was written under.
    pub(super) fn read(&self, position: Position) -> Result<(Vec<u8>, u32), ReadError> {
        let located = self.locate(position, None)?;
        let nth = position.0.checked_sub(located.batch.first().0).ok_or(ReadError::Lost)?;
        let record = Records::new(located.batch.payload()).nth(nth as usize);
        Ok((record.ok_or(ReadError::Lost)?.to_vec(), located.incarnation))
    }
}

impl Catalog {
    fn recent(&self, position: Position) -> Option<Arc<Batch>> {
        if self.recent.front()?.first() > position {
            return None;
        }
        let at = self.recent.partition_point(|batch| batch.next() <= position);
        self.recent.get(at).cloned()
    }
}

fn read(file: &dyn DiskFile, buffer: &mut [u8], offset: usize) -> Result<(), ReadError> {
    file.read_at(buffer, offset as u64).map_err(|error| disk(&error))
}

fn disk(error: &io::Error) -> ReadError {
    ReadError::Disk(error.kind())
}

/// Reads durable records in order, from a position on, for ever.
pub struct Follower {
    shared: Arc<Shared>,
    next: Position,
    current: Option<Located>,
    cursor: usize,        // in the payload of `current`, where `next` begins
    mark: Arc<AtomicU64>, // `next`, for whoever removes old segments
}

impl Follower {
    pub(super) fn new(shared: Arc<Shared>, from: Position) -> Follower {
        let mark = shared.mark(from);
        Follower { shared, next: from, current: None, cursor: 0, mark }
    }

    /// Position of the record that comes next.
    pub fn position(&self) -> Position {
        self.next
    }

    /// Whether the journal has ended and every durable record was given.
    pub fn is_ended(&self) -> bool {
        let ended = self.shared.tail.has_ended();
        ended && self.next > self.shared.tail.durable()
    }

    /// The next durable record, waiting for it at most this long.
    pub fn next_blocking(&mut self, timeout: Duration) -> Result<Option<Entry<'_>>, ReadError> {
        self.shared.tail.wait_durable(self.next, timeout);
        self.try_next()
    }

    /// The next record, if one is durable. Ranges whose loss was accepted are passed over.
    pub fn try_next(&mut self) -> Result<Option<Entry<'_>>, ReadError> {
        if self.next > self.shared.tail.durable() {
            return Ok(None);
        }
        let spent = |current: &Located| self.next >= current.batch.next();
        if self.current.as_ref().is_none_or(spent) {
            let hint = self.current.take().and_then(|current| current.after);
            let located = self.shared.library.locate(self.next, hint)?;
            self.next = self.next.max(located.batch.first());
            let mut records = Records::new(located.batch.payload());
            for _ in located.batch.first().0..self.next.0 {
                records.next();
            }
            self.cursor = located.batch.payload_bytes() - records.rest().len();
            self.current = Some(located);
        }
        let Some(current) = &self.current else {
            return Ok(None);
        };
        let mut records = Records::new(&current.batch.payload()[self.cursor..]);
        let bytes = records.next().ok_or(ReadError::Lost)?;
        self.cursor = current.batch.payload_bytes() - records.rest().len();
        let position = self.next;
        self.next = position.next();
        self.mark.store(self.next.0, Ordering::Release);
        Ok(Some(Entry { position, incarnation: current.incarnation, bytes }))
    }
}
