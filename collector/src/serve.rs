//! The whole of it, started and stopped in order: settings, keys, journal, replay, time that
//! passed meanwhile, and only then the listeners.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use engine::alert::AlertId;
use engine::catalog::Catalog;
use engine::engine::Engine;
use engine::id::{Position, SiteId};
use engine::record::{Body, Name, NameKind, Published, PublishedCategory, Record};
use engine::scoring::Scoring;
use engine::time::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, watch};

use crate::admin::Admin;
use crate::app::{App, InForce, Rates, Sites};
use crate::clock::Clock;
use crate::config::{
    self, Durability, Endpoint, EndpointMode, Files, Loaded, Problem, ScoringFile, Settings,
    Surroundings,
};
use crate::ids::Ids;
use crate::install::{Install, InstallError};
use crate::journal::committer::Now;
use crate::journal::{Damage, EXIT_POISONED, Found, Hooks, Journal, OpenError, Options as JournalOptions};
use crate::limits::{Quota, Rate, RateLimits};
use crate::metrics::Metrics;
use crate::net::{Network, TrustedProxies};
use crate::outbox::entry::{Attempt, Entry};
use crate::outbox::{Log, Outbox, Replayed};
use crate::privacy::{ROBOTS, Robots};
use crate::reader::{self, Lists};
use crate::route::Collector;
use crate::seal::Sealer;
use crate::server::{self, Connections, HeadLimits, ServerSettings, Timeouts, Tls, TlsError};
use crate::store::KeyedDisk;
use crate::timeline::unseal_hits;
use crate::tokens::Tokens;
use crate::webhook::client::{Client, ClientError, Resolver, Timeouts as ClientTimeouts};
use crate::webhook::driver::{self, Command, JournalStopped, Notice, World};
use crate::webhook::queue::{EndpointSettings, Input, Limits as QueueLimits, Mode, Queue};
use crate::webhook::{AttemptRecord, Delivery, EndpointId};

/// How often overdue leads are looked for. A crossing is acted on within a second of it.
const TIMER_EVERY: Duration = Duration::from_millis(50);
/// How often the files are looked at.
const RELOAD_EVERY: Duration = Duration::from_secs(1);
/// Visitors long gone are swept this often.
const SWEEP_EVERY: Duration = Duration::from_hours(1);
/// Records that one round of the timers reserves room for.
const DUE_RESERVED: usize = 1_024;
/// Bytes reserved for each.
const DUE_BYTES: usize = 2 * 1_024;
/// Commands that may wait for the delivery task.
const COMMANDS_MAX: usize = 1_024;

/// How the server is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The folder of the settings, if stated.
    pub config: Option<PathBuf>,
    /// The data folder, instead of the settings' one.
    pub data: Option<PathBuf>,
    /// Take other ports if these are taken.
    pub any_port: bool,
    /// A clock that stands still here until it is set.
    pub test_clock: Option<Timestamp>,
    /// Start although acknowledged records are damaged.
    pub accept_loss: bool,
    /// Settings given instead of files.
    pub files: Option<Files>,
}

/// Why it did not start.
#[derive(Debug)]
pub enum StartError {
    /// The settings are wrong.
    Settings(Vec<Problem>),
    /// The keys cannot be had.
    Install(InstallError),
    /// The log of personal keys cannot be had.
    Keys(std::io::Error),
    /// The journal cannot be had.
    Journal(OpenError),
    /// A record cannot be applied.
    Record(Position, String),
    /// The certificate cannot be used.
    Tls(TlsError),
    /// Delivery cannot be set up.
    Client(ClientError),
    /// An address cannot be listened on.
    Listen(SocketAddr, std::io::Error),
    /// The operating system gives no thread or runtime.
    System(std::io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings(problems) => {
                let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
            Self::Install(error) => error.fmt(f),
            Self::Keys(error) => write!(f, "the log of personal keys: {error}"),
            Self::Journal(error) => error.fmt(f),
            Self::Record(position, why) => {
                write!(f, "the record at position {} cannot be applied: {why}", position.0)
            }
            Self::Tls(error) => error.fmt(f),
            Self::Client(error) => error.fmt(f),
            Self::Listen(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::System(error) => write!(f, "the operating system refuses: {error}"),
        }
    }
}

/// A server that runs.
pub struct Running {
    /// What its handlers share.
    pub app: Arc<App>,
    /// Where the collector listens.
    pub collector: SocketAddr,
    /// Where the admin side listens.
    pub admin: SocketAddr,
    /// A token that works once.
    pub once: String,
    /// Where the data is.
    pub data: PathBuf,
    /// What recovery found.
    pub found: Found,
    stop: watch::Sender<bool>,
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    runtime: tokio::runtime::Runtime,
    servers: Vec<tokio::task::JoinHandle<usize>>,
    driver: tokio::task::JoinHandle<driver::Stopped>,
}

/// What recovery rebuilds.
struct Recovered {
    engine: Engine,
    journal: Journal,
    found: Found,
    lists: Lists,
    replayed: Replayed,
    queue: Queue,
    log: Log,
}

/// Reads the settings, from a folder or as compiled in.
pub fn load(options: &Options) -> Result<(Loaded, Files, Surroundings), Vec<Problem>> {
    let files = match &options.files {
        Some(files) => files.clone(),
        None => {
            let dir = Files::find(options.config.as_deref(), Path::new("."));
            Files::read(dir)?
        }
    };
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let surroundings = Surroundings { dir: files.dir.clone(), env: env.collect() };
    let loaded = config::load(&files, &surroundings)?;
    Ok((loaded, files, surroundings))
}

/// Starts everything.
pub fn start(options: &Options) -> Result<Running, StartError> {
    let (loaded, files, surroundings) = load(options).map_err(StartError::Settings)?;
    let Loaded { settings, scoring: scoring_file, endpoints } = loaded;
    let ids = Ids::default();
    let data = options.data.clone().unwrap_or_else(|| settings.journal.dir.clone());
    let install = Install::open(&data, &ids).map_err(StartError::Install)?;
    let sealer = Arc::new(Sealer::open(&data).map_err(StartError::Keys)?);
    let clock = options.test_clock.map_or_else(Clock::system, Clock::test);
    let recovered =
        recover(&settings, options, &data, (&install, &sealer, &clock), &endpoints)?;
    let now = clock.now();
    let in_force = publish(&recovered, &scoring_file, now)?;
    let sites = name_sites(&recovered, &settings, &install, now);
    let Recovered { engine, journal, found, lists, replayed, queue, log } = recovered;
    let follow_from = journal.durable().next();
    let rates = rates(&settings, &ids, &sites);
    let (live, _) = broadcast::channel(1_024);
    let app = Arc::new(App {
        settings,
        sites,
        scoring: ArcSwap::from_pointee(in_force),
        engine,
        journal,
        sealer,
        install,
        clock,
        ids,
        robots: Robots::new(ROBOTS),
        rates,
        metrics: Metrics::default(),
        ready: AtomicBool::new(false),
        live,
    });
    app.engine.rebuild_timers(&app.scoring.load().scoring);
    // Whoever became due while nobody was here is settled before anybody is let in.
    advance(&app);
    let parts = Parts {
        lists: Arc::new(lists),
        log: Arc::new(log),
        endpoints: Arc::new(ArcSwap::from_pointee(endpoints)),
        watcher: config::Watcher::new(surroundings, contents(&files.contents), &scoring_file),
        files,
    };
    launch(app, parts, (replayed, queue), follow_from, options, (data, found))
}

/// What the running parts share besides the `App`.
struct Parts {
    lists: Arc<Lists>,
    log: Arc<Log>,
    endpoints: Arc<ArcSwap<Vec<Endpoint>>>,
    watcher: config::Watcher,
    files: Files,
}

fn contents(contents: &[Option<Vec<u8>>; 3]) -> config::Contents<'_> {
    let [mikomi, scoring, endpoints] = contents.each_ref().map(Option::as_deref);
    config::Contents { mikomi, scoring, endpoints }
}

fn recover(
    settings: &Settings,
    options: &Options,
    data: &Path,
    (install, sealer, clock): (&Install, &Arc<Sealer>, &Clock),
    endpoints: &[Endpoint],
) -> Result<Recovered, StartError> {
    let disk = KeyedDisk::open(data.join("journal"), Arc::clone(sealer));
    let disk = disk.map_err(StartError::Keys)?;
    let mut journal_options = JournalOptions::new(install.id.0);
    journal_options.segment_bytes = settings.journal.segment_bytes;
    journal_options.pending_bytes_max = settings.limits.pending_bytes_max;
    journal_options.lossy = settings.journal.durability == Durability::Lossy;
    journal_options.accept_loss = options.accept_loss;
    let engine = Engine::new(settings.shards);
    let lists = Lists::default();
    let log = Log::default();
    let mut replayed = Replayed::default();
    let mut queue = Queue::new(queue_limits(settings));
    for endpoint in endpoints {
        if let Some(known) = endpoint_settings(endpoint, settings, false) {
            queue.step(Input::EndpointChanged(known), clock.now());
        }
    }
    let mut failed = None;
    let mut catalog = Catalog::default();
    let unseal = |lead, sealed: &[u8]| sealer.unseal(lead, sealed);
    let alert_id = |cause: &engine::alert::Cause<'_>| AlertId::derive(&install.alert, cause);
    let began_ms = clock.boot_ms();
    let hooks = Hooks {
        now: Box::new(hook_clock()),
        poisoned: Box::new(|why| {
            tracing::error!(?why, "the disk failed; exiting, replay will decide what is true");
            std::process::exit(EXIT_POISONED);
        }),
    };
    let (journal, found) = Journal::open(Arc::new(disk), &journal_options, hooks, |entry| {
        let mut record = match Record::decode(entry.bytes) {
            Ok(record) => record,
            Err(error) => {
                failed.get_or_insert((entry.position, error.to_string()));
                return;
            }
        };
        if let Body::Hit(hit) = &mut record.body {
            unseal_hits(hit, unseal);
        }
        engine.evolve(&record, entry.position);
        if matches!(record.body, Body::Published(_) | Body::Named(_)) {
            catalog = engine.catalog();
        }
        lists.evolve(&record, &catalog);
        let place = (entry.position, entry.incarnation);
        replayed.evolve(&mut queue, &record, place, &unseal, &alert_id, &log);
    })
    .map_err(StartError::Journal)?;
    if let Some((position, why)) = failed {
        return Err(StartError::Record(position, why));
    }
    let took_ms = clock.boot_ms() - began_ms;
    tracing::info!(records = found.records, bytes = found.bytes, took_ms, "replayed");
    for Damage { .. } in &found.lost {
        tracing::error!("records were lost and their loss accepted");
    }
    Ok(Recovered { engine, journal, found, lists, replayed, queue, log })
}

/// The journal's own clock: it writes the time into segment headers, and measures idleness.
fn hook_clock() -> impl Fn() -> Now + Send {
    let clock = Clock::system();
    move || Now { wall_ms: clock.now().0, boot_ms: clock.boot_ms() }
}

/// The version in force: the last published one if the file is the same, else a new one.
fn publish(
    recovered: &Recovered,
    file: &ScoringFile,
    now: Timestamp,
) -> Result<InForce, StartError> {
    publish_scoring(&recovered.engine, &recovered.journal, file, now)
        .map_err(|problem| StartError::Settings(vec![problem]))
}

/// Journals a version of the scoring, unless it is the one in force already.
pub fn publish_scoring(
    engine: &Engine,
    journal: &Journal,
    file: &ScoringFile,
    now: Timestamp,
) -> Result<InForce, Problem> {
    let catalog = engine.catalog();
    let same = catalog.version > 0 && catalog.text == file.text.as_bytes();
    let version = if same { catalog.version } else { catalog.version + 1 };
    let mut names: Vec<Name> = Vec::new();
    let scoring = file.publish(version, &mut |kind, name| {
        let kind = match kind {
            config::NameKind::Rule => NameKind::Rule,
            config::NameKind::Category => NameKind::Category,
            config::NameKind::Threshold => NameKind::Threshold,
        };
        catalog.intern(&mut names, kind, name)
    })?;
    if !same {
        let published = Published {
            version,
            names,
            categories: categories(&scoring),
            text: file.text.as_bytes().to_vec(),
        };
        let bytes = published.text.len() + 4_096;
        push_now(journal, bytes, |push| engine.publish(published, now, push));
    }
    Ok(InForce::new(scoring, &file.excluded, Arc::clone(&file.text)))
}

fn categories(scoring: &Scoring) -> Vec<PublishedCategory> {
    let published = |category: &engine::scoring::Category| PublishedCategory {
        id: category.id,
        half_life: category.half_life,
        in_total: category.in_total,
    };
    scoring.categories.iter().map(published).collect()
}

/// Pushes one record of the process's own and waits for it; a full journal is waited for.
fn push_now(
    journal: &Journal,
    bytes: usize,
    act: impl FnOnce(&mut dyn FnMut(&Record) -> Position) -> Position,
) {
    let mut reserved = loop {
        match journal.reserve(1, bytes) {
            Ok(reserved) => break reserved,
            Err(error) => {
                tracing::warn!(?error, "the journal takes nothing; waiting");
                thread::sleep(TIMER_EVERY);
            }
        }
    };
    let mut encoded = Vec::new();
    let position = act(&mut |record: &Record| {
        encoded.clear();
        record.encode(&mut encoded);
        reserved.push(&encoded)
    });
    if journal.wait_blocking(position).is_err() {
        tracing::error!("the journal failed");
    }
}

fn name_sites(recovered: &Recovered, settings: &Settings, install: &Install, now: Timestamp) -> Sites {
    let catalog = recovered.engine.catalog();
    let mut names = Vec::new();
    let numbered: Vec<(SiteId, config::Site)> = settings
        .sites
        .iter()
        .map(|site| (SiteId(catalog.intern(&mut names, NameKind::Site, &site.id)), site.clone()))
        .collect();
    if !names.is_empty() {
        let bytes = 4_096 + names.len() * 256;
        push_now(&recovered.journal, bytes, |push| recovered.engine.name(names, now, push));
    }
    Sites::new(&numbered, &install.visitor)
}

fn rates(settings: &Settings, ids: &Ids, sites: &Sites) -> Rates {
    let limits = &settings.limits;
    let second = Duration::from_secs(1);
    let rate = |rate: &config::Rate| Rate::new(rate.per_s as u32, second, rate.burst.max(1) as u32);
    let table = |wanted: Option<&config::Rate>| {
        let rate = wanted.and_then(rate)?;
        Some(RateLimits::new(rate, limits.addresses_max, ids.bytes()))
    };
    let hourly = limits.claims_per_hour_max.min(u64::from(u32::MAX)) as u32;
    let claims = Rate::new(hourly, Duration::from_hours(1), hourly.max(1));
    let numbers = sites.all().iter().map(|site| usize::from(site.number.0) + 1);
    let quotas = numbers.max().unwrap_or(0);
    Rates {
        address: table(limits.address_rate.as_ref()),
        site: table(limits.site_rate.as_ref()),
        claims: claims
            .map(|rate| (0..quotas).map(|_| Mutex::new(Quota::new(rate))).collect())
            .unwrap_or_default(),
    }
}

fn queue_limits(settings: &Settings) -> QueueLimits {
    let webhooks = &settings.webhooks;
    QueueLimits {
        endpoints_max: webhooks.endpoints_max,
        pending_max: webhooks.pending_max,
        dead_max: webhooks.dead_max,
        bodies_bytes_max: webhooks.bodies_bytes_max,
        body_bytes_max: webhooks.body_bytes_max,
    }
}

fn endpoint_settings(
    endpoint: &Endpoint,
    settings: &Settings,
    disabled: bool,
) -> Option<EndpointSettings> {
    Some(EndpointSettings {
        id: EndpointId::parse(&endpoint.id).ok()?,
        mode: match endpoint.mode {
            _ if disabled => Mode::Disabled,
            EndpointMode::Live => Mode::Live,
            EndpointMode::Shadow => Mode::Shadow,
        },
        test: endpoint.test,
        in_flight_max: endpoint.in_flight_max.unwrap_or(settings.webhooks.in_flight_max),
        schedule: settings.webhooks.retry_schedule.clone().into(),
    })
}

fn driver_endpoint(endpoint: &Endpoint, settings: &Settings, disabled: bool) -> Option<driver::Endpoint> {
    Some(driver::Endpoint {
        settings: endpoint_settings(endpoint, settings, disabled)?,
        target: endpoint.target.clone(),
        secrets: endpoint.secrets.clone(),
    })
}

fn launch(
    app: Arc<App>,
    mut parts: Parts,
    (replayed, queue): (Replayed, Queue),
    follow_from: Position,
    options: &Options,
    (data, found): (PathBuf, Found),
) -> Result<Running, StartError> {
    let workers = app.settings.collector.workers.unwrap_or_else(|| {
        thread::available_parallelism().map_or(1, std::num::NonZero::get)
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .map_err(StartError::System)?;
    let (stop, stopped) = watch::channel(false);
    let stopping = Arc::new(AtomicBool::new(false));
    let (commands, received) = mpsc::channel(COMMANDS_MAX);
    let (figures, queue_figures) = watch::channel(queue.figures());
    let disabled = replayed.disabled.clone();
    let settings = app.settings.clone();
    let endpoints: Vec<driver::Endpoint> = parts
        .endpoints
        .load()
        .iter()
        .filter_map(|endpoint| {
            let off = disabled.get(&endpoint.id) == Some(&endpoint.fingerprint.crc32c);
            driver_endpoint(endpoint, &settings, off)
        })
        .collect();
    let driver = runtime.block_on(async {
        spawn_driver(&app, &parts, (received, queue, endpoints), figures, stopped.clone())
    })?;
    let mut threads = Vec::new();
    let mut thread = |name: &str, body: Box<dyn FnOnce() + Send>| {
        let spawned = thread::Builder::new().name(name.to_owned()).spawn(body);
        spawned.map(|handle| threads.push(handle)).map_err(StartError::System)
    };
    let outbox = Outbox::new(
        Arc::clone(&app),
        Arc::clone(&parts.endpoints),
        commands.clone(),
        Arc::clone(&parts.log),
        replayed,
    );
    let (follower, stop_flag) = (app.journal.follow(follow_from), Arc::clone(&stopping));
    thread("outbox", Box::new(move || outbox.run(follower, &stop_flag)))?;
    let (follower, stop_flag) = (app.journal.follow(follow_from), Arc::clone(&stopping));
    let (reading, lists) = (Arc::clone(&app), Arc::clone(&parts.lists));
    thread("reader", Box::new(move || reader::run(&reading, &lists, follower, &stop_flag)))?;
    let (timing, stop_flag) = (Arc::clone(&app), Arc::clone(&stopping));
    thread("timers", Box::new(move || run_timers(&timing, &stop_flag)))?;

    let (tokens, once) = Tokens::open(&data, &app.ids);
    let reload = Arc::new(AtomicBool::new(false));
    let admin = Admin {
        app: Arc::clone(&app),
        lists: Arc::clone(&parts.lists),
        log: Arc::clone(&parts.log),
        commands: commands.clone(),
        queue: queue_figures,
        tokens: Arc::new(tokens),
        collector_counters: Arc::default(),
        admin_counters: Arc::default(),
        reload: Arc::clone(&reload),
        problems: Arc::default(),
        stop: stopped.clone(),
    };
    if let Some(dir) = parts.files.dir.take() {
        let watching = Reloading {
            app: Arc::clone(&app),
            dir,
            watcher: parts.watcher,
            endpoints: Arc::clone(&parts.endpoints),
            commands,
            insist: reload,
            problems: Arc::clone(&admin.problems),
        };
        let stop_flag = Arc::clone(&stopping);
        thread("reload", Box::new(move || watching.run(&stop_flag)))?;
    }
    app.ready.store(true, Ordering::Release);
    let listening = runtime.block_on(listen(&app, &admin, options, &stopped))?;
    let Listening { collector, admin, servers } = listening;
    Ok(Running {
        app, collector, admin, once, data, found, stop, stopping, threads, runtime, servers, driver,
    })
}

struct Listening {
    collector: SocketAddr,
    admin: SocketAddr,
    servers: Vec<tokio::task::JoinHandle<usize>>,
}

async fn listen(
    app: &Arc<App>,
    admin: &Admin,
    options: &Options,
    stopped: &watch::Receiver<bool>,
) -> Result<Listening, StartError> {
    let settings = &app.settings;
    let collector = bind(settings.collector.listen, options.any_port).await?;
    let admin_listener = bind(settings.admin.listen, options.any_port).await?;
    let addresses = (local(&collector)?, local(&admin_listener)?);
    let collecting = Collector {
        app: Arc::clone(app),
        counters: Arc::clone(&admin.collector_counters),
    };
    let handler = move |request, peer| collecting.clone().handle(request, peer);
    let collector_settings = server_settings(settings, settings.collector.tls.as_ref(), &settings.collector.trusted_proxies)?;
    let admin_settings = server_settings(settings, settings.admin.tls.as_ref(), &settings.admin.trusted_proxies)?;
    let shutdown = |mut stopped: watch::Receiver<bool>| async move {
        // The sender goes only with the process, which is a stop too.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    let first = tokio::spawn(server::run(
        collector,
        shutdown(stopped.clone()),
        handler,
        collector_settings,
        Arc::clone(&admin.collector_counters),
    ));
    let counters = Arc::clone(&admin.admin_counters);
    let answering = admin.clone();
    let handler = move |request, peer| answering.clone().handle(request, peer);
    let second = tokio::spawn(server::run(
        admin_listener,
        shutdown(stopped.clone()),
        handler,
        admin_settings,
        counters,
    ));
    Ok(Listening { collector: addresses.0, admin: addresses.1, servers: vec![first, second] })
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

fn spawn_driver(
    app: &Arc<App>,
    parts: &Parts,
    (commands, queue, endpoints): (mpsc::Receiver<Command>, Queue, Vec<driver::Endpoint>),
    figures: watch::Sender<crate::webhook::queue::Figures>,
    mut stopped: watch::Receiver<bool>,
) -> Result<tokio::task::JoinHandle<driver::Stopped>, StartError> {
    let webhooks = &app.settings.webhooks;
    let timeouts = ClientTimeouts {
        resolve: webhooks.connect,
        connect: webhooks.connect,
        total: webhooks.timeout,
    };
    let reading = Arc::clone(app);
    let clock = Arc::new(move || reading.clock.now());
    let version = env!("CARGO_PKG_VERSION");
    let client = Client::new(version, Resolver::System, timeouts, clock.clone(), None);
    let client = client.map_err(StartError::Client)?;
    let (journaling, log) = (Arc::clone(app), Arc::clone(&parts.log));
    let (disabling, known) = (Arc::clone(app), Arc::clone(&parts.endpoints));
    let jittering = Arc::clone(app);
    let world = World {
        journal: move |records| journal_attempts(Arc::clone(&journaling), Arc::clone(&log), records),
        notice: move |notice| note(&disabling, &known, notice),
        clock: move || clock(),
        jitter: move || jittering.ids.fraction() * 2.0 - 1.0,
        figures,
    };
    Ok(tokio::spawn(driver::run(commands, queue, endpoints, client, world, async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    })))
}

/// Makes what became of deliveries durable, and counts those delivered.
async fn journal_attempts(
    app: Arc<App>,
    log: Arc<Log>,
    records: Vec<AttemptRecord>,
) -> Result<(), JournalStopped> {
    let entries: Vec<Attempt> = records.iter().map(Attempt::from).collect();
    let pushed: Vec<Entry> = entries.iter().cloned().map(Entry::Attempt).collect();
    let pushing = Arc::clone(&app);
    let last = tokio::task::spawn_blocking(move || {
        let mut last = Ok(Position::NONE);
        for entry in &pushed {
            last = crate::outbox::push(&pushing, entry);
        }
        last
    });
    let last = last.await.map_err(|_| JournalStopped)?.map_err(|_| JournalStopped)?;
    app.journal.wait(last).await.map_err(|_| JournalStopped)?;
    for (record, line) in records.iter().zip(entries) {
        if matches!(record.state, Delivery::Delivered { .. }) {
            if let Some(received) = log.take_received(record.message.as_str()) {
                app.metrics.click_to_alert.record(record.at.since(received).as_millis() as u64);
            }
        }
        log.add(line);
    }
    Ok(())
}

fn note(app: &Arc<App>, endpoints: &ArcSwap<Vec<Endpoint>>, notice: Notice) {
    match notice {
        Notice::Dead { endpoint, message, .. } => {
            tracing::warn!(%endpoint, %message, "a message became a dead letter");
        }
        Notice::Refused { endpoint, why, .. } => {
            tracing::warn!(%endpoint, ?why, "a message was not taken");
        }
        Notice::Skew { endpoint, ms } if ms.abs() > 60_000 => {
            tracing::warn!(%endpoint, ms, "the receiver's clock differs; it may refuse signatures");
        }
        Notice::Skew { .. } => {}
        Notice::Disabled { endpoint, why } => {
            tracing::error!(%endpoint, ?why, "the endpoint is disabled; change its settings to try again");
            let endpoints = endpoints.load();
            let known = endpoints.iter().find(|known| known.id == endpoint.as_str());
            let entry = Entry::Disabled {
                endpoint: endpoint.as_str().to_owned(),
                fingerprint: known.map_or(0, |known| known.fingerprint.crc32c),
            };
            let app = Arc::clone(app);
            tokio::task::spawn_blocking(move || crate::outbox::push(&app, &entry));
        }
    }
}

/// Acts on whoever is due. Nothing while the clock is in doubt.
fn advance(app: &App) {
    let now = app.clock.now();
    let due = app.engine.next_due().is_some_and(|due| due <= now);
    if !due || app.clock.is_in_doubt() {
        return;
    }
    let Ok(mut reserved) = app.journal.reserve(DUE_RESERVED, DUE_RESERVED * DUE_BYTES) else {
        return;
    };
    let in_force = app.scoring.load();
    let mut bytes = Vec::new();
    app.engine.advance(now, &in_force.scoring, &mut |record| {
        bytes.clear();
        record.encode(&mut bytes);
        reserved.push(&bytes)
    });
}

fn run_timers(app: &App, stop: &AtomicBool) {
    let mut swept_ms = app.clock.boot_ms();
    while !stop.load(Ordering::Acquire) {
        advance(app);
        if app.clock.boot_ms() - swept_ms >= SWEEP_EVERY.as_millis() as u64 {
            swept_ms = app.clock.boot_ms();
            app.engine.sweep(app.clock.now());
        }
        thread::sleep(TIMER_EVERY);
    }
}

/// Watches the files and publishes what is right.
struct Reloading {
    app: Arc<App>,
    dir: PathBuf,
    watcher: config::Watcher,
    endpoints: Arc<ArcSwap<Vec<Endpoint>>>,
    commands: mpsc::Sender<Command>,
    insist: Arc<AtomicBool>,
    problems: Arc<Mutex<Vec<String>>>,
}

impl Reloading {
    fn run(mut self, stop: &AtomicBool) {
        let mut waited = Duration::ZERO;
        while !stop.load(Ordering::Acquire) {
            thread::sleep(TIMER_EVERY);
            waited += TIMER_EVERY;
            let insisted = self.insist.swap(false, Ordering::AcqRel);
            if insisted {
                self.watcher.insist();
            }
            if insisted || waited >= RELOAD_EVERY {
                waited = Duration::ZERO;
                self.look();
            }
        }
    }

    fn look(&mut self) {
        let (found, _) = Files::read_contents(&self.dir);
        let changes = self.watcher.changed(contents(&found));
        if let Some(scoring) = &changes.scoring {
            self.publish(scoring);
        }
        if let Some(endpoints) = changes.endpoints {
            self.exchange(endpoints);
        }
        if changes.settings.is_some() {
            tracing::warn!("mikomi.toml changed: its settings take effect at the next start");
        }
        if changes.problems_changed {
            let lines: Vec<String> =
                self.watcher.problems().iter().map(ToString::to_string).collect();
            for line in &lines {
                tracing::error!("{line}");
            }
            *self.problems.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = lines;
        }
    }

    fn publish(&self, file: &ScoringFile) {
        let app = &self.app;
        let published = publish_scoring(&app.engine, &app.journal, file, app.clock.now());
        match published {
            Ok(in_force) => {
                let version = in_force.scoring.version;
                app.scoring.store(Arc::new(in_force));
                app.engine.rebuild_timers(&app.scoring.load().scoring);
                tracing::info!(version, "the saved rules are in force");
            }
            Err(problem) => tracing::error!("{problem}"),
        }
    }

    fn exchange(&self, endpoints: Vec<Endpoint>) {
        let before = self.endpoints.swap(Arc::new(endpoints));
        let now = self.endpoints.load();
        let settings = &self.app.settings;
        let known: BTreeMap<&str, u32> =
            before.iter().map(|it| (it.id.as_str(), it.fingerprint.crc32c)).collect();
        for endpoint in now.iter() {
            if known.get(endpoint.id.as_str()) == Some(&endpoint.fingerprint.crc32c) {
                continue;
            }
            if let Some(changed) = driver_endpoint(endpoint, settings, false) {
                // The driver ends only when the process does.
                let _ = self.commands.blocking_send(Command::Endpoint(Box::new(changed)));
            }
        }
        for gone in before.iter().filter(|it| now.iter().all(|other| other.id != it.id)) {
            if let Ok(id) = EndpointId::parse(&gone.id) {
                let _ = self.commands.blocking_send(Command::Remove(id));
            }
        }
    }
}

impl Running {
    /// Stops in order: no new requests, those in hand answered, attempts in flight ended, the
    /// journal sealed. Loses nothing.
    pub fn stop(self) -> Result<Position, crate::journal::Poisoned> {
        // Whoever still asks is told to come again; what was taken is answered.
        let _ = self.stop.send(true);
        self.runtime.block_on(async {
            for server in self.servers {
                if let Ok(cut) = server.await {
                    tracing::debug!(cut, "a listener stopped");
                }
            }
            let _ = self.driver.await;
        });
        self.app.ready.store(false, Ordering::Release);
        self.stopping.store(true, Ordering::Release);
        for thread in self.threads {
            let _ = thread.join();
        }
        let stopped = self.app.journal.stop();
        self.runtime.shutdown_timeout(Duration::from_secs(1));
        stopped
    }

    /// Waits for the signal to stop, and for SIGHUP, which means: look at the files now.
    pub fn wait_for_signal(&self) {
        self.runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let Ok(mut terminate) = signal(SignalKind::terminate()) else {
                return;
            };
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        });
    }
}
