//! Facts that keep messages from being silly: a trial, a registration, a customer, a deal, who
//! is not to be written to. They are attributes whose values mean something to the machine, so
//! each has one canonical text; and only servers of ours state them.

use engine::hit::VALUE_BYTES_MAX;
use engine::time::Timestamp;
use serde_json::Value;

use crate::outbox::message::iso;

/// Most events that one person may be registered for.
pub const EVENTS_MAX: usize = 32;
/// Longest name of an event, in bytes.
pub const EVENT_BYTES_MAX: usize = 100;
/// Most audiences that are not to hear of one person.
const AUDIENCES_MAX: usize = 16;
/// Longest name of an audience, in bytes.
const AUDIENCE_BYTES_MAX: usize = 64;
/// The audience that `do_not_send: true` means: who writes to many.
pub const MAILER: &str = "mailer";
/// A smaller number of milliseconds would lie before 1974: it is no moment, but a day or a year
/// written without dashes.
const MOMENT_MS_MIN: u64 = 100_000_000_000;

/// One of the facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fact {
    /// Until when they try the product: a day or a moment.
    TrialUntil,
    /// The events that they are registered for, one a line.
    RegisteredEvents,
    /// Whether they are a customer.
    Customer,
    /// A deal with them that is open.
    OpenDeal,
    /// The audiences that are not to hear of them, one a line.
    DoNotSend,
}

impl Fact {
    /// All of them.
    pub const ALL: [Fact; 5] =
        [Fact::TrialUntil, Fact::RegisteredEvents, Fact::Customer, Fact::OpenDeal, Fact::DoNotSend];

    /// The attribute.
    pub fn name(self) -> &'static str {
        match self {
            Fact::TrialUntil => "trial_until",
            Fact::RegisteredEvents => "registered_events",
            Fact::Customer => "customer",
            Fact::OpenDeal => "open_deal",
            Fact::DoNotSend => "do_not_send",
        }
    }

    /// The field of a hit that states it.
    pub fn field(self) -> &'static str {
        match self {
            Fact::TrialUntil => "id.attributes.trial_until",
            Fact::RegisteredEvents => "id.attributes.registered_events",
            Fact::Customer => "id.attributes.customer",
            Fact::OpenDeal => "id.attributes.open_deal",
            Fact::DoNotSend => "id.attributes.do_not_send",
        }
    }

    /// The canonical text of what is stated; empty if that takes back whatever was stated
    /// before; nothing if it cannot be read.
    pub fn read(self, said: &Value) -> Option<String> {
        match (self, said) {
            (_, Value::Null) => Some(String::new()),
            (Fact::TrialUntil, said) => trial_until(said),
            (Fact::RegisteredEvents, Value::Array(events)) => {
                lines(events, EVENTS_MAX, |event| plain(event, EVENT_BYTES_MAX))
            }
            (Fact::RegisteredEvents, said) => plain(said, EVENT_BYTES_MAX),
            (Fact::Customer, said) => {
                let word = if yes_or_no(said)? { "yes" } else { "no" };
                Some(word.to_owned())
            }
            (Fact::OpenDeal, said) => plain(said, VALUE_BYTES_MAX),
            (Fact::DoNotSend, Value::Array(audiences)) => lines(audiences, AUDIENCES_MAX, audience),
            (Fact::DoNotSend, said) => match yes_or_no(said) {
                Some(true) => Some(MAILER.to_owned()),
                Some(false) => Some(String::new()),
                None => audience(said),
            },
        }
    }
}

/// Takes the facts out of what is said of a person, each in canonical form if it can be read.
pub fn take(attributes: &mut Value) -> Vec<(Fact, Option<String>)> {
    let Value::Object(attributes) = attributes else {
        return Vec::new();
    };
    let stated = Fact::ALL.into_iter().filter_map(|fact| {
        let said = attributes.remove(fact.name())?;
        Some((fact, fact.read(&said)))
    });
    stated.collect()
}

/// A text, or a number that stands for one, without blanks around it.
fn plain(said: &Value, bytes_max: usize) -> Option<String> {
    let text = match said {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let fits = text.len() <= bytes_max && !text.chars().any(char::is_control);
    fits.then_some(text)
}

/// Several texts, one a line, each once. None of them may be empty.
fn lines(said: &[Value], most: usize, read: impl Fn(&Value) -> Option<String>) -> Option<String> {
    if said.len() > most {
        return None;
    }
    let mut lines: Vec<String> = Vec::new();
    for one in said {
        let line = read(one).filter(|line| !line.is_empty())?;
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    Some(lines.join("\n"))
}

fn audience(said: &Value) -> Option<String> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let name = plain(said, AUDIENCE_BYTES_MAX).filter(|_| said.is_string())?;
    name.bytes().all(fine).then_some(name)
}

fn yes_or_no(said: &Value) -> Option<bool> {
    match said {
        Value::Bool(flag) => Some(*flag),
        Value::Number(number) => match number.as_u64() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        },
        Value::String(text) => match text.trim() {
            "yes" | "true" | "1" => Some(true),
            "no" | "false" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// A day as `2026-12-31`, or a moment with its offset or in milliseconds.
fn trial_until(said: &Value) -> Option<String> {
    let millis = |millis: u64| {
        let moment = jiff::Timestamp::from_millisecond(i64::try_from(millis).ok()?).ok()?;
        (millis >= MOMENT_MS_MIN).then(|| iso(Timestamp(moment.as_millisecond() as u64)))
    };
    let text = match said {
        Value::Number(number) => return millis(number.as_u64()?),
        Value::String(text) => text.trim(),
        _ => return None,
    };
    if text.is_empty() {
        return Some(String::new());
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return millis(text.parse().ok()?);
    }
    if text.len() == "2026-12-31".len() {
        let day: jiff::civil::Date = text.parse().ok()?;
        return (day.year() >= 1970).then(|| day.to_string());
    }
    let moment: jiff::Timestamp = text.parse().ok()?;
    millis(u64::try_from(moment.as_millisecond()).ok()?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "callers write it in place")]
    fn reads(fact: Fact, said: Value, text: &str) {
        assert_eq!(fact.read(&said).as_deref(), Some(text), "{said}");
    }

    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "callers write it in place")]
    fn refuses(fact: Fact, said: Value) {
        assert_eq!(fact.read(&said), None, "{said}");
    }

    #[test]
    fn null_takes_back_what_was_stated() {
        for fact in Fact::ALL {
            reads(fact, Value::Null, "");
        }
        reads(Fact::RegisteredEvents, json!([]), "");
        reads(Fact::DoNotSend, json!([]), "");
        reads(Fact::OpenDeal, json!(" "), "");
        reads(Fact::TrialUntil, json!(""), "");
    }

    #[test]
    fn a_trial_ends_with_a_day_or_at_a_moment() {
        let until = |said, text| reads(Fact::TrialUntil, said, text);
        until(json!("2026-12-31"), "2026-12-31");
        until(json!("2026-12-31T18:00:00+09:00"), "2026-12-31T09:00:00.000Z");
        until(json!("2026-12-31T09:00:00Z"), "2026-12-31T09:00:00.000Z");
        until(json!(1_796_601_360_000_u64), "2026-12-06T23:56:00.000Z");
        until(json!("1796601360000"), "2026-12-06T23:56:00.000Z");
        for no in [
            json!("soon"),
            json!("2026-02-30"),
            json!("2026-12-31T18:00:00"),
            json!("20261231"),
            json!(20_261_231),
            json!(-1),
            json!("1969-12-31"),
            json!("1969-12-31T00:00:00Z"),
            json!(u64::MAX),
            json!(1.5),
            json!(true),
            json!(["2026-12-31"]),
            json!({}),
        ] {
            refuses(Fact::TrialUntil, no);
        }
    }

    #[test]
    fn events_are_names_one_a_line_and_each_once() {
        let events = |said, text| reads(Fact::RegisteredEvents, said, text);
        events(json!(["spring", " 展示会, 東京 ", "spring", 7]), "spring\n展示会, 東京\n7");
        events(json!("spring"), "spring");
        let many = |count: usize| json!((0..count).map(|n| format!("e{n}")).collect::<Vec<_>>());
        assert!(Fact::RegisteredEvents.read(&many(EVENTS_MAX)).is_some());
        for no in [
            many(EVENTS_MAX + 1),
            json!([""]),
            json!(["a\nb"]),
            json!("a\nb"),
            json!("x".repeat(EVENT_BYTES_MAX + 1)),
            json!(["x".repeat(EVENT_BYTES_MAX + 1)]),
            json!([["a"]]),
            json!([null]),
            json!(true),
            json!({ "a": 1 }),
        ] {
            refuses(Fact::RegisteredEvents, no);
        }
    }

    #[test]
    fn a_customer_is_one_or_is_not() {
        for yes in [json!(true), json!("yes"), json!("true"), json!(1), json!(" 1 ")] {
            reads(Fact::Customer, yes, "yes");
        }
        for no in [json!(false), json!("no"), json!("false"), json!(0), json!("0")] {
            reads(Fact::Customer, no, "no");
        }
        for neither in [json!("ACME"), json!(2), json!(""), json!([]), json!({}), json!("Ja")] {
            refuses(Fact::Customer, neither);
        }
    }

    #[test]
    fn a_deal_has_a_name_and_a_flag_is_none() {
        reads(Fact::OpenDeal, json!(" SFA-3: 20 seats "), "SFA-3: 20 seats");
        reads(Fact::OpenDeal, json!(1042), "1042");
        reads(Fact::OpenDeal, json!("x".repeat(VALUE_BYTES_MAX)), &"x".repeat(VALUE_BYTES_MAX));
        for no in [json!(false), json!([]), json!("a\u{7}"), json!("x".repeat(513))] {
            refuses(Fact::OpenDeal, no);
        }
    }

    #[test]
    fn do_not_send_holds_for_the_mailer_unless_it_says_for_whom() {
        let heard = |said, text| reads(Fact::DoNotSend, said, text);
        heard(json!(true), "mailer");
        heard(json!("yes"), "mailer");
        heard(json!(false), "");
        heard(json!(["mailer", "hr", "mailer"]), "mailer\nhr");
        heard(json!("hr"), "hr");
        for no in [json!(["h r"]), json!("営業"), json!(2), json!({}), json!(vec!["a"; 17])] {
            refuses(Fact::DoNotSend, no);
        }
    }

    #[test]
    fn facts_are_taken_out_and_the_rest_stays() {
        let mut said = json!({ "name": "A", "customer": true, "trial_until": "soon" });
        let taken = take(&mut said);
        assert_eq!(taken, [(Fact::TrialUntil, None), (Fact::Customer, Some("yes".into()))]);
        assert_eq!(said, json!({ "name": "A" }));
        assert_eq!(take(&mut json!(7)), []);
    }
}
