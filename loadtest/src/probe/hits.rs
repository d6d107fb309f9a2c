//! Throughput and cost of hits: those of many known visitors on a fixed number of connections, by
//! the pixel, as single beacons or in batches; the CPU time that the server's threads took
//! meanwhile, and how long an answer took.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::Failure;
use super::drive::{Talk, drive};
use super::http::{AGENT, Answer};
use super::visitors::Cookies;
use crate::random::Random;
use crate::server;

/// Bytes of a request's head: what a browser sends with the cookies of other tools beside ours.
const HEAD_BYTES: usize = 660;
/// Hits of a batch.
const BATCH_HITS: usize = 100;
/// Stands where each hit's own id comes, and with it the nonce of its page.
const ID: &str = "0000000000000000";
/// Stands where a hit's page comes, two digits of it.
const PAGE: &str = "/item-00";
const PAGE_ENCODED: &str = "%2Fitem-00";
/// The clock is looked at once in so many requests.
const LOOK_EVERY: u64 = 64;
/// The longest time that is told apart, and how exactly.
const LONGEST_US: u64 = 60_000_000;
const DIGITS: u8 = 3;

/// What carries the hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// `GET /p.gif`, one hit.
    Pixel,
    /// `POST /b`, one hit, as the page script sends it.
    Beacon,
    /// `POST /b`, a hundred hits of one visitor.
    Batch,
}

/// A round.
pub struct Round<'a> {
    /// What carries the hits.
    pub form: Form,
    /// Another cookie that every request carries.
    pub other_cookie: &'a str,
    /// Connections kept open, one request in flight on each.
    pub connections: usize,
    /// Before counting begins.
    pub warm: Duration,
    /// Counted.
    pub count: Duration,
    /// Processes whose CPU time is counted.
    pub pids: &'a [u32],
    /// From which all that is drawn follows. Ids of one seed are not those of another.
    pub seed: u64,
}

/// A request with holes in it, by where they are.
struct Template {
    bytes: Vec<u8>,
    cookie: usize,
    /// An item for each hit.
    ids: Vec<usize>,
    nonces: Vec<usize>,
    pages: Vec<usize>,
    hits: u64,
}

struct Requests<'a> {
    round: &'a Round<'a>,
    cookies: &'a Cookies,
    template: Template,
    random: Random,
    /// Once all are connected.
    started: Option<Instant>,
    asked: u64,
    hit: u64,
    successes: u64,
    remarks: u64,
    asked_at: Vec<Instant>,
    times: Histogram<u64>,
    begin: Option<Mark>,
    end: Option<Mark>,
}

/// Where things stood at a moment.
struct Mark {
    at: Instant,
    successes: u64,
    /// Of the server, and of this client.
    cpu: [Duration; 2],
}

impl Template {
    fn new(round: &Round<'_>, cookie: &str, target: SocketAddr) -> Result<Template, Failure> {
        let body = match round.form {
            Form::Pixel => String::new(),
            Form::Beacon => hit_text(),
            Form::Batch => format!("[{}]", vec![hit_text(); BATCH_HITS].join(",")),
        };
        let head = head(round, cookie, target, body.len())?;
        let text = head + &body;
        let cookie_at = all(&text, cookie).first().copied();
        let cookie = cookie_at.ok_or(Failure::Input("the cookie is not in the request"))?;
        let after = |mark: &str| all(&text, mark).iter().map(|at| at + mark.len()).collect();
        let (ids, nonces, pages): (Vec<_>, Vec<_>, Vec<_>) = match round.form {
            Form::Pixel => (after("&i="), Vec::new(), after("%2Fitem-")),
            Form::Beacon | Form::Batch => (after("\"i\":\""), after("\"n\":\""), after("/item-")),
        };
        let hits = ids.len() as u64;
        Ok(Template { bytes: text.into_bytes(), cookie, ids, nonces, pages, hits })
    }
}

/// A page view as the page script sends it.
fn hit_text() -> String {
    format!(
        "{{\"s\":\"demo\",\"e\":\"page_view\",\"u\":\"https://www.site.example/column{PAGE}\
         ?utm_source=mail&utm_campaign=autumn\",\"t\":\"導入事例 | サンプル株式会社\",\
         \"r\":\"https://search.example/\",\"i\":\"{ID}\",\"n\":\"{ID}\",\
         \"at\":1796050800000,\"st\":1796050800012}}"
    )
}

fn head(
    round: &Round<'_>,
    cookie: &str,
    target: SocketAddr,
    body_bytes: usize,
) -> Result<String, Failure> {
    let line = match round.form {
        Form::Pixel => format!(
            "GET /p.gif?s=demo&u=https%3A%2F%2Fwww.site.example%2Fcolumn{PAGE_ENCODED}\
             &r=https%3A%2F%2Fsearch.example&i={ID} HTTP/1.1\r\nAccept: image/avif,image/webp,\
             */*;q=0.5"
        ),
        Form::Beacon | Form::Batch => format!(
            "POST /b HTTP/1.1\r\nAccept: */*\r\nOrigin: https://www.site.example\r\n\
             Content-Type: text/plain;charset=UTF-8\r\nContent-Length: {body_bytes}"
        ),
    };
    let other = round.other_cookie;
    let other = if other.is_empty() { String::new() } else { format!("{other}; ") };
    let text = format!(
        "{line}\r\nHost: {target}\r\nUser-Agent: {AGENT}\r\nAccept-Language: ja,en-US;q=0.7\r\n\
         Accept-Encoding: gzip, deflate\r\nReferer: https://www.site.example/column/\r\n\
         Cookie: {other}mikomi={cookie}; _tool="
    );
    let end = "\r\n\r\n";
    let missing = HEAD_BYTES.checked_sub(text.len() + end.len());
    let missing = missing.ok_or(Failure::Input("the cookies are too long for the request"))?;
    Ok(format!("{text}{}{end}", "7".repeat(missing)))
}

/// Where a text has another one.
fn all(text: &str, what: &str) -> Vec<usize> {
    text.match_indices(what).map(|(at, _)| at).collect()
}

/// Writes a number in so many lower hexadecimal digits.
fn write_hex(digits: &mut [u8], number: u64) {
    for (place, digit) in digits.iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (4 * place) & 15) as usize];
    }
}

impl Requests<'_> {
    fn mark(&self, at: Instant) -> Mark {
        let own = [std::process::id()];
        let cpu = [self.round.pids, &own]
            .map(|pids| pids.iter().filter_map(|pid| server::cpu(*pid)).sum());
        Mark { at, successes: self.successes, cpu }
    }

    fn look(&mut self, now: Instant) {
        let elapsed = now.duration_since(*self.started.get_or_insert(now));
        if self.begin.is_none() && elapsed >= self.round.warm {
            self.begin = Some(self.mark(now));
        }
        if self.end.is_none() && elapsed >= self.round.warm + self.round.count {
            self.end = Some(self.mark(now));
        }
    }

    fn write(&mut self, request: &mut Vec<u8>) {
        let template = &self.template;
        request.extend_from_slice(&template.bytes);
        let cookie = self.cookies.get(self.random.below(self.cookies.len()));
        request[template.cookie..][..cookie.len()].copy_from_slice(cookie);
        for number in 0..template.ids.len() {
            self.hit += 1;
            write_hex(&mut request[template.ids[number]..][..ID.len()], self.hit);
            if let Some(at) = template.nonces.get(number) {
                write_hex(&mut request[*at..][..ID.len()], self.hit);
            }
            write_hex(&mut request[template.pages[number]..][..2], self.random.number());
        }
    }
}

impl Talk for Requests<'_> {
    fn ask(&mut self, connection: usize, request: &mut Vec<u8>) -> bool {
        let now = Instant::now();
        if self.asked.is_multiple_of(LOOK_EVERY) {
            self.look(now);
        }
        if self.end.is_some() {
            return false;
        }
        self.asked += 1;
        self.write(request);
        self.asked_at[connection] = now;
        true
    }

    fn hear(&mut self, connection: usize, answer: &Answer<'_>) {
        self.successes += u64::from(answer.is_success());
        self.remarks += u64::from(answer.has_remark());
        if self.begin.is_some() && self.end.is_none() {
            let took = self.asked_at[connection].elapsed().as_micros() as u64;
            self.times.saturating_record(took);
        }
    }
}

/// Plays one round.
pub fn run(target: SocketAddr, cookies: &Cookies, round: &Round<'_>) -> Result<Value, Failure> {
    let first = String::from_utf8_lossy(cookies.get(0));
    let times = Histogram::new_with_bounds(1, LONGEST_US, DIGITS);
    let now = Instant::now();
    let mut requests = Requests {
        round,
        cookies,
        template: Template::new(round, &first, target)?,
        random: Random::new(round.seed),
        started: None,
        asked: 0,
        hit: round.seed << 40,
        successes: 0,
        remarks: 0,
        asked_at: vec![now; round.connections],
        times: times.map_err(|_| Failure::Input("there is no such histogram"))?,
        begin: None,
        end: None,
    };
    let driven = drive(target, round.connections, &mut requests)?;
    let (Some(begin), Some(end)) = (&requests.begin, &requests.end) else {
        return Err(Failure::Answer("nothing while it was counted".to_owned()));
    };
    let a_request = requests.template.hits;
    let hits = (end.successes - begin.successes) * a_request;
    let counted = end.at.duration_since(begin.at);
    if hits == 0 || counted < round.count / 2 {
        return Err(Failure::Answer("nothing for most of the time that was counted".to_owned()));
    }
    let seconds = counted.as_secs_f64();
    let cpu = |of: usize| end.cpu[of].saturating_sub(begin.cpu[of]).as_secs_f64();
    let ms = |share| requests.times.value_at_quantile(share) as f64 / 1_000.0;
    Ok(json!({
        "hits": hits,
        "hits_per_s": hits as f64 / seconds,
        "cpu_us_per_hit": cpu(0) * 1e6 / hits as f64,
        "cpu_share": cpu(0) / seconds,
        "client_us_per_hit": cpu(1) * 1e6 / hits as f64,
        "client_share": cpu(1) / seconds,
        "answered_ms": { "p50": ms(0.5), "p99": ms(0.99), "p999": ms(0.999) },
        "all": driven.to_json(),
        "all_hits": requests.successes * a_request,
        "remarks": requests.remarks,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOKIE: &str = "v1.0.000102030405060708090a0b0c0d0e0f.5131.0.0123456789abcdef";

    fn round(form: Form) -> Round<'static> {
        let (warm, count) = (Duration::ZERO, Duration::ZERO);
        Round { form, other_cookie: "uid=x", connections: 1, warm, count, pids: &[], seed: 1 }
    }

    #[test]
    fn a_head_is_as_long_as_a_browsers_and_each_hit_has_its_places() {
        let target = "127.0.0.1:65535".parse().unwrap();
        for (form, hits) in [(Form::Pixel, 1), (Form::Beacon, 1), (Form::Batch, BATCH_HITS)] {
            let template = Template::new(&round(form), COOKIE, target).unwrap();
            let text = String::from_utf8(template.bytes).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert_eq!(head.len() + 4, HEAD_BYTES);
            assert!(form == Form::Pixel || head.contains(&format!("Length: {}\r\n", body.len())));
            assert_eq!([template.ids.len(), template.pages.len()], [hits, hits]);
            assert!(template.ids.iter().all(|at| text[*at..].starts_with(ID)));
            assert!(template.nonces.iter().all(|at| text[*at..].starts_with(ID)));
            assert!(template.pages.iter().all(|at| text[*at..].starts_with("00")));
            assert!(text[template.cookie..].starts_with(COOKIE));
        }
    }

    #[test]
    fn a_number_is_written_in_as_many_digits_as_there_is_room_for() {
        let mut digits = [0; 4];
        write_hex(&mut digits, 0x12_3abc);
        assert_eq!(&digits, b"3abc");
    }
}
