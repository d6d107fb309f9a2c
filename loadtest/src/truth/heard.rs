//! The receiver of a run: takes webhooks as a sales system would, verifies each, and remembers what
//! it said and when it was read.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ring::hmac;
use serde_json::Value;

use super::model::{Key, Kind};
use crate::clock::since_1970;
use crate::probe::http;
use crate::sink;

/// The longest message.
const MESSAGE_BYTES_MAX: usize = 4 * 1_024 * 1_024;
/// A connection that says nothing for so long is closed.
const PATIENCE: Duration = Duration::from_mins(10);

/// A message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Of whom it speaks.
    pub email: String,
    /// What it is, if it is anything that may be told.
    pub key: Option<Key>,
    /// In its own word, for people.
    pub kind: String,
    /// Which of the lead's messages.
    pub sequence: u64,
    /// Of when it speaks.
    pub at: u64,
    /// The score then, in thousandths.
    pub exact: i64,
    /// Which way the line was crossed.
    pub direction: String,
    /// What else it says.
    pub also: Vec<String>,
    /// The reason, and its points.
    pub because: Option<(String, i64)>,
    /// Whether it waited for the cool-down.
    pub waited: bool,
}

/// A message, and when it came.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Its id.
    pub id: String,
    /// What it says.
    pub message: Message,
    /// When it was read first, since the beginning.
    pub read: Duration,
    /// The same by the machine's clock.
    pub read_at: Duration,
    /// Which of all it was.
    pub place: u64,
}

/// All that was heard.
#[derive(Debug, Default)]
pub struct Book {
    /// By id.
    pub messages: BTreeMap<String, Heard>,
    /// Further deliveries of the same.
    pub repeated: u64,
    /// Without a good signature.
    pub refused: u64,
    /// Ids under which different things were said, or that cannot be read.
    pub broken: Vec<String>,
}

/// Where it stands while it is written.
pub type Shared = Arc<Mutex<Book>>;

/// Listens; its threads end with the process.
pub fn listen(address: SocketAddr, secrets: &[String], began: Instant) -> Result<Shared, String> {
    let keys: Vec<hmac::Key> = secrets.iter().map(|it| sink::key(it)).collect::<Result<_, _>>()?;
    let listener = TcpListener::bind(address).map_err(|error| format!("{address}: {error}"))?;
    let (keys, book) = (Arc::new(keys), Shared::default());
    let shared = Arc::clone(&book);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (keys, book) = (Arc::clone(&keys), Arc::clone(&shared));
            thread::spawn(move || take(stream, &keys, &book, began));
        }
    });
    Ok(book)
}

fn take(
    mut stream: TcpStream,
    keys: &[hmac::Key],
    book: &Mutex<Book>,
    began: Instant,
) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let (mut received, mut chunk) = (Vec::new(), [0; 16 * 1_024]);
    loop {
        let read = stream.read(&mut chunk).ok().filter(|read| *read > 0)?;
        received.extend_from_slice(&chunk[..read]);
        while let Some((bytes, body)) = http::request(&received).ok()? {
            let times = (began.elapsed(), since_1970());
            let (head, content) = (&received[..body - 2], &received[body..bytes]);
            let id = sink::verify(head, content, keys, times.1.as_secs());
            let answer: &[u8] = match id {
                Ok(_) => b"HTTP/1.1 204 No Content\r\n\r\n",
                Err(_) => b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
            };
            let id = id.ok();
            book.lock().unwrap_or_else(PoisonError::into_inner).note(id, content, times);
            stream.write_all(answer).ok()?;
            received.drain(..bytes);
        }
        if received.len() > MESSAGE_BYTES_MAX {
            return None;
        }
    }
}

impl Book {
    /// Takes note of one, under its id if it is signed.
    pub fn note(&mut self, id: Option<String>, body: &[u8], (read, read_at): (Duration, Duration)) {
        let Some(id) = id else {
            self.refused += 1;
            return;
        };
        let place = (self.messages.len() as u64).saturating_add(self.repeated);
        let body: Option<Value> = serde_json::from_slice(body).ok();
        let message = body.filter(|body| body["data"]["alert_id"] == id.as_str());
        match (message.as_ref().and_then(Message::of), self.messages.get(&id)) {
            (None, _) => self.broken.push(format!("{id}: it cannot be read")),
            (Some(message), Some(known)) => {
                self.repeated += 1;
                if known.message != message {
                    self.broken.push(format!("{id}: the second time it says something else"));
                }
            }
            (Some(message), None) => {
                let heard = Heard { id: id.clone(), message, read, read_at, place };
                self.messages.insert(id, heard);
            }
        }
    }
}

impl Message {
    /// As it stands in a body.
    fn of(body: &Value) -> Option<Message> {
        let data = &body["data"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let because = &data["because"];
        let because = because["rule"].as_str().map(str::to_owned);
        let because = because.zip(thousandths(&data["because"]["points"]));
        let crossing = &data["crossing"];
        let kind = match body["type"].as_str()? {
            "lead.hot" => Some(Kind::Hot),
            "lead.cooled" => Some(Kind::Cooled),
            "lead.action" => Some(Kind::Action),
            _ => None,
        };
        let line = crossing["threshold"].as_str().map(str::to_owned);
        let line = line.zip(crossing["number"].as_u64().map(|number| number as u32));
        let received = data["times"]["received"].as_str().and_then(millis_of);
        let rule = because.as_ref().map(|(rule, _)| rule.clone()).zip(received);
        let key = kind.map(|kind| Key {
            kind,
            audience: text(&data["audience"]),
            line: line.filter(|_| kind != Kind::Action),
            rule: rule.filter(|_| kind == Kind::Action),
        });
        let also = data["also"].as_array().map(Vec::as_slice).unwrap_or_default();
        Some(Message {
            email: text(&data["lead"]["email"]),
            key,
            kind: text(&body["type"]),
            sequence: data["sequence"].as_u64()?,
            at: body["timestamp"].as_str().and_then(millis_of)?,
            exact: thousandths(&data["score"]["exact"])?,
            direction: text(&crossing["direction"]),
            also: also.iter().map(text).collect(),
            because,
            waited: crossing["waited_for"].is_string(),
        })
    }
}

/// Points as they stand in JSON, which has three digits of them.
pub fn thousandths(value: &Value) -> Option<i64> {
    value.as_f64().map(|points| (points * 1e3).round() as i64)
}

/// Milliseconds since 1970 of a time as the server writes it: `2026-12-06T23:56:00.012Z`.
pub fn millis_of(text: &str) -> Option<u64> {
    let part = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (part(0, 4)?, part(5, 7)?, part(8, 10)?);
    let (hour, minute, second) = (part(11, 13)?, part(14, 16)?, part(17, 19)?);
    let fraction = match text.as_bytes().get(19)? {
        b'Z' => 0,
        b'.' => part(20, 23)?,
        _ => return None,
    };
    // Days before a year, and before a month in it, from 1970 on.
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let years: u64 = (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum();
    let lengths = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let months: u64 = lengths.get(..month.checked_sub(1)? as usize)?.iter().sum();
    let days = years + months + day.checked_sub(1)?;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000 + fraction)
}

#[cfg(test)]
pub mod tests {
    use serde_json::json;

    use super::*;

    /// The body of a message about a crossing.
    pub fn body(id: &str) -> Value {
        json!({
            "type": "lead.hot", "timestamp": "2026-12-06T23:56:00.012Z",
            "data": {
                "alert_id": id, "sequence": 3, "audience": "sales",
                "lead": { "email": "v1@buyer.example" }, "score": { "exact": 69.923 },
                "crossing": {
                    "threshold": "hot", "direction": "rise", "number": 2, "waited_for": "cooldown",
                },
                "because": { "rule": "pricing", "points": 12.0 }, "also": ["action"],
                "times": { "received": "2026-12-06T23:56:00.012Z" },
            },
        })
    }

    #[test]
    fn what_a_message_says_is_read_to_the_thousandth_and_the_millisecond() {
        let message = Message::of(&body("a")).unwrap();
        assert_eq!((message.at, message.exact), (1_796_601_360_012, 69_923));
        let key = message.key.unwrap();
        assert_eq!((key.kind, key.line), (Kind::Hot, Some(("hot".to_owned(), 2))));
        assert_eq!(message.because, Some(("pricing".to_owned(), 12_000)));
        assert!(message.waited && message.also == ["action"]);
        assert_eq!(millis_of("1970-01-01T00:00:01Z"), Some(1_000));
        assert_eq!(millis_of("2000-02-29T00:00:00.5"), None);
    }

    #[test]
    fn a_message_that_comes_again_is_one_unless_it_says_something_else() {
        let mut book = Book::default();
        let times = (Duration::ZERO, Duration::ZERO);
        let mut note = |id: Option<&str>, body: &Value| {
            book.note(id.map(str::to_owned), body.to_string().as_bytes(), times);
            (book.messages.len(), book.repeated, book.refused, book.broken.len())
        };
        assert_eq!(note(Some("a"), &body("a")), (1, 0, 0, 0));
        assert_eq!(note(Some("a"), &body("a")), (1, 1, 0, 0));
        assert_eq!(note(None, &body("a")), (1, 1, 1, 0));
        let mut other = body("a");
        other["data"]["score"]["exact"] = json!(1.0);
        assert_eq!(note(Some("a"), &other), (1, 2, 1, 1));
        // Another id inside than outside.
        assert_eq!(note(Some("b"), &body("a")), (1, 2, 1, 2));
    }
}
