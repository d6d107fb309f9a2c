//! A browser forgets what it did as somebody who was erased. What it did as others, or as nobody,
//! stays; what was counted on it over all of its hits begins anew.

use std::collections::BTreeSet;

use crate::id::{LeadId, Position};
use crate::time::Timestamp;

use super::Visitor;

impl Visitor {
    /// Everybody who is named on it.
    pub fn named_ones(&self) -> BTreeSet<LeadId> {
        let bound = self.bound.map(|bound| bound.origin);
        self.trail.named_ones().chain(self.named.iter().map(|it| it.0)).chain(bound).collect()
    }

    /// Forgets what it did as somebody, by these names of theirs.
    pub(super) fn forget(&mut self, names: &[LeadId], time: Timestamp, position: Position) {
        let is_theirs = |name: &LeadId| names.contains(name);
        let bound = self.bound.filter(|bound| !is_theirs(&bound.origin));
        let spans = self.trail.forget(names, bound, position);
        let goes = |at: Position| spans.iter().any(|(after, until)| at > *after && at <= *until);
        self.bound = self.trail.bound();
        self.rows.change(|rows| rows.retain(|row| !goes(row.position)));
        let known: BTreeSet<Position> = self.trail.all().map(|it| it.after).collect();
        self.seen.retain(|seen| known.contains(&seen.stretch));
        self.hit_ids.retain(|hit| !goes(hit.position));
        self.named.retain(|(name, _)| !is_theirs(name));
        self.counted.clear();
        self.open_pages.clear();
        let (mut hits, mut pages) = (0_u32, 0_u32);
        for stretch in self.trail.all() {
            hits = hits.saturating_add(stretch.hits);
            pages = pages.saturating_add(stretch.pages);
        }
        (self.hits, self.pages) = (hits, pages);
        let lived = || self.trail.all().filter(|stretch| stretch.hits > 0);
        self.first_seen = lived().map(|stretch| stretch.first_seen).min().unwrap_or_default();
        self.last_when = lived().map(|stretch| stretch.last_when).max().unwrap_or_default();
        if hits == 0 {
            let trail = std::mem::take(&mut self.trail);
            *self = Visitor { trail, bound: self.bound, ..Visitor::default() };
        }
        self.erased = position;
        self.erased_at = time;
    }
}
