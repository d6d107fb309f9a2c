//! What was read lately: of pages, of where browsers came from, and of what they call themselves.
//! Most hits are on pages, and from browsers, that others have just been on.
//!
//! An address that may name somebody is read, and not remembered: one with anything beyond its
//! path, but for a query of which the site keeps every name, in clear, with every hit.

use std::sync::Arc;

use engine::memo::Memo;

use crate::config::Privacy;
use crate::link::QUERY_NAME;
use crate::privacy::{Page, ROBOTS, Referrer, Robots, agent_class};

/// Addresses remembered, of pages and of where browsers came from.
const ADDRESSES: usize = 4_096;
/// User agents remembered.
const AGENTS: usize = 1_024;

/// What a user agent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Its class, as in `chrome windows`.
    pub class: String,
    /// Whether it is a robot's.
    pub robot: bool,
}

/// See the module's head.
#[derive(Debug)]
pub struct Lately {
    pages: Memo<Option<Page>>,
    referrers: Memo<Referrer>,
    agents: Memo<Agent>,
    robots: Robots,
}

impl Default for Lately {
    fn default() -> Lately {
        Lately {
            pages: Memo::new(ADDRESSES),
            referrers: Memo::new(ADDRESSES),
            agents: Memo::new(AGENTS),
            robots: Robots::new(ROBOTS),
        }
    }
}

impl Lately {
    /// The page of an address; nothing if it is none of a web page.
    pub fn page(&self, address: &str, privacy: &Privacy) -> Arc<Option<Page>> {
        let may = |address: &str| names_nobody(address, privacy);
        self.pages.of_some(address, may, |address| Page::parse(address, privacy))
    }

    /// Where a browser came from.
    pub fn referrer(&self, address: &str) -> Arc<Referrer> {
        self.referrers.of_some(address, is_plain, Referrer::parse)
    }

    /// What a user agent says.
    pub fn agent(&self, text: &str) -> Arc<Agent> {
        self.agents
            .of(text, |text| Agent { class: agent_class(text), robot: self.robots.knows(text) })
    }
}

/// Whether an address is a plain one, with or without a query that the site keeps whole.
fn names_nobody(address: &str, privacy: &Privacy) -> bool {
    let (path, query) = address.split_once('?').unwrap_or((address, ""));
    let kept = |pair: &str| {
        let name = pair.split('=').next().unwrap_or_default();
        name != QUERY_NAME && !name.contains('+') && privacy.keeps_query(name)
    };
    is_plain(path) && is_plain(query) && (query.is_empty() || query.split('&').all(kept))
}

/// Whether an address is scheme, host and path alone, and the path has nothing of a mail address.
fn is_plain(address: &str) -> bool {
    !address.bytes().any(|byte| matches!(byte, b'?' | b'#' | b'@' | b'%'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn privacy() -> Privacy {
        Privacy {
            address_ipv4_bits: 24,
            address_ipv6_bits: 48,
            query_names: vec!["utm_*".into()],
            honour_gpc: true,
        }
    }

    #[test]
    fn what_is_remembered_is_what_was_read() {
        let lately = Lately::default();
        for _ in 0..2 {
            for address in ["https://a.example/pricing/", "https://a.example", "/pricing", ""] {
                let page = lately.page(address, &privacy());
                assert_eq!(*page, Page::parse(address, &privacy()), "{address}");
                assert_eq!(*lately.referrer(address), Referrer::parse(address), "{address}");
            }
            let agent = lately.agent("curl/8.5.0");
            assert_eq!((agent.class.as_str(), agent.robot), ("curl", true));
        }
    }

    #[test]
    fn an_address_that_may_name_somebody_is_not_remembered() {
        let lately = Lately::default();
        let twice = |address: &str| {
            let first = lately.page(address, &privacy());
            Arc::ptr_eq(&first, &lately.page(address, &privacy()))
        };
        assert!(twice("https://a.example/pricing"));
        assert!(twice("https://a.example/pricing?utm_source=x&utm_medium=y"));
        for address in [
            "https://a.example/pricing?utm_source=x&user=tanaka",
            "https://a.example/pricing?utm_source=tanaka@b.example",
            "https://a.example/pricing?utm_source=x&m%6b=token",
            "https://a.example/?mk=token",
            "https://a.example/u/tanaka@b.example",
            "https://a.example/u/tanaka%40b.example",
            "https://tanaka:secret@a.example/",
            "https://a.example/#tanaka",
        ] {
            assert!(!twice(address), "{address}");
        }
    }

    #[test]
    fn the_token_of_a_link_is_not_remembered_where_every_name_is_kept() {
        let (lately, privacy) =
            (Lately::default(), Privacy { query_names: vec!["*".into()], ..privacy() });
        let read = || lately.page("https://a.example/?mk=token", &privacy);
        assert!(!Arc::ptr_eq(&read(), &read()));
    }
}
