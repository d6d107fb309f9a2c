//! What is asked of the server's admin side: its hits, its leads and its figures.

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, HOST};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use std::borrow::Cow;

use super::account::Recorded;
use super::heard::{millis_of, thousandths};
use super::judge::{SeenLead, SeenRow};
use super::sent::of_title;

/// The admin side of a server.
pub struct Admin {
    host: String,
    bearer: String,
    runtime: Runtime,
    open: Option<SendRequest<Empty<Bytes>>>,
}

/// A line of the export of hits, as far as it is looked at.
#[derive(Deserialize)]
struct Line<'a> {
    position: u64,
    #[serde(borrow)]
    received: Cow<'a, str>,
    when_ms: u64,
    #[serde(borrow)]
    visitor: Option<Cow<'a, str>>,
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    path: Cow<'a, str>,
    #[serde(borrow)]
    title: Cow<'a, str>,
    #[serde(borrow)]
    excluded: Option<Cow<'a, str>>,
}

impl Admin {
    /// By its address, as in `http://127.0.0.1:8081`, and its token.
    pub fn new(url: &str, token: &str) -> Result<Admin, String> {
        let host = url.strip_prefix("http://").map(|host| host.trim_end_matches('/'));
        let host =
            host.ok_or_else(|| format!("\"{url}\" cannot be asked: write http://HOST:PORT"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let bearer = format!("Bearer {token}");
        Ok(Admin { host: host.to_owned(), bearer, runtime, open: None })
    }

    fn ask(&mut self, path: &str, each: &mut dyn FnMut(&[u8])) -> Result<u16, String> {
        let Admin { host, bearer, runtime, open } = self;
        let done = runtime.block_on(async {
            let mut sender = match open.take().filter(SendRequest::is_ready) {
                Some(sender) => sender,
                None => connect(host).await?,
            };
            let request = Request::get(path)
                .header(HOST, host.as_str())
                .header(AUTHORIZATION, bearer.as_str())
                .body(Empty::new())
                .map_err(|error| error.to_string())?;
            let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let status = answer.status().as_u16();
            read(answer.into_body(), each).await?;
            if sender.ready().await.is_ok() {
                *open = Some(sender);
            }
            Ok::<u16, String>(status)
        });
        done.map_err(|why| format!("{}{path}: {why}", self.host))
    }

    fn json(&mut self, path: &str) -> Result<Option<Value>, String> {
        let mut body = Vec::new();
        let status = self.ask(path, &mut |bytes| body.extend_from_slice(bytes))?;
        match status {
            404 => Ok(None),
            200 => {
                serde_json::from_slice(&body).map(Some).map_err(|error| format!("{path}: {error}"))
            }
            _ => Err(format!("{path} answers {status}")),
        }
    }

    /// One of its figures.
    pub fn figure(&mut self, name: &str) -> Result<f64, String> {
        let mut body = Vec::new();
        self.ask("/metrics", &mut |bytes| body.extend_from_slice(bytes))?;
        let text = String::from_utf8_lossy(&body);
        let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
        let found = lines.filter(|(known, _)| *known == name).find_map(|(_, it)| it.parse().ok());
        found.ok_or_else(|| format!("{}/metrics has no {name}", self.host))
    }

    /// A lead, by the name that it goes by.
    pub fn lead(
        &mut self,
        site: &str,
        test: bool,
        email: &str,
    ) -> Result<Option<SeenLead>, String> {
        let path = format!("/api/leads/by?site={site}&email={email}&test={}", u8::from(test));
        let Some(known) = self.json(&path)? else {
            return Ok(None);
        };
        let id = known["lead"].as_str().unwrap_or_default();
        let path = format!("/api/leads/{id}");
        let found = self.json(&path)?;
        found.map(|lead| lead_of(&lead).ok_or_else(|| format!("{path} cannot be read"))).transpose()
    }

    /// All of its hits, in the order of its journal.
    pub fn hits(&mut self, each: &mut dyn FnMut(&Recorded)) -> Result<(), String> {
        let (mut rest, mut broken) = (Vec::new(), None);
        let status = self.ask("/api/export/hits", &mut |bytes| {
            rest.extend_from_slice(bytes);
            let mut from = 0;
            while let Some(end) = rest[from..].iter().position(|byte| *byte == b'\n') {
                match recorded(&rest[from..from + end]) {
                    Some(record) => each(&record),
                    None => {
                        broken.get_or_insert(String::from_utf8_lossy(&rest[from..]).into_owned());
                    }
                }
                from += end + 1;
            }
            rest.drain(..from);
        })?;
        match broken {
            Some(line) => Err(format!("an exported hit cannot be read: {line:.300}")),
            None if status != 200 || !rest.is_empty() => {
                Err(format!("the export of hits ends with {status} and half a line"))
            }
            None => Ok(()),
        }
    }
}

async fn connect(host: &str) -> Result<SendRequest<Empty<Bytes>>, String> {
    let stream = TcpStream::connect(host).await.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let (sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // How it ends is told by the request that is in flight then.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

async fn read(mut body: Incoming, each: &mut dyn FnMut(&[u8])) -> Result<(), String> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        if let Some(bytes) = frame.data_ref() {
            each(bytes);
        }
    }
    Ok(())
}

fn recorded(line: &[u8]) -> Option<Recorded> {
    let line: Line<'_> = serde_json::from_slice(line).ok()?;
    let visitor =
        line.visitor.as_deref().map(|id| id.trim_start_matches(|it: char| !it.is_ascii_hexdigit()));
    Some(Recorded {
        position: line.position,
        hit: of_title(&line.title),
        received: millis_of(&line.received)?,
        when: line.when_ms,
        visitor: visitor.and_then(|id| u128::from_str_radix(id, 16).ok()).unwrap_or_default(),
        what: (line.event.into_owned(), line.path.into_owned()),
        robot: line.excluded.as_deref() == Some("robot"),
    })
}

fn lead_of(lead: &Value) -> Option<SeenLead> {
    let score = &lead["score"];
    let row = |row: &Value| {
        Some(SeenRow {
            key: (
                row["when"].as_str().and_then(millis_of)?,
                row["position"].as_u64()?,
                row["order"].as_u64()? as u16,
            ),
            rule: row["rule"].as_str()?.to_owned(),
            granted: thousandths(&row["granted"])?,
        })
    };
    let rows = score["rows"].as_array()?.iter().map(row).collect::<Option<Vec<_>>>()?;
    let at = score["at"].as_str().and_then(millis_of)?;
    Some(SeenLead { at, exact: thousandths(&score["exact"])?, rows })
}
