//! What people and programs may do to what is known: say who somebody is, join and part people,
//! give browsers to them and take them back, withdraw hits, undo, answer questions. Each step
//! says who does it and why.

use std::sync::Arc;

use engine::engine::Authority;
use engine::id::{LeadId, Position, VisitorId};
use engine::identity::{Assurance, Identity, IdentityKind};
use engine::time::Timestamp;
use hyper::Response;
use serde_json::{Map, Value, json};

use super::{Admin, Refusal, answer, parse_time};
use crate::app::{App, SiteEntry};
use crate::ingest::beacon::{self, BeaconLimits};
use crate::ingest::{self, RawHit, Reject, Sender};
use crate::link::{self, Kind, SignedLink};
use crate::net::Network;
use crate::outbox::message::iso;
use crate::server::Body;
use crate::steps::withdraw::{Selection, withdraw};
use crate::steps::{self, Failed};

/// Longest name of who does something, in bytes.
const ACTOR_BYTES_MAX: usize = 100;
/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 500;
/// Statements taken at once; the rest follows.
const STATEMENTS_AT_ONCE: usize = 200;
/// People whose links are made in one request.
const RECIPIENTS_MAX: usize = 10_000;
/// How long a link names a person, unless stated, in days.
const LINK_DAYS: u64 = 90;
/// How often it does so, unless stated.
const LINK_USES: u64 = 20;

impl Admin {
    /// A step that moves what is known, if the path is one.
    pub(super) async fn operate(&self, path: &str, wish: Value) -> Result<Response<Body>, Refusal> {
        let act: fn(&Arc<App>, &Value) -> Result<Value, Refusal> = match path {
            "/api/identify" | "/api/attributes" => |app, wish| state(app, wish, false),
            "/api/import" => |app, wish| state(app, wish, true),
            "/api/mail-links" => mail_links,
            "/api/merge" => merge,
            "/api/unmerge" => unmerge,
            "/api/link" => |app, wish| tie(app, wish, Tied::Link),
            "/api/unlink" => |app, wish| tie(app, wish, Tied::Unlink),
            "/api/confirm" => |app, wish| tie(app, wish, Tied::Confirm),
            "/api/withdraw" => withdraw_hits,
            "/api/undo" => undo,
            "/api/review" => review,
            _ => return Err(Refusal::NotFound),
        };
        self.run(move |app| act(app, &wish)).await
    }

    /// Runs what may wait for locks and disks where it holds up nobody.
    pub(super) async fn run(
        &self,
        act: impl FnOnce(&Arc<App>) -> Result<Value, Refusal> + Send + 'static,
    ) -> Result<Response<Body>, Refusal> {
        let app = Arc::clone(&self.app);
        let done = tokio::task::spawn_blocking(move || act(&app)).await;
        Ok(answer(&done.map_err(|_| Refusal::Unavailable)??))
    }
}

impl From<Failed> for Refusal {
    fn from(failed: Failed) -> Refusal {
        match failed {
            Failed::Step(error) => Refusal::Step(error),
            Failed::Journal | Failed::Record(_) => Refusal::Unavailable,
            Failed::NoStep => Refusal::NotFound,
        }
    }
}

/// Who does something, and why: both must be said.
pub(super) fn authority(wish: &Value) -> Result<Authority, Refusal> {
    let text = |field: &'static str, most: usize| {
        let text = wish[field].as_str().map(str::trim).filter(|text| !text.is_empty());
        let text = text.ok_or(Refusal::Malformed(field))?;
        let plain = text.len() <= most && !text.chars().any(char::is_control);
        if plain { Ok(text.to_owned()) } else { Err(Refusal::TooMuch(field)) }
    };
    Ok(Authority {
        actor: text("actor", ACTOR_BYTES_MAX)?,
        reason: text("reason", REASON_BYTES_MAX)?,
        ..Authority::default()
    })
}

pub(super) fn lead(wish: &Value, field: &'static str) -> Result<LeadId, Refusal> {
    let id = wish[field].as_str().and_then(LeadId::parse);
    id.ok_or(Refusal::Malformed(field))
}

fn visitor(wish: &Value) -> Result<VisitorId, Refusal> {
    let id = wish["visitor"].as_str().and_then(VisitorId::parse);
    id.ok_or(Refusal::Malformed("visitor"))
}

fn position(wish: &Value, field: &'static str) -> Result<Position, Refusal> {
    wish[field].as_u64().map(Position).ok_or(Refusal::Malformed(field))
}

fn site<'a>(app: &'a App, wish: &Value) -> Result<&'a SiteEntry, Refusal> {
    let id = wish["site"].as_str().ok_or(Refusal::Malformed("site"))?;
    let test = wish["test"].as_bool().unwrap_or(false);
    app.sites.of_id(id, test).ok_or(Refusal::Malformed("site"))
}

/// The lead of a name, whoever's it is now.
pub(super) fn lead_of(
    app: &App,
    site: &SiteEntry,
    kind: IdentityKind,
    value: &str,
) -> Result<LeadId, Refusal> {
    let identity = Identity::parse(kind, value).map_err(|_| Refusal::Malformed(kind.name()))?;
    Ok(identity.lead(&app.install.identity, &site.namespace))
}

/// Statements of who people are: one, or a list of them. A card that is imported is news to
/// nobody.
fn state(app: &Arc<App>, wish: &Value, import: bool) -> Result<Value, Refusal> {
    let site = site(app, wish)?;
    let key = if site.test { site.site.test_key.as_ref() } else { site.site.keys.first() };
    let key = key.ok_or(Refusal::Malformed("site"))?;
    let cards = match &wish["cards"] {
        Value::Array(cards) => cards.clone(),
        Value::Null if !import => vec![wish.clone()],
        _ => return Err(Refusal::Malformed("cards")),
    };
    let limits = &app.settings.limits;
    let limits = BeaconLimits {
        hits_max: usize::MAX,
        hit_bytes_max: limits.hit_bytes_max,
        depth_max: limits.json_depth_max,
    };
    let silent = import || wish["silent"].as_bool().unwrap_or(false);
    let hits: Vec<Result<RawHit, Reject>> = cards
        .into_iter()
        .map(|card| beacon::read_one(hit_of(card, key, silent), &limits))
        .collect();
    let mut kept = 0;
    let mut rejected = Vec::new();
    let mut number = 0;
    for some in hits.chunks(STATEMENTS_AT_ONCE) {
        let sender = Sender { bytes: some.len() * 1_024, ..Sender::trusted() };
        let taken = ingest::take(app, &sender, some.to_vec()).map_err(|_| Refusal::Unavailable)?;
        if let Some(position) = taken.position {
            app.journal.wait_blocking(position).map_err(|_| Refusal::Unavailable)?;
        }
        kept += taken.kept;
        let mut errors = taken.rejected.iter();
        for (place, _) in some.iter().enumerate().filter(|(place, _)| taken.refused.contains(place))
        {
            let error = errors.next().map_or("unknown", |reject| reject.name());
            rejected.push(json!({ "card": number + place, "error": error }));
        }
        number += some.len();
    }
    Ok(json!({ "schema": 1, "kept": kept, "rejected": rejected }))
}

/// A card as a server would send it: who it is, what is known of them, and what happened.
fn hit_of(card: Value, key: &str, silent: bool) -> Value {
    let Value::Object(mut card) = card else {
        return card;
    };
    let mut id = match card.remove("id") {
        Some(Value::Object(id)) => id,
        _ => Map::new(),
    };
    for name in ["user_id", "crm_id", "email", "attributes", "level"] {
        if let Some(value) = card.remove(name) {
            id.insert(name.to_owned(), value);
        }
    }
    let mut hit = Map::from_iter([
        ("s".to_owned(), json!(key)),
        ("id".to_owned(), Value::Object(id)),
        ("silent".to_owned(), json!(silent)),
    ]);
    let event = card.remove("event").unwrap_or_else(|| json!("identify"));
    hit.insert("e".to_owned(), event);
    for (name, field) in [("consent", "c"), ("at", "at"), ("device", "d"), ("url", "u"), ("p", "p")]
    {
        if let Some(value) = card.remove(name) {
            hit.insert(field.to_owned(), value);
        }
    }
    Value::Object(hit)
}

/// Links for a mail: one for each person it goes to.
fn mail_links(app: &Arc<App>, wish: &Value) -> Result<Value, Refusal> {
    let site = site(app, wish)?;
    let kind = match wish["kind"].as_str() {
        None | Some("click") => Kind::Click,
        Some("open") => Kind::Open,
        Some("landing") => Kind::Landing,
        Some(_) => return Err(Refusal::Malformed("kind")),
    };
    let url = wish["url"].as_str().unwrap_or_default();
    if kind != Kind::Open && !link::may_lead_to(url) {
        return Err(Refusal::Malformed("url"));
    }
    let text = |field: &'static str| {
        let text = wish[field].as_str().unwrap_or_default();
        let plain = text.len() <= link::TEXT_BYTES_MAX && !text.chars().any(char::is_control);
        if plain { Ok(text.to_owned()) } else { Err(Refusal::TooMuch(field)) }
    };
    let mail = text("mail")?;
    if mail.is_empty() {
        return Err(Refusal::Malformed("mail"));
    }
    let days = wish["days"].as_u64().unwrap_or(LINK_DAYS);
    let life = link::LIFE_MAX.as_secs() / 86_400;
    if !(1..=life).contains(&days) {
        return Err(Refusal::TooMuch("days"));
    }
    let uses = wish["uses"].as_u64().unwrap_or(LINK_USES);
    let uses_max = u32::try_from(uses).map_err(|_| Refusal::TooMuch("uses"))?;
    let to = wish["to"].as_array().ok_or(Refusal::Malformed("to"))?;
    if to.len() > RECIPIENTS_MAX {
        return Err(Refusal::TooMuch("to"));
    }
    let until_ms = app.clock.now().0 + days * 86_400_000;
    let mut links = Vec::with_capacity(to.len());
    for person in to {
        let (kind_of_name, value) = named(person).ok_or(Refusal::Malformed("to"))?;
        let identity =
            Identity::parse(kind_of_name, value).map_err(|_| Refusal::Malformed("to"))?;
        let link = SignedLink {
            kind,
            site: site.site.id.clone(),
            test: site.test,
            who: identity.kind.name().to_owned(),
            value: identity.value().to_owned(),
            url: url.to_owned(),
            landing: kind == Kind::Click && wish["landing"].as_bool().unwrap_or(true),
            mail: mail.clone(),
            title: text("title")?,
            until_ms,
            uses_max,
            id: 0,
        };
        links.push(json!({ "to": person, "url": link_url(app, &link) }));
    }
    Ok(json!({ "schema": 1, "until": iso(Timestamp(until_ms)), "links": links }))
}

/// The first name that a person is given by.
fn named(person: &Value) -> Option<(IdentityKind, &str)> {
    let given = |kind: IdentityKind| Some((kind, person[kind.name()].as_str()?));
    IdentityKind::ORDER.into_iter().find_map(given)
}

fn link_url(app: &App, link: &SignedLink) -> String {
    let base = app.collector_url();
    match link.kind {
        Kind::Click => format!("{base}/c/{}", link.seal(&app.install, &app.ids)),
        Kind::Open => format!("{base}/o/{}.gif", link.seal(&app.install, &app.ids)),
        Kind::Landing => {
            // The page is where the token stands; inside it, it would only make it longer.
            let token = SignedLink { url: String::new(), ..link.clone() };
            with_token(&link.url, &token.seal(&app.install, &app.ids))
        }
    }
}

/// A page's address with a token in its query, which ends where the anchor begins.
fn with_token(url: &str, token: &str) -> String {
    let anchor = url.find('#').unwrap_or(url.len());
    let (page, anchor) = url.split_at(anchor);
    let mark = if page.contains('?') { '&' } else { '?' };
    format!("{page}{mark}{}={token}{anchor}", link::QUERY_NAME)
}

fn merge(app: &Arc<App>, wish: &Value) -> Result<Value, Refusal> {
    let (one, other) = (lead(wish, "one")?, lead(wish, "other")?);
    let (position, stays) = steps::merge(app, (one, other), &authority(wish)?)?;
    Ok(json!({ "schema": 1, "position": position.0, "lead": stays.to_string() }))
}

fn unmerge(app: &Arc<App>, wish: &Value) -> Result<Value, Refusal> {
    let name = lead(wish, "name")?;
    let (position, from) = steps::unmerge(app, name, &authority(wish)?)?;
    Ok(json!({
        "schema": 1, "position": position.0, "lead": name.to_string(), "from": from.to_string(),
    }))
}

#[derive(Clone, Copy)]
enum Tied {
    Link,
    Unlink,
    Confirm,
}

fn tie(app: &Arc<App>, wish: &Value, how: Tied) -> Result<Value, Refusal> {
    let both = (visitor(wish)?, lead(wish, "lead")?);
    let why = authority(wish)?;
    let position = match how {
        Tied::Link => {
            // A person who says so has looked; what only a form said stays a claim.
            let claimed = wish["assurance"].as_str() == Some(Assurance::Claimed.name());
            let assurance = if claimed { Assurance::Claimed } else { Assurance::Verified };
            steps::link(app, both, assurance, &why)
        }
        Tied::Unlink => steps::unlink(app, both, &why),
        Tied::Confirm => steps::confirm(app, both, &why),
    }?;
    Ok(json!({ "schema": 1, "position": position.0 }))
}

fn withdraw_hits(app: &Arc<App>, wish: &Value) -> Result<Value, Refusal> {
    let text = |field: &str| wish[field].as_str();
    let time = |field: &'static str| {
        let time = text(field).map(|text| parse_time(text).ok_or(Refusal::Malformed(field)));
        time.transpose()
    };
    let network = text("network").map(str::parse::<Network>);
    let selection = Selection {
        visitor: if wish["visitor"].is_null() { None } else { Some(visitor(wish)?) },
        lead: if wish["lead"].is_null() { None } else { Some(lead(wish, "lead")?) },
        network: network.transpose().map_err(|_| Refusal::Malformed("network"))?,
        agent: text("agent").map(str::to_ascii_lowercase),
        from: time("from")?,
        until: time("until")?,
    };
    if selection.is_empty() {
        return Err(Refusal::Malformed("one of visitor, lead, network, agent, from and until"));
    }
    let outcome = withdraw(app, &selection, &authority(wish)?)?;
    Ok(json!({
        "schema": 1,
        "position": outcome.job.0,
        "hits": outcome.hits,
        "visitors": outcome.visitors,
        "leads": outcome.leads,
    }))
}

fn undo(app: &Arc<App>, wish: &Value) -> Result<Value, Refusal> {
    let position = steps::undo(app, position(wish, "position")?, &authority(wish)?)?;
    Ok(json!({ "schema": 1, "position": position.0 }))
}

/// Answers a question: the two are one, or there is nothing to it.
fn review(app: &Arc<App>, wish: &Value) -> Result<Value, Refusal> {
    let (question, why) = (position(wish, "question")?, authority(wish)?);
    let joined = match wish["answer"].as_str() {
        Some("merge") => Some(merge(app, wish)?),
        Some("dismiss") => None,
        _ => return Err(Refusal::Malformed("answer")),
    };
    let position = steps::dismiss(app, question, &why)?;
    Ok(json!({ "schema": 1, "position": position.0, "merged": joined }))
}

#[cfg(test)]
mod tests {
    use super::with_token;

    #[test]
    fn a_landing_token_stands_in_the_query_whatever_the_anchor_holds() {
        for (url, expected) in [
            ("https://a.example/lp", "https://a.example/lp?mk=T"),
            ("https://a.example/lp?x=1", "https://a.example/lp?x=1&mk=T"),
            ("https://a.example/#/plans?x=1", "https://a.example/?mk=T#/plans?x=1"),
            ("https://a.example/?x=1#top", "https://a.example/?x=1&mk=T#top"),
        ] {
            assert_eq!(with_token(url, "T"), expected);
        }
    }
}
