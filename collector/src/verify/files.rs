//! The files beside the journal: keys of people, erasures, tokens, snapshots.

use crate::past::{Past, read_erased};
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
            Ok(snapshot) if snapshot.head.from > report.journal.last => {
                Some("it knows of records that the journal has not".to_owned())
            }
            Ok(snapshot) => snapshot.verify().err().map(|fault| fault.to_string()),
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
    let offset = Some(keys.valid as u64);
    let file = "keys/subjects.log";
    if keys.damaged {
        let about = "the entry here does not match its checksum; what stands behind it is not read";
        report.wrong_file("key_entry", file, offset, about.to_owned());
    } else if keys.valid < keys.bytes {
        let about = "an entry that was never finished, and that no batch needs";
        report.note(Finding {
            name: "torn_key",
            file: file.to_owned(),
            offset,
            position: None,
            about: about.to_owned(),
        });
    }
}

fn erasures(past: &Past, report: &mut Report) {
    let file = "keys/erased.log";
    match read_erased(&past.data) {
        Ok((_, valid, bytes)) if valid + crate::erasures::ENTRY_BYTES <= bytes => {
            let about = "the entry here does not match its checksum".to_owned();
            report.wrong_file("erased_entry", file, Some(valid as u64), about);
        }
        Ok((_, valid, bytes)) if valid < bytes => report.note(Finding {
            name: "torn_erasure",
            file: file.to_owned(),
            offset: Some(valid as u64),
            position: None,
            about: "an entry that was never finished".to_owned(),
        }),
        Ok(_) => {}
        Err(error) => report.wrong_file("erased_entry", file, None, error.to_string()),
    }
}
