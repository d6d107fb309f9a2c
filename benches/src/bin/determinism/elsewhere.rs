//! The same journal read by the other program: written in segments, in two runs, and every ledger
//! and score compared, at the moment asked for.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use collector::journal::committer::Now;
use collector::journal::disk::RealDisk;
use collector::journal::{Hooks, Journal, Options};
use engine::engine::Engine;
use engine::facts::Source;
use engine::id::{LeadId, Position, VisitorId};
use engine::lead::{score_of, terms_of};
use engine::ledger::{self, Row};
use engine::scoring::Scoring;
use engine::time::Timestamp;
use serde_json::{Value, json};

use super::life::{INSTALL, NEW_VISITORS, START, browser, decode};

/// How many ledgers the other program agrees on, at every moment.
pub fn read_elsewhere(
    records: &[Vec<u8>],
    scoring: &Scoring,
    moments: &[Timestamp],
) -> Result<usize, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (before, after) = records.split_at(records.len() / 2);
    write_segments(folder.path(), before)?;
    write_segments(folder.path(), after)?;
    let mut agreed = 0;
    for at in moments {
        let read = read(folder.path(), *at)?;
        let expected = expected_lines(&known_at(records, *at)?, scoring, *at);
        if let Some(differs) = expected.symmetric_difference(&read).next() {
            let by = if read.contains(differs) { "reader" } else { "program" };
            return Err(format!("at {}, only the {by} says {differs}", at.0));
        }
        agreed += read.len();
    }
    Ok(agreed)
}

fn read(folder: &Path, at: Timestamp) -> Result<BTreeSet<String>, String> {
    let mut python = Command::new("python3");
    python.arg(reader_path()).arg(folder).arg(at.0.to_string());
    let output = python.output().map_err(|error| format!("python3: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let read: Result<Vec<Value>, _> = text.lines().map(serde_json::from_str).collect();
    Ok(read.map_err(|error| error.to_string())?.iter().map(Value::to_string).collect())
}

/// The state that the records up to a moment lead to.
fn known_at(records: &[Vec<u8>], at: Timestamp) -> Result<Engine, String> {
    let engine = Engine::new(8);
    for (index, bytes) in records.iter().enumerate() {
        let record = decode(bytes)?;
        if record.time <= at {
            engine.evolve(&record, Position::new(0, index as u64 + 1));
        }
    }
    Ok(engine)
}

/// What the reader should print: every person and visitor with its score and rows.
fn expected_lines(engine: &Engine, scoring: &Scoring, at: Timestamp) -> BTreeSet<String> {
    let person = |id: LeadId| {
        let lead = engine.lead(id)?;
        let exact = score_of(&lead, terms_of(&lead, scoring, at)).value(at).0;
        let rows = shown(&lead.content.rows);
        let stage = lead.stage(scoring, at).name();
        Some(json!({ "lead": id.to_string(), "stage": stage, "exact": exact, "rows": rows }))
    };
    let visitor = |id: VisitorId| {
        let rows = engine.visitor(id, at)?.rows.in_order();
        let exact = ledger::total(&rows, scoring.versions.at(at, 0)?).value(at).0;
        Some(json!({ "visitor": id.to_string(), "exact": exact, "rows": shown(&rows) }))
    };
    let people = engine.lead_ids().into_iter().filter_map(person);
    let visitors = (0..NEW_VISITORS.end).map(browser).filter_map(visitor);
    people.chain(visitors).map(|line| line.to_string()).collect()
}

fn shown(rows: &[Row]) -> Vec<Value> {
    let shown = |row: &Row| {
        let source = match row.source {
            Source::Server => "server".to_owned(),
            Source::Visitor(visitor) => visitor.to_string(),
        };
        json!([
            row.when.0,
            row.position.0,
            row.order,
            row.rule.0,
            row.category.0,
            source,
            row.origin.to_string(),
            row.version,
            row.base.0,
            row.granted.0,
            row.cut as u8,
            u8::from(row.withdrawn) | u8::from(row.folded) << 1,
        ])
    };
    rows.iter().map(shown).collect()
}

fn write_segments(folder: &Path, records: &[Vec<u8>]) -> Result<(), String> {
    let disk = RealDisk::open(folder).map_err(|error| error.to_string())?;
    let begun = Instant::now();
    let hooks = Hooks {
        now: Box::new(move || Now {
            wall_ms: START.0,
            boot_ms: begun.elapsed().as_millis() as u64,
        }),
        poisoned: Box::new(|_| {}),
    };
    let mut options = Options::new(INSTALL);
    options.segment_bytes = if records.len() > 1_000 { 1 << 20 } else { 1 << 16 };
    let opened = Journal::open(Arc::new(disk), &options, hooks, |_| {});
    let (journal, _) = opened.map_err(|error| error.to_string())?;
    // In small groups, so that there are many batches and some segments.
    for group in records.chunks(16) {
        let bytes = group.iter().map(Vec::len).sum();
        let mut reserved = journal.reserve(group.len(), bytes).map_err(|full| full.to_string())?;
        let last = group.iter().map(|record| reserved.push(record)).max();
        let durable = journal.wait_blocking(last.unwrap_or_default());
        durable.map_err(|poisoned| poisoned.to_string())?;
    }
    journal.stop().map(|_| ()).map_err(|poisoned| poisoned.to_string())
}

fn reader_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../collector/tests/journal_reader.py")
}
