//! An alert never leaves before its record is durable, whenever the power goes: the real outbox on
//! a simulated disk whose syncs wait at a gate, and one log of what was synced and what was told.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "every test file is a crate of its own and uses another part")]
mod sim {
    pub mod disk;
}

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use collector::app::{App, Full, Rates};
use collector::clock::Clock;
use collector::config::{self, DEFAULT_ENDPOINTS, Endpoint, Files, Loaded, Surroundings};
use collector::cookie::VisitorCookie;
use collector::erasures::Erasures;
use collector::ids::Ids;
use collector::ingest::{self, RawHit, Sender};
use collector::install::Install;
use collector::journal::committer::Now;
use collector::journal::disk::{Disk, DiskFile, RealDisk};
use collector::journal::segment::{HEADER_BYTES, decode_frame};
use collector::journal::{Hooks, Journal, OpenError, Options};
use collector::lately::Lately;
use collector::link::scanners::Scanners;
use collector::link::uses::LinkUses;
use collector::metrics::Metrics;
use collector::outbox::entry::{Digest, Entry, Queued};
use collector::outbox::{Log, Outbox, Replayed, messages};
use collector::patience::Stalled;
use collector::retention::Figures as Retained;
use collector::seal::Sealer;
use collector::serve::{name_sites, publish_first};
use collector::snapshots::{Figures, Store};
use collector::timeline::unseal_with;
use collector::webhook::EndpointId;
use collector::webhook::breaker::Rest;
use collector::webhook::driver::Command;
use collector::webhook::queue::{EndpointSettings, Input, Limits, Message, Mode, Queue};
use engine::alert::{AlertId, Cause};
use engine::engine::Engine;
use engine::id::Position;
use engine::identity::IdentityKind;
use engine::record::{Body, Record};
use engine::time::Timestamp;
use sim::disk::{Dice, Fault, SimDisk};
use tokio::sync::{broadcast, mpsc};

/// Longest wait for anything. Only a failure waits as long.
const GUARD: Duration = Duration::from_secs(30);
/// 2026-12-07 10:00 in Japan.
const BEGIN: Timestamp = Timestamp(1_796_605_200_000);
/// Seeds of each crash test; each with the power going at every sync of the first life.
const SEEDS: u64 = 6;
/// Lives of a journal whose end is chosen; one that nothing ends follows.
const LIVES: u64 = 3;
/// A second receiver beside the one that ships; the message it gets is a shorter one.
const SECOND_ENDPOINT: &str = r#"
[[endpoint]]
id = "second"
url = "http://127.0.0.1:8082/second"
secrets = ["whsec_bWlrb21pIGRlbW8gc2VjcmV0OiByZXBsYWNlIG1lIQ=="]
hide = ["email"]
allow_http = true
allow_private = ["127.0.0.0/8"]
allow_ports = [8082]
"#;

/// A room that people read: they rest from 9 to 12, so that its message is held.
const RESTING_ROOM: &str = r#"
[[endpoint]]
id = "room"
url = "http://127.0.0.1:8083/room"
secrets = ["whsec_bWlrb21pIGRlbW8gc2VjcmV0OiByZXBsYWNlIG1lIQ=="]
chat = true
quiet = { from = "09:00", to = "12:00" }
allow_http = true
allow_private = ["127.0.0.0/8"]
allow_ports = [8083]
"#;
/// A room that takes nothing one by one: all of it is in the digest at 18:00.
const EVENING_ROOM: &str = r#"
[[endpoint]]
id = "evening"
url = "http://127.0.0.1:8084/room"
secrets = ["whsec_bWlrb21pIGRlbW8gc2VjcmV0OiByZXBsYWNlIG1lIQ=="]
chat = true
daily_max = 0
allow_http = true
allow_private = ["127.0.0.0/8"]
allow_ports = [8084]
"#;

/// What happened, in the order it happened; the disk and the receiver write into the same list.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    /// A journal was opened: what it gave is durable.
    Recovered { last: Position },
    /// A sync returned, and with it these records are durable.
    Synced { first: Position, last: Position },
    /// Delivery was given a message.
    Handed { alert: String, endpoint: String, body: String },
}

#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<Event>>>);

impl Events {
    fn note(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }

    fn hand(&self, message: &Message) {
        self.note(Event::Handed {
            alert: message.id.as_str().to_owned(),
            endpoint: message.endpoint.as_str().to_owned(),
            body: key_and_body(message).1,
        });
    }

    fn all(&self) -> Vec<Event> {
        self.0.lock().unwrap().clone()
    }

    /// Every message handed over so far, with its place in the log.
    fn handed(&self) -> Vec<(usize, String, String, String)> {
        let events = self.all().into_iter().enumerate();
        let handed = events.filter_map(|(at, event)| match event {
            Event::Handed { alert, endpoint, body } => Some((at, alert, endpoint, body)),
            Event::Recovered { .. } | Event::Synced { .. } => None,
        });
        handed.collect()
    }

    /// Whether a record was durable before this place in the log.
    fn durable_before(&self, at: usize, position: Position) -> bool {
        self.all()[..at].iter().any(|event| match event {
            Event::Recovered { last } => position <= *last,
            Event::Synced { first, last } => (*first..=*last).contains(&position),
            Event::Handed { .. } => false,
        })
    }
}

/// How a life ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The power goes.
    PowerCut,
    /// The sync fails, and the process must exit.
    SyncFails,
}

#[derive(Default)]
struct GateState {
    shut: bool,
    permits: u64,
    waiting: Vec<(Position, Position)>,
    syncs: u64,
    /// The sync that ends the life, and how.
    end: Option<(u64, End)>,
    ended: bool,
}

/// Where every sync waits until it is let through.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    moved: Condvar,
}

impl Gate {
    fn shut(&self) {
        self.state.lock().unwrap().shut = true;
    }

    fn open(&self) {
        self.state.lock().unwrap().shut = false;
        self.moved.notify_all();
    }

    /// Lets exactly one sync through.
    fn let_one_through(&self) {
        self.state.lock().unwrap().permits += 1;
        self.moved.notify_all();
    }

    /// A new life begins, and the sync of this number ends it.
    fn begin(&self, end: Option<(u64, End)>) {
        *self.state.lock().unwrap() = GateState { end, ..GateState::default() };
    }

    fn has_ended(&self) -> bool {
        self.state.lock().unwrap().ended
    }

    fn pass(&self, batches: &[(Position, Position)]) -> Option<End> {
        let mut state = self.state.lock().unwrap();
        state.syncs += 1;
        state.waiting = batches.to_vec();
        self.moved.notify_all();
        while state.shut && state.permits == 0 {
            state = self.moved.wait(state).unwrap();
        }
        state.permits = state.permits.saturating_sub(1);
        state.waiting.clear();
        let end = state.end.filter(|(at, _)| *at == state.syncs).map(|(_, end)| end);
        state.ended |= end.is_some();
        end
    }

    /// Waits until exactly this record stands at the gate, written and not synced.
    #[track_caller]
    fn wait_for(&self, position: Position) {
        let state = self.state.lock().unwrap();
        let elsewhere = |state: &mut GateState| state.waiting != [(position, position)];
        let (state, waited) = self.moved.wait_timeout_while(state, GUARD, elsewhere).unwrap();
        assert!(!waited.timed_out(), "{position:?} never waits; {:?} do", state.waiting);
    }
}

/// The simulated disk behind the gate. As on the real one, keys are durable before a write.
struct GatedDisk {
    sim: SimDisk,
    gate: Arc<Gate>,
    events: Events,
    sealer: Arc<Sealer>,
}

struct GatedFile {
    file: Arc<dyn DiskFile>,
    sim: SimDisk,
    gate: Arc<Gate>,
    events: Events,
    sealer: Arc<Sealer>,
    /// First and last positions of the batches written since the last sync.
    written: Mutex<Vec<(Position, Position)>>,
}

impl GatedDisk {
    fn gated(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(GatedFile {
            file,
            sim: self.sim.clone(),
            gate: Arc::clone(&self.gate),
            events: self.events.clone(),
            sealer: Arc::clone(&self.sealer),
            written: Mutex::default(),
        })
    }
}

impl Disk for GatedDisk {
    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.sim.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.sim.list()
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.gated(self.sim.create(name, bytes)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.gated(self.sim.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.sim.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.sim.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.sim.sync_directory()
    }
}

impl DiskFile for GatedFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.sealer.sync()?;
        self.file.write_at(bytes, offset)?;
        let mut rest = if offset < HEADER_BYTES as u64 { &[] } else { bytes };
        while let Ok(frame) = decode_frame(rest, rest.len()) {
            if frame.first < frame.next {
                let last = Position(frame.next.0 - 1);
                self.written.lock().unwrap().push((frame.first, last));
            }
            rest = &rest[frame.size..];
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let batches = std::mem::take(&mut *self.written.lock().unwrap());
        match self.gate.pass(&batches) {
            Some(End::PowerCut) => self.sim.crash_after(0),
            Some(End::SyncFails) => self.sim.set(Fault::Sync, true),
            None => {}
        }
        self.file.sync()?;
        for (first, last) in batches {
            self.events.note(Event::Synced { first, last });
        }
        Ok(())
    }

    fn trim(&self, bytes: u64) -> io::Result<()> {
        self.file.trim(bytes)
    }

    fn drop_cache(&self) {
        self.file.drop_cache();
    }
}

/// What stays while journals come and go: the keys and the settings.
struct World {
    folder: tempfile::TempDir,
    files: Files,
    endpoints: BTreeSet<String>,
}

impl World {
    fn new(endpoints_toml: String) -> World {
        let contents = [None, None, Some(endpoints_toml.into_bytes()), None, None, None];
        let files = Files { contents, ..Files::default() };
        let loaded = config::load(&files, &Surroundings::default()).unwrap();
        let endpoints = loaded.endpoints.into_iter().map(|endpoint| endpoint.id).collect();
        World { folder: tempfile::tempdir().unwrap(), files, endpoints }
    }

    fn with_one_endpoint() -> World {
        World::new(DEFAULT_ENDPOINTS.to_owned())
    }

    fn with_two_endpoints() -> World {
        World::new(format!("{DEFAULT_ENDPOINTS}{SECOND_ENDPOINT}"))
    }

    fn with_a_room_that_rests() -> World {
        World::new(format!("{DEFAULT_ENDPOINTS}{RESTING_ROOM}"))
    }

    fn with_an_evening_room() -> World {
        World::new(format!("{DEFAULT_ENDPOINTS}{EVENING_ROOM}"))
    }

    /// A machine whose journal holds the settings and nothing else.
    fn machine(&self, segment_bytes: u64) -> Machine<'_> {
        let machine = Machine {
            world: self,
            sim: SimDisk::new(),
            gate: Arc::default(),
            events: Events::default(),
            now: BEGIN,
            segment_bytes,
            recent_bytes_max: Options::new([0; 16]).recent_bytes_max,
        };
        Life::start(&machine).unwrap().app.journal.stop().unwrap();
        machine.events.0.lock().unwrap().clear();
        machine
    }
}

/// One disk and its gate.
struct Machine<'a> {
    world: &'a World,
    sim: SimDisk,
    gate: Arc<Gate>,
    events: Events,
    now: Timestamp,
    segment_bytes: u64,
    /// Bytes of the journal's end that are read from memory.
    recent_bytes_max: usize,
}

impl Machine<'_> {
    fn options(&self, install: [u8; 16]) -> Options {
        let mut options = Options::new(install);
        options.segment_bytes = self.segment_bytes;
        options.recent_bytes_max = self.recent_bytes_max;
        options
    }

    fn disk(&self, sealer: &Arc<Sealer>) -> GatedDisk {
        GatedDisk {
            sim: self.sim.clone(),
            gate: Arc::clone(&self.gate),
            events: self.events.clone(),
            sealer: Arc::clone(sealer),
        }
    }
}

/// What a recovery finds in the journal.
#[derive(Default)]
struct Recovery {
    /// Alerts that crossings in the journal call for, and where each crossing is.
    due: BTreeMap<String, Position>,
    /// Frozen messages, and where they are.
    queued: Vec<(Position, Queued)>,
    /// Digests, and where they are.
    digests: Vec<(Position, Digest)>,
    /// Messages that delivery begins with.
    waiting: Vec<Message>,
}

/// One process: everything that recovery rebuilds and `App` holds.
struct Life {
    gate: Arc<Gate>,
    app: Arc<App>,
    endpoints: Arc<ArcSwap<Vec<Endpoint>>>,
    replayed: Replayed,
    log: Arc<Log>,
    recovery: Recovery,
    follow_from: Position,
}

/// A clock that stands still, so that no seal comes between the syncs that are counted.
fn hooks_at(wall_ms: u64) -> Hooks {
    let now = move || Now { wall_ms, boot_ms: 0 };
    Hooks { now: Box::new(now), poisoned: Box::new(|_| {}) }
}

/// Where snapshots would be.
fn kept(folder: &Path, install: &Install) -> Store {
    let disk = RealDisk::open(folder.join("snapshots")).unwrap();
    Store::new(Arc::new(disk), install.id.0)
}

impl Life {
    /// Recovers from the disk as the server does.
    fn start(machine: &Machine<'_>) -> Result<Life, OpenError> {
        let Machine { world, now, .. } = machine;
        let folder = world.folder.path();
        let ids = Ids::default();
        let install = Install::open(folder, &ids).unwrap();
        let sealer = Arc::new(Sealer::open(folder).unwrap());
        let loaded = config::load(&world.files, &Surroundings::default()).unwrap();
        let Loaded { settings, scoring: file, endpoints, owners, .. } = loaded;
        let engine = Engine::new(8);
        let mut queue = queue_for(&endpoints, &settings, *now);
        let disk = machine.disk(&sealer);
        let options = machine.options(install.id.0);
        let unseal = |lead, sealed: &[u8]| sealer.unseal(lead, sealed);
        let alert_id = |cause: &Cause<'_>| AlertId::derive(&install.alert, cause);
        let (mut replayed, mut recovery) = (Replayed::default(), Recovery::default());
        let log = Log::default();
        let (journal, found) = Journal::open(Arc::new(disk), &options, hooks_at(now.0), |entry| {
            let mut record = Record::decode(entry.bytes).unwrap();
            unseal_with(&mut record, unseal);
            engine.evolve(&record, entry.position);
            let place = (entry.position, entry.incarnation);
            replayed.evolve(&mut queue, &record, place, &unseal, &alert_id, &log);
            recovery.note(&record, place, &install);
        })?;
        recovery.waiting = queue.outstanding().into_iter().map(|it| it.message).collect();
        machine.events.note(Event::Recovered { last: found.last });
        let in_force = publish_first(&engine, &journal, &file, *now).unwrap();
        let sites = name_sites(&engine, &journal, &settings, &install, *now);
        let app = Arc::new(App {
            sites,
            scoring: ArcSwap::from_pointee(in_force),
            owners: ArcSwap::from_pointee(owners),
            named: ArcSwap::default(),
            do_not_send: ArcSwap::default(),
            publishing: Mutex::default(),
            jobs: Mutex::default(),
            engine,
            sealer,
            erasures: Mutex::new(Erasures::open(folder).unwrap()),
            kept: kept(folder, &install),
            install,
            clock: Clock::test(*now),
            ids,
            lately: Lately::default(),
            link_uses: LinkUses::default(),
            scanners: Scanners::default(),
            rates: Rates { address: None, site: None, claims: Vec::new() },
            metrics: Metrics::default(),
            ready: AtomicBool::new(true),
            full: Full::default(),
            snapshots: Figures::default(),
            audit: collector::audit::Figures::default(),
            retention: Retained::default(),
            stalled: Stalled::default(),
            listening: OnceLock::new(),
            live: broadcast::channel(1).0,
            settings,
            journal,
        });
        app.engine.rebuild_timers(&app.scoring.load().scoring);
        Ok(Life {
            gate: Arc::clone(&machine.gate),
            endpoints: Arc::new(ArcSwap::from_pointee(endpoints)),
            replayed,
            log: Arc::new(log),
            recovery,
            follow_from: app.journal.durable().next(),
            app,
        })
    }

    fn outbox(&mut self, from: Position, commands: &mpsc::Sender<Command>) -> Running {
        let outbox = Outbox::new(
            Arc::clone(&self.app),
            Arc::clone(&self.endpoints),
            commands.clone(),
            (Arc::clone(&self.log), Arc::default()),
            std::mem::take(&mut self.replayed),
        );
        let follower = self.app.journal.follow(from);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        Running { thread: thread::spawn(move || outbox.run(follower, &stopped)), stop }
    }
}

/// A queue that knows the endpoints and is loading.
fn queue_for(endpoints: &[Endpoint], settings: &config::Settings, now: Timestamp) -> Queue {
    let mut queue = Queue::new(Limits::default());
    for endpoint in endpoints {
        let known = EndpointSettings {
            id: EndpointId::parse(&endpoint.id).unwrap(),
            mode: Mode::Live,
            test: endpoint.test,
            in_flight_max: 1,
            schedule: settings.webhooks.retry_schedule.clone().into(),
            supersede: false,
            rest: Rest::default(),
        };
        queue.step(Input::EndpointChanged(known), now);
    }
    queue
}

impl Drop for Life {
    fn drop(&mut self) {
        // A test that fails at a shut gate must end: the journal's own end needs a sync.
        self.gate.open();
    }
}

impl Recovery {
    fn note(&mut self, record: &Record, place: (Position, u32), install: &Install) {
        let alert_id = |cause: &Cause<'_>| AlertId::derive(&install.alert, cause);
        let (position, _) = place;
        if let Some(part) = record.lead_part() {
            for (id, _) in messages(part, place, &alert_id) {
                self.due.insert(id.as_str().to_owned(), position);
            }
        }
        let Body::Outbox(bytes) = &record.body else {
            return;
        };
        match Entry::decode(bytes) {
            Some(Entry::Queued(queued)) => self.queued.push((position, queued)),
            Some(Entry::Digest(digest)) => self.digests.push((position, digest)),
            _ => {}
        }
    }

    fn queued(&self, alert: &str) -> Option<&(Position, Queued)> {
        self.queued.iter().find(|(_, queued)| queued.alert == alert)
    }
}

/// The stage's thread.
struct Running {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
}

impl Running {
    /// Stops it. Whatever it wanted to do about the records it has seen, it has done then.
    fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap();
    }
}

/// In place of the delivery driver: writes down what it is given.
struct Delivery {
    commands: mpsc::Receiver<Command>,
    runtime: tokio::runtime::Runtime,
    events: Events,
}

impl Delivery {
    fn new(machine: &Machine<'_>) -> (mpsc::Sender<Command>, Delivery) {
        let (sender, commands) = mpsc::channel(16);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        (sender, Delivery { commands, runtime, events: machine.events.clone() })
    }

    /// Takes the next message; nothing when there is nobody any more who would send one.
    fn next(&mut self, context: &str) -> Option<Message> {
        let commands = &mut self.commands;
        let next = async { tokio::time::timeout(GUARD, commands.recv()).await };
        let next = self.runtime.block_on(next);
        let next = next.unwrap_or_else(|_| panic!("{context}: no message within {GUARD:?}"));
        match next? {
            Command::Enqueue(message) => {
                self.events.hand(&message);
                Some(message)
            }
            other => panic!("{context}: {other:?} is no message"),
        }
    }

    fn has_nothing(&mut self) -> bool {
        self.commands.try_recv().is_err()
    }
}

/// A browser that sends each hit until it is acknowledged.
#[derive(Default)]
struct Browser {
    /// Which person's.
    person: u32,
    cookie: Option<VisitorCookie>,
    acknowledged: usize,
    /// Whether the hit that crosses the line was ever sent.
    crossed: bool,
}

/// A look, a name, a quote asked for: 60 points, the line.
const HITS: [(&str, &str); 3] = [
    ("page_view", "https://www.vendor.example/"),
    ("identify", "https://www.vendor.example/contact"),
    ("page_view", "https://www.vendor.example/thanks/contact/ok"),
];

impl Browser {
    /// Sends the next hit as far as the tail.
    fn push(&mut self, app: &App) -> Option<(Position, Option<VisitorCookie>)> {
        let (event, url) = HITS[self.acknowledged];
        let mut hit = RawHit {
            site: "demo".into(),
            event: event.into(),
            url: url.into(),
            id: format!("hit-{}", self.acknowledged),
            ..RawHit::default()
        };
        if event == "identify" {
            let email = format!("tanaka{}@sample-seiki.example", self.person);
            hit.identities = vec![(IdentityKind::Email, email)];
            hit.attributes = vec![("name".into(), "田中 恵".into())];
        }
        let sender = Sender {
            address: [198, 51, 100, 7].into(),
            cookie: self.cookie,
            origin: Some("https://www.vendor.example".into()),
            agent: "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/140.0.0.0".into(),
            bearer: None,
            trusted: false,
            gpc: false,
            opted_out: false,
            prefetch: false,
            bytes: 1_024,
        };
        let taken = ingest::take(app, &sender, &[Ok(hit)]).ok()?;
        assert_eq!((taken.rejected, taken.dropped), (Vec::new(), None));
        self.crossed |= self.acknowledged == HITS.len() - 1;
        Some((taken.position.unwrap(), taken.cookie))
    }

    /// The same, and waits for the answer.
    fn send(&mut self, app: &App) -> Option<Position> {
        let (position, cookie) = self.push(app)?;
        app.journal.wait_blocking(position).ok()?;
        self.cookie = cookie.or(self.cookie);
        self.acknowledged += 1;
        Some(position)
    }

    /// Sends what is left; whether all of it is acknowledged.
    fn send_all(&mut self, app: &App) -> bool {
        while self.acknowledged < HITS.len() {
            if self.send(app).is_none() {
                return false;
            }
        }
        true
    }
}

/// A life in which everything but the last hit is acknowledged, with the gate shut then.
fn before_the_crossing(machine: &Machine<'_>) -> (Life, Browser) {
    machine.gate.begin(None);
    let life = Life::start(machine).unwrap();
    let mut browser = Browser::default();
    browser.send(&life.app).unwrap();
    browser.send(&life.app).unwrap();
    machine.gate.shut();
    machine.events.0.lock().unwrap().clear();
    (life, browser)
}

/// The only log there may be: the hit's sync, the message's sync, the message.
#[track_caller]
fn assert_told_after_both_syncs(machine: &Machine<'_>, life: &Life, hit: Position) {
    let frozen = hit.next();
    let record = Record::decode(&life.app.journal.read(frozen).unwrap()).unwrap();
    let Body::Outbox(bytes) = record.body else {
        panic!("the outbox's record follows the hit");
    };
    let Some(Entry::Queued(queued)) = Entry::decode(&bytes) else {
        panic!("a message was frozen");
    };
    assert_eq!(queued.cause(), hit);
    let events = machine.events.all();
    let [first, second, Event::Handed { alert, .. }] = events.as_slice() else {
        panic!("{events:?}");
    };
    assert_eq!(*first, Event::Synced { first: hit, last: hit });
    assert_eq!(*second, Event::Synced { first: frozen, last: frozen });
    assert_eq!(*alert, queued.alert);
}

#[test]
fn a_message_is_handed_over_after_the_sync_of_its_hit_and_then_the_sync_of_its_own_record() {
    let world = World::with_one_endpoint();
    let machine = world.machine(64 * 1024);
    let (mut life, mut browser) = before_the_crossing(&machine);
    let (commands, mut delivery) = Delivery::new(&machine);
    let running = life.outbox(life.follow_from, &commands);

    let (hit, _) = browser.push(&life.app).unwrap();
    machine.gate.wait_for(hit);
    assert_eq!(life.app.journal.durable().next(), hit, "it is in the tail only");
    assert!(delivery.has_nothing(), "told before the hit was durable");
    machine.gate.let_one_through();
    machine.gate.wait_for(hit.next());
    assert!(delivery.has_nothing(), "told before the message's record was durable");
    machine.gate.let_one_through();
    delivery.next("the gate let both through").unwrap();

    assert_told_after_both_syncs(&machine, &life, hit);
    machine.gate.open();
    running.stop();
    assert!(delivery.has_nothing(), "one message, once");
}

#[test]
fn an_outbox_that_has_done_all_it_can_tells_nobody_while_a_sync_waits() {
    let world = World::with_one_endpoint();
    let machine = world.machine(64 * 1024);
    let (mut life, mut browser) = before_the_crossing(&machine);
    let (commands, mut delivery) = Delivery::new(&machine);

    // The hit is in the tail and applied, and not durable.
    let running = life.outbox(life.follow_from, &commands);
    let (hit, _) = browser.push(&life.app).unwrap();
    machine.gate.wait_for(hit);
    running.stop();
    assert!(delivery.has_nothing(), "told before the hit was durable");
    assert_eq!(machine.events.all(), [], "nothing was synced");

    // The hit is durable; its message is frozen in the tail, and not durable.
    let running = life.outbox(life.follow_from, &commands);
    machine.gate.let_one_through();
    machine.gate.wait_for(hit.next());
    running.stop();
    assert!(delivery.has_nothing(), "told before the message's record was durable");
    assert_eq!(machine.events.all(), [Event::Synced { first: hit, last: hit }]);

    // Both are.
    let running = life.outbox(hit.next(), &commands);
    machine.gate.let_one_through();
    delivery.next("the gate let both through").unwrap();
    assert_told_after_both_syncs(&machine, &life, hit);
    machine.gate.open();
    running.stop();
}

#[test]
fn what_was_due_when_a_life_ended_is_queued_in_the_order_of_the_journal() {
    let world = World::with_one_endpoint();
    let machine = world.machine(64 * 1024);
    machine.gate.begin(None);
    let life = Life::start(&machine).unwrap();
    for person in 0..8 {
        assert!(Browser { person, ..Browser::default() }.send_all(&life.app));
    }
    life.app.journal.stop().unwrap();
    drop(life);

    let mut life = Life::start(&machine).unwrap();
    let due = life.recovery.due.clone();
    assert_eq!(due.len(), 8, "nobody followed the journal");
    let (commands, mut delivery) = Delivery::new(&machine);
    let running = life.outbox(life.follow_from, &commands);
    let next = |_| delivery.next("all of them are due").unwrap();
    let told: Vec<Position> = (0..8).map(next).map(|it| due[it.id.as_str()]).collect();
    assert!(told.is_sorted(), "{told:?}");
    running.stop();
}

#[test]
fn a_disk_that_cannot_be_read_for_a_while_delays_a_message_and_loses_none() {
    let world = World::with_one_endpoint();
    let mut machine = world.machine(64 * 1024);
    machine.recent_bytes_max = 0;
    machine.gate.begin(None);
    let mut life = Life::start(&machine).unwrap();
    let from = life.follow_from;
    assert!(Browser::default().send_all(&life.app));
    let (commands, mut delivery) = Delivery::new(&machine);

    machine.sim.set(Fault::Read, true);
    let running = life.outbox(from, &commands);
    let end = std::time::Instant::now() + GUARD;
    while life.app.stalled.errors() < 2 {
        assert!(std::time::Instant::now() < end, "the outbox reads nothing");
        thread::yield_now();
    }
    assert!(delivery.has_nothing());
    machine.sim.set(Fault::Read, false);
    delivery.next("the disk can be read again").unwrap();
    assert_eq!(life.app.stalled.reason(), None);
    running.stop();
}

/// What the lives before a recovery can have left; each must have been met.
#[derive(Debug, Default)]
struct Met {
    hit_lost: u32,
    crossing_not_frozen: u32,
    frozen_not_told: u32,
    told: u32,
}

/// One journal through several lives, and all that is promised about it.
struct Story<'a> {
    machine: Machine<'a>,
    dice: Dice,
    browser: Browser,
    /// Bodies found by a recovery, by alert and endpoint.
    frozen: BTreeMap<(String, String), String>,
    context: String,
}

impl Story<'_> {
    /// A life that ends as told, or in order. Says whether it was ended.
    fn live(&mut self, end: Option<(u64, End)>, met: &mut Met) -> bool {
        self.machine.sim.set(Fault::KeepCache, self.dice.coin());
        self.machine.gate.begin(end);
        match Life::start(&self.machine) {
            Ok(life) => self.live_on(life, met),
            Err(error) => assert!(self.machine.gate.has_ended(), "{}: {error}", self.context),
        }
        let ended = self.machine.gate.has_ended();
        self.machine.sim.set(Fault::Sync, false);
        if ended && !self.machine.sim.has_crashed() && self.dice.coin() {
            self.machine.sim.kill();
        } else {
            self.machine.sim.power_loss(&mut self.dice);
        }
        // A body frozen again would show a later time.
        self.machine.now = self.machine.now.plus(Duration::from_mins(1));
        ended
    }

    fn live_on(&mut self, mut life: Life, met: &mut Met) {
        let context = self.context.clone();
        self.check(&life, met);
        let before = self.machine.events.all().len();
        for message in &life.recovery.waiting {
            self.machine.events.hand(message);
        }
        let (commands, mut delivery) = Delivery::new(&self.machine);
        let running = life.outbox(life.follow_from, &commands);
        drop(commands);
        if self.browser.send_all(&life.app) {
            while self.told_since(before) != self.machine.world.endpoints {
                if delivery.next(&context).is_none() {
                    assert!(self.machine.gate.has_ended(), "{context}: the outbox gave up");
                    break;
                }
            }
        }
        // It may be ended at this very sync.
        let _ = life.app.journal.stop();
        running.thread.join().unwrap();
        while delivery.next(&context).is_some() {}
    }

    fn told_since(&self, before: usize) -> BTreeSet<String> {
        let handed = self.machine.events.handed().into_iter();
        handed.filter(|(at, ..)| *at >= before).map(|(_, _, endpoint, _)| endpoint).collect()
    }

    /// What must hold whenever a journal has been recovered.
    fn check(&mut self, life: &Life, met: &mut Met) {
        let (context, recovery) = (&self.context, &life.recovery);
        let mut frozen = BTreeMap::new();
        for (position, queued) in &recovery.queued {
            let lead = queued.lead_id().unwrap();
            assert_eq!(recovery.due.get(&queued.alert), Some(&queued.cause()), "{context}");
            assert!(*position > queued.cause(), "{context}");
            for body in &queued.bodies {
                let key = (queued.alert.clone(), body.endpoint.clone().unwrap());
                let bytes =
                    life.app.sealer.unseal(lead, &queued.sealed_bytes(body).unwrap()).unwrap();
                let whole = self::frozen(body.not_before, &bytes);
                assert_eq!(frozen.insert(key, whole), None, "{context}: frozen twice");
            }
        }
        assert!(recovery.due.len() <= 1, "{context}: {:?}", recovery.due);
        let endpoints: BTreeSet<String> = frozen.keys().map(|(_, it)| it.clone()).collect();
        assert!(
            frozen.is_empty() || endpoints == self.machine.world.endpoints,
            "{context}: frozen for {endpoints:?} only"
        );
        // Nothing here ever becomes of a message: all of them wait.
        let waiting: BTreeMap<_, _> = recovery.waiting.iter().map(key_and_body).collect();
        assert_eq!(waiting, frozen, "{context}: what waits is what was frozen");
        for (key, body) in &self.frozen {
            assert_eq!(frozen.get(key), Some(body), "{context}: {key:?} was there before");
        }
        let handed = self.machine.events.handed();
        for (at, alert, endpoint, body) in &handed {
            let found = frozen.get(&(alert.clone(), endpoint.clone()));
            assert_eq!(found, Some(body), "{context}: {endpoint} was told of {alert}");
            let (position, queued) = recovery.queued(alert).unwrap();
            for needed in [*position, queued.cause()] {
                let durable = self.machine.events.durable_before(*at, needed);
                assert!(durable, "{context}: {alert} left before {needed:?} was durable");
            }
        }
        match (recovery.due.is_empty(), frozen.is_empty(), handed.is_empty()) {
            (true, ..) => met.hit_lost += u32::from(self.browser.crossed),
            (false, true, _) => met.crossing_not_frozen += 1,
            (false, false, true) => met.frozen_not_told += 1,
            (false, false, false) => met.told += 1,
        }
        self.frozen = frozen;
    }

    /// After the last life: one alert, everybody has it, and it is one message.
    fn check_end(&mut self, met: &mut Met) {
        self.machine.gate.begin(None);
        let life = Life::start(&self.machine).unwrap();
        self.check(&life, met);
        let handed = self.machine.events.handed();
        let alerts: BTreeSet<&String> = handed.iter().map(|(_, alert, ..)| alert).collect();
        assert!(alerts.into_iter().eq(life.recovery.due.keys()), "{}: {handed:?}", self.context);
        assert_eq!(life.recovery.due.len(), 1, "{}", self.context);
        assert_eq!(self.told_since(0), self.machine.world.endpoints, "{}", self.context);
    }
}

fn text(body: &[u8]) -> String {
    String::from_utf8(body.to_vec()).unwrap()
}

fn key_and_body(message: &Message) -> ((String, String), String) {
    let key = (message.id.as_str().to_owned(), message.endpoint.as_str().to_owned());
    (key, frozen(message.not_before.map(|until| until.0), &message.body))
}

/// Whatever of a message must not change: its body, and until when it is held.
fn frozen(not_before: Option<u64>, body: &[u8]) -> String {
    format!("{not_before:?} {}", text(body))
}

/// Ends the first life at every sync it has, and the next ones anywhere, by many seeds.
fn tell_with_ends_at_every_sync(world: &World) -> Met {
    let mut met = Met::default();
    let base = world.machine(4 * 1024);
    for seed in 0..SEEDS {
        for sync in 1.. {
            let mut dice = Dice::new(seed << 32 | sync);
            let mut ends = vec![sync];
            ends.extend((1..LIVES).map(|_| 1 + dice.below(12)));
            let context = format!("seed {seed}, ended at the syncs {ends:?}");
            let events = Events::default();
            let sim = base.sim.copy();
            let machine = Machine { world, sim, gate: Arc::default(), events, ..base };
            let (browser, frozen) = (Browser::default(), BTreeMap::new());
            let mut story = Story { machine, dice, browser, frozen, context };
            let mut ended = Vec::new();
            for at in ends {
                let how = if story.dice.coin() { End::PowerCut } else { End::SyncFails };
                ended.push(story.live(Some((at, how)), &mut met));
            }
            assert!(!story.live(None, &mut met), "{}: the last life", story.context);
            story.check_end(&mut met);
            if !ended[0] {
                assert!(sync > HITS.len() as u64, "{}: too few syncs", story.context);
                break;
            }
        }
    }
    met
}

#[track_caller]
fn assert_all_met(met: &Met) {
    let Met { hit_lost, crossing_not_frozen, frozen_not_told, told } = met;
    let all = [hit_lost, crossing_not_frozen, frozen_not_told, told];
    assert!(all.into_iter().all(|times| *times > 0), "too little happened: {met:?}");
}

#[test]
fn whenever_the_disk_fails_a_crossing_has_one_alert_whose_record_is_durable_before_it_leaves() {
    assert_all_met(&tell_with_ends_at_every_sync(&World::with_one_endpoint()));
}

#[test]
fn of_two_endpoints_that_want_an_alert_none_is_left_without_it_by_a_crash() {
    assert_all_met(&tell_with_ends_at_every_sync(&World::with_two_endpoints()));
}

#[test]
fn a_message_is_held_as_long_after_a_crash_as_before() {
    assert_all_met(&tell_with_ends_at_every_sync(&World::with_a_room_that_rests()));
}

/// A machine on which somebody became hot, and whose evening room has that to be told.
fn with_something_to_list(world: &World) -> Machine<'_> {
    let machine = world.machine(4 * 1024);
    machine.gate.begin(None);
    let mut life = Life::start(&machine).unwrap();
    let from = life.follow_from;
    let (commands, mut delivery) = Delivery::new(&machine);
    let running = life.outbox(from, &commands);
    assert!(Browser::default().send_all(&life.app));
    delivery.next("it is told to the system at once").unwrap();
    running.stop();
    life.app.journal.stop().unwrap();
    drop(life);
    machine.events.0.lock().unwrap().clear();
    Machine { now: BEGIN.plus(Duration::from_hours(8)), ..machine }
}

/// The digest's text, once it was handed over, now or by the recovery.
fn hear_digest(machine: &Machine<'_>, mut life: Life, context: &str) -> Option<(String, String)> {
    let of_room = |message: &Message| message.endpoint.as_str() == "evening";
    let waiting = life.recovery.waiting.iter().find(|it| of_room(it)).cloned();
    let (commands, mut delivery) = Delivery::new(machine);
    let from = life.follow_from;
    let running = life.outbox(from, &commands);
    drop(commands);
    let told = waiting.or_else(|| delivery.next(context).filter(|message| of_room(message)));
    let _ = life.app.journal.stop();
    running.thread.join().unwrap();
    assert!(delivery.next(context).is_none(), "{context}: said twice");
    told.map(|message| (message.id.as_str().to_owned(), text(&message.body)))
}

#[test]
fn whenever_the_disk_fails_a_digest_is_made_once_and_is_the_same() {
    let world = World::with_an_evening_room();
    let base = with_something_to_list(&world);
    let (mut not_made, mut made) = (0, 0);
    for seed in 0..SEEDS {
        for sync in 1.. {
            let mut dice = Dice::new(seed << 32 | sync);
            let context = format!("seed {seed}, ended at sync {sync}");
            let sim = base.sim.copy();
            let machine = Machine { sim, gate: Arc::default(), events: Events::default(), ..base };
            machine.sim.set(Fault::KeepCache, dice.coin());
            let how = if dice.coin() { End::PowerCut } else { End::SyncFails };
            machine.gate.begin(Some((sync, how)));
            let first = match Life::start(&machine) {
                Ok(life) => hear_digest(&machine, life, &context),
                Err(_) => None,
            };
            let ended = machine.gate.has_ended();
            machine.sim.set(Fault::Sync, false);
            machine.sim.power_loss(&mut dice);
            // The evening goes on, and so does the list of what is left to be told: nothing.
            let later = machine.now.plus(Duration::from_mins(1));
            let machine = Machine { now: later, ..machine };
            machine.gate.begin(None);
            let life = Life::start(&machine).unwrap();
            let digests = life.recovery.digests.len();
            assert!(digests <= 1, "{context}");
            not_made += u32::from(digests == 0);
            made += u32::from(digests == 1);
            let second = hear_digest(&machine, life, &context).unwrap();
            assert!(first.is_none_or(|first| first == second), "{context}: another digest");
            let life = Life::start(&machine).unwrap();
            assert_eq!(life.recovery.digests.len(), 1, "{context}");
            let (position, digest) = &life.recovery.digests[0];
            assert_eq!((digest.items.len(), &digest.alert), (1, &second.0), "{context}");
            assert!(*position > life.recovery.queued[0].0, "{context}");
            if !ended {
                break;
            }
        }
    }
    assert!(not_made > 0 && made > 0, "{not_made} {made}: too little happened");
}
