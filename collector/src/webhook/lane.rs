//! A Lane is one endpoint's part of the queue: its messages by lead, and which of them is due.
//!
//! Only the first message of a lead may be in flight. Firsts that are not flying stand in `due`, so
//! that the next attempt is found without looking at those that wait.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use engine::time::Timestamp;

use super::breaker::Breaker;
use super::step::{Attempt, EndpointSettings, Message, Mode};
use super::{Delivery, LeadRef, MessageId};

/// A message that waits or flies.
pub(super) struct Entry {
    pub(super) message: Message,
    pub(super) arrival: u64,
    pub(super) state: Delivery,
    pub(super) due: Timestamp,
    pub(super) flying: bool,
}

/// A message that was given up.
pub(super) struct DeadLetter {
    pub(super) message: Message,
    pub(super) state: Delivery,
    pub(super) died: Timestamp,
}

/// One endpoint's part of the queue.
pub(super) struct Lane {
    pub(super) settings: EndpointSettings,
    pub(super) breaker: Breaker,
    pub(super) failing_since: Option<Timestamp>,
    // Lead -> its messages in order; only the first may fly.
    pub(super) leads: BTreeMap<LeadRef, VecDeque<Entry>>,
    // First messages that are not flying, by due time and then by arrival.
    pub(super) due: BTreeSet<(Timestamp, u64, LeadRef)>,
    // Waiting or flying message -> its lead.
    pub(super) pending: BTreeMap<MessageId, LeadRef>,
    pub(super) flying: usize,
    pub(super) dead: BTreeMap<MessageId, DeadLetter>,
}

impl Lane {
    pub(super) fn new(settings: EndpointSettings) -> Lane {
        Lane {
            settings,
            breaker: Breaker::default(),
            failing_since: None,
            leads: BTreeMap::new(),
            due: BTreeSet::new(),
            pending: BTreeMap::new(),
            flying: 0,
            dead: BTreeMap::new(),
        }
    }

    pub(super) fn note(&mut self, success: bool, now: Timestamp) {
        self.failing_since = if success { None } else { self.failing_since.or(Some(now)) };
    }

    /// Puts a lead's first message among the due ones, if it is not flying. Idempotent.
    pub(super) fn line_up(&mut self, lead: LeadRef) {
        let Some(entries) = self.leads.get(&lead) else {
            return;
        };
        match entries.front() {
            None => {
                self.leads.remove(&lead);
            }
            Some(entry) if entry.flying => {}
            Some(entry) => {
                self.due.insert((entry.due, entry.arrival, lead));
            }
        }
    }

    /// The attempt that is due, if the endpoint may be sent to now; it counts as flying at once.
    pub(super) fn next_attempt(&mut self, now: Timestamp) -> Option<Attempt> {
        if self.settings.mode != Mode::Live || self.flying >= self.flying_max() {
            return None;
        }
        if self.breaker.closed_until(now).is_some() {
            return None;
        }
        let (due, _, lead) = *self.due.first()?;
        if due > now {
            return None;
        }
        self.due.pop_first();
        let entry = self.leads.get_mut(&lead)?.front_mut()?;
        entry.flying = true;
        self.flying += 1;
        Some(Attempt {
            endpoint: self.settings.id.clone(),
            message: entry.message.id.clone(),
            attempt: entry.state.attempts() + 1,
            replay: entry.message.replay,
            body: entry.message.body.clone(),
        })
    }

    fn flying_max(&self) -> usize {
        if self.breaker.is_trying() { 1 } else { self.settings.in_flight_max }
    }

    /// When an attempt may be made that may not be made yet. With the cap reached, an answer comes
    /// first, so there is nothing to wake for.
    pub(super) fn wake(&self, now: Timestamp) -> Option<Timestamp> {
        if self.settings.mode != Mode::Live || self.flying >= self.flying_max() {
            return None;
        }
        let (due, ..) = *self.due.first()?;
        Some(self.breaker.closed_until(now).map_or(due, |until| due.max(until)))
    }

    pub(super) fn flying_entry(&self, message: &MessageId, attempt: u32) -> Option<&Entry> {
        let entry = self.leads.get(self.pending.get(message)?)?.front()?;
        let same = entry.message.id == *message && entry.state.attempts() + 1 == attempt;
        (same && entry.flying).then_some(entry)
    }

    /// Sets a message's state back to waiting; its attempt, if any, has landed.
    pub(super) fn wait(&mut self, lead: LeadRef, message: &MessageId, state: Delivery) {
        let Some(entries) = self.leads.get_mut(&lead) else {
            return;
        };
        let Some(entry) = entries.iter_mut().find(|entry| entry.message.id == *message) else {
            return;
        };
        self.due.remove(&(entry.due, entry.arrival, lead));
        if entry.flying {
            entry.flying = false;
            self.flying -= 1;
        }
        entry.state = state;
        if let Delivery::Waiting { until, .. } = state {
            entry.due = until;
        }
        self.line_up(lead);
    }

    /// Takes a message out; the caller lines up the lead's next.
    pub(super) fn take(&mut self, lead: LeadRef, message: &MessageId) -> Option<Entry> {
        let entries = self.leads.get_mut(&lead)?;
        let place = entries.iter().position(|entry| entry.message.id == *message)?;
        let entry = entries.remove(place)?;
        self.due.remove(&(entry.due, entry.arrival, lead));
        self.pending.remove(message);
        if entry.flying {
            self.flying -= 1;
        }
        Some(entry)
    }

    /// Takes out all messages of a kind, in the order they were queued.
    pub(super) fn take_where(&mut self, wanted: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let matching = self.leads.values().flatten().filter(|entry| wanted(entry));
        let mut chosen: Vec<(u64, LeadRef, MessageId)> = matching
            .map(|entry| (entry.arrival, entry.message.lead, entry.message.id.clone()))
            .collect();
        chosen.sort();
        let mut taken = Vec::with_capacity(chosen.len());
        for (_, lead, id) in chosen {
            taken.extend(self.take(lead, &id));
            self.line_up(lead);
        }
        taken
    }

    /// Dead letters since a time, each lead's in the order of its own count.
    pub(super) fn dead_since(&self, since: Timestamp) -> Vec<MessageId> {
        let mut letters: Vec<&DeadLetter> =
            self.dead.values().filter(|letter| letter.died >= since).collect();
        letters.sort_by_key(|letter| (letter.message.sequence, letter.died));
        letters.into_iter().map(|letter| letter.message.id.clone()).collect()
    }
}
