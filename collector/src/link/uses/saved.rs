//! How often links were used, as a snapshot holds it: at most [`LINKS_MAX`] of them.

use engine::time::Timestamp;
use rkyv::{Archive, Deserialize, Serialize};

use super::{Counted, LinkUses, Uses};

/// See the module's comment.
#[derive(Archive, Serialize, Deserialize)]
pub struct SavedUses {
    links: Vec<SavedLink>,
    pruned: Option<u64>,
}

#[derive(Archive, Serialize, Deserialize)]
struct SavedLink {
    id: u64,
    until: u64,
    times: u32,
}

impl LinkUses {
    /// Its saved form.
    pub fn save(&self) -> SavedUses {
        let counted = self.locked();
        let link = |(id, uses): (&u64, &Uses)| SavedLink {
            id: *id,
            until: uses.until.0,
            times: uses.times,
        };
        let links = counted.links.iter().map(link).collect();
        SavedUses { links, pruned: counted.pruned.map(|at| at.0) }
    }

    /// What was saved.
    pub fn load(saved: SavedUses) -> LinkUses {
        let link =
            |link: SavedLink| (link.id, Uses { times: link.times, until: Timestamp(link.until) });
        let links = saved.links.into_iter().map(link).collect();
        LinkUses(Counted { links, pruned: saved.pruned.map(Timestamp) }.into())
    }
}
