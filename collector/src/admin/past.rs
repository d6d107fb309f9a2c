//! A lead as it was known at a moment, made of its records up to then.

use engine::id::{LeadId, Position};
use engine::lead::Lead;
use engine::time::Timestamp;
use serde_json::Value;

use super::view::View;
use super::{Admin, Query, Refusal, parse_time};
use crate::timeline::{self, Timeline};

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
            let records = self.history(id, entry.last_position, HISTORY_MAX)?;
            let then = timeline::replayed(records.iter().filter(|(_, it)| it.time <= at));
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
    ) -> Result<Timeline, Refusal> {
        let records = timeline::of_entry(&self.app, id, last, most);
        let records = records.map_err(|_| Refusal::Unavailable)?;
        if records.len() >= most {
            return Err(Refusal::TooMuch("records of one lead"));
        }
        Ok(records)
    }
}
