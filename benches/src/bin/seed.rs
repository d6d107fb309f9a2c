//! A data folder as a site of some size leaves it: visitors with two hits each over thirty days,
//! the first recorded on its own and embedded in the second, and one in twenty who says who they
//! are. Written by the running parts themselves, without HTTP.
//!
//!     seed FOLDER VISITORS [--append] [--cookies FILE]
//!
//! Prints one line of JSON: what is in it and how long it took. With `--append` it goes on in a
//! folder that was seeded before, as if a day had passed. With `--cookies` it writes the cookies
//! by which these visitors come back, one a line.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use benches::mixed;
use collector::app::App;
use collector::config::Files;
use collector::cookie::VisitorCookie;
use collector::seal::attributes_to_bytes;
use collector::serve::{self, Options};
use engine::attribute::Attributes;
use engine::engine::{Arrival, Ingested};
use engine::hit::{Claim, Hit, HitKind, Named};
use engine::id::{LeadId, Position, SiteId, VisitorId};
use engine::identity::{Assurance, IdentityKind};
use engine::record::{FirstHit, Record};
use engine::time::Timestamp;
use serde_json::json;

const PATHS: [&str; 10] = [
    "/",
    "/column/dx",
    "/column/ai",
    "/news",
    "/company",
    "/case/line",
    "/product/a",
    "/product/b",
    "/library",
    "/pricing/",
];
const NAMED_EVERY: u64 = 20;
const OVER_MS: u64 = 30 * 24 * 3_600_000;
const DAY_MS: u64 = 24 * 3_600_000;
/// Room that one hit's records take at most.
const RESERVED: (usize, usize) = (8, 64 * 1_024);
/// Bytes that may wait for the disk before the next hit does.
const WAITING_MAX: u64 = 32 * 1_024 * 1_024;

fn visitor(number: u64) -> VisitorId {
    VisitorId(u128::from(mixed(number)) << 64 | u128::from(mixed(!number)))
}

fn hit(number: u64, at: Timestamp) -> Hit {
    let path = PATHS[(mixed(number ^ at.0) % PATHS.len() as u64) as usize];
    Hit {
        site: SiteId(0),
        visitor: Some(visitor(number)),
        received: at,
        when: at,
        path: engine::glob::normal_path(path).to_owned(),
        url: format!("https://www.site.example{path}"),
        title: "サンプル株式会社".to_owned(),
        id: mixed(number ^ 7 ^ at.0),
        page: mixed(number ^ 9 ^ at.0),
        network: "192.0.2.0/24".to_owned(),
        agent: "desktop".to_owned(),
        ..Hit::default()
    }
}

/// What the visitor says of who they are.
fn claim(app: &App, number: u64) -> Result<Claim, String> {
    let id = LeadId(mixed(number ^ 0x5eed));
    let attributes: Attributes = [
        ("email".to_owned(), format!("m{number}@people.example")),
        ("name".to_owned(), format!("見本 {number}")),
    ]
    .into();
    let sealed = app.sealer.seal(id, &attributes_to_bytes(&attributes));
    let name = Named { kind: IdentityKind::Email, id, assurance: Assurance::Claimed };
    let sealed = sealed.map_err(|error| error.to_string())?;
    Ok(Claim { names: vec![name], attributes, sealed, ..Claim::default() })
}

fn push(app: &App, act: impl FnOnce(&mut dyn FnMut(&Record) -> Position)) -> Result<(), String> {
    let mut reserved = loop {
        let waiting = app.journal.figures().pending_bytes;
        if waiting > WAITING_MAX {
            let last = app.journal.pushed();
            app.journal.wait_blocking(last).map_err(|why| format!("{why:?}"))?;
            continue;
        }
        break app.journal.reserve(RESERVED.0, RESERVED.1).map_err(|why| format!("{why:?}"))?;
    };
    let mut bytes = Vec::new();
    act(&mut |record| {
        bytes.clear();
        record.encode(&mut bytes);
        reserved.push(&bytes)
    });
    Ok(())
}

fn visit(app: &App, number: u64, at: Timestamp) -> Result<(), String> {
    let scoring = app.scoring.load();
    let first = hit(number, at);
    let mut position = Position::NONE;
    push(app, |push| {
        // Only recorded: a visitor is admitted when they come back.
        let alone = Hit { visitor: None, ..first.clone() };
        let arrival = Arrival { hit: alone, first: None };
        if let Ingested::Recorded(at) = app.engine.ingest(arrival, &scoring.scoring, push) {
            position = at;
        }
    })?;
    let mut second = hit(number, Timestamp(at.0 + 40_000));
    if number.is_multiple_of(NAMED_EVERY) {
        second.kind = HitKind::Identify;
        second.claim = Some(claim(app, number)?);
    }
    let first = Some(FirstHit { position, hit: first });
    push(app, |push| {
        let _ = app.engine.ingest(Arrival { hit: second, first }, &scoring.scoring, push);
    })
}

/// Of visitors `from..until`, as they were given on their second visit.
fn write_cookies(app: &App, path: &Path, (from, until): (u64, u64)) -> Result<(), String> {
    let site = app.sites.find("demo").ok_or("there is no site to come back to")?;
    let now = app.clock.now();
    let write = || {
        let mut file = BufWriter::new(File::create(path)?);
        for number in from..until {
            // What ties an id to its site also unties it.
            let raw = site.visitor(visitor(number).0).0;
            let cookie = VisitorCookie::issue(raw, None, now).sign(&app.install.cookie);
            writeln!(file, "{cookie}")?;
        }
        file.flush()
    };
    write().map_err(|error: std::io::Error| format!("{}: {error}", path.display()))
}

fn run(folder: PathBuf, visitors: u64, append: bool, cookies: Option<&Path>) -> Result<(), String> {
    let options = Options {
        data: Some(folder),
        files: Some(Files::default()),
        any_port: true,
        ..Options::default()
    };
    let running = serve::start(&options).map_err(|error| error.to_string())?;
    let app = &running.app;
    let now = app.clock.now().0;
    let known = app.engine.sizes().0 as u64;
    let over = if append { DAY_MS } else { OVER_MS };
    let began = now - over;
    let started = Instant::now();
    for number in 0..visitors {
        let at = began + (u128::from(over) * u128::from(number) / u128::from(visitors)) as u64;
        visit(app, known + number, Timestamp(at))?;
    }
    let took_s = started.elapsed().as_secs_f64();
    if let Some(path) = cookies {
        write_cookies(app, path, (known, known + visitors))?;
    }
    let (visitors, leads) = app.engine.sizes();
    let journal_bytes = app.journal.figures().journal_bytes;
    running.stop().map_err(|why| format!("{why:?}"))?;
    let said = json!({
        "visitors": visitors, "leads": leads, "journal_bytes": journal_bytes, "took_s": took_s,
    });
    println!("{said}");
    Ok(())
}

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let append = arguments.iter().any(|it| it == "--append");
    arguments.retain(|it| it != "--append");
    let cookies = arguments.iter().position(|it| it == "--cookies");
    let cookies = cookies.filter(|at| at + 1 < arguments.len()).map(|at| {
        arguments.remove(at);
        PathBuf::from(arguments.remove(at))
    });
    let visitors = arguments.get(1).and_then(|it| it.parse().ok());
    let (Some(folder), Some(visitors), 2) = (arguments.first(), visitors, arguments.len()) else {
        eprintln!("seed FOLDER VISITORS [--append] [--cookies FILE]");
        return ExitCode::FAILURE;
    };
    match run(PathBuf::from(folder), visitors, append, cookies.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("seed: {why}");
            ExitCode::FAILURE
        }
    }
}
