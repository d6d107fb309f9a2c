//! The score by its definition, as FORMAT.md gives it to readers in other languages, written a
//! second time: no base that moves, no running sums, every row from scratch.

use std::sync::OnceLock;

const ONE: u128 = 1 << 62;

/// `2^(part / whole)` with 62 bits after the point, from the first 32 bits of the quotient.
fn power_of_two(part: u64, whole: u64) -> u128 {
    static ROOTS: OnceLock<Vec<u128>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let next = |root: &u128| Some(integer_root(root * ONE));
        std::iter::successors(next(&(2 * ONE)), next).take(32).collect()
    });
    let mut power = ONE;
    let mut rest = u128::from(part);
    for root in roots {
        rest *= 2;
        if rest >= u128::from(whole) {
            rest -= u128::from(whole);
            power = power * root / ONE;
        }
    }
    power
}

/// The greatest number whose square is not above this one, by trying every bit.
fn integer_root(square: u128) -> u128 {
    let mut root = 0_u128;
    for bit in (0..64).rev() {
        let tried = root | 1 << bit;
        if tried.checked_mul(tried).is_some_and(|product| product <= square) {
            root = tried;
        }
    }
    root
}

/// Rows of one category, weighed once so that many moments can be asked for.
#[derive(Clone, Debug)]
pub struct Faded {
    half_life: u64,
    latest: u64,
    sum: i128,
}

impl Faded {
    /// Of rows of (when, thousandths) in a category of this half-life.
    pub fn new(half_life: u64, rows: &[(u64, i64)]) -> Faded {
        let rows: Vec<(u64, i64)> = rows.iter().copied().filter(|row| row.1 != 0).collect();
        let latest = rows.iter().map(|row| row.0).max().unwrap_or(0);
        let base = latest / half_life;
        let mut sum = 0_i128;
        for &(when, points) in &rows {
            let back = base - when / half_life;
            if back <= 32 {
                let power = (power_of_two(when % half_life, half_life) >> 32) as i128;
                sum += i128::from(points) * power * (1_i128 << (32 - back));
            }
        }
        Faded { half_life, latest, sum }
    }

    /// What they are worth at a moment. Nothing is older than new.
    pub fn at(&self, at: u64) -> i64 {
        let age = at.max(self.latest) - self.latest / self.half_life * self.half_life;
        let (whole, part) = (age / self.half_life, age % self.half_life);
        let factor = match part {
            0 => 2 << 50,
            _ => (power_of_two(self.half_life - part, self.half_life) >> 12) as i128,
        };
        // 30 bits of power, 32 of half-lives, 50 of the factor, one for its being doubled.
        let bits = 30 + 32 - 26 + 50 + 1 + whole;
        if bits > 126 {
            return 0;
        }
        let product = self.sum.div_euclid(1 << 26) * factor;
        (product + (1_i128 << (bits - 1))).div_euclid(1_i128 << bits) as i64
    }
}

/// The value of rows of (when, thousandths) in a category of this half-life at a moment.
pub fn value(half_life: u64, rows: &[(u64, i64)], at: u64) -> i64 {
    Faded::new(half_life, rows).at(at)
}

/// The same in floating point, by the formula everybody knows.
pub fn value_f64(half_life: u64, rows: &[(u64, i64)], at: u64) -> f64 {
    let faded = |&(when, points): &(u64, i64)| {
        let age = at.saturating_sub(when) as f64 / half_life as f64;
        points as f64 * 0.5_f64.powf(age)
    };
    rows.iter().map(faded).sum()
}
