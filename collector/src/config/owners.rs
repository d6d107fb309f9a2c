//! owners.toml: the people of sales, so that a message reaches the one who owns a lead by name.

use std::collections::BTreeMap;

use engine::time::UtcOffset;

use super::chat::Quiet;
use super::problem::{Problem, Problems};
use super::table::{Field, Source, Table};

/// Most people in the file.
const OWNERS_MAX: usize = 10_000;
/// Longest name of a person, in bytes.
const NAME_BYTES_MAX: usize = 100;
/// Longest mail address, in bytes.
const MAIL_BYTES_MAX: usize = 254;
/// Longest id that a chat knows somebody by, in bytes.
const CHAT_ID_BYTES_MAX: usize = 32;

/// Somebody of sales.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The address that leads and answers name them by.
    pub mail: String,
    /// What they are called in Japanese messages, without さん.
    pub name_ja: String,
    /// What they are called in English messages.
    pub name_en: String,
    /// Their id in Slack.
    pub slack: Option<String>,
    /// Their account id in Chatwork.
    pub chatwork: Option<String>,
    /// Where their clock stands, if not where the rules' one does.
    pub utc_offset: Option<UtcOffset>,
    /// When they rest, if not when those of a room do.
    pub quiet: Option<Quiet>,
}

/// Everybody in the file, by address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners(BTreeMap<String, Owner>);

impl Owners {
    /// Who owns what is said to be theirs. Case and blanks around an address say nothing.
    pub fn find(&self, mail: &str) -> Option<&Owner> {
        self.0.get(&known_by(mail))
    }

    /// Everybody, by address.
    pub fn all(&self) -> impl Iterator<Item = &Owner> {
        self.0.values()
    }

    /// Of people given.
    pub fn of(owners: impl IntoIterator<Item = Owner>) -> Owners {
        Owners(owners.into_iter().map(|owner| (known_by(&owner.mail), owner)).collect())
    }
}

fn known_by(mail: &str) -> String {
    mail.trim().to_lowercase()
}

/// Reads the file.
pub(super) fn parse(file: &str, text: &str) -> Result<Owners, Vec<Problem>> {
    let problems = Problems::default();
    let source = Source::new(file, text, &problems);
    let owners = source.parse().and_then(|entries| {
        let root = Table::root(source, &entries);
        let list = match root.get("owner") {
            Some(field) => field.list()?,
            None => Vec::new(),
        };
        root.finish();
        if list.len() > OWNERS_MAX {
            source.report(0, format!("at most {OWNERS_MAX} owners"), None);
        }
        let mut owners = BTreeMap::new();
        for table in list.iter().take(OWNERS_MAX).filter_map(Field::table) {
            read_owner(table, &mut owners);
        }
        Some(Owners(owners))
    });
    problems.judge(owners)
}

fn read_owner(table: Table<'_>, owners: &mut BTreeMap<String, Owner>) {
    let address = table.need("mail");
    let mail = address.and_then(|field| mail(&field));
    let name = table.need("name").and_then(|field| person(&field));
    let name_en = table.get("name_en").map(|field| person(&field));
    let slack = table.get("slack").and_then(|field| {
        let upper = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
        chat_id(&field, upper, "a Slack member id, as in \"U024BE7LH\"")
    });
    let chatwork = table.get("chatwork").and_then(|field| {
        chat_id(&field, |byte| byte.is_ascii_digit(), "a Chatwork account id, as in \"1234567\"")
    });
    let utc_offset = table.get("utc_offset").and_then(|field| utc_offset(&field));
    let quiet = table.get("quiet").and_then(|field| Quiet::read(&field));
    table.finish();
    let (Some(mail), Some(name_ja), Some(field)) = (mail, name, address) else {
        return;
    };
    let name_en = name_en.flatten().unwrap_or_else(|| name_ja.clone());
    let owner = Owner { mail, name_ja, name_en, slack, chatwork, utc_offset, quiet };
    if owners.insert(known_by(&owner.mail), owner).is_some() {
        field.problem("this owner stands here already");
    }
}

fn mail(field: &Field<'_>) -> Option<String> {
    let text = field.text()?.trim();
    let parts = text.rsplit_once('@').filter(|(name, domain)| {
        !name.is_empty() && !domain.is_empty() && !text.contains(char::is_whitespace)
    });
    if parts.is_none() || text.len() > MAIL_BYTES_MAX {
        field.problem("\"mail\" needs a mail address, as in \"sato@example.jp\"");
        return None;
    }
    Some(text.to_owned())
}

fn person(field: &Field<'_>) -> Option<String> {
    let text = field.text()?.trim();
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        field.problem(format!("\"{}\" needs 1 to {NAME_BYTES_MAX} bytes", field.name));
        return None;
    }
    Some(text.to_owned())
}

/// An id stands in the markup of a message, so it holds nothing that could be markup.
fn chat_id(field: &Field<'_>, fine: impl Fn(u8) -> bool, what: &str) -> Option<String> {
    let text = field.text()?;
    let good = (1..=CHAT_ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(fine);
    if !good {
        field.problem(format!("\"{}\" needs {what}", field.name));
        return None;
    }
    Some(text.to_owned())
}

fn utc_offset(field: &Field<'_>) -> Option<UtcOffset> {
    let offset = UtcOffset::parse(field.text()?);
    if offset.is_none() {
        field.problem("\"utc_offset\" needs a distance from UTC, as in \"+09:00\"");
    }
    offset
}

#[cfg(test)]
mod tests {
    use super::super::DEFAULT_OWNERS;
    use super::*;

    fn read(text: &str) -> Result<Owners, Vec<String>> {
        let shown = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect();
        parse("owners.toml", text).map_err(shown)
    }

    #[test]
    fn an_owner_is_found_by_the_address_whatever_its_case() {
        let owners = read(
            "[[owner]]\nmail = \"Sato@vendor.example\"\nname = \"佐藤\"\nname_en = \"Sato\"\n\
             slack = \"U0SATO\"\nchatwork = \"1234567\"\nutc_offset = \"+01:00\"\n\
             [[owner]]\nmail = \"mori@vendor.example\"\nname = \"森\"\n",
        )
        .unwrap();
        let sato = owners.find(" sato@VENDOR.example ").unwrap();
        assert_eq!((sato.name_ja.as_str(), sato.name_en.as_str()), ("佐藤", "Sato"));
        assert_eq!(
            (sato.slack.as_deref(), sato.chatwork.as_deref()),
            (Some("U0SATO"), Some("1234567"))
        );
        assert_eq!(sato.utc_offset, UtcOffset::parse("+01:00"));
        assert_eq!(owners.find("mori@vendor.example").unwrap().name_en, "森");
        assert_eq!(owners.find("nobody@vendor.example"), None);
        assert_eq!(owners.all().count(), 2);
    }

    #[test]
    fn mistakes_are_found_with_their_place() {
        let head = "[[owner]]\nmail = \"a@b.example\"\nname = \"森\"\n";
        for (more, problem) in [
            ("slak = \"U1\"", "owners.toml:4:1: unknown word \"slak\"; did you mean \"slack\"?"),
            (
                "slack = \"<@U1>\"",
                "owners.toml:4:9: \"slack\" needs a Slack member id, as in \"U024BE7LH\"",
            ),
            (
                "chatwork = \"[To:1]\"",
                "owners.toml:4:12: \"chatwork\" needs a Chatwork account id, as in \"1234567\"",
            ),
            ("chatwork = 1234567", "owners.toml:4:12: \"chatwork\" needs text in quotes"),
            (
                "utc_offset = \"JST\"",
                "owners.toml:4:14: \"utc_offset\" needs a distance from UTC, as in \"+09:00\"",
            ),
            (
                "quiet = { from = \"9:00\", to = \"08:00\" }",
                "owners.toml:4:18: a time of day is written as \"09:00\"; did you mean \"09:00\"?",
            ),
            ("name_en = \"\"", "owners.toml:4:11: \"name_en\" needs 1 to 100 bytes"),
            (
                "[[owner]]\nmail = \"A@b.example\"\nname = \"他\"",
                "owners.toml:5:8: this owner stands here already",
            ),
            ("[[owner]]\nmail = \"a@b\"", "owners.toml:4:1: \"name\" is missing"),
        ] {
            assert_eq!(read(&format!("{head}{more}")), Err(vec![problem.to_owned()]), "{more}");
        }
        let bad = read("[[owner]]\nmail = \"sato\"\nname = \"佐藤\"").unwrap_err();
        assert_eq!(
            bad,
            ["owners.toml:2:8: \"mail\" needs a mail address, as in \"sato@example.jp\""]
        );
    }

    #[test]
    fn the_file_that_ships_names_nobody_and_its_example_is_right() {
        assert_eq!(read(DEFAULT_OWNERS).unwrap(), Owners::default());
        let lines = DEFAULT_OWNERS.lines().skip_while(|line| *line != "# [[owner]]");
        let example: Vec<&str> = lines.filter_map(|line| line.strip_prefix("# ")).collect();
        let owners = read(&example.join("\n")).unwrap();
        assert_eq!(owners.find("sato@vendor.example").unwrap().name_ja, "佐藤");
    }
}
