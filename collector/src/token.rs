//! Page tokens: who a browser is where it keeps no cookie, for half an hour, bound to the site
//! and the page's origin. `t1.<id>.<until>.<mac>`, in lower hex.

use engine::id::Key;
use engine::time::Timestamp;

/// What a token is bound to.
#[derive(Clone, Copy, Debug)]
pub struct Bound<'a> {
    /// The browser's id, before it is tied to a namespace.
    pub id: u128,
    /// Good until then, in milliseconds since the epoch.
    pub until_ms: u64,
    /// The site's key.
    pub site: &'a str,
    /// The page's origin; empty if the browser names none.
    pub origin: &'a str,
}

/// Makes a token.
pub fn page_token(key: &Key, bound: &Bound<'_>) -> String {
    let mac = mac(key, bound);
    format!("t1.{:032x}.{:x}.{mac:016x}", bound.id, bound.until_ms)
}

/// Reads a token sent for a site from an origin; the browser's id if it is good.
pub fn read(key: &Key, token: &str, site: &str, origin: &str, now: Timestamp) -> Option<u128> {
    let mut fields = token.strip_prefix("t1.")?.split('.');
    let (id, until, given) = (fields.next()?, fields.next()?, fields.next()?);
    let id = u128::from_str_radix(id, 16).ok()?;
    let until_ms = u64::from_str_radix(until, 16).ok()?;
    let bound = Bound { id, until_ms, site, origin };
    // Only the very text that was made is good: no other spelling of the same numbers.
    let genuine = page_token(key, &bound) == token && given.len() == 16;
    (genuine && fields.next().is_none() && now.0 < until_ms).then_some(id)
}

fn mac(key: &Key, bound: &Bound<'_>) -> u64 {
    key.hash64(&[
        b"page token",
        &bound.id.to_le_bytes(),
        &bound.until_ms.to_le_bytes(),
        bound.site.as_bytes(),
        bound.origin.as_bytes(),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_site_origin_and_time_only() {
        let key = Key([4; 16]);
        let bound = Bound { id: 77, until_ms: 2_000, site: "demo", origin: "https://a.example" };
        let token = page_token(&key, &bound);
        let at = |site, origin, now| read(&key, &token, site, origin, Timestamp(now));
        assert_eq!(at("demo", "https://a.example", 1_999), Some(77));
        assert_eq!(at("demo", "https://a.example", 2_000), None);
        assert_eq!(at("other", "https://a.example", 1), None);
        assert_eq!(at("demo", "https://b.example", 1), None);
        for index in 0..token.len() {
            let mut edited = token.clone();
            edited.replace_range(index..=index, "~");
            assert_eq!(read(&key, &edited, "demo", "https://a.example", Timestamp(1)), None);
        }
    }
}
