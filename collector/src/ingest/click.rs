//! What comes back from a mail: a click on a link that we signed, an image that says the mail was
//! opened. Whoever clicks is led on at once and never waits for the journal.

use std::sync::Arc;

use engine::time::Timestamp;
use url::Url;

use super::{Batch, RawHit, Reject, Sender, Taken};
use crate::app::{App, SiteEntry, count};
use crate::config::SiteConsent;
use crate::link::scanners::Click;
use crate::link::{Kind, SignedLink};
use crate::steps;

/// The event of a click in a mail.
pub const MAIL_CLICK: &str = "mail_click";
/// The event of a mail that was opened.
const MAIL_OPEN: &str = "mail_open";

/// A click on a link of ours, or the opening of a mail.
pub(super) struct Clicked {
    /// The link, or the image.
    pub(super) link: SignedLink,
    /// Whether a machine made it.
    pub(super) scanner: bool,
    /// Whether it may name somebody; a use of the link is spent on it then. A machine is nobody,
    /// whoever's mail it reads.
    pub(super) names: bool,
}

/// Where a click leads, and what was recorded of it.
pub struct Led {
    /// The address.
    pub to: String,
    /// What was recorded; nothing if nothing is to be.
    pub taken: Option<Taken>,
}

/// Takes a click; nothing if the token is none of ours. `head`: only the link's head is asked for.
///
/// Only a click that may name somebody hands a token on, and only to a page of the site's own:
/// else whoever is refused here would be named there, or a stranger's page could do it.
pub fn click(app: &Arc<App>, sender: &Sender, token: &str, head: bool) -> Option<Led> {
    let link = read(app, token, Kind::Click)?;
    let now = app.clock.now();
    let mail = link.mail_key(&app.install);
    let plain = Led { to: link.url.clone(), taken: None };
    if head {
        app.scanners.head(mail, link.id, now);
        return Some(plain);
    }
    let Some(site) = app.sites.of_id(&link.site, link.test).filter(|_| is_wanted(app, sender))
    else {
        return Some(plain);
    };
    let verdict = app.scanners.judge(mail, link.id, now);
    let (scanner, number) = (verdict.scanner, verdict.number);
    take_back(app, verdict.were_too);
    let live = now.0 < link.until_ms;
    let names = live && !scanner && may_name(app, &link, now);
    let to = if names && is_own_page(site, &link.url) {
        link.destination(&app.install, &app.ids, now)
    } else {
        link.url.clone()
    };
    if site.site.consent == SiteConsent::Required {
        // Nobody has asked this browser; the page that it is led to will. With nothing in the
        // journal a restart forgets this use: its landing tokens are counted by themselves.
        return Some(Led { to, taken: None });
    }
    let raw = RawHit { url: link.url.clone(), ..raw_hit(site, MAIL_CLICK, &link) };
    let clicked = live.then_some(Clicked { link, scanner, names });
    let taken = take_one(app, sender, &raw, site, clicked);
    let counted = taken.as_ref().filter(|_| !scanner).and_then(|taken| taken.recorded);
    // A browser that is not admitted has earned nothing yet.
    let counted = counted.filter(|click| app.engine.knows(click.visitor, now));
    let was_too = counted.and_then(|click| app.scanners.recorded(mail, number, click));
    take_back(app, was_too.into_iter().collect());
    Some(Led { to, taken })
}

/// Takes the opening of a mail. Mail programs open mails by themselves, and copies go to others:
/// it says nothing of any browser and proves nobody.
pub fn open(app: &App, sender: &Sender, token: &str) -> Option<Taken> {
    let link = read(app, token, Kind::Open)?;
    let site = app.sites.of_id(&link.site, link.test)?;
    let now = app.clock.now();
    let live = now.0 < link.until_ms;
    // Where consent is required nobody has given any to a mail.
    if !live || !is_wanted(app, sender) || site.site.consent == SiteConsent::Required {
        return None;
    }
    let raw = raw_hit(site, MAIL_OPEN, &link);
    let names = may_name(app, &link, now);
    take_one(app, sender, &raw, site, Some(Clicked { link, scanner: false, names }))
}

/// Spends a use of a link; whether there was one. Whoever was erased since it was made is named
/// by it no more.
pub(super) fn may_name(app: &App, link: &SignedLink, now: Timestamp) -> bool {
    let site = app.sites.of_id(&link.site, link.test);
    let whose = site.zip(link.identity());
    let lead = whose.map(|(site, it)| it.lead(&app.install.identity, &site.namespace));
    let erased = lead.and_then(|lead| app.engine.erasure(lead));
    if erased.is_some_and(|(_, at)| link.made_ms <= at.0) {
        count(&app.metrics.links_void);
        return false;
    }
    let allowed = app.link_uses.allow(link, now);
    if !allowed {
        count(&app.metrics.links_used_up);
    }
    allowed
}

fn is_own_page(site: &SiteEntry, url: &str) -> bool {
    let url = Url::parse(url).ok();
    url.as_ref().and_then(Url::host_str).is_some_and(|host| site.site.origins.allow_host(host))
}

fn raw_hit(site: &SiteEntry, event: &str, link: &SignedLink) -> RawHit {
    RawHit {
        site: site.site.keys.first().cloned().unwrap_or_default(),
        event: event.to_owned(),
        title: link.title.clone(),
        properties: vec![("mail".to_owned(), link.mail.clone())],
        ..RawHit::default()
    }
}

fn read(app: &App, token: &str, kind: Kind) -> Option<SignedLink> {
    let link = SignedLink::read(token, &app.install).filter(|link| link.kind == kind);
    if link.is_none() {
        count(&app.metrics.links_void);
    }
    link
}

/// Whether anything of this browser may be recorded at all.
fn is_wanted(app: &App, sender: &Sender) -> bool {
    let refused = sender.gpc && app.settings.privacy.honour_gpc;
    app.is_ready() && !sender.opted_out && !sender.prefetch && !refused
}

fn take_one(
    app: &App,
    sender: &Sender,
    raw: &RawHit,
    site: &SiteEntry,
    clicked: Option<Clicked>,
) -> Option<Taken> {
    let taken =
        Batch::new(app, sender, 1, raw.url.len() + raw.title.len()).and_then(|mut batch| {
            batch.check_rates(site)?;
            batch.record(raw, (site, false), clicked)?;
            Ok(batch.taken)
        });
    let unrecorded = |reject: Reject| {
        app.metrics.reject(reject);
        count(&app.metrics.click_unrecorded);
    };
    taken.map_err(unrecorded).ok()
}

/// Clicks that turn out to be a machine's are withdrawn, and its browser is nobody's.
fn take_back(app: &Arc<App>, clicks: Vec<Click>) {
    if clicks.is_empty() {
        return;
    }
    let app = Arc::clone(app);
    tokio::task::spawn_blocking(move || {
        for click in clicks {
            if let Err(error) = steps::withdraw_scan(&app, click) {
                tracing::error!(%error, "a mail scanner's click could not be withdrawn");
            }
        }
    });
}
