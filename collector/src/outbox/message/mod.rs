//! The body of a message, frozen once: figures from the record, names from the lead as it was
//! then, what it did lately from the journal. One body carries both languages.

mod fit;
mod headline;
mod history;

use std::collections::BTreeSet;
use std::sync::Arc;

use engine::alert::{AlertId, AlertKind};
use engine::attribute::Attributes;
use engine::catalog::Catalog;
use engine::hit::Hit;
use engine::id::{LeadId, RuleId};
use engine::lead::{Lead, OTHER};
use engine::points::Points;
use engine::record::{Body, Message, NameKind, Record, Told};
use engine::sales::feedback_of;
use engine::scoring::{Scoring, Text};
use engine::stage::FeedbackKind;
use engine::terms::Terms;
use engine::threshold::{Crossing, Direction, Gate, Threshold};
use engine::time::Timestamp;
use serde_json::{Map, Value, json};

use crate::config::{CrmLink, Owner, Owners};
use crate::facts::{Facts, facts};
use crate::ingest::raw::cut;
use crate::outbox::look::{Look, Rendered};
use crate::timeline::Timeline;

pub(super) use self::headline::{closed_up, short};
pub use self::history::Recent;

/// Longest title in a message, in characters.
const TITLE_CHARS_MAX: usize = 80;
/// Who of sales a lead belongs to, by what our own systems say.
pub const OWNER: &str = "owner";
/// What a person's ids in other systems are called, and the attribute that holds each.
const EXTERNAL_IDS: [(&str, &str); 2] = [("crm", "crm_id"), ("user", "user_id")];

/// Everything a message is made of.
pub struct Material<'a> {
    /// The alert's id.
    pub alert: &'a str,
    /// What the record says of it.
    pub message: &'a Message,
    /// The crossing it tells, if it does.
    pub crossing: Option<&'a Crossing>,
    /// The message it takes back, if it does.
    pub retracts: Option<AlertId>,
    /// The site's name.
    pub site: &'a str,
    /// The record.
    pub cause: &'a Record,
    /// Whom it is about.
    pub lead_id: LeadId,
    /// The same.
    pub lead: &'a Lead,
    /// What is known of them.
    pub attributes: &'a Attributes,
    /// What proved who they are.
    pub confirmed_by: &'a str,
    /// What they did, up to the record.
    pub timeline: &'a Timeline,
    /// The first hit of theirs, if it is too old to be among these.
    pub first: Option<&'a Hit>,
    /// More of it is too old to be kept.
    pub begins_later: bool,
    /// The scoring in force, for what people read.
    pub scoring: &'a Scoring,
    /// The names the journal knows, and the terms of every version.
    pub catalog: &'a Catalog,
    /// The links that answer it with one tap: taken, no lead, later.
    pub taps: Option<[String; 3]>,
    /// The people of sales.
    pub owners: &'a Owners,
    /// How people reach the admin side, if stated.
    pub admin_url: Option<&'a str>,
    /// How they reach a lead in their own system, if stated.
    pub crm_link: Option<&'a CrmLink>,
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

/// The same without the part of a second: of moments that were worked out.
fn iso_seconds(at: Timestamp) -> String {
    let time =
        jiff::Timestamp::from_millisecond(at.0 as i64).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{time:.0}")
}

impl Material<'_> {
    /// The body. `hide` names what of the lead this endpoint is not shown.
    pub fn body(&self, hide: &BTreeSet<String>) -> Value {
        let (told, headline) = (self.told(), self.headline(hide));
        let mut data = json!({
            "schema": 1,
            "alert_id": self.alert,
            "sequence": told.sequence,
            "site": self.site,
            "test": self.lead.test,
            "audience": self.message.audience,
            "headline": { "ja": headline.ja, "en": headline.en },
            "lead": self.lead(hide),
            "company": self.company(hide),
            "score": self.score(),
            "crossing": self.crossing(),
            "because": self.because(),
            "also": self.also(),
            "reasons": self.reasons(),
            "recent": self.recent().iter().map(Recent::to_json).collect::<Vec<_>>(),
            "history": self.history(),
            "facts": self.facts_shown(hide),
            "answer_by": told.asks.map(|(answer_by, _)| iso_seconds(answer_by)),
            "links": self.links(hide),
            "times": {
                "received": iso(self.cause.received()),
                "scored": iso(self.cause.time),
                "committed": iso(self.committed),
                "queued": iso(self.queued),
            },
        });
        self.add_own_keys(&mut data);
        let mut body =
            json!({ "type": self.message.kind.name(), "timestamp": iso(told.at), "data": data });
        fit::fit(&mut body);
        body
    }

    /// The message as it is sent to whom it looks like that. `body` is what they are shown.
    pub fn rendered(&self, body: &Value, look: &Look, hide: &BTreeSet<String>) -> Rendered {
        if look.is_ours() {
            return Rendered { bytes: body.to_string().into_bytes(), failed: None };
        }
        look.render(body, &self.chat(body, hide, look.lang))
    }

    /// What only messages of this kind say.
    fn add_own_keys(&self, data: &mut Value) {
        let (own, other) = (self.lead_id, self.message.other.unwrap_or(self.lead_id));
        match self.message.kind {
            AlertKind::Retracted => {
                data["retracts"] = json!(self.retracts.as_ref().map(AlertId::as_str));
                data["reason"] = json!(self.reason());
            }
            AlertKind::Merged => {
                data["from"] = json!(other.to_string());
                data["into"] = json!(own.to_string());
            }
            AlertKind::Unmerged => {
                data["from"] = json!(own.to_string());
                data["into"] = json!(other.to_string());
            }
            AlertKind::Hot
            | AlertKind::Cooled
            | AlertKind::Action
            | AlertKind::Escalated
            | AlertKind::Signal
            | AlertKind::Reminder
            | AlertKind::Erased => {}
        }
    }

    /// Why a message is taken back: what the person said who did the step, else what it was.
    pub(super) fn reason(&self) -> &str {
        match &self.cause.body {
            Body::Step(step) if !step.reason.is_empty() => &step.reason,
            Body::Step(_) => "what was known was withdrawn",
            _ => "the rules changed",
        }
    }

    pub(super) fn told(&self) -> &Told {
        &self.message.told
    }

    pub(super) fn terms(&self) -> &Terms {
        let then = self.catalog.versions.numbered(self.cause.version);
        then.map_or_else(|| self.scoring.terms(), Arc::as_ref)
    }

    /// The kinds of what the message says besides, in a word each.
    fn also(&self) -> Vec<&str> {
        let word = |kind: &AlertKind| kind.name().rsplit('.').next().unwrap_or_default();
        self.message.also.iter().map(word).collect()
    }

    /// What is known of them by a name, if anybody can see anything in it.
    fn attribute(&self, name: &str) -> Option<&str> {
        let value = self.attributes.get(name).map(String::as_str);
        value.filter(|value| !short(value, 1).is_empty())
    }

    /// The same, unless the endpoint is not shown it.
    pub(super) fn shown(&self, name: &str, hide: &BTreeSet<String>) -> Option<&str> {
        self.attribute(name).filter(|_| !hide.contains(name))
    }

    fn crossing(&self) -> Value {
        let Some(crossing) = self.crossing else {
            return Value::Null;
        };
        let falls = crossing.direction == Direction::Fall;
        let name = self.catalog.name(NameKind::Threshold, u16::from(crossing.threshold.0));
        json!({
            "threshold": name.unwrap_or_default(),
            "direction": if falls { "fall" } else { "rise" },
            "line": self.line().map(Points::shown),
            "number": crossing.number,
            "opened_by": crossing.opened_by.map(Gate::name),
            "waited_for": self.waited_for_cooldown().then_some("cooldown"),
        })
    }

    /// How high the line stood that was crossed: a rejection raises it.
    pub(super) fn line(&self) -> Option<Points> {
        let crossing = self.crossing?;
        let height = |line: &Threshold| match crossing.direction {
            Direction::Fall | Direction::Settle => line.fall,
            Direction::Rise | Direction::Release => Points(line.rise.0 + self.told().raised.0),
        };
        self.terms().threshold(crossing.threshold).map(height)
    }

    /// Whether the message waited until the last one was long enough ago.
    pub(super) fn waited_for_cooldown(&self) -> bool {
        let released = self.crossing.is_some_and(|it| it.direction == Direction::Release);
        released && !matches!(self.cause.body, Body::Step(_))
    }

    pub(super) fn cell(&self) -> String {
        self.terms().cell(self.told().grade, self.told().score)
    }

    fn lead(&self, hide: &BTreeSet<String>) -> Value {
        let shown = |name: &str| self.shown(name, hide);
        let told = self.told();
        let mut ids = Map::new();
        for (name, _) in EXTERNAL_IDS {
            if let Some(id) = self.external_id(name, hide) {
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
            "assurance": told.assurance.name(),
            "confirmed_by": told.assurance.is_proved().then_some(&self.confirmed_by),
            "stage": told.stage.name(),
            "previous_stage": told.previous_stage.name(),
            "owner": self.owner(hide),
            "external_ids": ids,
        })
    }

    fn external_id(&self, name: &str, hide: &BTreeSet<String>) -> Option<&str> {
        let (_, attribute) = EXTERNAL_IDS.iter().find(|(known, _)| *known == name)?;
        self.shown(attribute, hide)
    }

    /// Who of sales the lead belongs to.
    pub(super) fn owner(&self, hide: &BTreeSet<String>) -> Option<&str> {
        let took = self.lead.owner().filter(|_| !hide.contains(OWNER));
        took.or_else(|| self.shown(OWNER, hide))
    }

    /// The same, if they stand in owners.toml.
    pub(super) fn known_owner(&self, hide: &BTreeSet<String>) -> Option<&Owner> {
        self.owners.find(self.owner(hide)?)
    }

    fn links(&self, hide: &BTreeSet<String>) -> Value {
        let crm = self.crm_link.and_then(|link| link.fill(|name| self.external_id(name, hide)));
        let tap = |place: usize| self.taps.as_ref().map(|taps| &taps[place]);
        json!({
            "crm": crm,
            "timeline": self.admin_url.map(|url| format!("{url}/leads/{}", self.lead_id)),
            "accept": tap(0), "reject": tap(1), "later": tap(2),
        })
    }

    /// What sales should know before it writes or calls.
    pub(super) fn facts(&self, hide: &BTreeSet<String>) -> Facts {
        let mut facts = facts(self.attributes, self.told().at);
        let hidden = |name: &str| hide.contains(name);
        facts.trial_until = facts.trial_until.filter(|_| !hidden("trial_until"));
        facts.open_deal = facts.open_deal.filter(|_| !hidden("open_deal"));
        facts.customer &= !hidden("customer");
        if hidden("registered_events") {
            facts.registered_events.clear();
        }
        facts
    }

    fn facts_shown(&self, hide: &BTreeSet<String>) -> Value {
        let facts = self.facts(hide);
        json!({
            "trial_until": facts.trial_until,
            "registered_events": facts.registered_events,
            "customer": facts.customer,
            "open_deal": facts.open_deal,
        })
    }

    fn company(&self, hide: &BTreeSet<String>) -> Value {
        let shown = |name: &str| self.shown(name, hide);
        // The domain alone names nobody: it is shown beside a hidden address.
        let domain = self.attribute("email").and_then(|email| email.rsplit_once('@'));
        let employees = shown("employees").and_then(|count| count.parse::<u64>().ok());
        json!({
            "id": null,
            "name": shown("company"),
            "domain": domain.map(|(_, domain)| domain),
            "corporate_number": shown("corporate_number"),
            "industry": shown("industry"),
            "employees": employees,
            "score": null,
            "people_active": null,
        })
    }

    fn score(&self) -> Value {
        let told = self.told();
        let mut categories = Map::new();
        for (id, value) in &told.categories {
            let name = self.catalog.name(NameKind::Category, u16::from(id.0)).unwrap_or_default();
            categories.insert(name.to_owned(), points(*value));
        }
        json!({
            "points": told.score.shown(),
            "exact": points(told.score),
            "before_24h": points(told.before_24h),
            "urgency": self.urgency(),
            "grade": told.grade.letter(),
            "cell": self.cell(),
            "by_category": categories,
            "unconfirmed": points(told.unconfirmed),
            "held_back_by_max": points(told.held_back),
        })
    }

    /// The word for how much of it is of now.
    pub(super) fn urgency(&self) -> &'static str {
        self.scoring.labels.urgency.level(self.told().urgency)
    }

    fn because(&self) -> Value {
        let Some(because) = &self.told().because else {
            return Value::Null;
        };
        // What came along with a history happened on another page than the hit's.
        let own = hit_of(self.cause).filter(|hit| hit.when == because.at);
        let found = || {
            let hits = self.timeline.values().rev().filter_map(hit_of);
            hits.into_iter().find(|hit| hit.when == because.at)
        };
        let (rule, label) = rule_names(self.scoring, self.catalog, because.rule);
        json!({
            "rule": rule,
            "label": label,
            "points": points(because.points),
            "at": iso(because.at),
            "page": own.or_else(found).map_or(Value::Null, page),
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
        self.told().reasons.iter().map(reason).collect()
    }
}

/// A rule's name and what people read, also of a rule that is gone.
pub fn rule_names(scoring: &Scoring, catalog: &Catalog, id: RuleId) -> (String, Value) {
    let (name, label) = named_rule(scoring, catalog, id);
    (name, json!({ "ja": label.ja, "en": label.en }))
}

/// The same as text.
pub(super) fn named_rule(scoring: &Scoring, catalog: &Catalog, id: RuleId) -> (String, Text) {
    let text = |ja: &str, en: &str| Text { ja: ja.to_owned(), en: en.to_owned() };
    if id == OTHER {
        return ("other".into(), text("その他", "Other"));
    }
    if let Some(kind) = feedback_of(id) {
        let (ja, en) = answer_label(kind);
        return (kind.name().to_owned(), text(ja, en));
    }
    if let Some(rule) = scoring.rules.rule(id) {
        return (rule.name.clone(), text(&rule.ja, &rule.en));
    }
    let name = catalog.name(NameKind::Rule, id.0).unwrap_or("unknown");
    (name.to_owned(), text(name, name))
}

/// What people read where an answer of sales is the reason for points.
fn answer_label(kind: FeedbackKind) -> (&'static str, &'static str) {
    match kind {
        FeedbackKind::Accepted => ("営業が対応開始", "Sales took it"),
        FeedbackKind::Rejected => ("営業が見送り", "Sales said no"),
        FeedbackKind::Contacted => ("営業が連絡", "Sales spoke to them"),
        FeedbackKind::MeetingPlanned => ("商談予定", "Meeting planned"),
        FeedbackKind::MeetingDone => ("商談実施", "Met sales"),
        FeedbackKind::NoShow => ("商談に不参加", "Did not come to a meeting"),
        FeedbackKind::Opportunity => ("商談化", "A deal began"),
        FeedbackKind::Won => ("受注", "Deal won"),
        FeedbackKind::Lost => ("失注", "Deal lost"),
        FeedbackKind::Recycle => ("マーケへ戻し", "Given back to marketing"),
        FeedbackKind::Snooze => ("あとで", "Later"),
    }
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
