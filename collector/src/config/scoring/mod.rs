//! scoring.toml: who earns points, when a lead is hot, what sales is told. The whole file is read
//! and checked; what the engine acts on becomes its types, the rest is kept aside by name.

mod condition;
mod fit;
pub mod later;
mod rules;
mod sales;
mod texts;
mod thresholds;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::decay::HalfLife;
use engine::glob::Globs;
use engine::grade::Fit;
use engine::id::{CategoryId, RuleId, ThresholdId};
use engine::points::Points;
use engine::rule::{Rule, RuleSet};
use engine::sales::SalesRules;
use engine::scoring::{CATEGORIES_MAX, Category, Labels, Scoring, Text, Urgency};
use engine::terms::{CategoryTerms, Terms, Versions};
use engine::threshold::Threshold;
use engine::time::{Timestamp, UtcOffset};

pub(super) use self::fit::{Lists as WordLists, read_tests};
use self::later::Later;
use super::super::net::Network;
use super::mikomi_toml::networks;
use super::problem::{Problem, Problems, half_width, nearest};
use super::sites::globs;
use super::table::{Field, Source, Table, quoted};
use super::{Fingerprint, ForRules, Surroundings};

/// The most points anything may be worth or need; far beyond every sum of limits.
const POINTS_MAX: i64 = 1_000_000;
/// Most networks or domains that are left out.
const EXCLUDED_MAX: usize = 10_000;
/// The category that sales' answers are worth points in.
const INTENT: &str = "intent";
/// The audience that is nobody.
const NOBODY: &str = "nobody";
/// The audiences messages are commonly for; others are fine, unless they look like one of these.
const AUDIENCES: [&str; 4] = ["sales", "hr", "mailer", NOBODY];

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

/// What the file refers to that stands elsewhere.
#[derive(Clone, Copy)]
pub struct Around<'a> {
    /// The folder whose `lists/` it names, else the compiled-in lists.
    pub surroundings: &'a Surroundings,
    /// What mikomi.toml says; nothing if it is not known.
    pub settings: Option<&'a ForRules>,
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
    /// Of the text, and of the lists it names.
    pub fingerprint: Fingerprint,
    /// Where a day begins.
    pub utc_offset: UtcOffset,
    /// No person's score passes this.
    pub total_max: Option<Points>,
    /// What unproven rows may be worth together.
    pub claims_max: Option<Points>,
    /// In the file's order.
    pub categories: Vec<(Category, CategoryTerms)>,
    /// In the file's order.
    pub rules: Vec<Rule>,
    /// In the file's order.
    pub thresholds: Vec<Threshold>,
    /// What makes a grade.
    pub fit: Fit,
    /// Is it now? The short half-life, and the words for it.
    pub urgency: (HalfLife, Urgency),
    /// Worth nothing.
    pub excluded: Excluded,
    /// First lines of messages.
    pub texts: BTreeMap<String, Text>,
    /// What people call the stages.
    pub stage_names: BTreeMap<String, String>,
    /// What sales' answers do.
    pub sales: SalesRules,
    /// What is read and checked, and not acted on in this version.
    pub later: Later,
}

impl ScoringFile {
    /// Reads a file, or says everything that is wrong with it.
    pub fn parse(file: &str, text: &str, around: Around<'_>) -> Result<ScoringFile, Vec<Problem>> {
        let problems = Problems::default();
        let source = Source::new(file, text, &problems);
        let reading = Reading::new(around);
        let entries = source.parse();
        let scoring = entries.and_then(|entries| reading.read(Table::root(source, &entries), text));
        problems.judge(scoring)
    }

    /// Makes it the engine's, after the versions before it. `intern` gives a name its number: the
    /// same for ever, from a journaled catalogue. Fails when the catalogue has given out all
    /// numbers of 8 bits.
    pub fn publish(
        &self,
        before: &Versions,
        (version, published): (u32, Timestamp),
        intern: &mut dyn FnMut(NameKind, &str) -> u16,
    ) -> Result<Scoring, Problem> {
        let refused = |message: String| Problem::of_file("scoring.toml", message);
        let mut labels = Labels {
            categories: self.categories.iter().map(|(category, _)| category.clone()).collect(),
            urgency: self.urgency.1,
            texts: self.texts.clone(),
            stage_names: self.stage_names.clone(),
        };
        let mut categories: Vec<CategoryTerms> =
            self.categories.iter().map(|(_, terms)| *terms).collect();
        for (category, terms) in labels.categories.iter_mut().zip(&mut categories) {
            let number = intern(NameKind::Category, &category.name);
            category.id = CategoryId(narrow(number, &category.name)?);
            terms.id = category.id;
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
        let terms = Terms {
            version,
            published,
            offset: self.utc_offset,
            categories,
            total_max: self.total_max,
            claims_max: self.claims_max,
            urgency: self.urgency.0,
            rules: Vec::new(),
            thresholds,
            fit: self.fit.clone(),
        };
        let rules = RuleSet::new(rules).map_err(|it| refused(it.to_string()))?;
        let paths = Globs::new(&self.excluded.paths).map_err(|it| refused(it.to_owned()))?;
        // What an answer is worth is interest in buying, by the name it has in the shipped file.
        let counted = terms.categories.iter().filter(|category| category.in_total);
        let intent = labels.categories.iter().find(|category| category.name == INTENT);
        let category = intent.map(|it| it.id).or(counted.map(|it| it.id).next());
        let sales = SalesRules { category, ..self.sales.clone() };
        let scoring = Scoring::new(before, terms, rules, paths, labels);
        Ok(scoring.map_err(|error| refused(error.to_string()))?.with_sales(sales))
    }

    /// The names of the categories, in the file's order.
    pub fn category_names(&self) -> Vec<String> {
        self.categories.iter().map(|(category, _)| category.name.clone()).collect()
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

/// What reading needs besides the text.
struct Reading<'a> {
    around: Around<'a>,
    /// Where a day begins: dates of rules are days there.
    offset: std::cell::Cell<UtcOffset>,
    lists: fit::Lists<'a>,
}

impl<'a> Reading<'a> {
    fn new(around: Around<'a>) -> Reading<'a> {
        Reading {
            around,
            offset: std::cell::Cell::new(UtcOffset(0)),
            lists: fit::Lists::new(around.surroundings),
        }
    }

    fn read(&self, root: Table<'_>, text: &str) -> Option<ScoringFile> {
        let utc_offset = root.need("utc_offset").and_then(|field| offset(&field));
        self.offset.set(utc_offset.unwrap_or(UtcOffset(0)));
        let total_max = root.get("total_max").and_then(|field| points(&field, 1));
        let categories =
            root.need("categories").map(|field| read_categories(&field)).unwrap_or_default();
        let urgency = root.need("urgency").and_then(|field| read_urgency(&field));
        let excluded = root.get("exclude").and_then(|field| read_excluded(&field));
        let rules = root
            .need("behaviour")
            .map(|field| rules::read(&field, &categories, self))
            .unwrap_or_default();
        let fit = root.get("fit").and_then(|field| fit::read(&field, &self.lists));
        let thresholds = root
            .need("thresholds")
            .map(|field| thresholds::read(&field, total_max, urgency.as_ref().map(|it| &it.1)))
            .unwrap_or_default();
        let claims_max = root.get("claims").and_then(|field| read_claims(&field));
        let texts = root.get("texts").map(|field| texts::read(&field));
        let stages = root.get("stages").and_then(|field| texts::read_stages(&field));
        let offset = self.offset.get();
        let sales = root.get("sales").and_then(|field| sales::read(&field, offset, &self.lists));
        let later = Later::read(&root);
        root.finish();
        Some(ScoringFile {
            text: Arc::from(text),
            fingerprint: Fingerprint::of_all(text.as_bytes(), &self.lists.read()),
            utc_offset: utc_offset?,
            total_max,
            claims_max,
            categories,
            rules,
            thresholds,
            fit: fit.unwrap_or_default(),
            urgency: urgency?,
            excluded: excluded.unwrap_or_default(),
            texts: texts.unwrap_or_default(),
            stage_names: stages.unwrap_or_default(),
            sales: sales.unwrap_or_default(),
            later,
        })
    }
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

fn read_categories(field: &Field<'_>) -> Vec<(Category, CategoryTerms)> {
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

fn category(entry: &Field<'_>, place: usize) -> Option<(Category, CategoryTerms)> {
    let table = entry.table()?;
    entry.check_name(entry.name);
    let half_life = table.need("half_life").and_then(|field| half_life(&field));
    let max = table.get("max").and_then(|field| points(&field, 1));
    let in_total = table.get("in_total").and_then(|field| field.flag());
    let label = label(&table);
    table.finish();
    let id = CategoryId(place as u8);
    let terms = CategoryTerms {
        id,
        // A category whose half-life is wrong still has a name that rules may give.
        half_life: half_life.or_else(|| HalfLife::from_millis(1_000))?,
        max,
        in_total: in_total.unwrap_or(true),
    };
    Some((Category { id, name: entry.name.to_owned(), ja: label.ja, en: label.en }, terms))
}

fn half_life(field: &Field<'_>) -> Option<HalfLife> {
    let duration = field.duration()?;
    let half_life = HalfLife::new(duration);
    if half_life.is_none() {
        field.problem("a half-life is at least \"1s\"");
    }
    half_life
}

fn read_urgency(field: &Field<'_>) -> Option<(HalfLife, Urgency)> {
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
    Some((half_life?, Urgency { medium, high }))
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

fn read_claims(field: &Field<'_>) -> Option<Points> {
    let table = field.table()?;
    let max = table.need("max").and_then(|field| points(&field, 0));
    table.finish();
    max
}
