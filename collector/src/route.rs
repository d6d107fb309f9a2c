//! The collector's paths: method and path to handler, one match.

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, COOKIE, HeaderValue, ORIGIN, USER_AGENT,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};

use crate::app::App;
use crate::config::SecureCookie;
use crate::cookie::{self, Shape, VisitorCookie};
use crate::feedback::{self, Desk};
use crate::ingest::beacon::BeaconLimits;
use crate::ingest::{self, RawHit, Reject, Sender, Taken, beacon, click, pixel};
use crate::privacy::{is_prefetch, wants_no_tracking};
use crate::receipt::Receipt;
use crate::response::{self, Form};
use crate::server::{Body, BodyError, BodyTimeouts, Peer, ServerCounters, plain, read_body};

/// The script, as it stands.
pub const SCRIPT: &str = include_str!("script/m.js");
/// The cookie that says: leave me alone.
const OPT_OUT: &str = "mikomi_optout";
/// How long a page token is good for.
const TOKEN_MS: u64 = 30 * 60 * 1_000;

/// The header that the load token comes in.
const LOAD_TOKEN: &str = "mikomi-load-token";
/// The header that asks for a receipt, and that it comes in.
const RECEIPT: &str = "mikomi-receipt";

/// What a sender is told of where their hits stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LoadWish {
    /// Nothing: they have no load token.
    Nothing,
    /// The position of the last one.
    Position,
    /// A receipt too.
    Receipt,
}

/// A request whose hits were taken and are not answered: all that is kept of it while it waits for
/// the disk. What waits is moved, and there is one for every connection.
struct Asked {
    form: Form,
    peer: Peer,
    origin: Option<String>,
    wish: LoadWish,
    started_ns: u64,
    taken: Result<Taken, Reject>,
}

impl Asked {
    /// Of a sender who wants to be told nothing.
    fn of(form: Form, peer: Peer, taken: Result<Taken, Reject>) -> Asked {
        Asked { form, peer, origin: None, wish: LoadWish::Nothing, started_ns: 0, taken }
    }
}

/// What becomes a request's answer.
type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// What the collector's handler holds.
#[derive(Clone)]
pub struct Collector {
    /// Everything.
    pub app: Arc<App>,
    /// The listener's counters.
    pub counters: Arc<ServerCounters>,
    /// Where sales answers.
    pub desk: Desk,
}

impl Collector {
    /// Answers one request. What can be done at once is done before there is a future: what waits
    /// is small, and holds nothing of the request.
    pub fn handle(self: Arc<Self>, request: Request<Incoming>, peer: Peer) -> Answering {
        let path = request.uri().path();
        let answer = match (request.method(), path) {
            (&Method::GET, "/p.gif") => {
                let asked = self.pixel(&request, peer);
                return Box::pin(self.answer(asked));
            }
            (&Method::POST, "/b") => {
                return Box::pin(self.beacon(request, peer));
            }
            // What a GET would be answered, and nobody has seen anything.
            (&Method::HEAD, "/p.gif") => response::answer(Form::Pixel, Ok(&Taken::default())),
            (&Method::OPTIONS, "/b" | "/p.gif") => {
                let origin = text(request.headers(), ORIGIN.as_str());
                let listed = origin.as_deref().is_some_and(|it| self.app.sites.allow(it));
                response::preflight(origin.as_deref(), listed)
            }
            (&Method::GET | &Method::HEAD, "/m.js") => script(&request),
            (&Method::GET | &Method::HEAD, "/healthz") => plain(StatusCode::OK, "ok\n"),
            (&Method::GET | &Method::HEAD, "/readyz") => self.readiness(),
            (&Method::GET | &Method::HEAD, "/optout") => opt_out_page(),
            (&Method::POST, "/optout") => self.opt_out(&peer),
            (&Method::POST, "/s/feedback") => {
                return Box::pin(self.feedback(request));
            }
            (&Method::POST | &Method::GET | &Method::HEAD, path) if path.starts_with("/f/") => {
                return Box::pin(self.tap(request));
            }
            (_, "/p.gif" | "/b" | "/m.js" | "/healthz" | "/readyz" | "/optout" | "/s/feedback") => {
                self.refuse(Form::Beacon, Reject::Method)
            }
            (_, path) if path.starts_with("/f/") => self.refuse(Form::Beacon, Reject::Method),
            (&Method::GET | &Method::HEAD, _) => self.link(&request, peer),
            _ => self.refuse(Form::Beacon, Reject::UnknownPath),
        };
        Box::pin(ready(answer))
    }

    /// What the sales system answers.
    async fn feedback(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = match self.short_body(body).await {
            Ok(body) => body,
            Err(error) => return error.answer(),
        };
        let desk = self.desk.clone();
        let done = tokio::task::spawn_blocking(move || desk.take(&parts.headers, &body)).await;
        done.unwrap_or_else(|_| self.refuse(Form::Beacon, Reject::NotReady))
    }

    /// A link by which somebody answers with one tap: looked at, or acted on.
    async fn tap(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let acts = parts.method == Method::POST;
        let body = match self.short_body(body).await {
            Ok(body) => body,
            Err(error) => return error.answer(),
        };
        let desk = self.desk.clone();
        let done = tokio::task::spawn_blocking(move || {
            let token = parts.uri.path().strip_prefix("/f/").unwrap_or_default();
            if acts { desk.tap(token, &body) } else { desk.show_tap(token) }
        });
        done.await.unwrap_or_else(|_| self.refuse(Form::Beacon, Reject::NotReady))
    }

    async fn short_body(&self, body: Incoming) -> Result<bytes::Bytes, BodyError> {
        let settings = &self.app.settings.collector;
        let timeouts = BodyTimeouts { pause: settings.body_gap, total: settings.body };
        read_body(body, feedback::BODY_BYTES_MAX, timeouts, &self.counters).await
    }

    /// A link in a mail, or the image that says it was opened. Never waits for the journal.
    fn link(&self, request: &Request<Incoming>, peer: Peer) -> Response<Body> {
        let path = request.uri().path();
        let sender = self.sender(request.headers(), peer, 0);
        let head = request.method() == Method::HEAD;
        if let Some(token) = path.strip_prefix("/c/") {
            let Some(led) = click::click(&self.app, &sender, token, head) else {
                return response::no_such_link();
            };
            let mut response = response::lead_on(&led.to);
            let cookie = led.taken.and_then(|taken| taken.cookie);
            self.set_cookie(&mut response, cookie, &peer);
            return response;
        }
        let opened = path.strip_prefix("/o/").and_then(|path| path.strip_suffix(".gif"));
        if let Some(token) = opened {
            if !head {
                click::open(&self.app, &sender, token);
            }
            // The reader's mail shows no hole, whatever the token is worth.
            return response::answer(Form::Pixel, Ok(&Taken::default()));
        }
        self.refuse(Form::Beacon, Reject::UnknownPath)
    }

    fn set_cookie(
        &self,
        response: &mut Response<Body>,
        cookie: Option<VisitorCookie>,
        peer: &Peer,
    ) {
        let Some(cookie) = cookie else {
            return;
        };
        let value = cookie.sign(&self.app.install.cookie);
        let name = &self.app.settings.cookie.name;
        let header = cookie::set_cookie(name, &value, cookie::LIFE_DAYS, self.shape(peer));
        response::set_cookie(response, &header);
    }

    fn pixel(&self, request: &Request<Incoming>, peer: Peer) -> Asked {
        let query = request.uri().query().unwrap_or_default();
        let hit = pixel::parse(query);
        let sender = self.sender(request.headers(), peer, query.len());
        let wish = self.load_wish(request.headers(), query);
        self.take(Form::Pixel, (sender, wish), &[hit], peer)
    }

    async fn beacon(self: Arc<Self>, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let settings = &self.app.settings;
        let (parts, body) = request.into_parts();
        let timeouts =
            BodyTimeouts { pause: settings.collector.body_gap, total: settings.collector.body };
        let most = settings.limits.batch_bytes_max;
        let asked = match read_body(body, most, timeouts, &self.counters).await {
            Ok(body) if parts.uri.query() == Some("t=1") => {
                return self.token(&parts.headers, &body, peer);
            }
            Ok(body) => self.read(&parts.headers, &body, peer),
            Err(error) => {
                let reject = match error {
                    BodyError::TooLarge { .. } => Reject::BodyTooLarge,
                    BodyError::TimedOut => Reject::BodyTimedOut,
                    BodyError::Broken => Reject::BodyBroken,
                };
                let mut response = self.refuse(Form::Beacon, reject);
                // With the rest of the body still to come, nothing can follow it.
                if let Some(close) = error.answer().headers_mut().remove(CONNECTION) {
                    response.headers_mut().insert(CONNECTION, close);
                }
                self.allow(&mut response, text(&parts.headers, ORIGIN.as_str()).as_deref());
                return response;
            }
        };
        drop(parts);
        self.answer(asked).await
    }

    fn read(&self, headers: &HeaderMap, body: &[u8], peer: Peer) -> Asked {
        let most = &self.app.settings.limits;
        let limits = BeaconLimits {
            hits_max: most.batch_hits_max,
            hit_bytes_max: most.hit_bytes_max,
            depth_max: most.json_depth_max,
        };
        let sender = self.sender(headers, peer, body.len());
        match beacon::parse(body, &limits) {
            Ok(hits) => {
                let wish = self.load_wish(headers, "");
                self.take(Form::Beacon, (sender, wish), &hits, peer)
            }
            Err(reject) => {
                let line = || ingest::refused_line(&self.app, sender.address, reject, "");
                self.app.tell(line);
                let origin = sender.origin;
                Asked { origin, ..Asked::of(Form::Beacon, peer, Err(reject)) }
            }
        }
    }

    fn take(
        &self,
        form: Form,
        (sender, wish): (Sender, LoadWish),
        hits: &[Result<RawHit, Reject>],
        peer: Peer,
    ) -> Asked {
        let started_ns = self.app.clock.boot_ns();
        let taken = ingest::take(&self.app, &sender, hits);
        let origin = sender.origin;
        Asked { origin, wish, started_ns, ..Asked::of(form, peer, taken) }
    }

    /// The answer, as soon as what was taken may be acknowledged.
    async fn answer(self: Arc<Self>, asked: Asked) -> Response<Body> {
        let Asked { form, peer, origin, wish, started_ns, taken } = asked;
        let taken = match taken {
            Ok(taken) => ingest::acknowledge(&self.app, &taken, started_ns).await.map(|()| taken),
            Err(reject) => Err(reject),
        };
        let mut response = match &taken {
            Ok(taken) => {
                let mut response = response::answer(form, Ok(taken));
                self.tell_where(&mut response, taken, wish);
                response
            }
            Err(reject) => self.refuse(form, *reject),
        };
        self.set_cookie(&mut response, taken.ok().and_then(|taken| taken.cookie), &peer);
        self.allow(&mut response, origin.as_deref());
        response
    }

    /// What a sender with the load token wants to be told. Nobody else is told anything.
    fn load_wish(&self, headers: &HeaderMap, query: &str) -> LoadWish {
        let Some(token) = &self.app.settings.collector.load_token else {
            return LoadWish::Nothing;
        };
        if !headers.get(LOAD_TOKEN).is_some_and(|given| token.matches(given.as_bytes())) {
            return LoadWish::Nothing;
        }
        let asked = headers.get(RECEIPT).is_some_and(|value| value == "1")
            || query.split('&').any(|pair| pair == "receipt=1");
        if asked { LoadWish::Receipt } else { LoadWish::Position }
    }

    /// Where the last record of a request stands, which is durable by now.
    fn tell_where(&self, response: &mut Response<Body>, taken: &Taken, wish: LoadWish) {
        let Some(position) = taken.position.filter(|_| wish != LoadWish::Nothing) else {
            return;
        };
        let headers = response.headers_mut();
        headers.insert("mikomi-position", HeaderValue::from(position.0));
        headers.insert("mikomi-received-ms", HeaderValue::from(taken.received.0));
        if wish != LoadWish::Receipt {
            return;
        }
        // When it was answered before it is durable, there is nothing to prove.
        if let Ok(batch) = self.app.journal.batch_of(position) {
            let receipt = Receipt { position, batch }.sign(&self.app.install.alert);
            if let Ok(receipt) = HeaderValue::from_str(&receipt) {
                headers.insert(RECEIPT, receipt);
            }
        }
    }

    /// A short-lived token for pages where no cookie is kept: bound to the site's key and the
    /// page's origin by being signed for them.
    fn token(&self, headers: &HeaderMap, body: &[u8], peer: Peer) -> Response<Body> {
        let sender = self.sender(headers, peer, body.len());
        let site = serde_json::from_slice::<serde_json::Value>(body).ok();
        let site = site.as_ref().and_then(|value| value.get("s")?.as_str());
        let known = site.and_then(|key| self.app.sites.find(key));
        let reject = match (known, sender.origin.as_deref()) {
            (None, _) => Some(Reject::UnknownSite),
            (Some(site), Some(origin)) if !site.site.origins.allow(origin) => Some(Reject::Origin),
            (Some(_), _) => None,
        };
        if let Some(reject) = reject {
            return self.refuse(Form::Beacon, reject);
        }
        let now = self.app.clock.now();
        let id =
            sender.cookie.map_or_else(|| u128::from_le_bytes(self.app.ids.bytes()), |it| it.id);
        let token = crate::token::page_token(
            &self.app.install.visitor,
            &crate::token::Bound {
                id,
                until_ms: now.0 + TOKEN_MS,
                site: site.unwrap_or_default(),
                origin: sender.origin.as_deref().unwrap_or_default(),
            },
        );
        let json = format!("{{\"v\":\"{token}\",\"ttl_ms\":{TOKEN_MS}}}\n");
        let mut response = response::file("application/json", json);
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        self.allow(&mut response, sender.origin.as_deref());
        response
    }

    fn sender(&self, headers: &HeaderMap, peer: Peer, bytes: usize) -> Sender {
        let app = &self.app;
        let (name, keys) = (app.settings.cookie.name.as_str(), &app.install.cookie);
        let mut sender = Sender { bytes, ..Sender::at(peer.address) };
        let mut agent = None;
        // One walk over all of them: a request has ten, and nine may matter here.
        for (header, value) in headers {
            let bytes = value.as_bytes();
            let text = || String::from_utf8_lossy(bytes);
            match *header {
                COOKIE => {
                    let find = || VisitorCookie::find(bytes, name, keys, app.clock.now());
                    sender.cookie = sender.cookie.or_else(find);
                    sender.opted_out |= cookie::values(bytes, OPT_OUT).next().is_some();
                }
                ORIGIN if sender.origin.is_none() => sender.origin = Some(text().into_owned()),
                USER_AGENT if agent.is_none() => agent = Some(text().into_owned()),
                AUTHORIZATION if sender.bearer.is_none() => {
                    let token = text().strip_prefix("Bearer ").map(str::to_owned);
                    sender.bearer = Some(token.unwrap_or_default());
                }
                _ => {
                    sender.gpc |= wants_no_tracking(header, bytes);
                    sender.prefetch |= is_prefetch(header, bytes);
                }
            }
        }
        sender.agent = agent.unwrap_or_default();
        sender
    }

    fn shape(&self, peer: &Peer) -> Shape {
        let settings = &self.app.settings;
        let plain = settings
            .collector
            .public_url
            .as_deref()
            .map_or(!peer.secure, |url| url.starts_with("http://"));
        let secure = match settings.cookie.secure {
            SecureCookie::Auto => !plain,
            SecureCookie::Always => true,
            SecureCookie::Never => false,
        };
        Shape { secure, third_party: settings.cookie.third_party }
    }

    fn allow(&self, response: &mut Response<Body>, origin: Option<&str>) {
        let listed = origin.is_some_and(|origin| self.app.sites.allow(origin));
        response::allow_origin(response, origin, listed);
    }

    fn refuse(&self, form: Form, reject: Reject) -> Response<Body> {
        self.app.metrics.reject(reject);
        response::answer(form, Err(reject))
    }

    fn readiness(&self) -> Response<Body> {
        if !self.app.is_ready() {
            plain(StatusCode::SERVICE_UNAVAILABLE, "not ready: replaying or stopping\n")
        } else if self.app.clock.is_in_doubt() {
            plain(StatusCode::SERVICE_UNAVAILABLE, "not ready: the clock has jumped\n")
        } else if self.app.journal.is_disk_full() {
            // What is known is still shown and told; it ends by itself when there is space.
            plain(StatusCode::SERVICE_UNAVAILABLE, "not ready: the disk is full\n")
        } else if let Some(why) = self.app.stalled.reason() {
            // Hits are still taken and kept; but nobody is told of them.
            let text = format!("not ready: {why}\n");
            let mut response = response::file("text/plain; charset=utf-8", text);
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response
        } else {
            plain(StatusCode::OK, "ready\n")
        }
    }

    fn opt_out(&self, peer: &Peer) -> Response<Body> {
        let mut response = response::file(
            "text/html; charset=utf-8",
            "<!doctype html><meta charset=utf-8><title>Opted out</title><p>この端末の計測を停止しました。\
             <p>This browser is no longer tracked.\n",
        );
        let shape = self.shape(peer);
        let name = &self.app.settings.cookie.name;
        response::set_cookie(&mut response, &cookie::set_cookie(name, "", 0, shape));
        let lasting = cookie::set_cookie(OPT_OUT, "1", cookie::LIFE_DAYS, shape);
        response::set_cookie(&mut response, &lasting);
        response
    }
}

fn opt_out_page() -> Response<Body> {
    response::file(
        "text/html; charset=utf-8",
        "<!doctype html><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>Opt out</title><p>この端末の計測を停止します。<p>Stop tracking this browser.\
         <form method=post><button>停止 / Stop</button></form>\n",
    )
}

fn script(request: &Request<Incoming>) -> Response<Body> {
    let tag = format!("\"{:08x}-{}\"", crc32c::crc32c(SCRIPT.as_bytes()), SCRIPT.len());
    let fresh = text(request.headers(), "if-none-match").is_some_and(|known| known == tag);
    let body = if fresh { "" } else { SCRIPT };
    let mut response = response::file("text/javascript; charset=utf-8", body);
    if fresh {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=3600, stale-if-error=604800"),
    );
    headers.insert("access-control-allow-origin", HeaderValue::from_static("*"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("cross-origin"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert("etag", tag);
    }
    response
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::journal::ReadError;
    use crate::patience::Follows;
    use crate::serve::tests::started;

    #[tokio::test]
    async fn it_is_not_ready_while_nobody_can_be_told() {
        let (_folder, running) = tokio::task::spawn_blocking(started).await.unwrap();
        let app = Arc::clone(&running.app);
        let desk = Desk { app: Arc::clone(&app), log: Arc::default(), endpoints: Arc::default() };
        let collector = Collector { app, counters: Arc::default(), desk };
        assert_eq!(collector.readiness().status(), StatusCode::OK);
        running.app.stalled.note(Follows::Outbox, &ReadError::Lost);
        let answer = collector.readiness();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        let expected = "not ready: the outbox cannot read on: \
                        the record was lost, and the loss accepted\n";
        assert_eq!(text, expected);
        tokio::task::spawn_blocking(|| running.stop()).await.unwrap().unwrap();
    }
}
