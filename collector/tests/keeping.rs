//! What is kept, and how anybody can be sure of it: a data folder that is looked at, replayed to
//! any moment, proved by receipts, copied while it lives and put back.
#![allow(clippy::unwrap_used)]

#[path = "keeping/backup.rs"]
mod backup;
#[path = "keeping/forge.rs"]
mod forge;
#[path = "keeping/receipts.rs"]
mod receipts;
#[path = "keeping/replay.rs"]
mod replay;
mod support;
#[path = "keeping/verify.rs"]
mod verify;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use support::at;
use support::browser::Browser;
use support::receiver::Receiver;
use support::server::{Server, Setup};
use support::story::{TANAKA, drain, story_two};

/// A server with one receiver, and these further lines of its settings.
fn small(collector: &str, files: Vec<(String, String)>) -> (Server, Receiver) {
    let receiver = Receiver::start();
    let mut setup =
        Setup::new(at("2026-12-01 08:00"), &[receiver.endpoint("sfa", "audience = [\"sales\"]\n")]);
    let door = "[collector]\n";
    assert!(setup.mikomi.starts_with(door));
    setup.mikomi = setup.mikomi.replacen(door, &format!("{door}{collector}\n"), 1);
    setup.files = files;
    (Server::start(&setup.with_admin_url()), receiver)
}

/// A life: strangers, people, one who becomes hot, another name of hers, one who is erased, power
/// cuts, and messages that were delivered.
fn lived() -> (Server, Receiver) {
    let (mut server, receiver) = small("", Vec::new());
    let mut her = story_two(&server);
    receiver.wait_about(TANAKA, 1);
    server.wait_delivered(1);
    for number in 2..12 {
        let mut somebody = Browser::returning(&server, number);
        somebody.page("/pricing/", "");
        somebody.identify(&format!("p{number}@sample.example"), &json!({ "name": "山田" }));
        somebody.page("/case/line", "");
        // Every start begins a segment.
        if number % 3 == 0 {
            server.kill();
            server.restart();
        }
    }
    her.page("/case/line", "");
    her.identify("t@other.example", &json!({}));
    drain(&server, &receiver, 1);
    let erased = server.lead_id("p4@sample.example");
    server.step("/api/erase", json!({ "lead": erased }));
    server.kill();
    server.restart();
    drain(&server, &receiver, 2);
    (server, receiver)
}

/// Copies a folder with everything in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The last line of a command that must go well, as JSON.
#[track_caller]
fn told(server: &Server, arguments: &[&str]) -> Value {
    let (text, well) = server.command(arguments);
    assert!(well, "{arguments:?}: {text}");
    serde_json::from_str(text.trim().lines().last().unwrap()).unwrap()
}
