//! A Visitor is a browser. `visit` decides, from what the browser did before, which rules match
//! and whom the hit belongs to; `evolve` applies what was decided. The first changes nothing,
//! the second decides nothing.

mod at_rest;
mod draft;
mod erase;
mod first_form;
mod person;
mod rows;
mod saved;
mod trail;

use std::time::Duration;

use crate::facts::{Seen, Source, see};
use crate::hit::{Exclusion, Hit, HitKind, Named};
use crate::id::{Key, LeadId, Position, RuleId};
use crate::identity::Assurance;
use crate::ledger::{Row, canonical_rows};
use crate::record::{
    Binding, Bound, Counted, FirstHit, History, HitRecord, LinkPart, Review, Step, StepRecord,
    VisitPart, Withdrawn,
};
use crate::scoring::Scoring;
use crate::session::Session;
use crate::time::Timestamp;

pub use self::at_rest::AtRest;
use self::draft::Draft;
pub use self::draft::server_event;
pub use self::person::Known;
pub use self::rows::Rows;
pub use self::trail::{Given, Mark, STRETCHES_MAX, Stretch, Trail};

/// Pages and hits that a visitor's windows may look back on. Older ones are no longer counted.
pub const COUNTED_MAX: usize = 256;
/// Hit ids kept to tell repeats.
pub const HIT_IDS_MAX: usize = 64;
/// How long a hit id tells a repeat.
pub const HIT_ID_LIFE: Duration = Duration::from_hours(24);
/// Page views whose engaged time is followed at once: tabs somebody has open.
pub const OPEN_PAGES_MAX: usize = 8;
/// A browser that was away for longer is a new visitor: its cookie has died too.
pub const VISITOR_LIFE: Duration = Duration::from_hours(400 * 24);
/// Visits a browser remembers, to bring along.
const VISITS_MAX: usize = 64;
/// How long it is remembered who was named on a browser.
pub const NAMED_WINDOW: Duration = Duration::from_hours(24);
/// So many people named on one browser within that time, and it is shared.
pub const SHARED_AT: usize = 4;
/// More people than this within that time are not tied to the browser at all.
pub const NAMED_MAX: usize = 5;

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
    /// Its last record: the end of the chain of back pointers.
    pub last_position: Position,
    /// Who it is, if somebody said so.
    pub bound: Option<Binding>,
    /// Whether many people use it: nobody is bound for longer than a visit.
    pub shared: bool,
    /// Its runs of hits, and whose they are.
    pub trail: Trail,
    /// Its own ledger: also of what it did while it was somebody.
    pub rows: Rows,
    /// When a person was seen behind it.
    pub seen: Vec<Seen>,
    /// The record by which it last forgot what it did as somebody, if one did.
    pub erased: Position,
    /// When that was.
    pub erased_at: Timestamp,
    named: Vec<(LeadId, Timestamp)>,
    counted: Vec<Counted>,
    open_pages: Vec<OpenPage>,
    hit_ids: Vec<HitId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OpenPage {
    key: u64,
    engaged_ms: u32,
    scroll: u8,
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
    /// The name of the person under which the hit counts.
    pub origin: LeadId,
    /// Who they are, if they are known: the head of their names.
    pub head: Option<LeadId>,
    /// The name that heads them as if nobody had been found to be one with them: names that
    /// join come under it.
    pub own: LeadId,
    /// Where the new rows come from.
    pub source: Source,
    /// The browser's stretch.
    pub stretch: Position,
    /// The new rows, not settled.
    pub rows: Vec<Row>,
    /// Rows of the anonymous history, with the positions they had.
    pub carried: Vec<Row>,
    /// The tie, if it is made or made surer.
    pub link: Option<LinkPart>,
    /// Whether the hit opens a visit of this person's.
    pub new_visit: bool,
    /// How sure the claims of the first hit and of the hit are, if they are about this person.
    pub hears: [Option<Assurance>; 2],
    /// Whether the hit is theirs at all, or only what it says of them.
    pub only_said: bool,
    /// Names nobody had that are theirs from now on.
    pub joins: Vec<Named>,
    /// Names of other people who are proved to be this one.
    pub merges: Vec<LeadId>,
}

/// What the visitor stage decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Visit {
    /// Something to record.
    New(Box<Decided>),
    /// The same hit again, first recorded there.
    Duplicate(Position),
}

/// See [`Visit::New`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decided {
    /// The visitor's part of the record.
    pub part: VisitPart,
    /// For the lead stage, if the hit is somebody's.
    pub event: Option<LeadEvent>,
    /// What a person should look at.
    pub review: Vec<Review>,
    /// Why the hit is worth nothing to whose browser it is, if so.
    pub excluded: Option<Exclusion>,
}

impl Visitor {
    /// Whether there is an entry at all.
    pub fn exists(&self) -> bool {
        self.last_position != Position::NONE
    }

    /// Whether the browser was away for so long that it is forgotten.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now.since(self.session.last.max(self.erased_at)) >= VISITOR_LIFE
    }

    /// Decides a hit. `first` is the visitor's first hit, recorded before it was admitted;
    /// `heads` says whose a name is, if it is anybody's.
    pub fn visit(
        &self,
        first: Option<&FirstHit>,
        hit: &Hit,
        scoring: &Scoring,
        heads: &Heads<'_>,
    ) -> Visit {
        if let Some(known) = self.repeated(hit) {
            return Visit::Duplicate(known);
        }
        let mut draft = Draft::new(self, hit.visitor.unwrap_or_default(), hit.received, heads);
        // Who is here already was admitted by another hit.
        let first = first.filter(|_| self.hits == 0);
        if let Some(first) = first {
            draft.step(&first.hit, 0, scoring);
        }
        draft.step(hit, 1, scoring);
        Visit::New(Box::new(draft.finish(first, hit, scoring)))
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
        if part.ended {
            self.bound = None;
            self.trail.set(Mark::Severed, self.last_position, false);
        }
        let first = record.first.as_ref().filter(|_| self.hits == 0);
        let in_order = self.goes_on_with(first, &record.hit);
        if let Some(first) = first {
            self.take(&first.hit, first.position, position);
        }
        self.shared |= part.shared;
        if let Some(Bound::To(binding)) = part.bound {
            self.bind(binding, record.hit.received, first.is_some());
        }
        self.take(&record.hit, position, position);
        if part.bound == Some(Bound::Reset) {
            self.bound = None;
            self.trail.set(Mark::Severed, position, false);
        }
        for counted in &part.counted {
            self.remember(*counted);
        }
        let decided = (part.rows.as_slice(), part.regrants.as_slice());
        self.rows.apply(decided, part.fold.as_ref(), position, in_order);
        self.last_position = position;
    }

    /// Whether a hit is later than all that were before: its rows come after all others.
    fn goes_on_with(&self, first: Option<&FirstHit>, hit: &Hit) -> bool {
        first.is_none_or(|first| first.hit.when <= hit.when) && hit.when >= self.last_when
    }

    /// Whether a binding says more of the same person and begins nothing new.
    fn goes_on(&self, binding: &Binding) -> bool {
        self.bound.is_some_and(|bound| bound.origin == binding.origin && !bound.by_step)
    }

    /// From now on this browser is somebody's. What it did before comes along if it was nobody's
    /// and the browser is not shared.
    fn bind(&mut self, binding: Binding, now: Timestamp, together: bool) {
        if self.goes_on(&binding) || binding.by_step {
            self.trail.know_more(&binding);
            self.bound = Some(binding);
            return;
        }
        let mark = Mark::Said { binding, along: !self.shared };
        self.trail.set(mark, self.last_position, together);
        self.bound = Some(binding);
        self.named.retain(|(name, at)| *name != binding.origin && now.since(*at) < NAMED_WINDOW);
        if self.named.len() > NAMED_MAX {
            self.named.remove(0);
        }
        self.named.push((binding.origin, now));
    }

    /// Counts one hit, known by a record that is its own or the one that admits its visitor.
    fn take(&mut self, hit: &Hit, position: Position, known_by: Position) {
        if self.hits == 0 {
            self.first_seen = hit.when;
        }
        let visits_before = self.session.number;
        self.session = self.session.after(hit.received);
        self.hits = self.hits.saturating_add(1);
        self.pages = self.pages.saturating_add(u32::from(hit.kind == HitKind::PageView));
        self.last_when = self.last_when.max(hit.when);
        if hit.id != 0 {
            if self.hit_ids.len() == HIT_IDS_MAX {
                self.hit_ids.remove(0);
            }
            self.hit_ids.push(HitId { id: hit.id, received: hit.received, position });
        }
        self.follow_page(hit);
        let opened = u32::from(self.session.number > visits_before);
        self.trail.last.take(hit, position, opened);
        if hit.is_human() {
            let source = Source::Visitor(hit.visitor.unwrap_or_default());
            let stretch = self.trail.last.after;
            see(&mut self.seen, Seen { stretch, ..Seen::hit(source, hit.when, known_by) });
            if self.seen.len() > VISITS_MAX {
                self.seen.remove(0);
            }
        }
    }

    fn follow_page(&mut self, hit: &Hit) {
        let (engaged_ms, scroll) = match hit.kind {
            HitKind::PageView => (0, 0),
            HitKind::Engagement => (hit.engaged_ms, hit.scroll),
            HitKind::Event | HitKind::Identify | HitKind::Reset => return,
        };
        let next = OpenPage { key: page_key(hit), engaged_ms, scroll };
        if let Some(open) = self.open_pages.iter_mut().find(|page| page.key == next.key) {
            let restarted = hit.kind == HitKind::PageView && hit.page == 0;
            *open = if restarted { next } else { open.farther(&next) };
            return;
        }
        if self.open_pages.len() == OPEN_PAGES_MAX {
            self.open_pages.remove(0);
        }
        self.open_pages.push(next);
    }

    fn remember(&mut self, counted: Counted) {
        let same = |known: &&mut Counted| known.rule == counted.rule && known.what == counted.what;
        if let Some(known) = self.counted.iter_mut().find(same) {
            known.when = known.when.max(counted.when);
            return;
        }
        if self.counted.len() == COUNTED_MAX {
            self.counted.remove(0);
        }
        self.counted.push(counted);
    }

    /// Applies a step.
    pub fn evolve_step(&mut self, record: &StepRecord, time: Timestamp, position: Position) {
        let Some(visit) = &record.visit else {
            return;
        };
        let step = if record.of == Position::NONE { position } else { record.of };
        if visit.undoes != Position::NONE {
            self.trail.undo(visit.undoes);
            self.bound = self.trail.bound();
        }
        let sure = match visit.bound {
            Some(Bound::To(binding)) => binding.assurance,
            Some(Bound::Reset) | None => Assurance::Claimed,
        };
        self.trail.give(&visit.gives, (step, sure));
        let mark = match visit.bound {
            Some(Bound::To(binding)) => Some(Mark::Tied { step, binding }),
            Some(Bound::Reset) => self.bound.map(|it| Mark::Taken { step, from: it.origin }),
            None => None,
        };
        if let Some(mark) = mark {
            self.trail.set(mark, position, false);
            self.bound = self.trail.bound();
        }
        self.trail.move_to(&visit.owners);
        match &record.step {
            Step::Withdraw(withdrawn) => self.withdraw(withdrawn),
            Step::Rescore { rows, .. } => self.rows.change(|own| own.clone_from(rows)),
            Step::Erase { names } => self.forget(names, time, position),
            _ => {}
        }
        self.rows.apply((&[], &visit.regrants), None, position, true);
        self.last_position = position;
    }

    /// Hits are withdrawn, or put back.
    pub(crate) fn withdraw(&mut self, withdrawn: &[Withdrawn]) {
        let seen = &mut self.seen;
        self.rows.change(|rows| withdraw(rows, seen, withdrawn));
    }

    /// The stretches that can still be moved, the oldest first.
    pub fn stretches(&self) -> impl Iterator<Item = &Stretch> {
        self.trail.all()
    }

    /// What a stretch brings along for a person, under a name of theirs, but for the rows.
    pub fn history(&self, stretch: &Stretch, origin: LeadId, given: Assurance) -> History {
        let seen = self.seen.iter().filter(|seen| seen.stretch == stretch.after);
        History {
            stretch: stretch.after,
            origin,
            given,
            first_position: stretch.first_position,
            last_position: stretch.last_position,
            first_seen: stretch.first_seen,
            last_when: stretch.last_when,
            hits: stretch.hits,
            pages: stretch.pages,
            visits: stretch.visits.max(u32::from(stretch.hits > 0)),
            seen: seen.copied().collect(),
        }
    }

    /// The rows of a stretch, under a name of whose it is.
    pub fn rows_of(&self, stretch: &Stretch, origin: LeadId) -> Vec<Row> {
        let (after, until) = self.trail.span(stretch.after);
        let mut rows = self.rows.in_order();
        rows.retain(|row| row.position > after && row.position <= until);
        rows.into_iter().map(|row| Row { origin, ..row }).collect()
    }

    /// Everything that replay must restore, in a fixed form: what the state hash is taken of.
    pub fn canonical(&self, out: &mut Vec<u8>) {
        let mut word = |value: u64| out.extend_from_slice(&value.to_le_bytes());
        for value in [
            self.session.started.0,
            self.session.last.0,
            u64::from(self.session.number),
            self.first_seen.0,
            u64::from(self.hits),
            u64::from(self.pages),
            self.last_when.0,
            self.last_position.0,
            u64::from(self.shared),
        ] {
            word(value);
        }
        let names = self.bound.map_or([Some(LeadId(0)); 3], |bound| bound.names);
        let bound = self
            .bound
            .map_or([0; 3], |it| [it.origin.0, it.assurance as u64 + 1, u64::from(it.by_step)]);
        bound
            .into_iter()
            .chain(names.map(|name| name.map_or(0, |name| name.0)))
            .for_each(&mut word);
        self.trail.words().into_iter().for_each(&mut word);
        for (name, at) in &self.named {
            [name.0, at.0].into_iter().for_each(&mut word);
        }
        for counted in &self.counted {
            [u64::from(counted.rule.0), counted.what, counted.when.0]
                .into_iter()
                .for_each(&mut word);
        }
        for page in &self.open_pages {
            [page.key, u64::from(page.engaged_ms), u64::from(page.scroll)]
                .into_iter()
                .for_each(&mut word);
        }
        for hit in &self.hit_ids {
            [hit.id, hit.received.0, hit.position.0].into_iter().for_each(&mut word);
        }
        if self.erased != Position::NONE {
            [self.erased.0, self.erased_at.0].into_iter().for_each(&mut word);
        }
        crate::facts::canonical_seen(&self.seen, out);
        canonical_rows(&self.rows.in_order(), out);
    }
}

/// Says whose a name is, if it is anybody's.
pub type Heads<'a> = dyn Fn(LeadId) -> Option<Known> + 'a;

/// Marks what was withdrawn, or put back, in a ledger and among the visits.
pub fn withdraw(rows: &mut [Row], seen: &mut [Seen], withdrawn: &[Withdrawn]) {
    for hit in withdrawn {
        let of_hit = |row: &&mut Row| {
            row.position == hit.position && row.when == hit.when && row.source == hit.source
        };
        rows.iter_mut().filter(of_hit).for_each(|row| row.withdrawn = hit.out);
        let holds = |seen: &&mut Seen| {
            seen.source == hit.source
                && (seen.source != Source::Server || seen.origin == hit.origin)
                && seen.first <= hit.position
                && hit.position <= seen.last
                && seen.from <= hit.when
                && hit.when <= seen.to
        };
        for seen in seen.iter_mut().filter(|_| hit.human).filter(holds) {
            seen.withdrawn = if hit.out {
                seen.withdrawn.saturating_add(1).min(seen.hits)
            } else {
                seen.withdrawn.saturating_sub(1)
            };
        }
    }
}

impl OpenPage {
    fn farther(&self, other: &OpenPage) -> OpenPage {
        OpenPage {
            key: self.key,
            engaged_ms: self.engaged_ms.max(other.engaged_ms),
            scroll: self.scroll.max(other.scroll),
        }
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

/// Whether a counted thing is one of a rule's, within its window before a moment.
fn within(counted: &Counted, rule: RuleId, when: Timestamp, window: Duration) -> bool {
    counted.rule == rule && when.since(counted.when) < window
}
