//! The first line of a message: the rule file's words, filled in.

use std::collections::BTreeSet;

use engine::alert::AlertKind;
use engine::points::Points;
use engine::scoring::Text;

use super::{Material, named_rule};

/// Longest name of a person or company in a first line, in characters: it is read at a glance.
const NAME_CHARS_MAX: usize = 60;
/// Longest first line, in characters: a chat shows no more as a headline.
const HEADLINE_CHARS_MAX: usize = 140;

impl Material<'_> {
    /// The first line.
    pub(in crate::outbox) fn headline(&self, hide: &BTreeSet<String>) -> Text {
        let text = self.scoring.labels.texts.get(text_key(self.message.kind)).cloned();
        let text = text.unwrap_or_else(|| built_in(self.message.kind));
        let (name, company) = (self.called(hide), self.shown("company", hide).unwrap_or_default());
        let (name, company) = (short(&name, NAME_CHARS_MAX), short(company, NAME_CHARS_MAX));
        let told = self.told();
        let reason = told.because.map(|because| because.rule);
        let reason = reason.map(|rule| named_rule(self.scoring, self.catalog, rule).1);
        let reason = reason.unwrap_or_default();
        let fill = |template: &str, name: &str, reason: &str| {
            let filled = template
                .replace("{days}", &self.days_unseen().to_string())
                .replace("{hours}", &self.hours_waited().to_string())
                .replace("{score}", &told.score.shown().to_string())
                .replace("{last}", &told.last_told.unwrap_or(told.score).shown().to_string())
                .replace("{cell}", &self.cell())
                .replace("{reason}", reason)
                .replace("{company}", &company)
                .replace("{name}", name);
            let line = short(&tidy(&filled), HEADLINE_CHARS_MAX);
            if line.is_empty() { name.to_owned() } else { line }
        };
        let mut headline = Text {
            ja: fill(&text.ja, &closed_up(&name), &reason.ja),
            en: fill(&text.en, &name, &reason.en),
        };
        if !self.is_confirmed() && self.message.kind != AlertKind::Erased {
            headline.ja.push_str("※未確認");
            headline.en.push_str(" (unconfirmed)");
        }
        headline
    }

    /// What the person is called. Whoever may not be named still has an id, by which they can be
    /// found.
    pub(in crate::outbox) fn called(&self, hide: &BTreeSet<String>) -> String {
        let name = self.shown("name", hide).or_else(|| self.shown("email", hide));
        name.map_or_else(|| self.lead_id.to_string(), str::to_owned)
    }

    /// Whether we are sure that it is them. A person may be known well, and this browser not: its
    /// points are only claimed.
    pub(in crate::outbox) fn is_confirmed(&self) -> bool {
        let told = self.told();
        told.assurance.is_proved() && told.unconfirmed <= Points(0)
    }

    /// Whole days since somebody was there.
    pub(in crate::outbox) fn days_unseen(&self) -> u64 {
        let seen = self.lead.last_human();
        seen.map_or(0, |seen| self.told().at.since(seen).as_secs() / 86_400)
    }

    /// Whole working hours that nobody has taken the lead.
    pub(in crate::outbox) fn hours_waited(&self) -> u64 {
        self.told().waited.as_secs() / 3_600
    }
}

/// A Japanese name before its honorific: without the space inside.
pub(in crate::outbox) fn closed_up(name: &str) -> String {
    name.replace([' ', '\u{3000}'], "")
}

/// A text of at most so many characters, in one line; what is missing is marked.
pub(in crate::outbox) fn short(text: &str, chars_max: usize) -> String {
    // Marks that turn the direction of writing would turn that of the words after them too.
    let turns = |c: char| {
        matches!(c, '\u{200e}' | '\u{200f}')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    // A full-width space is how a Japanese name is written.
    let breaks = |c: char| c.is_control() || (c.is_whitespace() && c != '\u{3000}');
    let plain = text.chars().filter(|c| !turns(*c)).map(|c| if breaks(c) { ' ' } else { c });
    let plain: String = plain.collect();
    let plain = plain.trim();
    if plain.chars().nth(chars_max).is_none() {
        plain.to_owned()
    } else {
        let kept: String = plain.chars().take(chars_max.saturating_sub(1)).collect();
        format!("{}…", kept.trim_end())
    }
}

/// What the rule file calls the first line of a kind.
fn text_key(kind: AlertKind) -> &'static str {
    match kind {
        AlertKind::Hot => "hot",
        AlertKind::Cooled => "cooled",
        AlertKind::Action => "action",
        AlertKind::Escalated => "escalated",
        AlertKind::Retracted => "retracted",
        AlertKind::Merged => "merged",
        AlertKind::Unmerged => "unmerged",
        AlertKind::Signal => "signal",
        AlertKind::Reminder => "reminder",
        AlertKind::Erased => "erased",
    }
}

/// First lines that the rule file has no word for.
fn built_in(kind: AlertKind) -> Text {
    let (ja, en) = match kind {
        AlertKind::Retracted => ("【取消】{company} {name}さん", "RETRACTED: {name}, {company}"),
        AlertKind::Merged => ("【統合】{company} {name}さん", "MERGED: {name}, {company}"),
        AlertKind::Unmerged => ("【分離】{company} {name}さん", "SEPARATED: {name}, {company}"),
        AlertKind::Erased => ("【消去】{name}", "ERASED: {name}"),
        AlertKind::Hot
        | AlertKind::Cooled
        | AlertKind::Action
        | AlertKind::Escalated
        | AlertKind::Signal
        | AlertKind::Reminder => {
            ("{company} {name}さん {score}点", "{name}, {company}, {score} points")
        }
    };
    Text { ja: ja.to_owned(), en: en.to_owned() }
}

/// A line without the gaps that an unknown company or name leaves.
fn tidy(text: &str) -> String {
    let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
    joined.replace(", ,", ",").replace("】 ", "】")
}
