//! Leads as lists: searched by words, by a named list, or both, a page at a time.

use std::collections::BTreeSet;

use engine::id::LeadId;
use engine::lead::Lead;
use engine::time::Timestamp;
use serde_json::{Value, json};

use super::view::View;
use super::{Admin, Query, Refusal};
use crate::named::{LeadView, NamedList};
use crate::outbox::message::iso;

/// Leads looked at for one page: whoever goes on asks for the next.
const LOOKED_AT_MAX: usize = 20_000;

/// Who is asked for: everybody, or those on a list, who are people and no tests unless it is
/// said otherwise.
pub(super) struct Wanted {
    list: Option<NamedList>,
    test: bool,
}

impl Wanted {
    pub(super) fn of(admin: &Admin, query: &Query) -> Result<Wanted, Refusal> {
        let test = query.flag("test")?;
        let named = admin.app.named.load();
        let list = match query.get("list") {
            Some(id) => Some(named.get(id).ok_or(Refusal::NotFound)?.clone()),
            None => None,
        };
        Ok(Wanted { list, test })
    }

    /// Whether somebody is wanted. Where no list is asked for, tests are beside the others.
    pub(super) fn takes(&self, lead: &Lead, view: &View<'_>, now: Timestamp) -> bool {
        let Some(list) = &self.list else {
            return !self.test || lead.test;
        };
        lead.test == self.test && list.filter.holds(&LeadView::of(lead, view.scoring(), now))
    }
}

impl Admin {
    /// A page of leads, those seen last first. It may hold fewer than asked for; there are more
    /// while it says from where.
    pub(super) fn search(&self, query: &Query) -> Result<Value, Refusal> {
        query.only(&["q", "limit", "after", "list", "test"])?;
        let (view, now) = (View::new(&self.app), self.app.clock.now());
        let (wanted, limit) = (Wanted::of(self, query)?, query.limit()?);
        let after = query.get("after").map(|text| cursor(text).ok_or(Refusal::Malformed("after")));
        let words = query.get("q").unwrap_or_default();
        let found = self.lists.search(words, after.transpose()?);
        let (mut rows, mut shown) = (Vec::new(), BTreeSet::new());
        let (mut last, mut next) = (None, None);
        for (looked_at, (seen, id)) in found.into_iter().enumerate() {
            if rows.len() == limit || looked_at == LOOKED_AT_MAX {
                next = last;
                break;
            }
            last = Some(format!("{}-{id}", seen.0));
            let head = self.app.engine.head(id);
            // Who is found by their present name is shown there, and not by an older one too.
            let elsewhere = head != id && self.lists.has_words(head, words);
            if elsewhere || !shown.insert(head) {
                continue;
            }
            if let Some(lead) = self.app.engine.lead(head)
                && wanted.takes(&lead, &view, now)
            {
                rows.push(view.row(head, &lead, now));
            }
        }
        Ok(json!({ "schema": 1, "at": iso(now), "leads": rows, "next": next }))
    }
}

/// Where a page ended: when its last lead was last seen, and which it was.
fn cursor(text: &str) -> Option<(Timestamp, LeadId)> {
    let (seen, id) = text.split_once('-')?;
    Some((Timestamp(seen.parse().ok()?), LeadId::parse(id)?))
}
