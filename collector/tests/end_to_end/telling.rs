//! Who is told, and when: filters, quiet hours, digests, summaries, superseding, and that a restart
//! forgets none of it.

use std::sync::{Arc, Condvar, Mutex};

use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::http::{Answer, Client};
use crate::support::receiver::{Received, Receiver};
use crate::support::server::{SERVER_KEY, Server, Setup};
use crate::support::story::TANAKA;
use crate::support::{at, iso, wait_for};

/// A Monday.
const MONDAY: &str = "2026-12-07 10:00";
const HOUR: u64 = 3_600_000;

/// Somebody asks for a quote, and is hot by it.
fn quote(server: &Server, number: u64, email: &str, attributes: &Value) {
    let mut browser = Browser::returning(server, number);
    browser.form(email, attributes, "/thanks/contact/ok", "");
}

fn person(name: &str, company: &str, title: &str) -> Value {
    json!({ "name": name, "company": company, "title": title, "industry": "manufacturing" })
}

/// What sales answers, with the site's key.
fn feedback(server: &Server, body: &Value) -> Value {
    let bearer = format!("Bearer {SERVER_KEY}");
    let headers = [("authorization", bearer.as_str())];
    let mut client = Client::new(server.collector());
    let answer = client.send("POST", "/s/feedback", &headers, body.to_string().as_bytes()).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.raw());
    answer.json()
}

/// Waits until what was queued has been sent, is held, or is kept.
#[track_caller]
fn settled(server: &Server, endpoint: &str, why: &str, count: u64) {
    wait_for(&format!("{count} {why} at {endpoint}"), || {
        (missing(server, endpoint, why) == count).then_some(())
    });
}

/// Waits until it is on the disk that a message was taken: after that no restart sends it again.
fn taken(server: &Server, message: &Received) {
    let id = message.header("webhook-id");
    wait_for("its delivery is noted", || {
        let lines = server.get("/api/deliveries")["deliveries"].clone();
        lines.as_array().unwrap().iter().any(|line| line["alert"] == id).then_some(())
    });
}

fn missing(server: &Server, endpoint: &str, why: &str) -> u64 {
    let gaps = server.get(&format!("/api/alerts/gaps?endpoint={endpoint}"));
    gaps["missing"][why].as_u64().unwrap()
}

/// What a room was told, by type and headline, in order.
fn told(receiver: &Receiver) -> Vec<(String, String)> {
    let of = |message: Received| {
        let headline = message.json()["data"]["headline"]["en"].as_str().unwrap().to_owned();
        (message.kind(), headline)
    };
    receiver.all().into_iter().map(of).collect()
}

#[track_caller]
fn wait_told(receiver: &Receiver, count: usize) -> Vec<(String, String)> {
    wait_for(&format!("{count} messages"), || {
        Some(told(receiver)).filter(|found| found.len() >= count)
    })
}

/// All lines of a digest, by section.
fn lines(digest: &Value) -> Vec<(String, String)> {
    let sections = digest["data"]["sections"].as_array().unwrap();
    let of = |section: &Value| {
        let name = section["section"].as_str().unwrap().to_owned();
        let lines = section["lines"].as_array().unwrap().clone();
        lines.into_iter().map(move |line| (name.clone(), line["text"].as_str().unwrap().to_owned()))
    };
    sections.iter().flat_map(of).collect()
}

#[test]
fn an_endpoint_gets_what_it_chooses_and_the_end_of_whatever_it_got() {
    let receivers: Vec<Receiver> = (0..7).map(|_| Receiver::start()).collect();
    let filters = [
        "",
        "grades = [\"B\"]\n",
        "owners = [\"sato@vendor.example\"]\n",
        "owners = [\"none\"]\n",
        "companies = [\"sample-seiki.example\"]\n",
        "companies = [\"その他株式会社\"]\n",
        "categories = [\"interest\"]\n",
    ];
    let endpoints: Vec<String> = receivers
        .iter()
        .zip(filters)
        .enumerate()
        .map(|(number, (receiver, filter))| receiver.endpoint(&format!("e{number}"), filter))
        .collect();
    let server = Server::start(&Setup::new(at(MONDAY), &endpoints));
    let owned = json!({
        "site": "www", "email": TANAKA, "attributes": { "owner": "Sato@vendor.example" },
        "silent": true,
    });
    assert_eq!(server.post("/api/attributes", &owned).status, 200);
    quote(&server, 1, TANAKA, &json!({}));
    let other = person("鈴木 一", "その他株式会社", "部長");
    quote(&server, 2, "suzuki@other.example", &other);
    receivers[0].wait_about(TANAKA, 1);
    receivers[0].wait_about("suzuki@other.example", 1);
    wait_for("all", || (server.figure("mikomi_deliveries_pending") == 0).then_some(()));
    let got: Vec<(usize, usize)> = receivers
        .iter()
        .map(|it| (it.about(TANAKA).len(), it.about("suzuki@other.example").len()))
        .collect();
    assert_eq!(got, [(1, 1), (0, 1), (1, 0), (0, 1), (1, 0), (0, 1), (0, 0)]);

    // What she is like now matches nothing, and her hits are withdrawn.
    let moved = json!({
        "site": "www", "email": TANAKA, "silent": true,
        "attributes": { "owner": "mori@vendor.example" },
    });
    assert_eq!(server.post("/api/attributes", &moved).status, 200);
    let lead = server.lead_by(TANAKA);
    let visitor = lead["links"][0]["visitor"].clone();
    server.step("/api/withdraw", json!({ "visitor": visitor }));
    receivers[0].wait_about(TANAKA, 2);
    wait_for("all", || (server.figure("mikomi_deliveries_pending") == 0).then_some(()));
    let got: Vec<usize> = receivers.iter().map(|it| it.about(TANAKA).len()).collect();
    assert_eq!(got, [2, 0, 2, 0, 2, 0, 0]);
    assert_eq!(receivers[2].about(TANAKA)[1].kind(), "alert.retracted");
}

#[test]
fn a_room_is_told_nothing_while_people_rest_and_all_of_it_when_they_work_again() {
    let (room, sfa) = (Receiver::start(), Receiver::start());
    let quiet = "chat = true\nquiet = { from = \"19:00\", to = \"08:00\", weekend = true }\n";
    let endpoints = [room.endpoint("room", quiet), sfa.endpoint("sfa", "")];
    let mut server = Server::start(&Setup::new(at("2026-12-11 20:00"), &endpoints));
    for (number, email) in (1..).zip([TANAKA, "suzuki@other.example", "robot@other.example"]) {
        quote(&server, number, email, &person("誰か", "会社", ""));
        sfa.wait_about(email, 1);
    }
    settled(&server, "room", "pending", 3);
    assert_eq!(server.figure("mikomi_alerts_held_total"), 3);
    // One was a robot: the room will hear nothing of it, the system both.
    let visitor = server.lead_by("robot@other.example")["links"][0]["visitor"].clone();
    server.step("/api/withdraw", json!({ "visitor": visitor }));
    sfa.wait_about("robot@other.example", 2);
    settled(&server, "room", "pending", 2);
    settled(&server, "room", "retracted", 2);

    server.kill();
    server.pass_clock_ms(24 * HOUR);
    server.restart();
    settled(&server, "room", "pending", 2);
    server.to("2026-12-14 07:59");
    assert_eq!(missing(&server, "room", "pending"), 2);
    assert_eq!(room.all().len(), 0, "it is Monday, and early");
    server.to("2026-12-14 08:00");
    room.wait_about(TANAKA, 1);
    room.wait_about("suzuki@other.example", 1);
    settled(&server, "room", "pending", 0);
    let hot = told(&room).into_iter().filter(|(kind, _)| kind == "lead.hot").count();
    assert_eq!((hot, room.about("robot@other.example").len()), (2, 0));
}

#[test]
fn too_many_messages_of_a_day_are_one_digest_at_the_end_of_work() {
    let room = Receiver::start();
    let more = "chat = true\ndaily_max = 2\nhide = [\"email\"]\n";
    let setup = Setup::new(at("2026-12-07 16:00"), &[room.endpoint("room", more)]);
    let mut server = Server::start(&setup.with_admin_url());
    for number in 1..=5 {
        quote(&server, number, &format!("a{number}@a.example"), &person("誰か", "会社", ""));
        let (sent, kept) = if number <= 2 { (number, 0) } else { (2, number - 2) };
        wait_told(&room, sent as usize);
        settled(&server, "room", "listed", kept);
    }
    // Before the digest one of them turns out to be nobody.
    let visitor = server.lead_by("a3@a.example")["links"][0]["visitor"].clone();
    server.step("/api/withdraw", json!({ "visitor": visitor }));
    settled(&server, "room", "retracted", 1);

    server.kill();
    server.restart();
    quote(&server, 6, "a6@a.example", &person("六", "六社", ""));
    settled(&server, "room", "listed", 3);
    server.to("2026-12-07 17:59:59");
    assert_eq!(room.all().len(), 2, "work is not over");
    server.to("2026-12-07 18:00");
    wait_told(&room, 3);
    settled(&server, "room", "digested", 3);
    let digest = room.all()[2].clone();
    let id = digest.header("webhook-id").to_owned();
    let found = digest.json();
    assert_eq!(found["type"], "digest.evening");
    assert_eq!(found["data"]["alert_id"], json!(id));
    assert_eq!(found["data"]["headline"]["ja"], "【本日のまとめ】12/7（月）");
    let hot = |who: &str| ("listed".to_owned(), format!("【ホット】{who}さん 60点（C1）※未確認"));
    assert_eq!(lines(&found), [hot("会社 誰か"), hot("会社 誰か"), hot("六社 六")]);
    let line = &found["data"]["sections"][0]["lines"][0];
    let lead = server.lead_by("a4@a.example")["id"].as_str().unwrap().to_owned();
    assert_eq!(line["lead"], json!(lead));
    assert!(line["url"].as_str().unwrap().ends_with(&format!("/leads/{lead}")), "{line}");

    // The next day is a new one, and nothing is said twice.
    taken(&server, &digest);
    server.kill();
    server.pass_clock_ms(16 * HOUR);
    server.restart();
    quote(&server, 7, "a7@a.example", &person("七", "七社", ""));
    wait_told(&room, 4);
    server.to("2026-12-08 18:30");
    settled(&server, "room", "pending", 0);
    let digests = room.all().into_iter().filter(|it| it.kind().starts_with("digest")).count();
    assert_eq!(digests, 1);
}

#[test]
fn in_the_morning_a_room_is_told_what_is_open_and_nothing_if_nothing_is() {
    let room = Receiver::start();
    let more = "chat = true\nsummary = \"09:00\"\n\
                quiet = { from = \"19:00\", to = \"08:00\", weekend = true }\n";
    let setup = Setup::new(at("2026-12-04 17:00"), &[room.endpoint("room", more)]);
    let mut server = Server::start(&setup);
    quote(&server, 1, TANAKA, &person("田中 恵", "サンプル精機株式会社", ""));
    wait_told(&room, 1);
    server.to("2026-12-05 09:30");
    server.to("2026-12-05 20:00");
    quote(&server, 2, "suzuki@other.example", &person("鈴木 一", "その他", ""));
    settled(&server, "room", "pending", 1);
    quote(&server, 3, "mori@third.example", &person("森", "第三", ""));
    settled(&server, "room", "pending", 2);
    let id = server.lead_by("mori@third.example")["id"].clone();
    for (number, kind, until) in [(1, "accepted", ""), (2, "meeting_planned", "2026-12-07 15:00")] {
        let until = if until.is_empty() { Value::Null } else { json!(iso(at(until))) };
        let at = iso(server.now() + number);
        let by = "sato@vendor.example";
        let answer =
            json!({ "id": kind, "lead": id, "kind": kind, "by": by, "at": at, "until": until });
        server.pass_ms(number);
        let answer = feedback(&server, &answer);
        assert_eq!(answer["applied"], true, "{kind}: {answer}");
    }
    server.to("2026-12-07 08:00");
    wait_told(&room, 3);
    settled(&server, "room", "pending", 0);
    server.kill();
    server.restart();
    server.to("2026-12-07 08:59:59");
    settled(&server, "room", "pending", 0);
    assert_eq!(told(&room).len(), 3, "no summary on a Saturday, nor before nine");
    server.to("2026-12-07 09:00");
    let summary =
        wait_for("the summary", || room.all().into_iter().find(|it| it.kind() == "digest.morning"));
    let found = summary.json();
    assert_eq!(found["data"]["headline"]["en"], "THIS MORNING: Mon 7 Dec");
    let expected = [
        ("untaken", "サンプル精機株式会社 田中恵さん 52点 未対応1時間"),
        ("untaken", "その他 鈴木一さん 55点 未対応0時間"),
        ("meeting", "15:00 第三 森さん（sato@vendor.example）"),
        ("held", "【ホット】その他 鈴木一さん 60点（C1）※未確認"),
        ("held", "【ホット】第三 森さん 60点（C1）※未確認"),
    ];
    let expected = expected.map(|(section, text)| (section.to_owned(), text.to_owned()));
    assert_eq!(lines(&found), expected);
    taken(&server, &summary);
    server.kill();
    server.restart();
    server.pass_ms(60_000);
    settled(&server, "room", "pending", 0);
    let summaries = room.all().into_iter().filter(|it| it.kind() == "digest.morning").count();
    assert_eq!(summaries, 1, "a restart does not say it again");
}

#[test]
fn a_newer_state_replaces_one_that_waits_where_the_newest_is_enough() {
    let (newest, all) = (Receiver::start(), Receiver::start());
    let stuck = Arc::new((Mutex::new(true), Condvar::new()));
    for receiver in [&newest, &all] {
        let stuck = Arc::clone(&stuck);
        receiver.answer_with(move |_| {
            let (is_stuck, freed) = &*stuck;
            drop(freed.wait_while(is_stuck.lock().unwrap(), |is_stuck| *is_stuck).unwrap());
            204
        });
    }
    let types = "types = [\"lead.hot\", \"lead.cooled\"]\nin_flight_max = 1\n";
    let endpoints = [
        newest.endpoint("newest", &format!("{types}supersede = true\n")),
        all.endpoint("all", types),
    ];
    let mut server = Server::start(&Setup::new(at(MONDAY), &endpoints));
    // One message hangs at each, so that what comes now waits.
    quote(&server, 1, "first@other.example", &json!({}));
    settled(&server, "all", "pending", 1);
    quote(&server, 2, TANAKA, &json!({}));
    settled(&server, "all", "pending", 2);
    let id = server.lead_id("tanaka");
    let types_of = |endpoint: &str, why: &str| -> Vec<String> {
        let path = format!("/api/alerts/gaps?endpoint={endpoint}&lead={id}&why={why}");
        let found = server.get(&path)["leads"][0]["gaps"].as_array().cloned().unwrap_or_default();
        found.iter().map(|gap| gap["type"].as_str().unwrap().to_owned()).collect()
    };
    for _ in 0..30 {
        server.pass_ms(24 * HOUR);
        server.settle("tanaka");
    }
    wait_for("she cooled", || (types_of("all", "pending").len() == 2).then_some(()));
    settled(&server, "newest", "superseded", 1);
    assert_eq!(types_of("newest", "superseded"), ["lead.hot"]);
    assert_eq!(types_of("newest", "pending"), ["lead.cooled"]);
    server.kill();
    *stuck.0.lock().unwrap() = false;
    stuck.1.notify_all();
    server.restart();
    let kinds = |receiver: &Receiver| -> Vec<String> {
        receiver.wait_about(TANAKA, 1);
        wait_for("the rest", || (server.figure("mikomi_deliveries_pending") == 0).then_some(()));
        receiver.about(TANAKA).iter().map(Received::kind).collect()
    };
    assert_eq!(kinds(&all), ["lead.hot", "lead.cooled"]);
    assert_eq!(kinds(&newest), ["lead.cooled"]);
}

#[test]
fn an_endpoint_may_choose_by_a_named_list_and_one_that_is_not_there_is_named() {
    let sfa = Receiver::start();
    let server = Server::start(&Setup::new(at(MONDAY), &[]));
    let save = |file: &str, text: &str| {
        std::fs::write(server.config().join(file), text).unwrap();
        assert_eq!(server.post("/api/reload", &json!({})).status, 200);
    };
    let endpoint = sfa.endpoint("sfa", "lists = [\"machines\"]\n");
    save("endpoints.toml", &endpoint);
    wait_for("the mistake", || {
        let problems = server.get("/api/problems")["problems"].to_string();
        problems.contains("there is no list \\\"machines\\\" in lists.toml").then_some(())
    });
    let filter = "{ attribute = \"industry\", is = \"manufacturing\" }";
    let list = format!("[[list]]\nid = \"machines\"\nwhere = {{ attribute = {filter} }}\n");
    save("lists.toml", &list);
    wait_for("it is there", || {
        server.get("/api/problems")["problems"].as_array().unwrap().is_empty().then_some(())
    });
    quote(&server, 1, "other@other.example", &json!({ "industry": "retail" }));
    quote(&server, 2, TANAKA, &person("田中 恵", "サンプル精機株式会社", ""));
    sfa.wait_about(TANAKA, 1);
    settled(&server, "sfa", "filtered", 1);
    assert_eq!(sfa.all().len(), 1);
}

/// Asks the admin side with a token of a role.
fn ask(server: &Server, token: &str, method: &str, path: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("connection", "close")];
    Client::new(server.admin).send(method, path, &headers, b"").unwrap()
}

fn ids(feed: &Value) -> Vec<String> {
    let alerts = feed["alerts"].as_array().unwrap().iter();
    alerts.map(|body| body["data"]["alert_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_system_that_pulls_gets_every_alert_in_order_and_goes_on_where_it_was() {
    let (sfa, lab) = (Receiver::start(), Receiver::start());
    let endpoints = [
        sfa.endpoint("sfa", "grades = [\"A\"]\n"),
        sfa.endpoint("pull", "mode = \"shadow\"\nhide = [\"email\"]\n"),
        lab.endpoint("lab", "test = true\n"),
        sfa.endpoint("room", "chat = true\n"),
    ];
    let mut server = Server::start(&Setup::new(at(MONDAY), &endpoints));
    for number in 1..=5 {
        quote(&server, number, &format!("a{number}@a.example"), &json!({}));
    }
    let mut tester = Browser::new(&server, 50);
    tester.site = "www-test".into();
    tester.page("/", "");
    tester.form("tester@a.example", &json!({}), "/thanks/contact/ok", "");
    lab.wait_about("tester@a.example", 1);
    settled(&server, "pull", "shadowed", 5);
    let first = server.get("/api/alerts?limit=2");
    assert_eq!((ids(&first).len(), &first["more"]), (2, &json!(true)));
    let cursor = first["after"].as_str().unwrap().to_owned();
    server.kill();
    server.restart();
    let rest = server.get(&format!("/api/alerts?after={cursor}"));
    assert_eq!((ids(&rest).len(), &rest["more"]), (3, &json!(false)));
    let all = server.get("/api/alerts");
    assert_eq!(ids(&all), [ids(&first), ids(&rest)].concat());
    let emails: Vec<&str> = all["alerts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|body| body["data"]["lead"]["email"].as_str().unwrap())
        .collect();
    assert_eq!(emails, ["a1", "a2", "a3", "a4", "a5"].map(|it| format!("{it}@a.example")));
    let end = rest["after"].as_str().unwrap();
    let nothing = server.get(&format!("/api/alerts?after={end}"));
    assert_eq!((ids(&nothing).len(), nothing["after"].as_str()), (0, Some(end)));

    // As an endpoint has it: what it wants, without what it hides.
    let hidden = server.get("/api/alerts?endpoint=pull");
    assert_eq!(ids(&hidden), ids(&all));
    assert!(!hidden.to_string().contains("@a.example"));
    assert_eq!(ids(&server.get("/api/alerts?endpoint=sfa")).len(), 0);
    let tests = server.get("/api/alerts?endpoint=lab");
    assert_eq!(tests["alerts"][0]["data"]["test"], true);
    assert_eq!(ids(&server.get("/api/alerts?test=true")), ids(&tests));
    for wrong in
        ["endpoint=nobody", "endpoint=room", "after=x", "after=1.ffff", "after=9.1", "limit=501"]
    {
        let answer = server.ask("GET", &format!("/api/alerts?{wrong}"), b"");
        assert!([400, 422].contains(&answer.status), "{wrong}: {}", answer.text());
    }
    // It is sent as it is fed, to the byte.
    let sent = &lab.all()[0];
    assert_eq!(sent.json(), tests["alerts"][0]);
}

#[test]
fn a_token_of_the_role_alerts_reads_the_feed_and_nothing_else() {
    let server = Server::start(&Setup::new(at(MONDAY), &[]));
    let (printed, fine) = server.command(&["token", "--role", "alerts"]);
    assert!(fine, "{printed}");
    let token = printed.trim();
    assert_eq!(ask(&server, token, "GET", "/api/alerts").status, 200);
    for (method, path) in [
        ("GET", "/api/leads"),
        ("GET", "/api/hot"),
        ("GET", "/api/alerts/gaps?endpoint=sfa"),
        ("GET", "/api/alerts/msg_1/explain"),
        ("GET", "/api/export/hits"),
        ("GET", "/api/stream"),
        ("GET", "/metrics"),
        ("GET", "/"),
        ("POST", "/api/alerts"),
        ("POST", "/api/reload"),
    ] {
        assert_eq!(ask(&server, token, method, path).status, 403, "{method} {path}");
    }
    assert_eq!(ask(&server, "mk_0", "GET", "/api/alerts").status, 401);
    let (_, fine) = server.command(&["token", "--role", "owner"]);
    assert!(!fine);
}

#[test]
fn what_a_receiver_has_not_got_is_listed_with_its_reason() {
    let (good, bad) = (Receiver::start(), Receiver::start());
    bad.answer_with(|message| if message.email() == TANAKA { 410 } else { 204 });
    let endpoints = [good.endpoint("good", "types = [\"lead.hot\"]\n"), bad.endpoint("bad", "")];
    let server = Server::start(&Setup::new(at(MONDAY), &endpoints));
    quote(&server, 1, TANAKA, &json!({}));
    good.wait_about(TANAKA, 1);
    settled(&server, "bad", "dead", 1);
    let visitor = server.lead_by(TANAKA)["links"][0]["visitor"].clone();
    server.step("/api/withdraw", json!({ "visitor": visitor }));
    settled(&server, "good", "filtered", 1);
    settled(&server, "bad", "dead", 2);
    let lead = server.lead_by(TANAKA)["id"].as_str().unwrap().to_owned();
    let reasons = |endpoint: &str, more: &str| -> Vec<(u64, String, String)> {
        let gaps = server.get(&format!("/api/alerts/gaps?endpoint={endpoint}{more}"));
        let leads = gaps["leads"].as_array().unwrap();
        let of = |gap: &Value| {
            let text = |name: &str| gap[name].as_str().unwrap().to_owned();
            (gap["sequence"].as_u64().unwrap(), text("type"), text("why"))
        };
        leads.iter().flat_map(|it| it["gaps"].as_array().unwrap()).map(of).collect()
    };
    let gap = |number: u64, kind: &str, why: &str| (number, kind.to_owned(), why.to_owned());
    assert_eq!(reasons("good", ""), [gap(2, "alert.retracted", "filtered")]);
    let dead = [gap(1, "lead.hot", "dead"), gap(2, "alert.retracted", "dead")];
    assert_eq!(reasons("bad", ""), dead);
    assert_eq!(reasons("bad", &format!("&lead={lead}&why=dead,pending")), dead);
    assert_eq!(reasons("bad", "&why=pending"), []);
    assert_eq!(reasons("bad", &format!("&after={lead}")), []);
    for wrong in ["", "?endpoint=x", "?endpoint=bad&why=lost", "?endpoint=bad&lead=x"] {
        let answer = server.ask("GET", &format!("/api/alerts/gaps{wrong}"), b"");
        assert_eq!(answer.status, 400, "{wrong}: {}", answer.text());
    }
    let metrics = server.ask("GET", "/metrics", b"").text();
    for line in [
        "mikomi_alert_gaps{endpoint=\"bad\",why=\"dead\"} 2",
        "mikomi_alert_gaps{endpoint=\"good\",why=\"filtered\"} 1",
        "mikomi_alert_gaps{endpoint=\"good\",why=\"pending\"} 0",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}
