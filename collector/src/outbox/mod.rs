//! The outbox is a stage like the others: it follows the journal, turns crossings into messages
//! once their record is durable, freezes each body in a record of its own, and hands it to
//! delivery once that is durable too. What was queued and what became of it is rebuilt by replay.

pub mod entry;
pub mod message;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use engine::alert::{AlertId, AlertKind, Cause, told};
use engine::id::{LeadId, Position};
use engine::record::{Body, NameKind, Record};
use engine::time::Timestamp;
use tokio::sync::mpsc;

use self::entry::{Attempt, Entry, Queued, base64};
use self::message::Material;
use crate::app::App;
use crate::config::Endpoint;
use crate::journal::{Follower, Poisoned};
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

/// What replay leaves for the outbox.
#[derive(Default)]
pub struct Replayed {
    /// Crossings told whose messages are not queued yet, by alert.
    due: BTreeMap<AlertId, Due>,
    /// Alerts queued, with the endpoints they were queued for.
    queued: BTreeSet<(String, Option<String>)>,
    /// Endpoints that disabled themselves, and under which settings.
    pub disabled: BTreeMap<String, u32>,
}

/// A crossing whose message is to be made.
#[derive(Clone, Copy, Debug)]
struct Due {
    position: Position,
    index: u16,
}

/// What the admin side sees of the outbox.
#[derive(Default)]
pub struct Log {
    lines: Mutex<VecDeque<Attempt>>,
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

    /// When what caused an alert was received; asked once.
    pub fn take_received(&self, alert: &str) -> Option<Timestamp> {
        locked(&self.received).remove(alert)
    }
}

/// Who is told by a threshold that is gone. It also stands for the audience in the derivation of
/// alert ids: one crossing tells one audience, whichever the rule file names by then.
pub const AUDIENCE_DEFAULT: &str = "sales";

impl Replayed {
    /// Applies a record while the journal is replayed.
    pub fn evolve(
        &mut self,
        queue: &mut Queue,
        record: &Record,
        place: (Position, u32),
        unseal: &dyn Fn(LeadId, &[u8]) -> Option<Vec<u8>>,
        alert_id: &dyn Fn(&Cause<'_>) -> AlertId,
        log: &Log,
    ) {
        if let Some(part) = record.lead_part() {
            for (index, crossed) in told(&part.crossings) {
                let kind = AlertKind::of(crossed.crossing.direction);
                let (position, incarnation) = place;
                let id = alert_id(&Cause {
                    incarnation,
                    position,
                    index,
                    kind,
                    lead: part.lead,
                    audience: AUDIENCE_DEFAULT,
                });
                self.due.insert(id, Due { position, index });
            }
        }
        let Body::Outbox(bytes) = &record.body else {
            return;
        };
        match Entry::decode(bytes) {
            Some(Entry::Queued(queued)) => {
                self.due.retain(|id, _| id.as_str() != queued.alert);
                if let Some(message) = message_of(&queued, unseal) {
                    queue.step(Input::Enqueue(message), record.time);
                }
                self.queued.insert((queued.alert, queued.endpoint));
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

fn message_of(
    queued: &Queued,
    unseal: &dyn Fn(LeadId, &[u8]) -> Option<Vec<u8>>,
) -> Option<Message> {
    let lead = queued.lead_id()?;
    let body = unseal(lead, &queued.sealed_bytes()?)?;
    Some(Message {
        id: MessageId::parse(&queued.alert).ok()?,
        endpoint: EndpointId::parse(queued.endpoint.as_deref()?).ok()?,
        lead: LeadRef(u128::from(lead.0)),
        sequence: u64::from(queued.sequence),
        test: queued.test,
        replay: queued.replay,
        body: Bytes::from(body),
    })
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
        let overdue = std::mem::take(&mut self.replayed.due);
        for (id, due) in overdue {
            if let Ok(record) = timeline::read(&self.app, due.position) {
                self.queue(&id, &record, due);
            }
        }
        while !stop.load(Ordering::Acquire) {
            let next = follower.next_blocking(LOOK_EVERY);
            let next = next.map(|entry| {
                entry.map(|it| ((it.position, it.incarnation), Record::decode(it.bytes)))
            });
            match next {
                Ok(Some((place, Ok(record)))) => self.follow(&record, place),
                Ok(Some((_, Err(error)))) => {
                    tracing::error!(%error, "the outbox passes over a record");
                }
                Ok(None) if follower.is_ended() => return,
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%error, "the outbox cannot read the journal and stops");
                    return;
                }
            }
        }
    }

    fn follow(&mut self, record: &Record, (position, incarnation): (Position, u32)) {
        if let Some(part) = record.lead_part() {
            for (index, crossed) in told(&part.crossings) {
                let id = AlertId::derive(
                    &self.app.install.alert,
                    &Cause {
                        incarnation,
                        position,
                        index,
                        kind: AlertKind::of(crossed.crossing.direction),
                        lead: part.lead,
                        audience: AUDIENCE_DEFAULT,
                    },
                );
                self.queue(&id, record, Due { position, index });
            }
        }
        let Body::Outbox(bytes) = &record.body else {
            return;
        };
        if let Some(Entry::Queued(queued)) = Entry::decode(bytes) {
            let sealer = &self.app.sealer;
            let message = message_of(&queued, &|lead, sealed| sealer.unseal(lead, sealed));
            if let Some(message) = message {
                let received = Timestamp(queued.received);
                locked(&self.log.received).insert(queued.alert, received);
                // The driver ends only when the process does.
                let _ = self.commands.blocking_send(Command::Enqueue(message));
            }
        }
    }

    /// Freezes the message of a crossing for every endpoint that wants it.
    fn queue(&mut self, id: &AlertId, record: &Record, due: Due) {
        let Some(part) = record.lead_part() else {
            return;
        };
        let Some(crossed) = part.crossings.get(usize::from(due.index)) else {
            return;
        };
        let (Some(figures), Some(lead)) = (&crossed.told, self.app.engine.lead(part.lead)) else {
            return;
        };
        let now = self.app.clock.now();
        let in_force = self.app.scoring.load();
        let catalog = self.app.engine.catalog();
        let timeline = timeline::of_lead(&self.app, due.position, TIMELINE_MAX).unwrap_or_default();
        let site = timeline.values().rev().find_map(|record| match &record.body {
            Body::Hit(record) => Some(record.hit.site),
            _ => None,
        });
        let site = site.and_then(|site| catalog.name(NameKind::Site, site.0)).unwrap_or_default();
        let kind = AlertKind::of(crossed.crossing.direction);
        let line = in_force.scoring.threshold(crossed.crossing.threshold);
        let audience = line.and_then(|line| line.tell.as_deref()).unwrap_or(AUDIENCE_DEFAULT);
        let material = Material {
            alert: id.as_str(),
            kind,
            audience,
            site,
            cause: record,
            crossed,
            told: figures,
            lead_id: part.lead,
            lead: &lead,
            timeline: &timeline,
            scoring: &in_force.scoring,
            catalog: &catalog,
            admin_url: self.app.settings.admin.admin_url.as_deref(),
            committed: now,
            queued: now,
        };
        let number = u16::from(crossed.crossing.threshold.0);
        let threshold = catalog.name(NameKind::Threshold, number);
        let endpoints = self.endpoints.load();
        let wanting: Vec<&Endpoint> = endpoints
            .iter()
            .filter(|it| it.wants(audience, kind.name(), threshold, lead.test))
            .collect();
        let mut entries: Vec<(Option<String>, serde_json::Value)> = wanting
            .iter()
            .map(|endpoint| (Some(endpoint.id.clone()), material.body(&endpoint.hide)))
            .collect();
        if entries.is_empty() {
            entries.push((None, material.body(&BTreeSet::new())));
        }
        for (endpoint, body) in entries {
            if !self.replayed.queued.insert((id.as_str().to_owned(), endpoint.clone())) {
                continue;
            }
            let sealed = match self.app.sealer.seal(part.lead, body.to_string().as_bytes()) {
                Ok(sealed) => sealed,
                Err(error) => {
                    tracing::error!(%error, "a message cannot be sealed; it is made after a restart");
                    continue;
                }
            };
            let received = match &record.body {
                Body::Hit(record) => record.hit.received,
                _ => record.time,
            };
            let entry = Entry::Queued(Queued {
                alert: id.as_str().to_owned(),
                endpoint,
                lead: part.lead.to_string(),
                kind: kind.name().to_owned(),
                sequence: figures.sequence,
                cause: due.position.0,
                received: received.0,
                test: lead.test,
                replay: false,
                sealed: base64(&sealed),
            });
            if push(&self.app, &entry).is_err() {
                return;
            }
        }
    }
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
