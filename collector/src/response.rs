//! What browsers and servers are answered: the GIF, 204, an error with a code, CORS. Nothing
//! here carries anything about a lead (law 9).

use bytes::Bytes;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    CACHE_CONTROL, CONTENT_TYPE, HeaderValue, LOCATION, REFERRER_POLICY, RETRY_AFTER, SET_COOKIE,
    VARY,
};
use hyper::{Response, StatusCode};

use crate::ingest::{Dropped, Reject, Taken};
use crate::server::{Body, full};

/// A transparent GIF of one pixel.
const GIF: [u8; 43] = [
    0x47, 0x49, 0x46, 0x38, 0x39, 0x61, 1, 0, 1, 0, 0x80, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0x21,
    0xf9, 4, 1, 0, 0, 0, 0, 0x2c, 0, 0, 0, 0, 1, 0, 1, 0, 0, 2, 2, 0x44, 1, 0, 0x3b,
];

/// What a sender reads its answer as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An image: the GIF, with the true status.
    Pixel,
    /// Nothing but a status; a refusal says why.
    Beacon,
}

/// The answer to hits that were taken, refused or dropped.
pub fn answer(form: Form, outcome: Result<&Taken, Reject>) -> Response<Body> {
    let (status, reject) = match outcome {
        Err(reject) => (reject.status(), Some(reject)),
        Ok(taken) => match taken.rejected.first() {
            // Any hit that was kept makes it a success; else the first refusal is the answer.
            Some(reject) if taken.kept == 0 && taken.dropped.is_none() => {
                (reject.status(), Some(*reject))
            }
            _ => (StatusCode::OK, None),
        },
    };
    let mut response = match form {
        Form::Pixel => {
            let mut response = Response::new(full(Bytes::from_static(&GIF)));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("image/gif"));
            response
        }
        Form::Beacon => refusal_body(reject),
    };
    *response.status_mut() = match (status, form) {
        (StatusCode::OK, Form::Beacon) => StatusCode::NO_CONTENT,
        (status, _) => status,
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(seconds) = reject.and_then(Reject::retry_after) {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Ok(taken) = outcome {
        let reasons = rejected_header(&taken.rejected);
        if let Some(reasons) = reasons.and_then(|text| HeaderValue::from_str(&text).ok()) {
            headers.insert("mikomi-rejected", reasons);
        }
        if let Some(dropped) = taken.dropped {
            headers.insert("mikomi-dropped", HeaderValue::from_static(Dropped::name(dropped)));
        }
    }
    response
}

/// Leads whoever clicked a link of ours on to its page.
pub fn lead_on(to: &str) -> Response<Body> {
    let Ok(location) = HeaderValue::from_str(to) else {
        return no_such_link();
    };
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::FOUND;
    let headers = response.headers_mut();
    headers.insert(LOCATION, location);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// A link that is none of ours: it leads nowhere.
pub fn no_such_link() -> Response<Body> {
    let mut response = file(
        "text/html; charset=utf-8",
        "<!doctype html><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>No such link</title><p>リンクが正しくありません。<p>There is no such link.\n",
    );
    *response.status_mut() = StatusCode::NOT_FOUND;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// How many hits were refused, and why: `3 identity_garbage=2 malformed_field=1`.
fn rejected_header(rejected: &[Reject]) -> Option<String> {
    if rejected.is_empty() {
        return None;
    }
    let mut reasons = std::collections::BTreeMap::new();
    for reject in rejected {
        *reasons.entry(reject.name()).or_insert(0_usize) += 1;
    }
    let listed = reasons.iter().map(|(name, times)| format!(" {name}={times}"));
    Some(format!("{}{}", rejected.len(), listed.collect::<String>()))
}

fn refusal_body(reject: Option<Reject>) -> Response<Body> {
    let Some(reject) = reject else {
        return Response::new(full(Bytes::new()));
    };
    let field = reject.field().map(|field| format!(",\"field\":\"{field}\"")).unwrap_or_default();
    let json = format!("{{\"error\":\"{}\"{field}}}\n", reject.name());
    let mut response = Response::new(full(json));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// Sets a cookie.
pub fn set_cookie(response: &mut Response<Body>, cookie: &str) {
    if let Ok(value) = HeaderValue::from_str(cookie) {
        response.headers_mut().append(SET_COOKIE, value);
    }
}

/// Lets a page of a listed origin read the answer. Others get no header, and their browser
/// keeps the answer from them.
pub fn allow_origin(response: &mut Response<Body>, origin: Option<&str>, listed: bool) {
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("origin"));
    let Some(origin) = origin.filter(|_| listed).and_then(|it| HeaderValue::from_str(it).ok())
    else {
        return;
    };
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    let readable = HeaderValue::from_static("retry-after, mikomi-rejected, mikomi-dropped");
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, readable);
}

/// The answer to a browser that asks whether it may send.
pub fn preflight(origin: Option<&str>, listed: bool) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    allow_origin(&mut response, origin, listed);
    if listed {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("content-type"));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200"));
    }
    response
}

/// A page or file of ours.
pub fn file(content_type: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(bytes));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_a_success_if_any_hit_was_kept_and_says_what_was_not() {
        let taken = Taken {
            kept: 1,
            rejected: vec![Reject::Empty, Reject::MissingField("u"), Reject::Empty],
            ..Taken::default()
        };
        let response = answer(Form::Beacon, Ok(&taken));
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        assert_eq!(response.headers()["mikomi-rejected"], "3 empty_body=2 missing_field=1");
    }

    #[test]
    fn a_batch_with_none_kept_has_its_first_refusal_s_status() {
        let rejected = vec![Reject::RateSite(7), Reject::Empty];
        let taken = Taken { rejected, ..Taken::default() };
        let response = answer(Form::Pixel, Ok(&taken));
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()["retry-after"], "7");
        assert_eq!(response.headers()["content-type"], "image/gif");
    }

    #[test]
    fn a_dropped_hit_is_a_success_that_says_why() {
        let taken = Taken { dropped: Some(Dropped::Consent), ..Taken::default() };
        let response = answer(Form::Beacon, Ok(&taken));
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        assert_eq!(response.headers()["mikomi-dropped"], "consent");
        assert!(response.headers().get("set-cookie").is_none());
    }

    #[test]
    fn only_listed_origins_may_read() {
        let listed = preflight(Some("https://www.vendor.example"), true);
        assert_eq!(listed.headers()["access-control-allow-origin"], "https://www.vendor.example");
        let other = preflight(Some("https://evil.example"), false);
        assert!(other.headers().get("access-control-allow-origin").is_none());
        assert_eq!(other.headers()["vary"], "origin");
    }
}
