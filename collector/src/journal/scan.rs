//! The journal as it lies on the disk, read from the first segment to the last without taking it
//! or changing anything. Recovery stops at the first thing that is wrong; this names it, and goes
//! on where the next sound batch is. The rules are those of FORMAT.md, section 1.3.

use std::collections::BTreeSet;
use std::io;

use engine::id::Position;

use super::disk::{Disk, read_all};
use super::files::{Names, read_index};
use super::segment::{
    BatchFault, BatchView, HEADER_BYTES, Header, HeaderFault, Index, Records, decode_batch,
    file_name, find_later, index_name, seed,
};
use super::{EVOLVE, Entry};

/// Something found, by name, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is: one word of a fixed list.
    pub name: &'static str,
    /// The file it is in.
    pub file: String,
    /// Where in the file, if it is at a place.
    pub offset: Option<u64>,
    /// The record it is about, or the first one that it concerns.
    pub position: Option<Position>,
    /// The same for people.
    pub about: String,
}

/// What is come across, in order.
#[derive(Debug)]
pub enum Seen<'a> {
    /// A sound batch that counts.
    Batch(&'a BatchView<'a>),
    /// A sound batch that does not: the next segment holds its records again.
    Superseded(&'a BatchView<'a>),
    /// A record that counts, and where the batch is that holds it.
    Record(Entry<'a>, Place<'a>),
    /// Something wrong.
    Wrong(Finding),
    /// Something worth saying that is in order.
    Note(Finding),
}

/// Where a record stands.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The segment's file.
    pub file: &'a str,
    /// Offset of its batch.
    pub offset: u64,
}

/// What there was altogether.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Segments.
    pub segments: u64,
    /// Batches that count, seals not included.
    pub batches: u64,
    /// Seals.
    pub seals: u64,
    /// Records that count.
    pub records: u64,
    /// Bytes that count: headers, batches and seals.
    pub bytes: u64,
    /// The first record there is, or would be.
    pub first: Position,
    /// The last record.
    pub last: Position,
    /// The incarnation of the last segment.
    pub incarnation: u32,
}

/// Reads everything. Errors are the disk's; whatever is wrong with the bytes is seen.
pub fn scan(
    disk: &dyn Disk,
    install: &[u8; 16],
    see: &mut dyn FnMut(Seen<'_>),
) -> io::Result<Scanned> {
    let names = Names::read(disk, 0).map_err(|error| io::Error::other(error.to_string()))?;
    let mut scanner = Scanner {
        disk,
        install,
        names: &names,
        see,
        forgiven: BTreeSet::new(),
        expected: names.firsts.first().copied().unwrap_or(Position(1)),
        chain: None,
        synced: Position(0),
        incarnation: 0,
        walked: 1,
        scanned: Scanned::default(),
    };
    scanner.scanned.first = scanner.expected;
    let heads: Vec<Head> =
        names.firsts.iter().map(|first| scanner.head(*first)).collect::<io::Result<_>>()?;
    for (at, head) in heads.iter().enumerate() {
        scanner.segment(head, heads.get(at + 1))?;
    }
    scanner.other_files();
    scanner.scanned.last = Position(scanner.expected.0 - 1);
    Ok(scanner.scanned)
}

/// A segment before it is read.
struct Head {
    first: Position,
    file: String,
    /// Nothing if it is not sound.
    header: Option<Header>,
    /// What follows can be batches of this journal.
    readable: bool,
    /// The checksum that its first batch is chained to.
    link: Option<u32>,
}

struct Scanner<'a> {
    disk: &'a dyn Disk,
    install: &'a [u8; 16],
    names: &'a Names,
    see: &'a mut dyn FnMut(Seen<'_>),
    // accepted losses that were met
    forgiven: BTreeSet<(u64, u64)>,
    expected: Position,
    chain: Option<u32>,
    synced: Position,
    incarnation: u32,
    // of the segment before the one that is read
    walked: u32,
    scanned: Scanned,
}

/// How far one segment was read.
struct Walk {
    offset: usize,
    batches: BTreeSet<(Position, u32)>,
    last: Position,
    proven: bool,
    damaged: bool,
}

impl Scanner<'_> {
    fn wrong(
        &mut self,
        name: &'static str,
        file: &str,
        (offset, position): (Option<u64>, Option<Position>),
        about: String,
    ) {
        let file = file.to_owned();
        (self.see)(Seen::Wrong(Finding { name, file, offset, position, about }));
    }

    fn note(&mut self, name: &'static str, file: &str, offset: Option<u64>, about: &str) {
        let (file, about) = (file.to_owned(), about.to_owned());
        (self.see)(Seen::Note(Finding { name, file, offset, position: None, about }));
    }

    fn head(&mut self, first: Position) -> io::Result<Head> {
        let file = file_name(first);
        let opened = self.disk.open(&file)?;
        let mut bytes = vec![0; (opened.size()?.min(HEADER_BYTES as u64 + 16)) as usize];
        opened.read_at(&mut bytes, 0)?;
        let link = bytes.get(76..80).map(|it| u32::from_le_bytes([it[0], it[1], it[2], it[3]]));
        let mut head = Head { first, file, header: None, readable: true, link };
        let wrong = match Header::decode(&bytes) {
            Ok(header) if header.install != *self.install => {
                Some(("segment_foreign", "another installation wrote it", false))
            }
            Ok(header) if header.evolve > EVOLVE => {
                Some(("segment_newer", "a newer program wrote it", false))
            }
            Ok(header) if header.first != first => {
                Some(("segment_name", "its header bears another first position", false))
            }
            Ok(header) => {
                head.header = Some(header);
                None
            }
            Err(HeaderFault::Format(_) | HeaderFault::ByteOrder) => {
                Some(("segment_newer", "its format or byte order is unknown", false))
            }
            Err(HeaderFault::Short) => Some(("segment_header", "it ends in its header", true)),
            Err(HeaderFault::Magic) => Some(("segment_header", "it begins with no magic", true)),
            Err(HeaderFault::Checksum) => {
                Some(("segment_header", "its header's checksum does not match", true))
            }
        };
        if let Some((name, about, readable)) = wrong {
            head.readable = readable;
            self.damage((first, 0), name, &head.file, about);
        }
        if let Some(header) = head.header {
            self.incarnation_of(&head.file, &header);
        }
        Ok(head)
    }

    fn incarnation_of(&mut self, file: &str, header: &Header) {
        if header.incarnation < self.incarnation || header.incarnation == 0 {
            let about = format!("incarnation {} after {}", header.incarnation, self.incarnation);
            self.wrong("segment_incarnation", file, (Some(32), Some(header.first)), about);
        }
        self.incarnation = self.incarnation.max(header.incarnation);
        self.scanned.incarnation = self.incarnation;
    }

    /// Damage, unless somebody has accepted it.
    fn damage(
        &mut self,
        (segment, offset): (Position, u64),
        name: &'static str,
        file: &str,
        about: &str,
    ) {
        let key = (segment.ordinal(), offset);
        if self.names.accepted.contains(&key) {
            self.forgiven.insert(key);
            self.note("accepted_loss", file, Some(offset), about);
        } else {
            let place = (Some(offset), Some(self.expected.max(segment)));
            self.wrong(name, file, place, about.to_owned());
        }
    }

    fn segment(&mut self, head: &Head, next: Option<&Head>) -> io::Result<()> {
        self.scanned.segments += 1;
        self.expected = head.first;
        if !head.readable {
            self.chain = None;
            self.expected = next.map_or(self.expected, |next| next.first);
            return Ok(());
        }
        let bytes = read_all(self.disk.open(&head.file)?.as_ref())?;
        let index = self.names.indexes.contains(&head.first);
        let index = index.then(|| read_index(self.disk, head.first));
        // What a segment says of the one before it may be of one that is missing.
        let follows = |next: &Head| match &index {
            Some(Some(index)) => index.next == next.first,
            _ => true,
        };
        let limit = next.filter(|next| follows(next)).and_then(|next| next.header);
        let limit = limit.map(|header| header.previous as usize);
        let valid = &bytes[..limit.map_or(bytes.len(), |limit| limit.min(bytes.len()))];
        let walk = self.walk(head, valid, limit, next);
        self.scanned.bytes += walk.offset as u64;
        if let Some(header) = head.header {
            let previous = header.previous != 0 && head.first.ordinal() == 1;
            if !walk.proven && !walk.damaged {
                let about = format!("{} bytes are said to be proven", header.proven);
                self.wrong("segment_proven", &head.file, (Some(36), Some(head.first)), about);
            }
            if previous {
                let about = "the first one names bytes of one before it".to_owned();
                self.wrong("segment_previous", &head.file, (Some(56), Some(head.first)), about);
            }
        }
        match next {
            None => self.torn(head, &bytes, &walk),
            Some(next) => {
                self.superseded(head, &bytes, &walk);
                if let (Some(index), false) = (&index, walk.damaged) {
                    self.judge_index(head, index.as_ref(), &walk);
                }
                self.expected = next.first;
            }
        }
        Ok(())
    }

    fn walk(
        &mut self,
        head: &Head,
        bytes: &[u8],
        limit: Option<usize>,
        next: Option<&Head>,
    ) -> Walk {
        let seed = seed(self.install, head.first);
        let stop = next.map(|next| next.first);
        let incarnation = head.header.map_or(self.walked, |it| it.incarnation);
        self.walked = incarnation;
        let proven = head.header.map_or(HEADER_BYTES, |header| header.proven as usize);
        let mut walk = Walk {
            offset: HEADER_BYTES,
            batches: BTreeSet::new(),
            last: head.first,
            proven: proven == HEADER_BYTES,
            damaged: false,
        };
        let mut linked = false;
        loop {
            let fault = match self.judge(decode_batch(bytes, walk.offset, seed), stop) {
                Ok(batch) => {
                    linked |= next.is_some_and(|next| next.link == Some(batch.crc));
                    self.take(head, incarnation, &batch, &mut walk);
                    walk.proven |= walk.offset == proven;
                    continue;
                }
                Err(fault) => fault,
            };
            let ended = stop == Some(self.expected) && limit.is_none_or(|it| walk.offset == it);
            let later = find_later(bytes, walk.offset, seed, self.expected).filter(|later| {
                stop.is_none_or(|stop| later.next() <= stop || later.first == stop)
            });
            if ended || (stop.is_none() && later.is_none() && walk.offset >= proven) {
                return walk;
            }
            walk.damaged = true;
            let nothing = fault.0 == "batch_missing" && later.is_none();
            let named = match limit {
                Some(limit) if nothing && bytes.len() < limit => {
                    ("segment_truncated", "it ends before its end")
                }
                None if nothing && stop.is_some() && !linked => {
                    ("segment_missing", "a segment is missing after it")
                }
                _ => fault,
            };
            let key = (head.first, walk.offset as u64);
            self.damage(key, named.0, &head.file, named.1);
            self.chain = None;
            let end = limit.unwrap_or(bytes.len()).max(walk.offset);
            let Some(later) = later else {
                self.expected = stop.unwrap_or(self.expected);
                walk.offset = walk.offset.max(if stop.is_some() { end } else { walk.offset });
                return walk;
            };
            self.expected = later.first;
            walk.offset = later.offset;
        }
    }

    /// Whether a sound batch is also the one that belongs here.
    fn judge<'b>(
        &self,
        read: Result<BatchView<'b>, BatchFault>,
        stop: Option<Position>,
    ) -> Result<BatchView<'b>, (&'static str, &'static str)> {
        let batch = match read {
            Ok(batch) => batch,
            Err(fault) => return Err(name_of(fault)),
        };
        if batch.first == self.expected && stop.is_some_and(|stop| batch.next() > stop) {
            return Err(("batch_beyond", "it holds records of the next segment"));
        }
        if batch.first < self.expected {
            return Err(("batch_repeated", "a sound batch stands here a second time"));
        }
        if batch.first > self.expected {
            return Err(("batch_position", "a sound batch begins with another position"));
        }
        if self.chain.is_some_and(|chain| chain != batch.previous) {
            return Err(("batch_chain", "it follows another batch than the one before it"));
        }
        Ok(batch)
    }

    fn take(&mut self, head: &Head, incarnation: u32, batch: &BatchView<'_>, walk: &mut Walk) {
        let offset = batch.offset as u64;
        if batch.synced < self.synced || batch.synced >= batch.first {
            let about = format!(
                "it calls position {} durable, after {}; its own begins at {}",
                batch.synced.0, self.synced.0, batch.first.0
            );
            self.wrong("batch_synced", &head.file, (Some(offset), Some(batch.first)), about);
        }
        self.synced = self.synced.max(batch.synced.min(batch.first));
        (self.see)(Seen::Batch(batch));
        let place = Place { file: &head.file, offset };
        let mut position = batch.first;
        for bytes in Records::new(batch.payload) {
            (self.see)(Seen::Record(Entry { position, incarnation, bytes }, place));
            position = position.next();
        }
        if batch.count > 0 {
            walk.batches.insert((batch.first, batch.offset as u32));
            self.scanned.batches += 1;
        } else {
            self.scanned.seals += 1;
        }
        self.scanned.records += u64::from(batch.count);
        self.expected = batch.next();
        self.chain = Some(batch.crc);
        walk.last = batch.next();
        walk.offset = batch.end();
    }

    /// What was not proven durable stands again in the next segment; the old bytes are evidence.
    fn superseded(&mut self, head: &Head, bytes: &[u8], walk: &Walk) {
        let seed = seed(self.install, head.first);
        if let Ok(batch) = decode_batch(bytes, walk.offset, seed)
            && batch.first == self.expected
            && !walk.damaged
        {
            (self.see)(Seen::Superseded(&batch));
        }
    }

    /// An unfinished write at the end was never acknowledged.
    fn torn(&mut self, head: &Head, bytes: &[u8], walk: &Walk) {
        let rest = bytes.get(walk.offset..).unwrap_or_default();
        if let Some(last) = rest.iter().rposition(|byte| *byte != 0) {
            let about = format!("{} bytes of a write that was never acknowledged", last + 1);
            self.note("torn_tail", &head.file, Some(walk.offset as u64), &about);
        }
    }

    fn judge_index(&mut self, head: &Head, index: Option<&Index>, walk: &Walk) {
        let name = index_name(head.first);
        let remedy = "it is made again at the next start";
        let Some(index) = index else {
            // It is never synced: a power cut may leave it so.
            let about = format!("its checksum does not match; {remedy}");
            return self.note("index_torn", &name, None, &about);
        };
        let agrees = index.end as usize == walk.offset
            && index.next == walk.last
            && self.chain == Some(index.chain);
        let strange = index.entries.iter().find(|entry| !walk.batches.contains(entry));
        if !agrees || strange.is_some() {
            let position = strange.map_or(head.first, |entry| entry.0);
            let about = format!("it tells of other batches than there are; {remedy}");
            self.wrong("index_wrong", &name, (None, Some(position)), about);
        }
    }

    fn other_files(&mut self) {
        let names = self.names;
        for (segment, offset) in &names.accepted {
            let file = format!("accepted-{segment:016x}-{offset:016x}");
            let kept = names.firsts.iter().any(|first| first.ordinal() == *segment);
            if kept && !self.forgiven.contains(&(*segment, *offset)) {
                let about = "there is no damage where a loss was accepted".to_owned();
                let position = Position::new(0, *segment);
                self.wrong("accepted_nothing", &file, (Some(*offset), Some(position)), about);
            }
        }
        for file in &names.stale {
            self.note("unfinished_file", file, None, "a file that never got its name; it is void");
        }
        for first in names.indexes.iter().filter(|first| !names.firsts.contains(first)) {
            self.note("index_alone", &index_name(*first), None, "there is no segment to it");
        }
    }
}

fn name_of(fault: BatchFault) -> (&'static str, &'static str) {
    match fault {
        BatchFault::End => ("batch_missing", "there are zeros, or nothing, where a batch must be"),
        BatchFault::Header => ("batch_header", "it does not begin like a batch"),
        BatchFault::Length => ("batch_length", "its length points past the end"),
        BatchFault::Checksum => ("batch_checksum", "its checksum does not match"),
        BatchFault::Records => ("batch_records", "its records do not fill it as counted"),
    }
}
