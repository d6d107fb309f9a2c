//! Reading a record: the mirror of `write.rs`. No bytes make it panic or reserve more memory
//! than they justify.

use crate::decay::HalfLife;
use crate::grade::Grade;
use crate::hit::{Attributes, Claim, Exclusion, Hit, HitKind};
use crate::id::{CategoryId, LeadId, Position, RuleId, SiteId, ThresholdId, VisitorId};
use crate::identity::{Assurance, IdentityKind};
use crate::ledger::{Cut, Fold, Regrant, Row, Source};
use crate::record::{
    Because, Bound, Crossed, FirstHit, History, HitRecord, LeadPart, LinkPart, Name, NameKind,
    Published, PublishedCategory, Reason, Seen, Told, VisitPart,
};
use crate::rule::Points;
use crate::stage::Stage;
use crate::threshold::{Crossing, Direction, Gate};
use crate::time::Timestamp;

use super::{
    FLAG_BITS, SECTION_FIRST, SECTION_HIT, SECTION_LEAD, SECTION_OUTBOX, SECTION_VISIT, TEXT_BIT,
    WireError,
};

/// What a record is about, told from its frame alone: most followers pass over most records,
/// and need not read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Something was decided about a lead.
    pub lead: bool,
    /// It is an entry of the outbox.
    pub outbox: bool,
}

impl About {
    /// Of a record's bytes; of bytes that are none, nothing.
    pub fn of(bytes: &[u8]) -> About {
        let mut about = About::default();
        let mut reader = Reader { rest: bytes, time: Timestamp(0), visitor: None };
        let framed = reader.byte().and_then(|_| reader.varint()).and_then(|_| reader.varint());
        if framed.is_err() {
            return about;
        }
        while let Ok(Some((tag, _))) = reader.section() {
            about.lead |= tag == SECTION_LEAD;
            about.outbox |= tag == SECTION_OUTBOX;
        }
        about
    }
}

/// Bytes being read.
pub(super) struct Reader<'a> {
    pub(super) rest: &'a [u8],
    pub(super) time: Timestamp,
    pub(super) visitor: Option<VisitorId>,
}

/// What reading comes to.
pub(super) type Read<T> = Result<T, WireError>;

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

    pub(super) fn byte(&mut self) -> Read<u8> {
        Ok(self.fixed::<1>()?[0])
    }

    pub(super) fn varint(&mut self) -> Read<u64> {
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

    pub(super) fn number<T: TryFrom<u64>>(&mut self, what: &'static str) -> Read<T> {
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
    pub(super) fn only<T>(
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

    pub(super) fn hit_record(&mut self) -> Read<HitRecord> {
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

    pub(super) fn lead(&mut self) -> Read<LeadPart> {
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

    pub(super) fn published(&mut self) -> Read<Published> {
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

    pub(super) fn names(&mut self) -> Read<Vec<Name>> {
        self.list(|reader| {
            Ok(Name {
                kind: reader.one_of(&NameKind::ALL, "kind of name")?,
                number: reader.number("name")?,
                name: reader.text()?,
            })
        })
    }
}
