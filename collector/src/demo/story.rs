//! The story: what is worth a line, and whether it was told. Sights and deliveries go in, lines
//! come out. A message may reach its receiver before the terminal has seen the record that
//! caused it; it is then held back for the moment, so that effects follow causes.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use engine::hit::Exclusion;
use engine::id::{LeadId, VisitorId};
use engine::threshold::Direction;
use engine::time::Timestamp;

use super::receiver::{Delivery, Message, Unbelievable};
use super::watch::{Crossing, Known, Sight, Worth};

/// How often a hot lead's fading shows while nothing else does.
const FADING_EVERY: Duration = Duration::from_secs(4);
/// The line the story is about.
const HOT: &str = "hot";
/// Deliveries that may wait for their cause; more than leads could be hot at once here.
const EARLY_MAX: usize = 256;

/// What a line looks like, by what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// Nothing happened to anybody's score.
    Quiet,
    /// Somebody earned something.
    Plain,
    /// Somebody is known now.
    Known,
    /// A lead is hot.
    Hot,
    /// A message arrived and was verified.
    Delivered,
    /// A lead cooled.
    Cooled,
    /// Something is wrong.
    Bad,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Somebody did something.
    Hit {
        /// When.
        at: Timestamp,
        /// Who.
        who: String,
        /// What.
        what: String,
        /// Points and their reason, or why none.
        worth: String,
        /// Whole points now.
        score: Option<i64>,
        /// How it looks.
        tone: Tone,
    },
    /// Something of note.
    Note {
        /// When.
        at: Timestamp,
        /// What.
        text: String,
        /// How it looks.
        tone: Tone,
    },
}

/// A part of the story that did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No browser became a person.
    Stitched,
    /// Nobody became hot.
    Hot,
    /// The message that somebody is hot.
    HotDelivered,
    /// The message that the same lead has cooled.
    CooledDelivered,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Missing::Stitched => "a browser that becomes a person",
            Missing::Hot => "a lead that becomes hot",
            Missing::HotDelivered => "lead.hot, delivered and verified",
            Missing::CooledDelivered => "lead.cooled of the same lead, delivered and verified",
        })
    }
}

/// A lead that has been hot.
#[derive(Clone, Debug, Default)]
struct Course {
    who: String,
    inside: bool,
    // Whole points and the moment they were last shown.
    shown: (i64, Timestamp),
    /// The last rise and fall seen, by how often the lead has been in.
    seen: (u64, u64),
    hot_delivered: u64,
}

/// What was told so far.
#[derive(Debug, Default)]
pub(super) struct Story {
    courses: BTreeMap<LeadId, Course>,
    early: Vec<(Timestamp, Message)>,
    stitched: bool,
    told: u64,
    unverified: u32,
}

impl Story {
    /// How many leads were hot and cooled again, both with a verified message.
    pub(super) fn told(&self) -> u64 {
        self.told
    }

    /// How many messages did not pass the receiver's check.
    pub(super) fn unverified(&self) -> u32 {
        self.unverified
    }

    /// What has not happened yet.
    pub(super) fn missing(&self) -> Vec<Missing> {
        let delivered = self.courses.values().any(|course| course.hot_delivered > 0);
        let parts = [
            (self.stitched, Missing::Stitched),
            (!self.courses.is_empty(), Missing::Hot),
            (delivered, Missing::HotDelivered),
            (self.told > 0, Missing::CooledDelivered),
        ];
        parts.into_iter().filter(|(seen, _)| !seen).map(|(_, part)| part).collect()
    }

    /// A committed record.
    pub(super) fn sight(&mut self, sight: &Sight) -> Vec<Line> {
        let mut lines = Vec::new();
        let who = who(sight);
        if !sight.what.is_empty() {
            lines.extend(hit_lines(sight, &who));
        }
        if let Some(hits) = sight.stitched {
            self.stitched = true;
            lines.push(stitched_line(sight, &who, hits));
        }
        for crossing in &sight.crossings {
            if let Some(lead) = sight.lead {
                lines.extend(self.crossing(sight, lead, &who, crossing));
            }
        }
        if let Some(course) = sight.lead.and_then(|lead| self.courses.get_mut(&lead)) {
            course.shown = (sight.score.unwrap_or(course.shown.0), sight.at);
        }
        for (at, message) in std::mem::take(&mut self.early) {
            lines.extend(self.message(at, message));
        }
        lines
    }

    fn crossing(
        &mut self,
        sight: &Sight,
        lead: LeadId,
        who: &str,
        crossing: &Crossing,
    ) -> Option<Line> {
        let note = |text, tone| Some(Line::Note { at: sight.at, text, tone });
        let rises = crossing.direction != Direction::Fall;
        if crossing.threshold != HOT {
            let text = format!("{who} is {}", crossing.threshold);
            return rises.then_some(Line::Note { at: sight.at, text, tone: Tone::Plain });
        }
        let course = self.courses.entry(lead).or_default();
        who.clone_into(&mut course.who);
        course.inside = rises;
        let score = crossing.score;
        if crossing.told && rises {
            course.seen.0 = crossing.number;
            note(format!("HOT: {who}, {score} points; a signed message to sales leaves"), Tone::Hot)
        } else if crossing.told {
            course.seen.1 = crossing.number;
            note(format!("COOLED: {who}, {score} points; no visit was needed"), Tone::Cooled)
        } else if rises {
            note(
                format!("HOT again: {who}; so soon after the last message this one waits"),
                Tone::Hot,
            )
        } else {
            note(
                format!("{who} cooled before the waiting message left; it is dropped"),
                Tone::Cooled,
            )
        }
    }

    /// A message at the receiver.
    pub(super) fn delivery(&mut self, delivery: Delivery) -> Vec<Line> {
        let at = delivery.at;
        match delivery.message {
            Ok(message) => self.message(at, message),
            Err(why) => {
                self.unverified += 1;
                let why = match why {
                    Unbelievable::Signature(error) => error.to_string(),
                    Unbelievable::Content => "signed, but no message".to_owned(),
                };
                let text = format!("a message is NOT VERIFIED and refused: {why}");
                vec![Line::Note { at, text, tone: Tone::Bad }]
            }
        }
    }

    fn message(&mut self, at: Timestamp, message: Message) -> Vec<Line> {
        let course = LeadId::parse(&message.lead).and_then(|lead| self.courses.get_mut(&lead));
        let rises = message.kind == "lead.hot";
        let seen =
            course.as_ref().map_or(0, |course| if rises { course.seen.0 } else { course.seen.1 });
        let Some(course) = course.filter(|_| seen >= message.number) else {
            if self.early.len() < EARLY_MAX {
                self.early.push((at, message));
            }
            return Vec::new();
        };
        let since = if rises { "the click" } else { "falling below the line" };
        if rises {
            course.hot_delivered = message.number;
        } else if course.hot_delivered == message.number {
            self.told += 1;
        }
        let Message { kind, after_ms, headline, .. } = message;
        let text = format!("{kind} delivered, signature verified, {after_ms} ms after {since}");
        vec![
            Line::Note { at, text, tone: Tone::Delivered },
            Line::Note { at, text: format!("  it says: {headline}"), tone: Tone::Quiet },
        ]
    }

    /// Hot leads that nothing was heard of for a while: their scores fade all the same.
    pub(super) fn fading(
        &mut self,
        now: Timestamp,
        score: impl Fn(LeadId) -> Option<i64>,
    ) -> Vec<Line> {
        let mut lines = Vec::new();
        for (lead, course) in &mut self.courses {
            if !course.inside || now.since(course.shown.1) < FADING_EVERY {
                continue;
            }
            let Some(score) = score(*lead).filter(|score| *score < course.shown.0) else {
                continue;
            };
            let worth = format!("{} interest fades", score - course.shown.0);
            course.shown = (score, now);
            lines.push(Line::Hit {
                at: now,
                who: course.who.clone(),
                what: "(no visit)".to_owned(),
                worth,
                score: Some(score),
                tone: Tone::Quiet,
            });
        }
        lines
    }
}

/// A simulated visitor could not go on.
pub(super) fn trouble(at: Timestamp, why: &str) -> Line {
    Line::Note { at, text: format!("a visitor could not go on: {why}"), tone: Tone::Bad }
}

/// A line for the hit, and one more for each further rule that it met.
fn hit_lines(sight: &Sight, who: &str) -> Vec<Line> {
    let (mut worths, tone) = match &sight.worth {
        Worth::Rows(rows) => {
            let shown = rows.iter().map(|(points, why)| format!("{points:+} {why}"));
            (shown.collect(), if rows.is_empty() { Tone::Quiet } else { Tone::Plain })
        }
        Worth::First => (vec!["new: counts when it returns".to_owned()], Tone::Quiet),
        Worth::Excluded(why) => {
            let why = match why {
                Exclusion::Robot => "a robot",
                Exclusion::Network => "our own network",
                Exclusion::Path => "an excluded page",
                Exclusion::EmailDomain => "an excluded domain",
                Exclusion::Scanner => "a mail scanner",
                Exclusion::Forwarded => "a forwarded link",
                Exclusion::Guest => "a guest on a shared browser",
                Exclusion::Erased => "from before the person was erased",
            };
            (vec![format!("no points: {why}")], Tone::Quiet)
        }
    };
    if worths.is_empty() {
        worths.push(String::new());
    }
    let last = worths.len() - 1;
    let line = |(index, worth)| Line::Hit {
        at: sight.at,
        who: if index == 0 { who.to_owned() } else { String::new() },
        what: if index == 0 { sight.what.clone() } else { String::new() },
        worth,
        score: sight.score.filter(|_| index == last),
        tone,
    };
    worths.into_iter().enumerate().map(line).collect()
}

fn stitched_line(sight: &Sight, who: &str, hits: u32) -> Line {
    let Known { company, title, .. } = &sight.person;
    let about: Vec<&str> =
        [who, title, company].into_iter().filter(|text| !text.is_empty()).collect();
    let browser = sight.visitor.map_or_else(|| "that browser".to_owned(), short);
    let came = if hits == 1 {
        "1 earlier hit came along".to_owned()
    } else {
        format!("{hits} earlier hits came along")
    };
    let text = format!("{browser} is {}: {came}", about.join(", "));
    Line::Note { at: sight.at, text, tone: Tone::Known }
}

fn short(visitor: VisitorId) -> String {
    format!("browser {:06x}", visitor.0 >> 104)
}

/// How the story calls somebody.
fn who(sight: &Sight) -> String {
    let Known { name, email, .. } = &sight.person;
    let reading = reading(email).filter(|_| !name.is_ascii());
    match (sight.lead, sight.visitor) {
        _ if sight.worth == Worth::Excluded(Exclusion::Robot) => "robot".to_owned(),
        (Some(_), _) if !name.is_empty() => match reading {
            Some(reading) => format!("{name} {reading}"),
            None => name.clone(),
        },
        (Some(_), _) if !email.is_empty() => email.clone(),
        (Some(lead), _) => lead.to_string(),
        (None, Some(visitor)) => short(visitor),
        (None, None) => "-".to_owned(),
    }
}

/// Latin letters for whoever cannot read the name, as far as the address gives them away.
fn reading(email: &str) -> Option<String> {
    let (local, _) = email.split_once('@')?;
    let (given, family) = local.split_once('.')?;
    let capital = |word: &str| {
        let letters = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
        letters.then(|| word[..1].to_uppercase() + &word[1..])
    };
    Some(format!("{} {}", capital(given)?, capital(family)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_790_000_000_000);
    const LEAD: LeadId = LeadId(0x11);

    fn known() -> Known {
        let (name, email) = ("田中 恵".to_owned(), "megumi.tanaka@reiji.example".to_owned());
        Known { name, email, company: "例示製作所".into(), title: "課長".into() }
    }

    fn sight(crossings: Vec<Crossing>) -> Sight {
        Sight {
            at: NOW,
            visitor: Some(VisitorId(0xabcd_ef01 << 96)),
            lead: Some(LEAD),
            person: known(),
            what: "/pricing 料金".into(),
            worth: Worth::Rows(vec![(12, "Viewed pricing".into())]),
            score: Some(72),
            crossings,
            ..Sight::default()
        }
    }

    fn crossing(direction: Direction) -> Crossing {
        Crossing { threshold: HOT.into(), direction, number: 1, score: 72, told: true }
    }

    fn delivery(kind: &str) -> Delivery {
        let message = Message {
            kind: kind.into(),
            lead: LEAD.to_string(),
            number: 1,
            headline: "【ホット】".into(),
            after_ms: 14,
        };
        Delivery { at: NOW, message: Ok(message) }
    }

    fn notes(lines: &[Line]) -> Vec<&str> {
        lines
            .iter()
            .filter_map(|line| match line {
                Line::Note { text, .. } => Some(text.as_str()),
                Line::Hit { .. } => None,
            })
            .collect()
    }

    #[test]
    fn a_story_is_told_when_the_same_lead_was_hot_and_cooled_and_both_were_verified() {
        let mut story = Story::default();
        story.sight(&Sight { stitched: Some(6), ..sight(vec![]) });
        assert_eq!(
            story.missing(),
            [Missing::Hot, Missing::HotDelivered, Missing::CooledDelivered]
        );
        story.sight(&sight(vec![crossing(Direction::Rise)]));
        let lines = story.delivery(delivery("lead.hot"));
        assert_eq!(
            notes(&lines)[0],
            "lead.hot delivered, signature verified, 14 ms after the click"
        );
        assert_eq!((story.told(), story.missing()), (0, vec![Missing::CooledDelivered]));
        story.sight(&sight(vec![crossing(Direction::Fall)]));
        story.delivery(delivery("lead.cooled"));
        assert_eq!((story.told(), story.missing()), (1, vec![]));
    }

    #[test]
    fn a_message_that_is_early_waits_for_its_cause() {
        let mut story = Story::default();
        assert_eq!(story.delivery(delivery("lead.hot")), []);
        let lines = story.sight(&sight(vec![crossing(Direction::Rise)]));
        let notes = notes(&lines);
        assert!(notes[0].starts_with("HOT: 田中 恵 Megumi Tanaka, 72 points"), "{notes:?}");
        assert!(notes[1].starts_with("lead.hot delivered"), "{notes:?}");
    }

    #[test]
    fn a_message_that_cooled_without_a_hot_one_tells_no_story() {
        let mut story = Story::default();
        story.sight(&sight(vec![crossing(Direction::Rise)]));
        story.sight(&sight(vec![crossing(Direction::Fall)]));
        story.delivery(delivery("lead.cooled"));
        assert_eq!(story.told(), 0);
    }

    #[test]
    fn a_browser_that_becomes_a_person_says_how_many_hits_came_along() {
        let lines = Story::default().sight(&Sight { stitched: Some(6), ..sight(vec![]) });
        let expected =
            "browser abcdef is 田中 恵 Megumi Tanaka, 課長, 例示製作所: 6 earlier hits came along";
        assert_eq!(notes(&lines), [expected]);
    }

    #[test]
    fn each_rule_has_its_line_and_the_score_stands_behind_the_last() {
        let rows = vec![(12, "Viewed pricing".into()), (-4, "Left".into())];
        let lines = Story::default().sight(&Sight { worth: Worth::Rows(rows), ..sight(vec![]) });
        let shown: Vec<(&str, Option<i64>)> = lines
            .iter()
            .filter_map(|line| match line {
                Line::Hit { worth, score, .. } => Some((worth.as_str(), *score)),
                Line::Note { .. } => None,
            })
            .collect();
        assert_eq!(shown, [("+12 Viewed pricing", None), ("-4 Left", Some(72))]);
    }

    #[test]
    fn what_is_not_verified_is_counted_and_shown() {
        let mut story = Story::default();
        let message = Err(Unbelievable::Content);
        let lines = story.delivery(Delivery { at: NOW, message });
        assert_eq!(story.unverified(), 1);
        assert!(matches!(lines[..], [Line::Note { tone: Tone::Bad, .. }]));
    }

    #[test]
    fn a_hot_lead_nobody_hears_of_is_seen_to_fade() {
        let mut story = Story::default();
        story.sight(&sight(vec![crossing(Direction::Rise)]));
        assert_eq!(story.fading(NOW.plus(Duration::from_secs(3)), |_| Some(60)), []);
        let lines = story.fading(NOW.plus(FADING_EVERY), |_| Some(60));
        let [Line::Hit { worth, score: Some(60), .. }] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!(worth, "-12 interest fades");
    }

    #[test]
    fn a_name_is_read_out_only_where_the_address_gives_it_away() {
        assert_eq!(reading("megumi.tanaka@a.example").as_deref(), Some("Megumi Tanaka"));
        assert_eq!(reading("info@a.example"), None);
        assert_eq!(reading("a.b2@a.example"), None);
        assert_eq!(reading(""), None);
    }
}
