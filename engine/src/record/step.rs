//! A step's record: what is known moved from one place to another, or was taken out and put
//! back, and what is on its way between two leads meanwhile.

use crate::facts::{Said, Seen, Source};
use crate::id::{LeadId, Position, ThresholdId, VisitorId};
use crate::identity::{Assurance, IdentityKind};
use crate::ledger::{Regrant, Row};
use crate::sales::{Asked, Feedback};
use crate::threshold::Band;
use crate::time::Timestamp;

use super::{Bound, LeadPart, Sent};

/// A step: what is known moved from one place to another, or was taken out and put back. One
/// record touches at most one visitor and one lead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepRecord {
    /// What was done.
    pub step: Step,
    /// Who did it; empty for the engine itself.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// The first record of the step that this one belongs to; none for the first itself.
    pub of: Position,
    /// The step that this one undoes, if it does.
    pub undoes: Position,
    /// What changed about a visitor.
    pub visit: Option<VisitStep>,
    /// What changed about a lead.
    pub lead: Option<LeadPart>,
}

/// What a step does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Step {
    /// A job begins or ends, such as a withdrawal; it touches nobody itself.
    #[default]
    Job,
    /// What a browser did is a lead's.
    Link,
    /// What a browser did as a lead is nobody's.
    Unlink,
    /// A browser is proved to be a lead's.
    Confirm,
    /// The lead is another name of a lead from now on. What it holds is on its way there.
    MergeAway(Joint),
    /// A part of what another lead sends arrives.
    TakeIn(Box<Parcel>),
    /// All that was sent has arrived.
    Folded,
    /// The lead is itself again. What is its own is on its way back from `from`.
    Restore {
        /// The lead whose name it was.
        from: LeadId,
        /// How it was.
        was: Joint,
    },
    /// What is `out`'s own leaves the lead.
    Split {
        /// The name that leaves, with those that came with it.
        out: LeadId,
    },
    /// Hits were withdrawn, or put back.
    Withdraw(Vec<Withdrawn>),
    /// What was earned was matched anew under a version of the scoring: the whole ledger.
    Rescore {
        /// The version.
        version: u32,
        /// The rows, settled.
        rows: Vec<Row>,
    },
    /// A lead that was held is told, or is not to be told.
    Release {
        /// The line.
        threshold: ThresholdId,
        /// Whether it is told.
        told: bool,
    },
    /// Sales answered.
    Feedback(Box<Feedback>),
    /// A person asked to be forgotten: the lead is nobody any more, or the browser forgets what
    /// it did as them.
    Erase {
        /// The names: in a lead's first record all of them, then one each.
        names: Vec<LeadId>,
    },
    /// A question for a person was answered.
    Dismiss {
        /// The record that asks.
        question: Position,
    },
}

/// How a name is another's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Joint {
    /// Under which name of the other.
    pub under: LeadId,
    /// How sure it is that both are one.
    pub assurance: Assurance,
    /// Whether they were two people. Then a word about one of them is not about the other, so
    /// that it means the same once they are two again.
    pub people: bool,
}

impl Tie {
    /// How sure it is by itself.
    pub fn sure(&self) -> Assurance {
        self.assurance.max(self.given)
    }
}

/// What changed about a visitor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VisitStep {
    /// The visitor.
    pub visitor: VisitorId,
    /// The visitor's previous record.
    pub previous: Position,
    /// Stretches that the step gives to somebody or takes from whose they are, each by the
    /// record after which it begins.
    pub gives: Vec<(Position, Option<LeadId>)>,
    /// Who the visitor is from now on, if the step says so.
    pub bound: Option<Bound>,
    /// The step of which nothing counts any more, if this one undoes it.
    pub undoes: Position,
    /// Stretches that move with this record, and whose they are then.
    pub owners: Vec<(Position, Option<LeadId>)>,
    /// Rows of the visitor's own ledger that are granted something else now.
    pub regrants: Vec<Regrant>,
}

/// A row's hit was withdrawn or put back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Withdrawn {
    /// The record by which the hit is known: its own, or the one that admits its visitor.
    pub position: Position,
    /// When it happened.
    pub when: Timestamp,
    /// Where it came from.
    pub source: Source,
    /// For a server's word, the name of the person it was about; 0 for a browser's hit.
    pub origin: LeadId,
    /// Whether a person seemed to be there.
    pub human: bool,
    /// Withdrawn, or put back.
    pub out: bool,
}

/// A part of what one lead sends another. The receiver counts none of it before the last part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parcel {
    /// Who sends it.
    pub from: LeadId,
    /// Its number, from 0. The first begins the sending anew.
    pub number: u32,
    /// Whether it is the last.
    pub last: bool,
    /// How the sender is a name of the receiver from now on, if it is.
    pub joint: Option<Joint>,
    /// What is in it.
    pub content: Content,
    /// In the last: where the sender stood with each line, and what was told of it.
    pub bands: Vec<Band>,
    /// In the last: messages that can still be taken back.
    pub sent: Vec<Sent>,
    /// In the last: what sales was asked about the sender and has not answered.
    pub asked: Option<Asked>,
    /// In the last: when sales last heard what the sender did while it worked with them.
    pub signalled: Timestamp,
}

impl Parcel {
    /// Whether anything in it is of sales.
    pub fn knows_sales(&self) -> bool {
        !self.content.feedback.is_empty()
            || self.asked.is_some()
            || self.signalled != Timestamp::default()
    }
}

/// What a lead is made of and an undo takes away: names, rows, ties and facts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The lead's names, the head first.
    pub members: Vec<Member>,
    /// The ledger, in order.
    pub rows: Vec<Row>,
    /// Browsers, and servers' words.
    pub ties: Vec<Tie>,
    /// What was said, in order.
    pub said: Vec<Said>,
    /// When they were seen, in order.
    pub seen: Vec<Seen>,
    /// What sales answered, in order.
    pub feedback: Vec<Feedback>,
    /// What goes with stretches that are not theirs now.
    pub aside: Aside,
}

/// What a lead keeps of a browser's stretches that were taken from it, and takes up again with
/// them. It counts for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aside {
    /// The ties.
    pub ties: Vec<Tie>,
    /// What was said there.
    pub said: Vec<Said>,
}

/// A name of a lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// The name.
    pub id: LeadId,
    /// What kind of name.
    pub kind: IdentityKind,
    /// The name it came with, of the same lead; none for one of its own.
    pub parent: Option<LeadId>,
    /// How sure it is that it is the lead's.
    pub assurance: Assurance,
    /// Whether it headed a person of their own, who was found to be this one.
    pub people: bool,
    /// When it was first heard.
    pub since: Timestamp,
    /// The first record of it.
    pub first_position: Position,
    /// Whether a server said it first.
    pub by_server: bool,
}

/// A tie between a lead and a source of hits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tie {
    /// The browser, or our servers.
    pub source: Source,
    /// The name under which it is tied.
    pub origin: LeadId,
    /// The browser's stretch.
    pub stretch: Position,
    /// How sure what was said there makes it, or a confirmation.
    pub assurance: Assurance,
    /// How sure the steps that gave it make it.
    pub given: Assurance,
    /// When it was made.
    pub since: Timestamp,
    /// When the browser was first seen in this stretch.
    pub first_seen: Timestamp,
    /// The first record of the stretch.
    pub first_position: Position,
    /// Hits, those that came along included.
    pub hits: u32,
    /// Page views.
    pub pages: u32,
    /// Visits.
    pub visits: u32,
    /// Anonymous hits that came along.
    pub attached: u32,
}
