//! A Record is one journal entry: facts, never instructions. Replay applies what is written
//! here and matches no rule, parses no address and reads no clock. `wire` lays it out.

mod step;

use std::time::Duration;

use crate::alert::AlertKind;
use crate::facts::{Seen, Source};
use crate::grade::Grade;
use crate::hit::{Hit, Named};
use crate::id::{CategoryId, LeadId, Position, RuleId, ThresholdId, VisitorId};
use crate::identity::{Assurance, IdentityKind};
use crate::ledger::{Fold, Regrant, Row};
use crate::points::Points;
use crate::stage::Stage;
use crate::terms::Terms;
use crate::threshold::{Crossing, Side};
use crate::time::Timestamp;

pub use self::step::{
    Aside, Content, Joint, Member, Parcel, Step, StepRecord, Tie, VisitStep, Withdrawn,
};

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
    /// Time alone, or a new version of the scoring, changed a lead.
    Due(Box<LeadPart>),
    /// A version of the scoring was published.
    Published(Box<Published>),
    /// Names got their numbers: sites, endpoints.
    Named(Vec<Name>),
    /// An entry of the outbox, laid out by the outbox.
    Outbox(Vec<u8>),
    /// Somebody, or the engine itself, moved what is known from one place to another.
    Step(Box<StepRecord>),
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
    /// What a person should look at.
    pub review: Vec<Review>,
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
    /// What a rule counts.
    pub counted: Vec<Counted>,
    /// Whether the binding of a shared browser ended with the visit before.
    pub ended: bool,
    /// Who the visitor is from this hit on, if that changed.
    pub bound: Option<Bound>,
    /// Whether so many people were named on this browser that it is shared from now on.
    pub shared: bool,
}

/// Whom a visitor is tied to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// The name of the person that counts: rows are earned under it.
    pub origin: LeadId,
    /// One name of each kind, by [`IdentityKind::ORDER`], as far as it was said here.
    pub names: [Option<LeadId>; 3],
    /// How sure.
    pub assurance: Assurance,
    /// Whether a step tied them: nobody has said so on the browser since.
    pub by_step: bool,
}

impl Binding {
    /// The name of a kind.
    pub fn name(&self, kind: IdentityKind) -> Option<LeadId> {
        self.names[kind as usize]
    }
}

/// How a visitor's binding to a lead changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Tied to somebody.
    To(Binding),
    /// Nobody's, until somebody says who it is.
    Reset,
}

/// Something that a rule with `distinct_pages` or `count` counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// The rule.
    pub rule: RuleId,
    /// A hash of the path, or the number of the hit among its visitor's.
    pub what: u64,
    /// When.
    pub when: Timestamp,
}

/// Why a person should look at something: nothing was joined or moved without them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// A claim says that one person has another's name too.
    AnotherName,
    /// So many people were named on one browser that it is shared.
    SharedBrowser,
    /// A person has as many browsers as they may have.
    TooManyBrowsers,
    /// A person has as many names as they may have.
    TooManyNames,
    /// A link of one person was used on the browser of another.
    Forwarded,
}

impl Question {
    /// All questions, by their number in the journal.
    pub const ALL: [Question; 5] = [
        Question::AnotherName,
        Question::SharedBrowser,
        Question::TooManyBrowsers,
        Question::TooManyNames,
        Question::Forwarded,
    ];

    /// The name in answers.
    pub fn name(self) -> &'static str {
        match self {
            Question::AnotherName => "another_name",
            Question::SharedBrowser => "shared_browser",
            Question::TooManyBrowsers => "too_many_browsers",
            Question::TooManyNames => "too_many_names",
            Question::Forwarded => "forwarded",
        }
    }
}

/// See [`HitRecord::review`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Review {
    /// What is asked.
    pub question: Question,
    /// The person it is about.
    pub lead: LeadId,
    /// The other person or name, if there is one.
    pub other: Option<LeadId>,
}

/// What the lead stage decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeadPart {
    /// The lead: the head of its names.
    pub lead: LeadId,
    /// The name under which the hit came.
    pub origin: LeadId,
    /// The lead's previous record.
    pub previous: Position,
    /// How sure the claim of the first hit is, and that of the hit, if it is heard.
    pub hears: [Option<Assurance>; 2],
    /// Whether the hit is spoken of the person and not theirs.
    pub only_said: bool,
    /// Whether the hit opens a visit of theirs.
    pub new_visit: bool,
    /// The stretch of the browser's that the hit belongs to.
    pub stretch: Position,
    /// Names that belong to the lead from now on.
    pub names: Vec<Named>,
    /// The name of the lead that they came with.
    pub under: LeadId,
    /// The tie made or made surer.
    pub link: Option<LinkPart>,
    /// What goes.
    pub drops: Vec<Dropping>,
    /// New rows, settled. Those of the visitor's history keep their own positions.
    pub rows: Vec<Row>,
    /// Rows that are granted something else now.
    pub regrants: Vec<Regrant>,
    /// The oldest rows folded, to stay within the limit.
    pub fold: Option<Fold>,
    /// Where history begins now that rows have folded.
    pub base: Option<Base>,
    /// What happened at the lines, in order.
    pub crossings: Vec<Crossing>,
    /// Who is told what.
    pub messages: Vec<Message>,
}

/// A tie between a visitor and a lead, made or made surer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkPart {
    /// The visitor.
    pub visitor: VisitorId,
    /// How sure what is said now is.
    pub assurance: Assurance,
    /// The stretches that come along; none if the tie was there.
    pub histories: Vec<History>,
}

/// What a visitor did in one stretch that is a lead's from now on, but for the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The stretch: the record after which it begins.
    pub stretch: Position,
    /// The name under which it is the lead's.
    pub origin: LeadId,
    /// How sure the steps that give it are that it is the lead's.
    pub given: Assurance,
    /// The first record of it.
    pub first_position: Position,
    /// The last record of it so far.
    pub last_position: Position,
    /// When it began.
    pub first_seen: Timestamp,
    /// The latest `when` in it.
    pub last_when: Timestamp,
    /// Hits.
    pub hits: u32,
    /// Page views.
    pub pages: u32,
    /// Visits, without the one that ties.
    pub visits: u32,
    /// When a person was seen in it.
    pub seen: Vec<Seen>,
}

/// What a lead loses: what came through one source, within some records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropping {
    /// The source.
    pub source: Source,
    /// Records after this one,
    pub after: Position,
    /// up to and with this one.
    pub until: Position,
}

/// Where a lead's remembered history begins: what was before is folded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base {
    /// The moment.
    pub at: Timestamp,
    /// On which sides the lead was then.
    pub sides: Vec<Side>,
}

/// A message, and the figures of it, frozen where they were true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its place among the record's: the alert's id is derived from it.
    pub place: u16,
    /// What kind.
    pub kind: AlertKind,
    /// Who is told; nothing for all.
    pub audience: Option<String>,
    /// What it says besides.
    pub also: Vec<AlertKind>,
    /// The crossing it tells, by its place among the part's.
    pub crossing: Option<u16>,
    /// The lines whose last told score this is.
    pub lines: Vec<ThresholdId>,
    /// The other lead of a merge.
    pub other: Option<LeadId>,
    /// What it takes back.
    pub takes_back: Option<Sent>,
    /// The figures.
    pub told: Told,
}

/// A message sent: what it takes to take it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The record that holds it; none while that is being made.
    pub position: Position,
    /// Its place there.
    pub place: u16,
    /// The lead it was about by name: the head of then.
    pub lead: LeadId,
    /// What kind.
    pub kind: AlertKind,
    /// Who was told.
    pub audience: Option<String>,
    /// When.
    pub at: Timestamp,
    /// What it was about.
    pub about: Subject,
}

/// What a message was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A line that the lead crossed.
    Line(ThresholdId),
    /// A row: its record, and its place there.
    Row(Position, u16),
}

/// The figures of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The message's number among the lead's.
    pub sequence: u32,
    /// The moment they were true at.
    pub at: Timestamp,
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
    /// The score last told, if one was.
    pub last_told: Option<Points>,
    /// By when somebody of sales is to take it, and when it is reported if nobody does.
    pub asks: Option<(Timestamp, Timestamp)>,
    /// How long nobody has taken it, in working time: of a reminder.
    pub waited: Duration,
    /// By how much a rejection had raised the line.
    pub raised: Points,
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

/// The row that brought a lead over a line, or told somebody by itself.
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Names that got their numbers with it.
    pub names: Vec<Name>,
    /// What settling needs of it.
    pub terms: Terms,
    /// The rule file, as it was.
    pub text: Vec<u8>,
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
        match &self.body {
            Body::Hit(record) => Some((record.hit.visitor?, record.visit.as_ref()?.previous)),
            Body::Step(step) => step.visit.as_ref().map(|visit| (visit.visitor, visit.previous)),
            Body::Due(_) | Body::Published(_) | Body::Named(_) | Body::Outbox(_) => None,
        }
    }

    /// What was decided about a lead, if anything was.
    pub fn lead_part(&self) -> Option<&LeadPart> {
        match &self.body {
            Body::Hit(record) => record.lead.as_ref(),
            Body::Due(part) => Some(part),
            Body::Step(step) => step.lead.as_ref(),
            Body::Published(_) | Body::Named(_) | Body::Outbox(_) => None,
        }
    }

    /// When what it tells began: for a hit, when it was received.
    pub fn received(&self) -> Timestamp {
        match &self.body {
            Body::Hit(record) => record.hit.received,
            _ => self.time,
        }
    }
}
