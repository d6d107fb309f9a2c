//! The files beside the journal: keys of people, erasures, tokens, snapshots.

use crate::erasures;
use crate::past::Past;
use crate::snapshots::file::{Fault, Snapshot};
use crate::tokens;

use super::Report;
use crate::journal::scan::Finding;

/// A snapshot, and what is wrong with it.
pub(super) type Opened = (String, Result<Snapshot, Fault>);

/// Looks at each.
pub(super) fn check(past: &Past, snapshots: Vec<Opened>, report: &mut Report) {
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
    for (name, opened) in snapshots {
        let file = format!("snapshots/{name}");
        let fault = match opened {
            Ok(snapshot) if snapshot.end.until > report.journal.last => {
                Some("it knows of records that the journal has not".to_owned())
            }
            Ok(snapshot) => snapshot.verify(&|| ()).err().map(|fault| fault.to_string()),
            Err(fault) => Some(fault.to_string()),
        };
        match fault {
            Some(fault) => report.wrong_file("snapshot", &file, None, fault),
            None => report.snapshots += 1,
        }
    }
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
