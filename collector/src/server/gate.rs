//! The gate stands between the socket and hyper: bytes pass only when `head.rs` has approved them,
//! one request at a time, and every stage of a connection gets its deadline here.
//!
//! In the ordinary case, one read that holds one whole request, nothing is copied: the bytes are
//! judged where hyper wanted them. Only a head in pieces, or what a client sent ahead, is kept in
//! `held`. hyper reads only while it wants the next head or a body (half-close is on), so an end of
//! stream handed to it here never interrupts a request that is being answered.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::counters::ServerCounters;
use super::head::{Framing, HeadLimits, HeadScan, Refusal};

/// Bytes read at a time while a head comes in pieces.
const PIECE_BYTES: usize = 2048;

/// What a connection is doing, which decides what its deadline means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Accepted; no byte has come.
    Silent,
    /// A head has begun.
    Head,
    /// The handler has the request.
    Handling,
    /// The answer is on its way.
    Writing,
    /// Kept alive, between requests.
    Idle,
}

/// How long a connection may stay in its stages.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From accept to the end of the TLS handshake, and from there to the first byte.
    pub first_byte: Duration,
    /// From the first byte of a head to its last.
    pub header: Duration,
    /// From the last byte of a head to the handler's answer, the body included.
    pub request: Duration,
    /// Between two requests of one connection.
    pub idle: Duration,
    /// While the client takes nothing of its answer.
    pub write: Duration,
    /// After a refusal: how long we still read, so that the client gets to see why.
    pub linger: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            first_byte: Duration::from_secs(5),
            header: Duration::from_secs(5),
            request: Duration::from_secs(15),
            idle: Duration::from_secs(30),
            write: Duration::from_secs(10),
            linger: Duration::from_millis(500),
        }
    }
}

/// The stage of one connection, shared by the gate, the request in hand and the connection's task.
#[derive(Debug)]
pub(super) struct Progress {
    timeouts: Timeouts,
    now: Mutex<Now>,
}

#[derive(Clone, Copy, Debug)]
struct Now {
    stage: Stage,
    deadline: Option<Instant>,
    request_expired: bool,
}

impl Progress {
    pub(super) fn new(timeouts: Timeouts) -> Progress {
        let deadline = Some(Instant::now() + timeouts.first_byte);
        let now = Now { stage: Stage::Silent, deadline, request_expired: false };
        Progress { timeouts, now: Mutex::new(now) }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Now) -> T) -> T {
        change(&mut self.now.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn stage(&self) -> Stage {
        self.with(|now| now.stage)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.with(|now| now.deadline)
    }

    /// The handler has answered: from now on only a client that takes nothing is a problem.
    pub(super) fn answered(&self) {
        self.with(|now| (now.stage, now.deadline) = (Stage::Writing, None));
    }

    /// The request took too long; whoever waits for its handler stops waiting.
    pub(super) fn expire_request(&self) {
        self.with(|now| (now.request_expired, now.deadline) = (true, None));
    }

    pub(super) fn request_expired(&self) -> bool {
        self.with(|now| now.request_expired)
    }

    fn head_begins(&self) {
        self.with(|now| {
            if now.stage != Stage::Head {
                let deadline = Some(Instant::now() + self.timeouts.header);
                (now.stage, now.deadline) = (Stage::Head, deadline);
            }
        });
    }

    fn head_complete(&self) {
        self.with(|now| {
            let deadline = Some(Instant::now() + self.timeouts.request);
            *now = Now { stage: Stage::Handling, deadline, request_expired: false };
        });
    }

    fn waits_for_a_request(&self) {
        self.with(|now| {
            if matches!(now.stage, Stage::Handling | Stage::Writing) {
                let deadline = Some(Instant::now() + self.timeouts.idle);
                (now.stage, now.deadline) = (Stage::Idle, deadline);
            }
        });
    }

    fn wrote(&self, something: bool) {
        self.with(|now| {
            if now.stage != Stage::Writing {
                return;
            }
            if something {
                now.deadline = None;
            } else if now.deadline.is_none() {
                now.deadline = Some(Instant::now() + self.timeouts.write);
            }
        });
    }
}

/// A socket that hands hyper only approved bytes.
pub(super) struct Gate<S> {
    socket: S,
    limits: Arc<HeadLimits>,
    progress: Arc<Progress>,
    counters: Arc<ServerCounters>,
    scan: HeadScan,
    /// The body being read; `None` between requests and within a head.
    framing: Option<Framing>,
    /// Bytes received and not passed on.
    held: Vec<u8>,
    /// How many of the held ones are approved.
    approved: usize,
    /// Whether the held bytes have been judged, and more are needed.
    judged: bool,
    refusal: Option<Refusal>,
    broken_body: bool,
    ended: bool,
}

impl<S> Gate<S> {
    pub(super) fn new(
        socket: S,
        limits: Arc<HeadLimits>,
        progress: Arc<Progress>,
        counters: Arc<ServerCounters>,
    ) -> Gate<S> {
        Gate {
            socket,
            limits,
            progress,
            counters,
            scan: HeadScan::default(),
            framing: None,
            held: Vec::new(),
            approved: 0,
            judged: false,
            refusal: None,
            broken_body: false,
            ended: false,
        }
    }

    /// Why the next request was refused, for the connection's task to answer.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// Whether bytes may be left that nobody will read: then closing at once would reset the
    /// connection, and the client might lose its answer.
    pub(super) fn has_unread(&self) -> bool {
        !self.ended
            && (self.refusal.is_some()
                || self.broken_body
                || self.framing.is_some()
                || !self.held.is_empty())
    }

    pub(super) fn into_socket(self) -> S {
        self.socket
    }

    /// Judges `bytes`, the next ones in the stream (a head's bytes are given again, from its
    /// beginning, until it is complete), and answers how many of them may pass.
    fn judge(&mut self, bytes: &[u8]) -> usize {
        let head = if self.framing.is_some() {
            0
        } else {
            match self.scan.scan(bytes, &self.limits) {
                Ok(Some((head, framing))) => {
                    self.scan = HeadScan::default();
                    self.framing = Some(framing);
                    self.counters.requests.up();
                    self.progress.head_complete();
                    head
                }
                Ok(None) => {
                    // A line end sent behind a body is not yet a request.
                    if !self.scan.is_untouched() {
                        self.progress.head_begins();
                    }
                    return 0;
                }
                Err(refusal) => {
                    self.refuse(refusal);
                    return 0;
                }
            }
        };
        let Some(framing) = &mut self.framing else {
            return head;
        };
        let Ok(body) = framing.take(&bytes[head..]) else {
            self.broken_body = true;
            self.counters.malformed.up();
            // The head still passes: its handler will be told that the body broke.
            return head;
        };
        if framing.is_done() {
            self.framing = None;
        }
        head + body
    }

    fn refuse(&mut self, refusal: Refusal) {
        refusal.counter(&self.counters).up();
        self.refusal = Some(refusal);
    }

    /// The client sent its last byte.
    fn end(&mut self) {
        self.ended = true;
        if self.framing.is_none() && !self.held.is_empty() && !self.scan.is_untouched() {
            self.refuse(Refusal::Malformed("the request ends within its head"));
        }
    }

    fn hand_over(&mut self, buf: &mut ReadBuf<'_>) {
        let passed = self.approved.min(buf.remaining());
        buf.put_slice(&self.held[..passed]);
        self.held.drain(..passed);
        self.approved -= passed;
        if self.held.is_empty() {
            // An idle connection holds no memory here.
            self.held = Vec::new();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        loop {
            if gate.approved > 0 {
                gate.hand_over(buf);
                return Poll::Ready(Ok(()));
            }
            if gate.broken_body {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            if gate.refusal.is_some() || gate.ended {
                return Poll::Ready(Ok(()));
            }
            if gate.held.is_empty() {
                let before = buf.filled().len();
                let polled = Pin::new(&mut gate.socket).poll_read(cx, buf);
                if polled.is_pending() && gate.framing.is_none() {
                    gate.progress.waits_for_a_request();
                }
                ready!(polled)?;
                let came = &buf.filled()[before..];
                if came.is_empty() {
                    gate.end();
                    continue;
                }
                let passed = gate.judge(came);
                gate.held.extend_from_slice(&came[passed..]);
                // Bytes of a message that follows have not been looked at yet.
                gate.judged = passed == 0;
                if passed > 0 {
                    buf.set_filled(before + passed);
                    return Poll::Ready(Ok(()));
                }
                buf.set_filled(before);
            } else if gate.judged {
                let mut piece = [0; PIECE_BYTES];
                let mut piece = ReadBuf::new(&mut piece);
                let polled = Pin::new(&mut gate.socket).poll_read(cx, &mut piece);
                if polled.is_pending() && gate.scan.is_untouched() {
                    gate.progress.waits_for_a_request();
                }
                ready!(polled)?;
                if piece.filled().is_empty() {
                    gate.end();
                    continue;
                }
                gate.held.extend_from_slice(piece.filled());
                gate.judged = false;
            } else {
                let held = std::mem::take(&mut gate.held);
                gate.approved = gate.judge(&held);
                gate.held = held;
                gate.judged = gate.approved == 0;
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let gate = self.get_mut();
        let polled = Pin::new(&mut gate.socket).poll_write(cx, bytes);
        gate.progress.wrote(polled.is_ready());
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let gate = self.get_mut();
        let polled = Pin::new(&mut gate.socket).poll_write_vectored(cx, bytes);
        gate.progress.wrote(polled.is_ready());
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        let polled = Pin::new(&mut gate.socket).poll_flush(cx);
        // TLS takes bytes at once, and may then wait for the socket here.
        gate.progress.wrote(polled.is_ready());
        polled
    }

    /// Only flushes: after hyper is done, the connection's task may have something left to say.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}
