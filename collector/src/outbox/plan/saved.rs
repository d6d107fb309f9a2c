//! The plan as a snapshot holds it. Owners are staff, and stand in it by a hash of their address.

use std::collections::BTreeMap;

use engine::id::{LeadId, Position};
use engine::time::Timestamp;
use rkyv::{Archive, Deserialize, Serialize};

use super::{Counts, Kept, Plan, Room};

/// See the module's comment.
#[derive(Archive, Serialize, Deserialize)]
pub struct SavedPlan {
    rooms: Vec<SavedRoom>,
}

#[derive(Archive, Serialize, Deserialize)]
struct SavedRoom {
    endpoint: String,
    sent: Vec<(String, i64, u32)>,
    listed: Vec<SavedKept>,
    held: Vec<SavedKept>,
    digests: Vec<(i64, String, u32)>,
    said_at: u64,
    said: Vec<(String, u64)>,
}

#[derive(Archive, Serialize, Deserialize)]
struct SavedKept {
    alert: String,
    lead: u64,
    entry: u64,
    from: u64,
}

impl Plan {
    /// Its saved form.
    pub fn save(&self) -> SavedPlan {
        SavedPlan { rooms: self.rooms.iter().map(|(name, room)| room.save(name)).collect() }
    }

    /// What was saved.
    pub fn load(saved: SavedPlan) -> Plan {
        let room = |saved: SavedRoom| (saved.endpoint.clone(), Room::load(saved));
        Plan { rooms: saved.rooms.into_iter().map(room).collect() }
    }
}

impl Room {
    fn save(&self, endpoint: &str) -> SavedRoom {
        let sent = self.sent.iter().map(|(counts, sent)| (counts.owner.clone(), counts.day, *sent));
        let digests = self.digests.iter().map(|((day, of), count)| (*day, of.clone(), *count));
        let said = self.said.1.iter().map(|(section, lead)| (section.clone(), lead.0));
        SavedRoom {
            endpoint: endpoint.to_owned(),
            sent: sent.collect(),
            listed: self.listed.iter().map(Kept::save).collect(),
            held: self.held.iter().map(Kept::save).collect(),
            digests: digests.collect(),
            said_at: self.said.0,
            said: said.collect(),
        }
    }

    fn load(saved: SavedRoom) -> Room {
        let sent = saved.sent.into_iter().map(|(owner, day, sent)| (Counts { owner, day }, sent));
        let digests: BTreeMap<_, _> =
            saved.digests.into_iter().map(|(day, of, count)| ((day, of), count)).collect();
        let said = saved.said.into_iter().map(|(section, lead)| (section, LeadId(lead)));
        Room {
            sent: sent.collect(),
            listed: saved.listed.into_iter().map(Kept::load).collect(),
            held: saved.held.into_iter().map(Kept::load).collect(),
            digests,
            said: (saved.said_at, said.collect()),
        }
    }
}

impl Kept {
    fn save(&self) -> SavedKept {
        let (lead, entry, from) = (self.lead.0, self.entry.0, self.from.0);
        SavedKept { alert: self.alert.clone(), lead, entry, from }
    }

    fn load(saved: SavedKept) -> Kept {
        Kept {
            alert: saved.alert,
            lead: LeadId(saved.lead),
            entry: Position(saved.entry),
            from: Timestamp(saved.from),
        }
    }
}
