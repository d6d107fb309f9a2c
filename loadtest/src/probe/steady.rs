//! Hits of known visitors at a steady rate, on a schedule that is fixed before it begins: an
//! answer that comes late is late by the time at which its hit was due, and those that wait
//! behind it are late too.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Failure;
use super::client::Client;
use super::http;
use crate::random::Random;

/// Connections, a thread each: more than are ever in flight at once unless the server stalls.
const SENDERS: usize = 32;

/// One hit, as its sender saw it.
#[derive(Clone, Copy)]
struct Sent {
    /// From the moment it was due.
    responded: Duration,
    /// How late it was sent.
    late: Duration,
    success: bool,
}

/// Sends for some time.
pub fn run(
    target: SocketAddr,
    cookies: Vec<String>,
    rate: u32,
    seconds: u32,
    seed: u64,
) -> Result<Value, Failure> {
    if rate == 0 || seconds == 0 || cookies.is_empty() {
        return Err(Failure::Input("there must be a rate, seconds and cookies"));
    }
    let cookies = Arc::new(cookies);
    let next = Arc::new(AtomicUsize::new(0));
    let count = rate as usize * seconds as usize;
    let schedule = (Instant::now() + Duration::from_millis(200), Duration::from_secs(1) / rate);
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let (cookies, next) = (Arc::clone(&cookies), Arc::clone(&next));
            thread::spawn(move || send(target, &cookies, (&next, count), schedule, seed))
        })
        .collect();
    let mut sent = Vec::with_capacity(count);
    for sender in senders {
        sent.extend(sender.join().map_err(|_| Failure::Input("a sender panicked"))??);
    }
    let took = schedule.0.elapsed().as_secs_f64();
    Ok(json!({
        "hits": sent.len(),
        "failed": sent.iter().filter(|one| !one.success).count(),
        "hits_per_s": sent.len() as f64 / took,
        "response_ms": quantiles(sent.iter().map(|one| one.responded).collect()),
        "schedule_late_ms": quantiles(sent.iter().map(|one| one.late).collect()),
    }))
}

fn send(
    target: SocketAddr,
    cookies: &[String],
    (next, count): (&AtomicUsize, usize),
    (start, gap): (Instant, Duration),
    seed: u64,
) -> Result<Vec<Sent>, Failure> {
    let mut client = Client::new(target);
    let mut request = Vec::new();
    let mut sent = Vec::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= count {
            return Ok(sent);
        }
        let drawn = Random::new(seed.wrapping_add(number as u64)).below(cookies.len());
        request.clear();
        let query = format!("&i=s{seed}.{number}");
        http::pixel(&mut request, "%2Fcolumn%2Fp0", &query, &cookies[drawn], "");
        let due = start + gap * number as u32;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let late = Instant::now().saturating_duration_since(due);
        let kept = client.exchange(&request);
        let success = kept.is_ok_and(|kept| (200..300).contains(&kept.status));
        let responded = Instant::now().saturating_duration_since(due);
        sent.push(Sent { responded, late, success });
    }
}

/// Exact ones in milliseconds, by nearest rank.
pub fn quantiles(mut times: Vec<Duration>) -> Value {
    times.sort_unstable();
    let at = |share: f64| {
        let rank = (share * times.len() as f64).ceil() as usize;
        let time = times.get(rank.saturating_sub(1)).copied().unwrap_or_default();
        time.as_secs_f64() * 1_000.0
    };
    json!({
        "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999), "max": at(1.0),
    })
}
