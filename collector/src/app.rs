//! What every handler shares: the engine, its journal, the settings in force, the clock.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use arc_swap::ArcSwap;
use engine::engine::Engine;
use engine::glob::Globs;
use engine::id::{Key, SiteId, VisitorId};
use engine::rule::MY_PAGE;
use engine::scoring::Scoring;
use tokio::sync::broadcast;

use crate::audit::Figures as Audited;
use crate::clock::Clock;
use crate::config::{DoNotSend, Excluded, Owners, Settings, Site};
use crate::erasures::Erasures;
use crate::ids::Ids;
use crate::install::Install;
use crate::journal::Journal;
use crate::lately::Lately;
use crate::limits::{Quota, RateLimits};
use crate::link::scanners::Scanners;
use crate::link::uses::LinkUses;
use crate::metrics::Metrics;
use crate::named::NamedLists;
use crate::net::Network;
use crate::patience::Stalled;
use crate::retention::Figures as Retained;
use crate::seal::Sealer;
use crate::snapshots::{Figures as Snapshotted, Store};

/// What every handler shares.
pub struct App {
    /// The settings as the process was started with.
    pub settings: Settings,
    /// The sites, by what a hit carries.
    pub sites: Sites,
    /// The scoring in force.
    pub scoring: ArcSwap<InForce>,
    /// The people of sales.
    pub owners: ArcSwap<Owners>,
    /// Filters of leads with a name.
    pub named: ArcSwap<NamedLists>,
    /// Who is not to be written to.
    pub do_not_send: ArcSwap<DoNotSend>,
    /// Held while a version of the scoring is published: one at a time.
    pub publishing: Mutex<()>,
    /// Held by a job that goes over the whole journal: one at a time.
    pub jobs: Mutex<()>,
    /// Visitors and leads.
    pub engine: Engine,
    /// What was acknowledged.
    pub journal: Journal,
    /// Personal payloads.
    pub sealer: Arc<Sealer>,
    /// Who was erased. Held by whoever erases: one at a time.
    pub erasures: Mutex<Erasures>,
    /// The keys of the installation.
    pub install: Install,
    /// Time.
    pub clock: Clock,
    /// Chance.
    pub ids: Ids,
    /// What was read lately.
    pub lately: Lately,
    /// How often signed links were used.
    pub link_uses: LinkUses,
    /// Machines that open mails.
    pub scanners: Scanners,
    /// Limits on senders.
    pub rates: Rates,
    /// Counters and latencies.
    pub metrics: Metrics,
    /// Whether replay is done and hits are taken.
    pub ready: AtomicBool,
    /// Which limits on what is kept are met, as the timers last saw it.
    pub full: Full,
    /// Of the snapshots, and whether one is wanted.
    pub snapshots: Snapshotted,
    /// Of the audit.
    pub audit: Audited,
    /// Where the snapshots are, and the base.
    pub kept: Store,
    /// Of what is removed from the journal.
    pub retention: Retained,
    /// Who cannot read the journal any further.
    pub stalled: Stalled,
    /// Where the collector listens, once it does.
    pub listening: OnceLock<SocketAddr>,
    /// A line for each hit, taken or refused, to whoever listens.
    pub live: broadcast::Sender<Arc<str>>,
}

/// A published version and what of it the collector decides.
pub struct InForce {
    /// For the engine.
    pub scoring: Scoring,
    /// Networks whose hits are worth nothing.
    pub networks: Vec<Network>,
    /// E-mail domains whose people are nobody's lead.
    pub email_domains: std::collections::BTreeSet<String>,
    /// Whether robots are marked.
    pub robots: bool,
    /// The rule file.
    pub text: Arc<str>,
}

impl InForce {
    /// Of a version and the file's exclusions.
    pub fn new(scoring: Scoring, excluded: &Excluded, text: Arc<str>) -> InForce {
        InForce {
            scoring,
            networks: excluded.networks.clone(),
            email_domains: excluded.email_domains.clone(),
            robots: excluded.robots,
            text,
        }
    }
}

/// Limits on what is kept that are met. Looked at by the timers, twenty times a second, since
/// to count a map is to visit each of its locks: a limit is passed by what comes meanwhile.
#[derive(Debug, Default)]
pub struct Full {
    /// The journal has grown to its limit.
    pub journal: AtomicBool,
    /// As many visitors as may be are in memory.
    pub visitors: AtomicBool,
    /// As many leads as may be are in memory.
    pub leads: AtomicBool,
}

/// Limits on senders.
pub struct Rates {
    /// Hits of one network.
    pub address: Option<RateLimits>,
    /// Hits of one site.
    pub site: Option<RateLimits>,
    /// New people claimed, by site.
    pub claims: Vec<Mutex<Quota>>,
}

/// One way into a site: by a key of it.
#[derive(Clone, Debug)]
pub struct SiteEntry {
    /// Its number in the journal.
    pub number: SiteId,
    /// The site.
    pub site: Arc<Site>,
    /// Whether the key is the test key.
    pub test: bool,
    /// Tied into every visitor id, so that namespaces and tests never meet.
    mask: u128,
    /// The namespace of its people.
    pub namespace: Arc<str>,
    /// Its areas, by name.
    areas: Arc<Vec<(String, Globs)>>,
}

impl SiteEntry {
    /// The engine's id of a browser, as this site's namespace sees it.
    pub fn visitor(&self, raw: u128) -> VisitorId {
        VisitorId(raw ^ self.mask)
    }

    /// Whether a path lies in the area for people who have logged in, and in which others.
    pub fn areas(&self, path: &str) -> (bool, Vec<String>) {
        let found = self.areas.iter().filter(|(_, globs)| globs.any(path));
        let mut names: Vec<String> = found.map(|(name, _)| name.clone()).collect();
        let before = names.len();
        names.retain(|name| name != MY_PAGE);
        (names.len() < before, names)
    }
}

/// The sites, by what a hit carries.
#[derive(Debug, Default)]
pub struct Sites {
    by_key: BTreeMap<String, SiteEntry>,
    all: Vec<SiteEntry>,
}

impl Sites {
    /// Of the configured sites, each with its number.
    pub fn new(sites: &[(SiteId, Site)], key: &Key) -> Sites {
        let mut known = Sites::default();
        for (number, site) in sites {
            let shared = Arc::new(site.clone());
            // The settings hold only globs that the engine takes.
            let globs = |(name, globs): (&String, &Vec<String>)| {
                Some((name.clone(), Globs::new(globs).ok()?))
            };
            let areas: Arc<Vec<_>> = Arc::new(site.areas.iter().filter_map(globs).collect());
            let entry = |test: bool| {
                let namespace =
                    if test { format!("{}#test", site.namespace) } else { site.namespace.clone() };
                SiteEntry {
                    number: *number,
                    site: Arc::clone(&shared),
                    test,
                    mask: key.hash128(&[b"namespace", namespace.as_bytes()]),
                    namespace: namespace.into(),
                    areas: Arc::clone(&areas),
                }
            };
            for key in &site.keys {
                known.by_key.insert(key.clone(), entry(false));
            }
            if let Some(key) = &site.test_key {
                known.by_key.insert(key.clone(), entry(true));
            }
            known.all.push(entry(false));
        }
        known
    }

    /// The site of a key.
    pub fn find(&self, key: &str) -> Option<&SiteEntry> {
        self.by_key.get(key)
    }

    /// A site by its id, as its own key or its test key sees it.
    pub fn of_id(&self, id: &str, test: bool) -> Option<&SiteEntry> {
        let of = |entry: &&SiteEntry| entry.site.id == id && entry.test == test;
        self.by_key.values().find(of)
    }

    /// Every site once.
    pub fn all(&self) -> &[SiteEntry] {
        &self.all
    }

    /// Whether any site has this page origin.
    pub fn allow(&self, origin: &str) -> bool {
        self.all.iter().any(|entry| entry.site.origins.allow(origin))
    }
}

impl App {
    /// Sends a line to whoever listens; costs nothing when nobody does.
    pub fn tell(&self, line: impl FnOnce() -> String) {
        if self.live.receiver_count() > 0 {
            // Nobody listening any more is no error.
            let _ = self.live.send(line().into());
        }
    }

    /// How browsers reach the collector, without a slash at the end.
    pub fn collector_url(&self) -> String {
        let stated = self.settings.collector.public_url.clone();
        stated.unwrap_or_else(|| {
            let listening = self.listening.get().copied();
            format!("http://{}", listening.unwrap_or(self.settings.collector.listen))
        })
    }

    /// Whether hits are taken.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }
}

/// Adds one to a counter.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
