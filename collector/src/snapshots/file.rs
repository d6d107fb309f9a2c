//! A snapshot's file, as FORMAT.md lays it out: a header, parts with a checksum each, and an end
//! that tells what is in it and hashes all before it. It is written under another name, synced,
//! read back and only then given its own.

use std::fmt;
use std::io;
use std::sync::Arc;

use engine::id::Position;
use engine::snapshot::{FORM, SlotReader, SnapshotError};
use engine::time::Timestamp;
use ring::digest::{Context, SHA256};
use rkyv::util::AlignedVec;

use crate::background::{Pace, Stopped};
use crate::journal::disk::{Disk, DiskFile};

const MAGIC: [u8; 8] = *b"mikomisn";
const BYTE_ORDER: u32 = 0x0102_0304;
const HEADER_BYTES: usize = 64;
const PART_MAGIC: [u8; 4] = *b"mkpt";
const PART_HEADER_BYTES: usize = 32;
/// Parts begin at multiples of this: what rkyv lays out needs it.
const ALIGN: usize = 16;
const END_BYTES: usize = 72;
/// Bytes hashed at a time.
const READ_BYTES: usize = 1 << 20;
/// Written between two syncs. All of a snapshot at its end would stand in the way of the journal's
/// own for as long as the disk needs for it.
const SYNC_BYTES: u64 = 1 << 20;
/// Bytes of the end part with its header and padding.
const END_PART_BYTES: usize = PART_HEADER_BYTES + END_BYTES.next_multiple_of(ALIGN);

/// What the name of one ends with that is not finished.
pub const UNFINISHED: &str = ".new";

/// The file of a snapshot that is kept no longer: the next one is written over it. A file system
/// may tell the disk what was freed (`discard`), and the disk then stands still for as long as that
/// takes: to remove 750 MB made syncs of the journal wait for a quarter of a second.
pub const SPARE: &str = "spare.new";

/// The name of a snapshot that was begun after a record.
pub fn file_name(from: Position) -> String {
    format!("snapshot-{:016x}.snap", from.ordinal())
}

/// The ordinal in a snapshot's name.
pub fn ordinal_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("snapshot-")?.strip_suffix(".snap")?;
    let plain = digits.len() == 16 && digits.bytes().all(|it| b"0123456789abcdef".contains(&it));
    plain.then(|| u64::from_str_radix(digits, 16).ok())?
}

/// The name of the base of a journal whose beginning is gone: of a snapshot that stays for as long
/// as the journal begins where it does.
pub fn base_name(from: Position) -> String {
    format!("base-{:016x}.snap", from.ordinal())
}

/// The ordinal in a base's name.
pub fn base_ordinal_of(name: &str) -> Option<u64> {
    ordinal_of(&format!("snapshot-{}", name.strip_prefix("base-")?))
}

/// What a part holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A slot's visitors and leads.
    Slot = 1,
    /// Names and versions of the rules.
    Catalog = 2,
    /// What the journal's followers know.
    Followers = 3,
    /// What the file holds altogether.
    End = 255,
}

impl Kind {
    fn of(number: u32) -> Option<Kind> {
        [Kind::Slot, Kind::Catalog, Kind::Followers, Kind::End]
            .into_iter()
            .find(|kind| *kind as u32 == number)
    }
}

/// What a snapshot's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The installation.
    pub install: [u8; 16],
    /// The version of the code that applies records.
    pub evolve: u16,
    /// The journal's incarnation then.
    pub incarnation: u32,
    /// The last record pushed when it was begun: what it holds of later ones, it need not.
    pub from: Position,
    /// When it was begun.
    pub created: Timestamp,
}

/// What its end says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// No entry knows of a record after this one; all of them are durable.
    pub until: Position,
    /// The last record that the followers' part knows of.
    pub followed: Position,
    /// Visitors.
    pub visitors: u64,
    /// Names of leads.
    pub leads: u64,
    /// Parts before it.
    pub parts: u64,
}

/// Why a snapshot is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The disk answered with an error.
    Disk(io::ErrorKind),
    /// It has no sound header.
    Header,
    /// It is of a format, evolve version or byte order that this program does not know.
    Unknown,
    /// It is another installation's.
    OtherInstall,
    /// It ends early, or has no end.
    Torn,
    /// The checksum of the part at this offset does not match.
    Checksum(u64),
    /// The hash of the whole does not match.
    Hash,
    /// It has not the parts that its end promises.
    Parts,
    /// It was left: the server stops.
    Stopped,
    /// What is in a part cannot be read.
    Content(SnapshotError),
    /// The followers' part cannot be read.
    Followers(String),
    /// It knows of records that the journal has not.
    Ahead,
    /// The journal begins after what it needs.
    Behind,
    /// It was taken before a loss that was accepted.
    Lost,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(kind) => write!(f, "the disk says: {kind}"),
            Self::Header => f.write_str("it has no sound header"),
            Self::Unknown => f.write_str("a newer program wrote it"),
            Self::OtherInstall => f.write_str("it is another installation's"),
            Self::Torn => f.write_str("it ends early"),
            Self::Checksum(offset) => write!(f, "the part at offset {offset} is damaged"),
            Self::Hash => f.write_str("the hash of the whole does not match"),
            Self::Parts => f.write_str("parts are missing"),
            Self::Stopped => f.write_str("the server stops"),
            Self::Content(error) => error.fmt(f),
            Self::Followers(why) => write!(f, "the followers' part cannot be read: {why}"),
            Self::Ahead => f.write_str("it knows of records that the journal has not"),
            Self::Lost => f.write_str("it was taken before a loss that was accepted"),
            Self::Behind => f.write_str("the journal begins after what it needs"),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Fault::Torn,
            kind => Fault::Disk(kind),
        }
    }
}

impl From<Stopped> for Fault {
    fn from(_: Stopped) -> Fault {
        Fault::Stopped
    }
}

impl From<SnapshotError> for Fault {
    fn from(error: SnapshotError) -> Fault {
        Fault::Content(error)
    }
}

/// Rests, if there is a pace to keep.
pub(super) fn breathe(pace: Option<&Pace<'_>>) -> Result<(), Stopped> {
    pace.map_or(Ok(()), Pace::breathe)
}

fn header(head: &Head) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&FORM.to_le_bytes());
    bytes[10..12].copy_from_slice(&head.evolve.to_le_bytes());
    bytes[12..16].copy_from_slice(&BYTE_ORDER.to_le_bytes());
    bytes[16..32].copy_from_slice(&head.install);
    bytes[32..36].copy_from_slice(&head.incarnation.to_le_bytes());
    bytes[40..48].copy_from_slice(&head.from.0.to_le_bytes());
    bytes[48..56].copy_from_slice(&head.created.0.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[..60]);
    bytes[60..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// What a header says, and the form of the entries.
fn read_header(bytes: &[u8; HEADER_BYTES], evolve: u16) -> Result<(Head, u16), Fault> {
    let u32_at = |at: usize| u32::from_le_bytes(field(bytes, at));
    let u64_at = |at: usize| u64::from_le_bytes(field(bytes, at));
    if bytes[..8] != MAGIC || u32_at(60) != crc32c::crc32c(&bytes[..60]) {
        return Err(Fault::Header);
    }
    let head = Head {
        install: field(bytes, 16),
        evolve: u16::from_le_bytes(field(bytes, 10)),
        incarnation: u32_at(32),
        from: Position(u64_at(40)),
        created: Timestamp(u64_at(48)),
    };
    let form = u16::from_le_bytes(field(bytes, 8));
    let known = (1..=FORM).contains(&form) && u32_at(12) == BYTE_ORDER;
    // Another evolve version may mean something else by the same entries.
    if known && head.evolve == evolve { Ok((head, form)) } else { Err(Fault::Unknown) }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice has N bytes")
}

/// The checksum of a part: of the installation, where it lies, its header, its bytes and the
/// zeros behind them.
fn checksum(install: &[u8; 16], offset: u64, header: &[u8], payload: [&[u8]; 2]) -> u32 {
    let parts = [&offset.to_le_bytes(), &header[..28], payload[0], payload[1]];
    parts.into_iter().fold(crc32c::crc32c(install), crc32c::crc32c_append)
}

/// A snapshot being written.
pub struct Writing<'a> {
    disk: &'a dyn Disk,
    name: String,
    file: Arc<dyn DiskFile>,
    head: Head,
    offset: u64,
    /// Where it is durable.
    synced: u64,
    hash: Context,
    parts: u64,
}

impl<'a> Writing<'a> {
    /// Begins the file, over a spare one if there is one.
    pub fn begin(disk: &'a dyn Disk, head: Head) -> io::Result<Writing<'a>> {
        let name = file_name(head.from);
        let passing = format!("{name}{UNFINISHED}");
        let file = match disk.rename(SPARE, &passing) {
            Ok(()) => {
                // The spare one's name is gone before this file gets the name of a snapshot.
                disk.sync_directory()?;
                disk.open(&passing)?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => disk.create(&passing, 0)?,
            Err(error) => return Err(error),
        };
        Writing::over(disk, head, name, file)
    }

    /// Begins the file of a base.
    pub fn begin_base(disk: &'a dyn Disk, head: Head) -> io::Result<Writing<'a>> {
        let name = base_name(head.from);
        let file = disk.create(&format!("{name}{UNFINISHED}"), 0)?;
        Writing::over(disk, head, name, file)
    }

    fn over(
        disk: &'a dyn Disk,
        head: Head,
        name: String,
        file: Arc<dyn DiskFile>,
    ) -> io::Result<Writing<'a>> {
        let hash = Context::new(&SHA256);
        let mut writing = Writing { disk, name, file, head, offset: 0, synced: 0, hash, parts: 0 };
        writing.append(&header(&head))?;
        Ok(writing)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(bytes, self.offset)?;
        self.hash.update(bytes);
        self.offset += bytes.len() as u64;
        if self.offset - self.synced >= SYNC_BYTES {
            self.file.sync()?;
            self.synced = self.offset;
        }
        Ok(())
    }

    /// Writes a part.
    pub fn part(&mut self, kind: Kind, number: u64, payload: &[u8]) -> io::Result<()> {
        let mut head = [0; PART_HEADER_BYTES];
        head[..4].copy_from_slice(&PART_MAGIC);
        head[4..8].copy_from_slice(&(kind as u32).to_le_bytes());
        head[8..16].copy_from_slice(&(payload.len() as u64).to_le_bytes());
        head[16..24].copy_from_slice(&number.to_le_bytes());
        let padding = &[0; ALIGN][..payload.len().next_multiple_of(ALIGN) - payload.len()];
        let sum = checksum(&self.head.install, self.offset, &head, [payload, padding]);
        head[28..].copy_from_slice(&sum.to_le_bytes());
        self.append(&head)?;
        self.append(payload)?;
        self.append(padding)?;
        self.parts += 1;
        Ok(())
    }

    /// Ends the file, makes it durable, reads it back, and gives it its name. It reads at a pace,
    /// or at full speed.
    pub fn finish(mut self, end: End, pace: Option<&Pace<'_>>) -> Result<u64, Fault> {
        let parts = self.parts;
        let mut bytes = Vec::with_capacity(END_BYTES);
        for word in [end.until.0, end.followed.0, end.visitors, end.leads, parts] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(self.hash.clone().finish().as_ref());
        self.part(Kind::End, 0, &bytes)?;
        if self.file.size()? > self.offset {
            self.file.trim(self.offset)?;
        }
        self.file.sync()?;
        self.file.drop_cache();
        let passing = format!("{}{UNFINISHED}", self.name);
        let snapshot = Snapshot::open(self.disk, &passing, &self.head.install, self.head.evolve)?;
        snapshot.verify(pace)?;
        self.disk.rename(&passing, &self.name)?;
        self.disk.sync_directory()?;
        Ok(self.offset)
    }
}

/// A snapshot whose header, end and list of parts are sound.
pub struct Snapshot {
    file: Arc<dyn DiskFile>,
    /// Its header.
    pub head: Head,
    /// The form of its slots' entries.
    pub form: u16,
    /// Its end.
    pub end: End,
    /// Its bytes.
    pub bytes: u64,
    hash: [u8; 32],
    parts: Vec<Part>,
}

/// Where a part lies.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// What it holds.
    pub kind: Kind,
    /// Which slot it is, if it is one.
    pub number: u64,
    offset: u64,
    length: u64,
}

impl Snapshot {
    /// Opens a file and reads its header, its end and where its parts lie.
    pub fn open(
        disk: &dyn Disk,
        name: &str,
        install: &[u8; 16],
        evolve: u16,
    ) -> Result<Snapshot, Fault> {
        let file = disk.open(name)?;
        let bytes = file.size()?;
        let mut head = [0; HEADER_BYTES];
        file.read_at(&mut head, 0)?;
        let (head, form) = read_header(&head, evolve)?;
        if head.install != *install {
            return Err(Fault::OtherInstall);
        }
        let none = End::default();
        let (hash, parts) = ([0; 32], Vec::new());
        let mut snapshot = Snapshot { file, head, form, end: none, bytes, hash, parts };
        snapshot.find_parts()?;
        snapshot.read_end()?;
        Ok(snapshot)
    }

    fn find_parts(&mut self) -> Result<(), Fault> {
        let mut offset = HEADER_BYTES as u64;
        while offset < self.bytes {
            let mut head = [0; PART_HEADER_BYTES];
            self.file.read_at(&mut head, offset)?;
            let length = u64::from_le_bytes(field(&head, 8));
            let kind = Kind::of(u32::from_le_bytes(field(&head, 4)));
            let (Some(kind), true) = (kind, head[..4] == PART_MAGIC) else {
                return Err(Fault::Checksum(offset));
            };
            let number = u64::from_le_bytes(field(&head, 16));
            self.parts.push(Part { kind, number, offset, length });
            let end = offset.checked_add(PART_HEADER_BYTES as u64);
            let end = end.and_then(|end| end.checked_add(length.checked_next_multiple_of(16)?));
            offset = end.filter(|end| *end <= self.bytes).ok_or(Fault::Torn)?;
        }
        Ok(())
    }

    fn read_end(&mut self) -> Result<(), Fault> {
        let last = self.parts.pop().filter(|part| part.kind == Kind::End).ok_or(Fault::Torn)?;
        let payload = self.read(&last)?;
        if payload.len() != END_BYTES {
            return Err(Fault::Parts);
        }
        let word = |place: usize| u64::from_le_bytes(field(&payload, place * 8));
        self.end = End {
            until: Position(word(0)),
            followed: Position(word(1)),
            visitors: word(2),
            leads: word(3),
            parts: word(4),
        };
        self.hash = field(&payload, 40);
        let has_end = self.parts.iter().any(|part| part.kind == Kind::End);
        if has_end || self.parts.len() as u64 != self.end.parts {
            return Err(Fault::Parts);
        }
        Ok(())
    }

    /// Its parts, but for the end.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Has the disk begin with all of it, for whoever reads it part by part.
    pub fn read_ahead(&self) {
        self.file.read_ahead();
    }

    /// A part's bytes, aligned, its checksum verified.
    pub fn read(&self, part: &Part) -> Result<AlignedVec, Fault> {
        let mut head = [0; PART_HEADER_BYTES];
        self.file.read_at(&mut head, part.offset)?;
        // `find_parts` held the length against the file's.
        let padded = (part.length as usize).next_multiple_of(ALIGN);
        let mut payload = AlignedVec::with_capacity(padded);
        payload.resize(padded, 0);
        self.file.read_at(&mut payload, part.offset + PART_HEADER_BYTES as u64)?;
        let sum = checksum(&self.head.install, part.offset, &head, [&payload, &[]]);
        if u32::from_le_bytes(field(&head, 28)) != sum {
            return Err(Fault::Checksum(part.offset));
        }
        payload.resize(part.length as usize, 0);
        Ok(payload)
    }

    /// The parts of a kind, each with its bytes.
    pub fn only(&self, kind: Kind) -> Result<Option<AlignedVec>, Fault> {
        let part = self.parts.iter().find(|part| part.kind == kind);
        part.map(|part| self.read(part)).transpose()
    }

    /// Reads all of it: every checksum, the hash of the whole, and the directory of each slot. At a
    /// pace, or at full speed.
    pub fn verify(&self, pace: Option<&Pace<'_>>) -> Result<(), Fault> {
        let (mut visitors, mut leads) = (0, 0);
        for part in &self.parts {
            breathe(pace)?;
            let payload = self.read(part)?;
            if part.kind == Kind::Slot {
                let counts = SlotReader::open(&payload, self.form)?.counts();
                visitors += counts.0 as u64;
                leads += counts.1 as u64;
            }
        }
        if (visitors, leads) != (self.end.visitors, self.end.leads) {
            return Err(Fault::Parts);
        }
        let mut hash = Context::new(&SHA256);
        let mut buffer = vec![0; READ_BYTES];
        let mut left = self.bytes - END_PART_BYTES as u64;
        let mut offset = 0;
        while left > 0 {
            breathe(pace)?;
            let now = left.min(READ_BYTES as u64) as usize;
            self.file.read_at(&mut buffer[..now], offset)?;
            hash.update(&buffer[..now]);
            offset += now as u64;
            left -= now as u64;
        }
        let same = hash.finish().as_ref() == self.hash;
        same.then_some(()).ok_or(Fault::Hash)
    }
}
