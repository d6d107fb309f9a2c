//! Retention: what is older than the settings keep is removed from the journal, a segment at a
//! time, the oldest first, and one *base* stays in its place: the state as of the cut.
//!
//! Nothing goes that anybody needs. Two kept snapshots must cover it and be sound to the last byte
//! just then; nothing may be left to be told of it; nobody may be reading it. The base is durable
//! and was read back before the first segment goes. So wherever a crash comes, what is there is a
//! base and a journal that goes on from it, or from before it.

mod shadow;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use engine::id::Position;
use engine::record::{Body, Record};
use engine::time::Timestamp;

use self::shadow::Shadow;
use crate::app::App;
use crate::background::Pace;
use crate::followers::{Fit, Followers};
use crate::journal::ReadError;
use crate::outbox::can_be_told;
use crate::snapshots::file::{Fault, Kind, Snapshot, base_name};
use crate::snapshots::{CORE_PERCENT_MAX, Failed, KEPT, NewQueue, Store};

/// After so long a segment is complete, so that what is kept is kept for hardly longer than the
/// settings say. In milliseconds: a day.
pub const SEGMENT_MS: u64 = 24 * 3_600_000;
/// So long the clock must have gone on without a jump, since the start at least, before it is
/// gone by: what goes never comes back. A start believes whatever the machine shows, and a clock
/// that has not heard of the true time yet would make everything too old at once. Within an hour
/// a machine has heard of it; then the clock jumps, and the hour begins anew. Who waits for an
/// hour to remove what was kept for days has lost nothing.
const STEADY_MS: u64 = 3_600_000;
/// Segments removed with one base: what a stop cuts off is not much.
const SEGMENTS_AT_ONCE: usize = 16;
/// Bytes of a record without anything in it.
const NOTHING_BYTES: usize = 64;

/// What is known of retention, for the metrics.
#[derive(Debug, Default)]
pub struct Figures {
    /// How often nothing could be removed that was old enough, since something failed.
    pub failed: AtomicU64,
    /// Segments that are old enough and that something still needs.
    pub held: AtomicU64,
    /// The last record of what the base stands for; 0 if everything is kept.
    pub base: AtomicU64,
}

/// What one look came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Segments removed.
    pub removed: usize,
    /// There is more of it.
    pub more: bool,
}

/// Removes what is old enough, as far as nothing needs it; `more` says whether to look again at
/// once. `up_ms`: since the process was started.
pub fn look(
    app: &App,
    store: &Store,
    queue: &NewQueue<'_>,
    up_ms: u64,
    stop: &AtomicBool,
) -> Outcome {
    let figures = &app.retention;
    let pace = Pace::new(&app.clock, stop, CORE_PERCENT_MAX);
    let looking = Looking { app, store, queue, up_ms, pace };
    match looking.run() {
        Ok(outcome) => outcome,
        Err(Failed::Stopped) => Outcome::default(),
        Err(why) => {
            figures.failed.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%why, "nothing is removed from the journal");
            Outcome::default()
        }
    }
}

struct Looking<'a> {
    app: &'a App,
    store: &'a Store,
    queue: &'a NewQueue<'a>,
    up_ms: u64,
    pace: Pace<'a>,
}

impl Looking<'_> {
    fn run(&self) -> Result<Outcome, Failed> {
        let app = self.app;
        let ends = self.old()?;
        let base = self.base()?;
        note(app, base.as_ref());
        let Some(oldest) = ends.first() else {
            app.retention.held.store(0, Ordering::Relaxed);
            return Ok(Outcome::default());
        };
        let kept = self.kept()?;
        let limit = if kept.len() < KEPT { Position::NONE } else { self.limit(&kept)? };
        let cut = ends.iter().rev().find(|end| **end <= limit).copied();
        let held = ends.iter().filter(|end| **end > limit).count();
        app.retention.held.store(held as u64, Ordering::Relaxed);
        let Some(cut) = cut else {
            tracing::debug!(?oldest, ?limit, "old segments are still needed");
            return Ok(Outcome::default());
        };
        for snapshot in &kept {
            snapshot.verify(Some(&self.pace))?;
        }
        let base = self.sound(base, &kept)?;
        let Some(base) = self.base_at(base.as_ref(), cut, &kept)? else {
            return Ok(Outcome::default());
        };
        base.verify(Some(&self.pace))?;
        let removed = app.journal.remove_before(cut)?;
        self.store.supersede_bases(base.head.from)?;
        note(app, Some(&base));
        if removed > 0 {
            let (first, since) = (app.journal.first().ordinal(), base.head.created.0);
            tracing::info!(
                removed,
                first,
                since,
                "old segments were removed; a base stands for them"
            );
        }
        Ok(Outcome { removed, more: removed == SEGMENTS_AT_ONCE })
    }

    /// Where each complete segment ends whose records are all too old, the oldest first.
    fn old(&self) -> Result<Vec<Position>, Failed> {
        let app = self.app;
        let Some(keep) = app.settings.journal.keep else {
            return Ok(Vec::new());
        };
        let since = app.clock.now().minus(keep);
        if app.clock.is_in_doubt() || app.clock.steady_ms() < STEADY_MS {
            return Ok(Vec::new());
        }
        let firsts = app.journal.segments();
        let mut ends = Vec::new();
        for next in firsts.iter().skip(1).take(SEGMENTS_AT_ONCE) {
            if !self.is_before(*next, since)? {
                return Ok(ends);
            }
            ends.push(*next);
        }
        let durable = app.journal.durable();
        let is_alone = firsts.last().is_some_and(|first| *first <= durable);
        // A start begins a segment: a younger one would not be complete by the next record.
        let is_complete = self.up_ms >= SEGMENT_MS && is_alone && ends.len() + 1 == firsts.len();
        if is_complete && self.is_before(durable.next(), since)? {
            self.begin_another();
        }
        Ok(ends)
    }

    /// Whether everything before a position happened before a moment. Where a loss was accepted
    /// the record after it says so.
    fn is_before(&self, position: Position, since: Timestamp) -> Result<bool, Failed> {
        let read = |position| self.app.journal.read(position);
        let last = match read(Position(position.0 - 1)) {
            Err(ReadError::Lost) => read(position),
            read => read,
        };
        let bytes = last.map_err(|error| Failed::Journal(error.to_string()))?;
        let record = Record::decode(&bytes);
        let record = record.map_err(|error| Failed::Journal(error.to_string()))?;
        Ok(record.time < since)
    }

    /// Nothing comes any more, and the segment that is written has only what is too old: a record
    /// that says nothing begins the next one.
    fn begin_another(&self) {
        let app = self.app;
        if let Ok(mut reserved) = app.journal.reserve(1, NOTHING_BYTES) {
            let mut bytes = Vec::new();
            app.engine.name(Vec::new(), app.clock.now(), &mut |record: &Record| {
                debug_assert!(matches!(&record.body, Body::Named(names) if names.is_empty()));
                record.encode(&mut bytes);
                reserved.push(&bytes)
            });
        }
    }

    /// The base there is. One that is missing is made of the older snapshot that is kept.
    fn base(&self) -> Result<Option<Snapshot>, Failed> {
        let first = self.app.journal.first();
        let why = match self.store.base(first) {
            Ok(Some(base)) => return Ok(Some(base)),
            Ok(None) if first.ordinal() <= 1 => return Ok(None),
            // It is of no use, and nothing needs it.
            Err(fault) if first.ordinal() <= 1 => {
                tracing::warn!(%fault, "a base that nothing needs yet cannot be read");
                return Ok(None);
            }
            Ok(None) => "it is not there".to_owned(),
            Err(Fault::Disk(kind)) => return Err(Fault::Disk(kind).into()),
            Err(fault) => fault.to_string(),
        };
        tracing::error!(%why, "the base of the journal cannot be used: a snapshot takes its place");
        self.promoted(&self.kept()?).map(Some)
    }

    /// The base, read to the last byte: what it was opened by says nothing of what is in it. One
    /// that is damaged is replaced as one that is missing.
    fn sound(&self, base: Option<Snapshot>, kept: &[Snapshot]) -> Result<Option<Snapshot>, Failed> {
        let Some(base) = base else {
            return Ok(None);
        };
        match base.verify(Some(&self.pace)) {
            Ok(()) => Ok(Some(base)),
            Err(fault @ (Fault::Disk(_) | Fault::Stopped)) => Err(fault.into()),
            // Another is made of the journal, which has everything yet.
            Err(_) if self.app.journal.first().ordinal() <= 1 => Ok(None),
            Err(why) => {
                tracing::error!(%why, "the base of the journal is damaged: a snapshot replaces it");
                self.promoted(kept).map(Some)
            }
        }
    }

    /// The oldest snapshot from which the journal goes on, made the base.
    fn promoted(&self, kept: &[Snapshot]) -> Result<Snapshot, Failed> {
        let first = self.app.journal.first();
        let Some(oldest) = kept.iter().rev().find(|it| it.head.from.next() >= first) else {
            return Err(Failed::Journal("no snapshot can take the place of its base".to_owned()));
        };
        oldest.verify(Some(&self.pace))?;
        self.store.promote(oldest, Some(&self.pace))?;
        Ok(self.store.open(&base_name(oldest.head.from))?)
    }

    /// The snapshots that are kept and can be opened, the newest first.
    fn kept(&self) -> Result<Vec<Snapshot>, Failed> {
        let names = self.store.names()?.into_iter().take(KEPT);
        Ok(names.map(|name| self.store.open(&name)).collect::<Result<_, _>>()?)
    }

    /// From where on everything is needed: by a start from either snapshot, or by what is still to
    /// be told.
    fn limit(&self, kept: &[Snapshot]) -> Result<Position, Failed> {
        let app = self.app;
        let covered = kept.iter().map(|it| it.head.from.min(it.end.followed).next()).min();
        let covered = covered.unwrap_or_default();
        let Some(newest) = kept.first() else {
            return Ok(covered);
        };
        let bytes = newest.only(Kind::Followers)?.ok_or(Fault::Parts)?;
        let unseal = |lead, sealed: &[u8]| app.sealer.unseal(lead, sealed);
        // Whom they are for does not matter to what is needed.
        let followers = Followers::load(&bytes, (self.queue)(), Fit::Adopted, &unseal);
        let followers = followers.map_err(|why| Fault::Followers(why.to_string()))?;
        let queue = (self.queue)();
        let is_endpoint = |name: &str| queue.knows(name);
        let needed =
            followers.replayed.needs(app.clock.now(), &is_endpoint, &|due| can_be_told(app, due));
        Ok(covered.min(needed.unwrap_or(Position(u64::MAX))))
    }

    /// A base at a cut, made if the one there is ends before. Nothing, if that one knows of records
    /// after the cut: then there is none in between.
    fn base_at(
        &self,
        base: Option<&Snapshot>,
        cut: Position,
        kept: &[Snapshot],
    ) -> Result<Option<Snapshot>, Failed> {
        let until = Position(cut.0 - 1);
        // While the journal has everything it is right: after that base it may have lost a part.
        let is_whole = self.app.journal.first().ordinal() <= 1;
        let incarnation = self.app.journal.incarnation();
        let base = base.filter(|base| !is_whole || base.head.incarnation == incarnation);
        if base.is_none_or(|base| base.head.from < until) {
            if base.is_some_and(|base| base.end.until > until) {
                return Ok(None);
            }
            let bytes = kept.iter().map(|it| it.bytes).max().unwrap_or_default();
            let Looking { app, store, queue, ref pace, .. } = *self;
            Shadow { app, store, queue, pace, base, until }.write(bytes)?;
            return Ok(Some(store.open(&base_name(until))?));
        }
        Ok(self.store.base(cut)?)
    }
}

fn note(app: &App, base: Option<&Snapshot>) {
    let base = base.map_or(0, |base| base.head.from.0);
    app.retention.base.store(base, Ordering::Relaxed);
}
