//! What is not as it has to be: counts by sort, and the first few in words.

/// How something is not as it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// A hit was acknowledged, and the server does not have it.
    Lost,
    /// The server has a hit that nobody sent, or told what nothing had caused.
    Invented,
    /// What had to be told came to nobody.
    Missing,
    /// A hit is recorded twice, or one cause was told under two ids.
    Doubled,
    /// A score, the points of a message, or an order.
    Wrong,
}

/// Examples kept of each sort.
const EXAMPLES_MAX: u64 = 8;

/// Counts and examples.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    counts: [u64; 5],
    examples: Vec<String>,
}

impl Sort {
    /// All, in the order in which they are shown.
    pub const ALL: [(Sort, &str); 5] = [
        (Sort::Lost, "lost"),
        (Sort::Invented, "invented"),
        (Sort::Missing, "missing"),
        (Sort::Doubled, "doubled"),
        (Sort::Wrong, "wrong"),
    ];
}

impl Findings {
    /// Takes note of one.
    pub fn note(&mut self, sort: Sort, what: impl FnOnce() -> String) {
        let count = &mut self.counts[sort as usize];
        *count += 1;
        if *count <= EXAMPLES_MAX {
            let name = Sort::ALL[sort as usize].1;
            self.examples.push(format!("{name}: {}", what()));
        }
    }

    /// Takes those of another.
    pub fn add(&mut self, other: Findings) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
        let room = EXAMPLES_MAX as usize * self.counts.len();
        let left = room.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.into_iter().take(left));
    }

    /// How many of a sort.
    pub fn count(&self, sort: Sort) -> u64 {
        self.counts[sort as usize]
    }

    /// How many of all.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.total() == 0
    }

    /// The first few.
    pub fn examples(&self) -> &[String] {
        &self.examples
    }
}
