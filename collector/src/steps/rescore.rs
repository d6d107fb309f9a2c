//! The past matched anew under other rules. A what-if does it beside everything that runs and
//! says who would be on another side of a line; a rescore journals what comes of it, a person at
//! a time, and whoever goes in by it is held until somebody says that they be told.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::time::Duration;

use engine::engine::{Authority, StepError};
use engine::facts::Source;
use engine::hit::Hit;
use engine::id::{LeadId, Position, RuleId, ThresholdId, VisitorId};
use engine::lead::{Lead, explain, reasons};
use engine::ledger::Row;
use engine::points::Points;
use engine::record::{Body, HitRecord, Record, Step, StepRecord, VisitPart};
use engine::scoring::Scoring;
use engine::threshold::Band;
use engine::time::Timestamp;
use engine::visitor::{Rows, Visit, Visitor, server_event};

use super::withdraw::walk;
use super::{Failed, alone, take};
use crate::app::App;
use crate::journal::ReadError;

/// What rules give for the hits of the journal.
pub struct Matched {
    /// Hits matched.
    pub hits: u64,
    /// The last record looked at: what came later was matched when it came.
    pub barrier: Position,
    /// Rows before this moment stay as they are.
    since: Timestamp,
    /// The oldest record that is kept.
    oldest: Position,
    visitors: BTreeMap<VisitorId, Vec<Row>>,
    servers: BTreeMap<LeadId, Vec<Row>>,
    withdrawn: BTreeMap<(Position, Timestamp), bool>,
}

/// Who would be on another side of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turned {
    /// Who.
    pub lead: LeadId,
    /// The line.
    pub threshold: ThresholdId,
    /// Whether they would be in.
    pub inside: bool,
    /// The score now.
    pub before: Points,
    /// The score they would have.
    pub after: Points,
    /// The rule that makes most of the difference, and how much.
    pub because: Option<(RuleId, Points)>,
}

/// What came of a what-if or a rescore.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The record that begins it; none for a what-if.
    pub job: Position,
    /// Hits matched.
    pub hits: u64,
    /// People looked at.
    pub leads: usize,
    /// People whose score is another.
    pub changed: usize,
    /// Who turned, those whose score is highest first.
    pub turned: Vec<Turned>,
    /// How long it took.
    pub took: Duration,
}

/// What a version would change if it were published and the last time span rescored. Nothing is
/// recorded, sent or changed.
pub fn what_if(app: &App, scoring: &Scoring, since: Timestamp) -> Result<Outcome, Failed> {
    let began = app.clock.boot_ms();
    let _one = alone(app);
    let matched = match_anew(app, scoring, since)?;
    let mut outcome = Outcome { hits: matched.hits, ..Outcome::default() };
    for id in app.engine.lead_ids() {
        let Some(lead) = app.engine.lead(id) else {
            continue;
        };
        outcome.leads += 1;
        let now = app.clock.now();
        let rows = matched.rows_of(app, &lead);
        let version = (scoring.version, matched.barrier);
        let (rows, part) = lead.rescore(id, version, &rows, scoring, now);
        let step = StepRecord {
            step: Step::Rescore { version: scoring.version, rows },
            ..StepRecord::default()
        };
        let mut after = lead.clone();
        after.evolve_step(&step, &part, (now, scoring.version), Position(u64::MAX));
        let in_force = app.scoring.load();
        let difference = Difference::of((&lead, &in_force.scoring), (&after, scoring), now);
        outcome.changed += usize::from(difference.before != difference.after);
        outcome.turned.extend(difference.turned(id, (&lead, &after)));
    }
    outcome.finish(app.clock.boot_ms() - began);
    Ok(outcome)
}

/// Matches everything up to now anew under the version in force, and journals what comes of it.
pub fn rescore(app: &App, since: Timestamp, why: &Authority) -> Result<Outcome, Failed> {
    let began = app.clock.boot_ms();
    let _one = alone(app);
    let in_force = app.scoring.load_full();
    let scoring = &in_force.scoring;
    let matched = match_anew(app, scoring, since)?;
    let job = take(app, |engine, means| Ok(engine.note(Step::Job, Position::NONE, why, means)))?;
    let mut outcome = Outcome { job, hits: matched.hits, ..Outcome::default() };
    let of = (matched.barrier, job);
    for visitor in matched.visitors.keys() {
        let rows = matched.rows_of_visitor(app, *visitor);
        let known = app.engine.visitor(*visitor, app.clock.now());
        if rows.is_empty() && known.is_none_or(|known| known.rows.is_empty()) {
            continue;
        }
        take_under(app, scoring, |engine, means| {
            Ok(engine.rescore_visitor(*visitor, &rows, of, why, means).is_some())
        })?;
    }
    for id in app.engine.lead_ids() {
        let Some((lead, after)) = rescore_lead(app, scoring, &matched, id, (of, why))? else {
            continue;
        };
        outcome.leads += 1;
        let now = app.clock.now();
        let difference = Difference::of((&lead, scoring), (&after, scoring), now);
        outcome.changed += usize::from(difference.before != difference.after);
        outcome.turned.extend(difference.turned(id, (&lead, &after)));
    }
    outcome.finish(app.clock.boot_ms() - began);
    Ok(outcome)
}

/// One person before and after; nothing of who is gone by now.
fn rescore_lead(
    app: &App,
    scoring: &Scoring,
    matched: &Matched,
    id: LeadId,
    (of, why): ((Position, Position), &Authority),
) -> Result<Option<(Lead, Lead)>, Failed> {
    // Whoever gets something else meanwhile is worked out once more.
    while let Some(lead) = app.engine.lead(id) {
        let rows = matched.rows_of(app, &lead);
        let seen = (&rows[..], lead.last_position);
        let done = take_under(app, scoring, |engine, means| {
            Ok(engine.rescore_lead(id, seen, of, why, means).is_some())
        })?;
        if done {
            return Ok(app.engine.lead(id).map(|after| (lead, after)));
        }
    }
    Ok(None)
}

/// A step that is about one version: when another comes into force, the whole job ends.
fn take_under<T>(
    app: &App,
    scoring: &Scoring,
    mut act: impl FnMut(
        &engine::engine::Engine,
        &mut engine::engine::Means<'_, '_>,
    ) -> Result<T, StepError>,
) -> Result<T, Failed> {
    let version = scoring.version;
    let done = take(app, |engine, means| {
        if means.scoring.version == version { act(engine, means).map(Some) } else { Ok(None) }
    })?;
    done.ok_or(Failed::Step(StepError::Stale))
}

impl Outcome {
    fn finish(&mut self, took_ms: u64) {
        self.turned.sort_by_key(|turned| (std::cmp::Reverse(turned.after), turned.lead));
        self.took = Duration::from_millis(took_ms);
    }
}

/// Matches the hits since a moment anew. What happened before gives the browsers their past.
pub fn match_anew(app: &App, scoring: &Scoring, since: Timestamp) -> Result<Matched, Failed> {
    let mut matching = Matching::new(scoring, since);
    matching.matched.barrier = app.journal.durable();
    let from = matching.begin(app)?;
    walk(app, from, |position, record| {
        if position <= matching.matched.barrier {
            matching.take(position, record);
        }
    })?;
    Ok(matching.matched)
}

/// A walk over history that matches it.
struct Matching<'a> {
    scoring: &'a Scoring,
    shadows: BTreeMap<VisitorId, Visitor>,
    /// The last record that the base knows of, if there is one.
    known: Position,
    matched: Matched,
}

impl<'a> Matching<'a> {
    fn new(scoring: &'a Scoring, since: Timestamp) -> Matching<'a> {
        Matching {
            scoring,
            shadows: BTreeMap::new(),
            known: Position::NONE,
            matched: Matched {
                hits: 0,
                barrier: Position::NONE,
                since,
                oldest: Position(u64::MAX),
                visitors: BTreeMap::new(),
                servers: BTreeMap::new(),
                withdrawn: BTreeMap::new(),
            },
        }
    }

    /// Where the walk begins. If the journal does so later, the base has the past of the browsers,
    /// and what it knows of is matched no more.
    fn begin(&mut self, app: &App) -> Result<Position, Failed> {
        let first = app.journal.first();
        if first.ordinal() <= 1 {
            return Ok(Position(1));
        }
        let unread = |_| Failed::Record(ReadError::Disk(ErrorKind::Other));
        let base = app.kept.base(first).map_err(unread)?;
        let base = base.ok_or(Failed::Record(ReadError::Disk(ErrorKind::NotFound)))?;
        base.visitors(|id, known| {
            let mut shadow = known;
            // Here it is nobody's, and only what it earns from now on counts.
            (shadow.bound, shadow.shared) = (None, false);
            (shadow.rows, shadow.seen) = (Rows::default(), Vec::new());
            self.shadows.insert(id, shadow);
        })
        .map_err(unread)?;
        self.known = base.end.until;
        Ok(base.head.from.next())
    }

    fn take(&mut self, position: Position, record: &Record) {
        if position > self.known {
            self.matched.oldest = self.matched.oldest.min(position);
        }
        match &record.body {
            Body::Hit(_) if position <= self.known => {}
            Body::Hit(hit) => self.take_hit(position, hit),
            Body::Step(step) => {
                if let Step::Withdraw(withdrawn) = &step.step {
                    let noted = withdrawn.iter().map(|hit| ((hit.position, hit.when), hit.out));
                    self.matched.withdrawn.extend(noted);
                }
            }
            Body::Due(_) | Body::Published(_) | Body::Named(_) | Body::Outbox(_) => {}
        }
    }

    fn take_hit(&mut self, position: Position, record: &HitRecord) {
        self.matched.hits += 1;
        let Some(id) = record.hit.visitor else {
            return self.take_server_hit(position, record);
        };
        // A hit that is only recorded comes again with whoever it admits.
        if record.visit.is_none() {
            return;
        }
        let shadow = self.shadows.entry(id).or_default();
        if shadow.is_expired(record.hit.received) {
            *shadow = Visitor::default();
        }
        // Whose it is was decided then; here it is nobody's, and only what it earns counts.
        let bare = |hit: &Hit| Hit { claim: None, ..hit.clone() };
        let hit = bare(&record.hit);
        let first = record.first.as_ref().map(|first| engine::record::FirstHit {
            position: first.position,
            hit: bare(&first.hit),
        });
        let Visit::New(decided) = shadow.visit(first.as_ref(), &hit, self.scoring, &|_| None)
        else {
            return;
        };
        let rows = decided.part.rows.iter().map(|row| Row { position, ..*row });
        let since = self.matched.since;
        // Also of a browser that earns nothing: what it has is replaced.
        let own = self.matched.visitors.entry(id).or_default();
        own.extend(rows.filter(|row| row.when >= since));
        let visit = Some(VisitPart { rows: Vec::new(), fold: None, ..decided.part });
        shadow.evolve(&HitRecord { hit, first, visit, ..HitRecord::default() }, position);
        shadow.seen.clear();
    }

    fn take_server_hit(&mut self, position: Position, record: &HitRecord) {
        let Some(part) = &record.lead else {
            return;
        };
        let decided = server_event(&record.hit, self.scoring, &|_| None);
        let rows = decided.into_iter().flat_map(|(event, _)| event.rows);
        let rows = rows.map(|row| Row { position, origin: part.origin, ..row });
        let since = self.matched.since;
        let own = self.matched.servers.entry(part.origin).or_default();
        own.extend(rows.filter(|row| row.when >= since));
    }
}

impl Matched {
    /// The rows a person has up to the barrier: those matched, and those of before.
    fn rows_of(&self, app: &App, lead: &Lead) -> Vec<Row> {
        let is_theirs = |name: LeadId| lead.content.member(name).is_some();
        let mut rows: Vec<Row> = Vec::new();
        for member in &lead.content.members {
            rows.extend(self.servers.get(&member.id).into_iter().flatten());
        }
        let now = app.clock.now();
        let mut visitors: Vec<VisitorId> = Vec::new();
        for tie in &lead.content.ties {
            if let Source::Visitor(visitor) = tie.source
                && !visitors.contains(&visitor)
            {
                visitors.push(visitor);
            }
        }
        let mut browsers: BTreeMap<VisitorId, Visitor> = BTreeMap::new();
        for id in visitors {
            let Some(known) = app.engine.visitor(id, now) else {
                continue;
            };
            for row in self.visitors.get(&id).into_iter().flatten() {
                let stretch = known.trail.stretch_at(row.position);
                let owner = stretch.and_then(|stretch| stretch.owner);
                let origin = owner.filter(|owner| is_theirs(*owner));
                rows.extend(origin.map(|origin| Row { origin, ..*row }));
            }
            browsers.insert(id, known);
        }
        // Of what a browser has forgotten nobody can say whose it is: that stays as it was.
        let is_forgotten = |row: &Row| match row.source {
            Source::Server => false,
            Source::Visitor(id) => {
                let known = browsers.get(&id);
                known.is_none_or(|known| known.trail.stretch_at(row.position).is_none())
            }
        };
        let kept = lead.content.rows.iter();
        let kept = kept.filter(|row| row.position <= self.barrier);
        rows.extend(kept.filter(|row| self.stays(row) || is_forgotten(row)));
        self.mark_withdrawn(&mut rows);
        rows
    }

    fn rows_of_visitor(&self, app: &App, id: VisitorId) -> Vec<Row> {
        let known = app.engine.visitor(id, app.clock.now());
        let kept = known.iter().flat_map(|known| known.rows.all()).filter(|row| self.stays(row));
        let mut rows: Vec<Row> = kept.collect();
        rows.extend(self.visitors.get(&id).into_iter().flatten());
        self.mark_withdrawn(&mut rows);
        rows
    }

    /// Whether a row is not matched anew: it is too old, or its record is no longer kept.
    fn stays(&self, row: &Row) -> bool {
        let matched = row.when >= self.since && row.position >= self.oldest;
        row.position <= self.barrier && !matched
    }

    fn mark_withdrawn(&self, rows: &mut [Row]) {
        for row in rows.iter_mut() {
            if let Some(out) = self.withdrawn.get(&(row.position, row.when)) {
                row.withdrawn = *out;
            }
        }
        rows.sort_by_key(Row::key);
    }
}

/// A person's score before and after, by rule.
struct Difference {
    before: Points,
    after: Points,
    by_rule: BTreeMap<RuleId, i64>,
}

impl Difference {
    fn of(before: (&Lead, &Scoring), after: (&Lead, &Scoring), now: Timestamp) -> Difference {
        let mut by_rule: BTreeMap<RuleId, i64> = BTreeMap::new();
        let mut scores = [Points(0); 2];
        for (place, (lead, scoring)) in [before, after].into_iter().enumerate() {
            let terms = engine::lead::terms_of(lead, scoring, now);
            let explained = explain(&lead.content.rows, terms, now);
            scores[place] = explained.score;
            let counted =
                explained.shares.iter().filter(|(row, _)| terms.is_in_total(row.category));
            for reason in reasons(counted) {
                let sign = if place == 0 { -1 } else { 1 };
                *by_rule.entry(reason.rule).or_default() += sign * reason.points.0;
            }
        }
        Difference { before: scores[0], after: scores[1], by_rule }
    }

    fn turned(&self, lead: LeadId, (before, after): (&Lead, &Lead)) -> Vec<Turned> {
        let up = self.after >= self.before;
        let most =
            self.by_rule.iter().max_by_key(|(_, change)| if up { **change } else { -**change });
        let because = most.filter(|(_, change)| **change != 0);
        // Also a line that goes: whoever was in is out.
        let is_in = |lead: &Lead, line: ThresholdId| {
            lead.bands.iter().any(|band| band.threshold() == line && band.side.inside)
        };
        let lines = before.bands.iter().chain(&after.bands).map(Band::threshold);
        let lines: BTreeSet<ThresholdId> = lines.collect();
        lines
            .into_iter()
            .filter(|line| is_in(before, *line) != is_in(after, *line))
            .map(|line| Turned {
                lead,
                threshold: line,
                inside: is_in(after, line),
                before: self.before,
                after: self.after,
                because: because.map(|(rule, change)| (*rule, Points(*change))),
            })
            .collect()
    }
}
