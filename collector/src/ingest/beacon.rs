//! The beacon's body: one JSON object, an array of them, or one a line. Bytes in, hits out.

use engine::attribute::Level;
use engine::identity::IdentityKind;
use serde_json::{Map, Value};

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
    // As values, a megabyte of `0,0,0` would be a hundred times as large.
    if shape.items > limits.hits_max {
        return Err(Reject::TooManyHits);
    }
    let mut hits = Vec::new();
    let mut values = serde_json::Deserializer::from_slice(body).into_iter::<Value>();
    let mut start = 0;
    while let Some(value) = values.next() {
        let value = value.map_err(|_| Reject::MalformedJson)?;
        let bytes = values.byte_offset() - start;
        start = values.byte_offset();
        match value {
            Value::Array(items) => {
                let large = bytes > limits.hit_bytes_max;
                for item in items {
                    let size = if large { size(&item) } else { 0 };
                    hits.push(read(item, size, limits));
                }
            }
            single => hits.push(read(single, bytes, limits)),
        }
        if hits.len() > limits.hits_max {
            return Err(Reject::TooManyHits);
        }
    }
    if hits.is_empty() { Err(Reject::Empty) } else { Ok(hits) }
}

/// What a glance at the bytes tells. Cheaper than to parse what is refused anyway.
#[derive(Default)]
struct Shape {
    /// How deep brackets nest outside of strings.
    depth: usize,
    /// Items of the longest outermost array.
    items: usize,
}

impl Shape {
    fn of(body: &[u8]) -> Shape {
        let mut shape = Shape::default();
        let (mut depth, mut items) = (0_usize, 0);
        let (mut in_string, mut escaped, mut in_list) = (false, false, false);
        for byte in body {
            match (in_string, byte) {
                (true, _) if escaped => escaped = false,
                (true, b'\\') => escaped = true,
                (_, b'"') => in_string = !in_string,
                (false, b'{' | b'[') => {
                    if depth == 0 {
                        (in_list, items) = (*byte == b'[', 1);
                    }
                    depth += 1;
                    shape.depth = shape.depth.max(depth);
                }
                (false, b'}' | b']') => depth = depth.saturating_sub(1),
                (false, b',') if depth == 1 && in_list => {
                    items += 1;
                    shape.items = shape.items.max(items);
                }
                _ => {}
            }
        }
        shape
    }
}

/// About how many bytes a value took as text.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 3,
        Value::Array(items) => items.iter().map(size).sum::<usize>() + 2,
        Value::Object(map) => map.iter().map(|(name, value)| name.len() + 4 + size(value)).sum(),
    }
}

/// Reads one hit that is JSON already.
pub fn read_one(value: Value, limits: &BeaconLimits) -> Result<RawHit, Reject> {
    let bytes = size(&value);
    read(value, bytes, limits)
}

fn read(value: Value, bytes: usize, limits: &BeaconLimits) -> Result<RawHit, Reject> {
    if bytes > limits.hit_bytes_max {
        return Err(Reject::HitTooLarge);
    }
    let Value::Object(mut map) = value else {
        return Err(Reject::MalformedJson);
    };
    let mut hit = RawHit {
        site: text(&mut map, "s")?,
        event: text(&mut map, "e")?,
        url: text(&mut map, "u")?,
        title: text(&mut map, "t")?,
        referrer: text(&mut map, "r")?,
        id: text(&mut map, "i")?,
        nonce: text(&mut map, "n")?,
        token: text(&mut map, "v")?,
        consent: consent(map.remove("c"))?,
        at: number(&mut map, "at")?,
        sent: number(&mut map, "st")?,
        engaged_ms: number(&mut map, "ms")?.unwrap_or(0).min(u64::from(u32::MAX)) as u32,
        scroll: number(&mut map, "sc")?.unwrap_or(0).min(100) as u8,
        properties: pairs(map.remove("p"), "p")?,
        device: text(&mut map, "d")?,
        ip: text(&mut map, "ip")?,
        agent: text(&mut map, "ua")?,
        silent: flag(map.remove("silent"), "silent")?,
        ..RawHit::default()
    };
    match map.remove("id") {
        None | Some(Value::Null) => {}
        Some(Value::Object(mut id)) => {
            let mut attributes = id.remove("attributes");
            hit.facts = attributes.as_mut().map(fact::take).unwrap_or_default();
            hit.attributes = pairs(attributes, "id.attributes")?;
            hit.hmac = text(&mut id, "hmac").map_err(|_| Reject::MalformedField("id.hmac"))?;
            hit.exp = id.remove("exp").and_then(scalar).unwrap_or_default();
            hit.kiosk = flag(id.remove("kiosk"), "id.kiosk")?;
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
        }
        Some(_) => return Err(Reject::MalformedField("id")),
    }
    hit.check()?;
    Ok(hit)
}

fn text(map: &mut Map<String, Value>, field: &'static str) -> Result<String, Reject> {
    match map.remove(field) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(Reject::MalformedField(field)),
    }
}

fn number(map: &mut Map<String, Value>, field: &'static str) -> Result<Option<u64>, Reject> {
    match map.remove(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => {
            let whole = number.as_u64();
            // A browser's high-resolution time has a fraction.
            let number = whole.or_else(|| {
                let float = number.as_f64().filter(|float| (0.0..1e16).contains(float))?;
                Some(float as u64)
            });
            number.map(Some).ok_or(Reject::MalformedField(field))
        }
        Some(_) => Err(Reject::MalformedField(field)),
    }
}

fn flag(value: Option<Value>, field: &'static str) -> Result<bool, Reject> {
    match value {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(flag),
        Some(Value::Number(number)) if number.as_u64().is_some_and(|it| it < 2) => {
            Ok(number.as_u64() == Some(1))
        }
        Some(_) => Err(Reject::MalformedField(field)),
    }
}

/// Consent as browsers and people write it.
fn consent(value: Option<Value>) -> Result<Option<bool>, Reject> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(agreed)) => Ok(Some(agreed)),
        Some(Value::Number(number)) => match number.as_u64() {
            Some(0) => Ok(Some(false)),
            Some(1) => Ok(Some(true)),
            _ => Err(Reject::MalformedField("c")),
        },
        Some(Value::String(text)) => consent_text(&text),
        Some(Value::Array(_) | Value::Object(_)) => Err(Reject::MalformedField("c")),
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
