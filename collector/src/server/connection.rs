//! One connection: the handshake, hyper over the gate, one timer for all its deadlines, and an end
//! that lets the client see its last answer.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use super::body::{Body, plain};
use super::counters::ServerCounters;
use super::gate::{Gate, Progress, Stage};
use super::head::{HeadLimits, Refusal};
use super::{Peer, ServerSettings};
use crate::net;

/// Bytes still read after a refusal, so that the client gets to see it.
const LINGER_BYTES_MAX: usize = 256 * 1024;
/// hyper's own number of headers, for which it needs no memory from the heap.
const HYPER_HEADERS: usize = 100;
/// hyper's buffers: room for the longest head and for a good piece of a body.
const BUFFER_BYTES_MIN: usize = 64 * 1024;

/// Told to every connection when the server stops.
#[derive(Debug, Default)]
pub(super) struct Stop {
    stopping: AtomicBool,
    wake: Notify,
}

impl Stop {
    pub(super) fn begin(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake.notify_waiters();
    }

    fn begun(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// What all connections of one server share.
pub(super) struct Shared<H> {
    pub(super) handler: H,
    pub(super) settings: ServerSettings,
    pub(super) limits: Arc<HeadLimits>,
    pub(super) counters: Arc<ServerCounters>,
    pub(super) stop: Stop,
    builder: http1::Builder,
}

impl<H> Shared<H> {
    pub(super) fn new(
        handler: H,
        settings: ServerSettings,
        counters: Arc<ServerCounters>,
    ) -> Shared<H> {
        let limits = Arc::new(settings.head.clone());
        let mut builder = http1::Builder::new();
        // Every deadline is ours: hyper's own would not see a silent connection. A client that has
        // said all it has to say (a page being closed) still gets its hit recorded.
        builder.header_read_timeout(None).half_close(true);
        builder.max_buf_size(limits.head_bytes_max().max(BUFFER_BYTES_MIN));
        if limits.headers_max != HYPER_HEADERS {
            builder.max_headers(limits.headers_max);
        }
        Shared { handler, settings, limits, counters, stop: Stop::default(), builder }
    }
}

/// Serves one accepted socket to its end.
pub(super) async fn serve<H, F>(socket: TcpStream, address: IpAddr, shared: Arc<Shared<H>>)
where
    H: Fn(Request<Incoming>, Peer) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let peer = Peer { address, secure: shared.settings.tls.is_some() };
    if shared.settings.tls.is_none() {
        return talk(socket, peer, &shared).await;
    }
    // In memory of its own, or each connection without TLS would have room for it too.
    Box::pin(serve_secured(socket, peer, &shared)).await;
}

async fn serve_secured<H, F>(socket: TcpStream, peer: Peer, shared: &Arc<Shared<H>>)
where
    H: Fn(Request<Incoming>, Peer) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let Some(tls) = &shared.settings.tls else {
        return;
    };
    let handshake = tls.acceptor().accept(socket);
    match timeout(shared.settings.timeouts.first_byte, handshake).await {
        Ok(Ok(socket)) => talk(socket, peer, shared).await,
        Ok(Err(_)) => shared.counters.handshake_failed.up(),
        Err(_) => shared.counters.timed_out_handshake.up(),
    }
}

/// How hyper's part of a connection came to its end.
enum End {
    /// hyper closed it: after the last answer, or because the gate let nothing more through.
    Closed,
    /// hyper found what the gate had let through malformed, and has answered so.
    Malformed,
    /// A deadline passed in this stage.
    TimedOut(Stage),
}

async fn talk<S, H, F>(socket: S, peer: Peer, shared: &Arc<Shared<H>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Request<Incoming>, Peer) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let counters = &shared.counters;
    let progress = Arc::new(Progress::new(shared.settings.timeouts));
    let gate =
        Gate::new(socket, Arc::clone(&shared.limits), Arc::clone(&progress), Arc::clone(counters));
    let service =
        service_fn(|request| answer(request, peer, Arc::clone(shared), Arc::clone(&progress)));
    let mut hyper = shared.builder.serve_connection(TokioIo::new(gate), service);
    let end = drive(&mut hyper, &progress, &shared.stop).await;
    let gate = hyper.into_parts().io.into_inner();
    let timeouts = shared.settings.timeouts;
    let (refusal, must_linger) = match end {
        End::Closed => (gate.refusal(), gate.has_unread()),
        End::Malformed => {
            counters.malformed.up();
            (None, true)
        }
        End::TimedOut(Stage::Head) => {
            counters.timed_out_header.up();
            (Some(Refusal::HeaderTimedOut), true)
        }
        End::TimedOut(Stage::Silent) => return counters.timed_out_silent.up(),
        End::TimedOut(Stage::Idle) => return counters.timed_out_idle.up(),
        End::TimedOut(Stage::Writing | Stage::Handling) => return counters.timed_out_write.up(),
    };
    let mut socket = gate.into_socket();
    let ending = async {
        if let Some(refusal) = refusal {
            socket.write_all(refusal_answer(refusal).as_bytes()).await?;
        }
        socket.shutdown().await
    };
    // Whoever does not even take its refusal is not waited for.
    let told = timeout(timeouts.write, ending).await;
    if must_linger && matches!(told, Ok(Ok(()))) {
        let _ = timeout(timeouts.linger, Box::pin(linger(&mut socket))).await;
    }
}

/// Polls hyper until it is done or a deadline has passed. There is one timer for all stages. Nearly
/// every deadline moves on before it comes: so the timer is moved when it would go off too late, or
/// has gone off, and one that goes off early costs a look.
async fn drive<I, S>(hyper: &mut http1::Connection<I, S>, progress: &Progress, stop: &Stop) -> End
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: HttpService<Incoming, ResBody = Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut timer = pin!(sleep_until(progress.deadline().unwrap_or_else(Instant::now)));
    let mut stop_begins = pin!(stop.wake.notified());
    let mut listens_for_stop = false;
    let mut told_to_stop = false;
    poll_fn(|cx| {
        if !listens_for_stop {
            // Once is enough: the task and its waker stay the same, and the flag tells the rest.
            listens_for_stop = true;
            let _ = stop_begins.as_mut().poll(cx);
        }
        if !told_to_stop && stop.begun() {
            told_to_stop = true;
            Pin::new(&mut *hyper).graceful_shutdown();
        }
        loop {
            if let Poll::Ready(done) = Pin::new(&mut *hyper).poll(cx) {
                let malformed = done.is_err_and(|error| error.is_parse());
                return Poll::Ready(if malformed { End::Malformed } else { End::Closed });
            }
            let Some(deadline) = progress.deadline() else {
                return Poll::Pending;
            };
            if timer.deadline() > deadline || (timer.is_elapsed() && timer.deadline() < deadline) {
                timer.as_mut().reset(deadline);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if timer.deadline() < deadline {
                continue;
            }
            match progress.stage() {
                // The request's own future gives the answer, when hyper is polled again.
                Stage::Handling => progress.expire_request(),
                stage => return Poll::Ready(End::TimedOut(stage)),
            }
        }
    })
    .await
}

/// The handler's answer; ours if it panics or takes too long. The request is the handler's before
/// there is a future to wait in: hyper moves that into its place, and each connection has one.
fn answer<H, F>(
    request: Request<Incoming>,
    socket: Peer,
    shared: Arc<Shared<H>>,
    progress: Arc<Progress>,
) -> impl Future<Output = Result<Response<Body>, Infallible>>
where
    H: Fn(Request<Incoming>, Peer) -> F,
    F: Future<Output = Response<Body>>,
{
    let trusted = &shared.settings.trusted_proxies;
    let forwarded = net::client_address(socket.address, request.headers(), trusted);
    let peer =
        Peer { address: forwarded.address, secure: forwarded.secure.unwrap_or(socket.secure) };
    // What a panic leaves half-changed is dropped with the future, unseen by anybody.
    let handling = catch_unwind(AssertUnwindSafe(|| (shared.handler)(request, peer)));
    async move {
        let Ok(handling) = handling else {
            progress.answered();
            return Ok(panicked(&shared));
        };
        let mut handling = pin!(handling);
        let answer = poll_fn(|cx| {
            if progress.request_expired() {
                shared.counters.timed_out_request.up();
                let mut late = closing(StatusCode::SERVICE_UNAVAILABLE, "timed out");
                late.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                return Poll::Ready(late);
            }
            catch_unwind(AssertUnwindSafe(|| handling.as_mut().poll(cx)))
                .unwrap_or_else(|_| Poll::Ready(panicked(&shared)))
        })
        .await;
        progress.answered();
        Ok(answer)
    }
}

fn panicked<H>(shared: &Shared<H>) -> Response<Body> {
    shared.counters.panicked.up();
    closing(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
}

fn closing(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut answer = plain(status, text);
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn refusal_answer(refusal: Refusal) -> String {
    let (status, reason) = (refusal.status(), refusal.reason());
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: text/plain\r\n\
         content-length: {}\r\n\r\n{reason}\n",
        reason.len() + 1
    )
}

/// Reads on, up to a limit, until the client has closed: closing with bytes unread would reset the
/// connection, and the answer could be lost on its way.
async fn linger<S: AsyncRead + Unpin>(socket: &mut S) {
    let mut thrown_away = [0; 4096];
    let mut read = 0;
    while read < LINGER_BYTES_MAX {
        match socket.read(&mut thrown_away).await {
            Ok(0) | Err(_) => return,
            Ok(bytes) => read += bytes,
        }
    }
}
