//! What scoring.toml says beyond what the engine acts on in this version: companies. It is read
//! and checked like the rest, so that a file which is accepted today is accepted by the version
//! that acts on it.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::points::Points;

use super::super::table::{Field, Table};
use super::thresholds::band;
use super::{points, tell};

/// Read, checked, and not acted on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Later {
    /// Lines of companies, by name.
    pub accounts: BTreeMap<String, AccountLine>,
}

/// A line of companies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountLine {
    /// At or above: in.
    pub rise: Points,
    /// Below: out.
    pub fall: Points,
    /// In for at least this long.
    pub dwell: Duration,
    /// Between two messages.
    pub cooldown: Duration,
    /// So many people must be active,
    pub people: Option<u32>,
    /// within this time.
    pub within: Option<Duration>,
    /// What one person may give.
    pub person_max: Option<Points>,
    /// Who is told.
    pub tell: Option<String>,
}

impl Later {
    /// The sections that were written and are not acted on, for people to know.
    pub fn sections(&self) -> Vec<&'static str> {
        let accounts = (!self.accounts.is_empty()).then_some("[accounts]");
        accounts.into_iter().collect()
    }

    pub(super) fn read(root: &Table<'_>) -> Later {
        let mut later = Later::default();
        if let Some(table) = root.get("accounts").and_then(|field| field.table()) {
            for entry in table.entries() {
                if let Some(line) = account_line(&entry) {
                    later.accounts.insert(entry.name.to_owned(), line);
                }
            }
            table.finish();
        }
        later
    }
}

fn account_line(entry: &Field<'_>) -> Option<AccountLine> {
    let table = entry.table()?;
    entry.check_name(entry.name);
    let (rise, fall) = band(&table, None);
    let duration = |word| table.get(word).and_then(|field| field.duration());
    let (dwell, cooldown) = (duration("dwell"), duration("cooldown"));
    let within = duration("within");
    let people = table.get("people");
    let count = people.and_then(|field| field.whole(1..=10_000));
    if let (Some(field), None) = (people, table.get("within")) {
        field.problem_of_word("\"people\" needs \"within\" beside it", None);
    }
    let person_max = table.get("person_max").and_then(|field| points(&field, 1));
    let tell = tell(&table);
    table.finish();
    Some(AccountLine {
        rise: rise?,
        fall: fall?,
        dwell: dwell.unwrap_or_default(),
        cooldown: cooldown.unwrap_or_default(),
        people: count.map(|people| people as u32),
        within,
        person_max,
        tell,
    })
}
