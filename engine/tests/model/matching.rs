//! Which rules a hit matches, worked out by reading its browser's past again, hit by hit.

use engine::hit::{Hit, HitKind};
use engine::rule::{Condition, Rule};

/// A hit of the past, and the rules in force then: one that was not there counted nothing.
pub type Then<'a> = (&'a Hit, &'a [Rule]);

/// The rules that match, in the file's order, by their places.
pub fn matched(rules: &[Rule], hit: &Hit, past: Option<&[Then<'_>]>) -> Vec<usize> {
    if hit.excluded.is_some() {
        return Vec::new();
    }
    let last = past.and_then(|past| past.iter().map(|(known, _)| known.when.0).max());
    let gap = last.map(|last| hit.when.0.saturating_sub(last));
    let before = past.map_or((0, 0), |past| shown_before(past, hit));
    let matches = |rule: &Rule| {
        let shown = past.map_or((0, 0), |_| (hit.engaged_ms, hit.scroll));
        let dated = rule.from.is_none_or(|from| hit.when >= from)
            && rule.until.is_none_or(|until| hit.when < until);
        dated && enough(rule, hit, past) && holds(&rule.when, hit, gap, before, shown)
    };
    let numbered = rules.iter().enumerate().filter(|(_, rule)| matches(rule));
    numbered.map(|(place, _)| place).collect()
}

/// Engaged time and scroll on the same page view before.
fn shown_before(past: &[Then<'_>], hit: &Hit) -> (u32, u8) {
    let same = |known: &Hit| known.page == hit.page && (hit.page != 0 || known.path == hit.path);
    let (mut engaged, mut scroll) = (0, 0);
    for (known, _) in past.iter().filter(|(known, _)| same(known)) {
        match known.kind {
            // Without a nonce a new view of the same path begins anew.
            HitKind::PageView if known.page == 0 => (engaged, scroll) = (0, 0),
            HitKind::Engagement => {
                (engaged, scroll) = (engaged.max(known.engaged_ms), scroll.max(known.scroll));
            }
            _ => {}
        }
    }
    (engaged, scroll)
}

/// Whether a rule that counts has counted enough, with this hit.
fn enough(rule: &Rule, hit: &Hit, past: Option<&[Then<'_>]>) -> bool {
    let (wanted, within) = match (rule.when.distinct_pages, rule.when.count) {
        (None, None) => return true,
        (Some(window), _) | (None, Some(window)) => window,
    };
    let Some(past) = past else {
        return false;
    };
    let lately = |known: &&Hit| hit.when.0.saturating_sub(known.when.0) < within.as_millis() as u64;
    let rest = Condition { distinct_pages: None, count: None, ..rule.when.clone() };
    let rest = if rule.when.distinct_pages.is_some() { pages_only(rest) } else { rest };
    let met = |known: &&Hit| known.excluded.is_none() && holds(&rest, known, None, (0, 0), (0, 0));
    let was_there = |rules: &[Rule]| rules.iter().any(|known| known.id == rule.id);
    let then = past.iter().filter(|(_, rules)| was_there(rules)).map(|(known, _)| *known);
    let met: Vec<&Hit> = then.filter(lately).filter(met).collect();
    if rule.when.count.is_some() {
        return met.len() + 1 >= wanted as usize;
    }
    let mut pages: Vec<&str> = met.iter().map(|known| known.path.as_str()).collect();
    pages.push(&hit.path);
    pages.sort_unstable();
    pages.dedup();
    pages.len() >= wanted as usize
}

/// `distinct_pages` counts page views, also where nothing else says so.
fn pages_only(mut when: Condition) -> Condition {
    if when.path.is_empty() {
        when.path = vec!["/**".into()];
    }
    when
}

/// Whether a hit meets a condition, but for what counts.
fn holds(
    when: &Condition,
    hit: &Hit,
    gap: Option<u64>,
    before: (u32, u8),
    shown: (u32, u8),
) -> bool {
    let pages = !when.path.is_empty()
        || !when.not_path.is_empty()
        || when.authenticated.is_some()
        || when.distinct_pages.is_some();
    let kind = if !when.event.is_empty() {
        hit.kind == HitKind::Event && when.event.contains(&hit.event)
    } else if let Some(line) = when.engaged {
        let line = line.as_millis() as u32;
        hit.kind == HitKind::Engagement && before.0 < line && line <= shown.0
    } else if let Some(line) = when.scroll {
        hit.kind == HitKind::Engagement && before.1 < line && line <= shown.1
    } else if pages {
        hit.kind == HitKind::PageView
    } else if when.return_after.is_some() {
        matches!(hit.kind, HitKind::PageView | HitKind::Event)
    } else {
        true
    };
    let on = |globs: &[String]| globs.iter().any(|glob| glob_matches(glob, &hit.path));
    kind && (when.path.is_empty() || on(&when.path))
        && !on(&when.not_path)
        && when.authenticated.is_none_or(|wanted| wanted == hit.authenticated)
        && when
            .return_after
            .is_none_or(|away| gap.is_some_and(|gap| gap >= away.as_millis() as u64))
        && (when.any.is_empty()
            || when.any.iter().any(|inner| holds(inner, hit, gap, before, shown)))
}

/// Globs of whole segments, of `*` for any one segment, and of `**` for any number.
fn glob_matches(glob: &str, path: &str) -> bool {
    fn segments<'a>(glob: &[&'a str], path: &[&'a str]) -> bool {
        match (glob, path) {
            ([], []) => true,
            (["**", rest @ ..], _) => (0..=path.len()).any(|skip| segments(rest, &path[skip..])),
            ([first, glob @ ..], [segment, path @ ..]) => {
                (first == segment || *first == "*") && segments(glob, path)
            }
            _ => false,
        }
    }
    let glob: Vec<&str> = glob.split('/').skip(1).collect();
    let path: Vec<&str> = path.split('/').skip(1).collect();
    segments(&glob, &path)
}
