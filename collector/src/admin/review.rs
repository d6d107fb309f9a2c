//! Questions that only a person can answer, and their answers.

use std::collections::BTreeSet;
use std::sync::Arc;

use engine::id::{LeadId, Position};
use engine::record::Review;
use serde_json::{Value, json};

use super::operate::authority;
use super::wish::{Wish, needed};
use super::{Admin, Refusal};
use crate::app::App;
use crate::outbox::message::iso;
use crate::reader::{Lists, Question, Raised};
use crate::steps;

impl Admin {
    /// What a person should look at. Two who are one by now are no question any more.
    pub(super) fn questions(&self) -> Value {
        let (questions, unlisted) = self.lists.questions();
        let row = |(position, question): (Position, Question)| {
            let open = question.asked.iter().filter(|raised| is_open(&self.app, &raised.review));
            let asked: Vec<Value> = open.map(asked_row).collect();
            (!asked.is_empty()).then(|| {
                json!({
                    "position": position.0,
                    "at": iso(question.at),
                    "visitor": question.visitor.map(|visitor| visitor.to_string()),
                    "asked": asked,
                })
            })
        };
        let rows: Vec<Value> = questions.into_iter().filter_map(row).collect();
        json!({ "schema": 1, "questions": rows, "unlisted": unlisted })
    }
}

fn asked_row(raised: &Raised) -> Value {
    json!({
        "question": raised.review.question.name(),
        "lead": raised.review.lead.to_string(),
        "other": raised.review.other.map(|other| other.to_string()),
        "times": raised.times,
        "last_at": iso(raised.last_at),
    })
}

/// The two people of a question, by whose names they are now; one, if they are one.
fn people(app: &App, review: &Review) -> BTreeSet<LeadId> {
    let names = [Some(review.lead), review.other];
    names.into_iter().flatten().map(|name| app.engine.head(name)).collect()
}

fn is_open(app: &App, review: &Review) -> bool {
    review.other.is_none() || people(app, review).len() == 2
}

/// Answers a question: two people of it are one, or there is nothing to it. A dismissal names a
/// record, so it dismisses all that the record was the first to ask; a merge leaves what else
/// there is of it open.
pub(super) fn review(app: &Arc<App>, lists: &Lists, body: &[u8]) -> Result<Value, Refusal> {
    let wish = Wish::read(body, &["question", "answer", "one", "other", "actor", "reason"])?;
    let position = needed(wish.position("question")?, "question")?;
    let why = authority(&wish)?;
    let answer = needed(wish.text("answer")?, "answer")?;
    let question = lists.question(position).ok_or(Refusal::NotFound)?;
    let joined = match answer {
        "merge" => {
            let both = (needed(wish.lead("one")?, "one")?, needed(wish.lead("other")?, "other")?);
            let named = BTreeSet::from([both.0, both.1].map(|name| app.engine.head(name)));
            let asks = |raised: &Raised| named.len() == 2 && people(app, &raised.review) == named;
            if !question.asked.iter().any(asks) {
                return Err(Refusal::Malformed("one and other: the two people of the question"));
            }
            let (position, stays) = steps::merge(app, both, &why)?;
            Some((position, stays))
        }
        "dismiss" => {
            wish.says_only(&["question", "answer", "actor", "reason"])?;
            None
        }
        _ => return Err(Refusal::Malformed("answer")),
    };
    let left = question.asked.iter().filter(|raised| is_open(app, &raised.review)).count();
    let position = match joined {
        Some((merged, _)) if left > 0 => merged,
        _ => {
            let about = question.asked.first().map(|raised| raised.review.lead);
            steps::dismiss(app, (position, about), &why)?
        }
    };
    let merged = joined.map(|(position, stays)| {
        json!({ "schema": 1, "position": position.0, "lead": stays.to_string() })
    });
    let left = if merged.is_some() { left } else { 0 };
    Ok(json!({ "schema": 1, "position": position.0, "merged": merged, "left": left }))
}
