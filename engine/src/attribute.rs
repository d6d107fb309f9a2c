//! What is known of a person, by name, and tests of it: what grades and `only` are made of.

use std::collections::BTreeMap;

use unicode_normalization::UnicodeNormalization;

/// What is known of a person, by name. Plain in memory, sealed in the journal.
pub type Attributes = BTreeMap<String, String>;

/// Most attributes of one lead. Further names are ignored and counted.
pub const ATTRIBUTES_MAX: usize = 64;
/// The attribute that is worked out from the address: what stands behind its `@`.
pub const EMAIL_DOMAIN: &str = "email_domain";

/// Of whom an attribute is. What is said of a narrower circle goes before what is said of a
/// wider one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// The whole company: industry, employees, credit.
    Company,
    /// A department, branch or works of it.
    Organisation,
    /// The person.
    #[default]
    Person,
}

impl Level {
    /// All levels, the widest circle first.
    pub const ALL: [Level; 3] = [Level::Company, Level::Organisation, Level::Person];

    /// The name in requests and answers.
    pub fn name(self) -> &'static str {
        match self {
            Level::Company => "company",
            Level::Organisation => "organisation",
            Level::Person => "person",
        }
    }

    /// Reads the name.
    pub fn parse(name: &str) -> Option<Level> {
        Level::ALL.into_iter().find(|level| level.name() == name)
    }
}

/// The value of an attribute, if it has one that says something.
pub fn value_of<'a>(attributes: &'a Attributes, name: &str) -> Option<&'a str> {
    let said = attributes.get(name).map(String::as_str);
    let said = said.or_else(|| {
        let address = attributes.get("email").filter(|_| name == EMAIL_DOMAIN)?;
        address.rsplit_once('@').map(|(_, domain)| domain)
    });
    said.filter(|value| !value.trim().is_empty())
}

/// An attribute, and what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributeTest {
    /// What is looked at.
    pub attribute: String,
    /// What it must be.
    pub test: Test,
}

/// What a value must be. Texts are compared without regard to case and width.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// One of these is in it.
    Has(Vec<String>),
    /// It is one of these.
    Is(Vec<String>),
    /// It ends in one of these.
    Ends(Vec<String>),
    /// It is a number from here to there, both included.
    Between(Option<i64>, Option<i64>),
}

impl AttributeTest {
    /// Of texts in the form in which they are compared.
    pub fn new(attribute: String, test: Test) -> AttributeTest {
        let folded = |list: Vec<String>| list.iter().map(|text| folded(text)).collect();
        let test = match test {
            Test::Has(list) => Test::Has(folded(list)),
            Test::Is(list) => Test::Is(folded(list)),
            Test::Ends(list) => Test::Ends(folded(list)),
            between @ Test::Between(..) => between,
        };
        AttributeTest { attribute, test }
    }

    /// Whether the attribute has a value and passes.
    pub fn holds(&self, attributes: &Attributes) -> bool {
        value_of(attributes, &self.attribute).is_some_and(|value| self.test.holds(value))
    }
}

impl Test {
    fn holds(&self, value: &str) -> bool {
        match self {
            Test::Has(list) => {
                let value = folded(value);
                list.iter().any(|part| value.contains(part.as_str()))
            }
            Test::Is(list) => {
                let value = folded(value);
                list.contains(&value)
            }
            Test::Ends(list) => {
                let value = folded(value);
                list.iter().any(|end| value.ends_with(end.as_str()))
            }
            Test::Between(from, to) => number(value).is_some_and(|number| {
                from.is_none_or(|from| from <= number) && to.is_none_or(|to| number <= to)
            }),
        }
    }
}

/// A text as it is compared: full-width letters plain, small, without blanks around it.
pub fn folded(text: &str) -> String {
    text.trim().nfkc().flat_map(char::to_lowercase).collect()
}

/// The whole number a value begins with, as people write it: `300`, `1,200`, `３００名`.
fn number(value: &str) -> Option<i64> {
    let plain: String = value.trim().nfkc().filter(|letter| *letter != ',').collect();
    let end = plain.find(|letter: char| !letter.is_ascii_digit() && letter != '-');
    plain[..end.unwrap_or(plain.len())].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(test: Test, value: &str) -> bool {
        let attributes = [("x".to_owned(), value.to_owned())].into();
        AttributeTest::new("x".into(), test).holds(&attributes)
    }

    fn list(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn texts_are_compared_as_people_read_them() {
        assert!(holds(Test::Has(list(&["部長", "CEO"])), "営業部長"));
        assert!(holds(Test::Has(list(&["CEO"])), "ｃｅｏ and founder"));
        assert!(holds(Test::Is(list(&["it", "manufacturing"])), " IT "));
        assert!(!holds(Test::Is(list(&["it"])), "fruit"));
        assert!(holds(Test::Ends(list(&[".ac.jp"])), "u-tokyo.AC.jp"));
    }

    #[test]
    fn numbers_are_read_as_people_write_them() {
        let middle = || Test::Between(Some(100), Some(5_000));
        for value in ["100", "5000", "1,200", "３００名", " 300 people"] {
            assert!(holds(middle(), value), "{value}");
        }
        for value in ["99", "5001", "", "many", "-300", "about 300"] {
            assert!(!holds(middle(), value), "{value}");
        }
        assert!(holds(Test::Between(None, Some(0)), "-5"));
    }

    #[test]
    fn the_domain_is_what_stands_behind_the_address() {
        let attributes: Attributes = [("email".to_owned(), "a@x.example".to_owned())].into();
        assert_eq!(value_of(&attributes, EMAIL_DOMAIN), Some("x.example"));
        assert_eq!(value_of(&attributes, "title"), None);
        assert_eq!(value_of(&[("title".into(), "  ".into())].into(), "title"), None);
    }
}
