//! What a request asks for, read strictly. What is not said, or is null, is absent; a value of
//! another type, a word nobody knows and a field nobody reads are refused by name. A step must
//! never do more than was asked because a restriction was written wrongly.

use engine::id::{LeadId, Position, VisitorId};
use engine::time::Timestamp;
use serde_json::{Map, Value};

use super::{Refusal, parse_time};

/// The longest list of a request: cards, people of a mail.
pub(super) const LIST_MAX: usize = 10_000;
/// Values in one request, lists and objects counted: a byte of text can be a value of thirty.
const VALUES_MAX: usize = 1_000_000;

/// The fields of a request's object.
#[derive(Debug)]
pub(super) struct Wish(Map<String, Value>);

impl Wish {
    /// Reads a body that may say these fields and no others. No body says nothing.
    pub(super) fn read(body: &[u8], known: &[&str]) -> Result<Wish, Refusal> {
        weigh(body)?;
        let value = match body {
            [] => Value::Null,
            body => serde_json::from_slice(body).map_err(|_| Refusal::Malformed("body"))?,
        };
        let fields = match value {
            Value::Null => Map::new(),
            Value::Object(fields) => fields,
            _ => return Err(Refusal::Malformed("body")),
        };
        let wish = Wish(fields);
        wish.says_only(known)?;
        Ok(wish)
    }

    /// Whether it says no other fields.
    pub(super) fn says_only(&self, known: &[&str]) -> Result<(), Refusal> {
        match self.0.keys().find(|field| !known.contains(&field.as_str())) {
            Some(unknown) => Err(Refusal::NoSuchField(unknown.clone())),
            None => Ok(()),
        }
    }

    fn value(&self, field: &str) -> Option<&Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    fn read_as<'a, T>(
        &'a self,
        field: &'static str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let read = |value| read(value).ok_or(Refusal::Malformed(field));
        self.value(field).map(read).transpose()
    }

    /// A text.
    pub(super) fn text(&self, field: &'static str) -> Result<Option<&str>, Refusal> {
        self.read_as(field, Value::as_str)
    }

    /// A text that means something else.
    pub(super) fn parsed<T>(
        &self,
        field: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        self.read_as(field, |value| parse(value.as_str()?))
    }

    /// True or false.
    pub(super) fn flag(&self, field: &'static str) -> Result<Option<bool>, Refusal> {
        self.read_as(field, Value::as_bool)
    }

    /// A whole number.
    pub(super) fn number(&self, field: &'static str) -> Result<Option<u64>, Refusal> {
        self.read_as(field, Value::as_u64)
    }

    /// A moment: milliseconds since the epoch, or ISO 8601.
    pub(super) fn time(&self, field: &'static str) -> Result<Option<Timestamp>, Refusal> {
        self.read_as(field, time_of)
    }

    /// A list.
    pub(super) fn list(&self, field: &'static str) -> Result<Option<&Vec<Value>>, Refusal> {
        self.read_as(field, Value::as_array)
    }

    /// A lead's id.
    pub(super) fn lead(&self, field: &'static str) -> Result<Option<LeadId>, Refusal> {
        self.parsed(field, LeadId::parse)
    }

    /// A browser's id.
    pub(super) fn visitor(&self, field: &'static str) -> Result<Option<VisitorId>, Refusal> {
        self.parsed(field, VisitorId::parse)
    }

    /// A record's position.
    pub(super) fn position(&self, field: &'static str) -> Result<Option<Position>, Refusal> {
        Ok(self.number(field)?.map(Position))
    }

    /// Takes a list out.
    pub(super) fn take_list(&mut self, field: &'static str) -> Result<Option<Vec<Value>>, Refusal> {
        match self.0.remove(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(_) => Err(Refusal::Malformed(field)),
        }
    }

    /// All of it.
    pub(super) fn into_fields(self) -> Map<String, Value> {
        self.0
    }
}

/// What must be said.
pub(super) fn needed<T>(said: Option<T>, field: &'static str) -> Result<T, Refusal> {
    said.ok_or(Refusal::Malformed(field))
}

/// A moment as a number of milliseconds or as text.
pub(super) fn time_of(value: &Value) -> Option<Timestamp> {
    match value {
        Value::Number(number) => number.as_u64().map(Timestamp),
        Value::String(text) => parse_time(text),
        _ => None,
    }
}

/// Refuses a body with too many values before any of them is made: a value takes more memory
/// than the text it is read from.
fn weigh(body: &[u8]) -> Result<(), Refusal> {
    let (mut in_string, mut escaped) = (false, false);
    // The commas seen so far in each bracket that is open.
    let mut open: Vec<usize> = Vec::new();
    let mut values = 0;
    for byte in body {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => {
                values += 1;
                open.push(0);
            }
            (false, b'}' | b']') => drop(open.pop()),
            (false, b',') => {
                values += 1;
                if let Some(commas) = open.last_mut() {
                    *commas += 1;
                    if *commas >= LIST_MAX {
                        return Err(Refusal::TooMuch("more than 10,000 in one list"));
                    }
                }
            }
            _ => {}
        }
        if values > VALUES_MAX {
            return Err(Refusal::TooMuch("more than 1,000,000 values"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 4] = ["when", "name", "flag", "count"];

    fn wish(text: &str) -> Result<Wish, Refusal> {
        Wish::read(text.as_bytes(), &KNOWN)
    }

    #[test]
    fn what_is_absent_or_null_is_not_said() {
        for text in ["", "null", "{}", r#"{"when":null,"name":null,"flag":null,"count":null}"#] {
            let wish = wish(text).unwrap();
            assert_eq!((wish.time("when"), wish.text("name")), (Ok(None), Ok(None)), "{text}");
            assert_eq!((wish.flag("flag"), wish.number("count")), (Ok(None), Ok(None)), "{text}");
            assert_eq!(needed(wish.text("name").unwrap(), "name"), Err(Refusal::Malformed("name")));
        }
    }

    #[test]
    fn another_type_is_refused_by_the_field_s_name() {
        let wish = wish(r#"{"when":true,"name":1,"flag":"true","count":"1"}"#).unwrap();
        assert_eq!(wish.time("when"), Err(Refusal::Malformed("when")));
        assert_eq!(wish.text("name"), Err(Refusal::Malformed("name")));
        assert_eq!(wish.flag("flag"), Err(Refusal::Malformed("flag")));
        assert_eq!(wish.number("count"), Err(Refusal::Malformed("count")));
    }

    #[test]
    fn a_field_nobody_reads_is_refused_by_its_name() {
        let refused = wish(r#"{"nane":null}"#).unwrap_err();
        assert_eq!(refused, Refusal::NoSuchField("nane".into()));
        for text in ["[]", "1", "\"when\"", "{", "{} {}"] {
            assert_eq!(wish(text).unwrap_err(), Refusal::Malformed("body"), "{text}");
        }
    }

    #[test]
    fn a_moment_is_a_number_or_a_text() {
        for said in [
            "1796601360000",
            "\"1796601360000\"",
            "\"2026-12-06T23:56:00Z\"",
            "\"2026-12-07T08:56:00+09:00\"",
        ] {
            let wish = wish(&format!(r#"{{"when":{said}}}"#)).unwrap();
            assert_eq!(wish.time("when"), Ok(Some(Timestamp(1_796_601_360_000))), "{said}");
        }
        for said in ["-1", "1.5", "\"\"", "\"2026-12-06\"", "\"yesterday\"", "[]"] {
            let wish = wish(&format!(r#"{{"when":{said}}}"#)).unwrap();
            assert_eq!(wish.time("when"), Err(Refusal::Malformed("when")), "{said}");
        }
    }

    #[test]
    fn too_many_values_are_refused_before_they_are_made() {
        let list = |items: usize| format!(r#"{{"name":[{}]}}"#, vec!["{}"; items].join(","));
        assert!(wish(&list(LIST_MAX)).is_ok());
        let refused = |text: &str| wish(text).unwrap_err();
        let in_one = Refusal::TooMuch("more than 10,000 in one list");
        assert_eq!(refused(&list(LIST_MAX + 1)), in_one);
        // By its commas alone: what follows them is not even JSON.
        assert_eq!(refused(&format!("[{}", "1,".repeat(LIST_MAX))), in_one);
        let lists = vec![format!("[{}1]", "1,".repeat(9_999)); 101].join(",");
        assert_eq!(refused(&format!("[{lists}]")), Refusal::TooMuch("more than 1,000,000 values"));
        // Commas of a text are none.
        assert!(wish(&format!(r#"{{"name":"{}\\\"[,"}}"#, ",".repeat(20_000))).is_ok());
    }
}
