//! The Queue decides which attempt is made next, over all endpoints, as `step(input, now)`.
//!
//! Messages of one lead reach one endpoint in the order they were queued: a later one waits until
//! the earlier is delivered or dead. Leads are independent of each other, and so are endpoints:
//! each has its own cap of attempts in flight, its own breaker and its own limit of messages, so a
//! hanging receiver holds up nobody else.
//!
//! It is pure: time and jitter are arguments, effects are values for the driver. It starts by
//! loading (messages and records from the journal, no effects); what was queued and is neither
//! delivered nor dead is sent again under its id. A full queue refuses by name and evicts nothing;
//! a refused message is still in the journal, so the next start takes it up.

use std::collections::BTreeMap;

use engine::time::Timestamp;

use super::breaker::Breaker;
use super::lane::{DeadLetter, Entry, Lane};
pub use super::step::{
    Answered, Attempt, Counters, DisableReason, Effect, EndpointSettings, FAILING_MAX, Figures,
    IN_FLIGHT_MAX, Input, Limits, Message, Mode, Outstanding, Refusal, Resend,
};
use super::{
    Answer, AttemptRecord, Delivery, EndpointId, LeadRef, MessageId, Outcome, RETRY_AFTER_MAX,
};

/// All deliveries that are not finished. See the module's comment.
pub struct Queue {
    limits: Limits,
    lanes: BTreeMap<EndpointId, Lane>,
    loading: bool,
    arrivals: u64,
    bodies_bytes: usize,
    counters: Counters,
}

impl Queue {
    /// An empty queue that is loading; `Input::Loaded` starts it.
    pub fn new(limits: Limits) -> Queue {
        Queue {
            limits,
            lanes: BTreeMap::new(),
            loading: true,
            arrivals: 0,
            bodies_bytes: 0,
            counters: Counters::default(),
        }
    }

    /// Takes one input at `now` and says what to do. While loading, only refusals come back.
    pub fn step(&mut self, input: Input, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Enqueue(message) => self.enqueue(message, now, &mut effects),
            Input::Replayed(record) => self.replayed(record, now),
            Input::Loaded => self.loaded(now, &mut effects),
            Input::Answered(answered) => self.answered(answered, now, &mut effects),
            Input::Tick => {}
            Input::Resend { endpoint, which } => self.resend(&endpoint, &which, now, &mut effects),
            Input::EndpointChanged(settings) => self.change(settings, now, &mut effects),
            Input::EndpointRemoved(id) => self.remove(&id, now, &mut effects),
            Input::Forget(lead) => self.forget(lead),
        }
        if !self.loading {
            self.dispatch(now, &mut effects);
        }
        effects
    }

    /// Counters and levels.
    pub fn figures(&self) -> Figures {
        Figures {
            counters: self.counters,
            pending: self.lanes.values().map(|lane| lane.pending.len()).sum(),
            in_flight: self.lanes.values().map(|lane| lane.flying).sum(),
            dead: self.lanes.values().map(|lane| lane.dead.len()).sum(),
            bodies_bytes: self.bodies_bytes,
        }
    }

    /// Everything that is not finished: waiting messages in the order they were queued, then dead
    /// letters by id. Queued and replayed again in this order, they give the same queue.
    pub fn outstanding(&self) -> Vec<Outstanding> {
        let mut entries: Vec<&Entry> =
            self.lanes.values().flat_map(|lane| lane.leads.values().flatten()).collect();
        entries.sort_by_key(|entry| entry.arrival);
        let waiting = entries.into_iter().map(|entry| Outstanding {
            message: entry.message.clone(),
            state: entry.state,
            died: None,
        });
        let dead = self.lanes.values().flat_map(|lane| lane.dead.values());
        let dead = dead.map(|letter| Outstanding {
            message: letter.message.clone(),
            state: letter.state,
            died: Some(letter.died),
        });
        waiting.chain(dead).collect()
    }

    fn enqueue(&mut self, message: Message, now: Timestamp, effects: &mut Vec<Effect>) {
        if let Err(why) = self.admit(&message) {
            self.refuse(message.endpoint, Some(message.id), why, effects);
            return;
        }
        self.counters.enqueued += 1;
        let disabled = self
            .lanes
            .get(&message.endpoint)
            .is_some_and(|lane| lane.settings.mode == Mode::Disabled);
        if disabled && !self.loading {
            self.bodies_bytes += message.body.len();
            self.bury(message, Delivery::Disabled { attempts: 0 }, now, effects, true);
            return;
        }
        self.insert(message, now);
    }

    /// Whether a message may be taken. Limits do not hold while loading: what was taken once must
    /// not be refused by its own journal.
    fn admit(&self, message: &Message) -> Result<(), Refusal> {
        let lane = self.lanes.get(&message.endpoint).ok_or(Refusal::UnknownEndpoint)?;
        if lane.settings.test != message.test {
            return Err(Refusal::TestMismatch);
        }
        if lane.pending.contains_key(&message.id) || lane.dead.contains_key(&message.id) {
            return Err(Refusal::Duplicate);
        }
        if self.loading {
            return Ok(());
        }
        if message.body.len() > self.limits.body_bytes_max {
            return Err(Refusal::BodyTooLarge);
        }
        if lane.pending.len() >= self.limits.pending_max {
            return Err(Refusal::Full);
        }
        if self.bodies_bytes + message.body.len() > self.limits.bodies_bytes_max {
            return Err(Refusal::BodiesFull);
        }
        Ok(())
    }

    fn insert(&mut self, message: Message, now: Timestamp) {
        let Some(lane) = self.lanes.get_mut(&message.endpoint) else {
            return;
        };
        let first = lane.settings.schedule.first().copied().unwrap_or_default();
        let arrival = self.arrivals;
        self.arrivals += 1;
        self.bodies_bytes += message.body.len();
        let lead = message.lead;
        lane.pending.insert(message.id.clone(), lead);
        let due = now.plus(first);
        let entry = Entry { message, arrival, state: Delivery::Pending, due, flying: false };
        lane.leads.entry(lead).or_default().push_back(entry);
        lane.line_up(lead);
    }

    fn answered(&mut self, answered: Answered, now: Timestamp, effects: &mut Vec<Effect>) {
        let Answered { endpoint, message, attempt, answer, took, jitter } = answered;
        let Some(lane) = self.lanes.get_mut(&endpoint) else {
            self.counters.unmatched += 1;
            return;
        };
        let Some(entry) = lane.flying_entry(&message, attempt) else {
            self.counters.unmatched += 1;
            return;
        };
        let mut state = entry.state.after(&answer, &lane.settings.schedule, now, jitter);
        if lane.settings.mode == Mode::Disabled && !state.is_final() {
            state = Delivery::Disabled { attempts: attempt };
        }
        let success = answer.as_ref().is_ok_and(Answer::is_success);
        lane.breaker.record(success, now);
        lane.note(success, now);
        if !success {
            self.counters.failed += 1;
        }
        let gone = answer.as_ref().is_ok_and(|answer| answer.status == 410);
        let failing = lane.failing_since.filter(|since| {
            matches!(state, Delivery::Exhausted { .. }) && now.since(*since) >= FAILING_MAX
        });
        let outcome = Outcome::of(&answer, took);
        let record = AttemptRecord { endpoint, message, attempt, at: now, outcome, state };
        effects.push(Effect::Journal(record.clone()));
        if let Some(letter) = self.settle(&record) {
            self.keep_dead(letter, state, now, effects);
        }
        let why = match (gone, failing) {
            (true, _) => DisableReason::Gone,
            (false, Some(since)) => DisableReason::Failing { since },
            (false, None) => return,
        };
        self.disable(&record.endpoint, why, now, effects);
    }

    /// Applies a record's state to its waiting message, live and at replay alike, and hands the
    /// message back if it died.
    fn settle(&mut self, record: &AttemptRecord) -> Option<Message> {
        let lane = self.lanes.get_mut(&record.endpoint)?;
        let lead = *lane.pending.get(&record.message)?;
        if let Delivery::Pending | Delivery::Waiting { .. } = record.state {
            lane.wait(lead, &record.message, record.state);
            return None;
        }
        let entry = lane.take(lead, &record.message)?;
        lane.line_up(lead);
        if let Delivery::Delivered { .. } = record.state {
            self.bodies_bytes -= entry.message.body.len();
            if record.attempt > 0 {
                self.counters.delivered += 1;
            } else {
                self.counters.shadowed += 1;
            }
            return None;
        }
        Some(entry.message)
    }

    /// Journals the end of a message that was never answered, and keeps it as a dead letter.
    fn bury(
        &mut self,
        message: Message,
        state: Delivery,
        now: Timestamp,
        effects: &mut Vec<Effect>,
        keep: bool,
    ) {
        effects.push(Effect::Journal(AttemptRecord {
            endpoint: message.endpoint.clone(),
            message: message.id.clone(),
            attempt: state.attempts(),
            at: now,
            outcome: Outcome::EndpointGone,
            state,
        }));
        if keep {
            self.keep_dead(message, state, now, effects);
            return;
        }
        self.counters.dead += 1;
        self.bodies_bytes -= message.body.len();
        effects.push(Effect::Dead { endpoint: message.endpoint, message: message.id, kept: false });
    }

    fn keep_dead(
        &mut self,
        message: Message,
        state: Delivery,
        died: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        self.counters.dead += 1;
        let (endpoint, id) = (message.endpoint.clone(), message.id.clone());
        let room =
            self.lanes.get_mut(&endpoint).filter(|lane| lane.dead.len() < self.limits.dead_max);
        let kept = room.is_some();
        if let Some(lane) = room {
            lane.dead.insert(id.clone(), DeadLetter { message, state, died });
        } else {
            self.counters.dead_not_kept += 1;
            self.bodies_bytes -= message.body.len();
        }
        effects.push(Effect::Dead { endpoint, message: id, kept });
    }

    fn disable(
        &mut self,
        id: &EndpointId,
        why: DisableReason,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Some(lane) = self.lanes.get_mut(id) else {
            return;
        };
        if lane.settings.mode == Mode::Disabled {
            return;
        }
        lane.settings.mode = Mode::Disabled;
        effects.push(Effect::DisableEndpoint { endpoint: id.clone(), why });
        self.bury_waiting(id, now, effects, true);
    }

    /// Ends every message of an endpoint that is not in flight.
    fn bury_waiting(
        &mut self,
        id: &EndpointId,
        now: Timestamp,
        effects: &mut Vec<Effect>,
        keep: bool,
    ) {
        let Some(lane) = self.lanes.get_mut(id) else {
            return;
        };
        for entry in lane.take_where(|entry| !entry.flying) {
            self.bury(entry.message, entry.state.disabled(), now, effects, keep);
        }
    }

    fn replayed(&mut self, record: AttemptRecord, now: Timestamp) {
        let Some(lane) = self.lanes.get_mut(&record.endpoint) else {
            self.counters.unmatched += 1;
            return;
        };
        let success = match record.outcome {
            Outcome::Answered { status, .. } => Some((200..300).contains(&status)),
            Outcome::Failed { .. } => Some(false),
            Outcome::Shadowed | Outcome::EndpointGone => None,
            Outcome::Resent => {
                self.revive(&record.endpoint, &record.message, now);
                return;
            }
        };
        if let Some(success) = success {
            lane.note(success, record.at);
        }
        if !lane.pending.contains_key(&record.message) {
            self.counters.unmatched += 1;
            return;
        }
        let mut record = record;
        if let Delivery::Waiting { until, .. } = &mut record.state {
            // A clock that was wrong when the record was written must not hold a message for ever.
            *until = (*until).min(now.plus(RETRY_AFTER_MAX));
        }
        if let Some(letter) = self.settle(&record) {
            // Loading has no effects: this death was told when it happened.
            self.keep_dead(letter, record.state, record.at, &mut Vec::new());
        }
    }

    fn loaded(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.loading = false;
        // Counters tell what this process did, not what it read.
        self.counters = Counters { unmatched: self.counters.unmatched, ..Counters::default() };
        let disabled: Vec<EndpointId> = self
            .lanes
            .iter()
            .filter(|(_, lane)| lane.settings.mode == Mode::Disabled)
            .map(|(id, _)| id.clone())
            .collect();
        for id in disabled {
            self.bury_waiting(&id, now, effects, true);
        }
    }

    fn resend(
        &mut self,
        endpoint: &EndpointId,
        which: &Resend,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let found = self.lanes.get(endpoint).ok_or(Refusal::UnknownEndpoint).and_then(|lane| {
            if lane.settings.mode == Mode::Disabled {
                return Err(Refusal::EndpointDisabled);
            }
            match which {
                Resend::One(id) if lane.dead.contains_key(id) => Ok(vec![id.clone()]),
                Resend::One(_) => Err(Refusal::NotDead),
                Resend::Since(since) => Ok(lane.dead_since(*since)),
            }
        });
        let ids = match found {
            Ok(ids) => ids,
            Err(why) => {
                let message = match which {
                    Resend::One(id) => Some(id.clone()),
                    Resend::Since(_) => None,
                };
                self.refuse(endpoint.clone(), message, why, effects);
                return;
            }
        };
        for message in ids {
            let full = self.lanes[endpoint].pending.len() >= self.limits.pending_max;
            if full {
                self.refuse(endpoint.clone(), Some(message), Refusal::Full, effects);
                return;
            }
            self.revive(endpoint, &message, now);
            effects.push(Effect::Journal(AttemptRecord {
                endpoint: endpoint.clone(),
                message,
                attempt: 0,
                at: now,
                outcome: Outcome::Resent,
                state: Delivery::Pending,
            }));
        }
    }

    /// Makes a dead letter wait again, from its first attempt on.
    fn revive(&mut self, endpoint: &EndpointId, id: &MessageId, now: Timestamp) {
        let lane = self.lanes.get_mut(endpoint);
        let Some(letter) = lane.and_then(|lane| lane.dead.remove(id)) else {
            self.counters.unmatched += 1;
            return;
        };
        self.counters.resent += 1;
        self.bodies_bytes -= letter.message.body.len();
        self.insert(Message { replay: true, ..letter.message }, now);
    }

    fn change(&mut self, settings: EndpointSettings, now: Timestamp, effects: &mut Vec<Effect>) {
        let id = settings.id.clone();
        let settings =
            EndpointSettings { in_flight_max: settings.in_flight_max.max(1), ..settings };
        if let Some(lane) = self.lanes.get_mut(&id) {
            if lane.settings.mode == Mode::Disabled && settings.mode != Mode::Disabled {
                // Somebody repaired it; its past must not disable it again at the first failure.
                lane.failing_since = None;
                lane.breaker = Breaker::default();
            }
            lane.settings = settings;
        } else if self.lanes.len() >= self.limits.endpoints_max {
            self.refuse(id, None, Refusal::TooManyEndpoints, effects);
            return;
        } else {
            self.lanes.insert(id.clone(), Lane::new(settings));
        }
        if !self.loading && self.lanes[&id].settings.mode == Mode::Disabled {
            self.bury_waiting(&id, now, effects, true);
        }
    }

    fn remove(&mut self, id: &EndpointId, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(lane) = self.lanes.get_mut(id) else {
            self.refuse(id.clone(), None, Refusal::UnknownEndpoint, effects);
            return;
        };
        for entry in lane.take_where(|_| true) {
            self.bury(entry.message, entry.state.disabled(), now, effects, false);
        }
        if let Some(lane) = self.lanes.remove(id) {
            let bytes: usize = lane.dead.values().map(|letter| letter.message.body.len()).sum();
            self.bodies_bytes -= bytes;
        }
    }

    fn forget(&mut self, lead: LeadRef) {
        for lane in self.lanes.values_mut() {
            let mut gone = lane.take_where(|entry| entry.message.lead == lead);
            let dead = lane.dead.extract_if(.., |_, letter| letter.message.lead == lead);
            let bytes: usize = gone
                .drain(..)
                .map(|entry| entry.message)
                .chain(dead.map(|(_, letter)| letter.message))
                .inspect(|_| self.counters.forgotten += 1)
                .map(|message| message.body.len())
                .sum();
            self.bodies_bytes -= bytes;
        }
    }

    fn refuse(
        &mut self,
        endpoint: EndpointId,
        message: Option<MessageId>,
        why: Refusal,
        effects: &mut Vec<Effect>,
    ) {
        if why.is_limit() {
            self.counters.refused_by_limit += 1;
        } else {
            self.counters.refused += 1;
        }
        effects.push(Effect::Refused { endpoint, message, why });
    }

    /// Hands out every attempt that is due, one an endpoint in turn, and says when to look again.
    fn dispatch(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.shadow(now, effects);
        let mut any = true;
        while any {
            any = false;
            for lane in self.lanes.values_mut() {
                if let Some(attempt) = lane.next_attempt(now) {
                    self.counters.attempts += 1;
                    effects.push(Effect::Send(attempt));
                    any = true;
                }
            }
        }
        if let Some(at) = self.lanes.values().filter_map(|lane| lane.wake(now)).min() {
            effects.push(Effect::WakeAt(at));
        }
    }

    /// Records what the endpoints in shadow would have been sent.
    fn shadow(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let mut records = Vec::new();
        for (id, lane) in &self.lanes {
            if lane.settings.mode != Mode::Shadow {
                continue;
            }
            let waiting = lane.leads.values().flatten().filter(|entry| !entry.flying);
            records.extend(waiting.map(|entry| AttemptRecord {
                endpoint: id.clone(),
                message: entry.message.id.clone(),
                attempt: 0,
                at: now,
                outcome: Outcome::Shadowed,
                state: Delivery::Delivered { attempts: 0 },
            }));
        }
        for record in records {
            let dead = self.settle(&record);
            debug_assert!(dead.is_none(), "a shadowed message is finished, not dead");
            effects.push(Effect::Journal(record));
        }
    }
}

#[cfg(test)]
mod tests;
