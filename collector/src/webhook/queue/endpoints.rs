//! What the queue does when an endpoint comes, changes or goes, and when a lead is forgotten.

use bytes::Bytes;
use engine::time::Timestamp;

use super::super::breaker::Breaker;
use super::super::lane::Lane;
use super::super::{EndpointId, LeadRef, MessageId};
use super::{DisableReason, Effect, EndpointSettings, Mode, Queue, Refusal};

impl Queue {
    pub(super) fn disable(
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
    pub(super) fn bury_waiting(
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

    pub(super) fn change(
        &mut self,
        settings: EndpointSettings,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
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

    pub(super) fn remove(&mut self, id: &EndpointId, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(lane) = self.lanes.get_mut(id) else {
            self.refuse(id.clone(), None, Refusal::UnknownEndpoint, effects);
            return;
        };
        for entry in lane.take_where(|_| true) {
            self.bury(entry.message, entry.state.disabled(), now, effects, false);
        }
        self.lanes.remove(id);
    }

    /// Gives a message about several people another body, or takes it away.
    pub(super) fn rewrite(&mut self, id: &MessageId, body: Option<&Bytes>) {
        for lane in self.lanes.values_mut() {
            let Some(body) = body else {
                let gone = lane.take_where(|entry| entry.message.id == *id);
                let gone = gone.into_iter().map(|entry| entry.message);
                let gone = gone.chain(lane.dead.remove(id).map(|letter| letter.message));
                let lengths: Vec<usize> = gone.map(|message| message.body.len()).collect();
                self.counters.forgotten += lengths.len() as u64;
                lane.bytes -= lengths.iter().sum::<usize>();
                continue;
            };
            let waiting = lane.leads.values_mut().flatten().map(|entry| &mut entry.message);
            let dead = lane.dead.values_mut().map(|letter| &mut letter.message);
            for message in waiting.chain(dead).filter(|message| message.id == *id) {
                lane.bytes = lane.bytes + body.len() - message.body.len();
                message.body = body.clone();
            }
        }
    }

    pub(super) fn forget(&mut self, lead: LeadRef) {
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
            lane.bytes -= bytes;
        }
    }
}
