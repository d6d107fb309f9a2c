//! Probes: what `./measure` needs of a client besides load on a schedule. Load at little cost,
//! forged cookies, a witness of kills, and receivers of webhooks, good ones and bad ones. Each
//! prints what it saw as one line of JSON; judging it is left to `./measure`.

mod alerts;
mod browse;
mod client;
mod drive;
mod flood;
mod forge;
mod gif;
mod history;
mod hits;
pub mod http;
mod log;
mod receipts;
mod receive;
mod stub;
mod told;
mod visitors;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use serde_json::Value;

/// The probes.
#[derive(Subcommand)]
pub enum Command {
    /// Visit so often that this many visitors are known, and write their cookies, one a line.
    Visitors {
        /// How many.
        #[arg(long)]
        count: usize,
        /// Where their cookies are written.
        #[arg(long)]
        out: PathBuf,
    },
    /// Send hits of known visitors as fast as they are answered, for some seconds.
    Hits {
        /// What carries them.
        #[arg(long, value_enum, default_value_t = hits::Form::Pixel)]
        form: hits::Form,
        /// Cookies as `visitors` wrote them.
        #[arg(long)]
        cookies: PathBuf,
        /// Another cookie that every request carries.
        #[arg(long, default_value = "")]
        other_cookie: String,
        /// Connections kept open, one request in flight on each.
        #[arg(long, default_value_t = 256)]
        connections: usize,
        /// Milliseconds before counting begins.
        #[arg(long)]
        warm_ms: u64,
        /// Milliseconds counted.
        #[arg(long)]
        count_ms: u64,
        /// Processes whose CPU time is counted.
        #[arg(long, value_delimiter = ',')]
        pids: Vec<u32>,
    },
    /// Send edited, foreign and invented cookies.
    Forge {
        /// Genuine cookies of this installation.
        #[arg(long)]
        genuine: PathBuf,
        /// Genuine cookies of another one.
        #[arg(long)]
        foreign: PathBuf,
        /// How many to send.
        #[arg(long)]
        count: u64,
    },
    /// Send genuine cookies once each.
    Recall {
        /// Cookies as `visitors` wrote them.
        #[arg(long)]
        cookies: PathBuf,
    },
    /// Send without a cookie, each from an address of its own.
    Flood {
        /// Hits of how many.
        #[arg(long)]
        count: u32,
        /// How many came before: addresses and mails go on from there.
        #[arg(long)]
        first: u32,
        /// Each says who it is, with a mail address of its own.
        #[arg(long)]
        identify: bool,
    },
    /// Send visits of known visitors, ten hits each, every fourth visitor with a name.
    History {
        /// Cookies as `visitors` wrote them.
        #[arg(long)]
        cookies: PathBuf,
        /// Visits.
        #[arg(long)]
        visits: u64,
        /// How many came before: visitors and hits go on from there.
        #[arg(long)]
        first: u64,
    },
    /// Send the hits of an access log, in its order for everybody, as fast as they are answered.
    Log {
        /// `VISITOR<tab>QUERY<tab>AGENT` a line.
        #[arg(long)]
        file: PathBuf,
        /// How often, each time by new visitors.
        #[arg(long, default_value_t = 1)]
        laps: usize,
    },
    /// Browse until standard input ends, through any number of crashes, and write down what was
    /// acknowledged and what the receiver was told.
    Browse {
        /// Where the receiver listens; without it somebody else takes the webhooks.
        #[arg(long)]
        receiver: Option<SocketAddr>,
        /// Where the account is written, tab-separated.
        #[arg(long)]
        out: PathBuf,
        /// Hits a second, at most.
        #[arg(long, default_value_t = 3_000)]
        rate: u32,
    },
    /// Make leads cross the line at a steady rate, and time their webhooks.
    Alerts {
        /// Where the receiver listens.
        #[arg(long)]
        receiver: SocketAddr,
        /// How many leads.
        #[arg(long)]
        crossings: usize,
        /// How many came before: mails go on from there.
        #[arg(long, default_value_t = 0)]
        first: usize,
        /// How many a second.
        #[arg(long, default_value_t = 100)]
        rate: u32,
    },
    /// Answer every request, in a known way, until standard input ends.
    Stub {
        /// Where to listen.
        #[arg(long)]
        listen: SocketAddr,
        /// Stalls so long...
        #[arg(long, default_value_t = 0)]
        stall_ms: u64,
        /// ...at the beginning of every so many milliseconds: what arrives then is answered after.
        #[arg(long, default_value_t = 10_000)]
        every_ms: u64,
        /// Requests a second that it is able to answer, with a queue in front; without it, all.
        #[arg(long)]
        capacity: Option<u32>,
        /// How long each takes besides.
        #[arg(long, default_value_t = 0)]
        delay_ms: u64,
    },
    /// Answer every request with a GIF and do nothing else, on one thread, until standard input
    /// ends: what HTTP alone costs.
    Gif {
        /// Where to listen.
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Send hits of known visitors and write down the receipts that are asked for, one a line.
    Receipts {
        /// Cookies as `visitors` wrote them.
        #[arg(long)]
        cookies: PathBuf,
        /// How many hits.
        #[arg(long)]
        count: u64,
        /// The collector's load token.
        #[arg(long)]
        token: String,
        /// Where the receipts are written.
        #[arg(long)]
        out: PathBuf,
    },
    /// Take webhooks until standard input ends, well or badly, and write each down.
    Receive {
        /// How and where: good, slow_to_take, hanging, resetting or endless, "=", an address.
        #[arg(long = "receiver", required = true)]
        receivers: Vec<receive::Place>,
        /// Where they are written, tab-separated.
        #[arg(long)]
        out: PathBuf,
    },
}

/// Why a probe could not do its work.
#[derive(Debug)]
pub enum Failure {
    /// A file or socket of ours.
    Io(std::io::Error),
    /// The server answered with something else than it should have.
    Answer(String),
    /// A file does not hold what it should.
    Input(&'static str),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::Io(error)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Answer(what) => write!(f, "the server answered {what}"),
            Self::Input(what) => f.write_str(what),
        }
    }
}

/// Runs one; all that it draws follows from the seed.
pub fn run(command: Command, target: SocketAddr, seed: u64) -> Result<Value, Failure> {
    match command {
        Command::Visitors { count, out } => visitors::make(target, count, &out),
        Command::Hits { form, cookies, other_cookie, connections, warm_ms, count_ms, pids } => {
            let (warm, count) = (Duration::from_millis(warm_ms), Duration::from_millis(count_ms));
            let (other_cookie, pids) = (&*other_cookie, &*pids);
            let round = hits::Round { form, other_cookie, connections, warm, count, pids, seed };
            hits::run(target, &visitors::Cookies::read(&cookies)?, &round)
        }
        Command::Gif { listen } => gif::run(listen),
        Command::Forge { genuine, foreign, count } => {
            let (genuine, foreign) = (visitors::read(&genuine)?, visitors::read(&foreign)?);
            forge::run(target, genuine, foreign, count, seed)
        }
        Command::Recall { cookies } => forge::recall(target, visitors::read(&cookies)?),
        Command::Flood { count, first, identify } => flood::run(target, first, count, identify),
        Command::History { cookies, visits, first } => {
            history::run(target, visitors::read(&cookies)?, (first, visits), seed)
        }
        Command::Log { file, laps } => log::run(target, &file, laps, seed),
        Command::Browse { receiver, out, rate } => browse::run(target, receiver, &out, rate, seed),
        Command::Alerts { receiver, crossings, first, rate } => {
            let leads = alerts::Leads { first, count: crossings };
            alerts::run(target, receiver, leads, rate)
        }
        Command::Stub { listen, stall_ms, every_ms, capacity, delay_ms } => {
            let ms = Duration::from_millis;
            let manner = stub::Manner {
                stall: ms(stall_ms),
                every: ms(every_ms.max(1)),
                one: capacity.map_or(Duration::ZERO, |it| Duration::from_secs(1) / it.max(1)),
                delay: ms(delay_ms),
            };
            stub::run(listen, manner)
        }
        Command::Receipts { cookies, count, token, out } => {
            receipts::run(target, visitors::read(&cookies)?, (count, &token), &out, seed)
        }
        Command::Receive { receivers, out } => receive::run(&receivers, &out),
    }
}
