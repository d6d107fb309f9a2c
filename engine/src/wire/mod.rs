//! The bytes of a record, as FORMAT.md lays them out: little endian, varints, tagged sections.
//! Decoding takes any bytes without panicking; what it does not know it refuses by name. What
//! the first format wrote is read for ever (`first_format.rs`), and written in this one.

mod brief;
mod first_format;
mod part;
mod read;
mod step;
mod terms;
mod write;

use std::fmt;

use crate::hit::Hit;
use crate::id::{LeadId, Position, VisitorId};
use crate::record::{Body, Record};
use crate::time::Timestamp;

use self::brief::{BRIEF_BITS, Brief};
pub use self::read::About;
pub(crate) use self::read::{Read, Reader};
pub(crate) use self::write::Writer;

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// They end inside a field.
    Short,
    /// They go on after the last field of a section or record.
    Long,
    /// A varint of more than 64 bits.
    Overlong,
    /// A kind of record this version does not know.
    UnknownKind(u8),
    /// A section this version does not know.
    UnknownSection(u8),
    /// A number that stands for nothing.
    UnknownNumber(&'static str),
    /// A text that is not UTF-8.
    NotText,
    /// A section that must be there is not.
    Missing(&'static str),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("the record ends inside a field"),
            Self::Long => f.write_str("the record goes on after its last field"),
            Self::Overlong => f.write_str("a number has more than 64 bits"),
            Self::UnknownKind(kind) => write!(f, "records of kind {kind} are of a newer version"),
            Self::UnknownSection(tag) => write!(f, "section {tag} is of a newer version"),
            Self::UnknownNumber(what) => write!(f, "a number stands for no {what}"),
            Self::NotText => f.write_str("a text is not UTF-8"),
            Self::Missing(what) => write!(f, "the {what} section is missing"),
        }
    }
}

const HIT: u8 = 1;
const DUE: u8 = 2;
const PUBLISHED: u8 = 3;
const NAMED: u8 = 4;
const OUTBOX: u8 = 5;
const STEP: u8 = 6;

const SECTION_HIT: u8 = 1;
const SECTION_FIRST: u8 = 2;
/// Of the first format: read, and no longer written.
const SECTION_VISIT_1: u8 = 3;
/// Of the first format: read, and no longer written.
const SECTION_LEAD_1: u8 = 4;
/// Of the first format: read, and no longer written.
const SECTION_PUBLISHED_1: u8 = 5;
const SECTION_NAMES: u8 = 6;
const SECTION_OUTBOX: u8 = 7;
const SECTION_VISIT: u8 = 8;
const SECTION_LEAD: u8 = 9;
const SECTION_PUBLISHED: u8 = 10;
const SECTION_REVIEW: u8 = 11;
const SECTION_STEP: u8 = 12;
const SECTION_VISIT_STEP: u8 = 13;
const SECTION_ASKS: u8 = 14;

/// What the fields of a record are written relative to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Context {
    /// Times are written relative to the record's.
    pub(crate) time: Timestamp,
    /// The version in force.
    pub(crate) version: u32,
    /// The visitor of the hit: what came from it names it by one byte.
    pub(crate) visitor: Option<VisitorId>,
    /// The name under which the part is: what has the same one names it by one byte.
    pub(crate) origin: LeadId,
    /// The last record of an entry: the positions in a snapshot's are differences to it.
    pub(crate) position: Position,
}

impl Record {
    /// Appends the record's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let context = Context { time: self.time, version: self.version, ..Context::default() };
        let mut writer = Writer { out, context };
        let kind = match &self.body {
            Body::Hit(_) => HIT,
            Body::Due(_) => DUE,
            Body::Published(_) => PUBLISHED,
            Body::Named(_) => NAMED,
            Body::Outbox(_) => OUTBOX,
            Body::Step(_) => STEP,
        };
        writer.byte(kind);
        writer.varint(self.time.0);
        writer.varint(u64::from(self.version));
        match &self.body {
            Body::Hit(record) => writer.hit_record(record),
            Body::Due(part) => writer.lead_sections(part),
            Body::Published(published) => {
                writer.section(SECTION_PUBLISHED, |writer| writer.published(published));
            }
            Body::Named(names) => writer.section(SECTION_NAMES, |writer| writer.names(names)),
            Body::Outbox(bytes) => {
                writer.section(SECTION_OUTBOX, |writer| writer.out.extend_from_slice(bytes));
            }
            Body::Step(step) => writer.step_record(step),
        }
    }

    /// Reads a record. Attributes stay sealed: those of claims and statements are empty.
    pub fn decode(bytes: &[u8]) -> Result<Record, WireError> {
        let mut reader = Reader { rest: bytes, context: Context::default() };
        let kind = reader.byte()?;
        let time = Timestamp(reader.varint()?);
        let version = reader.number("version")?;
        reader.context = Context { time, version, ..Context::default() };
        let body = match kind {
            HIT => Body::Hit(Box::new(reader.hit_record()?)),
            DUE => Body::Due(Box::new(reader.due()?)),
            PUBLISHED => Body::Published(Box::new(reader.published_of_any_format()?)),
            NAMED => Body::Named(reader.only(SECTION_NAMES, "names", Reader::names)?),
            OUTBOX => Body::Outbox(reader.only(SECTION_OUTBOX, "outbox", |reader| {
                Ok(std::mem::take(&mut reader.rest).to_vec())
            })?),
            STEP => Body::Step(Box::new(reader.step_record()?)),
            other => return Err(WireError::UnknownKind(other)),
        };
        Ok(Record { time, version, body })
    }
}

/// The first bit of a hit's flags that stands for a text.
const TEXT_BIT: usize = 11;
/// The bit of a claim as the first format wrote it.
const CLAIM_1_BIT: usize = 7;
/// The first bit that the first format did not have.
const LATER_BIT: usize = TEXT_BIT + 7;
/// The bit of the class of browsers.
const AGENT_BIT: usize = LATER_BIT + 3;
/// The first bit that stands for a text that is not written out (`brief.rs`).
const BRIEF_BIT: usize = LATER_BIT + 5;
/// How many bits of a hit's flags mean something.
const FLAG_BITS: usize = BRIEF_BIT + BRIEF_BITS;

/// Which of a hit's parts follow, or are so, in the order of their bits.
fn flags(hit: &Hit, brief: &Brief<'_>) -> u64 {
    let low: [bool; TEXT_BIT] = [
        brief.visitor.is_some(),
        hit.id != 0,
        hit.page != 0,
        hit.engaged_ms != 0,
        hit.scroll != 0,
        hit.excluded.is_some(),
        !hit.properties.is_empty(),
        false,
        hit.authenticated,
        hit.by_server,
        hit.test,
    ];
    let texts: [&str; LATER_BIT - TEXT_BIT] =
        [&hit.event, &hit.path, &hit.url, &hit.title, &hit.referrer, &hit.campaign, brief.network];
    let later: [bool; BRIEF_BIT - LATER_BIT] = [
        !hit.areas.is_empty(),
        hit.via_our_link,
        hit.silent,
        !brief.agent.is_empty(),
        hit.claim.is_some(),
    ];
    let texts = texts.into_iter().map(|text| !text.is_empty());
    let bits = low.into_iter().chain(texts).chain(later).chain(brief.flags());
    bits.enumerate().fold(0, |flags, (bit, set)| flags | u64::from(set) << bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(body: Body) -> About {
        let mut bytes = Vec::new();
        Record { time: Timestamp(300), version: 200, body }.encode(&mut bytes);
        About::of(&bytes)
    }

    #[test]
    fn a_frame_tells_what_a_record_is_about() {
        let lead = About { lead: true, ..About::default() };
        let outbox = About { outbox: true, ..About::default() };
        assert_eq!(about(Body::Due(Box::default())), lead);
        assert_eq!(about(Body::Outbox(vec![1, 2, 3])), outbox);
        assert_eq!(about(Body::Named(Vec::new())), About::default());
        assert_eq!(about(Body::Hit(Box::default())), About::default());
        assert_eq!(about(Body::Step(Box::default())), About { step: true, ..About::default() });
        for bytes in [&[][..], &[1], &[1, 0xff, 0xff], &[1, 0, 0, 9, 0xff]] {
            assert_eq!(About::of(bytes), About::default(), "{bytes:?}");
        }
    }
}
