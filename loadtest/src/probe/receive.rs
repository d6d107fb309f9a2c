//! Receivers as they are found in the world. Each takes every webhook whole and writes it down
//! before it answers, or does not answer: what was signed, and the exact body, for somebody else
//! to check.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::net::sockopt::set_socket_linger;
use serde_json::{Value, json};

use super::Failure;
use super::http;

/// Times the receiver that is slow to take a message answers 500 to it before it takes it.
const REFUSALS: u32 = 3;
/// Nobody is written to for longer without taking any of it.
const PATIENCE: Duration = Duration::from_mins(1);

/// How a receiver is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Manner {
    /// 204 at once.
    Good,
    /// 500 three times for each message, then 204.
    SlowToTake,
    /// Takes the message and never answers.
    Hanging,
    /// Takes the message and resets the connection.
    Resetting,
    /// 200 with a body that never ends.
    Endless,
}

const MANNERS: [(&str, Manner); 5] = [
    ("good", Manner::Good),
    ("slow_to_take", Manner::SlowToTake),
    ("hanging", Manner::Hanging),
    ("resetting", Manner::Resetting),
    ("endless", Manner::Endless),
];

/// A receiver, and where it listens.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    manner: Manner,
    name: &'static str,
    address: SocketAddr,
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Place, &'static str> {
        let (manner, address) = text.split_once('=').ok_or("there is no \"=\"")?;
        let known = MANNERS.into_iter().find(|(name, _)| *name == manner);
        let (name, manner) = known.ok_or("nobody receives in that manner")?;
        let address = address.parse().map_err(|_| "that is no address")?;
        Ok(Place { manner, name, address })
    }
}

struct Book {
    file: Mutex<File>,
    /// Message -> how often it was refused.
    refused: Mutex<BTreeMap<String, u32>>,
}

impl Book {
    /// One line a request. A body is JSON on one line, so it holds neither tab nor line end.
    fn write(&self, name: &str, head: &[u8], body: &[u8], answer: u32) -> io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let text = |header| {
            let value = http::header(head, header).unwrap_or_default();
            String::from_utf8_lossy(value).into_owned()
        };
        let (id, stamp) = (text("webhook-id"), text("webhook-timestamp"));
        let (signature, attempt) = (text("webhook-signature"), text("mikomi-attempt"));
        let mut line = format!(
            "{name}\t{}\t{id}\t{stamp}\t{signature}\t{attempt}\t{answer}\t",
            now.as_millis()
        )
        .into_bytes();
        line.extend_from_slice(body);
        line.push(b'\n');
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line)
    }

    fn refuses(&self, id: &[u8]) -> bool {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let times = refused.entry(String::from_utf8_lossy(id).into_owned()).or_default();
        *times += 1;
        *times <= REFUSALS
    }
}

/// Receives until standard input ends.
pub fn run(places: &[Place], out: &Path) -> Result<Value, Failure> {
    let book = Arc::new(Book { file: Mutex::new(File::create(out)?), refused: Mutex::default() });
    for place in places.iter().copied() {
        let listener = TcpListener::bind(place.address)?;
        let book = Arc::clone(&book);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let book = Arc::clone(&book);
                thread::spawn(move || take(place, stream, &book));
            }
        });
    }
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(json!({ "receivers": places.len() }))
}

/// Takes one request. mikomi opens a connection for each; whatever is wrong with one ends it.
fn take(place: Place, mut stream: TcpStream, book: &Book) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    let mut received = Vec::new();
    let mut chunk = [0; 16 * 1_024];
    let body = loop {
        let read = stream.read(&mut chunk).ok().filter(|read| *read > 0)?;
        received.extend_from_slice(&chunk[..read]);
        if let Some((_, body)) = http::request(&received).ok()? {
            break body;
        }
    };
    let (head, body) = (&received[..body - 2], &received[body..]);
    let refused = place.manner == Manner::SlowToTake
        && book.refuses(http::header(head, "webhook-id").unwrap_or_default());
    let answer = match place.manner {
        Manner::Good | Manner::SlowToTake if !refused => 204,
        Manner::Good | Manner::SlowToTake => 500,
        Manner::Endless => 200,
        Manner::Hanging | Manner::Resetting => 0,
    };
    book.write(place.name, head, body, answer).ok()?;
    match answer {
        204 => stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").ok(),
        500 => stream.write_all(b"HTTP/1.1 500 Broken\r\ncontent-length: 0\r\n\r\n").ok(),
        200 => answer_for_ever(&mut stream).ok(),
        _ if place.manner == Manner::Resetting => {
            set_socket_linger(&stream, Some(Duration::ZERO)).ok()
        }
        // Until the other side has enough of it.
        _ => stream.read(&mut chunk).ok().map(drop),
    }
}

fn answer_for_ever(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
    let much = b"10\r\nand then I said \r\n".repeat(1_000);
    loop {
        stream.write_all(&much)?;
    }
}
