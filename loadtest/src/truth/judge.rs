//! Holds what the server has and what was heard against the model.

use std::collections::BTreeMap;

use super::findings::{Findings, Sort};
use super::heard::Heard;
use super::model::{Expected, Key, Kind, Lead};
use super::person::{Life, Site};

/// Doubts that are looked at in turn, where a person is not as they have to be.
const DOUBTS_MAX: usize = 200;

/// A row as the server shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenRow {
    /// When, in which record, and which one of it.
    pub key: (u64, u64, u16),
    /// Its rule.
    pub rule: String,
    /// What it was granted.
    pub granted: i64,
}

/// A lead as the server shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenLead {
    /// At which moment.
    pub at: u64,
    /// The score then.
    pub exact: i64,
    /// Each row.
    pub rows: Vec<SeenRow>,
}

/// How long a message took, from its cause to being read, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Took {
    /// From when the hit of that record was sent: when the message was read, since the beginning.
    Hit(u64, u64),
    /// From the moment at which time alone caused it.
    Time(u64),
}

/// What a person came to.
pub struct Judged {
    /// What is not as it has to be.
    pub findings: Findings,
    /// Messages that had to be told.
    pub expected: u64,
    /// How long each took.
    pub took: Vec<Took>,
}

/// Judges one person until a moment: by the order of things that suits what the server said best,
/// where it cannot be known from outside.
pub fn judge(
    site: &Site,
    life: &Life,
    email: &str,
    seen: Option<&SeenLead>,
    heard: &[&Heard],
    until: u64,
) -> Judged {
    let mut times: BTreeMap<&Key, u64> = BTreeMap::new();
    for heard in heard {
        times.extend(heard.message.key.as_ref().map(|key| (key, heard.message.at)));
    }
    let stated = |key: &Key| times.get(key).copied();
    let held = |before: &[u64]| {
        let lead = life.play(site, &stated, before, until);
        let judged = hold(&lead, email, seen, heard, until);
        (judged, lead.doubtful)
    };
    let (first, doubtful) = held(&[]);
    if first.findings.is_empty() {
        return first;
    }
    // More than one of them is rare; then each that helps is kept.
    let (mut best, mut kept) = (first, Vec::new());
    for doubt in doubtful.into_iter().take(DOUBTS_MAX) {
        let before = [kept.as_slice(), &[doubt]].concat();
        let (judged, _) = held(&before);
        if judged.findings.total() < best.findings.total() {
            (best, kept) = (judged, before);
        }
        if best.findings.is_empty() {
            break;
        }
    }
    best
}

fn hold(
    lead: &Lead<'_>,
    email: &str,
    seen: Option<&SeenLead>,
    heard: &[&Heard],
    until: u64,
) -> Judged {
    let mut judged = Judged { findings: Findings::default(), expected: 0, took: Vec::new() };
    match seen {
        None => judged.findings.note(Sort::Wrong, || format!("{email}: the server knows nobody")),
        Some(seen) => hold_score(lead, email, seen, &mut judged.findings),
    }
    hold_messages(lead, email, heard, until, &mut judged);
    judged
}

fn hold_score(lead: &Lead<'_>, email: &str, seen: &SeenLead, findings: &mut Findings) {
    let score = lead.score_at(seen.at);
    if score != seen.exact {
        findings.note(Sort::Wrong, || {
            format!("{email}: score {} at {}, to be {score}", seen.exact, seen.at)
        });
    }
    if lead.rows.len() != seen.rows.len() {
        let (rows, to_be) = (seen.rows.len(), lead.rows.len());
        findings.note(Sort::Wrong, || format!("{email}: {rows} rows, to be {to_be}"));
        return;
    }
    for (row, seen) in lead.rows.iter().zip(&seen.rows) {
        let to_be = SeenRow {
            key: (row.when, row.position, row.order),
            rule: lead.rule(row).id.clone(),
            granted: row.granted,
        };
        if to_be != *seen {
            findings.note(Sort::Wrong, || format!("{email}: {seen:?}, to be {to_be:?}"));
            return;
        }
    }
}

fn hold_messages(lead: &Lead<'_>, email: &str, heard: &[&Heard], until: u64, judged: &mut Judged) {
    let findings = &mut judged.findings;
    let mut by_key: BTreeMap<&Key, Vec<&Heard>> = BTreeMap::new();
    for heard in heard {
        match &heard.message.key {
            Some(key) => by_key.entry(key).or_default().push(heard),
            None => findings.note(Sort::Invented, || {
                format!("{email}: {} {} was told", heard.id, heard.message.kind)
            }),
        }
    }
    let mut sequences = Vec::new();
    for expected in lead.told.iter().filter(|it| it.at <= until) {
        judged.expected += 1;
        let Some(told) = by_key.remove(&expected.key) else {
            findings.note(Sort::Missing, || format!("{email}: {expected:?}"));
            continue;
        };
        for twin in &told[1..] {
            let ids = (&told[0].id, &twin.id);
            findings.note(Sort::Doubled, || format!("{email}: {ids:?} tell {:?}", expected.key));
        }
        hold_message(expected, told[0], email, findings);
        sequences.push(told[0].message.sequence);
        let read = told[0].read.as_micros() as u64;
        let read_at = told[0].read_at.as_micros() as u64;
        judged.took.push(match expected.cause {
            Some(position) => Took::Hit(position, read),
            None => Took::Time(read_at.saturating_sub(expected.at * 1_000)),
        });
    }
    for told in by_key.into_values().flatten().filter(|it| it.message.at <= until) {
        findings.note(Sort::Invented, || format!("{email}: {} tells {:?}", told.id, told.message));
    }
    if !sequences.iter().copied().eq(1..=sequences.len() as u64) {
        findings.note(Sort::Wrong, || format!("{email}: told in the order {sequences:?}"));
    }
    // Of one lead they come one after another.
    let mut places: Vec<(u64, u64)> =
        heard.iter().map(|it| (it.message.sequence, it.place)).collect();
    places.sort_unstable();
    if !places.is_sorted_by_key(|(_, place)| *place) {
        findings.note(Sort::Wrong, || format!("{email}: (number, arrival) {places:?}"));
    }
}

fn hold_message(expected: &Expected, heard: &Heard, email: &str, findings: &mut Findings) {
    let message = &heard.message;
    let direction = match expected.key.kind {
        Kind::Hot => "rise",
        Kind::Cooled => "fall",
        Kind::Action => "",
    };
    let also: &[&str] = if expected.also { &["action"] } else { &[] };
    let right = message.at == expected.at
        && message.exact == expected.exact
        && message.direction == direction
        && message.also == also
        && message.because == expected.because
        && message.waited == expected.waited;
    if !right {
        findings.note(Sort::Wrong, || {
            format!("{email}: {} says {message:?}, to be {expected:?}", heard.id)
        });
    }
}
