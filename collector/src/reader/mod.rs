//! The reader follows committed records and keeps what lists need: names, who is hot, the live
//! stream. Lists never touch the engine's maps; one entity is copied under its lock.

pub mod days;
mod line;
pub mod saved;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::attribute::Attributes;
use engine::catalog::Catalog;
use engine::id::{LeadId, Position, ThresholdId, VisitorId};
use engine::record::{Body, HitRecord, NameKind, Record, Review, Step, StepRecord};
use engine::terms::HOT;
use engine::threshold::{Crossing, Direction};
use engine::time::Timestamp;
use engine::wire::About;

use self::days::Days;
pub use self::line::{line, printable, step_name, what};
use crate::app::App;
use crate::journal::Follower;
use crate::patience::Follows;
use crate::timeline;

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Questions for a person kept in the list; further ones stand in the journal only, counted.
const QUESTIONS_MAX: usize = 10_000;

/// What lists show of a lead without asking the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// What people search by, in lower case.
    text: String,
    /// When a hit of theirs was last received.
    pub last_seen: Timestamp,
    /// Whether they came under a test key.
    test: bool,
}

/// The lists.
#[derive(Default)]
pub struct Lists(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    leads: BTreeMap<LeadId, Summary>,
    hot: BTreeSet<LeadId>,
    held: BTreeSet<(LeadId, ThresholdId)>,
    questions: BTreeMap<Asked, Open>,
    questions_unlisted: u64,
    days: Days,
}

/// What is asked. The same again, on whatever page, is the same question.
type Asked = (&'static str, LeadId, Option<LeadId>);

/// A question that nobody has answered.
struct Open {
    /// The first record that asks it.
    position: Position,
    at: Timestamp,
    visitor: Option<VisitorId>,
    raised: Raised,
}

/// What a person should look at: the questions that one record was the first to ask. They are
/// dismissed together, since a dismissal names the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// When it came up.
    pub at: Timestamp,
    /// The browser, if it came up on one.
    pub visitor: Option<VisitorId>,
    /// What is asked.
    pub asked: Vec<Raised>,
}

/// One thing that is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raised {
    /// What.
    pub review: Review,
    /// How often so far.
    pub times: u64,
    /// When last.
    pub last_at: Timestamp,
}

impl Lists {
    /// Applies a record, live and at recovery.
    pub fn evolve(&self, record: &Record, position: Position, catalog: &Catalog) {
        let mut inner = self.locked();
        match &record.body {
            Body::Hit(hit) => inner.take_hit(hit, record.time, position),
            Body::Step(step) => inner.take_step(step),
            Body::Due(_) | Body::Published(_) | Body::Named(_) | Body::Outbox(_) => {}
        }
        let terms = catalog.versions.numbered(record.version);
        let offset = terms.map(|terms| terms.offset).unwrap_or_default();
        if let Body::Outbox(entry) = &record.body {
            inner.days.take_outbox(entry, record.time, offset);
        }
        if let Body::Step(step) = &record.body
            && let (Step::Erase { names }, Some(part)) = (&step.step, &step.lead)
        {
            let test = inner.is_test(part.lead);
            inner.forget(names);
            if !test {
                inner.days.take_part(part, (record.time, position), offset);
            }
            return;
        }
        let Some(part) = record.lead_part() else {
            return;
        };
        let test = inner.leads.entry(part.lead).or_default().test;
        for crossing in &part.crossings {
            inner.cross(part.lead, crossing, catalog);
        }
        if test {
            return;
        }
        inner.days.take_part(part, (record.time, position), offset);
        match &record.body {
            Body::Step(step) => match &step.step {
                Step::Feedback(feedback) => inner.days.answer(part.lead, feedback, record.time),
                Step::TakeIn(parcel) if parcel.joint.is_some() => {
                    inner.days.join(parcel.from, part.lead);
                }
                _ => {}
            },
            Body::Hit(_) | Body::Due(_) | Body::Published(_) | Body::Named(_) | Body::Outbox(_) => {
            }
        }
    }

    /// The daily roll-ups, looked at for a moment.
    pub fn days<T>(&self, look: impl FnOnce(&Days) -> T) -> T {
        look(&self.locked().days)
    }

    /// Leads that have all the words, those seen last first, behind the one at which a page
    /// ended.
    pub fn search(
        &self,
        words: &str,
        after: Option<(Timestamp, LeadId)>,
    ) -> Vec<(Timestamp, LeadId)> {
        let words = lower_words(words);
        let mut found: Vec<(Timestamp, LeadId)> = {
            let inner = self.locked();
            let of_it = inner.leads.iter().filter(|(id, summary)| summary.has(**id, &words));
            of_it.map(|(id, summary)| (summary.last_seen, *id)).collect()
        };
        found.retain(|place| after.is_none_or(|after| *place < after));
        found.sort_unstable_by(|a, b| b.cmp(a));
        found
    }

    /// Whether a lead has all the words.
    pub fn has_words(&self, id: LeadId, words: &str) -> bool {
        let words = lower_words(words);
        self.locked().leads.get(&id).is_some_and(|summary| summary.has(id, &words))
    }

    /// Every name of a lead that was heard of, in the order of the ids.
    pub fn ids(&self) -> Vec<LeadId> {
        self.locked().leads.keys().copied().collect()
    }

    /// Leads that are in at the threshold named "hot".
    pub fn hot(&self) -> Vec<LeadId> {
        self.locked().hot.iter().copied().collect()
    }

    /// Leads that may be held at a line until somebody says that they be told.
    pub fn held(&self) -> Vec<(LeadId, ThresholdId)> {
        self.locked().held.iter().copied().collect()
    }

    /// What a person should look at, the oldest first, and how often there was no room for more.
    pub fn questions(&self) -> (BTreeMap<Position, Question>, u64) {
        let inner = self.locked();
        let mut listed = BTreeMap::new();
        for Open { position, at, visitor, raised } in inner.questions.values() {
            let question = || Question { at: *at, visitor: *visitor, asked: Vec::new() };
            listed.entry(*position).or_insert_with(question).asked.push(*raised);
        }
        (listed, inner.questions_unlisted)
    }

    /// The questions that a record was the first to ask.
    pub fn question(&self, position: Position) -> Option<Question> {
        self.questions().0.remove(&position)
    }

    fn locked(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn take_hit(&mut self, record: &HitRecord, time: Timestamp, position: Position) {
        for review in &record.review {
            self.ask(*review, record.hit.visitor, (position, time));
        }
        let Some(part) = &record.lead else {
            return;
        };
        let summary = self.leads.entry(part.lead).or_default();
        summary.last_seen = summary.last_seen.max(time);
        summary.test |= record.hit.test;
        let first = record.first.as_ref().map(|first| &first.hit);
        for (hit, hears) in [first, Some(&record.hit)].into_iter().zip(part.hears) {
            if let Some(claim) = hit.filter(|_| hears.is_some()).and_then(|hit| hit.claim.as_ref())
            {
                summary.remember(&claim.attributes);
            }
        }
    }

    fn is_test(&self, lead: LeadId) -> bool {
        self.leads.get(&lead).is_some_and(|summary| summary.test)
    }

    /// People were erased: nothing here names them any more. Counts of days stay.
    fn forget(&mut self, names: &[LeadId]) {
        for name in names {
            self.leads.remove(name);
            self.hot.remove(name);
            self.days.erase(*name);
        }
        self.held.retain(|(lead, _)| !names.contains(lead));
        let is_theirs = |lead: LeadId| names.contains(&lead);
        self.questions
            .retain(|(_, lead, other), _| !is_theirs(*lead) && !other.is_some_and(is_theirs));
    }

    /// Lists a question, or counts it if it is open already. One that was dismissed is open no
    /// more: it comes back if a later record asks it again.
    fn ask(
        &mut self,
        review: Review,
        visitor: Option<VisitorId>,
        (position, at): (Position, Timestamp),
    ) {
        let asked: Asked = (review.question.name(), review.lead, review.other);
        let room = self.questions.len() < QUESTIONS_MAX;
        match self.questions.entry(asked) {
            Entry::Occupied(mut open) => {
                let raised = &mut open.get_mut().raised;
                raised.times += 1;
                raised.last_at = raised.last_at.max(at);
            }
            Entry::Vacant(free) if room => {
                let raised = Raised { review, times: 1, last_at: at };
                free.insert(Open { position, at, visitor, raised });
            }
            Entry::Vacant(_) => self.questions_unlisted += 1,
        }
    }

    fn take_step(&mut self, step: &StepRecord) {
        let lead = step.lead.as_ref().map(|part| part.lead);
        match (&step.step, lead) {
            (Step::TakeIn(parcel), Some(lead)) => {
                let summary = self.leads.entry(lead).or_default();
                for said in &parcel.content.said {
                    summary.remember(&said.attributes);
                }
            }
            (Step::Release { threshold, .. }, Some(lead)) => {
                self.held.remove(&(lead, *threshold));
            }
            (Step::Dismiss { question }, _) => {
                self.questions.retain(|_, open| open.position != *question);
            }
            _ => {}
        }
    }

    fn cross(&mut self, lead: LeadId, crossing: &Crossing, catalog: &Catalog) {
        let line = crossing.threshold;
        let is_hot = catalog.name(NameKind::Threshold, u16::from(line.0)) == Some(HOT);
        match crossing.direction {
            Direction::Rise | Direction::Release => {
                if is_hot {
                    self.hot.insert(lead);
                }
            }
            Direction::Fall => {
                if is_hot {
                    self.hot.remove(&lead);
                }
            }
            Direction::Settle => return,
        }
        if crossing.held {
            self.held.insert((lead, line));
        } else {
            self.held.remove(&(lead, line));
        }
    }
}

fn lower_words(words: &str) -> Vec<String> {
    words.split_whitespace().map(str::to_lowercase).collect()
}

impl Summary {
    fn has(&self, id: LeadId, words: &[String]) -> bool {
        let is = |word: &String| self.text.contains(word.as_str());
        words.iter().all(|word| is(word) || id.to_string().eq_ignore_ascii_case(word))
    }

    fn remember(&mut self, attributes: &Attributes) {
        for name in ["name", "company", "email", "user_id", "crm_id"] {
            let Some(value) = attributes.get(name).map(|value| value.to_lowercase()) else {
                continue;
            };
            if !self.text.contains(&value) && self.text.len() < 1_024 {
                self.text.push_str(&value);
                self.text.push('\n');
            }
        }
    }
}

/// Follows the journal until it ends or `stop` is set.
pub fn run(app: &Arc<App>, lists: &Lists, mut follower: Follower, stop: &AtomicBool) {
    let over = || stop.load(Ordering::Acquire) || app.journal.has_ended();
    while !stop.load(Ordering::Acquire) {
        let read = || {
            let entry = follower.next_blocking(LOOK_EVERY)?;
            let listening = app.live.receiver_count() > 0;
            let wanted = |bytes: &[u8]| {
                let about = About::of(bytes);
                let held = about.outbox && days::holds_back(bytes);
                listening || about.lead || about.review || about.step || held
            };
            Ok(entry.map(|entry| {
                let record = wanted(entry.bytes).then(|| Record::decode(entry.bytes));
                record.map(|record| record.map(|record| (entry.position, record)))
            }))
        };
        let (position, mut record) = match app.stalled.read(Follows::Reader, over, read) {
            Some(Some(Some(Ok(record)))) => record,
            None => return,
            Some(None) if follower.is_ended() => return,
            Some(None | Some(None | Some(Err(_)))) => continue,
        };
        let catalog = app.engine.catalog();
        timeline::unseal(app, &mut record);
        lists.evolve(&record, position, &catalog);
        app.tell(|| line(&record, &catalog));
    }
}

#[cfg(test)]
mod tests {
    use engine::hit::{Claim, Hit};
    use engine::identity::Assurance;
    use engine::record::{LeadPart, Question as Kind};

    use super::*;

    const A: LeadId = LeadId(1);
    const B: LeadId = LeadId(2);
    const C: LeadId = LeadId(3);

    fn asks(other: LeadId) -> Review {
        Review { question: Kind::AnotherName, lead: A, other: Some(other) }
    }

    /// A hit whose record asks something, at a position that is its moment, too.
    fn hit(lists: &Lists, number: u64, review: &[Review]) {
        let hit = Hit { visitor: Some(VisitorId(9)), ..Hit::default() };
        let body = HitRecord { hit, review: review.to_vec(), ..HitRecord::default() };
        let body = Body::Hit(Box::new(body));
        let record = Record { time: Timestamp(number), version: 1, body };
        lists.evolve(&record, Position(number), &Catalog::default());
    }

    fn dismiss(lists: &Lists, number: u64, question: u64) {
        let step = Step::Dismiss { question: Position(question) };
        let body = Body::Step(Box::new(StepRecord { step, ..StepRecord::default() }));
        let record = Record { time: Timestamp(number), version: 1, body };
        lists.evolve(&record, Position(number), &Catalog::default());
    }

    /// What is asked of whom, how often, and when last.
    type Seen = (LeadId, u64, u64);

    fn open(lists: &Lists) -> Vec<(u64, Vec<Seen>)> {
        let raised = |it: Raised| (it.review.other.unwrap(), it.times, it.last_at.0);
        let listed = lists.questions().0.into_iter();
        listed.map(|(at, it)| (at.0, it.asked.into_iter().map(raised).collect())).collect()
    }

    #[test]
    fn a_question_asked_on_every_page_is_one_question() {
        let lists = Lists::default();
        for number in 5..105 {
            hit(&lists, number, &[asks(B)]);
        }
        hit(&lists, 105, &[asks(B), asks(C)]);
        assert_eq!(open(&lists), [(5, vec![(B, 101, 105)]), (105, vec![(C, 1, 105)])]);
        assert_eq!(lists.question(Position(5)).unwrap().at, Timestamp(5));
        assert_eq!(lists.question(Position(6)), None, "it is the first record's");
    }

    #[test]
    fn a_dismissed_question_comes_back_only_if_it_is_asked_again_later() {
        let lists = Lists::default();
        for number in 5..8 {
            hit(&lists, number, &[asks(B)]);
        }
        hit(&lists, 8, &[asks(C)]);
        dismiss(&lists, 9, 5);
        assert_eq!(open(&lists), [(8, vec![(C, 1, 8)])], "not again for the records 6 and 7");
        hit(&lists, 10, &[asks(B)]);
        assert_eq!(open(&lists), [(8, vec![(C, 1, 8)]), (10, vec![(B, 1, 10)])]);
    }

    #[test]
    fn who_was_erased_is_in_no_list_and_who_came_again_is_not_forgotten_by_a_browser_s_record() {
        let lists = Lists::default();
        hit(&lists, 5, &[asks(B)]);
        let says = |number: u64| {
            let attributes = [("name".to_owned(), "田中".to_owned())].into();
            let claim = Some(Claim { attributes, ..Claim::default() });
            let hears = [None, Some(Assurance::Claimed)];
            let lead = Some(LeadPart { lead: A, hears, ..LeadPart::default() });
            let hit = Hit { claim, ..Hit::default() };
            let body = Body::Hit(Box::new(HitRecord { hit, lead, ..HitRecord::default() }));
            let record = Record { time: Timestamp(number), version: 1, body };
            lists.evolve(&record, Position(number), &Catalog::default());
        };
        let erase = |number: u64, lead: Option<LeadPart>| {
            let step = Step::Erase { names: vec![A] };
            let body = Body::Step(Box::new(StepRecord { step, lead, ..StepRecord::default() }));
            let record = Record { time: Timestamp(number), version: 1, body };
            lists.evolve(&record, Position(number), &Catalog::default());
        };
        says(6);
        assert_eq!(lists.search("田中", None).len(), 1);
        erase(7, Some(LeadPart { lead: A, ..LeadPart::default() }));
        assert_eq!(
            (lists.search("田中", None), lists.ids(), open(&lists)),
            (vec![], vec![], vec![])
        );
        says(8);
        erase(9, None);
        assert_eq!(lists.search("田中", None).len(), 1, "a browser forgot, and nobody else");
    }

    #[test]
    fn the_list_is_bounded_and_counts_what_it_has_no_room_for() {
        let lists = Lists::default();
        for number in 0..QUESTIONS_MAX as u64 + 2 {
            hit(&lists, number + 1, &[asks(LeadId(100 + number))]);
        }
        hit(&lists, 20_000, &[asks(LeadId(100))]);
        let (listed, unlisted) = lists.questions();
        assert_eq!((listed.len(), unlisted), (QUESTIONS_MAX, 2));
        assert_eq!(listed[&Position(1)].asked[0].times, 2, "what is listed is still counted");
    }
}
