//! Who is told what: test endpoints, shadows, hidden fields, rotation of secrets, and what the
//! libraries of receivers say to our signatures.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use collector::webhook::sign::Secrets;
use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::receiver::{Received, Receiver, SECOND_SECRET, SECRET};
use crate::support::server::{Server, Setup};
use crate::support::story::{TANAKA, drain, form, story_one_under};
use crate::support::{at, wait_for};

const MONDAY: &str = "2026-12-07 09:00";

fn quote(server: &Server, number: u64, email: &str) {
    let mut browser = Browser::returning(server, number);
    browser.form(email, &form(), "/thanks/contact/ok", "");
}

#[test]
fn the_test_key_tells_the_test_endpoint_only_and_says_so() {
    let (sfa, lab) = (Receiver::start(), Receiver::start());
    let endpoints = [sfa.endpoint("sfa", ""), lab.endpoint("lab", "test = true\n")];
    let server = Server::start(&Setup::new(at("2026-12-01 08:00"), &endpoints));
    story_one_under(&server, "www-test");
    let message = lab.wait_about(TANAKA, 1).remove(0).json();
    assert_eq!((&message["type"], &message["data"]["test"]), (&json!("lead.hot"), &json!(true)));
    assert_eq!(message["data"]["score"]["points"], 69);
    drain(&server, &sfa, 1);
    assert_eq!((sfa.about(TANAKA).len(), lab.all().len()), (0, 1));
}

#[test]
fn the_same_person_under_the_test_key_is_somebody_else() {
    let lab = Receiver::start();
    let endpoints = [lab.endpoint("lab", "test = true\n")];
    let server = Server::start(&Setup::new(at(MONDAY), &endpoints));
    let mut tester = Browser::new(&server, 1);
    tester.site = "www-test".into();
    tester.page("/", "");
    tester.form(TANAKA, &form(), "/thanks/contact/ok", "");
    let mut real = Browser::returning(&server, 2);
    real.identify(TANAKA, &form());
    let found = wait_for("both", || {
        let found = server.get("/api/leads?q=tanaka");
        (found["leads"].as_array().unwrap().len() == 2).then_some(found)
    });
    let points = |test: bool| {
        let leads = found["leads"].as_array().unwrap();
        leads.iter().find(|lead| lead["test"] == test).unwrap()["points"].clone()
    };
    assert_eq!((points(true), points(false)), (json!(60), json!(0)));
}

#[test]
fn a_shadow_endpoint_is_recorded_and_sent_nothing() {
    let (sfa, shadow) = (Receiver::start(), Receiver::start());
    let endpoints = [sfa.endpoint("sfa", ""), shadow.endpoint("later", "mode = \"shadow\"\n")];
    let server = Server::start(&Setup::new(at(MONDAY), &endpoints));
    quote(&server, 1, TANAKA);
    sfa.wait_about(TANAKA, 1);
    let line = wait_for("the shadow's line", || {
        let lines = server.get("/api/deliveries");
        let lines = lines["deliveries"].as_array().unwrap().clone();
        lines.into_iter().find(|line| line["endpoint"] == "later")
    });
    assert_eq!(line["outcome"], "shadowed");
    drain(&server, &sfa, 1);
    assert_eq!(server.figure("mikomi_deliveries_shadowed_total"), 2);
    assert_eq!(shadow.all().len(), 0);
}

#[test]
fn an_endpoint_is_not_shown_what_is_hidden_from_it_nor_told_what_it_did_not_ask_for() {
    let (all, some, cooled) = (Receiver::start(), Receiver::start(), Receiver::start());
    let endpoints = [
        all.endpoint("all", ""),
        some.endpoint("some", "hide = [\"email\", \"phone\"]\n"),
        cooled.endpoint("cooled", "types = [\"lead.cooled\"]\n"),
    ];
    let server = Server::start(&Setup::new(at(MONDAY), &endpoints));
    quote(&server, 1, TANAKA);
    drain(&server, &all, 1);
    let found = wait_for("the other endpoint", || {
        let hers = |message: &Received| message.json()["data"]["lead"]["name"] == "田中 恵";
        some.all().into_iter().find(hers)
    });
    assert_eq!(found.json()["data"]["lead"]["email"], Value::Null);
    assert!(!String::from_utf8(found.body).unwrap().contains("tanaka@"));
    assert_eq!(cooled.all().len(), 0);
}

#[test]
fn a_headline_names_nobody_by_what_is_hidden() {
    let (all, no_mail, nobody) = (Receiver::start(), Receiver::start(), Receiver::start());
    let endpoints = [
        all.endpoint("all", ""),
        no_mail.endpoint("no_mail", "hide = [\"email\"]\n"),
        nobody.endpoint("nobody", "hide = [\"name\", \"email\", \"company\"]\n"),
    ];
    let server = Server::start(&Setup::new(at(MONDAY), &endpoints));
    let mut known_by_mail = Browser::returning(&server, 1);
    known_by_mail.form(TANAKA, &json!({}), "/thanks/contact/ok", "");
    let mut named = Browser::returning(&server, 2);
    let who = json!({ "name": "鈴木 一", "company": "Other" });
    named.form("suzuki@other.example", &who, "/thanks/contact/ok", "");
    drain(&server, &all, 1);
    let lead = |email: &str| server.lead_by(email)["id"].as_str().unwrap().to_owned();
    let (tanaka, suzuki) = (lead(TANAKA), lead("suzuki@other.example"));
    let headline = |receiver: &Receiver, lead: &str| {
        let hers = |message: &Received| message.json()["data"]["lead"]["id"] == lead;
        let found = wait_for("a message", || receiver.all().into_iter().find(hers));
        found.json()["data"]["headline"]["en"].as_str().unwrap().to_owned()
    };
    let hot = |rest: &str| format!("HOT: {rest}, 60 points (?1) (unconfirmed)");
    assert_eq!(headline(&all, &tanaka), hot(TANAKA));
    assert_eq!(headline(&no_mail, &tanaka), hot(&tanaka));
    assert_eq!(headline(&no_mail, &suzuki), hot("鈴木 一, Other"));
    assert_eq!(headline(&nobody, &suzuki), hot(&suzuki));
    for message in nobody.all() {
        let text = String::from_utf8(message.body).unwrap();
        assert!(!text.contains("鈴木") && !text.contains("\"Other\""), "{text}");
    }
}

#[test]
fn an_endpoint_that_fails_gets_the_same_message_again_and_holds_up_no_other() {
    let (good, bad) = (Receiver::start(), Receiver::start());
    bad.answer_with(|message| {
        let early = message.header("mikomi-attempt").parse::<u32>().unwrap() <= 3;
        if early && message.email() == TANAKA { 500 } else { 204 }
    });
    let endpoints = [good.endpoint("good", ""), bad.endpoint("bad", "")];
    let server = Server::start(&Setup::new(at(MONDAY), &endpoints));
    quote(&server, 1, TANAKA);
    good.wait_about(TANAKA, 1);
    bad.wait_about(TANAKA, 1);
    // The retries are due by the clock, and nothing else.
    for attempt in 2_usize..=4 {
        wait_for("the failed attempt is recorded", || {
            let lines = server.get("/api/deliveries");
            let lines = lines["deliveries"].as_array().unwrap().clone();
            let failed = |line: &&Value| line["endpoint"] == "bad" && line["status"] == 500;
            (lines.iter().filter(failed).count() == attempt - 1).then_some(())
        });
        assert_eq!(bad.about(TANAKA).len(), attempt - 1, "not before its time");
        server.pass_ms(3 * 3_600_000);
        // Whoever delivers looks at the clock when there is something new, or after a while.
        quote(&server, attempt as u64, &format!("new@news{attempt}.example"));
        bad.wait_about(TANAKA, attempt);
    }
    let messages = bad.about(TANAKA);
    let of = |name: &str| -> Vec<String> {
        messages.iter().map(|one| one.header(name).to_owned()).collect()
    };
    assert_eq!(of("mikomi-attempt"), ["1", "2", "3", "4"]);
    assert!(of("webhook-id").windows(2).all(|pair| pair[0] == pair[1]));
    assert!(messages.windows(2).all(|pair| pair[0].body == pair[1].body), "the body is frozen");
    assert!(messages.iter().all(|message| message.is_signed_with(SECRET)));
    assert_eq!(good.about(TANAKA).len(), 1);
}

#[test]
fn a_message_can_be_sent_again_by_hand_and_says_so() {
    let sfa = Receiver::start();
    let server = Server::start(&Setup::new(at(MONDAY), &[sfa.endpoint("sfa", "")]));
    quote(&server, 1, TANAKA);
    let first = sfa.wait_about(TANAKA, 1).remove(0);
    wait_for("it is delivered", || (server.figure("mikomi_deliveries_pending") == 0).then_some(()));
    let wish = json!({ "endpoint": "sfa", "since_ms": at(MONDAY) });
    let answer = server.post("/api/deliveries/resend", &wish);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        server.post("/api/deliveries/resend", &json!({ "endpoint": "sfa" })).status,
        400,
        "neither which nor since when"
    );
    drain(&server, &sfa, 1);
    // Only what was not delivered is sent again by a moment.
    assert_eq!(sfa.about(TANAKA).len(), 1);
    assert!(first.headers.iter().all(|(name, _)| name != "webhook-replay"));
}

/// What one of the libraries says to each case: accepted, or not and why.
fn judged(program: &str, (script, library): (&str, &str), cases: &[Value]) -> Option<Vec<String>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/receivers");
    let spawned = Command::new(program)
        .arg(folder.join(script))
        .arg(library)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut child) = spawned else {
        println!("skipped: {script}: there is no {program}");
        return None;
    };
    let input = json!(cases).to_string();
    // A verifier that ends without reading says why by its status.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    if output.status.code() == Some(77) {
        println!("skipped: {script}: {}", String::from_utf8_lossy(&output.stdout).trim());
        return None;
    }
    assert!(output.status.success(), "{script}: {:?}", output.status);
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// A message as the libraries are asked about it.
fn case(secret: &str, headers: [&str; 3], body: &[u8]) -> Value {
    let [id, timestamp, signature] = headers;
    json!({
        "secret": secret, "body": STANDARD.encode(body),
        "headers": {
            "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signature,
        },
    })
}

fn headers_of(message: &Received) -> [&str; 3] {
    ["webhook-id", "webhook-timestamp", "webhook-signature"].map(|name| message.header(name))
}

/// Cases, each with what must be said to it.
fn cases(message: &Received) -> Vec<(&'static str, bool, Value)> {
    let headers = headers_of(message);
    let [id, timestamp, signature] = headers;
    let body = message.body.as_slice();
    let mut tampered = body.to_vec();
    let digit = tampered.iter().position(|byte| *byte == b'6').unwrap();
    tampered[digit] = b'9';
    let aged = |seconds: u64| {
        let sent = timestamp.parse::<u64>().unwrap() - seconds;
        (sent.to_string(), Secrets::parse([SECRET]).unwrap().sign(id, sent, body))
    };
    let (old, recent, moved) = (aged(301), aged(200), aged(1).0);
    vec![
        ("the newer secret", true, case(SECRET, headers, body)),
        ("the older secret", true, case(SECOND_SECRET, headers, body)),
        (
            "a secret of somebody else",
            false,
            case("whsec_c29tZWJvZHkgZWxzZSdzIHNlY3JldCEhIQ==", headers, body),
        ),
        ("another body", false, case(SECRET, headers, &tampered)),
        (
            "another id",
            false,
            case(SECRET, ["msg_0000000000000000000000", timestamp, signature], body),
        ),
        ("another timestamp", false, case(SECRET, [id, &moved, signature], body)),
        ("a genuine message 301 s old", false, case(SECRET, [id, &old.0, &old.1], body)),
        ("a genuine message 200 s old", true, case(SECRET, [id, &recent.0, &recent.1], body)),
    ]
}

#[test]
fn the_libraries_of_receivers_accept_what_is_genuine_and_nothing_else() {
    let sfa = Receiver::start();
    let rotation = format!("secrets = [\"{SECRET}\", \"{SECOND_SECRET}\"]\n");
    let mut setup = Setup::new(0, &[sfa.endpoint("sfa", &rotation)]);
    // The libraries go by the system's clock, so the server does too.
    setup.clock = None;
    let server = Server::start(&setup);
    quote(&server, 1, TANAKA);
    let message = sfa.wait_about(TANAKA, 1).remove(0);
    assert!(message.is_signed_with(SECRET) && message.is_signed_with(SECOND_SECRET));
    quote(&server, 2, "second@x.example");
    let second = sfa.wait_about("second@x.example", 1).remove(0);
    let mut cases = cases(&message);
    cases.push(("the next delivery", true, case(SECRET, headers_of(&second), &second.body)));
    let bodies: Vec<Value> = cases.iter().map(|(_, _, case)| case.clone()).collect();
    let python = std::env::var("MIKOMI_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    for (program, script, library) in [
        ("node", "verify.mjs", "standardwebhooks"),
        ("node", "verify.mjs", "svix"),
        (python.as_str(), "verify.py", "standardwebhooks"),
    ] {
        let Some(verdicts) = judged(program, (script, library), &bodies) else {
            continue;
        };
        assert_eq!(verdicts.len(), cases.len());
        for ((what, genuine, _), verdict) in cases.iter().zip(&verdicts) {
            assert_eq!(verdict == "accepted", *genuine, "{script}: {what}: {verdict}");
        }
        println!("{script}: {verdicts:?}");
    }
}
