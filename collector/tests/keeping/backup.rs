//! A copy of a folder that lives is whole or has no name, and comes back as what it was.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use collector::backup::{BackupError, ManifestFault, backup, restore};
use collector::erasures::entry_of;
use collector::verify::{Options, verify};
use engine::id::LeadId;
use engine::time::Timestamp;
use serde_json::json;

use crate::support::browser::Browser;
use crate::support::receiver::Receiver;
use crate::support::server::Server;
use crate::support::wait_for;
use crate::{copy, lived, told};

/// Set when it is dropped, also by a failure: or whoever waits for it would wait for ever.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Visits until told to stop; hits come before and meanwhile.
fn under_load(server: &Server, then: impl FnOnce()) {
    let (stop, sent) = (&AtomicBool::new(false), &AtomicU64::new(0));
    thread::scope(|scope| {
        let over = Over(stop);
        for number in 0..2 {
            scope.spawn(move || {
                let mut browser = Browser::returning(server, 5_000 + number);
                while !stop.load(Ordering::Relaxed) {
                    let page = sent.load(Ordering::Relaxed);
                    browser.page(&format!("/load/{number}/{page}"), "");
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let more_than = |count| (sent.load(Ordering::Relaxed) > count).then_some(());
        wait_for("the load", || more_than(20));
        then();
        let during = sent.load(Ordering::Relaxed);
        wait_for("the load to go on", || more_than(during));
        drop(over);
    });
}

/// Puts another data folder in the place of a server's that has stopped.
fn replace(server: &Server, with: &Path) {
    fs::rename(server.data(), server.data().with_extension("old")).unwrap();
    fs::rename(with, server.data()).unwrap();
}

fn alert_of(receiver: &Receiver, email: &str, count: usize) -> String {
    receiver.wait_about(email, count).pop().unwrap().header("webhook-id").to_owned()
}

#[test]
fn a_backup_under_load_comes_back_as_the_state_of_its_last_record_in_a_new_incarnation() {
    // Given a copy taken while hits arrive, and a life that goes on.
    let (mut server, receiver) = lived();
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("copy");
    let mut copied = None;
    under_load(&server, || copied = Some(backup(&server.data(), &to).unwrap()));
    let copied = copied.unwrap();
    assert!(copied.files > 5 && copied.bytes > 10_000, "{copied:?}");
    let mut buyer = Browser::returning(&server, 77);
    buyer.form("b@quote.example", &json!({}), "/thanks/contact/ok", "");
    let once = alert_of(&receiver, "b@quote.example", 1);
    server.stop();
    let now = server.now().to_string();
    let until = copied.until.0.to_string();
    let then = told(&server, &["replay", "--now", &now, "--until", &until]);
    // When it is put back and started.
    let back = folder.path().join("back");
    assert_eq!(restore(&to, &back, None).unwrap().until, copied.until);
    let report = verify(&back, &Options::default()).unwrap();
    assert!(report.is_healthy(), "{}", report.text());
    replace(&server, &back);
    let again = told(&server, &["replay", "--now", &now]);
    assert_eq!((&again["hash"], &again["records"]), (&then["hash"], &then["records"]));
    server.restart();
    // Then it is what it was, one incarnation on, and what happens anew has an id of its own.
    assert_eq!(server.get("/api/state")["hash"], then["hash"]);
    let mut buyer = Browser::returning(&server, 78);
    buyer.form("b@quote.example", &json!({}), "/thanks/contact/ok", "");
    assert_ne!(alert_of(&receiver, "b@quote.example", 2), once);
    server.stop();
    let report = verify(&server.data(), &Options::default()).unwrap();
    assert!(report.is_healthy(), "{}", report.text());
    assert_eq!(report.journal.incarnation, copied.incarnation + 1);
    // The next start is an ordinary one.
    server.restart();
    server.stop();
    let report = verify(&server.data(), &Options::default()).unwrap();
    assert_eq!(report.journal.incarnation, copied.incarnation + 1);
}

#[test]
fn nothing_is_written_over_and_the_command_says_how_much_was_copied() {
    let (server, _receiver) = lived();
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("copy");
    let path = to.to_str().unwrap();
    let (text, well) = server.command(&["backup", path]);
    assert!(well && text.contains("every record up to position"), "{text}");
    let (text, well) = server.command(&["backup", path]);
    assert!(!well && text.contains("is not empty: nothing is written over"), "{text}");
    // Nor by the way back.
    let (text, well) = server.command(&["restore", path]);
    assert!(!well && text.contains("is not empty: nothing is written over"), "{text}");
    // An empty folder will do.
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    restore(&to, &empty, None).unwrap();
    assert!(verify(&empty, &Options::default()).unwrap().is_healthy());
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()) {
        if entry.is_dir() {
            all.extend(files(&entry));
        } else {
            all.push(entry);
        }
    }
    all
}

#[test]
fn a_backup_with_any_file_damaged_or_missing_is_refused_by_name() {
    let (server, _receiver) = lived();
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("copy");
    backup(&server.data(), &to).unwrap();
    let back = folder.path().join("back");
    for file in files(&to) {
        let bytes = fs::read(&file).unwrap();
        let is_manifest = file.ends_with("manifest");
        for at in [0, bytes.len() / 2, bytes.len().saturating_sub(1)] {
            if at >= bytes.len() {
                continue;
            }
            let mut edited = bytes.clone();
            edited[at] ^= 1;
            fs::write(&file, edited).unwrap();
            match restore(&to, &back, None) {
                Err(BackupError::Differs(named)) => assert_eq!(named, file),
                Err(BackupError::Manifest(..)) => assert!(is_manifest, "{}", file.display()),
                other => panic!("{} byte {at}: {other:?}", file.display()),
            }
        }
        fs::remove_file(&file).unwrap();
        match restore(&to, &back, None) {
            Err(BackupError::Missing(named)) => assert_eq!(named, file),
            Err(BackupError::Manifest(_, ManifestFault::Missing)) => assert!(is_manifest),
            other => panic!("{} missing: {other:?}", file.display()),
        }
        fs::write(&file, bytes).unwrap();
        assert!(!back.exists() && !folder.path().join("back.restore.new").exists());
    }
    restore(&to, &back, None).unwrap();
}

#[test]
fn a_damaged_journal_is_not_copied_as_if_it_were_sound() {
    let (mut server, _receiver) = lived();
    server.stop();
    let file = crate::forge::logs(&server.data()).remove(0);
    let mut bytes = fs::read(&file).unwrap();
    bytes[200] ^= 1;
    fs::write(&file, bytes).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("copy");
    let refused = backup(&server.data(), &to);
    assert!(matches!(refused, Err(BackupError::Damaged(_))), "{refused:?}");
    assert!(!to.exists());
}

#[test]
fn a_backup_that_was_cut_off_has_no_name_and_is_not_put_back() {
    let (mut server, _receiver) = lived();
    server.stop();
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    backup(&server.data(), &whole).unwrap();
    let files = files_of(&whole, "");
    assert!(files.len() > 6, "{files:?}");
    // Given a copy that ended when so many files were there, the last of them in part,
    for there in 0..files.len() {
        let (to, beside) = (folder.path().join("copy"), folder.path().join("copy.backup.new"));
        for (number, name) in files[..=there].iter().enumerate() {
            let bytes = fs::read(whole.join(name)).unwrap();
            let part = if number == there { bytes.len() / 2 } else { bytes.len() };
            fs::create_dir_all(beside.join(name).parent().unwrap()).unwrap();
            fs::write(beside.join(name), &bytes[..part]).unwrap();
        }
        // then it is not put back,
        let back = folder.path().join(format!("back{there}"));
        assert!(restore(&beside, &back, None).is_err(), "{there} files");
        assert!(!back.exists());
        // and does not stand in the way of the next.
        backup(&server.data(), &to).unwrap();
        assert!(!beside.exists());
        fs::remove_dir_all(&to).unwrap();
    }
}

/// The files below a folder, in the order of their names.
fn files_of(folder: &Path, below: &str) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder.join(below)).unwrap().flatten().collect();
    names.sort_by_key(std::fs::DirEntry::file_name);
    let name = |entry: &fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        if below.is_empty() { name } else { format!("{below}/{name}") }
    };
    let found = names.iter().flat_map(|entry| {
        let name = name(entry);
        if entry.path().is_dir() { files_of(folder, &name) } else { vec![name] }
    });
    found.collect()
}

#[test]
fn who_was_erased_since_the_backup_is_in_the_log_of_what_is_put_back() {
    let (mut server, _receiver) = lived();
    server.stop();
    let folder = tempfile::tempdir().unwrap();
    let log = server.data().join("keys/erased.log");
    let entries =
        |leads: &[u64]| leads.iter().flat_map(|it| entry_of(LeadId(*it), Timestamp(*it))).collect();
    let entries: Vec<Vec<u8>> = vec![entries(&[1]), entries(&[1, 2, 3])];
    fs::write(&log, &entries[0]).unwrap();
    let to = folder.path().join("copy");
    backup(&server.data(), &to).unwrap();
    // Given two more who were erased in the folder that is given up, and half an entry.
    let old = folder.path().join("old");
    copy(&server.data(), &old);
    fs::write(old.join("keys/erased.log"), [&entries[1][..], &[7; 9]].concat()).unwrap();
    let back = folder.path().join("back");
    assert_eq!(restore(&to, &back, Some(&old)).unwrap().erasures, 2);
    assert_eq!(fs::read(back.join("keys/erased.log")).unwrap(), entries[1]);
}
