//! Random receivers, crashes and wishes around one queue.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;

/// xorshift64*: a seed gives the same run everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}

#[derive(Clone)]
enum Line {
    Queued(Message),
    Overtaken(Overtaking),
    Record(AttemptRecord),
}

fn by_itself(id: &MessageId) -> Outcome {
    Outcome::Retracted { by: id.clone() }
}

const ENDPOINTS: [&str; 4] = ["crm", "newest", "sfa", "shadow"];

/// A world of random receivers, crashes and wishes around one queue, checked at every step.
struct Simulation {
    seed: u64,
    dice: Dice,
    now: Timestamp,
    queue: Queue,
    endpoints: BTreeMap<EndpointId, EndpointSettings>,
    journal: Vec<Line>,
    flying: Vec<Attempt>,
    queued: Vec<Message>,
    dead: BTreeSet<(EndpointId, MessageId)>,
    delivered: BTreeSet<(EndpointId, MessageId)>,
    resent: BTreeSet<(EndpointId, MessageId)>,
    dropped: BTreeSet<(EndpointId, MessageId)>,
    sent: BTreeSet<(EndpointId, MessageId)>,
    superseded: u64,
    ended: Vec<(EndpointId, MessageId)>, // deliveries of what was never resent, in order
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let schedule = SCHEDULE[..4].into();
        let endpoints: BTreeMap<_, _> = ENDPOINTS
            .into_iter()
            .map(|name| {
                let mode = if name == "shadow" { Mode::Shadow } else { Mode::Live };
                let cap = if name == "crm" { 1 } else { 3 };
                let schedule = Arc::clone(&schedule);
                let one = settings(name, mode);
                let id = one.id.clone();
                let supersede = name == "newest";
                (id, EndpointSettings { in_flight_max: cap, schedule, supersede, ..one })
            })
            .collect();
        let all: Vec<_> = endpoints.values().cloned().collect();
        Simulation {
            seed,
            dice: Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            now: START,
            queue: queue_with(Limits::default(), &all),
            endpoints,
            journal: Vec::new(),
            flying: Vec::new(),
            queued: Vec::new(),
            dead: BTreeSet::new(),
            delivered: BTreeSet::new(),
            resent: BTreeSet::new(),
            dropped: BTreeSet::new(),
            sent: BTreeSet::new(),
            superseded: 0,
            ended: Vec::new(),
        }
    }

    fn step(&mut self, input: Input) {
        let seed = self.seed;
        let effects = self.queue.step(input, self.now);
        for effect in effects {
            match effect {
                Effect::Journal(record) => self.record(record),
                Effect::Send(attempt) => self.send(attempt),
                Effect::WakeAt(wake) => assert!(wake > self.now, "seed {seed}: late wake"),
                Effect::DisableEndpoint { endpoint, .. } => {
                    self.endpoints.get_mut(&endpoint).unwrap().mode = Mode::Disabled;
                }
                Effect::Dead { .. } => {}
                Effect::Refused { why, .. } => {
                    let wish = matches!(why, Refusal::NotDead | Refusal::EndpointDisabled);
                    assert!(wish, "seed {seed}: {why:?}");
                }
            }
        }
    }

    fn record(&mut self, record: AttemptRecord) {
        let key = (record.endpoint.clone(), record.message.clone());
        if record.outcome == Outcome::Resent {
            assert!(self.dead.remove(&key), "seed {}: only the dead are resent", self.seed);
            self.resent.insert(key.clone());
        }
        if record.state.is_final() {
            let new = match record.state {
                Delivery::Delivered { .. } => self.delivered.insert(key.clone()),
                Delivery::Dropped => self.check_dropped(&key, &record.outcome),
                _ => self.dead.insert(key.clone()),
            };
            assert!(new, "seed {}: {key:?} ended twice", self.seed);
            let delivered = matches!(record.state, Delivery::Delivered { .. });
            if delivered && !self.resent.contains(&key) {
                self.ended.push(key);
            }
        }
        self.journal.push(Line::Record(record));
    }

    /// Whether a message may be dropped, and was not before.
    fn check_dropped(&mut self, key: &(EndpointId, MessageId), outcome: &Outcome) -> bool {
        let seed = self.seed;
        let find =
            |id: &MessageId| self.queued.iter().find(|it| it.endpoint == key.0 && it.id == *id);
        let dropped = find(&key.1).unwrap();
        let itself = dropped.retracts.as_ref().filter(|_| *outcome == by_itself(&key.1));
        let first = itself.and_then(find).unwrap_or(dropped);
        let held = first.not_before.is_some_and(|until| self.now < until);
        assert!(held || key.0.as_str() == "newest", "seed {seed}: {key:?} had to be sent");
        match outcome {
            Outcome::Superseded { by } => {
                let by = find(by).map(|by| (&by.topic, by.sequence));
                let newer = by.is_none_or(|by| by.0 == &dropped.topic && by.1 > dropped.sequence);
                assert!(newer && dropped.topic.is_some(), "seed {seed}: {key:?} by {by:?}");
            }
            Outcome::Retracted { by } => {
                assert!(!self.sent.contains(key), "seed {seed}: {key:?} was told");
                let taken_back = match itself {
                    Some(of) => self.dropped.contains(&(key.0.clone(), of.clone())),
                    None => find(by).is_none_or(|by| by.retracts.as_ref() == Some(&key.1)),
                };
                assert!(taken_back, "seed {seed}: {key:?} by {by:?}");
            }
            other => panic!("seed {seed}: dropped with {other:?}"),
        }
        self.superseded += u64::from(matches!(outcome, Outcome::Superseded { .. }));
        self.dropped.insert(key.clone())
    }

    fn send(&mut self, attempt: Attempt) {
        let seed = self.seed;
        let key = (attempt.endpoint.clone(), attempt.message.clone());
        let message = self.queued.iter().find(|m| m.endpoint == key.0 && m.id == key.1);
        let message = message.unwrap_or_else(|| panic!("seed {seed}: {key:?} was never queued"));
        assert_eq!(attempt.body, message.body, "seed {seed}: the body changed");
        assert!(!self.delivered.contains(&key), "seed {seed}: {key:?} sent after its end");
        assert!(!self.dead.contains(&key), "seed {seed}: {key:?} sent after its death");
        assert!(!self.dropped.contains(&key), "seed {seed}: {key:?} sent though needless");
        let held = message.not_before.is_some_and(|until| self.now < until);
        assert!(!held, "seed {seed}: {key:?} sent while people rest");
        self.sent.insert(key.clone());
        let made = self.journal.iter().rev().find_map(|line| match line {
            Line::Record(record) if record.message == key.1 && record.endpoint == key.0 => {
                Some(record.attempt)
            }
            _ => None,
        });
        assert_eq!(attempt.attempt, made.unwrap_or(0) + 1, "seed {seed}: not journaled first");
        let lead = message.lead;
        let alike = self.flying.iter().filter(|other| other.endpoint == attempt.endpoint);
        let cap = self.endpoints[&attempt.endpoint].in_flight_max;
        assert!(alike.clone().count() < cap, "seed {seed}: over the cap");
        let leads: Vec<_> = alike
            .map(|other| self.queued.iter().find(|m| m.id == other.message).unwrap().lead)
            .collect();
        assert!(!leads.contains(&lead), "seed {seed}: two attempts of one lead at once");
        self.flying.push(attempt);
    }

    fn enqueue(&mut self) {
        let number = self.queued.len();
        let endpoint = ENDPOINTS[self.dice.roll(4) as usize];
        let lead = self.dice.roll(4).into();
        let earlier: Vec<MessageId> = self
            .queued
            .iter()
            .filter(|it| it.endpoint.as_str() == endpoint && it.lead == LeadRef(lead))
            .map(|it| it.id.clone())
            .collect();
        let retracts = match earlier.len() {
            0 => None,
            many if self.dice.roll(5) == 0 => {
                Some(earlier[self.dice.roll(many as u64) as usize].clone())
            }
            _ => None,
        };
        let states = retracts.is_none() && self.dice.roll(2) == 0;
        let rests = endpoint == "crm" && self.dice.roll(2) == 0;
        let message = Message {
            sequence: number as u64,
            topic: states.then(|| "sales".into()),
            not_before: rests.then(|| self.now.plus(Duration::from_secs(self.dice.roll(2000)))),
            retracts,
            ..message(endpoint, lead, &format!("m{number}"))
        };
        if self.dice.roll(8) == 0 {
            // Only others are told.
            let Message { endpoint, lead, id: by, topic, retracts, .. } = message;
            let overtaking = Overtaking { endpoint, lead, by, topic, retracts };
            return self.take(Line::Overtaken(overtaking));
        }
        self.queued.push(message.clone());
        self.take(Line::Queued(message));
    }

    /// Takes what is in the journal, or crashes before it can.
    fn take(&mut self, line: Line) {
        self.journal.push(line.clone());
        if self.dice.roll(20) == 0 {
            return self.restart();
        }
        self.step(match line {
            Line::Queued(message) => Input::Enqueue(message),
            Line::Overtaken(overtaking) => Input::Overtaken(overtaking),
            Line::Record(record) => Input::Replayed(record),
        });
    }

    fn land(&mut self, kind: u64) {
        if self.flying.is_empty() {
            return;
        }
        let place = self.dice.roll(self.flying.len() as u64) as usize;
        let attempt = self.flying.swap_remove(place);
        let answer = match kind {
            0..=3 => Ok(answer(200)),
            4 => Ok(answer(503)),
            5 => Ok(answer(302)),
            6 => Ok(answer(410)),
            _ => Err(SendError::Deadline),
        };
        let took = Duration::from_millis(self.dice.roll(20_000));
        let jitter = self.dice.roll(201) as f64 / 100.0 - 1.0;
        let Attempt { endpoint, message, attempt, .. } = attempt;
        let answered = Answered { endpoint, message, attempt, answer, took, jitter };
        self.step(Input::Answered(answered));
    }

    fn crash(&mut self) {
        let before = self.queue.outstanding();
        self.load();
        assert_eq!(self.queue.outstanding(), before, "seed {}", self.seed);
        self.step(Input::Loaded);
    }

    fn restart(&mut self) {
        self.load();
        self.step(Input::Loaded);
    }

    fn load(&mut self) {
        self.flying.clear();
        self.queue = Queue::new(Limits::default());
        for settings in self.endpoints.values().cloned() {
            self.queue.step(Input::EndpointChanged(settings), self.now);
        }
        for line in &self.journal {
            let input = match line {
                Line::Queued(message) => Input::Enqueue(message.clone()),
                Line::Overtaken(overtaking) => Input::Overtaken(overtaking.clone()),
                Line::Record(record) => Input::Replayed(record.clone()),
            };
            let effects = self.queue.step(input, self.now);
            assert_eq!(effects, [], "seed {}: an effect while loading", self.seed);
        }
    }

    fn repair(&mut self) {
        for settings in self.endpoints.values_mut() {
            if settings.mode == Mode::Disabled {
                settings.mode = Mode::Live;
            }
        }
        for settings in self.endpoints.clone().into_values() {
            self.step(Input::EndpointChanged(settings));
        }
    }

    fn anything(&mut self) {
        match self.dice.roll(20) {
            0..=5 => self.enqueue(),
            6..=14 => {
                // Disabling is rare, or little else would be seen.
                let kind = self.dice.roll(10);
                let kind = if kind == 6 && self.dice.roll(5) > 0 { 7 } else { kind };
                self.land(kind);
            }
            15 | 16 => {
                self.now = self.now.plus(Duration::from_secs(self.dice.roll(1000)));
                self.step(Input::Tick);
            }
            17 => self.crash(),
            18 => {
                let endpoint = endpoint_id(["crm", "sfa"][self.dice.roll(2) as usize]);
                self.step(Input::Resend { endpoint, which: Resend::Since(START) });
            }
            _ => self.repair(),
        }
    }

    fn finish(&mut self) {
        for _ in 0..100_000 {
            if self.queue.figures().pending == 0 {
                return;
            }
            self.now = self.now.plus(Duration::from_hours(1));
            self.step(Input::Tick);
            while !self.flying.is_empty() {
                let kind = self.dice.roll(10);
                self.land(if kind == 6 { 7 } else { kind });
            }
        }
        panic!("seed {}: messages wait for ever", self.seed);
    }
}

#[test]
fn whatever_happens_every_message_ends_once_in_order_and_a_crash_changes_nothing() {
    let mut seen = Counters::default();
    for seed in 1..=200 {
        let mut world = Simulation::new(seed);
        for _ in 0..300 {
            world.anything();
        }
        world.finish();
        let keys: BTreeSet<_> =
            world.queued.iter().map(|m| (m.endpoint.clone(), m.id.clone())).collect();
        let ended: BTreeSet<_> = [&world.delivered, &world.dead, &world.dropped]
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        assert_eq!(keys, ended, "seed {seed}: some message has no end");
        for lead in 0..4 {
            for endpoint in ENDPOINTS.map(endpoint_id) {
                let mine = |key: &&(EndpointId, MessageId)| {
                    let lead = LeadRef(lead);
                    key.0 == endpoint
                        && world.queued.iter().any(|m| m.id == key.1 && m.lead == lead)
                };
                let order: Vec<u32> = world
                    .ended
                    .iter()
                    .filter(mine)
                    .map(|key| key.1.as_str()[1..].parse().unwrap())
                    .collect();
                assert!(order.is_sorted(), "seed {seed}: {endpoint} {order:?}");
            }
        }
        let counters = world.queue.figures().counters;
        seen.delivered += counters.delivered;
        seen.dead += counters.dead;
        seen.resent += counters.resent;
        seen.shadowed += counters.shadowed;
        seen.superseded += world.superseded;
        seen.retracted += world.dropped.len() as u64 - world.superseded;
    }
    // The runs must have met what they promise to survive.
    assert!(seen.delivered > 1000 && seen.dead > 100, "{seen:?}");
    assert!(seen.resent > 100 && seen.shadowed > 100, "{seen:?}");
    assert!(seen.superseded > 100 && seen.retracted > 100, "{seen:?}");
}
