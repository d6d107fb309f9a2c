//! A Record is one journal entry: facts, never instructions. Replay applies what is written
//! here and matches no rule, parses no address and reads no clock. `wire.rs` lays it out.

use crate::decay::HalfLife;
use crate::grade::Grade;
use crate::hit::Hit;
use crate::id::{CategoryId, LeadId, Position, RuleId, VisitorId};
use crate::identity::{Assurance, IdentityKind};
use crate::ledger::{Fold, Regrant, Row};
use crate::rule::Points;
use crate::stage::Stage;
use crate::threshold::Crossing;
use crate::time::Timestamp;

/// One journal entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it was decided: for a hit, when it was received.
    pub time: Timestamp,
    /// The version of the scoring in force; 0 before the first.
    pub version: u32,
    /// What it says.
    pub body: Body,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A hit arrived. Boxed, since it is ten times the others' size.
    Hit(Box<HitRecord>),
    /// Time alone changed a lead.
    Due(Box<LeadPart>),
    /// A version of the scoring was published.
    Published(Published),
    /// Names got their numbers: sites, endpoints.
    Named(Vec<Name>),
    /// An entry of the outbox, laid out by the outbox.
    Outbox(Vec<u8>),
}

/// A hit, and what each stage decided about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HitRecord {
    /// The hit.
    pub hit: Hit,
    /// The visitor's first hit, if this one admits them: it was recorded on its own before.
    pub first: Option<FirstHit>,
    /// What the visitor stage decided; nothing for a hit that is only recorded.
    pub visit: Option<VisitPart>,
    /// What the lead stage decided, if the hit is a known person's.
    pub lead: Option<LeadPart>,
}

/// See [`HitRecord::first`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirstHit {
    /// Where it was recorded.
    pub position: Position,
    /// What was recorded.
    pub hit: Hit,
}

/// What the visitor stage decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VisitPart {
    /// The visitor's previous record.
    pub previous: Position,
    /// Rows for the visitor's own ledger, settled.
    pub rows: Vec<Row>,
    /// Rows of the visitor's own ledger that are granted something else now.
    pub regrants: Vec<Regrant>,
    /// The oldest rows folded, to stay within the limit.
    pub fold: Option<Fold>,
    /// Pages seen that a rule counts.
    pub seen: Vec<Seen>,
    /// Who the visitor is from this hit on, if that changed.
    pub bound: Option<Bound>,
}

/// How a visitor's binding to a lead changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Tied to a lead.
    To {
        /// The lead.
        lead: LeadId,
        /// The kind of identity that tied them.
        kind: IdentityKind,
        /// How sure.
        assurance: Assurance,
    },
    /// Nobody's, until somebody says who it is.
    Reset,
}

/// A page seen that a rule with `distinct_pages` counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The rule.
    pub rule: RuleId,
    /// A hash of the path.
    pub page: u64,
    /// When.
    pub when: Timestamp,
}

/// What the lead stage decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeadPart {
    /// The lead.
    pub lead: LeadId,
    /// The lead's previous record.
    pub previous: Position,
    /// Whether the person's attributes are taken from this hit's claim, and which: all the
    /// claim's, or none.
    pub takes_attributes: bool,
    /// Whether the hit opens a visit of theirs.
    pub new_visit: bool,
    /// The tie made or made surer.
    pub link: Option<LinkPart>,
    /// New rows, settled. Those of the visitor's history keep their own positions.
    pub rows: Vec<Row>,
    /// Rows that are granted something else now.
    pub regrants: Vec<Regrant>,
    /// The oldest rows folded, to stay within the limit.
    pub fold: Option<Fold>,
    /// What happened at the lines, in order.
    pub crossings: Vec<Crossed>,
}

/// A tie between a visitor and a lead, made or made surer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkPart {
    /// The visitor.
    pub visitor: VisitorId,
    /// How sure it is now.
    pub assurance: Assurance,
    /// The anonymous history that comes along; none if the tie was there.
    pub history: Option<History>,
}

/// What a visitor did before anybody said who it is, but for the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The first record of it.
    pub first_position: Position,
    /// The visitor's record before the one that ties it.
    pub last_position: Position,
    /// When it began.
    pub first_seen: Timestamp,
    /// When a person was last seen in it.
    pub last_human: Timestamp,
    /// The latest `when` in it.
    pub last_when: Timestamp,
    /// Hits.
    pub hits: u32,
    /// Page views.
    pub pages: u32,
    /// Visits, without the one that ties.
    pub visits: u32,
}

/// A crossing, and what the message about it says, if one goes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crossed {
    /// What happened.
    pub crossing: Crossing,
    /// The figures of the message.
    pub told: Option<Told>,
}

/// The figures of a message, frozen where they were true.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The message's number among the lead's.
    pub sequence: u32,
    /// The score.
    pub score: Points,
    /// The score a day before, of the rows of then.
    pub before_24h: Points,
    /// The score with the short memory.
    pub urgency: Points,
    /// How much of the score came through visitors tied by a claim only.
    pub unconfirmed: Points,
    /// Points that a max held back.
    pub held_back: Points,
    /// The fit.
    pub grade: Grade,
    /// Where the lead stands now.
    pub stage: Stage,
    /// Where it stood.
    pub previous_stage: Stage,
    /// How sure we are who it is.
    pub assurance: Assurance,
    /// The value of each category in the score.
    pub categories: Vec<(CategoryId, Points)>,
    /// The reasons, largest first; they add up to the score.
    pub reasons: Vec<Reason>,
    /// The row that did it, if a hit did.
    pub because: Option<Because>,
}

/// What one rule contributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reason {
    /// The rule.
    pub rule: RuleId,
    /// How often it counted.
    pub times: u32,
    /// What it is worth now.
    pub points: Points,
    /// When it last counted.
    pub last: Timestamp,
}

/// The row that brought a lead over a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Because {
    /// Its rule.
    pub rule: RuleId,
    /// What it was granted.
    pub points: Points,
    /// When it was earned.
    pub at: Timestamp,
}

/// A published version of the scoring: what replay and readers need of it, and its text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// The version.
    pub version: u32,
    /// Names that got their numbers with it.
    pub names: Vec<Name>,
    /// Its categories.
    pub categories: Vec<PublishedCategory>,
    /// The rule file, as it was.
    pub text: Vec<u8>,
}

/// What a reader needs to compute a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishedCategory {
    /// The category.
    pub id: CategoryId,
    /// Points halve in this time.
    pub half_life: HalfLife,
    /// Whether it counts in the score.
    pub in_total: bool,
}

/// A name and the number that stands for it from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// What it names.
    pub kind: NameKind,
    /// The number. Never reused.
    pub number: u16,
    /// The name.
    pub name: String,
}

/// What a name names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NameKind {
    /// A site.
    Site,
    /// A scoring rule.
    Rule,
    /// A scoring category.
    Category,
    /// A threshold.
    Threshold,
    /// A webhook endpoint.
    Endpoint,
}

impl NameKind {
    /// All kinds, by their number in the journal.
    pub const ALL: [NameKind; 5] = [
        NameKind::Site,
        NameKind::Rule,
        NameKind::Category,
        NameKind::Threshold,
        NameKind::Endpoint,
    ];
}

impl Record {
    /// The visitor's previous record, if the record is a visitor's.
    pub fn previous_of_visitor(&self) -> Option<(VisitorId, Position)> {
        let Body::Hit(record) = &self.body else {
            return None;
        };
        Some((record.hit.visitor?, record.visit.as_ref()?.previous))
    }

    /// What was decided about a lead, if anything was.
    pub fn lead_part(&self) -> Option<&LeadPart> {
        match &self.body {
            Body::Hit(record) => record.lead.as_ref(),
            Body::Due(part) => Some(part),
            Body::Published(_) | Body::Named(_) | Body::Outbox(_) => None,
        }
    }
}
