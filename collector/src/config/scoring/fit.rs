//! Tests of what is known of a person: the lines of [fit], and `only` of a rule. Lists of words
//! stand in files of their own.

use std::cell::RefCell;
use std::collections::BTreeMap;

use engine::attribute::{AttributeTest, EMAIL_DOMAIN, Test};
use engine::grade::{Fit, FitRule};
use engine::points::Points;
use engine::rule::RULE_POINTS_MAX;

use super::super::Surroundings;
use super::super::problem::nearest;
use super::super::table::{Field, Table, quoted};

/// Most lines of [fit].
const FIT_RULES_MAX: usize = 2_000;
/// Most tests of one rule or list.
const TESTS_MAX: usize = 16;
/// The attributes that people commonly ask for; others are fine, unless they look like one.
const ATTRIBUTES: [&str; 21] = [
    "name",
    "email",
    EMAIL_DOMAIN,
    "phone",
    "title",
    "department",
    "company",
    "corporate_number",
    "industry",
    "employees",
    "credit_rank",
    "owner",
    "country",
    "prefecture",
    "user_id",
    "crm_id",
    "trial_until",
    "registered_events",
    "customer",
    "open_deal",
    "do_not_send",
];

/// The lists that a file names, each read once.
pub(in super::super) struct Lists<'a> {
    surroundings: &'a Surroundings,
    read: RefCell<BTreeMap<String, Result<Vec<String>, String>>>,
}

impl<'a> Lists<'a> {
    pub(in super::super) fn new(surroundings: &'a Surroundings) -> Lists<'a> {
        Lists { surroundings, read: RefCell::default() }
    }

    /// The words of a list, or what is wrong with it.
    fn words(&self, name: &str) -> Result<Vec<String>, String> {
        let mut read = self.read.borrow_mut();
        let words = read.entry(name.to_owned()).or_insert_with(|| self.surroundings.list(name));
        words.clone()
    }

    /// All that was read, one word a line: what a change of a list shows in.
    pub(super) fn read(&self) -> String {
        let read = self.read.borrow();
        let words = read.iter().flat_map(|(name, words)| {
            std::iter::once(name.as_str()).chain(words.iter().flatten().map(String::as_str))
        });
        words.collect::<Vec<_>>().join("\n")
    }
}

/// Reads `[fit]`.
pub(super) fn read(field: &Field<'_>, lists: &Lists<'_>) -> Option<Fit> {
    let table = field.table()?;
    let known_min = table.need("known_min").and_then(|field| field.whole(0..=64));
    let grades = table.need("grades").and_then(|field| grade_lines(&field));
    let list_field = table.need("rules");
    let list = list_field.and_then(|field| field.list()).unwrap_or_default();
    if list.len() > FIT_RULES_MAX {
        field.problem_of_word(format!("at most {FIT_RULES_MAX} lines"), None);
    }
    let rules: Vec<FitRule> =
        list.iter().take(FIT_RULES_MAX).filter_map(|line| fit_rule(line, lists)).collect();
    let mut asked: Vec<&str> = rules.iter().map(|rule| rule.test.attribute.as_str()).collect();
    asked.sort_unstable();
    asked.dedup();
    if let (Some(min), Some(field)) = (known_min, table.get("known_min"))
        && min as usize > asked.len()
        && rules.len() == list.len()
    {
        let asked = asked.len();
        field.problem(format!("only {asked} attributes are asked for below: nobody gets a grade"));
    }
    table.finish();
    Some(Fit { known_min: known_min? as u32, lines: grades?, rules })
}

fn grade_lines(field: &Field<'_>) -> Option<[Points; 3]> {
    let grades = field.table()?;
    let lines = ["A", "B", "C"].map(|grade| grades.need(grade));
    let lines = lines.map(|field| fit_points(&field?));
    grades.finish();
    let [a, b, c] = lines;
    let lines = [a?, b?, c?];
    if lines[0] <= lines[1] || lines[1] <= lines[2] {
        field.problem("\"A\" must be above \"B\", and \"B\" above \"C\"");
    }
    Some(lines)
}

fn fit_points(field: &Field<'_>) -> Option<Points> {
    Some(Points::whole(field.whole(-RULE_POINTS_MAX..=RULE_POINTS_MAX)?))
}

fn fit_rule(line: &Field<'_>, lists: &Lists<'_>) -> Option<FitRule> {
    let table = line.table()?;
    let points = table.need("points").and_then(|field| fit_points(&field));
    let test = test(&table, lists);
    table.finish();
    Some(FitRule { test: test?, points: points? })
}

/// Reads tests such as `only = { attribute = "title", has = "課長" }`, or several that must all hold.
pub(in super::super) fn read_tests(field: &Field<'_>, lists: &Lists<'_>) -> Vec<AttributeTest> {
    let tables = if field.is_table() { vec![*field] } else { field.list().unwrap_or_default() };
    if !(1..=TESTS_MAX).contains(&tables.len()) {
        field.problem(format!("\"{}\" needs 1 to {TESTS_MAX} tests", field.name));
    }
    let test = |field: &Field<'_>| {
        let table = field.table()?;
        let test = test(&table, lists);
        table.finish();
        test
    };
    tables.iter().take(TESTS_MAX).filter_map(test).collect()
}

fn test(table: &Table<'_>, lists: &Lists<'_>) -> Option<AttributeTest> {
    let attribute = table.need("attribute").and_then(|field| attribute(&field));
    let words = |word| {
        let list = table.get(word).map(|field: Field<'_>| field.one_or_more());
        let text = |field: &Field<'_>| {
            let text = field.text()?;
            if text.trim().is_empty() {
                field.problem(format!("\"{word}\" needs a word that says something"));
            }
            Some(text.to_owned())
        };
        list.map(|list| list.unwrap_or_default().iter().filter_map(text).collect())
    };
    let number = |word| table.get(word).map(|field| field.whole(i64::MIN..=i64::MAX));
    let (from, to) = (number("from"), number("to"));
    if let (Some(Some(from)), Some(Some(to)), Some(field)) = (from, to, table.get("to"))
        && from > to
    {
        field.problem("\"to\" must not be below \"from\"");
    }
    let between =
        (from.is_some() || to.is_some()).then(|| Test::Between(from.flatten(), to.flatten()));
    let tests: Vec<Test> = [
        words("has").map(Test::Has),
        words("is").map(Test::Is),
        words("ends").map(Test::Ends),
        between,
        table.get("list").map(|field| Test::Is(list(&field, lists))),
    ]
    .into_iter()
    .flatten()
    .collect();
    // A word that nobody knows was meant to be one: that is one mistake, not two.
    if tests.len() > 1 || tests.is_empty() && table.is_known() {
        table.problem(
            "a test needs one of \"has\", \"is\", \"ends\", \"list\", \"from\" and \"to\"",
        );
    }
    Some(AttributeTest::new(attribute?, tests.into_iter().next()?))
}

/// A name that looks like a common one and is not is a slip that would never match.
fn attribute(field: &Field<'_>) -> Option<String> {
    let name = field.name()?;
    let near = nearest(name, ATTRIBUTES).filter(|_| !ATTRIBUTES.contains(&name));
    if let Some(near) = near {
        let message = format!("nobody is asked for {}", quoted(name));
        field.problem_meant(message, Some(near.to_owned()));
    }
    Some(name.to_owned())
}

fn list(field: &Field<'_>, lists: &Lists<'_>) -> Vec<String> {
    field.name().map(|name| list_of(field, name, lists)).unwrap_or_default()
}

/// The words of a list that a field names.
pub(super) fn list_of(field: &Field<'_>, name: &str, lists: &Lists<'_>) -> Vec<String> {
    lists.words(name).unwrap_or_else(|why| {
        let plain = name.strip_suffix(".txt");
        let known = Surroundings::LISTS.iter().map(|(name, _)| *name);
        let near = plain.or_else(|| nearest(name, known).filter(|near| *near != name));
        field.problem_meant(format!("the list {} {why}", quoted(name)), near.map(str::to_owned));
        Vec::new()
    })
}
