//! What replay leaves for the outbox, and what an entry of the journal asks of delivery.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use engine::alert::{AlertId, Cause};
use engine::id::{LeadId, Position};
use engine::record::{Body, LeadPart, Message as Telling, Record};
use engine::time::Timestamp;

use super::digest;
use super::entry::{Digest, Entry, Frozen, Item, Line, Queued, from_base64};
use super::erased_names;
use super::gather::Meetings;
use super::log::Log;
use super::plan::Plan;
use crate::app::App;
use crate::journal::ReadError;
use crate::timeline;
use crate::webhook::queue::{Input, Message, Overtaking, Queue};
use crate::webhook::{EndpointId, LeadRef, MessageId};

/// Whom a digest is about: no lead has so large a number.
const NO_LEAD: LeadRef = LeadRef(u128::MAX);

/// Whom a message of the queue is about.
pub fn lead_ref(lead: LeadId) -> LeadRef {
    LeadRef(u128::from(lead.0))
}

/// Opens what was sealed for a lead, if its key is there.
pub type Unseal<'a> = dyn Fn(LeadId, &[u8]) -> Option<Vec<u8>> + 'a;

/// What replay leaves for the outbox.
#[derive(Default)]
pub struct Replayed {
    /// Messages decided on that are not queued yet, in the order they have to be: of one lead they
    /// are told in the order of their numbers.
    pub(super) due: BTreeMap<Due, AlertId>,
    /// What was sent today, and what is kept for digests.
    pub(super) plan: Plan,
    /// Who is to be met.
    pub(super) meetings: Meetings,
    /// Endpoints that disabled themselves, and under which settings.
    pub disabled: BTreeMap<String, u32>,
    /// Who was erased, and by which record.
    pub(super) erased: BTreeMap<LeadId, Position>,
    /// The digests that wait or are dead, by their ids.
    pub digests: BTreeMap<String, Digest>,
}

/// A message whose body is to be made: its record, and its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    /// The record.
    pub position: Position,
    /// The place.
    pub place: u16,
}

/// What delivery is to do.
pub(super) enum Order {
    /// Deliver a message.
    Enqueue(Message),
    /// Drop what waits and is not needed any more.
    Overtaken(Overtaking),
}

impl From<Order> for Input {
    fn from(order: Order) -> Input {
        match order {
            Order::Enqueue(message) => Input::Enqueue(message),
            Order::Overtaken(overtaking) => Input::Overtaken(overtaking),
        }
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
        self.meetings.take(record);
        if let Some(names) = erased_names(record) {
            self.forget(queue, (names, place.0, record.time), log);
        }
        if let Some(part) = record.lead_part() {
            for (id, message) in messages(part, place, alert_id) {
                self.due.insert(Due { position: place.0, place: message.place }, id);
            }
        }
        let Body::Outbox(bytes) = &record.body else {
            return;
        };
        match Entry::decode(bytes) {
            Some(Entry::Queued(queued)) => {
                self.was_queued(&queued);
                let erased = queued.lead_id().and_then(|lead| self.erased.get(&lead));
                let is_void = erased.is_some_and(|erased| queued.cause() < *erased);
                if !is_void {
                    for order in orders_of(&queued, unseal) {
                        queue.step(order.into(), record.time);
                    }
                    log.note_held(&queued, record.time);
                    self.plan.take(&queued, place.0);
                }
                log.book().add(&queued, place.0);
            }
            Some(Entry::Digest(digest)) => {
                if let Some(message) = message_of(&digest, unseal) {
                    queue.step(Input::Enqueue(message), record.time);
                }
                log.book().digest(&digest);
                self.plan.digest(&digest);
                self.digests.insert(digest.alert.clone(), digest);
            }
            Some(Entry::Attempt(mut attempt)) => {
                if attempt.is_done() {
                    self.digests.remove(&attempt.alert);
                }
                let lead = log.book().lead(&attempt.alert);
                attempt.open(|sealed| unseal(lead?, sealed));
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

    /// A message is due no more. It is looked for where it was decided on: while the outbox is far
    /// behind, as after a load, thousands are due.
    fn was_queued(&mut self, queued: &Queued) {
        let [first, last] = [0, u16::MAX].map(|place| Due { position: queued.cause(), place });
        let is_it = |id: &AlertId| id.as_str() == queued.alert;
        let due = self.due.range(first..=last).find(|(_, id)| is_it(id)).map(|(due, _)| *due);
        match due {
            Some(due) => drop(self.due.remove(&due)),
            None => self.due.retain(|_, id| !is_it(id)),
        }
    }

    /// The oldest record that what is still to be told has to be read from: of a message that is
    /// not frozen yet and can be, or of a line that a digest of an endpoint that there is will
    /// list.
    pub fn needs(
        &self,
        now: Timestamp,
        is_endpoint: &dyn Fn(&str) -> bool,
        can_be_told: &dyn Fn(Due) -> bool,
    ) -> Option<Position> {
        let due = self.due.keys().find(|due| can_be_told(**due)).map(|due| due.position);
        self.plan.needs(now, is_endpoint).chain(due).min()
    }

    /// Somebody was erased: what waits for anybody about them goes.
    fn forget(
        &mut self,
        queue: &mut Queue,
        (names, position, now): (&[LeadId], Position, Timestamp),
        log: &Log,
    ) {
        self.meetings.forget(names);
        self.plan.forget(names);
        log.forget(names);
        for name in names {
            self.erased.insert(*name, position);
            queue.step(Input::Forget(lead_ref(*name)), now);
        }
    }
}

/// Whether a message that is not frozen yet can still be. Of who was erased before that nothing
/// is told any more, and no entry will ever say so; the erasure itself must be there to stay.
pub fn can_be_told(app: &App, due: Due) -> bool {
    let record = match timeline::read(app, due.position) {
        Ok(record) => record,
        Err(ReadError::Removed { .. } | ReadError::Lost) => return false,
        Err(_) => return true,
    };
    let durable = app.journal.durable();
    record.lead_part().is_some_and(|part| {
        let erased = app.engine.erasure(part.lead);
        let is_void = erased.is_some_and(|(at, _)| due.position < at && at <= durable);
        !is_void && part.messages.iter().any(|message| message.place == due.place)
    })
}

/// What a frozen message asks of delivery, endpoint by endpoint.
pub(super) fn orders_of(queued: &Queued, unseal: &Unseal<'_>) -> Vec<Order> {
    let retracts = queued.retracts.as_deref().and_then(|id| MessageId::parse(id).ok());
    let topic: Option<Arc<str>> = queued.topic.as_deref().map(Into::into);
    let order = |frozen: &Frozen| {
        let lead = queued.lead_id()?;
        let id = MessageId::parse(&queued.alert).ok()?;
        let endpoint = EndpointId::parse(frozen.endpoint.as_deref()?).ok()?;
        let (topic, retracts) = (topic.clone(), retracts.clone());
        let about = lead_ref(lead);
        if frozen.ends {
            let overtaking = Overtaking { endpoint, lead: about, by: id, topic, retracts };
            return Some(Order::Overtaken(overtaking));
        }
        if frozen.listed.is_some() {
            return None;
        }
        let body = unseal(lead, &queued.sealed_bytes(frozen)?)?;
        Some(Order::Enqueue(Message {
            id,
            endpoint,
            lead: about,
            sequence: u64::from(queued.sequence),
            test: queued.test,
            replay: false,
            not_before: frozen.not_before.map(Timestamp),
            topic,
            event: queued.event,
            retracts,
            body: Bytes::from(body),
        }))
    };
    queued.bodies.iter().filter_map(order).collect()
}

/// The messages that an entry has delivery send, as far as they can still be read.
pub fn messages_of(entry: &Entry, unseal: &Unseal<'_>) -> Vec<Message> {
    match entry {
        Entry::Queued(queued) => {
            let message = |order| match order {
                Order::Enqueue(message) => Some(message),
                Order::Overtaken(_) => None,
            };
            orders_of(queued, unseal).into_iter().filter_map(message).collect()
        }
        Entry::Digest(digest) => message_of(digest, unseal).into_iter().collect(),
        Entry::Attempt(_) | Entry::Disabled { .. } => Vec::new(),
    }
}

/// The message that a digest is, of the lines that can still be read; nothing, if none can.
pub(super) fn message_of(entry: &Digest, unseal: &Unseal<'_>) -> Option<Message> {
    let line = |item: &Item| {
        let lead = LeadId::parse(&item.lead)?;
        Line::decode(&unseal(lead, &from_base64(&item.line)?)?)
    };
    let lines: Vec<Option<Line>> = entry.items.iter().map(line).collect();
    lines.iter().any(Option::is_some).then_some(())?;
    Some(Message {
        id: MessageId::parse(&entry.alert).ok()?,
        endpoint: EndpointId::parse(&entry.endpoint).ok()?,
        lead: NO_LEAD,
        sequence: 0,
        test: entry.test,
        replay: false,
        not_before: entry.not_before.map(Timestamp),
        topic: None,
        event: false,
        retracts: None,
        body: Bytes::from(digest::body(entry, &lines)),
    })
}
