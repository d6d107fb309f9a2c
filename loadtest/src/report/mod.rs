//! A report: what a run measured, in the form in which it is kept, added up, compared and shown.

pub mod hlog;
pub mod html;
pub mod json;
pub mod text;
pub mod truth;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::truth::Truth;

use crate::load::Loaded;
use crate::measured::{Measured, Times, sum, times};
use crate::schedule::Timetable;
use crate::server::Look;
use crate::slo::{Seen, Slo};

/// Of the form; another number is another form.
pub const SCHEMA: &str = "mikomi-loadtest/1";
/// The share of what was due that has to be noticed before the schedule is over.
const IN_TIME_SHARE: f64 = 0.99;

/// What was measured and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// `mikomi-loadtest/1`.
    pub schema: String,
    /// What people call it.
    pub name: String,
    /// What was asked for.
    pub asked: Asked,
    /// By which machine.
    pub machine: BTreeMap<String, String>,
    /// When the first request was due, in milliseconds since 1970.
    pub started_ms: u64,
    /// What was counted of it: the schedule without its warm-up.
    pub seconds: f64,
    /// How long an interval is.
    pub interval_s: f64,
    /// Objectives, and whether they were met.
    pub verdicts: Vec<Judged>,
    /// Why nothing follows from it; empty where something does.
    pub invalid: Vec<String>,
    /// Whether the server's word is true, where that was looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truth: Option<Truth>,
    /// Requests.
    pub requests: Requests,
    /// By what became of them.
    pub outcomes: BTreeMap<String, u64>,
    /// From when requests were due.
    pub response: Summary,
    /// From when they were sent.
    pub service: Summary,
    /// From when they were sent until the first byte of their answers.
    pub first_byte: Summary,
    /// The generator itself.
    pub generator: Generator,
    /// One after the other, from the end of the warm-up.
    pub intervals: Vec<Interval>,
    /// Of a search for the highest rate, or of rates in steps.
    pub steps: Vec<Step>,
    /// What the server said of itself meanwhile.
    pub server: Vec<Look>,
}

/// What was asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Asked {
    /// Scheme, host and port.
    pub target: String,
    /// What was sent.
    pub requests: String,
    /// When.
    pub schedule: String,
    /// Not counted at the beginning.
    pub warm_s: f64,
    /// What chance followed from.
    pub seed: u64,
    /// Kept open.
    pub connections: u64,
    /// Threads that sent.
    pub threads: u64,
    /// The longest that an answer was waited for.
    pub timeout_s: f64,
    /// The longest lag of the generator at its 99th percentile.
    pub lag_max_us: u64,
}

/// An objective, judged.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Judged {
    /// As it was written.
    pub slo: String,
    /// Whether it was met.
    pub met: bool,
    /// What was seen.
    pub seen: String,
}

/// Counts.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Requests {
    /// By the schedule.
    pub due: u64,
    /// Those that came to an end, well or not.
    pub ended: u64,
    /// Those that failed.
    pub errors: u64,
    /// Answers, of any status.
    pub answered: u64,
    /// Due ones a second.
    pub due_per_s: f64,
    /// Answers a second, within the time that is counted.
    pub answered_per_s: f64,
}

/// Times: some of them in microseconds, and all of them as a histogram.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// How many.
    pub count: u64,
    /// On average.
    pub mean_us: f64,
    /// Percentiles.
    pub p50_us: u64,
    /// Nine of ten.
    pub p90_us: u64,
    /// 19 of 20.
    pub p95_us: u64,
    /// 99 of 100.
    pub p99_us: u64,
    /// 999 of 1,000.
    pub p999_us: u64,
    /// The longest.
    pub max_us: u64,
    /// HdrHistogram V2, deflated, in base64.
    #[serde(with = "json::histogram")]
    pub histogram: Times,
}

/// The generator's health.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Generator {
    /// How late it began with what was due.
    pub lag: Summary,
    /// Requests that were noticed before the schedule was over.
    pub in_time: u64,
    /// Processor time of the busiest thread, as a share.
    pub busy: f64,
    /// Requests that waited since every connection was busy.
    pub waited: u64,
    /// Connections opened.
    pub connections: u64,
}

/// A stretch of time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Interval {
    /// Since the end of the warm-up.
    pub at_s: f64,
    /// Requests a second that the schedule asked for.
    pub target_per_s: f64,
    /// Requests due.
    pub due: u64,
    /// Answers that came.
    pub answered: u64,
    /// Requests due in it that failed, by cause.
    pub errors: BTreeMap<String, u64>,
    /// The generator's longest lag.
    pub lag_max_us: u64,
    /// Requests on their way, on average.
    #[serde(default)]
    pub in_flight: f64,
    /// Requests due and not yet answered, on average; what waited for a connection among them.
    #[serde(default)]
    pub unanswered: f64,
    /// Of requests due in it.
    pub response: Summary,
    /// Of the same.
    pub service: Summary,
}

/// One rate of several.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    /// Requests a second.
    pub rate: f64,
    /// Answers a second.
    pub answered_per_s: f64,
    /// Response times.
    pub p50_us: u64,
    /// 99 of 100.
    pub p99_us: u64,
    /// 999 of 1,000.
    pub p999_us: u64,
    /// Of requests.
    pub errors: u64,
    /// Whether every objective was met.
    pub met: bool,
    /// Whether the generator kept its schedule.
    pub valid: bool,
}

impl Summary {
    /// Of times.
    pub fn of(times: Times) -> Summary {
        Summary {
            count: times.len(),
            mean_us: times.mean(),
            p50_us: times.value_at_quantile(0.5),
            p90_us: times.value_at_quantile(0.9),
            p95_us: times.value_at_quantile(0.95),
            p99_us: times.value_at_quantile(0.99),
            p999_us: times.value_at_quantile(0.999),
            max_us: times.max(),
            histogram: times,
        }
    }
}

impl Report {
    /// Of a run.
    pub fn new(
        (name, asked): (String, Asked),
        loaded: &Loaded,
        timetable: &Timetable,
        slos: &[Slo],
        mut server: Vec<Look>,
    ) -> Report {
        let measured = &loaded.measured;
        let seconds = (timetable.length().saturating_sub(measured.warm)).as_secs_f64().max(1e-3);
        let intervals = intervals(measured, timetable);
        let started_ms = loaded.started_ms + measured.warm.as_millis() as u64;
        for look in &mut server {
            look.at_s -= started_ms as f64 / 1e3;
        }
        let named = |(outcome, count): (&crate::measured::Outcome, &u64)| (outcome.name(), *count);
        let mut report = Report {
            schema: SCHEMA.to_owned(),
            name,
            asked,
            machine: crate::server::machine(),
            started_ms,
            seconds,
            interval_s: measured.every.as_secs_f64(),
            verdicts: Vec::new(),
            invalid: Vec::new(),
            truth: None,
            requests: requests(measured, &intervals, seconds),
            outcomes: measured.outcomes.iter().map(named).collect(),
            response: Summary::of(measured.response()),
            service: Summary::of(measured.service()),
            first_byte: Summary::of(measured.first_byte.clone()),
            generator: Generator {
                lag: Summary::of(measured.lag.clone()),
                in_time: measured.in_time,
                busy: loaded.busy,
                waited: measured.waited,
                connections: measured.connections,
            },
            steps: steps(&intervals, measured.every, timetable),
            intervals,
            server,
        };
        report.judge(slos);
        report
    }

    /// Judges the objectives, and whether the generator kept its schedule.
    pub fn judge(&mut self, slos: &[Slo]) {
        let seen = Seen {
            response: &self.response.histogram,
            service: &self.service.histogram,
            ended: self.requests.ended,
            errors: self.requests.errors,
            rate: self.requests.answered_per_s,
            truth: self.truth.as_ref(),
        };
        let judged = slos.iter().map(|slo| {
            let verdict = slo.judge(&seen);
            Judged { slo: slo.to_string(), met: verdict.met, seen: verdict.seen }
        });
        self.verdicts = judged.collect();
        self.invalid.clear();
        let (lag, bound) = (self.generator.lag.p99_us, self.asked.lag_max_us);
        if lag > bound {
            self.invalid.push(format!(
                "the generator began with requests {} late at its 99th percentile, and {} is the \
                 bound",
                crate::slo::milliseconds(lag as f64),
                crate::slo::milliseconds(bound as f64),
            ));
        }
        let share = self.generator.in_time as f64 / self.requests.due.max(1) as f64;
        if share < IN_TIME_SHARE {
            self.invalid.push(format!(
                "only {:.1} % of what was due was noticed before the schedule was over",
                share * 100.0
            ));
        }
    }

    /// Whether something follows from it.
    pub fn is_valid(&self) -> bool {
        self.invalid.is_empty()
    }

    /// Whether every objective was met.
    pub fn is_met(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.met)
    }

    /// Itself as one step of several.
    pub fn step(&self, rate: f64) -> Step {
        Step {
            rate,
            answered_per_s: self.requests.answered_per_s,
            p50_us: self.response.p50_us,
            p99_us: self.response.p99_us,
            p999_us: self.response.p999_us,
            errors: self.requests.errors,
            met: self.is_met(),
            valid: self.is_valid(),
        }
    }
}

fn requests(measured: &Measured, intervals: &[Interval], seconds: f64) -> Requests {
    // Those of the last moments are answered after the schedule is over.
    let counted = (seconds / measured.every.as_secs_f64()).ceil() as usize;
    let within: u64 = intervals.iter().take(counted).map(|interval| interval.answered).sum();
    Requests {
        due: measured.due(),
        ended: measured.ended(),
        errors: measured.errors(),
        answered: intervals.iter().map(|interval| interval.answered).sum(),
        due_per_s: measured.due() as f64 / seconds,
        answered_per_s: within as f64 / seconds,
    }
}

fn intervals(measured: &Measured, timetable: &Timetable) -> Vec<Interval> {
    let whole = measured.intervals.iter().enumerate();
    let shown = whole.map(|(number, interval)| {
        let at = measured.every * number as u32;
        let from = measured.warm + at;
        let until = (from + measured.every).min(timetable.length()).max(from);
        let errors = interval.errors.iter();
        let on_average = |sum: Duration| sum.as_secs_f64() / measured.every.as_secs_f64();
        Interval {
            at_s: at.as_secs_f64(),
            target_per_s: if until > from { timetable.rate_between(from, until) } else { 0.0 },
            due: interval.due,
            answered: interval.answered,
            errors: errors.map(|(outcome, count)| (outcome.name(), *count)).collect(),
            lag_max_us: interval.lag_max.as_micros() as u64,
            in_flight: on_average(interval.in_flight),
            unanswered: on_average(interval.unanswered),
            response: Summary::of(interval.response.clone()),
            service: Summary::of(interval.service.clone()),
        }
    });
    shown.collect()
}

/// Where the schedule stays at one rate after another, each of them.
fn steps(intervals: &[Interval], every: Duration, timetable: &Timetable) -> Vec<Step> {
    let Timetable::Rates(..) = timetable else {
        return Vec::new();
    };
    let alike =
        |one: &Interval, next: &Interval| (one.target_per_s - next.target_per_s).abs() < 1e-9;
    let found: Vec<&[Interval]> = intervals
        .chunk_by(alike)
        // A ramp has as many rates as intervals.
        .filter(|step| step.len() > 1 && step[0].target_per_s > 0.0 && step[0].due > 0)
        .collect();
    if found.len() < 2 {
        return Vec::new();
    }
    let step = |intervals: &&[Interval]| {
        let response = sum(intervals.iter().map(|it| &it.response.histogram));
        let answered: u64 = intervals.iter().map(|interval| interval.answered).sum();
        Step {
            rate: intervals[0].target_per_s,
            answered_per_s: answered as f64 / (every.as_secs_f64() * intervals.len() as f64),
            p50_us: response.value_at_quantile(0.5),
            p99_us: response.value_at_quantile(0.99),
            p999_us: response.value_at_quantile(0.999),
            errors: intervals.iter().flat_map(|it| it.errors.values()).sum(),
            met: true,
            valid: true,
        }
    };
    found.iter().map(step).collect()
}

impl Default for Summary {
    fn default() -> Summary {
        Summary::of(times())
    }
}

#[cfg(test)]
pub mod tests {
    use std::path::Path;

    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    use serde_json::Value;

    use super::*;
    use crate::measured::{Outcome, Sample};
    use crate::schedule::{Arrivals, Shape};

    /// A report of requests by the second in which each was due and the microseconds it took. Every
    /// hundredth failed.
    pub fn report(requests: impl IntoIterator<Item = (u64, u64)>) -> Report {
        let requests: Vec<_> = requests.into_iter().collect();
        let seconds = requests.iter().map(|(second, _)| second + 1).max().unwrap_or(1);
        let length = Duration::from_secs(seconds);
        let mut measured = Measured::new(Duration::ZERO, length);
        for (second, us) in requests {
            let intended = Duration::from_secs(second);
            let sent = intended + Duration::from_micros(us / 4);
            let end = intended + Duration::from_micros(us);
            measured.notice(intended, intended, true);
            let failed = us % 100 == 0;
            let outcome = if failed { Outcome::Refused(503) } else { Outcome::Success(204) };
            measured.end(&Sample { intended, sent, first_byte: end, end, outcome });
        }
        let loaded =
            Loaded { measured, busy: 0.25, started_ms: 1_700_000_000_000, logs: Vec::new() };
        let shape = Shape::constant(10.0, seconds as f64).unwrap();
        let asked = Asked { lag_max_us: 5_000, ..Asked::default() };
        let timetable = Timetable::Rates(shape, Arrivals::Even);
        let slos = ["p99<1s", "errors=0"].map(|text| text.parse().unwrap());
        let name = "of a test".to_owned();
        Report::new((name, asked), &loaded, &timetable, &slos, vec![Look::default()])
    }

    fn some() -> Report {
        report((0..500).map(|it| (it / 100, 150 + it * 3)))
    }

    #[test]
    fn a_report_is_valid_by_its_schema_and_is_read_back_as_it_was() {
        let text = json::write(&some()).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        let mut schemas = boon::Schemas::new();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("report.schema.json");
        let schema = boon::Compiler::new().compile(path.to_str().unwrap(), &mut schemas).unwrap();
        if let Err(error) = schemas.validate(&value, schema) {
            panic!("{error:#}");
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("report.json");
        std::fs::write(&file, &text).unwrap();
        let read = json::read(&file).unwrap();
        assert_eq!(read.response.histogram, some().response.histogram);
        let without_machine = |mut value: Value| {
            value["machine"].take();
            value
        };
        let again = serde_json::to_value(&read).unwrap();
        assert_eq!(without_machine(again), without_machine(value));
        // And what is another report is not read as one.
        std::fs::write(&file, text.replacen(SCHEMA, "mikomi-loadtest/2", 1)).unwrap();
        assert!(json::read(&file).unwrap_err().contains("mikomi-loadtest/2"));
    }

    #[test]
    fn an_interval_log_is_read_back_with_the_same_histograms() {
        let report = some();
        let bytes = hlog::write(&report).unwrap();
        let mut found = Vec::new();
        for entry in IntervalLogIterator::new(&bytes) {
            if let LogEntry::Interval(line) = entry.unwrap() {
                use base64::Engine as _;
                let engine = base64::engine::general_purpose::STANDARD;
                let encoded = engine.decode(line.encoded_histogram()).unwrap();
                let times: Times = Deserializer::new().deserialize(&mut &encoded[..]).unwrap();
                found.push((
                    line.tag().unwrap().as_str().to_owned(),
                    line.start_timestamp(),
                    times,
                ));
            }
        }
        assert_eq!(found.len(), report.intervals.len() * 2);
        for (pair, interval) in found.chunks(2).zip(&report.intervals) {
            assert_eq!((pair[0].0.as_str(), pair[1].0.as_str()), ("response", "service"));
            assert_eq!(pair[0].1, Duration::from_secs_f64(interval.at_s));
            assert_eq!(pair[0].2, interval.response.histogram);
            assert_eq!(pair[1].2, interval.service.histogram);
        }
    }

    #[test]
    fn a_page_holds_the_data_and_takes_no_name_for_markup() {
        let mut report = some();
        let hostile = "</script><script>alert(1)</script><!--{{data}}";
        report.name = hostile.to_owned();
        report.outcomes.insert("<img src=x onerror=alert(2)>".to_owned(), 1);
        let page = html::write(&report).unwrap();
        assert_eq!(page.matches("<script").count(), 2);
        assert_eq!(page.matches("</script").count(), 2);
        assert!(!page.contains("<img") && !page.contains("<!--"));
        assert!(!page.contains("http-equiv=\"refresh\"") && !page.contains("src=\"http"));
        let data = page.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["name"], hostile);
        assert_eq!(data["response"]["p99_us"], report.response.p99_us);
        assert_eq!(data["spectrum"]["service"].as_array().unwrap().len(), 121);
        assert!(data["response"].get("histogram").is_none());
        // Every request is somewhere on the map of response times.
        let columns = data["heat"]["counts"].as_array().unwrap().iter();
        let shown = columns.flat_map(|rows| rows.as_array().unwrap());
        assert_eq!(shown.filter_map(Value::as_u64).sum::<u64>(), report.response.count);
    }

    #[test]
    fn a_generator_that_lags_makes_the_run_invalid_whatever_the_objectives_say() {
        let mut report = some();
        assert!(report.is_valid());
        report.generator.lag.p99_us = 5_001;
        report.judge(&["p99<1s".parse().unwrap()]);
        assert!(report.is_met() && !report.is_valid());
        assert!(text::write(&report).starts_with("INVALID"));
        // Or one that had not noticed what was due when the time was over.
        let mut report = some();
        report.generator.in_time = report.requests.due * 98 / 100;
        report.judge(&[]);
        assert!(report.invalid[0].contains("98.0 %"));
    }

    #[test]
    fn rates_that_stay_for_a_while_are_steps_and_a_ramp_is_none() {
        let steps_of = |text: &str| {
            let timetable = Timetable::Rates(text.parse().unwrap(), Arrivals::Even);
            let mut measured = Measured::new(Duration::ZERO, timetable.length());
            for at in timetable.due(1) {
                measured.notice(at, at, true);
                let (sent, first_byte, end) = (at, at, at);
                let outcome = Outcome::Success(200);
                measured.end(&Sample { intended: at, sent, first_byte, end, outcome });
            }
            steps(&intervals(&measured, &timetable), measured.every, &timetable)
        };
        let found = steps_of("10..30 in 3 steps for 9s, 30..10 for 9s");
        let rates: Vec<f64> = found.iter().map(|step| step.rate).collect();
        assert_eq!(rates, [10.0, 20.0, 30.0]);
        assert!((found[1].answered_per_s - 20.0).abs() < 0.5);
        assert!(steps_of("10..30 for 9s").is_empty() && steps_of("10 for 9s").is_empty());
    }
}
