//! A browser's whole past, hit by hit: whose each hit is by what was said there and by the steps
//! that people took, each in its turn. Nothing is ever undone here.

use std::collections::BTreeSet;

use engine::hit::Hit;
use engine::id::{LeadId, Position};
use engine::identity::Assurance;

use super::life::{Award, HOUR};

const SESSION_GAP: u64 = HOUR / 2;
const VISITOR_LIFE: u64 = 400 * 24 * HOUR;
const DAY: u64 = 24 * HOUR;

/// A hit, and whose it is.
#[derive(Clone, Debug)]
pub struct Past {
    pub position: Position,
    pub hit: Hit,
    /// The version in force then.
    pub version: u32,
    /// Whose it is by what was said on the browser.
    base: Option<LeadId>,
    /// What steps said of it: taken from somebody, or given to somebody, and how surely.
    steps: Vec<Moved>,
    /// How sure what was said with it makes it for whom.
    sure: Vec<(LeadId, Assurance)>,
}

/// What a step said of a hit.
#[derive(Clone, Copy, Debug)]
enum Moved {
    From(LeadId),
    To(LeadId, Assurance),
}

impl Past {
    /// Whose it is.
    pub fn owner(&self) -> Option<LeadId> {
        self.owned().map(|(owner, _)| owner)
    }

    /// Whose it is, and how sure the steps are that say so.
    fn owned(&self) -> Option<(LeadId, Assurance)> {
        let base = self.base.map(|base| (base, Assurance::Claimed));
        self.steps.iter().fold(base, |owned, step| match (step, owned) {
            (Moved::To(to, sure), Some((owner, known))) if owner == *to => {
                Some((owner, known.max(*sure)))
            }
            (Moved::To(to, sure), _) => Some((*to, *sure)),
            (Moved::From(from), Some((owner, _))) if owner == *from => None,
            (Moved::From(_), owned) => owned,
        })
    }
}

/// Whom a browser is bound to.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    pub origin: LeadId,
    pub names: [Option<LeadId>; 3],
    pub sure: Assurance,
    /// Nobody has said so on the browser: a step did.
    pub by_step: bool,
}

/// A browser's whole past.
#[derive(Clone, Debug, Default)]
pub struct Browser {
    pub past: Vec<Past>,
    /// What was earned, by the number of the hit.
    pub awards: Vec<(Award, usize)>,
    pub bound: Option<Bound>,
    pub shared: bool,
    named: Vec<(LeadId, u64)>,
    /// The first hit of those that come along with whoever is named next.
    free: usize,
}

impl Browser {
    pub fn is_forgotten(&self, now: u64) -> bool {
        let last = self.past.iter().map(|past| past.hit.received.0).max();
        last.is_some_and(|last| now.saturating_sub(last) >= VISITOR_LIFE)
    }

    pub fn opens_session(&self, received: u64) -> bool {
        let last = self.past.iter().map(|past| past.hit.received.0).max();
        last.is_none_or(|last| received.saturating_sub(last) >= SESSION_GAP)
    }

    /// It is nobody's from here on, whatever it was.
    pub fn sever(&mut self) {
        self.bound = None;
        self.free = self.past.len();
    }

    /// One more hit, of whom the browser is bound to.
    pub fn add(
        &mut self,
        (position, hit): (Position, &Hit),
        version: u32,
        sure: Option<(LeadId, Assurance)>,
    ) {
        self.past.push(Past {
            position,
            hit: hit.clone(),
            version,
            base: self.bound.as_ref().map(|bound| bound.origin),
            steps: Vec::new(),
            sure: sure.into_iter().collect(),
        });
    }

    /// Somebody else than before says who they are.
    pub fn bind(&mut self, bound: Bound, now: u64) {
        if self.bound.is_none() && !self.shared {
            for past in self.past[self.free..].iter_mut().filter(|past| past.base.is_none()) {
                past.base = Some(bound.origin);
            }
        }
        self.named.retain(|(name, at)| *name != bound.origin && now.saturating_sub(*at) < DAY);
        self.named.push((bound.origin, now));
        self.bound = Some(bound);
    }

    /// Everybody who was ever named here.
    pub fn all_named(&self) -> BTreeSet<LeadId> {
        let mut all: BTreeSet<LeadId> = self.named.iter().map(|(name, _)| *name).collect();
        if let Some(bound) = &self.bound {
            all.insert(bound.origin);
            all.extend(bound.names.iter().flatten());
        }
        for past in &self.past {
            all.extend(past.base);
            all.extend(past.steps.iter().map(|step| match step {
                Moved::From(name) | Moved::To(name, _) => *name,
            }));
        }
        all
    }

    /// How many people were named here within a day, with this one.
    pub fn named_with(&self, origin: LeadId, now: u64) -> usize {
        let recent = |(name, at): &&(LeadId, u64)| *name != origin && now.saturating_sub(*at) < DAY;
        self.named.iter().filter(recent).count() + 1
    }

    /// Hits are a person's, and what follows if the browser is nobody's.
    pub fn give(&mut self, hits: &[Position], bound: Bound) {
        for past in self.past.iter_mut().filter(|past| hits.contains(&past.position)) {
            past.steps.push(Moved::To(bound.origin, bound.sure));
        }
        if self.bound.is_none() {
            self.bound = Some(bound);
        }
    }

    /// Hits are not whose they are, nor is the browser if it is bound to that name.
    pub fn take(&mut self, hits: &[(Position, LeadId)], bound: Option<LeadId>) {
        for past in &mut self.past {
            let own = hits.iter().filter(|(position, _)| *position == past.position);
            past.steps.extend(own.map(|(_, from)| Moved::From(*from)));
        }
        if bound.is_some() && self.bound.as_ref().map(|it| it.origin) == bound {
            self.sever();
        }
    }

    /// How sure it is that what is a name's here is theirs; nothing if nothing is.
    pub fn sure_of(&self, name: LeadId) -> Option<Assurance> {
        let own = self.past.iter().filter_map(|past| {
            let (_, given) = past.owned().filter(|(owner, _)| *owner == name)?;
            let said = past.sure.iter().filter(|(whose, _)| *whose == name);
            Some(said.map(|(_, sure)| *sure).fold(given, Assurance::max))
        });
        own.max()
    }

    /// Whether a hit is one of its last 64 within a day.
    pub fn is_repeat(&self, hit: &Hit) -> bool {
        if hit.id == 0 || self.is_forgotten(hit.received.0) {
            return false;
        }
        let named = self.past.iter().rev().map(|past| &past.hit).filter(|known| known.id != 0);
        let fresh = |known: &Hit| hit.received.0.saturating_sub(known.received.0) < DAY;
        named.take(64).any(|known| known.id == hit.id && fresh(known))
    }
}
