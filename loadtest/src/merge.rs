//! Several machines that sent at the same time, as one: their histograms are added, so a percentile
//! is one of all requests and no mean of percentiles.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::Outcome;
use crate::cli::Output;
use crate::report::{Interval, Report, Summary, json, text};
use crate::run::keep;

/// Further apart than this they did not send at the same time.
const APART_MS_MAX: u64 = 10_000;

/// `merge`.
pub fn run(paths: &[PathBuf], output: &Output) -> Result<Outcome, String> {
    let mut reports = paths.iter().map(|path| json::read(path));
    let mut sum = reports.next().ok_or("there is no report")??;
    let mut invalid = sum.invalid.clone();
    let mut lag_max_us = sum.asked.lag_max_us;
    for report in reports {
        let report = report?;
        invalid.extend(report.invalid.clone());
        lag_max_us = lag_max_us.min(report.asked.lag_max_us);
        add(&mut sum, &report)?;
    }
    sum.asked.lag_max_us = lag_max_us;
    if let Some(name) = &output.name {
        sum.name.clone_from(name);
    }
    let mut slos = output.slos.clone();
    if slos.is_empty() {
        // Those that each was to keep.
        slos = sum.verdicts.iter().filter_map(|verdict| verdict.slo.parse().ok()).collect();
    }
    sum.judge(&slos);
    // What one of them could not keep the others do not mend.
    invalid.extend(std::mem::take(&mut sum.invalid));
    invalid.sort();
    invalid.dedup();
    sum.invalid = invalid;
    print!("{}", text::write(&sum));
    keep(&sum, output)
}

fn add(sum: &mut Report, other: &Report) -> Result<(), String> {
    if (sum.interval_s - other.interval_s).abs() > 1e-9 {
        return Err("their intervals are not as long".to_owned());
    }
    let apart = sum.started_ms.abs_diff(other.started_ms);
    if apart > APART_MS_MAX {
        eprintln!("they began {} s apart: their intervals are added all the same", apart / 1_000);
    }
    sum.seconds = sum.seconds.max(other.seconds);
    sum.asked.connections += other.asked.connections;
    sum.asked.threads += other.asked.threads;
    let (mine, theirs) = (&mut sum.requests, &other.requests);
    mine.due += theirs.due;
    mine.ended += theirs.ended;
    mine.errors += theirs.errors;
    mine.answered += theirs.answered;
    mine.due_per_s += theirs.due_per_s;
    mine.answered_per_s += theirs.answered_per_s;
    add_counts(&mut sum.outcomes, &other.outcomes);
    for (mine, theirs) in [
        (&mut sum.response, &other.response),
        (&mut sum.service, &other.service),
        (&mut sum.first_byte, &other.first_byte),
        (&mut sum.generator.lag, &other.generator.lag),
    ] {
        add_times(mine, theirs)?;
    }
    let (mine, theirs) = (&mut sum.generator, &other.generator);
    mine.in_time += theirs.in_time;
    mine.busy = mine.busy.max(theirs.busy);
    mine.waited += theirs.waited;
    mine.connections += theirs.connections;
    for (place, interval) in other.intervals.iter().enumerate() {
        match sum.intervals.get_mut(place) {
            Some(mine) => add_interval(mine, interval)?,
            None => sum.intervals.push(interval.clone()),
        }
    }
    // The truth is of one server and all that was sent to it: no machine alone knows it.
    sum.truth = None;
    // The rates of one machine's steps are no rates of all.
    sum.steps.clear();
    if sum.server.is_empty() {
        sum.server.clone_from(&other.server);
    }
    Ok(())
}

fn add_interval(sum: &mut Interval, other: &Interval) -> Result<(), String> {
    sum.target_per_s += other.target_per_s;
    sum.due += other.due;
    sum.answered += other.answered;
    sum.in_flight += other.in_flight;
    sum.unanswered += other.unanswered;
    add_counts(&mut sum.errors, &other.errors);
    sum.lag_max_us = sum.lag_max_us.max(other.lag_max_us);
    add_times(&mut sum.response, &other.response)?;
    add_times(&mut sum.service, &other.service)
}

fn add_counts(sum: &mut BTreeMap<String, u64>, other: &BTreeMap<String, u64>) {
    for (name, count) in other {
        *sum.entry(name.clone()).or_default() += count;
    }
}

fn add_times(sum: &mut Summary, other: &Summary) -> Result<(), String> {
    let mut times = sum.histogram.clone();
    times.add(&other.histogram).map_err(|error| error.to_string())?;
    *sum = Summary::of(times);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn two_reports_add_up_to_what_one_would_have_measured() {
        // Given the times of one run, dealt out to two.
        let times: Vec<u64> = (0..6_000).map(|it| 200 + it * 7 % 5_000).collect();
        let (one, other): (Vec<_>, Vec<_>) =
            times.iter().copied().enumerate().partition(|(place, _)| place % 3 == 0);
        let part = |times: &[(usize, u64)]| {
            report(times.iter().map(|(place, time)| ((place / 1_000) as u64, *time)))
        };
        let all: Vec<_> = times.iter().copied().enumerate().collect();
        let whole = part(&all);
        // When they are added.
        let mut sum = part(&one);
        add(&mut sum, &part(&other)).unwrap();
        // Then nothing tells them from the whole.
        assert_eq!(sum.response.histogram, whole.response.histogram);
        assert_eq!(sum.response.p999_us, whole.response.p999_us);
        assert_eq!(sum.outcomes, whole.outcomes);
        assert_eq!(sum.requests.due, whole.requests.due);
        for (mine, theirs) in sum.intervals.iter().zip(&whole.intervals) {
            assert_eq!(mine.service.histogram, theirs.service.histogram);
            assert_eq!((mine.due, mine.answered), (theirs.due, theirs.answered));
        }
    }

    #[test]
    fn intervals_of_another_length_are_not_added() {
        let mut one = report((0..10).map(|it| (it / 5, 100)));
        let other = Report { interval_s: 2.0, ..one.clone() };
        assert!(add(&mut one, &other).is_err());
    }
}
