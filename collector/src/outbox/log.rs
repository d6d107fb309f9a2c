//! What the admin side, and the outbox itself, see of what was told so far.

pub mod saved;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use engine::id::{LeadId, Position};
use engine::time::Timestamp;

use super::book::Book;
use super::entry::{Attempt, Queued};
use super::held::HeldBack;

/// Lines of the delivery log kept in memory.
const LINES_MAX: usize = 2_000;

/// The delivery log, and the book of messages.
#[derive(Default)]
pub struct Log {
    lines: Mutex<VecDeque<Attempt>>,
    book: Mutex<Book>,
    /// What was held back, the newest last.
    held: Mutex<VecDeque<Held>>,
    /// When what caused an alert was received, for those not delivered yet.
    received: Mutex<BTreeMap<String, Timestamp>>,
}

/// A message that was held back from somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The alert.
    pub alert: String,
    /// Whom it is about.
    pub lead: Option<LeadId>,
    /// The type.
    pub kind: String,
    /// When that was decided.
    pub at: Timestamp,
    /// By what, and from whom.
    pub back: HeldBack,
}

impl Log {
    /// The newest lines first.
    pub fn lines(&self, most: usize) -> Vec<Attempt> {
        let lines = locked(&self.lines);
        let shown = |line: &Attempt| Attempt { answer_sealed: String::new(), ..line.clone() };
        lines.iter().rev().take(most).map(shown).collect()
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

    /// What was held back, the newest first.
    pub fn held(&self) -> Vec<Held> {
        locked(&self.held).iter().rev().cloned().collect()
    }

    pub(super) fn note_held(&self, queued: &Queued, at: Timestamp) {
        let Some(back) = queued.held.clone() else {
            return;
        };
        let mut held = locked(&self.held);
        if held.len() == LINES_MAX {
            held.pop_front();
        }
        let (alert, lead, kind) = (queued.alert.clone(), queued.lead_id(), queued.kind.clone());
        held.push_back(Held { alert, lead, kind, at, back });
    }

    /// People were erased: what receivers answered of them goes.
    pub(super) fn forget(&self, leads: &[LeadId]) {
        let mut lines = locked(&self.lines);
        let book = self.book();
        for line in lines.iter_mut() {
            if book.lead(&line.alert).is_some_and(|lead| leads.contains(&lead)) {
                line.answer.clear();
                line.answer_sealed.clear();
            }
        }
        drop(book);
        locked(&self.held).retain(|held| held.lead.is_none_or(|lead| !leads.contains(&lead)));
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
