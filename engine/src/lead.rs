//! A Lead is a person. `receive` decides what a hit earns them and which lines they cross;
//! `advance` what time alone does; `evolve` applies what was decided and decides nothing.

use std::time::Duration;

use crate::decay::{Sum, Total};
use crate::grade::Grade;
use crate::hit::{ATTRIBUTES_MAX, Attributes, Hit, HitKind};
use crate::id::{CategoryId, LeadId, Position, RuleId, VisitorId};
use crate::identity::Assurance;
use crate::ledger::{self, Cut, Row, Source};
use crate::record::{Because, Crossed, LeadPart, LinkPart, Reason, Told};
use crate::rule::Points;
use crate::scoring::Scoring;
use crate::stage::Stage;
use crate::threshold::{Band, Course, Crossing, Direction, Gate, Standing, Threshold};
use crate::time::Timestamp;
use crate::visitor::{LeadEvent, Settled, apply_rows, canonical_rows, settle_with};

/// Browsers that may be tied to one person by proof. A further tie is refused and counted.
pub const LINKS_VERIFIED_MAX: usize = 500;
/// Browsers that may be tied to one person by a claim only.
pub const LINKS_CLAIMED_MAX: usize = 50;
/// Crossings that time alone may bring at once, before the rest waits for the next call.
const CROSSINGS_MAX: usize = 64;
/// Reasons listed in a message; the rest is one more, of no rule.
const REASONS_MAX: usize = 20;

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
    /// The latest `when` of any hit.
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

/// A lead's figures at a moment, row by row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explained {
    /// The score: the categories in the total.
    pub score: Points,
    /// Every category's value, in file order, also of those outside the total.
    pub categories: Vec<(CategoryId, Points)>,
    /// Every row's share of its category's value; they add up to it.
    pub shares: Vec<(Row, Points)>,
}

/// What a ledger is worth at a moment, row by row, adding up exactly.
pub fn explain(rows: &[Row], scoring: &Scoring, at: Timestamp) -> Explained {
    let mut explained = Explained::default();
    for category in &scoring.categories {
        let own: Vec<Row> =
            rows.iter().filter(|row| row.category == category.id).copied().collect();
        let amounts: Vec<_> = own.iter().map(|row| (row.when, row.granted)).collect();
        let sum = Sum::of(category.half_life, amounts.iter().copied());
        let value = sum.value(at);
        if category.in_total {
            explained.score.0 += value.0;
        }
        explained.categories.push((category.id, value));
        explained.shares.extend(own.into_iter().zip(sum.shares(at, &amounts)));
    }
    explained.shares.sort_by_key(|(row, _)| (row.when, row.position, row.order));
    explained
}

/// The value of the same rows, those in the total, with the short memory of urgency.
pub fn urgency(rows: &[Row], scoring: &Scoring, at: Timestamp) -> Points {
    let counted =
        |row: &Row| scoring.category(row.category).is_some_and(|category| category.in_total);
    ledger::sum(rows, scoring.urgency.half_life, counted).value(at)
}

impl Lead {
    /// Whether anybody ever said who this is. An entry that is not so is absent.
    pub fn exists(&self) -> bool {
        self.last_position != Position::NONE
    }

    /// Decides what a hit earns and which lines are crossed.
    pub fn receive(
        &self,
        event: &LeadEvent,
        hit: &Hit,
        scoring: &Scoring,
        now: Timestamp,
    ) -> Receipt {
        if self.refuses(event.link.as_ref()) {
            return Receipt::TooManyLinks;
        }
        let mut draft = Draft::new(self, scoring);
        draft.let_time_pass(now);
        let before = draft.standing_before(event, now);
        let settled = draft.earn(event, hit);
        draft.take_facts(hit, event, now);
        let because = settled.new.iter().filter(|row| row.position == Position::NONE);
        let because = because.filter(|row| row.granted.0 > 0).max_by_key(|row| row.granted);
        draft.cross(&settled.rows, &before, because, now);
        Receipt::Part(Box::new(LeadPart {
            lead: event.lead,
            previous: self.last_position,
            takes_attributes: self.takes_attributes(hit),
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
        let next = draft.next_crossing(&total, self.settled, end)?;
        Some(next.at)
    }

    /// Whether a record may have moved the moment at which time alone brings a crossing.
    pub(crate) fn is_due_stale(&self, part: &LeadPart, hit: &Hit) -> bool {
        let rows_changed =
            !(part.rows.is_empty() && part.regrants.is_empty() && part.fold.is_none());
        // Somebody seen lately may rise when a minus fades.
        let may_rise = hit.is_human() && self.rows.iter().any(|row| row.granted.0 < 0);
        self.due == Due::Unknown
            || rows_changed
            || may_rise
            || part.link.is_some()
            || !part.crossings.is_empty()
            || hit.claim.is_some()
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
    fn takes_attributes(&self, hit: &Hit) -> bool {
        hit.claim.as_ref().is_some_and(|claim| claim.assurance >= self.assurance)
    }

    /// Applies a lead's part of a record. `hit` is the record's, if it has one.
    pub fn evolve(
        &mut self,
        part: &LeadPart,
        hit: Option<&Hit>,
        time: Timestamp,
        position: Position,
    ) {
        if !self.exists() {
            self.begin(hit, time, position);
        }
        if let Some(link) = &part.link {
            self.tie(link, time);
        }
        if let Some(hit) = hit {
            self.take(hit, part);
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
            self.sequence += u32::from(crossing.told);
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
        self.last_when = self.last_when.max(hit.when);
        if hit.is_human() {
            self.last_human = self.last_human.max(Some(hit.when));
        }
        let Some(claim) = &hit.claim else {
            return;
        };
        if let Some(consent) = claim.consent {
            self.consent = consent;
        }
        if claim.assurance > self.assurance {
            self.assurance = claim.assurance;
            let by = if hit.event.is_empty() { "server" } else { &hit.event };
            by.clone_into(&mut self.confirmed_by);
        }
        if part.takes_attributes {
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
            self.last_human.map_or(0, |seen| seen.0 + 1),
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
            let optional = |time: Option<Timestamp>| time.map_or(0, |time| time.0 + 1);
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

fn is_claimed(links: &[Link], source: Source) -> bool {
    let Source::Visitor(visitor) = source else {
        return false;
    };
    let link = links.iter().find(|link| link.visitor == visitor);
    link.is_none_or(|link| link.assurance == Assurance::Claimed)
}

/// The lead as it will be, as far as deciding needs it.
struct Draft<'a> {
    lead: &'a Lead,
    scoring: &'a Scoring,
    /// In the order of the file's thresholds.
    bands: Vec<Band>,
    links: Vec<Link>,
    assurance: Assurance,
    identified: bool,
    consent: bool,
    last_human: Option<Timestamp>,
    crossings: Vec<Crossed>,
    sequence: u32,
}

impl<'a> Draft<'a> {
    fn new(lead: &'a Lead, scoring: &'a Scoring) -> Draft<'a> {
        let exists = lead.exists();
        Draft {
            lead,
            scoring,
            bands: scoring.thresholds.iter().map(|line| lead.band(line)).collect(),
            links: lead.links.clone(),
            assurance: lead.assurance,
            identified: exists,
            consent: lead.consent || !exists,
            last_human: lead.last_human,
            crossings: Vec::new(),
            sequence: lead.sequence,
        }
    }

    fn course<'b>(&self, score: &'b Total) -> Course<'b> {
        Course {
            score,
            grade: Grade::Unknown,
            identified: self.identified,
            consent: self.consent,
            last_human: self.last_human,
        }
    }

    /// The standing just before a hit; of someone nobody knew, that of their history.
    fn standing_before(&self, event: &LeadEvent, now: Timestamp) -> Standing {
        if self.lead.exists() {
            return self.course(&ledger::total(&self.lead.rows, self.scoring)).at(now);
        }
        let history = event.link.as_ref().and_then(|link| link.history);
        let last_human = history.map(|history| history.last_human).filter(|seen| seen.0 > 0);
        let score = ledger::total(&event.carried, self.scoring);
        Course { last_human, ..self.course(&score) }.at(now)
    }

    /// Acts on every moment since the lead was last settled, each at its exact instant.
    fn let_time_pass(&mut self, now: Timestamp) {
        let nothing_due = match self.lead.due {
            Due::Never => true,
            Due::At(due) => due > now,
            Due::Unknown => !self.lead.exists(),
        };
        if nothing_due {
            return;
        }
        let total = ledger::total(&self.lead.rows, self.scoring);
        let mut from = self.lead.settled;
        while self.crossings.len() < CROSSINGS_MAX {
            let Some(crossing) = self.next_crossing(&total, from, now) else {
                return;
            };
            from = crossing.at;
            let stage = self.scoring.stage(&self.bands);
            self.apply(crossing, &self.lead.rows, None, stage);
        }
    }

    fn next_crossing(&self, total: &Total, from: Timestamp, until: Timestamp) -> Option<Crossing> {
        let course = self.course(total);
        let standing = course.at(from);
        let lines = self.scoring.thresholds.iter().zip(&self.bands);
        // Whoever could have risen at the last hit and did not is not told by time: the line
        // has moved since, and a changed rule alone tells nobody.
        let moved =
            |line: &Threshold, band: &Band| !band.inside && line.is_in_reach(&standing, from);
        lines
            .filter(|(line, band)| !moved(line, band))
            .filter_map(|(line, band)| line.next(band, &course, Gate::Score, from, until))
            .min_by_key(|crossing| crossing.at)
    }

    /// The ledger with what the hit earns.
    fn earn(&mut self, event: &LeadEvent, hit: &Hit) -> Settled {
        let mut surer = false;
        if let Some(link) = &event.link {
            match self.links.iter_mut().find(|known| known.visitor == link.visitor) {
                Some(known) => {
                    surer = link.assurance > known.assurance;
                    known.assurance = known.assurance.max(link.assurance);
                }
                None => self.links.push(Link {
                    visitor: link.visitor,
                    assurance: link.assurance,
                    since: hit.received,
                }),
            }
        }
        let mut new: Vec<Row> = event.carried.clone();
        for row in &event.rows {
            new.push(Row { cut: self.away_long_enough(row), ..*row });
        }
        let links = &self.links;
        let claimed = |source: Source| is_claimed(links, source);
        settle_with(&self.lead.rows, &new, surer, self.scoring, &claimed)
    }

    /// A return counts only if the person, on whatever browser, was away as long.
    fn away_long_enough(&self, row: &Row) -> Cut {
        let rule = self.scoring.rules.rule(row.rule);
        let away = rule.and_then(|rule| rule.when.return_after);
        let seen = self.lead.exists();
        let too_short = |away: Duration| {
            seen && row.when >= self.lead.last_when && row.when.since(self.lead.last_when) < away
        };
        if away.is_some_and(too_short) { Cut::NotAway } else { Cut::None }
    }

    fn take_facts(&mut self, hit: &Hit, event: &LeadEvent, now: Timestamp) {
        self.identified = true;
        let history = event.link.as_ref().and_then(|link| link.history);
        if let Some(seen) = history.map(|history| history.last_human).filter(|seen| seen.0 > 0) {
            self.last_human = self.last_human.max(Some(seen));
        }
        if hit.is_human() {
            self.last_human = self.last_human.max(Some(hit.when.min(now)));
        }
        if let Some(claim) = &hit.claim {
            self.consent = claim.consent.unwrap_or(self.consent);
            self.assurance = self.assurance.max(claim.assurance);
        }
    }

    /// Crosses whatever is to be crossed at this very moment.
    fn cross(&mut self, rows: &[Row], before: &Standing, because: Option<&Row>, now: Timestamp) {
        let total = ledger::total(rows, self.scoring);
        let stage_before = self.scoring.stage(&self.bands);
        for index in 0..self.bands.len() {
            let line = &self.scoring.thresholds[index];
            let course = self.course(&total);
            let after = course.at(now);
            let opened = Gate::ALL
                .into_iter()
                .find(|gate| !line.is_open(*gate, before, now) && line.is_open(*gate, &after, now));
            let opened = opened.unwrap_or(Gate::Score);
            if let Some(crossing) = line.next(&self.bands[index], &course, opened, now, now) {
                self.apply(crossing, rows, because, stage_before);
            }
        }
    }

    fn apply(
        &mut self,
        crossing: Crossing,
        rows: &[Row],
        because: Option<&Row>,
        previous_stage: Stage,
    ) {
        if let Some(band) = self.bands.iter_mut().find(|band| band.threshold == crossing.threshold)
        {
            *band = band.after(&crossing);
        }
        let because = because.filter(|_| crossing.direction == Direction::Rise);
        let told = crossing.told.then(|| {
            self.sequence += 1;
            Told { previous_stage, ..self.tell(rows, crossing.at, because) }
        });
        self.crossings.push(Crossed { crossing, told });
    }

    /// The figures of a message at a moment.
    fn tell(&self, rows: &[Row], at: Timestamp, because: Option<&Row>) -> Told {
        let scoring = self.scoring;
        let explained = explain(rows, scoring, at);
        let in_total =
            |row: &Row| scoring.category(row.category).is_some_and(|category| category.in_total);
        let day_ago = at.minus(Duration::from_hours(24));
        let then: Vec<Row> = rows.iter().filter(|row| row.when <= day_ago).copied().collect();
        let counted = explained.shares.iter().filter(|(row, _)| in_total(row));
        let unconfirmed = counted
            .clone()
            .filter(|(row, _)| is_claimed(&self.links, row.source))
            .map(|(_, share)| share.0)
            .sum();
        let held = rows.iter().filter(|row| row.cut.counted() && row.base.0 > 0 && in_total(row));
        Told {
            sequence: self.sequence,
            score: explained.score,
            before_24h: ledger::total(&then, scoring).value(day_ago),
            urgency: urgency(rows, scoring, at),
            unconfirmed: Points(unconfirmed),
            held_back: Points(held.map(|row| row.base.0 - row.granted.0).sum()),
            grade: Grade::Unknown,
            stage: scoring.stage(&self.bands),
            previous_stage: Stage::default(),
            assurance: self.assurance,
            categories: explained
                .categories
                .iter()
                .filter(|(id, _)| scoring.category(*id).is_some_and(|category| category.in_total))
                .copied()
                .collect(),
            reasons: reasons(counted),
            because: because.map(|row| Because {
                rule: row.rule,
                points: row.granted,
                at: row.when,
            }),
        }
    }
}

/// Shares grouped by rule, largest first, cut to a number; they add up to what they did.
pub fn reasons<'a>(shares: impl Iterator<Item = &'a (Row, Points)>) -> Vec<Reason> {
    let mut reasons: Vec<Reason> = Vec::new();
    for (row, share) in shares {
        let index = reasons.iter().position(|reason| reason.rule == row.rule);
        let index = index.unwrap_or_else(|| {
            reasons.push(Reason { rule: row.rule, ..Reason::default() });
            reasons.len() - 1
        });
        let reason = &mut reasons[index];
        reason.points.0 += share.0;
        if row.cut.counted() {
            reason.times += 1;
            reason.last = reason.last.max(row.when);
        }
    }
    reasons.retain(|reason| reason.times > 0 && reason.points.0 != 0);
    reasons.sort_by(|a, b| b.points.cmp(&a.points).then(a.rule.cmp(&b.rule)));
    if reasons.len() > REASONS_MAX {
        let other = reasons.split_off(REASONS_MAX);
        reasons.push(Reason {
            rule: OTHER,
            times: other.iter().map(|reason| reason.times).sum(),
            points: Points(other.iter().map(|reason| reason.points.0).sum()),
            last: other.iter().map(|reason| reason.last).max().unwrap_or_default(),
        });
    }
    reasons
}

/// The rule of the last reason, when more rules contributed than a message lists.
pub const OTHER: RuleId = RuleId(u16::MAX);
