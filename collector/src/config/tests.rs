//! What the files promise: the examples are right, the file of defaults is the default, and
//! what a person mistypes is found with its place and its remedy.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use engine::attribute::{AttributeTest, Test};
use engine::grade::Grade;
use engine::points::Points;
use engine::rule::{OnRemove, Once, Period, RuleSet};
use engine::stage::FeedbackKind;
use engine::terms::Versions;
use engine::time::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::outbox::look::Form;

const SALES_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn alone() -> Surroundings {
    Surroundings::default()
}

fn with_env(pairs: &[(&str, &str)]) -> Surroundings {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Surroundings { dir: None, env: pairs.iter().map(pair).collect() }
}

fn mikomi(text: &str, surroundings: &Surroundings) -> Result<Settings, Vec<String>> {
    read_settings(Some(text.as_bytes()), surroundings).map_err(|it| shown(&it))
}

/// The settings that ship, with an area and a further name that is kept of a query.
fn for_rules() -> ForRules {
    let mut settings = read_settings(None, &alone()).unwrap().for_rules();
    settings.areas.insert("support".to_owned());
    settings.privacy.query_names.push("plan".to_owned());
    settings
}

fn scoring(text: &str) -> Result<ScoringFile, Vec<Problem>> {
    let around = Around { surroundings: &alone(), settings: Some(&for_rules()) };
    read_scoring(Some(text.as_bytes()), around)
}

fn endpoints(text: &str, surroundings: &Surroundings) -> Result<Vec<Endpoint>, Vec<String>> {
    let lists = Some(vec!["hot-manufacturing".to_owned()]);
    let known = Known { lists, ..Known::of(scoring(DEFAULT_SCORING).as_ref().ok()) };
    read_endpoints(Some(text.as_bytes()), true, &known, surroundings).map_err(|it| shown(&it))
}

fn named(text: &str) -> Result<NamedLists, Vec<String>> {
    let categories = ["intent".to_owned(), "interest".to_owned()];
    read_named(Some(text.as_bytes()), true, Some(&categories), &alone()).map_err(|it| shown(&it))
}

fn shown(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(Problem::to_string).collect()
}

/// The whole text with one part replaced, which stands in it exactly once.
fn edited(text: &str, part: &str, by: &str) -> String {
    assert_eq!(text.matches(part).count(), 1, "{part} is not there once");
    text.replacen(part, by, 1)
}

/// Line and column of a part of a text, both from 1, the column in characters.
fn place(text: &str, part: &str) -> (u32, u32) {
    let offset = text.find(part).unwrap();
    let line_start = text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[..offset].matches('\n').count() + 1;
    (line as u32, text[line_start..offset].chars().count() as u32 + 1)
}

const SITE: &str =
    "[[site]]\nid = \"www\"\nkey = \"k\"\nconsent = \"required\"\norigins = [\"https://a.jp\"]\n";

// ---------------------------------------------------------------- the files as they are shipped

#[test]
fn in_an_empty_folder_the_built_in_files_give_one_demo_site_and_send_nothing() {
    let loaded = load(&Files::default(), &alone()).unwrap();
    let [site] = &loaded.settings.sites[..] else { panic!("one site") };
    assert_eq!((site.id.as_str(), &site.keys[..]), ("demo", &["demo".to_owned()][..]));
    assert_eq!(site.consent, SiteConsent::Assumed);
    assert!(site.origins.allow("http://localhost:3000") && site.origins.allow("null"));
    assert_eq!(loaded.settings.collector.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(loaded.settings.journal.durability, Durability::Durable);
    assert_eq!(loaded.settings.shards, 1_024);
    let live = loaded.endpoints.iter().filter(|it| it.mode == EndpointMode::Live).count();
    assert_eq!((loaded.endpoints.len(), live), (1, 0));
    let hot = About {
        audience: Some("sales"),
        kind: "lead.hot",
        threshold: Some("hot"),
        ..About::default()
    };
    let action = About { audience: Some("hr"), kind: "lead.action", ..About::default() };
    let wants = |about: &About<'_>| loaded.endpoints[0].wants(about, |_| false);
    assert!(wants(&hot) && !wants(&action));
    assert!(!wants(&About { test: true, ..hot }));
}

#[test]
fn every_word_of_the_file_of_defaults_is_read_and_none_has_a_default_elsewhere() {
    // Without any one setting the file of defaults is incomplete, and says which one.
    let mut tried = 0;
    let lines: Vec<&str> = DEFAULT_MIKOMI.lines().collect();
    let settings_end = lines.iter().position(|line| *line == "[[site]]").unwrap();
    for left_out in 0..settings_end {
        let setting = lines[left_out].split_once(" = ");
        let Some((key, _)) = setting.filter(|_| !lines[left_out].starts_with('#')) else {
            continue;
        };
        tried += 1;
        let mut others = lines.clone();
        others[left_out] = "";
        let problems = Problems::default();
        let read = mikomi_toml::read("f", None, &others.join("\n"), &alone(), &problems);
        let found = shown(&problems.judge(read).unwrap_err());
        assert!(found.iter().any(|it| it.contains(&format!("\"{key}\" is missing"))), "{found:?}");
    }
    assert!(tried >= 60, "only {tried} settings were tried");
}

#[test]
fn every_setting_states_its_reason() {
    for line in DEFAULT_MIKOMI.lines().filter(|line| line.contains(" = ")) {
        let of_a_form = line.starts_with('"');
        assert!(of_a_form || line.contains('#'), "{line}");
    }
}

#[test]
fn the_further_keys_shown_in_comments_are_right_too() {
    let marker = "# What else an endpoint can say:";
    let example = &DEFAULT_ENDPOINTS[DEFAULT_ENDPOINTS.find(marker).unwrap() + marker.len()..];
    let example = example.split("# Recipes").next().unwrap();
    let example = example.replace("\n# ", "\n").replace("\n#\n", "\n");
    let example = edited(&example, "secret_file", "# secret_file");
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("templates")).unwrap();
    std::fs::write(dir.path().join("templates/sfa.j2"), "{{ data.alert_id }}").unwrap();
    let env = with_env(&[("SFA_SECRET", SALES_SECRET), ("SFA_KEY", "swordfish")]);
    let around = Surroundings { dir: Some(dir.path().to_owned()), ..env };
    let read = endpoints(&example, &around).unwrap();
    assert_eq!(read[0].manner.headers[0].1, "swordfish");
    assert!(read[0].look.template.is_some());
    assert_eq!(read[0].id, "sfa");
    assert_eq!(read[0].mode, EndpointMode::Shadow);
    assert_eq!(read[0].in_flight_max, Some(2));
    assert_eq!(read[0].types.len(), 2);
    assert_eq!(read[0].choice.owners.len(), 2);
    assert!(read[0].supersede && read[0].chat.is_none());
    let room = read[1].chat.clone().unwrap();
    let hours = Duration::from_hours;
    let quiet = Quiet { from: hours(19), to: hours(8), weekend: true };
    assert_eq!(room, Chat { quiet: Some(quiet), daily_max: 10, summary: Some(hours(9)) });
    assert!(read[1].types.contains("lead.hot") && !read[1].types.contains("lead.cooled"));

    let keys = "# server_keys_env = \"WWW_KEYS\"";
    let own = edited(DEFAULT_MIKOMI, keys, &keys[2..]);
    let read =
        mikomi(&own, &with_env(&[("WWW_KEYS", "0123456789abcdefghij, x123456789abcdefghij")]));
    let site = &read.unwrap().sites[0];
    assert_eq!(site.server_keys.len(), 2);
    assert!(site.server_keys[1].matches(b"x123456789abcdefghij"));
    assert!(!site.server_keys[1].matches(b"x123456789abcdefghi"));
    assert!(!site.server_keys[1].matches(b"x123456789abcdefghik"));
}

#[test]
fn the_example_rules_become_the_engines_under_the_numbers_given() {
    let file = scoring(DEFAULT_SCORING).unwrap();
    let mut given = Vec::new();
    let mut intern = |kind, name: &str| {
        given.push((kind, name.to_owned()));
        // Numbers that are places nowhere, so that a mix-up shows.
        200 - given.len() as u16
    };
    let before = Versions::default();
    let made = file.publish(&before, (7, Timestamp(1)), &mut intern).unwrap();
    let terms = made.terms();
    assert_eq!(made.version, 7);
    assert_eq!(terms.total_max, Some(Points::whole(100)));
    assert_eq!(terms.claims_max, Some(Points::whole(80)));
    let names: Vec<&str> = made.labels.categories.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["intent", "interest", "recruit"]);
    assert_eq!(terms.categories[0].half_life.millis(), 14 * 86_400_000);
    assert!(terms.categories[1].in_total && !terms.categories[2].in_total);
    assert_eq!(made.rules.rules().len(), 18);
    let rule = |name: &str| made.rules.rules().iter().find(|rule| rule.name == name).unwrap();
    let trial = rule("trial");
    assert_eq!(trial.category, terms.categories[0].id);
    assert_eq!(trial.guards.once, Some(Once::Rearmed(Duration::from_hours(180 * 24))));
    assert_eq!(trial.tell.as_deref(), Some("sales"));
    assert_eq!(rule("article").guards.at_most, Some((3, Period::Day)));
    assert_eq!(rule("article").when.path, ["/column/**", "/blog/**"]);
    assert_eq!(rule("compared").when.distinct_pages, Some((3, Duration::from_hours(168))));
    assert_eq!(rule("compared").guards.once_per, Some(Period::Rolling(Duration::from_hours(168))));
    assert_eq!(rule("document").when.any.len(), 2);
    assert_eq!(rule("careers").points, Points::whole(-10));
    assert_eq!(rule("pricing").ja, "料金ページを閲覧");
    let [warm, hot] = &terms.thresholds[..] else { panic!("two thresholds") };
    assert_eq!((warm.name.as_str(), &warm.tell), ("warm", &None));
    assert_eq!((hot.rise, hot.fall), (Points::whole(60), Points::whole(40)));
    assert_eq!(hot.grades, [Grade::A, Grade::B, Grade::C, Grade::Unknown]);
    assert_eq!(hot.recent, Some(Duration::from_hours(168)));
    assert_eq!(made.labels.urgency.high, Points::whole(40));
    assert!(made.excluded_paths.any("/preview/x"));
    assert_eq!(made.labels.texts.len(), 7);
    assert_eq!(made.labels.stage_names["hot"], "ホット");
    assert_eq!(given.len(), 18 + 3 + 2);
    assert_eq!(file.excluded.email_domains.len(), 2);
    assert!(file.excluded.networks[0].contains("203.0.113.9".parse().unwrap()));
    assert_eq!(&*file.text, DEFAULT_SCORING);
}

#[test]
fn fit_and_telling_again_are_the_engines_as_written() {
    let file = scoring(DEFAULT_SCORING).unwrap();
    assert_eq!((file.fit.known_min, file.fit.rules.len()), (2, 7));
    assert_eq!(file.fit.lines, [60, 40, 20].map(Points::whole));
    assert_eq!(file.fit.rules[2].test.test, Test::Between(Some(100), Some(5_000)));
    let Test::Is(free) = &file.fit.rules[5].test.test else { panic!("a list") };
    assert!(free.contains(&"gmail.com".to_owned()) && free.len() > 50);
    let again = file.thresholds[1].again.unwrap();
    assert_eq!((again.every, again.at_most.unwrap().0), (Points::whole(20), 1));
}

#[test]
fn what_is_not_acted_on_yet_is_read_whole_and_named() {
    let file = scoring(DEFAULT_SCORING).unwrap();
    assert_eq!(file.later.sections(), ["[accounts]"]);
    assert_eq!(file.later.accounts["hot"].people, Some(2));
}

#[test]
fn what_sales_answers_do_and_when_it_works_become_the_engines() {
    let sales = scoring(DEFAULT_SCORING).unwrap().sales;
    let hours = sales.hours.unwrap();
    let of = |hours| std::time::Duration::from_hours(hours);
    assert_eq!((sales.accept_within, hours.from, hours.to), (Some(of(4)), of(9), of(18)));
    assert_eq!(hours.days, [true, true, true, true, true, false, false]);
    assert!(hours.holidays.len() > 30);
    let worth = [(FeedbackKind::MeetingDone, 20), (FeedbackKind::NoShow, -15)];
    assert_eq!(sales.points, worth.map(|(kind, points)| (kind, Points::whole(points))));
    assert_eq!(sales.rejected, Some((Points::whole(20), of(90 * 24))));
    assert_eq!(sales.lost, Some(of(30 * 24)));
}

#[test]
fn every_word_of_a_rule_becomes_the_engines() {
    let text = edited(
        DEFAULT_SCORING,
        "{ id = \"trial\", points = 50,",
        "{ id = \"campaign\", points = 7, ja = \"x\", category = \"intent\", from = 2026-12-01, \
         until = \"2026-12-24\", on_remove = \"withdraw\", \
         only = [{ attribute = \"title\", has = \"部長\" }, \
         { attribute = \"employees\", from = 100 }], \
         when = { query = { plan = [\"pro\", \"team*\"] }, referrer = \"*.google.com\", \
         campaign = \"newsletter* / email\", area = \"support\", via = \"our_link\", \
         count = 3, within = \"2d\" } },\n  \
         { id = \"read\", points = 1, ja = \"x\", category = \"intent\", \
         when = { scroll = 75, property = { size = \"m\" } } },\n  \
         { id = \"trial\", points = 50,",
    );
    let file = scoring(&text).map_err(|it| shown(&it)).unwrap();
    let rule = |name: &str| file.rules.iter().find(|rule| rule.name == name).unwrap();
    let campaign = rule("campaign");
    let day =
        |text: &str| Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_millisecond() as u64);
    assert_eq!(campaign.from, Some(day("2026-12-01T00:00:00+09:00")));
    assert_eq!(campaign.until, Some(day("2026-12-25T00:00:00+09:00")), "the last day counts");
    assert_eq!(campaign.on_remove, OnRemove::Withdraw);
    let title = AttributeTest::new("title".into(), Test::Has(vec!["部長".into()]));
    assert_eq!(campaign.guards.only[0], title);
    let when = &campaign.when;
    assert_eq!(when.query, [("plan".to_owned(), vec!["pro".to_owned(), "team*".to_owned()])]);
    assert_eq!((when.referrer.len(), when.campaign.len(), when.area.len()), (1, 1, 1));
    assert_eq!(when.count, Some((3, Duration::from_hours(48))));
    assert!(when.via_our_link);
    let read = &rule("read").when;
    assert_eq!((read.scroll, read.property.len()), (Some(75), 1));
    assert_eq!(rule("returned").guards.away, Some(Duration::from_hours(72)));
    assert!(RuleSet::new(file.rules.clone()).is_ok());
}

#[test]
fn a_list_stands_beside_the_settings_or_is_compiled_in() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("lists")).unwrap();
    let around = Surroundings { dir: Some(dir.path().to_owned()), ..Surroundings::default() };
    let read = |text: &str| {
        let around = Around { surroundings: &around, settings: None };
        read_scoring(Some(text.as_bytes()), around)
    };
    let built_in = read(DEFAULT_SCORING).unwrap();
    let list = dir.path().join("lists/free_mail.txt");
    std::fs::write(&list, "# ours\nMail.Example  # small letters count\n\n").unwrap();
    let own = read(DEFAULT_SCORING).unwrap();
    assert_eq!(own.fit.rules[5].test.test, Test::Is(vec!["mail.example".into()]));
    assert_ne!(own.fingerprint, built_in.fingerprint, "another list is another version");
    let looked = |dir: &std::path::Path| Files::look(dir).0.lists;
    let before = looked(dir.path());
    std::fs::write(&list, "other.example\n").unwrap();
    assert_ne!(looked(dir.path()), before, "a saved list is seen");
    std::fs::write(&list, "# nothing\n").unwrap();
    assert!(shown(&read(DEFAULT_SCORING).unwrap_err())[0].contains("is empty"));
}

#[test]
fn a_catalogue_that_is_full_refuses_by_name() {
    let file = scoring(DEFAULT_SCORING).unwrap();
    let refused =
        file.publish(&Versions::default(), (1, Timestamp(1)), &mut |_, _| 256).unwrap_err();
    assert!(refused.message.contains("\"intent\""), "{refused}");
}

// ------------------------------------------------------------------- mistakes in scoring.toml

/// (what stands there, what is typed instead, where the finger points, the remedy)
const MISTAKES: [(&str, &str, &str, Option<&str>); 55] = [
    ("intent   = { half_life", "intent   = { half_lif", "half_lif ", Some("half_life")),
    ("half_life = \"30d\"", "half_life = \"30 days\"", "\"30 days\"", Some("30d")),
    ("half_life = \"30d\"", "half_life = \"３０ｄ\"", "\"３０ｄ\"", Some("30d")),
    ("half_life = \"30d\"", "half_life = 30", "30, max = 50", None),
    ("half_life = \"30d\"", "half_life = 30d", "30d, max = 50", None),
    ("utc_offset = \"+09:00\"", "utc_offset = \"+9:00\"", "\"+9:00\"", Some("+09:00")),
    ("utc_offset = \"+09:00\"", "utc_offset = \"Asia/Tokyo\"", "\"Asia", Some("+09:00")),
    ("recent = \"7d\", ", "urgency = \"hihg\", ", "\"hihg\"", Some("high")),
    ("total_max  = 100", "total_max  = \"100\"", "\"100\"", Some("100")),
    ("in_total = false, ja", "in_total = \"no\", ja", "\"no\"", None),
    ("levels    = { medium = 20", "levels    = { medium = 50", "{ medium", None),
    ("\"203.0.113.0/24\"", "\"203.0.113.7\"", "\"203.0.113.7\"", Some("203.0.113.7/32")),
    ("\"ours.example\"", "\"@ours.example\"", "\"@ours", Some("ours.example")),
    ("id = \"pricing\", points = 12", "id = \"pricing\", point = 12", "point =", Some("points")),
    ("id = \"case\"", "id = \"article\"", "\"article\", points = 4", None),
    ("{ id = \"case\", points", "{ points", "{ points = 4", None),
    (
        "ja = \"記事を閲覧\", en = \"Read an article\", category = \"interest\"",
        "ja = \"記事を閲覧\", en = \"Read an article\", category = \"intrest\"",
        "\"intrest\"",
        Some("interest"),
    ),
    (
        "{ path = \"/thanks/trial/**\" }",
        "{ path = \"thanks/trial/**\" }",
        "\"thanks/trial",
        Some("/thanks/trial/**"),
    ),
    (
        "{ path = \"/thanks/trial/**\" }",
        "{ path = \"https://www.ours.example/thanks/trial/\" }",
        "\"https://www.ours",
        Some("/thanks/trial/"),
    ),
    (
        "{ path = \"/thanks/trial/**\" }",
        "{ path = \"/thanks/trial**\" }",
        "\"/thanks/trial**",
        Some("/thanks/trial/**"),
    ),
    (
        "{ path = \"/thanks/trial/**\" }",
        "{ path = \"/thanks/trial?x=1\" }",
        "\"/thanks/trial?",
        Some("/thanks/trial"),
    ),
    (
        "{ path = \"/thanks/trial/**\" }",
        "{ paths = \"/thanks/trial/**\" }",
        "paths = \"/thanks/trial",
        Some("path"),
    ),
    ("{ path = \"/thanks/trial/**\" }", "{ referer = \"google\" }", "referer =", Some("referrer")),
    (
        "{ path = \"/thanks/trial/**\" }",
        "{ referrer = \"https://www.google.com/\" }",
        "\"https://www.google",
        Some("www.google.com"),
    ),
    ("{ path = \"/thanks/trial/**\" }", "{ area = \"suport\" }", "\"suport\"", Some("support")),
    (
        "{ path = \"/thanks/trial/**\" }",
        "{ via = \"our_links\" }",
        "\"our_links\"",
        Some("our_link"),
    ),
    ("{ path = \"/thanks/trial/**\" }", "{ scroll = 150 }", "150 }", None),
    ("{ path = \"/thanks/trial/**\" }", "{ event = \"a\", count = 3 }", "count = 3", None),
    (
        "{ path = \"/thanks/trial/**\" }",
        "{ event = \"a\", within = \"1d\" }",
        "within = \"1d\" }",
        None,
    ),
    ("{ path = \"/thanks/trial/**\" }", "{ property = \"size\" }", "\"size\" }", None),
    ("when = { return_after = \"3d\" }", "when = { return_after = \"5m\" }", "\"5m\"", None),
    (
        "{ id = \"trial\", points = 50,",
        "{ id = \"trial\", from = \"2026/12/1\", points = 50,",
        "\"2026/12/1\"",
        Some("2026-12-01"),
    ),
    (
        "{ id = \"trial\", points = 50,",
        "{ id = \"trial\", from = 2026-12-02, until = 2026-12-01, points = 50,",
        "2026-12-01, points",
        None,
    ),
    (
        "{ id = \"trial\", points = 50,",
        "{ id = \"trial\", on_remove = \"withdrawn\", points = 50,",
        "\"withdrawn\"",
        Some("withdraw"),
    ),
    (
        "{ id = \"trial\", points = 50,",
        "{ id = \"trial\", only = { attribute = \"tittle\", has = \"部長\" }, points = 50,",
        "\"tittle\"",
        Some("title"),
    ),
    ("list = \"free_mail\"", "list = \"freemail\"", "\"freemail\"", Some("free_mail")),
    ("ends = [\".ac.jp\"", "end = [\".ac.jp\"", "end =", Some("ends")),
    ("A = 60, B = 40, C = 20", "A = 60, B = 40, C = 40", "{ A = 60", None),
    ("known_min = 2", "known_min = 9", "9\ngrades", None),
    ("every = 20, at_most", "evry = 20, at_most", "evry =", Some("every")),
    ("{ path = \"/thanks/trial/**\" }", "{ }", "{ } }", None),
    ("distinct_pages = 3, within = \"7d\"", "distinct_pages = 3", "distinct_pages = 3", None),
    ("n = 3, per = \"day\"", "n = 3, per = \"daily\"", "\"daily\"", None),
    (
        "once = true, rearm_after = \"180d\"",
        "rearm_after = \"180d\"",
        "rearm_after = \"180d\"",
        None,
    ),
    (
        "rearm_after = \"180d\", tell = \"sales\"",
        "rearm_after = \"180d\", tell = \"sale\"",
        "\"sale\"",
        Some("sales"),
    ),
    ("hot  = { rise = 60, fall = 40", "hot  = { rise = 60, fall = 60", "60, dwell", None),
    ("hot  = { rise = 60, fall = 40", "hot  = { rise = 120, fall = 40", "120, fall", None),
    ("warm = { rise = 30", "warm = { rise = 60", "warm = { rise", None),
    ("grades = [\"A\", \"B\"", "grades = [\"Ａ\", \"B\"", "\"Ａ\"", Some("A")),
    ("cooldown = \"3d\"", "cool_down = \"3d\"", "cool_down", Some("cooldown")),
    (
        "ja = \"【ホット】{company} {name}さん",
        "ja = \"【ホット】{company} {nmae}さん",
        "{nmae}",
        Some("{name}"),
    ),
    (
        "ja = \"【クール】{company} {name}さん",
        "ja = \"【クール】{company} {reason}さん",
        "{reason}さん {score}点。",
        None,
    ),
    ("en = \"COOLED: {name}", "en = \"COOLED: {day}", "{day}", Some("{days}")),
    ("en = \"COMPANY HOT: {company}", "en = \"COMPANY HOT: {name}", "{name}, {people}", None),
    ("[exclude] ", "[excluded] ", "excluded]", Some("exclude")),
];

#[test]
fn a_text_that_names_what_is_not_filled_in_there_is_told_what_is() {
    let text = edited(DEFAULT_SCORING, "en = \"COOLED: {name}", "en = \"COOLED: {hours}");
    let problems = shown(&scoring(&text).unwrap_err());
    let allowed = "{company} {name} {score} {cell} {days}";
    assert!(problems[0].contains(&format!("\"hours\" here: there is {allowed}")), "{problems:?}");
    let reminder = edited(DEFAULT_SCORING, "en = \"WAITING {hours}", "en = \"WAITING {days}");
    assert_eq!(shown(&scoring(&reminder).err().unwrap_or_default()), [""; 0]);
}

/// The first rule of those that ship, with another condition.
fn with_condition(when: &str) -> String {
    edited(DEFAULT_SCORING, "when = { path = [\"/column/**\", \"/blog/**\"] }", when)
}

#[test]
fn a_campaign_is_asked_for_only_where_there_is_one() {
    let remedy = "\"mail_click\"";
    for (when, finger, meant) in [
        ("when = { event = \"download\", campaign = \"x*\" }", "\"download\", c", true),
        ("when = { event = \"mail_open\", campaign = \"x*\" }", "\"mail_open\"", true),
        ("when = { engaged = \"9s\", campaign = \"x*\" }", "campaign = \"x*\"", false),
        ("when = { any = [{ scroll = 9, campaign = \"x\" }] }", "campaign = \"x\"", false),
    ] {
        let text = with_condition(when);
        let problems = scoring(&text).expect_err(when);
        assert_eq!((problems[0].line, problems[0].column), place(&text, finger), "{when}");
        assert_eq!(problems[0].suggestion.is_some(), meant, "{when}");
        assert!(problems[0].to_string().contains(remedy), "{when}: {}", problems[0]);
    }
    for when in [
        "when = { campaign = \"x*\" }",
        "when = { event = \"mail_click\", campaign = \"x*\" }",
        "when = { event = [\"download\", \"mail_click\"], campaign = \"x*\" }",
    ] {
        assert!(scoring(&with_condition(when)).is_ok(), "{when}");
    }
}

#[test]
fn a_query_is_asked_for_only_by_a_name_that_is_kept() {
    let text = with_condition("when = { query = { utm_sourse = \"x\", plan = \"pro\" } }");
    let problems = scoring(&text).unwrap_err();
    let [problem] = &problems[..] else { panic!("{:?}", shown(&problems)) };
    assert_eq!((problem.line, problem.column), place(&text, "utm_sourse"));
    assert_eq!(problem.suggestion.as_deref(), Some("utm_source"));
    assert!(problem.to_string().contains("utm_term, utm_content, plan"), "{problem}");
    assert!(scoring(&with_condition("when = { query = { mk = \"*\" } }")).is_err());
    let unknown = Around { surroundings: &alone(), settings: None };
    assert!(read_scoring(Some(text.as_bytes()), unknown).is_ok(), "the settings are not known");
}

#[test]
fn a_marketers_mistakes_are_found_with_line_column_and_remedy() {
    for (there, typed, finger, remedy) in MISTAKES {
        let text = edited(DEFAULT_SCORING, there, typed);
        let problems = scoring(&text).expect_err(typed);
        let [problem] = &problems[..] else { panic!("{typed}: {:?}", shown(&problems)) };
        let at = (problem.line, problem.column);
        assert_eq!(at, place(&text, finger), "{typed}: {problem}");
        assert_eq!(problem.suggestion.as_deref(), remedy, "{typed}: {problem}");
        assert_eq!(problem.file, "scoring.toml");
    }
}

#[test]
fn mistakes_are_all_reported_at_once_in_the_order_of_the_file() {
    let text = edited(DEFAULT_SCORING, "intent   = { half_life", "intent   = { half_lif");
    let text = edited(&text, "hot  = { rise = 60, fall = 40", "hot  = { rise = 60, fall = 70");
    let text = edited(&text, "{ path = \"/thanks/trial/**\" }", "{ scroll = 0 }");
    let found = shown(&scoring(&text).unwrap_err());
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[0].ends_with("unknown word \"half_lif\"; did you mean \"half_life\"?"));
    assert!(found[1].contains("\"scroll\" needs a number from 1 to 100"));
    assert!(found[2].contains("\"fall\" must be below \"rise\" (60)"));
}

#[test]
fn a_word_nobody_knows_is_reported_in_every_table_of_every_file() {
    let files = [DEFAULT_MIKOMI, DEFAULT_SCORING, DEFAULT_ENDPOINTS, DEFAULT_LISTS];
    let mut tried = 0;
    for (file, text) in files.into_iter().enumerate() {
        let code = |offset: usize| {
            let line = text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
            !text[line..offset].contains('#')
        };
        let inline = text.match_indices("{ ").map(|(at, _)| at + 1);
        let headers = text
            .match_indices("\n[")
            .filter_map(|(at, _)| Some(at + 1 + text[at + 1..].find('\n')?));
        for at in inline.chain(headers) {
            let header = text[..at].ends_with(|last: char| last != '{');
            let line = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
            if !header && !code(at) {
                continue;
            }
            let added = if header { "\nzzzzz = 1" } else { " zzzzz = 1," };
            let changed = format!("{}{added}{}", &text[..at], &text[at..]);
            let found = match file {
                0 => mikomi(&changed, &alone()).err(),
                1 => scoring(&changed).err().map(|it| shown(&it)),
                2 => endpoints(&changed, &alone()).err(),
                _ => named(&changed).err(),
            };
            let place = &text[line..at];
            assert!(
                found.is_some_and(|it| it.iter().any(|it| it.contains("zzzzz")
                    || it.contains("needs a table")
                    || it.contains("needs text"))),
                "{place}"
            );
            tried += 1;
        }
    }
    assert!(tried > 70, "only {tried} tables");
}

#[test]
fn a_rule_that_could_never_count_is_refused() {
    for when in [
        "{ path = \"/a\", any = [{ event = \"b\" }, { engaged = \"5s\" }] }",
        "{ event = \"b\", engaged = \"5s\" }",
        "{ any = [{ distinct_pages = 2, within = \"1d\" }] }",
        "{ path = [] }",
        "{ engaged = \"0s\" }",
    ] {
        let text = edited(DEFAULT_SCORING, "{ path = \"/thanks/trial/**\" }", when);
        assert!(scoring(&text).is_err(), "{when}");
    }
    let fine = "{ return_after = \"1d\", any = [{ event = \"b\" }, { path = \"/a\" }] }";
    let text = edited(DEFAULT_SCORING, "{ path = \"/thanks/trial/**\" }", fine);
    assert!(scoring(&text).is_ok());
}

#[test]
fn a_file_saved_as_shift_jis_is_told_so_at_the_first_such_letter() {
    let mut bytes = b"utc_offset = \"+09:00\"\n# ".to_vec();
    bytes.extend([0x93, 0x5f, 0x90, 0x94]);
    let problems =
        read_scoring(Some(&bytes), Around { surroundings: &alone(), settings: None }).unwrap_err();
    assert_eq!((problems[0].line, problems[0].column), (2, 3));
    assert!(problems[0].message.contains("Shift_JIS"));
}

#[test]
fn a_file_with_a_byte_order_mark_and_windows_line_ends_is_read() {
    let text = format!("\u{feff}{}", DEFAULT_SCORING.replace('\n', "\r\n"));
    assert!(scoring(&text).is_ok());
}

#[test]
fn text_that_is_not_toml_is_explained_where_it_begins() {
    let hot = "hot  = { rise = 60, fall = 40";
    for (there, typed, finger, hint) in [
        (
            hot,
            "hot  ＝ { rise = 60, fall = 40",
            "＝",
            "\"＝\" is full-width; outside quotes it is =",
        ),
        (hot, "hot  = { rise = 60、 fall = 40", "、 fall", "full-width"),
        (hot, "hot  = { rise = 60, dwell = “24h“, fall = 40", "“24h", "full-width"),
        (hot, "hot  = { rise = 60 fall = 40", "60 fall", "a comma is missing before \"fall\""),
        (hot, "hot  = { rise = 60, fall = 40h", "40h", "in quotes, as in \"40h\""),
        (
            "/trial/**\" } },",
            "/trial/**\" },",
            "{ id = \"contact\"",
            "is the line before complete?",
        ),
        ("[thresholds] ", "[thresholds ", " #", ""),
    ] {
        let text = edited(DEFAULT_SCORING, there, typed);
        let problems = scoring(&text).expect_err(typed);
        let [problem] = &problems[..] else { panic!("{typed}: {:?}", shown(&problems)) };
        assert!(problem.message.contains(hint), "{typed}: {problem}");
        let line = place(&text, if finger == " #" { typed } else { finger }).0;
        assert_eq!(problem.line, line, "{typed}: {problem}");
        if hint == "full-width" {
            assert_eq!(problem.column, place(&text, finger).1, "{typed}: {problem}");
        }
    }
}

#[test]
fn a_file_with_thousands_of_mistakes_is_refused_in_no_time() {
    let lines: Vec<String> = (0..50_000).map(|number| format!("word_{number} = 1")).collect();
    let text = lines.join("\n");
    let problems = scoring(&text).unwrap_err();
    assert_eq!(problems.len(), 100);
}

#[test]
fn a_word_used_twice_is_refused_where_it_stands_again() {
    let text = edited(DEFAULT_SCORING, "robots        = true", "robots = true\nrobots = false");
    let problems = scoring(&text).unwrap_err();
    assert_eq!((problems[0].line, problems[0].column), place(&text, "robots = false"));
    assert!(problems[0].message.contains("twice"), "{}", problems[0]);
}

// ------------------------------------------------------------------ mistakes in the other files

#[test]
fn contradictions_in_the_settings_are_refused_with_their_place() {
    for (extra, message) in [
        (
            "[limits]\nhit_bytes_max = 2000000",
            "mikomi.toml:2:17: \"hit_bytes_max\" must not be more than \"batch_bytes_max\"",
        ),
        (
            "[collector]\nbody_gap_ms = 20000",
            "mikomi.toml:2:15: \"body_gap_ms\" must not be more than \"body_ms\"",
        ),
        (
            "[collector]\nlisten = \"localhost:80\"",
            "mikomi.toml:2:10: \"listen\" needs an address and a port, as in \"127.0.0.1:8080\"; \
             did you mean \"127.0.0.1:80\"?",
        ),
        (
            "[admin]\nlisten = \"127.0.0.1:8080\"",
            "mikomi.toml:2:10: the collector listens here already; the admin side needs its own \
             door",
        ),
        (
            "[collector]\ntls_key_file = \"k.pem\"",
            "mikomi.toml:2:16: \"tls_key_file\" needs \"tls_certificate_file\" beside it",
        ),
        (
            "[collector]\npublic_url = \"t.example.jp\"",
            "mikomi.toml:2:14: \"public_url\" needs a web address without \"?\" and \"#\", as in \
             \"https://t.example.jp\"",
        ),
        (
            "[cookie]\nthird_party = true\nsecure = \"never\"",
            "mikomi.toml:3:10: a third-party cookie must be secure: browsers drop it otherwise",
        ),
        (
            "[journal]\ndurability = \"lossi\"",
            "mikomi.toml:2:14: \"durability\" cannot be \"lossi\"; it is \"durable\" or \
             \"lossy\"; did you mean \"lossy\"?",
        ),
        (
            "[engine]\nshards = 1000",
            "mikomi.toml:2:10: \"shards\" needs a power of two from 2 to 65536",
        ),
        ("[webhooks]\ntimeout_ms = 1000", "the built-in mikomi.toml:"),
        (
            "[limits]\nline_bytes_mx = 9000",
            "mikomi.toml:2:1: unknown word \"line_bytes_mx\"; did you mean \"line_bytes_max\"?",
        ),
        (
            "[collecter]\nworkers = 2",
            "mikomi.toml:1:2: unknown word \"collecter\"; did you mean \"collector\"?",
        ),
    ] {
        let found = mikomi(&format!("{extra}\n{SITE}"), &alone()).expect_err(extra);
        let [problem] = &found[..] else { panic!("{extra}: {found:#?}") };
        assert!(problem.starts_with(message), "{extra}: {problem}");
    }
}

#[test]
fn nothing_is_assumed_for_a_site() {
    let found = mikomi("[cookie]\nname = \"m\"\n", &alone()).unwrap_err();
    assert!(found[0].contains("there is no [[site]]"), "{found:?}");
    let found = mikomi("[[site]]\nid = \"www\"\n", &alone()).unwrap_err();
    for key in ["key", "consent", "origins"] {
        assert!(found.iter().any(|it| it.contains(&format!("\"{key}\" is missing"))), "{found:?}");
    }
    let site = &mikomi(SITE, &alone()).unwrap().sites[0];
    assert_eq!((site.namespace.as_str(), site.consent), ("www", SiteConsent::Required));
}

#[test]
fn two_sites_share_neither_id_nor_key_and_only_the_demo_takes_every_origin() {
    let second = SITE.replace("[\"https://a.jp\"]", "[\"*\"]");
    let found = mikomi(&format!("{SITE}{second}"), &alone()).unwrap_err();
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[0].contains("there is a site \"www\" already"));
    assert!(found[1].contains("the key \"k\" is used already, by site \"www\""));
    assert!(found[2].contains("\"*\" is for the demo site only"));
}

#[test]
fn origins_are_compared_as_browsers_state_them() {
    let list = "[\"https://www.a.jp:443\", \"https://*.b.jp\", \"http://localhost:3000\"]";
    let site = SITE.replace("[\"https://a.jp\"]", list);
    let origins = mikomi(&site, &alone()).unwrap().sites.remove(0).origins;
    for good in ["https://www.a.jp", "https://x.b.jp", "https://x.y.b.jp", "http://localhost:3000"]
    {
        assert!(origins.allow(good), "{good}");
    }
    for bad in [
        "http://www.a.jp",
        "https://a.jp",
        "https://b.jp",
        "https://xb.jp",
        "https://evil.jp/.b.jp",
        "https://x.b.jp:8443",
        "https://x.b.jp.evil.jp",
        "http://localhost",
        "null",
        "",
    ] {
        assert!(!origins.allow(bad), "{bad}");
    }
    let wrong = SITE.replace("https://a.jp", "www.a.jp");
    let found = mikomi(&wrong, &alone()).unwrap_err();
    assert!(found[0].ends_with("did you mean \"https://www.a.jp\"?"), "{found:?}");
}

#[test]
fn the_environment_stands_above_the_files_and_its_mistakes_are_told() {
    let env = with_env(&[
        ("MIKOMI__collector__listen", "0.0.0.0:80"),
        ("MIKOMI__limits__batch_hits_max", "9"),
        ("MIKOMI__privacy__query_names", "utm_*, gclid"),
        ("HOME", "/root"),
    ]);
    let settings = mikomi(SITE, &env).unwrap();
    assert_eq!(settings.collector.listen.to_string(), "0.0.0.0:80");
    assert_eq!(settings.limits.batch_hits_max, 9);
    assert!(settings.privacy.keeps_query("utm_source") && settings.privacy.keeps_query("gclid"));
    assert!(!settings.privacy.keeps_query("token"));

    let env = with_env(&[
        ("MIKOMI__collector__lisen", "0.0.0.0:80"),
        ("MIKOMI__limits__batch_hits_max", "many"),
    ]);
    let found = mikomi(SITE, &env).unwrap_err();
    let expected = [
        "MIKOMI__collector__lisen: sets nothing: no setting has this name; \
         did you mean \"MIKOMI__collector__listen\"?",
        "MIKOMI__limits__batch_hits_max: \"batch_hits_max\" needs a whole number",
    ];
    assert_eq!(found, expected);
}

#[test]
fn mistakes_in_the_endpoints_are_found_with_their_place() {
    let head =
        "[[endpoint]]\nid = \"sfa\"\nurl = \"https://sfa.example.jp/h\"\nsecret_env = \"S\"\n";
    let env = with_env(&[("S", SALES_SECRET)]);
    assert_eq!(endpoints(head, &env).unwrap()[0].mode, EndpointMode::Shadow);
    for (extra, message) in [
        (
            "mode = \"life\"",
            "endpoints.toml:5:8: \"mode\" cannot be \"life\"; it is \"shadow\" or \"live\"; did \
             you mean \"live\"?",
        ),
        ("types = [\"lead.hott\"]", "endpoints.toml:5:10: \"types\" cannot be \"lead.hott\""),
        (
            "thresholds = [\"hott\"]",
            "endpoints.toml:5:15: there is no threshold \"hott\" in scoring.toml; did you mean \
             \"hot\"?",
        ),
        (
            "allow_private = [\"10.1.0.0/8\"]",
            "endpoints.toml:5:18: a network is written as \"203.0.113.0/24\" or \
             \"2001:db8::/32\"; did you mean \"10.0.0.0/8\"?",
        ),
        (
            "order = \"strict\"",
            "endpoints.toml:5:9: \"order\" cannot be \"strict\"; it is \"lead\"",
        ),
        (
            "audiences = [\"sales\"]",
            "endpoints.toml:5:1: unknown word \"audiences\"; did you mean \"audience\"?",
        ),
        (
            "in_flight_max = 0",
            "endpoints.toml:5:17: \"in_flight_max\" needs a number from 1 to 1000",
        ),
        (head, "endpoints.toml:6:6: there is an endpoint \"sfa\" already"),
    ] {
        let found = endpoints(&format!("{head}{extra}"), &env).expect_err(extra);
        let [problem] = &found[..] else { panic!("{extra}: {found:#?}") };
        assert!(problem.starts_with(message), "{extra}: {problem}");
    }
    for (url, message) in [
        ("http://sfa.example.jp/h", "endpoints.toml:3:7: http needs allow_http = true"),
        ("https://10.0.0.9/h", "endpoints.toml:3:7: 10.0.0.9 needs allow_private"),
        ("https://sfa.example.jp:9000/", "endpoints.toml:3:7: port 9000 needs allow_ports"),
        ("sfa.example.jp/h", "endpoints.toml:3:7: not a URL with a host"),
    ] {
        let found = endpoints(&head.replace("https://sfa.example.jp/h", url), &env).expect_err(url);
        assert!(found.len() == 1 && found[0].starts_with(message), "{url}: {found:?}");
    }
}

/// The recipes of the file, each a text with its marks taken off.
fn recipes() -> String {
    let marked = DEFAULT_ENDPOINTS.split("# Recipes").nth(1).unwrap();
    let lines = marked.lines().filter_map(|line| line.strip_prefix("# "));
    let is_setting = |line: &&str| {
        let key = line.split_once(" = ").map(|(key, _)| key);
        let plain = |key: &str| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        *line == "[[endpoint]]" || key.is_some_and(plain)
    };
    lines.filter(is_setting).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_recipes_are_right_as_they_stand() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("keys")).unwrap();
    std::fs::write(dir.path().join("keys/salesforce.txt"), "# renewed\n00D!AR8.x\n").unwrap();
    let env = with_env(&[
        ("SLACK_WEBHOOK_URL", "https://hooks.slack.com/services/T0/B0/SECRET"),
        ("CHATWORK_TOKEN", "0123456789abcdef"),
        ("KINTONE_TOKEN", "abcDEF123"),
    ]);
    let around = Surroundings { dir: Some(dir.path().to_owned()), ..env };
    let read = endpoints(&recipes(), &around).unwrap();
    let seen: Vec<_> = read
        .iter()
        .map(|it| {
            (it.look.form, it.manner.method.as_str(), it.manner.content_type.to_str().unwrap())
        })
        .collect();
    let json = "application/json";
    assert_eq!(seen.len(), 4);
    assert_eq!(seen[0], (Form::Slack, "POST", json));
    assert_eq!(seen[1], (Form::Chatwork, "POST", "application/x-www-form-urlencoded"));
    assert_eq!(seen[2], (Form::Kintone, "PUT", json));
    assert_eq!(seen[3], (Form::Salesforce, "PATCH", json));
    assert!(read.iter().all(|it| it.manner.secrets.is_none()));
    assert_eq!(read[0].hide, ["email", "phone"].map(str::to_owned).into());
    assert_eq!((read[2].hide.len(), read[2].look.app), (0, Some(7)));
    assert_eq!(read[3].manner.headers[0].1, "Bearer 00D!AR8.x");
    assert_eq!(
        read[3].target.path_for("msg_1"),
        "/services/data/v62.0/sobjects/Mikomi_Alert__c/Alert_Id__c/msg_1"
    );
    let shown = format!("{read:?}");
    for secret in ["SECRET", "0123456789", "abcDEF", "00D"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn mistakes_in_the_manner_of_an_endpoint_are_found_and_repeat_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    file("two.txt", "SECRET\nSECRET\n");
    file("broken.j2", "{{ data.lead.name }}\n{% if SECRET %}");
    file("unknown.j2", "\n{{ data.lead.nme }}");
    file("rare.j2", "{{ data.because.rule }}");
    file("no-json.j2", "{{ chat.headline }}");
    let around = Surroundings { dir: Some(dir.path().to_owned()), ..with_env(&[("T", "SECRET")]) };
    let head = "[[endpoint]]\nid = \"x\"\nurl = \"https://x.example/SECRET\"\nas = \"slack\"\n";
    for (extra, problem) in [
        (
            "lang = \"jp\"",
            "5:8: \"lang\" cannot be \"jp\"; it is \"ja\" or \"en\"; did you mean \"ja\"?",
        ),
        ("method = \"GET\"", "5:10: \"method\" cannot be \"GET\""),
        ("app = 7", "5:1: \"app\" is for as = \"kintone\""),
        ("content_type = \"json\"", "5:16: \"content_type\" is written as in"),
        ("headers = { Host = \"SECRET\" }", "5:13: this header is made by mikomi"),
        ("headers = { \"a b\" = \"SECRET\" }", "5:13: this is no name of a header"),
        ("headers = { A = \"x\", a = \"SECRET\" }", "5:22: this header stands here already"),
        ("headers = { A = \"値\" }", "5:17: a header's value is plain ASCII"),
        ("headers = { A = \"{env:NONE}\" }", "5:17: \"{env:...}\" names a variable not set"),
        (
            "headers = { A = \"{evn:SECRET}\" }",
            "5:17: here may stand {file:NAME} {env:NAME}; did you mean \"{env:NAME}\"?",
        ),
        ("headers = { A = \"{SECRET\" }", "5:17: a brace without its partner"),
        ("headers = { A = \"{file:two.txt}\" }", "5:17: this leads to several lines"),
        (
            "headers = { A = \"{file:SECRET}\" }",
            "5:17: \"{file:...}\" names a file that is not there",
        ),
        ("body_template_file = \"none.j2\"", "5:22: none.j2 is not there"),
        ("body_template_file = \"broken.j2\"", "5:22: broken.j2 is wrong: line 2: syntax error"),
        (
            "body_template_file = \"unknown.j2\"",
            "5:22: with a lead.hot this template fails: line 2: undefined value",
        ),
        (
            "body_template_file = \"rare.j2\"",
            "5:22: with a lead.hot this template fails: what comes out is not JSON",
        ),
        ("body_template_file = \"no-json.j2\"", "5:22: with a lead.hot this template fails"),
    ] {
        let found = endpoints(&format!("{head}{extra}"), &around).expect_err(extra);
        let [only] = &found[..] else { panic!("{extra}: {found:#?}") };
        assert!(only.starts_with(&format!("endpoints.toml:{problem}")), "{extra}: {only}");
        assert!(!only.contains("SECRET"), "{only}");
    }
    // What a template does with a message that has no reason is found before there is one.
    let json = head.replace("slack", "json");
    let found = endpoints(&format!("{json}body_template_file = \"rare.j2\""), &around);
    let found = found.unwrap_err();
    assert!(found[0].contains("with a lead.cooled this template fails: line 1"), "{found:?}");
    let kintone = head.replace("slack", "kintone");
    assert!(endpoints(&kintone, &around).unwrap_err()[0].contains("\"app\" is missing"));
    for url in ["{env:NONE}", "https://x.example/{alert}", "https://{alert_id}.example/SECRET"] {
        let text = head.replace("https://x.example/SECRET", url);
        let found = endpoints(&text, &around).unwrap_err();
        assert!(found.len() == 1 && !found[0].contains("SECRET"), "{url}: {found:?}");
    }
}

#[test]
fn a_chat_is_shown_neither_mail_nor_phone_unless_it_is_said() {
    let hidden = |more: &str| {
        let text = format!(
            "[[endpoint]]\nid = \"x\"\nurl = \"https://x.example/\"\nas = \"chatwork\"\n{more}"
        );
        endpoints(&text, &alone()).unwrap().remove(0).hide
    };
    assert_eq!(hidden(""), ["email", "phone"].map(str::to_owned).into());
    assert_eq!(hidden("hide = []"), BTreeSet::new());
    assert_eq!(hidden("hide = [\"name\"]"), [String::from("name")].into());
}

#[test]
fn mistakes_in_what_an_endpoint_chooses_and_when_it_rests_are_found_with_their_place() {
    let head =
        "[[endpoint]]\nid = \"sfa\"\nurl = \"https://sfa.example.jp/h\"\nsecret_env = \"S\"\n";
    let env = with_env(&[("S", SALES_SECRET)]);
    for (extra, message) in [
        (
            "grades = [\"a\"]",
            "endpoints.toml:5:11: \"grades\" cannot be \"a\"; it is \"A\" or \"B\" or \"C\" or \
             \"D\" or \"?\"",
        ),
        (
            "categories = [\"intend\"]",
            "endpoints.toml:5:15: there is no category \"intend\" in scoring.toml; did you mean \
             \"intent\"?",
        ),
        (
            "lists = [\"hot-manufacture\"]",
            "endpoints.toml:5:10: there is no list \"hot-manufacture\" in lists.toml; did you mean \
             \"hot-manufacturing\"?",
        ),
        (
            "owners = [\"sato\"]",
            "endpoints.toml:5:11: an owner is a mail address, or \"none\" for no owner",
        ),
        ("owners = [\"none\", \"NONE\"]", "endpoints.toml:5:19: this word stands here twice"),
        ("companies = []", "endpoints.toml:5:13: \"companies\" needs at least one value"),
        ("companies = [\" \"]", "endpoints.toml:5:14: a word of \"companies\" has 1 to 254 bytes"),
        ("supersede = \"yes\"", "endpoints.toml:5:13: \"supersede\" needs true or false"),
        ("summary = \"09:00\"", "endpoints.toml:5:1: \"summary\" needs \"chat = true\""),
        (
            "chat = true\nsummary = \"9:00\"",
            "endpoints.toml:6:11: a time of day is written as \"09:00\"; did you mean \"09:00\"?",
        ),
        (
            "chat = true\nquiet = { from = \"19:00\", to = \"08:00\", weekends = true }",
            "endpoints.toml:6:41: unknown word \"weekends\"; did you mean \"weekend\"?",
        ),
        (
            "chat = true\nquiet = { from = \"19:00\", to = \"19:00\" }",
            "endpoints.toml:6:18: \"from\" and \"to\" are the same: nobody would ever be told",
        ),
        (
            "chat = true\ndaily_max = -1",
            "endpoints.toml:6:13: \"daily_max\" needs a number from 0 to 10000",
        ),
    ] {
        let found = endpoints(&format!("{head}{extra}"), &env).expect_err(extra);
        let [problem] = &found[..] else { panic!("{extra}: {found:#?}") };
        assert!(problem.starts_with(message), "{extra}: {problem}");
    }
}

#[test]
fn an_endpoint_whose_secret_or_address_changed_has_another_fingerprint() {
    let head =
        "[[endpoint]]\nid = \"sfa\"\nurl = \"https://sfa.example.jp/h\"\nsecret_env = \"S\"\n";
    let print = |text: &str, secret: &str| {
        endpoints(text, &with_env(&[("S", secret)])).unwrap()[0].fingerprint
    };
    let other = SALES_SECRET.replace("MfKQ", "MfKR");
    assert_eq!(print(head, SALES_SECRET), print(head, SALES_SECRET));
    assert_ne!(print(head, SALES_SECRET), print(head, &other));
    assert_ne!(print(head, SALES_SECRET), print(&head.replace("/h", "/i"), SALES_SECRET));
    for more in ["lang = \"en\"", "as = \"slack\"", "method = \"PUT\"", "headers = { A = \"b\" }"] {
        let text = format!("{head}{more}\n");
        assert_ne!(print(head, SALES_SECRET), print(&text, SALES_SECRET), "{more}");
    }
    let token = |token: &str| {
        let text = format!("{head}headers = {{ A = \"{token}\" }}\n");
        print(&text, SALES_SECRET)
    };
    assert_ne!(token("b"), token("c"));
}

// ----------------------------------------------------------------------------------- secrets

#[test]
fn no_secret_is_ever_shown() {
    let secret = "0123456789abcdefSECRET";
    let site = format!("{SITE}server_keys_env = \"K\"\n");
    let settings = mikomi(&site, &with_env(&[("K", secret)])).unwrap();
    assert!(!format!("{settings:?}").contains("SECRET"));

    let head = "[[endpoint]]\nid = \"sfa\"\nurl = \"https://sfa.example.jp/SECRET\"\n";
    let good = format!("{head}secrets = [\"{SALES_SECRET}\"]");
    let read = endpoints(&good, &alone()).unwrap();
    let printed = format!("{read:?}");
    assert!(!printed.contains("MfKQ") && !printed.contains("SECRET"), "{printed}");

    // Every way to write it wrongly, and not one message that repeats it.
    for wrong in [
        "secrets = \"SECRET\"",
        "secrets = [\"whsec_SECRET\"]",
        "secrets = [\"whsec_SECRET!!!\", 5]",
        "secrets = { SECRET = 1 }",
        "whsec_SECRET = 1",
        "secret_file = \"whsec_SECRET\"",
        "secret_env = \"whsec_SECRET\"",
        "secrets = [\"SECRET]",
    ] {
        let found = endpoints(&format!("{head}{wrong}"), &alone()).expect_err(wrong);
        assert!(!found.iter().any(|it| it.contains("SECRET")), "{wrong}: {found:?}");
    }
    for (wrong, env) in [
        ("server_keys_file = \"SECRET\"", &[][..]),
        ("server_keys_env = \"SECRET\"", &[]),
        ("server_keys_env = \"K\"", &[("K", "SECRET")]),
        ("server_keys_env = \"K\"", &[("K", "0123456789abcSECRET, 0123456789abcSECRET")]),
    ] {
        let found = mikomi(&format!("{SITE}{wrong}"), &with_env(env)).expect_err(wrong);
        assert!(!found.iter().any(|it| it.contains("SECRET")), "{wrong}: {found:?}");
    }
}

#[test]
fn secrets_are_read_from_files_beside_the_settings() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("k.txt"), "# of www\n0123456789abcdefghij\n").unwrap();
    std::fs::write(dir.path().join("mikomi.toml"), format!("{SITE}server_keys_file = \"k.txt\""))
        .unwrap();
    let files = Files::read(Files::find(Some(dir.path()), Path::new("/"))).unwrap();
    let around = Surroundings { dir: files.dir.clone(), ..alone() };
    let loaded = load(&files, &around).unwrap();
    assert!(loaded.settings.sites[0].server_keys[0].matches(b"0123456789abcdefghij"));
    // In a folder of one's own nobody is told unless the file says so.
    assert!(loaded.endpoints.is_empty());
    assert_eq!(loaded.scoring.rules.len(), 18);
}

#[test]
fn the_folder_given_wins_and_the_usual_one_counts_only_with_settings_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let usual = dir.path().join("config");
    std::fs::create_dir(&usual).unwrap();
    assert_eq!(Files::find(None, dir.path()), None);
    std::fs::write(usual.join("mikomi.toml"), SITE).unwrap();
    assert_eq!(Files::find(None, dir.path()), Some(usual));
    let given = dir.path().join("other");
    assert_eq!(Files::find(Some(&given), dir.path()), Some(given.clone()));
    let problems = Files::read(Some(given)).unwrap_err();
    assert!(problems[0].to_string().starts_with("mikomi.toml: is not in"), "{}", problems[0]);
}

// ------------------------------------------------------------------------------- saved files

fn watcher() -> (Watcher, Vec<u8>) {
    let file = scoring(DEFAULT_SCORING).unwrap();
    let contents = Contents {
        mikomi: Some(DEFAULT_MIKOMI.as_bytes()),
        scoring: Some(DEFAULT_SCORING.as_bytes()),
        endpoints: Some(DEFAULT_ENDPOINTS.as_bytes()),
        owners: Some(DEFAULT_OWNERS.as_bytes()),
        ..Contents::default()
    };
    let named = NamedLists::default();
    let watcher = Watcher::new(alone(), contents, for_rules(), (&file, &named));
    (watcher, DEFAULT_SCORING.as_bytes().to_vec())
}

fn saved(scoring: &[u8]) -> Contents<'_> {
    Contents {
        mikomi: Some(DEFAULT_MIKOMI.as_bytes()),
        scoring: Some(scoring),
        endpoints: Some(DEFAULT_ENDPOINTS.as_bytes()),
        owners: Some(DEFAULT_OWNERS.as_bytes()),
        ..Contents::default()
    }
}

fn is_nothing(changes: &Changes) -> bool {
    changes.settings.is_none()
        && changes.scoring.is_none()
        && changes.endpoints.is_none()
        && changes.owners.is_none()
        && changes.named.is_none()
        && changes.do_not_send.is_none()
        && !changes.problems_changed
}

#[test]
fn a_good_file_is_published_once_and_a_bad_one_keeps_the_old() {
    let (mut watcher, same) = watcher();
    assert!(is_nothing(&watcher.changed(saved(&same))));

    let better = edited(DEFAULT_SCORING, "total_max  = 100", "total_max  = 120");
    assert!(is_nothing(&watcher.changed(saved(better.as_bytes()))));
    let changes = watcher.changed(saved(better.as_bytes()));
    assert_eq!(changes.scoring.unwrap().total_max, Some(Points::whole(120)));
    assert!(is_nothing(&watcher.changed(saved(better.as_bytes()))));

    let worse = edited(DEFAULT_SCORING, "total_max  = 100", "total_max  = \"a\"");
    watcher.changed(saved(worse.as_bytes()));
    let changes = watcher.changed(saved(worse.as_bytes()));
    assert!(changes.scoring.is_none() && changes.problems_changed);
    assert_eq!(watcher.problems().len(), 1);
    assert!(is_nothing(&watcher.changed(saved(worse.as_bytes()))));

    // Back to what is in force: nothing to publish, and nothing wrong any more.
    watcher.changed(saved(better.as_bytes()));
    let changes = watcher.changed(saved(better.as_bytes()));
    assert!(changes.scoring.is_none() && changes.problems_changed);
    assert_eq!(watcher.problems(), []);
}

#[test]
fn a_file_still_being_written_is_not_judged() {
    let (mut watcher, whole) = watcher();
    for length in [0, 10, 1_000, whole.len() / 2] {
        assert!(is_nothing(&watcher.changed(saved(&whole[..length]))), "{length}");
    }
    assert!(is_nothing(&watcher.changed(saved(&whole))));
}

#[test]
fn a_file_that_is_gone_keeps_what_it_said_and_is_missed_aloud() {
    let (mut watcher, whole) = watcher();
    let gone = Contents { scoring: None, ..saved(&whole) };
    assert!(is_nothing(&watcher.changed(gone)));
    let changes = watcher.changed(gone);
    assert!(changes.scoring.is_none() && changes.problems_changed);
    assert!(watcher.problems()[0].message.contains("is gone"));
}

#[test]
fn endpoints_are_judged_anew_when_the_thresholds_they_name_change() {
    let (mut watcher, whole) = watcher();
    let filtered = format!("{DEFAULT_ENDPOINTS}\n")
        .replace("audience = [\"sales\"] ", "thresholds = [\"warm\"]\naudience = [\"sales\"] ");
    let now = |scoring| Contents { endpoints: Some(filtered.as_bytes()), ..saved(scoring) };
    watcher.changed(now(&whole));
    assert_eq!(watcher.changed(now(&whole)).endpoints.unwrap().len(), 1);
    let renamed = edited(DEFAULT_SCORING, "warm = { rise", "tepid = { rise");
    watcher.changed(now(renamed.as_bytes()));
    let changes = watcher.changed(now(renamed.as_bytes()));
    assert!(changes.scoring.is_some() && changes.endpoints.is_none());
    assert!(watcher.problems()[0].message.contains("no threshold \"warm\""));
}

#[test]
fn saved_owners_take_effect_and_a_file_that_was_never_there_is_not_missed() {
    let (mut watcher, whole) = watcher();
    let owner = "[[owner]]\nmail = \"sato@vendor.example\"\nname = \"佐藤\"\n";
    let now = Contents { owners: Some(owner.as_bytes()), ..saved(&whole) };
    assert!(is_nothing(&watcher.changed(now)));
    let owners = watcher.changed(now).owners.unwrap();
    assert_eq!(owners.find("sato@vendor.example").unwrap().name_ja, "佐藤");
    let worse = Contents { owners: Some(b"[[owner]]"), ..now };
    watcher.changed(worse);
    let changes = watcher.changed(worse);
    assert!(changes.owners.is_none() && changes.problems_changed);

    let loaded = Contents { owners: None, ..saved(&whole) };
    let rules = scoring(DEFAULT_SCORING).unwrap();
    let named = NamedLists::default();
    let mut without = Watcher::new(alone(), loaded, for_rules(), (&rules, &named));
    without.insist();
    assert!(without.changed(loaded).owners.is_none());
    assert_eq!(without.problems(), []);
}

#[test]
fn lists_are_judged_anew_when_the_categories_they_name_change() {
    let (mut watcher, whole) = watcher();
    let worth = "[[list]]\nid = \"a\"\nwhere = { category = { name = \"interest\", from = 1 } }";
    let now = |scoring| Contents { named: Some(worth.as_bytes()), ..saved(scoring) };
    assert!(is_nothing(&watcher.changed(now(&whole))));
    assert_eq!(watcher.changed(now(&whole)).named.unwrap().all().len(), 1);
    let renamed = DEFAULT_SCORING.replace("interest", "research");
    watcher.changed(now(renamed.as_bytes()));
    let changes = watcher.changed(now(renamed.as_bytes()));
    assert!(changes.scoring.is_some() && changes.named.is_none());
    assert!(watcher.problems()[0].message.contains("no category \"interest\""));
}

#[test]
fn endpoints_are_judged_anew_when_the_lists_they_name_change() {
    let (mut watcher, whole) = watcher();
    let chosen = format!("{DEFAULT_ENDPOINTS}\n")
        .replace("audience = [\"sales\"] ", "lists = [\"vip\"]\naudience = [\"sales\"] ");
    let list = |id: &str| format!("[[list]]\nid = \"{id}\"\nwhere = {{ stage = \"hot\" }}\n");
    let mut save = |named: &str| {
        let now = Contents {
            endpoints: Some(chosen.as_bytes()),
            named: Some(named.as_bytes()),
            ..saved(&whole)
        };
        watcher.changed(now);
        watcher.changed(now).endpoints.map(|endpoints| endpoints.len())
    };
    assert_eq!(save(&list("vip")), Some(1));
    assert_eq!(save(&list("vips")), None);
    let problem = watcher.problems().remove(0);
    assert!(problem.to_string().contains("no list \"vip\" in lists.toml"), "{problem}");
    assert_eq!(problem.suggestion.as_deref(), Some("vips"));
}

#[test]
fn a_saved_list_of_whom_not_to_write_to_takes_effect_and_a_wrong_one_does_not() {
    let (mut watcher, whole) = watcher();
    let mut save = |text: &str| {
        let now = Contents { do_not_send: Some(text.as_bytes()), ..saved(&whole) };
        assert!(is_nothing(&watcher.changed(now)));
        watcher.changed(now)
    };
    assert!(save("a@b.example\n").do_not_send.unwrap().holds("a@b.example"));
    let wrong = save("a@b.example\n@\n");
    assert!(wrong.do_not_send.is_none() && wrong.problems_changed);
    assert!(watcher.problems()[0].to_string().starts_with("lists/do_not_send.txt:2:1: "));
}

#[test]
fn a_saved_template_takes_effect_without_a_change_of_the_endpoints() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("templates");
    std::fs::create_dir(&folder).unwrap();
    let save = |text: &str| std::fs::write(folder.join("own.j2"), text).unwrap();
    let own = "[[endpoint]]\nid = \"x\"\nurl = \"https://x.example/\"\n\
               body_template_file = \"templates/own.j2\"\n";
    std::fs::write(dir.path().join("endpoints.toml"), own).unwrap();
    save("{{ data.alert_id }}");
    let around = Surroundings { dir: Some(dir.path().to_owned()), ..alone() };
    let (files, _) = Files::look(dir.path());
    let rules = scoring(DEFAULT_SCORING).unwrap();
    let mut watcher =
        Watcher::new(around, files.contents(), for_rules(), (&rules, &NamedLists::default()));
    assert!(is_nothing(&watcher.changed(files.contents())));
    save("{{ data.headline.ja }}");
    let (files, _) = Files::look(dir.path());
    watcher.changed(files.contents());
    assert_eq!(watcher.changed(files.contents()).endpoints.unwrap().len(), 1);
    save("{{ data.headline.jp }}");
    let (files, _) = Files::look(dir.path());
    watcher.changed(files.contents());
    let changes = watcher.changed(files.contents());
    assert!(changes.endpoints.is_none() && changes.problems_changed);
    assert!(watcher.problems()[0].message.contains("undefined value"));
}

#[test]
fn what_is_insisted_on_is_read_at_once() {
    let (mut watcher, whole) = watcher();
    watcher.insist();
    let changes = watcher.changed(saved(&whole));
    assert!(changes.settings.is_some() && changes.endpoints.is_some());
    assert!(changes.scoring.is_none(), "the same rules are not a new version");
    assert!(is_nothing(&watcher.changed(saved(&whole))));
}

// --------------------------------------------------------------------------------- any input

fn edits() -> impl Strategy<Value = Vec<(usize, usize, Vec<u8>)>> {
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..6),
        prop::sample::select(vec![
            "[",
            "]",
            "{",
            "}",
            "\"",
            "=",
            ",",
            "\n",
            "#",
            ".",
            "[[",
            "\"\"\"",
            "\\u",
            "é",
            "9999999999999999999",
            "-0",
            "1e400",
            "inf",
            "0x",
            "1979-05-27",
            "'",
            "{ }",
            "**",
            "%E3%81",
            "/",
            "｛",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    prop::collection::vec((any::<usize>(), 0..8_usize, bytes), 1..6)
}

fn apply(text: &str, edits: &[(usize, usize, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for (at, removed, added) in edits {
        let at = at % (bytes.len() + 1);
        let end = (at + removed).min(bytes.len());
        bytes.splice(at..end, added.iter().copied());
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_edit_of_the_files_panics_and_every_refusal_says_why(edits in edits()) {
        let files = Files {
            contents: [
                DEFAULT_MIKOMI,
                DEFAULT_SCORING,
                DEFAULT_ENDPOINTS,
                DEFAULT_OWNERS,
                DEFAULT_LISTS,
                "tanaka@sample-seiki.example\n@rival.example\n",
            ]
            .map(|text| Some(apply(text, &edits))),
            ..Files::default()
        };
        if let Err(problems) = load(&files, &alone()) {
            prop_assert!(!problems.is_empty());
            prop_assert!(problems.iter().all(|it| !it.message.is_empty()));
        }
    }

    #[test]
    fn whatever_is_accepted_can_be_published(edits in edits()) {
        let around = Around { surroundings: &alone(), settings: None };
        if let Ok(file) = read_scoring(Some(&apply(DEFAULT_SCORING, &edits)), around) {
            let mut next = 0;
            let before = Versions::default();
            let mut intern = |_, _: &str| { next += 1; next };
            let published = file.publish(&before, (1, Timestamp(1)), &mut intern);
            prop_assert!(published.is_ok(), "{published:?}");
        }
    }
}
