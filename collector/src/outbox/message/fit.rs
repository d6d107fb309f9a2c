//! A body has less than 20,000 bytes, whatever people typed. What goes first is what a receiver
//! misses least: the oldest of what they did lately, then the smallest reasons, which join the
//! rest so that all still add up, then the ends of long texts.

use serde_json::{Value, json};

/// Bytes of a body.
pub const BODY_BYTES_MAX: usize = 19_999;
/// Reasons that are never joined to the rest.
const REASONS_MIN: usize = 5;
/// Longest texts, in bytes as they are sent, tried one after the other.
const TEXT_BYTES_MAX: [usize; 4] = [1_024, 512, 256, 96];
/// Longest link that stays when texts are cut.
const LINK_BYTES_MAX: usize = 1_024;

/// Cuts a body until it fits.
pub(super) fn fit(body: &mut Value) {
    while is_too_long(body) && drop_oldest(body) {}
    while is_too_long(body) && join_smallest_reason(body) {}
    for most in TEXT_BYTES_MAX {
        if !is_too_long(body) {
            return;
        }
        cut_texts(&mut body["data"], most);
    }
}

fn is_too_long(body: &Value) -> bool {
    body.to_string().len() > BODY_BYTES_MAX
}

fn drop_oldest(body: &mut Value) -> bool {
    let recent = body["data"]["recent"].as_array_mut();
    recent.is_some_and(|recent| recent.pop().is_some())
}

/// Joins the smallest reason to the rest; nothing if few are left.
fn join_smallest_reason(body: &mut Value) -> bool {
    let Some(reasons) = body["data"]["reasons"].as_array_mut() else {
        return false;
    };
    let rest = reasons.pop_if(|reason| reason["rule"] == "other");
    let smallest = if reasons.len() > REASONS_MIN { reasons.pop() } else { None };
    let joined = smallest.is_some();
    reasons.extend(match (smallest, rest) {
        (Some(one), Some(rest)) => Some(sum(&one, &rest)),
        (Some(one), None) => {
            let none = json!({ "times": 0, "points": 0.0, "last": "" });
            Some(sum(&one, &none))
        }
        (None, rest) => rest,
    });
    joined
}

fn sum(one: &Value, rest: &Value) -> Value {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let thousandths = |value: &Value| (value.as_f64().unwrap_or_default() * 1_000.0).round();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    json!({
        "rule": "other",
        "label": { "ja": "その他", "en": "Other" },
        "times": number(&one["times"]) + number(&rest["times"]),
        "points": (thousandths(&one["points"]) + thousandths(&rest["points"])) / 1_000.0,
        "last": text(&one["last"]).max(text(&rest["last"])),
    })
}

/// Cuts every text to so many bytes. Half an address or id leads astray: such a one goes.
fn cut_texts(value: &mut Value, most: usize) {
    match value {
        Value::String(text) => cut_text(text, most),
        Value::Array(list) => list.iter_mut().for_each(|value| cut_texts(value, most)),
        Value::Object(entries) => {
            if let Some(ids) = entries.get_mut("external_ids").and_then(Value::as_object_mut) {
                ids.retain(|_, id| length(id) <= most);
            }
            for (key, value) in entries.iter_mut() {
                match key.as_str() {
                    "email" | "url" if length(value) > most.max(600) => *value = Value::Null,
                    "crm" | "timeline" | "accept" | "reject" | "later"
                        if length(value) > LINK_BYTES_MAX =>
                    {
                        *value = Value::Null;
                    }
                    "email" | "url" | "crm" | "timeline" | "accept" | "reject" | "later" => {}
                    _ => cut_texts(value, most),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn length(value: &Value) -> usize {
    value.to_string().len()
}

fn cut_text(text: &mut String, most: usize) {
    let mut bytes = 2;
    for (at, letter) in text.char_indices() {
        bytes += Value::from(letter.to_string()).to_string().len() - 2;
        if bytes > most {
            // The mark takes the place of what it stands for.
            text.truncate(text.floor_char_boundary(at.saturating_sub(3)));
            text.push('…');
            return;
        }
    }
}
