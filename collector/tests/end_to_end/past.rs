//! The past, matched anew under other rules or taken back: whose it is stays, and what no rule
//! gives any more goes.

use serde_json::json;

use crate::rules::save;
use crate::support::about;
use crate::support::browser::Browser;
use crate::support::server::RULES;
use crate::support::story::TANAKA;
use crate::told;

/// The rules with pricing on another page.
fn moved() -> String {
    let there = "path = [\"/pricing/**\", \"/price/**\"]";
    assert!(RULES.contains(there));
    RULES.replace(there, "path = \"/plans/**\"")
}

#[test]
fn points_from_before_what_a_browser_remembers_stay_when_the_same_rules_are_applied_anew() {
    let (server, _receiver) = told("2026-12-01 08:00");
    let mut customer = Browser::returning(&server, 1);
    customer.identify(TANAKA, &json!({}));
    customer.page("/thanks/document/guide", "");
    // Logs in and out more often than a browser remembers whose it was.
    for _ in 0..20 {
        server.pass_ms(60_000);
        customer.event("reset");
        customer.identify(TANAKA, &json!({}));
    }
    let before = server.exact(TANAKA);
    assert!(before.as_f64().unwrap() > 19.9, "{before}");
    server.step("/api/rules/rescore", json!({}));
    assert_eq!(server.exact(TANAKA), before);
    let withdrawn = server.step("/api/withdraw", json!({ "lead": server.lead_id(TANAKA) }));
    assert_eq!(withdrawn["leads"], 1);
    about(&server.exact(TANAKA), 0.0);
    server.step("/api/undo", json!({ "position": withdrawn["position"] }));
    assert_eq!(server.exact(TANAKA), before);
}

#[test]
fn what_no_rule_gives_any_more_goes_from_a_browser_of_nobody_too() {
    let (server, _receiver) = told("2026-12-01 08:00");
    let mut stranger = Browser::returning(&server, 1);
    stranger.page("/pricing/", "");
    save(&server, &moved());
    server.step("/api/rules/rescore", json!({}));
    stranger.identify(TANAKA, &json!({}));
    about(&server.exact(TANAKA), 0.0);
}

#[test]
fn a_draft_without_a_line_says_who_would_be_out_by_that() {
    let (server, _receiver) = told("2026-12-01 08:00");
    let mut reader = Browser::returning(&server, 1);
    reader.identify(TANAKA, &json!({}));
    reader.page("/thanks/contact/", "");
    assert_eq!(server.lead_by(TANAKA)["stage"]["id"], "hot");
    let begins = RULES.find("\nhot  = { rise = 60").unwrap();
    let ends = begins + 1 + RULES[begins + 1..].find('\n').unwrap();
    let draft = [&RULES[..begins], &RULES[ends..]].concat();
    let tried = server.ask("POST", "/api/rules/what-if", draft.as_bytes());
    assert_eq!(tried.status, 200, "{}", tried.text());
    let tried = tried.json();
    assert_eq!((&tried["out_count"], &tried["out"][0]["threshold"]), (&json!(1), &json!("hot")));
}
