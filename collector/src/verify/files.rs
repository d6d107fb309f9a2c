//! The files beside the journal: keys of people, erasures, tokens, snapshots.

use crate::erasures;
use crate::past::Past;
use crate::snapshots::file::{Fault, Snapshot};
use crate::tokens;

use super::Report;
use crate::journal::scan::Finding;

/// A snapshot, and what is wrong with it.
pub(super) type Opened = (String, Result<Snapshot, Fault>);

/// Looks at each. The snapshots that are kept, and the bases. Says which snapshots are sound.
pub(super) fn check(
    past: &Past,
    (snapshots, bases): (Vec<Opened>, Vec<Opened>),
    report: &mut Report,
) -> Vec<(String, Snapshot)> {
    keys(past, report);
    erasures(past, report);
    match tokens::strange_lines(&past.data) {
        Ok(lines) => {
            for line in lines {
                let about = format!("line {line} is no token's hash");
                report.wrong_file("token", "admin.tokens", None, about);
            }
        }
        Err(error) => report.wrong_file("token", "admin.tokens", None, error.to_string()),
    }
    let first = report.journal.first;
    let bases = sound("base", bases, report);
    if first.ordinal() > 1 && !bases.iter().any(|(_, base)| base.head.from.next() >= first) {
        let about = format!("the journal begins with {}, and no base stands for the rest", first.0);
        report.wrong_file("base_missing", "snapshots", None, about);
    }
    report.base = bases.first().map(|(_, base)| base.end.until);
    let kept = sound("snapshot", snapshots, report);
    report.snapshots = kept.len();
    kept
}

/// Those that are sound to the last byte.
fn sound(what: &'static str, all: Vec<Opened>, report: &mut Report) -> Vec<(String, Snapshot)> {
    let mut found = Vec::new();
    for (name, opened) in all {
        let judged = opened.map_err(|fault| fault.to_string()).and_then(|snapshot| {
            if snapshot.end.until > report.journal.last {
                return Err("it knows of records that the journal has not".to_owned());
            }
            snapshot.verify(None).map_err(|fault| fault.to_string())?;
            Ok(snapshot)
        });
        match judged {
            Ok(snapshot) => found.push((name, snapshot)),
            Err(why) => report.wrong_file(what, &format!("snapshots/{name}"), None, why),
        }
    }
    found
}

fn keys(past: &Past, report: &mut Report) {
    let keys = &past.keys;
    report.people = keys.people();
    let (file, log) = ("keys/subjects.log", (keys.damaged, keys.valid, keys.bytes));
    entries(("key_entry", "torn_key"), file, log, report);
}

fn erasures(past: &Past, report: &mut Report) {
    let file = "keys/erased.log";
    match erasures::read(&past.data) {
        Ok((_, found)) => {
            let log = (found.damaged, found.valid, found.bytes);
            entries(("erased_entry", "torn_erasure"), file, log, report);
        }
        Err(error) => report.wrong_file("erased_entry", file, None, error.to_string()),
    }
}

/// A log of entries: one that is damaged is wrong, one that was never finished is said.
fn entries(
    (wrong, torn): (&'static str, &'static str),
    file: &str,
    (damaged, valid, bytes): (Option<usize>, usize, usize),
    report: &mut Report,
) {
    if let Some(offset) = damaged {
        let about = "the entry here does not match its checksum; the others count";
        report.wrong_file(wrong, file, Some(offset as u64), about.to_owned());
    } else if valid < bytes {
        report.note(Finding {
            name: torn,
            file: file.to_owned(),
            offset: Some(valid as u64),
            position: None,
            about: "an entry that was never finished, and that nothing needs".to_owned(),
        });
    }
}
