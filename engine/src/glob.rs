//! Patterns people write: globs of paths, compiled into one automaton so that a path is held
//! against all of them in one pass, and plain texts with `*` for anything.

use regex_automata::meta::Regex;
use regex_automata::util::syntax;
use regex_automata::{Input, MatchKind, PatternSet};

/// Longest glob, in bytes.
const GLOB_BYTES_MAX: usize = 512;

/// Path globs compiled into one automaton. `*` stays within a segment, `**` is any number of
/// segments, none too.
#[derive(Debug, Default)]
pub struct Globs {
    regex: Option<Regex>,
    patterns: usize,
}

impl Globs {
    /// Compiles a list, or says which of them is none.
    pub fn new(globs: &[String]) -> Result<Globs, &str> {
        let mut builder = GlobsBuilder::default();
        for glob in globs {
            builder.add(glob).ok_or(glob.as_str())?;
        }
        Ok(builder.build())
    }

    /// Whether any of the globs matches a path in its normal form.
    pub fn any(&self, path: &str) -> bool {
        self.regex.as_ref().is_some_and(|regex| regex.is_match(path))
    }

    /// The numbers of those that match, ascending.
    pub fn matching(&self, path: &str) -> Vec<u16> {
        let Some(regex) = &self.regex else {
            return Vec::new();
        };
        let mut found = PatternSet::new(self.patterns);
        regex.which_overlapping_matches(&Input::new(path), &mut found);
        found.iter().map(|pattern| pattern.as_u32() as u16).collect()
    }
}

/// Collects globs; the same one twice is one.
#[derive(Debug, Default)]
pub struct GlobsBuilder {
    patterns: Vec<String>,
}

impl GlobsBuilder {
    /// The glob's number, or nothing if it is none.
    pub fn add(&mut self, glob: &str) -> Option<u16> {
        let pattern = glob_to_regex(glob)?;
        let known = self.patterns.iter().position(|other| *other == pattern);
        let number = known.unwrap_or_else(|| {
            self.patterns.push(pattern);
            self.patterns.len() - 1
        });
        u16::try_from(number).ok()
    }

    /// Compiles them.
    pub fn build(self) -> Globs {
        let patterns = self.patterns.len();
        // Unicode off and a large lazy cache: with the defaults such a set is fifty times
        // slower than this, and slower than matching the rules one after another.
        let regex = (patterns > 0).then(|| {
            Regex::builder()
                .configure(
                    Regex::config()
                        .match_kind(MatchKind::All)
                        .utf8_empty(false)
                        .nfa_size_limit(Some(64 << 20))
                        .hybrid_cache_capacity(64 << 20),
                )
                .syntax(syntax::Config::new().unicode(false).utf8(false))
                .build_many(&self.patterns)
                .expect("globs become literals, classes and stars, which always compile")
        });
        Globs { regex, patterns }
    }
}

/// A path as globs see it: without query and fragment, without one trailing slash.
pub fn normal_path(path: &str) -> &str {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    path.strip_suffix('/').unwrap_or(path)
}

/// The regular expression of a glob, or nothing if it does not begin with a slash.
fn glob_to_regex(glob: &str) -> Option<String> {
    if !glob.starts_with('/') || glob.len() > GLOB_BYTES_MAX {
        return None;
    }
    let mut regex = String::from("^");
    for segment in normal_path(glob).split('/').skip(1) {
        if segment == "**" {
            regex.push_str("(?:/[^/]*)*");
            continue;
        }
        regex.push('/');
        for byte in segment.bytes() {
            match byte {
                b'*' => regex.push_str("[^/]*"),
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => regex.push(char::from(byte)),
                other => regex.extend(["\\x", &format!("{other:02x}")]),
            }
        }
    }
    regex.push('$');
    Some(regex)
}

/// Whether a text is what a pattern says, `*` standing for anything.
pub fn is_like(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(head) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    // What follows the last star must end the text; what stands between two, somewhere between.
    let tail = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = text.find(part) else {
            return false;
        };
        text = &text[at + part.len()..];
    }
    text.len() >= tail.len() && text.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glob(glob: &str, path: &str) -> bool {
        Globs::new(&[glob.to_owned()]).unwrap().any(normal_path(path))
    }

    #[test]
    fn two_stars_are_any_number_of_segments_and_one_stays_within_its_own() {
        for path in ["/pricing", "/pricing/", "/pricing/a", "/pricing/a/b?x=1#y"] {
            assert!(glob("/pricing/**", path), "{path}");
        }
        for path in ["/", "/pricingx", "/a/pricing", "/Pricing"] {
            assert!(!glob("/pricing/**", path), "{path}");
        }
        assert!(glob("/a/**/z", "/a/z") && glob("/a/**/z", "/a/b/c/z"));
        assert!(glob("/a/*.html", "/a/x.html") && !glob("/a/*.html", "/a/b/x.html"));
        assert!(glob("/**", "/") && glob("/**", "/anything/at/all"));
        assert!(glob("/", "/") && !glob("/", "/a"));
        assert!(glob("/料金/**", "/料金/表") && !glob("/a.b", "/aXb"));
        assert_eq!(Globs::new(&["pricing".to_owned()]).unwrap_err(), "pricing");
    }

    #[test]
    fn all_globs_are_held_against_a_path_at_once() {
        let globs = ["/a/**", "/b", "/**", "/a/*"].map(str::to_owned);
        let globs = Globs::new(&globs).unwrap();
        assert_eq!(globs.matching("/a/x"), [0, 2, 3]);
        assert_eq!(globs.matching("/b"), [1, 2]);
        assert!(Globs::default().matching("/b").is_empty());
    }

    #[test]
    fn a_star_in_a_text_is_anything() {
        for (pattern, text) in [
            ("google / organic", "google / organic"),
            ("newsletter*", "newsletter-2026-12 / email"),
            ("* / email", "newsletter-2026-12 / email"),
            ("www.google.*", "www.google.co.jp"),
            ("*a*b*", "xaxbx"),
            ("*", ""),
            ("a**b", "ab"),
        ] {
            assert!(is_like(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in
            [("google", "google / organic"), ("*a*b*", "xbxa"), ("ab*b", "ab"), ("a*", "ba")]
        {
            assert!(!is_like(pattern, text), "{pattern} {text}");
        }
    }
}
