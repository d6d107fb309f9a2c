//! Webhooks out: one alert to one endpoint is a `Delivery`, and a delivery is made of attempts.
//!
//! This file holds the words every other file here uses (ids, an attempt's outcome, the record of
//! it) and the one decision that matters: what becomes of a delivery after an attempt. It is pure,
//! so that the schedule, `Retry-After` and disabling are tested with literals. `queue` decides
//! which attempt is next over all endpoints (`step` has its words, `lane` one endpoint's part),
//! `client` makes one attempt, `sign` signs it, `manner` says how it looks, `address` where it may
//! go, `breaker` rests a failing endpoint, `driver` is the task that joins them.

pub mod address;
pub mod breaker;
pub mod client;
pub mod driver;
mod lane;
pub mod manner;
pub mod queue;
pub mod sign;
mod step;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engine::time::Timestamp;

/// Delays before attempt 1, 2, 3, ...: seconds at first, for a receiver that restarts, then hours,
/// for one that is broken over a weekend. 75.6 hours in all.
pub const SCHEDULE: [Duration; 10] = [
    Duration::ZERO,
    Duration::from_secs(5),
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(2),
    Duration::from_hours(5),
    Duration::from_hours(10),
    Duration::from_hours(14),
    Duration::from_hours(20),
    Duration::from_hours(24),
];
/// The share of a delay that jitter may add or take away, so that many deliveries which failed
/// together do not come back together.
pub const JITTER_SHARE: f64 = 0.2;
/// The longest wait a receiver may ask for with `Retry-After`; more is cut to this.
pub const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);
/// The shortest wait after 429 or 503: the receiver said that it is overloaded.
pub const BUSY_WAIT_MIN: Duration = Duration::from_mins(1);
/// Bytes of an answer's body kept for the delivery log.
pub const ANSWER_KEPT_MAX: usize = 4 * 1024;
/// The longest message or endpoint id, in bytes.
pub const ID_BYTES_MAX: usize = 64;

/// Why a text is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdError {
    /// Nothing in it.
    Empty,
    /// Longer than `ID_BYTES_MAX`.
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Something other than ASCII letters, digits, `_` and `-`. A dot would make the signed text
    /// `{id}.{timestamp}.{body}` ambiguous.
    Character,
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdError::Empty => write!(f, "an id must not be empty"),
            IdError::TooLong { bytes } => {
                write!(f, "an id has at most {ID_BYTES_MAX} bytes, this one {bytes}")
            }
            IdError::Character => write!(f, "an id is made of A-Z a-z 0-9 _ and - only"),
        }
    }
}

impl std::error::Error for IdError {}

fn checked_id(text: &str) -> Result<Arc<str>, IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > ID_BYTES_MAX {
        return Err(IdError::TooLong { bytes: text.len() });
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !text.bytes().all(plain) {
        return Err(IdError::Character);
    }
    Ok(Arc::from(text))
}

/// The id of an alert: the same on every attempt, so that a receiver can drop repetitions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(Arc<str>);

impl MessageId {
    /// Reads an id; see `IdError` for what is refused.
    pub fn parse(text: &str) -> Result<MessageId, IdError> {
        checked_id(text).map(MessageId)
    }

    /// The text sent as `webhook-id`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of an endpoint in the settings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(Arc<str>);

impl EndpointId {
    /// Reads an id; see `IdError` for what is refused.
    pub fn parse(text: &str) -> Result<EndpointId, IdError> {
        checked_id(text).map(EndpointId)
    }

    /// The text of the settings.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whom a message is about, and so what it must stay in order with: a lead, or the account where
/// there is no lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeadRef(pub u128);

/// What a receiver answered to one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// What `Retry-After` asked for, not yet cut to `RETRY_AFTER_MAX`.
    pub retry_after: Option<Duration>,
    /// The first bytes of the body, at most `ANSWER_KEPT_MAX`.
    pub kept: Bytes,
    /// The receiver's clock minus ours in milliseconds, from `Date`, which counts whole seconds.
    pub skew_ms: Option<i64>,
}

impl Answer {
    /// Only 2xx is success: a redirect is not followed, and proves nothing.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Why an attempt got no usable answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SendError {
    /// The endpoint has no address (settings were removed while the attempt was being made).
    NoEndpoint,
    /// The name does not resolve.
    NotResolved,
    /// The name did not resolve in time.
    ResolveTimeout,
    /// At least one address behind the name is not one we may dial.
    AddressForbidden,
    /// No vetted address accepted the connection.
    ConnectFailed,
    /// No vetted address answered in time.
    ConnectTimeout,
    /// The certificate is not one we trust for this name.
    Certificate,
    /// The TLS handshake failed otherwise.
    Tls,
    /// The deadline passed before the answer had ended.
    Deadline,
    /// The connection ended before the answer had.
    ConnectionLost,
    /// The answer's head is over the limit of bytes or of headers.
    AnswerHeadTooLarge,
    /// What came back is not HTTP/1.
    AnswerMalformed,
}

impl SendError {
    /// Every error, for metrics and for reading names back.
    pub const ALL: [SendError; 12] = [
        SendError::NoEndpoint,
        SendError::NotResolved,
        SendError::ResolveTimeout,
        SendError::AddressForbidden,
        SendError::ConnectFailed,
        SendError::ConnectTimeout,
        SendError::Certificate,
        SendError::Tls,
        SendError::Deadline,
        SendError::ConnectionLost,
        SendError::AnswerHeadTooLarge,
        SendError::AnswerMalformed,
    ];

    /// The stable name used in records, metrics and the delivery log.
    pub fn name(self) -> &'static str {
        match self {
            SendError::NoEndpoint => "no_endpoint",
            SendError::NotResolved => "not_resolved",
            SendError::ResolveTimeout => "resolve_timeout",
            SendError::AddressForbidden => "address_forbidden",
            SendError::ConnectFailed => "connect_failed",
            SendError::ConnectTimeout => "connect_timeout",
            SendError::Certificate => "certificate",
            SendError::Tls => "tls",
            SendError::Deadline => "deadline",
            SendError::ConnectionLost => "connection_lost",
            SendError::AnswerHeadTooLarge => "answer_head_too_large",
            SendError::AnswerMalformed => "answer_malformed",
        }
    }

    /// The error of that name, for reading records.
    pub fn from_name(name: &str) -> Option<SendError> {
        SendError::ALL.into_iter().find(|error| error.name() == name)
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for SendError {}

/// One line of the delivery log: what happened to a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver answered.
    Answered {
        /// The HTTP status.
        status: u16,
        /// From resolving the name to the end of the answer, milliseconds.
        duration_ms: u32,
        /// The first bytes of the body, at most `ANSWER_KEPT_MAX`.
        kept: Bytes,
    },
    /// No usable answer.
    Failed {
        /// Why.
        error: SendError,
        /// From resolving the name to the failure, milliseconds.
        duration_ms: u32,
    },
    /// The endpoint is in shadow: this is what would have been sent.
    Shadowed,
    /// Somebody asked for the dead letter to be sent again.
    Resent,
    /// The endpoint was disabled or removed before the message could be sent.
    EndpointGone,
    /// A newer message says what is true now; this one was never sent.
    Superseded {
        /// The newer one.
        by: MessageId,
    },
    /// It was taken back before it was sent. The same of the message that takes it back: nobody
    /// here was told anything.
    Retracted {
        /// The message that takes it back.
        by: MessageId,
    },
}

impl Outcome {
    /// The outcome of an attempt that took `took`.
    pub fn of(answer: &Result<Answer, SendError>, took: Duration) -> Outcome {
        let duration_ms = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
        match answer {
            Ok(answer) => Outcome::Answered {
                status: answer.status,
                duration_ms,
                kept: answer.kept.slice(..answer.kept.len().min(ANSWER_KEPT_MAX)),
            },
            Err(error) => Outcome::Failed { error: *error, duration_ms },
        }
    }
}

/// What is journaled of a delivery. Replayed in order after the messages they belong to, these
/// records rebuild the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptRecord {
    /// Which endpoint.
    pub endpoint: EndpointId,
    /// Which message.
    pub message: MessageId,
    /// The number of the attempt since the message was queued or resent; 0 when none was made.
    pub attempt: u32,
    /// When its outcome was known.
    pub at: Timestamp,
    /// What happened.
    pub outcome: Outcome,
    /// What became of the delivery.
    pub state: Delivery,
}

/// Where the delivery of one message to one endpoint stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Queued, no attempt has ended yet.
    Pending,
    /// Failed so far; the next attempt is due at `until`.
    Waiting {
        /// Attempts that have ended.
        attempts: u32,
        /// When the next is due.
        until: Timestamp,
    },
    /// A receiver answered 2xx. Final.
    Delivered {
        /// Attempts that have ended.
        attempts: u32,
    },
    /// The schedule has no attempt left: a dead letter, which can be resent.
    Exhausted {
        /// Attempts that have ended.
        attempts: u32,
    },
    /// The endpoint is gone (410, failing for days, or removed): a dead letter too.
    Disabled {
        /// Attempts that have ended.
        attempts: u32,
    },
    /// Not needed any more before it was ever sent. Final.
    Dropped,
}

impl Delivery {
    /// Attempts that have ended.
    pub fn attempts(self) -> u32 {
        match self {
            Delivery::Pending | Delivery::Dropped => 0,
            Delivery::Waiting { attempts, .. }
            | Delivery::Delivered { attempts }
            | Delivery::Exhausted { attempts }
            | Delivery::Disabled { attempts } => attempts,
        }
    }

    /// Whether nothing more happens by itself.
    pub fn is_final(self) -> bool {
        match self {
            Delivery::Pending | Delivery::Waiting { .. } => false,
            Delivery::Delivered { .. }
            | Delivery::Exhausted { .. }
            | Delivery::Disabled { .. }
            | Delivery::Dropped => true,
        }
    }

    /// The same delivery, given up because its endpoint is gone.
    #[must_use]
    pub fn disabled(self) -> Delivery {
        Delivery::Disabled { attempts: self.attempts() }
    }

    /// What becomes of this delivery after an attempt that ended at `now` with `answer`.
    /// `schedule` holds the delay before each attempt; `jitter` is drawn from -1 to 1 by the
    /// caller. A final delivery stays as it is: a late answer cannot revive it.
    #[must_use]
    pub fn after(
        self,
        answer: &Result<Answer, SendError>,
        schedule: &[Duration],
        now: Timestamp,
        jitter: f64,
    ) -> Delivery {
        if self.is_final() {
            return self;
        }
        let attempts = self.attempts().saturating_add(1);
        let status = answer.as_ref().ok().map(|answer| answer.status);
        if answer.as_ref().is_ok_and(Answer::is_success) {
            return Delivery::Delivered { attempts };
        }
        if status == Some(410) {
            return Delivery::Disabled { attempts };
        }
        let Some(delay) = schedule.get(attempts as usize) else {
            return Delivery::Exhausted { attempts };
        };
        let asked = answer.as_ref().ok().and_then(|answer| answer.retry_after);
        let busy = if matches!(status, Some(429 | 503)) { BUSY_WAIT_MIN } else { Duration::ZERO };
        // The floor is applied after the jitter: a receiver that asked for a pause gets all of it.
        let wait =
            jittered(*delay, jitter).max(asked.unwrap_or_default().min(RETRY_AFTER_MAX)).max(busy);
        Delivery::Waiting { attempts, until: now.plus(wait) }
    }
}

/// `delay` shifted by up to `JITTER_SHARE` of itself; a jitter that is no number shifts nothing.
fn jittered(delay: Duration, jitter: f64) -> Duration {
    let jitter = if jitter.is_finite() { jitter.clamp(-1.0, 1.0) } else { 0.0 };
    delay.mul_f64(1.0 + JITTER_SHARE * jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn answer(status: u16) -> Answer {
        Answer { status, retry_after: None, kept: Bytes::new(), skew_ms: None }
    }

    fn asking(status: u16, wait: Duration) -> Answer {
        Answer { status, retry_after: Some(wait), kept: Bytes::new(), skew_ms: None }
    }

    fn waiting(attempts: u32, wait: Duration) -> Delivery {
        Delivery::Waiting { attempts, until: NOW.plus(wait) }
    }

    #[test]
    fn every_2xx_and_nothing_else_delivers() {
        for status in 200..1000 {
            let after = Delivery::Pending.after(&Ok(answer(status)), &SCHEDULE, NOW, 0.0);
            let delivered = after == Delivery::Delivered { attempts: 1 };
            assert_eq!(delivered, (200..300).contains(&status), "status {status}: {after:?}");
        }
    }

    #[test]
    fn failures_walk_through_the_whole_schedule_and_then_stop() {
        let mut delivery = Delivery::Pending;
        for (attempt, delay) in (1..).zip(&SCHEDULE[1..]) {
            delivery = delivery.after(&Ok(answer(500)), &SCHEDULE, NOW, 0.0);
            assert_eq!(delivery, waiting(attempt, *delay));
        }
        delivery = delivery.after(&Err(SendError::Deadline), &SCHEDULE, NOW, 0.0);
        assert_eq!(delivery, Delivery::Exhausted { attempts: 10 });
    }

    #[test]
    fn the_schedule_spans_more_than_three_days() {
        let total: Duration = SCHEDULE.iter().sum();
        assert_eq!(total, Duration::from_secs(272_105));
    }

    #[test]
    fn a_final_delivery_is_not_changed_by_a_late_answer() {
        for done in [
            Delivery::Delivered { attempts: 2 },
            Delivery::Exhausted { attempts: 10 },
            Delivery::Disabled { attempts: 1 },
        ] {
            assert_eq!(done.after(&Ok(answer(500)), &SCHEDULE, NOW, 0.0), done);
            assert_eq!(done.after(&Ok(answer(200)), &SCHEDULE, NOW, 0.0), done);
        }
    }

    #[test]
    fn gone_disables_and_a_redirect_is_only_a_failure() {
        let gone = Delivery::Pending.after(&Ok(answer(410)), &SCHEDULE, NOW, 0.0);
        assert_eq!(gone, Delivery::Disabled { attempts: 1 });
        let moved = Delivery::Pending.after(&Ok(answer(302)), &SCHEDULE, NOW, 0.0);
        assert_eq!(moved, waiting(1, Duration::from_secs(5)));
    }

    #[test]
    fn an_overloaded_receiver_gets_at_least_a_minute_whatever_the_jitter() {
        for status in [429, 503] {
            for jitter in [-1.0, 0.0, 1.0] {
                let after = Delivery::Pending.after(&Ok(answer(status)), &SCHEDULE, NOW, jitter);
                assert_eq!(after, waiting(1, Duration::from_mins(1)));
            }
        }
        let bad_gateway = Delivery::Pending.after(&Ok(answer(502)), &SCHEDULE, NOW, 0.0);
        assert_eq!(bad_gateway, waiting(1, Duration::from_secs(5)));
    }

    #[test]
    fn retry_after_lengthens_a_wait_up_to_a_day_and_never_shortens_one() {
        let hour = Duration::from_hours(1);
        let after = Delivery::Pending.after(&Ok(asking(503, hour)), &SCHEDULE, NOW, -1.0);
        assert_eq!(after, waiting(1, hour));
        let after = Delivery::Pending.after(&Ok(asking(500, Duration::MAX)), &SCHEDULE, NOW, 1.0);
        assert_eq!(after, waiting(1, RETRY_AFTER_MAX));
        let late = waiting(5, Duration::ZERO);
        let after = late.after(&Ok(asking(503, hour)), &SCHEDULE, NOW, 0.0);
        assert_eq!(after, waiting(6, Duration::from_hours(10)));
    }

    #[test]
    fn jitter_moves_a_delay_by_a_fifth_at_most_and_nonsense_by_nothing() {
        let minute = Duration::from_mins(1);
        assert_eq!(jittered(minute, -1.0), Duration::from_secs(48));
        assert_eq!(jittered(minute, 1.0), Duration::from_secs(72));
        assert_eq!(jittered(minute, 1e9), Duration::from_secs(72));
        for nonsense in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(jittered(minute, nonsense), minute);
        }
    }

    #[test]
    fn an_empty_schedule_gives_one_attempt() {
        let after = Delivery::Pending.after(&Ok(answer(500)), &[], NOW, 0.0);
        assert_eq!(after, Delivery::Exhausted { attempts: 1 });
    }

    #[test]
    fn an_outcome_keeps_no_more_of_a_body_than_its_limit() {
        let long = Answer {
            status: 200,
            retry_after: None,
            kept: Bytes::from(vec![b'x'; ANSWER_KEPT_MAX + 1]),
            skew_ms: None,
        };
        let Outcome::Answered { kept, duration_ms, .. } = Outcome::of(&Ok(long), Duration::MAX)
        else {
            panic!("an answer is an answer");
        };
        assert_eq!(kept.len(), ANSWER_KEPT_MAX);
        assert_eq!(duration_ms, u32::MAX);
    }

    #[test]
    fn every_error_name_reads_back_as_its_error() {
        for error in SendError::ALL {
            assert_eq!(SendError::from_name(error.name()), Some(error));
        }
        assert_eq!(SendError::from_name("Deadline"), None);
    }

    #[test]
    fn ids_that_would_confuse_a_signature_or_a_header_are_refused() {
        assert!(MessageId::parse("msg_5Yk2Qv8dT3mR9sLx0aWbNc").is_ok());
        assert_eq!(MessageId::parse(""), Err(IdError::Empty));
        let long = "x".repeat(ID_BYTES_MAX + 1);
        assert_eq!(EndpointId::parse(&long), Err(IdError::TooLong { bytes: 65 }));
        for bad in ["a.b", "a b", "a\r\nx: y", "日本", "a/b"] {
            assert_eq!(MessageId::parse(bad), Err(IdError::Character), "{bad:?}");
        }
    }
}
