//! The bytes of a record, as FORMAT.md lays them out: little endian, varints, tagged sections.
//! Decoding takes any bytes without panicking; what it does not know it refuses by name.

use std::fmt;

use crate::decay::HalfLife;
use crate::grade::Grade;
use crate::hit::{Attributes, Claim, Exclusion, Hit, HitKind};
use crate::id::{CategoryId, LeadId, Position, RuleId, SiteId, ThresholdId, VisitorId};
use crate::identity::{Assurance, IdentityKind};
use crate::ledger::{Cut, Row, Source};
use crate::record::{
    Because, Body, Bound, Crossed, FirstHit, Fold, History, HitRecord, LeadPart, LinkPart, Name,
    NameKind, Published, PublishedCategory, Reason, Record, Regrant, Seen, Told, VisitPart,
};
use crate::rule::Points;
use crate::stage::Stage;
use crate::threshold::{Crossing, Direction, Gate};
use crate::time::Timestamp;

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

const SECTION_HIT: u8 = 1;
const SECTION_FIRST: u8 = 2;
const SECTION_VISIT: u8 = 3;
const SECTION_LEAD: u8 = 4;
const SECTION_PUBLISHED: u8 = 5;
const SECTION_NAMES: u8 = 6;
const SECTION_OUTBOX: u8 = 7;

impl Record {
    /// Appends the record's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut writer = Writer { out, time: self.time, visitor: None };
        let kind = match &self.body {
            Body::Hit(_) => HIT,
            Body::Due(_) => DUE,
            Body::Published(_) => PUBLISHED,
            Body::Named(_) => NAMED,
            Body::Outbox(_) => OUTBOX,
        };
        writer.byte(kind);
        writer.varint(self.time.0);
        writer.varint(u64::from(self.version));
        match &self.body {
            Body::Hit(record) => writer.hit_record(record),
            Body::Due(part) => writer.section(SECTION_LEAD, |writer| writer.lead(part)),
            Body::Published(published) => {
                writer.section(SECTION_PUBLISHED, |writer| writer.published(published));
            }
            Body::Named(names) => writer.section(SECTION_NAMES, |writer| writer.names(names)),
            Body::Outbox(bytes) => {
                writer.section(SECTION_OUTBOX, |writer| writer.out.extend_from_slice(bytes));
            }
        }
    }

    /// Reads a record. Attributes stay sealed: the claim's are empty.
    pub fn decode(bytes: &[u8]) -> Result<Record, WireError> {
        let mut reader = Reader { rest: bytes, time: Timestamp(0), visitor: None };
        let kind = reader.byte()?;
        reader.time = Timestamp(reader.varint()?);
        let version = reader.number("version")?;
        let time = reader.time;
        let body = match kind {
            HIT => Body::Hit(Box::new(reader.hit_record()?)),
            DUE => Body::Due(Box::new(reader.only(SECTION_LEAD, "lead", Reader::lead)?)),
            PUBLISHED => {
                Body::Published(reader.only(SECTION_PUBLISHED, "published", Reader::published)?)
            }
            NAMED => Body::Named(reader.only(SECTION_NAMES, "names", Reader::names)?),
            OUTBOX => Body::Outbox(reader.only(SECTION_OUTBOX, "outbox", |reader| {
                Ok(std::mem::take(&mut reader.rest).to_vec())
            })?),
            other => return Err(WireError::UnknownKind(other)),
        };
        Ok(Record { time, version, body })
    }
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// Times are written relative to the record's.
    time: Timestamp,
    /// The visitor of the hit: rows that came from it name it by one byte.
    visitor: Option<VisitorId>,
}

impl Writer<'_> {
    fn byte(&mut self, byte: u8) {
        self.out.push(byte);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    fn signed(&mut self, value: i64) {
        self.varint((value << 1 ^ value >> 63) as u64);
    }

    /// How long before the record's time; negative for after.
    fn time(&mut self, time: Timestamp) {
        self.signed(self.time.0.wrapping_sub(time.0) as i64);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    fn list<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Self, &T)) {
        self.varint(items.len() as u64);
        for item in items {
            write(self, item);
        }
    }

    fn option<T>(&mut self, item: Option<&T>, write: impl FnOnce(&mut Self, &T)) {
        self.byte(u8::from(item.is_some()));
        if let Some(item) = item {
            write(self, item);
        }
    }

    fn section(&mut self, tag: u8, write: impl FnOnce(&mut Writer<'_>)) {
        let mut payload = Vec::with_capacity(256);
        write(&mut Writer { out: &mut payload, time: self.time, visitor: self.visitor });
        self.byte(tag);
        self.bytes(&payload);
    }

    fn hit_record(&mut self, record: &HitRecord) {
        self.visitor = record.hit.visitor;
        self.section(SECTION_HIT, |writer| writer.hit(&record.hit));
        if let Some(first) = &record.first {
            self.section(SECTION_FIRST, |writer| {
                writer.varint(first.position.0);
                writer.hit(&first.hit);
            });
        }
        if let Some(visit) = &record.visit {
            self.section(SECTION_VISIT, |writer| writer.visit(visit));
        }
        if let Some(lead) = &record.lead {
            self.section(SECTION_LEAD, |writer| writer.lead(lead));
        }
    }

    fn hit(&mut self, hit: &Hit) {
        let texts = hit_texts(hit);
        let mut flags = 0_u64;
        for (bit, set) in hit_flags(hit).into_iter().enumerate() {
            flags |= u64::from(set) << bit;
        }
        for (bit, text) in texts.iter().enumerate() {
            flags |= u64::from(!text.is_empty()) << (TEXT_BIT + bit);
        }
        self.varint(flags);
        self.byte(hit.kind as u8);
        self.varint(u64::from(hit.site.0));
        self.time(hit.received);
        self.time(hit.when);
        if let Some(visitor) = hit.visitor {
            self.out.extend_from_slice(&visitor.0.to_le_bytes());
        }
        if hit.id != 0 {
            self.out.extend_from_slice(&hit.id.to_le_bytes());
        }
        if hit.page != 0 {
            self.out.extend_from_slice(&hit.page.to_le_bytes());
        }
        if hit.engaged_ms != 0 {
            self.varint(u64::from(hit.engaged_ms));
        }
        if hit.scroll != 0 {
            self.byte(hit.scroll);
        }
        if let Some(excluded) = hit.excluded {
            self.byte(excluded as u8);
        }
        for text in texts.into_iter().filter(|text| !text.is_empty()) {
            self.bytes(text.as_bytes());
        }
        if !hit.properties.is_empty() {
            self.list(&hit.properties, |writer, (name, value)| {
                writer.bytes(name.as_bytes());
                writer.bytes(value.as_bytes());
            });
        }
        if let Some(claim) = &hit.claim {
            self.claim(claim);
        }
    }

    fn claim(&mut self, claim: &Claim) {
        self.out.extend_from_slice(&claim.lead.0.to_le_bytes());
        self.byte(claim.kind.map_or(0, |kind| kind as u8 + 1));
        self.byte(claim.assurance as u8);
        self.byte(claim.consent.map_or(0, |consent| u8::from(consent) + 1));
        self.bytes(&claim.sealed);
    }

    fn rows(&mut self, rows: &[Row]) {
        self.list(rows, |writer, row| {
            writer.time(row.when);
            writer.varint(row.position.0);
            writer.varint(u64::from(row.order));
            writer.varint(u64::from(row.rule.0));
            writer.byte(row.category.0);
            match row.source {
                Source::Server => writer.byte(0),
                Source::Visitor(visitor) if Some(visitor) == writer.visitor => writer.byte(1),
                Source::Visitor(visitor) => {
                    writer.byte(2);
                    writer.out.extend_from_slice(&visitor.0.to_le_bytes());
                }
            }
            writer.signed(row.base.0);
            writer.signed(row.granted.0);
            writer.byte(row.cut as u8);
        });
    }

    fn regrants(&mut self, regrants: &[Regrant]) {
        self.list(regrants, |writer, regrant| {
            writer.varint(regrant.position.0);
            writer.varint(u64::from(regrant.order));
            writer.signed(regrant.granted.0);
            writer.byte(regrant.cut as u8);
        });
    }

    fn fold(&mut self, fold: Option<&Fold>) {
        self.option(fold, |writer, fold| {
            writer.varint(u64::from(fold.rows));
            writer.rows(&fold.into);
        });
    }

    fn visit(&mut self, visit: &VisitPart) {
        self.varint(visit.previous.0);
        self.rows(&visit.rows);
        self.regrants(&visit.regrants);
        self.fold(visit.fold.as_ref());
        self.list(&visit.seen, |writer, seen| {
            writer.varint(u64::from(seen.rule.0));
            writer.out.extend_from_slice(&seen.page.to_le_bytes());
            writer.time(seen.when);
        });
        match &visit.bound {
            None => self.byte(0),
            Some(Bound::To { lead, kind, assurance }) => {
                self.byte(1);
                self.out.extend_from_slice(&lead.0.to_le_bytes());
                self.byte(*kind as u8);
                self.byte(*assurance as u8);
            }
            Some(Bound::Reset) => self.byte(2),
        }
    }

    fn lead(&mut self, part: &LeadPart) {
        self.out.extend_from_slice(&part.lead.0.to_le_bytes());
        self.varint(part.previous.0);
        self.byte(u8::from(part.takes_attributes) | u8::from(part.new_visit) << 1);
        self.option(part.link.as_ref(), |writer, link| {
            writer.out.extend_from_slice(&link.visitor.0.to_le_bytes());
            writer.byte(link.assurance as u8);
            writer.option(link.history.as_ref(), Writer::history);
        });
        self.rows(&part.rows);
        self.regrants(&part.regrants);
        self.fold(part.fold.as_ref());
        self.list(&part.crossings, Writer::crossed);
    }

    fn history(&mut self, history: &History) {
        self.varint(history.first_position.0);
        self.varint(history.last_position.0);
        self.time(history.first_seen);
        self.time(history.last_human);
        self.time(history.last_when);
        self.varint(u64::from(history.hits));
        self.varint(u64::from(history.pages));
        self.varint(u64::from(history.visits));
    }

    fn crossed(&mut self, crossed: &Crossed) {
        let crossing = &crossed.crossing;
        self.byte(crossing.threshold.0);
        self.byte(crossing.direction as u8);
        self.time(crossing.at);
        self.varint(u64::from(crossing.number));
        self.byte(crossing.opened_by.map_or(0, |gate| gate as u8 + 1));
        self.byte(u8::from(crossing.told));
        self.option(crossing.waits_until.as_ref(), |writer, until| writer.time(*until));
        self.option(crossed.told.as_ref(), Writer::told);
    }

    fn told(&mut self, told: &Told) {
        self.varint(u64::from(told.sequence));
        for points in [told.score, told.before_24h, told.urgency, told.unconfirmed, told.held_back]
        {
            self.signed(points.0);
        }
        self.byte(told.grade as u8);
        self.byte(told.stage as u8);
        self.byte(told.previous_stage as u8);
        self.byte(told.assurance as u8);
        self.list(&told.categories, |writer, (category, points)| {
            writer.byte(category.0);
            writer.signed(points.0);
        });
        self.list(&told.reasons, |writer, reason| {
            writer.varint(u64::from(reason.rule.0));
            writer.varint(u64::from(reason.times));
            writer.signed(reason.points.0);
            writer.time(reason.last);
        });
        self.option(told.because.as_ref(), |writer, because| {
            writer.varint(u64::from(because.rule.0));
            writer.signed(because.points.0);
            writer.time(because.at);
        });
    }

    fn published(&mut self, published: &Published) {
        self.varint(u64::from(published.version));
        self.names(&published.names);
        self.list(&published.categories, |writer, category| {
            writer.byte(category.id.0);
            writer.varint(category.half_life.millis());
            writer.byte(u8::from(category.in_total));
        });
        self.bytes(&published.text);
    }

    fn names(&mut self, names: &[Name]) {
        self.list(names, |writer, name| {
            writer.byte(name.kind as u8);
            writer.varint(u64::from(name.number));
            writer.bytes(name.name.as_bytes());
        });
    }
}

/// The first bit of a hit's flags that stands for a text.
const TEXT_BIT: usize = 11;
/// How many bits of a hit's flags mean something.
const FLAG_BITS: usize = TEXT_BIT + 7;

/// Which of a hit's parts follow, or are so: the low bits of its flags, in this order.
fn hit_flags(hit: &Hit) -> [bool; TEXT_BIT] {
    [
        hit.visitor.is_some(),
        hit.id != 0,
        hit.page != 0,
        hit.engaged_ms != 0,
        hit.scroll != 0,
        hit.excluded.is_some(),
        !hit.properties.is_empty(),
        hit.claim.is_some(),
        hit.authenticated,
        hit.by_server,
        hit.test,
    ]
}

/// A hit's texts, in the order in which they are written.
fn hit_texts(hit: &Hit) -> [&String; 7] {
    [&hit.event, &hit.path, &hit.url, &hit.title, &hit.referrer, &hit.campaign, &hit.network]
}

struct Reader<'a> {
    rest: &'a [u8],
    time: Timestamp,
    visitor: Option<VisitorId>,
}

type Read<T> = Result<T, WireError>;

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(WireError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(WireError::Short)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Read<u8> {
        Ok(self.fixed::<1>()?[0])
    }

    fn varint(&mut self) -> Read<u64> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(WireError::Overlong);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::Overlong)
    }

    fn signed(&mut self) -> Read<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn number<T: TryFrom<u64>>(&mut self, what: &'static str) -> Read<T> {
        T::try_from(self.varint()?).map_err(|_| WireError::UnknownNumber(what))
    }

    /// One of some values, written as its place among them.
    fn one_of<T: Copy>(&mut self, all: &[T], what: &'static str) -> Read<T> {
        let index = usize::from(self.byte()?);
        all.get(index).copied().ok_or(WireError::UnknownNumber(what))
    }

    fn bool(&mut self) -> Read<bool> {
        self.one_of(&[false, true], "yes or no")
    }

    fn time(&mut self) -> Read<Timestamp> {
        let before = self.signed()?;
        Ok(Timestamp(self.time.0.wrapping_sub(before as u64)))
    }

    fn points(&mut self) -> Read<Points> {
        Ok(Points(self.signed()?))
    }

    fn bytes(&mut self) -> Read<&'a [u8]> {
        let length = self.number("length")?;
        self.take(length)
    }

    fn text(&mut self) -> Read<String> {
        let bytes = self.bytes()?.to_vec();
        String::from_utf8(bytes).map_err(|_| WireError::NotText)
    }

    fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let length: usize = self.number("length")?;
        // Every item takes at least a byte: a length that promises more is a lie.
        if length > self.rest.len() {
            return Err(WireError::Short);
        }
        (0..length).map(|_| read(self)).collect()
    }

    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    fn section(&mut self) -> Read<Option<(u8, Reader<'a>)>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.byte()?;
        let rest = self.bytes()?;
        Ok(Some((tag, Reader { rest, time: self.time, visitor: self.visitor })))
    }

    fn whole<T>(mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        let value = read(&mut self)?;
        if self.rest.is_empty() { Ok(value) } else { Err(WireError::Long) }
    }

    /// The one section that a record has.
    fn only<T>(
        &mut self,
        wanted: u8,
        what: &'static str,
        read: impl FnOnce(&mut Self) -> Read<T>,
    ) -> Read<T> {
        let (tag, reader) = self.section()?.ok_or(WireError::Missing(what))?;
        if tag != wanted {
            return Err(WireError::UnknownSection(tag));
        }
        let value = reader.whole(read)?;
        if self.rest.is_empty() { Ok(value) } else { Err(WireError::Long) }
    }

    fn hit_record(&mut self) -> Read<HitRecord> {
        let mut record = HitRecord::default();
        let mut has_hit = false;
        while let Some((tag, reader)) = self.section()? {
            match tag {
                SECTION_HIT => {
                    record.hit = reader.whole(Reader::hit)?;
                    self.visitor = record.hit.visitor;
                    has_hit = true;
                }
                SECTION_FIRST => {
                    record.first = Some(reader.whole(|reader| {
                        let position = Position(reader.varint()?);
                        Ok(FirstHit { position, hit: reader.hit()? })
                    })?);
                }
                SECTION_VISIT => record.visit = Some(reader.whole(Reader::visit)?),
                SECTION_LEAD => record.lead = Some(reader.whole(Reader::lead)?),
                other => return Err(WireError::UnknownSection(other)),
            }
        }
        if has_hit { Ok(record) } else { Err(WireError::Missing("hit")) }
    }

    fn hit(&mut self) -> Read<Hit> {
        const KINDS: [HitKind; 5] = [
            HitKind::PageView,
            HitKind::Event,
            HitKind::Engagement,
            HitKind::Identify,
            HitKind::Reset,
        ];
        const EXCLUSIONS: [Exclusion; 4] =
            [Exclusion::Robot, Exclusion::Network, Exclusion::Path, Exclusion::EmailDomain];
        let flags = self.varint()?;
        if flags >> FLAG_BITS != 0 {
            return Err(WireError::UnknownNumber("part of a hit"));
        }
        let has = |bit: usize| flags >> bit & 1 == 1;
        let mut hit = Hit {
            kind: self.one_of(&KINDS, "kind of hit")?,
            site: SiteId(self.number("site")?),
            received: self.time()?,
            when: self.time()?,
            authenticated: has(8),
            by_server: has(9),
            test: has(10),
            ..Hit::default()
        };
        if has(0) {
            hit.visitor = Some(self.visitor_id()?);
        }
        if has(1) {
            hit.id = u64::from_le_bytes(self.fixed()?);
        }
        if has(2) {
            hit.page = u64::from_le_bytes(self.fixed()?);
        }
        if has(3) {
            hit.engaged_ms = self.number("time")?;
        }
        if has(4) {
            hit.scroll = self.byte()?;
        }
        if has(5) {
            hit.excluded = Some(self.one_of(&EXCLUSIONS, "exclusion")?);
        }
        let mut texts: [String; 7] = Default::default();
        for (bit, text) in texts.iter_mut().enumerate() {
            if has(TEXT_BIT + bit) {
                *text = self.text()?;
            }
        }
        [hit.event, hit.path, hit.url, hit.title, hit.referrer, hit.campaign, hit.network] = texts;
        if has(6) {
            hit.properties = self.list(|reader| Ok((reader.text()?, reader.text()?)))?;
        }
        if has(7) {
            hit.claim = Some(self.claim()?);
        }
        Ok(hit)
    }

    fn visitor_id(&mut self) -> Read<VisitorId> {
        Ok(VisitorId(u128::from_le_bytes(self.fixed()?)))
    }

    fn lead_id(&mut self) -> Read<LeadId> {
        Ok(LeadId(u64::from_le_bytes(self.fixed()?)))
    }

    fn assurance(&mut self) -> Read<Assurance> {
        self.one_of(&[Assurance::Claimed, Assurance::Verified], "assurance")
    }

    fn claim(&mut self) -> Read<Claim> {
        let [user, crm, email] = IdentityKind::ORDER.map(Some);
        Ok(Claim {
            lead: self.lead_id()?,
            kind: self.one_of(&[None, user, crm, email], "kind of identity")?,
            assurance: self.assurance()?,
            consent: self.one_of(&[None, Some(false), Some(true)], "consent")?,
            attributes: Attributes::new(),
            sealed: self.bytes()?.to_vec(),
        })
    }

    fn rows(&mut self) -> Read<Vec<Row>> {
        self.list(|reader| {
            Ok(Row {
                when: reader.time()?,
                position: Position(reader.varint()?),
                order: reader.number("row")?,
                rule: RuleId(reader.number("rule")?),
                category: CategoryId(reader.byte()?),
                source: reader.source()?,
                base: reader.points()?,
                granted: reader.points()?,
                cut: reader.one_of(&Cut::ALL, "cut")?,
            })
        })
    }

    fn source(&mut self) -> Read<Source> {
        match self.byte()? {
            0 => Ok(Source::Server),
            1 => self.visitor.map(Source::Visitor).ok_or(WireError::Missing("visitor")),
            2 => Ok(Source::Visitor(self.visitor_id()?)),
            _ => Err(WireError::UnknownNumber("source")),
        }
    }

    fn regrants(&mut self) -> Read<Vec<Regrant>> {
        self.list(|reader| {
            Ok(Regrant {
                position: Position(reader.varint()?),
                order: reader.number("row")?,
                granted: reader.points()?,
                cut: reader.one_of(&Cut::ALL, "cut")?,
            })
        })
    }

    fn fold(&mut self) -> Read<Option<Fold>> {
        self.option(|reader| Ok(Fold { rows: reader.number("rows")?, into: reader.rows()? }))
    }

    fn visit(&mut self) -> Read<VisitPart> {
        Ok(VisitPart {
            previous: Position(self.varint()?),
            rows: self.rows()?,
            regrants: self.regrants()?,
            fold: self.fold()?,
            seen: self.list(|reader| {
                Ok(Seen {
                    rule: RuleId(reader.number("rule")?),
                    page: u64::from_le_bytes(reader.fixed()?),
                    when: reader.time()?,
                })
            })?,
            bound: match self.byte()? {
                0 => None,
                1 => Some(Bound::To {
                    lead: self.lead_id()?,
                    kind: self.one_of(&IdentityKind::ORDER, "kind of identity")?,
                    assurance: self.assurance()?,
                }),
                2 => Some(Bound::Reset),
                _ => return Err(WireError::UnknownNumber("binding")),
            },
        })
    }

    fn lead(&mut self) -> Read<LeadPart> {
        let lead = self.lead_id()?;
        let previous = Position(self.varint()?);
        let flags = self.one_of(&[0_u8, 1, 2, 3], "flag")?;
        Ok(LeadPart {
            lead,
            previous,
            takes_attributes: flags & 1 == 1,
            new_visit: flags & 2 == 2,
            link: self.option(|reader| {
                Ok(LinkPart {
                    visitor: reader.visitor_id()?,
                    assurance: reader.assurance()?,
                    history: reader.option(Reader::history)?,
                })
            })?,
            rows: self.rows()?,
            regrants: self.regrants()?,
            fold: self.fold()?,
            crossings: self.list(Reader::crossed)?,
        })
    }

    fn history(&mut self) -> Read<History> {
        Ok(History {
            first_position: Position(self.varint()?),
            last_position: Position(self.varint()?),
            first_seen: self.time()?,
            last_human: self.time()?,
            last_when: self.time()?,
            hits: self.number("count")?,
            pages: self.number("count")?,
            visits: self.number("count")?,
        })
    }

    fn crossed(&mut self) -> Read<Crossed> {
        const DIRECTIONS: [Direction; 3] = [Direction::Rise, Direction::Fall, Direction::Release];
        let crossing = Crossing {
            threshold: ThresholdId(self.byte()?),
            direction: self.one_of(&DIRECTIONS, "direction")?,
            at: self.time()?,
            number: self.number("count")?,
            opened_by: match self.byte()? {
                0 => None,
                gate => Some(
                    *Gate::ALL
                        .get(usize::from(gate) - 1)
                        .ok_or(WireError::UnknownNumber("gate"))?,
                ),
            },
            told: self.bool()?,
            waits_until: self.option(Reader::time)?,
        };
        Ok(Crossed { crossing, told: self.option(Reader::told)? })
    }

    fn told(&mut self) -> Read<Told> {
        Ok(Told {
            sequence: self.number("count")?,
            score: self.points()?,
            before_24h: self.points()?,
            urgency: self.points()?,
            unconfirmed: self.points()?,
            held_back: self.points()?,
            grade: self.one_of(&Grade::ALL, "grade")?,
            stage: self.one_of(&Stage::ALL, "stage")?,
            previous_stage: self.one_of(&Stage::ALL, "stage")?,
            assurance: self.assurance()?,
            categories: self.list(|reader| Ok((CategoryId(reader.byte()?), reader.points()?)))?,
            reasons: self.list(|reader| {
                Ok(Reason {
                    rule: RuleId(reader.number("rule")?),
                    times: reader.number("count")?,
                    points: reader.points()?,
                    last: reader.time()?,
                })
            })?,
            because: self.option(|reader| {
                Ok(Because {
                    rule: RuleId(reader.number("rule")?),
                    points: reader.points()?,
                    at: reader.time()?,
                })
            })?,
        })
    }

    fn published(&mut self) -> Read<Published> {
        Ok(Published {
            version: self.number("version")?,
            names: self.names()?,
            categories: self.list(|reader| {
                Ok(PublishedCategory {
                    id: CategoryId(reader.byte()?),
                    half_life: HalfLife::from_millis(reader.varint()?)
                        .ok_or(WireError::UnknownNumber("half-life"))?,
                    in_total: reader.bool()?,
                })
            })?,
            text: self.bytes()?.to_vec(),
        })
    }

    fn names(&mut self) -> Read<Vec<Name>> {
        self.list(|reader| {
            Ok(Name {
                kind: reader.one_of(&NameKind::ALL, "kind of name")?,
                number: reader.number("name")?,
                name: reader.text()?,
            })
        })
    }
}
