//! The two listeners: where they listen, with what limits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::watch;

use super::{Options, StartError};
use crate::admin::Admin;
use crate::app::App;
use crate::config::{self, Settings};
use crate::net::{Network, TrustedProxies};
use crate::route::Collector;
use crate::server::{self, Connections, HeadLimits, ServerSettings, Timeouts, Tls};

/// What looks at the whole journal, such as a what-if, takes as long as that; its asker waits.
const ADMIN_REQUEST: Duration = Duration::from_hours(1);

/// What listens.
pub(super) struct Listening {
    pub(super) collector: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) servers: Vec<tokio::task::JoinHandle<usize>>,
}

/// Binds both and serves them until told to stop.
pub(super) async fn listen(
    app: &Arc<App>,
    admin: &Admin,
    options: &Options,
    stopped: &watch::Receiver<bool>,
) -> Result<Listening, StartError> {
    let settings = &app.settings;
    let collector = bind(settings.collector.listen, options.any_port).await?;
    let admin_listener = bind(settings.admin.listen, options.any_port).await?;
    let addresses = (local(&collector)?, local(&admin_listener)?);
    let collecting = Arc::new(Collector {
        app: Arc::clone(app),
        counters: Arc::clone(&admin.collector_counters),
        desk: admin.desk.clone(),
    });
    let handler = move |request, peer| Arc::clone(&collecting).handle(request, peer);
    let collector_settings = server_settings(
        settings,
        settings.collector.tls.as_ref(),
        &settings.collector.trusted_proxies,
    )?;
    let mut admin_settings =
        server_settings(settings, settings.admin.tls.as_ref(), &settings.admin.trusted_proxies)?;
    admin_settings.timeouts.request = ADMIN_REQUEST;
    let shutdown = |mut stopped: watch::Receiver<bool>| async move {
        // The sender goes only with the process, which is a stop too.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    let mut servers = Vec::new();
    let collector = collector.into_std().map_err(StartError::System)?;
    for _ in 0..workers(settings) {
        let listener = collector.try_clone().map_err(StartError::System)?;
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(StartError::System)?;
        let (handler, settings) = (handler.clone(), collector_settings.clone());
        let (stop, counters) = (shutdown(stopped.clone()), Arc::clone(&admin.collector_counters));
        let serving = async move {
            match TcpListener::from_std(listener) {
                Ok(listener) => server::run(listener, stop, handler, settings, counters).await,
                Err(error) => {
                    tracing::error!(%error, "one of the threads that take hits cannot listen");
                    0
                }
            }
        };
        servers.push(tokio::task::spawn_blocking(move || runtime.block_on(serving)));
    }
    let counters = Arc::clone(&admin.admin_counters);
    let answering = admin.clone();
    let handler = move |request, peer| answering.clone().handle(request, peer);
    servers.push(tokio::spawn(server::run(
        admin_listener,
        shutdown(stopped.clone()),
        handler,
        admin_settings,
        counters,
    )));
    Ok(Listening { collector: addresses.0, admin: addresses.1, servers })
}

/// Threads that take hits: each has a runtime of its own, so that no connection is ever handed
/// from one to another, and all of them accept from the one queue of the kernel.
fn workers(settings: &Settings) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    settings.collector.workers.unwrap_or_else(cores)
}

fn local(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(StartError::System)
}

/// Binds, or takes any free port of the same address if that is allowed.
async fn bind(address: SocketAddr, any_port: bool) -> Result<TcpListener, StartError> {
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(_) if any_port => {
            let free = SocketAddr::new(address.ip(), 0);
            TcpListener::bind(free).await.map_err(|error| StartError::Listen(free, error))
        }
        Err(error) => Err(StartError::Listen(address, error)),
    }
}

fn server_settings(
    settings: &Settings,
    tls: Option<&config::TlsFiles>,
    proxies: &[Network],
) -> Result<ServerSettings, StartError> {
    let (limits, times) = (&settings.limits, &settings.collector);
    let tls = tls.map(|files| Tls::load(&files.certificate, &files.key)).transpose();
    let per_address = match (times.connections_per_address_max, proxies.is_empty()) {
        (Some(most), true) => most,
        // Behind a proxy every connection is the proxy's.
        _ => times.connections_max,
    };
    Ok(ServerSettings {
        connections: Connections::new(times.connections_max, per_address),
        head: HeadLimits {
            line_bytes_max: limits.line_bytes_max,
            long_line_bytes_max: limits.vendor_line_bytes_max,
            long_line_prefixes: Vec::new(),
            header_bytes_max: limits.headers_bytes_max,
            headers_max: limits.headers_max,
        },
        timeouts: Timeouts {
            first_byte: times.silent,
            header: times.header,
            request: times.request,
            idle: times.idle,
            write: times.write,
            linger: times.linger,
        },
        stop_within: times.stop,
        trusted_proxies: TrustedProxies { networks: proxies.to_vec(), ..TrustedProxies::default() },
        tls: tls.map_err(StartError::Tls)?.map(Arc::new),
    })
}
