//! Bodies: the answers we give, and the reading of what a client sends, within its limits.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Either, Full};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::time::{Instant, timeout_at};

use super::counters::ServerCounters;

/// The body of an answer: whole, on the hot path, or a stream.
pub type Body = Either<Full<Bytes>, UnsyncBoxBody<Bytes, Infallible>>;

/// A body that is there already.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Either::Left(Full::new(bytes.into()))
}

/// A body that comes bit by bit, such as a live stream. It has no deadline as long as the client
/// takes what is sent; it should end by itself when the server stops.
pub fn stream(
    body: impl hyper::body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
) -> Body {
    Either::Right(UnsyncBoxBody::new(body))
}

/// A short answer in plain text.
pub fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut answer = Response::new(full(Bytes::from_static(text.as_bytes())));
    *answer.status_mut() = status;
    let text_plain = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, text_plain);
    answer
}

/// How long a body may take.
#[derive(Clone, Copy, Debug)]
pub struct BodyTimeouts {
    /// The longest pause between two pieces.
    pub pause: Duration,
    /// From the call to the last piece.
    pub total: Duration,
}

impl Default for BodyTimeouts {
    fn default() -> BodyTimeouts {
        BodyTimeouts { pause: Duration::from_secs(5), total: Duration::from_secs(10) }
    }
}

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// More bytes than allowed. If it was read to its end all the same (it was at most twice as
    /// large), the connection can go on.
    TooLarge {
        /// Whether the body was read to its end.
        read_to_end: bool,
    },
    /// A pause, or the whole, took too long.
    TimedOut,
    /// Malformed, or the client went away.
    Broken,
}

impl fmt::Display for BodyError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.text())
    }
}

impl std::error::Error for BodyError {}

impl BodyError {
    /// 413, 408 or 400.
    pub fn status(self) -> StatusCode {
        match self {
            BodyError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::TimedOut => StatusCode::REQUEST_TIMEOUT,
            BodyError::Broken => StatusCode::BAD_REQUEST,
        }
    }

    fn text(self) -> &'static str {
        match self {
            BodyError::TooLarge { .. } => "body too large",
            BodyError::TimedOut => "the body took too long",
            BodyError::Broken => "malformed body",
        }
    }

    /// The answer for it, which closes the connection unless the body was read to its end.
    pub fn answer(self) -> Response<Body> {
        let mut answer = plain(self.status(), self.text());
        if self != (BodyError::TooLarge { read_to_end: true }) {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }
}

/// Reads a body of at most `limit` bytes.
///
/// Up to another `limit` bytes are read and thrown away, so that an ordinary client which sent a
/// little too much gets its 413 on a connection it can go on using. A declared length beyond that
/// is refused before a byte is read (and before a `100 Continue`).
pub async fn read_body<B>(
    mut body: B,
    limit: usize,
    timeouts: BodyTimeouts,
    counters: &ServerCounters,
) -> Result<Bytes, BodyError>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
{
    let declared = body.size_hint().lower();
    let read_max = limit.saturating_mul(2);
    if declared > read_max as u64 {
        counters.too_large_body.up();
        return Err(BodyError::TooLarge { read_to_end: false });
    }
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let end = Instant::now() + timeouts.total;
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    let mut read = 0;
    loop {
        let next = end.min(Instant::now() + timeouts.pause);
        let Ok(frame) = timeout_at(next, body.frame()).await else {
            counters.timed_out_body.up();
            return Err(BodyError::TimedOut);
        };
        let Some(frame) = frame else { break };
        let data = match frame.map(hyper::body::Frame::into_data) {
            Ok(Ok(data)) => data,
            // Trailers: nothing asks for them.
            Ok(Err(_)) => continue,
            Err(_) => return Err(BodyError::Broken),
        };
        read += data.len();
        if read > limit {
            if read > read_max {
                counters.too_large_body.up();
                return Err(BodyError::TooLarge { read_to_end: false });
            }
            joined = BytesMut::new();
        } else if first.is_empty() && joined.is_empty() {
            // Most bodies come in one piece, which then is not copied.
            first = data;
        } else {
            if joined.is_empty() {
                joined.reserve(usize::try_from(declared).unwrap_or(0).min(limit).max(read));
                joined.extend_from_slice(&std::mem::take(&mut first));
            }
            joined.extend_from_slice(&data);
        }
    }
    if read > limit {
        counters.too_large_body.up();
        return Err(BodyError::TooLarge { read_to_end: true });
    }
    Ok(if joined.is_empty() { first } else { joined.freeze() })
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use hyper::body::Frame;

    use super::*;

    /// A body given piece by piece; after the last one it ends, or never does.
    struct Pieces {
        pieces: VecDeque<&'static str>,
        endless: bool,
    }

    impl hyper::body::Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.pieces.pop_front() {
                Some(piece) => Poll::Ready(Some(Ok(Frame::data(Bytes::from(piece))))),
                None if self.endless => Poll::Pending,
                None => Poll::Ready(None),
            }
        }
    }

    async fn read(pieces: &[&'static str], endless: bool) -> (Result<Bytes, BodyError>, u64) {
        let counters = ServerCounters::default();
        let body = Pieces { pieces: pieces.iter().copied().collect(), endless };
        let pause = Duration::from_millis(10);
        let timeouts = BodyTimeouts { pause, total: pause * 100 };
        let read = read_body(body, 8, timeouts, &counters).await;
        (read, counters.too_large_body.get() + counters.timed_out_body.get())
    }

    #[tokio::test]
    async fn a_body_up_to_its_limit_is_joined_from_its_pieces() {
        assert_eq!(read(&[], false).await, (Ok(Bytes::new()), 0));
        assert_eq!(read(&["12345678"], false).await, (Ok(Bytes::from("12345678")), 0));
        assert_eq!(read(&["123", "45", "678"], false).await, (Ok(Bytes::from("12345678")), 0));
    }

    #[tokio::test]
    async fn a_body_over_its_limit_is_refused_and_read_to_its_end_if_that_is_near() {
        let (near, counted) = read(&["12345678", "9"], false).await;
        assert_eq!((near, counted), (Err(BodyError::TooLarge { read_to_end: true }), 1));
        let (far, counted) = read(&["12345678", "12345678", "1"], true).await;
        assert_eq!((far, counted), (Err(BodyError::TooLarge { read_to_end: false }), 1));
    }

    #[tokio::test]
    async fn a_body_that_stops_coming_times_out() {
        assert_eq!(read(&["123"], true).await, (Err(BodyError::TimedOut), 1));
    }
}
