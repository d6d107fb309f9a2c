//! Dated facts about a person, beside the rows: what was said of them, and when they were seen.
//! Whoever holds the same facts reads the same from them, whatever order they came in; a fact
//! that goes leaves no trace.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::attribute::{ATTRIBUTES_MAX, Attributes, Level};
use crate::id::{LeadId, Position, VisitorId};
use crate::identity::Assurance;
use crate::session::SESSION_GAP;
use crate::time::Timestamp;

/// Statements one person may have. Beyond it those go of which nothing stands any more.
pub const SAID_MAX: usize = 128;
/// Visits one person is remembered to have made. Beyond it the oldest are forgotten.
pub const SEEN_MAX: usize = 1_024;

/// Where something came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A server of ours that named the person, without any browser.
    #[default]
    Server,
    /// A browser.
    Visitor(VisitorId),
}

/// What was said of a person at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// When: by our clock, since a browser's could claim to have come before a proof.
    pub time: Timestamp,
    /// The record that says it.
    pub position: Position,
    /// Where it came from.
    pub source: Source,
    /// The browser's stretch that it goes with. A server's word, and one about a guest on
    /// somebody's browser, goes with none.
    pub stretch: Option<Position>,
    /// The name of the person it was said of.
    pub origin: LeadId,
    /// How sure it is that it was them.
    pub identity: Assurance,
    /// How sure the attributes are.
    pub attributes_by: Assurance,
    /// Of whom the attributes are.
    pub level: Level,
    /// Whether they let us track them, if that was said.
    pub consent: Option<bool>,
    /// What proved it: an event's name, `server`, `hmac`; `form` if nothing did.
    pub by: Arc<str>,
    /// The attributes, plain.
    pub attributes: Arc<Attributes>,
    /// Under whose data key they are sealed: the first name of the statement.
    pub under: LeadId,
    /// The attributes under that key: what the journal holds.
    pub sealed: Arc<Vec<u8>>,
}

impl Default for Said {
    fn default() -> Said {
        Said {
            time: Timestamp(0),
            position: Position::NONE,
            source: Source::Server,
            stretch: None,
            origin: LeadId(0),
            identity: Assurance::Claimed,
            attributes_by: Assurance::Claimed,
            level: Level::Person,
            consent: None,
            by: Arc::from(""),
            attributes: Arc::default(),
            under: LeadId(0),
            sealed: Arc::default(),
        }
    }
}

/// When a person was seen at one source, without a gap of half an hour: the part of a visit
/// that lies in one stretch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Where.
    pub source: Source,
    /// As whom.
    pub origin: LeadId,
    /// In which stretch of the browser's: a run of hits that belong to one person, or to nobody.
    pub stretch: Position,
    /// When it began.
    pub from: Timestamp,
    /// The last hit.
    pub to: Timestamp,
    /// The first record of it.
    pub first: Position,
    /// The last record of it.
    pub last: Position,
    /// Hits of a person in it.
    pub hits: u32,
    /// How many of them were withdrawn. When all were, nobody was there.
    pub withdrawn: u32,
}

/// What all that was said comes to, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// The attributes.
    pub attributes: Attributes,
    /// Whether they let us track them: yes, until somebody says no.
    pub consent: bool,
    /// How sure we are that they exist.
    pub assurance: Assurance,
    /// What proved it.
    pub confirmed_by: String,
}

impl Profile {
    /// Of a person of whom nothing was said.
    pub fn blank() -> Profile {
        Profile { consent: true, ..Profile::default() }
    }

    /// Of what was said up to a moment, in order.
    pub fn of<'a>(said: impl Iterator<Item = &'a Said>) -> Profile {
        let mut hearing = Hearing::default();
        said.for_each(|said| hearing.hear(said));
        hearing.profile
    }
}

/// What was heard so far, and which statement each part of it stands on.
struct Hearing<'a> {
    profile: Profile,
    heard: usize,
    attributes_by: BTreeMap<&'a str, (Assurance, Level, usize)>,
    consent_by: Option<usize>,
    proof: Option<usize>,
}

impl Default for Hearing<'_> {
    fn default() -> Self {
        Hearing {
            profile: Profile::blank(),
            heard: 0,
            attributes_by: BTreeMap::new(),
            consent_by: None,
            proof: None,
        }
    }
}

impl<'a> Hearing<'a> {
    /// Takes the next statement. A claim never changes what is known of a verified person; what
    /// is proved goes before what is claimed, a narrower circle before a wider one, a later word
    /// before an earlier one. A refusal to be tracked counts whoever says it.
    fn hear(&mut self, said: &'a Said) {
        let number = self.heard;
        self.heard += 1;
        let profile = &mut self.profile;
        let taken = said.attributes_by.is_proved() || !profile.assurance.is_proved();
        if let Some(consent) = said.consent.filter(|consent| taken || !consent) {
            profile.consent = consent;
            self.consent_by = Some(number);
        }
        if said.identity > profile.assurance {
            profile.assurance = said.identity;
            profile.confirmed_by = said.by.to_string();
            self.proof = Some(number);
        }
        if !taken {
            return;
        }
        let (by, level) = (said.attributes_by, said.level);
        for (name, value) in said.attributes.iter() {
            let known = self.attributes_by.get(name.as_str());
            let full = known.is_none() && profile.attributes.len() >= ATTRIBUTES_MAX;
            if full || known.is_some_and(|known| (known.0, known.1) > (by, level)) {
                continue;
            }
            self.attributes_by.insert(name, (by, level, number));
            profile.attributes.insert(name.clone(), value.clone());
        }
    }
}

/// Adds a statement in its place.
pub fn say(all: &mut Vec<Said>, said: Said) {
    let place = all.partition_point(|other| key(other) <= key(&said));
    all.insert(place, said);
    if all.len() > SAID_MAX {
        forget_overwritten(all);
    }
}

fn key(said: &Said) -> (Timestamp, Position, LeadId) {
    (said.time, said.position, said.origin)
}

/// Statements of which nothing stands any more go: first those of the older half, and if that
/// frees none, all. No reading of today changes, and what is left is as it was said.
fn forget_overwritten(all: &mut Vec<Said>) {
    let mut hearing = Hearing::default();
    for said in all.iter() {
        hearing.hear(said);
    }
    let mut stands = vec![false; all.len()];
    let names = hearing.attributes_by.values().map(|(_, _, number)| *number);
    for number in names.chain(hearing.consent_by).chain(hearing.proof) {
        stands[number] = true;
    }
    let half = all.len() / 2;
    let until = if stands[..half].contains(&false) { half } else { all.len() };
    let mut number = 0;
    all.retain(|_| {
        number += 1;
        number > until || stands[number - 1]
    });
}

/// Adds a hit of a person. Visits that it joins become one: the same set of hits makes the same
/// visits, in whatever order they come.
pub fn see(all: &mut Vec<Seen>, hit: Seen) {
    let mut visit = hit;
    let joins = |other: &Seen, visit: &Seen| {
        other.source == visit.source
            && other.origin == visit.origin
            && other.stretch == visit.stretch
            && visit.from.since(other.to) < SESSION_GAP
            && other.from.since(visit.to) < SESSION_GAP
    };
    while let Some(place) = all.iter().position(|other| joins(other, &visit)) {
        visit.take_in(&all.remove(place));
    }
    let place = all.partition_point(|other| seen_key(other) < seen_key(&visit));
    all.insert(place, visit);
    if all.len() > SEEN_MAX {
        all.remove(0);
    }
}

fn seen_key(seen: &Seen) -> (Timestamp, Position, Source, LeadId, Position) {
    (seen.from, seen.first, seen.source, seen.origin, seen.stretch)
}

impl Seen {
    /// One hit.
    pub fn hit(source: Source, when: Timestamp, position: Position) -> Seen {
        Seen {
            source,
            from: when,
            to: when,
            first: position,
            last: position,
            hits: 1,
            ..Seen::default()
        }
    }

    /// Grows by a part of the same visit.
    fn take_in(&mut self, other: &Seen) {
        self.from = self.from.min(other.from);
        self.to = self.to.max(other.to);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.hits = self.hits.saturating_add(other.hits);
        self.withdrawn = self.withdrawn.saturating_add(other.withdrawn);
    }

    /// Whether anybody was there, after what was withdrawn.
    pub fn counts(&self) -> bool {
        self.withdrawn < self.hits
    }
}

/// Visits: one that goes on from stretch to stretch under one name is one, so that nothing
/// depends on where a step once cut them apart. Those when nobody was there are left out.
pub fn visits(all: &[Seen]) -> Vec<Seen> {
    let mut visits: Vec<Seen> = Vec::with_capacity(all.len());
    // They stand in the order in which they began: only the latest of each can go on.
    let mut latest: BTreeMap<(Source, LeadId), usize> = BTreeMap::new();
    for seen in all {
        let of = (seen.source, seen.origin);
        let visit = latest.get(&of).map(|place| &mut visits[*place]);
        if let Some(visit) = visit.filter(|visit| seen.from.since(visit.to) < SESSION_GAP) {
            visit.take_in(seen);
        } else {
            latest.insert(of, visits.len());
            visits.push(*seen);
        }
    }
    visits.retain(Seen::counts);
    visits
}

/// When a person was last seen in the visits that had begun by a moment.
pub fn last_seen(visits: &[Seen], at: Timestamp) -> Option<Timestamp> {
    visits.iter().filter(|visit| visit.from <= at).map(|visit| visit.to).max()
}

/// Whether a person was on a browser in the time before a moment, that moment not included.
pub fn was_there(visits: &[Seen], at: Timestamp, within: std::time::Duration) -> bool {
    visits
        .iter()
        .any(|seen| seen.source != Source::Server && seen.from < at && at.since(seen.to) < within)
}

/// Visits in the fixed form that the state hash is taken of.
pub fn canonical_seen(all: &[Seen], out: &mut Vec<u8>) {
    for seen in all {
        let visitor = match seen.source {
            Source::Server => 0,
            Source::Visitor(visitor) => visitor.0,
        };
        for value in [
            visitor as u64,
            (visitor >> 64) as u64,
            seen.origin.0,
            seen.stretch.0,
            seen.from.0,
            seen.to.0,
            seen.first.0,
            seen.last.0,
            u64::from(seen.hits),
            u64::from(seen.withdrawn),
        ] {
            out.extend_from_slice(&value.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn said(minute: u64, by: Assurance, words: &[(&str, &str)]) -> Said {
        let words = words.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        Said {
            time: Timestamp(minute * 60_000),
            position: Position(minute),
            identity: by,
            attributes_by: by,
            attributes: Arc::new(words.collect()),
            ..Said::default()
        }
    }

    fn minute(minute: u64) -> Timestamp {
        Timestamp(minute * 60_000)
    }

    const CLAIMED: Assurance = Assurance::Claimed;
    const VERIFIED: Assurance = Assurance::Verified;

    #[test]
    fn a_claim_changes_a_claimed_person_and_never_a_verified_one() {
        let first = said(1, CLAIMED, &[("title", "課長")]);
        let second = said(2, CLAIMED, &[("title", "部長")]);
        let proof = said(3, VERIFIED, &[("name", "田中")]);
        let late = said(4, CLAIMED, &[("title", "社長"), ("name", "鈴木"), ("phone", "1")]);
        let all = [first, second, proof, late];
        let title = |count| Profile::of(all[..count].iter()).attributes["title"].clone();
        assert_eq!((title(1).as_str(), title(2).as_str()), ("課長", "部長"));
        let profile = Profile::of(all.iter());
        assert_eq!(profile.attributes["title"], "部長");
        assert_eq!(profile.attributes["name"], "田中");
        assert_eq!(profile.attributes.get("phone"), None);
        assert_eq!(profile.assurance, VERIFIED);
    }

    #[test]
    fn what_a_browser_says_beside_a_proof_is_taken_only_of_who_was_not_verified_yet() {
        let beside = |minute, value| Said {
            attributes_by: CLAIMED,
            ..said(minute, VERIFIED, &[("title", value)])
        };
        let all = [beside(1, "課長"), beside(2, "社長")];
        assert_eq!(Profile::of(all.iter()).attributes["title"], "課長");
    }

    #[test]
    fn the_narrower_circle_goes_first_and_a_proof_before_that() {
        let company = |minute, by, value| Said {
            level: Level::Company,
            ..said(minute, by, &[("industry", value)])
        };
        let of = |all: &[Said]| Profile::of(all.iter()).attributes["industry"].clone();
        let person = said(1, VERIFIED, &[("industry", "it")]);
        assert_eq!(of(&[person, company(2, VERIFIED, "law")]), "it");
        let person = said(1, CLAIMED, &[("industry", "it")]);
        assert_eq!(of(&[person, company(2, VERIFIED, "law")]), "law");
    }

    #[test]
    fn a_refusal_counts_whoever_says_it_and_a_grant_only_from_who_may() {
        let consent =
            |minute, by, consent| Said { consent: Some(consent), ..said(minute, by, &[]) };
        let of = |all: &[Said]| Profile::of(all.iter()).consent;
        assert!(of(&[]) && of(&[said(1, CLAIMED, &[])]));
        assert!(!of(&[said(1, VERIFIED, &[]), consent(2, CLAIMED, false)]));
        let refused = [consent(1, VERIFIED, false), consent(2, CLAIMED, true)];
        assert!(!of(&refused));
        assert!(of(&[consent(1, VERIFIED, false), consent(2, VERIFIED, true)]));
    }

    #[test]
    fn a_long_list_forgets_only_what_was_overwritten() {
        let mut all = Vec::new();
        for index in 0..1_000_u64 {
            let name = format!("n{}", index % 40);
            let by = if index == 7 { VERIFIED } else { CLAIMED };
            let by = if index > 7 { VERIFIED } else { by };
            let before = Profile::of(all.iter());
            let next = said(index, by, &[(&name, &index.to_string()), ("last", "x")]);
            let mut expected: Vec<Said> = all.clone();
            expected.push(next.clone());
            say(&mut all, next);
            assert_eq!(Profile::of(all.iter()), Profile::of(expected.iter()), "{index}");
            assert!(all.len() <= SAID_MAX && before.attributes.len() <= 41);
        }
    }

    #[test]
    fn the_same_hits_make_the_same_visits_in_any_order() {
        let hit = |at| Seen::hit(Source::Server, minute(at), Position(at + 1));
        let times = [0, 29, 58, 88, 200, 100, 229];
        let mut forward = Vec::new();
        for at in times {
            see(&mut forward, hit(at));
        }
        let mut backward = Vec::new();
        for at in times.into_iter().rev() {
            see(&mut backward, hit(at));
        }
        assert_eq!(forward, backward);
        let spans: Vec<_> = forward.iter().map(|seen| (seen.from, seen.to, seen.hits)).collect();
        let span = |from, to, hits| (minute(from), minute(to), hits);
        assert_eq!(spans, [span(0, 58, 3), span(88, 100, 2), span(200, 229, 2)]);
    }

    #[test]
    fn who_was_seen_and_who_was_away_is_read_from_visits() {
        let browser = Source::Visitor(VisitorId(1));
        let mut all = Vec::new();
        for at in [0, 20, 300] {
            see(&mut all, Seen::hit(browser, minute(at), Position(at + 1)));
        }
        let known = visits(&all);
        assert_eq!(last_seen(&known, minute(10)), Some(minute(20)));
        assert_eq!(last_seen(&known, minute(200)), Some(minute(20)));
        let hours = |hours| Duration::from_hours(hours);
        assert!(was_there(&known, minute(300), hours(5)));
        assert!(!was_there(&known, minute(300), Duration::from_mins(280)));
        all[0].withdrawn = 2;
        let known = visits(&all);
        assert!(!was_there(&known, minute(300), hours(5)));
        assert_eq!(last_seen(&known, minute(200)), None);
    }

    #[test]
    fn a_visit_that_a_step_cut_in_two_is_still_one() {
        let hit = |at, stretch| {
            let hit = Seen::hit(Source::Server, minute(at), Position(at + 1));
            Seen { stretch: Position(stretch), ..hit }
        };
        let mut all = Vec::new();
        for (at, stretch) in [(0, 0), (20, 0), (40, 7), (90, 7)] {
            see(&mut all, hit(at, stretch));
        }
        assert_eq!(all.len(), 3);
        let spans: Vec<_> = visits(&all).iter().map(|it| (it.from, it.to, it.hits)).collect();
        assert_eq!(spans, [(minute(0), minute(40), 3), (minute(90), minute(90), 1)]);
    }
}
