//! A message as people read it in a chat: whole sentences in their language and times by their
//! clock, without any markup. The templates put it in its place.

mod when;
mod words;

use std::collections::BTreeSet;

use engine::alert::AlertKind;
use serde::Serialize;
use serde_json::Value;

use self::when::Calendar;
use super::message::{Material, short};
use crate::outbox::look::Lang;

/// Reasons said by name; the rest is one more.
const REASONS_MAX: usize = 3;
/// Things done lately.
const LATEST_MAX: usize = 3;
/// Longest name, department, title or label, in characters.
const WORD_CHARS_MAX: usize = 60;
/// Longest title of a page, in characters.
const TITLE_CHARS_MAX: usize = 80;
/// Longest sentence about what is known of the person, in characters.
const STATUS_CHARS_MAX: usize = 160;
/// Longest link, in bytes. A chat would cut a longer one, and it would lead nowhere.
const LINK_BYTES_MAX: usize = 2_048;

/// See the module. What is empty or nothing is left out by the templates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Wording {
    /// The first line.
    pub headline: String,
    /// The first line and the reason: what a telephone shows.
    pub summary: String,
    /// Whose the lead is.
    pub owner: Option<Addressee>,
    /// By when somebody is asked to answer.
    pub answer_by: Option<String>,
    /// Why now, in a sentence.
    pub why: String,
    /// The score.
    pub score: i64,
    /// Where it comes from, a line each; whole points that add up to it.
    pub points: Vec<String>,
    /// The same in one line.
    pub points_line: String,
    /// Who it is, with department and title.
    pub person: String,
    /// The company, and its industry.
    pub company: Option<String>,
    /// The industry alone.
    pub industry: Option<String>,
    /// How much of the score is of now.
    pub urgency: String,
    /// How sure it is who it is.
    pub identity: String,
    /// Whether it is sure.
    pub confirmed: bool,
    /// What else sales should know first.
    pub status: Option<String>,
    /// What they did lately, a line each.
    pub latest: Vec<String>,
    /// Since when, and from where, they are known.
    pub history: Option<String>,
    /// Where buttons lead.
    pub links: Links,
}

/// Somebody whom a message calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Addressee {
    /// Their name.
    pub name: String,
    /// Their id in Slack.
    pub slack: Option<String>,
    /// Their id in Chatwork.
    pub chatwork: Option<String>,
}

/// See [`Wording::links`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Links {
    /// Takes the lead.
    pub accept: Option<String>,
    /// Gives it back.
    pub reject: Option<String>,
    /// Puts it off.
    pub later: Option<String>,
    /// The lead in the company's own system.
    pub crm: Option<String>,
    /// What happened, here.
    pub timeline: Option<String>,
}

impl Wording {
    /// Takes out what is missed least, from below; nothing if all that is left is who is called,
    /// the first line and one link.
    pub fn shorten(&mut self) -> bool {
        let cleared = |text: &mut String| !std::mem::take(text).is_empty();
        self.latest.pop().is_some()
            || self.status.take().is_some()
            || cleared(&mut self.identity)
            || cleared(&mut self.urgency)
            || cleared(&mut self.person)
            || self.points.pop().is_some()
            || self.links.crm.take().is_some()
            || self.links.later.take().is_some()
            || self.links.reject.take().is_some()
            || cleared(&mut self.why)
            || self.links.accept.take().is_some()
    }
}

impl Material<'_> {
    /// The message in a language, of the body that says the same in JSON.
    pub fn chat(&self, body: &Value, hide: &BTreeSet<String>, lang: Lang) -> Wording {
        let owner = self.known_owner(hide);
        let offset = owner.and_then(|owner| owner.utc_offset);
        let offset = offset.unwrap_or_else(|| self.terms().offset);
        let calendar = Calendar { now: self.told().at, offset, lang };
        let headline = lang.of(&self.headline(hide)).to_owned();
        let why = self.why(calendar);
        let about_them = !matches!(
            self.message.kind,
            AlertKind::Retracted | AlertKind::Merged | AlertKind::Unmerged
        );
        let points = if about_them { self.parts_of_the_score(lang) } else { Vec::new() };
        let latest = if about_them { self.latest(calendar) } else { Vec::new() };
        Wording {
            summary: self.summary(&headline, &why, lang),
            headline,
            owner: self.addressee(hide, lang),
            answer_by: self.told().asks.map(|(answer_by, _)| calendar.moment(answer_by)),
            why,
            score: self.told().score.shown(),
            points_line: words::in_one_line(&points, lang),
            points,
            person: self.person(hide, lang),
            company: self.company_said(hide, lang),
            industry: self.industry(hide, lang),
            urgency: if about_them { self.urgency_said(lang) } else { String::new() },
            identity: self.identity(lang),
            confirmed: self.is_confirmed(),
            status: self.status(hide, calendar),
            latest,
            history: self.history_said(calendar),
            links: links(&body["data"]["links"]),
        }
    }

    fn addressee(&self, hide: &BTreeSet<String>, lang: Lang) -> Option<Addressee> {
        if let Some(owner) = self.known_owner(hide) {
            let name = match lang {
                Lang::Ja => &owner.name_ja,
                Lang::En => &owner.name_en,
            };
            return Some(Addressee {
                name: name.clone(),
                slack: owner.slack.clone(),
                chatwork: owner.chatwork.clone(),
            });
        }
        // Whoever is in no list is still called as they are known elsewhere.
        let name = short(self.owner(hide)?, WORD_CHARS_MAX);
        Some(Addressee { name, ..Addressee::default() })
    }

    /// Whole points by rule that add up to the score shown: the largest by name, then the rest.
    fn parts_of_the_score(&self, lang: Lang) -> Vec<String> {
        let told = self.told();
        let named = told.reasons.iter().take(REASONS_MAX);
        let mut shown: Vec<i64> = named.clone().map(|reason| reason.points.shown()).collect();
        let others = told.reasons.len() > shown.len();
        let mut rest = told.score.shown() - shown.iter().sum::<i64>();
        if !others {
            // No other reason takes what rounding down left over: the largest parts of a point do.
            let mut places: Vec<usize> = (0..shown.len()).collect();
            let part = |place: &usize| told.reasons[*place].points.0.rem_euclid(1_000);
            places.sort_by_key(|place| std::cmp::Reverse(part(place)));
            for place in places.into_iter().take(usize::try_from(rest).unwrap_or_default()) {
                shown[place] += 1;
                rest -= 1;
            }
        }
        let mut parts: Vec<String> = named
            .zip(&shown)
            .map(|(reason, points)| {
                let label = short(lang.of(&self.label(reason.rule)), WORD_CHARS_MAX);
                words::part(&label, *points, reason.times, lang)
            })
            .collect();
        if rest != 0 {
            parts.push(words::part(words::other(lang), rest, 1, lang));
        }
        parts
    }

    fn latest(&self, calendar: Calendar) -> Vec<String> {
        let recent = self.recent();
        let lines = recent.iter().take(LATEST_MAX).map(|recent| {
            let title = match recent.title.as_str() {
                "" => path_of(&recent.url),
                title => title,
            };
            let what = words::act(&recent.event, &short(title, TITLE_CHARS_MAX), calendar.lang);
            format!("{} {what}", calendar.moment(recent.at))
        });
        lines.collect()
    }
}

fn links(links: &Value) -> Links {
    let link = |name: &str| {
        let link = links[name].as_str().filter(|link| link.len() <= LINK_BYTES_MAX);
        link.map(str::to_owned)
    };
    Links {
        accept: link("accept"),
        reject: link("reject"),
        later: link("later"),
        crm: link("crm"),
        timeline: link("timeline"),
    }
}

/// An address without scheme and host.
fn path_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find('/').map_or(rest, |slash| &rest[slash..])
}
