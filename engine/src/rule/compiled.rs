//! Conditions with their globs replaced by numbers, and the index by which a hit finds the few
//! rules that can match it at all.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::glob::{Globs, GlobsBuilder, is_like};
use crate::hit::HitKind;

use super::{Condition, MY_PAGE, Rule, RuleError, Sighting};

/// A condition as it is matched.
#[derive(Debug)]
pub(super) struct Compiled {
    path: Vec<u16>,
    not_path: Vec<u16>,
    /// What is compared as it was written.
    as_written: Condition,
    any: Vec<Compiled>,
    kinds: Kinds,
}

/// Which hits a condition speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kinds {
    PageViews,
    Events,
    Engagements,
    PageViewsAndEvents,
    /// Only `any` decides.
    Inner,
}

/// What a page's path alone decides.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    /// The globs that match, ascending.
    globs: Vec<u16>,
    /// The rules that ask for one of them, ascending.
    rules: Vec<u16>,
}

/// Conditions, and who may be met by what.
#[derive(Debug)]
pub(super) struct Index {
    conditions: Vec<Compiled>,
    globs: Globs,
    /// By glob: the rules that ask for it, on page views and stays.
    by_glob: Vec<Vec<u16>>,
    /// By event: the rules that name it.
    by_event: BTreeMap<String, Vec<u16>>,
    /// Rules that ask for no glob, by what they speak of: page views, events, stays.
    unpathed: [Vec<u16>; 3],
}

/// Checks a rule's condition and replaces its globs by numbers.
pub(super) fn compile(globs: &mut GlobsBuilder, rule: &Rule) -> Result<Compiled, RuleError> {
    condition(globs, rule, &rule.when)
}

fn condition(
    globs: &mut GlobsBuilder,
    rule: &Rule,
    when: &Condition,
) -> Result<Compiled, RuleError> {
    check(rule, when)?;
    let mut numbers = |list: &[String]| -> Result<Vec<u16>, RuleError> {
        let bad =
            |glob: &String| RuleError::BadGlob { rule: rule.name.clone(), glob: glob.clone() };
        list.iter().map(|glob| globs.add(glob).ok_or_else(|| bad(glob))).collect()
    };
    let (path, not_path) = (numbers(&when.path)?, numbers(&when.not_path)?);
    let any = when.any.iter().map(|inner| condition(globs, rule, inner));
    Ok(Compiled {
        path,
        not_path,
        any: any.collect::<Result<_, _>>()?,
        kinds: Kinds::of(when),
        as_written: Condition {
            path: Vec::new(),
            not_path: Vec::new(),
            any: Vec::new(),
            ..when.clone()
        },
    })
}

fn check(rule: &Rule, when: &Condition) -> Result<(), RuleError> {
    let stays = when.engaged.is_some() || when.scroll.is_some();
    let windows = |when: &Condition| when.distinct_pages.is_some() || when.count.is_some();
    let too_few = |window: Option<(u32, Duration)>| window.is_some_and(|(count, _)| count < 2);
    let why = if *when == Condition::default() {
        "\"when\" says nothing"
    } else if !when.event.is_empty() && stays {
        "no hit is both an event and a stay"
    } else if when.distinct_pages.is_some() && (!when.event.is_empty() || stays) {
        "distinct_pages counts two or more page views"
    } else if too_few(when.distinct_pages) || too_few(when.count) {
        "a count is of two or more"
    } else if when.distinct_pages.is_some() && when.count.is_some() {
        "one of \"count\" and \"distinct_pages\""
    } else if when.any.iter().any(windows) {
        "\"count\" and \"distinct_pages\" stand beside \"any\", not in it"
    } else {
        return Ok(());
    };
    Err(RuleError::Impossible { rule: rule.name.clone(), why })
}

impl Index {
    pub(super) fn new(conditions: Vec<Compiled>, globs: Globs) -> Index {
        let highest = conditions.iter().flat_map(|condition| &condition.path).max();
        let mut by_glob = vec![Vec::new(); highest.map_or(0, |glob| usize::from(*glob) + 1)];
        let mut by_event: BTreeMap<String, Vec<u16>> = BTreeMap::new();
        let mut unpathed: [Vec<u16>; 3] = Default::default();
        for (number, condition) in conditions.iter().enumerate() {
            let number = number as u16;
            if condition.kinds == Kinds::Events {
                for event in &condition.as_written.event {
                    by_event.entry(event.clone()).or_default().push(number);
                }
                continue;
            }
            for glob in &condition.path {
                by_glob[usize::from(*glob)].push(number);
            }
            let kinds = [HitKind::PageView, HitKind::Event, HitKind::Engagement];
            for (place, kind) in kinds.into_iter().enumerate() {
                // An event's page is no page view: a path is no way to find its rules.
                let found_by_path = !condition.path.is_empty() && kind != HitKind::Event;
                if condition.kinds.include(kind) && !found_by_path {
                    unpathed[place].push(number);
                }
            }
        }
        Index { conditions, globs, by_glob, by_event, unpathed }
    }

    /// Whether any rule could match such a hit, whatever its page.
    pub(super) fn speaks_of(&self, hit: &Sighting<'_>) -> bool {
        match hit.kind {
            HitKind::PageView | HitKind::Engagement => true,
            HitKind::Event => !self.unpathed[1].is_empty() || self.by_event.contains_key(hit.event),
            HitKind::Identify | HitKind::Reset => false,
        }
    }

    /// What a path decides, from one pass over it.
    pub(super) fn page(&self, path: &str) -> Page {
        let globs = self.globs.matching(path);
        let asked = globs.iter().filter_map(|glob| self.by_glob.get(usize::from(*glob)));
        let mut rules: Vec<u16> = asked.flatten().copied().collect();
        rules.sort_unstable();
        rules.dedup();
        Page { globs, rules }
    }

    /// The numbers of the rules that match, ascending.
    pub(super) fn matching(&self, hit: &Sighting<'_>, page: &Page) -> Vec<u16> {
        let nothing = Vec::new();
        let (found, others) = match hit.kind {
            HitKind::PageView => (&page.rules, &self.unpathed[0]),
            HitKind::Engagement => (&page.rules, &self.unpathed[2]),
            HitKind::Event => (self.by_event.get(hit.event).unwrap_or(&nothing), &self.unpathed[1]),
            HitKind::Identify | HitKind::Reset => (&nothing, &nothing),
        };
        let holds = |number: &&u16| self.conditions[usize::from(**number)].holds(hit, &page.globs);
        let mut matching: Vec<u16> = found.iter().chain(others).filter(holds).copied().collect();
        matching.sort_unstable();
        matching.dedup();
        matching
    }
}

impl Compiled {
    fn holds(&self, hit: &Sighting<'_>, globs: &[u16]) -> bool {
        let met = |glob: &u16| globs.binary_search(glob).is_ok();
        let when = &self.as_written;
        self.kinds.include(hit.kind)
            && (self.path.is_empty() || self.path.iter().any(met))
            && !self.not_path.iter().any(met)
            && (when.event.is_empty() || when.event.iter().any(|name| name == hit.event))
            && when.authenticated.is_none_or(|wanted| wanted == hit.authenticated)
            && (when.area.is_empty() || when.area.iter().any(|area| lies_in(hit, area)))
            && (!when.via_our_link || hit.via_our_link)
            && when.engaged.is_none_or(|line| hit.engaged.0 < line && line <= hit.engaged.1)
            && when.scroll.is_none_or(|line| hit.scroll.0 < line && line <= hit.scroll.1)
            && when.return_after.is_none_or(|away| hit.gap.is_some_and(|gap| gap >= away))
            && (when.referrer.is_empty() || came_from(&when.referrer, hit.referrer))
            && (when.campaign.is_empty()
                || when.campaign.iter().any(|it| is_like(it, hit.campaign)))
            && when.property.iter().all(|wanted| has_property(wanted, hit.properties))
            && when.query.iter().all(|wanted| has_query(wanted, hit.url))
            && (self.any.is_empty() || self.any.iter().any(|inner| inner.holds(hit, globs)))
    }
}

fn lies_in(hit: &Sighting<'_>, area: &str) -> bool {
    (area == MY_PAGE && hit.authenticated) || hit.areas.iter().any(|known| known == area)
}

/// A pattern without a slash speaks of the host alone.
fn came_from(patterns: &[String], referrer: &str) -> bool {
    let host = referrer.split('/').next().unwrap_or_default();
    let like =
        |pattern: &String| is_like(pattern, if pattern.contains('/') { referrer } else { host });
    !referrer.is_empty() && patterns.iter().any(like)
}

fn has_property((name, values): &(String, Vec<String>), said: &[(String, String)]) -> bool {
    let said = said.iter().filter(|(known, _)| known == name);
    said.into_iter().any(|(_, value)| values.iter().any(|wanted| is_like(wanted, value)))
}

fn has_query((name, values): &(String, Vec<String>), url: &str) -> bool {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let query = query.split('#').next().unwrap_or_default();
    query.split('&').any(|pair| {
        let (known, value) = pair.split_once('=').unwrap_or((pair, ""));
        decoded(known) == *name && values.iter().any(|wanted| is_like(wanted, &decoded(value)))
    })
}

impl Kinds {
    fn of(condition: &Condition) -> Kinds {
        if !condition.event.is_empty() {
            Kinds::Events
        } else if condition.engaged.is_some() || condition.scroll.is_some() {
            Kinds::Engagements
        } else if condition.speaks_of_pages() {
            Kinds::PageViews
        } else if condition.return_after.is_some() || !condition.property.is_empty() {
            Kinds::PageViewsAndEvents
        } else {
            Kinds::Inner
        }
    }

    fn include(self, kind: HitKind) -> bool {
        match self {
            Kinds::PageViews => kind == HitKind::PageView,
            Kinds::Events => kind == HitKind::Event,
            Kinds::Engagements => kind == HitKind::Engagement,
            Kinds::PageViewsAndEvents => matches!(kind, HitKind::PageView | HitKind::Event),
            Kinds::Inner => true,
        }
    }
}

/// A name or value of a query: `%` and `+` read.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair = text.get(at + 1..at + 3).and_then(|it| u8::from_str_radix(it, 16).ok());
        match (bytes[at], pair) {
            (b'%', Some(byte)) => {
                plain.push(byte);
                at += 2;
            }
            (b'+', _) => plain.push(b' '),
            (other, _) => plain.push(other),
        }
        at += 1;
    }
    Cow::Owned(String::from_utf8_lossy(&plain).into_owned())
}
