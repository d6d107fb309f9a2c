//! The harness against a server of a few lines: what it sends, what it writes, how it ends.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use ring::hmac;

/// Requests, as they came: the head, the body.
type Heard = Arc<Mutex<Vec<(String, String)>>>;

/// A server that answers each request by `answer`, which is told how many came before.
fn server(answer: fn(usize) -> String) -> (SocketAddr, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let heard = Heard::default();
    let shared = Arc::clone(&heard);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let heard = Arc::clone(&shared);
            thread::spawn(move || serve(stream, &heard, answer));
        }
    });
    (address, heard)
}

fn serve(mut stream: TcpStream, heard: &Heard, answer: fn(usize) -> String) -> Option<()> {
    let (mut received, mut chunk) = (Vec::new(), [0; 4_096]);
    loop {
        let read = stream.read(&mut chunk).ok().filter(|read| *read > 0)?;
        received.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8_lossy(&received).into_owned();
        let Some((head, rest)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = header(head, "content-length").map_or(0, |digits| digits.parse().unwrap());
        if rest.len() < length {
            continue;
        }
        let number = {
            let mut heard = heard.lock().unwrap();
            heard.push((head.to_owned(), rest[..length].to_owned()));
            heard.len() - 1
        };
        received.drain(..head.len() + 4 + length);
        stream.write_all(answer(number).as_bytes()).ok()?;
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

/// Gives whoever comes without a cookie a new one.
fn friendly(number: usize) -> String {
    format!("HTTP/1.1 204 No Content\r\nSet-Cookie: visitor={number}; Path=/; HttpOnly\r\n\r\n")
}

fn loadtest(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mikomi-loadtest"));
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// A short run that a slow machine keeps up with, too.
fn run(address: SocketAddr, more: &[&str]) -> Output {
    let url = format!("http://{address}");
    let mut arguments =
        vec!["run", "--url", &url, "--warm", "0s", "--connections", "4", "--lag-max", "1h"];
    arguments.extend(more);
    loadtest(&arguments)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_run_that_meets_its_objectives_ends_with_0_and_writes_its_files() {
    let (address, heard) = server(friendly);
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (json, html, hlog) = (place("r.json"), place("r.html"), place("r.hlog"));
    let files = ["--json", &json, "--html", &html, "--hlog", &hlog];
    let slos = ["--slo", "errors=0", "--slo", "p99<1h", "--load", "200 for 1s", "--seed", "7"];
    let done = run(address, &[&files[..], &slos].concat());
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let said = text(&done.stdout);
    assert!(said.starts_with("met       errors=0: 0\n"), "{said}");
    assert!(said.contains("seed 7") && text(&done.stderr).contains("target 200/s"));
    let read = |path: &str| std::fs::read_to_string(path).unwrap();
    let report: serde_json::Value = serde_json::from_str(&read(&json)).unwrap();
    assert_eq!(report["requests"]["due"], heard.lock().unwrap().len());
    assert_eq!(report["requests"]["errors"], 0);
    assert!(read(&html).starts_with("<!doctype html>"));
    assert!(read(&hlog).contains("Tag=response,0.000,1.000,"));
    // And it is compared with itself and added to itself.
    let compared = loadtest(&["compare", &json, &json]);
    assert_eq!(compared.status.code(), Some(0));
    let merged = loadtest(&["merge", &json, &json, "--json", &place("sum.json")]);
    assert_eq!(merged.status.code(), Some(0));
    let sum: serde_json::Value = serde_json::from_str(&read(&place("sum.json"))).unwrap();
    let due = report["requests"]["due"].as_u64().unwrap();
    assert_eq!(sum["requests"]["due"], 2 * due);
    assert_eq!(sum["response"]["count"], 2 * due);
}

#[test]
fn a_missed_objective_ends_with_1() {
    fn every_tenth_fails(number: usize) -> String {
        let status = if number % 10 == 9 { "503 Full" } else { "204 No Content" };
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")
    }
    let (address, _) = server(every_tenth_fails);
    let done = run(address, &["--load", "100 for 1s", "--arrivals", "even", "--slo", "errors<5%"]);
    assert_eq!(done.status.code(), Some(1), "{}", text(&done.stdout));
    assert!(text(&done.stdout).starts_with("MISSED    errors<5%: 10.0000 %"));
    assert!(text(&done.stdout).contains("status_503 10"));
}

#[test]
fn hits_refused_in_an_answer_of_204_are_errors_and_dropped_ones_are_shown_by_name() {
    fn some_refused(number: usize) -> String {
        let said = match number % 10 {
            9 => "Mikomi-Rejected: 1 malformed_field=1\r\n",
            8 => "Mikomi-Dropped: gpc\r\n",
            7 => "Mikomi-Dropped: of-another-version\r\n",
            _ => "",
        };
        format!("HTTP/1.1 204 No Content\r\n{said}\r\n")
    }
    let (address, _) = server(some_refused);
    let done = run(address, &["--load", "100 for 1s", "--arrivals", "even", "--slo", "errors<5%"]);
    let said = text(&done.stdout);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.starts_with("MISSED    errors<5%: 10.0000 %"), "{said}");
    assert!(said.contains("errors    rejected_in_part 10\n"), "{said}");
    let counts = "answers   dropped_gpc 10, dropped_other 10, status_204 70\n";
    assert!(said.contains(counts), "{said}");
}

#[test]
fn a_generator_that_lags_ends_with_3_and_says_so_first() {
    let (address, _) = server(friendly);
    // No generator is never late at all.
    let url = format!("http://{address}");
    let load = ["--load", "200 for 1s", "--warm", "0s", "--slo", "errors=0"];
    let done = loadtest(&[&["run", "--url", &url, "--lag-max", "0us"][..], &load].concat());
    assert_eq!(done.status.code(), Some(3));
    assert!(text(&done.stdout).starts_with("INVALID   "), "{}", text(&done.stdout));
}

#[test]
fn what_cannot_be_run_ends_with_4_and_wrong_words_with_2() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = run(free, &["--load", "10 for 1s"]);
    assert_eq!(refused.status.code(), Some(4));
    assert!(text(&refused.stderr).contains(&free.to_string()), "{}", text(&refused.stderr));
    // A key of a site in production, and another machine (an address for documents).
    let url = "http://192.0.2.1:1";
    let done = loadtest(&["run", "--url", url, "--site", "www", "--load", "10 for 1s"]);
    assert_eq!(done.status.code(), Some(4));
    assert!(text(&done.stderr).contains("--production"));
    assert_eq!(loadtest(&["run", "--load", "fast"]).status.code(), Some(2));
    assert_eq!(loadtest(&["run", "--slo", "p99"]).status.code(), Some(2));
}

#[test]
fn visitors_bring_their_cookies_and_no_hit_has_the_id_of_another() {
    let (address, heard) = server(friendly);
    let folder = tempfile::tempdir().unwrap();
    let scenario = folder.path().join("own.toml");
    let few = "[visitors]\ncount = 20\n[noise]\nduplicates = 0.0\nrobots = 0.0\n\
               [requests]\npixel = 0.0\nbeacon = 1.0\nbatch = 0.0\n";
    std::fs::write(&scenario, few).unwrap();
    let scenario = scenario.to_str().unwrap();
    let done = run(address, &["--scenario", scenario, "--load", "400 for 1s", "--threads", "2"]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let heard = heard.lock().unwrap();
    let (mut ids, mut with_cookie) = (BTreeMap::new(), 0);
    for (head, body) in heard.iter() {
        let hit: serde_json::Value = serde_json::from_str(body).unwrap();
        *ids.entry(hit["i"].as_str().unwrap().to_owned()).or_insert(0) += 1;
        with_cookie +=
            usize::from(header(head, "cookie").is_some_and(|it| it.starts_with("visitor=")));
    }
    assert_eq!(ids.len(), heard.len());
    // Only while a visitor's first answer is still to come can another request have none.
    assert!(with_cookie > heard.len() / 2, "{with_cookie} of {}", heard.len());
}

#[test]
fn any_other_collector_gets_the_request_that_was_asked_for() {
    let (address, heard) = server(friendly);
    let url = format!("http://{address}/track?idsite=1");
    let how = ["--warm", "0s", "--lag-max", "1h", "--body", "x=1", "--header", "X-Key: abc"];
    let done = loadtest(&[&["run", "--url", &url, "--load", "50 for 1s"][..], &how].concat());
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let heard = heard.lock().unwrap();
    for (head, body) in heard.iter() {
        assert!(head.starts_with("POST /track?idsite=1 HTTP/1.1\r\n"), "{head}");
        assert_eq!((header(head, "x-key"), body.as_str()), (Some("abc"), "x=1"));
    }
    assert!(!heard.is_empty());
}

#[test]
fn an_access_log_is_played_again_line_for_line() {
    let (address, heard) = server(friendly);
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let line = |second: u32, number: u32| {
        format!(
            "192.0.2.1 - - [29/Nov/2026:14:00:0{second} +0900] \"GET /{number} HTTP/1.1\" 200 1\n"
        )
    };
    let lines: String = (0..20).map(|number| line(number / 10, number)).collect();
    std::fs::write(&log, lines).unwrap();
    let (log, url) = (log.to_str().unwrap(), format!("http://{address}"));
    let how = ["--url", &url, "--speed", "4", "--lag-max", "1h", "--threads", "1"];
    let done = loadtest(&[&["replay", log][..], &how].concat());
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let heard = heard.lock().unwrap();
    let mut paths: Vec<u32> = heard
        .iter()
        .map(|(head, _)| head["GET /".len()..].split(' ').next().unwrap().parse().unwrap())
        .collect();
    paths.sort_unstable();
    assert_eq!(paths, (0..20).collect::<Vec<_>>());
}

#[test]
fn the_sink_takes_what_is_signed_and_refuses_the_rest() {
    let mut sink = Command::new(env!("CARGO_BIN_EXE_mikomi-loadtest"))
        .args(["sink", "--listen", "127.0.0.1:0", "--secret", "whsec_c2VjcmV0IG9mIHRoZSB0ZXN0cw=="])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(sink.stderr.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.split("http://").nth(1).unwrap().split(' ').next().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret of the tests");
    let status = |id: &str, signed: &str, sent: &str| {
        let tag = hmac::sign(&key, format!("{id}.{now}.{signed}").as_bytes());
        let signature = base64::engine::general_purpose::STANDARD.encode(tag);
        let mut stream = TcpStream::connect(address).unwrap();
        let request = format!(
            "POST /hook HTTP/1.1\r\nwebhook-id: {id}\r\nwebhook-timestamp: {now}\r\n\
             webhook-signature: v1,{signature}\r\ncontent-length: {}\r\n\r\n{sent}",
            sent.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[9..]).into_owned()
    };
    assert_eq!(status("msg_1", "{}", "{}"), "204");
    assert_eq!(status("msg_1", "{}", "{}"), "204");
    assert_eq!(status("msg_2", "{}", "[]"), "401");
    drop(sink.stdin.take());
    let done = sink.wait_with_output().unwrap();
    let counts: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(counts, serde_json::json!({ "taken": 1, "repeated": 1, "refused": 1 }));
    assert_eq!(done.status.code(), Some(1));
}

#[test]
fn a_search_finds_a_rate_or_says_that_there_is_none() {
    let (address, _) = server(friendly);
    let url = format!("http://{address}");
    let how =
        ["--warm", "0s", "--step", "200ms", "--lag-max", "1h", "--from", "50", "--max", "100"];
    let search =
        |slo: &str| loadtest(&[&["search", "--url", &url, "--slo", slo][..], &how].concat());
    let found = search("p99<1h");
    assert_eq!(found.status.code(), Some(0));
    assert!(text(&found.stdout).contains("found     100/s is met"), "{}", text(&found.stdout));
    let none = search("p50<0us");
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none.stdout).contains("no rate"));
}
