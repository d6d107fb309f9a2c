//! A Hit is what arrived, with every decision that needs the world (who may be believed, what
//! is excluded, when it happened) already made and written into it.

use std::collections::BTreeMap;

use crate::id::{LeadId, SiteId, VisitorId};
use crate::identity::{Assurance, IdentityKind};
use crate::time::Timestamp;

/// Longest URL, title or referrer kept, in bytes. Longer ones are cut at a character.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Most properties of one hit. More are refused.
pub const PROPERTIES_MAX: usize = 32;
/// Most attributes of one lead. Further names are ignored and counted.
pub const ATTRIBUTES_MAX: usize = 64;
/// Longest name of an attribute, property or event, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest value of an attribute or property, in bytes.
pub const VALUE_BYTES_MAX: usize = 512;

/// What a hit is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HitKind {
    /// A page was shown.
    #[default]
    PageView,
    /// Something named happened: a download, a click in our mail.
    Event,
    /// How long the page was visible and focused so far.
    Engagement,
    /// Somebody said, or a server proved, who this is.
    Identify,
    /// The browser forgets who it is: the next hits are nobody's.
    Reset,
}

/// Why a hit is recorded and marked, yet worth nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exclusion {
    /// A known robot.
    Robot,
    /// One of the site's own networks.
    Network,
    /// A path that is never scored.
    Path,
    /// A person of an excluded e-mail domain: staff, a competitor.
    EmailDomain,
}

/// What is known of a person, by name. Plain in memory, sealed in the journal.
pub type Attributes = BTreeMap<String, String>;

/// A statement of who a hit belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// The lead that the first identity in order heads.
    pub lead: LeadId,
    /// The kind of that identity.
    pub kind: Option<IdentityKind>,
    /// How sure the statement is.
    pub assurance: Assurance,
    /// Whether the person lets us track them, if they said.
    pub consent: Option<bool>,
    /// The person's identities and attributes as stated. Never in the journal as they are.
    pub attributes: Attributes,
    /// The same under the person's data key: what the journal holds instead. Empty: none.
    pub sealed: Vec<u8>,
}

/// One hit, decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hit {
    /// The site it was sent to.
    pub site: SiteId,
    /// The browser, if one is known. A server may speak of a lead without any browser.
    pub visitor: Option<VisitorId>,
    /// When the collector accepted it. Orders hits and opens sessions.
    pub received: Timestamp,
    /// When it happened: the client's time, corrected and clamped by the collector.
    pub when: Timestamp,
    /// What it is.
    pub kind: HitKind,
    /// The event's name; empty unless the kind is `Event`.
    pub event: String,
    /// The page's path: percent-decoded, without query, without one trailing slash.
    pub path: String,
    /// The page's address, without query but for the site's allowed names.
    pub url: String,
    /// The page's title.
    pub title: String,
    /// Where the browser came from: host and path.
    pub referrer: String,
    /// Source and medium of the visit, as in `google / organic`; empty if unknown.
    pub campaign: String,
    /// A hash of the hit's own id, for telling repeats; zero if it has none.
    pub id: u64,
    /// A hash of the page view's nonce; zero if it has none.
    pub page: u64,
    /// Visible and focused time on this page view so far, in milliseconds.
    pub engaged_ms: u32,
    /// The farthest part of the page shown, in percent.
    pub scroll: u8,
    /// Whether the page lies in the site's area for people who have logged in.
    pub authenticated: bool,
    /// Whether a server with our key sent it.
    pub by_server: bool,
    /// Whether it came under a test key: its alerts go to test endpoints only.
    pub test: bool,
    /// Why it is worth nothing, if so.
    pub excluded: Option<Exclusion>,
    /// What the event says about itself.
    pub properties: Vec<(String, String)>,
    /// The sender's address cut to its network, as text; empty if withheld.
    pub network: String,
    /// Who it belongs to, if it says so.
    pub claim: Option<Claim>,
}

impl Hit {
    /// Whether a person was there: not a robot, not only a server's statement.
    pub fn is_human(&self) -> bool {
        let acted = match self.kind {
            HitKind::PageView | HitKind::Event | HitKind::Engagement => true,
            HitKind::Identify => !self.by_server,
            HitKind::Reset => false,
        };
        acted && self.excluded.is_none()
    }
}
