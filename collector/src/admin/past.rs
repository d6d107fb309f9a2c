//! A lead as it was known at a moment, made of its records up to then.

use engine::id::{LeadId, Position};
use engine::lead::Lead;
use engine::time::Timestamp;
use serde_json::Value;

use super::view::View;
use super::{Admin, Query, Refusal, parse_time};
use crate::timeline::{self, Timeline, Walked};

/// Records looked at for a score in the past.
pub(super) const HISTORY_MAX: usize = 100_000;
/// Names followed from one lead to whose name it became.
const NAMES_FOLLOWED_MAX: usize = 1_000;

impl Admin {
    /// The score at a moment: as it was known then, of the entry as its records up to then make
    /// it; or by what is known now.
    pub(super) fn score_at(&self, id: LeadId, query: &Query) -> Result<Value, Refusal> {
        let view = View::new(&self.app);
        let now = self.app.clock.now();
        let at = match query.get("at") {
            None => now,
            Some(text) => parse_time(text).ok_or(Refusal::Malformed("at"))?,
        };
        match query.get("knowing") {
            None | Some("then") if at < now => {}
            None | Some("then" | "now") => {
                let head = self.app.engine.head(id);
                let lead = self.app.engine.lead(head).ok_or(Refusal::NotFound)?;
                return Ok(view.score(head, &lead, (at, now)));
            }
            Some(_) => return Err(Refusal::Malformed("knowing")),
        }
        let (head, then) = self.as_known(id, at)?;
        Ok(view.score(head, &then, (at, at)))
    }

    /// A lead as it was known at a moment, and whose name it was then.
    pub(super) fn as_known(&self, name: LeadId, at: Timestamp) -> Result<(LeadId, Lead), Refusal> {
        let mut id = name;
        for _ in 0..NAMES_FOLLOWED_MAX {
            let entry = self.app.engine.entry(id).ok_or(Refusal::NotFound)?;
            let then = self.history(id, entry.last_position, HISTORY_MAX)?.until(at)?;
            match then.stub {
                Some(head) => id = head,
                None if then.exists() => return Ok((id, then)),
                None => return Err(Refusal::NotFound),
            }
        }
        Err(Refusal::NotFound)
    }

    /// All records of a lead's entry up to one. A part of them would show another score as the
    /// true one.
    pub(super) fn history(
        &self,
        id: LeadId,
        last: Position,
        most: usize,
    ) -> Result<History, Refusal> {
        let app = &self.app;
        let Walked { records, begins_later } =
            timeline::of_entry(app, id, last, most).map_err(|error| self.unread(&error))?;
        if records.len() >= most {
            return Err(Refusal::TooMuch("records of one lead"));
        }
        let mut history = History { records, ..History::default() };
        if !begins_later {
            return Ok(history);
        }
        let base = app.kept.base(app.journal.first()).ok().flatten();
        let base = base.ok_or(Refusal::Unavailable)?;
        let open = |lead: LeadId, sealed: &[u8]| app.sealer.unseal(lead, sealed);
        let lead = base.lead(id, open).map_err(|_| Refusal::Unavailable)?;
        history.base = lead.ok_or(Refusal::Unavailable)?;
        history.known = Some((base.end.until.next(), base.head.created));
        Ok(history)
    }
}

/// What is known of one entry: what the base has of it, and its records.
#[derive(Debug, Default)]
pub(super) struct History {
    base: Lead,
    /// From which record and which moment on it can be worked out, if not from its beginning.
    known: Option<(Position, Timestamp)>,
    pub(super) records: Timeline,
}

impl History {
    /// The entry as it was known at a moment.
    fn until(self, at: Timestamp) -> Result<Lead, Refusal> {
        let known = self.base.last_position;
        let in_base = self.records.range(..=known).map(|(_, record)| record.time);
        // It has them all, also what came after the moment.
        if let Some((from, since)) = self.known
            && in_base.chain([since]).any(|time| time > at)
        {
            return Err(Refusal::NotKept(from, since));
        }
        let after = self.records.iter().filter(|(position, _)| **position > known);
        Ok(timeline::replayed(self.base, after.filter(|(_, record)| record.time <= at)))
    }

    /// The entry as all its records up to one make it.
    pub(super) fn upto(self, position: Position) -> Result<Lead, Refusal> {
        let known = self.base.last_position;
        if let Some((from, since)) = self.known
            && position < from
        {
            return Err(Refusal::NotKept(from, since));
        }
        let after = self.records.iter().filter(|(position, _)| **position > known);
        Ok(timeline::replayed(self.base, after))
    }
}
