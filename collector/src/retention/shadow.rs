//! The base, made: the journal from the last base to the cut is replayed beside what runs, some
//! slots at a time, since each slot's part of a record stands for itself. So it takes a part of the
//! memory that the state takes, and it is what `mikomi replay --until` says, whatever is in memory.

use std::ops::Range;

use engine::alert::{AlertId, Cause};
use engine::engine::Engine;
use engine::id::{LeadId, Position, Slot};
use engine::record::Record;
use engine::snapshot::{SlotReader, load_catalog, save_catalog};
use engine::time::Timestamp;

use crate::app::App;
use crate::background::Pace;
use crate::followers::{Fit, Followers};
use crate::journal::EVOLVE;
use crate::seal::attributes_of;
use crate::snapshots::file::{End, Fault, Head, Kind, Snapshot, Writing};
use crate::snapshots::{Failed, NewQueue, Store};
use crate::timeline::unseal_with;

/// Bytes of a snapshot whose entries are worked out at a time; in memory they take several times
/// as many.
const GROUP_BYTES: u64 = 32 << 20;
/// Fewest and most groups: each reads the removed part of the journal once. Two for the smallest
/// too, so that there is one way only.
const GROUPS: (u64, u64) = (2, 64);
/// Shards of an engine that one thread uses.
const SHARDS: usize = 2;

/// A base to be made.
pub(super) struct Shadow<'a> {
    pub(super) app: &'a App,
    pub(super) store: &'a Store,
    pub(super) queue: &'a NewQueue<'a>,
    pub(super) pace: &'a Pace<'a>,
    /// Where it begins; at the first record there ever was if there is none.
    pub(super) base: Option<&'a Snapshot>,
    /// The last record that it knows of.
    pub(super) until: Position,
}

impl Shadow<'_> {
    /// Makes it, and gives it its name. `bytes`: of a snapshot of now.
    pub(super) fn write(&self, bytes: u64) -> Result<(), Failed> {
        let (followers, last) = self.follow()?;
        let head = Head {
            install: self.store.install(),
            evolve: EVOLVE,
            incarnation: self.app.journal.incarnation(),
            from: self.until,
            created: last,
        };
        let mut writing = self.store.begin_base(head)?;
        let mut end = End { until: self.until, followed: self.until, ..End::default() };
        let groups = bytes.div_ceil(GROUP_BYTES).clamp(GROUPS.0, GROUPS.1) as usize;
        let mut catalog = Vec::new();
        for group in 0..groups {
            let range = group * Slot::COUNT / groups..(group + 1) * Slot::COUNT / groups;
            let engine = self.replay(&range)?;
            save(&engine, range, last, &mut writing, &mut end)?;
            catalog = save_catalog(&engine.catalog());
        }
        writing.part(Kind::Catalog, 0, &catalog)?;
        writing.part(Kind::Followers, 0, &followers.save())?;
        writing.finish(end, Some(self.pace))?;
        Ok(())
    }

    /// What the journal's followers know at the cut, and when the last record before it happened.
    /// An earlier one may say a later time: of a clock that was ahead and was set right. By that
    /// time people would be forgotten who are not, and moments be unknown that are known.
    fn follow(&self) -> Result<(Followers, Timestamp), Failed> {
        let app = self.app;
        let unseal = |lead: LeadId, sealed: &[u8]| app.sealer.unseal(lead, sealed);
        let alert_id = |cause: &Cause<'_>| AlertId::derive(&app.install.alert, cause);
        let (mut followers, followed) = match self.base {
            None => (Followers::new((self.queue)()), Position::NONE),
            Some(base) => {
                let bytes = base.only(Kind::Followers)?.ok_or(Fault::Parts)?;
                let loaded = Followers::load(&bytes, (self.queue)(), Fit::Adopted, &unseal);
                let loaded = loaded.map_err(|why| Fault::Followers(why.to_string()))?;
                (loaded, base.end.followed)
            }
        };
        let mut last = self.base.map_or(Timestamp(0), |base| base.head.created);
        self.walk(|record, position, incarnation| {
            last = record.time;
            if position > followed {
                followers.evolve(record, (position, incarnation), &unseal, &alert_id);
            }
        })?;
        Ok((followers, last))
    }

    /// The entries of some slots at the cut.
    fn replay(&self, range: &Range<usize>) -> Result<Engine, Failed> {
        let engine = Engine::new(SHARDS);
        if let Some(base) = self.base {
            let catalog = base.only(Kind::Catalog)?.ok_or(Fault::Parts)?;
            engine.restore_catalog(load_catalog(&catalog).map_err(Fault::Content)?);
            let open = |lead: LeadId, sealed: &[u8]| self.app.sealer.unseal(lead, sealed);
            let unseal = |lead: LeadId, sealed: &[u8]| attributes_of(open(lead, sealed));
            let is_one = |number: u64| range.contains(&(number as usize));
            let slots = base.parts().iter().filter(|it| it.kind == Kind::Slot);
            for part in slots.filter(|part| is_one(part.number)) {
                let payload = base.read(part)?;
                let slot = SlotReader::open(&payload, base.form).map_err(Fault::Content)?;
                engine.restore_slot(&slot, &unseal).map_err(Fault::Content)?;
            }
        }
        self.walk(|record, position, _| {
            engine.evolve_where(record, position, |slot| range.contains(&usize::from(slot.0)));
        })?;
        Ok(engine)
    }

    /// Each record from the base to the cut, at leisure.
    fn walk(&self, mut each: impl FnMut(&Record, Position, u32)) -> Result<(), Failed> {
        let app = self.app;
        let from = self.base.map_or(Position::NONE, |base| base.head.from);
        let from = if from == Position::NONE { Position::new(0, 1) } else { from.next() };
        let mut follower = app.journal.follow(from);
        while follower.position() <= self.until {
            let entry = follower.try_next().map_err(|error| Failed::Journal(error.to_string()))?;
            let Some(entry) = entry.filter(|entry| entry.position <= self.until) else {
                break;
            };
            let record = Record::decode(entry.bytes);
            let mut record = record.map_err(|error| Failed::Journal(error.to_string()))?;
            unseal_with(&mut record, |lead, sealed| app.sealer.unseal(lead, sealed));
            each(&record, entry.position, entry.incarnation);
            self.pace.breathe()?;
        }
        Ok(())
    }
}

fn save(
    engine: &Engine,
    range: Range<usize>,
    created: Timestamp,
    writing: &mut Writing<'_>,
    end: &mut End,
) -> Result<(), Failed> {
    let ids = engine.ids(|| {});
    for slot in range {
        let saved = engine.save_slot(Slot(slot as u16), &ids, created).map_err(Fault::Content)?;
        end.visitors += saved.visitors as u64;
        end.leads += saved.leads as u64;
        if saved.visitors + saved.leads > 0 {
            writing.part(Kind::Slot, slot as u64, &saved.bytes)?;
        }
    }
    Ok(())
}
