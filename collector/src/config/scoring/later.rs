//! What scoring.toml says beyond what the engine acts on in this version: companies, sales'
//! answers. It is read and checked like the rest, so that a file which is accepted today is
//! accepted by the version that acts on it.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::points::Points;

use super::super::problem::nearest;
use super::super::table::{Field, Table};
use super::rules::rule_points;
use super::thresholds::band;
use super::{points, tell};

/// The days a week's hours may be of.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// What sales may answer.
const ANSWERS: [&str; 11] = [
    "accepted",
    "rejected",
    "contacted",
    "meeting_planned",
    "meeting_done",
    "no_show",
    "opportunity",
    "won",
    "lost",
    "recycle",
    "snooze",
];

/// Read, checked, and not acted on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Later {
    /// Lines of companies, by name.
    pub accounts: BTreeMap<String, AccountLine>,
    /// What sales' answers do.
    pub sales: Option<Sales>,
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

/// What sales' answers do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sales {
    /// In working hours.
    pub accept_within: Option<Duration>,
    /// When people work.
    pub hours: Option<Hours>,
    /// Points by kind of answer.
    pub points: BTreeMap<String, Points>,
    /// By how much a rejection raises the bar, and for how long.
    pub rejected: Option<(Points, Duration)>,
    /// How long a lost lead rests; half of its score is taken.
    pub lost_rest: Option<Duration>,
}

/// When people work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hours {
    /// First and last day, `mon` to `sun`.
    pub days: (String, String),
    /// Minutes after midnight.
    pub from: u16,
    /// Minutes after midnight, after `from`.
    pub to: u16,
    /// The list of holidays in `lists/`.
    pub holidays: Option<String>,
}

impl Later {
    /// The sections that were written and are not acted on, for people to know.
    pub fn sections(&self) -> Vec<&'static str> {
        let written =
            [("[accounts]", !self.accounts.is_empty()), ("[sales]", self.sales.is_some())];
        let written = written.into_iter().filter(|(_, written)| *written);
        written.map(|(name, _)| name).collect()
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
        later.sales = root.get("sales").and_then(|field| read_sales(&field));
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

fn read_sales(field: &Field<'_>) -> Option<Sales> {
    let table = field.table()?;
    let accept = table.get("accept_within");
    let accept_within = accept.and_then(|field| field.duration());
    let hours = table.get("hours").and_then(|field| read_hours(&field));
    let mut by_answer = BTreeMap::new();
    if let Some(answers) = table.get("points").and_then(|field| field.table()) {
        for answer in ANSWERS {
            if let Some(points) = answers.get(answer).and_then(|field| rule_points(&field)) {
                by_answer.insert(answer.to_owned(), points);
            }
        }
        answers.finish();
    }
    let rejected = table.get("rejected").and_then(|field| {
        let rejected = field.table()?;
        let raise = rejected.need("raise").and_then(|field| points(&field, 0));
        let time = rejected.need("for").and_then(|field| field.duration());
        rejected.finish();
        Some((raise?, time?))
    });
    let lost_rest = table.get("lost").and_then(|field| {
        let lost = field.table()?;
        if let Some(field) = lost.need("score") {
            field.word(&["half"]);
        }
        let rest = lost.need("rest").and_then(|field| field.duration());
        lost.finish();
        rest
    });
    table.finish();
    Some(Sales { accept_within, hours, points: by_answer, rejected, lost_rest })
}

fn read_hours(field: &Field<'_>) -> Option<Hours> {
    let table = field.table()?;
    let days = table.need("days").and_then(|field| days(&field));
    let from = table.need("from").and_then(|field| time_of_day(&field));
    let to_field = table.need("to");
    let to = to_field.and_then(|field| time_of_day(&field));
    if let (Some(from), Some(to), Some(field)) = (from, to, to_field)
        && to <= from
    {
        field.problem("\"to\" must be after \"from\"");
    }
    let holidays = table.get("holidays").and_then(|field| field.name());
    table.finish();
    Some(Hours { days: days?, from: from?, to: to?, holidays: holidays.map(str::to_owned) })
}

/// `mon-fri`, or one day.
fn days(field: &Field<'_>) -> Option<(String, String)> {
    let text = field.text()?;
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    for day in [first, last] {
        if !DAYS.contains(&day) {
            let near = nearest(&day.chars().take(3).collect::<String>(), DAYS);
            let near = near.map(|near| text.replacen(day, near, 1));
            field.problem_meant("days are written as \"mon-fri\"", near);
            return None;
        }
    }
    Some((first.to_owned(), last.to_owned()))
}

/// `09:00`, in minutes after midnight.
fn time_of_day(field: &Field<'_>) -> Option<u16> {
    let text = field.text()?;
    let parsed = text.split_once(':').and_then(|(hours, minutes)| {
        let whole = |part: &str| {
            let digits = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
            part.parse::<u16>().ok().filter(|_| digits)
        };
        let (hours, minutes) = (whole(hours)?, whole(minutes)?);
        (hours * 60 + minutes <= 1_440 && minutes < 60).then_some(hours * 60 + minutes)
    });
    if parsed.is_none() {
        let meant = (text.len() == 4 && text.as_bytes()[1] == b':').then(|| format!("0{text}"));
        field.problem_meant("a time of day is written as \"09:00\"", meant);
    }
    parsed
}
