//! A Visitor is a browser. `visit` decides, from what the browser did before, which rules match
//! and whom the hit belongs to; `evolve` applies what was decided. The first changes nothing,
//! the second decides nothing.

use std::time::Duration;

use crate::hit::{Hit, HitKind};
use crate::id::{Key, LeadId, Position, VisitorId};
use crate::identity::{Assurance, IdentityKind};
use crate::ledger::{Row, Source, apply_fold, apply_rows, canonical_rows, fold_for, settle_with};
use crate::record::{Bound, FirstHit, History, HitRecord, LinkPart, Seen, VisitPart};
use crate::rule::{Rule, Sighting};
use crate::scoring::Scoring;
use crate::session::{SESSION_GAP, Session};
use crate::time::Timestamp;

/// Pages a visitor's windows may look back on. Older ones are no longer counted.
pub const SEEN_MAX: usize = 256;
/// Hit ids kept to tell repeats.
pub const HIT_IDS_MAX: usize = 64;
/// How long a hit id tells a repeat.
pub const HIT_ID_LIFE: Duration = Duration::from_hours(24);
/// Page views whose engaged time is followed at once: tabs somebody has open.
pub const OPEN_PAGES_MAX: usize = 8;
/// A browser that was away for longer is a new visitor: its cookie has died too.
pub const VISITOR_LIFE: Duration = Duration::from_hours(400 * 24);

/// What is remembered of a browser.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Visitor {
    /// Its present or last visit.
    pub session: Session,
    /// When it was first seen.
    pub first_seen: Timestamp,
    /// Hits, the one that admitted it and its first included.
    pub hits: u32,
    /// Page views.
    pub pages: u32,
    /// The latest `when` of any hit.
    pub last_when: Timestamp,
    /// When a person was last seen behind it.
    pub last_human: Option<Timestamp>,
    /// Its last record: the end of the chain of back pointers.
    pub last_position: Position,
    /// Who it is, if somebody said so.
    pub bound: Option<Binding>,
    /// What it did since it was last nobody's.
    pub stretch: Stretch,
    /// Its own ledger: also of what it did while it was somebody.
    pub rows: Vec<Row>,
    seen: Vec<Seen>,
    open_pages: Vec<OpenPage>,
    hit_ids: Vec<HitId>,
}

/// Whom a visitor is tied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The lead.
    pub lead: LeadId,
    /// The kind of identity that tied them.
    pub kind: IdentityKind,
    /// How sure.
    pub assurance: Assurance,
}

/// A run of hits that are nobody's, and come along when somebody says whose they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stretch {
    /// Rows of records after this one belong to it.
    pub after: Position,
    /// Its first record.
    pub first_position: Position,
    /// When it began.
    pub first_seen: Timestamp,
    /// The latest `when` in it.
    pub last_when: Timestamp,
    /// When a person was last seen in it.
    pub last_human: Timestamp,
    /// Visits before it.
    pub visits_before: u32,
    /// Its hits.
    pub hits: u32,
    /// Its page views.
    pub pages: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OpenPage {
    key: u64,
    engaged_ms: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HitId {
    id: u64,
    received: Timestamp,
    position: Position,
}

/// What the visitor stage hands to the lead stage: whose hit it is, and what it may earn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeadEvent {
    /// The lead.
    pub lead: LeadId,
    /// Where the new rows come from.
    pub source: Source,
    /// The new rows, not settled.
    pub rows: Vec<Row>,
    /// Rows of the anonymous history, with the positions they had.
    pub carried: Vec<Row>,
    /// The tie, if it is made or made surer.
    pub link: Option<LinkPart>,
    /// Whether the hit opens a visit of this person's.
    pub new_visit: bool,
}

/// What the visitor stage decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Visit {
    /// Something to record.
    New {
        /// The visitor's part of the record.
        part: Box<VisitPart>,
        /// For the lead stage, if the hit is somebody's.
        event: Option<Box<LeadEvent>>,
    },
    /// The same hit again, first recorded there.
    Duplicate(Position),
}

impl Visitor {
    /// Whether the browser was away for so long that it is forgotten.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now.since(self.session.last) >= VISITOR_LIFE
    }

    /// Decides a hit. `first` is the visitor's first hit, recorded before it was admitted.
    pub fn visit(&self, first: Option<&FirstHit>, hit: &Hit, scoring: &Scoring) -> Visit {
        if let Some(known) = self.repeated(hit) {
            return Visit::Duplicate(known);
        }
        let mut draft = Draft::new(self, hit.visitor.unwrap_or_default());
        // Who is here already was admitted by another hit.
        let first = first.filter(|_| self.hits == 0);
        if let Some(first) = first {
            draft.step(&first.hit, scoring);
        }
        draft.step(hit, scoring);
        draft.finish(first, hit.received, scoring)
    }

    fn repeated(&self, hit: &Hit) -> Option<Position> {
        let same =
            |known: &&HitId| known.id == hit.id && hit.received.since(known.received) < HIT_ID_LIFE;
        let known = self.hit_ids.iter().filter(|_| hit.id != 0).find(same)?;
        Some(known.position)
    }

    /// Applies a record. `position` is the record's.
    pub fn evolve(&mut self, record: &HitRecord, position: Position) {
        let Some(part) = &record.visit else {
            return;
        };
        let first = record.first.as_ref().filter(|_| self.hits == 0);
        if let Some(first) = first {
            self.take(&first.hit, first.position);
        }
        match part.bound {
            Some(Bound::To { lead, kind, assurance }) => {
                self.bound = Some(Binding { lead, kind, assurance });
            }
            Some(Bound::Reset) => self.bound = None,
            None => {}
        }
        self.take(&record.hit, position);
        if matches!(part.bound, Some(Bound::Reset)) {
            self.stretch = Stretch {
                after: position,
                visits_before: self.session.number,
                ..Stretch::default()
            };
        }
        for seen in &part.seen {
            self.remember(*seen);
        }
        apply_rows(&mut self.rows, &part.rows, &part.regrants, part.fold.as_ref(), position);
        self.last_position = position;
    }

    /// Counts one hit.
    fn take(&mut self, hit: &Hit, position: Position) {
        if self.hits == 0 {
            self.first_seen = hit.when;
        }
        let visits_before = self.session.number;
        self.session = self.session.after(hit.received);
        self.hits = self.hits.saturating_add(1);
        self.pages = self.pages.saturating_add(u32::from(hit.kind == HitKind::PageView));
        self.last_when = self.last_when.max(hit.when);
        if hit.is_human() {
            self.last_human = self.last_human.max(Some(hit.when));
        }
        if hit.id != 0 {
            if self.hit_ids.len() == HIT_IDS_MAX {
                self.hit_ids.remove(0);
            }
            self.hit_ids.push(HitId { id: hit.id, received: hit.received, position });
        }
        self.follow_page(hit);
        if self.bound.is_none() {
            let stretch = &mut self.stretch;
            if stretch.hits == 0 {
                stretch.first_position = position;
                stretch.first_seen = hit.when;
                stretch.visits_before = visits_before;
            }
            stretch.last_when = stretch.last_when.max(hit.when);
            if hit.is_human() {
                stretch.last_human = stretch.last_human.max(hit.when);
            }
            stretch.hits = stretch.hits.saturating_add(1);
            stretch.pages = stretch.pages.saturating_add(u32::from(hit.kind == HitKind::PageView));
        }
    }

    fn follow_page(&mut self, hit: &Hit) {
        let key = page_key(hit);
        let engaged_ms = match hit.kind {
            HitKind::PageView => 0,
            HitKind::Engagement => hit.engaged_ms,
            HitKind::Event | HitKind::Identify | HitKind::Reset => return,
        };
        if let Some(open) = self.open_pages.iter_mut().find(|page| page.key == key) {
            let restarted = hit.kind == HitKind::PageView && hit.page == 0;
            open.engaged_ms = if restarted { 0 } else { open.engaged_ms.max(engaged_ms) };
            return;
        }
        if self.open_pages.len() == OPEN_PAGES_MAX {
            self.open_pages.remove(0);
        }
        self.open_pages.push(OpenPage { key, engaged_ms });
    }

    fn remember(&mut self, seen: Seen) {
        let same = |known: &&mut Seen| known.rule == seen.rule && known.page == seen.page;
        if let Some(known) = self.seen.iter_mut().find(same) {
            known.when = known.when.max(seen.when);
            return;
        }
        if self.seen.len() == SEEN_MAX {
            self.seen.remove(0);
        }
        self.seen.push(seen);
    }

    /// Everything that replay must restore, in a fixed form: what the state hash is taken of.
    pub fn canonical(&self, out: &mut Vec<u8>) {
        let mut word = |value: u64| out.extend_from_slice(&value.to_le_bytes());
        let bound = self
            .bound
            .map_or([0; 3], |bound| [bound.lead.0, bound.kind as u64 + 1, bound.assurance as u64]);
        let stretch = &self.stretch;
        for value in [
            self.session.started.0,
            self.session.last.0,
            u64::from(self.session.number),
            self.first_seen.0,
            u64::from(self.hits),
            u64::from(self.pages),
            self.last_when.0,
            self.last_human.map_or(0, |seen| seen.0.saturating_add(1)),
            self.last_position.0,
            stretch.after.0,
            stretch.first_position.0,
            stretch.first_seen.0,
            stretch.last_when.0,
            stretch.last_human.0,
            u64::from(stretch.visits_before),
            u64::from(stretch.hits),
            u64::from(stretch.pages),
        ] {
            word(value);
        }
        bound.into_iter().for_each(&mut word);
        for seen in &self.seen {
            [u64::from(seen.rule.0), seen.page, seen.when.0].into_iter().for_each(&mut word);
        }
        for page in &self.open_pages {
            [page.key, u64::from(page.engaged_ms)].into_iter().for_each(&mut word);
        }
        for hit in &self.hit_ids {
            [hit.id, hit.received.0, hit.position.0].into_iter().for_each(&mut word);
        }
        canonical_rows(&self.rows, out);
    }
}

/// The key under which the engaged time of a page view is followed.
fn page_key(hit: &Hit) -> u64 {
    if hit.page != 0 { hit.page } else { path_hash(&hit.path) }
}

/// A fixed hash of a path: part of the journal's meaning, so its key is no secret.
fn path_hash(path: &str) -> u64 {
    Key([0; 16]).hash64(&[path.as_bytes()])
}

/// The visitor as it will be, as far as deciding needs it.
struct Draft<'a> {
    visitor: &'a Visitor,
    id: VisitorId,
    last_when: Option<Timestamp>,
    bound: Option<Binding>,
    reset: bool,
    /// What the first hit of the two said of its page, if it was a stay.
    stayed: Option<OpenPage>,
    rows: Vec<Row>,
    /// The rows from here on are those of whom the visitor is tied to in the end.
    own: usize,
    seen: Vec<Seen>,
}

impl<'a> Draft<'a> {
    fn new(visitor: &'a Visitor, id: VisitorId) -> Draft<'a> {
        Draft {
            visitor,
            id,
            last_when: (visitor.hits > 0).then_some(visitor.last_when),
            bound: visitor.bound,
            reset: false,
            stayed: None,
            rows: Vec::new(),
            own: 0,
            seen: Vec::new(),
        }
    }

    fn step(&mut self, hit: &Hit, scoring: &Scoring) {
        let before = (self.bound, self.rows.len());
        if hit.excluded.is_none() {
            self.award(hit, scoring);
        }
        self.bind(hit);
        let switched = before.0.is_some_and(|known| Some(known.lead) != self.lead());
        if switched {
            self.own = before.1;
        }
        self.last_when = self.last_when.max(Some(hit.when));
        if hit.kind == HitKind::Engagement {
            self.stayed = Some(OpenPage { key: page_key(hit), engaged_ms: hit.engaged_ms });
        }
    }

    fn lead(&self) -> Option<LeadId> {
        self.bound.map(|bound| bound.lead)
    }

    fn engaged_before(&self, hit: &Hit) -> Duration {
        let key = page_key(hit);
        let open = self.visitor.open_pages.iter().chain(&self.stayed);
        let longest = open.filter(|page| page.key == key).map(|page| page.engaged_ms).max();
        Duration::from_millis(longest.unwrap_or(0).into())
    }

    fn award(&mut self, hit: &Hit, scoring: &Scoring) {
        let engaged = Duration::from_millis(u64::from(hit.engaged_ms));
        let sighting = Sighting {
            kind: hit.kind,
            event: &hit.event,
            path: &hit.path,
            authenticated: hit.authenticated,
            gap: self.last_when.map(|last| hit.when.since(last)),
            engaged: (self.engaged_before(hit), engaged),
        };
        for rule in scoring.rules.matching(&sighting) {
            if !self.counts_pages(rule, hit) {
                continue;
            }
            self.rows.push(Row {
                when: hit.when,
                order: self.rows.len() as u16,
                rule: rule.id,
                category: rule.category,
                source: Source::Visitor(self.id),
                base: rule.points,
                ..Row::default()
            });
        }
    }

    /// Remembers the page for a rule that counts pages; whether there are enough now.
    fn counts_pages(&mut self, rule: &Rule, hit: &Hit) -> bool {
        let Some((wanted, within)) = rule.when.distinct_pages else {
            return true;
        };
        let page = path_hash(&hit.path);
        let recent = |seen: &&Seen| {
            seen.rule == rule.id && seen.page != page && hit.when.since(seen.when) < within
        };
        let mut pages: Vec<u64> = self
            .visitor
            .seen
            .iter()
            .chain(&self.seen)
            .filter(recent)
            .map(|seen| seen.page)
            .collect();
        pages.sort_unstable();
        pages.dedup();
        self.seen.push(Seen { rule: rule.id, page, when: hit.when });
        pages.len() as u32 + 1 >= wanted
    }

    fn bind(&mut self, hit: &Hit) {
        if hit.kind == HitKind::Reset {
            self.bound = None;
            self.reset = true;
            return;
        }
        let Some(claim) = &hit.claim else {
            return;
        };
        let Some(kind) = claim.kind else {
            return;
        };
        let said = Binding { lead: claim.lead, kind, assurance: claim.assurance };
        self.bound = match self.bound {
            // The same person, perhaps surer.
            Some(known) if known.lead == said.lead => {
                Some(Binding { assurance: known.assurance.max(said.assurance), ..known })
            }
            // Another kind of name is a claim that both are one person, which is not made here.
            Some(known) if known.kind != said.kind => Some(known),
            // Another value of the same kind is a second person.
            Some(_) | None => Some(said),
        };
    }

    fn finish(self, first: Option<&FirstHit>, received: Timestamp, scoring: &Scoring) -> Visit {
        let anonymous = |_: Source| false;
        let settled = settle_with(&self.visitor.rows, &self.rows, false, scoring, &anonymous);
        let changed = self.bound != self.visitor.bound;
        let bound = match self.bound {
            Some(Binding { lead, kind, assurance }) if changed => {
                Some(Bound::To { lead, kind, assurance })
            }
            None if self.reset => Some(Bound::Reset),
            _ => None,
        };
        let event = self.event(bound.as_ref(), first, received, scoring);
        let part = VisitPart {
            previous: self.visitor.last_position,
            rows: settled.new,
            regrants: settled.regrants,
            fold: settled.fold,
            seen: self.seen,
            bound,
        };
        Visit::New { part: Box::new(part), event: event.map(Box::new) }
    }

    fn event(
        &self,
        bound: Option<&Bound>,
        first: Option<&FirstHit>,
        received: Timestamp,
        scoring: &Scoring,
    ) -> Option<LeadEvent> {
        let binding = self.bound?;
        let mut event = LeadEvent {
            lead: binding.lead,
            source: Source::Visitor(self.id),
            rows: self.rows[self.own..].to_vec(),
            new_visit: match first {
                Some(first) => received.since(first.hit.received) >= SESSION_GAP,
                None => !self.visitor.session.continues(received),
            },
            ..LeadEvent::default()
        };
        if bound.is_none() {
            return Some(event);
        }
        // What a first hit of somebody else's did is theirs, though they are no lead for it.
        let history = match (self.visitor.bound, first) {
            (Some(_), _) => None,
            (None, Some(first)) if self.own == 0 => Some(history_of_one(first)),
            (None, Some(_)) => Some(History::default()),
            (None, None) => Some(self.visitor.history()),
        };
        // A second person's visit begins where the first one's ends; so does that of whoever
        // comes after a reset.
        event.new_visit |= self.visitor.bound.is_some_and(|known| known.lead != binding.lead)
            || history.is_some_and(|history| history.visits == 0);
        if history.is_some() {
            let after = self.visitor.stretch.after;
            let carried = self.visitor.rows.iter().filter(|row| row.position > after);
            event.carried = carried.copied().collect();
            if let Some(fold) = fold_for(&event.carried, event.rows.len(), scoring) {
                apply_fold(&mut event.carried, &fold);
            }
        }
        event.link = Some(LinkPart { visitor: self.id, assurance: binding.assurance, history });
        Some(event)
    }
}

impl Visitor {
    /// What comes along when somebody says who this is.
    fn history(&self) -> History {
        let stretch = &self.stretch;
        if stretch.hits == 0 {
            return History::default();
        }
        History {
            first_position: stretch.first_position,
            last_position: self.last_position,
            first_seen: stretch.first_seen,
            last_human: stretch.last_human,
            last_when: stretch.last_when,
            hits: stretch.hits,
            pages: stretch.pages,
            visits: self.session.number - stretch.visits_before,
        }
    }
}

/// The history of a visitor whom this very hit admits: the first hit.
fn history_of_one(first: &FirstHit) -> History {
    History {
        first_position: first.position,
        last_position: first.position,
        first_seen: first.hit.when,
        last_human: if first.hit.is_human() { first.hit.when } else { Timestamp(0) },
        last_when: first.hit.when,
        hits: 1,
        pages: u32::from(first.hit.kind == HitKind::PageView),
        visits: 1,
    }
}

/// What a server's hit about a person without any browser may earn.
pub fn server_event(hit: &Hit, lead: LeadId, scoring: &Scoring) -> LeadEvent {
    let sighting = Sighting {
        kind: hit.kind,
        event: &hit.event,
        path: &hit.path,
        authenticated: hit.authenticated,
        gap: None,
        engaged: (Duration::ZERO, Duration::ZERO),
    };
    let matching = scoring
        .rules
        .matching(&sighting)
        .filter(|rule| hit.excluded.is_none() && rule.when.distinct_pages.is_none());
    let rows = matching.enumerate().map(|(order, rule)| Row {
        when: hit.when,
        order: order as u16,
        rule: rule.id,
        category: rule.category,
        base: rule.points,
        ..Row::default()
    });
    LeadEvent { lead, rows: rows.collect(), ..LeadEvent::default() }
}
