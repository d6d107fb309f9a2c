//! Who is not tracked, who may not send, and what a browser is never told.

use serde_json::{Value, json};

use crate::support::at;
use crate::support::browser::{Browser, server_call, server_call_with};
use crate::support::http::Client;
use crate::support::server::{SERVER_KEY, Server, Setup, listeners, site};

/// Two sites: one that assumes consent, and one that needs it.
fn two_sites() -> Server {
    let mut setup = Setup::new(at("2026-12-01 09:00"), &[]);
    let www = site("www", "assumed", "https://www.vendor.example");
    let strict = site("strict", "required", "https://strict.example");
    setup.mikomi = format!("{}{www}{strict}", listeners("", ""));
    Server::start(&setup)
}

fn on_strict(server: &Server) -> Browser {
    let mut browser = Browser::new(server, 7);
    browser.site = "strict".into();
    browser.origin = "https://strict.example".into();
    browser
}

/// Sends a page view that must be dropped, and checks that nothing is left of it.
#[track_caller]
fn dropped(server: &Server, browser: &mut Browser, more: &Value, reason: &str) {
    browser.visit("/pricing/");
    let hit = browser.hit(more);
    let answer = browser.beacon(hit.to_string().as_bytes());
    assert_eq!((answer.status, answer.header("mikomi-dropped")), (204, Some(reason)));
    assert_eq!(answer.header("set-cookie"), None);
    let query = format!(
        "/p.gif?s={}&u={}%2F&c={}",
        browser.site,
        browser.origin,
        if more["c"] == json!(0) { "0" } else { "" }
    );
    let answer = browser.send("GET", &query, b"");
    assert_eq!((answer.status, answer.header("mikomi-dropped")), (200, Some(reason)));
    assert_eq!(answer.header("set-cookie"), None);
    assert_eq!(server.hits(), Vec::<Value>::new(), "something was journaled");
}

#[test]
fn without_consent_where_it_is_required_nothing_is_kept_and_no_cookie_is_set() {
    let server = two_sites();
    let mut browser = on_strict(&server);
    dropped(&server, &mut browser, &json!({}), "consent");
    dropped(&server, &mut browser, &json!({ "c": 0 }), "consent");
    assert_eq!(server.figure("mikomi_dropped_hits_total"), 4);
    browser.visit("/");
    let hit = browser.hit(&json!({ "c": 1 }));
    let answer = browser.beacon(hit.to_string().as_bytes());
    assert_eq!((answer.status, answer.header("mikomi-dropped")), (204, None));
    assert!(browser.jar.contains_key("mikomi"));
    assert_eq!(server.hits().len(), 1);
}

#[test]
fn whoever_denies_consent_asks_not_to_be_tracked_or_looks_ahead_leaves_nothing() {
    let server = two_sites();
    let mut browser = Browser::new(&server, 7);
    dropped(&server, &mut browser, &json!({ "c": 0 }), "consent");
    browser.extra = vec![("sec-gpc".into(), "1".into())];
    dropped(&server, &mut browser, &json!({}), "gpc");
    browser.extra = vec![("sec-purpose".into(), "prefetch".into())];
    dropped(&server, &mut browser, &json!({}), "prefetch");
    browser.extra.clear();
    browser.jar.insert("mikomi_optout".into(), "1".into());
    dropped(&server, &mut browser, &json!({ "c": 1 }), "opt_out");
}

#[test]
fn opting_out_takes_the_cookie_away_and_lasts() {
    let server = two_sites();
    let mut browser = Browser::returning(&server, 7);
    assert!(browser.send("GET", "/optout", b"").text().contains("<form method=post>"));
    let answer = browser.send("POST", "/optout", b"");
    assert_eq!(answer.status, 200);
    assert!(!browser.jar.contains_key("mikomi") && browser.jar.contains_key("mikomi_optout"));
    browser.visit("/pricing/");
    let hit = browser.hit(&json!({}));
    let answer = browser.beacon(hit.to_string().as_bytes());
    assert_eq!(answer.header("mikomi-dropped"), Some("opt_out"));
    assert_eq!(server.hits().len(), 1, "only what came before");
}

#[test]
fn who_may_not_send_is_told_why() {
    let server = two_sites();
    let before = server.figure("mikomi_rejected_hits_total");
    let hit = json!({ "s": "www", "u": "https://www.vendor.example/" });
    let error = |answer: crate::support::http::Answer| {
        (answer.status, answer.json()["error"].as_str().unwrap().to_owned())
    };
    let is = |status: u16, name: &str| (status, name.to_owned());
    let mut stranger = Browser::new(&server, 1);
    stranger.origin = "https://evil.example".into();
    let answer = stranger.beacon(hit.to_string().as_bytes());
    assert_eq!(answer.header("access-control-allow-origin"), None);
    assert_eq!(error(answer), is(403, "origin_not_listed"));
    let unknown = json!({ "s": "nobody", "u": "https://www.vendor.example/" });
    let mut browser = Browser::new(&server, 2);
    let answer = browser.beacon(unknown.to_string().as_bytes());
    assert_eq!(error(answer), is(404, "unknown_site"));
    for key in ["", "sk_wrong_0123456789abcdef", &format!("{SERVER_KEY}1")] {
        assert_eq!(error(server_call_with(&server, key, &hit)), is(401, "bad_key"), "{key}");
    }
    assert_eq!(error(browser.send("GET", "/b", b"")), is(405, "method_not_allowed"));
    assert_eq!(error(browser.send("GET", "/wp-login.php", b"")), is(404, "unknown_path"));
    assert_eq!(server.figure("mikomi_rejected_hits_total"), before + 7);
    assert_eq!(server.hits(), Vec::<Value>::new());
}

#[test]
fn a_body_that_is_too_large_is_refused_by_name() {
    let server = two_sites();
    let mut browser = Browser::new(&server, 2);
    let answer = browser.beacon(&vec![b' '; 1_048_577]);
    assert_eq!((answer.status, &answer.json()["error"]), (413, &json!("body_too_large")));
    assert_eq!(server.figure("mikomi_rejected_hits_total"), 1);
}

#[test]
fn a_batch_keeps_what_is_right_and_says_what_is_not() {
    let server = two_sites();
    let mut browser = Browser::returning(&server, 1);
    let good = browser.hit(&json!({ "u": "https://www.vendor.example/case/line" }));
    let garbage = browser.hit(&json!({ "e": "identify", "id": { "user_id": "undefined" } }));
    let nowhere = browser.hit(&json!({ "u": "javascript:alert(1)" }));
    let answer = browser.beacon(json!([garbage, good, nowhere]).to_string().as_bytes());
    assert_eq!(answer.status, 204);
    let rejected = answer.header("mikomi-rejected");
    assert_eq!(rejected, Some("2 identity_garbage=1 malformed_field=1"));
    let lines = format!("{garbage}\n{nowhere}\n");
    let answer = browser.beacon(lines.as_bytes());
    assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("identity_garbage")));
    assert_eq!(server.hits().len(), 2);
}

#[test]
fn every_new_name_counts_towards_the_people_claimed_an_hour_and_a_known_one_does_not() {
    let mut setup = Setup::new(at("2026-12-01 09:00"), &[]);
    let www = site("www", "assumed", "https://www.vendor.example");
    setup.mikomi = format!("{}{www}", listeners("", "claims_per_hour_max = 2\n"));
    let server = Server::start(&setup);
    let mut browser = Browser::returning(&server, 1);
    let mut says = |id: Value| {
        let hit = browser.hit(&json!({ "e": "identify", "id": id }));
        let answer = browser.beacon(hit.to_string().as_bytes());
        (answer.status, answer.text().contains("claim_quota"))
    };
    assert_eq!(says(json!({ "user_id": "u1" })), (204, false));
    assert_eq!(says(json!({ "user_id": "u1", "crm_id": "c1" })), (204, false));
    assert_eq!(says(json!({ "user_id": "u1", "crm_id": "c1" })), (204, false), "none is new");
    let third = json!({ "user_id": "u1", "crm_id": "c1", "email": "a@buyer.example" });
    assert_eq!(says(third), (429, true));
}

#[test]
fn a_page_listed_may_read_its_answer_and_no_other() {
    let server = two_sites();
    let mut browser = Browser::new(&server, 1);
    let answer = browser.send("OPTIONS", "/b", b"");
    assert_eq!(answer.status, 204);
    let allowed = answer.header("access-control-allow-origin");
    assert_eq!(allowed, Some("https://www.vendor.example"));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    browser.origin = "https://evil.example".into();
    let answer = browser.send("OPTIONS", "/b", b"");
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[test]
fn a_pixel_is_a_hit_and_a_look_at_its_head_is_none() {
    let server = two_sites();
    let mut browser = Browser::new(&server, 1);
    let target =
        "/p.gif?s=www&u=https%3A%2F%2Fwww.vendor.example%2Fcase%2Fline&t=%E4%BA%8B%E4%BE%8B";
    let answer = browser.send("HEAD", target, b"");
    assert_eq!((answer.status, server.hits().len()), (200, 0));
    let answer = browser.send("GET", target, b"");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("image/gif")));
    assert_eq!(&answer.body[..6], b"GIF89a");
    let cookie = answer.header("set-cookie").unwrap();
    assert!(cookie.starts_with("mikomi=v1.") && cookie.contains("HttpOnly; SameSite=Lax; Path=/"));
    assert!(!cookie.contains("Secure"), "a browser drops it over plain http");
    let hits = server.hits();
    assert_eq!((&hits[0]["path"], &hits[0]["title"]), (&json!("/case/line"), &json!("事例")));
    let answer = browser.send("GET", "/p.gif?s=nobody&u=https%3A%2F%2Fa.example", b"");
    assert_eq!((answer.status, &answer.body[..6]), (404, b"GIF89a".as_slice()));
}

#[test]
fn a_page_token_stands_in_for_a_cookie_that_the_browser_does_not_keep() {
    let server = two_sites();
    let mut browser = Browser::new(&server, 1);
    let answer = browser.send("POST", "/b?t=1", br#"{"s":"www"}"#);
    let token = answer.json()["v"].as_str().unwrap().to_owned();
    assert_eq!(answer.json()["ttl_ms"], 1_800_000);
    for path in ["/case/a", "/case/b"] {
        browser.visit(path);
        browser.jar.clear();
        let hit = browser.hit(&json!({ "v": token }));
        assert_eq!(browser.beacon(hit.to_string().as_bytes()).status, 204);
    }
    let hits = server.hits();
    assert_eq!(hits.len(), 2);
    assert_eq!(hits[0]["visitor"], hits[1]["visitor"]);
    browser.origin = "https://strict.example".into();
    browser.site = "strict".into();
    let hit = browser.hit(&json!({ "v": token, "c": 1 }));
    let answer = browser.beacon(hit.to_string().as_bytes());
    assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("bad_token")));
}

#[test]
fn a_server_says_who_a_device_is_and_its_history_comes_along_verified() {
    let server = two_sites();
    let when = at("2026-11-30 10:00");
    let hits = json!([
        { "s": "www", "d": "phone-1", "u": "https://www.vendor.example/pricing/", "at": when },
        { "s": "www", "e": "identify", "d": "phone-1", "at": when + 60_000,
          "id": {
              "user_id": 7, "email": "Sato@Buyer.Example", "attributes": { "company": "Buyer" },
          } },
    ]);
    let answer = server_call(&server, &hits);
    assert_eq!((answer.status, answer.header("mikomi-rejected")), (204, None));
    let lead = server.lead("buyer");
    assert_eq!(
        (&lead["assurance"], &lead["email"]),
        (&json!("verified"), &json!("sato@buyer.example"))
    );
    assert_eq!(lead["attributes"]["user_id"], "7");
    assert_eq!(lead["history"]["anonymous_hits_attached"], 1);
    let rows = &lead["score"]["rows"];
    assert_eq!((&rows[0]["rule"], &rows[0]["granted"]), (&json!("pricing"), &json!(12.0)));
    assert_eq!(server.hits()[0]["when_ms"], when);
}

#[test]
fn the_script_is_served_as_it_stands_and_once() {
    let server = two_sites();
    let mut client = Client::new(server.collector());
    let first = client.send("GET", "/m.js", &[], b"").unwrap();
    assert_eq!(first.text(), collector::route::SCRIPT);
    let tag = first.header("etag").unwrap();
    let second = client.send("GET", "/m.js", &[("if-none-match", tag)], b"").unwrap();
    assert_eq!((second.status, second.body.len()), (304, 0));
}

#[test]
fn a_hit_sent_again_counts_once_even_if_it_was_the_browser_s_first() {
    let server = two_sites();
    let mut browser = Browser::new(&server, 1);
    browser.visit("/pricing/");
    let first = browser.hit(&json!({}));
    assert_eq!(browser.beacon(first.to_string().as_bytes()).status, 204);
    // The page left before it saw the answer, so the next one sends it again.
    browser.visit("/case/line");
    let second = browser.hit(&json!({}));
    let batch = json!([first, second, second]).to_string();
    assert_eq!(browser.beacon(batch.as_bytes()).status, 204);
    assert_eq!(browser.beacon(batch.as_bytes()).status, 204);
    let visitor = server.hits()[0]["visitor"].as_str().unwrap().to_owned();
    let known = server.get(&format!("/api/visitors/{visitor}"));
    assert_eq!((&known["exact"], &known["pages"]), (&json!(16.0), &json!(2)), "{known:#}");
    // Of six: her first hit is recorded again with her admission, and counts there only.
    assert_eq!(server.figure("mikomi_duplicate_hits_total"), 4);
}

#[test]
fn a_hit_that_comes_late_counts_from_when_it_happened_and_no_longer_ago_than_a_day() {
    let server = two_sites();
    let mut browser = Browser::returning(&server, 1);
    let hour = 3_600_000;
    // The browser's clock is wrong by a year, and its difference is right.
    for (ago, believed) in [(2 * hour, 2 * hour), (40 * hour, 24 * hour)] {
        browser.visit("/case/line");
        let hit =
            browser.hit(&json!({ "at": 1_000_000_000_000_u64 - ago, "st": 1_000_000_000_000_u64 }));
        assert_eq!(browser.beacon(hit.to_string().as_bytes()).status, 204);
        assert_eq!(server.hits().last().unwrap()["when_ms"], server.now() - believed);
    }
}

#[test]
fn robots_our_own_office_and_colleagues_are_recorded_and_worth_nothing() {
    let mut setup = Setup::new(at("2026-12-01 09:00"), &[]);
    let www = site("www", "assumed", "https://www.vendor.example");
    let proxy = "trusted_proxies = [\"127.0.0.0/8\"]";
    setup.mikomi = format!("{}{www}", listeners(proxy, ""));
    let server = Server::start(&setup);
    let robot = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
    for (number, header, value, excluded) in [
        (1, "user-agent", robot, "robot"),
        (2, "x-forwarded-for", "203.0.113.9", "network"),
        (3, "x-forwarded-for", "198.51.100.77", ""),
    ] {
        let mut browser = Browser::new(&server, number);
        browser.extra = vec![(header.into(), value.into())];
        browser.page("/", "");
        browser.page("/pricing/", "");
        let hit = server.hits().pop().unwrap();
        assert_eq!(hit["excluded"].as_str().unwrap_or_default(), excluded, "{value}");
        let visitor = hit["visitor"].as_str().unwrap();
        let points = if excluded.is_empty() { 12 } else { 0 };
        assert_eq!(server.get(&format!("/api/visitors/{visitor}"))["points"], points, "{value}");
    }
    assert_eq!(server.hits().pop().unwrap()["network"], "198.51.100.0", "cut before it is kept");
    let mut colleague = Browser::returning(&server, 4);
    colleague.form("rep@ours.example", &json!({}), "/thanks/contact/ok", "");
    assert_eq!(server.get("/api/state")["leads"], 0);
}
