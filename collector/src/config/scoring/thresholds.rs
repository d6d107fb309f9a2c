//! The lines of [thresholds]: where a lead goes in and out, and who is told.

use std::time::Duration;

use engine::grade::Grade;
use engine::id::ThresholdId;
use engine::points::Points;
use engine::scoring::{THRESHOLDS_MAX, Urgency};
use engine::session::SESSION_GAP;
use engine::threshold::{Again, Threshold};

use super::super::problem::{half_width, nearest};
use super::super::table::{Field, Table};
use super::rules::at_most_of;
use super::{POINTS_MAX, points, tell};

/// Reads `[thresholds]`.
pub(super) fn read(
    field: &Field<'_>,
    total_max: Option<Points>,
    levels: Option<&Urgency>,
) -> Vec<Threshold> {
    let Some(table) = field.table() else {
        return Vec::new();
    };
    let entries = table.entries();
    table.finish();
    if !(1..=THRESHOLDS_MAX).contains(&entries.len()) {
        field.problem_of_word(format!("there are 1 to {THRESHOLDS_MAX} thresholds"), None);
    }
    let mut thresholds: Vec<Threshold> = Vec::new();
    for (place, entry) in entries.iter().enumerate().take(THRESHOLDS_MAX) {
        thresholds.extend(threshold(entry, place, (total_max, levels)));
    }
    let line = |name: &str| thresholds.iter().find(|line| line.name == name);
    if let (Some(warm), Some(hot)) = (line("warm"), line("hot"))
        && warm.rise >= hot.rise
        && let Some(entry) = entries.iter().find(|entry| entry.name == "warm")
    {
        entry.problem_of_word("\"warm\" must rise below \"hot\"", None);
    }
    thresholds
}

fn threshold(
    entry: &Field<'_>,
    place: usize,
    (total_max, levels): (Option<Points>, Option<&Urgency>),
) -> Option<Threshold> {
    let table = entry.table()?;
    entry.check_name(entry.name);
    let (rise, fall) = band(&table, total_max);
    let dwell = table.get("dwell").and_then(|field| field.duration());
    let cooldown = table.get("cooldown").and_then(|field| field.duration());
    let grades = table.get("grades").map(|field| grades(&field));
    let recent = table.get("recent").and_then(|field| longer_than_a_visit(&field));
    let urgency = table.get("urgency").and_then(|field| urgency(&field, levels));
    let tell = tell(&table);
    let again_field = table.get("again");
    let again = again_field.and_then(|field| again(&field));
    if let (Some(field), None) = (again_field, &tell) {
        field.problem_of_word("\"again\" needs \"tell\": here nobody was told at all", None);
    }
    table.finish();
    Some(Threshold {
        id: ThresholdId(place as u8),
        name: entry.name.to_owned(),
        rise: rise?,
        fall: fall?,
        dwell: dwell.unwrap_or(Duration::ZERO),
        cooldown: cooldown.unwrap_or(Duration::ZERO),
        grades: grades.unwrap_or_default(),
        recent,
        urgency,
        tell,
        again,
    })
}

/// A time that can tell one visit from another: people are remembered by their visits.
pub(super) fn longer_than_a_visit(field: &Field<'_>) -> Option<Duration> {
    let duration = field.duration()?;
    if duration < SESSION_GAP {
        let message =
            format!("\"{}\" needs at least \"30m\": a shorter pause ends no visit", field.name);
        field.problem(message);
    }
    Some(duration)
}

/// `urgency = "medium"`: at least that.
fn urgency(field: &Field<'_>, levels: Option<&Urgency>) -> Option<Points> {
    let level = field.text()?;
    let least = match level {
        "medium" => levels?.medium,
        "high" => levels?.high,
        _ => {
            let meant = nearest(level, ["medium", "high"]).map(str::to_owned);
            field.problem_meant("\"urgency\" is \"medium\" or \"high\"", meant);
            return None;
        }
    };
    Some(least)
}

/// `{ every = 20, at_most = { n = 1, per = "3d" } }`
fn again(field: &Field<'_>) -> Option<Again> {
    let table = field.table()?;
    let every = table.need("every").and_then(|field| points(&field, 1));
    let at_most = table.get("at_most").and_then(|field| at_most_of(&field));
    table.finish();
    Some(Again { every: every?, at_most })
}

/// The two lines of a dead band: fall below rise, rise within what a score can be.
pub(super) fn band(
    table: &Table<'_>,
    total_max: Option<Points>,
) -> (Option<Points>, Option<Points>) {
    let (rise_field, fall_field) = (table.need("rise"), table.need("fall"));
    let rise = rise_field.and_then(|field| points(&field, 1));
    let fall = fall_field.and_then(|field| points(&field, -POINTS_MAX));
    if let (Some(rise), Some(fall), Some(field)) = (rise, fall, fall_field)
        && fall >= rise
    {
        let message = format!(
            "\"fall\" must be below \"rise\" ({}): between the two a lead stays where it is",
            rise.shown()
        );
        field.problem(message);
    }
    if let (Some(rise), Some(most), Some(field)) = (rise, total_max, rise_field)
        && rise > most
    {
        let most = most.shown();
        field.problem(format!("no score passes \"total_max\" ({most}): nobody gets here"));
    }
    (rise, fall)
}

fn grades(field: &Field<'_>) -> Vec<Grade> {
    let grade = |field: &Field<'_>| {
        let text = field.text()?;
        let parsed = Grade::parse(text);
        if parsed.is_none() {
            let plain = half_width(text).unwrap_or_else(|| text.to_owned());
            let meant = plain.trim().to_uppercase();
            let meant = Grade::parse(&meant).map(|grade| grade.letter().to_owned());
            let message = "a grade is \"A\", \"B\", \"C\", \"D\" or \"?\"";
            field.problem_meant(message, meant);
        }
        parsed
    };
    let list = field.one_or_more().unwrap_or_default();
    list.iter().filter_map(grade).collect()
}
