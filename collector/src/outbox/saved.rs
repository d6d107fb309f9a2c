//! What replay leaves for the outbox, as a snapshot holds it.

use std::collections::BTreeMap;

use engine::alert::AlertId;
use engine::id::{LeadId, Position};
use engine::time::Timestamp;
use rkyv::{Archive, Deserialize, Serialize};

use super::entry::Digest;
use super::gather::Meetings;
use super::plan::Plan;
use super::plan::saved::SavedPlan;
use super::replay::{Due, Replayed};
use crate::followers::Unfit;

/// See the module's comment.
#[derive(Archive, Serialize, Deserialize)]
pub struct SavedReplayed {
    due: Vec<(String, u64, u16)>,
    meetings: Vec<(u64, u64)>,
    plan: SavedPlan,
    disabled: Vec<(String, u32)>,
    erased: Vec<(u64, u64)>,
}

impl Replayed {
    /// Its saved form.
    pub fn save(&self) -> SavedReplayed {
        let due = |(due, id): (&Due, &AlertId)| (id.as_str().to_owned(), due.position.0, due.place);
        let disabled = self.disabled.iter().map(|(name, print)| (name.clone(), *print));
        SavedReplayed {
            due: self.due.iter().map(due).collect(),
            meetings: self.meetings.0.iter().map(|(lead, at)| (lead.0, at.0)).collect(),
            plan: self.plan.save(),
            disabled: disabled.collect(),
            erased: self.erased.iter().map(|(lead, at)| (lead.0, at.0)).collect(),
        }
    }

    /// What was saved, and the digests that wait or are dead: they stand in their entries.
    pub fn load(
        saved: SavedReplayed,
        digests: BTreeMap<String, Digest>,
    ) -> Result<Replayed, Unfit> {
        let mut due = BTreeMap::new();
        for (id, position, place) in saved.due {
            let id = AlertId::parse(&id).ok_or(Unfit::Entry)?;
            due.insert(Due { position: Position(position), place }, id);
        }
        let meetings = saved.meetings.into_iter().map(|(lead, at)| (LeadId(lead), Timestamp(at)));
        Ok(Replayed {
            due,
            plan: Plan::load(saved.plan),
            meetings: Meetings(meetings.collect()),
            disabled: saved.disabled.into_iter().collect(),
            erased: saved
                .erased
                .into_iter()
                .map(|(lead, at)| (LeadId(lead), Position(at)))
                .collect(),
            digests,
        })
    }
}
