//! The task that joins Queue, Client and journal: inputs in, effects carried out in their order.
//!
//! Inputs that are ready together are stepped together, and their records are made durable by one
//! call. An endpoint's next attempts are made when all that was recorded of it so far is durable:
//! an attempt is in the journal before the one that follows it. Meanwhile other endpoints go on: a
//! receiver that fails all the time, and has much written down, slows down nobody else. If the
//! journal stops, so does the driver; what it had in flight is sent again, under the same ids,
//! after the restart.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engine::time::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::address::Target;
use super::client::Client;
use super::manner::Manner;
use super::queue::{
    Answered, Attempt, DisableReason, Effect, EndpointSettings, Figures, Input, Message,
    Outstanding, Overtaking, Queue, Refusal, Resend,
};
use super::{AttemptRecord, EndpointId, LeadRef, MessageId, SendError};

/// Inputs stepped before their records are made durable and their attempts made.
pub const BATCH_MAX: usize = 256;
/// How long attempts in flight may take to end when the driver stops.
pub const STOP_GRACE: Duration = Duration::from_secs(5);
/// The longest sleep: the wall clock may jump while we sleep by another clock.
pub const SLEEP_MAX: Duration = Duration::from_secs(30);

/// An endpoint as the settings have it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// What the queue must know.
    pub settings: EndpointSettings,
    /// Where to.
    pub target: Target,
    /// How.
    pub manner: Manner,
}

/// What others ask of the driver.
#[derive(Debug)]
pub enum Command {
    /// Deliver a message whose own record is durable.
    Enqueue(Message),
    /// Drop what is not needed any more, for a message whose own record is durable.
    Overtaken(Overtaking),
    /// An endpoint is new or changed.
    Endpoint(Box<Endpoint>),
    /// An endpoint is gone.
    Remove(EndpointId),
    /// Send dead letters again.
    Resend {
        /// Whose.
        endpoint: EndpointId,
        /// Which.
        which: Resend,
    },
    /// Look at the clock: it was set.
    Look,
    /// Forget a lead's bodies.
    Forget(LeadRef),
    /// A message about several people has another body, or none and goes.
    Rewrite {
        /// Which.
        id: MessageId,
        /// Its body from now on.
        body: Option<Bytes>,
    },
    /// List what is not finished.
    Outstanding(oneshot::Sender<Vec<Outstanding>>),
}

/// What the driver tells others.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// A message became a dead letter.
    Dead {
        /// Its endpoint.
        endpoint: EndpointId,
        /// Its id.
        message: MessageId,
        /// Whether it can be resent.
        kept: bool,
    },
    /// An endpoint was disabled by itself.
    Disabled {
        /// Which.
        endpoint: EndpointId,
        /// Why.
        why: DisableReason,
    },
    /// A message or a wish was not taken.
    Refused {
        /// Its endpoint.
        endpoint: EndpointId,
        /// Its id, where it is about one.
        message: Option<MessageId>,
        /// Why.
        why: Refusal,
    },
    /// A receiver's clock differs from ours by so much; receivers refuse more than five minutes.
    Skew {
        /// Whose.
        endpoint: EndpointId,
        /// The receiver's clock minus ours, milliseconds.
        ms: i64,
    },
}

/// The journal does not take records any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalStopped;

/// How a driver ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Attempts that were still in flight; their messages are sent again after the restart.
    pub unfinished: usize,
    /// The journal stopped first.
    pub journal_stopped: bool,
}

/// Everything the driver needs of the world.
pub struct World<J, N, C, R> {
    /// Makes records durable, in order, and returns when they are.
    pub journal: J,
    /// Hears notices; must not block.
    pub notice: N,
    /// Reads the clock.
    pub clock: C,
    /// Draws jitter from -1 to 1.
    pub jitter: R,
    /// Shows how full the queue is.
    pub figures: watch::Sender<Figures>,
}

struct Landed {
    attempt: Attempt,
    answer: Result<super::Answer, SendError>,
    took: Duration,
}

/// What an endpoint's attempts need, shared with those in flight.
type Address = Arc<(Target, Manner)>;

/// What is to be made durable at once, and what waits for it.
#[derive(Default)]
struct Batch {
    records: Vec<AttemptRecord>,
    /// Whose records these are.
    endpoints: BTreeSet<EndpointId>,
    attempts: Vec<Attempt>,
    notices: Vec<Notice>,
}

/// A batch on its way to the disk.
struct Writing<F> {
    written: Pin<Box<F>>,
    batch: Batch,
}

struct Driver<J, F, N, C, R> {
    queue: Queue,
    client: Client,
    addresses: BTreeMap<EndpointId, Address>,
    flying: JoinSet<Landed>,
    writing: Option<Writing<F>>,
    /// What comes after it.
    next: Batch,
    wake: Option<Timestamp>,
    world: World<J, N, C, R>,
}

/// Runs until `shutdown` ends, all senders of commands are gone, or the journal stops. `endpoints`
/// are those the queue was loaded with; the queue must still be loading.
pub async fn run<J, F, N, C, R>(
    commands: mpsc::Receiver<Command>,
    queue: Queue,
    endpoints: Vec<Endpoint>,
    client: Client,
    world: World<J, N, C, R>,
    shutdown: impl Future<Output = ()>,
) -> Stopped
where
    J: Fn(Vec<AttemptRecord>) -> F,
    F: Future<Output = Result<(), JournalStopped>>,
    N: Fn(Notice),
    C: Fn() -> Timestamp + Clone + Send + 'static,
    R: FnMut() -> f64,
{
    let mut driver = Driver {
        queue,
        client,
        addresses: BTreeMap::new(),
        flying: JoinSet::new(),
        writing: None,
        next: Batch::default(),
        wake: None,
        world,
    };
    let mut inputs = Vec::new();
    for endpoint in endpoints {
        inputs.push(driver.know(endpoint));
    }
    inputs.push(Input::Loaded);
    driver.work(commands, inputs, shutdown).await
}

impl<J, F, N, C, R> Driver<J, F, N, C, R>
where
    J: Fn(Vec<AttemptRecord>) -> F,
    F: Future<Output = Result<(), JournalStopped>>,
    N: Fn(Notice),
    C: Fn() -> Timestamp + Clone + Send + 'static,
    R: FnMut() -> f64,
{
    async fn work(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        first: Vec<Input>,
        shutdown: impl Future<Output = ()>,
    ) -> Stopped {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut inputs = first;
        loop {
            let effects = self.step(inputs);
            self.carry_out(effects);
            inputs = Vec::new();
            let alarm = self.alarm();
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                written = written(&mut self.writing) => {
                    if written.is_err() {
                        return self.stopped(true);
                    }
                    self.go_on(true);
                }
                Some(landed) = self.flying.join_next() => inputs.push(self.landed(landed)),
                command = commands.recv(), if self.next.records.len() < BATCH_MAX => match command {
                    Some(command) => inputs.extend(self.command(command)),
                    None => break,
                },
                () = sleep_until(alarm) => inputs.push(Input::Tick),
            }
            while inputs.len() < BATCH_MAX {
                if let Some(landed) = self.flying.try_join_next() {
                    inputs.push(self.landed(landed));
                } else if self.next.records.len() >= BATCH_MAX {
                    break; // whoever commands waits for the disk too
                } else if let Ok(command) = commands.try_recv() {
                    inputs.extend(self.command(command));
                } else {
                    break;
                }
            }
        }
        self.stop().await
    }

    /// Lets attempts in flight end for a while, and journals how.
    async fn stop(mut self) -> Stopped {
        let end = Instant::now() + STOP_GRACE;
        loop {
            while self.writing.is_some() {
                if written(&mut self.writing).await.is_err() {
                    return self.stopped(true);
                }
                self.go_on(false);
            }
            let Ok(Some(landed)) = timeout_at(end, self.flying.join_next()).await else {
                return self.stopped(false);
            };
            let input = self.landed(landed);
            let mut effects = self.step(vec![input]);
            effects.retain(|effect| !matches!(effect, Effect::Send(_)));
            self.carry_out(effects);
        }
    }

    fn stopped(&self, journal_stopped: bool) -> Stopped {
        Stopped { unfinished: self.flying.len(), journal_stopped }
    }

    fn step(&mut self, inputs: Vec<Input>) -> Vec<Effect> {
        let now = (self.world.clock)();
        let mut effects = Vec::new();
        for input in inputs {
            // Each step says anew when to wake, or that there is nothing to wake for.
            self.wake = None;
            for effect in self.queue.step(input, now) {
                match effect {
                    Effect::WakeAt(at) => self.wake = Some(at),
                    other => effects.push(other),
                }
            }
        }
        effects
    }

    /// Makes attempts whose endpoints have nothing to be written down; all else waits for that.
    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Journal(record) => {
                    self.next.endpoints.insert(record.endpoint.clone());
                    self.next.records.push(record);
                }
                Effect::Send(attempt) => self.send(attempt),
                Effect::WakeAt(_) => {} // step() has taken it
                Effect::Dead { endpoint, message, kept } => {
                    self.next.notices.push(Notice::Dead { endpoint, message, kept });
                }
                Effect::DisableEndpoint { endpoint, why } => {
                    self.next.notices.push(Notice::Disabled { endpoint, why });
                }
                Effect::Refused { endpoint, message, why } => {
                    self.next.notices.push(Notice::Refused { endpoint, message, why });
                }
            }
        }
        if self.writing.is_none() {
            self.write_next();
        }
    }

    fn send(&mut self, attempt: Attempt) {
        if self.next.endpoints.contains(&attempt.endpoint) {
            return self.next.attempts.push(attempt);
        }
        match &mut self.writing {
            Some(writing) if writing.batch.endpoints.contains(&attempt.endpoint) => {
                writing.batch.attempts.push(attempt);
            }
            _ => self.make(attempt),
        }
    }

    /// What waited for a batch that is written now, and the next one.
    fn go_on(&mut self, sending: bool) {
        if let Some(Writing { batch, .. }) = self.writing.take() {
            self.finish(batch, sending);
        }
        self.write_next();
    }

    fn finish(&mut self, batch: Batch, sending: bool) {
        batch.notices.into_iter().for_each(&self.world.notice);
        self.world.figures.send_replace(self.queue.figures());
        for attempt in batch.attempts.into_iter().filter(|_| sending) {
            self.make(attempt);
        }
    }

    fn write_next(&mut self) {
        let mut batch = std::mem::take(&mut self.next);
        let records = std::mem::take(&mut batch.records);
        if records.is_empty() {
            self.finish(batch, true);
        } else {
            let written = Box::pin((self.world.journal)(records));
            self.writing = Some(Writing { written, batch });
        }
    }

    fn make(&mut self, attempt: Attempt) {
        let address = self.addresses.get(&attempt.endpoint).cloned();
        let client = self.client.clone();
        let clock = self.world.clock.clone();
        self.flying.spawn(async move {
            let began = clock();
            let answer = match address {
                Some(address) => client.send(&address.0, &address.1, &attempt).await,
                None => Err(SendError::NoEndpoint),
            };
            Landed { attempt, answer, took: clock().since(began) }
        });
    }

    fn landed(&mut self, landed: Result<Landed, JoinError>) -> Input {
        let Landed { attempt, answer, took } = match landed {
            Ok(landed) => landed,
            // Nobody aborts an attempt while the driver runs, so it panicked: a defect is not
            // hidden behind a retry.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        if let Ok(super::Answer { skew_ms: Some(ms), .. }) = answer {
            (self.world.notice)(Notice::Skew { endpoint: attempt.endpoint.clone(), ms });
        }
        let Attempt { endpoint, message, attempt, .. } = attempt;
        let jitter = (self.world.jitter)();
        Input::Answered(Answered { endpoint, message, attempt, answer, took, jitter })
    }

    fn command(&mut self, command: Command) -> Option<Input> {
        Some(match command {
            Command::Enqueue(message) => Input::Enqueue(message),
            Command::Overtaken(overtaking) => Input::Overtaken(overtaking),
            Command::Endpoint(endpoint) => self.know(*endpoint),
            Command::Remove(id) => {
                self.addresses.remove(&id);
                Input::EndpointRemoved(id)
            }
            Command::Resend { endpoint, which } => Input::Resend { endpoint, which },
            Command::Look => Input::Tick,
            Command::Forget(lead) => Input::Forget(lead),
            Command::Rewrite { id, body } => Input::Rewrite { id, body },
            Command::Outstanding(reply) => {
                // Whoever asked may have gone; then nobody misses the answer.
                let _ = reply.send(self.queue.outstanding());
                return None;
            }
        })
    }

    fn know(&mut self, endpoint: Endpoint) -> Input {
        let Endpoint { settings, target, manner } = endpoint;
        self.addresses.insert(settings.id.clone(), Arc::new((target, manner)));
        Input::EndpointChanged(settings)
    }

    /// When to look again without being asked.
    fn alarm(&self) -> Instant {
        let now = (self.world.clock)();
        let wait = self.wake.map_or(SLEEP_MAX, |at| at.since(now).min(SLEEP_MAX));
        Instant::now() + wait
    }
}

/// Ends when what is being written is; never, if nothing is.
async fn written<F>(writing: &mut Option<Writing<F>>) -> Result<(), JournalStopped>
where
    F: Future<Output = Result<(), JournalStopped>>,
{
    match writing {
        Some(writing) => writing.written.as_mut().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinHandle;

    use super::super::address::Permit;
    use super::super::breaker::Rest;
    use super::super::client::{Resolver, Timeouts};
    use super::super::queue::{Limits, Mode};
    use super::super::{Delivery, Outcome};
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    /// A receiver that hands each request to the test, which answers when it likes.
    struct Receiver {
        port: u16,
        requests: mpsc::UnboundedReceiver<(TcpStream, String)>,
    }

    async fn receiver() -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (give, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let give = give.clone();
                tokio::spawn(async move {
                    let mut text = Vec::new();
                    // Every body of these tests ends with a bar.
                    while !text.ends_with(b"|") {
                        let mut piece = [0; 4096];
                        let Ok(read @ 1..) = stream.read(&mut piece).await else {
                            return;
                        };
                        text.extend_from_slice(&piece[..read]);
                    }
                    let _ = give.send((stream, String::from_utf8(text).unwrap()));
                });
            }
        });
        Receiver { port, requests }
    }

    /// Bounds what never comes, so that a defect fails its test instead of holding it for ever.
    async fn soon<T>(coming: impl Future<Output = T>) -> T {
        let bound = tokio::time::timeout(Duration::from_secs(20), coming);
        bound.await.expect("it comes long before the bound")
    }

    impl Receiver {
        async fn next(&mut self) -> (TcpStream, String) {
            soon(self.requests.recv()).await.expect("the receiver runs as long as the test")
        }

        async fn answer(&mut self, status: &str) -> String {
            let (mut stream, request) = self.next().await;
            reply(&mut stream, status).await;
            request
        }
    }

    async fn reply(stream: &mut TcpStream, status: &str) {
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
    }

    fn endpoint(name: &str, port: u16, attempts: usize) -> Endpoint {
        let permit = Permit {
            allow_http: true,
            allow_ports: vec![port],
            allow_private: vec!["127.0.0.0/8".parse().unwrap()],
        };
        Endpoint {
            settings: EndpointSettings {
                id: EndpointId::parse(name).unwrap(),
                mode: Mode::Live,
                test: false,
                in_flight_max: 2,
                schedule: vec![Duration::ZERO; attempts].into(),
                supersede: false,
                rest: Rest::default(),
            },
            target: Target::parse(&format!("http://127.0.0.1:{port}/"), &permit).unwrap(),
            manner: Manner::default(),
        }
    }

    fn message(endpoint: &str, lead: u128, name: &str) -> Command {
        Command::Enqueue(Message {
            id: MessageId::parse(name).unwrap(),
            endpoint: EndpointId::parse(endpoint).unwrap(),
            lead: LeadRef(lead),
            sequence: 1,
            test: false,
            replay: false,
            not_before: None,
            topic: None,
            event: false,
            retracts: None,
            body: Bytes::from(format!("{name}|")),
        })
    }

    struct Run {
        commands: mpsc::Sender<Command>,
        records: Arc<Mutex<Vec<AttemptRecord>>>,
        notices: mpsc::UnboundedReceiver<Notice>,
        stop: oneshot::Sender<()>,
        task: JoinHandle<Stopped>,
    }

    fn start(endpoints: Vec<Endpoint>, journal_holds: bool) -> Run {
        start_with(endpoints, journal_holds, None)
    }

    /// With a disk that takes its time, if there is a gate.
    fn start_with(
        endpoints: Vec<Endpoint>,
        journal_holds: bool,
        gate: Option<Arc<tokio::sync::Semaphore>>,
    ) -> Run {
        let (commands, rx) = mpsc::channel(64);
        let (tell, notices) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let records = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&records);
        let world = World {
            journal: move |batch: Vec<AttemptRecord>| {
                let (kept, gate) = (Arc::clone(&kept), gate.clone());
                async move {
                    tokio::task::yield_now().await;
                    if let Some(gate) = gate {
                        gate.acquire().await.unwrap().forget();
                    }
                    kept.lock().unwrap().extend(batch);
                    if journal_holds { Ok(()) } else { Err(JournalStopped) }
                }
            },
            notice: move |notice| {
                let _ = tell.send(notice);
            },
            clock: || NOW,
            jitter: || 0.0,
            figures: watch::Sender::new(Figures::default()),
        };
        let clock: super::super::client::Clock = Arc::new(|| NOW);
        let client = Client::new("1", Resolver::System, Timeouts::default(), clock, None).unwrap();
        let mut queue = Queue::new(Limits::default());
        for endpoint in &endpoints {
            queue.step(Input::EndpointChanged(endpoint.settings.clone()), NOW);
        }
        let shutdown = async move {
            let _ = stopped.await;
        };
        let task = tokio::spawn(run(rx, queue, endpoints, client, world, shutdown));
        Run { commands, records, notices, stop, task }
    }

    fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
        request.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    #[tokio::test]
    async fn a_failed_attempt_is_made_again_with_the_same_id_and_body_after_it_was_journaled() {
        let mut receiver = receiver().await;
        let run = start(vec![endpoint("sfa", receiver.port, 3)], true);
        run.commands.send(message("sfa", 1, "a")).await.unwrap();
        let first = receiver.answer("500 No").await;
        let (mut stream, second) = receiver.next().await;
        assert_eq!(run.records.lock().unwrap().len(), 1, "journaled before the next");
        reply(&mut stream, "200 OK").await;
        for (request, attempt) in [(&first, "1"), (&second, "2")] {
            assert_eq!(header(request, "webhook-id"), Some("a"));
            assert_eq!(header(request, "mikomi-attempt"), Some(attempt));
            assert!(request.ends_with("\r\n\r\na|"));
        }
        run.stop.send(()).unwrap();
        let stopped = soon(run.task).await.unwrap();
        assert_eq!(stopped, Stopped { unfinished: 0, journal_stopped: false });
        let states: Vec<_> = run.records.lock().unwrap().iter().map(|r| r.state).collect();
        let waiting = Delivery::Waiting { attempts: 1, until: NOW };
        assert_eq!(states, [waiting, Delivery::Delivered { attempts: 2 }]);
    }

    #[tokio::test]
    async fn a_hanging_endpoint_holds_up_nobody_else() {
        let mut hanging = receiver().await;
        let mut good = receiver().await;
        let endpoints = vec![endpoint("bad", hanging.port, 3), endpoint("good", good.port, 3)];
        let run = start(endpoints, true);
        for lead in 0..5 {
            run.commands.send(message("bad", lead, &format!("x{lead}"))).await.unwrap();
        }
        let held = [hanging.next().await, hanging.next().await];
        for lead in 0..5 {
            run.commands.send(message("good", lead, &format!("y{lead}"))).await.unwrap();
        }
        for _ in 0..5 {
            good.answer("200 OK").await;
        }
        assert!(hanging.requests.try_recv().is_err(), "two in flight is the cap");
        drop(held);
        drop(run);
    }

    #[tokio::test]
    async fn an_endpoint_is_sent_to_while_what_another_did_is_written_down() {
        let (mut failing, mut good) = (receiver().await, receiver().await);
        let endpoints = vec![endpoint("bad", failing.port, 3), endpoint("good", good.port, 3)];
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let run = start_with(endpoints, true, Some(Arc::clone(&gate)));
        run.commands.send(message("bad", 1, "a")).await.unwrap();
        failing.answer("500 No").await;
        run.commands.send(message("good", 1, "b")).await.unwrap();
        good.answer("200 OK").await;
        assert_eq!(run.records.lock().unwrap().len(), 0, "the disk takes its time");
        assert!(failing.requests.try_recv().is_err(), "not before it is written down");
        gate.add_permits(100);
        failing.answer("200 OK").await;
        run.stop.send(()).unwrap();
        soon(run.task).await.unwrap();
        assert_eq!(run.records.lock().unwrap().len(), 3);
    }

    #[tokio::test]
    async fn an_attempt_in_flight_at_the_stop_may_end_and_is_journaled() {
        let mut receiver = receiver().await;
        let run = start(vec![endpoint("sfa", receiver.port, 3)], true);
        run.commands.send(message("sfa", 1, "a")).await.unwrap();
        run.commands.send(message("sfa", 1, "b")).await.unwrap();
        let (mut stream, _) = receiver.next().await;
        run.stop.send(()).unwrap();
        reply(&mut stream, "204 Fine").await;
        assert_eq!(soon(run.task).await.unwrap().unfinished, 0);
        let records = run.records.lock().unwrap();
        assert_eq!(records.len(), 1);
        assert!(matches!(records[0].outcome, Outcome::Answered { status: 204, .. }));
        assert!(receiver.requests.try_recv().is_err(), "nothing new is begun");
    }

    #[tokio::test]
    async fn nothing_is_sent_after_the_journal_has_stopped() {
        let mut receiver = receiver().await;
        let run = start(vec![endpoint("sfa", receiver.port, 3)], false);
        run.commands.send(message("sfa", 1, "a")).await.unwrap();
        receiver.answer("500 No").await;
        assert!(soon(run.task).await.unwrap().journal_stopped);
        assert!(receiver.requests.try_recv().is_err());
    }

    #[tokio::test]
    async fn death_disabling_refusal_and_skew_are_told() {
        let mut receiver = receiver().await;
        let mut run = start(vec![endpoint("sfa", receiver.port, 1)], true);
        run.commands.send(message("sfa", 1, "a")).await.unwrap();
        receiver.answer("500 No\r\ndate: Fri, 15 Jan 2027 08:00:02 GMT").await;
        let sfa = EndpointId::parse("sfa").unwrap();
        let skew = Notice::Skew { endpoint: sfa.clone(), ms: 2000 };
        assert_eq!(soon(run.notices.recv()).await, Some(skew));
        let dead = |name: &str| Notice::Dead {
            endpoint: sfa.clone(),
            message: MessageId::parse(name).unwrap(),
            kept: true,
        };
        assert_eq!(soon(run.notices.recv()).await, Some(dead("a")));
        run.commands.send(message("sfa", 1, "b")).await.unwrap();
        receiver.answer("410 Gone").await;
        assert_eq!(soon(run.notices.recv()).await, Some(dead("b")));
        let disabled = Notice::Disabled { endpoint: sfa.clone(), why: DisableReason::Gone };
        assert_eq!(soon(run.notices.recv()).await, Some(disabled));
        run.commands.send(message("crm", 1, "c")).await.unwrap();
        let unknown = Notice::Refused {
            endpoint: EndpointId::parse("crm").unwrap(),
            message: Some(MessageId::parse("c").unwrap()),
            why: Refusal::UnknownEndpoint,
        };
        assert_eq!(soon(run.notices.recv()).await, Some(unknown));
    }

    #[tokio::test]
    async fn the_driver_wakes_for_a_wait_and_not_for_one_that_is_over() {
        let clock: super::super::client::Clock = Arc::new(|| NOW);
        let client = Client::new("1", Resolver::System, Timeouts::default(), clock, None);
        let mut driver = Driver {
            queue: Queue::new(Limits::default()),
            client: client.unwrap(),
            addresses: BTreeMap::new(),
            flying: JoinSet::new(),
            writing: None,
            next: Batch::default(),
            wake: None,
            world: World {
                journal: |_| std::future::ready(Ok(())),
                notice: |_| {},
                clock: || NOW,
                jitter: || 0.0,
                figures: watch::Sender::new(Figures::default()),
            },
        };
        let mut endpoint = endpoint("sfa", 80, 2);
        endpoint.settings.schedule = vec![Duration::from_secs(7); 2].into();
        let known = driver.know(endpoint);
        let queued = driver.command(message("sfa", 1, "a")).unwrap();
        driver.step(vec![known, Input::Loaded, queued]);
        assert_eq!(driver.wake, Some(NOW.plus(Duration::from_secs(7))));
        driver.step(vec![Input::Forget(LeadRef(1))]);
        assert_eq!(driver.wake, None);
    }

    #[tokio::test]
    async fn dead_letters_are_listed_and_resent_on_demand() {
        let mut receiver = receiver().await;
        let mut run = start(vec![endpoint("sfa", receiver.port, 1)], true);
        run.commands.send(message("sfa", 1, "a")).await.unwrap();
        receiver.answer("500 No").await;
        assert!(matches!(soon(run.notices.recv()).await, Some(Notice::Dead { .. })));
        let (ask, told) = oneshot::channel();
        run.commands.send(Command::Outstanding(ask)).await.unwrap();
        let list = soon(told).await.unwrap();
        assert_eq!(list.len(), 1);
        assert_eq!((list[0].state, list[0].died), (Delivery::Exhausted { attempts: 1 }, Some(NOW)));
        let endpoint = list[0].message.endpoint.clone();
        let which = Resend::One(list[0].message.id.clone());
        run.commands.send(Command::Resend { endpoint, which }).await.unwrap();
        let again = receiver.answer("200 OK").await;
        assert_eq!(header(&again, "webhook-id"), Some("a"));
        assert_eq!(header(&again, "webhook-replay"), Some("true"));
    }
}
