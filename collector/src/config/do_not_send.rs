//! lists/do_not_send.txt: mail addresses and domains, one a line, of people to whom nobody is to
//! write in bulk. Nothing in it is repeated in a message about a mistake: it is personal.

use std::collections::BTreeSet;

use engine::identity::{Identity, IdentityKind};

use super::problem::{Problem, Problems};
use super::table::Source;

/// Longest file, in bytes.
pub(super) const BYTES_MAX: u64 = 4 << 20;
/// Most lines.
const LINES_MAX: usize = 200_000;

/// Addresses and domains, in their normal form.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct DoNotSend {
    mails: BTreeSet<String>,
    domains: BTreeSet<String>,
}

// By hand: it is a list of people.
impl std::fmt::Debug for DoNotSend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (mails, domains) = (self.mails.len(), self.domains.len());
        write!(f, "DoNotSend({mails} addresses, {domains} domains)")
    }
}

impl DoNotSend {
    /// Whether an address in its normal form is on the list: itself, its domain, or a domain
    /// above that.
    pub fn holds(&self, mail: &str) -> bool {
        if self.mails.contains(mail) {
            return true;
        }
        let Some((_, mut domain)) = mail.rsplit_once('@').filter(|_| !self.domains.is_empty())
        else {
            return false;
        };
        loop {
            if self.domains.contains(domain) {
                return true;
            }
            match domain.split_once('.') {
                Some((_, above)) => domain = above,
                None => return false,
            }
        }
    }
}

/// Reads the file.
pub(super) fn parse(file: &str, text: &str) -> Result<DoNotSend, Vec<Problem>> {
    let problems = Problems::default();
    let source = Source::new(file, text, &problems);
    let mut list = DoNotSend::default();
    let mut begins = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if number == LINES_MAX {
            source.report(begins, format!("at most {LINES_MAX} lines"), None);
            break;
        }
        let word = line.split(" #").next().unwrap_or_default();
        let word = word.trim_matches(|letter: char| letter.is_whitespace() || letter == '\u{feff}');
        if !word.is_empty() && !word.starts_with('#') && !list.take(word) {
            let at = begins + line.find(word).unwrap_or_default();
            source.report(at, "neither a mail address nor a domain".to_owned(), None);
        }
        begins += line.len();
    }
    problems.judge(Some(list))
}

impl DoNotSend {
    /// Takes a line; whether it says something.
    fn take(&mut self, word: &str) -> bool {
        let address = |text: &str| Identity::parse(IdentityKind::Email, text).ok();
        let domain = word.strip_prefix('@').unwrap_or(word);
        if domain.contains(['@', '＠']) {
            let mail = address(word);
            self.mails.extend(mail.iter().map(|mail| mail.value().to_owned()));
            return mail.is_some();
        }
        let mail = address(&format!("somebody@{domain}"));
        let domain = mail.as_ref().and_then(|mail| mail.value().rsplit_once('@'));
        self.domains.extend(domain.map(|(_, domain)| domain.to_owned()));
        mail.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "lists/do_not_send.txt";

    fn says(text: &str) -> Vec<String> {
        let problems = parse(FILE, text).unwrap_err();
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_and_domains_are_known_however_they_are_written() {
        let text = "\u{feff}# nobody writes to these\n Tanaka@Sample.example \n\n@rival.example\n\
                    日本語.example # all of them\nＳＵＺＵＫＩ＠other.example\r\n";
        let list = parse(FILE, text).unwrap();
        for held in [
            "tanaka@sample.example",
            "a@rival.example",
            "a@mail.rival.example",
            "a@xn--wgv71a119e.example",
            "suzuki@other.example",
        ] {
            assert!(list.holds(held), "{held}");
        }
        for free in ["a@sample.example", "a@notrival.example", "a@other.example", "a", ""] {
            assert!(!list.holds(free), "{free}");
        }
        assert_eq!(format!("{list:?}"), "DoNotSend(2 addresses, 2 domains)");
        assert_eq!(parse(FILE, "").unwrap(), DoNotSend::default());
    }

    #[test]
    fn a_line_that_is_neither_is_named_by_its_place_and_not_repeated() {
        let problems = says("a@b.example\n  tanaka@\nlocalhost\na b@c.example\n");
        let at = |place: &str| format!("{FILE}:{place}: neither a mail address nor a domain");
        assert_eq!(problems, [at("2:3"), at("3:1"), at("4:1")]);
    }

    #[test]
    fn a_file_without_end_is_refused() {
        let many = "a@b.example\n".repeat(LINES_MAX);
        assert!(parse(FILE, &many).is_ok());
        assert_eq!(says(&format!("{many}c@d.example\n")).len(), 1);
    }
}
