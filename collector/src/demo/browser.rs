//! A browser as the collector meets it: pages fetched from the site, hits as the page script
//! sends them (ids, one nonce a page view, engaged time on leaving), a cookie jar, connections
//! kept open. Everything goes over real HTTP.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cookie::Cookie;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, COOKIE, HOST, ORIGIN, SET_COOKIE, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::cast::Person;
use super::{Places, SITE_KEY, site};
use crate::app::App;

/// Longest answer read, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Longest wait for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The page script tells of engaged time on leaving only from this long on.
const ENGAGED_MIN_MS: u64 = 3_000;

/// Why a browser could not go on.
#[derive(Debug)]
pub(super) enum Lost {
    /// No connection, or a broken one.
    Io(std::io::Error),
    /// Not HTTP as it should be, or too long.
    Http(String),
    /// No answer in time.
    TimedOut,
    /// An answer that is no success.
    Status(StatusCode),
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lost::Io(error) => error.fmt(f),
            Lost::Http(why) => f.write_str(why),
            Lost::TimedOut => f.write_str("no answer in time"),
            Lost::Status(status) => write!(f, "the answer is {status}"),
        }
    }
}

/// A connection that is opened when it is needed, and again when the other side closed it.
struct Connection {
    address: SocketAddr,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    fn new(address: SocketAddr) -> Connection {
        Connection { address, sender: None }
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, Lost> {
        timeout(ANSWER_WITHIN, self.exchange(request)).await.map_err(|_| Lost::TimedOut)?
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, Lost> {
        let open = self.sender.take().filter(|sender| !sender.is_closed());
        let mut sender = if let Some(sender) = open {
            sender
        } else {
            let stream = TcpStream::connect(self.address).await.map_err(Lost::Io)?;
            let (sender, connection) =
                handshake(TokioIo::new(stream)).await.map_err(|error| http(&error))?;
            // Its end shows in the sender.
            tokio::spawn(connection);
            sender
        };
        let response = sender.send_request(request).await.map_err(|error| http(&error))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| Lost::Http(error.to_string()))?.to_bytes();
        if !parts.status.is_success() {
            return Err(Lost::Status(parts.status));
        }
        self.sender = Some(sender);
        Ok(Response::from_parts(parts, body))
    }
}

fn http(error: &hyper::Error) -> Lost {
    Lost::Http(error.to_string())
}

/// The page that is open.
struct Page {
    url: String,
    nonce: String,
    opened_ms: u64,
}

/// One browser on one person's desk.
pub(super) struct Browser {
    app: Arc<App>,
    agent: &'static str,
    origin: String,
    site: Connection,
    collector: Connection,
    cookie: Option<String>,
    page: Option<Page>,
}

impl Browser {
    /// A browser without any history. The `App` is its clock and its dice, nothing more.
    pub(super) fn new(app: &Arc<App>, places: Places, agent: &'static str) -> Browser {
        Browser {
            app: Arc::clone(app),
            agent,
            origin: format!("http://{}", places.site),
            site: Connection::new(places.site),
            collector: Connection::new(places.collector),
            cookie: None,
            page: None,
        }
    }

    /// Leaves the page that is open and opens another; `from` is where a first page was linked.
    pub(super) async fn open(&mut self, path: &str, from: &str) -> Result<(), Lost> {
        let left = self.leave().await?;
        let request = Request::get(path)
            .header(HOST, self.site.address.to_string())
            .header(USER_AGENT, self.agent)
            .body(Full::default())
            .map_err(|error| Lost::Http(error.to_string()))?;
        let answer = self.site.send(request).await?;
        let html = String::from_utf8_lossy(answer.body());
        let title = site::title(&html).unwrap_or_default();
        let url = format!("{}{path}", self.origin);
        let page = Page { url, nonce: self.random(), opened_ms: self.app.clock.boot_ms() };
        let referrer = left.as_deref().unwrap_or(from);
        let hit = self.hit(&page, "page_view", &[("t", json!(title)), ("r", json!(referrer))]);
        self.page = Some(page);
        self.tell(&hit).await
    }

    /// Sends the form of the page that is open: the script says who the person is.
    pub(super) async fn submit(&mut self, person: &Person) -> Result<(), Lost> {
        let Some(page) = &self.page else {
            return Ok(());
        };
        let who = json!({
            "email": person.email,
            "attributes": { "name": person.name, "company": person.company, "title": person.title },
        });
        let hit = self.hit(page, "identify", &[("id", who)]);
        self.tell(&hit).await
    }

    /// Closes the page that is open, and says which it was.
    pub(super) async fn leave(&mut self) -> Result<Option<String>, Lost> {
        let Some(page) = self.page.take() else {
            return Ok(None);
        };
        let engaged_ms = self.app.clock.boot_ms() - page.opened_ms;
        if engaged_ms >= ENGAGED_MIN_MS {
            let engaged = [("ms", json!(engaged_ms)), ("sc", json!(100))];
            let hit = self.hit(&page, "engagement", &engaged);
            self.tell(&hit).await?;
        }
        Ok(Some(page.url))
    }

    fn hit(&self, page: &Page, event: &str, more: &[(&str, Value)]) -> Value {
        let now = self.app.clock.now().0;
        let mut hit = json!({
            "s": SITE_KEY, "e": event, "u": page.url, "i": self.random(), "n": page.nonce,
            "at": now, "st": now,
        });
        for (name, value) in more {
            hit[*name] = value.clone();
        }
        hit
    }

    /// One hit at a time: the first answer brings the cookie that the next one needs.
    async fn tell(&mut self, hit: &Value) -> Result<(), Lost> {
        let mut request = Request::post("/b")
            .header(HOST, self.collector.address.to_string())
            .header(ORIGIN, &self.origin)
            .header(USER_AGENT, self.agent)
            .header(CONTENT_TYPE, "text/plain;charset=UTF-8");
        if let Some(cookie) = &self.cookie {
            request = request.header(COOKIE, cookie);
        }
        let request = request.body(Full::from(hit.to_string()));
        let request = request.map_err(|error| Lost::Http(error.to_string()))?;
        let answer = self.collector.send(request).await?;
        for header in answer.headers().get_all(SET_COOKIE) {
            let parsed = header.to_str().ok().and_then(|text| Cookie::parse(text).ok());
            if let Some(cookie) = parsed {
                self.cookie = Some(cookie.stripped().to_string());
            }
        }
        Ok(())
    }

    fn random(&self) -> String {
        format!("{:016x}", u64::from_le_bytes(self.app.ids.bytes()))
    }
}
