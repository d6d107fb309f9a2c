//! The Book: every message that was frozen, and where it stands with each endpoint. It is rebuilt
//! by replay. Its lines are small, some 100 bytes for an entry of some kilobytes: what bounds the
//! journal bounds the book. A line stays when its entry is too old to be kept, so that numbers have
//! no holes, and answers find whom they are about.

pub mod saved;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included, Unbounded};

use engine::alert::AlertKind;
use engine::id::{LeadId, Position};

use super::entry::{Attempt, Digest, Queued};
use super::held::HeldBack;

/// Digits of an alert's id.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Where no topic is.
const NO_TOPIC: u16 = u16::MAX;

/// Where a message stands with one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// It waits, is held, or is on its way.
    Pending,
    /// It waits to be listed in a digest.
    Listed,
    /// It was listed in a digest.
    Digested,
    /// The receiver has it.
    Delivered,
    /// The endpoint was in shadow.
    Shadowed,
    /// A newer message replaced it before it was sent.
    Superseded,
    /// It was taken back before it was sent, or took back one that was not.
    Retracted,
    /// It was given up; it can be sent again.
    Dead,
    /// What is known of the person made it silly, or they are not to be written to.
    HeldBack,
    /// It was not for this endpoint.
    Filtered,
    /// There is no such message yet.
    NotQueued,
}

impl Standing {
    /// All of them.
    pub const ALL: [Standing; 11] = [
        Standing::Pending,
        Standing::Listed,
        Standing::Digested,
        Standing::Delivered,
        Standing::Shadowed,
        Standing::Superseded,
        Standing::Retracted,
        Standing::Dead,
        Standing::HeldBack,
        Standing::Filtered,
        Standing::NotQueued,
    ];

    /// The name in answers and figures.
    pub fn name(self) -> &'static str {
        match self {
            Standing::Pending => "pending",
            Standing::Listed => "listed",
            Standing::Digested => "digested",
            Standing::Delivered => "delivered",
            Standing::Shadowed => "shadowed",
            Standing::Superseded => "superseded",
            Standing::Retracted => "retracted",
            Standing::Dead => "dead",
            Standing::HeldBack => "held_back",
            Standing::Filtered => "filtered",
            Standing::NotQueued => "not_queued",
        }
    }

    /// Whether the endpoint was to get it.
    fn is_of_it(self) -> bool {
        !matches!(self, Standing::HeldBack | Standing::Filtered | Standing::NotQueued)
    }

    /// Reads a name.
    pub fn parse(name: &str) -> Option<Standing> {
        Standing::ALL.into_iter().find(|standing| standing.name() == name)
    }
}

/// One message.
#[derive(Clone, Copy, Debug)]
struct Line {
    alert: u128,
    lead: LeadId,
    entry: Position,
    cause: Position,
    sequence: u32,
    kind: Option<AlertKind>,
    test: bool,
    /// What held it back from everybody, if something did.
    held: Option<&'static str>,
    topic: u16,
    /// Its parts begin there, and there are so many.
    first: u32,
    parts: u16,
}

#[derive(Clone, Copy, Debug)]
struct Part {
    endpoint: u16,
    standing: Standing,
}

/// Numbers of names.
#[derive(Default)]
struct Names {
    numbers: BTreeMap<String, u16>,
}

impl Names {
    fn number(&self, name: &str) -> Option<u16> {
        self.numbers.get(name).copied()
    }

    fn number_of(&mut self, name: &str) -> u16 {
        let next = u16::try_from(self.numbers.len()).unwrap_or(NO_TOPIC).min(NO_TOPIC - 1);
        *self.numbers.entry(name.to_owned()).or_insert(next)
    }
}

/// See the module's comment.
#[derive(Default)]
pub struct Book {
    lines: Vec<Line>,
    parts: Vec<Part>,
    by_alert: BTreeMap<u128, u32>,
    by_lead: BTreeMap<LeadId, Vec<u32>>,
    endpoints: Names,
    topics: Names,
    /// Parts of messages by endpoint, test and standing.
    counts: BTreeMap<(u16, bool, Standing), u64>,
    /// Messages in all, and those of tests.
    all: [u64; 2],
}

/// A hole in what a receiver has of a lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The number that is missing.
    pub sequence: u32,
    /// Its message, if there is one.
    pub alert: Option<String>,
    /// The message's type.
    pub kind: Option<AlertKind>,
    /// Why it is missing.
    pub why: Standing,
}

/// A lead, its last number, and its holes.
pub type Gaps = (LeadId, u32, Vec<Gap>);

impl Book {
    /// Adds a message that was frozen in the entry at `entry`.
    pub fn add(&mut self, queued: &Queued, entry: Position) {
        let (Some(alert), Some(lead)) = (key_of(&queued.alert), queued.lead_id()) else {
            return;
        };
        if self.by_alert.contains_key(&alert) {
            return;
        }
        let first = self.parts.len() as u32;
        let sent = queued.bodies.iter().filter(|frozen| !frozen.ends).filter_map(|frozen| {
            let listed = frozen.listed.is_some();
            let standing = if listed { Standing::Listed } else { Standing::Pending };
            Some((frozen.endpoint.as_deref()?, standing))
        });
        let held = queued.held.iter().flat_map(|held| &held.endpoints);
        let held = held.map(|endpoint| (endpoint.as_str(), Standing::HeldBack));
        for (endpoint, standing) in sent.chain(held) {
            let endpoint = self.endpoints.number_of(endpoint);
            *self.counts.entry((endpoint, queued.test, standing)).or_default() += 1;
            self.parts.push(Part { endpoint, standing });
        }
        let topic = queued.topic.as_deref().map_or(NO_TOPIC, |it| self.topics.number_of(it));
        let number = self.lines.len() as u32;
        self.lines.push(Line {
            alert,
            lead,
            entry,
            cause: queued.cause(),
            sequence: queued.sequence,
            kind: AlertKind::parse(&queued.kind),
            test: queued.test,
            held: queued.held.as_ref().and_then(HeldBack::from_everybody),
            topic,
            first,
            parts: (self.parts.len() as u32 - first) as u16,
        });
        self.all[usize::from(queued.test)] += 1;
        self.by_alert.insert(alert, number);
        self.by_lead.entry(lead).or_default().push(number);
        if let Some(back) = &queued.retracts {
            self.move_all(back, Standing::Listed, Standing::Retracted);
        }
    }

    /// Takes in what became of a message.
    pub fn take(&mut self, attempt: &Attempt) {
        let standing = match (attempt.state.as_str(), attempt.outcome.as_str()) {
            ("delivered", "shadowed") => Standing::Shadowed,
            ("delivered", _) => Standing::Delivered,
            ("dropped", "superseded") => Standing::Superseded,
            ("dropped", _) => Standing::Retracted,
            ("exhausted" | "disabled", _) => Standing::Dead,
            _ => Standing::Pending,
        };
        if let Some(number) = self.endpoints.number(&attempt.endpoint) {
            let of = |part: &Part| part.endpoint == number;
            self.change(&attempt.alert, of, standing);
        }
    }

    /// Takes in that messages were listed in a digest.
    pub fn digest(&mut self, digest: &Digest) {
        let Some(number) = self.endpoints.number(&digest.endpoint) else {
            return;
        };
        let of = |part: &Part| part.endpoint == number && part.standing == Standing::Listed;
        for alert in digest.items.iter().filter_map(|item| item.alert.as_deref()) {
            self.change(alert, of, Standing::Digested);
        }
    }

    fn move_all(&mut self, alert: &str, from: Standing, to: Standing) {
        self.change(alert, |part| part.standing == from, to);
    }

    fn change(&mut self, alert: &str, of: impl Fn(&Part) -> bool, to: Standing) {
        let Some(line) = self.line(alert).copied() else {
            return;
        };
        for part in &mut self.parts[range_of(&line)] {
            if of(part) {
                let mut count = |standing, more: i64| {
                    let count =
                        self.counts.entry((part.endpoint, line.test, standing)).or_default();
                    *count = count.saturating_add_signed(more);
                };
                count(part.standing, -1);
                count(to, 1);
                part.standing = to;
            }
        }
    }

    fn line(&self, alert: &str) -> Option<&Line> {
        let number = self.by_alert.get(&key_of(alert)?)?;
        self.lines.get(*number as usize)
    }

    fn standing_of(&self, line: &Line, endpoint: Option<u16>) -> Standing {
        let parts = self.parts[range_of(line)].iter();
        let found = endpoint.and_then(|it| parts.into_iter().find(|part| part.endpoint == it));
        found.map_or(Standing::Filtered, |part| part.standing)
    }

    /// The record that holds what an alert tells, if it was frozen.
    pub fn cause(&self, alert: &str) -> Option<Position> {
        self.line(alert).map(|line| line.cause)
    }

    /// Whom an alert is about, if it was frozen.
    pub fn lead(&self, alert: &str) -> Option<LeadId> {
        self.line(alert).map(|line| line.lead)
    }

    /// The entries of all messages about people, in order.
    pub fn entries_of(&self, leads: &[LeadId]) -> Vec<Position> {
        let lines = leads.iter().filter_map(|lead| self.by_lead.get(lead)).flatten();
        let entries = lines.map(|line| self.lines[*line as usize].entry);
        let mut entries: Vec<Position> = entries.collect();
        entries.sort_unstable();
        entries
    }

    /// Where a message stands with an endpoint; nothing if there is no such message.
    pub fn standing(&self, alert: &str, endpoint: &str) -> Option<Standing> {
        let line = self.line(alert)?;
        Some(self.standing_of(line, self.endpoints.number(endpoint)))
    }

    /// What a message tells the state of, if it does.
    pub fn topic(&self, alert: &str) -> Option<&str> {
        self.topic_of(self.line(alert)?)
    }

    fn topic_of(&self, line: &Line) -> Option<&str> {
        let mut names = self.topics.numbers.iter();
        names.find(|(_, number)| **number == line.topic).map(|(name, _)| name.as_str())
    }

    /// Where messages about people stand with an endpoint, the latest first: their types, topics
    /// and standings.
    pub fn told<'a>(
        &'a self,
        leads: &'a [LeadId],
        endpoint: &'a str,
    ) -> impl Iterator<Item = (Option<AlertKind>, Option<&'a str>, Standing)> + 'a {
        let number = self.endpoints.number(endpoint);
        let mut lines: Vec<u32> =
            leads.iter().filter_map(|lead| self.by_lead.get(lead)).flatten().copied().collect();
        lines.sort_unstable_by(|a, b| b.cmp(a));
        lines.into_iter().map(move |line| {
            let line = &self.lines[line as usize];
            (line.kind, self.topic_of(line), self.standing_of(line, number))
        })
    }

    /// What held a message back from everybody, if something did.
    pub fn held_by(&self, alert: &str) -> Option<&'static str> {
        let number = self.by_alert.get(&key_of(alert)?)?;
        self.lines.get(*number as usize)?.held
    }

    /// Whether anything was frozen after a position and up to another.
    pub fn has_entries(&self, (after, until): (Position, Position)) -> bool {
        let next = self.lines.partition_point(|line| line.entry <= after);
        self.lines.get(next).is_some_and(|line| line.entry <= until)
    }

    /// The entries after a position and up to another, of tests or of everything else, and of one
    /// endpoint if it is named; at most so many. And the last entry that was looked at. What was
    /// held back from everybody is in none.
    pub fn entries(
        &self,
        (after, until): (Position, Position),
        endpoint: Option<&str>,
        test: bool,
        most: usize,
    ) -> (Vec<Position>, Position) {
        let from = self.lines.partition_point(|line| line.entry <= after);
        let number = endpoint.map(|name| self.endpoints.number(name));
        let (mut found, mut last) = (Vec::new(), after);
        for line in self.lines[from..].iter().take_while(|line| line.entry <= until) {
            if found.len() == most {
                break;
            }
            last = line.entry;
            let of_it = number.is_none_or(|it| self.standing_of(line, it).is_of_it());
            if line.test == test && line.held.is_none() && of_it {
                found.push(line.entry);
            }
        }
        (found, last)
    }

    /// What an endpoint has not got of leads after one, for one of these reasons: at most `most`
    /// leads. Messages of tests are missing at test endpoints only, all others at all others.
    pub fn gaps(
        &self,
        (endpoint, test): (&str, bool),
        why: &BTreeSet<Standing>,
        leads: (Option<LeadId>, Option<LeadId>),
        most: usize,
    ) -> Vec<Gaps> {
        let number = self.endpoints.number(endpoint);
        let (after, only) = leads;
        let from = only.map_or(after.map_or(Unbounded, Excluded), Included);
        let until = only.map_or(Unbounded, Included);
        let mut found = Vec::new();
        for (lead, lines) in self.by_lead.range((from, until)) {
            let lines = lines.iter().map(|number| &self.lines[*number as usize]);
            let by_sequence: BTreeMap<u32, &Line> =
                lines.filter(|line| line.test == test).map(|line| (line.sequence, line)).collect();
            let last = by_sequence.last_key_value().map_or(0, |(last, _)| *last);
            let gap = |sequence: u32| {
                let line = by_sequence.get(&sequence);
                let why = line.map_or(Standing::NotQueued, |line| self.standing_of(line, number));
                Gap {
                    sequence,
                    alert: line.map(|line| id_of(line.alert)),
                    kind: line.and_then(|line| line.kind),
                    why,
                }
            };
            let gaps: Vec<Gap> = (1..=last).map(gap).filter(|gap| why.contains(&gap.why)).collect();
            if !gaps.is_empty() {
                found.push((*lead, last, gaps));
            }
            if found.len() == most {
                break;
            }
        }
        found
    }

    /// How many messages are missing at an endpoint, by reason.
    pub fn missing(&self, endpoint: &str, test: bool) -> BTreeMap<Standing, u64> {
        let number = self.endpoints.number(endpoint);
        let mut missing = BTreeMap::new();
        let mut there = 0;
        for standing in Standing::ALL {
            let count = number.and_then(|it| self.counts.get(&(it, test, standing)));
            let count = count.copied().unwrap_or(0);
            there += count;
            if !matches!(standing, Standing::Delivered | Standing::NotQueued) {
                missing.insert(standing, count);
            }
        }
        missing.insert(Standing::Filtered, self.all[usize::from(test)].saturating_sub(there));
        missing
    }
}

fn range_of(line: &Line) -> std::ops::Range<usize> {
    let first = line.first as usize;
    first..first + usize::from(line.parts)
}

/// An id as a number; nothing if it is none of ours.
fn key_of(alert: &str) -> Option<u128> {
    let digits = alert.strip_prefix("msg_")?.as_bytes();
    if digits.len() != 22 {
        return None;
    }
    digits.iter().try_fold(0_u128, |key, digit| {
        let value = DIGITS.binary_search(digit).ok()?;
        key.checked_mul(62)?.checked_add(value as u128)
    })
}

/// The id of a number: 22 digits of base 62, the highest first.
pub(super) fn id_of(mut key: u128) -> String {
    let mut digits = [0_u8; 22];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(key % 62) as usize];
        key /= 62;
    }
    format!("msg_{}", String::from_utf8_lossy(&digits))
}

#[cfg(test)]
mod tests {
    use engine::alert::{AlertId, Cause};
    use engine::id::Key;

    use super::super::entry::{Frozen, Item};
    use super::super::held::HeldBack;
    use super::*;

    fn alert(number: u64) -> String {
        let cause = Cause {
            incarnation: 1,
            position: Position(number),
            place: 0,
            kind: AlertKind::Hot,
            lead: LeadId(7),
            audience: "sales",
        };
        AlertId::derive(&Key([3; 16]), &cause).as_str().to_owned()
    }

    fn queued(number: u64, lead: u64, sequence: u32, endpoints: &[&str]) -> Queued {
        let frozen = |name: &&str| Frozen { endpoint: Some((*name).into()), ..Frozen::default() };
        Queued {
            alert: alert(number),
            lead: LeadId(lead).to_string(),
            kind: "lead.hot".into(),
            sequence,
            cause: number,
            topic: Some("sales/hot".into()),
            bodies: endpoints.iter().map(frozen).collect(),
            ..Queued::default()
        }
    }

    fn attempt(number: u64, endpoint: &str, outcome: &str, state: &str) -> Attempt {
        Attempt {
            alert: alert(number),
            endpoint: endpoint.into(),
            attempt: 1,
            outcome: outcome.into(),
            state: state.into(),
            attempts: 1,
            ..Attempt::default()
        }
    }

    fn any() -> BTreeSet<Standing> {
        Standing::ALL.into_iter().filter(|it| *it != Standing::Delivered).collect()
    }

    #[test]
    fn an_id_is_a_number_and_comes_back_from_it() {
        for number in 0..100 {
            let id = alert(number);
            assert_eq!(id_of(key_of(&id).unwrap()), id);
        }
        for wrong in ["", "msg_", "msg_zzzzzzzzzzzzzzzzzzzzzz", "msg_000000000000000000000!", "a"] {
            assert_eq!(key_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_hole_of_a_lead_has_its_reason() {
        let mut book = Book::default();
        let outcomes = [
            ("answered", "delivered", None),
            ("shadowed", "delivered", Some(Standing::Shadowed)),
            ("superseded", "dropped", Some(Standing::Superseded)),
            ("retracted", "dropped", Some(Standing::Retracted)),
            ("answered", "exhausted", Some(Standing::Dead)),
            ("endpoint_gone", "disabled", Some(Standing::Dead)),
            ("answered", "waiting", Some(Standing::Pending)),
            ("resent", "pending", Some(Standing::Pending)),
        ];
        for (number, (outcome, state, _)) in (1..).zip(outcomes) {
            book.add(&queued(number, 5, number as u32, &["sfa"]), Position(100 + number));
            book.take(&attempt(number, "sfa", outcome, state));
        }
        book.add(&queued(9, 5, 9, &["crm"]), Position(109));
        let held =
            Some(HeldBack { by: "trial".into(), everybody: true, endpoints: vec!["sfa".into()] });
        book.add(&Queued { held, ..queued(12, 5, 12, &[]) }, Position(112));
        book.add(&queued(11, 5, 11, &["sfa"]), Position(111));
        book.take(&attempt(11, "sfa", "answered", "delivered"));
        let gaps = book.gaps(("sfa", false), &any(), (None, None), 10);
        assert_eq!(gaps.len(), 1);
        let (lead, last, gaps) = &gaps[0];
        assert_eq!((*lead, *last), (LeadId(5), 12));
        let mut expected: Vec<(u32, Standing)> =
            (1..).zip(outcomes).filter_map(|(number, it)| Some((number, it.2?))).collect();
        expected.extend([
            (9, Standing::Filtered),
            (10, Standing::NotQueued),
            (12, Standing::HeldBack),
        ]);
        let found: Vec<_> = gaps.iter().map(|gap| (gap.sequence, gap.why)).collect();
        assert_eq!(found, expected);
        assert_eq!((gaps[7].alert.clone(), gaps[8].alert.clone()), (Some(alert(9)), None));
        let dead = BTreeSet::from([Standing::Dead]);
        assert_eq!(book.gaps(("sfa", false), &dead, (None, None), 10)[0].2.len(), 2);
        assert_eq!(book.gaps(("sfa", true), &any(), (None, None), 10), []);
    }

    #[test]
    fn what_is_missing_is_counted_as_it_is_listed() {
        let mut book = Book::default();
        for number in 1..=4 {
            let endpoints: &[&str] = if number == 4 { &[] } else { &["sfa"] };
            book.add(&queued(number, number, 1, endpoints), Position(number));
        }
        book.take(&attempt(1, "sfa", "answered", "delivered"));
        book.take(&attempt(2, "sfa", "answered", "exhausted"));
        let missing = book.missing("sfa", false);
        let count = |standing| missing[&standing];
        assert_eq!(count(Standing::Pending), 1);
        assert_eq!(count(Standing::Dead), 1);
        assert_eq!(count(Standing::Filtered), 1);
        assert_eq!(book.missing("new", false)[&Standing::Filtered], 4);
        assert_eq!(book.missing("sfa", true)[&Standing::Filtered], 0);
    }

    #[test]
    fn entries_are_given_in_order_from_where_the_last_answer_ended() {
        let mut book = Book::default();
        for number in 1..=6 {
            let endpoints: &[&str] = if number % 2 == 0 { &["sfa"] } else { &[] };
            let test = number == 4;
            let entry = Queued { test, ..queued(number, number, 1, endpoints) };
            book.add(&entry, Position(10 * number));
        }
        let entries = |after, until, endpoint, test, most| {
            let (found, last) =
                book.entries((Position(after), Position(until)), endpoint, test, most);
            (found.iter().map(|it| it.0).collect::<Vec<u64>>(), last.0)
        };
        assert_eq!(entries(0, 60, None, false, 3), (vec![10, 20, 30], 30));
        assert_eq!(entries(30, 60, None, false, 3), (vec![50, 60], 60));
        assert_eq!(entries(35, 55, None, false, 3), (vec![50], 50));
        assert_eq!(entries(60, 60, None, false, 3), (vec![], 60));
        assert_eq!(entries(0, 60, Some("sfa"), false, 9), (vec![20, 60], 60));
        assert_eq!(entries(0, 50, Some("sfa"), false, 9), (vec![20], 50), "it goes on there");
        assert_eq!(entries(0, 60, Some("new"), false, 9), (vec![], 60));
        assert_eq!(entries(0, 60, None, true, 9), (vec![40], 60));
    }

    #[test]
    fn a_listed_message_is_digested_or_taken_back() {
        let mut book = Book::default();
        for number in 1..=2 {
            let mut entry = queued(number, 5, number as u32, &["chat"]);
            entry.bodies[0].listed = Some(99);
            book.add(&entry, Position(number));
        }
        assert_eq!(book.standing(&alert(1), "chat"), Some(Standing::Listed));
        let back = Queued { retracts: Some(alert(1)), ..queued(3, 5, 3, &[]) };
        book.add(&back, Position(3));
        let item = Item {
            section: "listed".into(),
            lead: LeadId(5).to_string(),
            alert: Some(alert(2)),
            line: String::new(),
        };
        book.digest(&Digest {
            alert: alert(4),
            endpoint: "chat".into(),
            occasion: "evening".into(),
            slot: 99,
            day: 0,
            part: 0,
            test: false,
            not_before: None,
            form: "json".into(),
            lang: "ja".into(),
            items: vec![item],
        });
        assert_eq!(book.standing(&alert(1), "chat"), Some(Standing::Retracted));
        assert_eq!(book.standing(&alert(2), "chat"), Some(Standing::Digested));
        let leads = [LeadId(5)];
        let told: Vec<_> = book.told(&leads, "chat").map(|(.., standing)| standing).collect();
        assert_eq!(told, [Standing::Filtered, Standing::Digested, Standing::Retracted]);
    }
}
