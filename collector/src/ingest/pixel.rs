//! The pixel's query: `s e u t r i n v c`. Bytes in, one hit out.

use percent_encoding::percent_decode_str;

use super::beacon::consent_text;
use super::raw::RawHit;
use super::reject::Reject;

/// Most names in a query.
const PAIRS_MAX: usize = 64;

/// Reads a query. Names it does not know are ignored; of a name given twice the first counts.
pub fn parse(query: &str) -> Result<RawHit, Reject> {
    let mut hit = RawHit::default();
    if query.split('&').nth(PAIRS_MAX).is_some() {
        return Err(Reject::MalformedQuery);
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let field = match name {
            "s" => &mut hit.site,
            "e" => &mut hit.event,
            "u" => &mut hit.url,
            "t" => &mut hit.title,
            "r" => &mut hit.referrer,
            "i" => &mut hit.id,
            "n" => &mut hit.nonce,
            "v" => &mut hit.token,
            "c" => {
                let value = decode(value)?;
                hit.consent = hit.consent.or(consent_text(&value)?);
                continue;
            }
            _ => continue,
        };
        if field.is_empty() {
            *field = decode(value)?;
        }
    }
    hit.check()?;
    Ok(hit)
}

fn decode(value: &str) -> Result<String, Reject> {
    if !value.bytes().any(|byte| matches!(byte, b'+' | b'%')) {
        return Ok(value.to_owned());
    }
    let spaced = value.replace('+', " ");
    let text = percent_decode_str(&spaced).decode_utf8().map_err(|_| Reject::MalformedQuery)?;
    Ok(text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_and_decoded() {
        let hit = parse(
            "s=demo&u=https%3A%2F%2Fa.example%2Fpricing%2F%3Fx%3D1&t=%E6%96%99+a&c=0&z=1&s=other",
        );
        let hit = hit.unwrap();
        assert_eq!(
            (hit.site.as_str(), hit.url.as_str()),
            ("demo", "https://a.example/pricing/?x=1")
        );
        assert_eq!((hit.title.as_str(), hit.consent), ("料 a", Some(false)));
        assert_eq!(parse("").unwrap(), RawHit::default());
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(parse("u=%ff"), Err(Reject::MalformedQuery));
        assert_eq!(parse("c=maybe"), Err(Reject::MalformedField("c")));
        assert_eq!(parse(&"a&".repeat(100)), Err(Reject::MalformedQuery));
        assert_eq!(parse(&format!("i={}", "x".repeat(129))), Err(Reject::TooLong("i")));
        assert_eq!(parse("e=a%00b"), Err(Reject::MalformedField("e")));
        assert_eq!(parse("u=%zz").unwrap().url, "%zz");
    }
}
