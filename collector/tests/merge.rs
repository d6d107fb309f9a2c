//! Merging and parting two people while the power goes at every operation of the disk: whatever
//! was acknowledged is there, nothing is lost or doubled, and what was cut off is carried on with
//! until both people are as if nothing had happened.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "every test file is a crate of its own and uses another part")]
mod sim {
    pub mod disk;
    pub mod process;
}

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use collector::config::{Around, DEFAULT_SCORING, NameKind, ScoringFile, Surroundings};
use collector::journal::Options;
use collector::seal::attributes_to_bytes;
use collector::timeline::unseal_with;
use engine::attribute::Attributes;
use engine::engine::{Arrival, Authority, Engine, Means, StepError};
use engine::hit::{Claim, Hit, HitKind, Named};
use engine::id::{Key, LeadId, Position, SiteId, VisitorId};
use engine::identity::{Assurance, Identity, IdentityKind};
use engine::lead::explain;
use engine::record::{self, Body, Name, Published, Record};
use engine::scoring::Scoring;
use engine::terms::Versions;
use engine::time::Timestamp;
use sim::disk::{Dice, SimDisk};
use sim::process::{Process, Records};

/// 2026-12-07 10:00 in Japan.
const BEGIN: Timestamp = Timestamp(1_796_605_200_000);
const X: &str = "x@one.example";
const Y: &str = "y@two.example";
/// What is said of one person: so many statements that they are sent in several parcels.
const SAID: u64 = 20;
/// Seeds of what a power cut leaves of what was not synced.
const SEEDS: u64 = 2;

/// What happens, one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// A browser, known as somebody, looks at a page: at this minute, under this id.
    View(u64, &'static str, &'static str),
    /// Our server says something of somebody.
    Say(u64, &'static str),
    Merge,
    Unmerge(&'static str),
}

fn story() -> Vec<Act> {
    let mut acts: Vec<Act> = (0..SAID).map(|number| Act::Say(number, X)).collect();
    acts.extend([
        Act::Say(SAID, Y),
        Act::View(30, X, "/pricing/"),
        Act::View(31, Y, "/pricing/"),
        Act::View(32, Y, "/thanks/document/guide"),
        Act::Merge,
        Act::View(40, X, "/case/line"),
        Act::Unmerge(Y),
        Act::View(50, Y, "/thanks/event/dx"),
        Act::Merge,
        Act::Unmerge(Y),
    ]);
    acts
}

fn lead_of(mail: &str) -> LeadId {
    Identity::parse(IdentityKind::Email, mail).unwrap().lead(&Key([0; 16]), "www")
}

fn claim(mail: &str, number: u64) -> Claim {
    let named = |assurance| Named { kind: IdentityKind::Email, id: lead_of(mail), assurance };
    let attributes: Attributes =
        [("email".to_owned(), mail.to_owned()), ("title".to_owned(), format!("title {number}"))]
            .into();
    Claim {
        names: vec![named(Assurance::Verified)],
        attributes_by: Assurance::Verified,
        // Not sealed here: the keys are not what is tried.
        sealed: attributes_to_bytes(&attributes),
        attributes,
        ..Claim::default()
    }
}

fn minute(number: u64) -> Timestamp {
    BEGIN.plus(Duration::from_mins(number))
}

fn rules() -> (Scoring, Vec<Name>) {
    let around = Surroundings::default();
    let around = Around { surroundings: &around, settings: None };
    let file = ScoringFile::parse("scoring.toml", DEFAULT_SCORING, around).unwrap();
    let mut names: Vec<Name> = Vec::new();
    let scoring = file.publish(&Versions::default(), (1, BEGIN), &mut |kind, name| {
        let kind = match kind {
            NameKind::Rule => record::NameKind::Rule,
            NameKind::Category => record::NameKind::Category,
            NameKind::Threshold => record::NameKind::Threshold,
        };
        let number = names.iter().filter(|known| known.kind == kind).count() as u16;
        names.push(Name { kind, number, name: name.to_owned() });
        number
    });
    (scoring.unwrap(), names)
}

/// One process: the engine, and the journal that every record is committed to by itself.
struct Life {
    engine: Engine,
    process: RefCell<Process>,
    scoring: Scoring,
    /// The ids of the hits that were durable when it began.
    hits: BTreeSet<u64>,
}

impl Life {
    /// Recovers from the disk, and carries on with what was cut off. Nothing if the power goes.
    fn start(disk: &SimDisk) -> Option<(Life, Records)> {
        let options = Options { segment_bytes: 4 * 1_024, ..Options::new(*b"0123456789abcdef") };
        let (process, _, records) = match Process::start(disk, &options) {
            Ok(started) => started,
            Err(error) => {
                assert!(disk.has_crashed(), "recovery said {error}");
                return None;
            }
        };
        let engine = Engine::new(8);
        let mut hits = BTreeSet::new();
        for (ordinal, bytes) in &records {
            let mut record = Record::decode(bytes).unwrap();
            unseal_with(&mut record, |_, sealed| Some(sealed.to_vec()));
            engine.evolve(&record, Position::new(0, *ordinal));
            if let Body::Hit(record) = &record.body {
                hits.insert(record.hit.id);
            }
        }
        let (scoring, names) = rules();
        let life = Life { engine, process: RefCell::new(process), scoring, hits };
        if records.is_empty() {
            let terms = life.scoring.terms().clone();
            let published = Published { names, terms, text: Vec::new() };
            life.engine.publish(published, BEGIN, &mut |record| life.push(record));
        }
        life.with(BEGIN, engine::engine::Engine::resume);
        life.is_alive().then_some((life, records))
    }

    fn is_alive(&self) -> bool {
        let process = self.process.borrow();
        process.poisoned.is_none() && process.committer.is_ready()
    }

    /// Commits a record by itself. After the power went nobody is left to see what it says.
    fn push(&self, record: &Record) -> Position {
        let mut process = self.process.borrow_mut();
        let position = process.next();
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        if process.poisoned.is_none() {
            process.commit(&[bytes]);
        }
        position
    }

    fn with<T>(&self, now: Timestamp, act: impl FnOnce(&Engine, &mut Means<'_, '_>) -> T) -> T {
        let mut push = |record: &Record| self.push(record);
        act(&self.engine, &mut Means { scoring: &self.scoring, now, push: &mut push })
    }

    /// Does one act, unless it was done before the power went.
    fn act(&self, number: usize, act: Act) {
        let why = Authority {
            actor: "yamada".into(),
            reason: "one person".into(),
            ..Authority::default()
        };
        match act {
            Act::View(at, mail, path) => {
                let id = VisitorId(u128::from(mail == Y) + 1);
                self.hit(
                    minute(at),
                    Hit {
                        visitor: Some(id),
                        path: path.trim_end_matches('/').to_owned(),
                        claim: Some(claim(mail, 0)),
                        ..Hit::default()
                    },
                    number,
                );
            }
            Act::Say(at, mail) => {
                let kind = HitKind::Identify;
                let claim = Some(claim(mail, at));
                self.hit(
                    minute(at),
                    Hit { kind, claim, by_server: true, ..Hit::default() },
                    number,
                );
            }
            Act::Merge => {
                let both = (lead_of(X), lead_of(Y));
                let done = self
                    .with(minute(60), |engine, means| engine.merge(both.0, both.1, &why, means));
                assert!(matches!(done, Ok(_) | Err(StepError::Same)), "{done:?}");
            }
            Act::Unmerge(mail) => {
                let done = self
                    .with(minute(60), |engine, means| engine.unmerge(lead_of(mail), &why, means));
                assert!(matches!(done, Ok(_) | Err(StepError::NotMerged)), "{done:?}");
            }
        }
    }

    fn hit(&self, at: Timestamp, hit: Hit, number: usize) {
        let id = number as u64 + 1;
        if self.hits.contains(&id) {
            return;
        }
        let hit = Hit { site: SiteId(0), received: at, when: at, id, ..hit };
        let arrival = Arrival { hit, first: None };
        self.engine.ingest(arrival, &self.scoring, &mut |record| self.push(record));
    }

    /// Whose name each mail is, and everything derived of that person but where it is recorded.
    fn state(&self) -> Vec<String> {
        let now = minute(70);
        let of = |mail: &str| {
            let head = self.engine.head(lead_of(mail));
            let lead = self.engine.lead(head).unwrap();
            let rows: Vec<_> = lead
                .content
                .rows
                .iter()
                .map(|row| (row.when, row.rule, row.base, row.granted, row.cut))
                .collect();
            let explained = explain(&lead.content.rows, self.scoring.terms(), now);
            let said = lead.content.said.len();
            let (score, attributes) = (explained.score, lead.attributes());
            format!("{mail}: {head} {score} said {said} {attributes:?} {rows:?}")
        };
        vec![of(X), of(Y)]
    }
}

/// Tells the story with power cuts, the first after so many operations; how it ended, how often
/// the power went, and in which acts.
fn tell(first_cut: Option<u64>, dice: &mut Dice) -> (Vec<String>, Vec<Act>) {
    let acts = story();
    let disk = SimDisk::new();
    if let Some(operations) = first_cut {
        disk.crash_after(operations);
    }
    let (mut done, mut cut, mut acknowledged) = (0, Vec::new(), 0);
    loop {
        if let Some((life, records)) = Life::start(&disk) {
            let left = records.len() as u64;
            assert!(left >= acknowledged, "{left} of {acknowledged} acknowledged records are left");
            while done < acts.len() {
                life.act(done, acts[done]);
                if !life.is_alive() {
                    break;
                }
                done += 1;
            }
            acknowledged = life.process.borrow().durable();
            if life.is_alive() {
                return (life.state(), cut);
            }
        }
        assert!(disk.has_crashed());
        cut.push(acts[done.min(acts.len() - 1)]);
        disk.power_loss(dice);
        // The next one comes soon, often within what is carried on with.
        if cut.len() < 3 && dice.coin() {
            disk.crash_after(dice.below(40));
        }
    }
}

#[test]
fn two_people_are_the_same_after_a_power_cut_at_every_operation_of_their_merges() {
    let (whole, _) = tell(None, &mut Dice::new(0));
    let mut cuts: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..SEEDS {
        for operations in 0.. {
            let mut dice = Dice::new(seed << 32 | operations);
            let (state, cut) = tell(Some(operations), &mut dice);
            assert_eq!(state, whole, "seed {seed}, cut after {operations} operations, in {cut:?}");
            for act in &cut {
                let what = match act {
                    Act::View(..) | Act::Say(..) => "hits",
                    Act::Merge => "merges",
                    Act::Unmerge(_) => "partings",
                };
                *cuts.entry(what).or_default() += 1;
            }
            if cut.is_empty() {
                break;
            }
        }
    }
    assert!(cuts["merges"] > 20 && cuts["partings"] > 20, "too few cuts: {cuts:?}");
}
