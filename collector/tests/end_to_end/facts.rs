//! Facts that keep messages from being silly: a trial, a registration, a deal, who is not to be
//! written to. Servers state them; browsers only claim.

use serde_json::{Value, json};

use crate::support::browser::{Browser, server_call};
use crate::support::receiver::{Received, Receiver};
use crate::support::server::{RULES, Server, Setup};
use crate::support::story::{TANAKA, drain, form};
use crate::support::{at, wait_for};

const MONDAY: &str = "2026-12-07 09:00";
const OTHER: &str = "suzuki@other.example";

fn state(server: &Server, email: &str, facts: &Value) -> Value {
    let answer = server.post(
        "/api/attributes",
        &json!({ "site": "www", "email": email, "attributes": facts, "silent": true }),
    );
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn kinds(receiver: &Receiver, email: &str) -> Vec<String> {
    receiver.all_about(email).iter().map(Received::kind).collect()
}

/// The rules that ship, with an audience for events and one line that mailers hear of.
fn rules() -> String {
    let event = "category = \"interest\", max = 30, once_per = \"day\", when = { path = \
                 [\"/thanks/event/**\", \"/thanks/campaign/**\"] }";
    assert!(RULES.contains(event));
    let told = event.replace("max = 30,", "max = 30, tell = \"sales\",");
    let document = "category = \"intent\", max = 40, once_per = \"day\", when";
    assert!(RULES.contains(document));
    RULES
        .replace(event, &told)
        .replace(document, &document.replace("once_per", "tell = \"mailer\", once_per"))
}

fn started(receivers: &[(&Receiver, &str, &str)]) -> Server {
    let endpoints: Vec<String> =
        receivers.iter().map(|(receiver, id, more)| receiver.endpoint(id, more)).collect();
    let mut setup = Setup::new(at(MONDAY), &endpoints);
    setup.scoring = rules();
    Server::start(&setup)
}

#[test]
fn a_trial_that_runs_is_no_news_and_one_that_is_over_is() {
    let sfa = Receiver::start();
    let server = started(&[(&sfa, "sfa", "audience = [\"sales\"]\n")]);
    let mut her = Browser::returning(&server, 1);
    her.identify(TANAKA, &form());
    state(&server, TANAKA, &json!({ "trial_until": "2026-12-31" }));
    her.page("/thanks/trial/pro", "");
    let mut other = Browser::returning(&server, 2);
    other.form(OTHER, &form(), "/thanks/trial/pro", "");
    sfa.wait_about(OTHER, 1);
    drain(&server, &sfa, 1);
    assert_eq!(kinds(&sfa, TANAKA), [""; 0]);
    assert_eq!(kinds(&sfa, OTHER), ["lead.action"]);

    let held = server.get("/api/deliveries")["held_back"].clone();
    let id = server.lead_id("tanaka");
    assert_eq!(held.as_array().unwrap().len(), 1);
    assert_eq!(
        (&held[0]["lead"], &held[0]["type"], &held[0]["by"], &held[0]["endpoints"]),
        (&json!(id), &json!("lead.action"), &json!("trial"), &json!(["sfa"]))
    );
    assert_eq!(server.get(&format!("/api/leads/{id}/why"))["held_back"], held);
    let others = server.lead_id("suzuki");
    assert_eq!(server.get(&format!("/api/leads/{others}/why"))["held_back"], json!([]));
    assert!(held_back(&server, "trial") == 1 && held_back(&server, "do_not_send") == 0);
    let alert = held[0]["alert"].as_str().unwrap();
    let explained = server.get(&format!("/api/alerts/{alert}/explain"));
    assert_eq!(explained["type"], "lead.action", "what was held back can be explained too");

    let pulled = server.get("/api/alerts")["alerts"].clone();
    let pulled = pulled.as_array().unwrap().iter();
    assert!(pulled.clone().any(|alert| alert["data"]["lead"]["email"] == OTHER));
    assert!(pulled.clone().all(|alert| alert["data"]["lead"]["email"] != TANAKA), "nor pulled");

    // Half a year later the rule counts again, and the trial is long over.
    server.to("2027-07-01 09:00");
    let mut again = Browser::returning(&server, 3);
    again.form(TANAKA, &form(), "/thanks/trial/pro", "");
    sfa.wait_about(TANAKA, 1);
}

fn held_back(server: &Server, by: &str) -> u64 {
    server.figure(&format!("mikomi_alerts_held_back_total{{by=\"{by}\"}}"))
}

/// Both start a trial; that she has one already is known.
fn both_start_a_trial(server: &Server) {
    for (number, email) in [(1, TANAKA), (2, OTHER)] {
        let mut browser = Browser::returning(server, number);
        browser.identify(email, &form());
        if email == TANAKA {
            state(server, TANAKA, &json!({ "trial_until": "2026-12-31" }));
        }
        browser.page("/thanks/trial/pro", "");
    }
}

#[test]
fn nobody_is_reminded_of_what_nobody_heard() {
    let sfa = Receiver::start();
    let server = started(&[(&sfa, "sfa", "audience = [\"sales\"]\n")]);
    both_start_a_trial(&server);
    // Four working hours later.
    server.to("2026-12-07 13:00");
    server.settle("tanaka");
    wait_for("his reminder", || (sfa.all_about(OTHER).len() == 2).then_some(()));
    drain(&server, &sfa, 1);
    assert_eq!(kinds(&sfa, OTHER), ["lead.action", "lead.reminder"]);
    assert_eq!(kinds(&sfa, TANAKA), [""; 0]);
    let id = server.lead_id("tanaka");
    let held = server.get(&format!("/api/leads/{id}/why"))["held_back"].clone();
    let types: Vec<&Value> = held.as_array().unwrap().iter().map(|row| &row["type"]).collect();
    assert_eq!(types, ["lead.reminder", "lead.action"]);

    // What she asks for besides is told, and reminded of.
    server.to("2026-12-08 10:00");
    Browser::returning(&server, 3).form(TANAKA, &form(), "/thanks/contact/ok", "");
    sfa.wait_about(TANAKA, 1);
    server.to("2026-12-08 14:00");
    wait_for("her reminder", || (sfa.all_about(TANAKA).len() == 2).then_some(()));
    assert_eq!(kinds(&sfa, TANAKA), ["lead.hot", "lead.reminder"]);
}

#[test]
fn what_nobody_heard_is_not_taken_back() {
    let sfa = Receiver::start();
    let server = started(&[(&sfa, "sfa", "audience = [\"sales\"]\n")]);
    both_start_a_trial(&server);
    sfa.wait_about(OTHER, 1);
    server.step("/api/withdraw", json!({ "from": at(MONDAY) }));
    sfa.wait_about(OTHER, 2);
    drain(&server, &sfa, 1);
    assert_eq!(kinds(&sfa, OTHER), ["lead.action", "alert.retracted"]);
    assert_eq!(kinds(&sfa, TANAKA), [""; 0]);
    assert_eq!(held_back(&server, "trial"), 2);
}

#[test]
fn what_was_held_back_is_known_after_a_crash_and_not_told_then() {
    let sfa = Receiver::start();
    let mut server = started(&[(&sfa, "sfa", "audience = [\"sales\"]\n")]);
    let mut her = Browser::returning(&server, 1);
    her.identify(TANAKA, &form());
    state(&server, TANAKA, &json!({ "trial_until": "2026-12-31T18:00:00+09:00" }));
    her.page("/thanks/trial/pro", "");
    let deliveries = || server.get("/api/deliveries")["held_back"].clone();
    let held = wait_for("it is held back", || {
        Some(deliveries()).filter(|held| held.as_array().unwrap().len() == 1)
    });
    server.kill();
    server.restart();
    assert_eq!(server.get("/api/deliveries")["held_back"], held);
    state(&server, TANAKA, &json!({ "trial_until": null }));
    drain(&server, &sfa, 1);
    assert_eq!(kinds(&sfa, TANAKA), [""; 0]);
}

#[test]
fn an_event_that_somebody_is_registered_for_is_no_news_and_another_is() {
    let sfa = Receiver::start();
    let server = started(&[(&sfa, "sfa", "audience = [\"sales\"]\n")]);
    let mut her = Browser::returning(&server, 1);
    her.identify(TANAKA, &form());
    state(&server, TANAKA, &json!({ "registered_events": ["Spring", "展示会"] }));
    her.page("/thanks/event/spring", "");
    server.to("2026-12-08 09:00");
    her.page("/thanks/event/autumn", "");
    let told = sfa.wait_about(TANAKA, 1).remove(0).json();
    assert_eq!(
        told["data"]["because"]["page"]["url"],
        "https://www.vendor.example/thanks/event/autumn"
    );
    server.to("2026-12-09 09:00");
    her.page("/thanks/event/ok", "展示会");
    drain(&server, &sfa, 1);
    assert_eq!(kinds(&sfa, TANAKA), ["lead.action", "lead.reminder"]);
    assert_eq!(held_back(&server, "registered_events"), 3, "two, and the reminder of the first");
}

#[test]
fn what_a_customer_asks_for_is_news_about_a_customer_and_no_new_lead() {
    let sfa = Receiver::start();
    let server = started(&[(&sfa, "sfa", "audience = [\"sales\"]\n")]);
    let third = "sato@third.example";
    for (number, email, fact) in [
        (1, TANAKA, json!({ "customer": true })),
        (2, OTHER, json!({ "open_deal": "D-7" })),
        (3, third, json!({ "customer": false, "open_deal": null })),
    ] {
        state(&server, email, &fact);
        Browser::returning(&server, number).form(email, &form(), "/thanks/contact/ok", "");
    }
    drain(&server, &sfa, 1);
    assert_eq!(kinds(&sfa, TANAKA), ["lead.signal"]);
    assert_eq!(kinds(&sfa, OTHER), ["lead.signal"]);
    assert_eq!(kinds(&sfa, third), ["lead.hot"]);
}

#[test]
fn whoever_is_not_to_be_written_to_is_hidden_from_the_mailer_and_shown_to_sales() {
    let (sfa, mailer, all) = (Receiver::start(), Receiver::start(), Receiver::start());
    let server = started(&[
        (&sfa, "sfa", "audience = [\"sales\"]\n"),
        (&mailer, "mailer", "audience = [\"mailer\"]\n"),
        (&all, "all", ""),
    ]);
    let quiet = ["a@quiet.example", "b@list.example", "c@sub.domain.example"];
    std::fs::create_dir_all(server.config().join("lists")).unwrap();
    let list = "# nobody writes to these\nB@list.example\ndomain.example\n";
    std::fs::write(server.config().join("lists/do_not_send.txt"), list).unwrap();
    let mut people: Vec<Browser> =
        (1..=4).map(|number| Browser::returning(&server, number)).collect();
    for (browser, email) in people.iter_mut().zip(quiet.iter().chain(&[OTHER])) {
        browser.identify(email, &form());
    }
    state(&server, quiet[0], &json!({ "do_not_send": true }));
    server.post("/api/reload", &json!({}));
    let mut probes = 100;
    wait_for("the list is read", || {
        probes += 1;
        let mut probe = Browser::returning(&server, probes);
        let email = format!("p{probes}@probe.domain.example");
        probe.form(&email, &form(), "/thanks/document/guide", "");
        (held_back(&server, "do_not_send") > 0).then_some(())
    });
    assert_eq!(server.get("/api/problems")["problems"], json!([]));
    for browser in &mut people {
        browser.page("/thanks/document/guide", "");
    }
    mailer.wait_about(OTHER, 1);
    for browser in &mut people {
        browser.page("/thanks/contact/ok", "");
    }
    drain(&server, &sfa, 1);
    assert_eq!(kinds(&mailer, OTHER), ["lead.action"]);
    for email in quiet {
        assert_eq!(kinds(&mailer, email), [""; 0], "{email}");
        assert_eq!(kinds(&sfa, email), ["lead.hot"], "{email}");
        assert_eq!(kinds(&all, email), ["lead.hot"], "{email}");
    }
}

#[test]
fn a_merge_is_told_to_everybody_but_who_is_not_to_hear_of_the_person() {
    let (mailer, both) = (Receiver::start(), Receiver::start());
    let server = started(&[
        (&mailer, "mailer", "audience = [\"mailer\"]\n"),
        (&both, "both", "audience = [\"mailer\", \"sales\"]\n"),
    ]);
    for email in [TANAKA, "m.tanaka@sample-seiki.example"] {
        state(&server, email, &json!({ "do_not_send": ["mailer"] }));
    }
    let lead = |email: &str| server.lead_by(email)["id"].as_str().unwrap().to_owned();
    let (one, other) = (lead(TANAKA), lead("m.tanaka@sample-seiki.example"));
    server.step("/api/merge", json!({ "one": one, "other": other }));
    wait_for("the merge is told", || both.all().into_iter().find(|it| it.kind() == "lead.merged"));
    let held = server.get("/api/deliveries")["held_back"].clone();
    assert_eq!(
        (&held[0]["type"], &held[0]["by"], &held[0]["endpoints"]),
        (&json!("lead.merged"), &json!("do_not_send"), &json!(["mailer"]))
    );
    assert_eq!(mailer.all().len(), 0);
}

#[test]
fn facts_are_stated_by_servers_checked_and_taken_back() {
    let sfa = Receiver::start();
    let server = started(&[(&sfa, "sfa", "")]);
    let facts = || server.lead_by(TANAKA)["facts"].clone();
    let said = json!({
        "trial_until": "2026-12-31T18:00:00+09:00", "registered_events": ["春", "DX, 2026"],
        "customer": true, "open_deal": "SFA-3", "do_not_send": ["mailer", "hr"],
    });
    assert_eq!(state(&server, TANAKA, &said)["kept"], 1);
    let stands = json!({
        "trial_until": "2026-12-31T09:00:00.000Z", "registered_events": ["春", "DX, 2026"],
        "customer": true, "open_deal": "SFA-3", "do_not_send": ["hr", "mailer"],
    });
    assert_eq!(facts(), stands);
    let attributes = server.lead_by(TANAKA)["attributes"].clone();
    assert_eq!(
        (&attributes["customer"], &attributes["open_deal"]),
        (&json!("yes"), &json!("SFA-3"))
    );

    // One fact that cannot be read refuses the card by the fact's name, and changes nothing.
    for (name, wrong) in [
        ("trial_until", json!("soon")),
        ("registered_events", json!([""])),
        ("registered_events", json!(vec!["x"; 33])),
        ("registered_events", json!(["x".repeat(101)])),
        ("customer", json!("perhaps")),
        ("open_deal", json!(true)),
        ("do_not_send", json!(["h r"])),
    ] {
        let said = json!({ name: wrong });
        let card = json!({ "site": "www", "email": TANAKA, "attributes": said });
        let answer = server.post("/api/attributes", &card);
        assert_eq!(answer.status, 400, "{name}: {}", answer.text());
        assert_eq!(answer.json()["about"], format!("attributes.{name}"));
        let cards = json!({ "site": "www", "cards": [{ "email": TANAKA, "attributes": said }] });
        let answer = server.post("/api/import", &cards).json();
        let about = format!("attributes.{name}");
        let rejected = json!([{ "card": 0, "error": "malformed_field", "about": about }]);
        assert_eq!(answer["rejected"], rejected);
        let who = json!({ "email": TANAKA, "attributes": said });
        let hit = json!({ "s": "www", "e": "identify", "id": who });
        let answer = server_call(&server, &hit);
        assert_eq!(answer.status, 400);
        assert_eq!(answer.header("mikomi-rejected"), Some("1 malformed_field=1"));
    }
    assert_eq!(facts(), stands);

    // Not said is as it was; null takes back.
    state(&server, TANAKA, &json!({ "customer": false }));
    state(
        &server,
        TANAKA,
        &json!({ "trial_until": null, "open_deal": null, "do_not_send": false }),
    );
    let left = json!({
        "trial_until": null, "registered_events": ["春", "DX, 2026"], "customer": false,
        "open_deal": null, "do_not_send": [],
    });
    assert_eq!(facts(), left);
}

#[test]
fn a_browser_s_word_about_a_fact_is_not_heard_and_counted() {
    let sfa = Receiver::start();
    let server = started(&[(&sfa, "sfa", "")]);
    let mut her = Browser::returning(&server, 1);
    let claimed = json!({
        "name": "田中 恵", "customer": "ACME", "do_not_send": [[]], "open_deal": "none",
        "trial_until": "2030-01-01", "registered_events": { "a": 1 },
    });
    her.identify(TANAKA, &claimed);
    let lead = server.lead_by(TANAKA);
    assert_eq!(lead["attributes"], json!({ "email": TANAKA, "name": "田中 恵" }));
    assert_eq!(lead["facts"]["trial_until"], Value::Null);
    assert_eq!(server.figure("mikomi_dropped_facts_total{reason=\"server_only\"}"), 5);
    assert_eq!(server.figure("mikomi_rejected_hits_total"), 0);
}
