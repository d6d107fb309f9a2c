//! Links that we sign: in a mail, to a page of ours, or an image that says a mail was opened.
//! The destination stands inside the token, so no edit leads elsewhere, and so does whose mail
//! it is, sealed: a log of addresses names nobody.
//!
//! A token is `1 | nonce (12) | ChaCha20-Poly1305 of JSON`, in base 64 for addresses, under a
//! key derived from the installation's.

pub mod scanners;
pub mod uses;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use engine::identity::{Identity, IdentityKind};
use engine::time::Timestamp;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::app::SiteEntry;
use crate::ids::Ids;
use crate::install::Install;

/// The longest a link may name a person.
pub const LIFE_MAX: Duration = Duration::from_hours(400 * 24);
const FORMAT: u8 = 1;
const NONCE_BYTES: usize = 12;
/// Longest destination, in bytes.
pub const URL_BYTES_MAX: usize = 2_048;
/// Longest name of a mail, and longest title, in bytes.
pub const TEXT_BYTES_MAX: usize = 200;
/// Longest token looked at: one with the longest destination, name and title fits.
const TOKEN_BYTES_MAX: usize = 4_096;
/// The name in an address's query that carries a landing token.
pub const QUERY_NAME: &str = "mk";

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A click in a mail: it leads on to a page.
    Click,
    /// An image in a mail: it was opened.
    Open,
    /// A page's own address, with the token in its query.
    Landing,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedLink {
    /// What it is for.
    pub kind: Kind,
    /// The site's id.
    pub site: String,
    /// Whether it stands for the site's test key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub test: bool,
    /// Whose mail it stands in: the kind of name.
    pub who: String,
    /// Whose mail it stands in: the name.
    pub value: String,
    /// Where it leads.
    pub url: String,
    /// Whether the page it leads to is given a landing token.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub landing: bool,
    /// The mail's name, as in `newsletter-2026-12`.
    pub mail: String,
    /// What people read of it.
    pub title: String,
    /// When it was made, in milliseconds since the epoch: it names nobody who was erased since.
    /// Earlier ones do not say.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub made_ms: u64,
    /// Until when it names a person, in milliseconds since the epoch.
    pub until_ms: u64,
    /// How often it does so.
    pub uses_max: u32,
    /// A hash of the token, for counting its uses and telling links of one mail apart.
    #[serde(skip)]
    pub id: u64,
}

impl SignedLink {
    /// The token.
    pub fn seal(&self, install: &Install, ids: &Ids) -> String {
        let nonce: [u8; NONCE_BYTES] = ids.bytes();
        let mut body = serde_json::to_vec(self).expect("texts and numbers have a JSON form");
        let sealing = Nonce::assume_unique_for_key(nonce);
        key(install)
            .seal_in_place_append_tag(sealing, Aad::from([FORMAT]), &mut body)
            .expect("a link is far shorter than a cipher's limit");
        let mut token = vec![FORMAT];
        token.extend_from_slice(&nonce);
        token.append(&mut body);
        URL_SAFE_NO_PAD.encode(token)
    }

    /// Reads a token of this kind; nothing if it is not exactly what we made, or too old.
    pub fn open(token: &str, kind: Kind, install: &Install, now: Timestamp) -> Option<SignedLink> {
        let link = SignedLink::read(token, install)?;
        (link.kind == kind && now.0 < link.until_ms).then_some(link)
    }

    /// The same of any kind and age.
    pub fn read(token: &str, install: &Install) -> Option<SignedLink> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (format, rest) = bytes.split_first()?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_BYTES>()?;
        if *format != FORMAT {
            return None;
        }
        let mut body = body.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = key(install).open_in_place(nonce, Aad::from([FORMAT]), &mut body).ok()?;
        let mut link: SignedLink = serde_json::from_slice(plain).ok()?;
        link.id = install.visitor.hash64(&[b"signed link", token.as_bytes()]).max(1);
        Some(link)
    }

    /// Whose mail it stands in.
    pub fn identity(&self) -> Option<Identity> {
        Identity::parse(IdentityKind::parse(&self.who)?, &self.value).ok()
    }

    /// Whether it was made for this site and key.
    pub fn is_for(&self, site: &SiteEntry) -> bool {
        site.site.id == self.site && site.test == self.test
    }

    /// Source and medium of a visit that it begins.
    pub fn campaign(&self) -> String {
        format!("{} / email", self.mail)
    }

    /// What is alike in all links of one mail to one person.
    pub fn mail_key(&self, install: &Install) -> u64 {
        let parts = [&self.site, &self.who, &self.value, &self.mail].map(String::as_bytes);
        install.visitor.hash64(&[b"mail", parts[0], parts[1], parts[2], parts[3]])
    }

    /// Where a click leads that may name somebody on a page of ours: to the page, with a landing
    /// token that lasts for this visit.
    pub fn destination(&self, install: &Install, ids: &Ids, now: Timestamp) -> String {
        const LANDING_MS: u64 = 30 * 60 * 1_000;
        const LANDING_USES: u32 = 3;
        let Some(mut url) = Url::parse(&self.url).ok().filter(|_| self.landing) else {
            return self.url.clone();
        };
        let landing = SignedLink {
            kind: Kind::Landing,
            until_ms: now.0.saturating_add(LANDING_MS).min(self.until_ms),
            uses_max: LANDING_USES,
            url: String::new(),
            ..self.clone()
        };
        url.query_pairs_mut().append_pair(QUERY_NAME, &landing.seal(install, ids));
        url.into()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Whether an address may stand in a link: a web page's, short enough, without tricks.
pub fn may_lead_to(url: &str) -> bool {
    let web = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    url.len() <= URL_BYTES_MAX
        && !url.chars().any(|letter| letter.is_control() || letter.is_whitespace())
        && Url::parse(url).is_ok_and(|url| web(&url) && url.username().is_empty())
}

fn key(install: &Install) -> LessSafeKey {
    let derived = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, &install.visitor.0),
        b"mikomi signed link v1",
    );
    let key = UnboundKey::new(&CHACHA20_POLY1305, derived.as_ref());
    LessSafeKey::new(key.expect("the derived key has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cookie::CookieKeys;
    use engine::id::Key;

    const NOW: Timestamp = Timestamp(1_796_601_360_000);

    fn install(byte: u8) -> Install {
        let key = Key([byte; 16]);
        let cookie = CookieKeys { id: 1, mac: key, seal: key };
        Install { id: key, identity: key, cookie, visitor: key, alert: key }
    }

    fn link() -> SignedLink {
        SignedLink {
            kind: Kind::Click,
            site: "www".into(),
            test: false,
            who: "email".into(),
            value: "tanaka@sample-seiki.example".into(),
            url: "https://www.vendor.example/lp/line-automation?a=1".into(),
            landing: true,
            mail: "newsletter-2026-12".into(),
            title: "ライン自動化キャンペーン".into(),
            made_ms: NOW.0,
            until_ms: NOW.0 + 1_000,
            uses_max: 20,
            id: 0,
        }
    }

    #[test]
    fn a_token_reads_back_and_every_edit_makes_it_none() {
        let (install, ids) = (install(7), Ids::default());
        let token = link().seal(&install, &ids);
        let read = SignedLink::open(&token, Kind::Click, &install, NOW).unwrap();
        assert_eq!(SignedLink { id: 0, ..read }, link());
        for index in 0..token.len() {
            for other in ["A", "b", "-", "~"] {
                let mut edited = token.clone();
                edited.replace_range(index..=index, other);
                if edited != token {
                    assert_eq!(SignedLink::read(&edited, &install), None, "{index} {other}");
                }
            }
        }
        assert_eq!(SignedLink::read(&token, &self::install(8)), None);
        assert_eq!(SignedLink::read(&"A".repeat(5_000), &install), None);
    }

    #[test]
    fn a_token_is_good_for_its_kind_and_time_and_names_nobody_to_whoever_sees_it() {
        let (install, ids) = (install(7), Ids::default());
        let token = link().seal(&install, &ids);
        let at = |kind, ms| SignedLink::open(&token, kind, &install, Timestamp(NOW.0 + ms));
        assert!(at(Kind::Click, 999).is_some());
        assert_eq!(at(Kind::Click, 1_000), None);
        assert_eq!(at(Kind::Landing, 0), None);
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("tanaka"));
    }

    #[test]
    fn a_click_leads_to_its_page_with_a_token_for_the_visit() {
        let (install, ids) = (install(7), Ids::default());
        let destination = Url::parse(&link().destination(&install, &ids, NOW)).unwrap();
        let token = destination.query_pairs().find(|(name, _)| name == QUERY_NAME).unwrap().1;
        let landing = SignedLink::open(&token, Kind::Landing, &install, NOW).unwrap();
        assert_eq!(landing.identity().unwrap().value(), "tanaka@sample-seiki.example");
        assert!(destination.as_str().starts_with(&link().url));
        let plain = SignedLink { landing: false, ..link() };
        assert_eq!(plain.destination(&install, &ids, NOW), plain.url);
    }

    #[test]
    fn only_web_pages_may_be_led_to() {
        assert!(may_lead_to("https://www.vendor.example/lp?x=1#top"));
        for url in [
            "",
            "/lp",
            "javascript:alert(1)",
            "data:text/html,x",
            "https://",
            "https://a.example/\r\nset-cookie: x=1",
            "https://user@a.example/",
            "https://a.example/a b",
        ] {
            assert!(!may_lead_to(url), "{url}");
        }
    }
}
