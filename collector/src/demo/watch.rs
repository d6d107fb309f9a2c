//! What the terminal sees: committed records, whoever caused them, read as the product's own
//! lists read them. A simulated visitor and somebody clicking through look the same from here.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use engine::hit::{Exclusion, Hit, HitKind};
use engine::id::{LeadId, Position, VisitorId};
use engine::ledger::{Cut, Row, total};
use engine::points::Points;
use engine::record::{Body, HitRecord, LeadPart, NameKind, Record};
use engine::threshold::Direction;
use engine::time::Timestamp;
use tokio::sync::mpsc;

use super::Event;
use crate::app::App;
use crate::timeline;

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A record, as far as the story needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sight {
    /// When.
    pub at: Timestamp,
    /// The browser, if one sent something; nothing when time alone did it.
    pub visitor: Option<VisitorId>,
    /// The person, if known.
    pub lead: Option<LeadId>,
    /// What is known of them.
    pub person: Known,
    /// What happened: page and title, or an event's name. Empty when time alone did it.
    pub what: String,
    /// What it earned, or why nothing.
    pub worth: Worth,
    /// Whole points afterwards.
    pub score: Option<i64>,
    /// Anonymous hits that came along, if this is the moment somebody said who it is.
    pub stitched: Option<u32>,
    /// Lines crossed.
    pub crossings: Vec<Crossing>,
}

/// What a form said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Name.
    pub name: String,
    /// Address.
    pub email: String,
    /// Company.
    pub company: String,
    /// Title.
    pub title: String,
}

/// What a hit earned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Worth {
    /// Whole points, and for what; perhaps nothing.
    Rows(Vec<(i64, String)>),
    /// The first hit of a browser: kept, and counted when it comes back.
    #[default]
    First,
    /// It is worth nothing whatever it is, and this is why.
    Excluded(Exclusion),
}

/// A line crossed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Crossing {
    /// The line's name.
    pub threshold: String,
    /// Which way.
    pub direction: Direction,
    /// How often the lead has been in.
    pub number: u64,
    /// Whole points at that moment.
    pub score: i64,
    /// Whether somebody is told now.
    pub told: bool,
}

/// Follows the journal from here on, until `stop`.
pub(super) fn start(
    app: Arc<App>,
    events: mpsc::Sender<Event>,
    stop: Arc<AtomicBool>,
) -> io::Result<JoinHandle<()>> {
    let mut follower = app.journal.follow(app.journal.durable().next());
    thread::Builder::new().name("demo".into()).spawn(move || {
        while !stop.load(Ordering::Acquire) {
            let next = follower.next_blocking(LOOK_EVERY);
            let record = match next.map(|entry| entry.map(|entry| Record::decode(entry.bytes))) {
                Ok(Some(record)) => record,
                Ok(None) if follower.is_ended() => return,
                Ok(None) => continue,
                Err(error) => {
                    tracing::error!(%error, "the demo cannot read the journal");
                    return;
                }
            };
            let seen = record.ok().and_then(|mut record| {
                timeline::unseal(&app, &mut record);
                sight(&app, &record)
            });
            // Never waits for the terminal: at the end nobody takes what is sent.
            if let Some(seen) = seen
                && events.try_send(Event::Sight(Box::new(seen))).is_err()
            {
                tracing::warn!("the terminal is too slow: a line is left out");
            }
        }
    })
}

fn sight(app: &App, record: &Record) -> Option<Sight> {
    let part = record.lead_part();
    let mut sight = Sight {
        at: record.time,
        lead: part.map(|part| part.lead),
        crossings: part.map(|part| crossings(app, part)).unwrap_or_default(),
        ..Sight::default()
    };
    let in_force = app.scoring.load();
    let scoring = &in_force.scoring;
    if let Body::Hit(hit) = &record.body {
        sight.visitor = hit.hit.visitor;
        sight.what = what(&hit.hit);
        sight.worth = worth(hit, |row| label(app, row));
        let link = part.and_then(|part| part.link.as_ref());
        let hits = link.map(|link| link.histories.iter().map(|history| history.hits).sum());
        sight.stitched = hits.filter(|hits: &u32| *hits > 0);
    } else if part.is_none() {
        return None;
    }
    if let Some(lead) = sight.lead.and_then(|id| app.engine.lead(id)) {
        sight.score = Some(lead.standing(scoring, record.time).score.shown());
        let attributes = lead.attributes();
        let text = |name: &str| attributes.get(name).cloned().unwrap_or_default();
        sight.person = Known {
            name: text("name"),
            email: text("email"),
            company: text("company"),
            title: text("title"),
        };
    } else if let Some(visitor) = sight.visitor.and_then(|id| app.engine.visitor(id, record.time))
        && !matches!(sight.worth, Worth::Excluded(_))
    {
        let rows = visitor.rows.in_order();
        sight.score = Some(total(&rows, scoring.terms()).value(record.time).shown());
    }
    Some(sight)
}

fn crossings(app: &App, part: &LeadPart) -> Vec<Crossing> {
    let catalog = app.engine.catalog();
    let name = |number| catalog.name(NameKind::Threshold, number).unwrap_or("?").to_owned();
    let told = |place: usize| {
        part.messages.iter().find(|message| message.crossing.map(usize::from) == Some(place))
    };
    let seen = part.crossings.iter().enumerate().map(|(place, crossing)| Crossing {
        threshold: name(u16::from(crossing.threshold.0)),
        direction: crossing.direction,
        number: u64::from(crossing.number),
        score: told(place).map_or(0, |message| message.told.score.shown()),
        told: crossing.told,
    });
    seen.collect()
}

/// Page and title, or what else it was.
fn what(hit: &Hit) -> String {
    let path = if hit.path.is_empty() { "/" } else { hit.path.as_str() };
    // The site's own name stands in every title, and says nothing.
    let title = hit.title.split(" | ").next().unwrap_or_default();
    match hit.kind {
        HitKind::PageView => format!("{path} {title}"),
        HitKind::Engagement => format!("{path} read for {} s", hit.engaged_ms / 1_000),
        HitKind::Identify => format!("{path} sends the form"),
        HitKind::Reset => "reset: nobody again".to_owned(),
        HitKind::Event => format!("{path} {}", hit.event),
    }
}

fn worth(record: &HitRecord, label: impl Fn(&Row) -> String) -> Worth {
    if let Some(excluded) = record.hit.excluded {
        return Worth::Excluded(excluded);
    }
    let rows = match (&record.lead, &record.visit) {
        (Some(part), _) => &part.rows,
        (None, Some(visit)) => &visit.rows,
        (None, None) => return Worth::First,
    };
    // Rows with a position came along from before.
    let new = rows.iter().filter(|row| row.position == Position::NONE);
    Worth::Rows(new.map(|row| (row.granted.shown(), label(row))).collect())
}

fn label(app: &App, row: &Row) -> String {
    let in_force = app.scoring.load();
    let rule = in_force.scoring.rules.rule(row.rule);
    let name = rule.map_or("?", |rule| rule.en.as_str());
    match row.cut {
        Cut::None => name.to_owned(),
        cut if row.granted == Points(0) => format!("{name} ({})", cut.name().replace('_', " ")),
        _ => format!("{name} (max)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(granted: i64, position: u64) -> Row {
        Row { granted: Points::whole(granted), position: Position(position), ..Row::default() }
    }

    #[test]
    fn what_came_along_is_not_earned_again() {
        let part = LeadPart { rows: vec![row(12, 7), row(8, 0)], ..LeadPart::default() };
        let record = HitRecord { lead: Some(part), ..HitRecord::default() };
        let earned = worth(&record, |_| "rule".to_owned());
        assert_eq!(earned, Worth::Rows(vec![(8, "rule".to_owned())]));
    }

    #[test]
    fn a_robots_hit_says_so_and_a_first_one_too() {
        let mut record = HitRecord::default();
        assert_eq!(worth(&record, |_| String::new()), Worth::First);
        record.hit.excluded = Some(Exclusion::Robot);
        assert_eq!(worth(&record, |_| String::new()), Worth::Excluded(Exclusion::Robot));
    }

    #[test]
    fn a_title_stands_without_the_sites_name() {
        let hit =
            Hit { path: "/pricing".into(), title: "料金 | 会社".into(), ..Hit::default() };
        assert_eq!(what(&hit), "/pricing 料金");
        let hit = Hit { kind: HitKind::Engagement, engaged_ms: 6_040, ..hit };
        assert_eq!(what(&hit), "/pricing read for 6 s");
    }
}
