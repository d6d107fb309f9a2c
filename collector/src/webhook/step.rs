//! The words of the queue: what may happen to it, and what it may ask the driver to do.
//!
//! They are values, so that tests and a simulator can make them up, and so that the queue itself
//! stays free of sockets, files and clocks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engine::time::Timestamp;

use super::breaker::Rest;
use super::{Answer, AttemptRecord, Delivery, EndpointId, LeadRef, MessageId, SendError};

/// Attempts one endpoint may have in flight unless its settings say otherwise.
pub const IN_FLIGHT_MAX: usize = 8;
/// An endpoint that gave no 2xx for so long, and lost a message by it, is disabled.
pub const FAILING_MAX: Duration = Duration::from_hours(120);

/// The limits of a queue; each has a counter in `Counters`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Endpoints; with `in_flight_max` of each this bounds open sockets.
    pub endpoints_max: usize,
    /// Messages waiting for one endpoint.
    pub pending_max: usize,
    /// Dead letters kept for one endpoint; later ones are counted and stay only in the journal.
    pub dead_max: usize,
    /// Bytes of bodies, waiting and dead, over all endpoints.
    pub bodies_bytes_max: usize,
    /// Bytes of one body.
    pub body_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            endpoints_max: 64,
            pending_max: 10_000,
            dead_max: 10_000,
            bodies_bytes_max: 256 << 20,
            body_bytes_max: 64 << 10,
        }
    }
}

/// Whether an endpoint is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Messages are sent.
    Live,
    /// Messages are recorded as they would have been sent, and not sent; those that wait when an
    /// endpoint is put in shadow too.
    Shadow,
    /// Nothing is sent; messages become dead letters at once.
    Disabled,
}

/// What the queue must know of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSettings {
    /// Its name.
    pub id: EndpointId,
    /// Whether it is sent to.
    pub mode: Mode,
    /// A test endpoint gets test messages only, every other endpoint none of them.
    pub test: bool,
    /// Attempts in flight, at least 1.
    pub in_flight_max: usize,
    /// The delay before each attempt.
    pub schedule: Arc<[Duration]>,
    /// Whether a newer message of the same topic about a lead replaces one that was never sent.
    pub supersede: bool,
    /// How long it rests while most attempts fail.
    pub rest: Rest,
}

/// One alert for one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The alert's id, sent as `webhook-id`.
    pub id: MessageId,
    /// Where to.
    pub endpoint: EndpointId,
    /// Whom it is about.
    pub lead: LeadRef,
    /// The lead's own count of messages, by which resent ones are ordered.
    pub sequence: u64,
    /// Caused by a test key.
    pub test: bool,
    /// Somebody asked for it again, although it may have been delivered.
    pub replay: bool,
    /// It is held until then, because people rest.
    pub not_before: Option<Timestamp>,
    /// What it tells the state of: a newer one of the same topic about the same lead says all
    /// that is still true. Nothing, if each one counts.
    pub topic: Option<Arc<str>>,
    /// Whether it also tells something that happened: then a newer state replaces it, and its mere
    /// end does not.
    pub event: bool,
    /// The message it takes back.
    pub retracts: Option<MessageId>,
    /// The frozen body; the same bytes at every attempt.
    pub body: Bytes,
}

impl Message {
    /// Whether it says anew what an older message about the same lead says.
    pub fn is_newer_state_of(&self, older: &Message) -> bool {
        self.topic.is_some() && self.topic == older.topic && !self.replay
    }
}

/// A newer message that an endpoint is not sent, and that makes older ones needless there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overtaking {
    /// Where.
    pub endpoint: EndpointId,
    /// Whom they are about.
    pub lead: LeadRef,
    /// The newer one.
    pub by: MessageId,
    /// Older ones of this topic.
    pub topic: Option<Arc<str>>,
    /// The older one it takes back.
    pub retracts: Option<MessageId>,
}

/// What happens to the queue.
#[derive(Clone, Debug)]
pub enum Input {
    /// A message whose own record is durable.
    Enqueue(Message),
    /// A newer message for others whose own record is durable.
    Overtaken(Overtaking),
    /// While loading: a record of the journal, after the message it belongs to.
    Replayed(AttemptRecord),
    /// Loading is over: from now on there are effects.
    Loaded,
    /// An attempt ended.
    Answered(Answered),
    /// Time has passed.
    Tick,
    /// Dead letters of an endpoint are to be sent again.
    Resend {
        /// Whose.
        endpoint: EndpointId,
        /// Which.
        which: Resend,
    },
    /// An endpoint is new, or its settings changed.
    EndpointChanged(EndpointSettings),
    /// An endpoint is no longer in the settings.
    EndpointRemoved(EndpointId),
    /// A lead is to be forgotten: its bodies go, waiting and dead. An attempt in flight cannot be
    /// called back; it is not repeated.
    Forget(LeadRef),
    /// A message about several people has another body, since one of them was forgotten; with
    /// none it goes.
    Rewrite {
        /// Which.
        id: MessageId,
        /// Its body from now on.
        body: Option<Bytes>,
    },
}

/// The end of an attempt.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The attempt's endpoint.
    pub endpoint: EndpointId,
    /// The attempt's message.
    pub message: MessageId,
    /// The attempt's number.
    pub attempt: u32,
    /// What came back.
    pub answer: Result<Answer, SendError>,
    /// How long it took.
    pub took: Duration,
    /// Drawn from -1 to 1, for the next delay.
    pub jitter: f64,
}

/// Which dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resend {
    /// This one.
    One(MessageId),
    /// All that died at or after this time.
    Since(Timestamp),
}

/// One attempt to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Where to.
    pub endpoint: EndpointId,
    /// Its id.
    pub message: MessageId,
    /// 1 for the first since it was queued or resent.
    pub attempt: u32,
    /// Somebody asked for it again.
    pub replay: bool,
    /// The body.
    pub body: Bytes,
}

/// What the driver must do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Make this attempt, after the records before it are durable.
    Send(Attempt),
    /// Make this record durable.
    Journal(AttemptRecord),
    /// A message became a dead letter.
    Dead {
        /// Its endpoint.
        endpoint: EndpointId,
        /// Its id.
        message: MessageId,
        /// Whether it can be resent from here (`dead_max`).
        kept: bool,
    },
    /// The endpoint is now disabled; write it where settings are kept.
    DisableEndpoint {
        /// Which.
        endpoint: EndpointId,
        /// Why.
        why: DisableReason,
    },
    /// A message or a wish was not taken.
    Refused {
        /// Its endpoint.
        endpoint: EndpointId,
        /// Its id, where it is about one.
        message: Option<MessageId>,
        /// Why.
        why: Refusal,
    },
    /// Send a `Tick` at this time, unless another input comes first.
    WakeAt(Timestamp),
}

/// Why an endpoint was disabled by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisableReason {
    /// It answered 410.
    Gone,
    /// No 2xx for `FAILING_MAX`, and a message exhausted its schedule.
    Failing {
        /// Since when.
        since: Timestamp,
    },
}

/// Why a message or a wish was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No such endpoint.
    UnknownEndpoint,
    /// `endpoints_max` are there already.
    TooManyEndpoints,
    /// `pending_max` messages wait for this endpoint.
    Full,
    /// `bodies_bytes_max` would be passed.
    BodiesFull,
    /// The body is over `body_bytes_max`.
    BodyTooLarge,
    /// A test message for a real endpoint, or the other way round.
    TestMismatch,
    /// The message is waiting already; it is sent once.
    Duplicate,
    /// There is no such dead letter.
    NotDead,
    /// Nothing is resent to a disabled endpoint.
    EndpointDisabled,
}

impl Refusal {
    /// Whether one of `Limits` was met, which a counter of its own tells.
    pub fn is_limit(self) -> bool {
        match self {
            Refusal::Full
            | Refusal::BodiesFull
            | Refusal::BodyTooLarge
            | Refusal::TooManyEndpoints => true,
            Refusal::UnknownEndpoint
            | Refusal::TestMismatch
            | Refusal::Duplicate
            | Refusal::NotDead
            | Refusal::EndpointDisabled => false,
        }
    }
}

/// What has happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages taken.
    pub enqueued: u64,
    /// Attempts handed out.
    pub attempts: u64,
    /// Messages answered 2xx.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Messages recorded in shadow.
    pub shadowed: u64,
    /// Messages that became dead letters.
    pub dead: u64,
    /// Dead letters not kept because of `dead_max`.
    pub dead_not_kept: u64,
    /// Dead letters sent again.
    pub resent: u64,
    /// Messages refused by a limit (full, bodies full, body too large, endpoints).
    pub refused_by_limit: u64,
    /// Messages or wishes refused otherwise.
    pub refused: u64,
    /// Messages dropped because a newer one came before they were sent.
    pub superseded: u64,
    /// Messages dropped because they were taken back before they were sent, and those that took
    /// them back.
    pub retracted: u64,
    /// Messages dropped because their lead was forgotten.
    pub forgotten: u64,
    /// Answers or records about messages that are not here.
    pub unmatched: u64,
}

/// How full the queue is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Since the start.
    pub counters: Counters,
    /// Messages waiting or in flight.
    pub pending: usize,
    /// Attempts in flight.
    pub in_flight: usize,
    /// Dead letters kept.
    pub dead: usize,
    /// Bytes of bodies held.
    pub bodies_bytes: usize,
}

/// A message that is waiting, in flight or dead: what a snapshot or a list shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outstanding {
    /// The message.
    pub message: Message,
    /// Where it stands.
    pub state: Delivery,
    /// When it died, for dead letters.
    pub died: Option<Timestamp>,
}
