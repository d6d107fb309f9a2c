//! The Plan: how many messages a room has got for each owner today, and what is kept for its next
//! digest. Everything in it follows from the entries of the journal, so that a restart counts and
//! lists nothing twice and nothing less.

pub mod saved;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use engine::id::{LeadId, Position};
use engine::time::Timestamp;

use super::entry::{Counts, Digest, Queued};
use super::when::Slot;
use crate::webhook::queue;

/// Messages kept for one room's digest. Further ones are sent one by one: none is lost.
pub const LISTED_MAX: usize = 10_000;
/// Messages that were held, and are named in the next summary: the latest. All are sent all the
/// same.
const HELD_MAX: usize = 1_000;
/// Further ahead than the queue holds anything: a clock that was wrong said so.
const AHEAD_MAX: Duration = queue::HELD_MAX;
/// After so long no summary names what was held.
const SUMMED_UP_WITHIN: Duration = Duration::from_hours(48);
/// Days whose messages are still counted: clocks and offsets differ by less.
const DAYS_KEPT: i64 = 4;

/// A message that is to be named in a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its id.
    pub alert: String,
    /// Whom it is about.
    pub lead: LeadId,
    /// The entry that holds its line.
    pub entry: Position,
    /// From then on it can be named.
    pub from: Timestamp,
}

impl Kept {
    /// From when on it can be named: at once, if that would be too far ahead.
    fn since(&self, now: Timestamp) -> Timestamp {
        if self.from > now.plus(AHEAD_MAX) { now } else { self.from }
    }
}

/// What is known of one room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Room {
    /// Messages sent one by one, by owner and day.
    sent: BTreeMap<Counts, u32>,
    listed: Vec<Kept>,
    held: Vec<Kept>,
    /// Digests of a day, by day and occasion.
    digests: BTreeMap<(i64, String), u32>,
    /// What the digests of the latest moment said of whom.
    said: (u64, BTreeSet<(String, LeadId)>),
}

/// See the module's comment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    rooms: BTreeMap<String, Room>,
}

impl Plan {
    /// Takes in a message that was frozen in the entry at `entry`.
    pub fn take(&mut self, queued: &Queued, entry: Position) {
        if let Some(back) = &queued.retracts {
            for room in self.rooms.values_mut() {
                room.listed.retain(|kept| kept.alert != *back);
                room.held.retain(|kept| kept.alert != *back);
            }
        }
        let Some(lead) = queued.lead_id() else {
            return;
        };
        for frozen in queued.bodies.iter().filter(|frozen| !frozen.ends) {
            let Some(endpoint) = &frozen.endpoint else {
                continue;
            };
            let alert = || queued.alert.clone();
            let kept = |from| Kept { alert: alert(), lead, entry, from: Timestamp(from) };
            match (frozen.listed, frozen.not_before, &frozen.counts) {
                (None, None, None) => {}
                (Some(slot), ..) => self.room(endpoint).listed.push(kept(slot)),
                (None, held, counts) => {
                    let room = self.room(endpoint);
                    room.count(counts.as_ref());
                    if let Some(until) = held {
                        if room.held.len() == HELD_MAX {
                            room.held.remove(0);
                        }
                        room.held.push(kept(until));
                    }
                }
            }
        }
    }

    /// Takes in a digest.
    pub fn digest(&mut self, digest: &Digest) {
        let room = self.room(&digest.endpoint);
        let named: BTreeSet<&str> =
            digest.items.iter().filter_map(|item| item.alert.as_deref()).collect();
        room.listed.retain(|kept| !named.contains(kept.alert.as_str()));
        // Whatever was held until then has been sent, and is not news any more.
        room.held.retain(|kept| kept.from.0 > digest.slot);
        if room.said.0 != digest.slot {
            room.said = (digest.slot, BTreeSet::new());
        }
        let said = digest
            .items
            .iter()
            .filter_map(|item| Some((item.section.clone(), LeadId::parse(&item.lead)?)));
        room.said.1.extend(said);
        room.digests.retain(|(day, _), _| day + DAYS_KEPT > digest.day);
        *room.digests.entry((digest.day, digest.occasion.clone())).or_default() += 1;
    }

    /// People were erased: nothing of them is listed.
    pub fn forget(&mut self, leads: &[LeadId]) {
        for room in self.rooms.values_mut() {
            room.listed.retain(|kept| !leads.contains(&kept.lead));
            room.held.retain(|kept| !leads.contains(&kept.lead));
            room.said.1.retain(|(_, lead)| !leads.contains(lead));
        }
    }

    fn room(&mut self, endpoint: &str) -> &mut Room {
        self.rooms.entry(endpoint.to_owned()).or_default()
    }

    /// How many messages were sent one by one.
    pub fn sent(&self, endpoint: &str, counts: &Counts) -> u32 {
        let room = self.rooms.get(endpoint);
        room.and_then(|room| room.sent.get(counts)).copied().unwrap_or(0)
    }

    /// Whether one more message can be kept for a digest.
    pub fn has_room(&self, endpoint: &str) -> bool {
        self.rooms.get(endpoint).is_none_or(|room| room.listed.len() < LISTED_MAX)
    }

    /// Rooms with messages that are to be listed by now.
    pub fn due(&self, now: Timestamp) -> Vec<String> {
        let due = |room: &Room| room.listed.iter().any(|kept| kept.since(now) <= now);
        self.rooms.iter().filter(|(_, room)| due(room)).map(|(name, _)| name.clone()).collect()
    }

    /// What is to be listed in a room by now.
    pub fn listed(&self, endpoint: &str, now: Timestamp) -> Vec<Kept> {
        let listed = self.rooms.get(endpoint).map(|room| room.listed.as_slice());
        let at = |kept: &Kept| Kept { from: kept.since(now), ..kept.clone() };
        listed.unwrap_or_default().iter().map(at).filter(|kept| kept.from <= now).collect()
    }

    /// What was held in a room until some moment after `after`, and at the latest until `until`.
    pub fn held(&self, endpoint: &str, after: Timestamp, until: Timestamp) -> Vec<Kept> {
        let held = self.rooms.get(endpoint).map(|room| room.held.as_slice());
        let within = |kept: &&Kept| after < kept.from && kept.from <= until;
        held.unwrap_or_default().iter().filter(within).cloned().collect()
    }

    /// The entries whose lines are yet to be read: of what is to be listed, and of what was held
    /// so lately that a summary may name it.
    pub fn needs(
        &self,
        now: Timestamp,
        is_endpoint: &dyn Fn(&str) -> bool,
    ) -> impl Iterator<Item = Position> {
        let rooms = self.rooms.iter().filter(move |(name, _)| is_endpoint(name));
        rooms.flat_map(move |(_, room)| {
            let held = room.held.iter().filter(move |it| {
                it.from <= now.plus(AHEAD_MAX) && now.since(it.from) < SUMMED_UP_WITHIN
            });
            room.listed.iter().chain(held).map(|kept| kept.entry)
        })
    }

    /// The number of the next digest of an occasion's day.
    pub fn part(&self, endpoint: &str, slot: &Slot) -> u32 {
        let key = (slot.day, slot.occasion.name().to_owned());
        let room = self.rooms.get(endpoint);
        room.and_then(|room| room.digests.get(&key)).copied().unwrap_or(0)
    }

    /// Whether a digest of this moment said so of a lead already.
    pub fn has_said(&self, endpoint: &str, slot: &Slot, section: &str, lead: LeadId) -> bool {
        self.rooms.get(endpoint).is_some_and(|room| {
            room.said.0 == slot.at.0 && room.said.1.contains(&(section.to_owned(), lead))
        })
    }
}

impl Room {
    fn count(&mut self, counts: Option<&Counts>) {
        let Some(counts) = counts else {
            return;
        };
        self.sent.retain(|known, _| known.day + DAYS_KEPT > counts.day);
        *self.sent.entry(counts.clone()).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Frozen, Item};
    use super::super::when::Occasion;
    use super::*;

    fn counts(owner: &str, day: i64) -> Counts {
        Counts { owner: owner.into(), day }
    }

    fn frozen(day: i64, held: Option<u64>, listed: Option<u64>) -> Frozen {
        Frozen {
            endpoint: Some("room".into()),
            not_before: held,
            counts: Some(counts("sato", day)),
            listed,
            ..Frozen::default()
        }
    }

    fn queued(alert: &str, lead: u64, frozen: Frozen) -> Queued {
        Queued {
            alert: alert.into(),
            lead: LeadId(lead).to_string(),
            bodies: vec![frozen],
            ..Queued::default()
        }
    }

    fn slot(at: u64, day: i64) -> Slot {
        Slot { at: Timestamp(at), day, occasion: Occasion::Evening }
    }

    fn digest(at: u64, day: i64, items: &[(&str, u64, &str)]) -> Digest {
        let item = |(section, lead, alert): &(&str, u64, &str)| Item {
            section: (*section).into(),
            lead: LeadId(*lead).to_string(),
            alert: Some((*alert).into()),
            line: String::new(),
        };
        Digest {
            alert: "d".into(),
            endpoint: "room".into(),
            occasion: "evening".into(),
            slot: at,
            day,
            part: 0,
            test: false,
            not_before: None,
            form: "json".into(),
            lang: "ja".into(),
            items: items.iter().map(item).collect(),
        }
    }

    fn names(kept: &[Kept]) -> Vec<&str> {
        kept.iter().map(|kept| kept.alert.as_str()).collect()
    }

    #[test]
    fn messages_of_a_day_are_counted_by_owner_and_those_listed_are_not() {
        let mut plan = Plan::default();
        for alert in ["a", "b"] {
            plan.take(&queued(alert, 1, frozen(10, None, None)), Position(1));
        }
        plan.take(&queued("c", 1, frozen(10, None, Some(50))), Position(2));
        plan.take(&queued("d", 1, frozen(11, Some(40), None)), Position(3));
        let ends = Frozen { ends: true, ..frozen(10, None, None) };
        plan.take(&queued("e", 1, ends), Position(4));
        let sent = |owner, day| plan.sent("room", &counts(owner, day));
        assert_eq!((sent("sato", 10), sent("sato", 11), sent("mori", 10)), (2, 1, 0));
        assert_eq!(plan.sent("other", &counts("sato", 10)), 0);
        let mut later = plan.clone();
        later.take(&queued("f", 1, frozen(14, None, None)), Position(5));
        assert_eq!(later.sent("room", &counts("sato", 10)), 0, "long ago");
    }

    #[test]
    fn what_is_kept_is_listed_once_in_the_digest_that_names_it() {
        let mut plan = Plan::default();
        for (alert, lead, at) in [("a", 1, 50), ("b", 2, 50), ("c", 3, 90)] {
            plan.take(&queued(alert, lead, frozen(10, None, Some(at))), Position(lead));
        }
        assert_eq!(plan.due(Timestamp(49)), [""; 0]);
        assert_eq!(plan.due(Timestamp(50)), ["room"]);
        assert_eq!(names(&plan.listed("room", Timestamp(50))), ["a", "b"]);
        let slot = slot(50, 10);
        assert_eq!(plan.part("room", &slot), 0);
        plan.digest(&digest(50, 10, &[("listed", 1, "a")]));
        assert_eq!(plan.part("room", &slot), 1, "a long one is several messages");
        assert_eq!(names(&plan.listed("room", Timestamp(99))), ["b", "c"]);
        assert!(plan.has_said("room", &slot, "listed", LeadId(1)));
        assert!(!plan.has_said("room", &slot, "untaken", LeadId(1)));
        plan.digest(&digest(90, 11, &[("listed", 2, "b"), ("listed", 3, "c")]));
        assert_eq!(plan.due(Timestamp(99)), [""; 0]);
        assert!(!plan.has_said("room", &slot, "listed", LeadId(1)), "another moment");
    }

    #[test]
    fn what_is_taken_back_before_the_digest_is_in_none() {
        let mut plan = Plan::default();
        plan.take(&queued("a", 1, frozen(10, None, Some(50))), Position(1));
        plan.take(&queued("b", 1, frozen(10, Some(50), None)), Position(2));
        for back in ["a", "b"] {
            let other = Frozen { endpoint: Some("sfa".into()), ..Frozen::default() };
            let back = Queued { retracts: Some(back.into()), ..queued("r", 1, other) };
            plan.take(&back, Position(3));
        }
        assert_eq!(plan.due(Timestamp(99)), [""; 0]);
        assert_eq!(plan.held("room", Timestamp(0), Timestamp(99)), []);
    }

    #[test]
    fn what_was_held_is_named_in_the_summary_after_it_and_in_no_later_one() {
        let mut plan = Plan::default();
        for (alert, until) in [("a", 40), ("b", 50), ("c", 60)] {
            plan.take(&queued(alert, 1, frozen(10, Some(until), None)), Position(1));
        }
        let held = plan.held("room", Timestamp(40), Timestamp(50));
        assert_eq!(names(&held), ["b"]);
        plan.digest(&digest(50, 10, &[]));
        assert_eq!(names(&plan.held("room", Timestamp(0), Timestamp(99))), ["c"]);
    }

    #[test]
    fn a_room_with_too_much_to_list_is_told_one_by_one() {
        let mut plan = Plan::default();
        for number in 0..LISTED_MAX {
            assert!(plan.has_room("room"), "{number}");
            plan.take(&queued(&number.to_string(), 1, frozen(1, None, Some(9))), Position(1));
        }
        assert!(!plan.has_room("room"));
    }

    #[test]
    fn what_is_yet_to_be_listed_or_summed_up_is_needed_for_rooms_that_there_are() {
        let mut plan = Plan::default();
        plan.take(&queued("a", 1, frozen(10, None, Some(50))), Position(4));
        plan.take(&queued("b", 1, frozen(10, Some(50), None)), Position(3));
        let needs = |now, known| {
            let mut found: Vec<_> = plan.needs(Timestamp(now), &|_: &str| known).collect();
            found.sort_unstable();
            found
        };
        assert_eq!(needs(60, true), [Position(3), Position(4)]);
        let later = SUMMED_UP_WITHIN.as_millis() as u64 + 50;
        assert_eq!(needs(later, true), [Position(4)], "no summary names it any more");
        assert_eq!(needs(60, false), [], "there is no such endpoint");
    }

    #[test]
    fn what_a_clock_years_ahead_has_kept_is_listed_now_and_holds_nothing_for_years() {
        let years = 10 * 365 * 86_400_000;
        let mut plan = Plan::default();
        plan.take(&queued("a", 1, frozen(10, None, Some(years))), Position(4));
        plan.take(&queued("b", 1, frozen(10, Some(years), None)), Position(3));
        let now = Timestamp(60);
        assert_eq!(plan.needs(now, &|_: &str| true).collect::<Vec<_>>(), [Position(4)]);
        assert_eq!(plan.due(now), ["room"]);
        let listed = plan.listed("room", now);
        assert_eq!((names(&listed), listed[0].from), (vec!["a"], now));
        plan.digest(&digest(60, 10, &[("listed", 1, "a")]));
        assert_eq!(plan.needs(now, &|_: &str| true).count(), 0);
    }

    #[test]
    fn of_who_was_erased_nothing_is_listed() {
        let mut plan = Plan::default();
        plan.take(&queued("a", 1, frozen(10, None, Some(50))), Position(1));
        plan.take(&queued("b", 1, frozen(10, Some(50), None)), Position(2));
        plan.take(&queued("c", 2, frozen(10, None, Some(50))), Position(3));
        plan.forget(&[LeadId(1), LeadId(3)]);
        assert_eq!(names(&plan.listed("room", Timestamp(99))), ["c"]);
        assert_eq!(plan.held("room", Timestamp(0), Timestamp(99)), []);
    }
}
