//! How often a signed link may still name a person. A link that is passed around, or opened by
//! machine again and again, stops doing so; where it leads stays as it was.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use engine::hit::Hit;
use engine::record::{Body, Record};
use engine::time::Timestamp;

use super::{LIFE_MAX, SignedLink};

/// Links counted at once. When it is reached a further one names nobody.
const LINKS_MAX: usize = 500_000;
/// What a hit's property is called that holds its link's number.
pub const PROPERTY: &str = "link";

/// Uses by link.
#[derive(Debug, Default)]
pub struct LinkUses(Mutex<BTreeMap<u64, Uses>>);

#[derive(Clone, Copy, Debug)]
struct Uses {
    times: u32,
    /// Of no more interest from then on.
    until: Timestamp,
}

impl LinkUses {
    /// Counts a use; whether the link may still name somebody.
    pub fn allow(&self, link: &SignedLink, now: Timestamp) -> bool {
        let mut all = self.locked();
        if all.len() >= LINKS_MAX {
            all.retain(|_, uses| now < uses.until);
        }
        let known = all.contains_key(&link.id);
        if !known && all.len() >= LINKS_MAX {
            return false;
        }
        let until = Timestamp(link.until_ms);
        let uses = all.entry(link.id).or_insert(Uses { times: 0, until });
        uses.until = until;
        let allowed = uses.times < link.uses_max;
        uses.times = uses.times.saturating_add(u32::from(allowed));
        allowed
    }

    /// Counts what the journal says was used.
    pub fn evolve(&self, record: &Record) {
        let Body::Hit(record) = &record.body else {
            return;
        };
        if let Some(id) = used_by(&record.hit) {
            let mut all = self.locked();
            // No link lives longer; its own end is known when it is used again.
            let until = record.hit.received.plus(LIFE_MAX);
            let uses = all.entry(id).or_insert(Uses { times: 0, until });
            uses.times = uses.times.saturating_add(1);
        }
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<u64, Uses>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The link by which a hit names somebody.
fn used_by(hit: &Hit) -> Option<u64> {
    hit.claim.as_ref().filter(|claim| claim.by_link)?;
    let (_, id) = hit.properties.iter().find(|(name, _)| name == PROPERTY)?;
    u64::from_str_radix(id, 16).ok()
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
            until_ms: 1_000,
            uses_max: 2,
            id,
        }
    }

    #[test]
    fn a_link_names_somebody_as_often_as_it_may_also_after_a_restart() {
        let uses = LinkUses::default();
        let used: Vec<bool> = (0..4).map(|_| uses.allow(&link(7), Timestamp(1))).collect();
        assert_eq!(used, [true, true, false, false]);
        assert!(uses.allow(&link(8), Timestamp(1)));

        let hit = Hit {
            claim: Some(Claim { by_link: true, ..Claim::default() }),
            properties: vec![(PROPERTY.into(), format!("{:016x}", 7))],
            ..Hit::default()
        };
        let body = Body::Hit(Box::new(HitRecord { hit, ..HitRecord::default() }));
        let replayed = LinkUses::default();
        replayed.evolve(&Record { time: Timestamp(1), version: 1, body });
        let used: Vec<bool> = (0..3).map(|_| replayed.allow(&link(7), Timestamp(1))).collect();
        assert_eq!(used, [true, false, false]);
    }
}
