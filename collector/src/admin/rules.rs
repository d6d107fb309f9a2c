//! The rules: what is in force, what a draft would change, matching the past anew, and who is
//! held because of it.

use std::sync::Arc;
use std::time::Duration;

use engine::catalog::Catalog;
use engine::id::{LeadId, ThresholdId};
use engine::record::{Name, NameKind};
use engine::scoring::Scoring;
use engine::time::Timestamp;
use hyper::Response;
use serde_json::{Value, json};

use super::operate::authority;
use super::view::View;
use super::wish::{Wish, needed};
use super::{Admin, Query, Refusal, answer};
use crate::app::App;
use crate::config::{Around, Problem, RulesFrom, ScoringFile};
use crate::outbox::message::{iso, points, rule_names};
use crate::reader::Lists;
use crate::serve;
use crate::server::Body;
use crate::steps::rescore::{Outcome, Turned, rescore, what_if};
use crate::steps::{self, Failed};

/// Whoever turned is listed up to here; all are counted.
const TURNED_MAX: usize = 1_000;

impl Admin {
    /// What is in force.
    pub(super) fn rules(&self) -> Value {
        let in_force = self.app.scoring.load();
        let terms = in_force.scoring.terms();
        json!({
            "schema": 1,
            "version": terms.version,
            "published": iso(terms.published),
            "from": match self.app.settings.rules_from {
                RulesFrom::File => "file",
                RulesFrom::Dashboard => "dashboard",
            },
            "held": held(&self.app, &self.lists).len(),
            "text": &*in_force.text,
        })
    }

    /// What a request does to the rules, if its path is one.
    pub(super) async fn change_rules(
        &self,
        path: &str,
        query: &Query,
        body: &[u8],
    ) -> Result<Response<Body>, Refusal> {
        match path {
            "/api/rules/what-if" => self.what_if(query, body).await,
            "/api/rules/publish" => self.publish(body).await,
            "/api/rules/rescore" => self.rescore(body).await,
            "/api/rules/held" => self.release(body).await,
            _ => Err(Refusal::NotFound),
        }
    }

    fn read_rules(&self, body: &[u8]) -> Result<ScoringFile, Refusal> {
        let text = std::str::from_utf8(body).map_err(|_| Refusal::Malformed("UTF-8"))?;
        let for_rules = self.app.settings.for_rules();
        let around = Around { surroundings: &self.surroundings, settings: Some(&for_rules) };
        ScoringFile::parse("draft", text, around).map_err(Refusal::Problems)
    }

    async fn what_if(&self, query: &Query, body: &[u8]) -> Result<Response<Body>, Refusal> {
        let file = self.read_rules(body)?;
        let days = query.days()?;
        self.run(move |app| {
            let catalog = app.engine.catalog();
            let (draft, names) = draft(&catalog, &file, app.clock.now()).map_err(problem)?;
            let outcome = what_if(app, &draft, since(app, days))?;
            Ok(shown(app, &outcome, (&draft, &named(catalog, &names))))
        })
        .await
    }

    async fn publish(&self, body: &[u8]) -> Result<Response<Body>, Refusal> {
        if self.app.settings.rules_from != RulesFrom::Dashboard {
            return Err(Refusal::Malformed(
                "the rules come from scoring.toml: save that file, or set [rules] from",
            ));
        }
        let file = self.read_rules(body)?;
        self.run(move |app| {
            let version = serve::publish(app, &file).map_err(problem)?;
            Ok(json!({ "schema": 1, "version": version }))
        })
        .await
    }

    async fn rescore(&self, body: &[u8]) -> Result<Response<Body>, Refusal> {
        let wish = Wish::read(body, &["days", "actor", "reason"])?;
        let (days, why) = (wish.number("days")?, authority(&wish)?);
        self.run(move |app| {
            let outcome = rescore(app, since(app, days), &why)?;
            let in_force = app.scoring.load();
            let mut value = shown(app, &outcome, (&in_force.scoring, &app.engine.catalog()));
            value["position"] = json!(outcome.job.0);
            Ok(value)
        })
        .await
    }

    /// Who is held, and at which line.
    pub(super) fn held(&self) -> Value {
        let view = View::new(&self.app);
        let held = held(&self.app, &self.lists);
        let catalog = self.app.engine.catalog();
        let rows: Vec<Value> = held
            .iter()
            .filter_map(|(lead, line)| {
                let mut row = view.summary_of(*lead)?;
                row["threshold"] = json!(catalog.name(NameKind::Threshold, u16::from(line.0)));
                Some(row)
            })
            .collect();
        json!({ "schema": 1, "held": rows })
    }

    /// Those held are told, or are not to be told: all, or the one named.
    async fn release(&self, body: &[u8]) -> Result<Response<Body>, Refusal> {
        let wish = Wish::read(body, &["tell", "lead", "actor", "reason"])?;
        let why = authority(&wish)?;
        let (tell, only) = (needed(wish.flag("tell")?, "tell")?, wish.lead("lead")?);
        let lists = Arc::clone(&self.lists);
        self.run(move |app| {
            let mut done = Vec::new();
            for (lead, line) in held(app, &lists) {
                if only.is_some_and(|only| app.engine.head(only) != lead) {
                    continue;
                }
                match steps::release(app, (lead, line), tell, &why) {
                    Ok(_) => done.push(lead.to_string()),
                    // Out again by now, or told by somebody else.
                    Err(Failed::Step(engine::engine::StepError::NotHeld)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(json!({ "schema": 1, "told": tell, "leads": done }))
        })
        .await
    }
}

fn problem(problem: Problem) -> Refusal {
    Refusal::Problems(vec![problem])
}

/// A draft as the version after the one in force, with the names that it would add.
fn draft(
    catalog: &Catalog,
    file: &ScoringFile,
    now: Timestamp,
) -> Result<(Scoring, Vec<Name>), Problem> {
    let mut names = Vec::new();
    let version = (catalog.version() + 1, now);
    let scoring = file.publish(&catalog.versions, version, &mut |kind, name| {
        catalog.intern(&mut names, kind.into(), name)
    })?;
    Ok((scoring, names))
}

fn named(mut catalog: Catalog, names: &[Name]) -> Catalog {
    catalog.evolve_names(names);
    catalog
}

/// From when on: so many days ago, or the beginning.
fn since(app: &App, days: Option<u64>) -> Timestamp {
    days.map_or(Timestamp(0), |days| {
        app.clock.now().minus(Duration::from_hours(24 * days.min(36_500)))
    })
}

/// Who is held now: the engine knows, the list says whom to ask about.
fn held(app: &App, lists: &Lists) -> Vec<(LeadId, ThresholdId)> {
    let still = |(lead, line): &(LeadId, ThresholdId)| {
        let known = app.engine.lead(*lead);
        known.is_some_and(|lead| {
            lead.bands.iter().any(|band| band.threshold() == *line && band.held)
        })
    };
    let mut held: Vec<(LeadId, ThresholdId)> = lists
        .held()
        .into_iter()
        .map(|(lead, line)| (app.engine.head(lead), line))
        .filter(still)
        .collect();
    held.sort_unstable();
    held.dedup();
    held
}

fn shown(app: &App, outcome: &Outcome, (scoring, catalog): (&Scoring, &Catalog)) -> Value {
    let turned = |inside: bool| {
        let some = outcome.turned.iter().filter(move |turned| turned.inside == inside);
        let rows: Vec<Value> = some
            .clone()
            .take(TURNED_MAX)
            .map(|turned| turned_row(app, turned, (scoring, catalog)))
            .collect();
        (rows, some.count())
    };
    let ((goes_in, in_count), (goes_out, out_count)) = (turned(true), turned(false));
    json!({
        "schema": 1,
        "hits": outcome.hits,
        "leads": outcome.leads,
        "scores_changed": outcome.changed,
        "in_count": in_count,
        "in": goes_in,
        "out_count": out_count,
        "out": goes_out,
        "took_ms": outcome.took.as_millis() as u64,
    })
}

/// `Tanaka would be hot: 59.365 becomes 60.364, because Viewed pricing +1`, and its figures.
fn turned_row(app: &App, turned: &Turned, (scoring, catalog): (&Scoring, &Catalog)) -> Value {
    let attributes = app.engine.lead(turned.lead).map(|lead| lead.attributes());
    let attributes = attributes.unwrap_or_default();
    let name = attributes.get("name").or_else(|| attributes.get("email"));
    let line = catalog.name(NameKind::Threshold, u16::from(turned.threshold.0)).unwrap_or("?");
    let because = turned.because.map(|(rule, change)| {
        let (rule, label) = rule_names(scoring, catalog, rule);
        json!({ "rule": rule, "label": label, "change": points(change) })
    });
    let says = format!(
        "{} {} {line}: {} becomes {}{}",
        name.map_or_else(|| turned.lead.to_string(), Clone::clone),
        if turned.inside { "goes in at" } else { "goes out at" },
        turned.before,
        turned.after,
        turned.because.map_or(String::new(), |(rule, change)| {
            let (_, label) = rule_names(scoring, catalog, rule);
            let whole = (change.0 as f64 / 1_000.0).round();
            format!(", because {} {whole:+}", label["en"].as_str().unwrap_or_default())
        }),
    );
    json!({
        "lead": turned.lead.to_string(),
        "name": name,
        "threshold": line,
        "before": points(turned.before),
        "after": points(turned.after),
        "because": because,
        "says": says,
    })
}

/// Answers that take the rules' place in `get`.
pub(super) fn get(admin: &Admin, rest: &[&str]) -> Result<Response<Body>, Refusal> {
    match rest {
        [] => Ok(answer(&admin.rules())),
        ["held"] => Ok(answer(&admin.held())),
        _ => Err(Refusal::NotFound),
    }
}
