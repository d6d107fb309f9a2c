//! Deciding: a draft of the lead as it will be, moved forward through time and one hit, with
//! the crossings it makes on the way. Nothing here changes the lead itself.

use std::time::Duration;

use crate::decay::Total;
use crate::explain::{explain, reasons, urgency};
use crate::grade::Grade;
use crate::hit::Hit;
use crate::id::ThresholdId;
use crate::identity::Assurance;
use crate::ledger::{self, Cut, Row, Settled, Source, settle_with};
use crate::record::{Because, Crossed, HitRecord, Told};
use crate::rule::Points;
use crate::scoring::Scoring;
use crate::stage::Stage;
use crate::threshold::{Band, Course, Crossing, Direction, Gate, Standing};
use crate::time::Timestamp;
use crate::visitor::LeadEvent;

use super::{CROSSINGS_MAX, Due, Lead, Link, claims_of, consent_of, is_claimed};

/// The lead as it will be, as far as deciding needs it.
pub(super) struct Draft<'a> {
    lead: &'a Lead,
    scoring: &'a Scoring,
    /// In the order of the file's thresholds.
    bands: Vec<Band>,
    links: Vec<Link>,
    assurance: Assurance,
    identified: bool,
    consent: bool,
    last_human: Option<Timestamp>,
    pub(super) crossings: Vec<Crossed>,
    sequence: u32,
}

impl<'a> Draft<'a> {
    pub(super) fn new(lead: &'a Lead, scoring: &'a Scoring) -> Draft<'a> {
        let exists = lead.exists();
        Draft {
            lead,
            scoring,
            bands: scoring.thresholds.iter().map(|line| lead.band(line)).collect(),
            links: lead.links.clone(),
            assurance: lead.assurance,
            identified: exists,
            consent: lead.consent || !exists,
            last_human: lead.last_human,
            crossings: Vec::new(),
            sequence: lead.sequence,
        }
    }

    pub(super) fn course<'b>(&self, score: &'b Total) -> Course<'b> {
        Course {
            score,
            grade: Grade::Unknown,
            identified: self.identified,
            consent: self.consent,
            last_human: self.last_human,
        }
    }

    /// The standing just before a hit; of someone nobody knew, that of their history.
    pub(super) fn standing_before(&self, event: &LeadEvent, now: Timestamp) -> Standing {
        if self.lead.exists() {
            return self.course(&ledger::total(&self.lead.rows, self.scoring)).at(now);
        }
        let history = event.link.as_ref().and_then(|link| link.history);
        let last_human = history.map(|history| history.last_human).filter(|seen| seen.0 > 0);
        let score = ledger::total(&event.carried, self.scoring);
        Course { last_human, ..self.course(&score) }.at(now)
    }

    /// Acts on every moment since the lead was last settled, each at its exact instant.
    pub(super) fn let_time_pass(&mut self, now: Timestamp) {
        let nothing_due = match self.lead.due {
            Due::Never => true,
            Due::At(due) => due > now,
            Due::Unknown => !self.lead.exists(),
        };
        if nothing_due {
            return;
        }
        let total = ledger::total(&self.lead.rows, self.scoring);
        let mut from = self.lead.settled;
        let moved = self.moved(&total);
        while self.crossings.len() < CROSSINGS_MAX {
            let Some(crossing) = self.next_crossing(&total, &moved, from, now) else {
                return;
            };
            from = crossing.at;
            let stage = self.scoring.stage(&self.bands);
            self.apply(crossing, &self.lead.rows, None, stage);
        }
    }

    /// Lines that have moved since the last record: whoever could have risen then and did not
    /// is not told by time, since a changed rule alone tells nobody. The next hit decides.
    pub(super) fn moved(&self, total: &Total) -> Vec<ThresholdId> {
        let from = self.lead.settled;
        let standing = self.course(total).at(from);
        let lines = self.scoring.thresholds.iter().zip(&self.bands);
        lines
            .filter(|(line, band)| !band.inside && line.is_in_reach(&standing, from))
            .map(|(line, _)| line.id)
            .collect()
    }

    pub(super) fn next_crossing(
        &self,
        total: &Total,
        moved: &[ThresholdId],
        from: Timestamp,
        until: Timestamp,
    ) -> Option<Crossing> {
        let course = self.course(total);
        let lines = self.scoring.thresholds.iter().zip(&self.bands);
        lines
            .filter(|(line, _)| !moved.contains(&line.id))
            .filter_map(|(line, band)| line.next(band, &course, Gate::Score, from, until))
            .min_by_key(|crossing| crossing.at)
    }

    /// The ledger with what the hit earns.
    pub(super) fn earn(&mut self, event: &LeadEvent, hit: &Hit) -> Settled {
        let mut surer = false;
        if let Some(link) = &event.link {
            match self.links.iter_mut().find(|known| known.visitor == link.visitor) {
                Some(known) => {
                    surer = link.assurance > known.assurance;
                    known.assurance = known.assurance.max(link.assurance);
                }
                None => self.links.push(Link {
                    visitor: link.visitor,
                    assurance: link.assurance,
                    since: hit.received,
                }),
            }
        }
        let rows = event.carried.iter().chain(&event.rows);
        let new: Vec<Row> = rows.map(|row| self.if_away_long_enough(*row)).collect();
        let links = &self.links;
        let claimed = |source: Source| is_claimed(links, source);
        settle_with(&self.lead.rows, &new, surer, self.scoring, &claimed)
    }

    /// A return counts only if the person, on whatever browser, was away as long.
    fn if_away_long_enough(&self, row: Row) -> Row {
        let rule = self.scoring.rules.rule(row.rule);
        let away = rule.and_then(|rule| rule.when.return_after);
        let seen = self.lead.exists();
        let too_short = |away: Duration| {
            seen && row.when >= self.lead.last_when && row.when.since(self.lead.last_when) < away
        };
        let final_already = row.cut == Cut::Folded;
        let cut = if away.is_some_and(too_short) { Cut::NotAway } else { row.cut };
        if final_already { row } else { Row { cut, ..row } }
    }

    pub(super) fn take_facts(&mut self, record: &HitRecord, event: &LeadEvent) {
        let hit = &record.hit;
        self.identified = true;
        let history = event.link.as_ref().and_then(|link| link.history);
        if let Some(seen) = history.map(|history| history.last_human).filter(|seen| seen.0 > 0) {
            self.last_human = self.last_human.max(Some(seen));
        }
        if hit.is_human() {
            self.last_human = self.last_human.max(Some(hit.when));
        }
        self.consent = consent_of(record).unwrap_or(self.consent);
        for claim in claims_of(record, event.lead) {
            self.assurance = self.assurance.max(claim.assurance);
        }
    }

    /// Crosses whatever is to be crossed at this very moment.
    pub(super) fn cross(
        &mut self,
        rows: &[Row],
        before: &Standing,
        because: Option<&Row>,
        now: Timestamp,
    ) {
        let total = ledger::total(rows, self.scoring);
        let stage_before =
            if self.lead.exists() { self.scoring.stage(&self.bands) } else { Stage::Anonymous };
        for index in 0..self.bands.len() {
            let line = &self.scoring.thresholds[index];
            let course = self.course(&total);
            let after = course.at(now);
            let opened = Gate::ALL
                .into_iter()
                .find(|gate| !line.is_open(*gate, before, now) && line.is_open(*gate, &after, now));
            let opened = opened.unwrap_or(Gate::Score);
            if let Some(crossing) = line.next(&self.bands[index], &course, opened, now, now) {
                self.apply(crossing, rows, because, stage_before);
            }
        }
    }

    fn apply(
        &mut self,
        crossing: Crossing,
        rows: &[Row],
        because: Option<&Row>,
        previous_stage: Stage,
    ) {
        if let Some(band) = self.bands.iter_mut().find(|band| band.threshold == crossing.threshold)
        {
            *band = band.after(&crossing);
        }
        let because = because.filter(|_| crossing.direction == Direction::Rise);
        let told = crossing.told.then(|| {
            self.sequence += 1;
            Told { previous_stage, ..self.tell(rows, crossing.at, because) }
        });
        self.crossings.push(Crossed { crossing, told });
    }

    /// The figures of a message at a moment.
    fn tell(&self, rows: &[Row], at: Timestamp, because: Option<&Row>) -> Told {
        let scoring = self.scoring;
        let explained = explain(rows, scoring, at);
        let in_total =
            |row: &Row| scoring.category(row.category).is_some_and(|category| category.in_total);
        let day_ago = at.minus(Duration::from_hours(24));
        let then: Vec<Row> = rows.iter().filter(|row| row.when <= day_ago).copied().collect();
        let counted = explained.shares.iter().filter(|(row, _)| in_total(row));
        let unconfirmed = counted
            .clone()
            .filter(|(row, _)| is_claimed(&self.links, row.source))
            .map(|(_, share)| share.0)
            .sum();
        let held = rows.iter().filter(|row| row.cut.counted() && row.base.0 > 0 && in_total(row));
        Told {
            sequence: self.sequence,
            score: explained.score,
            before_24h: ledger::total(&then, scoring).value(day_ago),
            urgency: urgency(rows, scoring, at),
            unconfirmed: Points(unconfirmed),
            held_back: Points(held.map(|row| row.base.0 - row.granted.0).sum()),
            grade: Grade::Unknown,
            stage: scoring.stage(&self.bands),
            previous_stage: Stage::default(),
            assurance: self.assurance,
            categories: explained
                .categories
                .iter()
                .filter(|(id, _)| scoring.category(*id).is_some_and(|category| category.in_total))
                .copied()
                .collect(),
            reasons: reasons(counted),
            because: because.map(|row| Because {
                rule: row.rule,
                points: row.granted,
                at: row.when,
            }),
        }
    }
}
