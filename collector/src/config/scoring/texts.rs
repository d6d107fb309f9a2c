//! What people read: first lines of messages, names of stages.

use std::collections::BTreeMap;

use engine::scoring::Text;

use super::super::problem::nearest;
use super::super::table::{Field, quoted};
use super::label;

/// What can be said of every lead.
const OF_A_LEAD: &[&str] = &["company", "name", "score", "cell", "days"];
/// The same, where a rule is the reason.
const OF_A_RULE: &[&str] = &["company", "name", "score", "cell", "days", "reason"];
/// The messages that have a first line, each with what it may name: what is filled in there.
const TEXTS: [(&str, &[&str]); 10] = [
    ("hot", &["company", "name", "score", "cell", "days", "reason", "last"]),
    ("action", &["company", "name", "score", "cell", "days", "reason", "last"]),
    ("escalated", &["company", "name", "score", "cell", "days", "reason", "last"]),
    ("signal", OF_A_RULE),
    ("cooled", OF_A_LEAD),
    ("reminder", &["company", "name", "score", "cell", "days", "hours"]),
    ("account", &["company", "score", "people"]),
    ("retracted", OF_A_LEAD),
    ("merged", OF_A_LEAD),
    ("unmerged", OF_A_LEAD),
];
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

/// Reads `[texts]`.
pub(super) fn read(field: &Field<'_>) -> BTreeMap<String, Text> {
    let mut texts = BTreeMap::new();
    let Some(table) = field.table() else {
        return texts;
    };
    for (name, variables) in TEXTS {
        let Some(inner) = table.get(name).and_then(|field| field.table()) else {
            continue;
        };
        for field in ["ja", "en"].into_iter().filter_map(|word| inner.get(word)) {
            check_variables(&field, variables);
        }
        texts.insert(name.to_owned(), label(&inner));
        inner.finish();
    }
    table.finish();
    texts
}

/// Every `{word}` of a text is one that will be filled in.
fn check_variables(field: &Field<'_>, variables: &[&'static str]) {
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
        if !variables.contains(&word) {
            let whole = &inner[..=length];
            let allowed: Vec<String> = variables.iter().map(|name| format!("{{{name}}}")).collect();
            let (word, allowed) = (quoted(word), allowed.join(" "));
            let message = format!("nothing is called {word} here: there is {allowed}");
            let near = nearest(&inner[1..=length], variables.iter().copied());
            let near = near.map(|near| format!("{{{near}}}"));
            field.problem_within(whole, message, near);
        }
        rest = &inner[length + 2..];
    }
}

/// Reads `[stages]`.
pub(super) fn read_stages(field: &Field<'_>) -> Option<BTreeMap<String, String>> {
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
