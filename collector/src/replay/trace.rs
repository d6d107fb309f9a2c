//! A line for each record: what it is, whose, and what it did.

use std::fmt::Write as _;

use engine::catalog::Catalog;
use engine::engine::Engine;
use engine::explain::explain;
use engine::id::{LeadId, Position};
use engine::ledger::Row;
use engine::points::Points;
use engine::record::{Body, LeadPart, NameKind, Record};
use engine::time::Timestamp;
use serde_json::{Value, json};

use crate::outbox::message::iso;
use crate::past::Step;

/// What is written.
pub(super) struct Trace {
    all: bool,
    lead: Option<LeadId>,
    catalog: Catalog,
}

impl Trace {
    pub(super) fn new(all: bool, lead: Option<LeadId>) -> Trace {
        Trace { all, lead, catalog: Catalog::default() }
    }

    /// The lines of a record that was applied.
    pub(super) fn after(&mut self, step: &Step<'_>, engine: &Engine, lines: &mut Vec<String>) {
        if matches!(step.record.body, Body::Published(_) | Body::Named(_)) {
            self.catalog = engine.catalog();
        }
        let position = step.entry.position;
        if self.all {
            lines.push(format!("{}  {}", head(step.record, position), what(step.record)));
        }
        let Some(lead) = self.lead else {
            return;
        };
        if let Some(part) = step.record.lead_part().filter(|part| Self::is_of(lead, part, engine)) {
            lines.push(format!(
                "{}  {}  {}",
                head(step.record, position),
                word(&step.record.body),
                self.did(part, step.record, engine)
            ));
        }
    }

    /// Whether a part is of the lead, or of whoever has it as a name.
    fn is_of(lead: LeadId, part: &LeadPart, engine: &Engine) -> bool {
        part.lead == lead || part.lead == engine.head(lead)
    }

    fn did(&self, part: &LeadPart, record: &Record, engine: &Engine) -> String {
        let mut text = String::new();
        // Writing into a string does not fail.
        for row in &part.rows {
            let _ = write!(text, "{} {}; ", self.rule(row), points(row.granted));
        }
        for regrant in &part.regrants {
            let _ = write!(text, "row of {} now {}; ", regrant.position.0, points(regrant.granted));
        }
        if !part.drops.is_empty() {
            let _ = write!(text, "{} sources dropped; ", part.drops.len());
        }
        if !part.names.is_empty() {
            let _ = write!(text, "{} names; ", part.names.len());
        }
        for crossing in &part.crossings {
            let name = self.catalog.name(NameKind::Threshold, u16::from(crossing.threshold.0));
            let name = name.unwrap_or("a line");
            let _ = write!(text, "{name} {:?} at {}; ", crossing.direction, iso(crossing.at));
        }
        for message in &part.messages {
            let _ = write!(text, "tells {}; ", message.kind.name());
        }
        let score = engine.entry(part.lead).and_then(|lead| {
            let terms = self.catalog.versions.at(record.time, lead.rescored)?;
            Some(explain(&lead.content.rows, terms, record.time).score)
        });
        let _ = write!(text, "score {}", score.map_or_else(|| "?".to_owned(), points));
        text
    }

    fn rule(&self, row: &Row) -> String {
        let name = self.catalog.name(NameKind::Rule, row.rule.0);
        name.map_or_else(|| format!("rule {}", row.rule.0), str::to_owned)
    }
}

fn points(points: Points) -> String {
    let Points(thousandths) = points;
    let sign = if thousandths < 0 { "-" } else { "" };
    let all = thousandths.unsigned_abs();
    format!("{sign}{}.{:03}", all / 1_000, all % 1_000)
}

fn head(record: &Record, position: Position) -> String {
    format!("{}  {}", position.0, iso(record.time))
}

fn word(body: &Body) -> String {
    match body {
        Body::Hit(hit) => format!("{:?}", hit.hit.kind).to_lowercase(),
        Body::Due(_) => "due".to_owned(),
        Body::Published(published) => format!("rules {}", published.terms.version),
        Body::Named(names) => format!("names {}", names.len()),
        Body::Outbox(_) => "outbox".to_owned(),
        Body::Step(step) => {
            let step = format!("{:?}", step.step);
            let end = step.find(|it: char| !it.is_alphanumeric()).unwrap_or(step.len());
            format!("step {}", step[..end].to_lowercase())
        }
    }
}

/// Everything in a few words, without what may be personal.
fn what(record: &Record) -> String {
    let mut text = word(&record.body);
    if let Body::Hit(hit) = &record.body {
        let visitor = hit.hit.visitor.map(|visitor| format!("  {visitor}"));
        let _ = write!(text, "{}  {}", visitor.unwrap_or_default(), hit.hit.path.escape_debug());
        if let Some(visit) = &hit.visit {
            let _ = write!(text, "  {} rows", visit.rows.len());
        } else if hit.lead.is_none() {
            text.push_str("  only recorded");
        }
    }
    if let Some(part) = record.lead_part() {
        let (rows, regrants) = (part.rows.len(), part.regrants.len());
        let (crossings, messages) = (part.crossings.len(), part.messages.len());
        let _ = write!(
            text,
            "  {}: {rows} rows, {regrants} regrants, {crossings} crossings, {messages} messages",
            part.lead
        );
    }
    text
}

/// How the lead stands at the end, exactly.
pub(super) fn standing(lead: LeadId, engine: &Engine, now: Timestamp) -> Value {
    let head = engine.head(lead);
    let Some(known) = engine.lead(head) else {
        return Value::Null;
    };
    let versions = engine.catalog().versions;
    let Some(terms) = versions.at(now, known.rescored) else {
        return Value::Null;
    };
    let rows = &known.content.rows;
    let exact = explain(rows, terms, now).score.0 as f64 / 1e3;
    json!({ "id": head.to_string(), "exact": exact, "rows": rows.len() })
}
