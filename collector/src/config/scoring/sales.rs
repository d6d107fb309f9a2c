//! `[sales]` of scoring.toml: what sales' answers do, and when sales works.

use std::collections::BTreeSet;

use engine::hours::Hours;
use engine::sales::SalesRules;
use engine::stage::FeedbackKind;
use engine::time::UtcOffset;

use super::super::problem::nearest;
use super::super::table::{Field, quoted};
use super::fit::{self, Lists};
use super::points;
use super::rules::rule_points;

/// The days a week's hours may be of.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

/// Reads the section. Where points go is known when the version is published.
pub(super) fn read(field: &Field<'_>, offset: UtcOffset, lists: &Lists<'_>) -> Option<SalesRules> {
    let table = field.table()?;
    let accept = table.get("accept_within");
    let accept_within = accept.and_then(|field| field.duration());
    let hours = table.get("hours").and_then(|field| read_hours(&field, offset, lists));
    let mut worth = Vec::new();
    if let Some(answers) = table.get("points").and_then(|field| field.table()) {
        for kind in FeedbackKind::ALL {
            let points = answers.get(kind.name()).and_then(|field| rule_points(&field));
            worth.extend(points.map(|points| (kind, points)));
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
    let lost = table.get("lost").and_then(|field| {
        let lost = field.table()?;
        if let Some(field) = lost.need("score") {
            field.word(&["half"]);
        }
        let rest = lost.need("rest").and_then(|field| field.duration());
        lost.finish();
        rest
    });
    table.finish();
    Some(SalesRules { accept_within, hours, points: worth, category: None, rejected, lost })
}

fn read_hours(field: &Field<'_>, offset: UtcOffset, lists: &Lists<'_>) -> Option<Hours> {
    let table = field.table()?;
    let days = table.need("days").and_then(|field| days(&field));
    let from = table.need("from").and_then(|field| field.time_of_day());
    let to_field = table.need("to");
    let to = to_field.and_then(|field| field.time_of_day());
    if let (Some(from), Some(to), Some(field)) = (from, to, to_field)
        && to <= from
    {
        field.problem("\"to\" must be after \"from\"");
    }
    let holidays = table.get("holidays").map(|field| holidays(&field, lists)).unwrap_or_default();
    table.finish();
    Some(Hours { offset, days: days?, from: from?, to: to?, holidays })
}

/// The dates of a list, one a line.
fn holidays(field: &Field<'_>, lists: &Lists<'_>) -> BTreeSet<i64> {
    let mut days = BTreeSet::new();
    let Some(name) = field.name() else {
        return days;
    };
    for word in fit::list_of(field, name.strip_suffix(".txt").unwrap_or(name), lists) {
        let Ok(date) = word.parse::<jiff::civil::Date>() else {
            let message = format!("the list has {}, and needs dates", quoted(&word));
            field.problem(format!("{message} such as 2026-12-31"));
            break;
        };
        let midnight = date.to_datetime(jiff::civil::Time::midnight());
        let midnight = jiff::tz::TimeZone::UTC.to_timestamp(midnight);
        days.extend(midnight.map(|it| it.as_millisecond().div_euclid(DAY_MS)));
    }
    days
}

/// `mon-fri`, or one day. From Friday to Monday is four days.
fn days(field: &Field<'_>) -> Option<[bool; 7]> {
    let text = field.text()?;
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let mut places = [0; 2];
    for (day, place) in [first, last].into_iter().zip(&mut places) {
        let Some(found) = DAYS.iter().position(|known| *known == day) else {
            let near = nearest(&day.chars().take(3).collect::<String>(), DAYS);
            let near = near.map(|near| text.replacen(day, near, 1));
            field.problem_meant("days are written as \"mon-fri\"", near);
            return None;
        };
        *place = found;
    }
    let [first, last] = places;
    let mut days = [false; 7];
    for step in 0..=(last + 7 - first) % 7 {
        days[(first + step) % 7] = true;
    }
    Some(days)
}
