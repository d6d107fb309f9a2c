//! Deciding: the visitor as it will be after one hit, or after the first two at once, as far as
//! deciding needs it. Nothing here changes the visitor itself.

use std::time::Duration;

use crate::facts::{Seen, Source};
use crate::hit::{Claim, Exclusion, Hit, HitKind, Named};
use crate::id::{LeadId, Position, VisitorId};
use crate::identity::Assurance;
use crate::ledger::{
    Basis, LEDGER_ROWS_MAX, Row, Settled, apply_fold, fold_for, settle_next, settle_with,
};
use crate::record::{
    Binding, Bound, Counted, FirstHit, History, LinkPart, Question, Review, VisitPart,
};
use crate::rule::{Rule, Sighting};
use crate::scoring::Scoring;
use crate::session::SESSION_GAP;
use crate::time::Timestamp;

use super::person::{OnBound, Person, of_claim, on_bound};
use super::{
    Decided, Heads, LeadEvent, Mark, NAMED_MAX, NAMED_WINDOW, OpenPage, SHARED_AT, Visitor,
    page_key, path_hash, within,
};

/// The visitor as it will be.
pub(super) struct Draft<'a> {
    visitor: &'a Visitor,
    heads: &'a Heads<'a>,
    id: VisitorId,
    now: Timestamp,
    last_when: Option<Timestamp>,
    bound: Option<Binding>,
    /// A visit of a shared browser ended: who was bound is so no longer.
    ended: bool,
    reset: bool,
    shared: bool,
    /// Why this hit is worth nothing to whose browser it is.
    excluded: Option<Exclusion>,
    /// The person that was bound last, with what else is known of them now.
    person: Option<Person>,
    /// A person who is told about here and not tied to the browser.
    guest: Option<Person>,
    hears: [Option<Assurance>; 2],
    /// How sure what is said now makes it that the browser is whose it is bound to.
    sure: Assurance,
    review: Vec<Review>,
    /// What the first hit of the two said of its page, if it was a stay.
    stayed: Option<OpenPage>,
    rows: Vec<Row>,
    /// The rows from here on are those of whom the visitor is tied to in the end.
    own: usize,
    counted: Vec<Counted>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(
        visitor: &'a Visitor,
        id: VisitorId,
        now: Timestamp,
        heads: &'a Heads<'a>,
    ) -> Draft<'a> {
        let ended = visitor.shared && !visitor.session.continues(now);
        Draft {
            visitor,
            heads,
            id,
            now,
            last_when: (visitor.hits > 0).then_some(visitor.last_when),
            bound: if ended { None } else { visitor.bound },
            ended,
            reset: false,
            shared: visitor.shared,
            excluded: None,
            person: None,
            guest: None,
            hears: [None; 2],
            sure: Assurance::Claimed,
            review: Vec::new(),
            stayed: None,
            rows: Vec::new(),
            own: 0,
            counted: Vec::new(),
        }
    }

    /// Takes one hit: the first of the two, or the hit itself.
    pub(super) fn step(&mut self, hit: &Hit, which: usize, scoring: &Scoring) {
        let before = (self.bound, self.rows.len());
        self.excluded = None;
        let known = hit.claim.as_ref().filter(|_| hit.kind != HitKind::Reset);
        if let Some(claim) = known {
            self.hear(claim, which);
        }
        if hit.kind == HitKind::Reset {
            self.bound = None;
            self.person = None;
            self.reset = true;
        }
        if hit.excluded.or(self.excluded).is_none() {
            self.award(hit, scoring);
        }
        let switched = before.0.is_some_and(|known| self.origin() != Some(known.origin));
        if switched {
            self.own = before.1;
        }
        self.last_when = self.last_when.max(Some(hit.when));
        if hit.kind == HitKind::Engagement {
            let (key, engaged_ms) = (page_key(hit), hit.engaged_ms);
            self.stayed = Some(OpenPage { key, engaged_ms, scroll: hit.scroll });
        }
    }

    fn origin(&self) -> Option<LeadId> {
        self.bound.map(|bound| bound.origin)
    }

    fn hear(&mut self, claim: &Claim, which: usize) {
        let Some(first) = claim.first() else {
            return;
        };
        if self.guest.take().is_some() {
            self.hears = [None; 2];
        }
        if claim.kiosk {
            if let Some(person) = of_claim(claim, self.heads) {
                self.is_guest(person, which);
            }
            return;
        }
        let on = self.bound.map(|bound| on_bound(claim, &bound, self.heads));
        match on {
            Some(OnBound::Nobody) => {}
            Some(OnBound::Forwarded(review)) => {
                self.excluded = Some(Exclusion::Forwarded);
                self.review.push(review);
            }
            Some(OnBound::Same { person, told }) => {
                let heard = told.is_some() || !person.joins.is_empty();
                self.hears[which] = heard.then_some(person.sure);
                self.sure = told.map_or(self.sure, |told| self.sure.max(told.assurance));
                self.know_more(&person, told);
                let said_before = self.person.take();
                self.person = Some(person.after(said_before));
            }
            Some(OnBound::Another(_)) | None => {
                let Some(mut person) = of_claim(claim, self.heads) else {
                    return;
                };
                if let Some(OnBound::Another(Some(review))) = on {
                    person.review.push(review);
                }
                if self.is_one_too_many(&person) {
                    self.is_guest(person, which);
                    return;
                }
                self.bound = Some(binding(first, &person));
                self.sure = first.assurance;
                self.hears = [None; 2];
                self.hears[which] = Some(person.sure);
                self.person = Some(person);
            }
        }
    }

    /// A person is told about here and not tied to the browser: the hit is nobody's.
    fn is_guest(&mut self, person: Person, which: usize) {
        self.hears = [None; 2];
        self.hears[which] = Some(person.sure);
        self.excluded = Some(Exclusion::Guest);
        self.guest = Some(person);
    }

    /// The same person again: perhaps surer, perhaps by more names.
    fn know_more(&mut self, person: &Person, told: Option<Named>) {
        let Some(bound) = &mut self.bound else {
            return;
        };
        if let Some(told) = told {
            bound.assurance = bound.assurance.max(told.assurance);
            bound.names[told.kind as usize] = Some(told.id);
        }
        for name in &person.joins {
            bound.names[name.kind as usize].get_or_insert(name.id);
        }
    }

    /// Counts who was named on this browser; so many make it shared, and more are not tied.
    fn is_one_too_many(&mut self, person: &Person) -> bool {
        let recent = self
            .visitor
            .named
            .iter()
            .filter(|(name, at)| *name != person.origin && self.now.since(*at) < NAMED_WINDOW);
        let named = recent.count() + 1;
        let (lead, other) = (person.head.unwrap_or(person.origin), None);
        if named >= SHARED_AT && !self.shared {
            self.shared = true;
            self.review.push(Review { question: Question::SharedBrowser, lead, other });
        }
        let too_many = named > NAMED_MAX;
        if too_many {
            self.review.push(Review { question: Question::TooManyNames, lead, other });
        }
        too_many
    }

    /// Engaged time and scroll on this page view before.
    fn shown_before(&self, hit: &Hit) -> (Duration, u8) {
        let key = page_key(hit);
        let open = self.visitor.open_pages.iter().chain(&self.stayed);
        let open = open.filter(|page| page.key == key);
        let farthest =
            open.fold((0, 0), |most, page| (most.0.max(page.engaged_ms), most.1.max(page.scroll)));
        (Duration::from_millis(farthest.0.into()), farthest.1)
    }

    fn award(&mut self, hit: &Hit, scoring: &Scoring) {
        let before = self.shown_before(hit);
        let sighting = Sighting {
            gap: self.last_when.map(|last| hit.when.since(last)),
            engaged: (before.0, Duration::from_millis(u64::from(hit.engaged_ms))),
            scroll: (before.1, hit.scroll),
            ..sighting(hit)
        };
        for rule in scoring.rules.matching(&sighting) {
            if !self.counts_enough(rule, hit) {
                continue;
            }
            self.rows.push(Row {
                order: self.rows.len() as u16,
                source: Source::Visitor(self.id),
                origin: self.origin().unwrap_or_default(),
                ..award(rule, hit, scoring)
            });
        }
    }

    /// Takes note of a hit for a rule that counts; whether there are enough now.
    fn counts_enough(&mut self, rule: &Rule, hit: &Hit) -> bool {
        let (what, (wanted, window)) = match (rule.when.distinct_pages, rule.when.count) {
            (Some(pages), _) => (path_hash(&hit.path), pages),
            (None, Some(hits)) => {
                let number = self.visitor.hits as usize + self.counted.len();
                (number as u64, hits)
            }
            (None, None) => return true,
        };
        let known = self.visitor.counted.iter().chain(&self.counted);
        let known = known.filter(|it| within(it, rule.id, hit.when, window) && it.what != what);
        let mut before: Vec<u64> = known.map(|it| it.what).collect();
        before.sort_unstable();
        before.dedup();
        self.counted.push(Counted { rule: rule.id, what, when: hit.when });
        before.len() as u32 + 1 >= wanted
    }

    pub(super) fn finish(
        mut self,
        first: Option<&FirstHit>,
        hit: &Hit,
        scoring: &Scoring,
    ) -> Decided {
        let basis = Basis::nobody(&scoring.versions);
        // What earned nothing changes nothing that was earned.
        let known = &self.visitor.rows;
        let fits = known.len() + self.rows.len() <= LEDGER_ROWS_MAX;
        let settled = match self.rows.as_slice() {
            [] => Settled::default(),
            rows if fits && self.visitor.goes_on_with(first, hit) => {
                settle_next(known, rows, &basis)
            }
            rows => settle_with(known.in_order(), rows, None, &basis),
        };
        let changed = self.ended || self.bound != self.visitor.bound;
        let bound = match self.bound {
            Some(binding) if changed => Some(Bound::To(binding)),
            None if self.reset => Some(Bound::Reset),
            _ => None,
        };
        let event = match self.guest.take() {
            Some(guest) => Some(self.said_of(guest)),
            None => {
                self.event(bound.is_some() || self.sure.is_proved(), first, hit.received, scoring)
            }
        };
        let excluded = self.excluded;
        let part = VisitPart {
            previous: self.visitor.last_position,
            rows: settled.new,
            regrants: settled.regrants,
            fold: settled.fold,
            counted: self.counted,
            ended: self.ended,
            bound,
            shared: self.shared && !self.visitor.shared,
        };
        Decided { part, event, review: self.review, excluded }
    }

    /// Of a person who is spoken of here and not tied to the browser.
    fn said_of(&mut self, guest: Person) -> LeadEvent {
        self.review.extend(guest.review);
        LeadEvent {
            origin: guest.origin,
            head: guest.head,
            own: guest.own,
            source: Source::Visitor(self.id),
            hears: self.hears,
            only_said: true,
            joins: guest.joins,
            merges: guest.merges,
            ..LeadEvent::default()
        }
    }

    fn event(
        &mut self,
        is_new: bool,
        first: Option<&FirstHit>,
        received: Timestamp,
        scoring: &Scoring,
    ) -> Option<LeadEvent> {
        let binding = self.bound?;
        let visitor = self.visitor;
        let person = self.person.take().unwrap_or_default();
        self.review.extend(person.review);
        let mut event = LeadEvent {
            origin: binding.origin,
            head: person.head,
            own: person.own,
            source: Source::Visitor(self.id),
            stretch: visitor.trail.last.after,
            rows: self.rows[self.own..].to_vec(),
            new_visit: match first {
                Some(first) => received.since(first.hit.received) >= SESSION_GAP,
                None => !visitor.session.continues(received),
            },
            hears: self.hears,
            joins: person.joins,
            merges: person.merges,
            ..LeadEvent::default()
        };
        for row in &mut event.rows {
            row.origin = binding.origin;
        }
        if !is_new {
            return Some(event);
        }
        let mut histories = Vec::new();
        if self.ended || !(binding.by_step || visitor.goes_on(&binding)) {
            histories = self.comes_along(&binding, first, &mut event);
            fold_carried(&mut event, scoring);
        }
        let (visitor, assurance) = (self.id, self.sure);
        event.link = Some(LinkPart { visitor, assurance, histories });
        Some(event)
    }

    /// What the browser did while it was nobody's, for whom it is bound to now.
    fn comes_along(
        &self,
        binding: &Binding,
        first: Option<&FirstHit>,
        event: &mut LeadEvent,
    ) -> Vec<History> {
        let visitor = self.visitor;
        let mut trail = visitor.trail.clone();
        if self.ended {
            trail.set(Mark::Severed, visitor.last_position, false);
        }
        let nobodys: Vec<Position> =
            trail.all().filter(|it| it.owner.is_none()).map(|it| it.after).collect();
        let mark = Mark::Said { binding: *binding, along: !self.shared };
        trail.set(mark, visitor.last_position, first.is_some());
        event.stretch = trail.last.after;
        let mut histories = Vec::new();
        let theirs = trail.all().filter(|it| {
            it.owner == Some(binding.origin) && it.hits > 0 && nobodys.contains(&it.after)
        });
        for stretch in theirs {
            histories.push(visitor.history(stretch, binding.origin, Assurance::Claimed));
            event.carried.extend(visitor.rows_of(stretch, binding.origin));
        }
        event.carried.sort_by_key(Row::key);
        // What a first hit of somebody else's did is theirs, though they are no lead for it.
        histories
            .extend(first.filter(|_| self.own == 0).map(|it| history_of_one(it, self.id, binding)));
        // A second person's visit begins where the first one's ends; so does that of whoever
        // comes after a reset.
        let before = visitor.bound.filter(|_| !self.ended);
        let anothers = before.is_some_and(|before| before.origin != binding.origin);
        let resumed = before.is_some() && !anothers;
        let visits: u32 = histories.iter().map(|history| history.visits).sum();
        event.new_visit |= anothers || self.ended || self.shared || (visits == 0 && !resumed);
        histories
    }
}

fn binding(first: &Named, person: &Person) -> Binding {
    let mut names = [None; 3];
    for name in &person.names {
        names[name.kind as usize] = Some(name.id);
    }
    Binding { origin: person.origin, names, assurance: first.assurance, by_step: false }
}

/// A browser's history may be as long as a ledger: it is folded so that both fit.
fn fold_carried(event: &mut LeadEvent, scoring: &Scoring) {
    if let Some(fold) = fold_for(&event.carried, event.rows.len(), scoring.terms()) {
        apply_fold(&mut event.carried, &fold);
    }
}

/// The history of a visitor whom this very hit admits: the first hit. Its visit is known by the
/// record that admits it, which has no position yet.
fn history_of_one(first: &FirstHit, visitor: VisitorId, binding: &Binding) -> History {
    let source = Source::Visitor(visitor);
    let seen = Seen::hit(source, first.hit.when, Position::NONE);
    History {
        stretch: Position::NONE,
        origin: binding.origin,
        given: Assurance::Claimed,
        first_position: first.position,
        last_position: first.position,
        first_seen: first.hit.when,
        last_when: first.hit.when,
        hits: 1,
        pages: u32::from(first.hit.kind == HitKind::PageView),
        visits: 1,
        seen: if first.hit.is_human() { vec![seen] } else { Vec::new() },
    }
}

fn sighting(hit: &Hit) -> Sighting<'_> {
    Sighting {
        kind: hit.kind,
        when: hit.when,
        event: &hit.event,
        path: &hit.path,
        url: &hit.url,
        referrer: &hit.referrer,
        campaign: &hit.campaign,
        properties: &hit.properties,
        areas: &hit.areas,
        authenticated: hit.authenticated,
        via_our_link: hit.via_our_link,
        ..Sighting::default()
    }
}

fn award(rule: &Rule, hit: &Hit, scoring: &Scoring) -> Row {
    Row {
        when: hit.when,
        rule: rule.id,
        category: rule.category,
        base: rule.points,
        version: scoring.version,
        ..Row::default()
    }
}

/// What a server's hit about a person without any browser may earn.
pub fn server_event(
    hit: &Hit,
    scoring: &Scoring,
    heads: &Heads<'_>,
) -> Option<(LeadEvent, Vec<Review>)> {
    let person = of_claim(hit.claim.as_ref()?, heads)?;
    let sure = person.sure;
    let matching = scoring.rules.matching(&sighting(hit)).into_iter().filter(|rule| {
        let counts = rule.when.distinct_pages.is_some() || rule.when.count.is_some();
        hit.excluded.is_none() && !counts
    });
    let rows = matching.enumerate().map(|(order, rule)| Row {
        order: order as u16,
        origin: person.origin,
        ..award(rule, hit, scoring)
    });
    let event = LeadEvent {
        origin: person.origin,
        head: person.head,
        own: person.own,
        rows: rows.collect(),
        hears: [None, Some(sure)],
        joins: person.joins,
        merges: person.merges,
        ..LeadEvent::default()
    };
    Some((event, person.review))
}
