//! The lines of [behaviour]: what earns points, how often, for whom and for how long.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::id::{CategoryId, RuleId};
use engine::points::Points;
use engine::rule::{Guards, OnRemove, Once, Period, RULE_POINTS_MAX, RULES_MAX, Rule, RuleSet};
use engine::scoring::Category;
use engine::terms::CategoryTerms;
use engine::time::{Timestamp, UtcOffset};

use super::super::problem::{half_width, nearest};
use super::super::table::{Field, Table, quoted};
use super::condition::{self, some_time};
use super::{Reading, fit, label, points, tell};

/// Reads `[behaviour]`.
pub(super) fn read(
    field: &Field<'_>,
    categories: &[(Category, CategoryTerms)],
    reading: &Reading<'_>,
) -> Vec<Rule> {
    let Some(table) = field.table() else {
        return Vec::new();
    };
    let list = table.need("rules").and_then(|field| field.list());
    let list = list.unwrap_or_default();
    table.finish();
    if list.len() > RULES_MAX {
        field.problem_of_word(format!("at most {RULES_MAX} rules"), None);
    }
    let mut ids = BTreeMap::new();
    let mut rules = Vec::with_capacity(list.len());
    for (place, line) in list.iter().enumerate().take(RULES_MAX) {
        let id = |table: &Table<'_>| rule_id(table, place, &mut ids);
        rules.extend(rule(line, place, id, categories, reading));
    }
    rules
}

/// An id that no rule before this one has.
fn rule_id(table: &Table<'_>, place: usize, ids: &mut BTreeMap<String, usize>) -> Option<String> {
    let field = table.need("id")?;
    let id = field.name()?;
    if let Some(first) = ids.insert(id.to_owned(), place) {
        let first = first + 1;
        field.problem(format!("the id \"{id}\" is used already, by rule number {first}"));
    }
    Some(id.to_owned())
}

fn rule(
    line: &Field<'_>,
    place: usize,
    id: impl FnOnce(&Table<'_>) -> Option<String>,
    categories: &[(Category, CategoryTerms)],
    reading: &Reading<'_>,
) -> Option<Rule> {
    let table = line.table()?;
    let before = line.problems_so_far();
    let id = id(&table);
    let points = table.need("points").and_then(|field| rule_points(&field));
    let label = label(&table);
    let category = table.need("category").and_then(|field| category(&field, categories));
    let mut guards = guards(&table, reading);
    if let (Some(true), Some(field)) = (points.map(|it| it.0 < 0), table.get("max")) {
        field.problem("\"max\" does nothing here: minus points are never cut");
    }
    let tell = tell(&table);
    let (from, until) = dates(&table, reading.offset.get());
    let on_remove = table.get("on_remove").and_then(|field| field.word(&["keep", "withdraw"]));
    let when_field = table.need("when");
    let when = when_field.and_then(|field| condition::read(&field, reading.around));
    table.finish();
    let when = when?;
    // A person was away only if they were so on every browser of theirs.
    guards.away = when.return_after;
    let rule = Rule {
        id: RuleId(place as u16),
        name: id?,
        points: points?,
        category: category?,
        guards,
        tell,
        on_remove: match on_remove {
            Some("withdraw") => OnRemove::Withdraw,
            _ => OnRemove::Keep,
        },
        from,
        until,
        when,
        ja: label.ja,
        en: label.en,
    };
    // What only the engine knows to be impossible. After another mistake in the line it would be
    // asked about something else than was meant.
    if line.problems_so_far() == before {
        let alone = Rule { id: RuleId(0), ..rule.clone() };
        if let Err(error) = RuleSet::forgetful(vec![alone]) {
            when_field.unwrap_or(*line).problem(error.to_string());
        }
    }
    Some(rule)
}

/// Points of a rule, either way.
pub(super) fn rule_points(field: &Field<'_>) -> Option<Points> {
    let number = field.whole(-RULE_POINTS_MAX..=RULE_POINTS_MAX)?;
    Some(Points::whole(number))
}

fn category(field: &Field<'_>, categories: &[(Category, CategoryTerms)]) -> Option<CategoryId> {
    let text = field.text()?;
    let known = categories.iter().find(|(category, _)| category.name == text);
    if known.is_none() {
        let names = categories.iter().map(|(category, _)| category.name.as_str());
        let near = nearest(text, names).map(str::to_owned);
        field.problem_meant(format!("there is no category {}", quoted(text)), near);
    }
    Some(known?.0.id)
}

fn guards(table: &Table<'_>, reading: &Reading<'_>) -> Guards {
    let (once, rearm) = (table.get("once"), table.get("rearm_after"));
    let (once_per, at_most) = (table.get("once_per"), table.get("at_most"));
    let once_flag = once.and_then(|field| field.flag());
    let rearmed = rearm.and_then(|field| field.duration());
    if let (Some(field), None | Some(false)) = (rearm, once_flag) {
        field.problem_of_word("\"rearm_after\" needs \"once = true\" beside it", None);
    }
    for field in [once_per, at_most].into_iter().flatten() {
        if once_flag == Some(true) {
            let message = format!("\"{}\" says nothing beside \"once = true\"", field.name);
            field.problem_of_word(message, None);
        }
    }
    let only = table.get("only").map(|field| fit::read_tests(&field, &reading.lists));
    Guards {
        once: match (once_flag, rearmed) {
            (Some(true), Some(after)) => Some(Once::Rearmed(after)),
            (Some(true), None) => Some(Once::Ever),
            _ => None,
        },
        once_per: once_per.and_then(|field| period(&field)),
        at_most: at_most.and_then(|field| at_most_of(&field)),
        max: table.get("max").and_then(|field| points(&field, 1)),
        only: only.unwrap_or_default(),
        away: None,
    }
}

/// `{ n = 3, per = "day" }`
pub(super) fn at_most_of(field: &Field<'_>) -> Option<(u32, Period)> {
    let table = field.table()?;
    let n = table.need("n").and_then(|field| field.whole(1..=1_000_000));
    let per = table.need("per").and_then(|field| period(&field));
    table.finish();
    Some((n? as u32, per?))
}

fn period(field: &Field<'_>) -> Option<Period> {
    if field.is_text() && field.text() == Some("day") {
        return Some(Period::Day);
    }
    let length = some_time(field)?;
    Some(Period::Rolling(length))
}

/// `from` and `until`: days where the file's day begins, both included.
fn dates(table: &Table<'_>, offset: UtcOffset) -> (Option<Timestamp>, Option<Timestamp>) {
    const DAY: Duration = Duration::from_hours(24);
    let day = |word| {
        let field: Field<'_> = table.get(word)?;
        Some((field, start_of_day(&field, offset)?))
    };
    let (from, until) = (day("from"), day("until"));
    if let (Some((_, from)), Some((field, until))) = (from, until)
        && until < from
    {
        field.problem("\"until\" must not be before \"from\"");
    }
    (from.map(|it| it.1), until.map(|(_, start)| start.plus(DAY)))
}

/// `2026-12-01`, with or without quotes.
fn start_of_day(field: &Field<'_>, offset: UtcOffset) -> Option<Timestamp> {
    let text = field.date_text()?;
    let plain = half_width(&text).unwrap_or_else(|| text.clone());
    let parsed = plain.parse::<jiff::civil::Date>().ok();
    let at = parsed.filter(|_| plain == text).and_then(|date| {
        let zone = jiff::tz::Offset::from_seconds((offset.0 / 1_000) as i32).ok()?;
        let start = zone.to_timestamp(date.to_datetime(jiff::civil::Time::midnight())).ok()?;
        u64::try_from(start.as_millisecond()).ok().map(Timestamp)
    });
    if at.is_none() {
        let message = format!("\"{}\" needs a day such as \"2026-12-01\"", field.name);
        field.problem_meant(message, likely_date(&plain));
    }
    at
}

/// What was meant by `2026/12/1`, `2026.12.01`, `2026年12月1日`.
fn likely_date(text: &str) -> Option<String> {
    let parts: Vec<&str> =
        text.split(|letter: char| !letter.is_ascii_digit()).filter(|it| !it.is_empty()).collect();
    let [year, month, day] = parts[..] else {
        return None;
    };
    let made = format!("{year:0>4}-{month:0>2}-{day:0>2}");
    made.parse::<jiff::civil::Date>().ok().map(|_| made)
}
