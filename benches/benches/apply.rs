//! A hit in the engine: decided, encoded as for the journal, applied. Guards the engine's share of
//! a hit; `growth.rs` and `./measure engine` say what it comes to with millions of visitors.

use benches::rounds::Rounds;
use benches::{
    Bytes, EARNING, MORE_RULES, START, Site, alone, first_and_second, hit, path, people,
};
use criterion::{Criterion, criterion_group};
use engine::engine::Arrival;
use engine::time::Timestamp;

const VISITORS: u64 = 100_000;
const PEOPLE: u64 = 10_000;
/// Hits of each before everybody is again as in the beginning: a visit, and not a year of them.
const TURNS: u64 = 4;

fn at(number: u64) -> Timestamp {
    Timestamp(START.0 + 60_000 + number)
}

/// So many hits, each of them made beforehand, on a site that is made when it is wanted.
fn hits(
    criterion: &mut Criterion,
    name: &str,
    count: u64,
    site: impl Fn() -> Site,
    make: impl Fn(u64) -> Arrival,
) {
    let mut rounds = None;
    criterion.bench_function(&format!("hit/{name}"), |bencher| {
        let rounds = rounds.get_or_insert_with(|| Rounds::new(site(), count, &make));
        bencher.iter_custom(|hits| rounds.time(hits));
    });
}

fn visitors(more_rules: usize) -> Site {
    let site = Site::new(more_rules).expect("the shipped rules are sound");
    site.admit(0, VISITORS, &mut Bytes::new());
    site
}

/// Another page view of one of `count` who were here before.
fn come_back(count: u64) -> impl Fn(u64) -> Arrival {
    move |number| {
        let (who, turn) = (number % count, 3 + number / count);
        alone(hit(who, turn, path(who, turn), at(number)))
    }
}

fn returning(criterion: &mut Criterion) {
    let many = VISITORS * TURNS;
    let make = come_back(VISITORS);
    hits(criterion, "returning_visitor", many, || visitors(MORE_RULES), &make);
    hits(criterion, "returning_visitor_shipped_rules", many, || visitors(0), &make);
}

/// Somebody comes back for the first time, and is kept from then on, among as many others.
fn new(criterion: &mut Criterion) {
    let make = |number| first_and_second(VISITORS + number, EARNING, at(number));
    hits(criterion, "new_visitor", VISITORS, || visitors(MORE_RULES), make);
}

/// The same of people who said who they are.
fn identified(criterion: &mut Criterion) {
    let (site, make) = (|| people(PEOPLE), come_back(PEOPLE));
    hits(criterion, "identified_lead", PEOPLE * TURNS, site, make);
}

/// The page view that makes a lead hot.
fn crossing(criterion: &mut Criterion) {
    let make = |number| alone(hit(number, 3, "/thanks/contact/ok", at(number)));
    hits(criterion, "crossing", PEOPLE, || people(PEOPLE), make);
}

criterion_group!(group, returning, new, identified, crossing);
