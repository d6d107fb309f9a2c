//! What points are worth after a while, as FORMAT.md writes it down in section 3: in integers, and
//! whatever order they came in.

use std::sync::LazyLock;

/// `2^(1/2)`, `2^(1/4)`, ... with 62 bits after the point.
static ROOTS: LazyLock<[u128; 32]> = LazyLock::new(|| {
    let mut roots = [0; 32];
    let mut square: u128 = 2 << 62;
    for root in &mut roots {
        square = (square << 62).isqrt();
        *root = square;
    }
    roots
});

/// `2^(part / whole)` with 62 bits after the point.
fn exp2(part: u64, whole: u64) -> u128 {
    if part == whole {
        return 1 << 63;
    }
    let bits = (u128::from(part) << 32) / u128::from(whole);
    let named = ROOTS.iter().enumerate().filter(|(place, _)| bits >> (31 - place) & 1 == 1);
    named.fold(1 << 62, |power, (_, root)| (power * root) >> 62)
}

/// The part of a row's weight that depends on its moment alone.
pub fn power(when: u64, half_life: u64) -> u64 {
    (exp2(when % half_life, half_life) >> 32) as u64
}

/// Points of one category, in thousandths, as far as they fade together.
#[derive(Clone, Copy, Debug)]
pub struct Worth {
    half_life: u64,
    base: u64,
    latest: u64,
    weight: i128,
    any: bool,
}

/// What is granted: when, how many thousandths, and the power of that moment.
pub type Granted = (u64, i64, u64);

impl Worth {
    /// Of all of these rows; those granted nothing are left out.
    pub fn of(half_life: u64, rows: impl Iterator<Item = Granted> + Clone) -> Worth {
        let rows = rows.filter(|row| row.1 != 0);
        let latest = rows.clone().map(|row| row.0).max();
        let base = latest.unwrap_or(0) / half_life;
        let mut worth = Worth {
            half_life,
            base,
            latest: latest.unwrap_or(0),
            weight: 0,
            any: latest.is_some(),
        };
        for row in rows {
            worth.weight += worth.weigh(row);
        }
        worth
    }

    fn weigh(&self, (when, granted, power): Granted) -> i128 {
        let back = self.base - when / self.half_life;
        if back > 32 { 0 } else { (i128::from(granted) * i128::from(power)) << (32 - back) }
    }

    /// Adds a row, unless all have to be weighed anew for it.
    #[must_use]
    pub fn add(&mut self, row: Granted) -> bool {
        if row.1 == 0 {
            return true;
        }
        if !self.any || row.0 / self.half_life > self.base {
            return false;
        }
        self.weight += self.weigh(row);
        self.latest = self.latest.max(row.0);
        true
    }

    /// What they are worth at a moment.
    pub fn at(&self, at: u64) -> i64 {
        if !self.any {
            return 0;
        }
        let age = at.max(self.latest) - self.base * self.half_life;
        let (whole, part) = (age / self.half_life, age % self.half_life);
        let factor = (exp2(self.half_life - part, self.half_life) >> 12) as i128;
        let shift = 87 + whole.min(64);
        if shift > 126 {
            return 0;
        }
        (((self.weight >> 26) * factor + (1 << (shift - 1))) >> shift) as i64
    }

    /// Whether they can be worth less than nothing.
    pub fn is_negative(&self) -> bool {
        self.weight < 0
    }
}

/// A score: the categories that count in it.
#[derive(Clone, Debug)]
pub struct Score(pub Vec<Worth>);

impl Score {
    /// At a moment.
    pub fn at(&self, at: u64) -> i64 {
        self.0.iter().map(|worth| worth.at(at)).sum()
    }

    /// Whether time alone can raise it.
    pub fn may_rise(&self) -> bool {
        self.0.iter().any(Worth::is_negative)
    }

    /// The first moment from one to another at which it is below a line.
    pub fn first_below(&self, line: i64, from: u64, until: u64) -> Option<u64> {
        self.first(&|score| score < line, true, from, until)
    }

    /// The first moment from one to another at which it reaches a line.
    pub fn first_at_least(&self, line: i64, from: u64, until: u64) -> Option<u64> {
        self.first(&|score| score >= line, false, from, until)
    }

    /// Halves the stretch as long as its bounds do not rule it out. What is above nothing sinks
    /// and what is below it rises, so each part is least at one end and greatest at the other.
    fn first(&self, is: &dyn Fn(i64) -> bool, low: bool, from: u64, until: u64) -> Option<u64> {
        if from > until {
            return None;
        }
        if is(self.at(from)) {
            return Some(from);
        }
        let extreme = self
            .0
            .iter()
            .map(|worth| worth.at(if worth.is_negative() == low { from } else { until }));
        if from == until || !is(extreme.sum()) {
            return None;
        }
        let middle = from + (until - from) / 2;
        self.first(is, low, from + 1, middle.max(from + 1))
            .or_else(|| self.first(is, low, middle.max(from + 1) + 1, until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAYS_14: u64 = 1_209_600_000;

    fn rows(rows: &[(u64, i64)]) -> Vec<Granted> {
        rows.iter().map(|(when, points)| (*when, *points, power(*when, DAYS_14))).collect()
    }

    #[test]
    fn the_example_of_the_format_is_worth_what_it_says() {
        let rows = rows(&[
            (1_796_083_200_000, 12_000),
            (1_796_515_200_000, 20_000),
            (1_796_601_600_000, -10_000),
        ]);
        assert_eq!(rows[0].2, 1_945_026_758);
        assert_eq!((ROOTS[0], ROOTS[31]), (0x5a82_7999_fcef_3242, 0x4000_0000_2c5c_85fd));
        let worth = Worth::of(DAYS_14, rows.iter().copied());
        assert_eq!(worth.weight, 100_908_924_956_319_940_608_000);
        assert_eq!(worth.at(1_796_947_200_000), 14_725);
    }

    #[test]
    fn one_row_after_another_comes_to_the_same_as_all_at_once() {
        let rows = rows(&[(5_000, 7_000), (1_000, 3_000), (9_000, -2_000)]);
        let mut worth = Worth::of(DAYS_14, rows[..1].iter().copied());
        assert!(worth.add(rows[1]) && worth.add(rows[2]));
        assert_eq!(worth.at(50_000), Worth::of(DAYS_14, rows.iter().copied()).at(50_000));
        assert!(!worth.add((DAYS_14 * 2, 1_000, 1)));
    }

    #[test]
    fn the_first_moment_below_a_line_is_found_to_the_millisecond() {
        let row = |when, points, half_life| (when, points, power(when, half_life));
        let slow = Worth::of(60_000, std::iter::once(row(0, 50_000, 60_000)));
        let fast = Worth::of(1_000, std::iter::once(row(0, -20_000, 1_000)));
        let score = Score(vec![slow, fast]);
        for line in [30_001, 35_000, 43_000] {
            let by_hand = (0..20_000).find(|at| score.at(*at) >= line);
            assert_eq!(score.first_at_least(line, 0, 20_000), by_hand);
        }
        for line in [12_000, 30_000, 30_001] {
            let by_hand = (0..200_000).find(|at| score.at(*at) < line);
            assert_eq!(score.first_below(line, 0, 200_000), by_hand, "{line}");
        }
        assert_eq!(score.first_below(30_000, 0, 1_000), None);
    }
}
