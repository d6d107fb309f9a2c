//! Steps that people and jobs take: joining and parting people, giving browsers to them and taking
//! them back, withdrawing hits, matching the past anew. Each is journaled with who did it and
//! why, and durable before it is answered.

pub mod erase;
pub mod rescore;
pub mod withdraw;

use std::fmt;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;

use engine::engine::{Authority, Engine, Means, StepError};
use engine::id::{LeadId, Position, ThresholdId, VisitorId};
use engine::identity::Assurance;
use engine::record::{Body, Record, Step};
use engine::time::Timestamp;

use crate::app::App;
use crate::journal::{Full, ReadError};
use crate::timeline;
use crate::words;

pub use self::erase::erase;
pub use self::withdraw::withdraw_scan;

/// Bytes reserved for a step. What it takes beyond that is counted.
const STEP_BYTES: usize = 64 * 1_024;
/// How long a full journal is waited for between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often a step is decided again because other rules came into force meanwhile.
const STALE_TRIES: usize = 1_000;

/// Why a step was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// The engine refuses it.
    Step(StepError),
    /// The journal takes nothing any more.
    Journal,
    /// A record that it is about cannot be read.
    Record(ReadError),
    /// It is about a record that is older than what is kept: from which one and which moment on
    /// there is anything.
    Removed(Position, Timestamp),
    /// It is about no step, or about one that no other can undo.
    NoStep,
    /// The log of personal keys, or that of erasures, cannot be written.
    Keys,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step(error) => error.fmt(f),
            Self::Journal => f.write_str("the journal takes nothing any more"),
            Self::Record(error) => write!(f, "a record cannot be read: {error}"),
            Self::Removed(first, _) => write!(f, "the journal is kept from record {} on", first.0),
            Self::Keys => f.write_str("the log of personal keys cannot be written"),
            Self::NoStep => f.write_str("there is no step at this position"),
        }
    }
}

impl From<StepError> for Failed {
    fn from(error: StepError) -> Failed {
        Failed::Step(error)
    }
}

impl From<ReadError> for Failed {
    fn from(error: ReadError) -> Failed {
        Failed::Record(error)
    }
}

/// Takes a step and waits until it is durable. If other rules come into force meanwhile, it is
/// decided again under those.
pub fn take<T>(
    app: &App,
    mut act: impl FnMut(&Engine, &mut Means<'_, '_>) -> Result<T, StepError>,
) -> Result<T, Failed> {
    for _ in 0..STALE_TRIES {
        match take_once(app, &mut act)? {
            Err(StepError::Stale) => thread::yield_now(),
            done => return Ok(done?),
        }
    }
    Err(Failed::Step(StepError::Stale))
}

fn take_once<T>(
    app: &App,
    act: &mut impl FnMut(&Engine, &mut Means<'_, '_>) -> Result<T, StepError>,
) -> Result<Result<T, StepError>, Failed> {
    let mut reserved = loop {
        match app.journal.reserve(1, STEP_BYTES) {
            Ok(reserved) => break reserved,
            Err(Full::Busy | Full::DiskFull) => thread::sleep(LOOK_EVERY),
            Err(Full::TooLarge { .. } | Full::Poisoned | Full::Stopping) => {
                return Err(Failed::Journal);
            }
        }
    };
    let in_force = app.scoring.load_full();
    let mut bytes = Vec::new();
    let mut last = None;
    let mut push = |record: &Record| {
        bytes.clear();
        // What people say of somebody goes with them.
        let sealed = words::sealed(&app.sealer, record);
        sealed.as_ref().unwrap_or(record).encode(&mut bytes);
        let position = reserved.push(&bytes);
        last = Some(position);
        position
    };
    let now = app.clock.now();
    let mut means = Means { scoring: &in_force.scoring, now, push: &mut push };
    let done = act(&app.engine, &mut means);
    if let Some(last) = last {
        app.journal.wait_blocking(last).map_err(|_| Failed::Journal)?;
    }
    Ok(done)
}

/// Joins two people. Says where the step is recorded, and who stays.
pub fn merge(
    app: &App,
    (one, other): (LeadId, LeadId),
    why: &Authority,
) -> Result<(Position, LeadId), Failed> {
    take(app, |engine, means| engine.merge(one, other, why, means))
}

/// Parts a name from whose it is. Says where the step is recorded, and from whom.
pub fn unmerge(app: &App, name: LeadId, why: &Authority) -> Result<(Position, LeadId), Failed> {
    take(app, |engine, means| engine.unmerge(name, why, means))
}

/// What a browser did while it was nobody's is a person's.
pub fn link(
    app: &App,
    (visitor, lead): (VisitorId, LeadId),
    assurance: Assurance,
    why: &Authority,
) -> Result<Position, Failed> {
    take(app, |engine, means| engine.link(visitor, lead, assurance, why, means))
}

/// What a browser did as a person is nobody's.
pub fn unlink(
    app: &App,
    (visitor, lead): (VisitorId, LeadId),
    why: &Authority,
) -> Result<Position, Failed> {
    take(app, |engine, means| engine.unlink(visitor, lead, why, means))
}

/// A browser is proved to be a person's.
pub fn confirm(
    app: &App,
    (visitor, lead): (VisitorId, LeadId),
    why: &Authority,
) -> Result<Position, Failed> {
    take(app, |engine, means| engine.confirm(visitor, lead, why, means))
}

/// A lead that is held at a line is told, or is not to be told.
pub fn release(
    app: &App,
    (lead, threshold): (LeadId, ThresholdId),
    told: bool,
    why: &Authority,
) -> Result<Position, Failed> {
    take(app, |engine, means| engine.release(lead, threshold, told, why, means))
}

/// A question for a person was answered.
pub fn dismiss(
    app: &App,
    (question, about): (Position, Option<LeadId>),
    why: &Authority,
) -> Result<Position, Failed> {
    let about = about.map(|lead| words::about(&app.sealer, lead, why));
    let why = about.as_ref().unwrap_or(why);
    take(app, |engine, means| {
        Ok(engine.note(Step::Dismiss { question }, Position::NONE, why, means))
    })
}

/// Undoes the step recorded at a position.
pub fn undo(app: &App, position: Position, why: &Authority) -> Result<Position, Failed> {
    let record = timeline::read(app, position).map_err(|error| unread(app, error))?;
    let Body::Step(step) = record.body else {
        return Err(Failed::NoStep);
    };
    if step.step == Step::Job {
        return withdraw::put_back(app, position, why);
    }
    // What undoes it for a browser names nobody by itself.
    let about = step.visit.as_ref().and(step.lead.as_ref()).map(|part| part.lead);
    let own = about.map(|lead| words::about(&app.sealer, lead, why));
    let why = own.as_ref().unwrap_or(why);
    take(app, |engine, means| engine.undo((&step, position), why, means))
}

/// Why a record that a step is about is not read.
fn unread(app: &App, error: ReadError) -> Failed {
    match (&error, timeline::kept_from(app)) {
        (ReadError::Removed { .. }, Some((first, at))) => Failed::Removed(first, at),
        _ => error.into(),
    }
}

/// Carries on with what a crash cut off.
pub fn resume(app: &App) -> Result<(), Failed> {
    take(app, |engine, means| {
        engine.resume(means);
        Ok(())
    })
}

/// Long jobs go one at a time.
fn alone(app: &App) -> std::sync::MutexGuard<'_, ()> {
    app.jobs.lock().unwrap_or_else(PoisonError::into_inner)
}
