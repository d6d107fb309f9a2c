//! Applying records: all that replay does. Of each record the entries that it is about, one after
//! another, and nothing besides.

use std::sync::atomic::Ordering;

use crate::catalog::Catalog;
use crate::id::{LeadId, Position, Slot};
use crate::lead::Lead;
use crate::record::{Body, Published, Record, Step};
use crate::visitor::Visitor;

use super::{Engine, Who, written};

impl Engine {
    /// Applies a record at its position: the whole of replay. An entry that knows of it already,
    /// since it comes out of a snapshot that was taken later, is left as it is.
    pub fn evolve(&self, record: &Record, position: Position) {
        self.evolve_where(record, position, |_| true);
    }

    /// The same for the entries of some slots alone: each slot's part of a record stands for
    /// itself, so that a part of the state can be worked out in a part of the memory.
    pub fn evolve_where(&self, record: &Record, position: Position, wanted: impl Fn(Slot) -> bool) {
        self.evolve_those(record, position, |who| wanted(who.slot()));
        match &record.body {
            Body::Step(step) if matches!(step.step, Step::Erase { .. }) => {
                self.erasures.note(position, record.time);
            }
            Body::Published(published) => {
                self.evolve_published(&mut written(&self.catalog), published);
            }
            Body::Named(names) => written(&self.catalog).evolve_names(names),
            Body::Hit(_) | Body::Due(_) | Body::Step(_) | Body::Outbox(_) => {}
        }
    }

    /// The same of those entries alone that are wanted, and of nothing that belongs to no entry.
    pub(super) fn evolve_those(
        &self,
        record: &Record,
        position: Position,
        wanted: impl Fn(Who) -> bool,
    ) {
        let stamp = (record.time, record.version);
        match &record.body {
            Body::Hit(hit_record) => {
                if let (Some(id), Some(_)) = (hit_record.hit.visitor, &hit_record.visit)
                    && wanted(Who::Visitor(id))
                {
                    let mut visitor = self.visitors.entry(id);
                    if visitor.last_position < position {
                        if visitor.is_expired(record.time) {
                            *visitor = Visitor::default();
                        }
                        visitor.evolve(hit_record, position);
                    }
                }
                if let Some(part) = hit_record.lead.as_ref().filter(|it| wanted(Who::Lead(it.lead)))
                {
                    self.evolve_lead(part.lead, position, |lead| {
                        lead.evolve(part, Some(hit_record), stamp, position);
                    });
                }
            }
            Body::Due(part) if wanted(Who::Lead(part.lead)) => {
                self.evolve_lead(part.lead, position, |lead| {
                    lead.evolve(part, None, stamp, position);
                });
            }
            Body::Step(step) => self.evolve_step(step, stamp, position, wanted),
            Body::Due(_) | Body::Published(_) | Body::Named(_) | Body::Outbox(_) => {}
        }
    }

    pub(super) fn evolve_lead(
        &self,
        id: LeadId,
        position: Position,
        evolve: impl FnOnce(&mut Lead),
    ) {
        let mut lead = self.leads.entry(id);
        if lead.last_position < position {
            lead.forget_due();
            evolve(&mut lead);
        }
    }

    pub(super) fn evolve_published(&self, catalog: &mut Catalog, published: &Published) {
        // One that a snapshot knows already has done all it does.
        if published.terms.version < catalog.version() {
            return;
        }
        catalog.evolve_published(published);
        self.version.store(catalog.version(), Ordering::Release);
    }
}
