//! A small world: an engine, a journal in memory, and sentences to walk visitors through it.

use std::sync::Arc;
use std::time::Duration;

use engine::attribute::Attributes;
use engine::engine::{Arrival, Engine, Ingested};
use engine::engine::{Authority, Means};
use engine::hit::{Claim, Hit, HitKind, Named};
use engine::id::{Key, LeadId, Position, SiteId, VisitorId};
use engine::identity::{Assurance, Identity, IdentityKind};
use engine::lead::Lead;
use engine::points::Points;
use engine::record::{
    Body, Content, HitRecord, LeadPart, Message, Record, Step, StepRecord, Withdrawn,
};
use engine::sales::{Feedback, Unheard};
use engine::scoring::Scoring;
use engine::stage::{FeedbackKind, Stage};
use engine::threshold::Crossing;
use engine::time::Timestamp;

/// A journal in memory: each record's bytes; positions count from 1.
#[derive(Clone, Debug, Default)]
pub struct Journal(pub Vec<Vec<u8>>);

impl Journal {
    /// Takes a record, with its claims' attributes sealed in the trivial form of the tests.
    pub fn push(&mut self, record: &Record) -> Position {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        self.0.push(bytes);
        Position::new(0, self.0.len() as u64)
    }

    /// The records, decoded and unsealed, with their positions.
    pub fn records(&self) -> impl Iterator<Item = (Position, Record)> {
        self.records_from(0)
    }

    /// The records after so many.
    pub fn records_from(&self, read: usize) -> impl Iterator<Item = (Position, Record)> {
        self.0.iter().enumerate().skip(read).map(|(index, bytes)| {
            let record = unsealed(Record::decode(bytes).unwrap());
            (Position::new(0, index as u64 + 1), record)
        })
    }

    /// What was decided about leads, with times and positions.
    pub fn parts(&self) -> Vec<(Position, Timestamp, LeadPart)> {
        let part = |(position, record): (Position, Record)| {
            record.lead_part().map(|part| (position, record.time, part.clone()))
        };
        self.records().filter_map(part).collect()
    }

    /// An engine that applied the whole of it.
    pub fn replay(&self, shards: usize) -> Engine {
        let engine = Engine::new(shards);
        for (position, record) in self.records() {
            engine.evolve(&record, position);
        }
        engine
    }
}

/// Seals attributes reversibly: each byte one up, and a zero after each text. No text has the
/// byte that would become the zero.
pub fn seal(attributes: &Attributes) -> Vec<u8> {
    let mut sealed = Vec::new();
    for text in attributes.iter().flat_map(|(name, value)| [name, value]) {
        sealed.extend(text.bytes().map(|byte| byte + 1));
        sealed.push(0);
    }
    sealed
}

/// Opens what [`seal`] sealed.
pub fn unseal(sealed: &[u8]) -> Attributes {
    let text = |bytes: &[u8]| String::from_utf8(bytes.iter().map(|byte| byte - 1).collect());
    let texts: Vec<String> =
        sealed.split(|byte| *byte == 0).map(|bytes| text(bytes).unwrap()).collect();
    texts.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

/// The record with its attributes opened: what the collector does before replaying it.
pub fn unsealed(mut record: Record) -> Record {
    match &mut record.body {
        Body::Hit(record) => {
            let first = record.first.as_mut().map(|first| &mut first.hit);
            for hit in first.into_iter().chain([&mut record.hit]) {
                if let Some(claim) = &mut hit.claim {
                    claim.attributes = unseal(&claim.sealed);
                }
            }
        }
        Body::Step(record) => {
            if let Step::Feedback(feedback) = &mut record.step {
                feedback.details = Arc::new(unseal(&feedback.sealed));
            }
            let content = match &mut record.step {
                Step::TakeIn(parcel) => &mut parcel.content,
                _ => &mut Content::default(),
            };
            for feedback in &mut content.feedback {
                feedback.details = Arc::new(unseal(&feedback.sealed));
            }
            for said in content.said.iter_mut().chain(&mut content.aside.said) {
                said.attributes = Arc::new(unseal(&said.sealed));
            }
        }
        _ => {}
    }
    record
}

/// `2026-12-01 09:00` or `2026-12-01 09:00:30`, in Japan.
pub fn at(text: &str) -> Timestamp {
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    let seconds = if text.len() > 16 { number(17..19) } else { 0 };
    // Days since 1 March of year 0, so that the leap day comes last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let minutes = (days - 719_468) * 1_440 + number(11..13) * 60 + number(14..16) - 9 * 60;
    Timestamp(((minutes * 60 + seconds) * 1_000) as u64)
}

/// The lead of a mail address.
pub fn lead_of(mail: &str) -> LeadId {
    let identity = Identity::parse(IdentityKind::Email, mail).unwrap();
    identity.lead(&Key([7; 16]), "site")
}

/// A name of any kind.
pub fn named(kind: IdentityKind, value: &str, assurance: Assurance) -> Named {
    let identity = Identity::parse(kind, value).unwrap();
    Named { kind, id: identity.lead(&Key([7; 16]), "site"), assurance }
}

/// A browser by number, spread over the slots.
pub fn browser(number: u64) -> VisitorId {
    let high = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    VisitorId(u128::from(high) << 64 | u128::from(number))
}

/// A statement that this is the person of a mail address.
pub fn claim(mail: &str, assurance: Assurance) -> Claim {
    let attributes: Attributes = [("email".to_owned(), mail.to_owned())].into_iter().collect();
    Claim {
        names: vec![Named { kind: IdentityKind::Email, id: lead_of(mail), assurance }],
        attributes_by: assurance,
        sealed: seal(&attributes),
        attributes,
        ..Claim::default()
    }
}

/// The same with more attributes.
pub fn claim_with(mail: &str, assurance: Assurance, words: &[(&str, &str)]) -> Claim {
    let mut claim = claim(mail, assurance);
    let words = words.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
    claim.attributes.extend(words);
    claim.sealed = seal(&claim.attributes);
    claim
}

/// An engine with its journal, under one version of the scoring.
pub struct World {
    pub engine: Engine,
    pub journal: Journal,
    pub scoring: Scoring,
    /// Where the visitors are now: what was viewed last, and when.
    now: Timestamp,
    who: VisitorId,
    path: String,
}

impl World {
    pub fn new(scoring: Scoring) -> World {
        World {
            engine: Engine::new(2),
            journal: Journal::default(),
            scoring,
            now: Timestamp(0),
            who: browser(1),
            path: String::new(),
        }
    }

    /// Goes to a moment, letting time act at every second moment on the way that matters.
    pub fn at(&mut self, text: &str) -> &mut World {
        self.to(at(text))
    }

    /// As `at`.
    pub fn to(&mut self, now: Timestamp) -> &mut World {
        while let Some(due) = self.engine.next_due().filter(|due| *due <= now) {
            self.engine.advance(due, &self.scoring, &mut |record| self.journal.push(record));
        }
        self.now = now;
        self
    }

    /// Goes to a moment without acting on time.
    pub fn skip_to(&mut self, now: Timestamp) -> &mut World {
        self.now = now;
        self
    }

    /// From now on this browser acts.
    pub fn on(&mut self, number: u64) -> &mut World {
        self.who = browser(number);
        self
    }

    pub fn view(&mut self, path: &str) -> &mut World {
        engine::glob::normal_path(path).clone_into(&mut self.path);
        self.send(Hit::default())
    }

    /// A view in the area for people who have logged in.
    pub fn view_logged_in(&mut self, path: &str) -> &mut World {
        engine::glob::normal_path(path).clone_into(&mut self.path);
        self.send(Hit { authenticated: true, ..Hit::default() })
    }

    /// Stays on the page so many seconds: one engagement hit at their end.
    pub fn stay(&mut self, seconds: u32) -> &mut World {
        let now = self.now.plus(Duration::from_secs(seconds.into()));
        self.to(now);
        let engaged_ms = seconds * 1_000;
        self.send(Hit { kind: HitKind::Engagement, engaged_ms, ..Hit::default() })
    }

    pub fn event(&mut self, name: &str) -> &mut World {
        self.send(Hit { kind: HitKind::Event, event: name.into(), ..Hit::default() })
    }

    /// Says who this is, unproved.
    pub fn identify(&mut self, mail: &str) -> &mut World {
        let claim = Some(claim(mail, Assurance::Claimed));
        self.send(Hit { kind: HitKind::Identify, claim, ..Hit::default() })
    }

    pub fn reset(&mut self) -> &mut World {
        self.send(Hit { kind: HitKind::Reset, ..Hit::default() })
    }

    /// A form is its identify and its thanks page.
    pub fn form(&mut self, mail: &str, thanks: &str) -> &mut World {
        self.identify(mail).view(thanks)
    }

    /// A click in our mail: a server's word that this browser is that person's.
    pub fn click_mail(&mut self, mail: &str) -> &mut World {
        let claim = Some(claim(mail, Assurance::Verified));
        let event = "mail_click".into();
        self.send(Hit { kind: HitKind::Event, event, claim, by_server: true, ..Hit::default() })
    }

    /// A card imported by a server: a person without any browser.
    pub fn import(&mut self, mail: &str) -> &mut World {
        self.import_with(mail, &[])
    }

    /// The same with more attributes.
    pub fn import_with(&mut self, mail: &str, words: &[(&str, &str)]) -> &mut World {
        let claim = Some(claim_with(mail, Assurance::Verified, words));
        let hit = Hit { kind: HitKind::Identify, claim, by_server: true, ..Hit::default() };
        self.ingest(Hit { received: self.now, when: self.now, ..hit });
        self
    }

    fn send(&mut self, hit: Hit) -> &mut World {
        self.ingest(Hit {
            visitor: Some(self.who),
            site: SiteId(0),
            received: self.now,
            when: self.now,
            path: self.path.clone(),
            ..hit
        });
        self
    }

    /// Any hit, as it is.
    pub fn ingest(&mut self, hit: Hit) -> Ingested {
        self.arrive(Arrival { hit, first: None })
    }

    /// Any arrival, as it is.
    pub fn arrive(&mut self, arrival: Arrival) -> Ingested {
        self.engine.ingest(arrival, &self.scoring, &mut |record| self.journal.push(record))
    }

    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Somebody's score now.
    pub fn score(&self, mail: &str) -> Points {
        self.score_at(mail, self.now)
    }

    /// Somebody's score at a moment, of the rows of now.
    pub fn score_at(&self, mail: &str, at: Timestamp) -> Points {
        engine::lead::explain(&self.lead(mail).content.rows, self.scoring.terms(), at).score
    }

    /// Somebody.
    pub fn lead(&self, mail: &str) -> Lead {
        self.engine.lead(lead_of(mail)).unwrap()
    }

    /// Where somebody stands.
    pub fn stage(&self, mail: &str) -> Stage {
        self.lead(mail).stage(&self.scoring, self.now)
    }

    /// Does a step as an operator.
    pub fn step<T>(&mut self, act: impl FnOnce(&Engine, &Authority, &mut Means<'_, '_>) -> T) -> T {
        let why = Authority {
            actor: "operator".into(),
            reason: "told by phone".into(),
            ..Authority::default()
        };
        let (journal, now) = (&mut self.journal, self.now);
        let mut push = |record: &Record| journal.push(record);
        act(&self.engine, &why, &mut Means { scoring: &self.scoring, now, push: &mut push })
    }

    /// Sales answers, now by its own clock too.
    pub fn answer(&mut self, mail: &str, kind: FeedbackKind) -> Option<Unheard> {
        let id = self.journal.0.len() as u64 + 1;
        self.answer_with(mail, Feedback { id, at: self.now, ..feedback(mail, kind) })
    }

    /// The same with all it says.
    pub fn answer_with(&mut self, mail: &str, feedback: Feedback) -> Option<Unheard> {
        let lead = lead_of(mail);
        self.step(|engine, _, means| engine.answer(lead, feedback, means)).unwrap().unheard
    }

    /// The hits recorded so far, in order.
    pub fn hits(&self) -> Vec<(Position, HitRecord)> {
        let hit = |(position, record): (Position, Record)| match record.body {
            Body::Hit(record) => Some((position, *record)),
            _ => None,
        };
        self.journal.records().filter_map(hit).collect()
    }

    /// The steps taken so far, in order; not what they led to.
    pub fn steps(&self) -> Vec<(Position, StepRecord)> {
        let step = |(position, record): (Position, Record)| match record.body {
            Body::Step(step) if step.of == Position::NONE => Some((position, *step)),
            _ => None,
        };
        self.journal.records().filter_map(step).collect()
    }

    /// What a browser's own rows are worth now.
    pub fn own_score(&self, number: u64) -> Points {
        let visitor = self.engine.visitor(browser(number), self.now).unwrap();
        engine::lead::explain(&visitor.rows.in_order(), self.scoring.terms(), self.now).score
    }

    /// Every crossing so far, in order.
    pub fn crossings(&self) -> Vec<(LeadId, Crossing)> {
        let parts = self.journal.parts().into_iter();
        parts
            .flat_map(|(_, _, part)| part.crossings.into_iter().map(move |it| (part.lead, it)))
            .collect()
    }

    /// The messages so far, in order, each with the crossing it tells.
    pub fn messages(&self) -> Vec<Told> {
        let mut all = Vec::new();
        for (_, _, part) in self.journal.parts() {
            for message in &part.messages {
                let crossing = message.crossing.map(|it| part.crossings[usize::from(it)]);
                all.push(Told { lead: part.lead, crossing, message: message.clone() });
            }
        }
        all
    }
}

/// What somebody of sales says of a person.
pub fn feedback(mail: &str, kind: FeedbackKind) -> Feedback {
    sealed(Feedback { kind, origin: lead_of(mail), ..Feedback::default() })
}

/// The same answer by somebody who says who they are.
pub fn sealed(feedback: Feedback) -> Feedback {
    let details = Attributes::from([("by".to_owned(), "sato@vendor.example".to_owned())]);
    let sealed = Arc::new(seal(&details));
    Feedback { details: Arc::new(details), sealed, ..feedback }
}

/// A message, whom it is about, and what crossing it tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub lead: LeadId,
    pub crossing: Option<Crossing>,
    pub message: Message,
}

/// Withdraws hits of a browser, or puts them back, a record for each person whose they are.
pub fn withdraw(
    engine: &Engine,
    visitor: VisitorId,
    hits: &[Withdrawn],
    (of, why): (Position, &Authority),
    means: &mut Means<'_, '_>,
) {
    let mut rest = hits.to_vec();
    while !rest.is_empty() {
        match engine.withdraw_visitor(visitor, &rest, of, why, means) {
            Ok(done) => rest = done.rest,
            Err(_) => return,
        }
    }
}
