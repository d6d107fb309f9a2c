//! What sales answers: from its system with a key or a signature, from a person with one tap on a
//! link of a message. Each answer is journaled before it is answered, counts once, and changes
//! nothing if a later one was heard before it.

mod page;
mod request;
pub mod tap;

use std::sync::Arc;

use arc_swap::ArcSwap;
use engine::attribute::Attributes;
use engine::engine::StepError;
use engine::id::LeadId;
use engine::sales::{Feedback, Unheard};
use engine::stage::FeedbackKind;
use engine::time::Timestamp;
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, HeaderValue};
use hyper::{HeaderMap, Response, StatusCode};
use serde_json::json;

use crate::app::App;
use crate::config::{Endpoint, EndpointMode};
use crate::outbox::Log;
use crate::response;
use crate::seal::attributes_to_bytes;
use crate::server::Body;
use crate::steps::{self, Failed};
use crate::webhook::sign::SignedHeaders;

use self::request::Request;

/// Bytes of an answer's body.
pub const BODY_BYTES_MAX: usize = 64 * 1_024;

/// Where sales answers.
#[derive(Clone)]
pub struct Desk {
    /// Everything.
    pub app: Arc<App>,
    /// Which alert is about whom.
    pub log: Arc<Log>,
    /// Whose signatures are believed.
    pub endpoints: Arc<ArcSwap<Vec<Endpoint>>>,
}

/// Why an answer is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Neither a server key nor a signature of an endpoint that is live.
    NotAllowed,
    /// The body is no JSON object.
    MalformedJson,
    /// A field holds something else than it should.
    MalformedField(&'static str),
    /// A field that nobody reads.
    NoSuchField,
    /// A field that must be there is not.
    MissingField(&'static str),
    /// A text is longer than it may be.
    TooLong(&'static str),
    /// There is no such message, or no such lead.
    Unknown,
    /// Nothing can be kept just now.
    Unavailable,
}

impl Refused {
    /// All, for counters.
    pub const NAMES: [&'static str; 8] = [
        "not_allowed",
        "malformed_json",
        "malformed_field",
        "no_such_field",
        "missing_field",
        "too_long",
        "unknown",
        "unavailable",
    ];

    /// The name in answers and counters.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotAllowed => "not_allowed",
            Self::MalformedJson => "malformed_json",
            Self::MalformedField(_) => "malformed_field",
            Self::NoSuchField => "no_such_field",
            Self::MissingField(_) => "missing_field",
            Self::TooLong(_) => "too_long",
            Self::Unknown => "unknown",
            Self::Unavailable => "unavailable",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::NotAllowed => StatusCode::UNAUTHORIZED,
            Self::MalformedJson
            | Self::MalformedField(_)
            | Self::NoSuchField
            | Self::MissingField(_)
            | Self::TooLong(_) => StatusCode::BAD_REQUEST,
            Self::Unknown => StatusCode::NOT_FOUND,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn about(self) -> Option<&'static str> {
        match self {
            Self::MalformedField(field) | Self::MissingField(field) | Self::TooLong(field) => {
                Some(field)
            }
            _ => None,
        }
    }

    fn answer(self) -> Response<Body> {
        let says = json!({ "schema": 1, "error": self.name(), "about": self.about() });
        let mut response = as_json(&says);
        *response.status_mut() = self.status();
        if self == Self::Unavailable {
            response.headers_mut().insert("retry-after", HeaderValue::from_static("5"));
        }
        response
    }
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    /// A server of ours: about anybody.
    Server,
    /// The receiver of an endpoint: of test keys' people, or of the others.
    Endpoint { test: bool },
}

/// An answer, read.
struct Said {
    id: u64,
    kind: FeedbackKind,
    about: LeadId,
    at: Timestamp,
    until: Option<Timestamp>,
    details: Attributes,
}

impl Desk {
    /// Of the running parts.
    pub fn new(app: &Arc<App>, log: &Arc<Log>, endpoints: &Arc<ArcSwap<Vec<Endpoint>>>) -> Desk {
        Desk { app: Arc::clone(app), log: Arc::clone(log), endpoints: Arc::clone(endpoints) }
    }

    /// Answers `POST /s/feedback`. Waits for locks and the disk: not for a thread that serves.
    pub fn take(&self, headers: &HeaderMap, body: &[u8]) -> Response<Body> {
        let heard = self.sender(headers, body).and_then(|sender| self.read(sender, body));
        match heard.and_then(|said| Ok((said.kind, self.hear(said)?))) {
            Ok((kind, unheard)) => {
                self.count(kind, unheard);
                let why = unheard.map(Unheard::name);
                as_json(&json!({ "schema": 1, "applied": unheard.is_none(), "why": why }))
            }
            Err(refused) => {
                self.app.metrics.refuse_feedback(refused.name());
                refused.answer()
            }
        }
    }

    fn count(&self, kind: FeedbackKind, unheard: Option<Unheard>) {
        let outcome = unheard.map_or("applied", Unheard::name);
        self.app.metrics.count_feedback(kind, outcome);
        let outcome = unheard.map_or_else(String::new, |why| format!(" ({})", why.name()));
        self.app.tell(|| format!("sales answers: {}{outcome}", kind.name()));
    }

    /// Who sends it: whoever has a key of a site, or signs as an endpoint does.
    fn sender(&self, headers: &HeaderMap, body: &[u8]) -> Result<Sender, Refused> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(bearer) = text(AUTHORIZATION.as_str()) {
            let key = bearer.strip_prefix("Bearer ").unwrap_or_default().as_bytes();
            let mut keys = self.app.sites.all().iter().flat_map(|it| &it.site.server_keys);
            return keys
                .any(|known| known.matches(key))
                .then_some(Sender::Server)
                .ok_or(Refused::NotAllowed);
        }
        let signed = SignedHeaders {
            id: text("webhook-id").unwrap_or_default(),
            timestamp: text("webhook-timestamp").unwrap_or_default(),
            signature: text("webhook-signature").unwrap_or_default(),
        };
        let now = self.app.clock.now();
        let endpoints = self.endpoints.load();
        // A secret that is only tried out may be known to many.
        let live = endpoints.iter().filter(|endpoint| endpoint.mode == EndpointMode::Live);
        let signed_by = |endpoint: &&Endpoint| {
            let secrets = endpoint.manner.secrets.as_ref();
            secrets.is_some_and(|secrets| secrets.verify(signed, body, now).is_ok())
        };
        let mut signers = live.filter(signed_by);
        let signer = signers.next().ok_or(Refused::NotAllowed)?;
        Ok(Sender::Endpoint { test: signer.test })
    }

    fn read(&self, sender: Sender, body: &[u8]) -> Result<Said, Refused> {
        let request = Request::read(body)?;
        let about = match (request.alert()?, request.lead()?) {
            (Some(alert), None) => self.lead_of(alert).ok_or(Refused::Unknown)?,
            (None, Some(lead)) => lead,
            (Some(_), Some(_)) => return Err(Refused::MalformedField("lead")),
            (None, None) => return Err(Refused::MissingField("alert_id")),
        };
        let lead = self.app.engine.lead(self.app.engine.head(about)).ok_or(Refused::Unknown)?;
        if let Sender::Endpoint { test } = sender
            && lead.test != test
        {
            return Err(Refused::Unknown);
        }
        let now = self.app.clock.now();
        let at = request.at()?.unwrap_or(now).min(now);
        if self.app.engine.erasure(about).is_some_and(|(_, erased)| at <= erased) {
            return Err(Refused::Unknown);
        }
        Ok(Said {
            id: self.app.install.visitor.hash64(&[b"feedback", request.id()?.as_bytes()]),
            kind: request.kind()?,
            about,
            // A clock that is ahead must not make every later answer an older one.
            at,
            until: request.until()?,
            details: request.details()?,
        })
    }

    /// Whom an alert is about.
    fn lead_of(&self, alert: &str) -> Option<LeadId> {
        let (cause, lead) = {
            let book = self.log.book();
            (book.cause(alert)?, book.lead(alert)?)
        };
        // It is not about who came after they were erased.
        let erased = self.app.engine.erasure(lead);
        erased.is_none_or(|(position, _)| cause > position).then_some(lead)
    }

    /// Takes an answer, and waits until it is on the disk, or the one that it repeats is.
    fn hear(&self, said: Said) -> Result<Option<Unheard>, Refused> {
        let app = &self.app;
        if !app.is_ready() || app.journal.is_disk_full() {
            return Err(Refused::Unavailable);
        }
        let sealed = app.sealer.seal(said.about, &attributes_to_bytes(&said.details));
        let feedback = Feedback {
            id: said.id,
            at: said.at,
            kind: said.kind,
            origin: said.about,
            until: said.until,
            details: Arc::new(said.details),
            sealed: Arc::new(sealed.map_err(|_| Refused::Unavailable)?),
            ..Feedback::default()
        };
        let answered =
            steps::take(app, |engine, means| engine.answer(said.about, feedback.clone(), means));
        let answered = answered.map_err(|failed| match failed {
            Failed::Step(StepError::NoLead) => Refused::Unknown,
            _ => Refused::Unavailable,
        })?;
        app.journal.wait_blocking(answered.position).map_err(|_| Refused::Unavailable)?;
        Ok(answered.unheard)
    }
}

fn as_json(value: &serde_json::Value) -> Response<Body> {
    let mut response = response::file("application/json", format!("{value}\n"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_counter() {
        let all = [
            Refused::NotAllowed,
            Refused::MalformedJson,
            Refused::MalformedField("at"),
            Refused::NoSuchField,
            Refused::MissingField("id"),
            Refused::TooLong("by"),
            Refused::Unknown,
            Refused::Unavailable,
        ];
        assert_eq!(all.map(Refused::name), Refused::NAMES);
    }
}
