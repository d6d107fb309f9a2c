//! A Grade is fit: how much a person is the customer we look for, from what they told us. It
//! never fades, and too little known is "?", not bad.

/// Fit, best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grade {
    /// The customer we look for.
    A,
    /// A good one.
    B,
    /// A possible one.
    C,
    /// Not our target.
    D,
    /// Too little is known.
    #[default]
    Unknown,
}

impl Grade {
    /// All grades.
    pub const ALL: [Grade; 5] = [Grade::A, Grade::B, Grade::C, Grade::D, Grade::Unknown];

    /// What people read.
    pub fn letter(self) -> &'static str {
        match self {
            Grade::A => "A",
            Grade::B => "B",
            Grade::C => "C",
            Grade::D => "D",
            Grade::Unknown => "?",
        }
    }

    /// Reads what people write.
    pub fn parse(letter: &str) -> Option<Grade> {
        Grade::ALL.into_iter().find(|grade| grade.letter() == letter)
    }
}
