//! What a person did: lately, and since they were first seen.

use std::collections::BTreeSet;

use engine::hit::{Hit, HitKind};
use engine::id::Position;
use engine::record::{Body, Step};
use engine::session::SESSION_GAP;
use engine::time::Timestamp;
use serde_json::{Value, json};

use super::{Material, hit_of, iso, title, without_query};
use crate::ingest::click::MAIL_CLICK;

/// Hits listed as recent.
const RECENT_MAX: usize = 5;
/// Where the first visit came from, if that is too old to be kept.
const NOT_KEPT: &str = "not_kept";
/// Where a visit came from that came from nowhere we know.
const DIRECT: &str = "direct";

/// Something a person did lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recent {
    /// When.
    pub at: Timestamp,
    /// What: `page_view`, or the event's name.
    pub event: String,
    /// The page's title.
    pub title: String,
    /// The page's address, without query.
    pub url: String,
}

impl Recent {
    /// As it stands in a body.
    pub(super) fn to_json(&self) -> Value {
        json!({ "at": iso(self.at), "event": self.event, "title": self.title, "url": self.url })
    }
}

impl Material<'_> {
    /// What they did lately, the newest first.
    pub(in crate::outbox) fn recent(&self) -> Vec<Recent> {
        let shown = |hit: &&&Hit| matches!(hit.kind, HitKind::PageView | HitKind::Event);
        let hits = self.hits();
        let recent = hits.iter().rev().filter(shown).take(RECENT_MAX).map(|hit| Recent {
            at: hit.when,
            event: match hit.event.as_str() {
                "" => "page_view".to_owned(),
                event => event.to_owned(),
            },
            title: title(hit),
            url: without_query(&hit.url).to_owned(),
        });
        recent.collect()
    }

    pub(super) fn history(&self) -> Value {
        let lead = self.lead;
        let (since, by_server) = lead.known_since().unwrap_or_default();
        let counts = lead.counts();
        json!({
            "first_seen": iso(lead.first_seen()),
            "first_source": self.first_source(),
            "last_source": self.last_source(),
            "known_since": iso(since),
            "known_by": if by_server { "server" } else { "form" },
            "anonymous_hits_attached": counts.attached,
            "visits": counts.visits,
            "pages": counts.pages,
        })
    }

    /// Where the first visit came from.
    pub(in crate::outbox) fn first_source(&self) -> &str {
        if self.begins_later && self.first.is_none() {
            return NOT_KEPT;
        }
        let hits = self.acts();
        let mut last = hits.first().map_or(Timestamp(0), |hit| hit.when);
        let visit = hits.iter().take_while(|hit| {
            let same = hit.when.since(last) < SESSION_GAP;
            last = hit.when;
            same
        });
        source(visit)
    }

    /// Where the last visit came from.
    fn last_source(&self) -> &str {
        let hits = self.acts();
        source(last_visit(&hits).iter())
    }

    /// Whether the visit began with a click in a mail.
    pub(in crate::outbox) fn came_by_mail(&self) -> bool {
        let hits = self.acts();
        let first = last_visit(&hits).first();
        first.is_some_and(|hit| hit.event == MAIL_CLICK || hit.via_our_link)
    }

    /// Hits with a person behind them, in order: what visits are made of.
    fn acts(&self) -> Vec<&Hit> {
        let mut hits = self.hits();
        hits.retain(|hit| hit.is_human());
        hits
    }

    /// Their hits in the order in which they happened, without those that count for nothing or
    /// are withdrawn.
    fn hits(&self) -> Vec<&Hit> {
        let withdrawn = self.withdrawn();
        let stands = |position: Position, hit: &Hit| {
            hit.excluded.is_none() && !withdrawn.contains(&(position, hit.when))
        };
        let first = self.first.into_iter().filter(|hit| hit.excluded.is_none());
        let records = self.timeline.iter();
        let later = records.filter_map(|(position, record)| Some((*position, hit_of(record)?)));
        let later = later.filter(|(position, hit)| stands(*position, hit)).map(|(_, hit)| hit);
        let mut hits: Vec<&Hit> = first.chain(later).collect();
        hits.sort_by_key(|hit| hit.when);
        hits
    }

    /// The hits that were withdrawn and not put back, by record and time.
    fn withdrawn(&self) -> BTreeSet<(Position, Timestamp)> {
        let mut withdrawn = BTreeSet::new();
        let steps = self.timeline.values().filter_map(|record| match &record.body {
            Body::Step(record) => Some(&record.step),
            _ => None,
        });
        for step in steps {
            let Step::Withdraw(hits) = step else {
                continue;
            };
            for hit in hits {
                let key = (hit.position, hit.when);
                if hit.out {
                    withdrawn.insert(key)
                } else {
                    withdrawn.remove(&key)
                };
            }
        }
        // A visitor's first hit stands twice: on its own, and in the record that admits them.
        for (position, record) in self.timeline {
            if let Body::Hit(record) = &record.body
                && let Some(first) = &record.first
                && withdrawn.contains(&(*position, first.hit.when))
            {
                withdrawn.insert((first.position, first.hit.when));
            }
        }
        withdrawn
    }
}

/// The hits of the last visit.
fn last_visit<'a, 'b>(hits: &'b [&'a Hit]) -> &'b [&'a Hit] {
    let gap = hits.windows(2).rposition(|pair| pair[1].when.since(pair[0].when) >= SESSION_GAP);
    &hits[gap.map_or(0, |gap| gap + 1)..]
}

fn source<'a, 'b>(mut visit: impl Iterator<Item = &'b &'a Hit>) -> &'a str
where
    'a: 'b,
{
    let named = visit.find(|hit| !hit.campaign.is_empty());
    named.map_or(DIRECT, |hit| hit.campaign.as_str())
}
