//! The whole of it, started and stopped in order: settings, keys, journal, replay, time that
//! passed meanwhile, and only then the listeners.

mod delivery;
mod listen;
mod publish;
mod recovery;
mod reload;
mod stages;
mod timers;

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use engine::engine::Engine;
use engine::id::Position;
use engine::time::Timestamp;
use tokio::sync::{broadcast, mpsc, watch};

use self::delivery::{driver_endpoint, loading_queue, spawn_driver};
use self::listen::{Listening, listen};
pub use self::publish::{name_sites, publish, publish_first};
use self::recovery::{Recovered, recover};
use self::reload::Reloading;
use self::timers::{advance, note_full, run_timers};
use crate::admin::Admin;
use crate::app::{App, Full, Rates, Sites};
use crate::audit;
use crate::clock::Clock;
use crate::config::{
    self, Around, Endpoint, Files, Loaded, Problem, RulesFrom, ScoringFile, Settings, Surroundings,
};
use crate::erasures::Erasures;
use crate::feedback::Desk;
use crate::ids::Ids;
use crate::install::{Install, InstallError};
use crate::journal::{Found, OpenError};
use crate::lately::Lately;
use crate::limits::{Quota, Rate, RateLimits};
use crate::link::scanners::Scanners;
use crate::metrics::Metrics;
use crate::outbox::{Log, Outbox, Replayed, lead_ref};
use crate::patience::Stalled;
use crate::reader::{self, Lists};
use crate::retention;
use crate::seal::Sealer;
use crate::server::TlsError;
use crate::snapshots;
use crate::tokens::Tokens;
use crate::webhook::client::ClientError;
use crate::webhook::driver::{self, Command};
use crate::webhook::queue::{Input, Queue};

/// How often it is looked whether something is too old to be kept, in milliseconds; also after each
/// snapshot.
const RETENTION_LOOK_MS: u64 = 60_000;
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
    /// The folder of the snapshots cannot be had.
    Snapshots(snapshots::file::Fault),
    /// The journal has lost its beginning, and no sound snapshot holds what was before: what is
    /// wrong with its base, if that is there.
    NoBase(Option<snapshots::file::Fault>),
    /// There is a base, and nothing of the journal that goes on from it.
    NoJournal,
    /// A record cannot be applied.
    Record(Position, String),
    /// What a crash cut off cannot go on.
    Step(String),
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
            Self::Snapshots(error) => write!(f, "the folder of the snapshots: {error}"),
            Self::NoBase(None) => {
                f.write_str("the journal's beginning and every snapshot of it are gone")
            }
            Self::NoBase(Some(fault)) => {
                write!(f, "the journal's beginning is gone, and its base cannot be used: {fault}")
            }
            Self::NoJournal => {
                f.write_str("there is the base of a journal, and no journal: restore a backup")
            }
            Self::Record(position, why) => {
                write!(f, "the record at position {} cannot be applied: {why}", position.0)
            }
            Self::Step(why) => write!(f, "a step that was cut off cannot go on: {why}"),
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
    /// Held, so that no other process opens anything in it.
    _folder: File,
    /// What recovery found.
    pub found: Found,
    reload: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    runtime: tokio::runtime::Runtime,
    servers: Vec<tokio::task::JoinHandle<usize>>,
    driver: tokio::task::JoinHandle<driver::Stopped>,
}

/// Reads the settings, from a folder or as compiled in.
pub fn load(options: &Options) -> Result<(Loaded, Files, Surroundings), Vec<Problem>> {
    let files = if let Some(files) = &options.files {
        files.clone()
    } else {
        Files::read(Files::find(options.config.as_deref(), Path::new(".")))?
    };
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let surroundings = Surroundings { dir: files.dir.clone(), env: env.collect() };
    let loaded = config::load(&files, &surroundings)?;
    Ok((loaded, files, surroundings))
}

/// Takes a data folder for this process, before anything in it is opened.
fn take(data: &Path) -> Result<File, StartError> {
    let taken = fs::create_dir_all(data).and_then(|()| File::open(data));
    let taken = taken.map_err(StartError::System)?;
    match taken.try_lock() {
        Ok(()) => Ok(taken),
        Err(TryLockError::WouldBlock) => Err(StartError::Journal(OpenError::InUse)),
        Err(TryLockError::Error(error)) => Err(StartError::System(error)),
    }
}

/// Starts everything.
pub fn start(options: &Options) -> Result<Running, StartError> {
    let (loaded, files, surroundings) = load(options).map_err(StartError::Settings)?;
    let Loaded { settings, scoring: scoring_file, endpoints, owners, named, do_not_send } = loaded;
    let ids = Ids::default();
    let data = options.data.clone().unwrap_or_else(|| settings.journal.dir.clone());
    let folder = take(&data)?;
    let install = Install::open(&data, &ids).map_err(StartError::Install)?;
    let sealer = Arc::new(Sealer::open(&data).map_err(StartError::Keys)?);
    let erasures = Erasures::open(&data).map_err(StartError::Keys)?;
    let clock = options.test_clock.map_or_else(Clock::system, Clock::test);
    let recovered = recover(&settings, options, &data, (&install, &sealer, &clock), &endpoints)?;
    let Recovered { engine, journal, found, lists, link_uses, replayed, log, .. } = recovered;
    let (mut queue, kept) = (recovered.queue, recovered.snapshots);
    let now = clock.now();
    let scoring_file = chosen_rules(&engine, &settings, &surroundings, scoring_file)
        .map_err(StartError::Settings)?;
    let in_force = publish_first(&engine, &journal, &scoring_file, now)
        .map_err(|problem| StartError::Settings(vec![problem]))?;
    let sites = name_sites(&engine, &journal, &settings, &install, now);
    let follow_from = journal.durable().next();
    let rates = rates(&settings, &ids, &sites);
    let for_rules = settings.for_rules();
    let app = Arc::new(App {
        settings,
        sites,
        scoring: ArcSwap::from_pointee(in_force),
        owners: ArcSwap::from_pointee(owners),
        named: ArcSwap::from_pointee(named),
        do_not_send: ArcSwap::from_pointee(do_not_send),
        publishing: Mutex::default(),
        jobs: Mutex::default(),
        engine,
        journal,
        sealer,
        erasures: Mutex::new(erasures),
        install,
        clock,
        ids,
        lately: Lately::default(),
        link_uses,
        scanners: Scanners::default(),
        rates,
        metrics: Metrics::default(),
        ready: AtomicBool::new(false),
        full: Full::default(),
        snapshots: recovered.taken,
        audit: audit::Figures::default(),
        kept,
        retention: retention::Figures::default(),
        stalled: Stalled::default(),
        listening: OnceLock::new(),
        live: broadcast::channel(1_024).0,
    });
    catch_up(&app, &mut queue)?;
    let parts = Parts {
        lists: Arc::new(lists),
        log: Arc::new(log),
        endpoints: Arc::new(ArcSwap::from_pointee(endpoints)),
        watcher: config::Watcher::new(
            surroundings,
            files.contents(),
            for_rules,
            (&scoring_file, &app.named.load()),
        ),
        dir: files.dir.clone(),
        follow_from,
        surroundings: Arc::new(Surroundings { dir: files.dir, ..Surroundings::default() }),
    };
    launch(app, parts, (replayed, queue), options, (data, folder, found))
}

/// What must be so before anybody is let in.
fn catch_up(app: &Arc<App>, queue: &mut Queue) -> Result<(), StartError> {
    let failed = |error: crate::steps::Failed| StartError::Step(error.to_string());
    app.engine.rebuild_timers(&app.scoring.load().scoring);
    // What a crash cut off between two people goes on first: they are one, or two.
    crate::steps::resume(app).map_err(failed)?;
    // Whom an older copy of the data brought back is erased again, and what was cut off ends.
    for lead in crate::steps::erase::reapply(app).map_err(failed)? {
        queue.step(Input::Forget(lead_ref(lead)), app.clock.now());
    }
    // Whoever became due while nobody was here is settled before anybody is let in.
    note_full(app);
    advance(app);
    Ok(())
}

/// The rules to begin with: the file's, unless others were published without it and are to stay.
fn chosen_rules(
    engine: &Engine,
    settings: &Settings,
    surroundings: &Surroundings,
    file: ScoringFile,
) -> Result<ScoringFile, Vec<Problem>> {
    let catalog = engine.catalog();
    if settings.rules_from == RulesFrom::File || catalog.version() == 0 {
        return Ok(file);
    }
    let text = String::from_utf8_lossy(&catalog.text);
    let for_rules = settings.for_rules();
    let around = Around { surroundings, settings: Some(&for_rules) };
    ScoringFile::parse("the published rules", &text, around)
}

/// What the running parts share besides the `App`.
struct Parts {
    lists: Arc<Lists>,
    log: Arc<Log>,
    endpoints: Arc<ArcSwap<Vec<Endpoint>>>,
    watcher: config::Watcher,
    /// The folder whose files are watched.
    dir: Option<PathBuf>,
    /// What the followers have not seen yet begins here.
    follow_from: Position,
    /// The folder whose lists the rules may name.
    surroundings: Arc<Surroundings>,
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

/// Starts the threads and tasks, and the listeners last.
fn launch(
    app: Arc<App>,
    parts: Parts,
    (replayed, queue): (Replayed, Queue),
    options: &Options,
    (data, folder, found): (PathBuf, File, Found),
) -> Result<Running, StartError> {
    let runtime = runtime().map_err(StartError::System)?;
    let (stop, stopped) = watch::channel(false);
    let stopping = Arc::new(AtomicBool::new(false));
    let (commands, received) = mpsc::channel(COMMANDS_MAX);
    let (figures, queue_figures) = watch::channel(queue.figures());
    let known = parts.endpoints.load_full();
    let endpoints = known.iter().filter_map(|endpoint| {
        let off = replayed.disabled.get(&endpoint.id) == Some(&endpoint.fingerprint.crc32c);
        driver_endpoint(endpoint, &app.settings, off)
    });
    let inputs = (received, queue, endpoints.collect());
    let driver =
        runtime.block_on(async { spawn_driver(&app, &parts, inputs, figures, stopped.clone()) })?;
    let (tokens, once) = Tokens::open(&data, &app.ids);
    let reload = Arc::new(AtomicBool::new(false));
    let admin = Admin {
        app: Arc::clone(&app),
        lists: Arc::clone(&parts.lists),
        log: Arc::clone(&parts.log),
        endpoints: Arc::clone(&parts.endpoints),
        commands: commands.clone(),
        queue: queue_figures,
        tokens: Arc::new(tokens),
        collector_counters: Arc::default(),
        admin_counters: Arc::default(),
        reload: Arc::clone(&reload),
        problems: Arc::default(),
        surroundings: Arc::clone(&parts.surroundings),
        desk: Desk::new(&app, &parts.log, &parts.endpoints),
        surveys: Arc::default(),
        stop: stopped.clone(),
    };
    let workings = Workings { commands, replayed, reload: Arc::clone(&reload) };
    let threads = start_threads(&app, parts, workings, &admin, &stopping)?;
    app.ready.store(true, Ordering::Release);
    let listening = runtime.block_on(listen(&app, &admin, options, &stopped))?;
    let Listening { collector, admin, servers } = listening;
    // Set once: there is one listener.
    let _ = app.listening.set(collector);
    Ok(Running {
        app,
        collector,
        admin,
        once,
        data,
        _folder: folder,
        found,
        reload,
        stop,
        stopping,
        threads,
        runtime,
        servers,
        driver,
    })
}

/// For all but the hits, which have threads of their own: the admin side and delivery.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// What the threads take with them.
struct Workings {
    commands: mpsc::Sender<Command>,
    replayed: Replayed,
    reload: Arc<AtomicBool>,
}

/// A thread each for the outbox, the reader, the audit, snapshots, the timers and the files.
fn start_threads(
    app: &Arc<App>,
    parts: Parts,
    workings: Workings,
    admin: &Admin,
    stopping: &Arc<AtomicBool>,
) -> Result<Vec<JoinHandle<()>>, StartError> {
    let mut threads = Vec::new();
    let mut thread = |name: &str, body: Box<dyn FnOnce(&AtomicBool) + Send>| {
        let stop = Arc::clone(stopping);
        let spawned = thread::Builder::new().name(name.to_owned()).spawn(move || body(&stop));
        spawned.map(|handle| threads.push(handle)).map_err(StartError::System)
    };
    let Workings { commands, replayed, reload } = workings;
    let outbox = Outbox::new(
        Arc::clone(app),
        Arc::clone(&parts.endpoints),
        commands.clone(),
        (Arc::clone(&parts.log), Arc::clone(&parts.lists)),
        replayed,
    );
    let follower = app.journal.follow(parts.follow_from);
    thread("outbox", Box::new(move |stop| outbox.run(follower, stop)))?;
    let follower = app.journal.follow(parts.follow_from);
    let (reading, lists) = (Arc::clone(app), Arc::clone(&parts.lists));
    thread("reader", Box::new(move |stop| reader::run(&reading, &lists, follower, stop)))?;
    let timing = Arc::clone(app);
    let auditing = Arc::clone(app);
    thread("audit", Box::new(move |stop| audit::run(&auditing, &auditing.kept, stop)))?;
    thread("snapshots", keeping(app, Arc::clone(&parts.endpoints)))?;
    thread("timers", Box::new(move |stop| run_timers(&timing, stop)))?;
    if let Some(dir) = parts.dir {
        let watching = Reloading {
            app: Arc::clone(app),
            dir,
            watcher: parts.watcher,
            endpoints: parts.endpoints,
            commands,
            insist: reload,
            problems: Arc::clone(&admin.problems),
            unpublished: None,
        };
        thread("reload", Box::new(move |stop| watching.run(stop)))?;
    }
    Ok(threads)
}

/// Takes snapshots, and removes what is old enough and what they stand for.
fn keeping(
    app: &Arc<App>,
    endpoints: Arc<ArcSwap<Vec<Endpoint>>>,
) -> Box<dyn FnOnce(&AtomicBool) + Send> {
    let app = Arc::clone(app);
    Box::new(move |stop| {
        let queue = || loading_queue(&endpoints.load(), &app.settings, app.clock.now());
        let (began_ms, mut next_ms) = (app.clock.boot_ms(), 0);
        snapshots::run(&app, &app.kept, &queue, stop, &mut |taken| {
            let now_ms = app.clock.boot_ms();
            if taken || now_ms >= next_ms {
                let up_ms = now_ms.saturating_sub(began_ms);
                let outcome = retention::look(&app, &app.kept, &queue, up_ms, stop);
                let pause_ms = if outcome.more { 0 } else { RETENTION_LOOK_MS };
                next_ms = app.clock.boot_ms() + pause_ms;
            }
        });
    })
}

impl Running {
    /// Stops in order: no new requests, those in hand answered, attempts in flight ended, the
    /// journal sealed. Loses nothing.
    pub fn stop(self) -> Result<Position, crate::journal::Poisoned> {
        // On a full disk the reserve is there for what comes now.
        self.app.journal.wind_down();
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
            let signals = (signal(SignalKind::terminate()), signal(SignalKind::hangup()));
            let (Ok(mut terminate), Ok(mut hangup)) = signals else {
                return;
            };
            loop {
                tokio::select! {
                    _ = terminate.recv() => return,
                    _ = tokio::signal::ctrl_c() => return,
                    _ = hangup.recv() => self.reload.store(true, Ordering::Release),
                }
            }
        });
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A server with the compiled-in settings and a folder of its own.
    pub(crate) fn started() -> (tempfile::TempDir, Running) {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            data: Some(folder.path().to_owned()),
            files: Some(Files::default()),
            any_port: true,
            ..Options::default()
        };
        let running = start(&options).unwrap_or_else(|error| panic!("{error}"));
        (folder, running)
    }
}
