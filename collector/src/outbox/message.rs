//! The body of a message, frozen once: figures from the record, names from the lead as it was
//! then, what it did lately from the journal.

use engine::alert::AlertKind;
use engine::catalog::Catalog;
use engine::hit::{Hit, HitKind};
use engine::id::{LeadId, RuleId};
use engine::identity::Assurance;
use engine::lead::{KnownBy, Lead, OTHER};
use engine::record::{Body, Crossed, NameKind, Record, Told};
use engine::rule::Points;
use engine::scoring::{Scoring, Text};
use engine::threshold::{Direction, Gate};
use engine::time::Timestamp;
use serde_json::{Map, Value, json};

use crate::ingest::raw::cut;
use crate::timeline::Timeline;

/// Longest title in a message, in characters.
const TITLE_CHARS_MAX: usize = 80;
/// Hits listed as recent.
const RECENT_MAX: usize = 5;

/// Everything a message is made of.
pub struct Material<'a> {
    /// The alert's id.
    pub alert: &'a str,
    /// Its type.
    pub kind: AlertKind,
    /// Who is told.
    pub audience: &'a str,
    /// The site's name.
    pub site: &'a str,
    /// The record that holds the crossing.
    pub cause: &'a Record,
    /// The crossing.
    pub crossed: &'a Crossed,
    /// What it tells.
    pub told: &'a Told,
    /// Whom it is about.
    pub lead_id: LeadId,
    /// The same.
    pub lead: &'a Lead,
    /// What they did, up to the crossing.
    pub timeline: &'a Timeline,
    /// The scoring in force.
    pub scoring: &'a Scoring,
    /// The names the journal knows.
    pub catalog: &'a Catalog,
    /// How people reach the admin side, if stated.
    pub admin_url: Option<&'a str>,
    /// When the record was durable.
    pub committed: Timestamp,
    /// When the message is frozen.
    pub queued: Timestamp,
}

/// A time in messages and answers: UTC with milliseconds.
pub fn iso(at: Timestamp) -> String {
    let time =
        jiff::Timestamp::from_millisecond(at.0 as i64).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{time:.3}")
}

/// Points as a number with three places.
pub fn points(points: Points) -> Value {
    json!(points.0 as f64 / 1_000.0)
}

impl Material<'_> {
    /// The body. `hide` names what of the lead this endpoint is not shown.
    pub fn body(&self, hide: &std::collections::BTreeSet<String>) -> Value {
        let headline = self.headline();
        let crossing = &self.crossed.crossing;
        let falls = crossing.direction == Direction::Fall;
        json!({
            "type": self.kind.name(),
            "timestamp": iso(crossing.at),
            "data": {
                "schema": 1,
                "alert_id": self.alert,
                "sequence": self.told.sequence,
                "site": self.site,
                "test": self.lead.test,
                "audience": self.audience,
                "headline": { "ja": headline.ja, "en": headline.en },
                "lead": self.lead(hide),
                "company": self.company(),
                "score": self.score(),
                "crossing": {
                    "threshold": self.threshold(),
                    "direction": if falls { "fall" } else { "rise" },
                    "line": self.line(),
                    "number": crossing.number,
                    "opened_by": crossing.opened_by.map(Gate::name),
                    "waited_for": (crossing.direction == Direction::Release).then_some("cooldown"),
                },
                "because": self.because(),
                "reasons": self.reasons(),
                "recent": self.recent(),
                "history": self.history(),
                "facts": {
                    "trial_until": null,
                    "registered_events": [],
                    "customer": false,
                    "open_deal": null,
                },
                "answer_by": null,
                "links": {
                    "crm": null,
                    "timeline": self.admin_url.map(|url| format!("{url}/leads/{}", self.lead_id)),
                    "accept": null, "reject": null, "later": null,
                },
                "times": {
                    "received": iso(self.received()),
                    "scored": iso(self.cause.time),
                    "committed": iso(self.committed),
                    "queued": iso(self.queued),
                },
            },
        })
    }

    fn received(&self) -> Timestamp {
        match &self.cause.body {
            Body::Hit(record) => record.hit.received,
            _ => self.cause.time,
        }
    }

    fn attribute(&self, name: &str) -> Option<&str> {
        self.lead.attributes.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn threshold(&self) -> &str {
        let number = u16::from(self.crossed.crossing.threshold.0);
        self.catalog.name(NameKind::Threshold, number).unwrap_or_default()
    }

    fn line(&self) -> Value {
        let line = self.scoring.threshold(self.crossed.crossing.threshold);
        let falls = self.crossed.crossing.direction == Direction::Fall;
        line.map_or(Value::Null, |line| {
            let line = if falls { line.fall } else { line.rise };
            json!(line.shown())
        })
    }

    fn headline(&self) -> Text {
        let key = match self.kind {
            AlertKind::Hot => "hot",
            AlertKind::Cooled => "cooled",
        };
        let Some(text) = self.scoring.texts.get(key) else {
            return Text::default();
        };
        let name = self.attribute("name").or_else(|| self.attribute("email")).unwrap_or("?");
        let company = self.attribute("company").unwrap_or_default();
        let at = self.crossed.crossing.at;
        let seen = self.lead.last_human.map_or(0, |seen| at.since(seen).as_secs() / 86_400);
        let fill = |template: &str, name: &str| {
            let filled = template
                .replace("{days}", &seen.to_string())
                .replace("{score}", &self.told.score.shown().to_string())
                .replace("{cell}", &self.cell())
                .replace("{company}", company)
                .replace("{name}", name);
            tidy(&filled)
        };
        // In Japanese the space inside a name is dropped before the honorific.
        let mut headline = Text {
            ja: fill(&text.ja, &name.replace([' ', '\u{3000}'], "")),
            en: fill(&text.en, name),
        };
        if self.told.assurance == Assurance::Claimed {
            headline.ja.push_str("※未確認");
            headline.en.push_str(" (unconfirmed)");
        }
        headline
    }

    fn cell(&self) -> String {
        self.scoring.cell(self.told.grade, self.told.score)
    }

    fn lead(&self, hide: &std::collections::BTreeSet<String>) -> Value {
        let shown = |name: &str| self.attribute(name).filter(|_| !hide.contains(name));
        let verified = self.told.assurance == Assurance::Verified;
        let mut ids = Map::new();
        for (kind, name) in [("crm_id", "crm"), ("user_id", "user")] {
            if let Some(id) = shown(kind) {
                ids.insert(name.to_owned(), json!(id));
            }
        }
        json!({
            "id": self.lead_id.to_string(),
            "name": shown("name"),
            "email": shown("email"),
            "phone": shown("phone"),
            "title": shown("title"),
            "department": shown("department"),
            "assurance": if verified { "verified" } else { "claimed" },
            "confirmed_by": verified.then_some(&self.lead.confirmed_by),
            "stage": self.told.stage.name(),
            "previous_stage": self.told.previous_stage.name(),
            "owner": shown("owner"),
            "external_ids": ids,
        })
    }

    fn company(&self) -> Value {
        let domain = self.attribute("email").and_then(|email| email.rsplit_once('@'));
        let employees = self.attribute("employees").and_then(|count| count.parse::<u64>().ok());
        json!({
            "id": null,
            "name": self.attribute("company"),
            "domain": domain.map(|(_, domain)| domain),
            "corporate_number": self.attribute("corporate_number"),
            "industry": self.attribute("industry"),
            "employees": employees,
            "score": null,
            "people_active": null,
        })
    }

    fn score(&self) -> Value {
        let told = self.told;
        let mut categories = Map::new();
        for (id, value) in &told.categories {
            let name = self.catalog.name(NameKind::Category, u16::from(id.0)).unwrap_or_default();
            categories.insert(name.to_owned(), points(*value));
        }
        json!({
            "points": told.score.shown(),
            "exact": points(told.score),
            "before_24h": points(told.before_24h),
            "urgency": self.scoring.urgency.level(told.urgency),
            "grade": told.grade.letter(),
            "cell": self.cell(),
            "by_category": categories,
            "unconfirmed": points(told.unconfirmed),
            "held_back_by_max": points(told.held_back),
        })
    }

    fn because(&self) -> Value {
        let (Some(because), Body::Hit(record)) = (&self.told.because, &self.cause.body) else {
            return Value::Null;
        };
        let (rule, label) = rule_names(self.scoring, self.catalog, because.rule);
        json!({
            "rule": rule,
            "label": label,
            "points": points(because.points),
            "at": iso(because.at),
            "page": page(&record.hit),
        })
    }

    fn reasons(&self) -> Vec<Value> {
        let reason = |reason: &engine::record::Reason| {
            let (rule, label) = rule_names(self.scoring, self.catalog, reason.rule);
            json!({
                "rule": rule,
                "label": label,
                "times": reason.times,
                "points": points(reason.points),
                "last": iso(reason.last),
            })
        };
        self.told.reasons.iter().map(reason).collect()
    }

    fn recent(&self) -> Vec<Value> {
        let shown = |hit: &&Hit| {
            matches!(hit.kind, HitKind::PageView | HitKind::Event) && hit.excluded.is_none()
        };
        let hits = self.timeline.values().rev().filter_map(hit_of).filter(shown);
        let described = hits.take(RECENT_MAX).map(|hit| {
            json!({
                "at": iso(hit.when),
                "event": if hit.event.is_empty() { "page_view" } else { &hit.event },
                "title": title(hit),
                "url": without_query(&hit.url),
            })
        });
        described.collect()
    }

    fn history(&self) -> Value {
        let lead = self.lead;
        let sources = || {
            let hits = self.timeline.values().filter_map(hit_of);
            hits.map(|hit| hit.campaign.as_str()).filter(|campaign| !campaign.is_empty())
        };
        json!({
            "first_seen": iso(lead.first_seen),
            "first_source": sources().next().unwrap_or("direct"),
            "last_source": sources().next_back().unwrap_or("direct"),
            "known_since": iso(lead.known_since),
            "known_by": if lead.known_by == KnownBy::Form { "form" } else { "server" },
            "anonymous_hits_attached": lead.attached,
            "visits": lead.visits,
            "pages": lead.pages,
        })
    }
}

/// A rule's name and what people read, also of a rule that is gone.
pub fn rule_names(scoring: &Scoring, catalog: &Catalog, id: RuleId) -> (String, Value) {
    if id == OTHER {
        return ("other".into(), json!({ "ja": "その他", "en": "Other" }));
    }
    if let Some(rule) = scoring.rules.rule(id) {
        return (rule.name.clone(), json!({ "ja": rule.ja, "en": rule.en }));
    }
    let name = catalog.name(NameKind::Rule, id.0).unwrap_or("unknown");
    (name.to_owned(), json!({ "ja": name, "en": name }))
}

fn hit_of(record: &Record) -> Option<&Hit> {
    match &record.body {
        Body::Hit(record) => Some(&record.hit),
        _ => None,
    }
}

fn page(hit: &Hit) -> Value {
    match hit.url.as_str() {
        "" => Value::Null,
        url => json!({ "title": title(hit), "url": without_query(url) }),
    }
}

fn title(hit: &Hit) -> String {
    let cut_at =
        hit.title.char_indices().nth(TITLE_CHARS_MAX).map_or(hit.title.len(), |(at, _)| at);
    cut(&hit.title, cut_at)
}

fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}

/// A line without the gaps that an unknown company or name leaves.
fn tidy(text: &str) -> String {
    let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
    joined.replace(", ,", ",").replace("】 ", "】")
}
