//! Deciding: a draft of the lead as it will be, moved forward through time, through versions of
//! the scoring and through one piece of news, with the crossings and messages that makes.
//! Nothing here changes the lead itself.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use crate::decay::Total;
use crate::facts::{Profile, Seen, Source, last_seen, visits};
use crate::grade::Grade;
use crate::hit::Named;
use crate::id::{LeadId, Position, ThresholdId};
use crate::identity::{Assurance, IdentityKind};
use crate::ledger::{self, Basis, Cut, Regrant, Row, UNDECIDED, fold_for, settle_with};
use crate::points::Points;
use crate::record::{Base, Content, HitRecord, LeadPart, Sent, Tie};
use crate::rule::OnRemove;
use crate::sales::{Asked, Dealings};
use crate::scoring::Scoring;
use crate::stage::Stage;
use crate::terms::Terms;
use crate::threshold::{Band, Course, Crossing, Direction, Gate, Side, Standing, Threshold};
use crate::time::Timestamp;
use crate::visitor::LeadEvent;

use super::content::Stamp;
use super::walk::{Key, Life, Start};
use super::{CROSSINGS_MAX, Due, Lead};

/// The lead as it will be, as far as deciding needs it.
pub(super) struct Draft<'a> {
    pub(super) lead: &'a Lead,
    pub(super) scoring: &'a Scoring,
    pub(super) terms: Arc<Terms>,
    /// What the lead is made of, borrowed until something of it changes: it may be long.
    pub(super) content: Cow<'a, Content>,
    pub(super) bands: Vec<Band>,
    pub(super) base: Base,
    /// Messages that can still be taken back.
    pub(super) sent: Vec<Sent>,
    /// The version under which everything is settled anew, if it is.
    pub(super) rescored: u32,
    pub(super) part: LeadPart,
    /// What is known of the person now.
    profile: Profile,
    /// Their visits.
    pub(super) visits: Vec<Seen>,
    pub(super) grade: Grade,
    pub(super) sequence: u32,
    /// What sales was asked and has not answered.
    pub(super) asked: Option<Asked>,
    /// When sales last heard what somebody did whom it works with.
    pub(super) signalled: Timestamp,
    /// By how much sales had raised the line, of each crossing so far.
    pub(super) raised: Vec<Points>,
    /// How many crossings time alone has made so far.
    pub(super) by_time: usize,
    /// Whether nothing of theirs is on its way. Until then no line is crossed.
    pub(super) whole: bool,
}

/// Why a lead is looked at anew.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cause<'a> {
    /// A hit.
    Hit(&'a HitRecord),
    /// Something became known otherwise: a tie, another's rows.
    News,
    /// Something that was known is no longer.
    Undo,
    /// Other rules, from now on or for all that was.
    Rules,
    /// Sales answered.
    Answer,
}

impl Cause<'_> {
    /// Whether whoever goes in by it is told by hand only.
    fn holds(self) -> bool {
        match self {
            Cause::Hit(record) => record.hit.silent,
            Cause::Rules => true,
            Cause::News | Cause::Undo | Cause::Answer => false,
        }
    }
}

impl<'a> Draft<'a> {
    pub(super) fn new(lead: &'a Lead, scoring: &'a Scoring) -> Draft<'a> {
        let settled = lead.acted_until(&scoring.versions);
        let terms = scoring.versions.at(settled, lead.version.max(lead.rescored));
        let terms = terms.cloned().unwrap_or_else(|| Arc::new(scoring.terms().clone()));
        let mut draft = Draft {
            lead,
            scoring,
            terms,
            content: Cow::Borrowed(&lead.content),
            bands: lead.bands.clone(),
            base: lead.base.clone(),
            sent: lead.sent.clone(),
            rescored: lead.rescored,
            part: LeadPart { previous: lead.last_position, ..LeadPart::default() },
            profile: Profile::blank(),
            visits: Vec::new(),
            grade: Grade::Unknown,
            sequence: lead.sequence,
            asked: lead.asked,
            signalled: lead.signalled,
            raised: Vec::new(),
            by_time: 0,
            whole: lead.awaits.is_none(),
        };
        draft.know();
        draft
    }

    /// Works out anew what is known of the person.
    pub(super) fn know(&mut self) {
        self.visits = visits(&self.content.seen);
        self.profile = Profile::of(self.content.said.iter());
        self.grade = self.terms.fit.grade(&self.profile.attributes);
    }

    pub(super) fn profile(&self) -> &Profile {
        &self.profile
    }

    fn life(&self) -> Life<'_> {
        Life {
            content: &self.content,
            visits: &self.visits,
            versions: &self.scoring.versions,
            rescored: self.rescored,
        }
    }

    pub(super) fn course<'b>(&self, score: &'b Total, at: Timestamp) -> Course<'b> {
        Course {
            score,
            grade: self.grade,
            identified: !self.content.members.is_empty(),
            consent: self.profile.consent,
            last_human: last_seen(&self.visits, at),
            dealings: self.dealings(),
        }
    }

    /// What the answers of sales come to.
    pub(super) fn dealings(&self) -> Dealings {
        self.content.dealings(&self.terms)
    }

    pub(super) fn total(&self) -> Total {
        ledger::total(&self.content.rows, &self.terms)
    }

    pub(super) fn standing(&self, now: Timestamp) -> Standing {
        self.course(&self.total(), now).at(now)
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage_by(&self.dealings())
    }

    fn stage_by(&self, dealings: &Dealings) -> Stage {
        if self.content.members.is_empty() {
            return Stage::Anonymous;
        }
        self.terms.stage(&self.bands, dealings)
    }

    pub(super) fn band(&mut self, id: ThresholdId) -> &mut Band {
        let place = self.bands.iter().position(|band| band.threshold() == id);
        let place = place.unwrap_or_else(|| {
            self.bands.push(Band::new(id));
            self.bands.len() - 1
        });
        &mut self.bands[place]
    }

    fn known_band(&self, line: &Threshold) -> Band {
        let known = self.bands.iter().find(|band| band.threshold() == line.id);
        known.cloned().unwrap_or_else(|| Band::new(line.id))
    }

    /// Acts on every moment since the lead was last settled, each at its exact instant, and on
    /// every version of the scoring that came into force meanwhile.
    ///
    /// Two requests of one person may get their turns in another order than they came in, and the
    /// timers may have acted in between: what was acted on until a later moment stands. Says until
    /// which moment it is acted on now; what follows is as of that one.
    pub(super) fn let_time_pass(&mut self, now: Timestamp) -> Timestamp {
        let now = now.max(self.lead.settled);
        let mut from = self.lead.acted_until(&self.scoring.versions);
        let known = self.lead.version.max(self.lead.rescored);
        if self.lead.is_whole() {
            let versions = &self.scoring.versions;
            let newer = versions
                .all()
                .iter()
                .filter(|terms| terms.version > known && terms.published <= now);
            for terms in newer {
                let until = Timestamp(terms.published.0.saturating_sub(1));
                self.let_time_pass_until(from, until);
                from = from.max(terms.published);
                self.take_version(Arc::clone(terms), from);
            }
            self.let_time_pass_until(from, now);
        } else {
            self.under(now);
        }
        self.by_time = self.part.crossings.len();
        now
    }

    /// As of a moment, whatever versions came into force until then.
    pub(super) fn under(&mut self, now: Timestamp) {
        if let Some(terms) = self.scoring.versions.at(now, self.rescored) {
            self.terms = Arc::clone(terms);
            self.know();
        }
    }

    fn let_time_pass_until(&mut self, mut from: Timestamp, until: Timestamp) {
        let nothing_due = match self.lead.due {
            Due::Never => self.part.crossings.is_empty(),
            Due::At(due) => due > until && self.part.crossings.is_empty(),
            Due::Unknown => false,
        };
        if nothing_due || from > until {
            return;
        }
        let total = self.total();
        while self.part.crossings.len() < CROSSINGS_MAX {
            let crossing = self.next_crossing(&total, from, until);
            // Who is out by then waits for nobody any more.
            let before = crossing.map_or(until, |it| Timestamp(it.at.0.saturating_sub(1)));
            self.remind(from, before);
            let Some(crossing) = crossing else {
                return;
            };
            from = crossing.at;
            let stage = self.stage();
            let crossing = self.unless_known_to_sales(crossing);
            self.cross(crossing);
            self.tell_crossing(crossing, None, stage);
        }
    }

    /// The next thing time does, if it does anything.
    pub(super) fn next_crossing(
        &self,
        total: &Total,
        from: Timestamp,
        until: Timestamp,
    ) -> Option<Crossing> {
        let course = self.course(total, from);
        let lines = self.terms.thresholds.iter();
        lines
            .filter_map(|line| line.next(&self.known_band(line), &course, from, until))
            .min_by_key(|crossing| crossing.at)
    }

    /// Another version comes into force: whoever it puts in at once is held.
    fn take_version(&mut self, terms: Arc<Terms>, at: Timestamp) {
        let before = self.standing(at);
        self.terms = terms;
        self.know();
        let whole = self.content.rows.iter().any(|row| self.is_touched(row));
        if whole {
            self.settle(&[], Some(Timestamp(0)));
        }
        self.reconsider(None, &before, at, Cause::Rules);
    }

    /// Whether a rule of a row came or went with a version.
    fn is_touched(&self, row: &Row) -> bool {
        let own = self.scoring.versions.numbered(row.version);
        let own = own.and_then(|terms| terms.rule(row.rule));
        own.is_some_and(|rule| rule.on_remove == OnRemove::Withdraw)
            && (self.terms.rule(row.rule).is_none() || row.cut == Cut::Removed)
    }

    /// Settles the ledger with new rows. What changed before is settled anew from `since` on.
    pub(super) fn settle(&mut self, new: &[Row], since: Option<Timestamp>) -> Option<Key> {
        let terms = self.scoring.versions.numbered(self.terms.version);
        let fold = terms.and_then(|terms| fold_for(&self.content.rows, new.len(), terms));
        if let Some(fold) = fold {
            self.fold_before(self.content.rows.get(fold.rows as usize - 1).copied());
        }
        let rows = std::mem::take(&mut self.content.to_mut().rows);
        let content = &self.content;
        let proved = content.proved();
        let claimed =
            |source, origin| source != Source::Server && !proved.contains(&(source, origin));
        let basis = Basis {
            versions: &self.scoring.versions,
            now: self.terms.version,
            claimed: &claimed,
            said: &content.said,
            visits: &self.visits,
        };
        let settled = settle_with(rows, new, since, &basis);
        let place = |position| if position == Position::NONE { UNDECIDED } else { position };
        let new = settled.new.iter().map(|row| (row.when, place(row.position)));
        let regranted = settled.regrants.iter().filter_map(|regrant| {
            let same = |row: &&Row| (row.position, row.order) == (regrant.position, regrant.order);
            let row = settled.rows.iter().find(same)?;
            Some((row.when, row.position))
        });
        let earliest = new.chain(regranted).min();
        self.content.to_mut().rows = settled.rows;
        self.grant_anew(settled.new, settled.regrants);
        self.part.fold = settled.fold.or(self.part.fold.take());
        earliest
    }

    /// Of two settlings in a row the later one counts, also of rows that go and come in between.
    fn grant_anew(&mut self, new: Vec<Row>, regrants: Vec<Regrant>) {
        let is_new = |old: &Regrant| {
            new.iter().any(|it| (it.position, it.order) == (old.position, old.order))
                || regrants.iter().any(|it| (it.position, it.order) == (old.position, old.order))
        };
        self.part.regrants.retain(|old| !is_new(old));
        self.part.regrants.extend(regrants);
        self.part.rows.extend(new);
    }

    /// The oldest rows are about to fold: history begins after the last of them, with the sides
    /// of then.
    fn fold_before(&mut self, last: Option<Row>) {
        let Some(last) = last else {
            return;
        };
        let walked = self.life().walk(&Start::Base(&self.base), last.when);
        self.base = Base { at: last.when, sides: walked.sides };
        self.part.base = Some(self.base.clone());
    }

    /// Finds the sides anew after news, the earliest of which stands at `news`, and acts on
    /// what differs. Without that, everything may have changed.
    pub(super) fn reconsider(
        &mut self,
        news: Option<Key>,
        before: &Standing,
        at: Timestamp,
        cause: Cause<'_>,
    ) {
        self.know();
        let stage = self.stage_before(before, cause);
        if !self.whole {
            self.tell(&[], at, stage, cause);
            return;
        }
        let walked = self.life().walk(&self.start(news), at);
        let after = self.standing(at);
        let wrong = self.take_back_what_was_wrong(&walked, at, cause);
        let mut crossings = Vec::new();
        for side in &walked.sides {
            crossings.extend(self.crossing(side, (before, &after), at, cause));
        }
        for band in &self.bands {
            let gone = self.terms.threshold(band.threshold()).is_none() && band.side.inside;
            crossings.extend(gone.then(|| gone_line(band, at)));
        }
        for crossing in &crossings {
            self.cross(*crossing);
        }
        self.retract(wrong, at, stage);
        self.tell(&crossings, at, stage, cause);
    }

    /// The times inside, each line's, from the beginning of what is remembered.
    pub(super) fn stays(&self, now: Timestamp) -> Vec<(ThresholdId, Timestamp, Timestamp)> {
        self.life().walk(&Start::Base(&self.base), now).stays
    }

    fn stage_before(&self, before: &Standing, cause: Cause<'_>) -> Stage {
        match cause {
            Cause::Hit(_) | Cause::News if !self.lead.is_person() => Stage::Anonymous,
            _ => self.stage_by(&before.dealings),
        }
    }

    /// Where the walk must begin: with the news, if it comes after all that was known.
    fn start(&self, news: Option<Key>) -> Start<'_> {
        let Some(news) = news else {
            return Start::Base(&self.base);
        };
        let sides: Vec<Side> = self.bands.iter().map(|band| band.side).collect();
        let in_order =
            self.life().last_event() < news && sides.iter().all(|side| side.since < news.0);
        if in_order { Start::At(news, sides) } else { Start::Base(&self.base) }
    }

    fn crossing(
        &self,
        side: &Side,
        (before, after): (&Standing, &Standing),
        at: Timestamp,
        cause: Cause<'_>,
    ) -> Option<Crossing> {
        let line = self.terms.threshold(side.threshold)?;
        let band = self.known_band(line);
        let own = matches!(cause, Cause::Answer);
        match (band.side.inside, side.inside) {
            (false, true) => {
                let opened = match cause {
                    Cause::Rules => Gate::Rules,
                    _ => opened_by(line, &band, (before, after), at),
                };
                let rise = line.rise(&band, at, side.since, opened);
                let held = line.tell.is_some() && cause.holds();
                // Sales need not hear what it said itself.
                let silent = held || (own && line.is_for_sales());
                Some(if silent {
                    Crossing { told: false, waits_until: None, held, ..rise }
                } else {
                    rise
                })
            }
            (true, false) => {
                let told = band.told && !band.held && line.tell.is_some() && !own;
                Some(self.unless_known_to_sales(line.fall(&band, at, side.since, told)))
            }
            _ if band.side.since != side.since => Some(line.settle(&band, at, side.since)),
            _ => None,
        }
    }

    pub(super) fn cross(&mut self, crossing: Crossing) {
        let line = self.terms.threshold(crossing.threshold);
        let rise = line.filter(|_| crossing.direction == Direction::Rise);
        let raised = rise.map_or(Points(0), |line| {
            let since = self.known_band(line).side.since;
            line.raise(&self.dealings(), since, crossing.at)
        });
        self.raised.push(raised);
        super::tell::note_out(&mut self.asked, &crossing);
        self.band(crossing.threshold).cross(&crossing);
        self.part.crossings.push(crossing);
    }

    /// The standing just before a hit; of someone nobody knew, that of their history.
    pub(super) fn standing_before(&self, event: &LeadEvent, now: Timestamp) -> Standing {
        if self.lead.is_person() {
            return self.standing(now);
        }
        let histories = event.link.iter().flat_map(|link| &link.histories);
        let mut seen: Vec<Seen> = histories.flat_map(|history| history.seen.clone()).collect();
        seen.sort_by_key(|seen| (seen.from, seen.first));
        let visits = visits(&seen);
        // By what they did alone: as the person's, though nothing was said of them yet.
        let mut rows = event.carried.clone();
        let basis = Basis { visits: &visits, ..Basis::nobody(&self.scoring.versions) };
        ledger::settle(&mut rows, 0, &basis);
        let score = ledger::total(&rows, &self.terms);
        Course { last_human: last_seen(&visits, now), ..self.course(&score, now) }.at(now)
    }

    /// Takes what an event says and ties. When the earliest of it stands, and from when on the
    /// ledger must be settled anew.
    pub(super) fn take_event(
        &mut self,
        id: LeadId,
        event: &LeadEvent,
        record: &HitRecord,
        now: Timestamp,
    ) -> (Key, Option<Timestamp>) {
        let mut names = Vec::new();
        if !self.lead.is_person() {
            names.push(Named { assurance: Assurance::Verified, ..named(record, id) });
        }
        names.extend(event.joins.iter().filter(|name| name.id != id).copied());
        // Its name is another's already, though what that says is still on its way.
        let is_known = |name| self.content.member(name).is_some() || name == id;
        if !is_known(event.origin) && names.iter().all(|name| name.id != event.origin) {
            names.push(named(record, event.origin));
        }
        let before = self.content.clone();
        let part = LeadPart {
            lead: id,
            origin: event.origin,
            hears: event.hears,
            only_said: event.only_said,
            new_visit: event.new_visit,
            stretch: event.stretch,
            names,
            under: event.own,
            link: event.link.clone(),
            ..LeadPart::default()
        };
        let histories = part.link.iter().flat_map(|link| &link.histories);
        let seen = histories.flat_map(|history| history.seen.iter().map(|seen| seen.from)).min();
        let earliest = seen.into_iter().chain([record.hit.when, now]).min().unwrap_or(now);
        self.take(part, Some(record), now);
        let since = self.settles_since(&before, earliest);
        ((earliest, UNDECIDED), since)
    }

    /// From when on rows must be settled anew because something besides rows changed.
    fn settles_since(&self, before: &Content, seen_at: Timestamp) -> Option<Timestamp> {
        let surer = |tie: &Tie| {
            let was = before.is_claimed(tie.source, tie.origin);
            was && !self.content.is_claimed(tie.source, tie.origin)
        };
        if before.ties.iter().any(surer) {
            return Some(Timestamp(0));
        }
        let guards = |row: &Row| {
            let terms = self.scoring.versions.numbered(row.version)?;
            terms.rule(row.rule).map(|rule| &rule.guards)
        };
        let away = |row: &&Row| {
            row.when > seen_at && guards(row).is_some_and(|guards| guards.away.is_some())
        };
        let heard = before.said.len() != self.content.said.len();
        let only = |row: &&Row| heard && guards(row).is_some_and(|guards| !guards.only.is_empty());
        let touched = before.rows.iter().filter(|row| away(row) || only(row));
        touched.map(|row| row.when).min()
    }

    /// The claims, ties and hits of an event, as applying it will take them.
    pub(super) fn take(&mut self, part: LeadPart, hits: Option<&HitRecord>, now: Timestamp) {
        let stamp = Stamp { time: now, position: UNDECIDED };
        self.content.to_mut().take(&part, hits, stamp);
        self.part = LeadPart {
            crossings: std::mem::take(&mut self.part.crossings),
            messages: std::mem::take(&mut self.part.messages),
            regrants: std::mem::take(&mut self.part.regrants),
            fold: self.part.fold.take(),
            base: self.part.base.take(),
            previous: self.part.previous,
            ..part
        };
        self.know();
    }

    pub(super) fn before_24h(&self, at: Timestamp) -> Points {
        let day_ago = at.minus(Duration::from_hours(24));
        let then: Vec<Row> =
            self.content.rows.iter().filter(|row| row.when <= day_ago).copied().collect();
        ledger::total(&then, &self.terms).value(day_ago)
    }
}

/// A name as a record's claims give it; unproved, if they do not.
fn named(record: &HitRecord, id: LeadId) -> Named {
    let hits = record.first.iter().map(|first| &first.hit).chain([&record.hit]);
    let mut claims = hits.filter_map(|hit| hit.claim.as_ref());
    let found = claims.find_map(|claim| claim.names.iter().copied().find(|name| name.id == id));
    let unproved = Named { kind: IdentityKind::default(), id, assurance: Assurance::Claimed };
    found.unwrap_or(unproved)
}

/// The gate that opened last: the first that was shut before.
fn opened_by(
    line: &Threshold,
    band: &Band,
    (before, after): (&Standing, &Standing),
    at: Timestamp,
) -> Gate {
    let is_open = |gate: Gate, standing| line.is_open(gate, standing, band.side.since, at);
    let opened = |gate: &Gate| !is_open(*gate, before) && is_open(*gate, after);
    Gate::ASKED.into_iter().find(opened).unwrap_or(Gate::Score)
}

/// A line that is no longer there lets everybody out, and tells nobody.
fn gone_line(band: &Band, at: Timestamp) -> Crossing {
    Crossing {
        threshold: band.threshold(),
        direction: Direction::Fall,
        at,
        since: at,
        number: band.number,
        opened_by: None,
        told: false,
        held: false,
        waits_until: None,
    }
}
