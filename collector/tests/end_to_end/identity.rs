//! Who it was, over HTTP: two people on one computer, one person with two addresses, and every
//! step undone again.

use serde_json::{Value, json};

use crate::support::browser::{Browser, server_call};
use crate::support::server::Server;
use crate::support::story::drain;
use crate::support::{about, at};
use crate::{kinds, told};

const A: &str = "a@first.example";
const B: &str = "b@second.example";

fn rows(server: &Server, email: &str) -> Vec<(String, f64)> {
    let lead = server.lead_by(email);
    let rows = lead["score"]["rows"].as_array().unwrap();
    let row =
        |row: &Value| (row["rule"].as_str().unwrap().to_owned(), row["granted"].as_f64().unwrap());
    rows.iter().map(row).collect()
}

fn id(server: &Server, email: &str) -> String {
    server.lead_by(email)["id"].as_str().unwrap().to_owned()
}

fn paths_of(server: &Server, email: &str) -> Vec<String> {
    let timeline = server.get(&format!("/api/leads/{}/timeline", id(server, email)));
    let events = timeline["events"].as_array().unwrap();
    let paths = events.iter().filter_map(|event| Some(event["path"].as_str()?.to_owned()));
    paths.collect()
}

#[test]
fn two_people_on_one_computer_keep_what_is_theirs_and_a_mistake_is_undone() {
    let (server, receiver) = told("2026-12-07 09:00");
    let mut browser = Browser::returning(&server, 1);
    server.to("2026-12-07 09:59");
    browser.identify(A, &json!({ "title": "課長" }));
    server.to("2026-12-07 10:00");
    browser.page("/pricing/", "");
    server.to("2026-12-07 10:05");
    browser.page("/thanks/document/guide", "");
    let before = server.lead_by(A)["attributes"].clone();
    server.to("2026-12-07 14:00");
    browser.identify(B, &json!({ "title": "部長" }));
    server.to("2026-12-07 14:01");
    browser.page("/pricing/", "");
    server.to("2026-12-07 14:05");
    browser.page("/thanks/document/guide", "");
    about(&server.exact(A), 31.735);
    about(&server.exact(B), 31.998);
    let (exact_a, exact_b) = (server.exact(A), server.exact(B));
    assert_eq!(server.lead_by(A)["attributes"], before, "A's fields are untouched");
    assert_eq!(paths_of(&server, A).len(), 4, "a page view, A's form, two pages");
    assert_ne!(id(&server, A), id(&server, B), "no merge");

    // The browser was B's all day, an operator says.
    let visitor = server.lead_by(A)["links"][0]["visitor"].clone();
    let both = |email: &str| json!({ "visitor": visitor, "lead": id(&server, email) });
    let taken = server.step("/api/unlink", both(A));
    assert_eq!((rows(&server, A).len(), server.exact(A)), (0, json!(0.0)));
    let given = server.step("/api/link", both(B));
    let all = rows(&server, B);
    let granted: Vec<f64> = all.iter().map(|row| row.1).collect();
    assert_eq!(granted, [12.0, 20.0, 0.0, 0.0], "once a day: {all:?}");
    about(&server.exact(B), 31.735);
    assert!(paths_of(&server, A).is_empty(), "{:?}", paths_of(&server, A));

    // And they were wrong: both steps are undone, in either order of asking.
    server.step("/api/undo", json!({ "position": given["position"] }));
    server.step("/api/undo", json!({ "position": taken["position"] }));
    assert_eq!((server.exact(A), server.exact(B)), (exact_a, exact_b), "to the thousandth");
    let again = server.post(
        "/api/undo",
        &json!({ "position": taken["position"], "actor": "yamada", "reason": "twice" }),
    );
    assert_eq!((again.status, &again.json()["error"]), (409, &json!("not_undoable")));
    drain(&server, &receiver, 1);
    assert!(receiver.about(A).is_empty() && receiver.about(B).is_empty(), "no message at any step");
}

#[test]
fn two_addresses_of_one_person_are_joined_by_proof_and_parted_again() {
    const X: &str = "x@one.example";
    const Y: &str = "y@one.example";
    let (server, receiver) = told("2026-12-07 09:00");
    let mut office = Browser::returning(&server, 1);
    let mut home = Browser::returning(&server, 2);
    server.to("2026-12-07 09:59");
    office.identify(X, &json!({}));
    server.to("2026-12-07 10:00");
    office.page("/pricing/", "");
    server.to("2026-12-07 10:05");
    office.page("/thanks/document/guide", "");
    server.to("2026-12-07 19:59");
    home.identify(Y, &json!({}));
    server.to("2026-12-07 20:00");
    home.page("/pricing/", "");
    server.to("2026-12-07 20:05");
    home.page("/thanks/event/dx", "");
    server.to("2026-12-08 09:00");
    about(&server.exact(X), 30.520);
    about(&server.exact(Y), 26.497);
    let (x, y) = (id(&server, X), id(&server, Y));
    let (exact_x, exact_y) = (server.exact(X), server.exact(Y));

    let merged = server.step("/api/merge", json!({ "one": x, "other": y }));
    about(&server.exact(X), 45.335);
    assert_eq!((id(&server, X), id(&server, Y)), (x.clone(), x.clone()), "every old id resolves");
    assert_eq!(merged["lead"], x, "the older stays, whoever is named first");
    assert_eq!(server.get(&format!("/api/leads/{y}"))["id"], x);
    // As it was known then.
    let then = format!("/api/leads/{y}/score?at={}", at("2026-12-07 21:00"));
    server.to("2026-12-08 09:01");
    assert_eq!(server.get(&then)["lead"], y, "yesterday it was a lead of its own");

    server.step("/api/unmerge", json!({ "name": y }));
    server.to("2026-12-08 09:02");
    let asked = |id: &str| {
        server.get(&format!("/api/leads/{id}/score?at={}&knowing=now", at("2026-12-08 09:00")))
    };
    assert_eq!((&asked(&x)["exact"], &asked(&y)["exact"]), (&exact_x, &exact_y));

    // The same by a statement of the site's own server that names both.
    let both = json!({ "s": "www", "e": "identify", "id": { "user_id": "u-17", "email": X } });
    assert_eq!(server_call(&server, &both).status, 204);
    let other = json!({ "s": "www", "e": "identify", "id": { "user_id": "u-17", "email": Y } });
    assert_eq!(server_call(&server, &other).status, 204);
    assert_eq!(id(&server, X), id(&server, Y), "proved to be one");
    drain(&server, &receiver, 1);
    let mut all: Vec<String> = kinds(&receiver.all());
    all.retain(|kind| kind != "lead.hot");
    assert_eq!(all, ["lead.merged", "lead.unmerged", "lead.merged"]);
    let told = receiver.all().into_iter().find(|one| one.kind() == "lead.merged").unwrap().json();
    assert_eq!((&told["data"]["from"], &told["data"]["into"]), (&json!(y), &json!(x)));
}

#[test]
fn a_stranger_who_claims_a_known_persons_other_name_raises_a_question_and_joins_nobody() {
    let (server, receiver) = told("2026-12-07 09:00");
    for (user, mail) in [("u-1", A), ("u-2", B)] {
        let card = json!({ "s": "www", "e": "identify", "id": { "user_id": user, "email": mail } });
        assert_eq!(server_call(&server, &card).status, 204);
    }
    let mut stranger = Browser::returning(&server, 1);
    let hit = stranger.hit(&json!({ "e": "identify", "id": { "user_id": "u-1", "email": B } }));
    assert_eq!(stranger.beacon(hit.to_string().as_bytes()).status, 204);
    assert_ne!(id(&server, A), id(&server, B));
    let questions = crate::wait_for("a question", || {
        let found = server.get("/api/review")["questions"].as_array().unwrap().clone();
        (!found.is_empty()).then_some(found)
    });
    assert_eq!(questions[0]["asked"][0]["question"], "another_name");
    let answer = json!({ "question": questions[0]["position"], "answer": "dismiss" });
    server.step("/api/review", answer);
    crate::wait_for("the question to go", || {
        server.get("/api/review")["questions"].as_array().unwrap().is_empty().then_some(())
    });
    drain(&server, &receiver, 1);
    assert_eq!(receiver.all().len(), 1, "the marker alone");
}

#[test]
fn a_form_on_a_shared_device_makes_a_lead_and_ties_nobody() {
    let (server, _receiver) = told("2026-12-07 09:00");
    let mut kiosk = Browser::returning(&server, 1);
    for mail in [A, B] {
        let who = json!({ "email": mail, "kiosk": true, "attributes": { "name": "somebody" } });
        let hit = kiosk.hit(&json!({ "e": "identify", "id": who }));
        assert_eq!(kiosk.beacon(hit.to_string().as_bytes()).status, 204);
        kiosk.page("/pricing/", "");
    }
    for mail in [A, B] {
        let lead = server.lead_by(mail);
        assert_eq!((&lead["exact"], &lead["links"]), (&json!(0.0), &json!([])), "{mail}");
        assert_eq!(lead["attributes"]["name"], "somebody");
    }
}

#[test]
fn a_name_that_the_sites_server_signed_is_verified_and_a_forged_one_refused() {
    const SECRET: &str = "an identity secret of this test";
    let setup = crate::support::server::Setup::new(at("2026-12-07 09:00"), &[]);
    let mikomi = setup
        .mikomi
        .replace("server_keys_file", "identity_secrets_env = \"ID_SECRETS\"\nserver_keys_file");
    let secrets = vec![("ID_SECRETS".to_owned(), SECRET.replace(' ', "_"))];
    let server = Server::start_with(&crate::support::server::Setup { mikomi, ..setup }, &secrets);
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.replace(' ', "_").as_bytes());
    let sign = |value: &str, exp: u64| {
        let tag = ring::hmac::sign(&key, format!("v1|www|email|{value}|{exp}").as_bytes());
        tag.as_ref().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
    };
    let now = server.now() / 1_000;
    let mut browser = Browser::returning(&server, 1);
    let mut say = |id: Value| {
        let hit = browser.hit(&json!({ "e": "identify", "id": id }));
        let answer = browser.beacon(hit.to_string().as_bytes());
        (answer.status, answer.header("mikomi-rejected").unwrap_or_default().to_owned())
    };
    let good = sign("A@First.example", now + 3_600);
    let id = json!({ "email": "A@First.example", "hmac": good, "exp": now + 3_600,
                     "attributes": { "title": "社長" } });
    assert_eq!(say(id).0, 204, "the value is signed exactly as it is sent");
    let lead = server.lead_by(A);
    assert_eq!((&lead["assurance"], &lead["confirmed_by"]), (&json!("verified"), &json!("hmac")));
    for (value, hmac, exp, why) in [
        (B, good.clone(), now + 3_600, "bad_hmac"),
        (A, "00".repeat(32), now + 3_600, "bad_hmac"),
        (A, "no hex".into(), now + 3_600, "bad_hmac"),
        (A, sign(A, now), now, "hmac_expired"),
        (A, sign(A, now + 90_000), now + 90_000, "hmac_expired"),
    ] {
        let id = json!({ "email": value, "hmac": hmac, "exp": exp });
        assert_eq!(say(id), (401, format!("1 {why}=1")), "{value} {exp}");
    }
    // Without a cookie, too: the site's server vouches for the browser.
    let mut fresh = Browser::new(&server, 2);
    fresh.visit("/");
    let exp = now + 60;
    let id = json!({ "email": B, "hmac": sign(B, exp), "exp": exp });
    let hit = fresh.hit(&json!({ "e": "identify", "id": id }));
    assert_eq!(fresh.beacon(hit.to_string().as_bytes()).status, 204);
    assert_eq!(server.lead_by(B)["assurance"], "verified");
    assert!(fresh.jar.contains_key("mikomi"));
}
