//! The queue while it is loading, as a snapshot holds it: where each message stands. What a
//! message says is personal; it is put back from the journal's own sealed entry.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::time::Timestamp;
use rkyv::{Archive, Deserialize, Serialize};

use super::{Counters, Entry, Lane, Message, Overtaking, Queue};
use crate::followers::Unfit;
use crate::webhook::lane::DeadLetter;
use crate::webhook::{Delivery, EndpointId, LeadRef, MessageId};

/// See the module's comment.
#[derive(Archive, Serialize, Deserialize)]
pub struct SavedQueue {
    arrivals: u64,
    counters: [u64; 14],
    dead_max: u64,
    lanes: Vec<SavedLane>,
}

#[derive(Clone, Archive, Serialize, Deserialize)]
pub(super) struct SavedLane {
    endpoint: String,
    test: bool,
    /// Before the first attempt, in milliseconds.
    first_ms: u64,
    failing_since: Option<u64>,
    waiting: Vec<SavedEntry>,
    dead: Vec<SavedEntry>,
    overtaken: Vec<SavedOvertaking>,
}

#[derive(Clone, Archive, Serialize, Deserialize)]
struct SavedEntry {
    message: String,
    replay: bool,
    /// 0 pending, 1 waiting, 2 exhausted, 3 disabled.
    state: u8,
    attempts: u32,
    until: u64,
    arrival: u64,
    /// When it is due, or when it died.
    at: u64,
}

#[derive(Clone, Archive, Serialize, Deserialize)]
struct SavedOvertaking {
    lead_low: u64,
    lead_high: u64,
    by: String,
    topic: Option<String>,
    retracts: Option<String>,
    before: u64,
}

/// Messages by endpoint and id, as their entries say them.
pub type Messages = BTreeMap<(EndpointId, MessageId), Message>;

impl Queue {
    /// Whether a message waits or is dead with anybody.
    pub fn has(&self, id: &MessageId) -> bool {
        let mut lanes = self.lanes.values();
        lanes.any(|lane| lane.pending.contains_key(id) || lane.dead.contains_key(id))
            || self.aside.iter().any(|lane| lane.has(id))
    }

    /// Whether there is an endpoint of this name.
    pub fn knows(&self, endpoint: &str) -> bool {
        self.lanes.keys().any(|id| id.as_str() == endpoint)
    }

    /// Its saved form, while it is loading.
    pub fn save(&self) -> SavedQueue {
        SavedQueue {
            arrivals: self.arrivals,
            counters: numbers(&self.counters),
            dead_max: self.limits.dead_max as u64,
            lanes: self.lanes.values().map(save_lane).chain(self.aside.iter().cloned()).collect(),
        }
    }

    /// Puts what was saved into a queue that knows its endpoints and nothing else, whatever they
    /// are: for a journal that has not all of what others would have been sent. Whoever is no
    /// endpoint now is put aside with all that waits, until somebody of that name is one again.
    pub fn adopt(&mut self, saved: SavedQueue, messages: &Messages) -> Result<(), Unfit> {
        self.arrivals = saved.arrivals;
        self.counters = counters(saved.counters);
        for saved in saved.lanes {
            let known = self.lanes.iter_mut().find(|(id, _)| id.as_str() == saved.endpoint);
            match known.filter(|(_, lane)| lane.settings.test == saved.test) {
                Some((_, lane)) => load_lane(lane, saved, messages)?,
                None => self.aside.push(saved),
            }
        }
        Ok(())
    }

    /// Puts what was saved into a queue that knows its endpoints and nothing else. They must be
    /// the ones that it was saved with: replay alone says what others would have been sent.
    pub fn load(&mut self, saved: SavedQueue, messages: &Messages) -> Result<(), Unfit> {
        let first = |lane: &Lane| lane.settings.schedule.first().copied().unwrap_or_default();
        let now = self
            .lanes
            .iter()
            .map(|(id, lane)| (id.as_str(), lane.settings.test, first(lane).as_millis() as u64));
        let then = saved.lanes.iter().map(|it| (it.endpoint.as_str(), it.test, it.first_ms));
        if !now.eq(then) || saved.dead_max != self.limits.dead_max as u64 {
            return Err(Unfit::Endpoints);
        }
        self.arrivals = saved.arrivals;
        self.counters = counters(saved.counters);
        for (lane, saved) in self.lanes.values_mut().zip(saved.lanes) {
            load_lane(lane, saved, messages)?;
        }
        Ok(())
    }
}

impl SavedLane {
    fn has(&self, id: &MessageId) -> bool {
        self.waiting.iter().chain(&self.dead).any(|it| it.message == id.as_str())
    }
}

fn save_lane(lane: &Lane) -> SavedLane {
    let first = lane.settings.schedule.first().copied().unwrap_or_default();
    let mut waiting: Vec<&Entry> = lane.leads.values().flatten().collect();
    waiting.sort_by_key(|entry| entry.arrival);
    let waiting =
        waiting.into_iter().map(|it| save_entry(&it.message, it.state, (it.arrival, it.due)));
    let dead = lane.dead.values();
    SavedLane {
        endpoint: lane.settings.id.as_str().to_owned(),
        test: lane.settings.test,
        first_ms: first.as_millis() as u64,
        failing_since: lane.failing_since.map(|at| at.0),
        waiting: waiting.collect(),
        dead: dead.map(|it| save_entry(&it.message, it.state, (0, it.died))).collect(),
        overtaken: lane.overtaken.iter().map(save_overtaking).collect(),
    }
}

fn save_entry(message: &Message, state: Delivery, (arrival, at): (u64, Timestamp)) -> SavedEntry {
    let (number, until) = match state {
        Delivery::Pending | Delivery::Delivered { .. } | Delivery::Dropped => (0, 0),
        Delivery::Waiting { until, .. } => (1, until.0),
        Delivery::Exhausted { .. } => (2, 0),
        Delivery::Disabled { .. } => (3, 0),
    };
    SavedEntry {
        message: message.id.as_str().to_owned(),
        replay: message.replay,
        state: number,
        attempts: state.attempts(),
        until,
        arrival,
        at: at.0,
    }
}

fn save_overtaking((it, before): &(Overtaking, u64)) -> SavedOvertaking {
    SavedOvertaking {
        lead_low: it.lead.0 as u64,
        lead_high: (it.lead.0 >> 64) as u64,
        by: it.by.as_str().to_owned(),
        topic: it.topic.as_deref().map(str::to_owned),
        retracts: it.retracts.as_ref().map(|id| id.as_str().to_owned()),
        before: *before,
    }
}

fn load_lane(lane: &mut Lane, saved: SavedLane, messages: &Messages) -> Result<(), Unfit> {
    let endpoint = lane.settings.id.clone();
    lane.failing_since = saved.failing_since.map(Timestamp);
    let said = |saved: &SavedEntry| -> Result<Option<Message>, Unfit> {
        let id = MessageId::parse(&saved.message).map_err(|_| Unfit::Entry)?;
        // Of whoever is forgotten nothing can be said any more.
        let message = messages.get(&(endpoint.clone(), id)).cloned();
        Ok(message.map(|message| Message { replay: saved.replay, ..message }))
    };
    for saved in &saved.waiting {
        let (state, due) = (state(saved)?, Timestamp(saved.at));
        let Some(message) = said(saved)? else {
            continue;
        };
        lane.bytes += message.body.len();
        let lead = message.lead;
        lane.pending.insert(message.id.clone(), lead);
        let arrival = saved.arrival;
        let entry = Entry { message, arrival, state, due, flying: false, doubtful: true };
        lane.leads.entry(lead).or_default().push_back(entry);
        lane.line_up(lead);
    }
    for saved in &saved.dead {
        let (state, died) = (state(saved)?, Timestamp(saved.at));
        if let Some(message) = said(saved)? {
            lane.bytes += message.body.len();
            lane.dead.insert(message.id.clone(), DeadLetter { message, state, died });
        }
    }
    for saved in saved.overtaken {
        let id = |text: &str| MessageId::parse(text).map_err(|_| Unfit::Entry);
        let lead = u128::from(saved.lead_high) << 64 | u128::from(saved.lead_low);
        let overtaking = Overtaking {
            endpoint: endpoint.clone(),
            lead: LeadRef(lead),
            by: id(&saved.by)?,
            topic: saved.topic.map(Arc::from),
            retracts: saved.retracts.as_deref().map(id).transpose()?,
        };
        lane.overtaken.push((overtaking, saved.before));
    }
    Ok(())
}

fn state(saved: &SavedEntry) -> Result<Delivery, Unfit> {
    let attempts = saved.attempts;
    match saved.state {
        0 => Ok(Delivery::Pending),
        1 => Ok(Delivery::Waiting { attempts, until: Timestamp(saved.until) }),
        2 => Ok(Delivery::Exhausted { attempts }),
        3 => Ok(Delivery::Disabled { attempts }),
        _ => Err(Unfit::Number),
    }
}

fn numbers(it: &Counters) -> [u64; 14] {
    [
        it.enqueued,
        it.attempts,
        it.delivered,
        it.failed,
        it.shadowed,
        it.dead,
        it.dead_not_kept,
        it.resent,
        it.refused_by_limit,
        it.refused,
        it.superseded,
        it.retracted,
        it.forgotten,
        it.unmatched,
    ]
}

fn counters(it: [u64; 14]) -> Counters {
    Counters {
        enqueued: it[0],
        attempts: it[1],
        delivered: it[2],
        failed: it[3],
        shadowed: it[4],
        dead: it[5],
        dead_not_kept: it[6],
        resent: it[7],
        refused_by_limit: it[8],
        refused: it[9],
        superseded: it[10],
        retracted: it[11],
        forgotten: it[12],
        unmatched: it[13],
    }
}
