//! The highest rate at which every objective is met: doubled until one is missed, then halved in
//! between. Each rate is a run of its own.

use crate::Outcome;
use crate::cli::Search;
use crate::report::{Report, Step, text};
use crate::run::{Plan, keep};
use crate::schedule::Shape;
use crate::slo::Slo;

/// Rates tried at most.
const STEPS_MAX: u64 = 100;
/// Below this many requests a second nothing is searched for.
const RATE_MIN: f64 = 1.0;
/// Nor with fewer requests a step.
const REQUESTS_MIN: f64 = 10.0;

/// Which rate comes next.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bounds {
    /// The highest that was good.
    good: Option<f64>,
    /// The lowest that was not.
    bad: Option<f64>,
    first: f64,
    min: f64,
    max: f64,
    /// As a share.
    precision: f64,
}

impl Bounds {
    fn next(&self) -> Option<f64> {
        match (self.good, self.bad) {
            (None, None) => Some(self.first),
            (Some(good), None) => (good < self.max).then(|| (good * 2.0).min(self.max)),
            (None, Some(bad)) => (bad / 2.0 >= self.min).then_some(bad / 2.0),
            (Some(good), Some(bad)) => {
                (bad > good * (1.0 + self.precision)).then(|| f64::midpoint(good, bad))
            }
        }
    }

    fn learn(&mut self, rate: f64, good: bool) {
        *(if good { &mut self.good } else { &mut self.bad }) = Some(rate);
    }
}

/// `search`.
pub fn run(search: &Search) -> Result<Outcome, String> {
    let mut output = search.output.clone();
    if output.slos.is_empty() {
        output.slos = ["p99<100ms", "errors=0"]
            .map(str::parse::<Slo>)
            .into_iter()
            .collect::<Result<_, _>>()?;
        eprintln!("no objective was given: searching with p99<100ms and errors=0");
    }
    if !(search.from >= RATE_MIN && search.max >= search.from && search.precision > 0.0) {
        return Err("--from is 1 or more, --max as much or more, --precision more than 0".into());
    }
    let plan = Plan::new(&search.content, &search.sending, &output)?;
    let mut bounds = Bounds {
        good: None,
        bad: None,
        first: search.from,
        min: RATE_MIN.max(REQUESTS_MIN / search.step.max(1e-3)),
        max: search.max,
        precision: search.precision / 100.0,
    };
    let mut tried = Tried::default();
    for number in 0..STEPS_MAX {
        let Some(rate) = bounds.next() else {
            break;
        };
        let report = plan.play(&Shape::constant(rate, search.step)?, number)?;
        let step = report.step(rate);
        if !output.quiet {
            show(&step, tried.steps.is_empty());
        }
        if tried.learn(report, step) {
            bounds.learn(rate, tried.is_good());
        }
    }
    let Tried { steps, best, worst, .. } = tried;
    let mut report = best.or(worst).ok_or("nothing was tried")?;
    // Where the generator gives up first, its limit is not the server's.
    let limit = bounds.bad.map(|bad| {
        let last = steps.iter().rev().find(|step| step.rate.to_bits() == bad.to_bits());
        (bad, last.is_some_and(|step| step.met && !step.valid))
    });
    report.steps = steps;
    if output.name.is_none() {
        let found = bounds.good.map_or("none".to_owned(), |rate| format!("{rate:.0}/s"));
        report.name = format!("The highest rate of {}: {found}", report.asked.target);
    }
    println!("{}", words(bounds.good, limit));
    print!("{}", text::write(&report));
    let kept = keep(&report, &output)?;
    let held_back = bounds.good.is_some() && limit.is_some_and(|(_, generator)| generator);
    Ok(if held_back { Outcome::Invalid } else { kept })
}

/// What was tried so far.
#[derive(Default)]
struct Tried {
    steps: Vec<Step>,
    best: Option<Report>,
    worst: Option<Report>,
}

impl Tried {
    /// Takes one in; whether anything follows from it. Where the generator could not keep its
    /// schedule once, the rate is tried once more.
    fn learn(&mut self, report: Report, step: Step) -> bool {
        let again =
            self.steps.last().is_some_and(|last| last.rate.to_bits() == step.rate.to_bits());
        let follows = step.valid || again;
        let good = step.valid && step.met;
        self.steps.push(step);
        *(if good { &mut self.best } else { &mut self.worst }) = Some(report);
        follows
    }

    fn is_good(&self) -> bool {
        self.steps.last().is_some_and(|step| step.met && step.valid)
    }
}

fn show(step: &Step, first: bool) {
    let table = text::steps(std::slice::from_ref(step));
    let lines = table.lines().filter(|line| !line.is_empty());
    for line in lines.skip(usize::from(!first)) {
        eprintln!("{line}");
    }
}

/// What was found: the highest good rate, and the lowest that was not, with whether that was the
/// generator's fault.
fn words(good: Option<f64>, limit: Option<(f64, bool)>) -> String {
    match (good, limit) {
        (Some(rate), None) => format!("found     {rate:.0}/s is met, and nothing higher was tried"),
        (Some(rate), Some((bad, true))) => format!(
            "found     {rate:.0}/s is met; at {bad:.0}/s the generator could not keep its \
             schedule, so the server's limit may be higher"
        ),
        (Some(rate), Some((bad, false))) => {
            format!("found     {rate:.0}/s is met, {bad:.0}/s is not")
        }
        (None, _) => "found     no rate at which every objective is met".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rates tried against a server that can do so many.
    fn tried(able: f64, first: f64, max: f64) -> (Vec<f64>, Option<f64>) {
        let mut bounds = Bounds { good: None, bad: None, first, min: 1.0, max, precision: 0.02 };
        let mut rates = Vec::new();
        while let Some(rate) = bounds.next() {
            rates.push(rate);
            bounds.learn(rate, rate <= able);
        }
        (rates, bounds.good)
    }

    #[test]
    fn a_rate_is_doubled_until_it_is_too_high_and_then_narrowed_down() {
        let (rates, found) = tried(5_000.0, 1_000.0, 1e6);
        assert_eq!(rates[..5], [1_000.0, 2_000.0, 4_000.0, 8_000.0, 6_000.0]);
        assert!((4_900.0..=5_000.0).contains(&found.unwrap()) && rates.len() < 12);
    }

    #[test]
    fn a_rate_that_is_too_high_from_the_start_is_halved() {
        let (_, found) = tried(300.0, 1_000.0, 1e6);
        assert!((294.0..=300.0).contains(&found.unwrap()));
        assert_eq!(tried(0.0, 8.0, 1e6), (vec![8.0, 4.0, 2.0, 1.0], None));
    }

    #[test]
    fn nothing_higher_than_the_highest_is_tried() {
        let (rates, found) = tried(1e9, 1_000.0, 3_000.0);
        assert_eq!((rates, found), (vec![1_000.0, 2_000.0, 3_000.0], Some(3_000.0)));
    }
}
