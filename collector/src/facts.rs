//! Facts about a person that keep messages from being silly: read from the attributes of these
//! names, whoever set them.

use engine::attribute::{Attributes, value_of};
use engine::time::Timestamp;

/// Most events listed.
const EVENTS_MAX: usize = 32;

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
    let events = text("registered_events").unwrap_or_default().split([',', '、', '\n']);
    let events = events.map(str::trim).filter(|event| !event.is_empty()).take(EVENTS_MAX);
    let customer = text("customer")
        .is_some_and(|word| ["yes", "true", "1"].iter().any(|yes| word.eq_ignore_ascii_case(yes)));
    Facts {
        trial_until: trial.map(str::to_owned),
        registered_events: events.map(str::to_owned).collect(),
        customer,
        open_deal: text("open_deal").map(str::to_owned),
    }
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

    fn of(words: &[(&str, &str)]) -> Facts {
        let words = words.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let now: jiff::Timestamp = "2026-12-07T00:00:00Z".parse().unwrap();
        facts(&words.collect(), Timestamp(now.as_millisecond() as u64))
    }

    #[test]
    fn nothing_is_known_of_whom_nothing_was_said() {
        assert_eq!(of(&[]), Facts::default());
        let empty = [
            ("trial_until", ""),
            ("registered_events", " , "),
            ("customer", ""),
            ("open_deal", ""),
        ];
        assert_eq!(of(&empty), Facts::default());
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
        let facts = of(&[
            ("registered_events", "春の展示会, DX Summit\n秋"),
            ("customer", "Yes"),
            ("open_deal", "SFA-3: 20 seats"),
        ]);
        assert_eq!(facts.registered_events, ["春の展示会", "DX Summit", "秋"]);
        assert!(facts.customer);
        assert_eq!(facts.open_deal.as_deref(), Some("SFA-3: 20 seats"));
        assert!(!of(&[("customer", "no")]).customer);
    }
}
