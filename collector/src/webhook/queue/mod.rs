//! The Queue decides which attempt is made next, over all endpoints, as `step(input, now)`.
//!
//! Messages of one lead reach one endpoint in the order they were queued: a later one waits until
//! the earlier is delivered or dead. Leads are independent of each other, and so are endpoints:
//! each has its own cap of attempts in flight, its own breaker and its own limit of messages, so a
//! hanging receiver holds up nobody else.
//!
//! A message may be held until people work again (`not_before`), and may become needless before it
//! was ever sent (`needless`): then it is dropped, and a record says for what.
//!
//! It is pure: time and jitter are arguments, effects are values for the driver. It starts by
//! loading (messages and records from the journal, no effects); what was queued and is neither
//! delivered nor dead is sent again under its id. A full queue refuses by name and evicts nothing;
//! a refused message is still in the journal, so the next start takes it up.

mod endpoints;
mod needless;
pub mod saved;

use std::collections::BTreeMap;
use std::time::Duration;

use engine::time::Timestamp;

use super::lane::{DeadLetter, Entry, Lane};
pub use super::step::{
    Answered, Attempt, Counters, DisableReason, Effect, EndpointSettings, FAILING_MAX, Figures,
    IN_FLIGHT_MAX, Input, Limits, Message, Mode, Outstanding, Overtaking, Refusal, Resend,
};
use super::{Answer, AttemptRecord, Delivery, EndpointId, MessageId, Outcome, RETRY_AFTER_MAX};

/// The longest that a message is held, whatever its record says: the clock may have been wrong
/// then. Longer than any holidays.
pub const HELD_MAX: Duration = Duration::from_hours(14 * 24);

/// All deliveries that are not finished. See the module's comment.
pub struct Queue {
    limits: Limits,
    lanes: BTreeMap<EndpointId, Lane>,
    // What waits for endpoints that are none now, as it was saved.
    aside: Vec<saved::SavedLane>,
    loading: bool,
    arrivals: u64,
    counters: Counters,
}

impl Queue {
    /// An empty queue that is loading; `Input::Loaded` starts it.
    pub fn new(limits: Limits) -> Queue {
        Queue {
            limits,
            lanes: BTreeMap::new(),
            aside: Vec::new(),
            loading: true,
            arrivals: 0,
            counters: Counters::default(),
        }
    }

    /// Takes one input at `now` and says what to do. While loading, only refusals come back.
    pub fn step(&mut self, input: Input, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Enqueue(message) => self.enqueue(message, now, &mut effects),
            Input::Overtaken(overtaking) => self.overtaken(overtaking, now, &mut effects),
            Input::Replayed(record) => self.replayed(record, now),
            Input::Loaded => self.loaded(now, &mut effects),
            Input::Answered(answered) => self.answered(answered, now, &mut effects),
            Input::Tick => {}
            Input::Resend { endpoint, which } => self.resend(&endpoint, &which, now, &mut effects),
            Input::EndpointChanged(settings) => self.change(settings, now, &mut effects),
            Input::EndpointRemoved(id) => self.remove(&id, now, &mut effects),
            Input::Forget(lead) => self.forget(lead),
            Input::Rewrite { id, body } => self.rewrite(&id, body.as_ref()),
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
            bodies_bytes: self.bodies_bytes(),
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
            self.hold(&message);
            self.bury(message, Delivery::Disabled { attempts: 0 }, now, effects, true);
            return;
        }
        let (endpoint, lead) = (message.endpoint.clone(), message.lead);
        self.insert(message, now);
        if !self.loading {
            self.drop_needless(&endpoint, lead, now, effects);
        }
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
        if !self.has_room(lane, message.body.len()) {
            return Err(Refusal::BodiesFull);
        }
        Ok(())
    }

    /// Whether one more body fits. Half of the room is divided among the endpoints, each its own
    /// share for sure: one whose receiver is down must not take what another needs. The other
    /// half is for whoever needs more.
    fn has_room(&self, lane: &Lane, bytes: usize) -> bool {
        let share = self.limits.bodies_bytes_max / 2 / self.lanes.len().max(1);
        if lane.bytes + bytes <= share {
            return true;
        }
        let unused = |other: &Lane| share.saturating_sub(other.bytes);
        let reserved: usize = self.lanes.values().map(unused).sum::<usize>() - unused(lane);
        self.bodies_bytes() + bytes + reserved <= self.limits.bodies_bytes_max
    }

    fn bodies_bytes(&self) -> usize {
        self.lanes.values().map(|lane| lane.bytes).sum()
    }

    fn hold(&mut self, message: &Message) {
        if let Some(lane) = self.lanes.get_mut(&message.endpoint) {
            lane.bytes += message.body.len();
        }
    }

    fn let_go(&mut self, message: &Message) {
        if let Some(lane) = self.lanes.get_mut(&message.endpoint) {
            lane.bytes -= message.body.len();
        }
    }

    fn insert(&mut self, message: Message, now: Timestamp) {
        self.hold(&message);
        let Some(lane) = self.lanes.get_mut(&message.endpoint) else {
            return;
        };
        let first = lane.settings.schedule.first().copied().unwrap_or_default();
        let arrival = self.arrivals;
        self.arrivals += 1;
        let lead = message.lead;
        lane.pending.insert(message.id.clone(), lead);
        let held = message.not_before.unwrap_or_default();
        let due = now.plus(first).max(held);
        let state = Delivery::Pending;
        let doubtful = self.loading;
        let entry = Entry { message, arrival, state, due, flying: false, doubtful };
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
        lane.breaker.record(success, lane.settings.rest, now);
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
        if let Delivery::Delivered { .. } | Delivery::Dropped = record.state {
            self.let_go(&entry.message);
            self.count_end(record);
            return None;
        }
        Some(entry.message)
    }

    fn count_end(&mut self, record: &AttemptRecord) {
        match record.outcome {
            Outcome::Superseded { .. } => self.counters.superseded += 1,
            Outcome::Retracted { .. } => self.counters.retracted += 1,
            _ if record.attempt > 0 => self.counters.delivered += 1,
            _ => self.counters.shadowed += 1,
        }
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
        self.let_go(&message);
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
            self.let_go(&message);
        }
        effects.push(Effect::Dead { endpoint, message: id, kept });
    }

    fn replayed(&mut self, record: AttemptRecord, now: Timestamp) {
        let Some(lane) = self.lanes.get_mut(&record.endpoint) else {
            self.counters.unmatched += 1;
            return;
        };
        let success = match record.outcome {
            Outcome::Answered { status, .. } => Some((200..300).contains(&status)),
            Outcome::Failed { .. } => Some(false),
            Outcome::Shadowed
            | Outcome::EndpointGone
            | Outcome::Superseded { .. }
            | Outcome::Retracted { .. } => None,
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
        for lane in self.lanes.values_mut() {
            lane.wait_at_most_until(now.plus(RETRY_AFTER_MAX), now);
        }
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
        self.check_loaded(now, effects);
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
        self.let_go(&letter.message);
        self.insert(Message { replay: true, ..letter.message }, now);
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
