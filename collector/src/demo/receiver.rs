//! The other end of a webhook, as a sales system would build it: check the signature over the
//! exact body, know a repeated message by its id, then believe what it says.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use engine::time::Timestamp;
use hyper::body::Incoming;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::Event;
use crate::server::{self, Body, BodyTimeouts, ServerSettings, plain, read_body};
use crate::webhook::sign::{Secrets, SignedHeaders, VerifyError};

/// Longest message taken, in bytes.
const BODY_BYTES_MAX: usize = 256 * 1024;
/// Ids remembered, so that a message sent again counts once. Enough for a day of demo.
const IDS_MAX: usize = 10_000;

/// A message that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    /// When.
    pub at: Timestamp,
    /// What it says, if it may be believed.
    pub message: Result<Message, Unbelievable>,
}

/// What a verified message says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    /// `lead.hot`, `lead.cooled`.
    pub kind: String,
    /// The lead's id, as the text it is.
    pub lead: String,
    /// How often the lead has been in at this line.
    pub number: u64,
    /// The first line, in Japanese.
    pub headline: String,
    /// Milliseconds from its cause (the click, or the moment the line was crossed) to here.
    pub after_ms: u64,
}

/// Why a message is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unbelievable {
    /// The signature does not hold.
    Signature(VerifyError),
    /// It is signed, and yet makes no sense.
    Content,
}

struct Receiver<N> {
    secrets: Secrets,
    now: N,
    events: mpsc::Sender<Event>,
    ids: Mutex<BTreeSet<String>>,
}

/// Takes messages until the runtime ends.
pub(super) async fn serve<N>(
    listener: TcpListener,
    secrets: Secrets,
    now: N,
    events: mpsc::Sender<Event>,
) where
    N: Fn() -> Timestamp + Send + Sync + 'static,
{
    let receiver = Arc::new(Receiver { secrets, now, events, ids: Mutex::default() });
    let handler = move |request: Request<Incoming>, _| Arc::clone(&receiver).answer(request);
    let settings = ServerSettings::default();
    server::run(listener, std::future::pending(), handler, settings, Arc::default()).await;
}

impl<N: Fn() -> Timestamp> Receiver<N> {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        if request.method() != Method::POST || request.uri().path() != "/hook" {
            return plain(StatusCode::NOT_FOUND, "messages are posted to /hook\n");
        }
        let at = (self.now)();
        let (parts, body) = request.into_parts();
        let counters = Arc::default();
        let body = match read_body(body, BODY_BYTES_MAX, BodyTimeouts::default(), &counters).await {
            Ok(body) => body,
            Err(error) => return error.answer(),
        };
        // A message nobody would hear of is not taken; it comes again.
        let Ok(permit) = self.events.try_reserve() else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "");
        };
        let message = read(&parts.headers, &body, &self.secrets, at);
        let status = match &message {
            Ok(_) => StatusCode::NO_CONTENT,
            Err(Unbelievable::Signature(_)) => StatusCode::UNAUTHORIZED,
            Err(Unbelievable::Content) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        let repeated = message.is_ok() && self.knows(text(&parts.headers, "webhook-id"));
        if !repeated {
            permit.send(Event::Delivery(Box::new(Delivery { at, message })));
        }
        plain(status, "")
    }

    /// Whether a message with this id came before.
    fn knows(&self, id: &str) -> bool {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.len() >= IDS_MAX {
            ids.clear();
        }
        !ids.insert(id.to_owned())
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Verifies a message, and only then reads it.
fn read(
    headers: &HeaderMap,
    body: &Bytes,
    secrets: &Secrets,
    at: Timestamp,
) -> Result<Message, Unbelievable> {
    let signed = SignedHeaders {
        id: text(headers, "webhook-id"),
        timestamp: text(headers, "webhook-timestamp"),
        signature: text(headers, "webhook-signature"),
    };
    secrets.verify(signed, body, at).map_err(Unbelievable::Signature)?;
    let value: Value = serde_json::from_slice(body).map_err(|_| Unbelievable::Content)?;
    message(&value, at).ok_or(Unbelievable::Content)
}

fn message(value: &Value, at: Timestamp) -> Option<Message> {
    let data = value.get("data")?;
    let kind = value.get("type")?.as_str()?;
    // A hot lead is hot since a click; one that cools, since the moment it fell below the line.
    let since = match kind {
        "lead.hot" => data.get("times")?.get("received")?,
        _ => value.get("timestamp")?,
    };
    let since: jiff::Timestamp = since.as_str()?.parse().ok()?;
    let since = Timestamp(since.as_millisecond().max(0) as u64);
    Some(Message {
        kind: kind.to_owned(),
        lead: data.get("lead")?.get("id")?.as_str()?.to_owned(),
        number: data.get("crossing")?.get("number")?.as_u64()?,
        headline: data.get("headline")?.get("ja")?.as_str()?.to_owned(),
        after_ms: at.since(since).as_millis() as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_790_000_000_250);
    const SECRET: &str = "whsec_bWlrb21pIGRlbW8gc2VjcmV0OiByZXBsYWNlIG1lIQ==";

    fn body() -> Bytes {
        let value = serde_json::json!({
            "type": "lead.hot", "timestamp": "2026-09-21T14:13:20.100Z",
            "data": { "lead": { "id": "L0011" }, "crossing": { "number": 2 },
                "headline": { "ja": "ホット", "en": "HOT" },
                "times": { "received": "2026-09-21T14:13:20.000Z" } },
        });
        Bytes::from(value.to_string())
    }

    fn headers(signed: &Bytes) -> HeaderMap {
        let secrets = Secrets::parse([SECRET]).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", "msg_1".parse().unwrap());
        headers.insert("webhook-timestamp", "1790000000".parse().unwrap());
        let signature = secrets.sign("msg_1", 1_790_000_000, signed);
        headers.insert("webhook-signature", signature.parse().unwrap());
        headers
    }

    fn read(headers: &HeaderMap, body: &Bytes) -> Result<Message, Unbelievable> {
        super::read(headers, body, &Secrets::parse([SECRET]).unwrap(), NOW)
    }

    #[test]
    fn a_signed_message_says_how_long_after_the_click_it_came() {
        let message = read(&headers(&body()), &body()).unwrap();
        assert_eq!((message.kind.as_str(), message.number), ("lead.hot", 2));
        assert_eq!(message.after_ms, 250);
    }

    #[test]
    fn a_body_changed_by_one_byte_is_not_believed() {
        let mut other = body().to_vec();
        let at = other.iter().position(|byte| *byte == b'2').unwrap();
        other[at] = b'3';
        let refused = Err(Unbelievable::Signature(VerifyError::NoMatch));
        assert_eq!(read(&headers(&body()), &other.into()), refused);
    }

    #[test]
    fn a_signed_text_that_is_no_message_is_refused_by_name() {
        let body = Bytes::from_static(b"{\"type\":\"lead.hot\"}");
        assert_eq!(read(&headers(&body), &body), Err(Unbelievable::Content));
    }
}
