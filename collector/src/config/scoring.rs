//! scoring.toml: who earns points, when a lead is hot, what sales is told. The whole file is read
//! and checked; what the engine acts on becomes its types, the rest is kept aside by name.

pub mod later;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use engine::decay::HalfLife;
use engine::grade::Grade;
use engine::id::{CategoryId, RuleId, ThresholdId};
use engine::rule::{Globs, Points, RULE_POINTS_MAX, Rule, RuleSet};
use engine::scoring::{CATEGORIES_MAX, Category, Scoring, THRESHOLDS_MAX, Text, Urgency};
use engine::threshold::Threshold;
use engine::time::UtcOffset;

use self::later::Later;
use super::super::net::Network;
use super::Fingerprint;
use super::mikomi_toml::networks;
use super::problem::{Problem, Problems, half_width, nearest};
use super::sites::globs;
use super::table::{Field, Source, Table, quoted};

/// The most points anything may be worth or need; far beyond every sum of limits.
const POINTS_MAX: i64 = 1_000_000;
/// Most networks or domains that are left out.
const EXCLUDED_MAX: usize = 10_000;
/// The audience that is nobody.
const NOBODY: &str = "nobody";
/// The audiences messages are commonly for; others are fine, unless they look like one of these.
const AUDIENCES: [&str; 4] = ["sales", "hr", "mailer", NOBODY];
/// The messages that have a first line.
const TEXTS: [&str; 7] = ["hot", "action", "escalated", "signal", "cooled", "reminder", "account"];
/// What a first line may name.
const VARIABLES: [&str; 9] =
    ["company", "name", "score", "cell", "reason", "last", "days", "hours", "people"];
/// Where a lead may stand.
const STAGES: [&str; 10] = [
    "anonymous",
    "known",
    "warm",
    "hot",
    "accepted",
    "rejected",
    "working",
    "won",
    "lost",
    "recycled",
];

/// What a number is given to, once and for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NameKind {
    /// A rule.
    Rule,
    /// A category. Its numbers are 0 to 255.
    Category,
    /// A threshold. Its numbers are 0 to 255.
    Threshold,
}

/// What is recorded and marked, and worth nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Excluded {
    /// Networks of senders.
    pub networks: Vec<Network>,
    /// Domains of e-mail addresses, in lower case.
    pub email_domains: BTreeSet<String>,
    /// Globs of paths.
    pub paths: Vec<String>,
    /// Known robots.
    pub robots: bool,
}

/// A scoring.toml that is right. Until it is published, the ids in it are places in the file.
#[derive(Clone, Debug)]
pub struct ScoringFile {
    /// The text as it was read; the journal keeps it when it is published.
    pub text: Arc<str>,
    /// Of the text.
    pub fingerprint: Fingerprint,
    /// Where a day begins.
    pub utc_offset: UtcOffset,
    /// No person's score passes this.
    pub total_max: Option<Points>,
    /// What unproven rows may be worth together.
    pub claims_max: Option<Points>,
    /// In the file's order.
    pub categories: Vec<Category>,
    /// In the file's order.
    pub rules: Vec<Rule>,
    /// In the file's order.
    pub thresholds: Vec<Threshold>,
    /// Is it now?
    pub urgency: Urgency,
    /// Worth nothing.
    pub excluded: Excluded,
    /// First lines of messages.
    pub texts: BTreeMap<String, Text>,
    /// What people call the stages.
    pub stage_names: BTreeMap<String, String>,
    /// What is read and checked, and not acted on in this version.
    pub later: Later,
}

impl ScoringFile {
    /// Reads a file, or says everything that is wrong with it.
    pub fn parse(file: &str, text: &str) -> Result<ScoringFile, Vec<Problem>> {
        let problems = Problems::default();
        let source = Source::new(file, text, &problems);
        let scoring = source.parse().and_then(|entries| read(Table::root(source, &entries), text));
        problems.judge(scoring)
    }

    /// Makes it the engine's. `intern` gives a name its number: the same for ever, from a
    /// journaled catalogue. Fails when the catalogue has given out all numbers of 8 bits.
    pub fn publish(
        &self,
        version: u32,
        intern: &mut dyn FnMut(NameKind, &str) -> u16,
    ) -> Result<Scoring, Problem> {
        let refused = |message: String| Problem::of_file("scoring.toml", message);
        let mut categories = self.categories.clone();
        for category in &mut categories {
            let number = intern(NameKind::Category, &category.name);
            category.id = CategoryId(narrow(number, &category.name)?);
        }
        let mut thresholds = self.thresholds.clone();
        for threshold in &mut thresholds {
            let number = intern(NameKind::Threshold, &threshold.name);
            threshold.id = ThresholdId(narrow(number, &threshold.name)?);
        }
        let mut rules = self.rules.clone();
        for rule in &mut rules {
            rule.id = RuleId(intern(NameKind::Rule, &rule.name));
            rule.category = categories[usize::from(rule.category.0)].id;
        }
        let scoring = Scoring {
            version,
            rules: RuleSet::new(rules, self.utc_offset).map_err(|it| refused(it.to_string()))?,
            categories,
            total_max: self.total_max,
            claims_max: self.claims_max,
            urgency: self.urgency,
            thresholds,
            excluded_paths: Globs::new(&self.excluded.paths)
                .map_err(|it| refused(it.to_string()))?,
            texts: self.texts.clone(),
            stage_names: self.stage_names.clone(),
        };
        match scoring.check() {
            Ok(()) => Ok(scoring),
            Err(error) => Err(refused(error.to_string())),
        }
    }

    /// The names of the thresholds, in the file's order.
    pub fn threshold_names(&self) -> Vec<String> {
        let names = self.thresholds.iter();
        names.map(|threshold| threshold.name.clone()).collect()
    }
}

fn narrow(number: u16, name: &str) -> Result<u8, Problem> {
    u8::try_from(number).map_err(|_| {
        let message = format!("\"{name}\" is one name too many: 256 were given out, for ever");
        Problem::of_file("scoring.toml", message)
    })
}

fn read(root: Table<'_>, text: &str) -> Option<ScoringFile> {
    let utc_offset = root.need("utc_offset").and_then(|field| offset(&field));
    let total_max = root.get("total_max").and_then(|field| points(&field, 1));
    let categories =
        root.need("categories").map(|field| read_categories(&field)).unwrap_or_default();
    let urgency = root.need("urgency").and_then(|field| read_urgency(&field));
    let excluded = root.get("exclude").and_then(|field| read_excluded(&field));
    let rules =
        root.need("behaviour").map(|field| rules::read(&field, &categories)).unwrap_or_default();
    let mut later = Later::default();
    let thresholds = root
        .need("thresholds")
        .map(|field| read_thresholds(&field, total_max, &mut later))
        .unwrap_or_default();
    let claims_max = root.get("claims").and_then(|field| read_claims(&field));
    let texts = root.get("texts").map(|field| read_texts(&field));
    let stages = root.get("stages").and_then(|field| read_stages(&field));
    later.read(&root);
    root.finish();
    Some(ScoringFile {
        text: Arc::from(text),
        fingerprint: Fingerprint::of(text.as_bytes()),
        utc_offset: utc_offset?,
        total_max,
        claims_max,
        categories,
        rules,
        thresholds,
        urgency: urgency?,
        excluded: excluded.unwrap_or_default(),
        texts: texts.unwrap_or_default(),
        stage_names: stages.unwrap_or_default(),
        later,
    })
}

fn offset(field: &Field<'_>) -> Option<UtcOffset> {
    let text = field.text()?;
    let parsed = UtcOffset::parse(text);
    if parsed.is_none() {
        let message = "\"utc_offset\" needs an offset from UTC such as \"+09:00\"";
        let plain = half_width(text).unwrap_or_else(|| text.to_owned());
        let digits: String = plain.chars().filter(char::is_ascii_digit).collect();
        let sign = if plain.starts_with('-') { '-' } else { '+' };
        let meant = match (plain.as_str(), digits.len()) {
            ("Asia/Tokyo" | "Japan" | "JST", _) => Some("+09:00".to_owned()),
            (_, 1) => Some(format!("{sign}0{digits}:00")),
            (_, 2) => Some(format!("{sign}{digits}:00")),
            (_, 3) => Some(format!("{sign}0{}:{}", &digits[..1], &digits[1..])),
            (_, 4) => Some(format!("{sign}{}:{}", &digits[..2], &digits[2..])),
            _ => None,
        };
        let meant = meant.filter(|meant| UtcOffset::parse(meant).is_some());
        field.problem_meant(message, meant);
    }
    parsed
}

/// Whole points from `min`.
fn points(field: &Field<'_>, min: i64) -> Option<Points> {
    Some(Points::whole(field.whole(min..=POINTS_MAX)?))
}

/// What people read in both languages; one stands in for the other if only one is given.
fn label(table: &Table<'_>) -> Text {
    let (ja, en) = (table.get("ja"), table.get("en"));
    let text = |field: Option<Field<'_>>| field.and_then(|it| it.set_text().map(str::to_owned));
    let (ja, en) = (text(ja), text(en));
    if ja.is_none() && en.is_none() {
        table.problem("what people read is missing: \"ja\", \"en\" or both");
    }
    Text {
        ja: ja.clone().or_else(|| en.clone()).unwrap_or_default(),
        en: en.or(ja).unwrap_or_default(),
    }
}

/// Who is told; nothing for nobody.
fn tell(table: &Table<'_>) -> Option<String> {
    let field = table.get("tell")?;
    let text = field.name()?;
    let near = nearest(text, AUDIENCES).filter(|near| *near != text);
    if let Some(near) = near.filter(|_| !AUDIENCES.contains(&text)) {
        let message = format!("\"tell\" names nobody we know: {}", quoted(text));
        field.problem_meant(message, Some(near.to_owned()));
    }
    (text != NOBODY).then(|| text.to_owned())
}

fn read_categories(field: &Field<'_>) -> Vec<Category> {
    let Some(table) = field.table() else {
        return Vec::new();
    };
    let entries = table.entries();
    table.finish();
    if !(1..=CATEGORIES_MAX).contains(&entries.len()) {
        field.problem_of_word(format!("there are 1 to {CATEGORIES_MAX} categories"), None);
    }
    let mut categories = Vec::new();
    for (place, entry) in entries.iter().enumerate().take(CATEGORIES_MAX) {
        categories.extend(category(entry, place));
    }
    categories
}

fn category(entry: &Field<'_>, place: usize) -> Option<Category> {
    let table = entry.table()?;
    entry.check_name(entry.name);
    let half_life = table.need("half_life").and_then(|field| half_life(&field));
    let max = table.get("max").and_then(|field| points(&field, 1));
    let in_total = table.get("in_total").and_then(|field| field.flag());
    let label = label(&table);
    table.finish();
    Some(Category {
        id: CategoryId(place as u8),
        name: entry.name.to_owned(),
        // A category whose half-life is wrong still has a name that rules may give.
        half_life: half_life.or_else(|| HalfLife::from_millis(1_000))?,
        max,
        in_total: in_total.unwrap_or(true),
        ja: label.ja,
        en: label.en,
    })
}

fn half_life(field: &Field<'_>) -> Option<HalfLife> {
    let duration = field.duration()?;
    let half_life = HalfLife::new(duration);
    if half_life.is_none() {
        field.problem("a half-life is at least \"1s\"");
    }
    half_life
}

fn read_urgency(field: &Field<'_>) -> Option<Urgency> {
    let table = field.table()?;
    let half_life = table.need("half_life").and_then(|field| half_life(&field));
    let levels = table.need("levels").and_then(|field| {
        let levels = field.table()?;
        let medium = levels.need("medium").and_then(|field| points(&field, 1));
        let high = levels.need("high").and_then(|field| points(&field, 1));
        if let (Some(medium), Some(high)) = (medium, high)
            && medium >= high
        {
            field.problem("\"high\" must be above \"medium\"");
        }
        levels.finish();
        Some((medium?, high?))
    });
    table.finish();
    let (medium, high) = levels?;
    Some(Urgency { half_life: half_life?, medium, high })
}

fn read_excluded(field: &Field<'_>) -> Option<Excluded> {
    let table = field.table()?;
    let limited = |key| {
        let field: Field<'_> = table.get(key)?;
        let list = field.list()?;
        if list.len() > EXCLUDED_MAX {
            field.problem(format!("at most {EXCLUDED_MAX} in one list"));
        }
        Some(list)
    };
    let networks = networks(&limited("networks").unwrap_or_default());
    let domains = limited("email_domains").unwrap_or_default();
    let paths = limited("paths").unwrap_or_default();
    let robots = table.get("robots").and_then(|field| field.flag());
    table.finish();
    Some(Excluded {
        networks,
        email_domains: domains.iter().filter_map(domain).collect(),
        paths: paths.iter().flat_map(globs).collect(),
        robots: robots.unwrap_or(false),
    })
}

fn domain(field: &Field<'_>) -> Option<String> {
    let text = field.text()?.to_lowercase();
    let bare = text.rsplit_once('@').map_or(text.as_str(), |(_, it)| it);
    let bare = bare.trim_start_matches(['*', '.']);
    if bare != text || !bare.contains('.') || bare.contains([' ', '/', '*']) {
        let near = bare.contains('.').then(|| bare.to_owned());
        field.problem_meant("a domain is written as \"example.jp\"", near);
        return None;
    }
    Some(text)
}

fn read_thresholds(
    field: &Field<'_>,
    total_max: Option<Points>,
    later: &mut Later,
) -> Vec<Threshold> {
    let Some(table) = field.table() else {
        return Vec::new();
    };
    let entries = table.entries();
    table.finish();
    if !(1..=THRESHOLDS_MAX).contains(&entries.len()) {
        field.problem_of_word(format!("there are 1 to {THRESHOLDS_MAX} thresholds"), None);
    }
    let mut thresholds: Vec<Threshold> = Vec::new();
    for (place, entry) in entries.iter().enumerate().take(THRESHOLDS_MAX) {
        thresholds.extend(threshold(entry, place, total_max, later));
    }
    let line = |name: &str| thresholds.iter().find(|line| line.name == name);
    if let (Some(warm), Some(hot)) = (line("warm"), line("hot"))
        && warm.rise >= hot.rise
        && let Some(entry) = entries.iter().find(|entry| entry.name == "warm")
    {
        entry.problem_of_word("\"warm\" must rise below \"hot\"", None);
    }
    thresholds
}

fn threshold(
    entry: &Field<'_>,
    place: usize,
    total_max: Option<Points>,
    later: &mut Later,
) -> Option<Threshold> {
    let table = entry.table()?;
    entry.check_name(entry.name);
    let (rise, fall) = band(&table, total_max);
    let dwell = table.get("dwell").and_then(|field| field.duration());
    let cooldown = table.get("cooldown").and_then(|field| field.duration());
    let grades = table.get("grades").map(|field| grades(&field));
    let recent = table.get("recent").and_then(|field| field.duration());
    let tell = tell(&table);
    if let Some(field) = table.get("again") {
        later.read_again(entry.name, &field);
    }
    table.finish();
    Some(Threshold {
        id: ThresholdId(place as u8),
        name: entry.name.to_owned(),
        rise: rise?,
        fall: fall?,
        dwell: dwell.unwrap_or(Duration::ZERO),
        cooldown: cooldown.unwrap_or(Duration::ZERO),
        grades: grades.unwrap_or_default(),
        recent,
        tell,
    })
}

/// The two lines of a dead band: fall below rise, rise within what a score can be.
fn band(table: &Table<'_>, total_max: Option<Points>) -> (Option<Points>, Option<Points>) {
    let (rise_field, fall_field) = (table.need("rise"), table.need("fall"));
    let rise = rise_field.and_then(|field| points(&field, 1));
    let fall = fall_field.and_then(|field| points(&field, -POINTS_MAX));
    if let (Some(rise), Some(fall), Some(field)) = (rise, fall, fall_field)
        && fall >= rise
    {
        let message = format!(
            "\"fall\" must be below \"rise\" ({}): between the two a lead stays where it is",
            rise.shown()
        );
        field.problem(message);
    }
    if let (Some(rise), Some(most), Some(field)) = (rise, total_max, rise_field)
        && rise > most
    {
        let most = most.shown();
        field.problem(format!("no score passes \"total_max\" ({most}): nobody gets here"));
    }
    (rise, fall)
}

fn grades(field: &Field<'_>) -> Vec<Grade> {
    let grade = |field: &Field<'_>| {
        let text = field.text()?;
        let parsed = Grade::parse(text);
        if parsed.is_none() {
            let plain = half_width(text).unwrap_or_else(|| text.to_owned());
            let meant = plain.trim().to_uppercase();
            let meant = Grade::parse(&meant).map(|grade| grade.letter().to_owned());
            let message = "a grade is \"A\", \"B\", \"C\", \"D\" or \"?\"";
            field.problem_meant(message, meant);
        }
        parsed
    };
    let list = field.one_or_more().unwrap_or_default();
    list.iter().filter_map(grade).collect()
}

fn read_claims(field: &Field<'_>) -> Option<Points> {
    let table = field.table()?;
    let max = table.need("max").and_then(|field| points(&field, 0));
    table.finish();
    max
}

fn read_texts(field: &Field<'_>) -> BTreeMap<String, Text> {
    let mut texts = BTreeMap::new();
    let Some(table) = field.table() else {
        return texts;
    };
    for name in TEXTS {
        let Some(inner) = table.get(name).and_then(|field| field.table()) else {
            continue;
        };
        for field in ["ja", "en"].into_iter().filter_map(|word| inner.get(word)) {
            check_variables(&field);
        }
        texts.insert(name.to_owned(), label(&inner));
        inner.finish();
    }
    table.finish();
    texts
}

/// Every `{word}` of a text is one that will be filled in.
fn check_variables(field: &Field<'_>) {
    // Texts that are none are reported where they are read as labels.
    let text = if field.is_text() { field.text() } else { None };
    let mut rest = text.unwrap_or_default();
    while let Some(open) = rest.find(['{', '}', '｛', '｝']) {
        let inner = &rest[open..];
        let Some(length) = inner.strip_prefix('{').and_then(|it| it.find(['{', '}'])) else {
            let brace: String = inner.chars().take(1).collect();
            let message = format!("a \"{brace}\" without its partner; a name stands in {{ }}");
            field.problem_within(inner, message, None);
            return;
        };
        let word = &inner[1..=length];
        if !VARIABLES.contains(&word) {
            let whole = &inner[..=length];
            let message = format!("nothing is called {} here", quoted(word));
            let near = nearest(word, VARIABLES).map(|near| format!("{{{near}}}"));
            field.problem_within(whole, message, near);
        }
        rest = &inner[length + 2..];
    }
}

fn read_stages(field: &Field<'_>) -> Option<BTreeMap<String, String>> {
    let table = field.table()?;
    let names = table.get("names").and_then(|field| {
        let names = field.table()?;
        let mut found = BTreeMap::new();
        for stage in STAGES {
            if let Some(text) = names.get(stage).and_then(|field| field.text()) {
                found.insert(stage.to_owned(), text.to_owned());
            }
        }
        names.finish();
        Some(found)
    });
    table.finish();
    names
}

/// Points of a rule, either way.
fn rule_points(field: &Field<'_>) -> Option<Points> {
    let number = field.whole(-RULE_POINTS_MAX..=RULE_POINTS_MAX)?;
    Some(Points::whole(number))
}
