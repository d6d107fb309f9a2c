//! The state hash: a hash of everything replay must restore, and of each entry alone.

use crate::id::{Key, LeadId, VisitorId};
use crate::lead::Lead;
use crate::time::Timestamp;
use crate::visitor::Visitor;

use super::Engine;

/// The key of all these hashes: part of what a hash means, and no secret.
const STATE: Key = Key(*b"mikomi state  v2");

impl Engine {
    /// A hash of everything replay must restore, whatever the shards, threads and order: the
    /// wrapping sum of the 128-bit hashes of all entries.
    pub fn state_hash(&self, now: Timestamp) -> u128 {
        let mut bytes = Vec::new();
        self.catalog().canonical(&mut bytes);
        let mut sum = STATE.hash128(&[b"catalog", &bytes]);
        self.visitors.each(|id, visitor| {
            if !visitor.is_expired(now) {
                sum = sum.wrapping_add(of_visitor(*id, visitor, &mut bytes));
            }
        });
        self.leads.each(|id, lead| {
            if lead.exists() {
                sum = sum.wrapping_add(of_lead(*id, lead, &mut bytes));
            }
        });
        sum
    }
}

/// The hash of a visitor's entry. `bytes` is room to work in.
pub(super) fn of_visitor(id: VisitorId, visitor: &Visitor, bytes: &mut Vec<u8>) -> u128 {
    bytes.clear();
    visitor.canonical(bytes);
    STATE.hash128(&[b"visitor", &id.0.to_le_bytes(), bytes])
}

/// The hash of a lead's entry, or of a name's.
pub(super) fn of_lead(id: LeadId, lead: &Lead, bytes: &mut Vec<u8>) -> u128 {
    bytes.clear();
    lead.canonical(bytes);
    STATE.hash128(&[b"lead", &id.0.to_le_bytes(), bytes])
}
