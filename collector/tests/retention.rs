//! What is too old goes from the journal, and nothing else goes with it: wherever a crash comes,
//! what is there is a base and a journal that goes on from it.
#![allow(clippy::unwrap_used)]

#[path = "retention/crashes.rs"]
mod crashes;
#[path = "sim/disk.rs"]
#[allow(dead_code, reason = "every test file is a crate of its own and uses another part")]
mod disk;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use collector::snapshots::file::UNFINISHED;
use collector::verify::{Options, verify};
use serde_json::{Value, json};

use support::at;
use support::browser::Browser;
use support::http::Client;
use support::receiver::Receiver;
use support::server::{RULES, SERVER_KEY, Server, Setup};
use support::story::{TANAKA, story_one};
use support::wait_for;

const OLD: &str = "old@other.example";

/// A server that keeps so many days, and tries twice to deliver.
fn keeping(days: u32) -> (Server, Receiver) {
    let receiver = Receiver::start();
    let mut setup =
        Setup::new(at("2026-12-01 08:00"), &[receiver.endpoint("sfa", "audience = [\"sales\"]\n")]);
    let limits = format!(
        "[webhooks]\nretry_schedule_ms = [0, 1000]\n[journal]\nkeep_days = {days}\n[limits]\n"
    );
    setup.mikomi = setup.mikomi.replacen("[limits]\n", &limits, 1);
    (Server::start(&setup.with_admin_url()), receiver)
}

/// Every start begins a segment.
fn restart(server: &mut Server) {
    server.kill();
    server.restart();
}

/// Two stories in December, and forty days later.
fn aged(days: u32) -> (Server, Receiver) {
    let (mut server, receiver) = keeping(days);
    story_one(&server);
    receiver.wait_about(TANAKA, 1);
    server.wait_delivered(1);
    let mut old = Browser::returning(&server, 5);
    old.page("/pricing/", "");
    old.identify(OLD, &json!({ "name": "鈴木 一" }));
    restart(&mut server);
    server.to("2027-01-15 09:00");
    server.settle(TANAKA);
    // That she cooled is told before anything else happens.
    receiver.wait_about(TANAKA, 2);
    server.wait_delivered(2);
    let mut again = Browser::returning(&server, 5);
    again.page("/case/line", "");
    again.identify(OLD, &json!({}));
    (server, receiver)
}

fn snapshot(server: &Server, number: u64) {
    Browser::returning(server, number).page("/column/dx", "");
    let before = server.figure("mikomi_snapshots_taken_total");
    server.post("/api/snapshot", &json!({}));
    wait_for("a snapshot", || {
        (server.figure("mikomi_snapshots_taken_total") > before).then_some(())
    });
}

/// Two snapshots cover everything: what is too old goes.
fn retire(server: &Server) -> u64 {
    let before = server.figure("mikomi_journal_first_position");
    snapshot(server, 20);
    snapshot(server, 21);
    wait_for("old segments to go", || {
        let first = server.figure("mikomi_journal_first_position");
        (first > before && server.figure("mikomi_journal_base_position") == first - 1)
            .then_some(first)
    })
}

/// Those that are finished.
fn files(folder: &Path, beginning: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let is_one = |file: &PathBuf| {
        let name = file.file_name().unwrap().to_str();
        name.is_some_and(|it| it.starts_with(beginning) && !it.ends_with(UNFINISHED))
    };
    let mut files: Vec<PathBuf> = files.filter(is_one).collect();
    files.sort();
    files
}

fn remove_all(files: Vec<PathBuf>) {
    assert!(!files.is_empty());
    for file in files {
        fs::remove_file(file).unwrap();
    }
}

fn hash(server: &Server) -> String {
    server.get("/api/state")["hash"].as_str().unwrap().to_owned()
}

fn refused(server: &Server, path: &str) -> Value {
    let answer = server.ask("GET", path, b"");
    assert_eq!((answer.status, &answer.json()["error"]), (410, &json!("not_kept")), "{path}");
    answer.json()["about"]["kept_from"].clone()
}

#[test]
fn scores_and_ledgers_stay_to_the_last_row_and_every_start_comes_to_the_same_state() {
    let (mut server, _receiver) = aged(30);
    let id = server.lead_id(TANAKA);
    // The 15th still is theirs: it was worked out from records that go.
    let shown = |server: &Server| {
        let asked = [
            format!("/api/leads/{id}"),
            format!("/api/leads/{id}/score"),
            format!("/api/leads/{id}/score?at=2027-01-15T08:59:59%2B09:00"),
            format!("/api/leads/{id}/why"),
        ];
        asked.map(|path| server.get(&path))
    };
    let before = shown(&server);
    let first = retire(&server);
    assert!(first > 10, "{first}");
    assert_eq!(shown(&server), before);
    let (journal, snapshots) = (server.data().join("journal"), server.data().join("snapshots"));
    assert_eq!(files(&journal, "segment-0000000000000001"), [""; 0].map(PathBuf::from));
    assert_eq!(files(&snapshots, "base-").len(), 1);
    let live = hash(&server);
    restart(&mut server);
    assert_eq!(hash(&server), live);
    assert_eq!(shown(&server), before);
    // The base and what came after it say the same without any snapshot.
    server.stop();
    let report = verify(&server.data(), &Options::default()).unwrap();
    assert!(report.is_healthy(), "{}", report.text());
    assert_eq!(report.base.map(|base| base.0), Some(first - 1));
    remove_all(files(&snapshots, "snapshot-"));
    server.restart();
    assert_eq!(hash(&server), live);
    assert_eq!(shown(&server), before);
    let now = server.now().to_string();
    server.stop();
    let (said, fine) = server.command(&["replay", "--now", &now]);
    assert!(fine && said.contains(&live), "{said}");
    let (said, fine) = server.command(&["replay", "--until", &first.to_string()]);
    assert!(fine, "{said}");
    let (said, fine) = server.command(&["replay", "--until", "3"]);
    assert!(!fine && said.contains("older than what is kept"), "{said}");
    let (said, fine) = server.command(&["replay", "--until", "2026-12-05T00:00:00+09:00"]);
    assert!(!fine && said.contains("older than what is kept"), "{said}");
}

#[test]
fn a_base_goes_on_from_the_one_before_and_takes_its_place() {
    let (mut server, _receiver) = aged(30);
    let first = retire(&server);
    let snapshots = server.data().join("snapshots");
    let before = files(&snapshots, "base-");
    restart(&mut server);
    server.to("2027-03-01 09:00");
    server.settle(TANAKA);
    Browser::returning(&server, 5).page("/pricing/", "");
    let id = server.lead_id(TANAKA);
    let yesterday = format!("/api/leads/{id}/score?at=2027-02-28T09:00:00%2B09:00");
    let known = server.get(&yesterday);
    let second = retire(&server);
    assert!(second > first, "{second}");
    assert_eq!(server.get(&yesterday), known);
    let after = files(&snapshots, "base-");
    assert!(after.len() == 1 && after != before, "{after:?}");
    let live = hash(&server);
    server.stop();
    let report = verify(&server.data(), &Options::default()).unwrap();
    assert!(report.is_healthy(), "{}", report.text());
    remove_all(files(&snapshots, "snapshot-"));
    server.restart();
    assert_eq!(hash(&server), live);
    assert_eq!(server.get(&yesterday), known);
    assert_eq!(server.lead_by(OLD)["name"], "鈴木 一", "who said so in December");
}

#[test]
fn what_is_older_than_what_is_kept_is_refused_by_name_and_says_where_it_begins() {
    let (server, receiver) = aged(30);
    let id = server.lead_id(TANAKA);
    let alert = receiver.all_about(TANAKA)[0].json()["data"]["alert_id"].clone();
    let alert = alert.as_str().unwrap();
    let feed = server.get("/api/alerts?limit=1");
    assert_eq!(
        (&feed["alerts"][0]["data"]["alert_id"], &feed["kept_from"]),
        (&json!(alert), &Value::Null)
    );
    let mut once = Browser::new(&server, 9);
    once.page("/column/dx", "");
    // A step that goes, and one that stays.
    let withdrawn = server.step("/api/withdraw", json!({ "lead": server.lead_id(OLD) }));
    let mut server = server;
    restart(&mut server);
    server.to("2027-03-01 09:00");
    server.settle(TANAKA);
    let late = server.step("/api/withdraw", json!({ "lead": id }));
    server.step("/api/undo", json!({ "position": late["position"] }));
    let first = retire(&server);
    let kept_from = server.get("/api/state")["kept_from"].clone();
    assert_eq!(kept_from["position"], first);
    let timeline = server.get(&format!("/api/leads/{id}/timeline"));
    assert_eq!(timeline["kept_from"], kept_from);
    let events = timeline["events"].as_array().unwrap();
    assert!(events.iter().all(|event| event["position"].as_u64() >= Some(first)), "{timeline}");
    let at = refused(&server, &format!("/api/leads/{id}/score?at=2026-12-05T09:00:00%2B09:00"));
    assert_eq!(at["position"], first, "{at}");
    assert_eq!(refused(&server, &format!("/api/alerts/{alert}/explain")), kept_from);
    let cursor = feed["after"].as_str().unwrap();
    assert_eq!(refused(&server, &format!("/api/alerts?after={cursor}")), kept_from);
    assert_eq!(server.get("/api/alerts")["kept_from"], kept_from);
    let export = server.get(&format!("/api/export/{id}"));
    assert_eq!((&export["complete"], &export["kept_from"]), (&json!(false), &kept_from));
    assert!(!export["ledger"].as_array().unwrap().is_empty(), "{export}");
    assert!(server.hits().iter().all(|hit| hit["position"].as_u64() >= Some(first)));
    let wish = json!({ "actor": "a", "reason": "b", "position": withdrawn["position"] });
    let undone = server.post("/api/undo", &wish);
    assert_eq!((undone.status, &undone.json()["error"]), (410, &json!("not_kept")));
    // Sales may still answer: whom it was about is known.
    let answer =
        json!({ "id": "sfa-1", "alert_id": alert, "kind": "accepted", "by": "s@v.example" });
    let bearer = format!("Bearer {SERVER_KEY}");
    let headers = [("authorization", bearer.as_str())];
    let mut client = Client::new(server.collector());
    let heard =
        client.send("POST", "/s/feedback", &headers, answer.to_string().as_bytes()).unwrap();
    assert_eq!(heard.status, 200, "{}", heard.text());
    assert_eq!(server.lead_by(TANAKA)["stage"]["id"], "accepted");
    // A browser whose first hit is gone is admitted without it.
    let missing = server.figure("mikomi_first_hits_missing_total");
    once.page("/case/line", "");
    assert_eq!(server.figure("mikomi_first_hits_missing_total"), missing + 1);
}

#[test]
fn the_past_matched_anew_by_the_same_rules_changes_no_score() {
    let (server, _receiver) = aged(30);
    retire(&server);
    for number in [1, 5, 20] {
        Browser::returning(&server, number).page("/pricing/", "");
    }
    let scores = [TANAKA, OLD].map(|email| server.exact(email));
    assert!(scores.iter().all(|score| score.as_f64().unwrap() > 0.0), "{scores:?}");
    let tried = server.ask("POST", "/api/rules/what-if?days=400", RULES.as_bytes());
    assert_eq!(
        (tried.status, &tried.json()["scores_changed"]),
        (200, &json!(0)),
        "{}",
        tried.text()
    );
    server.step("/api/rules/rescore", json!({ "days": 400 }));
    assert_eq!([TANAKA, OLD].map(|email| server.exact(email)), scores);
}

#[test]
fn a_message_that_was_given_up_is_sent_again_long_after_its_records_are_gone() {
    let (mut server, receiver) = keeping(30);
    let repaired = Arc::new(AtomicBool::new(false));
    let (works, last) = (Arc::clone(&repaired), Arc::new(Mutex::new(Vec::new())));
    let seen = Arc::clone(&last);
    receiver.answer_with(move |received| {
        *seen.lock().unwrap() = received.body.clone();
        if works.load(Ordering::SeqCst) { 200 } else { 503 }
    });
    story_one(&server);
    receiver.wait_about(TANAKA, 1);
    let body = last.lock().unwrap().clone();
    // The second attempt is the last, a second after the first has ended.
    wait_for("a dead letter", || {
        server.pass_ms(1_000);
        (server.figure("mikomi_deliveries_dead") > 0).then_some(())
    });
    restart(&mut server);
    server.to("2027-03-01 09:00");
    server.settle(TANAKA);
    retire(&server);
    server.stop();
    remove_all(files(&server.data().join("snapshots"), "snapshot-"));
    // Others are told too by now: the journal alone could no longer say what she was.
    let path = server.config().join("endpoints.toml");
    let more = receiver.endpoint("another", "audience = [\"hr\"]\n");
    fs::write(&path, fs::read_to_string(&path).unwrap() + &more).unwrap();
    server.restart();
    assert!(server.figure("mikomi_deliveries_dead") > 0);
    repaired.store(true, Ordering::SeqCst);
    let dead = server.get("/api/dead");
    let id = serde_json::from_slice::<Value>(&body).unwrap()["data"]["alert_id"].clone();
    assert!(dead.to_string().contains(id.as_str().unwrap()), "{dead}");
    last.lock().unwrap().clear();
    server.post("/api/deliveries/resend", &json!({ "endpoint": "sfa", "alert": id }));
    // What was told later waits for its own second attempt, and goes first.
    wait_for("the message", || {
        server.pass_ms(1_000);
        (*last.lock().unwrap() == body).then_some(())
    });
    server.wait_delivered(1);
}

#[test]
fn who_is_erased_after_their_records_are_gone_stays_so_also_from_the_base() {
    let (mut server, _receiver) = aged(30);
    retire(&server);
    let id = server.lead_id(OLD);
    server.step("/api/erase", json!({ "lead": id }));
    let gone = |server: &Server| {
        let answer = server.ask("GET", &format!("/api/leads/{id}"), b"");
        assert_eq!((answer.status, &answer.json()["error"]), (410, &json!("erased")));
    };
    gone(&server);
    let live = hash(&server);
    server.stop();
    let report = verify(&server.data(), &Options::default()).unwrap();
    assert!(report.is_healthy(), "{}", report.text());
    let snapshots = server.data().join("snapshots");
    remove_all(files(&snapshots, "snapshot-"));
    let base = fs::read(files(&snapshots, "base-").remove(0)).unwrap();
    assert!(!base.windows(OLD.len()).any(|part| part == OLD.as_bytes()), "in clear");
    server.restart();
    gone(&server);
    assert_eq!(hash(&server), live);
}

#[test]
fn a_backup_of_a_journal_that_begins_later_is_whole_and_comes_back() {
    let (mut server, _receiver) = aged(30);
    retire(&server);
    let live = hash(&server);
    let (copy, back) =
        (server.config().with_file_name("copy"), server.config().with_file_name("back"));
    let (said, fine) = server.command(&["backup", copy.to_str().unwrap()]);
    assert!(fine, "{said}");
    assert_eq!(files(&copy.join("snapshots"), "base-").len(), 1);
    // One whose base is damaged is none: what that stands for is nowhere else.
    let base = files(&server.data().join("snapshots"), "base-").remove(0);
    let sound = fs::read(&base).unwrap();
    let mut damaged = sound.clone();
    damaged[64 + 32 + 100] ^= 1;
    fs::write(&base, damaged).unwrap();
    let other = copy.with_file_name("other");
    let (said, fine) = server.command(&["backup", other.to_str().unwrap()]);
    assert!(!fine && said.contains("its base cannot be used") && !other.exists(), "{said}");
    fs::write(&base, sound).unwrap();
    server.stop();
    collector::backup::restore(&copy, &back, None).unwrap();
    let report = verify(&back, &Options::default()).unwrap();
    assert!(report.is_healthy(), "{}", report.text());
    fs::remove_dir_all(server.data()).unwrap();
    fs::rename(&back, server.data()).unwrap();
    server.restart();
    assert_eq!(hash(&server), live);
}

#[test]
fn without_its_base_a_journal_that_begins_later_is_refused_by_name() {
    let (mut server, _receiver) = aged(30);
    retire(&server);
    let live = hash(&server);
    server.stop();
    let snapshots = server.data().join("snapshots");
    let base = files(&snapshots, "base-").remove(0);
    let bytes = fs::read(&base).unwrap();
    // The snapshots that are kept cover it: one of them takes its place.
    fs::remove_file(&base).unwrap();
    let report = verify(&server.data(), &Options::default()).unwrap();
    assert!(report.problems.iter().any(|it| it.name == "base_missing"), "{}", report.text());
    let (said, fine) = server.command(&["replay"]);
    assert!(!fine && said.contains("no base stands for it"), "{said}");
    server.restart();
    assert_eq!(hash(&server), live);
    wait_for("another base", || (files(&snapshots, "base-").len() == 1).then_some(()));
    server.stop();
    let report = verify(&server.data(), &Options::default()).unwrap();
    assert!(report.is_healthy(), "{}", report.text());
    // Without these nothing does.
    let kept = files(&snapshots, "snapshot-");
    remove_all(kept);
    let other = files(&snapshots, "base-").remove(0);
    let mut damaged = fs::read(&other).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&other, &damaged).unwrap();
    let (said, fine) = server.command(&["serve", "--any-port"]);
    assert!(!fine && said.contains("its base cannot be used"), "{said}");
    assert!(other.exists(), "it is not put away");
    fs::remove_file(&other).unwrap();
    let (said, fine) = server.command(&["serve", "--any-port"]);
    assert!(!fine && said.contains("the journal's beginning and every snapshot"), "{said}");
    fs::write(&base, bytes).unwrap();
    server.restart();
    assert_eq!(hash(&server), live);
}

#[test]
fn nothing_goes_while_a_snapshot_that_is_kept_is_damaged() {
    let (server, _receiver) = aged(30);
    snapshot(&server, 20);
    let kept = files(&server.data().join("snapshots"), "snapshot-").pop().unwrap();
    let mut bytes = fs::read(&kept).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&kept, bytes).unwrap();
    snapshot(&server, 21);
    wait_for("the look", || (server.figure("mikomi_retention_failed_total") > 0).then_some(()));
    assert_eq!(server.figure("mikomi_journal_first_position"), 1);
    assert_eq!(files(&server.data().join("snapshots"), "base-").len(), 0);
    // Two sound ones do.
    retire(&server);
}

#[test]
fn whoever_does_not_say_how_long_keeps_everything() {
    let (server, _receiver) = aged(0);
    snapshot(&server, 20);
    snapshot(&server, 21);
    snapshot(&server, 22);
    assert_eq!(server.figure("mikomi_journal_first_position"), 1);
    assert_eq!(server.figure("mikomi_journal_segments_removed_total"), 0);
}
