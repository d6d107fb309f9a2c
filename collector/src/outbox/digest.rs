//! A digest: what was not sent one by one, and what is open, in one message. This file writes it
//! down in each form and language; it is pure.

use std::fmt::Write as _;

use engine::time::Timestamp;
use serde_json::{Value, json};

use super::entry::{Digest, Line};
use super::look::form_field;
use super::message::iso;

/// Bytes of a digest's text that a room takes for sure. A longer one is several messages.
const SLACK_BYTES_MAX: usize = 2_800;
/// The same of Chatwork.
const CHATWORK_BYTES_MAX: usize = 1_900;
/// The same of JSON.
const JSON_BYTES_MAX: usize = 16_000;
/// Longest text of a line, in characters: a name and a company may be long.
const TEXT_CHARS_MAX: usize = 160;

/// What the lines of a digest are about, in the order in which they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// Hot, and nobody took it.
    Untaken,
    /// The same, and somebody was reminded.
    Reminded,
    /// To be met today.
    Meeting,
    /// Held while people rested.
    Held,
    /// Too much for the day.
    Listed,
}

impl Section {
    /// All of them, in their order.
    pub const ALL: [Section; 5] =
        [Section::Untaken, Section::Reminded, Section::Meeting, Section::Held, Section::Listed];

    /// The name in the journal and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Section::Untaken => "untaken",
            Section::Reminded => "reminded",
            Section::Meeting => "meeting",
            Section::Held => "held",
            Section::Listed => "listed",
        }
    }

    /// The heading, in Japanese and English.
    fn title(self) -> (&'static str, &'static str) {
        match self {
            Section::Untaken => ("未対応のホットリード", "Hot, and nobody has taken them"),
            Section::Reminded => ("催促済みで未対応", "Reminded, and still not taken"),
            Section::Meeting => ("本日の商談", "Meetings today"),
            Section::Held => ("時間外に届いた通知", "Came while you were away"),
            Section::Listed => ("個別に送らなかった通知", "Not sent one by one"),
        }
    }
}

impl Line {
    /// A line of at most so many characters.
    pub fn new(text: &str, url: Option<&str>) -> Line {
        let mut text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some((end, _)) = text.char_indices().nth(TEXT_CHARS_MAX) {
            text.truncate(end);
            text.push('…');
        }
        Line { text, url: url.map(str::to_owned) }
    }
}

/// How many of the lines fit into one message; at least one.
pub fn fitting(digest: &Digest, lines: &[Option<Line>]) -> usize {
    let most = match digest.form.as_str() {
        "slack" => SLACK_BYTES_MAX,
        "chatwork" => CHATWORK_BYTES_MAX,
        _ => JSON_BYTES_MAX,
    };
    let length = |lines: &[Option<Line>]| match digest.form.as_str() {
        // What counts there is the text, not how the form writes it.
        "chatwork" => chatwork(digest, lines).len(),
        _ => body(digest, lines).len(),
    };
    let fits = |count: &usize| length(&lines[..*count]) <= most;
    (2..=lines.len()).take_while(fits).last().unwrap_or(1)
}

/// The body. `lines` are its items', as far as they can still be read: of whoever is forgotten
/// nothing is said any more.
pub fn body(digest: &Digest, lines: &[Option<Line>]) -> Vec<u8> {
    match digest.form.as_str() {
        "slack" => slack(digest, lines).to_string().into_bytes(),
        "chatwork" => form_field("body", &chatwork(digest, lines)),
        _ => whole(digest, lines).to_string().into_bytes(),
    }
}

/// The sections that have lines, each with its items' places.
fn sections<'a>(
    digest: &'a Digest,
    lines: &'a [Option<Line>],
) -> impl Iterator<Item = (Section, Vec<(usize, &'a Line)>)> {
    Section::ALL.into_iter().filter_map(move |section| {
        let items = digest.items.iter().zip(lines).enumerate();
        let of_it = items.filter(|(_, (item, _))| item.section == section.name());
        let lines: Vec<(usize, &Line)> =
            of_it.filter_map(|(place, (_, line))| Some((place, line.as_ref()?))).collect();
        (!lines.is_empty()).then_some((section, lines))
    })
}

/// The first line, in Japanese and English.
fn headline(digest: &Digest) -> (String, String) {
    const DAYS: [(&str, &str); 7] = [
        ("月", "Mon"),
        ("火", "Tue"),
        ("水", "Wed"),
        ("木", "Thu"),
        ("金", "Fri"),
        ("土", "Sat"),
        ("日", "Sun"),
    ];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let date = date_of(digest.day);
    let (month, day) = (date.month(), date.day());
    // 1 January 1970 was a Thursday.
    let (ja_day, en_day) = DAYS[(digest.day + 3).rem_euclid(7) as usize];
    let en_month = MONTHS[(month - 1).rem_euclid(12) as usize];
    let morning = digest.occasion == "morning";
    let (ja, en) =
        if morning { ("朝のまとめ", "THIS MORNING") } else { ("本日のまとめ", "TODAY") };
    let mut ja = format!("【{ja}】{month}/{day}（{ja_day}）");
    let mut en = format!("{en}: {en_day} {day} {en_month}");
    if digest.part > 0 {
        // Writing into a string does not fail.
        let _ = write!(ja, "（{}）", digest.part + 1);
        let _ = write!(en, " ({})", digest.part + 1);
    }
    (ja, en)
}

fn date_of(day: i64) -> jiff::civil::Date {
    let first = jiff::civil::date(1970, 1, 1);
    let days = jiff::Span::new().try_days(day);
    days.and_then(|days| first.checked_add(days)).unwrap_or(first)
}

fn in_language<'a>(digest: &Digest, (ja, en): (&'a str, &'a str)) -> &'a str {
    if digest.lang == "en" { en } else { ja }
}

fn whole(digest: &Digest, lines: &[Option<Line>]) -> Value {
    let (ja, en) = headline(digest);
    let sections = sections(digest, lines).map(|(section, lines)| {
        let (ja, en) = section.title();
        let lines = lines.iter().map(|(place, line)| {
            let item = &digest.items[*place];
            json!({ "lead": item.lead, "alert": item.alert, "text": line.text, "url": line.url })
        });
        json!({
            "section": section.name(),
            "title": { "ja": ja, "en": en },
            "lines": lines.collect::<Vec<_>>(),
        })
    });
    json!({
        "type": format!("digest.{}", digest.occasion),
        "timestamp": iso(Timestamp(digest.slot)),
        "data": {
            "schema": 1,
            "alert_id": digest.alert,
            "test": digest.test,
            "day": date_of(digest.day).to_string(),
            "part": digest.part + 1,
            "headline": { "ja": ja, "en": en },
            "sections": sections.collect::<Vec<_>>(),
        },
    })
}

fn slack(digest: &Digest, lines: &[Option<Line>]) -> Value {
    let plain = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let (ja, en) = headline(digest);
    let headline = in_language(digest, (&ja, &en));
    let open = in_language(digest, ("開く", "open"));
    let mut blocks = vec![json!({
        "type": "header", "text": { "type": "plain_text", "text": headline },
    })];
    for (section, lines) in sections(digest, lines) {
        let mut text = format!("*{}*", in_language(digest, section.title()));
        for (_, line) in lines {
            text.push_str("\n• ");
            text.push_str(&plain(&line.text));
            if let Some(url) = &line.url {
                let _ = write!(text, " <{}|{open}>", plain(url).replace('|', "%7C"));
            }
        }
        blocks.push(json!({ "type": "section", "text": { "type": "mrkdwn", "text": text } }));
    }
    json!({ "text": headline, "unfurl_links": false, "blocks": blocks })
}

fn chatwork(digest: &Digest, lines: &[Option<Line>]) -> String {
    // There is no escape: a bracket could begin a tag.
    let plain = |text: &str| text.replace('[', "［").replace(']', "］");
    let (ja, en) = headline(digest);
    let mut text = format!("[info][title]{}[/title]", in_language(digest, (&ja, &en)));
    for (number, (section, lines)) in sections(digest, lines).enumerate() {
        text.push_str(if number > 0 { "\n\n■" } else { "■" });
        text.push_str(in_language(digest, section.title()));
        for (_, line) in lines {
            text.push('\n');
            text.push_str(&plain(&line.text));
            if let Some(url) = &line.url {
                text.push_str("  ");
                text.push_str(&plain(url));
            }
        }
    }
    text.push_str("[/info]");
    text
}

#[cfg(test)]
mod tests {
    use super::super::entry::Item;
    use super::*;

    fn digest(form: &str, lang: &str, sections: &[Section]) -> Digest {
        let item = |(number, section): (usize, &Section)| Item {
            section: section.name().into(),
            lead: format!("L{number:016x}"),
            alert: Some(format!("msg_{number}")),
            line: String::new(),
        };
        Digest {
            alert: "msg_d".into(),
            endpoint: "room".into(),
            occasion: "morning".into(),
            slot: 1_796_688_000_000,
            day: 20_795, // 8 December 2026
            part: 0,
            test: false,
            not_before: None,
            form: form.into(),
            lang: lang.into(),
            items: sections.iter().enumerate().map(item).collect(),
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "a line that may be gone")]
    fn line(text: &str) -> Option<Line> {
        Some(Line::new(text, Some("https://mikomi.vendor.example/leads/L1")))
    }

    #[test]
    fn slack_gets_a_heading_and_a_section_each_in_its_language() {
        let digest = digest("slack", "ja", &[Section::Held, Section::Untaken, Section::Held]);
        let lines = [line("【ホット】A & B <社>"), line("未対応"), None];
        let found: Value = serde_json::from_slice(&body(&digest, &lines)).unwrap();
        assert_eq!(found["text"], "【朝のまとめ】12/8（火）");
        let url = "https://mikomi.vendor.example/leads/L1";
        let section =
            |text: &str| json!({ "type": "section", "text": { "type": "mrkdwn", "text": text } });
        let expected = [
            json!({ "type": "header", "text": {
                "type": "plain_text", "text": "【朝のまとめ】12/8（火）" } }),
            section(&format!("*未対応のホットリード*\n• 未対応 <{url}|開く>")),
            section(&format!(
                "*時間外に届いた通知*\n• 【ホット】A &amp; B &lt;社&gt; <{url}|開く>"
            )),
        ];
        assert_eq!(found["blocks"], json!(expected));
    }

    #[test]
    fn chatwork_gets_text_in_which_a_name_begins_no_tag() {
        let mut digest = digest("chatwork", "en", &[Section::Listed, Section::Meeting]);
        digest.occasion = "evening".into();
        digest.part = 1;
        let lines = [line("HOT: [To:1] x"), Some(Line::new("Mori", None))];
        let form = body(&digest, &lines);
        let fields: Vec<_> = form_urlencoded::parse(&form).collect();
        assert_eq!((fields.len(), &*fields[0].0), (1, "body"));
        assert_eq!(
            fields[0].1,
            "[info][title]TODAY: Tue 8 Dec (2)[/title]■Meetings today\nMori\n\n\
             ■Not sent one by one\nHOT: ［To:1］ x  https://mikomi.vendor.example/leads/L1[/info]"
        );
    }

    #[test]
    fn json_has_both_languages_and_says_what_each_line_stands_for() {
        let digest = digest("json", "ja", &[Section::Reminded]);
        let found: Value = serde_json::from_slice(&body(&digest, &[line("x")])).unwrap();
        assert_eq!(found["type"], "digest.morning");
        assert_eq!(found["timestamp"], "2026-12-08T00:00:00.000Z");
        let data = &found["data"];
        assert_eq!((&data["day"], &data["part"]), (&json!("2026-12-08"), &json!(1)));
        let expected = json!([{
            "section": "reminded",
            "title": { "ja": "催促済みで未対応", "en": "Reminded, and still not taken" },
            "lines": [{
                "lead": "L0000000000000000", "alert": "msg_0", "text": "x",
                "url": "https://mikomi.vendor.example/leads/L1",
            }],
        }]);
        assert_eq!(data["sections"], expected);
    }

    #[test]
    fn as_many_lines_as_a_room_takes_are_one_message() {
        for (form, most) in [("slack", 2_800), ("chatwork", 1_900), ("json", 16_000)] {
            let digest = digest(form, "ja", &[Section::Listed; 200]);
            let lines = vec![line(&"社".repeat(50)); 200];
            let count = fitting(&digest, &lines);
            let length = |lines: &[Option<Line>]| {
                let bytes = body(&digest, lines);
                let field = form_urlencoded::parse(&bytes).next();
                if form == "chatwork" { field.unwrap().1.len() } else { bytes.len() }
            };
            assert!(count > 5 && length(&lines[..count]) <= most, "{form}: {count}");
            assert!(length(&lines[..=count]) > most, "{form}: {count}");
            let long = vec![line(&"\u{10ffff}".repeat(5_000)); 2];
            assert_eq!(fitting(&digest, &long[..1]), 1);
            assert!(length(&long[..1]) <= most, "{form}");
        }
    }

    #[test]
    fn a_text_is_cut_between_characters_and_has_no_line_breaks() {
        let line = Line::new(&"あ\n".repeat(500), None);
        assert_eq!(line.text.chars().count(), TEXT_CHARS_MAX + 1);
        assert!(line.text.ends_with('…') && !line.text.contains('\n'));
    }
}
