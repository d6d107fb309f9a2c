//! Requests that are given: one again and again, or the lines of a file. A file is an access log
//! (common or combined form, whose times may be kept) or has a request a line: `METHOD PATH`, and
//! after it, if any, a body.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HOST, USER_AGENT};
use hyper::http::{HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};

use crate::source::{Asked, NOBODY};

/// Lines of a file at most: they are kept in memory.
const LINES_MAX: usize = 20_000_000;

/// A request as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Since the first of the file, by an access log.
    pub at: Option<Duration>,
    method: Method,
    target: Uri,
    agent: Option<HeaderValue>,
    body: Bytes,
}

impl Line {
    /// One of a URL's path.
    pub fn of(method: Method, target: &Uri, body: Bytes) -> Result<Line, String> {
        let path = target.path_and_query().map_or("/", |path| path.as_str());
        let target = path.parse().map_err(|error| format!("\"{path}\" is no path: {error}"))?;
        Ok(Line { at: None, method, target, agent: None, body })
    }

    /// The site's key of a hit in mikomi's own form.
    pub fn site(&self) -> Option<String> {
        let by_query = || {
            let mut pairs = form_urlencoded::parse(self.target.query()?.as_bytes());
            pairs.find(|(name, _)| name == "s").map(|(_, site)| site.into_owned())
        };
        let by_body = || {
            let body: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
            let hit = body.get(0).unwrap_or(&body);
            Some(hit.get("s")?.as_str()?.to_owned())
        };
        match self.target.path() {
            "/p.gif" => by_query(),
            "/b" => by_body(),
            _ => None,
        }
    }

    fn read(text: &str) -> Option<(Line, Option<i64>)> {
        if let Some((head, rest)) = text.split_once(" [") {
            // 192.0.2.1 - - [29/Nov/2026:14:00:00 +0900] "GET /p HTTP/1.1" 200 5 "referer" "agent"
            if head.split(' ').count() >= 3 {
                let (time, rest) = rest.split_once("] \"")?;
                let (asked, rest) = rest.split_once('"')?;
                let mut words = asked.split(' ');
                let (method, target) = (words.next()?, words.next()?);
                let agent = rest.rsplit('"').nth(1).filter(|it| !it.is_empty() && *it != "-");
                let line = Line {
                    at: None,
                    method: method.parse().ok()?,
                    target: target.parse().ok()?,
                    agent: agent.and_then(|agent| HeaderValue::from_str(agent).ok()),
                    body: Bytes::new(),
                };
                return Some((line, Some(seconds_of(time)?)));
            }
        }
        let mut parts = text.splitn(3, ' ');
        let (method, target) = (parts.next()?, parts.next()?);
        let method: Method = method.parse().ok().filter(|_| method == method.to_uppercase())?;
        let target: Uri = target.parse().ok().filter(|_| target.starts_with('/'))?;
        let body = Bytes::from(parts.next().unwrap_or_default().to_owned());
        Some((Line { at: None, method, target, agent: None, body }, None))
    }
}

/// Seconds since 1970 of a time as access logs write it.
fn seconds_of(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (moment, zone) = text.split_once(' ').unwrap_or((text, "+0000"));
    let mut parts = moment.split(['/', ':']);
    let mut next = || parts.next();
    let (day, month, year) = (next()?.parse::<i64>().ok()?, next()?, next()?.parse::<i64>().ok()?);
    let (hour, minute, second) =
        (next()?.parse::<i64>().ok()?, next()?.parse::<i64>().ok()?, next()?.parse::<i64>().ok()?);
    let month = MONTHS.iter().position(|name| *name == month)? as i64 + 1;
    // Days from the civil calendar: H. Hinnant, "chrono-compatible low-level date algorithms".
    let year = if month <= 2 { year - 1 } else { year };
    let (era, place) = (year.div_euclid(400), (month + 9) % 12);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * place + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let minutes: i64 =
        zone.get(1..3)?.parse::<i64>().ok()? * 60 + zone.get(3..5)?.parse::<i64>().ok()?;
    let east = if zone.starts_with('-') { -minutes } else { minutes };
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second - east * 60)
}

/// The lines of a file, in its order; and how many were none.
pub fn read(path: &Path) -> Result<(Vec<Line>, usize), String> {
    let text = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    read_lines(&String::from_utf8_lossy(&text)).map_err(|why| format!("{}: {why}", path.display()))
}

fn read_lines(text: &str) -> Result<(Vec<Line>, usize), String> {
    let (mut lines, mut none, mut first) = (Vec::new(), 0, None);
    let mut before = Duration::ZERO;
    for text in text.lines().filter(|text| !text.trim().is_empty() && !text.starts_with('#')) {
        let Some((mut line, seconds)) = Line::read(text) else {
            none += 1;
            continue;
        };
        if let Some(seconds) = seconds {
            let first = *first.get_or_insert(seconds);
            let at = Duration::from_secs((seconds - first).max(0) as u64).max(before);
            before = at;
            line.at = Some(at);
        }
        lines.push(line);
        if lines.len() > LINES_MAX {
            return Err(format!("there are more than {LINES_MAX} requests"));
        }
    }
    if lines.is_empty() {
        return Err("there is no request in it".to_owned());
    }
    spread(&mut lines);
    Ok((lines, none))
}

/// An access log knows seconds: what came within one is spread over it.
fn spread(lines: &mut [Line]) {
    for second in lines.chunk_by_mut(|one, next| one.at == next.at) {
        let count = second.len() as u32;
        for (place, line) in second.iter_mut().enumerate() {
            line.at = line.at.map(|at| at + Duration::from_secs(1) * place as u32 / count);
        }
    }
}

/// Given requests, again and again.
pub struct Requests {
    lines: Arc<[Line]>,
    next: usize,
    step: usize,
    host: HeaderValue,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Requests {
    /// Those of thread `number` of `threads`.
    pub fn new(
        lines: Arc<[Line]>,
        (number, threads): (usize, usize),
        host: HeaderValue,
        headers: Vec<(HeaderName, HeaderValue)>,
    ) -> Requests {
        Requests { lines, next: number, step: threads, host, headers }
    }

    /// The next one.
    pub fn next(&mut self) -> Asked {
        let line = &self.lines[self.next % self.lines.len()];
        self.next += self.step;
        let mut request = Request::new(Full::new(line.body.clone()));
        *request.method_mut() = line.method.clone();
        *request.uri_mut() = line.target.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        if let Some(agent) = &line.agent {
            headers.insert(USER_AGENT, agent.clone());
        }
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        Asked { request, ticket: NOBODY }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_log_keeps_its_times_and_what_came_within_a_second_is_spread_over_it() {
        let text = "\
192.0.2.1 - - [31/Dec/2025:23:59:59 +0900] \"GET /a?x=1 HTTP/1.1\" 200 5 \"-\" \"Agent/1\"
192.0.2.1 - - [31/Dec/2025:23:59:59 +0900] \"GET /b HTTP/1.1\" 200 5
junk
192.0.2.1 - - [31/Dec/2025:15:00:02 +0000] \"POST /c HTTP/1.1\" 204 0 \"https://x/\" \"-\"
";
        let (lines, none) = read_lines(text).unwrap();
        let at: Vec<_> = lines.iter().filter_map(|line| line.at).collect();
        assert_eq!(at, [0, 500, 3_000].map(Duration::from_millis));
        assert_eq!(none, 1);
        assert_eq!(lines[0].target, "/a?x=1");
        assert_eq!(lines[0].agent.as_ref().unwrap(), "Agent/1");
        assert_eq!((lines[1].agent.is_none(), lines[2].agent.is_none()), (true, true));
        assert_eq!(lines[2].method, Method::POST);
    }

    #[test]
    fn a_request_a_line_may_have_a_body() {
        let text =
            "# pages\nGET /p.gif?s=demo\n\nPOST /b {\"s\": \"demo\", \"e\": \"x\"}\nget /no\n";
        let (lines, none) = read_lines(text).unwrap();
        assert_eq!((lines.len(), none), (2, 1));
        assert_eq!(lines[1].body, "{\"s\": \"demo\", \"e\": \"x\"}");
        assert!(lines.iter().all(|line| line.at.is_none()));
        assert!(read_lines("nothing at all\n").is_err());
    }

    #[test]
    fn a_hit_says_of_which_site_it_is_and_other_requests_are_nobodys() {
        let text = "GET /p.gif?u=x&s=www\nPOST /b [{\"s\": \"a-test\"}]\nPOST /b {\"s\": \"b\"}\n\
                    POST /b nothing\nGET /x?s=www\n";
        let (lines, _) = read_lines(text).unwrap();
        let sites: Vec<_> = lines.iter().map(Line::site).collect();
        let some = |site: &str| Some(site.to_owned());
        assert_eq!(sites, [some("www"), some("a-test"), some("b"), None, None]);
    }

    #[test]
    fn times_are_counted_from_1970_whatever_the_zone() {
        assert_eq!(seconds_of("01/Jan/1970:00:00:00 +0000"), Some(0));
        assert_eq!(seconds_of("29/Feb/2024:12:30:00 +0000"), Some(1_709_209_800));
        assert_eq!(seconds_of("01/Mar/2026:00:00:00 -0530"), Some(1_772_343_000));
        assert_eq!(seconds_of("01/Foo/2026:00:00:00 +0000"), None);
    }

    #[test]
    fn threads_share_the_lines_between_them() {
        let (lines, _) = read_lines("GET /0\nGET /1\nGET /2\nGET /3\nGET /4\n").unwrap();
        let lines: Arc<[Line]> = lines.into();
        let host = || HeaderValue::from_static("x");
        let mut two: Vec<_> =
            (0..2).map(|it| Requests::new(Arc::clone(&lines), (it, 2), host(), vec![])).collect();
        let mut seen: Vec<String> =
            (0..5).map(|turn| two[turn % 2].next().request.uri().to_string()).collect();
        seen.sort();
        assert_eq!(seen, ["/0", "/1", "/2", "/3", "/4"]);
    }
}
