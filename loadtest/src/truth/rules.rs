//! The rules that a run is held against: those words of `scoring.toml` that this model knows. What
//! it does not know it refuses, since it could not say what would have to come of it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::schedule::seconds;

/// Rules, read.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Milliseconds that the day begins earlier than in UTC.
    pub ahead_ms: i64,
    /// The most that anybody's score is.
    pub total_max: Option<i64>,
    /// The most that is believed of somebody who proved nothing.
    pub claims_max: Option<i64>,
    /// Where points go.
    pub categories: Vec<Category>,
    /// Who earns points, in the order of the file.
    pub behaviour: Vec<Rule>,
    /// The lines that somebody is told of.
    pub lines: Vec<Line>,
}

/// Where points go.
#[derive(Clone, Debug)]
pub struct Category {
    name: String,
    /// In which they halve.
    pub half_life: u64,
    /// Of what they are worth at a moment, in thousandths.
    pub max: Option<i64>,
    /// Whether they count in the score.
    pub in_total: bool,
}

/// When points are earned, and how often.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name.
    pub id: String,
    /// Thousandths.
    pub points: i64,
    /// Which one.
    pub category: usize,
    /// Of what its rows are worth at a moment.
    pub max: Option<i64>,
    /// Once until so long after; the longest time is never again.
    pub once: Option<u64>,
    /// Once in each.
    pub once_per: Option<Period>,
    /// So often in each.
    pub at_most: Option<(usize, Period)>,
    /// Who is told at once.
    pub tell: Option<String>,
    when: Vec<When>,
}

/// A stretch in which a rule counts so often.
#[derive(Clone, Copy, Debug)]
pub enum Period {
    /// A day of the calendar.
    Day,
    /// So long since it counted.
    Rolling(u64),
}

/// A line with a dead band.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// From here on somebody is in.
    pub rise: i64,
    /// Below it out.
    pub fall: i64,
    /// At the earliest so long after.
    pub dwell: u64,
    /// Between two messages.
    pub cooldown: u64,
    /// Who is told.
    pub tell: String,
}

#[derive(Clone, Debug, Default)]
struct When {
    path: Vec<String>,
    not_path: Vec<String>,
    event: Vec<String>,
    engaged: Option<u64>,
}

/// What a rule looks at.
#[derive(Clone, Copy, Debug)]
pub enum Sight<'a> {
    /// A page was read.
    View {
        /// Which one.
        path: &'a str,
    },
    /// It was read so long by now, and had been before.
    Stay {
        /// Which one.
        path: &'a str,
        /// Until now.
        ms: u64,
        /// Before.
        before: u64,
    },
    /// Something was done there.
    Event {
        /// What.
        name: &'a str,
        /// Where.
        path: &'a str,
    },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn all(self) -> Vec<String> {
        match self {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    utc_offset: String,
    total_max: Option<i64>,
    categories: BTreeMap<String, CategoryWords>,
    behaviour: Behaviour,
    thresholds: BTreeMap<String, LineWords>,
    claims: Option<Claims>,
    #[serde(rename = "exclude")]
    _exclude: Exclude,
    // What these say changes nothing that is compared, as long as no line asks for it and nobody
    // of sales answers.
    #[serde(rename = "urgency")]
    _urgency: Option<IgnoredAny>,
    #[serde(rename = "fit")]
    _fit: Option<IgnoredAny>,
    #[serde(rename = "sales")]
    _sales: Option<IgnoredAny>,
    #[serde(rename = "stages")]
    _stages: Option<IgnoredAny>,
    #[serde(rename = "texts")]
    _texts: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exclude {
    #[serde(rename = "robots")]
    _robots: True,
}

/// Robots have to be left out: what the model says of them is that they earn nothing.
struct True;

impl<'de> Deserialize<'de> for True {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<True, D::Error> {
        let said = bool::deserialize(deserializer)?;
        said.then_some(True).ok_or_else(|| serde::de::Error::custom("this has to be true"))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    max: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Behaviour {
    rules: Vec<RuleWords>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CategoryWords {
    half_life: String,
    max: Option<i64>,
    in_total: Option<bool>,
    #[serde(rename = "ja")]
    _ja: Option<String>,
    #[serde(rename = "en")]
    _en: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleWords {
    id: String,
    points: i64,
    category: String,
    max: Option<i64>,
    once: Option<bool>,
    rearm_after: Option<String>,
    once_per: Option<String>,
    at_most: Option<AtMost>,
    tell: Option<String>,
    when: WhenWords,
    #[serde(rename = "ja")]
    _ja: Option<String>,
    #[serde(rename = "en")]
    _en: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AtMost {
    n: usize,
    per: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WhenWords {
    path: Option<OneOrMany>,
    not_path: Option<OneOrMany>,
    event: Option<OneOrMany>,
    engaged: Option<String>,
    any: Option<Vec<WhenWords>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LineWords {
    rise: i64,
    fall: i64,
    dwell: Option<String>,
    cooldown: Option<String>,
    tell: String,
}

impl Rules {
    /// From a file.
    pub fn open(path: &std::path::Path) -> Result<Rules, String> {
        let wrong = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
        Rules::parse(&text).map_err(|why| wrong(&why))
    }

    /// From its text.
    pub fn parse(text: &str) -> Result<Rules, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        let category = |(name, words): (String, CategoryWords)| {
            Ok(Category {
                name,
                half_life: millis(&words.half_life)?,
                max: words.max.map(thousandths),
                in_total: words.in_total.unwrap_or(true),
            })
        };
        let categories: Result<Vec<_>, String> =
            file.categories.into_iter().map(category).collect();
        let categories = categories?;
        let behaviour = file.behaviour.rules.into_iter().map(|words| rule(words, &categories));
        let behaviour = behaviour.collect::<Result<Vec<_>, String>>()?;
        let told = file.thresholds.into_iter().filter(|(_, words)| words.tell != "nobody");
        let lines = told.map(|(name, words)| line(name, words)).collect::<Result<_, String>>()?;
        let (total_max, claims_max) =
            (file.total_max.map(thousandths), file.claims.map(|it| thousandths(it.max)));
        let ahead_ms = ahead(&file.utc_offset)?;
        Ok(Rules { ahead_ms, total_max, claims_max, categories, behaviour, lines })
    }

    /// The rules that something matches, in the order of the file.
    pub fn matching(&self, sight: Sight<'_>) -> Vec<u16> {
        let met = |rule: &Rule| rule.when.iter().any(|when| when.holds(sight));
        let all = self.behaviour.iter().enumerate().filter(|(_, rule)| met(rule));
        all.map(|(place, _)| place as u16).collect()
    }

    /// Whether two moments lie in one period, of which the later one is asked about.
    pub fn holds(&self, period: Period, then: u64, now: u64) -> bool {
        let day = |at: u64| (at as i64 + self.ahead_ms).div_euclid(86_400_000);
        match period {
            Period::Day => day(then) == day(now),
            Period::Rolling(length) => now.saturating_sub(then) < length,
        }
    }
}

impl When {
    fn holds(&self, sight: Sight<'_>) -> bool {
        let there = |path: &str| {
            (self.path.is_empty() || self.path.iter().any(|glob| is_glob_of(glob, path)))
                && !self.not_path.iter().any(|glob| is_glob_of(glob, path))
        };
        match sight {
            Sight::View { path } => self.event.is_empty() && self.engaged.is_none() && there(path),
            Sight::Stay { path, ms, before } => {
                self.engaged.is_some_and(|line| before < line && line <= ms) && there(path)
            }
            Sight::Event { name, path } => {
                self.event.iter().any(|event| event == name)
                    && self.engaged.is_none()
                    && there(path)
            }
        }
    }
}

fn rule(words: RuleWords, categories: &[Category]) -> Result<Rule, String> {
    let wrong = |why: &str| format!("rule \"{}\": {why}", words.id);
    let category = categories.iter().position(|it| it.name == words.category);
    let category = category.ok_or_else(|| wrong("there is no such category"))?;
    let rearm = words.rearm_after.as_deref().map(millis).transpose()?;
    let at_most = words.at_most.map(|it| Ok::<_, String>((it.n, period(&it.per)?))).transpose()?;
    let when = alternatives(words.when);
    let empty = |when: &When| when.path.is_empty() && when.event.is_empty();
    if when.iter().any(empty) {
        return Err(wrong("each of its conditions names paths or events"));
    }
    Ok(Rule {
        points: thousandths(words.points),
        category,
        max: words.max.map(thousandths),
        once: words.once.filter(|once| *once).map(|_| rearm.unwrap_or(u64::MAX)),
        once_per: words.once_per.as_deref().map(period).transpose()?,
        at_most,
        tell: words.tell,
        when,
        id: words.id,
    })
}

fn alternatives(words: WhenWords) -> Vec<When> {
    if let Some(any) = words.any {
        return any.into_iter().flat_map(alternatives).collect();
    }
    let many = |words: Option<OneOrMany>| words.map(OneOrMany::all).unwrap_or_default();
    vec![When {
        path: many(words.path),
        not_path: many(words.not_path),
        event: many(words.event),
        engaged: words.engaged.and_then(|text| millis(&text).ok()),
    }]
}

fn line(name: String, words: LineWords) -> Result<Line, String> {
    let time = |text: &Option<String>| text.as_deref().map_or(Ok(0), millis);
    Ok(Line {
        name,
        rise: thousandths(words.rise),
        fall: thousandths(words.fall),
        dwell: time(&words.dwell)?,
        cooldown: time(&words.cooldown)?,
        tell: words.tell,
    })
}

fn thousandths(points: i64) -> i64 {
    points * 1_000
}

fn period(text: &str) -> Result<Period, String> {
    if text == "day" { Ok(Period::Day) } else { Ok(Period::Rolling(millis(text)?)) }
}

/// A time as `scoring.toml` writes it.
fn millis(text: &str) -> Result<u64, String> {
    if let Some(days) = text.strip_suffix('d') {
        let days: u64 = days.parse().map_err(|_| format!("\"{text}\" is no time"))?;
        return Ok(days * 86_400_000);
    }
    Ok((seconds(text)? * 1e3).round() as u64)
}

fn ahead(text: &str) -> Result<i64, String> {
    let wrong = || format!("\"{text}\" is no offset: write +09:00");
    let (hours, minutes) = text.get(1..).and_then(|it| it.split_once(':')).ok_or_else(wrong)?;
    let number = |text: &str| text.parse::<i64>().map_err(|_| wrong());
    let ms = (number(hours)? * 60 + number(minutes)?) * 60_000;
    match text.chars().next() {
        Some('+') => Ok(ms),
        Some('-') => Ok(-ms),
        _ => Err(wrong()),
    }
}

/// Whether a path is one of a glob's: `*` within a segment, `**` any number of them.
fn is_glob_of(glob: &str, path: &str) -> bool {
    let segments = |text: &str| -> Vec<String> {
        text.trim_matches('/').split('/').filter(|it| !it.is_empty()).map(str::to_owned).collect()
    };
    follows(&segments(glob), &segments(path))
}

fn follows(glob: &[String], path: &[String]) -> bool {
    match glob.split_first() {
        None => path.is_empty(),
        Some((first, rest)) if first == "**" => {
            (0..=path.len()).any(|skipped| follows(rest, &path[skipped..]))
        }
        Some((first, rest)) => path
            .split_first()
            .is_some_and(|(segment, more)| is_like(first, segment) && follows(rest, more)),
    }
}

fn is_like(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len())
                .filter(|at| rest.is_char_boundary(*at))
                .any(|at| is_like(tail, &rest[at..]))
        }),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Rules with everything that the model knows.
    pub const TEXT: &str = include_str!("example.scoring.toml");

    #[test]
    fn rules_match_pages_stays_and_events() {
        let rules = Rules::parse(TEXT).unwrap();
        let names = |sight| -> Vec<&str> {
            let found = rules.matching(sight).into_iter();
            found.map(|place| rules.behaviour[usize::from(place)].id.as_str()).collect()
        };
        assert_eq!(names(Sight::View { path: "/pricing/" }), ["pricing"]);
        assert_eq!(names(Sight::View { path: "/pricing" }), ["pricing"]);
        assert!(names(Sight::View { path: "/pricingx" }).is_empty());
        assert_eq!(names(Sight::View { path: "/thanks/document/a" }), ["document"]);
        assert_eq!(names(Sight::Event { name: "download", path: "/" }), ["document"]);
        let stay = |path, before, ms| names(Sight::Stay { path, ms, before });
        assert_eq!(stay("/", 0, 60_000), ["stayed"]);
        assert!(stay("/", 0, 59_999).is_empty() && stay("/", 60_000, 70_000).is_empty());
        assert!(stay("/careers/", 0, 60_000).is_empty());
    }

    #[test]
    fn a_word_that_the_model_does_not_know_is_refused() {
        for (known, other) in [
            ("once_per = \"7d\"", "return_after = \"7d\""),
            ("robots = true", "robots = false"),
            ("event = \"download\"", "area = \"download\""),
            ("dwell = \"24h\"", "recent = \"24h\""),
            ("category = \"recruit\"", "category = \"other\""),
        ] {
            assert!(Rules::parse(&TEXT.replacen(known, other, 1)).is_err(), "{other}");
        }
    }

    #[test]
    fn stars_stand_for_segments_and_parts_of_them() {
        for (glob, path, is) in [
            ("/a/**/z", "/a/z", true),
            ("/a/**/z", "/a/b/c/z", true),
            ("/a/*.html", "/a/x.html", true),
            ("/a/*.html", "/a/b/x.html", false),
            ("/**", "/", true),
            ("/", "/a", false),
        ] {
            assert_eq!(is_glob_of(glob, path), is, "{glob} {path}");
        }
    }
}
