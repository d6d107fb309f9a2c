//! Each hit decided once more by today's program, with the rules that were in force, and beside
//! what was recorded. Only reports: what is recorded stays true.
//!
//! What a browser's part says is decided again whenever it is known which rules were in force; a
//! lead's part wherever the hit brought no name that somebody else might have had.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::engine::Engine;
use engine::id::Position;
use engine::lead::Receipt;
use engine::record::{Body, HitRecord, NameKind, Published, VisitPart};
use engine::scoring::Scoring;
use engine::visitor::{Visit, Visitor};
use serde_json::{Value, json};

use crate::config::{Around, ScoringFile, Surroundings};
use crate::past::Step;

/// Lines written about hits that differ. More are counted.
const LINES_MAX: u64 = 1_000;

/// What was decided again so far.
pub(super) struct Recheck<'a> {
    surroundings: &'a Surroundings,
    // version -> what its file means to this program; nothing if it cannot be read any more
    versions: BTreeMap<u32, Option<Arc<Scoring>>>,
    visits: u64,
    leads: u64,
    differ: u64,
    passed_over: u64,
}

impl<'a> Recheck<'a> {
    pub(super) fn new(surroundings: &'a Surroundings) -> Recheck<'a> {
        Recheck {
            surroundings,
            versions: BTreeMap::new(),
            visits: 0,
            leads: 0,
            differ: 0,
            passed_over: 0,
        }
    }

    /// Decides a hit before its record is applied.
    pub(super) fn before(&mut self, step: &Step<'_>, engine: &Engine, lines: &mut Vec<String>) {
        let Body::Hit(record) = &step.record.body else {
            return;
        };
        let Some(recorded) = &record.visit else {
            return;
        };
        let scoring = self.versions.get(&step.record.version).cloned().flatten();
        let Some(scoring) = scoring else {
            self.passed_over += 1;
            return;
        };
        let visitor = record.hit.visitor.and_then(|id| engine.visitor(id, step.record.time));
        let visitor = visitor.unwrap_or_default();
        let mut differs = Vec::new();
        match decide(&visitor, record, &scoring, engine) {
            None => differs.push("it would be a repetition".to_owned()),
            Some((part, event)) => {
                self.visits += 1;
                compare(recorded, &part, !record.review.is_empty(), &mut differs);
                let plain = event.as_ref().is_some_and(|event| event.joins.is_empty());
                if let (Some(lead), Some(event), true) = (&record.lead, &event, plain) {
                    self.leads += 1;
                    let held = engine.entry(lead.lead).unwrap_or_default();
                    let bare = HitRecord { lead: None, ..(**record).clone() };
                    let now = step.record.time;
                    match held.receive(lead.lead, event, &bare, &scoring, now) {
                        Receipt::Part(decided) if *decided == *lead => {}
                        Receipt::Part(_) => differs.push("the lead's part is another".to_owned()),
                        Receipt::Refused(_) => differs.push("the lead would refuse".to_owned()),
                    }
                }
            }
        }
        if !differs.is_empty() {
            self.differ += 1;
            if self.differ <= LINES_MAX {
                let position = step.entry.position.0;
                lines.push(format!("{position}  differs: {}", differs.join("; ")));
            }
        }
    }

    /// Keeps what a version of the rules means.
    pub(super) fn after(&mut self, step: &Step<'_>, engine: &Engine, lines: &mut Vec<String>) {
        let Body::Published(published) = &step.record.body else {
            return;
        };
        let version = published.terms.version;
        match self.compiled(published, engine) {
            Ok(scoring) => {
                self.versions.insert(version, Some(Arc::new(scoring)));
            }
            Err(why) => {
                lines.push(format!("version {version} of the rules cannot be read now: {why}"));
                self.versions.insert(version, None);
            }
        }
    }

    fn compiled(&self, published: &Published, engine: &Engine) -> Result<Scoring, String> {
        let text = String::from_utf8_lossy(&published.text);
        let around = Around { surroundings: self.surroundings, settings: None };
        let file =
            ScoringFile::parse("the published rules", &text, around).map_err(|problems| {
                let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
                lines.join("; ")
            })?;
        let catalog = engine.catalog();
        let stamp = (published.terms.version, published.terms.published);
        let mut unknown = Vec::new();
        let scoring = file.publish(&catalog.versions, stamp, &mut |kind, name| {
            catalog.intern(&mut unknown, NameKind::from(kind), name)
        });
        scoring.map_err(|problem| problem.to_string())
    }

    /// How much was decided again.
    pub(super) fn figures(&self) -> Value {
        json!({
            "visits": self.visits,
            "leads": self.leads,
            "differ": self.differ,
            "passed_over": self.passed_over,
        })
    }
}

type Decided = (VisitPart, Option<engine::visitor::LeadEvent>);

fn decide(
    visitor: &Visitor,
    record: &HitRecord,
    scoring: &Scoring,
    engine: &Engine,
) -> Option<Decided> {
    let heads = |name| engine.known(name);
    match visitor.visit(record.first.as_ref(), &record.hit, scoring, &heads) {
        Visit::New(decided) => Some((decided.part, decided.event)),
        Visit::Duplicate(_) => None,
    }
}

/// What differs. A question that was asked took the tie back.
fn compare(recorded: &VisitPart, decided: &VisitPart, asked: bool, differs: &mut Vec<String>) {
    let rules = |part: &VisitPart| {
        let rows = part.rows.iter();
        rows.map(|row| (row.rule, row.granted, row.position)).collect::<Vec<_>>()
    };
    let (was, is) = (rules(recorded), rules(decided));
    if was != is {
        let list = |rows: &[(engine::id::RuleId, engine::points::Points, Position)]| {
            let rows = rows.iter().map(|(rule, granted, _)| format!("{}:{}", rule.0, granted.0));
            rows.collect::<Vec<_>>().join(",")
        };
        differs.push(format!("rows were [{}] and would be [{}]", list(&was), list(&is)));
    } else if recorded.rows != decided.rows {
        differs.push("rows have other details".to_owned());
    }
    if recorded.regrants != decided.regrants {
        differs.push("regrants are others".to_owned());
    }
    if recorded.counted != decided.counted {
        differs.push("what is counted is another".to_owned());
    }
    let ties = (recorded.bound, recorded.ended, recorded.shared);
    if !asked && ties != (decided.bound, decided.ended, decided.shared) {
        differs.push("whose it is would be another".to_owned());
    }
}
