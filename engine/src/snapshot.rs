//! What a snapshot holds of the engine: for each slot the entries of its visitors and leads, and
//! once the catalog. Entries have the form that the journal has, so personal payloads stay
//! sealed; the directory in front of them is rkyv's, and read where it lies.
//!
//! A snapshot is taken while records are pushed, an entry at a time. Each entry holds its last
//! record's position, so whatever is applied again afterwards is passed over where it is known.

use std::fmt;
use std::ops::Range;

use rkyv::rancor;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Serialize};

use crate::catalog::Catalog;
use crate::id::{LeadId, Position, VisitorId};
use crate::lead::{Lead, Unseal};
use crate::record::{Body, Published, Record};
use crate::time::Timestamp;
use crate::visitor::{AtRest, Visitor};
use crate::wire::WireError;

/// Bytes of a slot's entries at most: places in them are 32 bits. Five hundred times what twenty
/// million visitors come to.
pub const SLOT_BYTES_MAX: usize = u32::MAX as usize;

/// Why something is not what a snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotError {
    /// The directory of a slot's entries is not one.
    Directory,
    /// An entry lies outside of its slot's bytes.
    Outside,
    /// An entry cannot be read.
    Entry(WireError),
    /// The catalog holds something else.
    Catalog,
    /// A slot is larger than can be written.
    TooLarge,
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory => f.write_str("the directory of a slot cannot be read"),
            Self::Outside => f.write_str("an entry lies outside of its slot"),
            Self::Entry(error) => write!(f, "an entry cannot be read: {error}"),
            Self::Catalog => f.write_str("the names and versions cannot be read"),
            Self::TooLarge => f.write_str("a slot has more bytes than can be written"),
        }
    }
}

impl From<WireError> for SnapshotError {
    fn from(error: WireError) -> SnapshotError {
        SnapshotError::Entry(error)
    }
}

/// A slot's entries as they lie in the file: where each ends, and their bytes, one behind the
/// other.
#[derive(Archive, Serialize)]
struct Directory {
    visitors: Vec<VisitorPlace>,
    leads: Vec<LeadPlace>,
    bytes: Vec<u8>,
}

#[derive(Archive, Serialize)]
struct VisitorPlace {
    low: u64,
    high: u64,
    end: u32,
}

#[derive(Archive, Serialize)]
struct LeadPlace {
    id: u64,
    end: u32,
}

/// The entries of a slot, being collected. Visitors come before leads.
pub struct SlotWriter {
    directory: Directory,
    latest: Position,
}

/// A slot's entries, written.
pub struct SavedSlot {
    /// The bytes.
    pub bytes: AlignedVec,
    /// The latest record that any entry knows of.
    pub latest: Position,
    /// How many visitors.
    pub visitors: usize,
    /// How many names of leads.
    pub leads: usize,
}

impl Default for SlotWriter {
    fn default() -> SlotWriter {
        let directory = Directory { visitors: Vec::new(), leads: Vec::new(), bytes: Vec::new() };
        SlotWriter { directory, latest: Position::NONE }
    }
}

impl SlotWriter {
    /// Adds a visitor.
    pub fn visitor(&mut self, id: VisitorId, visitor: &AtRest) {
        self.directory.bytes.extend_from_slice(visitor.bytes());
        let end = self.directory.bytes.len() as u32;
        let (low, high) = (id.0 as u64, (id.0 >> 64) as u64);
        self.directory.visitors.push(VisitorPlace { low, high, end });
        self.latest = self.latest.max(visitor.last_position());
    }

    /// Adds a name of a lead.
    pub fn lead(&mut self, id: LeadId, lead: &Lead) {
        lead.save(id, &mut self.directory.bytes);
        let end = self.directory.bytes.len() as u32;
        self.directory.leads.push(LeadPlace { id: id.0, end });
        self.latest = self.latest.max(lead.last_position);
    }

    /// The bytes of all that was added.
    pub fn finish(self) -> Result<SavedSlot, SnapshotError> {
        if self.directory.bytes.len() > SLOT_BYTES_MAX {
            return Err(SnapshotError::TooLarge);
        }
        let bytes = rkyv::to_bytes::<rancor::Error>(&self.directory);
        Ok(SavedSlot {
            bytes: bytes.map_err(|_| SnapshotError::TooLarge)?,
            latest: self.latest,
            visitors: self.directory.visitors.len(),
            leads: self.directory.leads.len(),
        })
    }
}

/// How entries are laid out: what is written. The first form is read for ever.
pub const FORM: u16 = 2;

/// A slot's entries in a file that was read, aligned to 16 bytes and its checksum verified.
pub struct SlotReader<'a> {
    directory: &'a ArchivedDirectory,
    form: u16,
}

impl<'a> SlotReader<'a> {
    /// Checks the directory of entries in a form.
    pub fn open(bytes: &'a [u8], form: u16) -> Result<SlotReader<'a>, SnapshotError> {
        rkyv::access::<ArchivedDirectory, rancor::Failure>(bytes)
            .map(|directory| SlotReader { directory, form })
            .map_err(|_| SnapshotError::Directory)
    }

    /// How many visitors and names of leads there are.
    pub fn counts(&self) -> (usize, usize) {
        (self.directory.visitors.len(), self.directory.leads.len())
    }

    /// Reads every entry.
    pub fn read(
        &self,
        unseal: &Unseal<'_>,
        mut visitor: impl FnMut(VisitorId, AtRest),
        mut lead: impl FnMut(LeadId, Lead),
    ) -> Result<(), SnapshotError> {
        let (mut from, mut room) = (0, Visitor::default());
        for place in self.directory.visitors.iter() {
            let id = u128::from(place.high.to_native()) << 64 | u128::from(place.low.to_native());
            let id = VisitorId(id);
            let entry = self.entry(&mut from, place.end.to_native())?;
            let at_rest = match self.form {
                1 => AtRest::read_1(id, entry),
                _ => AtRest::read(id, entry, &mut room),
            };
            visitor(id, at_rest?);
        }
        for place in self.directory.leads.iter() {
            let id = LeadId(place.id.to_native());
            lead(id, Lead::load(id, self.entry(&mut from, place.end.to_native())?, unseal)?);
        }
        Ok(())
    }

    fn entry(&self, from: &mut usize, end: u32) -> Result<&'a [u8], SnapshotError> {
        let entry: Range<usize> = *from..end as usize;
        *from = entry.end;
        self.directory.bytes.as_slice().get(entry).ok_or(SnapshotError::Outside)
    }
}

/// The catalog as records that make it, each behind its length in four bytes.
pub fn save_catalog(catalog: &Catalog) -> Vec<u8> {
    let versions = catalog.versions.all().iter();
    let latest = catalog.version();
    let published = versions.map(|terms| {
        let text = if terms.version == latest { catalog.text.clone() } else { Vec::new() };
        let (time, version) = (terms.published, terms.version);
        let terms = (**terms).clone();
        let published = Published { names: Vec::new(), terms, text };
        Record { time, version, body: Body::Published(Box::new(published)) }
    });
    let (time, version) = (Timestamp::default(), latest);
    let names = Record { time, version, body: Body::Named(catalog.names()) };
    let mut bytes = Vec::new();
    for record in [names].into_iter().chain(published) {
        let start = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        record.encode(&mut bytes);
        let length = (bytes.len() - start - 4) as u32;
        bytes[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }
    bytes
}

/// Reads what [`save_catalog`] wrote.
pub fn load_catalog(mut bytes: &[u8]) -> Result<Catalog, SnapshotError> {
    let mut catalog = Catalog::default();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let (record, rest) = rest.split_at_checked(length).ok_or(SnapshotError::Catalog)?;
        bytes = rest;
        match Record::decode(record)?.body {
            Body::Named(names) => catalog.evolve_names(&names),
            Body::Published(published) => catalog.evolve_published(&published),
            Body::Hit(_) | Body::Due(_) | Body::Outbox(_) | Body::Step(_) => {
                return Err(SnapshotError::Catalog);
            }
        }
    }
    if bytes.is_empty() { Ok(catalog) } else { Err(SnapshotError::Catalog) }
}
