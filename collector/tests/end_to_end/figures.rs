//! The figures of marketing and sales, with exact numbers: what was told and what became of it,
//! what was held back, who waits, and whom nobody knows.

use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::http::Client;
use crate::support::server::{SERVER_KEY, Server, Setup};
use crate::support::{about, at, iso, wait_for};

const MONDAY: &str = "2026-12-07 09:00";
const SATO: &str = "sato@vendor.example";

fn started() -> Server {
    Server::start(&Setup::new(at(MONDAY), &[]))
}

fn email(number: u64) -> String {
    format!("p{number}@firm{number}.example")
}

fn id_of(server: &Server, email: &str) -> String {
    server.lead_by(email)["id"].as_str().unwrap().to_owned()
}

/// What sales says of somebody.
fn says(server: &Server, email: &str, kind: &str) {
    let body = json!({
        "id": format!("{email} {kind}"), "lead": id_of(server, email), "kind": kind, "by": SATO,
    });
    let bearer = format!("Bearer {SERVER_KEY}");
    let mut client = Client::new(server.collector());
    let headers = [("authorization", bearer.as_str())];
    let answer = client.send("POST", "/s/feedback", &headers, body.to_string().as_bytes()).unwrap();
    assert_eq!(answer.json()["applied"], true, "{}", answer.raw());
}

/// Waits until the reader has seen so many messages.
fn figures(server: &Server, alerts: u64) -> Value {
    wait_for(&format!("{alerts} messages in the figures"), || {
        let found = server.get("/api/figures");
        let counts = found["alerts"].as_array().unwrap().iter();
        let count: u64 = counts.map(|row| row["count"].as_u64().unwrap()).sum();
        (count == alerts).then_some(found)
    })
}

/// Waits until the reader has come as far as everybody else.
fn read(server: &Server) {
    let number = server.now() % 1_000_000_007;
    let marker = format!("marker@m{number}.example");
    let card = json!({ "site": "www", "email": marker, "silent": true });
    assert_eq!(server.post("/api/attributes", &card).json()["kept"], 1);
    server.lead_id(&marker);
}

/// Six people ask for a quote on Monday at 10:00, and so do one who is no target and a tester.
fn quotes(server: &Server) {
    server.to("2026-12-07 10:00");
    for number in 1..=6 {
        let mut browser = Browser::returning(server, number);
        browser.form(&email(number), &json!({}), "/thanks/contact/ok", "");
    }
    let student = json!({ "title": "学生" });
    let mut browser = Browser::returning(server, 7);
    browser.form("p7@gmail.com", &student, "/thanks/contact/ok", "");
    browser.page("/pricing/", "");
    let mut tester = Browser::new(server, 8);
    tester.site = "www-test".into();
    tester.page("/", "");
    tester.form("p8@firm8.example", &json!({}), "/thanks/contact/ok", "");
}

fn answers(server: &Server) {
    server.to("2026-12-07 10:30");
    says(server, &email(1), "accepted");
    server.to("2026-12-07 11:00");
    says(server, &email(5), "snooze");
    server.to("2026-12-07 12:00");
    says(server, &email(2), "contacted");
    server.to("2026-12-07 13:00");
    says(server, &email(3), "rejected");
    // Those who have waited four working hours are reminded of.
    server.to("2026-12-07 14:00");
    figures(server, 10);
}

#[test]
fn answers_are_counted_with_their_times_and_say_which_rule_was_right() {
    let mut server = started();
    quotes(&server);
    let told = figures(&server, 7);
    let row = |kind: &str, count: u64| json!({ "type": kind, "audience": "sales", "count": count });
    assert_eq!(told["alerts"], json!([row("lead.action", 1), row("lead.hot", 6)]));
    assert_eq!((&told["from"], &told["to"]), (&json!("2026-11-08"), &json!("2026-12-07")));
    assert_eq!(
        told["answers"],
        json!({
            "asked": 7, "answered": 0, "in_time": 0, "open": 7, "overdue": 0, "retracted": 0,
            "by_kind": {}, "taken": 0, "rejected": 0, "in_time_rate": 0.0, "taken_rate": null,
            "minutes": {
                "count": 0, "unknown": 0,
                "wall": { "p50": null, "p90": null, "max": null },
                "working": { "p50": null, "p90": null, "max": null },
            },
        })
    );
    answers(&server);
    server.to("2026-12-08 09:30");
    says(&server, &email(4), "accepted");
    server.to("2026-12-08 10:00");
    says(&server, &email(5), "accepted");
    read(&server);
    let found = server.get("/api/figures?days=2");
    assert_eq!(
        found["alerts"],
        json!([row("lead.action", 1), row("lead.hot", 6), row("lead.reminder", 3)])
    );
    assert_eq!(
        found["answers"],
        json!({
            "asked": 7, "answered": 5, "in_time": 4, "open": 2, "overdue": 2, "retracted": 0,
            "by_kind": { "accepted": 3, "contacted": 1, "rejected": 1 },
            "taken": 4, "rejected": 1, "in_time_rate": 0.571, "taken_rate": 0.8,
            "minutes": {
                "count": 5, "unknown": 0,
                "wall": { "p50": 180.0, "p90": 1_440.0, "max": 1_440.0 },
                "working": { "p50": 180.0, "p90": 540.0, "max": 540.0 },
            },
        })
    );
    precision(&found);
    // The student has 72 points and the wrong grade.
    let gates = json!([{ "threshold": "hot", "gate": "grade", "leads": 1 }]);
    assert_eq!(found["held_back"]["gates"], gates);
    assert_eq!(
        found["by_day"],
        json!([{
            "day": "2026-12-07", "alerts": 10, "asked": 7, "answered": 5, "in_time": 4,
            "taken": 4, "rejected": 1, "waited": 0, "dropped": 0, "held_back": 0,
        }]),
        "an answer counts on the day of what it answers"
    );
    let today = server.get("/api/figures?days=1");
    assert_eq!((&today["answers"]["asked"], &today["by_day"]), (&json!(0), &json!([])));
    metrics(&server);

    server.kill();
    server.restart();
    assert_eq!(server.get("/api/figures?days=2"), found, "rebuilt by replay");
}

fn precision(found: &Value) {
    assert_eq!(
        found["precision"],
        json!({
            "by_threshold": [
                { "threshold": "hot", "taken": 4, "rejected": 1, "precision": 0.8 },
            ],
            "by_rule": [{
                "rule": "contact", "taken": 4, "rejected": 1, "precision": 0.8,
                "label": { "ja": "お問い合わせ・見積依頼", "en": "Asked for a quote" },
            }],
        })
    );
}

fn metrics(server: &Server) {
    for (name, value) in [
        ("mikomi_alerts_total{type=\"lead.hot\",audience=\"sales\"}", 6),
        ("mikomi_alerts_total{type=\"lead.reminder\",audience=\"sales\"}", 3),
        ("mikomi_alerts_asked", 7),
        ("mikomi_alerts_answered_total{kind=\"accepted\"}", 3),
        ("mikomi_alerts_answered_in_time_total", 4),
        ("mikomi_hot_verdicts{threshold=\"hot\",rule=\"contact\",verdict=\"taken\"}", 4),
        ("mikomi_hot_verdicts{threshold=\"hot\",rule=\"contact\",verdict=\"rejected\"}", 1),
        ("mikomi_leads_shut_out{threshold=\"hot\",gate=\"grade\"}", 1),
        ("mikomi_leads_untaken", 2),
        ("mikomi_answer_minutes{clock=\"wall\",quantile=\"0.5\"}", 180),
        ("mikomi_answer_minutes{clock=\"working\",quantile=\"0.9\"}", 540),
    ] {
        assert_eq!(server.figure(name), value, "{name}");
    }
}

#[test]
fn whom_nobody_took_is_reported_after_twice_the_time() {
    let server = started();
    quotes(&server);
    let card = json!({
        "site": "www", "email": email(6), "attributes": { "owner": SATO }, "silent": true,
    });
    assert_eq!(server.post("/api/attributes", &card).json()["kept"], 1);
    answers(&server);
    read(&server);
    let report = |path: &str| {
        let found = server.get(path);
        let leads = found["leads"].as_array().unwrap();
        let emails = leads.iter().map(|lead| lead["email"].as_str().unwrap().to_owned());
        (emails.collect::<Vec<_>>(), found)
    };
    server.to("2026-12-07 17:59:59");
    assert_eq!(report("/api/untaken").1["count"], 0);
    let (mut all, found) = report("/api/untaken?all=true");
    all.sort();
    assert_eq!(all, [email(4), email(5), email(6), "p7@gmail.com".to_owned()]);
    let of = |email: &str| {
        let leads = found["leads"].as_array().unwrap();
        leads.iter().find(|lead| lead["email"] == email).unwrap().clone()
    };
    let later = of(&email(5));
    assert_eq!(
        (&later["answer_by"], &later["report_at"], &later["reminded"]),
        (&json!(iso(at("2026-12-08 12:00"))), &json!(iso(at("2026-12-08 16:00"))), &json!(false))
    );
    server.to("2026-12-08 10:00");
    let (mut late, found) = report("/api/untaken");
    late.sort();
    assert_eq!(
        (late, &found["count"]),
        (vec![email(4), email(6), "p7@gmail.com".into()], &json!(3))
    );
    let leads = found["leads"].as_array().unwrap();
    let six = leads.iter().find(|lead| lead["email"] == email(6)).unwrap();
    for (field, value) in [
        ("owner", json!(SATO)),
        ("since", json!(iso(at("2026-12-07 10:00")))),
        ("answer_by", json!(iso(at("2026-12-07 14:00")))),
        ("report_at", json!(iso(at("2026-12-07 18:00")))),
        ("reminded", json!(true)),
        ("waited_minutes", json!({ "working": 540, "wall": 1_440 })),
    ] {
        assert_eq!(six[field], value, "{field}");
    }
    assert_eq!(report("/api/untaken?limit=1").0.len(), 1);
    says(&server, &email(6), "accepted");
    let (mut late, _) = report("/api/untaken");
    late.sort();
    assert_eq!(late, [email(4), "p7@gmail.com".to_owned()]);
}

#[test]
fn what_the_cool_down_and_the_maxima_hold_back_is_counted() {
    let server = started();
    server.to("2026-12-07 10:00");
    let mut her = Browser::returning(&server, 1);
    her.form(&email(1), &json!({}), "/thanks/contact/ok", "");
    let mut him = Browser::returning(&server, 2);
    him.form(&email(2), &json!({}), "/thanks/contact/ok", "");
    server.to("2026-12-07 15:00");
    her.page("/careers/", "");
    her.event("unsubscribe");
    // A day later he asks again: of 60 points 57.1 are left, and there is room for 2.
    server.to("2026-12-08 10:00");
    him.page("/thanks/contact/ok", "");
    // Out since 10:00 of the day before, she comes back within the cool-down.
    server.to("2026-12-09 10:00");
    for page in ["/pricing/", "/thanks/document/guide", "/thanks/event/dx"] {
        her.page(page, "");
    }
    about(&server.exact(&email(1)), 73.003);
    read(&server);
    let found = server.get("/api/figures");
    assert_eq!(found["held_back"]["cooldown"], json!({ "waiting": 1, "waited": 1, "dropped": 0 }));
    assert_eq!(found["held_back"]["max"], json!({ "rule_max": { "rows": 1, "points": 58.0 } }));
    assert_eq!(server.figure("mikomi_messages_waiting"), 1);
    assert_eq!(server.figure("mikomi_rows_cut_total{by=\"rule_max\"}"), 1);
    // Sales says no before it hears of it: the message is dropped, and nobody hears it.
    says(&server, &email(1), "rejected");
    server.to("2026-12-11 10:00");
    read(&server);
    let found = server.get("/api/figures");
    assert_eq!(found["held_back"]["cooldown"], json!({ "waiting": 0, "waited": 1, "dropped": 1 }));
    let days = found["by_day"].as_array().unwrap();
    let dropped: Vec<_> = days.iter().map(|day| (&day["day"], &day["dropped"])).collect();
    assert_eq!(dropped.iter().filter(|(_, count)| **count == json!(1)).count(), 1);
    assert!(dropped.contains(&(&json!("2026-12-09"), &json!(1))), "{dropped:?}");
    assert_eq!(server.figure("mikomi_messages_dropped_total"), 1);
}

#[test]
fn browsers_that_are_hot_and_nobody_s_are_listed_until_they_are_somebody_s() {
    let server = started();
    server.to("2026-12-07 10:00");
    let unknown = || server.get("/api/hot?who=unknown");
    let mut nobody = Browser::returning(&server, 1);
    nobody.page("/thanks/contact/ok", "お問い合わせ完了");
    nobody.page("/pricing/", "料金プラン");
    let mut cold = Browser::returning(&server, 2);
    cold.page("/thanks/trial/pro", "");
    let mut tester = Browser::new(&server, 3);
    tester.site = "www-test".into();
    tester.page("/", "");
    tester.page("/thanks/contact/ok", "");
    // Somebody's browser is nobody's again, and what she did is hers.
    let mut hers = Browser::returning(&server, 4);
    hers.form(&email(4), &json!({}), "/thanks/contact/ok", "");
    let reset = hers.hit(&json!({ "e": "reset" }));
    assert_eq!(hers.beacon(reset.to_string().as_bytes()).status, 204);
    hers.page("/pricing/", "");

    let found = unknown();
    assert_eq!(found["count"], 1);
    let visitors = found["visitors"].as_array().unwrap();
    assert_eq!(visitors.len(), 1);
    for (field, value) in [
        ("points", json!(72)),
        ("exact", json!(72.0)),
        ("by_category", json!({ "intent": 72.0, "interest": 0.0 })),
        ("first_seen", json!(iso(at("2026-12-07 10:00")))),
        ("last_seen", json!(iso(at("2026-12-07 10:00")))),
        ("visits", json!(1)),
        ("pages", json!(3)),
        ("site", json!("www")),
        ("last_page", json!({ "title": "料金プラン", "path": "/pricing" })),
    ] {
        assert_eq!(visitors[0][field], value, "{field}");
    }
    let id = visitors[0]["visitor"].as_str().unwrap();
    assert_eq!(server.get(&format!("/api/visitors/{id}"))["exact"], 72.0);
    assert_eq!(server.get("/api/figures")["hot_unknown"], 1);
    assert_eq!(server.figure("mikomi_visitors_hot_unknown"), 1);
    assert_eq!(server.get("/api/hot?who=unknown&limit=0")["visitors"], json!([]));

    nobody.identify(&email(1), &json!({}));
    assert_eq!(unknown()["count"], 0);
    // Points fade for nobody too.
    let mut other = Browser::returning(&server, 5);
    other.page("/thanks/contact/ok", "");
    assert_eq!(unknown()["count"], 1);
    server.to("2026-12-07 11:00");
    assert_eq!(unknown()["count"], 0);
}
