//! What the people who run it rely on: saved rules, doors, lists, figures, and a stop that loses
//! nothing.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::http::Client;
use crate::support::receiver::Receiver;
use crate::support::server::{RULES, Server, Setup};
use crate::support::story::{TANAKA, story_one};
use crate::support::{about, at, wait_for};

const MONDAY: &str = "2026-12-07 09:00";

fn alone() -> Server {
    Server::start(&Setup::new(at(MONDAY), &[]))
}

#[test]
fn a_saved_file_with_a_mistake_changes_nothing_and_is_shown_with_its_line() {
    let server = alone();
    let mut browser = Browser::returning(&server, 1);
    browser.page("/pricing/", "");
    browser.identify("a@x.example", &json!({}));
    let wrong = RULES.replacen("id = \"pricing\", points = 12", "id = \"pricing\", ponts = 13", 1);
    let line = 1 + wrong.lines().position(|line| line.contains("ponts")).unwrap();
    let column = 1 + wrong.lines().nth(line - 1).unwrap().find("ponts").unwrap();
    fs::write(server.config().join("scoring.toml"), &wrong).unwrap();
    let problems = wait_for("the problem", || {
        let problems = server.get("/api/problems")["problems"].clone();
        (problems != json!([])).then(|| problems.to_string())
    });
    assert!(problems.contains(&format!("scoring.toml:{line}:{column}: ")), "{problems}");
    assert!(problems.contains("points"), "the nearest right word: {problems}");
    assert_eq!(server.get("/api/state")["rules_version"], 1);
    let mut second = Browser::returning(&server, 2);
    second.page("/pricing/", "");
    second.identify("b@x.example", &json!({}));
    assert_eq!(server.lead("b@x.example")["exact"], 12.0);

    let right = wrong.replacen("ponts", "points", 1);
    fs::write(server.config().join("scoring.toml"), &right).unwrap();
    server.post("/api/reload", &json!({}));
    wait_for("version 2", || {
        let problems = server.get("/api/problems")["problems"].clone();
        let version = server.get("/api/state")["rules_version"].clone();
        (version == 2 && problems == json!([])).then_some(())
    });
    let mut third = Browser::returning(&server, 3);
    third.page("/pricing/", "");
    third.identify("c@x.example", &json!({}));
    assert_eq!(server.lead("c@x.example")["exact"], 13.0);
    assert_eq!(server.lead("b@x.example")["exact"], 12.0, "rows keep their points");
}

#[test]
fn rules_in_force_survive_a_restart_under_their_version() {
    let mut server = alone();
    let changed =
        RULES.replacen("id = \"pricing\", points = 12", "id = \"pricing\", points = 13", 1);
    fs::write(server.config().join("scoring.toml"), changed).unwrap();
    server.post("/api/reload", &json!({}));
    wait_for("version 2", || (server.get("/api/state")["rules_version"] == 2).then_some(()));
    let hash = server.get("/api/state")["hash"].clone();
    server.kill();
    server.restart();
    let state = server.get("/api/state");
    assert_eq!((&state["rules_version"], &state["hash"]), (&json!(2), &hash));
}

#[test]
fn a_second_process_on_the_same_folder_ends_at_once_and_touches_nothing() {
    let server = alone();
    Browser::returning(&server, 1).identify("a@x.example", &json!({}));
    let half = server.data().join("keys/subjects.log.new");
    fs::write(&half, "what the first one is about to rename").unwrap();
    let (said, fine) = server.command(&["serve"]);
    assert!(!fine && said.contains("another process"), "{said}");
    assert!(half.exists());
    Browser::returning(&server, 2).identify("b@x.example", &json!({}));
}

#[test]
fn it_is_ready_when_it_listens_and_gone_when_it_was_told_to_stop() {
    let mut server = alone();
    let mut client = Client::new(server.collector());
    for (path, text) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        let answer = client.send("GET", path, &[], b"").unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, text));
    }
    assert!(server.stop().success());
    assert!(Client::new(server.collector()).send("GET", "/readyz", &[], b"").is_err());
}

#[test]
fn the_printed_link_lets_one_person_in_once_and_nobody_without_a_token() {
    let server = alone();
    let mut client = Client::new(server.admin);
    for path in ["/", "/api/state", "/metrics", "/api/leads", "/api/export/hits"] {
        let answer = client.send("GET", path, &[], b"").unwrap();
        assert_eq!((answer.status, &answer.json()["error"]), (401, &json!("no_token")), "{path}");
    }
    let wrong = [("authorization", "Bearer mk_00000000000000000000000000000000")];
    assert_eq!(client.send("GET", "/api/state", &wrong, b"").unwrap().status, 401);
    let target = server.once.split_once("/?").unwrap().1;
    let target = format!("/?{target}");
    let first = client.send("GET", &target, &[], b"").unwrap();
    assert_eq!(first.status, 303);
    let cookie = first.header("set-cookie").unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let session = cookie.split(';').next().unwrap();
    let headers = [("cookie", session)];
    assert_eq!(client.send("GET", "/api/state", &headers, b"").unwrap().status, 200);
    assert_eq!(client.send("GET", &target, &[], b"").unwrap().status, 401, "it works once");
    let foreign = [("cookie", session), ("sec-fetch-site", "cross-site")];
    assert_eq!(client.send("POST", "/api/reload", &foreign, b"").unwrap().status, 401);
    let on_collector = Client::new(server.collector()).send("GET", "/api/state", &headers, b"");
    assert_eq!(on_collector.unwrap().status, 404, "the other door leads nowhere");
}

#[test]
fn tail_prints_a_line_for_what_is_taken_and_for_what_is_not() {
    let server = alone();
    let mut tail = server.asking(&["tail"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = std::sync::Arc::new(Mutex::new(Vec::<String>::new()));
    let kept = std::sync::Arc::clone(&lines);
    let stdout = BufReader::new(tail.stdout.take().unwrap());
    let reading = thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            kept.lock().unwrap().push(line);
        }
    });
    let line_with =
        |word: &str| lines.lock().unwrap().iter().find(|line| line.contains(word)).cloned();
    let mut browser = Browser::returning(&server, 1);
    // A line is told to whoever listens already, so hits are sent until one is heard.
    let line = wait_for("a line", || {
        browser.page("/case/line", "");
        line_with("/case/line")
    });
    assert!(line.contains("page_view"), "{line}");
    browser.page("/pricing/", "");
    let line = wait_for("points", || line_with("/pricing"));
    assert!(line.contains("pricing +12"), "{line}");
    browser.beacon(br#"{"s":"nobody","u":"https://a.example/"}"#);
    let line = wait_for("a refusal", || line_with("unknown_site"));
    assert!(line.contains("refused: unknown_site") && line.starts_with("127.0.0.0"), "{line}");
    tail.kill().unwrap();
    tail.wait().unwrap();
    reading.join().unwrap();
}

#[test]
fn exported_hits_are_the_journal_s_and_carry_no_person() {
    let server = alone();
    let mut browser = Browser::returning(&server, 1);
    browser.identify(TANAKA, &json!({ "name": "田中" }));
    browser.page("/case/line", "");
    let output = server.asking(&["export", "hits"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let printed: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((printed.len(), &printed), (3, &server.hits()));
    assert!(!text.contains("tanaka") && !text.contains("田中") && !text.contains("127.0.0.1"));
}

#[test]
fn the_metrics_are_prometheus_text_and_count_the_hits() {
    let server = alone();
    let mut browser = Browser::returning(&server, 1);
    browser.page("/case/line", "");
    let text = server.ask("GET", "/metrics", b"").text();
    let mut typed = std::collections::BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let words: Vec<&str> = rest.split(' ').collect();
            assert!(words.len() > 2 && ["HELP", "TYPE"].contains(&words[0]), "{line}");
            if words[0] == "TYPE" {
                assert!(typed.insert(words[1].to_owned()), "typed twice: {line}");
            }
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
        let (name, labels) = name.split_once('{').unwrap_or((name, "}"));
        assert!(labels.ends_with('}') && labels.matches('"').count() % 2 == 0, "{line}");
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(name.chars().all(legal), "{line}");
        let base = name.trim_end_matches("_sum").trim_end_matches("_count");
        assert!(typed.contains(name) || typed.contains(base), "no type: {line}");
    }
    assert_eq!(server.figure("mikomi_hits_total"), 2);
    assert_eq!(server.figure("mikomi_first_hits_total"), 1);
    assert_eq!(server.figure("mikomi_visitors"), 1);
}

#[test]
fn a_lead_is_found_by_name_company_mail_and_id_and_its_gates_and_history_are_shown() {
    let receiver = Receiver::start();
    let endpoints = [receiver.endpoint("sfa", "")];
    let server = Server::start(&Setup::new(at("2026-12-01 08:00"), &endpoints));
    story_one(&server);
    let id = server.lead_id(TANAKA);
    for words in [
        id.as_str(),
        "tanaka",
        "%E7%94%B0%E4%B8%AD",
        "%E7%B2%BE%E6%A9%9F",
        "%E7%94%B0%E4%B8%AD+sample-seiki",
    ] {
        assert_eq!(server.lead_id(words), id, "{words}");
    }
    assert_eq!(server.get("/api/leads?q=nobody")["leads"], json!([]));
    let hot = wait_for("the hot queue", || {
        let hot = server.get("/api/hot");
        (hot["leads"][0] != Value::Null).then_some(hot)
    });
    assert_eq!((&hot["leads"][0]["id"], &hot["leads"][0]["cell"]), (&json!(id), &json!("B1")));

    let why = server.get(&format!("/api/leads/{id}/why"));
    let lines = why["thresholds"].as_array().unwrap();
    let line = lines.iter().find(|line| line["threshold"] == "hot").unwrap();
    assert_eq!(
        (&line["inside"], &line["number"], &line["told"]),
        (&json!(true), &json!(1), &json!(true))
    );
    about(&line["gates"]["score"]["is"], 69.923);
    assert_eq!(line["gates"]["score"]["needs"], 60.0);
    for gate in ["score", "grade", "identity", "consent", "recent"] {
        assert_eq!(line["gates"][gate]["open"], true, "{gate}");
    }
    assert!(why["next_by_time"].is_string());
    everything_that_happened_is_shown(&server, &id);
    for path in [
        "/api/leads/L0000000000000000",
        "/api/visitors/V00000000000000000000000000000000",
        "/api/nothing",
    ] {
        assert_eq!(server.ask("GET", path, b"").status, 404, "{path}");
    }
    assert_eq!(server.ask("GET", "/api/leads/tanaka", b"").status, 400);
}

/// Story 1 as her timeline and her browser's show it.
fn everything_that_happened_is_shown(server: &Server, id: &str) {
    let timeline = server.get(&format!("/api/leads/{id}/timeline"));
    let events = timeline["events"].as_array().unwrap();
    let shown: Vec<(&str, &str)> = events
        .iter()
        .map(|event| (event["event"].as_str().unwrap(), event["path"].as_str().unwrap()))
        .collect();
    assert_eq!(
        shown,
        [
            ("page_view", "/pricing"),
            ("mail_click", "/lp/line-automation"),
            ("page_view", "/thanks/document/guide"),
            ("identify", "/pricing"),
            ("engagement", "/pricing"),
            ("page_view", "/pricing"),
            ("page_view", "/product/c"),
            ("page_view", "/product/b"),
            ("page_view", "/product/a"),
            ("engagement", "/case/line"),
            ("page_view", "/case/line"),
            ("engagement", "/column/dx"),
            ("page_view", "/column/dx"),
        ]
    );
    assert_eq!(events[0]["crossings"][0]["threshold"], "hot");
    assert_eq!(events[3]["stitched"], true);
    let visitor = events[0]["visitor"].as_str().unwrap();
    let own = server.get(&format!("/api/visitors/{visitor}/timeline"));
    assert_eq!(own["events"].as_array().unwrap().len(), 13);
}

#[test]
fn a_stop_under_load_loses_nothing_that_was_acknowledged() {
    let mut server = alone();
    let acknowledged = Mutex::new(Vec::new());
    let count = AtomicUsize::new(0);
    thread::scope(|scope| {
        for thread in 0..4_u64 {
            let mut client = Client::new(server.collector());
            let (acknowledged, count) = (&acknowledged, &count);
            scope.spawn(move || {
                for number in 0.. {
                    let path = format!("/load/{thread}/{number}");
                    let hit =
                        json!({ "s": "www", "u": format!("https://www.vendor.example{path}") });
                    let body = hit.to_string();
                    let headers = [("user-agent", crate::support::browser::AGENT)];
                    match client.send("POST", "/b", &headers, body.as_bytes()) {
                        Ok(answer) if answer.status == 204 => {
                            acknowledged.lock().unwrap().push(path);
                            count.fetch_add(1, Ordering::SeqCst);
                        }
                        Ok(_) | Err(_) => return,
                    }
                }
            });
        }
        wait_for("some load", || (count.load(Ordering::SeqCst) > 200).then_some(()));
        server.terminate();
    });
    assert!(server.wait().success());
    server.restart();
    let mut found = std::collections::BTreeMap::<String, u32>::new();
    for hit in server.hits() {
        *found.entry(hit["path"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    let acknowledged = acknowledged.into_inner().unwrap();
    for path in &acknowledged {
        assert_eq!(found.get(path), Some(&1), "{path}");
    }
    assert!(found.len() <= acknowledged.len() + 4, "hits that nobody sent");
}
