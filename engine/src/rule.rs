//! A Rule says when points are earned. A RuleSet is compiled and checked once, when it is
//! published; matching a hit against it is one pass over the path and a few comparisons.

use std::fmt;
use std::time::Duration;

use regex_automata::meta::Regex;
use regex_automata::util::syntax;
use regex_automata::{Input, MatchKind, PatternSet};

use crate::hit::HitKind;
use crate::id::{CategoryId, RuleId};
use crate::time::{Timestamp, UtcOffset};

/// Thousandths of a point. Rules give whole points; cuts, fading and halving do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Points(pub i64);

impl Points {
    /// Whole points.
    pub const fn whole(points: i64) -> Points {
        Points(points.saturating_mul(1_000))
    }

    /// The whole points in it, rounded down: what people see.
    pub fn shown(self) -> i64 {
        self.0.div_euclid(1_000)
    }
}

impl fmt::Display for Points {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let size = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:03}", size / 1_000, size % 1_000)
    }
}

/// Most points one award may give, either way. Keeps every sum within 128 bits.
pub const RULE_POINTS_MAX: i64 = 10_000;
/// Most rules in a set: ids are 16 bits, and a person must be able to read the file.
pub const RULES_MAX: usize = 2_000;

/// How often a rule may count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// A calendar day at the rule set's offset: Monday's nine-o'clock habit may come at 8:58.
    Day,
    /// This long since the rule last counted.
    Rolling(Duration),
}

impl Period {
    /// Whether something at `then` still lies in the period that `now` belongs to.
    pub fn holds(self, then: Timestamp, now: Timestamp, offset: UtcOffset) -> bool {
        match self {
            Period::Day => then.day(offset) == now.day(offset),
            Period::Rolling(length) => now.since(then) < length,
        }
    }
}

/// Limits on how often and how much one rule counts for one person.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guards {
    /// Counts once; with a time, again after that time.
    pub once: Option<Once>,
    /// Counts once in each period.
    pub once_per: Option<Period>,
    /// Counts at most so often in each period.
    pub at_most: Option<(u32, Period)>,
    /// What the rule may be worth at any moment, after fading.
    pub max: Option<Points>,
}

/// See [`Guards::once`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Once {
    /// Never again.
    Ever,
    /// Again this long after it last counted.
    Rearmed(Duration),
}

/// When a rule matches. All that is present must hold. Paths are globs: `*` stays within a
/// segment, `**` is any number of segments, none too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// The page's path is one of these.
    pub path: Vec<String>,
    /// The page's path is none of these.
    pub not_path: Vec<String>,
    /// The hit is an event with one of these names.
    pub event: Vec<String>,
    /// The visible and focused time on one page view first reaches this.
    pub engaged: Option<Duration>,
    /// The browser was away for at least this long.
    pub return_after: Option<Duration>,
    /// So many different paths within this time, among those that match the rest.
    pub distinct_pages: Option<(u32, Duration)>,
    /// The page lies in the area for people who have logged in.
    pub authenticated: Option<bool>,
    /// At least one of these holds.
    pub any: Vec<Condition>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its interned id.
    pub id: RuleId,
    /// Its name in the rule file.
    pub name: String,
    /// What it gives.
    pub points: Points,
    /// Where the points go.
    pub category: CategoryId,
    /// How often and how much.
    pub guards: Guards,
    /// Which audience is told at once. Read and kept; nothing acts on it yet.
    pub tell: Option<String>,
    /// When it matches.
    pub when: Condition,
    /// What people read, Japanese.
    pub ja: String,
    /// What people read, English.
    pub en: String,
}

/// What matching needs to know about a hit and its browser.
#[derive(Clone, Copy, Debug)]
pub struct Sighting<'a> {
    /// What the hit is.
    pub kind: HitKind,
    /// The event's name.
    pub event: &'a str,
    /// The page's path, in its normal form.
    pub path: &'a str,
    /// Whether the page lies in the logged-in area.
    pub authenticated: bool,
    /// Time since the browser's previous hit, if there was one.
    pub gap: Option<Duration>,
    /// Engaged time on this page view before and with this hit.
    pub engaged: (Duration, Duration),
}

/// Why a rule set cannot be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleError {
    /// More than [`RULES_MAX`] rules.
    TooManyRules,
    /// More points than [`RULE_POINTS_MAX`], either way.
    TooManyPoints {
        /// The rule's name.
        rule: String,
    },
    /// A condition that nothing could ever meet, or that says nothing.
    Impossible {
        /// The rule's name.
        rule: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A glob that is none.
    BadGlob {
        /// The rule's name.
        rule: String,
        /// The glob.
        glob: String,
    },
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyRules => write!(f, "more than {RULES_MAX} rules"),
            Self::TooManyPoints { rule } => {
                write!(f, "rule \"{rule}\" gives more than {RULE_POINTS_MAX} points")
            }
            Self::Impossible { rule, why } => write!(f, "rule \"{rule}\": {why}"),
            Self::BadGlob { rule, glob } => {
                write!(f, "rule \"{rule}\": \"{glob}\" is no path; it must begin with \"/\"")
            }
        }
    }
}

/// A condition with its globs replaced by numbers of patterns in the set's automaton.
#[derive(Debug)]
struct Compiled {
    path: Vec<usize>,
    not_path: Vec<usize>,
    event: Vec<String>,
    engaged: Option<Duration>,
    return_after: Option<Duration>,
    authenticated: Option<bool>,
    any: Vec<Compiled>,
    kinds: Kinds,
}

/// Which hits a condition speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kinds {
    PageViews,
    Events,
    Engagements,
    PageViewsAndEvents,
    /// Only `any` decides.
    Inner,
}

/// Rules, compiled.
#[derive(Debug)]
pub struct RuleSet {
    rules: Vec<Rule>,
    compiled: Vec<Compiled>,
    by_id: Vec<Option<u16>>,
    globs: Globs,
    offset: UtcOffset,
}

impl RuleSet {
    /// Checks and compiles.
    pub fn new(rules: Vec<Rule>, offset: UtcOffset) -> Result<RuleSet, RuleError> {
        if rules.len() > RULES_MAX {
            return Err(RuleError::TooManyRules);
        }
        let mut globs = GlobsBuilder::default();
        let mut by_id = Vec::new();
        let mut compiled = Vec::with_capacity(rules.len());
        for (index, rule) in rules.iter().enumerate() {
            if rule.points.0.unsigned_abs() > Points::whole(RULE_POINTS_MAX).0.unsigned_abs() {
                return Err(RuleError::TooManyPoints { rule: rule.name.clone() });
            }
            compiled.push(globs.compile(&rule.when, rule)?);
            let id = usize::from(rule.id.0);
            if by_id.len() <= id {
                by_id.resize(id + 1, None);
            }
            by_id[id] = Some(index as u16);
        }
        Ok(RuleSet { rules, compiled, by_id, globs: globs.build(), offset })
    }

    /// The rules, in the file's order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The rule of an id, if this set still has it.
    pub fn rule(&self, id: RuleId) -> Option<&Rule> {
        let index = (*self.by_id.get(usize::from(id.0))?)?;
        self.rules.get(usize::from(index))
    }

    /// Where a day begins.
    pub fn offset(&self) -> UtcOffset {
        self.offset
    }

    /// The rules that match, in the file's order. `distinct_pages` is left to the caller, who
    /// has the browser's history: such a rule is listed when the rest of its condition holds.
    pub fn matching<'a>(&'a self, hit: &Sighting<'_>) -> impl Iterator<Item = &'a Rule> {
        let paths = self.globs.matching(hit.path);
        let mut matched = Vec::new();
        for (rule, condition) in self.rules.iter().zip(&self.compiled) {
            if condition.holds(hit, &paths) {
                matched.push(rule);
            }
        }
        matched.into_iter()
    }
}

impl Compiled {
    fn holds(&self, hit: &Sighting<'_>, paths: &PatternSet) -> bool {
        let has = |index: &usize| paths.contains(regex_automata::PatternID::must(*index));
        self.kinds.include(hit.kind)
            && (self.event.is_empty() || self.event.iter().any(|name| name == hit.event))
            && self.authenticated.is_none_or(|wanted| wanted == hit.authenticated)
            && self.engaged.is_none_or(|line| hit.engaged.0 < line && line <= hit.engaged.1)
            && self.return_after.is_none_or(|away| hit.gap.is_some_and(|gap| gap >= away))
            && (self.path.is_empty() || self.path.iter().any(has))
            && !self.not_path.iter().any(has)
            && (self.any.is_empty() || self.any.iter().any(|inner| inner.holds(hit, paths)))
    }
}

impl Kinds {
    fn of(condition: &Condition) -> Kinds {
        let pages = !condition.path.is_empty()
            || !condition.not_path.is_empty()
            || condition.authenticated.is_some()
            || condition.distinct_pages.is_some();
        if !condition.event.is_empty() {
            Kinds::Events
        } else if condition.engaged.is_some() {
            Kinds::Engagements
        } else if pages {
            Kinds::PageViews
        } else if condition.return_after.is_some() {
            Kinds::PageViewsAndEvents
        } else {
            Kinds::Inner
        }
    }

    fn include(self, kind: HitKind) -> bool {
        match self {
            Kinds::PageViews => kind == HitKind::PageView,
            Kinds::Events => kind == HitKind::Event,
            Kinds::Engagements => kind == HitKind::Engagement,
            Kinds::PageViewsAndEvents => matches!(kind, HitKind::PageView | HitKind::Event),
            Kinds::Inner => true,
        }
    }
}

/// Path globs compiled into one automaton.
#[derive(Debug)]
pub struct Globs {
    regex: Option<Regex>,
    patterns: usize,
}

impl Globs {
    /// Compiles a list of globs of its own, such as the excluded paths.
    pub fn new(globs: &[String]) -> Result<Globs, RuleError> {
        let mut builder = GlobsBuilder::default();
        for glob in globs {
            builder
                .add(glob)
                .ok_or_else(|| RuleError::BadGlob { rule: String::new(), glob: glob.clone() })?;
        }
        Ok(builder.build())
    }

    /// Whether any of the globs matches a path in its normal form.
    pub fn any(&self, path: &str) -> bool {
        self.regex.as_ref().is_some_and(|regex| regex.is_match(path))
    }

    fn matching(&self, path: &str) -> PatternSet {
        let mut found = PatternSet::new(self.patterns);
        if let Some(regex) = &self.regex {
            regex.which_overlapping_matches(&Input::new(path), &mut found);
        }
        found
    }
}

/// A path as globs see it: without query and fragment, without one trailing slash.
pub fn normal_path(path: &str) -> &str {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    path.strip_suffix('/').unwrap_or(path)
}

#[derive(Default)]
struct GlobsBuilder {
    patterns: Vec<String>,
}

impl GlobsBuilder {
    fn add(&mut self, glob: &str) -> Option<usize> {
        let pattern = glob_to_regex(glob)?;
        if let Some(known) = self.patterns.iter().position(|other| *other == pattern) {
            return Some(known);
        }
        self.patterns.push(pattern);
        Some(self.patterns.len() - 1)
    }

    fn compile(&mut self, condition: &Condition, rule: &Rule) -> Result<Compiled, RuleError> {
        let impossible = |why| RuleError::Impossible { rule: rule.name.clone(), why };
        if *condition == Condition::default() {
            return Err(impossible("\"when\" says nothing"));
        }
        if !condition.event.is_empty() && condition.engaged.is_some() {
            return Err(impossible("no hit is both an event and a stay"));
        }
        let counts_nothing = |(count, _): (u32, Duration)| {
            !condition.event.is_empty() || condition.engaged.is_some() || count < 2
        };
        if condition.distinct_pages.is_some_and(counts_nothing) {
            return Err(impossible("distinct_pages counts two or more page views"));
        }
        if condition.any.iter().any(|inner| inner.distinct_pages.is_some()) {
            return Err(impossible("distinct_pages stands beside \"any\", not in it"));
        }
        let mut globs = |list: &[String]| -> Result<Vec<usize>, RuleError> {
            let bad =
                |glob: &String| RuleError::BadGlob { rule: rule.name.clone(), glob: glob.clone() };
            list.iter().map(|glob| self.add(glob).ok_or_else(|| bad(glob))).collect()
        };
        Ok(Compiled {
            path: globs(&condition.path)?,
            not_path: globs(&condition.not_path)?,
            event: condition.event.clone(),
            engaged: condition.engaged,
            return_after: condition.return_after,
            authenticated: condition.authenticated,
            any: condition
                .any
                .iter()
                .map(|inner| self.compile(inner, rule))
                .collect::<Result<_, _>>()?,
            kinds: Kinds::of(condition),
        })
    }

    fn build(self) -> Globs {
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

/// The regular expression of a glob, or nothing if it does not begin with a slash.
fn glob_to_regex(glob: &str) -> Option<String> {
    if !glob.starts_with('/') || glob.len() > 512 {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn glob(glob: &str, path: &str) -> bool {
        Globs::new(&[glob.to_owned()]).unwrap().any(normal_path(path))
    }

    fn rule(id: u16, when: Condition) -> Rule {
        Rule {
            id: RuleId(id),
            name: format!("rule{id}"),
            points: Points::whole(1),
            category: CategoryId(0),
            guards: Guards::default(),
            tell: None,
            when,
            ja: String::new(),
            en: String::new(),
        }
    }

    fn page(path: &str) -> Sighting<'_> {
        Sighting {
            kind: HitKind::PageView,
            event: "",
            path: normal_path(path),
            authenticated: false,
            gap: None,
            engaged: (Duration::ZERO, Duration::ZERO),
        }
    }

    fn matched(set: &RuleSet, hit: &Sighting<'_>) -> Vec<u16> {
        set.matching(hit).map(|rule| rule.id.0).collect()
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
        assert!(Globs::new(&["pricing".to_owned()]).is_err());
    }

    #[test]
    fn a_path_rule_speaks_of_page_views_only() {
        let set = RuleSet::new(
            vec![rule(4, Condition { path: vec!["/p/**".into()], ..Condition::default() })],
            UtcOffset(0),
        )
        .unwrap();
        assert_eq!(matched(&set, &page("/p/1")), [4]);
        for kind in [HitKind::Event, HitKind::Engagement, HitKind::Identify, HitKind::Reset] {
            assert!(matched(&set, &Sighting { kind, ..page("/p/1") }).is_empty(), "{kind:?}");
        }
    }

    #[test]
    fn a_stay_counts_once_when_its_total_first_reaches_the_line() {
        let when = Condition {
            path: vec!["/**".into()],
            not_path: vec!["/careers/**".into()],
            engaged: Some(Duration::from_mins(1)),
            ..Condition::default()
        };
        let set = RuleSet::new(vec![rule(0, when)], UtcOffset(0)).unwrap();
        let stay = |path, before, now| Sighting {
            kind: HitKind::Engagement,
            engaged: (Duration::from_secs(before), Duration::from_secs(now)),
            ..page(path)
        };
        assert_eq!(matched(&set, &stay("/x", 0, 60)), [0]);
        assert_eq!(matched(&set, &stay("/x", 59, 600)), [0]);
        assert!(matched(&set, &stay("/x", 60, 90)).is_empty());
        assert!(matched(&set, &stay("/x", 0, 59)).is_empty());
        assert!(matched(&set, &stay("/careers/a", 0, 60)).is_empty());
    }

    #[test]
    fn any_is_met_by_an_event_or_by_a_page() {
        let when = Condition {
            any: vec![
                Condition { event: vec!["download".into()], ..Condition::default() },
                Condition { path: vec!["/thanks/**".into()], ..Condition::default() },
            ],
            ..Condition::default()
        };
        let set = RuleSet::new(vec![rule(9, when)], UtcOffset(0)).unwrap();
        assert_eq!(matched(&set, &page("/thanks/document")), [9]);
        let event = Sighting { kind: HitKind::Event, event: "download", ..page("/x") };
        assert_eq!(matched(&set, &event), [9]);
        assert!(matched(&set, &Sighting { event: "other", ..event }).is_empty());
        let event_elsewhere =
            Sighting { kind: HitKind::Event, event: "other", ..page("/thanks/a") };
        assert!(matched(&set, &event_elsewhere).is_empty());
    }

    #[test]
    fn conditions_nothing_could_meet_are_refused_by_name() {
        let refuse = |when: Condition| RuleSet::new(vec![rule(0, when)], UtcOffset(0)).unwrap_err();
        assert!(matches!(refuse(Condition::default()), RuleError::Impossible { .. }));
        let both = Condition {
            event: vec!["a".into()],
            engaged: Some(Duration::from_secs(1)),
            ..Condition::default()
        };
        assert!(matches!(refuse(both), RuleError::Impossible { .. }));
        let glob = Condition { path: vec!["pricing".into()], ..Condition::default() };
        assert!(matches!(refuse(glob), RuleError::BadGlob { .. }));
    }

    #[test]
    fn points_print_their_thousandths() {
        assert_eq!(Points(69_923).to_string(), "69.923");
        assert_eq!(Points(-68_993).to_string(), "-68.993");
        assert_eq!((Points(-68_993).shown(), Points(69_923).shown()), (-69, 69));
    }
}
