//! The admin side: JSON for leads, visitors, deliveries and figures, for people and programs
//! with a token. Its types are its own; no CORS, no cookie but its own.

mod alerts;
mod cards;
mod explain;
mod export;
mod figures;
mod kpi;
mod leads;
mod live;
mod operate;
mod page;
mod past;
mod person;
mod review;
mod rules;
mod sales;
mod survey;
mod unknown;
mod untaken;
mod view;
mod wish;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use engine::engine::StepError;
use engine::id::{LeadId, Position, VisitorId};
use engine::identity::IdentityKind;
use engine::time::Timestamp;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONNECTION, COOKIE, HeaderValue, LOCATION};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};

pub use self::survey::Surveys;
use self::view::View;
use self::wish::{Wish, needed};
use crate::app::App;
use crate::config::{Endpoint, Problem, Surroundings};
use crate::cookie::{self, Shape};
use crate::feedback::Desk;
use crate::journal::ReadError;
use crate::outbox::Log;
use crate::outbox::message::iso;
use crate::reader::Lists;
use crate::response;
use crate::server::{Body, BodyError, BodyTimeouts, Peer, ServerCounters, plain, read_body};
use crate::timeline::{self, Walked};
use crate::tokens::{Role, Tokens};
use crate::webhook::driver::Command;
use crate::webhook::queue::{Figures, Resend};
use crate::webhook::{EndpointId, MessageId};

/// The cookie of a person who used the printed link.
const SESSION: &str = "mikomi_admin";
/// Rows of a list, unless fewer are asked for.
const ROWS_MAX: usize = 500;
/// Records of a timeline.
const TIMELINE_MAX: usize = 2_000;
/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 64 * 1_024;
/// Bytes of a request that brings many people.
const IMPORT_BYTES_MAX: usize = 16 * 1_024 * 1_024;
/// Bytes of a draft of the rules.
const RULES_BYTES_MAX: usize = 1_024 * 1_024;

/// What the admin side's handler holds.
#[derive(Clone)]
pub struct Admin {
    /// Everything.
    pub app: Arc<App>,
    /// The lists.
    pub lists: Arc<Lists>,
    /// The delivery log.
    pub log: Arc<Log>,
    /// Who is told.
    pub endpoints: Arc<ArcSwap<Vec<Endpoint>>>,
    /// To the delivery task.
    pub commands: mpsc::Sender<Command>,
    /// How full its queue is.
    pub queue: watch::Receiver<Figures>,
    /// Who may come in.
    pub tokens: Arc<Tokens>,
    /// The collector's listener.
    pub collector_counters: Arc<ServerCounters>,
    /// This listener.
    pub admin_counters: Arc<ServerCounters>,
    /// Set to have the files read now.
    pub reload: Arc<AtomicBool>,
    /// What is wrong with the files.
    pub problems: Arc<Mutex<Vec<String>>>,
    /// The folder whose lists the rules may name.
    pub surroundings: Arc<Surroundings>,
    /// Where sales answers.
    pub desk: Desk,
    /// What was found by looking at every lead.
    pub surveys: Arc<Surveys>,
    /// Ends streams when the server stops.
    pub stop: watch::Receiver<bool>,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Refusal {
    NoToken,
    /// The token is good, and not for this.
    NotAllowed,
    NotFound,
    Malformed(&'static str),
    /// A field that nobody reads.
    NoSuchField(String),
    TooMuch(&'static str),
    /// Nothing can be kept just now; what became of the cards before `next`.
    CutShort {
        why: &'static str,
        kept: usize,
        next: usize,
        rejected: Vec<Value>,
    },
    /// The lead was erased, and nobody came under its name since.
    Erased(Timestamp),
    /// Older than what is kept: from which record and moment on there is anything.
    NotKept(Position, Timestamp),
    /// The engine refuses a step.
    Step(StepError),
    /// What is wrong with rules.
    Problems(Vec<Problem>),
    Unavailable,
    /// The body is too long, too slow or broken off.
    Body(BodyError),
}

impl Refusal {
    fn answer(self) -> Response<Body> {
        let (status, error, about) = match &self {
            Self::NoToken => (StatusCode::UNAUTHORIZED, "no_token", json!("")),
            Self::NotAllowed => (StatusCode::FORBIDDEN, "not_allowed", json!("")),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found", json!("")),
            Self::Malformed(what) => (StatusCode::BAD_REQUEST, "malformed", json!(what)),
            Self::NoSuchField(field) => {
                let what = format!("there is no field \"{field}\" here");
                (StatusCode::BAD_REQUEST, "malformed", json!(what))
            }
            Self::TooMuch(what) => (StatusCode::UNPROCESSABLE_ENTITY, "too_much", json!(what)),
            Self::CutShort { why, .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable", json!(why))
            }
            Self::Erased(at) => (StatusCode::GONE, "erased", json!(iso(*at))),
            Self::NotKept(first, at) => {
                let kept_from = json!({ "position": first.0, "at": iso(*at) });
                (StatusCode::GONE, "not_kept", json!({ "kept_from": kept_from }))
            }
            Self::Step(error) => (StatusCode::CONFLICT, error.name(), json!(error.to_string())),
            Self::Problems(problems) => {
                let lines: Vec<Value> = problems.iter().map(problem_row).collect();
                (StatusCode::UNPROCESSABLE_ENTITY, "problems", json!(lines))
            }
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", json!("")),
            Self::Body(error) => {
                let name = match error {
                    BodyError::TooLarge { .. } => "too_large",
                    BodyError::TimedOut => "timed_out",
                    BodyError::Broken => "malformed",
                };
                (error.status(), name, json!(error.to_string()))
            }
        };
        let mut says = json!({ "schema": 1, "error": error, "about": about });
        if let Self::CutShort { kept, next, rejected, .. } = &self {
            (says["kept"], says["next"], says["rejected"]) =
                (json!(kept), json!(next), json!(rejected));
        }
        let mut response = answer(&says);
        *response.status_mut() = status;
        // With the rest of a body still to come, nothing can follow it.
        if let Self::Body(error) = self
            && let Some(close) = error.answer().headers_mut().remove(CONNECTION)
        {
            response.headers_mut().insert(CONNECTION, close);
        }
        response
    }
}

fn problem_row(problem: &Problem) -> Value {
    json!({
        "line": problem.line,
        "column": problem.column,
        "message": problem.message,
        "suggestion": problem.suggestion,
        "says": problem.to_string(),
    })
}

fn answer(value: &Value) -> Response<Body> {
    let mut response = response::file("application/json", format!("{value:#}\n"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl Admin {
    /// Answers one request.
    pub async fn handle(self, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let query = Query::of(request.uri().query().unwrap_or_default());
        if path == "/healthz" {
            return plain(StatusCode::OK, "ok\n");
        }
        if let Some(once) = query.get("once").filter(|_| path == "/") {
            return self.let_in(once, peer);
        }
        let Some(role) = self.role(request.headers()) else {
            let lead = path.strip_prefix("/leads/").and_then(LeadId::parse);
            return lead.map_or_else(|| Refusal::NoToken.answer(), page::sign_in);
        };
        if !may(role, request.method(), &path) {
            return Refusal::NotAllowed.answer();
        }
        let outcome = match *request.method() {
            Method::GET => self.get(&path, query).await,
            Method::POST => {
                let timeouts = BodyTimeouts {
                    pause: self.app.settings.collector.body_gap,
                    total: self.app.settings.collector.body,
                };
                let headers = request.headers().clone();
                let most = body_bytes_max(&path);
                match read_body(request.into_body(), most, timeouts, &self.admin_counters).await {
                    // A form on another site must not act with somebody's session.
                    Ok(_) if is_cross_site(&headers) => Err(Refusal::NoToken),
                    Ok(body) => self.post(&path, &query, body).await,
                    Err(error) => Err(Refusal::Body(error)),
                }
            }
            _ => Err(Refusal::NotFound),
        };
        outcome.unwrap_or_else(Refusal::answer)
    }

    async fn get(&self, path: &str, query: Query) -> Result<Response<Body>, Refusal> {
        match path {
            "/" => Ok(page::index()),
            "/api/dead" => Ok(answer(&view::outstanding(self.outstanding().await?))),
            "/api/stream" => Ok(self.stream()),
            "/api/export/hits" => Ok(self.export_hits()),
            path => {
                // What waits for locks and reads the journal holds up nobody's hits.
                let (admin, path) = (self.clone(), path.to_owned());
                let found = tokio::task::spawn_blocking(move || admin.look(&path, &query)).await;
                found.map_err(|_| Refusal::Unavailable)?
            }
        }
    }

    /// By what time it goes, and whether the machine's clock is doubted.
    fn time(&self) -> Value {
        let clock = &self.app.clock;
        let doubted = clock.doubted();
        json!({
            "schema": 1, "now": iso(clock.now()), "in_doubt": doubted.is_some(),
            "ahead_ms": doubted.map(|(ahead_ms, _)| ahead_ms),
            "believed_in_ms": doubted.map(|(_, left_ms)| left_ms),
        })
    }

    fn look(&self, path: &str, query: &Query) -> Result<Response<Body>, Refusal> {
        let view = View::new(&self.app);
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let found = match segments.as_slice() {
            ["leads", id] => return self.lead_page(lead_id(id)?),
            ["metrics"] => return Ok(self.metrics()),
            ["api", "leads"] => self.search(query)?,
            ["api", "export", "leads"] => return self.export_leads(query),
            ["api", "leads", "by"] => self.resolve(query)?,
            ["api", "clock"] => self.time(),
            ["api", "lists"] => self.named_lists(),
            ["api", "figures"] => self.kpi(query)?,
            ["api", "untaken"] => self.untaken(query)?,
            ["api", "hot"] => self.hot(&view, query)?,
            ["api", "rules", rest @ ..] => return rules::get(self, rest),
            ["api", "review"] => self.questions(),
            ["api", "alerts"] => self.feed(query)?,
            ["api", "alerts", "gaps"] => self.gaps(query)?,
            ["api", "alerts", alert, "explain"] => {
                let explained = self.explain(alert)?;
                if query.get("as") == Some("text") {
                    let text = explain::as_text(&explained);
                    return Ok(response::file("text/plain; charset=utf-8", text));
                }
                explained
            }
            ["api", "leads", id] => {
                let id = lead_id(id)?;
                view.lead(id).ok_or_else(|| self.missing(id))?
            }
            ["api", "export", id] => self.export_person(&view, lead_id(id)?)?,
            ["api", "leads", id, "why"] => {
                let id = lead_id(id)?;
                let mut why = view.why(id).ok_or(Refusal::NotFound)?;
                why["held_back"] = view.held_back(&self.log.held(), Some(id));
                why
            }
            ["api", "leads", id, "score"] => self.score_at(lead_id(id)?, query)?,
            ["api", "leads", id, "timeline"] => {
                let lead = self.app.engine.lead(lead_id(id)?).ok_or(Refusal::NotFound)?;
                let from = lead.last_position;
                self.timeline(|app| timeline::of_lead(app, &lead, from, TIMELINE_MAX))?
            }
            ["api", "visitors", id] => {
                view.visitor(visitor_id(id)?, self.app.clock.now()).ok_or(Refusal::NotFound)?
            }
            ["api", "visitors", id, "timeline"] => {
                let now = self.app.clock.now();
                let visitor =
                    self.app.engine.visitor(visitor_id(id)?, now).ok_or(Refusal::NotFound)?;
                self.timeline(|app| timeline::of_visitor(app, visitor.last_position, TIMELINE_MAX))?
            }
            ["api", "deliveries"] => {
                let limit = query.limit()?;
                let (lines, mut held) = (self.log.lines(limit), self.log.held());
                held.truncate(limit);
                let held = view.held_back(&held, None);
                json!({ "schema": 1, "deliveries": lines, "held_back": held })
            }
            ["api", "state"] => self.state(),
            ["api", "problems"] => {
                let known = self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let problems = [known, self.app.audit.problems()].concat();
                json!({ "schema": 1, "problems": problems })
            }
            _ => return Err(Refusal::NotFound),
        };
        Ok(answer(&found))
    }

    async fn post(
        &self,
        path: &str,
        query: &Query,
        body: Bytes,
    ) -> Result<Response<Body>, Refusal> {
        if path.starts_with("/api/rules/") {
            return self.change_rules(path, query, &body).await;
        }
        match path {
            "/api/reload" => {
                Wish::read(&body, &[])?;
                self.reload.store(true, Ordering::Release);
                Ok(answer(&json!({ "schema": 1, "reload": "asked for; see /api/problems" })))
            }
            "/api/snapshot" => {
                Wish::read(&body, &[])?;
                self.app.snapshots.wanted.store(true, Ordering::Release);
                Ok(answer(&json!({ "schema": 1, "snapshot": "asked for; see /metrics" })))
            }
            "/api/deliveries/resend" => self.resend(&body).await,
            "/api/test-clock" => {
                let wish = Wish::read(&body, &["now_ms"])?;
                if !self.app.clock.set(needed(wish.time("now_ms")?, "now_ms")?) {
                    return Err(Refusal::Malformed(
                        "only a test clock can be set, and only forwards",
                    ));
                }
                // The delivery task sleeps by a clock of its own. It ends only when we do.
                let _ = self.commands.send(Command::Look).await;
                Ok(answer(&json!({ "schema": 1, "now": iso(self.app.clock.now()) })))
            }
            "/api/clock" => {
                let wish = Wish::read(&body, &["believe"])?;
                if wish.flag("believe")? != Some(true) {
                    return Err(Refusal::Malformed("\"believe\": true is all there is to say"));
                }
                let moved_ms = self.app.clock.believe();
                tracing::warn!(moved_ms, "the clock is believed by an operator's word");
                // The delivery task sleeps by a clock of its own. It ends only when we do.
                let _ = self.commands.send(Command::Look).await;
                Ok(answer(&json!({
                    "schema": 1, "now": iso(self.app.clock.now()), "moved_ms": moved_ms,
                })))
            }
            path => self.operate(path, body).await,
        }
    }

    async fn resend(&self, body: &[u8]) -> Result<Response<Body>, Refusal> {
        let wish = Wish::read(body, &["endpoint", "alert", "since_ms"])?;
        let endpoint = wish.parsed("endpoint", |id| EndpointId::parse(id).ok())?;
        let endpoint = needed(endpoint, "endpoint")?;
        let alert = wish.parsed("alert", |id| MessageId::parse(id).ok())?;
        let which = match (alert, wish.time("since_ms")?) {
            (Some(alert), None) => Resend::One(alert),
            (None, Some(since)) => Resend::Since(since),
            _ => return Err(Refusal::Malformed("one of \"alert\" and \"since_ms\"")),
        };
        let sent = self.commands.send(Command::Resend { endpoint, which }).await;
        sent.map_err(|_| Refusal::Unavailable)?;
        Ok(answer(&json!({ "schema": 1, "resend": "asked for; see /api/deliveries" })))
    }

    async fn outstanding(&self) -> Result<Vec<crate::webhook::queue::Outstanding>, Refusal> {
        let (sender, receiver) = oneshot::channel();
        let asked = self.commands.send(Command::Outstanding(sender)).await;
        asked.map_err(|_| Refusal::Unavailable)?;
        receiver.await.map_err(|_| Refusal::Unavailable)
    }

    /// Why there is no such lead.
    fn missing(&self, id: LeadId) -> Refusal {
        let erased = self.app.engine.erasure(id);
        erased.map_or(Refusal::NotFound, |(_, at)| Refusal::Erased(at))
    }

    /// The lead of a name, whoever's it is now.
    fn resolve(&self, query: &Query) -> Result<Value, Refusal> {
        let (id, test) = (query.get("site").unwrap_or_default(), query.flag("test")?);
        let site = self.app.sites.of_id(id, test).ok_or(Refusal::Malformed("site"))?;
        let named = |kind: IdentityKind| Some((kind, query.get(kind.name())?));
        let (kind, value) =
            IdentityKind::ORDER.into_iter().find_map(named).ok_or(Refusal::Malformed("name"))?;
        let name = operate::lead_of(&self.app, site, kind, value)?;
        let known = self.app.engine.known(name).ok_or(Refusal::NotFound)?;
        Ok(json!({ "schema": 1, "name": name.to_string(), "lead": known.head.to_string() }))
    }

    fn timeline(
        &self,
        read: impl FnOnce(&App) -> Result<Walked, ReadError>,
    ) -> Result<Value, Refusal> {
        let Walked { records, begins_later } =
            read(&self.app).map_err(|error| self.unread(&error))?;
        let mut shown = View::new(&self.app).timeline(&records);
        // Where it begins, if there was more.
        shown["kept_from"] = if begins_later { self.kept_from() } else { Value::Null };
        Ok(shown)
    }

    /// The first record that is kept and its time; null if everything is.
    fn kept_from(&self) -> Value {
        let first = timeline::kept_from(&self.app);
        first.map_or(Value::Null, |(first, at)| json!({ "position": first.0, "at": iso(at) }))
    }

    /// Why a record that something is about is not read.
    fn unread(&self, error: &ReadError) -> Refusal {
        match (error, timeline::kept_from(&self.app)) {
            (ReadError::Removed { .. }, Some((first, at))) => Refusal::NotKept(first, at),
            _ => Refusal::Unavailable,
        }
    }

    fn state(&self) -> Value {
        let app = &self.app;
        let now = app.clock.now();
        let (visitors, leads) = app.engine.sizes();
        json!({
            "schema": 1,
            "now": iso(now),
            "now_ms": now.0,
            "hash": format!("{:032x}", app.engine.state_hash(now)),
            "durable": app.journal.durable().0,
            "incarnation": app.journal.incarnation(),
            "visitors": visitors,
            "leads": leads,
            "rules_version": app.scoring.load().scoring.version,
            "kept_from": self.kept_from(),
        })
    }

    fn role(&self, headers: &HeaderMap) -> Option<Role> {
        let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        if let Some(token) = bearer.and_then(|value| value.strip_prefix("Bearer ")) {
            return self.tokens.role(token);
        }
        let cookies = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
        let mut sessions = cookies.flat_map(|header| cookie::values(header, SESSION));
        sessions.find_map(|token| self.tokens.role(std::str::from_utf8(token).ok()?))
    }

    fn let_in(&self, once: &str, peer: Peer) -> Response<Body> {
        let Ok(Some(token)) = self.tokens.exchange(once, &self.app.ids) else {
            return Refusal::NoToken.answer();
        };
        let shape = Shape { secure: peer.secure, third_party: false };
        let lasting = cookie::set_cookie(SESSION, &token, 30, shape);
        let mut response = plain(StatusCode::SEE_OTHER, "");
        response.headers_mut().insert(LOCATION, HeaderValue::from_static("/"));
        response::set_cookie(&mut response, &lasting.replace("SameSite=Lax", "SameSite=Strict"));
        response
    }
}

/// What a role may ask for.
fn may(role: Role, method: &Method, path: &str) -> bool {
    match role {
        Role::Admin => true,
        Role::Alerts => method == Method::GET && path == "/api/alerts",
    }
}

/// How much a request may say.
fn body_bytes_max(path: &str) -> usize {
    match path {
        "/api/import" | "/api/identify" | "/api/attributes" | "/api/mail-links" => IMPORT_BYTES_MAX,
        path if path.starts_with("/api/rules/") => RULES_BYTES_MAX,
        _ => BODY_BYTES_MAX,
    }
}

fn is_cross_site(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    site.is_some_and(|site| site != b"same-origin" && site != b"none")
}

fn lead_id(text: &str) -> Result<LeadId, Refusal> {
    LeadId::parse(text).ok_or(Refusal::Malformed("lead"))
}

fn visitor_id(text: &str) -> Result<VisitorId, Refusal> {
    VisitorId::parse(text).ok_or(Refusal::Malformed("visitor"))
}

/// A moment: milliseconds since the epoch, or ISO 8601 with an offset.
fn parse_time(text: &str) -> Option<Timestamp> {
    if let Ok(millis) = text.parse() {
        return Some(Timestamp(millis));
    }
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_millisecond()).ok().map(Timestamp)
}

/// Names in one query.
const QUERY_WORDS_MAX: usize = 32;

struct Query(Vec<(String, String)>);

impl Query {
    fn of(query: &str) -> Query {
        let words = form_urlencoded::parse(query.as_bytes()).into_owned();
        Query(words.take(QUERY_WORDS_MAX + 1).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Every value of a name.
    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether it says nothing else.
    fn only(&self, known: &[&str]) -> Result<(), Refusal> {
        if self.0.len() > QUERY_WORDS_MAX {
            return Err(Refusal::TooMuch("query"));
        }
        match self.0.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            Some((unknown, _)) => Err(Refusal::NoSuchField(unknown.clone())),
            None => Ok(()),
        }
    }

    /// Whether something is asked for. Another word is refused: it must not mean no.
    fn flag(&self, name: &'static str) -> Result<bool, Refusal> {
        match self.get(name) {
            None | Some("0" | "false") => Ok(false),
            Some("1" | "true") => Ok(true),
            Some(_) => Err(Refusal::Malformed(name)),
        }
    }

    fn days(&self) -> Result<Option<u64>, Refusal> {
        let days =
            self.get("days").map(|text| text.parse().map_err(|_| Refusal::Malformed("days")));
        days.transpose()
    }

    fn limit(&self) -> Result<usize, Refusal> {
        match self.get("limit") {
            None => Ok(100),
            Some(text) => match text.parse() {
                Ok(limit) if limit <= ROWS_MAX => Ok(limit),
                Ok(_) => Err(Refusal::TooMuch("limit")),
                Err(_) => Err(Refusal::Malformed("limit")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::ingest::{self, RawHit, Sender};
    use crate::serve::tests::started;

    /// The admin side of a server that runs, and a list that nobody follows.
    fn admin(app: &Arc<App>, folder: &std::path::Path) -> Admin {
        Admin {
            app: Arc::clone(app),
            lists: Arc::default(),
            log: Arc::default(),
            endpoints: Arc::default(),
            commands: mpsc::channel(1).0,
            queue: watch::channel(Figures::default()).1,
            tokens: Arc::new(Tokens::open(folder, &app.ids).0),
            collector_counters: Arc::default(),
            admin_counters: Arc::default(),
            reload: Arc::default(),
            problems: Arc::default(),
            surroundings: Arc::default(),
            desk: Desk::new(app, &Arc::default(), &Arc::default()),
            surveys: Arc::default(),
            stop: watch::channel(false).1,
        }
    }

    #[tokio::test]
    async fn what_waits_for_a_lock_holds_up_nobody_else() {
        let (folder, running) = tokio::task::spawn_blocking(started).await.unwrap();
        let admin = admin(&running.app, folder.path());
        let locked = admin.problems.lock().unwrap();
        let mut asked = Box::pin(admin.get("/api/problems", Query::of("")));
        // This thread gives up waiting at once; were the lock waited for here, it never would.
        let first = asked.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(first, Poll::Pending));
        drop(locked);
        assert_eq!(asked.await.unwrap().status(), StatusCode::OK);
        tokio::task::spawn_blocking(|| running.stop()).await.unwrap().unwrap();
    }

    #[test]
    fn a_history_that_is_too_long_is_not_shown_in_part() {
        let (folder, running) = started();
        let admin = admin(&running.app, folder.path());
        let site = running.app.sites.all()[0].site.keys[0].clone();
        let hit = RawHit {
            site,
            event: "identify".into(),
            identities: vec![(IdentityKind::Email, "a@first.example".into())],
            ..RawHit::default()
        };
        let hits = vec![Ok(hit.clone()), Ok(hit.clone()), Ok(hit)];
        let taken = ingest::take(&running.app, &Sender::trusted(), &hits).unwrap();
        let last = taken.position.unwrap();
        running.app.journal.wait_blocking(last).unwrap();
        let site = &running.app.sites.all()[0];
        let kind = IdentityKind::Email;
        let lead = operate::lead_of(&running.app, site, kind, "a@first.example").unwrap();
        assert_eq!(admin.history(lead, last, 4).unwrap().records.len(), 3);
        let refused = admin.history(lead, last, 3).unwrap_err();
        assert_eq!(refused, Refusal::TooMuch("records of one lead"));
        running.stop().unwrap();
    }
}
