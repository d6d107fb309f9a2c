//! Requests of the admin side do what they say, or nothing: what is written wrongly is refused by
//! name and never taken for something else.

use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::http::Client;
use crate::support::server::{Server, Setup};
use crate::support::story::drain;
use crate::support::{at, wait_for};
use crate::told;

const A: &str = "a@first.example";
const B: &str = "b@second.example";
const MONDAY: &str = "2026-12-07 09:00";

fn alone() -> Server {
    Server::start(&Setup::new(at(MONDAY), &[]))
}

/// A request that must be refused: its status, its error and what that is about.
#[track_caller]
fn refused(server: &Server, path: &str, wish: &Value) -> (u16, String, String) {
    let answer = server.post(path, wish);
    let says = answer.json();
    let text = |field: &str| says[field].as_str().unwrap_or_default().to_owned();
    (answer.status, text("error"), text("about"))
}

fn malformed(about: &str) -> (u16, String, String) {
    (400, "malformed".to_owned(), about.to_owned())
}

#[test]
fn a_withdrawal_takes_what_was_asked_and_refuses_what_it_cannot_read() {
    let server = alone();
    let mut browser = Browser::returning(&server, 1);
    browser.identify(A, &json!({}));
    browser.page("/pricing/", "");
    let before = server.exact(A);
    server.to("2026-12-07 14:00");
    browser.page("/thanks/document/guide", "");
    let both = server.exact(A);
    let lead = server.lead_by(A)["id"].clone();
    for (field, wrong) in [
        ("from", json!(true)),
        ("from", json!("noon")),
        ("agent", json!(7)),
        ("network", json!(7)),
        ("visitor", json!(7)),
    ] {
        let mut wish = json!({ "lead": lead, "actor": "a", "reason": "b" });
        wish[field] = wrong;
        assert_eq!(refused(&server, "/api/withdraw", &wish), malformed(field), "{wish}");
    }
    let misspelt = json!({ "lead": lead, "form": at(MONDAY), "actor": "a", "reason": "b" });
    let about = malformed("there is no field \"form\" here");
    assert_eq!(refused(&server, "/api/withdraw", &misspelt), about);
    assert_eq!(server.exact(A), both, "nothing was withdrawn");

    // A moment that is a number holds as well as one that is a text.
    for from in [json!(at("2026-12-07 12:00")), json!("2026-12-07T12:00:00+09:00")] {
        let taken = server.step("/api/withdraw", json!({ "lead": lead, "from": from }));
        assert_eq!(taken["hits"], 1, "{from}");
        server.step("/api/undo", json!({ "position": taken["position"] }));
        assert_eq!(server.exact(A), both);
    }
    let taken = server.step(
        "/api/withdraw",
        json!({ "lead": lead, "from": at("2026-12-07 12:00"), "until": at("2026-12-07 15:00") }),
    );
    server.to("2026-12-07 16:00");
    assert_eq!(taken["hits"], 1);
    let then = server.get(&format!(
        "/api/leads/{}/score?at={}&knowing=now",
        lead.as_str().unwrap(),
        at("2026-12-07 09:00")
    ));
    assert_eq!(then["exact"], before, "what came before stays");
}

#[test]
fn wishes_of_another_type_or_an_unknown_word_are_refused_by_name() {
    let server = alone();
    let to = json!([{ "email": A }]);
    let link = |field: &str, value: Value| {
        let url = "https://www.vendor.example/lp";
        let mut wish = json!({ "site": "www", "mail": "m", "url": url, "to": to });
        wish[field] = value;
        wish
    };
    for (path, wish, field) in [
        ("/api/mail-links", link("uses", json!("1")), "uses"),
        ("/api/mail-links", link("days", json!("7")), "days"),
        ("/api/mail-links", link("test", json!("true")), "test"),
        ("/api/mail-links", link("landing", json!("false")), "landing"),
        ("/api/mail-links", link("to", json!([{ "email": A, "uses": 1 }])), "to"),
        ("/api/identify", json!({ "site": "www", "email": A, "silent": "true" }), "silent"),
        ("/api/identify", json!({ "site": "www", "email": A, "at": "noon" }), "at"),
        ("/api/identify", json!({ "site": "www", "test": 1, "email": A }), "test"),
        ("/api/import", json!({ "site": "www", "email": A }), "cards"),
        ("/api/undo", json!({ "position": "7", "actor": "a", "reason": "b" }), "position"),
        ("/api/rules/rescore", json!({ "days": "7", "actor": "a", "reason": "b" }), "days"),
        ("/api/rules/held", json!({ "tell": "no", "actor": "a", "reason": "b" }), "tell"),
        ("/api/deliveries/resend", json!({ "endpoint": "x", "since_ms": "noon" }), "since_ms"),
    ] {
        assert_eq!(refused(&server, path, &wish), malformed(field), "{path} {wish}");
    }
    let (visitor, lead) = (format!("V{:032x}", 1), format!("L{:016x}", 1));
    let tie = json!({
        "visitor": visitor, "lead": lead, "assurance": "Claimed", "actor": "a", "reason": "b",
    });
    assert_eq!(refused(&server, "/api/link", &tie), malformed("assurance"));
    for (path, wish) in [
        ("/api/identify", json!({ "site": "www", "email": A, "naem": "x" })),
        ("/api/identify", json!({ "site": "www", "naem": "x", "cards": [] })),
        ("/api/reload", json!({ "naem": true })),
    ] {
        let about = malformed("there is no field \"naem\" here");
        assert_eq!(refused(&server, path, &wish), about, "{path} {wish}");
    }
    let beside = json!({ "site": "www", "level": "company", "cards": [{ "email": A }] });
    let about = malformed("there is no field \"level\" here");
    assert_eq!(refused(&server, "/api/identify", &beside), about, "it would be said of none");
    assert_eq!(server.get("/api/state")["leads"], 0, "nothing was kept");
}

#[test]
fn a_card_says_when_as_text_is_silent_by_itself_and_is_refused_alone() {
    let (server, receiver) = told("2026-12-07 09:00");
    let asked = |email: &str, silent: bool| {
        json!({
            "email": email, "event": "page_view", "silent": silent,
            "url": "https://www.vendor.example/thanks/contact/ok", "at": "2026-12-06T23:56:00Z",
        })
    };
    let cards = json!([
        asked("silent@x.example", true),
        { "email": "b@x.example", "silent": "true" },
        asked("told@x.example", false),
        { "email": "c@x.example", "nmae": "C" },
        { "email": "null" },
    ]);
    let answer = server.post("/api/identify", &json!({ "site": "www", "cards": cards }));
    assert_eq!(
        answer.json(),
        json!({ "schema": 1, "kept": 2, "rejected": [
            { "card": 1, "error": "malformed_field", "about": "silent" },
            { "card": 3, "error": "malformed_field", "about": "nmae" },
            { "card": 4, "error": "identity_garbage" },
        ]})
    );
    let rows = server.lead_by("silent@x.example")["score"]["rows"].clone();
    assert_eq!(rows[0]["when"], "2026-12-06T23:56:00.000Z");
    receiver.wait_about("told@x.example", 1);
    drain(&server, &receiver, 1);
    assert!(receiver.about("silent@x.example").is_empty());
}

#[test]
fn more_cards_than_a_request_may_bring_are_refused_and_none_is_kept() {
    let server = alone();
    let cards: Vec<Value> = (0..10_001).map(|_| json!({})).collect();
    let wish = json!({ "site": "www", "cards": cards });
    for path in ["/api/identify", "/api/import", "/api/attributes"] {
        let (status, error, about) = refused(&server, path, &wish);
        assert_eq!((status, error.as_str()), (422, "too_much"), "{path}");
        assert_eq!(about, "more than 10,000 in one list");
    }
    let long = vec![json!({ "email": A, "attributes": { "name": "x".repeat(500) } }); 200];
    let answer = server.post("/api/attributes", &json!({ "site": "www", "cards": long }));
    assert_eq!(answer.json()["kept"], 200, "as much as elsewhere");
}

#[test]
fn the_test_site_s_lead_of_a_name_is_asked_for_by_either_word_and_never_by_another() {
    let server = alone();
    for test in [false, true] {
        let wish = json!({ "site": "www", "test": test, "email": A });
        assert_eq!(server.post("/api/identify", &wish).json()["kept"], 1);
    }
    let of = |more: &str| {
        let found = server.get(&format!("/api/leads/by?site=www&email={A}{more}"));
        found["lead"].as_str().unwrap().to_owned()
    };
    let real = of("");
    assert_eq!((of("&test=0"), of("&test=false")), (real.clone(), real.clone()));
    assert_eq!(of("&test=1"), of("&test=true"));
    assert_ne!(of("&test=true"), real);
    let path = format!("/api/leads/by?site=www&email={A}&test=yes");
    let answer = server.ask("GET", &path, b"");
    assert_eq!((answer.status, &answer.json()["about"]), (400, &json!("test")));
}

#[test]
fn a_step_at_a_position_that_is_not_there_is_not_found() {
    let server = alone();
    for position in [0, 999_999_999] {
        let wish = json!({ "position": position, "actor": "a", "reason": "b" });
        let (status, error, _) = refused(&server, "/api/undo", &wish);
        assert_eq!((status, error.as_str()), (404, "not_found"), "{position}");
    }
}

#[test]
fn a_question_asked_on_every_page_is_listed_once_and_only_its_own_people_are_merged() {
    let (server, _receiver) = told("2026-12-07 09:00");
    for (user, mail) in [("u-1", A), ("u-2", B), ("u-3", "c@third.example")] {
        let wish = json!({ "site": "www", "user_id": user, "email": mail });
        assert_eq!(server.post("/api/identify", &wish).json()["kept"], 1);
    }
    let mut stranger = Browser::returning(&server, 1);
    for _ in 0..5 {
        let hit = stranger.hit(&json!({ "e": "identify", "id": { "user_id": "u-1", "email": B } }));
        assert_eq!(stranger.beacon(hit.to_string().as_bytes()).status, 204);
    }
    let questions = || server.get("/api/review")["questions"].as_array().unwrap().clone();
    let listed = wait_for("all of them to be counted", || {
        let found = questions();
        (found.first()?["asked"][0]["times"] == 5).then_some(found)
    });
    assert_eq!((listed.len(), listed[0]["asked"].as_array().unwrap().len()), (1, 1));
    let id = |mail: &str| server.lead_by(mail)["id"].clone();
    let answer = |question: &Value, more: Value| {
        let mut wish = json!({ "question": question, "actor": "a", "reason": "b" });
        for (name, value) in more.as_object().unwrap() {
            wish[name] = value.clone();
        }
        let answer = server.post("/api/review", &wish);
        (answer.status, answer.json())
    };
    let position = &listed[0]["position"];
    let merge =
        |one: &Value, other: &Value| json!({ "answer": "merge", "one": one, "other": other });
    let (a, b, c) = (id(A), id(B), id("c@third.example"));
    assert_eq!(answer(&json!(999_999), json!({ "answer": "dismiss" })).0, 404);
    assert_eq!(answer(position, json!({ "answer": "yes" })).0, 400);
    assert_eq!(answer(position, merge(&a, &c)).0, 400, "another person");
    assert_eq!(answer(position, merge(&a, &a)).0, 400, "one person");
    assert_eq!((id(A), id(B), questions().len()), (a.clone(), b.clone(), 1), "nothing was done");
    let (status, done) = answer(position, merge(&b, &a));
    assert_eq!((status, &done["left"]), (200, &json!(0)), "{done}");
    assert_eq!(id(A), id(B));
    assert_eq!(questions(), [Value::Null; 0]);
    wait_for("the answer to be read", || {
        (answer(position, json!({ "answer": "dismiss" })).0 == 404).then_some(())
    });
}

#[test]
fn a_body_that_is_too_long_is_refused_in_json_like_everything_else() {
    let server = alone();
    let wish = json!({ "position": 1, "actor": "a", "reason": "x".repeat(70_000) });
    let (status, error, about) = refused(&server, "/api/undo", &wish);
    assert_eq!((status, error.as_str(), about.as_str()), (413, "too_large", "body too large"));
}

#[test]
fn a_message_s_link_leads_to_a_page_with_that_lead_open() {
    let server = alone();
    let wish = json!({ "site": "www", "email": A, "attributes": { "name": "<i>A</i> & Co" } });
    assert_eq!(server.post("/api/identify", &wish).json()["kept"], 1);
    let id = server.lead_by(A)["id"].as_str().unwrap().to_owned();
    let path = format!("/leads/{id}");
    let page = server.ask("GET", &path, b"");
    let text = page.text();
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    assert!(text.contains("&lt;i&gt;A&lt;/i&gt; &amp; Co") && !text.contains("<i>"), "{text}");
    assert!(text.contains(&format!("href=\"/api/leads/{id}/timeline\"")), "{text}");
    assert_eq!(server.ask("GET", "/leads/L0000000000000000", b"").status, 404);
    // Nobody who is not signed in sees more than a way on.
    let answer = Client::new(server.admin).send("GET", &path, &[], b"").unwrap();
    assert_eq!(answer.status, 401);
    let text = answer.text();
    assert!(text.contains(&format!("href=\"{path}\"")) && !text.contains("Co"), "{text}");
}

#[test]
fn an_alert_that_is_not_there_is_named_and_no_token_is_asked_for() {
    let server = alone();
    for wrong in ["msg_0000000000000000000000", "no such/id"] {
        let output = server.asking(&["explain", wrong]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert!(said.starts_with(&format!("mikomi: there is no alert {wrong:?}")), "{said}");
    }
}
