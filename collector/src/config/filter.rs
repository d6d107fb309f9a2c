//! Which messages an endpoint gets, besides their audience, type and threshold: by what they are
//! about.

use std::collections::BTreeSet;

use super::endpoints::ALERT_TYPES;
use super::problem::nearest;
use super::table::{Field, Table};

/// Most words of one filter.
const WORDS_MAX: usize = 1_000;
/// Longest word of a filter, in bytes: an address or the name of a company.
const WORD_BYTES_MAX: usize = 254;
/// The grades there are.
const GRADES: [&str; 5] = ["A", "B", "C", "D", "?"];
/// Whoever has no owner.
pub const NO_OWNER: &str = "none";

/// What an endpoint chooses by. Each that is empty lets everything through; all must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The category of the reason.
    pub categories: BTreeSet<String>,
    /// The fit.
    pub grades: BTreeSet<&'static str>,
    /// Whose lead it is, by address; [`NO_OWNER`] for nobody's.
    pub owners: BTreeSet<String>,
    /// Names and domains of companies.
    pub companies: BTreeSet<String>,
    /// Named lists, of which one must hold the lead.
    pub lists: BTreeSet<String>,
}

/// What a message is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct About<'a> {
    /// Who is told; nothing: all.
    pub audience: Option<&'a str>,
    /// The type.
    pub kind: &'a str,
    /// The threshold it is about, if it is.
    pub threshold: Option<&'a str>,
    /// Whether a test key caused it.
    pub test: bool,
    /// The category of its reason; without one, that with most points.
    pub category: Option<&'a str>,
    /// The fit.
    pub grade: &'a str,
    /// Whose lead it is.
    pub owner: Option<&'a str>,
    /// What the company is called.
    pub company: Option<&'a str>,
    /// What stands behind the `@` of the lead's address.
    pub domain: Option<&'a str>,
}

impl Choice {
    /// Whether everything is let through.
    pub fn is_empty(&self) -> bool {
        *self == Choice::default()
    }

    /// Whether a message is let through. `is_on` says whether its lead is on a named list.
    pub fn takes(&self, about: &About<'_>, is_on: impl Fn(&str) -> bool) -> bool {
        let any = |set: &BTreeSet<String>, word: Option<&str>| {
            set.is_empty() || word.is_some_and(|word| set.contains(&plain(word)))
        };
        any(&self.categories, about.category)
            && (self.grades.is_empty() || self.grades.contains(about.grade))
            && any(&self.owners, Some(about.owner.unwrap_or(NO_OWNER)))
            && self.takes_company(about)
            && (self.lists.is_empty() || self.lists.iter().any(|list| is_on(list)))
    }

    /// A company is known by its name or by its domain, and by what lies below that.
    fn takes_company(&self, about: &About<'_>) -> bool {
        let is_domain = |domain: &str| {
            let below = |known: &String| domain.strip_suffix(known.as_str());
            let mut rests = self.companies.iter().filter_map(below);
            rests.any(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        self.companies.is_empty()
            || about.company.is_some_and(|name| self.companies.contains(&plain(name)))
            || about.domain.is_some_and(|domain| is_domain(&plain(domain)))
    }

    /// Reads the filters of an endpoint. `categories` and `lists`: the names there are, as far as
    /// they are known.
    pub(super) fn read(
        table: &Table<'_>,
        categories: Option<&[String]>,
        lists: Option<&[String]>,
    ) -> Choice {
        let grades = fields(table, "grades");
        Choice {
            categories: known_names(table, "categories", categories, "category", "scoring.toml"),
            grades: grades.iter().filter_map(|field| field.word(&GRADES)).collect(),
            owners: words(table, "owners", |field, word| {
                let fine = word == NO_OWNER || word.split('@').count() == 2;
                if !fine {
                    field.problem("an owner is a mail address, or \"none\" for no owner");
                }
                fine
            }),
            companies: words(table, "companies", |_, _| true),
            lists: known_names(table, "lists", lists, "list", "lists.toml"),
        }
    }
}

/// Words are compared without regard to case and to blanks around them.
fn plain(word: &str) -> String {
    word.trim().to_lowercase()
}

fn fields<'a>(table: &Table<'a>, key: &'static str) -> Vec<Field<'a>> {
    let list = table.get(key).and_then(|field| Some((field, field.one_or_more()?)));
    let Some((field, mut list)) = list else {
        return Vec::new();
    };
    if list.len() > WORDS_MAX {
        field.problem(format!("\"{key}\" has at most {WORDS_MAX} words"));
        list.truncate(WORDS_MAX);
    }
    list
}

fn words(
    table: &Table<'_>,
    key: &'static str,
    check: impl Fn(&Field<'_>, &str) -> bool,
) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for field in fields(table, key) {
        let Some(word) = field.text().map(plain) else {
            continue;
        };
        if word.is_empty() || word.len() > WORD_BYTES_MAX {
            field.problem(format!("a word of \"{key}\" has 1 to {WORD_BYTES_MAX} bytes"));
        } else if check(&field, &word) && !found.insert(word) {
            field.problem("this word stands here twice");
        }
    }
    found
}

fn known_names(
    table: &Table<'_>,
    key: &'static str,
    known: Option<&[String]>,
    what: &str,
    file: &str,
) -> BTreeSet<String> {
    let fields = fields(table, key);
    let name = |field: &Field<'_>| {
        let name = field.name()?;
        let there = known.is_none_or(|known| known.iter().any(|it| it == name));
        if !there {
            let names = known.unwrap_or_default().iter().map(String::as_str);
            let near = nearest(name, names).map(str::to_owned);
            field.problem_meant(format!("there is no {what} \"{name}\" in {file}"), near);
        }
        there.then(|| name.to_owned())
    };
    fields.iter().filter_map(name).collect()
}

/// The types a chat gets unless it says which: what somebody has to do something about.
pub(super) fn chat_types() -> BTreeSet<&'static str> {
    let silent = ["lead.cooled", "account.cooled", "lead.merged", "lead.unmerged", "lead.erased"];
    ALERT_TYPES.into_iter().filter(|kind| !silent.contains(kind)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(words: &[&str]) -> BTreeSet<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn about() -> About<'static> {
        About {
            audience: Some("sales"),
            kind: "lead.hot",
            threshold: Some("hot"),
            test: false,
            category: Some("intent"),
            grade: "B",
            owner: Some("Sato@vendor.example"),
            company: Some("サンプル精機株式会社"),
            domain: Some("mail.Sample-Seiki.example"),
        }
    }

    fn nobody() -> About<'static> {
        About { category: None, grade: "?", owner: None, company: None, domain: None, ..about() }
    }

    #[test]
    fn every_filter_lets_through_what_it_names_and_nothing_else() {
        let none = Choice::default;
        for (choice, takes, takes_nobody) in [
            (none(), true, true),
            (Choice { categories: set(&["intent", "interest"]), ..none() }, true, false),
            (Choice { categories: set(&["interest"]), ..none() }, false, false),
            (Choice { grades: BTreeSet::from(["A", "B"]), ..none() }, true, false),
            (Choice { grades: BTreeSet::from(["?"]), ..none() }, false, true),
            (Choice { owners: set(&["sato@vendor.example"]), ..none() }, true, false),
            (Choice { owners: set(&["none"]), ..none() }, false, true),
            (Choice { owners: set(&["mori@vendor.example", "none"]), ..none() }, false, true),
            (Choice { companies: set(&["サンプル精機株式会社"]), ..none() }, true, false),
            (Choice { companies: set(&["sample-seiki.example"]), ..none() }, true, false),
            (Choice { companies: set(&["mail.sample-seiki.example"]), ..none() }, true, false),
            (Choice { companies: set(&["seiki.example", "other"]), ..none() }, false, false),
            (Choice { lists: set(&["manufacturing"]), ..none() }, true, true),
            (Choice { lists: set(&["other"]), ..none() }, false, false),
            (
                Choice { grades: BTreeSet::from(["B"]), categories: set(&["interest"]), ..none() },
                false,
                false,
            ),
        ] {
            let is_on = |list: &str| list == "manufacturing";
            assert_eq!(choice.takes(&about(), is_on), takes, "{choice:?}");
            assert_eq!(choice.takes(&nobody(), is_on), takes_nobody, "{choice:?}");
        }
    }

    #[test]
    fn a_chat_is_told_what_somebody_has_to_do_something_about() {
        let types = chat_types();
        for (kind, told) in [
            ("lead.hot", true),
            ("lead.action", true),
            ("lead.escalated", true),
            ("lead.signal", true),
            ("lead.reminder", true),
            ("alert.retracted", true),
            ("account.hot", true),
            ("lead.cooled", false),
            ("account.cooled", false),
            ("lead.merged", false),
            ("lead.unmerged", false),
            ("lead.erased", false),
        ] {
            assert_eq!(types.contains(kind), told, "{kind}");
        }
    }
}
