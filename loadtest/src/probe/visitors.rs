//! Makes visitors known as browsers become known: by coming back with the cookie they were given.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;

use super::Failure;
use super::drive::{Talk, drive};
use super::http::{self, Answer};

const CONNECTIONS: usize = 64;

struct Arrivals {
    /// The cookie each connection's visitor was given by its first answer.
    given: Vec<Option<String>>,
    begun: usize,
    wanted: usize,
    known: Vec<String>,
    refused: Option<u16>,
}

impl Talk for Arrivals {
    fn ask(&mut self, connection: usize, request: &mut Vec<u8>) -> bool {
        let cookie = self.given[connection].clone().unwrap_or_default();
        if cookie.is_empty() {
            if self.begun == self.wanted {
                return false;
            }
            self.begun += 1;
        }
        http::pixel(request, "/", "", &cookie, "");
        true
    }

    fn hear(&mut self, connection: usize, answer: &Answer<'_>) {
        let set = answer.visitor_cookie().map(str::to_owned);
        match (self.given[connection].take(), set) {
            (None, Some(first)) => self.given[connection] = Some(first),
            (Some(_), Some(second)) => self.known.push(second),
            (_, None) => self.refused = Some(answer.status),
        }
    }
}

/// Has `count` visitors admitted, and writes the cookies they keep.
pub fn make(target: SocketAddr, count: usize, out: &Path) -> Result<Value, Failure> {
    let mut arrivals = Arrivals {
        given: vec![None; CONNECTIONS],
        begun: 0,
        wanted: count,
        known: Vec::new(),
        refused: None,
    };
    let driven = drive(target, CONNECTIONS, &mut arrivals)?;
    if arrivals.known.len() != count {
        let status = arrivals.refused.unwrap_or(0);
        return Err(Failure::Answer(format!("{status} to a first visit or the second")));
    }
    fs::write(out, arrivals.known.join("\n") + "\n")?;
    Ok(driven.to_json())
}

/// The cookies written before.
pub fn read(path: &Path) -> Result<Vec<String>, Failure> {
    let cookies: Vec<String> = fs::read_to_string(path)?.lines().map(str::to_owned).collect();
    if cookies.len() < 2 { Err(Failure::Input("too few cookies")) } else { Ok(cookies) }
}

/// Cookies of many visitors, all of one length, in one piece of memory.
pub struct Cookies {
    bytes: Vec<u8>,
    /// Of one, with the end of its line.
    each: usize,
}

impl Cookies {
    /// The cookies written before.
    pub fn read(path: &Path) -> Result<Cookies, Failure> {
        Cookies::of(fs::read(path)?)
    }

    fn of(bytes: Vec<u8>) -> Result<Cookies, Failure> {
        let each = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let even = each > 1
            && bytes.len().is_multiple_of(each)
            && bytes.chunks(each).all(|line| line.last() == Some(&b'\n'));
        if even {
            Ok(Cookies { bytes, each })
        } else {
            Err(Failure::Input("the cookies are not all of one length"))
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.each
    }

    /// One of them.
    pub fn get(&self, number: usize) -> &[u8] {
        &self.bytes[number * self.each..][..self.each - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_of_one_length_are_found_by_number_and_others_are_refused() {
        let cookies = Cookies::of(b"ab\ncd\nef\n".to_vec()).unwrap();
        assert_eq!((cookies.len(), cookies.get(0), cookies.get(2)), (3, &b"ab"[..], &b"ef"[..]));
        for other in [&b"ab\ncde\n"[..], b"ab\ncd", b"\n", b""] {
            assert!(Cookies::of(other.to_vec()).is_err());
        }
    }
}
