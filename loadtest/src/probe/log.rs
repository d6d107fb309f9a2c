//! Hits as a real access log has them: who came how often, from where and with what, in the log's
//! order, as fast as they are answered; again and again on many connections, each time by new
//! visitors. Each keeps the cookie that it is given.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use super::Failure;
use super::drive::{Talk, drive};
use super::http::{self, Answer};

/// Connections at most, each with a pass through the log of its own.
const CONNECTIONS_MAX: usize = 256;

/// One hit.
struct Line {
    visitor: usize,
    /// `&u=...&r=...`, as it stands in the query.
    query: String,
    agent: String,
}

/// How far a connection is.
struct Reader {
    lap: usize,
    next: usize,
    /// Of each visitor of the lap.
    cookies: Vec<String>,
}

struct Log {
    lines: Vec<Line>,
    laps: usize,
    readers: Vec<Reader>,
    seed: u64,
    successes: u64,
    remarks: u64,
}

impl Log {
    fn new(lines: Vec<Line>, laps: usize, seed: u64) -> Log {
        let visitors = lines.iter().map(|line| line.visitor + 1).max().unwrap_or(0);
        let reader = |lap| Reader { lap, next: 0, cookies: vec![String::new(); visitors] };
        let readers = (0..laps.min(CONNECTIONS_MAX)).map(reader).collect();
        Log { lines, laps, readers, seed, successes: 0, remarks: 0 }
    }
}

impl Talk for Log {
    fn ask(&mut self, connection: usize, request: &mut Vec<u8>) -> bool {
        let connections = self.readers.len();
        let reader = &mut self.readers[connection];
        if reader.next == self.lines.len() {
            (reader.next, reader.lap) = (0, reader.lap + connections);
            reader.cookies.iter_mut().for_each(String::clear);
        }
        if reader.lap >= self.laps {
            return false;
        }
        let line = &self.lines[reader.next];
        let id = (self.seed << 40) + (reader.lap * self.lines.len() + reader.next) as u64;
        let cookie = match &*reader.cookies[line.visitor] {
            "" => String::new(),
            cookie => format!("\r\nCookie: {}={cookie}", http::COOKIE),
        };
        let text = format!(
            "GET /p.gif?s=demo{}&i={id:016x} HTTP/1.1\r\nHost: t.site.example\r\n\
             User-Agent: {}{cookie}\r\n\r\n",
            line.query, line.agent
        );
        request.extend_from_slice(text.as_bytes());
        true
    }

    fn hear(&mut self, connection: usize, answer: &Answer<'_>) {
        self.successes += u64::from(answer.is_success());
        self.remarks += u64::from(answer.has_remark());
        let reader = &mut self.readers[connection];
        let visitor = self.lines[reader.next].visitor;
        reader.next += 1;
        if let Some(cookie) = answer.visitor_cookie() {
            cookie.clone_into(&mut reader.cookies[visitor]);
        }
    }
}

/// Plays a file, `VISITOR<tab>QUERY<tab>AGENT` a line, so many times.
pub fn run(target: SocketAddr, file: &Path, laps: usize, seed: u64) -> Result<Value, Failure> {
    let mut log = Log::new(read(&fs::read_to_string(file)?)?, laps, seed);
    let connections = log.readers.len();
    let driven = drive(target, connections, &mut log)?;
    Ok(json!({ "all": driven.to_json(), "all_hits": log.successes, "remarks": log.remarks }))
}

fn read(text: &str) -> Result<Vec<Line>, Failure> {
    let line = |text: &str| {
        let mut parts = text.split('\t');
        let visitor = parts.next()?.parse().ok()?;
        let (query, agent) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        Some(Line { visitor, query, agent })
    };
    let lines: Option<Vec<Line>> = text.lines().map(line).collect();
    lines.filter(|them| !them.is_empty()).ok_or(Failure::Input("a line of the file is no hit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(log: &mut Log) -> Option<String> {
        let mut request = Vec::new();
        log.ask(0, &mut request).then(|| String::from_utf8(request).unwrap())
    }

    fn hear(log: &mut Log, cookie: &str) {
        let bytes = format!(
            "HTTP/1.1 200 OK\r\nset-cookie: mikomi={cookie}\r\n\
                             content-length: 0\r\n\r\n"
        );
        log.hear(0, &Answer::parse(bytes.as_bytes()).unwrap().unwrap());
    }

    #[test]
    fn a_visitor_keeps_the_cookie_within_a_lap_and_is_a_new_one_in_the_next() {
        let lines = read("0\t&u=a\tX\n0\t&u=b\tX\n").unwrap();
        let mut log = Log::new(lines, 2, 1);
        log.readers.truncate(1);
        for lap in 0..2 {
            assert!(!ask(&mut log).unwrap().contains("Cookie"));
            hear(&mut log, "v1.x");
            let second = ask(&mut log).unwrap();
            assert!(second.contains("Cookie: mikomi=v1.x\r\n") && second.contains("&u=b"));
            assert!(second.contains(&format!("&i={:016x}", (1_u64 << 40) + 2 * lap + 1)));
            hear(&mut log, "v1.y");
        }
        assert_eq!((ask(&mut log), log.successes, log.remarks), (None, 4, 0));
    }
}
