//! One report held against another. How much of a difference is chance is found by drawing the
//! intervals anew, with replacement, many times: what 95 of 100 such runs would have shown
//! (B. Efron, "Bootstrap methods: another look at the jackknife", 1979). Neighbouring intervals are
//! drawn together, since they have their troubles together.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::Outcome;
use crate::random::Random;
use crate::report::{Interval, Report, Summary, json};
use crate::slo::milliseconds;

/// Draws.
const DRAWS: usize = 1_000;
/// What is drawn at most: adjacent intervals in so many pieces.
const PIECES_MAX: usize = 60;
/// With fewer intervals nothing is known of chance.
const PIECES_MIN: usize = 5;
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

/// A percentile of both.
#[derive(Clone, Debug, Serialize)]
struct Row {
    name: String,
    before_us: u64,
    after_us: u64,
    ratio: f64,
    /// Of the ratio, from and to; nothing where there are too few intervals.
    interval: Option<(f64, f64)>,
}

impl Row {
    fn words(&self) -> &'static str {
        match self.interval {
            None => "too few intervals to tell",
            Some((from, to)) if from <= 1.0 && to >= 1.0 => "no difference seen",
            Some((from, _)) if from > 1.0 => "slower",
            Some(_) => "faster",
        }
    }

    /// Whether it is slower by more than so much, and that is more than chance.
    fn is_slower_by(&self, percent: f64) -> bool {
        self.interval.is_some_and(|(from, _)| from > 1.0 + percent / 100.0)
    }
}

/// `compare`.
pub fn run(
    (before, after): (&Path, &Path),
    seed: u64,
    as_json: bool,
    slower_max: Option<f64>,
) -> Result<Outcome, String> {
    let (before, after) = (json::read(before)?, json::read(after)?);
    let rows = rows(&before, &after, seed);
    if as_json {
        println!("{}", serde_json::to_string(&rows).map_err(|error| error.to_string())?);
    } else {
        print!("{}", text(&before, &after, &rows));
    }
    if !(before.is_valid() && after.is_valid()) {
        return Ok(Outcome::Invalid);
    }
    let Some(percent) = slower_max else {
        return Ok(Outcome::Met);
    };
    // What nothing is known of must not pass for what is as fast.
    if rows.iter().all(|row| row.interval.is_none()) {
        return Err(format!(
            "fewer than {PIECES_MIN} intervals: nothing tells whether it is slower"
        ));
    }
    let slower = rows.iter().filter(|row| row.is_slower_by(percent)).map(|row| row.name.as_str());
    let slower: Vec<&str> = slower.collect();
    if slower.is_empty() {
        return Ok(Outcome::Met);
    }
    eprintln!("slower by more than {percent} %: {}", slower.join(", "));
    Ok(Outcome::Missed)
}

/// Which of the two times.
type Side = fn(&Interval) -> &Summary;

fn rows(before: &Report, after: &Report, seed: u64) -> Vec<Row> {
    let mut random = Random::new(seed);
    let sides: [(&str, Side, [&Summary; 2]); 2] = [
        ("", |interval| &interval.response, [&before.response, &after.response]),
        ("service.", |interval| &interval.service, [&before.service, &after.service]),
    ];
    let mut rows = Vec::new();
    for (prefix, side, whole) in sides {
        let pieces = [before, after].map(|report| pieces(report, side));
        let enough = pieces.iter().all(|pieces| pieces.counts.len() >= PIECES_MIN);
        let ratios = if enough { drawn(&pieces, &mut random) } else { Vec::new() };
        for (place, (name, quantile)) in QUANTILES.into_iter().enumerate() {
            let [before_us, after_us] = whole.map(|it| it.histogram.value_at_quantile(quantile));
            rows.push(Row {
                name: format!("{prefix}{name}"),
                before_us,
                after_us,
                ratio: after_us as f64 / before_us.max(1) as f64,
                interval: middle(ratios.iter().map(|draw| draw[place]).collect()),
            });
        }
    }
    rows
}

/// The histograms of adjacent intervals, as counts of the values that occur.
struct Pieces {
    values: Vec<u64>,
    counts: Vec<Vec<u64>>,
}

fn pieces(report: &Report, side: Side) -> Pieces {
    let told: Vec<&Summary> = report.intervals.iter().map(side).filter(|it| it.count > 0).collect();
    let together = told.len().div_ceil(PIECES_MAX).max(1);
    let mut places: BTreeMap<u64, usize> = BTreeMap::new();
    for summary in &told {
        for value in summary.histogram.iter_recorded() {
            places.insert(value.value_iterated_to(), 0);
        }
    }
    places.values_mut().enumerate().for_each(|(place, at)| *at = place);
    let counts = told.chunks(together).map(|chunk| {
        let mut counts = vec![0; places.len()];
        for value in chunk.iter().flat_map(|summary| summary.histogram.iter_recorded()) {
            counts[places[&value.value_iterated_to()]] += value.count_at_value();
        }
        counts
    });
    Pieces { counts: counts.collect(), values: places.keys().copied().collect() }
}

impl Pieces {
    /// As many pieces as there are, drawn anew; their percentiles.
    fn draw(&self, random: &mut Random) -> [f64; QUANTILES.len()] {
        let mut sum = vec![0; self.values.len()];
        for _ in 0..self.counts.len() {
            let piece = &self.counts[random.below(self.counts.len())];
            sum.iter_mut().zip(piece).for_each(|(sum, count)| *sum += count);
        }
        let total: u64 = sum.iter().sum();
        QUANTILES.map(|(_, quantile)| {
            let rank = ((quantile * total as f64).ceil() as u64).max(1);
            let mut seen = 0;
            let place = sum.iter().position(|count| {
                seen += count;
                seen >= rank
            });
            place.map_or(0.0, |place| self.values[place] as f64)
        })
    }
}

fn drawn([before, after]: &[Pieces; 2], random: &mut Random) -> Vec<[f64; QUANTILES.len()]> {
    let one = |_| {
        let (before, mut after) = (before.draw(random), after.draw(random));
        after.iter_mut().zip(before).for_each(|(after, before)| *after /= before.max(1.0));
        after
    };
    (0..DRAWS).map(one).collect()
}

/// What 95 of 100 lie in.
fn middle(mut ratios: Vec<f64>) -> Option<(f64, f64)> {
    ratios.sort_by(f64::total_cmp);
    let last = ratios.len().checked_sub(1)?;
    let at = |share: f64| ratios[(last as f64 * share).round() as usize];
    Some((at(0.025), at(0.975)))
}

fn text(before: &Report, after: &Report, rows: &[Row]) -> String {
    let mut text = format!("before    {}\nafter     {}\n", before.name, after.name);
    for (word, report) in [("before", before), ("after", after)] {
        for why in &report.invalid {
            let _ = writeln!(text, "INVALID   {word}: {why}");
        }
    }
    if before.asked.schedule != after.asked.schedule {
        text.push_str("note      their schedules differ\n");
    }
    text.push_str("\n                     before        after   ratio   95 of 100 within\n");
    for row in rows {
        let within =
            row.interval.map_or("-".to_owned(), |(from, to)| format!("{from:.3} to {to:.3}"));
        let (before, after) =
            (milliseconds(row.before_us as f64), milliseconds(row.after_us as f64));
        let (name, ratio, words) = (&row.name, row.ratio, row.words());
        let _ = writeln!(
            text,
            "  {name:14} {before:>12} {after:>12} {ratio:>7.3}   {within:18} {words}"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    /// Intervals of 300 requests that take about so long, a little more or less.
    fn about(us: f64, seed: u64) -> Report {
        let mut random = Random::new(seed);
        let mut times = Vec::new();
        for second in 0..30 {
            let mood = 1.0 + 0.05 * (random.share() - 0.5);
            for _ in 0..300 {
                times.push((second, (us * mood * (1.0 + random.exponential())) as u64));
            }
        }
        report(times)
    }

    fn words(rows: &[Row]) -> Vec<&'static str> {
        rows.iter().map(Row::words).collect()
    }

    #[test]
    fn where_only_chance_differs_no_difference_is_seen() {
        // By its nature it is wrong once in twenty.
        let wrong = (0..20).filter(|pair| {
            let (one, other) = (about(1_000.0, 2 * pair), about(1_000.0, 2 * pair + 1));
            rows(&one, &other, 1)[0].words() != "no difference seen"
        });
        assert!(wrong.count() <= 3);
    }

    #[test]
    fn a_real_difference_is_seen_in_its_direction_and_its_size() {
        let (slow, fast) = (about(1_200.0, 2), about(1_000.0, 1));
        let found = rows(&fast, &slow, 1);
        assert_eq!(words(&found)[..3], ["slower"; 3], "{found:?}");
        let (from, to) = found[0].interval.unwrap();
        assert!(1.1 < from && to < 1.3, "{from} to {to}");
        assert_eq!(words(&rows(&slow, &fast, 1))[..3], ["faster"; 3]);
        // By a fifth is more than by a twentieth, and not more than by a half.
        assert!(found[0].is_slower_by(5.0) && !found[0].is_slower_by(50.0));
        assert!(!rows(&slow, &fast, 1)[0].is_slower_by(0.0));
    }

    #[test]
    fn whoever_asks_for_it_fails_where_the_second_run_is_slower_and_never_for_lack_of_knowledge() {
        let folder = tempfile::tempdir().unwrap();
        let kept = |name: &str, report: &Report| {
            let path = folder.path().join(name);
            std::fs::write(&path, json::write(report).unwrap()).unwrap();
            path
        };
        let fast = kept("fast", &about(1_000.0, 1));
        let slow = kept("slow", &about(1_200.0, 2));
        let short = kept("short", &report((0..100).map(|it| (it / 50, 100))));
        let ends =
            |before: &Path, after: &Path, slower_max| run((before, after), 1, false, slower_max);
        assert!(matches!(ends(&fast, &slow, None), Ok(Outcome::Met)));
        assert!(matches!(ends(&fast, &slow, Some(5.0)), Ok(Outcome::Missed)));
        assert!(matches!(ends(&fast, &slow, Some(50.0)), Ok(Outcome::Met)));
        assert!(matches!(ends(&slow, &fast, Some(0.0)), Ok(Outcome::Met)));
        assert!(ends(&short, &short, Some(5.0)).is_err_and(|why| why.contains("intervals")));
    }

    #[test]
    fn the_same_seed_draws_the_same_and_few_intervals_tell_nothing() {
        let (one, other) = (about(1_000.0, 1), about(1_100.0, 3));
        let interval = || rows(&one, &other, 9)[2].interval;
        assert_eq!(interval(), interval());
        let short = report((0..100).map(|it| (it / 50, 100)));
        assert_eq!(words(&rows(&short, &short, 1))[0], "too few intervals to tell");
    }
}
