//! lists.toml: filters of leads with a name.

use std::collections::BTreeSet;

use engine::attribute::{AttributeTest, Test};
use engine::grade::Grade;
use engine::scoring::CATEGORIES_MAX;
use engine::stage::Stage;

use super::Surroundings;
use super::problem::{Problem, Problems, nearest};
use super::scoring::{WordLists, read_tests};
use super::table::{Field, Source, Table};
use crate::named::{Filter, NamedList, NamedLists, Span};

/// Most lists in the file.
const LISTS_MAX: usize = 200;
/// Most owners, companies or categories that one list names.
const NAMED_MAX: usize = 1_000;
/// The most points that may be asked for.
const POINTS_MAX: i64 = 1_000_000;

/// Reads the file. `categories`: the names in scoring.toml, if it could be read.
pub(super) fn parse(
    file: &str,
    text: &str,
    categories: Option<&[String]>,
    surroundings: &Surroundings,
) -> Result<NamedLists, Vec<Problem>> {
    let problems = Problems::default();
    let source = Source::new(file, text, &problems);
    let around = (categories, &WordLists::new(surroundings));
    let lists = source.parse().and_then(|entries| {
        let root = Table::root(source, &entries);
        let list = match root.get("list") {
            Some(field) => field.list()?,
            None => Vec::new(),
        };
        root.finish();
        if list.len() > LISTS_MAX {
            source.report(0, format!("at most {LISTS_MAX} lists"), None);
        }
        let mut ids = BTreeSet::new();
        let tables = list.iter().take(LISTS_MAX).filter_map(Field::table);
        let lists = tables.filter_map(|table| named(table, around, &mut ids));
        Some(NamedLists::new(lists.collect()))
    });
    problems.judge(lists)
}

/// The categories that may be named, and the lists of words.
type Around<'a, 'b> = (Option<&'a [String]>, &'a WordLists<'b>);

fn named(
    table: Table<'_>,
    around: Around<'_, '_>,
    ids: &mut BTreeSet<String>,
) -> Option<NamedList> {
    let id = table.need("id").and_then(|field| {
        let id = field.name()?;
        if !ids.insert(id.to_owned()) {
            field.problem(format!("there is a list \"{id}\" already"));
        }
        Some(id.to_owned())
    });
    let label = ["ja", "en"].map(|word| table.get(word)?.set_text().map(str::to_owned));
    let filter = table.need("where").and_then(|field| filter(&field, around));
    table.finish();
    let (id, [ja, en]) = (id?, label);
    Some(NamedList {
        ja: ja.clone().or_else(|| en.clone()).unwrap_or_else(|| id.clone()),
        en: en.or(ja).unwrap_or_else(|| id.clone()),
        id,
        filter: filter?,
    })
}

fn filter(field: &Field<'_>, (categories, words): Around<'_, '_>) -> Option<Filter> {
    let table = field.table()?;
    let mut attributes = match table.get("attribute") {
        Some(field) => read_tests(&field, words),
        None => Vec::new(),
    };
    for name in ["owner", "company"] {
        let texts = table.get(name).map(|field| texts(&field));
        attributes.extend(texts.map(|list| AttributeTest::new(name.into(), Test::Is(list))));
    }
    let grades = words_of(&table, "grade", &Grade::ALL.map(Grade::letter), Grade::parse);
    let stages = words_of(&table, "stage", &Stage::ALL.map(Stage::name), Stage::parse);
    let score = table.get("score").and_then(|field| {
        let table = field.table()?;
        let span = span(&table);
        table.finish();
        Some(span)
    });
    let categories = match table.get("category") {
        Some(field) => worth(&field, categories),
        None => Vec::new(),
    };
    let seen_within = table.get("last_seen").and_then(|field| {
        let table = field.table()?;
        let within = table.need("within").and_then(|field| field.duration());
        table.finish();
        within
    });
    let filter = Filter {
        attributes,
        grades,
        stages,
        score: score.unwrap_or_default(),
        categories,
        seen_within,
    };
    // A word that nobody knows was meant to ask something: that is one mistake, not two.
    if filter == Filter::default() && table.is_known() && table.entries().is_empty() {
        field.problem("\"where\" asks nothing: everybody would be on the list");
    }
    table.finish();
    Some(filter)
}

/// One or several of a few words.
fn words_of<T>(
    table: &Table<'_>,
    name: &'static str,
    words: &[&'static str],
    read: impl Fn(&str) -> Option<T>,
) -> Vec<T> {
    let list = table.get(name).and_then(|field| field.one_or_more()).unwrap_or_default();
    list.iter().filter_map(|field| read(field.word(words)?)).collect()
}

fn texts(field: &Field<'_>) -> Vec<String> {
    let list = field.one_or_more().unwrap_or_default();
    if list.len() > NAMED_MAX {
        field.problem(format!("at most {NAMED_MAX} of them"));
    }
    let text = |field: &Field<'_>| {
        let text = field.text()?;
        if text.trim().is_empty() {
            field.problem("a name that says nothing");
        }
        Some(text.to_owned())
    };
    list.iter().take(NAMED_MAX).filter_map(text).collect()
}

/// From here to there, in whole points.
fn span(table: &Table<'_>) -> Span {
    let points = |word| table.get(word).map(|field| field.whole(-POINTS_MAX..=POINTS_MAX));
    let (from, to) = (points("from"), points("to"));
    match (from, to, table.get("to")) {
        (None, None, _) if table.is_known() => {
            table.problem("it needs \"from\", \"to\" or both");
        }
        (Some(Some(from)), Some(Some(to)), Some(field)) if from > to => {
            field.problem("\"to\" must not be below \"from\"");
        }
        _ => {}
    }
    Span { from: from.flatten(), to: to.flatten() }
}

/// What categories are worth: one table, or several that must all hold.
fn worth(field: &Field<'_>, known: Option<&[String]>) -> Vec<(String, Span)> {
    let tables = if field.is_table() { vec![*field] } else { field.list().unwrap_or_default() };
    if tables.is_empty() || tables.len() > CATEGORIES_MAX {
        field.problem(format!("\"category\" needs 1 to {CATEGORIES_MAX} tests"));
    }
    let one = |field: &Field<'_>| {
        let table = field.table()?;
        let name = table.need("name").and_then(|field| category(&field, known));
        let span = span(&table);
        table.finish();
        Some((name?, span))
    };
    tables.iter().take(CATEGORIES_MAX).filter_map(one).collect()
}

fn category(field: &Field<'_>, known: Option<&[String]>) -> Option<String> {
    let name = field.name()?;
    if let Some(known) = known.filter(|known| !known.iter().any(|it| it == name)) {
        let near = nearest(name, known.iter().map(String::as_str)).map(str::to_owned);
        field.problem_meant(format!("there is no category \"{name}\" in scoring.toml"), near);
    }
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn lists(text: &str) -> Result<NamedLists, Vec<String>> {
        let categories = ["intent".to_owned(), "interest".to_owned()];
        parse("lists.toml", text, Some(&categories), &Surroundings::default())
            .map_err(|found| found.iter().map(ToString::to_string).collect())
    }

    /// What is said of one list whose `where` is this.
    fn of(asked: &str) -> Result<Filter, Vec<String>> {
        let text = format!("[[list]]\nid = \"a\"\nwhere = {asked}\n");
        lists(&text).map(|lists| lists.get("a").unwrap().filter.clone())
    }

    #[test]
    fn every_word_is_read() {
        let filter =
            of("{ attribute = { attribute = \"industry\", is = \"it\" }, grade = [\"A\", \"?\"], \
            stage = \"hot\", score = { from = 30, to = 59 }, \
            category = { name = \"intent\", from = 20 }, \
            last_seen = { within = \"7d\" }, owner = \"sato\", company = [\"X\", \"Y\"] }");
        let is = |name: &str, words: &[&str]| {
            let words = words.iter().map(|&word| word.to_owned()).collect();
            AttributeTest::new(name.into(), Test::Is(words))
        };
        let expected = Filter {
            attributes: vec![
                is("industry", &["it"]),
                is("owner", &["sato"]),
                is("company", &["X", "Y"]),
            ],
            grades: vec![Grade::A, Grade::Unknown],
            stages: vec![Stage::Hot],
            score: Span { from: Some(30), to: Some(59) },
            categories: vec![("intent".into(), Span { from: Some(20), to: None })],
            seen_within: Some(Duration::from_hours(7 * 24)),
        };
        assert_eq!(filter, Ok(expected));
    }

    #[test]
    fn several_tests_and_categories_stand_in_lists() {
        let filter = of("{ attribute = [{ attribute = \"title\", has = \"長\" }, \
            { attribute = \"employees\", from = 100 }], \
            category = [{ name = \"intent\", from = 1 }, { name = \"interest\", to = 9 }] }");
        let filter = filter.unwrap();
        assert_eq!((filter.attributes.len(), filter.categories.len()), (2, 2));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place_and_what_was_meant() {
        for (asked, says) in [
            ("{ grades = \"A\" }", "3:11: unknown word \"grades\"; did you mean \"grade\"?"),
            ("{ grade = \"E\" }", "3:19: \"grade\" cannot be \"E\"; it is \"A\" or"),
            ("{ grade = [] }", "3:19: \"grade\" needs at least one value"),
            ("{ stage = \"hott\" }", "did you mean \"hot\"?"),
            ("{ score = 30 }", "3:19: \"score\" needs a table"),
            ("{ score = {} }", "3:19: it needs \"from\", \"to\" or both"),
            ("{ score = { form = 3 } }", "3:21: unknown word \"form\"; did you mean \"from\"?"),
            ("{ score = { from = 3, to = 2 } }", "\"to\" must not be below \"from\""),
            ("{ score = { from = 0.5 } }", "needs a whole number"),
            (
                "{ category = { name = \"intend\", from = 1 } }",
                "3:31: there is no category \"intend\" in scoring.toml; did you mean \"intent\"?",
            ),
            ("{ category = { name = \"intent\" } }", "it needs \"from\", \"to\" or both"),
            ("{ category = [] }", "\"category\" needs 1 to 16 tests"),
            ("{ last_seen = \"7d\" }", "\"last_seen\" needs a table"),
            ("{ last_seen = { within = 7 } }", "needs a time with its unit"),
            ("{ last_seen = {} }", "\"within\" is missing"),
            ("{ owner = \" \" }", "a name that says nothing"),
            ("{ company = 7 }", "needs a list"),
            (
                "{ attribute = { attribute = \"industri\", is = \"a\" } }",
                "did you mean \"industry\"?",
            ),
            ("{ attribute = { attribute = \"industry\" } }", "a test needs one of"),
            ("{ attribute = [] }", "\"attribute\" needs 1 to 16 tests"),
            (
                "{ attribute = { attribute = \"email_domain\", list = \"fre_mail\" } }",
                "did you mean",
            ),
            ("{}", "3:9: \"where\" asks nothing"),
            ("\"hot\"", "\"where\" needs a table"),
        ] {
            let found = of(asked).unwrap_err();
            assert!(found.iter().any(|line| line.contains(says)), "{asked}: {found:?}");
            assert!(found[0].starts_with("lists.toml:3:"), "{asked}: {found:?}");
        }
    }

    #[test]
    fn a_list_has_a_name_of_its_own() {
        let list = |id: &str| format!("[[list]]\nid = \"{id}\"\nwhere = {{ stage = \"hot\" }}\n");
        let found = lists(&format!("{}{}", list("a"), list("a"))).unwrap_err();
        assert_eq!(found, ["lists.toml:5:6: there is a list \"a\" already"]);
        assert!(lists(&list("a b")).is_err());
        let found = lists("[[list]]\nwhere = { stage = \"hot\" }\n").unwrap_err();
        assert!(found[0].contains("\"id\" is missing"), "{found:?}");
        let found = lists("[[lists]]\nid = \"a\"\n").unwrap_err();
        assert!(found[0].contains("did you mean \"list\"?"), "{found:?}");
        assert_eq!(lists("").unwrap(), NamedLists::default());
        let many: String = (0..=LISTS_MAX).map(|number| list(&format!("l{number}"))).collect();
        assert_eq!(lists(&many).unwrap_err(), ["lists.toml:1:1: at most 200 lists"]);
    }
}
