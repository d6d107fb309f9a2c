//! A report for a terminal: the verdicts first, then how fast, how late, what failed, and how the
//! generator itself did.

use std::fmt::Write as _;

use super::truth::Truth;
use super::{Report, Step, Summary};
use crate::slo::milliseconds;

/// What a run that proves nothing is called.
const INVALID: &str = "INVALID";

/// As text.
pub fn write(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = verdicts(&mut text, report);
    let _ = figures(&mut text, report);
    if !report.steps.is_empty() {
        text.push_str(&steps(&report.steps));
    }
    text
}

fn verdicts(text: &mut String, report: &Report) -> std::fmt::Result {
    for why in &report.invalid {
        writeln!(text, "{INVALID}   {why}: what follows says nothing of the server")?;
    }
    if let Some(truth) = &report.truth {
        truths(text, truth)?;
    }
    for verdict in &report.verdicts {
        let word = if verdict.met { "met      " } else { "MISSED   " };
        writeln!(text, "{word} {}: {}", verdict.slo, verdict.seen)?;
    }
    if report.verdicts.is_empty() && report.is_valid() {
        writeln!(text, "valid     no objective was given (--slo 'p99<10ms')")?;
    }
    Ok(())
}

/// What must be 0 comes first, whatever objectives there are.
fn truths(text: &mut String, truth: &Truth) -> std::fmt::Result {
    let counters = truth.counters();
    let all = counters.map(|(name, count)| format!("{name} {count}")).join(", ");
    let word =
        if counters.iter().all(|(_, count)| *count == 0) { "true     " } else { "UNTRUE   " };
    writeln!(text, "{word} {all}")?;
    for example in &truth.examples {
        writeln!(text, "          {example}")?;
    }
    let (hits, messages) = (&truth.hits, &truth.messages);
    writeln!(
        text,
        "          {} hits sent, {} of them again; {} acknowledged; {} never answered, of which \
         the server has {}; {} recorded; {} requests refused",
        hits.sent,
        hits.sent_again,
        hits.acknowledged,
        hits.unanswered,
        hits.unanswered_recorded,
        hits.recorded,
        hits.refused_requests
    )?;
    writeln!(
        text,
        "          {} people with {} rows compared; {} messages expected, {} came, {} of them \
         again, {} without a good signature; judged in {:.1} s",
        truth.leads,
        truth.rows,
        messages.expected,
        messages.heard,
        messages.repeated,
        messages.refused,
        truth.judged_s
    )?;
    for (name, times) in [("click", &truth.click_to_alert), ("due", &truth.due_to_alert)] {
        writeln!(
            text,
            "          {name} to alert: p50 {}, p99 {}, p99.9 {}, max {} of {}",
            milliseconds(times.p50_us as f64),
            milliseconds(times.p99_us as f64),
            milliseconds(times.p999_us as f64),
            milliseconds(times.max_us as f64),
            times.count
        )?;
    }
    Ok(())
}

fn figures(text: &mut String, report: &Report) -> std::fmt::Result {
    let (asked, requests) = (&report.asked, &report.requests);
    writeln!(text, "\nrequests  {} to {}", asked.requests, asked.target)?;
    writeln!(text, "schedule  {}, after {} s of warm-up", asked.schedule, asked.warm_s)?;
    writeln!(
        text,
        "rate      {:.1}/s due, {:.1}/s answered; {} due, {} answered, {} failed",
        requests.due_per_s,
        requests.answered_per_s,
        requests.due,
        requests.answered,
        requests.errors
    )?;
    writeln!(text, "\nlatency          response      service   (from when due | from when sent)")?;
    let (response, service) = (&report.response, &report.service);
    writeln!(
        text,
        "  mean       {:>12} {:>12}",
        milliseconds(response.mean_us),
        milliseconds(service.mean_us)
    )?;
    for (name, quantile) in [
        ("p50", 0.5),
        ("p75", 0.75),
        ("p90", 0.9),
        ("p95", 0.95),
        ("p99", 0.99),
        ("p99.9", 0.999),
        ("p99.99", 0.9999),
        ("max", 1.0),
    ] {
        let at = |it: &Summary| milliseconds(it.histogram.value_at_quantile(quantile) as f64);
        writeln!(text, "  {name:10} {:>12} {:>12}", at(response), at(service))?;
    }
    writeln!(text, "\nanswers   {}", counts(report, true))?;
    writeln!(text, "errors    {}", counts(report, false))?;
    let generator = &report.generator;
    writeln!(
        text,
        "generator lag p50 {}, p99 {}, max {} (bound {} at p99); busy {:.0} %",
        milliseconds(generator.lag.p50_us as f64),
        milliseconds(generator.lag.p99_us as f64),
        milliseconds(generator.lag.max_us as f64),
        milliseconds(asked.lag_max_us as f64),
        generator.busy * 100.0,
    )?;
    writeln!(
        text,
        "          {} of {} waited for one of {} connections; {} connections opened; seed {}",
        generator.waited, requests.due, asked.connections, generator.connections, asked.seed
    )
}

fn counts(report: &Report, good: bool) -> String {
    let known = report.outcomes.iter().filter(|(name, _)| is_good(name) == good);
    let all: Vec<String> = known.map(|(name, count)| format!("{name} {count}")).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

/// Whether an outcome of this name is none of the errors.
fn is_good(name: &str) -> bool {
    ["status_1", "status_2", "status_3", "dropped_"].iter().any(|good| name.starts_with(good))
}

/// A table of rates.
pub fn steps(steps: &[Step]) -> String {
    let mut text =
        "\n     rate/s   answered/s          p50          p99        p99.9   errors\n".to_owned();
    for step in steps {
        let word = match (step.valid, step.met) {
            (false, _) => INVALID,
            (true, true) => "",
            (true, false) => "missed",
        };
        let line = format!(
            "{:>11.1} {:>12.1} {:>12} {:>12} {:>12} {:>8}  {word}",
            step.rate,
            step.answered_per_s,
            milliseconds(step.p50_us as f64),
            milliseconds(step.p99_us as f64),
            milliseconds(step.p999_us as f64),
            step.errors
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
