//! The log as a snapshot holds it: the delivery log in the form of the journal's entries.

use std::collections::{BTreeMap, VecDeque};

use engine::id::LeadId;
use engine::time::Timestamp;
use rkyv::{Archive, Deserialize, Serialize};

use super::super::book::Book;
use super::super::book::saved::SavedBook;
use super::super::entry::{Attempt, Entry};
use super::super::replay::Unseal;
use super::{Held, HeldBack, LINES_MAX, Log, locked};
use crate::followers::Unfit;

/// See the module's comment.
#[derive(Archive, Serialize, Deserialize)]
pub struct SavedLog {
    lines: Vec<Vec<u8>>,
    held: Vec<SavedHeld>,
    book: SavedBook,
}

#[derive(Archive, Serialize, Deserialize)]
struct SavedHeld {
    alert: String,
    lead: Option<u64>,
    kind: String,
    at: u64,
    by: String,
    everybody: bool,
    endpoints: Vec<String>,
}

impl Log {
    /// Its saved form.
    pub fn save(&self) -> SavedLog {
        // What a receiver answered is saved as it was journaled: sealed.
        let line = |line: &Attempt| {
            Entry::Attempt(Attempt { answer: String::new(), ..line.clone() }).encode()
        };
        let held = |held: &Held| SavedHeld {
            alert: held.alert.clone(),
            lead: held.lead.map(|lead| lead.0),
            kind: held.kind.clone(),
            at: held.at.0,
            by: held.back.by.clone(),
            everybody: held.back.everybody,
            endpoints: held.back.endpoints.clone(),
        };
        SavedLog {
            lines: locked(&self.lines).iter().map(line).collect(),
            held: locked(&self.held).iter().map(held).collect(),
            book: self.book().save(),
        }
    }

    /// What was saved.
    pub fn load(saved: SavedLog, unseal: &Unseal<'_>) -> Result<Log, Unfit> {
        if saved.lines.len() > LINES_MAX || saved.held.len() > LINES_MAX {
            return Err(Unfit::Places);
        }
        let book = Book::load(saved.book)?;
        let mut lines = VecDeque::new();
        for line in saved.lines {
            let Some(Entry::Attempt(mut attempt)) = Entry::decode(&line) else {
                return Err(Unfit::Entry);
            };
            let lead = book.lead(&attempt.alert);
            attempt.open(|sealed| unseal(lead?, sealed));
            lines.push_back(attempt);
        }
        let held = |held: SavedHeld| Held {
            alert: held.alert,
            lead: held.lead.map(LeadId),
            kind: held.kind,
            at: Timestamp(held.at),
            back: HeldBack { by: held.by, everybody: held.everybody, endpoints: held.endpoints },
        };
        let held: VecDeque<Held> = saved.held.into_iter().map(held).collect();
        Ok(Log {
            lines: lines.into(),
            book: book.into(),
            held: held.into(),
            received: BTreeMap::new().into(),
        })
    }
}
