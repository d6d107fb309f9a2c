//! Who a hit says it belongs to, and how sure that is: a server with our key proves it, an
//! identity secret proves the one name it covers, a link of ours proves whose mail it stood in;
//! everything else is a claim.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use engine::attribute::{Attributes, Level};
use engine::hit::{Claim, Exclusion, Named};
use engine::identity::{Assurance, Identity, IdentityKind};
use engine::time::Timestamp;
use ring::hmac;

use super::{Batch, RawHit, Reject};
use crate::app::SiteEntry;
use crate::link::{Kind, SignedLink};
use crate::metrics::SERVER_ONLY;
use crate::seal::attributes_to_bytes;

/// How far ahead a signature's end may lie, in milliseconds.
const HMAC_LIFE_MS: u64 = 24 * 60 * 60 * 1_000;
/// An end below this is in seconds: as milliseconds it would lie in 1973.
const SECONDS_BELOW: u64 = 100_000_000_000;

/// One name, as it was given and how sure it is.
struct Given {
    identity: Identity,
    assurance: Assurance,
}

impl Batch<'_> {
    /// Who the hit says it belongs to, with the attributes sealed.
    pub(super) fn claim(
        &self,
        raw: &RawHit,
        link: Option<SignedLink>,
        site: &SiteEntry,
        by_server: bool,
        excluded: &mut Option<Exclusion>,
    ) -> Result<Option<Claim>, Reject> {
        let facts = self.facts(raw, by_server)?;
        let (given, by_link) = match link {
            Some(link) => (Self::given_by_link(&link), true),
            None => (self.given(raw, site, by_server)?, false),
        };
        // What a robot fills in or follows names nobody, and proves nobody.
        if given.is_empty() || *excluded == Some(Exclusion::Robot) {
            return Ok(None);
        }
        if given.iter().any(|given| self.is_ours(&given.identity)) {
            // Staff and rivals are nobody's lead.
            *excluded = Some(Exclusion::EmailDomain);
            return Ok(None);
        }
        let named = |given: &Given| Named {
            kind: given.identity.kind,
            id: given.identity.lead(&self.app.install.identity, &site.namespace),
            assurance: given.assurance,
        };
        let names: Vec<Named> = given.iter().map(named).collect();
        let first = names[0].id;
        self.check_new_leads(&names, site, by_server)?;
        let mut attributes: Attributes = raw.attributes.iter().cloned().collect();
        attributes.extend(facts);
        for Given { identity, .. } in &given {
            attributes.insert(identity.kind.name().to_owned(), identity.value().to_owned());
        }
        let sealed = self.app.sealer.seal(first, &attributes_to_bytes(&attributes));
        Ok(Some(Claim {
            names,
            consent: raw.consent,
            // What a browser sends stays a claim, also beside a signature.
            attributes_by: if by_server || by_link && given[0].assurance.is_proved() {
                Assurance::Verified
            } else {
                Assurance::Claimed
            },
            level: if by_server { raw.level } else { Level::Person },
            attributes,
            sealed: sealed?,
            kiosk: raw.kiosk && !by_server,
            by_link,
        }))
    }

    /// The facts that are stated. Of a browser's none is heard: it would talk sales out of a
    /// message, or a person into one.
    fn facts(&self, raw: &RawHit, by_server: bool) -> Result<Vec<(String, String)>, Reject> {
        let stated = raw.facts.iter().filter(|(fact, _)| {
            if !by_server {
                self.app.metrics.drop_fact();
                let network = self.app.settings.privacy.network(self.sender.address);
                let field = fact.field();
                self.app.tell(|| format!("{network}  dropped: {SERVER_ONLY} in \"{field}\""));
            }
            by_server
        });
        let stated = stated.map(|(fact, text)| {
            let text = text.clone().ok_or(Reject::MalformedField(fact.field()))?;
            Ok((fact.name().to_owned(), text))
        });
        stated.collect()
    }

    /// The names of a statement, the one that heads a new lead first.
    fn given(&self, raw: &RawHit, site: &SiteEntry, by_server: bool) -> Result<Vec<Given>, Reject> {
        let mut sent = raw.identities.clone();
        sent.sort_by_key(|(kind, _)| *kind);
        let mut given = Vec::with_capacity(sent.len());
        for (place, (kind, value)) in sent.iter().enumerate() {
            let identity = Identity::parse(*kind, value).map_err(Reject::Identity)?;
            let signed = place == 0 && !by_server && !raw.hmac.is_empty();
            if signed {
                check_hmac(raw, site, (*kind, value), self.now)?;
            }
            let proved = by_server || signed;
            let assurance = if proved { Assurance::Verified } else { Assurance::Claimed };
            given.push(Given { identity, assurance });
        }
        Ok(given)
    }

    /// Whose mail a link stood in.
    fn given_by_link(link: &SignedLink) -> Vec<Given> {
        let Some(identity) = link.identity() else {
            return Vec::new();
        };
        // A mail that was opened was perhaps opened by a machine, or by whom it was copied to.
        let proved = link.kind != Kind::Open;
        let assurance = if proved { Assurance::Verified } else { Assurance::Claimed };
        vec![Given { identity, assurance }]
    }

    fn is_ours(&self, identity: &Identity) -> bool {
        let domain = identity.value().rsplit_once('@').map(|(_, domain)| domain);
        identity.kind == IdentityKind::Email
            && domain.is_some_and(|domain| self.in_force.email_domains.contains(domain))
    }

    /// Every name that is new is an entry of its own, also one that is another's: all count.
    fn check_new_leads(
        &self,
        names: &[Named],
        site: &SiteEntry,
        by_server: bool,
    ) -> Result<(), Reject> {
        let new = names.iter().filter(|name| !self.app.engine.has_lead(name.id)).count() as u32;
        if new == 0 {
            return Ok(());
        }
        if self.app.full.leads.load(Ordering::Relaxed) {
            return Err(Reject::LeadsFull);
        }
        let quota = self.app.rates.claims.get(usize::from(site.number.0)).filter(|_| !by_server);
        let allowed = quota.map_or(Ok(()), |quota| {
            quota.lock().unwrap_or_else(PoisonError::into_inner).allow(self.now, new)
        });
        allowed.map_err(|wait| Reject::ClaimQuota(wait.seconds()))
    }
}

/// Whether the site's own server signed a name: hex HMAC-SHA256 of `v1|site|kind|value|exp`, the
/// value exactly as it was sent, under one of the site's identity secrets.
fn check_hmac(
    raw: &RawHit,
    site: &SiteEntry,
    (kind, value): (IdentityKind, &str),
    now: Timestamp,
) -> Result<(), Reject> {
    let end: u64 = raw.exp.parse().map_err(|_| Reject::MalformedField("id.exp"))?;
    let message = format!("v1|{}|{}|{value}|{}", site.site.id, kind.name(), raw.exp);
    let given = from_hex(&raw.hmac).ok_or(Reject::Hmac)?;
    let genuine = site.site.identity_secrets.iter().any(|secret| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
        hmac::verify(&key, message.as_bytes(), &given).is_ok()
    });
    if !genuine {
        return Err(Reject::Hmac);
    }
    let end_ms = if end < SECONDS_BELOW { end.saturating_mul(1_000) } else { end };
    let live = now.0 < end_ms && end_ms <= now.0.saturating_add(HMAC_LIFE_MS);
    if live { Ok(()) } else { Err(Reject::HmacExpired) }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks_exact(2);
    if text.len() != 64 {
        return None;
    }
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
