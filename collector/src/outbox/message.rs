//! The body of a message, frozen once: figures from the record, names from the lead as it was
//! then, what it did lately from the journal.

use std::collections::BTreeSet;
use std::sync::Arc;

use engine::alert::{AlertId, AlertKind};
use engine::attribute::Attributes;
use engine::catalog::Catalog;
use engine::hit::{Hit, HitKind};
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

use crate::ingest::raw::cut;
use crate::timeline::Timeline;

/// Longest title in a message, in characters.
const TITLE_CHARS_MAX: usize = 80;
/// Who of sales a lead belongs to, by what our own systems say.
pub const OWNER: &str = "owner";
/// Hits listed as recent.
const RECENT_MAX: usize = 5;

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
    /// The scoring in force, for what people read.
    pub scoring: &'a Scoring,
    /// The names the journal knows, and the terms of every version.
    pub catalog: &'a Catalog,
    /// The links that answer it with one tap: taken, no lead, later.
    pub taps: Option<[String; 3]>,
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
    pub fn body(&self, hide: &BTreeSet<String>) -> Value {
        let (told, headline) = (self.told(), self.headline(hide));
        let tap = |place: usize| self.taps.as_ref().map(|taps| &taps[place]);
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
            "recent": self.recent(),
            "history": self.history(),
            "facts": {
                "trial_until": null,
                "registered_events": [],
                "customer": false,
                "open_deal": null,
            },
            "answer_by": told.asks.map(|(answer_by, _)| iso(answer_by)),
            "links": {
                "crm": null,
                "timeline": self.admin_url.map(|url| format!("{url}/leads/{}", self.lead_id)),
                "accept": tap(0), "reject": tap(1), "later": tap(2),
            },
            "times": {
                "received": iso(self.cause.received()),
                "scored": iso(self.cause.time),
                "committed": iso(self.committed),
                "queued": iso(self.queued),
            },
        });
        self.add_own_keys(&mut data);
        json!({ "type": self.message.kind.name(), "timestamp": iso(told.at), "data": data })
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
            | AlertKind::Reminder => {}
        }
    }

    /// Why a message is taken back: what the person said who did the step, else what it was.
    fn reason(&self) -> &str {
        match &self.cause.body {
            Body::Step(step) if !step.reason.is_empty() => &step.reason,
            Body::Step(_) => "what was known was withdrawn",
            _ => "the rules changed",
        }
    }

    fn told(&self) -> &Told {
        &self.message.told
    }

    fn terms(&self) -> &Terms {
        let then = self.catalog.versions.numbered(self.cause.version);
        then.map_or_else(|| self.scoring.terms(), Arc::as_ref)
    }

    /// The kinds of what the message says besides, in a word each.
    fn also(&self) -> Vec<&str> {
        let word = |kind: &AlertKind| kind.name().rsplit('.').next().unwrap_or_default();
        self.message.also.iter().map(word).collect()
    }

    fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The same, unless the endpoint is not shown it.
    fn shown(&self, name: &str, hide: &BTreeSet<String>) -> Option<&str> {
        self.attribute(name).filter(|_| !hide.contains(name))
    }

    fn crossing(&self) -> Value {
        let Some(crossing) = self.crossing else {
            return Value::Null;
        };
        let falls = crossing.direction == Direction::Fall;
        let name = self.catalog.name(NameKind::Threshold, u16::from(crossing.threshold.0));
        let height = |line: &Threshold| if falls { line.fall } else { line.rise };
        let line = self.terms().threshold(crossing.threshold);
        let released = crossing.direction == Direction::Release;
        let by_hand = matches!(self.cause.body, Body::Step(_));
        json!({
            "threshold": name.unwrap_or_default(),
            "direction": if falls { "fall" } else { "rise" },
            "line": line.map(|line| height(line).shown()),
            "number": crossing.number,
            "opened_by": crossing.opened_by.map(Gate::name),
            "waited_for": (released && !by_hand).then_some("cooldown"),
        })
    }

    fn headline(&self, hide: &BTreeSet<String>) -> Text {
        let text = self.scoring.labels.texts.get(self.text_key()).cloned();
        let text = text.unwrap_or_else(|| built_in(self.message.kind));
        // Whoever may not be named still has an id, by which they can be found.
        let id = self.lead_id.to_string();
        let name = self.shown("name", hide).or_else(|| self.shown("email", hide)).unwrap_or(&id);
        let company = self.shown("company", hide).unwrap_or_default();
        let told = self.told();
        let seen = self.lead.last_human();
        let seen = seen.map_or(0, |seen| told.at.since(seen).as_secs() / 86_400);
        let reason = told.because.map(|because| self.rule_label(because.rule));
        let reason = reason.unwrap_or_default();
        let fill = |template: &str, name: &str, reason: &str| {
            let filled = template
                .replace("{days}", &seen.to_string())
                .replace("{score}", &told.score.shown().to_string())
                .replace("{last}", &told.last_told.unwrap_or(told.score).shown().to_string())
                .replace("{cell}", &self.cell())
                .replace("{reason}", reason)
                .replace("{company}", company)
                .replace("{name}", name);
            tidy(&filled)
        };
        // In Japanese the space inside a name is dropped before the honorific.
        let mut headline = Text {
            ja: fill(&text.ja, &name.replace([' ', '\u{3000}'], ""), &reason.ja),
            en: fill(&text.en, name, &reason.en),
        };
        // A person may be known well, and this browser not: its points are only claimed.
        if !told.assurance.is_proved() || told.unconfirmed > Points(0) {
            headline.ja.push_str("※未確認");
            headline.en.push_str(" (unconfirmed)");
        }
        headline
    }

    fn text_key(&self) -> &'static str {
        match self.message.kind {
            AlertKind::Hot => "hot",
            AlertKind::Cooled => "cooled",
            AlertKind::Action => "action",
            AlertKind::Escalated => "escalated",
            AlertKind::Retracted => "retracted",
            AlertKind::Merged => "merged",
            AlertKind::Unmerged => "unmerged",
            AlertKind::Signal => "signal",
            AlertKind::Reminder => "reminder",
        }
    }

    fn rule_label(&self, id: RuleId) -> Text {
        let rule = self.scoring.rules.rule(id);
        rule.map_or_else(
            || {
                let name = self.catalog.name(NameKind::Rule, id.0).unwrap_or_default();
                Text { ja: name.to_owned(), en: name.to_owned() }
            },
            |rule| Text { ja: rule.ja.clone(), en: rule.en.clone() },
        )
    }

    fn cell(&self) -> String {
        self.terms().cell(self.told().grade, self.told().score)
    }

    fn lead(&self, hide: &BTreeSet<String>) -> Value {
        let shown = |name: &str| self.shown(name, hide);
        let told = self.told();
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
            "assurance": told.assurance.name(),
            "confirmed_by": told.assurance.is_proved().then_some(&self.confirmed_by),
            "stage": told.stage.name(),
            "previous_stage": told.previous_stage.name(),
            "owner": self.lead.owner().or_else(|| shown(OWNER)),
            "external_ids": ids,
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
            "urgency": self.scoring.labels.urgency.level(told.urgency),
            "grade": told.grade.letter(),
            "cell": self.cell(),
            "by_category": categories,
            "unconfirmed": points(told.unconfirmed),
            "held_back_by_max": points(told.held_back),
        })
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
        let (since, by_server) = lead.known_since().unwrap_or_default();
        let counts = lead.counts();
        json!({
            "first_seen": iso(lead.first_seen()),
            "first_source": sources().next().unwrap_or("direct"),
            "last_source": sources().next_back().unwrap_or("direct"),
            "known_since": iso(since),
            "known_by": if by_server { "server" } else { "form" },
            "anonymous_hits_attached": counts.attached,
            "visits": counts.visits,
            "pages": counts.pages,
        })
    }
}

/// A rule's name and what people read, also of a rule that is gone.
pub fn rule_names(scoring: &Scoring, catalog: &Catalog, id: RuleId) -> (String, Value) {
    if id == OTHER {
        return ("other".into(), json!({ "ja": "その他", "en": "Other" }));
    }
    if let Some(kind) = feedback_of(id) {
        let (ja, en) = answer_label(kind);
        return (kind.name().into(), json!({ "ja": ja, "en": en }));
    }
    if let Some(rule) = scoring.rules.rule(id) {
        return (rule.name.clone(), json!({ "ja": rule.ja, "en": rule.en }));
    }
    let name = catalog.name(NameKind::Rule, id.0).unwrap_or("unknown");
    (name.to_owned(), json!({ "ja": name, "en": name }))
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

/// First lines that the rule file has no word for.
fn built_in(kind: AlertKind) -> Text {
    let (ja, en) = match kind {
        AlertKind::Retracted => ("【取消】{company} {name}さん", "RETRACTED: {name}, {company}"),
        AlertKind::Merged => ("【統合】{company} {name}さん", "MERGED: {name}, {company}"),
        AlertKind::Unmerged => ("【分離】{company} {name}さん", "SEPARATED: {name}, {company}"),
        AlertKind::Hot
        | AlertKind::Cooled
        | AlertKind::Action
        | AlertKind::Escalated
        | AlertKind::Signal
        | AlertKind::Reminder => {
            ("{company} {name}さん {score}点", "{name}, {company}, {score} points")
        }
    };
    Text { ja: ja.to_owned(), en: en.to_owned() }
}

/// A line without the gaps that an unknown company or name leaves.
fn tidy(text: &str) -> String {
    let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
    joined.replace(", ,", ",").replace("】 ", "】")
}
