//! Terms are what settling needs of a version of the scoring: limits, lines and lasting times,
//! and nothing of matching. They are journaled with the version, so that what was earned under
//! it can be settled anew for ever, whatever became of the rule file and its reader.

use std::sync::Arc;

use crate::decay::HalfLife;
use crate::grade::{Fit, Grade};
use crate::id::{CategoryId, RuleId, ThresholdId};
use crate::points::Points;
use crate::rule::{Guards, OnRemove};
use crate::sales::Dealings;
use crate::stage::Stage;
use crate::threshold::{Band, Threshold};
use crate::time::{Timestamp, UtcOffset};

/// Versions whose terms are kept. What was earned under an older one is settled by the oldest.
pub const VERSIONS_MAX: usize = 1_000;
/// The line that makes a lead warm.
pub const WARM: &str = "warm";
/// The line that makes a lead hot.
pub const HOT: &str = "hot";

/// What settling needs of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The version's number, from 1, in the order of publishing.
    pub version: u32,
    /// From when on it is in force.
    pub published: Timestamp,
    /// Where a day begins.
    pub offset: UtcOffset,
    /// Where points go, by their place in the file.
    pub categories: Vec<CategoryTerms>,
    /// No person's score passes this.
    pub total_max: Option<Points>,
    /// What rows earned through visitors tied by a claim only may be worth together.
    pub claims_max: Option<Points>,
    /// The short half-life of urgency.
    pub urgency: HalfLife,
    /// Limits of the rules, by id.
    pub rules: Vec<RuleTerms>,
    /// The lines, by their place in the file.
    pub thresholds: Vec<Threshold>,
    /// What makes a grade.
    pub fit: Fit,
}

/// What settling needs of a category.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CategoryTerms {
    /// The category.
    pub id: CategoryId,
    /// Points halve in this time.
    pub half_life: HalfLife,
    /// What it may be worth at any moment, after fading.
    pub max: Option<Points>,
    /// Whether it counts in the score, for thresholds and the total limit.
    pub in_total: bool,
}

/// What settling needs of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleTerms {
    /// The rule.
    pub id: RuleId,
    /// How often, how much, for whom.
    pub guards: Guards,
    /// Which audience is told at once.
    pub tell: Option<String>,
    /// What becomes of its rows when it goes.
    pub on_remove: OnRemove,
}

impl Terms {
    /// The category of an id, if this version has it.
    pub fn category(&self, id: CategoryId) -> Option<&CategoryTerms> {
        self.categories.iter().find(|category| category.id == id)
    }

    /// Whether a category counts in the score.
    pub fn is_in_total(&self, id: CategoryId) -> bool {
        self.category(id).is_some_and(|category| category.in_total)
    }

    /// The limits of a rule, if this version has it.
    pub fn rule(&self, id: RuleId) -> Option<&RuleTerms> {
        let place = self.rules.binary_search_by_key(&id, |rule| rule.id).ok()?;
        self.rules.get(place)
    }

    /// The threshold of an id, if this version has it.
    pub fn threshold(&self, id: ThresholdId) -> Option<&Threshold> {
        self.thresholds.iter().find(|threshold| threshold.id == id)
    }

    /// The stage of a known lead: while marketing owns it, hot and warm alone move it; else what
    /// sales answered.
    pub fn stage(&self, bands: &[Band], dealings: &Dealings) -> Stage {
        let hot = bands
            .iter()
            .find(|band| self.threshold(band.threshold()).is_some_and(|line| line.name == HOT));
        let side = hot.map_or((false, Timestamp(0)), |hot| (hot.side.inside, hot.side.since));
        if let Some(stage) = dealings.shown(side) {
            return stage;
        }
        let inside = |name: &str| {
            bands.iter().any(|band| {
                band.side.inside
                    && self.threshold(band.threshold()).is_some_and(|line| line.name == name)
            })
        };
        if inside(HOT) {
            Stage::Hot
        } else if inside(WARM) {
            Stage::Warm
        } else {
            Stage::Known
        }
    }

    /// The cell people read: the grade's letter and the interest digit, 1 best.
    pub fn cell(&self, grade: Grade, score: Points) -> String {
        let reaches =
            |name: &str| self.thresholds.iter().any(|line| line.name == name && score >= line.rise);
        let digit = if reaches(HOT) {
            1
        } else if reaches(WARM) {
            2
        } else if score > Points(0) {
            3
        } else {
            4
        };
        format!("{}{digit}", grade.letter())
    }

    /// The short half-life, if a line asks for urgency.
    pub fn asked_urgency(&self) -> Option<HalfLife> {
        let asks = self.thresholds.iter().any(|line| line.urgency.is_some());
        asks.then_some(self.urgency)
    }

    /// Whether the same rows fade alike under both.
    fn fades_like(&self, other: &Terms) -> bool {
        let fading = |terms: &Terms| -> Vec<(CategoryId, HalfLife, bool)> {
            let of = |it: &CategoryTerms| (it.id, it.half_life, it.in_total);
            terms.categories.iter().map(of).collect()
        };
        fading(self) == fading(other) && self.asked_urgency() == other.asked_urgency()
    }
}

/// The versions of an installation, the latest last; never none once one was published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions(Vec<Arc<Terms>>);

impl Versions {
    /// Only this one, in force since ever.
    pub fn only(terms: Terms) -> Versions {
        Versions(vec![Arc::new(terms)])
    }

    /// Adds the next version; the latest again takes its own place.
    pub fn publish(&mut self, terms: Terms) {
        self.0.pop_if(|latest| latest.version == terms.version);
        if self.0.len() == VERSIONS_MAX {
            self.0.remove(0);
        }
        self.0.push(Arc::new(terms));
    }

    /// The version in force.
    pub fn latest(&self) -> Option<&Arc<Terms>> {
        self.0.last()
    }

    /// All that are kept, the oldest first.
    pub fn all(&self) -> &[Arc<Terms>] {
        &self.0
    }

    /// The version of a number; the nearest later one if it is not kept.
    pub fn numbered(&self, version: u32) -> Option<&Arc<Terms>> {
        let place = self.0.partition_point(|terms| terms.version < version);
        self.0.get(place).or(self.0.last())
    }

    /// The version in force at a moment, but none before `least`: history that was settled anew
    /// under a version is as if that had always been in force. Versions recorded without their
    /// terms, by the first format, are taken to have had those of the next that has them.
    pub fn at(&self, moment: Timestamp, least: u32) -> Option<&Arc<Terms>> {
        let begun = |terms: &Arc<Terms>| terms.published <= moment || terms.version <= least;
        let place = self.0.iter().rposition(begun).unwrap_or(0);
        let recorded = self.0[place..].iter().find(|terms| !terms.thresholds.is_empty());
        recorded.or(self.0.get(place))
    }

    /// The first moment after this one at which another version comes into force.
    pub fn next_change(&self, after: Timestamp, least: u32) -> Option<Timestamp> {
        let later = self.0.iter().filter(|terms| terms.version > least);
        later.map(|terms| terms.published).filter(|published| *published > after).min()
    }

    /// Whether rows fade alike under two versions.
    pub fn fade_alike(&self, one: u32, other: u32) -> bool {
        one == other
            || match (self.numbered(one), self.numbered(other)) {
                (Some(one), Some(other)) => one.fades_like(other),
                _ => false,
            }
    }
}
