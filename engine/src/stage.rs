//! A Stage is where a lead stands between marketing and sales. Marketing's stages follow the
//! thresholds; those of sales follow its answers.

/// Where a lead stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Nobody said who it is.
    #[default]
    Anonymous,
    /// Known, below every line.
    Known,
    /// In at the threshold named "warm".
    Warm,
    /// In at the threshold named "hot".
    Hot,
}

impl Stage {
    /// All stages, coldest first.
    pub const ALL: [Stage; 4] = [Stage::Anonymous, Stage::Known, Stage::Warm, Stage::Hot];

    /// The name in messages, settings and answers.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Anonymous => "anonymous",
            Stage::Known => "known",
            Stage::Warm => "warm",
            Stage::Hot => "hot",
        }
    }
}
