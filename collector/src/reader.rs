//! The reader follows committed records and keeps what lists need: names, who is hot, the live
//! stream. Lists never touch the engine's maps; one entity is copied under its lock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::catalog::Catalog;
use engine::hit::{Attributes, Hit, HitKind};
use engine::id::{LeadId, VisitorId};
use engine::record::{Body, HitRecord, NameKind, Record};
use engine::rule::Points;
use engine::threshold::Direction;
use engine::time::Timestamp;
use engine::wire::About;

use crate::app::App;
use crate::journal::Follower;
use crate::timeline;

const LOOK_EVERY: Duration = Duration::from_millis(100);

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
}

impl Lists {
    /// Applies a record, live and at recovery.
    pub fn evolve(&self, record: &Record, catalog: &Catalog) {
        let Some(part) = record.lead_part() else {
            return;
        };
        let mut inner = self.locked();
        let summary = inner.leads.entry(part.lead).or_default();
        if let Body::Hit(hit) = &record.body {
            summary.last_seen = summary.last_seen.max(record.time);
            let claim = hit.hit.claim.as_ref().filter(|_| part.takes_attributes);
            if let Some(claim) = claim {
                summary.remember(&claim.attributes);
            }
        }
        for crossed in &part.crossings {
            let number = u16::from(crossed.crossing.threshold.0);
            if catalog.name(NameKind::Threshold, number) != Some("hot") {
                continue;
            }
            match crossed.crossing.direction {
                Direction::Rise | Direction::Release => inner.hot.insert(part.lead),
                Direction::Fall => inner.hot.remove(&part.lead),
            };
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

    fn locked(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
    while !stop.load(Ordering::Acquire) {
        let next = follower.next_blocking(LOOK_EVERY);
        let listening = app.live.receiver_count() > 0;
        let wanted = |bytes: &[u8]| listening || About::of(bytes).lead;
        let next = next.map(|entry| {
            entry.map(|entry| wanted(entry.bytes).then(|| Record::decode(entry.bytes)))
        });
        let mut record = match next {
            Ok(Some(Some(Ok(record)))) => record,
            Ok(None) if follower.is_ended() => return,
            Ok(None | Some(None | Some(Err(_)))) => continue,
            Err(error) => {
                tracing::error!(%error, "the reader cannot read the journal and stops");
                return;
            }
        };
        let catalog = app.engine.catalog();
        timeline::unseal(app, &mut record);
        lists.evolve(&record, &catalog);
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
            let _ = write!(line, "  rules version {} published", published.version);
        }
        Body::Named(_) | Body::Outbox(_) => line.push_str("  (bookkeeping)"),
    }
    let crossings = record.lead_part().map(|part| part.crossings.as_slice()).unwrap_or_default();
    for crossed in crossings {
        let number = u16::from(crossed.crossing.threshold.0);
        let name = catalog.name(NameKind::Threshold, number).unwrap_or("?");
        let what = match crossed.crossing.direction {
            Direction::Rise if crossed.crossing.waits_until.is_some() => "in, message waits",
            Direction::Rise => "in",
            Direction::Fall => "out",
            Direction::Release => "message goes",
        };
        let _ = write!(line, "  [{name}: {what}]");
    }
    line
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
        let _ = write!(line, "  0 ({excluded:?})");
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
