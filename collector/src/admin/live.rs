//! Answers that are sent piece by piece: lines as they come, and the whole journal's hits.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use engine::id::Position;
use engine::record::{Body as RecordBody, Record};
use hyper::Response;
use hyper::body::{Body as HttpBody, Frame};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use tokio::sync::{broadcast, mpsc, watch};

use super::{Admin, view};
use crate::app::App;
use crate::journal::ReadError;
use crate::server::{Body, stream};

/// So often something is sent while nothing happens, so that no proxy gives up.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// A piece of an export is sent when it is so long.
pub(super) const CHUNK_BYTES: usize = 64 * 1_024;

impl Admin {
    /// A line for each hit as server-sent events, until the listener leaves or the server stops.
    pub(super) fn stream(&self) -> Response<Body> {
        let (sender, receiver) = mpsc::channel(256);
        tokio::spawn(pump(self.app.live.subscribe(), self.stop.clone(), sender));
        let mut response = Response::new(stream(Chunks(receiver)));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        response
    }

    /// Every hit of the journal, one JSON object a line, up to what is durable now.
    pub(super) fn export_hits(&self) -> Response<Body> {
        let (sender, receiver) = mpsc::channel(16);
        let app = Arc::clone(&self.app);
        std::thread::spawn(move || export(&app, &sender));
        let mut response = Response::new(stream(Chunks(receiver)));
        let ndjson = HeaderValue::from_static("application/x-ndjson");
        response.headers_mut().insert(CONTENT_TYPE, ndjson);
        response
    }
}

async fn pump(
    mut live: broadcast::Receiver<Arc<str>>,
    mut stop: watch::Receiver<bool>,
    sender: mpsc::Sender<Bytes>,
) {
    loop {
        let event = tokio::select! {
            told = live.recv() => match told {
                Ok(told) => format!("data: {told}\n\n"),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    format!("event: missed\ndata: {missed} lines\n\n")
                }
                Err(broadcast::error::RecvError::Closed) => return,
            },
            () = tokio::time::sleep(HEARTBEAT) => ":\n\n".to_owned(),
            _ = stop.wait_for(|stopped| *stopped) => return,
        };
        if sender.send(event.into()).await.is_err() {
            return;
        }
    }
}

fn export(app: &App, sender: &mpsc::Sender<Bytes>) {
    let durable = app.journal.durable();
    let mut follower = app.journal.follow(Position(1));
    let catalog = app.engine.catalog();
    let mut chunk = Vec::new();
    while follower.position() <= durable {
        let at = follower.position();
        let entry = match follower.try_next() {
            Ok(Some(entry)) => entry,
            // What is older is not kept.
            Err(ReadError::Removed { first }) if first > at => {
                follower = app.journal.follow(first);
                continue;
            }
            Ok(None) | Err(_) => break,
        };
        let Ok(Record { body: RecordBody::Hit(record), .. }) = Record::decode(entry.bytes) else {
            continue;
        };
        let line = view::hit(&record.hit, entry.position, &catalog);
        chunk.extend_from_slice(line.to_string().as_bytes());
        chunk.push(b'\n');
        let full = chunk.len() >= CHUNK_BYTES;
        if full && sender.blocking_send(std::mem::take(&mut chunk).into()).is_err() {
            return;
        }
    }
    // A listener who left needs no end.
    let _ = sender.blocking_send(chunk.into());
}

/// What another task or thread makes, as a body.
pub(super) struct Chunks(pub(super) mpsc::Receiver<Bytes>);

impl HttpBody for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|chunk| chunk.map(|bytes| Ok(Frame::data(bytes))))
    }
}
