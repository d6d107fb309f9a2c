//! From what a sender said to what the journal holds: the named steps, in order. Everything that
//! needs the world (keys, limits, consent, robots, the cookie) is decided here and written into
//! the hit; the engine decides the rest.

pub mod beacon;
pub mod pixel;
pub mod raw;
pub mod reject;

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use engine::engine::{Arrival, Ingested};
use engine::hit::{Attributes, Claim, Exclusion, Hit, HitKind, TEXT_BYTES_MAX};
use engine::id::{Position, VisitorId};
use engine::identity::{Assurance, Identity, IdentityKind};
use engine::record::{Body, FirstHit, HitRecord, Record};
use engine::time::Timestamp;

pub use self::raw::RawHit;
pub use self::reject::{Dropped, Reject};
use crate::app::{App, InForce, SiteEntry, count};
use crate::config::SiteConsent;
use crate::cookie::VisitorCookie;
use crate::journal::Reserved;
use crate::privacy::{Page, came_from};
use crate::seal::attributes_to_bytes;

/// How far back a browser's clock is believed.
const LATE_MAX: Duration = Duration::from_hours(24);
/// Bytes reserved for a hit beyond its own: what the stages decide about it.
const RECORD_OVERHEAD_BYTES: usize = 2 * 1024;

/// Who sent a request, as far as its head tells.
#[derive(Clone, Debug)]
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
    /// Whether the browser wants no tracking.
    pub gpc: bool,
    /// Whether the person opted out.
    pub opted_out: bool,
    /// Whether the browser fetched ahead.
    pub prefetch: bool,
    /// Bytes of the request's hits.
    pub bytes: usize,
}

/// What became of a request's hits.
#[derive(Debug, Default)]
pub struct Taken {
    /// Hits recorded, now or before.
    pub kept: usize,
    /// Hits dropped, with the first reason.
    pub dropped: Option<Dropped>,
    /// Hits refused, in order.
    pub rejected: Vec<Reject>,
    /// The last position that must be durable before the answer.
    pub position: Option<Position>,
    /// The cookie to set, if any.
    pub cookie: Option<VisitorCookie>,
}

/// What all hits of one request share while they are taken.
struct Batch<'a> {
    app: &'a App,
    sender: &'a Sender,
    in_force: &'a InForce,
    now: Timestamp,
    reserved: Reserved,
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
pub fn take(
    app: &App,
    sender: &Sender,
    hits: Vec<Result<RawHit, Reject>>,
) -> Result<Taken, Reject> {
    if !app.is_ready() {
        return Err(Reject::NotReady);
    }
    if app.full.journal.load(Ordering::Relaxed) {
        return Err(Reject::JournalFull);
    }
    let in_force = app.scoring.load();
    let bytes = sender.bytes + hits.len() * RECORD_OVERHEAD_BYTES;
    let mut batch = Batch {
        app,
        sender,
        in_force: &in_force,
        now: app.clock.now(),
        reserved: app.journal.reserve(hits.len(), bytes)?,
        taken: Taken::default(),
    };
    for hit in hits {
        let told = hit.as_ref().ok().map(|raw| format!("{} {}", raw.event, raw.url));
        if let Err(reject) = hit.and_then(|raw| batch.take(&raw)) {
            app.metrics.reject(reject);
            let what = told.as_deref().unwrap_or_default();
            app.tell(|| refused_line(app, sender.address, reject, what));
            batch.taken.rejected.push(reject);
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

impl<'a> Batch<'a> {
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
        let mut hit = self.describe(raw, site, by_server)?;
        let who = self.who(raw, site, by_server)?;
        hit.claim = self.claim(raw, site, by_server, &mut hit.excluded)?;
        if by_server && hit.claim.is_none() && matches!(who, Who::Nobody) {
            return Err(Reject::MissingField("id"));
        }
        if hit.excluded.is_some() {
            count(&self.app.metrics.excluded);
        }
        match who {
            Who::Nobody => self.ingest(Arrival { hit, first: None }),
            Who::Admitted(visitor, first) => {
                hit.visitor = Some(visitor);
                let first = self.admit(visitor, first)?;
                // A page that never saw its answer sends the same hit again: it counts once.
                let first = first.filter(|first| hit.id == 0 || first.hit.id != hit.id);
                self.ingest(Arrival { hit, first })?;
                self.renew_cookie();
                Ok(())
            }
            Who::New(raw_id) => {
                hit.visitor = Some(site.visitor(raw_id));
                self.record_first(hit, raw_id);
                Ok(())
            }
        }
    }

    /// The site a hit is for, and whether a server with its key sent it.
    fn site(&self, raw: &RawHit) -> Result<(&'a SiteEntry, bool), Reject> {
        if raw.site.is_empty() {
            return Err(Reject::MissingField("s"));
        }
        let site = self.app.sites.find(&raw.site).ok_or(Reject::UnknownSite)?;
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

    /// The hit, but for whose it is.
    fn describe(&self, raw: &RawHit, site: &SiteEntry, by_server: bool) -> Result<Hit, Reject> {
        let privacy = &self.app.settings.privacy;
        let page = match raw.url.as_str() {
            "" if by_server => Page::default(),
            "" => return Err(Reject::MissingField("u")),
            url => Page::parse(url, privacy).ok_or(Reject::MalformedField("u"))?,
        };
        let (kind, event) = match raw.event.as_str() {
            "" if raw.url.is_empty() && !raw.identities.is_empty() => (HitKind::Identify, ""),
            "" | "page_view" => (HitKind::PageView, ""),
            "engagement" => (HitKind::Engagement, ""),
            "identify" => (HitKind::Identify, ""),
            "reset" => (HitKind::Reset, ""),
            name => (HitKind::Event, name),
        };
        if kind == HitKind::PageView && raw.url.is_empty() {
            return Err(Reject::MissingField("u"));
        }
        if kind == HitKind::Identify && raw.identities.is_empty() {
            return Err(Reject::MissingField("id"));
        }
        let address = match raw.ip.as_str() {
            _ if !by_server => Some(self.sender.address),
            "" => None,
            text => Some(text.parse().map_err(|_| Reject::MalformedField("ip"))?),
        };
        let (referrer, campaign) = came_from(&raw.referrer, &page);
        let visitor_key = &self.app.install.visitor;
        let hash = |name: &[u8], text: &str| match text {
            "" => 0,
            text => visitor_key.hash64(&[name, text.as_bytes()]).max(1),
        };
        Ok(Hit {
            site: site.number,
            received: self.now,
            when: self.when(raw, by_server),
            kind,
            event: event.to_owned(),
            authenticated: site.is_my_page(&self.app.sites.my_page, &page.path),
            title: raw::cut(&raw.title, TEXT_BYTES_MAX),
            referrer,
            campaign: if kind == HitKind::PageView { campaign } else { String::new() },
            id: hash(b"hit", &raw.id),
            page: hash(b"page", &raw.nonce),
            engaged_ms: raw.engaged_ms,
            scroll: raw.scroll,
            by_server,
            test: site.test,
            excluded: self.excluded(raw, &page, address, by_server),
            properties: raw.properties.clone(),
            network: address.map(|it| privacy.network(it).to_string()).unwrap_or_default(),
            path: page.path,
            url: page.url,
            ..Hit::default()
        })
    }

    /// The client's time, corrected by when it says it sent the hit, and believed within limits.
    fn when(&self, raw: &RawHit, by_server: bool) -> Timestamp {
        let Some(at) = raw.at else {
            return self.now;
        };
        if by_server {
            return Timestamp(at).min(self.now);
        }
        let ago = raw.sent.map_or(self.now.0.saturating_sub(at), |sent| sent.saturating_sub(at));
        self.now.minus(Duration::from_millis(ago).min(LATE_MAX))
    }

    fn excluded(
        &self,
        raw: &RawHit,
        page: &Page,
        address: Option<IpAddr>,
        by_server: bool,
    ) -> Option<Exclusion> {
        let own = |address: IpAddr| self.in_force.networks.iter().any(|net| net.contains(address));
        // A server that names no agent vouches for a person.
        let agent = if by_server { &raw.agent } else { &self.sender.agent };
        let robot = self.in_force.robots && !(by_server && agent.is_empty());
        if robot && self.app.robots.knows(agent) {
            Some(Exclusion::Robot)
        } else if address.is_some_and(own) {
            Some(Exclusion::Network)
        } else if self.in_force.scoring.excluded_paths.any(&page.path) {
            Some(Exclusion::Path)
        } else {
            None
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

    /// Who the hit says it belongs to, with the attributes sealed.
    fn claim(
        &self,
        raw: &RawHit,
        site: &SiteEntry,
        by_server: bool,
        excluded: &mut Option<Exclusion>,
    ) -> Result<Option<Claim>, Reject> {
        let mut identities = Vec::new();
        for (kind, value) in &raw.identities {
            identities.push(Identity::parse(*kind, value).map_err(Reject::Identity)?);
        }
        identities.sort_by_key(|identity| identity.kind);
        let Some(head) = identities.first() else {
            return Ok(None);
        };
        let domain = |identity: &Identity| {
            identity.value().rsplit_once('@').map(|(_, domain)| domain.to_owned())
        };
        let mail = identities.iter().find(|identity| identity.kind == IdentityKind::Email);
        let ours = mail
            .and_then(domain)
            .is_some_and(|domain| self.in_force.email_domains.contains(&domain));
        if ours {
            // Staff and rivals are nobody's lead.
            *excluded = Some(Exclusion::EmailDomain);
            return Ok(None);
        }
        let lead = head.lead(&self.app.install.identity, &site.namespace);
        self.check_new_lead(lead, site, by_server)?;
        let mut attributes: Attributes = raw.attributes.iter().cloned().collect();
        for identity in &identities {
            attributes.insert(identity.kind.name().to_owned(), identity.value().to_owned());
        }
        let sealed = self.app.sealer.seal(lead, &attributes_to_bytes(&attributes));
        Ok(Some(Claim {
            lead,
            kind: Some(head.kind),
            assurance: if by_server { Assurance::Verified } else { Assurance::Claimed },
            consent: raw.consent,
            attributes,
            sealed: sealed.map_err(|_| Reject::Poisoned)?,
        }))
    }

    fn check_new_lead(
        &self,
        lead: engine::id::LeadId,
        site: &SiteEntry,
        by_server: bool,
    ) -> Result<(), Reject> {
        if self.app.engine.has_lead(lead) {
            return Ok(());
        }
        if self.app.full.leads.load(Ordering::Relaxed) {
            return Err(Reject::LeadsFull);
        }
        let quota = self.app.rates.claims.get(usize::from(site.number.0)).filter(|_| !by_server);
        let allowed = quota.map_or(Ok(()), |quota| {
            quota.lock().unwrap_or_else(PoisonError::into_inner).allow(self.now, 1)
        });
        allowed.map_err(|wait| Reject::ClaimQuota(wait.seconds()))
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
        &self,
        visitor: VisitorId,
        first: Option<Position>,
    ) -> Result<Option<FirstHit>, Reject> {
        if self.app.engine.knows(visitor, self.now) {
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
        let bytes = self.app.journal.read(position).ok()?;
        let Body::Hit(record) = Record::decode(&bytes).ok()?.body else {
            return None;
        };
        let mut hit = record.hit;
        if hit.visitor != Some(visitor) || record.visit.is_some() {
            return None;
        }
        if let Some(claim) = &mut hit.claim {
            let plain = self.app.sealer.unseal(claim.lead, &claim.sealed)?;
            claim.attributes = crate::seal::attributes_from_bytes(&plain)?;
        }
        Some(FirstHit { position, hit })
    }

    fn ingest(&mut self, arrival: Arrival) -> Result<(), Reject> {
        let (engine, scoring) = (&self.app.engine, &self.in_force.scoring);
        let reserved = &mut self.reserved;
        let mut bytes = Vec::with_capacity(512);
        let mut push = |record: &Record| {
            bytes.clear();
            record.encode(&mut bytes);
            reserved.push(&bytes)
        };
        // A panic while deciding harms nothing; one while applying has aborted the process.
        let ingested =
            catch_unwind(AssertUnwindSafe(|| engine.ingest(arrival, scoring, &mut push)));
        let Ok(ingested) = ingested else {
            count(&self.app.metrics.panics);
            return Err(Reject::Busy);
        };
        let position = match ingested {
            Ingested::Recorded(position) => {
                count(&self.app.metrics.hits);
                position
            }
            Ingested::Duplicate(position) => {
                count(&self.app.metrics.duplicates);
                position
            }
        };
        self.keep(position);
        Ok(())
    }

    /// Records a hit of somebody never seen; the cookie says where, sealed.
    fn record_first(&mut self, hit: Hit, raw_id: u128) {
        let time = hit.received;
        let body = Body::Hit(Box::new(HitRecord { hit, ..HitRecord::default() }));
        let record = Record { time, version: self.in_force.scoring.version, body };
        let mut bytes = Vec::with_capacity(512);
        record.encode(&mut bytes);
        let position = self.reserved.push(&bytes);
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

/// Waits until what was taken may be acknowledged.
pub async fn acknowledge(app: &App, taken: &Taken, started_ns: u64) -> Result<(), Reject> {
    if let Some(position) = taken.position {
        app.journal.wait(position).await.map_err(|_| Reject::Poisoned)?;
    }
    let took = app.clock.boot_ns().saturating_sub(started_ns) / 1_000;
    app.metrics.acknowledge.record(took);
    Ok(())
}
