//! Recovery: the journal is opened, and every record applied to everything that is kept.

use std::path::Path;
use std::sync::Arc;

use engine::alert::AlertId;
use engine::catalog::Catalog;
use engine::engine::Engine;
use engine::record::{Body, Record};

use super::delivery::{endpoint_settings, queue_limits};
use super::{Options, StartError};
use crate::clock::Clock;
use crate::config::{Durability, Endpoint, Settings};
use crate::install::Install;
use crate::journal::committer::Now;
use crate::journal::{EXIT_POISONED, Found, Hooks, Journal, Options as JournalOptions};
use crate::link::uses::LinkUses;
use crate::outbox::{Log, Replayed};
use crate::reader::Lists;
use crate::seal::Sealer;
use crate::store::KeyedDisk;
use crate::timeline::unseal_with;
use crate::webhook::queue::{Input, Queue};

/// What recovery rebuilds.
pub(super) struct Recovered {
    pub(super) engine: Engine,
    pub(super) journal: Journal,
    pub(super) found: Found,
    pub(super) lists: Lists,
    pub(super) link_uses: LinkUses,
    pub(super) replayed: Replayed,
    pub(super) queue: Queue,
    pub(super) log: Log,
}

/// Opens the journal of a data folder and rebuilds everything from it.
pub(super) fn recover(
    settings: &Settings,
    options: &Options,
    data: &Path,
    (install, sealer, clock): (&Install, &Arc<Sealer>, &Clock),
    endpoints: &[Endpoint],
) -> Result<Recovered, StartError> {
    let disk = KeyedDisk::open(data.join("journal"), Arc::clone(sealer));
    let disk = disk.map_err(StartError::Keys)?;
    let mut journal_options = JournalOptions::new(install.id.0);
    journal_options.segment_bytes = settings.journal.segment_bytes;
    journal_options.pending_bytes_max = settings.limits.pending_bytes_max;
    journal_options.lossy = settings.journal.durability == Durability::Lossy;
    journal_options.accept_loss = options.accept_loss;
    let engine = Engine::new(settings.shards);
    let lists = Lists::default();
    let link_uses = LinkUses::default();
    let log = Log::default();
    let mut replayed = Replayed::default();
    let mut queue = Queue::new(queue_limits(settings));
    for endpoint in endpoints {
        if let Some(known) = endpoint_settings(endpoint, settings, false) {
            queue.step(Input::EndpointChanged(known), clock.now());
        }
    }
    let mut failed = None;
    let mut catalog = Catalog::default();
    let unseal = |lead, sealed: &[u8]| sealer.unseal(lead, sealed);
    let alert_id = |cause: &engine::alert::Cause<'_>| AlertId::derive(&install.alert, cause);
    let began_ms = clock.boot_ms();
    let hooks = Hooks {
        now: Box::new(hook_clock()),
        poisoned: Box::new(|why| {
            tracing::error!(?why, "the disk failed; exiting, replay will decide what is true");
            std::process::exit(EXIT_POISONED);
        }),
    };
    let (journal, found) = Journal::open(Arc::new(disk), &journal_options, hooks, |entry| {
        let mut record = match Record::decode(entry.bytes) {
            Ok(record) => record,
            Err(error) => {
                failed.get_or_insert((entry.position, error.to_string()));
                return;
            }
        };
        unseal_with(&mut record, unseal);
        engine.evolve(&record, entry.position);
        if matches!(record.body, Body::Published(_) | Body::Named(_)) {
            catalog = engine.catalog();
        }
        lists.evolve(&record, entry.position, &catalog);
        link_uses.evolve(&record);
        let place = (entry.position, entry.incarnation);
        replayed.evolve(&mut queue, &record, place, &unseal, &alert_id, &log);
    })
    .map_err(StartError::Journal)?;
    if let Some((position, why)) = failed {
        return Err(StartError::Record(position, why));
    }
    let took_ms = clock.boot_ms() - began_ms;
    tracing::info!(records = found.records, bytes = found.bytes, took_ms, "replayed");
    for lost in &found.lost {
        tracing::error!(?lost, "records were lost, and their loss accepted");
    }
    Ok(Recovered { engine, journal, found, lists, link_uses, replayed, queue, log })
}

/// The journal's own clock: it writes the time into segment headers, and measures idleness.
fn hook_clock() -> impl Fn() -> Now + Send {
    let clock = Clock::system();
    move || Now { wall_ms: clock.now().0, boot_ms: clock.boot_ms() }
}
