//! A report as one page that needs nothing else: no network, no other file. What is shown is in it
//! as data; a short script draws it.

use serde_json::{Value, json};

use super::Report;
use crate::measured::Times;

const PAGE: &str = include_str!("page.html");
/// Points of a percentile spectrum, at equal distances of its logarithmic axis.
const SPECTRUM_POINTS: u32 = 120;
/// Rows of the map of response times: so many for each power of ten.
const ROWS_PER_DECADE: u32 = 12;

/// As text.
pub fn write(report: &Report) -> Result<String, String> {
    let mut shown = serde_json::to_value(report).map_err(|error| error.to_string())?;
    without_histograms(&mut shown);
    shown["spectrum"] = json!({
        "response": spectrum(&report.response.histogram),
        "service": spectrum(&report.service.histogram),
    });
    shown["heat"] = heat(report);
    // In a script element only an end tag or the start of a comment could be taken for another
    // thing; without any "<" there is neither.
    if let Some(truth) = &report.truth {
        shown["spectrum"]["click_to_alert"] = json!(spectrum(&truth.click_to_alert.histogram));
        shown["spectrum"]["due_to_alert"] = json!(spectrum(&truth.due_to_alert.histogram));
    }
    let shown = shown.to_string().replace('<', "\\u003c");
    let title = escape(&format!("{} - mikomi-loadtest", report.name));
    // Cut up first: what is put in is not looked at again.
    let parts = PAGE.split_once("{{title}}").and_then(|(head, rest)| {
        rest.split_once("{{data}}")
            .map(|(middle, end)| [head, &title, middle, &shown, end].concat())
    });
    parts.ok_or_else(|| "the page has no place for the data".to_owned())
}

/// The page knows the percentiles; what they are taken from is as large as all the rest.
fn without_histograms(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.shift_remove("histogram");
            fields.values_mut().for_each(without_histograms);
        }
        Value::Array(all) => all.iter_mut().for_each(without_histograms),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// 1 / (1 - p) and the time at p, as far as there are requests to tell.
fn spectrum(times: &Times) -> Vec<(f64, u64)> {
    let last = (times.len() as f64).max(1.0).log10();
    let points = (0..=SPECTRUM_POINTS).map(|point| {
        let rest = 10_f64.powf(last * f64::from(point) / f64::from(SPECTRUM_POINTS));
        (rest, times.value_at_quantile(1.0 - 1.0 / rest))
    });
    if times.is_empty() { Vec::new() } else { points.collect() }
}

/// How many requests of each interval took about so long: counts by row, from the row of the
/// shortest time on. Row `r` holds times from `10^(r / ROWS_PER_DECADE)` microseconds.
fn heat(report: &Report) -> Value {
    let row = |us: u64| (us.max(1) as f64).log10() * f64::from(ROWS_PER_DECADE);
    let times = &report.response.histogram;
    let first = if times.is_empty() { 0 } else { row(times.min()) as usize };
    let counts = report.intervals.iter().map(|interval| {
        let mut counts = Vec::new();
        for value in interval.response.histogram.iter_recorded() {
            let at = (row(value.value_iterated_to()) as usize).saturating_sub(first);
            if counts.len() <= at {
                counts.resize(at + 1, 0);
            }
            counts[at] += value.count_at_value();
        }
        counts
    });
    let counts: Vec<Vec<u64>> = counts.collect();
    json!({ "per_decade": ROWS_PER_DECADE, "first": first, "counts": counts })
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
