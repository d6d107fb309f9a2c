//! FORMAT.md is enough to read a journal: a reader of 250 lines in another language, written from
//! it alone, comes to the same scores and stages as the program that wrote the journal.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use collector::ids::Ids;
use collector::install::Install;
use collector::journal::committer::Now;
use collector::journal::disk::RealDisk;
use collector::journal::{Hooks, Journal, Options};
use engine::decay::{HalfLife, Sum};
use engine::points::Points;
use engine::time::Timestamp;
use serde_json::{Value, json};

const FORMAT: &str = include_str!("../../FORMAT.md");
const READER: &str = include_str!("journal_reader.py");
const RULES: &str = include_str!("../../config/scoring.toml");
const SERVER_KEY: &str = "a-server-key-of-this-test";
/// The reader's length. Two versions of records are read, and what sales answers, so it is more
/// than the 150 lines that were enough for the first.
const READER_LINES_MAX: usize = 250;
/// People, each with an address and a number of the site's own.
const PEOPLE: u64 = 4;
const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;
/// 2026-12-01 09:00 in Japan.
const START: u64 = 1_796_083_200_000;
const PATHS: [&str; 10] = [
    "/column/dx",
    "/case/line",
    "/product/a",
    "/product/b",
    "/product/c",
    "/pricing/",
    "/thanks/document/guide",
    "/thanks/contact/",
    "/thanks/event/dx",
    "/careers/",
];

const ANSWERS: [&str; 11] = [
    "accepted",
    "rejected",
    "contacted",
    "meeting_planned",
    "meeting_done",
    "no_show",
    "opportunity",
    "won",
    "lost",
    "recycle",
    "snooze",
];

/// Opens a journal as a start does: its torn end is cut by the segment that follows.
fn repair(data: &Path) {
    let install = Install::open(data, &Ids::default()).unwrap();
    let disk = Arc::new(RealDisk::open(data.join("journal")).unwrap());
    let now = || Now { wall_ms: START, boot_ms: 0 };
    let hooks = Hooks { now: Box::new(now), poisoned: Box::new(|why| panic!("{why:?}")) };
    let (journal, found) = Journal::open(disk, &Options::new(install.id.0), hooks, |_| {}).unwrap();
    assert!(found.cut_bytes > 0 || found.copied > 0, "there was something to repair");
    journal.stop().unwrap();
}

/// A server that runs, on a clock that stands still until it is told.
struct Server {
    child: Child,
    data: PathBuf,
    collector: String,
    admin: String,
    token: String,
    now: u64,
}

impl Server {
    fn start(folder: &Path, now: u64) -> Server {
        let (config, data) = (folder.join("config"), folder.join("data"));
        fs::create_dir_all(&config).unwrap();
        fs::write(config.join("keys.txt"), SERVER_KEY).unwrap();
        let settings = "[collector]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
            [journal]\nsegment_bytes = 1048576\n[[site]]\nid = \"demo\"\nkey = \"demo\"\n\
            consent = \"assumed\"\norigins = [\"*\"]\nserver_keys_file = \"keys.txt\"\n";
        fs::write(config.join("mikomi.toml"), settings).unwrap();
        let mut child = mikomi(&data)
            .arg("--config")
            .arg(&config)
            .args(["serve", "--test-clock", &now.to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut greeting = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut address = |name: &str| {
            let line = greeting.find(|line| line.as_ref().unwrap().starts_with(name)).unwrap();
            let url = line.unwrap().split_once("http://").unwrap().1.to_owned();
            url.split(['/', ' ']).next().unwrap().to_owned()
        };
        let (collector, admin) = (address("collector"), address("admin"));
        let token = text(&mikomi(&data).arg("token").output().unwrap().stdout).trim().to_owned();
        Server { child, data, collector, admin, token, now }
    }

    /// Sends one hit; gives back the cookie that the answer sets.
    fn hit(&self, cookie: &str, server: bool, hit: &Value) -> Option<String> {
        let mut head = "POST /b HTTP/1.1\r\nuser-agent: Mozilla/5.0 (X11; Linux)\r\n".to_owned();
        if !cookie.is_empty() {
            write!(head, "cookie: {cookie}\r\n").unwrap();
        }
        if server {
            write!(head, "authorization: Bearer {SERVER_KEY}\r\n").unwrap();
        }
        let answer = ask(&self.collector, &head, &hit.to_string());
        assert!(answer.starts_with("HTTP/1.1 204"), "{hit}: {answer}");
        let set = answer.lines().find_map(|line| line.strip_prefix("set-cookie: "));
        set.map(|set| set.split(';').next().unwrap().to_owned())
    }

    fn admin(&self, request: &str, body: &str) -> Option<Value> {
        let head = format!("{request} HTTP/1.1\r\nauthorization: Bearer {}\r\n", self.token);
        let answer = ask(&self.admin, &head, body);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        head.starts_with("HTTP/1.1 200").then(|| serde_json::from_str(body).unwrap())
    }

    fn wait(&mut self, millis: u64) {
        self.now += millis;
        let body = json!({ "now_ms": self.now }).to_string();
        self.admin("POST /api/test-clock", &body).unwrap();
    }

    /// Waits for the saved rules to be in force.
    fn reload(&self, rules: &str) {
        let version = || self.admin("GET /api/rules", "").unwrap()["version"].as_u64().unwrap();
        let before = version();
        fs::write(self.data.with_file_name("config").join("scoring.toml"), rules).unwrap();
        self.admin("POST /api/reload", "").unwrap();
        while version() == before {
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// A step, if the program takes it.
    fn step(&self, path: &str, mut wish: Value) -> Option<Value> {
        wish["actor"] = json!("a tester");
        wish["reason"] = json!("to see what is recorded");
        self.admin(&format!("POST /api/{path}"), &wish.to_string())
    }

    /// The id of a name, if anybody bears it.
    fn name(&self, (kind, value): &(&str, String)) -> Option<String> {
        let value = value.replace('@', "%40");
        let known = self.admin(&format!("GET /api/leads/by?site=demo&{kind}={value}"), "")?;
        Some(known["name"].as_str().unwrap().to_owned())
    }

    /// The exact score, in thousandths, of everybody who was known then, whoever's names their
    /// names are now.
    fn scores(&self, at: u64) -> BTreeMap<String, i64> {
        let exact = |name: &(&str, String)| {
            let name = self.name(name)?;
            let score = self.admin(&format!("GET /api/leads/{name}/score?at={at}"), "")?;
            let exact = (score["exact"].as_f64().unwrap() * 1_000.0).round();
            Some((score["lead"].as_str().unwrap().to_owned(), exact as i64))
        };
        names().iter().filter_map(exact).collect()
    }

    /// Sales answers about whoever bears a name; whether that changes anything.
    fn answer(&self, id: &str, kind: &str, name: &str) -> bool {
        let head = format!("POST /s/feedback HTTP/1.1\r\nauthorization: Bearer {SERVER_KEY}\r\n");
        let body = json!({ "id": id, "lead": name, "kind": kind, "by": "sato@vendor.example" });
        let answer = ask(&self.collector, &head, &body.to_string());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
        serde_json::from_str::<Value>(body).unwrap()["applied"] == true
    }

    /// Where everybody stands now.
    fn stages(&self) -> BTreeMap<String, String> {
        let stage = |name: &(&str, String)| {
            let lead = self.admin(&format!("GET /api/leads/{}", self.name(name)?), "")?;
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            Some((text(&lead["id"]), text(&lead["stage"]["id"])))
        };
        names().iter().filter_map(stage).collect()
    }

    fn end(&mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").arg(id).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }

    fn stop(mut self) -> PathBuf {
        self.end();
        self.data.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone, unless a test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn mikomi(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mikomi"));
    command.arg("--data").arg(data);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn ask(address: &str, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    let rest = format!("host: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(format!("{head}{rest}{body}").as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    text(&answer)
}

fn mail(person: u64) -> String {
    format!("tanaka{person}@sample-seiki.example")
}

fn names() -> Vec<(&'static str, String)> {
    let of = |person| [("email", mail(person)), ("user_id", format!("u-{person}"))];
    (0..PEOPLE).flat_map(of).collect()
}

/// A story and what it is made of.
struct Story {
    server: Server,
    word: u64,
    cookies: [String; 3],
    hits: u64,
    /// Where steps are recorded that can be undone.
    steps: Vec<u64>,
    /// Browsers that were taken from somebody.
    free: Vec<(String, String)>,
    /// How often each thing was done.
    done: BTreeMap<&'static str, u32>,
    /// Moments to ask for scores at.
    moments: Vec<u64>,
}

/// Four months in three runs of the program: three browsers, four people by several names, a
/// server that tells late what happened long before, people who join and part others, and other
/// rules on the way, first for what comes, then for what was too.
fn live(folder: &Path) -> Story {
    let server = Server::start(folder, START);
    let mut story = Story {
        server,
        word: 7,
        cookies: Default::default(),
        hits: 0,
        steps: Vec::new(),
        free: Vec::new(),
        done: BTreeMap::new(),
        moments: vec![START + 5 * DAY, START + 12 * DAY],
    };
    story.browse(100, false);
    story.browse(60, true);
    story.restart(folder);
    let other = RULES.replacen("half_life = \"14d\", max = 80", "half_life = \"5d\", max = 60", 1);
    let other = other.replacen("id = \"pricing\", points = 12", "id = \"pricing\", points = 17", 1);
    assert_ne!(other, RULES);
    story.server.reload(&other);
    story.browse(60, true);
    assert!(story.server.step("rules/rescore", json!({ "days": 30 })).is_some());
    story.moments.push(story.server.now);
    story.browse(60, true);
    story.restart(folder);
    story.server.reload(RULES);
    story.browse(40, true);
    assert!(story.server.step("rules/rescore", json!({})).is_some());
    story.browse(20, false);
    story.moments.extend([story.server.now, story.server.now + 30 * DAY]);
    for what in ["merge", "unmerge", "link", "unlink", "withdraw", "undo", "lost", "accepted"] {
        assert!(story.done.contains_key(what), "no {what} was done: {:?}", story.done);
    }
    story
}

impl Story {
    fn below(&mut self, limit: u64) -> u64 {
        self.word = self.word.wrapping_mul(6_364_136_223_846_793_005);
        self.word = self.word.wrapping_add(1_442_695_040_888_963_407);
        (self.word >> 33) % limit
    }

    fn browse(&mut self, times: u64, with_steps: bool) {
        for time in 0..times {
            let wait = self.below(10 * HOUR) + 1;
            self.server.wait(wait);
            if with_steps && self.below(4) == 0 {
                self.step();
            } else {
                self.hit();
            }
            if time % 25 == 24 {
                self.moments.push(self.server.now);
            }
        }
    }

    fn restart(&mut self, folder: &Path) {
        let now = self.server.now;
        self.moments.push(now);
        self.server.end();
        self.server = Server::start(folder, now);
    }

    fn hit(&mut self) {
        self.hits += 1;
        let (who, person) = (self.below(3) as usize, self.below(PEOPLE));
        let url = format!("https://www.sample.example{}", PATHS[self.below(10) as usize]);
        let mut hit = json!({ "s": "demo", "u": url, "i": format!("hit {}", self.hits) });
        let by_server = self.below(5) == 0;
        let mut id = json!({ "email": mail(person), "attributes": { "title": "部長" } });
        match self.below(3) {
            0 => id["user_id"] = json!(format!("u-{person}")),
            // A slip of the tongue, or two people at one desk.
            1 if self.below(3) == 0 => id["user_id"] = json!(format!("u-{}", self.below(PEOPLE))),
            _ => {}
        }
        match self.below(6) {
            _ if by_server => {
                hit["id"] = id;
                hit["at"] = json!(self.server.now - self.below(20 * DAY));
                hit["e"] = json!(["download", "mail_click", "page_view"][self.below(3) as usize]);
            }
            0 if self.below(2) == 0 => hit["e"] = json!("reset"),
            1 => {
                hit["e"] = json!("identify");
                id["kiosk"] = json!(self.below(5) == 0);
                hit["id"] = id;
            }
            2 => {
                hit["e"] = json!("engagement");
                hit["ms"] = json!(61_000);
            }
            _ => hit["at"] = json!(self.server.now - self.below(DAY)),
        }
        let cookie = if by_server { "" } else { &self.cookies[who] };
        let set = self.server.hit(cookie, by_server, &hit).filter(|_| !by_server);
        self.cookies[who] = set.unwrap_or_else(|| self.cookies[who].clone());
    }

    /// What somebody does to what is known, if it can be done.
    fn step(&mut self) {
        let names: Vec<String> = names().iter().filter_map(|name| self.server.name(name)).collect();
        let name = names[self.below(names.len() as u64) as usize].clone();
        let other = names[self.below(names.len() as u64) as usize].clone();
        if self.below(4) == 0 {
            let kind = ANSWERS[self.below(ANSWERS.len() as u64) as usize];
            let id = format!("answer {}", self.server.now);
            *self.done.entry(kind).or_default() += u32::from(self.server.answer(&id, kind, &name));
            return;
        }
        let (what, wish) = match self.below(8) {
            0 | 1 => ("merge", json!({ "one": name, "other": other })),
            2 => ("unmerge", json!({ "name": name })),
            3 => {
                let lead = self.server.admin(&format!("GET /api/leads/{name}"), "").unwrap();
                let Some(link) = lead["links"].as_array().unwrap().first() else { return };
                let visitor = link["visitor"].as_str().unwrap().to_owned();
                self.free.push((visitor.clone(), name.clone()));
                ("unlink", json!({ "visitor": visitor, "lead": name }))
            }
            4 => {
                let Some((visitor, lead)) = self.free.pop() else { return };
                ("link", json!({ "visitor": visitor, "lead": lead, "assurance": "claimed" }))
            }
            5 => {
                let until = self.server.now - self.below(10 * DAY);
                let from = until - 2 * DAY;
                let (from, until) = (from.to_string(), until.to_string());
                ("withdraw", json!({ "from": from, "until": until }))
            }
            _ => {
                let place = self.below(self.steps.len().max(1) as u64) as usize;
                let Some(position) = self.steps.get(place) else { return };
                ("undo", json!({ "position": position }))
            }
        };
        if let Some(answer) = self.server.step(what, wish) {
            *self.done.entry(what).or_default() += 1;
            self.steps.push(answer["position"].as_u64().unwrap());
        }
    }
}

/// The other reader; nothing if this machine has no python3.
fn read(data: &Path, at: u64) -> Option<Output> {
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/journal_reader.py");
    let mut python = Command::new("python3");
    python.arg(reader).arg(data.join("journal")).arg(at.to_string());
    let output = python.output().ok();
    if output.is_none() {
        eprintln!("SKIPPED: there is no python3 to run journal_reader.py with");
    }
    output
}

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn lead_scores(output: &Output) -> BTreeMap<String, i64> {
    let lead =
        |line: &Value| Some((line["lead"].as_str()?.to_owned(), line["exact"].as_i64().unwrap()));
    lines(output).iter().filter_map(lead).collect()
}

fn lead_stages(output: &Output) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let lead = |line: &Value| Some((text(&line["lead"])?, text(&line["stage"]).unwrap()));
    lines(output).iter().filter_map(lead).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn last_segment(data: &Path) -> (PathBuf, Vec<u8>) {
    let files = fs::read_dir(data.join("journal")).unwrap().map(|entry| entry.unwrap().path());
    let last = files.filter(|path| path.extension().is_some_and(|it| it == "log")).max().unwrap();
    let bytes = fs::read(&last).unwrap();
    (last, bytes)
}

#[test]
fn a_reader_in_another_language_comes_to_the_same_scores() {
    // Given four months of hits, out of order, of people known and unknown, joined and parted,
    // under rules that changed twice.
    let folder = tempfile::tempdir().unwrap();
    let mut story = live(folder.path());
    // What was due meanwhile is done before the program answers anybody again.
    story.restart(folder.path());
    let Story { server, moments, .. } = story;
    let expected: Vec<_> = moments.iter().map(|at| server.scores(*at)).collect();
    let (now, stages) = (server.now, server.stages());
    // When it has stopped, and somebody reads its files.
    let data = server.stop();
    let segments = fs::read_dir(data.join("journal")).unwrap().count();
    assert!(segments > 4, "{segments} files: the chain over segments is not tried");
    for (at, expected) in moments.iter().zip(&expected) {
        let Some(output) = read(&data, *at) else { return };
        // Then every score is the same, to the thousandth, whenever it is asked for.
        assert_eq!(lead_scores(&output), *expected, "at {at}");
    }
    let Some(output) = read(&data, now) else { return };
    assert_eq!(lead_stages(&output), stages);
    let of_sales = ["accepted", "working", "won", "rejected", "recycled"];
    let answered = stages.values().filter(|stage| of_sales.contains(&stage.as_str()));
    assert!(answered.count() > 0, "{stages:?}");
    let people: BTreeSet<usize> = expected.iter().map(BTreeMap::len).collect();
    assert!(people.len() > 2, "people were joined and parted: {people:?}");
    let worth = expected.iter().flat_map(BTreeMap::values).filter(|exact| **exact != 0).count();
    assert!(worth > moments.len(), "{expected:?}");
}

#[test]
fn a_torn_tail_is_cut_where_the_program_cuts_it_and_damage_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let Story { server, .. } = live(folder.path());
    let at = server.now;
    let data = server.stop();
    let Some(whole) = read(&data, at) else { return };
    let (file, bytes) = last_segment(&data);
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    assert!(end > 40_000, "the last segment is too short to tear");
    let mut fewer = 0;
    for cut in [1, 30, 70, 200, 700, 2_000, 9_000, 20_000] {
        // Given a last segment that ends anywhere. What the outbox adds after the last hits is
        // some thousand bytes, so that the longer cuts take hits.
        let torn = folder.path().join(format!("torn {cut}"));
        copy(&data, &torn);
        let last = torn.join("journal").join(file.file_name().unwrap());
        fs::write(&last, &bytes[..end - cut]).unwrap();
        // When it is read as it is, and when it was repaired.
        let before = lines(&read(&torn, at).unwrap());
        repair(&torn);
        // Then both say the same.
        assert_eq!(before, lines(&read(&torn, at).unwrap()), "cut by {cut}");
        fewer += usize::from(before != lines(&whole));
        fs::remove_dir_all(torn).unwrap();
    }
    assert!(fewer > 0, "no cut took a record");
    // Given one flipped bit in what was durable.
    let mut flipped = bytes;
    flipped[700] ^= 1;
    fs::write(&file, flipped).unwrap();
    let refused = read(&data, at).unwrap();
    assert!(!refused.status.success() && text(&refused.stderr).contains("damaged at byte"));
    assert!(!mikomi(&data).arg("replay").output().unwrap().status.success());
}

#[test]
fn the_worked_example_is_what_the_engine_computes() {
    let half_life = HalfLife::from_millis(14 * DAY).unwrap();
    let rows = [
        (Timestamp(1_796_083_200_000), Points(12_000)),
        (Timestamp(1_796_515_200_000), Points(20_000)),
        (Timestamp(1_796_601_600_000), Points(-10_000)),
    ];
    let sum = Sum::of(half_life, rows.into_iter());
    let at = Timestamp(1_796_947_200_000);
    let shares = sum.shares(at, &rows);
    let shown = format!(
        "value {} = {} + {} - {}",
        sum.value(at).0,
        shares[0].0,
        shares[1].0,
        shares[2].0.abs()
    );
    assert!(FORMAT.contains(&shown), "FORMAT.md lacks \"{shown}\"");
}

#[test]
fn the_reader_is_short_enough_to_be_read() {
    assert!(READER.lines().count() <= READER_LINES_MAX);
    assert!(READER.lines().all(|line| line.chars().count() <= 100));
    assert!(!READER.contains("import mikomi") && !READER.contains("subprocess"));
}
