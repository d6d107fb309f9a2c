//! What scoring.toml says beyond what the engine acts on in this version: fit, companies, sales'
//! answers, telling again. It is read and checked like the rest, so that a file which is accepted
//! today is accepted by the version that acts on it.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::rule::{Period, Points};

use super::super::problem::nearest;
use super::super::table::{Field, Table};
use super::rules::at_most_of;
use super::{band, points, rule_points, tell};

/// Most lines of [fit].
const FIT_RULES_MAX: usize = 2_000;
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
    /// Who a person is.
    pub fit: Option<Fit>,
    /// Lines of companies, by name.
    pub accounts: BTreeMap<String, AccountLine>,
    /// What sales' answers do.
    pub sales: Option<Sales>,
    /// When a lead that is in is told again, by threshold.
    pub again: BTreeMap<String, Again>,
}

/// Who a person is: points for attributes, and what they make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    /// So many attributes must be known for a grade.
    pub known_min: u32,
    /// From here on it is A, B, C; less is D.
    pub grades: [Points; 3],
    /// In the file's order.
    pub rules: Vec<FitRule>,
}

/// One line of [fit].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FitRule {
    /// What is looked at.
    pub attribute: String,
    /// What it must be.
    pub test: FitTest,
    /// What it gives.
    pub points: Points,
}

/// What an attribute must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FitTest {
    /// One of these is in it.
    Has(Vec<String>),
    /// It is one of these.
    Is(Vec<String>),
    /// It ends in one of these.
    Ends(Vec<String>),
    /// It is a number from here to there, both included.
    Between(Option<i64>, Option<i64>),
    /// It stands in a list of this name in `lists/`.
    List(String),
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

/// Telling again while in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Again {
    /// This far above the score last told.
    pub every: Points,
    /// So often in a period.
    pub at_most: Option<(u32, Period)>,
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
        let written = [
            ("[fit]", self.fit.is_some()),
            ("[accounts]", !self.accounts.is_empty()),
            ("[sales]", self.sales.is_some()),
            ("[thresholds] again", !self.again.is_empty()),
        ];
        let written = written.into_iter().filter(|(_, written)| *written);
        written.map(|(name, _)| name).collect()
    }

    pub(super) fn read(&mut self, root: &Table<'_>) {
        self.fit = root.get("fit").and_then(|field| read_fit(&field));
        if let Some(table) = root.get("accounts").and_then(|field| field.table()) {
            for entry in table.entries() {
                if let Some(line) = account_line(&entry) {
                    self.accounts.insert(entry.name.to_owned(), line);
                }
            }
            table.finish();
        }
        self.sales = root.get("sales").and_then(|field| read_sales(&field));
    }

    pub(super) fn read_again(&mut self, threshold: &str, field: &Field<'_>) {
        let Some(table) = field.table() else {
            return;
        };
        let every = table.need("every").and_then(|field| points(&field, 1));
        let at_most = table.get("at_most").and_then(|field| at_most_of(&field));
        table.finish();
        if let Some(every) = every {
            let again = Again { every, at_most };
            self.again.insert(threshold.to_owned(), again);
        }
    }
}

fn read_fit(field: &Field<'_>) -> Option<Fit> {
    let table = field.table()?;
    let known_min = table.need("known_min").and_then(|field| field.whole(0..=64));
    let grades = table.need("grades").and_then(|field| {
        let grades = field.table()?;
        let lines = ["A", "B", "C"].map(|grade| grades.need(grade));
        let lines = lines.map(|field| rule_points(&field?));
        grades.finish();
        let [a, b, c] = lines;
        let lines = [a?, b?, c?];
        if lines[0] <= lines[1] || lines[1] <= lines[2] {
            field.problem("\"A\" must be above \"B\", and \"B\" above \"C\"");
        }
        Some(lines)
    });
    let list = table.need("rules").and_then(|field| field.list());
    let list = list.unwrap_or_default();
    if list.len() > FIT_RULES_MAX {
        field.problem_of_word(format!("at most {FIT_RULES_MAX} lines"), None);
    }
    let rules = list.iter().take(FIT_RULES_MAX).filter_map(fit_rule);
    let rules = rules.collect();
    table.finish();
    Some(Fit { known_min: known_min? as u32, grades: grades?, rules })
}

fn fit_rule(field: &Field<'_>) -> Option<FitRule> {
    let table = field.table()?;
    let attribute = table.need("attribute").and_then(|field| field.name());
    let points = table.need("points").and_then(|field| rule_points(&field));
    let words = |word| {
        let list = table.get(word).map(|field: Field<'_>| field.one_or_more());
        let text = |field: &Field<'_>| field.text().map(str::to_owned);
        list.map(|list| list.unwrap_or_default().iter().filter_map(text).collect())
    };
    let number = |word| table.get(word).map(|field| field.whole(i64::MIN..=i64::MAX));
    let (from, to) = (number("from"), number("to"));
    if let (Some(Some(from)), Some(Some(to)), Some(field)) = (from, to, table.get("to"))
        && from > to
    {
        field.problem("\"to\" must not be below \"from\"");
    }
    let between =
        (from.is_some() || to.is_some()).then(|| FitTest::Between(from.flatten(), to.flatten()));
    let list = table.get("list").and_then(|field| field.name());
    let tests: Vec<FitTest> = [
        words("has").map(FitTest::Has),
        words("is").map(FitTest::Is),
        words("ends").map(FitTest::Ends),
        between,
        list.map(|name| FitTest::List(name.to_owned())),
    ]
    .into_iter()
    .flatten()
    .collect();
    if tests.len() != 1 {
        table.problem(
            "a line needs one of \"has\", \"is\", \"ends\", \"list\", \"from\" and \"to\"",
        );
    }
    table.finish();
    Some(FitRule {
        attribute: attribute?.to_owned(),
        test: tests.into_iter().next()?,
        points: points?,
    })
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
