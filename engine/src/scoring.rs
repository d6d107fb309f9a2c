//! Scoring is everything one published version of the rule file says: rules, categories,
//! limits, thresholds, and how people read them.

use std::collections::BTreeMap;
use std::fmt;

use crate::decay::HalfLife;
use crate::grade::Grade;
use crate::id::{CategoryId, ThresholdId};
use crate::rule::{Globs, Points, RuleSet};
use crate::stage::Stage;
use crate::threshold::{Band, Threshold};

/// Most categories: one memory of a person is kept for each.
pub const CATEGORIES_MAX: usize = 16;
/// Most thresholds.
pub const THRESHOLDS_MAX: usize = 16;

/// A kind of interest, with its own half-life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Category {
    /// Its interned id.
    pub id: CategoryId,
    /// Its name in the rule file.
    pub name: String,
    /// Points halve in this time.
    pub half_life: HalfLife,
    /// What it may be worth at any moment, after fading.
    pub max: Option<Points>,
    /// Whether it counts in the score, for thresholds and the total limit.
    pub in_total: bool,
    /// What people read, Japanese.
    pub ja: String,
    /// What people read, English.
    pub en: String,
}

/// The same points with a short memory: is it now?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Urgency {
    /// The short half-life.
    pub half_life: HalfLife,
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

/// One published version.
#[derive(Debug)]
pub struct Scoring {
    /// Its number, from 1, in the order of publishing.
    pub version: u32,
    /// When points are earned.
    pub rules: RuleSet,
    /// Where they go, by their place in the file.
    pub categories: Vec<Category>,
    /// No person's score passes this.
    pub total_max: Option<Points>,
    /// What rows earned through visitors tied by a claim only may be worth together.
    pub claims_max: Option<Points>,
    /// Is it now?
    pub urgency: Urgency,
    /// The lines, by their place in the file.
    pub thresholds: Vec<Threshold>,
    /// Paths that are never scored.
    pub excluded_paths: Globs,
    /// First lines of messages, by type: `hot`, `cooled`.
    pub texts: BTreeMap<String, Text>,
    /// What people call the stages.
    pub stage_names: BTreeMap<String, String>,
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
        threshold: String,
    },
}

impl fmt::Display for ScoringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany(what) => write!(f, "too many {what} (at most 16)"),
            Self::UnknownCategory { rule } => write!(f, "rule \"{rule}\" names no known category"),
            Self::NoDeadBand { threshold } => {
                write!(f, "threshold \"{threshold}\": fall must be below rise")
            }
        }
    }
}

impl Scoring {
    /// What cannot be checked part by part: that the parts fit together.
    pub fn check(&self) -> Result<(), ScoringError> {
        if self.categories.len() > CATEGORIES_MAX {
            return Err(ScoringError::TooMany("categories"));
        }
        if self.thresholds.len() > THRESHOLDS_MAX {
            return Err(ScoringError::TooMany("thresholds"));
        }
        for rule in self.rules.rules() {
            if self.category(rule.category).is_none() {
                return Err(ScoringError::UnknownCategory { rule: rule.name.clone() });
            }
        }
        match self.thresholds.iter().find(|threshold| threshold.fall >= threshold.rise) {
            Some(flat) => Err(ScoringError::NoDeadBand { threshold: flat.name.clone() }),
            None => Ok(()),
        }
    }

    /// The category of an id, if this version still has it.
    pub fn category(&self, id: CategoryId) -> Option<&Category> {
        self.categories.iter().find(|category| category.id == id)
    }

    /// The threshold of an id, if this version still has it.
    pub fn threshold(&self, id: ThresholdId) -> Option<&Threshold> {
        self.thresholds.iter().find(|threshold| threshold.id == id)
    }

    /// The stage that a known lead's bands put it in: hot and warm alone move it.
    pub fn stage(&self, bands: &[Band]) -> Stage {
        let inside = |name: &str| {
            bands.iter().any(|band| {
                band.inside && self.threshold(band.threshold).is_some_and(|line| line.name == name)
            })
        };
        if inside("hot") {
            Stage::Hot
        } else if inside("warm") {
            Stage::Warm
        } else {
            Stage::Known
        }
    }

    /// The cell people read: the grade's letter and the interest digit, 1 best.
    pub fn cell(&self, grade: Grade, score: Points) -> String {
        let reaches =
            |name: &str| self.thresholds.iter().any(|line| line.name == name && score >= line.rise);
        let digit = if reaches("hot") {
            1
        } else if reaches("warm") {
            2
        } else if score > Points(0) {
            3
        } else {
            4
        };
        format!("{}{digit}", grade.letter())
    }
}
