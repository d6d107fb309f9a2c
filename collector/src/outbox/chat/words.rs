//! The sentences of a chat message, in Japanese and English.

use std::collections::BTreeSet;
use std::time::Duration;

use engine::alert::AlertKind;
use engine::id::RuleId;
use engine::record::{Because, Body};
use engine::scoring::Text;
use engine::threshold::{Direction, Gate};
use engine::time::Timestamp;

use super::when::Calendar;
use super::{STATUS_CHARS_MAX, WORD_CHARS_MAX};
use crate::ingest::click::MAIL_CLICK;
use crate::outbox::look::Lang;
use crate::outbox::message::{Material, closed_up, named_rule, short};

/// How near a form and the rule that counts it are.
const SAME_MOMENT: Duration = Duration::from_mins(1);
/// What people ask for when they say who they are, by the rule that counts it.
const ASKED_FOR: [(&str, &str); 5] = [
    ("document", "資料請求"),
    ("contact", "お問い合わせ"),
    ("trial", "トライアル申込"),
    ("event", "セミナー申込"),
    ("applied", "採用応募"),
];
/// Industries that have a Japanese name.
const INDUSTRIES: [(&str, &str); 10] = [
    ("manufacturing", "製造業"),
    ("it", "IT"),
    ("finance", "金融業"),
    ("retail", "小売業"),
    ("construction", "建設業"),
    ("healthcare", "医療"),
    ("education", "教育"),
    ("logistics", "運輸業"),
    ("services", "サービス業"),
    ("government", "官公庁"),
];

impl Material<'_> {
    /// Why now, in a sentence.
    pub(super) fn why(&self, calendar: Calendar) -> String {
        let (told, lang) = (self.told(), calendar.lang);
        let because = told.because.as_ref().map(|because| self.act_and_when(because, calendar));
        let said = match self.message.kind {
            AlertKind::Hot | AlertKind::Action | AlertKind::Escalated | AlertKind::Signal => {
                because.or_else(|| self.opened(lang))
            }
            AlertKind::Cooled => Some(self.cooled(lang)),
            AlertKind::Reminder => Some(match (lang, self.hours_waited()) {
                (Lang::Ja, hours) => format!("営業時間で{hours}時間、未対応です"),
                (Lang::En, 1) => "Nobody has taken it for 1 working hour".to_owned(),
                (Lang::En, hours) => format!("Nobody has taken it for {hours} working hours"),
            }),
            AlertKind::Retracted => Some(self.taken_back(lang)),
            AlertKind::Merged | AlertKind::Unmerged => self.names_changed(lang),
            AlertKind::Erased => Some(match lang {
                Lang::Ja => "本人の求めにより消去しました。手元の情報も削除してください".to_owned(),
                Lang::En => "Erased at the person's request. Delete what you have".to_owned(),
            }),
        };
        said.unwrap_or_default()
    }

    /// `8:56 に料金ページを閲覧（本日のメールから来訪。12/4 に続き2回目）`
    fn act_and_when(&self, because: &Because, calendar: Calendar) -> String {
        let label = self.label(because.rule);
        let mut more = Vec::new();
        let ja = calendar.lang == Lang::Ja;
        let today = calendar.is_today(because.at);
        if self.hit_did_it() && today && self.came_by_mail() {
            more.push(
                if ja { "本日のメールから来訪" } else { "came from today's mail" }.to_owned(),
            );
        }
        more.extend(self.repeated(because, calendar));
        more.extend(self.far_above(calendar.lang));
        let label = short(calendar.lang.of(&label), WORD_CHARS_MAX);
        if ja {
            let said = format!("{} に{label}", calendar.moment(because.at));
            return if more.is_empty() {
                said
            } else {
                format!("{said}（{}）", more.join("。"))
            };
        }
        let said = format!("{label} {}", calendar.at_moment(because.at));
        if more.is_empty() { said } else { format!("{said} ({})", more.join("; ")) }
    }

    /// Whether the person did something just now: else the visit says nothing about it.
    fn hit_did_it(&self) -> bool {
        matches!(self.cause.body, Body::Hit(_))
    }

    /// `12/4 に続き2回目`
    fn repeated(&self, because: &Because, calendar: Calendar) -> Option<String> {
        let reason = self.told().reasons.iter().find(|reason| reason.rule == because.rule)?;
        let rows = self.lead.content.rows.iter();
        let before = rows
            .filter(|row| row.rule == because.rule && row.cut.counted() && !row.folded)
            .filter(|row| row.when < because.at)
            .map(|row| row.when)
            .max()?;
        let (times, before) = (reason.times, calendar.day_or_time(before));
        (times > 1).then(|| match calendar.lang {
            Lang::Ja => format!("{before} に続き{times}回目"),
            Lang::En => format!("{} time since {before}", ordinal(times)),
        })
    }

    /// How far the score is above what was last told.
    fn far_above(&self, lang: Lang) -> Option<String> {
        let told = self.told();
        let last = told.last_told?;
        let above = told.score.shown() - last.shown();
        let also = self.message.kind == AlertKind::Action;
        (above > 0).then(|| match (lang, also) {
            (Lang::Ja, _) => format!("前回の通知より{above}点高い"),
            (Lang::En, true) => format!("also {above} points above the last message"),
            (Lang::En, false) => format!("{above} points above the last message"),
        })
    }

    /// What opened the line where no act did.
    fn opened(&self, lang: Lang) -> Option<String> {
        let told = self.told();
        if self.waited_for_cooldown() {
            return Some(lang.pick(
                "前回の通知からの待ち時間が過ぎました",
                "The wait after the last alert is over",
            ));
        }
        let crossing = self.crossing?;
        let rose = crossing.direction == Direction::Rise;
        Some(match crossing.opened_by.filter(|_| rose) {
            Some(Gate::Grade) => match lang {
                Lang::Ja => format!("属性の評価が{}になりました", told.grade.letter()),
                Lang::En => format!("The grade is now {}", told.grade.letter()),
            },
            Some(Gate::Identity) => lang.pick("どなたかが分かりました", "It is known who this is"),
            Some(Gate::Consent) => lang.pick("同意がありました", "Consent was given"),
            Some(Gate::Recent) => lang.pick("再び訪問がありました", "They came back"),
            Some(Gate::Sales) => {
                lang.pick("営業の対応が終わっています", "Sales is no longer working it")
            }
            Some(Gate::Rules) | None => {
                lang.pick("ルールの変更により条件がそろいました", "The rules changed")
            }
            Some(Gate::Score | Gate::Urgency) => match (lang, self.line()) {
                (Lang::Ja, Some(line)) => format!("{}点を超えました", line.shown()),
                (Lang::En, Some(line)) => format!("The score passed {}", line.shown()),
                (_, None) => String::new(),
            },
        })
    }

    fn cooled(&self, lang: Lang) -> String {
        let (line, days) = (self.line().unwrap_or_default().shown(), self.days_unseen());
        match lang {
            Lang::Ja => format!("{line}点を下回りました（最後の行動は{days}日前）"),
            Lang::En => {
                let days = counted(days, "day");
                format!("The score fell below {line} (last seen {days} ago)")
            }
        }
    }

    fn taken_back(&self, lang: Lang) -> String {
        let stated = match &self.cause.body {
            Body::Step(step) if !step.reason.is_empty() => short(&step.reason, WORD_CHARS_MAX),
            Body::Step(_) => lang.pick("記録の取り消し", "what was known was withdrawn"),
            _ => lang.pick("ルールの変更", "the rules changed"),
        };
        match lang {
            Lang::Ja => format!("先の通知を取り消します（{stated}）"),
            Lang::En => format!("The earlier alert is taken back ({stated})"),
        }
    }

    fn names_changed(&self, lang: Lang) -> Option<String> {
        let other = self.message.other?;
        let merged = self.message.kind == AlertKind::Merged;
        Some(match (lang, merged) {
            (Lang::Ja, true) => format!("{other} と同じ方と分かりました"),
            (Lang::Ja, false) => format!("{other} とは別の方と分かりました"),
            (Lang::En, true) => format!("The same person as {other}"),
            (Lang::En, false) => format!("Another person than {other}"),
        })
    }

    /// The first line, and the reason if it does not stand there.
    pub(super) fn summary(&self, headline: &str, why: &str, lang: Lang) -> String {
        let label = self.told().because.map(|because| self.label(because.rule));
        let reason = match (self.message.kind, &label) {
            // The first line says it already.
            (AlertKind::Cooled | AlertKind::Reminder, _) => "",
            (_, Some(label)) => lang.of(label),
            (_, None) => why,
        };
        if reason.is_empty() || headline.contains(reason) {
            return headline.to_owned();
        }
        match lang {
            Lang::Ja => format!("{headline}。{reason}"),
            Lang::En => format!("{headline}. {reason}"),
        }
    }

    pub(super) fn label(&self, rule: RuleId) -> Text {
        named_rule(self.scoring, self.catalog, rule).1
    }

    /// `田中恵さん（製造部 課長）`, `田中 恵, 課長, 製造部`
    pub(super) fn person(&self, hide: &BTreeSet<String>, lang: Lang) -> String {
        let name = short(&self.called(hide), WORD_CHARS_MAX);
        let word = |name: &str| self.shown(name, hide).map(|word| short(word, WORD_CHARS_MAX));
        let (department, title) = (word("department"), word("title"));
        match lang {
            Lang::Ja => {
                let place: Vec<String> = department.into_iter().chain(title).collect();
                let name = format!("{}さん", closed_up(&name));
                if place.is_empty() { name } else { format!("{name}（{}）", place.join(" ")) }
            }
            Lang::En => {
                let parts: Vec<String> =
                    [Some(name), title, department].into_iter().flatten().collect();
                parts.join(", ")
            }
        }
    }

    /// `サンプル精機株式会社（製造業）`
    pub(super) fn company_said(&self, hide: &BTreeSet<String>, lang: Lang) -> Option<String> {
        let name = self.shown("company", hide).map(|name| short(name, WORD_CHARS_MAX));
        match (name, self.industry(hide, lang), lang) {
            (Some(name), Some(industry), Lang::Ja) => Some(format!("{name}（{industry}）")),
            (Some(name), Some(industry), Lang::En) => Some(format!("{name} ({industry})")),
            (name, industry, _) => name.or(industry),
        }
    }

    pub(super) fn industry(&self, hide: &BTreeSet<String>, lang: Lang) -> Option<String> {
        let word = self.shown("industry", hide)?;
        let known = INDUSTRIES.iter().find(|(known, _)| word.eq_ignore_ascii_case(known));
        Some(match (known, lang) {
            (Some((_, ja)), Lang::Ja) => (*ja).to_owned(),
            _ => short(word, WORD_CHARS_MAX),
        })
    }

    /// `中（24時間で +14点）`
    pub(super) fn urgency_said(&self, lang: Lang) -> String {
        let told = self.told();
        let gained = told.score.shown() - told.before_24h.shown();
        let level = self.urgency();
        match lang {
            Lang::Ja => {
                let level = match level {
                    "high" => "高",
                    "medium" => "中",
                    _ => "低",
                };
                format!("{level}（24時間で {gained:+}点）")
            }
            Lang::En => format!("{level} ({gained:+} points in 24 hours)"),
        }
    }

    /// `済み（メールのリンク）`
    pub(super) fn identity(&self, lang: Lang) -> String {
        if !self.is_confirmed() {
            return lang
                .pick("本人未確認（フォームの自己申告）", "not confirmed (typed in a form)");
        }
        let by = match self.confirmed_by {
            MAIL_CLICK | "link" => lang.pick("メールのリンク", "mail link"),
            "server" => lang.pick("自社システム", "our own system"),
            "hmac" => lang.pick("ログイン", "signed in"),
            "accepted" | "contacted" => lang.pick("営業", "sales"),
            other => short(other, WORD_CHARS_MAX),
        };
        match (lang, by.as_str()) {
            (Lang::Ja, "") => "済み".to_owned(),
            (Lang::Ja, by) => format!("済み（{by}）"),
            (Lang::En, "") => "confirmed".to_owned(),
            (Lang::En, by) => format!("confirmed ({by})"),
        }
    }

    /// What else sales should know first: `既存のお客様、商談中: 20席`
    pub(super) fn status(&self, hide: &BTreeSet<String>, calendar: Calendar) -> Option<String> {
        let (facts, lang) = (self.facts(hide), calendar.lang);
        let mut parts = Vec::new();
        if facts.customer {
            parts.push(lang.pick("既存のお客様", "a customer"));
        }
        if let Some(deal) = &facts.open_deal {
            parts.push(lang.pick("商談中: ", "open deal: ") + deal);
        }
        if let Some(until) = &facts.trial_until {
            let date = until.parse::<jiff::civil::Date>();
            let until = date.map_or_else(
                |_| until.clone(),
                |date| match lang {
                    Lang::Ja => date.strftime("%-m/%-d").to_string(),
                    Lang::En => date.strftime("%-d %b").to_string(),
                },
            );
            parts.push(match lang {
                Lang::Ja => format!("トライアル中（{until}まで）"),
                Lang::En => format!("on trial until {until}"),
            });
        }
        if !facts.registered_events.is_empty() {
            let events = facts.registered_events.join(lang.comma());
            parts.push(lang.pick("申込済み: ", "registered for: ") + &events);
        }
        (!parts.is_empty()).then(|| short(&parts.join(lang.comma()), STATUS_CHARS_MAX))
    }

    /// `初回訪問 12/1（Google検索）、12/4 資料請求で判明、訪問3回・8ページ`
    pub(super) fn history_said(&self, calendar: Calendar) -> Option<String> {
        let (since, by_server) = self.lead.known_since()?;
        let counts = self.lead.counts();
        let (lang, first) = (calendar.lang, calendar.day(self.lead.first_seen()));
        let mut parts = Vec::new();
        if counts.visits > 0 {
            let source = source(self.first_source(), lang);
            parts.push(match lang {
                Lang::Ja => format!("初回訪問 {first}（{source}）"),
                Lang::En => format!("First seen {first} ({source})"),
            });
        }
        let known = calendar.day(since);
        parts.push(match (lang, by_server) {
            (Lang::Ja, true) => format!("{known} 自社システムで判明"),
            (Lang::Ja, false) => format!("{known} {}で判明", self.asked_for(since)),
            (Lang::En, true) => format!("known since {known} from our own system"),
            (Lang::En, false) => format!("known since {known} by form"),
        });
        if counts.visits > 0 {
            let (visits, pages) = (u64::from(counts.visits), u64::from(counts.pages));
            parts.push(match lang {
                Lang::Ja => format!("訪問{visits}回・{pages}ページ"),
                Lang::En => format!("{}, {}", counted(visits, "visit"), counted(pages, "page")),
            });
        }
        Some(parts.join(lang.comma()))
    }

    /// What they asked for when they said who they are.
    fn asked_for(&self, since: Timestamp) -> &'static str {
        let near = |at: Timestamp| at.since(since) < SAME_MOMENT && since.since(at) < SAME_MOMENT;
        let rows = self.lead.content.rows.iter().filter(|row| near(row.when));
        let found = rows.filter_map(|row| {
            let name = self.scoring.rules.rule(row.rule).map(|rule| rule.name.as_str());
            ASKED_FOR.iter().find(|(rule, _)| Some(*rule) == name)
        });
        found.map(|(_, said)| *said).next().unwrap_or("フォーム")
    }
}

impl Lang {
    fn pick(self, ja: &str, en: &str) -> String {
        match self {
            Lang::Ja => ja.to_owned(),
            Lang::En => en.to_owned(),
        }
    }

    fn comma(self) -> &'static str {
        match self {
            Lang::Ja => "、",
            Lang::En => ", ",
        }
    }
}

pub(super) fn other(lang: Lang) -> &'static str {
    match lang {
        Lang::Ja => "その他",
        Lang::En => "Other",
    }
}

/// `料金ページを閲覧 22（2回）`, `Viewed pricing 22 (twice)`
pub(super) fn part(label: &str, points: i64, times: u32, lang: Lang) -> String {
    match (lang, times) {
        (_, 0 | 1) => format!("{label} {points}"),
        (Lang::Ja, _) => format!("{label} {points}（{times}回）"),
        (Lang::En, 2) => format!("{label} {points} (twice)"),
        (Lang::En, _) => format!("{label} {points} ({times} times)"),
    }
}

/// Parts in one line; in English only the first begins with a capital letter.
pub(super) fn in_one_line(parts: &[String], lang: Lang) -> String {
    let begun = |(place, part): (usize, &String)| {
        let mut letters = part.chars();
        let (first, second) = (letters.next(), part.chars().nth(1));
        match (first, second) {
            // A word of capitals is a name.
            (Some(first), Some(second)) if place > 0 && second.is_lowercase() => {
                first.to_lowercase().chain(letters).collect()
            }
            _ => part.clone(),
        }
    };
    let parts: Vec<String> = parts.iter().enumerate().map(begun).collect();
    parts.join(lang.comma())
}

/// What somebody did on a page: `料金プラン`, `メールのリンク（ライン自動化キャンペーン）`
pub(super) fn act(event: &str, title: &str, lang: Lang) -> String {
    let event = match event {
        "page_view" => return title.to_owned(),
        MAIL_CLICK => lang.pick("メールのリンク", "Mail link"),
        "mail_open" => lang.pick("メールの開封", "Mail opened"),
        event => short(event, WORD_CHARS_MAX),
    };
    match (lang, title) {
        (_, "") => event,
        (Lang::Ja, title) => format!("{event}（{title}）"),
        (Lang::En, title) => format!("{event} ({title})"),
    }
}

/// Where a visit came from: `Google検索`, `Google search`, `blog.example`.
fn source(source: &str, lang: Lang) -> String {
    let (from, medium) = source.rsplit_once(" / ").unwrap_or((source, ""));
    match (from, medium) {
        ("direct", "") => lang.pick("直接", "direct"),
        (engine, "organic") => {
            let name = match engine {
                "google" => "Google",
                "bing" => "Bing",
                "yahoo" => "Yahoo!",
                "duckduckgo" => "DuckDuckGo",
                "baidu" => "Baidu",
                "ecosia" => "Ecosia",
                other => other,
            };
            match lang {
                Lang::Ja => format!("{name}検索"),
                Lang::En => format!("{name} search"),
            }
        }
        (host, "referral") => short(host, WORD_CHARS_MAX),
        _ => short(source, WORD_CHARS_MAX),
    }
}

fn ordinal(number: u32) -> String {
    const WORDS: [&str; 10] = [
        "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth",
        "tenth",
    ];
    let place = (number as usize).checked_sub(1).and_then(|place| WORDS.get(place));
    if let Some(word) = place {
        return (*word).to_owned();
    }
    let ending = match (number % 10, number % 100) {
        (1..=3, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

fn counted(number: u64, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_said_as_people_say_them() {
        for (number, word) in [
            (1, "first"),
            (2, "second"),
            (10, "tenth"),
            (11, "11th"),
            (13, "13th"),
            (21, "21st"),
            (22, "22nd"),
            (103, "103rd"),
            (111, "111th"),
        ] {
            assert_eq!(ordinal(number), word);
        }
        assert_eq!((counted(1, "visit"), counted(0, "page")), ("1 visit".into(), "0 pages".into()));
    }

    #[test]
    fn sources_are_said_by_name() {
        for (raw, ja, en) in [
            ("google / organic", "Google検索", "Google search"),
            ("direct", "直接", "direct"),
            ("blog.example / referral", "blog.example", "blog.example"),
            (
                "newsletter-2026-12 / email",
                "newsletter-2026-12 / email",
                "newsletter-2026-12 / email",
            ),
        ] {
            assert_eq!((source(raw, Lang::Ja), source(raw, Lang::En)), (ja.into(), en.into()));
        }
    }

    #[test]
    fn a_list_in_one_line_begins_with_one_capital_letter() {
        let parts = ["Viewed pricing 22 (twice)", "Downloaded 17", "CRM import 3"];
        let parts = parts.map(str::to_owned);
        assert_eq!(
            in_one_line(&parts, Lang::En),
            "Viewed pricing 22 (twice), downloaded 17, CRM import 3"
        );
    }
}
