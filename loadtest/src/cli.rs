//! The words of the command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use hyper::Method;
use hyper::http::{HeaderName, HeaderValue};

use crate::probe;
use crate::schedule::{Arrivals, Shape, seconds};
use crate::slo::Slo;

const AFTER: &str = "\
Exit status: 0 every objective was met and the run is valid; 1 an objective was missed;
2 wrong words; 3 INVALID, the generator could not keep its schedule, so the figures say nothing of
the server; 4 it could not be run.

Response time counts from the moment at which a request was due, service time from the moment at
which it was sent. The schedule is fixed before the run and does not wait for answers.";

/// Load on a schedule for any tracking collector.
#[derive(Parser)]
#[command(name = "mikomi-loadtest", version, about, after_help = AFTER)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Subcommand)]
pub enum Verb {
    /// Send on a schedule, and report.
    #[command(after_help = AFTER)]
    Run(Box<Run>),
    /// Find the highest rate at which every objective is met.
    #[command(after_help = AFTER)]
    Search(Box<Search>),
    /// Send the requests of an access log or of a file, at their times or on a schedule.
    #[command(after_help = AFTER)]
    Replay(Box<Replay>),
    /// Take webhooks, verify their signatures, and count them until standard input ends. Ends with
    /// 1 if any was refused.
    Sink {
        /// Where to listen.
        #[arg(long, default_value = "127.0.0.1:8090")]
        listen: SocketAddr,
        /// A secret they may be signed with, `whsec_...`; several may be given.
        #[arg(
            long = "secret",
            required = true,
            env = "MIKOMI_LOADTEST_SECRET",
            hide_env_values = true
        )]
        secrets: Vec<String>,
    },
    /// Add up the reports of several machines that sent at the same time.
    #[command(after_help = AFTER)]
    Merge {
        /// The reports, as JSON.
        #[arg(required = true, num_args = 2..)]
        reports: Vec<PathBuf>,
        /// What comes of it.
        #[command(flatten)]
        output: Output,
    },
    /// Hold one report against another, with how sure the difference is. Ends with 0 whatever the
    /// difference is, unless --fail-if-slower says how much is too much; with 3 if one is INVALID.
    Compare {
        /// What is compared with.
        before: PathBuf,
        /// What is compared.
        after: PathBuf,
        /// What chance follows from.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// End with 1 if a percentile is surely slower by more than this, in percent: if all of
        /// what 95 of 100 lie in is.
        #[arg(long, value_name = "PERCENT", value_parser = percent)]
        fail_if_slower: Option<f64>,
    },
    /// What ./measure needs besides: little clients, a stub, receivers of webhooks.
    Probe {
        /// Where the collector listens.
        #[arg(long, global = true, default_value = "127.0.0.1:8080")]
        target: SocketAddr,
        /// From which all that is drawn follows.
        #[arg(long, global = true, default_value_t = 1)]
        seed: u64,
        /// Which.
        #[command(subcommand)]
        command: probe::Command,
    },
}

/// Of `run`.
#[derive(Args)]
pub struct Run {
    /// When: RATE for TIME, FROM..TO for TIME, FROM..TO in N steps for TIME; several with commas.
    #[arg(long, default_value = "1000 for 30s")]
    pub load: Shape,
    /// What.
    #[command(flatten)]
    pub content: Content,
    /// Whom to.
    #[command(flatten)]
    pub sending: Sending,
    /// What comes of it.
    #[command(flatten)]
    pub output: Output,
    /// What it is held against.
    #[command(flatten)]
    pub truth: Truth,
}

/// What a run is held against.
#[derive(Args)]
pub struct Truth {
    /// Remember every hit with its answer, take the server's messages, and hold every score and
    /// message against a model of these rules, the server's own scoring.toml. The report then
    /// has lost, invented, missing, doubled and wrong, and objectives may ask for them. Needs
    /// --sink-secret, --load-token-file, --admin and its token.
    #[arg(long = "truth", value_name = "RULES", requires = "load_token_file")]
    pub rules: Option<PathBuf>,
    /// Where the server's messages arrive.
    #[arg(long, default_value = "127.0.0.1:8090")]
    pub sink: SocketAddr,
    /// The id of the endpoint whose messages these are: then those that wait for others are not
    /// waited for.
    #[arg(long)]
    pub sink_endpoint: Option<String>,
    /// A secret they may be signed with, `whsec_...`; several may be given.
    #[arg(long = "sink-secret", env = "MIKOMI_LOADTEST_SECRET", hide_env_values = true)]
    pub sink_secrets: Vec<String>,
    /// A file with the server's load token: answers then say where hits stand in the journal.
    #[arg(long)]
    pub load_token_file: Option<PathBuf>,
    /// A file with the site's identity secret: forms are signed as the scenario says.
    #[arg(long)]
    pub identity_secret_file: Option<PathBuf>,
}

/// Of `search`.
#[derive(Args)]
pub struct Search {
    /// The rate to begin with.
    #[arg(long, default_value_t = 500.0)]
    pub from: f64,
    /// The highest rate to try.
    #[arg(long, default_value_t = 1_000_000.0)]
    pub max: f64,
    /// How long each rate is tried, after its warm-up. A rate that is little too high takes a
    /// while to show: its queue has to grow.
    #[arg(long, default_value = "10s", value_parser = seconds)]
    pub step: f64,
    /// How near the found rate is to one that is too high, in percent.
    #[arg(long, default_value_t = 3.0)]
    pub precision: f64,
    /// What.
    #[command(flatten)]
    pub content: Content,
    /// Whom to.
    #[command(flatten)]
    pub sending: Sending,
    /// What comes of it.
    #[command(flatten)]
    pub output: Output,
}

/// Of `replay`.
#[derive(Args)]
pub struct Replay {
    /// An access log (common or combined form), or a request a line: METHOD PATH [BODY].
    pub file: PathBuf,
    /// A schedule instead of the log's times; the lines are repeated as long as it lasts.
    #[arg(long)]
    pub load: Option<Shape>,
    /// So many times as fast as the log.
    #[arg(long, default_value_t = 1.0, conflicts_with = "load")]
    pub speed: f64,
    /// A header of every request, `Name: value`; several may be given.
    #[arg(long = "header", value_parser = header)]
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Whom to.
    #[command(flatten)]
    pub sending: Sending,
    /// What comes of it.
    #[command(flatten)]
    pub output: Output,
}

/// What is sent.
#[derive(Args)]
pub struct Content {
    /// How people use the site, as TOML; what it leaves out is taken from the one compiled in.
    #[arg(long)]
    pub scenario: Option<PathBuf>,
    /// The site's key, instead of the scenario's.
    #[arg(long)]
    pub site: Option<String>,
    /// How many visitors there are, instead of the scenario's.
    #[arg(long)]
    pub visitors: Option<usize>,
    /// Send one request again and again, the URL's path, by this method, instead of a scenario.
    #[arg(long)]
    pub method: Option<Method>,
    /// With this body.
    #[arg(long)]
    pub body: Option<String>,
    /// A header of every request, `Name: value`; several may be given.
    #[arg(long = "header", value_parser = header)]
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// How it is sent.
#[derive(Args)]
pub struct Sending {
    /// Whom to. Of a collector that is not mikomi: with the path of what is sent.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// The site's key may be one in production, on another machine.
    #[arg(long)]
    pub production: bool,
    /// Certificates to believe besides those of public authorities, as PEM.
    #[arg(long)]
    pub ca: Option<PathBuf>,
    /// How requests come within a rate.
    #[arg(long, value_enum, default_value_t)]
    pub arrivals: Arrivals,
    /// Not counted at the beginning, at the first rate.
    #[arg(long, default_value = "2s", value_parser = seconds)]
    pub warm: f64,
    /// Connections kept open, one request in flight on each.
    #[arg(long, default_value_t = 128)]
    pub connections: usize,
    /// The share of requests that get a new connection, from 0 to 1; opening it counts in their
    /// response time.
    #[arg(long, default_value_t = 0.0)]
    pub fresh: f64,
    /// The longest that an answer is waited for.
    #[arg(long, default_value = "10s", value_parser = seconds)]
    pub timeout: f64,
    /// Threads that send; half of the processors unless given.
    #[arg(long)]
    pub threads: Option<usize>,
    /// Processors to bind them to, in turn, as in 2,3.
    #[arg(long, value_delimiter = ',')]
    pub cores: Vec<usize>,
    /// What chance follows from. Without it, from the clock: the server takes hits of a seed that
    /// it has seen for repeated ones.
    #[arg(long)]
    pub seed: Option<u64>,
    /// The server's admin address, whose /metrics are read once a second: http://127.0.0.1:8081.
    #[arg(long)]
    pub admin: Option<String>,
    /// A file with the token for it; or it stands in MIKOMI_LOADTEST_ADMIN_TOKEN.
    #[arg(long)]
    pub admin_token_file: Option<PathBuf>,
    /// The token itself.
    #[arg(
        long = "admin-token",
        env = "MIKOMI_LOADTEST_ADMIN_TOKEN",
        hide = true,
        hide_env_values = true
    )]
    pub admin_token: Option<String>,
    /// The server's process, if it is on this machine.
    #[arg(long)]
    pub server_pid: Option<u32>,
}

/// What comes of it.
#[derive(Clone, Args)]
pub struct Output {
    /// An objective, as p99<10ms, service.p50<2ms, errors=0, errors<0.1% or rate>4900, and with
    /// --truth lost=0, wrong=0 or alert.p99<50ms; several may be given.
    #[arg(long = "slo")]
    pub slos: Vec<Slo>,
    /// The longest lag of the generator at its 99th percentile; beyond it the run is INVALID.
    #[arg(long, default_value = "5ms", value_parser = seconds)]
    pub lag_max: f64,
    /// What people call it.
    #[arg(long)]
    pub name: Option<String>,
    /// Write the report here as JSON; `merge` and `compare` read it.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Write it here as one page.
    #[arg(long)]
    pub html: Option<PathBuf>,
    /// Write its intervals here as a log of HdrHistogram.
    #[arg(long)]
    pub hlog: Option<PathBuf>,
    /// No progress.
    #[arg(long, short)]
    pub quiet: bool,
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches('%').trim().parse().ok();
    let number = number.filter(|it: &f64| it.is_finite() && *it >= 0.0);
    number.ok_or_else(|| format!("\"{text}\" is no percentage from 0 up"))
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let wrong = || format!("\"{text}\" is no header: write \"Name: value\"");
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let name = name.trim().parse().map_err(|_| wrong())?;
    Ok((name, value.trim().parse().map_err(|_| wrong())?))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_words_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_percentage_is_0_or_more_with_its_sign_or_without() {
        assert_eq!((percent("5"), percent("2.5 %")), (Ok(5.0), Ok(2.5)));
        assert!(percent("-1").is_err() && percent("much").is_err() && percent("inf").is_err());
    }

    #[test]
    fn a_header_has_a_name_and_a_value() {
        assert_eq!(header("X-Key: a:b").unwrap().1, "a:b");
        assert!(header("nothing").is_err() && header("a b: c").is_err());
    }
}
