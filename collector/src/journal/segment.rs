//! The bytes of the journal: segment headers, batches, seal batches and index files.
//!
//! Everything here is a function of bytes, without files, so that every flip and every cut can be
//! tried. FORMAT.md says the same in words; the two change together.

use std::sync::Arc;

use crc32c::{crc32c, crc32c_append};
use engine::id::Position;

/// Bytes of a segment's header.
pub const HEADER_BYTES: usize = 64;
/// Bytes of a batch's header.
pub const BATCH_HEADER_BYTES: usize = 40;
/// Payload bytes at which a group is closed. Larger ones make one commit slow without making many
/// commits faster; a single bigger record gets a group of its own.
pub const GROUP_BYTES_MAX: usize = 512 * 1024;
/// Bytes a varint length may take.
pub const LENGTH_BYTES_MAX: usize = 5;
/// The only segment format this program writes and reads.
pub const FORMAT: u16 = 1;
/// Payload and header bytes between two entries of a sparse index, about.
pub const INDEX_STEP_BYTES: u32 = 64 * 1024;

const MAGIC: [u8; 8] = *b"mikomijr";
const BYTE_ORDER: u32 = 0x0102_0304;
const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"mkbt");
const FLAG_SEAL: u16 = 1;
const INDEX_MAGIC: [u8; 8] = *b"mikomiix";
const INDEX_HEADER_BYTES: usize = 32;
const INDEX_ENTRY_BYTES: usize = 12;

/// What the first 64 bytes of a segment say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Version of the code that applies the records.
    pub evolve: u16,
    /// The installation that wrote the segment.
    pub install: [u8; 16],
    /// Counts the times this data was started anew from a copy.
    pub incarnation: u32,
    /// Bytes from the start of the file that were durable before the file got its name.
    pub proven: u32,
    /// Position of the first record.
    pub first: Position,
    /// Wall clock at creation, milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Valid bytes of the segment before this one; what stands after them there is void. 0 when
    /// there is none.
    pub previous: u32,
}

/// Why the first 64 bytes are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// The file is shorter than a header.
    Short,
    /// The magic is another.
    Magic,
    /// The checksum does not match.
    Checksum,
    /// A sound header of a format this program does not know.
    Format(u16),
    /// A sound header written with another byte order.
    ByteOrder,
}

impl Header {
    /// The 64 bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&FORMAT.to_le_bytes());
        out[10..12].copy_from_slice(&self.evolve.to_le_bytes());
        out[12..16].copy_from_slice(&BYTE_ORDER.to_le_bytes());
        out[16..32].copy_from_slice(&self.install);
        out[32..36].copy_from_slice(&self.incarnation.to_le_bytes());
        out[36..40].copy_from_slice(&self.proven.to_le_bytes());
        out[40..48].copy_from_slice(&self.first.0.to_le_bytes());
        out[48..56].copy_from_slice(&self.created_ms.to_le_bytes());
        out[56..60].copy_from_slice(&self.previous.to_le_bytes());
        let crc = crc32c(&out[..60]);
        out[60..64].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header. The checksum is judged before the version: every format keeps magic,
    /// version and checksum where they are, so a flipped bit is not taken for a newer program.
    pub fn decode(bytes: &[u8]) -> Result<Header, HeaderFault> {
        if bytes.len() < HEADER_BYTES {
            return Err(HeaderFault::Short);
        }
        if bytes[0..8] != MAGIC {
            return Err(HeaderFault::Magic);
        }
        if crc32c(&bytes[..60]) != u32_at(bytes, 60) {
            return Err(HeaderFault::Checksum);
        }
        if u16_at(bytes, 8) != FORMAT {
            return Err(HeaderFault::Format(u16_at(bytes, 8)));
        }
        if u32_at(bytes, 12) != BYTE_ORDER {
            return Err(HeaderFault::ByteOrder);
        }
        let mut install = [0; 16];
        install.copy_from_slice(&bytes[16..32]);
        Ok(Header {
            evolve: u16_at(bytes, 10),
            install,
            incarnation: u32_at(bytes, 32),
            proven: u32_at(bytes, 36),
            first: Position(u64_at(bytes, 40)),
            created_ms: u64_at(bytes, 48),
            previous: u32_at(bytes, 56),
        })
    }

    /// Where the checksums of this segment's batches begin.
    pub fn seed(&self) -> u32 {
        seed(&self.install, self.first)
    }
}

/// The checksum over installation and first position, from which every batch of the segment goes
/// on. Bytes of another segment, or a record made up to look like a batch, do not match by it. It
/// needs no header, so a damaged header costs no records.
pub fn seed(install: &[u8; 16], first: Position) -> u32 {
    crc32c_append(crc32c(install), &first.0.to_le_bytes())
}

/// `segment-<first ordinal, 16 hex digits>.log`
pub fn file_name(first: Position) -> String {
    format!("segment-{:016x}.log", first.ordinal())
}

/// `segment-<first ordinal, 16 hex digits>.idx`
pub fn index_name(first: Position) -> String {
    format!("segment-{:016x}.idx", first.ordinal())
}

/// The position before this one.
pub fn before(position: Position) -> Position {
    Position(position.0.saturating_sub(1))
}

/// Records gathered for one commit. The batch's header has its place at the front from the start,
/// so that a commit is one write of one buffer.
#[derive(Debug)]
pub struct Group {
    first: Position,
    count: u32,
    seal: bool,
    bytes: Vec<u8>,
}

impl Group {
    /// An empty group whose first record will have this position. `spare` is a used buffer.
    pub fn new(first: Position, mut spare: Vec<u8>) -> Group {
        spare.clear();
        spare.resize(BATCH_HEADER_BYTES, 0);
        Group { first, count: 0, seal: false, bytes: spare }
    }

    /// A batch without records, which only proves that everything before it is durable.
    pub fn seal(next: Position) -> Group {
        Group { seal: true, ..Group::new(next, Vec::new()) }
    }

    /// Whether a record of this many bytes may join.
    pub fn fits(&self, bytes: usize) -> bool {
        self.count == 0 || self.payload_bytes() + record_bytes(bytes) <= GROUP_BYTES_MAX
    }

    /// Appends a record and says which position it got.
    pub fn push(&mut self, record: &[u8]) -> Position {
        put_length(&mut self.bytes, record.len());
        self.bytes.extend_from_slice(record);
        let position = Position(self.first.0 + u64::from(self.count));
        self.count += 1;
        position
    }

    /// Position of the first record.
    pub fn first(&self) -> Position {
        self.first
    }

    /// Position after the last record.
    pub fn next(&self) -> Position {
        Position(self.first.0 + u64::from(self.count))
    }

    /// Bytes of lengths and records.
    pub fn payload_bytes(&self) -> usize {
        self.bytes.len() - BATCH_HEADER_BYTES
    }

    /// Bytes the batch will take in the file.
    pub fn batch_bytes(&self) -> usize {
        self.bytes.len().next_multiple_of(8)
    }

    /// Closes the group: header, padding, checksum.
    pub fn finish(mut self, seed: u32, synced: Position, previous: u32) -> Batch {
        let payload = self.payload_bytes();
        self.bytes.resize(self.batch_bytes(), 0);
        let head = &mut self.bytes[..BATCH_HEADER_BYTES];
        head[0..4].copy_from_slice(&BATCH_MAGIC.to_le_bytes());
        head[4..8].copy_from_slice(&(payload as u32).to_le_bytes());
        head[12..16].copy_from_slice(&previous.to_le_bytes());
        head[16..24].copy_from_slice(&self.first.0.to_le_bytes());
        head[24..32].copy_from_slice(&synced.0.to_le_bytes());
        head[32..36].copy_from_slice(&self.count.to_le_bytes());
        head[36..38].copy_from_slice(&(if self.seal { FLAG_SEAL } else { 0 }).to_le_bytes());
        let crc = batch_crc(seed, &self.bytes);
        self.bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        Batch { first: self.first, count: self.count, payload, crc, bytes: self.bytes }
    }
}

/// A closed batch as it stands, or will stand, in a segment.
#[derive(Debug)]
pub struct Batch {
    first: Position,
    count: u32,
    payload: usize,
    crc: u32,
    bytes: Vec<u8>,
}

impl Batch {
    /// Position of the first record.
    pub fn first(&self) -> Position {
        self.first
    }

    /// Position after the last record.
    pub fn next(&self) -> Position {
        Position(self.first.0 + u64::from(self.count))
    }

    /// Whether it holds no records.
    pub fn is_seal(&self) -> bool {
        self.count == 0
    }

    /// The checksum the next batch is chained to.
    pub fn crc(&self) -> u32 {
        self.crc
    }

    /// The bytes to write, a multiple of eight.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of lengths and records.
    pub fn payload_bytes(&self) -> usize {
        self.payload
    }

    /// The lengths and records.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + self.payload]
    }

    /// Bytes of memory the batch takes, used or not.
    pub fn buffer_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Gives the buffer back for another group.
    pub fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }

    /// Owns what was read: `bytes` is exactly one batch.
    pub fn read(bytes: Vec<u8>, seed: u32) -> Result<Arc<Batch>, BatchFault> {
        let view = decode_batch(&bytes, 0, seed)?;
        let (first, count, payload, crc) = (view.first, view.count, view.payload.len(), view.crc);
        Ok(Arc::new(Batch { first, count, payload, crc, bytes }))
    }
}

/// A batch found sound among a segment's bytes.
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a> {
    /// Offset in the file.
    pub offset: usize,
    /// Bytes taken in the file.
    pub size: usize,
    /// Position of the first record.
    pub first: Position,
    /// Highest position durable when this batch was written.
    pub synced: Position,
    /// Number of records.
    pub count: u32,
    /// Checksum of the batch before.
    pub previous: u32,
    /// Checksum of this batch.
    pub crc: u32,
    /// The lengths and records.
    pub payload: &'a [u8],
}

impl BatchView<'_> {
    /// Position after the last record.
    pub fn next(&self) -> Position {
        Position(self.first.0 + u64::from(self.count))
    }

    /// Offset after the batch.
    pub fn end(&self) -> usize {
        self.offset + self.size
    }
}

/// Why there is no batch at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchFault {
    /// The file ends here, or only zeros follow in the place of a header.
    End,
    /// The header does not begin like one, or has bits this format does not use.
    Header,
    /// The length points past the end.
    Length,
    /// The checksum does not match.
    Checksum,
    /// The checksum matches, but the records do not fill the payload as counted.
    Records,
}

/// The frame of a batch, before its checksum was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Position of the first record.
    pub first: Position,
    /// Position after the last record.
    pub next: Position,
    /// Bytes taken in the file.
    pub size: usize,
    payload: usize,
}

/// Reads the header of a batch at the front of `bytes`; `room` is what the file has from there.
pub fn decode_frame(bytes: &[u8], room: usize) -> Result<Frame, BatchFault> {
    let head = &bytes[..bytes.len().min(BATCH_HEADER_BYTES)];
    if head.iter().all(|byte| *byte == 0) {
        return Err(BatchFault::End);
    }
    if head.len() < BATCH_HEADER_BYTES {
        return Err(BatchFault::Length);
    }
    let (payload, count, flags) = (u32_at(head, 4), u32_at(head, 32), u16_at(head, 36));
    let seal = flags == FLAG_SEAL && count == 0 && payload == 0;
    let full = flags == 0 && count > 0 && count <= payload;
    if u32_at(head, 0) != BATCH_MAGIC || u16_at(head, 38) != 0 || !(seal || full) {
        return Err(BatchFault::Header);
    }
    let first = Position(u64_at(head, 16));
    let next = first.0.checked_add(u64::from(count));
    let next = Position(next.ok_or(BatchFault::Header)?);
    let payload = payload as usize;
    let size = (BATCH_HEADER_BYTES + payload).next_multiple_of(8);
    if size > room {
        return Err(BatchFault::Length);
    }
    Ok(Frame { first, next, size, payload })
}

/// Reads and verifies the batch at `offset`.
pub fn decode_batch(bytes: &[u8], offset: usize, seed: u32) -> Result<BatchView<'_>, BatchFault> {
    let rest = bytes.get(offset..).unwrap_or_default();
    let frame = decode_frame(rest, rest.len())?;
    let whole = &rest[..frame.size];
    let crc = u32_at(whole, 8);
    if batch_crc(seed, whole) != crc {
        return Err(BatchFault::Checksum);
    }
    let view = BatchView {
        offset,
        size: frame.size,
        first: frame.first,
        synced: Position(u64_at(whole, 24)),
        count: u32_at(whole, 32),
        previous: u32_at(whole, 12),
        crc,
        payload: &whole[BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + frame.payload],
    };
    let mut records = Records::new(view.payload);
    let counted = records.by_ref().count();
    if counted != view.count as usize || !records.is_spent() {
        return Err(BatchFault::Records);
    }
    Ok(view)
}

/// The first sound batch at or after `from`, on any multiple of eight, that a writer past
/// `expected` could have left: its records are not older, and it calls everything before
/// `expected` durable. Such a batch was written only after whatever stood before it was synced.
pub fn find_later(
    bytes: &[u8],
    from: usize,
    seed: u32,
    expected: Position,
) -> Option<BatchView<'_>> {
    let mut offset = from.next_multiple_of(8);
    while offset + BATCH_HEADER_BYTES <= bytes.len() {
        if u32_at(bytes, offset) == BATCH_MAGIC
            && let Ok(batch) = decode_batch(bytes, offset, seed)
            && batch.first >= expected
            && batch.synced.next() >= expected
        {
            return Some(batch);
        }
        offset += 8;
    }
    None
}

/// The records of a payload, in order. Ends early at a malformed length; see `is_spent`.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    /// Over a payload.
    pub fn new(payload: &'a [u8]) -> Records<'a> {
        Records { rest: payload }
    }

    /// Whether every byte belonged to a record.
    pub fn is_spent(&self) -> bool {
        self.rest.is_empty()
    }

    /// The bytes not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, taken) = take_length(self.rest)?;
        let record = self.rest.get(taken..taken.checked_add(length)?)?;
        self.rest = &self.rest[taken + length..];
        Some(record)
    }
}

/// Bytes a record takes in a payload.
pub fn record_bytes(record: usize) -> usize {
    let bits = (usize::BITS - record.leading_zeros()).max(1) as usize;
    bits.div_ceil(7) + record
}

fn put_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push((length as u8) | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

fn take_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0u64;
    for (at, byte) in bytes.iter().take(LENGTH_BYTES_MAX).enumerate() {
        length |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            // The shortest form only: one record has one encoding.
            let shortest = at == 0 || *byte != 0;
            return shortest.then_some((length as usize, at + 1));
        }
    }
    None
}

fn batch_crc(seed: u32, batch: &[u8]) -> u32 {
    crc32c_append(crc32c_append(seed, &batch[..8]), &batch[12..])
}

/// Where batches begin within one segment, one entry about every 64 KiB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// Valid bytes of the segment.
    pub end: u32,
    /// Checksum of its last batch.
    pub chain: u32,
    /// Position after its last record.
    pub next: Position,
    /// First position and offset of a batch, ascending.
    pub entries: Vec<(Position, u32)>,
}

impl Index {
    /// Notes a batch that holds records, when it is far enough from the last noted one.
    pub fn note(&mut self, first: Position, offset: u32) {
        let far = |(_, last): &(Position, u32)| offset.saturating_sub(*last) >= INDEX_STEP_BYTES;
        if self.entries.last().is_none_or(far) {
            self.entries.push((first, offset));
        }
    }

    /// Where to begin looking for a position.
    pub fn start(&self, position: Position) -> u32 {
        let after = self.entries.partition_point(|(first, _)| *first <= position);
        after.checked_sub(1).map_or(HEADER_BYTES as u32, |at| self.entries[at].1)
    }

    /// The bytes of an index file.
    pub fn encode(&self) -> Vec<u8> {
        let mut out =
            Vec::with_capacity(INDEX_HEADER_BYTES + INDEX_ENTRY_BYTES * self.entries.len() + 4);
        out.extend_from_slice(&INDEX_MAGIC);
        out.extend_from_slice(&u32::from(FORMAT).to_le_bytes());
        out.extend_from_slice(&self.end.to_le_bytes());
        out.extend_from_slice(&self.chain.to_le_bytes());
        out.extend_from_slice(&(self.entries.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.next.0.to_le_bytes());
        for (first, offset) in &self.entries {
            out.extend_from_slice(&first.0.to_le_bytes());
            out.extend_from_slice(&offset.to_le_bytes());
        }
        let crc = crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads an index file; nothing when it is not exactly one. An index is never needed: it is
    /// made again from its segment.
    pub fn decode(bytes: &[u8]) -> Option<Index> {
        let (body, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        if body.len() < INDEX_HEADER_BYTES
            || body[..8] != INDEX_MAGIC
            || u32_at(body, 8) != u32::from(FORMAT)
            || crc32c(body) != u32_at(crc, 0)
        {
            return None;
        }
        let (entries, rest) = body[INDEX_HEADER_BYTES..].as_chunks::<INDEX_ENTRY_BYTES>();
        if !rest.is_empty() || entries.len() != u32_at(body, 20) as usize {
            return None;
        }
        Some(Index {
            end: u32_at(body, 12),
            chain: u32_at(body, 16),
            next: Position(u64_at(body, 24)),
            entries: entries
                .iter()
                .map(|entry| (Position(u64_at(entry, 0)), u32_at(entry, 8)))
                .collect(),
        })
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSTALL: [u8; 16] = *b"an installation!";

    fn header() -> Header {
        Header {
            evolve: 7,
            install: INSTALL,
            incarnation: 3,
            proven: 64,
            first: Position::new(0, 9),
            created_ms: 1_700_000_000_000,
            previous: 4_096,
        }
    }

    fn batch(records: &[&[u8]]) -> Batch {
        let mut group = Group::new(Position::new(0, 9), Vec::new());
        for record in records {
            group.push(record);
        }
        group.finish(header().seed(), Position::new(0, 8), 0xabcd)
    }

    #[test]
    fn a_header_reads_back_as_written() {
        assert_eq!(Header::decode(&header().encode()), Ok(header()));
    }

    #[test]
    fn the_checksum_is_crc32c_by_its_published_check_value() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    /// A string of hex digits.
    fn hex(bytes: &[u8]) -> String {
        use std::fmt::Write;
        bytes.iter().fold(String::new(), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        })
    }

    #[test]
    fn header_and_batch_are_byte_for_byte_what_another_program_made_from_the_format_page() {
        let golden_header = "\
            6d696b6f6d696a720100070004030201616e20696e7374616c6c6174696f6e21\
            030000004000000009000000000000000068e5cf8b0100000010000042ab38ce\
            ";
        let golden_batch = "\
            6d6b62740a000000f200145fcdab000009000000000000000800000000000000\
            0200000000000000036f6e65057468726565000000000000\
            ";
        assert_eq!(hex(&header().encode()), golden_header);
        assert_eq!(hex(batch(&[b"one", b"three"]).bytes()), golden_batch);
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_detected() {
        let sound = header().encode();
        for bit in 0..sound.len() * 8 {
            let mut bytes = sound;
            bytes[bit / 8] ^= 1 << (bit % 8);
            let fault = Header::decode(&bytes).expect_err("a flip must not pass");
            assert!(
                matches!(fault, HeaderFault::Magic | HeaderFault::Checksum),
                "bit {bit}: {fault:?}"
            );
        }
    }

    #[test]
    fn a_sound_header_of_a_newer_format_is_named() {
        let mut bytes = header().encode();
        bytes[8] = 9;
        let crc = crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Header::decode(&bytes), Err(HeaderFault::Format(9)));
    }

    #[test]
    fn a_batch_reads_back_its_records_in_order() {
        let long = vec![5u8; 300];
        let batch = batch(&[b"one", b"", &long]);
        let view = decode_batch(batch.bytes(), 0, header().seed()).unwrap();
        assert_eq!((view.first.ordinal(), view.next().ordinal()), (9, 12));
        assert_eq!((view.synced.ordinal(), view.previous), (8, 0xabcd));
        let records: Vec<&[u8]> = Records::new(view.payload).collect();
        assert_eq!(records, [b"one".as_slice(), b"", &long]);
    }

    #[test]
    fn every_flipped_bit_of_a_batch_is_detected_padding_included() {
        let sound = batch(&[b"one", b"three"]);
        for bit in 0..sound.bytes().len() * 8 {
            let mut bytes = sound.bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_batch(&bytes, 0, header().seed()).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_batch_of_another_segment_is_not_taken_for_one_of_this() {
        let other = seed(&INSTALL, Position::new(0, 10));
        let fault = decode_batch(batch(&[b"x"]).bytes(), 0, other).expect_err("another seed");
        assert_eq!(fault, BatchFault::Checksum);
    }

    #[test]
    fn a_sound_checksum_over_miscounted_records_is_refused() {
        let mut bytes = batch(&[b"one", b"two"]).into_buffer();
        bytes[32] = 1;
        let crc = batch_crc(header().seed(), &bytes);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        let fault = decode_batch(&bytes, 0, header().seed()).expect_err("one record too many");
        assert_eq!(fault, BatchFault::Records);
    }

    #[test]
    fn record_bytes_agrees_with_what_is_written() {
        for length in [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152] {
            let mut group = Group::new(Position::new(0, 1), Vec::new());
            group.push(&vec![0; length]);
            assert_eq!(group.payload_bytes(), record_bytes(length), "{length}");
        }
    }

    #[test]
    fn a_length_written_longer_than_needed_is_refused() {
        assert_eq!(take_length(&[0x80, 0x00]), None);
        assert_eq!(take_length(&[0xff; 9]), None);
        assert_eq!(take_length(&[0x80, 0x01]), Some((128, 2)));
    }

    #[test]
    fn every_flip_and_every_cut_of_an_index_is_detected() {
        let mut index =
            Index { end: 900_000, chain: 5, next: Position::new(0, 77), entries: Vec::new() };
        index.note(Position::new(0, 1), 64);
        index.note(Position::new(0, 3), 1_000);
        index.note(Position::new(0, 9), 70_000);
        assert_eq!(index.entries.len(), 2, "the second is too near");
        let sound = index.encode();
        assert_eq!(Index::decode(&sound), Some(index));
        for bit in 0..sound.len() * 8 {
            let mut bytes = sound.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Index::decode(&bytes), None, "bit {bit}");
            assert_eq!(Index::decode(&sound[..bit / 8]), None, "cut {}", bit / 8);
        }
    }
}
