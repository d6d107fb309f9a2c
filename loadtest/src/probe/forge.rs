//! Forged visitor cookies: every kind of edit of a genuine one, splices of two, those of another
//! installation, and inventions. The server must take each for no cookie: it sets a new one.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::Failure;
use super::drive::{Talk, drive};
use super::http::{self, Answer};
use crate::random::Random;

const CONNECTIONS: usize = 64;
/// Accepted forgeries that are shown.
const SHOWN_MAX: usize = 10;
/// Fields of a cookie: version, key, id, day, position, signature.
const FIELDS: usize = 6;

/// How a forgery is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// One character is another.
    Replaced,
    /// One bit is another.
    Flipped,
    /// One character is gone.
    Deleted,
    /// One character more.
    Inserted,
    /// Two characters changed places.
    Swapped,
    /// The end or the beginning is gone.
    Truncated,
    /// Something comes before or after.
    Extended,
    /// One letter or all are in the other case.
    Cased,
    /// One field is empty, gone, doubled, or has leading zeros.
    Refielded,
    /// One field is drawn anew, the rest stays.
    Redrawn,
    /// One field is taken from another visitor's cookie.
    Spliced,
    /// The position says "admitted", or another first record.
    Repositioned,
    /// Issued on another day.
    Redated,
    /// Signed by another installation.
    Foreign,
    /// Another installation's, with our visitor's id, or ours with its signature.
    ForeignSpliced,
    /// The right shape, all drawn.
    Invented,
    /// Any bytes.
    Noise,
}

const KINDS: [Kind; 17] = [
    Kind::Replaced,
    Kind::Flipped,
    Kind::Deleted,
    Kind::Inserted,
    Kind::Swapped,
    Kind::Truncated,
    Kind::Extended,
    Kind::Cased,
    Kind::Refielded,
    Kind::Redrawn,
    Kind::Spliced,
    Kind::Repositioned,
    Kind::Redated,
    Kind::Foreign,
    Kind::ForeignSpliced,
    Kind::Invented,
    Kind::Noise,
];

/// What may stand in a cookie's value (RFC 6265): with anything else it would end early, and
/// might be the genuine one again.
fn is_octet(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e | 0x80..)
}

struct Forger {
    random: Random,
    genuine: Vec<String>,
    known: HashSet<Vec<u8>>,
    foreign: Vec<String>,
}

impl Forger {
    fn new(genuine: Vec<String>, foreign: Vec<String>, seed: u64) -> Forger {
        let known = genuine.iter().map(|it| it.clone().into_bytes()).collect();
        Forger { random: Random::new(seed), genuine, known, foreign }
    }

    /// A value that is none of the genuine ones.
    fn forge(&mut self, kind: Kind) -> Vec<u8> {
        loop {
            let index = self.random.below(self.genuine.len());
            let value = self.genuine[index].clone();
            let forged = match kind {
                Kind::Spliced | Kind::Foreign | Kind::ForeignSpliced => self.splice(kind, &value),
                Kind::Refielded | Kind::Redrawn | Kind::Repositioned | Kind::Redated => {
                    self.refield(kind, &value)
                }
                Kind::Invented => self.invent(),
                _ => self.edit(kind, value.into_bytes()),
            };
            if !self.known.contains(&forged) && forged.iter().all(|byte| is_octet(*byte)) {
                return forged;
            }
        }
    }

    fn octet(&mut self) -> u8 {
        loop {
            let byte = self.random.number() as u8;
            if is_octet(byte) {
                return byte;
            }
        }
    }

    fn hex(&mut self, digits: usize) -> String {
        (0..digits).map(|_| char::from(b"0123456789abcdef"[self.random.below(16)])).collect()
    }

    fn edit(&mut self, kind: Kind, mut value: Vec<u8>) -> Vec<u8> {
        let at = self.random.below(value.len());
        match kind {
            Kind::Replaced => value[at] = self.octet(),
            Kind::Flipped => value[at] ^= 1 << self.random.below(8),
            Kind::Deleted => {
                value.remove(at);
            }
            Kind::Inserted => value.insert(at, self.octet()),
            Kind::Swapped => {
                let other = self.random.below(value.len());
                value.swap(at, other);
            }
            Kind::Truncated if self.random.below(2) == 0 => value.truncate(at),
            Kind::Truncated => value = value.split_off(at),
            Kind::Extended => {
                let more: Vec<u8> = (0..=self.random.below(120)).map(|_| self.octet()).collect();
                value = if at.is_multiple_of(2) {
                    [value, more].concat()
                } else {
                    [more, value].concat()
                };
            }
            Kind::Cased if at.is_multiple_of(4) => value = value.to_ascii_uppercase(),
            Kind::Cased => value[at] ^= if value[at].is_ascii_alphabetic() { 0x20 } else { 0 },
            _ => value = (0..self.random.below(200)).map(|_| self.octet()).collect(),
        }
        value
    }

    fn refield(&mut self, kind: Kind, value: &str) -> Vec<u8> {
        let mut fields: Vec<String> = value.split('.').map(str::to_owned).collect();
        let at = match kind {
            Kind::Repositioned => 4,
            Kind::Redated => 3,
            _ => self.random.below(fields.len()),
        };
        let digits = fields[at].len();
        match (kind, self.random.below(4)) {
            (Kind::Refielded, 0) => fields[at].clear(),
            (Kind::Refielded, 1) => {
                fields.remove(at);
            }
            (Kind::Refielded, 2) => fields.insert(at, fields[at].clone()),
            (Kind::Refielded, _) => fields[at].insert(0, '0'),
            (Kind::Repositioned, 0) => "0".clone_into(&mut fields[at]),
            (Kind::Repositioned, _) => fields[at] = self.hex(16),
            (Kind::Redated, _) => fields[at] = format!("{:x}", self.random.below(40_000)),
            _ => fields[at] = self.hex(digits),
        }
        fields.join(".").into_bytes()
    }

    fn splice(&mut self, kind: Kind, value: &str) -> Vec<u8> {
        let ours = self.random.below(self.genuine.len());
        let theirs = self.random.below(self.foreign.len());
        let other = match kind {
            Kind::Spliced => &self.genuine[ours],
            _ => &self.foreign[theirs],
        };
        if kind == Kind::Foreign {
            return other.clone().into_bytes();
        }
        let mut fields: Vec<&str> = value.split('.').collect();
        let others: Vec<&str> = other.split('.').collect();
        let at = self.random.below(fields.len().min(others.len()));
        fields[at] = others[at];
        fields.join(".").into_bytes()
    }

    fn invent(&mut self) -> Vec<u8> {
        let (key, id, mac) = (self.random.below(4), self.hex(32), self.hex(16));
        let (day, position) = (20_000 + self.random.below(2_000), self.random.below(1 << 20));
        format!("v1.{key:x}.{id}.{day:x}.{position:x}.{mac}").into_bytes()
    }
}

struct Forgeries {
    forger: Forger,
    left: u64,
    sent: Vec<(Kind, Vec<u8>)>,
    counts: BTreeMap<Kind, u64>,
    accepted: Vec<(Kind, Vec<u8>)>,
    accepted_count: u64,
    unclear: u64,
}

impl Talk for Forgeries {
    fn ask(&mut self, connection: usize, request: &mut Vec<u8>) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        let kind = KINDS[(self.left % KINDS.len() as u64) as usize];
        let value = self.forger.forge(kind);
        let end = "\r\n\r\n";
        http::pixel(request, "%2F", "", "x", "");
        request.truncate(request.len() - end.len() - 1);
        request.extend_from_slice(&value);
        request.extend_from_slice(end.as_bytes());
        self.sent[connection] = (kind, value);
        true
    }

    fn hear(&mut self, connection: usize, answer: &Answer<'_>) {
        let (kind, value) = &self.sent[connection];
        *self.counts.entry(*kind).or_default() += 1;
        if !answer.is_success() {
            self.unclear += 1;
        } else if answer.visitor_cookie().is_none() {
            self.accepted_count += 1;
            if self.accepted.len() < SHOWN_MAX {
                self.accepted.push((*kind, value.clone()));
            }
        }
    }
}

/// Sends forgeries of every kind in turn.
pub fn run(
    target: SocketAddr,
    genuine: Vec<String>,
    foreign: Vec<String>,
    count: u64,
    seed: u64,
) -> Result<Value, Failure> {
    if genuine.iter().any(|value| value.split('.').count() != FIELDS) {
        return Err(Failure::Input("a genuine cookie has not the fields it should have"));
    }
    let mut forgeries = Forgeries {
        forger: Forger::new(genuine, foreign, seed),
        left: count,
        sent: vec![(Kind::Noise, Vec::new()); CONNECTIONS],
        counts: BTreeMap::new(),
        accepted: Vec::new(),
        accepted_count: 0,
        unclear: 0,
    };
    let driven = drive(target, CONNECTIONS, &mut forgeries)?;
    let kinds: BTreeMap<String, u64> =
        forgeries.counts.iter().map(|(kind, count)| (format!("{kind:?}"), *count)).collect();
    let shown: Vec<String> = forgeries
        .accepted
        .iter()
        .map(|(kind, value)| format!("{kind:?}: {}", String::from_utf8_lossy(value)))
        .collect();
    Ok(json!({
        "kinds": kinds,
        "accepted": forgeries.accepted_count,
        "accepted_examples": shown,
        "unclear": forgeries.unclear,
        "all": driven.to_json(),
    }))
}

struct Recalls {
    cookies: Vec<String>,
    recognised: u64,
}

impl Talk for Recalls {
    fn ask(&mut self, _: usize, request: &mut Vec<u8>) -> bool {
        let Some(cookie) = self.cookies.pop() else {
            return false;
        };
        http::pixel(request, "%2F", "", &cookie, "");
        true
    }

    fn hear(&mut self, _: usize, answer: &Answer<'_>) {
        let known = answer.is_success() && answer.visitor_cookie().is_none();
        self.recognised += u64::from(known);
    }
}

/// Sends genuine cookies: the proof that "accepted" can be told from "not accepted" at all.
pub fn recall(target: SocketAddr, cookies: Vec<String>) -> Result<Value, Failure> {
    let sent = cookies.len();
    let mut recalls = Recalls { cookies, recognised: 0 };
    drive(target, CONNECTIONS, &mut recalls)?;
    Ok(json!({ "sent": sent, "recognised": recalls.recognised }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_forgery_is_genuine_and_every_kind_can_be_made() {
        let cookie = |n: u64| format!("v1.1.{n:032x}.504f.{n:x}.{:016x}", n * 77);
        let genuine: Vec<String> = (1..50).map(cookie).collect();
        let foreign: Vec<String> = (100..150).map(cookie).collect();
        let mut forger = Forger::new(genuine.clone(), foreign, 7);
        for kind in KINDS {
            for _ in 0..1_000 {
                let value = forger.forge(kind);
                assert!(!genuine.iter().any(|it| it.as_bytes() == value), "{kind:?}");
                assert!(value.iter().all(|byte| is_octet(*byte)), "{kind:?}");
            }
        }
    }
}
