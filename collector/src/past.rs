//! A data folder read without a server: its keys, its journal and what came of it. Nothing is
//! taken or written, so it may be done beside a server that runs; what that adds meanwhile is not
//! seen.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::engine::Engine;
use engine::id::{LeadId, Position};
use engine::record::Record;
use engine::snapshot::{Slots, load_catalog};
use engine::time::Timestamp;

use crate::erasures::{ENTRY_BYTES, read_entry};
use crate::install::{Install, InstallError};
use crate::journal::disk::{Disk as _, ReadOnlyDisk};
use crate::journal::scan::{Finding, Place, Scanned, Seen, scan};
use crate::journal::{EVOLVE, Entry};
use crate::seal::{Keys, attributes_from_bytes};
use crate::snapshots::file::{Fault, Kind, Snapshot, ordinal_of};
use crate::timeline::unseal_with;

/// A data folder.
pub struct Past {
    /// Where it is.
    pub data: PathBuf,
    /// Its keys.
    pub install: Install,
    /// The keys of people.
    pub keys: Keys,
    /// Who was erased, and when last.
    pub erased: BTreeMap<LeadId, Timestamp>,
    disk: ReadOnlyDisk,
}

/// Why nothing can be read.
#[derive(Debug)]
pub enum PastError {
    /// The keys of the installation are missing or damaged.
    Install(InstallError),
    /// The disk answered with an error.
    Disk(PathBuf, io::Error),
    /// The journal is damaged.
    Damaged(Finding),
    /// A record cannot be read.
    Record(Position, String),
    /// The journal has lost its beginning, and no sound snapshot holds what was before.
    NoBase(Option<Fault>),
}

impl fmt::Display for PastError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Install(error) => error.fmt(f),
            Self::Disk(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Damaged(Finding { name, file, offset, about, .. }) => {
                write!(f, "{file} is damaged at byte {}: {name}: {about}", offset.unwrap_or(0))
            }
            Self::Record(position, why) => write!(f, "record {}: {why}", position.0),
            Self::NoBase(None) => {
                f.write_str("the journal's beginning is gone, and there is no snapshot of it")
            }
            Self::NoBase(Some(fault)) => {
                write!(f, "the journal's beginning is gone, and the snapshot of it: {fault}")
            }
        }
    }
}

/// A record on its way through a replay.
pub struct Step<'a> {
    /// The record, what is personal in it unsealed as far as the keys are there.
    pub record: &'a Record,
    /// As it stands in the journal.
    pub entry: Entry<'a>,
    /// Where.
    pub place: Place<'a>,
}

impl Past {
    /// Reads the keys. The key log is read later than a journal that was scanned before, so that
    /// it has every key that the journal needs: read it again with [`Past::read_keys`].
    pub fn open(data: &Path) -> Result<Past, PastError> {
        let install = Install::read(data).map_err(PastError::Install)?;
        let disk = ReadOnlyDisk::new(data.join("journal"));
        let failed = |error| PastError::Disk(data.join("keys"), error);
        let keys = Keys::read(data).map_err(failed)?;
        let erased = read_erased(data).map_err(failed)?.0;
        Ok(Past { data: data.to_owned(), install, keys, erased, disk })
    }

    /// Reads the keys of people once more.
    pub fn read_keys(&mut self) -> io::Result<()> {
        self.keys = Keys::read(&self.data)?;
        self.erased = read_erased(&self.data)?.0;
        Ok(())
    }

    /// Everything in the journal, also what is wrong.
    pub fn scan(&self, see: &mut dyn FnMut(Seen<'_>)) -> Result<Scanned, PastError> {
        scan(&self.disk, &self.install.id.0, see)
            .map_err(|error| PastError::Disk(self.data.join("journal"), error))
    }

    /// Applies every record up to a position to an empty engine. `wanted` says whether a record is
    /// to be applied; `each` sees it before and after.
    pub fn replay(
        &self,
        engine: &Engine,
        until: Position,
        wanted: &mut dyn FnMut(&Record, Position) -> bool,
        each: &mut dyn FnMut(&Step<'_>, When),
    ) -> Result<Scanned, PastError> {
        let mut failed = None;
        self.restore_base(engine)?;
        let scanned = self.scan(&mut |seen| match seen {
            Seen::Record(entry, place) if failed.is_none() && entry.position <= until => {
                match Record::decode(entry.bytes) {
                    Ok(mut record) if wanted(&record, entry.position) => {
                        unseal_with(&mut record, |lead, sealed| self.keys.unseal(lead, sealed));
                        let step = Step { record: &record, entry, place };
                        each(&step, When::Before);
                        engine.evolve(&record, entry.position);
                        each(&step, When::After);
                    }
                    Ok(_) => {}
                    Err(error) => {
                        failed = Some(PastError::Record(entry.position, error.to_string()));
                    }
                }
            }
            Seen::Wrong(finding) if failed.is_none() && is_damage(&finding) => {
                failed = Some(PastError::Damaged(finding));
            }
            _ => {}
        })?;
        failed.map_or(Ok(scanned), Err)
    }

    /// The snapshots there are, the newest first.
    pub fn snapshots(&self) -> Vec<(String, Result<Snapshot, Fault>)> {
        let disk = Arc::new(ReadOnlyDisk::new(self.data.join("snapshots")));
        let names = fs::read_dir(self.data.join("snapshots")).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|name| ordinal_of(name).is_some());
        names.sort_unstable_by(|a, b| b.cmp(a));
        let open = |name: String| {
            let opened = Snapshot::open(disk.as_ref(), &name, &self.install.id.0, EVOLVE);
            (name, opened)
        };
        names.into_iter().map(open).collect()
    }

    /// Before a journal whose beginning was removed, the oldest snapshot that reaches it.
    fn restore_base(&self, engine: &Engine) -> Result<(), PastError> {
        let first =
            self.first().map_err(|error| PastError::Disk(self.data.join("journal"), error))?;
        if first.ordinal() <= 1 {
            return Ok(());
        }
        let mut last = None;
        for (_, opened) in self.snapshots().into_iter().rev() {
            let restored = opened.and_then(|snapshot| {
                if snapshot.head.from.next() < first {
                    return Err(Fault::Behind);
                }
                self.restore(&snapshot, engine)
            });
            match restored {
                Ok(()) => return Ok(()),
                Err(fault) => last = Some(fault),
            }
        }
        Err(PastError::NoBase(last))
    }

    /// The first position of the journal.
    pub fn first(&self) -> io::Result<Position> {
        let first = |name: &str| {
            let digits = name.strip_prefix("segment-")?.strip_suffix(".log")?;
            u64::from_str_radix(digits, 16).ok()
        };
        let names = self.disk.list()?;
        Ok(Position::new(0, names.iter().filter_map(|name| first(name)).min().unwrap_or(1)))
    }

    fn restore(&self, snapshot: &Snapshot, engine: &Engine) -> Result<(), Fault> {
        snapshot.verify()?;
        let catalog = snapshot.only(Kind::Catalog)?.ok_or(Fault::Parts)?;
        engine.restore_catalog(load_catalog(&catalog)?);
        let unseal = |lead: LeadId, sealed: &[u8]| {
            let plain = self.keys.unseal(lead, sealed);
            plain.and_then(|plain| attributes_from_bytes(&plain)).unwrap_or_default()
        };
        for part in snapshot.parts().iter().filter(|part| part.kind == Kind::Slot) {
            let payload = snapshot.read(part)?;
            engine.restore_slot(&Slots::open(&payload)?, &unseal)?;
        }
        Ok(())
    }
}

/// When a record is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Before it is applied.
    Before,
    /// After.
    After,
}

/// Whether something wrong means that records are missing, and not that a helping file is stale.
pub fn is_damage(finding: &Finding) -> bool {
    !finding.name.starts_with("index_") && finding.name != "accepted_nothing"
}

/// Who was erased, by `keys/erased.log`, and how many bytes of it are sound of how many.
pub fn read_erased(data: &Path) -> io::Result<(BTreeMap<LeadId, Timestamp>, usize, usize)> {
    let bytes = match fs::read(data.join("keys").join("erased.log")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read?,
    };
    let entries = bytes.chunks_exact(ENTRY_BYTES).map_while(read_entry);
    let mut erased = BTreeMap::new();
    let mut valid = 0;
    for (lead, time) in entries {
        let known: &mut Timestamp = erased.entry(lead).or_default();
        *known = time.max(*known);
        valid += ENTRY_BYTES;
    }
    Ok((erased, valid, bytes.len()))
}
