//! What the end-to-end tests share: the real binary with its own folders, a browser and a server
//! that send hits over HTTP, and a receiver of webhooks. Everything is on loopback and bounded in
//! time; what takes its time is waited for by its effect.
#![allow(clippy::unwrap_used)]
#![allow(dead_code, reason = "every test file is a crate of its own and uses another part")]

pub mod browser;
pub mod http;
pub mod receiver;
pub mod server;
pub mod story;

use std::io::Read;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// Longest wait for anything. Only a failure waits as long.
pub const GUARD: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks until there is something, and names it if there never is.
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + GUARD;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "never happened within {GUARD:?}: {what}");
        thread::sleep(LOOK_EVERY);
    }
}

/// A moment in Japan, `2026-12-01 09:00` or with seconds, in milliseconds since the epoch.
pub fn at(text: &str) -> u64 {
    let text = format!("{}+09:00", text.replace(' ', "T"));
    let seconds = if text.len() < 25 { text.replacen("+09", ":00+09", 1) } else { text };
    let time: jiff::Timestamp = seconds.parse().unwrap();
    time.as_millisecond() as u64
}

/// A moment as messages write it.
pub fn iso(ms: u64) -> String {
    format!("{:.3}", jiff::Timestamp::from_millisecond(ms as i64).unwrap())
}

/// Whether a figure is within 0.01 of the model's.
#[track_caller]
pub fn about(found: &serde_json::Value, expected: f64) {
    let number = found.as_f64().unwrap_or(f64::NAN);
    assert!((number - expected).abs() <= 0.01, "{found} is not about {expected}");
}

/// A file of the real inputs, if `MIKOMI_TEST_DATA` names their folder; else says what is skipped.
pub fn test_data(name: &str, test: &str) -> Option<Vec<u8>> {
    let Some(folder) = std::env::var_os("MIKOMI_TEST_DATA") else {
        println!("skipped: {test}: MIKOMI_TEST_DATA does not name the folder that holds {name}");
        return None;
    };
    let packed = std::fs::read(PathBuf::from(folder).join(name)).unwrap();
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut plain).unwrap();
    Some(plain)
}
