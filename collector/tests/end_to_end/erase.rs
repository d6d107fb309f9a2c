//! Who asks to be forgotten is forgotten: nothing of them can be read in the data folder any more,
//! nobody is told anything else, nothing from before brings them back, and neither does an older
//! copy of the data.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use collector::ids::Ids;
use collector::install::Install;
use collector::journal::committer::Now;
use collector::journal::disk::RealDisk;
use collector::journal::{Hooks, Journal, Options};
use collector::outbox::entry::{Entry, from_base64};
use collector::seal::Sealer;
use collector::timeline::unseal_with;
use engine::id::LeadId;
use engine::record::{Body, Record};
use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::http::Client;
use crate::support::receiver::{Received, Receiver};
use crate::support::server::{SERVER_KEY, Server, Setup};
use crate::support::{at, iso, wait_for};

/// What must be nowhere: in her address, and in everything that anybody says of her.
const CANARY: &str = "kanariaxq";
const HER: &str = "kanariaxq@sample.example";

/// Two receivers, one of which fails for ever, and a chat.
fn started(clock: &str) -> (Server, Receiver, Receiver) {
    let (good, bad) = (Receiver::start(), Receiver::start());
    bad.answer_with(|_| 500);
    let endpoints = [good.endpoint("sfa", ""), bad.endpoint("broken", "audience = [\"sales\"]")];
    let mut setup = Setup::new(at(clock), &endpoints);
    setup.mikomi.push_str("[webhooks]\nretry_schedule_ms = [0, 10]\n");
    (Server::start(&setup.with_admin_url()), good, bad)
}

/// Everything by which something of her comes in: a form, the API, answers of sales, steps.
fn lives(server: &Server, good: &Receiver) -> (Browser, String) {
    let mut her = Browser::returning(server, 1);
    her.page("/pricing/", "料金プラン");
    let form = json!({ "name": CANARY, "company": format!("{CANARY} Inc."), "title": "部長" });
    her.form(HER, &form, "/thanks/contact/ok", "お問い合わせ");
    let card = json!({
        "site": "www", "email": HER, "attributes": { "phone": CANARY, "note": CANARY },
    });
    assert_eq!(server.post("/api/attributes", &card).json()["kept"], 1);
    let alert = good.wait_about(HER, 1)[0].json()["data"]["alert_id"].clone();
    wait_for("a dead letter", || {
        server.pass_ms(60_000);
        let dead = server.get("/api/dead")["outstanding"].as_array().cloned();
        dead.unwrap_or_default().iter().any(|it| it["died"] != Value::Null).then_some(())
    });
    let answer = json!({
        "id": "1", "alert_id": alert, "kind": "rejected", "by": CANARY,
        "at": iso(server.now()), "reason": format!("{CANARY} is a student"),
    });
    let bearer = format!("Bearer {SERVER_KEY}");
    let headers = [("authorization", bearer.as_str())];
    let mut client = Client::new(server.collector());
    let sent = client.send("POST", "/s/feedback", &headers, answer.to_string().as_bytes());
    assert_eq!(sent.unwrap().status, 200);
    let lead = server.lead_by(HER)["id"].as_str().unwrap().to_owned();
    let said = |mut wish: Value| {
        wish["reason"] = json!(format!("{CANARY} called"));
        wish["actor"] = json!(CANARY);
        wish
    };
    let withdraw = || server.step("/api/withdraw", said(json!({ "lead": lead })));
    let taken = withdraw();
    server.step("/api/undo", said(json!({ "position": taken["position"] })));
    withdraw();
    let browser = server.lead_by(HER)["links"][0]["visitor"].clone();
    let wish = json!({ "visitor": browser, "lead": lead });
    let taken = server.step("/api/unlink", said(wish));
    server.step("/api/undo", said(json!({ "position": taken["position"] })));
    server.pass_ms(1_000);
    (her, lead)
}

/// Waits until nothing is on its way, the failing endpoint's messages being dead.
fn settle(server: &Server, good: &Receiver, number: u64) {
    let email = format!("marker@drain{number}.example");
    let mut somebody = Browser::returning(server, 900_000 + number);
    somebody.form(&email, &json!({}), "/thanks/contact/ok", "");
    good.wait_about(&email, 1);
    wait_for("everything is delivered, or given up", || {
        server.pass_ms(60_000);
        (server.figure("mikomi_deliveries_pending") == 0).then_some(())
    });
}

/// All bytes of a folder.
fn bytes_of(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(bytes_of(&path));
        } else {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found
}

fn holds(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|part| part == word)
}

/// The files of a folder that hold the canary, plain or in base 64.
fn found_in(folder: &Path) -> Vec<PathBuf> {
    let shifted = (0..3).map(|shift| {
        let text = STANDARD.encode(format!("{}{CANARY}", "_".repeat(shift)));
        // The digits at either end depend on what stands beside it.
        text[[0, 2, 3][shift]..text.len() - 4].to_owned()
    });
    let words: Vec<String> = shifted.chain([CANARY.to_owned()]).collect();
    let files = bytes_of(folder).into_iter();
    let hits = files.filter(|(_, bytes)| words.iter().any(|word| holds(bytes, word.as_bytes())));
    hits.map(|(path, _)| path).collect()
}

/// What can be read of a data folder with all the keys that are there, as one text.
fn readable(data: &Path) -> String {
    let copy = tempfile::tempdir().unwrap();
    copy_folder(data, copy.path());
    let install = Install::open(copy.path(), &Ids::default()).unwrap();
    let sealer = Sealer::open(copy.path()).unwrap();
    let disk = RealDisk::open(copy.path().join("journal")).unwrap();
    let hooks = Hooks {
        now: Box::new(|| Now { wall_ms: 0, boot_ms: 0 }),
        poisoned: Box::new(|why| panic!("{why:?}")),
    };
    let mut text = String::new();
    let options = Options::new(install.id.0);
    let (journal, _) = Journal::open(Arc::new(disk), &options, hooks, |entry| {
        let mut record = Record::decode(entry.bytes).unwrap();
        unseal_with(&mut record, |lead, sealed| sealer.unseal(lead, sealed));
        writeln!(text, "{record:?}").unwrap();
        if let Body::Outbox(bytes) = &record.body {
            text.push_str(&opened(&sealer, bytes));
        }
    })
    .unwrap();
    let _ = journal.stop();
    text
}

fn opened(sealer: &Sealer, bytes: &[u8]) -> String {
    let open = |lead: Option<LeadId>, sealed: Option<Vec<u8>>| {
        let plain = lead.zip(sealed).and_then(|(lead, sealed)| sealer.unseal(lead, &sealed));
        plain.map(|plain| String::from_utf8_lossy(&plain).into_owned()).unwrap_or_default()
    };
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    match Entry::decode(bytes).unwrap() {
        Entry::Queued(queued) => {
            text += &open(queued.lead_id(), queued.sealed_whole());
            for frozen in &queued.bodies {
                text += &open(queued.lead_id(), queued.sealed_bytes(frozen));
                text += &open(queued.lead_id(), from_base64(&frozen.line));
            }
        }
        Entry::Digest(digest) => {
            for item in &digest.items {
                text += &open(LeadId::parse(&item.lead), from_base64(&item.line));
            }
        }
        Entry::Attempt(attempt) => {
            assert_eq!(attempt.answer, "", "no receiver's answer stands there in clear");
        }
        Entry::Disabled { .. } => {}
    }
    text
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

fn erased(good: &Receiver, lead: &str) -> Vec<Received> {
    let all = good.all().into_iter();
    all.filter(|it| it.kind() == "lead.erased" && it.json()["data"]["lead"]["id"] == lead).collect()
}

#[test]
fn nothing_of_who_is_erased_can_be_read_in_the_data_folder_any_more() {
    let (mut server, good, bad) = started("2026-12-07 09:00");
    let (_, lead) = lives(&server, &good);
    assert!(readable(&server.data()).contains(CANARY), "there is something to forget");
    let done = server.step("/api/erase", json!({ "lead": lead, "reason": "she asked" }));
    assert_eq!((&done["lead"], &done["already"]), (&json!(lead), &json!(false)));
    assert!(done["rows"].as_u64().unwrap() > 0 && done["browsers"] == 1, "{done}");
    let told = wait_for("it is told", || Some(erased(&good, &lead)).filter(|it| !it.is_empty()));
    let body = told[0].json();
    assert_eq!(body["data"]["score"]["exact"], json!(0.0), "{body:#}");
    assert_eq!(
        (&body["data"]["lead"]["email"], &body["data"]["lead"]["name"]),
        (&Value::Null, &Value::Null)
    );
    assert!(!body.to_string().contains(CANARY) && !body.to_string().contains("部長"), "{body:#}");
    let before = bad.all().len();
    let answer = server.ask("GET", &format!("/api/leads/{lead}"), b"");
    assert_eq!((answer.status, &answer.json()["error"]), (410, &json!("erased")));
    assert_eq!(server.ask("GET", &format!("/api/leads/{lead}/timeline"), b"").status, 404);
    wait_for("no list knows her", || {
        let found = server.get(&format!("/api/leads?q={CANARY}"));
        (found["leads"] == json!([])).then_some(())
    });
    for path in ["/api/alerts", "/api/hot", "/api/review", "/api/deliveries", "/api/dead"] {
        let answer = server.ask("GET", path, b"").text();
        assert!(!answer.contains(CANARY), "{path}: {answer}");
    }
    let feed = server.get("/api/alerts");
    let kinds: Vec<&str> =
        feed["alerts"].as_array().unwrap().iter().map(|it| it["type"].as_str().unwrap()).collect();
    assert!(kinds.contains(&"erased") && kinds.ends_with(&["lead.erased"]), "{kinds:?}");
    let again = server.step("/api/erase", json!({ "site": "www", "email": HER }));
    assert_eq!((&again["already"], &again["position"]), (&json!(true), &done["position"]));
    settle(&server, &good, 1);
    assert!(bad.all()[before..].iter().all(|it| !it.json().to_string().contains(CANARY)));
    server.stop();
    assert_eq!(found_in(&server.data()), Vec::<PathBuf>::new());
    assert!(!readable(&server.data()).contains(CANARY), "with the keys that are left");
    server.restart();
    assert_eq!(server.ask("GET", &format!("/api/leads/{lead}"), b"").status, 410);
    assert_eq!(erased(&good, &lead).len(), 1, "told once");
}

#[test]
fn a_page_in_flight_a_link_and_a_tap_from_before_an_erasure_act_on_nobody() {
    let (server, good, _) = started("2026-12-07 09:00");
    let (mut her, lead) = lives(&server, &good);
    let link = json!({
        "site": "www", "mail": "news", "title": "x", "url": "https://www.vendor.example/lp",
        "to": [{ "email": HER }],
    });
    let link = server.post("/api/mail-links", &link).json()["links"][0]["url"].clone();
    let link = link.as_str().unwrap().to_owned();
    let tap = good.all_about(HER).iter().find_map(|it| {
        let links = it.json()["data"]["links"].to_string();
        links.find("/f/a.").map(|at| links[at..].split('"').next().unwrap().to_owned())
    });
    let tap = tap.expect("a message asks something of sales");
    server.step("/api/erase", json!({ "lead": lead, "reason": "she asked" }));
    server.pass_ms(60_000);
    her.page("/pricing/", "料金プラン");
    let path = link[link.find("/c/").unwrap()..].to_owned();
    let answer = her.send("GET", &path, b"");
    let to = answer.header("location").unwrap().to_owned();
    assert!(!to.contains("mk="), "it leads on, and names nobody: {to}");
    let tapped = Client::new(server.collector()).send("POST", &tap, &[], b"").unwrap();
    assert_eq!(tapped.status, 404, "the link is not valid any more");
    assert_eq!(server.ask("GET", &format!("/api/leads/{lead}"), b"").status, 410);
    server.pass_ms(60_000);
    her.identify(HER, &json!({ "name": "anew" }));
    let new = server.lead_by(HER);
    assert_eq!((&new["id"], &new["name"]), (&json!(lead), &json!("anew")));
    assert_eq!(new["attributes"]["phone"], Value::Null);
    assert_eq!(new["stage"]["id"], "known", "what sales answered is forgotten too");
    let hits = new["history"]["hits"].as_u64().unwrap();
    assert!(hits <= 3, "only what came after it: {new:#}");
}

#[test]
fn an_older_copy_of_the_data_that_is_put_back_does_not_bring_her_back() {
    let (mut server, good, _) = started("2026-12-07 09:00");
    let (_, lead) = lives(&server, &good);
    settle(&server, &good, 1);
    server.stop();
    let copy = tempfile::tempdir().unwrap();
    copy_folder(&server.data(), copy.path());
    server.restart();
    server.step("/api/erase", json!({ "lead": lead, "reason": "she asked" }));
    wait_for("it is told", || (erased(&good, &lead).len() == 1).then_some(()));
    settle(&server, &good, 2);
    server.stop();
    let log = fs::read(server.data().join("keys/erased.log")).unwrap();
    assert_eq!(log.len(), 20, "her id, when, and a checksum");
    fs::remove_dir_all(server.data()).unwrap();
    copy_folder(copy.path(), &server.data());
    fs::write(server.data().join("keys/erased.log"), &log).unwrap();
    assert!(readable(&server.data()).contains(CANARY), "the copy knows her");
    server.pass_clock_ms(1_000);
    server.restart();
    assert_eq!(server.ask("GET", &format!("/api/leads/{lead}"), b"").status, 410);
    wait_for("it is told again", || (erased(&good, &lead).len() == 2).then_some(()));
    settle(&server, &good, 3);
    server.stop();
    assert_eq!(found_in(&server.data()), Vec::<PathBuf>::new());
    assert!(!readable(&server.data()).contains(CANARY), "with the keys that are left");
    let log = fs::read(server.data().join("keys/erased.log")).unwrap();
    assert_eq!(log.len(), 40, "when it was done again");
    server.restart();
    settle(&server, &good, 4);
    assert_eq!(erased(&good, &lead).len(), 2, "and no third time");
}

#[test]
fn a_stop_before_the_keys_are_gone_is_finished_by_the_next_start() {
    let (mut server, good, _) = started("2026-12-07 09:00");
    let (_, lead) = lives(&server, &good);
    settle(&server, &good, 1);
    server.stop();
    let keys = fs::read(server.data().join("keys/subjects.log")).unwrap();
    server.restart();
    server.step("/api/erase", json!({ "lead": lead, "reason": "she asked" }));
    wait_for("it is told", || (erased(&good, &lead).len() == 1).then_some(()));
    server.kill();
    // As if the record had been the last thing on the disk.
    fs::write(server.data().join("keys/subjects.log"), &keys).unwrap();
    fs::write(server.data().join("keys/erased.log"), b"").unwrap();
    assert!(readable(&server.data()).contains(CANARY), "her key is there");
    server.restart();
    assert!(!readable(&server.data()).contains(CANARY), "it went before anybody was let in");
    let log = fs::read(server.data().join("keys/erased.log")).unwrap();
    assert_eq!(log.len(), 20);
    settle(&server, &good, 2);
    assert_eq!(erased(&good, &lead).len(), 1, "told once");
}

#[test]
fn a_person_is_given_everything_that_is_held_about_them() {
    let (server, good, _) = started("2026-12-07 09:00");
    let (mut her, lead) = lives(&server, &good);
    let hit = her.hit(&json!({ "e": "download", "p": { "file": "guide.pdf" } }));
    assert_eq!(her.beacon(hit.to_string().as_bytes()).status, 204);
    let held = server.get(&format!("/api/export/{lead}"));
    let text = held.to_string();
    for word in ["guide.pdf", "/pricing", "is a student", "lead.hot", "\"phone\"", "called"] {
        assert!(text.contains(word), "{word}: {held:#}");
    }
    assert_eq!((&held["complete"], &held["lead"]["id"]), (&json!(true), &json!(lead)));
    assert!(!held["said"].as_array().unwrap().is_empty());
    assert!(!held["ledger"].as_array().unwrap().is_empty());
    let output = server.asking(&["export", "lead", &lead]).output().unwrap();
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed["said"], held["said"]);
    assert_eq!(server.ask("GET", "/api/export/L0000000000000001", b"").status, 404);
}

#[test]
fn a_person_is_forgotten_from_the_command_line_by_their_address() {
    let (server, good, _) = started("2026-12-07 09:00");
    let (_, lead) = lives(&server, &good);
    let forget = |whom: &str| {
        let mut command = server.asking(&["forget", whom, "--reason", "asked by mail"]);
        command.output().unwrap()
    };
    let output = forget(HER);
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&printed["lead"], &printed["already"]), (&json!(lead), &json!(false)));
    let output = forget("nobody@nowhere.example");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("nobody is known as"));
    for wrong in [
        json!({ "actor": "a", "reason": "b" }),
        json!({ "lead": lead, "email": HER, "site": "www", "actor": "a", "reason": "b" }),
        json!({ "lead": lead }),
    ] {
        assert_eq!(server.post("/api/erase", &wrong).status, 400, "{wrong}");
    }
}
