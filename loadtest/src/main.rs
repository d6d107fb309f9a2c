//! Load on a schedule, for this collector and any other. The schedule is fixed before the run; what
//! a server is late with counts from when it was due. This file is a table of contents.

mod clock;
mod random;
mod schedule;
mod measured;
mod slo;
mod cookies;
mod scenario;
mod sign;
mod source;
mod requests;
mod people;
mod truth;

mod connection;
mod load;
mod server;
mod report;
mod probe;
mod progress;
mod cli;
mod run;
mod search;
mod merge;
mod compare;
mod sink;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Verb};

/// What is left to say when it has ended.
enum Outcome {
    /// Every objective was met.
    Met,
    /// One was missed.
    Missed,
    /// The generator could not keep its schedule.
    Invalid,
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Run(run) => run::run(&run),
        Verb::Search(search) => search::run(&search),
        Verb::Replay(replay) => run::replay(&replay),
        Verb::Sink { listen, secrets } => sink::run(listen, &secrets),
        Verb::Merge { reports, output } => merge::run(&reports, &output),
        Verb::Compare { before, after, seed, json, fail_if_slower } => {
            compare::run((&before, &after), seed, json, fail_if_slower)
        }
        Verb::Probe { target, seed, command } => {
            let found = probe::run(command, target, seed).map_err(|failure| failure.to_string());
            found.map(|found| {
                println!("{found}");
                Outcome::Met
            })
        }
    };
    match done {
        Ok(Outcome::Met) => ExitCode::SUCCESS,
        Ok(Outcome::Missed) => ExitCode::from(1),
        Ok(Outcome::Invalid) => ExitCode::from(3),
        Err(why) => {
            eprintln!("mikomi-loadtest: {why}");
            ExitCode::from(4)
        }
    }
}
