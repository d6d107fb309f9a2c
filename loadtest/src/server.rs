//! What is seen of the machine and of the server while it is measured: its own figures once a
//! second, and what the kernel knows of its process.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::clock::since_1970;

const EVERY: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 4 * 1_024 * 1_024;

/// What was seen at a moment; nothing where it could not be.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Look {
    /// Since the end of the warm-up; less than nothing before it.
    pub at_s: f64,
    /// Processor time a second of its process.
    pub cpu: Option<f64>,
    /// Its memory.
    pub rss_bytes: Option<u64>,
    /// The 99th percentile of how long it takes to acknowledge a hit.
    pub acknowledge_p99_us: Option<f64>,
    /// Commits of its journal a second.
    pub commits_per_s: Option<f64>,
    /// Bytes that wait to be committed.
    pub pending_bytes: Option<f64>,
    /// Visitors in memory.
    pub visitors: Option<f64>,
    /// Hits a second, as it counts them.
    pub hits_per_s: Option<f64>,
}

/// Where to look.
#[derive(Clone, Default)]
pub struct Watch {
    /// `host:port` of its figures.
    admin: Option<String>,
    token: Option<String>,
    pid: Option<u32>,
}

impl Watch {
    /// By the URL of its figures, as in `http://127.0.0.1:8081`, and its process.
    pub fn new(
        admin: Option<&str>,
        token: Option<String>,
        pid: Option<u32>,
    ) -> Result<Watch, String> {
        let admin = match admin {
            None => None,
            Some(url) => {
                let host = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
                let host = host.filter(|host| host.contains(':') && !host.contains('/'));
                let wrong = || format!("\"{url}\" cannot be watched: write http://HOST:PORT");
                Some(host.ok_or_else(wrong)?.to_owned())
            }
        };
        let watch = Watch { admin, token, pid };
        if watch.pid.is_some_and(|pid| cpu(pid).is_none()) {
            return Err(format!("there is no process {} to be looked at", pid.unwrap_or_default()));
        }
        if watch.admin.is_some() {
            watch.figures().map_err(|why| format!("the server's figures: {why}"))?;
        }
        Ok(watch)
    }

    /// Looks once a second until it is told to stop; the times are since 1970.
    pub fn run(&self, stop: &Receiver<()>) -> Vec<Look> {
        let mut looks = Vec::new();
        if self.admin.is_none() && self.pid.is_none() {
            return looks;
        }
        let mut before: Option<(Instant, Raw)> = None;
        let mut next = Instant::now();
        loop {
            let (now, raw) = (Instant::now(), self.look());
            if let Some((then, earlier)) = &before {
                let seconds = now.duration_since(*then).as_secs_f64();
                let at = since_1970();
                looks.push(raw.since(earlier, seconds, at.as_secs_f64()));
            }
            before = Some((now, raw));
            next += EVERY;
            match stop.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return looks,
            }
        }
    }

    fn look(&self) -> Raw {
        Raw {
            cpu_s: self.pid.and_then(cpu).map(|spent| spent.as_secs_f64()),
            rss_bytes: self.pid.and_then(rss_bytes),
            figures: self.figures().unwrap_or_default(),
        }
    }

    fn figures(&self) -> Result<BTreeMap<String, f64>, String> {
        let Some(host) = &self.admin else {
            return Ok(BTreeMap::new());
        };
        let text = self.ask(host).map_err(|error| format!("{host}: {error}"))?;
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let first = head.lines().next().unwrap_or_default();
        if first.split(' ').nth(1) != Some("200") {
            return Err(format!("{host} answered \"{first}\""));
        }
        Ok(read_figures(body))
    }

    fn ask(&self, host: &str) -> std::io::Result<String> {
        let address = host.to_socket_addrs()?.next();
        let address = address.ok_or_else(|| std::io::Error::other("it has no address"))?;
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let bearer = self.token.as_ref().map(|it| format!("Authorization: Bearer {it}\r\n"));
        let bearer = bearer.unwrap_or_default();
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n{bearer}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut text = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut text)?;
        Ok(text)
    }
}

fn read_figures(body: &str) -> BTreeMap<String, f64> {
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.rsplit_once(' '));
    pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
}

/// What stands there, before anything is taken from anything.
struct Raw {
    cpu_s: Option<f64>,
    rss_bytes: Option<u64>,
    figures: BTreeMap<String, f64>,
}

impl Raw {
    fn since(&self, earlier: &Raw, seconds: f64, at_s: f64) -> Look {
        let figure = |name: &str| self.figures.get(name).copied();
        let per_s = |name: &str| Some((figure(name)? - earlier.figures.get(name)?) / seconds);
        Look {
            at_s,
            cpu: self.cpu_s.zip(earlier.cpu_s).map(|(now, then)| (now - then).max(0.0) / seconds),
            rss_bytes: self.rss_bytes,
            acknowledge_p99_us: figure("mikomi_acknowledge_microseconds{quantile=\"0.99\"}"),
            commits_per_s: per_s("mikomi_journal_commits_total"),
            pending_bytes: figure("mikomi_journal_pending_bytes"),
            visitors: figure("mikomi_visitors"),
            hits_per_s: per_s("mikomi_hits_total"),
        }
    }
}

/// A tick of processor time, as the kernel tells it to programs.
const TICK: Duration = Duration::from_millis(10);

/// Processor time of a process, that of threads that ended included.
pub fn cpu(pid: u32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything; the time of the program and that of the kernel are the
    // 14th and the 15th field of all.
    let (_, fields) = text.rsplit_once(')')?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u32>);
    Some(TICK * ticks.sum::<Result<u32, _>>().ok()?)
}

fn rss_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1_024)
}

/// The machine that the generator runs on, as far as figures depend on it.
pub fn machine() -> BTreeMap<String, String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let found = [
        ("cpu", model.to_owned()),
        ("cores", cores.to_string()),
        ("kernel", read("/proc/sys/kernel/osrelease")),
        ("governor", read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        ("load_average", read("/proc/loadavg")),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    let known = found.into_iter().filter(|(_, value)| !value.is_empty());
    known.map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_by_name_and_rates_are_taken_from_two_looks() {
        let raw = |hits: u32, seconds: f64| Raw {
            cpu_s: Some(seconds),
            rss_bytes: Some(4_096),
            figures: read_figures(&format!(
                "# TYPE x counter\nmikomi_hits_total {hits}\n\
                 mikomi_acknowledge_microseconds{{quantile=\"0.99\"}} 850\nbroken\n"
            )),
        };
        let look = raw(300, 1.5).since(&raw(100, 0.5), 2.0, 7.0);
        assert_eq!(look.hits_per_s, Some(100.0));
        assert_eq!(look.cpu, Some(0.5));
        assert_eq!(look.acknowledge_p99_us, Some(850.0));
        assert_eq!(look.commits_per_s, None);
    }

    #[test]
    fn a_process_that_runs_is_seen_and_one_that_does_not_is_refused() {
        let own = std::process::id();
        assert!(cpu(own).is_some() && rss_bytes(own).is_some_and(|bytes| bytes > 0));
        assert!(Watch::new(None, None, Some(u32::MAX - 1)).is_err());
        assert!(Watch::new(Some("https://x:1"), None, None).is_err());
    }
}
