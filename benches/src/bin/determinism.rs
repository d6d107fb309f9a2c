//! Live is replay, measured: random lives of an installation, each under one to eight threads,
//! must leave journals that alone lead back to the same state, with 2, 8 and 1,024 locks a map,
//! however often the process is thrown away on the way. Every twentieth journal is also written
//! to a disk in segments and read by the reader in Python that knows nothing but FORMAT.md.
//!
//!     determinism [--short] [--journals N] [--seed S]
//!
//! Prints the counts, and the seed of every failure; the exit status is 1 if there was any.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use collector::config::{DEFAULT_SCORING, NameKind as ConfiguredKind, ScoringFile};
use collector::journal::committer::Now;
use collector::journal::disk::RealDisk;
use collector::journal::{Hooks, Journal, Options};
use collector::seal::attributes_to_bytes;
use collector::timeline::unseal_hits;
use engine::engine::{Arrival, Engine};
use engine::hit::{Attributes, Claim, Exclusion, Hit, HitKind};
use engine::id::{Key, LeadId, Position, SiteId, VisitorId};
use engine::identity::{Assurance, Identity, IdentityKind};
use engine::ledger::{self, Cut, Row, Source};
use engine::record::{Body, FirstHit, HitRecord, NameKind, Published, PublishedCategory, Record};
use engine::scoring::Scoring;
use engine::time::Timestamp;
use serde_json::{Value, json};

const JOURNALS: u64 = 1_000;
const JOURNALS_SHORT: u64 = 60;
/// Every so many journals, one is read by the other program too.
const READ_EVERY: u64 = 20;
/// Every so many, one is a long one.
const LONG_EVERY: u64 = 200;
/// The numbers of locks a map is divided into.
const SHARDS: [usize; 3] = [2, 8, 1_024];
const THREADS_MAX: u64 = 8;
const ROUNDS: u64 = 6;
const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;
const START: Timestamp = Timestamp(1_796_083_200_000);
/// Browsers that are seen for the first time have numbers from here on.
const NEW_VISITORS: std::ops::Range<u64> = 100..300;
const INSTALL: [u8; 16] = *b"determinism runs";
const PATHS: [&str; 11] = [
    "/column/dx",
    "/case/line",
    "/product/a",
    "/product/b",
    "/product/c",
    "/pricing",
    "/thanks/document/guide",
    "/thanks/contact",
    "/thanks/trial/a",
    "/careers",
    "/thanks/careers",
];
const EVENTS: [&str; 4] = ["download", "mail_click", "unsubscribe", "upgrade_click"];

/// A stream of numbers from a seed (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len() as u64) as usize]
    }
}

/// How large a life is.
#[derive(Clone, Copy)]
struct Size {
    /// Steps of one round, over all threads.
    steps: u64,
    visitors: u64,
    people: u64,
    /// How often in a hundred a browser's hit is late.
    late_percent: u64,
    /// How late a server may tell something.
    server_late: u64,
}

/// Short and crowded.
const USUAL: Size =
    Size { steps: 60, visitors: 12, people: 4, late_percent: 25, server_late: 40 * DAY };
/// One person's, so long that the oldest rows of their ledger fold.
const LONG: Size =
    Size { steps: 1_500, visitors: 2, people: 1, late_percent: 1, server_late: HOUR };

/// One random life: an engine under many threads, and its journal in memory.
struct Life {
    size: Size,
    engine: Engine,
    records: Mutex<Vec<Vec<u8>>>,
    scoring: RwLock<Arc<Scoring>>,
    /// First hits of browsers that may come back.
    pending: Mutex<Vec<FirstHit>>,
    now: AtomicU64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hidden well enough for a test, and undone by the same again.
fn disguise(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| byte ^ 0xa5).collect()
}

fn decode(bytes: &[u8]) -> Result<Record, String> {
    let mut record = Record::decode(bytes).map_err(|error| error.to_string())?;
    if let Body::Hit(hit) = &mut record.body {
        unseal_hits(hit, |_, sealed| Some(disguise(sealed)));
    }
    Ok(record)
}

fn replay(records: &[Vec<u8>], shards: usize) -> Result<Engine, String> {
    let engine = Engine::new(shards);
    for (index, bytes) in records.iter().enumerate() {
        engine.evolve(&decode(bytes)?, Position::new(0, index as u64 + 1));
    }
    Ok(engine)
}

fn browser(number: u64) -> VisitorId {
    let high = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    VisitorId(u128::from(high) << 64 | u128::from(number))
}

impl Life {
    fn new(size: Size, shards: usize, chance: &mut Chance) -> Result<Life, String> {
        let engine = Engine::new(shards);
        let (scoring, published) = publish_file(&engine, &vary(chance), 1)?;
        let life = Life {
            engine,
            size,
            records: Mutex::default(),
            scoring: RwLock::new(Arc::new(scoring)),
            pending: Mutex::default(),
            now: AtomicU64::new(START.0),
        };
        life.engine.publish(published, START, &mut |record| life.push(record));
        Ok(life)
    }

    fn push(&self, record: &Record) -> Position {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        let mut records = locked(&self.records);
        records.push(bytes);
        Position::new(0, records.len() as u64)
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::SeqCst))
    }

    fn scoring(&self) -> Arc<Scoring> {
        Arc::clone(&self.scoring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// One version more, of other rules, lines and half-lives.
    fn publish(&self, chance: &mut Chance) -> Result<(), String> {
        let version = self.engine.catalog().version + 1;
        let (scoring, published) = publish_file(&self.engine, &vary(chance), version)?;
        self.engine.publish(published, self.now(), &mut |record| self.push(record));
        self.engine.rebuild_timers(&scoring);
        *self.scoring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(scoring);
        Ok(())
    }

    /// One of several threads at once; the first also turns the clock and changes the rules.
    fn work(&self, steps: u64, is_first: bool, chance: &mut Chance) -> Result<(), String> {
        for _ in 0..steps {
            let now = self.now.fetch_add(chance.below(HOUR / 2), Ordering::SeqCst);
            let now = Timestamp(now);
            match chance.below(40) {
                0 if is_first => self.publish(chance)?,
                0..4 => {
                    self.engine.advance(now, &self.scoring(), &mut |record| self.push(record));
                }
                4 => self.engine.sweep(now),
                5..9 => self.record_first(now, chance),
                9..13 => self.admit(now, chance),
                _ => self.ingest(Arrival { hit: self.random_hit(now, chance), first: None }),
            }
        }
        Ok(())
    }

    fn ingest(&self, arrival: Arrival) {
        self.engine.ingest(arrival, &self.scoring(), &mut |record| self.push(record));
    }

    /// A browser never seen: its hit is only recorded.
    fn record_first(&self, now: Timestamp, chance: &mut Chance) {
        let mut hit = self.random_hit(now, chance);
        hit.visitor = Some(browser(NEW_VISITORS.start + chance.below(200)));
        let body = Body::Hit(Box::new(HitRecord { hit: hit.clone(), ..HitRecord::default() }));
        let position = self.push(&Record { time: now, version: self.scoring().version, body });
        locked(&self.pending).push(FirstHit { position, hit });
    }

    /// A browser that comes back, sometimes in two tabs at once.
    fn admit(&self, now: Timestamp, chance: &mut Chance) {
        let first = {
            let mut pending = locked(&self.pending);
            let count = pending.len() as u64;
            let place = chance.below(count.max(1)) as usize;
            if chance.percent(30) { pending.get(place).cloned() } else { pending.pop() }
        };
        let mut hit = self.random_hit(now, chance);
        hit.visitor = first.as_ref().map_or(hit.visitor, |first| first.hit.visitor);
        self.ingest(Arrival { hit, first });
    }

    fn random_hit(&self, now: Timestamp, chance: &mut Chance) -> Hit {
        let late = if chance.percent(self.size.late_percent) { chance.below(DAY) } else { 0 };
        let mut hit = Hit {
            site: SiteId(chance.below(2) as u16),
            visitor: Some(browser(chance.below(self.size.visitors))),
            received: now,
            when: now.minus(Duration::from_millis(late)),
            path: chance.pick(&PATHS).to_owned(),
            title: "料金".into(),
            network: "192.0.2.0/24".into(),
            id: chance.below(4_000),
            page: chance.below(20),
            authenticated: chance.percent(5),
            excluded: chance.percent(3).then_some(Exclusion::Robot),
            ..Hit::default()
        };
        match chance.below(20) {
            0..10 => {}
            10..13 => {
                hit.kind = HitKind::Engagement;
                hit.engaged_ms = chance.below(120_000) as u32;
            }
            13 | 14 => {
                hit.kind = HitKind::Event;
                chance.pick(&EVENTS).clone_into(&mut hit.event);
            }
            15 if self.size.people > 1 => hit.kind = HitKind::Reset,
            16..18 => {
                hit.kind = HitKind::Identify;
                hit.claim = Some(self.claim(Assurance::Claimed, chance));
            }
            _ => {
                // A server tells, perhaps late, what a person did; of a browser or of none.
                hit.by_server = true;
                hit.kind = HitKind::Event;
                chance.pick(&EVENTS).clone_into(&mut hit.event);
                hit.claim = Some(self.claim(Assurance::Verified, chance));
                hit.when = now.minus(Duration::from_millis(chance.below(self.size.server_late)));
                hit.visitor = hit.visitor.filter(|_| chance.percent(30));
            }
        }
        hit
    }

    fn claim(&self, assurance: Assurance, chance: &mut Chance) -> Claim {
        let mail = format!("person{}@sample-seiki.example", chance.below(self.size.people));
        let other = self.size.people > 1 && chance.percent(15);
        let kind = if other { IdentityKind::UserId } else { IdentityKind::Email };
        let lead =
            Identity::parse(kind, &mail).map(|identity| identity.lead(&Key(INSTALL), "site"));
        let title = ["部長", "課長", "Director"][chance.below(3) as usize];
        let attributes: Attributes =
            [("email".to_owned(), mail), ("title".to_owned(), title.to_owned())].into();
        Claim {
            lead: lead.unwrap_or_default(),
            kind: Some(kind),
            assurance,
            consent: chance.percent(20).then(|| chance.percent(70)),
            sealed: disguise(&attributes_to_bytes(&attributes)),
            attributes,
        }
    }

    /// The process is gone; the next one knows what the journal says.
    fn restart(&mut self, shards: usize) -> Result<(), String> {
        let recovered = replay(&locked(&self.records), shards)?;
        let (before, after) =
            (self.engine.state_hash(self.now()), recovered.state_hash(self.now()));
        if before != after {
            return Err(format!("recovery with {shards} shards: {before:032x} {after:032x}"));
        }
        recovered.rebuild_timers(&self.scoring());
        self.engine = recovered;
        Ok(())
    }
}

/// A rule file with other numbers: points, half-lives, lines, limits; sometimes fewer rules.
fn vary(chance: &mut Chance) -> String {
    let mut text = DEFAULT_SCORING.to_owned();
    let mut edit = |from: &str, to: String| {
        if chance.percent(40) {
            text = text.replacen(from, &to, 1);
        }
    };
    edit("half_life = \"14d\", max = 80", "half_life = \"9d\", max = 45".to_owned());
    edit("half_life = \"30d\", max = 50", "half_life = \"21d\", max = 30".to_owned());
    edit("total_max  = 100", "total_max  = 70".to_owned());
    edit("\nmax  = 80", "\nmax  = 25".to_owned());
    edit(
        "rise = 60, fall = 40, dwell = \"24h\"",
        "rise = 45, fall = 25, dwell = \"2h\"".to_owned(),
    );
    edit("category = \"intent\", max = 36", "category = \"interest\", max = 20".to_owned());
    edit("  { id = \"compared\"", "  # { id = \"compared\"".to_owned());
    edit("id = \"document\", points = 20", "id = \"document\", points = 35".to_owned());
    text
}

fn publish_file(engine: &Engine, text: &str, version: u32) -> Result<(Scoring, Published), String> {
    let file = ScoringFile::parse("scoring.toml", text).map_err(|problems| {
        problems.iter().fold(String::new(), |mut all, problem| {
            let _ = writeln!(all, "{problem}");
            all
        })
    })?;
    let (catalog, mut names) = (engine.catalog(), Vec::new());
    let scoring = file.publish(version, &mut |kind, name| {
        let kind = match kind {
            ConfiguredKind::Rule => NameKind::Rule,
            ConfiguredKind::Category => NameKind::Category,
            ConfiguredKind::Threshold => NameKind::Threshold,
        };
        catalog.intern(&mut names, kind, name)
    });
    let scoring = scoring.map_err(|problem| problem.to_string())?;
    let categories = scoring.categories.iter().map(|category| PublishedCategory {
        id: category.id,
        half_life: category.half_life,
        in_total: category.in_total,
    });
    let categories = categories.collect();
    Ok((scoring, Published { version, names, categories, text: text.as_bytes().to_vec() }))
}

/// What one life came to.
#[derive(Default)]
struct Outcome {
    records: usize,
    leads: usize,
    /// Ledgers whose oldest rows folded.
    folds: usize,
    restarts: u64,
    /// Ledgers that the other program agreed on.
    read: usize,
}

fn live_and_compare(seed: u64) -> Result<Outcome, String> {
    let mut chance = Chance(seed.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(seed));
    let threads = 1 + seed % THREADS_MAX;
    let mut shards = || SHARDS[chance.below(SHARDS.len() as u64) as usize];
    let (first, second) = (shards(), shards());
    let size = if seed % LONG_EVERY == READ_EVERY { LONG } else { USUAL };
    let mut life = Life::new(size, first, &mut chance)?;
    let mut outcome = Outcome::default();
    for _ in 0..ROUNDS {
        let mut chances: Vec<Chance> = (0..threads).map(|_| Chance(chance.next())).collect();
        thread::scope(|scope| {
            let running: Vec<_> = chances
                .iter_mut()
                .enumerate()
                .map(|(index, chance)| {
                    let life = &life;
                    scope.spawn(move || life.work(size.steps / threads, index == 0, chance))
                })
                .collect();
            running.into_iter().try_for_each(|thread| match thread.join() {
                Ok(worked) => worked,
                Err(_) => Err("a thread panicked".to_owned()),
            })
        })?;
        if chance.percent(40) {
            life.restart(second)?;
            outcome.restarts += 1;
        }
        // All are idle: a long silence does not overtake a hit in flight.
        let silence = if chance.percent(5) { 401 * DAY } else { chance.below(12 * DAY) };
        life.now.fetch_add(silence, Ordering::SeqCst);
    }
    let records = std::mem::take(&mut *locked(&life.records));
    let replayed = compare(&life.engine, &records, life.now())?;
    outcome.records = records.len();
    outcome.leads = replayed.lead_ids().len();
    let has_folded = |id: &LeadId| {
        let lead = replayed.lead(*id);
        lead.is_some_and(|lead| lead.rows.iter().any(|row| row.cut == Cut::Folded))
    };
    outcome.folds = replayed.lead_ids().iter().filter(|id| has_folded(id)).count();
    if seed.is_multiple_of(READ_EVERY) {
        let at = life.now().plus(Duration::from_millis(chance.below(60 * DAY)));
        outcome.read = read_elsewhere(&replayed, &records, &life.scoring(), at)?;
    }
    Ok(outcome)
}

/// The live state against that of the records alone, now and when visitors are forgotten.
fn compare(live: &Engine, records: &[Vec<u8>], now: Timestamp) -> Result<Engine, String> {
    let mut last = None;
    for shards in SHARDS {
        let replayed = replay(records, shards)?;
        for at in [now, now.plus(Duration::from_millis(399 * DAY))] {
            let (before, after) = (live.state_hash(at), replayed.state_hash(at));
            if before != after {
                return Err(format!("replay with {shards} shards: {before:032x} {after:032x}"));
            }
        }
        last = Some(replayed);
    }
    last.ok_or_else(|| "nothing was compared".to_owned())
}

/// Writes the journal in segments, in two runs, and has the other program read it.
fn read_elsewhere(
    engine: &Engine,
    records: &[Vec<u8>],
    scoring: &Scoring,
    at: Timestamp,
) -> Result<usize, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (before, after) = records.split_at(records.len() / 2);
    write_segments(folder.path(), before)?;
    write_segments(folder.path(), after)?;
    let mut python = Command::new("python3");
    python.arg(reader_path()).arg(folder.path()).arg(at.0.to_string());
    let output = python.output().map_err(|error| format!("python3: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let expected = expected_lines(engine, scoring, at);
    let text = String::from_utf8_lossy(&output.stdout);
    let read: Result<Vec<Value>, _> = text.lines().map(serde_json::from_str).collect();
    let read: BTreeSet<String> =
        read.map_err(|error| error.to_string())?.iter().map(Value::to_string).collect();
    match expected.symmetric_difference(&read).next() {
        None => Ok(read.len()),
        Some(differs) => Err(format!("the reader differs: {differs}")),
    }
}

/// What the reader should print: every lead and visitor with its score and rows.
fn expected_lines(engine: &Engine, scoring: &Scoring, at: Timestamp) -> BTreeSet<String> {
    let exact = |rows: &[Row]| ledger::total(rows, scoring).value(at).0;
    let lead = |id: LeadId| {
        let rows = engine.lead(id)?.rows;
        Some(json!({ "lead": id.to_string(), "exact": exact(&rows), "rows": shown(&rows) }))
    };
    let visitor = |id: VisitorId| {
        let rows = engine.visitor(id, at)?.rows;
        Some(json!({ "visitor": id.to_string(), "exact": exact(&rows), "rows": shown(&rows) }))
    };
    let leads = engine.lead_ids().into_iter().filter_map(lead);
    let visitors = (0..NEW_VISITORS.end).map(browser).filter_map(visitor);
    leads.chain(visitors).map(|line| line.to_string()).collect()
}

fn shown(rows: &[Row]) -> Vec<Value> {
    let shown = |row: &Row| {
        let source = match row.source {
            Source::Server => "server".to_owned(),
            Source::Visitor(visitor) => visitor.to_string(),
        };
        json!([
            row.when.0,
            row.position.0,
            row.order,
            row.rule.0,
            row.category.0,
            source,
            row.base.0,
            row.granted.0,
            row.cut as u8,
        ])
    };
    rows.iter().map(shown).collect()
}

fn write_segments(folder: &Path, records: &[Vec<u8>]) -> Result<(), String> {
    let disk = RealDisk::open(folder).map_err(|error| error.to_string())?;
    let begun = Instant::now();
    let hooks = Hooks {
        now: Box::new(move || Now {
            wall_ms: START.0,
            boot_ms: begun.elapsed().as_millis() as u64,
        }),
        poisoned: Box::new(|_| {}),
    };
    let mut options = Options::new(INSTALL);
    options.segment_bytes = if records.len() > 1_000 { 1 << 20 } else { 1 << 16 };
    let opened = Journal::open(Arc::new(disk), &options, hooks, |_| {});
    let (journal, _) = opened.map_err(|error| error.to_string())?;
    // In small groups, so that there are many batches and some segments.
    for group in records.chunks(16) {
        let bytes = group.iter().map(Vec::len).sum();
        let mut reserved = journal.reserve(group.len(), bytes).map_err(|full| full.to_string())?;
        let last = group.iter().map(|record| reserved.push(record)).max();
        let durable = journal.wait_blocking(last.unwrap_or_default());
        durable.map_err(|poisoned| poisoned.to_string())?;
    }
    journal.stop().map(|_| ()).map_err(|poisoned| poisoned.to_string())
}

fn reader_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../collector/tests/journal_reader.py")
}

/// The seeds to run, from the command line.
fn seeds(mut words: impl Iterator<Item = String>) -> Option<std::ops::Range<u64>> {
    let mut seeds = 0..JOURNALS;
    while let Some(word) = words.next() {
        match word.as_str() {
            "--short" => seeds.end = seeds.start + JOURNALS_SHORT,
            "--journals" => seeds.end = seeds.start + words.next()?.parse::<u64>().ok()?,
            "--seed" => {
                let seed: u64 = words.next()?.parse().ok()?;
                seeds = seed..seed + 1;
            }
            _ => return None,
        }
    }
    Some(seeds)
}

fn main() -> ExitCode {
    let Some(seeds) = seeds(std::env::args().skip(1)) else {
        eprintln!("usage: determinism [--short] [--journals N] [--seed S]");
        return ExitCode::from(2);
    };
    let begun = Instant::now();
    let (mut total, mut failures) = (Outcome::default(), BTreeMap::new());
    let (mut journals, mut read) = (0, 0);
    for seed in seeds {
        journals += 1;
        match live_and_compare(seed) {
            Ok(outcome) => {
                total.records += outcome.records;
                total.leads += outcome.leads;
                total.restarts += outcome.restarts;
                total.folds += outcome.folds;
                total.read += outcome.read;
                read += u64::from(outcome.read > 0);
            }
            Err(why) => {
                println!("FAILED --seed {seed} ({} threads): {why}", 1 + seed % THREADS_MAX);
                failures.insert(seed, why);
            }
        }
    }
    println!(
        "{journals} journals, {} records, {} leads, {} ledgers folded; 1 to {THREADS_MAX} threads; \
         {} restarts on the way; replayed with 2, 8 and 1,024 locks a map",
        total.records, total.leads, total.folds, total.restarts
    );
    println!(
        "{read} of them read by journal_reader.py: {} ledgers and scores the same",
        total.read
    );
    let seconds = begun.elapsed().as_secs_f64();
    println!("{} of {journals} differ (goal: 0); {seconds:.1} s", failures.len());
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
