//! The shadow audit of a server that runs: nothing differs, whatever happens, and what is changed
//! behind the journal's back is an alarm.

use std::sync::Arc;

use collector::journal::disk::{Disk, RealDisk};
use collector::journal::scan::Seen;
use collector::past::Past;
use collector::snapshots::Store;
use collector::snapshots::file::{Kind, Writing};
use collector::timeline::unseal_with;
use engine::engine::Engine;
use engine::id::{LeadId, Position};
use engine::record::{Body, Record};
use serde_json::{Value, json};

use crate::OTHER;
use crate::snapshots::snapshot;
use crate::support::browser::Browser;
use crate::support::http::Client;
use crate::support::receiver::Receiver;
use crate::support::server::{Server, Setup};
use crate::support::story::{TANAKA, story_one};
use crate::support::{at, wait_for};

/// A server that audits without pause.
fn audited() -> (Server, Receiver) {
    let receiver = Receiver::start();
    let endpoint = receiver.endpoint("sfa", "audience = [\"sales\"]\n");
    let mut setup = Setup::new(at("2026-12-01 08:00"), &[endpoint]);
    setup.mikomi.push_str("[audit]\ncore_percent_max = 50\nround_ms = 100\n");
    (Server::start(&setup.with_admin_url()), receiver)
}

/// Waits until so many rounds that begin from now on are over, while somebody goes on clicking.
fn rounds(server: &Server, more: u64) {
    let mut somebody = Browser::returning(server, 777);
    // The one under way may have passed already what has just happened.
    let last = server.figure("mikomi_audit_rounds_total") + more + 1;
    wait_for("rounds of the audit", || {
        for path in ["/pricing/", "/case/line", "/product/a"] {
            somebody.page(path, "");
        }
        (server.figure("mikomi_audit_rounds_total") >= last).then_some(())
    });
}

fn nothing_differs(server: &Server) {
    rounds(server, 2);
    let problems = server.get("/api/problems")["problems"].clone();
    assert_eq!(server.figure("mikomi_audit_mismatches_total"), 0, "{problems}");
    assert_eq!(problems, json!([]));
    let figures = server.ask("GET", "/metrics", b"").text();
    for reason in ["journal_begins_later", "journal_unreadable", "snapshots_unreadable"] {
        let line = format!("mikomi_audit_skipped_total{{reason=\"{reason}\"}} 0\n");
        assert!(figures.contains(&line), "{reason}");
    }
}

/// Two people who are joined, parted, given and taken browsers, and one who is forgotten.
fn steps(server: &Server) {
    let id = |email: &str| server.lead_by(email)["id"].clone();
    let mut other = Browser::returning(server, 8);
    other.page("/pricing/", "");
    other.identify(OTHER, &json!({ "name": "鈴木 一" }));
    let (tanaka, suzuki) = (id(TANAKA), id(OTHER));
    let visitor = server.lead_by(OTHER)["links"][0]["visitor"].clone();
    server.step("/api/unlink", json!({ "visitor": visitor, "lead": suzuki }));
    let tied = server.step("/api/link", json!({ "visitor": visitor, "lead": tanaka }));
    rounds(server, 1);
    server.step("/api/undo", json!({ "position": tied["position"] }));
    server.step("/api/merge", json!({ "one": tanaka, "other": suzuki }));
    rounds(server, 1);
    server.step("/api/unmerge", json!({ "name": suzuki }));
    server.step("/api/withdraw", json!({ "lead": suzuki }));
    let mut gone = Browser::returning(server, 9);
    gone.form("gone@other.example", &json!({ "name": "誰か" }), "/thanks/contact/ok", "");
    let lead = id("gone@other.example");
    server.step("/api/erase", json!({ "lead": lead }));
}

#[test]
fn an_audit_of_all_slots_finds_nothing_after_a_rich_life_that_goes_on() {
    let (mut server, receiver) = audited();
    story_one(&server);
    receiver.wait_about(TANAKA, 1);
    // By the journal alone, then from a snapshot, and from the older one of two.
    nothing_differs(&server);
    snapshot(&server);
    steps(&server);
    nothing_differs(&server);
    snapshot(&server);
    // Time alone does something too.
    server.to("2026-12-24 06:00");
    server.settle(TANAKA);
    nothing_differs(&server);
    assert!(server.figure("mikomi_audit_entries_total") > 20);
    assert!(server.figure("mikomi_audit_slots_total") >= 6 * 1_024);
    // What a start makes of it, and a stop in the middle.
    server.kill();
    server.restart();
    nothing_differs(&server);
    assert!(server.stop().success());
}

/// The state of a journal in which somebody's last points were one more than they were.
fn one_point_more(past: &Past, lead: LeadId, until: Position) -> Engine {
    let mut records: Vec<(Position, Record)> = Vec::new();
    past.scan(&mut |seen| {
        if let Seen::Record(entry, _) = seen {
            let mut record = Record::decode(entry.bytes).unwrap();
            unseal_with(&mut record, |lead, sealed| past.keys.unseal(lead, sealed));
            records.push((entry.position, record));
        }
    })
    .unwrap();
    records.retain(|(position, _)| *position <= until);
    let rows = |record: &mut Record| match &mut record.body {
        Body::Hit(hit) => {
            let part = hit.lead.as_mut().filter(|part| part.lead == lead)?;
            part.rows.first_mut().map(|row| row.granted.0 += 1_000)
        }
        _ => None,
    };
    records.iter_mut().rev().find_map(|(_, record)| rows(record)).unwrap();
    let engine = Engine::new(2);
    for (position, record) in &records {
        engine.evolve(record, *position);
    }
    engine
}

/// Writes a snapshot anew with one lead changed: every checksum and hash of it is right.
fn plant(server: &Server, lead: LeadId) {
    let past = Past::open(&server.data()).unwrap();
    let disk = RealDisk::open(server.data().join("snapshots")).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let store = Store::new(Arc::clone(&disk), past.install.id.0);
    let name = store.names().unwrap().remove(0);
    let sound = store.open(&name).unwrap();
    let engine = one_point_more(&past, lead, sound.head.from);
    let mut writing = Writing::begin(disk.as_ref(), sound.head).unwrap();
    for part in sound.parts() {
        let mut payload = sound.read(part).unwrap();
        if part.kind == Kind::Slot && part.number == u64::from(lead.slot().0) {
            let saved =
                engine.save_slot(lead.slot(), &engine.ids(|| {}), sound.head.created).unwrap();
            assert!(saved.latest <= sound.head.from);
            payload = saved.bytes;
        }
        writing.part(part.kind, part.number, &payload).unwrap();
    }
    writing.finish(sound.end, None).unwrap();
}

#[test]
fn a_lead_who_is_not_what_the_journal_makes_of_her_is_found_counted_and_named() {
    let (server, receiver) = audited();
    story_one(&server);
    receiver.wait_about(TANAKA, 1);
    snapshot(&server);
    nothing_differs(&server);
    let id = server.lead_by(TANAKA)["id"].as_str().unwrap().to_owned();
    let lead = LeadId::parse(&id).unwrap();
    plant(&server, lead);
    let problems = wait_for("the alarm", || {
        let problems = server.get("/api/problems")["problems"].clone();
        (problems != json!([])).then_some(problems)
    });
    let said = format!("the audit: slot {}, {id}, record ", lead.slot().0);
    let [only] = problems.as_array().unwrap().as_slice() else {
        panic!("{problems}");
    };
    assert!(only.as_str().unwrap().starts_with(&said), "{only}");
    assert!(only.as_str().unwrap().ends_with("it holds something else"), "{only}");
    assert!(server.figure("mikomi_audit_mismatches_total") > 0);
    assert_eq!(server.figure("mikomi_audit_differing"), 1);
    let log = server.log();
    let alarm = log.lines().find(|line| line.contains("is not what the journal makes of it"));
    let alarm: Value = serde_json::from_str(alarm.unwrap()).unwrap();
    assert_eq!((&alarm["level"], &alarm["fields"]["key"]), (&json!("ERROR"), &json!(id)));
    assert!(!log.contains(TANAKA) && !log.contains("田中"), "ids only");
    // Hits are taken as before: the journal has them, and is what counts.
    let ready = Client::new(server.collector()).send("GET", "/readyz", &[], b"").unwrap();
    assert_eq!(ready.status, 200, "{}", ready.text());
    // With the snapshot that was wrong the alarm ends.
    let mut somebody = Browser::returning(&server, 12);
    for path in ["/pricing/", "/case/line"] {
        somebody.page(path, "");
        snapshot(&server);
    }
    rounds(&server, 1);
    assert_eq!(server.get("/api/problems")["problems"], json!([]));
    assert_eq!(server.figure("mikomi_audit_differing"), 0);
}
