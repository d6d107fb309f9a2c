//! The lines of [behaviour]: what earns points. A condition the engine cannot match is refused by
//! name: a rule that silently never counts costs a month before anybody notices.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::id::{CategoryId, RuleId};
use engine::rule::{Condition, Guards, Once, Period, RULES_MAX, Rule, RuleSet};
use engine::scoring::Category;
use engine::time::UtcOffset;

use super::super::problem::nearest;
use super::super::sites::globs;
use super::super::table::{Field, Table, quoted};
use super::{label, points, rule_points, tell};

/// Conditions that are words of ours, and that no version of the engine up to this one matches.
const LATER_CONDITIONS: [&str; 8] =
    ["query", "referrer", "campaign", "property", "scroll", "count", "area", "via"];
/// The same of the rule itself.
const LATER_WORDS: [&str; 3] = ["only", "from", "until"];
/// How deep `any` may stand in `any`.
const DEPTH_MAX: usize = 4;

/// Reads `[behaviour]`.
pub(super) fn read(field: &Field<'_>, categories: &[Category]) -> Vec<Rule> {
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
        let table = line.table();
        rules.extend(table.and_then(|table| rule(line, table, place, categories, &mut ids)));
    }
    rules
}

fn rule(
    line: &Field<'_>,
    table: Table<'_>,
    place: usize,
    categories: &[Category],
    ids: &mut BTreeMap<String, usize>,
) -> Option<Rule> {
    let before = line.problems_so_far();
    let id = table.need("id").and_then(|field| {
        let id = field.name()?;
        if let Some(first) = ids.insert(id.to_owned(), place) {
            let first = first + 1;
            let message = format!("the id \"{id}\" is used already, by rule number {first}");
            field.problem(message);
        }
        Some(id.to_owned())
    });
    let points = table.need("points").and_then(|field| rule_points(&field));
    let label = label(&table);
    let category = table.need("category").and_then(|field| category(&field, categories));
    let guards = guards(&table);
    if let (Some(true), Some(field)) = (points.map(|it| it.0 < 0), table.get("max")) {
        field.problem("\"max\" does nothing here: minus points are never cut");
    }
    let tell = tell(&table);
    for word in LATER_WORDS {
        refuse_later(&table, word);
    }
    if let Some(field) = table.get("on_remove")
        && field.word(&["keep", "withdraw"]) == Some("withdraw")
    {
        field.problem("\"withdraw\" is not available in this version");
    }
    let when_field = table.need("when");
    let when = when_field.and_then(|field| condition(&field, 0));
    table.finish();
    let rule = Rule {
        id: RuleId(place as u16),
        name: id?,
        points: points?,
        category: category?,
        guards,
        tell,
        when: when?,
        ja: label.ja,
        en: label.en,
    };
    // What only the engine knows to be impossible. After another mistake in the line it would be
    // asked about something else than was meant.
    if line.problems_so_far() == before {
        let alone = Rule { id: RuleId(0), ..rule.clone() };
        if let Err(error) = RuleSet::new(vec![alone], UtcOffset(0)) {
            when_field.unwrap_or(*line).problem(error.to_string());
        }
    }
    Some(rule)
}

fn refuse_later(table: &Table<'_>, word: &'static str) {
    if let Some(field) = table.get(word) {
        field.problem_of_word(format!("\"{word}\" is not available in this version"), None);
    }
}

fn category(field: &Field<'_>, categories: &[Category]) -> Option<CategoryId> {
    let text = field.text()?;
    let known = categories.iter().find(|category| category.name == text);
    if known.is_none() {
        let names = categories.iter().map(|category| category.name.as_str());
        let near = nearest(text, names).map(str::to_owned);
        field.problem_meant(format!("there is no category {}", quoted(text)), near);
    }
    Some(known?.id)
}

fn guards(table: &Table<'_>) -> Guards {
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
    Guards {
        once: match (once_flag, rearmed) {
            (Some(true), Some(after)) => Some(Once::Rearmed(after)),
            (Some(true), None) => Some(Once::Ever),
            _ => None,
        },
        once_per: once_per.and_then(|field| period(&field)),
        at_most: at_most.and_then(|field| at_most_of(&field)),
        max: table.get("max").and_then(|field| points(&field, 1)),
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

/// A time that is not nothing.
fn some_time(field: &Field<'_>) -> Option<Duration> {
    let duration = field.duration()?;
    if duration.is_zero() {
        field.problem(format!("\"{}\" needs a time above zero", field.name));
    }
    Some(duration)
}

fn condition(field: &Field<'_>, depth: usize) -> Option<Condition> {
    let before = field.problems_so_far();
    let table = field.table()?;
    for word in LATER_CONDITIONS {
        refuse_later(&table, word);
    }
    let paths = |word| table.get(word).map(|field| globs(&field));
    let path = paths("path");
    let not_path = paths("not_path");
    let event = table.get("event").map(|field| {
        let list = field.one_or_more().unwrap_or_default();
        let event = |field: &Field<'_>| field.name().map(str::to_owned);
        list.iter().filter_map(event).collect::<Vec<_>>()
    });
    let engaged = table.get("engaged").and_then(|field| some_time(&field));
    let away = table.get("return_after");
    let return_after = away.and_then(|field| some_time(&field));
    let distinct_pages = distinct_pages(&table);
    let authenticated = table.get("authenticated").and_then(|field| field.flag());
    let any_field = table.get("any");
    let any = any_field.map(|field| {
        if depth >= DEPTH_MAX {
            field.problem("\"any\" stands too deep in \"any\"");
            return Vec::new();
        }
        let list = field.one_or_more().unwrap_or_default();
        let inner = |field: &Field<'_>| condition(field, depth + 1);
        list.iter().filter_map(inner).collect::<Vec<_>>()
    });
    table.finish();
    let condition = Condition {
        path: path.unwrap_or_default(),
        not_path: not_path.unwrap_or_default(),
        event: event.unwrap_or_default(),
        engaged,
        return_after,
        distinct_pages,
        authenticated,
        any: any.unwrap_or_default(),
    };
    if let Some(any) = any_field
        && field.problems_so_far() == before
        && Hits::of(&condition).is_empty()
    {
        any.problem_of_word("nothing in \"any\" can happen together with the rest", None);
    }
    Some(condition)
}

fn distinct_pages(table: &Table<'_>) -> Option<(u32, Duration)> {
    let (pages, within) = (table.get("distinct_pages"), table.get("within"));
    let count = pages.and_then(|field| field.whole(2..=1_000));
    let time = within.and_then(|field| some_time(&field));
    match (pages, within) {
        (Some(field), None) => {
            field.problem_of_word("\"distinct_pages\" needs \"within\" beside it", None);
        }
        (None, Some(field)) if table.get("count").is_none() => {
            field.problem_of_word("\"within\" needs \"distinct_pages\" beside it", None);
        }
        (Some(_), Some(_)) | (None, _) => {}
    }
    Some((count? as u32, time?))
}

/// The kinds of hits a condition can hold for.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Hits {
    pages: bool,
    events: bool,
    stays: bool,
}

impl Hits {
    const ALL: Hits = Hits { pages: true, events: true, stays: true };
    const NONE: Hits = Hits { pages: false, events: false, stays: false };

    /// As the engine sees it: an event's name asks for events, a stay for stays, a path alone
    /// for page views.
    fn of(condition: &Condition) -> Hits {
        let speaks_of_pages = !condition.path.is_empty()
            || !condition.not_path.is_empty()
            || condition.authenticated.is_some()
            || condition.distinct_pages.is_some();
        let mut own = if !condition.event.is_empty() {
            Hits { events: true, ..Hits::NONE }
        } else if condition.engaged.is_some() {
            Hits { stays: true, ..Hits::NONE }
        } else if speaks_of_pages {
            Hits { pages: true, ..Hits::NONE }
        } else if condition.return_after.is_some() {
            Hits { stays: false, ..Hits::ALL }
        } else {
            Hits::ALL
        };
        if !condition.any.is_empty() {
            let inner: Vec<Hits> = condition.any.iter().map(Hits::of).collect();
            own.pages &= inner.iter().any(|hits| hits.pages);
            own.events &= inner.iter().any(|hits| hits.events);
            own.stays &= inner.iter().any(|hits| hits.stays);
        }
        own
    }

    fn is_empty(self) -> bool {
        self == Hits::NONE
    }
}
