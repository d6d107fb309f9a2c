//! Browsers that do what a hot lead does, and of which nobody knows whose they are.

use engine::id::{Position, VisitorId};
use engine::lead::explain;
use engine::ledger::{self, Row};
use engine::points::Points;
use engine::record::{Body, NameKind};
use engine::terms::{HOT, Terms};
use engine::time::Timestamp;
use engine::visitor::Visitor;
use serde_json::{Value, json};

use super::{Admin, Query, Refusal};
use crate::app::App;
use crate::journal::ReadError;
use crate::outbox::message::{iso, points};
use crate::timeline;

/// Browsers looked at more closely. Of further ones only their number is known.
const CLOSE_MAX: usize = 1_000;

/// A browser over the line.
struct Unknown {
    id: VisitorId,
    visitor: Visitor,
    score: Points,
    /// The site and the page of its last hit.
    last: (String, Value),
}

/// Those that are found.
#[derive(Default)]
pub(super) struct Found {
    all: Vec<Unknown>,
    /// How many there are beside them, tests perhaps included.
    more: usize,
}

impl Found {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.all.len() + self.more
    }
}

/// Finds them, the highest score first.
pub(super) fn find(app: &App, now: Timestamp) -> Found {
    let in_force = app.scoring.load_full();
    let terms = in_force.scoring.terms();
    let Some(line) = terms.thresholds.iter().find(|line| line.name == HOT).map(|it| it.rise) else {
        return Found::default();
    };
    // Points only fade: who never earned as many is not looked at twice.
    let may_be = |visitor: &Visitor| {
        visitor.bound.is_none()
            && !visitor.is_expired(now)
            && earned(visitor, terms) >= line
            && score(visitor, terms, now) >= line
    };
    let (ids, count) = app.engine.visitors_where(CLOSE_MAX, may_be);
    let more = count - ids.len();
    let catalog = app.engine.catalog();
    let closely = ids.into_iter().filter_map(|id| {
        let visitor = app.engine.visitor(id, now).filter(|visitor| visitor.bound.is_none())?;
        let score = score(&visitor, terms, now);
        let record = match timeline::read(app, visitor.last_position) {
            Ok(record) => Some(record.body),
            // They are here all the same; of what page, nobody knows any more.
            Err(ReadError::Removed { .. }) => None,
            Err(_) => return None,
        };
        let Some(Body::Hit(record)) = record else {
            return (score >= line).then(|| Unknown {
                id,
                visitor,
                score,
                last: Default::default(),
            });
        };
        let hit = record.hit;
        let site = catalog.name(NameKind::Site, hit.site.0).unwrap_or_default().to_owned();
        let path = if hit.path.is_empty() { "/" } else { &hit.path };
        let last = (site, json!({ "title": hit.title, "path": path }));
        (score >= line && !hit.test).then_some(Unknown { id, visitor, score, last })
    });
    let mut all: Vec<Unknown> = closely.collect();
    all.sort_by_key(|it| (std::cmp::Reverse(it.score), it.id));
    Found { all, more }
}

/// Whether a row was earned as nobody.
fn is_nobodys(visitor: &Visitor, row: &Row) -> bool {
    let owned = visitor.stretches().any(|stretch| stretch.owner.is_some());
    if !owned {
        return true;
    }
    let position =
        if row.position == Position::NONE { visitor.last_position } else { row.position };
    visitor.trail.stretch_at(position).is_some_and(|stretch| stretch.owner.is_none())
}

fn own_rows(visitor: &Visitor, terms: &Terms) -> impl Iterator<Item = Row> {
    let in_total = |row: &Row| terms.is_in_total(row.category);
    visitor.rows.in_order().into_iter().filter(in_total).filter(|row| is_nobodys(visitor, row))
}

/// All that was ever earned.
fn earned(visitor: &Visitor, terms: &Terms) -> Points {
    Points(own_rows(visitor, terms).map(|row| row.granted.0.max(0)).sum())
}

fn score(visitor: &Visitor, terms: &Terms, now: Timestamp) -> Points {
    let rows: Vec<Row> = own_rows(visitor, terms).collect();
    ledger::total(&rows, terms).value(now)
}

impl Admin {
    /// The hot queue: of people, or of browsers that are nobody's.
    pub(super) fn hot(
        &self,
        view: &super::view::View<'_>,
        query: &Query,
    ) -> Result<Value, Refusal> {
        query.only(&["who", "limit"])?;
        match query.get("who") {
            None | Some("known") => Ok(view.hot(&self.lists.hot())),
            Some("unknown") => Ok(self.unknown(query.limit()?)),
            Some(_) => Err(Refusal::Malformed("who")),
        }
    }

    fn unknown(&self, limit: usize) -> Value {
        let now = self.app.clock.now();
        let in_force = self.app.scoring.load_full();
        let terms = in_force.scoring.terms();
        let found = find(&self.app, now);
        let count = found.count();
        let rows = found.all.into_iter().take(limit).map(|it| {
            let rows: Vec<Row> = own_rows(&it.visitor, terms).collect();
            let categories = explain(&rows, terms, now).categories;
            let named = categories.iter().filter_map(|(id, value)| {
                let known =
                    in_force.scoring.labels.categories.iter().find(|known| known.id == *id)?;
                terms.is_in_total(*id).then(|| (known.name.clone(), points(*value)))
            });
            let by_category: serde_json::Map<String, Value> = named.collect();
            json!({
                "visitor": it.id.to_string(),
                "points": it.score.shown(),
                "exact": points(it.score),
                "by_category": by_category,
                "first_seen": iso(it.visitor.first_seen),
                "last_seen": iso(it.visitor.session.last),
                "visits": it.visitor.session.number,
                "pages": it.visitor.pages,
                "site": it.last.0,
                "last_page": it.last.1,
            })
        });
        let rows: Vec<Value> = rows.collect();
        json!({ "schema": 1, "at": iso(now), "count": count, "visitors": rows })
    }
}
