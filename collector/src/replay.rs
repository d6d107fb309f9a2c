//! `mikomi replay`: what a journal makes of its records, up to any of them or any moment; what
//! each did, or did to one lead; and where today's program would decide a hit otherwise. Nothing
//! is taken or written.

mod recheck;
mod trace;

use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use engine::engine::Engine;
use engine::id::{LeadId, Position};
use engine::time::Timestamp;
use serde_json::json;

use crate::clock::Clock;
use crate::config::Surroundings;
use crate::past::{Past, PastError, When};

use self::recheck::Recheck;
use self::trace::Trace;

/// How a journal is replayed.
#[derive(Clone, Default)]
pub struct Wish {
    /// Locks each map is divided into; the hash does not depend on it.
    pub shards: usize,
    /// The moment the hash is taken at; else that of `until`, else now.
    pub now: Option<Timestamp>,
    /// The last of it.
    pub until: Option<Until>,
    /// A line for each record of this lead.
    pub lead: Option<LeadId>,
    /// A line for each record.
    pub trace: bool,
    /// Decide each hit again, and report what differs.
    pub recheck: Option<Surroundings>,
}

/// Up to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// This record, and not the next.
    Position(Position),
    /// What was known at this moment: records whose time is not after it.
    Time(Timestamp),
}

impl Until {
    /// Reads a position, or a moment: ISO 8601 with an offset, or `@` and milliseconds since 1970.
    pub fn parse(text: &str) -> Option<Until> {
        if let Some(millis) = text.strip_prefix('@') {
            return millis.parse().ok().map(|it| Until::Time(Timestamp(it)));
        }
        if let Ok(position) = text.parse() {
            return Some(Until::Position(Position(position)));
        }
        let time: jiff::Timestamp = text.parse().ok()?;
        let millis = u64::try_from(time.as_millisecond()).ok()?;
        Some(Until::Time(Timestamp(millis)))
    }
}

/// Why it did not come to an end.
#[derive(Debug)]
pub enum ReplayError {
    /// The data folder cannot be read.
    Past(PastError),
    /// The output is gone or cannot be written.
    Output(io::Error),
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Past(error) => error.fmt(f),
            Self::Output(error) => write!(f, "the output cannot be written: {error}"),
        }
    }
}

/// Replays, writes what is wanted, and last one line of JSON with the state's hash.
pub fn replay(data: &Path, wish: &Wish, output: &mut dyn Write) -> Result<(), ReplayError> {
    let past = Past::open(data).map_err(ReplayError::Past)?;
    let clock = Clock::system();
    let (last, moment) = match wish.until {
        Some(Until::Position(position)) => (position, None),
        Some(Until::Time(time)) => (Position(u64::MAX), Some(time)),
        None => (Position(u64::MAX), None),
    };
    let now = wish.now.or(moment).unwrap_or_else(|| clock.now());
    let engine = Engine::new(wish.shards);
    let mut trace = Trace::new(wish.trace, wish.lead);
    let mut recheck = wish.recheck.as_ref().map(Recheck::new);
    let mut counted = 0u64;
    let mut reached = Position::NONE;
    let mut written = Ok(());
    let base =
        past.base().map_err(ReplayError::Past)?.map(|base| (base.end.until, base.head.created));
    let (known, mut since) = base.unwrap_or_default();
    let mut wanted = |record: &engine::record::Record, position| {
        if position <= known {
            since = since.max(record.time);
        }
        moment.is_none_or(|at| record.time <= at)
    };
    let replayed = past.replay(&engine, last, &mut wanted, &mut |step, when| {
        let mut lines = Vec::new();
        if when == When::Before {
            if let Some(recheck) = &mut recheck {
                recheck.before(step, &engine, &mut lines);
            }
        } else {
            counted += 1;
            reached = step.entry.position;
            if let Some(recheck) = &mut recheck {
                recheck.after(step, &engine, &mut lines);
            }
            trace.after(step, &engine, &mut lines);
        }
        for line in lines {
            if written.is_ok() {
                written = writeln!(output, "{line}");
            }
        }
    });
    replayed.map_err(ReplayError::Past)?;
    // A base knows all of its records, also those that came after the moment.
    if moment.is_some_and(|at| at < since) {
        return Err(ReplayError::Past(PastError::BeforeBase(known, since)));
    }
    written.map_err(ReplayError::Output)?;
    let (visitors, leads) = engine.sizes();
    let mut outcome = json!({
        "records": counted,
        "until": reached.0,
        "visitors": visitors,
        "leads": leads,
        "hash": format!("{:032x}", engine.state_hash(now)),
        "now_ms": now.0,
    });
    if base.is_some() {
        outcome["base"] = json!({ "until": known.0, "created_ms": since.0 });
    }
    if let Some(recheck) = recheck {
        outcome["rechecked"] = recheck.figures();
    }
    if let Some(lead) = wish.lead {
        outcome["lead"] = trace::standing(lead, &engine, now);
    }
    writeln!(output, "{outcome}").map_err(ReplayError::Output)
}
