//! The same hit of the same visitors with more and more others in memory: the first one of today
//! of everybody, in turn, in an engine that was started from a data folder. Guards that twenty
//! million visitors cost little more a hit than ten thousand.
//!
//! `MIKOMI_BENCH_VISITORS=10000,20000000` says how many; `MIKOMI_BENCH_DATA` names the folder in
//! which the data folders are looked for, by their number of visitors, or made.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use benches::rounds::Rounds;
use benches::{MORE_RULES, Site, alone, hit, path};
use collector::config::Files;
use collector::seal::attributes_of;
use collector::serve::{self, Options};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use engine::engine::Arrival;
use engine::id::LeadId;
use engine::time::Timestamp;

/// Of the visitors' hits before: none has so many.
const TURN: u64 = 100;

fn sizes() -> Vec<u64> {
    let wanted = std::env::var("MIKOMI_BENCH_VISITORS").unwrap_or("10000,1000000".to_owned());
    let number = |it: &str| it.trim().parse().expect("MIKOMI_BENCH_VISITORS holds numbers");
    wanted.split(',').map(number).collect()
}

/// A data folder with so many visitors, made unless it is there.
fn seeded(visitors: u64) -> PathBuf {
    let usual = Path::new(env!("CARGO_TARGET_TMPDIR")).join("growth");
    let parent = std::env::var_os("MIKOMI_BENCH_DATA").map_or(usual, PathBuf::from);
    let folder = parent.join(visitors.to_string());
    if !folder.is_dir() {
        // It gets its name when it is whole.
        let passing = parent.join(format!("{visitors}.unfinished"));
        let mut seed = Command::new(env!("CARGO_BIN_EXE_seed"));
        let done = seed.arg(&passing).arg(visitors.to_string()).stdout(Stdio::null()).status();
        assert!(done.is_ok_and(|it| it.success()), "no data folder could be made");
        std::fs::rename(passing, &folder).expect("it was just made");
    }
    folder
}

/// What a start makes of it, and when it was started.
fn started(folder: PathBuf) -> (Site, Timestamp) {
    let files = Some(Files::default());
    let options = Options { data: Some(folder), files, any_port: true, ..Options::default() };
    let running = serve::start(&options).expect("a data folder that was just made starts");
    let app = Arc::clone(&running.app);
    // From here on nothing runs beside what is measured.
    running.stop().expect("it stops in order");
    let (now, pushed) = (app.clock.now(), app.journal.pushed());
    let sealer = Arc::clone(&app.sealer);
    let unseal = move |lead: LeadId, sealed: &[u8]| attributes_of(sealer.unseal(lead, sealed));
    let site = Site::of(&app.engine, MORE_RULES, (now, pushed), Box::new(unseal));
    (site.expect("the shipped rules are sound"), now)
}

fn come_back(now: Timestamp) -> impl Fn(u64) -> Arrival {
    move |number| {
        let at = Timestamp(now.0 + 1_000 + number);
        alone(hit(number, TURN, path(number, TURN), at))
    }
}

fn growth(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("growth");
    group.throughput(Throughput::Elements(1));
    for visitors in sizes() {
        let mut rounds = None;
        group.bench_function(BenchmarkId::new("returning_visitor", visitors), |bencher| {
            let rounds = rounds.get_or_insert_with(|| {
                let (site, now) = started(seeded(visitors));
                Rounds::new(site, visitors, come_back(now))
            });
            bencher.iter_custom(|hits| rounds.time(hits));
        });
    }
    group.finish();
}

criterion_group!(group, growth);
