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
