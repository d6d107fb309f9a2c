//! A report as an interval log of HdrHistogram, which its own tools and plotters open: a line an
//! interval and side, tagged `response` and `service`, in microseconds; and of the whole run, where
//! messages were heard, `click_to_alert` and `due_to_alert`.

use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use super::Report;

/// As bytes.
pub fn write(report: &Report) -> Result<Vec<u8>, String> {
    let (mut bytes, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
    let start = UNIX_EPOCH + Duration::from_millis(report.started_ms);
    let comment = format!("mikomi-loadtest, {}, microseconds", report.asked.target);
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment(&comment.replace(['\n', '\r'], " "))
        .with_start_time(start)
        .with_base_time(start)
        // As the other writers do it, so that plots are in milliseconds.
        .with_max_value_divisor(1_000.0)
        .begin_log_with(&mut bytes, &mut serializer)
        .map_err(|error| error.to_string())?;
    let every = Duration::from_secs_f64(report.interval_s);
    for interval in &report.intervals {
        let at = Duration::from_secs_f64(interval.at_s);
        for (name, summary) in [("response", &interval.response), ("service", &interval.service)] {
            log.write_histogram(&summary.histogram, at, every, Tag::new(name))
                .map_err(|error| format!("{error:?}"))?;
        }
    }
    let whole = Duration::from_secs_f64(report.seconds);
    if let Some(truth) = &report.truth {
        for (name, summary) in
            [("click_to_alert", &truth.click_to_alert), ("due_to_alert", &truth.due_to_alert)]
        {
            log.write_histogram(&summary.histogram, Duration::ZERO, whole, Tag::new(name))
                .map_err(|error| format!("{error:?}"))?;
        }
    }
    Ok(bytes)
}
