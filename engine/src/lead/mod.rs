//! A Lead is a person. `receive` decides what a hit earns them and which lines they cross;
//! `advance` what time alone does; `evolve` applies what was decided and decides nothing.

mod draft;

use crate::hit::{ATTRIBUTES_MAX, Attributes, Claim, Hit, HitKind};
use crate::id::{LeadId, Position, VisitorId};
use crate::identity::Assurance;
use crate::ledger::{self, Row, Source, apply_rows, canonical_rows};
use crate::record::{HitRecord, LeadPart, LinkPart};
use crate::scoring::Scoring;
use crate::threshold::{Band, Standing, Threshold};
use crate::time::Timestamp;
use crate::visitor::LeadEvent;

pub use crate::explain::{Explained, OTHER, explain, reasons, urgency};
use draft::Draft;

/// Browsers that may be tied to one person by proof. A further tie is refused and counted.
pub const LINKS_VERIFIED_MAX: usize = 500;
/// Browsers that may be tied to one person by a claim only.
pub const LINKS_CLAIMED_MAX: usize = 50;
/// Crossings that time alone may bring at once, before the rest waits for the next call.
const CROSSINGS_MAX: usize = 64;

/// A tie between this lead and a browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The browser.
    pub visitor: VisitorId,
    /// How sure.
    pub assurance: Assurance,
    /// When it was made.
    pub since: Timestamp,
}

/// How a lead came to be known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KnownBy {
    /// A form or a call in a browser.
    #[default]
    Form,
    /// A server with our key.
    Server,
}

/// When time alone brings a crossing. Derived, so neither stored nor hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Due {
    /// Not worked out yet.
    #[default]
    Unknown,
    /// As things stand, never.
    Never,
    /// Then.
    At(Timestamp),
}

/// What is remembered of a person.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lead {
    /// When they were first known.
    pub known_since: Timestamp,
    /// By what.
    pub known_by: KnownBy,
    /// When they were first seen, perhaps as nobody.
    pub first_seen: Timestamp,
    /// The first record of theirs.
    pub first_position: Position,
    /// Their last record: the end of the chain of back pointers.
    pub last_position: Position,
    /// Their ledger.
    pub rows: Vec<Row>,
    /// Their browsers.
    pub links: Vec<Link>,
    /// How sure we are that they exist: verified as soon as a server or a proof said so.
    pub assurance: Assurance,
    /// What verified them: an event's name, or `server`.
    pub confirmed_by: String,
    /// What is known of them. Plain in memory, sealed in the journal.
    pub attributes: Attributes,
    /// Whether they let us track them.
    pub consent: bool,
    /// When a person was last seen.
    pub last_human: Option<Timestamp>,
    /// The latest `when` of any hit of a browser of theirs.
    pub last_when: Timestamp,
    /// Until when time has been acted on.
    pub settled: Timestamp,
    /// Where they stand with each line.
    pub bands: Vec<Band>,
    /// Hits, those that came along included.
    pub hits: u32,
    /// Page views.
    pub pages: u32,
    /// Visits.
    pub visits: u32,
    /// Anonymous hits that came along.
    pub attached: u32,
    /// Messages about them so far.
    pub sequence: u32,
    /// Whether they came under a test key.
    pub test: bool,
    /// When time alone will bring the next crossing. Derived.
    pub(crate) due: Due,
    /// Under which moment the lead stands in its slot's timers. Derived.
    pub(crate) queued: Option<Timestamp>,
}

/// What the lead stage decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// The lead's part of the record.
    Part(Box<LeadPart>),
    /// The lead has as many browsers as it may have: the tie is refused.
    TooManyLinks,
}

impl Lead {
    /// Whether anybody ever said who this is. An entry that is not so is absent.
    pub fn exists(&self) -> bool {
        self.last_position != Position::NONE
    }

    /// Decides what a hit, and the first one if it admits its visitor, earns and which lines
    /// are crossed.
    pub fn receive(
        &self,
        event: &LeadEvent,
        record: &HitRecord,
        scoring: &Scoring,
        now: Timestamp,
    ) -> Receipt {
        if self.refuses(event.link.as_ref()) {
            return Receipt::TooManyLinks;
        }
        let mut draft = Draft::new(self, scoring);
        draft.let_time_pass(now);
        let before = draft.standing_before(event, now);
        let hit = &record.hit;
        let settled = draft.earn(event, hit);
        draft.take_facts(record, event);
        let because = settled.new.iter().filter(|row| row.position == Position::NONE);
        let because = because.filter(|row| row.granted.0 > 0).max_by_key(|row| row.granted);
        draft.cross(&settled.rows, &before, because, now);
        Receipt::Part(Box::new(LeadPart {
            lead: event.lead,
            previous: self.last_position,
            takes_attributes: self.takes_attributes(record, event.lead),
            new_visit: event.new_visit,
            link: event.link.clone(),
            rows: settled.new,
            regrants: settled.regrants,
            fold: settled.fold,
            crossings: draft.crossings,
        }))
    }

    /// Decides what time alone does until `now`; nothing, if it does nothing.
    pub fn advance(&self, id: LeadId, scoring: &Scoring, now: Timestamp) -> Option<LeadPart> {
        let mut draft = Draft::new(self, scoring);
        draft.let_time_pass(now);
        (!draft.crossings.is_empty()).then(|| LeadPart {
            lead: id,
            previous: self.last_position,
            crossings: draft.crossings,
            ..LeadPart::default()
        })
    }

    /// The first moment at which time alone brings a crossing.
    pub fn next_due(&self, scoring: &Scoring) -> Option<Timestamp> {
        let draft = Draft::new(self, scoring);
        let total = ledger::total(&self.rows, scoring);
        let end = Timestamp(u64::MAX);
        let next = draft.next_crossing(&total, &draft.moved(&total), self.settled, end)?;
        Some(next.at)
    }

    /// Whether a record may have moved the moment at which time alone brings a crossing.
    pub(crate) fn is_due_stale(&self, part: &LeadPart, record: &HitRecord) -> bool {
        let rows_changed =
            !(part.rows.is_empty() && part.regrants.is_empty() && part.fold.is_none());
        // Somebody seen lately may rise when a minus fades.
        let may_rise = record.hit.is_human() && self.rows.iter().any(|row| row.granted.0 < 0);
        self.due == Due::Unknown
            || rows_changed
            || may_rise
            || part.link.is_some()
            || !part.crossings.is_empty()
            || record.hit.claim.is_some()
    }

    /// Where the lead stands with a line: never in yet, if it was not.
    pub fn band(&self, line: &Threshold) -> Band {
        let known = self.bands.iter().find(|band| band.threshold == line.id);
        known.copied().unwrap_or_else(|| Band::new(line.id))
    }

    /// The figures the gates look at, at a moment.
    pub fn standing(&self, scoring: &Scoring, now: Timestamp) -> Standing {
        Draft::new(self, scoring).course(&ledger::total(&self.rows, scoring)).at(now)
    }

    /// Whether a source of rows is tied to this person by a claim only.
    pub fn is_claimed(&self, source: Source) -> bool {
        is_claimed(&self.links, source)
    }

    fn refuses(&self, link: Option<&LinkPart>) -> bool {
        let Some(link) = link else {
            return false;
        };
        let known = self.links.iter().any(|known| known.visitor == link.visitor);
        let claimed = self.links.iter().filter(|known| known.assurance == Assurance::Claimed);
        let full = match link.assurance {
            Assurance::Claimed => claimed.count() >= LINKS_CLAIMED_MAX,
            Assurance::Verified => self.links.len() >= LINKS_VERIFIED_MAX,
        };
        !known && full
    }

    /// A claim never changes what is known of a verified person.
    fn takes_attributes(&self, record: &HitRecord, id: LeadId) -> bool {
        let mut said = claims_of(record, id);
        said.any(|claim| claim.assurance >= self.assurance)
    }

    /// Applies a lead's part of a record. `hits` is the record's, if it has any.
    pub fn evolve(
        &mut self,
        part: &LeadPart,
        hits: Option<&HitRecord>,
        time: Timestamp,
        position: Position,
    ) {
        let hit = hits.map(|record| &record.hit);
        if !self.exists() {
            self.begin(hit, time, position);
        }
        if let Some(link) = &part.link {
            self.tie(link, time);
        }
        if let Some(record) = hits {
            self.take(&record.hit, part);
            for claim in claims_of(record, part.lead) {
                self.believe(claim, &record.hit, part);
            }
            self.consent = consent_of(record).unwrap_or(self.consent);
        }
        apply_rows(&mut self.rows, &part.rows, &part.regrants, part.fold.as_ref(), position);
        for crossed in &part.crossings {
            let crossing = &crossed.crossing;
            let index = self.bands.iter().position(|band| band.threshold == crossing.threshold);
            let index = index.unwrap_or_else(|| {
                self.bands.push(Band::new(crossing.threshold));
                self.bands.len() - 1
            });
            self.bands[index] = self.bands[index].after(crossing);
            self.sequence = self.sequence.saturating_add(u32::from(crossing.told));
        }
        self.settled = self.settled.max(time);
        self.last_position = position;
    }

    fn begin(&mut self, hit: Option<&Hit>, time: Timestamp, position: Position) {
        self.known_since = time;
        self.first_seen = hit.map_or(time, |hit| hit.when);
        self.first_position = position;
        self.consent = true;
        self.test = hit.is_some_and(|hit| hit.test);
        self.known_by = match hit {
            Some(hit) if hit.by_server => KnownBy::Server,
            _ => KnownBy::Form,
        };
    }

    fn tie(&mut self, link: &LinkPart, time: Timestamp) {
        match self.links.iter_mut().find(|known| known.visitor == link.visitor) {
            Some(known) => known.assurance = known.assurance.max(link.assurance),
            None => self.links.push(Link {
                visitor: link.visitor,
                assurance: link.assurance,
                since: time,
            }),
        }
        let Some(history) = link.history.filter(|history| history.hits > 0) else {
            return;
        };
        self.attached = self.attached.saturating_add(history.hits);
        self.hits = self.hits.saturating_add(history.hits);
        self.pages = self.pages.saturating_add(history.pages);
        self.visits = self.visits.saturating_add(history.visits);
        self.last_when = self.last_when.max(history.last_when);
        if history.last_human.0 > 0 {
            self.last_human = self.last_human.max(Some(history.last_human));
        }
        if history.first_seen < self.first_seen {
            self.first_seen = history.first_seen;
            self.first_position = history.first_position;
        }
    }

    /// Counts one hit.
    fn take(&mut self, hit: &Hit, part: &LeadPart) {
        self.hits = self.hits.saturating_add(1);
        self.pages = self.pages.saturating_add(u32::from(hit.kind == HitKind::PageView));
        self.visits = self.visits.saturating_add(u32::from(part.new_visit));
        // What a server says of a person is no visit, from which a return would count.
        if hit.visitor.is_some() {
            self.last_when = self.last_when.max(hit.when);
        }
        if hit.is_human() {
            self.last_human = self.last_human.max(Some(hit.when));
        }
    }

    fn believe(&mut self, claim: &Claim, hit: &Hit, part: &LeadPart) {
        // Of two claims in one record the first may have been believed and verified already.
        let believed = part.takes_attributes && claim.assurance >= self.assurance;
        if claim.assurance > self.assurance {
            self.assurance = claim.assurance;
            let by = if hit.event.is_empty() { "server" } else { &hit.event };
            by.clone_into(&mut self.confirmed_by);
        }
        if believed {
            for (name, value) in &claim.attributes {
                if self.attributes.len() < ATTRIBUTES_MAX || self.attributes.contains_key(name) {
                    self.attributes.insert(name.clone(), value.clone());
                }
            }
        }
    }

    /// Everything that replay must restore, in a fixed form: what the state hash is taken of.
    pub fn canonical(&self, out: &mut Vec<u8>) {
        for value in [
            self.known_since.0,
            u64::from(self.known_by == KnownBy::Server),
            self.first_seen.0,
            self.first_position.0,
            self.last_position.0,
            self.assurance as u64,
            u64::from(self.consent),
            self.last_human.map_or(0, |seen| seen.0.saturating_add(1)),
            self.last_when.0,
            self.settled.0,
            u64::from(self.hits),
            u64::from(self.pages),
            u64::from(self.visits),
            u64::from(self.attached),
            u64::from(self.sequence),
            u64::from(self.test),
        ] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        for link in &self.links {
            out.extend_from_slice(&link.visitor.0.to_le_bytes());
            out.extend_from_slice(&[link.assurance as u8]);
            out.extend_from_slice(&link.since.0.to_le_bytes());
        }
        for band in &self.bands {
            let optional =
                |time: Option<Timestamp>| time.map_or(0, |time| time.0.saturating_add(1));
            out.extend_from_slice(&[band.threshold.0, u8::from(band.inside), u8::from(band.told)]);
            for value in [
                band.since.0,
                u64::from(band.number),
                optional(band.waits_until),
                optional(band.last_told),
            ] {
                out.extend_from_slice(&value.to_le_bytes());
            }
        }
        for text in std::iter::once(&self.confirmed_by)
            .chain(self.attributes.iter().flat_map(|(name, value)| [name, value]))
        {
            out.extend_from_slice(&(text.len() as u64).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        canonical_rows(&self.rows, out);
    }
}

/// What a record says of this very person, the first hit before the second. What it says of
/// somebody else, whose hit it is not, proves nothing here.
fn claims_of(record: &HitRecord, id: LeadId) -> impl Iterator<Item = &Claim> {
    let hits = record.first.iter().map(|first| &first.hit).chain([&record.hit]);
    hits.filter_map(|hit| hit.claim.as_ref()).filter(move |claim| claim.lead == id)
}

/// Whether whoever sits at the browser lets us track them, if a record says so: the last word.
fn consent_of(record: &HitRecord) -> Option<bool> {
    let hits = record.first.iter().map(|first| &first.hit).chain([&record.hit]);
    hits.filter_map(|hit| hit.claim.as_ref()?.consent).next_back()
}

fn is_claimed(links: &[Link], source: Source) -> bool {
    let Source::Visitor(visitor) = source else {
        return false;
    };
    let link = links.iter().find(|link| link.visitor == visitor);
    link.is_none_or(|link| link.assurance == Assurance::Claimed)
}
