//! What a run has to keep: `p99<10ms`, `service.p50<2ms`, `errors=0`, `errors<0.1%`, `rate>4900`,
//! and where it is held against the truth `lost=0`, `invented=0`, `missing=0`, `doubled=0`,
//! `wrong=0` and `alert.p99<50ms`, which is from a click to its message.
//! Judged on the whole run without its warm-up, and on response time unless it says otherwise.

use std::fmt;
use std::str::FromStr;

use crate::measured::Times;
use crate::report::truth::Truth;
use crate::schedule;

/// An objective.
#[derive(Clone, Debug, PartialEq)]
pub struct Slo {
    /// As it was written.
    text: String,
    figure: Figure,
    order: Order,
    bound: f64,
}

/// What is held against the bound: microseconds, a count, a share or a rate.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Figure {
    Quantile(Side, f64),
    Mean(Side),
    Errors,
    ErrorShare,
    Rate,
    /// One of the counts of the truth, by its place.
    Untrue(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Response,
    Service,
    Alert,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Below,
    AtMost,
    Equal,
    AtLeast,
    Above,
}

/// Longer ones first: `<=` begins as `<` does.
const ORDERS: [(&str, Order); 5] = [
    ("<=", Order::AtMost),
    (">=", Order::AtLeast),
    ("<", Order::Below),
    (">", Order::Above),
    ("=", Order::Equal),
];

/// What objectives look at.
pub struct Seen<'a> {
    /// Times from when requests were due.
    pub response: &'a Times,
    /// Times from when they were sent.
    pub service: &'a Times,
    /// Requests that came to an end.
    pub ended: u64,
    /// Those that failed.
    pub errors: u64,
    /// Answers a second.
    pub rate: f64,
    /// What was found of the truth, where that was looked for.
    pub truth: Option<&'a Truth>,
}

/// Whether an objective was met, and by what.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Whether.
    pub met: bool,
    /// What was seen, for people.
    pub seen: String,
}

impl Slo {
    /// Judges it. Where nothing came to an end nothing was kept.
    pub fn judge(&self, seen: &Seen<'_>) -> Verdict {
        let times = |side: Side| side.of(seen).filter(|times| !times.is_empty());
        let value = match self.figure {
            Figure::Quantile(side, quantile) => {
                times(side).map_or(0.0, |times| times.value_at_quantile(quantile) as f64)
            }
            Figure::Mean(side) => times(side).map_or(0.0, Times::mean),
            Figure::Untrue(place) => seen.truth.map_or(0.0, |it| it.counters()[place].1 as f64),
            Figure::Errors => seen.errors as f64,
            Figure::ErrorShare => seen.errors as f64 / seen.ended.max(1) as f64,
            Figure::Rate => seen.rate,
        };
        let kept = match self.order {
            Order::Below => value < self.bound,
            Order::AtMost => value <= self.bound,
            Order::Equal => (value - self.bound).abs() <= self.bound.abs() * 1e-9,
            Order::AtLeast => value >= self.bound,
            Order::Above => value > self.bound,
        };
        let empty = match self.figure {
            Figure::Quantile(side, _) | Figure::Mean(side) => times(side).is_none(),
            Figure::Untrue(_) => seen.truth.is_none(),
            Figure::Errors | Figure::ErrorShare | Figure::Rate => seen.ended == 0,
        };
        let words = match self.figure {
            Figure::Quantile(..) | Figure::Mean(_) => milliseconds(value),
            Figure::Errors | Figure::Untrue(_) => format!("{value}"),
            Figure::ErrorShare => format!("{:.4} %", value * 100.0),
            Figure::Rate => format!("{value:.1}/s"),
        };
        Verdict { met: kept && !empty, seen: if empty { "nothing".to_owned() } else { words } }
    }
}

impl Side {
    fn of<'a>(self, seen: &Seen<'a>) -> Option<&'a Times> {
        match self {
            Side::Response => Some(seen.response),
            Side::Service => Some(seen.service),
            Side::Alert => seen.truth.map(|truth| &truth.click_to_alert.histogram),
        }
    }
}

/// A time as people read it.
pub fn milliseconds(microseconds: f64) -> String {
    match microseconds {
        us if us < 10_000.0 => format!("{:.2} ms", us / 1e3),
        us if us < 10_000_000.0 => format!("{:.1} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Slo {
    type Err = String;

    fn from_str(text: &str) -> Result<Slo, String> {
        let text: String = text.split_whitespace().collect();
        let found = ORDERS.into_iter().find_map(|(sign, order)| {
            text.split_once(sign).map(|(name, bound)| (name, order, bound))
        });
        let wrong = || {
            format!(
                "\"{text}\" is no objective: write p99<10ms, service.p50<2ms, max<1s, mean<5ms, \
                 errors=0, errors<0.1%, rate>4900, lost=0, wrong=0 or alert.p99<50ms"
            )
        };
        let (name, order, bound) = found.ok_or_else(wrong)?;
        let number = |text: &str| text.parse::<f64>().ok().filter(|it| it.is_finite() && *it >= 0.);
        let (figure, bound) = match name {
            "errors" => match bound.strip_suffix('%') {
                Some(share) => (Figure::ErrorShare, number(share).map(|share| share / 100.0)),
                None => (Figure::Errors, number(bound)),
            },
            "rate" => (Figure::Rate, number(bound.trim_end_matches("/s"))),
            name if untrue(name).is_some() => {
                (Figure::Untrue(untrue(name).unwrap_or_default()), number(bound))
            }
            _ => {
                let time = schedule::seconds(bound)?;
                (time_of(name).ok_or_else(wrong)?, Some(time * 1e6))
            }
        };
        let bound = bound.ok_or_else(wrong)?;
        Ok(Slo { text, figure, order, bound })
    }
}

/// Which of the counts of the truth has a name.
fn untrue(name: &str) -> Option<usize> {
    Truth::default().counters().iter().position(|(known, _)| *known == name)
}

fn time_of(name: &str) -> Option<Figure> {
    let (side, name) = match name.split_once('.') {
        Some(("service", name)) => (Side::Service, name),
        Some(("response", name)) => (Side::Response, name),
        Some(("alert", name)) => (Side::Alert, name),
        // As in p99.9.
        _ => (Side::Response, name),
    };
    let percent = match name {
        "max" => 100.0,
        "mean" => return Some(Figure::Mean(side)),
        _ => name.strip_prefix('p')?.parse::<f64>().ok()?,
    };
    (0.0..=100.0).contains(&percent).then_some(Figure::Quantile(side, percent / 100.0))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::measured::{add, times};

    /// Response times of 1 to 1,000 ms, service times of 2 ms; 3 of 1,000 failed.
    fn met(text: &str) -> bool {
        let (mut response, mut service) = (times(), times());
        for ms in 1..=1_000 {
            add(&mut response, Duration::from_millis(ms));
            add(&mut service, Duration::from_millis(2));
        }
        let (response, service) = (&response, &service);
        let seen = Seen { response, service, ended: 1_000, errors: 3, rate: 100.0, truth: None };
        text.parse::<Slo>().unwrap().judge(&seen).met
    }

    #[test]
    fn an_objective_is_about_response_time_unless_it_says_otherwise() {
        assert!(met("p50<502ms") && !met("p50<499ms"));
        assert!(met("p99.9 <= 1001ms") && !met("p99.9<990ms"));
        assert!(met("service.p99<3ms") && met("service.p99.9<3ms") && !met("response.p99<3ms"));
        assert!(met("max<1.1s") && !met("max<900ms") && met("mean<510ms") && !met("mean<400ms"));
    }

    #[test]
    fn errors_are_a_count_or_a_share_and_a_rate_is_what_was_answered() {
        assert!(!met("errors=0") && met("errors=3") && met("errors<4"));
        assert!(met("errors<0.4%") && !met("errors<0.3%") && met("errors<=0.3%"));
        assert!(met("rate>99") && met("rate>=100/s") && !met("rate>100"));
    }

    #[test]
    fn where_nothing_ended_no_objective_is_met() {
        let none = times();
        let (response, service) = (&none, &none);
        let seen = Seen { response, service, ended: 0, errors: 0, rate: 0.0, truth: None };
        for text in ["p99<1s", "errors=0", "service.max<1s", "rate>=0", "lost=0", "alert.p99<1s"] {
            assert!(!text.parse::<Slo>().unwrap().judge(&seen).met, "{text}");
        }
    }

    #[test]
    fn the_truth_is_an_objective_where_it_was_looked_for() {
        let none = times();
        let mut found = Truth { wrong: 2, ..Truth::default() };
        add(&mut found.click_to_alert.histogram, Duration::from_millis(20));
        let (response, service, truth) = (&none, &none, Some(&found));
        let seen = Seen { response, service, ended: 1, errors: 0, rate: 0.0, truth };
        let met = |text: &str| text.parse::<Slo>().unwrap().judge(&seen).met;
        for text in ["lost=0", "invented=0", "missing=0", "doubled=0", "alert.p99<50ms"] {
            assert!(met(text), "{text}");
        }
        assert!(!met("wrong=0") && met("wrong<3") && !met("alert.p50<19ms"));
    }

    #[test]
    fn what_is_no_objective_is_refused_with_what_would_be() {
        for text in ["", "p99", "p99<10", "p101<1ms", "errors<many", "errrors=0", "rate>-1", "x<1s"]
        {
            assert!(text.parse::<Slo>().is_err(), "{text}");
        }
        assert!("errrors=0".parse::<Slo>().is_err());
        assert!("q99<1ms".parse::<Slo>().unwrap_err().contains("errors<0.1%"));
    }
}
