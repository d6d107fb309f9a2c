//! What sales answers: whether it is heard, what it does, and what it vouches for. All of that is
//! worked out here and recorded with the answer, which no undo takes back.

use crate::facts::Source;
use crate::id::LeadId;
use crate::ledger::{self, Row, UNDECIDED};
use crate::points::Points;
use crate::record::LeadPart;
use crate::sales::{FEEDBACK_MAX, Feedback, HALVES_FROM, Unheard, Vouched, rule_of};
use crate::scoring::Scoring;
use crate::stage::FeedbackKind;
use crate::time::Timestamp;

use super::Lead;
use super::content::{Stamp, vouched};
use super::draft::{Cause, Draft};

impl Lead {
    /// Sales answered. What it does is worked out here and recorded with it.
    pub fn answer(
        &self,
        id: LeadId,
        feedback: Feedback,
        scoring: &Scoring,
        now: Timestamp,
    ) -> Result<(Feedback, LeadPart), Unheard> {
        let known = &self.content.feedback;
        if known.iter().any(|it| it.id == feedback.id) {
            return Err(Unheard::Repeated);
        }
        if known.iter().any(|it| it.at > feedback.at) {
            return Err(Unheard::Older);
        }
        if known.len() >= FEEDBACK_MAX {
            return Err(Unheard::TooMany);
        }
        let mut draft = Draft::new(self, scoring);
        let acted = draft.let_time_pass(now);
        let stage = draft.stage();
        let after = stage.after(feedback.kind).ok_or(Unheard::NotHere(stage))?;
        let asked = draft.asked;
        let feedback = scoring.sales.effect(Feedback { stage: after, ..feedback }, asked, now);
        let vouches = draft.vouched_by(&feedback);
        let feedback = Feedback { vouches, ..feedback };
        let before = draft.standing(acted);
        let rows = draft.rows_of(&feedback, now);
        draft.part.lead = id;
        draft.part.origin = feedback.origin;
        draft.content.to_mut().answer(&feedback, Stamp { time: now, position: UNDECIDED });
        draft.know();
        let surer = feedback.kind.proves().then_some(Timestamp(0));
        draft.settle(&rows, surer);
        draft.reconsider(None, &before, acted, Cause::Answer);
        Ok((feedback, draft.part))
    }
}

impl Draft<'_> {
    /// What an answer vouches for: all that a claim alone has tied to the person, but for what an
    /// answer about the same name vouches for already.
    fn vouched_by(&self, feedback: &Feedback) -> Vec<Vouched> {
        if !feedback.kind.proves() {
            return Vec::new();
        }
        let about = self.content.feedback.iter().filter(|it| it.origin == feedback.origin);
        let known: Vec<Vouched> = about.flat_map(|it| it.vouches.iter().copied()).collect();
        let claimed = self.content.ties.iter().filter(|tie| !tie.assurance.is_proved());
        claimed.filter_map(vouched).filter(|it| !known.contains(it)).collect()
    }

    /// The rows that an answer makes: what it is worth, and what a lost deal takes of each
    /// category, also where that is nothing yet: what becomes known of the time before is halved
    /// too.
    fn rows_of(&self, feedback: &Feedback, now: Timestamp) -> Vec<Row> {
        let sales = &self.scoring.sales;
        let row = |category, base: Points, order| Row {
            when: now,
            order,
            rule: rule_of(feedback.kind),
            category,
            source: Source::Server,
            origin: feedback.origin,
            version: self.terms.version,
            base,
            granted: base,
            ..Row::default()
        };
        let mut rows = Vec::new();
        let worth = sales.points.iter().find(|(kind, _)| *kind == feedback.kind);
        if let (Some((_, points)), Some(category)) = (worth, sales.category) {
            rows.push(row(category, *points, 0));
        }
        let mut order = HALVES_FROM;
        if feedback.kind == FeedbackKind::Lost && sales.lost.is_some() {
            for category in self.terms.categories.iter().filter(|it| it.in_total) {
                let own = |row: &Row| row.category == category.id;
                let value = ledger::sum(&self.content.rows, category.half_life, own).value(now);
                rows.push(row(category.id, Points(-(value.0.max(0) / 2)), order));
                order += 1;
            }
        }
        rows
    }
}
