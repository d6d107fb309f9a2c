//! Rules and what they are held against: 40 % whole subtrees, 25 % globs of one segment, 15 % globs
//! within segments, 20 % events; page views of 20,000 paths as popular as pages are (Zipf), one hit
//! in ten an event.

use engine::hit::HitKind;
use engine::id::{CategoryId, RuleId};
use engine::points::Points;
use engine::rule::{Condition, Guards, OnRemove, Rule, Sighting};

const PATHS: usize = 20_000;
const SEGMENTS: [&str; 12] = [
    "products",
    "solutions",
    "column",
    "case",
    "news",
    "event",
    "support",
    "pricing",
    "company",
    "library",
    "partners",
    "careers",
];

/// SplitMix64: the same hits in every run.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// So many rules.
pub fn rules(count: usize) -> Vec<Rule> {
    let segment = |number: usize| SEGMENTS[number % SEGMENTS.len()];
    let rule = |number: usize| {
        let (first, topic) = (segment(number), number / 4);
        let path = |glob: String| Condition { path: vec![glob], ..Condition::default() };
        let when = match number % 20 {
            0 => path(format!("/{}/**", segment(number / 20))),
            1..8 => path(format!("/{first}/topic-{topic}/**")),
            8..13 => path(format!("/{first}/*/item-{topic}")),
            13..16 => path(format!("/{first}/to*-{topic}/*-{}", topic % 7)),
            _ => Condition { event: vec![event(number)], ..Condition::default() },
        };
        Rule {
            id: RuleId(number as u16),
            name: format!("rule-{number}"),
            points: Points::whole(1),
            category: CategoryId(0),
            guards: Guards::default(),
            tell: None,
            on_remove: OnRemove::default(),
            from: None,
            until: None,
            when,
            ja: String::new(),
            en: String::new(),
        }
    };
    (0..count).map(rule).collect()
}

fn event(number: usize) -> String {
    format!("event_{number}")
}

fn paths(chance: &mut Chance) -> Vec<String> {
    let path = |_| {
        let first = SEGMENTS[chance.below(SEGMENTS.len())];
        let (topic, item) = (chance.below(400), chance.below(400));
        match chance.below(10) {
            0..3 => format!("/{first}"),
            3..8 => format!("/{first}/topic-{topic}"),
            _ => format!("/{first}/topic-{topic}/item-{item}"),
        }
    };
    (0..PATHS).map(path).collect()
}

/// What is hit.
pub struct Draw {
    /// A page view or an event.
    pub kind: HitKind,
    /// The path or the event's name.
    pub text: String,
}

/// Page views, the page of rank r with a share like 1/r, and one event in ten.
pub fn draws(count: usize, rules: usize) -> Vec<Draw> {
    let mut chance = Chance(count as u64);
    let paths = paths(&mut chance);
    let mut up_to = 0.0;
    let sums: Vec<f64> = (1..=paths.len())
        .map(|rank| {
            up_to += 1.0 / rank as f64;
            up_to
        })
        .collect();
    let draw = |_| {
        if chance.below(10) == 0 {
            return Draw { kind: HitKind::Event, text: event(chance.below(rules)) };
        }
        let wanted = chance.below(1 << 30) as f64 / f64::from(1 << 30) * up_to;
        let rank = sums.partition_point(|sum| *sum <= wanted).min(paths.len() - 1);
        Draw { kind: HitKind::PageView, text: paths[rank].clone() }
    };
    (0..count).map(draw).collect()
}

/// As rules look at it.
pub fn sighting(draw: &Draw) -> Sighting<'_> {
    let (path, event) = match draw.kind {
        HitKind::Event => ("/", draw.text.as_str()),
        _ => (draw.text.as_str(), ""),
    };
    Sighting { kind: draw.kind, path, event, ..Sighting::default() }
}
