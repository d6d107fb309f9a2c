//! `mikomi verify`: everything that a data folder holds, against what FORMAT.md promises of it.
//! It only reads, also beside a server that runs. Whatever is wrong has a name and a place.

mod files;
mod receipts;
mod records;
mod state;

use std::fmt::Write as _;
use std::path::Path;

use engine::id::Position;
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::journal::scan::{Finding, Scanned, Seen};
use crate::past::{Past, PastError, is_damage};

use self::receipts::Receipts;
use self::records::Records;

/// Findings that are listed. More are counted.
const FINDINGS_MAX: usize = 1_000;

/// What is looked at.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Only bytes and records: what came of them is not worked out.
    pub no_replay: bool,
    /// Receipts to be proved.
    pub receipts: Vec<String>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// What is wrong.
    pub problems: Vec<Finding>,
    /// What is worth saying.
    pub notes: Vec<Finding>,
    /// How much is wrong, listed or not.
    pub wrong: usize,
    /// The journal.
    pub journal: Scanned,
    /// How long the bytes took to read and judge, in milliseconds.
    pub bytes_took_ms: u64,
    /// How long everything took, in milliseconds.
    pub took_ms: u64,
    /// What came of the records.
    pub state: Option<State>,
    /// People who have a key.
    pub people: usize,
    /// Sealed payloads that could be opened, and those whose key is known to be gone.
    pub sealed: (u64, u64),
    /// Snapshots that are sound.
    pub snapshots: usize,
    /// The last record of what the base stands for, if the journal's beginning is gone.
    pub base: Option<Position>,
    /// Receipts that were proved.
    pub receipts: usize,
}

/// What came of the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Its hash, at the time of the last record.
    pub hash: u128,
    /// That time, in milliseconds.
    pub at_ms: u64,
    /// Visitors in memory.
    pub visitors: usize,
    /// Names of leads.
    pub leads: usize,
    /// Leads whose rows were added up.
    pub ledgers: usize,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_healthy(&self) -> bool {
        self.wrong == 0
    }

    fn wrong(&mut self, finding: Finding) {
        self.wrong += 1;
        if self.problems.len() < FINDINGS_MAX {
            self.problems.push(finding);
        }
    }

    fn note(&mut self, finding: Finding) {
        if self.notes.len() < FINDINGS_MAX {
            self.notes.push(finding);
        }
    }

    /// Notes something about a file as a whole.
    fn wrong_file(&mut self, name: &'static str, file: &str, offset: Option<u64>, about: String) {
        self.wrong(Finding { name, file: file.to_owned(), offset, position: None, about });
    }

    /// Billions of bytes a second.
    fn gb_per_s(&self) -> f64 {
        self.journal.bytes as f64 / 1e6 / (self.bytes_took_ms.max(1)) as f64
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a string does not fail.
        for finding in &self.problems {
            let _ = writeln!(text, "wrong  {}", line(finding));
        }
        if self.wrong > self.problems.len() {
            let _ = writeln!(text, "wrong  and {} more", self.wrong - self.problems.len());
        }
        for finding in &self.notes {
            let _ = writeln!(text, "note   {}", line(finding));
        }
        let Scanned { segments, batches, seals, records, bytes, last, .. } = self.journal;
        let _ = writeln!(
            text,
            "journal    {segments} segments, {batches} batches, {seals} seals, {records} records \
             up to position {}, {bytes} bytes, {:.2} GB/s",
            last.0,
            self.gb_per_s(),
        );
        let _ = writeln!(
            text,
            "sealed     {} payloads open, {} whose key is gone by erasure; {} people have a key",
            self.sealed.0, self.sealed.1, self.people,
        );
        if let Some(state) = &self.state {
            let _ = writeln!(
                text,
                "state      {:032x} at {}, twice; {} visitors, {} names of leads, {} ledgers add \
                 up",
                state.hash, state.at_ms, state.visitors, state.leads, state.ledgers,
            );
        }
        let _ = writeln!(text, "snapshots  {} sound", self.snapshots);
        if let Some(base) = self.base {
            let _ = writeln!(text, "base       stands for the records up to position {}", base.0);
        }
        if self.receipts > 0 {
            let _ = writeln!(text, "receipts   {} proved", self.receipts);
        }
        let verdict = match self.wrong {
            0 => "healthy".to_owned(),
            wrong => format!("{wrong} things are wrong"),
        };
        let _ = write!(text, "{verdict}, after {:.1} s", self.took_ms as f64 / 1e3);
        text
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let rows = |findings: &[Finding]| findings.iter().map(row).collect::<Vec<Value>>();
        let journal = &self.journal;
        json!({
            "schema": 1,
            "healthy": self.is_healthy(),
            "wrong": self.wrong,
            "problems": rows(&self.problems),
            "notes": rows(&self.notes),
            "segments": journal.segments,
            "batches": journal.batches,
            "seals": journal.seals,
            "records": journal.records,
            "bytes": journal.bytes,
            "first": journal.first.0,
            "last": journal.last.0,
            "incarnation": journal.incarnation,
            "gb_per_s": self.gb_per_s(),
            "bytes_took_ms": self.bytes_took_ms,
            "took_ms": self.took_ms,
            "people_with_keys": self.people,
            "sealed_open": self.sealed.0,
            "sealed_erased": self.sealed.1,
            "snapshots": self.snapshots,
            "base_until": self.base.map(|base| base.0),
            "receipts": self.receipts,
            "state": self.state.map(|state| json!({
                "hash": format!("{:032x}", state.hash),
                "at_ms": state.at_ms,
                "visitors": state.visitors,
                "leads": state.leads,
                "ledgers": state.ledgers,
            })),
        })
    }
}

fn line(finding: &Finding) -> String {
    let Finding { name, file, offset, position, about } = finding;
    let mut text = format!("{name}  {file}");
    if let Some(offset) = offset {
        let _ = write!(text, " byte {offset}");
    }
    if let Some(position) = position {
        let _ = write!(text, " position {}", position.0);
    }
    let _ = write!(text, ": {about}");
    text
}

fn row(finding: &Finding) -> Value {
    let Finding { name, file, offset, position, about } = finding;
    json!({
        "name": name,
        "file": file,
        "offset": offset,
        "position": position.map(|position| position.0),
        "about": about,
    })
}

/// How often it is looked anew because the oldest records were removed meanwhile.
const TRIES: usize = 3;

/// Looks at everything.
pub fn verify(data: &Path, options: &Options) -> Result<Report, PastError> {
    let mut looked = look(data, options);
    for _ in 1..TRIES {
        let first = Past::open(data)?.first()?;
        let moved = match &looked {
            Ok(report) => report.journal.first != first,
            Err(PastError::Disk(_, error)) => error.kind() == std::io::ErrorKind::NotFound,
            Err(_) => false,
        };
        if !moved {
            break;
        }
        looked = look(data, options);
    }
    looked
}

fn look(data: &Path, options: &Options) -> Result<Report, PastError> {
    let clock = Clock::system();
    let began = clock.boot_ms();
    let mut report = Report::default();
    let mut past = Past::open(data)?;
    let mut receipts = Receipts::read(&options.receipts, &past.install.alert, &mut report);
    // Before the journal, which has everything that they know of.
    let snapshots = (past.snapshots(), past.bases());
    // Bytes alone first, so that the speed told is theirs.
    let mut whole = true;
    report.journal = past.scan(&mut |seen| match seen {
        Seen::Wrong(finding) => {
            whole &= !is_damage(&finding);
            report.wrong(finding);
        }
        Seen::Note(finding) => report.note(finding),
        Seen::Batch(batch) | Seen::Superseded(batch) => receipts.see(batch),
        Seen::Record(..) => {}
    })?;
    report.bytes_took_ms = clock.boot_ms() - began;
    receipts.finish(&mut report);
    // A key is on the disk before the batch that needs it.
    past.read_keys().map_err(|error| PastError::Disk(data.join("keys"), error))?;
    let snapshots = files::check(&past, snapshots, &mut report);
    let until = report.journal.last;
    let mut records = Records::new(&past, report.journal.first);
    past.scan(&mut |seen| match seen {
        Seen::Record(entry, place) if entry.position <= until => {
            whole &= records.take(&entry, &place, &mut report);
        }
        Seen::Record(entry, _) => records.note_erased(&entry),
        Seen::Wrong(finding) if is_damage(&finding) => records.lost_some(),
        Seen::Note(finding) if finding.name == "accepted_loss" => records.lost_some(),
        _ => {}
    })?;
    let firsts = records.finish(&mut report);
    if !options.no_replay && whole {
        state::check(&past, until, &firsts, &snapshots, &mut report);
        state::check_snapshots(&past, until, snapshots, &mut report);
    } else if !options.no_replay {
        report.note(Finding {
            name: "not_replayed",
            file: "journal".to_owned(),
            offset: None,
            position: None,
            about: "records are missing: neither state nor ledgers were worked out".to_owned(),
        });
    }
    report.took_ms = clock.boot_ms() - began;
    Ok(report)
}

/// A record's place, for a finding.
fn at(
    name: &'static str,
    place: &crate::journal::scan::Place<'_>,
    position: Position,
    about: String,
) -> Finding {
    Finding {
        name,
        file: place.file.to_owned(),
        offset: Some(place.offset),
        position: Some(position),
        about,
    }
}
