//! FORMAT.md is enough to read a journal: a reader of 150 lines in another language, written from
//! it alone, comes to the same scores as the program that wrote the journal.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use engine::decay::{HalfLife, Sum};
use engine::rule::Points;
use engine::time::Timestamp;
use serde_json::{Value, json};

const FORMAT: &str = include_str!("../../FORMAT.md");
const READER: &str = include_str!("journal_reader.py");
const SERVER_KEY: &str = "a-server-key-of-this-test";
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

    /// Each lead's exact score, in thousandths, of those that were known then.
    fn scores(&self, at: u64) -> Vec<(String, i64)> {
        let leads = self.admin("GET /api/leads?limit=100", "").unwrap();
        let ids = leads["leads"].as_array().unwrap().iter();
        let exact = |id: String| {
            let score = self.admin(&format!("GET /api/leads/{id}/score?at={at}"), "")?;
            Some((id, (score["exact"].as_f64().unwrap() * 1_000.0).round() as i64))
        };
        let ids = ids.map(|lead| lead["id"].as_str().unwrap().to_owned());
        let mut scores: Vec<_> = ids.filter_map(exact).collect();
        scores.sort();
        scores
    }

    fn stop(mut self) -> PathBuf {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").arg(id).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
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

/// Two months in two runs of the program, each of three browsers, two people and a server that
/// tells late what happened long before.
fn live(folder: &Path) -> Server {
    let mut server = Server::start(folder, START);
    browse(&mut server, 7);
    let now = server.now;
    server.stop();
    let mut server = Server::start(folder, now);
    browse(&mut server, 8);
    server
}

fn browse(server: &mut Server, seed: u64) {
    let mut word = seed;
    let mut below = |limit: u64| {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (word >> 33) % limit
    };
    let mut cookies = [String::new(), String::new(), String::new()];
    for step in 0..120 {
        server.wait(below(10 * HOUR) + 1);
        let who = below(3) as usize;
        let mail = format!("tanaka{}@sample-seiki.example", below(2));
        let url = format!("https://www.sample.example{}", PATHS[below(10) as usize]);
        let mut hit = json!({ "s": "demo", "u": url, "i": format!("hit {step}") });
        let by_server = below(5) == 0;
        match below(6) {
            _ if by_server => {
                hit["id"] = json!({ "email": mail });
                hit["at"] = json!(server.now - below(20 * DAY));
                hit["e"] = json!(["download", "mail_click", "page_view"][below(3) as usize]);
            }
            0 => hit["e"] = json!("reset"),
            1 => {
                hit["e"] = json!("identify");
                hit["id"] = json!({ "email": mail, "attributes": { "title": "部長" } });
            }
            2 => {
                hit["e"] = json!("engagement");
                hit["ms"] = json!(61_000);
            }
            _ => hit["at"] = json!(server.now - below(DAY)),
        }
        let cookie = if by_server { "" } else { &cookies[who] };
        let set = server.hit(cookie, by_server, &hit);
        cookies[who] = set.filter(|_| !by_server).unwrap_or_else(|| cookies[who].clone());
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

fn lead_scores(output: &Output) -> Vec<(String, i64)> {
    let lead =
        |line: &Value| Some((line["lead"].as_str()?.to_owned(), line["exact"].as_i64().unwrap()));
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
    // Given two months of hits, out of order, of people known and unknown.
    let folder = tempfile::tempdir().unwrap();
    let server = live(folder.path());
    let times = [
        START + 5 * DAY,
        START + 12 * DAY,
        server.now - 9 * DAY,
        server.now,
        server.now + 30 * DAY,
    ];
    let expected: Vec<_> = times.iter().map(|at| server.scores(*at)).collect();
    // When it has stopped, and somebody reads its files.
    let data = server.stop();
    let segments = fs::read_dir(data.join("journal")).unwrap().count();
    assert!(segments > 2, "{segments} files: the chain over segments is not tried");
    for (at, expected) in times.into_iter().zip(expected) {
        let Some(output) = read(&data, at) else { return };
        // Then every score is the same, to the thousandth, whenever it is asked for.
        assert_eq!(lead_scores(&output), expected, "at {at}");
        if at > times[0] {
            assert_eq!(expected.len(), 2);
            assert!(expected.iter().all(|(_, exact)| *exact != 0), "{expected:?}");
        }
    }
}

#[test]
fn a_torn_tail_is_cut_where_the_program_cuts_it_and_damage_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = live(folder.path());
    let at = server.now;
    let data = server.stop();
    let Some(whole) = read(&data, at) else { return };
    let (file, bytes) = last_segment(&data);
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    assert!(end > 3_000, "the last segment is too short to tear");
    let mut fewer = 0;
    for cut in [1, 30, 70, 200, 700] {
        // Given a last segment that ends anywhere.
        let torn = folder.path().join(format!("torn {cut}"));
        copy(&data, &torn);
        let last = torn.join("journal").join(file.file_name().unwrap());
        fs::write(&last, &bytes[..end - cut]).unwrap();
        // When it is read as it is, and when it was repaired.
        let before = lines(&read(&torn, at).unwrap());
        let repaired = mikomi(&torn).arg("replay").output().unwrap();
        assert!(repaired.status.success(), "{}", text(&repaired.stderr));
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
    assert!(READER.lines().count() <= 150);
    assert!(READER.lines().all(|line| line.chars().count() <= 100));
    assert!(!READER.contains("import mikomi") && !READER.contains("subprocess"));
}
