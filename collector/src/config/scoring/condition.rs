//! When a rule counts: the words of `when`. A condition that nothing could ever meet is refused:
//! a rule that silently never counts costs a month before anybody notices.

use std::time::Duration;

use engine::hit::NAME_BYTES_MAX;
use engine::rule::{Condition, MY_PAGE};

use super::super::problem::nearest;
use super::super::sites::globs;
use super::super::table::{Field, Table, quoted};
use super::Around;
use super::thresholds::longer_than_a_visit;
use crate::ingest::click::MAIL_CLICK;
use crate::link::QUERY_NAME;

/// How deep `any` may stand in `any`.
const DEPTH_MAX: usize = 4;
/// The link that `via` may name.
const OUR_LINK: &str = "our_link";

/// Reads `when`.
pub(super) fn read(field: &Field<'_>, around: Around<'_>) -> Option<Condition> {
    condition(field, around, 0)
}

fn condition(field: &Field<'_>, around: Around<'_>, depth: usize) -> Option<Condition> {
    let before = field.problems_so_far();
    let table = field.table()?;
    let paths = |word| table.get(word).map(|field| globs(&field));
    let (path, not_path) = (paths("path"), paths("not_path"));
    let (event_field, campaign_field) = (table.get("event"), table.get("campaign"));
    let event = event_field.map(|field| names(&field));
    let query = table.get("query").map(|field| wanted(&field, |name| check_query(name, around)));
    let referrer = table.get("referrer").map(|field| referrers(&field));
    let campaign = campaign_field.map(|field| patterns(&field));
    let property = table.get("property").map(|field| wanted(&field, |_| ()));
    let engaged = table.get("engaged").and_then(|field| some_time(&field));
    let scroll = table.get("scroll").and_then(|field| field.whole(1..=100));
    let return_after = table.get("return_after").and_then(|field| longer_than_a_visit(&field));
    let (count, distinct_pages) = windows(&table);
    let area = table.get("area").map(|field| areas(&field, around));
    let authenticated = table.get("authenticated").and_then(|field| field.flag());
    let via = table.get("via").and_then(|field| field.word(&[OUR_LINK]));
    let any_field = table.get("any");
    let any = any_field.map(|field| {
        if depth >= DEPTH_MAX {
            field.problem("\"any\" stands too deep in \"any\"");
            return Vec::new();
        }
        let list = field.one_or_more().unwrap_or_default();
        let inner = |field: &Field<'_>| condition(field, around, depth + 1);
        list.iter().filter_map(inner).collect::<Vec<_>>()
    });
    table.finish();
    let condition = Condition {
        path: path.unwrap_or_default(),
        not_path: not_path.unwrap_or_default(),
        event: event.unwrap_or_default(),
        query: query.unwrap_or_default(),
        referrer: referrer.unwrap_or_default(),
        campaign: campaign.unwrap_or_default(),
        property: property.unwrap_or_default(),
        engaged,
        scroll: scroll.map(|percent| percent as u8),
        return_after,
        count,
        distinct_pages,
        area: area.unwrap_or_default(),
        authenticated,
        via_our_link: via.is_some(),
        any: any.unwrap_or_default(),
    };
    if let Some(campaign) = campaign_field {
        check_campaign(&campaign, event_field, &condition);
    }
    if let Some(any) = any_field
        && field.problems_so_far() == before
        && Hits::of(&condition).is_empty()
    {
        any.problem_of_word("nothing in \"any\" can happen together with the rest", None);
    }
    Some(condition)
}

/// A campaign is written on page views and clicks in mails, on nothing else.
fn check_campaign(campaign: &Field<'_>, event: Option<Field<'_>>, condition: &Condition) {
    let other = !condition.event.is_empty() && !condition.event.iter().any(|it| it == MAIL_CLICK);
    let message = format!("only page views and the event \"{MAIL_CLICK}\" have a campaign");
    match event {
        Some(event) if other => event.problem_meant(message, Some(MAIL_CLICK.to_owned())),
        None if condition.engaged.is_some() || condition.scroll.is_some() => {
            campaign.problem_of_word(message, None);
        }
        Some(_) | None => {}
    }
}

/// Of an address's query only some names are kept: no hit has another.
fn check_query(entry: &Field<'_>, around: Around<'_>) {
    let Some(privacy) = around.settings.map(|settings| &settings.privacy) else {
        return;
    };
    if entry.name != QUERY_NAME && privacy.keeps_query(entry.name) {
        return;
    }
    let kept = privacy.query_names.iter().map(String::as_str);
    let near = nearest(entry.name, kept.clone().map(|name| name.trim_end_matches('*')));
    let near = near.filter(|near| privacy.keeps_query(near)).map(str::to_owned);
    let kept = match kept.collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => "nothing".to_owned(),
        some => some,
    };
    let name = quoted(entry.name);
    let message =
        format!("{name} is not kept of a query: \"query_names\" in mikomi.toml keeps {kept}");
    entry.problem_of_word(message, near);
}

fn names(field: &Field<'_>) -> Vec<String> {
    let list = field.one_or_more().unwrap_or_default();
    let name = |field: &Field<'_>| {
        let text = field.text()?;
        if text.is_empty() || text.len() > NAME_BYTES_MAX {
            field.problem(format!("an event's name has 1 to {NAME_BYTES_MAX} bytes"));
        }
        Some(text.to_owned())
    };
    list.iter().filter_map(name).collect()
}

/// Texts in which `*` is anything.
fn patterns(field: &Field<'_>) -> Vec<String> {
    let list = field.one_or_more().unwrap_or_default();
    let pattern = |field: &Field<'_>| {
        let text = field.text()?;
        if text.is_empty() {
            field.problem(format!("\"{}\" needs a text, or \"*\" for any", field.name));
        }
        Some(text.to_owned())
    };
    list.iter().filter_map(pattern).collect()
}

/// A referrer is compared as it is kept: host and path, without scheme and query.
fn referrers(field: &Field<'_>) -> Vec<String> {
    let list = field.one_or_more().unwrap_or_default();
    for field in &list {
        let text = field.text().unwrap_or_default();
        let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
        let bare = bare.split(['?', '#']).next().unwrap_or_default();
        if bare != text {
            let message = "a referrer is a host, or a host and a path, as in \"*.google.com\"";
            let meant = bare.strip_suffix('/').unwrap_or(bare);
            field.problem_meant(message, Some(meant.to_owned()));
        }
    }
    patterns(field)
}

/// `{ plan = "pro", size = ["m", "l"] }`: each name has one of its values.
fn wanted(field: &Field<'_>, check: impl Fn(&Field<'_>)) -> Vec<(String, Vec<String>)> {
    let Some(table) = field.table() else {
        return Vec::new();
    };
    let entries = table.entries();
    table.finish();
    if entries.is_empty() {
        field.problem(format!("\"{}\" needs a name and its value", field.name));
    }
    entries.iter().for_each(check);
    entries.iter().map(|entry| (entry.name.to_owned(), patterns(entry))).collect()
}

fn areas(field: &Field<'_>, around: Around<'_>) -> Vec<String> {
    let list = field.one_or_more().unwrap_or_default();
    let area = |field: &Field<'_>| {
        let name = field.name()?;
        let known = around.settings.map(|settings| &settings.areas);
        if let Some(known) = known.filter(|known| name != MY_PAGE && !known.contains(name)) {
            let known = known.iter().map(String::as_str).chain([MY_PAGE]);
            let near = nearest(name, known).map(str::to_owned);
            let message = format!("no site has an area {} in [site.areas]", quoted(name));
            field.problem_meant(message, near);
        }
        Some(name.to_owned())
    };
    list.iter().filter_map(area).collect()
}

/// A time that is not nothing.
pub(super) fn some_time(field: &Field<'_>) -> Option<Duration> {
    let duration = field.duration()?;
    if duration.is_zero() {
        field.problem(format!("\"{}\" needs a time above zero", field.name));
    }
    Some(duration)
}

type Window = Option<(u32, Duration)>;

/// `count` and `distinct_pages`, each with `within`.
fn windows(table: &Table<'_>) -> (Window, Window) {
    let (count, pages) = (table.get("count"), table.get("distinct_pages"));
    let within = table.get("within");
    let number = |field: Option<Field<'_>>| field.and_then(|field| field.whole(2..=250));
    let (hits, distinct) = (number(count), number(pages));
    let time = within.and_then(|field| some_time(&field));
    match (count.or(pages), within) {
        (Some(field), None) => {
            let message = format!("\"{}\" needs \"within\" beside it", field.name);
            field.problem_of_word(message, None);
        }
        (None, Some(field)) => {
            let message = "\"within\" needs \"count\" or \"distinct_pages\" beside it";
            field.problem_of_word(message, None);
        }
        (Some(_), Some(_)) | (None, None) => {}
    }
    let window = |number: Option<i64>| Some((number? as u32, time?));
    (window(hits), window(distinct))
}

/// The kinds of hits a condition can hold for.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Hits {
    pages: bool,
    events: bool,
    stays: bool,
}

impl Hits {
    const ALL: Hits = Hits { pages: true, events: true, stays: true };
    const NONE: Hits = Hits { pages: false, events: false, stays: false };

    /// As the engine sees it: an event's name asks for events, a stay for stays, what is said of
    /// pages alone for page views.
    fn of(condition: &Condition) -> Hits {
        let mut own = if !condition.event.is_empty() {
            Hits { events: true, ..Hits::NONE }
        } else if condition.engaged.is_some() || condition.scroll.is_some() {
            Hits { stays: true, ..Hits::NONE }
        } else if condition.speaks_of_pages() {
            Hits { pages: true, ..Hits::NONE }
        } else if condition.return_after.is_some() || !condition.property.is_empty() {
            Hits { stays: false, ..Hits::ALL }
        } else {
            Hits::ALL
        };
        if !condition.any.is_empty() {
            let inner: Vec<Hits> = condition.any.iter().map(Hits::of).collect();
            own.pages &= inner.iter().any(|hits| hits.pages);
            own.events &= inner.iter().any(|hits| hits.events);
            own.stays &= inner.iter().any(|hits| hits.stays);
        }
        own
    }

    fn is_empty(self) -> bool {
        self == Hits::NONE
    }
}
