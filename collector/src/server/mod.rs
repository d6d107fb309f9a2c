//! The HTTP/1.1 server of both listeners: accept, limits, time-outs, TLS, graceful stop.
//!
//! hyper is driven directly, one task a connection, on whatever runtime `run` is called on: one
//! single-threaded runtime a core, each with a listener of its own, or one with many threads. A
//! handler's future must be `Send`; it stays on its connection's task all the same.
//!
//! Reading order: `run` here, then `connection` (one connection from handshake to end), `gate`
//! (deadlines, and what hyper gets to see), `head` (what a request must look like), `body`.

mod body;
mod connection;
mod counters;
mod gate;
mod head;
mod tls;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

pub use self::body::{Body, BodyError, BodyTimeouts, full, plain, read_body, stream};
pub use self::counters::{Counter, ServerCounters};
pub use self::gate::Timeouts;
pub use self::head::HeadLimits;
pub use self::tls::{Tls, TlsError};
use crate::net::{TrustedProxies, rate_prefix};

/// The pause after a failed `accept`; doubled while it goes on failing, up to the longest.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Who sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The client's address, as a trusted proxy names it, else the socket's.
    pub address: IpAddr,
    /// Whether the client spoke TLS, to us or to a trusted proxy.
    pub secure: bool,
}

/// How many connections may be open; shared by the runtimes that serve one listener.
#[derive(Debug)]
pub struct Connections {
    free: Arc<Semaphore>,
    per_address_max: usize,
    // Address, or /64 -> connections it has open. Never more entries than connections.
    open: Mutex<BTreeMap<IpAddr, usize>>,
}

impl Connections {
    /// At most `connections_max` in all, and `per_address_max` from one IPv4 address or IPv6 /64.
    pub fn new(connections_max: usize, per_address_max: usize) -> Arc<Connections> {
        assert!(connections_max > 0 && per_address_max > 0, "checked when the settings are read");
        Arc::new(Connections {
            free: Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS))),
            per_address_max,
            open: Mutex::new(BTreeMap::new()),
        })
    }

    async fn permit(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.free).acquire_owned().await.expect("the semaphore is never closed")
    }

    /// `None` when the address has its share already. `counted` is false for trusted proxies.
    fn enter(self: &Arc<Self>, address: IpAddr, counted: bool) -> Option<Share> {
        let prefix = rate_prefix(address);
        if counted {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let mine = open.entry(prefix).or_insert(0);
            if *mine >= self.per_address_max {
                return None;
            }
            *mine += 1;
        }
        Some(Share { connections: Arc::clone(self), prefix, counted })
    }
}

/// One connection of an address; given back when dropped.
struct Share {
    connections: Arc<Connections>,
    prefix: IpAddr,
    counted: bool,
}

impl Drop for Share {
    fn drop(&mut self) {
        if !self.counted {
            return;
        }
        let mut open = self.connections.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mine) = open.get_mut(&self.prefix) {
            *mine -= 1;
            if *mine == 0 {
                open.remove(&self.prefix);
            }
        }
    }
}

/// Everything `run` needs to know. Cloned for every runtime; `connections` and `tls` stay shared.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// How many connections.
    pub connections: Arc<Connections>,
    /// How large a head.
    pub head: HeadLimits,
    /// How long each stage.
    pub timeouts: Timeouts,
    /// How long requests in hand may go on after the stop.
    pub stop_within: Duration,
    /// Whose word about the client is taken.
    pub trusted_proxies: TrustedProxies,
    /// The certificate to show; `None` speaks plain HTTP.
    pub tls: Option<Arc<Tls>>,
}

impl Default for ServerSettings {
    fn default() -> ServerSettings {
        ServerSettings {
            connections: Connections::new(10_000, 64),
            head: HeadLimits::default(),
            timeouts: Timeouts::default(),
            stop_within: Duration::from_secs(10),
            trusted_proxies: TrustedProxies::default(),
            tls: None,
        }
    }
}

/// Serves `listener` until `shutdown` resolves, then lets the requests in hand finish, for
/// `settings.stop_within` at most. Answers how many connections had to be cut off then.
///
/// A connection is accepted only when there is room for it; until then it waits in the kernel.
/// A stream should be ended by its handler at the stop, or it is cut off.
pub async fn run<H, F>(
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
    handler: H,
    settings: ServerSettings,
    counters: Arc<ServerCounters>,
) -> usize
where
    H: Fn(Request<Incoming>, Peer) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let shared = Arc::new(connection::Shared::new(handler, settings, counters));
    let mut tasks = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    let mut pause = ACCEPT_PAUSE;
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
            accepted = accept(&listener, &shared.settings.connections) => accepted,
        };
        match accepted {
            Ok((permit, socket, address)) => {
                pause = ACCEPT_PAUSE;
                if let Some(open) = admit(address, permit, &shared) {
                    // A small answer leaves at once; without it Nagle's wait is added to every one.
                    let _ = socket.set_nodelay(true);
                    let shared = Arc::clone(&shared);
                    tasks.spawn(async move {
                        connection::serve(socket, address, shared).await;
                        drop(open);
                    });
                }
            }
            Err(error) => {
                shared.counters.accept_errors.up();
                if is_one_peers_fault(&error) {
                    continue;
                }
                tokio::select! {
                    () = &mut shutdown => break,
                    () = sleep(pause) => pause = (pause * 2).min(ACCEPT_PAUSE_MAX),
                }
            }
        }
    }
    drop(listener);
    shared.stop.begin();
    let all_done = async { while tasks.join_next().await.is_some() {} };
    if timeout(shared.settings.stop_within, all_done).await.is_ok() {
        return 0;
    }
    let dropped = tasks.len();
    tasks.shutdown().await;
    for _ in 0..dropped {
        shared.counters.dropped_at_stop.up();
    }
    dropped
}

/// Waits for room first, then for a connection.
async fn accept(
    listener: &TcpListener,
    connections: &Connections,
) -> io::Result<(OwnedSemaphorePermit, TcpStream, IpAddr)> {
    let permit = connections.permit().await;
    let (socket, address) = listener.accept().await?;
    Ok((permit, socket, address.ip().to_canonical()))
}

/// Errors that concern only the connection being accepted, not the listener.
fn is_one_peers_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// What an open connection holds; dropped with its task, however that ends.
struct Open {
    _permit: OwnedSemaphorePermit,
    _share: Share,
    counters: Arc<ServerCounters>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.counters.active.down();
    }
}

fn admit<H>(
    address: IpAddr,
    permit: OwnedSemaphorePermit,
    shared: &connection::Shared<H>,
) -> Option<Open> {
    let (settings, counters) = (&shared.settings, &shared.counters);
    counters.accepted.up();
    let counted = !settings.trusted_proxies.contains(address);
    let Some(share) = settings.connections.enter(address, counted) else {
        counters.refused_per_address.up();
        return None;
    };
    counters.active.up();
    Some(Open { _permit: permit, _share: share, counters: Arc::clone(counters) })
}
