//! What the process itself journals: versions of the scoring, names of sites.

use std::sync::Arc;
use std::thread;

use engine::engine::Engine;
use engine::id::{Position, SiteId};
use engine::record::{Name, NameKind, Published, PublishedCategory, Record};
use engine::scoring::Scoring;
use engine::time::Timestamp;

use super::timers::TIMER_EVERY;
use crate::app::{InForce, Sites};
use crate::config::{self, Problem, ScoringFile, Settings};
use crate::install::Install;
use crate::journal::Journal;

/// Journals a version of the scoring, unless it is the one in force already.
pub fn publish_scoring(
    engine: &Engine,
    journal: &Journal,
    file: &ScoringFile,
    now: Timestamp,
) -> Result<InForce, Problem> {
    let catalog = engine.catalog();
    let same = catalog.version > 0 && catalog.text == file.text.as_bytes();
    let version = if same { catalog.version } else { catalog.version + 1 };
    let mut names: Vec<Name> = Vec::new();
    let scoring = file.publish(version, &mut |kind, name| {
        let kind = match kind {
            config::NameKind::Rule => NameKind::Rule,
            config::NameKind::Category => NameKind::Category,
            config::NameKind::Threshold => NameKind::Threshold,
        };
        catalog.intern(&mut names, kind, name)
    })?;
    if !same {
        let published = Published {
            version,
            names,
            categories: categories(&scoring),
            text: file.text.as_bytes().to_vec(),
        };
        let bytes = published.text.len() + 4_096;
        push_now(journal, bytes, |push| engine.publish(published, now, push));
    }
    Ok(InForce::new(scoring, &file.excluded, Arc::clone(&file.text)))
}

fn categories(scoring: &Scoring) -> Vec<PublishedCategory> {
    let published = |category: &engine::scoring::Category| PublishedCategory {
        id: category.id,
        half_life: category.half_life,
        in_total: category.in_total,
    };
    scoring.categories.iter().map(published).collect()
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
pub(super) fn name_sites(
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
