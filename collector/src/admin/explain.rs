//! Where a message comes from: the record that caused it, and every row of the score it told, back
//! to its hit, its record, the rules' version, the limit that cut it and the tie it came through.

use std::fmt::Write as _;

use engine::attribute::Attributes;
use engine::facts::Source;
use engine::hit::Hit;
use engine::id::{LeadId, Position};
use engine::lead::{Lead, explain};
use engine::ledger::Row;
use engine::points::Points;
use engine::record::{Body, Message, NameKind, Record};
use serde_json::{Value, json};

use super::past::HISTORY_MAX;
use super::view::hit;
use super::{Admin, Refusal};
use crate::outbox::message::{iso, points, rule_names};
use crate::outbox::messages;
use crate::reader::printable;
use crate::timeline;

/// A message, and what there was when it was decided on.
struct Found {
    position: Position,
    record: Record,
    message: Message,
    lead: LeadId,
    then: Lead,
}

impl Admin {
    /// Explains an alert.
    pub(super) fn explain(&self, alert: &str) -> Result<Value, Refusal> {
        let found = self.find(alert)?;
        let app = &self.app;
        // Of who was erased nothing is explained any more.
        if let Some((position, at)) = app.engine.erasure(found.lead)
            && found.position < position
        {
            return Err(Refusal::Erased(at));
        }
        let catalog = app.engine.catalog();
        let in_force = app.scoring.load();
        let told = &found.message.told;
        let terms = catalog.versions.numbered(found.record.version).ok_or(Refusal::NotFound)?;
        let explained = explain(&found.then.content.rows, terms, told.at);
        let in_total = |row: &Row| terms.is_in_total(row.category);
        let mut rows = Vec::new();
        let mut sum = Points(0);
        for (row, share) in explained.shares.iter().filter(|(row, _)| in_total(row)) {
            sum.0 += share.0;
            let (rule, label) = rule_names(&in_force.scoring, &catalog, row.rule);
            let of_hit = self.hit_of(row);
            rows.push(json!({
                "rule": rule,
                "label": label,
                "when": iso(row.when),
                "position": row.position.0,
                "rules_version": row.version,
                "base": points(row.base),
                "granted": points(row.granted),
                "cut": row.cut.name(),
                "now": points(*share),
                "link": Self::link(&found.then, row),
                "hit": of_hit.map(|of| hit(&of, row.position, &catalog)),
            }));
        }
        let crossing = found.crossing();
        Ok(json!({
            "schema": 1,
            "alert": alert,
            "type": found.message.kind.name(),
            "audience": found.message.audience,
            "lead": found.lead.to_string(),
            "name": name(&found.then.attributes()),
            "position": found.position.0,
            "recorded": iso(found.record.time),
            "true_at": iso(told.at),
            "rules_version": found.record.version,
            "threshold": crossing.map(|crossing| {
                catalog.name(NameKind::Threshold, u16::from(crossing.threshold.0))
            }),
            "opened_by": crossing.and_then(|it| it.opened_by).map(engine::threshold::Gate::name),
            "cause": self.cause(&found.record, found.position),
            "points": told.score.shown(),
            "exact": points(told.score),
            "rows_add_up_to": points(sum),
            "rows": rows,
            "kept_from": self.kept_from(),
        }))
    }

    fn find(&self, alert: &str) -> Result<Found, Refusal> {
        let app = &self.app;
        let position = self.log.cause(alert).ok_or(Refusal::NotFound)?;
        let record = timeline::read(app, position).map_err(|error| self.unread(&error))?;
        let incarnation = app.journal.incarnation_of(position);
        let incarnation = incarnation.map_err(|error| self.unread(&error))?;
        let part = record.lead_part().ok_or(Refusal::NotFound)?;
        let key = app.install.alert;
        let derive = |cause: &engine::alert::Cause<'_>| engine::alert::AlertId::derive(&key, cause);
        let mut all = messages(part, (position, incarnation), &derive);
        let message = all.find(|(id, _)| id.as_str() == alert).map(|(_, message)| message.clone());
        drop(all);
        let lead = part.lead;
        let then = self.history(lead, position, HISTORY_MAX)?.upto(position)?;
        let message = message.ok_or(Refusal::NotFound)?;
        Ok(Found { position, record, message, lead, then })
    }

    /// The hit that earned a row.
    fn hit_of(&self, row: &Row) -> Option<Hit> {
        let record = timeline::read(&self.app, row.position).ok()?;
        let Body::Hit(record) = record.body else {
            return None;
        };
        let first = record.first.map(|first| first.hit).filter(|hit| hit.when == row.when);
        first.or(Some(record.hit))
    }

    /// How a row came to its person.
    fn link(lead: &Lead, row: &Row) -> Value {
        let visitor = match row.source {
            Source::Server => return json!({ "by": "server" }),
            Source::Visitor(visitor) => visitor,
        };
        let tie = lead
            .content
            .ties
            .iter()
            .find(|tie| tie.source == row.source && tie.origin == row.origin);
        json!({
            "by": "browser",
            "visitor": visitor.to_string(),
            "name": row.origin.to_string(),
            "assurance": lead.content.assurance_of(row.source, row.origin).name(),
            "since": tie.map(|tie| iso(tie.since)),
        })
    }

    fn cause(&self, record: &Record, position: Position) -> Value {
        let catalog = self.app.engine.catalog();
        match &record.body {
            Body::Hit(record) => hit(&record.hit, position, &catalog),
            Body::Step(step) => json!({
                "step": crate::reader::step_name(&step.step),
                "actor": step.actor,
                "reason": step.reason,
            }),
            _ => json!({ "time": iso(record.time) }),
        }
    }
}

impl Found {
    fn crossing(&self) -> Option<&engine::threshold::Crossing> {
        let place = self.message.crossing?;
        self.record.lead_part()?.crossings.get(usize::from(place))
    }
}

fn name(attributes: &Attributes) -> Option<&String> {
    attributes.get("name").or_else(|| attributes.get("email"))
}

/// The same as lines for a terminal.
pub(super) fn as_text(explained: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let mut lines = String::new();
    // Names and pages are what strangers wrote.
    let mut say = |line: String| {
        let _ = writeln!(lines, "{}", printable(&line));
    };
    say(format!(
        "{} {} about {} ({}), at {}",
        text(&explained["alert"]),
        text(&explained["type"]),
        text(&explained["name"]),
        text(&explained["lead"]),
        text(&explained["true_at"]),
    ));
    say(format!(
        "caused by record {} of {}, under version {} of the rules: {}",
        explained["position"],
        text(&explained["recorded"]),
        explained["rules_version"],
        cause_text(&explained["cause"]),
    ));
    if let Some(line) = explained["threshold"].as_str() {
        say(format!("crossed {line}, opened by {}", text(&explained["opened_by"])));
    }
    say(format!("{:.3} points:", explained["exact"].as_f64().unwrap_or_default()));
    for row in explained["rows"].as_array().into_iter().flatten() {
        let number = |field: &str| row[field].as_f64().unwrap_or_default();
        let cut = row["cut"].as_str().filter(|cut| *cut != "none");
        say(format!(
            "{:>9.3}  {} ({:.0} of {:.0}{}), record {}, version {}, {}: {}",
            number("now"),
            text(&row["rule"]),
            number("granted"),
            number("base"),
            cut.map(|cut| format!(", {cut}")).unwrap_or_default(),
            row["position"],
            row["rules_version"],
            link_text(&row["link"]),
            cause_text(&row["hit"]),
        ));
    }
    lines
}

fn link_text(link: &Value) -> String {
    match link["visitor"].as_str() {
        Some(visitor) => {
            let assurance = link["assurance"].as_str().unwrap_or_default();
            format!("browser {}… {assurance}", &visitor[..visitor.len().min(9)])
        }
        None => "by a server".to_owned(),
    }
}

fn cause_text(cause: &Value) -> String {
    if let Some(step) = cause["step"].as_str() {
        let by = cause["actor"].as_str().unwrap_or_default();
        return format!("{step} by {by}");
    }
    match cause["event"].as_str() {
        Some(event) => {
            let (path, at) = (cause["path"].as_str(), cause["when"].as_str());
            format!("{event} {} at {}", path.unwrap_or_default(), at.unwrap_or_default())
        }
        None => "time".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_wrote_is_no_command_to_the_operator_s_terminal() {
        let explained = json!({
            "alert": "msg_1", "type": "lead.hot", "name": "A\u{1b}]0;x\u{7}\nrm",
            "cause": { "event": "page_view", "path": "/\u{9b}2J", "when": "now" },
            "rows": [{ "rule": "r", "hit": { "event": "x", "path": "/\u{202e}", "when": "now" } }],
        });
        let text = as_text(&explained);
        assert!(!text.chars().any(|it| it.is_control() && it != '\n'), "{text:?}");
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.starts_with(r"msg_1 lead.hot about A\u{1b}]0;x\u{7}\u{a}rm (-)"), "{text}");
        assert!(text.contains(r"/\u{9b}2J") && text.contains(r"/\u{202e}"), "{text}");
    }
}
