//! What must never reach sales: our own office, robots, mail scanners, applicants, strangers who
//! claim to be somebody, shared computers, words that name nobody, imports.

use serde_json::{Value, json};

use crate::support::browser::{Browser, server_call};
use crate::support::receiver::Receiver;
use crate::support::server::{Server, Setup};
use crate::support::story::{TANAKA, drain, story_two};
use crate::support::{about, at, wait_for};
use crate::{kinds, told};

const OTHER: &str = "suzuki@other.example";

/// A server whose own office is this machine's network, as a proxy in front tells it.
fn with_office() -> (Server, Receiver) {
    let receiver = Receiver::start();
    let setup = Setup::new(at("2026-12-07 09:00"), &[receiver.endpoint("sfa", "")]);
    let mikomi = setup.mikomi.replace(
        "[collector]\nlisten = \"127.0.0.1:0\"",
        "[collector]\nlisten = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.0/8\"]",
    );
    (Server::start(&Setup { mikomi, ..setup }), receiver)
}

#[test]
fn our_office_and_a_robot_earn_nothing_and_the_stream_says_why() {
    let (server, receiver) = with_office();
    let mut tail = server.asking(&["tail"]);
    let mut tail = tail.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let lines = std::io::BufReader::new(tail.stdout.take().unwrap());
    let (told, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        use std::io::BufRead as _;
        lines.lines().map_while(Result::ok).for_each(|line| {
            // Nobody listens any more when the test is over.
            let _ = told.send(line);
        });
    });
    let mut colleague = Browser::new(&server, 1);
    colleague.extra = vec![("x-forwarded-for".into(), "203.0.113.9".into())];
    let mut robot = Browser::new(&server, 2);
    robot.extra = vec![
        ("x-forwarded-for".into(), "198.51.100.7".into()),
        ("user-agent".into(), "Mozilla/5.0 (compatible; Googlebot/2.1)".into()),
    ];
    // A line for each hit reaches the command only once it listens.
    wait_for("tail to listen", || {
        colleague.page("/pricing/", "");
        heard.recv_timeout(std::time::Duration::from_millis(50)).ok()
    });
    for browser in [&mut colleague, &mut robot] {
        browser.page("/", "");
        browser.identify(OTHER, &json!({}));
        for _ in 0..5 {
            browser.page("/pricing/", "");
        }
    }
    for why in ["0 (network)", "0 (robot)"] {
        wait_for(why, || heard.try_iter().any(|line| line.contains(why)).then_some(()));
    }
    tail.kill().unwrap();
    tail.wait().unwrap();
    let hits = server.hits();
    let excluded = hits.iter().filter(|hit| !hit["excluded"].is_null()).count();
    assert_eq!(excluded, hits.len(), "recorded and marked, each of them");
    for visitor in hits.iter().filter_map(|hit| hit["visitor"].as_str()) {
        let known = server.ask("GET", &format!("/api/visitors/{visitor}"), b"");
        if known.status == 200 {
            assert_eq!(known.json()["exact"], 0.0);
        }
    }
    assert!(receiver.all().is_empty());
}

#[test]
fn a_robot_that_fills_in_a_form_or_follows_a_mail_makes_and_proves_nobody() {
    let (server, _receiver) = told("2026-12-07 09:00");
    let mut robot = Browser::returning(&server, 1);
    robot.extra = vec![("user-agent".into(), "Mozilla/5.0 (compatible; Googlebot/2.1)".into())];
    robot.identify(OTHER, &json!({}));
    let wish = json!({
        "site": "www", "mail": "newsletter", "title": "Campaign", "to": [{ "email": TANAKA }],
        "url": "https://www.vendor.example/lp",
    });
    let made = server.post("/api/mail-links", &wish).json();
    let url = made["links"][0]["url"].as_str().unwrap();
    assert_eq!(robot.send("GET", &url[url.find("/c/").unwrap()..], b"").status, 302);
    wait_for("the click", || {
        server.hits().iter().any(|it| it["event"] == "mail_click").then_some(())
    });
    assert_eq!(server.get("/api/state")["leads"], 0);
}

#[test]
fn a_hot_lead_that_looks_at_careers_stays_hot_and_nobody_is_told() {
    let (server, receiver) = told("2026-12-01 08:00");
    let mut her = story_two(&server);
    server.to("2026-12-07 12:30");
    about(&server.exact(TANAKA), 75.480);
    her.page("/careers/", "");
    about(&server.exact(TANAKA), 65.480);
    assert_eq!(server.lead_by(TANAKA)["stage"]["id"], "hot");
    drain(&server, &receiver, 1);
    assert_eq!(kinds(&receiver.about(TANAKA)), ["lead.hot"]);
}

#[test]
fn an_applicant_is_told_to_personnel_alone() {
    let receiver = Receiver::start();
    let setup = Setup::new(at("2026-12-07 09:00"), &[receiver.endpoint("all", "")]);
    let server = Server::start(&setup);
    let mut applicant = Browser::returning(&server, 1);
    server.to("2026-12-07 10:00");
    applicant.page("/careers/", "");
    server.to("2026-12-07 10:05");
    applicant.page("/column/dx", "");
    server.to("2026-12-07 10:10");
    applicant.form(OTHER, &json!({}), "/thanks/careers/ok", "");
    let lead = server.lead_by(OTHER);
    about(&lead["exact"], -68.993);
    assert_eq!(lead["points"], -69);
    assert_eq!(lead["score"]["by_category"]["recruit"], 100.0);
    drain(&server, &receiver, 1);
    let messages = receiver.about(OTHER);
    assert_eq!(kinds(&messages), ["lead.action"]);
    let data = &messages[0].json()["data"];
    assert_eq!((&data["audience"], &data["because"]["rule"]), (&json!("hr"), &json!("applied")));
    assert_eq!(data["headline"]["ja"], "【採用に応募】suzuki@other.exampleさん※未確認");
}

#[test]
fn a_strange_browser_that_claims_a_known_address_changes_nothing_and_is_told_as_unconfirmed() {
    let (server, receiver) = told("2026-12-01 08:00");
    let card = json!({ "site": "www", "cards": [
        { "email": OTHER, "attributes": { "name": "鈴木 一郎", "title": "部長" } },
    ]});
    assert_eq!(server.post("/api/import", &card).json()["kept"], 1);
    let before = server.lead_by(OTHER);
    assert_eq!((&before["assurance"], &before["exact"]), (&json!("verified"), &json!(0.0)));
    let mut strange = Browser::returning(&server, 9);
    server.to("2026-12-07 09:59");
    strange.identify(OTHER, &json!({ "name": "Mallory", "title": "CEO", "phone": "1" }));
    server.to("2026-12-07 10:00");
    strange.page("/pricing/", "");
    server.to("2026-12-07 10:05");
    strange.page("/thanks/document/guide", "");
    server.to("2026-12-07 10:10");
    strange.page("/thanks/contact/ok", "");
    let lead = server.lead_by(OTHER);
    about(&lead["exact"], 79.993);
    assert_eq!((&lead["points"], &lead["attributes"]), (&json!(79), &before["attributes"]));
    assert_eq!(lead["links"][0]["assurance"], "claimed");
    let rows = lead["score"]["rows"].as_array().unwrap();
    let quote = rows.iter().find(|row| row["rule"] == "contact").unwrap();
    assert_eq!((&quote["granted"], &quote["cut"]), (&json!(48.0), &json!("category_max")));
    drain(&server, &receiver, 1);
    let messages = receiver.about(OTHER);
    assert_eq!(kinds(&messages), ["lead.hot"]);
    let data = &messages[0].json()["data"];
    assert_eq!(data["also"], json!(["action"]));
    about(&data["score"]["unconfirmed"], 79.993);
    let headline = data["headline"]["ja"].as_str().unwrap();
    assert!(headline.ends_with("※未確認"), "{headline}");
    // Whatever that browser does next, at most 80 of it count until someone confirms.
    for (minute, path) in [(20, "/thanks/trial/ok"), (30, "/thanks/event/dx"), (40, "/case/a")] {
        server.to(&format!("2026-12-07 10:{minute}"));
        strange.page(path, "");
        assert!(server.exact(OTHER).as_f64().unwrap() <= 80.0);
    }
    drain(&server, &receiver, 2);
    let visitor = &server.lead_by(OTHER)["links"][0]["visitor"];
    let whose = json!({ "visitor": visitor, "lead": server.lead_by(OTHER)["id"] });
    server.step("/api/confirm", whose);
    assert!(server.exact(OTHER).as_f64().unwrap() > 80.0, "confirmed: all count");
}

#[test]
fn the_fourth_person_on_one_browser_within_a_day_makes_it_shared() {
    let (server, _receiver) = told("2026-12-07 09:00");
    let mut browser = Browser::returning(&server, 1);
    for (hour, mail) in [(10, "p1"), (11, "p2"), (12, "p3"), (13, "p4")] {
        server.to(&format!("2026-12-07 {hour}:00"));
        browser.page("/pricing/", "");
        server.to(&format!("2026-12-07 {hour}:05"));
        browser.identify(&format!("{mail}@shared.example"), &json!({}));
    }
    let fourth = server.lead_by("p4@shared.example");
    assert_eq!(fourth["exact"], 0.0, "nothing is back-filled: {fourth}");
    let visitor = fourth["links"][0]["visitor"].as_str().unwrap().to_owned();
    assert_eq!(server.get(&format!("/api/visitors/{visitor}"))["shared"], true);
    let questions = wait_for("a question", || {
        let found = server.get("/api/review")["questions"].as_array().unwrap().clone();
        (!found.is_empty()).then_some(found)
    });
    assert_eq!(questions[0]["asked"][0]["question"], "shared_browser");
    // The tie ends with the visit.
    server.to("2026-12-07 15:00");
    browser.page("/case/line", "");
    assert_eq!(server.get(&format!("/api/visitors/{visitor}"))["lead"], Value::Null);
    assert_eq!(server.exact("p4@shared.example"), 0.0);
}

#[test]
fn words_that_name_nobody_are_refused_by_name() {
    let (server, _receiver) = told("2026-12-07 09:00");
    let mut browser = Browser::returning(&server, 1);
    for (value, why) in [
        ("null", "identity_garbage"),
        ("undefined", "identity_garbage"),
        ("[object Object]", "identity_garbage"),
        ("", "identity_empty"),
        ("  ", "identity_empty"),
        ("00000000-0000-0000-0000-000000000000", "identity_garbage"),
    ] {
        for kind in ["email", "user_id"] {
            let hit = browser.hit(&json!({ "e": "identify", "id": { kind: value } }));
            let answer = browser.beacon(hit.to_string().as_bytes());
            let said = answer.header("mikomi-rejected").unwrap_or_default();
            assert_eq!((answer.status, said), (400, format!("1 {why}=1").as_str()), "{value}");
        }
    }
    assert_eq!(server.get("/api/leads")["leads"], json!([]));
}

const DAY_MS: u64 = 86_400_000;

#[test]
fn a_reader_of_52_newsletters_is_never_hot() {
    let (server, receiver) = told("2026-01-05 08:00");
    let mut reader = Browser::returning(&server, 1);
    let first = at("2026-01-06 09:00");
    let mut most = 0.0_f64;
    for tuesday in 0..52 {
        server.to_ms(first + tuesday * 7 * DAY_MS);
        let answer = server_call(
            &server,
            &json!({
                "s": "www", "e": "mail_click", "u": "https://www.vendor.example/column/news",
                "v": reader.jar["mikomi"], "at": server.now(), "id": { "email": OTHER },
            }),
        );
        assert_eq!(answer.status, 204, "{}", answer.raw());
        server.pass_ms(60_000);
        reader.page("/column/news", "");
        server.pass_ms(80_000);
        reader.stay(80);
        most = most.max(server.exact(OTHER).as_f64().unwrap());
    }
    assert!(most <= 43.60 && most > 43.0, "{most}");
    drain(&server, &receiver, 1);
    assert!(receiver.about(OTHER).is_empty());
}

#[test]
fn a_customer_who_logs_in_daily_is_no_lead_by_that() {
    let receiver = Receiver::start();
    let setup = Setup::new(at("2026-01-06 08:00"), &[receiver.endpoint("sfa", "")]);
    let mikomi = setup.mikomi.clone() + "[site.areas]\nmy_page = [\"/mypage/**\"]\n";
    let server = Server::start(&Setup { mikomi, ..setup });
    let mut customer = Browser::returning(&server, 1);
    customer.identify(OTHER, &json!({}));
    let first = at("2026-01-06 09:00");
    let mut most = 0.0_f64;
    for day in 0..120 {
        server.to_ms(first + day * DAY_MS);
        customer.page("/mypage/", "");
        most = most.max(server.exact(OTHER).as_f64().unwrap());
    }
    about(&json!(most), 5.988);
    drain(&server, &receiver, 1);
    assert!(receiver.about(OTHER).is_empty());
}

#[test]
fn an_import_of_8_000_cards_tells_nobody() {
    let (server, receiver) = told("2026-12-07 09:00");
    // Somebody who would be hot, were they told of.
    let card = |number: u32| {
        json!({
            "email": format!("card{number}@import.example"), "event": "download",
            "at": at("2026-12-01 10:00"), "attributes": { "name": format!("No. {number}") },
        })
    };
    let mut cards: Vec<Value> = (0..8_000).map(card).collect();
    cards.push(json!({ "email": "null" }));
    let answer = server.post("/api/import", &json!({ "site": "www", "cards": cards }));
    let answer = answer.json();
    assert_eq!((&answer["kept"], answer["rejected"].as_array().unwrap().len()), (&json!(8_000), 1));
    assert_eq!(answer["rejected"][0], json!({ "card": 8_000, "error": "identity_garbage" }));
    let lead = server.lead_by("card77@import.example");
    assert_eq!((&lead["assurance"], &lead["name"]), (&json!("verified"), &json!("No. 77")));
    assert!(lead["exact"].as_f64().unwrap() > 10.0, "the past counts: {lead}");
    drain(&server, &receiver, 1);
    assert_eq!(receiver.all().len(), 1, "the marker alone");
}

#[test]
fn what_a_new_kind_of_robot_did_is_withdrawn_and_its_message_taken_back() {
    let (server, receiver) = told("2026-12-07 09:00");
    let mut machine = Browser::new(&server, 1);
    machine.extra = vec![("user-agent".into(), "NewChecker/1.0 (Windows) like a person".into())];
    machine.page("/", "");
    server.to("2026-12-07 10:00");
    machine.form(OTHER, &json!({}), "/thanks/contact/ok", "");
    let hot = receiver.wait_about(OTHER, 1).remove(0);
    let taken = server.step("/api/withdraw", json!({ "agent": "newchecker" }));
    assert_eq!((&taken["visitors"], &taken["leads"]), (&json!(1), &json!(1)), "{taken}");
    assert_eq!(server.exact(OTHER), 0.0);
    let back = receiver.wait_about(OTHER, 2).remove(1).json();
    assert_eq!(back["type"], "alert.retracted");
    assert_eq!(back["data"]["retracts"], hot.header("webhook-id"));
    assert_eq!(back["data"]["reason"], "told by phone");
    let lead = &back["data"]["lead"];
    assert_eq!((&lead["previous_stage"], &lead["stage"]), (&json!("hot"), &json!("known")));
    assert_eq!(back["data"]["recent"], json!([]), "nothing of it was a person's");
    // It was a person after all.
    server.step("/api/undo", json!({ "position": taken["position"] }));
    about(&server.exact(OTHER), 60.0);
    let nothing = server.post("/api/withdraw", &json!({ "actor": "a", "reason": "b" }));
    assert_eq!(nothing.status, 400, "all hits there are is no selection");
}
