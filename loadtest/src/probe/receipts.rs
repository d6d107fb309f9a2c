//! Receipts: hits of known visitors whose acknowledgements say where they stand on the disk, for
//! `mikomi verify --receipts` to prove. What is not written down here was not acknowledged.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use super::Failure;
use super::drive::{Talk, drive};
use super::http::{self, Answer};
use crate::random::Random;

const CONNECTIONS: usize = 256;

struct Asking {
    cookies: Vec<String>,
    headers: String,
    random: Random,
    left: u64,
    sent: u64,
    seed: u64,
    out: BufWriter<File>,
    receipts: u64,
    failed: Option<std::io::Error>,
}

impl Talk for Asking {
    fn ask(&mut self, _: usize, request: &mut Vec<u8>) -> bool {
        if self.left == 0 || self.failed.is_some() {
            return false;
        }
        (self.left, self.sent) = (self.left - 1, self.sent + 1);
        let cookie = &self.cookies[self.random.below(self.cookies.len())];
        let query = format!("&i=r{}.{}", self.seed, self.sent);
        http::pixel(request, "%2Fcolumn%2Fp0", &query, cookie, &self.headers);
        true
    }

    fn hear(&mut self, _: usize, answer: &Answer<'_>) {
        let receipt = answer.is_success().then(|| answer.header("mikomi-receipt")).flatten();
        if let Some(receipt) = receipt {
            self.receipts += 1;
            let written = self.out.write_all(receipt).and_then(|()| self.out.write_all(b"\n"));
            self.failed = self.failed.take().or(written.err());
        }
    }
}

/// Sends so many hits and writes each receipt down, one a line.
pub fn run(
    target: SocketAddr,
    cookies: Vec<String>,
    (count, token): (u64, &str),
    out: &Path,
    seed: u64,
) -> Result<Value, Failure> {
    let mut asking = Asking {
        cookies,
        headers: format!("\r\nmikomi-load-token: {token}\r\nmikomi-receipt: 1"),
        random: Random::new(seed),
        left: count,
        sent: 0,
        seed,
        out: BufWriter::new(File::create(out)?),
        receipts: 0,
        failed: None,
    };
    let driven = drive(target, CONNECTIONS, &mut asking)?;
    asking.out.flush()?;
    match asking.failed {
        Some(error) => Err(error.into()),
        None => Ok(json!({ "receipts": asking.receipts, "all": driven.to_json() })),
    }
}
