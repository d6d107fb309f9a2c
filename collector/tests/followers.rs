//! What the journal's followers know, saved after any record and loaded: with the records that
//! came after, it is what reading all of them gives.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use collector::followers::{Fit, Followers, Unfit};
use collector::outbox::book::Standing;
use collector::outbox::entry::{
    Attempt, Counts, Digest, Entry, Frozen, Item, Line, Queued, base64,
};
use collector::outbox::held::HeldBack;
use collector::webhook::EndpointId;
use collector::webhook::breaker::Rest;
use collector::webhook::queue::{EndpointSettings, Input, Limits, Mode, Queue};
use engine::alert::{AlertId, AlertKind, Cause};
use engine::hit::{Claim, Hit};
use engine::id::{Key, LeadId, Position, VisitorId};
use engine::record::{
    Body, HitRecord, LeadPart, Message, Name, NameKind, Question, Record, Review, Step, StepRecord,
    Told,
};
use engine::sales::Feedback;
use engine::stage::FeedbackKind;
use engine::time::Timestamp;

const ENDPOINTS: [(&str, bool, Mode); 4] = [
    ("sfa", false, Mode::Live),
    ("room", false, Mode::Shadow),
    ("off", false, Mode::Disabled),
    ("trial", true, Mode::Live),
];
const START: u64 = 1_800_000_000_000;
const SECRET: &str = "tanaka@example.co.jp";

/// A small generator of chance, from a seed that is printed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }

    fn one_in(&mut self, most: u64) -> bool {
        self.below(most) == 0
    }
}

fn queue() -> Queue {
    let mut queue = Queue::new(Limits { dead_max: 5, ..Limits::default() });
    for (name, test, mode) in ENDPOINTS {
        let settings = EndpointSettings {
            id: EndpointId::parse(name).unwrap(),
            mode,
            test,
            in_flight_max: 2,
            schedule: [Duration::ZERO, Duration::from_mins(5)].into(),
            supersede: name == "sfa",
            rest: Rest::default(),
        };
        queue.step(Input::EndpointChanged(settings), Timestamp(START));
    }
    queue
}

fn seal(plain: &[u8]) -> Vec<u8> {
    plain.iter().map(|byte| byte ^ 0xa5).collect()
}

/// The key of one lead is gone.
fn unseal(lead: LeadId, sealed: &[u8]) -> Option<Vec<u8>> {
    (lead != LeadId(3)).then(|| seal(sealed))
}

fn alert_id(cause: &Cause<'_>) -> AlertId {
    AlertId::derive(&Key([3; 16]), cause)
}

fn alert(number: u64) -> String {
    let cause = Cause {
        incarnation: 1,
        position: Position(number),
        place: 0,
        kind: AlertKind::Hot,
        lead: LeadId(number % 6),
        audience: "",
    };
    alert_id(&cause).as_str().to_owned()
}

/// A history: what a hit, sales and the outbox write down, in any order.
struct History {
    dice: Dice,
    told: Vec<u64>,
    queued: Vec<(String, bool)>,
}

impl History {
    fn lead(&mut self) -> LeadId {
        LeadId(self.dice.below(6))
    }

    fn record(&mut self, number: u64) -> Record {
        let body = match self.dice.below(9) {
            0 => Body::Named(vec![Name {
                kind: NameKind::Threshold,
                number: self.dice.below(3) as u16,
                name: ["hot", "warm", "cold"][self.dice.below(3) as usize].into(),
            }]),
            1 | 2 => self.hit(number),
            3 => self.step(number),
            4 | 5 => Body::Outbox(Entry::Queued(self.queue_one(number)).encode()),
            6 | 7 => Body::Outbox(self.became(number).encode()),
            _ => Body::Outbox(self.digest(number).encode()),
        };
        Record { time: Timestamp(START + number * 1_000_000), version: 1, body }
    }

    fn hit(&mut self, number: u64) -> Body {
        let lead = self.lead();
        let message = Message {
            place: 0,
            kind: AlertKind::Hot,
            audience: None,
            also: Vec::new(),
            crossing: None,
            lines: Vec::new(),
            other: None,
            takes_back: None,
            told: Told {
                at: Timestamp(START + number),
                asks: Some((Timestamp(START + 9_000_000), Timestamp(START + 99_000_000))),
                ..Told::default()
            },
        };
        let told = lead.0 == number % 6;
        let messages = if told { vec![message] } else { Vec::new() };
        if told {
            self.told.push(number);
        }
        let (properties, received) = (
            vec![("link".to_owned(), format!("{:016x}.{:x}", lead.0, START + 50_000_000))],
            Timestamp(START + number),
        );
        let claim = Some(Claim { by_link: true, ..Claim::default() });
        let test = self.dice.one_in(5);
        let visitor = Some(VisitorId(u128::MAX - u128::from(number)));
        let hit = Hit { properties, received, claim, test, visitor, ..Hit::default() };
        let question = Question::ALL[self.dice.below(5) as usize];
        let review = vec![Review { question, lead, other: Some(LeadId(9)) }];
        let part = LeadPart { lead, messages, ..LeadPart::default() };
        Body::Hit(Box::new(HitRecord { hit, review, lead: Some(part), ..HitRecord::default() }))
    }

    fn step(&mut self, number: u64) -> Body {
        let kind = FeedbackKind::ALL[self.dice.below(11) as usize];
        let until = Some(Timestamp(START + number * 2_000_000));
        let step = if self.dice.one_in(4) {
            Step::Dismiss { question: Position(self.dice.below(number + 1)) }
        } else {
            Step::Feedback(Box::new(Feedback { kind, until, ..Feedback::default() }))
        };
        let lead = Some(LeadPart { lead: self.lead(), ..LeadPart::default() });
        Body::Step(Box::new(StepRecord { step, lead, ..StepRecord::default() }))
    }

    fn queue_one(&mut self, number: u64) -> Queued {
        let of = if self.told.is_empty() { number } else { self.told.remove(0) };
        let (test, dice) = (self.dice.one_in(6), &mut self.dice);
        let frozen = |(name, ..): &(&str, bool, Mode)| Frozen {
            endpoint: Some((*name).into()),
            sealed: base64(&seal(format!("{name} {of} {SECRET}").as_bytes())),
            not_before: dice.one_in(3).then_some(START + number * 1_500_000),
            counts: dice.one_in(2).then(|| Counts { owner: "5a70".into(), day: 20_833 }),
            listed: dice.one_in(4).then_some(START + number * 1_200_000),
            ends: dice.one_in(5),
            ..Frozen::default()
        };
        let bodies = ENDPOINTS.iter().map(frozen).collect();
        let held = self.dice.one_in(5).then(|| HeldBack {
            by: "trial".into(),
            everybody: self.dice.one_in(2),
            endpoints: vec!["room".into()],
        });
        let back = self.dice.below(self.queued.len() as u64 + 1) as usize;
        let retracts = self.dice.one_in(4).then(|| self.queued.get(back)).flatten();
        let retracts = retracts.map(|(alert, _)| alert.clone());
        self.queued.push((alert(of), test));
        Queued {
            alert: alert(of),
            lead: LeadId(of % 6).to_string(),
            kind: "lead.hot".into(),
            sequence: number as u32,
            cause: of,
            test,
            topic: self.dice.one_in(2).then(|| "sales/hot".into()),
            event: self.dice.one_in(3),
            retracts,
            bodies,
            held,
            ..Queued::default()
        }
    }

    fn became(&mut self, number: u64) -> Entry {
        if self.dice.one_in(12) {
            return Entry::Disabled { endpoint: "off".into(), fingerprint: number as u32 };
        }
        let which = self.dice.below(self.queued.len() as u64 + 1) as usize;
        let (alert, _) = self.queued.get(which).cloned().unwrap_or_else(|| (alert(1), false));
        let (outcome, state) = [
            ("connect_failed", "waiting"),
            ("answered", "delivered"),
            ("deadline", "exhausted"),
            ("endpoint_gone", "disabled"),
            ("shadowed", "delivered"),
            ("superseded", "dropped"),
            ("resent", "pending"),
        ][self.dice.below(7) as usize];
        Entry::Attempt(Attempt {
            by: (outcome == "superseded").then(|| alert.clone()),
            alert,
            endpoint: ENDPOINTS[self.dice.below(4) as usize].0.into(),
            attempt: 1,
            at: START + number * 1_000_000,
            outcome: outcome.into(),
            status: (outcome == "answered").then_some(200),
            state: state.into(),
            attempts: 1,
            until: (state == "waiting").then_some(START + number * 1_100_000),
            ..Attempt::default()
        })
    }

    fn digest(&mut self, number: u64) -> Entry {
        let which = self.dice.below(self.queued.len() as u64 + 1) as usize;
        let item = Item {
            section: "listed".into(),
            lead: self.lead().to_string(),
            alert: self.queued.get(which).map(|(alert, _)| alert.clone()),
            line: base64(&seal(&Line { text: SECRET.into(), url: None }.encode())),
        };
        Entry::Digest(Digest {
            alert: alert(1_000_000 + number),
            endpoint: "room".into(),
            occasion: "evening".into(),
            slot: START + number * 1_000_000,
            day: 20_833,
            part: 0,
            test: false,
            not_before: None,
            form: "json".into(),
            lang: "ja".into(),
            items: vec![item],
        })
    }
}

fn history(seed: u64) -> Vec<Record> {
    let mut history = History { dice: Dice(seed), told: Vec::new(), queued: Vec::new() };
    (1..=120).map(|number| history.record(number)).collect()
}

fn evolve(followers: &mut Followers, records: &[Record], from: usize) {
    for (place, record) in records.iter().enumerate().skip(from) {
        followers.evolve(record, (Position(place as u64 + 1), 1), &unseal, &alert_id);
    }
}

/// Everything that can be seen, also of what the queue does when it has loaded.
fn seen(mut it: Followers) -> String {
    let why: BTreeSet<Standing> = Standing::ALL.into_iter().collect();
    let mut seen = format!("{:?}\n{:?}\n", it.log.lines(9_999), it.log.held());
    for (name, test, _) in ENDPOINTS {
        let book = it.log.book();
        let _ = writeln!(seen, "{:?}", book.missing(name, test));
        let _ = writeln!(seen, "{:?}", book.gaps((name, test), &why, (None, None), 99));
        let all = (Position(0), Position(u64::MAX));
        let _ = writeln!(seen, "{:?}", book.entries(all, Some(name), test, 9_999));
    }
    let days = it.lists.days(|days| (days.total(), days.between(i64::MIN, i64::MAX), days.asked()));
    let lists = (it.lists.search("", None), it.lists.hot(), it.lists.held(), it.lists.questions());
    let _ = writeln!(seen, "{days:?}\n{lists:?}\n{:?}", it.replayed.disabled);
    let _ = writeln!(seen, "{:?}\n{:?}", it.queue.figures(), it.queue.outstanding());
    for at in [0, 1, 100_000] {
        let input = if at == 0 { Input::Loaded } else { Input::Tick };
        let effects = it.queue.step(input, Timestamp(START + 130_000_000 + at * 1_000));
        let _ = writeln!(seen, "{effects:?}\n{:?}", it.queue.figures());
    }
    seen
}

#[test]
fn saved_after_any_record_and_loaded_it_goes_on_as_if_all_had_been_read() {
    let (mut dead, mut waiting) = (0, 0);
    for seed in 0..12 {
        println!("seed {seed}");
        let records = history(seed);
        let mut whole = Followers::new(queue());
        evolve(&mut whole, &records, 0);
        let (bytes, figures) = (whole.save(), whole.queue.figures());
        dead += figures.dead;
        waiting += figures.pending;
        let all = seen(whole);
        for cut in 0..=records.len() {
            let mut before = Followers::new(queue());
            evolve(&mut before, &records[..cut], 0);
            let saved = before.save();
            let mut loaded = Followers::load(&saved, queue(), Fit::Exact, &unseal).unwrap();
            assert!(loaded.save() == saved, "seed {seed}, cut {cut}: the same bytes");
            evolve(&mut loaded, &records, cut);
            assert!(loaded.save() == bytes, "seed {seed}, cut {cut}: the same state");
            assert_eq!(seen(loaded), all, "seed {seed}, cut {cut}");
        }
    }
    assert!(dead > 10 && waiting > 100, "{dead} dead, {waiting} waiting");
}

#[test]
fn nothing_personal_stands_in_it_in_clear() {
    let mut followers = Followers::new(queue());
    evolve(&mut followers, &history(1), 0);
    let outstanding = followers.queue.outstanding();
    let has = |bytes: &[u8]| bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
    assert!(outstanding.iter().any(|it| has(&it.message.body)), "there is something to hide");
    assert!(!has(&followers.save()));
}

#[test]
fn bytes_that_are_none_of_ours_are_refused_by_name_and_never_by_a_panic() {
    let mut followers = Followers::new(queue());
    evolve(&mut followers, &history(2)[..60], 0);
    let sound = followers.save();
    let load = |bytes: &[u8]| Followers::load(bytes, queue(), Fit::Exact, &unseal).err();
    assert_eq!(load(&sound), None);
    assert_eq!(load(&[]), Some(Unfit::Layout));
    assert_eq!(load(&[&[9], &sound[1..]].concat()), Some(Unfit::Version));
    let other = Followers::load(&sound, Queue::new(Limits::default()), Fit::Exact, &unseal).err();
    assert_eq!(other, Some(Unfit::Endpoints));
    for at in (0..sound.len()).step_by(3) {
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << (at % 8);
        let _ = load(&bytes);
        let _ = load(&sound[..at]);
    }
}

#[test]
fn what_waits_for_an_endpoint_that_is_gone_waits_until_it_is_there_again() {
    for seed in 0..12 {
        let mut followers = Followers::new(queue());
        evolve(&mut followers, &history(seed), 0);
        let saved = followers.save();
        // Nobody is there any more; what was saved then is all that is left of the journal.
        let none = || Queue::new(Limits { dead_max: 5, ..Limits::default() });
        let gone = Followers::load(&saved, none(), Fit::Adopted, &unseal).unwrap();
        let back = Followers::load(&gone.save(), queue(), Fit::Adopted, &unseal).unwrap();
        assert!(back.save() == saved, "seed {seed}");
        assert_eq!(seen(back), seen(followers), "seed {seed}");
    }
}
