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
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;

    use super::super::{SCHEDULE, SendError};
    use super::*;

    const START: Timestamp = Timestamp(1_800_000_000_000);

    fn at(seconds: u64) -> Timestamp {
        START.plus(Duration::from_secs(seconds))
    }

    fn endpoint_id(name: &str) -> EndpointId {
        EndpointId::parse(name).unwrap()
    }

    fn id(name: &str) -> MessageId {
        MessageId::parse(name).unwrap()
    }

    fn settings(name: &str, mode: Mode) -> EndpointSettings {
        EndpointSettings {
            id: endpoint_id(name),
            mode,
            test: false,
            in_flight_max: 2,
            schedule: SCHEDULE.into(),
        }
    }

    fn message(endpoint: &str, lead: u128, name: &str) -> Message {
        Message {
            id: id(name),
            endpoint: endpoint_id(endpoint),
            lead: LeadRef(lead),
            sequence: 1,
            test: false,
            replay: false,
            body: Bytes::from(name.to_owned()),
        }
    }

    fn queue_with(limits: Limits, endpoints: &[EndpointSettings]) -> Queue {
        let mut queue = Queue::new(limits);
        for endpoint in endpoints {
            queue.step(Input::EndpointChanged(endpoint.clone()), START);
        }
        queue.step(Input::Loaded, START);
        queue
    }

    fn live(names: &[&str]) -> Queue {
        let endpoints: Vec<_> = names.iter().map(|name| settings(name, Mode::Live)).collect();
        queue_with(Limits::default(), &endpoints)
    }

    fn sent(effects: &[Effect]) -> Vec<(&str, &str, u32)> {
        let sends = effects.iter().filter_map(|effect| match effect {
            Effect::Send(attempt) => Some(attempt),
            _ => None,
        });
        sends.map(|a| (a.endpoint.as_str(), a.message.as_str(), a.attempt)).collect()
    }

    fn journaled(effects: &[Effect]) -> Vec<AttemptRecord> {
        let records = effects.iter().filter_map(|effect| match effect {
            Effect::Journal(record) => Some(record.clone()),
            _ => None,
        });
        records.collect()
    }

    fn refused(effects: &[Effect]) -> Vec<Refusal> {
        let refusals = effects.iter().filter_map(|effect| match effect {
            Effect::Refused { why, .. } => Some(*why),
            _ => None,
        });
        refusals.collect()
    }

    fn answer(status: u16) -> Answer {
        Answer { status, retry_after: None, kept: Bytes::new(), skew_ms: None }
    }

    fn answered(endpoint: &str, message: &str, attempt: u32, status: u16) -> Input {
        Input::Answered(Answered {
            endpoint: endpoint_id(endpoint),
            message: id(message),
            attempt,
            answer: Ok(answer(status)),
            took: Duration::from_millis(7),
            jitter: 0.0,
        })
    }

    /// Answers every attempt of a message with `status` until it is dead; gives the last effects.
    fn exhaust(queue: &mut Queue, endpoint: &str, name: &str, status: u16) -> Vec<Effect> {
        let mut now = START;
        let mut last = Vec::new();
        for (attempt, delay) in (1..).zip(SCHEDULE) {
            // A failing endpoint's breaker may hold the attempt back a little longer.
            now = now.plus(delay).plus(Duration::from_mins(11));
            queue.step(Input::Tick, now);
            last = queue.step(answered(endpoint, name, attempt, status), now);
        }
        last
    }

    #[test]
    fn a_later_message_of_a_lead_waits_until_the_earlier_is_delivered() {
        let mut queue = live(&["sfa"]);
        let first = queue.step(Input::Enqueue(message("sfa", 1, "a")), START);
        assert_eq!(sent(&first), [("sfa", "a", 1)]);
        let second = queue.step(Input::Enqueue(message("sfa", 1, "b")), START);
        assert_eq!(sent(&second), []);
        let failed = queue.step(answered("sfa", "a", 1, 500), START);
        assert_eq!(sent(&failed), []);
        assert_eq!(failed.last(), Some(&Effect::WakeAt(at(5))));
        assert_eq!(sent(&queue.step(Input::Tick, at(5))), [("sfa", "a", 2)]);
        let done = queue.step(answered("sfa", "a", 2, 204), at(5));
        assert_eq!(sent(&done), [("sfa", "b", 1)]);
        let order: Vec<_> = done.iter().map(std::mem::discriminant).collect();
        let journal = std::mem::discriminant(&done[0]);
        assert_eq!(order.first(), Some(&journal));
        assert_eq!(journaled(&done)[0].state, Delivery::Delivered { attempts: 2 });
    }

    #[test]
    fn a_later_message_of_a_lead_goes_out_once_the_earlier_is_dead() {
        let mut queue = live(&["sfa"]);
        queue.step(Input::Enqueue(message("sfa", 1, "a")), START);
        queue.step(Input::Enqueue(message("sfa", 1, "b")), START);
        let last = exhaust(&mut queue, "sfa", "a", 500);
        let dead = Effect::Dead { endpoint: endpoint_id("sfa"), message: id("a"), kept: true };
        assert!(last.contains(&dead));
        assert_eq!(queue.figures().dead, 1);
        let rest = queue.step(Input::Tick, at(100 * 3600));
        assert_eq!([sent(&last), sent(&rest)].concat(), [("sfa", "b", 1)]);
    }

    #[test]
    fn leads_and_endpoints_do_not_wait_for_each_other_beyond_the_cap() {
        let mut queue = live(&["crm", "sfa"]);
        let mut effects = Vec::new();
        for (lead, name) in (0..).zip(["a", "b", "c"]) {
            effects.extend(queue.step(Input::Enqueue(message("sfa", lead, name)), START));
        }
        assert_eq!(sent(&effects), [("sfa", "a", 1), ("sfa", "b", 1)]);
        let other = queue.step(Input::Enqueue(message("crm", 0, "a")), START);
        assert_eq!(sent(&other), [("crm", "a", 1)]);
        let freed = queue.step(answered("sfa", "a", 1, 200), START);
        assert_eq!(sent(&freed), [("sfa", "c", 1)]);
    }

    #[test]
    fn endpoints_take_turns_when_much_is_due_at_once() {
        let mut queue = Queue::new(Limits::default());
        for name in ["crm", "sfa"] {
            queue.step(Input::EndpointChanged(settings(name, Mode::Live)), START);
            for (lead, message_name) in (0..).zip(["a", "b"]) {
                queue.step(Input::Enqueue(message(name, lead, message_name)), START);
            }
        }
        let loaded = queue.step(Input::Loaded, START);
        let turns = [("crm", "a", 1), ("sfa", "a", 1), ("crm", "b", 1), ("sfa", "b", 1)];
        assert_eq!(sent(&loaded), turns);
    }

    #[test]
    fn a_shadow_endpoint_records_what_it_would_send_and_sends_nothing() {
        let mut queue = queue_with(Limits::default(), &[settings("sfa", Mode::Shadow)]);
        let effects = queue.step(Input::Enqueue(message("sfa", 1, "a")), START);
        assert_eq!(sent(&effects), []);
        let records = journaled(&effects);
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].outcome, Outcome::Shadowed);
        queue.step(Input::EndpointChanged(settings("sfa", Mode::Live)), START);
        assert_eq!(sent(&queue.step(Input::Tick, at(3600))), []);
        let later = queue.step(Input::Enqueue(message("sfa", 1, "b")), at(3600));
        assert_eq!(sent(&later), [("sfa", "b", 1)]);
    }

    #[test]
    fn test_messages_go_to_test_endpoints_and_nothing_else_does() {
        let practice = EndpointSettings { test: true, ..settings("practice", Mode::Live) };
        let mut queue = queue_with(Limits::default(), &[practice, settings("sfa", Mode::Live)]);
        for (endpoint, test, expected) in
            [("practice", true, 1), ("practice", false, 0), ("sfa", true, 0), ("sfa", false, 1)]
        {
            let message = Message { test, ..message(endpoint, 1, endpoint) };
            let effects = queue.step(Input::Enqueue(message), START);
            assert_eq!(sent(&effects).len(), expected, "{endpoint} {test}");
            let mismatches = refused(&effects);
            assert_eq!(mismatches, vec![Refusal::TestMismatch; 1 - expected]);
        }
    }

    #[test]
    fn gone_disables_the_endpoint_and_its_messages_become_dead_letters() {
        let mut queue = live(&["sfa"]);
        queue.step(Input::Enqueue(message("sfa", 1, "a")), START);
        queue.step(Input::Enqueue(message("sfa", 1, "b")), START);
        let gone = queue.step(answered("sfa", "a", 1, 410), START);
        let disabled =
            Effect::DisableEndpoint { endpoint: endpoint_id("sfa"), why: DisableReason::Gone };
        assert!(gone.contains(&disabled));
        let states: Vec<_> = journaled(&gone).iter().map(|record| record.state).collect();
        let expected = [Delivery::Disabled { attempts: 1 }, Delivery::Disabled { attempts: 0 }];
        assert_eq!(states, expected);
        let next = queue.step(Input::Enqueue(message("sfa", 2, "c")), START);
        assert_eq!(sent(&next), []);
        assert_eq!(queue.figures().dead, 3);
        let wish = Input::Resend { endpoint: endpoint_id("sfa"), which: Resend::Since(START) };
        assert_eq!(refused(&queue.step(wish.clone(), START)), [Refusal::EndpointDisabled]);
        queue.step(Input::EndpointChanged(settings("sfa", Mode::Live)), START);
        assert_eq!(sent(&queue.step(wish, START)).len(), 2);
    }

    #[test]
    fn an_attempt_in_flight_when_its_endpoint_is_disabled_is_not_repeated() {
        let mut queue = live(&["sfa"]);
        queue.step(Input::Enqueue(message("sfa", 1, "a")), START);
        queue.step(Input::Enqueue(message("sfa", 2, "b")), START);
        queue.step(answered("sfa", "a", 1, 410), START);
        let late = queue.step(answered("sfa", "b", 1, 500), START);
        assert_eq!(journaled(&late)[0].state, Delivery::Disabled { attempts: 1 });
        assert_eq!(queue.figures().pending, 0);
    }

    #[test]
    fn an_endpoint_that_fails_for_five_days_is_disabled() {
        let mut queue = live(&["sfa"]);
        queue.step(Input::Enqueue(message("sfa", 1, "a")), START);
        exhaust(&mut queue, "sfa", "a", 500);
        let second = at(50 * 3600);
        queue.step(Input::Enqueue(message("sfa", 1, "b")), second);
        let mut now = second;
        let mut effects = Vec::new();
        for (attempt, delay) in (1..).zip(SCHEDULE) {
            now = now.plus(delay).plus(Duration::from_mins(11));
            queue.step(Input::Tick, now);
            effects = queue.step(answered("sfa", "b", attempt, 500), now);
        }
        let why = effects.iter().find_map(|effect| match effect {
            Effect::DisableEndpoint { why, .. } => Some(*why),
            _ => None,
        });
        let since = START.plus(Duration::from_mins(11));
        assert_eq!(why, Some(DisableReason::Failing { since }));
    }

    #[test]
    fn a_failing_endpoint_rests_and_then_gets_one_attempt_at_a_time() {
        let roomy = EndpointSettings { in_flight_max: 16, ..settings("sfa", Mode::Live) };
        let mut queue = queue_with(Limits::default(), &[roomy]);
        for lead in 0..12_u32 {
            let name = format!("m{lead}");
            queue.step(Input::Enqueue(message("sfa", lead.into(), &name)), START);
        }
        let mut last = Vec::new();
        for lead in 0..12 {
            last = queue.step(answered("sfa", &format!("m{lead}"), 1, 500), START);
        }
        assert_eq!(last.last(), Some(&Effect::WakeAt(at(30))));
        assert_eq!(sent(&queue.step(Input::Tick, at(29))), []);
        assert_eq!(sent(&queue.step(Input::Tick, at(30))), [("sfa", "m0", 2)]);
        let up = queue.step(answered("sfa", "m0", 2, 200), at(30));
        assert_eq!(sent(&up).len(), 11);
    }

    #[test]
    fn a_dead_letter_is_resent_under_its_id_marked_as_replay_and_with_a_fresh_schedule() {
        let mut queue = live(&["sfa"]);
        queue.step(Input::Enqueue(message("sfa", 1, "a")), START);
        exhaust(&mut queue, "sfa", "a", 500);
        let wish = |name: &str| Input::Resend {
            endpoint: endpoint_id("sfa"),
            which: Resend::One(id(name)),
        };
        let now = at(80 * 3600);
        assert_eq!(refused(&queue.step(wish("b"), now)), [Refusal::NotDead]);
        let again = queue.step(wish("a"), now);
        assert_eq!(journaled(&again)[0].outcome, Outcome::Resent);
        let attempt = again.iter().find_map(|effect| match effect {
            Effect::Send(attempt) => Some(attempt.clone()),
            _ => None,
        });
        let attempt = attempt.unwrap();
        assert_eq!((attempt.message, attempt.attempt, attempt.replay), (id("a"), 1, true));
        assert_eq!(refused(&queue.step(wish("a"), now)), [Refusal::NotDead]);
    }

    #[test]
    fn resending_since_a_time_takes_only_what_died_since() {
        let mut queue = live(&["sfa"]);
        for (seconds, name) in [(0, "a"), (10, "b"), (20, "c")] {
            queue.step(Input::Enqueue(message("sfa", 1, name)), at(seconds));
            queue.step(answered("sfa", name, 1, 410), at(seconds));
            queue.step(Input::EndpointChanged(settings("sfa", Mode::Live)), at(seconds));
        }
        let which = Resend::Since(at(10));
        queue.step(Input::Resend { endpoint: endpoint_id("sfa"), which }, at(30));
        let figures = queue.figures();
        assert_eq!((figures.pending, figures.dead), (2, 1));
    }

    #[test]
    fn a_full_queue_refuses_by_name_counts_and_evicts_nothing() {
        let limits = Limits {
            endpoints_max: 1,
            pending_max: 2,
            dead_max: 1,
            bodies_bytes_max: 30,
            body_bytes_max: 20,
        };
        let mut queue = queue_with(limits, &[settings("sfa", Mode::Live)]);
        let with = |name: &str, bytes: usize| {
            let body = Bytes::from(vec![b'x'; bytes]);
            Input::Enqueue(Message { body, ..message("sfa", 1, name) })
        };
        assert_eq!(refused(&queue.step(with("big", 21), START)), [Refusal::BodyTooLarge]);
        assert_eq!(refused(&queue.step(with("a", 20), START)), []);
        assert_eq!(refused(&queue.step(with("b", 11), START)), [Refusal::BodiesFull]);
        assert_eq!(refused(&queue.step(with("b", 10), START)), []);
        assert_eq!(refused(&queue.step(with("c", 0), START)), [Refusal::Full]);
        assert_eq!(refused(&queue.step(with("a", 0), START)), [Refusal::Duplicate]);
        let other = Input::EndpointChanged(settings("crm", Mode::Live));
        assert_eq!(refused(&queue.step(other, START)), [Refusal::TooManyEndpoints]);
        let stranger = Input::Enqueue(message("crm", 1, "a"));
        assert_eq!(refused(&queue.step(stranger, START)), [Refusal::UnknownEndpoint]);
        assert_eq!(queue.figures().counters.refused_by_limit, 4);
        assert_eq!(queue.figures().pending, 2);
        queue.step(answered("sfa", "a", 1, 410), START);
        let figures = queue.figures();
        assert_eq!((figures.dead, figures.counters.dead_not_kept), (1, 1));
        assert_eq!(figures.bodies_bytes, 20);
    }

    #[test]
    fn a_forgotten_lead_leaves_no_body_behind() {
        let mut queue = live(&["sfa"]);
        queue.step(Input::Enqueue(message("sfa", 1, "a")), START);
        queue.step(Input::Enqueue(message("sfa", 1, "b")), START);
        queue.step(Input::Enqueue(message("sfa", 2, "c")), START);
        queue.step(answered("sfa", "a", 1, 410), START);
        queue.step(Input::EndpointChanged(settings("sfa", Mode::Live)), START);
        queue.step(Input::Enqueue(message("sfa", 1, "d")), START);
        queue.step(Input::Forget(LeadRef(1)), START);
        let left: Vec<_> = queue.outstanding().into_iter().map(|one| one.message.id).collect();
        assert_eq!(left, [id("c")]);
        assert_eq!(queue.figures().bodies_bytes, 1);
        let late = queue.step(answered("sfa", "d", 1, 500), START);
        assert_eq!(journaled(&late), []);
        assert_eq!(queue.figures().counters.unmatched, 1);
    }

    #[test]
    fn removing_an_endpoint_ends_its_messages_and_ignores_late_answers() {
        let mut queue = live(&["sfa"]);
        queue.step(Input::Enqueue(message("sfa", 1, "a")), START);
        queue.step(Input::Enqueue(message("sfa", 1, "b")), START);
        let gone = queue.step(Input::EndpointRemoved(endpoint_id("sfa")), START);
        assert_eq!(journaled(&gone).len(), 2);
        assert_eq!(queue.figures().bodies_bytes, 0);
        assert_eq!(queue.step(answered("sfa", "a", 1, 200), START), []);
    }

    #[test]
    fn an_answer_to_an_attempt_that_is_not_out_changes_nothing() {
        let mut queue = live(&["sfa"]);
        queue.step(Input::Enqueue(message("sfa", 1, "a")), START);
        let before = queue.outstanding();
        for (name, attempt) in [("a", 2), ("a", 0), ("b", 1)] {
            let effects = queue.step(answered("sfa", name, attempt, 200), START);
            assert_eq!(journaled(&effects), []);
        }
        assert_eq!(queue.outstanding(), before);
        assert_eq!(queue.figures().counters.unmatched, 3);
    }

    #[test]
    fn nothing_is_sent_while_loading_and_a_wait_from_a_wrong_clock_is_cut_to_a_day() {
        let mut queue = Queue::new(Limits::default());
        queue.step(Input::EndpointChanged(settings("sfa", Mode::Live)), START);
        assert_eq!(queue.step(Input::Enqueue(message("sfa", 1, "a")), START), []);
        let record = AttemptRecord {
            endpoint: endpoint_id("sfa"),
            message: id("a"),
            attempt: 1,
            at: START,
            outcome: Outcome::Failed { error: SendError::Deadline, duration_ms: 1 },
            state: Delivery::Waiting { attempts: 1, until: Timestamp(u64::MAX) },
        };
        assert_eq!(queue.step(Input::Replayed(record), START), []);
        let day = START.plus(RETRY_AFTER_MAX);
        assert_eq!(queue.step(Input::Loaded, START), [Effect::WakeAt(day)]);
        assert_eq!(sent(&queue.step(Input::Tick, day)), [("sfa", "a", 2)]);
    }

    /// xorshift64*: a seed gives the same run everywhere.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: u64) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
        }
    }

    enum Line {
        Queued(Message),
        Record(AttemptRecord),
    }

    /// A world of random receivers, crashes and wishes around one queue, checked at every step.
    struct Simulation {
        seed: u64,
        dice: Dice,
        now: Timestamp,
        queue: Queue,
        endpoints: BTreeMap<EndpointId, EndpointSettings>,
        journal: Vec<Line>,
        flying: Vec<Attempt>,
        queued: Vec<Message>,
        dead: BTreeSet<(EndpointId, MessageId)>,
        delivered: BTreeSet<(EndpointId, MessageId)>,
        resent: BTreeSet<(EndpointId, MessageId)>,
        ended: Vec<(EndpointId, MessageId)>, // deliveries of what was never resent, in order
    }

    impl Simulation {
        fn new(seed: u64) -> Simulation {
            let schedule = SCHEDULE[..4].into();
            let endpoints: BTreeMap<_, _> = ["crm", "sfa", "shadow"]
                .into_iter()
                .map(|name| {
                    let mode = if name == "shadow" { Mode::Shadow } else { Mode::Live };
                    let cap = if name == "crm" { 1 } else { 3 };
                    let schedule = Arc::clone(&schedule);
                    let one = settings(name, mode);
                    let id = one.id.clone();
                    (id, EndpointSettings { in_flight_max: cap, schedule, ..one })
                })
                .collect();
            let all: Vec<_> = endpoints.values().cloned().collect();
            Simulation {
                seed,
                dice: Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
                now: START,
                queue: queue_with(Limits::default(), &all),
                endpoints,
                journal: Vec::new(),
                flying: Vec::new(),
                queued: Vec::new(),
                dead: BTreeSet::new(),
                delivered: BTreeSet::new(),
                resent: BTreeSet::new(),
                ended: Vec::new(),
            }
        }

        fn step(&mut self, input: Input) {
            let seed = self.seed;
            let effects = self.queue.step(input, self.now);
            for effect in effects {
                match effect {
                    Effect::Journal(record) => self.record(record),
                    Effect::Send(attempt) => self.send(attempt),
                    Effect::WakeAt(wake) => assert!(wake > self.now, "seed {seed}: late wake"),
                    Effect::DisableEndpoint { endpoint, .. } => {
                        self.endpoints.get_mut(&endpoint).unwrap().mode = Mode::Disabled;
                    }
                    Effect::Dead { .. } => {}
                    Effect::Refused { why, .. } => {
                        let wish = matches!(why, Refusal::NotDead | Refusal::EndpointDisabled);
                        assert!(wish, "seed {seed}: {why:?}");
                    }
                }
            }
        }

        fn record(&mut self, record: AttemptRecord) {
            let key = (record.endpoint.clone(), record.message.clone());
            if record.outcome == Outcome::Resent {
                assert!(self.dead.remove(&key), "seed {}: only the dead are resent", self.seed);
                self.resent.insert(key.clone());
            }
            if record.state.is_final() {
                let new = if let Delivery::Delivered { .. } = record.state {
                    self.delivered.insert(key.clone())
                } else {
                    self.dead.insert(key.clone())
                };
                assert!(new, "seed {}: {key:?} ended twice", self.seed);
                let delivered = matches!(record.state, Delivery::Delivered { .. });
                if delivered && !self.resent.contains(&key) {
                    self.ended.push(key);
                }
            }
            self.journal.push(Line::Record(record));
        }

        fn send(&mut self, attempt: Attempt) {
            let seed = self.seed;
            let key = (attempt.endpoint.clone(), attempt.message.clone());
            let message = self.queued.iter().find(|m| m.endpoint == key.0 && m.id == key.1);
            let message =
                message.unwrap_or_else(|| panic!("seed {seed}: {key:?} was never queued"));
            assert_eq!(attempt.body, message.body, "seed {seed}: the body changed");
            assert!(!self.delivered.contains(&key), "seed {seed}: {key:?} sent after its end");
            assert!(!self.dead.contains(&key), "seed {seed}: {key:?} sent after its death");
            let made = self.journal.iter().rev().find_map(|line| match line {
                Line::Record(record) if record.message == key.1 && record.endpoint == key.0 => {
                    Some(record.attempt)
                }
                _ => None,
            });
            assert_eq!(attempt.attempt, made.unwrap_or(0) + 1, "seed {seed}: not journaled first");
            let lead = message.lead;
            let alike = self.flying.iter().filter(|other| other.endpoint == attempt.endpoint);
            let cap = self.endpoints[&attempt.endpoint].in_flight_max;
            assert!(alike.clone().count() < cap, "seed {seed}: over the cap");
            let leads: Vec<_> = alike
                .map(|other| self.queued.iter().find(|m| m.id == other.message).unwrap().lead)
                .collect();
            assert!(!leads.contains(&lead), "seed {seed}: two attempts of one lead at once");
            self.flying.push(attempt);
        }

        fn enqueue(&mut self) {
            let number = self.queued.len();
            let endpoint = ["crm", "sfa", "shadow"][self.dice.roll(3) as usize];
            let lead = self.dice.roll(4).into();
            let message = Message {
                sequence: number as u64,
                ..message(endpoint, lead, &format!("m{number}"))
            };
            self.queued.push(message.clone());
            self.journal.push(Line::Queued(message.clone()));
            self.step(Input::Enqueue(message));
        }

        fn land(&mut self, kind: u64) {
            if self.flying.is_empty() {
                return;
            }
            let place = self.dice.roll(self.flying.len() as u64) as usize;
            let attempt = self.flying.swap_remove(place);
            let answer = match kind {
                0..=3 => Ok(answer(200)),
                4 => Ok(answer(503)),
                5 => Ok(answer(302)),
                6 => Ok(answer(410)),
                _ => Err(SendError::Deadline),
            };
            let took = Duration::from_millis(self.dice.roll(20_000));
            let jitter = self.dice.roll(201) as f64 / 100.0 - 1.0;
            let Attempt { endpoint, message, attempt, .. } = attempt;
            let answered = Answered { endpoint, message, attempt, answer, took, jitter };
            self.step(Input::Answered(answered));
        }

        fn crash(&mut self) {
            let before = self.queue.outstanding();
            self.flying.clear();
            self.queue = Queue::new(Limits::default());
            for settings in self.endpoints.values().cloned() {
                self.queue.step(Input::EndpointChanged(settings), self.now);
            }
            for line in &self.journal {
                let input = match line {
                    Line::Queued(message) => Input::Enqueue(message.clone()),
                    Line::Record(record) => Input::Replayed(record.clone()),
                };
                let effects = self.queue.step(input, self.now);
                assert_eq!(effects, [], "seed {}: an effect while loading", self.seed);
            }
            assert_eq!(self.queue.outstanding(), before, "seed {}", self.seed);
            self.step(Input::Loaded);
        }

        fn repair(&mut self) {
            for settings in self.endpoints.values_mut() {
                if settings.mode == Mode::Disabled {
                    settings.mode = Mode::Live;
                }
            }
            for settings in self.endpoints.clone().into_values() {
                self.step(Input::EndpointChanged(settings));
            }
        }

        fn anything(&mut self) {
            match self.dice.roll(20) {
                0..=5 => self.enqueue(),
                6..=14 => {
                    // Disabling is rare, or little else would be seen.
                    let kind = self.dice.roll(10);
                    let kind = if kind == 6 && self.dice.roll(5) > 0 { 7 } else { kind };
                    self.land(kind);
                }
                15 | 16 => {
                    self.now = self.now.plus(Duration::from_secs(self.dice.roll(1000)));
                    self.step(Input::Tick);
                }
                17 => self.crash(),
                18 => {
                    let endpoint = endpoint_id(["crm", "sfa"][self.dice.roll(2) as usize]);
                    self.step(Input::Resend { endpoint, which: Resend::Since(START) });
                }
                _ => self.repair(),
            }
        }

        fn finish(&mut self) {
            for _ in 0..100_000 {
                if self.queue.figures().pending == 0 {
                    return;
                }
                self.now = self.now.plus(Duration::from_hours(1));
                self.step(Input::Tick);
                while !self.flying.is_empty() {
                    let kind = self.dice.roll(10);
                    self.land(if kind == 6 { 7 } else { kind });
                }
            }
            panic!("seed {}: messages wait for ever", self.seed);
        }
    }

    #[test]
    fn whatever_happens_every_message_ends_once_in_order_and_a_crash_changes_nothing() {
        let mut seen = Counters::default();
        for seed in 1..=200 {
            let mut world = Simulation::new(seed);
            for _ in 0..300 {
                world.anything();
            }
            world.finish();
            let keys: BTreeSet<_> =
                world.queued.iter().map(|m| (m.endpoint.clone(), m.id.clone())).collect();
            let ended: BTreeSet<_> = world.delivered.union(&world.dead).cloned().collect();
            assert_eq!(keys, ended, "seed {seed}: some message has no end");
            for lead in 0..4 {
                for endpoint in ["crm", "sfa", "shadow"].map(endpoint_id) {
                    let mine = |key: &&(EndpointId, MessageId)| {
                        let lead = LeadRef(lead);
                        key.0 == endpoint
                            && world.queued.iter().any(|m| m.id == key.1 && m.lead == lead)
                    };
                    let order: Vec<u32> = world
                        .ended
                        .iter()
                        .filter(mine)
                        .map(|key| key.1.as_str()[1..].parse().unwrap())
                        .collect();
                    assert!(order.is_sorted(), "seed {seed}: {endpoint} {order:?}");
                }
            }
            let counters = world.queue.figures().counters;
            seen.delivered += counters.delivered;
            seen.dead += counters.dead;
            seen.resent += counters.resent;
            seen.shadowed += counters.shadowed;
        }
        // The runs must have met what they promise to survive.
        assert!(seen.delivered > 1000 && seen.dead > 100, "{seen:?}");
        assert!(seen.resent > 100 && seen.shadowed > 100, "{seen:?}");
    }
}
