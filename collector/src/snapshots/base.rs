//! The base: the snapshot that stands for all of the journal that was removed. Unlike others it is
//! no help but a part of the data: it is never refused or tidied away, and goes only when a newer
//! one is there and was read back.

use engine::attribute::Attributes;
use engine::id::{LeadId, Position, VisitorId};
use engine::lead::Lead;
use engine::snapshot::SlotReader;
use engine::visitor::{AtRest, Visitor};

use super::Store;
use super::file::{Fault, Head, Kind, Snapshot, Writing, base_ordinal_of, breathe};
use crate::background::Pace;
use crate::seal::attributes_of;

impl Store {
    /// The bases there are, the newest first: one, but for a moment.
    pub fn base_names(&self) -> Result<Vec<String>, Fault> {
        let mut names = self.disk.list()?;
        names.retain(|name| base_ordinal_of(name).is_some());
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(names)
    }

    /// The newest sound base of a journal that begins at `first`. Nothing, if there is none; what
    /// is wrong with the newest, if no other does.
    pub fn base(&self, first: Position) -> Result<Option<Snapshot>, Fault> {
        let mut wrong = None;
        for name in self.base_names()? {
            match self.open(&name) {
                Ok(base) if base.head.from.next() >= first => return Ok(Some(base)),
                Ok(_) => {
                    wrong.get_or_insert(Fault::Behind);
                }
                Err(fault) => {
                    wrong.get_or_insert(fault);
                }
            }
        }
        wrong.map_or(Ok(None), Err)
    }

    /// Begins a base.
    pub fn begin_base(&self, head: Head) -> Result<Writing<'_>, Fault> {
        Ok(Writing::begin_base(self.disk.as_ref(), head)?)
    }

    /// Makes a snapshot that is kept the base too: one is missing. From where it ends it does as
    /// well as one made for it; what the journal has from before that cannot be replayed.
    pub fn promote(&self, snapshot: &Snapshot, pace: Option<&Pace<'_>>) -> Result<(), Fault> {
        let mut writing = self.begin_base(snapshot.head)?;
        for part in snapshot.parts() {
            breathe(pace)?;
            writing.part(part.kind, part.number, &snapshot.read(part)?)?;
        }
        writing.finish(snapshot.end, pace)?;
        Ok(())
    }

    /// Removes every base but the one that was begun there: it stands for all that they did.
    pub fn supersede_bases(&self, from: Position) -> Result<(), Fault> {
        let older = |name: &String| base_ordinal_of(name).is_some_and(|it| it < from.ordinal());
        let names: Vec<String> = self.base_names()?.into_iter().filter(older).collect();
        for name in &names {
            self.disk.remove(name)?;
        }
        if names.is_empty() { Ok(()) } else { Ok(self.disk.sync_directory()?) }
    }
}

impl Snapshot {
    /// Every browser that is in here.
    pub fn visitors(&self, mut each: impl FnMut(VisitorId, Visitor)) -> Result<(), Fault> {
        for part in self.parts().iter().filter(|part| part.kind == Kind::Slot) {
            let payload = self.read(part)?;
            let unseal = |_: LeadId, _: &[u8]| Attributes::default();
            let mut wake = |id, at_rest: AtRest| each(id, at_rest.wake(id));
            SlotReader::open(&payload, self.form)?.read(&unseal, &mut wake, |_, _| {})?;
        }
        Ok(())
    }

    /// One entry of a lead as it is in here.
    pub fn lead(
        &self,
        id: LeadId,
        open: impl Fn(LeadId, &[u8]) -> Option<Vec<u8>> + Sync,
    ) -> Result<Option<Lead>, Fault> {
        let slot = u64::from(id.slot().0);
        let part = self.parts().iter().find(|it| it.kind == Kind::Slot && it.number == slot);
        let Some(part) = part else {
            return Ok(None);
        };
        let unseal = |lead: LeadId, sealed: &[u8]| attributes_of(open(lead, sealed));
        let payload = self.read(part)?;
        let mut found = None;
        SlotReader::open(&payload, self.form)?.read(
            &unseal,
            |_, _| {},
            |known, lead| {
                if known == id {
                    found = Some(lead);
                }
            },
        )?;
        Ok(found)
    }
}
