//! That each of the five counts can be other than 0: a small world in which all is true, and what
//! is found when one thing in it is not.

use std::time::{Duration, Instant};

use super::account::{Account, Recorded};
use super::findings::{Findings, Sort};
use super::heard::{Heard, Message};
use super::judge::{SeenLead, SeenRow, Took, judge};
use super::model::{Expected, Kind};
use super::person::{Life, Site};
use super::rules::{Rules, tests::TEXT};
use super::sent::{Answer, Did, Log, SentHit, THANKS};
use crate::scenario::Scenario;

/// Monday, 7 December 2026, 9:00 in Japan.
const BEGAN: u64 = 1_796_601_600_000;
const UNTIL: u64 = BEGAN + 120_000;
const EMAIL: &str = "v0@buyer.example";

struct World {
    site: Site,
    log: fn() -> Log,
    records: Vec<Recorded>,
    seen: Option<SeenLead>,
    heard: Vec<Heard>,
}

fn site() -> Site {
    let text = TEXT
        .replace("half_life = \"14d\"", "half_life = \"60s\"")
        .replace("rise = 60, fall = 40, dwell = \"24h\"", "rise = 30, fall = 20, dwell = \"1s\"");
    Site::new(Rules::parse(&text).unwrap(), &Scenario::open(None, None, None).unwrap())
}

/// One browser: a page, prices, a form and who it was, each a second after the other; the last of
/// them twice.
fn log() -> Log {
    let pricing = Scenario::open(None, None, None).unwrap().page("/pricing/").unwrap() as u16;
    let mut log = Log::new(Instant::now());
    let mut send = |number: u32, did, place, position: u64| {
        let hit = SentHit { who: 0, number, did, place, view: number, ago_ms: 0, request: 0 };
        log.note(0, number > 0, std::iter::once(hit));
        log.requests.last_mut().unwrap().answer = Answer::Taken(position, BEGAN + position * 1_000);
    };
    send(0, Did::View, 0, 1);
    send(1, Did::View, pricing, 2);
    send(2, Did::View, THANKS, 3);
    send(3, Did::Identify(true), THANKS, 4);
    send(3, Did::Identify(true), THANKS, 4);
    log
}

/// What a server has that does as it must.
fn world() -> World {
    let site = site();
    let mut world = World { site, log, records: Vec::new(), seen: None, heard: Vec::new() };
    for (number, hit) in log().hits.iter().take(4).enumerate() {
        let position = number as u64 + 1;
        world.records.push(Recorded {
            position,
            hit: Some((0, hit.number)),
            received: BEGAN + position * 1_000,
            when: BEGAN + position * 1_000,
            visitor: 7,
            what: world.site.what(hit.did, hit.place),
            robot: false,
        });
    }
    let mut account = Account::of(vec![log()]);
    let mut none = Findings::default();
    for record in &world.records {
        account.record(record, &|did, place| world.site.what(did, place), &mut none);
    }
    let life = Life::of(&account, &[0]).unwrap();
    let lead = life.play(&world.site, &|_, _| None, &[], UNTIL);
    let row = |row: &super::model::Row| SeenRow {
        key: (row.when, row.position, row.order),
        rule: lead.rule(row).id.clone(),
        granted: row.granted,
    };
    let at = UNTIL + 5_000;
    let rows = lead.rows.iter().map(row).collect();
    world.seen = Some(SeenLead { at, exact: lead.score_at(at), rows });
    world.heard = lead.told.iter().enumerate().map(|(place, told)| heard(place, told)).collect();
    world
}

/// A message that says what it has to, as the one of that place.
pub(super) fn heard(place: usize, told: &Expected) -> Heard {
    let message = Message {
        email: EMAIL.to_owned(),
        key: Some(told.key.clone()),
        kind: "lead".to_owned(),
        sequence: place as u64 + 1,
        at: told.at,
        exact: told.exact,
        direction: if told.key.kind == Kind::Cooled { "fall" } else { "rise" }.to_owned(),
        also: Vec::new(),
        because: told.because.clone(),
        waited: told.waited,
    };
    let read_at = Duration::from_millis(told.at + 3);
    let (id, read) = (format!("msg_{place}"), Duration::from_millis(5));
    Heard { id, message, read, read_at, place: place as u64 }
}

/// The five counts.
fn found(world: &World) -> ([u64; 5], Vec<Took>) {
    let mut findings = Findings::default();
    let mut account = Account::of(vec![(world.log)()]);
    let what = |did, place| world.site.what(did, place);
    for record in &world.records {
        account.record(record, &what, &mut findings);
    }
    account.check(&mut findings);
    let heard: Vec<&Heard> = world.heard.iter().collect();
    let life = Life::of(&account, &[0]).unwrap();
    let judged = judge(&world.site, &life, EMAIL, world.seen.as_ref(), &heard, UNTIL);
    findings.add(judged.findings);
    (Sort::ALL.map(|(sort, _)| findings.count(sort)), judged.took)
}

fn counts(world: &World) -> [u64; 5] {
    found(world).0
}

#[test]
fn where_all_is_as_it_must_be_nothing_is_found() {
    let world = world();
    let kinds: Vec<Kind> =
        world.heard.iter().filter_map(|it| it.message.key.as_ref()).map(|it| it.kind).collect();
    assert_eq!(kinds, [Kind::Hot, Kind::Cooled]);
    let (counts, took) = found(&world);
    assert_eq!(counts, [0; 5]);
    assert_eq!(took, [Took::Hit(4, 5_000), Took::Time(3_000)]);
}

#[test]
fn a_hit_that_was_acknowledged_and_is_not_there_is_lost() {
    let mut world = world();
    world.records.remove(0);
    assert_eq!(counts(&world)[0], 1);
}

#[test]
fn a_hit_that_nobody_sent_is_invented_and_so_is_a_message_without_a_cause() {
    let mut world = world();
    let mut stranger = world.records[1].clone();
    (stranger.position, stranger.hit) = (9, Some((5, 0)));
    world.records.push(stranger.clone());
    assert_eq!(counts(&world), [0, 1, 0, 0, 0]);
    stranger.hit = None;
    world.records.push(Recorded { position: 10, ..stranger });
    let mut more = world.heard[0].clone();
    more.message.key.as_mut().unwrap().line = Some(("hot".to_owned(), 2));
    more.message.sequence = 3;
    (more.id, more.place) = ("msg_9".to_owned(), 9);
    world.heard.push(more);
    assert_eq!(counts(&world)[1], 3);
    // What can never have arrived is invented, too.
    let mut never = self::world();
    never.log = || {
        let mut log = log();
        log.requests[2].answer = Answer::NeverSent;
        log
    };
    assert!(counts(&never)[1] > 0);
}

#[test]
fn a_message_that_nobody_got_is_missing() {
    let mut world = world();
    world.heard.pop();
    assert_eq!(counts(&world), [0, 0, 1, 0, 0]);
}

#[test]
fn a_hit_recorded_twice_is_doubled_and_so_is_a_cause_told_under_two_ids() {
    let mut world = world();
    let twin = Heard { id: "msg_twin".to_owned(), place: 1, ..world.heard[0].clone() };
    world.heard.insert(1, twin);
    assert_eq!(counts(&world)[3], 1);
    let mut world = self::world();
    let again = world.records[3].clone();
    world.records.push(Recorded { position: 5, ..again });
    assert_eq!(counts(&world)[3], 1);
}

#[test]
fn a_hit_that_comes_again_after_64_others_of_its_browser_is_not_promised_to_be_one() {
    for (others, doubled) in [(63, 1), (64, 0)] {
        let mut log = log();
        for number in 4..4 + others {
            let mut hit = log.hits[0];
            (hit.number, hit.did) = (number, Did::View);
            log.note(0, true, std::iter::once(hit));
            log.requests.last_mut().unwrap().answer = Answer::Unknown;
        }
        let (world, mut findings) = (world(), Findings::default());
        let mut account = Account::of(vec![log]);
        let record = |position: u64, number| Recorded {
            position,
            hit: Some((0, number)),
            received: BEGAN + position * 1_000,
            when: BEGAN + position * 1_000,
            ..world.records[0].clone()
        };
        let more = (4..4 + others).map(|number| record(u64::from(number) + 1, number));
        let last = u64::from(others) + 5;
        let again = Recorded { position: last, ..world.records[3].clone() };
        for record in world.records.iter().cloned().chain(more).chain([again]) {
            account.record(&record, &|did, place| world.site.what(did, place), &mut findings);
        }
        account.check(&mut findings);
        assert_eq!((findings.count(Sort::Doubled), findings.total()), (doubled, doubled));
    }
}

#[test]
fn another_score_other_points_and_another_order_are_wrong() {
    let changes: [fn(&mut World); 8] = [
        |it| it.seen.as_mut().unwrap().exact += 1,
        |it| it.seen.as_mut().unwrap().rows[0].granted -= 1_000,
        |it| it.seen = None,
        |it| it.heard[0].message.exact += 1,
        |it| it.heard[1].message.at += 1,
        |it| it.heard[0].message.because = Some(("pricing".to_owned(), 13_000)),
        |it| it.records[2].when += 1,
        |it| {
            it.heard[0].place = 1;
            it.heard[1].place = 0;
        },
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut world = world();
        change(&mut world);
        let counts = counts(&world);
        assert_eq!(counts[..4], [0; 4], "change {number}");
        assert!(counts[4] > 0, "change {number}");
    }
}

#[test]
fn a_hit_without_an_answer_may_be_there_or_not() {
    let mut world = world();
    world.log = || {
        let mut log = log();
        log.requests.iter_mut().skip(3).for_each(|it| it.answer = Answer::Unknown);
        log
    };
    assert_eq!(counts(&world), [0; 5]);
    world.records.pop();
    let mut account = Account::of(vec![(world.log)()]);
    let mut findings = Findings::default();
    for record in &world.records {
        account.record(record, &|did, place| world.site.what(did, place), &mut findings);
    }
    account.check(&mut findings);
    assert!(findings.is_empty());
    // Nobody said who it was, as far as the server knows.
    assert!(Life::of(&account, &[0]).is_none());
    assert_eq!((account.counts().unanswered, account.counts().unanswered_recorded), (1, 0));
}
