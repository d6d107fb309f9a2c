//! What a person may ask for: everything that is held about them, and to be forgotten.

use std::collections::BTreeSet;
use std::sync::Arc;

use engine::engine::StepError;
use engine::facts::Said;
use engine::id::{LeadId, Position};
use engine::identity::IdentityKind;
use engine::ledger::Row;
use engine::record::{Body, NameKind};
use serde_json::{Map, Value, json};

use super::operate::{authority, lead_of, site};
use super::view::View;
use super::wish::Wish;
use super::{Admin, Refusal};
use crate::app::App;
use crate::outbox::message::{iso, points, rule_names};
use crate::steps::{self, Failed};
use crate::timeline::{self, Walked};

/// Records of one person in an export.
const RECORDS_MAX: usize = 100_000;
/// What an erasure may say.
const FIELDS: [&str; 8] = ["lead", "site", "test", "user_id", "crm_id", "email", "actor", "reason"];

/// Erases a person. Twice is as good as once.
pub(super) fn erase(app: &Arc<App>, body: &[u8]) -> Result<Value, Refusal> {
    let wish = Wish::read(body, &FIELDS)?;
    let lead = whom(app, &wish)?;
    let erased = match steps::erase(app, lead, &authority(&wish)?) {
        Ok(erased) => erased,
        Err(Failed::Step(StepError::Erased)) => {
            let (position, at) = app.engine.erasure(lead).unwrap_or_default();
            return Ok(json!({
                "schema": 1,
                "lead": lead.to_string(),
                "already": true,
                "position": position.0,
                "erased": iso(at),
            }));
        }
        Err(Failed::Step(StepError::NoLead)) => return Err(Refusal::NotFound),
        Err(failed) => return Err(failed.into()),
    };
    Ok(json!({
        "schema": 1,
        "lead": erased.lead.to_string(),
        "already": false,
        "position": erased.position.0,
        "erased": iso(erased.time),
        "names": erased.names.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "browsers": erased.browsers.len(),
        "rows": erased.rows,
        "statements": erased.said,
        "answers": erased.answers,
    }))
}

/// Of whom it is: a lead, or one name at a site.
fn whom(app: &App, wish: &Wish) -> Result<LeadId, Refusal> {
    let mut named = Vec::new();
    for kind in IdentityKind::ORDER {
        named.extend(wish.text(kind.name())?.map(|value| (kind, value)));
    }
    match (wish.lead("lead")?, named.as_slice()) {
        (Some(lead), []) => Ok(lead),
        (None, [(kind, value)]) => lead_of(app, site(app, wish)?, *kind, value),
        _ => Err(Refusal::Malformed("one of lead, user_id, crm_id and email")),
    }
}

impl Admin {
    /// Everything that is held about one person.
    pub(super) fn export_person(&self, view: &View<'_>, id: LeadId) -> Result<Value, Refusal> {
        let app = &self.app;
        let id = app.engine.head(id);
        let lead = app.engine.lead(id).ok_or_else(|| self.missing(id))?;
        let names: Vec<LeadId> = lead.content.members.iter().map(|member| member.id).collect();
        // Nobody is shown what may yet be lost.
        app.journal.wait_blocking(lead.last_position).map_err(|_| Refusal::Unavailable)?;
        let records = timeline::of_lead(app, &lead, lead.last_position, RECORDS_MAX);
        let Walked { records, begins_later } = records.map_err(|error| self.unread(&error))?;
        let complete = records.len() < RECORDS_MAX && !begins_later;
        let mut events = view.timeline(&records)["events"].take();
        for event in events.as_array_mut().into_iter().flatten() {
            let position = Position(event["position"].as_u64().unwrap_or_default());
            if let Some(Body::Hit(record)) = records.get(&position).map(|it| &it.body) {
                let properties = record.hit.properties.iter();
                let properties = properties.map(|(name, value)| (name.clone(), json!(value)));
                event["properties"] = Value::Object(properties.collect::<Map<_, _>>());
            }
        }
        let mut alerts = Vec::new();
        let about: BTreeSet<LeadId> = names.iter().copied().chain([id]).collect();
        let about: Vec<LeadId> = about.into_iter().collect();
        let entries = self.log.book().entries_of(&about);
        let last = entries.last().copied().unwrap_or_default();
        app.journal.wait_blocking(last).map_err(|_| Refusal::Unavailable)?;
        // What is older is not kept, and is said so.
        let first = app.journal.first();
        for entry in entries.into_iter().filter(|entry| *entry >= first) {
            let body = self.body(entry, None)?;
            alerts.extend(body.and_then(|body| serde_json::from_slice::<Value>(&body).ok()));
        }
        Ok(json!({
            "schema": 1,
            "at": iso(app.clock.now()),
            "lead": view.lead(id),
            "said": lead.content.said.iter().map(said).collect::<Vec<_>>(),
            "set_aside": lead.content.aside.said.iter().map(said).collect::<Vec<_>>(),
            "ledger": lead.content.rows.iter().map(|row| self.row(view, row)).collect::<Vec<_>>(),
            "events": events,
            "complete": complete,
            "kept_from": self.kept_from(),
            "alerts": alerts,
        }))
    }

    fn row(&self, view: &View<'_>, row: &Row) -> Value {
        let catalog = self.app.engine.catalog();
        let (rule, name) = rule_names(view.scoring(), &catalog, row.rule);
        json!({
            "when": iso(row.when),
            "position": row.position.0,
            "rule": rule,
            "name": name,
            "category": catalog.name(NameKind::Category, u16::from(row.category.0)),
            "base": points(row.base),
            "granted": points(row.granted),
            "cut": row.cut.name(),
            "withdrawn": row.withdrawn,
        })
    }
}

/// What was said of them: what, by whom, when and how surely.
fn said(said: &Said) -> Value {
    json!({
        "at": iso(said.time),
        "position": said.position.0,
        "by": &*said.by,
        "assurance": said.attributes_by.name(),
        "about": said.level.name(),
        "consent": said.consent,
        "attributes": *said.attributes,
    })
}
