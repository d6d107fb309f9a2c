//! A naive model of the engine: it keeps the whole history and works everything out from
//! scratch, every time, in the plainest way. Slow, and so simple that one can see it is right.
//! It models no limits on memory: histories must stay within them.

use std::collections::BTreeMap;

use engine::hit::{Hit, HitKind};
use engine::id::{LeadId, Position, RuleId, ThresholdId, VisitorId};
use engine::identity::{Assurance, IdentityKind};
use engine::ledger::Cut;
use engine::rule::{Condition, Once, Period, Rule};
use engine::threshold::{Crossing, Direction, Gate, Threshold};
use engine::time::{Timestamp, UtcOffset};

use super::exact::{Faded, value};
use super::rules::Parts;

/// A rule that matched.
#[derive(Clone, Debug, PartialEq)]
pub struct Award {
    pub when: u64,
    pub position: Position,
    pub order: u16,
    pub rule: RuleId,
    /// Nothing for a server's.
    pub source: Option<VisitorId>,
    pub not_away: bool,
}

/// A browser's whole past.
#[derive(Clone, Debug, Default)]
struct Past {
    hits: Vec<(Position, Hit)>,
    awards: Vec<Award>,
    bound: Option<(LeadId, IdentityKind, Assurance)>,
    /// Where the hits and awards begin that are nobody's.
    nobody: (usize, usize),
}

/// Where a person stands with a line.
#[derive(Clone, Debug, Default)]
struct Place {
    inside: bool,
    since: u64,
    number: u32,
    told: bool,
    waits: Option<u64>,
    last_told: Option<u64>,
}

/// A person.
#[derive(Clone, Debug, Default)]
pub struct Person {
    pub awards: Vec<Award>,
    pub links: BTreeMap<VisitorId, Assurance>,
    pub assurance: Assurance,
    pub consent: bool,
    pub hits: u32,
    pub pages: u32,
    pub visits: u32,
    pub attached: u32,
    pub crossings: Vec<Crossing>,
    last_human: Option<u64>,
    last_when: u64,
    clock: u64,
    places: BTreeMap<ThresholdId, Place>,
}

/// The model. `seen` are the instants the engine found, by person: each is held against the
/// definition to the millisecond, which a scan alone could not do.
pub struct Oracle<'a> {
    parts: &'a Parts,
    seen: BTreeMap<LeadId, Vec<Crossing>>,
    pasts: BTreeMap<VisitorId, Past>,
    pub people: BTreeMap<LeadId, Person>,
}

const HOUR: u64 = 3_600_000;
const SESSION_GAP: u64 = HOUR / 2;
const VISITOR_LIFE: u64 = 400 * 24 * HOUR;

impl<'a> Oracle<'a> {
    pub fn new(parts: &'a Parts, seen: BTreeMap<LeadId, Vec<Crossing>>) -> Oracle<'a> {
        Oracle { parts, seen, pasts: BTreeMap::new(), people: BTreeMap::new() }
    }

    /// Whether a hit is one of its browser's last 64 within a day.
    pub fn is_repeat(&self, hit: &Hit) -> bool {
        let Some(past) = hit.visitor.and_then(|visitor| self.pasts.get(&visitor)) else {
            return false;
        };
        if past.is_forgotten(hit.received.0) {
            return false;
        }
        let named = past.hits.iter().rev().map(|(_, known)| known).filter(|known| known.id != 0);
        let mut recent = named.take(64);
        let fresh = |known: &Hit| hit.received.0.saturating_sub(known.received.0) < 24 * HOUR;
        hit.id != 0 && recent.any(|known| known.id == hit.id && fresh(known))
    }

    /// Takes a hit that was recorded.
    pub fn take(&mut self, position: Position, hit: &Hit) {
        let Some(visitor) = hit.visitor else {
            if let Some(claim) = &hit.claim {
                let awards = self.matched(position, hit, None);
                self.earn(claim.lead, hit, Brought { awards, ..Brought::default() });
            }
            return;
        };
        let mut past = self.pasts.remove(&visitor).unwrap_or_default();
        if past.is_forgotten(hit.received.0) {
            past = Past::default();
        }
        let awards = self.matched(position, hit, Some(&past));
        let was = past.bound;
        past.bind(hit);
        if let Some((lead, _, assurance)) = past.bound {
            let mut brought = Brought { awards: awards.clone(), ..Brought::default() };
            brought.opens_visit = past.opens_session(past.hits.len(), hit.received.0);
            brought.opens_visit |= was.is_some_and(|known| known.0 != lead);
            if past.bound != was {
                brought.link = Some((visitor, assurance));
            }
            if was.is_none() {
                brought.carried = past.awards[past.nobody.1..].to_vec();
                brought.score = self.score_of_nobody(&past, hit.received.0);
                brought.history = past.hits[past.nobody.0..].to_vec();
                brought.visits = past.visits_of_nobody();
                brought.opens_visit |= brought.visits == 0;
            }
            self.earn(lead, hit, brought);
        }
        past.hits.push((position, hit.clone()));
        past.awards.extend(awards);
        if hit.kind == HitKind::Reset {
            past.nobody = (past.hits.len(), past.awards.len());
        }
        self.pasts.insert(visitor, past);
    }

    /// Lets time pass for everybody.
    pub fn pass(&mut self, now: Timestamp) {
        let leads: Vec<LeadId> = self.people.keys().copied().collect();
        for lead in leads {
            self.pass_for(lead, now.0);
        }
    }

    /// What a hit matched, by reading its browser's past again.
    fn matched(&self, position: Position, hit: &Hit, past: Option<&Past>) -> Vec<Award> {
        if hit.excluded.is_some() {
            return Vec::new();
        }
        let last = past.and_then(|past| past.hits.iter().map(|(_, known)| known.when.0).max());
        let gap = last.map(|last| hit.when.0.saturating_sub(last));
        let before = past.map_or(0, |past| past.engaged_before(hit));
        let rules = self.parts.rules.iter().filter(|rule| {
            let stay = past.map_or(0, |_| hit.engaged_ms);
            let enough = match (rule.when.distinct_pages, past) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some((pages, within)), Some(past)) => {
                    past.pages_seen(rule, hit, within.as_millis() as u64) >= pages as usize
                }
            };
            enough && holds(&rule.when, hit, gap, (before, stay))
        });
        let award = |(order, rule): (usize, &Rule)| Award {
            when: hit.when.0,
            position,
            order: order as u16,
            rule: rule.id,
            source: hit.visitor,
            not_away: false,
        };
        rules.enumerate().map(award).collect()
    }

    /// What a nobody's history is worth by the browser's own ledger.
    fn score_of_nobody(&self, past: &Past, now: u64) -> i64 {
        let all = self.grants(&past.awards, &|_| false);
        let theirs = |award: &Award| past.awards[past.nobody.1..].contains(award);
        let rows: Vec<_> = all.into_iter().filter(|(award, ..)| theirs(award)).collect();
        self.score(&rows).at(now)
    }

    fn earn(&mut self, lead: LeadId, hit: &Hit, brought: Brought) {
        let now = hit.received.0;
        self.pass_for(lead, now);
        let history_human = brought.history.iter().map(|(_, hit)| hit).filter(|hit| hit.is_human());
        let history_human = history_human.map(|hit| hit.when.0).max();
        let before = match self.people.get(&lead) {
            Some(person) => Standing {
                score: self.score_of(person).at(now),
                identified: true,
                consent: person.consent,
                last_human: person.last_human,
            },
            None => Standing {
                score: brought.score,
                identified: false,
                consent: true,
                last_human: history_human,
            },
        };
        let known = self.people.contains_key(&lead);
        let mut person = self.people.remove(&lead).unwrap_or_default();
        person.consent |= !known;
        for mut award in brought.carried.into_iter().chain(brought.awards) {
            let rule = self.rule(award.rule);
            let away = rule.when.return_after.map_or(0, |away| away.as_millis() as u64);
            let since = award.when.checked_sub(person.last_when);
            award.not_away = known && since.is_some_and(|since| since < away);
            person.awards.push(award);
        }
        if let Some((visitor, assurance)) = brought.link {
            let link = person.links.entry(visitor).or_default();
            *link = (*link).max(assurance);
        }
        person.attached += brought.history.len() as u32;
        person.visits += brought.visits + u32::from(brought.opens_visit);
        person.last_human = person.last_human.max(history_human);
        let this = (Position::NONE, hit.clone());
        for (_, hit) in brought.history.iter().chain([&this]) {
            person.hits += 1;
            person.pages += u32::from(hit.kind == HitKind::PageView);
            if hit.visitor.is_some() {
                person.last_when = person.last_when.max(hit.when.0);
            }
        }
        if hit.is_human() {
            person.last_human = person.last_human.max(Some(hit.when.0));
        }
        if let Some(claim) = &hit.claim {
            person.consent = claim.consent.unwrap_or(person.consent);
            if claim.lead == lead {
                person.assurance = person.assurance.max(claim.assurance);
            }
        }
        self.cross(&mut person, &before, now);
        person.clock = person.clock.max(now);
        self.people.insert(lead, person);
    }

    /// Crosses what is to be crossed at the very moment of a hit.
    fn cross(&self, person: &mut Person, before: &Standing, now: u64) {
        let score = self.score_of(person).at(now);
        let after = Standing {
            score,
            identified: true,
            consent: person.consent,
            last_human: person.last_human,
        };
        for line in &self.parts.thresholds {
            let place = person.places.entry(line.id).or_default();
            if place.inside {
                let held = now < place.since.saturating_add(line.dwell.as_millis() as u64);
                if !held && score < line.fall.0 {
                    let crossing = place.fall(line, now);
                    person.crossings.push(crossing);
                }
                continue;
            }
            let open = |gate: &Gate, standing: &Standing| standing.open(*gate, line, now);
            if Gate::ALL.iter().all(|gate| open(gate, &after)) {
                let opened = Gate::ALL.iter().find(|gate| !open(gate, before));
                let crossing = place.rise(line, now, *opened.unwrap_or(&Gate::Score));
                person.crossings.push(crossing);
            }
        }
    }

    /// Acts on every moment up to now, each in its turn.
    fn pass_for(&mut self, lead: LeadId, now: u64) {
        let Some(mut person) = self.people.remove(&lead) else {
            return;
        };
        let score = self.score_of(&person);
        let hints = self.seen.get(&lead).cloned().unwrap_or_default();
        let mut from = person.clock;
        loop {
            let hint = hints.get(person.crossings.len());
            let mut next: Option<(u64, Crossing, Place)> = None;
            for line in &self.parts.thresholds {
                let mut place = person.places.get(&line.id).cloned().unwrap_or_default();
                let hint = hint.filter(|hint| hint.threshold == line.id);
                let found = place.next(line, &score, person.view(), (from, now), hint);
                let first =
                    |(at, _): &(u64, Crossing)| next.as_ref().is_none_or(|best| *at < best.0);
                if let Some((at, crossing)) = found.filter(first) {
                    next = Some((at, crossing, place));
                }
            }
            let Some((at, crossing, place)) = next else {
                break;
            };
            person.places.insert(crossing.threshold, place);
            person.crossings.push(crossing);
            from = at;
        }
        person.clock = person.clock.max(now);
        self.people.insert(lead, person);
    }

    fn rule(&self, id: RuleId) -> &Rule {
        self.parts.rules.iter().find(|rule| rule.id == id).unwrap()
    }

    fn score_of(&self, person: &Person) -> Score {
        self.score(&self.ledger(person))
    }

    /// A person's rows with their grants, in order.
    pub fn ledger(&self, person: &Person) -> Vec<(Award, i64, Cut)> {
        let claimed = |source: Option<VisitorId>| {
            source.is_some_and(|visitor| person.links.get(&visitor) != Some(&Assurance::Verified))
        };
        self.grants(&person.awards, &claimed)
    }

    fn score(&self, rows: &[(Award, i64, Cut)]) -> Score {
        let of = |id| {
            let own = rows.iter().filter(|(award, ..)| self.rule(award.rule).category == id);
            own.map(|(award, granted, _)| (award.when, *granted)).collect::<Vec<_>>()
        };
        let counted = self.parts.categories.iter().filter(|category| category.in_total);
        let faded =
            counted.map(|category| Faded::new(category.half_life.millis(), &of(category.id)));
        Score(faded.collect())
    }

    /// Grants every award, from the first to the last.
    fn grants(
        &self,
        awards: &[Award],
        claimed: &dyn Fn(Option<VisitorId>) -> bool,
    ) -> Vec<(Award, i64, Cut)> {
        let mut awards = awards.to_vec();
        awards.sort_by_key(|award| (award.when, award.position, award.order));
        let mut granted: Vec<(Award, i64, Cut)> = Vec::new();
        for award in awards {
            let rule = self.rule(award.rule);
            let (points, cut) = if award.not_away {
                (0, Cut::NotAway)
            } else if self.has_counted(&granted, &award, rule) {
                (0, Cut::Counted)
            } else if rule.points.0 <= 0 {
                (rule.points.0, Cut::None)
            } else {
                self.fitting(&granted, &award, rule, claimed)
            };
            granted.push((award, points, cut));
        }
        granted
    }

    fn has_counted(&self, before: &[(Award, i64, Cut)], award: &Award, rule: &Rule) -> bool {
        let counted = |(other, _, cut): &&(Award, i64, Cut)| {
            other.rule == award.rule && !matches!(cut, Cut::Counted | Cut::NotAway)
        };
        let times: Vec<u64> = before.iter().filter(counted).map(|(other, ..)| other.when).collect();
        let holds = |then: u64, period: Period| match period {
            Period::Day => day(then, self.parts.offset) == day(award.when, self.parts.offset),
            Period::Rolling(length) => award.when - then < length.as_millis() as u64,
        };
        let guards = &rule.guards;
        let once = guards.once.is_some_and(|once| match once {
            Once::Ever => !times.is_empty(),
            Once::Rearmed(after) => times.iter().any(|then| holds(*then, Period::Rolling(after))),
        });
        let per = guards.once_per.is_some_and(|per| times.iter().any(|then| holds(*then, per)));
        let many = guards.at_most.is_some_and(|(most, per)| {
            times.iter().filter(|then| holds(**then, per)).count() >= most as usize
        });
        once || per || many
    }

    /// The whole points that fit under rule, category, total and claims, in that order.
    fn fitting(
        &self,
        before: &[(Award, i64, Cut)],
        award: &Award,
        rule: &Rule,
        claimed: &dyn Fn(Option<VisitorId>) -> bool,
    ) -> (i64, Cut) {
        let category_of = |other: &Award| self.rule(other.rule).category;
        let worth = |id, which: &dyn Fn(&Award, i64) -> bool| {
            let half_life = self.category(id).half_life.millis();
            let rows: Vec<(u64, i64)> = before
                .iter()
                .filter(|(other, granted, _)| category_of(other) == id && which(other, *granted))
                .map(|(other, granted, _)| (other.when, *granted))
                .collect();
            value(half_life, &rows, award.when)
        };
        let total = |which: &dyn Fn(&Award, i64) -> bool| -> i64 {
            let counted = self.parts.categories.iter().filter(|category| category.in_total);
            counted.map(|category| worth(category.id, which)).sum()
        };
        let all = |_: &Award, _: i64| true;
        let mut limits = Vec::new();
        if let Some(max) = rule.guards.max {
            let same = |other: &Award, _| other.rule == rule.id;
            limits.push((max.0 - worth(rule.category, &same), Cut::RuleMax));
        }
        let category = self.category(rule.category);
        if let Some(max) = category.max {
            limits.push((max.0 - worth(category.id, &all), Cut::CategoryMax));
        }
        if category.in_total {
            if let Some(max) = self.parts.total_max {
                limits.push((max.0 - total(&all), Cut::TotalMax));
            }
            if let Some(max) = self.parts.claims_max.filter(|_| claimed(award.source)) {
                let theirs = |other: &Award, _| claimed(other.source);
                limits.push((max.0 - total(&theirs), Cut::ClaimsMax));
            }
        }
        let mut fits = (rule.points.0, Cut::None);
        for (room, cut) in limits {
            let room = room.max(0) / 1_000 * 1_000;
            if room < fits.0 {
                fits = (room, cut);
            }
        }
        fits
    }

    fn category(&self, id: engine::id::CategoryId) -> &engine::scoring::Category {
        self.parts.categories.iter().find(|category| category.id == id).unwrap()
    }
}

/// What a hit brings a person.
#[derive(Default)]
struct Brought {
    awards: Vec<Award>,
    carried: Vec<Award>,
    history: Vec<(Position, Hit)>,
    /// What the history is worth by the browser's own ledger.
    score: i64,
    visits: u32,
    opens_visit: bool,
    link: Option<(VisitorId, Assurance)>,
}

/// A score as a function of time.
pub struct Score(Vec<Faded>);

impl Score {
    pub fn at(&self, at: u64) -> i64 {
        self.0.iter().map(|faded| faded.at(at)).sum()
    }
}

#[derive(Clone, Copy)]
struct Standing {
    score: i64,
    identified: bool,
    consent: bool,
    last_human: Option<u64>,
}

impl Standing {
    fn open(&self, gate: Gate, line: &Threshold, now: u64) -> bool {
        match gate {
            Gate::Score => self.score >= line.rise.0,
            Gate::Grade => {
                line.grades.is_empty() || line.grades.contains(&engine::grade::Grade::Unknown)
            }
            Gate::Identity => self.identified,
            Gate::Consent => self.consent,
            Gate::Recent => line.recent.is_none_or(|within| {
                let since = self.last_human.map(|seen| now.saturating_sub(seen));
                since.is_some_and(|since| since <= within.as_millis() as u64)
            }),
        }
    }
}

impl Person {
    /// What the gates but the score look at.
    fn view(&self) -> Standing {
        Standing { score: 0, identified: true, consent: self.consent, last_human: self.last_human }
    }
}

impl Place {
    fn rise(&mut self, line: &Threshold, at: u64, opened: Gate) -> Crossing {
        let free = self.last_told.map(|told| told + line.cooldown.as_millis() as u64);
        self.waits = free.filter(|free| line.tell.is_some() && *free > at);
        self.told = line.tell.is_some() && self.waits.is_none();
        self.inside = true;
        self.since = at;
        self.number += 1;
        self.last_told = if self.told { Some(at) } else { self.last_told };
        Crossing {
            opened_by: Some(opened),
            waits_until: self.waits.map(Timestamp),
            ..self.crossing(line, Direction::Rise, at, self.told)
        }
    }

    fn fall(&mut self, line: &Threshold, at: u64) -> Crossing {
        self.inside = false;
        self.waits = None;
        self.crossing(line, Direction::Fall, at, self.told)
    }

    fn release(&mut self, line: &Threshold, at: u64) -> Crossing {
        self.told = true;
        self.waits = None;
        self.last_told = Some(at);
        self.crossing(line, Direction::Release, at, true)
    }

    fn crossing(&self, line: &Threshold, what: Direction, at: u64, told: bool) -> Crossing {
        Crossing {
            threshold: line.id,
            direction: what,
            at: Timestamp(at),
            number: self.number,
            opened_by: None,
            told,
            waits_until: None,
        }
    }

    /// The next thing time does at this line within the moments given, both included.
    fn next(
        &mut self,
        line: &Threshold,
        score: &Score,
        view: Standing,
        (from, until): (u64, u64),
        hint: Option<&Crossing>,
    ) -> Option<(u64, Crossing)> {
        let hint = |what| hint.filter(|hint| hint.direction == what).map(|hint| hint.at.0);
        if !self.inside {
            let may = |at: u64| {
                let standing = Standing { score: score.at(at), ..view };
                Gate::ALL.iter().all(|gate| standing.open(*gate, line, at))
            };
            let at = first(&may, from, until, hint(Direction::Rise))?;
            return Some((at, self.rise(line, at, Gate::Score)));
        }
        let earliest = from.max(self.since.saturating_add(line.dwell.as_millis() as u64));
        let below = |at: u64| score.at(at) < line.fall.0;
        let fall = first(&below, earliest, until, hint(Direction::Fall));
        let release = self.waits.map(|waits| waits.max(from)).filter(|at| *at <= until);
        match (fall, release) {
            (Some(fall), None) => Some((fall, self.fall(line, fall))),
            (Some(fall), Some(release)) if fall <= release => Some((fall, self.fall(line, fall))),
            (_, Some(release)) => Some((release, self.release(line, release))),
            (None, None) => None,
        }
    }
}

/// The first moment at which something holds: a walk by the quarter of an hour, then bisection.
/// Roundings can make a value waver by a thousandth just before, so an instant that somebody
/// else found up to ten minutes earlier is taken if the thing comes true at that millisecond.
fn first(holds: &dyn Fn(u64) -> bool, from: u64, until: u64, hint: Option<u64>) -> Option<u64> {
    const STEP: u64 = HOUR / 4;
    if from > until {
        return None;
    }
    let (mut low, mut high) = (from, from);
    while !holds(high) {
        if high == until {
            return None;
        }
        low = high;
        high = until.min(high + STEP);
    }
    let mut found = high;
    while low + 1 < found {
        let middle = low + (found - low) / 2;
        if holds(middle) { found = middle } else { low = middle }
    }
    let exact = |at: &u64| {
        (from..=found).contains(at)
            && found - at <= HOUR / 6
            && holds(*at)
            && (*at == from || !holds(*at - 1))
    };
    Some(hint.filter(exact).unwrap_or(found))
}

impl Past {
    fn is_forgotten(&self, now: u64) -> bool {
        let last = self.hits.iter().map(|(_, hit)| hit.received.0).max();
        last.is_some_and(|last| now.saturating_sub(last) >= VISITOR_LIFE)
    }

    /// Whether a hit received then, after so many of the hits, opened a session.
    fn opens_session(&self, hits: usize, received: u64) -> bool {
        let last = self.hits[..hits].iter().map(|(_, hit)| hit.received.0).max();
        last.is_none_or(|last| received.saturating_sub(last) >= SESSION_GAP)
    }

    fn visits_of_nobody(&self) -> u32 {
        let opened = |index: &usize| self.opens_session(*index, self.hits[*index].1.received.0);
        (self.nobody.0..self.hits.len()).filter(opened).count() as u32
    }

    fn engaged_before(&self, hit: &Hit) -> u32 {
        let same =
            |known: &Hit| known.page == hit.page && (hit.page != 0 || known.path == hit.path);
        let mut engaged = 0;
        for (_, known) in self.hits.iter().filter(|(_, known)| same(known)) {
            match known.kind {
                // Without a nonce a new view of the same path begins anew.
                HitKind::PageView if known.page == 0 => engaged = 0,
                HitKind::Engagement => engaged = engaged.max(known.engaged_ms),
                _ => {}
            }
        }
        engaged
    }

    /// How many different pages the rule has seen lately, with this one.
    fn pages_seen(&self, rule: &Rule, hit: &Hit, within: u64) -> usize {
        let lately = |known: &Hit| hit.when.0.saturating_sub(known.when.0) < within;
        let rest = Condition { distinct_pages: None, ..rule.when.clone() };
        let past = self.hits.iter().map(|(_, known)| known);
        let seen = past.filter(|known| {
            known.excluded.is_none() && lately(known) && holds(&rest, known, None, (0, 0))
        });
        let mut pages: Vec<&str> = seen.map(|known| known.path.as_str()).collect();
        pages.push(&hit.path);
        pages.sort_unstable();
        pages.dedup();
        pages.len()
    }

    fn bind(&mut self, hit: &Hit) {
        if hit.kind == HitKind::Reset {
            self.bound = None;
            return;
        }
        let Some((claim, kind)) = hit.claim.as_ref().and_then(|claim| Some((claim, claim.kind?)))
        else {
            return;
        };
        self.bound = Some(match self.bound {
            Some((lead, known, assurance)) if lead == claim.lead => {
                (lead, known, assurance.max(claim.assurance))
            }
            Some(known) if known.1 != kind => known,
            _ => (claim.lead, kind, claim.assurance),
        });
    }
}

fn day(at: u64, offset: UtcOffset) -> i64 {
    (at as i64 + offset.0).div_euclid(86_400_000)
}

/// Whether a hit meets a condition, but for `distinct_pages`.
fn holds(when: &Condition, hit: &Hit, gap: Option<u64>, (before, stay): (u32, u32)) -> bool {
    let pages = !when.path.is_empty()
        || !when.not_path.is_empty()
        || when.authenticated.is_some()
        || when.distinct_pages.is_some();
    let kind = if !when.event.is_empty() {
        hit.kind == HitKind::Event && when.event.contains(&hit.event)
    } else if let Some(line) = when.engaged {
        let line = line.as_millis() as u32;
        hit.kind == HitKind::Engagement && before < line && line <= stay
    } else if pages {
        hit.kind == HitKind::PageView
    } else if when.return_after.is_some() {
        matches!(hit.kind, HitKind::PageView | HitKind::Event)
    } else {
        true
    };
    let on = |globs: &[String]| globs.iter().any(|glob| glob_matches(glob, &hit.path));
    kind && (when.path.is_empty() || on(&when.path))
        && !on(&when.not_path)
        && when.authenticated.is_none_or(|wanted| wanted == hit.authenticated)
        && when
            .return_after
            .is_none_or(|away| gap.is_some_and(|gap| gap >= away.as_millis() as u64))
        && (when.any.is_empty()
            || when.any.iter().any(|inner| holds(inner, hit, gap, (before, stay))))
}

/// Globs of whole segments, of `*` for any one segment, and of `**` for any number.
fn glob_matches(glob: &str, path: &str) -> bool {
    fn segments<'a>(glob: &[&'a str], path: &[&'a str]) -> bool {
        match (glob, path) {
            ([], []) => true,
            (["**", rest @ ..], _) => (0..=path.len()).any(|skip| segments(rest, &path[skip..])),
            ([first, glob @ ..], [segment, path @ ..]) => {
                (first == segment || *first == "*") && segments(glob, path)
            }
            _ => false,
        }
    }
    let glob: Vec<&str> = glob.split('/').skip(1).collect();
    let path: Vec<&str> = path.split('/').skip(1).collect();
    segments(&glob, &path)
}
