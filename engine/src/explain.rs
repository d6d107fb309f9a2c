//! Where a score comes from: what each row is worth at a moment, and the reasons people read.
//! What is shown adds up, to the thousandth, to the number shown (law 3).

use crate::decay::Sum;
use crate::id::{CategoryId, RuleId};
use crate::ledger::{self, Row};
use crate::points::Points;
use crate::record::Reason;
use crate::terms::Terms;
use crate::time::Timestamp;

/// Reasons listed in a message; the rest is one more, of no rule.
const REASONS_MAX: usize = 20;

/// The rule of the last reason, when more rules contributed than a message lists.
pub const OTHER: RuleId = RuleId(u16::MAX);

/// A lead's figures at a moment, row by row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explained {
    /// The score: the categories in the total.
    pub score: Points,
    /// Every category's value, in file order, also of those outside the total.
    pub categories: Vec<(CategoryId, Points)>,
    /// Every row's share of its category's value; they add up to it.
    pub shares: Vec<(Row, Points)>,
}

/// What a ledger is worth at a moment, row by row, adding up exactly.
pub fn explain(rows: &[Row], terms: &Terms, at: Timestamp) -> Explained {
    let mut explained = Explained::default();
    for category in &terms.categories {
        let own: Vec<Row> =
            rows.iter().filter(|row| row.category == category.id).copied().collect();
        let amounts: Vec<_> = own.iter().map(|row| (row.when, row.granted)).collect();
        let sum = Sum::of(category.half_life, amounts.iter().copied());
        let value = sum.value(at);
        if category.in_total {
            explained.score.0 += value.0;
        }
        explained.categories.push((category.id, value));
        explained.shares.extend(own.into_iter().zip(sum.shares(at, &amounts)));
    }
    explained.shares.sort_by_key(|(row, _)| (row.when, row.position, row.order));
    explained
}

/// The value of the same rows, those in the total, with the short memory of urgency.
pub fn urgency(rows: &[Row], terms: &Terms, at: Timestamp) -> Points {
    ledger::urgency(rows, terms).value(at)
}

/// Shares grouped by rule, largest first, cut to a number; they add up to what they did.
pub fn reasons<'a>(shares: impl Iterator<Item = &'a (Row, Points)>) -> Vec<Reason> {
    let mut reasons: Vec<Reason> = Vec::new();
    for (row, share) in shares {
        let index = reasons.iter().position(|reason| reason.rule == row.rule);
        let index = index.unwrap_or_else(|| {
            reasons.push(Reason { rule: row.rule, ..Reason::default() });
            reasons.len() - 1
        });
        let reason = &mut reasons[index];
        reason.points.0 += share.0;
        if row.cut.counted() {
            reason.times += 1;
            reason.last = reason.last.max(row.when);
        }
    }
    reasons.retain(|reason| reason.times > 0 && reason.points.0 != 0);
    reasons.sort_by(|a, b| b.points.cmp(&a.points).then(a.rule.cmp(&b.rule)));
    if reasons.len() > REASONS_MAX {
        let other = reasons.split_off(REASONS_MAX);
        reasons.push(Reason {
            rule: OTHER,
            times: other.iter().map(|reason| reason.times).sum(),
            points: Points(other.iter().map(|reason| reason.points.0).sum()),
            last: other.iter().map(|reason| reason.last).max().unwrap_or_default(),
        });
    }
    reasons
}
