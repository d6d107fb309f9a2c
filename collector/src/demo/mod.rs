//! `mikomi demo`: a sample site one can click through, visitors who browse it over real HTTP, a
//! receiver that verifies what it is told, and a terminal that tells the story. The collector is
//! the real one, with its own rules (seconds instead of days) and a data folder that is removed
//! at the end. Nothing shown is staged: each line comes from a committed record or a delivery.
//!
//! Reading order: this file puts it together; `site` serves, `cast` and `browser` browse,
//! `watch` sees, `receiver` verifies, `story` decides what to say, `terminal` how it looks.

mod browser;
mod cast;
mod receiver;
mod site;
mod story;
mod terminal;
mod watch;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::id::LeadId;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch as tell};
use tokio::time::timeout;

use self::receiver::Delivery;
pub use self::story::Missing;
use self::story::Story;
use self::terminal::Terminal;
use self::watch::Sight;
use crate::app::App;
use crate::config::Files;
use crate::ids::Ids;
use crate::serve::{self, Options, Running, StartError};
use crate::webhook::sign::{SECRET_PREFIX, Secrets};

/// The demo's rules: like the example, with seconds instead of days.
const SCORING: &str = include_str!("scoring.toml");
/// Key of the demo's site, as it stands in the snippet.
const SITE_KEY: &str = "demo";
const SITE_PORT: u16 = 8090;
const RECEIVER_PORT: u16 = 8082;
/// A story that is not told by then never will be.
const STORY_MAX: Duration = Duration::from_mins(1);
/// How often the view looks up when nothing happens: fading shows without a visit.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Events that may wait for the terminal.
const EVENTS_MAX: usize = 1_024;

/// Why the demo did not do what it promises.
#[derive(Debug)]
pub enum DemoError {
    /// The operating system gives no port, folder or thread.
    System(&'static str, io::Error),
    /// mikomi itself does not start.
    Start(StartError),
    /// Within the time for it, these parts of the story did not happen.
    Incomplete(Vec<Missing>),
    /// This many messages did not pass the receiver's check.
    Unverified(u32),
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(what, error) => write!(f, "demo: {what}: {error}"),
            Self::Start(error) => write!(f, "demo: {error}"),
            Self::Incomplete(missing) => {
                let parts: Vec<String> = missing.iter().map(ToString::to_string).collect();
                let seconds = STORY_MAX.as_secs();
                write!(f, "demo: not seen within {seconds} s: {}", parts.join("; "))
            }
            Self::Unverified(count) => {
                write!(f, "demo: {count} messages did not pass the receiver's check")
            }
        }
    }
}

impl std::error::Error for DemoError {}

/// What the terminal hears of.
enum Event {
    /// A committed record.
    Sight(Box<Sight>),
    /// A message at the receiver.
    Delivery(Box<Delivery>),
    /// A simulated visitor could not go on.
    Trouble(String),
    /// Somebody pressed Ctrl-C.
    Stop,
}

/// Where everything is.
#[derive(Clone, Copy, Debug)]
struct Places {
    collector: SocketAddr,
    admin: SocketAddr,
    site: SocketAddr,
    receiver: SocketAddr,
}

/// Runs the demo until it is stopped; with `once`, until the story was told.
pub fn run(once: bool) -> Result<(), DemoError> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| DemoError::System("threads", error))?;
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    runtime.spawn(wait_for_stop(sender.clone()));
    let ids = Ids::default();
    let folder =
        Folder::create(&ids).map_err(|error| DemoError::System("temporary folder", error))?;
    let listen = |port| runtime.block_on(listen(port));
    let site = listen(SITE_PORT).map_err(|error| DemoError::System("the site's port", error))?;
    let receiver = listen(RECEIVER_PORT);
    let receiver = receiver.map_err(|error| DemoError::System("the receiver's port", error))?;
    let local = |listener: &TcpListener| {
        listener.local_addr().map_err(|error| DemoError::System("a port", error))
    };
    let (site_address, receiver_address) = (local(&site)?, local(&receiver)?);

    let secret = format!("{SECRET_PREFIX}{}", STANDARD.encode(ids.bytes::<32>()));
    let options = Options {
        data: Some(folder.path.clone()),
        any_port: true,
        files: Some(files(site_address, receiver_address, &secret)),
        ..Options::default()
    };
    let running = serve::start(&options).map_err(DemoError::Start)?;
    let places = Places {
        collector: running.collector,
        admin: running.admin,
        site: site_address,
        receiver: receiver_address,
    };
    let secrets = Secrets::parse([secret.as_str()]).expect("made of 32 bytes just now");
    let clock = Arc::clone(&running.app);
    let now = move || clock.clock.now();
    runtime.spawn(site::serve(site, places));
    runtime.spawn(receiver::serve(receiver, secrets, now, sender.clone()));

    let stop = Arc::new(AtomicBool::new(false));
    let following = watch::start(Arc::clone(&running.app), sender.clone(), Arc::clone(&stop));
    let following = following.map_err(|error| DemoError::System("threads", error));
    let outcome = following.and_then(|thread| {
        let outcome = show(&runtime, &running, (sender, events), places, once);
        stop.store(true, Ordering::Release);
        // A thread that panicked has said so on stderr.
        let _ = thread.join();
        outcome
    });
    runtime.shutdown_timeout(Duration::from_millis(500));
    // Whatever the journal says now, its folder goes.
    let _ = running.stop();
    drop(folder);
    outcome
}

/// Starts the cast, and tells what happens until the end.
fn show(
    runtime: &Runtime,
    running: &Running,
    (sender, mut events): (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    places: Places,
    once: bool,
) -> Result<(), DemoError> {
    let app = &running.app;
    let terminal = Terminal::of_stdout(app.clock.now());
    let mut story = Story::default();
    let mut open = terminal.header(places, &running.once).is_ok();
    let (telling, told) = tell::channel(0);
    runtime.spawn(cast::play(places, Arc::clone(app), sender, told));
    let began_ms = app.clock.boot_ms();
    // Nobody reads any more, as behind `| head`: that is an end too.
    while open {
        let event = runtime.block_on(async { timeout(LOOK_EVERY, events.recv()).await });
        let mut lines = match event {
            Ok(Some(Event::Sight(sight))) => story.sight(&sight),
            Ok(Some(Event::Delivery(delivery))) => story.delivery(*delivery),
            Ok(Some(Event::Trouble(why))) => vec![story::trouble(app.clock.now(), &why)],
            Ok(Some(Event::Stop) | None) => break,
            Err(_) => Vec::new(),
        };
        lines.extend(story.fading(app.clock.now(), |lead| score(app, lead)));
        open = lines.iter().all(|line| terminal.line(line).is_ok());
        let count = story.told();
        if once && (count > 0 || story.unverified() > 0) {
            break;
        }
        if once && app.clock.boot_ms() - began_ms > STORY_MAX.as_millis() as u64 {
            return Err(DemoError::Incomplete(story.missing()));
        }
        if count > *telling.borrow() {
            // The cast goes on for as long as the runtime.
            let _ = telling.send(count);
            open = open && terminal.between().is_ok();
        }
    }
    if story.unverified() > 0 {
        return Err(DemoError::Unverified(story.unverified()));
    }
    // A terminal that is gone needs no farewell.
    let _ = terminal.farewell(&story);
    Ok(())
}

/// A lead's whole points now.
fn score(app: &App, lead: LeadId) -> Option<i64> {
    let lead = app.engine.lead(lead)?;
    let standing = lead.standing(&app.scoring.load().scoring, app.clock.now());
    Some(standing.score.shown())
}

async fn listen(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await,
    }
}

async fn wait_for_stop(events: mpsc::Sender<Event>) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    // Nobody listens any more: it has ended.
    let _ = events.send(Event::Stop).await;
}

/// The files: who may send and who is told are known only now, with the ports.
fn files(site: SocketAddr, receiver: SocketAddr, secret: &str) -> Files {
    let settings = format!(
        "[[site]]\nid = \"demo\"\nkey = \"{SITE_KEY}\"\nconsent = \"assumed\"\n\
         origins = [\"http://{site}\"]\n"
    );
    let endpoints = format!(
        "[[endpoint]]\nid = \"demo\"\nurl = \"http://{receiver}/hook\"\nsecrets = [\"{secret}\"]\n\
         mode = \"live\"\naudience = [\"sales\"]\nallow_http = true\n\
         allow_private = [\"127.0.0.0/8\"]\nallow_ports = [{}]\n",
        receiver.port()
    );
    let contents = [Some(settings), Some(SCORING.to_owned()), Some(endpoints), None, None, None];
    let contents = contents.map(|text| text.map(String::into_bytes));
    Files { contents, ..Files::default() }
}

/// A folder of our own that goes with us.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn create(ids: &Ids) -> io::Result<Folder> {
        let name = format!("mikomi-demo-{:016x}", u64::from_le_bytes(ids.bytes()));
        let path = std::env::temp_dir().join(name);
        // It will hold keys.
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Folder { path })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_dir_all(path) {
        tracing::warn!(%error, path = %path.display(), "the demo's folder stays behind");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Surroundings, load};

    #[test]
    fn the_demos_settings_are_fine_with_any_port() {
        let secret = format!("{SECRET_PREFIX}{}", STANDARD.encode([7; 32]));
        let (site, receiver) = (([127, 0, 0, 1], 40_001).into(), ([127, 0, 0, 1], 40_002).into());
        let loaded = load(&files(site, receiver, &secret), &Surroundings::default()).unwrap();
        assert_eq!(loaded.settings.sites.len(), 1);
        assert!(loaded.settings.sites[0].origins.allow("http://127.0.0.1:40001"));
        assert!(!loaded.settings.sites[0].origins.allow("http://127.0.0.1:40002"));
        assert_eq!(loaded.endpoints.len(), 1);
    }

    #[test]
    fn the_folder_goes_with_the_demo() {
        let folder = Folder::create(&Ids::default()).unwrap();
        let path = folder.path.clone();
        std::fs::write(path.join("file"), b"x").unwrap();
        drop(folder);
        assert!(!path.exists());
    }
}
