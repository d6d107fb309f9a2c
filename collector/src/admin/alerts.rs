//! Alerts for systems that pull, and what each receiver has not got.

use std::collections::BTreeSet;

use engine::alert::AlertKind;
use engine::id::Position;
use engine::record::Body;
use serde_json::{Map, Value, json};

use super::{Admin, Query, Refusal, lead_id};
use crate::config::Endpoint;
use crate::journal::ReadError;
use crate::outbox::book::{Gap, Standing};
use crate::outbox::entry::{Entry, Queued};
use crate::timeline;

/// Bytes of bodies in one answer; one that would be longer ends there.
const BODIES_BYTES_MAX: usize = 4 * 1_024 * 1_024;

impl Admin {
    /// The alerts after a cursor, in order, each in full as endpoints get it in JSON.
    pub(super) fn feed(&self, query: &Query) -> Result<Value, Refusal> {
        let endpoint = query.get("endpoint").map(|id| self.endpoint(id)).transpose()?;
        if endpoint.as_ref().is_some_and(|it| it.chat.is_some() || !it.look.is_ours()) {
            return Err(Refusal::Malformed("endpoint: it gets another form than our JSON in full"));
        }
        let test = match &endpoint {
            Some(endpoint) => endpoint.test,
            None => query.flag("test")?,
        };
        let id = endpoint.as_ref().map(|endpoint| endpoint.id.as_str());
        let limit = query.limit()?;
        let after = query.get("after").map(|text| self.position_of(text)).transpose()?;
        let after = after.unwrap_or(Position::NONE);
        // Without a cursor it begins with what is kept.
        let before = Position(self.app.journal.first().0 - 1);
        let until = self.app.journal.durable();
        let (entries, looked) =
            self.log.book().entries((after.max(before), until), id, test, limit);
        let whole = entries.len() < limit;
        let (mut alerts, mut bytes, mut last) = (Vec::<Value>::new(), 0, after);
        let mut cut = false;
        for entry in entries {
            // Of whoever was erased nothing can be read any more; it says that there was something.
            if let Some(erased) = self.erased(entry)? {
                last = entry;
                alerts.push(erased);
                continue;
            }
            let body = self.body(entry, id)?;
            bytes += body.as_ref().map_or(0, Vec::len);
            cut = bytes > BODIES_BYTES_MAX && !alerts.is_empty();
            if cut {
                break;
            }
            last = entry;
            // What it was sent in another form, before its settings changed, it has had.
            alerts.extend(body.and_then(|body| serde_json::from_slice(&body).ok()));
        }
        if whole && !cut && looked > before {
            last = looked;
        }
        let more = cut || !whole;
        // One that stands where nothing is kept any more has missed nothing, and stays.
        let after = match query.get("after") {
            Some(text) if last == after => text.to_owned(),
            _ => self.cursor_of(last)?,
        };
        let kept_from = self.kept_from();
        Ok(json!({
            "schema": 1, "alerts": alerts, "after": after, "more": more, "kept_from": kept_from,
        }))
    }

    /// What stands for a message about somebody who was erased since.
    fn erased(&self, entry: Position) -> Result<Option<Value>, Refusal> {
        let Some(queued) = self.queued(entry)? else {
            return Ok(None);
        };
        let is_erased = |lead| self.app.engine.is_erased_since(lead, queued.cause());
        let is_void = queued.lead_id().is_some_and(is_erased);
        Ok(is_void.then(|| {
            let Queued { alert, lead, sequence, .. } = queued;
            json!({
                "type": "erased",
                "data": {
                    "schema": 1, "alert_id": alert, "sequence": sequence, "lead": { "id": lead },
                },
            })
        }))
    }

    fn queued(&self, entry: Position) -> Result<Option<Queued>, Refusal> {
        let record = timeline::read(&self.app, entry).map_err(|error| self.unread(&error))?;
        let Body::Outbox(bytes) = &record.body else {
            return Ok(None);
        };
        match Entry::decode(bytes) {
            Some(Entry::Queued(queued)) => Ok(Some(queued)),
            _ => Ok(None),
        }
    }

    /// The body in the entry at a position: the whole one, or an endpoint's.
    pub(super) fn body(
        &self,
        entry: Position,
        endpoint: Option<&str>,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        let Some(queued) = self.queued(entry)? else {
            return Ok(None);
        };
        let sealed = match endpoint {
            None => queued.sealed_whole(),
            Some(id) => {
                let mut bodies = queued.bodies.iter();
                let of_it = bodies.find(|it| it.endpoint.as_deref() == Some(id));
                of_it.and_then(|frozen| queued.sealed_bytes(frozen))
            }
        };
        let lead = queued.lead_id();
        Ok(lead.zip(sealed).and_then(|(lead, sealed)| self.app.sealer.unseal(lead, &sealed)))
    }

    /// What an endpoint has not got, lead by lead, each with its reason.
    pub(super) fn gaps(&self, query: &Query) -> Result<Value, Refusal> {
        let id = query.get("endpoint").ok_or(Refusal::Malformed("endpoint"))?;
        let endpoint = self.endpoint(id)?;
        let why = match query.get("why") {
            None => Standing::ALL.into_iter().filter(|it| *it != Standing::Delivered).collect(),
            Some(words) => {
                let words = words.split(',').map(Standing::parse);
                words.collect::<Option<BTreeSet<_>>>().ok_or(Refusal::Malformed("why"))?
            }
        };
        let lead = query.get("lead").map(lead_id).transpose()?;
        let lead = lead.map(|lead| self.app.engine.head(lead));
        let after = query.get("after").map(lead_id).transpose()?;
        let limit = query.limit()?;
        let book = self.log.book();
        let found = book.gaps((id, endpoint.test), &why, (after, lead), limit);
        let missing = book.missing(id, endpoint.test);
        drop(book);
        let last = found.last().filter(|_| found.len() == limit).map(|(lead, ..)| lead.to_string());
        let leads: Vec<Value> = found
            .iter()
            .map(|(lead, last, gaps)| {
                let gaps: Vec<Value> = gaps.iter().map(gap).collect();
                json!({ "lead": lead.to_string(), "last": last, "gaps": gaps })
            })
            .collect();
        let missing: Map<String, Value> =
            missing.iter().map(|(why, count)| (why.name().to_owned(), json!(count))).collect();
        Ok(json!({
            "schema": 1, "endpoint": id, "missing": missing, "leads": leads, "after": last,
        }))
    }

    fn endpoint(&self, id: &str) -> Result<Endpoint, Refusal> {
        let endpoints = self.endpoints.load();
        let found = endpoints.iter().find(|endpoint| endpoint.id == id).cloned();
        found.ok_or(Refusal::Malformed("endpoint: there is none of this name"))
    }

    /// A cursor: a position, and under which life of the journal it was given. A restored backup
    /// gives positions anew.
    fn cursor_of(&self, position: Position) -> Result<String, Refusal> {
        if position == Position::NONE {
            return Ok("0".to_owned());
        }
        let incarnation = self.app.journal.incarnation_of(position);
        let incarnation = incarnation.map_err(|_| Refusal::Unavailable)?;
        Ok(format!("{incarnation:x}.{:x}", position.0))
    }

    fn position_of(&self, cursor: &str) -> Result<Position, Refusal> {
        if cursor == "0" {
            return Ok(Position::NONE);
        }
        let number = |text: &str| {
            let plain = !text.starts_with('+');
            u64::from_str_radix(text, 16).ok().filter(|_| plain)
        };
        let parts = cursor.split_once('.').map(|(life, at)| (number(life), number(at)));
        let Some((Some(life), Some(at))) = parts else {
            return Err(Refusal::Malformed("after"));
        };
        let at = Position(at);
        let found = self.app.journal.incarnation_of(at);
        match found {
            Ok(incarnation) if u64::from(incarnation) == life => Ok(at),
            Err(error @ ReadError::Removed { first }) => {
                // Of positions before the oldest kept one nobody knows any more which life they
                // are of, but for those of the life in which that one was.
                let of_first = self.app.journal.incarnation_of(first).map(u64::from);
                let until = Position(first.0 - 1);
                let missed = self.log.book().has_entries((at, until));
                let same = of_first.is_ok_and(|it| it == life);
                if same && !missed { Ok(at) } else { Err(self.unread(&error)) }
            }
            _ => Err(Refusal::Malformed("after: not of this journal; begin anew without it")),
        }
    }
}

fn gap(gap: &Gap) -> Value {
    json!({
        "sequence": gap.sequence,
        "alert": gap.alert,
        "type": gap.kind.map(AlertKind::name),
        "why": gap.why.name(),
    })
}
