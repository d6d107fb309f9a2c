//! Reading a record: the mirror of `write.rs`. No bytes make it panic or reserve more memory
//! than they justify.

use crate::attribute::Level;
use crate::facts::Source;
use crate::hit::{Claim, Exclusion, Hit, HitKind, Named};
use crate::id::{CategoryId, LeadId, Position, RuleId, SiteId, VisitorId};
use crate::identity::{Assurance, IdentityKind};
use crate::ledger::{Cut, Fold, Regrant, Row};
use crate::points::Points;
use crate::record::{
    Bound, Counted, FirstHit, HitRecord, LeadPart, Name, NameKind, Published, Question, Review,
    VisitPart,
};
use crate::time::Timestamp;

use super::brief::{HTTPS, Network, Untold, class_of, path_in};
use super::first_format::hears_1;
use super::{
    AGENT_BIT, CLAIM_1_BIT, Context, FLAG_BITS, LATER_BIT, SECTION_ASKS, SECTION_FIRST,
    SECTION_HIT, SECTION_LEAD, SECTION_LEAD_1, SECTION_OUTBOX, SECTION_PUBLISHED,
    SECTION_PUBLISHED_1, SECTION_REVIEW, SECTION_STEP, SECTION_VISIT, SECTION_VISIT_1, TEXT_BIT,
    WireError,
};

/// What a record is about, told from its frame alone: most followers pass over most records,
/// and need not read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each says something of its own")]
pub struct About {
    /// Something was decided about a lead.
    pub lead: bool,
    /// It is an entry of the outbox.
    pub outbox: bool,
    /// A person should look at it.
    pub review: bool,
    /// It is a step.
    pub step: bool,
}

impl About {
    /// Of a record's bytes; of bytes that are none, nothing.
    pub fn of(bytes: &[u8]) -> About {
        let mut about = About::default();
        let mut reader = Reader { rest: bytes, context: Context::default() };
        let framed = reader.byte().and_then(|_| reader.varint()).and_then(|_| reader.varint());
        if framed.is_err() {
            return about;
        }
        while let Ok(Some((tag, _))) = reader.section() {
            about.lead |= matches!(tag, SECTION_LEAD | SECTION_LEAD_1);
            about.outbox |= tag == SECTION_OUTBOX;
            about.review |= tag == SECTION_REVIEW;
            about.step |= tag == SECTION_STEP;
        }
        about
    }
}

/// Bytes being read.
pub(crate) struct Reader<'a> {
    pub(crate) rest: &'a [u8],
    pub(crate) context: Context,
}

/// Items that a list has room for before they are read.
const EXACT_MAX: usize = 64;

/// What reading comes to.
pub(crate) type Read<T> = Result<T, WireError>;

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(WireError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn fixed<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(WireError::Short)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn byte(&mut self) -> Read<u8> {
        Ok(self.fixed::<1>()?[0])
    }

    pub(crate) fn varint(&mut self) -> Read<u64> {
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

    pub(crate) fn signed(&mut self) -> Read<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    pub(crate) fn number<T: TryFrom<u64>>(&mut self, what: &'static str) -> Read<T> {
        T::try_from(self.varint()?).map_err(|_| WireError::UnknownNumber(what))
    }

    /// One of some values, written as its place among them.
    pub(crate) fn one_of<T: Copy>(&mut self, all: &[T], what: &'static str) -> Read<T> {
        let index = usize::from(self.byte()?);
        all.get(index).copied().ok_or(WireError::UnknownNumber(what))
    }

    pub(crate) fn bool(&mut self) -> Read<bool> {
        self.one_of(&[false, true], "yes or no")
    }

    pub(crate) fn time(&mut self) -> Read<Timestamp> {
        let before = self.signed()?;
        Ok(Timestamp(self.context.time.0.wrapping_sub(before as u64)))
    }

    pub(crate) fn points(&mut self) -> Read<Points> {
        Ok(Points(self.signed()?))
    }

    pub(crate) fn bytes(&mut self) -> Read<&'a [u8]> {
        let length = self.number("length")?;
        self.take(length)
    }

    pub(crate) fn text(&mut self) -> Read<String> {
        let bytes = self.bytes()?.to_vec();
        String::from_utf8(bytes).map_err(|_| WireError::NotText)
    }

    pub(crate) fn list<T>(&mut self, read: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let mut items = Vec::new();
        self.list_into(&mut items, read)?;
        Ok(items)
    }

    /// The same into a list that has room already, whose items go.
    pub(crate) fn list_into<T>(
        &mut self,
        items: &mut Vec<T>,
        mut read: impl FnMut(&mut Self) -> Read<T>,
    ) -> Read<()> {
        items.clear();
        let length: usize = self.number("length")?;
        // Every item takes at least a byte: a length that promises more is a lie.
        if length > self.rest.len() {
            return Err(WireError::Short);
        }
        // Exact where lists are short, and no more than the bytes justify where they are not.
        items.reserve_exact(length.min(EXACT_MAX));
        for _ in 0..length {
            items.push(read(self)?);
        }
        Ok(())
    }

    pub(crate) fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    pub(crate) fn section(&mut self) -> Read<Option<(u8, Reader<'a>)>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.byte()?;
        let rest = self.bytes()?;
        Ok(Some((tag, Reader { rest, context: self.context })))
    }

    pub(crate) fn whole<T>(mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        let value = read(&mut self)?;
        if self.rest.is_empty() { Ok(value) } else { Err(WireError::Long) }
    }

    /// The one section that a record has.
    pub(crate) fn only<T>(
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

    /// A byte of which only the lowest bits mean something.
    pub(crate) fn bits(&mut self, known: u8) -> Read<u8> {
        let bits = self.byte()?;
        if bits >> known == 0 { Ok(bits) } else { Err(WireError::UnknownNumber("flag")) }
    }

    pub(crate) fn hit_record(&mut self) -> Read<HitRecord> {
        let mut record = HitRecord::default();
        let mut has_hit = false;
        while let Some((tag, reader)) = self.section()? {
            match tag {
                SECTION_HIT => {
                    record.hit = reader.whole(|reader| reader.hit(None))?;
                    self.context.visitor = record.hit.visitor;
                    has_hit = true;
                }
                SECTION_FIRST => {
                    let by = has_hit.then_some(&record.hit);
                    record.first = Some(reader.whole(|reader| {
                        let position = Position(reader.varint()?);
                        Ok(FirstHit { position, hit: reader.hit(by)? })
                    })?);
                }
                SECTION_VISIT => record.visit = Some(reader.whole(Reader::visit)?),
                SECTION_LEAD => record.lead = Some(reader.whole(Reader::lead)?),
                SECTION_ASKS => reader.whole(|reader| reader.asks(record.lead.as_mut()))?,
                SECTION_REVIEW => {
                    record.review = reader.whole(|reader| reader.list(Reader::review))?;
                }
                SECTION_VISIT_1 => record.visit = Some(reader.whole(Reader::visit_1)?),
                SECTION_LEAD_1 => {
                    let part = reader.whole(Reader::lead_1)?;
                    let hears = hears_1(&record, part.lead);
                    record.lead = Some(LeadPart { hears, ..part });
                }
                other => return Err(WireError::UnknownSection(other)),
            }
        }
        if has_hit { Ok(record) } else { Err(WireError::Missing("hit")) }
    }

    pub(crate) fn due(&mut self) -> Read<LeadPart> {
        let mut part = None;
        while let Some((tag, reader)) = self.section()? {
            match tag {
                SECTION_LEAD => part = Some(reader.whole(Reader::lead)?),
                SECTION_LEAD_1 => part = Some(reader.whole(Reader::lead_1)?),
                SECTION_ASKS => reader.whole(|reader| reader.asks(part.as_mut()))?,
                other => return Err(WireError::UnknownSection(other)),
            }
        }
        part.ok_or(WireError::Missing("lead"))
    }

    pub(crate) fn published_of_any_format(&mut self) -> Read<Published> {
        let now = (SECTION_PUBLISHED, Reader::published as fn(&mut Self) -> Read<Published>);
        let then = (SECTION_PUBLISHED_1, Reader::published_1 as fn(&mut Self) -> Read<Published>);
        self.either(now, then, "published")
    }

    /// The one section that a record has, as this format or the first wrote it.
    fn either<T>(
        &mut self,
        now: (u8, impl FnOnce(&mut Reader<'a>) -> Read<T>),
        then: (u8, impl FnOnce(&mut Reader<'a>) -> Read<T>),
        what: &'static str,
    ) -> Read<T> {
        if self.rest.first() == Some(&then.0) {
            return self.only(then.0, what, then.1);
        }
        self.only(now.0, what, now.1)
    }

    fn review(&mut self) -> Read<Review> {
        Ok(Review {
            question: self.one_of(&Question::ALL, "question")?,
            lead: self.lead_id()?,
            other: self.option(Reader::lead_id)?,
        })
    }

    /// A hit, and the one by which it may be told.
    fn hit(&mut self, by: Option<&Hit>) -> Read<Hit> {
        const KINDS: [HitKind; 5] = [
            HitKind::PageView,
            HitKind::Event,
            HitKind::Engagement,
            HitKind::Identify,
            HitKind::Reset,
        ];
        let flags = self.varint()?;
        if flags >> FLAG_BITS != 0 {
            return Err(WireError::UnknownNumber("part of a hit"));
        }
        let has = |bit: usize| flags >> bit & 1 == 1;
        let untold = Untold::of(flags, by)?;
        let later = |bit: usize| has(LATER_BIT + bit);
        let mut hit = Hit {
            kind: self.one_of(&KINDS, "kind of hit")?,
            site: SiteId(self.number("site")?),
            received: self.time()?,
            when: self.time()?,
            authenticated: has(8),
            by_server: has(9),
            test: has(10),
            via_our_link: later(1),
            silent: later(2),
            ..Hit::default()
        };
        if has(0) {
            hit.visitor = Some(self.visitor_id()?);
        } else if let Some(by) = untold.by {
            hit.visitor = by.visitor;
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
            hit.excluded = Some(self.one_of(&Exclusion::ALL, "exclusion")?);
        }
        self.texts(&mut hit, flags, &untold)?;
        if has(6) {
            hit.properties = self.list(|reader| Ok((reader.text()?, reader.text()?)))?;
        }
        if later(0) {
            hit.areas = self.list(Reader::text)?;
        }
        if has(AGENT_BIT) {
            hit.agent = self.agent(&untold)?;
        } else if let Some(by) = untold.by {
            hit.agent.clone_from(&by.agent);
        }
        if has(CLAIM_1_BIT) {
            hit.claim = Some(self.claim_1()?);
        }
        if later(4) {
            hit.claim = Some(self.claim()?);
        }
        Ok(hit)
    }

    fn texts(&mut self, hit: &mut Hit, flags: u64, untold: &Untold<'_>) -> Read<()> {
        let has = |text: usize| flags >> (TEXT_BIT + text) & 1 == 1;
        hit.event = self.some_text(has(0))?;
        let path_bytes: usize = if untold.path { self.number("path")? } else { 0 };
        hit.path = self.some_text(has(1) && !untold.path)?;
        if has(2) {
            hit.url = self.url(untold)?;
        }
        if untold.path {
            let path = path_in(&hit.url).get(..path_bytes);
            hit.path = path.ok_or(WireError::UnknownNumber("path"))?.to_owned();
        }
        hit.title = self.some_text(has(3))?;
        hit.referrer = self.some_text(has(4))?;
        hit.campaign = self.some_text(has(5))?;
        hit.network = match (untold.v4, untold.v6, untold.by) {
            (true, _, _) => Network::V4(self.fixed()?).to_string(),
            (_, true, _) => Network::V6(self.fixed()?).to_string(),
            (_, _, Some(by)) if !has(6) => by.network.clone(),
            _ => self.some_text(has(6))?,
        };
        Ok(())
    }

    fn agent(&mut self, untold: &Untold<'_>) -> Read<String> {
        if untold.class {
            class_of(self.byte()?).ok_or(WireError::UnknownNumber("class of browsers"))
        } else {
            self.text()
        }
    }

    /// A text, if it is there.
    fn some_text(&mut self, there: bool) -> Read<String> {
        if there { self.text() } else { Ok(String::new()) }
    }

    fn url(&mut self, untold: &Untold<'_>) -> Read<String> {
        let begins = match untold.by {
            Some(by) => {
                let shared = self.number("beginning")?;
                by.url.get(..shared).ok_or(WireError::UnknownNumber("beginning"))?
            }
            None if untold.https => HTTPS,
            None => return self.text(),
        };
        let rest = self.bytes()?;
        let rest = str::from_utf8(rest).map_err(|_| WireError::NotText)?;
        Ok([begins, rest].concat())
    }

    pub(crate) fn visitor_id(&mut self) -> Read<VisitorId> {
        Ok(VisitorId(u128::from_le_bytes(self.fixed()?)))
    }

    pub(crate) fn lead_id(&mut self) -> Read<LeadId> {
        Ok(LeadId(u64::from_le_bytes(self.fixed()?)))
    }

    pub(crate) fn assurance(&mut self) -> Read<Assurance> {
        const ALL: [Assurance; 3] = [Assurance::Claimed, Assurance::Verified, Assurance::Derived];
        self.one_of(&ALL, "assurance")
    }

    pub(crate) fn consent(&mut self) -> Read<Option<bool>> {
        self.one_of(&[None, Some(false), Some(true)], "consent")
    }

    fn claim(&mut self) -> Read<Claim> {
        let names = self.list(Reader::named)?;
        let consent = self.consent()?;
        let attributes_by = self.assurance()?;
        let level = self.one_of(&Level::ALL, "level")?;
        let flags = self.bits(2)?;
        Ok(Claim {
            names,
            consent,
            attributes_by,
            level,
            kiosk: flags & 1 == 1,
            by_link: flags & 2 == 2,
            sealed: self.bytes()?.to_vec(),
            ..Claim::default()
        })
    }

    pub(crate) fn named(&mut self) -> Read<Named> {
        Ok(Named {
            kind: self.one_of(&IdentityKind::ORDER, "kind of identity")?,
            id: self.lead_id()?,
            assurance: self.assurance()?,
        })
    }

    pub(crate) fn rows(&mut self) -> Read<Vec<Row>> {
        let mut rows = Vec::new();
        self.rows_into(&mut rows)?;
        Ok(rows)
    }

    /// The same into a list that has room already, whose rows go.
    pub(crate) fn rows_into(&mut self, rows: &mut Vec<Row>) -> Read<()> {
        self.list_into(rows, |reader| {
            let mut row = Row {
                when: reader.time()?,
                position: Position(reader.varint()?),
                order: reader.number("row")?,
                rule: RuleId(reader.number("rule")?),
                category: CategoryId(reader.byte()?),
                source: reader.source()?,
                origin: reader.origin()?,
                version: reader.version()?,
                base: reader.points()?,
                granted: reader.points()?,
                cut: reader.one_of(&Cut::ALL, "cut")?,
                ..Row::default()
            };
            let flags = reader.bits(2)?;
            (row.withdrawn, row.folded) = (flags & 1 == 1, flags & 2 == 2);
            Ok(row)
        })
    }

    fn version(&mut self) -> Read<u32> {
        let before = self.signed()?;
        let version = i64::from(self.context.version).checked_sub(before);
        let version = version.and_then(|version| u32::try_from(version).ok());
        version.ok_or(WireError::UnknownNumber("version"))
    }

    pub(crate) fn source(&mut self) -> Read<Source> {
        match self.byte()? {
            0 => Ok(Source::Server),
            1 => self.context.visitor.map(Source::Visitor).ok_or(WireError::Missing("visitor")),
            2 => Ok(Source::Visitor(self.visitor_id()?)),
            _ => Err(WireError::UnknownNumber("source")),
        }
    }

    pub(crate) fn origin(&mut self) -> Read<LeadId> {
        match self.byte()? {
            0 => Ok(LeadId(0)),
            1 => Ok(self.context.origin),
            2 => self.lead_id(),
            _ => Err(WireError::UnknownNumber("origin")),
        }
    }

    pub(crate) fn regrants(&mut self) -> Read<Vec<Regrant>> {
        self.list(|reader| {
            Ok(Regrant {
                position: Position(reader.varint()?),
                order: reader.number("row")?,
                granted: reader.points()?,
                cut: reader.one_of(&Cut::ALL, "cut")?,
            })
        })
    }

    pub(crate) fn fold(&mut self) -> Read<Option<Fold>> {
        self.option(|reader| Ok(Fold { rows: reader.number("rows")?, into: reader.rows()? }))
    }

    fn visit(&mut self) -> Read<VisitPart> {
        let previous = Position(self.varint()?);
        let flags = self.bits(2)?;
        Ok(VisitPart {
            previous,
            ended: flags & 1 == 1,
            shared: flags & 2 == 2,
            bound: self.bound()?,
            rows: self.rows()?,
            regrants: self.regrants()?,
            fold: self.fold()?,
            counted: self.list(|reader| {
                Ok(Counted {
                    rule: RuleId(reader.number("rule")?),
                    what: u64::from_le_bytes(reader.fixed()?),
                    when: reader.time()?,
                })
            })?,
        })
    }

    pub(crate) fn bound(&mut self) -> Read<Option<Bound>> {
        Ok(match self.byte()? {
            0 => None,
            1 => Some(Bound::To(self.binding()?)),
            2 => Some(Bound::Reset),
            _ => return Err(WireError::UnknownNumber("binding")),
        })
    }

    pub(crate) fn names(&mut self) -> Read<Vec<Name>> {
        self.list(|reader| {
            Ok(Name {
                kind: reader.one_of(&NameKind::ALL, "kind of name")?,
                number: reader.number("name")?,
                name: reader.text()?,
            })
        })
    }
}
