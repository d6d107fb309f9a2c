//! What is never kept, and who is nobody: addresses without their query, networks instead of
//! addresses, robots, and browsers that say they want no tracking.

use aho_corasick::AhoCorasick;
use engine::glob::normal_path;
use engine::hit::TEXT_BYTES_MAX;
use hyper::header::HeaderName;
use percent_encoding::percent_decode_str;
use url::Url;

use crate::config::Privacy;
use crate::ingest::raw::cut;
use crate::link::QUERY_NAME;

/// Words that known robots have in their user agent, one a line, in lower case.
pub const ROBOTS: &str = include_str!("../../config/lists/robots.txt");

/// A page's address, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The path as rules see it: decoded, without query, without one trailing slash, without mail
    /// addresses.
    pub path: String,
    /// The address without what the site does not allow of its query, and without mail addresses.
    pub url: String,
    /// The host.
    pub host: String,
    /// Source and medium, if the address names them.
    pub campaign: Option<String>,
    /// The token of a link that we signed, if the address carries one. Never kept.
    pub token: Option<String>,
}

impl Page {
    /// Reads an address; nothing if it is none of a web page.
    pub fn parse(text: &str, privacy: &Privacy) -> Option<Page> {
        if text.len() > 8 * TEXT_BYTES_MAX {
            return None;
        }
        let mut url = Url::parse(text).ok()?;
        if !matches!(url.scheme(), "http" | "https") {
            return None;
        }
        let host = url.host_str()?.to_owned();
        let Query { source, medium, token, kept } = Query::read(&url, privacy);
        let medium = medium.as_deref().unwrap_or("campaign");
        let campaign = source.map(|source| format!("{source} / {medium}"));
        url.set_query(None);
        url.set_fragment(None);
        // Credentials in an address are nobody's business; both calls succeed for http.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        if !kept.is_empty() {
            url.query_pairs_mut().extend_pairs(kept);
        }
        let path = percent_decode_str(url.path()).decode_utf8_lossy();
        Some(Page {
            path: without_addresses(&cut(normal_path(&path), TEXT_BYTES_MAX)),
            url: without_addresses(&cut(url.as_str(), TEXT_BYTES_MAX)),
            host,
            campaign,
            token,
        })
    }
}

/// What an address's query says. Of a source, medium or token said twice the first counts.
#[derive(Default)]
struct Query {
    source: Option<String>,
    medium: Option<String>,
    token: Option<String>,
    /// Names and values that the site keeps.
    kept: Vec<(String, String)>,
}

impl Query {
    fn read(url: &Url, privacy: &Privacy) -> Query {
        const CAMPAIGN_BYTES_MAX: usize = 100;
        let mut query = Query::default();
        for (name, value) in url.query_pairs() {
            if name == QUERY_NAME {
                query.token.get_or_insert_with(|| value.into_owned());
                continue;
            }
            let campaign = match &*name {
                "utm_source" => Some(&mut query.source),
                "utm_medium" => Some(&mut query.medium),
                _ => None,
            };
            if let Some(said) = campaign.filter(|_| !value.is_empty()) {
                said.get_or_insert_with(|| cut(&value, CAMPAIGN_BYTES_MAX));
            }
            if privacy.keeps_query(&name) {
                query.kept.push((name.into_owned(), value.into_owned()));
            }
        }
        query
    }
}

/// Where a browser came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Referrer {
    /// Host and path, without mail addresses; nothing of what is no web page.
    pub shown: String,
    host: String,
    /// Source and medium of a visit that came from there.
    campaign: String,
}

impl Referrer {
    /// Reads an address.
    pub fn parse(address: &str) -> Referrer {
        const SEARCH: [&str; 6] = ["google", "bing", "yahoo", "duckduckgo", "baidu", "ecosia"];
        let parsed =
            Url::parse(address).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let Some((url, host)) = parsed.as_ref().and_then(|url| Some((url, url.host_str()?))) else {
            return Referrer::default();
        };
        let bare = host.strip_prefix("www.").unwrap_or(host);
        let campaign = match bare.split('.').find(|label| SEARCH.contains(label)) {
            Some(engine) => format!("{engine} / organic"),
            None => format!("{bare} / referral"),
        };
        let shown = cut(&format!("{host}{}", url.path()), TEXT_BYTES_MAX);
        Referrer { shown: without_addresses(&shown), host: host.to_owned(), campaign }
    }

    /// Source and medium of a visit to a page that came from here: what the page's address says, or
    /// whoever sent the browser from outside.
    pub fn campaign<'a>(&'a self, page: &'a Page) -> &'a str {
        match &page.campaign {
            Some(campaign) => campaign,
            None if self.host == page.host => "",
            None => &self.campaign,
        }
    }
}

/// Tells robots by their user agent.
#[derive(Debug)]
pub struct Robots(AhoCorasick);

impl Robots {
    /// From a list of words, one a line; `#` begins a comment.
    pub fn new(list: &str) -> Robots {
        let lines = list.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        let words = lines.filter(|word| !word.is_empty());
        let automaton = AhoCorasick::builder().ascii_case_insensitive(true).build(words);
        Robots(automaton.expect("a list of words within the limits of a file compiles"))
    }

    /// Whether a user agent is a robot's. A browser always has one.
    pub fn knows(&self, agent: &str) -> bool {
        agent.trim().is_empty() || self.0.is_match(agent)
    }
}

/// What tells a browser in a user agent, and its name. The journal has a byte for a class that is
/// made of these names and of those of `SYSTEMS` (FORMAT.md 2.2).
const BROWSERS: [(&str, &str); 13] = [
    ("edg", "edge"),
    ("opr/", "opera"),
    ("opera", "opera"),
    ("yabrowser", "yandex"),
    ("vivaldi", "vivaldi"),
    ("samsungbrowser", "samsung"),
    ("fxios", "firefox"),
    ("firefox", "firefox"),
    ("crios", "chrome"),
    ("headlesschrome", "headless chrome"),
    ("chrome", "chrome"),
    ("safari", "safari"),
    ("trident", "internet explorer"),
];
/// The same of systems.
const SYSTEMS: [(&str, &str); 7] = [
    ("windows", "windows"),
    ("iphone", "iphone"),
    ("ipad", "ipad"),
    ("android", "android"),
    ("mac os", "mac"),
    ("cros", "chromeos"),
    ("linux", "linux"),
];

/// A user agent reduced to its class, as in `chrome windows`: no version, no device. Of what is
/// no browser, the name it gives itself.
pub fn agent_class(agent: &str) -> String {
    const NAME_CHARS_MAX: usize = 32;
    let lower = agent.to_ascii_lowercase();
    let find = |known: &[(&str, &'static str)]| {
        known.iter().find(|(mark, _)| lower.contains(mark)).map(|(_, name)| *name)
    };
    if let Some(browser) = find(&BROWSERS).filter(|_| lower.starts_with("mozilla/")) {
        let system = find(&SYSTEMS).map(|system| format!(" {system}")).unwrap_or_default();
        return format!("{browser}{system}");
    }
    let own = lower.split_once("compatible; ").map_or(lower.as_str(), |(_, rest)| rest);
    let name = own.split(['/', ';', ' ', '(']).next();
    let name = name.unwrap_or_default().chars().filter(char::is_ascii_graphic);
    name.take(NAME_CHARS_MAX).collect()
}

/// Whether the browser says, by this header, that it fetched this ahead of anybody seeing it. A
/// page that is prerendered says so too, but the script waits until it is shown, and what it sends
/// then counts.
pub fn is_prefetch(header: &HeaderName, value: &[u8]) -> bool {
    let wanted: &[&[u8]] = match header.as_str() {
        "sec-purpose" => &[b"prefetch", b"prefetch;anonymous-client-ip"],
        "purpose" | "x-moz" => &[b"prefetch"],
        "x-purpose" => &[b"preview", b"instant"],
        _ => return false,
    };
    wanted.contains(&value.trim_ascii())
}

/// Whether the browser says, by this header, that it wants no tracking.
pub fn wants_no_tracking(header: &HeaderName, value: &[u8]) -> bool {
    header.as_str() == "sec-gpc" && value == b"1"
}

/// A text without mail addresses: titles, paths and properties are kept in clear, and a hit names
/// nobody but by what it says of who somebody is.
pub fn without_addresses(text: &str) -> String {
    const LEFT_OUT: &str = "(address)";
    if !text.bytes().any(|byte| matches!(byte, b'@' | b'%')) {
        return text.to_owned();
    }
    let (mut kept, mut rest) = (String::with_capacity(text.len()), text);
    let marked = |text: &str| match (text.find('@'), text.find("%40")) {
        (Some(at), Some(coded)) if coded < at => Some((coded, 3)),
        (Some(at), _) => Some((at, 1)),
        (None, coded) => coded.map(|coded| (coded, 3)),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || "._%+-".contains(c);
    let is_host = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
    while let Some((at, length)) = marked(rest) {
        let name = rest[..at].trim_end_matches(is_name).len();
        let after = &rest[at + length..];
        let end = at + length + after.len() - after.trim_start_matches(is_host).len();
        if name < at && is_domain(&rest[at + length..end]) {
            kept += &rest[..name];
            kept += LEFT_OUT;
        } else {
            kept += &rest[..end];
        }
        rest = &rest[end..];
    }
    kept + rest
}

/// Whether mail could go there: numbers behind the last dot are a version's, as in `name@1.2.3`.
fn is_domain(text: &str) -> bool {
    let last = text.trim_end_matches('.').rsplit_once('.').map_or("", |(_, last)| last);
    last.len() >= 2 && last.contains(|letter: char| letter.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use engine::hit::Hit;
    use engine::record::{Body, HitRecord, Record};
    use engine::time::Timestamp;

    use super::*;

    fn privacy() -> Privacy {
        Privacy {
            address_ipv4_bits: 24,
            address_ipv6_bits: 48,
            query_names: vec!["utm_*".into()],
            honour_gpc: true,
        }
    }

    fn page(url: &str) -> Page {
        Page::parse(url, &privacy()).unwrap()
    }

    #[test]
    fn a_mail_address_in_a_text_is_left_out_and_nothing_else() {
        for (text, kept) in [
            ("お問い合わせ", "お問い合わせ"),
            ("田中tanaka.m+x@sample.example様", "田中(address)様"),
            ("/u/tanaka%40sample.example/edit", "/u/(address)/edit"),
            ("a@b.jp, c@d.co.jp", "(address), (address)"),
            ("@home and me@work", "@home and me@work"),
            ("price @ 100.5", "price @ 100.5"),
            ("x@y.", "x@y."),
            ("/npm/jquery@3.7.1/jquery.js", "/npm/jquery@3.7.1/jquery.js"),
        ] {
            assert_eq!(without_addresses(text), kept);
        }
    }

    #[test]
    fn only_allowed_names_of_a_query_are_kept() {
        let found = page(
            "https://u:p@www.vendor.example/Pricing/?email=a%40b.example\
             &utm_source=google&utm_medium=cpc#x",
        );
        assert_eq!(found.path, "/Pricing");
        assert_eq!(
            found.url,
            "https://www.vendor.example/Pricing/?utm_source=google&utm_medium=cpc"
        );
        assert_eq!(found.campaign.as_deref(), Some("google / cpc"));
        assert_eq!(page("https://a.example").path, "");
        assert_eq!(page("https://a.example/%E6%96%99%E9%87%91/%ff").path, "/料金/\u{fffd}");
    }

    #[test]
    fn what_is_no_web_page_has_no_address() {
        for url in
            ["", "/pricing", "javascript:alert(1)", "file:///etc/passwd", "https://", "data:,x"]
        {
            assert_eq!(Page::parse(url, &privacy()), None, "{url}");
        }
    }

    #[test]
    fn a_visit_s_source_is_the_campaign_or_the_page_it_came_from() {
        let here = page("https://www.vendor.example/");
        let from = |referrer| Referrer::parse(referrer).campaign(&here).to_owned();
        assert_eq!(from("https://www.google.co.jp/"), "google / organic");
        assert_eq!(from("https://blog.example/post?x=1"), "blog.example / referral");
        assert_eq!(from("https://www.vendor.example/a"), "");
        assert_eq!(from("android-app://x"), "");
        let mail = page("https://www.vendor.example/?utm_source=newsletter&utm_medium=email");
        assert_eq!(Referrer::parse("").campaign(&mail), "newsletter / email");
        let shown = |referrer| Referrer::parse(referrer).shown;
        assert_eq!(shown("https://blog.example/post?secret=1"), "blog.example/post");
        assert_eq!(shown("https://blog.example/u/a@b.example"), "blog.example/u/(address)");
    }

    #[test]
    fn the_journal_has_a_byte_for_each_class_of_browsers() {
        let bytes = |agent: String| {
            let hit = HitRecord { hit: Hit { agent, ..Hit::default() }, ..HitRecord::default() };
            let body = Body::Hit(Box::new(hit));
            let mut bytes = Vec::new();
            Record { time: Timestamp(0), version: 0, body }.encode(&mut bytes);
            bytes.len()
        };
        let byte = bytes("edge".into());
        for (_, browser) in BROWSERS {
            assert_eq!(bytes(browser.into()), byte, "{browser}");
            for (_, system) in SYSTEMS {
                assert_eq!(bytes(format!("{browser} {system}")), byte, "{browser} {system}");
            }
        }
        assert!(bytes("curl".into()) > byte);
    }

    #[test]
    fn an_agent_s_class_tells_no_version_and_no_device() {
        let windows = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like \
                       Gecko) Chrome/126.0.0.0 Safari/537.36";
        for (agent, class) in [
            (windows, "chrome windows"),
            (&format!("{windows} Edg/126.0"), "edge windows"),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) Safari/604.1",
                "safari iphone",
            ),
            (
                "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0",
                "firefox linux",
            ),
            ("Mozilla/5.0 (compatible; NewScanner/1.0; +http://x.example)", "newscanner"),
            ("curl/8.5.0", "curl"),
            ("", ""),
        ] {
            assert_eq!(agent_class(agent), class, "{agent}");
        }
    }

    #[test]
    fn robots_are_known_and_browsers_are_not() {
        let robots = Robots::new(ROBOTS);
        for robot in [
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            "curl/8.1",
            "Mozilla/5.0 (X11; Linux x86_64) HeadlessChrome/120",
            "",
        ] {
            assert!(robots.knows(robot), "{robot}");
        }
        for person in [
            "Mozilla/5.0 (Windows NT 10.0; x64) AppleWebKit/537.36 Chrome/126.0 Safari/537.36",
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605 Safari/604.1",
        ] {
            assert!(!robots.knows(person), "{person}");
        }
    }
}
