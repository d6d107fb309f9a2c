//! The journal's tail: where records get their position, and where their senders wait.
//!
//! One mutex, held for a copy of bytes. The committer takes the oldest group while the next one
//! gathers; each group has one gate, and everyone who waits for a record of it waits there.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::{self, ThreadId};
use std::time::Duration;

use engine::id::Position;
use tokio::runtime::Handle;

use super::committer::{Committer, Input, Now};
use super::errors::{Full, Poisoned};
use super::segment::{Batch, Group, LENGTH_BYTES_MAX, record_bytes};

/// How long a group gathers while many send at once, unless told otherwise. A commit costs the
/// same for one of them and for a hundred, and on a fast disk it is over before many have come.
/// Worth, at 256 connections, of the CPU of a pixel hit: 67 us without, 43 with it; 2 ms: no more.
pub(super) const GATHER: Duration = Duration::from_millis(1);
/// Many send at once when so many sent while the last group was committed. Whoever sends alone
/// waits for nobody.
const SENDERS_MIN: u64 = 4;
/// A group of so many gathers no longer: there is little left to share.
const SENDERS_MAX: u64 = 128;

/// Used buffers kept for the next groups.
const SPARE_BUFFERS_MAX: usize = 4;
/// Bytes a new buffer starts with: a group of some hundred records, without growing under the lock.
const FRESH_BYTES: usize = 64 * 1024;
/// A buffer larger than this is not kept.
const SPARE_BYTES_MAX: usize = 1024 * 1024;

/// Everyone who waits for one group.
#[derive(Debug, Default)]
struct Gate {
    state: AtomicU8, // WAITING, then for ever OPEN or FAILED
    rooms: Mutex<Vec<Room>>,
}

/// Those of one thread. To wake a task of another thread takes a lock and, with a runtime that
/// sleeps, a system call: so each thread is called once, and wakes its own.
#[derive(Debug)]
struct Room {
    thread: ThreadId,
    runtime: Option<Handle>,
    wakers: Vec<Waker>,
}

/// Whose waker it is: which room, and which one in it.
type Seat = (usize, usize);

const WAITING: u8 = 0;
const OPEN: u8 = 1;
const FAILED: u8 = 2;

impl Gate {
    fn settle(&self, state: u8) {
        let rooms = {
            let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
            self.state.store(state, Ordering::Release);
            std::mem::take(&mut *rooms)
        };
        for Room { runtime, wakers, .. } in rooms {
            let wake_all = move || wakers.into_iter().for_each(Waker::wake);
            match runtime {
                Some(runtime) => drop(runtime.spawn(async move { wake_all() })),
                None => wake_all(),
            }
        }
    }

    /// The state it was settled with, or a seat for whoever asks.
    fn poll(&self, cx: &Context<'_>, seat: &mut Option<Seat>) -> Poll<u8> {
        let state = self.state.load(Ordering::Acquire);
        if state != WAITING {
            return Poll::Ready(state);
        }
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.state.load(Ordering::Acquire);
        if state != WAITING {
            return Poll::Ready(state);
        }
        match *seat {
            Some((room, place)) => rooms[room].wakers[place].clone_from(cx.waker()),
            None => *seat = Some(sit(&mut rooms, cx.waker())),
        }
        Poll::Pending
    }
}

/// Gives whoever waits a seat in the room of their thread.
fn sit(rooms: &mut Vec<Room>, waker: &Waker) -> Seat {
    let thread = thread::current().id();
    let room = rooms.iter().position(|room| room.thread == thread).unwrap_or_else(|| {
        rooms.push(Room { thread, runtime: Handle::try_current().ok(), wakers: Vec::new() });
        rooms.len() - 1
    });
    rooms[room].wakers.push(waker.clone());
    (room, rooms[room].wakers.len() - 1)
}

#[derive(Debug)]
struct Gathering {
    group: Group,
    gate: Arc<Gate>,
    senders: u64,
}

#[derive(Debug)]
struct Inner {
    next: Position,
    gathering: VecDeque<Gathering>,
    committing: Option<(Position, Arc<Gate>)>, // position after the group's last record
    spare: Vec<Vec<u8>>,
    poisoned: Option<Poisoned>,
    winding_down: bool, // the committer has not heard of it yet
    stopping: bool,
    /// Senders of a group at which the committer wants to be called; none while it works.
    call_at: Option<u64>,
    /// Senders of the group that was committed last.
    last_senders: u64,
}

/// What the pushing threads, the waiting tasks and the committer share.
#[derive(Debug)]
pub struct Tail {
    inner: Mutex<Inner>,
    work: Condvar,    // the committer has something to do
    changed: Condvar, // `durable` moved, or never will
    durable: AtomicU64,
    pending: AtomicU64, // bytes reserved or pushed and not yet durable
    refusing: AtomicU8, // why `reserve` refuses before it looks at `pending`
    lossy: bool,
    pending_max: u64,
    reservation_max: usize,
    gather: Duration,
    pub(super) over_reserved: AtomicU64,
    pub(super) refused: AtomicU64,
    ended: AtomicBool,
}

const ACCEPTING: u8 = 0;
const DISK_FULL: u8 = 1;
const POISONED: u8 = 2;
const STOPPING: u8 = 3;

/// Capacity taken ahead of the engine's locks. What is not used is given back when it is dropped.
#[derive(Debug)]
pub struct Reserved {
    tail: Arc<Tail>,
    left: u64,
    /// Where the group begins that it last appended to.
    group: Option<Position>,
}

impl Reserved {
    /// Appends a record and says which position it got. Cannot fail, and only copies bytes: this
    /// runs under the engine's locks. A record that is larger than what was reserved takes the
    /// missing capacity at once and is counted; passing a limit by a little is better than an
    /// abort.
    ///
    /// Hot: once a hit.
    pub fn push(&mut self, record: &[u8]) -> Position {
        let cost = record_bytes(record.len()) as u64;
        if cost > self.left {
            self.tail.pending.fetch_add(cost - self.left, Ordering::Relaxed);
            self.tail.over_reserved.fetch_add(1, Ordering::Relaxed);
        }
        self.left = self.left.saturating_sub(cost);
        self.tail.push(record, &mut self.group)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.tail.pending.fetch_sub(self.left, Ordering::Relaxed);
    }
}

impl Tail {
    pub(super) fn new(next: Position, durable: Position, limits: &super::Options) -> Tail {
        Tail {
            inner: Mutex::new(Inner {
                next,
                gathering: VecDeque::new(),
                committing: None,
                spare: Vec::new(),
                poisoned: None,
                winding_down: false,
                stopping: false,
                call_at: None,
                last_senders: 0,
            }),
            work: Condvar::new(),
            changed: Condvar::new(),
            durable: AtomicU64::new(durable.0),
            pending: AtomicU64::new(0),
            refusing: AtomicU8::new(ACCEPTING),
            lossy: limits.lossy,
            pending_max: limits.pending_bytes_max,
            reservation_max: limits.record_bytes_max,
            gather: limits.gather,
            over_reserved: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        }
    }

    /// Nothing in here panics while it holds the lock, so a poisoned mutex is as good as another.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn durable(&self) -> Position {
        Position(self.durable.load(Ordering::Acquire))
    }

    pub(super) fn pushed(&self) -> Position {
        let next = self.lock().next;
        Position(next.0 - 1)
    }

    pub(super) fn pending_bytes(&self) -> u64 {
        self.pending.load(Ordering::Relaxed)
    }

    pub(super) fn reserve(
        self: &Arc<Self>,
        records: usize,
        bytes: usize,
    ) -> Result<Reserved, Full> {
        let reserved = self.try_reserve(records, bytes);
        if reserved.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        reserved
    }

    fn try_reserve(self: &Arc<Self>, records: usize, bytes: usize) -> Result<Reserved, Full> {
        match self.refusing.load(Ordering::Relaxed) {
            DISK_FULL => return Err(Full::DiskFull),
            POISONED => return Err(Full::Poisoned),
            STOPPING => return Err(Full::Stopping),
            _accepting => {}
        }
        if bytes > self.reservation_max || records > self.reservation_max {
            return Err(Full::TooLarge { bytes });
        }
        let left = (bytes + records * LENGTH_BYTES_MAX) as u64;
        let taken = self.pending.try_update(Ordering::Relaxed, Ordering::Relaxed, |pending| {
            (pending + left <= self.pending_max).then_some(pending + left)
        });
        match taken {
            Ok(_) => Ok(Reserved { tail: Arc::clone(self), left, group: None }),
            Err(_) => Err(Full::Busy),
        }
    }

    fn push(&self, record: &[u8], sent_to: &mut Option<Position>) -> Position {
        let mut inner = self.lock();
        let open = inner.gathering.back();
        if open.is_none_or(|open| !open.group.fits(record.len())) {
            let spare = inner.spare.pop();
            let spare = spare.unwrap_or_else(|| Vec::with_capacity(FRESH_BYTES));
            let group = Group::new(inner.next, spare);
            let gate = Arc::new(Gate::default());
            inner.gathering.push_back(Gathering { group, gate, senders: 0 });
        }
        let open = inner.gathering.back_mut().expect("one was just made");
        let position = open.group.push(record);
        if sent_to.replace(open.group.first()) != Some(open.group.first()) {
            open.senders += 1;
        }
        let senders = open.senders;
        inner.next = position.next();
        if inner.call_at.is_some_and(|wanted| senders >= wanted || inner.gathering.len() > 1) {
            inner.call_at = None;
            self.work.notify_one();
        }
        position
    }

    /// The gate to wait at, or nothing when there is nothing to wait for.
    fn gate(&self, position: Position) -> Result<Option<Arc<Gate>>, Poisoned> {
        if position <= self.durable() {
            return Ok(None);
        }
        let inner = self.lock();
        if position <= self.durable() {
            return Ok(None);
        }
        if let Some(poisoned) = inner.poisoned {
            return Err(poisoned);
        }
        if position >= inner.next {
            return Err(Poisoned::NeverPushed);
        }
        if self.lossy {
            return Ok(None);
        }
        if let Some((next, gate)) = &inner.committing
            && position < *next
        {
            return Ok(Some(Arc::clone(gate)));
        }
        let at = inner.gathering.partition_point(|gathering| gathering.group.next() <= position);
        // A pushed record is durable, being committed or gathering; never is this an "ok".
        let gathering = inner.gathering.get(at).ok_or(Poisoned::NeverPushed)?;
        Ok(Some(Arc::clone(&gathering.gate)))
    }

    pub(super) async fn wait(&self, position: Position) -> Result<(), Poisoned> {
        let Some(gate) = self.gate(position)? else {
            return Ok(());
        };
        let mut seat = None;
        match poll_fn(|cx| gate.poll(cx, &mut seat)).await {
            OPEN => Ok(()),
            _failed => Err(self.why()),
        }
    }

    pub(super) fn wait_blocking(&self, position: Position) -> Result<(), Poisoned> {
        if self.gate(position)?.is_none() {
            return Ok(());
        }
        let mut inner = self.lock();
        loop {
            if position <= self.durable() {
                return Ok(());
            }
            if let Some(poisoned) = inner.poisoned {
                return Err(poisoned);
            }
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until a position is durable, the journal ended, or the time is over.
    pub(super) fn wait_durable(&self, position: Position, timeout: Duration) {
        let inner = self.lock();
        let wanted = |inner: &mut Inner| position > self.durable() && inner.poisoned.is_none();
        // Whatever it was, the caller looks for itself.
        drop(self.changed.wait_timeout_while(inner, timeout, wanted));
    }

    fn why(&self) -> Poisoned {
        self.lock().poisoned.unwrap_or(Poisoned::Stopped)
    }

    /// The committer's next input: work, time, or the end.
    pub(super) fn next_input(&self, committer: &Committer, now: &dyn Fn() -> Now) -> Input {
        let mut inner = self.lock();
        loop {
            if committer.is_ready() && !inner.gathering.is_empty() {
                inner = self.gather(inner);
                let Gathering { group, gate, senders } =
                    inner.gathering.pop_front().expect("only the committer takes groups");
                inner.last_senders = senders;
                inner.committing = Some((group.next(), gate));
                return Input::Gathered(group);
            }
            if std::mem::take(&mut inner.winding_down) {
                return Input::WindDown;
            }
            if inner.stopping {
                return Input::Stop;
            }
            let Some(deadline) = committer.deadline_ms() else {
                inner.call_at = Some(1);
                inner = self.work.wait(inner).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = deadline.saturating_sub(now().boot_ms);
            if left == 0 {
                return Input::Elapsed;
            }
            inner.call_at = committer.is_ready().then_some(1);
            let waited = self.work.wait_timeout(inner, Duration::from_millis(left));
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lets the oldest group gather, while it is worth it.
    fn gather<'a>(&self, mut inner: MutexGuard<'a, Inner>) -> MutexGuard<'a, Inner> {
        let is_small = |inner: &mut Inner| {
            let only = inner.gathering.len() == 1;
            let small = inner.gathering.front().is_some_and(|open| open.senders < SENDERS_MAX);
            only && small && !(inner.stopping || inner.winding_down)
        };
        if inner.last_senders < SENDERS_MIN || !is_small(&mut inner) {
            return inner;
        }
        inner.call_at = Some(SENDERS_MAX);
        let gathered = self.work.wait_timeout_while(inner, self.gather, is_small);
        let mut inner = gathered.unwrap_or_else(PoisonError::into_inner).0;
        inner.call_at = None;
        inner
    }

    /// A batch is durable: whoever waits for it may go on.
    pub(super) fn publish(&self, batch: &Batch, retired: Option<Arc<Batch>>) {
        if batch.is_seal() {
            return;
        }
        self.durable.store(batch.next().0 - 1, Ordering::Release);
        self.pending.fetch_sub(batch.payload_bytes() as u64, Ordering::Relaxed);
        let spare = retired.and_then(Arc::into_inner).map(Batch::into_buffer);
        let mut inner = self.lock();
        if let Some(spare) = spare
            && spare.capacity() <= SPARE_BYTES_MAX
            && inner.spare.len() < SPARE_BUFFERS_MAX
        {
            inner.spare.push(spare);
        }
        let committed = inner.committing.take();
        drop(inner);
        self.changed.notify_all();
        if let Some((_, gate)) = committed {
            gate.settle(OPEN);
        }
    }

    pub(super) fn note_full(&self, full: bool) {
        let (from, to) = if full { (ACCEPTING, DISK_FULL) } else { (DISK_FULL, ACCEPTING) };
        // A stop or a poisoning that came between stays.
        let _ = self.refusing.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether records are refused because the disk is full.
    pub(super) fn is_disk_full(&self) -> bool {
        self.refusing.load(Ordering::Relaxed) == DISK_FULL
    }

    /// Whether records are refused and will be until the process ends.
    pub(super) fn is_refusing_for_good(&self) -> bool {
        matches!(self.refusing.load(Ordering::Relaxed), POISONED | STOPPING)
    }

    /// The disk stays full and the journal is being stopped: nobody waits for space any more.
    pub(super) fn refuse_all(&self) {
        for from in [ACCEPTING, DISK_FULL] {
            let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
            let _ = self.refusing.compare_exchange(from, STOPPING, success, failure);
        }
    }

    /// Tells the committer that a stop begins.
    pub(super) fn wind_down(&self) {
        self.lock().winding_down = true;
        self.work.notify_one();
    }

    /// From now on no position becomes durable; everyone who waits is told.
    pub(super) fn fail(&self, poisoned: Poisoned) {
        let refusing = match poisoned {
            Poisoned::Stopped | Poisoned::DiskFull => STOPPING,
            Poisoned::Sync(_)
            | Poisoned::Write(_)
            | Poisoned::Create(_)
            | Poisoned::NeverPushed => POISONED,
        };
        self.refusing.store(refusing, Ordering::Relaxed);
        let mut inner = self.lock();
        inner.poisoned = Some(poisoned);
        let committing = inner.committing.take().map(|(_, gate)| gate);
        let gates: Vec<Arc<Gate>> = inner
            .gathering
            .iter()
            .map(|gathering| Arc::clone(&gathering.gate))
            .chain(committing)
            .collect();
        drop(inner);
        self.ended.store(true, Ordering::Release);
        self.changed.notify_all();
        for gate in gates {
            gate.settle(FAILED);
        }
    }

    /// Whether nothing more will become durable.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Asks the committer to finish what was pushed and to stop.
    pub(super) fn stop(&self) {
        let _ = self.refusing.compare_exchange(
            ACCEPTING,
            STOPPING,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        self.lock().stopping = true;
        self.work.notify_one();
    }
}
