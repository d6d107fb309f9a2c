//! The shadow audit: whether what is in memory is what the records make of it. Some slots at a
//! time are looked at, an entry after another, each under its own lock for as long as it takes to
//! hash it; then a shadow engine is led from a snapshot, or from nothing, along the journal, and
//! each entry compared at the very record that it knew when it was looked at. Records go on being
//! pushed meanwhile, and nobody waits.
//!
//! What is in one of the two alone must be explained by the record it came with or by expiry.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use crate::id::{Position, Slot};
use crate::lead::Unseal;
use crate::record::Record;
use crate::snapshot::{SlotReader, SnapshotError};
use crate::time::Timestamp;

use super::saving::rest_now_and_then;
use super::{Engine, Who, hash};

/// Differences that are named, the first ones. All are counted.
pub const DIFFERENCES_MAX: usize = 8;

/// How the entry in memory differs from what the records make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// It knows the same records and holds something else.
    Content,
    /// It does not know of a record that is its own.
    Behind,
    /// It knows of a record that is not its own.
    Unfounded,
    /// It is not there.
    Missing,
}

/// An entry that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Whose it is.
    pub who: Who,
    /// In what.
    pub how: How,
    /// At which record: the last one that both know, or the one that only one of them knows.
    pub position: Position,
}

/// What an audit found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audited {
    /// Entries in memory that were compared.
    pub entries: usize,
    /// How many differ.
    pub different: usize,
    /// The first of them.
    pub differences: Vec<Difference>,
    /// Whether somebody was erased meanwhile: their key is gone, and what was said before cannot
    /// be read any more, so that differences may mean nothing. It is to be done again.
    pub disturbed: bool,
}

/// An entry in memory as it was when it was looked at.
#[derive(Clone, Copy)]
struct Noted {
    position: Position,
    hash: u128,
    compared: bool,
}

/// An audit of some slots that is under way.
pub struct Audit {
    slots: Range<u16>,
    /// Records until this one had been applied when the first entry was looked at.
    pushed: Position,
    /// The last record that any entry knew.
    latest: Position,
    now: Timestamp,
    erasures: u64,
    unseen: Vec<Who>,
    noted: BTreeMap<Who, Noted>,
    shadow: Engine,
    different: BTreeSet<Who>,
    differences: Vec<Difference>,
    bytes: Vec<u8>,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Visitor(id) => id.fmt(f),
            Who::Lead(id) => id.fmt(f),
        }
    }
}

impl Who {
    /// Its slot.
    pub fn slot(self) -> Slot {
        match self {
            Who::Visitor(id) => id.slot(),
            Who::Lead(id) => id.slot(),
        }
    }

    /// Whose entries a record is about.
    fn all_of(record: &Record) -> impl Iterator<Item = Who> {
        let visitor = record.previous_of_visitor().map(|(id, _)| Who::Visitor(id));
        visitor.into_iter().chain(record.lead_part().map(|part| Who::Lead(part.lead)))
    }
}

impl How {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            How::Content => "it holds something else",
            How::Behind => "it does not know of a record",
            How::Unfounded => "it knows of a record that is not there",
            How::Missing => "it is not there",
        }
    }
}

impl Audit {
    /// Of these slots. `pushed` is a record that was pushed before, and as late as can be; the
    /// snapshot that the shadow begins with was opened before that. `rest` is called again and
    /// again meanwhile, under the lock of one shard: whoever wants that waits for it.
    pub fn begin(
        live: &Engine,
        slots: Range<u16>,
        pushed: Position,
        now: Timestamp,
        mut rest: impl FnMut(),
    ) -> Audit {
        let erasures = live.erasures.count();
        let within = |who: Who| slots.contains(&who.slot().0).then_some(who);
        let (mut unseen, mut passed) = (Vec::new(), 0);
        let mut take = |who: Who| {
            unseen.extend(within(who));
            passed += 1;
            rest_now_and_then(passed, &mut rest);
        };
        live.visitors.each_id(|id| take(Who::Visitor(*id)));
        live.leads.each(|id, _| take(Who::Lead(*id)));
        Audit {
            slots,
            pushed,
            latest: pushed,
            now,
            erasures,
            unseen,
            noted: BTreeMap::new(),
            // Few locks: one thread alone uses it.
            shadow: Engine::new(2),
            different: BTreeSet::new(),
            differences: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// Looks at so many entries in memory; whether all were looked at.
    pub fn look(&mut self, live: &Engine, most: usize) -> bool {
        for who in self.unseen.split_off(self.unseen.len().saturating_sub(most)) {
            let bytes = &mut self.bytes;
            // Who has expired is absent.
            let found = match who {
                Who::Visitor(id) => live
                    .visitors
                    .get(&id)
                    .filter(|held| held.exists() && !held.is_expired(self.now))
                    .map(|held| (held.last_position, hash::of_visitor(id, &held, bytes))),
                Who::Lead(id) => live
                    .leads
                    .get(&id)
                    .filter(|held| held.exists())
                    .map(|held| (held.last_position, hash::of_lead(id, &held, bytes))),
            };
            if let Some((position, hash)) = found {
                self.latest = self.latest.max(position);
                self.noted.insert(who, Noted { position, hash, compared: false });
            }
        }
        self.unseen.is_empty()
    }

    /// The last record that counts. None may be missing up to it.
    pub fn until(&self) -> Position {
        self.latest
    }

    /// Takes one of the slots out of a snapshot. All that are in it come before any record after
    /// the one that it was begun after. `rest` is called after every entry.
    pub fn restore(
        &mut self,
        slots: &SlotReader<'_>,
        unseal: &Unseal<'_>,
        rest: &dyn Fn(),
    ) -> Result<(), SnapshotError> {
        let (mut visitors, mut leads) = (Vec::new(), Vec::new());
        let range = &self.slots;
        slots.read(
            unseal,
            |id, held| {
                visitors.extend(range.contains(&id.slot().0).then_some((id, held)));
                rest();
            },
            |id, held| {
                leads.extend(range.contains(&id.slot().0).then_some((id, held)));
                rest();
            },
        )?;
        for (id, held) in visitors {
            self.shadow.visitors.insert(id, held);
            self.compare(Who::Visitor(id));
            rest();
        }
        for (id, held) in leads {
            self.shadow.leads.insert(id, held);
            self.compare(Who::Lead(id));
            rest();
        }
        Ok(())
    }

    /// Whether a record is about any of these slots: only then it need be opened and applied.
    pub fn concerns(&self, record: &Record) -> bool {
        Who::all_of(record).any(|who| self.slots.contains(&who.slot().0))
    }

    /// Applies to the shadow what of a record belongs to it, and compares whoever has come to
    /// where they were looked at.
    pub fn apply(&mut self, record: &Record, position: Position) {
        let mut wanted = [None; 2];
        for (wanted, who) in wanted.iter_mut().zip(Who::all_of(record)) {
            match self.noted.get(&who) {
                _ if !self.slots.contains(&who.slot().0) => {}
                Some(noted) if position <= noted.position => {
                    *wanted = Some(who).filter(|_| !noted.compared);
                }
                // Whatever was pushed before anybody was looked at was applied by then.
                Some(_) if position <= self.pushed => self.report(who, How::Behind, position),
                None if position <= self.pushed => *wanted = Some(who),
                Some(_) | None => {}
            }
        }
        self.shadow.evolve_those(record, position, |who| wanted.contains(&Some(who)));
        wanted.into_iter().flatten().for_each(|who| self.compare(who));
    }

    /// Compares an entry of the shadow, if it has come to where the one in memory was looked at,
    /// and drops it.
    fn compare(&mut self, who: Who) {
        let Some(noted) = self.noted.get(&who).copied().filter(|it| !it.compared) else {
            return;
        };
        let bytes = &mut self.bytes;
        let found = match who {
            Who::Visitor(id) => {
                let held = self.shadow.visitors.get(&id);
                held.map(|held| (held.last_position, hash::of_visitor(id, &held, bytes)))
            }
            Who::Lead(id) => {
                let held = self.shadow.leads.get(&id);
                held.map(|held| (held.last_position, hash::of_lead(id, &held, bytes)))
            }
        };
        let Some((position, hash)) = found.filter(|(position, _)| *position >= noted.position)
        else {
            return;
        };
        if position > noted.position {
            // The snapshot is older than the look, and knows more.
            self.report(who, How::Behind, position);
        } else if hash != noted.hash {
            self.report(who, How::Content, position);
        }
        self.noted.insert(who, Noted { compared: true, ..noted });
        match who {
            Who::Visitor(id) => self.shadow.visitors.remove(&id),
            Who::Lead(id) => drop(self.shadow.leads.remove(&id)),
        }
    }

    fn report(&mut self, who: Who, how: How, position: Position) {
        if self.different.insert(who) && self.differences.len() < DIFFERENCES_MAX {
            self.differences.push(Difference { who, how, position });
        }
    }

    /// What was found, when all records until [`Audit::until`] were applied. Who has expired by
    /// `now` may have been swept meanwhile.
    pub fn finish(mut self, live: &Engine, now: Timestamp) -> Audited {
        let open: Vec<(Who, Position)> = self
            .noted
            .iter()
            .filter(|(_, noted)| !noted.compared)
            .map(|(who, noted)| (*who, noted.position))
            .collect();
        for (who, position) in open {
            self.report(who, How::Unfounded, position);
        }
        let mut missing: Vec<(Who, Position)> = Vec::new();
        let (noted, now) = (&self.noted, self.now.max(now));
        let mut note = |who: Who, position| {
            missing.extend((!noted.contains_key(&who)).then_some((who, position)));
        };
        self.shadow.visitors.each(|id, held| {
            if held.exists() && !held.is_expired(now) {
                note(Who::Visitor(*id), held.last_position);
            }
        });
        self.shadow.leads.each(|id, held| {
            if held.exists() {
                note(Who::Lead(*id), held.last_position);
            }
        });
        missing.sort_unstable();
        for (who, position) in missing {
            self.report(who, How::Missing, position);
        }
        Audited {
            entries: self.noted.len(),
            different: self.different.len(),
            disturbed: !self.different.is_empty() && live.erasures.count() != self.erasures,
            differences: self.differences,
        }
    }
}

impl Engine {
    /// How many slots come to so many bytes in memory, a visitor and a name of a lead taken as so
    /// many each; at least one.
    pub fn slots_within(&self, bytes: usize, (visitor, lead): (usize, usize)) -> u16 {
        let (visitors, leads) = self.sizes();
        let each = (visitors * visitor + leads * lead) / Slot::COUNT;
        (bytes / each.max(1)).clamp(1, Slot::COUNT) as u16
    }
}

/// Ids are all that a difference says of anybody.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (slot, how) = (self.who.slot().0, self.how.name());
        write!(f, "slot {slot}, {}, record {}: {how}", self.who, self.position.0)
    }
}
