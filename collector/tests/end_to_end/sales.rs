//! The loop with sales, told over HTTP: story 7 with its exact figures, one-tap links, and answers
//! that come twice, late, or from nobody we know.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::http::{Answer, Client};
use crate::support::receiver::{Received, Receiver, SECRET};
use crate::support::server::{SERVER_KEY, Server, Setup};
use crate::support::story::{PERSONAL, TANAKA, drain, story_two};
use crate::support::{about, at, iso, wait_for};

const SATO: &str = "sato@vendor.example";

fn started(receiver: &Receiver) -> Server {
    let sales = receiver.endpoint("sales", "audience = [\"sales\"]");
    Server::start(&Setup::new(at("2026-11-30 09:00"), &[sales]))
}

fn bearer() -> (&'static str, String) {
    ("authorization", format!("Bearer {SERVER_KEY}"))
}

/// Sends an answer with the server key.
fn send(server: &Server, body: &Value) -> Answer {
    let headers = bearer();
    let headers = [(headers.0, headers.1.as_str())];
    let mut client = Client::new(server.collector());
    client.send("POST", "/s/feedback", &headers, body.to_string().as_bytes()).unwrap()
}

/// Sends one that is taken, and says what became of it.
#[track_caller]
fn answers(server: &Server, id: &str, kind: &str, alert: &str, more: &Value) -> Value {
    let mut body = json!({
        "id": id, "alert_id": alert, "kind": kind, "by": SATO, "at": iso(server.now()),
    });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    let answer = send(server, &body);
    assert_eq!(answer.status, 200, "{}", answer.raw());
    answer.json()
}

#[track_caller]
fn applied(answer: &Value) {
    assert_eq!(*answer, json!({ "schema": 1, "applied": true, "why": null }));
}

#[track_caller]
fn unheard(answer: &Value, why: &str) {
    assert_eq!(*answer, json!({ "schema": 1, "applied": false, "why": why }));
}

fn kinds(receiver: &Receiver) -> Vec<String> {
    receiver.all_about(TANAKA).iter().map(Received::kind).collect()
}

fn stage(server: &Server) -> String {
    server.lead(TANAKA)["stage"]["id"].as_str().unwrap().to_owned()
}

/// The alert that she is hot.
fn hot_alert(receiver: &Receiver) -> Value {
    receiver.wait_about(TANAKA, 1)[0].json()["data"].clone()
}

fn path_of(link: &Value) -> String {
    let link = link.as_str().unwrap();
    link[link.find("/f/").unwrap()..].to_owned()
}

fn tap(server: &Server, method: &str, path: &str, body: &[u8]) -> Answer {
    Client::new(server.collector()).send(method, path, &[], body).unwrap()
}

#[test]
fn nobody_took_it_is_reminded_at_one_and_reported_at_five() {
    let receiver = Receiver::start();
    let server = started(&receiver);
    story_two(&server);
    let hot = hot_alert(&receiver);
    assert_eq!(hot["answer_by"], "2026-12-07T04:00:00Z");
    server.to("2026-12-07 12:59:59");
    assert_eq!(server.lead(TANAKA)["asked"]["reminded"], false);
    server.to("2026-12-07 13:00");
    let reminder = wait_for("a reminder", || receiver.all_about(TANAKA).get(1).cloned());
    let reminder = reminder.json();
    assert_eq!(reminder["type"], "lead.reminder");
    assert_eq!(reminder["timestamp"], "2026-12-07T04:00:00.000Z");
    assert_eq!(reminder["data"]["sequence"], 2);
    assert_eq!(server.lead(TANAKA)["asked"]["report_at"], "2026-12-07T08:00:00.000Z");
}

#[test]
fn a_preview_of_a_link_changes_nothing_and_a_tap_counts_once() {
    let receiver = Receiver::start();
    let server = started(&receiver);
    story_two(&server);
    let hot = hot_alert(&receiver);
    server.to("2026-12-07 09:20");
    let accept = path_of(&hot["links"]["accept"]);
    // A preview opens every link, as often as it likes.
    for link in ["accept", "reject", "later"] {
        for method in ["GET", "HEAD", "GET"] {
            assert_eq!(tap(&server, method, &path_of(&hot["links"][link]), b"").status, 200);
        }
    }
    assert_eq!(stage(&server), "hot");
    let tapped = tap(&server, "POST", &accept, format!("by={SATO}").as_bytes());
    assert!(tapped.status == 200 && tapped.text().contains("Recorded"), "{}", tapped.raw());
    let again = tap(&server, "POST", &accept, b"");
    assert!(again.text().contains("already"), "{}", again.raw());
    assert_eq!(
        (stage(&server).as_str(), &server.lead(TANAKA)["owner"]),
        ("accepted", &json!(SATO))
    );
    for page in [&tapped, &again, &tap(&server, "GET", &accept, b"")] {
        for word in PERSONAL.iter().chain(&["sato"]) {
            assert!(!page.raw().contains(word), "{word}: {}", page.raw());
        }
    }
}

/// She is hot, Sato takes her, there is a deal, and it is lost for its price; with the alert.
fn lost(server: &Server, receiver: &Receiver) -> (Browser, String) {
    let mut her = story_two(server);
    about(&server.exact(TANAKA), 75.922);
    let alert = hot_alert(receiver)["alert_id"].as_str().unwrap().to_owned();
    server.to("2026-12-07 09:20");
    applied(&answers(server, "sfa-1", "accepted", &alert, &json!({})));
    server.to("2026-12-08 10:00");
    let deal = json!({ "opportunity": { "id": "D-7", "stage": "提案", "amount": 1_200_000 } });
    applied(&answers(server, "sfa-2", "opportunity", &alert, &deal.clone()));
    assert_eq!(stage(server), "working");
    server.to("2026-12-14 10:00");
    her.page("/pricing/", "料金プラン");
    about(&server.exact(TANAKA), 74.730);
    let signal = receiver.wait_about(TANAKA, 2)[1].json();
    assert_eq!(signal["type"], "lead.signal");
    assert_eq!(signal["data"]["lead"]["owner"], SATO);

    server.to("2026-12-21 10:00");
    about(&server.exact(TANAKA), 57.077);
    applied(&answers(server, "sfa-3", "lost", &alert, &json!({ "reason": "price" })));
    about(&server.exact(TANAKA), 28.539);
    assert_eq!(stage(server), "recycled");
    (her, alert)
}

#[test]
fn an_answer_that_comes_again_or_late_changes_nothing() {
    let receiver = Receiver::start();
    let mut server = started(&receiver);
    let (_, alert) = lost(&server, &receiver);
    // The same five times, and an older one later, change nothing.
    for _ in 0..5 {
        unheard(
            &answers(&server, "sfa-3", "lost", &alert, &json!({ "reason": "price" })),
            "repeated",
        );
    }
    let late = json!({ "at": iso(at("2026-12-10 10:00")) });
    unheard(&answers(&server, "sfa-0", "accepted", &alert, &late), "older");
    about(&server.exact(TANAKA), 28.539);
    server.kill();
    server.restart();
    about(&server.exact(TANAKA), 28.539);
    unheard(&answers(&server, "sfa-3", "lost", &alert, &json!({ "reason": "price" })), "repeated");
}

#[test]
fn a_lost_lead_is_recycled_and_hot_again_by_new_evidence() {
    let receiver = Receiver::start();
    let server = started(&receiver);
    let (mut her, _) = lost(&server, &receiver);
    server.to("2027-01-19 10:00");
    let lead = server.lead(TANAKA);
    let activities = lead["activities"].as_array().unwrap();
    let shown: Vec<_> =
        activities.iter().map(|it| (it["event"].as_str().unwrap(), it["open"] == true)).collect();
    assert_eq!(shown, [("lost", false), ("opportunity", false), ("accepted", false)]);
    assert_eq!(activities[1]["opportunity"]["amount"], "1200000");
    server.to("2027-01-25 10:00");
    about(&server.exact(TANAKA), 8.418);
    her.page("/pricing/", "料金プラン");
    about(&server.exact(TANAKA), 25.418);
    server.pass_ms(80_000);
    her.stay(80);
    about(&server.exact(TANAKA), 31.417);
    her.page("/thanks/document/guide", "資料ダウンロード完了");
    about(&server.exact(TANAKA), 51.417);
    server.to("2027-01-25 10:05");
    her.page("/thanks/event/dx", "お申し込み完了");
    about(&server.exact(TANAKA), 66.412);
    let last = receiver.wait_about(TANAKA, 3)[2].json();
    assert_eq!(
        (&last["type"], &last["data"]["crossing"]["number"]),
        (&json!("lead.hot"), &json!(2))
    );
    assert_eq!(last["data"]["lead"]["previous_stage"], "recycled");
    drain(&server, &receiver, 1);
    assert_eq!(kinds(&receiver), ["lead.hot", "lead.signal", "lead.hot"]);
    let timeline = server.get(&format!("/api/leads/{}/timeline", server.lead_id(TANAKA)));
    let events = timeline["events"].as_array().unwrap();
    let lost = events.iter().find(|event| event["event"] == "lost").unwrap();
    assert_eq!((&lost["reason"], &lost["by"]), (&json!("price"), &json!(SATO)));
}

#[test]
fn a_rejected_lead_must_reach_the_raised_bar() {
    let receiver = Receiver::start();
    let server = started(&receiver);
    let mut her = story_two(&server);
    let alert = hot_alert(&receiver)["alert_id"].as_str().unwrap().to_owned();
    server.to("2026-12-08 10:00");
    about(&server.exact(TANAKA), 72.864);
    applied(&answers(&server, "no", "rejected", &alert, &json!({ "reason": "not now" })));
    assert_eq!(stage(&server), "rejected");
    server.to("2026-12-14 10:00");
    her.page("/pricing/", "料金プラン");
    about(&server.exact(TANAKA), 74.730);
    let why = server.get(&format!("/api/leads/{}/why", server.lead_id(TANAKA)));
    let line = why["thresholds"].as_array().unwrap().iter().find(|it| it["threshold"] == "hot");
    let says = line.unwrap()["says"].as_str().unwrap().to_owned();
    assert!(says.starts_with("score 74 of 80 no"), "{says}");
    server.to("2026-12-14 10:05");
    her.page("/thanks/document/guide", "資料ダウンロード完了");
    about(&server.exact(TANAKA), 94.719);
    receiver.wait_about(TANAKA, 2);
    drain(&server, &receiver, 1);
    assert_eq!(kinds(&receiver), ["lead.hot", "lead.reminder", "lead.hot"]);
}

#[test]
fn an_answer_is_believed_with_a_key_or_a_signature_and_refused_by_name_otherwise() {
    let receiver = Receiver::start();
    let server = started(&receiver);
    story_two(&server);
    let alert = hot_alert(&receiver)["alert_id"].as_str().unwrap().to_owned();
    server.to("2026-12-07 09:20");
    let body = json!({ "id": "a", "alert_id": alert, "kind": "contacted" }).to_string();
    let mut client = Client::new(server.collector());
    let mut post = |headers: &[(&str, &str)], body: &str| {
        client.send("POST", "/s/feedback", headers, body.as_bytes()).unwrap()
    };
    assert_eq!(post(&[], &body).status, 401);
    assert_eq!(post(&[("authorization", "Bearer nobody")], &body).status, 401);
    let signed = |secret: &str, seconds: u64| {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key);
        let tag = ring::hmac::sign(&key, format!("x1.{seconds}.{body}").as_bytes());
        (seconds.to_string(), format!("v1,{}", STANDARD.encode(tag)))
    };
    let other = "whsec_YW5vdGhlciBzZWNyZXQgb2YgdGhlc2UgdGVzdHMhIQ==";
    let now = server.now() / 1_000;
    for (secret, seconds, status) in
        [(other, now, 401), (SECRET, now - 301, 401), (SECRET, now, 200)]
    {
        let (timestamp, signature) = signed(secret, seconds);
        let headers = [
            ("webhook-id", "x1"),
            ("webhook-timestamp", timestamp.as_str()),
            ("webhook-signature", signature.as_str()),
        ];
        assert_eq!(post(&headers, &body).status, status, "{secret} {seconds}");
    }
    let key = bearer();
    let key = [(key.0, key.1.as_str())];
    for (body, status, error) in [
        ("{", 400, "malformed_json"),
        ("{\"id\":\"b\",\"alert\":\"x\"}", 400, "no_such_field"),
        ("{\"id\":\"b\",\"kind\":\"won\"}", 400, "missing_field"),
        ("{\"id\":\"b\",\"kind\":\"won\",\"alert_id\":\"msg_none\"}", 404, "unknown"),
        ("{\"id\":\"b\",\"kind\":\"won\",\"lead\":\"L0000000000000001\"}", 404, "unknown"),
    ] {
        let answer = post(&key, body);
        assert_eq!((answer.status, &answer.json()["error"]), (status, &json!(error)), "{body}");
    }
    let huge = format!("{{\"id\":\"{}\"}}", "x".repeat(70_000));
    assert_eq!(
        Client::new(server.collector())
            .send("POST", "/s/feedback", &key, huge.as_bytes())
            .unwrap()
            .status,
        413
    );
    assert_eq!(stage(&server), "accepted");
    assert_eq!(server.figure("mikomi_feedback_refused_total{reason=\"not_allowed\"}"), 4);
    assert_eq!(server.figure("mikomi_feedback_total{kind=\"contacted\",outcome=\"applied\"}"), 1);
}

#[test]
fn a_link_that_is_not_ours_shows_nothing_and_does_nothing() {
    let receiver = Receiver::start();
    let server = started(&receiver);
    story_two(&server);
    let accept = path_of(&hot_alert(&receiver)["links"]["accept"]);
    let other = accept.replacen("/f/a.", "/f/r.", 1);
    for path in [other.as_str(), "/f/", "/f/a.x.y", "/f/%00"] {
        for method in ["GET", "POST"] {
            assert_eq!(tap(&server, method, path, b"").status, 404, "{method} {path}");
        }
    }
    assert_eq!(tap(&server, "PUT", &accept, b"").status, 405);
    let long = format!("reason={}", "x".repeat(2_000));
    assert_eq!(tap(&server, "POST", &accept, long.as_bytes()).status, 400);
    assert_eq!(stage(&server), "hot");
    server.to("2027-04-01 09:00");
    assert_eq!(tap(&server, "GET", &accept, b"").status, 404, "too old");
}
