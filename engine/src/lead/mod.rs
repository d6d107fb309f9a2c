//! A Lead is a person: a small tree of names with one head. `receive` decides what a hit earns
//! them and which lines they cross; `advance` what time alone does; the steps in `step` what
//! joining, parting and taking back do; `evolve` applies what was decided and decides nothing.

mod answer;
mod canonical;
mod content;
mod draft;
mod erase;
mod saved;
mod step;
mod tell;
mod walk;

use std::sync::Arc;

use crate::alert::AlertKind;
use crate::attribute::Attributes;
use crate::facts::{Profile, Source, last_seen, visits};
use crate::id::{LeadId, Position, ThresholdId, VisitorId};
use crate::identity::Assurance;
use crate::ledger::{self, apply_rows};
use crate::record::{
    Base, Content, HitRecord, Joint, LeadPart, LinkPart, Message, Parcel, Question, Review, Sent,
    Subject, Told,
};
use crate::sales::{Asked, BY};
use crate::scoring::Scoring;
use crate::stage::Stage;
use crate::terms::{Terms, Versions};
use crate::threshold::{Band, Crossing, Standing, Threshold};
use crate::time::Timestamp;
use crate::visitor::LeadEvent;

use self::content::Stamp;
use self::draft::{Cause, Draft};
pub use self::saved::Unseal;
pub use self::step::Moved;

pub use crate::explain::{Explained, OTHER, explain, reasons, urgency};

/// Browsers that may be tied to one person by proof. A further tie is refused and counted.
pub const LINKS_VERIFIED_MAX: usize = 500;
/// Browsers that may be tied to one person by a claim only.
pub const LINKS_CLAIMED_MAX: usize = 50;
/// Names one person may have.
pub const MEMBERS_MAX: usize = 64;
/// Messages that can still be taken back. Older ones stand.
pub const SENT_MAX: usize = 32;
/// Steps that made a name another's, or itself again, that can still be undone.
const STEPS_MAX: usize = 8;
/// Crossings that time alone may bring at once, before the rest waits for the next call.
const CROSSINGS_MAX: usize = 64;

/// When time alone brings a crossing. Derived, so neither stored nor hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Due {
    /// Not worked out yet.
    #[default]
    Unknown,
    /// As things stand, never.
    Never,
    /// Then.
    At(Timestamp),
}

/// What is remembered of a person.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lead {
    /// What they are made of, and an undo takes away: names, rows, ties and facts.
    pub content: Content,
    /// Where they stand with each line, and what was told of it.
    pub bands: Vec<Band>,
    /// Where remembered history begins.
    pub base: Base,
    /// Messages that can still be taken back, the oldest first.
    pub sent: Vec<Sent>,
    /// Their last record: the end of the chain of back pointers.
    pub last_position: Position,
    /// Until when time has been acted on.
    pub settled: Timestamp,
    /// The version under which all that was earned was matched anew, if it was.
    pub rescored: u32,
    /// Messages about them so far.
    pub sequence: u32,
    /// What sales was asked about them and has not answered.
    pub asked: Option<Asked>,
    /// When sales last heard what they did while it worked with them.
    pub signalled: Timestamp,
    /// Whether they came under a test key.
    pub test: bool,
    /// Under which name of another it is, if it is not a lead of its own.
    pub stub: Option<LeadId>,
    /// Whether it was a person of their own before.
    pub people: bool,
    /// The steps by which it became another's name, or itself again, the latest last. One that
    /// is undone is none.
    pub steps: Vec<Position>,
    /// What is on its way to another lead.
    pub outgoing: Option<Outgoing>,
    /// What has arrived of what another lead sends.
    pub arriving: Option<Arriving>,
    /// The last step by which another's own arrived as a whole.
    pub taken: Position,
    /// Who still holds what is this lead's own, and the step by which it comes.
    pub awaits: Option<(LeadId, Position)>,
    /// The record that erased it last, if one did. Nothing before it comes back.
    pub erased: Position,
    /// When that was.
    pub erased_at: Timestamp,
    /// The latest version it was looked at under. Derived from the records.
    pub(crate) version: u32,
    /// When time alone will bring the next crossing. Derived.
    pub(crate) due: Due,
    /// Under which moment the lead stands in its slot's timers. Derived.
    pub(crate) queued: Option<Timestamp>,
}

/// What a lead sends another, until all of it has arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// To whom: a name of theirs.
    pub to: LeadId,
    /// The step that sends it: the same after any crash.
    pub of: Position,
    /// How the sender is theirs, if it is.
    pub joint: Option<Joint>,
    /// What.
    pub content: Content,
}

/// What has arrived so far. It counts for nothing before all is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arriving {
    /// The step that sends it.
    pub of: Position,
    /// The parts, from the first on.
    pub parcels: Vec<Parcel>,
}

/// What the lead stage decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// The lead's part of the record.
    Part(Box<LeadPart>),
    /// The lead has as many browsers or names as it may have: nothing is tied.
    Refused(Review),
}

/// What is counted of a person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Hits, those that came along included.
    pub hits: u32,
    /// Page views.
    pub pages: u32,
    /// Visits.
    pub visits: u32,
    /// Anonymous hits that came along.
    pub attached: u32,
}

impl Lead {
    /// Whether there is an entry at all: a person, or a name of one.
    pub fn exists(&self) -> bool {
        self.last_position != Position::NONE
    }

    /// Whether it is a person: somebody said who this is, and it is not another's name.
    pub fn is_person(&self) -> bool {
        self.exists() && self.stub.is_none() && !self.content.members.is_empty()
    }

    /// Whether time and news may move it: it is a person, and nothing of theirs is on its way.
    fn is_whole(&self) -> bool {
        self.is_person() && self.awaits.is_none()
    }

    /// Decides what a hit, and the first one if it admits its visitor, earns and which lines
    /// are crossed. `id` is the lead's own: the head of the event's name.
    pub fn receive(
        &self,
        id: LeadId,
        event: &LeadEvent,
        record: &HitRecord,
        scoring: &Scoring,
        now: Timestamp,
    ) -> Receipt {
        if let Some(question) = self.refuses(event) {
            return Receipt::Refused(Review { question, lead: id, other: None });
        }
        let mut draft = Draft::new(self, scoring);
        let acted = draft.let_time_pass(now);
        let before = draft.standing_before(event, acted);
        let (news, since) = draft.take_event(id, event, record, now);
        let rows: Vec<_> = event.carried.iter().chain(&event.rows).copied().collect();
        let earned = draft.settle(&rows, since);
        let news = earned.map_or(news, |earned| earned.min(news));
        draft.reconsider(Some(news), &before, acted, Cause::Hit(record));
        Receipt::Part(Box::new(draft.part))
    }

    /// Decides what time alone, and versions that came into force, do until `now`; nothing, if
    /// they do nothing.
    pub fn advance(&self, id: LeadId, scoring: &Scoring, now: Timestamp) -> Option<LeadPart> {
        let mut draft = Draft::new(self, scoring);
        draft.let_time_pass(now);
        let part = LeadPart { lead: id, origin: id, ..draft.part };
        let nothing = part.crossings.is_empty()
            && part.messages.is_empty()
            && part.regrants.is_empty()
            && part.base.is_none();
        (!nothing).then_some(part)
    }

    /// The first moment at which time alone brings a crossing, or another version counts.
    pub fn next_due(&self, scoring: &Scoring) -> Option<Timestamp> {
        if !self.is_whole() {
            return None;
        }
        let known = self.version.max(self.rescored);
        let newer = scoring.versions.all().iter().filter(|terms| terms.version > known);
        let version = newer.map(|terms| terms.published).min();
        let draft = Draft::new(self, scoring);
        let end = Timestamp(u64::MAX);
        let from = self.acted_until(&scoring.versions);
        let next = draft.next_crossing(&draft.total(), from, end).map(|next| next.at);
        // One that came with another lead may be overdue.
        let reminder = self.asked.filter(|asked| !asked.reminded);
        let reminder = reminder.map(|asked| asked.remind_at.max(from));
        next.into_iter().chain(version).chain(reminder).min()
    }

    /// Until when time has been acted on. A version under which nothing came of it left no
    /// record, and still counts from when it was published on, and not before.
    pub(crate) fn acted_until(&self, versions: &Versions) -> Timestamp {
        let taken = versions.numbered(self.version).filter(|it| it.version == self.version);
        let published = taken.filter(|_| self.version > self.rescored).map(|it| it.published);
        published.map_or(self.settled, |published| self.settled.max(published))
    }

    /// It is no longer known when the lead is due: a record was replayed.
    pub(crate) fn forget_due(&mut self) {
        self.due = Due::Unknown;
    }

    /// Time was acted on under a version, and nothing came of it.
    pub(crate) fn caught_up(&mut self, version: u32) {
        self.version = self.version.max(version);
    }

    /// Whether a record may have moved the moment at which time alone brings a crossing.
    pub(crate) fn is_due_stale(&self, part: &LeadPart, record: &HitRecord) -> bool {
        let rows_changed =
            !(part.rows.is_empty() && part.regrants.is_empty() && part.fold.is_none());
        // Somebody seen lately may rise when a minus fades.
        let minus = || self.content.rows.iter().any(|row| row.granted.0 < 0);
        // So may somebody whom sales put to rest, or raised the bar for.
        let may_rise = record.hit.is_human() && (!self.content.feedback.is_empty() || minus());
        self.due == Due::Unknown
            || rows_changed
            || may_rise
            || part.link.is_some()
            || !part.names.is_empty()
            || !part.crossings.is_empty()
            || !part.messages.is_empty()
            || record.hit.claim.is_some()
    }

    /// Where the lead stands with a line: never in yet, if it was not.
    pub fn band(&self, line: &Threshold) -> Band {
        let known = self.bands.iter().find(|band| band.threshold() == line.id);
        known.cloned().unwrap_or_else(|| Band::new(line.id))
    }

    /// The figures the gates look at, at a moment.
    pub fn standing(&self, scoring: &Scoring, now: Timestamp) -> Standing {
        let mut draft = Draft::new(self, scoring);
        draft.under(now);
        draft.standing(now)
    }

    /// Where the lead stands between marketing and sales.
    pub fn stage(&self, scoring: &Scoring, now: Timestamp) -> Stage {
        let mut draft = Draft::new(self, scoring);
        draft.under(now);
        draft.stage()
    }

    /// Who of sales took them last, as the answer says it; nobody, if none does.
    pub fn owner(&self) -> Option<&str> {
        let took = self.content.feedback.iter().rev().filter(|it| it.kind.takes());
        took.filter_map(|it| it.details.get(BY)).map(String::as_str).next()
    }

    /// When the lead was in at each line until now, each time from when to when, by what is
    /// known and under the rules in force now.
    pub fn stays(
        &self,
        scoring: &Scoring,
        now: Timestamp,
    ) -> Vec<(ThresholdId, Timestamp, Timestamp)> {
        Draft::new(self, scoring).stays(now)
    }

    /// What is known of the person.
    pub fn profile(&self) -> Profile {
        Profile::of(self.content.said.iter())
    }

    /// Their attributes.
    pub fn attributes(&self) -> Attributes {
        self.profile().attributes
    }

    /// When a person was last seen.
    pub fn last_human(&self) -> Option<Timestamp> {
        last_seen(&visits(&self.content.seen), Timestamp(u64::MAX))
    }

    /// When they were first known, and whether by a server.
    pub fn known_since(&self) -> Option<(Timestamp, bool)> {
        self.content.known_since().map(|member| (member.since, member.by_server))
    }

    /// When they were first seen, perhaps as nobody, or first known.
    pub fn first_seen(&self) -> Timestamp {
        let seen = self.content.ties.iter().filter(|tie| tie.hits > 0).map(|tie| tie.first_seen);
        let known = self.content.known_since().map(|member| member.since);
        seen.chain(known).min().unwrap_or_default()
    }

    /// What is counted of them.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for tie in &self.content.ties {
            counts.hits = counts.hits.saturating_add(tie.hits);
            counts.pages = counts.pages.saturating_add(tie.pages);
            counts.visits = counts.visits.saturating_add(tie.visits);
            counts.attached = counts.attached.saturating_add(tie.attached);
        }
        counts
    }

    /// Why an event is refused, if it is. Who was joined may have more names than may be given to
    /// one, and goes on earning under them.
    pub(crate) fn refuses(&self, event: &LeadEvent) -> Option<Question> {
        let names = event.joins.len();
        if names > 0 && self.content.members.len() + names > MEMBERS_MAX {
            return Some(Question::TooManyNames);
        }
        self.is_full_of_browsers(event.link.as_ref()).then_some(Question::TooManyBrowsers)
    }

    fn is_full_of_browsers(&self, link: Option<&LinkPart>) -> bool {
        let Some(link) = link else {
            return false;
        };
        let mut known: Vec<(VisitorId, Assurance)> = Vec::new();
        for tie in &self.content.ties {
            let Source::Visitor(visitor) = tie.source else {
                continue;
            };
            match known.iter_mut().find(|it| it.0 == visitor) {
                Some(it) => it.1 = it.1.max(self.content.sure(tie)),
                None => known.push((visitor, self.content.sure(tie))),
            }
        }
        let is_new = known.iter().all(|it| it.0 != link.visitor);
        let full = match link.assurance {
            Assurance::Verified => known.len() >= LINKS_VERIFIED_MAX,
            Assurance::Claimed | Assurance::Derived => {
                known.iter().filter(|it| !it.1.is_proved()).count() >= LINKS_CLAIMED_MAX
            }
        };
        is_new && full
    }

    /// Applies a lead's part of a record. `hits` is the record's, if it has any.
    pub fn evolve(
        &mut self,
        part: &LeadPart,
        hits: Option<&HitRecord>,
        (time, version): (Timestamp, u32),
        position: Position,
    ) {
        if !self.exists() {
            self.test = hits.is_some_and(|record| record.hit.test);
        }
        self.content.take(part, hits, Stamp { time, position });
        apply_rows(
            &mut self.content.rows,
            &part.rows,
            &part.regrants,
            part.fold.as_ref(),
            position,
        );
        if let Some(base) = &part.base {
            self.base.clone_from(base);
        }
        self.tell_and_cross(part, position);
        self.settled = self.settled.max(time);
        self.version = self.version.max(version);
        self.last_position = position;
    }

    /// What was told, in its order, each after the crossings up to then: one record may hold a
    /// reminder and what was told anew long after it.
    fn tell_and_cross(&mut self, part: &LeadPart, position: Position) {
        let mut crossings = part.crossings.iter();
        for message in &part.messages {
            let then = crossings.as_slice().iter().take_while(|it| it.at <= message.told.at);
            let then = then.count();
            crossings.by_ref().take(then).for_each(|crossing| self.cross(crossing));
            note_told(&mut self.bands, message);
            tell::note_asked(&mut self.asked, part.lead, message);
            if message.kind == AlertKind::Signal {
                self.signalled = self.signalled.max(message.told.at);
            }
            self.remember_sent(part, message, position);
        }
        crossings.for_each(|crossing| self.cross(crossing));
    }

    fn cross(&mut self, crossing: &Crossing) {
        let known = self.bands.iter().position(|it| it.threshold() == crossing.threshold);
        let at = known.unwrap_or_else(|| {
            self.bands.push(Band::new(crossing.threshold));
            self.bands.len() - 1
        });
        self.bands[at].cross(crossing);
        tell::note_out(&mut self.asked, crossing);
    }

    fn remember_sent(&mut self, part: &LeadPart, message: &Message, position: Position) {
        self.sequence = self.sequence.max(message.told.sequence);
        if let Some(back) = &message.takes_back {
            self.sent.retain(|sent| (sent.position, sent.place) != (back.position, back.place));
        }
        let about = match message.kind {
            AlertKind::Hot => {
                let crossing = message.crossing.and_then(|it| part.crossings.get(usize::from(it)));
                crossing.map(|crossing| Subject::Line(crossing.threshold))
            }
            AlertKind::Action => row_of(part, &message.told, position),
            AlertKind::Cooled
            | AlertKind::Escalated
            | AlertKind::Retracted
            | AlertKind::Merged
            | AlertKind::Unmerged
            | AlertKind::Signal
            | AlertKind::Reminder
            | AlertKind::Erased => None,
        };
        let Some(about) = about else {
            return;
        };
        if self.sent.len() == SENT_MAX {
            self.sent.remove(0);
        }
        self.sent.push(Sent {
            position,
            place: message.place,
            lead: part.lead,
            kind: message.kind,
            audience: message.audience.clone(),
            at: message.told.at,
            about,
        });
    }
}

/// Takes note, at the lines it is about, of what a message told or took back.
fn note_told(bands: &mut [Band], message: &Message) {
    let again =
        message.kind == AlertKind::Escalated || message.also.contains(&AlertKind::Escalated);
    for band in bands.iter_mut().filter(|band| message.lines.contains(&band.threshold())) {
        band.tell(message.told.score, again.then_some(message.told.at));
    }
    let Some(Sent { about: Subject::Line(line), at, .. }) = &message.takes_back else {
        return;
    };
    let of_line = |band: &&mut Band| band.threshold() == *line && band.last_told == Some(*at);
    for band in bands.iter_mut().filter(of_line) {
        band.take_back();
        band.told = false;
    }
}

/// The row that a message tells of at once.
fn row_of(part: &LeadPart, told: &Told, position: Position) -> Option<Subject> {
    let because = told.because?;
    let of = |row: &&crate::ledger::Row| row.rule == because.rule && row.when == because.at;
    let row = part.rows.iter().find(of)?;
    let own = if row.position == Position::NONE { position } else { row.position };
    Some(Subject::Row(own, row.order))
}

/// The terms a lead is settled under at a moment.
pub fn terms_of<'a>(lead: &Lead, scoring: &'a Scoring, at: Timestamp) -> &'a Terms {
    let terms: Option<&Arc<Terms>> = scoring.versions.at(at, lead.rescored);
    terms.map_or_else(|| scoring.terms(), Arc::as_ref)
}

/// The score of a ledger under a version, as a function of time.
pub fn score_of(lead: &Lead, terms: &Terms) -> crate::decay::Total {
    ledger::total(&lead.content.rows, terms)
}
