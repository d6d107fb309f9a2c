//! The sample site: a handful of pages in memory, served as any web server would.

use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue, LOCATION,
};
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::TcpListener;

use super::{Places, SITE_KEY};
use crate::server::{self, Body, ServerSettings, full, plain};

const HTML: &str = "text/html; charset=utf-8";

/// Path, content type, content.
const PAGES: [(&str, &str, &str); 14] = [
    ("/", HTML, include_str!("site/index.html")),
    ("/column/dx/", HTML, include_str!("site/column/dx/index.html")),
    ("/case/line/", HTML, include_str!("site/case/line/index.html")),
    ("/product/a/", HTML, include_str!("site/product/a/index.html")),
    ("/product/b/", HTML, include_str!("site/product/b/index.html")),
    ("/product/c/", HTML, include_str!("site/product/c/index.html")),
    ("/pricing/", HTML, include_str!("site/pricing/index.html")),
    ("/document/", HTML, include_str!("site/document/index.html")),
    ("/contact/", HTML, include_str!("site/contact/index.html")),
    ("/careers/", HTML, include_str!("site/careers/index.html")),
    ("/thanks/document/guide/", HTML, include_str!("site/thanks/document/guide/index.html")),
    ("/thanks/contact/ok/", HTML, include_str!("site/thanks/contact/ok/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("site/style.css")),
    ("/icon.svg", "image/svg+xml", include_str!("site/icon.svg")),
];

const MISSING: &str = "<!doctype html><html lang=\"ja\"><meta charset=\"utf-8\">\
    <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
    <title>ページが見つかりません | サンプル精機</title><link rel=\"stylesheet\" href=\"/style.css\">\
    <main><section class=\"lead\"><h1>ページが見つかりません</h1>\
    <p lang=\"en\">There is no such page.</p>\
    <p><a class=\"button\" href=\"/\">トップへ <small lang=\"en\">Home</small></a></p>\
    </section></main></html>\n";

/// What stands behind a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// A file, by its place in the list.
    Page(usize),
    /// The same with a slash at its end, since links in a page count from there.
    Moved(&'static str),
    /// Nothing.
    Nothing,
}

/// Looks a path up. Only what is in the list exists, so no path leads out of it.
fn find(path: &str) -> Found {
    if let Some(index) = PAGES.iter().position(|(known, ..)| *known == path) {
        return Found::Page(index);
    }
    let folder = PAGES.iter().find(|(known, ..)| known.strip_suffix('/') == Some(path));
    folder.map_or(Found::Nothing, |(known, ..)| Found::Moved(known))
}

struct Site {
    /// Contents, in the order of the list, with the placeholders filled.
    contents: Vec<Bytes>,
    policy: HeaderValue,
    host: String,
}

impl Site {
    fn new(places: Places) -> Site {
        let collector = format!("http://{}", places.collector);
        let filled =
            |text: &str| text.replace("{{COLLECTOR}}", &collector).replace("{{SITE}}", SITE_KEY);
        let policy = format!(
            "default-src 'self'; script-src {collector}; connect-src {collector}; \
             img-src 'self' {collector}; form-action 'self'; base-uri 'none'; \
             frame-ancestors 'none'"
        );
        Site {
            contents: PAGES.iter().map(|(_, _, text)| filled(text).into()).collect(),
            policy: HeaderValue::from_str(&policy).expect("an address is visible ASCII"),
            host: places.site.to_string(),
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "a page is read with GET\n");
        }
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
        if host.is_some_and(|host| host != self.host) {
            // Under "localhost" the collector would be another site, and its cookie not sent.
            return moved(&format!("http://{}{path}", self.host));
        }
        match find(path) {
            Found::Page(index) => {
                self.page(StatusCode::OK, PAGES[index].1, self.contents[index].clone())
            }
            Found::Moved(to) => moved(to),
            Found::Nothing => {
                self.page(StatusCode::NOT_FOUND, HTML, Bytes::from_static(MISSING.as_bytes()))
            }
        }
    }

    fn page(&self, status: StatusCode, kind: &'static str, content: Bytes) -> Response<Body> {
        let mut response = Response::new(full(content));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CONTENT_SECURITY_POLICY, self.policy.clone());
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        // Another demo may stand here in a minute, with another collector.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

fn moved(to: &str) -> Response<Body> {
    let mut response = plain(StatusCode::FOUND, "");
    match HeaderValue::from_str(to) {
        Ok(to) => {
            response.headers_mut().insert(LOCATION, to);
        }
        Err(_) => *response.status_mut() = StatusCode::NOT_FOUND,
    }
    response
}

/// Serves the site until the runtime ends.
pub(super) async fn serve(listener: TcpListener, places: Places) {
    let site = Arc::new(Site::new(places));
    let handler = move |request: Request<Incoming>, _| {
        let site = Arc::clone(&site);
        async move { site.answer(&request) }
    };
    let settings = ServerSettings::default();
    server::run(listener, std::future::pending(), handler, settings, Arc::default()).await;
}

/// What stands between a page's title tags.
pub(super) fn title(html: &str) -> Option<&str> {
    let (_, rest) = html.split_once("<title>")?;
    Some(rest.split_once("</title>")?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_its_page_and_without_the_slash_leads_there() {
        let Found::Page(index) = find("/product/a/") else { panic!("no page") };
        assert_eq!(PAGES[index].0, "/product/a/");
        assert_eq!(find("/product/a"), Found::Moved("/product/a/"));
        assert_eq!(find("/"), Found::Page(0));
    }

    #[test]
    fn nothing_else_is_served() {
        for path in ["/product", "/product/a/index.html", "/../mod.rs", "//", "/style.css/"] {
            assert_eq!(find(path), Found::Nothing, "{path}");
        }
    }

    #[test]
    fn every_link_of_every_page_leads_somewhere() {
        for (page, kind, text) in PAGES {
            let behind = |attribute| text.split(attribute).skip(1);
            for rest in behind("href=\"").chain(behind("action=\"")).chain(behind("src=\"")) {
                let target = rest.split('"').next().unwrap();
                if target.starts_with('/') {
                    assert!(matches!(find(target), Found::Page(_)), "{page} -> {target}");
                }
            }
            assert!(kind != HTML || title(text).is_some(), "{page} has no title");
        }
    }

    #[test]
    fn no_placeholder_reaches_a_browser() {
        let address = ([127, 0, 0, 1], 8080).into();
        let places =
            Places { collector: address, admin: address, site: address, receiver: address };
        for content in Site::new(places).contents {
            assert!(!String::from_utf8(content.to_vec()).unwrap().contains("{{"));
        }
    }
}
