//! One connection to whatever is measured: HTTP/1.1 by hyper, with or without TLS. It notes when a
//! request's bytes went out and when the answer's began to come.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::http::uri::{Authority, Scheme};
use hyper::{Request, Response, Uri, http::response};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::measured::Outcome;

/// What is measured: an address, how it is spoken to, and what it is called.
#[derive(Clone)]
pub struct Target {
    /// Scheme, host and port, as in `http://127.0.0.1:8080`.
    pub origin: String,
    /// Host and port, as requests name it.
    pub authority: Authority,
    address: SocketAddr,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Target {
    /// Of a URL; its path does not matter. A certificate is believed if a public authority or one
    /// of those in the file signed it.
    pub fn new(url: &str, authorities: Option<&Path>) -> Result<Target, String> {
        let wrong = |why: &dyn fmt::Display| format!("\"{url}\" cannot be a target: {why}");
        let uri: Uri = url.parse().map_err(|error| wrong(&error))?;
        let authority = uri.authority().ok_or_else(|| wrong(&"it has no host"))?.clone();
        let secure = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err(wrong(&"write http:// or https://")),
        };
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let mut addresses =
            (host.as_str(), port).to_socket_addrs().map_err(|error| wrong(&error))?;
        let address = addresses.next().ok_or_else(|| wrong(&"it has no address"))?;
        let tls = if secure {
            let name = ServerName::try_from(host).map_err(|error| wrong(&error))?;
            Some((connector(authorities)?, name))
        } else {
            None
        };
        let scheme = if secure { "https" } else { "http" };
        Ok(Target { origin: format!("{scheme}://{authority}"), authority, address, tls })
    }

    /// Whether it is this machine.
    pub fn is_local(&self) -> bool {
        self.address.ip().is_loopback()
    }
}

fn connector(authorities: Option<&Path>) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = authorities {
        let wrong = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
        let found = CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?;
        for certificate in found {
            let certificate = certificate.map_err(|error| wrong(&error))?;
            roots.add(certificate).map_err(|error| wrong(&error))?;
        }
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// When bytes last went out, and first came in after that.
#[derive(Default)]
struct Stamps {
    wrote: Cell<Option<Instant>>,
    read: Cell<Option<Instant>>,
}

struct Stamped<S> {
    stream: S,
    stamps: Rc<Stamps>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Stamped<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before && self.stamps.read.get().is_none() {
            self.stamps.read.set(Some(Instant::now()));
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stamped<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stamp();
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stamp();
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S> Stamped<S> {
    /// Just before the first byte of a request.
    fn stamp(&self) {
        if self.stamps.wrote.get().is_none() {
            self.stamps.wrote.set(Some(Instant::now()));
            self.stamps.read.set(None);
        }
    }
}

/// An open connection.
struct Open {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A connection that is opened when it is needed, and again after it broke.
pub struct Connection {
    target: Rc<Target>,
    open: Option<Open>,
    stamps: Rc<Stamps>,
    opened: u64,
}

/// What came of a request.
pub struct Exchanged {
    /// When it was sent; nothing if it never was.
    pub sent: Option<Instant>,
    /// When the first byte of its answer came.
    pub first_byte: Option<Instant>,
    /// The head of the answer, once the body is whole, too; or why there is none.
    pub answer: Result<response::Parts, Outcome>,
}

impl Connection {
    /// Not opened yet.
    pub fn new(target: Rc<Target>) -> Connection {
        Connection { target, open: None, stamps: Rc::default(), opened: 0 }
    }

    /// Connections that it opened since it was last asked.
    pub fn take_opened(&mut self) -> u64 {
        std::mem::take(&mut self.opened)
    }

    /// The next request gets a new one.
    pub fn close(&mut self) {
        self.open = None;
    }

    /// Opens it, so that no request has to wait for that.
    pub async fn open(&mut self) -> io::Result<()> {
        if let Some(open) = &mut self.open
            && open.sender.ready().await.is_ok()
        {
            return Ok(());
        }
        // The first time, or it was closed since its last answer: nobody's fault.
        self.open = None;
        let stream = TcpStream::connect(self.target.address).await?;
        stream.set_nodelay(true)?;
        let stamps = Rc::clone(&self.stamps);
        self.open = Some(match &self.target.tls {
            None => begin(stream, stamps).await?,
            Some((connector, name)) => {
                begin(connector.connect(name.clone(), stream).await?, stamps).await?
            }
        });
        self.opened += 1;
        Ok(())
    }

    /// Sends a request and waits for the whole answer, so long at most.
    pub async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        patience: Duration,
    ) -> Exchanged {
        self.stamps.wrote.set(None);
        let exchanged = tokio::time::timeout(patience, self.try_exchange(request)).await;
        let answer = exchanged.unwrap_or(Err(Outcome::Timeout));
        if answer.is_err() {
            self.open = None;
        }
        Exchanged { sent: self.stamps.wrote.take(), first_byte: self.stamps.read.take(), answer }
    }

    async fn try_exchange(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<response::Parts, Outcome> {
        let answer = match self.send(request).await {
            Ok(answer) => answer,
            // It was closed before it heard of the request: a browser takes another one, too.
            Err((_, Some(request))) => {
                self.open = None;
                self.send(request).await.map_err(|(outcome, _)| outcome)?
            }
            Err((outcome, None)) => return Err(outcome),
        };
        let (head, mut body) = answer.into_parts();
        while let Some(frame) = body.frame().await {
            frame.map_err(|error| outcome(&error))?;
        }
        Ok(head)
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Unsent> {
        self.open().await.map_err(|_| (Outcome::Connect, None))?;
        let Some(open) = &mut self.open else {
            return Err((Outcome::Connect, None));
        };
        // A handshake wrote, too.
        self.stamps.wrote.set(None);
        open.sender.try_send_request(request).await.map_err(|mut failed| {
            let request = failed.take_message();
            (outcome(failed.error()), request)
        })
    }
}

/// Why there is no answer, and the request where it never went out.
type Unsent = (Outcome, Option<Request<Full<Bytes>>>);

async fn begin<S>(stream: S, stamps: Rc<Stamps>) -> io::Result<Open>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let stamped = Stamped { stream, stamps };
    let (sender, connection) = handshake(TokioIo::new(stamped)).await.map_err(io::Error::other)?;
    // How it ends is told by the request that is in flight then.
    let driver = tokio::task::spawn_local(async move { drop(connection.await) });
    Ok(Open { sender, driver })
}

fn outcome(error: &hyper::Error) -> Outcome {
    if error.is_parse() { Outcome::Malformed } else { Outcome::Broken }
}
