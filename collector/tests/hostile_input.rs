//! Inputs that others have collected to break parsers, in every place where a browser or a server
//! can put them: the server lives, says why, counts, and never answers 5xx.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use collector::ingest::{Dropped, Reject};
use serde_json::{Value, json};

use support::browser::{Browser, server_call};
use support::http::Answer;
use support::server::{Server, Setup};
use support::{at, test_data};

/// Counts what is refused, and holds the server to saying why.
struct Judge {
    server: Server,
    browser: Browser,
    kept: u64,
    refused: u64,
}

impl Judge {
    fn new() -> Judge {
        let server = Server::start(&Setup::new(at("2026-12-07 10:00"), &[]));
        let browser = Browser::returning(&server, 1);
        Judge { server, browser, kept: 0, refused: 0 }
    }

    /// Judges an answer; returns its status.
    #[track_caller]
    fn judge(&mut self, answer: &Answer, what: &str) -> u16 {
        let (status, raw) = (answer.status, answer.raw());
        assert!(status < 500, "{what}: {raw}");
        let listed = answer.header("mikomi-rejected").map(|reasons| {
            let mut words = reasons.split(' ');
            let count: u64 = words.next().unwrap().parse().unwrap();
            let mut sum = 0;
            for (name, times) in words.map(|word| word.split_once('=').unwrap()) {
                assert!(Reject::NAMES.contains(&name), "{what}: {raw}");
                sum += times.parse::<u64>().unwrap();
            }
            assert_eq!(sum, count, "{what}: {raw}");
            count
        });
        if let Some(dropped) = answer.header("mikomi-dropped") {
            assert!(Dropped::ALL.iter().any(|known| known.name() == dropped), "{what}: {raw}");
        }
        let is_image = answer.header("content-type") == Some("image/gif");
        if status >= 400 && !is_image {
            let error = answer.json()["error"].as_str().unwrap().to_owned();
            assert!(Reject::NAMES.contains(&error.as_str()), "{what}: {raw}");
        }
        match listed {
            Some(count) => self.refused += count,
            None if status >= 400 => self.refused += 1,
            None => self.kept += 1,
        }
        status
    }

    #[track_caller]
    fn beacon(&mut self, body: &[u8], what: &str) -> u16 {
        let answer = self.browser.beacon(body);
        self.judge(&answer, what)
    }

    #[track_caller]
    fn pixel(&mut self, query: &str, what: &str) -> u16 {
        let answer = self.browser.send("GET", &format!("/p.gif?{query}"), b"");
        self.judge(&answer, what)
    }

    /// At the end everything refused was counted, and the server still does its work.
    #[track_caller]
    fn end(mut self) {
        let (before, refused) = (self.refused, self.server.figure("mikomi_rejected_hits_total"));
        assert_eq!(refused, before, "refused by the answers, and by the counters");
        assert_eq!(self.server.figure("mikomi_panics_total"), 0);
        self.browser.page("/pricing/", "the end");
        let hits = self.server.hits();
        assert_eq!(hits.last().unwrap()["title"], "the end");
        let state = self.server.get("/api/state");
        let hash = state["hash"].clone();
        self.server.get("/api/leads?limit=500");
        self.server.kill();
        self.server.restart();
        assert_eq!(self.server.get("/api/state")["hash"], hash, "live is replay");
        println!("{} kept, {} refused by name", self.kept, self.refused);
    }
}

/// The files of a tar archive: name and content.
fn untar(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let text = |field: &[u8]| {
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
        String::from_utf8_lossy(&field[..end]).trim().to_owned()
    };
    let mut files = Vec::new();
    let mut rest = archive;
    while rest.len() >= 512 && rest[0] != 0 {
        let (name, kind) = (text(&rest[..100]), rest[156]);
        let size = usize::from_str_radix(&text(&rest[124..136]), 8).unwrap();
        if kind == b'0' || kind == 0 {
            files.push((name, rest[512..512 + size].to_vec()));
        }
        rest = &rest[512 + size.next_multiple_of(512)..];
    }
    files
}

fn is_web(href: &str) -> bool {
    href.starts_with("http:") || href.starts_with("https:")
}

/// Everything that is not plain in a query, encoded.
fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[test]
fn every_json_case_is_taken_or_refused_by_name() {
    let name = "every_json_case_is_taken_or_refused_by_name";
    let Some(archive) = test_data("JSONTestSuite_cases.tar.gz", name) else {
        return;
    };
    let cases = untar(&archive);
    let cases: Vec<_> = cases.into_iter().filter(|(name, _)| name.contains("/test_")).collect();
    assert!(cases.len() >= 318, "{} cases", cases.len());
    let mut judge = Judge::new();
    for (name, case) in &cases {
        let file = name.rsplit('/').next().unwrap();
        let status = judge.beacon(case, file);
        assert!(status >= 400, "{file} is no hit: {status}");
        // As the value of a property of an otherwise good hit.
        let mut hit = br#"{"s":"www","u":"https://www.vendor.example/","e":"x","p":{"v":"#.to_vec();
        hit.extend_from_slice(case);
        hit.extend_from_slice(b"}}");
        let status = judge.beacon(&hit, file);
        if file.starts_with("n_") && !file.contains("structure") {
            assert_eq!(status, 400, "{file} must not be taken");
        }
        let scalar = ["y_string", "y_number"].iter().any(|kind| file.starts_with(kind));
        if scalar && !case.contains(&b'[') {
            assert_eq!(status, 204, "{file} must be taken");
        }
    }
    judge.end();
}

#[test]
fn every_url_is_taken_as_the_standard_reads_it_or_refused_by_name() {
    let name = "every_url_is_taken_as_the_standard_reads_it_or_refused_by_name";
    let Some(cases) = test_data("whatwg_urltestdata.json.gz", name) else {
        return;
    };
    let cases: Vec<Value> = serde_json::from_slice(&cases).unwrap();
    let cases: Vec<&Value> = cases.iter().filter(|case| case.is_object()).collect();
    assert!(cases.len() > 500, "{} cases", cases.len());
    let mut judge = Judge::new();
    let mut expected = BTreeMap::new();
    let mut failures = 0;
    for (number, case) in cases.iter().enumerate() {
        let input = case["input"].as_str().unwrap();
        let title = format!("url {number}");
        let what = format!("{title} {input:?}");
        let hit = judge.browser.hit(&json!({ "u": input, "t": title }));
        let status = judge.beacon(hit.to_string().as_bytes(), &what);
        let query = format!("s=www&t=pixel&u={}", encoded(input));
        assert_eq!(
            judge.pixel(&query, &what) >= 400,
            status >= 400,
            "{what}: beacon and pixel differ"
        );
        let alone = matches!(case["base"].as_str(), None | Some("about:blank"));
        let href = case["href"].as_str().unwrap_or_default();
        if alone && case["failure"] == true {
            failures += 1;
            assert_eq!(status, 400, "{what}");
        }
        let plain = case["username"] == "" && case["password"] == "" && href.len() < 1_000;
        if alone && is_web(href) && plain {
            assert_eq!(status, 204, "{what}");
            expected.insert(title, href.split(['?', '#']).next().unwrap().to_owned());
        }
    }
    assert!(failures > 100 && expected.len() > 50, "{failures}, {}", expected.len());
    for hit in judge.server.hits() {
        let Some(href) = expected.remove(hit["title"].as_str().unwrap()) else {
            continue;
        };
        let url = hit["url"].as_str().unwrap();
        assert_eq!(url.split(['?', '#']).next(), Some(href.as_str()));
    }
    assert_eq!(expected, BTreeMap::new(), "kept, and not in the journal");
    judge.end();
}

#[test]
fn every_naughty_string_is_taken_or_refused_by_name_wherever_it_stands() {
    let name = "every_naughty_string_is_taken_or_refused_by_name_wherever_it_stands";
    let Some(cases) = test_data("blns_by_category.jsonl.gz", name) else {
        return;
    };
    let cases = String::from_utf8(cases).unwrap();
    let strings: Vec<String> = cases
        .lines()
        .map(|line| {
            let case: Value = serde_json::from_str(line).unwrap();
            let bytes = STANDARD.decode(case["b64"].as_str().unwrap()).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        })
        .collect();
    assert!(strings.len() > 600, "{} strings", strings.len());
    let mut judge = Judge::new();
    let mut heads = 0;
    for naughty in &strings {
        let places = [
            json!({ "t": naughty }),
            json!({ "e": naughty }),
            json!({ "e": "x", "p": { naughty: naughty } }),
            json!({ "r": naughty, "n": naughty, "c": naughty }),
            json!({
                "e": "identify",
                "id": { "email": "a@b.example", "attributes": { "name": naughty } },
            }),
            json!({ "e": "identify", "id": { "email": naughty } }),
            json!({ "e": "identify", "id": { "user_id": naughty, "attributes": { naughty: 1 } } }),
            json!({ "v": naughty, "d": naughty, "ip": naughty, "ua": naughty }),
        ];
        for place in &places {
            judge.browser.visit("/naughty");
            let hit = judge.browser.hit(place);
            judge.beacon(hit.to_string().as_bytes(), &format!("{place}"));
        }
        for place in [&places[0], &places[7]] {
            let mut hit = judge.browser.hit(place);
            hit["id"] = json!({ "crm_id": naughty });
            let answer = server_call(&judge.server, &hit);
            judge.judge(&answer, &format!("server {place}"));
        }
        judge.browser.extra = vec![("cookie".into(), printable(naughty))];
        let hit = judge.browser.hit(&json!({}));
        judge.beacon(hit.to_string().as_bytes(), &format!("cookie {naughty:?}"));
        judge.browser.extra.clear();
        let all = encoded(naughty);
        judge.pixel(
            &format!("s=www&u=https%3A%2F%2Fwww.vendor.example%2F{all}&t={all}&e={all}&i={all}"),
            &format!("pixel {naughty:?}"),
        );
        let raw: String = naughty.chars().filter(char::is_ascii_graphic).collect();
        let raw = raw.replace('#', "");
        let target = format!("/p.gif?s=www&u=https://www.vendor.example/&{raw}");
        let answer = judge.browser.send("GET", &target, b"");
        if raw.contains(['"', '<', '>']) {
            // No request target holds these: the head is refused, by its own name.
            assert_eq!((answer.status, answer.text().trim()), (400, "malformed target"), "{raw}");
            heads += 1;
        } else {
            judge.judge(&answer, &format!("raw {raw:?}"));
        }
    }
    assert!(heads > 50, "{heads}");
    assert_eq!(judge.server.figure("mikomi_collector_connections_malformed"), heads);
    judge.end();
}

/// What a header may hold of a text: no control characters.
fn printable(text: &str) -> String {
    let kept: String = text.chars().filter(|c| !c.is_control()).take(500).collect();
    format!("a={kept}; mikomi={kept}")
}
