//! The outbox is a stage like the others: it follows the journal, gives bodies to the messages
//! that a record decided on once that is durable, freezes each body in a record of its own, and
//! hands it to delivery once that is durable too. What was queued and what became of it is
//! rebuilt by replay.

pub mod book;
pub mod chat;
mod digest;
pub mod entry;
mod gather;
pub mod held;
mod log;
pub mod look;
pub mod message;
mod plan;
mod replay;
mod route;
mod saved;
pub mod template;
mod when;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use engine::alert::{AlertId, Cause};
use engine::hit::Hit;
use engine::id::{LeadId, Position};
use engine::lead::Lead;
use engine::record::{Body, LeadPart, Message as Telling, NameKind, Record, Sent, Step};
use engine::time::Timestamp;
use engine::wire::About;
use serde_json::Value;
use tokio::sync::mpsc;

use self::entry::{Digest, Entry, Frozen, Line, Queued, base64};
use self::gather::{Gathered, Meetings};
use self::held::{Case, HeldBack};
pub use self::log::saved::SavedLog;
pub use self::log::{Held, Log};
use self::message::Material;
use self::plan::Plan;
pub use self::replay::{Due, Replayed, Unseal, can_be_told, lead_ref, messages, messages_of};
use self::replay::{Order, message_of, orders_of};
use self::route::{Room, Share, Subject};
pub use self::saved::SavedReplayed;
use self::when::Calendar;
use crate::app::{App, count};
use crate::config::Endpoint;
use crate::feedback::tap;
use crate::journal::{Follower, Poisoned, ReadError};
use crate::named::LeadView;
use crate::patience::Follows;
use crate::reader::Lists;
use crate::seal::SealError;
use crate::timeline;
use crate::webhook::MessageId;
use crate::webhook::driver::Command;
use crate::words;

/// Records of a lead looked at for "recent" and "history".
const TIMELINE_MAX: usize = 500;
/// How often it is looked whether the key of an erased person is gone: that takes a few syncs.
const CLOSING_LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long the outbox waits for a record before it looks whether it should stop.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The running stage.
pub struct Outbox {
    app: Arc<App>,
    endpoints: Arc<ArcSwap<Vec<Endpoint>>>,
    commands: mpsc::Sender<Command>,
    log: Arc<Log>,
    lists: Arc<Lists>,
    due: BTreeMap<Due, AlertId>,
    plan: Plan,
    meetings: Meetings,
    gathered: Gathered,
    /// The digests that wait or are dead, by their ids, sealed: whom they name may be erased.
    digests: BTreeMap<String, Digest>,
}

impl Outbox {
    /// Ready to follow what comes after replay.
    pub fn new(
        app: Arc<App>,
        endpoints: Arc<ArcSwap<Vec<Endpoint>>>,
        commands: mpsc::Sender<Command>,
        (log, lists): (Arc<Log>, Arc<Lists>),
        replayed: Replayed,
    ) -> Outbox {
        let Replayed { due, plan, meetings, digests, .. } = replayed;
        let gathered = Gathered::default();
        Outbox { app, endpoints, commands, log, lists, due, plan, meetings, gathered, digests }
    }

    /// Follows the journal until it ends or `stop` is set.
    pub fn run(mut self, mut follower: Follower, stop: &AtomicBool) {
        let app = Arc::clone(&self.app);
        let over = || stop.load(Ordering::Acquire) || app.journal.has_ended();
        self.rewrite(|lead| app.engine.erasure(lead).is_some());
        let overdue = std::mem::take(&mut self.due);
        for (due, id) in overdue {
            let read = || match timeline::read(&app, due.position) {
                Err(error @ ReadError::Disk(_)) => Err(error),
                // Others are told all the same.
                found => Ok(found),
            };
            match app.stalled.read(Follows::Outbox, over, read) {
                Some(Ok(record)) => self.queue(&id, &record, due, &over),
                // It went since nobody is to be told: whom it is about was erased.
                Some(Err(ReadError::Removed { .. })) => {}
                Some(Err(error)) => tracing::error!(%error, "a message waits for the next start"),
                None => return,
            }
        }
        while !stop.load(Ordering::Acquire) {
            self.gather();
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
                Some((place, Some(Ok(mut record)))) => {
                    if let Body::Step(step) = &mut record.body {
                        // Why a message is taken back stands in it.
                        words::unseal(step, |lead, sealed| app.sealer.unseal(lead, sealed));
                    }
                    self.follow(&record, place, &over);
                }
                Some((_, Some(Err(error)))) => {
                    tracing::error!(%error, "the outbox passes over a record");
                }
                None if follower.is_ended() => return,
                None | Some((_, None)) => {}
            }
        }
    }

    fn follow(&mut self, record: &Record, place: (Position, u32), over: &dyn Fn() -> bool) {
        self.meetings.take(record);
        if let Some(names) = erased_names(record) {
            self.forget(names);
        }
        if let Some(part) = record.lead_part() {
            let key = self.app.install.alert;
            let alert_id = |cause: &Cause<'_>| AlertId::derive(&key, cause);
            for (id, message) in messages(part, place, &alert_id) {
                let due = Due { position: place.0, place: message.place };
                self.queue(&id, record, due, over);
            }
        }
        let Body::Outbox(bytes) = &record.body else {
            return;
        };
        let sealer = &self.app.sealer;
        let unseal = |lead, sealed: &[u8]| sealer.unseal(lead, sealed);
        let orders = match Entry::decode(bytes) {
            // What was frozen of somebody who was erased meanwhile is not sent.
            Some(Entry::Queued(queued)) if self.is_void(queued.lead_id(), queued.cause()) => {
                Vec::new()
            }
            Some(Entry::Queued(queued)) => {
                self.log.note_received(&queued.alert, Timestamp(queued.received));
                orders_of(&queued, &unseal)
            }
            Some(Entry::Digest(digest)) => {
                let order = message_of(&digest, &unseal).map(Order::Enqueue);
                self.digests.insert(digest.alert.clone(), digest);
                order.into_iter().collect()
            }
            Some(Entry::Attempt(attempt)) => {
                if attempt.is_done() {
                    self.digests.remove(&attempt.alert);
                }
                Vec::new()
            }
            Some(Entry::Disabled { .. }) | None => Vec::new(),
        };
        for order in orders {
            // The driver ends only when the process does.
            let _ = self.commands.blocking_send(match order {
                Order::Enqueue(message) => Command::Enqueue(message),
                Order::Overtaken(overtaking) => Command::Overtaken(overtaking),
            });
        }
    }

    /// Freezes a message for everybody who wants it, all in one record: none is forgotten by a
    /// crash. What still waits when all is `over` is due again at the next start.
    fn queue(&mut self, id: &AlertId, record: &Record, due: Due, over: &dyn Fn() -> bool) {
        if self.log.cause(id.as_str()).is_some() {
            return;
        }
        let Some(part) = record.lead_part() else {
            return;
        };
        // Of who is erased nothing is told but that; and it is told of nobody who came since.
        if self.is_void(Some(part.lead), due.position) {
            return;
        }
        let of_place = |message: &&Telling| message.place == due.place;
        let lead = match erased_names(record) {
            Some(_) => Some(Lead::nobody(self.is_test(part.lead))),
            None => self.app.engine.lead(part.lead),
        };
        let (Some(message), Some(lead)) = (part.messages.iter().find(of_place), lead) else {
            return;
        };
        // Their old key goes first.
        while self.app.sealer.is_closing(part.lead) {
            if over() {
                return;
            }
            thread::sleep(CLOSING_LOOK_EVERY);
        }
        let frozen = loop {
            match self.freeze(id, record, due, (part, message), &lead) {
                Err(SealError::DiskFull) if over() => return,
                // As `push` does: space returns, or the journal ends.
                Err(SealError::DiskFull) if !self.app.journal.is_refusing_for_good() => {
                    thread::sleep(LOOK_EVERY);
                }
                frozen => break frozen,
            }
        };
        let queued = match frozen {
            Ok(queued) => queued,
            Err(error) => {
                tracing::error!(%error, "a message cannot be sealed; it is made after a restart");
                return;
            }
        };
        let entry = Entry::Queued(queued);
        if let (Ok(position), Entry::Queued(queued)) = (push(&self.app, &entry), entry) {
            let all = |wanted: &dyn Fn(&Frozen) -> bool| {
                queued.bodies.iter().filter(|it| wanted(it)).count() as u64
            };
            let metrics = &self.app.metrics;
            let held = all(&|frozen| frozen.not_before.is_some());
            metrics.alerts_held.fetch_add(held, Ordering::Relaxed);
            let listed = all(&|frozen| frozen.listed.is_some());
            metrics.alerts_listed.fetch_add(listed, Ordering::Relaxed);
            self.log.note_held(&queued, self.app.clock.now());
            self.log.book().add(&queued, position);
            self.plan.take(&queued, position);
        }
    }

    /// Whether a record about a lead is from before they were erased.
    fn is_void(&self, lead: Option<LeadId>, cause: Position) -> bool {
        lead.is_some_and(|lead| self.app.engine.is_erased_since(lead, cause))
    }

    fn is_test(&self, lead: LeadId) -> bool {
        self.app.engine.entry(lead).is_some_and(|entry| entry.test)
    }

    /// Somebody was erased: what waits for anybody about them goes.
    fn forget(&mut self, names: &[LeadId]) {
        self.plan.forget(names);
        self.meetings.forget(names);
        self.log.forget(names);
        for name in names {
            // The driver ends only when the process does.
            let _ = self.commands.blocking_send(Command::Forget(lead_ref(*name)));
        }
        self.rewrite(|lead| names.contains(&lead));
    }

    /// Makes the digests anew that name some, without the lines of those who were erased.
    fn rewrite(&self, is_one: impl Fn(LeadId) -> bool) {
        let app = &self.app;
        let unseal = |lead: LeadId, sealed: &[u8]| {
            let is_theirs = app.engine.erasure(lead).is_some();
            if is_theirs { None } else { app.sealer.unseal(lead, sealed) }
        };
        for digest in self.digests.values() {
            let mut leads = digest.items.iter().filter_map(|item| LeadId::parse(&item.lead));
            if leads.any(&is_one)
                && let Ok(id) = MessageId::parse(&digest.alert)
            {
                let body = message_of(digest, &unseal).map(|message| message.body);
                let _ = self.commands.blocking_send(Command::Rewrite { id, body });
            }
        }
    }

    /// The entry of a message: its whole body, and what each endpoint gets, when.
    fn freeze(
        &self,
        id: &AlertId,
        record: &Record,
        due: Due,
        (part, message): (&LeadPart, &Telling),
        lead: &Lead,
    ) -> Result<Queued, SealError> {
        let app = &self.app;
        let now = app.clock.now();
        let in_force = app.scoring.load();
        let catalog = app.engine.catalog();
        let timeline = timeline::of_lead(app, lead, due.position, TIMELINE_MAX);
        // Sales is told all the same: the figures stand in the record.
        let timeline = timeline.unwrap_or_else(|error| {
            tracing::error!(%error, "a message goes without what its lead did lately");
            timeline::Walked::default()
        });
        let timeline::Walked { records: timeline, begins_later } = timeline;
        let site = timeline.values().rev().find_map(|record| match &record.body {
            Body::Hit(record) => Some(record.hit.site),
            _ => None,
        });
        let profile = lead.profile();
        let first = self.first_hit(lead, &timeline);
        let owners = app.owners.load();
        let material = Material {
            alert: id.as_str(),
            message,
            crossing: message.crossing.and_then(|it| part.crossings.get(usize::from(it))),
            retracts: message.takes_back.as_ref().and_then(|sent| sent_id(app, &self.log, sent)),
            site: site.and_then(|it| catalog.name(NameKind::Site, it.0)).unwrap_or_default(),
            cause: record,
            lead_id: part.lead,
            lead,
            attributes: &profile.attributes,
            confirmed_by: &profile.confirmed_by,
            timeline: &timeline,
            first: first.as_ref(),
            // Of who did more than is looked at, the beginning is asked for by itself.
            begins_later: begins_later || (first.is_none() && timeline.len() >= TIMELINE_MAX),
            scoring: &in_force.scoring,
            catalog: &catalog,
            taps: tap::links(app, id.as_str(), message),
            owners: &owners,
            admin_url: app.settings.admin.admin_url.as_deref(),
            crm_link: app.settings.admin.crm_link.as_ref(),
            committed: now,
            queued: now,
        };
        let subject = Subject::of(&material);
        let whole = material.body(&BTreeSet::new()).to_string();
        let (bodies, held) = self.shares(&material, &subject, &whole, due.position)?;
        Ok(Queued {
            alert: id.as_str().to_owned(),
            lead: part.lead.to_string(),
            kind: message.kind.name().to_owned(),
            sequence: message.told.sequence,
            cause: due.position.0,
            received: record.received().0,
            test: lead.test,
            topic: subject.topic,
            event: subject.event,
            retracts: subject.retracts,
            whole: base64(&app.sealer.seal(part.lead, whole.as_bytes())?),
            bodies,
            held,
        })
    }

    /// What each endpoint gets of a message, and what a fact held back from whom.
    fn shares(
        &self,
        material: &Material<'_>,
        subject: &Subject,
        whole: &str,
        position: Position,
    ) -> Result<(Vec<Frozen>, Option<HeldBack>), SealError> {
        let case = Case { material, position };
        let hold = case.hold(&self.app.do_not_send.load(), &self.log.book());
        let (mut bodies, mut endpoints) = (Vec::new(), Vec::new());
        for endpoint in self.endpoints.load().iter() {
            let share = self.share(endpoint, material, subject, whole)?;
            let is_kept = |frozen: &Frozen| {
                !frozen.ends && hold.as_ref().is_some_and(|hold| hold.is_from(endpoint))
            };
            match share {
                Some(frozen) if is_kept(&frozen) => endpoints.push(endpoint.id.clone()),
                share => bodies.extend(share),
            }
        }
        let held = hold.filter(|hold| hold.is_from_all() || !endpoints.is_empty()).map(|hold| {
            self.app.metrics.hold_back(hold.by);
            HeldBack { by: hold.by.to_owned(), everybody: hold.is_from_all(), endpoints }
        });
        Ok((bodies, held))
    }

    /// What an endpoint gets of a message, and when; nothing, if it gets nothing.
    fn share(
        &self,
        endpoint: &Endpoint,
        material: &Material<'_>,
        subject: &Subject,
        whole: &str,
    ) -> Result<Option<Frozen>, SealError> {
        let app = &self.app;
        let is_on = |list: &str| is_on_list(app, list, material);
        let mut frozen = Frozen { endpoint: Some(endpoint.id.clone()), ..Frozen::default() };
        match route::share(endpoint, subject, &self.log.book(), is_on) {
            Share::Sent => {}
            Share::Ends => {
                frozen.ends = true;
                return Ok(Some(frozen));
            }
            Share::None => return Ok(None),
        }
        let seal = |text: &[u8]| Ok(base64(&app.sealer.seal(material.lead_id, text)?));
        if let Some(chat) = &endpoint.chat {
            let calendar = calendar(app);
            let room = Room { endpoint: &endpoint.id, chat, calendar: &calendar, plan: &self.plan };
            let owners = app.owners.load();
            let owner = subject.owner.as_deref();
            let hashed = owner.map_or_else(String::new, |owner| hashed(app, owner));
            let owner = owner.and_then(|owner| owners.find(owner));
            route::place(&room, (owner, hashed), material.queued, &mut frozen);
        }
        let body = material.body(&endpoint.hide);
        if frozen.listed.is_some() || frozen.not_before.is_some() {
            let lang = endpoint.look.lang.name();
            let headline = body["data"]["headline"][lang].as_str().unwrap_or_default();
            let url = body["data"]["links"]["timeline"].as_str();
            frozen.line = seal(&Line::new(headline, url).encode())?;
        }
        if frozen.listed.is_none() {
            let sent = self.rendered(endpoint, material, &body);
            if sent != whole.as_bytes() {
                frozen.sealed = seal(&sent)?;
            }
        }
        Ok(Some(frozen))
    }

    /// A message as one endpoint is sent it.
    fn rendered(&self, endpoint: &Endpoint, material: &Material<'_>, body: &Value) -> Vec<u8> {
        let rendered = material.rendered(body, &endpoint.look, &endpoint.hide);
        if let Some(error) = rendered.failed {
            count(&self.app.metrics.templates_failed);
            let endpoint = &endpoint.id;
            tracing::error!(%endpoint, %error, "a template fails; the one that ships is used");
        }
        rendered.bytes
    }

    /// The first hit of a lead who did so much that the timeline begins later.
    fn first_hit(&self, lead: &Lead, timeline: &timeline::Timeline) -> Option<Hit> {
        if timeline.len() < TIMELINE_MAX {
            return None;
        }
        let ties = lead.content.ties.iter().filter(|tie| tie.hits > 0);
        let tie = ties.min_by_key(|tie| (tie.first_seen, tie.first_position))?;
        // Without it the oldest hit that is known stands for it.
        match timeline::read(&self.app, tie.first_position).ok()?.body {
            Body::Hit(record) => Some(record.first.map_or(record.hit, |first| first.hit)),
            _ => None,
        }
    }
}

/// The names that a record erases, if it erases a lead.
fn erased_names(record: &Record) -> Option<&[LeadId]> {
    match &record.body {
        Body::Step(step) if step.lead.is_some() => match &step.step {
            Step::Erase { names } => Some(names),
            _ => None,
        },
        _ => None,
    }
}

/// Whether a lead is on a named list as the message is made.
fn is_on_list(app: &App, list: &str, material: &Material<'_>) -> bool {
    let view = LeadView::of(material.lead, material.scoring, material.queued);
    app.named.load().matches(list, &view)
}

/// The days and hours of whoever is told.
fn calendar(app: &App) -> Calendar {
    let in_force = app.scoring.load();
    let scoring = &in_force.scoring;
    Calendar { offset: scoring.terms().offset, hours: scoring.sales.hours.clone() }
}

/// An owner in the journal: who they are, only their own address says.
fn hashed(app: &App, owner: &str) -> String {
    let owner = owner.trim().to_lowercase();
    format!("{:016x}", app.install.alert.hash64(&[b"owner v1", owner.as_bytes()]))
}

/// The id of a message that was sent. Its record may be too old to be kept: then the book says
/// under which incarnation it was.
pub fn sent_id(app: &App, log: &Log, sent: &Sent) -> Option<AlertId> {
    let id = |incarnation| {
        let cause = Cause {
            incarnation,
            position: sent.position,
            place: sent.place,
            kind: sent.kind,
            lead: sent.lead,
            audience: sent.audience.as_deref().unwrap_or_default(),
        };
        AlertId::derive(&app.install.alert, &cause)
    };
    match app.journal.incarnation_of(sent.position) {
        Ok(incarnation) => Some(id(incarnation)),
        Err(ReadError::Removed { .. }) => {
            let is_known = |id: &AlertId| log.cause(id.as_str()) == Some(sent.position);
            (1..=app.journal.incarnation()).map(id).find(is_known)
        }
        Err(_) => None,
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
