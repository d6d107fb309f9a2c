//! Batches of a hundred hits from their bytes to the disk, but for HTTP: read, checked, described,
//! decided, encoded, applied, journaled. The journal and its followers run as in a server; a batch
//! is waited for when some more were taken. Guards what a core makes of batches.

use std::collections::VecDeque;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use benches::mixed;
use collector::config::{DEFAULT_MIKOMI, Files};
use collector::cookie::VisitorCookie;
use collector::ingest::beacon::{self, BeaconLimits};
use collector::ingest::{Sender, take};
use collector::serve::{self, Options, Running};
use criterion::{Criterion, Throughput, criterion_group};
use engine::id::Position;

use crate::parse::hit_text;

const VISITORS: u64 = 20_000;
const HITS: u64 = 100;
/// Batches that wait for the disk at once.
const WAITING: usize = 16;
const LIMITS: BeaconLimits = BeaconLimits { hits_max: 500, hit_bytes_max: 65_536, depth_max: 32 };

/// A server in an empty folder, without limits for one sender.
struct Server {
    running: Running,
    batches: u64,
    _folder: tempfile::TempDir,
}

fn without_limits() -> Files {
    let mut text = DEFAULT_MIKOMI.to_owned();
    for name in ["address_hits_per_s_max", "site_hits_per_s_max"] {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        text = text.replacen(&line, &format!("{name} = 0"), 1);
    }
    let mut files = Files::default();
    files.contents[0] = Some(text.into_bytes());
    files
}

impl Server {
    fn start() -> Server {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"));
        let folder = folder.expect("there is a folder to build in");
        let (data, files) = (Some(folder.path().to_owned()), Some(without_limits()));
        let options = Options { data, files, any_port: true, ..Options::default() };
        let running = serve::start(&options).expect("an empty folder starts");
        let server = Server { running, batches: 0, _folder: folder };
        // Everybody was here before.
        for number in 0..VISITORS {
            let last = server.take(number, &batch(u64::MAX - number, 1), 1);
            if number.is_multiple_of(1_000) || number + 1 == VISITORS {
                server.running.app.journal.wait_blocking(last).expect("the disk works");
            }
        }
        server
    }

    /// What one request brings; its last record.
    fn take(&self, visitor: u64, body: &str, hits: usize) -> Position {
        let app = &self.running.app;
        let raw_id = u128::from(mixed(visitor));
        let sender = Sender {
            address: Ipv4Addr::LOCALHOST.into(),
            cookie: Some(VisitorCookie::issue(raw_id, None, app.clock.now())),
            agent: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Firefox/140.0".to_owned(),
            bytes: body.len(),
            trusted: false,
            ..Sender::trusted()
        };
        let read = beacon::parse(body.as_bytes(), &LIMITS).expect("it is JSON");
        let taken = take(app, &sender, &read).expect("there is room");
        assert_eq!(taken.kept, hits, "{:?}", taken.rejected);
        taken.position.expect("something was recorded")
    }

    fn time(&mut self, batches: u64) -> Duration {
        let (mut waiting, mut spent) = (VecDeque::new(), Duration::ZERO);
        for _ in 0..batches {
            self.batches += 1;
            let body = batch(self.batches, HITS);
            let began = Instant::now();
            waiting.push_back(self.take(self.batches % VISITORS, &body, HITS as usize));
            if waiting.len() > WAITING {
                self.wait(waiting.pop_front());
            }
            spent += began.elapsed();
        }
        let began = Instant::now();
        self.wait(waiting.pop_back());
        spent + began.elapsed()
    }

    fn wait(&self, position: Option<Position>) {
        if let Some(position) = position {
            self.running.app.journal.wait_blocking(position).expect("the disk works");
        }
    }
}

/// Nobody's hits have an id that was there before.
fn batch(number: u64, hits: u64) -> String {
    let hits = (0..hits).map(|hit| hit_text(mixed(number) ^ hit));
    format!("[{}]", hits.collect::<Vec<_>>().join(","))
}

fn batches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ingest");
    group.throughput(Throughput::Elements(HITS));
    let mut server = None;
    group.bench_function("batch_of_100", |bencher| {
        let server = server.get_or_insert_with(Server::start);
        bencher.iter_custom(|batches| black_box(server.time(batches)));
    });
    group.finish();
    if let Some(server) = server {
        server.running.stop().expect("it stops in order");
    }
}

criterion_group!(group, batches);
