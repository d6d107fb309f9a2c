//! The hit itself, whoever it belongs to: what it is, where and when it happened, and whether a
//! person was there.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use engine::hit::{AREAS_MAX, Exclusion, Hit, HitKind, TEXT_BYTES_MAX};
use engine::time::Timestamp;

use super::click::{Clicked, MAIL_CLICK};
use super::{Batch, RawHit, Reject, raw};
use crate::app::SiteEntry;
use crate::lately::Agent;
use crate::link::{Kind, SignedLink};
use crate::privacy::{Page, without_addresses};

/// How far back a browser's clock is believed.
const LATE_MAX: Duration = Duration::from_hours(24);

impl Batch<'_> {
    /// The hit, but for whose it is, and the link of ours that was clicked or led to its page.
    pub(super) fn describe(
        &self,
        raw: &RawHit,
        site: &SiteEntry,
        by_server: bool,
        clicked: Option<Clicked>,
    ) -> Result<(Hit, Option<SignedLink>), Reject> {
        let nowhere = Page::default();
        let read = self.page(raw, by_server || clicked.is_some())?;
        let page = read.as_ref().as_ref().unwrap_or(&nowhere);
        let (kind, event) = kind(raw)?;
        let address = match raw.ip.as_str() {
            _ if !by_server => Some(self.sender.address),
            "" => None,
            text => Some(text.parse().map_err(|_| Reject::MalformedField("ip"))?),
        };
        let agent = if by_server { self.app.lately.agent(&raw.agent) } else { self.agent() };
        let referrer = self.app.lately.referrer(&raw.referrer);
        let visitor_key = &self.app.install.visitor;
        let hash = |name: &[u8], text: &str| match text {
            "" => 0,
            text => visitor_key.hash64(&[name, text.as_bytes()]).max(1),
        };
        let (authenticated, mut areas) = site.areas(&page.path);
        areas.truncate(AREAS_MAX);
        let (link, scanner) = match clicked {
            Some(clicked) => (Some(clicked.link), clicked.scanner),
            None => (self.landing(page, site), false),
        };
        let campaign = match &link {
            _ if kind != HitKind::PageView && raw.event != MAIL_CLICK => String::new(),
            Some(link) if page.campaign.is_none() => link.campaign(),
            _ => referrer.campaign(page).to_owned(),
        };
        // A server that names no agent vouches for a person.
        let robot = agent.robot && !(by_server && raw.agent.is_empty());
        let excluded = self.excluded(robot, page, address);
        let hit = Hit {
            site: site.number,
            received: self.now,
            when: self.when(raw, by_server),
            kind,
            event: event.to_owned(),
            authenticated,
            areas,
            title: raw::cut(&without_addresses(&raw.title), TEXT_BYTES_MAX),
            referrer: referrer.shown.clone(),
            campaign,
            id: hash(b"hit", &raw.id),
            page: hash(b"page", &raw.nonce),
            engaged_ms: raw.engaged_ms,
            scroll: raw.scroll,
            by_server,
            silent: by_server && raw.silent,
            test: site.test,
            excluded: excluded.or(scanner.then_some(Exclusion::Scanner)),
            properties: plain(&raw.properties),
            via_our_link: link.is_some(),
            network: address.map(|it| self.network(it)).unwrap_or_default(),
            agent: agent.class.clone(),
            path: page.path.clone(),
            url: page.url.clone(),
            ..Hit::default()
        };
        // The script sends the page's address with every hit of its view: the first one names.
        let names = hit.kind == HitKind::PageView;
        Ok((hit, link.filter(|link| names || link.kind != Kind::Landing)))
    }

    /// What the sender's user agent says.
    fn agent(&self) -> Arc<Agent> {
        let read = || self.app.lately.agent(&self.sender.agent);
        Arc::clone(self.agent.get_or_init(read))
    }

    /// What is kept of an address.
    fn network(&self, address: IpAddr) -> String {
        let read = |address| self.app.settings.privacy.network(address).to_string();
        if address == self.sender.address {
            return self.network.get_or_init(|| read(address)).clone();
        }
        read(address)
    }

    /// The page that a hit is on; none if it names none, and need not.
    fn page(&self, raw: &RawHit, nowhere: bool) -> Result<Arc<Option<Page>>, Reject> {
        match raw.url.as_str() {
            "" if nowhere => Ok(Arc::default()),
            "" => Err(Reject::MissingField("u")),
            url => {
                let page = self.app.lately.page(url, &self.app.settings.privacy);
                if page.is_some() { Ok(page) } else { Err(Reject::MalformedField("u")) }
            }
        }
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

    fn excluded(&self, robot: bool, page: &Page, address: Option<IpAddr>) -> Option<Exclusion> {
        let own = |address: IpAddr| self.in_force.networks.iter().any(|net| net.contains(address));
        if self.in_force.robots && robot {
            Some(Exclusion::Robot)
        } else if address.is_some_and(own) {
            Some(Exclusion::Network)
        } else if self.in_force.scoring.excluded_paths.any(&page.path) {
            Some(Exclusion::Path)
        } else {
            None
        }
    }

    /// The link of ours that led to a page, if its token is good.
    fn landing(&self, page: &Page, site: &SiteEntry) -> Option<SignedLink> {
        let token = page.token.as_deref()?;
        let link = SignedLink::open(token, Kind::Landing, &self.app.install, self.now);
        link.filter(|link| link.is_for(site)).or_else(|| {
            crate::app::count(&self.app.metrics.links_void);
            None
        })
    }
}

/// Properties are kept in clear: addresses in them are left out.
fn plain(properties: &[(String, String)]) -> Vec<(String, String)> {
    let value = |value: &String| without_addresses(value);
    properties.iter().map(|(name, it)| (name.clone(), value(it))).collect()
}

fn kind(raw: &RawHit) -> Result<(HitKind, &str), Reject> {
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
    Ok((kind, event))
}
