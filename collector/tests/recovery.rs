//! What a power cut leaves: each acknowledged hit once, each alert under its one id, and a state
//! that any replay makes again.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

use support::browser::AGENT;
use support::http::Client;
use support::receiver::Receiver;
use support::server::{Server, Setup};
use support::story::drain;
use support::{at, wait_for};

const BROWSERS: usize = 4;
/// Acknowledged hits after which each life ends.
const LIVES: [usize; 4] = [37, 120, 81, 150];
/// Every so many hits of a browser somebody asks for a quote.
const QUOTE_EVERY: u64 = 10;

/// Browsers that a sender has: a new one for everybody who asks, since more than a few people on
/// one browser within a day are not tied to it.
const POOL: usize = 24;

/// Sends one hit after the other, and a hit again until it is acknowledged.
struct Sender {
    number: usize,
    sent: u64,
    cookies: Vec<String>,
    /// A hit sent and not acknowledged.
    open: Option<Value>,
    acknowledged: BTreeSet<String>,
    quoted: BTreeSet<String>,
}

impl Sender {
    fn new(number: usize) -> Sender {
        let sets = (BTreeSet::new(), BTreeSet::new());
        Sender {
            number,
            sent: 0,
            cookies: Vec::new(),
            open: None,
            acknowledged: sets.0,
            quoted: sets.1,
        }
    }

    fn next(&mut self) -> Value {
        self.sent += 1;
        let path = format!("/load/{}/{}", self.number, self.sent);
        let mut hit = json!({
            "s": "www", "u": format!("https://www.vendor.example{path}"),
            "i": format!("load{:08x}{:08x}", self.number, self.sent),
        });
        if self.sent % QUOTE_EVERY == 5 {
            hit["e"] = json!("identify");
            hit["id"] = json!({ "email": self.email() });
        }
        if self.sent % QUOTE_EVERY == 6 {
            hit["u"] = json!(format!("https://www.vendor.example/thanks/contact{path}"));
        }
        hit
    }

    /// The cookie of the browser that is sending.
    fn cookie(&mut self) -> &mut String {
        let browser = self.sent / QUOTE_EVERY;
        self.cookies.get_mut(browser as usize).expect("the pool is large enough")
    }

    fn email(&self) -> String {
        format!("b{}n{}@quote.example", self.number, self.sent / QUOTE_EVERY)
    }

    /// Sends until the server is gone.
    fn run(&mut self, server: &Server, count: &AtomicUsize) {
        let mut client = Client::new(server.collector());
        loop {
            let hit = self.open.take().unwrap_or_else(|| self.next());
            let cookie = self.cookie().clone();
            let headers = [("user-agent", AGENT), ("cookie", &cookie)];
            let answer = client.send("POST", "/b", &headers, hit.to_string().as_bytes());
            match answer {
                Ok(answer) if answer.status == 204 => {
                    if let Some(cookie) = answer.header("set-cookie") {
                        cookie.split(';').next().unwrap().clone_into(self.cookie());
                    }
                    let path = hit["u"].as_str().unwrap().split_once(".example").unwrap().1;
                    self.acknowledged.insert(path.to_owned());
                    if path.starts_with("/thanks") {
                        self.quoted.insert(self.email());
                    }
                    count.fetch_add(1, Ordering::SeqCst);
                }
                Ok(answer) => panic!("{hit}: {}", answer.raw()),
                Err(_) => {
                    self.open = Some(hit);
                    return;
                }
            }
        }
    }
}

fn paths(server: &Server) -> BTreeMap<String, u32> {
    let mut paths = BTreeMap::new();
    for hit in server.hits() {
        *paths.entry(hit["path"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    paths
}

/// Everybody who has been here before: a hit is told from its repetition once its browser is known.
fn senders(server: &Server) -> Vec<Mutex<Sender>> {
    let known = |number: usize| {
        let mut sender = Sender::new(number);
        for browser in 0..POOL {
            let number = (number * POOL + browser) as u64;
            let mut browser = support::browser::Browser::returning(server, number);
            browser.page("/", "");
            sender.cookies.push(format!("mikomi={}", browser.jar["mikomi"]));
        }
        Mutex::new(sender)
    };
    (0..BROWSERS).map(known).collect()
}

/// Lets everybody send until so many hits are acknowledged, and then ends the server as told.
fn live(server: &Server, senders: &[Mutex<Sender>], hits: usize, end: impl FnOnce(&Server)) {
    let count = AtomicUsize::new(0);
    thread::scope(|scope| {
        for sender in senders {
            let count = &count;
            scope.spawn(move || sender.lock().unwrap().run(server, count));
        }
        wait_for("some load", || (count.load(Ordering::SeqCst) >= hits).then_some(()));
        end(server);
    });
}

/// Everybody who asked for a quote is told of, under one id, in the same words.
fn every_alert_has_one_id(receiver: &Receiver, senders: &[Mutex<Sender>]) {
    let quoted: BTreeSet<String> =
        senders.iter().flat_map(|sender| sender.lock().unwrap().quoted.clone()).collect();
    assert!(quoted.len() > LIVES.len(), "too few quotes to mean anything: {quoted:?}");
    for email in &quoted {
        let messages = receiver.about(email);
        let ids: BTreeSet<&str> = messages.iter().map(|one| one.header("webhook-id")).collect();
        assert_eq!(ids.len(), 1, "{email}: {ids:?}");
        assert!(messages.iter().all(|one| one.body == messages[0].body), "{email}");
    }
}

/// The state is that of a replay, with few locks or many, by command or by a start.
fn any_replay_makes_the_same_state(server: &mut Server) {
    let state = server.get("/api/state");
    server.kill();
    for shards in ["2", "1024"] {
        let now = server.now().to_string();
        let (printed, well) = server.command(&["replay", "--shards", shards, "--now", &now]);
        assert!(well, "{printed}");
        let replayed: Value = serde_json::from_str(printed.lines().next().unwrap()).unwrap();
        for key in ["hash", "visitors", "leads", "now_ms"] {
            assert_eq!(replayed[key], state[key], "{key} with {shards} shards");
        }
    }
    server.restart();
    assert_eq!(server.get("/api/state")["hash"], state["hash"]);
}

/// D1.
#[test]
fn after_each_power_cut_every_acknowledged_hit_is_there_once_and_every_alert_has_one_id() {
    let receiver = Receiver::start();
    let setup = Setup::new(at("2026-12-07 10:00"), &[receiver.endpoint("sfa", "")]);
    let mut server = Server::start(&setup);
    let senders = senders(&server);
    for hits in LIVES {
        live(&server, &senders, hits, Server::kill_now);
        server.kill();
        server.restart();
        let found = paths(&server);
        for sender in &senders {
            for path in &sender.lock().unwrap().acknowledged {
                assert_eq!(found.get(path), Some(&1), "{path}, killed after {hits}");
            }
        }
        server.pass_ms(60_000);
    }
    // What was open at the last cut is sent again, and is not there twice.
    live(&server, &senders, 10 * BROWSERS, Server::terminate);
    assert!(server.wait().success());
    server.restart();
    let found = paths(&server);
    let loaded: Vec<_> = found.iter().filter(|(path, _)| path.contains("/load/")).collect();
    assert!(loaded.iter().all(|(_, times)| **times == 1), "{loaded:?}");
    let sent: u64 = senders.iter().map(|sender| sender.lock().unwrap().sent).sum();
    let hits: usize = senders.iter().map(|it| it.lock().unwrap().acknowledged.len()).sum();
    assert!((hits..=sent as usize).contains(&loaded.len()), "{hits} {} {sent}", loaded.len());

    drain(&server, &receiver, 1);
    every_alert_has_one_id(&receiver, &senders);
    any_replay_makes_the_same_state(&mut server);
}

#[test]
fn a_message_that_was_not_delivered_when_the_power_went_is_delivered_afterwards() {
    let receiver = Receiver::start();
    receiver.answer_with(|_| 500);
    let setup = Setup::new(at("2026-12-07 10:00"), &[receiver.endpoint("sfa", "")]);
    let mut server = Server::start(&setup);
    let mut browser = support::browser::Browser::returning(&server, 1);
    browser.form("a@quote.example", &json!({}), "/thanks/contact/ok", "");
    receiver.wait_about("a@quote.example", 1);
    server.kill();
    receiver.answer_with(|_| 204);
    server.pass_clock_ms(3_600_000);
    server.restart();
    let messages = receiver.wait_about("a@quote.example", 2);
    let ids: BTreeSet<&str> = messages.iter().map(|one| one.header("webhook-id")).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(messages[0].body, messages[1].body, "the body is frozen");
    server.wait_delivered(1);
    server.kill();
    server.restart();
    drain(&server, &receiver, 1);
    assert_eq!(receiver.about("a@quote.example").len(), 2, "and not once more");
}

#[test]
fn who_became_due_while_the_server_was_down_is_settled_before_anybody_is_let_in() {
    let receiver = Receiver::start();
    let setup = Setup::new(at("2026-12-07 10:00"), &[receiver.endpoint("sfa", "")]);
    let mut server = Server::start(&setup);
    let mut browser = support::browser::Browser::returning(&server, 1);
    browser.form("a@quote.example", &json!({}), "/thanks/contact/ok", "");
    receiver.wait_about("a@quote.example", 1);
    server.wait_delivered(1);
    server.kill();
    server.pass_clock_ms(60 * 86_400_000);
    server.restart();
    assert_eq!(server.lead("a@quote.example")["stage"]["id"], "known");
    let cooled = receiver.wait_about("a@quote.example", 2).remove(1).json();
    assert_eq!(cooled["type"], "lead.cooled");
    let instant: jiff::Timestamp = cooled["timestamp"].as_str().unwrap().parse().unwrap();
    // 60 points halve in 14 days: 40 are left after 14 days * log2(60 / 40) = 8.19 days.
    let days = (instant.as_millisecond() as u64 - at("2026-12-07 10:00")) as f64 / 86_400_000.0;
    assert!((days - 8.189).abs() < 0.01, "{days}");
}

/// D11.
#[test]
fn a_start_before_the_last_record_is_not_ready_until_an_operator_says_what_time_it_is() {
    // given records of ten years from now, as a machine with a wrong clock wrote them
    let receiver = Receiver::start();
    let setup = Setup::new(at("2036-12-07 10:00"), &[receiver.endpoint("sfa", "")]);
    let mut server = Server::start(&setup);
    let mut browser = support::browser::Browser::returning(&server, 1);
    browser.form("a@quote.example", &json!({}), "/thanks/contact/ok", "");
    receiver.wait_about("a@quote.example", 1);
    server.wait_delivered(1);
    server.kill();
    // when it starts by a clock that is right
    server.restart_by_the_machine_s_clock();
    let ready = || Client::new(server.collector()).send("GET", "/readyz", &[], b"").unwrap();
    assert!(ready().raw().ends_with("not ready: the clock has jumped\n"), "{}", ready().raw());
    let clock = server.get("/api/clock");
    assert_eq!(clock["in_doubt"], true);
    assert!(clock["ahead_ms"].as_i64().unwrap() < 0, "{clock}");
    assert!(clock["believed_in_ms"].as_u64().unwrap() <= 600_000, "{clock}");
    assert_eq!(server.figure("mikomi_clock_in_doubt"), 1);
    assert!(clock["now"].as_str().unwrap().starts_with("2036-12-07"), "time goes on: {clock}");
    // then an operator's word ends it, and no score is below nothing
    let said = server.post("/api/clock", &json!({ "believe": true })).json();
    assert_eq!(
        said["moved_ms"].as_i64().unwrap() / 1_000,
        clock["ahead_ms"].as_i64().unwrap() / 1_000
    );
    assert_eq!(ready().status, 200);
    assert_eq!(server.get("/api/clock")["in_doubt"], false);
    let points = server.lead("a@quote.example")["score"]["points"].as_i64().unwrap();
    assert!((0..=60).contains(&points), "{points}");
}
