//! What a rule matches, and what no rule may say.

use super::*;
use crate::glob::normal_path;

fn rule(id: u16, when: Condition) -> Rule {
    Rule {
        id: RuleId(id),
        name: format!("rule{id}"),
        points: Points::whole(1),
        category: CategoryId(0),
        guards: Guards::default(),
        tell: None,
        on_remove: OnRemove::Keep,
        from: None,
        until: None,
        when,
        ja: String::new(),
        en: String::new(),
    }
}

fn set(when: Condition) -> RuleSet {
    RuleSet::new(vec![rule(0, when)]).unwrap()
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|&word| word.to_owned()).collect()
}

fn page(path: &str) -> Sighting<'_> {
    Sighting { path: normal_path(path), ..Sighting::default() }
}

fn event(name: &str) -> Sighting<'_> {
    Sighting { kind: HitKind::Event, event: name, path: "/x", ..Sighting::default() }
}

fn matched(set: &RuleSet, hit: &Sighting<'_>) -> Vec<u16> {
    set.matching(hit).iter().map(|rule| rule.id.0).collect()
}

#[track_caller]
fn meets(set: &RuleSet, hit: &Sighting<'_>) {
    assert_eq!(matched(set, hit).len(), 1, "{hit:?}");
}

#[track_caller]
fn misses(set: &RuleSet, hit: &Sighting<'_>) {
    assert_eq!(matched(set, hit).len(), 0, "{hit:?}");
}

#[test]
fn a_path_rule_speaks_of_page_views_only() {
    let set = set(Condition { path: words(&["/p/**"]), ..Condition::default() });
    meets(&set, &page("/p/1"));
    for kind in [HitKind::Event, HitKind::Engagement, HitKind::Identify, HitKind::Reset] {
        misses(&set, &Sighting { kind, ..page("/p/1") });
    }
}

#[test]
fn a_stay_counts_once_when_its_total_first_reaches_the_line() {
    let set = set(Condition {
        path: words(&["/**"]),
        not_path: words(&["/careers/**"]),
        engaged: Some(Duration::from_mins(1)),
        ..Condition::default()
    });
    let stay = |path, before, now| Sighting {
        kind: HitKind::Engagement,
        engaged: (Duration::from_secs(before), Duration::from_secs(now)),
        ..page(path)
    };
    meets(&set, &stay("/x", 0, 60));
    meets(&set, &stay("/x", 59, 600));
    misses(&set, &stay("/x", 60, 90));
    misses(&set, &stay("/x", 0, 59));
    misses(&set, &stay("/careers/a", 0, 60));
}

#[test]
fn a_scroll_counts_once_when_it_first_reaches_the_line() {
    let set = set(Condition { scroll: Some(75), ..Condition::default() });
    let shown =
        |before, now| Sighting { kind: HitKind::Engagement, scroll: (before, now), ..page("/x") };
    meets(&set, &shown(0, 75));
    meets(&set, &shown(74, 100));
    misses(&set, &shown(75, 100));
    misses(&set, &shown(0, 74));
}

#[test]
fn any_is_met_by_an_event_or_by_a_page() {
    let inner = |event: &[&str], path: &[&str]| Condition {
        event: words(event),
        path: words(path),
        ..Condition::default()
    };
    let any = vec![inner(&["download"], &[]), inner(&[], &["/thanks/**"])];
    let set = set(Condition { any, ..Condition::default() });
    meets(&set, &page("/thanks/document"));
    meets(&set, &event("download"));
    misses(&set, &event("other"));
    misses(&set, &Sighting { path: "/thanks/a", ..event("other") });
}

#[test]
fn an_event_may_ask_for_its_page_and_for_properties() {
    let set = set(Condition {
        event: words(&["plan_chosen"]),
        path: words(&["/shop/**"]),
        property: vec![("plan".into(), words(&["pro", "team*"]))],
        ..Condition::default()
    });
    let chosen = [("plan".to_owned(), "team-50".to_owned())];
    let hit = Sighting { path: "/shop/a", properties: &chosen, ..event("plan_chosen") };
    meets(&set, &hit);
    misses(&set, &Sighting { path: "/x", ..hit });
    misses(&set, &Sighting { properties: &[], ..hit });
    misses(&set, &Sighting { event: "other", ..hit });
}

#[test]
fn query_referrer_and_campaign_are_held_against_what_is_kept_of_them() {
    let query = vec![("utm_content".to_owned(), words(&["top banner"]))];
    let by_query = set(Condition { query, ..Condition::default() });
    let at = |url| Sighting { url, ..page("/x") };
    meets(&by_query, &at("https://a.example/x?a=1&utm_content=top+banner#end"));
    meets(&by_query, &at("https://a.example/x?utm%5Fcontent=top%20banner"));
    misses(&by_query, &at("https://a.example/x?utm_content=side"));
    misses(&by_query, &at("https://a.example/utm_content=top+banner"));
    let referrer = words(&["*.google.*", "blog.example/2026/*"]);
    let by_referrer = set(Condition { referrer, ..Condition::default() });
    let from = |referrer| Sighting { referrer, ..page("/x") };
    meets(&by_referrer, &from("www.google.co.jp/search"));
    meets(&by_referrer, &from("blog.example/2026/12"));
    misses(&by_referrer, &from("blog.example/about"));
    misses(&by_referrer, &from(""));
    let campaign = words(&["* / email"]);
    let by_campaign = set(Condition { campaign, ..Condition::default() });
    meets(&by_campaign, &Sighting { campaign: "december / email", ..page("/x") });
    misses(&by_campaign, &Sighting { campaign: "december / social", ..page("/x") });
}

#[test]
fn areas_logged_in_pages_and_our_links_are_conditions() {
    let docs = set(Condition { area: words(&["docs", MY_PAGE]), ..Condition::default() });
    let areas = words(&["docs"]);
    meets(&docs, &Sighting { areas: &areas, ..page("/x") });
    meets(&docs, &Sighting { authenticated: true, ..page("/x") });
    misses(&docs, &page("/x"));
    let inside = set(Condition { authenticated: Some(true), ..Condition::default() });
    meets(&inside, &Sighting { authenticated: true, ..page("/x") });
    misses(&inside, &Sighting { areas: &areas, ..page("/x") });
    let ours = set(Condition { via_our_link: true, ..Condition::default() });
    meets(&ours, &Sighting { via_our_link: true, ..page("/x") });
    misses(&ours, &page("/x"));
}

#[test]
fn a_dated_rule_matches_within_its_dates() {
    let when = Condition { path: words(&["/x"]), ..Condition::default() };
    let (from, until) = (Some(Timestamp(10)), Some(Timestamp(20)));
    let set = RuleSet::new(vec![Rule { from, until, ..rule(0, when) }]).unwrap();
    let at = |when| Sighting { when: Timestamp(when), ..page("/x") };
    meets(&set, &at(10));
    meets(&set, &at(19));
    misses(&set, &at(9));
    misses(&set, &at(20));
}

#[test]
fn a_page_remembered_matches_as_one_never_seen() {
    let rules = || -> Vec<Rule> {
        let path = |number: u16| format!("/{}/**", number % 7);
        let when = |number: u16| Condition { path: vec![path(number)], ..Condition::default() };
        (0..50).map(|number| rule(number, when(number))).collect()
    };
    let (set, forgetful) = (RuleSet::new(rules()).unwrap(), RuleSet::forgetful(rules()).unwrap());
    for round in 0..3 {
        for number in 0..20 {
            let path = format!("/{}/{number}", number % 9);
            let (found, expected) =
                (matched(&set, &page(&path)), matched(&forgetful, &page(&path)));
            assert_eq!(found, expected, "{path}, round {round}");
            assert_eq!(found.is_empty(), number % 9 >= 7);
        }
    }
}

#[test]
fn conditions_nothing_could_meet_are_refused_by_name() {
    let refuse = |when: Condition| RuleSet::new(vec![rule(0, when)]).unwrap_err();
    let impossible = |when| assert!(matches!(refuse(when), RuleError::Impossible { .. }));
    let (event, stay) = (words(&["a"]), Some(Duration::from_secs(1)));
    let week = Duration::from_hours(7 * 24);
    impossible(Condition::default());
    impossible(Condition { event: event.clone(), engaged: stay, ..Condition::default() });
    impossible(Condition { event: event.clone(), scroll: Some(5), ..Condition::default() });
    let pages = Some((3, week));
    impossible(Condition { event, distinct_pages: pages, ..Condition::default() });
    impossible(Condition { count: Some((1, week)), ..Condition::default() });
    impossible(Condition { count: pages, distinct_pages: pages, ..Condition::default() });
    let inner = Condition { count: pages, ..Condition::default() };
    impossible(Condition { any: vec![inner], ..Condition::default() });
    let glob = Condition { path: words(&["pricing"]), ..Condition::default() };
    assert!(matches!(refuse(glob), RuleError::BadGlob { .. }));
    let mut rich = rule(0, Condition { scroll: Some(5), ..Condition::default() });
    rich.points = Points(i64::MIN);
    assert!(matches!(RuleSet::new(vec![rich]), Err(RuleError::TooManyPoints { .. })));
}
