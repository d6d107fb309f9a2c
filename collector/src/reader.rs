//! The reader follows committed records and keeps what lists need: names, who is hot, the live
//! stream. Lists never touch the engine's maps; one entity is copied under its lock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::attribute::Attributes;
use engine::catalog::Catalog;
use engine::hit::{Hit, HitKind};
use engine::id::{LeadId, Position, ThresholdId, VisitorId};
use engine::points::Points;
use engine::record::{Body, HitRecord, NameKind, Record, Review, Step, StepRecord};
use engine::terms::HOT;
use engine::threshold::{Crossing, Direction};
use engine::time::Timestamp;
use engine::wire::About;

use crate::app::App;
use crate::journal::Follower;
use crate::patience::Follows;
use crate::timeline;

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Questions for a person kept in the list; further ones stand in the journal only, counted.
const QUESTIONS_MAX: usize = 10_000;

/// What lists show of a lead without asking the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// What people search by, in lower case.
    text: String,
    /// When a hit of theirs was last received.
    pub last_seen: Timestamp,
}

/// The lists.
#[derive(Default)]
pub struct Lists(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    leads: BTreeMap<LeadId, Summary>,
    hot: BTreeSet<LeadId>,
    held: BTreeSet<(LeadId, ThresholdId)>,
    questions: BTreeMap<Position, Question>,
    questions_unlisted: u64,
}

/// What a person should look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// When it came up.
    pub at: Timestamp,
    /// The browser, if it came up on one.
    pub visitor: Option<VisitorId>,
    /// What is asked.
    pub asked: Vec<Review>,
}

impl Lists {
    /// Applies a record, live and at recovery.
    pub fn evolve(&self, record: &Record, position: Position, catalog: &Catalog) {
        let mut inner = self.locked();
        match &record.body {
            Body::Hit(hit) => inner.take_hit(hit, record.time, position),
            Body::Step(step) => inner.take_step(step),
            Body::Due(_) | Body::Published(_) | Body::Named(_) | Body::Outbox(_) => {}
        }
        let Some(part) = record.lead_part() else {
            return;
        };
        inner.leads.entry(part.lead).or_default();
        for crossing in &part.crossings {
            inner.cross(part.lead, crossing, catalog);
        }
    }

    /// Leads that have all the words, those seen last first.
    pub fn search(&self, words: &str, most: usize) -> Vec<LeadId> {
        let words: Vec<String> = words.split_whitespace().map(str::to_lowercase).collect();
        let inner = self.locked();
        let mut found: Vec<(Timestamp, LeadId)> = inner
            .leads
            .iter()
            .filter(|(id, summary)| {
                let is = |word: &String| summary.text.contains(word.as_str());
                words.iter().all(|word| is(word) || id.to_string().eq_ignore_ascii_case(word))
            })
            .map(|(id, summary)| (summary.last_seen, *id))
            .collect();
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.into_iter().take(most).map(|(_, id)| id).collect()
    }

    /// Leads that are in at the threshold named "hot".
    pub fn hot(&self) -> Vec<LeadId> {
        self.locked().hot.iter().copied().collect()
    }

    /// Leads that may be held at a line until somebody says that they be told.
    pub fn held(&self) -> Vec<(LeadId, ThresholdId)> {
        self.locked().held.iter().copied().collect()
    }

    /// What a person should look at, the oldest first, and how many more there are.
    pub fn questions(&self) -> (Vec<(Position, Question)>, u64) {
        let inner = self.locked();
        let listed = inner.questions.iter().map(|(position, it)| (*position, it.clone()));
        (listed.collect(), inner.questions_unlisted)
    }

    fn locked(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn take_hit(&mut self, record: &HitRecord, time: Timestamp, position: Position) {
        if !record.review.is_empty() {
            if self.questions.len() < QUESTIONS_MAX {
                let (visitor, asked) = (record.hit.visitor, record.review.clone());
                self.questions.insert(position, Question { at: time, visitor, asked });
            } else {
                self.questions_unlisted += 1;
            }
        }
        let Some(part) = &record.lead else {
            return;
        };
        let summary = self.leads.entry(part.lead).or_default();
        summary.last_seen = summary.last_seen.max(time);
        let first = record.first.as_ref().map(|first| &first.hit);
        for (hit, hears) in [first, Some(&record.hit)].into_iter().zip(part.hears) {
            if let Some(claim) = hit.filter(|_| hears.is_some()).and_then(|hit| hit.claim.as_ref())
            {
                summary.remember(&claim.attributes);
            }
        }
    }

    fn take_step(&mut self, step: &StepRecord) {
        let lead = step.lead.as_ref().map(|part| part.lead);
        match (&step.step, lead) {
            (Step::TakeIn(parcel), Some(lead)) => {
                let summary = self.leads.entry(lead).or_default();
                for said in &parcel.content.said {
                    summary.remember(&said.attributes);
                }
            }
            (Step::Release { threshold, .. }, Some(lead)) => {
                self.held.remove(&(lead, *threshold));
            }
            (Step::Dismiss { question }, _) => {
                self.questions.remove(question);
            }
            _ => {}
        }
    }

    fn cross(&mut self, lead: LeadId, crossing: &Crossing, catalog: &Catalog) {
        let line = crossing.threshold;
        let is_hot = catalog.name(NameKind::Threshold, u16::from(line.0)) == Some(HOT);
        match crossing.direction {
            Direction::Rise | Direction::Release => {
                if is_hot {
                    self.hot.insert(lead);
                }
            }
            Direction::Fall => {
                if is_hot {
                    self.hot.remove(&lead);
                }
            }
            Direction::Settle => return,
        }
        if crossing.held {
            self.held.insert((lead, line));
        } else {
            self.held.remove(&(lead, line));
        }
    }
}

impl Summary {
    fn remember(&mut self, attributes: &Attributes) {
        for name in ["name", "company", "email", "user_id", "crm_id"] {
            let Some(value) = attributes.get(name).map(|value| value.to_lowercase()) else {
                continue;
            };
            if !self.text.contains(&value) && self.text.len() < 1_024 {
                self.text.push_str(&value);
                self.text.push('\n');
            }
        }
    }
}

/// Follows the journal until it ends or `stop` is set.
pub fn run(app: &Arc<App>, lists: &Lists, mut follower: Follower, stop: &AtomicBool) {
    let over = || stop.load(Ordering::Acquire) || app.journal.has_ended();
    while !stop.load(Ordering::Acquire) {
        let read = || {
            let entry = follower.next_blocking(LOOK_EVERY)?;
            let listening = app.live.receiver_count() > 0;
            let wanted = |bytes: &[u8]| {
                let about = About::of(bytes);
                listening || about.lead || about.review || about.step
            };
            Ok(entry.map(|entry| {
                let record = wanted(entry.bytes).then(|| Record::decode(entry.bytes));
                record.map(|record| record.map(|record| (entry.position, record)))
            }))
        };
        let (position, mut record) = match app.stalled.read(Follows::Reader, over, read) {
            Some(Some(Some(Ok(record)))) => record,
            None => return,
            Some(None) if follower.is_ended() => return,
            Some(None | Some(None | Some(Err(_)))) => continue,
        };
        let catalog = app.engine.catalog();
        timeline::unseal(app, &mut record);
        lists.evolve(&record, position, &catalog);
        app.tell(|| line(&record, &catalog));
    }
}

/// A record as one line: when, who, what, and what it earned, or why nothing.
pub fn line(record: &Record, catalog: &Catalog) -> String {
    let mut line = clock_time(record.time);
    match &record.body {
        Body::Hit(hit) => write_hit(&mut line, hit, catalog),
        Body::Due(part) => {
            let _ = write!(line, "  {}  time passed", part.lead);
        }
        Body::Published(published) => {
            let _ = write!(line, "  rules version {} published", published.terms.version);
        }
        Body::Step(step) => write_step(&mut line, step),
        Body::Named(_) | Body::Outbox(_) => line.push_str("  (bookkeeping)"),
    }
    let crossings = record.lead_part().map(|part| part.crossings.as_slice()).unwrap_or_default();
    for crossing in crossings {
        let number = u16::from(crossing.threshold.0);
        let name = catalog.name(NameKind::Threshold, number).unwrap_or("?");
        let what = match crossing.direction {
            Direction::Rise if crossing.held => "in, held: nobody is told",
            Direction::Rise if crossing.waits_until.is_some() => "in, message waits",
            Direction::Rise => "in",
            Direction::Fall => "out",
            Direction::Release => "message goes",
            Direction::Settle => continue,
        };
        let _ = write!(line, "  [{name}: {what}]");
    }
    line
}

fn write_step(line: &mut String, step: &StepRecord) {
    let who = step.lead.as_ref().map_or_else(|| "-".to_owned(), |part| part.lead.to_string());
    let _ = write!(line, "  {who:<17}  {}", step_name(&step.step));
    if !step.actor.is_empty() {
        let _ = write!(line, " by {}", step.actor);
    }
    if !step.reason.is_empty() {
        let _ = write!(line, ": {}", step.reason);
    }
}

/// What a step does, in a word or two.
pub fn step_name(step: &Step) -> &'static str {
    match step {
        Step::Job => "job",
        Step::Link => "link",
        Step::Unlink => "unlink",
        Step::Confirm => "confirm",
        Step::MergeAway { .. } => "merged into another",
        Step::TakeIn(_) => "takes in another's",
        Step::Folded => "all was taken in",
        Step::Restore { .. } => "parted from another",
        Step::Split { .. } => "another parts from it",
        Step::Withdraw(hits) if hits.iter().any(|hit| hit.out) => "withdraw",
        Step::Withdraw(_) => "put back",
        Step::Rescore { .. } => "rescore",
        Step::Release { told: true, .. } => "told by hand",
        Step::Release { told: false, .. } => "not to be told",
        Step::Dismiss { .. } => "dismiss a question",
    }
}

fn write_hit(line: &mut String, record: &HitRecord, catalog: &Catalog) {
    let hit = &record.hit;
    let who = match (&record.lead, hit.visitor) {
        (Some(part), _) => part.lead.to_string(),
        (None, Some(VisitorId(id))) => format!("V{:08x}…", (id >> 96) as u32),
        (None, None) => "-".to_owned(),
    };
    let _ = write!(
        line,
        "  {who:<17}  {:<12} {}",
        what(hit),
        if hit.path.is_empty() { "/" } else { &hit.path }
    );
    if let Some(excluded) = hit.excluded {
        let _ = write!(line, "  0 ({})", excluded.name());
        return;
    }
    let Some(visit) = &record.visit else {
        if hit.visitor.is_some() {
            line.push_str("  recorded; counts when this browser comes back");
        }
        return write_rows(line, record.lead.as_ref().map_or(&[], |part| &part.rows), catalog);
    };
    let rows = record.lead.as_ref().map_or(&visit.rows, |part| &part.rows);
    write_rows(line, rows, catalog);
}

fn write_rows(line: &mut String, rows: &[engine::ledger::Row], catalog: &Catalog) {
    for row in rows.iter().filter(|row| row.position.0 == 0) {
        let name = catalog.name(NameKind::Rule, row.rule.0).unwrap_or("?");
        let sign = if row.granted > Points(0) { "+" } else { "" };
        let cut = match row.cut {
            engine::ledger::Cut::None => String::new(),
            cut => format!(" ({})", cut.name()),
        };
        let _ = write!(line, "  {name} {sign}{}{cut}", row.granted.shown());
    }
}

/// What a hit is, in a word.
pub fn what(hit: &Hit) -> &str {
    match hit.kind {
        HitKind::PageView => "page_view",
        HitKind::Event => &hit.event,
        HitKind::Engagement => "engagement",
        HitKind::Identify => "identify",
        HitKind::Reset => "reset",
    }
}

fn clock_time(at: Timestamp) -> String {
    crate::outbox::message::iso(at).get(11..23).unwrap_or_default().to_owned()
}
