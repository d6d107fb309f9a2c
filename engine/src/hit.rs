//! A Hit is what arrived, with every decision that needs the world (who may be believed, what
//! is excluded, when it happened) already made and written into it.

use crate::attribute::{Attributes, Level};
use crate::id::{LeadId, SiteId, VisitorId};
use crate::identity::{Assurance, IdentityKind};
use crate::time::Timestamp;

/// Longest URL, title or referrer kept, in bytes. Longer ones are cut at a character.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Most properties of one hit. More are refused.
pub const PROPERTIES_MAX: usize = 32;
/// Most areas of the site one page may lie in. More are left out.
pub const AREAS_MAX: usize = 16;
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
    /// A mail scanner that opens every link of a mail at once.
    Scanner,
    /// A link of one person on the browser of another: it was passed on.
    Forwarded,
    /// It tells of a person to whom the browser is not tied: where many use one browser.
    Guest,
    /// It was done or said before the person was erased, and came later.
    Erased,
}

impl Exclusion {
    /// All reasons, by their number in the journal.
    pub const ALL: [Exclusion; 8] = [
        Exclusion::Robot,
        Exclusion::Network,
        Exclusion::Path,
        Exclusion::EmailDomain,
        Exclusion::Scanner,
        Exclusion::Forwarded,
        Exclusion::Guest,
        Exclusion::Erased,
    ];

    /// The name people and programs read.
    pub fn name(self) -> &'static str {
        match self {
            Exclusion::Robot => "robot",
            Exclusion::Network => "network",
            Exclusion::Path => "path",
            Exclusion::EmailDomain => "email_domain",
            Exclusion::Scanner => "scanner",
            Exclusion::Forwarded => "forwarded",
            Exclusion::Guest => "guest",
            Exclusion::Erased => "erased",
        }
    }
}

/// One name of the person a hit belongs to, and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// What kind of name.
    pub kind: IdentityKind,
    /// Its keyed hash: the lead that it heads, unless it is another name of somebody.
    pub id: LeadId,
    /// How sure the statement is.
    pub assurance: Assurance,
}

/// A statement of who a hit belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// The names given, the one that heads a new lead first; never none.
    pub names: Vec<Named>,
    /// Whether the person lets us track them, if they said.
    pub consent: Option<bool>,
    /// How sure the attributes are: what a browser sends stays a claim, also beside a proof.
    pub attributes_by: Assurance,
    /// Of whom they are: of the person, of the department, of the company.
    pub level: Level,
    /// The person's identities and attributes as stated. Never in the journal as they are.
    pub attributes: Attributes,
    /// The same under the data key of the first name: what the journal holds. Empty: none.
    pub sealed: Vec<u8>,
    /// Whether the form stands where many people use one browser: it never binds it.
    pub kiosk: bool,
    /// Whether it is the click on a link that we signed. Whoever is known already on this
    /// browser may have got the link from somebody else.
    pub by_link: bool,
}

impl Claim {
    /// The first name.
    pub fn first(&self) -> Option<&Named> {
        self.names.first()
    }

    /// How sure the first name is.
    pub fn assurance(&self) -> Assurance {
        self.first().map_or(Assurance::Claimed, |name| name.assurance)
    }
}

/// One hit, decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each says something of its own")]
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
    /// The site's other areas that the page lies in, by name.
    pub areas: Vec<String>,
    /// Whether the browser came by a link that we signed.
    pub via_our_link: bool,
    /// Whether nobody is told of it: a card or a past that is brought in.
    pub silent: bool,
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
    /// The sender's user agent reduced to its class, as in `chrome windows`; empty if unknown.
    pub agent: String,
    /// Who it belongs to, if it says so.
    pub claim: Option<Claim>,
}

impl Hit {
    /// Whether a person was there: not a robot, not only a server's statement, not only a mail
    /// program that opened a mail by itself.
    pub fn is_human(&self) -> bool {
        let by_link = || self.claim.as_ref().is_some_and(|claim| claim.by_link);
        let acted = match self.kind {
            HitKind::PageView | HitKind::Engagement => true,
            HitKind::Event => self.visitor.is_some() || !by_link(),
            HitKind::Identify => !self.by_server,
            HitKind::Reset => false,
        };
        acted && self.excluded.is_none()
    }
}
