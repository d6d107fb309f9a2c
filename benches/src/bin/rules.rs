//! What it costs to find the rules that match a hit, beside a plain loop over all rules: 200 and
//! 1,000 rules (40 % whole subtrees, 25 % globs of one segment, 15 % globs within segments, 20 %
//! events), page views of 20,000 paths as popular as pages are (Zipf), one hit in ten an event.
//!
//!     rules [--short]
//!
//! Prints one line of JSON: for each number of rules the nanoseconds a hit of each round.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use engine::hit::HitKind;
use engine::id::{CategoryId, RuleId};
use engine::points::Points;
use engine::rule::{Condition, Guards, OnRemove, Rule, RuleError, RuleSet, Sighting};
use regex_automata::meta::Regex;
use serde_json::{Value, json};

const SIZES: [usize; 2] = [200, 1_000];
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

fn rules(count: usize) -> Vec<Rule> {
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

struct Draw {
    kind: HitKind,
    text: String,
}

/// Page views, the page of rank r with a share like 1/r, and one event in ten.
fn draws(count: usize, rules: usize) -> Vec<Draw> {
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

fn sighting(draw: &Draw) -> Sighting<'_> {
    let (path, event) = match draw.kind {
        HitKind::Event => ("/", draw.text.as_str()),
        _ => (draw.text.as_str(), ""),
    };
    Sighting { kind: draw.kind, path, event, ..Sighting::default() }
}

/// How it is done without thinking: every rule is asked.
enum Asked {
    Subtree(String),
    Pattern(Regex),
    Event(String),
}

fn one_by_one(rules: &[Rule]) -> Vec<Asked> {
    let asked = |rule: &Rule| {
        let Some(glob) = rule.when.path.first() else {
            return Asked::Event(rule.when.event[0].clone());
        };
        if let Some(subtree) = glob.strip_suffix("/**") {
            Asked::Subtree(subtree.to_owned())
        } else {
            let pattern = format!("^{}$", glob.replace('*', "[^/]*"));
            Asked::Pattern(Regex::new(&pattern).expect("globs are simple patterns"))
        }
    };
    rules.iter().map(asked).collect()
}

fn matches_one_by_one(rules: &[Asked], draw: &Draw) -> usize {
    let view = draw.kind == HitKind::PageView;
    let text = draw.text.as_str();
    let holds = |rule: &&Asked| match rule {
        Asked::Subtree(subtree) => {
            let rest = text.strip_prefix(subtree.as_str());
            view && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        Asked::Pattern(pattern) => view && pattern.is_match(text),
        Asked::Event(name) => !view && name == text,
    };
    rules.iter().filter(holds).count()
}

/// Nanoseconds a hit, and how many rules matched in all.
fn timed(draws: &[Draw], mut matches: impl FnMut(&Draw) -> usize) -> (f64, usize) {
    let started = Instant::now();
    let matched = draws.iter().map(|draw| black_box(matches(draw))).sum();
    (started.elapsed().as_nanos() as f64 / draws.len() as f64, matched)
}

fn measure(size: usize, hits: usize, rounds: usize) -> Result<Value, String> {
    let rules = rules(size);
    let compiled = |set: Result<RuleSet, RuleError>| set.map_err(|error| error.to_string());
    let memo = compiled(RuleSet::new(rules.clone()))?;
    let forgetful = compiled(RuleSet::forgetful(rules.clone()))?;
    let plain = one_by_one(&rules);
    let draws = draws(hits, size);
    let mut figures = [Vec::new(), Vec::new(), Vec::new()];
    let mut counts = Vec::new();
    for round in 0..=rounds {
        // A plain loop is slow: a part of the hits is enough to know by how much.
        let some = &draws[..hits / 10];
        let found = [
            timed(&draws, |draw| memo.matching(&sighting(draw)).len()),
            timed(&draws, |draw| forgetful.matching(&sighting(draw)).len()),
            timed(some, |draw| matches_one_by_one(&plain, draw)),
        ];
        let agree = timed(some, |draw| forgetful.matching(&sighting(draw)).len()).1;
        if found[0].1 != found[1].1 || found[2].1 != agree {
            return Err(format!("{size} rules: they do not agree: {found:?}, {agree}"));
        }
        counts.push(found[0].1);
        // The first round fills the caches.
        if round > 0 {
            for (figure, (ns, _)) in figures.iter_mut().zip(found) {
                figure.push(ns);
            }
        }
    }
    let [memo, forgetful, one_by_one] = figures;
    Ok(json!({
        "rules": size, "hits": hits, "matches_per_hit": counts[0] as f64 / hits as f64,
        "memo_ns": memo, "forgetful_ns": forgetful, "one_by_one_ns": one_by_one,
    }))
}

fn main() -> ExitCode {
    let short = std::env::args().any(|argument| argument == "--short");
    let (hits, rounds) = if short { (200_000, 5) } else { (1_000_000, 11) };
    let measured: Result<Vec<Value>, String> =
        SIZES.into_iter().map(|size| measure(size, hits, rounds)).collect();
    match measured {
        Ok(sizes) => {
            println!("{}", Value::from(sizes));
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("rules: {why}");
            ExitCode::FAILURE
        }
    }
}
