//! Recovery: the newest sound snapshot is read, the journal opened, and every record that came
//! after it applied to everything that is kept. A snapshot that cannot be used costs time only.

use std::path::Path;
use std::sync::Arc;

use engine::alert::{AlertId, Cause};
use engine::engine::Engine;
use engine::id::Position;
use engine::record::Record;
use engine::time::Timestamp;

use super::delivery::loading_queue;
use super::stages::in_stages;
use super::{Options, StartError};
use crate::backup;
use crate::clock::Clock;
use crate::config::{Durability, Endpoint, Settings};
use crate::followers::{Fit, Followers};
use crate::install::Install;
use crate::journal::committer::Now;
use crate::journal::disk::RealDisk;
use crate::journal::{
    EVOLVE, EXIT_POISONED, Entry, Found, Hooks, Journal, Options as JournalOptions, first_kept,
};
use crate::link::uses::LinkUses;
use crate::outbox::{Log, Replayed};
use crate::reader::Lists;
use crate::retention::SEGMENT_MS;
use crate::seal::Sealer;
use crate::snapshots::file::{Fault, Head, Kind, Snapshot};
use crate::snapshots::{self, Figures, Store};
use crate::store::KeyedDisk;
use crate::timeline::unseal_with;
use crate::webhook::queue::Queue;

/// What recovery rebuilds.
pub(super) struct Recovered {
    pub(super) engine: Engine,
    pub(super) journal: Journal,
    pub(super) found: Found,
    pub(super) lists: Lists,
    pub(super) link_uses: LinkUses,
    pub(super) replayed: Replayed,
    pub(super) queue: Queue,
    pub(super) log: Log,
    /// Where snapshots are.
    pub(super) snapshots: Store,
    /// Of one that was taken of all this.
    pub(super) taken: Figures,
}

/// Why an attempt to recover came to nothing.
enum Failed {
    /// Another snapshot may do.
    Snapshot(Fault),
    /// Nothing else would help.
    Start(StartError),
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Failed {
        Failed::Snapshot(fault)
    }
}

impl From<StartError> for Failed {
    fn from(error: StartError) -> Failed {
        Failed::Start(error)
    }
}

/// Rebuilds everything that a data folder holds.
pub(super) fn recover(
    settings: &Settings,
    options: &Options,
    data: &Path,
    (install, sealer, clock): (&Install, &Arc<Sealer>, &Clock),
    endpoints: &[Endpoint],
) -> Result<Recovered, StartError> {
    let first = RealDisk::open(data.join("journal")).and_then(|disk| first_kept(&disk));
    let first = first.map_err(StartError::System)?;
    Recovery { settings, options, data, install, sealer, clock, endpoints, first }.run()
}

/// What everything is rebuilt from and by.
struct Recovery<'a> {
    settings: &'a Settings,
    options: &'a Options,
    data: &'a Path,
    install: &'a Install,
    sealer: &'a Arc<Sealer>,
    clock: &'a Clock,
    endpoints: &'a [Endpoint],
    /// Where the journal begins, if there is any.
    first: Option<Position>,
}

impl Recovery<'_> {
    fn run(&self) -> Result<Recovered, StartError> {
        let disk = RealDisk::open(self.data.join("snapshots")).map_err(Fault::from);
        let disk = disk.map_err(StartError::Snapshots)?;
        let store = Store::new(Arc::new(disk), self.install.id.0);
        let bases = store.base_names().map_err(StartError::Snapshots)?;
        if self.first.is_none() && !bases.is_empty() {
            return Err(StartError::NoJournal);
        }
        for name in store.names().unwrap_or_default() {
            let opened = store.open(&name).map_err(Failed::Snapshot);
            match opened.and_then(|snapshot| self.replay(&store, Some(&snapshot), false)) {
                Err(Failed::Snapshot(why)) => {
                    tracing::error!(name, %why, "a snapshot cannot be used: going on without it");
                    if self.is_void(&why) {
                        store.refuse(&name).map_err(StartError::Snapshots)?;
                    }
                }
                Err(Failed::Start(error)) => return Err(error),
                Ok(recovered) => return Ok(recovered),
            }
        }
        if self.is_whole() {
            return self.replay(&store, None, false).map_err(|failed| match failed {
                Failed::Start(error) => error,
                // Without a snapshot only what was before the journal can be missing.
                Failed::Snapshot(_) => StartError::NoBase(None),
            });
        }
        let mut wrong = None;
        for name in bases {
            // A base stays, whatever is wrong with it: another program may read it.
            let opened = store.open(&name).map_err(Failed::Snapshot);
            match opened.and_then(|base| self.replay(&store, Some(&base), true)) {
                Ok(recovered) => return Ok(recovered),
                Err(Failed::Start(error)) => return Err(error),
                Err(Failed::Snapshot(why)) => {
                    tracing::error!(name, %why, "the base of the journal cannot be used");
                    wrong.get_or_insert(why);
                }
            }
        }
        Err(StartError::NoBase(wrong))
    }

    /// Whether the journal has the first record there ever was, so that it needs no snapshot.
    fn is_whole(&self) -> bool {
        self.first.is_none_or(|first| first.ordinal() <= 1)
    }

    /// Whether a snapshot is none for ever. A disk that fails says nothing about it; and where the
    /// journal alone is not everything, nothing is put away that another program may read.
    fn is_void(&self, why: &Fault) -> bool {
        match why {
            Fault::Disk(_) => false,
            Fault::Ahead | Fault::Lost => true,
            _ => self.is_whole(),
        }
    }

    /// Restores a snapshot, and replays what the journal has besides.
    fn replay(
        &self,
        store: &Store,
        snapshot: Option<&Snapshot>,
        is_base: bool,
    ) -> Result<Recovered, Failed> {
        let (settings, clock) = (self.settings, self.clock);
        let counts = snapshot.map(|it| (it.end.visitors as usize, it.end.leads as usize));
        let engine = Engine::with_room(settings.shards, counts.unwrap_or_default());
        if let Some(snapshot) = snapshot {
            self.restore(snapshot, &engine)?;
        }
        let (mut followers, followed) = self.followers(snapshot)?;
        let from = snapshot.map_or(Position::NONE, |snapshot| snapshot.head.from.min(followed));
        let mut failed = None;
        let mut last = snapshot.map_or(Timestamp(0), |snapshot| snapshot.head.created);
        let unseal = |lead, sealed: &[u8]| self.sealer.unseal(lead, sealed);
        let alert_id = |cause: &Cause<'_>| AlertId::derive(&self.install.alert, cause);
        let began_ms = clock.boot_ms();
        let follow = |entry: Entry<'_>| {
            let mut record = match Record::decode(entry.bytes) {
                Ok(record) => record,
                Err(error) => {
                    failed.get_or_insert((entry.position, error.to_string()));
                    return None;
                }
            };
            last = record.time;
            unseal_with(&mut record, unseal);
            if entry.position > followed {
                followers.evolve(&record, (entry.position, entry.incarnation), &unseal, &alert_id);
            }
            Some(record)
        };
        let (journal, found) = in_stages(
            |each| self.open_journal(from.next(), each),
            follow,
            |record, position| engine.evolve(record, position),
        )?;
        if let Some((position, why)) = failed {
            return Err(Failed::Start(StartError::Record(position, why)));
        }
        agree(snapshot, is_base, &found)?;
        clock.remember(last);
        let took_ms = clock.boot_ms() - began_ms;
        tracing::info!(records = found.records, bytes = found.bytes, took_ms, "replayed");
        for lost in &found.lost {
            tracing::error!(?lost, "records were lost, and their loss accepted");
        }
        let taken = self.write_down(store, snapshot, &found, (&engine, &followers));
        let Followers { lists, link_uses, replayed, queue, log, .. } = followers;
        if followed != Position::NONE {
            remember(&lists, &engine);
        }
        Ok(Recovered {
            engine,
            journal,
            found,
            lists,
            link_uses,
            replayed,
            queue,
            log,
            snapshots: store.clone(),
            taken,
        })
    }

    fn restore(&self, snapshot: &Snapshot, engine: &Engine) -> Result<(), Fault> {
        let began_ms = self.clock.boot_ms();
        let unseal = |lead, sealed: &[u8]| self.sealer.unseal(lead, sealed);
        snapshots::restore(snapshot, engine, unseal)?;
        let (visitors, leads) = engine.sizes();
        let took_ms = self.clock.boot_ms() - began_ms;
        tracing::info!(visitors, leads, bytes = snapshot.bytes, took_ms, "a snapshot is read");
        Ok(())
    }

    /// A snapshot of what was replayed, if it was much: no less than is worth one while hits go on,
    /// nor than the one that was read.
    fn write_down(
        &self,
        store: &Store,
        before: Option<&Snapshot>,
        found: &Found,
        known: (&Engine, &Followers),
    ) -> Figures {
        let figures = Figures::default();
        let worth = self.settings.snapshots.every_bytes.max(before.map_or(0, |it| it.bytes));
        if found.bytes >= worth {
            let head = Head {
                install: self.install.id.0,
                evolve: EVOLVE,
                incarnation: found.incarnation,
                from: found.last,
                created: self.clock.now(),
            };
            snapshots::take_at_start(store, known, head, (self.clock, &figures));
        }
        figures
    }

    /// What the followers knew, and the last record of that. What cannot be used of it costs
    /// that the whole journal is read.
    fn followers(&self, snapshot: Option<&Snapshot>) -> Result<(Followers, Position), Fault> {
        let queue = || loading_queue(self.endpoints, self.settings, self.clock.now());
        let saved = match snapshot {
            Some(snapshot) => snapshot.only(Kind::Followers)?.map(|bytes| (bytes, snapshot.end)),
            None => None,
        };
        let Some((bytes, end)) = saved else {
            if !self.is_whole() {
                return Err(Fault::Parts);
            }
            return Ok((Followers::new(queue()), Position::NONE));
        };
        let unseal = |lead, sealed: &[u8]| self.sealer.unseal(lead, sealed);
        let fit = Fit::of(self.first.unwrap_or_default());
        Ok(match Followers::load(&bytes, queue(), fit, &unseal) {
            Ok(followers) => (followers, end.followed),
            Err(why) if !self.is_whole() => return Err(Fault::Followers(why.to_string())),
            Err(why) => {
                tracing::warn!(%why, "the whole journal is read for its followers");
                (Followers::new(queue()), Position::NONE)
            }
        })
    }

    fn open_journal(
        &self,
        from: Position,
        each: &mut dyn FnMut(Entry<'_>),
    ) -> Result<(Journal, Found), StartError> {
        let disk = KeyedDisk::open(self.data.join("journal"), Arc::clone(self.sealer));
        let disk = disk.map_err(StartError::Keys)?;
        let settings = self.settings;
        let mut options = JournalOptions::new(self.install.id.0);
        options.segment_bytes = settings.journal.segment_bytes;
        if settings.journal.keep.is_some() {
            options.segment_ms = SEGMENT_MS;
        }
        options.pending_bytes_max = settings.limits.pending_bytes_max;
        options.lossy = settings.journal.durability == Durability::Lossy;
        options.accept_loss = self.options.accept_loss;
        options.replay_from = from;
        options.reserve_bytes = settings.journal.reserve_bytes;
        options.new_incarnation = backup::is_restored(self.data);
        let hooks = Hooks {
            now: Box::new(hook_clock()),
            poisoned: Box::new(|why| {
                tracing::error!(?why, "the disk failed; exiting, replay will decide what is true");
                std::process::exit(EXIT_POISONED);
            }),
        };
        let opened = Journal::open(Arc::new(disk), &options, hooks, each);
        if options.new_incarnation && opened.is_ok() {
            backup::begun(self.data).map_err(StartError::System)?;
        }
        opened.map_err(StartError::Journal)
    }
}

/// What people search by is not in a snapshot: it is what is known of each lead.
fn remember(lists: &Lists, engine: &Engine) {
    for id in lists.ids() {
        for said in engine.entry(id).iter().flat_map(|lead| &lead.content.said) {
            lists.remember(id, &said.attributes);
        }
    }
}

/// Whether a snapshot and the journal that was found are of one past.
fn agree(snapshot: Option<&Snapshot>, is_base: bool, found: &Found) -> Result<(), Fault> {
    let Some(Snapshot { head, end, .. }) = snapshot else {
        let whole = found.first.ordinal() <= 1;
        return whole.then_some(()).ok_or(Fault::Behind);
    };
    if found.first > head.from.next() {
        return Err(Fault::Behind);
    }
    if found.last < end.until || head.incarnation > found.incarnation {
        return Err(Fault::Ahead);
    }
    // It may know of what was accepted as lost, and the journal alone would say otherwise. What a
    // base stands for nothing says otherwise: only what it knows besides may be lost.
    let known = if is_base { head.from } else { Position::NONE };
    let knows_lost = found
        .lost
        .iter()
        .any(|lost| known < lost.last && lost.first.max(known.next()) <= end.until);
    let lost = knows_lost && head.incarnation < found.incarnation;
    if lost { Err(Fault::Lost) } else { Ok(()) }
}

/// The journal's own clock: it writes the time into segment headers, and measures idleness.
fn hook_clock() -> impl Fn() -> Now + Send {
    let clock = Clock::system();
    move || Now { wall_ms: clock.now().0, boot_ms: clock.boot_ms() }
}
