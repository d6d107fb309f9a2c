//! Whatever is wrong in a data folder is found and has a name; in a healthy one nothing is.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use collector::erasures::entry_of;
use collector::journal::segment::{BATCH_HEADER_BYTES, Header, Index, before};
use collector::verify::{Options, Report, verify};
use engine::id::{LeadId, Position, RuleId};
use engine::ledger::Regrant;
use engine::record::{Body, Record};
use engine::time::Timestamp;
use serde_json::{Value, json};

use crate::forge::{Journal, batches, logs};
use crate::support::wait_for;
use crate::{copy, lived};

type Plant<'a> = Box<dyn Fn(&Path) + 'a>;

fn look(data: &Path) -> Report {
    verify(data, &Options::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn names(report: &Report) -> Vec<&'static str> {
    report.problems.iter().map(|problem| problem.name).collect()
}

/// Changes bytes of a file.
fn edit(file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(file).unwrap();
    change(&mut bytes);
    fs::write(file, bytes).unwrap();
}

fn flip(file: &Path, at: usize) {
    edit(file, |bytes| bytes[at] ^= 1);
}

/// Writes the header of a segment anew, with a sound checksum.
fn reheader(file: &Path, change: impl FnOnce(&mut Header)) {
    edit(file, |bytes| {
        let mut header = Header::decode(bytes).unwrap();
        change(&mut header);
        bytes[..64].copy_from_slice(&header.encode());
    });
}

/// A segment in the middle with at least three batches, and those.
fn middle(data: &Path) -> (std::path::PathBuf, Vec<(usize, usize)>) {
    let files = logs(data);
    let inner = files[1..files.len() - 1].iter().map(|file| (file.clone(), batches(file)));
    inner.into_iter().find(|(_, batches)| batches.len() > 3).unwrap()
}

fn forged(data: &Path, change: impl Fn(&mut Record, Position) -> bool) {
    let mut journal = Journal::read(data);
    journal.change(change);
    journal.write();
}

fn lead_part(record: &mut Record) -> Option<&mut engine::record::LeadPart> {
    match &mut record.body {
        Body::Hit(hit) => hit.lead.as_mut(),
        Body::Due(part) => Some(part),
        Body::Step(step) => step.lead.as_mut(),
        _ => None,
    }
}

/// What a failing disk or a careless hand does.
fn bytes_planted<'a>() -> Vec<(&'static str, Plant<'a>)> {
    let in_batch = |at: usize| {
        move |data: &Path| {
            let (file, batches) = middle(data);
            flip(&file, batches[1].0 + at);
        }
    };
    vec![
        ("segment_header", Box::new(|data| flip(&middle(data).0, 20))),
        (
            "segment_newer",
            Box::new(|data| {
                edit(&middle(data).0, |bytes| {
                    bytes[8] = 9;
                    let sum = crc32c::crc32c(&bytes[..60]).to_le_bytes();
                    bytes[60..64].copy_from_slice(&sum);
                });
            }),
        ),
        ("batch_header", Box::new(in_batch(1))),
        (
            "batch_length",
            Box::new(|data| {
                let (file, batches) = middle(data);
                edit(&file, |bytes| bytes[batches[1].0 + 6] = 0x7f);
            }),
        ),
        ("batch_checksum", Box::new(in_batch(60))),
        // The padding: the last byte of a batch whose payload does not fill it.
        (
            "batch_checksum",
            Box::new(|data| {
                let (file, batches) = middle(data);
                let bytes = fs::read(&file).unwrap();
                let padded = batches.iter().find(|(offset, size)| {
                    let length =
                        u32::from_le_bytes(bytes[offset + 4..offset + 8].try_into().unwrap());
                    length as usize + 40 < *size
                });
                let (offset, size) = padded.unwrap();
                flip(&file, offset + size - 1);
            }),
        ),
    ]
}

/// Damage of whole batches and segments.
fn segments_planted<'a>() -> Vec<(&'static str, Plant<'a>)> {
    vec![
        (
            "batch_missing",
            Box::new(|data| {
                let (file, batches) = middle(data);
                let (offset, size) = batches[1];
                edit(&file, |bytes| bytes[offset..offset + size].fill(0));
            }),
        ),
        (
            "batch_repeated",
            Box::new(|data| {
                let (file, batches) = middle(data);
                let ((from, size), (to, _)) = (batches[0], batches[1]);
                edit(&file, |bytes| bytes.copy_within(from..from + size, to));
            }),
        ),
        (
            "segment_truncated",
            Box::new(|data| {
                let (file, batches) = middle(data);
                edit(&file, |bytes| bytes.truncate(batches[2].0));
            }),
        ),
        (
            "segment_missing",
            Box::new(|data| {
                let (file, _) = middle(data);
                fs::remove_file(file.with_extension("log")).unwrap();
            }),
        ),
        (
            "segment_foreign",
            Box::new(|data| {
                reheader(&middle(data).0, |header| header.install[0] ^= 1);
            }),
        ),
        (
            "segment_name",
            Box::new(|data| {
                let files = logs(data);
                let [one, other] = [fs::read(&files[1]).unwrap(), fs::read(&files[2]).unwrap()];
                fs::write(&files[1], other).unwrap();
                fs::write(&files[2], one).unwrap();
            }),
        ),
        (
            "segment_incarnation",
            Box::new(|data| {
                reheader(&logs(data)[0], |header| header.incarnation = 7);
            }),
        ),
        (
            "segment_proven",
            Box::new(|data| {
                reheader(&middle(data).0, |header| header.proven += 8);
            }),
        ),
        (
            "segment_previous",
            Box::new(|data| {
                reheader(&logs(data)[0], |header| header.previous = 512);
            }),
        ),
    ]
}

/// Damage of what lies beside the journal's segments.
fn files_planted<'a>() -> Vec<(&'static str, Plant<'a>)> {
    vec![
        (
            "index_wrong",
            Box::new(|data| {
                edit(&logs(data)[0].with_extension("idx"), |bytes| {
                    let mut index = Index::decode(bytes).unwrap();
                    index.entries[0].1 += 8;
                    *bytes = index.encode();
                });
            }),
        ),
        (
            "accepted_nothing",
            Box::new(|data| {
                let name = "journal/accepted-0000000000000001-0000000000000040";
                fs::write(data.join(name), "").unwrap();
            }),
        ),
        ("key_entry", Box::new(|data| flip(&data.join("keys/subjects.log"), 50))),
        ("key_missing", Box::new(|data| fs::write(data.join("keys/subjects.log"), "").unwrap())),
        (
            "erased_entry",
            Box::new(|data| {
                let mut entry = entry_of(LeadId(1), Timestamp(1));
                entry[3] ^= 1;
                fs::write(data.join("keys/erased.log"), entry).unwrap();
            }),
        ),
        (
            "token",
            Box::new(|data| {
                edit(&data.join("admin.tokens"), |bytes| bytes.extend_from_slice(b"not a hash\n"));
            }),
        ),
        (
            "snapshot",
            Box::new(|data| {
                let mut files = fs::read_dir(data.join("snapshots")).unwrap();
                flip(&files.next().unwrap().unwrap().path(), 700);
            }),
        ),
    ]
}

/// What only a program could have written: every checksum is sound.
fn records_planted<'a>() -> Vec<(&'static str, Plant<'a>)> {
    vec![
        (
            "batch_synced",
            Box::new(|data| {
                let mut journal = Journal::read(data);
                let batch = &mut journal.segments[1].batches[1];
                batch.synced = Position(batch.first.0 + 5);
                journal.write();
            }),
        ),
        (
            "batch_synced",
            Box::new(|data| {
                let mut journal = Journal::read(data);
                journal.segments[1].batches[1].synced = Position(1);
                journal.write();
            }),
        ),
        (
            "batch_chain",
            Box::new(|data| {
                let mut journal = Journal::read(data);
                journal.segments[1].batches[1].previous = Some(0x1234);
                journal.write();
            }),
        ),
        (
            "batch_position",
            Box::new(|data| {
                let mut journal = Journal::read(data);
                let batches = &mut journal.segments[1].batches;
                let later = batches.iter().skip(1).position(|it| !it.records.is_empty());
                let at = later.unwrap() + 1;
                batches.remove(at);
                while batches[at].records.is_empty() {
                    batches.remove(at);
                }
                journal.write();
            }),
        ),
        (
            "record",
            Box::new(|data| {
                let mut journal = Journal::read(data);
                let batches = &mut journal.segments[1].batches;
                let batch = batches.iter_mut().find(|batch| !batch.records.is_empty()).unwrap();
                batch.records[0][0] = 99;
                journal.write();
            }),
        ),
    ]
}

fn plant<'a>(change: impl Fn(&mut Record, Position) -> bool + 'a) -> Plant<'a> {
    Box::new(move |data| forged(data, &change))
}

/// Records that point, or say, what they must not.
fn pointers_planted<'a>() -> Vec<(&'static str, Plant<'a>)> {
    vec![
        (
            "visitor_pointer",
            plant(|record, _| match &mut record.body {
                Body::Hit(hit) => hit.visit.as_mut().is_some_and(|visit| {
                    let points = visit.previous > Position(1);
                    visit.previous = before(visit.previous);
                    points
                }),
                _ => false,
            }),
        ),
        (
            "lead_pointer",
            plant(|record, _| {
                lead_part(record).is_some_and(|part| {
                    let points = part.previous > Position(1);
                    part.previous = before(part.previous);
                    points
                })
            }),
        ),
        (
            "first_hit",
            plant(|record, _| match &mut record.body {
                Body::Hit(hit) => hit.first.as_mut().is_some_and(|first| {
                    first.position = Position(2);
                    true
                }),
                _ => false,
            }),
        ),
        (
            "regrant",
            plant(|record, _| {
                lead_part(record).is_some_and(|part| {
                    let granted = engine::points::Points(1_000);
                    let cut = part.rows.first().map(|row| row.cut);
                    let Some(cut) = cut else { return false };
                    part.regrants.push(Regrant { position: Position(1), order: 77, granted, cut });
                    true
                })
            }),
        ),
        (
            "row_position",
            plant(|record, position| {
                lead_part(record).and_then(|part| part.rows.first_mut()).is_some_and(|row| {
                    row.position = Position(position.0 + 1_000);
                    true
                })
            }),
        ),
    ]
}

/// Records that name what there is not.
fn names_planted<'a>() -> Vec<(&'static str, Plant<'a>)> {
    vec![
        (
            "rule_unnamed",
            plant(|record, _| {
                lead_part(record).and_then(|part| part.rows.first_mut()).is_some_and(|row| {
                    row.rule = RuleId(60_000);
                    true
                })
            }),
        ),
        (
            "version_unknown",
            plant(|record, position| {
                record.version = 77;
                position > Position(20)
            }),
        ),
        (
            "sealed",
            plant(|record, _| match &mut record.body {
                Body::Hit(hit) => hit.hit.claim.as_mut().is_some_and(|claim| {
                    let last = claim.sealed.last_mut().map(|byte| *byte ^= 1);
                    last.is_some()
                }),
                _ => false,
            }),
        ),
        (
            "outbox_entry",
            plant(|record, _| match &mut record.body {
                Body::Outbox(bytes) => {
                    bytes[0] = b'?';
                    true
                }
                _ => false,
            }),
        ),
        ("outbox_cause", plant(|record, _| outbox(record, "queued", "cause", &json!(3)))),
        (
            "outbox_attempt",
            plant(|record, _| {
                let stranger = json!("msg_0000000000000000000000");
                outbox(record, "attempt", "alert", &stranger)
            }),
        ),
    ]
}

/// Changes a field of an entry of the outbox.
fn outbox(record: &mut Record, entry: &str, field: &str, value: &Value) -> bool {
    let Body::Outbox(bytes) = &mut record.body else {
        return false;
    };
    let mut said: Value = serde_json::from_slice(bytes).unwrap();
    let wanted = said["entry"] == entry;
    said[field] = value.clone();
    *bytes = said.to_string().into_bytes();
    wanted
}

/// The first batch after another one that holds records: a seal is a header alone.
fn with_records(batches: &[(usize, usize)]) -> usize {
    let found = batches.iter().skip(1).find(|(_, size)| *size > BATCH_HEADER_BYTES);
    found.unwrap().0
}

#[test]
fn every_planted_corruption_is_found_by_its_name_and_none_in_a_healthy_folder() {
    // Given a life with several segments, messages, a power cut and a snapshot.
    let (mut server, _receiver) = lived();
    server.post("/api/snapshot", &json!({}));
    wait_for("a snapshot", || (server.figure("mikomi_snapshots_taken_total") > 0).then_some(()));
    // When it is looked at while it runs, after a power cut, and after a stop.
    let running = look(&server.data());
    server.kill();
    let cut = look(&server.data());
    server.restart();
    server.stop();
    let healthy = look(&server.data());
    // Then nothing is wrong, and nothing was changed by looking.
    for report in [&running, &cut, &healthy] {
        assert!(report.is_healthy(), "{}", report.text());
        assert!(report.state.is_some_and(|state| state.ledgers > 10 && state.leads > 10));
        assert!(report.sealed.0 > 10 && report.snapshots > 0, "{}", report.text());
    }
    assert!(healthy.journal.segments > 4, "{}", healthy.text());
    let folder = tempfile::tempdir().unwrap();
    // Given each corruption in a copy; then it is found by its name.
    let mut found = BTreeMap::new();
    let on_disk = [bytes_planted(), segments_planted(), files_planted()];
    let written = [records_planted(), pointers_planted(), names_planted()];
    let planted = on_disk.into_iter().chain(written).flatten();
    for (number, (name, plant)) in planted.enumerate() {
        let data = folder.path().join(format!("{number} {name}"));
        copy(&server.data(), &data);
        plant(&data);
        let report = look(&data);
        assert!(names(&report).contains(&name), "{number} {name}: {}", report.text());
        let problem = report.problems.iter().find(|it| it.name == name).unwrap();
        assert!(!problem.about.is_empty() && !problem.file.is_empty(), "{problem:?}");
        *found.entry(name).or_insert(0) += 1;
        fs::remove_dir_all(data).unwrap();
    }
    assert!(found.len() >= 35, "{found:?}");
}

#[test]
fn a_torn_tail_and_an_unfinished_file_are_said_and_are_no_error() {
    let (mut server, _receiver) = lived();
    server.kill();
    let data = server.data();
    let last = logs(&data).pop().unwrap();
    let (offset, size) = *batches(&last).last().unwrap();
    // Given half a batch at the end, as if it had never been synced, and a file without a name.
    edit(&last, |bytes| {
        let half = bytes[64..64 + 100].to_vec();
        bytes.truncate(offset + size);
        bytes.extend_from_slice(&half);
    });
    fs::write(data.join("journal/segment-00000000000fffff.log.new"), [1; 500]).unwrap();
    edit(&data.join("keys/subjects.log"), |bytes| bytes.extend_from_slice(&[9; 20]));
    // An index is never synced.
    flip(&logs(&data)[0].with_extension("idx"), 13);
    let report = look(&data);
    assert!(report.is_healthy(), "{}", report.text());
    let notes: Vec<&str> = report.notes.iter().map(|note| note.name).collect();
    for name in ["torn_tail", "unfinished_file", "torn_key", "index_torn"] {
        assert!(notes.contains(&name), "{name}: {notes:?}");
    }
    server.restart();
    server.stop();
    let notes = look(&server.data()).notes;
    assert!(notes.is_empty(), "a start puts all of it right: {notes:?}");
}

#[test]
fn the_command_ends_with_one_when_something_is_wrong_and_speaks_json() {
    let (mut server, _receiver) = lived();
    server.stop();
    let (text, well) = server.command(&["verify"]);
    assert!(well && text.contains("healthy"), "{text}");
    let (text, well) = server.command(&["verify", "--json", "--no-replay"]);
    let said: Value = serde_json::from_str(text.trim()).unwrap();
    assert!(well && said["healthy"] == true && said["state"].is_null(), "{text}");
    let (file, batches) = middle(&server.data());
    let damaged = with_records(&batches);
    flip(&file, damaged + 50);
    let (text, well) = server.command(&["verify", "--json"]);
    let said: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert!(!well && said["healthy"] == false, "{text}");
    let problem = &said["problems"][0];
    let name = file.file_name().unwrap().to_str().unwrap();
    assert_eq!((&problem["name"], &problem["file"]), (&json!("batch_checksum"), &json!(name)));
    assert_eq!(problem["offset"], json!(damaged));
    // Without the keys of the installation nothing can be judged.
    fs::write(server.data().join("install.keys"), "install = 12\n").unwrap();
    let (text, well) = server.command(&["verify"]);
    assert!(!well && text.contains("not the keys of an installation"), "{text}");
}

#[test]
fn a_loss_that_was_accepted_is_said_and_not_told_as_damage_again() {
    let (mut server, _receiver) = lived();
    server.kill();
    let (file, batches) = middle(&server.data());
    let damaged = with_records(&batches);
    flip(&file, damaged + 50);
    assert!(!look(&server.data()).is_healthy());
    let mut serve = std::process::Command::new(env!("CARGO_BIN_EXE_mikomi"));
    serve.arg("--config").arg(server.config()).arg("--data").arg(server.data());
    serve.args(["serve", "--any-port", "--accept-loss"]);
    serve.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut child = serve.spawn().unwrap();
    wait_for("the loss to be accepted", || {
        let files = fs::read_dir(server.data().join("journal")).unwrap();
        let mut names = files.map(|it| it.unwrap().file_name().into_string().unwrap());
        names.any(|name| name.starts_with("accepted-")).then_some(())
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let report = verify(&server.data(), &Options { no_replay: true, ..Options::default() });
    let report = report.unwrap();
    assert!(report.notes.iter().any(|note| note.name == "accepted_loss"), "{}", report.text());
    assert!(!names(&report).contains(&"batch_checksum"), "{}", report.text());
}
