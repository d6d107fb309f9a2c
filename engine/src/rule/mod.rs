//! A Rule says when points are earned. A RuleSet is compiled and checked once, when it is
//! published; matching a hit against it is a look-up of the page, or one pass over its path,
//! and a few comparisons with the rules that speak of it.

mod compiled;

use std::fmt;
use std::time::Duration;

use crate::attribute::AttributeTest;
use crate::glob::GlobsBuilder;
use crate::hit::HitKind;
use crate::id::{CategoryId, RuleId};
use crate::memo::Memo;
use crate::points::Points;
use crate::time::{Timestamp, UtcOffset};

use self::compiled::{Index, Page};

/// Most points one award may give, either way. Keeps every sum within 128 bits.
pub const RULE_POINTS_MAX: i64 = 10_000;
/// Most rules in a set: ids are 16 bits, and a person must be able to read the file.
pub const RULES_MAX: usize = 2_000;
/// Pages remembered at once, with what their path decides.
pub const MEMO_PAGES: usize = 4_096;
/// The area of pages only people who have logged in can see.
pub const MY_PAGE: &str = "my_page";

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

/// Limits on how often and how much one rule counts for one person, and for whom.
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
    /// Counts only for people of whom all of these hold.
    pub only: Vec<AttributeTest>,
    /// Counts only if the person, on whatever browser, was away for at least this long.
    pub away: Option<Duration>,
}

/// See [`Guards::once`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Once {
    /// Never again.
    Ever,
    /// Again this long after it last counted.
    Rearmed(Duration),
}

/// What becomes of a rule's rows when it is no longer in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRemove {
    /// They keep their points.
    #[default]
    Keep,
    /// They are worth nothing any more.
    Withdraw,
}

/// When a rule matches. All that is present must hold. Paths are globs: `*` stays within a
/// segment, `**` is any number of segments, none too. In other texts `*` is anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// The page's path is one of these.
    pub path: Vec<String>,
    /// The page's path is none of these.
    pub not_path: Vec<String>,
    /// The hit is an event with one of these names.
    pub event: Vec<String>,
    /// Each of these names stands in the address's query with one of its values.
    pub query: Vec<(String, Vec<String>)>,
    /// The browser came from one of these: a host, or a host and path.
    pub referrer: Vec<String>,
    /// The visit's source and medium, as in `google / organic`, is one of these.
    pub campaign: Vec<String>,
    /// Each of these properties of the hit has one of its values.
    pub property: Vec<(String, Vec<String>)>,
    /// The visible and focused time on one page view first reaches this.
    pub engaged: Option<Duration>,
    /// The part of the page shown first reaches this many percent.
    pub scroll: Option<u8>,
    /// The browser was away for at least this long.
    pub return_after: Option<Duration>,
    /// The rest was met so many times within this time, this time included.
    pub count: Option<(u32, Duration)>,
    /// So many different paths within this time, among those that match the rest.
    pub distinct_pages: Option<(u32, Duration)>,
    /// The page lies in one of the site's areas of these names.
    pub area: Vec<String>,
    /// The page lies in the area for people who have logged in.
    pub authenticated: Option<bool>,
    /// The browser came by a link that we signed.
    pub via_our_link: bool,
    /// At least one of these holds.
    pub any: Vec<Condition>,
}

impl Condition {
    /// Whether it says something of a page.
    pub fn speaks_of_pages(&self) -> bool {
        !self.path.is_empty()
            || !self.not_path.is_empty()
            || !self.area.is_empty()
            || !self.query.is_empty()
            || !self.referrer.is_empty()
            || !self.campaign.is_empty()
            || self.via_our_link
            || self.authenticated.is_some()
            || self.distinct_pages.is_some()
    }
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
    /// How often, how much, for whom.
    pub guards: Guards,
    /// Which audience is told at once.
    pub tell: Option<String>,
    /// What becomes of its rows when it goes.
    pub on_remove: OnRemove,
    /// It matches what happened at or after this moment.
    pub from: Option<Timestamp>,
    /// It matches what happened before this moment.
    pub until: Option<Timestamp>,
    /// When it matches.
    pub when: Condition,
    /// What people read, Japanese.
    pub ja: String,
    /// What people read, English.
    pub en: String,
}

/// What matching needs to know about a hit and its browser.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sighting<'a> {
    /// What the hit is.
    pub kind: HitKind,
    /// When it happened.
    pub when: Timestamp,
    /// The event's name.
    pub event: &'a str,
    /// The page's path, in its normal form.
    pub path: &'a str,
    /// The page's address, with what is kept of its query.
    pub url: &'a str,
    /// Where the browser came from: host and path.
    pub referrer: &'a str,
    /// Source and medium.
    pub campaign: &'a str,
    /// What the hit says about itself.
    pub properties: &'a [(String, String)],
    /// The site's areas that the page lies in, but for the logged-in one.
    pub areas: &'a [String],
    /// Whether the page lies in the logged-in area.
    pub authenticated: bool,
    /// Whether the browser came by a link that we signed.
    pub via_our_link: bool,
    /// Time since the browser's previous hit, if there was one.
    pub gap: Option<Duration>,
    /// Engaged time on this page view before and with this hit.
    pub engaged: (Duration, Duration),
    /// The part of this page shown before and with this hit, in percent.
    pub scroll: (u8, u8),
}

/// Why a rule set cannot be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleError {
    /// More than [`RULES_MAX`] rules, or more globs than 65,535.
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

/// Rules, compiled.
#[derive(Debug)]
pub struct RuleSet {
    rules: Vec<Rule>,
    by_id: Vec<Option<u16>>,
    index: Index,
    memo: Option<Memo<Page>>,
}

impl RuleSet {
    /// Checks and compiles. Pages seen lately are remembered.
    pub fn new(rules: Vec<Rule>) -> Result<RuleSet, RuleError> {
        let set = RuleSet::forgetful(rules)?;
        Ok(RuleSet { memo: Some(Memo::new(MEMO_PAGES)), ..set })
    }

    /// The same without remembering pages: for a walk over history, and for measuring.
    pub fn forgetful(rules: Vec<Rule>) -> Result<RuleSet, RuleError> {
        if rules.len() > RULES_MAX {
            return Err(RuleError::TooManyRules);
        }
        let mut globs = GlobsBuilder::default();
        let mut by_id = Vec::new();
        let mut conditions = Vec::with_capacity(rules.len());
        for (index, rule) in rules.iter().enumerate() {
            if rule.points.0.unsigned_abs() > Points::whole(RULE_POINTS_MAX).0.unsigned_abs() {
                return Err(RuleError::TooManyPoints { rule: rule.name.clone() });
            }
            conditions.push(compiled::compile(&mut globs, rule)?);
            let id = usize::from(rule.id.0);
            if by_id.len() <= id {
                by_id.resize(id + 1, None);
            }
            by_id[id] = Some(index as u16);
        }
        let index = Index::new(conditions, globs.build());
        Ok(RuleSet { rules, by_id, index, memo: None })
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

    /// The rules that match, in the file's order. `count` and `distinct_pages` are left to the
    /// caller, who has the browser's history: such a rule is listed when the rest holds.
    pub fn matching<'a>(&'a self, hit: &Sighting<'_>) -> Vec<&'a Rule> {
        if !self.index.speaks_of(hit) {
            return Vec::new();
        }
        let found = match &self.memo {
            Some(memo) => memo.of(hit.path, |path| self.index.page(path)),
            None => self.index.page(hit.path).into(),
        };
        let dated = |rule: &&Rule| {
            rule.from.is_none_or(|from| hit.when >= from)
                && rule.until.is_none_or(|until| hit.when < until)
        };
        let matching = self.index.matching(hit, &found).into_iter();
        matching.map(|number| &self.rules[usize::from(number)]).filter(dated).collect()
    }
}

#[cfg(test)]
mod tests;
