//! What of a hit's texts something else tells already, and so is not written out: most of a hit is
//! texts, and most of these say what stands beside them.

use std::fmt::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::hit::Hit;
use crate::id::VisitorId;

use super::{AGENT_BIT, BRIEF_BIT, Read, TEXT_BIT, WireError};

/// How many bits of a hit's flags tell what is not written out.
pub(super) const BRIEF_BITS: usize = 6;
/// With what nearly every address begins.
pub(super) const HTTPS: &str = "https://";
/// A class of browsers names one of these, and perhaps a system. Another browser may only come
/// last, and programs of before refuse it.
const BROWSERS: [&str; 10] = [
    "edge",
    "opera",
    "yandex",
    "vivaldi",
    "samsung",
    "firefox",
    "chrome",
    "headless chrome",
    "safari",
    "internet explorer",
];
/// The first stands for none. There is room for no more.
const SYSTEMS: [&str; 8] = ["", "windows", "iphone", "ipad", "android", "mac", "chromeos", "linux"];

/// What is written of a hit, and which of its texts something else tells.
#[derive(Debug)]
pub(super) struct Brief<'a> {
    pub(super) visitor: Option<VisitorId>,
    /// Whether the path is how the address goes on after its host.
    pub(super) path: bool,
    /// Whether the address begins as nearly all do: that is left out of it then.
    pub(super) https: bool,
    /// Of a hit that is told by another one: with how much of its address this one's begins, which
    /// is left out of it then.
    pub(super) shared: Option<usize>,
    pub(super) url: &'a str,
    pub(super) network: &'a str,
    /// The same as bytes, if it is an address that was cut.
    pub(super) cut: Option<Network>,
    pub(super) agent: &'a str,
    /// The same as a byte, if it is made of known words.
    pub(super) class: Option<u8>,
}

/// An address that was cut as the collector cuts them, by the bytes that are left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    V4([u8; 3]),
    V6([u8; 6]),
}

impl<'a> Brief<'a> {
    /// Of a hit, and of the one by which it may be told.
    pub(super) fn of(hit: &'a Hit, by: Option<&Hit>) -> Brief<'a> {
        let by = by.filter(|by| is_told(hit, by));
        let untold = |text: &'a String, told: Option<&String>| match told {
            Some(told) if told == text => "",
            _ => text,
        };
        let https = by.is_none() && hit.url.starts_with(HTTPS);
        let shared = by.map(|by| shared(&hit.url, &by.url));
        let left_out = shared.unwrap_or(if https { HTTPS.len() } else { 0 });
        let network = untold(&hit.network, by.map(|by| &by.network));
        let agent = untold(&hit.agent, by.map(|by| &by.agent));
        Brief {
            visitor: hit.visitor.filter(|_| by.is_none()),
            path: !hit.path.is_empty() && path_in(&hit.url).starts_with(&hit.path),
            https,
            shared,
            url: &hit.url[left_out..],
            network,
            cut: Network::of(network),
            agent,
            class: class(agent),
        }
    }

    /// Its bits in a hit's flags.
    pub(super) fn flags(&self) -> [bool; BRIEF_BITS] {
        [
            self.path,
            self.https,
            matches!(self.cut, Some(Network::V4(_))),
            matches!(self.cut, Some(Network::V6(_))),
            self.shared.is_some(),
            self.class.is_some(),
        ]
    }
}

/// Whether one hit can be told by another: what only the other has could not be left out.
fn is_told(hit: &Hit, by: &Hit) -> bool {
    let told = |text: &str, other: &str| !text.is_empty() || other.is_empty();
    hit.visitor == by.visitor && told(&hit.network, &by.network) && told(&hit.agent, &by.agent)
}

/// How an address goes on after its host, from the first `/` behind `//` on.
pub(super) fn path_in(url: &str) -> &str {
    let bytes = url.as_bytes();
    let Some(host) = bytes.windows(2).position(|pair| pair == b"//").map(|at| at + 2) else {
        return "";
    };
    bytes[host..].iter().position(|byte| *byte == b'/').map_or("", |at| &url[host + at..])
}

/// How many bytes two texts begin with alike, in whole characters.
pub(super) fn shared(text: &str, other: &str) -> usize {
    let alike = text.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count();
    text.floor_char_boundary(alike)
}

/// The byte that stands for a class of browsers, if it is made of known words.
fn class(agent: &str) -> Option<u8> {
    let (browser, rest) = BROWSERS.iter().enumerate().find_map(|(place, browser)| {
        let rest = agent.strip_prefix(browser)?;
        (rest.is_empty() || rest.starts_with(' ')).then_some((place, rest))
    })?;
    let system = match rest.strip_prefix(' ') {
        None => 0,
        Some(name) => SYSTEMS.iter().position(|system| *system == name).filter(|it| *it > 0)?,
    };
    Some((browser * SYSTEMS.len() + system) as u8)
}

/// The class of browsers that a byte stands for.
pub(super) fn class_of(byte: u8) -> Option<String> {
    let byte = usize::from(byte);
    let browser = BROWSERS.get(byte / SYSTEMS.len())?;
    Some(match SYSTEMS[byte % SYSTEMS.len()] {
        "" => (*browser).to_owned(),
        system => [browser, " ", system].concat(),
    })
}

/// What is not written of a hit, as its flags say: the mirror of [`Brief`].
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(super) struct Untold<'a> {
    pub(super) path: bool,
    pub(super) https: bool,
    pub(super) v4: bool,
    pub(super) v6: bool,
    pub(super) class: bool,
    /// The hit that tells what is not written of this one.
    pub(super) by: Option<&'a Hit>,
}

impl<'a> Untold<'a> {
    /// Of a hit's flags, and the one by which it may be told.
    pub(super) fn of(flags: u64, by: Option<&'a Hit>) -> Read<Untold<'a>> {
        let has = |bit: usize| flags >> bit & 1 == 1;
        let brief = |bit: usize| has(BRIEF_BIT + bit);
        let text = |text: usize| has(TEXT_BIT + text);
        let told = brief(4);
        let contradicts = (brief(0) && !text(1))
            || (brief(1) && (!text(2) || told))
            || ((brief(2) || brief(3)) && !text(6))
            || (brief(2) && brief(3))
            || (brief(5) && !has(AGENT_BIT))
            || (told && (has(0) || by.is_none()));
        if contradicts {
            return Err(WireError::UnknownNumber("part of a hit"));
        }
        Ok(Untold {
            path: brief(0),
            https: brief(1),
            v4: brief(2),
            v6: brief(3),
            class: brief(5),
            by: by.filter(|_| told),
        })
    }
}

impl Network {
    /// The network that a text names, if it names it exactly as one is printed.
    pub(super) fn of(text: &str) -> Option<Network> {
        if let Some(address) = text.strip_suffix(".0/24") {
            let mut parts = address.split('.').map(printed_byte);
            let bytes = [parts.next()??, parts.next()??, parts.next()??];
            return parts.next().is_none().then_some(Network::V4(bytes));
        }
        let octets = text.strip_suffix("/48")?.parse::<Ipv6Addr>().ok()?.octets();
        let network = Network::V6(*octets.first_chunk()?);
        let mut rest = Rest(text);
        (write!(rest, "{network}").is_ok() && rest.0.is_empty()).then_some(network)
    }
}

/// A byte as it is printed: without a sign, and without zeros before it.
fn printed_byte(text: &str) -> Option<u8> {
    let padded = text.len() > 1 && text.starts_with(['0', '+']);
    if padded { None } else { text.parse().ok() }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Network::V4([a, b, c]) => write!(f, "{}/24", Ipv4Addr::new(*a, *b, *c, 0)),
            Network::V6(bytes) => {
                let mut octets = [0; 16];
                octets[..6].copy_from_slice(bytes);
                write!(f, "{}/48", Ipv6Addr::from(octets))
            }
        }
    }
}

/// What is left of a text when something is printed of it: to compare without laying that out.
struct Rest<'a>(&'a str);

impl Write for Rest<'_> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.0 = self.0.strip_prefix(part).ok_or(fmt::Error)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_begins_after_the_host() {
        assert_eq!(path_in("https://www.site.example/a/b?c=/d"), "/a/b?c=/d");
        assert_eq!(path_in("//site.example/"), "/");
        for without in ["", "/", "/a/b", "https://www.site.example", "mailto:a/b", "//"] {
            assert_eq!(path_in(without), "", "{without}");
        }
    }

    #[test]
    fn texts_are_alike_in_whole_characters() {
        assert_eq!(shared("abc", "abd"), 2);
        assert_eq!(shared("aé", "aè"), 1, "both begin with the same byte");
        assert_eq!((shared("", "a"), shared("ab", "ab"), shared("ab", "abc")), (0, 2, 2));
    }

    #[test]
    fn a_class_of_browsers_is_told_by_a_byte_only_if_its_words_are_known() {
        let known = (0..=u8::MAX).filter_map(|byte| Some((byte, class_of(byte)?)));
        let known: Vec<(u8, String)> = known.collect();
        assert_eq!(known.len(), BROWSERS.len() * SYSTEMS.len());
        for (byte, agent) in known {
            assert_eq!(class(&agent), Some(byte), "{agent}");
        }
        for other in ["", " ", "chrome ", "chrome  mac", "chromewindows", "curl", "edge linux "] {
            assert_eq!(class(other), None, "{other}");
        }
    }

    #[test]
    fn flags_that_contradict_each_other_are_refused_by_name() {
        let hit = Hit::default();
        let told = |flags: &[usize], by| {
            Untold::of(flags.iter().fold(0, |all, bit| all | 1 << bit), by).is_ok()
        };
        for sound in [&[][..], &[23, 12], &[24, 13], &[25, 17], &[26, 17], &[28, 21], &[27, 13]] {
            assert!(told(sound, Some(&hit)), "{sound:?}");
        }
        let alone = [&[23][..], &[24], &[25], &[26], &[28]];
        for wrong in alone.into_iter().chain([&[25, 26, 17][..], &[24, 13, 27], &[27, 0]]) {
            assert!(!told(wrong, Some(&hit)), "{wrong:?}");
        }
        assert!(!told(&[27], None), "there is no hit that could tell it");
    }

    #[test]
    fn a_network_is_told_by_its_bytes_only_if_they_print_it_exactly() {
        let v4 = Network::of("192.0.2.0/24");
        assert_eq!(v4, Some(Network::V4([192, 0, 2])));
        let v6 = Network::of("2001:db8:1::/48");
        assert_eq!(v6, Some(Network::V6([0x20, 0x01, 0x0d, 0xb8, 0, 1])));
        for text in ["192.0.2.0/24", "2001:db8:1::/48", "::/48", "0.0.0.0/24"] {
            assert_eq!(Network::of(text).unwrap().to_string(), text);
        }
        for other in [
            "",
            "/24",
            "/48",
            "192.0.2.1/24",
            "192.0.2.0/25",
            "192.0.02.0/24",
            "192.0.+2.0/24",
            "1.192.0.2.0/24",
            "0.2.0/24",
            "2001:DB8:1::/48",
            "2001:db8:1:0::/48",
            "2001:db8:1:2::/48",
            "192.0.2.0/24 ",
        ] {
            assert_eq!(Network::of(other), None, "{other}");
        }
    }
}
