//! Holds what the server has and what was heard against the model.

use std::collections::{BTreeMap, VecDeque};

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
    let mut heard = heard.to_vec();
    heard.sort_by_key(|it| it.message.sequence);
    let told = by_key(&heard);
    let stated = |key: &Key, nth: usize| Some(told.get(key)?.get(nth)?.message.at);
    let held = |before: &[u64]| {
        let lead = life.play(site, &stated, before, until);
        let judged = hold(&lead, email, seen, &heard, until);
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

/// What was told, by what it is, each in the order of their numbers: two forms of a person may be
/// received within a millisecond.
fn by_key<'a>(heard: &[&'a Heard]) -> BTreeMap<&'a Key, VecDeque<&'a Heard>> {
    let mut by_key: BTreeMap<&Key, VecDeque<&Heard>> = BTreeMap::new();
    for heard in heard {
        if let Some(key) = &heard.message.key {
            by_key.entry(key).or_default().push_back(heard);
        }
    }
    by_key
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

/// What was `heard`, in the order of its numbers.
fn hold_messages(lead: &Lead<'_>, email: &str, heard: &[&Heard], until: u64, judged: &mut Judged) {
    let findings = &mut judged.findings;
    for heard in heard.iter().filter(|it| it.message.key.is_none()) {
        findings.note(Sort::Invented, || {
            format!("{email}: {} {} was told", heard.id, heard.message.kind)
        });
    }
    let (mut by_key, mut sequences) = (by_key(heard), Vec::new());
    for expected in lead.told.iter().filter(|it| it.at <= until) {
        judged.expected += 1;
        let Some(told) = by_key.get_mut(&expected.key).and_then(VecDeque::pop_front) else {
            findings.note(Sort::Missing, || format!("{email}: {expected:?}"));
            continue;
        };
        hold_message(expected, told, email, findings);
        sequences.push(told.message.sequence);
        let read = told.read.as_micros() as u64;
        let read_at = told.read_at.as_micros() as u64;
        judged.took.push(match expected.cause {
            Some(position) => Took::Hit(position, read),
            None => Took::Time(read_at.saturating_sub(expected.at * 1_000)),
        });
    }
    for told in by_key.into_values().flatten().filter(|it| it.message.at <= until) {
        let same = |it: &Expected| Some(&it.key) == told.message.key.as_ref();
        let sort = if lead.told.iter().any(same) { Sort::Doubled } else { Sort::Invented };
        findings.note(sort, || format!("{email}: {} tells {:?}", told.id, told.message));
    }
    if !sequences.iter().copied().eq(1..=sequences.len() as u64) {
        findings.note(Sort::Wrong, || format!("{email}: told in the order {sequences:?}"));
    }
    // Of one lead they come one after another.
    let places: Vec<(u64, u64)> = heard.iter().map(|it| (it.message.sequence, it.place)).collect();
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

#[cfg(test)]
mod tests {
    use super::super::rules::{Rules, tests::TEXT};
    use super::super::tests::heard;
    use super::*;

    /// How many are missing, doubled and wrong where two forms told within a millisecond.
    fn found(change: impl FnOnce(&mut Vec<Heard>)) -> [u64; 3] {
        let rules = Rules::parse(TEXT).unwrap();
        let mut lead = Lead::new(&rules, &|_, _| None, &[]);
        let form = |exact| Expected {
            key: Key {
                kind: Kind::Action,
                audience: "sales".to_owned(),
                line: None,
                rule: Some(("contact".to_owned(), 1_000)),
            },
            at: 1_000,
            exact,
            also: false,
            because: Some(("contact".to_owned(), exact)),
            waited: false,
            cause: Some(1),
        };
        lead.told = vec![form(60_000), form(40_000)];
        let mut told: Vec<Heard> =
            lead.told.iter().enumerate().map(|(place, told)| heard(place, told)).collect();
        for told in &mut told {
            told.message.direction = String::new();
        }
        change(&mut told);
        let mut judged = Judged { findings: Findings::default(), expected: 0, took: Vec::new() };
        let told: Vec<&Heard> = told.iter().collect();
        hold_messages(&lead, "v0@buyer.example", &told, 1_000, &mut judged);
        [Sort::Missing, Sort::Doubled, Sort::Wrong].map(|sort| judged.findings.count(sort))
    }

    #[test]
    fn two_forms_within_a_millisecond_are_two_messages_in_the_order_of_their_numbers() {
        assert_eq!(found(|_| ()), [0, 0, 0]);
        assert_eq!(found(|told| drop(told.pop())), [1, 0, 0]);
        assert_eq!(found(|told| told.push(again(&told[0]))), [0, 1, 0]);
        assert_eq!(found(|told| told.swap(0, 1)), [0, 0, 4]);
    }

    /// The same under another id, as the third message.
    fn again(told: &Heard) -> Heard {
        let mut twin = Heard { id: "msg_twin".to_owned(), place: 2, ..told.clone() };
        twin.message.sequence = 3;
        twin
    }
}
