//! The pixel's throughput and its cost: hits of many known visitors on a fixed number of
//! connections, and the CPU time that the server's threads took meanwhile.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Failure;
use super::drive::{Talk, drive};
use super::http::{AGENT, Answer};
use crate::random::Random;
use crate::server;

/// Bytes of a request: what a browser sends with the cookies of other tools beside ours.
const REQUEST_BYTES: usize = 637;
/// Stands where each request's own id comes.
const ID_PLACE: &[u8] = b"&i=0000000000000000";
/// Stands where the page comes.
const PAGE_PLACE: &[u8] = b"%2Fcolumn%2Fp0";
/// The clock is looked at once in so many requests.
const LOOK_EVERY: u64 = 64;

struct Requests<'a> {
    heads: Vec<Vec<u8>>,
    id_at: usize,
    page_at: usize,
    random: Random,
    started: Instant,
    times: (Duration, Duration),
    pids: &'a [u32],
    asked: u64,
    heard: u64,
    successes: u64,
    begin: Option<Mark>,
    end: Option<Mark>,
}

/// Where things stood at a moment.
struct Mark {
    at: Instant,
    successes: u64,
    cpu: Duration,
}

impl Requests<'_> {
    fn mark(&self, at: Instant) -> Mark {
        Mark { at, successes: self.successes, cpu: cpu(self.pids) }
    }

    fn look(&mut self) {
        let now = Instant::now();
        let elapsed = now.duration_since(self.started);
        if self.begin.is_none() && elapsed >= self.times.0 {
            self.begin = Some(self.mark(now));
        }
        if self.end.is_none() && elapsed >= self.times.0 + self.times.1 {
            self.end = Some(self.mark(now));
        }
    }
}

impl Talk for Requests<'_> {
    fn ask(&mut self, _: usize, request: &mut Vec<u8>) -> bool {
        if self.asked.is_multiple_of(LOOK_EVERY) {
            self.look();
        }
        if self.end.is_some() {
            return false;
        }
        self.asked += 1;
        let head = self.random.below(self.heads.len());
        request.extend_from_slice(&self.heads[head]);
        let digit = |number: u64| b"0123456789abcdef"[(number & 15) as usize];
        for (place, byte) in request[self.id_at..self.id_at + 16].iter_mut().rev().enumerate() {
            *byte = digit(self.asked >> (4 * place));
        }
        request[self.page_at] = digit(self.random.number());
        true
    }

    fn hear(&mut self, _: usize, answer: &Answer<'_>) {
        self.heard += 1;
        self.successes += u64::from(answer.is_success());
    }
}

/// Processor time of these processes.
fn cpu(pids: &[u32]) -> Duration {
    pids.iter().filter_map(|pid| server::cpu(*pid)).sum()
}

fn head(cookie: &str, other: &str, target: SocketAddr) -> Result<Vec<u8>, Failure> {
    let (id, page) = (String::from_utf8_lossy(ID_PLACE), String::from_utf8_lossy(PAGE_PLACE));
    let other = if other.is_empty() { String::new() } else { format!("{other}; ") };
    let text = format!(
        "GET /p.gif?s=demo&u=https%3A%2F%2Fwww.site.example{page}\
         &r=https%3A%2F%2Fsearch.example{id} HTTP/1.1\r\n\
         Host: {target}\r\nUser-Agent: {AGENT}\r\nAccept: image/avif,image/webp,*/*;q=0.5\r\n\
         Accept-Language: ja,en-US;q=0.7\r\nAccept-Encoding: gzip, deflate\r\n\
         Referer: https://www.site.example/column/\r\nCookie: {other}mikomi={cookie}; _tool="
    );
    let end = "\r\n\r\n";
    let missing = REQUEST_BYTES.checked_sub(text.len() + end.len());
    let missing = missing.ok_or(Failure::Input("the cookies are too long for the request"))?;
    Ok(format!("{text}{}{end}", "7".repeat(missing)).into_bytes())
}

fn place(head: &[u8], what: &[u8]) -> usize {
    let at = head.windows(what.len()).position(|window| window == what);
    at.expect("every head is made with both places")
}

/// One round.
pub fn run(
    target: SocketAddr,
    cookies: &[String],
    other: &str,
    connections: usize,
    times: (Duration, Duration),
    pids: &[u32],
    seed: u64,
) -> Result<Value, Failure> {
    let heads: Result<Vec<_>, _> = cookies.iter().map(|it| head(it, other, target)).collect();
    let heads = heads?;
    let id_at = place(&heads[0], ID_PLACE) + ID_PLACE.len() - 16;
    let page_at = place(&heads[0], PAGE_PLACE) + PAGE_PLACE.len() - 1;
    let mut requests = Requests {
        heads,
        id_at,
        page_at,
        random: Random::new(seed),
        started: Instant::now(),
        times,
        pids,
        // Ids of one round are not those of another.
        asked: seed << 40,
        heard: 0,
        successes: 0,
        begin: None,
        end: None,
    };
    let driven = drive(target, connections, &mut requests)?;
    let (Some(begin), Some(end)) = (&requests.begin, &requests.end) else {
        return Err(Failure::Answer("nothing while it was counted".to_owned()));
    };
    let hits = end.successes - begin.successes;
    let seconds = end.at.duration_since(begin.at).as_secs_f64();
    let cpu_s = end.cpu.saturating_sub(begin.cpu).as_secs_f64();
    Ok(json!({
        "hits": hits,
        "hits_per_s": hits as f64 / seconds,
        "cpu_us_per_hit": cpu_s * 1e6 / hits.max(1) as f64,
        "cpu_share": cpu_s / seconds,
        "all": driven.to_json(),
    }))
}
