//! What people and jobs do to what is known, at random: joining and parting people, giving
//! browsers to them and taking them back, withdrawing hits, scoring anew, telling who was held,
//! answering for sales, undoing any of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use collector::seal::attributes_to_bytes;
use engine::attribute::Attributes;
use engine::engine::{Authority, Means, StepError};
use engine::facts::Source;
use engine::hit::Hit;
use engine::id::{LeadId, Position, VisitorId};
use engine::identity::Assurance;
use engine::ledger::Row;
use engine::points::Points;
use engine::record::{Body, Record, Step, Withdrawn};
use engine::sales::{BY, Feedback};
use engine::stage::FeedbackKind;
use engine::time::Timestamp;

use super::chance::Chance;
use super::life::{DAY, Life, browser, decode, disguise, locked};

/// Hits are withdrawn that are among so many records.
const LOOKED_AT: usize = 500;

impl Life {
    /// One step, whatever comes of it.
    pub fn take_step(&self, now: Timestamp, chance: &mut Chance) -> Result<(), String> {
        let name = self.random_name(chance);
        let visitor = browser(chance.below(self.size.visitors));
        let why = Authority {
            actor: "tester".into(),
            reason: "by chance".into(),
            ..Authority::default()
        };
        // Whoever is alone has nobody to be joined with, and keeps their browsers and rows: a long
        // life would never fold any otherwise, and never end.
        let alone = self.size.people == 1;
        if alone && chance.percent(80) {
            return Ok(());
        }
        let first = if alone { 11 } else { 0 };
        let done = match first + chance.below(23 - first) {
            0..4 => {
                let other = self.random_name(chance);
                self.under(now, |means| Ok(self.engine.merge(name, other, &why, means)?.0))
            }
            4..7 => self.under(now, |means| Ok(self.engine.unmerge(name, &why, means)?.0)),
            7..9 => {
                let sure = chance.percent(50);
                let assurance = if sure { Assurance::Verified } else { Assurance::Claimed };
                self.under(now, |means| self.engine.link(visitor, name, assurance, &why, means))
            }
            9..11 => self.under(now, |means| self.engine.unlink(visitor, name, &why, means)),
            11 => self.under(now, |means| self.engine.confirm(visitor, name, &why, means)),
            12..14 => self.withdraw_some(now, &why, chance)?,
            14..16 => self.undo_some(now, &why, chance)?,
            16 => self.release_some(name, now, &why, chance),
            17 => self.rescore_some(name, visitor, now, &why, chance),
            18..21 => self.answer_some(name, now, chance),
            _ => None,
        };
        locked(&self.steps).extend(done);
        Ok(())
    }

    /// Does it under the rules in force, whoever changes them meanwhile; what the engine refuses
    /// is not done.
    fn under<T>(
        &self,
        now: Timestamp,
        act: impl Fn(&mut Means<'_, '_>) -> Result<T, StepError>,
    ) -> Option<T> {
        loop {
            let scoring = self.scoring();
            let mut push = |record: &Record| self.push(record);
            match act(&mut Means { scoring: &scoring, now, push: &mut push }) {
                Err(StepError::Stale) => thread::yield_now(),
                done => return done.ok(),
            }
        }
    }

    /// Some hits of one browser, or of what servers told, are withdrawn or put back.
    fn withdraw_some(
        &self,
        now: Timestamp,
        why: &Authority,
        chance: &mut Chance,
    ) -> Result<Option<Position>, String> {
        let (percent, out) = (20 + chance.below(80), chance.percent(70));
        let of_server = chance.percent(20);
        let visitor = browser(chance.below(self.size.visitors));
        let (begin, records) = self.latest();
        let mut found: BTreeMap<(Source, Option<LeadId>), Vec<Withdrawn>> = BTreeMap::new();
        for (place, bytes) in records.iter().enumerate() {
            let Body::Hit(record) = decode(bytes)?.body else {
                continue;
            };
            let position = Position::new(0, (begin + place) as u64 + 1);
            let first = record.first.as_ref().map(|first| &first.hit);
            for hit in first.into_iter().chain([&record.hit]) {
                let source = hit.visitor.map_or(Source::Server, Source::Visitor);
                let wanted = match hit.visitor {
                    Some(id) => !of_server && id == visitor && record.visit.is_some(),
                    None => of_server,
                };
                if !wanted || !chance.percent(percent) {
                    continue;
                }
                let whose = record.lead.as_ref().map(|part| part.origin);
                let whose = whose.filter(|_| source == Source::Server);
                let hit = withdrawn(hit, position, (source, whose, out));
                found.entry((source, whose)).or_default().push(hit);
            }
        }
        let job =
            self.under(now, |means| Ok(self.engine.note(Step::Job, Position::NONE, why, means)));
        let Some(job) = job else {
            return Ok(None);
        };
        for ((source, whose), hits) in found {
            match source {
                Source::Visitor(id) => self.withdraw_from(id, &hits, job, now, why),
                Source::Server => self.withdraw_of(whose, &hits, job, now, why),
            }
        }
        Ok(None)
    }

    /// The latest records, and how many there are before them.
    fn latest(&self) -> (usize, Vec<Vec<u8>>) {
        let records = locked(&self.records);
        let begin = records.len().saturating_sub(LOOKED_AT);
        (begin, records[begin..].to_vec())
    }

    fn withdraw_from(
        &self,
        visitor: VisitorId,
        hits: &[Withdrawn],
        job: Position,
        now: Timestamp,
        why: &Authority,
    ) {
        let mut rest = hits.to_vec();
        while !rest.is_empty() {
            let step = |means: &mut Means<'_, '_>| {
                self.engine.withdraw_visitor(visitor, &rest, job, why, means)
            };
            match self.under(now, step) {
                Some(done) => rest = done.rest,
                None => return,
            }
        }
    }

    fn withdraw_of(
        &self,
        whose: Option<LeadId>,
        hits: &[Withdrawn],
        job: Position,
        now: Timestamp,
        why: &Authority,
    ) {
        if let Some(lead) = whose.filter(|_| !hits.is_empty()) {
            self.under(now, |means| Ok(self.engine.withdraw_lead(lead, hits, job, why, means)));
        }
    }

    fn undo_some(
        &self,
        now: Timestamp,
        why: &Authority,
        chance: &mut Chance,
    ) -> Result<Option<Position>, String> {
        let steps = locked(&self.steps).clone();
        let Some(position) = steps.get(chance.below(steps.len().max(1) as u64) as usize) else {
            return Ok(None);
        };
        let bytes = locked(&self.records)[position.ordinal() as usize - 1].clone();
        let Body::Step(step) = decode(&bytes)?.body else {
            return Err(format!("no step is recorded at {}", position.0));
        };
        Ok(self.under(now, |means| self.engine.undo((&step, *position), why, means)))
    }

    /// Sales answers about somebody; an undo does not take that back.
    fn answer_some(&self, name: LeadId, now: Timestamp, chance: &mut Chance) -> Option<Position> {
        let kinds = FeedbackKind::ALL.len() as u64;
        let kind = FeedbackKind::ALL[chance.below(kinds) as usize];
        let until = now.plus(Duration::from_millis(chance.below(40 * DAY)));
        let details = Attributes::from([(BY.to_owned(), "sato@vendor.example".to_owned())]);
        let feedback = Feedback {
            // Now and then one that was given already.
            id: chance.below(4_000),
            at: now,
            kind,
            origin: name,
            until: chance.percent(50).then_some(until),
            sealed: Arc::new(disguise(&attributes_to_bytes(&details))),
            details: Arc::new(details),
            ..Feedback::default()
        };
        self.under(now, |means| self.engine.answer(name, feedback.clone(), means));
        None
    }

    fn release_some(
        &self,
        name: LeadId,
        now: Timestamp,
        why: &Authority,
        chance: &mut Chance,
    ) -> Option<Position> {
        let lead = self.engine.lead(name)?;
        let line = lead.bands.iter().find(|band| band.held)?.threshold();
        let told = chance.percent(70);
        self.under(now, |means| self.engine.release(name, line, told, why, means));
        None
    }

    /// What a person or a browser earned is matched anew, more or less.
    fn rescore_some(
        &self,
        name: LeadId,
        visitor: VisitorId,
        now: Timestamp,
        why: &Authority,
        chance: &mut Chance,
    ) -> Option<Position> {
        let barrier = Position::new(0, locked(&self.records).len() as u64);
        let job =
            self.under(now, |means| Ok(self.engine.note(Step::Job, Position::NONE, why, means)))?;
        let mut matched = |rows: &[Row]| -> Vec<Row> {
            let kept = rows.iter().filter(|row| row.position <= barrier);
            let fewer = self.size.people > 1;
            let kept: Vec<&Row> = kept.filter(|_| !fewer || chance.percent(90)).collect();
            kept.into_iter()
                .map(|row| Row {
                    base: Points(row.base.0 + 1_000 * chance.below(3) as i64),
                    version: self.scoring().version,
                    ..*row
                })
                .collect()
        };
        let of = (barrier, job);
        if let Some(known) = self.engine.visitor(visitor, now) {
            let rows = matched(&known.rows.in_order());
            self.under(now, |means| {
                Ok(self.engine.rescore_visitor(visitor, &rows, of, why, means))
            });
        }
        let lead = self.engine.lead(name)?;
        let rows = matched(&lead.content.rows);
        let seen = lead.last_position;
        self.under(now, |means| Ok(self.engine.rescore_lead(name, (&rows, seen), of, why, means)));
        None
    }
}

fn withdrawn(
    hit: &Hit,
    position: Position,
    (source, whose, out): (Source, Option<LeadId>, bool),
) -> Withdrawn {
    let (when, human) = (hit.when, hit.is_human());
    Withdrawn { position, when, source, origin: whose.unwrap_or_default(), human, out }
}
