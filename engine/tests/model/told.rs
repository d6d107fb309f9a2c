//! What a person was told to have done: crossings, by the definitions alone, and which of them
//! made a message. These are facts; `life.rs` has what is derived.

use std::collections::BTreeMap;

use engine::id::ThresholdId;
use engine::threshold::{Crossing, Direction, Gate, Threshold};
use engine::time::Timestamp;

use super::life::{Life, Place};

/// What is known of where a person stands, and what was told of it.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub place: Place,
    number: u32,
    told: bool,
    held: bool,
    waits: Option<u64>,
    last_told: Option<u64>,
    opened: Option<Gate>,
}

/// A person, as far as what was known and told goes.
#[derive(Clone, Debug, Default)]
pub struct Person {
    pub clock: u64,
    pub lines: BTreeMap<ThresholdId, Known>,
    pub crossings: Vec<Crossing>,
}

impl Person {
    fn line(life: &Life, id: ThresholdId, at: u64) -> Option<&Threshold> {
        life.lines(at).iter().find(|line| line.id == id)
    }

    /// The first message that need not wait any longer, if nothing else happens before.
    pub fn next_release(
        &self,
        life: &Life,
        now: u64,
        before: Option<u64>,
    ) -> Option<(u64, ThresholdId)> {
        let waiting = self.lines.iter().filter(|(_, known)| known.place.inside);
        let due = waiting.filter_map(|(id, known)| Some((known.waits?.max(self.clock), *id)));
        let tells = |(at, id): &(u64, ThresholdId)| {
            Person::line(life, *id, *at).is_some_and(|line| line.tell.is_some())
        };
        due.filter(|due| due.0 <= now && before.is_none_or(|it| due.0 < it)).filter(tells).min()
    }

    pub fn flip(
        &mut self,
        life: &Life,
        id: ThresholdId,
        (at, since): (u64, u64),
        opened: Option<Gate>,
    ) {
        let Some(line) = Person::line(life, id, at) else {
            return;
        };
        let known = self.lines.entry(id).or_default();
        known.place = Place { inside: !known.place.inside, since };
        let tells = line.tell.is_some();
        let mut crossing = crossing(id, Direction::Fall, at, since);
        if known.place.inside {
            known.held = tells && opened == Some(Gate::Rules);
            let free = known.last_told.map(|told| told + line.cooldown.as_millis() as u64);
            known.waits = free.filter(|free| tells && *free > at && !known.held);
            known.told = tells && known.waits.is_none() && !known.held;
            known.number += 1;
            known.opened = Some(opened.unwrap_or(Gate::Score));
            known.last_told = if known.told { Some(at) } else { known.last_told };
            crossing.direction = Direction::Rise;
            crossing.opened_by = known.opened;
            crossing.held = known.held;
            crossing.waits_until = known.waits.map(Timestamp);
            crossing.told = known.told;
        } else {
            crossing.told = known.told && !known.held;
            (known.waits, known.held) = (None, false);
        }
        crossing.number = known.number;
        self.crossings.push(crossing);
    }

    pub fn release(&mut self, life: &Life, id: ThresholdId, at: u64) {
        if Person::line(life, id, at).is_none() {
            return;
        }
        let known = self.lines.entry(id).or_default();
        (known.told, known.waits, known.last_told) = (true, None, Some(at));
        self.crossings.push(Crossing {
            told: true,
            number: known.number,
            opened_by: known.opened,
            ..crossing(id, Direction::Release, at, known.place.since)
        });
    }

    pub fn settle(&mut self, line: &Threshold, at: u64, since: u64) {
        let known = self.lines.entry(line.id).or_default();
        known.place.since = since;
        let number = known.number;
        let settled = crossing(line.id, Direction::Settle, at, since);
        self.crossings.push(Crossing { number, ..settled });
    }
}

fn crossing(threshold: ThresholdId, direction: Direction, at: u64, since: u64) -> Crossing {
    Crossing {
        threshold,
        direction,
        at: Timestamp(at),
        since: Timestamp(since),
        number: 0,
        opened_by: None,
        told: false,
        held: false,
        waits_until: None,
    }
}
