//! What the admin side, and the outbox itself, see of what was told so far.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use engine::id::Position;
use engine::time::Timestamp;

use super::book::Book;
use super::entry::Attempt;

/// Lines of the delivery log kept in memory.
const LINES_MAX: usize = 2_000;

/// The delivery log, and the book of messages.
#[derive(Default)]
pub struct Log {
    lines: Mutex<VecDeque<Attempt>>,
    book: Mutex<Book>,
    /// When what caused an alert was received, for those not delivered yet.
    received: Mutex<BTreeMap<String, Timestamp>>,
}

impl Log {
    /// The newest lines first.
    pub fn lines(&self, most: usize) -> Vec<Attempt> {
        locked(&self.lines).iter().rev().take(most).cloned().collect()
    }

    /// Adds a line.
    pub fn add(&self, line: Attempt) {
        self.book().take(&line);
        let mut lines = locked(&self.lines);
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// Every message, and where it stands.
    pub fn book(&self) -> MutexGuard<'_, Book> {
        locked(&self.book)
    }

    /// The record that holds what an alert tells, if it was queued.
    pub fn cause(&self, alert: &str) -> Option<Position> {
        self.book().cause(alert)
    }

    pub(super) fn note_received(&self, alert: &str, received: Timestamp) {
        locked(&self.received).insert(alert.to_owned(), received);
    }

    /// When what caused an alert was received; asked once.
    pub fn take_received(&self, alert: &str) -> Option<Timestamp> {
        locked(&self.received).remove(alert)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
