//! What sales answered of a lead, as people and programs read it: on the timeline, and as
//! activities that are still open or over.

use engine::lead::Lead;
use engine::sales::{BY, Feedback};
use engine::stage::FeedbackKind;
use engine::time::Timestamp;
use serde_json::{Map, Value, json};

use crate::outbox::message::iso;

/// What the details of an answer call what they say of a deal.
const DEAL: &str = "opportunity.";

/// An answer as an event of the timeline.
pub(super) fn event(feedback: &Feedback) -> Value {
    let said = |name: &str| feedback.details.get(name);
    let deal: Map<String, Value> = feedback
        .details
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(DEAL)?.to_owned(), json!(value))))
        .collect();
    json!({
        "event": feedback.kind.name(),
        "at": iso(feedback.at),
        "by": said(BY),
        "reason": said("reason"),
        "until": feedback.until.map(iso),
        "opportunity": (!deal.is_empty()).then_some(deal),
        "stage": feedback.stage.name(),
    })
}

/// Everything sales did with a lead, the newest first: what is planned and what was done.
pub(super) fn activities(lead: &Lead, now: Timestamp) -> Vec<Value> {
    let all = &lead.content.feedback;
    let rows = all.iter().enumerate().rev().map(|(place, feedback)| {
        let mut row = event(feedback);
        row["planned"] = json!(is_planned(feedback.kind));
        row["open"] = json!(is_open(feedback, &all[place + 1..], now));
        row
    });
    rows.collect()
}

fn is_planned(kind: FeedbackKind) -> bool {
    matches!(kind, FeedbackKind::MeetingPlanned | FeedbackKind::Snooze)
}

/// Whether an answer is of something that is not over, given those that came after it.
fn is_open(feedback: &Feedback, later: &[Feedback], now: Timestamp) -> bool {
    let ends = |ending: &[FeedbackKind]| {
        later.iter().any(|it| it.kind.gives_back() || ending.contains(&it.kind))
    };
    match feedback.kind {
        FeedbackKind::MeetingPlanned => !ends(&[
            FeedbackKind::MeetingPlanned,
            FeedbackKind::MeetingDone,
            FeedbackKind::NoShow,
            FeedbackKind::Won,
        ]),
        FeedbackKind::Opportunity => !ends(&[FeedbackKind::Opportunity, FeedbackKind::Won]),
        FeedbackKind::Snooze => later.is_empty() && feedback.until.is_some_and(|until| now < until),
        FeedbackKind::Accepted
        | FeedbackKind::Rejected
        | FeedbackKind::Contacted
        | FeedbackKind::MeetingDone
        | FeedbackKind::NoShow
        | FeedbackKind::Won
        | FeedbackKind::Lost
        | FeedbackKind::Recycle => false,
    }
}

/// What sales was asked and has not answered.
pub(super) fn asked(lead: &Lead) -> Option<Value> {
    lead.asked.map(|asked| {
        json!({
            "since": iso(asked.since),
            "remind_at": iso(asked.remind_at),
            "report_at": iso(asked.report_at),
            "reminded": asked.reminded,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_planned_is_open_until_it_took_place_or_all_is_over() {
        let given = |kind| Feedback { kind, ..Feedback::default() };
        let until = Some(Timestamp(50));
        let snooze = Feedback { until, ..given(FeedbackKind::Snooze) };
        let feedback = vec![
            given(FeedbackKind::MeetingPlanned),
            given(FeedbackKind::MeetingDone),
            given(FeedbackKind::Opportunity),
            given(FeedbackKind::MeetingPlanned),
            snooze,
        ];
        let mut lead = Lead::default();
        lead.content.feedback = feedback;
        let open = |lead: &Lead, at| -> Vec<bool> {
            let rows = activities(lead, Timestamp(at)).into_iter().rev();
            rows.map(|row| row["open"].as_bool().unwrap()).collect()
        };
        assert_eq!(open(&lead, 10), [false, false, true, true, true]);
        assert_eq!(open(&lead, 60), [false, false, true, true, false]);
        lead.content.feedback.push(given(FeedbackKind::Lost));
        assert_eq!(open(&lead, 10), [false; 6]);
    }
}
