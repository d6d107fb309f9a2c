//! The acceptance stories over real HTTP, through the real binary with the rules that ship: from
//! a page view to the message that sales receives, and what never happens on the way.
#![allow(clippy::unwrap_used)]

#[path = "end_to_end/audit.rs"]
mod audit;
#[path = "end_to_end/chats.rs"]
mod chats;
#[path = "end_to_end/deliveries.rs"]
mod deliveries;
#[path = "end_to_end/erase.rs"]
mod erase;
#[path = "end_to_end/facts.rs"]
mod facts;
#[path = "end_to_end/figures.rs"]
mod figures;
#[path = "end_to_end/identity.rs"]
mod identity;
#[path = "end_to_end/lists.rs"]
mod lists;
#[path = "end_to_end/mail_links.rs"]
mod mail_links;
#[path = "end_to_end/nobodies.rs"]
mod nobodies;
#[path = "end_to_end/operations.rs"]
mod operations;
#[path = "end_to_end/past.rs"]
mod past;
#[path = "end_to_end/privacy.rs"]
mod privacy;
#[path = "end_to_end/requests.rs"]
mod requests;
#[path = "end_to_end/rules.rs"]
mod rules;
#[path = "end_to_end/sales.rs"]
mod sales;
#[path = "end_to_end/snapshots.rs"]
mod snapshots;
#[path = "end_to_end/telling.rs"]
mod telling;
mod support;

use serde_json::{Value, json};

use support::browser::Browser;
use support::receiver::{Received, Receiver, SECOND_SECRET, SECRET};
use support::server::{Server, Setup};
use support::story::{PERSONAL, TANAKA, drain, reads, story_one, story_two};
use support::{about, at, iso, wait_for};

const OTHER: &str = "suzuki@other.example";

/// A server that tells one live endpoint.
fn told(clock: &str) -> (Server, Receiver) {
    let receiver = Receiver::start();
    let setup = Setup::new(at(clock), &[receiver.endpoint("sfa", "audience = [\"sales\"]\n")]);
    (Server::start(&setup.with_admin_url()), receiver)
}

fn kinds(messages: &[Received]) -> Vec<String> {
    messages.iter().map(Received::kind).collect()
}

/// No answer to a browser carried anything of anybody.
fn browsers_learned_nothing(server: &Server) {
    let answered = server.shared.answered.lock().unwrap();
    assert!(answered.len() > 1_000, "nothing was answered");
    for word in PERSONAL.iter().chain(&[OTHER, "suzuki", "lead", "score", "69.9", "msg_"]) {
        assert!(!answered.to_lowercase().contains(word), "{word}");
    }
}

#[test]
fn a_reader_is_nobody_then_a_claimed_lead_then_a_verified_one() {
    let (server, receiver) = told("2026-12-01 08:00");
    let mut nobody = Browser::new(&server, 1);
    server.to("2026-12-01 09:00");
    nobody.page("/column/dx", "");
    server.pass_ms(70_000);
    nobody.stay(70);
    server.to("2026-12-01 09:04");
    nobody.page("/case/line", "");
    server.pass_ms(65_000);
    nobody.stay(65);
    let visitor = server.hits()[0]["visitor"].as_str().unwrap().to_owned();
    let known = server.get(&format!("/api/visitors/{visitor}"));
    assert_eq!((&known["exact"], &known["lead"]), (&json!(9.0), &Value::Null));
    assert_eq!(server.get("/api/leads")["leads"], json!([]));

    drop(server);
    let (server, second) = told("2026-12-01 08:00");
    let her = reads(&server);
    let lead = server.lead(TANAKA);
    about(&lead["exact"], 59.382);
    assert_eq!((&lead["points"], &lead["assurance"]), (&json!(59), &json!("claimed")));
    assert_eq!(lead["stage"]["id"], "warm");
    assert_eq!(lead["history"]["anonymous_hits_attached"], 9);
    assert_eq!(lead["cell"], "B2");
    drain(&server, &second, 1);
    assert_eq!(second.about(TANAKA).len(), 0);

    server.to("2026-12-07 08:55");
    support::story::clicks_mail(&server, &her);
    let lead = server.lead(TANAKA);
    about(&lead["exact"], 57.925);
    assert_eq!(
        (&lead["assurance"], &lead["confirmed_by"]),
        (&json!("verified"), &json!("mail_click"))
    );
    assert_eq!(lead["links"][0]["assurance"], "verified");
    browsers_learned_nothing(&server);
    assert_eq!(receiver.all().len(), 0);
}

#[test]
fn the_message_about_a_hot_lead_says_everything_that_sales_needs() {
    let (server, receiver) = told("2026-12-01 08:00");
    story_one(&server);
    let messages = receiver.wait_about(TANAKA, 1);
    let body = messages[0].json();
    let data = &body["data"];
    let now = at("2026-12-07 08:56");
    assert_eq!(
        (body["type"].as_str(), body["timestamp"].as_str()),
        (Some("lead.hot"), Some(iso(now).as_str()))
    );
    let id = messages[0].header("webhook-id");
    assert_eq!(data["alert_id"], id);
    assert!(id.len() == 26 && id.starts_with("msg_"), "{id}");
    for (key, expected) in [
        ("schema", json!(1)),
        ("sequence", json!(1)),
        ("site", json!("www")),
        ("test", json!(false)),
        ("audience", json!("sales")),
        ("answer_by", json!("2026-12-07T04:00:00Z")),
    ] {
        assert_eq!(data[key], expected, "{key}");
    }
    assert_eq!(
        data["headline"],
        json!({
            "ja": "【ホット】サンプル精機株式会社 田中恵さん 69点（B1）",
            "en": "HOT: 田中 恵, サンプル精機株式会社, 69 points (B1)",
        })
    );
    let lead_id = data["lead"]["id"].as_str().unwrap();
    assert_eq!(lead_id, server.lead_id(TANAKA));
    person_and_company(data);
    points_and_cause(data);
    reasons_add_up(data);
    recent_and_history(data);
    let timeline = data["links"]["timeline"].as_str().unwrap();
    assert!(
        timeline.starts_with("http://127.0.0.1:")
            && timeline.ends_with(&format!("/leads/{lead_id}")),
        "{timeline}"
    );
    assert_eq!(data["links"]["crm"], Value::Null);
    for (link, letter) in [("accept", "a"), ("reject", "r"), ("later", "s")] {
        let tap = format!("http://{}/f/{letter}.{}.", server.collector(), &id[4..]);
        assert!(data["links"][link].as_str().unwrap().starts_with(&tap), "{link}");
    }
    assert_eq!(
        data["facts"],
        json!({
            "trial_until": null, "registered_events": [], "customer": false, "open_deal": null,
        })
    );
    for time in ["received", "scored", "committed", "queued"] {
        assert_eq!(data["times"][time], iso(now), "{time}");
    }
    assert!(messages[0].body.len() < 20_000);
    let text = String::from_utf8(messages[0].body.clone()).unwrap();
    assert!(!text.contains("a@b.example") && !text.contains("a%40b"), "a query reached sales");
    browsers_learned_nothing(&server);
}

fn person_and_company(data: &Value) {
    let lead_id = data["lead"]["id"].as_str().unwrap();
    assert_eq!(
        data["lead"],
        json!({
            "id": lead_id, "name": "田中 恵", "email": TANAKA, "phone": null, "title": "課長",
            "department": "製造部", "assurance": "verified", "confirmed_by": "mail_click",
            "stage": "hot", "previous_stage": "warm", "owner": null, "external_ids": {},
        })
    );
    assert_eq!(
        data["company"],
        json!({
            "id": null, "name": "サンプル精機株式会社", "domain": "sample-seiki.example",
            "corporate_number": null, "industry": "manufacturing", "employees": null,
            "score": null, "people_active": null,
        })
    );
}

fn points_and_cause(data: &Value) {
    let now = at("2026-12-07 08:56");
    let score = &data["score"];
    about(&score["exact"], 69.923);
    about(&score["before_24h"], 55.012);
    about(&score["by_category"]["intent"], 43.083);
    about(&score["by_category"]["interest"], 26.840);
    assert_eq!(score["by_category"].as_object().unwrap().len(), 2);
    for (key, expected) in [
        ("points", json!(69)),
        ("urgency", json!("medium")),
        ("grade", json!("B")),
        ("cell", json!("B1")),
    ] {
        assert_eq!(score[key], expected, "{key}");
    }
    assert_eq!(
        (score["unconfirmed"].as_f64(), score["held_back_by_max"].as_f64()),
        (Some(0.0), Some(0.0))
    );
    assert_eq!(
        data["crossing"],
        json!({
            "threshold": "hot", "direction": "rise", "line": 60, "number": 1,
            "opened_by": "score", "waited_for": null,
        })
    );
    assert_eq!(
        data["because"],
        json!({
            "rule": "pricing", "label": { "ja": "料金ページを閲覧", "en": "Viewed pricing" },
            "points": 12.0, "at": iso(now),
            "page": { "title": "料金プラン", "url": "https://www.vendor.example/pricing/" },
        })
    );
}

fn reasons_add_up(data: &Value) {
    let reasons = data["reasons"].as_array().unwrap();
    let expected = [
        ("pricing", 2, 22.359, "2026-12-07 08:56"),
        ("document", 1, 17.271, "2026-12-04 09:50"),
        ("compared", 1, 7.469, "2026-12-04 09:34"),
        ("stayed", 3, 5.349, "2026-12-04 09:41:20"),
        ("mail_click", 1, 5.0, "2026-12-07 08:55"),
        ("returned", 1, 4.668, "2026-12-04 09:30"),
        ("case", 1, 3.483, "2026-12-01 09:04"),
        ("pricing_stayed", 1, 3.453, "2026-12-04 09:41:20"),
        ("article", 1, 0.871, "2026-12-01 09:00"),
    ];
    assert_eq!(reasons.len(), expected.len());
    for (reason, (rule, times, points, last)) in reasons.iter().zip(expected) {
        assert_eq!((reason["rule"].as_str(), reason["times"].as_u64()), (Some(rule), Some(times)));
        assert_eq!(reason["last"], iso(at(last)), "{rule}");
        assert!(reason["label"]["ja"].is_string() && reason["label"]["en"].is_string());
        about(&reason["points"], points);
    }
    let thousandths = |value: &Value| (value.as_f64().unwrap() * 1_000.0).round() as i64;
    let sum: i64 = reasons.iter().map(|reason| thousandths(&reason["points"])).sum();
    assert_eq!(sum, thousandths(&data["score"]["exact"]));
    let categories = data["score"]["by_category"].as_object().unwrap();
    assert_eq!(categories.values().map(thousandths).sum::<i64>(), sum);
}

fn recent_and_history(data: &Value) {
    let recent = |time: &str, event: &str, title: &str, path: &str| {
        let url = format!("https://www.vendor.example{path}");
        json!({ "at": iso(at(time)), "event": event, "title": title, "url": url })
    };
    assert_eq!(
        data["recent"],
        json!([
            recent("2026-12-07 08:56", "page_view", "料金プラン", "/pricing/"),
            recent(
                "2026-12-07 08:55",
                "mail_click",
                "ライン自動化キャンペーン",
                "/lp/line-automation"
            ),
            recent(
                "2026-12-04 09:50",
                "page_view",
                "資料ダウンロード完了",
                "/thanks/document/guide"
            ),
            recent("2026-12-04 09:40", "page_view", "料金プラン", "/pricing/"),
            recent("2026-12-04 09:34", "page_view", "製品C", "/product/c"),
        ])
    );
    assert_eq!(
        data["history"],
        json!({
            "first_seen": iso(at("2026-12-01 09:00")), "first_source": "google / organic",
            "last_source": "newsletter-2026-12 / email", "known_since": iso(at("2026-12-04 09:50")),
            "known_by": "form", "anonymous_hits_attached": 9, "visits": 3, "pages": 8,
        })
    );
}

#[test]
fn the_message_is_signed_by_the_specification_and_dated() {
    let (server, receiver) = told("2026-12-01 08:00");
    story_one(&server);
    let message = receiver.wait_about(TANAKA, 1).remove(0);
    let now = at("2026-12-07 08:56");
    assert_eq!(message.header("content-type"), "application/json");
    assert_eq!(message.header("webhook-timestamp"), (now / 1_000).to_string());
    assert_eq!(message.header("mikomi-sent-at-ms"), now.to_string());
    assert_eq!(message.header("mikomi-attempt"), "1");
    assert!(message.is_signed_with(SECRET) && !message.is_signed_with(SECOND_SECRET));
}

#[test]
fn a_past_score_is_the_same_after_a_crash() {
    let (mut server, receiver) = told("2026-12-01 08:00");
    story_one(&server);
    receiver.wait_about(TANAKA, 1);
    let path =
        format!("/api/leads/{}/score?at=2026-12-04T09:50:00%2B09:00", server.lead_id(TANAKA));
    let before = server.get(&path);
    about(&before["exact"], 59.382);
    assert_eq!(before["points"], 59);
    let granted = |score: &Value| {
        let rows = score["rows"].as_array().unwrap();
        rows.iter().filter(|row| row["granted"].as_f64() != Some(0.0)).count()
    };
    assert_eq!(granted(&before), 10);
    let state = server.get("/api/state");
    server.wait_delivered(1);
    server.kill();
    server.restart();
    assert_eq!(server.get(&path), before);
    assert_eq!(server.get("/api/state")["hash"], state["hash"]);
    drain(&server, &receiver, 1);
    assert_eq!(receiver.about(TANAKA).len(), 1, "told once, and not again by the replay");
}

#[test]
fn a_hot_lead_left_alone_cools_by_time_alone_with_one_message() {
    let (server, receiver) = told("2026-12-01 08:00");
    story_two(&server);
    about(&server.lead(TANAKA)["exact"], 75.922);
    receiver.wait_about(TANAKA, 1);
    server.to("2026-12-25 09:00");
    let cooled = receiver.wait_about(TANAKA, 2).remove(1).json();
    let data = &cooled["data"];
    assert_eq!(
        (cooled["type"].as_str(), data["sequence"].as_u64()),
        (Some("lead.cooled"), Some(3))
    );
    about(&data["score"]["exact"], 39.999);
    let instant: jiff::Timestamp = cooled["timestamp"].as_str().unwrap().parse().unwrap();
    let instant = instant.as_millisecond() as u64;
    let off = instant.abs_diff(at("2026-12-24 05:03"));
    assert!(off <= 300_000, "{off} ms off");
    // The engine agrees with itself: the score shown crosses the line within a second of it.
    let id = server.lead_id(TANAKA);
    let shown =
        |ms: u64| server.get(&format!("/api/leads/{id}/score?at={ms}"))["exact"].as_f64().unwrap();
    assert!(shown(instant) < 40.0 && shown(instant - 1_000) >= 40.0);
    assert_eq!(
        data["headline"]["en"],
        "COOLED: 田中 恵, サンプル精機株式会社, 39 points, last seen 16 days ago"
    );
    assert_eq!(
        (&data["lead"]["stage"], &data["lead"]["previous_stage"]),
        (&json!("warm"), &json!("hot"))
    );
    assert_eq!(
        data["crossing"],
        json!({
            "threshold": "hot", "direction": "fall", "line": 40, "number": 1,
            "opened_by": null, "waited_for": null,
        })
    );
    assert_eq!(data["because"], Value::Null);
    server.to("2027-01-13 01:46");
    server.settle(TANAKA);
    assert_eq!(server.lead(TANAKA)["stage"]["id"], "warm");
    server.to("2027-01-13 01:58");
    server.settle(TANAKA);
    assert_eq!(server.lead(TANAKA)["stage"]["id"], "known");
    drain(&server, &receiver, 1);
    assert_eq!(kinds(&receiver.about(TANAKA)), ["lead.hot", "lead.cooled"]);
}

#[test]
fn a_lead_that_comes_back_is_told_under_the_next_number_and_another_id() {
    let (server, receiver) = told("2026-12-01 08:00");
    let mut her = story_two(&server);
    server.to("2026-12-28 10:00");
    her.page("/pricing/", "");
    about(&server.lead(TANAKA)["exact"], 51.345);
    drain(&server, &receiver, 1);
    assert_eq!(kinds(&receiver.about(TANAKA)), ["lead.hot", "lead.cooled"]);
    server.to("2026-12-28 10:05");
    her.page("/thanks/document/guide", "");
    about(&server.lead(TANAKA)["exact"], 71.339);
    let messages = receiver.wait_about(TANAKA, 3);
    let again = messages[2].json();
    assert_eq!(
        (again["type"].as_str(), again["data"]["sequence"].as_u64()),
        (Some("lead.hot"), Some(4))
    );
    assert_eq!(again["data"]["crossing"]["number"], 2);
    assert_ne!(messages[0].header("webhook-id"), messages[2].header("webhook-id"));
}

#[test]
fn a_nervous_score_makes_three_messages_and_never_a_fourth() {
    let (server, receiver) = told("2026-12-07 09:59");
    let mut browser = Browser::returning(&server, 2);
    let exact = || server.lead(OTHER)["exact"].clone();
    let stage = || server.lead(OTHER)["stage"]["id"].clone();
    server.to("2026-12-07 10:00");
    browser.form(OTHER, &json!({ "name": "鈴木" }), "/thanks/contact/ok", "");
    assert_eq!(exact(), json!(60.0));
    let first = receiver.wait_about(OTHER, 1).remove(0).json();
    assert_eq!(first["data"]["lead"]["assurance"], "claimed");
    assert_eq!(first["data"]["headline"]["en"], "HOT: 鈴木, 60 points (?1) (unconfirmed)");
    about(&first["data"]["score"]["unconfirmed"], 60.0);
    server.to("2026-12-07 15:00");
    browser.page("/careers/", "");
    about(&exact(), 49.384);
    server.to("2026-12-07 15:05");
    browser.event("unsubscribe");
    about(&exact(), 29.376);
    assert_eq!(stage(), "hot", "dwell");
    server.to("2026-12-08 09:59:59");
    server.settle(OTHER);
    assert_eq!(stage(), "hot", "dwell");
    server.to("2026-12-09 10:00");
    let cooled = receiver.wait_about(OTHER, 2).remove(1).json();
    assert_eq!(cooled["timestamp"], iso(at("2026-12-08 10:00")));
    about(&cooled["data"]["score"]["exact"], 27.847);
    browser.page("/pricing/", "");
    about(&exact(), 38.001);
    server.to("2026-12-09 10:05");
    browser.page("/thanks/document/guide", "");
    about(&exact(), 57.993);
    server.to("2026-12-09 10:10");
    browser.page("/thanks/event/dx", "");
    about(&exact(), 72.983);
    assert_eq!(stage(), "hot");
    wait_for("her place in the list, without a message", || {
        (server.get("/api/hot")["leads"][0]["email"] == OTHER).then_some(())
    });
    drain(&server, &receiver, 1);
    assert_eq!(receiver.about(OTHER).len(), 2, "cool-down");
    server.to("2026-12-10 10:00");
    let third = receiver.wait_about(OTHER, 3).remove(2).json();
    assert_eq!(
        (&third["type"], &third["timestamp"]),
        (&json!("lead.hot"), &json!(iso(at("2026-12-10 10:00"))))
    );
    assert_eq!(third["data"]["crossing"]["waited_for"], "cooldown");
    assert_eq!(third["data"]["crossing"]["number"], 2);
    about(&third["data"]["score"]["exact"], 69.374);
    server.to("2026-12-12 10:00");
    server.settle(OTHER);
    drain(&server, &receiver, 2);
    assert_eq!(kinds(&receiver.about(OTHER)), ["lead.hot", "lead.cooled", "lead.hot"]);
}
