//! All that was sent and what the server has of it: each hit with its answer and its record.

use std::collections::BTreeMap;

use super::findings::{Findings, Sort};
use super::sent::{Answer, Did, Log, NONE, SentHit, SentRequest};

/// A hit, once, however often it was sent.
#[derive(Clone, Copy, Debug)]
struct Hit {
    did: Did,
    view: u32,
    ago_ms: u32,
    place: u16,
    flags: u16,
    /// Its first and its last request.
    requests: [u32; 2],
    /// Where its first record stands; 0 if the server has none.
    position: u64,
    /// When that was received, from `base_ms` on.
    received: u32,
}

/// One of its requests was answered.
const ACKNOWLEDGED: u16 = 1;
/// The server may have it.
const MAYBE: u16 = 2;
/// Hits of a browser that the server remembers, to tell one that comes again: beyond them nothing
/// is promised.
const REMEMBERED: usize = 64;
/// How often it was sent without a cookie, from here on.
const WITHOUT_COOKIE: u16 = 4;

/// A record of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Where it stands.
    pub position: u64,
    /// Whose browser, and which of their hits.
    pub hit: Option<(u32, u32)>,
    /// When it was received.
    pub received: u64,
    /// When it happened.
    pub when: u64,
    /// Whose it is, by the server's word.
    pub visitor: u128,
    /// What it is, by the server's word: event and path.
    pub what: (String, String),
    /// Whether it is left out as a robot's.
    pub robot: bool,
}

/// A record, as the model takes it.
#[derive(Clone, Copy, Debug)]
pub struct Fact {
    /// Where it stands.
    pub position: u64,
    /// When it was received.
    pub received: u64,
    /// When it happened.
    pub when: u64,
    /// Whose browser.
    pub browser: u32,
    /// Which of their hits.
    pub number: u32,
    /// What.
    pub did: Did,
    /// On which page.
    pub place: u16,
    /// On which page view.
    pub view: u32,
}

/// Counts of it, for people.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Hits that were sent, each once.
    pub sent: u64,
    /// Hits that were sent again.
    pub again: u64,
    /// Acknowledged.
    pub acknowledged: u64,
    /// Without an answer.
    pub unanswered: u64,
    /// Of those, the server has.
    pub unanswered_recorded: u64,
    /// Records of the server.
    pub recorded: u64,
    /// Requests that were refused.
    pub refused: u64,
}

/// All of it.
pub struct Account {
    /// Of each browser, and behind them of robots: the place of its first hit.
    first_of: Vec<u32>,
    hits: Vec<Hit>,
    requests: Vec<SentRequest>,
    /// Further records of a hit, by its place: positions and times.
    again: BTreeMap<u32, Vec<(u64, u64)>>,
    /// By browser: the record that its cookie speaks of; 0 if it has none.
    cookie_of: Vec<u64>,
    /// By browser: who it is by the server's word.
    visitors: Vec<u128>,
    base_ms: u64,
    last: u64,
    counts: Counts,
}

impl Account {
    /// Of what every thread sent.
    pub fn of(logs: Vec<Log>) -> Account {
        let browsers = logs.iter().flat_map(|log| &log.hits).map(|hit| hit.who + 1).max();
        let mut lengths = vec![0_u32; browsers.unwrap_or(0) as usize];
        for hit in logs.iter().flat_map(|log| &log.hits) {
            let length = &mut lengths[hit.who as usize];
            *length = (*length).max(hit.number + 1);
        }
        let mut first_of = vec![0];
        for length in &lengths {
            first_of.push(first_of.last().copied().unwrap_or(0) + length);
        }
        let empty = Hit {
            did: Did::Robot,
            view: 0,
            ago_ms: 0,
            place: 0,
            flags: 0,
            requests: [NONE; 2],
            position: 0,
            received: 0,
        };
        let count = first_of.last().copied().unwrap_or(0) as usize;
        let mut account = Account {
            hits: vec![empty; count],
            requests: Vec::new(),
            again: BTreeMap::new(),
            cookie_of: vec![0; lengths.len()],
            visitors: vec![0; lengths.len()],
            first_of,
            base_ms: u64::MAX,
            last: 0,
            counts: Counts { sent: count as u64, ..Counts::default() },
        };
        for log in logs {
            // One after another, so that each is gone before the next is taken.
            account.add(&log);
        }
        account
    }

    fn add(&mut self, log: &Log) {
        let offset = self.requests.len() as u32;
        for request in &log.requests {
            match request.answer {
                Answer::Taken(position, received) => {
                    self.base_ms = self.base_ms.min(received);
                    let cookie = &mut self.cookie_of[request.who as usize];
                    if !request.cookie {
                        *cookie = (*cookie).max(position);
                    }
                }
                Answer::Refused(_) => self.counts.refused += 1,
                Answer::Unknown | Answer::NeverSent => {}
            }
        }
        self.requests.extend(&log.requests);
        for sent in &log.hits {
            self.sent(sent, offset + sent.request);
        }
    }

    fn sent(&mut self, sent: &SentHit, number: u32) {
        let request = self.requests[number as usize];
        let place = self.first_of[sent.who as usize] + sent.number;
        let hit = &mut self.hits[place as usize];
        if hit.requests[0] == NONE {
            hit.requests[0] = number;
            (hit.did, hit.view, hit.ago_ms, hit.place) =
                (sent.did, sent.view, sent.ago_ms, sent.place);
        } else {
            self.counts.again += 1;
        }
        hit.requests[1] = number;
        if !request.cookie {
            hit.flags = hit.flags.saturating_add(WITHOUT_COOKIE);
        }
        match request.answer {
            Answer::Taken(..) => hit.flags |= ACKNOWLEDGED | MAYBE,
            Answer::Unknown => hit.flags |= MAYBE,
            // Of a batch that was refused in part the server has the other part.
            Answer::Refused(status) if status < 300 => hit.flags |= MAYBE,
            Answer::Refused(_) | Answer::NeverSent => {}
        }
    }

    /// Takes a record of the server, in the order of its journal.
    pub fn record(
        &mut self,
        seen: &Recorded,
        what: &dyn Fn(Did, u16) -> (String, String),
        findings: &mut Findings,
    ) {
        self.counts.recorded += 1;
        if seen.position <= self.last {
            findings.note(Sort::Wrong, || format!("{}: not in order", seen.position));
        }
        self.last = seen.position;
        let Some(place) = seen.hit.and_then(|hit| self.place(hit)) else {
            findings.note(Sort::Invented, || format!("record {}: nobody sent it", seen.position));
            return;
        };
        let (who, number) = seen.hit.unwrap_or_default();
        let hit = &mut self.hits[place as usize];
        let name = || format!("hit {number} of browser {who}, record {}", seen.position);
        if hit.flags & MAYBE == 0 {
            findings.note(Sort::Invented, || format!("{}: it was never sent", name()));
            return;
        }
        if hit.position == 0 {
            (hit.position, hit.received) =
                (seen.position, seen.received.saturating_sub(self.base_ms) as u32);
        } else {
            self.again.entry(place).or_default().push((seen.position, seen.received));
        }
        let robot = hit.did == Did::Robot;
        if seen.when != seen.received.saturating_sub(u64::from(hit.ago_ms)) {
            findings.note(Sort::Wrong, || format!("{}: at another time", name()));
        }
        if seen.robot != robot || what(hit.did, hit.place) != seen.what {
            findings.note(Sort::Wrong, || format!("{}: it is {:?}", name(), seen.what));
        }
        let (cookie, known) = (self.cookie_of[who as usize], self.visitors[who as usize]);
        if !robot && cookie > 0 && seen.position >= cookie {
            if known != 0 && known != seen.visitor {
                findings.note(Sort::Wrong, || format!("{}: another visitor's", name()));
            }
            self.visitors[who as usize] = seen.visitor;
        }
    }

    fn place(&self, (who, number): (u32, u32)) -> Option<u32> {
        let first = *self.first_of.get(who as usize)?;
        let next = *self.first_of.get(who as usize + 1)?;
        first.checked_add(number).filter(|place| *place < next)
    }

    /// Holds each answer against the records; to be called when all of them were taken.
    pub fn check(&mut self, findings: &mut Findings) {
        for who in 0..self.cookie_of.len() {
            for place in self.first_of[who]..self.first_of[who + 1] {
                self.check_hit(who, place, findings);
            }
        }
        self.check_positions(findings);
    }

    fn check_hit(&mut self, who: usize, place: u32, findings: &mut Findings) {
        let hit = self.hits[place as usize];
        let name = || format!("hit {} of browser {who}", place - self.first_of[who]);
        let acknowledged = hit.flags & ACKNOWLEDGED > 0;
        self.counts.acknowledged += u64::from(acknowledged);
        if acknowledged && hit.position == 0 {
            findings.note(Sort::Lost, name);
        }
        if !acknowledged && hit.flags & MAYBE > 0 {
            self.counts.unanswered += 1;
            self.counts.unanswered_recorded += u64::from(hit.position > 0);
        }
        // What a browser sends before it has its cookie is nobody's yet, and may come twice.
        let cookie = self.cookie_of[who];
        let (mut after, mut before) = (Vec::new(), 0);
        for (position, _) in self.records(place) {
            if cookie > 0 && position > cookie {
                after.push(position);
            } else {
                before += 1;
            }
        }
        let again = after.windows(2).any(|two| self.between(who, two[0], two[1]) < REMEMBERED);
        if again || before > hit.flags / WITHOUT_COOKIE {
            let records = after.len() + usize::from(before);
            findings.note(Sort::Doubled, || format!("{}: {records} records", name()));
        }
    }

    /// How many records of a browser stand between two positions.
    fn between(&self, who: usize, from: u64, until: u64) -> usize {
        let own = self.first_of[who]..self.first_of[who + 1];
        let records = own.flat_map(|place| self.records(place));
        records.filter(|(position, _)| (from + 1..until).contains(position)).count()
    }

    /// The position that an answer names is that of the last record of its hits, and those are
    /// in the order in which they were sent.
    fn check_positions(&mut self, findings: &mut Findings) {
        let mut last = vec![0_u64; self.requests.len()];
        for place in 0..self.hits.len() {
            let hit = self.hits[place];
            let again = if hit.requests[0] == hit.requests[1] { 1 } else { 2 };
            for request in hit.requests.into_iter().take(again).filter(|it| *it != NONE) {
                let Answer::Taken(position, _) = self.requests[request as usize].answer else {
                    continue;
                };
                let own = self.records(place as u32).map(|(it, _)| it).filter(|it| *it <= position);
                let any = Some(hit.position).filter(|it| *it > 0);
                let own = own.max().or(any).unwrap_or(u64::MAX);
                last[request as usize] = last[request as usize].max(own);
            }
        }
        for (request, last) in self.requests.iter().zip(last) {
            let Answer::Taken(position, _) = request.answer else {
                continue;
            };
            // Without a record of its own a hit is lost already.
            if last != position && last != u64::MAX && last != 0 {
                let name = || format!("an answer names {position}, and its last record is {last}");
                findings.note(Sort::Wrong, name);
            }
        }
    }

    fn records(&self, place: u32) -> impl Iterator<Item = (u64, u64)> {
        let hit = &self.hits[place as usize];
        let first = (hit.position, self.base_ms.saturating_add(u64::from(hit.received)));
        let first = (hit.position > 0).then_some(first);
        first.into_iter().chain(self.again.get(&place).into_iter().flatten().copied())
    }

    /// How much there is.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many browsers there are, robots among them.
    pub fn browsers(&self) -> u32 {
        self.cookie_of.len() as u32
    }

    /// What the server has of a browser that came back with its cookie, in the order of the
    /// journal, and the hit before, which its cookie speaks of.
    pub fn facts(&self, browser: u32) -> (Option<Fact>, Vec<Fact>) {
        let cookie = self.cookie_of[browser as usize];
        let (mut first, mut facts) = (None, Vec::new());
        if cookie == 0 {
            return (first, facts);
        }
        let from = self.first_of[browser as usize];
        for place in from..self.first_of[browser as usize + 1] {
            let hit = self.hits[place as usize];
            for (position, received) in self.records(place) {
                let fact = Fact {
                    position,
                    received,
                    when: received.saturating_sub(u64::from(hit.ago_ms)),
                    browser,
                    number: place - from,
                    did: hit.did,
                    place: hit.place,
                    view: hit.view,
                };
                if position == cookie {
                    first = Some(fact);
                } else if position > cookie {
                    facts.push(fact);
                }
            }
        }
        facts.sort_unstable_by_key(|fact| fact.position);
        (first, facts)
    }

    /// When a record's hit was sent, in tens of microseconds since the beginning.
    pub fn sent_at(&self, fact: &Fact) -> u32 {
        let hit = self.hits[(self.first_of[fact.browser as usize] + fact.number) as usize];
        let requests = hit.requests.map(|it| self.requests[it as usize]);
        let answered = requests.iter().find(|request| {
            matches!(request.answer, Answer::Taken(_, received) if received == fact.received)
        });
        answered.map_or(requests[0].sent, |request| request.sent)
    }
}
