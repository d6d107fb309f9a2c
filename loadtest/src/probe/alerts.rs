//! From the click to the alert: leads just below the line cross it one after the other on a fixed
//! schedule, and the receiver notes when it has read each webhook. The clock runs from just before
//! the hit is sent; how late the schedule itself was is told too.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Failure;
use super::client::Client;
use super::http;
use super::told::{self, Told};

/// Threads that prepare and send, each on a connection of its own: more than are ever in flight
/// at once unless the server stalls.
const SENDERS: usize = 16;
/// The run is also told in so many parts, one after the other: noise shows as their difference.
const PARTS: usize = 5;
/// For the last alert.
const PATIENCE: Duration = Duration::from_secs(10);

/// One crossing, as its sender saw it.
#[derive(Clone, Copy)]
struct Sent {
    number: usize,
    late: Duration,
    at: Instant,
    answered: Duration,
}

/// Which leads, by number: none of them may have crossed before.
#[derive(Clone, Copy)]
pub struct Leads {
    /// The first.
    pub first: usize,
    /// How many.
    pub count: usize,
}

fn mail(number: usize) -> String {
    format!("c{number}@buyer.example")
}

fn expect_success(status: u16, to: &str) -> Result<(), Failure> {
    if (200..300).contains(&status) {
        return Ok(());
    }
    Err(Failure::Answer(format!("{status} to {to}")))
}

/// A known visitor who has said who they are; their cookie.
fn prepare(client: &mut Client, number: usize) -> Result<String, Failure> {
    let mut request = Vec::new();
    http::pixel(&mut request, "%2F", &format!("&i=a{number}"), "", "");
    let kept = client.exchange(&request)?;
    expect_success(kept.status, "a page view")?;
    let first = kept.cookie.ok_or_else(|| Failure::Answer("no cookie".to_owned()))?;
    let body = format!(
        "{{\"s\":\"demo\",\"e\":\"identify\",\"u\":\"https://www.site.example/\",\
         \"i\":\"b{number}\",\"id\":{{\"email\":\"{}\"}}}}",
        mail(number)
    );
    request.clear();
    http::beacon(&mut request, &body, &first, "");
    let kept = client.exchange(&request)?;
    expect_success(kept.status, "an identify")?;
    Ok(kept.cookie.unwrap_or(first))
}

fn prepare_all(target: SocketAddr, leads: Leads) -> Result<Vec<String>, Failure> {
    let threads: Vec<_> = (0..SENDERS)
        .map(|sender| {
            thread::spawn(move || {
                let mut client = Client::new(target);
                let mine = (sender..leads.count).step_by(SENDERS);
                let made: Result<Vec<_>, Failure> = mine
                    .map(|number| Ok((number, prepare(&mut client, leads.first + number)?)))
                    .collect();
                made
            })
        })
        .collect();
    let mut cookies = vec![String::new(); leads.count];
    for made in threads {
        let made = made.join().map_err(|_| Failure::Input("a sender panicked"))??;
        for (number, cookie) in made {
            cookies[number] = cookie;
        }
    }
    Ok(cookies)
}

/// Sends what is due next until all are sent.
fn send(
    target: SocketAddr,
    cookies: &[String],
    (first, next): (usize, &AtomicUsize),
    (start, gap): (Instant, Duration),
) -> Result<Vec<Sent>, Failure> {
    let mut client = Client::new(target);
    let mut request = Vec::new();
    http::pixel(&mut request, "%2F", "", &cookies[0], "");
    client.exchange(&request)?;
    let mut sent = Vec::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let Some(cookie) = cookies.get(number) else {
            return Ok(sent);
        };
        let query = format!("&i=c{}", first + number);
        request.clear();
        http::pixel(&mut request, "%2Fthanks%2Fcontact%2Fok", &query, cookie, "");
        let due = start + gap * number as u32;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let at = Instant::now();
        let kept = client.exchange(&request)?;
        expect_success(kept.status, "the crossing")?;
        let late = at.saturating_duration_since(due);
        sent.push(Sent { number, late, at, answered: at.elapsed() });
    }
}

/// When each crossing's alert was read, until all were or patience ends; and how many webhooks
/// were about something else.
fn listen(told: &Receiver<Told>, leads: Leads) -> (Vec<Vec<Instant>>, usize) {
    let mut read: Vec<Vec<Instant>> = vec![Vec::new(); leads.count];
    let (mut strange, mut heard) = (0, 0);
    let until = Instant::now() + PATIENCE;
    while heard < leads.count {
        let Ok(one) = told.recv_timeout(until.saturating_duration_since(Instant::now())) else {
            break;
        };
        let mail = one.text("/data/lead/email");
        let number = mail.strip_prefix('c').and_then(|rest| rest.split('@').next());
        let number = number.and_then(|digits| digits.parse::<usize>().ok());
        let place = number.and_then(|number| number.checked_sub(leads.first));
        match place.filter(|_| one.text("/type") == "lead.hot").and_then(|it| read.get_mut(it)) {
            Some(times) => {
                heard += usize::from(times.is_empty());
                times.push(one.at);
            }
            None => strange += 1,
        }
    }
    (read, strange)
}

/// Times all crossings.
pub fn run(
    target: SocketAddr,
    receiver: SocketAddr,
    leads: Leads,
    rate: u32,
) -> Result<Value, Failure> {
    let crossings = leads.count;
    if crossings == 0 || rate == 0 {
        return Err(Failure::Input("there must be crossings and a rate"));
    }
    let told = told::listen(receiver)?;
    let cookies = Arc::new(prepare_all(target, leads)?);
    let next = Arc::new(AtomicUsize::new(0));
    let schedule = (Instant::now() + Duration::from_millis(200), Duration::from_secs(1) / rate);
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let (cookies, next) = (Arc::clone(&cookies), Arc::clone(&next));
            thread::spawn(move || send(target, &cookies, (leads.first, &next), schedule))
        })
        .collect();
    let mut sent: Vec<Option<Sent>> = vec![None; crossings];
    for sender in senders {
        for one in sender.join().map_err(|_| Failure::Input("a sender panicked"))?? {
            sent[one.number] = Some(one);
        }
    }
    let (read, strange) = listen(&told, leads);
    let pairs = sent.iter().flatten().filter_map(|one| Some((one, read[one.number].first()?)));
    let to_alert: Vec<Duration> =
        pairs.map(|(one, read)| read.saturating_duration_since(one.at)).collect();
    let part = to_alert.len().div_ceil(PARTS).max(1);
    let parts: Vec<Value> = to_alert.chunks(part).map(|part| quantiles(part.to_vec())).collect();
    Ok(json!({
        "crossings": crossings,
        // Two to become known, one to cross, and each sender's first: all were acknowledged.
        "hits": 3 * crossings + SENDERS,
        "alerts": read.iter().filter(|times| !times.is_empty()).count(),
        "repeated": read.iter().filter(|times| times.len() > 1).count(),
        "strange": strange,
        "click_to_alert_ms": quantiles(to_alert),
        "parts": parts,
        "click_to_answer_ms": quantiles(sent.iter().flatten().map(|one| one.answered).collect()),
        "schedule_late_ms": quantiles(sent.iter().flatten().map(|one| one.late).collect()),
    }))
}

/// Exact ones in milliseconds, by nearest rank.
fn quantiles(mut times: Vec<Duration>) -> Value {
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
