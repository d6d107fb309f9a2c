//! The figures of marketing and sales: what was told, what became of it, what was held back.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::id::{RuleId, ThresholdId};
use engine::record::NameKind;
use engine::time::Timestamp;
use serde_json::{Map, Value, json};

use super::view::View;
use super::{Admin, Query, Refusal};
use crate::outbox::message::{iso, points, rule_names};
use crate::reader::days::{DAYS_MAX, Day};

/// Days, unless others are asked for.
const DAYS: u64 = 30;
/// A day, in milliseconds.
const DAY_MS: i64 = 86_400_000;

impl Admin {
    /// The figures of the last days, today included.
    pub(super) fn kpi(&self, query: &Query) -> Result<Value, Refusal> {
        query.only(&["days"])?;
        let days = query.days()?.unwrap_or(DAYS);
        if !(1..=DAYS_MAX as u64).contains(&days) {
            return Err(Refusal::TooMuch("days"));
        }
        let (view, now) = (View::new(&self.app), self.app.clock.now());
        let today = now.day(view.scoring().terms().offset);
        let from = today - days as i64 + 1;
        let (found, unanswered) =
            self.lists.days(|it| (it.between(from, today), it.unanswered(from, now)));
        let sum = sum_of(&found);
        let survey = self.surveys.get(&self.app, &self.lists);
        Ok(json!({
            "schema": 1,
            "at": iso(now),
            "days": days,
            "from": date(from),
            "to": date(today),
            "alerts": alerts(&sum),
            "answers": {
                "asked": sum.asked,
                "answered": sum.answers(),
                "in_time": sum.in_time,
                "open": unanswered.open,
                "overdue": unanswered.overdue,
                "retracted": sum.retracted,
                "by_kind": by_kind(&sum),
                "taken": sum.verdicts[0],
                "rejected": sum.verdicts[1],
                "in_time_rate": rate(sum.in_time, sum.asked),
                "taken_rate": rate(sum.verdicts[0], sum.answers()),
                "minutes": minutes(&sum, &view),
            },
            "precision": self.precision(&sum, &view),
            "held_back": {
                "gates": survey.gates(),
                "cooldown": {
                    "waiting": survey.waiting, "waited": sum.waited, "dropped": sum.dropped,
                },
                "max": cuts(&sum),
                "facts": sum.held,
            },
            "hot_unknown": survey.unknown,
            "untaken": survey.untaken,
            "surveyed": iso(survey.at),
            "by_day": found.iter().map(|(number, day)| one_day(*number, day)).collect::<Vec<_>>(),
        }))
    }

    /// How long answers took in the last days, in minutes, each with its labels.
    pub(super) fn answer_minutes(&self) -> Vec<(String, f64)> {
        let (view, now) = (View::new(&self.app), self.app.clock.now());
        let today = now.day(view.scoring().terms().offset);
        let found = self.lists.days(|it| it.between(today - DAYS as i64 + 1, today));
        let sum = sum_of(&found);
        let minutes = minutes(&sum, &view);
        let mut figures = Vec::new();
        for clock in ["wall", "working"] {
            for (quantile, key) in [("0.5", "p50"), ("0.9", "p90"), ("1", "max")] {
                let labels = format!("clock=\"{clock}\",quantile=\"{quantile}\"");
                figures.extend(minutes[clock][key].as_f64().map(|value| (labels, value)));
            }
        }
        figures
    }

    /// Of the messages that a lead is hot, how many sales took and rejected: by line, and by the
    /// rule whose points brought the lead over it.
    fn precision(&self, sum: &Day, view: &View<'_>) -> Value {
        let mut lines: BTreeMap<Option<ThresholdId>, [u64; 2]> = BTreeMap::new();
        let mut rules: BTreeMap<Option<RuleId>, [u64; 2]> = BTreeMap::new();
        for ((line, rule), verdicts) in &sum.hot {
            for to in [lines.entry(*line).or_default(), rules.entry(*rule).or_default()] {
                to[0] += verdicts[0];
                to[1] += verdicts[1];
            }
        }
        let catalog = self.app.engine.catalog();
        let row = |[taken, rejected]: [u64; 2]| {
            let precision = rate(taken, taken + rejected);
            json!({ "taken": taken, "rejected": rejected, "precision": precision })
        };
        let lines = lines.into_iter().map(|(line, verdicts)| {
            let number = line.map(|line| u16::from(line.0));
            let mut row = row(verdicts);
            row["threshold"] = json!(number.and_then(|it| catalog.name(NameKind::Threshold, it)));
            row
        });
        let rules = rules.into_iter().map(|(rule, verdicts)| {
            let mut row = row(verdicts);
            let named = rule.map(|rule| rule_names(view.scoring(), &catalog, rule));
            let (name, label) = named.unzip();
            (row["rule"], row["label"]) = (json!(name), json!(label));
            row
        });
        json!({ "by_threshold": lines.collect::<Vec<_>>(), "by_rule": rules.collect::<Vec<_>>() })
    }
}

fn sum_of(days: &[(i64, Day)]) -> Day {
    let mut sum = Day::default();
    for (_, day) in days {
        sum.add(day);
    }
    sum
}

fn alerts(sum: &Day) -> Vec<Value> {
    let row = |((kind, audience), count): (&(&'static str, String), &u64)| {
        let audience = Some(audience).filter(|audience| !audience.is_empty());
        json!({ "type": kind, "audience": audience, "count": count })
    };
    sum.alerts.iter().map(row).collect()
}

fn by_kind(sum: &Day) -> Map<String, Value> {
    sum.answered.iter().map(|(kind, count)| (kind.name().to_owned(), json!(count))).collect()
}

fn cuts(sum: &Day) -> Map<String, Value> {
    let row = |(name, (rows, cut)): (&&'static str, &(u64, engine::points::Points))| {
        ((*name).to_owned(), json!({ "rows": rows, "points": points(*cut) }))
    };
    sum.cuts.iter().map(row).collect()
}

/// How long the first answer took: by the wall, and in working hours as they are now.
fn minutes(sum: &Day, view: &View<'_>) -> Value {
    let sales = &view.scoring().sales;
    let of = |between: &dyn Fn(Timestamp, Timestamp) -> Duration| {
        let mut all: Vec<Duration> =
            sum.times.iter().map(|(told, answered)| between(*told, *answered)).collect();
        all.sort_unstable();
        json!({
            "p50": percentile(&all, 50),
            "p90": percentile(&all, 90),
            "max": percentile(&all, 100),
        })
    };
    json!({
        "count": sum.times.len(),
        "unknown": sum.times_unknown,
        "wall": of(&|told, answered| answered.since(told)),
        "working": of(&|told, answered| sales.between(told, answered)),
    })
}

/// The least of some sorted times below or at which so many of a hundred are, in minutes.
fn percentile(sorted: &[Duration], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    let time = sorted.get(rank.checked_sub(1)?)?;
    Some((time.as_secs_f64() / 6.0).round() / 10.0)
}

fn one_day(number: i64, day: &Day) -> Value {
    json!({
        "day": date(number),
        "alerts": day.alerts.values().sum::<u64>(),
        "asked": day.asked,
        "answered": day.answers(),
        "in_time": day.in_time,
        "taken": day.verdicts[0],
        "rejected": day.verdicts[1],
        "waited": day.waited,
        "dropped": day.dropped,
        "held_back": day.held.values().sum::<u64>(),
    })
}

/// A day by its number since the epoch.
fn date(number: i64) -> String {
    let day = jiff::Timestamp::from_millisecond(number.saturating_mul(DAY_MS));
    day.map(|day| day.to_string().split('T').next().unwrap_or_default().to_owned())
        .unwrap_or_default()
}

/// A part of a whole, to a thousandth; nothing of nothing.
fn rate(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| (part as f64 * 1_000.0 / whole as f64).round() / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_time_that_was_measured() {
        let minutes = |all: &[u64]| -> Vec<Duration> {
            all.iter().map(|&minutes| Duration::from_secs(minutes * 60)).collect()
        };
        assert_eq!(percentile(&[], 50), None);
        let one = minutes(&[7]);
        assert_eq!([1, 50, 100].map(|it| percentile(&one, it)), [Some(7.0); 3]);
        let ten = minutes(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        let found = [50, 90, 91, 100].map(|percent| percentile(&ten, percent));
        assert_eq!(found, [Some(5.0), Some(9.0), Some(10.0), Some(10.0)]);
        assert_eq!(percentile(&[Duration::from_secs(89)], 50), Some(1.5));
    }

    #[test]
    fn a_rate_of_nothing_is_none() {
        assert_eq!((rate(0, 0), rate(1, 3), rate(2, 2)), (None, Some(0.333), Some(1.0)));
        assert_eq!((date(0).as_str(), date(20_794).as_str()), ("1970-01-01", "2026-12-07"));
    }
}
