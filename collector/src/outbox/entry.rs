//! What the outbox writes into the journal, as JSON: few, read by people and programs, and
//! sealed where they are personal. FORMAT.md lists the fields.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use engine::id::{LeadId, Position};
use engine::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::held::HeldBack;
use crate::webhook::{AttemptRecord, Delivery, EndpointId, MessageId, Outcome, SendError};

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case", deny_unknown_fields)]
pub enum Entry {
    /// An alert's messages were frozen, for every endpoint that wanted one.
    Queued(Queued),
    /// Something became of a delivery.
    Attempt(Attempt),
    /// What was not sent one by one, in one message.
    Digest(Digest),
    /// An endpoint disabled itself.
    Disabled {
        /// Which.
        endpoint: String,
        /// Its settings then, so that changed ones count anew.
        fingerprint: u32,
    },
}

/// See [`Entry::Queued`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Queued {
    /// The alert's id.
    pub alert: String,
    /// The lead.
    pub lead: String,
    /// The type.
    pub kind: String,
    /// The lead's count of messages.
    pub sequence: u32,
    /// The record that holds the crossing.
    pub cause: u64,
    /// When what caused it was received, in milliseconds.
    pub received: u64,
    /// Whether a test key caused it.
    pub test: bool,
    /// What it tells the state of, if it does: a newer one makes an older one needless.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Whether it also tells something that happened, which no newer state says.
    #[serde(default, skip_serializing_if = "is_false")]
    pub event: bool,
    /// The alert it takes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retracts: Option<String>,
    /// The whole body in JSON, nothing hidden, under the lead's key, in base 64. Earlier entries
    /// have none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub whole: String,
    /// What each endpoint gets. Earlier: a body for nobody, if no endpoint wanted any.
    pub bodies: Vec<Frozen>,
    /// What held it back from whom, if something did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldBack>,
}

/// One endpoint's message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frozen {
    /// The endpoint; none if nobody is told.
    pub endpoint: Option<String>,
    /// The body under the lead's key, in base 64; left out if it is the whole one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sealed: String,
    /// It is held until then: people rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<u64>,
    /// Whose it is, and on which day it counts, where messages a day are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
    /// It is not sent by itself, and listed in the digest of this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed: Option<u64>,
    /// Its line in a digest, under the lead's key, in base 64.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub line: String,
    /// Nothing is sent: it only makes needless what waits there.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ends: bool,
}

/// See [`Frozen::counts`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// The owner's address, hashed; empty if the lead has none.
    pub owner: String,
    /// The day, since 1 January 1970 where the owner is.
    pub day: i64,
}

/// See [`Entry::Digest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Digest {
    /// Its id.
    pub alert: String,
    /// Where to.
    pub endpoint: String,
    /// `evening` or `morning`.
    pub occasion: String,
    /// The moment it is of.
    pub slot: u64,
    /// The day it is of, since 1 January 1970.
    pub day: i64,
    /// Which of that day's, from 0: a long one is several messages.
    pub part: u32,
    /// Whether it goes to a test endpoint.
    pub test: bool,
    /// It is held until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<u64>,
    /// How it is written: `json`, `slack`, `chatwork`.
    pub form: String,
    /// In which language.
    pub lang: String,
    /// Its lines.
    pub items: Vec<Item>,
}

/// One line of a digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// Under which heading.
    pub section: String,
    /// About whom.
    pub lead: String,
    /// Which alert, if it stands for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert: Option<String>,
    /// The line under the lead's key, in base 64.
    pub line: String,
}

/// A line of a digest, plain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// What it says.
    pub text: String,
    /// Where to read more.
    pub url: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// See [`Entry::Attempt`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// The alert.
    pub alert: String,
    /// The endpoint.
    pub endpoint: String,
    /// Its number.
    pub attempt: u32,
    /// When its outcome was known.
    pub at: u64,
    /// What happened: `answered`, `shadowed`, `resent`, `endpoint_gone`, `superseded`, `retracted`,
    /// or an error's name.
    pub outcome: String,
    /// The message that made it needless.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The answer's status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How long it took.
    #[serde(default)]
    pub took_ms: u32,
    /// The beginning of the answer, in base 64: in memory, and in earlier entries.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub answer: String,
    /// The same under the lead's key, in base 64.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub answer_sealed: String,
    /// Where the delivery stands: `pending`, `waiting`, `delivered`, `exhausted`, `disabled`,
    /// `dropped`.
    pub state: String,
    /// Attempts that have ended.
    pub attempts: u32,
    /// When the next is due, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

impl Entry {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers always have a JSON form")
    }

    /// Reads an entry; nothing if it is of another version.
    pub fn decode(bytes: &[u8]) -> Option<Entry> {
        serde_json::from_slice(bytes).ok()
    }
}

impl Line {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts always have a JSON form")
    }

    /// Reads it.
    pub fn decode(bytes: &[u8]) -> Option<Line> {
        serde_json::from_slice(bytes).ok()
    }
}

impl Queued {
    /// The lead's id.
    pub fn lead_id(&self) -> Option<LeadId> {
        LeadId::parse(&self.lead)
    }

    /// The record that holds the crossing.
    pub fn cause(&self) -> Position {
        Position(self.cause)
    }

    /// The sealed body of an endpoint.
    pub fn sealed_bytes(&self, frozen: &Frozen) -> Option<Vec<u8>> {
        let own = !frozen.sealed.is_empty();
        STANDARD.decode(if own { &frozen.sealed } else { &self.whole }).ok()
    }

    /// The sealed whole body: of an earlier entry, that of the first endpoint.
    pub fn sealed_whole(&self) -> Option<Vec<u8>> {
        let first = || self.bodies.first().map_or("", |frozen| frozen.sealed.as_str());
        STANDARD.decode(if self.whole.is_empty() { first() } else { &self.whole }).ok()
    }
}

/// Base 64 as bytes.
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Bytes as base 64.
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

impl From<&AttemptRecord> for Attempt {
    fn from(record: &AttemptRecord) -> Attempt {
        let (outcome, status, took_ms, answer) = match &record.outcome {
            Outcome::Answered { status, duration_ms, kept } => {
                ("answered", Some(*status), *duration_ms, base64(kept))
            }
            Outcome::Failed { error, duration_ms } => {
                (error.name(), None, *duration_ms, String::new())
            }
            Outcome::Shadowed => ("shadowed", None, 0, String::new()),
            Outcome::Resent => ("resent", None, 0, String::new()),
            Outcome::EndpointGone => ("endpoint_gone", None, 0, String::new()),
            Outcome::Superseded { .. } => ("superseded", None, 0, String::new()),
            Outcome::Retracted { .. } => ("retracted", None, 0, String::new()),
        };
        let by = match &record.outcome {
            Outcome::Superseded { by } | Outcome::Retracted { by } => Some(by.as_str().to_owned()),
            _ => None,
        };
        let (state, until) = match record.state {
            Delivery::Pending => ("pending", None),
            Delivery::Waiting { until, .. } => ("waiting", Some(until.0)),
            Delivery::Delivered { .. } => ("delivered", None),
            Delivery::Exhausted { .. } => ("exhausted", None),
            Delivery::Disabled { .. } => ("disabled", None),
            Delivery::Dropped => ("dropped", None),
        };
        Attempt {
            alert: record.message.as_str().to_owned(),
            endpoint: record.endpoint.as_str().to_owned(),
            attempt: record.attempt,
            at: record.at.0,
            outcome: outcome.to_owned(),
            by,
            status,
            took_ms,
            answer,
            answer_sealed: String::new(),
            state: state.to_owned(),
            attempts: record.state.attempts(),
            until,
        }
    }
}

impl Attempt {
    /// Whether the message needs nothing more: what was given up may be sent again.
    pub fn is_done(&self) -> bool {
        matches!(self.state.as_str(), "delivered" | "dropped")
    }

    /// As the journal holds it: what a receiver answers may say of whom it is. Without a key, as
    /// of a digest, it is left out.
    #[must_use]
    pub fn sealed(&self, seal: impl FnOnce(&[u8]) -> Option<Vec<u8>>) -> Attempt {
        let sealed = from_base64(&self.answer).filter(|it| !it.is_empty());
        let sealed = sealed.and_then(|answer| seal(&answer));
        let answer_sealed = sealed.map(|it| base64(&it)).unwrap_or_default();
        Attempt { answer: String::new(), answer_sealed, ..self.clone() }
    }

    /// Puts the plain answer back, as far as the key is there.
    pub fn open(&mut self, unseal: impl FnOnce(&[u8]) -> Option<Vec<u8>>) {
        let sealed = from_base64(&self.answer_sealed);
        let sealed = sealed.filter(|it| !it.is_empty());
        if let Some(answer) = sealed.and_then(|it| unseal(&it)) {
            self.answer = base64(&answer);
        }
    }

    /// The record it was made from.
    pub fn to_record(&self) -> Option<AttemptRecord> {
        let attempts = self.attempts;
        let state = match self.state.as_str() {
            "pending" => Delivery::Pending,
            "waiting" => Delivery::Waiting { attempts, until: Timestamp(self.until?) },
            "delivered" => Delivery::Delivered { attempts },
            "exhausted" => Delivery::Exhausted { attempts },
            "disabled" => Delivery::Disabled { attempts },
            "dropped" => Delivery::Dropped,
            _ => return None,
        };
        let by = || MessageId::parse(self.by.as_deref()?).ok();
        let outcome = match self.outcome.as_str() {
            "answered" => Outcome::Answered {
                status: self.status?,
                duration_ms: self.took_ms,
                kept: Bytes::from(STANDARD.decode(&self.answer).ok()?),
            },
            "shadowed" => Outcome::Shadowed,
            "resent" => Outcome::Resent,
            "endpoint_gone" => Outcome::EndpointGone,
            "superseded" => Outcome::Superseded { by: by()? },
            "retracted" => Outcome::Retracted { by: by()? },
            error => {
                Outcome::Failed { error: SendError::from_name(error)?, duration_ms: self.took_ms }
            }
        };
        Some(AttemptRecord {
            endpoint: EndpointId::parse(&self.endpoint).ok()?,
            message: MessageId::parse(&self.alert).ok()?,
            attempt: self.attempt,
            at: Timestamp(self.at),
            outcome,
            state,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_an_earlier_version_reads_as_what_it_was() {
        let bytes = br#"{"entry":"queued","alert":"msg_1","lead":"L0000000000000001",
            "kind":"lead.hot","sequence":3,"cause":7,"received":8,"test":false,
            "bodies":[{"endpoint":null,"sealed":"AAE="}]}"#;
        let Some(Entry::Queued(queued)) = Entry::decode(bytes) else {
            panic!("a message");
        };
        assert_eq!((queued.sequence, queued.topic.as_deref()), (3, None));
        assert_eq!(queued.sealed_whole(), Some(vec![0, 1]));
        assert_eq!(queued.sealed_bytes(&queued.bodies[0]), Some(vec![0, 1]));
    }

    #[test]
    fn a_body_that_is_the_whole_one_is_kept_once() {
        let own = Frozen { sealed: base64(&[9]), ..Frozen::default() };
        let same = Frozen { endpoint: Some("sfa".into()), ..Frozen::default() };
        let queued = Queued { whole: base64(&[1]), bodies: vec![same, own], ..Queued::default() };
        let text = String::from_utf8(Entry::Queued(queued.clone()).encode()).unwrap();
        assert!(text.contains(r#"[{"endpoint":"sfa"},"#), "{text}");
        let sealed = queued.bodies.iter().map(|it| queued.sealed_bytes(it));
        assert_eq!(sealed.collect::<Vec<_>>(), [Some(vec![1]), Some(vec![9])]);
    }

    #[test]
    fn every_attempt_reads_back_as_the_record_it_was() {
        let outcomes = [
            Outcome::Answered { status: 500, duration_ms: 7, kept: Bytes::from_static(b"no\xff") },
            Outcome::Failed { error: SendError::Deadline, duration_ms: 20_000 },
            Outcome::Shadowed,
            Outcome::Resent,
            Outcome::EndpointGone,
            Outcome::Superseded { by: MessageId::parse("msg_2").unwrap() },
            Outcome::Retracted { by: MessageId::parse("msg_2").unwrap() },
        ];
        let states = [
            Delivery::Pending,
            Delivery::Waiting { attempts: 2, until: Timestamp(99) },
            Delivery::Delivered { attempts: 1 },
            Delivery::Exhausted { attempts: 10 },
            Delivery::Disabled { attempts: 0 },
            Delivery::Dropped,
        ];
        for outcome in outcomes {
            for state in states {
                let record = AttemptRecord {
                    endpoint: EndpointId::parse("sales").unwrap(),
                    message: MessageId::parse("msg_1").unwrap(),
                    attempt: 3,
                    at: Timestamp(7),
                    outcome: outcome.clone(),
                    state,
                };
                let bytes = Entry::Attempt(Attempt::from(&record)).encode();
                let Some(Entry::Attempt(read)) = Entry::decode(&bytes) else {
                    panic!("an attempt");
                };
                assert_eq!(read.to_record(), Some(record));
            }
        }
    }
}
