//! How a request to an endpoint looks beside its body: method, content type, headers of its own,
//! and whether it is signed. Values of headers hold tokens, so they are never printed.

use std::fmt;

use hyper::Method;
use hyper::header::{HeaderName, HeaderValue};

use super::sign::Secrets;

/// Headers an endpoint may add.
pub const HEADERS_MAX: usize = 20;
/// Longest value of a header, in bytes: the longest tokens have about 4,000.
pub const VALUE_BYTES_MAX: usize = 8_192;

/// Headers that the client makes itself.
const OURS: [&str; 14] = [
    "host",
    "content-type",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "date",
    "user-agent",
];
/// What the names of headers begin with that say which message it is, and who signed it.
const OUR_PREFIXES: [&str; 2] = ["webhook-", "mikomi-"];

/// Why a header cannot be added. It never holds the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// The name is none.
    Name,
    /// The sender makes it itself.
    Ours,
    /// A value of visible ASCII and blanks is needed, of at most [`VALUE_BYTES_MAX`] bytes.
    Value,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderError::Name => write!(f, "this is no name of a header"),
            HeaderError::Ours => write!(f, "this header is made by mikomi"),
            HeaderError::Value => write!(
                f,
                "a header's value is plain ASCII of 1 to {VALUE_BYTES_MAX} bytes in one line"
            ),
        }
    }
}

impl std::error::Error for HeaderError {}

/// See the module.
#[derive(Clone)]
pub struct Manner {
    /// The method.
    pub method: Method,
    /// What the body is.
    pub content_type: HeaderValue,
    /// Headers of the endpoint's own.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What messages are signed with, newest first; chats check no signature.
    pub secrets: Option<Secrets>,
}

impl Manner {
    /// JSON by POST, signed.
    pub fn signed(secrets: Secrets) -> Manner {
        Manner { secrets: Some(secrets), ..Manner::default() }
    }
}

impl Default for Manner {
    fn default() -> Manner {
        Manner {
            method: Method::POST,
            content_type: HeaderValue::from_static("application/json"),
            headers: Vec::new(),
            secrets: None,
        }
    }
}

// By hand: the values are tokens.
impl fmt::Debug for Manner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Manner")
            .field("method", &self.method)
            .field("content_type", &self.content_type)
            .field("headers", &names)
            .field("secrets", &self.secrets)
            .finish()
    }
}

/// A header that an endpoint adds to every request.
pub fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), HeaderError> {
    let name = HeaderName::try_from(name).map_err(|_| HeaderError::Name)?;
    let ours = OURS.contains(&name.as_str())
        || OUR_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix));
    if ours {
        return Err(HeaderError::Ours);
    }
    let plain = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    if !(1..=VALUE_BYTES_MAX).contains(&value.len()) || !value.bytes().all(plain) {
        return Err(HeaderError::Value);
    }
    let mut value = HeaderValue::try_from(value).map_err(|_| HeaderError::Value)?;
    value.set_sensitive(true);
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_refused_by_name_when_it_cannot_be_or_is_ours() {
        let of = |name: &str, value: &str| header(name, value).err();
        assert_eq!(of("x-chatworktoken", "abc"), None);
        assert_eq!(of("Authorization", "Bearer 00D!AR8"), None);
        for name in ["", "a b", "name:", "名"] {
            assert_eq!(of(name, "v"), Some(HeaderError::Name), "{name}");
        }
        for name in ["Host", "content-length", "Webhook-Signature", "mikomi-attempt", "Connection"]
        {
            assert_eq!(of(name, "v"), Some(HeaderError::Ours), "{name}");
        }
        let long = "x".repeat(VALUE_BYTES_MAX + 1);
        for value in ["", "a\r\nb: c", "a\nb", "値", "a\tb", &long] {
            assert_eq!(of("x-token", value), Some(HeaderError::Value), "{value:?}");
        }
    }

    #[test]
    fn a_token_is_never_printed() {
        let headers = vec![header("x-token", "swordfish").unwrap()];
        let manner = Manner { headers, ..Manner::default() };
        let shown = format!("{manner:?} {:?}", manner.headers);
        assert!(shown.contains("x-token") && !shown.contains("swordfish"), "{shown}");
    }
}
