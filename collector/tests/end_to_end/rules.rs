//! Changing the rules holds no surprise, a closed gate opens later, and a message can be followed
//! back to each hit.

use std::fs;

use serde_json::{Value, json};

use crate::support::browser::{Browser, server_call};
use crate::support::server::{RULES, Server};
use crate::support::story::{TANAKA, drain, reads, story_two};
use crate::support::{about, at, wait_for};
use crate::{kinds, told};

const STUDENT: &str = "yamamoto@univ.ac.jp";

fn dearer() -> String {
    let cheap = "id = \"pricing\", points = 12";
    assert_eq!(RULES.matches(cheap).count(), 1);
    RULES.replace(cheap, "id = \"pricing\", points = 13")
}

/// Saves the rules and waits until they are in force.
pub fn save(server: &Server, text: &str) -> u64 {
    let before = server.get("/api/rules")["version"].as_u64().unwrap();
    fs::write(server.config().join("scoring.toml"), text).unwrap();
    server.post("/api/reload", &Value::Null);
    wait_for("the saved rules", || {
        let version = server.get("/api/rules")["version"].as_u64().unwrap();
        (version > before).then_some(version)
    })
}

#[test]
fn a_change_of_the_rules_is_tried_published_rescored_held_told_and_rolled_back() {
    let (server, receiver) = told("2026-12-01 08:00");
    reads(&server);
    server.to("2026-12-04 10:00");
    about(&server.exact(TANAKA), 59.365);
    let hash = server.get("/api/state")["hash"].clone();

    let tried = server.ask("POST", "/api/rules/what-if", dearer().as_bytes());
    assert_eq!(tried.status, 200, "{}", tried.text());
    let tried = tried.json();
    assert_eq!((&tried["in_count"], &tried["out_count"]), (&json!(1), &json!(0)), "{tried}");
    let turned = &tried["in"][0];
    about(&turned["before"], 59.365);
    about(&turned["after"], 60.364);
    let says = turned["says"].as_str().unwrap();
    assert!(
        says.contains("59.365 becomes 60.36") && says.contains("because Viewed pricing +1"),
        "{says}"
    );
    assert_eq!(server.get("/api/state")["hash"], hash, "nothing changed");

    save(&server, &dearer());
    about(&server.exact(TANAKA), 59.365);
    assert_eq!(server.lead_by(TANAKA)["stage"]["id"], "warm");

    let rescored = server.step("/api/rules/rescore", json!({}));
    assert_eq!((&rescored["in_count"], &rescored["scores_changed"]), (&json!(1), &json!(1)));
    about(&server.exact(TANAKA), 60.364);
    assert_eq!(server.lead_by(TANAKA)["stage"]["id"], "hot");
    let held = wait_for("who is held", || {
        let held = server.get("/api/rules/held")["held"].as_array().unwrap().clone();
        (!held.is_empty()).then_some(held)
    });
    assert_eq!((held.len(), &held[0]["email"]), (1, &json!(TANAKA)));
    drain(&server, &receiver, 1);
    assert!(receiver.about(TANAKA).is_empty(), "nobody is told");

    let done = server.step("/api/rules/held", json!({ "tell": true }));
    assert_eq!(done["leads"].as_array().unwrap().len(), 1);
    let hot = receiver.wait_about(TANAKA, 1).remove(0);
    assert_eq!(hot.json()["data"]["crossing"]["opened_by"], "rules");
    assert_eq!(server.get("/api/rules/held")["held"], json!([]));
    let id = server.lead_id(TANAKA);
    let then = server.get(&format!("/api/leads/{id}/score?at={}", at("2026-12-04 09:50")));
    about(&then["exact"], 59.382);

    save(&server, RULES);
    server.step("/api/rules/rescore", json!({}));
    assert_eq!(server.lead_by(TANAKA)["stage"]["id"], "warm");
    let back = receiver.wait_about(TANAKA, 2).remove(1).json();
    assert_eq!(back["type"], "alert.retracted");
    assert_eq!(back["data"]["retracts"], hot.header("webhook-id"));
    drain(&server, &receiver, 2);
    assert_eq!(kinds(&receiver.about(TANAKA)), ["lead.hot", "alert.retracted"]);
}

#[test]
fn a_file_with_a_wrong_word_leaves_the_old_rules_in_force_and_names_the_right_one() {
    let (server, _receiver) = told("2026-12-01 08:00");
    let before = server.get("/api/rules")["version"].clone();
    let wrong = RULES.replace("{ half_life = \"14d\"", "{ half_lif = \"14d\"");
    fs::write(server.config().join("scoring.toml"), &wrong).unwrap();
    server.post("/api/reload", &Value::Null);
    let problem = wait_for("the problem", || {
        let problems = server.get("/api/problems")["problems"].as_array().unwrap().clone();
        Some(problems.first()?.as_str().unwrap().to_owned())
    });
    assert!(problem.starts_with("scoring.toml:7:14: unknown word"), "{problem}");
    assert!(problem.ends_with("did you mean \"half_life\"?"), "{problem}");
    assert_eq!(server.get("/api/rules")["version"], before);
    let tried = server.ask("POST", "/api/rules/what-if", wrong.as_bytes());
    assert_eq!((tried.status, &tried.json()["about"][0]["line"]), (422, &json!(7)));
}

#[test]
fn a_gate_that_opens_later_lets_a_lead_in_at_that_moment() {
    let (server, receiver) = told("2026-12-07 09:00");
    let mut student = Browser::returning(&server, 1);
    server.to("2026-12-07 09:59");
    student.identify(STUDENT, &json!({ "title": "学生", "industry": "education" }));
    server.to("2026-12-07 10:00");
    student.page("/pricing/", "");
    server.pass_ms(70_000);
    student.stay(70);
    for (time, path) in [("10:05", "/thanks/document/guide"), ("10:08", "/thanks/event/dx")] {
        server.to(&format!("2026-12-07 {time}"));
        student.page(path, "");
    }
    server.to("2026-12-07 10:10");
    student.page("/case/line", "");
    server.pass_ms(70_000);
    student.stay(70);
    for (time, path) in [("10:12", "/product/a"), ("10:13", "/product/b"), ("10:14", "/product/c")]
    {
        server.to(&format!("2026-12-07 {time}"));
        student.page(path, "");
    }
    about(&server.exact(STUDENT), 66.985);
    let why = server.get(&format!("/api/leads/{}/why", server.lead_id(STUDENT)));
    let hot = why["thresholds"].as_array().unwrap().iter().find(|it| it["threshold"] == "hot");
    let says = hot.unwrap()["says"].as_str().unwrap();
    assert!(says.starts_with("score 66 of 60 yes, grade D no"), "{says}");
    drain(&server, &receiver, 1);
    assert!(receiver.about(STUDENT).is_empty());
    server.to("2026-12-07 16:00");
    let correction = json!({
        "s": "www", "e": "identify",
        "id": { "email": STUDENT, "attributes": { "title": "取締役", "employees": "300" } },
    });
    assert_eq!(server_call(&server, &correction).status, 204);
    let hot = receiver.wait_about(STUDENT, 1).remove(0).json();
    assert_eq!((&hot["type"], &hot["data"]["score"]["grade"]), (&json!("lead.hot"), &json!("C")));
    about(&hot["data"]["score"]["exact"], 66.388);
    assert_eq!(hot["data"]["crossing"]["opened_by"], "grade");
}

#[test]
fn a_trigger_does_not_wait_for_the_cool_down_and_carries_the_escalation() {
    let (server, receiver) = told("2026-12-01 08:00");
    let mut her = story_two(&server);
    receiver.wait_about(TANAKA, 1);
    server.to("2026-12-08 15:00");
    her.page("/thanks/contact/ok", "");
    let lead = server.lead_by(TANAKA);
    about(&lead["exact"], 99.271);
    let rows = lead["score"]["rows"].as_array().unwrap();
    let quote = rows.iter().find(|row| row["rule"] == "contact").unwrap();
    assert_eq!((&quote["granted"], &quote["cut"]), (&json!(27.0), &json!("total_max")));
    let action = receiver.wait_about(TANAKA, 2).remove(1).json();
    assert_eq!(
        (&action["type"], &action["data"]["also"]),
        (&json!("lead.action"), &json!(["escalated"]))
    );
    assert_eq!(action["data"]["crossing"], Value::Null);
    assert_eq!(
        action["data"]["headline"]["en"],
        "Asked for a quote: 田中 恵, サンプル精機株式会社"
    );
    server.to("2026-12-08 16:00");
    her.page("/thanks/contact/ok", "");
    let rows = server.lead_by(TANAKA)["score"]["rows"].as_array().unwrap().clone();
    let again = rows.iter().rfind(|row| row["rule"] == "contact").unwrap();
    assert_eq!((&again["granted"], &again["cut"]), (&json!(0.0), &json!("already_counted")));
    drain(&server, &receiver, 1);
    assert_eq!(kinds(&receiver.about(TANAKA)), ["lead.hot", "lead.action"]);
}

#[test]
fn a_message_is_followed_back_to_each_hit_rule_cut_and_tie() {
    let (server, receiver) = told("2026-12-01 08:00");
    story_two(&server);
    let hot = receiver.wait_about(TANAKA, 1).remove(0);
    let alert = hot.header("webhook-id");
    let explained = server.get(&format!("/api/alerts/{alert}/explain"));
    assert_eq!(
        (&explained["type"], &explained["opened_by"]),
        (&json!("lead.hot"), &json!("score"))
    );
    about(&explained["exact"], 69.923);
    assert_eq!(explained["rows_add_up_to"], explained["exact"], "to the thousandth");
    assert_eq!(explained["cause"]["path"], "/pricing");
    let rows = explained["rows"].as_array().unwrap();
    for row in rows {
        assert_eq!(row["hit"]["when"], row["when"], "{row}");
        assert_eq!(
            (&row["rules_version"], &row["link"]["assurance"]),
            (&json!(1), &json!("verified"))
        );
        assert!(row["position"].as_u64().unwrap() > 0);
    }
    let cuts: Vec<&Value> = rows.iter().filter(|row| row["cut"] != "none").collect();
    assert!(cuts.iter().all(|row| row["granted"] == 0.0), "{cuts:?}");
    let (text, well) = {
        let output = server.asking(&["explain", alert]).output().unwrap();
        (String::from_utf8(output.stdout).unwrap(), output.status.success())
    };
    assert!(well && text.contains("lead.hot about 田中 恵"), "{text}");
    assert!(text.lines().any(|line| line.contains("pricing (12 of 12), record")), "{text}");
    let unknown = server.ask("GET", "/api/alerts/msg_0000000000000000000000/explain", b"");
    assert_eq!(unknown.status, 404);
}

#[test]
fn stories_are_played_with_the_saved_rules_and_say_what_is_not_so() {
    let (server, _receiver) = told("2026-12-01 08:00");
    let (text, well) = server.command(&["rules", "test"]);
    let compiled_in = "ok     A reader becomes hot, and sales hears once (11 as told)\n";
    assert!(well && text.starts_with(compiled_in), "none are in the folder: {text}");
    let stories = server.config().join("stories.toml");
    let told = |score: u32| {
        format!(
            "[[story]]\nname = \"pricing\"\nsteps = [\n\
             {{ at = \"2026-12-07 10:00\", page = \"/pricing/\", score = {score} }},\n]\n"
        )
    };
    fs::write(&stories, told(12)).unwrap();
    let (text, well) = server.command(&["rules", "test"]);
    assert!(well && text == "ok     pricing (1 as told)\n", "{text}");
    fs::write(&stories, told(13)).unwrap();
    let (text, well) = server.command(&["rules", "test"]);
    let expected = "FAILED pricing (0 as told)\n       line 4: the score is 12.000, not 13.000\n\
                    mikomi: 1 of 1 stories are not so\n";
    assert!(!well && text == expected, "{text}");
    // Other rules, another truth; nothing is in force by that.
    fs::write(server.config().join("scoring.toml"), dearer()).unwrap();
    let (text, well) = server.command(&["rules", "test"]);
    assert!(well, "{text}");
}
