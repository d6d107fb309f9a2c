//! When each request is due: fixed before the run by its shape and its seed, whatever the server
//! does. A shape is a list of phases, each a rate that stays or changes evenly.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::random::Random;

/// Requests a second at most: beyond it a nanosecond is no time between two.
const RATE_MAX: f64 = 10_000_000.0;
/// The longest run.
const SECONDS_MAX: f64 = 7.0 * 24.0 * 3_600.0;
/// Steps of one phase at most.
const STEPS_MAX: u32 = 1_000;

/// A stretch of a run: from one rate to another, evenly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Phase {
    /// How long.
    pub seconds: f64,
    /// Requests a second at its beginning.
    pub from: f64,
    /// And at its end.
    pub to: f64,
}

impl Phase {
    fn count(&self) -> f64 {
        self.seconds * f64::midpoint(self.from, self.to)
    }

    /// Seconds from its beginning until so many requests were due: the integral of the rate,
    /// turned round. Written so that a rate that hardly changes loses no digits.
    fn seconds_until(&self, count: f64) -> f64 {
        let slope = (self.to - self.from) / self.seconds;
        let root = (self.from * self.from + 2.0 * slope * count).max(0.0).sqrt();
        let sum = self.from + root;
        if sum > 0.0 { 2.0 * count / sum } else { 0.0 }
    }
}

/// The phases of a run, as in `1000 for 60s, 1000..5000 for 30s, 8000 for 5s` or
/// `1000..5000 in 5 steps for 50s`.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape(Vec<Phase>);

/// How requests come within a rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Arrivals {
    /// At equal distances.
    Even,
    /// As people do who do not know of each other: a Poisson process.
    #[default]
    Poisson,
}

impl Shape {
    /// One rate for some time.
    pub fn constant(rate: f64, seconds: f64) -> Result<Shape, String> {
        Shape::of(vec![Phase { seconds, from: rate, to: rate }])
    }

    fn of(phases: Vec<Phase>) -> Result<Shape, String> {
        let shape = Shape(phases);
        let rates = || shape.0.iter().flat_map(|phase| [phase.from, phase.to]);
        if !rates().all(|rate| (0.0..=RATE_MAX).contains(&rate)) {
            return Err(format!("a rate is between 0 and {RATE_MAX} a second"));
        }
        if !shape.0.iter().all(|phase| phase.seconds > 0.0) || shape.seconds() > SECONDS_MAX {
            return Err("a phase is longer than nothing, and a run at most a week".to_owned());
        }
        if shape.count() < 1 {
            return Err("nothing is due in it".to_owned());
        }
        Ok(shape)
    }

    /// The same after some seconds of its first rate.
    pub fn after(&self, warm_seconds: f64) -> Shape {
        let mut phases = self.0.clone();
        if warm_seconds > 0.0 {
            let rate = phases[0].from.max(phases[0].to.min(1.0));
            phases.insert(0, Phase { seconds: warm_seconds, from: rate, to: rate });
        }
        Shape(phases)
    }

    /// How long it takes.
    pub fn seconds(&self) -> f64 {
        self.0.iter().map(|phase| phase.seconds).sum()
    }

    /// Requests due in it, evenly come.
    pub fn count(&self) -> u64 {
        self.0.iter().map(Phase::count).sum::<f64>() as u64
    }

    /// The rate at a moment.
    pub fn rate_at(&self, mut seconds: f64) -> f64 {
        for phase in &self.0 {
            if seconds < phase.seconds {
                return phase.from + (phase.to - phase.from) * seconds / phase.seconds;
            }
            seconds -= phase.seconds;
        }
        0.0
    }

    /// When they are due.
    pub fn due(&self, arrivals: Arrivals, seed: u64) -> Due {
        Due {
            shape: self.clone(),
            arrivals,
            random: Random::new(seed ^ 0x5c4e_d01e),
            at: 0.0,
            phase: 0,
            before: (0.0, 0.0),
        }
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Shape, String> {
        let mut phases = Vec::new();
        for part in text.split(',') {
            read_phase(part.trim(), &mut phases)?;
        }
        Shape::of(phases)
    }
}

fn read_phase(text: &str, phases: &mut Vec<Phase>) -> Result<(), String> {
    let wrong = || {
        format!(
            "\"{text}\" is no phase: write RATE for TIME, FROM..TO for TIME, or FROM..TO in N \
             steps for TIME"
        )
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    let (rates, steps, time) = match words[..] {
        [rates, "for", time] => (rates, None, time),
        [rates, "in", steps, "steps", "for", time] => (rates, Some(steps), time),
        _ => return Err(wrong()),
    };
    let (from, to) = rates.split_once("..").unwrap_or((rates, rates));
    let rate = |text: &str| text.trim_end_matches("/s").parse::<f64>().map_err(|_| wrong());
    let (from, to, seconds) = (rate(from)?, rate(to)?, seconds(time)?);
    let Some(steps) = steps else {
        phases.push(Phase { seconds, from, to });
        return Ok(());
    };
    let steps = steps.parse().ok().filter(|steps| (2..=STEPS_MAX).contains(steps));
    let steps: u32 = steps.ok_or_else(|| format!("steps are 2 to {STEPS_MAX}"))?;
    for step in 0..steps {
        let rate = from + (to - from) * f64::from(step) / f64::from(steps - 1);
        phases.push(Phase { seconds: seconds / f64::from(steps), from: rate, to: rate });
    }
    Ok(())
}

/// A time as people write it: `500ms`, `10s`, `5m`, `1h`.
pub fn seconds(text: &str) -> Result<f64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return Err(format!("\"{text}\" is no time: write 500ms, 10s, 5m or 1h")),
    };
    let number = digits.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
    number.map(|number| number * unit).ok_or_else(|| format!("\"{text}\" is no time"))
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, phase) in self.0.iter().enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            write!(f, "{comma}{}", phase.from)?;
            if phase.to.to_bits() != phase.from.to_bits() {
                write!(f, "..{}", phase.to)?;
            }
            write!(f, " for {}s", phase.seconds)?;
        }
        Ok(())
    }
}

/// When everything is due: by rates, or by the times of an access log.
#[derive(Clone)]
pub enum Timetable {
    /// By rates.
    Rates(Shape, Arrivals),
    /// At these moments, in order.
    Times(Arc<[Duration]>),
}

impl Timetable {
    /// How long it takes.
    pub fn length(&self) -> Duration {
        match self {
            Timetable::Rates(shape, _) => Duration::from_secs_f64(shape.seconds()),
            Timetable::Times(times) => times.last().copied().unwrap_or_default(),
        }
    }

    /// Requests a second between two moments, as it asks for them.
    pub fn rate_between(&self, from: Duration, until: Duration) -> f64 {
        let seconds = until.saturating_sub(from).as_secs_f64().max(1e-9);
        match self {
            Timetable::Rates(shape, _) => {
                shape.rate_at(f64::midpoint(from.as_secs_f64(), until.as_secs_f64()))
            }
            Timetable::Times(times) => {
                let before = |end: Duration| times.partition_point(|at| *at < end);
                (before(until) - before(from)) as f64 / seconds
            }
        }
    }

    /// The moments themselves.
    pub fn due(&self, seed: u64) -> Box<dyn Iterator<Item = Duration>> {
        match self {
            Timetable::Rates(shape, arrivals) => Box::new(shape.due(*arrivals, seed)),
            Timetable::Times(times) => {
                let times = Arc::clone(times);
                Box::new((0..times.len()).map(move |place| times[place]))
            }
        }
    }
}

/// The moments at which requests are due, counted from the beginning, one after the other.
pub struct Due {
    shape: Shape,
    arrivals: Arrivals,
    random: Random,
    /// Requests that the rates make until the next one. A Poisson process of any rates is one of
    /// rate 1 in these.
    at: f64,
    phase: usize,
    /// Requests and seconds of the phases before.
    before: (f64, f64),
}

impl Iterator for Due {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let at = match self.arrivals {
            Arrivals::Even => self.at,
            Arrivals::Poisson => self.at + self.random.exponential(),
        };
        while let Some(phase) = self.shape.0.get(self.phase) {
            if at < self.before.0 + phase.count() {
                let seconds = self.before.1 + phase.seconds_until(at - self.before.0);
                self.at = if self.arrivals == Arrivals::Even { at + 1.0 } else { at };
                return Some(Duration::from_secs_f64(seconds));
            }
            self.before.0 += phase.count();
            self.before.1 += phase.seconds;
            self.phase += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(text: &str, arrivals: Arrivals) -> Vec<f64> {
        let shape: Shape = text.parse().unwrap();
        shape.due(arrivals, 1).map(|at| at.as_secs_f64()).collect()
    }

    #[test]
    fn a_steady_rate_is_due_at_equal_distances() {
        assert_eq!(due("4 for 1s", Arrivals::Even), [0.0, 0.25, 0.5, 0.75]);
    }

    #[test]
    fn a_ramp_is_due_as_often_as_its_rate_says() {
        let at = due("0..1000 for 10s", Arrivals::Even);
        assert_eq!(at.len(), 5_000);
        for second in 0..10 {
            let within = at.iter().filter(|at| at.floor() as i32 == second).count() as i32;
            assert!((within - (second * 100 + 50)).abs() <= 1, "{within} in second {second}");
        }
        assert!(at.is_sorted());
    }

    #[test]
    fn steps_and_spikes_follow_each_other() {
        let shape: Shape = "100..300 in 3 steps for 3s, 1000 for 500ms, 10 for 1s".parse().unwrap();
        let rates = [0.5, 1.5, 2.5, 3.2, 4.0, 9.0].map(|at| shape.rate_at(at));
        assert_eq!(rates.map(|rate| rate as u32), [100, 200, 300, 1_000, 10, 0]);
        assert_eq!(shape.count(), 1_110);
        assert_eq!(shape.to_string().parse::<Shape>().unwrap(), shape);
    }

    #[test]
    fn people_who_do_not_know_of_each_other_come_in_bunches_and_as_often() {
        let at = due("1000 for 100s", Arrivals::Poisson);
        assert!((at.len() as f64 - 100_000.0).abs() < 1_500.0, "{}", at.len());
        // Of exponential gaps the deviation is the mean.
        let gaps: Vec<f64> = at.windows(2).map(|two| two[1] - two[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.02);
    }

    #[test]
    fn the_same_seed_is_the_same_schedule() {
        let shape: Shape = "10..500 for 20s".parse().unwrap();
        let one: Vec<_> = shape.due(Arrivals::Poisson, 7).collect();
        assert_eq!(one, shape.due(Arrivals::Poisson, 7).collect::<Vec<_>>());
        assert_ne!(one, shape.due(Arrivals::Poisson, 8).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_no_shape_is_refused_with_what_would_be() {
        for text in ["", "fast", "1000", "1000 for ever", "5 for 0s", "-1 for 1s", "0 for 1s"] {
            assert!(text.parse::<Shape>().is_err(), "{text}");
        }
        for text in ["1..2 in 1 steps for 1s", "1e9 for 1s", "1 for 900h", "nan for 1s"] {
            assert!(text.parse::<Shape>().is_err(), "{text}");
        }
        assert!("5 fr 1s".parse::<Shape>().unwrap_err().contains("RATE for TIME"));
    }

    #[test]
    fn a_warm_up_comes_first_at_the_first_rate() {
        let shape: Shape = "100..900 for 2s".parse().unwrap();
        let warm = shape.after(1.0);
        assert_eq!(warm.rate_at(0.5).to_bits(), 100f64.to_bits());
        assert_eq!(warm.count(), shape.count() + 100);
    }
}
