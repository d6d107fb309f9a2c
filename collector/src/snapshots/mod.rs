//! Snapshots: what is in memory, on the disk, so that a start replays only what came after. One
//! is taken while hits go on, an entry at a time; it is published only when the journal is
//! durable past every record that it knows of, and when it was read back. Two are kept.

pub mod base;
pub mod file;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use engine::alert::{AlertId, Cause};
use engine::engine::{Engine, Ids};
use engine::id::{LeadId, Position, Slot};
use engine::record::Record;
use engine::snapshot::{SlotReader, load_catalog, save_catalog};
use engine::time::Timestamp;

use crate::app::App;
use crate::background::{self, Pace};
use crate::clock::Clock;
use crate::config;
use crate::followers::{Fit, Followers};
use crate::journal::EVOLVE;
use crate::journal::disk::Disk;
use crate::seal::attributes_of;
use crate::timeline::unseal_with;
use crate::webhook::queue::Queue;

use self::file::{
    End, Fault, Head, Kind, SPARE, Snapshot, UNFINISHED, Writing, base_ordinal_of, ordinal_of,
};

/// Snapshots kept. One may turn out to be damaged when it is needed.
pub const KEPT: usize = 2;
/// What the name of one ends with that a start could not use.
const REFUSED: &str = ".refused";
/// What taking one may take of a core. Who sends hits meanwhile hardly notices.
pub const CORE_PERCENT_MAX: u64 = 20;
/// Entries written down before it is looked whether to rest: some 50 microseconds of work.
const ENTRIES: usize = 64;
/// How often it is looked whether another is to be taken.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The longest that a snapshot waits for the disk to have what it knows of. Then something else
/// is wrong, and says so itself.
const DURABLE_WITHIN: Duration = Duration::from_mins(1);

/// The folder of the snapshots.
#[derive(Clone)]
pub struct Store {
    disk: Arc<dyn Disk>,
    install: [u8; 16],
}

/// What is known of the snapshots, for the metrics, and whether one is asked for.
#[derive(Debug, Default)]
pub struct Figures {
    /// Taken since the start.
    pub taken: AtomicU64,
    /// Not taken, since something failed.
    pub failed: AtomicU64,
    /// Bytes of the last one.
    pub bytes: AtomicU64,
    /// How long the last one took, in milliseconds.
    pub took_ms: AtomicU64,
    /// When the last one was done, in milliseconds since 1970; 0 before the first.
    pub last: AtomicU64,
    /// Somebody wants one now.
    pub wanted: AtomicBool,
}

/// Why none was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// It could not be written, or not be read back.
    File(Fault),
    /// The journal could not be followed.
    Journal(String),
    /// The journal ended, or its disk is so slow that it was given up.
    NotDurable,
    /// The server stops.
    Stopped,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(fault) => fault.fmt(f),
            Self::Journal(why) => write!(f, "the journal could not be followed: {why}"),
            Self::NotDurable => f.write_str("what it knows of did not become durable"),
            Self::Stopped => f.write_str("the server stops"),
        }
    }
}

impl<T: Into<Fault>> From<T> for Failed {
    fn from(fault: T) -> Failed {
        match fault.into() {
            Fault::Stopped => Failed::Stopped,
            fault => Failed::File(fault),
        }
    }
}

impl Store {
    /// Of a folder, for an installation.
    pub fn new(disk: Arc<dyn Disk>, install: [u8; 16]) -> Store {
        Store { disk, install }
    }

    /// Of which installation.
    pub fn install(&self) -> [u8; 16] {
        self.install
    }

    /// The snapshots there are, the newest first.
    pub fn names(&self) -> Result<Vec<String>, Fault> {
        let mut names = self.disk.list()?;
        names.retain(|name| ordinal_of(name).is_some());
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(names)
    }

    /// One of them.
    pub fn open(&self, name: &str) -> Result<Snapshot, Fault> {
        Snapshot::open(self.disk.as_ref(), name, &self.install, EVOLVE)
    }

    /// Takes one out of use for ever: a journal may grow to where it begins to fit again, and
    /// would still be another one.
    pub fn refuse(&self, name: &str) -> Result<(), Fault> {
        self.disk.rename(name, &format!("{name}{REFUSED}"))?;
        Ok(self.disk.sync_directory()?)
    }

    /// Takes away what is older than the ones that are kept, and what was never finished or
    /// refused. One of those files is left, for the next snapshot to be written over.
    pub fn tidy(&self) -> Result<(), Fault> {
        let all = self.disk.list()?;
        let is_void = |name: &&String| {
            let void = [UNFINISHED, REFUSED].iter().find_map(|end| name.strip_suffix(end));
            let base = name.strip_suffix(UNFINISHED).and_then(base_ordinal_of);
            void.and_then(ordinal_of).or(base).is_some()
        };
        let mut has_spare = all.iter().any(|name| name == SPARE);
        for name in self.names()?.iter().skip(KEPT).chain(all.iter().filter(is_void)) {
            if has_spare {
                self.disk.remove(name)?;
            } else {
                self.disk.rename(name, SPARE)?;
                has_spare = true;
            }
        }
        // Only then may the spare one be written over: no other name of it is left.
        self.disk.sync_directory()?;
        Ok(())
    }

    /// Gives the disk the space of the spare file, if there is one.
    pub fn give_back(&self) -> Result<(), Fault> {
        match self.disk.remove(SPARE) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Makes a queue that is loading and knows the endpoints of now.
pub type NewQueue<'a> = dyn Fn() -> Queue + Send + 'a;

/// Takes a snapshot of everything, while hits go on. Says what it holds and its bytes.
pub fn take(
    app: &App,
    store: &Store,
    queue: &NewQueue<'_>,
    stop: &AtomicBool,
) -> Result<(End, u64), Failed> {
    let pace = Pace::new(&app.clock, stop, CORE_PERCENT_MAX);
    Taking { app, store, queue, pace }.take()
}

/// Writes down what a start has replayed, before anybody is let in and so at full speed: the next
/// one replays what was written since, and no more. A snapshot that is taken while hits go on takes
/// its time, and whoever is killed again and again before it is done has more to replay each time.
pub fn take_at_start(
    store: &Store,
    (engine, followers): (&Engine, &Followers),
    head: Head,
    (clock, figures): (&Clock, &Figures),
) {
    let began_ms = clock.boot_ms();
    let never = AtomicBool::new(false);
    let pace = Pace::new(clock, &never, 100);
    let take = || -> Result<(End, u64), Failed> {
        store.tidy()?;
        let mut writing = Writing::begin(store.disk.as_ref(), head)?;
        let ids = engine.ids(|| {});
        let mut end = write_slots(&mut writing, (engine, &ids), head.created, &pace)?;
        writing.part(Kind::Catalog, 0, &save_catalog(&engine.catalog()))?;
        writing.part(Kind::Followers, 0, &followers.save())?;
        (end.until, end.followed) = (head.from, head.from);
        let bytes = writing.finish(end, Some(&pace))?;
        store.tidy()?;
        Ok((end, bytes))
    };
    let taken = take();
    if taken.is_err()
        && let Err(why) = store.tidy()
    {
        // On a full disk what there is of it would stand in the way of the journal.
        tracing::warn!(%why, "a snapshot that was not finished could not be put away");
    }
    note((figures, clock), &taken, began_ms);
}

/// Writes down every entry, and says how many there are and the latest record that any knows of.
fn write_slots(
    writing: &mut Writing<'_>,
    (engine, ids): (&Engine, &Ids),
    created: Timestamp,
    pace: &Pace<'_>,
) -> Result<End, Failed> {
    let mut end = End::default();
    for slot in 0..Slot::COUNT as u16 {
        let mut saving = ids.begin(Slot(slot));
        while !saving.some(engine, ENTRIES, created) {
            pace.breathe()?;
        }
        let saved = saving.finish().map_err(Fault::Content)?;
        pace.breathe()?;
        end.until = end.until.max(saved.latest);
        end.visitors += saved.visitors as u64;
        end.leads += saved.leads as u64;
        if saved.visitors + saved.leads > 0 {
            writing.part(Kind::Slot, u64::from(slot), &saved.bytes)?;
        }
    }
    Ok(end)
}

/// One being taken.
struct Taking<'a> {
    app: &'a App,
    store: &'a Store,
    queue: &'a NewQueue<'a>,
    pace: Pace<'a>,
}

impl Taking<'_> {
    fn take(&self) -> Result<(End, u64), Failed> {
        let (app, store) = (self.app, self.store);
        store.tidy()?;
        let created = app.clock.now();
        let from = app.journal.pushed();
        let incarnation = app.journal.incarnation();
        let install = store.install;
        let head = Head { install, evolve: EVOLVE, incarnation, from, created };
        let mut writing = Writing::begin(store.disk.as_ref(), head)?;
        let ids = app.engine.ids(background::rest_under_lock);
        self.pace.breathe()?;
        let mut end = write_slots(&mut writing, (&app.engine, &ids), created, &self.pace)?;
        writing.part(Kind::Catalog, 0, &save_catalog(&app.engine.catalog()))?;
        // The catalog may know of a record that no entry does.
        end.until = end.until.max(app.journal.pushed());
        if !app.journal.wait_durable(end.until, DURABLE_WITHIN) {
            return Err(Failed::NotDurable);
        }
        let followers = self.follow(end.until)?;
        writing.part(Kind::Followers, 0, &followers.save())?;
        end.followed = end.until;
        let bytes = writing.finish(end, Some(&self.pace))?;
        store.tidy()?;
        Ok((end, bytes))
    }

    /// What the journal's followers know at a record that is durable: what they knew at the
    /// snapshot before, moved on. The running ones are asked nothing, and wait for nobody.
    fn follow(&self, until: Position) -> Result<Followers, Failed> {
        let (app, queue) = (self.app, self.queue);
        let unseal = |lead: LeadId, sealed: &[u8]| app.sealer.unseal(lead, sealed);
        let alert_id = |cause: &Cause<'_>| AlertId::derive(&app.install.alert, cause);
        let fit = Fit::of(app.journal.first());
        let names = self.store.names()?.into_iter().chain(self.store.base_names()?);
        let known = names.into_iter().find_map(|name| {
            let snapshot = self.store.open(&name).ok()?;
            let bytes = snapshot.only(Kind::Followers).ok()??;
            let followers = Followers::load(&bytes, queue(), fit, &unseal).ok()?;
            (snapshot.end.followed <= until).then_some((followers, snapshot.end.followed))
        });
        let (mut followers, mut at) =
            known.unwrap_or_else(|| (Followers::new(queue()), Position::NONE));
        // From where on the journal is kept no followers can be made of nothing: it says so itself.
        let mut follower = app.journal.follow(at.next());
        while at < until {
            self.pace.breathe()?;
            let entry = follower.next_blocking(LOOK_EVERY);
            let entry = entry.map_err(|error| Failed::Journal(error.to_string()))?;
            let Some(entry) = entry else {
                return Err(Failed::NotDurable);
            };
            let record = Record::decode(entry.bytes);
            let mut record = record.map_err(|error| Failed::Journal(error.to_string()))?;
            unseal_with(&mut record, unseal);
            at = entry.position;
            followers.evolve(&record, (at, entry.incarnation), &unseal, &alert_id);
        }
        Ok(followers)
    }
}

/// Puts everything that a snapshot holds back into an empty engine, slots in parallel.
pub fn restore(
    snapshot: &Snapshot,
    engine: &Engine,
    open: impl Fn(LeadId, &[u8]) -> Option<Vec<u8>> + Sync,
) -> Result<(), Fault> {
    snapshot.read_ahead();
    let catalog = snapshot.only(Kind::Catalog)?.ok_or(Fault::Parts)?;
    engine.restore_catalog(load_catalog(&catalog)?);
    let unseal = |lead: LeadId, sealed: &[u8]| attributes_of(open(lead, sealed));
    let next = AtomicUsize::new(0);
    let work = || -> Result<(), Fault> {
        while let Some(part) = snapshot.parts().get(next.fetch_add(1, Ordering::Relaxed)) {
            if part.kind == Kind::Slot {
                let payload = snapshot.read(part)?;
                engine.restore_slot(&SlotReader::open(&payload, snapshot.form)?, &unseal)?;
            }
        }
        Ok(())
    };
    let workers = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let done = workers.into_iter().map(|it| it.join().unwrap_or(Err(Fault::Parts)));
        done.collect()
    })
}

/// Takes one snapshot after another, as the settings say and as is asked for, until told to stop.
/// `after` is called at every look, and told whether one was just taken.
pub fn run(
    app: &App,
    store: &Store,
    queue: &NewQueue<'_>,
    stop: &AtomicBool,
    after: &mut dyn FnMut(bool),
) {
    background::stand_back();
    let settings = &app.settings.snapshots;
    // What the start had to replay is worth one too, though nobody may come any more: retention
    // waits for two that cover what goes.
    let newest = store.names().unwrap_or_default().into_iter().find_map(|it| store.open(&it).ok());
    let position = newest.map_or(Position::NONE, |newest| newest.head.from);
    let mut last = Last {
        at_ms: app.clock.boot_ms(),
        // Less than a snapshot is worth by itself, or one could not be taken at the start.
        replayed: app.journal.bytes_after(position),
        written: 0,
        position,
    };
    while !stop.load(Ordering::Acquire) && !app.journal.has_ended() {
        let wanted = app.snapshots.wanted.swap(false, Ordering::AcqRel);
        let due = wanted || last.is_over(app, settings);
        if due {
            last = Last {
                at_ms: app.clock.boot_ms(),
                replayed: 0,
                written: app.journal.figures().written_bytes,
                position: app.journal.pushed(),
            };
            let taken = take(app, store, queue, stop);
            note((&app.snapshots, &app.clock), &taken, last.at_ms);
        }
        if app.journal.is_disk_full()
            && let Err(why) = store.give_back()
        {
            tracing::warn!(%why, "the spare file of the snapshots could not be removed");
        }
        after(due);
        thread::sleep(LOOK_EVERY);
    }
}

/// When the last snapshot was begun, what had been written then, and what of the journal after it
/// this process found.
struct Last {
    at_ms: u64,
    replayed: u64,
    written: u64,
    position: Position,
}

impl Last {
    fn is_over(&self, app: &App, settings: &config::Snapshots) -> bool {
        if app.journal.pushed() == self.position {
            return false;
        }
        let every_ms = settings.every.as_millis() as u64;
        let late = app.clock.boot_ms().saturating_sub(self.at_ms) >= every_ms;
        let written = app.journal.figures().written_bytes.saturating_sub(self.written);
        late || self.replayed + written >= settings.every_bytes
    }
}

fn note((figures, clock): (&Figures, &Clock), taken: &Result<(End, u64), Failed>, began_ms: u64) {
    let took_ms = clock.boot_ms().saturating_sub(began_ms);
    match taken {
        Ok((end, bytes)) => {
            figures.taken.fetch_add(1, Ordering::Relaxed);
            figures.bytes.store(*bytes, Ordering::Relaxed);
            figures.took_ms.store(took_ms, Ordering::Relaxed);
            figures.last.store(clock.now().0, Ordering::Relaxed);
            let (visitors, leads) = (end.visitors, end.leads);
            tracing::info!(visitors, leads, bytes, took_ms, "a snapshot was taken");
        }
        Err(Failed::Stopped) => {}
        Err(why) => {
            figures.failed.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%why, "no snapshot was taken; the journal holds everything");
        }
    }
}
