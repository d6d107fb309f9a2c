//! Every record: does it decode, do its pointers lead where they say, is everything it names
//! known, does every message of the outbox have a record that told it, does what is sealed open?

use std::collections::{BTreeMap, BTreeSet, HashMap};

use engine::alert::{AlertId, Cause};
use engine::hit::Hit;
use engine::id::{LeadId, Position, VisitorId};
use engine::ledger::Row;
use engine::record::{Body, LeadPart, Name, NameKind, Record, Step};
use engine::sales::FIRST_RULE;
use engine::time::Timestamp;
use engine::visitor::VISITOR_LIFE;

use super::{Report, at};
use crate::journal::Entry;
use crate::journal::scan::{Finding, Place};
use crate::outbox::entry::{Digest, Entry as Outbox, Queued, from_base64};
use crate::outbox::messages;
use crate::past::Past;
use crate::words;

/// A first hit that another record embeds: where it says that it stands, and whose it is.
pub(super) type Firsts = BTreeMap<Position, VisitorId>;

/// What is known so far.
pub(super) struct Records<'a> {
    past: &'a Past,
    /// Records before this one are not kept.
    begins: Position,
    /// Records are missing: pointers may lead to them.
    lossy: bool,
    visitors: HashMap<VisitorId, (Position, Timestamp)>,
    leads: HashMap<LeadId, Position>,
    // alert's id -> the record that tells it
    told: HashMap<String, Position>,
    // message's id -> whose it is, if it is about one person
    queued: HashMap<String, Option<LeadId>>,
    firsts: Firsts,
    rules: BTreeSet<u16>,
    version: u32,
    /// Who was erased, by the journal.
    erased: BTreeSet<LeadId>,
    // person whose payloads do not open -> the first, and how many
    closed: BTreeMap<LeadId, (Finding, u64)>,
}

impl<'a> Records<'a> {
    pub(super) fn new(past: &'a Past, begins: Position) -> Records<'a> {
        Records {
            past,
            begins,
            lossy: false,
            visitors: HashMap::new(),
            leads: HashMap::new(),
            told: HashMap::new(),
            queued: HashMap::new(),
            firsts: Firsts::new(),
            rules: BTreeSet::new(),
            version: 0,
            erased: BTreeSet::new(),
            closed: BTreeMap::new(),
        }
    }

    /// Records are missing from here on.
    pub(super) fn lost_some(&mut self) {
        self.lossy = true;
    }

    /// Whether the journal begins with the first record there ever was, and none is missing.
    fn knows_all(&self) -> bool {
        self.begins.ordinal() <= 1 && !self.lossy
    }

    /// Takes the next record. False if it does not decode.
    pub(super) fn take(
        &mut self,
        entry: &Entry<'_>,
        place: &Place<'_>,
        report: &mut Report,
    ) -> bool {
        let position = entry.position;
        let record = match Record::decode(entry.bytes) {
            Ok(record) => record,
            Err(error) => {
                report.wrong(at("record", place, position, error.to_string()));
                return false;
            }
        };
        let mut found = Vec::new();
        self.version(&record, &mut found);
        self.pointers(&record, position, &mut found);
        self.names(&record, position, &mut found);
        self.messages(&record, entry, &mut found);
        self.sealed(&record, (position, place), report, &mut found);
        for (name, about) in found {
            report.wrong(at(name, place, position, about));
        }
        true
    }

    /// Somebody may be erased while this is looked at: their keys are gone then.
    pub(super) fn note_erased(&mut self, entry: &Entry<'_>) {
        if let Ok(record) = Record::decode(entry.bytes) {
            self.erasure(&record);
        }
    }

    /// Notes whom a record erases. Whether it does.
    fn erasure(&mut self, record: &Record) -> bool {
        let Body::Step(step) = &record.body else {
            return false;
        };
        let Step::Erase { names } = &step.step else {
            return false;
        };
        self.erased.extend(names);
        true
    }

    /// The first hits that records embed, and what can be said only at the end.
    pub(super) fn finish(self, report: &mut Report) -> Firsts {
        for (lead, (finding, count)) in self.closed {
            if self.erased.contains(&lead) {
                report.sealed.1 += count;
                continue;
            }
            let why = if finding.name == "sealed" { "does not open it" } else { "is not there" };
            let about = format!("the key of {lead}, who was not erased, {why}; {count} payloads");
            report.wrong(Finding { about, ..finding });
        }
        self.firsts
    }

    fn version(&mut self, record: &Record, found: &mut Vec<(&'static str, String)>) {
        if let Body::Published(published) = &record.body {
            self.version = self.version.max(published.terms.version);
        }
        if record.version > self.version && self.knows_all() {
            found.push(("version_unknown", format!("version {} is not published", record.version)));
        }
    }

    fn pointers(
        &mut self,
        record: &Record,
        position: Position,
        found: &mut Vec<(&'static str, String)>,
    ) {
        // Of who is erased the chain ends.
        let ends = self.erasure(record);
        if let Some((visitor, previous)) = record.previous_of_visitor() {
            let known = self.visitors.insert(visitor, (position, record.time));
            let anew = known.is_some_and(|(_, last)| {
                previous == Position::NONE && record.time.since(last) >= VISITOR_LIFE
            });
            let last = known.map_or(Position::NONE, |(last, _)| last);
            let ended = ends && previous == Position::NONE;
            if previous != last && !anew && !ended && !self.may_be_gone(previous, last) {
                let about =
                    format!("the visitor's last record is {}, and it names {}", last.0, previous.0);
                found.push(("visitor_pointer", about));
            }
        }
        if let Some(part) = record.lead_part() {
            let last = self.leads.insert(part.lead, position).unwrap_or_default();
            let ended = ends && part.previous == Position::NONE;
            if part.previous != last && !ended && !self.may_be_gone(part.previous, last) {
                let about = format!(
                    "the lead's last record is {}, and it names {}",
                    last.0, part.previous.0
                );
                found.push(("lead_pointer", about));
            }
        }
        if let Body::Hit(hit) = &record.body
            && let (Some(first), Some(visitor)) = (&hit.first, hit.hit.visitor)
            && first.position >= self.begins
            && !self.lossy
        {
            if first.position >= position {
                found.push(("first_hit", format!("it is said to be at {}", first.position.0)));
            } else {
                self.firsts.insert(first.position, visitor);
            }
        }
    }

    /// Whether a pointer may lead to a record that is not kept.
    fn may_be_gone(&self, previous: Position, last: Position) -> bool {
        let before = previous != Position::NONE && previous < self.begins;
        (before && last == Position::NONE) || (self.lossy && previous > last)
    }

    fn names(
        &mut self,
        record: &Record,
        position: Position,
        found: &mut Vec<(&'static str, String)>,
    ) {
        let named: &[Name] = match &record.body {
            Body::Named(names) => names,
            Body::Published(published) => &published.names,
            _ => &[],
        };
        let rules = named.iter().filter(|name| name.kind == NameKind::Rule);
        self.rules.extend(rules.map(|name| name.number));
        for row in rows(record) {
            if row.position > position {
                found.push(("row_position", format!("a row is said to be of {}", row.position.0)));
            }
            let known = row.rule.0 >= FIRST_RULE || self.rules.contains(&row.rule.0);
            if !known && self.knows_all() {
                found.push(("rule_unnamed", format!("no rule has the number {}", row.rule.0)));
            }
        }
    }

    fn messages(
        &mut self,
        record: &Record,
        entry: &Entry<'_>,
        found: &mut Vec<(&'static str, String)>,
    ) {
        let alert_id = |cause: &Cause<'_>| AlertId::derive(&self.past.install.alert, cause);
        if let Some(part) = record.lead_part() {
            let place = (entry.position, entry.incarnation);
            for (id, _) in messages(part, place, &alert_id) {
                self.told.insert(id.as_str().to_owned(), entry.position);
            }
        }
        let Body::Outbox(bytes) = &record.body else {
            return;
        };
        let Some(outbox) = Outbox::decode(bytes) else {
            return found.push(("outbox_entry", "it is no entry of the outbox".to_owned()));
        };
        let all = self.knows_all();
        match outbox {
            Outbox::Queued(queued) => {
                let cause = self.told.get(queued.alert.as_str()).copied();
                if all && cause != Some(queued.cause()) {
                    let about = format!("{} is not told by record {}", queued.alert, queued.cause);
                    found.push(("outbox_cause", about));
                }
                self.queued.insert(queued.alert.clone(), queued.lead_id());
            }
            Outbox::Digest(digest) => {
                for alert in digest.items.iter().filter_map(|item| item.alert.as_ref()) {
                    if all && !self.queued.contains_key(alert) {
                        found.push(("outbox_cause", format!("{alert} was never queued")));
                    }
                }
                self.queued.insert(digest.alert, None);
            }
            Outbox::Attempt(attempt) => {
                if all && !self.queued.contains_key(&attempt.alert) {
                    found.push(("outbox_attempt", format!("{} was never queued", attempt.alert)));
                }
            }
            Outbox::Disabled { .. } => {}
        }
    }

    fn sealed(
        &mut self,
        record: &Record,
        (position, place): (Position, &Place<'_>),
        report: &mut Report,
        found: &mut Vec<(&'static str, String)>,
    ) {
        let answer = answer_sealed(record, &self.queued);
        for (lead, bytes) in payloads(record).into_iter().chain(answer) {
            let Some(bytes) = bytes else {
                found.push(("sealed", format!("what is sealed for {lead} is not base 64")));
                continue;
            };
            let gone = self.past.erased.contains_key(&lead);
            if self.past.keys.unseal(lead, &bytes).is_some() {
                report.sealed.0 += 1;
            } else if gone {
                report.sealed.1 += 1;
            } else {
                let name = if self.past.keys.has(lead) { "sealed" } else { "key_missing" };
                let finding = || at(name, place, position, String::new());
                self.closed.entry(lead).or_insert_with(|| (finding(), 0)).1 += 1;
            }
        }
    }
}

/// Every row that a record brings.
fn rows(record: &Record) -> impl Iterator<Item = &Row> {
    let visit = match &record.body {
        Body::Hit(hit) => hit.visit.as_ref(),
        _ => None,
    };
    let visit = visit.into_iter().flat_map(|part| &part.rows);
    let lead = record.lead_part().into_iter().flat_map(|part: &LeadPart| &part.rows);
    visit.chain(lead)
}

/// Everything sealed in a record, and for whom; nothing where it is not even base 64.
fn payloads(record: &Record) -> Vec<(LeadId, Option<Vec<u8>>)> {
    let mut all = Vec::new();
    let mut add = |lead: LeadId, sealed: &[u8]| {
        if !sealed.is_empty() {
            all.push((lead, Some(sealed.to_vec())));
        }
    };
    match &record.body {
        Body::Hit(record) => {
            let hits: [Option<&Hit>; 2] =
                [Some(&record.hit), record.first.as_ref().map(|first| &first.hit)];
            for claim in hits.into_iter().flatten().filter_map(|hit| hit.claim.as_ref()) {
                if let Some(name) = claim.first() {
                    add(name.id, &claim.sealed);
                }
            }
        }
        Body::Step(record) => {
            if let Some((lead, sealed)) = words::parts(&record.reason) {
                add(lead, &sealed);
            }
            match &record.step {
                Step::Feedback(feedback) => add(feedback.origin, &feedback.sealed),
                Step::TakeIn(parcel) => {
                    let content = &parcel.content;
                    for feedback in &content.feedback {
                        add(feedback.origin, &feedback.sealed);
                    }
                    for said in content.said.iter().chain(&content.aside.said) {
                        add(said.under, &said.sealed);
                    }
                }
                _ => {}
            }
        }
        Body::Outbox(bytes) => match Outbox::decode(bytes) {
            Some(Outbox::Queued(queued)) => return sealed_bodies(&queued),
            Some(Outbox::Digest(digest)) => return sealed_lines(&digest),
            _ => {}
        },
        Body::Due(_) | Body::Published(_) | Body::Named(_) => {}
    }
    all
}

/// A receiver's answer, sealed for whoever the message is about.
fn answer_sealed(
    record: &Record,
    queued: &HashMap<String, Option<LeadId>>,
) -> Option<(LeadId, Option<Vec<u8>>)> {
    let Body::Outbox(bytes) = &record.body else {
        return None;
    };
    let Some(Outbox::Attempt(attempt)) = Outbox::decode(bytes) else {
        return None;
    };
    let lead = (*queued.get(&attempt.alert)?)?;
    let sealed = !attempt.answer_sealed.is_empty();
    sealed.then(|| (lead, from_base64(&attempt.answer_sealed)))
}

fn sealed_bodies(queued: &Queued) -> Vec<(LeadId, Option<Vec<u8>>)> {
    let Some(lead) = queued.lead_id() else {
        return Vec::new();
    };
    let bodies = queued.bodies.iter().flat_map(|body| [&body.sealed, &body.line]);
    let texts = std::iter::once(&queued.whole).chain(bodies);
    texts.filter(|text| !text.is_empty()).map(|text| (lead, from_base64(text))).collect()
}

fn sealed_lines(digest: &Digest) -> Vec<(LeadId, Option<Vec<u8>>)> {
    let line = |item: &crate::outbox::entry::Item| {
        Some((LeadId::parse(&item.lead)?, from_base64(&item.line)))
    };
    digest.items.iter().filter_map(line).collect()
}
