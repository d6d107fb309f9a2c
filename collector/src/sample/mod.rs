//! `mikomi sample`: what an endpoint would be sent, for an example that never happened. It is
//! played by the engine with the rules of the settings and goes the way of every message, so
//! nothing of it is written down beforehand. Templates are tried out on the same examples.

mod stage;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::time::Duration;

use engine::alert::{AlertId, AlertKind, Cause};
use engine::id::Key;
use engine::record::Sent;
use engine::time::UtcOffset;
use serde_json::Value;

use self::stage::{OWNER, Scene, play};
use crate::config::{
    Around, CrmLink, DEFAULT_SCORING, Endpoint, Loaded, Owner, Owners, Problem, ScoringFile,
    Surroundings,
};
use crate::outbox::chat::Wording;
use crate::outbox::look::{Form, Lang, Look, Rendered};
use crate::outbox::message::Material;
use crate::outbox::template::TemplateError;

const ALERT: &str = "msg_5Yk2Qv8dT3mR9sLx0aWbNc";
const ADMIN_URL: &str = "https://mikomi.vendor.example";
/// From the collector's clock to the disk.
const TO_DISK: Duration = Duration::from_millis(2);

/// What an example is made with: the settings, and where they say nothing, examples of them.
struct Props<'a> {
    owners: Owners,
    admin_url: &'a str,
    crm_link: Option<CrmLink>,
}

impl Props<'_> {
    fn example() -> Props<'static> {
        let owner = Owner {
            mail: OWNER.to_owned(),
            name_ja: "佐藤".to_owned(),
            name_en: "Sato".to_owned(),
            slack: Some("U0SATO".to_owned()),
            chatwork: Some("1234567".to_owned()),
            utc_offset: UtcOffset::parse("+09:00"),
            ..Owner::default()
        };
        Props {
            owners: Owners::of([owner]),
            admin_url: ADMIN_URL,
            crm_link: CrmLink::parse("https://crm.vendor.example/lead/{crm}").ok(),
        }
    }

    /// The message of a scene, made like every other.
    fn material<T>(&self, scene: &Scene, tell: impl FnOnce(&Material<'_>) -> T) -> Option<T> {
        let cause = scene.timeline.get(&scene.at.0)?;
        let part = cause.lead_part()?;
        let message = part.messages.get(scene.at.1)?;
        let profile = scene.lead.profile();
        let committed = message.told.at.plus(TO_DISK);
        Some(tell(&Material {
            alert: ALERT,
            message,
            crossing: message.crossing.and_then(|it| part.crossings.get(usize::from(it))),
            retracts: message.takes_back.as_ref().map(taken_back),
            site: "www",
            cause,
            lead_id: part.lead,
            lead: &scene.lead,
            attributes: &profile.attributes,
            confirmed_by: &profile.confirmed_by,
            timeline: &scene.timeline,
            first: None,
            begins_later: false,
            scoring: &scene.scoring,
            catalog: &scene.catalog,
            taps: taps(message.kind),
            owners: &self.owners,
            admin_url: Some(self.admin_url),
            crm_link: self.crm_link.as_ref(),
            committed,
            queued: committed,
        }))
    }
}

/// Links as they look. No real ones: they would answer for nobody.
fn taps(kind: AlertKind) -> Option<[String; 3]> {
    let asks = matches!(
        kind,
        AlertKind::Hot | AlertKind::Action | AlertKind::Escalated | AlertKind::Reminder
    );
    let link = |end: &str| format!("https://go.vendor.example/f/{end}");
    asks.then(|| ["a.5Yk2Qv8d.x7Jm", "r.5Yk2Qv8d.k1Tz", "s.5Yk2Qv8d.q9Pd"].map(link))
}

fn taken_back(sent: &Sent) -> AlertId {
    let cause = Cause {
        incarnation: 1,
        position: sent.position,
        place: sent.place,
        kind: sent.kind,
        lead: sent.lead,
        audience: sent.audience.as_deref().unwrap_or_default(),
    };
    AlertId::derive(&Key([0; 16]), &cause)
}

/// The rules that ship.
fn shipped_rules() -> Result<ScoringFile, Vec<Problem>> {
    let surroundings = Surroundings::default();
    let around = Around { surroundings: &surroundings, settings: None };
    ScoringFile::parse("the built-in scoring.toml", DEFAULT_SCORING, around)
}

/// Whose endpoint a sample is for.
pub enum For<'a> {
    /// One of the settings.
    Endpoint(&'a Endpoint),
    /// One that takes a form in a language.
    Form(Form, Lang),
}

/// A sample, as people read it.
#[derive(Debug)]
pub struct Sample {
    /// The body: JSON with line breaks, a chat's text without its wrapping.
    pub text: String,
    /// Whether the rules that ship had to be taken: those of the settings never tell this of the
    /// example's person.
    pub by_shipped_rules: bool,
    /// Why the template of the settings was not used, if it failed.
    pub failed: Option<TemplateError>,
}

/// What an endpoint would be sent.
pub fn sample(kind: AlertKind, whose: &For<'_>, loaded: &Loaded) -> Result<Sample, Vec<Problem>> {
    let one = |problem: Problem| vec![problem];
    let played = play(&loaded.scoring, kind).map_err(one)?;
    let by_shipped_rules = played.is_none();
    let scene = match played {
        Some(scene) => Some(scene),
        None => play(&shipped_rules()?, kind).map_err(one)?,
    };
    let admin = &loaded.settings.admin;
    let example = Props::example();
    let props = Props {
        admin_url: admin.admin_url.as_deref().unwrap_or(ADMIN_URL),
        crm_link: admin.crm_link.clone().or(example.crm_link),
        owners: example.owners,
    };
    let rendered = scene.and_then(|scene| {
        props.material(&scene, |material| match whose {
            For::Endpoint(endpoint) => (
                material.rendered(&material.body(&endpoint.hide), &endpoint.look, &endpoint.hide),
                (endpoint.look.form, endpoint.look.template.is_some()),
            ),
            For::Form(form, lang) => {
                let app = (*form == Form::Kintone).then_some(1);
                let look = Look { form: *form, lang: *lang, app, template: None };
                (
                    material.rendered(&material.body(&form.hidden()), &look, &form.hidden()),
                    (*form, false),
                )
            }
        })
    });
    let (rendered, manner) = rendered
        .ok_or_else(|| vec![Problem::of_file("sample", "the rules that ship tell nothing")])?;
    Ok(Sample { text: readable(&rendered, manner), by_shipped_rules, failed: rendered.failed })
}

/// A body as people read it.
fn readable(rendered: &Rendered, (form, own): (Form, bool)) -> String {
    let text = String::from_utf8_lossy(&rendered.bytes);
    if form == Form::Chatwork {
        let field = form_urlencoded::parse(&rendered.bytes).next();
        return field.map_or_else(String::new, |(_, value)| value.into_owned());
    }
    if form == Form::Json && own {
        return text.into_owned();
    }
    let read: Result<Value, _> = serde_json::from_str(&text);
    read.and_then(|value| serde_json::to_string_pretty(&value)).unwrap_or(text.into_owned())
}

/// A body, and the same in each language.
struct Example {
    kind: AlertKind,
    body: Value,
    chats: [Wording; 2],
}

/// One example of every kind, by the rules that ship.
fn examples() -> &'static [Example] {
    static PLAYED: OnceLock<Vec<Example>> = OnceLock::new();
    PLAYED.get_or_init(|| {
        let Ok(rules) = shipped_rules() else {
            return Vec::new();
        };
        let props = Props::example();
        let of = |kind: AlertKind| {
            let scene = play(&rules, kind).ok()??;
            props.material(&scene, |material| {
                let nothing = BTreeSet::new();
                let body = material.body(&nothing);
                let chats = [Lang::Ja, Lang::En].map(|lang| material.chat(&body, &nothing, lang));
                Example { kind, body, chats }
            })
        };
        AlertKind::ALL.into_iter().filter_map(of).collect()
    })
}

/// Renders an example of every kind, and says with which a template of one's own fails.
pub fn try_out(look: &Look) -> Result<(), (AlertKind, TemplateError)> {
    let Some(template) = &look.template else {
        return Ok(());
    };
    for example in examples() {
        let chat = &example.chats[look.lang as usize];
        look.with(template, &example.body, chat).map_err(|error| (example.kind, error))?;
    }
    Ok(())
}
