//! The Client makes one attempt: one request over a fresh connection, checked, bounded and timed.
//!
//! The receiver's machine is not ours and its address was typed by somebody. So the name is
//! resolved once, every address behind it is vetted, and only a vetted one is dialled; no redirect
//! is followed and no proxy of the environment is used; the head and the body of the answer have
//! limits, and everything from the dial to the end of the answer has one deadline. Nothing is
//! repeated here: a second attempt is the queue's decision. Connections are not kept, since an
//! attempt on a connection that is just being closed fails without anybody's fault.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use engine::time::Timestamp;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{
    CONTENT_TYPE, DATE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT,
};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::address::{Target, TargetHost};
use super::manner::Manner;
use super::queue::Attempt;
use super::{ANSWER_KEPT_MAX, Answer, SendError};

/// Addresses of one name that are dialled, in the resolver's order, until one accepts.
pub const DIALS_MAX: usize = 3;
/// Addresses one name may have; a longer answer is cut by nobody, it is refused.
pub const ADDRESSES_MAX: usize = 64;
/// Bytes of an answer's head.
pub const ANSWER_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Headers of an answer.
pub const ANSWER_HEADERS_MAX: usize = 100;
/// Bytes of an answer's body that are read; a longer one is left unread, and its status counts.
pub const ANSWER_BODY_BYTES_MAX: usize = 64 * 1024;

/// How long each part of an attempt may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Resolving the name, before the dial.
    pub resolve: Duration,
    /// One address accepting the connection.
    pub connect: Duration,
    /// From the first dial to the last byte of the answer.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            resolve: Duration::from_secs(5),
            connect: Duration::from_secs(5),
            total: Duration::from_secs(20),
        }
    }
}

/// What a resolver says about a name.
pub type Resolved = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;
/// Reads our clock.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Who turns names into addresses.
#[derive(Clone)]
pub enum Resolver {
    /// The operating system.
    System,
    /// A function, for tests and for a resolver of one's own.
    Given(Arc<dyn Fn(&str) -> Resolved + Send + Sync>),
}

impl Resolver {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        match self {
            Resolver::System => {
                // The port is only there because the call wants one.
                let found = tokio::net::lookup_host((name, 0)).await?;
                Ok(found.map(|address| address.ip()).collect())
            }
            Resolver::Given(given) => given(name).await,
        }
    }
}

/// Why a client cannot be built.
#[derive(Debug)]
pub enum ClientError {
    /// The extra authorities are not PEM certificates, or there is none in the text.
    Authorities,
    /// The TLS library refuses its own defaults.
    Tls(rustls::Error),
    /// The user agent is no header value.
    UserAgent,
}

impl std::fmt::Display for ClientError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ClientError::Authorities => write!(f, "the extra authorities are not PEM certificates"),
            ClientError::Tls(error) => write!(f, "TLS: {error}"),
            ClientError::UserAgent => write!(f, "the version is no header value"),
        }
    }
}

impl std::error::Error for ClientError {}

/// Makes attempts. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    tls: TlsConnector,
    resolver: Resolver,
    timeouts: Timeouts,
    clock: Clock,
    user_agent: HeaderValue,
}

impl Client {
    /// A client that trusts the public authorities and, if given, those of `extra_ca_pem`.
    pub fn new(
        version: &str,
        resolver: Resolver,
        timeouts: Timeouts,
        clock: Clock,
        extra_ca_pem: Option<&[u8]>,
    ) -> Result<Client, ClientError> {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        if let Some(pem) = extra_ca_pem {
            let before = roots.len();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|_| ClientError::Authorities)?;
                roots.add(certificate).map_err(|_| ClientError::Authorities)?;
            }
            if roots.len() == before {
                return Err(ClientError::Authorities);
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(ClientError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let user_agent = HeaderValue::try_from(format!("mikomi/{version}"))
            .map_err(|_| ClientError::UserAgent)?;
        let tls = TlsConnector::from(Arc::new(config));
        Ok(Client { tls, resolver, timeouts, clock, user_agent })
    }

    /// Makes one attempt. It ends within `resolve` + `total`, whatever the receiver does. 2xx with
    /// a body over the limit is success; a body that has not ended at the deadline is `Deadline`.
    pub async fn send(
        &self,
        target: &Target,
        manner: &Manner,
        attempt: &Attempt,
    ) -> Result<Answer, SendError> {
        let addresses = self.vetted(target).await?;
        let exchange = async {
            let stream = self.dial(&addresses, target.port).await?;
            if !target.tls {
                return self.exchange(stream, target, manner, attempt).await;
            }
            let name = match &target.host {
                TargetHost::Name(name) => {
                    ServerName::try_from(name.clone()).map_err(|_| SendError::Tls)?
                }
                TargetHost::Address(address) => ServerName::IpAddress((*address).into()),
            };
            let stream = self.tls.connect(name, stream).await.map_err(|error| tls_error(&error))?;
            self.exchange(stream, target, manner, attempt).await
        };
        timeout(self.timeouts.total, exchange).await.unwrap_or(Err(SendError::Deadline))
    }

    /// The addresses behind a target, all of them allowed. One that is not refuses them all.
    async fn vetted(&self, target: &Target) -> Result<Vec<IpAddr>, SendError> {
        let addresses = match &target.host {
            TargetHost::Address(address) => vec![*address],
            TargetHost::Name(name) => timeout(self.timeouts.resolve, self.resolver.resolve(name))
                .await
                .map_err(|_| SendError::ResolveTimeout)?
                .map_err(|_| SendError::NotResolved)?,
        };
        if addresses.is_empty() || addresses.len() > ADDRESSES_MAX {
            return Err(SendError::NotResolved);
        }
        if !addresses.iter().all(|address| target.permit.allows(*address)) {
            return Err(SendError::AddressForbidden);
        }
        Ok(addresses)
    }

    async fn dial(&self, addresses: &[IpAddr], port: u16) -> Result<TcpStream, SendError> {
        let mut failure = SendError::ConnectFailed;
        for address in addresses.iter().take(DIALS_MAX) {
            let dial = TcpStream::connect(SocketAddr::new(*address, port));
            match timeout(self.timeouts.connect, dial).await {
                Ok(Ok(stream)) => {
                    // One small message goes out and its answer is waited for.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(_)) => failure = SendError::ConnectFailed,
                Err(_) => failure = SendError::ConnectTimeout,
            }
        }
        Err(failure)
    }

    async fn exchange<S>(
        &self,
        stream: S,
        target: &Target,
        manner: &Manner,
        attempt: &Attempt,
    ) -> Result<Answer, SendError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        // The times of the attempt are read last, so that a slow handshake does not age them.
        let request = self.request(target, manner, attempt, (self.clock)())?;
        let (mut sender, connection) = http1::Builder::new()
            .max_header_size(ANSWER_HEAD_BYTES_MAX)
            .max_buf_size(ANSWER_BODY_BYTES_MAX)
            .max_headers(ANSWER_HEADERS_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| http_error(&error))?;
        // The connection is driven beside the exchange and dropped with it: no task outlives an
        // attempt. When it ends first, the exchange learns so through its own channel.
        let drive = async {
            let _ = connection.await;
            std::future::pending::<Infallible>().await
        };
        let ask = async {
            let response =
                sender.send_request(request).await.map_err(|error| http_error(&error))?;
            self.read(response).await
        };
        tokio::select! {
            answer = ask => answer,
            never = drive => match never {},
        }
    }

    fn request(
        &self,
        target: &Target,
        manner: &Manner,
        attempt: &Attempt,
        now: Timestamp,
    ) -> Result<Request<Full<Bytes>>, SendError> {
        let seconds = now.0 / 1000;
        let id = attempt.message.as_str();
        let body = Full::new(attempt.body.clone());
        let mut request = Request::new(body);
        *request.method_mut() = manner.method.clone();
        // Only a URL that is no request target fails here; the endpoint's settings are at fault.
        let path = target.path_for(id);
        *request.uri_mut() = path.parse().map_err(|_| SendError::NoEndpoint)?;
        let headers = request.headers_mut();
        let authority =
            HeaderValue::try_from(&target.authority).map_err(|_| SendError::NoEndpoint)?;
        headers.insert(HOST, authority);
        headers.insert(CONTENT_TYPE, manner.content_type.clone());
        headers.insert(USER_AGENT, self.user_agent.clone());
        headers.insert("webhook-id", plain(id));
        headers.insert("webhook-timestamp", HeaderValue::from(seconds));
        if let Some(secrets) = &manner.secrets {
            let signature = secrets.sign(id, seconds, &attempt.body);
            headers.insert("webhook-signature", plain(&signature));
        }
        headers.insert("mikomi-sent-at-ms", HeaderValue::from(now.0));
        headers.insert("mikomi-attempt", HeaderValue::from(attempt.attempt));
        if attempt.replay {
            let name = HeaderName::from_static("webhook-replay");
            headers.insert(name, HeaderValue::from_static("true"));
        }
        headers.extend(manner.headers.iter().cloned());
        Ok(request)
    }

    async fn read(&self, response: Response<Incoming>) -> Result<Answer, SendError> {
        let now = (self.clock)();
        let (head, mut body) = response.into_parts();
        let mut kept = BytesMut::new();
        let mut read = 0;
        while read <= ANSWER_BODY_BYTES_MAX {
            let Some(frame) = body.frame().await else {
                break;
            };
            let frame = frame.map_err(|error| http_error(&error))?;
            let Ok(bytes) = frame.into_data() else {
                continue;
            };
            read += bytes.len();
            let room = ANSWER_KEPT_MAX - kept.len();
            kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        Ok(Answer {
            status: head.status.as_u16(),
            retry_after: retry_after(&head.headers, now),
            kept: kept.freeze(),
            skew_ms: date(&head.headers, &DATE).map(|date| date.saturating_sub_unsigned(now.0)),
        })
    }
}

/// A header value of text that was checked to be visible ASCII when it was made.
fn plain(text: &str) -> HeaderValue {
    HeaderValue::try_from(text).expect("ids and base64 are visible ASCII")
}

/// How long `Retry-After` asks to wait: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = date(headers, &RETRY_AFTER)?;
    Some(Timestamp(u64::try_from(date).unwrap_or(0)).since(now))
}

/// A header's HTTP date in milliseconds since the Unix epoch.
fn date(headers: &HeaderMap, name: &HeaderName) -> Option<i64> {
    let text = headers.get(name)?.to_str().ok()?;
    jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(text)
        .ok()
        .map(jiff::Timestamp::as_millisecond)
}

fn tls_error(error: &io::Error) -> SendError {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(_)) => SendError::Certificate,
        Some(_) => SendError::Tls,
        None => SendError::ConnectionLost,
    }
}

fn http_error(error: &hyper::Error) -> SendError {
    if error.is_parse_too_large() {
        SendError::AnswerHeadTooLarge
    } else if error.is_parse() {
        SendError::AnswerMalformed
    } else {
        SendError::ConnectionLost
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;

    use super::super::address::Permit;
    use super::super::manner::header;
    use super::super::sign::{Secrets, SignedHeaders};
    use super::super::{EndpointId, MessageId};
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    /// Tue, 01 Dec 2026 00:00:00 GMT.
    const NOW: Timestamp = Timestamp(1_796_083_200_000);
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

    fn secrets() -> Secrets {
        Secrets::parse([SECRET]).unwrap()
    }

    fn signed() -> Manner {
        Manner::signed(secrets())
    }

    fn attempt() -> Attempt {
        Attempt {
            endpoint: EndpointId::parse("sfa").unwrap(),
            message: MessageId::parse("msg_1").unwrap(),
            attempt: 3,
            replay: false,
            body: Bytes::from_static("{\"名\": \"<b>\"}".as_bytes()),
        }
    }

    fn permit(port: u16) -> Permit {
        Permit {
            allow_http: true,
            allow_ports: vec![port],
            allow_private: vec!["127.0.0.0/8".parse().unwrap()],
        }
    }

    fn target(host: &str, port: u16) -> Target {
        Target::parse(&format!("http://{host}:{port}/hook?a=b"), &permit(port)).unwrap()
    }

    fn resolver(answers: Vec<Vec<&'static str>>) -> (Resolver, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let given = move |_: &str| -> Resolved {
            let turn = count.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
            let found = answers[turn].iter().map(|text| text.parse().unwrap()).collect();
            Box::pin(async move { Ok(found) })
        };
        (Resolver::Given(Arc::new(given)), asked)
    }

    fn client_with(resolver: Resolver, timeouts: Timeouts, ca: Option<&[u8]>) -> Client {
        Client::new("1.2.3", resolver, timeouts, Arc::new(|| NOW), ca).unwrap()
    }

    fn client() -> Client {
        client_with(resolver(vec![vec!["127.0.0.1"]]).0, Timeouts::default(), None)
    }

    fn hasty_client() -> Client {
        let timeouts = Timeouts { total: Duration::from_millis(300), ..Timeouts::default() };
        client_with(resolver(vec![vec!["127.0.0.1"]]).0, timeouts, None)
    }

    async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> String {
        let mut text = Vec::new();
        let body = attempt().body;
        while !text.ends_with(&body) {
            let mut piece = [0; 4096];
            let read = stream.read(&mut piece).await.unwrap();
            assert!(read > 0, "the request ended early");
            text.extend_from_slice(&piece[..read]);
        }
        String::from_utf8(text).unwrap()
    }

    /// A receiver that reads one request and answers with these bytes, then closes.
    async fn receiver(answer: Vec<u8>) -> (u16, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let request = read_request(&mut stream).await;
            // The client may have read enough and gone.
            let _ = stream.write_all(&answer).await;
            request
        });
        (port, task)
    }

    async fn send(client: &Client, port: u16) -> Result<Answer, SendError> {
        client.send(&target("hooks.example", port), &signed(), &attempt()).await
    }

    async fn answer_to(bytes: impl Into<Vec<u8>>) -> Result<Answer, SendError> {
        let (port, _receiver) = receiver(bytes.into()).await;
        send(&client(), port).await
    }

    fn headers_of(request: &str) -> BTreeMap<String, String> {
        let head = request.split("\r\n\r\n").next().unwrap();
        let lines = head.lines().skip(1).map(|line| line.split_once(": ").unwrap());
        lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[tokio::test]
    async fn a_request_carries_the_signed_body_and_every_promised_header() {
        let (port, receiver) = receiver(OK.to_vec()).await;
        let answer = send(&client(), port).await.unwrap();
        assert_eq!((answer.status, &answer.kept[..]), (200, &b"ok"[..]));
        let request = receiver.await.unwrap();
        assert!(request.starts_with("POST /hook?a=b HTTP/1.1\r\n"), "{request}");
        let headers = headers_of(&request);
        for (name, value) in [
            ("host", format!("hooks.example:{port}")),
            ("content-type", "application/json".into()),
            ("user-agent", "mikomi/1.2.3".into()),
            ("content-length", attempt().body.len().to_string()),
            ("webhook-id", "msg_1".into()),
            ("webhook-timestamp", "1796083200".into()),
            ("mikomi-sent-at-ms", "1796083200000".into()),
            ("mikomi-attempt", "3".into()),
        ] {
            assert_eq!(headers.get(name), Some(&value), "{name}");
        }
        assert!(!headers.contains_key("webhook-replay"));
        let signed = SignedHeaders {
            id: &headers["webhook-id"],
            timestamp: &headers["webhook-timestamp"],
            signature: &headers["webhook-signature"],
        };
        assert_eq!(secrets().verify(signed, &attempt().body, NOW), Ok(()));
    }

    #[tokio::test]
    async fn a_manual_resend_says_so() {
        let (port, receiver) = receiver(OK.to_vec()).await;
        let again = Attempt { replay: true, ..attempt() };
        client().send(&target("hooks.example", port), &signed(), &again).await.unwrap();
        assert_eq!(headers_of(&receiver.await.unwrap())["webhook-replay"], "true");
    }

    #[tokio::test]
    async fn a_request_is_made_in_the_endpoint_s_manner() {
        let (port, receiver) = receiver(OK.to_vec()).await;
        let target =
            Target::parse(&format!("http://hooks.example:{port}/x/{{alert_id}}"), &permit(port));
        let manner = Manner {
            method: hyper::Method::PATCH,
            content_type: HeaderValue::from_static("text/plain"),
            headers: vec![header("Authorization", "Bearer swordfish").unwrap()],
            secrets: None,
        };
        client().send(&target.unwrap(), &manner, &attempt()).await.unwrap();
        let request = receiver.await.unwrap();
        assert!(request.starts_with("PATCH /x/msg_1 HTTP/1.1\r\n"), "{request}");
        let headers = headers_of(&request);
        assert_eq!(headers["content-type"], "text/plain");
        assert_eq!(headers["authorization"], "Bearer swordfish");
        assert_eq!(headers["webhook-id"], "msg_1");
        assert!(!headers.contains_key("webhook-signature"), "nobody checks one");
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_is_never_followed() {
        let trap = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        trap.set_nonblocking(true).unwrap();
        let place = trap.local_addr().unwrap();
        let head =
            format!("HTTP/1.1 302 Found\r\nlocation: http://{place}/\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(answer_to(head).await.unwrap().status, 302);
        assert_eq!(trap.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[tokio::test]
    async fn one_forbidden_address_among_good_ones_refuses_the_name_and_dials_nobody() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        for bad in ["10.0.0.1", "169.254.169.254", "::ffff:192.168.0.1", "::1", "fe80::1"] {
            let (resolver, _) = resolver(vec![vec!["127.0.0.1", bad]]);
            let client = client_with(resolver, Timeouts::default(), None);
            assert_eq!(send(&client, port).await, Err(SendError::AddressForbidden), "{bad}");
        }
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[tokio::test]
    async fn a_name_that_is_rebound_between_attempts_is_vetted_again() {
        let (first, _receiver) = receiver(OK.to_vec()).await;
        let (resolver, asked) = resolver(vec![vec!["127.0.0.1"], vec!["10.0.0.1"]]);
        let client = client_with(resolver, Timeouts::default(), None);
        assert_eq!(send(&client, first).await.unwrap().status, 200);
        assert_eq!(asked.load(Ordering::SeqCst), 1, "resolved once, and that was dialled");
        assert_eq!(send(&client, first).await, Err(SendError::AddressForbidden));
    }

    #[tokio::test]
    async fn a_literal_address_is_vetted_at_the_attempt_too_and_asks_no_resolver() {
        let (resolver, asked) = resolver(vec![vec!["127.0.0.1"]]);
        let client = client_with(resolver, Timeouts::default(), None);
        let mut target = target("2130706433", 80);
        assert_eq!(target.host, TargetHost::Address("127.0.0.1".parse().unwrap()));
        target.permit.allow_private.clear();
        let answer = client.send(&target, &signed(), &attempt()).await;
        assert_eq!(answer, Err(SendError::AddressForbidden));
        assert_eq!(asked.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_resolver_that_fails_hangs_or_finds_nothing_is_named() {
        let hang = Resolver::Given(Arc::new(|_| Box::pin(std::future::pending())));
        let hasty = Timeouts { resolve: Duration::from_millis(20), ..Timeouts::default() };
        let client = client_with(hang, hasty, None);
        assert_eq!(send(&client, 80).await, Err(SendError::ResolveTimeout));
        let fail =
            Resolver::Given(Arc::new(|_| Box::pin(async { Err(io::ErrorKind::NotFound.into()) })));
        let client = client_with(fail, Timeouts::default(), None);
        assert_eq!(send(&client, 80).await, Err(SendError::NotResolved));
        for answer in [vec![], vec!["127.0.0.1"; ADDRESSES_MAX + 1]] {
            let client = client_with(resolver(vec![answer]).0, Timeouts::default(), None);
            assert_eq!(send(&client, 80).await, Err(SendError::NotResolved));
        }
    }

    #[tokio::test]
    async fn a_refused_address_is_passed_over_for_the_next_vetted_one() {
        let (port, _receiver) = receiver(OK.to_vec()).await;
        let (one, _) = resolver(vec![vec!["127.0.0.2", "127.0.0.1"]]);
        let found = send(&client_with(one, Timeouts::default(), None), port).await;
        assert_eq!(found.unwrap().status, 200);
        let (none, _) = resolver(vec![vec!["127.0.0.2"]]);
        let refused = send(&client_with(none, Timeouts::default(), None), port).await;
        assert_eq!(refused, Err(SendError::ConnectFailed));
    }

    #[tokio::test]
    async fn a_receiver_that_never_answers_ends_at_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let hold = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream).await;
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await
        });
        assert_eq!(send(&hasty_client(), port).await, Err(SendError::Deadline));
        assert!(hold.await.unwrap().is_ok(), "the connection is closed at the deadline");
    }

    #[tokio::test]
    async fn a_tls_handshake_that_never_ends_is_inside_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = format!("https://hooks.example:{port}/");
        let target = Target::parse(&url, &permit(port)).unwrap();
        let answer = hasty_client().send(&target, &signed(), &attempt()).await;
        assert_eq!(answer, Err(SendError::Deadline));
    }

    #[tokio::test]
    async fn a_body_that_trickles_past_the_deadline_is_a_failure_whatever_its_status() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let trickle = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await.unwrap();
            let mut bytes = 0;
            while stream.write_all(b"x").await.is_ok() {
                bytes += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            bytes
        });
        assert_eq!(send(&hasty_client(), port).await, Err(SendError::Deadline));
        assert!(trickle.await.unwrap() > 1, "it was read until the deadline");
    }

    #[tokio::test]
    async fn a_body_without_end_is_read_to_the_limit_and_its_status_counts() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let flood = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream).await;
            let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(head).await.unwrap();
            let chunk = [b"1000\r\n", &[b'x'; 4096][..], b"\r\n"].concat();
            while stream.write_all(&chunk).await.is_ok() {}
        });
        let answer = send(&client(), port).await.unwrap();
        assert_eq!((answer.status, answer.kept.len()), (200, ANSWER_KEPT_MAX));
        flood.await.unwrap();
    }

    #[tokio::test]
    async fn an_answer_cut_off_is_lost_even_if_it_began_well() {
        let cut = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
        assert_eq!(answer_to(cut).await, Err(SendError::ConnectionLost));
        assert_eq!(answer_to("HTTP/1.1 20").await, Err(SendError::ConnectionLost));
        assert_eq!(answer_to("").await, Err(SendError::ConnectionLost));
    }

    #[tokio::test]
    async fn a_reset_is_a_lost_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let reset = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            // Closing with unread bytes makes the system answer with a reset.
            stream.read_u8().await.unwrap();
        });
        assert_eq!(send(&client(), port).await, Err(SendError::ConnectionLost));
        reset.await.unwrap();
    }

    #[tokio::test]
    async fn a_head_over_its_limits_is_refused_by_name() {
        let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(ANSWER_HEAD_BYTES_MAX));
        assert_eq!(answer_to(long).await, Err(SendError::AnswerHeadTooLarge));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(ANSWER_HEADERS_MAX + 1));
        assert_eq!(answer_to(many).await, Err(SendError::AnswerHeadTooLarge));
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(1 << 20));
        assert_eq!(answer_to(endless).await, Err(SendError::AnswerHeadTooLarge));
    }

    #[tokio::test]
    async fn what_is_not_http_is_refused_by_name() {
        for noise in ["SSH-2.0-OpenSSH_9.6\r\n", "220 mail.example ESMTP\r\n", "\0\0\0\0\0\0\0"] {
            assert_eq!(answer_to(noise).await, Err(SendError::AnswerMalformed), "{noise:?}");
        }
    }

    #[tokio::test]
    async fn retry_after_and_date_are_read_in_their_two_forms() {
        let with = |lines: &str| format!("HTTP/1.1 503 Busy\r\n{lines}content-length: 0\r\n\r\n");
        let seconds = answer_to(with("retry-after: 120\r\n")).await.unwrap();
        assert_eq!(seconds.retry_after, Some(Duration::from_mins(2)));
        assert_eq!(seconds.skew_ms, None);
        let dated =
            "retry-after: Tue, 01 Dec 2026 01:00:00 GMT\r\ndate: Mon, 30 Nov 2026 23:59:50 GMT\r\n";
        let dated = answer_to(with(dated)).await.unwrap();
        assert_eq!(dated.retry_after, Some(Duration::from_hours(1)));
        assert_eq!(dated.skew_ms, Some(-10_000));
        let past = "retry-after: Tue, 01 Dec 2020 01:00:00 GMT\r\n";
        assert_eq!(answer_to(with(past)).await.unwrap().retry_after, Some(Duration::ZERO));
        for odd in ["-5", "soon", "1.5", "99999999999999999999999"] {
            let answer = answer_to(with(&format!("retry-after: {odd}\r\ndate: {odd}\r\n"))).await;
            let answer = answer.unwrap();
            assert_eq!((answer.retry_after, answer.skew_ms), (None, None), "{odd}");
        }
    }

    /// A receiver over TLS whose certificate names `hooks.example`; gives its port, its authority
    /// as PEM, and the name each client asked for.
    async fn tls_receiver() -> (u16, String, Arc<Mutex<Vec<Option<String>>>>) {
        let own = rcgen::generate_simple_self_signed(["hooks.example".to_owned()]).unwrap();
        let pem = own.cert.pem();
        let key = rustls_pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key.unwrap())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let names = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&names);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let name = stream.get_ref().1.server_name().map(str::to_owned);
                seen.lock().unwrap().push(name);
                // A client that mistrusts the certificate goes away instead of asking.
                let mut request = [0; 4096];
                if stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    let _ = stream.write_all(OK).await;
                }
            }
        });
        (port, pem, names)
    }

    #[tokio::test]
    async fn over_tls_the_certificate_must_name_the_host_and_be_signed_by_a_known_authority() {
        let (port, pem, names) = tls_receiver().await;
        let trusting =
            |ca| client_with(resolver(vec![vec!["127.0.0.1"]]).0, Timeouts::default(), ca);
        let at =
            |host: &str| Target::parse(&format!("https://{host}:{port}/"), &permit(port)).unwrap();
        let known = trusting(Some(pem.as_bytes()));
        let good = known.send(&at("hooks.example."), &signed(), &attempt()).await;
        assert_eq!(good.unwrap().status, 200);
        assert_eq!(*names.lock().unwrap(), [Some("hooks.example".to_owned())]);
        for (client, host) in
            [(&trusting(None), "hooks.example"), (&known, "other.example"), (&known, "127.0.0.1")]
        {
            let answer = client.send(&at(host), &signed(), &attempt()).await;
            assert_eq!(answer, Err(SendError::Certificate), "{host}");
        }
    }

    #[tokio::test]
    async fn a_plain_receiver_behind_https_is_a_tls_failure() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        });
        let url = format!("https://hooks.example:{port}/");
        let target = Target::parse(&url, &permit(port)).unwrap();
        let answer = client().send(&target, &signed(), &attempt()).await;
        assert_eq!(answer, Err(SendError::Tls));
    }

    #[test]
    fn extra_authorities_that_are_none_are_refused() {
        let build = |pem: &[u8]| {
            let (resolver, _) = resolver(vec![vec![]]);
            Client::new("1", resolver, Timeouts::default(), Arc::new(|| NOW), Some(pem)).err()
        };
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for bad in [&b""[..], b"hello", broken] {
            assert!(matches!(build(bad), Some(ClientError::Authorities)));
        }
    }
}
