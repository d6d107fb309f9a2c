//! Points as a value: whole thousandths, so that cuts, fading and halving stay exact.

use std::fmt;

/// Thousandths of a point. Rules give whole points; cuts, fading and halving do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Points(pub i64);

impl Points {
    /// Whole points.
    pub const fn whole(points: i64) -> Points {
        Points(points.saturating_mul(1_000))
    }

    /// The whole points in it, rounded down: what people see.
    pub fn shown(self) -> i64 {
        self.0.div_euclid(1_000)
    }
}

impl fmt::Display for Points {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let size = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:03}", size / 1_000, size % 1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_print_their_thousandths() {
        assert_eq!(Points(69_923).to_string(), "69.923");
        assert_eq!(Points(-68_993).to_string(), "-68.993");
        assert_eq!((Points(-68_993).shown(), Points(69_923).shown()), (-69, 69));
        assert_eq!(Points::whole(i64::MAX), Points(i64::MAX));
    }
}
