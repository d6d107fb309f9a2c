//! A small HTTP/1.1 client: one connection, kept open, no retries.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::GUARD;

/// A connection this old may have been closed by the other side.
const FRESH: Duration = Duration::from_secs(10);

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    /// All that the other side sees: head and body.
    pub fn raw(&self) -> String {
        let headers = self.headers.iter().map(|(name, value)| format!("{name}: {value}\n"));
        format!("{}\n{}\n{}", self.status, headers.collect::<String>(), self.text())
    }
}

/// A client of one address.
pub struct Client {
    address: SocketAddr,
    open: Option<(BufReader<TcpStream>, Instant)>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Client {
        Client { address, open: None }
    }

    /// Sends a request and reads its answer.
    pub fn send(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        let mut head = format!("{method} {target} HTTP/1.1\r\nhost: {}\r\n", self.address);
        if method != "GET" && method != "HEAD" {
            let _ = write!(head, "content-length: {}\r\n", body.len());
        }
        for (name, value) in headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head.push_str("\r\n");
        let mut request = head.into_bytes();
        request.extend_from_slice(body);
        self.send_bytes(&request, method == "HEAD")
    }

    /// Sends a request as it stands.
    pub fn send_bytes(&mut self, request: &[u8], head_only: bool) -> io::Result<Answer> {
        let fresh = self.open.take().filter(|(_, used)| used.elapsed() < FRESH);
        let mut stream = if let Some((stream, _)) = fresh {
            stream
        } else {
            let stream = TcpStream::connect_timeout(&self.address, GUARD)?;
            stream.set_read_timeout(Some(GUARD))?;
            stream.set_nodelay(true)?;
            BufReader::new(stream)
        };
        stream.get_mut().write_all(request)?;
        let answer = read_answer(&mut stream, head_only)?;
        if answer.header("connection") != Some("close") {
            self.open = Some((stream, Instant::now()));
        }
        Ok(answer)
    }
}

fn read_answer(stream: &mut impl BufRead, head_only: bool) -> io::Result<Answer> {
    let first = read_line(stream)?;
    let status = first.split(' ').nth(1).and_then(|text| text.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no status: {first}")))?;
    let mut answer = Answer { status, ..Answer::default() };
    loop {
        let line = read_line(stream)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| io::Error::other(line.clone()))?;
        answer.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    if head_only || matches!(status, 204 | 304) {
        return Ok(answer);
    }
    if answer.header("transfer-encoding") == Some("chunked") {
        loop {
            let line = read_line(stream)?;
            let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk)?;
            if size == 0 {
                return Ok(answer);
            }
            answer.body.extend_from_slice(&chunk[..size]);
        }
    }
    match answer.header("content-length").map(str::parse) {
        Some(Ok(bytes)) => {
            answer.body.resize(bytes, 0);
            stream.read_exact(&mut answer.body)?;
        }
        Some(Err(_)) => return Err(io::Error::other("no length")),
        None => {
            stream.read_to_end(&mut answer.body)?;
        }
    }
    Ok(answer)
}

fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    line.pop_if(|byte| *byte == b'\r');
    Ok(String::from_utf8_lossy(&line).into_owned())
}
