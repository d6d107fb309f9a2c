//! Saved files take effect while the server runs; one with a mistake changes nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::delivery::driver_endpoint;
use super::publish::publish;
use super::timers::TIMER_EVERY;
use crate::app::App;
use crate::config::{self, Endpoint, Files, RulesFrom, ScoringFile};
use crate::webhook::EndpointId;
use crate::webhook::driver::Command;

/// How often the files are looked at.
const RELOAD_EVERY: Duration = Duration::from_secs(1);

/// Watches the files and publishes what is right.
pub(super) struct Reloading {
    pub(super) app: Arc<App>,
    pub(super) dir: PathBuf,
    pub(super) watcher: config::Watcher,
    pub(super) endpoints: Arc<ArcSwap<Vec<Endpoint>>>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) insist: Arc<AtomicBool>,
    pub(super) problems: Arc<Mutex<Vec<String>>>,
}

impl Reloading {
    /// Looks again and again until told to stop.
    pub(super) fn run(mut self, stop: &AtomicBool) {
        let mut waited = Duration::ZERO;
        while !stop.load(Ordering::Acquire) {
            thread::sleep(TIMER_EVERY);
            waited += TIMER_EVERY;
            let insisted = self.insist.swap(false, Ordering::AcqRel);
            if insisted {
                self.watcher.insist();
            }
            if insisted || waited >= RELOAD_EVERY {
                waited = Duration::ZERO;
                self.look();
            }
        }
    }

    fn look(&mut self) {
        let (found, _) = Files::look(&self.dir);
        let changes = self.watcher.changed(found.contents());
        let from_file = self.app.settings.rules_from == RulesFrom::File;
        if let Some(scoring) = changes.scoring.as_ref().filter(|_| from_file) {
            self.publish(scoring);
        }
        if let Some(endpoints) = changes.endpoints {
            self.exchange(endpoints);
        }
        if changes.settings.is_some() {
            tracing::warn!("mikomi.toml changed: its settings take effect at the next start");
        }
        if changes.problems_changed {
            let lines: Vec<String> =
                self.watcher.problems().iter().map(ToString::to_string).collect();
            for line in &lines {
                tracing::error!("{line}");
            }
            *self.problems.lock().unwrap_or_else(PoisonError::into_inner) = lines;
        }
    }

    fn publish(&self, file: &ScoringFile) {
        match publish(&self.app, file) {
            Ok(version) => tracing::info!(version, "the saved rules are in force"),
            Err(problem) => tracing::error!("{problem}"),
        }
    }

    fn exchange(&self, endpoints: Vec<Endpoint>) {
        let before = self.endpoints.swap(Arc::new(endpoints));
        let now = self.endpoints.load();
        let settings = &self.app.settings;
        let known: BTreeMap<&str, u32> =
            before.iter().map(|it| (it.id.as_str(), it.fingerprint.crc32c)).collect();
        for endpoint in now.iter() {
            if known.get(endpoint.id.as_str()) == Some(&endpoint.fingerprint.crc32c) {
                continue;
            }
            if let Some(changed) = driver_endpoint(endpoint, settings, false) {
                // The driver ends only when the process does.
                let _ = self.commands.blocking_send(Command::Endpoint(Box::new(changed)));
            }
        }
        for gone in before.iter().filter(|it| now.iter().all(|other| other.id != it.id)) {
            if let Ok(id) = EndpointId::parse(&gone.id) {
                let _ = self.commands.blocking_send(Command::Remove(id));
            }
        }
    }
}
