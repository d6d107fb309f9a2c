//! What is in memory, kept beside the journal: a start reads it and replays what came after, and
//! whatever is wrong with it costs time only.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::browser::{Browser, server_call};
use crate::support::receiver::Receiver;
use crate::support::server::Server;
use crate::support::story::{TANAKA, story_one};
use crate::support::wait_for;
use crate::{OTHER, kinds, told};

pub fn snapshot(server: &Server) {
    let before = server.figure("mikomi_snapshots_taken_total");
    server.post("/api/snapshot", &json!({}));
    wait_for("a snapshot", || {
        (server.figure("mikomi_snapshots_taken_total") > before).then_some(())
    });
}

fn files(server: &Server) -> Vec<PathBuf> {
    let files = fs::read_dir(server.data().join("snapshots")).unwrap();
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

/// How many records each start replayed.
fn records_replayed(server: &Server) -> Vec<u64> {
    let log = server.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let starts = lines.filter(|line| line["fields"]["message"] == "replayed");
    starts.filter_map(|line| line["fields"]["records"].as_u64()).collect()
}

fn hash(server: &Server) -> Value {
    server.get("/api/state")["hash"].clone()
}

/// Somebody is hot, and a visitor whom nobody knows is there.
fn lived() -> (Server, Receiver) {
    let (server, receiver) = told("2026-12-01 08:00");
    story_one(&server);
    receiver.wait_about(TANAKA, 1);
    Browser::returning(&server, 7).page("/case/line", "");
    (server, receiver)
}

fn goes_on(server: &Server, number: u64, email: &str) {
    let mut browser = Browser::returning(server, number);
    browser.page("/pricing/", "");
    browser.identify(email, &json!({ "name": "鈴木 一" }));
    server.settle(email);
}

#[test]
fn a_start_restores_the_snapshot_and_replays_what_came_after() {
    let (mut server, receiver) = lived();
    receiver.wait_about(TANAKA, 1);
    wait_for("the delivery", || (server.figure("mikomi_deliveries_pending") == 0).then_some(()));
    snapshot(&server);
    goes_on(&server, 8, OTHER);
    // What its followers know: who is found, what was told, counted and delivered.
    let shown = |server: &Server| {
        let paths = ["/api/leads?q=tanaka", "/api/figures", "/api/deliveries", "/api/alerts"];
        paths.map(|path| server.get(path))
    };
    let (before, was) = (hash(&server), shown(&server));
    server.kill();
    server.restart();
    assert_eq!(hash(&server), before);
    assert!(server.log().contains("a snapshot is read"), "{}", server.log());
    assert_eq!(shown(&server), was);
    assert_eq!(server.lead_by(OTHER)["name"], "鈴木 一");
    let replayed = records_replayed(&server);
    assert!(replayed.len() == 2 && (1..10).contains(&replayed[1]), "{replayed:?}");
    // It goes on, too: nobody is told twice, and what is new is told.
    server.to("2026-12-24 06:00");
    receiver.wait_about(TANAKA, 2);
    assert_eq!(kinds(&receiver.about(TANAKA)), ["lead.hot", "lead.cooled"]);
    let now = server.now();
    let live = hash(&server);
    server.stop();
    let (said, fine) = server.command(&["replay", "--now", &now.to_string()]);
    assert!(fine && said.contains(live.as_str().unwrap()), "the journal alone: {said}");
}

#[test]
fn a_start_that_had_much_to_replay_writes_a_snapshot_before_anybody_is_let_in() {
    let (mut server, _receiver) = lived();
    let long = "x".repeat(500);
    let properties: BTreeMap<String, &str> =
        (0..32).map(|number| (format!("p{number}"), long.as_str())).collect();
    let hit = json!({ "s": "www", "e": "seen", "d": "device", "p": properties });
    for _ in 0..4 {
        assert_eq!(server_call(&server, &json!(vec![&hit; 25])).status, 204);
    }
    assert_eq!(server.figure("mikomi_snapshots_taken_total"), 0);
    server.kill();
    // A megabyte; there are one and a half.
    let settings = server.config().join("mikomi.toml");
    let text = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, format!("{text}\n[snapshots]\nevery_bytes = 1048576\n")).unwrap();
    server.restart();
    assert_eq!(server.figure("mikomi_snapshots_taken_total"), 1);
    let (live, shown) = (hash(&server), server.get("/api/figures"));
    // Whoever is killed again before another one could be taken has nothing to replay twice.
    server.kill();
    server.restart();
    assert_eq!((hash(&server), server.get("/api/figures")), (live, shown));
    let replayed = records_replayed(&server);
    assert!(replayed[1] > 100 && replayed[2] < 20, "{replayed:?}");
    assert_eq!(server.figure("mikomi_snapshots_taken_total"), 0);
}

#[test]
fn a_damaged_snapshot_costs_time_only() {
    let (mut server, _receiver) = lived();
    snapshot(&server);
    goes_on(&server, 8, OTHER);
    snapshot(&server);
    goes_on(&server, 9, "third@other.example");
    let before = hash(&server);
    let both = files(&server);
    assert_eq!(both.len(), 2);
    server.kill();
    for damaged in both.iter().rev() {
        let mut bytes = fs::read(damaged).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        fs::write(damaged, bytes).unwrap();
        server.restart();
        assert_eq!(hash(&server), before);
        let log = server.log();
        assert!(log.contains("a snapshot cannot be used"), "{log}");
        server.kill();
    }
    // The next ones take their place.
    server.restart();
    for (number, email) in [(10, "fourth@other.example"), (11, "fifth@other.example")] {
        goes_on(&server, number, email);
        snapshot(&server);
    }
    let kept = files(&server);
    assert!(kept.len() == 2 && kept.iter().all(|file| !both.contains(file)), "{kept:?}");
}

#[test]
fn a_snapshot_that_knows_more_than_the_journal_is_not_used() {
    let (mut server, _receiver) = lived();
    let before = hash(&server);
    server.kill();
    let kept = server.data().parent().unwrap().join("older");
    copy(&server.data().join("journal"), &kept);
    server.restart();
    goes_on(&server, 8, OTHER);
    snapshot(&server);
    server.kill();
    fs::remove_dir_all(server.data().join("journal")).unwrap();
    fs::rename(&kept, server.data().join("journal")).unwrap();
    server.restart();
    assert_eq!(hash(&server), before);
    assert!(server.log().contains("records that the journal has not"), "{}", server.log());
    // Nor later, when the journal has as many records, and others.
    for number in 20..30 {
        goes_on(&server, number, &format!("p{number}@other.example"));
    }
    let before = hash(&server);
    server.kill();
    server.restart();
    assert_eq!(hash(&server), before);
    snapshot(&server);
    server.kill();
    server.restart();
    assert_eq!(hash(&server), before);
    assert_eq!(server.get("/api/leads?q=suzuki")["leads"], json!([]), "nobody of the other past");
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}
