//! From what a sender said to what the journal holds: the named steps, in order. Everything that
//! needs the world (keys, limits, consent, robots, the cookie) is decided here and written into
//! the hit; the engine decides the rest.

pub mod beacon;
mod claim;
pub mod click;
mod describe;
pub mod fact;
pub mod pixel;
pub mod raw;
pub mod reject;

use std::cell::{OnceCell, RefCell};
use std::net::{IpAddr, Ipv4Addr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use engine::engine::{Arrival, Ingested, Turn};
use engine::hit::{Exclusion, Hit};
use engine::id::{Position, VisitorId};
use engine::record::{Body, FirstHit, HitRecord, Record};
use engine::time::Timestamp;
use url::Url;

use self::click::Clicked;
pub use self::raw::RawHit;
pub use self::reject::{Dropped, Reject};
use crate::app::{App, InForce, SiteEntry, count};
use crate::config::SiteConsent;
use crate::cookie::VisitorCookie;
use crate::journal::Reserved;
use crate::lately::Agent;
use crate::link::scanners::Click;
use crate::link::{Kind, SignedLink, uses};
use crate::timeline;

/// Bytes reserved for a hit beyond its own: what the stages decide about it.
const RECORD_OVERHEAD_BYTES: usize = 2 * 1024;

/// Who sent a request, as far as its head tells.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each says something of its own")]
pub struct Sender {
    /// Their address.
    pub address: IpAddr,
    /// Their visitor cookie, if they have a valid one.
    pub cookie: Option<VisitorCookie>,
    /// The page's origin, if the browser names it.
    pub origin: Option<String>,
    /// The user agent.
    pub agent: String,
    /// What stands behind `Authorization: Bearer`, if the header is there.
    pub bearer: Option<String>,
    /// Whether it is our own admin side: as good as a server key, and under no rate.
    pub trusted: bool,
    /// Whether the browser wants no tracking.
    pub gpc: bool,
    /// Whether the person opted out.
    pub opted_out: bool,
    /// Whether the browser fetched ahead.
    pub prefetch: bool,
    /// Bytes of the request's hits.
    pub bytes: usize,
}

impl Sender {
    /// Our own admin side.
    pub fn trusted() -> Sender {
        Sender { trusted: true, ..Sender::at(IpAddr::V4(Ipv4Addr::LOCALHOST)) }
    }

    /// Somebody of whom nothing but the address is known.
    pub fn at(address: IpAddr) -> Sender {
        Sender {
            address,
            cookie: None,
            origin: None,
            agent: String::new(),
            bearer: None,
            trusted: false,
            gpc: false,
            opted_out: false,
            prefetch: false,
            bytes: 0,
        }
    }
}

/// What became of a request's hits.
#[derive(Debug, Default)]
pub struct Taken {
    /// When the request was accepted.
    pub received: Timestamp,
    /// Hits recorded, now or before.
    pub kept: usize,
    /// Hits dropped, with the first reason.
    pub dropped: Option<Dropped>,
    /// Hits refused, in order.
    pub rejected: Vec<Reject>,
    /// Their places among all.
    pub refused: Vec<usize>,
    /// The last position that must be durable before the answer.
    pub position: Option<Position>,
    /// The cookie to set, if any.
    pub cookie: Option<VisitorCookie>,
    /// The last hit that was recorded, if it is a browser's.
    pub recorded: Option<Click>,
}

/// How often a hit is decided again because other rules came into force meanwhile. They come
/// into force a moment after whoever decides is told so.
const STALE_TRIES: usize = 100_000;

/// What all hits of one request share while they are taken.
struct Batch<'a> {
    app: &'a App,
    sender: &'a Sender,
    in_force: Arc<InForce>,
    now: Timestamp,
    reserved: Reserved,
    turn: Turn<'a>,
    /// What the sender's user agent says, and what is kept of their address: once it is asked for.
    agent: OnceCell<Arc<Agent>>,
    network: OnceCell<String>,
    taken: Taken,
}

/// Whose browser a hit is.
enum Who {
    /// Not a browser's: a server speaks of a person.
    Nobody,
    /// In memory, or admitted by coming back; with where the first hit is, if that is known.
    Admitted(VisitorId, Option<Position>),
    /// Never seen: recorded, and remembered only when it comes back.
    New(u128),
}

/// Takes hits as far as the journal's tail. The answer must wait for `Taken::position`.
pub fn take(app: &App, sender: &Sender, hits: &[Result<RawHit, Reject>]) -> Result<Taken, Reject> {
    let mut batch = Batch::new(app, sender, hits.len(), sender.bytes)?;
    for (place, hit) in hits.iter().enumerate() {
        let taken = hit.as_ref().map_err(|reject| *reject).and_then(|raw| batch.take(raw));
        if let Err(reject) = taken {
            app.metrics.reject(reject);
            let what = || hit.as_ref().map(told).unwrap_or_default();
            app.tell(|| refused_line(app, sender.address, reject, &what()));
            batch.taken.rejected.push(reject);
            batch.taken.refused.push(place);
        }
    }
    Ok(batch.taken)
}

/// The line of `tail` for a refused hit. The address is cut as everywhere.
pub fn refused_line(app: &App, address: IpAddr, reject: Reject, what: &str) -> String {
    let field = reject.field().map(|field| format!(" in \"{field}\"")).unwrap_or_default();
    let network = app.settings.privacy.network(address);
    format!("{network}  refused: {}{field}  {}", reject.name(), raw::cut(what, 200))
}

/// A hit in a few words: its event and its page's path. The rest of an address may hold names
/// and tokens, and what a sender wrote must not steer a terminal.
fn told(raw: &RawHit) -> String {
    let parsed = Url::parse(&raw.url).ok();
    let path = match &parsed {
        Some(url) if matches!(url.scheme(), "http" | "https") => url.path(),
        Some(url) => url.scheme(),
        None if raw.url.starts_with('/') => raw.url.split(['?', '#']).next().unwrap_or_default(),
        None => "",
    };
    let mut line = String::new();
    for letter in format!("{} {path}", raw.event).trim_matches(' ').chars() {
        if letter.is_control() {
            line.extend(letter.escape_default());
        } else {
            line.push(letter);
        }
    }
    line
}

impl<'a> Batch<'a> {
    /// Takes room for some hits in the journal: for all or none.
    fn new(app: &'a App, sender: &'a Sender, hits: usize, bytes: usize) -> Result<Self, Reject> {
        if !app.is_ready() {
            return Err(Reject::NotReady);
        }
        if app.full.journal.load(Ordering::Relaxed) {
            return Err(Reject::JournalFull);
        }
        let now = app.clock.now();
        Ok(Batch {
            app,
            sender,
            in_force: app.scoring.load_full(),
            now,
            reserved: app.journal.reserve(hits, bytes + hits * RECORD_OVERHEAD_BYTES)?,
            turn: app.engine.turn(),
            agent: OnceCell::new(),
            network: OnceCell::new(),
            taken: Taken { received: now, ..Taken::default() },
        })
    }

    fn take(&mut self, raw: &RawHit) -> Result<(), Reject> {
        let (site, by_server) = self.site(raw)?;
        self.check_rates(site)?;
        if let Some(dropped) = self.dropped(raw, site, by_server) {
            self.app.metrics.drop_hit(dropped);
            let network = self.app.settings.privacy.network(self.sender.address);
            self.app.tell(|| format!("{network}  dropped: {}", dropped.name()));
            self.taken.dropped.get_or_insert(dropped);
            return Ok(());
        }
        self.record(raw, (site, by_server), None)
    }

    /// Records a hit, a click on a link of ours among them, under whoever it belongs to.
    fn record(
        &mut self,
        raw: &RawHit,
        (site, by_server): (&SiteEntry, bool),
        clicked: Option<Clicked>,
    ) -> Result<(), Reject> {
        let opened = clicked.as_ref().is_some_and(|clicked| clicked.link.kind == Kind::Open);
        let scanner = clicked.as_ref().is_some_and(|clicked| clicked.scanner);
        let names = clicked.as_ref().map(|clicked| clicked.names);
        let (hit, link) = self.describe(raw, site, by_server, clicked)?;
        // A mail program's image tells nothing of a browser.
        let who = if opened { Who::Nobody } else { self.who(raw, site, by_server)? };
        let mut arrival = self.arrival(hit, site, &who)?;
        if link.is_some() || !raw.identities.is_empty() {
            // Who is named is worked out under no browser's lock.
            self.turn.rest();
        }
        // A page that never saw its answer sends the same hit again: it counts once.
        let same = |first: &mut FirstHit| arrival.hit.id != 0 && first.hit.id == arrival.hit.id;
        let again = arrival.first.take_if(same);
        if scanner {
            arrival.first = arrival.first.map(void_click);
        }
        if let Some(link) = link.as_ref().filter(|_| again.is_none()) {
            uses::mark(&mut arrival.hit, link);
        }
        // What the page says itself goes before whose mail it came from.
        let link = link.filter(|_| raw.identities.is_empty());
        let mut spent = None;
        let link = link.filter(|link| match (names, &again) {
            (Some(names), _) => names,
            (None, Some(first)) => uses::used_by(&first.hit).is_some_and(|(id, _)| id == link.id),
            (None, None) => {
                spent = click::may_name(self.app, link, self.now).then_some(link.id);
                spent.is_some()
            }
        });
        let named = self.record_as(raw, (site, by_server), link, &who, arrival);
        // A use is spent on a hit that is recorded and names somebody, and on no other.
        if let Some(id) = spent.filter(|_| named != Ok(true)) {
            self.app.link_uses.give_back(id);
        }
        named.map(|_| ())
    }

    /// The hit with its browser, and that browser's first hit if this one admits it.
    fn arrival(&mut self, mut hit: Hit, site: &SiteEntry, who: &Who) -> Result<Arrival, Reject> {
        let mut first = None;
        match who {
            Who::Nobody => {}
            Who::Admitted(visitor, position) => {
                hit.visitor = Some(*visitor);
                first = self.admit(*visitor, *position)?;
            }
            Who::New(raw_id) => hit.visitor = Some(site.visitor(*raw_id)),
        }
        Ok(Arrival { hit, first })
    }

    /// Records a hit with whom it names; whether it is new and names somebody by a link.
    fn record_as(
        &mut self,
        raw: &RawHit,
        (site, by_server): (&SiteEntry, bool),
        link: Option<SignedLink>,
        who: &Who,
        mut arrival: Arrival,
    ) -> Result<bool, Reject> {
        let hit = &mut arrival.hit;
        hit.claim = self.claim(raw, link, site, by_server, &mut hit.excluded)?;
        let by_link = is_by_link(hit);
        if by_server && raw.identities.is_empty() && matches!(who, Who::Nobody) {
            return Err(Reject::MissingField("id"));
        }
        if hit.excluded.is_some() {
            count(&self.app.metrics.excluded);
        }
        let raw_id = match who {
            Who::Nobody => return Ok(self.ingest(arrival)? && by_link),
            Who::Admitted(..) => {
                let new = self.ingest(arrival)?;
                self.renew_cookie();
                return Ok(new && by_link);
            }
            Who::New(raw_id) => *raw_id,
        };
        let claim = hit.claim.as_ref().filter(|claim| !claim.by_link);
        if claim.is_some_and(|claim| claim.assurance().is_proved()) {
            // The site's server vouches for the browser: it need not come back first.
            self.ingest(arrival)?;
            let cookie = VisitorCookie::issue(raw_id, None, self.now);
            self.taken.cookie.get_or_insert(cookie);
            return Ok(false);
        }
        self.record_first(arrival.hit, raw_id);
        Ok(by_link)
    }

    /// The site a hit is for, and whether a server with its key sent it.
    fn site(&self, raw: &RawHit) -> Result<(&'a SiteEntry, bool), Reject> {
        if raw.site.is_empty() {
            return Err(Reject::MissingField("s"));
        }
        let site = self.app.sites.find(&raw.site).ok_or(Reject::UnknownSite)?;
        if self.sender.trusted {
            return Ok((site, true));
        }
        if let Some(bearer) = &self.sender.bearer {
            let known = site.site.server_keys.iter().any(|key| key.matches(bearer.as_bytes()));
            return if known { Ok((site, true)) } else { Err(Reject::BadKey) };
        }
        let foreign = |origin: &String| !site.site.origins.allow(origin);
        if self.sender.origin.as_ref().is_some_and(foreign) {
            return Err(Reject::Origin);
        }
        Ok((site, false))
    }

    fn check_rates(&self, site: &SiteEntry) -> Result<(), Reject> {
        let number = u64::from(site.number.0);
        // A server speaks for many: it counts against its site only.
        if self.sender.trusted {
            return Ok(());
        }
        if let Some(rates) =
            self.app.rates.address.as_ref().filter(|_| self.sender.bearer.is_none())
        {
            let key = rates.key(self.sender.address, number);
            rates.allow(key, self.now, 1).map_err(|wait| Reject::RateAddress(wait.seconds()))?;
        }
        if let Some(rates) = &self.app.rates.site {
            let allowed = rates.allow(number, self.now, 1);
            allowed.map_err(|wait| Reject::RateSite(wait.seconds()))?;
        }
        Ok(())
    }

    fn dropped(&self, raw: &RawHit, site: &SiteEntry, by_server: bool) -> Option<Dropped> {
        let sender = self.sender;
        let agreed = match (raw.consent, site.site.consent) {
            (Some(agreed), _) => agreed,
            (None, SiteConsent::Assumed) => true,
            // A server states what its own records say; it is asked only if it says so.
            (None, SiteConsent::Required) => by_server,
        };
        if by_server {
            // Withdrawn consent is news about a person, and shuts the gate: it is kept.
            return None;
        }
        if sender.opted_out {
            Some(Dropped::OptOut)
        } else if sender.gpc && self.app.settings.privacy.honour_gpc {
            Some(Dropped::GlobalPrivacyControl)
        } else if sender.prefetch {
            Some(Dropped::Prefetch)
        } else if agreed {
            None
        } else {
            Some(Dropped::Consent)
        }
    }

    fn who(&self, raw: &RawHit, site: &SiteEntry, by_server: bool) -> Result<Who, Reject> {
        let app = self.app;
        if by_server {
            return if !raw.device.is_empty() {
                let parts = [b"device".as_slice(), site.site.id.as_bytes(), raw.device.as_bytes()];
                Ok(Who::Admitted(site.visitor(app.install.visitor.hash128(&parts)), None))
            } else if !raw.token.is_empty() {
                let keys = &app.install.cookie;
                let known = VisitorCookie::read(raw.token.as_bytes(), keys, self.now);
                let known = known.ok_or(Reject::Token)?;
                Ok(Who::Admitted(site.visitor(known.id), known.first))
            } else {
                Ok(Who::Nobody)
            };
        }
        if let Some(known) = self.sender.cookie {
            return Ok(Who::Admitted(site.visitor(known.id), known.first));
        }
        if !raw.token.is_empty() {
            let origin = self.sender.origin.as_deref().unwrap_or_default();
            let key = &app.install.visitor;
            let known = crate::token::read(key, &raw.token, &raw.site, origin, self.now);
            return known.map(|id| Who::Admitted(site.visitor(id), None)).ok_or(Reject::Token);
        }
        // Hits that a page sends at once, before any has an answer, agree on the id.
        let fresh = match raw.nonce.as_str() {
            "" => u128::from_le_bytes(app.ids.bytes()),
            nonce => app.install.visitor.hash128(&[
                b"nonce",
                nonce.as_bytes(),
                self.sender.address.to_string().as_bytes(),
                self.sender.agent.as_bytes(),
            ]),
        };
        Ok(Who::New(fresh))
    }

    /// A visitor who came back is admitted now, and the cookie need not say where the first hit
    /// is. Only after the hit was taken: who is refused keeps the old one, and comes again.
    fn renew_cookie(&mut self) {
        let Some(known) = self.sender.cookie else {
            return;
        };
        if known.first.is_some() || known.is_stale(self.now) {
            self.taken.cookie = Some(VisitorCookie::issue(known.id, None, self.now));
        }
    }

    /// The first hit of a visitor who comes back and is not in memory, if it can be found.
    fn admit(
        &mut self,
        visitor: VisitorId,
        first: Option<Position>,
    ) -> Result<Option<FirstHit>, Reject> {
        if self.turn.knows(visitor, self.now) {
            return Ok(None);
        }
        if self.app.full.visitors.load(Ordering::Relaxed) {
            return Err(Reject::VisitorsFull);
        }
        let Some(position) = first else {
            return Ok(None);
        };
        count(&self.app.metrics.admitted);
        let found = self.first_hit(visitor, position);
        if found.is_none() {
            count(&self.app.metrics.first_missing);
        }
        Ok(found)
    }

    /// It counts only if it is there and bears this id.
    fn first_hit(&self, visitor: VisitorId, position: Position) -> Option<FirstHit> {
        let Body::Hit(record) = timeline::read(self.app, position).ok()?.body else {
            return None;
        };
        let hit = record.hit;
        (hit.visitor == Some(visitor) && record.visit.is_none())
            .then_some(FirstHit { position, hit })
    }

    /// Whether it is new: a hit that is sent again is answered as it was, and not recorded.
    fn ingest(&mut self, mut arrival: Arrival) -> Result<bool, Reject> {
        let visitor = arrival.hit.visitor;
        for _ in 0..STALE_TRIES {
            match self.decide(arrival)? {
                Ingested::Recorded(position) => {
                    count(&self.app.metrics.hits);
                    self.taken.recorded = visitor.map(|visitor| Click { position, visitor });
                    self.keep(position);
                    return Ok(true);
                }
                Ingested::Duplicate(position) => {
                    count(&self.app.metrics.duplicates);
                    self.keep(position);
                    return Ok(false);
                }
                Ingested::Stale(again) => {
                    arrival = *again;
                    std::thread::yield_now();
                    self.in_force = self.app.scoring.load_full();
                }
            }
        }
        Err(Reject::Busy)
    }

    fn decide(&mut self, arrival: Arrival) -> Result<Ingested, Reject> {
        let (turn, scoring) = (&mut self.turn, &self.in_force.scoring);
        let reserved = &mut self.reserved;
        let mut last = None;
        let mut push = |record: &Record| {
            let position = push(reserved, record);
            last = Some(position);
            position
        };
        // A panic while deciding harms nothing; one while applying has aborted the process.
        let ingested = catch_unwind(AssertUnwindSafe(|| turn.ingest(arrival, scoring, &mut push)));
        // People whom a hit joins are recorded after it, and durable before the answer too.
        self.taken.position = self.taken.position.max(last);
        ingested.map_err(|_| {
            self.turn.rest();
            count(&self.app.metrics.panics);
            Reject::Busy
        })
    }

    /// Records a hit of somebody never seen; the cookie says where, sealed.
    fn record_first(&mut self, hit: Hit, raw_id: u128) {
        let time = hit.received;
        let body = Body::Hit(Box::new(HitRecord { hit, ..HitRecord::default() }));
        let record = Record { time, version: self.in_force.scoring.version, body };
        let position = push(&mut self.reserved, &record);
        count(&self.app.metrics.hits);
        count(&self.app.metrics.first_hits);
        self.taken.cookie.get_or_insert(VisitorCookie::issue(raw_id, Some(position), time));
        self.keep(position);
    }

    fn keep(&mut self, position: Position) {
        self.taken.kept += 1;
        self.taken.position = self.taken.position.max(Some(position));
    }
}

thread_local! {
    /// Where a record's bytes are put together before they are pushed.
    static BYTES: RefCell<Vec<u8>> = RefCell::default();
}

/// Appends a record to the journal.
fn push(reserved: &mut Reserved, record: &Record) -> Position {
    BYTES.with_borrow_mut(|bytes| {
        bytes.clear();
        record.encode(bytes);
        reserved.push(bytes)
    })
}

/// A click of the machine that is known by now: neither a person's nor about one.
fn void_click(mut first: FirstHit) -> FirstHit {
    if is_by_link(&first.hit) {
        first.hit.excluded = Some(Exclusion::Scanner);
        first.hit.claim = None;
    }
    first
}

/// Whether a hit names somebody by a link of ours.
fn is_by_link(hit: &Hit) -> bool {
    hit.claim.as_ref().is_some_and(|claim| claim.by_link)
}

/// Waits until what was taken may be acknowledged.
pub async fn acknowledge(app: &App, taken: &Taken, started_ns: u64) -> Result<(), Reject> {
    if let Some(position) = taken.position {
        app.journal.wait(position).await.map_err(|_| Reject::Poisoned)?;
    }
    let took = app.clock.boot_ns().saturating_sub(started_ns) / 1_000;
    app.metrics.acknowledge.record(took);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_hit_is_told_by_its_path_without_what_may_name_somebody() {
        for (event, url, line) in [
            ("", "https://a@b.example:8443/thanks/ok?mail=tanaka%40a.example#mk=1", "/thanks/ok"),
            ("download", "/pricing?mail=tanaka@a.example", "download /pricing"),
            ("", "mailto:tanaka@a.example", "mailto"),
            ("", "tanaka@a.example", ""),
            ("a\u{1b}[2Jb\n", "/x\u{7}", "a\\u{1b}[2Jb\\n /x\\u{7}"),
        ] {
            let raw = RawHit { event: event.into(), url: url.into(), ..RawHit::default() };
            assert_eq!(told(&raw), line, "{url}");
        }
    }
}
