//! A Lane is one endpoint's part of the queue: its messages by lead, and which of them is due.
//!
//! Only the first message of a lead may be in flight. Firsts that are not flying stand in `due`, so
//! that the next attempt is found without looking at those that wait.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use engine::time::Timestamp;

use super::breaker::Breaker;
use super::step::{Attempt, EndpointSettings, Message, Mode, Overtaking};
use super::{Delivery, LeadRef, MessageId, Outcome};

/// A message that waits or flies.
pub(super) struct Entry {
    pub(super) message: Message,
    pub(super) arrival: u64,
    pub(super) state: Delivery,
    pub(super) due: Timestamp,
    pub(super) flying: bool,
    /// It was due before this process was: an attempt may have been made that nobody wrote down.
    pub(super) doubtful: bool,
}

impl Entry {
    fn id(&self) -> &MessageId {
        &self.message.id
    }

    /// Whether people rest and it waits for them.
    fn is_held(&self, now: Timestamp) -> bool {
        self.message.not_before.is_some_and(|until| now < until)
    }

    /// Whether it may be dropped for a newer message: it was never sent, and either rests or is
    /// with an endpoint that wants the newest only. What somebody asked for again stays.
    fn is_droppable(&self, now: Timestamp, supersede: bool) -> bool {
        let unsent = self.state == Delivery::Pending && !self.flying && !self.message.replay;
        unsent && (supersede || self.is_held(now))
    }

    /// The same for one that takes it back: then it must be certain that it was never sent.
    fn is_retractable(&self, now: Timestamp, supersede: bool) -> bool {
        self.is_droppable(now, supersede) && (!self.doubtful || self.is_held(now))
    }
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
    // Bytes of the bodies here, waiting and dead.
    pub(super) bytes: usize,
    // While loading: what was overtaken, and how many messages had come before. Applied at the
    // end, when it is known which of them were sent.
    pub(super) overtaken: Vec<(Overtaking, u64)>,
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
            bytes: 0,
            overtaken: Vec::new(),
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
        let next = if self.breaker.is_trying() { self.most_tried(now) } else { self.oldest(now) };
        let (due, arrival, lead) = next?;
        self.due.remove(&(due, arrival, lead));
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

    fn oldest(&self, now: Timestamp) -> Option<(Timestamp, u64, LeadRef)> {
        self.due.first().copied().filter(|(due, ..)| *due <= now)
    }

    /// While one attempt at a time tries whether the endpoint is up again, it is for the message
    /// that has had the most. A receiver that takes a message only after some attempts would else
    /// be shown each waiting message once, and be taken for down, before one of them arrives.
    fn most_tried(&self, now: Timestamp) -> Option<(Timestamp, u64, LeadRef)> {
        let attempts = |lead| {
            let first = self.leads.get(&lead).and_then(VecDeque::front);
            first.map_or(0, |entry| entry.state.attempts())
        };
        let due = self.due.iter().take_while(|(due, ..)| *due <= now);
        due.copied().min_by_key(|(.., lead)| Reverse(attempts(*lead)))
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

    /// Shortens waits that a wrong clock made: no attempt is further away than `latest`, and none
    /// of a message that was never sent.
    pub(super) fn wait_at_most_until(&mut self, latest: Timestamp, now: Timestamp) {
        let mut leads = Vec::new();
        for (lead, entries) in &mut self.leads {
            for entry in entries.iter_mut() {
                let latest = match entry.state {
                    Delivery::Pending => now.max(entry.message.not_before.unwrap_or(now)),
                    _ => latest,
                };
                if entry.due > latest {
                    self.due.remove(&(entry.due, entry.arrival, *lead));
                    entry.due = latest;
                    leads.push(*lead);
                }
            }
        }
        for lead in leads {
            self.line_up(lead);
        }
    }

    /// Shortens every wait for people beyond a moment.
    pub(super) fn hold_at_most_until(&mut self, latest: Timestamp) {
        let mut leads = Vec::new();
        for (lead, entries) in &mut self.leads {
            for entry in entries.iter_mut().filter(|it| it.message.not_before > Some(latest)) {
                self.due.remove(&(entry.due, entry.arrival, *lead));
                entry.message.not_before = Some(latest);
                entry.due = entry.due.min(latest);
                leads.push(*lead);
            }
        }
        for lead in leads {
            self.line_up(lead);
        }
    }

    /// What a lead's newer messages here make needless, each with its outcome.
    pub(super) fn needless(&self, lead: LeadRef, now: Timestamp) -> Vec<(MessageId, Outcome)> {
        let Some(entries) = self.leads.get(&lead) else {
            return Vec::new();
        };
        let mut needless = Vec::new();
        for (place, entry) in entries.iter().enumerate() {
            let newer = || entries.range(place + 1..);
            let taking_back = newer().find(|it| it.message.retracts.as_ref() == Some(entry.id()));
            let mut same = newer().filter(|it| it.message.is_newer_state_of(&entry.message));
            match (taking_back, same.next_back()) {
                (Some(by), _) if entry.is_retractable(now, self.settings.supersede) => {
                    let outcome = Outcome::Retracted { by: by.id().clone() };
                    needless.push((entry.id().clone(), outcome.clone()));
                    // Nobody was told, so there is nothing to take back.
                    if by.state == Delivery::Pending && !by.flying {
                        needless.push((by.id().clone(), outcome));
                    }
                }
                (None, Some(by)) if entry.is_droppable(now, self.settings.supersede) => {
                    let outcome = Outcome::Superseded { by: by.id().clone() };
                    needless.push((entry.id().clone(), outcome));
                }
                _ => {}
            }
        }
        needless
    }

    /// What a message that is not sent here makes needless, of those that came `before` it.
    pub(super) fn overtaken_by(
        &self,
        overtaking: &Overtaking,
        before: u64,
        now: Timestamp,
    ) -> Vec<(MessageId, Outcome)> {
        let entries = self.leads.get(&overtaking.lead).into_iter().flatten();
        let older = entries.filter(|entry| entry.arrival < before);
        let by = &overtaking.by;
        older
            .filter_map(|entry| {
                let supersede = self.settings.supersede;
                let topic = &entry.message.topic;
                let outcome = if overtaking.retracts.as_ref() == Some(entry.id()) {
                    entry
                        .is_retractable(now, supersede)
                        .then(|| Outcome::Retracted { by: by.clone() })
                } else if topic.is_some() && *topic == overtaking.topic && !entry.message.event {
                    entry
                        .is_droppable(now, supersede)
                        .then(|| Outcome::Superseded { by: by.clone() })
                } else {
                    None
                };
                Some((entry.id().clone(), outcome?))
            })
            .collect()
    }

    /// Dead letters since a time, each lead's in the order of its own count.
    pub(super) fn dead_since(&self, since: Timestamp) -> Vec<MessageId> {
        let mut letters: Vec<&DeadLetter> =
            self.dead.values().filter(|letter| letter.died >= since).collect();
        letters.sort_by_key(|letter| (letter.message.sequence, letter.died));
        letters.into_iter().map(|letter| letter.message.id.clone()).collect()
    }
}
