//! What the admin side shows, as JSON.

use engine::catalog::Catalog;
use engine::grade::Grade;
use engine::hit::Hit;
use engine::id::{LeadId, Position, VisitorId};
use engine::identity::Assurance;
use engine::lead::{Explained, Lead, explain, reasons, urgency};
use engine::ledger::{Row, Source};
use engine::record::{Body, NameKind, Record};
use engine::stage::Stage;
use engine::threshold::{Direction, Gate, Standing, Threshold};
use engine::time::Timestamp;
use serde_json::{Map, Value, json};

use crate::app::{App, InForce};
use crate::outbox::message::{iso, points, rule_names};
use crate::reader::what;
use crate::timeline::Timeline;
use crate::webhook::queue::Outstanding;

/// Shows things under the names and rules in force.
pub struct View<'a> {
    app: &'a App,
    catalog: Catalog,
    in_force: arc_swap::Guard<std::sync::Arc<InForce>>,
}

impl<'a> View<'a> {
    /// As things stand.
    pub fn new(app: &'a App) -> View<'a> {
        View { app, catalog: app.engine.catalog(), in_force: app.scoring.load() }
    }

    /// A list of leads, in the order given.
    pub fn leads(&self, ids: &[LeadId]) -> Value {
        let now = self.app.clock.now();
        let known = ids.iter().filter_map(|id| Some((id, self.app.engine.lead(*id)?)));
        let rows: Vec<Value> = known.map(|(id, lead)| self.summary(*id, &lead, now)).collect();
        json!({ "schema": 1, "at": iso(now), "leads": rows })
    }

    /// The hot queue: the highest score first.
    pub fn hot(&self, ids: &[LeadId]) -> Value {
        let now = self.app.clock.now();
        let mut rows: Vec<(i64, Value)> = ids
            .iter()
            .filter_map(|id| {
                let lead = self.app.engine.lead(*id)?;
                let score = lead.standing(&self.in_force.scoring, now).score;
                Some((score.0, self.summary(*id, &lead, now)))
            })
            .collect();
        rows.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
        let rows: Vec<Value> = rows.into_iter().map(|(_, row)| row).collect();
        json!({ "schema": 1, "at": iso(now), "leads": rows })
    }

    fn summary(&self, id: LeadId, lead: &Lead, now: Timestamp) -> Value {
        let scoring = &self.in_force.scoring;
        let standing = lead.standing(scoring, now);
        let shown = |name: &str| lead.attributes.get(name);
        json!({
            "id": id.to_string(),
            "name": shown("name"),
            "email": shown("email"),
            "company": shown("company"),
            "stage": self.stage(lead),
            "points": standing.score.shown(),
            "exact": points(standing.score),
            "cell": scoring.cell(standing.grade, standing.score),
            "urgency": scoring.urgency.level(urgency(&lead.rows, scoring, now)),
            "assurance": assurance(lead.assurance),
            "last_seen": lead.last_human.map(iso),
            "test": lead.test,
        })
    }

    fn stage(&self, lead: &Lead) -> Value {
        let stage: Stage = self.in_force.scoring.stage(&lead.bands);
        json!({ "id": stage.name(), "ja": self.in_force.scoring.stage_names.get(stage.name()) })
    }

    /// One lead, with the score explained as of now.
    pub fn lead(&self, id: LeadId) -> Option<Value> {
        let lead = self.app.engine.lead(id)?;
        let now = self.app.clock.now();
        let links: Vec<Value> = lead
            .links
            .iter()
            .map(|link| {
                json!({
                    "visitor": link.visitor.to_string(),
                    "assurance": assurance(link.assurance),
                    "since": iso(link.since),
                })
            })
            .collect();
        let mut value = self.summary(id, &lead, now);
        value["schema"] = json!(1);
        value["attributes"] = json!(lead.attributes);
        value["confirmed_by"] = json!(lead.confirmed_by);
        value["links"] = json!(links);
        value["history"] = json!({
            "first_seen": iso(lead.first_seen),
            "known_since": iso(lead.known_since),
            "hits": lead.hits,
            "pages": lead.pages,
            "visits": lead.visits,
            "anonymous_hits_attached": lead.attached,
            "messages": lead.sequence,
        });
        value["score"] = self.score(id, &lead, now);
        Some(value)
    }

    /// A lead's score at a moment, row by row, adding up exactly.
    pub fn score(&self, id: LeadId, lead: &Lead, at: Timestamp) -> Value {
        let scoring = &self.in_force.scoring;
        let explained = explain(&lead.rows, scoring, at);
        let counted = explained.shares.iter().filter(|(row, _)| {
            scoring.category(row.category).is_some_and(|category| category.in_total)
        });
        let reasons: Vec<Value> = reasons(counted)
            .iter()
            .map(|reason| {
                let (rule, label) = rule_names(scoring, &self.catalog, reason.rule);
                json!({
                    "rule": rule, "label": label, "times": reason.times,
                    "points": points(reason.points), "last": iso(reason.last),
                })
            })
            .collect();
        json!({
            "schema": 1,
            "lead": id.to_string(),
            "at": iso(at),
            "points": explained.score.shown(),
            "exact": points(explained.score),
            "urgency": points(urgency(&lead.rows, scoring, at)),
            "by_category": self.categories(&explained),
            "reasons": reasons,
            "rows": self.rows(&explained),
        })
    }

    fn categories(&self, explained: &Explained) -> Value {
        let mut categories = Map::new();
        for (id, value) in &explained.categories {
            let name = self.catalog.name(NameKind::Category, u16::from(id.0)).unwrap_or("?");
            categories.insert(name.to_owned(), points(*value));
        }
        Value::Object(categories)
    }

    fn rows(&self, explained: &Explained) -> Vec<Value> {
        let shown = |(row, share): &(Row, engine::rule::Points)| {
            let (rule, label) = rule_names(&self.in_force.scoring, &self.catalog, row.rule);
            let visitor = match row.source {
                Source::Server => None,
                Source::Visitor(visitor) => Some(visitor.to_string()),
            };
            json!({
                "rule": rule,
                "label": label,
                "category": self.catalog.name(NameKind::Category, u16::from(row.category.0)),
                "when": iso(row.when),
                "position": row.position.0,
                "order": row.order,
                "visitor": visitor,
                "base": points(row.base),
                "granted": points(row.granted),
                "now": points(*share),
                "cut": row.cut.name(),
            })
        };
        explained.shares.iter().map(shown).collect()
    }

    /// Which gate of each line is open or shut, with its value.
    pub fn why(&self, id: LeadId) -> Option<Value> {
        let lead = self.app.engine.lead(id)?;
        let now = self.app.clock.now();
        let scoring = &self.in_force.scoring;
        let standing = lead.standing(scoring, now);
        let lines = scoring.thresholds.iter().map(|line| {
            let band = lead.band(line);
            json!({
                "threshold": line.name,
                "inside": band.inside,
                "since": (band.number > 0).then(|| iso(band.since)),
                "number": band.number,
                "told": band.told,
                "waits_until": band.waits_until.map(iso),
                "fall": points(line.fall),
                "gates": gates(line, &standing, now),
            })
        });
        Some(json!({
            "schema": 1,
            "lead": id.to_string(),
            "at": iso(now),
            "thresholds": lines.collect::<Vec<_>>(),
            "next_by_time": lead.next_due(scoring).map(iso),
        }))
    }

    /// One visitor.
    pub fn visitor(&self, id: VisitorId, now: Timestamp) -> Option<Value> {
        let visitor = self.app.engine.visitor(id, now)?;
        let explained = explain(&visitor.rows, &self.in_force.scoring, now);
        Some(json!({
            "schema": 1,
            "id": id.to_string(),
            "lead": visitor.bound.map(|bound| bound.lead.to_string()),
            "assurance": visitor.bound.map(|bound| assurance(bound.assurance)),
            "first_seen": iso(visitor.first_seen),
            "last_seen": iso(visitor.session.last),
            "hits": visitor.hits,
            "pages": visitor.pages,
            "visits": visitor.session.number,
            "points": explained.score.shown(),
            "exact": points(explained.score),
            "by_category": self.categories(&explained),
            "rows": self.rows(&explained),
        }))
    }

    /// Records as a list, newest first.
    pub fn timeline(&self, records: &Timeline) -> Value {
        let shown: Vec<Value> =
            records.iter().rev().map(|(position, record)| self.event(*position, record)).collect();
        json!({ "schema": 1, "events": shown })
    }

    fn event(&self, position: Position, record: &Record) -> Value {
        let mut event = match &record.body {
            Body::Hit(record) => hit(&record.hit, position, &self.catalog),
            _ => json!({ "position": position.0, "received": iso(record.time), "event": "time" }),
        };
        if let Body::Hit(hit) = &record.body {
            let rows = match (&hit.lead, &hit.visit) {
                (Some(part), _) => part.rows.as_slice(),
                (None, Some(part)) => part.rows.as_slice(),
                (None, None) => &[],
            };
            let rows: Vec<Value> = rows
                .iter()
                .filter(|row| row.position == Position::NONE)
                .map(|row| {
                    let (rule, _) = rule_names(&self.in_force.scoring, &self.catalog, row.rule);
                    json!({ "rule": rule, "granted": points(row.granted), "cut": row.cut.name() })
                })
                .collect();
            event["rows"] = json!(rows);
        }
        if let Some(part) = record.lead_part() {
            event["lead"] = json!(part.lead.to_string());
            event["stitched"] = json!(part.link.is_some());
            let crossings: Vec<Value> = part
                .crossings
                .iter()
                .map(|crossed| {
                    let crossing = &crossed.crossing;
                    let number = u16::from(crossing.threshold.0);
                    json!({
                        "threshold": self.catalog.name(NameKind::Threshold, number),
                        "direction": direction(crossing.direction),
                        "at": iso(crossing.at),
                        "number": crossing.number,
                        "opened_by": crossing.opened_by.map(Gate::name),
                        "told": crossing.told,
                    })
                })
                .collect();
            event["crossings"] = json!(crossings);
        }
        event
    }
}

/// Messages that are not delivered.
pub fn outstanding(outstanding: Vec<Outstanding>) -> Value {
    let rows: Vec<Value> = outstanding
        .into_iter()
        .map(|it| {
            json!({
                "alert": it.message.id.as_str(),
                "endpoint": it.message.endpoint.as_str(),
                "lead": LeadId(it.message.lead.0 as u64).to_string(),
                "sequence": it.message.sequence,
                "test": it.message.test,
                "attempts": it.state.attempts(),
                "dead": it.state.is_final(),
                "died": it.died.map(iso),
            })
        })
        .collect();
    json!({ "schema": 1, "outstanding": rows })
}

/// Each gate of a line: whether it is open, what it sees, what it needs.
fn gates(line: &Threshold, standing: &Standing, now: Timestamp) -> Value {
    let letters = |grades: &[Grade]| grades.iter().map(|it| it.letter()).collect::<Vec<_>>();
    let mut gates = Map::new();
    for gate in Gate::ALL {
        let (is, needs) = match gate {
            Gate::Score => (points(standing.score), points(line.rise)),
            Gate::Grade => (json!(standing.grade.letter()), json!(letters(&line.grades))),
            Gate::Identity => (json!(standing.identified), json!(true)),
            Gate::Consent => (json!(standing.consent), json!(true)),
            Gate::Recent => {
                let within = line.recent.map(|within| within.as_millis() as u64);
                (json!(standing.last_human.map(iso)), json!({ "within_ms": within }))
            }
        };
        let open = line.is_open(gate, standing, now);
        gates.insert(gate.name().to_owned(), json!({ "open": open, "is": is, "needs": needs }));
    }
    Value::Object(gates)
}

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Rise => "rise",
        Direction::Fall => "fall",
        Direction::Release => "release",
    }
}

fn assurance(assurance: Assurance) -> &'static str {
    match assurance {
        Assurance::Claimed => "claimed",
        Assurance::Verified => "verified",
    }
}

/// A hit as people and programs read it. Nothing of it is personal: the claim is left out.
pub fn hit(hit: &Hit, position: Position, catalog: &Catalog) -> Value {
    json!({
        "position": position.0,
        "site": catalog.name(NameKind::Site, hit.site.0),
        "received": iso(hit.received),
        "when": iso(hit.when),
        "when_ms": hit.when.0,
        "visitor": hit.visitor.map(|id| id.to_string()),
        "event": what(hit),
        "id": format!("{:016x}", hit.id),
        "path": if hit.path.is_empty() { "/" } else { &hit.path },
        "url": hit.url,
        "title": hit.title,
        "referrer": hit.referrer,
        "campaign": hit.campaign,
        "network": hit.network,
        "engaged_ms": hit.engaged_ms,
        "excluded": hit.excluded.map(|excluded| format!("{excluded:?}").to_lowercase()),
        "test": hit.test,
    })
}
