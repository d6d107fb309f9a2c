//! The shadow audit in the running server: what is in memory is held against what a snapshot and
//! the journal make of it, slot after slot, round after round, beside everything else and out of
//! its way. What differs is an alarm: counted, logged by id, listed among the problems. Nothing is
//! put right by it, since who of the two is wrong only a person can say; a start decides by the
//! journal.
//!
//! It begins with the *older* of the two snapshots kept. The newest one may have been taken after
//! memory went wrong, and says the same; the older one is from before the last round, so no moment
//! lies between two rounds that neither looked at.

mod figures;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engine::engine::{Audit, Audited};
use engine::id::{LeadId, Position, Slot};
use engine::record::Record;
use engine::snapshot::SlotReader;

use crate::app::App;
use crate::background::{self, Pace, Stopped};
use crate::journal::ReadError;
use crate::seal::attributes_of;
use crate::snapshots::Store;
use crate::snapshots::file::{Fault, Kind, Snapshot};
use crate::timeline::unseal_with;

pub use self::figures::Figures;

/// What the shadow of one batch of slots may take in memory: each batch reads the tail of the
/// journal once, so that few large ones are cheaper than 1,024 small ones.
const BATCH_BYTES_MAX: usize = 64 << 20;
/// What a visitor and a name of a lead take, as `limits` of mikomi.toml say it.
const ENTRY_BYTES: (usize, usize) = (256, 4 << 10);
/// Entries looked at before it rests again.
const LOOK: usize = 64;
/// How often a batch is done again because somebody was erased meanwhile.
const TRIES: usize = 3;
/// The longest that a durable record is waited for at once: a stop is noticed as soon.
const WAIT: Duration = Duration::from_millis(50);

/// Why a batch was not compared. None of it is a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// The journal begins after what the snapshots that are there need.
    JournalBeginsLater,
    /// The journal cannot be read on.
    JournalUnreadable,
    /// No snapshot that is there can be read.
    SnapshotsUnreadable,
    /// Somebody was erased, each time it was tried.
    Disturbed,
}

impl Skipped {
    /// All of them.
    pub const ALL: [Skipped; 4] = [
        Skipped::JournalBeginsLater,
        Skipped::JournalUnreadable,
        Skipped::SnapshotsUnreadable,
        Skipped::Disturbed,
    ];

    /// The name in the figures.
    pub fn name(self) -> &'static str {
        match self {
            Skipped::JournalBeginsLater => "journal_begins_later",
            Skipped::JournalUnreadable => "journal_unreadable",
            Skipped::SnapshotsUnreadable => "snapshots_unreadable",
            Skipped::Disturbed => "disturbed",
        }
    }
}

/// Why a batch came to no end.
enum Failed {
    /// The server stops.
    Stopped,
    /// Another snapshot may do.
    Skipped(Skipped),
}

impl From<Stopped> for Failed {
    fn from(_: Stopped) -> Failed {
        Failed::Stopped
    }
}

impl From<Fault> for Failed {
    fn from(_: Fault) -> Failed {
        Failed::Skipped(Skipped::SnapshotsUnreadable)
    }
}

impl From<ReadError> for Failed {
    fn from(error: ReadError) -> Failed {
        Failed::Skipped(match error {
            ReadError::Removed { .. } => Skipped::JournalBeginsLater,
            ReadError::NotDurable
            | ReadError::Lost
            | ReadError::Damaged { .. }
            | ReadError::Disk(_) => Skipped::JournalUnreadable,
        })
    }
}

/// Audits round after round, as the settings say, until told to stop.
pub fn run(app: &App, store: &Store, stop: &AtomicBool) {
    let settings = &app.settings.audit;
    let Some(share) = settings.core_percent_max else {
        return;
    };
    background::stand_back();
    let pace = Pace::new(&app.clock, stop, share);
    // What is in memory at a start was made by replay a moment ago.
    let mut next_ms = app.clock.boot_ms() + settings.round.as_millis() as u64;
    while pace.wait_until(next_ms).is_ok() {
        let began_ms = app.clock.boot_ms();
        if (Auditing { app, store, pace: &pace }).round().is_err() {
            return;
        }
        app.audit.end_round(app.clock.now(), app.clock.boot_ms() - began_ms);
        next_ms = began_ms + settings.round.as_millis() as u64;
    }
}

/// What it takes.
struct Auditing<'a> {
    app: &'a App,
    store: &'a Store,
    pace: &'a Pace<'a>,
}

impl Auditing<'_> {
    /// Every slot once.
    fn round(&self) -> Result<(), Stopped> {
        let mut from = 0;
        while usize::from(from) < Slot::COUNT {
            let most = self.app.engine.slots_within(BATCH_BYTES_MAX, ENTRY_BYTES);
            let slots = from..(from + most).min(Slot::COUNT as u16);
            from = slots.end;
            self.app.audit.slot.store(u64::from(slots.start), Ordering::Relaxed);
            match self.batch(&slots) {
                Ok(audited) => self.app.audit.note(slots.len(), &audited),
                Err(Failed::Stopped) => return Err(Stopped),
                Err(Failed::Skipped(why)) => {
                    tracing::warn!(?slots, why = why.name(), "slots were not audited");
                    self.app.audit.skip(why);
                }
            }
            self.pace.breathe()?;
        }
        Ok(())
    }

    /// Some slots, from the best snapshot that can be used.
    fn batch(&self, slots: &Range<u16>) -> Result<Audited, Failed> {
        let mut disturbed = 0;
        let bases = self.bases()?;
        let mut bases = bases.iter().peekable();
        loop {
            let base = bases.peek().ok_or(Failed::Skipped(Skipped::SnapshotsUnreadable))?;
            match self.compare(slots, base.as_ref()) {
                Ok(audited) if !audited.disturbed => return Ok(audited),
                Ok(_) => {
                    disturbed += 1;
                    if disturbed == TRIES {
                        return Err(Failed::Skipped(Skipped::Disturbed));
                    }
                }
                Err(failed) => {
                    bases.next();
                    if matches!(failed, Failed::Stopped) || bases.peek().is_none() {
                        return Err(failed);
                    }
                }
            }
        }
    }

    /// What to begin with, the best first: a snapshot, or nothing where there is none.
    fn bases(&self) -> Result<Vec<Option<Snapshot>>, Failed> {
        let names = self.store.names()?;
        let opened = names.iter().filter_map(|name| self.store.open(name).ok());
        let mut found: Vec<Snapshot> = opened.collect();
        if found.is_empty() {
            // They may have been replaced just now, or all be damaged; without any, all there is
            // is in the journal.
            let none = names.is_empty().then_some(None);
            return Ok(none.into_iter().collect());
        }
        // An older one may know of what was accepted as lost after it: of another incarnation only
        // that counts which the start has used.
        let incarnation = self.app.journal.incarnation();
        let mut newest = true;
        found.retain(|it| std::mem::take(&mut newest) || it.head.incarnation == incarnation);
        Ok(found.into_iter().rev().map(Some).collect())
    }

    /// Compares some slots as they are now with what comes of a snapshot and the records after it.
    fn compare(&self, slots: &Range<u16>, base: Option<&Snapshot>) -> Result<Audited, Failed> {
        let (app, pace) = (self.app, self.pace);
        let pushed = app.journal.pushed();
        // A stop is noticed between the steps.
        let rest = || {
            let _ = pace.breathe();
        };
        let now = app.clock.now();
        let mut audit =
            Audit::begin(&app.engine, slots.clone(), pushed, now, background::rest_under_lock);
        while !audit.look(&app.engine, LOOK) {
            pace.breathe()?;
        }
        let open = |lead: LeadId, sealed: &[u8]| app.sealer.unseal(lead, sealed);
        let unseal = |lead: LeadId, sealed: &[u8]| attributes_of(open(lead, sealed));
        for part in base.iter().flat_map(|snapshot| snapshot.parts()) {
            let wanted = part.kind == Kind::Slot
                && u16::try_from(part.number).is_ok_and(|slot| slots.contains(&slot));
            if let Some(snapshot) = base.filter(|_| wanted) {
                let payload = snapshot.read(part)?;
                let read = SlotReader::open(&payload, snapshot.form);
                let restored = read.and_then(|slot| audit.restore(&slot, &unseal, &rest));
                restored.map_err(Fault::from)?;
                pace.breathe()?;
            }
        }
        let from = base.map_or(Position::NONE, |snapshot| snapshot.head.from);
        self.replay(&mut audit, from)?;
        Ok(audit.finish(&app.engine, app.clock.now()))
    }

    /// Leads the shadow along the journal to where the last of the entries was looked at.
    fn replay(&self, audit: &mut Audit, mut at: Position) -> Result<(), Failed> {
        let app = self.app;
        let mut follower = app.journal.follow(at.next());
        while at < audit.until() {
            self.pace.breathe()?;
            let Some(entry) = follower.next_blocking(WAIT)? else {
                if app.journal.has_ended() {
                    return Err(Failed::Stopped);
                }
                continue;
            };
            at = entry.position;
            let Ok(mut record) = Record::decode(entry.bytes) else {
                return Err(Failed::Skipped(Skipped::JournalUnreadable));
            };
            if audit.concerns(&record) {
                unseal_with(&mut record, |lead, sealed| app.sealer.unseal(lead, sealed));
                audit.apply(&record, at);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use engine::engine::How;
    use engine::record::{Body, LeadPart, Name, NameKind};
    use engine::time::Timestamp;

    use super::*;
    use crate::config::{DEFAULT_MIKOMI, Files};
    use crate::journal::disk::RealDisk;
    use crate::serve::{Options, Running, start};

    /// A server of small segments. Its own audit rests as long as any test.
    fn started(folder: &Path) -> Running {
        let small = DEFAULT_MIKOMI.replace("segment_bytes = 67108864 ", "segment_bytes = 1048576 ");
        assert_ne!(small, DEFAULT_MIKOMI);
        let mut files = Files::default();
        files.contents[0] = Some(small.into_bytes());
        let (data, files) = (Some(folder.to_owned()), Some(files));
        let options = Options { data, files, any_port: true, ..Options::default() };
        start(&options).unwrap_or_else(|error| panic!("{error}"))
    }

    fn figure(running: &Running, name: &str) -> u64 {
        let mut text = String::new();
        running.app.audit.write(&mut text);
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
    }

    /// One round over all slots, by hand.
    fn round(running: &Running, stop: &AtomicBool) -> Result<(), Stopped> {
        let app = &running.app;
        let disk = RealDisk::open(running.data.join("snapshots")).unwrap();
        let store = Store::new(std::sync::Arc::new(disk), app.install.id.0);
        let pace = Pace::new(&app.clock, stop, 50);
        (Auditing { app, store: &store, pace: &pace }).round()?;
        app.audit.end_round(app.clock.now(), 0);
        Ok(())
    }

    /// Records of the server's own, of so many bytes altogether.
    fn fill(running: &Running, bytes: usize) {
        const EACH: usize = 60_000;
        let app = &running.app;
        for number in 0..bytes.div_ceil(EACH) as u16 {
            let mut reserved = app.journal.reserve(1, 2 * EACH).unwrap();
            let (kind, name) = (NameKind::Endpoint, "x".repeat(EACH));
            let name = Name { kind, number, name };
            let position = app.engine.name(vec![name], app.clock.now(), &mut |record| {
                let mut bytes = Vec::new();
                record.encode(&mut bytes);
                reserved.push(&bytes)
            });
            app.journal.wait_blocking(position).unwrap();
        }
    }

    #[test]
    fn a_lead_that_no_record_made_is_an_alarm_in_every_round_until_it_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let running = started(folder.path());
        let (app, stop) = (&running.app, AtomicBool::new(false));
        round(&running, &stop).unwrap();
        assert_eq!(figure(&running, "mikomi_audit_slots_total"), 1_024);
        assert_eq!(app.audit.problems(), [""; 0]);
        let lead = LeadId(0x4000_0000_0000_0001);
        let part = LeadPart { lead, origin: lead, ..LeadPart::default() };
        let forged = Record { time: Timestamp(1), version: 1, body: Body::Due(Box::new(part)) };
        app.engine.evolve(&forged, Position::new(0, 1));
        for times in 1..3 {
            round(&running, &stop).unwrap();
            assert_eq!(figure(&running, "mikomi_audit_mismatches_total"), times);
            assert_eq!(figure(&running, "mikomi_audit_differing"), 1);
            let said = format!("the audit: slot 256, {lead}, record 1: {}", How::Unfounded.name());
            assert_eq!(app.audit.problems(), [said]);
        }
        running.stop().unwrap();
    }

    #[test]
    fn a_journal_that_begins_later_than_it_needs_is_a_reason_and_no_difference() {
        let folder = tempfile::tempdir().unwrap();
        let running = started(folder.path());
        let (app, stop) = (&running.app, AtomicBool::new(false));
        fill(&running, 3 << 20);
        assert!(app.journal.remove_before(app.journal.durable()).unwrap() > 0);
        round(&running, &stop).unwrap();
        let name = "mikomi_audit_skipped_total{reason=\"journal_begins_later\"}";
        assert_eq!(figure(&running, name), 1);
        assert_eq!(figure(&running, "mikomi_audit_slots_total"), 0);
        assert_eq!(figure(&running, "mikomi_audit_mismatches_total"), 0);
        running.stop().unwrap();
    }

    #[test]
    fn whoever_stops_in_the_middle_of_a_round_leaves_at_once_and_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let running = started(folder.path());
        assert_eq!(round(&running, &AtomicBool::new(true)), Err(Stopped));
        assert_eq!(figure(&running, "mikomi_audit_slots_total"), 0);
        assert_eq!(figure(&running, "mikomi_audit_rounds_total"), 0);
        running.stop().unwrap();
    }
}
