//! Erasing a person: the record that says so is durable first, then their keys go, then the
//! log of erasures knows. What a stop cuts off in between the next start does before anybody
//! is let in, and so it does with what that log knows and an older copy of the journal does not.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use engine::engine::{Authority, Erased, StepError};
use engine::id::{LeadId, Position};
use engine::time::Timestamp;

use super::{Failed, take};
use crate::app::App;
use crate::erasures::Erasures;
use crate::words;

/// How long the record of an erasure may take to the disk: after that, asking again finishes it.
const DURABLE_WITHIN: Duration = Duration::from_mins(1);

/// Erases a person, by any name of theirs. Nothing that was sealed for them can be read when
/// this ends.
pub fn erase(app: &App, lead: LeadId, why: &Authority) -> Result<Erased, Failed> {
    let mut erasures = erasures(app);
    erase_with(app, &mut erasures, lead, why)
}

fn erase_with(
    app: &App,
    erasures: &mut Erasures,
    lead: LeadId,
    why: &Authority,
) -> Result<Erased, Failed> {
    let known = app.engine.lead(lead);
    let members = known.iter().flat_map(|known| &known.content.members).map(|it| it.id);
    let mut names: Vec<LeadId> = members.chain([lead]).collect();
    let attributes = known.as_ref().map(engine::lead::Lead::attributes).unwrap_or_default();
    let why = Authority { reason: words::without(&why.reason, &attributes), ..why.clone() };
    // What is said of them from here on either stands before the record, or waits for a new key.
    app.sealer.close(&names);
    let done = take(app, |engine, means| engine.erase(lead, &why, means));
    let erased = match done {
        Ok(erased) => erased,
        Err(failed) => {
            if failed == Failed::Step(StepError::Erased) {
                // It may have been cut off after that.
                finish_all(app, erasures)?;
            }
            app.sealer.reopen(&names);
            return Err(failed);
        }
    };
    names.extend(&erased.names);
    names.sort_unstable();
    names.dedup();
    app.sealer.close(&names);
    finish(app, erasures, &names, (erased.position, erased.time))?;
    // What an older snapshot has of them goes when newer ones have taken its place.
    app.snapshots.wanted.store(true, Ordering::Release);
    Ok(erased)
}

/// Drops the keys of names that were erased, and then notes them in the log. Only then may they
/// have others.
fn finish(
    app: &App,
    erasures: &mut Erasures,
    names: &[LeadId],
    (position, time): (Position, Timestamp),
) -> Result<(), Failed> {
    // A lossy journal answers before this is on the disk; a key does not go before.
    if !app.journal.wait_durable(position, DURABLE_WITHIN) {
        return Err(Failed::Journal);
    }
    let done = app.sealer.forget(names).and_then(|()| erasures.add(names, time));
    done.map_err(|error| {
        tracing::error!(%error, "a person is erased and their key is not gone; start again");
        Failed::Keys
    })?;
    app.sealer.reopen(names);
    Ok(())
}

/// The same of all that the journal knows and the log does not.
fn finish_all(app: &App, erasures: &mut Erasures) -> Result<(), Failed> {
    let mut cut_off: BTreeMap<(Position, Timestamp), Vec<LeadId>> = BTreeMap::new();
    for (lead, (position, time)) in app.engine.erasures() {
        if !erasures.knows(lead, time) {
            cut_off.entry((position, time)).or_default().push(lead);
        }
    }
    for (erased, names) in cut_off {
        finish(app, erasures, &names, erased)?;
    }
    Ok(())
}

/// At the start, before anybody is let in: finishes what a stop cut off, and erases again whom
/// an older copy of the data brought back. Says whom.
pub fn reapply(app: &App) -> Result<Vec<LeadId>, Failed> {
    let mut erasures = erasures(app);
    finish_all(app, &mut erasures)?;
    let mut again = Vec::new();
    for (name, time) in erasures.erased().clone() {
        if app.engine.erasure(name).is_some_and(|(_, at)| at >= time) {
            continue;
        }
        let Some(lead) = app.engine.lead(name) else {
            // Nothing is known of them; then nothing can be read of them either.
            app.sealer.forget(&[name]).map_err(|_| Failed::Keys)?;
            continue;
        };
        // Who came after that is another beginning.
        if lead.content.member(name).is_none_or(|member| member.since > time) {
            continue;
        }
        let reason = "erased before this copy of the data was put back".to_owned();
        let why = Authority { reason, ..Authority::default() };
        again.extend(erase_with(app, &mut erasures, name, &why)?.names);
    }
    Ok(again)
}

fn erasures(app: &App) -> MutexGuard<'_, Erasures> {
    app.erasures.lock().unwrap_or_else(PoisonError::into_inner)
}
