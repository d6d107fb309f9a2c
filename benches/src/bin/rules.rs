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

use benches::matching::{Draw, draws, rules, sighting};
use engine::hit::HitKind;
use engine::rule::{Rule, RuleError, RuleSet};
use regex_automata::meta::Regex;
use serde_json::{Value, json};

const SIZES: [usize; 2] = [200, 1_000];

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
