//! How often a signed link may still name a person. A link that is passed around, or opened by
//! machine again and again, stops doing so; where it leads stays as it was.

pub mod saved;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::hit::Hit;
use engine::record::{Body, Record};
use engine::time::Timestamp;

use super::{LIFE_MAX, SignedLink};

/// Links counted at once. When it is reached a further one names nobody.
const LINKS_MAX: usize = 500_000;
/// When it is reached, links that are over are looked for no more often than this: whoever is
/// refused must not make every further one go over all of them.
const PRUNE_EVERY: Duration = Duration::from_mins(1);
/// What a hit's property is called that holds its link's number and end.
pub const PROPERTY: &str = "link";

/// Uses by link.
#[derive(Debug, Default)]
pub struct LinkUses(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    links: BTreeMap<u64, Uses>,
    pruned: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
struct Uses {
    times: u32,
    /// Of no more interest from then on.
    until: Timestamp,
}

impl LinkUses {
    /// Counts a use; whether the link may still name somebody.
    pub fn allow(&self, link: &SignedLink, now: Timestamp) -> bool {
        let mut counted = self.locked();
        let Some(uses) = counted.of(link.id, Timestamp(link.until_ms), now) else {
            return false;
        };
        let allowed = uses.times < link.uses_max;
        uses.times = uses.times.saturating_add(u32::from(allowed));
        allowed
    }

    /// Takes a use back that named nobody in the end.
    pub fn give_back(&self, id: u64) {
        if let Some(uses) = self.locked().links.get_mut(&id) {
            uses.times = uses.times.saturating_sub(1);
        }
    }

    /// Counts what the journal says was used.
    pub fn evolve(&self, record: &Record) {
        let Body::Hit(record) = &record.body else {
            return;
        };
        let now = record.hit.received;
        if let Some((id, until)) = used_by(&record.hit)
            && let Some(uses) = self.locked().of(id, until, now)
        {
            uses.times = uses.times.saturating_add(1);
        }
    }

    fn locked(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    /// The uses of a link; nothing if it is new and there is no room for it.
    fn of(&mut self, id: u64, until: Timestamp, now: Timestamp) -> Option<&mut Uses> {
        let known = self.links.contains_key(&id);
        if !known && self.links.len() >= LINKS_MAX {
            if self.pruned.is_none_or(|pruned| now.since(pruned) >= PRUNE_EVERY) {
                self.links.retain(|_, uses| now < uses.until);
                self.pruned = Some(now);
            }
            if self.links.len() >= LINKS_MAX {
                return None;
            }
        }
        Some(self.links.entry(id).or_insert(Uses { times: 0, until }))
    }
}

/// What is written on a hit that came by a link, unless it is sent again and costs no use.
pub fn mark(hit: &mut Hit, link: &SignedLink) {
    hit.properties.push((PROPERTY.to_owned(), format!("{:016x}.{:x}", link.id, link.until_ms)));
}

/// The link by which a hit names somebody, and its end.
pub fn used_by(hit: &Hit) -> Option<(u64, Timestamp)> {
    hit.claim.as_ref().filter(|claim| claim.by_link)?;
    // Ours is the last: a page may have a property of that name too.
    let (_, mark) = hit.properties.iter().rfind(|(name, _)| name == PROPERTY)?;
    let (id, until) = match mark.split_once('.') {
        Some((id, until)) => (id, Timestamp(u64::from_str_radix(until, 16).ok()?)),
        // Written before ends were: no link lives longer.
        None => (mark.as_str(), hit.received.plus(LIFE_MAX)),
    };
    Some((u64::from_str_radix(id, 16).ok()?, until))
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;
    use engine::hit::Claim;
    use engine::record::HitRecord;

    fn link(id: u64) -> SignedLink {
        SignedLink {
            kind: Kind::Click,
            site: String::new(),
            test: false,
            who: String::new(),
            value: String::new(),
            url: String::new(),
            landing: false,
            mail: String::new(),
            title: String::new(),
            made_ms: 0,
            until_ms: 1_000,
            uses_max: 2,
            id,
        }
    }

    fn hit_by(link: &SignedLink, received: u64) -> Hit {
        let claim = Some(Claim { by_link: true, ..Claim::default() });
        let mut hit = Hit { claim, received: Timestamp(received), ..Hit::default() };
        mark(&mut hit, link);
        hit
    }

    fn record(hit: Hit) -> Record {
        let body = Body::Hit(Box::new(HitRecord { hit, ..HitRecord::default() }));
        Record { time: Timestamp(1), version: 1, body }
    }

    fn often(uses: &LinkUses, times: usize) -> Vec<bool> {
        (0..times).map(|_| uses.allow(&link(7), Timestamp(1))).collect()
    }

    #[test]
    fn a_link_names_somebody_as_often_as_it_may_also_after_a_restart() {
        let uses = LinkUses::default();
        assert_eq!(often(&uses, 4), [true, true, false, false]);
        assert!(uses.allow(&link(8), Timestamp(1)));
        uses.give_back(7);
        assert_eq!(often(&uses, 2), [true, false]);

        let replayed = LinkUses::default();
        replayed.evolve(&record(hit_by(&link(7), 1)));
        assert_eq!(often(&replayed, 3), [true, false, false]);
    }

    #[test]
    fn a_hit_that_is_sent_again_and_a_property_of_the_pages_own_cost_no_use() {
        let replayed = LinkUses::default();
        let again = Hit { properties: Vec::new(), ..hit_by(&link(7), 1) };
        replayed.evolve(&record(again));
        let mut forged = hit_by(&link(8), 1);
        forged.properties.insert(0, (PROPERTY.into(), format!("{:016x}", 7)));
        replayed.evolve(&record(forged));
        assert_eq!(often(&replayed, 3), [true, true, false]);
    }

    #[test]
    fn what_the_journal_says_is_bounded_and_goes_when_its_link_is_over() {
        let replayed = LinkUses::default();
        let until = |id: u64, until_ms: u64| SignedLink { until_ms, ..link(id) };
        for id in 0..LINKS_MAX as u64 + 10 {
            replayed.evolve(&record(hit_by(&until(id, 1_000), 0)));
        }
        assert_eq!(replayed.locked().links.len(), LINKS_MAX);
        // They are over: the next minute that is full forgets them.
        replayed.evolve(&record(hit_by(&until(LINKS_MAX as u64 + 50, 90_000), 59_999)));
        assert_eq!(replayed.locked().links.len(), LINKS_MAX, "looked for a moment ago");
        replayed.evolve(&record(hit_by(&until(LINKS_MAX as u64 + 50, 90_000), 60_000)));
        assert_eq!(replayed.locked().links.len(), 1);
    }

    #[test]
    fn a_mark_without_an_end_is_believed_for_as_long_as_any_link_lives() {
        let mut hit = hit_by(&link(7), 5);
        hit.properties[0].1 = format!("{:016x}", 7);
        assert_eq!(used_by(&hit), Some((7, Timestamp(5).plus(LIFE_MAX))));
        assert_eq!(used_by(&hit_by(&link(7), 5)), Some((7, Timestamp(1_000))));
    }
}
