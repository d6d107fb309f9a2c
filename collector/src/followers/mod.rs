//! The Followers: everything besides the engine that knows what the journal said. They are moved
//! on record by record at a start, and saved, so that a start need not read all of it.
//!
//! Each has its saved form beside it (`saved.rs`): flat, made for this alone, so that none changes
//! when what is in memory does. Nothing personal is in it in clear: messages that are not finished
//! are there as the journal's own entries, sealed; what people search by is made anew.
//!
//! Owners stand in the plan by a hash of their address, and the queue's saved form holds only for
//! the endpoints it was made with: with others there is no way but to replay.

use std::collections::BTreeMap;
use std::fmt;

use engine::alert::{AlertId, Cause};
use engine::catalog::Catalog;
use engine::id::Position;
use engine::record::{Body, Record, Step};
use engine::snapshot::{load_catalog, save_catalog};
use rkyv::rancor::{self, Failure};
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use crate::link::uses::LinkUses;
use crate::link::uses::saved::SavedUses;
use crate::outbox::entry::Entry;
use crate::outbox::{Log, Replayed, SavedLog, SavedReplayed, Unseal, messages_of};
use crate::reader::Lists;
use crate::reader::saved::SavedLists;
use crate::webhook::MessageId;
use crate::webhook::queue::Queue;
use crate::webhook::queue::saved::{Messages, SavedQueue};

/// The version of the saved form. Another one is not read: the journal is replayed. In a base there
/// is no journal to replay: whoever makes it greater has to go on reading the earlier ones there.
pub const VERSION: u32 = 2;
/// In front: the version, and as many zeros as keep the rest aligned.
const HEAD_BYTES: usize = 16;

/// Why saved bytes are not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// They are of another version.
    Version,
    /// They are no saved form at all.
    Layout,
    /// A number stands for nothing.
    Number,
    /// A name stands for nothing.
    Name,
    /// An entry or an id in them cannot be read.
    Entry,
    /// Places in them do not follow each other, or are too many.
    Places,
    /// The names and versions of the rules cannot be read.
    Catalog,
    /// They were saved with other endpoints, or other limits of the queue.
    Endpoints,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unfit::Version => "they are of another version",
            Unfit::Layout => "they are no followers' state",
            Unfit::Number => "a number in them stands for nothing",
            Unfit::Name => "a name in them stands for nothing",
            Unfit::Entry => "an entry in them cannot be read",
            Unfit::Places => "places in them do not follow each other",
            Unfit::Catalog => "the names and versions of the rules cannot be read",
            Unfit::Endpoints => "the endpoints were others",
        })
    }
}

impl std::error::Error for Unfit {}

/// Which endpoints a saved form has to have been made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Those of now: for others the journal, which has everything, is replayed.
    Exact,
    /// Any: the journal's beginning is gone, and nobody could say more. What waits for an endpoint
    /// that is none now waits on.
    Adopted,
}

impl Fit {
    /// What a journal that begins at a position allows.
    pub fn of(first: Position) -> Fit {
        if first.ordinal() <= 1 { Fit::Exact } else { Fit::Adopted }
    }
}

/// What the journal's followers know. The queue is loading.
pub struct Followers {
    /// What lists show.
    pub lists: Lists,
    /// How often links were used.
    pub link_uses: LinkUses,
    /// What is left for the outbox.
    pub replayed: Replayed,
    /// What is to be delivered.
    pub queue: Queue,
    /// What was told.
    pub log: Log,
    /// Names and versions of the rules.
    pub catalog: Catalog,
    /// The entries of messages that wait or are dead, by their ids, as they stand in the journal:
    /// as many as the queue has messages.
    entries: BTreeMap<MessageId, Vec<u8>>,
}

#[derive(Archive, Serialize, Deserialize)]
struct Saved {
    lists: SavedLists,
    uses: SavedUses,
    replayed: SavedReplayed,
    queue: SavedQueue,
    log: SavedLog,
    catalog: Vec<u8>,
    entries: Vec<Vec<u8>>,
}

impl Followers {
    /// Of an empty journal. `queue` is loading and knows its endpoints.
    pub fn new(queue: Queue) -> Followers {
        Followers {
            lists: Lists::default(),
            link_uses: LinkUses::default(),
            replayed: Replayed::default(),
            queue,
            log: Log::default(),
            catalog: Catalog::default(),
            entries: BTreeMap::new(),
        }
    }

    /// Applies a record whose sealed parts were opened.
    pub fn evolve(
        &mut self,
        record: &Record,
        (position, incarnation): (Position, u32),
        unseal: &Unseal<'_>,
        alert_id: &dyn Fn(&Cause<'_>) -> AlertId,
    ) {
        match &record.body {
            Body::Published(published) => self.catalog.evolve_published(published),
            Body::Named(names) => self.catalog.evolve_names(names),
            Body::Hit(_) | Body::Due(_) | Body::Outbox(_) | Body::Step(_) => {}
        }
        self.lists.evolve(record, position, &self.catalog);
        self.link_uses.evolve(record);
        let place = (position, incarnation);
        self.replayed.evolve(&mut self.queue, record, place, unseal, alert_id, &self.log);
        match &record.body {
            Body::Outbox(bytes) => self.keep(bytes),
            Body::Step(step) if matches!(step.step, Step::Erase { .. }) => {
                self.entries.retain(|id, _| self.queue.has(id));
            }
            Body::Hit(_) | Body::Due(_) | Body::Published(_) | Body::Named(_) | Body::Step(_) => {}
        }
    }

    /// Keeps an entry for as long as a message of it waits or is dead.
    fn keep(&mut self, bytes: &[u8]) {
        let (alert, holds) = match Entry::decode(bytes) {
            Some(Entry::Queued(queued)) => (queued.alert, true),
            Some(Entry::Digest(digest)) => (digest.alert, true),
            Some(Entry::Attempt(attempt)) => (attempt.alert, false),
            Some(Entry::Disabled { .. }) | None => return,
        };
        let Ok(id) = MessageId::parse(&alert) else {
            return;
        };
        if !self.queue.has(&id) {
            self.entries.remove(&id);
        } else if holds {
            self.entries.entry(id).or_insert_with(|| bytes.to_vec());
        }
    }

    /// Their saved form. The same state gives the same bytes.
    pub fn save(&self) -> Vec<u8> {
        let saved = Saved {
            lists: self.lists.save(),
            uses: self.link_uses.save(),
            replayed: self.replayed.save(),
            queue: self.queue.save(),
            log: self.log.save(),
            catalog: save_catalog(&self.catalog),
            entries: self.entries.values().cloned().collect(),
        };
        let mut bytes = vec![0; HEAD_BYTES];
        bytes[..4].copy_from_slice(&VERSION.to_le_bytes());
        let saved = rkyv::to_bytes::<rancor::Error>(&saved);
        bytes.extend_from_slice(&saved.expect("memory is all that writing needs"));
        bytes
    }

    /// What was saved, its checksum verified. `queue` is loading and knows its endpoints. The
    /// records after those that were saved come next. Searching finds nobody by a word until
    /// [`Lists::remember`] was told what each lead said.
    pub fn load(
        bytes: &[u8],
        mut queue: Queue,
        fit: Fit,
        unseal: &Unseal<'_>,
    ) -> Result<Followers, Unfit> {
        let (head, body) = bytes.split_at_checked(HEAD_BYTES).ok_or(Unfit::Layout)?;
        if head[..4] != VERSION.to_le_bytes() {
            return Err(Unfit::Version);
        }
        if head[4..].iter().any(|byte| *byte != 0) {
            return Err(Unfit::Layout);
        }
        let mut aligned: AlignedVec = AlignedVec::with_capacity(body.len());
        aligned.extend_from_slice(body);
        let saved = rkyv::from_bytes::<Saved, Failure>(&aligned).map_err(|_| Unfit::Layout)?;
        let mut entries = BTreeMap::new();
        let mut messages = Messages::new();
        let mut digests = BTreeMap::new();
        for bytes in saved.entries {
            let entry = Entry::decode(&bytes).ok_or(Unfit::Entry)?;
            let id = match &entry {
                Entry::Queued(queued) => &queued.alert,
                Entry::Digest(digest) => &digest.alert,
                Entry::Attempt(_) | Entry::Disabled { .. } => return Err(Unfit::Entry),
            };
            let id = MessageId::parse(id).map_err(|_| Unfit::Entry)?;
            for message in messages_of(&entry, unseal) {
                messages.insert((message.endpoint.clone(), message.id.clone()), message);
            }
            if let Entry::Digest(digest) = entry {
                digests.insert(digest.alert.clone(), digest);
            }
            entries.insert(id, bytes);
        }
        match fit {
            Fit::Exact => queue.load(saved.queue, &messages)?,
            Fit::Adopted => queue.adopt(saved.queue, &messages)?,
        }
        entries.retain(|id, _| queue.has(id));
        Ok(Followers {
            lists: Lists::load(saved.lists)?,
            link_uses: LinkUses::load(saved.uses),
            replayed: Replayed::load(saved.replayed, digests)?,
            queue,
            log: Log::load(saved.log, unseal)?,
            catalog: load_catalog(&saved.catalog).map_err(|_| Unfit::Catalog)?,
            entries,
        })
    }
}
