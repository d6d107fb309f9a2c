//! What the audit has found, for the metrics and the list of problems.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use engine::engine::Audited;
use engine::time::Timestamp;

use super::Skipped;
use crate::metrics::write_figure;

/// Differences listed of a round. All are counted.
const LISTED_MAX: usize = 32;

/// What is known of the audit.
#[derive(Debug, Default)]
pub struct Figures {
    /// The slot where it is.
    pub slot: AtomicU64,
    slots: AtomicU64,
    entries: AtomicU64,
    mismatches: AtomicU64,
    rounds: AtomicU64,
    round_ms: AtomicU64,
    round_at: AtomicU64,
    skipped: [AtomicU64; Skipped::ALL.len()],
    found: Mutex<Found>,
}

/// Differences of the round under way and of the last whole one.
#[derive(Debug, Default)]
struct Found {
    now: VecDeque<String>,
    differing: u64,
    last: VecDeque<String>,
    last_differing: u64,
}

impl Figures {
    /// Takes note of slots that were compared. What differs is an alarm.
    pub(super) fn note(&self, slots: usize, audited: &Audited) {
        add(&self.slots, slots as u64);
        add(&self.entries, audited.entries as u64);
        if audited.different == 0 {
            return;
        }
        add(&self.mismatches, audited.different as u64);
        let mut found = self.found();
        found.differing += audited.different as u64;
        for difference in &audited.differences {
            tracing::error!(
                slot = difference.who.slot().0,
                key = %difference.who,
                record = difference.position.0,
                how = difference.how.name(),
                "what is in memory is not what the journal makes of it"
            );
            if found.now.len() < LISTED_MAX {
                found.now.push_back(format!("the audit: {difference}"));
            }
        }
    }

    /// Takes note of slots that could not be compared.
    pub(super) fn skip(&self, why: Skipped) {
        for (_, counter) in Skipped::ALL.iter().zip(&self.skipped).filter(|it| *it.0 == why) {
            add(counter, 1);
        }
    }

    /// A round is over.
    pub(super) fn end_round(&self, now: Timestamp, took_ms: u64) {
        let mut found = self.found();
        found.last = std::mem::take(&mut found.now);
        found.last_differing = std::mem::take(&mut found.differing);
        drop(found);
        self.round_ms.store(took_ms, Ordering::Relaxed);
        self.round_at.store(now.0, Ordering::Relaxed);
        // Last: whoever sees it sees what the round has found.
        self.rounds.fetch_add(1, Ordering::Release);
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What differs by the last whole round and the one under way, in words and ids.
    pub fn problems(&self) -> Vec<String> {
        let found = self.found();
        let new = found.now.iter().filter(|line| !found.last.contains(line));
        found.last.iter().chain(new).cloned().collect()
    }

    /// All of it as Prometheus text.
    pub fn write(&self, text: &mut String) {
        let rounds = self.rounds.load(Ordering::Acquire);
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        let differing = {
            let found = self.found();
            found.last_differing.max(found.differing) as f64
        };
        let counter = "counter";
        for (name, help, kind, value) in [
            ("mikomi_audit_slots_total", "Slots audited.", counter, read(&self.slots)),
            ("mikomi_audit_entries_total", "Entries compared.", counter, read(&self.entries)),
            (
                "mikomi_audit_mismatches_total",
                "Entries found that are not what the journal makes of them. Any is an alarm.",
                counter,
                read(&self.mismatches),
            ),
            (
                "mikomi_audit_differing",
                "Entries that differ by the last round, or by the one under way.",
                "gauge",
                differing,
            ),
            ("mikomi_audit_rounds_total", "Rounds over all slots.", counter, rounds as f64),
            (
                "mikomi_audit_round_ms",
                "Milliseconds that the last round took, rests included.",
                "gauge",
                read(&self.round_ms),
            ),
            (
                "mikomi_audit_round_at_ms",
                "When the last round ended, in milliseconds since 1970; 0 before the first.",
                "gauge",
                read(&self.round_at),
            ),
            ("mikomi_audit_slot", "The slot that is audited now.", "gauge", read(&self.slot)),
        ] {
            write_figure(text, name, help, kind, value);
        }
        let name = "mikomi_audit_skipped_total";
        let help = "Batches of slots that could not be audited, by reason.";
        // Writing into a string does not fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
        for (why, counter) in Skipped::ALL.iter().zip(&self.skipped) {
            let _ = writeln!(text, "{name}{{reason=\"{}\"}} {}", why.name(), read(counter));
        }
    }
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}
