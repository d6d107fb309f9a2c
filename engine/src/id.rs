//! The ids of everything, and how each is derived. None is drawn here: random ones come from
//! the caller, the others are keyed hashes of what they name.

use std::fmt;
use std::hash::{BuildHasher, Hasher};

use siphasher::sip::SipHasher24;
use siphasher::sip128::{Hasher128, SipHasher24 as SipHasher24x128};

/// Where a record stands in the journal: 16 bits of partition, 48 bits of ordinal. Ordinals
/// start at 1 and are never reused once durable. Zero means "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// No record.
    pub const NONE: Position = Position(0);
    const ORDINAL_BITS: u32 = 48;

    /// The position of an ordinal within a partition.
    pub fn new(partition: u16, ordinal: u64) -> Position {
        debug_assert!(ordinal < 1 << Self::ORDINAL_BITS, "48 bits of ordinal");
        Position(u64::from(partition) << Self::ORDINAL_BITS | ordinal)
    }

    /// The ordinal within its partition.
    pub fn ordinal(self) -> u64 {
        self.0 & ((1 << Self::ORDINAL_BITS) - 1)
    }

    /// The position after this one, in the same partition.
    #[must_use]
    pub fn next(self) -> Position {
        Position(self.0 + 1)
    }
}

/// A browser. 128 random bits minted by the server, or a keyed hash of a device id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VisitorId(pub u128);

/// A person. The keyed hash of (namespace, kind, normal form) of the identity that heads them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeadId(pub u64);

impl fmt::Display for VisitorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "V{:032x}", self.0)
    }
}

impl fmt::Display for LeadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L{:016x}", self.0)
    }
}

impl VisitorId {
    /// Reads the form that `Display` writes.
    pub fn parse(text: &str) -> Option<VisitorId> {
        u128::from_str_radix(lower_hex(text.strip_prefix('V')?, 32)?, 16).ok().map(VisitorId)
    }
}

impl LeadId {
    /// Reads the form that `Display` writes.
    pub fn parse(text: &str) -> Option<LeadId> {
        u64::from_str_radix(lower_hex(text.strip_prefix('L')?, 16)?, 16).ok().map(LeadId)
    }
}

/// The text itself if it is exactly this many lower-case hex digits.
fn lower_hex(text: &str, digits: usize) -> Option<&str> {
    let all_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (text.len() == digits && all_hex).then_some(text)
}

/// A site, by the order in which the journal first named it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteId(pub u16);

/// A scoring rule, by the order in which the journal first named it. Never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub u16);

/// A scoring category, by the order in which the journal first named it. Never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CategoryId(pub u8);

/// A threshold, by the order in which the journal first named it. Never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ThresholdId(pub u8);

/// 1/1,024 of the keys: the unit of snapshot, state hash and timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

impl Slot {
    /// How many slots there are.
    pub const COUNT: usize = 1024;
    const BITS: u32 = 10;
}

impl VisitorId {
    /// The slot: the top bits, which are random or hashed already.
    pub fn slot(self) -> Slot {
        Slot((self.0 >> (128 - Slot::BITS)) as u16)
    }
}

impl LeadId {
    /// The slot: the top bits, which are hashed already.
    pub fn slot(self) -> Slot {
        Slot((self.0 >> (64 - Slot::BITS)) as u16)
    }
}

/// A secret key of this installation. Created once; ids derived with it live as long.
#[derive(Clone, Copy)]
pub struct Key(pub [u8; 16]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(secret)")
    }
}

impl Key {
    /// SipHash-2-4 of the parts, each preceded by its length so that no two lists collide.
    pub fn hash64(&self, parts: &[&[u8]]) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        for part in parts {
            hasher.write(&(part.len() as u64).to_le_bytes());
            hasher.write(part);
        }
        hasher.finish()
    }

    /// SipHash-2-4 with 128 bits of result, over the same encoding as `hash64`.
    pub fn hash128(&self, parts: &[&[u8]]) -> u128 {
        let mut hasher = SipHasher24x128::new_with_key(&self.0);
        for part in parts {
            hasher.write(&(part.len() as u64).to_le_bytes());
            hasher.write(part);
        }
        let hash = hasher.finish128();
        u128::from(hash.h1) << 64 | u128::from(hash.h2)
    }
}

/// The hash of a map whose keys are hashes or random already: the key's own low bits, mixed
/// once, and its slot. Fixed, so that nothing depends on the operating system's chance.
#[derive(Clone, Copy, Debug, Default)]
pub struct FixedHash;

/// See [`FixedHash`].
#[derive(Debug, Default)]
pub struct FixedHasher {
    mixed: u64,
    /// The key's upper word: the slot is its top.
    upper: u64,
}

impl FixedHasher {
    /// DashMap leaves the upper seven bits to the table, and takes its shard from the next.
    const SHARD_FROM: u32 = 64 - 7 - Slot::BITS;
    const SHARD_BITS: u64 = ((1 << Slot::BITS) - 1) << Self::SHARD_FROM;
}

impl BuildHasher for FixedHash {
    type Hasher = FixedHasher;

    fn build_hasher(&self) -> FixedHasher {
        FixedHasher::default()
    }
}

impl Hasher for FixedHasher {
    fn finish(&self) -> u64 {
        let mixed = self.mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = mixed ^ mixed >> 32;
        // A slot lies in one shard: whoever goes through it, as a snapshot does, stays in one
        // table. Reading one of a million visitors takes 0.72 s of processor time, and took 1.17.
        let slot = self.upper >> (64 - Slot::BITS) << Self::SHARD_FROM;
        mixed & !Self::SHARD_BITS | slot
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.mixed = self.mixed.rotate_left(5) ^ word;
        self.upper = word;
    }

    fn write_u128(&mut self, word: u128) {
        self.write_u64(word as u64);
        self.write_u64((word >> 64) as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn a_slot_lies_in_one_shard_and_its_keys_all_over_the_table() {
        for top in [0_u64, 1, 513, 1_023] {
            let ids = (0..1_000_u64).map(|low| LeadId(top << 54 | low));
            let visitors = (0..1_000_u128).map(|low| VisitorId(u128::from(top) << 118 | low));
            let hashes = ids.map(|id| FixedHash.hash_one(id));
            let hashes: Vec<u64> =
                hashes.chain(visitors.map(|id| FixedHash.hash_one(id))).collect();
            assert!(hashes.iter().all(|hash| hash << 7 >> 54 == top), "slot {top}");
            let places: std::collections::BTreeSet<u64> =
                hashes.iter().map(|hash| hash % 4_096).collect();
            assert!(places.len() > 900, "slot {top}: {} places", places.len());
            let tags: std::collections::BTreeSet<u64> =
                hashes.iter().map(|hash| hash >> 57).collect();
            assert!(tags.len() > 100, "slot {top}: {} tags", tags.len());
        }
    }

    #[test]
    fn a_position_keeps_its_partition_and_ordinal() {
        let position = Position::new(3, 77);
        assert_eq!(position.ordinal(), 77);
        assert_eq!(position.0 >> 48, 3);
        assert_eq!(position.next().ordinal(), 78);
    }

    #[test]
    fn ids_read_back_what_they_print() {
        let visitor = VisitorId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
        let lead = LeadId(0x7f3a_9c1e_5b2d_4806);
        assert_eq!(lead.to_string(), "L7f3a9c1e5b2d4806");
        assert_eq!(VisitorId::parse(&visitor.to_string()), Some(visitor));
        assert_eq!(LeadId::parse(&lead.to_string()), Some(lead));
        assert_eq!(LeadId::parse("L+f3a9c1e5b2d4806"), None);
        assert_eq!(LeadId::parse("7f3a9c1e5b2d4806"), None);
    }

    #[test]
    fn parts_that_meet_at_another_place_hash_differently() {
        let key = Key([7; 16]);
        assert_ne!(key.hash64(&[b"ab", b"c"]), key.hash64(&[b"a", b"bc"]));
        assert_ne!(key.hash128(&[b"ab", b"c"]), key.hash128(&[b"a", b"bc"]));
    }
}
