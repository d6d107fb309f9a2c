//! One connection of one browser, blocking: a request, its whole answer, and a new connection
//! when the old one broke.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::http::Answer;

const PATIENCE: Duration = Duration::from_secs(5);

/// The connection.
pub struct Client {
    target: SocketAddr,
    stream: Option<TcpStream>,
}

/// What of an answer a browser keeps.
#[derive(Debug)]
pub struct Kept {
    /// The status.
    pub status: u16,
    /// A new value of the visitor cookie.
    pub cookie: Option<String>,
}

impl Client {
    /// Not connected yet.
    pub fn new(target: SocketAddr) -> Client {
        Client { target, stream: None }
    }

    /// Sends a request and waits for its answer. After an error nobody knows what became of it.
    pub fn exchange(&mut self, request: &[u8]) -> io::Result<Kept> {
        let kept = self.try_exchange(request);
        if kept.is_err() {
            self.stream = None;
        }
        kept
    }

    fn try_exchange(&mut self, request: &[u8]) -> io::Result<Kept> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let stream = TcpStream::connect_timeout(&self.target, PATIENCE)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                none.insert(stream)
            }
        };
        stream.write_all(request)?;
        let mut received = Vec::with_capacity(1_024);
        let mut chunk = [0; 4_096];
        loop {
            let read = stream.read(&mut chunk)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            received.extend_from_slice(&chunk[..read]);
            let answer = Answer::parse(&received);
            let answer = answer.map_err(|_| io::Error::other("an answer is malformed"))?;
            if let Some(answer) = answer {
                let cookie = answer.visitor_cookie().map(str::to_owned);
                return Ok(Kept { status: answer.status, cookie });
            }
        }
    }
}
