//! A data folder read without a server: its keys, its journal and what came of it. Nothing is
//! taken or written, so it may be done beside a server that runs; what that adds meanwhile is not
//! seen.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::engine::Engine;
use engine::id::{LeadId, Position};
use engine::record::Record;
use engine::time::Timestamp;

use crate::erasures;
use crate::install::{Install, InstallError};
use crate::journal::disk::ReadOnlyDisk;
use crate::journal::scan::{Finding, Place, Scanned, Seen, scan};
use crate::journal::{Entry, first_kept};
use crate::outbox::message::iso;
use crate::seal::Keys;
use crate::snapshots::file::{Fault, Snapshot};
use crate::snapshots::{Store, restore};
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
    /// The journal has lost its beginning, and no base stands for it: what is wrong with the one
    /// there is.
    NoBase(Option<Fault>),
    /// What was before the base is gone: it can be worked out from there on only.
    BeforeBase(Position, Timestamp),
}

impl fmt::Display for PastError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Install(error) => error.fmt(f),
            Self::Disk(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Damaged(Finding { name, file, offset, about, .. }) => {
                write!(f, "{file} is damaged at byte {}: {name}: {about}", offset.unwrap_or(0))
            }
            Self::NoBase(None) => {
                f.write_str("the journal has lost its beginning, and no base stands for it")
            }
            Self::NoBase(Some(fault)) => {
                write!(f, "the journal's beginning is gone, and its base cannot be used: {fault}")
            }
            Self::BeforeBase(position, at) => write!(
                f,
                "older than what is kept: this can be worked out from position {} on, {}",
                position.0,
                iso(*at)
            ),
            Self::Record(position, why) => write!(f, "record {}: {why}", position.0),
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
        let erased = erasures::read(data).map_err(failed)?.0;
        Ok(Past { data: data.to_owned(), install, keys, erased, disk })
    }

    /// Reads the keys of people once more.
    pub fn read_keys(&mut self) -> io::Result<()> {
        self.keys = Keys::read(&self.data)?;
        self.erased = erasures::read(&self.data)?.0;
        Ok(())
    }

    /// Everything in the journal, also what is wrong.
    pub fn scan(&self, see: &mut dyn FnMut(Seen<'_>)) -> Result<Scanned, PastError> {
        scan(&self.disk, &self.install.id.0, see)
            .map_err(|error| PastError::Disk(self.data.join("journal"), error))
    }

    /// Where the journal begins.
    pub fn first(&self) -> Result<Position, PastError> {
        let first = first_kept(&self.disk);
        let first = first.map_err(|error| PastError::Disk(self.data.join("journal"), error))?;
        Ok(first.unwrap_or(Position(1)))
    }

    /// What stands for the journal's beginning, if that is gone.
    pub fn base(&self) -> Result<Option<Snapshot>, PastError> {
        let first = self.first()?;
        if first.ordinal() <= 1 {
            return Ok(None);
        }
        match self.store().base(first) {
            Ok(Some(base)) => Ok(Some(base)),
            Ok(None) | Err(Fault::Disk(io::ErrorKind::NotFound)) => Err(PastError::NoBase(None)),
            Err(fault) => Err(PastError::NoBase(Some(fault))),
        }
    }

    /// Applies every record up to a position to an empty engine, or to what the base has of those
    /// that are gone. `wanted` says whether a record is to be applied; `each` sees it before and
    /// after, if the base does not know of it.
    pub fn replay(
        &self,
        engine: &Engine,
        until: Position,
        wanted: &mut dyn FnMut(&Record, Position) -> bool,
        each: &mut dyn FnMut(&Step<'_>, When),
    ) -> Result<Scanned, PastError> {
        let base = self.base()?;
        let known = base.as_ref().map_or(Position::NONE, |base| base.end.until);
        if let Some(base) = base {
            if until < known {
                return Err(PastError::BeforeBase(known, base.head.created));
            }
            self.restore(&base, engine)?;
        }
        self.go_on(engine, (known, until), wanted, each)
    }

    /// Puts everything that a snapshot holds into an empty engine.
    pub fn restore(&self, snapshot: &Snapshot, engine: &Engine) -> Result<(), PastError> {
        let unseal = |lead, sealed: &[u8]| self.keys.unseal(lead, sealed);
        restore(snapshot, engine, unseal).map_err(|fault| PastError::NoBase(Some(fault)))
    }

    /// Applies the records up to a position to what a snapshot has: what it knows of is passed
    /// over. `each` sees those after the last record that the snapshot knows.
    pub fn go_on(
        &self,
        engine: &Engine,
        (known, until): (Position, Position),
        wanted: &mut dyn FnMut(&Record, Position) -> bool,
        each: &mut dyn FnMut(&Step<'_>, When),
    ) -> Result<Scanned, PastError> {
        let mut failed = None;
        let scanned = self.scan(&mut |seen| match seen {
            Seen::Record(entry, place) if failed.is_none() && entry.position <= until => {
                match Record::decode(entry.bytes) {
                    Ok(mut record) if wanted(&record, entry.position) => {
                        unseal_with(&mut record, |lead, sealed| self.keys.unseal(lead, sealed));
                        let step = Step { record: &record, entry, place };
                        let is_new = entry.position > known;
                        if is_new {
                            each(&step, When::Before);
                        }
                        engine.evolve(&record, entry.position);
                        if is_new {
                            each(&step, When::After);
                        }
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
        if scanned.first > known.next() {
            failed.get_or_insert(PastError::NoBase(None));
        }
        failed.map_or(Ok(scanned), Err)
    }

    /// The snapshots there are, the newest first.
    pub fn snapshots(&self) -> Vec<(String, Result<Snapshot, Fault>)> {
        self.opened(Store::names)
    }

    /// The bases there are: one, but for a moment.
    pub fn bases(&self) -> Vec<(String, Result<Snapshot, Fault>)> {
        self.opened(Store::base_names)
    }

    fn store(&self) -> Store {
        let disk = ReadOnlyDisk::new(self.data.join("snapshots"));
        Store::new(Arc::new(disk), self.install.id.0)
    }

    fn opened(
        &self,
        names: impl Fn(&Store) -> Result<Vec<String>, Fault>,
    ) -> Vec<(String, Result<Snapshot, Fault>)> {
        let store = self.store();
        let opened = names(&store).unwrap_or_default().into_iter().map(|name| {
            let opened = store.open(&name);
            (name, opened)
        });
        // Two are kept: an older one may have gone since.
        let gone = Fault::Disk(io::ErrorKind::NotFound);
        opened.filter(|(_, opened)| opened.as_ref().err() != Some(&gone)).collect()
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
