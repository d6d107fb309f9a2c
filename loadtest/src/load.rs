//! A load: requests sent when they are due, by threads that share nothing while they run. What is
//! due and finds every connection busy waits, and its waiting counts.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use hyper::http::response;
use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::sync::Notify;
use tokio::task::{LocalSet, yield_now};

use crate::clock::{Timer, since_1970};
use crate::connection::{Connection, Target};
use crate::measured::{Measured, Outcome, Sample};
use crate::random::Random;
use crate::schedule::Timetable;
use crate::source::Source;
use crate::truth::sent::Log;

/// Nearer than this the thread looks at the clock instead of sleeping: waking takes about as long.
const NEAR: Duration = Duration::from_micros(60);
/// Requests noticed at once before the connections get their turn.
const AT_ONCE: usize = 16;
/// Requests that wait for a connection at most; further ones are never sent, and counted so.
const WAITING_MAX: usize = 1_000_000;
/// Between the last connection's opening and the first request.
const BEFORE_START: Duration = Duration::from_millis(100);

/// What is sent, when, and over what.
pub struct Load {
    /// Whom to.
    pub target: Target,
    /// The warm-up is in it.
    pub timetable: Timetable,
    /// Not counted at the beginning.
    pub warm: Duration,
    /// All that is drawn follows from it.
    pub seed: u64,
    /// Connections, one request in flight on each.
    pub connections: usize,
    /// The share of requests that get a connection of their own.
    pub fresh: f64,
    /// The longest that an answer is waited for.
    pub patience: Duration,
    /// How late the generator may be.
    pub lag_max: Duration,
    /// A thread for each source; the processors they are bound to, in turn.
    pub cores: Vec<usize>,
}

/// What a thread says once a second of the run.
pub struct Tick {
    /// Which second, from 0, the warm-up among them.
    pub second: u64,
    /// Requests due so far.
    pub due: u64,
    /// Requests that came to an end so far.
    pub ended: u64,
    /// And failed.
    pub errors: u64,
    /// Response times of late, in milliseconds: the median and the 99th percentile.
    pub recent_ms: (f64, f64),
}

/// What came of it.
pub struct Loaded {
    /// The times.
    pub measured: Measured,
    /// Processor time of the threads that sent, as a share of the time they ran.
    pub busy: f64,
    /// When the first request was due, in milliseconds since 1970.
    pub started_ms: u64,
    /// What each thread sent, where that was logged.
    pub logs: Vec<Log>,
}

/// Sends it all. Each source has its thread, and its part of what is due.
pub fn run(load: &Load, sources: Vec<Source>, ticks: &mpsc::Sender<Tick>) -> io::Result<Loaded> {
    let threads = sources.len();
    let barrier = Arc::new(Barrier::new(threads + 1));
    let started_ms = Cell::new(0);
    let parts: io::Result<Vec<(Measured, f64, Option<Log>)>> = thread::scope(|scope| {
        let spawned: Vec<_> = sources
            .into_iter()
            .enumerate()
            .map(|(number, source)| {
                let (barrier, ticks) = (Arc::clone(&barrier), ticks.clone());
                scope.spawn(move || work(load, (number, threads), source, &barrier, ticks))
            })
            .collect();
        barrier.wait();
        started_ms.set((since_1970() + BEFORE_START).as_millis() as u64);
        let joined = spawned.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
        });
        joined.collect()
    });
    let mut measured = Measured::new(load.warm, load.timetable.length());
    let (mut busy, mut logs) = (0_f64, Vec::new());
    for (part, share, log) in parts? {
        measured.merge(&part);
        busy = busy.max(share);
        logs.extend(log);
    }
    Ok(Loaded { measured, busy, started_ms: started_ms.get(), logs })
}

/// One thread's part.
fn work(
    load: &Load,
    (number, threads): (usize, usize),
    source: Source,
    barrier: &Barrier,
    ticks: mpsc::Sender<Tick>,
) -> io::Result<(Measured, f64, Option<Log>)> {
    if !load.cores.is_empty() {
        let mut cores = CpuSet::new();
        cores.set(load.cores[number % load.cores.len()]);
        // Without it, it measures all the same.
        let _ = sched_setaffinity(None, &cores);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let length = load.timetable.length();
    let connections = load.connections.div_ceil(threads).max(1);
    let prepared = runtime.and_then(|runtime| {
        let local = LocalSet::new();
        let target = Rc::new(load.target.clone());
        let opened = local.block_on(&runtime, open(&target, connections));
        Ok((runtime, local, opened?))
    });
    // Everybody waits, also for whoever failed.
    barrier.wait();
    let (runtime, local, opened) = prepared?;
    let measured = Measured::new(load.warm, length).with_lag(load.lag_max);
    let worker = Rc::new(Worker {
        patience: load.patience,
        fresh: load.fresh,
        start: Instant::now() + BEFORE_START,
        waiting: RefCell::default(),
        idle: RefCell::default(),
        measured: RefCell::new(measured),
        source: RefCell::new(source),
        random: RefCell::new(Random::new(load.seed ^ number as u64)),
        in_flight: Cell::new(0),
        over: Cell::new(false),
        ticked: Cell::new(0),
        ticks,
    });
    let spent_before = thread_cpu();
    local.block_on(&runtime, async {
        for connection in opened {
            let worker = Rc::clone(&worker);
            tokio::task::spawn_local(async move { worker.serve(connection).await });
        }
        let due = load.timetable.due(load.seed);
        worker.pace(due.skip(number).step_by(threads)).await?;
        worker.drain(length).await;
        Ok::<(), io::Error>(())
    })?;
    let ran = worker.start.elapsed().as_secs_f64();
    let busy = thread_cpu().saturating_sub(spent_before).as_secs_f64() / ran.max(1e-9);
    drop(local);
    let worker = Rc::into_inner(worker).ok_or_else(|| io::Error::other("a task is left"))?;
    Ok((worker.measured.into_inner(), busy, worker.source.into_inner().into_log()))
}

async fn open(target: &Rc<Target>, count: usize) -> io::Result<Vec<Connection>> {
    let mut connections = Vec::with_capacity(count);
    for _ in 0..count {
        let mut connection = Connection::new(Rc::clone(target));
        connection.open().await?;
        connections.push(connection);
    }
    Ok(connections)
}

/// Why a collector keeps nothing of a hit on purpose, as its answer says it.
const DROPPED: [&str; 4] = ["consent", "gpc", "opt_out", "prefetch"];

/// What an answer says became of the request: not all that is answered well was kept.
fn outcome_of(head: &response::Parts) -> Outcome {
    let (status, said) = (head.status.as_u16(), &head.headers);
    if status >= 400 {
        return Outcome::Refused(status);
    }
    if said.contains_key("mikomi-rejected") {
        return Outcome::RejectedInPart;
    }
    said.get("mikomi-dropped").map_or(Outcome::Success(status), |why| {
        let known = DROPPED.into_iter().find(|known| why == known);
        Outcome::Dropped(known.unwrap_or("other"))
    })
}

fn thread_cpu() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32)
}

struct Worker {
    patience: Duration,
    fresh: f64,
    start: Instant,
    /// What is due and not yet sent, and whether a connection was free for it when it was noticed.
    waiting: RefCell<VecDeque<(Duration, bool)>>,
    /// Connections with nothing to do, the one that has had nothing the longest in front.
    idle: RefCell<VecDeque<Rc<Notify>>>,
    measured: RefCell<Measured>,
    source: RefCell<Source>,
    random: RefCell<Random>,
    in_flight: Cell<usize>,
    over: Cell<bool>,
    /// Seconds of which something was said.
    ticked: Cell<u64>,
    ticks: mpsc::Sender<Tick>,
}

impl Worker {
    fn now(&self) -> Duration {
        Instant::now().saturating_duration_since(self.start)
    }

    /// Notices what is due when it is due.
    async fn pace(&self, due: impl Iterator<Item = Duration>) -> io::Result<()> {
        let timer = Timer::new()?;
        let mut at_once = 0;
        for intended in due {
            let mut now = Instant::now();
            while now < self.start + intended {
                at_once = 0;
                let left = self.start + intended - now;
                if left > NEAR {
                    timer.sleep(left.saturating_sub(NEAR / 2)).await?;
                } else {
                    yield_now().await;
                }
                now = Instant::now();
            }
            self.notice(intended, now.saturating_duration_since(self.start));
            self.tick_until(intended.as_secs());
            at_once += 1;
            if at_once == AT_ONCE {
                at_once = 0;
                yield_now().await;
            }
        }
        Ok(())
    }

    fn notice(&self, intended: Duration, now: Duration) {
        let free = self.idle.borrow_mut().pop_front();
        self.measured.borrow_mut().notice(intended, now, free.is_none());
        if self.waiting.borrow().len() >= WAITING_MAX {
            self.give_up(intended, now);
        } else {
            self.waiting.borrow_mut().push_back((intended, free.is_some()));
        }
        if let Some(free) = free {
            free.notify_one();
        }
    }

    fn give_up(&self, intended: Duration, now: Duration) {
        let outcome = Outcome::Unsent;
        let sample = Sample { intended, sent: now, first_byte: now, end: now, outcome };
        self.measured.borrow_mut().end(&sample);
    }

    /// Says what there is to say of each second before this one.
    fn tick_until(&self, second: u64) {
        while self.ticked.get() < second {
            self.tick(self.ticked.replace(self.ticked.get() + 1));
        }
    }

    fn tick(&self, second: u64) {
        let measured = self.measured.borrow();
        let recent = measured.intervals.iter().rev().find(|interval| !interval.response.is_empty());
        let ms = |quantile| {
            recent.map_or(0.0, |it| it.response.value_at_quantile(quantile) as f64 / 1_000.0)
        };
        let tick = Tick {
            second,
            due: measured.due(),
            ended: measured.ended(),
            errors: measured.errors(),
            recent_ms: (ms(0.5), ms(0.99)),
        };
        // Whoever shows it may have gone.
        drop(self.ticks.send(tick));
    }

    /// One connection: takes what is due, or waits for it.
    async fn serve(&self, mut connection: Connection) {
        let called = Rc::new(Notify::new());
        while !self.over.get() {
            let next = self.waiting.borrow_mut().pop_front();
            let Some((intended, had_a_connection)) = next else {
                self.idle.borrow_mut().push_back(Rc::clone(&called));
                called.notified().await;
                continue;
            };
            if had_a_connection {
                self.measured.borrow_mut().begin(intended, self.now());
            }
            self.in_flight.set(self.in_flight.get() + 1);
            self.exchange(&mut connection, intended).await;
            self.in_flight.set(self.in_flight.get() - 1);
        }
    }

    async fn exchange(&self, connection: &mut Connection, intended: Duration) {
        if self.fresh > 0.0 && self.random.borrow_mut().happens(self.fresh) {
            connection.close();
        }
        let asked = self.source.borrow_mut().next(intended);
        let began = self.now();
        let exchanged = connection.exchange(asked.request, self.patience).await;
        let end = self.now();
        let since = |at: Instant| at.saturating_duration_since(self.start);
        let outcome = exchanged.answer.as_ref().map_or_else(|outcome| *outcome, outcome_of);
        let sample = Sample {
            intended,
            sent: exchanged.sent.map_or(began, since),
            first_byte: exchanged.first_byte.map_or(end, since),
            end,
            outcome,
        };
        let mut measured = self.measured.borrow_mut();
        measured.end(&sample);
        measured.connections += connection.take_opened();
        drop(measured);
        let sent = exchanged.sent;
        self.source.borrow_mut().hear(asked.ticket, exchanged.answer.as_ref(), sent);
    }

    /// Waits for what is still to be answered, as long as for any answer.
    async fn drain(&self, length: Duration) {
        let until = length.max(self.now()) + self.patience;
        while self.in_flight.get() > 0 || !self.waiting.borrow().is_empty() {
            if self.now() > until {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let left = std::mem::take(&mut *self.waiting.borrow_mut());
        let now = self.now();
        for (intended, _) in left {
            self.give_up(intended, now);
        }
        self.over.set(true);
        // Each has its own patience.
        while self.in_flight.get() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let idle = std::mem::take(&mut *self.idle.borrow_mut());
        for one in idle {
            one.notify_one();
        }
        self.tick_until(length.as_secs_f64().ceil() as u64);
        yield_now().await;
    }
}
