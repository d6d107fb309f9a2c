//! Scoring is everything one published version of the rule file says: the rules to match by,
//! the terms to settle by, those of the versions before it, and how people read it all.

use std::collections::BTreeMap;
use std::fmt;

use crate::glob::Globs;
use crate::id::{CategoryId, ThresholdId};
use crate::points::Points;
use crate::rule::RuleSet;
use crate::sales::SalesRules;
use crate::terms::{RuleTerms, Terms, Versions};

/// Most categories: one memory of a person is kept for each.
pub const CATEGORIES_MAX: usize = 16;
/// Most thresholds.
pub const THRESHOLDS_MAX: usize = 16;

/// A kind of interest, as people read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Category {
    /// Its interned id.
    pub id: CategoryId,
    /// Its name in the rule file.
    pub name: String,
    /// What people read, Japanese.
    pub ja: String,
    /// What people read, English.
    pub en: String,
}

/// The same points with a short memory: is it now?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Urgency {
    /// From here it is medium.
    pub medium: Points,
    /// From here it is high.
    pub high: Points,
}

impl Urgency {
    /// The word for a value.
    pub fn level(&self, value: Points) -> &'static str {
        if value >= self.high {
            "high"
        } else if value >= self.medium {
            "medium"
        } else {
            "low"
        }
    }
}

/// One language's text for each language we speak.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text {
    /// Japanese.
    pub ja: String,
    /// English.
    pub en: String,
}

/// How people read a version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// The categories, by their place in the file.
    pub categories: Vec<Category>,
    /// The words for urgency.
    pub urgency: Urgency,
    /// First lines of messages, by type: `hot`, `cooled`.
    pub texts: BTreeMap<String, Text>,
    /// What people call the stages.
    pub stage_names: BTreeMap<String, String>,
}

/// One published version.
#[derive(Debug)]
pub struct Scoring {
    /// This version and those before it.
    pub versions: Versions,
    /// When points are earned.
    pub rules: RuleSet,
    /// Paths that are never scored.
    pub excluded_paths: Globs,
    /// How people read it.
    pub labels: Labels,
    /// What sales' answers do.
    pub sales: SalesRules,
    /// The version's number.
    pub version: u32,
}

/// Why a version cannot be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScoringError {
    /// More than [`CATEGORIES_MAX`] categories or [`THRESHOLDS_MAX`] thresholds.
    TooMany(&'static str),
    /// A rule names a category that is not there.
    UnknownCategory {
        /// The rule.
        rule: String,
    },
    /// A threshold whose fall is not below its rise.
    NoDeadBand {
        /// The threshold.
        threshold: ThresholdId,
    },
}

impl fmt::Display for ScoringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany(what) => write!(f, "too many {what} (at most 16)"),
            Self::UnknownCategory { rule } => write!(f, "rule \"{rule}\" names no known category"),
            Self::NoDeadBand { threshold } => {
                write!(f, "threshold number {}: fall must be below rise", threshold.0)
            }
        }
    }
}

impl Scoring {
    /// Puts a version together with those before it, and checks that the parts fit. The terms
    /// of the rules are the rules' own.
    pub fn new(
        before: &Versions,
        mut terms: Terms,
        rules: RuleSet,
        excluded_paths: Globs,
        labels: Labels,
    ) -> Result<Scoring, ScoringError> {
        terms.rules = rule_terms(&rules);
        check(&terms, &rules)?;
        let version = terms.version;
        let mut versions = before.clone();
        versions.publish(terms);
        let sales = SalesRules::default();
        Ok(Scoring { versions, rules, excluded_paths, labels, sales, version })
    }

    /// The same with what sales' answers do.
    #[must_use]
    pub fn with_sales(self, sales: SalesRules) -> Scoring {
        Scoring { sales, ..self }
    }

    /// The terms in force.
    pub fn terms(&self) -> &Terms {
        self.versions.latest().expect("a scoring is made with its own version")
    }
}

fn rule_terms(rules: &RuleSet) -> Vec<RuleTerms> {
    let of = |rule: &crate::rule::Rule| RuleTerms {
        id: rule.id,
        guards: rule.guards.clone(),
        tell: rule.tell.clone(),
        on_remove: rule.on_remove,
    };
    let mut terms: Vec<RuleTerms> = rules.rules().iter().map(of).collect();
    terms.sort_by_key(|rule| rule.id);
    terms
}

/// What cannot be checked part by part.
fn check(terms: &Terms, rules: &RuleSet) -> Result<(), ScoringError> {
    if terms.categories.len() > CATEGORIES_MAX {
        return Err(ScoringError::TooMany("categories"));
    }
    if terms.thresholds.len() > THRESHOLDS_MAX {
        return Err(ScoringError::TooMany("thresholds"));
    }
    let homeless = rules.rules().iter().find(|rule| terms.category(rule.category).is_none());
    if let Some(rule) = homeless {
        return Err(ScoringError::UnknownCategory { rule: rule.name.clone() });
    }
    match terms.thresholds.iter().find(|threshold| threshold.fall >= threshold.rise) {
        Some(flat) => Err(ScoringError::NoDeadBand { threshold: flat.id }),
        None => Ok(()),
    }
}
