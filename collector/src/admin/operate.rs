//! What people and programs may do to what is known: say who somebody is, join and part people,
//! give browsers to them and take them back, withdraw hits, undo, answer questions. Each step
//! says who does it and why.

use std::sync::Arc;

use bytes::Bytes;
use engine::engine::Authority;
use engine::id::LeadId;
use engine::identity::{Assurance, Identity, IdentityKind};
use engine::time::Timestamp;
use hyper::Response;
use serde_json::{Value, json};

use super::person::erase;
use super::review::review;
use super::wish::{Wish, needed};
use super::{Admin, Refusal, answer, cards};
use crate::app::{App, SiteEntry};
use crate::journal::ReadError;
use crate::link::{self, Kind, SignedLink};
use crate::outbox::message::iso;
use crate::server::Body;
use crate::steps::withdraw::{Selection, withdraw};
use crate::steps::{self, Failed};

/// Longest name of who does something, in bytes.
const ACTOR_BYTES_MAX: usize = 100;
/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 500;
/// How long a link names a person, unless stated, in days.
const LINK_DAYS: u64 = 90;
/// How often it does so, unless stated.
const LINK_USES: u64 = 20;

impl Admin {
    /// A step that moves what is known, if the path is one. Its body is read where it holds up
    /// nobody, too: it may be long.
    pub(super) async fn operate(&self, path: &str, body: Bytes) -> Result<Response<Body>, Refusal> {
        let act: fn(&Arc<App>, &[u8]) -> Result<Value, Refusal> = match path {
            "/api/identify" | "/api/attributes" => |app, body| cards::state(app, body, false),
            "/api/import" => |app, body| cards::state(app, body, true),
            "/api/mail-links" => mail_links,
            "/api/merge" => merge,
            "/api/unmerge" => unmerge,
            "/api/link" => |app, body| tie(app, body, Tied::Link),
            "/api/unlink" => |app, body| tie(app, body, Tied::Unlink),
            "/api/confirm" => |app, body| tie(app, body, Tied::Confirm),
            "/api/withdraw" => withdraw_hits,
            "/api/erase" => erase,
            "/api/undo" => undo,
            "/api/review" => {
                let lists = Arc::clone(&self.lists);
                return self.run(move |app| review(app, &lists, &body)).await;
            }
            _ => return Err(Refusal::NotFound),
        };
        if self.app.journal.is_disk_full() && path != "/api/mail-links" {
            // It would wait for space, and hold a thread that those who only look need.
            return Err(Refusal::Unavailable);
        }
        self.run(move |app| act(app, &body)).await
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
            Failed::NoStep | Failed::Record(ReadError::NotDurable) => Refusal::NotFound,
            Failed::Removed(first, at) => Refusal::NotKept(first, at),
            Failed::Journal | Failed::Keys | Failed::Record(_) => Refusal::Unavailable,
        }
    }
}

/// Who does something, and why: both must be said.
pub(super) fn authority(wish: &Wish) -> Result<Authority, Refusal> {
    let text = |field: &'static str, most: usize| {
        let text = wish.text(field)?.map(str::trim).filter(|text| !text.is_empty());
        let text = needed(text, field)?;
        let plain = text.len() <= most && !text.chars().any(char::is_control);
        if plain { Ok(text.to_owned()) } else { Err(Refusal::TooMuch(field)) }
    };
    Ok(Authority {
        actor: text("actor", ACTOR_BYTES_MAX)?,
        reason: text("reason", REASON_BYTES_MAX)?,
        ..Authority::default()
    })
}

pub(super) fn site<'a>(app: &'a App, wish: &Wish) -> Result<&'a SiteEntry, Refusal> {
    let id = needed(wish.text("site")?, "site")?;
    let test = wish.flag("test")?.unwrap_or(false);
    needed(app.sites.of_id(id, test), "site")
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

/// Links for a mail: one for each person it goes to.
fn mail_links(app: &Arc<App>, body: &[u8]) -> Result<Value, Refusal> {
    const FIELDS: [&str; 10] =
        ["site", "test", "kind", "mail", "url", "title", "days", "uses", "landing", "to"];
    let wish = Wish::read(body, &FIELDS)?;
    let site = site(app, &wish)?;
    let kind = match wish.text("kind")? {
        None | Some("click") => Kind::Click,
        Some("open") => Kind::Open,
        Some("landing") => Kind::Landing,
        Some(_) => return Err(Refusal::Malformed("kind")),
    };
    let url = wish.text("url")?.unwrap_or_default();
    if kind != Kind::Open && !link::may_lead_to(url) {
        return Err(Refusal::Malformed("url"));
    }
    let text = |field: &'static str| {
        let text = wish.text(field)?.unwrap_or_default();
        let plain = text.len() <= link::TEXT_BYTES_MAX && !text.chars().any(char::is_control);
        if plain { Ok(text.to_owned()) } else { Err(Refusal::TooMuch(field)) }
    };
    let (mail, title) = (text("mail")?, text("title")?);
    if mail.is_empty() {
        return Err(Refusal::Malformed("mail"));
    }
    let days = wish.number("days")?.unwrap_or(LINK_DAYS);
    let life = link::LIFE_MAX.as_secs() / 86_400;
    if !(1..=life).contains(&days) {
        return Err(Refusal::TooMuch("days"));
    }
    let uses = wish.number("uses")?.unwrap_or(LINK_USES);
    let uses_max = u32::try_from(uses).map_err(|_| Refusal::TooMuch("uses"))?;
    let landing = wish.flag("landing")?.unwrap_or(true);
    let to = needed(wish.list("to")?, "to")?;
    let now = app.clock.now();
    let until_ms = now.0 + days * 86_400_000;
    let mut links = Vec::with_capacity(to.len());
    for person in to {
        let identity = named(person).ok_or(Refusal::Malformed("to"))?;
        let link = SignedLink {
            kind,
            site: site.site.id.clone(),
            test: site.test,
            who: identity.kind.name().to_owned(),
            value: identity.value().to_owned(),
            url: url.to_owned(),
            landing: kind == Kind::Click && landing,
            mail: mail.clone(),
            title: title.clone(),
            made_ms: now.0,
            until_ms,
            uses_max,
            id: 0,
        };
        links.push(json!({ "to": person, "url": link_url(app, &link) }));
    }
    Ok(json!({ "schema": 1, "until": iso(Timestamp(until_ms)), "links": links }))
}

/// The first name that a person is given by. All of them must be names.
fn named(person: &Value) -> Option<Identity> {
    let names = person.as_object()?;
    let is_name = |name: &String| IdentityKind::ORDER.iter().any(|kind| kind.name() == name);
    if !names.iter().all(|(name, value)| is_name(name) && (value.is_string() || value.is_null())) {
        return None;
    }
    let given = |kind: IdentityKind| Some((kind, names.get(kind.name())?.as_str()?));
    let (kind, value) = IdentityKind::ORDER.into_iter().find_map(given)?;
    Identity::parse(kind, value).ok()
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

fn merge(app: &Arc<App>, body: &[u8]) -> Result<Value, Refusal> {
    let wish = Wish::read(body, &["one", "other", "actor", "reason"])?;
    let both = (needed(wish.lead("one")?, "one")?, needed(wish.lead("other")?, "other")?);
    let (position, stays) = steps::merge(app, both, &authority(&wish)?)?;
    Ok(json!({ "schema": 1, "position": position.0, "lead": stays.to_string() }))
}

fn unmerge(app: &Arc<App>, body: &[u8]) -> Result<Value, Refusal> {
    let wish = Wish::read(body, &["name", "actor", "reason"])?;
    let name = needed(wish.lead("name")?, "name")?;
    let (position, from) = steps::unmerge(app, name, &authority(&wish)?)?;
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

fn tie(app: &Arc<App>, body: &[u8], how: Tied) -> Result<Value, Refusal> {
    let known: &[&str] = match how {
        Tied::Link => &["visitor", "lead", "assurance", "actor", "reason"],
        Tied::Unlink | Tied::Confirm => &["visitor", "lead", "actor", "reason"],
    };
    let wish = Wish::read(body, known)?;
    let visitor = needed(wish.visitor("visitor")?, "visitor")?;
    let both = (visitor, needed(wish.lead("lead")?, "lead")?);
    let why = authority(&wish)?;
    let position = match how {
        Tied::Link => {
            // A person who says so has looked; what only a form said stays a claim.
            let assurance = wish.parsed("assurance", assurance)?.unwrap_or(Assurance::Verified);
            steps::link(app, both, assurance, &why)
        }
        Tied::Unlink => steps::unlink(app, both, &why),
        Tied::Confirm => steps::confirm(app, both, &why),
    }?;
    Ok(json!({ "schema": 1, "position": position.0 }))
}

/// How sure a person may say that a tie is.
fn assurance(name: &str) -> Option<Assurance> {
    [Assurance::Verified, Assurance::Claimed].into_iter().find(|known| known.name() == name)
}

fn withdraw_hits(app: &Arc<App>, body: &[u8]) -> Result<Value, Refusal> {
    let (selection, why) = selection(body)?;
    let outcome = withdraw(app, &selection, &why)?;
    Ok(json!({
        "schema": 1,
        "position": outcome.job.0,
        "hits": outcome.hits,
        "visitors": outcome.visitors,
        "leads": outcome.leads,
    }))
}

/// Which hits are to be withdrawn. Never more than was meant: a restriction that cannot be read
/// is no missing one.
fn selection(body: &[u8]) -> Result<(Selection, Authority), Refusal> {
    const FIELDS: [&str; 8] =
        ["visitor", "lead", "network", "agent", "from", "until", "actor", "reason"];
    let wish = Wish::read(body, &FIELDS)?;
    let agent = |text: &str| (!text.is_empty()).then(|| text.to_ascii_lowercase());
    let selection = Selection {
        visitor: wish.visitor("visitor")?,
        lead: wish.lead("lead")?,
        network: wish.parsed("network", |text| text.parse().ok())?,
        agent: wish.parsed("agent", agent)?,
        from: wish.time("from")?,
        until: wish.time("until")?,
    };
    if selection.is_empty() {
        return Err(Refusal::Malformed("one of visitor, lead, network, agent, from and until"));
    }
    Ok((selection, authority(&wish)?))
}

fn undo(app: &Arc<App>, body: &[u8]) -> Result<Value, Refusal> {
    let wish = Wish::read(body, &["position", "actor", "reason"])?;
    let position = needed(wish.position("position")?, "position")?;
    let position = steps::undo(app, position, &authority(&wish)?)?;
    Ok(json!({ "schema": 1, "position": position.0 }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Network;

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

    fn selected(body: &str) -> Result<Selection, Refusal> {
        selection(body.as_bytes()).map(|(selection, _)| selection)
    }

    #[test]
    fn a_withdrawal_with_a_restriction_that_cannot_be_read_is_refused_by_its_name() {
        let with = |more: &str| {
            selected(&format!(r#"{{"network":"203.0.113.0/24","actor":"a","reason":"b",{more}}}"#))
        };
        for (more, about) in [
            (r#""from":true"#, "from"),
            (r#""until":"soon""#, "until"),
            (r#""agent":7"#, "agent"),
            (r#""agent":"""#, "agent"),
            (r#""lead":1"#, "lead"),
            (r#""lead":"L12""#, "lead"),
            (r#""visitor":["V"]"#, "visitor"),
        ] {
            assert_eq!(with(more).unwrap_err(), Refusal::Malformed(about), "{more}");
        }
        let unknown = with(r#""form":1796601300000"#).unwrap_err();
        assert_eq!(unknown, Refusal::NoSuchField("form".into()));
        let network = selected(r#"{"network":3405803776,"from":1,"actor":"a","reason":"b"}"#);
        assert_eq!(network.unwrap_err(), Refusal::Malformed("network"));
    }

    #[test]
    fn a_withdrawal_s_moments_are_numbers_or_texts_and_all_hits_are_no_selection() {
        let of = |from: &str| {
            let body =
                format!(r#"{{"network":"203.0.113.0/24","from":{from},"actor":"a","reason":"b"}}"#);
            selected(&body).unwrap()
        };
        for from in ["1796601360000", "\"2026-12-06T23:56:00Z\""] {
            let found = of(from);
            assert_eq!(found.from, Some(Timestamp(1_796_601_360_000)), "{from}");
            assert_eq!(found.network, "203.0.113.0/24".parse::<Network>().ok());
        }
        let all = selected(r#"{"from":null,"actor":"a","reason":"b"}"#).unwrap_err();
        assert!(matches!(all, Refusal::Malformed(about) if about.starts_with("one of visitor")));
    }

    #[test]
    fn a_person_of_a_mail_is_given_by_names_alone() {
        let is_somebody = |person: Value| named(&person).is_some();
        assert!(is_somebody(json!({ "email": "a@x.example", "user_id": null })));
        for nobody in [
            json!({}),
            json!("a@x.example"),
            json!({ "email": 7 }),
            json!({ "user_id": 7, "email": "a@x.example" }),
            json!({ "emial": "a@x.example" }),
            json!({ "email": "a@x.example", "nmae": "A" }),
            json!({ "email": "null" }),
        ] {
            assert!(!is_somebody(nobody.clone()), "{nobody}");
        }
    }
}
