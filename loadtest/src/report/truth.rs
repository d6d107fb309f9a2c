//! What a run found of the truth: five counts that must be 0, and what they were taken of.

use serde::{Deserialize, Serialize};

use super::Summary;

/// It.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Truth {
    /// Hits acknowledged that the server does not have.
    pub lost: u64,
    /// Hits that nobody sent, and messages that nothing caused.
    pub invented: u64,
    /// Messages that nobody got.
    pub missing: u64,
    /// Hits recorded twice, causes told under two ids.
    pub doubled: u64,
    /// Scores, points of messages and orders that are not what they must be.
    pub wrong: u64,
    /// The first few of them, in words.
    pub examples: Vec<String>,
    /// Hits.
    pub hits: Hits,
    /// People whose scores were compared.
    pub leads: u64,
    /// Their rows.
    pub rows: u64,
    /// Messages.
    pub messages: Messages,
    /// From sending the hit that caused a message to having read it.
    pub click_to_alert: Summary,
    /// From the moment at which time alone caused a message to having read it.
    pub due_to_alert: Summary,
    /// How long judging took.
    pub judged_s: f64,
}

/// Hits, each once.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Hits {
    /// Sent.
    pub sent: u64,
    /// Sent again, under the same id.
    pub sent_again: u64,
    /// Acknowledged.
    pub acknowledged: u64,
    /// Sent, and never answered: the server may have them or not.
    pub unanswered: u64,
    /// Those of them that it has.
    pub unanswered_recorded: u64,
    /// What the server has.
    pub recorded: u64,
    /// Requests that it refused.
    pub refused_requests: u64,
}

/// Messages.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Messages {
    /// By the model.
    pub expected: u64,
    /// Different ones, also from after the end.
    pub heard: u64,
    /// Further deliveries of the same.
    pub repeated: u64,
    /// Without a good signature.
    pub refused: u64,
}

impl Truth {
    /// The five counts and their names.
    pub fn counters(&self) -> [(&'static str, u64); 5] {
        [
            ("lost", self.lost),
            ("invented", self.invented),
            ("missing", self.missing),
            ("doubled", self.doubled),
            ("wrong", self.wrong),
        ]
    }
}
