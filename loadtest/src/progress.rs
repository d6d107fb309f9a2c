//! What is seen while it runs: one line a second, on standard error.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::mpsc::Receiver;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::load::Tick;
use crate::schedule::Timetable;

/// Takes what the threads say until all of them have ended.
pub fn show(
    ticks: Receiver<Tick>,
    threads: usize,
    timetable: Timetable,
    warm: Duration,
    quiet: bool,
) -> JoinHandle<()> {
    thread::spawn(move || {
        let in_place = std::io::stderr().is_terminal();
        // Second -> what was said of it so far.
        let mut seconds: BTreeMap<u64, Vec<Tick>> = BTreeMap::new();
        let mut before = (0, 0);
        for tick in ticks {
            let second = tick.second;
            let said = seconds.entry(second).or_default();
            said.push(tick);
            if said.len() < threads || quiet {
                continue;
            }
            let said = seconds.remove(&second).unwrap_or_default();
            let (line, now) = line(&said, before, &timetable, warm);
            before = now;
            let mut error = std::io::stderr().lock();
            // Nobody may be looking.
            drop(if in_place {
                write!(error, "\r\x1b[K{line}")
            } else {
                writeln!(error, "{line}")
            });
            drop(error.flush());
        }
        if in_place && !quiet {
            eprint!("\r\x1b[K");
        }
    })
}

fn line(
    said: &[Tick],
    before: (u64, u64),
    timetable: &Timetable,
    warm: Duration,
) -> (String, (u64, u64)) {
    let sum = |of: fn(&Tick) -> u64| said.iter().map(of).sum::<u64>();
    let (due, ended, errors) = (sum(|it| it.due), sum(|it| it.ended), sum(|it| it.errors));
    let most = |of: fn(&Tick) -> f64| said.iter().map(of).fold(0.0, f64::max);
    let second = said.first().map_or(0, |tick| tick.second);
    let at = Duration::from_secs(second);
    let target = timetable.rate_between(at, at + Duration::from_secs(1));
    let text = if at + Duration::from_secs(1) <= warm {
        format!("{:>5} s  warming up, {target:.0}/s", second + 1)
    } else {
        format!(
            "{:>5} of {:.0} s  target {target:.0}/s  answered {}/s  p50 {:.2} ms  p99 {:.2} ms  \
             open {}  failed {errors}",
            second + 1,
            timetable.length().as_secs_f64(),
            ended.saturating_sub(before.1),
            most(|it| it.recent_ms.0),
            most(|it| it.recent_ms.1),
            due.saturating_sub(ended),
        )
    };
    (text, (due, ended))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{Arrivals, Shape};

    #[test]
    fn a_line_adds_up_the_threads_and_says_what_was_answered_since_the_last() {
        let shape = Shape::constant(100.0, 10.0).unwrap();
        let timetable = Timetable::Rates(shape, Arrivals::Even);
        let tick = |ended| Tick { second: 4, due: 250, ended, errors: 1, recent_ms: (1.0, 2.0) };
        let said = [tick(240), tick(245)];
        let (text, now) = line(&said, (0, 400), &timetable, Duration::from_secs(2));
        assert_eq!(now, (500, 485));
        for part in ["5 of 10 s", "target 100/s", "answered 85/s", "open 15", "failed 2"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
