//! Leads about whom sales was told, and whom nobody has taken.

use engine::id::LeadId;
use engine::lead::Lead;
use engine::sales::Asked;
use engine::time::Timestamp;
use serde_json::{Value, json};

use super::view::View;
use super::{Admin, Query, Refusal};
use crate::app::App;
use crate::outbox::message::iso;
use crate::reader::Lists;
use crate::reader::days::Days;

/// A lead that nobody has taken.
pub(super) struct Untaken {
    id: LeadId,
    lead: Lead,
    asked: Asked,
}

impl Untaken {
    /// Whether the time for a report is over.
    pub(super) fn is_late(&self, now: Timestamp) -> bool {
        self.asked.report_at <= now
    }
}

/// All of them but tests, and but those of whom nobody heard. The lists say who may be one.
pub(super) fn untaken(app: &App, lists: &Lists) -> impl Iterator<Item = Untaken> {
    lists.days(Days::asked).into_iter().filter_map(|id| {
        let lead = app.engine.entry(id).filter(|lead| lead.is_person() && !lead.test)?;
        Some(Untaken { id, asked: lead.asked?, lead })
    })
}

impl Admin {
    /// The report of leads that nobody took: who waits longest first.
    pub(super) fn untaken(&self, query: &Query) -> Result<Value, Refusal> {
        query.only(&["all", "limit"])?;
        let (all, limit) = (query.flag("all")?, query.limit()?);
        let (view, now) = (View::new(&self.app), self.app.clock.now());
        let sales = &view.scoring().sales;
        let found = untaken(&self.app, &self.lists);
        let mut found: Vec<Untaken> = found.filter(|it| all || it.is_late(now)).collect();
        found.sort_by_key(|it| (it.asked.since, it.id));
        let count = found.len();
        let rows = found.into_iter().take(limit).map(|it| {
            let minutes = |time: std::time::Duration| time.as_secs() / 60;
            let mut row = view.row(it.id, &it.lead, now);
            let owner = it.lead.owner().map(str::to_owned);
            let owner = owner.or_else(|| it.lead.attributes().get("owner").cloned());
            row["owner"] = json!(owner.filter(|owner| !owner.is_empty()));
            row["since"] = json!(iso(it.asked.since));
            row["answer_by"] = json!(iso(it.asked.remind_at));
            row["report_at"] = json!(iso(it.asked.report_at));
            row["reminded"] = json!(it.asked.reminded);
            row["waited_minutes"] = json!({
                "working": minutes(sales.between(it.asked.since, now)),
                "wall": minutes(now.since(it.asked.since)),
            });
            row
        });
        let rows: Vec<Value> = rows.collect();
        Ok(json!({ "schema": 1, "at": iso(now), "count": count, "leads": rows }))
    }
}
