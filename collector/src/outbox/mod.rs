//! The outbox is a stage like the others: it follows the journal, gives bodies to the messages
//! that a record decided on once that is durable, freezes each body in a record of its own, and
//! hands it to delivery once that is durable too. What was queued and what became of it is
//! rebuilt by replay.

pub mod entry;
pub mod message;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use engine::alert::{AlertId, Cause};
use engine::id::{LeadId, Position};
use engine::lead::Lead;
use engine::record::{Body, LeadPart, Message as Telling, NameKind, Record, Sent};
use engine::time::Timestamp;
use engine::wire::About;
use tokio::sync::mpsc;

use self::entry::{Attempt, Entry, Frozen, Queued, base64};
use self::message::Material;
use crate::app::App;
use crate::config::Endpoint;
use crate::feedback::tap;
use crate::journal::{Follower, Poisoned, ReadError};
use crate::patience::Follows;
use crate::seal::SealError;
use crate::timeline;
use crate::webhook::driver::Command;
use crate::webhook::queue::{Input, Message, Queue};
use crate::webhook::{EndpointId, LeadRef, MessageId};

/// Records of a lead looked at for "recent" and "history".
const TIMELINE_MAX: usize = 500;
/// Lines of the delivery log kept in memory.
const LOG_MAX: usize = 2_000;
/// How long the outbox waits for a record before it looks whether it should stop.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Opens what was sealed for a lead, if its key is there.
pub type Unseal<'a> = dyn Fn(LeadId, &[u8]) -> Option<Vec<u8>> + 'a;

/// What replay leaves for the outbox.
#[derive(Default)]
pub struct Replayed {
    /// Messages decided on that are not queued yet, by alert.
    due: BTreeMap<AlertId, Due>,
    /// Endpoints that disabled themselves, and under which settings.
    pub disabled: BTreeMap<String, u32>,
}

/// A message whose body is to be made: its record, and its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The record.
    pub position: Position,
    /// The place.
    pub place: u16,
}

/// What the admin side sees of the outbox.
#[derive(Default)]
pub struct Log {
    lines: Mutex<VecDeque<Attempt>>,
    /// Every alert queued, and what it tells.
    queued: Mutex<BTreeMap<String, Position>>,
    /// When what caused an alert was received, for those not delivered yet.
    received: Mutex<BTreeMap<String, Timestamp>>,
}

impl Log {
    /// The newest lines first.
    pub fn lines(&self, most: usize) -> Vec<Attempt> {
        locked(&self.lines).iter().rev().take(most).cloned().collect()
    }

    /// Adds a line.
    pub fn add(&self, line: Attempt) {
        let mut lines = locked(&self.lines);
        if lines.len() == LOG_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// The record that holds what an alert tells, if it was queued.
    pub fn cause(&self, alert: &str) -> Option<Position> {
        locked(&self.queued).get(alert).copied()
    }

    fn note_queued(&self, alert: &str, cause: Position) {
        locked(&self.queued).insert(alert.to_owned(), cause);
    }

    /// When what caused an alert was received; asked once.
    pub fn take_received(&self, alert: &str) -> Option<Timestamp> {
        locked(&self.received).remove(alert)
    }
}

/// The messages of a record, each with its id.
pub fn messages<'a>(
    part: &'a LeadPart,
    (position, incarnation): (Position, u32),
    alert_id: &'a dyn Fn(&Cause<'_>) -> AlertId,
) -> impl Iterator<Item = (AlertId, &'a Telling)> {
    part.messages.iter().map(move |message| {
        let cause = Cause {
            incarnation,
            position,
            place: message.place,
            kind: message.kind,
            lead: part.lead,
            audience: message.audience.as_deref().unwrap_or_default(),
        };
        (alert_id(&cause), message)
    })
}

impl Replayed {
    /// Applies a record while the journal is replayed.
    pub fn evolve(
        &mut self,
        queue: &mut Queue,
        record: &Record,
        place: (Position, u32),
        unseal: &Unseal<'_>,
        alert_id: &dyn Fn(&Cause<'_>) -> AlertId,
        log: &Log,
    ) {
        if let Some(part) = record.lead_part() {
            for (id, message) in messages(part, place, alert_id) {
                self.due.insert(id, Due { position: place.0, place: message.place });
            }
        }
        let Body::Outbox(bytes) = &record.body else {
            return;
        };
        match Entry::decode(bytes) {
            Some(Entry::Queued(queued)) => {
                self.due.retain(|id, _| id.as_str() != queued.alert);
                for message in messages_of(&queued, unseal) {
                    queue.step(Input::Enqueue(message), record.time);
                }
                log.note_queued(&queued.alert, queued.cause());
            }
            Some(Entry::Attempt(attempt)) => {
                if let Some(made) = attempt.to_record() {
                    queue.step(Input::Replayed(made), record.time);
                }
                log.add(attempt);
            }
            Some(Entry::Disabled { endpoint, fingerprint }) => {
                self.disabled.insert(endpoint, fingerprint);
            }
            None => {}
        }
    }
}

fn messages_of(queued: &Queued, unseal: &Unseal<'_>) -> Vec<Message> {
    let message = |frozen: &Frozen| {
        let lead = queued.lead_id()?;
        let endpoint = EndpointId::parse(frozen.endpoint.as_deref()?).ok()?;
        let body = unseal(lead, &frozen.sealed_bytes()?)?;
        Some(Message {
            id: MessageId::parse(&queued.alert).ok()?,
            endpoint,
            lead: LeadRef(u128::from(lead.0)),
            sequence: u64::from(queued.sequence),
            test: queued.test,
            replay: false,
            not_before: None,
            topic: None,
            retracts: None,
            body: Bytes::from(body),
        })
    };
    queued.bodies.iter().filter_map(message).collect()
}

/// The running stage.
pub struct Outbox {
    app: Arc<App>,
    endpoints: Arc<ArcSwap<Vec<Endpoint>>>,
    commands: mpsc::Sender<Command>,
    log: Arc<Log>,
    replayed: Replayed,
}

impl Outbox {
    /// Ready to follow what comes after replay.
    pub fn new(
        app: Arc<App>,
        endpoints: Arc<ArcSwap<Vec<Endpoint>>>,
        commands: mpsc::Sender<Command>,
        log: Arc<Log>,
        replayed: Replayed,
    ) -> Outbox {
        Outbox { app, endpoints, commands, log, replayed }
    }

    /// Follows the journal until it ends or `stop` is set.
    pub fn run(mut self, mut follower: Follower, stop: &AtomicBool) {
        let app = Arc::clone(&self.app);
        let over = || stop.load(Ordering::Acquire) || app.journal.has_ended();
        let overdue = std::mem::take(&mut self.replayed.due);
        for (id, due) in overdue {
            let read = || match timeline::read(&app, due.position) {
                Err(error @ ReadError::Disk(_)) => Err(error),
                // Others are told all the same.
                found => Ok(found),
            };
            match app.stalled.read(Follows::Outbox, over, read) {
                Some(Ok(record)) => self.queue(&id, &record, due),
                Some(Err(error)) => tracing::error!(%error, "a message waits for the next start"),
                None => return,
            }
        }
        while !stop.load(Ordering::Acquire) {
            let read = || {
                let entry = follower.next_blocking(LOOK_EVERY)?;
                Ok(entry.map(|it| {
                    let about = About::of(it.bytes);
                    let wanted = about.lead || about.outbox;
                    let record = wanted.then(|| Record::decode(it.bytes));
                    ((it.position, it.incarnation), record)
                }))
            };
            let Some(next) = app.stalled.read(Follows::Outbox, over, read) else {
                return;
            };
            match next {
                Some((place, Some(Ok(record)))) => self.follow(&record, place),
                Some((_, Some(Err(error)))) => {
                    tracing::error!(%error, "the outbox passes over a record");
                }
                None if follower.is_ended() => return,
                None | Some((_, None)) => {}
            }
        }
    }

    fn follow(&mut self, record: &Record, place: (Position, u32)) {
        if let Some(part) = record.lead_part() {
            let key = self.app.install.alert;
            let alert_id = |cause: &Cause<'_>| AlertId::derive(&key, cause);
            for (id, message) in messages(part, place, &alert_id) {
                self.queue(&id, record, Due { position: place.0, place: message.place });
            }
        }
        let Body::Outbox(bytes) = &record.body else {
            return;
        };
        if let Some(Entry::Queued(queued)) = Entry::decode(bytes) {
            let sealer = &self.app.sealer;
            for message in messages_of(&queued, &|lead, sealed| sealer.unseal(lead, sealed)) {
                let received = Timestamp(queued.received);
                locked(&self.log.received).insert(queued.alert.clone(), received);
                // The driver ends only when the process does.
                let _ = self.commands.blocking_send(Command::Enqueue(message));
            }
        }
    }

    /// Freezes a message for everybody who wants it, all in one record: none is forgotten by a
    /// crash.
    fn queue(&mut self, id: &AlertId, record: &Record, due: Due) {
        if self.log.cause(id.as_str()).is_some() {
            return;
        }
        let Some(part) = record.lead_part() else {
            return;
        };
        let of_place = |message: &&Telling| message.place == due.place;
        let (Some(message), Some(lead)) =
            (part.messages.iter().find(of_place), self.app.engine.lead(part.lead))
        else {
            return;
        };
        let bodies = self.bodies(id, record, due, (part, message), &lead);
        let sealed = bodies.into_iter().map(|(endpoint, body)| {
            let sealed = self.app.sealer.seal(part.lead, body.to_string().as_bytes())?;
            Ok(Frozen { endpoint, sealed: base64(&sealed) })
        });
        let bodies = match sealed.collect::<Result<Vec<_>, SealError>>() {
            Ok(bodies) => bodies,
            Err(error) => {
                tracing::error!(%error, "a message cannot be sealed; it is made after a restart");
                return;
            }
        };
        let entry = Entry::Queued(Queued {
            alert: id.as_str().to_owned(),
            lead: part.lead.to_string(),
            kind: message.kind.name().to_owned(),
            sequence: message.told.sequence,
            cause: due.position.0,
            received: record.received().0,
            test: lead.test,
            bodies,
        });
        if push(&self.app, &entry).is_ok() {
            self.log.note_queued(id.as_str(), due.position);
        }
    }

    /// A body for each endpoint that wants the message; one for nobody if none does.
    fn bodies(
        &self,
        id: &AlertId,
        record: &Record,
        due: Due,
        (part, message): (&LeadPart, &Telling),
        lead: &Lead,
    ) -> Vec<(Option<String>, serde_json::Value)> {
        let app = &self.app;
        let now = app.clock.now();
        let in_force = app.scoring.load();
        let catalog = app.engine.catalog();
        let timeline = timeline::of_lead(app, lead, due.position, TIMELINE_MAX);
        // Sales is told all the same: the figures stand in the record.
        let timeline = timeline.unwrap_or_else(|error| {
            tracing::error!(%error, "a message goes without what its lead did lately");
            timeline::Timeline::new()
        });
        let site = timeline.values().rev().find_map(|record| match &record.body {
            Body::Hit(record) => Some(record.hit.site),
            _ => None,
        });
        let profile = lead.profile();
        let material = Material {
            alert: id.as_str(),
            message,
            crossing: message.crossing.and_then(|it| part.crossings.get(usize::from(it))),
            retracts: message.takes_back.as_ref().and_then(|sent| sent_id(app, sent)),
            site: site.and_then(|it| catalog.name(NameKind::Site, it.0)).unwrap_or_default(),
            cause: record,
            lead_id: part.lead,
            lead,
            attributes: &profile.attributes,
            confirmed_by: &profile.confirmed_by,
            timeline: &timeline,
            scoring: &in_force.scoring,
            catalog: &catalog,
            taps: tap::links(app, id.as_str(), message),
            admin_url: app.settings.admin.admin_url.as_deref(),
            committed: now,
            queued: now,
        };
        let number = material.crossing.map(|crossing| u16::from(crossing.threshold.0));
        let threshold = number.and_then(|number| catalog.name(NameKind::Threshold, number));
        let (audience, kind) = (message.audience.as_deref(), message.kind.name());
        let wants = |it: &&Endpoint| it.wants(audience, kind, threshold, lead.test);
        let endpoints = self.endpoints.load();
        let wanting = endpoints.iter().filter(wants);
        let mut bodies: Vec<_> =
            wanting.map(|it| (Some(it.id.clone()), material.body(&it.hide))).collect();
        if bodies.is_empty() {
            bodies.push((None, material.body(&BTreeSet::new())));
        }
        bodies
    }
}

/// The id of a message that was sent; nothing if its record is no longer there.
pub fn sent_id(app: &App, sent: &Sent) -> Option<AlertId> {
    let cause = Cause {
        incarnation: app.journal.incarnation_of(sent.position).ok()?,
        position: sent.position,
        place: sent.place,
        kind: sent.kind,
        lead: sent.lead,
        audience: sent.audience.as_deref().unwrap_or_default(),
    };
    Some(AlertId::derive(&app.install.alert, &cause))
}

/// Pushes an entry of the outbox, waiting while the journal is full: nothing is lost meanwhile,
/// since the crossing is durable and this stage begins where it stopped.
pub fn push(app: &App, entry: &Entry) -> Result<Position, Poisoned> {
    let record = Record {
        time: app.clock.now(),
        version: app.scoring.load().scoring.version,
        body: Body::Outbox(entry.encode()),
    };
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    loop {
        match app.journal.reserve(1, bytes.len()) {
            Ok(mut reserved) => return Ok(reserved.push(&bytes)),
            Err(crate::journal::Full::Poisoned | crate::journal::Full::Stopping) => {
                return Err(Poisoned::Stopped);
            }
            Err(crate::journal::Full::TooLarge { bytes }) => {
                tracing::error!(bytes, "an entry of the outbox is larger than a record may be");
                return Err(Poisoned::Stopped);
            }
            Err(crate::journal::Full::Busy | crate::journal::Full::DiskFull) => {
                thread::sleep(LOOK_EVERY);
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
