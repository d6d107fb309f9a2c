//! What becomes needless before it was ever sent: a newer message tells the state, or takes it
//! back. Decided live, and written down; at the end of loading once more, for what a crash kept
//! from being written down.

use engine::time::Timestamp;

use super::super::{AttemptRecord, Delivery, EndpointId, LeadRef, MessageId, Outcome};
use super::{Effect, HELD_MAX, Overtaking, Queue};

impl Queue {
    /// Drops what a lead's messages for an endpoint make needless among themselves.
    pub(super) fn drop_needless(
        &mut self,
        endpoint: &EndpointId,
        lead: LeadRef,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let lane = self.lanes.get(endpoint);
        let needless = lane.map_or_else(Vec::new, |lane| lane.needless(lead, now));
        self.drop_all(endpoint, needless, now, effects);
    }

    /// Takes in that an endpoint is not sent a message which others are.
    pub(super) fn overtaken(
        &mut self,
        overtaking: Overtaking,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let before = self.arrivals;
        let Some(lane) = self.lanes.get_mut(&overtaking.endpoint) else {
            self.counters.unmatched += 1;
            return;
        };
        if self.loading {
            lane.overtaken.push((overtaking, before));
            return;
        }
        let needless = lane.overtaken_by(&overtaking, before, now);
        self.drop_all(&overtaking.endpoint, needless, now, effects);
    }

    /// At the end of loading: holds nothing for ever, and drops what would have been dropped.
    pub(super) fn check_loaded(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let latest = now.plus(HELD_MAX);
        let mut needless = Vec::new();
        for (id, lane) in &mut self.lanes {
            lane.hold_at_most_until(latest);
            let overtaken = std::mem::take(&mut lane.overtaken);
            let by_others =
                overtaken.iter().flat_map(|(it, before)| lane.overtaken_by(it, *before, now));
            let among = lane.leads.keys().flat_map(|lead| lane.needless(*lead, now));
            needless.push((id.clone(), among.chain(by_others).collect::<Vec<_>>()));
        }
        for (endpoint, needless) in needless {
            self.drop_all(&endpoint, needless, now, effects);
        }
    }

    fn drop_all(
        &mut self,
        endpoint: &EndpointId,
        needless: Vec<(MessageId, Outcome)>,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        for (message, outcome) in needless {
            let waits = |lane: &super::Lane| lane.pending.contains_key(&message);
            // One may be needless for two reasons.
            if !self.lanes.get(endpoint).is_some_and(waits) {
                continue;
            }
            let record = AttemptRecord {
                endpoint: endpoint.clone(),
                message,
                attempt: 0,
                at: now,
                outcome,
                state: Delivery::Dropped,
            };
            let dead = self.settle(&record);
            debug_assert!(dead.is_none(), "a dropped message is finished, not dead");
            effects.push(Effect::Journal(record));
        }
    }
}
