//! What the admin side shows, as JSON.

use std::collections::BTreeSet;

use engine::catalog::Catalog;
use engine::facts::Source;
use engine::grade::Grade;
use engine::hit::{Exclusion, Hit};
use engine::id::{LeadId, Position, VisitorId};
use engine::lead::{Explained, Lead, explain, reasons, terms_of, urgency};
use engine::ledger::Row;
use engine::points::Points;
use engine::record::{Body, Member, NameKind, Record, Step, StepRecord, Tie};
use engine::scoring::Scoring;
use engine::stage::Stage;
use engine::threshold::{Crossing, Direction, Gate, Standing, Threshold};
use engine::time::Timestamp;
use serde_json::{Map, Value, json};

use super::sales;
use crate::app::{App, InForce};
use crate::facts::{do_not_send, facts};
use crate::outbox::Held;
use crate::outbox::message::{OWNER, iso, points, rule_names};
use crate::reader::{step_name, what};
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

    /// The rules in force.
    pub fn scoring(&self) -> &Scoring {
        &self.in_force.scoring
    }

    /// A lead in a list.
    pub fn row(&self, id: LeadId, lead: &Lead, now: Timestamp) -> Value {
        self.summary(id, lead, now)
    }

    /// The hot queue: the highest score first.
    pub fn hot(&self, ids: &[LeadId]) -> Value {
        let now = self.app.clock.now();
        let heads: BTreeSet<LeadId> = ids.iter().map(|id| self.app.engine.head(*id)).collect();
        let is_in = |lead: &Lead| self.stage_of(lead) == Stage::Hot;
        let mut rows: Vec<(i64, Value)> = heads
            .into_iter()
            .filter_map(|id| {
                let lead = self.app.engine.lead(id).filter(is_in)?;
                let score = lead.standing(&self.in_force.scoring, now).score;
                Some((score.0, self.summary(id, &lead, now)))
            })
            .collect();
        rows.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
        let rows: Vec<Value> = rows.into_iter().map(|(_, row)| row).collect();
        json!({ "schema": 1, "at": iso(now), "leads": rows })
    }

    /// One lead in short.
    pub fn summary_of(&self, id: LeadId) -> Option<Value> {
        let lead = self.app.engine.lead(id)?;
        Some(self.summary(id, &lead, self.app.clock.now()))
    }

    fn summary(&self, id: LeadId, lead: &Lead, now: Timestamp) -> Value {
        let scoring = &self.in_force.scoring;
        let standing = lead.standing(scoring, now);
        let (terms, profile) = (terms_of(lead, scoring, now), lead.profile());
        let shown = |name: &str| profile.attributes.get(name);
        json!({
            "id": id.to_string(),
            "name": shown("name"),
            "email": shown("email"),
            "company": shown("company"),
            "stage": self.stage(lead),
            "owner": lead.owner().or_else(|| shown(OWNER).map(String::as_str)),
            "points": standing.score.shown(),
            "exact": points(standing.score),
            "cell": terms.cell(standing.grade, standing.score),
            "urgency": scoring.labels.urgency.level(urgency(&lead.content.rows, terms, now)),
            "assurance": profile.assurance.name(),
            "last_seen": lead.last_human().map(iso),
            "test": lead.test,
        })
    }

    fn stage(&self, lead: &Lead) -> Value {
        let stage = self.stage_of(lead);
        let names = &self.in_force.scoring.labels.stage_names;
        json!({ "id": stage.name(), "ja": names.get(stage.name()) })
    }

    fn stage_of(&self, lead: &Lead) -> Stage {
        lead.stage(&self.in_force.scoring, self.app.clock.now())
    }

    /// One lead, with the score explained as of now.
    pub fn lead(&self, id: LeadId) -> Option<Value> {
        let id = self.app.engine.head(id);
        let lead = self.app.engine.lead(id)?;
        let now = self.app.clock.now();
        let (profile, counts) = (lead.profile(), lead.counts());
        let mut value = self.summary(id, &lead, now);
        value["schema"] = json!(1);
        value["attributes"] = json!(profile.attributes);
        let facts = facts(&profile.attributes, now);
        value["facts"] = json!({
            "trial_until": facts.trial_until,
            "registered_events": facts.registered_events,
            "customer": facts.customer,
            "open_deal": facts.open_deal,
            "do_not_send": do_not_send(&profile.attributes),
        });
        value["consent"] = json!(profile.consent);
        value["confirmed_by"] = json!(profile.confirmed_by);
        value["names"] = json!(lead.content.members.iter().map(name).collect::<Vec<_>>());
        value["links"] = json!(Self::links(&lead));
        value["history"] = json!({
            "first_seen": iso(lead.first_seen()),
            "known_since": lead.known_since().map(|(since, _)| iso(since)),
            "hits": counts.hits,
            "pages": counts.pages,
            "visits": counts.visits,
            "anonymous_hits_attached": counts.attached,
            "messages": lead.sequence,
        });
        value["activities"] = json!(sales::activities(&lead, now));
        value["asked"] = json!(sales::asked(&lead));
        value["score"] = self.score(id, &lead, (now, now));
        Some(value)
    }

    /// A lead's browsers, each with the name it goes by and how sure it is that it is theirs.
    fn links(lead: &Lead) -> Vec<Value> {
        let mut links: Vec<Tie> = Vec::new();
        for tie in lead.content.ties.iter().filter(|tie| tie.source != Source::Server) {
            let same = |it: &&mut Tie| (it.source, it.origin) == (tie.source, tie.origin);
            if let Some(link) = links.iter_mut().find(same) {
                link.since = link.since.min(tie.since);
                link.first_seen = link.first_seen.min(tie.first_seen);
                link.hits = link.hits.saturating_add(tie.hits);
                link.attached = link.attached.saturating_add(tie.attached);
            } else {
                links.push(*tie);
            }
        }
        let shown = |tie: Tie| match tie.source {
            Source::Server => None,
            Source::Visitor(visitor) => Some(json!({
                "visitor": visitor.to_string(),
                "name": tie.origin.to_string(),
                "assurance": lead.content.assurance_of(tie.source, tie.origin).name(),
                "since": iso(tie.since),
                "first_seen": iso(tie.first_seen),
                "hits": tie.hits,
                "anonymous_hits_attached": tie.attached,
            })),
        };
        links.into_iter().filter_map(shown).collect()
    }

    /// A lead's score at a moment, row by row, adding up exactly, under the rules in force at
    /// another: then, or now.
    pub fn score(&self, id: LeadId, lead: &Lead, (at, rules_of): (Timestamp, Timestamp)) -> Value {
        let scoring = &self.in_force.scoring;
        let terms = terms_of(lead, scoring, rules_of);
        let own: Vec<Row> =
            lead.content.rows.iter().filter(|row| row.when <= at).copied().collect();
        let explained = explain(&own, terms, at);
        let counted = explained.shares.iter().filter(|(row, _)| terms.is_in_total(row.category));
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
            "urgency": points(urgency(&own, terms, at)),
            "rules_version": terms.version,
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
        let shown = |(row, share): &(Row, Points)| {
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
                "name": (row.origin != LeadId(0)).then(|| row.origin.to_string()),
                "rules_version": row.version,
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
        let id = self.app.engine.head(id);
        let lead = self.app.engine.lead(id)?;
        let now = self.app.clock.now();
        let scoring = &self.in_force.scoring;
        let standing = lead.standing(scoring, now);
        let lines = scoring.terms().thresholds.iter().map(|line| {
            let band = lead.band(line);
            json!({
                "threshold": line.name,
                "inside": band.side.inside,
                "since": (band.number > 0).then(|| iso(band.side.since)),
                "number": band.number,
                "told": band.told,
                "held": band.held,
                "waits_until": band.waits_until.map(iso),
                "rise": points(line.height(&standing.dealings, band.side.since, now)),
                "fall": points(line.fall),
                "says": says(line, &standing, (band.side.since, now)),
                "gates": gates(line, &standing, (band.side.since, now)),
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

    /// Messages that facts held back: of one lead, or all of them.
    pub fn held_back(&self, held: &[Held], of: Option<LeadId>) -> Value {
        let head = |id| self.app.engine.head(id);
        let of = of.map(head);
        let of_it = |it: &&Held| of.is_none() || it.lead.map(head) == of;
        let rows = held.iter().filter(of_it).map(|it| {
            json!({
                "alert": it.alert,
                "lead": it.lead.map(|lead| lead.to_string()),
                "type": it.kind,
                "at": iso(it.at),
                "by": it.back.by,
                "endpoints": it.back.endpoints,
            })
        });
        rows.collect()
    }

    /// One visitor.
    pub fn visitor(&self, id: VisitorId, now: Timestamp) -> Option<Value> {
        let visitor = self.app.engine.visitor(id, now)?;
        let explained = explain(&visitor.rows.in_order(), self.in_force.scoring.terms(), now);
        let stretches: Vec<Value> = visitor
            .stretches()
            .filter(|stretch| stretch.hits > 0)
            .map(|stretch| {
                json!({
                    "after": stretch.after.0,
                    "name": stretch.owner.map(|owner| owner.to_string()),
                    "first_seen": iso(stretch.first_seen),
                    "hits": stretch.hits,
                })
            })
            .collect();
        let lead = visitor.bound.map(|bound| self.app.engine.head(bound.origin).to_string());
        Some(json!({
            "schema": 1,
            "id": id.to_string(),
            "lead": lead,
            "assurance": visitor.bound.map(|bound| bound.assurance.name()),
            "shared": visitor.shared,
            "stretches": stretches,
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
            Body::Step(step) => step_event(step),
            _ => json!({ "event": "time" }),
        };
        event["position"] = json!(position.0);
        event["received"] = json!(iso(record.received()));
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
            let crossings = part.crossings.iter().map(|crossing| self.crossing(crossing));
            event["crossings"] = json!(crossings.collect::<Vec<_>>());
            let messages = part.messages.iter().map(|message| message.kind.name());
            event["messages"] = json!(messages.collect::<Vec<_>>());
        }
        event
    }

    fn crossing(&self, crossing: &Crossing) -> Value {
        let number = u16::from(crossing.threshold.0);
        json!({
            "threshold": self.catalog.name(NameKind::Threshold, number),
            "direction": direction(crossing.direction),
            "at": iso(crossing.at),
            "since": iso(crossing.since),
            "number": crossing.number,
            "opened_by": crossing.opened_by.map(Gate::name),
            "told": crossing.told,
            "held": crossing.held,
        })
    }
}

/// A name of a lead.
fn name(member: &Member) -> Value {
    json!({
        "id": member.id.to_string(),
        "kind": member.kind.name(),
        "of": member.parent.map(|parent| parent.to_string()),
        "assurance": member.assurance.name(),
        "since": iso(member.since),
    })
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

/// Each gate of a line for a lead that is where it is since a moment: whether it is open now,
/// what it sees, what it needs.
fn gates(line: &Threshold, standing: &Standing, (since, now): (Timestamp, Timestamp)) -> Value {
    let height = line.height(&standing.dealings, since, now);
    let letters = |grades: &[Grade]| grades.iter().map(|it| it.letter()).collect::<Vec<_>>();
    let mut gates = Map::new();
    for gate in Gate::ASKED {
        let (is, needs) = match gate {
            Gate::Score => (points(standing.score), points(height)),
            Gate::Grade => (json!(standing.grade.letter()), json!(letters(&line.grades))),
            Gate::Identity => (json!(standing.identified), json!(true)),
            Gate::Consent => (json!(standing.consent), json!(true)),
            Gate::Recent => {
                let within = line.recent.map(|within| within.as_millis() as u64);
                (json!(standing.last_human.map(iso)), json!({ "within_ms": within }))
            }
            Gate::Urgency => {
                let Some(least) = line.urgency else {
                    continue;
                };
                (json!(points(standing.urgency)), json!(points(least)))
            }
            Gate::Sales if line.is_for_sales() => {
                (json!(of_sales(standing, since, now)), json!("not at work, not at rest, news"))
            }
            Gate::Rules | Gate::Sales => continue,
        };
        let open = line.is_open(gate, standing, since, now);
        gates.insert(gate.name().to_owned(), json!({ "open": open, "is": is, "needs": needs }));
    }
    Value::Object(gates)
}

/// The gates in a line that a person reads: `score 66 of 60 yes, grade D no`. Gates that are not
/// written in the rules are left out.
fn says(line: &Threshold, standing: &Standing, (since, now): (Timestamp, Timestamp)) -> String {
    let height = line.height(&standing.dealings, since, now);
    let mut parts = Vec::new();
    for gate in Gate::ASKED {
        let sees = match gate {
            Gate::Score => format!("score {} of {}", standing.score.shown(), height.shown()),
            Gate::Grade if line.grades.is_empty() => continue,
            Gate::Grade => format!("grade {}", standing.grade.letter()),
            Gate::Identity => "known".to_owned(),
            Gate::Consent => "consent".to_owned(),
            Gate::Recent => match (line.recent, standing.last_human) {
                (None, _) => continue,
                (Some(_), Some(seen)) => {
                    format!("seen {} days ago", now.since(seen).as_secs() / 86_400)
                }
                (Some(_), None) => "never seen".to_owned(),
            },
            Gate::Urgency => match line.urgency {
                Some(least) => {
                    format!("urgency {} of {}", standing.urgency.shown(), least.shown())
                }
                None => continue,
            },
            Gate::Sales => match of_sales(standing, since, now) {
                Some(what) if line.is_for_sales() => what,
                _ => continue,
            },
            Gate::Rules => continue,
        };
        let open = if line.is_open(gate, standing, since, now) { "yes" } else { "no" };
        parts.push(format!("{sees} {open}"));
    }
    parts.join(", ")
}

/// Why sales keeps a lead out, if it ever answered.
fn of_sales(standing: &Standing, since: Timestamp, now: Timestamp) -> Option<String> {
    let dealings = &standing.dealings;
    let stage = dealings.stage?;
    Some(if dealings.are_at_work() {
        format!("sales: {}", stage.name())
    } else if dealings.let_in(since, now) {
        "sales".to_owned()
    } else if now < dealings.rested(since) {
        format!("rests until {}", iso(dealings.rested(since)))
    } else {
        format!("nothing new since {}", stage.name())
    })
}

fn step_event(step: &StepRecord) -> Value {
    if let Step::Feedback(feedback) = &step.step {
        return sales::event(feedback);
    }
    json!({
        "event": step_name(&step.step),
        "actor": step.actor,
        "reason": step.reason,
        "undoes": (step.undoes != Position::NONE).then_some(step.undoes.0),
    })
}

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Rise => "rise",
        Direction::Fall => "fall",
        Direction::Release => "release",
        Direction::Settle => "settle",
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
        "agent": hit.agent,
        "excluded": hit.excluded.map(Exclusion::name),
        "test": hit.test,
    })
}
