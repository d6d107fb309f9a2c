//! Chance from a seed, so that a run can be repeated (SplitMix64).

/// A source of numbers.
pub struct Random(u64);

impl Random {
    /// Everything drawn follows from the seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which must not be 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end as u64) as usize
    }

    /// A number from 0 to below 1.
    pub fn share(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// How long one waits for what happens once in a while, on average 1.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.share()).ln()
    }

    /// Whether something of this probability happens.
    pub fn happens(&mut self, probability: f64) -> bool {
        self.share() < probability
    }
}

/// Who comes how often, as pages and people are known to: the first twice as often as the second,
/// three times as often as the third, where `exponent` is 1; all alike where it is 0.
///
/// By rejection from the integral of the law (W. Hormann and G. Derflinger, "Rejection-inversion
/// to generate variates from monotone discrete distributions", 1996), so that it needs no table.
#[derive(Clone, Copy, Debug)]
pub struct Zipf {
    count: f64,
    exponent: f64,
    first: f64,
    last: f64,
    /// Below it a candidate needs no second look.
    surely: f64,
}

impl Zipf {
    /// Over `count` of them, at least one.
    pub fn new(count: usize, exponent: f64) -> Zipf {
        let mut law = Zipf { count: count as f64, exponent, first: 0.0, last: 0.0, surely: 0.0 };
        law.first = law.integral(1.5) - 1.0;
        law.last = law.integral(law.count + 0.5);
        law.surely = 2.0 - law.inverse(law.integral(2.5) - law.density(2.0));
        law
    }

    /// One of them, from 0 for the most frequent.
    pub fn draw(&self, random: &mut Random) -> usize {
        loop {
            let area = self.last + random.share() * (self.first - self.last);
            let place = self.inverse(area);
            let rank = (place + 0.5).floor().clamp(1.0, self.count);
            let near = rank - place <= self.surely;
            if near || area >= self.integral(rank + 0.5) - self.density(rank) {
                return rank as usize - 1;
            }
        }
    }

    fn density(&self, at: f64) -> f64 {
        (-self.exponent * at.ln()).exp()
    }

    fn integral(&self, at: f64) -> f64 {
        let log = at.ln();
        expm1_by((1.0 - self.exponent) * log) * log
    }

    fn inverse(&self, area: f64) -> f64 {
        let by = (area * (1.0 - self.exponent)).max(-1.0);
        (ln_1p_by(by) * area).exp()
    }
}

/// (e^x - 1) / x, also where x is next to nothing.
fn expm1_by(x: f64) -> f64 {
    if x.abs() > 1e-8 { x.exp_m1() / x } else { 1.0 + x / 2.0 }
}

/// ln(1 + x) / x, also where x is next to nothing.
fn ln_1p_by(x: f64) -> f64 {
    if x.abs() > 1e-8 { x.ln_1p() / x } else { 1.0 - x / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_comes_as_much_more_often_as_the_exponent_says() {
        for exponent in [0.0, 0.7, 1.0, 1.3] {
            let (law, mut random) = (Zipf::new(1_000, exponent), Random::new(3));
            let mut seen = vec![0_u32; 1_000];
            (0..400_000).for_each(|_| seen[law.draw(&mut random)] += 1);
            let weights: Vec<f64> = (1..=1_000).map(|it| f64::from(it).powf(-exponent)).collect();
            let total: f64 = weights.iter().sum();
            for rank in [0, 1, 2, 9, 99] {
                let expected = 400_000.0 * weights[rank] / total;
                let off = (f64::from(seen[rank]) - expected).abs() / expected.sqrt();
                assert!(off < 5.0, "rank {rank}, exponent {exponent}: {off} deviations");
            }
            let tail: u32 = seen[500..].iter().sum();
            let expected = 400_000.0 * weights[500..].iter().sum::<f64>() / total;
            assert!((f64::from(tail) - expected).abs() / expected.sqrt() < 5.0);
        }
        assert_eq!(Zipf::new(1, 1.0).draw(&mut Random::new(1)), 0);
    }
}
