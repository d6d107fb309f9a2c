//! The cookies of one browser, as far as a client of one host needs them: by name, until they are
//! taken back. One string, since there are millions of browsers and few cookies.

use hyper::header::SET_COOKIE;
use hyper::http::{HeaderMap, HeaderValue};

/// They, as they are sent: `a=1; b=2`.
#[derive(Clone, Debug, Default)]
pub struct Cookies(Box<str>);

impl Cookies {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How they are sent.
    pub fn header(&self) -> Option<HeaderValue> {
        (!self.is_empty()).then(|| HeaderValue::from_str(&self.0).ok()).flatten()
    }

    /// Keeps what an answer gives and drops what it takes back.
    pub fn keep(&mut self, headers: &HeaderMap) {
        for line in headers.get_all(SET_COOKIE) {
            let Ok(line) = line.to_str() else {
                continue;
            };
            let mut parts = line.split(';').map(str::trim);
            let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else {
                continue;
            };
            let taken_back = parts.any(|part| {
                let (attribute, value) = part.split_once('=').unwrap_or((part, ""));
                attribute.eq_ignore_ascii_case("max-age")
                    && value.parse::<i64>().is_ok_and(|age| age <= 0)
            });
            let pair = (!taken_back).then(|| format!("{name}={value}"));
            let others = self.0.split("; ").filter(|other| {
                !other.is_empty() && other.split_once('=').is_none_or(|(known, _)| known != name)
            });
            let all: Vec<String> = others.map(str::to_owned).chain(pair).collect();
            self.0 = all.join("; ").into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_kept_until_it_is_given_anew_or_taken_back() {
        let mut cookies = Cookies::default();
        let mut hear = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(SET_COOKIE, line.parse().unwrap());
            }
            cookies.keep(&headers);
            cookies.0.to_string()
        };
        assert_eq!(hear(&["a=1; Path=/; HttpOnly", "b=2; Max-Age=60"]), "a=1; b=2");
        assert_eq!(hear(&["a=3; SameSite=Lax"]), "b=2; a=3");
        assert_eq!(hear(&["b=; Max-Age=0", "junk"]), "a=3");
        assert_eq!(hear(&["a=; max-age=-1"]), "");
    }
}
