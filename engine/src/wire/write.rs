//! Writing a record: fields, hits, and what a visitor's part says, in the order of FORMAT.md.

use crate::facts::Source;
use crate::hit::{Claim, Hit, Named};
use crate::id::LeadId;
use crate::identity::Assurance;
use crate::ledger::{Fold, Regrant, Row};
use crate::record::{Bound, HitRecord, Name, Review, VisitPart};
use crate::time::Timestamp;

use super::brief::{Brief, Network};
use super::{Context, SECTION_FIRST, SECTION_HIT, SECTION_REVIEW, SECTION_VISIT, flags};

/// Bytes being written.
pub(crate) struct Writer<'a> {
    pub(crate) out: &'a mut Vec<u8>,
    pub(crate) context: Context,
}

/// The byte that stands for an assurance.
pub(crate) fn assurance_byte(assurance: Assurance) -> u8 {
    match assurance {
        Assurance::Claimed => 0,
        Assurance::Verified => 1,
        Assurance::Derived => 2,
    }
}

impl Writer<'_> {
    pub(crate) fn byte(&mut self, byte: u8) {
        self.out.push(byte);
    }

    pub(crate) fn bool(&mut self, bool: bool) {
        self.byte(u8::from(bool));
    }

    pub(crate) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    pub(crate) fn signed(&mut self, value: i64) {
        self.varint((value << 1 ^ value >> 63) as u64);
    }

    /// How long before the record's time; negative for after.
    pub(crate) fn time(&mut self, time: Timestamp) {
        self.signed(self.context.time.0.wrapping_sub(time.0) as i64);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    pub(crate) fn list<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Self, &T)) {
        self.varint(items.len() as u64);
        for item in items {
            write(self, item);
        }
    }

    pub(crate) fn option<T>(&mut self, item: Option<&T>, write: impl FnOnce(&mut Self, &T)) {
        self.byte(u8::from(item.is_some()));
        if let Some(item) = item {
            write(self, item);
        }
    }

    pub(crate) fn lead_id(&mut self, id: LeadId) {
        self.out.extend_from_slice(&id.0.to_le_bytes());
    }

    pub(crate) fn assurance(&mut self, assurance: Assurance) {
        self.byte(assurance_byte(assurance));
    }

    /// A tag, how many bytes follow, and these: written where they stay, and moved by as many bytes
    /// as their number takes once that is known.
    pub(crate) fn section(&mut self, tag: u8, write: impl FnOnce(&mut Writer<'_>)) {
        self.byte(tag);
        let from = self.out.len();
        write(&mut Writer { out: &mut *self.out, context: self.context });
        let until = self.out.len();
        self.varint((until - from) as u64);
        let length = self.out.len() - until;
        self.out[from..].rotate_right(length);
    }

    pub(crate) fn hit_record(&mut self, record: &HitRecord) {
        self.context.visitor = record.hit.visitor;
        self.section(SECTION_HIT, |writer| writer.hit(&record.hit, None));
        if let Some(first) = &record.first {
            self.section(SECTION_FIRST, |writer| {
                writer.varint(first.position.0);
                writer.hit(&first.hit, Some(&record.hit));
            });
        }
        if let Some(visit) = &record.visit {
            self.section(SECTION_VISIT, |writer| writer.visit(visit));
        }
        if let Some(lead) = &record.lead {
            self.lead_sections(lead);
        }
        if !record.review.is_empty() {
            self.section(SECTION_REVIEW, |writer| writer.list(&record.review, Writer::review));
        }
    }

    fn review(&mut self, review: &Review) {
        self.byte(review.question as u8);
        self.lead_id(review.lead);
        self.option(review.other.as_ref(), |writer, other| writer.lead_id(*other));
    }

    /// A hit, and the one by which it may be told.
    fn hit(&mut self, hit: &Hit, by: Option<&Hit>) {
        let brief = Brief::of(hit, by);
        self.varint(flags(hit, &brief));
        self.byte(hit.kind as u8);
        self.varint(u64::from(hit.site.0));
        self.time(hit.received);
        self.time(hit.when);
        if let Some(visitor) = brief.visitor {
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
        self.texts(hit, &brief);
        if !hit.properties.is_empty() {
            self.list(&hit.properties, |writer, (name, value)| {
                writer.text(name);
                writer.text(value);
            });
        }
        if !hit.areas.is_empty() {
            self.list(&hit.areas, |writer, area| writer.text(area));
        }
        match brief.class {
            Some(class) => self.byte(class),
            None => self.some_text(brief.agent),
        }
        if let Some(claim) = &hit.claim {
            self.claim(claim);
        }
    }

    fn texts(&mut self, hit: &Hit, brief: &Brief<'_>) {
        self.some_text(&hit.event);
        if brief.path {
            self.varint(hit.path.len() as u64);
        } else {
            self.some_text(&hit.path);
        }
        if !hit.url.is_empty() {
            if let Some(shared) = brief.shared {
                self.varint(shared as u64);
            }
            self.text(brief.url);
        }
        for text in [&hit.title, &hit.referrer, &hit.campaign] {
            self.some_text(text);
        }
        match brief.cut {
            Some(Network::V4(bytes)) => self.out.extend_from_slice(&bytes),
            Some(Network::V6(bytes)) => self.out.extend_from_slice(&bytes),
            None => self.some_text(brief.network),
        }
    }

    /// A text whose flag says whether it is there.
    fn some_text(&mut self, text: &str) {
        if !text.is_empty() {
            self.text(text);
        }
    }

    fn claim(&mut self, claim: &Claim) {
        self.list(&claim.names, Writer::named);
        self.byte(claim.consent.map_or(0, |consent| u8::from(consent) + 1));
        self.assurance(claim.attributes_by);
        self.byte(claim.level as u8);
        self.byte(u8::from(claim.kiosk) | u8::from(claim.by_link) << 1);
        self.bytes(&claim.sealed);
    }

    pub(crate) fn named(&mut self, name: &Named) {
        self.byte(name.kind as u8);
        self.lead_id(name.id);
        self.assurance(name.assurance);
    }

    pub(crate) fn source(&mut self, source: Source) {
        match source {
            Source::Server => self.byte(0),
            Source::Visitor(visitor) if Some(visitor) == self.context.visitor => self.byte(1),
            Source::Visitor(visitor) => {
                self.byte(2);
                self.out.extend_from_slice(&visitor.0.to_le_bytes());
            }
        }
    }

    pub(crate) fn origin(&mut self, origin: LeadId) {
        if origin == LeadId(0) {
            self.byte(0);
        } else if origin == self.context.origin {
            self.byte(1);
        } else {
            self.byte(2);
            self.lead_id(origin);
        }
    }

    pub(crate) fn rows(&mut self, rows: &[Row]) {
        self.list(rows, |writer, row| {
            writer.time(row.when);
            writer.varint(row.position.0);
            writer.varint(u64::from(row.order));
            writer.varint(u64::from(row.rule.0));
            writer.byte(row.category.0);
            writer.source(row.source);
            writer.origin(row.origin);
            writer.signed(i64::from(writer.context.version) - i64::from(row.version));
            writer.signed(row.base.0);
            writer.signed(row.granted.0);
            writer.byte(row.cut as u8);
            writer.byte(u8::from(row.withdrawn) | u8::from(row.folded) << 1);
        });
    }

    pub(crate) fn regrants(&mut self, regrants: &[Regrant]) {
        self.list(regrants, |writer, regrant| {
            writer.varint(regrant.position.0);
            writer.varint(u64::from(regrant.order));
            writer.signed(regrant.granted.0);
            writer.byte(regrant.cut as u8);
        });
    }

    pub(crate) fn fold(&mut self, fold: Option<&Fold>) {
        self.option(fold, |writer, fold| {
            writer.varint(u64::from(fold.rows));
            writer.rows(&fold.into);
        });
    }

    fn visit(&mut self, visit: &VisitPart) {
        self.varint(visit.previous.0);
        self.byte(u8::from(visit.ended) | u8::from(visit.shared) << 1);
        self.bound(visit.bound.as_ref());
        self.rows(&visit.rows);
        self.regrants(&visit.regrants);
        self.fold(visit.fold.as_ref());
        self.list(&visit.counted, |writer, counted| {
            writer.varint(u64::from(counted.rule.0));
            writer.out.extend_from_slice(&counted.what.to_le_bytes());
            writer.time(counted.when);
        });
    }

    pub(crate) fn bound(&mut self, bound: Option<&Bound>) {
        match bound {
            None => self.byte(0),
            Some(Bound::To(binding)) => {
                self.byte(1);
                self.binding(binding);
            }
            Some(Bound::Reset) => self.byte(2),
        }
    }

    pub(crate) fn names(&mut self, names: &[Name]) {
        self.list(names, |writer, name| {
            writer.byte(name.kind as u8);
            writer.varint(u64::from(name.number));
            writer.text(&name.name);
        });
    }
}
