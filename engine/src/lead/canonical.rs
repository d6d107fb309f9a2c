//! A lead in the fixed form that the state hash is taken of: everything that replay must restore.

use crate::facts::{Said, Source, canonical_seen};
use crate::id::Position;
use crate::ledger::canonical_rows;
use crate::record::{Content, Joint, Sent, Subject};
use crate::sales::{Asked, Feedback};
use crate::threshold::Band;
use crate::time::Timestamp;

use super::Lead;

impl Lead {
    /// Everything that replay must restore, in a fixed form: what the state hash is taken of.
    pub fn canonical(&self, out: &mut Vec<u8>) {
        canonical_content(&self.content, out);
        for band in &self.bands {
            canonical_band(band, out);
        }
        for side in &self.base.sides {
            words(out, &[u64::from(side.threshold.0), u64::from(side.inside), side.since.0]);
        }
        self.sent.iter().for_each(|sent| canonical_sent(sent, out));
        words(
            out,
            &[
                self.base.at.0,
                self.last_position.0,
                self.settled.0,
                u64::from(self.rescored),
                u64::from(self.sequence),
                u64::from(self.test),
                self.stub.map_or(0, |stub| stub.0),
                u64::from(self.people),
                self.steps.len() as u64,
                self.taken.0,
                self.awaits.map_or(0, |(from, _)| from.0),
                self.awaits.map_or(0, |(_, of)| of.0),
            ],
        );
        self.steps.iter().for_each(|step| words(out, &[step.0]));
        if self.erased != Position::NONE {
            words(out, &[self.erased.0, self.erased_at.0]);
        }
        canonical_asked(self.asked.as_ref(), self.signalled, out);
        if let Some(outgoing) = &self.outgoing {
            words(out, &[outgoing.to.0, outgoing.of.0]);
            canonical_joint(outgoing.joint.as_ref(), out);
            canonical_content(&outgoing.content, out);
        }
        if let Some(arriving) = &self.arriving {
            words(out, &[arriving.of.0, arriving.parcels.len() as u64]);
            for parcel in &arriving.parcels {
                canonical_joint(parcel.joint.as_ref(), out);
                canonical_content(&parcel.content, out);
                parcel.bands.iter().for_each(|band| canonical_band(band, out));
                parcel.sent.iter().for_each(|sent| canonical_sent(sent, out));
                canonical_asked(parcel.asked.as_ref(), parcel.signalled, out);
            }
        }
    }
}

fn words(out: &mut Vec<u8>, words: &[u64]) {
    for word in words {
        out.extend_from_slice(&word.to_le_bytes());
    }
}

fn source_words(source: Source) -> [u64; 2] {
    match source {
        Source::Server => [0, 0],
        Source::Visitor(visitor) => [visitor.0 as u64, (visitor.0 >> 64) as u64],
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    words(out, &[text.len() as u64]);
    out.extend_from_slice(text.as_bytes());
}

fn canonical_content(content: &Content, out: &mut Vec<u8>) {
    for member in &content.members {
        words(
            out,
            &[
                member.id.0,
                member.kind as u64,
                member.parent.map_or(0, |parent| parent.0),
                member.assurance as u64,
                u64::from(member.people),
                member.since.0,
                member.first_position.0,
                u64::from(member.by_server),
            ],
        );
    }
    for tie in content.ties.iter().chain(&content.aside.ties) {
        let [low, high] = source_words(tie.source);
        words(
            out,
            &[
                low,
                high,
                tie.origin.0,
                tie.stretch.0,
                tie.assurance as u64,
                tie.given as u64,
                tie.since.0,
                tie.first_seen.0,
                tie.first_position.0,
                u64::from(tie.hits),
                u64::from(tie.pages),
                u64::from(tie.visits),
                u64::from(tie.attached),
            ],
        );
    }
    for said in content.said.iter().chain(&content.aside.said) {
        canonical_said(said, out);
    }
    words(out, &[content.aside.ties.len() as u64, content.aside.said.len() as u64]);
    content.feedback.iter().for_each(|feedback| canonical_feedback(feedback, out));
    canonical_seen(&content.seen, out);
    canonical_rows(&content.rows, out);
}

/// Nothing of whom sales never heard: so it was before it could answer.
fn canonical_asked(asked: Option<&Asked>, signalled: Timestamp, out: &mut Vec<u8>) {
    if let Some(asked) = asked {
        let line = asked.line.map_or(0, |line| u64::from(line.0) + 1);
        let times = [asked.since.0, asked.remind_at.0, asked.report_at.0];
        words(out, &[asked.lead.0, u64::from(asked.reminded), line]);
        words(out, &times);
    }
    if signalled != Timestamp::default() {
        words(out, &[signalled.0]);
    }
}

fn canonical_feedback(feedback: &Feedback, out: &mut Vec<u8>) {
    let pair = |pair: Option<(u64, u64)>| pair.unwrap_or_default();
    let (raise, raise_until) = pair(feedback.raise.map(|(raise, at)| (raise.0 as u64, at.0)));
    let (remind_at, report_at) = pair(feedback.asks.map(|(one, two)| (one.0, two.0)));
    words(
        out,
        &[
            feedback.id,
            feedback.time.0,
            feedback.position.0,
            feedback.at.0,
            feedback.kind as u64,
            feedback.origin.0,
            feedback.stage as u64,
            feedback.until.map_or(0, |until| until.0.saturating_add(1)),
            raise,
            raise_until,
            remind_at,
            report_at,
        ],
    );
    words(out, &[feedback.vouches.len() as u64]);
    for vouched in &feedback.vouches {
        let [low, high] = source_words(Source::Visitor(vouched.visitor));
        words(out, &[low, high, vouched.origin.0, vouched.stretch.0]);
    }
    for (name, value) in feedback.details.iter() {
        text(out, name);
        text(out, value);
    }
}

fn canonical_sent(sent: &Sent, out: &mut Vec<u8>) {
    let about = match sent.about {
        Subject::Line(line) => [0, u64::from(line.0), 0],
        Subject::Row(position, order) => [1, position.0, u64::from(order)],
    };
    let (position, place) = (sent.position.0, u64::from(sent.place));
    words(out, &[position, place, sent.lead.0, sent.kind as u64, sent.at.0]);
    words(out, &about);
    text(out, sent.audience.as_deref().unwrap_or_default());
}

fn canonical_joint(joint: Option<&Joint>, out: &mut Vec<u8>) {
    if let Some(joint) = joint {
        words(out, &[joint.under.0, joint.assurance as u64, u64::from(joint.people)]);
    }
}

fn canonical_said(said: &Said, out: &mut Vec<u8>) {
    let [low, high] = source_words(said.source);
    words(
        out,
        &[
            said.time.0,
            said.position.0,
            low,
            high,
            said.stretch.map_or(0, |stretch| stretch.0.saturating_add(1)),
            said.origin.0,
            said.identity as u64,
            said.attributes_by as u64,
            said.level as u64,
            said.consent.map_or(0, |consent| u64::from(consent) + 1),
        ],
    );
    text(out, &said.by);
    for (name, value) in said.attributes.iter() {
        text(out, name);
        text(out, value);
    }
}

fn canonical_band(band: &Band, out: &mut Vec<u8>) {
    let optional = |time: Option<Timestamp>| time.map_or(0, |time| time.0.saturating_add(1));
    words(
        out,
        &[
            u64::from(band.threshold().0),
            u64::from(band.side.inside),
            band.side.since.0,
            u64::from(band.number),
            band.opened_by.map_or(0, |gate| gate as u64 + 1),
            u64::from(band.told),
            u64::from(band.held),
            optional(band.waits_until),
            optional(band.last_told),
            band.last_points.map_or(0, |points| points.0 as u64),
            u64::from(band.last_points.is_some()),
        ],
    );
    band.escalated.iter().for_each(|at| words(out, &[at.0]));
}
