//! The lists as a snapshot holds them. What people search by is personal, and not in it: it is
//! made anew of what each lead said, which the engine's part holds sealed.

use engine::attribute::Attributes;
use engine::id::{LeadId, Position, ThresholdId, VisitorId};
use engine::record::{Question, Review};
use engine::time::Timestamp;
use rkyv::{Archive, Deserialize, Serialize};

use super::days::Days;
use super::days::saved::SavedDays;
use super::{Inner, Lists, Open, Raised, Summary};
use crate::followers::Unfit;

/// See the module's comment.
#[derive(Archive, Serialize, Deserialize)]
pub struct SavedLists {
    leads: Vec<SavedSummary>,
    hot: Vec<u64>,
    held: Vec<(u64, u8)>,
    questions: Vec<SavedQuestion>,
    questions_unlisted: u64,
    days: SavedDays,
}

#[derive(Archive, Serialize, Deserialize)]
struct SavedSummary {
    lead: u64,
    last_seen: u64,
    test: bool,
}

#[derive(Archive, Serialize, Deserialize)]
struct SavedQuestion {
    /// By its number in the journal.
    question: u8,
    lead: u64,
    other: Option<u64>,
    position: u64,
    at: u64,
    /// The low and the high half.
    visitor: Option<(u64, u64)>,
    times: u64,
    last_at: u64,
}

impl Lists {
    /// Their saved form.
    pub fn save(&self) -> SavedLists {
        let inner = self.locked();
        let summary = |(lead, summary): (&LeadId, &Summary)| SavedSummary {
            lead: lead.0,
            last_seen: summary.last_seen.0,
            test: summary.test,
        };
        SavedLists {
            leads: inner.leads.iter().map(summary).collect(),
            hot: inner.hot.iter().map(|lead| lead.0).collect(),
            held: inner.held.iter().map(|(lead, line)| (lead.0, line.0)).collect(),
            questions: inner.questions.values().map(Open::save).collect(),
            questions_unlisted: inner.questions_unlisted,
            days: inner.days.save(),
        }
    }

    /// What was saved. Nobody is found by a word until [`Lists::remember`] was told of them.
    pub fn load(saved: SavedLists) -> Result<Lists, Unfit> {
        let mut inner = Inner {
            hot: saved.hot.into_iter().map(LeadId).collect(),
            held: saved
                .held
                .into_iter()
                .map(|(id, line)| (LeadId(id), ThresholdId(line)))
                .collect(),
            questions_unlisted: saved.questions_unlisted,
            days: Days::load(saved.days)?,
            ..Inner::default()
        };
        for SavedSummary { lead, last_seen, test } in saved.leads {
            let last_seen = Timestamp(last_seen);
            inner.leads.insert(LeadId(lead), Summary { text: String::new(), last_seen, test });
        }
        for saved in saved.questions {
            let open = Open::load(&saved)?;
            let Review { question, lead, other } = open.raised.review;
            inner.questions.insert((question.name(), lead, other), open);
        }
        Ok(Lists(inner.into()))
    }

    /// Lets a lead be found by what it said. A word that was never said to this name of the lead,
    /// or that the lead no longer holds, finds it only in a process that read its record.
    pub fn remember(&self, lead: LeadId, attributes: &Attributes) {
        self.locked().leads.entry(lead).or_default().remember(attributes);
    }
}

impl Open {
    fn save(&self) -> SavedQuestion {
        let Raised { review, times, last_at } = self.raised;
        SavedQuestion {
            question: review.question as u8,
            lead: review.lead.0,
            other: review.other.map(|other| other.0),
            position: self.position.0,
            at: self.at.0,
            visitor: self.visitor.map(|id| (id.0 as u64, (id.0 >> 64) as u64)),
            times,
            last_at: last_at.0,
        }
    }

    fn load(saved: &SavedQuestion) -> Result<Open, Unfit> {
        let mut all = Question::ALL.into_iter();
        let question = all.find(|it| *it as u8 == saved.question).ok_or(Unfit::Number)?;
        let review = Review { question, lead: LeadId(saved.lead), other: saved.other.map(LeadId) };
        let whole = |(low, high): (u64, u64)| VisitorId(u128::from(high) << 64 | u128::from(low));
        Ok(Open {
            position: Position(saved.position),
            at: Timestamp(saved.at),
            visitor: saved.visitor.map(whole),
            raised: Raised { review, times: saved.times, last_at: Timestamp(saved.last_at) },
        })
    }
}
