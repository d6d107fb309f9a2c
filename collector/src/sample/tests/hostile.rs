//! Whatever people type, and however long rule files are: bodies stay within their limits, add
//! up, and hold no markup that is not ours.

use std::sync::Arc;

use engine::attribute::Attributes;
use engine::facts::Said;
use engine::hit::{TEXT_BYTES_MAX, VALUE_BYTES_MAX};
use engine::id::RuleId;
use engine::identity::Assurance;
use engine::lead::OTHER;
use engine::points::Points;
use engine::record::{Body, Reason};
use engine::scoring::Text;
use proptest::prelude::*;

use super::*;
use crate::outbox::look::CHATWORK_BYTES_MAX;

/// Bytes of a body.
const BODY_BYTES: usize = 20_000;
/// Everything that a body shows of a person.
const SHOWN: [&str; 15] = [
    "name",
    "email",
    "phone",
    "title",
    "department",
    "company",
    "industry",
    "owner",
    "crm_id",
    "user_id",
    "corporate_number",
    "open_deal",
    "registered_events",
    "trial_until",
    "employees",
];

/// A scene in which everybody says what is given, by every way there is.
fn scene_of(kind: AlertKind, word: &str, rules: &ScoringFile) -> Scene {
    let mut scene = play(rules, kind).unwrap().unwrap();
    let cut = |most: usize| word[..word.floor_char_boundary(most.min(word.len()))].to_owned();
    let said: Attributes =
        SHOWN.iter().map(|name| ((*name).to_owned(), cut(VALUE_BYTES_MAX))).collect();
    scene.lead.content.said.push(Said {
        time: scene.lead.content.said.last().map(|said| said.time).unwrap_or_default(),
        identity: Assurance::Verified,
        attributes_by: Assurance::Verified,
        by: cut(64).into(),
        attributes: Arc::new(said),
        ..Said::default()
    });
    for record in scene.timeline.values_mut() {
        match &mut record.body {
            Body::Hit(record) => {
                let hit = &mut record.hit;
                hit.title = cut(TEXT_BYTES_MAX);
                hit.url = format!("https://vendor.example/{}?q=secret", cut(TEXT_BYTES_MAX - 40));
                hit.campaign = cut(200);
                if !hit.event.is_empty() {
                    hit.event = cut(64);
                }
            }
            Body::Step(step) => step.reason = cut(500),
            _ => {}
        }
    }
    scene
}

fn own_rules(label: &str, head: &str) -> ScoringFile {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let labelled = DEFAULT_SCORING
        .replace("ja = \"料金ページを閲覧\"", &format!("ja = {}", quoted(label)))
        .replace("en = \"Viewed pricing\"", &format!("en = {}", quoted(label)))
        .replace("ja = \"資料をダウンロード\"", &format!("ja = {}", quoted(label)));
    let surroundings = Surroundings::default();
    let around = Around { surroundings: &surroundings, settings: None };
    let mut file = ScoringFile::parse("scoring.toml", &labelled, around).unwrap();
    for kind in ["hot", "cooled", "action", "signal", "reminder", "escalated"] {
        let text = format!("{{company}} {{name}} {head}");
        file.texts.insert(kind.to_owned(), Text { ja: text.clone(), en: text });
    }
    file
}

/// Every text that Slack shows, and how long it may be.
fn slack_texts(message: &Value) -> Vec<(String, usize)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut texts = vec![(text(&message["text"]), 3_000)];
    let blocks = message["blocks"].as_array().unwrap();
    assert!(blocks.len() <= 50);
    for block in blocks {
        match block["type"].as_str().unwrap() {
            "header" => texts.push((text(&block["text"]["text"]), 150)),
            "section" if block["fields"].is_array() => {
                let fields = block["fields"].as_array().unwrap();
                assert!((1..=10).contains(&fields.len()));
                texts.extend(fields.iter().map(|field| (text(&field["text"]), 2_000)));
            }
            "section" => texts.push((text(&block["text"]["text"]), 3_000)),
            "actions" => {
                for button in block["elements"].as_array().unwrap() {
                    texts.push((text(&button["text"]["text"]), 75));
                    let url = text(&button["url"]);
                    assert!(url.len() <= 3_000 && url.starts_with("https://"), "{url}");
                }
            }
            "context" => {
                let elements = block["elements"].as_array().unwrap();
                assert!(elements.len() <= 10);
                texts.extend(elements.iter().map(|element| (text(&element["text"]), 3_000)));
            }
            other => panic!("{other}"),
        }
    }
    texts
}

fn check_slack(bytes: &[u8]) {
    let message: Value = serde_json::from_slice(bytes).unwrap();
    for (text, most) in slack_texts(&message) {
        let units = text.encode_utf16().count();
        assert!((1..=most).contains(&units), "{units} of {most}: {text}");
        let ours = [
            "<@U0SATO>",
            "<https://mikomi.vendor.example/leads/L7f3a9c1e5b2d4806|行動履歴>",
            "<https://mikomi.vendor.example/leads/L7f3a9c1e5b2d4806|timeline>",
        ];
        let rest = ours.iter().fold(text.clone(), |text, ours| text.replace(ours, ""));
        assert!(!rest.contains(['<', '>']), "{text}");
        for (at, _) in rest.match_indices('&') {
            let sign = ["&amp;", "&lt;", "&gt;"].iter().any(|sign| rest[at..].starts_with(sign));
            assert!(sign, "{text}");
        }
        assert!(text.lines().count() <= 5, "a line of somebody else's: {text}");
    }
}

fn check_chatwork(bytes: &[u8]) {
    let fields: Vec<_> = form_urlencoded::parse(bytes).into_owned().collect();
    assert_eq!((fields.len(), fields[0].0.as_str()), (1, "body"));
    let text = &fields[0].1;
    assert!(text.len() <= CHATWORK_BYTES_MAX, "{} bytes", text.len());
    let ours = ["[To:1234567]", "[info]", "[title]", "[/title]", "[hr]", "[/info]"];
    let rest = ours.iter().fold(text.clone(), |text, ours| text.replacen(ours, "", 1));
    assert!(!rest.contains('['), "{text}");
    assert!(text.contains("[info][title]") && text.ends_with("[/info]"), "{text}");
}

fn check_json(body: &Value) {
    let bytes = body.to_string().len();
    assert!(bytes < BODY_BYTES, "{bytes} bytes");
    let data = &body["data"];
    let thousandths = |value: &Value| (value.as_f64().unwrap() * 1_000.0).round() as i64;
    let reasons = data["reasons"].as_array().unwrap();
    assert!(reasons.len() <= 21);
    let sum: i64 = reasons.iter().map(|reason| thousandths(&reason["points"])).sum();
    if !reasons.is_empty() {
        assert_eq!(sum, thousandths(&data["score"]["exact"]));
    }
    let others = reasons.iter().filter(|reason| reason["rule"] == "other");
    assert!(others.count() <= 1 && (reasons.len() <= 20 || reasons[20]["rule"] == "other"));
    for recent in data["recent"].as_array().unwrap() {
        assert!(recent["title"].as_str().unwrap().chars().count() <= 80);
        assert!(!recent["url"].as_str().unwrap().contains(['?', '#']));
    }
    assert_eq!(data["lead"]["id"], "L7f3a9c1e5b2d4806");
}

/// The largest body of a kind.
pub(super) fn largest(kind: AlertKind) -> Value {
    let scene = scene_of(kind, &"\u{1}漢\"".repeat(400), &own_rules(&"漢".repeat(1_000), ""));
    Props::example().material(&scene, |material| material.body(&BTreeSet::new())).unwrap()
}

/// Every form and language, of a scene.
fn check(scene: &Scene) {
    let props = Props::example();
    let nothing = BTreeSet::new();
    check_json(&props.material(scene, |material| material.body(&nothing)).unwrap());
    for form in Form::ALL {
        for lang in [Lang::Ja, Lang::En] {
            let look = Look { form, lang, app: Some(1), template: None };
            let rendered = props
                .material(scene, |it| it.rendered(&it.body(&nothing), &look, &nothing))
                .unwrap();
            assert_eq!(rendered.failed, None, "{form} {lang:?}");
            match form {
                Form::Slack => check_slack(&rendered.bytes),
                Form::Chatwork => check_chatwork(&rendered.bytes),
                Form::Json | Form::Kintone | Form::Salesforce => {
                    assert!(serde_json::from_slice::<Value>(&rendered.bytes).is_ok());
                }
            }
        }
    }
}

/// All reasons that fit, each with the longest label.
fn with_all_reasons(mut scene: Scene) -> Scene {
    let record = scene.timeline.get_mut(&scene.at.0).unwrap();
    let Body::Hit(hit) = &mut record.body else {
        panic!("a hit");
    };
    let told = &mut hit.lead.as_mut().unwrap().messages[scene.at.1].told;
    let whose = told.reasons[0].rule;
    let reason = |rule: RuleId, place: i64| Reason {
        rule,
        times: 2,
        points: Points(3_333 - place),
        last: told.at,
    };
    let mut reasons: Vec<Reason> = (0..20).map(|place| reason(whose, place)).collect();
    reasons.push(reason(OTHER, 20));
    told.score = Points(reasons.iter().map(|reason| reason.points.0).sum());
    told.reasons = reasons;
    scene
}

#[test]
fn the_largest_body_there_can_be_fits() {
    let letters =
        ["\u{1}", "\"", "\\", "漢", "𝄞", "&", "<", "[", "a", " ", "\u{202e}", "<@U1>", "[To:1]"];
    for letter in letters {
        let word = letter.repeat(TEXT_BYTES_MAX / letter.len() + 1);
        let plain: String = letter.chars().filter(|c| !c.is_control()).collect();
        let label = plain.repeat(4_000 / plain.len().max(1));
        let label = if label.trim().is_empty() { "label".to_owned() } else { label };
        let rules = own_rules(&label, &label[..label.floor_char_boundary(3_000)]);
        for kind in [AlertKind::Hot, AlertKind::Cooled, AlertKind::Signal] {
            check(&scene_of(kind, &word, &rules));
        }
        check(&with_all_reasons(scene_of(AlertKind::Hot, &word, &rules)));
    }
}

#[test]
fn what_is_missed_least_goes_first() {
    let (short, word) = ("漢".repeat(100), "漢".repeat(400));
    let small = scene_of(AlertKind::Hot, &short, &shipped_rules().unwrap());
    let nothing = BTreeSet::new();
    let of = |scene: &Scene| {
        let body = Props::example().material(scene, |it| it.body(&nothing)).unwrap();
        let data = &body["data"];
        let name = data["lead"]["name"].as_str().unwrap().len();
        (data["recent"].as_array().unwrap().len(), data["reasons"].as_array().unwrap().len(), name)
    };
    assert_eq!(of(&small), (5, 9, 300), "nothing is cut that fits");
    let rules = own_rules(&"漢".repeat(250), "");
    let larger = with_all_reasons(scene_of(AlertKind::Hot, &word, &rules));
    let (recent, reasons, name) = of(&larger);
    assert!(recent == 0 && (5..21).contains(&reasons), "{recent} {reasons}");
    assert_eq!(name, 510, "names stay whole as long as anything else can go");
}

#[test]
fn mail_and_phone_are_in_no_chat_unless_they_are_asked_for() {
    let mut scene = scene(AlertKind::Hot);
    let said = Said {
        identity: Assurance::Verified,
        attributes_by: Assurance::Verified,
        attributes: Arc::new([("phone".to_owned(), "03-1234-5678".to_owned())].into()),
        ..scene.lead.content.said.last().unwrap().clone()
    };
    scene.lead.content.said.push(said);
    for lang in [Lang::Ja, Lang::En] {
        for form in [Form::Slack, Form::Chatwork] {
            let look = Look { form, lang, ..Look::default() };
            let hide = form.hidden();
            let sent = Props::example()
                .material(&scene, |it| it.rendered(&it.body(&hide), &look, &hide))
                .unwrap();
            let text = String::from_utf8_lossy(&sent.bytes).replace("%40", "@");
            assert!(!text.contains("tanaka@") && !text.contains("1234-5678"), "{text}");
        }
    }
}

/// Pieces that have a meaning somewhere, in any order.
fn words() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("<@U1>".to_owned()),
        Just("<!channel>".to_owned()),
        Just("<https://evil.example|here>".to_owned()),
        Just("[To:1]".to_owned()),
        Just("[/title][/info]".to_owned()),
        Just("&lt;".to_owned()),
        Just("\",\"blocks\":[".to_owned()),
        Just("\\u0000\\".to_owned()),
        Just("{{ data }}{% for x in y %}".to_owned()),
        Just("\r\n*なぜ今* ".to_owned()),
        Just("\u{2028}\u{202e}".to_owned()),
        Just("田中 恵".to_owned()),
        any::<String>(),
    ];
    prop::collection::vec(piece, 1..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn no_text_breaks_a_body_or_becomes_markup(word in words(), label in "[^\\p{C}]{1,200}") {
        let label = if label.trim().is_empty() { "label".to_owned() } else { label };
        let head: String = label.chars().filter(|c| !"{}｛｝".contains(*c)).collect();
        let rules = own_rules(&label, &head);
        for kind in [AlertKind::Hot, AlertKind::Retracted] {
            check(&scene_of(kind, &word, &rules));
        }
    }
}
