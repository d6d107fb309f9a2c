//! Folding: the oldest rows of a ledger that is full become one for each name, source, rule and
//! category. What they are worth stays; how they were granted is final.

use std::collections::BTreeMap;

use crate::facts::Source;
use crate::id::{CategoryId, LeadId, RuleId};
use crate::terms::Terms;

use super::{Cut, Fold, LEDGER_ROWS_MAX, Row, insert, sum};

/// Rows folded at a time, so that folding is rare.
pub const LEDGER_ROWS_FOLDED: usize = 1_024;

/// What the oldest rows fold into: one row per (origin, source, rule, category), at the moment
/// at which the rule last counted, worth what they are worth together then. Rows that did not
/// count are worth nothing and leave no trace.
pub fn fold(rows: &[Row], terms: &Terms) -> Vec<Row> {
    type Group = (LeadId, Source, RuleId, CategoryId);
    let mut groups: BTreeMap<Group, Vec<Row>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.cut.counted()) {
        let group = (row.origin, row.source, row.rule, row.category);
        groups.entry(group).or_default().push(*row);
    }
    let mut folded: Vec<Row> =
        groups.into_values().filter_map(|group| fold_group(&group, terms)).collect();
    folded.sort_by_key(Row::key);
    folded
}

fn fold_group(group: &[Row], terms: &Terms) -> Option<Row> {
    let latest = *group.last()?;
    if group.len() == 1 && latest.folded {
        return Some(latest);
    }
    let granted = terms.category(latest.category).map_or(latest.granted, |category| {
        sum(group, category.half_life, |_| true).value(latest.when)
    });
    // Its grant is final, so nothing of it is held back.
    Some(Row { granted, base: granted, cut: Cut::Folded, folded: true, ..latest })
}

/// How many of the oldest rows to fold so that this many fit, and into what. Nothing, if there
/// is room, or if so many sources and rules are behind them that folding gains little.
pub fn fold_for(rows: &[Row], fit: usize, terms: &Terms) -> Option<Fold> {
    let over = (rows.len() + fit).checked_sub(LEDGER_ROWS_MAX).filter(|over| *over > 0)?;
    [over.max(LEDGER_ROWS_FOLDED).min(rows.len()), rows.len()].into_iter().find_map(|count| {
        let into = fold(&rows[..count], terms);
        let gain = count - into.len();
        (gain >= over.max(count / 2)).then_some(Fold { rows: count as u32, into })
    })
}

/// Replaces the oldest rows.
pub fn apply_fold(rows: &mut Vec<Row>, fold: &Fold) {
    rows.drain(..(fold.rows as usize).min(rows.len()));
    for row in &fold.into {
        insert(rows, *row);
    }
}
