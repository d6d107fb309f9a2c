//! A public site's access log of four days, told by a server with its key: page views and scores
//! of its visitors agree with an independent count.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};

use support::browser::server_call;
use support::server::{Server, Setup};
use support::test_data;

const LOG: &str = "apache_access_2015_elastic.log.gz";
const TEST: &str =
    "the_visitors_of_an_access_log_have_the_views_and_scores_of_an_independent_count";
/// After the last line of the log.
const NOW: &str = "2015-05-21 09:00";
/// Hits of one request.
const BATCH: usize = 500;

/// One page view of the log as a hit, its device as its title so that it is found again.
fn hit(line: &str) -> Option<Value> {
    let parts: Vec<&str> = line.split('"').collect();
    let [head, request, answer, referrer, _, agent, ""] = parts.as_slice() else {
        return None;
    };
    let (address, rest) = head.split_once(' ')?;
    let target = request.strip_prefix("GET ")?.split(' ').next()?;
    if !answer.trim().starts_with("200 ") {
        return None;
    }
    let path = target.split(['?', '#']).next()?;
    let name = path.rsplit('/').next()?;
    let page = [".html", ".xhtml", ".php"].iter().any(|end| name.ends_with(end));
    if name.contains('.') && !page {
        return None;
    }
    let stamp = rest.split_once('[')?.1.split(']').next()?;
    let time = jiff::fmt::strtime::parse("%d/%b/%Y:%H:%M:%S %z", stamp).unwrap();
    let digest =
        ring::digest::digest(&ring::digest::SHA256, format!("{address} {agent}").as_bytes());
    let device = format!("{:016x}", u64::from_be_bytes(digest.as_ref()[..8].try_into().unwrap()));
    Some(json!({
        "s": "www", "d": device, "t": device, "u": format!("https://www.vendor.example{target}"),
        "r": referrer, "ip": address, "ua": agent,
        "at": time.to_timestamp().unwrap().as_millisecond(),
    }))
}

#[test]
fn the_visitors_of_an_access_log_have_the_views_and_scores_of_an_independent_count() {
    let Some(log) = test_data(LOG, TEST) else {
        return;
    };
    let now = support::at(NOW);
    let server = Server::start(&Setup::new(now, &[]));
    let log = String::from_utf8_lossy(&log).into_owned();
    let hits: Vec<Value> = log.lines().filter_map(hit).collect();
    assert!(hits.len() > 3_000, "{} page views", hits.len());
    for batch in hits.chunks(BATCH) {
        let answer = server_call(&server, &json!(batch));
        assert_eq!((answer.status, answer.header("mikomi-rejected")), (204, None));
    }

    let output = server.asking(&["export", "hits"]).output().unwrap();
    assert!(output.status.success());
    let exported = String::from_utf8(output.stdout).unwrap();
    let mut views = BTreeMap::<String, (u64, String)>::new();
    for line in exported.lines() {
        let hit: Value = serde_json::from_str(line).unwrap();
        assert_eq!(hit["event"], "page_view");
        let visitor = hit["visitor"].as_str().unwrap().to_owned();
        let seen = views.entry(hit["title"].as_str().unwrap().to_owned()).or_default();
        assert!(seen.0 == 0 || seen.1 == visitor, "one device, two visitors");
        *seen = (seen.0 + 1, visitor);
    }

    let folder = env!("CARGO_MANIFEST_DIR");
    let data = std::env::var("MIKOMI_TEST_DATA").unwrap();
    let counted = Command::new("python3")
        .arg(format!("{folder}/tests/count_access_log.py"))
        .arg(format!("{data}/{LOG}"))
        .arg(format!("{folder}/../config/lists/robots.txt"))
        .arg(now.to_string())
        .output()
        .unwrap();
    assert!(counted.status.success(), "{}", String::from_utf8_lossy(&counted.stderr));
    let counted: BTreeMap<String, Value> = serde_json::from_slice(&counted.stdout).unwrap();
    let ours: BTreeMap<&String, u64> =
        views.iter().map(|(device, seen)| (device, seen.0)).collect();
    let theirs: BTreeMap<&String, u64> =
        counted.iter().map(|(device, it)| (device, it["views"].as_u64().unwrap())).collect();
    assert_eq!(ours, theirs);

    let (mut compared, mut scored) = (0, 0);
    for (device, (count, visitor)) in views.iter().filter(|(_, (count, _))| *count >= 2) {
        let known = server.get(&format!("/api/visitors/{visitor}"));
        assert_eq!((&known["hits"], &known["pages"]), (&json!(count), &json!(count)), "{device}");
        let (ours, theirs) = (known["exact"].as_f64().unwrap(), &counted[device]["score"]);
        let theirs = theirs.as_f64().unwrap();
        assert!((ours - theirs).abs() < 0.002, "{device}: {ours} is not {theirs}: {known:#}");
        compared += 1;
        scored += usize::from(ours > 0.0);
    }
    println!(
        "{} page views, {} visitors, {compared} compared, {scored} above 0",
        hits.len(),
        views.len()
    );
    assert!(compared > 300 && scored > 50, "{compared} compared, {scored} above 0");
}
