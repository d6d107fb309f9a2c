//! Messages that would be silly, by what is known of the person. They are queued for nobody, and
//! the journal says which fact held them back: nothing disappears in silence.

use std::collections::BTreeSet;

use engine::alert::AlertKind;
use engine::attribute::folded;
use engine::facts::Profile;
use engine::hit::Hit;
use engine::id::Position;
use engine::record::{Body, Message, NameKind, Record, Step};
use engine::stage::FeedbackKind;
use serde::{Deserialize, Serialize};

use super::book::Book;
use super::message::Material;
use crate::config::{DoNotSend, Endpoint};
use crate::facts::{do_not_send, facts};
use crate::ingest::fact::MAILER;

/// Somebody who tries the product already.
const TRIAL: &str = "trial";
/// Somebody who is registered for the event already.
const REGISTERED_EVENTS: &str = "registered_events";
/// Somebody whom the audience is not to write to.
const DO_NOT_SEND: &str = "do_not_send";
/// All that hold messages back.
pub const REASONS: [&str; 3] = [TRIAL, REGISTERED_EVENTS, DO_NOT_SEND];

/// What held a message back, and from whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldBack {
    /// The fact: `trial`, `registered_events`, `do_not_send`.
    pub by: String,
    /// Whether from everybody, also from those who pull.
    pub everybody: bool,
    /// Who would have been told.
    pub endpoints: Vec<String>,
}

impl HeldBack {
    /// The fact, if it held it back from everybody.
    pub fn from_everybody(&self) -> Option<&'static str> {
        REASONS.into_iter().find(|by| self.everybody && *by == self.by)
    }
}

/// A message about somebody, where it is decided who is told.
pub struct Case<'a> {
    /// What it is made of.
    pub material: &'a Material<'a>,
    /// Where its record is.
    pub position: Position,
}

/// Why a message is held back, and from whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The fact: one of [`REASONS`].
    pub by: &'static str,
    /// From endpoints of these audiences and no others; nothing: from everybody.
    only: Option<BTreeSet<String>>,
}

impl Hold {
    fn from_all(by: &'static str) -> Hold {
        Hold { by, only: None }
    }

    /// Whether it is held back from everybody.
    pub fn is_from_all(&self) -> bool {
        self.only.is_none()
    }

    /// Whether it is held back from an endpoint.
    pub fn is_from(&self, endpoint: &Endpoint) -> bool {
        let theirs = &endpoint.audience;
        self.only.as_ref().is_none_or(|only| !theirs.is_empty() && theirs.is_subset(only))
    }
}

impl Case<'_> {
    /// Why the message is held back, if it is. `list`: who is not to be written to; `book`: what
    /// was told so far.
    pub fn hold(&self, list: &DoNotSend, book: &Book) -> Option<Hold> {
        let Material { message, cause, .. } = self.material;
        let known = match message.kind {
            AlertKind::Reminder => self.reminds_of_nothing(),
            // What nobody heard need not be taken back.
            AlertKind::Retracted => {
                let back = self.material.retracts.as_ref();
                back.and_then(|alert| book.held_by(alert.as_str()))
            }
            _ => self.is_known_already(message, (cause, self.position)),
        };
        if let Some(by) = known {
            return Some(Hold::from_all(by));
        }
        let deaf = self.deaf(list);
        // What was told wrongly is put right all the same.
        if deaf.is_empty() || message.kind == AlertKind::Retracted {
            return None;
        }
        Some(match &message.audience {
            Some(told) if deaf.contains(told) => Hold::from_all(DO_NOT_SEND),
            _ => Hold { by: DO_NOT_SEND, only: Some(deaf) },
        })
    }

    /// Whether it tells at once what was known before: a trial of somebody on trial, an event of
    /// somebody registered for it. One that also says that the lead rose says something new.
    fn is_known_already(
        &self,
        message: &Message,
        (record, position): (&Record, Position),
    ) -> Option<&'static str> {
        let told = &message.told;
        let news = message.kind != AlertKind::Action || !message.also.is_empty();
        let because = told.because.filter(|_| !news)?;
        let rule = self.material.catalog.name(NameKind::Rule, because.rule.0)?;
        // By what was known when it was decided on, so that a restart decides the same; and
        // without what its own record says: that is the news.
        let before = |said: &&engine::facts::Said| said.position < position;
        let known = Profile::of(self.material.lead.content.said.iter().filter(before)).attributes;
        let facts = facts(&known, told.at);
        if is_about(rule, "trial") && facts.trial_until.is_some() {
            return Some(TRIAL);
        }
        let events: BTreeSet<String> =
            facts.registered_events.iter().map(|it| folded(it)).collect();
        let hit = hits_of(record).find(|hit| hit.when == because.at);
        let registered = is_about(rule, "event") && hit.is_some_and(|hit| names_one(hit, &events));
        registered.then_some(REGISTERED_EVENTS)
    }

    /// Whether all that sales is reminded of was held back: nobody can take what nobody heard.
    fn reminds_of_nothing(&self) -> Option<&'static str> {
        let mut reason = None;
        for (position, record) in self.material.timeline.range(..self.position).rev() {
            let answered = match &record.body {
                Body::Step(step) => match &step.step {
                    Step::Feedback(feedback) => feedback.kind != FeedbackKind::Snooze,
                    _ => false,
                },
                _ => false,
            };
            if answered {
                break;
            }
            let messages = record.lead_part().map_or(&[][..], |part| &part.messages);
            if messages.iter().any(|it| it.kind == AlertKind::Reminder) {
                break;
            }
            for message in messages.iter().filter(|it| it.told.asks.is_some()) {
                reason = Some(self.is_known_already(message, (record, *position))?);
            }
        }
        reason
    }

    /// The audiences that are not to hear of the person.
    fn deaf(&self, list: &DoNotSend) -> BTreeSet<String> {
        let said = do_not_send(self.material.attributes);
        let mut deaf: BTreeSet<String> = said.into_iter().map(str::to_owned).collect();
        let mut said = self.material.lead.content.said.iter();
        if said.any(|said| said.attributes.get("email").is_some_and(|mail| list.holds(mail))) {
            deaf.insert(MAILER.to_owned());
        }
        deaf
    }
}

/// Whether a rule is about something: it is called so, alone or with more words behind it.
fn is_about(rule: &str, word: &str) -> bool {
    let rest = rule.strip_prefix(word);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['_', '-', '.']))
}

fn hits_of(record: &Record) -> impl Iterator<Item = &Hit> {
    let record = match &record.body {
        Body::Hit(record) => Some(record),
        _ => None,
    };
    record.into_iter().flat_map(|record| {
        let first = record.first.as_ref().map(|first| &first.hit);
        [Some(&record.hit), first].into_iter().flatten()
    })
}

/// Whether a hit names one of some events: in a part of its path, in a property, or as its title.
fn names_one(hit: &Hit, events: &BTreeSet<String>) -> bool {
    let values = hit.properties.iter().map(|(_, value)| value.as_str());
    let mut named = hit.path.split('/').chain(values).chain([hit.title.as_str()]);
    named.any(|name| events.contains(&folded(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_about_what_it_is_called_by() {
        for (rule, is) in [("trial", true), ("trial_pro", true), ("trial.pro", true)] {
            assert_eq!(is_about(rule, "trial"), is, "{rule}");
        }
        for rule in ["trials", "industrial", "free_trial", ""] {
            assert!(!is_about(rule, "trial"), "{rule}");
        }
    }

    #[test]
    fn an_event_is_named_by_its_page_a_property_or_the_title() {
        let events = [folded("Spring 2026"), folded("展示会")].into();
        let path = |path: &str| Hit { path: path.into(), ..Hit::default() };
        assert!(names_one(&path("/thanks/event/spring 2026"), &events));
        assert!(names_one(&path("/展示会/ok"), &events));
        assert!(!names_one(&path("/thanks/event/autumn"), &events));
        assert!(!names_one(&path("/thanks/event/spring 20260"), &events));
        let titled = Hit { title: " ＳＰＲＩＮＧ 2026".into(), ..Hit::default() };
        assert!(names_one(&titled, &events));
        let properties = vec![("event".to_owned(), "展示会".to_owned())];
        assert!(names_one(&Hit { properties, ..Hit::default() }, &events));
        assert!(!names_one(&path(""), &BTreeSet::new()));
    }
}
