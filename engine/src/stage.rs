//! A Stage is where a lead stands between marketing and sales. Marketing's stages follow the
//! thresholds; those of sales follow its answers, by the table in [`Stage::after`].

/// The audience whose answers move leads. A line that tells it has a gate more: sales is not
/// working the lead.
pub const SALES: &str = "sales";

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
    /// Somebody of sales took it.
    Accepted,
    /// Sales sees a deal in it.
    Working,
    /// They bought.
    Won,
    /// Sales did not want it. Shown until it is hot again.
    Rejected,
    /// The deal came to nothing. For a moment: it is recycled at once.
    Lost,
    /// Sales gave it back. Shown until it is hot again.
    Recycled,
}

/// Who decides where a lead stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The stage follows the thresholds.
    Marketing,
    /// The stage follows the answers.
    Sales,
}

/// What sales may answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FeedbackKind {
    /// Somebody takes it.
    #[default]
    Accepted,
    /// Not a lead; it needs more, and new, to come again.
    Rejected,
    /// They were spoken to.
    Contacted,
    /// A meeting is agreed on. Nothing is told until then.
    MeetingPlanned,
    /// It took place.
    MeetingDone,
    /// They did not come.
    NoShow,
    /// There is a deal, or news of one.
    Opportunity,
    /// They bought.
    Won,
    /// The deal came to nothing: half of the score goes, and the lead rests.
    Lost,
    /// Back to marketing, as it is.
    Recycle,
    /// Later.
    Snooze,
}

impl Stage {
    /// All stages, by their number in the journal.
    pub const ALL: [Stage; 10] = [
        Stage::Anonymous,
        Stage::Known,
        Stage::Warm,
        Stage::Hot,
        Stage::Accepted,
        Stage::Working,
        Stage::Won,
        Stage::Rejected,
        Stage::Lost,
        Stage::Recycled,
    ];

    /// The name in messages, settings and answers.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Anonymous => "anonymous",
            Stage::Known => "known",
            Stage::Warm => "warm",
            Stage::Hot => "hot",
            Stage::Accepted => "accepted",
            Stage::Working => "working",
            Stage::Won => "won",
            Stage::Rejected => "rejected",
            Stage::Lost => "lost",
            Stage::Recycled => "recycled",
        }
    }

    /// Reads a name.
    pub fn parse(name: &str) -> Option<Stage> {
        Stage::ALL.into_iter().find(|stage| stage.name() == name)
    }

    /// Who decides where the lead stands.
    pub fn owner(self) -> Owner {
        match self {
            Stage::Anonymous
            | Stage::Known
            | Stage::Warm
            | Stage::Hot
            | Stage::Rejected
            | Stage::Lost
            | Stage::Recycled => Owner::Marketing,
            Stage::Accepted | Stage::Working | Stage::Won => Owner::Sales,
        }
    }

    /// Where an answer leaves a lead that stands here; nothing, if it cannot be given here.
    ///
    /// | answer          | known, warm, hot | rejected, recycled | accepted | working  | won      |
    /// |-----------------|------------------|--------------------|----------|----------|----------|
    /// | accepted        | accepted         | accepted           | accepted | working  | won      |
    /// | rejected        | rejected         | rejected           | rejected | rejected | -        |
    /// | contacted       | accepted         | accepted           | accepted | working  | won      |
    /// | meeting_planned | accepted         | accepted           | accepted | working  | won      |
    /// | meeting_done    | accepted         | accepted           | accepted | working  | won      |
    /// | no_show         | accepted         | accepted           | accepted | working  | won      |
    /// | opportunity     | working          | working            | working  | working  | working  |
    /// | won             | won              | won                | won      | won      | won      |
    /// | lost            | recycled         | recycled           | recycled | recycled | recycled |
    /// | recycle         | recycled         | recycled           | recycled | recycled | recycled |
    /// | snooze          | as it is         | as it is           | as it is | as it is | as it is |
    ///
    /// Of somebody anonymous nothing can be answered. Whoever speaks to a person has taken them.
    /// A deal that is lost is `lost` for no longer than the answer takes. Who bought cannot be
    /// "not a lead"; a further deal begins anew.
    pub fn after(self, answer: FeedbackKind) -> Option<Stage> {
        use Stage::{Accepted, Anonymous, Recycled, Rejected, Won, Working};
        match (self, answer) {
            (Anonymous, _) | (Won, FeedbackKind::Rejected) => None,
            (stage, FeedbackKind::Snooze) => Some(stage),
            (_, FeedbackKind::Rejected) => Some(Rejected),
            (_, FeedbackKind::Opportunity) => Some(Working),
            (_, FeedbackKind::Won) => Some(Won),
            (_, FeedbackKind::Lost | FeedbackKind::Recycle) => Some(Recycled),
            (Working | Won, _) => Some(self),
            (
                _,
                FeedbackKind::Accepted
                | FeedbackKind::Contacted
                | FeedbackKind::MeetingPlanned
                | FeedbackKind::MeetingDone
                | FeedbackKind::NoShow,
            ) => Some(Accepted),
        }
    }
}

impl FeedbackKind {
    /// All answers, by their number in the journal.
    pub const ALL: [FeedbackKind; 11] = [
        FeedbackKind::Accepted,
        FeedbackKind::Rejected,
        FeedbackKind::Contacted,
        FeedbackKind::MeetingPlanned,
        FeedbackKind::MeetingDone,
        FeedbackKind::NoShow,
        FeedbackKind::Opportunity,
        FeedbackKind::Won,
        FeedbackKind::Lost,
        FeedbackKind::Recycle,
        FeedbackKind::Snooze,
    ];

    /// The kind in requests, in `[sales].points` and in answers.
    pub fn name(self) -> &'static str {
        match self {
            FeedbackKind::Accepted => "accepted",
            FeedbackKind::Rejected => "rejected",
            FeedbackKind::Contacted => "contacted",
            FeedbackKind::MeetingPlanned => "meeting_planned",
            FeedbackKind::MeetingDone => "meeting_done",
            FeedbackKind::NoShow => "no_show",
            FeedbackKind::Opportunity => "opportunity",
            FeedbackKind::Won => "won",
            FeedbackKind::Lost => "lost",
            FeedbackKind::Recycle => "recycle",
            FeedbackKind::Snooze => "snooze",
        }
    }

    /// Reads a kind.
    pub fn parse(name: &str) -> Option<FeedbackKind> {
        FeedbackKind::ALL.into_iter().find(|answer| answer.name() == name)
    }

    /// Whether who gives it has spoken to the person, so that it is proved who they are.
    pub fn proves(self) -> bool {
        match self {
            FeedbackKind::Accepted
            | FeedbackKind::Contacted
            | FeedbackKind::MeetingDone
            | FeedbackKind::Opportunity
            | FeedbackKind::Won => true,
            FeedbackKind::Rejected
            | FeedbackKind::MeetingPlanned
            | FeedbackKind::NoShow
            | FeedbackKind::Lost
            | FeedbackKind::Recycle
            | FeedbackKind::Snooze => false,
        }
    }

    /// Whether who gives it works with the person from then on.
    pub fn takes(self) -> bool {
        match self {
            FeedbackKind::Accepted
            | FeedbackKind::Contacted
            | FeedbackKind::MeetingPlanned
            | FeedbackKind::MeetingDone
            | FeedbackKind::NoShow
            | FeedbackKind::Opportunity
            | FeedbackKind::Won => true,
            FeedbackKind::Rejected
            | FeedbackKind::Lost
            | FeedbackKind::Recycle
            | FeedbackKind::Snooze => false,
        }
    }

    /// Whether it puts a lead out at once at the lines of sales.
    pub fn gives_back(self) -> bool {
        matches!(self, FeedbackKind::Rejected | FeedbackKind::Lost | FeedbackKind::Recycle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of [`Stage::after`], as its documentation shows it.
    fn documented() -> Vec<(FeedbackKind, [Option<&'static str>; 5])> {
        let source = include_str!("stage.rs");
        let rows = source.lines().filter_map(|line| line.trim().strip_prefix("/// | "));
        rows.filter_map(|row| {
            let mut cells = row.split('|').map(str::trim);
            let answer = FeedbackKind::parse(cells.next()?)?;
            let mut found = [None; 5];
            for (place, cell) in cells.filter(|cell| !cell.is_empty()).enumerate() {
                found[place] = Some(cell);
            }
            Some((answer, found))
        })
        .collect()
    }

    #[test]
    fn every_stage_and_answer_leads_where_the_table_says() {
        let columns: [&[Stage]; 5] = [
            &[Stage::Known, Stage::Warm, Stage::Hot],
            &[Stage::Rejected, Stage::Recycled, Stage::Lost],
            &[Stage::Accepted],
            &[Stage::Working],
            &[Stage::Won],
        ];
        let table = documented();
        assert_eq!(table.len(), FeedbackKind::ALL.len(), "a row an answer");
        let mut pairs = 0;
        for (answer, cells) in table {
            for (stages, cell) in columns.iter().zip(cells) {
                for stage in *stages {
                    let expected = match cell.expect("five columns") {
                        "-" => None,
                        "as it is" => Some(*stage),
                        name => Some(Stage::parse(name).expect("a stage")),
                    };
                    assert_eq!(stage.after(answer), expected, "{stage:?} and {answer:?}");
                    pairs += 1;
                }
            }
        }
        assert_eq!(pairs, (Stage::ALL.len() - 1) * FeedbackKind::ALL.len());
        for answer in FeedbackKind::ALL {
            assert_eq!(Stage::Anonymous.after(answer), None);
        }
    }

    #[test]
    fn names_are_read_back() {
        for stage in Stage::ALL {
            assert_eq!(Stage::parse(stage.name()), Some(stage));
        }
        for answer in FeedbackKind::ALL {
            assert_eq!(FeedbackKind::parse(answer.name()), Some(answer));
        }
    }
}
