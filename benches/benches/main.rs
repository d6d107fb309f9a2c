//! What each part costs, by criterion. `./measure benches` runs all of them, prints one table with
//! the budgets, and compares with a run that was kept; `cargo bench -p benches --bench all -- NAME`
//! runs those of a name.

mod apply;
mod contention;
mod fading;
mod growth;
mod ingest;
mod journal;
mod parse;
mod records;
mod rules;
mod snapshot;

use criterion::criterion_main;

/// As the server has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

criterion_main!(
    apply::group,
    contention::group,
    growth::group,
    ingest::group,
    rules::group,
    fading::group,
    parse::group,
    records::group,
    journal::group,
    snapshot::group
);
