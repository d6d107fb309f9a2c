//! Facts about a person that keep messages from being silly: read from the attributes of these
//! names, whoever set them.

use std::collections::BTreeSet;

use engine::attribute::{Attributes, value_of};
use engine::time::Timestamp;

use crate::ingest::fact::EVENTS_MAX;

/// What sales should know before it writes or calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Until when they try the product, as it was written: a day or a moment.
    pub trial_until: Option<String>,
    /// Events that they are registered for.
    pub registered_events: Vec<String>,
    /// Whether they are a customer.
    pub customer: bool,
    /// A deal with them that is open.
    pub open_deal: Option<String>,
}

/// Reads the facts as they are now.
pub fn facts(attributes: &Attributes, now: Timestamp) -> Facts {
    let text = |name: &str| value_of(attributes, name).map(str::trim);
    let trial = text("trial_until").filter(|text| trial_end(text).is_some_and(|end| now < end));
    let events = lines(attributes, "registered_events").take(EVENTS_MAX);
    Facts {
        trial_until: trial.map(str::to_owned),
        registered_events: events.map(str::to_owned).collect(),
        customer: text("customer") == Some("yes"),
        open_deal: text("open_deal").map(str::to_owned),
    }
}

/// The audiences that are not to hear of a person.
pub fn do_not_send(attributes: &Attributes) -> BTreeSet<&str> {
    lines(attributes, "do_not_send").collect()
}

/// The lines of a value, without those that say nothing.
fn lines<'a>(attributes: &'a Attributes, name: &str) -> impl Iterator<Item = &'a str> {
    let value = value_of(attributes, name).unwrap_or_default();
    value.lines().map(str::trim).filter(|line| !line.is_empty())
}

/// When a trial ends: at a moment, or with a day, wherever on earth that day ends last.
fn trial_end(text: &str) -> Option<Timestamp> {
    let millis = if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        moment.as_millisecond()
    } else {
        let day: jiff::civil::Date = text.parse().ok().filter(|_| text.len() == 10)?;
        let last = jiff::tz::Offset::from_hours(-12).ok()?;
        let end = day.tomorrow().ok()?.at(0, 0, 0, 0);
        last.to_timestamp(end).ok()?.as_millisecond()
    };
    Some(Timestamp(u64::try_from(millis).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(words: &[(&str, &str)]) -> Attributes {
        words.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn of(words: &[(&str, &str)]) -> Facts {
        let now: jiff::Timestamp = "2026-12-07T00:00:00Z".parse().unwrap();
        facts(&attributes(words), Timestamp(now.as_millisecond() as u64))
    }

    #[test]
    fn nothing_is_known_of_whom_nothing_was_said() {
        assert_eq!(of(&[]), Facts::default());
        let taken_back = ["trial_until", "registered_events", "customer", "open_deal"];
        assert_eq!(of(&taken_back.map(|name| (name, ""))), Facts::default());
    }

    #[test]
    fn a_trial_is_shown_while_it_lasts() {
        let shown = |text: &str| of(&[("trial_until", text)]).trial_until.is_some();
        for text in
            ["2026-12-31", "2026-12-06", "2026-12-07T00:00:01Z", "2026-12-07T10:00:00+09:00"]
        {
            assert!(shown(text), "{text}");
        }
        for text in ["2026-12-05", "2026-12-07T00:00:00Z", "soon", "2026-13-01", "20261231"] {
            assert!(!shown(text), "{text}");
        }
    }

    #[test]
    fn the_other_facts_are_read_as_they_are_written() {
        let said = [
            ("registered_events", "春の展示会, 東京\nDX Summit"),
            ("customer", "yes"),
            ("open_deal", "SFA-3: 20 seats"),
        ];
        let facts = of(&said);
        assert_eq!(facts.registered_events, ["春の展示会, 東京", "DX Summit"]);
        assert!(facts.customer && !of(&[("customer", "no")]).customer);
        assert_eq!(facts.open_deal.as_deref(), Some("SFA-3: 20 seats"));
        let silent = attributes(&[("do_not_send", "mailer\nhr")]);
        assert_eq!(do_not_send(&silent), ["hr", "mailer"].into());
    }
}
