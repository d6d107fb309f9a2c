//! Counters by reason, latencies, and their text form for Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use engine::stage::FeedbackKind;
use hdrhistogram::Histogram;

use crate::feedback::Refused;
use crate::ingest::{Dropped, Reject};
use crate::outbox::held;

/// Quantiles shown of every latency.
const QUANTILES: [f64; 5] = [0.5, 0.9, 0.99, 0.999, 1.0];

/// Why a fact is not heard: a browser claims what only servers state.
pub const SERVER_ONLY: &str = "server_only";

/// Everything counted about hits. Other parts count for themselves.
pub struct Metrics {
    rejects: BTreeMap<&'static str, AtomicU64>,
    dropped: BTreeMap<&'static str, AtomicU64>,
    feedback: BTreeMap<(&'static str, &'static str), AtomicU64>,
    feedback_refused: BTreeMap<&'static str, AtomicU64>,
    dropped_facts: BTreeMap<&'static str, AtomicU64>,
    held_back: BTreeMap<&'static str, AtomicU64>,
    /// Hits recorded.
    pub hits: AtomicU64,
    /// Hits recorded, of visitors not admitted yet.
    pub first_hits: AtomicU64,
    /// Visitors admitted with their first hit.
    pub admitted: AtomicU64,
    /// Hits that were there already.
    pub duplicates: AtomicU64,
    /// Hits recorded and worth nothing.
    pub excluded: AtomicU64,
    /// First hits that could not be found again when their visitor came back.
    pub first_missing: AtomicU64,
    /// Tokens of links that are not ours, or too old.
    pub links_void: AtomicU64,
    /// Messages whose template failed; the one that ships took its place.
    pub templates_failed: AtomicU64,
    /// Uses of links that were used as often as they may be.
    pub links_used_up: AtomicU64,
    /// Clicks and opens that could not be recorded; whoever clicked was led on all the same.
    pub click_unrecorded: AtomicU64,
    /// Messages held while people rest.
    pub alerts_held: AtomicU64,
    /// Messages kept for a digest: too many for the day.
    pub alerts_listed: AtomicU64,
    /// Digests made.
    pub digests: AtomicU64,
    /// Panics while deciding a hit.
    pub panics: AtomicU64,
    /// From taking a request to its answer being due, in microseconds.
    pub acknowledge: Latency,
    /// From a hit's receipt to its alert being delivered, in milliseconds.
    pub click_to_alert: Latency,
}

/// A latency, counted without losing its tail.
pub struct Latency(Mutex<Histogram<u64>>);

impl Default for Latency {
    fn default() -> Latency {
        // Three digits up to an hour of microseconds; more counts as that.
        let histogram = Histogram::new_with_bounds(1, 3_600_000_000, 3);
        Latency(Mutex::new(histogram.expect("the bounds are constants that fit")))
    }
}

impl Latency {
    /// Counts one.
    pub fn record(&self, value: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(value.max(1));
    }

    fn write(&self, text: &mut String, name: &str, help: &str) {
        let histogram = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} summary");
        for quantile in QUANTILES {
            let value = histogram.value_at_quantile(quantile);
            let _ = writeln!(text, "{name}{{quantile=\"{quantile}\"}} {value}");
        }
        let sum = histogram.mean() * histogram.len() as f64;
        let _ = writeln!(text, "{name}_sum {sum:.0}\n{name}_count {}", histogram.len());
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        let zero = |name: &'static str| (name, AtomicU64::new(0));
        Metrics {
            rejects: Reject::NAMES.into_iter().map(zero).collect(),
            dropped: Dropped::ALL.map(|dropped| zero(dropped.name())).into(),
            feedback: kinds_and_outcomes().map(|pair| (pair, AtomicU64::new(0))).collect(),
            feedback_refused: Refused::NAMES.into_iter().map(zero).collect(),
            dropped_facts: [zero(SERVER_ONLY)].into(),
            held_back: held::REASONS.map(zero).into(),
            hits: AtomicU64::default(),
            first_hits: AtomicU64::default(),
            admitted: AtomicU64::default(),
            duplicates: AtomicU64::default(),
            excluded: AtomicU64::default(),
            first_missing: AtomicU64::default(),
            links_void: AtomicU64::default(),
            templates_failed: AtomicU64::default(),
            links_used_up: AtomicU64::default(),
            click_unrecorded: AtomicU64::default(),
            alerts_held: AtomicU64::default(),
            alerts_listed: AtomicU64::default(),
            digests: AtomicU64::default(),
            panics: AtomicU64::default(),
            acknowledge: Latency::default(),
            click_to_alert: Latency::default(),
        }
    }
}

impl Metrics {
    /// Counts a refusal.
    pub fn reject(&self, reject: Reject) {
        if let Some(counter) = self.rejects.get(reject.name()) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a hit that was deliberately dropped.
    pub fn drop_hit(&self, dropped: Dropped) {
        if let Some(counter) = self.dropped.get(dropped.name()) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts an answer of sales: its kind, and `applied` or why it changed nothing.
    pub fn count_feedback(&self, kind: FeedbackKind, outcome: &'static str) {
        if let Some(counter) = self.feedback.get(&(kind.name(), outcome)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts an answer that was not taken.
    pub fn refuse_feedback(&self, why: &'static str) {
        if let Some(counter) = self.feedback_refused.get(why) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a fact that a browser claimed.
    pub fn drop_fact(&self) {
        if let Some(counter) = self.dropped_facts.get(SERVER_ONLY) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a message that a fact held back from somebody.
    pub fn hold_back(&self, by: &str) {
        if let Some(counter) = self.held_back.get(by) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn write_feedback(&self, text: &mut String) {
        let name = "mikomi_feedback_total";
        let help = "Answers of sales, by kind, and whether they changed something.";
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
        for ((kind, outcome), counter) in &self.feedback {
            let count = counter.load(Ordering::Relaxed);
            let _ = writeln!(text, "{name}{{kind=\"{kind}\",outcome=\"{outcome}\"}} {count}");
        }
        write_counters(
            text,
            "mikomi_feedback_refused_total",
            "Answers of sales that were not taken, by reason.",
            &self.feedback_refused,
        );
    }

    /// All of it as Prometheus text.
    pub fn write(&self, text: &mut String) {
        self.write_reasons(text);
        for (name, help, counter) in self.counters() {
            write_figure(text, name, help, "counter", counter.load(Ordering::Relaxed) as f64);
        }
        self.write_feedback(text);
        self.acknowledge.write(
            text,
            "mikomi_acknowledge_microseconds",
            "From taking a request to its answer being due, after the disk.",
        );
        self.click_to_alert.write(
            text,
            "mikomi_click_to_alert_milliseconds",
            "From a hit's receipt to its alert being delivered.",
        );
    }

    fn counters(&self) -> Vec<(&'static str, &'static str, &AtomicU64)> {
        vec![
            ("mikomi_hits_total", "Hits recorded.", &self.hits),
            (
                "mikomi_first_hits_total",
                "Hits recorded of visitors who are not admitted yet.",
                &self.first_hits,
            ),
            (
                "mikomi_visitors_admitted_total",
                "Visitors admitted with their first hit.",
                &self.admitted,
            ),
            ("mikomi_duplicate_hits_total", "Hits that were recorded before.", &self.duplicates),
            ("mikomi_excluded_hits_total", "Hits recorded and worth nothing.", &self.excluded),
            (
                "mikomi_first_hits_missing_total",
                "First hits not found again when their visitor came back.",
                &self.first_missing,
            ),
            (
                "mikomi_links_void_total",
                "Tokens of links that are not ours, or too old.",
                &self.links_void,
            ),
            (
                "mikomi_templates_failed_total",
                "Messages whose template failed; the one that ships took its place.",
                &self.templates_failed,
            ),
            (
                "mikomi_links_used_up_total",
                "Uses of links that were used as often as they may be.",
                &self.links_used_up,
            ),
            (
                "mikomi_click_unrecorded_total",
                "Clicks and opens that could not be recorded.",
                &self.click_unrecorded,
            ),
            (
                "mikomi_alerts_held_total",
                "Messages held until people work again.",
                &self.alerts_held,
            ),
            (
                "mikomi_alerts_listed_total",
                "Messages listed in a digest instead of sent one by one.",
                &self.alerts_listed,
            ),
            ("mikomi_digests_total", "Digests and summaries made.", &self.digests),
            ("mikomi_panics_total", "Panics while a hit was decided.", &self.panics),
        ]
    }

    fn write_reasons(&self, text: &mut String) {
        write_counters(
            text,
            "mikomi_rejected_hits_total",
            "Hits refused, by reason.",
            &self.rejects,
        );
        write_counters(
            text,
            "mikomi_dropped_hits_total",
            "Hits deliberately dropped, by reason.",
            &self.dropped,
        );
        write_counters(
            text,
            "mikomi_dropped_facts_total",
            "Facts about people that were not heard, by reason; the hits were.",
            &self.dropped_facts,
        );
        write_counters_by(
            text,
            ("mikomi_alerts_held_back_total", "by"),
            "Messages that a fact held back from somebody, by fact.",
            &self.held_back,
        );
    }
}

/// What may become of an answer of sales.
const OUTCOMES: [&str; 5] = ["applied", "repeated", "older", "not_here", "too_many"];

fn kinds_and_outcomes() -> impl Iterator<Item = (&'static str, &'static str)> {
    let kinds = FeedbackKind::ALL.into_iter();
    kinds.flat_map(|kind| OUTCOMES.map(|outcome| (kind.name(), outcome)))
}

/// One figure as Prometheus text.
pub fn write_figure(text: &mut String, name: &str, help: &str, kind: &str, value: f64) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
}

fn write_counters(
    text: &mut String,
    name: &str,
    help: &str,
    counters: &BTreeMap<&'static str, AtomicU64>,
) {
    write_counters_by(text, (name, "reason"), help, counters);
}

fn write_counters_by(
    text: &mut String,
    (name, label): (&str, &str),
    help: &str,
    counters: &BTreeMap<&'static str, AtomicU64>,
) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
    for (value, counter) in counters {
        let _ = writeln!(text, "{name}{{{label}=\"{value}\"}} {}", counter.load(Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_counter_from_the_start() {
        let metrics = Metrics::default();
        metrics.reject(Reject::Busy);
        metrics.drop_hit(Dropped::Consent);
        metrics.acknowledge.record(250);
        let mut text = String::new();
        metrics.write(&mut text);
        for line in [
            "mikomi_rejected_hits_total{reason=\"busy\"} 1",
            "mikomi_rejected_hits_total{reason=\"unknown_site\"} 0",
            "mikomi_dropped_hits_total{reason=\"consent\"} 1",
            "mikomi_acknowledge_microseconds_count 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
