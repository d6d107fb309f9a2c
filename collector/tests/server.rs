//! The HTTP server against raw sockets: limits, time-outs, hostile requests, TLS, graceful stop.
//!
//! Time-outs under test are tens of milliseconds and end with an event the client sees; ten seconds
//! are only the guard against hanging.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::future::Future;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use collector::net::{ForwardedHeader, TrustedProxies};
use collector::server::{
    Body, BodyTimeouts, Connections, HeadLimits, Peer, ServerCounters, ServerSettings, Timeouts,
    Tls, full, plain, read_body, run, stream,
};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const GUARD: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(40);
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
const BIG_BYTES: usize = 64 * 1024 * 1024;
const ECHO_LIMIT: usize = 64;

/// What the handler of these tests needs and remembers.
#[derive(Default)]
struct World {
    counters: Arc<ServerCounters>,
    body_timeouts: BodyTimeouts,
    paths: Mutex<Vec<String>>,
    entered: Notify,
    release: Notify,
    frames: Mutex<Option<mpsc::Receiver<Bytes>>>,
}

struct Frames(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

async fn handle(request: Request<Incoming>, peer: Peer, world: Arc<World>) -> Response<Body> {
    let path = request.uri().path().to_string();
    world.paths.lock().unwrap().push(path.clone());
    match path.as_str() {
        "/echo" => {
            let (limits, counters) = (world.body_timeouts, &world.counters);
            match read_body(request.into_body(), ECHO_LIMIT, limits, counters).await {
                Ok(bytes) => Response::new(full(bytes)),
                Err(error) => error.answer(),
            }
        }
        "/wait" => {
            world.entered.notify_one();
            world.release.notified().await;
            plain(StatusCode::OK, "waited")
        }
        "/never" => std::future::pending().await,
        "/panic" => panic!("as asked for"),
        "/big" => Response::new(full(vec![b'x'; BIG_BYTES])),
        "/peer" => Response::new(full(format!("{} {}", peer.address, peer.secure))),
        "/stream" => {
            let frames = world.frames.lock().unwrap().take().unwrap();
            Response::new(stream(Frames(frames)))
        }
        _ => plain(StatusCode::OK, "ok"),
    }
}

struct Server {
    address: SocketAddr,
    world: Arc<World>,
    counters: Arc<ServerCounters>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<usize>,
}

impl Server {
    fn start(settings: ServerSettings) -> Server {
        Server::start_with(settings, BodyTimeouts::default())
    }

    fn start_with(settings: ServerSettings, body_timeouts: BodyTimeouts) -> Server {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        // Thousands may wait to be accepted; with a shorter queue the kernel would slow them down.
        let listener = socket.listen(4096).unwrap();
        let address = listener.local_addr().unwrap();
        let counters = Arc::new(ServerCounters::default());
        let world = World { counters: Arc::clone(&counters), body_timeouts, ..World::default() };
        let world = Arc::new(world);
        let (stop, stopped) = oneshot::channel();
        let handler = {
            let world = Arc::clone(&world);
            move |request, peer| handle(request, peer, Arc::clone(&world))
        };
        let shutdown = async move {
            let _ = stopped.await;
        };
        let task = tokio::spawn(run(listener, shutdown, handler, settings, Arc::clone(&counters)));
        Server { address, world, counters, stop, task }
    }

    async fn connect(&self) -> TcpStream {
        guard(TcpStream::connect(self.address)).await.unwrap()
    }

    /// Sends, says that this is all, and reads until the server closes.
    async fn exchange(&self, request: &[u8]) -> String {
        let mut client = self.connect().await;
        // A refusal may come, and the socket close, before everything is written.
        let _ = client.write_all(request).await;
        let _ = client.shutdown().await;
        rest(&mut client).await
    }

    fn count(&self, name: &str) -> u64 {
        let all: BTreeMap<_, _> = self.counters.iter().collect();
        all[name]
    }

    fn paths(&self) -> Vec<String> {
        self.world.paths.lock().unwrap().clone()
    }

    async fn until(&self, what: impl Fn(&Server) -> bool) {
        guard(async {
            while !what(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    async fn still_serves(&self) {
        let answer = self.exchange(GET.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

async fn guard<T>(work: impl Future<Output = T>) -> T {
    timeout(GUARD, work).await.expect("hangs")
}

/// Everything up to the end of the stream; a reset ends it too.
async fn rest<S: AsyncRead + Unpin>(client: &mut S) -> String {
    let mut bytes = Vec::new();
    let _ = guard(client.read_to_end(&mut bytes)).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads one answer with a content-length, and no byte more.
async fn one_answer<S: AsyncRead + Unpin>(client: &mut S) -> String {
    let mut bytes = Vec::new();
    let mut whole = usize::MAX;
    while bytes.len() < whole {
        let mut byte = [0];
        assert_eq!(guard(client.read(&mut byte)).await.unwrap(), 1, "ends within an answer");
        bytes.push(byte[0]);
        if bytes.ends_with(b"\r\n\r\n") && whole == usize::MAX {
            let head = String::from_utf8_lossy(&bytes).to_lowercase();
            let length = head.split("content-length: ").nth(1).expect("has a length");
            whole = bytes.len() + length.split("\r\n").next().unwrap().parse::<usize>().unwrap();
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(client: &mut S, request: &str) -> String {
    client.write_all(request.as_bytes()).await.unwrap();
    one_answer(client).await
}

fn answers(text: &str) -> usize {
    text.matches("HTTP/1.1 ").count()
}

fn settings(change: impl FnOnce(&mut Timeouts)) -> ServerSettings {
    // Long enough never to be what ends a test that is about something else.
    let long = Duration::from_mins(1);
    let mut timeouts = Timeouts {
        first_byte: long,
        header: long,
        request: long,
        idle: long,
        write: long,
        linger: Duration::from_secs(2),
    };
    change(&mut timeouts);
    ServerSettings { connections: Connections::new(4096, 4096), timeouts, ..Default::default() }
}

fn with_connections(connections_max: usize, per_address_max: usize) -> ServerSettings {
    let connections = Connections::new(connections_max, per_address_max);
    ServerSettings { connections, ..settings(|_| ()) }
}

// Time-outs.

#[tokio::test]
async fn a_silent_connection_is_closed_without_an_answer() {
    let server = Server::start(settings(|it| it.first_byte = SHORT));
    let mut client = server.connect().await;
    assert_eq!(rest(&mut client).await, "");
    assert_eq!(server.count("timed_out_silent"), 1);
}

#[tokio::test]
async fn a_head_that_drips_is_answered_408_however_busy_it_drips() {
    let server = Server::start(settings(|it| it.header = SHORT));
    let (mut reader, mut writer) = server.connect().await.into_split();
    let dripping = tokio::spawn(async move {
        let _ = writer.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX: ").await;
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let answer = rest(&mut reader).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(server.count("timed_out_header"), 1);
    dripping.abort();
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_line_end_does_not_keep_it_open() {
    let server = Server::start(settings(|it| it.idle = SHORT));
    let mut client = server.connect().await;
    assert!(ask(&mut client, GET).await.starts_with("HTTP/1.1 200 "));
    client.write_all(b"\r\n").await.unwrap();
    assert_eq!(rest(&mut client).await, "");
    assert_eq!((server.count("timed_out_idle"), server.count("timed_out_header")), (1, 0));
}

#[tokio::test]
async fn a_body_that_pauses_or_drips_is_answered_408() {
    let timeouts = BodyTimeouts { pause: SHORT, total: SHORT * 4 };
    let server = Server::start_with(settings(|_| ()), timeouts);
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 60\r\n\r\nhalf";
    let mut client = server.connect().await;
    client.write_all(head.as_bytes()).await.unwrap();
    let paused = rest(&mut client).await;
    assert!(paused.starts_with("HTTP/1.1 408 "), "{paused}");
    // No single pause is too long here; the sum of them is.
    let (mut reader, mut writer) = server.connect().await.into_split();
    let dripping = tokio::spawn(async move {
        let _ = writer.write_all(head.as_bytes()).await;
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(SHORT / 4).await;
        }
    });
    let dripped = rest(&mut reader).await;
    assert!(dripped.starts_with("HTTP/1.1 408 "), "{dripped}");
    assert_eq!(server.count("timed_out_body"), 2);
    dripping.abort();
    server.still_serves().await;
}

#[tokio::test]
async fn a_handler_that_never_answers_is_given_up_with_503() {
    let server = Server::start(settings(|it| it.request = SHORT));
    let answer = server.exchange(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert_eq!(server.count("timed_out_request"), 1);
    server.still_serves().await;
}

#[tokio::test]
async fn a_client_that_does_not_take_its_answer_is_cut_off() {
    let server = Server::start(settings(|it| it.write = SHORT));
    let mut client = server.connect().await;
    client.write_all(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    server.until(|server| server.count("timed_out_write") == 1).await;
    assert!(rest(&mut client).await.len() < BIG_BYTES);
    server.until(|server| server.count("active") == 0).await;
}

#[tokio::test]
async fn a_client_that_takes_its_answer_slowly_but_steadily_gets_all_of_it() {
    let server = Server::start(settings(|it| it.write = Duration::from_secs(5)));
    let mut client = server.connect().await;
    client.write_all(b"GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut got = 0;
    let mut piece = vec![0; 1024 * 1024];
    loop {
        match guard(client.read(&mut piece)).await.unwrap() {
            0 => break,
            bytes => got += bytes,
        }
        tokio::task::yield_now().await;
    }
    assert!(got > BIG_BYTES);
    assert_eq!(server.count("timed_out_write"), 0);
}

#[tokio::test]
async fn a_stream_reaches_the_client_piece_by_piece_and_outlives_every_deadline() {
    let short = |it: &mut Timeouts| (it.request, it.write, it.idle) = (SHORT, SHORT, SHORT);
    let server = Server::start(settings(short));
    let (frames, received) = mpsc::channel(1);
    *server.world.frames.lock().unwrap() = Some(received);
    let mut client = server.connect().await;
    client.write_all(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut seen = String::new();
    for piece in ["one", "two", "three"] {
        frames.send(Bytes::from(piece)).await.unwrap();
        while !seen.contains(piece) {
            let mut bytes = [0; 256];
            let read = guard(client.read(&mut bytes)).await.unwrap();
            assert!(read > 0, "ended after {seen:?}");
            seen.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
        // Nothing to send for longer than any deadline.
        tokio::time::sleep(SHORT * 2).await;
    }
    drop(frames);
    assert!(rest(&mut client).await.ends_with("0\r\n\r\n"));
}

// Limits.

#[tokio::test]
async fn a_request_line_too_long_is_414_and_a_vendors_path_may_use_the_longer_one() {
    let head =
        HeadLimits { long_line_prefixes: vec!["/matomo".to_string()], ..HeadLimits::default() };
    let server = Server::start(ServerSettings { head, ..settings(|_| ()) });
    let get = async |path: &str, bytes: usize| {
        let request = format!("GET {path}?{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(bytes));
        server.exchange(request.as_bytes()).await[..13].to_string()
    };
    assert_eq!(get("/p.gif", 8_000).await, "HTTP/1.1 200 ");
    assert_eq!(get("/p.gif", 8_200).await, "HTTP/1.1 414 ");
    assert_eq!(get("/matomo", 20_000).await, "HTTP/1.1 200 ");
    assert_eq!(get("/matomo", 21_000).await, "HTTP/1.1 414 ");
    assert_eq!(get("/p.gif", 200_000).await, "HTTP/1.1 414 ");
    assert_eq!(server.count("too_long_line"), 3);
}

#[tokio::test]
async fn too_many_or_too_large_headers_are_431() {
    let server = Server::start(settings(|_| ()));
    let get = async |headers: usize, bytes: usize| {
        let mut request = "GET / HTTP/1.1\r\nHost: a\r\n".to_string();
        for number in 0..headers {
            write!(request, "X-{number}: {}\r\n", "y".repeat(bytes)).unwrap();
        }
        server.exchange((request + "\r\n").as_bytes()).await[..13].to_string()
    };
    assert_eq!(get(99, 1).await, "HTTP/1.1 200 ");
    assert_eq!(get(100, 1).await, "HTTP/1.1 431 ");
    assert_eq!(get(1, 16_000).await, "HTTP/1.1 200 ");
    assert_eq!(get(1, 17_000).await, "HTTP/1.1 431 ");
    assert_eq!(get(1, 200_000).await, "HTTP/1.1 431 ");
    assert_eq!((server.count("too_many_headers"), server.count("too_large_headers")), (1, 2));
}

#[tokio::test]
async fn a_body_a_little_too_large_is_413_and_its_connection_can_be_used_again() {
    let server = Server::start(settings(|_| ()));
    let mut client = server.connect().await;
    let body = "x".repeat(ECHO_LIMIT + 1);
    let length =
        format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    assert!(ask(&mut client, &length).await.starts_with("HTTP/1.1 413 "));
    let chunked = format!(
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
         20\r\n{}\r\n21\r\n{}\r\n0\r\n\r\n",
        &body[..32],
        &body[..33]
    );
    assert!(ask(&mut client, &chunked).await.starts_with("HTTP/1.1 413 "));
    assert!(ask(&mut client, GET).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(server.count("too_large_body"), 2);
}

#[tokio::test]
async fn a_body_far_too_large_is_413_and_the_client_that_sends_all_of_it_sees_it() {
    let server = Server::start(settings(|_| ()));
    let body = "x".repeat(200 * 1024);
    let bodies = [
        format!("Content-Length: {}\r\n\r\n{body}", body.len()),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
    ];
    for body in bodies {
        let mut client = server.connect().await;
        let request = format!("POST /echo HTTP/1.1\r\nHost: a\r\n{body}");
        client.write_all(request.as_bytes()).await.unwrap();
        let answer = rest(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }
    assert_eq!(server.count("too_large_body"), 2);
}

#[tokio::test]
async fn what_a_refused_client_goes_on_sending_is_read_and_not_answered_by_a_reset() {
    let server = Server::start(settings(|_| ()));
    for refused in [
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nbeginning",
        "GET / HTTP/9\r\n\r\n",
    ] {
        let mut client = server.connect().await;
        ask(&mut client, refused).await;
        // The server has closed its side; a reset would fail the second write at the latest.
        assert_eq!(rest(&mut client).await, "");
        client.write_all(&[b'x'; 1000]).await.unwrap();
        tokio::task::yield_now().await;
        client.write_all(&[b'x'; 1000]).await.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_413_before_it_sends_its_body() {
    let server = Server::start(settings(|_| ()));
    let ask_first = |length: usize| {
        format!(
            "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\
             Content-Length: {length}\r\n\r\n"
        )
    };
    let mut client = server.connect().await;
    client.write_all(ask_first(1_000_000).as_bytes()).await.unwrap();
    assert!(rest(&mut client).await.starts_with("HTTP/1.1 413 "));
    let mut client = server.connect().await;
    client.write_all(ask_first(2).as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    guard(client.read_exact(&mut go_on)).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    assert!(ask(&mut client, "hi").await.ends_with("\r\n\r\nhi"));
}

#[tokio::test]
async fn an_address_gets_its_share_of_connections_and_no_more() {
    let server = Server::start(with_connections(100, 2));
    let mut first = server.connect().await;
    let mut second = server.connect().await;
    ask(&mut first, GET).await;
    ask(&mut second, GET).await;
    let mut third = server.connect().await;
    assert_eq!(rest(&mut third).await, "");
    assert_eq!(server.count("refused_per_address"), 1);
    drop(first);
    server.until(|server| server.count("active") == 1).await;
    assert!(ask(&mut server.connect().await, GET).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn the_share_of_an_address_is_not_asked_for_behind_a_trusted_proxy() {
    let networks = vec!["127.0.0.1/32".parse().unwrap()];
    let trusted_proxies = TrustedProxies { networks, header: ForwardedHeader::XForwardedFor };
    let settings = ServerSettings { trusted_proxies, ..with_connections(100, 1) };
    let server = Server::start(settings);
    let mut first = server.connect().await;
    let mut second = server.connect().await;
    let request = "GET /peer HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1, 192.0.2.7\r\n\
                   X-Forwarded-Proto: https\r\n\r\n";
    for client in [&mut first, &mut second] {
        assert!(ask(client, request).await.ends_with("\r\n\r\n192.0.2.7 true"));
    }
}

#[tokio::test]
async fn nobody_but_a_trusted_proxy_can_name_another_address() {
    let server = Server::start(settings(|_| ()));
    let request = b"GET /peer HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.7\r\n\
                    X-Forwarded-Proto: https\r\n\r\n";
    assert!(server.exchange(request).await.ends_with("\r\n\r\n127.0.0.1 false"));
}

#[tokio::test]
async fn a_connection_beyond_the_limit_waits_until_another_one_ends() {
    let server = Server::start(with_connections(2, 100));
    let mut first = server.connect().await;
    let mut second = server.connect().await;
    ask(&mut first, GET).await;
    ask(&mut second, GET).await;
    let mut third = server.connect().await;
    third.write_all(GET.as_bytes()).await.unwrap();
    ask(&mut first, GET).await;
    assert_eq!(server.count("accepted"), 2);
    drop(first);
    assert!(one_answer(&mut third).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn two_thousand_silent_connections_pass_through_room_for_a_hundred() {
    let settings = ServerSettings {
        connections: Connections::new(100, 4096),
        ..settings(|it| it.first_byte = SHORT)
    };
    let server = Arc::new(Server::start(settings));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let server = Arc::clone(&server);
        clients.spawn(async move {
            let mut open = Vec::new();
            for _ in 0..100 {
                open.push(server.connect().await);
            }
            for mut client in open {
                assert_eq!(rest(&mut client).await, "");
                assert!(server.count("active") <= 100);
            }
        });
    }
    clients.join_all().await;
    assert_eq!((server.count("accepted"), server.count("timed_out_silent")), (2000, 2000));
}

// Requests one after another, and hostile ones.

#[tokio::test]
async fn pipelined_requests_are_each_answered_in_their_order() {
    let server = Server::start(settings(|_| ()));
    let post = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
    let chunked = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                   2\r\nfo\r\n1;x=y\r\nu\r\n0\r\n\r\n";
    let all = format!("{post}one{post}two\r\n{GET}{chunked}{GET}");
    let answer = server.exchange(all.as_bytes()).await;
    let bodies: Vec<_> = ["\r\n\r\none", "\r\n\r\ntwo", "\r\n\r\nok", "\r\n\r\nfou"].to_vec();
    let places: Vec<_> = bodies.iter().map(|body| answer.find(body)).collect();
    assert!(places.is_sorted() && places.iter().all(Option::is_some), "{answer}");
    assert_eq!((answers(&answer), server.count("requests")), (5, 5));
}

#[tokio::test]
async fn a_request_cut_at_any_byte_is_read_as_if_it_had_come_whole() {
    let server = Server::start(settings(|_| ()));
    let request = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n0\r\n\r\n";
    for cut in 1..request.len() {
        let mut client = server.connect().await;
        client.set_nodelay(true).unwrap();
        client.write_all(&request.as_bytes()[..cut]).await.unwrap();
        tokio::task::yield_now().await;
        let answer = ask(&mut client, &request[cut..]).await;
        assert!(answer.ends_with("\r\n\r\nabc"), "cut at {cut}: {answer}");
    }
}

#[tokio::test]
async fn a_good_request_is_answered_before_the_bad_one_behind_it_is_refused() {
    let server = Server::start(settings(|_| ()));
    let mut client = server.connect().await;
    let both = format!("GET /wait HTTP/1.1\r\nHost: a\r\n\r\nBAD\r\n\r\n{SMUGGLED}");
    client.write_all(both.as_bytes()).await.unwrap();
    guard(server.world.entered.notified()).await;
    server.world.release.notify_one();
    let answer = rest(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("waitedHTTP/1.1 400 "), "{answer}");
    assert_eq!((answers(&answer), server.paths()), (2, vec!["/wait".to_string()]));
}

#[tokio::test]
async fn a_client_that_stops_sending_still_gets_its_answer() {
    let server = Server::start(settings(|_| ()));
    let mut client = server.connect().await;
    client.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    client.shutdown().await.unwrap();
    guard(server.world.entered.notified()).await;
    server.world.release.notify_one();
    assert!(rest(&mut client).await.ends_with("waited"));
}

/// Heads that two readers could understand differently, or that nobody should send.
const HOSTILE_HEADS: [&str; 37] = [
    "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
     0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n\
     0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 40\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 40\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: +0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0x0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0 0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999999\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length : 0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: a\r\nContent\u{0}-Length: 0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\
     \r\n0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \u{b}chunked\r\n\r\n0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "POST /echo HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n folded\r\n\r\n",
    "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a@b/c\r\n\r\n",
    "GET / HTTP/1.1\r\nX: no host\r\n\r\n",
    "GET / HTTP/1.1\nHost: a\n\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: bare\nY: line feed\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: bare\rY: return\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n: no name\r\n\r\n",
    "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
    "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
];

#[tokio::test]
async fn a_head_that_can_be_read_in_two_ways_is_400_and_nothing_behind_it_is_answered() {
    let server = Server::start(settings(|_| ()));
    for head in HOSTILE_HEADS {
        let answer = server.exchange(format!("{head}{SMUGGLED}").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{head:?}: {answer}");
        assert!(answer.contains("connection: close"), "{head:?}: {answer}");
        assert_eq!(answers(&answer), 1, "{head:?}: {answer}");
    }
    assert_eq!(server.paths(), Vec::<String>::new());
    assert_eq!(server.count("malformed"), HOSTILE_HEADS.len() as u64);
    server.still_serves().await;
}

const HOSTILE_CHUNKS: [&str; 15] = [
    "g\r\n",
    "-1\r\nx",
    "0x1\r\nx\r\n0\r\n\r\n",
    " 1\r\nx\r\n0\r\n\r\n",
    "1 \r\nx\r\n0\r\n\r\n",
    "\r\n0\r\n\r\n",
    "1\nx\n0\n\n",
    "1\r\nxx\r\n0\r\n\r\n",
    "1\r\nx0\r\n\r\n",
    "0\r\nX: trailer\r\n\r\n",
    "0\r\nContent-Length: 9\r\n\r\n",
    "FFFFFFFFFFFFFFFFF\r\nx",
    "10000000000000001\r\nx\r\n0\r\n\r\n",
    "1;a\nb\r\nx\r\n0\r\n\r\n",
    "1;\u{1}\r\nx\r\n0\r\n\r\n",
];

#[tokio::test]
async fn a_chunk_that_can_be_read_in_two_ways_is_400_and_nothing_behind_it_is_answered() {
    let server = Server::start(settings(|_| ()));
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for chunk in HOSTILE_CHUNKS {
        for first in ["", "2\r\nok\r\n"] {
            let answer =
                server.exchange(format!("{head}{first}{chunk}{SMUGGLED}").as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{chunk:?}: {answer}");
            assert_eq!(answers(&answer), 1, "{chunk:?}: {answer}");
        }
    }
    assert!(!server.paths().contains(&"/smuggled".to_string()));
    assert_eq!(server.count("malformed"), 2 * HOSTILE_CHUNKS.len() as u64);
    server.still_serves().await;
}

#[tokio::test]
async fn what_a_handler_leaves_unread_of_a_body_is_never_taken_for_a_request() {
    let server = Server::start(settings(|_| ()));
    for length in [SMUGGLED.len(), 100_000] {
        let body = SMUGGLED.repeat(length / SMUGGLED.len());
        let request =
            format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let answer = server.exchange(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(answers(&answer), 1);
    }
    assert_eq!(server.paths(), ["/", "/"]);
}

#[tokio::test]
async fn unusual_but_clear_requests_are_answered() {
    let server = Server::start(settings(|_| ()));
    for request in [
        "GET / HTTP/1.0\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "GET /?q=%00%ff'{}| HTTP/1.1\r\nhOsT:a:8080\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0002\r\n\r\nhi",
        "POST /echo HTTP/1.1\r\nHost:\r\nTransfer-Encoding: Chunked \r\n\r\n\
         02;x\r\nhi\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nCookie: \u{e9}\tz\r\nEmpty:\r\n\r\n",
    ] {
        let answer = server.exchange(request.as_bytes()).await;
        assert!(answer[8..].starts_with(" 200 "), "{request:?}: {answer}");
    }
    assert_eq!(server.count("malformed"), 0);
}

#[tokio::test]
async fn what_only_hypers_parser_refuses_is_counted_too() {
    let server = Server::start(settings(|_| ()));
    let answer = server.exchange(b"GET /?<b> HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(server.count("malformed"), 1);
}

#[tokio::test]
async fn a_panicking_handler_is_a_500_and_the_server_lives() {
    let server = Server::start(settings(|_| ()));
    let answer = server.exchange(b"GET /panic HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert_eq!(server.count("panicked"), 1);
    server.still_serves().await;
}

#[tokio::test]
async fn recorded_requests_of_a_parsers_own_tests_never_cause_a_5xx() {
    let Some(folder) = std::env::var_os("MIKOMI_TEST_DATA") else {
        println!("skipped: recorded_requests (MIKOMI_TEST_DATA is not set)");
        return;
    };
    let file = std::path::Path::new(&folder).join("httparse_cases.jsonl.gz");
    let Ok(file) = std::fs::File::open(&file) else {
        println!("skipped: recorded_requests ({} is not there)", file.display());
        return;
    };
    let mut lines = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut lines).unwrap();
    let server = Server::start(settings(|_| ()));
    let mut cases = 0;
    for line in lines.lines() {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let bytes = case["b64"].as_str().unwrap();
        let bytes = base64::engine::general_purpose::STANDARD.decode(bytes).unwrap();
        let answer = server.exchange(&bytes).await;
        let allowed = answer.is_empty() || matches!(answer.as_bytes()[9], b'2' | b'4');
        assert!(allowed, "{}: {answer}", case["name"]);
        cases += 1;
    }
    assert!(cases > 0);
    assert_eq!(server.count("panicked"), 0);
    server.still_serves().await;
}

// The end of the server, and trouble around it.

#[tokio::test]
async fn a_stop_finishes_the_request_in_hand_closes_idle_ones_and_takes_no_more() {
    let server = Server::start(settings(|_| ()));
    let mut idle = server.connect().await;
    ask(&mut idle, GET).await;
    let mut silent = server.connect().await;
    let mut busy = server.connect().await;
    busy.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    guard(server.world.entered.notified()).await;
    server.until(|server| server.count("active") == 3).await;
    server.stop.send(()).unwrap();
    assert_eq!(rest(&mut idle).await, "");
    assert_eq!(rest(&mut silent).await, "");
    assert!(TcpStream::connect(server.address).await.is_err());
    server.world.release.notify_one();
    let answer = rest(&mut busy).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close"),
        "{answer}"
    );
    assert_eq!(guard(server.task).await.unwrap(), 0);
}

#[tokio::test]
async fn a_stop_cuts_off_what_does_not_finish_in_time_and_says_how_many() {
    let settings = ServerSettings { stop_within: SHORT, ..settings(|_| ()) };
    let server = Server::start(settings);
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = server.connect().await;
        client.write_all(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        clients.push(client);
    }
    server.until(|server| server.count("requests") == 3).await;
    server.stop.send(()).unwrap();
    assert_eq!(guard(server.task).await.unwrap(), 3);
    for mut client in clients {
        assert_eq!(rest(&mut client).await, "");
    }
    let counted: BTreeMap<_, _> = server.counters.iter().collect();
    assert_eq!((counted["dropped_at_stop"], counted["active"]), (3, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_runs_on_many_threads_as_well() {
    let server = Server::start(settings(|_| ()));
    server.still_serves().await;
    server.stop.send(()).unwrap();
    assert_eq!(guard(server.task).await.unwrap(), 0);
}

/// Runs only as the child of the test below, in a shell with few file descriptors.
#[tokio::test]
async fn starved_of_file_descriptors() {
    if std::env::var_os("MIKOMI_STARVED_CHILD").is_none() {
        return;
    }
    let server = Server::start(settings(|_| ()));
    println!("\nport={}", server.address.port());
    server.until(|server| server.count("accept_errors") > 0).await;
    println!("\nstarved");
    server.until(|server| server.paths().contains(&"/last".to_string())).await;
    server.stop.send(()).unwrap();
    guard(server.task).await.unwrap();
}

#[test]
fn without_file_descriptors_the_server_waits_and_then_goes_on() {
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" --exact starved_of_file_descriptors --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .env("MIKOMI_STARVED_CHILD", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let port = lines.find_map(|line| line.unwrap().strip_prefix("port=").map(str::to_string));
    let address = format!("127.0.0.1:{}", port.expect("the child says its port"));
    let clients: Vec<_> =
        (0..100).map(|_| std::net::TcpStream::connect(&address).unwrap()).collect();
    assert!(lines.any(|line| line.unwrap() == "starved"));
    drop(clients);
    let mut last = std::net::TcpStream::connect(&address).unwrap();
    last.set_read_timeout(Some(GUARD)).unwrap();
    let request = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    std::io::Write::write_all(&mut last, request).unwrap();
    let mut answer = String::new();
    last.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(child.wait().unwrap().success());
}

// TLS.

struct Certificate {
    folder: tempfile::TempDir,
}

impl Certificate {
    fn new() -> Certificate {
        Certificate { folder: tempfile::tempdir().unwrap() }
    }

    fn paths(&self) -> (std::path::PathBuf, std::path::PathBuf) {
        (self.folder.path().join("chain.pem"), self.folder.path().join("key.pem"))
    }

    /// Writes a new certificate and answers a client that trusts only this one.
    fn renew(&self) -> TlsConnector {
        let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
        let (chain, key) = self.paths();
        std::fs::write(chain, made.cert.pem()).unwrap();
        std::fs::write(key, made.signing_key.serialize_pem()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }

    fn load(&self) -> Arc<Tls> {
        let (chain, key) = self.paths();
        Arc::new(Tls::load(&chain, &key).unwrap())
    }
}

async fn ask_by_tls(
    server: &Server,
    client: &TlsConnector,
    request: &str,
) -> std::io::Result<String> {
    let socket = server.connect().await;
    let mut socket = guard(client.connect("localhost".try_into().unwrap(), socket)).await?;
    Ok(ask(&mut socket, request).await)
}

#[tokio::test]
async fn a_request_by_tls_is_answered_and_known_to_be_secure() {
    let certificate = Certificate::new();
    let client = certificate.renew();
    let tls = Some(certificate.load());
    let server = Server::start(ServerSettings { tls, ..settings(|_| ()) });
    let request = "GET /peer HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let answer = ask_by_tls(&server, &client, request).await.unwrap();
    assert!(answer.ends_with("\r\n\r\n127.0.0.1 true"), "{answer}");
    let refused = ask_by_tls(&server, &client, "GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
}

#[tokio::test]
async fn a_certificate_is_exchanged_while_running_and_a_bad_one_changes_nothing() {
    let certificate = Certificate::new();
    let old = certificate.renew();
    let tls = certificate.load();
    let settings = ServerSettings { tls: Some(Arc::clone(&tls)), ..settings(|_| ()) };
    let server = Server::start(settings);
    let new = certificate.renew();
    assert!(ask_by_tls(&server, &old, GET).await.is_ok());
    tls.reload().unwrap();
    assert!(ask_by_tls(&server, &old, GET).await.is_err());
    assert!(ask_by_tls(&server, &new, GET).await.is_ok());
    let (chain, key) = certificate.paths();
    std::fs::write(&chain, "").unwrap();
    assert!(tls.reload().unwrap_err().to_string().contains("no certificate in it"));
    std::fs::remove_file(&key).unwrap();
    assert!(tls.reload().is_err());
    assert!(ask_by_tls(&server, &new, GET).await.is_ok());
}

#[tokio::test]
async fn a_handshake_that_fails_or_stops_is_closed_and_counted() {
    let certificate = Certificate::new();
    let client = certificate.renew();
    let tls = Some(certificate.load());
    let settings = ServerSettings { tls, ..settings(|it| it.first_byte = SHORT * 4) };
    let server = Server::start(settings);
    // Answered by a TLS alert at most.
    assert!(!server.exchange(GET.as_bytes()).await.contains("HTTP/"));
    assert_eq!(server.count("handshake_failed"), 1);
    assert_eq!(rest(&mut server.connect().await).await, "");
    assert_eq!(server.count("timed_out_handshake"), 1);
    assert!(ask_by_tls(&server, &client, GET).await.is_ok());
}
