//! What can only be said by looking at every lead: who is on which list, which gates keep leads
//! out that have the points, whose message waits. Leads are looked at one by one, and what was
//! found is used again for a while if that took long.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::lead::Lead;
use engine::scoring::Scoring;
use engine::threshold::Gate;
use engine::time::Timestamp;
use serde_json::{Value, json};

use super::untaken::untaken;
use super::{Admin, unknown};
use crate::app::App;
use crate::named::{LeadView, NamedLists};
use crate::outbox::message::iso;
use crate::reader::Lists;

/// A survey that took less is made anew for whoever asks.
const QUICK_MS: u64 = 20;
/// Another one is used so many times as long as it took: it may cost a fiftieth of a core.
const REST_FACTOR: u64 = 50;

/// What was found.
pub(super) struct Survey {
    /// When.
    pub(super) at: Timestamp,
    /// People, but for tests.
    pub(super) leads: u64,
    /// The named lists of then,
    named: Arc<NamedLists>,
    /// and how many are on each.
    pub(super) listed: BTreeMap<String, u64>,
    /// By line and gate: leads that have the points for a line and are kept out by the gate.
    pub(super) shut_out: BTreeMap<(String, &'static str), u64>,
    /// Messages that wait for the cool-down.
    pub(super) waiting: u64,
    /// Leads that nobody took in time.
    pub(super) untaken: u64,
    /// Browsers that are hot and nobody's.
    pub(super) unknown: u64,
}

/// The last survey.
#[derive(Default)]
pub struct Surveys {
    last: Mutex<Option<Last>>,
    /// Held by whoever makes one.
    at_work: Mutex<()>,
}

#[derive(Clone)]
struct Last {
    survey: Arc<Survey>,
    made_ms: u64,
    took_ms: u64,
}

impl Surveys {
    /// The survey as of now, or of a short while ago.
    pub(super) fn get(&self, app: &App, lists: &Lists) -> Arc<Survey> {
        if let Some(fresh) = self.fresh(app) {
            return fresh;
        }
        let at_work = locked(&self.at_work);
        // Somebody else may just have made it.
        if let Some(fresh) = self.fresh(app) {
            return fresh;
        }
        let (named, began_ms) = (app.named.load_full(), app.clock.boot_ms());
        let survey = Arc::new(survey(app, lists, &named));
        let made_ms = app.clock.boot_ms();
        let took_ms = made_ms.saturating_sub(began_ms);
        let last = Last { survey: Arc::clone(&survey), made_ms, took_ms };
        *locked(&self.last) = Some(last);
        drop(at_work);
        survey
    }

    fn fresh(&self, app: &App) -> Option<Arc<Survey>> {
        let last = locked(&self.last).clone()?;
        let age_ms = app.clock.boot_ms().saturating_sub(last.made_ms);
        let same = Arc::ptr_eq(&last.survey.named, &app.named.load_full());
        let holds = last.took_ms >= QUICK_MS && age_ms < last.took_ms * REST_FACTOR;
        (same && holds).then_some(last.survey)
    }
}

fn survey(app: &App, lists: &Lists, named: &Arc<NamedLists>) -> Survey {
    let now = app.clock.now();
    let in_force = app.scoring.load_full();
    let mut found = Survey {
        at: now,
        leads: 0,
        listed: named.all().iter().map(|list| (list.id.clone(), 0)).collect(),
        named: Arc::clone(named),
        shut_out: BTreeMap::new(),
        waiting: 0,
        untaken: 0,
        unknown: unknown::find(app, now).count() as u64,
    };
    for id in lists.ids() {
        let lead = app.engine.entry(id).filter(Lead::is_person);
        if let Some(lead) = lead.filter(|lead| !lead.test) {
            found.look_at(&lead, named, &in_force.scoring);
        }
    }
    found.untaken = untaken(app, lists).filter(|it| it.is_late(now)).count() as u64;
    found
}

impl Survey {
    fn look_at(&mut self, lead: &Lead, named: &NamedLists, scoring: &Scoring) {
        self.leads += 1;
        let view = LeadView::of(lead, scoring, self.at);
        for list in named.all().iter().filter(|list| list.filter.holds(&view)) {
            *self.listed.entry(list.id.clone()).or_default() += 1;
        }
        let waits =
            |band: &&engine::threshold::Band| band.side.inside && band.waits_until.is_some();
        self.waiting += lead.bands.iter().filter(waits).count() as u64;
        let lines = &scoring.terms().thresholds;
        if lines.iter().all(|line| view.score < line.rise) {
            return;
        }
        let standing = lead.standing(scoring, self.at);
        for line in lines {
            let side = lead.band(line).side;
            let is_open = |gate: Gate| line.is_open(gate, &standing, side.since, self.at);
            if side.inside || !is_open(Gate::Score) {
                continue;
            }
            for gate in Gate::ASKED.into_iter().filter(|gate| !is_open(*gate)) {
                *self.shut_out.entry((line.name.clone(), gate.name())).or_default() += 1;
            }
        }
    }

    /// Which gates keep out whom.
    pub(super) fn gates(&self) -> Vec<Value> {
        let rows = self.shut_out.iter();
        let rows = rows.map(
            |((line, gate), leads)| json!({ "threshold": line, "gate": gate, "leads": leads }),
        );
        rows.collect()
    }
}

impl Admin {
    /// The named lists, each with how many are on it.
    pub(super) fn named_lists(&self) -> Value {
        let survey = self.surveys.get(&self.app, &self.lists);
        let rows: Vec<Value> = survey
            .named
            .all()
            .iter()
            .map(|list| {
                json!({
                    "id": list.id,
                    "label": { "ja": list.ja, "en": list.en },
                    "count": survey.listed.get(&list.id),
                })
            })
            .collect();
        json!({ "schema": 1, "at": iso(survey.at), "leads": survey.leads, "lists": rows })
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
