//! Which of the rules match a hit. Guards that 200 rules cost at most 0.4 microseconds where
//! nothing is remembered of the page; `./measure rules` holds both against a plain loop.

use std::hint::black_box;

use benches::matching::{draws, rules, sighting};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use engine::rule::{Rule, RuleError, RuleSet};

/// Hits that are drawn; then they come again.
const HITS: usize = 200_000;

type Compile = fn(Vec<Rule>) -> Result<RuleSet, RuleError>;

fn matching(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rules");
    group.throughput(Throughput::Elements(1));
    let kinds: [(&str, Compile); 2] =
        [("remembered", RuleSet::new), ("not_remembered", RuleSet::forgetful)];
    for (name, compile) in kinds {
        for count in [200, 1_000] {
            let (mut made, mut next) = (None, 0);
            group.bench_function(BenchmarkId::new(name, count), |bencher| {
                let (set, draws) = made.get_or_insert_with(|| {
                    let set = compile(rules(count)).expect("the rules are sound");
                    (set, draws(HITS, count))
                });
                bencher.iter(|| {
                    next = (next + 1) % HITS;
                    black_box(set.matching(&sighting(&draws[next])).len())
                });
            });
        }
    }
    group.finish();
}

criterion_group!(group, matching);
