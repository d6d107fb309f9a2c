//! The body of `POST /s/feedback`, read strictly: what nobody reads is refused by name, so that a
//! misspelt `until` is no missing one.

use engine::attribute::Attributes;
use engine::id::LeadId;
use engine::sales::BY;
use engine::stage::FeedbackKind;
use engine::time::Timestamp;
use serde_json::{Map, Value};

use super::Refused;
use crate::webhook::MessageId;

/// Longest id of an answer, in bytes.
const ID_BYTES_MAX: usize = 128;
/// Longest name of who answers, in bytes.
pub(super) const BY_BYTES_MAX: usize = 254;
/// Longest reason, in bytes.
pub(super) const REASON_BYTES_MAX: usize = 1_000;
/// Longest text about a deal, in bytes.
const DEAL_BYTES_MAX: usize = 254;
/// What an answer may say.
const FIELDS: [&str; 9] =
    ["id", "alert_id", "lead", "kind", "by", "at", "until", "reason", "opportunity"];
/// What may be said of a deal: who it is in the sender's books, where it stands there, what it is
/// worth, and whether there is budget, authority, need and a time (BANT).
const DEAL: [&str; 9] =
    ["id", "name", "stage", "amount", "currency", "budget", "authority", "need", "timeline"];

/// An answer as it was sent.
pub(super) struct Request {
    fields: Map<String, Value>,
    deal: Map<String, Value>,
}

impl Request {
    pub(super) fn read(body: &[u8]) -> Result<Request, Refused> {
        let Ok(Value::Object(mut fields)) = serde_json::from_slice(body) else {
            return Err(Refused::MalformedJson);
        };
        fields.retain(|_, value| !value.is_null());
        let deal = match fields.remove("opportunity") {
            None => Map::new(),
            Some(Value::Object(deal)) => deal,
            Some(_) => return Err(Refused::MalformedField("opportunity")),
        };
        let is_known = |all: &[&str], map: &Map<String, Value>| {
            map.keys().all(|field| all.contains(&field.as_str()))
        };
        if is_known(&FIELDS, &fields) && is_known(&DEAL, &deal) {
            Ok(Request { fields, deal })
        } else {
            Err(Refused::NoSuchField)
        }
    }

    fn text(&self, field: &'static str, most: usize) -> Result<Option<&str>, Refused> {
        let Some(value) = self.fields.get(field) else {
            return Ok(None);
        };
        let text = value.as_str().ok_or(Refused::MalformedField(field))?.trim();
        checked(text, field, most)
    }

    /// The sender's id of it: the same one again changes nothing.
    pub(super) fn id(&self) -> Result<&str, Refused> {
        self.text("id", ID_BYTES_MAX)?.ok_or(Refused::MissingField("id"))
    }

    pub(super) fn alert(&self) -> Result<Option<&str>, Refused> {
        let alert = self.text("alert_id", ID_BYTES_MAX)?;
        if alert.is_some_and(|alert| MessageId::parse(alert).is_err()) {
            return Err(Refused::MalformedField("alert_id"));
        }
        Ok(alert)
    }

    pub(super) fn lead(&self) -> Result<Option<LeadId>, Refused> {
        let lead = self.text("lead", ID_BYTES_MAX)?;
        lead.map(|lead| LeadId::parse(lead).ok_or(Refused::MalformedField("lead"))).transpose()
    }

    pub(super) fn kind(&self) -> Result<FeedbackKind, Refused> {
        let kind = self.text("kind", ID_BYTES_MAX)?.ok_or(Refused::MissingField("kind"))?;
        FeedbackKind::parse(kind).ok_or(Refused::MalformedField("kind"))
    }

    pub(super) fn at(&self) -> Result<Option<Timestamp>, Refused> {
        self.time("at")
    }

    pub(super) fn until(&self) -> Result<Option<Timestamp>, Refused> {
        self.time("until")
    }

    fn time(&self, field: &'static str) -> Result<Option<Timestamp>, Refused> {
        let moment = |value: &Value| match value {
            Value::Number(number) => number.as_u64().map(Timestamp),
            Value::String(text) => {
                let read = text.parse::<jiff::Timestamp>().ok()?;
                u64::try_from(read.as_millisecond()).ok().map(Timestamp)
            }
            _ => None,
        };
        let value = self.fields.get(field);
        value.map(|value| moment(value).ok_or(Refused::MalformedField(field))).transpose()
    }

    /// Who says it, why, and about which deal.
    pub(super) fn details(&self) -> Result<Attributes, Refused> {
        let mut details = Attributes::new();
        for (field, most) in [(BY, BY_BYTES_MAX), ("reason", REASON_BYTES_MAX)] {
            if let Some(text) = self.text(field, most)? {
                details.insert(field.to_owned(), text.to_owned());
            }
        }
        for field in DEAL {
            let text = match self.deal.get(field) {
                None | Some(Value::Null) => continue,
                Some(Value::String(text)) => text.trim().to_owned(),
                Some(Value::Number(number)) => number.to_string(),
                Some(Value::Bool(yes)) => if *yes { "yes" } else { "no" }.to_owned(),
                Some(_) => return Err(Refused::MalformedField("opportunity")),
            };
            if let Some(text) = checked(&text, "opportunity", DEAL_BYTES_MAX)? {
                details.insert(format!("opportunity.{field}"), text.to_owned());
            }
        }
        Ok(details)
    }
}

/// A text that is not too long and has no control characters but line breaks; nothing if empty.
pub(super) fn checked<'a>(
    text: &'a str,
    field: &'static str,
    most: usize,
) -> Result<Option<&'a str>, Refused> {
    if text.len() > most {
        return Err(Refused::TooLong(field));
    }
    let odd = |letter: char| letter.is_control() && letter != '\n' && letter != '\r';
    if text.chars().any(odd) {
        return Err(Refused::MalformedField(field));
    }
    Ok((!text.is_empty()).then_some(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: &Value) -> Result<Request, Refused> {
        Request::read(value.to_string().as_bytes())
    }

    #[test]
    fn an_answer_is_read_with_all_it_says() {
        let request = read(&json!({
            "id": "sfa-000417", "alert_id": "msg_5Yk2Qv8dT3mR9sLx0aWbNc", "kind": "opportunity",
            "by": " sato@vendor.example ", "at": "2026-12-07T00:20:00Z",
            "until": 1_796_601_360_000_u64, "reason": null,
            "opportunity": {
                "id": "D-7", "stage": "提案", "amount": 1_200_000, "budget": true, "need": null,
            },
        }))
        .unwrap();
        assert_eq!(request.id(), Ok("sfa-000417"));
        assert_eq!(request.kind(), Ok(FeedbackKind::Opportunity));
        assert_eq!(request.at(), Ok(Some(Timestamp(1_796_602_800_000))));
        assert_eq!(request.until(), Ok(Some(Timestamp(1_796_601_360_000))));
        let details = request.details().unwrap();
        let details: Vec<(&str, &str)> =
            details.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected = [
            ("by", "sato@vendor.example"),
            ("opportunity.amount", "1200000"),
            ("opportunity.budget", "yes"),
            ("opportunity.id", "D-7"),
            ("opportunity.stage", "提案"),
        ];
        assert_eq!(details, expected);
    }

    #[test]
    fn whatever_is_wrong_with_an_answer_has_a_name() {
        assert_eq!(Request::read(b"[]").err(), Some(Refused::MalformedJson));
        assert_eq!(Request::read(b"{\"id\":").err(), Some(Refused::MalformedJson));
        for (body, refused) in [
            (json!({ "untill": 1 }), Refused::NoSuchField),
            (json!({ "opportunity": { "sum": 1 } }), Refused::NoSuchField),
            (json!({ "opportunity": "D-7" }), Refused::MalformedField("opportunity")),
        ] {
            assert_eq!(read(&body).err(), Some(refused), "{body}");
        }
        let request = |body| read(&body).unwrap();
        assert_eq!(request(json!({})).id(), Err(Refused::MissingField("id")));
        assert_eq!(request(json!({ "id": 7 })).id(), Err(Refused::MalformedField("id")));
        let long = "x".repeat(ID_BYTES_MAX + 1);
        assert_eq!(request(json!({ "id": long })).id(), Err(Refused::TooLong("id")));
        let odd = request(json!({ "by": "a\u{1b}[31m" }));
        assert_eq!(odd.details(), Err(Refused::MalformedField("by")));
        let kind = request(json!({ "kind": "accept" }));
        assert_eq!(kind.kind(), Err(Refused::MalformedField("kind")));
        let lead = request(json!({ "lead": "7" }));
        assert_eq!(lead.lead(), Err(Refused::MalformedField("lead")));
        let at = request(json!({ "at": "soon" }));
        assert_eq!(at.at(), Err(Refused::MalformedField("at")));
        let alert = request(json!({ "alert_id": "a b" }));
        assert_eq!(alert.alert(), Err(Refused::MalformedField("alert_id")));
        let deal = request(json!({ "opportunity": { "amount": [1] } }));
        assert_eq!(deal.details(), Err(Refused::MalformedField("opportunity")));
    }
}
