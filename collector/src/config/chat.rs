//! When an endpoint that people read is written to: not while they rest, not too often, and once
//! in the morning what is open.

use std::time::Duration;

use super::table::{Field, Table};

/// Messages a day for one owner, unless the endpoint says otherwise.
const DAILY_MAX: u32 = 10;
/// The most that may be said instead.
const DAILY_MAX_MAX: i64 = 10_000;

/// A room that people read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chat {
    /// When they rest.
    pub quiet: Option<Quiet>,
    /// Messages a day for one owner. Further ones are listed in a digest; with 0, all are.
    pub daily_max: u32,
    /// When the summary is sent, after midnight.
    pub summary: Option<Duration>,
}

/// The hours in which people rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiet {
    /// From then on, after midnight,
    pub from: Duration,
    /// until then, after the next midnight if it is not after `from`.
    pub to: Duration,
    /// And on the whole of days on which nobody works.
    pub weekend: bool,
}

impl Default for Chat {
    fn default() -> Chat {
        Chat { quiet: None, daily_max: DAILY_MAX, summary: None }
    }
}

impl Chat {
    /// Reads what an endpoint says of it. Whoever says anything must be a chat.
    pub(super) fn read(table: &Table<'_>, is_chat: bool) -> Option<Chat> {
        let (quiet, most, summary) =
            (table.get("quiet"), table.get("daily_max"), table.get("summary"));
        if !is_chat {
            for field in [quiet, most, summary].into_iter().flatten() {
                field.problem_of_word(format!("\"{}\" needs \"chat = true\"", field.name), None);
            }
            return None;
        }
        let most = most.and_then(|field| field.whole(0..=DAILY_MAX_MAX));
        Some(Chat {
            quiet: quiet.and_then(|field| Quiet::read(&field)),
            daily_max: most.map_or(DAILY_MAX, |most| most as u32),
            summary: summary.and_then(|field| field.time_of_day()),
        })
    }
}

impl Quiet {
    /// Reads `{ from = "19:00", to = "08:00", weekend = true }`.
    pub(super) fn read(field: &Field<'_>) -> Option<Quiet> {
        let table = field.table()?;
        let (from, to) = (table.need("from"), table.need("to"));
        let times = [from, to].map(|field| field.and_then(|field| field.time_of_day()));
        let weekend = table.get("weekend").map(|field| field.flag());
        table.finish();
        let ([Some(begin), Some(end)], Some(from)) = (times, from) else {
            return None;
        };
        if begin == end {
            from.problem("\"from\" and \"to\" are the same: nobody would ever be told");
            return None;
        }
        Some(Quiet { from: begin, to: end, weekend: weekend.unwrap_or(Some(false))? })
    }
}
