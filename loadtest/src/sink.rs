//! Where webhooks end: takes those that are signed as Standard Webhooks says, refuses the others,
//! and counts both, so that a run of load can be held against the alerts it caused.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::json;

use crate::Outcome;
use crate::clock::since_1970;
use crate::probe::http;

/// How far a sender's clock may be from this one.
const TOLERANCE_S: u64 = 300;
/// The longest message.
const MESSAGE_BYTES_MAX: usize = 4 * 1_024 * 1_024;
/// A connection that says nothing for so long is closed.
const PATIENCE: Duration = Duration::from_mins(2);
/// Ids that are remembered to tell repeated messages.
const IDS_MAX: usize = 10_000_000;

/// What came.
#[derive(Debug, Default)]
struct Counts {
    taken: u64,
    repeated: u64,
    refused: u64,
    ids: BTreeSet<String>,
}

/// Why a message is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has none, or not all that belongs to one.
    NoSignature,
    /// It is of another time.
    Stale,
    /// It is not right.
    WrongSignature,
}

/// `sink`.
pub fn run(listen: SocketAddr, secrets: &[String]) -> Result<Outcome, String> {
    let keys: Vec<hmac::Key> = secrets.iter().map(|it| key(it)).collect::<Result<_, _>>()?;
    let listener = TcpListener::bind(listen).map_err(|error| format!("{listen}: {error}"))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    eprintln!("taking webhooks on http://{address} until standard input ends");
    let (keys, counts) = (Arc::new(keys), Arc::new(Mutex::new(Counts::default())));
    let shared = Arc::clone(&counts);
    // Its threads end with the process.
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (keys, counts) = (Arc::clone(&keys), Arc::clone(&shared));
            thread::spawn(move || take(stream, &keys, &counts));
        }
    });
    std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink())
        .map_err(|error| error.to_string())?;
    let counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    let (taken, repeated, refused) = (counts.taken, counts.repeated, counts.refused);
    println!("{}", json!({ "taken": taken, "repeated": repeated, "refused": refused }));
    Ok(if refused == 0 { Outcome::Met } else { Outcome::Missed })
}

/// Of a secret's text.
pub fn key(secret: &str) -> Result<hmac::Key, String> {
    // The text itself is never shown.
    let encoded = secret.trim().strip_prefix("whsec_").ok_or("a secret begins with whsec_")?;
    let bytes = STANDARD.decode(encoded).map_err(|_| "a secret is base64 after whsec_")?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

fn take(mut stream: TcpStream, keys: &[hmac::Key], counts: &Mutex<Counts>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let (mut received, mut chunk) = (Vec::new(), [0; 16 * 1_024]);
    loop {
        let read = stream.read(&mut chunk).ok().filter(|read| *read > 0)?;
        received.extend_from_slice(&chunk[..read]);
        while let Some((bytes, body)) = http::request(&received).ok()? {
            let now = since_1970().as_secs();
            let (head, content) = (&received[..body - 2], &received[body..bytes]);
            let id = verify(head, content, keys, now);
            let answer: &[u8] = match id {
                Ok(_) => b"HTTP/1.1 204 No Content\r\n\r\n",
                Err(_) => b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
            };
            counts.lock().unwrap_or_else(PoisonError::into_inner).add(id);
            stream.write_all(answer).ok()?;
            received.drain(..bytes);
        }
        if received.len() > MESSAGE_BYTES_MAX {
            return None;
        }
    }
}

impl Counts {
    fn add(&mut self, id: Result<String, Refusal>) {
        match id {
            Ok(id) if self.ids.contains(&id) => self.repeated += 1,
            Ok(id) => {
                self.taken += 1;
                if self.ids.len() < IDS_MAX {
                    self.ids.insert(id);
                }
            }
            Err(_) => self.refused += 1,
        }
    }
}

/// The id of a message that one of the keys signed lately.
/// The id of a message, if one of its signatures is right.
pub fn verify(head: &[u8], body: &[u8], keys: &[hmac::Key], now_s: u64) -> Result<String, Refusal> {
    let text = |name| http::header(head, name).and_then(|value| std::str::from_utf8(value).ok());
    let (Some(id), Some(timestamp), Some(signatures)) =
        (text("webhook-id"), text("webhook-timestamp"), text("webhook-signature"))
    else {
        return Err(Refusal::NoSignature);
    };
    let sent: u64 = timestamp.parse().map_err(|_| Refusal::NoSignature)?;
    if now_s.abs_diff(sent) > TOLERANCE_S {
        return Err(Refusal::Stale);
    }
    let mut signed = format!("{id}.{timestamp}.").into_bytes();
    signed.extend_from_slice(body);
    let good = signatures.split(' ').filter_map(|one| one.strip_prefix("v1,")).any(|one| {
        let one = STANDARD.decode(one).unwrap_or_default();
        keys.iter().any(|key| hmac::verify(key, &signed, &one).is_ok())
    });
    if good { Ok(id.to_owned()) } else { Err(Refusal::WrongSignature) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const BODY: &[u8] = b"{\"test\": 2432232314}";
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn verified(signature: &str, body: &[u8], now_s: u64) -> Result<String, Refusal> {
        let head = format!(
            "POST / HTTP/1.1\r\nWebhook-Id: msg_p5jXN8AQM9LWM0D4loKWxJek\r\n\
             webhook-timestamp: 1614265330\r\nwebhook-signature: {signature}\r\n"
        );
        verify(head.as_bytes(), body, &[key(SECRET).unwrap()], now_s)
    }

    #[test]
    fn a_message_is_taken_if_one_of_its_signatures_is_right() {
        let id = Ok("msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned());
        assert_eq!(verified(SIGNATURE, BODY, 1_614_265_340), id);
        assert_eq!(verified(&format!("v1,AAAA v2,x {SIGNATURE}"), BODY, 1_614_265_030), id);
    }

    #[test]
    fn what_is_edited_late_or_not_signed_is_refused() {
        let wrong = Err(Refusal::WrongSignature);
        assert_eq!(verified(SIGNATURE, b"{\"test\": 2432232315}", 1_614_265_340), wrong);
        assert_eq!(verified("v1,AAAA", BODY, 1_614_265_340), wrong);
        assert_eq!(verified(SIGNATURE, BODY, 1_614_265_631), Err(Refusal::Stale));
        let keys = [key(SECRET).unwrap()];
        assert_eq!(verify(b"POST / HTTP/1.1\r\n", BODY, &keys, 0), Err(Refusal::NoSignature));
        assert!(key("secret").is_err() && key("whsec_!").is_err());
    }

    #[test]
    fn a_repeated_message_is_counted_apart() {
        let mut counts = Counts::default();
        for id in ["a", "b", "a"] {
            counts.add(Ok(id.to_owned()));
        }
        counts.add(Err(Refusal::Stale));
        assert_eq!((counts.taken, counts.repeated, counts.refused), (2, 1, 1));
    }
}
