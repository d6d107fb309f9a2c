//! Writing a record: one method for each thing written, in the order of FORMAT.md.

use crate::hit::{Claim, Hit};
use crate::id::VisitorId;
use crate::ledger::{Fold, Regrant, Row, Source};
use crate::record::{
    Bound, Crossed, History, HitRecord, LeadPart, Name, Published, Told, VisitPart,
};
use crate::time::Timestamp;

use super::{
    SECTION_FIRST, SECTION_HIT, SECTION_LEAD, SECTION_VISIT, TEXT_BIT, hit_flags, hit_texts,
};

/// Bytes being written.
pub(super) struct Writer<'a> {
    pub(super) out: &'a mut Vec<u8>,
    /// Times are written relative to the record's.
    pub(super) time: Timestamp,
    /// The visitor of the hit: rows that came from it name it by one byte.
    pub(super) visitor: Option<VisitorId>,
}

impl Writer<'_> {
    pub(super) fn byte(&mut self, byte: u8) {
        self.out.push(byte);
    }

    pub(super) fn varint(&mut self, mut value: u64) {
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

    pub(super) fn section(&mut self, tag: u8, write: impl FnOnce(&mut Writer<'_>)) {
        let mut payload = Vec::with_capacity(256);
        write(&mut Writer { out: &mut payload, time: self.time, visitor: self.visitor });
        self.byte(tag);
        self.bytes(&payload);
    }

    pub(super) fn hit_record(&mut self, record: &HitRecord) {
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

    pub(super) fn lead(&mut self, part: &LeadPart) {
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

    pub(super) fn published(&mut self, published: &Published) {
        self.varint(u64::from(published.version));
        self.names(&published.names);
        self.list(&published.categories, |writer, category| {
            writer.byte(category.id.0);
            writer.varint(category.half_life.millis());
            writer.byte(u8::from(category.in_total));
        });
        self.bytes(&published.text);
    }

    pub(super) fn names(&mut self, names: &[Name]) {
        self.list(names, |writer, name| {
            writer.byte(name.kind as u8);
            writer.varint(u64::from(name.number));
            writer.bytes(name.name.as_bytes());
        });
    }
}
