//! One run, from the words to the report.

use std::fs;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use hyper::http::{HeaderName, HeaderValue};
use hyper::{Method, Uri};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::Outcome;
use crate::cli::{self, Content, Output, Replay, Run, Sending};
use crate::clock::since_1970;
use crate::connection::Target;
use crate::load::{self, Load};
use crate::people::People;
use crate::progress;
use crate::report::{Asked, Report, hlog, html, json, text};
use crate::requests::{self, Line, Requests};
use crate::scenario::Scenario;
use crate::schedule::{Shape, Timetable};
use crate::server::Watch;
use crate::sign::Signer;
use crate::slo::milliseconds;
use crate::source::Source;
use crate::truth::{self, Truth};

/// Connections at most: a machine has so many ports for one address.
const CONNECTIONS_MAX: usize = 60_000;
/// Threads at most.
const THREADS_MAX: usize = 256;
/// Descriptors besides connections.
const OTHER_FILES: u64 = 256;

/// What is sent.
enum Kind {
    People(Box<Scenario>),
    Lines(Arc<[Line]>),
}

impl Kind {
    /// Whether a site's key in it does not look like one for tests.
    fn is_production(&self) -> bool {
        match self {
            Kind::People(scenario) => !scenario.site.contains("test"),
            Kind::Lines(lines) => {
                lines.iter().filter_map(Line::site).any(|site| !site.contains("test"))
            }
        }
    }
}

/// All that one run needs and that several of them may share.
pub struct Plan<'a> {
    kind: Kind,
    headers: Vec<(HeaderName, HeaderValue)>,
    sending: &'a Sending,
    output: &'a Output,
    target: Target,
    watch: Watch,
    threads: usize,
    seed: u64,
    words: String,
    token: Option<String>,
    signer: Option<Signer>,
    truth: Option<Truth>,
}

/// `run`.
pub fn run(run: &Run) -> Result<Outcome, String> {
    let plan = Plan::new(&run.content, &run.sending, &run.output)?.held_against(&run.truth)?;
    let report = plan.play(&run.load, 0)?;
    print!("{}", text::write(&report));
    plan.keep(&report)
}

/// `replay`.
pub fn replay(replay: &Replay) -> Result<Outcome, String> {
    let (lines, none) = requests::read(&replay.file)?;
    if none > 0 {
        eprintln!("{} lines of {} are no requests", none, replay.file.display());
    }
    if !(replay.speed.is_finite() && replay.speed > 0.0) {
        return Err("--speed is more than 0".to_owned());
    }
    let times: Option<Vec<Duration>> =
        lines.iter().map(|line| line.at.map(|at| at.div_f64(replay.speed))).collect();
    let words = format!("the {} lines of {}", lines.len(), replay.file.display());
    let (sending, output) = (&replay.sending, &replay.output);
    let lines = Kind::Lines(lines.into());
    let plan = Plan::of(lines, words, replay.headers.clone(), sending, output)?;
    let report = match (&replay.load, times) {
        (Some(shape), _) => plan.play(shape, 0)?,
        (None, Some(times)) => plan.play_times(times, replay.speed)?,
        (None, None) => {
            return Err("its lines have no times: say at which rate with --load".to_owned());
        }
    };
    print!("{}", text::write(&report));
    plan.keep(&report)
}

impl<'a> Plan<'a> {
    /// Of the words.
    pub fn new(
        content: &Content,
        sending: &'a Sending,
        output: &'a Output,
    ) -> Result<Plan<'a>, String> {
        let uri: Uri = sending.url.parse().map_err(|error| format!("{}: {error}", sending.url))?;
        let has_path = uri.path_and_query().is_some_and(|path| path.as_str() != "/");
        let one = content.method.is_some() || content.body.is_some() || has_path;
        let headers = content.headers.clone();
        if one {
            let body = Bytes::from(content.body.clone().unwrap_or_default());
            let method = content.method.clone();
            let method = method.unwrap_or(if body.is_empty() { Method::GET } else { Method::POST });
            let words = format!("{method} {}", uri.path());
            let line = Line::of(method, &uri, body)?;
            return Plan::of(Kind::Lines([line].into()), words, headers, sending, output);
        }
        let (path, site) = (content.scenario.as_deref(), content.site.as_deref());
        let scenario = Scenario::open(path, site, content.visitors)?;
        let words = format!(
            "{} of {} visitors of site {}",
            path.map_or("the scenario that is compiled in".into(), |path| path
                .display()
                .to_string()),
            scenario.visitors.count,
            scenario.site
        );
        Plan::of(Kind::People(Box::new(scenario)), words, headers, sending, output)
    }

    fn of(
        kind: Kind,
        words: String,
        headers: Vec<(HeaderName, HeaderValue)>,
        sending: &'a Sending,
        output: &'a Output,
    ) -> Result<Plan<'a>, String> {
        if !(1..=CONNECTIONS_MAX).contains(&sending.connections) {
            return Err(format!("--connections is 1 to {CONNECTIONS_MAX}"));
        }
        if !(0.0..=1.0).contains(&sending.fresh) {
            return Err("--fresh is a share from 0 to 1".to_owned());
        }
        let processors = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = sending.threads.unwrap_or((processors / 2).max(1));
        if !(1..=THREADS_MAX).contains(&threads) {
            return Err(format!("--threads is 1 to {THREADS_MAX}"));
        }
        let token = match &sending.admin_token_file {
            Some(path) => {
                let text = fs::read_to_string(path);
                Some(text.map_err(|error| format!("{}: {error}", path.display()))?)
            }
            None => sending.admin_token.clone(),
        };
        let token = token.map(|token| token.trim().to_owned());
        let clock = since_1970();
        // Short enough to be typed again.
        let seed = sending.seed.unwrap_or(clock.as_micros() as u64 % 1_000_000_000);
        let target = Target::new(&sending.url, sending.ca.as_deref())?;
        if !target.is_local() && !sending.production && kind.is_production() {
            return Err(
                "a site's key is none for tests (\"test\" is not in it), and the target is \
                        another machine: people who do not exist would reach sales. Say \
                        --production if that is meant"
                    .to_owned(),
            );
        }
        let watch = Watch::new(sending.admin.as_deref(), token.clone(), sending.server_pid)?;
        room_for(sending.connections as u64 + OTHER_FILES);
        let (signer, truth) = (None, None);
        Ok(Plan {
            kind,
            headers,
            sending,
            output,
            target,
            watch,
            threads,
            seed,
            words,
            token,
            signer,
            truth,
        })
    }

    /// The same, held against a model of some rules, if there are any.
    fn held_against(mut self, words: &cli::Truth) -> Result<Plan<'a>, String> {
        let Kind::People(scenario) = &self.kind else {
            let none = words.rules.is_none();
            return none.then_some(self).ok_or("--truth is about a scenario's people".to_owned());
        };
        if let Some(path) = &words.identity_secret_file {
            self.signer = Some(Signer::new(&truth::secret(path)?, &scenario.site_id));
        }
        if let Some(path) = &words.load_token_file {
            let token = truth::secret(path)?.parse();
            let token = token.map_err(|_| format!("{} has no token", path.display()))?;
            self.headers.push((HeaderName::from_static("mikomi-load-token"), token));
        }
        if let Some(rules) = &words.rules {
            let admin = (self.sending.admin.as_deref(), self.token.as_deref());
            self.truth = Some(Truth::open(words, rules, scenario, admin)?);
        }
        Ok(self)
    }

    /// Plays a schedule; `number` says which one of several it is.
    pub fn play(&self, shape: &Shape, number: u64) -> Result<Report, String> {
        let warm = Duration::from_secs_f64(self.sending.warm);
        let arrivals = self.sending.arrivals;
        let words = format!("{shape}, {}", format!("{arrivals:?}").to_lowercase());
        let timetable = Timetable::Rates(shape.after(self.sending.warm), arrivals);
        self.send(&timetable, warm, words, number)
    }

    fn play_times(&self, times: Vec<Duration>, speed: f64) -> Result<Report, String> {
        let words = format!("the times of the log, {speed} times as fast");
        self.send(&Timetable::Times(times.into()), Duration::ZERO, words, 0)
    }

    fn send(
        &self,
        timetable: &Timetable,
        warm: Duration,
        schedule: String,
        number: u64,
    ) -> Result<Report, String> {
        let seed = self.seed.wrapping_add(number);
        let load = Load {
            target: self.target.clone(),
            timetable: timetable.clone(),
            warm,
            seed,
            connections: self.sending.connections,
            fresh: self.sending.fresh,
            patience: Duration::from_secs_f64(self.sending.timeout),
            lag_max: Duration::from_secs_f64(self.output.lag_max),
            cores: self.sending.cores.clone(),
        };
        let sources = self.sources(seed)?;
        let (ticks, told) = mpsc::channel();
        let quiet = self.output.quiet;
        let shown = progress::show(told, self.threads, timetable.clone(), warm, quiet);
        let (stop, stopped) = mpsc::channel();
        let (loaded, looks) = thread::scope(|scope| {
            let watching = scope.spawn(move || self.watch.run(&stopped));
            let loaded = load::run(&load, sources, &ticks);
            drop(stop);
            (loaded, watching.join().unwrap_or_default())
        });
        drop(ticks);
        // It only shows.
        drop(shown.join());
        let mut loaded = loaded.map_err(|error| format!("{}: {error}", self.target.origin))?;
        let logs = std::mem::take(&mut loaded.logs);
        let found = self.truth.as_ref().map(|truth| truth.judge(logs)).transpose()?;
        let asked = Asked {
            target: self.target.origin.clone(),
            requests: self.words.clone(),
            schedule,
            warm_s: warm.as_secs_f64(),
            seed,
            connections: self.sending.connections as u64,
            threads: self.threads as u64,
            timeout_s: self.sending.timeout,
            lag_max_us: (self.output.lag_max * 1e6) as u64,
        };
        let name = self.output.name.clone();
        let name = name.unwrap_or_else(|| format!("{} at {}", asked.schedule, asked.target));
        let slos = &self.output.slos;
        let mut report = Report::new((name, asked), &loaded, timetable, slos, looks);
        report.truth = found;
        report.judge(slos);
        Ok(report)
    }

    fn sources(&self, seed: u64) -> Result<Vec<Source>, String> {
        let host = HeaderValue::from_str(self.target.authority.as_str());
        let host = host.map_err(|error| error.to_string())?;
        let source = |number| {
            let (numbers, host, headers) =
                ((number, self.threads), host.clone(), self.headers.clone());
            match &self.kind {
                Kind::People(scenario) => {
                    let people = People::new(scenario, numbers, seed, host, headers);
                    let log = self.truth.as_ref().map(Truth::log);
                    Source::People(Box::new(people.signed(self.signer.clone()).logged(log)))
                }
                Kind::Lines(lines) => {
                    Source::Requests(Requests::new(Arc::clone(lines), numbers, host, headers))
                }
            }
        };
        Ok((0..self.threads).map(source).collect())
    }

    /// Writes the files that were asked for; what the report comes to.
    pub fn keep(&self, report: &Report) -> Result<Outcome, String> {
        keep(report, self.output)
    }
}

/// Writes the files that were asked for; what the report comes to.
pub fn keep(report: &Report, output: &Output) -> Result<Outcome, String> {
    if let Some(path) = &output.json {
        write(path, json::write(report)?.as_bytes())?;
    }
    if let Some(path) = &output.html {
        write(path, html::write(report)?.as_bytes())?;
    }
    if let Some(path) = &output.hlog {
        write(path, &hlog::write(report)?)?;
    }
    if !report.is_valid() {
        if std::io::stderr().is_terminal() {
            let lag = milliseconds(report.generator.lag.p99_us as f64);
            eprintln!(
                "INVALID: the generator lagged {lag} at p99; send less, or with more threads"
            );
        }
        return Ok(Outcome::Invalid);
    }
    Ok(if report.is_met() { Outcome::Met } else { Outcome::Missed })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    fs::write(path, bytes).map_err(|error| format!("{}: {error}", path.display()))
}

/// Lets this process have so many files open, as far as it may.
fn room_for(files: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    if limit.current.is_some_and(|current| current < files) {
        limit.current = Some(files.min(most));
        // Where it is refused, opening the connections says so.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}
