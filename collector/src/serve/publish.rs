//! What the process itself journals: versions of the scoring, names of sites.

use std::sync::Arc;
use std::thread;

use engine::catalog::Catalog;
use engine::engine::Engine;
use engine::id::{Position, SiteId};
use engine::record::{Name, NameKind, Published, Record};
use engine::scoring::Scoring;
use engine::terms::Terms;
use engine::time::Timestamp;

use super::timers::TIMER_EVERY;
use crate::app::{App, InForce, Sites};
use crate::config::{self, Problem, ScoringFile, Settings};
use crate::install::Install;
use crate::journal::Journal;

/// A version of the scoring ready to be journaled, or the one in force already.
struct Edition {
    in_force: InForce,
    /// Nothing, if it is in force already.
    published: Option<Published>,
}

/// Puts a saved file into force, if it is another one. Whoever decides meanwhile under the
/// version before is told that it is stale, and decides again under this one.
pub fn publish(app: &App, file: &ScoringFile) -> Result<u32, Problem> {
    let _one = app.publishing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let now = app.clock.now();
    let Edition { in_force, published } = edition(&app.engine.catalog(), file, now)?;
    let (version, in_force) = (in_force.scoring.version, Arc::new(in_force));
    let Some(published) = published else {
        app.scoring.store(in_force);
        return Ok(version);
    };
    let bytes = published.text.len() + 64 * 1_024;
    push_now(&app.journal, bytes, |push| {
        let position = app.engine.publish(published, now, push);
        app.scoring.store(in_force);
        position
    });
    // Lines have moved: everybody may be due, at this very moment.
    app.engine.rebuild_timers(&app.scoring.load().scoring);
    Ok(version)
}

/// The same before there is an [`App`].
pub fn publish_first(
    engine: &Engine,
    journal: &Journal,
    file: &ScoringFile,
    now: Timestamp,
) -> Result<InForce, Problem> {
    let Edition { in_force, published } = edition(&engine.catalog(), file, now)?;
    if let Some(published) = published {
        let bytes = published.text.len() + 64 * 1_024;
        push_now(journal, bytes, |push| engine.publish(published, now, push));
    }
    Ok(in_force)
}

/// Makes a file the next version, unless it is the one in force: the same text that means the
/// same. Lists, and the program that reads it, may have changed what it means.
fn edition(catalog: &Catalog, file: &ScoringFile, now: Timestamp) -> Result<Edition, Problem> {
    let mut names: Vec<Name> = Vec::new();
    let latest = catalog.versions.latest();
    let (version, published) = (catalog.version() + 1, now.max(after(latest)));
    let scoring = made(catalog, file, (version, published), &mut names)?;
    let known = latest.filter(|known| {
        let same = Terms { version, published, ..(***known).clone() };
        same == *scoring.terms() && catalog.text == file.text.as_bytes()
    });
    if let Some(known) = known {
        let scoring = made(catalog, file, (known.version, known.published), &mut names)?;
        let in_force = InForce::new(scoring, &file.excluded, Arc::clone(&file.text));
        return Ok(Edition { in_force, published: None });
    }
    let published =
        Published { names, terms: scoring.terms().clone(), text: file.text.as_bytes().to_vec() };
    let in_force = InForce::new(scoring, &file.excluded, Arc::clone(&file.text));
    Ok(Edition { in_force, published: Some(published) })
}

/// A version comes into force after the one before it, also when the clock has stepped back.
fn after(latest: Option<&Arc<Terms>>) -> Timestamp {
    latest.map_or(Timestamp(0), |terms| Timestamp(terms.published.0.saturating_add(1)))
}

fn made(
    catalog: &Catalog,
    file: &ScoringFile,
    version: (u32, Timestamp),
    names: &mut Vec<Name>,
) -> Result<Scoring, Problem> {
    file.publish(&catalog.versions, version, &mut |kind, name| {
        catalog.intern(names, kind.into(), name)
    })
}

/// Pushes one record of the process's own and waits for it; a full journal is waited for.
fn push_now(
    journal: &Journal,
    bytes: usize,
    act: impl FnOnce(&mut dyn FnMut(&Record) -> Position) -> Position,
) {
    let mut reserved = loop {
        match journal.reserve(1, bytes) {
            Ok(reserved) => break reserved,
            Err(error) => {
                tracing::warn!(?error, "the journal takes nothing; waiting");
                thread::sleep(TIMER_EVERY);
            }
        }
    };
    let mut encoded = Vec::new();
    let position = act(&mut |record: &Record| {
        encoded.clear();
        record.encode(&mut encoded);
        reserved.push(&encoded)
    });
    if journal.wait_blocking(position).is_err() {
        tracing::error!("the journal failed");
    }
}

/// The sites, each with its number in the journal.
pub fn name_sites(
    engine: &Engine,
    journal: &Journal,
    settings: &Settings,
    install: &Install,
    now: Timestamp,
) -> Sites {
    let catalog = engine.catalog();
    let mut names = Vec::new();
    let numbered: Vec<(SiteId, config::Site)> = settings
        .sites
        .iter()
        .map(|site| (SiteId(catalog.intern(&mut names, NameKind::Site, &site.id)), site.clone()))
        .collect();
    if !names.is_empty() {
        let bytes = 4_096 + names.len() * 256;
        push_now(journal, bytes, |push| engine.name(names, now, push));
    }
    Sites::new(&numbered, &install.visitor)
}
