//! The beacon's body: one JSON object, an array of them, or one a line. Bytes in, hits out.

use std::borrow::Cow;
use std::fmt;

use engine::attribute::Level;
use engine::identity::IdentityKind;
use memchr::memchr2;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};

use super::fact;
use super::raw::RawHit;
use super::reject::Reject;

/// How much a body may hold.
#[derive(Clone, Copy, Debug)]
pub struct BeaconLimits {
    /// Hits.
    pub hits_max: usize,
    /// Bytes of one hit.
    pub hit_bytes_max: usize,
    /// Nesting.
    pub depth_max: usize,
}

/// Reads a body. A body that is no JSON is refused whole; a hit that is none, alone.
pub fn parse(body: &[u8], limits: &BeaconLimits) -> Result<Vec<Result<RawHit, Reject>>, Reject> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let shape = Shape::of(body);
    if shape.depth > limits.depth_max {
        return Err(Reject::TooDeep);
    }
    // As hits, a megabyte of `0,0,0` would be a hundred times as large.
    if shape.items > limits.hits_max {
        return Err(Reject::TooManyHits);
    }
    let text = str::from_utf8(body).map_err(|_| Reject::MalformedJson)?;
    let fits = |read: Read, bytes: usize| {
        if bytes > limits.hit_bytes_max { Err(Reject::HitTooLarge) } else { read.0 }
    };
    let mut hits = Vec::with_capacity(shape.items.max(1));
    let mut sizes = shape.sizes.into_iter();
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Said>();
    let mut start = 0;
    while let Some(said) = values.next() {
        match said.map_err(|_| Reject::MalformedJson)? {
            Said::One(read) => hits.push(fits(*read, values.byte_offset() - start)),
            Said::Many(items) => {
                hits.extend(items.into_iter().map(|it| fits(it, sizes.next().unwrap_or(0))));
            }
        }
        start = values.byte_offset();
        if hits.len() > limits.hits_max {
            return Err(Reject::TooManyHits);
        }
    }
    if hits.is_empty() { Err(Reject::Empty) } else { Ok(hits) }
}

/// Reads one hit that is JSON already.
pub fn read_one(value: Value, limits: &BeaconLimits) -> Result<RawHit, Reject> {
    if value.to_string().len() > limits.hit_bytes_max {
        return Err(Reject::HitTooLarge);
    }
    Read::deserialize(value).map_err(|_| Reject::MalformedJson)?.0
}

/// What a glance at the bytes tells. Cheaper than to parse what is refused anyway.
#[derive(Default)]
struct Shape {
    /// How deep brackets nest outside of strings.
    depth: usize,
    /// Items of the longest outermost array.
    items: usize,
    /// The bytes of each item of the outermost arrays.
    sizes: Vec<usize>,
}

impl Shape {
    fn of(body: &[u8]) -> Shape {
        let mut shape = Shape::default();
        let (mut depth, mut items, mut item_at) = (0_usize, 0, 0);
        let (mut in_list, mut at) = (false, 0);
        while let Some(byte) = body.get(at) {
            match byte {
                b'"' => at = end_of_string(body, at),
                b'{' | b'[' => {
                    if depth == 0 {
                        (in_list, items, item_at) = (*byte == b'[', 1, at + 1);
                    }
                    depth += 1;
                    shape.depth = shape.depth.max(depth);
                }
                b'}' | b']' => {
                    if depth == 1 && in_list && !body[item_at..at].trim_ascii().is_empty() {
                        shape.sizes.push(at - item_at);
                    }
                    depth = depth.saturating_sub(1);
                }
                b',' if depth == 1 && in_list => {
                    shape.sizes.push(at - item_at);
                    items += 1;
                    item_at = at + 1;
                    shape.items = shape.items.max(items);
                }
                _ => {}
            }
            at += 1;
        }
        shape
    }
}

/// Where the string ends that begins at a place; the end of the body if it does not.
fn end_of_string(body: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while let Some(found) = body.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        if body[at + found] == b'"' {
            return at + found;
        }
        at += found + 2;
    }
    body.len()
}

/// One value of a body: a hit, or a list of them.
enum Said {
    One(Box<Read>),
    Many(Vec<Read>),
}

/// A hit as it was read. What is wrong with it is the hit's alone: the rest of the body is read on.
struct Read(Result<RawHit, Reject>);

impl<'de> Deserialize<'de> for Said {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Said, D::Error> {
        from.deserialize_any(SaidVisitor)
    }
}

impl<'de> Deserialize<'de> for Read {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Read, D::Error> {
        from.deserialize_any(HitVisitor)
    }
}

/// What a value is that is no object, for whoever wants one.
macro_rules! no_object {
    ($none:expr) => {
        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok($none)
        }

        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            Ok($none)
        }

        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok($none)
        }

        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok($none)
        }

        fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
            Ok($none)
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok($none)
        }
    };
}

struct SaidVisitor;

impl<'de> Visitor<'de> for SaidVisitor {
    type Value = Said;

    no_object!(Said::One(Box::new(Read(Err(Reject::MalformedJson)))));

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a hit or a list of hits")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Said, A::Error> {
        let mut hits = Vec::new();
        while let Some(hit) = items.next_element()? {
            hits.push(hit);
        }
        Ok(Said::Many(hits))
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Said, A::Error> {
        HitVisitor.visit_map(fields).map(|read| Said::One(Box::new(read)))
    }
}

struct HitVisitor;

impl<'de> Visitor<'de> for HitVisitor {
    type Value = Read;

    no_object!(Read(Err(Reject::MalformedJson)));

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a hit")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Read, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Read(Err(Reject::MalformedJson)))
    }

    /// Field by field, straight into the hit: hits come by the hundred, and a tree of values would
    /// be most of the work.
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Read, A::Error> {
        let mut hit = RawHit::default();
        let mut wrong = None;
        while let Some(name) = fields.next_key_seed(Name)? {
            let read = match name {
                Field::Unknown => {
                    fields.next_value::<IgnoredAny>()?;
                    continue;
                }
                Field::Properties => {
                    pairs(Some(fields.next_value()?), "p").map(|pairs| hit.properties = pairs)
                }
                Field::Identity => who(&mut hit, fields.next_value()?),
                Field::Plain(field) => hit.set(field, fields.next_value()?),
            };
            wrong = wrong.or(read.err());
        }
        let read = wrong.map_or_else(|| hit.check(), Err);
        Ok(Read(read.map(|()| hit)))
    }
}

/// A field by its name.
enum Field {
    Plain(&'static str),
    Properties,
    Identity,
    Unknown,
}

/// Reads a field's name without keeping it.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Field;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Field, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Field;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the name of a field")
    }

    fn visit_str<E>(self, name: &str) -> Result<Field, E> {
        const PLAIN: [&str; 16] =
            ["s", "e", "u", "t", "r", "i", "n", "v", "c", "at", "st", "ms", "sc", "d", "ip", "ua"];
        Ok(match name {
            "p" => Field::Properties,
            "id" => Field::Identity,
            "silent" => Field::Plain("silent"),
            name => match PLAIN.into_iter().find(|plain| *plain == name) {
                Some(plain) => Field::Plain(plain),
                None => Field::Unknown,
            },
        })
    }
}

/// A value that is no list and no object, or that it is one of them.
enum Scalar<'a> {
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
    Compound,
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Scalar<'de>, E> {
        Ok(Number::from_f64(value).map_or(Scalar::Null, Scalar::Number))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Scalar<'de>, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Compound)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Scalar<'de>, A::Error> {
        while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Compound)
    }
}

impl Scalar<'_> {
    fn text(self, field: &'static str) -> Result<String, Reject> {
        match self {
            Scalar::Null => Ok(String::new()),
            Scalar::Text(text) => Ok(text.into_owned()),
            _ => Err(Reject::MalformedField(field)),
        }
    }

    fn number(&self, field: &'static str) -> Result<Option<u64>, Reject> {
        match self {
            Scalar::Null => Ok(None),
            Scalar::Number(number) => {
                let whole = number.as_u64();
                // A browser's high-resolution time has a fraction.
                let number = whole.or_else(|| {
                    let float = number.as_f64().filter(|float| (0.0..1e16).contains(float))?;
                    Some(float as u64)
                });
                number.map(Some).ok_or(Reject::MalformedField(field))
            }
            _ => Err(Reject::MalformedField(field)),
        }
    }

    fn flag(&self, field: &'static str) -> Result<bool, Reject> {
        match self {
            Scalar::Null => Ok(false),
            Scalar::Bool(flag) => Ok(*flag),
            Scalar::Number(number) if number.as_u64().is_some_and(|it| it < 2) => {
                Ok(number.as_u64() == Some(1))
            }
            _ => Err(Reject::MalformedField(field)),
        }
    }

    /// Consent as browsers and people write it.
    fn consent(&self) -> Result<Option<bool>, Reject> {
        match self {
            Scalar::Null => Ok(None),
            Scalar::Text(text) => consent_text(text),
            other => other.flag("c").map(Some),
        }
    }
}

impl RawHit {
    fn set(&mut self, field: &'static str, value: Scalar<'_>) -> Result<(), Reject> {
        match field {
            "s" => self.site = value.text(field)?,
            "e" => self.event = value.text(field)?,
            "u" => self.url = value.text(field)?,
            "t" => self.title = value.text(field)?,
            "r" => self.referrer = value.text(field)?,
            "i" => self.id = value.text(field)?,
            "n" => self.nonce = value.text(field)?,
            "v" => self.token = value.text(field)?,
            "d" => self.device = value.text(field)?,
            "ip" => self.ip = value.text(field)?,
            "ua" => self.agent = value.text(field)?,
            "c" => self.consent = value.consent()?,
            "at" => self.at = value.number(field)?,
            "st" => self.sent = value.number(field)?,
            "ms" => {
                let engaged_ms = value.number(field)?.unwrap_or(0);
                self.engaged_ms = engaged_ms.min(u64::from(u32::MAX)) as u32;
            }
            "sc" => self.scroll = value.number(field)?.unwrap_or(0).min(100) as u8,
            "silent" => self.silent = value.flag(field)?,
            _ => unreachable!("only fields that have a place are given"),
        }
        Ok(())
    }
}

/// Who it is: `id`.
fn who(hit: &mut RawHit, value: Value) -> Result<(), Reject> {
    let mut id = match value {
        Value::Null => return Ok(()),
        Value::Object(id) => id,
        _ => return Err(Reject::MalformedField("id")),
    };
    let mut attributes = id.remove("attributes");
    hit.facts = attributes.as_mut().map(fact::take).unwrap_or_default();
    hit.attributes = pairs(attributes, "id.attributes")?;
    hit.hmac = text(&mut id, "hmac").map_err(|_| Reject::MalformedField("id.hmac"))?;
    hit.exp = id.remove("exp").and_then(scalar).unwrap_or_default();
    hit.kiosk = match id.remove("kiosk") {
        None => false,
        Some(value) => {
            let wrong = Reject::MalformedField("id.kiosk");
            Scalar::deserialize(value).map_err(|_| wrong)?.flag("id.kiosk")?
        }
    };
    let level = text(&mut id, "level").map_err(|_| Reject::MalformedField("id.level"))?;
    if !level.is_empty() {
        hit.level = Level::parse(&level).ok_or(Reject::MalformedField("id.level"))?;
    }
    for kind in IdentityKind::ORDER {
        match id.remove(kind.name()) {
            None | Some(Value::Null) => {}
            Some(value) => {
                let value = scalar(value).ok_or(Reject::MalformedField("id"))?;
                hit.identities.push((kind, value));
            }
        }
    }
    Ok(())
}

fn text(map: &mut Map<String, Value>, field: &'static str) -> Result<String, Reject> {
    match map.remove(field) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(Reject::MalformedField(field)),
    }
}

/// Consent in a query or a string.
pub fn consent_text(text: &str) -> Result<Option<bool>, Reject> {
    match text {
        "" => Ok(None),
        "1" | "granted" | "true" => Ok(Some(true)),
        "0" | "denied" | "false" => Ok(Some(false)),
        _ => Err(Reject::MalformedField("c")),
    }
}

fn scalar(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(bool) => Some(bool.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn pairs(value: Option<Value>, field: &'static str) -> Result<Vec<(String, String)>, Reject> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Object(map)) => map
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| {
                let value = scalar(value).ok_or(Reject::MalformedField(field))?;
                Ok((name, value))
            })
            .collect(),
        Some(_) => Err(Reject::MalformedField(field)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BeaconLimits = BeaconLimits { hits_max: 3, hit_bytes_max: 300, depth_max: 32 };

    fn parse(body: &str) -> Result<Vec<Result<RawHit, Reject>>, Reject> {
        super::parse(body.as_bytes(), &LIMITS)
    }

    #[test]
    fn an_object_an_array_and_one_a_line_say_the_same() {
        let one = parse(r#"{"s":"demo","u":"https://a.example/"}"#).unwrap();
        let array = parse(r#" [{"s":"demo","u":"https://a.example/"}] "#).unwrap();
        let lines = parse("\u{feff}{\"s\":\"demo\",\"u\":\"https://a.example/\"}\n\n").unwrap();
        assert_eq!(one, array);
        assert_eq!(one, lines);
        assert_eq!(parse("{\"s\":\"a\"}\n{\"s\":\"b\"}").unwrap().len(), 2);
    }

    #[test]
    fn every_field_is_read() {
        let body = r#"{"s":"demo","e":"download","u":"u","t":"t","r":"r","i":"i","n":"n","v":"v",
            "c":1,"at":17.9,"st":18,"ms":61000,"sc":250,"p":{"a":1,"b":true,"c":null},
            "id":{"email":"a@b.example","user_id":7,"attributes":{"name":"田中"}},
            "d":"d","ip":"i","ua":"u"}"#;
        let limits = BeaconLimits { hit_bytes_max: 1_000, ..LIMITS };
        let hit = super::parse(body.as_bytes(), &limits).unwrap().remove(0).unwrap();
        assert_eq!(
            (hit.at, hit.sent, hit.engaged_ms, hit.scroll),
            (Some(17), Some(18), 61_000, 100)
        );
        assert_eq!(hit.consent, Some(true));
        assert_eq!(hit.properties, [("a".into(), "1".into()), ("b".into(), "true".into())]);
        let user = (IdentityKind::UserId, "7".to_owned());
        assert_eq!(hit.identities, [user, (IdentityKind::Email, "a@b.example".into())]);
        assert_eq!(hit.attributes, [("name".into(), "田中".into())]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let first = |body: &str| parse(body).unwrap().remove(0).unwrap_err();
        assert_eq!(parse(""), Err(Reject::Empty));
        assert_eq!(parse("[]"), Err(Reject::Empty));
        assert_eq!(parse("{\"s\":"), Err(Reject::MalformedJson));
        assert_eq!(first("7"), Reject::MalformedJson);
        assert_eq!(first(r#"{"u":7}"#), Reject::MalformedField("u"));
        assert_eq!(first(r#"{"at":-1}"#), Reject::MalformedField("at"));
        assert_eq!(first(r#"{"c":2}"#), Reject::MalformedField("c"));
        assert_eq!(first(r#"{"p":{"a":[]}}"#), Reject::MalformedField("p"));
        assert_eq!(first(r#"{"id":"a@b.example"}"#), Reject::MalformedField("id"));
        assert_eq!(first(&format!("{{\"e\":\"{}\"}}", "x".repeat(65))), Reject::TooLong("e"));
        assert_eq!(first(&format!("{{\"t\":\"{}\"}}", "x".repeat(400))), Reject::HitTooLarge);
        assert_eq!(first(&format!("[{{\"t\":\"{}\"}}]", "x".repeat(400))), Reject::HitTooLarge);
        assert_eq!(parse("[{},{},{},{}]"), Err(Reject::TooManyHits));
        assert_eq!(parse("[{},{}]\n[{},{}]"), Err(Reject::TooManyHits));
        assert_eq!(parse(&"[".repeat(100_000)), Err(Reject::TooDeep));
        assert_eq!(parse("{\"u\":\"[[[[\\\"[[[\"}").unwrap()[0].as_ref().unwrap().url, "[[[[\"[[[");
    }

    #[test]
    fn too_many_hits_are_refused_before_any_is_built() {
        // Whoever had begun to build them would have come upon the end that is missing.
        assert_eq!(parse("[0,0,0,0"), Err(Reject::TooManyHits));
        assert_eq!(parse("[0,0,0"), Err(Reject::MalformedJson));
        let inner = r#"[{"p":{"a":1,"b":[2,3,4,5]}},{"t":",,,,"},[1,2,3,4]]"#;
        assert_eq!(parse(inner).unwrap().len(), 3, "only its own commas part an array");
        assert_eq!(parse(r#"{"s":"a","e":"b","u":"c","t":"d","r":"e"}"#).unwrap().len(), 1);
    }
}
