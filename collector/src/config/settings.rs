//! The settings of mikomi.toml as types. The defaults stand in the compiled-in file and nowhere
//! else, so that what a person reads there is what runs.

use std::collections::BTreeSet;
use std::fmt;
use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::super::net::{Network, address_prefix};
use super::crm_link::CrmLink;
use super::sites::Site;

/// Everything mikomi.toml says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The door to the internet.
    pub collector: Collector,
    /// The door for people with a token.
    pub admin: Admin,
    /// What is refused, and from where on.
    pub limits: Limits,
    /// What was acknowledged.
    pub journal: Journal,
    /// When what is in memory is kept beside it.
    pub snapshots: Snapshots,
    /// How what is in memory is held against it.
    pub audit: Audit,
    /// How a browser is known again.
    pub cookie: Cookie,
    /// Locks of the engine's maps: a power of two, at least 2.
    pub shards: usize,
    /// Where the rules come from.
    pub rules_from: RulesFrom,
    /// How messages are delivered.
    pub webhooks: Webhooks,
    /// What is never kept.
    pub privacy: Privacy,
    /// The sites, in the file's order; at least one.
    pub sites: Vec<Site>,
}

/// The door to the internet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    /// Where it listens.
    pub listen: SocketAddr,
    /// How browsers reach it, without a slash at the end, if stated.
    pub public_url: Option<String>,
    /// Certificate and key, if it speaks TLS itself.
    pub tls: Option<TlsFiles>,
    /// Networks whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<Network>,
    /// Threads that take hits; nothing: one for each core.
    pub workers: Option<usize>,
    /// Connections open at once.
    pub connections_max: usize,
    /// Connections of one address, if limited.
    pub connections_per_address_max: Option<usize>,
    /// From connecting to the first byte.
    pub silent: Duration,
    /// From the first byte of a head to its last.
    pub header: Duration,
    /// Longest pause within a body.
    pub body_gap: Duration,
    /// A whole body.
    pub body: Duration,
    /// From the head to the answer.
    pub request: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// While the other side takes nothing of its answer.
    pub write: Duration,
    /// Still read after a refusal.
    pub linger: Duration,
    /// For requests in hand when told to stop.
    pub stop: Duration,
    /// Whoever sends it is told where their hits stand in the journal, if it is stated.
    pub load_token: Option<Secret>,
}

/// The door for people with a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens.
    pub listen: SocketAddr,
    /// How people reach it, without a slash at the end, if stated.
    pub admin_url: Option<String>,
    /// How they reach a lead in their own system, if stated.
    pub crm_link: Option<CrmLink>,
    /// Certificate and key, if it speaks TLS itself.
    pub tls: Option<TlsFiles>,
    /// Networks whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<Network>,
}

/// PEM files of a listener, found from the folder of the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// A rate: so many a second for good, and so many more at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// A second.
    pub per_s: u64,
    /// On top of it, at once.
    pub burst: u64,
}

/// What is refused, and from where on. Bytes where the name says so, else counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A request line.
    pub line_bytes_max: usize,
    /// A request line of a vendor's path.
    pub vendor_line_bytes_max: usize,
    /// All headers of a request.
    pub headers_bytes_max: usize,
    /// Number of headers.
    pub headers_max: usize,
    /// One hit.
    pub hit_bytes_max: usize,
    /// One body, also after unpacking.
    pub batch_bytes_max: usize,
    /// Hits in one body.
    pub batch_hits_max: usize,
    /// Nesting of JSON.
    pub json_depth_max: usize,
    /// Hits of one network of senders, if limited.
    pub address_rate: Option<Rate>,
    /// Networks counted at once.
    pub addresses_max: usize,
    /// Hits of one site, if limited.
    pub site_rate: Option<Rate>,
    /// People claimed by browsers, an hour and site.
    pub claims_per_hour_max: u64,
    /// Browsers in memory.
    pub visitors_max: usize,
    /// People in memory.
    pub leads_max: usize,
    /// The journal on the disk.
    pub journal_bytes_max: u64,
    /// Accepted and not yet on the disk.
    pub pending_bytes_max: u64,
}

/// When a hit is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// When it is on the disk.
    Durable,
    /// Before; a crash loses acknowledged hits.
    Lossy,
}

/// What was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    /// The folder, from the one mikomi was started in.
    pub dir: PathBuf,
    /// When a hit is acknowledged.
    pub durability: Durability,
    /// One file.
    pub segment_bytes: u64,
    /// Kept free for a stop on a full disk; 0: nothing.
    pub reserve_bytes: u64,
    /// What is older is removed; nothing: everything is kept.
    pub keep: Option<Duration>,
}

/// When a snapshot is taken: whichever comes first, if there is anything new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshots {
    /// After so long.
    pub every: Duration,
    /// After so many bytes of the journal.
    pub every_bytes: u64,
}

/// How what is in memory is held against what the journal makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audit {
    /// Percent of one core that it takes at most; nothing: it is off.
    pub core_percent_max: Option<u64>,
    /// From the beginning of a round to that of the next, at least.
    pub round: Duration,
}

/// Where the rules come from: there is one truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RulesFrom {
    /// scoring.toml: saving it publishes.
    File,
    /// Whoever publishes with a token; the file is only where it begins.
    Dashboard,
}

/// When the cookie is marked `Secure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecureCookie {
    /// Unless browsers reach the collector by plain http.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How a browser is known again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// The cookie's name.
    pub name: String,
    /// Whether it serves sites on other domains.
    pub third_party: bool,
    /// When it is marked `Secure`.
    pub secure: SecureCookie,
}

/// How messages are delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhooks {
    /// Waits before the attempts; at least one.
    pub retry_schedule: Vec<Duration>,
    /// One attempt.
    pub timeout: Duration,
    /// Finding the name and connecting.
    pub connect: Duration,
    /// The first rest of an endpoint where most attempts fail.
    pub rest_min: Duration,
    /// The longest.
    pub rest_max: Duration,
    /// Attempts at once for one endpoint.
    pub in_flight_max: usize,
    /// Endpoints.
    pub endpoints_max: usize,
    /// Messages waiting.
    pub pending_max: usize,
    /// Messages given up and kept.
    pub dead_max: usize,
    /// Their bodies together.
    pub bodies_bytes_max: usize,
    /// One body.
    pub body_bytes_max: usize,
}

/// What is never kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Privacy {
    /// Bits kept of an IPv4 address.
    pub address_ipv4_bits: u8,
    /// Bits kept of an IPv6 address.
    pub address_ipv6_bits: u8,
    /// Names kept of a query; one that ends in `*` means all that begin so.
    pub query_names: Vec<String>,
    /// Whether Sec-GPC: 1 stops tracking.
    pub honour_gpc: bool,
}

/// What of the settings decides which rules can ever count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForRules {
    /// The names of all areas of all sites.
    pub areas: BTreeSet<String>,
    /// What is kept of an address's query.
    pub privacy: Privacy,
}

impl Settings {
    /// What the rules need to know of them.
    pub fn for_rules(&self) -> ForRules {
        let areas = self.sites.iter().flat_map(|site| site.areas.keys().cloned());
        ForRules { areas: areas.collect(), privacy: self.privacy.clone() }
    }
}

impl Privacy {
    /// What is kept of an address: its network.
    pub fn network(&self, address: IpAddr) -> IpAddr {
        address_prefix(address, (self.address_ipv4_bits, self.address_ipv6_bits))
    }

    /// Whether a name of a query is kept.
    pub fn keeps_query(&self, name: &str) -> bool {
        self.query_names.iter().any(|kept| match kept.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => kept == name,
        })
    }
}

/// A secret from a file or a variable. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub(super) String);

impl Secret {
    /// Its text, for signing and comparing; never for people.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether a text is this secret; takes the same time wherever they differ.
    pub fn matches(&self, given: &[u8]) -> bool {
        are_same(self.0.as_bytes(), given)
    }
}

/// Whether two secrets are the same; takes the same time wherever they differ.
pub fn are_same(own: &[u8], given: &[u8]) -> bool {
    let differing = own.iter().zip(given).fold(0, |sum, (a, b)| black_box(sum | (a ^ b)));
    own.len() == given.len() && differing == 0
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}
