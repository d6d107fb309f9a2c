//! Forgetting a person: what is left is that somebody was erased, when, and how many messages
//! there were. Who comes again under the same name begins anew.

use crate::alert::AlertKind;
use crate::id::{LeadId, Position};
use crate::record::LeadPart;
use crate::scoring::Scoring;
use crate::time::Timestamp;

use super::Lead;
use super::draft::Draft;

impl Lead {
    /// Of whom nothing is known; `test`: they came under a test key.
    pub fn nobody(test: bool) -> Lead {
        Lead { test, ..Lead::default() }
    }

    /// Whether nothing is left but that somebody was erased: as unknown as who never came.
    pub fn is_blank(&self) -> bool {
        let holds_nothing = self.content.members.is_empty() && self.outgoing.is_none();
        self.erased != Position::NONE
            && holds_nothing
            && self.stub.is_none()
            && self.awaits.is_none()
    }

    /// Whether anything is known of it.
    pub fn is_known(&self) -> bool {
        self.exists() && !self.is_blank()
    }

    /// Decides that the person is forgotten, and tells of it. The chain of their records ends
    /// with this one: it names none before.
    pub fn erase(&self, id: LeadId, scoring: &Scoring, now: Timestamp) -> LeadPart {
        let blank = Lead {
            sequence: self.sequence,
            test: self.test,
            settled: self.settled,
            version: self.version,
            ..Lead::default()
        };
        let mut draft = Draft::new(&blank, scoring);
        draft.under(now);
        draft.part.lead = id;
        draft.part.origin = id;
        draft.tell_of_names(AlertKind::Erased, None, now);
        draft.part
    }

    /// Forgets everything but that it was erased.
    pub(super) fn forget(&mut self, time: Timestamp, position: Position) {
        *self = Lead {
            sequence: self.sequence,
            test: self.test,
            last_position: position,
            erased: position,
            erased_at: time,
            ..Lead::default()
        };
    }
}
