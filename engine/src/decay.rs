//! Points fade by half-lives, in integers and free of order: whoever holds the same rows gets
//! the same value, whatever order they came in. FORMAT.md gives this arithmetic to readers in
//! other languages; every number here is part of that promise.
//!
//! A row of `g` thousandths earned at `when`, in a category of half-life `H`, weighs
//! `g * 2^(when mod H / H)` at the whole half-life `n = when div H`. A sum has a *base*, the
//! greatest `n` of its rows; older rows weigh half as much for each half-life between. The
//! value at a time is one multiplication of the summed weight and one rounding, half up.

use std::time::Duration;

use crate::points::Points;
use crate::time::Timestamp;

/// Bits after the point of the power of two in a row's weight.
const POWER_BITS: u32 = 30;
/// Half-lives after which a row weighs nothing: 10,000 points are then 0.002 thousandths.
const HALF_LIVES_MAX: u64 = 32;
/// Bits dropped from a summed weight before it is multiplied, to stay within 128 bits.
const DROPPED_BITS: u32 = 26;
/// Bits after the point of the fading factor.
const FADING_BITS: u32 = 50;
/// Bits after the point of a weight that has lost the dropped bits.
const WEIGHT_BITS: u32 = POWER_BITS + HALF_LIVES_MAX as u32 - DROPPED_BITS;

/// The time in which points halve, at least a second. A type so that no sum mixes two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HalfLife(u64);

impl HalfLife {
    /// From milliseconds; between a second and a hundred years.
    pub fn from_millis(millis: u64) -> Option<HalfLife> {
        (1_000..=3_155_760_000_000).contains(&millis).then_some(HalfLife(millis))
    }

    /// From a duration; see `from_millis`.
    pub fn new(duration: Duration) -> Option<HalfLife> {
        HalfLife::from_millis(u64::try_from(duration.as_millis()).ok()?)
    }

    /// Its length in milliseconds.
    pub fn millis(self) -> u64 {
        self.0
    }

    /// The whole half-life a moment lies in.
    fn index(self, at: Timestamp) -> u64 {
        at.0 / self.0
    }
}

/// The summed weight of some rows of one half-life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    half_life: HalfLife,
    /// The whole half-life that the weight is relative to: the greatest of any row added.
    base: u64,
    /// In units of 2^-62 thousandths.
    weight: i128,
    /// The latest row. Nothing is older than new: before it, no row has faded.
    latest: Timestamp,
}

impl Sum {
    /// No rows.
    pub fn empty(half_life: HalfLife) -> Sum {
        Sum { half_life, base: 0, weight: 0, latest: Timestamp(0) }
    }

    /// The half-life it was made for.
    pub fn half_life(&self) -> HalfLife {
        self.half_life
    }

    /// Sums rows of (when, granted). Rows of nothing leave no trace.
    pub fn of(half_life: HalfLife, rows: impl Iterator<Item = (Timestamp, Points)> + Clone) -> Sum {
        let granted = rows.filter(|(_, points)| points.0 != 0);
        let Some(latest) = granted.clone().map(|(when, _)| when).max() else {
            return Sum::empty(half_life);
        };
        let base = half_life.index(latest);
        let weight = granted.map(|(when, points)| weight(half_life, base, when, points)).sum();
        Sum { half_life, base, weight, latest }
    }

    /// Adds a row, if the base stays: nothing when the whole must be summed anew.
    #[must_use]
    pub fn with(self, when: Timestamp, points: Points) -> Option<Sum> {
        if points.0 == 0 {
            return Some(self);
        }
        let index = self.half_life.index(when);
        if self.weight == 0 && self.latest == Timestamp(0) {
            return Some(Sum::of(self.half_life, std::iter::once((when, points))));
        }
        (index <= self.base).then(|| Sum {
            weight: self.weight + weight(self.half_life, self.base, when, points),
            latest: self.latest.max(when),
            ..self
        })
    }

    /// What the rows are worth at a moment, in thousandths, rounded once, half up.
    pub fn value(&self, at: Timestamp) -> Points {
        let fading = Fading::new(self, at);
        Points(fading.round(self.weight >> DROPPED_BITS))
    }

    /// Whether the value can only sink (towards zero from above), only rise, or is zero.
    pub fn sign(&self) -> i32 {
        (self.weight >> DROPPED_BITS).signum() as i32
    }

    /// What each row contributes to `value(at)`: whole thousandths that add up to it exactly.
    /// The thousandths that rounding leaves over go to the largest remainders, earlier first.
    pub fn shares(&self, at: Timestamp, rows: &[(Timestamp, Points)]) -> Vec<Points> {
        let fading = Fading::new(self, at);
        let mut shares = Vec::with_capacity(rows.len());
        let mut remainders = Vec::with_capacity(rows.len());
        for (index, &(when, points)) in rows.iter().enumerate() {
            let weight = match points.0 {
                0 => 0,
                _ => weight(self.half_life, self.base, when, points) >> DROPPED_BITS,
            };
            let (whole, rest) = fading.split(weight);
            shares.push(Points(whole));
            remainders.push((rest, index));
        }
        let missing = self.value(at).0 - shares.iter().map(|share| share.0).sum::<i64>();
        remainders.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        for &(_, index) in remainders.iter().take(missing.max(0) as usize) {
            shares[index].0 += 1;
        }
        shares
    }
}

/// The factor by which weights at a base fade until a moment: `factor * 2^-shift`.
struct Fading {
    factor: i128,
    shift: u32,
}

impl Fading {
    fn new(sum: &Sum, at: Timestamp) -> Fading {
        let half_life = sum.half_life.0;
        let age = at.max(sum.latest).0 - sum.base * half_life;
        let (whole, part) = (age / half_life, age % half_life);
        // 2^-(whole + part/H) = 2^(1 - part/H) * 2^-(whole + 1), with a power in [1, 2].
        let factor = exp2(half_life - part, half_life, FADING_BITS);
        let shift = WEIGHT_BITS + FADING_BITS + 1 + whole.min(64) as u32;
        Fading { factor: i128::from(factor), shift }
    }

    fn round(&self, weight: i128) -> i64 {
        let product = weight * self.factor;
        if self.shift > 126 {
            return 0;
        }
        ((product + (1 << (self.shift - 1))) >> self.shift) as i64
    }

    /// The whole thousandths, rounded down, and the remainder.
    fn split(&self, weight: i128) -> (i64, i128) {
        if self.shift > 126 {
            return (0, 0);
        }
        let product = weight * self.factor;
        let whole = product >> self.shift;
        (whole as i64, product - (whole << self.shift))
    }
}

/// The weight of one row relative to a base, in units of 2^-62 thousandths.
fn weight(half_life: HalfLife, base: u64, when: Timestamp, points: Points) -> i128 {
    let index = half_life.index(when);
    let back = base - index;
    if back > HALF_LIVES_MAX {
        return 0;
    }
    let power = exp2(when.0 % half_life.0, half_life.0, POWER_BITS);
    (i128::from(points.0) * i128::from(power)) << (HALF_LIVES_MAX - back)
}

/// `2^(part / whole)` with so many bits after the point, for `0 <= part <= whole`: of the first 32
/// bits of the quotient, see [`power_of`].
fn exp2(part: u64, whole: u64, kept: u32) -> u64 {
    if part == whole {
        return 2 << kept;
    }
    let bits = match u32::try_from(part) {
        Ok(part) => (u64::from(part) << 32) / whole,
        Err(_) => ((u128::from(part) << 32) / u128::from(whole)) as u64,
    };
    rounded_power_of(bits as u32, kept)
}

/// What a power has lost at most: no more than 32 products of numbers below two are each rounded
/// down by less than one.
const POWER_LOST: u64 = 128;

/// The same as `power_of(bits) >> (62 - kept)`, by three products of tables where that is sure to
/// be the same. Worth it: a power took 107 ns, most of it for guessing bits wrong, and takes 5; a
/// hit that earns something asks for one of each row that has counted.
fn rounded_power_of(bits: u32, kept: u32) -> u64 {
    let dropped = 62 - kept;
    let [first, second, third, fourth] = bits.to_be_bytes().map(usize::from);
    let times = |power: u64, by: u64| ((u128::from(power) * u128::from(by)) >> 62) as u64;
    let power = times(POWERS[0][first], POWERS[1][second]);
    let power = times(times(power, POWERS[2][third]), POWERS[3][fourth]);
    let rest = power & ((1 << dropped) - 1);
    let sure = rest >= POWER_LOST && rest < (1 << dropped) - POWER_LOST;
    if sure { power >> dropped } else { power_of(bits) >> dropped }
}

/// `2^(bits / 2^32)` with 62 bits after the point: the product of the roots of two that the bits
/// name, largest root first, each product rounded down.
const fn power_of(bits: u32) -> u64 {
    let mut power: u128 = 1 << 62;
    let mut index = 0;
    while index < 32 {
        if bits >> (31 - index) & 1 == 1 {
            power = (power * ROOTS[index] as u128) >> 62;
        }
        index += 1;
    }
    power as u64
}

/// The powers by each byte of the bits, the highest first.
static POWERS: [[u64; 256]; 4] = {
    let mut powers = [[0; 256]; 4];
    let mut place = 0;
    while place < 4 {
        let mut byte = 0;
        while byte < 256 {
            powers[place][byte] = power_of((byte as u32) << (24 - 8 * place));
            byte += 1;
        }
        place += 1;
    }
    powers
};

/// `2^(1/2)`, `2^(1/4)`, ... `2^(1/2^32)`, with 62 bits after the point, rounded down.
const ROOTS: [u64; 32] = roots();

const fn roots() -> [u64; 32] {
    let mut roots = [0; 32];
    let mut square: u128 = 2 << 62;
    let mut index = 0;
    while index < 32 {
        // The root of x / 2^62 is the integer root of x * 2^62, over 2^62.
        square = (square << 62).isqrt();
        roots[index] = square as u64;
        index += 1;
    }
    roots
}

/// A value made of sums that may fade at different speeds and have different signs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Total {
    sums: Vec<Sum>,
    /// The same with the short memory of urgency, where somebody asks for it.
    urgency: Option<Sum>,
}

impl Total {
    /// Over these sums.
    pub fn new(sums: Vec<Sum>) -> Total {
        Total { sums, urgency: None }
    }

    /// The same, with the sum that is its urgency.
    #[must_use]
    pub fn with_urgency(self, urgency: Option<Sum>) -> Total {
        Total { urgency, ..self }
    }

    /// The sum that is its urgency, to add to.
    pub fn urgency_mut(&mut self) -> Option<&mut Sum> {
        self.urgency.as_mut()
    }

    /// The urgency at a moment; 0 if nobody asks for it.
    pub fn urgency(&self, at: Timestamp) -> Points {
        self.urgency.map(|sum| sum.value(at)).unwrap_or_default()
    }

    /// Until when the urgency is not below a line above 0, if it is not at `from`. It has one
    /// half-life, so that time alone only lowers it.
    pub fn urgent_until(
        &self,
        line: Points,
        from: Timestamp,
        until: Timestamp,
    ) -> Option<Timestamp> {
        let urgency = Total::new(self.urgency.into_iter().collect());
        if urgency.value(from) < line {
            return None;
        }
        let until = until.min(urgency.end());
        let ends = urgency.first(Reach::Below, line, from, until);
        Some(ends.map_or(until, |at| at.minus(Duration::from_millis(1))))
    }

    /// The sums, to add to.
    pub fn sums_mut(&mut self) -> &mut [Sum] {
        &mut self.sums
    }

    /// The sum of the rounded values at a moment.
    pub fn value(&self, at: Timestamp) -> Points {
        Points(self.sums.iter().map(|sum| sum.value(at).0).sum())
    }

    /// The first millisecond in `from..=until` at which the value is below (or not below) the
    /// line. Exact, also with several half-lives and signs: an interval is given up only when
    /// the bounds of its falling and rising parts exclude the line.
    pub fn first(
        &self,
        side: Reach,
        line: Points,
        from: Timestamp,
        until: Timestamp,
    ) -> Option<Timestamp> {
        if from > until {
            return None;
        }
        let mut intervals = vec![(from.0, until.0)];
        while let Some((start, end)) = intervals.pop() {
            if side.of(self.value(Timestamp(start)), line) {
                return Some(Timestamp(start));
            }
            if start == end || !self.may_cross(side, line, start, end) {
                continue;
            }
            let middle = start + (end - start) / 2;
            intervals.push((middle + 1, end));
            // `start` itself is known to be on the other side.
            if start < middle {
                intervals.push((start + 1, middle));
            }
        }
        None
    }

    /// Bounds by monotone parts: what sinks is greatest at the start, what rises at the end.
    fn may_cross(&self, side: Reach, line: Points, start: u64, end: u64) -> bool {
        let (sinking_at, rising_at) = match side {
            Reach::Below => (end, start),
            Reach::NotBelow => (start, end),
        };
        let extreme: i64 = self
            .sums
            .iter()
            .map(|sum| {
                let at = if sum.sign() >= 0 { sinking_at } else { rising_at };
                sum.value(Timestamp(at)).0
            })
            .sum();
        side.of(Points(extreme), line)
    }

    /// When nothing is left: after this, every value is zero.
    pub fn end(&self) -> Timestamp {
        let gone = |sum: &Sum| sum.latest.plus(Duration::from_millis(sum.half_life.0 * 40));
        self.sums.iter().map(gone).max().unwrap_or_default()
    }

    /// Whether time alone could make the value rise: something in it is negative.
    pub fn may_rise(&self) -> bool {
        self.sums.iter().any(|sum| sum.sign() < 0)
    }
}

/// Which side of a line is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Less than the line.
    Below,
    /// The line or more.
    NotBelow,
}

impl Reach {
    fn of(self, value: Points, line: Points) -> bool {
        match self {
            Reach::Below => value < line,
            Reach::NotBelow => value >= line,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: u64 = 86_400_000;

    fn half_life(days: u64) -> HalfLife {
        HalfLife::from_millis(days * DAY).unwrap()
    }

    fn row() -> impl Strategy<Value = (Timestamp, Points)> {
        (0..200 * DAY, -60_000_i64..60_000)
            .prop_map(|(when, points)| (Timestamp(1_790_000_000_000 + when), Points(points)))
    }

    #[test]
    fn after_one_half_life_half_is_left() {
        let when = Timestamp(1_796_000_000_123);
        let sum = Sum::of(half_life(14), std::iter::once((when, Points(60_000))));
        assert_eq!(sum.value(when), Points(60_000));
        assert_eq!(sum.value(when.plus(Duration::from_millis(14 * DAY))), Points(30_000));
        assert_eq!(sum.value(when.plus(Duration::from_millis(140 * DAY))), Points(59));
        assert_eq!(sum.value(when.plus(Duration::from_millis(4_000 * DAY))), Points(0));
    }

    proptest! {
        #[test]
        fn the_value_is_the_exact_one_to_a_thousandth(
            rows in prop::collection::vec(row(), 1..40),
            later in 0..60 * DAY,
        ) {
            let sum = Sum::of(half_life(30), rows.iter().copied());
            let at = Timestamp(1_790_000_000_000 + 200 * DAY + later);
            let exact: f64 = rows.iter().map(|(when, points)| {
                points.0 as f64 * (-((at.0 - when.0) as f64) / (30 * DAY) as f64).exp2()
            }).sum();
            let value = sum.value(at).0;
            prop_assert!((value as f64 - exact).abs() <= 0.501, "{value} {exact}");
        }

        #[test]
        fn a_power_by_tables_is_the_product_of_its_roots(bits in any::<u32>()) {
            for kept in [POWER_BITS, FADING_BITS] {
                prop_assert_eq!(rounded_power_of(bits, kept), power_of(bits) >> (62 - kept));
            }
        }

        #[test]
        fn the_order_of_rows_does_not_matter(
            rows in prop::collection::vec(row(), 1..40),
            later in 0..60 * DAY,
        ) {
            let mut sum = Sum::empty(half_life(14));
            for (index, &(when, points)) in rows.iter().enumerate() {
                sum = sum.with(when, points)
                    .unwrap_or_else(|| Sum::of(half_life(14), rows[..=index].iter().copied()));
            }
            let whole = Sum::of(half_life(14), rows.iter().rev().copied());
            let at = Timestamp(1_790_000_000_000 + 200 * DAY + later);
            prop_assert_eq!(sum.value(at), whole.value(at));
        }

        #[test]
        fn the_shares_add_up_to_the_value(
            rows in prop::collection::vec(row(), 0..40),
            later in 0..600 * DAY,
        ) {
            let sum = Sum::of(half_life(14), rows.iter().copied());
            let at = Timestamp(1_790_000_000_000 + later);
            let shares = sum.shares(at, &rows);
            prop_assert_eq!(shares.iter().map(|share| share.0).sum::<i64>(), sum.value(at).0);
        }

        #[test]
        fn the_first_crossing_is_where_the_value_changes_sides(
            a in prop::collection::vec(row(), 0..6),
            b in prop::collection::vec(row(), 0..6),
            line in -80_000_i64..80_000,
            below in any::<bool>(),
        ) {
            let total = Total::new(vec![
                Sum::of(half_life(14), a.iter().copied()),
                Sum::of(half_life(30), b.iter().copied()),
            ]);
            let side = if below { Reach::Below } else { Reach::NotBelow };
            let from = Timestamp(1_790_000_000_000 + 200 * DAY);
            let until = from.plus(Duration::from_millis(400 * DAY));
            let found = total.first(side, Points(line), from, until);
            // Every hour on a coarse walk before it lies on the other side.
            let mut at = from;
            while at < found.unwrap_or(until) {
                prop_assert!(!side.of(total.value(at), Points(line)));
                at = at.plus(Duration::from_hours(1));
            }
            if let Some(found) = found {
                prop_assert!(side.of(total.value(found), Points(line)));
                if found > from {
                    prop_assert!(!side.of(total.value(Timestamp(found.0 - 1)), Points(line)));
                }
            }
        }
    }
}
