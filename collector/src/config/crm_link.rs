//! Where a lead is found in a company's own system: an address with its ids in it.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::problem::nearest;
use super::table::{Field, quoted};

/// What may stand in braces: a person's ids in other systems.
const WORDS: [&str; 2] = ["crm", "user"];
/// Longest link, in bytes: chats take no longer ones.
const LINK_BYTES_MAX: usize = 2_048;
/// What needs no percent sign in any part of an address.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrmLink(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Id(&'static str),
}

impl CrmLink {
    /// The link of a person, if they have the ids that it needs.
    pub fn fill<'a>(&self, id: impl Fn(&str) -> Option<&'a str>) -> Option<String> {
        let mut link = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => link.push_str(text),
                Piece::Id(name) => {
                    let id = id(name).filter(|id| !id.is_empty())?;
                    // Writing to a String never fails.
                    let _ = write!(link, "{}", utf8_percent_encode(id, PLAIN));
                }
            }
        }
        (link.len() <= LINK_BYTES_MAX).then_some(link)
    }

    /// Reads a setting.
    pub(super) fn read(field: &Field<'_>) -> Option<CrmLink> {
        match CrmLink::parse(field.set_text()?) {
            Ok(link) => Some(link),
            Err((why, meant)) => {
                field.problem_meant(why, meant);
                None
            }
        }
    }

    /// Reads a text such as `https://crm.example/lead/{crm}`, or says what is wrong and what was
    /// probably meant.
    pub fn parse(text: &str) -> Result<CrmLink, (String, Option<String>)> {
        let wrong = |why: &str| (why.to_owned(), None);
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (before, inner) = rest.split_at(open);
            pieces.push(Piece::Text(before.to_owned()));
            let word = inner.strip_prefix('{').and_then(|it| it.split_once('}'));
            let (word, after) = word.ok_or_else(|| {
                wrong("a brace without its partner; \"{crm}\" stands for the lead's id")
            })?;
            let Some(id) = WORDS.into_iter().find(|known| *known == word) else {
                let near = nearest(word, WORDS);
                let near =
                    near.map(|near| text.replace(&format!("{{{word}}}"), &format!("{{{near}}}")));
                let word = quoted(word);
                return Err((
                    format!("nothing is called {word} here: there is {{crm}} {{user}}"),
                    near,
                ));
            };
            pieces.push(Piece::Id(id));
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        let link = CrmLink(pieces);
        let example = link.fill(|_| Some("1")).and_then(|link| url::Url::parse(&link).ok());
        let is_web = example.is_some_and(|url| {
            matches!(url.scheme(), "http" | "https") && url.username().is_empty()
        });
        let names_somebody = link.0.iter().any(|piece| matches!(piece, Piece::Id(_)));
        // An id within the host would let whoever chooses ids choose where people are led.
        let host = text.split_once("://").and_then(|(_, rest)| rest.split_once('/'));
        let host_is_fixed = host.is_some_and(|(host, _)| !host.contains('{'));
        if is_web && names_somebody && host_is_fixed {
            Ok(link)
        } else {
            Err(wrong("this needs a web address, as in \"https://crm.example.jp/lead/{crm}\""))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stands_in_the_link_as_data_and_without_it_there_is_none() {
        let link = CrmLink::parse("https://crm.example/lead/{crm}?u={user}").unwrap();
        let ids = |name: &str| Some(if name == "crm" { "003-10442" } else { "a b/../&=é" });
        let filled = link.fill(ids).unwrap();
        assert_eq!(filled, "https://crm.example/lead/003-10442?u=a%20b%2F..%2F%26%3D%C3%A9");
        assert_eq!(link.fill(|name| (name == "crm").then_some("1")), None);
        assert_eq!(link.fill(|_| Some("")), None);
        let long = "x".repeat(LINK_BYTES_MAX);
        assert_eq!(link.fill(|_| Some(&long)), None);
    }

    #[test]
    fn what_is_no_link_is_refused_with_what_was_meant() {
        for text in [
            "crm.example/{crm}",
            "ftp://crm.example/{crm}",
            "https://crm.example/lead",
            "https://{crm}.example/",
            "https://crm.example?x={crm}",
            "https://a@crm.example/{crm}",
            "https://crm.example/{crm",
            "https://crm.example/crm}",
        ] {
            assert!(CrmLink::parse(text).is_err(), "{text}");
        }
        let (why, meant) = CrmLink::parse("https://crm.example/{crn}").unwrap_err();
        assert_eq!(why, "nothing is called \"crn\" here: there is {crm} {user}");
        assert_eq!(meant.as_deref(), Some("https://crm.example/{crm}"));
    }
}
