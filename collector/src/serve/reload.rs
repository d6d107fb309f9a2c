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
use crate::config::{self, Endpoint, FILE_NAMES, Files, Problem, RulesFrom, ScoringFile};
use crate::webhook::EndpointId;
use crate::webhook::driver::Command;

/// How often the files are looked at.
const RELOAD_EVERY: Duration = Duration::from_secs(1);

/// The file of the rules.
const SCORING: &str = FILE_NAMES[1];

/// Watches the files and publishes what is right.
pub(super) struct Reloading {
    pub(super) app: Arc<App>,
    pub(super) dir: PathBuf,
    pub(super) watcher: config::Watcher,
    pub(super) endpoints: Arc<ArcSwap<Vec<Endpoint>>>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) insist: Arc<AtomicBool>,
    pub(super) problems: Arc<Mutex<Vec<String>>>,
    /// Why rules without a mistake could not be published all the same.
    pub(super) unpublished: Option<Problem>,
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
        let before = self.unpublished.clone();
        if let Some(scoring) = changes.scoring.as_ref().filter(|_| from_file) {
            self.publish(scoring);
        }
        if let Some(endpoints) = changes.endpoints {
            self.exchange(endpoints);
        }
        if let Some(owners) = changes.owners {
            self.app.owners.store(Arc::new(owners));
        }
        if let Some(named) = changes.named {
            self.app.named.store(Arc::new(named));
        }
        if let Some(list) = changes.do_not_send {
            self.app.do_not_send.store(Arc::new(list));
        }
        if changes.settings.is_some() {
            tracing::warn!("mikomi.toml changed: its settings take effect at the next start");
        }
        let mut problems = self.watcher.problems();
        if problems.iter().any(|problem| problem.file == SCORING) {
            // The file is another by now.
            self.unpublished = None;
        }
        if changes.problems_changed || self.unpublished != before {
            problems.extend(self.unpublished.clone());
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            for line in &lines {
                tracing::error!("{line}");
            }
            *self.problems.lock().unwrap_or_else(PoisonError::into_inner) = lines;
        }
    }

    fn publish(&mut self, file: &ScoringFile) {
        match publish(&self.app, file) {
            Ok(version) => {
                self.unpublished = None;
                tracing::info!(version, "the saved rules are in force");
            }
            Err(problem) => {
                self.watcher.refused();
                self.unpublished = Some(problem);
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Around, DEFAULT_SCORING, Surroundings};
    use crate::named::NamedLists;
    use crate::serve::tests::started;

    /// The rules that ship with ten more categories, of names that no other number has.
    fn with_categories(number: usize) -> String {
        let category = |more: u32| {
            format!("c{number}_{more} = {{ half_life = \"14d\", max = 1, en = \"c\" }}\n")
        };
        let more = (0..10).map(category).collect::<Vec<String>>().concat();
        let (before, after) = DEFAULT_SCORING.split_once("\n[urgency]").unwrap();
        format!("{before}\n{more}\n[urgency]{after}")
    }

    #[test]
    fn rules_that_cannot_be_published_are_among_the_problems_until_others_can() {
        let (_data, running) = started();
        let folder = tempfile::tempdir().unwrap();
        let surroundings = Surroundings::default();
        let around = Around { surroundings: &surroundings, settings: None };
        let parse = |text: &str| ScoringFile::parse(SCORING, text, around).unwrap();
        // Numbers are given for ever, and there are 256.
        for number in 0..25 {
            publish(&running.app, &parse(&with_categories(number))).unwrap();
        }
        let for_rules = running.app.settings.for_rules();
        let first = parse(DEFAULT_SCORING);
        let (loaded, named) = (Files::default(), NamedLists::default());
        let parsed = (&first, &named);
        let watcher =
            config::Watcher::new(surroundings.clone(), loaded.contents(), for_rules, parsed);
        let mut reloading = Reloading {
            app: Arc::clone(&running.app),
            dir: folder.path().to_owned(),
            watcher,
            endpoints: Arc::default(),
            commands: mpsc::channel(1).0,
            insist: Arc::default(),
            problems: Arc::default(),
            unpublished: None,
        };
        let mut save = |text: &str| {
            std::fs::write(folder.path().join(SCORING), text).unwrap();
            reloading.watcher.insist();
            reloading.look();
            reloading.problems.lock().unwrap().clone()
        };
        let problems = save(&with_categories(25));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("scoring.toml: "), "{problems:?}");
        assert_eq!(running.app.scoring.load().scoring.version, 26, "the old ones stay");
        assert!(save("wrong").iter().all(|problem| !problems.contains(problem)), "it is gone");
        assert_eq!(save(&with_categories(25)), problems);
        assert_eq!(save(DEFAULT_SCORING), [""; 0]);
        running.stop().unwrap();
    }
}
