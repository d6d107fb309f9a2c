//! A server whose times are known beforehand, for checking whoever measures them: it stalls at
//! fixed times, has a fixed capacity with a queue in front, or takes a fixed time for each request.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::{LocalSet, spawn_local};

use super::Failure;
use super::http;
use crate::clock::Timer;

const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
/// The longest request.
const REQUEST_BYTES_MAX: usize = 2 * 1_024 * 1_024;

/// How it answers.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// So long...
    pub stall: Duration,
    /// ...at the beginning of each of these.
    pub every: Duration,
    /// Of its capacity, what one request takes; nothing if it has no limit.
    pub one: Duration,
    /// What each takes besides, beside others.
    pub delay: Duration,
}

impl Manner {
    /// When a request is answered that arrives at a moment; `free` is when its queue is empty.
    /// All of it since the stub began.
    fn answers_at(&self, arrived: Duration, free: &mut Duration) -> Duration {
        let phase = Duration::from_nanos((arrived.as_nanos() % self.every.as_nanos()) as u64);
        let mut at = arrived + self.stall.saturating_sub(phase);
        if self.one > Duration::ZERO {
            *free = at.max(*free) + self.one;
            at = *free;
        }
        at + self.delay
    }
}

struct Waiting {
    at: Duration,
    /// Equal moments keep the order of their arrival.
    number: u64,
    answer: oneshot::Sender<()>,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Waiting) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Waiting) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Waiting) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

struct Stub {
    manner: Manner,
    start: Instant,
    free: Cell<Duration>,
    asked: Cell<u64>,
    answered: Cell<u64>,
    waiting: RefCell<BinaryHeap<Reverse<Waiting>>>,
    earlier: Notify,
}

/// Listens until standard input ends.
pub fn run(listen: SocketAddr, manner: Manner) -> Result<Value, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (ended, end) = oneshot::channel();
    std::thread::spawn(move || {
        drop(io::copy(&mut io::stdin().lock(), &mut io::sink()));
        let _ = ended.send(());
    });
    let stub = Rc::new(Stub {
        manner,
        start: Instant::now(),
        free: Cell::default(),
        asked: Cell::default(),
        answered: Cell::default(),
        waiting: RefCell::default(),
        earlier: Notify::new(),
    });
    let served = Rc::clone(&stub);
    LocalSet::new().block_on(&runtime, async move {
        let listener = TcpListener::bind(listen).await?;
        let timer = Timer::new()?;
        let answering = Rc::clone(&served);
        spawn_local(async move { answering.answer_in_time(&timer).await });
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let stub = Rc::clone(&served);
                // A connection that breaks is its client's.
                spawn_local(async move { drop(stub.serve(stream).await) });
            }
        });
        drop(end.await);
        io::Result::Ok(())
    })?;
    Ok(json!({ "answered": stub.answered.get() }))
}

impl Stub {
    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut received = Vec::new();
        loop {
            if stream.read_buf(&mut received).await? == 0 {
                return Ok(());
            }
            while let Some(bytes) = length(&received)? {
                let arrived = self.start.elapsed();
                let mut free = self.free.get();
                let at = self.manner.answers_at(arrived, &mut free);
                self.free.set(free);
                if at > arrived {
                    self.wait_until(at).await;
                }
                stream.write_all(ANSWER).await?;
                self.answered.set(self.answered.get() + 1);
                received.drain(..bytes);
            }
        }
    }

    async fn wait_until(&self, at: Duration) {
        let (answer, called) = oneshot::channel();
        let number = self.asked.replace(self.asked.get() + 1);
        let first = self.waiting.borrow().peek().is_none_or(|Reverse(first)| at < first.at);
        self.waiting.borrow_mut().push(Reverse(Waiting { at, number, answer }));
        if first {
            self.earlier.notify_one();
        }
        drop(called.await);
    }

    async fn answer_in_time(&self, timer: &Timer) -> io::Result<()> {
        loop {
            let next = self.waiting.borrow().peek().map(|Reverse(first)| first.at);
            let Some(next) = next else {
                self.earlier.notified().await;
                continue;
            };
            let left = next.saturating_sub(self.start.elapsed());
            if left > Duration::ZERO {
                tokio::select! {
                    slept = timer.sleep(left) => slept?,
                    () = self.earlier.notified() => {}
                }
                continue;
            }
            let first = self.waiting.borrow_mut().pop();
            if let Some(Reverse(first)) = first {
                // Whoever asked may have gone.
                let _ = first.answer.send(());
            }
        }
    }
}

/// Of the whole request at the beginning of what was received, if it is whole.
fn length(received: &[u8]) -> io::Result<Option<usize>> {
    let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else {
        let fits = received.len() <= REQUEST_BYTES_MAX;
        return if fits { Ok(None) } else { Err(io::ErrorKind::InvalidData.into()) };
    };
    let body = http::header(&received[..end + 2], "content-length")
        .map_or(Some(0), |digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok());
    let body = body.filter(|body| *body <= REQUEST_BYTES_MAX);
    let bytes = end + 4 + body.ok_or(io::ErrorKind::InvalidData)?;
    Ok((received.len() >= bytes).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn what_arrives_in_a_stall_is_answered_at_its_end() {
        let manner = Manner { stall: ms(100), every: ms(1_000), one: ms(0), delay: ms(0) };
        let at = |arrived| manner.answers_at(ms(arrived), &mut Duration::default());
        assert_eq!([0, 40, 100, 999, 1_099].map(at), [100, 100, 100, 999, 1_100].map(ms));
    }

    #[test]
    fn a_capacity_makes_a_queue_and_a_delay_does_not() {
        let manner = Manner { stall: ms(0), every: ms(1), one: ms(10), delay: ms(5) };
        let mut free = Duration::ZERO;
        let at = [0, 1, 2, 100].map(|arrived| manner.answers_at(ms(arrived), &mut free));
        assert_eq!(at, [15, 25, 35, 115].map(ms));
    }

    #[test]
    fn a_request_without_a_length_has_no_body() {
        assert_eq!(length(b"GET / HTTP/1.1\r\n\r\nGET").unwrap(), Some(18));
        assert_eq!(length(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab").unwrap(), None);
        assert_eq!(length(b"GET / HT").unwrap(), None);
        assert!(length(b"GET / HTTP/1.1\r\ncontent-length: x\r\n\r\n").is_err());
    }
}
