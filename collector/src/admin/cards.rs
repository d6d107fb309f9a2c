//! Cards: statements of who people are, what is known of them and what they did, one or a list of
//! them. A card that is not as it should be is refused by its number and the field; the others
//! are kept.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Refusal;
use super::operate::site;
use super::wish::{Wish, time_of};
use crate::app::App;
use crate::ingest::beacon::{self, BeaconLimits};
use crate::ingest::{self, RawHit, Reject, Sender, Taken};

/// Cards taken at once; the rest follows.
const CARDS_AT_ONCE: usize = 200;
/// What is said once, beside a list of cards.
const BESIDE: [&str; 4] = ["site", "test", "silent", "cards"];
/// What a card may say.
const CARD: [&str; 13] = [
    "id",
    "user_id",
    "crm_id",
    "email",
    "attributes",
    "level",
    "event",
    "at",
    "consent",
    "device",
    "url",
    "p",
    "silent",
];
/// What of it says who it is.
const WHO: [&str; 5] = ["user_id", "crm_id", "email", "attributes", "level"];

/// What is wrong with a card.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    /// It says what nobody reads.
    NoSuchField(String),
    /// Anything else.
    Reject(Reject),
}

impl Fault {
    fn reject(&self) -> Reject {
        match self {
            Fault::NoSuchField(_) => Reject::MalformedField("card"),
            Fault::Reject(reject) => *reject,
        }
    }

    /// The field, as a card calls it.
    fn about(&self) -> Option<&str> {
        match self {
            Fault::NoSuchField(field) => Some(field),
            Fault::Reject(reject) => reject.field().map(in_a_card),
        }
    }
}

/// What a card calls a field of a hit.
fn in_a_card(field: &'static str) -> &'static str {
    match field {
        "e" => "event",
        "c" => "consent",
        "d" => "device",
        "u" => "url",
        "id" => "user_id, crm_id or email",
        field => field.strip_prefix("id.").unwrap_or(field),
    }
}

/// Takes what a request says of people. What is imported is news to nobody.
pub(super) fn state(app: &Arc<App>, body: &[u8], import: bool) -> Result<Value, Refusal> {
    let mut wish = Wish::read(body, &[&BESIDE[..], &CARD[..]].concat())?;
    let site = site(app, &wish)?;
    let key = if site.test { site.site.test_key.as_ref() } else { site.site.keys.first() };
    let key = key.ok_or(Refusal::Malformed("site"))?;
    let silent = wish.flag("silent")?.unwrap_or(false) || import;
    let limits = &app.settings.limits;
    let limits = BeaconLimits {
        hits_max: usize::MAX,
        hit_bytes_max: limits.hit_bytes_max,
        depth_max: limits.json_depth_max,
    };
    let cards = match wish.take_list("cards")? {
        Some(cards) => {
            // What stands beside them would be said of none.
            wish.says_only(&BESIDE)?;
            cards.into_iter().map(|card| read(card, key, silent, &limits)).collect()
        }
        None if import => return Err(Refusal::Malformed("cards")),
        None => {
            let mut card = wish.into_fields();
            card.retain(|field, _| CARD.contains(&field.as_str()));
            vec![match read(Value::Object(card), key, silent, &limits) {
                Err(Fault::Reject(Reject::MalformedField(field))) => {
                    return Err(Refusal::Malformed(in_a_card(field)));
                }
                Err(Fault::NoSuchField(field)) => return Err(Refusal::NoSuchField(field)),
                card => card,
            }]
        }
    };
    take_all(cards, |hits| {
        let sender = Sender { bytes: hits.len() * 1_024, ..Sender::trusted() };
        let taken = ingest::take(app, &sender, &hits)?;
        if let Some(position) = taken.position {
            app.journal.wait_blocking(position).map_err(|_| Reject::Poisoned)?;
        }
        Ok(taken)
    })
}

/// Takes cards, some at a time. If some are refused because nothing can be kept just now, it says
/// what became of those before them, so that the caller can go on from there.
fn take_all(
    cards: Vec<Result<RawHit, Fault>>,
    mut take: impl FnMut(Vec<Result<RawHit, Reject>>) -> Result<Taken, Reject>,
) -> Result<Value, Refusal> {
    let (all, mut cards) = (cards.len(), cards.into_iter());
    let (mut kept, mut next, mut rejected) = (0, 0, Vec::new());
    while next < all {
        let (mut abouts, mut hits) = (Vec::new(), Vec::new());
        for card in cards.by_ref().take(CARDS_AT_ONCE) {
            abouts.push(card.as_ref().err().and_then(Fault::about).map(str::to_owned));
            hits.push(card.map_err(|fault| fault.reject()));
        }
        let taken = match take(hits) {
            Ok(taken) => taken,
            Err(why) => return Err(Refusal::CutShort { why: why.name(), kept, next, rejected }),
        };
        kept += taken.kept;
        for (place, reject) in taken.refused.iter().zip(&taken.rejected) {
            let mut row = json!({ "card": next + place, "error": reject.name() });
            let about = abouts[*place].take();
            if let Some(about) = about.or_else(|| reject.field().map(in_a_card).map(Into::into)) {
                row["about"] = json!(about);
            }
            rejected.push(row);
        }
        next += abouts.len();
    }
    Ok(json!({ "schema": 1, "kept": kept, "rejected": rejected }))
}

/// Reads a card as the hit that a server would send: who it is, what is known of them, and what
/// happened.
fn read(card: Value, key: &str, silent: bool, limits: &BeaconLimits) -> Result<RawHit, Fault> {
    let Value::Object(mut card) = card else {
        return Err(Fault::Reject(Reject::MalformedJson));
    };
    says_only(&card, &CARD)?;
    card.retain(|_, value| !value.is_null());
    let malformed = |field| Fault::Reject(Reject::MalformedField(field));
    let mut who = match card.remove("id") {
        None => Map::new(),
        Some(Value::Object(who)) => who,
        Some(_) => return Err(malformed("id")),
    };
    says_only(&who, &WHO)?;
    for name in WHO {
        if let Some(value) = card.remove(name) {
            who.insert(name.to_owned(), value);
        }
    }
    let silent = match card.remove("silent") {
        None => silent,
        Some(Value::Bool(own)) => own || silent,
        Some(_) => return Err(malformed("silent")),
    };
    let mut hit = Map::from_iter([
        ("s".to_owned(), json!(key)),
        ("id".to_owned(), Value::Object(who)),
        ("silent".to_owned(), json!(silent)),
    ]);
    if let Some(at) = card.remove("at") {
        let at = time_of(&at).ok_or(malformed("at"))?;
        hit.insert("at".to_owned(), json!(at.0));
    }
    hit.insert("e".to_owned(), card.remove("event").unwrap_or_else(|| json!("identify")));
    for (name, field) in [("consent", "c"), ("device", "d"), ("url", "u"), ("p", "p")] {
        if let Some(value) = card.remove(name) {
            hit.insert(field.to_owned(), value);
        }
    }
    let hit = beacon::read_one(Value::Object(hit), limits).map_err(Fault::Reject)?;
    match hit.facts.iter().find(|(_, text)| text.is_none()) {
        Some((fact, _)) => Err(malformed(fact.field())),
        None => Ok(hit),
    }
}

fn says_only(fields: &Map<String, Value>, known: &[&str]) -> Result<(), Fault> {
    match fields.keys().find(|field| !known.contains(&field.as_str())) {
        Some(unknown) => Err(Fault::NoSuchField(unknown.clone())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BeaconLimits =
        BeaconLimits { hits_max: usize::MAX, hit_bytes_max: 65_536, depth_max: 32 };

    fn card(card: Value) -> Result<RawHit, Fault> {
        read(card, "demo", false, &LIMITS)
    }

    #[test]
    fn a_moment_is_text_or_a_number_and_a_card_may_be_silent_by_itself() {
        let read = card(json!({
            "email": "a@x.example", "at": "2026-12-06T23:56:00Z", "silent": true, "event": null,
        }));
        let read = read.unwrap();
        assert_eq!((read.at, read.silent), (Some(1_796_601_360_000), true));
        assert_eq!(read.event, "identify");
        let read = card(json!({ "email": "a@x.example", "at": 1_796_601_360_000_u64 })).unwrap();
        assert_eq!((read.at, read.silent), (Some(1_796_601_360_000), false));
    }

    #[test]
    fn what_is_wrong_with_a_card_is_named_as_the_card_calls_it() {
        for (wrong, about) in [
            (json!({ "e-mail": "a@x.example" }), "e-mail"),
            (json!({ "silent": "true" }), "silent"),
            (json!({ "at": "yesterday" }), "at"),
            (json!({ "event": 7 }), "event"),
            (json!({ "consent": "maybe" }), "consent"),
            (json!({ "attributes": [] }), "attributes"),
            (json!({ "level": "persons" }), "level"),
            (json!({ "attributes": { "customer": "perhaps" } }), "attributes.customer"),
            (
                json!({ "attributes": { "registered_events": [[]] } }),
                "attributes.registered_events",
            ),
            (json!({ "id": "a@x.example" }), "user_id, crm_id or email"),
            (json!({ "id": { "mail": "a@x.example" } }), "mail"),
        ] {
            let fault = card(wrong.clone()).unwrap_err();
            assert_eq!(fault.about(), Some(about), "{wrong}");
            assert_eq!(fault.reject().name(), "malformed_field", "{wrong}");
        }
    }

    #[test]
    fn cards_that_are_refused_for_want_of_room_say_how_many_were_kept_before_them() {
        let good = || card(json!({ "email": "a@x.example" }));
        let mut cards: Vec<_> = (0..=CARDS_AT_ONCE).map(|_| good()).collect();
        cards[7] = card(json!({ "email": "a@x.example", "silemt": true }));
        let mut calls = 0;
        let cut = take_all(cards, |hits| {
            calls += 1;
            if calls == 2 {
                return Err(Reject::JournalFull);
            }
            assert_eq!(hits.len(), CARDS_AT_ONCE);
            let refused = hits
                .iter()
                .enumerate()
                .filter_map(|(place, hit)| Some((place, hit.as_ref().err().copied()?)));
            let (refused, rejected): (Vec<_>, Vec<_>) = refused.unzip();
            Ok(Taken { kept: CARDS_AT_ONCE - 1, refused, rejected, ..Taken::default() })
        });
        let rejected = vec![json!({ "card": 7, "error": "malformed_field", "about": "silemt" })];
        let (kept, next) = (CARDS_AT_ONCE - 1, CARDS_AT_ONCE);
        assert_eq!(cut, Err(Refusal::CutShort { why: "journal_full", kept, next, rejected }));
    }
}
