//! Links that we sign: a click proves whose mail it was and leads on at once, a scanner's clicks
//! are nobody's, a forwarded link joins nobody, and no edit leads elsewhere.

use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::http::Client;
use crate::support::server::{Server, Setup, listeners, site};
use crate::support::story::{TANAKA, drain, reads};
use crate::support::{about, at, wait_for};
use crate::told;

const PAGE: &str = "https://www.vendor.example/lp/line-automation";

/// Links of one mail to one person.
fn links(server: &Server, email: &str, count: usize, more: &Value) -> Vec<String> {
    let made = (0..count).map(|number| {
        let mut wish = json!({
            "site": "www", "mail": "newsletter-2026-12", "title": "ライン自動化キャンペーン",
            "url": format!("{PAGE}?n={number}"), "to": [{ "email": email }],
        });
        for (name, value) in more.as_object().unwrap() {
            wish[name] = value.clone();
        }
        let answer = server.post("/api/mail-links", &wish);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let url = answer.json()["links"][0]["url"].as_str().unwrap().to_owned();
        match url.find("/c/").or(url.find("/o/")) {
            Some(at) => url[at..].to_owned(),
            None => url,
        }
    });
    made.collect()
}

#[test]
fn a_click_proves_whose_mail_it_was_and_leads_on_at_once() {
    let (server, receiver) = told("2026-12-01 08:00");
    let mut her = reads(&server);
    server.to("2026-12-07 08:55");
    let link = links(&server, TANAKA, 1, &json!({})).remove(0);
    let answer = her.send("GET", &link, b"");
    assert_eq!(answer.status, 302);
    assert!(answer.header("location").unwrap().starts_with(&format!("{PAGE}?n=0&mk=")));
    let lead = server.lead_by(TANAKA);
    about(&lead["exact"], 57.925);
    assert_eq!(
        (&lead["assurance"], &lead["confirmed_by"]),
        (&json!("verified"), &json!("mail_click"))
    );
    server.to("2026-12-07 08:56");
    her.page("/pricing/", "料金プラン");
    let hot = receiver.wait_about(TANAKA, 1).remove(0).json();
    about(&hot["data"]["score"]["exact"], 69.923);
    let clicked = &hot["data"]["recent"][1];
    assert_eq!((&clicked["event"], &clicked["url"]), (&json!("mail_click"), &json!(PAGE)));
    assert_eq!(hot["data"]["history"]["last_source"], "newsletter-2026-12 / email");
    crate::browsers_learned_nothing(&server);
}

#[test]
fn a_scanner_that_opens_every_link_earns_nothing_and_her_own_click_counts() {
    let (server, receiver) = told("2026-12-01 08:00");
    let mut her = reads(&server);
    server.to("2026-12-07 08:45");
    let before = server.exact(TANAKA);
    let five = links(&server, TANAKA, 5, &json!({}));
    // One that keeps no cookies, and one that does.
    for cookies in [false, true] {
        let mut scanner = Browser::new(&server, 50);
        for link in &five {
            for method in ["HEAD", "GET"] {
                let answer = scanner.send(method, link, b"");
                assert_eq!(answer.status, 302);
                let to = answer.header("location").unwrap();
                assert!(!to.contains("mk="), "a machine is handed a token: {to}");
                if !cookies {
                    scanner.jar.clear();
                }
            }
        }
    }
    assert_eq!(server.exact(TANAKA), before);
    assert_eq!(server.lead_by(TANAKA)["assurance"], "claimed", "a machine proves nobody");
    // Whoever is led on does not wait for the journal.
    wait_for("ten clicks of a machine", || {
        let hits = server.hits();
        let scanned = hits.iter().filter(|hit| hit["excluded"] == "scanner").count();
        assert!(scanned <= 10, "{scanned}");
        (scanned == 10).then_some(())
    });
    server.to("2026-12-07 08:55");
    her.send("GET", &five[0], b"");
    about(&server.exact(TANAKA), 57.925);
    drain(&server, &receiver, 1);
    assert!(receiver.about(TANAKA).is_empty());
}

#[test]
fn a_scanner_that_looks_like_a_browser_is_known_at_its_second_link_and_the_first_is_withdrawn() {
    let (server, _receiver) = told("2026-12-07 08:00");
    let mut scanner = Browser::returning(&server, 50);
    scanner.page("/column/dx", "");
    let links = links(&server, TANAKA, 3, &json!({}));
    scanner.send("GET", &links[0], b"");
    about(&server.exact(TANAKA), 6.0);
    server.pass_ms(900);
    scanner.send("GET", &links[1], b"");
    scanner.send("GET", &links[2], b"");
    wait_for("the first click to be withdrawn", || {
        (server.exact(TANAKA) == 0.0 && server.lead_by(TANAKA)["links"] == json!([])).then_some(())
    });
    scanner.page("/pricing/", "");
    assert_eq!(server.exact(TANAKA), 0.0, "its browser is nobody's");
}

#[test]
fn a_landing_token_names_an_anonymous_browser_and_a_forwarded_one_nobody() {
    let (server, _receiver) = told("2026-12-07 08:00");
    let page = links(&server, TANAKA, 1, &json!({ "kind": "landing", "uses": 2 })).remove(0);
    let path = page.strip_prefix("https://www.vendor.example").unwrap();
    // The address with its token, as the script sends it.
    let mut fresh = Browser::returning(&server, 1);
    fresh.page(path, "");
    let lead = server.lead_by(TANAKA);
    assert_eq!((&lead["assurance"], &lead["links"][0]["hits"]), (&json!("verified"), &json!(2)));
    assert_eq!(lead["confirmed_by"], "link");
    // She passes it on; whoever opens it is known already, as somebody else.
    let mut other = Browser::returning(&server, 2);
    other.identify("b@second.example", &json!({}));
    other.page(path, "");
    other.page("/pricing/", "");
    assert_eq!(server.lead_by(TANAKA)["links"].as_array().unwrap().len(), 1, "nothing moved");
    about(&server.exact("b@second.example"), 12.0);
    let questions = wait_for("a question", || {
        let found = server.get("/api/review")["questions"].as_array().unwrap().clone();
        (!found.is_empty()).then_some(found)
    });
    assert_eq!(questions[0]["asked"][0]["question"], "forwarded");
    // Used as often as it may be: it names nobody any more, and is a page like any other.
    let mut third = Browser::returning(&server, 3);
    third.page(path, "");
    assert_eq!(server.lead_by(TANAKA)["links"].as_array().unwrap().len(), 1);
    assert_eq!(server.figure("mikomi_links_used_up_total"), 1);
    let hits = server.hits();
    let token = page.split("mk=").nth(1).unwrap();
    let kept = hits.iter().any(|hit| hit.to_string().contains(token));
    assert!(!kept && !token.is_empty(), "the token is never kept");
}

/// Where a click leads.
fn led_to(browser: &mut Browser, link: &str) -> String {
    let answer = browser.send("GET", link, b"");
    assert_eq!(answer.status, 302);
    answer.header("location").unwrap().to_owned()
}

#[test]
fn a_click_past_its_uses_leads_on_and_hands_no_token_to_the_page_also_after_a_restart() {
    let (mut server, _receiver) = told("2026-12-07 08:00");
    let link = links(&server, TANAKA, 1, &json!({ "uses": 1 })).remove(0);
    let plain = format!("{PAGE}?n=0");
    let mut her = Browser::returning(&server, 1);
    assert!(led_to(&mut her, &link).starts_with(&format!("{plain}&mk=")));
    let mut other = Browser::returning(&server, 2);
    assert_eq!(led_to(&mut other, &link), plain);
    server.kill();
    server.restart();
    assert_eq!(led_to(&mut other, &link), plain);
    other.page("/pricing/", "");
    assert_eq!(server.lead_by(TANAKA)["links"].as_array().unwrap().len(), 1);
}

#[test]
fn a_token_is_handed_to_the_sites_own_pages_only() {
    let (server, _receiver) = told("2026-12-07 08:00");
    let mut her = Browser::returning(&server, 1);
    for foreign in ["https://www.partner.example/", "https://vendor.example.evil.example/?x=1"] {
        let link = links(&server, TANAKA, 1, &json!({ "url": foreign })).remove(0);
        assert_eq!(led_to(&mut her, &link), foreign);
        server.pass_ms(60_000);
    }
    assert_eq!(server.lead_by(TANAKA)["assurance"], "verified", "the click itself counts");
}

#[test]
fn where_consent_is_required_a_link_names_only_as_often_as_it_may_and_nothing_is_recorded() {
    let mut setup = Setup::new(at("2026-12-07 08:00"), &[]);
    let strict = site("strict", "required", "https://strict.example");
    setup.mikomi = format!("{}{strict}", listeners("", ""));
    let server = Server::start(&setup);
    let wish = json!({ "site": "strict", "url": "https://strict.example/lp", "uses": 1 });
    let link = links(&server, TANAKA, 1, &wish).remove(0);
    let mut browser = Browser::new(&server, 1);
    assert!(led_to(&mut browser, &link).starts_with("https://strict.example/lp?mk="));
    assert_eq!(led_to(&mut browser, &link), "https://strict.example/lp");
    let image = json!({ "site": "strict", "kind": "open" });
    let image = links(&server, TANAKA, 1, &image).remove(0);
    assert_eq!(browser.send("GET", &image, b"").status, 200);
    assert!(browser.jar.is_empty());
    // What is acknowledged is durable, and so is everything before it.
    browser.site = "strict".into();
    browser.origin = "https://strict.example".into();
    browser.visit("/lp");
    let agreed = browser.hit(&json!({ "c": 1 }));
    assert_eq!(browser.beacon(agreed.to_string().as_bytes()).status, 204);
    let hits = server.hits();
    assert_eq!((hits.len(), &hits[0]["path"]), (1, &json!("/lp")));
}

#[test]
fn a_landing_token_is_spent_by_a_page_view_and_not_by_what_follows_on_the_page() {
    let (mut server, _receiver) = told("2026-12-07 08:00");
    let page = links(&server, TANAKA, 1, &json!({ "kind": "landing", "uses": 2 })).remove(0);
    let path = page.strip_prefix("https://www.vendor.example").unwrap();
    // Her first hit ever, sent again since its answer never came, and again when it had.
    let mut hers = Browser::new(&server, 1);
    hers.visit(path);
    let first = hers.hit(&json!({})).to_string();
    for _ in 0..3 {
        assert_eq!(hers.beacon(first.as_bytes()).status, 204);
    }
    hers.stay(30);
    hers.event("download");
    server.kill();
    server.restart();
    let mut second = Browser::returning(&server, 2);
    second.visit(path);
    let hit = second.hit(&json!({})).to_string();
    for _ in 0..3 {
        assert_eq!(second.beacon(hit.as_bytes()).status, 204);
    }
    assert_eq!(server.lead_by(TANAKA)["links"].as_array().unwrap().len(), 2, "both are hers");
    Browser::returning(&server, 3).page(path, "");
    assert_eq!(server.lead_by(TANAKA)["links"].as_array().unwrap().len(), 2, "it is used up");
}

#[test]
fn a_mail_that_is_opened_is_an_event_of_its_reader_and_proves_nobody() {
    let (server, _receiver) = told("2026-12-07 08:00");
    let image = links(&server, TANAKA, 1, &json!({ "kind": "open" })).remove(0);
    let mut program = Browser::new(&server, 1);
    let answer = program.send("GET", &image, b"");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("image/gif")));
    assert!(program.jar.is_empty(), "no browser is known by it");
    let lead = server.lead_by(TANAKA);
    assert_eq!((&lead["assurance"], &lead["links"]), (&json!("claimed"), &json!([])));
    assert_eq!(lead["last_seen"], Value::Null, "no person was seen");
    let opened = wait_for("the opening", || server.hits().pop());
    assert_eq!(opened["event"], "mail_open");
}

#[test]
fn no_edit_of_a_link_leads_elsewhere_and_what_is_no_page_is_not_signed() {
    let (server, _receiver) = told("2026-12-07 08:00");
    let link = links(&server, TANAKA, 1, &json!({})).remove(0);
    let mut client = Client::new(server.collector());
    let bytes = link.as_bytes();
    for place in (3..bytes.len()).step_by(7) {
        let mut edited = link.clone();
        let other = if bytes[place] == b'A' { "B" } else { "A" };
        edited.replace_range(place..=place, other);
        let answer = client.send("GET", &edited, &[], b"").unwrap();
        assert_eq!((answer.status, answer.header("location")), (404, None), "{edited}");
    }
    for url in ["javascript:alert(1)", "/lp", "https://a.example/\r\nx: y", "ftp://a.example/"] {
        let wish = json!({ "site": "www", "mail": "m", "url": url, "to": [{ "email": TANAKA }] });
        assert_eq!(server.post("/api/mail-links", &wish).status, 400, "{url}");
    }
    assert!(server.figure("mikomi_links_void_total") > 20);
    // Who opted out is led on, and nothing is recorded.
    let headers = [("cookie", "mikomi_optout=1")];
    let answer = client.send("GET", &link, &headers, b"").unwrap();
    assert_eq!((answer.status, server.hits().len()), (302, 0));
}
