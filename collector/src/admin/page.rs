//! The pages for people: where to go from the printed link, and the one that a message's link
//! leads to.

use engine::id::LeadId;
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderValue};
use hyper::{Response, StatusCode};

use super::view::View;
use super::{Admin, Refusal};
use crate::response;
use crate::server::Body;

const INDEX: &str = include_str!("index.html");

/// Where to go from the printed link.
pub(super) fn index() -> Response<Body> {
    page(INDEX.to_owned())
}

/// For whoever follows a message's link and is not signed in, as far as can be seen: a browser
/// that comes from another site does not show its session, and does on the second step.
pub(super) fn sign_in(lead: LeadId) -> Response<Body> {
    let mut response = page(format!(
        "<!doctype html><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>mikomi</title><p>サインイン済みの方は <a href=\"/leads/{lead}\">開く</a>。\
         <p>If you are signed in, <a href=\"/leads/{lead}\">open it</a>. If not, use the link \
         that mikomi printed when it started.\n"
    ));
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response
}

impl Admin {
    /// The page with one lead open.
    pub(super) fn lead_page(&self, name: LeadId) -> Result<Response<Body>, Refusal> {
        let head = self.app.engine.head(name);
        let lead = View::new(&self.app).summary_of(head).ok_or(Refusal::NotFound)?;
        let shown = |field: &str| plain(lead[field].as_str().unwrap_or_default());
        let who = ["name", "company", "email"].map(shown).into_iter();
        let who: Vec<String> = who.filter(|text| !text.is_empty()).collect();
        let stage = plain(lead["stage"]["id"].as_str().unwrap_or_default());
        let points = &lead["points"];
        let open = format!(
            "<h2>{}</h2>\n<p>{stage}, {points} points ({})</p>\n<dl>\n\
             <dt><a href=\"/api/leads/{head}/timeline\">Timeline</a></dt>\
             <dd>what happened, newest first</dd>\n\
             <dt><a href=\"/api/leads/{head}\">Lead</a></dt>\
             <dd>everything that is known, the score row by row</dd>\n\
             <dt><a href=\"/api/leads/{head}/why\">Why</a></dt>\
             <dd>each gate of each line: open or shut</dd>\n</dl>\n<hr>\n<dl>",
            if who.is_empty() { head.to_string() } else { who.join(", ") },
            plain(lead["cell"].as_str().unwrap_or_default()),
        );
        let mut response = page(INDEX.replacen("<dl>", &open, 1));
        // It shows a person.
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }
}

fn page(html: String) -> Response<Body> {
    let mut response = response::file("text/html; charset=utf-8", html);
    let policy = HeaderValue::from_static(
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    );
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    response
}

/// A text as text of a page, whatever a stranger wrote.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => plain.push_str("&lt;"),
            '>' => plain.push_str("&gt;"),
            '&' => plain.push_str("&amp;"),
            '"' => plain.push_str("&quot;"),
            '\'' => plain.push_str("&#39;"),
            character => plain.push(character),
        }
    }
    plain
}
