//! The witness of kills: browsers that keep their cookies, send a hit again under its id until it
//! is acknowledged, and remember every acknowledgement; and the receiver's account of what sales
//! was told. Who has said who they are and asked for a quote must have become one alert.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Failure;
use super::client::Client;
use super::http;
use super::told::{self, Told};
use crate::random::Random;

/// Browsers at once, each on a connection of its own.
const BROWSERS: usize = 16;
/// Between two attempts while nobody answers.
const AGAIN_AFTER: Duration = Duration::from_millis(20);
/// After the end, for what is not acknowledged, and then for alerts that are still expected.
const PATIENCE: Duration = Duration::from_secs(30);
/// Hits at most, so that the account fits in memory.
const HITS_MAX: u64 = 4_000_000;

/// One hit's story.
struct Line {
    path: String,
    /// Whether the browser had a cookie when it sent the hit.
    cookie: bool,
    sends: u32,
    acknowledged: bool,
}

/// Who must have become one alert.
type Expected = String;

#[derive(Default)]
struct Account {
    lines: Vec<Line>,
    expected: Vec<Expected>,
    /// Answers that say neither "taken" nor "try again".
    refused: BTreeMap<u16, u64>,
}

struct Shared {
    stop: AtomicBool,
    hits: AtomicU64,
    started: Instant,
    rate: u32,
}

/// What a visitor's browser has.
#[derive(Clone, Default)]
struct Visitor {
    number: u64,
    cookie: String,
    pages: u32,
}

struct Browser {
    client: Client,
    random: Random,
    shared: Arc<Shared>,
    account: Account,
    given_up_at: Option<Instant>,
}

/// What a hit is, besides a page view.
enum What {
    Page,
    Identify(String),
    Quote,
}

impl Browser {
    fn run(mut self, first: u64) -> Account {
        let mut earlier: Vec<Visitor> = Vec::new();
        let mut number = first;
        while !self.is_over() {
            let mut visitor = Visitor { number, ..Visitor::default() };
            number += BROWSERS as u64;
            self.visit(&mut visitor);
            if visitor.cookie.is_empty() {
                continue;
            }
            earlier.push(visitor);
            if self.random.below(2) == 0 {
                let at = self.random.below(earlier.len());
                self.hit(&mut earlier[at], &What::Page);
            }
        }
        self.account
    }

    fn is_over(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
            || self.shared.hits.load(Ordering::Relaxed) >= HITS_MAX
    }

    fn visit(&mut self, visitor: &mut Visitor) {
        let tells = visitor.number.is_multiple_of(3);
        for page in 0..3 + self.random.below(6) {
            if tells && page == 2 {
                let mail = format!("m{}@buyer.example", visitor.number);
                let told = self.hit(visitor, &What::Identify(mail.clone()));
                if told && self.hit(visitor, &What::Quote) {
                    self.account.expected.push(mail);
                }
            }
            if !self.hit(visitor, &What::Page) {
                return;
            }
        }
    }

    /// Sends a hit until it is acknowledged; false if it never was.
    fn hit(&mut self, visitor: &mut Visitor, what: &What) -> bool {
        self.pace();
        let name = format!("{}-{}", visitor.number, visitor.pages);
        visitor.pages += 1;
        let folder = if matches!(what, What::Quote) { "/thanks/contact" } else { "/kills" };
        let path = format!("{folder}/{name}");
        let mut request = Vec::new();
        write_hit(&mut request, &path, &name, visitor, what);
        let mut line =
            Line { path, cookie: !visitor.cookie.is_empty(), sends: 0, acknowledged: false };
        while !line.acknowledged && !self.is_given_up() {
            match self.client.exchange(&request) {
                Ok(kept) if (200..300).contains(&kept.status) => {
                    line.acknowledged = true;
                    visitor.cookie = kept.cookie.unwrap_or(std::mem::take(&mut visitor.cookie));
                    line.sends += 1;
                }
                Ok(kept) if kept.status == 503 || kept.status == 429 => thread::sleep(AGAIN_AFTER),
                Ok(kept) => {
                    *self.account.refused.entry(kept.status).or_default() += 1;
                    break;
                }
                Err(error) => {
                    // Nobody heard of a hit whose connection was refused.
                    line.sends += u32::from(error.kind() != io::ErrorKind::ConnectionRefused);
                    thread::sleep(AGAIN_AFTER);
                }
            }
        }
        let acknowledged = line.acknowledged;
        self.account.lines.push(line);
        acknowledged
    }

    fn pace(&self) {
        let number = self.shared.hits.fetch_add(1, Ordering::Relaxed);
        let due = Duration::from_secs(1) * number as u32 / self.shared.rate;
        let wait = due.saturating_sub(self.shared.started.elapsed());
        thread::sleep(wait.min(Duration::from_millis(100)));
    }

    /// Long after the end the server will not come back.
    fn is_given_up(&mut self) -> bool {
        if !self.shared.stop.load(Ordering::Relaxed) {
            return false;
        }
        self.given_up_at.get_or_insert_with(|| Instant::now() + PATIENCE) < &mut Instant::now()
    }
}

fn write_hit(request: &mut Vec<u8>, path: &str, name: &str, visitor: &Visitor, what: &What) {
    let url = format!("https://www.site.example{path}");
    let common = format!("\"s\":\"demo\",\"u\":\"{url}\",\"i\":\"h{name}\",\"n\":\"p{name}\"");
    match what {
        What::Page => {
            let path = path.replace('/', "%2F");
            let query = format!("&i=h{name}&n=p{name}");
            http::pixel(request, &path, &query, &visitor.cookie, "");
        }
        What::Identify(mail) => {
            let body = format!("{{{common},\"e\":\"identify\",\"id\":{{\"email\":\"{mail}\"}}}}");
            http::beacon(request, &body, &visitor.cookie, "");
        }
        What::Quote => http::beacon(request, &format!("{{{common}}}"), &visitor.cookie, ""),
    }
}

/// Browses until standard input ends, then writes the account; without a receiver, of the hits
/// alone.
pub fn run(
    target: SocketAddr,
    receiver: Option<SocketAddr>,
    out: &Path,
    rate: u32,
    seed: u64,
) -> Result<Value, Failure> {
    let told = receiver.map(told::listen).transpose()?;
    let shared = Arc::new(Shared {
        stop: AtomicBool::new(false),
        hits: AtomicU64::new(0),
        started: Instant::now(),
        rate: rate.max(1),
    });
    let browsers: Vec<_> = (0..BROWSERS as u64)
        .map(|index| {
            let browser = Browser {
                client: Client::new(target),
                random: Random::new(seed ^ (index << 32)),
                shared: Arc::clone(&shared),
                account: Account::default(),
                given_up_at: None,
            };
            thread::spawn(move || browser.run(index))
        })
        .collect();
    io::stdin().read_to_end(&mut Vec::new())?;
    shared.stop.store(true, Ordering::Relaxed);
    let mut account = Account::default();
    for browser in browsers {
        let one = browser.join().map_err(|_| Failure::Input("a browser panicked"))?;
        account.lines.extend(one.lines);
        account.expected.extend(one.expected);
        for (status, count) in one.refused {
            *account.refused.entry(status).or_default() += count;
        }
    }
    let told = told.map(|told| wait(&told, account.expected.len())).unwrap_or_default();
    fs::write(out, write(&account, &told))?;
    let acknowledged = account.lines.iter().filter(|line| line.acknowledged).count();
    let refused: BTreeMap<String, u64> =
        account.refused.iter().map(|(status, count)| (status.to_string(), *count)).collect();
    Ok(json!({
        "acknowledged": acknowledged,
        "unacknowledged": account.lines.len() - acknowledged,
        "sent_again": account.lines.iter().filter(|line| line.sends > 1).count(),
        "expected_alerts": account.expected.len(),
        "webhooks": told.len(),
        "refused": refused,
        "seconds": shared.started.elapsed().as_secs_f64(),
    }))
}

/// What the receiver was told, once all that is expected is there or patience ends.
fn wait(receiver: &Receiver<Told>, expected: usize) -> Vec<Told> {
    let until = Instant::now() + PATIENCE;
    let mut told: Vec<Told> = Vec::new();
    let mut hot = std::collections::BTreeSet::new();
    loop {
        // A while beyond the last expected one, so that a second id for one crossing is seen too.
        let patience = if hot.len() < expected {
            until.saturating_duration_since(Instant::now())
        } else {
            Duration::from_secs(2)
        };
        let Ok(next) = receiver.recv_timeout(patience) else {
            return told;
        };
        hot.insert(next.text("/data/lead/email"));
        told.push(next);
    }
}

fn write(account: &Account, told: &[Told]) -> String {
    let mut text = String::new();
    for line in &account.lines {
        let Line { path, cookie, sends, acknowledged } = line;
        let (cookie, acknowledged) = (u8::from(*cookie), u8::from(*acknowledged));
        let _ = writeln!(text, "hit\t{path}\t{cookie}\t{sends}\t{acknowledged}");
    }
    for mail in &account.expected {
        let _ = writeln!(text, "expected\t{mail}");
    }
    for one in told {
        let _ = writeln!(
            text,
            "told\t{}\t{}\t{}\t{}\t{}\t{}",
            one.id,
            one.text("/type"),
            one.text("/data/lead/id"),
            one.text("/data/crossing/threshold"),
            one.text("/data/crossing/number"),
            one.text("/data/lead/email"),
        );
    }
    text
}
