//! A record as one line: what `tail` and the live stream print.

use std::fmt::Write;

use engine::catalog::Catalog;
use engine::hit::{Hit, HitKind};
use engine::id::VisitorId;
use engine::points::Points;
use engine::record::{Body, HitRecord, NameKind, Record, Step, StepRecord};
use engine::threshold::Direction;
use engine::time::Timestamp;

/// A record as one line: when, who, what, and what it earned, or why nothing. It holds what
/// strangers wrote, and is safe to print.
pub fn line(record: &Record, catalog: &Catalog) -> String {
    printable(&raw_line(record, catalog))
}

/// A text whose control characters, and those that turn the direction of writing, are written
/// out: on a terminal they would be commands, and a line could pretend to be another.
pub fn printable(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        let turns = matches!(
            character,
            '\u{61c}'
                | '\u{200e}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
        );
        if character.is_control() || turns {
            plain.extend(character.escape_unicode());
        } else {
            plain.push(character);
        }
    }
    plain
}

fn raw_line(record: &Record, catalog: &Catalog) -> String {
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
        Step::Erase { .. } => "erase",
        Step::Feedback(feedback) => feedback.kind.name(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_no_command_to_a_terminal() {
        let path = "/\u{1b}[31m\r\u{9b}\u{202e}価格".to_owned();
        let body = HitRecord { hit: Hit { path, ..Hit::default() }, ..HitRecord::default() };
        let body = Body::Hit(Box::new(body));
        let record = Record { time: Timestamp(0), version: 1, body };
        let line = line(&record, &Catalog::default());
        assert!(line.contains(r"/\u{1b}[31m\u{d}\u{9b}\u{202e}価格"), "{line}");
    }
}
