//! What each row is granted, one after the other: the running sums that every max is held against.

use std::sync::Arc;

use crate::decay::{HalfLife, Sum};
use crate::facts::was_there;
use crate::id::{CategoryId, RuleId};
use crate::points::Points;
use crate::rule::{Guards, Once, Period};
use crate::sales::{feedback_of, takes_half};
use crate::terms::{CategoryTerms, Terms};
use crate::time::Timestamp;

use super::{Basis, Cut, Prior, Row};

/// Running sums of the rows settled so far, as they fade under one version. Each is made when it is
/// first asked for: most rules have one limit, and a sum is most of the work.
pub(super) struct Tally<'a> {
    basis: Basis<'a>,
    pub(super) terms: &'a Arc<Terms>,
    // A rule that moved to another category has rows in both, and each fades at its own speed.
    rules: Sums<(RuleId, CategoryId)>,
    /// How many rows stand before the last lost deal: a rule's max counts afresh after it.
    lost: usize,
    categories: Sums<CategoryId>,
    claims: Sums<CategoryId>,
}

/// Sums by what they are of. They are few.
struct Sums<K>(Vec<(K, Sum)>);

impl<K: Eq + Copy> Sums<K> {
    /// The sum, made if it is not there.
    fn of(&mut self, key: K, make: impl FnOnce() -> Sum) -> Sum {
        if let Some((_, known)) = self.0.iter().find(|(known, _)| *known == key) {
            return *known;
        }
        let made = make();
        self.0.push((key, made));
        made
    }

    /// Adds a row to a sum, if it is there. Where the whole must be summed anew it goes.
    fn add(&mut self, key: K, row: &Row) {
        if let Some(place) = self.0.iter().position(|(known, _)| *known == key) {
            match self.0[place].1.with(row.when, row.granted) {
                Some(grown) => self.0[place].1 = grown,
                None => drop(self.0.swap_remove(place)),
            }
        }
    }
}

/// The rows before one that is settled: those that were not laid out for it, and then the others.
pub(super) struct Earlier<'a, P: ?Sized> {
    pub(super) prior: &'a P,
    pub(super) rows: &'a [Row],
}

impl<P: ?Sized> Clone for Earlier<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: ?Sized> Copy for Earlier<'_, P> {}

impl<'a, P: Prior + ?Sized> Earlier<'a, P> {
    /// Those of a rule that have counted, the latest first.
    fn counted_of(self, rule: RuleId) -> impl Iterator<Item = Row> + Clone + 'a {
        self.rows.counted_of(rule).chain(self.prior.counted_of(rule))
    }

    /// What those of a rule sum up to, of a category.
    fn sum_of(self, rule: RuleId, category: &CategoryTerms) -> Sum {
        summed(self.counted_of(rule).filter(|row| row.category == category.id), category.half_life)
    }

    /// What some rows sum up to.
    fn sum(self, half_life: HalfLife, which: impl Fn(&Row) -> bool + Clone) -> Sum {
        summed(self.prior.counted().chain(self.rows.counted()).filter(which), half_life)
    }
}

fn summed(rows: impl Iterator<Item = Row> + Clone, half_life: HalfLife) -> Sum {
    Sum::of(half_life, rows.map(|row| (row.when, row.granted)))
}

/// What a max is held against.
#[derive(Clone, Copy)]
enum Used {
    Rule,
    Category,
    Total,
    Claims,
}

impl<'a> Tally<'a> {
    /// Of the rows before those to settle.
    pub(super) fn of(rows: &[Row], basis: Basis<'a>, terms: &'a Arc<Terms>) -> Tally<'a> {
        Tally {
            basis,
            terms,
            rules: Sums(Vec::new()),
            lost: rows.iter().rposition(is_lost).map_or(0, |place| place + 1),
            categories: Sums(Vec::new()),
            claims: Sums(Vec::new()),
        }
    }

    /// What a row is granted after these.
    pub(super) fn grant<P: Prior + ?Sized>(
        &mut self,
        prior: Earlier<'_, P>,
        row: &Row,
    ) -> (Points, Cut) {
        if row.withdrawn {
            return (Points(0), Cut::Withdrawn);
        }
        match feedback_of(row.rule) {
            Some(_) if row.folded => return (row.base, Cut::Folded),
            Some(_) if takes_half(row.rule, row.order) => {
                return (self.half(prior, row), Cut::None);
            }
            Some(_) if row.base.0 <= 0 => return (row.base, Cut::None),
            Some(_) => return self.fit(prior, row, &Guards::default()),
            None => {}
        }
        // A rule of a version that is no longer kept: what was granted stays.
        let Some(rule) = self.terms.rule(row.rule) else {
            return (row.granted, row.cut);
        };
        if self.basis.is_removed(row, rule) {
            return (Points(0), Cut::Removed);
        }
        if row.folded {
            return (row.base, Cut::Folded);
        }
        let guards = &rule.guards;
        if guards.away.is_some_and(|away| was_there(self.basis.visits, row.when, away)) {
            return (Points(0), Cut::NotAway);
        }
        if !self.basis.is_for(row, guards) {
            return (Points(0), Cut::NotFor);
        }
        if has_counted(prior, row, guards, self.terms) {
            return (Points(0), Cut::Counted);
        }
        if row.base.0 <= 0 {
            return (row.base, Cut::None);
        }
        self.fit(prior, row, guards)
    }

    /// What a lost deal takes: half of what the row's category is worth at its moment, rounded
    /// towards zero. What is worth less than nothing stays.
    fn half<P: Prior + ?Sized>(&mut self, prior: Earlier<'_, P>, row: &Row) -> Points {
        let category = self.terms.category(row.category);
        let value = category.map_or(0, |it| self.category_value(prior, it, row.when).0);
        Points(-(value.max(0) / 2))
    }

    /// The whole points that still fit under every max; the tightest names the cut.
    fn fit<P: Prior + ?Sized>(
        &mut self,
        prior: Earlier<'_, P>,
        row: &Row,
        guards: &Guards,
    ) -> (Points, Cut) {
        let terms = self.terms;
        let mut fits = (row.base, Cut::None);
        let Some(category) = terms.category(row.category) else {
            return fits;
        };
        let in_total = |max: Option<Points>| max.filter(|_| category.in_total);
        let claimed = |_: &Points| (self.basis.claimed)(row.source, row.origin);
        let limits = [
            (guards.max, Used::Rule, Cut::RuleMax),
            (category.max, Used::Category, Cut::CategoryMax),
            (in_total(terms.total_max), Used::Total, Cut::TotalMax),
            (in_total(terms.claims_max).filter(claimed), Used::Claims, Cut::ClaimsMax),
        ];
        for (max, used, cut) in limits {
            let Some(max) = max else {
                continue;
            };
            let used = match used {
                Used::Rule => self.rule_value(prior, row),
                Used::Category => self.category_value(prior, category, row.when),
                Used::Total => {
                    self.total(|it, category| it.category_value(prior, category, row.when))
                }
                Used::Claims => {
                    self.total(|it, category| it.claims_value(prior, category, row.when))
                }
            };
            let room = max.0.saturating_sub(used.0).div_euclid(1_000).max(0);
            if Points::whole(room) < fits.0 {
                fits = (Points::whole(room), cut);
            }
        }
        fits
    }

    /// What a row's rule is worth at its moment, in whatever categories its rows stand.
    fn rule_value<P: Prior + ?Sized>(&mut self, prior: Earlier<'_, P>, row: &Row) -> Points {
        // What a browser did has no answers of sales in it, nor a deal that was lost.
        let fresh = match self.lost {
            0 => prior,
            lost => Earlier { rows: prior.rows.get(lost..).unwrap_or_default(), ..prior },
        };
        let mut value = 0;
        for category in &self.terms.categories {
            let of = || fresh.sum_of(row.rule, category);
            let of = self.rules.of((row.rule, category.id), of);
            value += of.value(row.when).0;
        }
        Points(value)
    }

    fn category_value<P: Prior + ?Sized>(
        &mut self,
        prior: Earlier<'_, P>,
        category: &CategoryTerms,
        at: Timestamp,
    ) -> Points {
        let (id, half_life) = (category.id, category.half_life);
        let of = self.categories.of(id, || prior.sum(half_life, |row| row.category == id));
        of.value(at)
    }

    /// What is claimed in a category.
    fn claims_value<P: Prior + ?Sized>(
        &mut self,
        prior: Earlier<'_, P>,
        category: &CategoryTerms,
        at: Timestamp,
    ) -> Points {
        let (id, basis) = (category.id, self.basis);
        let claimed = |row: &Row| row.category == id && tally_claims(row, &basis);
        self.claims.of(id, || prior.sum(category.half_life, claimed)).value(at)
    }

    /// The sum of the categories that count in the total.
    fn total(&mut self, value: impl Fn(&mut Self, &CategoryTerms) -> Points) -> Points {
        let counted = self.terms.categories.iter().filter(|category| category.in_total);
        Points(counted.map(|category| value(self, category).0).sum())
    }

    /// Adds a settled row, the one at an index.
    pub(super) fn add(&mut self, row: &Row, index: usize) {
        if is_lost(row) {
            self.rules.0.clear();
            self.lost = index + 1;
        } else {
            self.rules.add((row.rule, row.category), row);
        }
        self.categories.add(row.category, row);
        if tally_claims(row, &self.basis) {
            self.claims.add(row.category, row);
        }
    }
}

/// Whether a row is what a lost deal took.
fn is_lost(row: &Row) -> bool {
    takes_half(row.rule, row.order)
}

/// Minus rows too: what was earned by a claim and taken away again leaves room, as under any
/// other max.
fn tally_claims(row: &Row, basis: &Basis<'_>) -> bool {
    row.granted.0 != 0 && (basis.claimed)(row.source, row.origin)
}

/// Whether the rule has used up what its guards allow, before this row.
fn has_counted<P: Prior + ?Sized>(
    prior: Earlier<'_, P>,
    row: &Row,
    guards: &Guards,
    terms: &Terms,
) -> bool {
    if guards.once.is_none() && guards.once_per.is_none() && guards.at_most.is_none() {
        return false;
    }
    let offset = terms.offset;
    let mut earlier = prior.counted_of(row.rule);
    if let Some(once) = guards.once {
        let blocked = earlier.clone().next().is_some_and(|last| match once {
            Once::Ever => true,
            Once::Rearmed(after) => row.when.since(last.when) < after,
        });
        if blocked {
            return true;
        }
    }
    let latest = earlier.clone().next();
    let holds =
        |period: Period| latest.is_some_and(|last| period.holds(last.when, row.when, offset));
    if guards.once_per.is_some_and(holds) {
        return true;
    }
    guards.at_most.is_some_and(|(most, period)| {
        let within =
            earlier.by_ref().take_while(|other| period.holds(other.when, row.when, offset));
        within.take(most as usize).count() >= most as usize
    })
}
