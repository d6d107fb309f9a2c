//! The signed visitor cookie: read, mint, renew.
//!
//! `v1.<key id>.<id128>.<issued day>.<sealed position>.<mac64>`, every field in lower hex. The
//! position is that of the visitor's first record, XORed with SipHash-2-4 of the id so that it
//! tells an outsider nothing; `0` once the visitor is admitted. The MAC is SipHash-2-4 of all
//! before it. Whatever is edited or forged counts as no cookie.

use engine::id::{Key, Position};
use engine::time::Timestamp;

/// How long a browser keeps the cookie; browsers keep none for longer.
pub const LIFE_DAYS: u64 = 400;
/// A cookie older than this is renewed.
pub const RENEW_DAYS: u64 = 7;
const DAY_MS: u64 = 86_400_000;
/// Longest value looked at. A real one has fewer than 100 characters.
const VALUE_BYTES_MAX: usize = 160;

/// The keys under which cookies are signed and sealed.
#[derive(Clone, Copy, Debug)]
pub struct CookieKeys {
    /// Which key signed: a second one can take over.
    pub id: u8,
    /// Signs.
    pub mac: Key,
    /// Seals the position.
    pub seal: Key,
}

/// What a valid cookie says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VisitorCookie {
    /// The browser's id, before it is tied to a namespace.
    pub id: u128,
    /// The day it was issued, since the epoch.
    pub issued_day: u64,
    /// The first record, if the visitor was not admitted when it was issued.
    pub first: Option<Position>,
}

impl VisitorCookie {
    /// A cookie issued now.
    pub fn issue(id: u128, first: Option<Position>, now: Timestamp) -> VisitorCookie {
        VisitorCookie { id, issued_day: now.0 / DAY_MS, first }
    }

    /// Whether it is old enough to be issued again.
    pub fn is_stale(&self, now: Timestamp) -> bool {
        (now.0 / DAY_MS).saturating_sub(self.issued_day) >= RENEW_DAYS
    }

    /// The value to set.
    pub fn sign(&self, keys: &CookieKeys) -> String {
        let sealed = self.first.map_or(0, |position| position.0 ^ mask(keys, self.id));
        let body = format!("v1.{:x}.{:032x}.{:x}.{sealed:x}", keys.id, self.id, self.issued_day);
        let mac = keys.mac.hash64(&[body.as_bytes()]);
        format!("{body}.{mac:016x}")
    }

    /// Reads a value; nothing if it is not exactly what we signed, or too old.
    pub fn read(value: &[u8], keys: &CookieKeys, now: Timestamp) -> Option<VisitorCookie> {
        let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= VALUE_BYTES_MAX)?;
        let (body, mac) = text.rsplit_once('.')?;
        // The MAC first: nothing of a forged value is looked at any further. Both sides are
        // whole words, so the comparison takes the same time wherever they differ.
        let expected = keys.mac.hash64(&[body.as_bytes()]);
        if hex(mac, 16)? != u128::from(expected) || mac.len() != 16 {
            return None;
        }
        let mut fields = body.split('.');
        let (version, key) = (fields.next()?, fields.next()?);
        let (id, day, sealed) = (fields.next()?, fields.next()?, fields.next()?);
        if version != "v1" || hex(key, 2)? != u128::from(keys.id) || fields.next().is_some() {
            return None;
        }
        let (id, issued_day) = (hex(id, 32)?, hex(day, 16)? as u64);
        let age = (now.0 / DAY_MS).checked_sub(issued_day);
        // A clock that stepped back may make today's cookie a day old in the future.
        if age.is_some_and(|age| age >= LIFE_DAYS) || issued_day > now.0 / DAY_MS + 1 {
            return None;
        }
        let sealed = hex(sealed, 16)? as u64;
        let first = (sealed != 0).then(|| Position(sealed ^ mask(keys, id)));
        Some(VisitorCookie { id, issued_day, first })
    }

    /// The first valid cookie of a `Cookie` header. Others of its name are stray or forged.
    pub fn find(
        header: &[u8],
        name: &str,
        keys: &CookieKeys,
        now: Timestamp,
    ) -> Option<VisitorCookie> {
        values(header, name).find_map(|value| VisitorCookie::read(value, keys, now))
    }
}

/// The values that a `Cookie` header gives to a name.
pub fn values<'a>(header: &'a [u8], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    header.split(|byte| *byte == b';').filter_map(move |pair| {
        let value = pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value))
    })
}

/// How a cookie is to be kept by the browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Only over TLS. Browsers drop such a cookie on plain http.
    pub secure: bool,
    /// Sent from pages of other sites, in a jar of its own for each.
    pub third_party: bool,
}

/// The `Set-Cookie` header that keeps a value for `days`; with 0 days it is deleted.
pub fn set_cookie(name: &str, value: &str, days: u64, shape: Shape) -> String {
    let mut cookie = cookie::Cookie::build((name, value))
        .path("/")
        .http_only(true)
        .max_age(cookie::time::Duration::days(days as i64))
        .secure(shape.secure || shape.third_party)
        .same_site(cookie::SameSite::Lax)
        .build();
    if shape.third_party {
        cookie.set_same_site(cookie::SameSite::None);
        cookie.set_partitioned(true);
    }
    cookie.to_string()
}

fn mask(keys: &CookieKeys, id: u128) -> u64 {
    keys.seal.hash64(&[&id.to_le_bytes()])
}

fn hex(text: &str, digits_max: usize) -> Option<u128> {
    let digits = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.is_empty() || text.len() > digits_max || !text.bytes().all(digits) {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_796_601_360_000);

    fn keys() -> CookieKeys {
        CookieKeys { id: 1, mac: Key([7; 16]), seal: Key([9; 16]) }
    }

    fn read(value: &str) -> Option<VisitorCookie> {
        VisitorCookie::read(value.as_bytes(), &keys(), NOW)
    }

    #[test]
    fn a_cookie_reads_back_what_was_issued() {
        for first in [None, Some(Position(1)), Some(Position(u64::MAX >> 16))] {
            let cookie = VisitorCookie::issue(0xdead_beef, first, NOW);
            assert_eq!(read(&cookie.sign(&keys())), Some(cookie));
        }
    }

    #[test]
    fn every_edit_of_every_character_makes_it_no_cookie() {
        let value = VisitorCookie::issue(u128::MAX / 3, Some(Position(77)), NOW).sign(&keys());
        for index in 0..value.len() {
            for other in (0..128_u8).filter(|other| *other != value.as_bytes()[index]) {
                let mut edited = value.clone().into_bytes();
                edited[index] = other;
                assert_eq!(VisitorCookie::read(&edited, &keys(), NOW), None, "{index} {other}");
            }
            assert_eq!(read(&value[..index]), None);
        }
        assert_eq!(read(&format!("{value}0")), None);
        assert_eq!(read(&value.to_uppercase()), None);
    }

    #[test]
    fn the_sealed_position_shows_nothing_of_itself() {
        let sealed = |id| {
            let value = VisitorCookie::issue(id, Some(Position(5)), NOW).sign(&keys());
            value.split('.').nth(4).unwrap().to_owned()
        };
        assert_ne!(sealed(1), sealed(2));
        assert_ne!(sealed(1), "5");
        let admitted = VisitorCookie::issue(1, None, NOW).sign(&keys());
        assert_eq!(admitted.split('.').nth(4), Some("0"));
    }

    #[test]
    fn a_cookie_older_than_its_life_or_from_the_future_is_none() {
        let at = |days: i64| Timestamp((NOW.0 as i64 + days * DAY_MS as i64) as u64);
        let value = |days| VisitorCookie::issue(1, None, at(days)).sign(&keys());
        assert!(read(&value(-399)).is_some());
        assert!(read(&value(-400)).is_none());
        assert!(read(&value(1)).is_some());
        assert!(read(&value(2)).is_none());
    }

    #[test]
    fn the_header_may_hold_other_cookies_and_forged_twins() {
        let ours = VisitorCookie::issue(5, None, NOW);
        let header =
            format!("a=b; mikomi=v1.1.forged; mikomix=1;mikomi={} ; c", ours.sign(&keys()));
        assert_eq!(VisitorCookie::find(header.as_bytes(), "mikomi", &keys(), NOW), Some(ours));
        assert_eq!(VisitorCookie::find(b"\xff=\xfe; mikomi=\xff", "mikomi", &keys(), NOW), None);
    }

    #[test]
    fn the_header_to_set_has_the_shape_that_browsers_keep() {
        let plain = set_cookie("mikomi", "v", 400, Shape { secure: false, third_party: false });
        assert_eq!(plain, "mikomi=v; HttpOnly; SameSite=Lax; Path=/; Max-Age=34560000");
        let secure = set_cookie("mikomi", "v", 400, Shape { secure: true, third_party: false });
        assert!(secure.contains("; Secure") && secure.contains("SameSite=Lax"));
        let third = set_cookie("mikomi", "v", 400, Shape { secure: false, third_party: true });
        assert!(
            third.contains("SameSite=None")
                && third.contains("; Secure")
                && third.contains("Partitioned")
        );
    }
}
